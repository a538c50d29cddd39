//! What the gateway needs of the world, as traits. A runtime (the host, the Spin component, a test's simulation)
//! implements [`Ports`] once; nothing in this crate does IO, reads a clock or makes a random number by itself.
//!
//! The futures carry no `Send` bound: under Spin they need none, and on the host the compiler sees that the concrete
//! ones are `Send`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use bytes::Bytes;
use witgate_model::normaliser::{
    AnswerStart, Client, Document, DocumentRef, Ending, Failure, Limits, Rendered, Route, Step,
};
use witgate_model::policy::{Context, Decision, Filtered};
use witgate_model::{Description, Error, Event, Field, Frame, HttpRequest, Request, ResponseHead};

use crate::operate::{ComponentState, ConfigurationState, Reload};

/// A runtime.
pub trait Ports {
    /// The normaliser, held by one request.
    type Normaliser: Normaliser;
    /// An adapter, held by one attempt.
    type Adapter: Adapter;
    /// A policy, held by one request or one answer.
    type Policy: Policy;
    /// The body of a backend's answer.
    type Body: UpstreamBody;
    /// Where keys, meters and jobs lie.
    type State: crate::state::State;

    /// A normaliser for one request. Cheap: a pooled or fresh instance.
    fn normaliser(&self) -> Result<Self::Normaliser, Fault>;

    /// The adapter of the provider of this name (`[providers.<name>]`), for one attempt. Cheap.
    fn adapter(&self, provider: &str) -> Result<Self::Adapter, Fault>;

    /// The policy of this name (`[policies.<name>]`), for one request or one answer. Cheap.
    fn policy(&self, name: &str) -> Result<Self::Policy, Fault>;

    /// Sends a request, and gives its answer's head when it has come. Dropping the future, or the body, cancels the
    /// request and closes its connection.
    fn send(
        &self,
        request: UpstreamRequest,
    ) -> impl Future<Output = Result<UpstreamResponse<Self::Body>, TransportError>>;

    /// The AWS credentials that the runtime itself has for the provider of this name, for one that has no secrets of its
    /// own: refreshed before they expire. Cheap but for that. The error says for people why there are none.
    fn credentials(&self, provider: &str) -> impl Future<Output = Result<Credentials, String>>;

    /// What a document holds that was kept, or that an operator stored; `None` where there is none. The error says for
    /// people why that cannot be told.
    fn document(&self, at: &DocumentRef) -> impl Future<Output = Result<Option<String>, String>>;

    /// Keeps a document, in the place of an older one; one without content is forgotten.
    fn keep(&self, document: Document) -> impl Future<Output = Result<(), String>>;

    /// The state store.
    fn state(&self) -> &Self::State;

    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Time since 1970-01-01 UTC.
    fn unix_time(&self) -> Duration;

    /// Completes at `deadline` on the clock of [`Ports::now`].
    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()>;

    /// 128 random bits, for ids. Need not be secret.
    fn random(&self) -> u128;

    /// 32 random bytes that nobody can guess, for secrets. The error says for people why there are none.
    fn secret(&self) -> Result<[u8; 32], String>;

    /// Does work that outlives its request, to its end: the request's client may have left, and with it whoever polls.
    /// Work that needs no waiting is best done at once.
    fn after(self: &Arc<Self>, work: crate::bill::Work);

    /// What the components have done so far; nothing where the runtime does not count it.
    fn components(&self) -> Vec<ComponentState> {
        Vec::new()
    }

    /// The configuration that is served; none where the runtime cannot tell.
    fn configuration(&self) -> Option<ConfigurationState> {
        None
    }

    /// Reads the configuration anew, and serves it from the next request on if nothing is wrong with it.
    fn reload(&self) -> impl Future<Output = Reload> {
        std::future::ready(Reload::Unsupported)
    }

    /// One request has ended: write its log line, count it.
    fn record(&self, record: &crate::Record);

    /// Something that an operator should know, beside any one request's end: a fallback, a fault.
    fn warn(&self, warning: &crate::Warning<'_>);
}

/// The normaliser component, held exclusively by one request. The functions are those of `wit/normaliser`; `start` makes
/// the renderer on which the later ones work.
pub trait Normaliser {
    /// All routes.
    fn routes(&mut self) -> Result<Vec<Route>, Fault>;
    /// What is to be done with a client's request.
    fn parse(
        &mut self,
        dialect: &str,
        client: &Client,
        limits: &Limits,
        body: &Bytes,
    ) -> Result<Result<Step, Error>, Fault>;
    /// An answer that failed before it began.
    fn render_error(&mut self, dialect: &str, settings: &str, failure: &Failure) -> Result<Rendered, Fault>;
    /// Makes the renderer.
    fn start(&mut self, dialect: &str, start: AnswerStart) -> Result<(), Fault>;
    /// Status and headers of a success answer.
    fn head(&mut self) -> Result<Rendered, Fault>;
    /// Events to bytes.
    fn feed(&mut self, events: Vec<Event>) -> Result<Vec<u8>, Fault>;
    /// What remains to be done when the answer is complete.
    fn end(&mut self) -> Result<Ending, Fault>;
    /// An answer that failed before anything of it was given, where this request wants a shape of its own.
    fn refuse(&mut self, failure: &Failure) -> Result<Option<Rendered>, Fault>;
    /// The bytes that tell the client of a failure in mid-stream.
    fn fail(&mut self, failure: &Failure) -> Result<Vec<u8>, Fault>;
    /// A comment that keeps a waiting connection open.
    fn keep_alive(&mut self) -> Result<Vec<u8>, Fault>;
}

/// An adapter component, held exclusively by one attempt. The functions are those of `wit/adapter/chat.wit`; `start` makes
/// the decoder on which `feed` and `finish` work.
pub trait Adapter {
    /// What the adapter said that it is when it was loaded, before it saw any request. It is not asked again: where a
    /// request goes must not follow from what is in it.
    fn description(&self) -> &Description;
    /// The cheapest request that shows whether the backend serves.
    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault>;
    /// The HTTP request that asks the backend.
    fn encode(&mut self, settings: &str, request: &Arc<Request>) -> Result<Result<HttpRequest, Error>, Fault>;
    /// Makes the decoder.
    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault>;
    /// The frames of one network read.
    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault>;
    /// The body has ended.
    fn finish(&mut self) -> Result<Vec<Event>, Fault>;
}

/// A policy component, held exclusively by one request or one answer. The functions are those of `wit/policy`; `start`
/// makes the watcher on which `feed` works.
pub trait Policy {
    /// What becomes of a request.
    fn on_request(
        &mut self,
        settings: &Arc<str>,
        context: &Context,
        request: &Arc<Request>,
    ) -> Result<Result<Decision, Error>, Fault>;
    /// Makes the watcher of an answer.
    fn start(&mut self, settings: &Arc<str>, note: String) -> Result<(), Fault>;
    /// The next events of the answer; what goes on of them.
    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault>;
}

/// A component did what it must not do. The client sees a 502 that names it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{component} {what}")]
pub struct Fault {
    /// The component, as `adapter "shout"`.
    pub component: String,
    /// What it did, as `trapped: unreachable`. Never content of a request.
    pub what: String,
}

/// A request to a backend, signed.
#[derive(Clone)]
pub struct UpstreamRequest {
    /// The provider's name, for pools and logs.
    pub provider: String,
    /// `POST`, ….
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// Headers, names in lower case. Values of secret headers are in here: never log this.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Bytes,
    /// How long the connection may take to stand.
    pub connect_timeout: Duration,
    /// The connection must go to an address of the public internet ([`crate::is_public`]): a runtime that resolves names
    /// itself checks what they resolve to. Such a request is none of a provider's: `provider` is empty.
    pub public_only: bool,
}

/// Shows no header value, since some are secrets, and no content.
impl std::fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("UpstreamRequest")
            .field("provider", &self.provider)
            .field("method", &self.method)
            .field("url", &self.url)
            .field("headers", &names)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The start of a backend's answer, and its body.
pub struct UpstreamResponse<B> {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case; values that are not UTF-8 are left out.
    pub headers: Vec<Field>,
    /// What follows.
    pub body: B,
}

/// A body that arrives in pieces.
pub trait UpstreamBody {
    /// The next piece, `None` at the end. Cancel-safe: a dropped future loses nothing.
    fn chunk(&mut self) -> impl Future<Output = Option<Result<Bytes, TransportError>>>;
}

/// The network failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: refused, unreachable, a name that does not resolve, a TLS failure.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection did not stand in time.
    #[error("connecting took longer than the limit")]
    ConnectTimeout,
    /// The connection broke after it stood.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The runtime does not allow this address.
    #[error("the runtime refuses to connect: {0}")]
    Denied(String),
}
