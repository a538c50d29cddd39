//! Ollama by its native API: `/api/chat`, `/api/generate`, `/api/embed` and `/api/tags`.
//!
//! The endpoint is the server's root, `http://127.0.0.1:11434`. The native API is used rather than Ollama's imitation of
//! OpenAI's, which cannot set `num_ctx`, ignores `tool_choice` and `n`, and loses failures in the middle of a stream.
//! Where Ollama leaves a choice, this is what was chosen.
//!
//! # Which endpoint
//!
//! - With the setting `path = "exact"` the endpoint is itself what conversations are sent to, and takes nothing else.
//! - A conversation goes to `/api/chat`. One of the dialect `ollama-generate`, which is at most a system text and then
//!   one text with images, goes to `/api/generate`, where it came from.
//! - A text to continue goes to `/api/generate` with `raw: true`, so that no chat template is put around it. With a
//!   `suffix` it goes there without `raw`: only the model's template knows how to ask for what stands in the middle.
//! - Texts to embed go to `/api/embed`; those of the dialect `ollama-embeddings` to the older `/api/embeddings`, whose
//!   vectors are not normalised. Which models there are is asked of `/api/tags`, and readiness of `/api/version`.
//!
//! # Requests
//!
//! - `stream` is always written: without it Ollama streams.
//! - Sampling parameters stand under `options`, `stop` always as an array. `max_completion_tokens`, else `max_tokens`, is
//!   `num_predict`; `repetition_penalty` is `repeat_penalty`.
//! - The settings' `options`, `keep_alive`, `think`, `truncate` and `shift` are the operator's. They fill what a request
//!   leaves unset, and without them nothing is filled. `think` is not filled for a text to continue.
//! - Text parts of a message are joined by line feeds: its content is one string. Images stand beside it, so where they
//!   stood between the texts is not told. They are data only: URLs and file ids are refused, and so is every other
//!   medium. Refusals of earlier turns are content.
//! - Arguments of tool calls are objects. A tool's result is a message of its own with `tool_name`, from the
//!   conversation where the message has no name, and `tool_call_id`. That a tool failed is said by `Error: ` in front of
//!   the text, unless the text says so itself.
//! - A tool without parameters gets the schema of an empty object: Ollama has no tool without one.
//! - Ollama has no `tool_choice`. `auto` is what it does, for `none` the tools are not sent, and a choice that demands a
//!   tool is refused. `parallel_tool_calls: false`, `n` above 1, `logit_bias`, `strict` tools, the end user's name, names
//!   of speakers, `echo`, `best_of` and tokens to embed are refused. With `drop_unsupported` they are left out and listed.
//! - `response_format` is `format`: `json`, or the schema, which Ollama holds the model to; its name goes unsaid.
//! - Reasoning is `think`: off, on, or `low`, `medium`, `high`, `max`. `none` is off, `minimal` is `low`, `xhigh` is
//!   `max`. A budget of tokens and a summary are refused. Reasoning of earlier turns is `thinking`.
//! - Prompt-cache marks, signatures over reasoning, names and media types of images and `detail: auto` mean nothing here
//!   and change nothing; they are left out without an error.
//!
//! # Requests of Ollama's own dialects
//!
//! They go out equal as JSON to what the client sent, except for `model`, `stream`, the settings above and
//! `type: function`, which is always written. Unknown members stand where they stood: `extra` of a tool and of a call is
//! merged with their `function`, `extra` of the request with `options`. An id that was made (`unnamed_N`) is not written.
//! `tool_call_id` of a result, and `function.index` of a call (its place in the message), are written where there is an
//! `extra`, if only `{}`.
//!
//! # Answers
//!
//! - A tool call without an id of its own, or with one that came before, gets `unnamed_N`: `N` counts the calls of the
//!   whole conversation, and is above every such number in it. Equal requests get equal ids. Given back, it is not
//!   written: Ollama gave none.
//! - `stop` after a tool call is `tool-calls`. `load`, `unload` and no reason at all are `stop`.
//! - Tokens are counted where Ollama does, and otherwise not at all. Its durations are in the usage's `raw`.
//! - Log probabilities get the members that OpenAI's objects always have. Those of reasoning come as an `other` event.
//! - Unknown members come as `other` events of the endpoint's dialect: those that each line repeats once, and again when
//!   they change. `created_at` of the last line comes with them, and `done_reason` where it is not `stop` or `length`.
//! - To a client of the endpoint's own dialect, unknown members and `created_at` come with each line, and log
//!   probabilities as they are, those of reasoning with the reasoning.
//! - Failures have no code: status and text tell what they are. One in the middle of a stream has the text alone.

mod decode;
mod encode;
mod error;
mod object;
mod settings;
mod time;
mod wire;

use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

pub use decode::OllamaDecoder;

/// The dialect of `/api/chat`.
const CHAT: &str = "ollama-chat";

/// The dialect of `/api/generate`.
const GENERATE: &str = "ollama-generate";

/// The dialect of `/api/embed`.
const EMBED: &str = "ollama-embed";

/// The dialect of `/api/embeddings`, the older one for a single text.
const EMBEDDINGS: &str = "ollama-embeddings";

/// The dialect of `/api/tags`.
const TAGS: &str = "ollama-tags";

/// In front of the id of a tool call that has none: no backend sees such an id, nor does a client of Ollama's dialects.
const UNNAMED: &str = "unnamed_";

/// Most texts in one request to embed, so that their vectors are fewer than the events that one answer may make.
const TEXTS: usize = 4000;

/// The adapter `ollama`.
#[derive(Clone, Copy, Debug)]
pub struct Ollama;

/// What the encoder tells the decoder: `http-request.context`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Context {
    operation: Operation,
    /// Of a conversation: the number of the next tool call. Of texts to embed: how many.
    count: u64,
    /// The client speaks the endpoint's own dialect.
    native: bool,
}

/// Which endpoint was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Chat,
    Generate,
    Embed,
    Embeddings,
    Tags,
}

impl Operation {
    /// The last segment of the endpoint's path.
    fn name(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Generate => "generate",
            Operation::Embed => "embed",
            Operation::Embeddings => "embeddings",
            Operation::Tags => "tags",
        }
    }

    fn dialect(self) -> &'static str {
        match self {
            Operation::Chat => CHAT,
            Operation::Generate => GENERATE,
            Operation::Embed => EMBED,
            Operation::Embeddings => EMBEDDINGS,
            Operation::Tags => TAGS,
        }
    }
}

impl Context {
    /// As text; nothing where there is nothing to tell.
    fn to_text(self) -> Option<String> {
        if self.operation == Operation::Chat && self.count == 0 && !self.native {
            return None;
        }
        let native = if self.native { " native" } else { "" };
        Some(format!("{} {}{native}", self.operation.name(), self.count))
    }

    /// Reads what [`Context::to_text`] wrote.
    fn from_text(text: Option<&str>) -> Self {
        let mut words = text.unwrap_or_default().split(' ');
        let operation = match words.next() {
            Some("generate") => Operation::Generate,
            Some("embed") => Operation::Embed,
            Some("embeddings") => Operation::Embeddings,
            Some("tags") => Operation::Tags,
            _ => Operation::Chat,
        };
        let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        Context { operation, count, native: words.next() == Some("native") }
    }
}

impl Adapter for Ollama {
    type Decoder = OllamaDecoder;

    fn describe() -> Description {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Description {
            id: "ollama".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Ollama by its native API; prompt-cache marks of other dialects are left out.".to_owned(),
            operations: strings(&["chat", "completion", "embedding", "models"]),
            capabilities: strings(&["tools", "images", "json-schema", "reasoning", "logprobs"]),
            dialects: strings(&[CHAT, GENERATE, EMBED, EMBEDDINGS]),
            secrets: vec![SecretSlot {
                name: "api_key".to_owned(),
                description: "A bearer key, where a proxy in front of Ollama, or ollama.com, asks for one.".to_owned(),
                required: false,
            }],
            settings_schema: settings::SCHEMA.to_owned(),
            default_endpoint: Some("http://127.0.0.1:11434".to_owned()),
        }
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        encode::probe(settings)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        encode::encode(settings, &request)
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> OllamaDecoder {
        OllamaDecoder::new(Context::from_text(context.as_deref()), head)
    }
}
