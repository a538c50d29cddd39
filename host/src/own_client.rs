//! An HTTP client of the program's own towards the backends.

use std::future::Future;
use std::pin::Pin;

use witgate_gateway::{TransportError, UpstreamRequest, UpstreamResponse};

use crate::upstream::Body;

/// Sends requests to backends, in the place of witgate's own client: through a proxy, with certificates of one's own, or to
/// a backend that is a part of the program.
///
/// - The request is signed: its headers hold secrets. It may not be logged, changed or followed where it is redirected.
/// - The answer's future is polled by the request that it belongs to, and dropped with it: dropping it, or the body, must
///   cancel the request to the backend. The gateway bounds the time until the head has come and between pieces;
///   `connect_timeout` is the client's to keep.
/// - With `public_only`, the address is one that a client named. Addresses written as numbers have been checked; what a name
///   resolves to is the client's to check, by `witgate_host::is_public`.
///
/// Requests to `stub:`, the built-in stub, do not come here; those of AWS's credential chain do not either.
///
/// ```
/// use witgate_config::Config;
/// use witgate_host::{BackendBody, Host, HttpClient, TransportError, UpstreamRequest, UpstreamResponse};
///
/// /// A backend in the program itself.
/// struct Inside;
///
/// impl HttpClient for Inside {
///     async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<BackendBody>, TransportError> {
///         println!("{} {} with {} bytes", request.method, request.url, request.body.len());
///         let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
///         Ok(UpstreamResponse { status: 200, headers, body: BackendBody::whole("{}") })
///     }
/// }
///
/// let host = Host::builder(Config::builtin()).http_client(Inside).build()?;
/// # Ok::<(), witgate_host::BuildError>(())
/// ```
pub trait HttpClient: Send + Sync + 'static {
    /// Sends a request, and gives its answer's head when it has come.
    fn send(
        &self,
        request: UpstreamRequest,
    ) -> impl Future<Output = Result<UpstreamResponse<Body>, TransportError>> + Send;
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<UpstreamResponse<Body>, TransportError>> + Send + 'a>>;

/// [`HttpClient`] without its type.
pub(crate) trait AnyClient: Send + Sync {
    fn send(&self, request: UpstreamRequest) -> Sent<'_>;
}

impl<C: HttpClient> AnyClient for C {
    fn send(&self, request: UpstreamRequest) -> Sent<'_> {
        Box::pin(HttpClient::send(self, request))
    }
}
