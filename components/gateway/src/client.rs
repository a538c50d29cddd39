//! Outgoing requests, over `wasi:http/client`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, spawn_local};
use witgate_gateway::{TransportError, UpstreamBody, UpstreamRequest, UpstreamResponse};

use crate::bindings::wasi::http::client;
use crate::bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use crate::bindings::{wit_future, wit_stream};

/// The runtime's own limits on the first byte and between bytes are switched off so far: the gateway has its own.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// The most bytes of one read.
const READ: usize = 16 * 1024;

/// Sends a request and gives its answer when the head has come.
pub async fn send(request: UpstreamRequest) -> Result<UpstreamResponse<Body>, TransportError> {
    if request.url.starts_with("stub:") {
        return Ok(stub(request));
    }
    let sent = client::send(outgoing(request)?).await.map_err(transport)?;
    let status = sent.get_status_code();
    let headers = fields(&sent.get_headers());
    let (result, consumed) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Response::consume_body(sent, consumed);
    let body = Body::Network(Network { state: State::Idle(stream, Vec::new(), trailers), _result: result });
    Ok(UpstreamResponse { status, headers, body })
}

fn outgoing(request: UpstreamRequest) -> Result<Request, TransportError> {
    let wrong = |what: &str| TransportError::Connect(format!("the endpoint's {what} is not valid"));
    let uri: http::Uri = request.url.parse().map_err(|_| wrong("URL"))?;
    let mut headers: Vec<(String, Vec<u8>)> =
        request.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    headers.retain(|(name, _)| name != "content-length" && name != "host");
    let method = method(&request.method);
    if !request.body.is_empty() || matches!(method, Method::Post | Method::Put | Method::Patch) {
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let headers = Fields::from_list(&headers).map_err(|_| wrong("headers"))?;
    let options = RequestOptions::new();
    // What a runtime does not support here it refuses; then its own limits hold.
    let nanoseconds = |duration: Duration| Some(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    let _ = options.set_connect_timeout(nanoseconds(request.connect_timeout));
    let _ = options.set_first_byte_timeout(nanoseconds(LONG));
    let _ = options.set_between_bytes_timeout(nanoseconds(LONG));

    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    drop(trailers);
    let contents = if request.body.is_empty() {
        None
    } else {
        let (mut writer, reader) = wit_stream::new();
        let body = Vec::from(request.body);
        // Ends when the body has been taken, or when the request is dropped.
        spawn_local(async move {
            let _ = writer.write_all(body).await;
        });
        Some(reader)
    };
    let (outgoing, _sent) = Request::new(headers, contents, no_trailers, Some(options));
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(wrong("scheme")),
    };
    outgoing.set_method(&method).map_err(|()| wrong("method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| wrong("scheme"))?;
    outgoing.set_authority(uri.authority().map(http::uri::Authority::as_str)).map_err(|()| wrong("host"))?;
    outgoing
        .set_path_with_query(uri.path_and_query().map(http::uri::PathAndQuery::as_str))
        .map_err(|()| wrong("path"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "HEAD" => Method::Head,
        other => Method::Other(other.to_owned()),
    }
}

/// Headers whose values are UTF-8, names in lower case.
pub fn fields(fields: &Fields) -> Vec<(String, String)> {
    fields
        .copy_all()
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), String::from_utf8(value).ok()?)))
        .collect()
}

/// Runtimes word their errors freely; the kinds are what the gateway acts on.
fn transport(error: ErrorCode) -> TransportError {
    match error {
        ErrorCode::ConnectionTimeout => TransportError::ConnectTimeout,
        ErrorCode::HttpRequestDenied => TransportError::Denied(
            "the runtime's list of allowed hosts lacks this one (allowed_outbound_hosts in spin.toml)".to_owned(),
        ),
        ErrorCode::DestinationIpProhibited => {
            TransportError::Denied("the runtime prohibits the address of this host".to_owned())
        }
        ErrorCode::ConnectionRefused => TransportError::Connect("connection refused".to_owned()),
        ErrorCode::DnsTimeout => TransportError::Connect("resolving the host name took too long".to_owned()),
        ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            TransportError::Connect("the host name does not resolve".to_owned())
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            TransportError::Connect("the host cannot be reached".to_owned())
        }
        ErrorCode::ConnectionLimitReached => {
            TransportError::Connect("the runtime's limit of outgoing connections is reached".to_owned())
        }
        ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError | ErrorCode::TlsAlertReceived(_) => {
            TransportError::Connect(format!("TLS: {error}"))
        }
        other => TransportError::Broken(other.to_string()),
    }
}

/// Answers a request to `stub:` without a network: with its own body.
fn stub(request: UpstreamRequest) -> UpstreamResponse<Body> {
    let content_type = request.headers.into_iter().find(|(name, _)| name == "content-type");
    let events = content_type.as_ref().is_some_and(|(_, value)| value.starts_with("text/event-stream"));
    let mut pieces = Vec::new();
    let mut rest = request.body;
    while events && let Some(end) = rest.windows(2).position(|window| window == b"\n\n") {
        pieces.push(rest.split_to(end + 2));
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    UpstreamResponse { status: 200, headers: content_type.into_iter().collect(), body: Body::Stub(pieces.into_iter()) }
}

/// The body of a backend's answer.
pub enum Body {
    /// From the network.
    Network(Network),
    /// From the stub.
    Stub(std::vec::IntoIter<Bytes>),
}

/// A body that arrives. Dropping it cancels the request.
pub struct Network {
    state: State,
    /// Kept until the body has been read: dropping it says that the answer was processed.
    _result: FutureWriter<Result<(), ErrorCode>>,
}

type Trailers = FutureReader<Result<Option<Fields>, ErrorCode>>;
/// What a read gives: the stream for the next one, how it ended, its buffer.
type Read = (StreamReader<u8>, StreamResult, Vec<u8>, Trailers);

/// A read is kept here while it is under way, so that a dropped `chunk` loses nothing.
enum State {
    Idle(StreamReader<u8>, Vec<u8>, Trailers),
    Reading(Pin<Box<dyn Future<Output = Read>>>),
    Ending(Pin<Box<dyn Future<Output = Option<TransportError>>>>),
    Ended,
}

impl UpstreamBody for Body {
    async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        match self {
            Body::Stub(pieces) => pieces.next().map(Ok),
            Body::Network(network) => network.chunk().await,
        }
    }
}

impl Network {
    async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        loop {
            match &mut self.state {
                State::Idle(..) => {
                    let State::Idle(mut stream, mut buffer, trailers) =
                        std::mem::replace(&mut self.state, State::Ended)
                    else {
                        return None;
                    };
                    buffer.clear();
                    buffer.reserve(READ);
                    self.state = State::Reading(Box::pin(async move {
                        let (result, buffer) = stream.read(buffer).await;
                        (stream, result, buffer, trailers)
                    }));
                }
                State::Reading(read) => {
                    let (stream, result, buffer, trailers) = read.as_mut().await;
                    match result {
                        StreamResult::Complete(_) if !buffer.is_empty() => {
                            // Most pieces are far smaller than the buffer, which serves again.
                            let chunk = Bytes::copy_from_slice(&buffer);
                            self.state = State::Idle(stream, buffer, trailers);
                            return Some(Ok(chunk));
                        }
                        StreamResult::Complete(_) | StreamResult::Cancelled => {
                            self.state = State::Idle(stream, buffer, trailers);
                        }
                        StreamResult::Dropped => {
                            self.state = State::Ending(Box::pin(async move {
                                trailers.await.err().map(|error| TransportError::Broken(error.to_string()))
                            }));
                        }
                    }
                }
                State::Ending(end) => {
                    let error = end.as_mut().await;
                    self.state = State::Ended;
                    return error.map(Err);
                }
                State::Ended => return None,
            }
        }
    }
}
