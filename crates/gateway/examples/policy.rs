//! What policy costs a request: routing, key check, limits, budget, spend. `cargo run --release -p witgate-gateway --example policy`.
//!
//! The whole path runs natively on one thread against a stub that answers at once, with state in memory: first as an open
//! server that is asked for a provider's model by name, then with routing, then with more and more policy, and with more and
//! more keys, used in turn. A row's policy is what it takes longer than the first, by the least of rounds in which all rows
//! are measured one after another. What is settled after a request is counted in. Times are the processor's, where the
//! system tells them, so that they depend little on what else runs; requests a second are those of one thread.
//!
//! With a text behind it, as `-- 'three limits'`, only the first row and those whose names have that text are measured, for
//! a profiler.
#![allow(clippy::print_stdout, clippy::expect_used)]

#[path = "../tests/native.rs"]
mod native;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use native::NativeNormaliser;
use witgate_adapters::Stub;
use witgate_config::Config;
use witgate_gateway::{
    Adapter, Body, Credentials, Document, DocumentRef, Fault, Gateway, Ports, Record, Request, TransportError,
    UpstreamBody, UpstreamRequest, UpstreamResponse, Warning, Work, state,
};
use witgate_model::policy::{Context, Decision, Filtered};
use witgate_model::{Adapter as _, Decoder, Description, Error, Event, Frame, HttpRequest, ResponseHead};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Native {
    state: state::Memory,
    start: Instant,
}

struct Stubbed(Option<<Stub as witgate_model::Adapter>::Decoder>);

static STUB: LazyLock<Description> = LazyLock::new(Stub::describe);

impl Adapter for Stubbed {
    fn description(&self) -> &Description {
        &STUB
    }
    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault> {
        Ok(Stub::probe(settings))
    }
    fn encode(
        &mut self,
        settings: &str,
        request: &Arc<witgate_model::Request>,
    ) -> Result<Result<HttpRequest, Error>, Fault> {
        Ok(Stub::encode(settings, witgate_model::Request::clone(request)))
    }
    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault> {
        self.0 = Some(Stub::decoder(settings, context, head));
        Ok(())
    }
    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault> {
        Ok(self.0.as_mut().expect("start comes first").feed(frames))
    }
    fn finish(&mut self) -> Result<Vec<Event>, Fault> {
        Ok(self.0.as_mut().expect("start comes first").finish())
    }
}

struct Whole(Option<Bytes>);

impl UpstreamBody for Whole {
    async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        self.0.take().map(Ok)
    }
}

/// No policy component is configured.
enum Nobody {}

impl witgate_gateway::Policy for Nobody {
    fn on_request(
        &mut self,
        _: &Arc<str>,
        _: &Context,
        _: &Arc<witgate_model::Request>,
    ) -> Result<Result<Decision, Error>, Fault> {
        match *self {}
    }
    fn start(&mut self, _: &Arc<str>, _: String) -> Result<(), Fault> {
        match *self {}
    }
    fn feed(&mut self, _: Vec<Event>) -> Result<Filtered, Fault> {
        match *self {}
    }
}

impl Ports for Native {
    type Normaliser = NativeNormaliser;
    type Adapter = Stubbed;
    type Policy = Nobody;
    type Body = Whole;
    type State = state::Memory;

    fn normaliser(&self) -> Result<NativeNormaliser, Fault> {
        Ok(NativeNormaliser::default())
    }
    fn adapter(&self, _: &str) -> Result<Stubbed, Fault> {
        Ok(Stubbed(None))
    }
    fn policy(&self, name: &str) -> Result<Nobody, Fault> {
        Err(Fault { component: format!("policy \"{name}\""), what: "is not loaded".to_owned() })
    }
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<Whole>, TransportError> {
        let headers = request.headers.into_iter().filter(|(name, _)| name == "content-type").collect();
        Ok(UpstreamResponse { status: 200, headers, body: Whole(Some(request.body)) })
    }
    async fn credentials(&self, _: &str) -> Result<Credentials, String> {
        Err("none".to_owned())
    }
    async fn document(&self, _: &DocumentRef) -> Result<Option<String>, String> {
        Ok(None)
    }
    async fn keep(&self, _: Document) -> Result<(), String> {
        Ok(())
    }
    fn state(&self) -> &state::Memory {
        &self.state
    }
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
    async fn sleep_until(&self, _: Duration) {
        std::future::pending().await
    }
    fn random(&self) -> u128 {
        use std::hash::{BuildHasher, RandomState};
        let half = || u128::from(RandomState::new().hash_one(1));
        half() << 64 | half()
    }
    fn secret(&self) -> Result<[u8; 32], String> {
        let mut bytes = [0; 32];
        bytes.chunks_mut(16).for_each(|half| half.copy_from_slice(&self.random().to_le_bytes()));
        Ok(bytes)
    }
    fn after(self: &Arc<Self>, work: Work) {
        work.run(self.as_ref()).now_or_never().expect("state in memory needs no waiting");
    }
    fn record(&self, _: &Record) {}
    fn warn(&self, warning: &Warning<'_>) {
        println!("{warning:?}");
    }
}

/// One server, and the keys that its clients bring.
struct Row {
    name: String,
    gateway: Arc<Gateway>,
    ports: Arc<Native>,
    /// What it is asked.
    body: Bytes,
    keys: Vec<String>,
    next: usize,
    times: Vec<f64>,
}

const BASE: &str = "[providers.a]\nadapter = \"stub\"\nendpoint = \"stub:\"\n[providers.b]\nadapter = \"stub\"\nendpoint \
                    = \"stub:\"\n[models.m]\ntargets = [\"a/x\", \"b/x\"]\n[prices.x]\ninput = 1\noutput = 4\n[accounting]\nkey_ttl = \"1h\"\n";

impl Row {
    fn new(name: impl Into<String>, config: &str, keys: usize, terms: &str) -> Self {
        let config = Config::from_toml(&format!("{BASE}{config}"), "policy.toml", &|_| None).expect("a configuration");
        let gateway = Arc::new(Gateway::new(Arc::new(config), witgate_dialects::routes().to_vec()));
        let ports = Arc::new(Native { state: state::Memory::default(), start: Instant::now() });
        let mut row =
            Row { name: name.into(), gateway, ports, body: body("m"), keys: Vec::new(), next: 0, times: Vec::new() };
        for number in 0..keys {
            let body = format!("{{\"name\": \"k{number}\", \"tenant\": \"t\"{terms}}}");
            let (status, answer) = row.send("/admin/keys", Some("root"), Bytes::from(body));
            let json: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
            assert_eq!(status, 201, "{json}");
            row.keys.push(json["key"].as_str().expect("a secret").to_owned());
        }
        row
    }

    fn send(&self, path: &str, key: Option<&str>, body: Bytes) -> (u16, Bytes) {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(key.map(|key| ("authorization".to_owned(), format!("Bearer {key}"))));
        let request = Request { method: "POST".into(), path: path.into(), query: String::new(), headers, body };
        let answered = async {
            let response = self.gateway.handle(&self.ports, request).await;
            let body = match response.body {
                Body::Whole(bytes) => bytes,
                Body::Stream(stream) => Bytes::from(stream.collect::<Vec<_>>().await.concat()),
            };
            (response.status, body)
        };
        answered.now_or_never().expect("nothing waits")
    }

    /// Microseconds for a request.
    fn round(&mut self, requests: usize) {
        let start = seconds();
        for _ in 0..requests {
            let key = self.keys.get(self.next).map(String::as_str);
            let (status, answer) = self.send("/v1/chat/completions", key, self.body.clone());
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
            self.next = (self.next + 1) % self.keys.len().max(1);
        }
        self.times.push((seconds() - start) * 1e6 / requests as f64);
    }

    /// Of its rounds: what else runs on the machine only ever adds.
    fn least(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// A chat of 1 KB with a model.
fn body(model: &str) -> Bytes {
    let text = "word ".repeat(200);
    let body = serde_json::json!({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": text}]});
    Bytes::from(body.to_string())
}

/// The processor's time for this thread; elsewhere than on Linux the wall's.
fn seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    let wall = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    nanos.map_or_else(wall, |nanos| nanos / 1e9)
}

fn main() {
    let admin = "[admin]\nkey = \"root\"\n";
    let tenant = "[tenants.t]\nquota.requests_per_minute = 4000000000\nbudget.month = 1000000\n";
    let quota = ", \"quota\": {\"requests_per_minute\": 4000000000, \"tokens_per_minute\": 4000000000, \
                 \"concurrent_requests\": 1000}";
    let all = format!("{quota}, \"budget\": {{\"day\": 1000000, \"month\": 1000000}}");
    let full = format!("{admin}{tenant}");
    let mut configured = Row::new("a key of the configuration", "[keys.k]\nsecret = \"sk-k\"", 0, "");
    configured.keys.push("sk-k".to_owned());
    let mut direct = Row::new("open, a provider's model by its name", "", 0, "");
    direct.body = body("a/x");
    let mut rows = vec![
        direct,
        Row::new("open, routed over two targets", "", 0, ""),
        configured,
        Row::new("a key of the store, and spend", admin, 1, ""),
        Row::new("and three limits", admin, 1, quota),
    ];
    for keys in [1, 100, 10_000] {
        rows.push(Row::new(format!("and two budgets, and a tenant's two meters: {keys} keys"), &full, keys, &all));
    }
    if let Some(text) = std::env::args().nth(1) {
        let first = rows.remove(0);
        rows.retain(|row| row.name.contains(&text));
        rows.insert(0, first);
    }
    // Every key once, so that all are known.
    rows.iter_mut().for_each(|row| row.round(row.keys.len().max(2_000)));
    rows.iter_mut().for_each(|row| row.times.clear());
    for _ in 0..12 {
        rows.iter_mut().for_each(|row| row.round(40_000));
    }
    let plain = rows[0].least();
    println!("| | µs for a request | of it policy | requests a second |\n|---|--:|--:|--:|");
    for row in &rows {
        let time = row.least();
        println!("| {} | {time:.1} | {:.2} | {:.0} |", row.name, time - plain, 1e6 / time);
    }
}
