//! Outgoing HTTP, to allowed hosts only.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request, io::TokioIo};

/// What the component's requests pass through.
pub struct Hooks {
    /// `host:port`, in lower case.
    pub allowed: Arc<BTreeSet<String>>,
}

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Driver), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let tls = request.uri().scheme() == Some(&Scheme::HTTPS);
        let target = request
            .uri()
            .authority()
            .map(|authority| crate::with_port(authority.as_str(), if tls { "443" } else { "80" }));
        let Some(target) = target.filter(|target| self.allowed.contains(target)) else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        Box::new(async move {
            if tls {
                let (response, driver) = default_send_request(request, options).await?;
                return Ok((response.map(BodyExt::boxed_unsync), Box::new(driver) as Driver));
            }
            plain(target, request, options).await
        })
    }
}

/// As the default, but with TCP_NODELAY, without which streamed answers can stall for 40 ms.
async fn plain(target: String, mut request: http::Request<WasiBody>, options: Option<RequestOptions>) -> Sent {
    let limit = options.and_then(|options| options.connect_timeout).unwrap_or(Duration::from_secs(600));
    let stream = match tokio::time::timeout(limit, TcpStream::connect(&target)).await {
        Ok(stream) => stream.map_err(Error::Connect)?,
        Err(_) => return Err(Error::ConnectionTimeout),
    };
    stream.set_nodelay(true).map_err(Error::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    // Dropped with the answer's body, or with this future: then the connection is closed.
    let mut connection = Connection(tokio::spawn(async move { connection.await.map_err(Error::from) }));
    let response = sender.send_request(request).await?;
    let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
    let driver = async move {
        // The sender lives as long as the answer is read.
        let _sender = sender;
        (&mut connection.0).await.unwrap_or(Ok(()))
    };
    Ok((response, Box::new(driver)))
}

/// A connection's task, ended with its owner.
struct Connection(tokio::task::JoinHandle<Result<(), Error>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
