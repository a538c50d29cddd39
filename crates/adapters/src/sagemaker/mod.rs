//! Amazon SageMaker's runtime: InvokeEndpoint and InvokeEndpointWithResponseStream around what a container speaks.
//!
//! SageMaker is a transport. It signs, carries a body to the container behind an endpoint, and cuts the container's
//! answer into the parts of an event stream. What the body says is the *codec*'s: the setting `codec` names it.
//!
//! # Requests
//!
//! - The setting `endpoint_name` is the endpoint; without it the request's model names the endpoint. In OpenAI's shape
//!   the body has a `model` too, which must be the name that the container serves: the setting `served_model`, without
//!   it the request's model.
//! - `codec = "vllm"`: OpenAI's shape, as [`crate::openai_shape`] writes it. vLLM picks its handler by what the body
//!   has: it gets `messages` for a conversation, `prompt` for a text, `input` for texts to embed, never two of them.
//! - `codec = "tgi"` and `"base"`: `inputs` and `parameters`. `tgi` is Text Generation Inference, `base` the classic
//!   Hugging Face container for text generation, which gives back a text and nothing about it.
//! - `prompt_format` says how a conversation is sent: `chat` is OpenAI's `messages` with every codec (TGI takes them at the
//!   same address); `base`, `llama3` and `plain-dialogue` make one text of them, which goes as `prompt` or `inputs`. What a
//!   text has no place for is refused then: tools, images, the form of the answer, reasoning, log probabilities,
//!   unknown members.
//! - The bound of InvokeEndpoint on a body, 6,291,456 bytes, is held here: a larger one is refused as too large.
//!
//! `parameters` of `tgi` and `base`:
//!
//! - Unset stays unset. Defaults are the facade's; the setting `parameters` gives what the endpoint's operator wants
//!   where the request says nothing.
//! - `temperature: 0` is greedy: `do_sample: false`, and no parameter of sampling at all, because TGI refuses a
//!   temperature of 0 and samples where it finds any. Any other temperature, and a `top_p` or `top_k` that leaves
//!   something out, is `do_sample: true`.
//! - Values that switch something off (`top_p: 1`, `top_k: 0`, penalties of 0) are left out for TGI, which refuses them.
//! - `return_full_text: false` is always sent, since both containers repeat the prompt otherwise; `echo` makes it true.
//! - TGI is asked for `details`: without them nobody knows why it stopped.
//! - `n`, `logprobs`, `logit_bias`, `presence_penalty`, `min_p`, `suffix`, `user` and, for `base`, `frequency_penalty` and
//!   `best_of` have no counterpart and are refused, or left out and listed with `drop_unsupported`.
//! - `extra` of the dialect `tgi` is copied into `parameters`; of any other dialect it is refused.
//!
//! # Answers
//!
//! - `PayloadPart` is bytes cut anywhere. They are joined and cut again, as server-sent events, as lines of JSON where
//!   the container says so (`application/jsonlines`), or, where the first character is a bracket, as one JSON value
//!   from a container that does not stream. A line or an event holds back at most 4 MiB, a value 32 MiB.
//! - An answer to `inputs` is an object with `generated_text`, a list of one such object, or of OpenAI's shape, whatever
//!   the container prefers; a stream of them is TGI's tokens or OpenAI's chunks. The text of special tokens is no text.
//! - TGI gives back the stop sequence that it met. It is cut off, and named in the finish.
//! - `finish_reason` is the container's. Where it gives none, `length` if at least `max_new_tokens` were generated.
//! - Usage is the container's. What it does not count is estimated by words between whitespace, and marked so.
//! - Events of the stream that AWS does not model are skipped.
//!
//! # Failures
//!
//! - `ModelError` is the container's failure: its `OriginalStatusCode` and `OriginalMessage` decide as if the container had
//!   been asked directly, a prompt that is too long included. Status and code stay AWS's: 424, `ModelError`.
//! - `ValidationError` also means that there is no such endpoint: its text tells.
//! - The wait that AWS advises is none: it sends no `retry-after`.

mod decode;
mod encode;
mod error;
mod generated;
mod settings;

use serde::{Deserialize, Serialize};
use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

use crate::openai_shape;
use crate::scan;

pub use decode::SageMakerDecoder;

/// The dialect of `inputs`, `parameters` and `generated_text`.
pub const TGI: &str = "tgi";

/// What the adapter is called in messages.
const BACKEND: &str = "SageMaker";

/// The adapter `sagemaker`.
#[derive(Clone, Copy, Debug)]
pub struct SageMaker;

/// `http-request.context`.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Context {
    /// What the OpenAI shape hands to its own decoder; `None` where `inputs` were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    /// Words of the prompt.
    words: u64,
    /// The bound on the answer's length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<u64>,
    /// The stop sequences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stop: Vec<String>,
}

/// The context of the OpenAI shape.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Shape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

/// Counts the words between whitespace of a text that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Words {
    count: u64,
    inside: bool,
}

impl Words {
    fn add(&mut self, text: &str) {
        let (count, inside) = scan::words(text, self.inside);
        self.count += count;
        self.inside = inside;
    }
}

impl Adapter for SageMaker {
    type Decoder = SageMakerDecoder;

    fn describe() -> Description {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Description {
            id: "sagemaker".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary:
                "Models behind endpoints of Amazon SageMaker: vLLM, TGI and the classic text-generation container; \
                      embeddings, tools, images, structured output, log probabilities and n with vLLM only"
                    .to_owned(),
            operations: strings(&["chat", "completion", "embedding"]),
            capabilities: strings(&["tools", "images", "audio", "json-schema", "reasoning", "logprobs", "n"]),
            dialects: strings(&[openai_shape::CHAT, openai_shape::COMPLETIONS, openai_shape::EMBEDDINGS, TGI]),
            secrets: vec![SecretSlot {
                name: "aws".to_owned(),
                description: "AWS credentials that sign the requests.".to_owned(),
                required: false,
            }],
            settings_schema: settings::SCHEMA.to_owned(),
            default_endpoint: Some("https://runtime.sagemaker.{region}.{dns_suffix}".to_owned()),
        }
    }

    /// The runtime's endpoint has nothing that is cheap to ask: the container's `/ping` cannot be reached through it.
    fn probe(_settings: &str) -> Result<Option<HttpRequest>, Error> {
        Ok(None)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        encode::encode(settings, request)
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> SageMakerDecoder {
        SageMakerDecoder::new(context.as_deref(), head)
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn words_are_counted_wherever_a_text_is_cut() {
        for text in ["", " ", "a", "a b", " a\tb\n\ncd ", "a\u{b}b\u{1f}c", "é b\u{a0}c 世界", "one two  three\r\nfour"]
        {
            let count = text.split_whitespace().count() as u64;
            let places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            for place in places {
                let mut words = Words::default();
                words.add(&text[..place]);
                words.add(&text[place..]);
                assert_eq!(words.count, count, "{text:?} cut at {place}");
            }
        }
    }
}
