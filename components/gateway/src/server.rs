//! Incoming requests and their answers, over `wasi:http/handler`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt};
use wit_bindgen::{StreamReader, StreamResult, StreamWriter, spawn_local};
use witgate_gateway::{Body, BodyError};
use witgate_model::Field;

use crate::bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, Response};
use crate::bindings::{wit_future, wit_stream};
use crate::client::fields;
use crate::timer::{Timer, now};

/// How often a stream that waits for its backend looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(75);
/// The most bytes of one read of a request's body.
const READ: usize = 64 * 1024;

/// A request as the gateway takes it.
pub fn request(request: Request) -> witgate_gateway::Request<Incoming> {
    let method = match request.get_method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(other) => other,
    };
    let target = request.get_path_with_query().unwrap_or_default();
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    let query = query.to_owned();
    let headers = fields(&request.get_headers());
    witgate_gateway::Request { method, path, query, headers, body: Incoming(request) }
}

/// A request's body, not yet read.
pub struct Incoming(Request);

impl witgate_gateway::RequestBody for Incoming {
    async fn read(self, limit: usize) -> Result<Bytes, BodyError> {
        let length = self.0.get_headers().get("content-length").into_iter().next();
        let length = length.and_then(|length| std::str::from_utf8(&length).ok()?.parse::<u64>().ok());
        let (result, consumed) = wit_future::new(|| Ok(()));
        let (mut stream, trailers) = Request::consume_body(self.0, consumed);
        if length.is_some_and(|length| length > limit as u64) {
            spawn_local(discard(stream, limit, (result, trailers)));
            return Err(BodyError::TooLarge);
        }
        // A length that the client only claims gets no more memory than one read.
        let mut body = Vec::with_capacity(length.map_or(READ, |length| (length as usize).saturating_add(1)).min(READ));
        loop {
            if body.len() > limit {
                spawn_local(discard(stream, limit, (result, trailers)));
                return Err(BodyError::TooLarge);
            }
            if body.capacity() == body.len() {
                body.reserve(READ);
            }
            let (end, read) = stream.read(body).await;
            body = read;
            match end {
                StreamResult::Complete(_) | StreamResult::Cancelled => {}
                StreamResult::Dropped => break,
            }
        }
        trailers.await.map_err(|error| BodyError::Broken(error.to_string()))?;
        drop(result);
        Ok(Bytes::from(body))
    }
}

/// Takes as much again of a body that is too large. A client that still sends reads its answer only afterwards, and may not
/// get it where its connection is reset by then. `body` is what else there is of the body.
async fn discard<T>(mut stream: StreamReader<u8>, mut left: usize, body: T) {
    let mut buffer = Vec::with_capacity(READ);
    while left > 0 {
        let (end, read) = stream.read(buffer).await;
        if end == StreamResult::Dropped {
            break;
        }
        left = left.saturating_sub(read.len());
        buffer = read;
        buffer.clear();
    }
    drop(body);
}

/// The gateway's answer, as the runtime takes it.
pub fn respond(
    timer: Timer,
    answer: witgate_gateway::Response<impl Stream<Item = Bytes> + 'static>,
) -> Result<Response, ErrorCode> {
    let mut headers = answer.headers;
    let (writer, reader) = wit_stream::new();
    match answer.body {
        Body::Whole(body) => {
            headers.push(("content-length".to_owned(), body.len().to_string()));
            spawn_local(whole(writer, body));
        }
        Body::Stream(stream) => spawn_local(pump(timer, writer, stream)),
    }
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    drop(trailers);
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect::<Vec<_>>();
    let headers = Fields::from_list(&headers)
        .map_err(|error| ErrorCode::InternalError(Some(format!("the answer's headers: {error}"))))?;
    let (response, _sent) = Response::new(headers, Some(reader), no_trailers);
    response
        .set_status_code(answer.status)
        .map_err(|()| ErrorCode::InternalError(Some(format!("the answer's status {}", answer.status))))?;
    Ok(response)
}

async fn whole(mut writer: StreamWriter<u8>, body: Bytes) {
    let _ = writer.write_all(Vec::from(body)).await;
}

/// Gives the pieces of a stream to the client. When it has left, the stream is dropped, and with it the backend's request.
///
/// A runtime tells that a client has left only to one who writes. So while there is nothing to write, nothing is written
/// from time to time.
async fn pump(timer: Timer, mut writer: StreamWriter<u8>, stream: impl Stream<Item = Bytes>) {
    let mut stream = std::pin::pin!(stream);
    loop {
        let look = std::pin::pin!(timer.sleep_until(now() + LOOK));
        match select(stream.next(), look).await {
            Either::Left((None, _)) => return,
            Either::Left((Some(piece), _)) => {
                if !writer.write_all(Vec::from(piece)).await.is_empty() {
                    return;
                }
            }
            Either::Right(_) => {
                if writer.write(Vec::new()).await.0 == StreamResult::Dropped {
                    return;
                }
            }
        }
    }
}

/// The answer to everything while the configuration is wrong.
pub fn misconfigured() -> Result<Response, ErrorCode> {
    let message = "the gateway's configuration is wrong; its log says what, and what would be right";
    let json = serde_json::json!({"error": {
        "message": message, "type": "api_error", "code": "configuration_error", "param": null,
    }});
    let headers: Vec<Field> = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = Bytes::from(json.to_string());
    let answer = witgate_gateway::Response {
        status: 500,
        headers,
        body: Body::<futures_util::stream::Empty<Bytes>>::Whole(body),
    };
    respond(Timer::default(), answer)
}
