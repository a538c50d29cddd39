//! The shape of OpenAI's Chat Completions and Completions APIs, which many backends speak.
//!
//! The module `encode` writes requests, [`Decoder`] reads answers and errors. What differs between the backends is a [`Flavour`]:
//! a few names and rules, so that an adapter for one more such backend is a few lines.
//!
//! # How a request maps
//! A request that came in the same dialect (`openai-chat` for a conversation, `openai-completions` for a text) goes out
//! equal as JSON to what the client sent, except for `model`, and for `stream_options.include_usage`, which is switched on
//! for streams so that usage is known. Unknown members stand where they stood: `extra` of a record is spliced into its
//! object, and a member of `extra` that bears the name of a nested object that is written here (`function`, `image_url`,
//! `input_audio`, `file`, `video_url`, `stream_options`, `chat_template_kwargs`) is merged into that object. No member
//! is written twice: what the contract names wins.
//!
//! From another dialect, unknown members, parts, tools and choices are refused as `unsupported`, unless the setting
//! `drop_unsupported` is on. Four things are *hints or proofs for another backend* and are left out without an error: a
//! prompt-cache mark (this API caches by itself), the signature of a reasoning part, the file name of a picture or a
//! sound, and `detail` of what is not a picture. A tool's `is_error` has no member here: the text of the result says so.
//! Several results of tools in one message become one message each, in front of what else the message says.
//!
//! # What an answer cannot carry
//! Unknown members of a single tool call come as an `other` event whose `tool_calls` names the call by its place; a
//! date in `retry-after` cannot be turned into a span without a clock, and is left to the gateway, which sees the
//! header too. A tool call that is not a function's is told whole, as a block of its own, when its choice ends.

pub(crate) mod chunk;
mod decode;
mod decoder;
mod embeddings;
mod encode;
pub(crate) mod error;
pub(crate) mod json;
mod lift;
mod models;
mod policy;
pub mod responses;
mod settings;

pub(crate) use chunk::object;
pub use decoder::Decoder;
pub(crate) use encode::{context, encode, get, size_hint};
pub(crate) use json::string as write_json_string;
pub(crate) use settings::{Readiness, Settings};

/// The dialect of chat requests and answers.
pub const CHAT: &str = "openai-chat";

/// The dialect of text completion requests and answers.
pub const COMPLETIONS: &str = "openai-completions";

/// The dialect of requests to OpenAI's Responses API, and of its answers.
pub const RESPONSES: &str = "openai-responses";

/// The dialect of embedding requests and answers.
pub const EMBEDDINGS: &str = "openai-embeddings";

/// The dialect of what is told of a model.
pub const MODELS: &str = "openai-models";

/// Which backend speaks the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// OpenAI itself, and servers that follow it: the endpoint ends in `/v1`.
    OpenAi,
    /// llama.cpp's `llama-server`: the endpoint is the server's root.
    LlamaCpp,
}

impl Flavour {
    /// The path from the endpoint to the API.
    fn root(self) -> &'static [&'static str] {
        match self {
            Flavour::OpenAi => &[],
            Flavour::LlamaCpp => &["v1"],
        }
    }
}
