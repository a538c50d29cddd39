//! A third-party adapter, written against the public WIT alone: it asks an OpenAI-compatible server and gives the answer
//! back in capitals.
//!
//! Build it for `wasm32-unknown-unknown` and make a component of it (`wasm-tools component new`), so that it imports
//! nothing. Then one entry in `witgate.toml` serves it:
//!
//! ```toml
//! [providers.shout]
//! adapter = "adapter-shout.wasm"
//! endpoint = "http://127.0.0.1:8080"
//! ```

wit_bindgen::generate!({ path: "../../wit/adapter", world: "adapter" });

use std::cell::RefCell;

use exports::witgate::adapter::chat::{Guest, GuestDecoder};
use serde_json::{Value, json};
use witgate::adapter::types::*;

struct Shout;

export!(Shout);

impl Guest for Shout {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "shout".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "An OpenAI-compatible server whose answers are shouted".into(),
            operations: vec!["chat".into()],
            capabilities: vec![],
            dialects: vec![],
            secrets: vec![SecretSlot {
                name: "api_key".into(),
                description: "sent as `authorization: Bearer …`".into(),
                required: false,
            }],
            settings_schema: json!({
                "type": "object",
                "properties": {"suffix": {"type": "string", "description": "shouted after every answer"}},
                "additionalProperties": false,
            })
            .to_string(),
            default_endpoint: None,
        }
    }

    fn probe(_settings: Json) -> Result<Option<HttpRequest>, Error> {
        Ok(Some(http("GET", &["health"], Vec::new(), Framing::Whole)))
    }

    fn encode(_settings: Json, request: Request) -> Result<HttpRequest, Error> {
        let Input::Chat(messages) = &request.input else { return Err(unsupported("prompt", "chat only")) };
        if !request.tools.is_empty() {
            return Err(unsupported("tools", "shouting needs both hands"));
        }
        if let Some(extra) = &request.extra {
            return Err(unsupported(extra, "this adapter passes no unknown field on"));
        }
        let mut body = json!({
            "model": request.model,
            "messages": messages.iter().enumerate().map(message).collect::<Result<Vec<_>, _>>()?,
            "stream": request.stream,
        });
        if request.stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        let sampling = &request.sampling;
        for (name, value) in [
            ("temperature", sampling.temperature.map(Value::from)),
            ("seed", sampling.seed.map(Value::from)),
            ("max_tokens", sampling.max_completion_tokens.or(sampling.max_tokens).map(Value::from)),
            ("stop", (!sampling.stop.is_empty()).then(|| sampling.stop.clone().into())),
        ] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let framing = if request.stream { Framing::Sse } else { Framing::Whole };
        let mut http = http("POST", &["v1", "chat", "completions"], body.to_string().into_bytes(), framing);
        http.headers.push(("content-type".into(), "application/json".into()));
        Ok(http)
    }
}

fn http(method: &str, path: &[&str], body: Vec<u8>, framing: Framing) -> HttpRequest {
    HttpRequest {
        method: method.into(),
        path: path.iter().map(|segment| (*segment).into()).collect(),
        query: vec![],
        headers: vec![],
        body,
        auth: Auth::Header(HeaderAuth {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
            slot: "api_key".into(),
        }),
        framing,
        context: None,
        dropped: Vec::new(),
    }
}

fn message((at, message): (usize, &Message)) -> Result<Value, Error> {
    let role = match &message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool | Role::Other(_) => return Err(unsupported(&format!("messages[{at}].role"), "no such role here")),
    };
    let mut text = String::new();
    for part in &message.parts {
        match part {
            Part::Text(part) => text.push_str(&part.text),
            _ => return Err(unsupported(&format!("messages[{at}].content"), "text only")),
        }
    }
    Ok(json!({"role": role, "content": text}))
}

fn error(kind: ErrorKind, message: &str) -> Error {
    Error { kind, message: message.into(), code: None, param: None, status: None, retry: Retry::Never, raw: None }
}

fn unsupported(param: &str, message: &str) -> Error {
    Error { param: Some(param.into()), ..error(ErrorKind::Unsupported, message) }
}

/// One answer.
struct Decoder(RefCell<State>);

struct State {
    status: u16,
    suffix: String,
    started: bool,
    finish: Option<FinishReason>,
    ended: bool,
}

impl GuestDecoder for Decoder {
    fn new(settings: Json, _context: Option<String>, head: ResponseHead) -> Self {
        let settings: Value = serde_json::from_str(&settings).unwrap_or_default();
        let suffix = settings["suffix"].as_str().unwrap_or_default().to_uppercase();
        Decoder(RefCell::new(State { status: head.status, suffix, started: false, finish: None, ended: false }))
    }

    fn feed(&self, frames: Vec<Frame>) -> Vec<Event> {
        let mut state = self.0.borrow_mut();
        let mut events = Vec::new();
        for frame in frames {
            match &frame {
                Frame::Sse(sse) if sse.data == "[DONE]" => state.end(&mut events),
                Frame::Sse(sse) => state.answer(serde_json::from_str(&sse.data), &mut events),
                Frame::Bytes(body) => {
                    state.answer(serde_json::from_slice(body), &mut events);
                    state.end(&mut events);
                }
                Frame::Line(_) | Frame::Message(_) => {}
            }
        }
        events
    }

    fn finish(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.0.borrow_mut().end(&mut events);
        events
    }
}

impl State {
    fn answer(&mut self, json: serde_json::Result<Value>, events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        let Ok(json) = json else {
            return self.fail(error(ErrorKind::MalformedResponse, "the answer is not JSON"), events);
        };
        if let Some(told) = json.get("error") {
            let (kind, retry) = match self.status {
                400 | 422 => (ErrorKind::InvalidRequest, Retry::Never),
                404 => (ErrorKind::NotFound, Retry::Never),
                429 => (ErrorKind::RateLimited, Retry::SameTarget(None)),
                503 => (ErrorKind::Overloaded, Retry::SameTarget(None)),
                _ => (ErrorKind::UpstreamFailure, Retry::OtherTarget),
            };
            let message = told["message"].as_str().unwrap_or("no message");
            return self.fail(Error { retry, ..error(kind, message) }, events);
        }
        if !self.started {
            self.started = true;
            let model = json["model"].as_str().map(Into::into);
            events.push(Event::Started(Started { id: None, model, created: None }));
            events.push(Event::BlockStart(BlockStart { index: 0, choice: 0, kind: BlockKind::Text }));
        }
        let choice = &json["choices"][0];
        for text in [&choice["delta"]["content"], &choice["message"]["content"]] {
            if let Some(text) = text.as_str().filter(|text| !text.is_empty()) {
                events.push(Event::Text(BlockDelta { index: 0, text: text.to_uppercase(), logprobs: None }));
            }
        }
        match choice["finish_reason"].as_str() {
            Some("length") => self.finish = Some(FinishReason::Length),
            Some(_) => self.finish = Some(FinishReason::Stop),
            None => {}
        }
        if json["usage"].is_object() {
            events.push(Event::Usage(Usage {
                input_tokens: json["usage"]["prompt_tokens"].as_u64(),
                output_tokens: json["usage"]["completion_tokens"].as_u64(),
                cache_read_tokens: None,
                cache_write_tokens: None,
                reasoning_tokens: None,
                estimated: false,
                raw: None,
            }));
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        let Some(reason) = self.finish.take() else {
            return self.fail(error(ErrorKind::MalformedResponse, "the answer ended before its finish"), events);
        };
        if !self.suffix.is_empty() {
            let text = std::mem::take(&mut self.suffix);
            events.push(Event::Text(BlockDelta { index: 0, text, logprobs: None }));
        }
        events.push(Event::BlockStop(0));
        events.push(Event::Finish(Finish { choice: 0, reason, raw: None, stop_sequence: None }));
        events.push(Event::Done);
        self.ended = true;
    }

    fn fail(&mut self, error: Error, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Failed(error));
    }
}
