//! The HTTP server: HTTP/1.1 and HTTP/2 on one port, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use witgate_gateway::{Body, BodyError, Gateway, Request, RequestBody, Response};

use crate::ports::HostPorts;

/// How long a client may take to send a request's head, and how long a connection may stay unused.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a body that is too large is still read, so that the client gets to read the answer, and for how long.
const LINGER_BYTES: usize = 32 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);
/// The most connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long idle connections may take to close when the server ends.
const CLOSE: Duration = Duration::from_secs(1);

/// A server that is bound to its port and does not serve yet.
pub struct Server {
    gateway: Arc<Gateway>,
    ports: Arc<HostPorts>,
    listener: TcpListener,
    max_header_bytes: usize,
    shutdown_timeout: Duration,
}

impl Server {
    pub(crate) async fn bind(
        gateway: Arc<Gateway>,
        ports: Arc<HostPorts>,
        config: &witgate_config::Config,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host(&config.server.listen).await? {
            match listen(address) {
                Ok(listener) => {
                    return Ok(Server {
                        gateway,
                        ports,
                        listener,
                        max_header_bytes: config.limits.max_header_bytes,
                        shutdown_timeout: config.server.shutdown_timeout,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it listens: the port is the one that was taken where the configuration says 0.
    ///
    /// # Errors
    /// Where the system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, and then to the end of the running requests, at most for the configuration's
    /// `server.shutdown_timeout`. `/ready` answers 503 from the start of the shutdown on. For the first half of that
    /// time new connections are still served while requests run, since load balancers take a while to see it.
    ///
    /// Returns the number of requests that were cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> usize {
        let Server { gateway, ports, listener, max_header_bytes, shutdown_timeout } = self;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(max_header_bytes.max(8192));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(256)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let http = Arc::new(http);
        let connections = GracefulShutdown::new();
        let draining = Arc::new(AtomicBool::new(false));
        let accept = |stream: TcpStream| {
            let _ = stream.set_nodelay(true);
            let (gateway, ports, draining) = (Arc::clone(&gateway), Arc::clone(&ports), Arc::clone(&draining));
            let service = service_fn(move |request| {
                let (gateway, ports, draining) = (Arc::clone(&gateway), Arc::clone(&ports), Arc::clone(&draining));
                async move { Ok::<_, Infallible>(answer(&gateway, &ports, &draining, request).await) }
            });
            let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service).into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(target: "witgate::server", %error, "a connection broke");
                }
            });
        };

        let watch = {
            let (gateway, ports) = (Arc::clone(&gateway), Arc::clone(&ports));
            tokio::spawn(async move { gateway.watch(&ports).await })
        };
        let worker = {
            let (gateway, ports) = (Arc::clone(&gateway), Arc::clone(&ports));
            Worker(tokio::spawn(async move { gateway.work(&ports).await }))
        };

        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                stream = next(&listener) => accept(stream),
            }
        }

        // The end has begun.
        watch.abort();
        draining.store(true, Ordering::Relaxed);
        gateway.drain();
        let begun = Instant::now();
        let (half, end) = (begun + shutdown_timeout / 2, begun + shutdown_timeout);
        tracing::info!(
            target: "witgate::server",
            running = gateway.in_flight(), timeout_s = shutdown_timeout.as_secs_f64(), "shutting down",
        );
        let mut done = pin!(idle(&gateway));
        loop {
            tokio::select! {
                () = &mut done => break,
                () = sleep_until(half) => break,
                stream = next(&listener) => accept(stream),
            }
        }
        drop(listener);
        let cut_off = tokio::select! {
            () = async { connections.shutdown().await; idle(&gateway).await } => 0,
            () = sleep_until(end.max(begun + CLOSE)) => gateway.in_flight(),
            // Connections on which nothing runs need no more time than it takes to say so.
            () = async { idle(&gateway).await; sleep(CLOSE).await } => gateway.in_flight(),
        };
        drop(worker);
        cut_off
    }
}

/// The task that runs jobs. Those that still run when it ends, another process takes up, or this one when it is back.
struct Worker(tokio::task::JoinHandle<()>);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens with an address that was in use a moment ago.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection.
async fn next(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // A client that left at once is no reason to wait; out of files is.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::error!(target: "witgate::server", %error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Completes when no request runs.
async fn idle(gateway: &Gateway) {
    while gateway.in_flight() > 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// One request.
async fn answer(
    gateway: &Arc<Gateway>,
    ports: &Arc<HostPorts>,
    draining: &AtomicBool,
    request: http::Request<Incoming>,
) -> http::Response<impl http_body::Body<Data = Bytes, Error = Infallible> + use<>> {
    let (head, body) = request.into_parts();
    let http1 = head.version < http::Version::HTTP_2;
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
        body: ClientBody(body),
    };
    let response = gateway.handle(ports, request).await;
    let Response { status, headers, body } = response;
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
    if http1 && draining.load(Ordering::Relaxed) {
        http.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    http
}

/// A request's body, still on the wire.
struct ClientBody(Incoming);

impl RequestBody for ClientBody {
    async fn read(self, limit: usize) -> Result<Bytes, BodyError> {
        let mut body = self.0;
        let end = Instant::now() + BODY_TIMEOUT;
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            linger(body).await;
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut all = Vec::new();
        loop {
            let frame = match timeout_at(end, body.frame()).await {
                Err(_) => return Err(BodyError::Timeout),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.len() > limit {
                linger(body).await;
                return Err(BodyError::TooLarge);
            }
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
async fn linger(mut body: Incoming) {
    let end = Instant::now() + LINGER;
    let mut read = 0;
    while read < LINGER_BYTES
        && let Ok(Some(Ok(frame))) = timeout_at(end, body.frame()).await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// An answer's body.
enum Answer<S> {
    Whole(Bytes),
    Stream(Pin<Box<S>>),
}

impl<S: Stream<Item = Bytes>> http_body::Body for Answer<S> {
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
