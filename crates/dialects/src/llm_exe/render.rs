//! The answer: collected, taken for what was asked, and given back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use witgate_model::normaliser::{Ending, Failure, Parsed, Rendered};
use witgate_model::{BlockKind, Event, FinishReason, Input, Message, Request, Role};

use super::envelope::Envelope;
use super::prompt::{self, Format};
use super::{Dialect, LlmExe, output};
use crate::Render;
use crate::openai::json_answer;

/// The most bytes of a model's text that a failure shows.
const MOST_SHOWN: usize = 8 * 1024;

/// What the answer is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum Kind {
    #[default]
    Text,
    List,
    Json,
    Functions,
}

/// What the renderer must know of the request: the opaque `render` of the parsed request.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) kind: Kind,
    pub(super) schema: Option<Value>,
    /// How the answer goes back.
    pub(super) envelope: Envelope,
    /// Failures are 500.
    pub(super) legacy: bool,
    pub(super) format: Format,
    /// What was asked, where the model may be shown its error.
    pub(super) retry: Option<Box<Request>>,
}

impl State {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A part of the answer.
enum Piece {
    Text(String),
    Call { id: String, name: String, arguments: String },
}

/// The renderer.
#[derive(Default)]
pub(super) struct Answer {
    state: State,
    /// The blocks of the first choice that count, by their index.
    pieces: Vec<(u32, Piece)>,
    cut: bool,
    ended: bool,
    /// Why the answer is not what was asked for.
    wrong: Option<String>,
    status: u16,
    text: bool,
}

impl Answer {
    pub(super) fn new(render: &str) -> Self {
        let state = serde_json::from_str(render).unwrap_or_default();
        Answer { state, status: 200, ..Answer::default() }
    }

    /// All that the model wrote.
    fn written(&self) -> String {
        let texts = self.pieces.iter().filter_map(|(_, piece)| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Call { .. } => None,
        });
        texts.collect()
    }

    /// Takes what was written for what was asked.
    fn taken(&self) -> Result<Value, String> {
        match (self.state.kind, &self.state.schema) {
            (Kind::Json, Some(schema)) => output::structured(schema, &self.written()).map_err(|error| {
                if self.cut { format!("{error}; the answer was cut at its limit of tokens") } else { error }
            }),
            (Kind::List, _) => Ok(output::list(&self.written()).into()),
            (Kind::Functions, _) => self.calls(),
            _ => Ok(self.written().into()),
        }
    }

    fn calls(&self) -> Result<Value, String> {
        let mut list = Vec::new();
        for (_, piece) in &self.pieces {
            match piece {
                Piece::Text(text) if text.is_empty() => {}
                Piece::Text(text) => list.push(json!({"type": "text", "text": text})),
                Piece::Call { id, name, arguments } => {
                    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
                    let input: Value = serde_json::from_str(arguments)
                        .map_err(|error| format!("the arguments of the function {name:?} are not JSON: {error}"))?;
                    list.push(json!({"type": "function_use", "functionId": id, "name": name, "input": input}));
                }
            }
        }
        Ok(Value::Array(list))
    }

    /// The whole answer.
    fn finish(&mut self) -> Vec<u8> {
        let body = match self.taken() {
            Ok(Value::String(text)) if self.state.kind == Kind::Text => {
                self.text = true;
                text.into_bytes()
            }
            Ok(value) => value.to_string().into_bytes(),
            Err(wrong) => {
                self.status = if self.state.legacy { 500 } else { 502 };
                let shown = shown(&self.everything());
                let body = json!({"error": "output_parse_failed", "detail": wrong, "output": shown});
                self.wrong = Some(wrong);
                body.to_string().into_bytes()
            }
        };
        self.state.envelope.wrap(Rendered { body, ..self.bare() }).body
    }

    /// All that the model wrote, calls too.
    fn everything(&self) -> String {
        let mut all = String::new();
        for (_, piece) in &self.pieces {
            match piece {
                Piece::Text(text) => all.push_str(text),
                Piece::Call { arguments, .. } => all.push_str(arguments),
            }
        }
        all
    }

    /// Status and headers without an envelope.
    fn bare(&self) -> Rendered {
        if self.text {
            let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
            return Rendered { status: self.status, headers, body: Vec::new() };
        }
        json_answer(self.status, Vec::new())
    }
}

fn shown(text: &str) -> String {
    if text.len() <= MOST_SHOWN {
        return text.to_owned();
    }
    let mut end = MOST_SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} [truncated]", text.get(..end).unwrap_or_default())
}

/// What the model is told of its answer.
fn complaint(wrong: &str) -> String {
    format!(
        "This answer cannot be used: {wrong}. Answer again, with nothing but one JSON value that matches the schema."
    )
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        if self.state.envelope == Envelope::None { self.bare() } else { json_answer(self.status, Vec::new()) }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        for event in events {
            if self.ended {
                break;
            }
            match event {
                Event::BlockStart(start) if start.choice == 0 => match start.kind {
                    BlockKind::Text | BlockKind::Refusal => {
                        self.pieces.push((start.index, Piece::Text(String::new())));
                    }
                    BlockKind::ToolCall(call) => {
                        let piece = Piece::Call { id: call.id, name: call.name, arguments: String::new() };
                        self.pieces.push((start.index, piece));
                    }
                    _ => {}
                },
                Event::Text(delta) | Event::Arguments(delta) => {
                    // Deltas are of the last blocks, nearly always of the very last.
                    let piece = self.pieces.iter_mut().rev().find(|(index, _)| *index == delta.index);
                    match piece {
                        Some((_, Piece::Text(text))) => text.push_str(&delta.text),
                        Some((_, Piece::Call { arguments, .. })) => arguments.push_str(&delta.text),
                        None => {}
                    }
                }
                Event::Finish(finish) if finish.choice == 0 => self.cut = finish.reason == FinishReason::Length,
                Event::Done => {
                    self.ended = true;
                    return self.finish();
                }
                _ => {}
            }
        }
        Vec::new()
    }

    fn end(&mut self) -> Ending {
        let (Some(wrong), Some(mut request)) = (&self.wrong, self.state.retry.take()) else {
            return Ending::default();
        };
        let (said, complaint) = (shown(&self.written()), complaint(wrong));
        match &mut request.input {
            Input::Chat(messages) => {
                // Backends take no empty turn.
                if !said.trim().is_empty() {
                    messages.push(Message::text(Role::Assistant, said));
                }
                messages.push(Message::text(Role::User, complaint));
            }
            Input::Completion(completion) => {
                prompt::again(&mut completion.text, self.state.format, &said, &complaint);
            }
            _ => return Ending::default(),
        }
        let state = std::mem::take(&mut self.state);
        Ending { again: Some(Parsed { request: *request, render: state.to_text() }), keep: Vec::new() }
    }

    fn refuse(&mut self, failure: &Failure) -> Option<Rendered> {
        self.ended = true;
        let settings = if self.state.legacy { r#"{"legacy_status":true}"# } else { "" };
        let envelope = self.state.envelope;
        (envelope != Envelope::None).then(|| envelope.wrap(LlmExe.refuse(settings, failure)))
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        let settings = if self.state.legacy { r#"{"legacy_status":true}"# } else { "" };
        self.state.envelope.wrap(LlmExe.refuse(settings, failure)).body
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}
