//! Anthropic, and servers that follow its Messages API.
//!
//! The endpoint is the server's root: `https://api.anthropic.com`. How requests and answers map is told in
//! [`crate::anthropic_shape`].

use witgate_model::{
    Adapter, Auth, Description, Error, Field, Framing, HeaderAuth, HttpRequest, Input, Request, ResponseHead,
    SecretSlot,
};

use crate::anthropic_shape::{self, Context, Decoder, Flavour, MESSAGES, Operation, Settings};

/// Most models in one list, the API's own bound.
const MODELS: &str = "1000";

/// The adapter `anthropic`.
#[derive(Clone, Copy, Debug)]
pub struct Anthropic;

impl Adapter for Anthropic {
    type Decoder = Decoder;

    fn describe() -> Description {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Description {
            id: "anthropic".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Anthropic by its Messages API.".to_owned(),
            operations: strings(&["chat", "count-tokens", "models"]),
            capabilities: strings(&["tools", "images", "documents", "json-schema", "reasoning", "prompt-cache"]),
            dialects: strings(&[MESSAGES]),
            secrets: vec![SecretSlot {
                name: "api_key".to_owned(),
                description: "The API key, sent as x-api-key; may be left out where the server asks for none."
                    .to_owned(),
                required: false,
            }],
            settings_schema: include_str!("anthropic.schema.json").to_owned(),
            default_endpoint: Some("https://api.anthropic.com".to_owned()),
        }
    }

    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
        models(&Settings::parse(settings)?, "1").map(Some)
    }

    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error> {
        let settings = Settings::parse(settings)?;
        let mut path = vec!["v1".to_owned(), "messages".to_owned()];
        match &request.input {
            Input::Models => return models(&settings, MODELS),
            Input::CountTokens(_) => path.push("count_tokens".to_owned()),
            _ => {}
        }
        let stream = request.stream && matches!(request.input, Input::Chat(_));
        let encoded = anthropic_shape::body(Flavour::Anthropic, &settings, &request)?;
        let mut headers = vec![field("content-type", "application/json"), accept(stream)];
        headers.extend(encoded.headers);
        Ok(HttpRequest {
            method: "POST".to_owned(),
            path,
            query: Vec::new(),
            headers,
            body: encoded.body,
            auth: key(),
            framing: if stream { Framing::Sse } else { Framing::Whole },
            context: encoded.context,
            dropped: encoded.dropped,
        })
    }

    fn decoder(_settings: &str, context: Option<String>, head: ResponseHead) -> Decoder {
        Decoder::new(Flavour::Anthropic, context.as_deref(), head)
    }
}

/// Asks for the list of models: its first `limit`.
fn models(settings: &Settings, limit: &str) -> Result<HttpRequest, Error> {
    let mut headers = vec![accept(false)];
    headers.extend(anthropic_shape::headers(settings, &settings.betas));
    Ok(HttpRequest {
        method: "GET".to_owned(),
        path: vec!["v1".to_owned(), "models".to_owned()],
        query: vec![field("limit", limit)],
        headers,
        body: Vec::new(),
        auth: key(),
        framing: Framing::Whole,
        context: Context { operation: Operation::Models, ..Context::default() }.to_text()?,
        dropped: Vec::new(),
    })
}

fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), value.to_owned())
}

fn accept(stream: bool) -> Field {
    field("accept", if stream { "text/event-stream" } else { "application/json" })
}

fn key() -> Auth {
    Auth::Header(HeaderAuth { name: "x-api-key".to_owned(), prefix: String::new(), slot: "api_key".to_owned() })
}
