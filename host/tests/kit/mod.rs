//! What the tests of the host share: hosts in scratch folders, a backend that answers as a test wants, raw HTTP.

pub mod registry;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use witgate_config::Config;
use witgate_host::{Body, Builder, Host, Request};

/// Longer than anything here takes, on a slow machine that does other things too; what waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A component that `cargo xtask components` has built.
pub fn component(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/components").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask components`", path.display());
    std::path::absolute(path).unwrap()
}

/// A folder of the tests' fixtures.
pub fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(folder)
}

/// The cache that the tests of one binary share, so that each component is compiled once.
pub fn cache() -> PathBuf {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")).clone()
}

pub fn config(toml: &str) -> Config {
    Config::from_toml(toml, "test.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn builder(toml: &str) -> Builder {
    Host::builder(config(toml)).cache_dir(Some(cache()))
}

pub fn host(toml: &str) -> Host {
    builder(toml).build().unwrap_or_else(|error| panic!("{error}"))
}

/// A chat request's body.
pub fn chat(model: &str, stream: bool) -> String {
    serde_json::json!({
        "model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}],
    })
    .to_string()
}

/// Sends one chat request through a host, without a server. Gives status and body.
pub async fn ask(host: &Host, model: &str, stream: bool) -> (u16, String) {
    let request = Request {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        query: String::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from(chat(model, stream)),
    };
    let answer = host.handle(request).await;
    let body = match answer.body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Stream(stream) => {
            stream
                .fold(Vec::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    all
                })
                .await
        }
    };
    (answer.status, String::from_utf8(body).unwrap())
}

/// A backend that answers every request with the same bytes and then keeps, or closes, the connection.
pub struct Backend {
    pub url: String,
    /// The requests, heads and bodies.
    pub requests: Arc<Mutex<Vec<String>>>,
    /// Connections that the other side has closed.
    pub closed: Arc<AtomicUsize>,
}

impl Backend {
    /// Answers with these bytes of HTTP.
    pub async fn new(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = Arc::from(answer.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicUsize::new(0));
        let (seen, gone) = (Arc::clone(&requests), Arc::clone(&closed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen, gone) = (Arc::clone(&answer), Arc::clone(&seen), Arc::clone(&gone));
                tokio::spawn(async move {
                    serve(stream, &answer, &seen).await;
                    gone.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Backend { url, requests, closed }
    }

    /// Answers with JSON.
    pub async fn json(body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        Self::new(head + body).await
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Serves one connection until the other side closes it.
async fn serve(mut stream: TcpStream, answer: &[u8], seen: &Mutex<Vec<String>>) {
    let mut read = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        while let Some(length) = message_length(&read) {
            let request: Vec<u8> = read.drain(..length).collect();
            seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
        }
    }
}

/// The length of the request, or the answer, at the front, if all of it is there.
pub fn message_length(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    (read.len() >= head + body).then_some(head + body)
}

/// One event of an OpenAI stream, as one chunk of HTTP/1.1.
pub fn sse_chunk(content: &str) -> String {
    let event = format!(
        "data: {}\n\n",
        serde_json::json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
            {"index": 0, "delta": {"content": content}, "finish_reason": null}
        ]})
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// The head of a streamed answer.
pub const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Waits until `true`, at most for [`PATIENCE`].
pub async fn until(what: &str, is: impl FnMut() -> bool) {
    within(PATIENCE, what, is).await;
}

/// Waits until `true`, at most for this long.
pub async fn within(limit: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
