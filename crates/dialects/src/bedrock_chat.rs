//! `/chat` of the serverless Bedrock endpoint, also behind the stage of an API Gateway (`/Prod/chat/`): one prompt in, one
//! completion out.
//!
//! - `prompt` is required. Beside it the body may hold `system`, `model` and the parameters `temperature` and `top_p`,
//!   each from 0 to 1, and `max_gen_len` or `max_tokens`. Llama takes 1 to 2,048 tokens; for a model that is named and no Llama the bound
//!   is the model's own. Any other member is refused by name.
//! - What this service always sent stands where the client says nothing: 512 tokens, temperature 0.5.
//! - A failure of the backend is `{"error":"Internal Server Error"}`: what it said is not for clients. Its status is the
//!   native one, or with the setting `legacy_status` always 500. What is wrong with the request is told.
//!
//! Settings: `provider` is where models that clients name are (without it a client names models as elsewhere), `mock`
//! answers without any backend, `legacy_status`.

use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Reply, Step};
use witgate_model::{Error, Event, Message, Request, Role};

use crate::openai::{json_answer, read_body};
use crate::read::{Kind, Read, Reader};
use crate::text::FirstText;
use crate::{Dialect, Render, settings, write};

const NAME: &str = "bedrock-chat";

/// Most tokens that Llama takes as `max_gen_len`.
const LLAMA_TOKENS: u64 = 2_048;

/// Characters of the prompt that the mock repeats.
const MOCKED: usize = 64;

/// What the body may hold.
const KNOWN: &str = "prompt, system, model, temperature, top_p, max_tokens and max_gen_len";

/// The dialect `bedrock-chat`.
pub(crate) struct BedrockChat;

impl Dialect for BedrockChat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/chat"), ("POST", "/{stage}/chat")]
    }

    fn parse(&self, _: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(missing_prompt());
        }
        let request = read_body(body, limits.depth, request)?;
        request.map(|request| Parsed { request, render: String::new() }).ok_or_else(missing_prompt)
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        let mut parsed = self.parse(&client.path, limits, body)?;
        if settings::flag(&client.settings, "mock") {
            let rendered = json_answer(200, completion(&mock(&parsed.request)));
            return Ok(Step::Answer(Reply { rendered, forget: Vec::new() }));
        }
        if !parsed.request.model.is_empty()
            && let Some(provider) = settings::text(&client.settings, "provider")
        {
            parsed.request.model = format!("{provider}/{}", parsed.request.model);
        }
        Ok(Step::Ask(parsed))
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        self.refuse("", failure)
    }

    fn refuse(&self, settings: &str, failure: &Failure) -> Rendered {
        let native = crate::status(&failure.error);
        let told = failure.provider.is_none() && native < 500;
        let status = if settings::flag(settings, "legacy_status") && !told { 500 } else { native };
        json_answer(status, error_body(failure))
    }

    fn renderer(&self, _: AnswerStart) -> Box<dyn Render> {
        Box::new(Completion::default())
    }
}

fn missing_prompt() -> Error {
    Error::invalid("prompt", "Missing prompt").with_status(400)
}

/// The request; `None` where there is no prompt.
fn request(reader: &mut Reader<'_>) -> Read<Option<Request>> {
    let mut prompt = None;
    let mut system = None;
    let mut model = None;
    let mut temperature = None;
    let mut top_p = None;
    let mut tokens: Option<(u64, usize, &'static str)> = None;
    reader.object(|reader, name| {
        match &*name.text {
            "prompt" => prompt = reader.optional(Reader::owned)?,
            "system" => system = reader.optional(Reader::owned)?,
            "model" => model = reader.optional(Reader::owned)?,
            "temperature" => temperature = reader.optional(unit)?,
            "top_p" => top_p = reader.optional(unit)?,
            "max_tokens" | "max_gen_len" => {
                let name = if name.text == "max_tokens" { "max_tokens" } else { "max_gen_len" };
                let at = reader.position();
                if let Some(count) = reader.optional(Reader::count)?.map(u64::from) {
                    if let Some((other, _, earlier)) = tokens.filter(|(other, ..)| *other != count) {
                        return reader
                            .fault(at, format!("and `{earlier}` contradict each other ({count} and {other})"));
                    }
                    tokens = Some((count, at, name));
                }
            }
            _ => {
                let at = reader.position();
                return reader.fault(at, format!("is not known here: the body may hold {KNOWN}"));
            }
        }
        Ok(())
    })?;
    let Some(prompt) = prompt.filter(|prompt: &String| !prompt.is_empty()) else { return Ok(None) };
    let model = model.unwrap_or_default();
    if let Some((count, at, name)) = tokens
        && count > LLAMA_TOKENS
        && (model.is_empty() || name == "max_gen_len" || model.contains("llama"))
    {
        return reader.fault_in(at, name, format!("must be a whole number from 1 to {LLAMA_TOKENS}, found {count}"));
    }
    let mut messages = Vec::with_capacity(2);
    messages.extend(system.map(|system| Message::text(Role::System, system)));
    messages.push(Message::text(Role::User, prompt));
    let mut request = Request::chat(NAME, model, messages);
    request.sampling.max_tokens = Some(tokens.map_or(512, |(count, ..)| count));
    request.sampling.temperature = Some(temperature.unwrap_or(0.5));
    request.sampling.top_p = top_p;
    Ok(Some(request))
}

/// A number from 0 to 1.
fn unit(reader: &mut Reader<'_>) -> Read<f64> {
    let at = reader.position();
    if reader.kind() != Kind::Number {
        return reader.wrong("a number from 0 to 1");
    }
    let value = reader.f64()?;
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    reader.fault(at, format!("must be a number from 0 to 1, found {value}"))
}

/// What the mock says.
fn mock(request: &Request) -> String {
    let witgate_model::Input::Chat(messages) = &request.input else { return String::new() };
    let prompt = messages.last().and_then(|message| match message.parts.as_slice() {
        [witgate_model::Part::Text(text)] => Some(text.text.as_str()),
        _ => None,
    });
    format!("[mock] {}", prompt.unwrap_or_default().chars().take(MOCKED).collect::<String>())
}

fn completion(text: &str) -> Vec<u8> {
    let mut out = b"{\"completion\":".to_vec();
    write::string(&mut out, text);
    out.push(b'}');
    out
}

fn error_body(failure: &Failure) -> Vec<u8> {
    let told = failure.provider.is_none() && crate::status(&failure.error) < 500;
    let mut out = b"{\"error\":".to_vec();
    write::string(&mut out, if told { &failure.error.message } else { "Internal Server Error" });
    out.push(b'}');
    out
}

#[derive(Default)]
struct Completion {
    said: FirstText,
    ended: bool,
}

impl Render for Completion {
    fn head(&self) -> Rendered {
        json_answer(200, Vec::new())
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::new();
        for event in events {
            if self.ended {
                break;
            }
            self.said.take(&event);
            if event == Event::Done {
                self.ended = true;
                out = completion(&self.said.text);
            }
        }
        out
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { error_body(failure) }
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}
