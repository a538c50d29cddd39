//! llama.cpp's own server, `llama-server`.
//!
//! The endpoint is the server's root, `http://127.0.0.1:8080`. What differs from OpenAI: the names of some parameters
//! (`repeat_penalty`, `thinking_budget_tokens`, `chat_template_kwargs.enable_thinking`); text completion has no `suffix`,
//! `echo` or `best_of`; documents are refused; error codes are numbers; a failure in a stream comes as
//! `data: {"error": …}` without `[DONE]`; and with several choices a stream gives each its own usage, which are summed,
//! while a whole answer counts the first choice only, so that its usage is marked as estimated.

use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

use crate::openai_shape::{self, CHAT, COMPLETIONS, Decoder, Flavour};

/// The adapter `llama-cpp`.
#[derive(Debug)]
pub struct LlamaCpp;

impl Adapter for LlamaCpp {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "llama-cpp".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "llama.cpp's server, llama-server; prompt-cache marks of other dialects are left out".into(),
            operations: vec!["chat".into(), "completion".into()],
            capabilities: ["tools", "images", "audio", "json-schema", "reasoning", "logprobs", "n"]
                .map(String::from)
                .to_vec(),
            dialects: vec![CHAT.into(), COMPLETIONS.into()],
            secrets: vec![SecretSlot {
                name: "api_key".into(),
                description: "The key that the server was started with (`--api-key`), if any".into(),
                required: false,
            }],
            settings_schema: include_str!("llama_cpp.schema.json").into(),
            default_endpoint: Some("http://127.0.0.1:8080".into()),
        }
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        openai_shape::probe(settings, "health").map(Some)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        openai_shape::encode(Flavour::LlamaCpp, settings, &request)
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        Decoder::new(Flavour::LlamaCpp, context.as_deref(), head)
    }
}
