//! Amazon Bedrock, in all its APIs.
//!
//! The names are those of AWS's service model `bedrock-runtime`. Where AWS leaves a choice, this is what was chosen.
//!
//! # Which API
//!
//! The setting `api` says it for a target: `converse`, `invoke` or `openai`. Without it the model's family does, which is
//! told by the start of the id behind an inference profile's prefix (`us.`, `eu.`, `apac.`, `global.`, `us-gov.`, `jp.`,
//! `au.`, `ca.`) or behind a `/` of an ARN. For ARNs that tell nothing (application inference profiles, provisioned
//! throughput, imported models) the setting `model_vendor` does.
//!
//! | id | family | without `api` | `invoke` | `openai` |
//! |---|---|---|---|---|
//! | `anthropic.…` | Claude | converse | Messages API | as the model allows |
//! | `meta.llama3…` | Llama 3 | converse | prompt template | as the model allows |
//! | `meta.llama…` | other Llama | converse | raw text alone | as the model allows |
//! | `openai.gpt-oss…` | gpt-oss | openai | – | yes |
//! | `openai.…`, `xai.…` and all others | | converse | – | as the model allows |
//!
//! Text to continue (`completion`) goes to Llama by InvokeModel. Vectors are made by InvokeModel: `amazon.titan-embed-text`
//! v1 and v2, `amazon.titan-embed-g1-text`, `cohere.embed-…`. Tokens are counted by CountTokens in the terms of Converse,
//! whatever `api` says, with the id of the foundation model: that operation knows no inference profiles. `bedrock-runtime`
//! lists no models: they are named in the configuration.
//!
//! Requests are signed (SigV4, service `bedrock`, slot `aws`), or with `auth = "bearer"` carry the secret `api_key`. The
//! region is that of the settings, or the one that the model's ARN names; a key opens one region only, so that an ARN of
//! another is refused. The settings' `additional_model_request_fields`, guardrail, latency and service tier go where each
//! API has them: members of Converse's body, headers and members beside it elsewhere.
//!
//! # Requests by Converse
//!
//! - System and developer messages become the top-level `system`, in order, wherever they stood. Consecutive turns of
//!   one role are merged; results of tools come first in their turn. A conversation that begins with the assistant is
//!   refused (with `drop_unsupported`, its first turn is left out): we put no words into the user's mouth.
//! - Text of no characters says nothing and is left out. A user's message that is empty then is refused, an empty turn
//!   of the assistant is left out. Blank text that is not empty is sent: the backend judges it.
//! - Images, documents, video and audio are base64 or `s3://` addresses, documents also plain text. URLs and file ids are
//!   refused. Limits are those of one message: 20 images of 3.75 MiB, 5 documents of 4.5 MiB and text beside them.
//!   Documents get names in Bedrock's alphabet, no two equal.
//! - Names of tools and ids of tool calls that Bedrock would refuse are mapped to `text_hash`. The names travel in
//!   `http-request.context` and the decoder maps them back. The ids need not: an answer never names an old call.
//! - A history with tool blocks but no tools gets a `toolConfig` made of the tools it names. `tool_choice: none` leaves
//!   `toolConfig` out, and is refused where the history has tool blocks, because Bedrock has no such choice.
//! - `response_format: json_schema` is `outputConfig.textFormat`. A JSON object without a schema is refused.
//! - `top_k` is `additionalModelRequestFields.top_k`. A request to reason is `additionalModelRequestFields.thinking` for
//!   Claude, `reasoning_effort` there for gpt-oss, and refused for others (their own fields go into the settings). Claude: `adaptive` with `output_config.effort` for
//!   Claude 4.6 and later, else a budget. Efforts are budgets of 1,024 (minimal), 2,048 (low), 8,192 (medium), 16,384
//!   (high) and 32,768 (xhigh) tokens, at most half of `max_tokens`. The setting `thinking` knows better.
//! - Cache marks are `cachePoint` blocks; one inside of a tool's result comes behind the whole result.
//! - The end user's name is `requestMetadata.end_user`. `name` of a tool's message is redundant and not sent; of other
//!   messages it is refused.
//! - What else Converse lacks (`n`, `logprobs`, `seed`, `logit_bias`, penalties, `min_p`, temperatures above 1) is
//!   refused, or left out with `drop_unsupported`, and listed. Values that ask for nothing (`n: 1`, penalties of 0) are no
//!   harm.
//! - `extra` of the dialect `bedrock-converse` is copied: of the request beside `messages` (`guardrailConfig`, unless the
//!   settings have one; `additionalModelRequestFields`, beside those of the settings), of a message beside `role`, of text
//!   beside `text`, of every other part inside its own object. It cannot replace what the settings say. `other` parts,
//!   tools and choices are copied whole.
//!
//! # Requests by InvokeModel
//!
//! - Claude: the body of [`crate::anthropic_shape`], with `anthropic_version: bedrock-2023-05-31` and `anthropic_beta`,
//!   without `model` and `stream`. `extra` of the dialect `anthropic-messages` passes. Betas come from the setting `betas`
//!   and the client's `anthropic_beta`.
//! - Llama 3: the conversation in its template, `max_gen_len`, `temperature`, `top_p`. Tools, stop sequences, pictures,
//!   reasoning, forms of the answer and all else are refused by name, or left out and listed. Without a bound the model
//!   has its own: 512 tokens.
//! - Titan takes one text in a request, more are refused. Cohere takes 96, and wants a purpose: `search_document`, unless
//!   `additional_model_request_fields.input_type` says another. Both give floats.
//!
//! # Requests to the OpenAI-compatible endpoint
//!
//! - `openai/v1/chat/completions` behind the runtime's endpoint, with the body of [`crate::openai_shape`]. `extra` of the
//!   dialect `openai-chat` passes. OpenAI's models get `max_completion_tokens` for either bound.
//! - Some models reject parameters. What the setting `unsupported_parameters` lists is refused before the model is asked,
//!   or left out and listed. Without the setting that is `logit_bias` and `n` for gpt-oss; the penalties, `stop`,
//!   `logprobs`, `top_logprobs` and `n` for OpenAI's other models; the penalties and `n` for Grok.
//! - The name of a tool's message is redundant and not sent: the endpoint refuses it.
//! - Reasoning goes back to gpt-oss as it came: between tags, in front of what the assistant said.
//!
//! # Answers
//!
//! - By Converse the finish waits for the usage, in either order. A stream that ends behind `messageStop` without usage is
//!   complete. `redactedContent` is a reasoning block of encrypted pieces alone.
//! - `malformed_model_output` and `malformed_tool_use` are failures, worth another try.
//! - By InvokeModel each `chunk` holds one event of the model's own API. A Llama's usage is that of
//!   `amazon-bedrock-invocationMetrics`, else of the counts beside the text; Claude's is its own. Where a body has no
//!   counts, the headers `x-amzn-bedrock-{input,output}-token-count` have. What a guardrail stopped finishes as filtered
//!   content, whatever the model says.
//! - At the OpenAI-compatible endpoint reasoning between `<reasoning>` and `</reasoning>` at the start of the content is
//!   lifted out, however it is cut; tags behind the first text are text. Ids of tool calls below 16 characters, which
//!   count from 0 in each answer, are replaced by ones made of the answer's id and the number of calls before.
//! - Exceptions have the kind, status and advice of AWS's model, before the stream and in it. A context overflow is told
//!   by its words.
//! - Events and members that the contract has no names for come as `other` events of the dialects `bedrock-converse` (an
//!   unknown event as `{"its type": payload}`), `anthropic-messages`, `openai-chat`, `bedrock-llama`,
//!   `bedrock-titan-embed` and `bedrock-cohere-embed`.

mod answer;
mod converse;
mod error;
mod http;
mod invoke;
mod json;
mod model;
pub(crate) mod names;
mod omissions;
mod openai;
mod settings;
mod whole;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use witgate_model::{
    Adapter, Description, Error, ErrorKind, Event, Frame, HttpRequest, Input, Request, ResponseHead, SecretSlot,
};

use answer::{Api as _, Head};
use converse::DIALECT;
use http::Encoding;
use model::Family;
use settings::{Api, Settings};

use crate::anthropic_shape::MESSAGES;
use crate::openai_shape::CHAT;

/// The adapter `bedrock`.
#[derive(Clone, Copy, Debug)]
pub struct Bedrock;

/// What an answer is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Codec {
    #[default]
    Converse,
    Claude,
    Llama,
    Openai,
    Titan,
    Cohere,
    CountTokens,
}

impl Codec {
    fn is_converse(&self) -> bool {
        *self == Codec::Converse
    }
}

/// `http-request.context`.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Context {
    #[serde(skip_serializing_if = "Codec::is_converse")]
    codec: Codec,
    /// Mapped tool names to the client's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tools: BTreeMap<String, String>,
    /// The context of the shape behind the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    inner: Option<String>,
    /// Tool calls in the conversation so far.
    #[serde(skip_serializing_if = "is_zero")]
    calls: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Decodes one answer of Bedrock.
#[derive(Debug)]
pub struct BedrockDecoder(Kind);

#[derive(Debug)]
enum Kind {
    Converse(Box<converse::Decoder>),
    Claude(Box<invoke::claude::Decoder>),
    Llama(Box<invoke::llama::Decoder>),
    Openai(Box<openai::Decoder>),
    Whole(Box<whole::Decoder>),
    /// The context is not ours; none once that was told.
    Broken(Option<Error>),
}

impl BedrockDecoder {
    fn new(context: Option<String>, head: ResponseHead) -> Self {
        let context = context.map(|context| serde_json::from_str::<Context>(&context)).transpose();
        let context = match context {
            Ok(context) => context.unwrap_or_default(),
            Err(error) => {
                let message = format!("the context of this answer is not the one that encode made: {error}");
                let error = Error::new(ErrorKind::Other("internal".to_owned()), message);
                return BedrockDecoder(Kind::Broken(Some(error)));
            }
        };
        BedrockDecoder(match context.codec {
            Codec::Converse => Kind::Converse(Box::new(converse::Decoder::new(context.tools, Head::new(&head)))),
            Codec::Claude => Kind::Claude(Box::new(invoke::claude::Decoder::new(context.inner.as_deref(), head))),
            Codec::Llama => Kind::Llama(Box::new(invoke::llama::Decoder::new(&head))),
            Codec::Openai => {
                Kind::Openai(Box::new(openai::Decoder::new(context.inner.as_deref(), context.calls, head)))
            }
            codec @ (Codec::Titan | Codec::Cohere | Codec::CountTokens) => {
                Kind::Whole(Box::new(whole::Decoder::new(codec, &head)))
            }
        })
    }
}

impl witgate_model::Decoder for BedrockDecoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        match &mut self.0 {
            Kind::Converse(decoder) => decoder.feed(frames),
            Kind::Claude(decoder) => decoder.feed(frames),
            Kind::Llama(decoder) => decoder.feed(frames),
            Kind::Openai(decoder) => decoder.feed(frames),
            Kind::Whole(decoder) => decoder.feed(frames),
            Kind::Broken(error) => error.take().map(Event::Failed).into_iter().collect(),
        }
    }

    fn finish(&mut self) -> Vec<Event> {
        match &mut self.0 {
            Kind::Converse(decoder) => decoder.finish(),
            Kind::Claude(decoder) => decoder.finish(),
            Kind::Llama(decoder) => decoder.finish(),
            Kind::Openai(decoder) => decoder.finish(),
            Kind::Whole(decoder) => decoder.finish(),
            Kind::Broken(error) => error.take().map(Event::Failed).into_iter().collect(),
        }
    }
}

impl Adapter for Bedrock {
    type Decoder = BedrockDecoder;

    fn describe() -> Description {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let slot = |name: &str, description: &str| SecretSlot {
            name: name.to_owned(),
            description: description.to_owned(),
            required: false,
        };
        Description {
            id: "bedrock".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Amazon Bedrock: Converse, InvokeModel and the OpenAI-compatible endpoint. The runtime lists no \
                      models."
                .to_owned(),
            operations: strings(&["chat", "completion", "embedding", "count-tokens"]),
            capabilities: strings(&[
                "tools",
                "images",
                "documents",
                "audio",
                "video",
                "json-schema",
                "reasoning",
                "logprobs",
                "prompt-cache",
            ]),
            dialects: strings(&[DIALECT, MESSAGES, CHAT]),
            secrets: vec![
                slot("aws", "AWS credentials that sign the requests, for `auth = \"sigv4\"`."),
                slot("api_key", "Bedrock API key, for `auth = \"bearer\"`."),
            ],
            settings_schema: settings::SCHEMA.to_owned(),
            default_endpoint: Some("https://bedrock-runtime.{region}.{dns_suffix}".to_owned()),
        }
    }

    /// The runtime's endpoint has nothing that is cheap to ask.
    fn probe(_settings: &str) -> Result<Option<HttpRequest>, Error> {
        Ok(None)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        let parsed = Settings::parse(settings)?;
        if matches!(request.input, Input::Models) {
            let message = "bedrock-runtime lists no models: name those to offer in the configuration";
            return Err(Error::unsupported("model", message).with_code("unsupported_operation"));
        }
        let encoding = Encoding::new(&parsed, &request)?;
        let (family, api) = (encoding.target.family, encoding.target.api(&parsed));
        match &request.input {
            Input::Chat(messages) => match (api, family) {
                (Api::Converse, _) => converse::encode(encoding, &request, messages),
                (Api::Openai, _) => openai::encode(encoding, request),
                (Api::Invoke, Family::Claude) => invoke::claude::encode(encoding, settings, &request),
                (Api::Invoke, Family::Llama3 | Family::Llama) => invoke::llama::chat(encoding, &request, messages),
                (Api::Invoke, _) => Err(Error::unsupported(
                    "model",
                    "InvokeModel is known here for Anthropic's Claude and Meta's Llama 3 only: set `api = \"converse\"`, or \
                     `model_vendor` where the ARN does not tell whose model it is",
                )),
            },
            Input::Completion(prompt) => match (parsed.api, family) {
                (None | Some(Api::Invoke), Family::Llama3 | Family::Llama) => {
                    invoke::llama::completion(encoding, &request, prompt)
                }
                _ => Err(Error::no_operation("Bedrock, but for Meta's Llama by InvokeModel,", &request.input)),
            },
            Input::Embedding(input) => invoke::embed::encode(encoding, &request, input),
            Input::CountTokens(messages) => invoke::count::encode(encoding, &request, messages),
            input => Err(Error::no_operation("Bedrock", input)),
        }
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Self::Decoder {
        BedrockDecoder::new(context, head)
    }
}
