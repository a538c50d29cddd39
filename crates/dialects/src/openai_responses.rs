//! OpenAI's Responses API, as a server.
//!
//! # How a request is read
//! - `instructions` are the first message, of the role `system`. `input` as a string is the one message of the user that it
//!   stands for; such messages from a list have `extra`, `{}` at least.
//! - What the model said stands in one message of the assistant: reasoning and function calls join the message beside them;
//!   two `message` items are two messages. Each `function_call_output` is a message of the role `tool`.
//! - A content string becomes one text part with `extra` none; a part that came from an object always has an `extra`, `{}` at
//!   least. Content of a type that is not known is `Part::Other`, and so is a picture or a file that the contract cannot
//!   hold: one with two sources, bytes that are not a data URL. Items of unknown types are too, whole: those whose type
//!   ends in `_output` in a message of the role `tool`, others in one of the assistant.
//! - An item with an `id` that its backend gave keeps all its members. Of others, what the API itself adds when it answers
//!   says nothing and is taken for not given: the type `message`, `status`, empty `annotations` and `logprobs`, and an `id`
//!   that this gateway made (`msg_…_0`). So an answer can be sent back to any backend.
//! - `reasoning` is `Part::Reasoning`: the parts of its summary, or else of its content, joined by blank lines.
//!   `encrypted_content` is its signature, or, without a text, its redacted form.
//! - `max_output_tokens` counts reasoning too: it is `max_completion_tokens`. `text.format` is the response format; other
//!   members of `text` stay under that name in the request's `extra`.
//! - Of `include`, `message.output_text.logprobs` asks for log probabilities, and `reasoning.encrypted_content` is given
//!   anyway where the request asks for reasoning; a list with any other entry stays in `extra`.
//! - `null` for a member that is known and optional means that it was not given. An unknown member keeps its `null`.
//!
//! # What the gateway does itself
//! - The id of a response is the gateway's, never the backend's: it must be known before a backend has answered.
//! - `store`, true where it is not given, keeps the response and the conversation up to it, as a document of at most 4 MiB
//!   (`MOST_KEPT`); a larger one is not kept, and asking for it later is a 404. Backends are not told of `store`.
//! - `previous_response_id` puts the kept conversation in front of the input, without the `instructions` of then. An
//!   `item_reference` is replaced by the item. Both are looked up among at most 8 documents: a kept conversation holds the
//!   items before it, so the newest ones are looked for.
//! - Items of a backend that names them keep their names, and are documents of their own, so that they can be referred to.
//! - With `stream=true` a kept response is given as a stream again, with `starting_after=N` behind the event of that number.
//!   `include` asks for nothing more: all that is kept is given. `input_items` come in pages, the newest first.
//! - With `background` the answer is given later (`Step::Later`), and the response's id begins with `resp_bg-`. What has
//!   become of it is all in one document, of the kind `later`; `later.rs` reads it. It needs `store`.
//!
//! # How an answer is written
//! - Text and refusals that follow each other are content of one message, unless the backend says that another begins.
//!   Every tool call, and every piece of reasoning, is an item.
//! - Reasoning stands in `summary` where the client asked for a summary, or the backend speaks this dialect; else it is the
//!   model's own, and stands in `content`. A backend that speaks this dialect says where each part begins.
//! - The request's members stand in the response as the client wrote them, unless the backend tells what it made of them.
//! - An item is done when the next one begins or the answer ends: only then it is known whether it is complete.
//! - A stream that fails tells so twice, as OpenAI's does: by an `error` and by `response.failed`.
//! - A reason to end that the API does not have is `completed`; the backend's word is `native_finish_reason`.

mod answer;
mod later;
mod parse;
mod replay;
mod stored;

use witgate_model::Error;
use witgate_model::normaliser::{AnswerStart, Client, DocumentRef, Failure, Limits, Parsed, Rendered, Step};

use crate::{Dialect, Render, write};

/// The name of this dialect.
pub(crate) const NAME: &str = "openai-responses";

/// The kind of the documents that this dialect keeps.
const KIND: &str = "response";

/// What the unique part of an id begins with where the answer is given later: no other one has such a character.
const LATER: &str = "bg-";

/// The largest document that is kept, in bytes.
const MOST_KEPT: usize = 4 * 1024 * 1024;

/// The dialect `openai-responses`.
pub(crate) struct OpenAiResponses;

impl Dialect for OpenAiResponses {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("POST", "/v1/responses"),
            ("POST", "/responses"),
            ("GET", "/v1/responses/{id}"),
            ("GET", "/v1/responses/{id}/input_items"),
            ("DELETE", "/v1/responses/{id}"),
            ("POST", "/v1/responses/{id}/cancel"),
        ]
    }

    fn parse(&self, _: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        match parse::create(&[], limits, body)? {
            Step::Ask(parsed) | Step::Follow(parsed) => Ok(parsed),
            Step::Later(later) => Ok(later.parsed),
            _ => Err(Error::invalid("previous_response_id", "kept responses are not at hand here").with_status(400)),
        }
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        match stored::asked(client) {
            Some(asked) => stored::answer(client, &asked),
            None => {
                let documents = client.documents.iter().map(later::as_kept).collect::<Result<Vec<_>, Error>>()?;
                parse::create(&documents, limits, body)
            }
        }
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        crate::openai::render_error(failure)
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        Box::new(answer::Answer::new(start))
    }
}

/// Where an event belongs: the item, its number, and the number of the piece under the name `index`.
fn place(out: &mut Vec<u8>, id: &str, item: usize, piece: Option<(&str, usize)>) {
    out.extend_from_slice(b",\"item_id\":");
    write::string(out, id);
    out.extend_from_slice(b",\"output_index\":");
    write::number(out, item as u64);
    if let Some((index, number)) = piece {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(index.as_bytes());
        out.extend_from_slice(b"\":");
        write::number(out, number as u64);
    }
}

/// A member that is a text.
fn text_member(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write::string(out, text);
}

/// Where a document of this dialect is: that of a response with this id, or of an item.
fn at(id: impl Into<String>) -> DocumentRef {
    let id = id.into();
    match later_key(&id) {
        Some(key) => DocumentRef { kind: "later".to_owned(), key: key.to_owned() },
        None => DocumentRef { kind: KIND.to_owned(), key: id },
    }
}

/// The key of a response that is given later; `None` where it is none.
fn later_key(id: &str) -> Option<&str> {
    id.strip_prefix("resp_")?.strip_prefix(LATER)
}

/// The part of an item's id that names the response in which this gateway made it; `None` where it did not make it.
fn made_in(id: &str) -> Option<&str> {
    let plain = |text: &str| {
        let text = text.strip_prefix(LATER).unwrap_or(text);
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let mut pieces = id.split('_');
    match (pieces.next()?, pieces.next()?, pieces.next()?, pieces.next()) {
        ("msg" | "fc" | "fco" | "rs" | "item", answer, number, None) if plain(answer) && plain(number) => Some(answer),
        _ => None,
    }
}

/// An id that can be the key of a document.
fn is_key(id: &str) -> bool {
    (1..=256).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The id of a response.
fn is_response_id(id: &str) -> bool {
    id.starts_with("resp_") && is_key(id)
}
