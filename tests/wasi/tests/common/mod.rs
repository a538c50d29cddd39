//! What the tests share: the composed component, a client and a backend that does as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wasmtime::Engine;
use wasmtime::component::Component;
use witgate_wasi_serve::{Log, Options, Served, compile, engine, root, serve};

/// Longer than anything here takes; what waits so long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// The repository's `spin.toml`.
pub fn manifest() -> String {
    std::fs::read_to_string(root().join("spin.toml")).expect("read spin.toml")
}

fn one_engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine(None).expect("make an engine"))
}

/// Composes and compiles what a manifest describes.
pub fn component(manifest: &str) -> Component {
    let composed = xtask::compose::compose(manifest, &root()).expect("compose (`cargo xtask components` first)");
    compile(one_engine(), &composed.bytes).expect("compile")
}

/// Composes the gateway with these adapters and policies of `target/components`, by their slots: each a slot and a file. It
/// imports nothing of Spin's. A configuration calls an adapter as its slot is called, and a policy `SLOT.wasm`.
pub fn composed(adapters: &[(&str, &str)], policies: &[(&str, &str)]) -> Component {
    use witgate_compose::{ADAPTER_SLOTS, CHAT, DIALECTS, HOOKS, KEY_VALUE, POLICY_SLOTS, Part, VARIABLES};
    let file = |name: &str| witgate_wasi_serve::read(&root().join("target/components").join(name)).expect("read");
    let part = |name: &str, slot: &str, export: &str| Part {
        name: name.to_owned(),
        wasm: file(name).into(),
        fills: vec![(slot.to_owned(), export.to_owned())],
    };
    let mut parts = vec![part("normaliser.wasm", DIALECTS, DIALECTS)];
    parts.extend(adapters.iter().map(|(slot, name)| part(name, slot, CHAT)));
    parts.extend(policies.iter().map(|(slot, name)| part(name, slot, HOOKS)));
    let empty = |slots: &[(&'static str, &str)], used: &[(&str, &str)], export: &'static str| {
        let free = |slot: &&str| !used.iter().any(|(used, _)| used == slot);
        slots.iter().map(|(slot, _)| *slot).filter(free).map(|slot| (slot, export)).collect::<Vec<_>>()
    };
    let mut absent = empty(ADAPTER_SLOTS, adapters, CHAT);
    absent.extend(empty(POLICY_SLOTS, policies, HOOKS));
    absent.extend([KEY_VALUE[0], KEY_VALUE[1], VARIABLES].map(|import| (import, import)));
    let fills = absent.into_iter().map(|(import, export)| (import.to_owned(), export.to_owned())).collect();
    parts.push(Part { name: "absent.wasm".to_owned(), wasm: file("absent.wasm").into(), fills });
    let names = |used: &[(&str, &str)], end: &str| -> Vec<_> {
        used.iter().map(|(slot, _)| (format!("{slot}{end}"), (*slot).to_owned())).collect()
    };
    parts.push(witgate_compose::composition("", &names(adapters, ""), &names(policies, ".wasm")));
    let composed = witgate_compose::compose(&file("gateway.wasm"), &parts).expect("compose");
    compile(one_engine(), &composed.bytes).expect("compile")
}

/// The application of the repository's `spin.toml`.
pub fn witgate() -> &'static Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| component(&manifest()))
}

/// A gateway that is being served, and its log.
pub struct Gateway {
    pub served: Served,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Gateway {
    pub async fn start(component: &Component, options: Options) -> Self {
        let log = Arc::default();
        let options = Options { log: Log::Memory(Arc::clone(&log)), ..options };
        Gateway { served: serve(component, options).await.expect("serve"), log }
    }

    /// With this configuration.
    pub async fn with(config: &str) -> Self {
        Self::start(witgate(), Options { config: Some(config.to_owned()), ..Options::default() }).await
    }

    /// With a llama.cpp server at this address, and these lines in front of it.
    pub async fn over(backend: SocketAddr, more: &str) -> Self {
        Self::with(&format!(
            "{more}\n[providers.local]\nadapter = \"llama-cpp\"\nendpoint = \"http://{backend}\"\n\
             [models.\"*\"]\ntarget = \"local\"\n"
        ))
        .await
    }

    pub fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("a log in UTF-8")
    }

    /// Waits for a line of the log that holds `text`.
    pub async fn logged(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(start.elapsed() < LONG, "no {text} in the log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn chat(&self, stream: bool) -> Client {
        let body =
            format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hello there"}}]}}"#);
        self.post("/v1/chat/completions", &body).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Client {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Client::connect(self.served.address, &(head + body)).await
    }

    pub async fn get(&self, path: &str) -> Client {
        Client::connect(self.served.address, &format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n")).await
    }
}

/// One connection to the gateway. Dropping it is a client that leaves.
pub struct Client {
    pub stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr, request: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connect to the gateway");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.write_all(request.as_bytes()).await.expect("send the request");
        Client { stream, seen: Vec::new() }
    }

    /// All that came so far, once `text` is in it.
    pub async fn until(&mut self, text: &str) -> String {
        let read = async {
            loop {
                let seen = String::from_utf8_lossy(&self.seen).into_owned();
                if seen.contains(text) {
                    return seen;
                }
                let count = self.stream.read_buf(&mut self.seen).await.expect("read the answer");
                assert!(count > 0, "the answer ended before {text:?}: {}", String::from_utf8_lossy(&self.seen));
            }
        };
        match tokio::time::timeout(LONG, read).await {
            Ok(seen) => seen,
            Err(_) => panic!("no {text:?} within {LONG:?}: {}", String::from_utf8_lossy(&self.seen)),
        }
    }

    /// The status, the headers and the body of an answer with a length.
    pub async fn whole(&mut self) -> (u16, String, String) {
        let head = self.until("\r\n\r\n").await;
        let (head, _) = head.split_once("\r\n\r\n").expect("a head");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        while self.seen.len() < head.len() + 4 + length {
            let read = tokio::time::timeout(LONG, self.stream.read_buf(&mut self.seen)).await;
            assert!(read.expect("the body in time").expect("read the body") > 0, "the body ended early");
        }
        let status = head[9..12].parse().expect("a status");
        (status, head.to_owned(), String::from_utf8_lossy(&self.seen[head.len() + 4..]).into_owned())
    }

    /// The members of a JSON answer.
    pub async fn json(&mut self) -> (u16, serde_json::Value) {
        let (status, _, body) = self.whole().await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }
}

/// A backend that gives its connections to the test.
pub struct Backend {
    pub address: SocketAddr,
    connections: mpsc::UnboundedReceiver<Connection>,
}

/// A connection to the backend, its request read.
pub struct Connection {
    pub request: String,
    stream: TcpStream,
}

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address");
        let (sender, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Some(connection) = Connection::read(stream).await {
                        let _ = sender.send(connection);
                    }
                });
            }
        });
        Backend { address, connections }
    }

    /// The next request.
    pub async fn request(&mut self) -> Connection {
        let next = tokio::time::timeout(LONG, self.connections.recv()).await;
        next.expect("a request in time").expect("a request")
    }
}

impl Connection {
    async fn read(mut stream: TcpStream) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        let mut seen = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.to_ascii_lowercase();
                let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
                if body.len() >= length {
                    return Some(Connection { request: text, stream });
                }
            }
            if stream.read_buf(&mut seen).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Begins an answer of server-sent events.
    pub async fn begin(&mut self) {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    }

    /// Sends one token.
    pub async fn token(&mut self, text: &str) {
        let choice = format!(r#"{{"index":0,"finish_reason":null,"delta":{{"content":"{text}"}}}}"#);
        self.event(&format!(
            r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{choice}]}}"#
        ))
        .await;
    }

    /// Ends the answer.
    pub async fn end(&mut self) {
        self.event(
            r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","delta":{}}]}"#,
        )
        .await;
        self.event("[DONE]").await;
        self.send("0\r\n\r\n").await;
    }

    async fn event(&mut self, data: &str) {
        let event = format!("data: {data}\n\n");
        self.send(&format!("{:x}\r\n{event}\r\n", event.len())).await;
    }

    /// Answers with a whole completion.
    pub async fn whole(&mut self, text: &str) {
        let body = format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"{text}"}}}}]}}"#
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        self.send(&format!("{head}{}\r\n\r\n{body}", body.len())).await;
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("send the answer");
    }

    /// Waits until the gateway has left.
    pub async fn left(&mut self) {
        let mut rest = [0; 64];
        let read = async { while self.stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        assert!(tokio::time::timeout(LONG, read).await.is_ok(), "the gateway stays with its backend");
    }

    /// Whether the gateway has not left for this long.
    pub async fn stays(&mut self, time: Duration) -> bool {
        let mut rest = [0; 64];
        tokio::time::timeout(time, self.stream.read(&mut rest)).await.is_err()
    }
}

/// Composes the application with an adapter of `examples` in the slot custom, and asks a backend through it.
pub async fn answers_in_capitals(file: &str) {
    let ours = "custom = { path = \"target/components/adapter-stub.wasm\"";
    let changed = manifest().replace(ours, &format!("custom = {{ path = \"target/components/{file}\""));
    assert_ne!(changed, manifest(), "spin.toml has no line {ours}");
    let component = component(&changed);
    let mut backend = Backend::start().await;
    let config = format!(
        "[providers.loud]\nadapter = \"{file}\"\nendpoint = \"http://{}\"\n[models.\"*\"]\ntarget = \"loud\"\n",
        backend.address
    );
    let gateway = Gateway::start(&component, Options { config: Some(config), ..Options::default() }).await;
    // Each request holds an instance that others have used.
    for _ in 0..2 {
        let mut client = gateway.chat(false).await;
        backend.request().await.whole("quiet words").await;
        let (status, answer) = client.json().await;
        assert_eq!((status, answer["choices"][0]["message"]["content"].as_str()), (200, Some("QUIET WORDS")));
    }
}
