//! The server over real sockets: what it serves and refuses, clients that leave, an orderly end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::kit::{self, Backend, PATIENCE, chat, until, within};

/// A server that runs until it is told to end.
struct Running {
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<usize>,
}

async fn serve(toml: &str) -> Running {
    serve_with("60s", toml).await
}

async fn serve_with(shutdown_timeout: &str, toml: &str) -> Running {
    let server = format!("[server]\nlisten = \"127.0.0.1:0\"\nshutdown_timeout = \"{shutdown_timeout}\"\n");
    let host = kit::host(&(server + toml));
    let server = host.bind().await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let _host = host;
        server
            .serve(async {
                let _ = stopped.await;
            })
            .await
    });
    Running { address, stop: Some(stop), task }
}

fn local(url: &str) -> String {
    format!("[providers.local]\nadapter = \"llama-cpp\"\nendpoint = \"{url}\"\n")
}

const STUB: &str = "[providers.stub]\nadapter = \"stub\"\n";

impl Running {
    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// One exchange on a connection of its own, read to its end.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
    }

    fn end(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }
}

fn post(body: &str, more: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "ended before {text:?}: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..n]);
        let all = String::from_utf8_lossy(&read).into_owned();
        if all.contains(text) {
            return all;
        }
    }
}

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let running = serve(STUB).await;
    let mut stream = running.connect().await;
    for _ in 0..3 {
        stream.write_all(post(&chat("stub/m", false), "").as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "\"usage\"").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-length: "), "{answer}");
        assert!(answer.contains("[stub] Hello"), "{answer}");
    }
    stream.write_all(post(&chat("stub/m", true), "").as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "data: [DONE]\n\n").await;
    assert!(answer.contains("content-type: text/event-stream"), "{answer}");
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
}

#[tokio::test]
async fn http_2_is_served_on_the_same_port() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let running = serve(STUB).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(format!("http://{}/v1/chat/completions", running.address))
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(chat("stub/m", true))))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"), "{body:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_client_gets_to_read_why() {
    let running = serve(&format!("{STUB}[limits]\nmax_body_bytes = \"100KiB\"\n")).await;
    // Announced, and more than the sockets' buffers hold: the client is still sending when it is refused.
    let body = "x".repeat(8 * 1024 * 1024);
    let answer = running.exchange(post(&body, "connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("limits.max_body_bytes"), "{answer}");
    // Not announced: chunks.
    let mut chunked =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", 10_000, "y".repeat(10_000)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = running.exchange(&chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // A body at the limit is read.
    let answer = running.exchange(post(&" ".repeat(100 * 1024), "connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let running = serve(&format!("{STUB}[limits]\nmax_header_bytes = \"16KiB\"\n")).await;
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(20_000));
    let answer = running.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = running.exchange(b"nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(running.get("/health").await.starts_with("HTTP/1.1 200 "));
}

/// Invariant 8, on this runtime.
async fn leaving_cancels(answer: String, stream: bool, wait_for: Option<&str>) {
    let backend = Backend::new(answer).await;
    let running = serve(&local(&backend.url)).await;
    let mut client = running.connect().await;
    client.write_all(post(&chat("local/m", stream), "").as_bytes()).await.unwrap();
    match wait_for {
        Some(text) => drop(read_until(&mut client, text).await),
        None => until("the backend has the request", || !backend.requests().is_empty()).await,
    }
    assert_eq!(backend.closed.load(Ordering::SeqCst), 0);
    drop(client);
    // Long before the keep-alive comment after 15 s, with which it would be noticed anyhow.
    let closed = || backend.closed.load(Ordering::SeqCst) == 1;
    within(Duration::from_secs(8), "the backend's connection is closed", closed).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_cancels_the_backends_request() {
    leaving_cancels(String::new(), true, None).await;
    leaving_cancels(String::new(), false, None).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_cancels_the_backends_request() {
    leaving_cancels(kit::SSE_HEAD.to_owned(), true, None).await;
}

#[tokio::test]
async fn a_client_that_leaves_between_tokens_cancels_the_backends_request() {
    let answer = kit::SSE_HEAD.to_owned() + &kit::sse_chunk("Once ") + &kit::sse_chunk("upon");
    leaving_cancels(answer, true, Some("upon")).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_whole_answer_half_way_cancels_the_backends_request() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"id\": ".to_owned();
    leaving_cancels(answer, false, None).await;
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_told_from_one_that_does_not_answer() {
    // A port on which nobody listens, and which nobody else gets.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let running = serve(&local(&format!("http://{}", closed.local_addr().unwrap()))).await;
    let answer = running.exchange(post(&chat("local/m", false), "connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("connection_failed"), "{answer}");

    // A listener whose queue is full: connecting takes for ever.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let running = serve(&format!("{}timeouts.connect = \"200ms\"\n", local(&format!("http://{address}")))).await;
    let begun = Instant::now();
    let answer = running.exchange(post(&chat("local/m", false), "connection: close\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("connect_timeout"), "{answer}");
    // By the setting, and not by its default of 5 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_to_a_backend_are_used_again() {
    let backend = Backend::json(
        r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#,
    )
    .await;
    let running = serve(&local(&backend.url)).await;
    for _ in 0..10 {
        let answer = running.exchange(post(&chat("local/m", false), "connection: close\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(backend.requests().len(), 10);
    // Connections would close with the requests that they were made for.
    assert_eq!(backend.closed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_idle_server_ends_at_once() {
    // One that waits for its idle connections takes a second each time; a busy machine may be late now and then.
    let mut took = Duration::MAX;
    for _ in 0..10 {
        let mut running = serve(STUB).await;
        let mut kept = running.connect().await;
        kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_until(&mut kept, "ok").await;
        let begun = Instant::now();
        running.end();
        assert_eq!(running.task.await.unwrap(), 0);
        took = begun.elapsed();
        assert!(TcpStream::connect(running.address).await.is_err());
        if took < Duration::from_millis(500) {
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_end_and_tells_not_ready() {
    let backend = Backend::new(kit::SSE_HEAD.to_owned() + &kit::sse_chunk("Once ")).await;
    let mut running = serve(&(local(&backend.url) + STUB)).await;
    assert!(running.get("/ready").await.starts_with("HTTP/1.1 200 "));
    let mut client = running.connect().await;
    client.write_all(post(&chat("local/m", true), "").as_bytes()).await.unwrap();
    read_until(&mut client, "Once ").await;
    running.end();
    let begun = Instant::now();
    let ready = loop {
        let ready = running.get("/ready").await;
        if !ready.starts_with("HTTP/1.1 200 ") || begun.elapsed() > PATIENCE {
            break ready;
        }
    };
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("draining"), "{ready}");
    // Requests of clients that do not know yet are served, and their connections closed.
    let answer = running.exchange(post(&chat("stub/m", false), "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert!(!running.task.is_finished());
    // The stream's end is the server's.
    drop(client);
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), running.task).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_does_not_end_in_time() {
    let backend = Backend::new(kit::SSE_HEAD.to_owned() + &kit::sse_chunk("Once ")).await;
    let mut running = serve_with("2s", &local(&backend.url)).await;
    let mut client = running.connect().await;
    client.write_all(post(&chat("local/m", true), "").as_bytes()).await.unwrap();
    read_until(&mut client, "Once ").await;
    let begun = Instant::now();
    running.end();
    assert_eq!(running.task.await.unwrap(), 1);
    // By the setting, and not by its default of 30 s.
    assert!((1900..20_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}
