//! Answers of backends, and what clients of each dialect see of them.

use serde_json::Value;
use witgate_dialects::{Renderer, render_error};
use witgate_framing::{Framer, Limits, effective};
use witgate_model::normaliser::{AnswerStart, Failure};
use witgate_model::{Error, ErrorKind, Event, Framing, ResponseHead};

use crate::{api, parse_request, root};

/// A kept answer of a backend.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The adapter that reads it.
    pub adapter: String,
    /// Its file.
    pub name: String,
    /// The provider's settings.
    pub settings: String,
    /// What `encode` handed to the decoder.
    pub context: Option<String>,
    /// Status and headers.
    pub head: ResponseHead,
    /// The body, as it comes from the network.
    pub body: Vec<u8>,
}

/// The answer `tests/fixtures/upstream/<adapter>/<name>`.
pub fn fixture(adapter: &str, name: &str) -> Answer {
    let folder = root("tests/fixtures/upstream").join(adapter);
    let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
    let meta = &meta[name];
    let status = meta["status"].as_u64().unwrap_or_else(|| panic!("{adapter}/meta.json says nothing of {name}"));
    let wanted = match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("sse") => Framing::Sse,
        Some("ndjson") => Framing::Ndjson,
        Some("bin") => Framing::AwsEventstream,
        _ => Framing::Whole,
    };
    let stream = wanted != Framing::Whole;
    let mut headers: Vec<(String, String)> = Vec::new();
    headers.extend(meta["content_type"].as_str().map(|value| ("content-type".to_owned(), value.to_owned())));
    for (name, value) in meta["headers"].as_object().into_iter().flatten() {
        headers.push((name.clone(), value.as_str().unwrap().to_owned()));
    }
    let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    let framing = effective(&wanted, status as u16, content_type);
    Answer {
        adapter: adapter.to_owned(),
        name: name.to_owned(),
        settings: if meta["settings"].is_object() { meta["settings"].to_string() } else { "{}".to_owned() },
        context: meta["context"].as_str().map(str::to_owned),
        head: ResponseHead { status: status as u16, headers, framing, stream },
        body: std::fs::read(folder.join(name)).unwrap(),
    }
}

impl Answer {
    /// The events of the first `length` bytes, after which the connection ends.
    pub fn events_of(&self, length: usize) -> Vec<Event> {
        let mut framer = Framer::new(&self.head.framing, Limits::default()).unwrap();
        let mut decoder = (api(&self.adapter).decoder)(&self.settings, self.context.clone(), self.head.clone());
        let mut frames = Vec::new();
        let cut = framer.push(&self.body[..length], &mut frames).and_then(|()| framer.finish(&mut frames));
        let mut events = Vec::new();
        if !frames.is_empty() {
            events = decoder.feed(frames);
        }
        let ended = |events: &[Event]| events.last().is_some_and(Event::is_last);
        match cut {
            _ if ended(&events) => {}
            Ok(()) => events.append(&mut decoder.finish()),
            Err(error) => events.push(Event::Failed(Error::malformed(error.to_string()))),
        }
        assert!(ended(&events), "{}/{}: no last event", self.adapter, self.name);
        events
    }

    /// All its events.
    pub fn events(&self) -> Vec<Event> {
        self.events_of(self.body.len())
    }
}

/// What a client is told of a failure, as the gateway tells it (`crates/gateway/src/failure.rs`).
fn failure(mut error: Error) -> Failure {
    let (status, error_type) = match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::ContextLength | ErrorKind::ContentFiltered => {
            (400, "invalid_request_error")
        }
        ErrorKind::RateLimited => (429, "rate_limit_error"),
        ErrorKind::Overloaded => (503, "overloaded_error"),
        _ => (502, "api_error"),
    };
    if error.kind == ErrorKind::ContextLength {
        error.code = Some("context_length_exceeded".to_owned());
    }
    error.status = Some(status);
    let provider = Some("provider".to_owned());
    Failure {
        error,
        error_type: error_type.to_owned(),
        provider,
        upstream: None,
        request_id: "req_1".to_owned(),
        attempts: Vec::new(),
    }
}

/// What the client gets.
#[derive(Clone, Debug)]
pub struct Told {
    /// HTTP status.
    pub status: u16,
    /// Its `content-type`.
    pub content_type: String,
    /// The body.
    pub body: String,
}

/// A client that asks in one dialect.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The dialect.
    pub dialect: &'static str,
    /// It asks for a stream.
    pub stream: bool,
    /// Where it asks.
    path: &'static str,
    /// The operator's settings of the dialect.
    settings: &'static str,
    /// Its request, which asks for token counts where the dialect lets it.
    body: &'static str,
    /// What only a stream that is complete has in it: one of these.
    pub ends: &'static [&'static str],
    /// What a failure inside a stream has in it.
    pub error: &'static str,
    /// What counts of tokens have in front of them.
    pub usage: &'static str,
}

impl Client {
    /// The answer of these events, as this client sees it.
    pub fn sees(&self, events: Vec<Event>) -> Told {
        let parsed = parse_request(self.dialect, self.path, self.settings, self.body);
        assert_eq!(parsed.request.stream, self.stream, "{}", self.dialect);
        let start =
            AnswerStart { render: parsed.render, id: "abc".into(), created: 1_700_000_000, model: "alias".into() };
        let mut renderer = Renderer::new(self.dialect, start);
        let content = events.iter().any(Event::is_content);
        let mut events = events;
        let failed = match events.pop() {
            Some(Event::Failed(error)) => Some(failure(error)),
            last => {
                events.extend(last);
                None
            }
        };
        let rendered = match failed {
            Some(failure) if !(self.stream && content) => render_error(self.dialect, &failure),
            failed => {
                let mut rendered = renderer.head();
                rendered.body = renderer.feed(events);
                if let Some(failure) = failed {
                    rendered.body.extend(renderer.fail(&failure));
                }
                rendered
            }
        };
        let content_type = rendered.headers.iter().find(|(name, _)| name == "content-type");
        Told {
            status: rendered.status,
            content_type: content_type.map(|(_, value)| value.clone()).unwrap_or_default(),
            body: String::from_utf8(rendered.body).unwrap_or_else(|error| panic!("{}: {error}", self.dialect)),
        }
    }
}

/// A client of each dialect that renders answers of models; of a stream, or of whole answers.
pub fn clients(stream: bool) -> Vec<Client> {
    let client = |dialect, path, body, ends: &'static [&'static str], error, usage| Client {
        dialect,
        stream,
        path,
        settings: "",
        body,
        ends,
        error,
        usage,
    };
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":true}}"#;
    if stream {
        let text = r#"{"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#;
        let messages = r#"{"model":"m","max_tokens":99,"messages":[{"role":"user","content":"x"}],"stream":true}"#;
        vec![
            client("openai-chat", "/v1/chat/completions", chat, &["data: [DONE]"], "{\"error\":", "\"total_tokens\":"),
            client(
                "openai-completions",
                "/v1/completions",
                text,
                &["data: [DONE]"],
                "{\"error\":",
                "\"total_tokens\":",
            ),
            client(
                "anthropic-messages",
                "/v1/messages",
                messages,
                &["event: message_stop"],
                "event: error",
                "\"output_tokens\":",
            ),
            client(
                "openai-responses",
                "/v1/responses",
                r#"{"model":"m","input":"x","store":false,"stream":true}"#,
                &["event: response.completed", "event: response.incomplete"],
                "event: response.failed",
                "\"output_tokens\":",
            ),
            client(
                "ollama-chat",
                "/api/chat",
                r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
                &["\"done\":true"],
                "{\"error\":",
                "\"eval_count\":",
            ),
            client(
                "ollama-generate",
                "/api/generate",
                r#"{"model":"m","prompt":"x"}"#,
                &["\"done\":true"],
                "{\"error\":",
                "\"eval_count\":",
            ),
        ]
    } else {
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":false}"#;
        let messages = r#"{"model":"m","max_tokens":99,"messages":[{"role":"user","content":"x"}]}"#;
        let text = r#"{"model":"m","prompt":"x","stream":false}"#;
        vec![
            client("openai-chat", "/v1/chat/completions", chat, &[], "", "\"total_tokens\":"),
            client("openai-completions", "/v1/completions", text, &[], "", "\"total_tokens\":"),
            client("anthropic-messages", "/v1/messages", messages, &[], "", "\"output_tokens\":"),
            client("ollama-chat", "/api/chat", chat, &[], "", "\"eval_count\":"),
            client("ollama-generate", "/api/generate", text, &[], "", "\"eval_count\":"),
            client(
                "openai-responses",
                "/v1/responses",
                r#"{"model":"m","input":"x","store":false}"#,
                &[],
                "",
                "\"output_tokens\":",
            ),
            client("awa-llm", "/llm", r#"{"prompt":"x"}"#, &[], "", ""),
            client("llm-exe", "/invoke", r#"{"provider":"openai","model":"m","message":"x"}"#, &[], "", ""),
            client("bedrock-chat", "/chat", r#"{"prompt":"x"}"#, &[], "", ""),
            Client {
                settings: r#"{"backends":{"b":{"shape":"invoke-model","model":"m"}}}"#,
                ..client("llm-invocation", "/invoke/llm", r#"{"backend":"b","prompt":"x"}"#, &[], "", "")
            },
        ]
    }
}

/// A client of each dialect that embeds texts.
pub fn embedders() -> Vec<Client> {
    let client = |dialect, path, body| Client {
        dialect,
        stream: false,
        path,
        settings: "",
        body,
        ends: &[],
        error: "",
        usage: "",
    };
    vec![
        client("openai-embeddings", "/v1/embeddings", r#"{"model":"m","input":["x","y"]}"#),
        client("ollama-embed", "/api/embed", r#"{"model":"m","input":["x","y"]}"#),
        client("ollama-embeddings", "/api/embeddings", r#"{"model":"m","prompt":"x"}"#),
    ]
}

/// A client of each dialect that counts tokens.
pub fn counters() -> Vec<Client> {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let path = "/v1/messages/count_tokens";
    vec![Client {
        dialect: "anthropic-messages",
        stream: false,
        path,
        settings: "",
        body,
        ends: &[],
        error: "",
        usage: "",
    }]
}
