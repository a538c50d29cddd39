//! The mock upstream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

const ANSWER: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair."},"finish_reason":"stop"}],"usage":{"prompt_tokens":250,"completion_tokens":64,"total_tokens":314}}"#;

fn chunk(delta: &str, finish: &str) -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
    ))
}

/// Serves until killed.
pub async fn serve(listen: SocketAddr, pace_us: u64, chunks: u32, hold: bool) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| answer(request, pace_us, chunks, hold));
        tokio::spawn(async move {
            let _ =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    pace_us: u64,
    chunks: u32,
    hold: bool,
) -> Result<Response<impl Body<Data = Bytes, Error = impl Into<Box<dyn std::error::Error + Send + Sync>>>>, Infallible>
{
    // The whole body is read, as a real server does; what it wants is told by a search for `"stream":true`.
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if !body.windows(13).rev().take(4096).any(|window| window == b"\"stream\":true")
        && !body.windows(13).take(4096).any(|window| window == b"\"stream\":true")
    {
        let response = Response::builder().header("content-type", "application/json");
        return Ok(response.body(Either::Left(Full::from(ANSWER))).expect("static headers"));
    }
    let first = chunk(r#"{"role":"assistant","content":""}"#, "null");
    let middle = chunk(r#"{"content":" token"}"#, "null");
    let last = Bytes::from(
        [
            &chunk("{}", "\"stop\"")[..],
            b"data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\
              \"choices\":[],\"usage\":{\"prompt_tokens\":250,\"completion_tokens\":100,\"total_tokens\":350}}\n\n",
            b"data: [DONE]\n\n",
        ]
        .concat(),
    );
    let stream = futures_util::stream::unfold(0_u32, move |at| {
        let (first, middle, last) = (first.clone(), middle.clone(), last.clone());
        async move {
            if hold && at == 2 {
                std::future::pending::<()>().await;
            }
            if at > 0 {
                if pace_us > 0 {
                    tokio::time::sleep(Duration::from_micros(pace_us)).await;
                } else {
                    // A network read of its own for each chunk, as far as the reader keeps up.
                    tokio::task::yield_now().await;
                }
            }
            let bytes = match at {
                0 => first,
                at if at <= chunks => middle,
                at if at == chunks + 1 => last,
                _ => return None,
            };
            Some((Ok::<_, Infallible>(Frame::data(bytes)), at + 1))
        }
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    Ok(response.body(Either::Right(StreamBody::new(stream.boxed()))).expect("static headers"))
}
