//! The shape of Anthropic's Messages API, which Anthropic serves, others follow, and Bedrock has inside of InvokeModel.
//!
//! `body` writes requests, [`Decoder`] reads answers, the module `error` reads failures. A backend that carries the same
//! JSON in another way takes these with its [`Flavour`]:
//!
//! - `body(flavour, &settings, &request)` gives the JSON body, the decoder's context, what was left out, and the headers of
//!   version and beta features. With [`Flavour::Bedrock`] the body has no `model` and no `stream`, but
//!   `anthropic_version` and `anthropic_beta`, and there are no headers. `Settings` are read by `Settings::parse` from
//!   JSON, or built from their default.
//! - `Decoder::new(flavour, context, head)`. Frames that hold one event each as JSON text go to [`Decoder::event`], whole
//!   answers as one frame of bytes to `feed`; `finish` ends both. [`Decoder::fail`] tells a failure that only the
//!   carrier's frames show, [`Decoder::is_ended`] whether anything may follow.
//! - `error::of_answer(backend, status, headers, body)` and `error::of_object(backend, status, json)`.
//!
//! # Requests from the dialect `anthropic-messages`
//!
//! They arrive equal as JSON to what the client sent; the backend judges them. A first message of the role `system` is
//! the member `system`. Content of one text without `extra` and without a mark is a string, all other content a list of
//! blocks. Unknown members stand where they stood: `extra` of a record is spliced into its object, and its members
//! `metadata`, `tool_choice`, `output_config` (with `format` inside), `thinking` and a part's `source` into the object of
//! that name. No member is written twice: what the contract names wins. Names and ids are not mapped. Beta features may be
//! asked for by the member `anthropic_beta`, as Bedrock has it: for Anthropic they go into the header, beside those of
//! the settings.
//!
//! # Requests from other dialects
//!
//! - System and developer messages become the top-level `system`, in order, wherever they stood. Consecutive turns of one
//!   side are merged; results of tools come first in their turn. A conversation that begins with the assistant is refused
//!   (with `drop_unsupported`, its first turn is left out): we put no words into the user's mouth.
//! - Text of no characters says nothing and is left out, a cache mark on it moves to the part before it. A user's message
//!   that is empty then is refused, an empty turn of the assistant is left out.
//! - `max_tokens` is required: `max_completion_tokens` before `max_tokens`, else the setting `default_max_tokens` (4096),
//!   and on top of it the room for thinking.
//! - Names of tools and ids of calls outside of `[a-zA-Z0-9_-]{1,64}` are mapped to `text_hash`. The names travel in
//!   `http-request.context` and the decoder maps them back. The ids need not: an answer never names an old call.
//! - A history with calls but no tools gets the tools it names, with `tool_choice: none`. `parallel_tool_calls: false` is
//!   `disable_parallel_tool_use`.
//! - Images are base64 (png, jpeg, gif, webp) or URLs, documents are PDF, text, URLs or uploaded files; other text types
//!   are sent as `text/plain`. Sound and video are refused. Bedrock fetches nothing and keeps no files.
//! - Reasoning with a signature is replayed as `thinking`, encrypted reasoning as `redacted_thinking`. Reasoning without a
//!   signature is another backend's and refused. A refusal of the assistant is text.
//! - A request to reason is, for models that decide for themselves how much they think (Claude 4.6 and later),
//!   `thinking: adaptive` and `output_config.effort`, with `minimal` as `low`; for others `thinking: enabled` with a
//!   budget: the client's, or for efforts 1,024 (minimal), 2,048 (low), 8,192 (medium), 16,384 (high) and 32,768 (xhigh)
//!   tokens, at most half of `max_tokens`. Where `max_tokens` has no room for
//!   1,024 tokens of thinking and an answer, the request to reason is refused, or left out. The setting `thinking` decides where the model's name does not tell.
//! - `response_format: json_schema` is `output_config.format` where the model has it (Claude 4.5 and later) and the schema
//!   keeps within what it takes, or the client says `strict`, or the model is to think. Else it is a tool that the model
//!   must call, whose arguments the decoder tells as the answer's text; so is `json_object`. Beside tools of the client
//!   the model must call one or the other. Where the client demands a tool, the answer is that call. The setting
//!   `structured_output` decides otherwise. A forced tool promises an object, and a match only as good as the model.
//! - The end user's name is `metadata.user_id`. The name of a tool's message is redundant; other names are refused.
//! - At most four cache marks. Marks are sent with the `ttl` that the client gave: `5m` or `1h`.
//! - What else the API lacks (`n`, `logprobs`, `seed`, `logit_bias`, penalties, `min_p`, temperatures above 1, stop
//!   sequences of white space) is refused, or left out with `drop_unsupported`. Values that ask for nothing are no harm.
//! - For a count of tokens, what does not shape the prompt is left out: the API refuses it.
//!
//! # Answers
//!
//! - `other` events are of the dialect `anthropic-messages`. Of the envelope: members of the message (`container`), and
//!   those beside `delta` of a `message_delta` and in `message_stop`. Of the choice: members of a `message_delta`'s
//!   `delta` (`stop_details`). Of a block: its unknown members; `citations` is a list whose pieces add up; `delta` is a
//!   delta that the contract cannot say, whole, or what stood beside a known one's text.
//! - Blocks of tools that the backend runs, their results and blocks of types that come later are `other` blocks: the
//!   object as it began, its input as `arguments`.
//! - `usage.input_tokens` is input, cache reads and cache writes together. A `message_delta`'s usage may leave fields out:
//!   they keep their values. Each usage event shows the backend's own object.
//! - `pause_turn` is `stop`, `model_context_window_exceeded` is `length`, `refusal` is `content-filter`.
//! - `ping` and events of unknown types are ignored. A stream that ends without `message_stop` is malformed, also behind
//!   its stop reason: what was lost is not known.

mod decode;
pub(crate) mod encode;
pub(crate) mod error;
mod format;
mod media;
pub(crate) mod settings;
pub(crate) mod thinking;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use witgate_model::{Error, ErrorKind};

pub use decode::Decoder;
pub(crate) use encode::{body, headers};
pub(crate) use settings::Settings;

/// The dialect of requests and answers.
pub const MESSAGES: &str = "anthropic-messages";

/// Which backend speaks the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Anthropic itself, and servers that follow it.
    Anthropic,
    /// Anthropic's models on Amazon Bedrock, by InvokeModel.
    Bedrock,
}

impl Flavour {
    /// The backend's name, for people.
    fn backend(self) -> &'static str {
        match self {
            Flavour::Anthropic => "Anthropic",
            Flavour::Bedrock => "Bedrock's InvokeModel",
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// An answer.
    #[default]
    Chat,
    /// The number of tokens.
    CountTokens,
    /// The list of models.
    Models,
}

/// `http-request.context`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Context {
    /// What was asked for.
    pub(crate) operation: Operation,
    /// Mapped tool names to the client's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tools: BTreeMap<String, String>,
    /// The tool whose arguments are the answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<String>,
}

impl Context {
    /// The context as text; `None` where the decoder would assume the same.
    pub(crate) fn to_text(&self) -> Result<Option<String>, Error> {
        if self.operation == Operation::Chat && self.tools.is_empty() && self.answer.is_none() {
            return Ok(None);
        }
        serde_json::to_string(self).map(Some).map_err(|error| {
            Error::new(ErrorKind::Other("internal".to_owned()), format!("the context could not be written: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use witgate_model::{Input, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, Request, Role, Sampling};

    use super::*;

    const MODEL: &str = "eu.anthropic.claude-opus-4-6-v1";

    fn bedrock(settings: &Settings, request: &Request) -> String {
        let encoded = body(Flavour::Bedrock, settings, request).unwrap();
        assert!(encoded.headers.is_empty());
        String::from_utf8(encoded.body).unwrap()
    }

    #[test]
    fn bedrock_gets_the_version_and_betas_in_the_body_and_neither_model_nor_stream() {
        let mut request = Request::chat("openai-chat", MODEL, vec![Message::text(Role::User, "Hi")]);
        request.stream = true;
        request.sampling = Sampling { max_tokens: Some(9), ..Sampling::default() };
        assert_eq!(
            bedrock(&Settings::default(), &request),
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#
        );
        request.dialect = MESSAGES.to_owned();
        request.extra =
            Some(r#"{"anthropic_beta":["b","c"],"anthropic_version":"x","model":"m","stream":true,"y":1}"#.to_owned());
        let settings = Settings { betas: vec!["a".to_owned(), "b".to_owned()], ..Settings::default() };
        assert_eq!(
            bedrock(&settings, &request),
            r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["a","b","c"],"max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"y":1}"#
        );
    }

    #[test]
    fn bedrocks_model_ids_tell_what_the_model_can() {
        let mut request = Request::chat("openai-chat", MODEL, vec![Message::text(Role::User, "Hi")]);
        request.reasoning = Some(Reasoning { effort: Some("low".to_owned()), ..Reasoning::default() });
        assert!(bedrock(&Settings::default(), &request).contains(r#""output_config":{"effort":"low"}"#));
    }

    #[test]
    fn bedrock_fetches_nothing_and_counts_what_it_would_answer() {
        let url = |source| {
            let part = MediaPart {
                kind: MediaKind::Image,
                mime: None,
                source,
                name: None,
                detail: None,
                cache: None,
                extra: None,
            };
            let message = Message { role: Role::User, name: None, parts: vec![Part::Media(part)], extra: None };
            let request = Request::chat("openai-chat", MODEL, vec![message]);
            body(Flavour::Bedrock, &Settings::default(), &request).unwrap_err()
        };
        for source in [MediaSource::Url("https://e.com/a.png".to_owned()), MediaSource::FileId("f".to_owned())] {
            let error = url(source);
            assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some("messages[0].content[0]")));
        }
        let messages = vec![Message::text(Role::User, "Hi")];
        let count = Request::new("openai-chat", MODEL, Input::CountTokens(messages));
        assert!(bedrock(&Settings::default(), &count).contains(r#""max_tokens":4096"#));
    }
}
