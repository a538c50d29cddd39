//! The way to the backends: pooled connections, plain or TLS, and the built-in stub behind `stub:` URLs.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tower_service::Service;
use witgate_config::{Config, Source};
use witgate_gateway::{BUCKET, TransportError, UpstreamBody, UpstreamRequest, UpstreamResponse};

use crate::own_client::AnyClient;

/// How long an unused connection is kept. Shorter than the 60 s after which many servers and balancers close one.
const IDLE: Duration = Duration::from_secs(50);
/// How long a connection to an address that a client named may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The most unused connections to one host.
const IDLE_PER_HOST: usize = 256;

/// Connections to all providers.
pub(crate) struct Upstream {
    /// With the time that a connection may take to stand.
    clients: BTreeMap<String, (Duration, Client<Connector, Full<Bytes>>)>,
    /// For addresses that clients named: of the public internet only, and any.
    public: Client<Connector<Public>, Full<Bytes>>,
    any: Client<Connector, Full<Bytes>>,
    /// Of the program's own, in the place of all of these.
    own: Option<Arc<dyn AnyClient>>,
}

impl Upstream {
    /// A pool for each provider of the configuration, since each has its own limit for connecting.
    pub fn new(config: &Config, own: Option<Arc<dyn AnyClient>>) -> Self {
        let tls = Arc::new(OnceCell::new());
        let client = |connect: Duration| client(HttpConnector::new(), Arc::clone(&tls), connect);
        let providers = config.providers.iter().map(|(name, provider)| (name.clone(), provider.timeouts.connect));
        let bucket =
            matches!(config.documents.from, Source::S3(_)).then(|| (BUCKET.to_owned(), config.timeouts.connect));
        let clients = providers.chain(bucket).map(|(name, connect)| (name, (connect, client(connect)))).collect();
        let public = HttpConnector::new_with_resolver(Public(GaiResolver::new()));
        let public = self::client(public, Arc::new(OnceCell::new()), CONNECT);
        Upstream { clients, public, any: client(CONNECT), own }
    }

    /// The connections of a configuration that is read anew: those that stand are kept.
    pub fn successor(&self, config: &Config) -> Self {
        let mut next = Upstream::new(config, self.own.clone());
        for (name, (connect, client)) in &mut next.clients {
            if let Some((_, known)) = self.clients.get(name).filter(|(known, _)| known == connect) {
                *client = known.clone();
            }
        }
        Upstream { public: self.public.clone(), any: self.any.clone(), ..next }
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<Body>, TransportError> {
        if request.url.starts_with("stub:") {
            return Ok(stub(request));
        }
        let denied = |what: String| TransportError::Denied(what);
        let uri: Uri = request.url.parse().map_err(|error| denied(format!("the URL is not valid: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(denied("the URL's scheme is neither http nor https".to_owned()));
        }
        if request.public_only {
            // What resolves names, here or in a client of the program's own, does not see what is none.
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            if host.parse().is_ok_and(|address| !witgate_gateway::is_public(address)) {
                return Err(denied("the address is not one of the public internet".to_owned()));
            }
        }
        if let Some(own) = &self.own {
            return own.send(request).await;
        }
        let mut http = http::Request::builder().method(request.method.as_str()).uri(uri);
        if let Some(headers) = http.headers_mut() {
            headers.reserve(request.headers.len() + 1);
            for (name, value) in &request.headers {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| denied("a header's name is not valid".to_owned()))?;
                let mut value = HeaderValue::from_str(value)
                    .map_err(|_| denied(format!("the value of the header {name} is not valid")))?;
                // Kept out of HTTP/2's compression tables and out of debug prints.
                value.set_sensitive(!matches!(name.as_str(), "content-type" | "accept" | "traceparent"));
                headers.append(name, value);
            }
            headers
                .entry(http::header::USER_AGENT)
                .or_insert(HeaderValue::from_static(concat!("witgate/", env!("CARGO_PKG_VERSION"))));
        }
        let http =
            http.body(Full::new(request.body)).map_err(|error| denied(format!("the request is not valid: {error}")))?;
        let answer = match self.clients.get(&request.provider) {
            Some((_, client)) => client.request(http).await,
            None if !request.provider.is_empty() => {
                return Err(denied(format!("there is no provider \"{}\"", request.provider)));
            }
            None if request.public_only => self.public.request(http).await,
            None => self.any.request(http).await,
        };
        let answer = answer.map_err(|error| transport(&error))?;
        let (head, body) = answer.into_parts();
        let headers = head
            .headers
            .iter()
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned()))
            })
            .collect();
        Ok(UpstreamResponse { status: head.status.as_u16(), headers, body: Body(Inner::Network(body)) })
    }
}

/// What an error of the client means for the gateway.
fn transport(error: &Error) -> TransportError {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        if cause.is::<ConnectTimeout>() {
            return TransportError::ConnectTimeout;
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    if error.is_connect() {
        TransportError::Connect(cause.to_string())
    } else {
        TransportError::Broken(cause.to_string())
    }
}

/// The body of a backend's answer. Dropping it cancels the request.
pub struct Body(Inner);

enum Inner {
    /// From a backend.
    Network(Incoming),
    /// From the built-in stub, or whole: pieces.
    Pieces(VecDeque<Bytes>),
    /// From a client of the program's own.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>),
}

impl Body {
    /// A body that is there as a whole.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Body(Inner::Pieces(Some(bytes.into()).into_iter().filter(|bytes| !bytes.is_empty()).collect()))
    }

    /// A body whose pieces are still to come. An error says that the connection broke; nothing is read behind it.
    pub fn stream(pieces: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static) -> Self {
        Body(Inner::Stream(Box::pin(pieces)))
    }
}

impl UpstreamBody for Body {
    async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        match &mut self.0 {
            Inner::Pieces(pieces) => pieces.pop_front().map(Ok),
            Inner::Stream(pieces) => loop {
                match pieces.next().await? {
                    Ok(piece) if piece.is_empty() => {}
                    piece => return Some(piece),
                }
            },
            Inner::Network(body) => loop {
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => return Some(Ok(data)),
                        // Trailers.
                        Err(_) => {}
                    },
                    Err(error) => {
                        let mut cause: &dyn std::error::Error = &error;
                        while let Some(source) = cause.source() {
                            cause = source;
                        }
                        return Some(Err(TransportError::Broken(cause.to_string())));
                    }
                }
            },
        }
    }
}

/// The stub backend: its adapter writes the answer into the request, and this gives it back.
fn stub(request: UpstreamRequest) -> UpstreamResponse<Body> {
    let content_type = request.headers.into_iter().find(|(name, _)| name == "content-type");
    let stream = content_type.as_ref().is_some_and(|(_, value)| value.starts_with("text/event-stream"));
    let mut pieces = VecDeque::new();
    let mut rest = request.body;
    while stream && let Some(end) = memchr::memmem::find(&rest, b"\n\n") {
        pieces.push_back(rest.split_to(end + 2));
    }
    if !rest.is_empty() {
        pieces.push_back(rest);
    }
    UpstreamResponse { status: 200, headers: content_type.into_iter().collect(), body: Body(Inner::Pieces(pieces)) }
}

/// A client for any address, with a pool of its own.
pub(crate) fn any(connect: Duration) -> Client<Connector, Full<Bytes>> {
    client(HttpConnector::new(), Arc::new(OnceCell::new()), connect)
}

/// A client over a connector, with a pool of its own.
fn client<R>(mut http: HttpConnector<R>, tls: Tls<R>, limit: Duration) -> Client<Connector<R>, Full<Bytes>>
where
    R: Clone + Send + Sync + 'static,
    HttpConnector<R>: Connects,
{
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(Duration::from_secs(60)));
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .timer(TokioTimer::new())
        .build(Connector { http, tls, limit })
}

/// Resolves names to addresses of the public internet alone.
#[derive(Clone)]
struct Public(GaiResolver);

/// The addresses of a name that are public.
type Addresses = std::vec::IntoIter<std::net::SocketAddr>;

impl Service<Name> for Public {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move {
            let all = found.await?;
            let public: Vec<_> = all.filter(|address| witgate_gateway::is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::other("the name has no address of the public internet"));
            }
            Ok(public.into_iter())
        })
    }
}

/// What makes plain connections.
trait Connects:
    Service<Uri, Response = TokioIo<TcpStream>, Error: Into<Failure>, Future: Send> + Clone + Send + Sync + Unpin + 'static
{
}

impl<T> Connects for T where
    T: Service<Uri, Response = TokioIo<TcpStream>, Error: Into<Failure>, Future: Send>
        + Clone
        + Send
        + Sync
        + Unpin
        + 'static
{
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Tls<R> = Arc<OnceCell<HttpsConnector<HttpConnector<R>>>>;

/// Connects within a limit, TLS included. Certificates are read when the first TLS connection is made.
#[derive(Clone)]
pub(crate) struct Connector<R = GaiResolver> {
    http: HttpConnector<R>,
    tls: Tls<R>,
    limit: Duration,
}

/// The limit for connecting has passed.
#[derive(Debug, thiserror::Error)]
#[error("the connection did not stand in time")]
struct ConnectTimeout;

impl<R: Clone + Send + Sync + 'static> Service<Uri> for Connector<R>
where
    HttpConnector<R>: Connects,
{
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { mut http, tls, limit } = self.clone();
        Box::pin(async move {
            let connect = async {
                if uri.scheme_str() == Some("https") {
                    let mut https = tls.get_or_try_init(|| connector(http)).await?.clone();
                    https.call(uri).await
                } else {
                    Ok(MaybeHttpsStream::Http(http.call(uri).await.map_err(Into::into)?))
                }
            };
            match tokio::time::timeout(limit, connect).await {
                Ok(result) => result,
                Err(_) => Err(ConnectTimeout.into()),
            }
        })
    }
}

/// The TLS connector, with the certificate authorities of this machine.
async fn connector<R: Send + 'static>(http: HttpConnector<R>) -> Result<HttpsConnector<HttpConnector<R>>, Failure> {
    tokio::task::spawn_blocking(move || {
        let builder = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| format!("no certificate authorities: {error}"))?;
        Ok(builder.https_or_http().enable_all_versions().wrap_connector(http))
    })
    .await?
}
