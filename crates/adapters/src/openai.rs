//! OpenAI, and every server that speaks its Chat Completions and Completions APIs.
//!
//! The endpoint ends where OpenAI's base URL does: `https://api.openai.com/v1`. How requests and answers map is told in
//! [`crate::openai_shape`].

use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

use crate::openai_shape::{self, CHAT, COMPLETIONS, Decoder, Flavour};

/// The adapter `openai`.
#[derive(Debug)]
pub struct OpenAi;

impl Adapter for OpenAi {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "openai".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "OpenAI and servers that speak its chat and text completion APIs; prompt-cache marks of other \
                      dialects are left out"
                .into(),
            operations: vec!["chat".into(), "completion".into()],
            capabilities: ["tools", "images", "audio", "documents", "json-schema", "reasoning", "logprobs", "n"]
                .map(String::from)
                .to_vec(),
            dialects: vec![CHAT.into(), COMPLETIONS.into()],
            secrets: vec![SecretSlot {
                name: "api_key".into(),
                description: "The API key, sent as a bearer token; may be left out where the server asks for none"
                    .into(),
                required: false,
            }],
            settings_schema: include_str!("openai.schema.json").into(),
            default_endpoint: Some("https://api.openai.com/v1".into()),
        }
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        openai_shape::probe(settings, "models").map(Some)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        openai_shape::encode(Flavour::OpenAi, settings, &request)
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        Decoder::new(Flavour::OpenAi, context.as_deref(), head)
    }
}
