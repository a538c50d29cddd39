//! A kept response as the stream that its making would have been: each text in one delta. The numbers of the events are the
//! same each time, so that a client whose stream broke can go on behind the last one that it got. They are not those of
//! the stream that made the response, which had more deltas; so the last event, which holds the whole response, is always
//! given.

use super::stored::Kept;
use super::{place, text_member};
use crate::members::DEPTH;
use crate::read::{Kind, Reader};
use crate::write;

/// The events of a kept response, those up to the number `after` left out.
pub(super) fn stream(kept: &Kept<'_>, after: Option<u64>) -> Vec<u8> {
    let mut replay = Replay { out: Vec::with_capacity(2 * kept.response.len()), sequence: 0, after };
    let begun = with(
        kept.response,
        &[
            ("status", "\"in_progress\""),
            ("output", "[]"),
            ("usage", "null"),
            ("error", "null"),
            ("incomplete_details", "null"),
        ],
    );
    for kind in ["response.created", "response.in_progress"] {
        replay.event(kind, |out| member(out, "response", &begun));
    }
    for (at, item) in kept.output.iter().enumerate() {
        replay.item(at, item);
    }
    let status = text(kept.response, "status").unwrap_or_default();
    let kind = format!("response.{}", if status.is_empty() { "completed" } else { &status });
    replay.after = None;
    replay.event(&kind, |out| member(out, "response", kept.response));
    replay.out
}

struct Replay {
    out: Vec<u8>,
    /// The number of the next event.
    sequence: u64,
    after: Option<u64>,
}

impl Replay {
    fn event(&mut self, kind: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let number = self.sequence;
        self.sequence += 1;
        if self.after.is_some_and(|after| number <= after) {
            return;
        }
        let out = &mut self.out;
        out.extend_from_slice(b"event: ");
        write::string_body(out, kind);
        out.extend_from_slice(b"\ndata: {\"type\":");
        write::string(out, kind);
        out.extend_from_slice(b",\"sequence_number\":");
        write::number(out, number);
        write(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn item(&mut self, at: usize, item: &str) {
        let kind = text(item, "type").unwrap_or_default();
        let begun = match kind.as_str() {
            "message" => with(item, &[("status", "\"in_progress\""), ("content", "[]")]),
            "function_call" => with(item, &[("status", "\"in_progress\""), ("arguments", "\"\"")]),
            "reasoning" => with(item, &[("summary", "[]"), ("content", "[]"), ("encrypted_content", "null")]),
            _ => item.to_owned(),
        };
        self.output_item("added", at, &begun);
        let id = text(item, "id").unwrap_or_default();
        match kind.as_str() {
            "message" => {
                for (number, piece) in elements(item, "content").into_iter().enumerate() {
                    self.piece((&id, at, number), piece);
                }
            }
            "function_call" => {
                let arguments = text(item, "arguments").unwrap_or_default();
                self.event("response.function_call_arguments.delta", |out| {
                    place(out, &id, at, None);
                    text_member(out, "delta", &arguments);
                });
                self.event("response.function_call_arguments.done", |out| {
                    place(out, &id, at, None);
                    text_member(out, "name", &text(item, "name").unwrap_or_default());
                    text_member(out, "arguments", &arguments);
                });
            }
            "reasoning" => {
                for (list, index, part, event) in [
                    ("summary", "summary_index", "response.reasoning_summary_part", "response.reasoning_summary_text"),
                    ("content", "content_index", "response.content_part", "response.reasoning_text"),
                ] {
                    for (number, piece) in elements(item, list).into_iter().enumerate() {
                        let at = |out: &mut Vec<u8>| place(out, &id, at, Some((index, number)));
                        let said = text(piece, "text").unwrap_or_default();
                        let empty = with(piece, &[("text", "\"\"")]);
                        self.event(&format!("{part}.added"), |out| {
                            at(out);
                            member(out, "part", &empty);
                        });
                        self.event(&format!("{event}.delta"), |out| {
                            at(out);
                            text_member(out, "delta", &said);
                        });
                        self.event(&format!("{event}.done"), |out| {
                            at(out);
                            text_member(out, "text", &said);
                        });
                        self.event(&format!("{part}.done"), |out| {
                            at(out);
                            member(out, "part", piece);
                        });
                    }
                }
            }
            _ => {}
        }
        self.output_item("done", at, item);
    }

    fn output_item(&mut self, what: &str, at: usize, item: &str) {
        self.event(&format!("response.output_item.{what}"), |out| {
            out.extend_from_slice(b",\"output_index\":");
            write::number(out, at as u64);
            member(out, "item", item);
        });
    }

    /// One piece of a message.
    fn piece(&mut self, (id, item, number): (&str, usize, usize), piece: &str) {
        let at = |out: &mut Vec<u8>| place(out, id, item, Some(("content_index", number)));
        let kind = text(piece, "type").unwrap_or_default();
        let empty = match kind.as_str() {
            "output_text" => with(piece, &[("text", "\"\""), ("annotations", "[]"), ("logprobs", "[]")]),
            "refusal" => with(piece, &[("refusal", "\"\"")]),
            _ => piece.to_owned(),
        };
        self.event("response.content_part.added", |out| {
            at(out);
            member(out, "part", &empty);
        });
        if let Some(name) = match kind.as_str() {
            "output_text" => Some("text"),
            "refusal" => Some("refusal"),
            _ => None,
        } {
            let said = text(piece, name).unwrap_or_default();
            let logprobs = raw(piece, "logprobs").filter(|_| name == "text").unwrap_or_default();
            let logprobs = |out: &mut Vec<u8>| {
                if !logprobs.is_empty() {
                    member(out, "logprobs", logprobs);
                }
            };
            self.event(&format!("response.{kind}.delta"), |out| {
                at(out);
                text_member(out, "delta", &said);
                logprobs(out);
            });
            for (index, annotation) in elements(piece, "annotations").into_iter().enumerate() {
                self.event("response.output_text.annotation.added", |out| {
                    at(out);
                    out.extend_from_slice(b",\"annotation_index\":");
                    write::number(out, index as u64);
                    member(out, "annotation", annotation);
                });
            }
            self.event(&format!("response.{kind}.done"), |out| {
                at(out);
                text_member(out, name, &said);
                logprobs(out);
            });
        }
        self.event("response.content_part.done", |out| {
            at(out);
            member(out, "part", piece);
        });
    }
}

/// A member that is JSON.
fn member(out: &mut Vec<u8>, name: &str, json: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(json.as_bytes());
}

/// The value of a member, as it was written.
fn raw<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    let _ = Reader::new(object, DEPTH).object(|reader, own| {
        let value = reader.raw()?;
        if own.text == name {
            found = Some(value);
        }
        Ok(())
    });
    found
}

/// A member that is a string.
fn text(object: &str, name: &str) -> Option<String> {
    Reader::new(raw(object, name)?, DEPTH).owned().ok()
}

/// The elements of a member that is a list.
fn elements<'a>(object: &'a str, name: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    let mut reader = Reader::new(raw(object, name).unwrap_or_default(), DEPTH);
    if reader.kind() == Kind::Array {
        let _ = reader.array(|reader, _| {
            all.push(reader.raw()?);
            Ok(())
        });
    }
    all
}

/// An object with other values of those members that it has of these names.
fn with(object: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(object.len());
    let _ = Reader::new(object, DEPTH).object(|reader, name| {
        let value = reader.raw()?;
        let value = values.iter().find(|(own, _)| name.text == *own).map_or(value, |(_, other)| other);
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(name.raw);
        out.push(':');
        out.push_str(value);
        Ok(())
    });
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    out
}
