//! The dialects: the APIs that clients speak. Parses their requests into the normalised one, and renders the events of
//! the answer into their bytes. Pure functions, without IO, clock or randomness.
//!
//! One module per dialect. A new one is a type that implements [`Dialect`], in a module of its own, named once in
//! [`DIALECTS`]; how a renderer works is [`Render`].
//!
//! ```
//! use witgate_dialects::{Renderer, default_limits, parse};
//! use witgate_model::Event;
//! use witgate_model::normaliser::AnswerStart;
//!
//! let body = br#"{"messages":[{"role":"user","content":"Hello"}]}"#;
//! let parsed = parse("openai-chat", "/v1/chat/completions", &default_limits(), body)?;
//! let start = AnswerStart { render: parsed.render, id: "1".into(), created: 0, model: "m".into() };
//! let mut renderer = Renderer::new("openai-chat", start);
//! let bytes = renderer.feed(vec![Event::text_start(0, 0), Event::text(0, "Hi"), Event::Done]);
//! assert!(String::from_utf8_lossy(&bytes).contains(r#""content":"Hi""#));
//! # Ok::<(), witgate_model::Error>(())
//! ```

mod answer;
mod anthropic;
mod awa_llm;
mod bedrock_chat;
mod llm_exe;
mod llm_invocation;
mod members;
mod ollama;
mod openai;
mod openai_chat;
mod openai_completions;
mod openai_embeddings;
mod openai_responses;
mod proofs;
mod read;
mod sagemaker_proxy;
mod scan;
mod settings;
mod text;
mod usage;
mod write;

use std::sync::LazyLock;

use witgate_model::normaliser::{AnswerStart, Client, Ending, Failure, Limits, Parsed, Rendered, Route, Step};
use witgate_model::{Error, ErrorKind, Event};

/// An API that clients speak.
trait Dialect: Sync {
    /// Its name, as `openai-chat`.
    fn name(&self) -> &'static str;

    /// Method and path of each of its routes.
    fn routes(&self) -> &'static [(&'static str, &'static str)];

    /// One client request to a normalised one.
    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error>;

    /// What is to be done with a client's request: for dialects that need more than its path and body, or may answer
    /// without a backend.
    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        self.parse(&client.path, limits, body).map(Step::Ask)
    }

    /// An answer that failed before it began.
    fn render_error(&self, failure: &Failure) -> Rendered;

    /// The same, for dialects whose operator may choose how: `settings` are those of this dialect.
    fn refuse(&self, _settings: &str, failure: &Failure) -> Rendered {
        self.render_error(failure)
    }

    /// The renderer of one answer.
    fn renderer(&self, start: AnswerStart) -> Box<dyn Render>;
}

/// Renders one answer.
trait Render {
    /// Status and headers of a success answer.
    fn head(&self) -> Rendered;

    /// Events to bytes, in order.
    fn feed(&mut self, events: Vec<Event>) -> Vec<u8>;

    /// What remains to be done when the answer is complete.
    fn end(&mut self) -> Ending {
        Ending::default()
    }

    /// A failure before anything of the answer was given, where this request wants another shape than its dialect has.
    fn refuse(&mut self, _failure: &Failure) -> Option<Rendered> {
        None
    }

    /// The bytes that tell the client of a failure after the answer began. Nothing follows.
    fn fail(&mut self, failure: &Failure) -> Vec<u8>;

    /// A comment that keeps a waiting connection open; empty where there is none.
    fn keep_alive(&self) -> Vec<u8>;
}

/// All dialects.
static DIALECTS: [&dyn Dialect; 13] = [
    &openai_chat::OpenAiChat,
    &openai_completions::OpenAiCompletions,
    &openai_embeddings::OpenAiEmbeddings,
    &openai_responses::OpenAiResponses,
    &anthropic::AnthropicMessages,
    &awa_llm::AwaLlm,
    &llm_exe::LlmExe,
    &ollama::Api::Chat,
    &ollama::Api::Generate,
    &ollama::Api::Embed,
    &ollama::Api::Embeddings,
    &llm_invocation::LlmInvocation,
    // Behind `/api/chat`: one of its paths begins with any segment.
    &bedrock_chat::BedrockChat,
];

fn find(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.into_iter().find(|dialect| dialect.name() == name)
}

/// The dialect of that name. Answers in an unknown one take OpenAI's shape, so that a client learns something.
fn find_or_openai(name: &str) -> &'static dyn Dialect {
    find(name).unwrap_or(&openai_chat::OpenAiChat)
}

/// The bounds that a gateway uses where its configuration names none: 64 levels, 10,000 messages.
pub fn default_limits() -> Limits {
    Limits { depth: 64, messages: 10_000 }
}

/// All routes that the dialects serve. Constant.
pub fn routes() -> &'static [Route] {
    static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
        let of = |dialect: &'static dyn Dialect| {
            dialect.routes().iter().map(move |(method, path)| Route {
                method: (*method).to_owned(),
                path: (*path).to_owned(),
                dialect: dialect.name().to_owned(),
            })
        };
        DIALECTS.into_iter().flat_map(of).collect()
    });
    &ROUTES
}

/// One client request to a normalised one, in a dialect that needs no more than its path and body.
///
/// # Errors
/// As [`step`]; and where the dialect answers without a backend, or needs documents for its answer.
pub fn parse(dialect: &str, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    let client = Client { method: "POST".to_owned(), path: path.to_owned(), ..Client::default() };
    match step(dialect, &client, limits, body)? {
        Step::Ask(parsed) | Step::Follow(parsed) => Ok(parsed),
        _ => Err(Error::invalid("", "the request is not for a backend")),
    }
}

/// What is to be done with a client's request.
///
/// `client.path` is the request's path, still percent-encoded; some dialects name the model in it. A bound of 0 in
/// `limits` means the default ([`default_limits`]).
///
/// # Errors
/// `InvalidRequest` with the status that the client shall see. `param` is the JSON path at fault; the message says what
/// was found, what would be right, and the line and column. An unknown dialect is an error of the kind `internal`.
pub fn step(dialect: &str, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
    let Some(found) = find(dialect) else {
        let names: Vec<_> = DIALECTS.into_iter().map(|dialect| dialect.name()).collect();
        let message = format!("there is no dialect {dialect:?}; there are {}", names.join(", "));
        return Err(Error::new(ErrorKind::Other("internal".to_owned()), message).with_status(500));
    };
    let default = default_limits();
    let limits = Limits {
        depth: if limits.depth == 0 { default.depth } else { limits.depth },
        messages: if limits.messages == 0 { default.messages } else { limits.messages },
    };
    found.step(client, &limits, body)
}

/// An answer that failed before it began, in the dialect's own shape; in OpenAI's where the dialect is unknown.
///
/// The status is `failure.error.status`, or, where that is none or no error status, the usual one of its kind.
pub fn render_error(dialect: &str, failure: &Failure) -> Rendered {
    refuse(dialect, "", failure)
}

/// As [`render_error`]. `settings` are the operator's, of this dialect: a JSON object, or nothing.
pub fn refuse(dialect: &str, settings: &str, failure: &Failure) -> Rendered {
    find_or_openai(dialect).refuse(settings, failure)
}

/// The status that tells a client of `error`.
fn status(error: &Error) -> u16 {
    if let Some(status @ 400..=599) = error.status {
        return status;
    }
    match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFiltered | ErrorKind::Unsupported => {
            400
        }
        ErrorKind::Unauthenticated => 401,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::TooLarge => 413,
        ErrorKind::RateLimited | ErrorKind::QuotaExhausted => 429,
        ErrorKind::Other(_) => 500,
        ErrorKind::UpstreamFailure | ErrorKind::MalformedResponse => 502,
        ErrorKind::Overloaded => 503,
        ErrorKind::Timeout => 504,
    }
}

/// Turns the events of one answer into the bytes of its dialect.
pub struct Renderer {
    inner: Box<dyn Render>,
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").finish_non_exhaustive()
    }
}

impl Renderer {
    /// A renderer for the answer to a request that [`parse`] accepted. An unknown dialect is rendered as `openai-chat`.
    pub fn new(dialect: &str, start: AnswerStart) -> Self {
        Renderer { inner: find_or_openai(dialect).renderer(start) }
    }

    /// Status and headers of a success answer; the body is empty.
    pub fn head(&self) -> Rendered {
        self.inner.head()
    }

    /// Events to bytes, in order. For an answer that is not streamed the bytes come with [`Event::Done`]. Nothing may
    /// follow [`Event::Done`]; [`Event::Failed`] must not be given (see [`Renderer::fail`]): both are ignored.
    ///
    /// An event for whose meaning the dialect has no place is left out; the gateway reports those.
    pub fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        self.inner.feed(events)
    }

    /// What remains to be done, when [`Event::Done`] has been fed; to be called once, where [`step`] said [`Step::Follow`].
    pub fn end(&mut self) -> Ending {
        self.inner.end()
    }

    /// The answer has failed, and nothing of it has been given: what the client is told, where this request wants another
    /// shape than [`refuse`] gives.
    pub fn refuse(&mut self, failure: &Failure) -> Option<Rendered> {
        self.inner.refuse(failure)
    }

    /// The answer has failed after it began: the bytes that tell the client. Nothing follows them.
    pub fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        self.inner.fail(failure)
    }

    /// A comment that keeps a waiting connection open; empty where the answer is not streamed.
    pub fn keep_alive(&self) -> Vec<u8> {
        self.inner.keep_alive()
    }
}
