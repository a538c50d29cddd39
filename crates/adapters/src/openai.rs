//! OpenAI, and every server that speaks its Chat Completions, Responses, Completions, Embeddings and Models APIs.
//!
//! The endpoint ends where OpenAI's base URL does: `https://api.openai.com/v1`. How requests and answers map is told in
//! [`crate::openai_shape`]; conversations go to Chat Completions, or with the setting `api = "responses"` to Responses:
//! [`crate::openai_shape::responses`]. With the setting `path = "exact"` the endpoint is the URL of the conversations itself,
//! and nothing else can be asked of it.
//!
//! `top_k`, `min_p`, `repetition_penalty`, videos and the reasoning of earlier turns are no part of OpenAI's own Chat
//! Completions, but many servers that speak it take them. They are passed on, so that such a server gets them; with the
//! setting `strict` they are refused (or left out, with `drop_unsupported`), as `api.openai.com` would refuse them.
//!
//! Names of tools, ids of calls and media in messages of tools keep to OpenAI's rules where the client speaks another
//! dialect: names and ids are mapped and told back as the client wrote them, media go in a message of the user. What an OpenAI client sends
//! goes as it is, since a server that follows OpenAI may take more; with `strict` it is held to the rules too.

use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

use crate::openai_shape::{self, CHAT, COMPLETIONS, Decoder, EMBEDDINGS, Flavour, RESPONSES, Settings};

/// The adapter `openai`.
#[derive(Debug)]
pub struct OpenAi;

impl Adapter for OpenAi {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "openai".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary:
                "OpenAI and servers that speak its chat, responses, text completion and embedding APIs; prompt-cache \
                      marks of other dialects are left out"
                    .into(),
            operations: ["chat", "completion", "embedding", "models"].map(String::from).to_vec(),
            capabilities: ["tools", "images", "audio", "documents", "json-schema", "reasoning", "logprobs", "n"]
                .map(String::from)
                .to_vec(),
            dialects: [CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS].map(String::from).to_vec(),
            secrets: vec![SecretSlot {
                name: "api_key".into(),
                description: "The API key, sent as `key_header` says; may be left out where the server asks for none"
                    .into(),
                required: false,
            }],
            settings_schema: include_str!("openai.schema.json").into(),
            default_endpoint: Some("https://api.openai.com/v1".into()),
        }
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        let settings = Settings::parse(settings)?;
        Ok((!settings.is_one_url()).then(|| openai_shape::get(&settings, &["models"], &[])))
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        openai_shape::encode(Flavour::OpenAi, settings, &request)
    }

    fn decoder(settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        // The gateway has checked the settings, and `encode` has read them.
        let settings = Settings::parse(settings).unwrap_or_default();
        Decoder::new(Flavour::OpenAi, context.as_deref(), head).lift(settings.reasoning_tag.as_deref())
    }
}
