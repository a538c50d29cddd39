//! `/invoke/llm` of the LLM invocation service: a prompt for the backend that the client names, and that backend's own
//! answer.
//!
//! # Requests
//!
//! - `backend` and `prompt` are required. `backend` is a provider of the configuration; `model` is one of its models. Without
//!   a `model` the backend's default model is asked; where it has none, the model that the configuration calls like the
//!   backend.
//! - `system_prompt` becomes the system message: `null` is absent, `""` is sent.
//! - Every other member goes to the backend unchanged, and so do those of `extra`; what stands beside `extra` wins.
//! - The backend's defaults, from the settings, fill in what the client does not give. Ollama's parameters are `options`
//!   wherever the client writes them, a `stop` in one string is a list of one.
//! - By InvokeModel `max_gen_len` and `max_tokens_to_sample` are `max_tokens`.
//! - `stream: true` and `messages` are refused: the answer is whole, and the messages are made here.
//!
//! So a request is, for Ollama, one of its `/api/chat`, and for all other backends an OpenAI chat completion; it is parsed
//! as such, and in that dialect it goes to the backend.
//!
//! # Later
//!
//! `/invoke/llm/enqueue` takes the same payload for later: the gateway answers 202 `{"backend", "queued": true, "job_id", …}`.
//! There a payload without a `backend` is asked of `ollama` where its prompt has fewer words than the setting
//! `prompt_complexity_threshold` (20), else of `bedrock`; a `strategy` is refused.
//!
//! # Answers
//!
//! A success is Ollama's chat answer, an OpenAI chat completion, or by InvokeModel `{"reply": text}`. A request that is
//! wrong is 400 `{"message": …}`; any failure behind that is `{"statusCode":…,"body":{"error":"<status>: <text>"}}`: in the
//! text the backend's own status, where it answered, and as `statusCode` that of this answer, with the setting
//! `legacy_status` 500.
//!
//! # Settings
//!
//! `backends`: by name, each with `shape` (`openai`, `ollama` or `invoke-model`), and perhaps `model`, `defaults` (an object),
//! `unavailable` (why it cannot be asked) and `no_model` (what to do about a request that names no model). The
//! configuration writes them from the providers that there are.

use std::collections::BTreeSet;

use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Reply, Step};
use witgate_model::{Error, ErrorKind, Event};

use crate::openai::{json_answer, read_body};
use crate::read::{Read, Reader};
use crate::text::FirstText;
use crate::write::Members;
use crate::{Dialect, Render, ollama, openai_chat, settings, write};

const NAME: &str = "llm-invocation";

/// Where payloads are taken for later.
const ENQUEUE: &str = "/invoke/llm/enqueue";
/// From how many words of a prompt on the stronger backend is asked, where the settings say nothing.
const THRESHOLD: usize = 20;

/// Ollama's parameters of generation.
const OPTIONS: [&str; 20] = [
    "frequency_penalty",
    "main_gpu",
    "min_p",
    "num_batch",
    "num_ctx",
    "num_gpu",
    "num_keep",
    "num_predict",
    "num_thread",
    "presence_penalty",
    "repeat_last_n",
    "repeat_penalty",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "use_mmap",
    "penalize_newline",
];

/// The dialect `llm-invocation`.
pub(crate) struct LlmInvocation;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    OpenAi,
    Ollama,
    InvokeModel,
}

impl Shape {
    fn of(text: &str) -> Self {
        match text {
            "ollama" => Shape::Ollama,
            "invoke-model" => Shape::InvokeModel,
            _ => Shape::OpenAi,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Shape::OpenAi => "openai",
            Shape::Ollama => "ollama",
            Shape::InvokeModel => "invoke-model",
        }
    }
}

impl Dialect for LlmInvocation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/invoke/llm"), ("POST", ENQUEUE)]
    }

    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        let client = Client { method: "POST".to_owned(), path: path.to_owned(), ..Client::default() };
        match self.step(&client, limits, body)? {
            Step::Ask(parsed) => Ok(parsed),
            _ => Err(Error::invalid("backend", "is not available")),
        }
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(missing());
        }
        let mut asked = read_body(body, limits.depth, asked)?;
        if client.path.trim_end_matches('/') == ENQUEUE {
            if asked.others.iter().any(|(name, _)| name == "strategy") {
                let message = "is not taken here: name a `backend`, or none, and the prompt's length decides";
                return Err(Error::invalid("strategy", message).with_status(400));
            }
            if let (None, Some(prompt)) = (&asked.backend, &asked.prompt) {
                let threshold = settings::raw(&client.settings, "prompt_complexity_threshold");
                let threshold = threshold.and_then(|threshold| threshold.parse().ok()).unwrap_or(THRESHOLD);
                let simple = prompt.split_whitespace().count() < threshold;
                asked.backend = Some(if simple { "ollama" } else { "bedrock" }.to_owned());
            }
        }
        let (Some(backend), Some(prompt)) = (&asked.backend, &asked.prompt) else { return Err(missing()) };
        let backends = settings::members(settings::raw(&client.settings, "backends").unwrap_or_default());
        let Some((_, own)) = backends.iter().find(|(name, _)| name == backend) else {
            return Err(unknown(backend, backends.iter().map(|(name, _)| name.as_str())));
        };
        if let Some(why) = settings::text(own, "unavailable") {
            let rendered = failed(500, 500, &why);
            return Ok(Step::Answer(Reply { rendered, forget: Vec::new() }));
        }
        let shape = Shape::of(&settings::text(own, "shape").unwrap_or_default());
        let model = asked.model.clone().or_else(|| settings::text(own, "model")).filter(|model| !model.is_empty());
        let model = match (model, settings::text(own, "no_model")) {
            (Some(model), _) => format!("{backend}/{model}"),
            (None, None) => backend.clone(),
            (None, Some(why)) => {
                let message = format!("the backend \"{backend}\" has no default model: {why}");
                return Err(Error::invalid("model", message).with_status(400));
            }
        };
        let defaults = settings::members(settings::raw(own, "defaults").unwrap_or_default());
        let body = compose(shape, &model, prompt, &asked, &defaults);
        let parsed = match shape {
            Shape::Ollama => ollama::Api::Chat.parse("/api/chat", limits, body.as_bytes()),
            _ => openai_chat::OpenAiChat.parse("/v1/chat/completions", limits, body.as_bytes()),
        };
        let mut parsed = parsed.map_err(without_place)?;
        parsed.render = format!("{} {}", shape.name(), parsed.render);
        Ok(Step::Ask(parsed))
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        self.refuse("", failure)
    }

    fn refuse(&self, settings: &str, failure: &Failure) -> Rendered {
        let error = &failure.error;
        let native = crate::status(error);
        if failure.provider.is_none() && native < 500 {
            let mut out = b"{\"message\":".to_vec();
            write::string(&mut out, &error.message);
            out.push(b'}');
            return json_answer(native, out);
        }
        let status = if settings::flag(settings, "legacy_status") { 500 } else { native };
        failed(status, failure.upstream.unwrap_or(native), &error.message)
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        let (shape, inner) = start.render.split_once(' ').unwrap_or((&start.render, ""));
        let shape = Shape::of(shape);
        let start = AnswerStart { render: inner.to_owned(), ..start };
        Box::new(Answer {
            inner: match shape {
                Shape::OpenAi => Inner::Whole(openai_chat::OpenAiChat.renderer(start)),
                Shape::Ollama => Inner::Whole(ollama::Api::Chat.renderer(start)),
                Shape::InvokeModel => Inner::Reply(FirstText::default()),
            },
            ended: false,
        })
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::InvalidRequest, "Missing backend or prompt").with_status(400)
}

fn unknown<'a>(backend: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let backend: String = backend.chars().take(64).collect();
    let known: Vec<_> = known.collect();
    let message = format!("Unknown backend \"{backend}\": there are {}", known.join(", "));
    Error::invalid("backend", message).with_status(400)
}

/// `{"statusCode":…,"body":{"error":"<status>: <text>"}}`: the answer's own status, and the backend's.
fn failed(status: u16, backends: u16, text: &str) -> Rendered {
    let mut out = b"{\"statusCode\":".to_vec();
    write::number(&mut out, u64::from(status));
    out.extend_from_slice(b",\"body\":{\"error\":");
    write::string(&mut out, &format!("{backends}: {text}"));
    out.extend_from_slice(b"}}");
    json_answer(status, out)
}

/// The place is one in the body that was composed, not in the client's.
fn without_place(mut error: Error) -> Error {
    if let Some((message, _)) = error.message.rsplit_once(" (line ") {
        error.message = message.to_owned();
    }
    error
}

/// What the client asks for.
#[derive(Default)]
struct Asked<'a> {
    backend: Option<String>,
    prompt: Option<String>,
    system: Option<String>,
    model: Option<String>,
    /// Names and values of all other members, those of `extra` behind; the values as they were written.
    others: Vec<(String, &'a str)>,
}

fn asked<'a>(reader: &mut Reader<'a>) -> Read<Asked<'a>> {
    let mut asked = Asked::default();
    let mut extra: Vec<(String, &'a str)> = Vec::new();
    reader.object(|reader, name| {
        match &*name.text {
            "backend" => asked.backend = reader.optional(Reader::owned)?,
            "prompt" => asked.prompt = reader.optional(Reader::owned)?,
            "system_prompt" => asked.system = reader.optional(Reader::owned)?,
            "model" => asked.model = reader.optional(Reader::owned)?,
            "extra" => {
                reader.optional(|reader| {
                    reader.object(|reader, name| {
                        let value = other(reader, &name.text)?;
                        extra.extend(value.map(|value| (name.text.clone().into_owned(), value)));
                        Ok(())
                    })
                })?;
            }
            text => {
                let value = other(reader, text)?;
                asked.others.extend(value.map(|value| (text.to_owned(), value)));
            }
        }
        Ok(())
    })?;
    asked.backend = asked.backend.filter(|backend| !backend.is_empty());
    asked.prompt = asked.prompt.filter(|prompt| !prompt.is_empty());
    let explicit: BTreeSet<String> = asked.others.iter().map(|(name, _)| name.clone()).collect();
    // What the request itself is made of is said at the top or not at all.
    let own = ["backend", "prompt", "system_prompt", "extra"];
    for (name, value) in extra {
        let string = |value: &str| Reader::new(value, 1).owned().ok();
        match name.as_str() {
            "model" if asked.model.is_none() => asked.model = string(value),
            "model" => {}
            name if own.contains(&name) || explicit.contains(name) => {}
            _ => asked.others.push((name, value)),
        }
    }
    Ok(asked)
}

/// A member that goes to the backend, as it was written; `None` for one that says nothing new.
fn other<'a>(reader: &mut Reader<'a>, name: &str) -> Read<Option<&'a str>> {
    let at = reader.position();
    let value = reader.raw()?;
    match (name, value) {
        ("messages", _) => reader.fault(at, "is not taken here: the messages are made of `prompt` and `system_prompt`"),
        ("stream", "true") => reader.fault(at, "must be false: this API answers whole"),
        ("stream", _) => Ok(None),
        _ => Ok(Some(value)),
    }
}

/// The request in the dialect of the backend.
fn compose(shape: Shape, model: &str, prompt: &str, asked: &Asked<'_>, defaults: &[(String, &str)]) -> String {
    let string = |text: &str| {
        let mut out = Vec::new();
        write::string(&mut out, text);
        String::from_utf8(out).unwrap_or_default()
    };
    let mut messages = String::from("[");
    if let Some(system) = &asked.system {
        messages.push_str(&format!("{{\"role\":\"system\",\"content\":{}}},", string(system)));
    }
    messages.push_str(&format!("{{\"role\":\"user\",\"content\":{}}}]", string(prompt)));
    let mut top = Members::default();
    top.push("model", &string(model));
    top.push("messages", &messages);
    let others = asked.others.iter();
    if shape == Shape::Ollama {
        top.push("stream", "false");
        let mut options = Members::default();
        let mut within = Vec::new();
        let mut given = BTreeSet::new();
        let mut add = |name: &str, value: &str| {
            if given.insert(name.to_owned()) {
                let list = name == "stop" && value.starts_with('"');
                options.push_raw(&string(name), &if list { format!("[{value}]") } else { value.to_owned() });
            }
        };
        for (name, value) in others {
            match name.as_str() {
                "options" if *value == "null" => {}
                "options" if value.starts_with('{') => within = settings::members(value),
                // What is no object is refused behind this.
                "options" => top.push("options", value),
                name if OPTIONS.contains(&name) => add(name, value),
                _ => top.push_raw(&string(name), value),
            }
        }
        for (name, value) in within.iter().chain(defaults) {
            add(name, value);
        }
        if !asked.others.iter().any(|(name, value)| name == "options" && !value.starts_with(['{', 'n'])) {
            top.push_members("options", options);
        }
    } else {
        let mut given: BTreeSet<&str> = BTreeSet::new();
        for (name, value) in others {
            let name = if shape == Shape::InvokeModel { bound(name) } else { name };
            if given.insert(name) {
                top.push_raw(&string(name), value);
            }
        }
        for (name, value) in defaults {
            // Two names of one bound.
            let again = name == "max_tokens" && given.contains("max_completion_tokens");
            if !again && given.insert(name) {
                top.push_raw(&string(name), value);
            }
        }
    }
    top.finish().unwrap_or_default()
}

/// What InvokeModel's bounds on an answer's length are called here.
fn bound(name: &str) -> &str {
    match name {
        "max_gen_len" | "max_tokens_to_sample" => "max_tokens",
        _ => name,
    }
}

/// The renderer.
struct Answer {
    inner: Inner,
    ended: bool,
}

enum Inner {
    /// In the shape of the backend's own API.
    Whole(Box<dyn Render>),
    Reply(FirstText),
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        json_answer(200, Vec::new())
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let said = match &mut self.inner {
            Inner::Whole(inner) => return inner.feed(events),
            Inner::Reply(said) => said,
        };
        let mut out = Vec::new();
        for event in events {
            if self.ended {
                break;
            }
            said.take(&event);
            if event == Event::Done {
                self.ended = true;
                out.extend_from_slice(b"{\"reply\":");
                write::string(&mut out, &said.text);
                out.push(b'}');
            }
        }
        out
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { LlmInvocation.render_error(failure).body }
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}
