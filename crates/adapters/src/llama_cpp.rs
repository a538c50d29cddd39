//! llama.cpp's own server, `llama-server`.
//!
//! The endpoint is the server's root, `http://127.0.0.1:8080`. What differs from OpenAI: the names of some parameters
//! (`repeat_penalty`, `thinking_budget_tokens`, `chat_template_kwargs.enable_thinking`); text completion has no `suffix`,
//! `echo` or `best_of`, embeddings have no `dimensions`; documents are refused; error codes are numbers; a failure in a stream comes as
//! `data: {"error": …}` without `[DONE]`; and with several choices a stream gives each its own usage, which are summed,
//! while a whole answer counts the first choice only, so that its usage is marked as estimated.
//!
//! What only llama.cpp has (`grammar`, `mirostat`, `cache_prompt`, `id_slot`, …) is unnamed by the contract: it comes as
//! `extra` of a request in `openai-chat` or `openai-completions` and is passed on.
//!
//! Readiness is asked of `/health`, which answers 503 while the model is loaded. The setting `readiness` chooses
//! `/slots?fail_on_no_slot=1` instead (ready only while a slot is free; the server must not run with `--no-slots`), or
//! `/props` (which, unlike the health, is asked with the key).
//!
//! With `loose_answers` JSON without `choices` is an answer too: its `text`, else its `content`, else all of it. That is how
//! the clients of the AWA LLM microservice take it. What is no JSON stays a failure, so that another target is asked.
//!
//! With the setting `api = "llm"` the endpoint is the `/llm` of the AWA LLM microservice, which is asked with one prompt;
//! with `path = "exact"` it is the URL of the chat completions itself. Neither has anything that is cheap to ask.

use witgate_model::{Adapter, Description, Error, HttpRequest, Request, ResponseHead, SecretSlot};

use crate::openai_shape::{self, CHAT, COMPLETIONS, Decoder, EMBEDDINGS, Flavour, Readiness, Settings};

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
            operations: ["chat", "completion", "embedding", "models"].map(String::from).to_vec(),
            capabilities: ["tools", "images", "audio", "json-schema", "reasoning", "logprobs", "n"]
                .map(String::from)
                .to_vec(),
            dialects: [CHAT, COMPLETIONS, EMBEDDINGS].map(String::from).to_vec(),
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
        let settings = Settings::parse(settings)?;
        if settings.is_one_url() {
            return Ok(None);
        }
        let (path, query): (_, &[(&str, &str)]) = match settings.readiness {
            Readiness::Health => ("health", &[]),
            Readiness::Slots => ("slots", &[("fail_on_no_slot", "1")]),
            Readiness::Props => ("props", &[]),
        };
        Ok(Some(openai_shape::get(&settings, &[path], query)))
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        openai_shape::encode(Flavour::LlamaCpp, settings, &request)
    }

    fn decoder(settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        // The gateway has checked the settings, and `encode` has read them.
        let settings = Settings::parse(settings).unwrap_or_default();
        Decoder::new(Flavour::LlamaCpp, context.as_deref(), head)
            .lift(settings.reasoning_tag.as_deref())
            .loose(settings.loose_answers)
    }
}
