//! The shape of OpenAI's Chat Completions and Completions APIs, which many backends speak.
//!
//! The modules `encode`, `embeddings` and `models` write requests, and [`responses`] those of OpenAI's newer API;
//! [`Decoder`] reads answers and errors of all of them. What differs between the backends is a [`Flavour`]: a few names
//! and rules, so that an adapter for one more such backend is a few lines.
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
//! `drop_unsupported` is on: then each is listed in `dropped`. Members that are null or `[]` ask for nothing and are left
//! out. A few top-level members mean the same in Chat Completions and in Responses (`metadata`, `service_tier`,
//! `prompt_cache_key`, `prompt_cache_retention`, `safety_identifier`) and pass between them. Where none of the tools can
//! be sent, nothing is said of their use.
//!
//! OpenAI takes names of tools in `[a-zA-Z0-9_-]{1,64}`, ids of calls of at most 40 characters (64 in Responses), and
//! media in messages of the user alone. So [`Flavour::OpenAi`] and [`Flavour::Bedrock`] map other names and ids to
//! `text_hash`, the decoder tells the client's own names, and they refuse media in messages of the system and of the
//! assistant. Media in a tool's result go in a message of the user, behind all results, which names the call. llama.cpp's server and vLLM take any name and any id, and media in every message: for
//! [`Flavour::LlamaCpp`] and [`Flavour::SageMaker`] all goes as it came. So does what an OpenAI client sent, whatever the
//! backend: it is the backend's to judge, unless the setting `strict` says that the backend is as strict as OpenAI.
//!
//! Four things are *hints or proofs for another backend* and are left out without
//! an error: a prompt-cache mark (this API caches by itself), the signature of a reasoning part, the file name of a
//! picture or a sound, and `detail` of what is not a picture. A tool's `is_error` has no member here: the text of the result says so.
//! Several results of tools in one message become one message each, in front of what else the message says.
//!
//! Embeddings go as the client wrote them, up to 4,000 texts at once, since each vector is an event. `encoding_format` is
//! sent only where the client chose one; vectors come back as the backend wrote them.
//!
//! # How an answer maps
//! Reasoning is found under `reasoning_content` (DeepSeek, llama.cpp, vLLM), `reasoning` (OpenRouter, Groq, newer vLLM) and
//! in parts of the kind `thinking` (Mistral); the same text under two names is told once. A server that leaves it in the
//! text, between `<think>` and `</think>`, does so unseen, unless the setting `reasoning_tag` names the tag: then what
//! stands in it at the very start of a message is lifted out, and white space around the tags is left out with them.
//!
//! Tool calls are told apart by their number; where all have the number 0, or none, by id and name. Missing ids are
//! made, and ids that repeat within an answer are made unique.
//!
//! A wait is read from `retry-after-ms` or `retry-after`; where a limit gives neither, from the `x-ratelimit-reset-…` of
//! what is used up. `x-should-retry` decides where the status does not.
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
mod llm;
mod models;
mod names;
mod policy;
pub mod responses;
mod settings;

pub(crate) use chunk::object;
pub use decoder::Decoder;
pub(crate) use encode::{context, encode, get, size_hint};
pub use error::of_answer as error_of_answer;
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
    /// The OpenAI-compatible endpoint of Amazon Bedrock.
    Bedrock,
    /// vLLM, which speaks the shape, in a container of Amazon SageMaker.
    SageMaker,
}

impl Flavour {
    /// The path from the endpoint to the API.
    fn root(self) -> &'static [&'static str] {
        match self {
            Flavour::LlamaCpp => &["v1"],
            Flavour::OpenAi | Flavour::Bedrock | Flavour::SageMaker => &[],
        }
    }

    /// Who refuses, in messages: the subject of a sentence.
    fn backend(self) -> &'static str {
        match self {
            Flavour::OpenAi => "OpenAI's API",
            Flavour::LlamaCpp => "llama.cpp",
            Flavour::Bedrock => "Bedrock's OpenAI-compatible endpoint",
            Flavour::SageMaker => "SageMaker's codec `vllm`",
        }
    }

    /// The backend's own rules are OpenAI's: about names of tools, ids of calls, and where media may stand.
    fn is_bounded(self) -> bool {
        matches!(self, Flavour::OpenAi | Flavour::Bedrock)
    }
}
