//! `/invoke` of llm-exe-lambda: a prompt with variables in, a text, a list or JSON out.
//!
//! # What comes in
//! - The payload itself, or in one of the events that a Lambda function gets: API Gateway's proxy event (`httpMethod` and
//!   `path`), that of a function URL (`requestContext.http`), that of a Bedrock agent (`agent.input`). Bodies in base64 are
//!   decoded, texts parsed. To the first two kinds the answer, a failure too, is `{statusCode, headers, body}`, and the HTTP
//!   status the same; that to a load balancer's has `isBase64Encoded` too, and lists of header values where its event has
//!   them. `Records` are refused. The parameters of an event's query say nothing to this API, as to the original.
//! - `provider` (or `providor`) and `model` name the target: `openai/…`, `anthropic/…`, `bedrock/…` for `amazon:anthropic`
//!   and `amazon:meta`, and `NAME/…` for any other provider, which the gateway knows or not.
//! - `key`, with `version`, names a stored configuration `<key>.<version or latest>.json`, else `.md`. Of the request
//!   beside it only `data` counts: its members replace stored ones of the same name. Nothing else overrides what is stored.
//! - Members that this API does not have go to the backend's adapter, which refuses them by name.
//! - `stream: true` is refused: an answer is checked before it is given.
//!
//! # Messages
//! - One string is the system's. Strings in a list are the system's, the user's, the assistant's, the user's and so on, an
//!   empty one skips its turn. Objects keep their order.
//! - Anthropic's family (`anthropic`, `amazon:anthropic`, and models that have `claude` or `anthropic` in their names) knows
//!   no conversation without a user: where all messages are the system's, the last one is the user's.
//! - `amazon:meta` gets one text to continue, in Llama 3's template, with `prompt_format` `plain-dialogue` as plain
//!   dialogue; `chat` passes messages.
//! - Templates are those of [`template`]. Variables are the members of `data`, and with `output: json` `schema`.
//!
//! # What goes out
//! - `string` is the model's text without a change; `list` as [`output::list`] says; `json` is one value found in the text,
//!   filled with the schema's defaults, then checked. What fails is 502 `output_parse_failed`, with the model's text, its
//!   first 8 KiB. `retries: 1` shows the model its error first, once; without it no second question is asked. Where a
//!   payload says nothing of `retries` and `escape`, the operator's settings of these names count.
//! - With `functions` it is a list of `{type: "text", text}` and `{type: "function_use", functionId, name, input}`.
//! - OpenAI's models get the schema as their response format; others in the first message.
//! - Members of objects, in answers, schemas and loops, come in the order of their names.
//! - A failure is `{"error": …}`; where the original has words for it, those, and `detail` says more. With the setting
//!   `legacy_status` all of them are 500.

mod envelope;
mod front_matter;
mod helpers;
mod output;
mod payload;
mod prompt;
mod render;
mod schema;
mod template;
mod validate;

use serde_json::{Map, Value};
use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Reply, Step};
use witgate_model::{CompletionPrompt, Error, ErrorKind, Input, JsonSchema, Request, ResponseFormat};

use self::envelope::Envelope;
use self::payload::{Output, Payload};
use self::render::State;
use crate::openai::{json_answer, read_body};
use crate::read::Reader;
use crate::{Dialect, Render};

const NAME: &str = "llm-exe";

/// The providers whose names the original has.
const OPENAI: &str = "openai";
const ANTHROPIC: &str = "anthropic";
const AMAZON_ANTHROPIC: &str = "amazon:anthropic";
const META: &str = "amazon:meta";

/// What the original says of a wrong request: a code of ours, and its words.
type Words = (&'static str, &'static str);

const INVALID_EVENT: Words = ("invalid_event", "Invalid event");
const INVALID_MESSAGE: Words = ("invalid_message", "Invalid message");
const INVALID_FORMAT: Words = ("invalid_format", "Invalid format");
const INVALID_MODEL: Words = ("invalid_model", "Invalid model");
const INVALID_PROVIDER: Words = ("invalid_provider", "Invalid providor type");
const INVALID_OUTPUT: Words = ("invalid_output", "Invalid output type");
const NO_SCHEMA: Words = ("schema_required", "Output type of json requires schema");

const WORDS: [Words; 7] =
    [INVALID_EVENT, INVALID_MESSAGE, INVALID_FORMAT, INVALID_MODEL, INVALID_PROVIDER, INVALID_OUTPUT, NO_SCHEMA];

/// The code of the gateway for a model that it does not know: here, a provider.
const UNKNOWN_MODEL: &str = "model_not_found";

fn invalid(words: Words, param: &str, detail: impl Into<String>) -> Error {
    let error = Error::new(ErrorKind::InvalidRequest, detail).with_code(words.0).with_status(400);
    if param.is_empty() { error } else { error.with_param(param) }
}

/// The dialect `llm-exe`.
pub(crate) struct LlmExe;

impl Dialect for LlmExe {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/invoke")]
    }

    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        let client = Client { method: "POST".to_owned(), path: path.to_owned(), ..Client::default() };
        match self.step(&client, limits, body)? {
            Step::Ask(parsed) | Step::Follow(parsed) => Ok(parsed),
            _ => Err(Error::invalid("", "the request is not for a backend")),
        }
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        let event = parse(body, limits.depth)?;
        let envelope = envelope::of(&event);
        match step(event, envelope, client, limits) {
            Err(error) if envelope != Envelope::None => {
                let failure = Failure {
                    error,
                    error_type: String::new(),
                    provider: None,
                    request_id: String::new(),
                    upstream: None,
                    attempts: Vec::new(),
                };
                let rendered = envelope.wrap(self.refuse(&client.settings, &failure));
                Ok(Step::Answer(Reply { rendered, forget: Vec::new() }))
            }
            other => other,
        }
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        self.refuse("", failure)
    }

    fn refuse(&self, settings: &str, failure: &Failure) -> Rendered {
        let error = &failure.error;
        let code = error.code.as_deref().filter(|_| failure.provider.is_none());
        let words = match code {
            Some(UNKNOWN_MODEL) => Some(INVALID_PROVIDER),
            code => WORDS.into_iter().find(|words| Some(words.0) == code),
        };
        let status = match words {
            _ if legacy(settings) => 500,
            Some(_) => 400,
            None => crate::status(error),
        };
        json_answer(status, error_body(words.map(|words| words.1), error))
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        Box::new(render::Answer::new(&start.render))
    }
}

/// Whether the operator wants the statuses of the original.
fn legacy(settings: &str) -> bool {
    let settings: Value = serde_json::from_str(settings).unwrap_or_default();
    settings.get("legacy_status") == Some(&Value::Bool(true))
}

/// `{"error": …}`: the original's words and ours in detail, or only ours.
fn error_body(words: Option<&str>, error: &Error) -> Vec<u8> {
    let mut members = Map::new();
    members.insert("error".to_owned(), words.unwrap_or(&error.message).into());
    if words.is_some() {
        members.insert("detail".to_owned(), error.message.clone().into());
    }
    Value::Object(members).to_string().into_bytes()
}

/// A JSON text: strictly read, with nesting up to `depth`.
fn parse(text: &[u8], depth: u32) -> Result<Value, Error> {
    // This parser recurses: its own bound is 128.
    let text = read_body(text, depth.min(120), Reader::raw).map_err(|mut error| {
        error.code = Some(INVALID_EVENT.0.to_owned());
        error
    })?;
    serde_json::from_str(text).map_err(|error| invalid(INVALID_EVENT, "", format!("invalid JSON: {error}")))
}

/// What is to be done with an event.
fn step(event: Value, envelope: Envelope, client: &Client, limits: &Limits) -> Result<Step, Error> {
    let mut payload = envelope::open(event, limits.depth)?;
    if let Some(at) = payload::stored(&payload)? {
        if client.documents.is_empty() {
            return Ok(Step::Needs(at.into()));
        }
        payload = payload::load(payload, &at, &client.documents, limits.depth)?;
    }
    let payload = Payload::new(payload, &client.settings)?;
    ask(payload, envelope, client, limits)
}

/// The question to a backend that a payload means.
fn ask(payload: Payload, envelope: Envelope, client: &Client, limits: &Limits) -> Result<Step, Error> {
    let Payload { provider, model, data, output, .. } = payload;
    let (family, most_tokens) = match provider.as_str() {
        ANTHROPIC => (true, Some(4096)),
        AMAZON_ANTHROPIC => (true, Some(10_000)),
        META => (false, Some(2048)),
        _ => (model.contains("claude") || model.contains("anthropic"), None),
    };
    let mut variables = data;
    if let Output::Json(schema) = &output {
        variables.insert("schema".to_owned(), schema.clone());
    }
    let fail = |what: String| payload::plain("data", format!("`data` cannot be used: {what}"));
    let mut templates = template::Templates::new(payload.escape, variables).map_err(fail)?;
    let mut messages = prompt::messages(payload.message, &mut templates, family)?;
    if messages.len() > limits.messages as usize {
        let what = format!("`message` has more than {} messages", limits.messages);
        return Err(invalid(INVALID_FORMAT, "message", what));
    }
    let native = provider == OPENAI;
    if let Output::Json(schema) = &output
        && !native
    {
        prompt::append(&mut messages, &instruction(schema));
    }
    let format = if provider == META { payload.format } else { prompt::Format::Chat };
    let input = match prompt::continued(format, &messages)? {
        Some(text) => Input::Completion(CompletionPrompt { text, ..CompletionPrompt::default() }),
        None => Input::Chat(messages),
    };
    let target = match provider.as_str() {
        AMAZON_ANTHROPIC | META => "bedrock",
        other => other,
    };
    let mut request = Request::new(NAME, format!("{target}/{model}"), input);
    request.sampling.max_tokens = most_tokens;
    request.tools = payload.functions;
    request.tool_choice = payload.choice;
    request.extra = payload.extra;
    if let Output::Json(schema) = &output
        && native
    {
        request.response_format = Some(ResponseFormat::JsonSchema(JsonSchema {
            name: Some("output".to_owned()),
            description: None,
            schema: schema::without_defaults(schema).to_string(),
            strict: None,
        }));
    }
    let (kind, schema) = match output {
        _ if payload.has_functions => (render::Kind::Functions, None),
        Output::Text => (render::Kind::Text, None),
        Output::List => (render::Kind::List, None),
        Output::Json(schema) => (render::Kind::Json, Some(schema)),
    };
    // Only JSON can be wrong.
    let may_ask = payload.retries > 0 && kind == render::Kind::Json;
    let state = State {
        kind,
        schema,
        envelope,
        legacy: legacy(&client.settings),
        format,
        retry: may_ask.then(|| Box::new(request.clone())),
    };
    let parsed = Parsed { request, render: state.to_text() };
    Ok(if may_ask { Step::Follow(parsed) } else { Step::Ask(parsed) })
}

/// What a model is told of the schema that its answer has to match.
fn instruction(schema: &Value) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut text = format!(
        "The schema specification below defines the format you are expected to respond with.\n{}\n\n\
         Review the request and then respond as valid JSON per the schema.",
        pretty(schema)
    );
    let example = schema::example(schema, "default");
    if !example.is_null() {
        text.push_str(" For example:\n");
        text.push_str(&pretty(&example));
    }
    text
}
