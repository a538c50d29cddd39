//! HTTP requests to the gateway's and back, over any server: the own one, and that of a program that embeds the host.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::{HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use witgate_gateway::{Body, BodyError, Request, RequestBody, Response};

use crate::host::Serving;
use crate::reload::Shared;

/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a body that is too large is still read, so that the client gets to read the answer, and for how long.
const LINGER_BYTES: usize = 32 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// The gateway as a [`tower_service::Service`], for axum, hyper and whatever else takes one. Cheap to clone.
///
/// Answers stream as they come; dropping the future or the body of an answer, as a server does whose client left, cancels
/// the request to the backend. Bodies are bounded in size and time, and requests in number, as the configuration says. What
/// comes before a request is the server's: connections, the size of heads, TLS.
///
/// Paths are those of the APIs, as `/v1/chat/completions`: under a prefix the server must take it off, as axum's
/// `nest_service` does. Only a job's `location` is then without it.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tower_service::Service;
/// use witgate_config::Config;
/// use witgate_host::Host;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut service = Host::builder(Config::builtin()).build()?.service();
/// let body = r#"{"model": "any", "messages": [{"role": "user", "content": "Hello"}]}"#;
/// let request = http::Request::post("/v1/chat/completions")
///     .header("content-type", "application/json")
///     .body(Full::new(Bytes::from(body)))?;
/// let answer = service.call(request).await?;
/// assert_eq!(answer.status(), 200);
/// let body = answer.into_body().collect().await?.to_bytes();
/// # assert!(body.starts_with(b"{"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service(Arc<Mounted>);

struct Mounted {
    shared: Arc<Shared>,
    background: OnceLock<JoinHandle<()>>,
}

impl Mounted {
    /// Probes endpoints that rest, runs jobs and looks for changes of the configuration, where there is a runtime for it.
    fn start(&self) {
        if self.background.get().is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            self.background.get_or_init(|| runtime.spawn(Arc::clone(&self.shared).background()));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(task) = self.background.get() {
            task.abort();
        }
    }
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mounted = Mounted { shared, background: OnceLock::new() };
        mounted.start();
        Service(Arc::new(mounted))
    }
}

impl<B> tower_service::Service<http::Request<B>> for Service
where
    B: http_body::Body<Data: Send, Error: Display> + Send + 'static,
{
    type Response = http::Response<ServiceBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mounted = Arc::clone(&self.0);
        Box::pin(async move {
            mounted.start();
            let answer = answer(&mounted.shared.serving(), request).await;
            Ok(answer.map(|body| {
                ServiceBody(match body {
                    Answer::Whole(bytes) => Answer::Whole(bytes),
                    Answer::Stream(stream) => Answer::Stream(stream),
                })
            }))
        })
    }
}

/// The body of a [`Service`]'s answer. Dropping it cancels what it waits for.
pub struct ServiceBody(Answer<dyn Stream<Item = Bytes> + Send>);

impl http_body::Body for ServiceBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// One request.
pub(crate) async fn answer<B>(
    serving: &Serving,
    request: http::Request<B>,
) -> http::Response<Answer<impl Stream<Item = Bytes> + use<B>>>
where
    B: http_body::Body<Error: Display>,
{
    let (head, body) = request.into_parts();
    let headers = head
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned()))
        })
        .collect();
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers,
        body: ClientBody(Mutex::new(body)),
    };
    let Response { status, headers, body } = serving.gateway.handle(&serving.ports, request).await;
    let mut http = http::Response::new(match body {
        Body::Whole(bytes) => Answer::Whole(bytes),
        Body::Stream(stream) => Answer::Stream(Box::pin(stream)),
    });
    *http.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    http.headers_mut().reserve(headers.len() + 2);
    for (name, value) in headers {
        // The gateway makes valid ones; one that is not would break this answer and is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            http.headers_mut().append(name, value);
        }
    }
    http
}

/// A request's body, still on the wire. The lock is never taken: it makes a body that is not `Sync` one that is.
struct ClientBody<B>(Mutex<B>);

impl<B: http_body::Body<Error: Display>> RequestBody for ClientBody<B> {
    async fn read(self, limit: usize) -> Result<Bytes, BodyError> {
        let mut body = pin!(self.0.into_inner().unwrap_or_else(PoisonError::into_inner));
        let end = Instant::now() + BODY_TIMEOUT;
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            linger(body).await;
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut all = Vec::new();
        loop {
            let frame = match timeout_at(end, body.as_mut().frame()).await {
                Err(_) => return Err(BodyError::Timeout),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(mut data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.remaining() > limit {
                linger(body).await;
                return Err(BodyError::TooLarge);
            }
            // Without a copy where it is `Bytes`, as it mostly is.
            let data = data.copy_to_bytes(data.remaining());
            // Most bodies come in one piece, which is not copied.
            if all.is_empty() && first.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.reserve(usize::try_from(announced).unwrap_or(0).max(first.len() + data.len()));
                    all.extend_from_slice(&first);
                    first = Bytes::new();
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { Bytes::from(all) })
    }
}

/// Reads on and throws away for a while: a client that is still sending would not see the answer.
async fn linger<B: http_body::Body>(mut body: Pin<&mut B>) {
    let end = Instant::now() + LINGER;
    let mut read = 0;
    while read < LINGER_BYTES
        && let Ok(Some(Ok(frame))) = timeout_at(end, body.as_mut().frame()).await
    {
        read += frame.data_ref().map_or(0, Buf::remaining);
    }
}

/// An answer's body.
pub(crate) enum Answer<S: ?Sized> {
    Whole(Bytes),
    Stream(Pin<Box<S>>),
}

impl<S: Stream<Item = Bytes> + ?Sized> http_body::Body for Answer<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Answer::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Answer::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Answer::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Answer::Stream(_) => SizeHint::default(),
        }
    }
}
