//! Ollama's own API, as a server: `/api/chat`, `/api/generate`, `/api/embed` and the older `/api/embeddings`, a dialect
//! each.
//!
//! How a request is read, where the contract leaves a choice. An encoder that speaks these dialects restores by the same
//! rules what the client wrote.
//! - An answer is streamed unless `stream` is false.
//! - A message becomes reasoning (`thinking`), text (`content`), media (`images`) and tool calls, in this order. The media
//!   type of an image is told by its first bytes.
//! - A tool call without an `id` gets one: `unnamed_N`, where `N` counts the calls of the conversation from 0. Neither an
//!   encoder that speaks this dialect nor our own answers show an id that begins like that. The `type` of a call is not
//!   kept where it is `function`. A `function.index` that is the call's position in its message is not kept, but the
//!   call's `extra` is `{}` at least; where other unknown members stand beside it, or where it is another number, it stays
//!   among them.
//! - A tool's message is the result of the call that its `tool_call_id` names; then the result's `extra` is `{}`, else
//!   none. Without one it answers the first open call of its `tool_name` in the latest turn that has calls, and without
//!   that too, the first open call. Where no call fits, the result gets an id as a call would. `tool_name` is the name of
//!   a tool's message; elsewhere it is unknown.
//! - Sampling parameters of `options` have their place in the contract: `num_predict` is `max_tokens`, `repeat_penalty`
//!   is `repetition_penalty`. All other options stay in `extra` under `options`, and so does a negative `num_predict`
//!   (no limit, or all of the context). An option that is `null` was not given.
//! - `format` is `"json"` or a schema without a name. `think` switches reasoning, or is its effort.
//! - `/api/generate` is a chat of `system` and `prompt`, unless `raw` is true or there is a `suffix`: then it is a
//!   completion. A completion without a suffix was `raw`; with one, `raw` stays in `extra` where it was true. `system` and
//!   `images` beside a completion stay in `extra` too.
//! - `/api/embed` and `/api/embeddings` keep all of `options` in `extra`.
//! - `null`, and in the places where Ollama's clients write members that they were not given, `""`, `[]` and `{}`, mean
//!   that a known member was not given.
//!
//! A request without messages, or without a prompt or an input, has nothing to answer: Ollama loads the model, or with
//! `keep_alive: 0` unloads it. It becomes a chat of no messages that is not streamed. Models of a gateway are always
//! loaded, and one client must not unload what others use, so no backend is asked: the renderer makes the whole answer,
//! which is Ollama's own, of the event `done` alone.
//!
//! How an answer is written:
//! - One line for each delta, one for each tool call when its arguments are complete, and a last one with `done`, which
//!   comes with [`Event::Done`]: a stream that fails never has it. A waiting connection is kept open with a blank in front
//!   of the next line; an empty line would not be JSON to a client.
//! - What a backend of this dialect told beside its answer stands in the next line, what came last (`context`, …) and the
//!   durations of its own usage in the last one. Its `created_at` replaces ours from there on, its `done_reason` too. Other
//!   backends tell no durations; they are left out.
//! - Only the first choice is shown: this API has no others. Refusals are content.
//! - A tool call whose arguments are not a JSON object (they were cut by a limit) is none that a client could run. It is
//!   in `invalid_tool_calls`, with its arguments as text. Of arguments over 16 MiB only the start is kept.
//! - `done_reason` is `stop`, `length` or `content_filter`. Behind a `stop` that stands for another reason,
//!   `native_finish_reason` has the backend's own word.
//! - `logprobs` is the list that OpenAI calls `logprobs.content`.
//! - An error is `{"error": "…"}`, in a stream as a line, with the path of the field at fault in the text.
//!
//! [`Event::Done`]: witgate_model::Event::Done

mod embed;
mod parse;
mod render;

use witgate_model::normaliser::{AnswerStart, Failure, Limits, Parsed, Rendered};
use witgate_model::{Error, Usage};

use crate::members::Waiting;
use crate::openai::json_answer;
use crate::{Dialect, Render, write};

/// The four dialects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Api {
    Chat,
    Generate,
    Embed,
    /// The older one, for a single text.
    Embeddings,
}

impl Dialect for Api {
    fn name(&self) -> &'static str {
        match self {
            Api::Chat => "ollama-chat",
            Api::Generate => "ollama-generate",
            Api::Embed => "ollama-embed",
            Api::Embeddings => "ollama-embeddings",
        }
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Api::Chat => &[("POST", "/api/chat")],
            Api::Generate => &[("POST", "/api/generate")],
            Api::Embed => &[("POST", "/api/embed")],
            Api::Embeddings => &[("POST", "/api/embeddings")],
        }
    }

    fn parse(&self, _: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        match self {
            Api::Chat => parse::chat(self.name(), limits, body),
            Api::Generate => parse::generate(self.name(), limits, body),
            Api::Embed | Api::Embeddings => embed::parse(*self, limits, body),
        }
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        json_answer(crate::status(&failure.error), error_body(&failure.error))
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        match self {
            Api::Chat | Api::Generate => Box::new(render::Lines::new(*self, start)),
            Api::Embed | Api::Embeddings => Box::new(embed::Vectors::new(*self, start)),
        }
    }
}

/// In front of the id of a call to which the client, or the backend, gave none.
const UNNAMED: &str = "unnamed_";

/// What a renderer must know of the request: the opaque `render` of the parsed request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Flags {
    /// Lines are wanted.
    stream: bool,
    /// The request asked for nothing: why the answer is done.
    nothing: Option<&'static str>,
}

impl Flags {
    fn to_text(self) -> String {
        self.nothing.unwrap_or(if self.stream { "stream" } else { "" }).to_owned()
    }

    /// Reads what [`Flags::to_text`] wrote.
    fn from_text(text: &str) -> Self {
        let nothing = ["load", "unload"].into_iter().find(|word| *word == text);
        Flags { stream: text == "stream", nothing }
    }
}

/// `{"error": …}`: the text names the field at fault.
fn error_body(error: &Error) -> Vec<u8> {
    let mut out = b"{\"error\":\"".to_vec();
    write::string_body(&mut out, &error.message);
    if let Some(param) = error.param.as_deref().filter(|param| !error.message.contains(param)) {
        out.extend_from_slice(b" (");
        write::string_body(&mut out, param);
        out.push(b')');
    }
    out.extend_from_slice(b"\"}");
    out
}

/// The dialect of a backend that speaks one of these APIs.
fn is_ollama(dialect: &str) -> bool {
    dialect.starts_with("ollama-")
}

/// Members of a backend's own usage object beside the counts, which are `ours`: its durations.
fn durations(usage: Option<&Usage>, ours: &[&str]) -> Waiting {
    let mut members = Waiting::default();
    if let Some(raw) = usage.and_then(|usage| usage.raw.as_ref()).filter(|raw| is_ollama(&raw.dialect)) {
        members.add(&raw.value, ours);
    }
    members
}
