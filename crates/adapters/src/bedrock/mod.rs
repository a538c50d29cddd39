//! Amazon Bedrock: the codec of Converse and ConverseStream.
//!
//! The names are those of AWS's service model `bedrock-runtime`. Where AWS leaves a choice, this is what was chosen.
//!
//! # Requests
//!
//! - System and developer messages become the top-level `system`, in order, wherever they stood. Consecutive turns of
//!   one role are merged; results of tools come first in their turn. A conversation that begins with the assistant is
//!   refused (with `drop_unsupported`, its first turn is left out): we put no words into the user's mouth.
//! - Text of no characters says nothing and is left out. A user's message that is empty then is refused, an empty turn
//!   of the assistant is left out. Blank text that is not empty is sent: the backend judges it.
//! - Images, documents, video and audio are base64 or `s3://` addresses. URLs and file ids are refused. Limits are those
//!   of one message: 20 images of 3.75 MiB, 5 documents of 4.5 MiB and text beside them. Documents get names in
//!   Bedrock's alphabet, no two equal.
//! - Names of tools and ids of tool calls that Bedrock would refuse are mapped to `text_hash`. The names travel in
//!   `http-request.context` and the decoder maps them back. The ids need not: an answer never names an old call.
//! - A history with tool blocks but no tools gets a `toolConfig` made of the tools it names. `tool_choice: none` leaves
//!   `toolConfig` out, and is refused where the history has tool blocks, because Bedrock has no such choice.
//! - `response_format: json_schema` is `outputConfig.textFormat`. A JSON object without a schema is refused.
//! - `top_k` is `additionalModelRequestFields.top_k`. A request to reason is `additionalModelRequestFields.thinking` for
//!   Anthropic's models and refused for others (their own fields go into the settings). Efforts are budgets of 1,024
//!   (minimal), 2,048 (low), 8,192 (medium), 16,384 (high) and 32,768 (xhigh) tokens, at most half of `max_tokens`.
//! - Cache marks are `cachePoint` blocks; one inside of a tool's result comes behind the whole result.
//! - The end user's name is `requestMetadata.end_user`. `name` of a tool's message is redundant and not sent; of other
//!   messages it is refused.
//! - What else Converse lacks (`n`, `logprobs`, `seed`, `logit_bias`, penalties, `min_p`, temperatures above 1) is
//!   refused, or left out with `drop_unsupported`. Values that ask for nothing (`n: 1`, penalties of 0) are no harm.
//! - `extra` of the dialect `bedrock-converse` is copied: of the request beside `messages`, of a message beside `role`,
//!   of text beside `text`, of every other part inside its own object. It cannot replace what the settings say.
//!   `other` parts, tools and choices are copied whole.
//! - An ARN of another region than the configured one is refused here, where the message can say why.
//!
//! # Answers
//!
//! - The finish waits for the usage, in either order. A stream that ends behind `messageStop` without usage is complete.
//! - `redactedContent` is a reasoning block with nothing but a signature.
//! - `malformed_model_output` and `malformed_tool_use` are failures, worth another try.
//! - Events and members that the contract has no names for come as `other` events of the dialect `bedrock-converse`:
//!   an unknown event as `{"its type": payload}`.

mod decode;
mod encode;
mod error;
mod json;
mod media;
pub(crate) mod names;
mod settings;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

pub use decode::BedrockDecoder;

/// The dialect that this adapter passes on.
const DIALECT: &str = "bedrock-converse";

/// The adapter `bedrock`: Converse and ConverseStream.
#[derive(Clone, Copy, Debug)]
pub struct Bedrock;

/// `http-request.context`.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Context {
    /// Mapped tool names to the client's own.
    tools: BTreeMap<String, String>,
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
            summary: "Amazon Bedrock by its Converse and ConverseStream APIs.".to_owned(),
            operations: strings(&["chat"]),
            capabilities: strings(&[
                "tools",
                "images",
                "documents",
                "audio",
                "video",
                "json-schema",
                "reasoning",
                "prompt-cache",
            ]),
            dialects: strings(&[DIALECT]),
            secrets: vec![
                slot("aws", "AWS credentials that sign the requests, for `auth = \"sigv4\"`."),
                slot("api_key", "Bedrock API key, for `auth = \"bearer\"`."),
            ],
            settings_schema: settings::SCHEMA.to_owned(),
            default_endpoint: Some("https://bedrock-runtime.{region}.amazonaws.com".to_owned()),
        }
    }

    /// The runtime's endpoint has nothing that is cheap to ask.
    fn probe(_settings: &str) -> Result<Option<HttpRequest>, Error> {
        Ok(None)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        encode::encode(settings, &request)
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Self::Decoder {
        BedrockDecoder::new(context, head)
    }
}
