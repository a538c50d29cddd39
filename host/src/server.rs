//! The HTTP server: HTTP/1.1 and HTTP/2 on one port, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use witgate_gateway::Gateway;

use crate::host::Serving;
use crate::reload::Shared;

/// How long a client may take to send a request's head, and how long a connection may stay unused.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The most connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long idle connections may take to close when the server ends.
const CLOSE: Duration = Duration::from_secs(1);

/// A server that is bound to its port and does not serve yet.
pub struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind(shared: Arc<Shared>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let serving = shared.serving();
        for address in tokio::net::lookup_host(&serving.config.server.listen).await? {
            match listen(address) {
                Ok(listener) => return Ok(Server { shared, listener }),
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
    /// When the configuration is read anew, the listener and the connections stay: each request is served by what is
    /// configured when it begins.
    ///
    /// Returns the number of requests that were cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> usize {
        let Server { shared, listener } = self;
        let connections = GracefulShutdown::new();
        let draining = Arc::new(AtomicBool::new(false));
        let accept = |stream: TcpStream| {
            let _ = stream.set_nodelay(true);
            let http = builder(shared.serving().config.limits.max_header_bytes);
            let (shared, draining) = (Arc::clone(&shared), Arc::clone(&draining));
            let service = service_fn(move |request| {
                let (serving, draining) = (shared.serving(), Arc::clone(&draining));
                async move { Ok::<_, Infallible>(answer(&serving, &draining, request).await) }
            });
            let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service).into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(target: "witgate::server", %error, "a connection broke");
                }
            });
        };

        // Jobs that still run when it ends, another process takes up, or this one when it is back.
        let background = Task(tokio::spawn(Arc::clone(&shared).background()));

        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                stream = next(&listener) => accept(stream),
            }
        }

        // The end has begun.
        draining.store(true, Ordering::Relaxed);
        let serving = shared.serving();
        let (gateway, shutdown_timeout) = (Arc::clone(&serving.gateway), serving.config.server.shutdown_timeout);
        gateway.drain();
        let queues = shared.stop_queues();
        let begun = Instant::now();
        let (half, end) = (begun + shutdown_timeout / 2, begun + shutdown_timeout);
        tracing::info!(
            target: "witgate::server",
            running = gateway.in_flight(), timeout_s = shutdown_timeout.as_secs_f64(), "shutting down",
        );
        let queues = tokio::spawn(async move {
            if let Some(queues) = queues {
                queues.end(end).await;
            }
        });
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
        let _ = queues.await;
        drop(background);
        cut_off
    }
}

/// How connections are served.
fn builder(max_header_bytes: usize) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(max_header_bytes.max(8192));
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

/// A task that ends when this is dropped.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
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
    serving: &Serving,
    draining: &AtomicBool,
    request: http::Request<Incoming>,
) -> http::Response<impl http_body::Body<Data = Bytes, Error = Infallible> + use<>> {
    let http1 = request.version() < http::Version::HTTP_2;
    let mut http = crate::service::answer(serving, request).await;
    if http1 && draining.load(Ordering::Relaxed) {
        http.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    http
}
