//! An answer without any backend: for a first try, and as the last resort of a chain.
//!
//! The answer is `[stub] ` and the first 64 characters of the last user text, for each of the `n` choices that were
//! asked for. [`Stub::encode`](witgate_model::Adapter::encode) writes the whole answer, in OpenAI's shape, as the body of
//! a request to the endpoint `stub:`; the gateway answers such a request with its own body, as status 200 with the
//! request's `content-type`, without any network. The decoder reads it as it would a real server's.
//!
//! A newcomer may try anything: tools on offer, pictures, sampling parameters and unknown members are accepted and have
//! no effect. What the stub cannot pretend is refused: a tool call that *must* come, and an answer that must be JSON.
//! Token counts are words, marked as estimated.

use witgate_model::{
    Adapter, Auth, Description, Error, Event, Frame, Framing, HttpRequest, Input, Part, Request, ResponseFormat,
    ResponseHead, ResultContent, Role, ToolChoice,
};

use crate::openai_shape::{self, CHAT, COMPLETIONS, Flavour, Settings, write_json_string};

/// How many characters of the prompt come back.
const CHARACTERS: usize = 64;

/// Most choices in one answer.
const CHOICES: u32 = 128;

/// The adapter `stub`.
#[derive(Debug)]
pub struct Stub;

/// The last text of a user, all its text parts joined; the prompt of a text completion.
fn last_user_text(input: &Input) -> String {
    match input {
        Input::Completion(prompt) => prompt.text.clone(),
        Input::Chat(messages) => {
            let Some(last) = messages.iter().rev().find(|message| message.role == Role::User) else {
                return String::new();
            };
            let texts = last.parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.text.as_str()),
                _ => None,
            });
            texts.collect()
        }
        _ => String::new(),
    }
}

/// The words of all texts of the input.
fn words(input: &Input) -> usize {
    let count = |text: &str| text.split_whitespace().count();
    let part = |part: &Part| match part {
        Part::Text(text) | Part::Refusal(text) => count(&text.text),
        Part::Reasoning(reasoning) => count(&reasoning.text),
        Part::ToolResult(result) => {
            let texts = result.content.iter().map(|piece| match piece {
                ResultContent::Text(text) => count(&text.text),
                ResultContent::Media(_) | ResultContent::Other(_) => 0,
            });
            texts.sum()
        }
        Part::Media(_) | Part::ToolCall(_) | Part::Other(_) => 0,
    };
    match input {
        Input::Completion(prompt) => count(&prompt.text),
        Input::Chat(messages) => messages.iter().flat_map(|message| &message.parts).map(part).sum(),
        _ => 0,
    }
}

/// What a stub cannot pretend to do.
fn demands(request: &Request) -> Vec<Error> {
    let hint = "configure a real backend (`witgate.toml`, or LLM_BASE_URL)";
    let mut demands = Vec::new();
    if matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_))) {
        let message = format!("the built-in stub only echoes text and cannot call a tool: {hint}");
        demands.push(Error::unsupported("tool_choice", message));
    }
    if !matches!(request.response_format, None | Some(ResponseFormat::Text)) {
        let message = format!("the built-in stub only echoes text and cannot answer with JSON: {hint}");
        demands.push(Error::unsupported("response_format", message));
    }
    demands
}

/// Writes one object of the answer: a chunk, or the whole.
fn object(out: &mut Vec<u8>, model: &str, choices: impl FnOnce(&mut Vec<u8>), usage: Option<(usize, usize)>) {
    out.extend_from_slice(b"{\"model\":");
    write_json_string(out, model);
    out.extend_from_slice(b",\"choices\":[");
    choices(out);
    out.push(b']');
    if let Some((prompt, completion)) = usage {
        let total = prompt + completion;
        let usage = format!(
            ",\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{total}}}"
        );
        out.extend_from_slice(usage.as_bytes());
    }
    out.push(b'}');
}

/// Writes one choice; `text` stands in `around`, as `"delta":{"content":` and `}`.
fn choice(out: &mut Vec<u8>, index: u32, text: Option<&str>, around: (&str, &str), finish: bool) {
    out.extend_from_slice(format!("{{\"index\":{index},").as_bytes());
    if let Some(text) = text {
        out.extend_from_slice(around.0.as_bytes());
        write_json_string(out, text);
        out.extend_from_slice(around.1.as_bytes());
        out.push(b',');
    }
    out.extend_from_slice(if finish { b"\"finish_reason\":\"stop\"}" } else { b"\"finish_reason\":null}" });
}

impl Adapter for Stub {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "stub".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Answers `[stub] ` and the start of the prompt, without any backend".into(),
            operations: vec!["chat".into(), "completion".into()],
            capabilities: vec!["n".into()],
            dialects: vec![CHAT.into(), COMPLETIONS.into()],
            secrets: Vec::new(),
            settings_schema: include_str!("stub.schema.json").into(),
            default_endpoint: Some("stub:".into()),
        }
    }

    fn probe(_settings: &str) -> Result<Option<HttpRequest>, Error> {
        Ok(None)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        if !matches!(request.input, Input::Chat(_) | Input::Completion(_)) {
            return Err(Error::no_operation("the built-in stub", &request.input));
        }
        let mut demands = demands(&request);
        if !demands.is_empty() && !Settings::parse(settings)?.drop_unsupported {
            return Err(demands.swap_remove(0));
        }
        let n = request.sampling.n.unwrap_or(1);
        if !(1..=CHOICES).contains(&n) {
            return Err(Error::invalid("n", format!("must be from 1 to {CHOICES}, not {n}")));
        }
        let start: String = last_user_text(&request.input).chars().take(CHARACTERS).collect();
        let answer = format!("[stub] {start}");
        let usage = (words(&request.input), answer.split_whitespace().count() * n as usize);
        let model = &request.model;
        let mut body = Vec::with_capacity(256 + answer.len() * 8);
        if request.stream {
            let around = match request.input {
                Input::Chat(_) => ("\"delta\":{\"content\":", "}"),
                _ => ("\"text\":", ""),
            };
            let mut chunk = |choices: &dyn Fn(&mut Vec<u8>), usage| {
                body.extend_from_slice(b"data: ");
                object(&mut body, model, choices, usage);
                body.extend_from_slice(b"\n\n");
            };
            for index in 0..n {
                for word in answer.split_inclusive(' ') {
                    chunk(&|out| choice(out, index, Some(word), around, false), None);
                }
                chunk(&|out| choice(out, index, None, around, true), None);
            }
            chunk(&|_| {}, Some(usage));
            body.extend_from_slice(b"data: [DONE]\n\n");
        } else {
            let around = match request.input {
                Input::Chat(_) => ("\"message\":{\"role\":\"assistant\",\"content\":", "}"),
                _ => ("\"text\":", ""),
            };
            let choices = |out: &mut Vec<u8>| {
                for index in 0..n {
                    if index > 0 {
                        out.push(b',');
                    }
                    choice(out, index, Some(&answer), around, true);
                }
            };
            object(&mut body, model, choices, Some(usage));
        }
        let content_type = if request.stream { "text/event-stream" } else { "application/json" };
        Ok(HttpRequest {
            method: "POST".into(),
            path: Vec::new(),
            query: Vec::new(),
            headers: vec![("content-type".into(), content_type.into())],
            body,
            auth: Auth::None,
            framing: if request.stream { Framing::Sse } else { Framing::Whole },
            context: openai_shape::context(&request),
            dropped: demands.into_iter().filter_map(|demand| demand.param).collect(),
        })
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        Decoder(openai_shape::Decoder::new(Flavour::OpenAi, context.as_deref(), head))
    }
}

/// Decodes the stub's answer: OpenAI's shape, with counts that are a guess.
#[derive(Debug)]
pub struct Decoder(openai_shape::Decoder);

/// Marks token counts as a guess.
fn guessed(mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        if let Event::Usage(usage) = event {
            usage.estimated = true;
        }
    }
    events
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        guessed(self.0.feed(frames))
    }

    fn finish(&mut self) -> Vec<Event> {
        guessed(self.0.finish())
    }
}
