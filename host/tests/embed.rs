//! What a program brings itself: adapters, policies, a state store, secrets, a client; and the gateway as a service.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use tower_service::Service;
use witgate_config::{AdapterRef, Config, Provider};
use witgate_host::model::policy::{Context, Decision, Filtered, Tag};
use witgate_host::model::*;
use witgate_host::state::{Charge, Expect, Memory, Once, Rule, State, StateError, Taken, Use};
use witgate_host::{
    BackendBody, BuildError, Builder, Host, HttpClient, NativeAdapter, NativePolicy, StateStore, TransportError,
    UpstreamRequest, UpstreamResponse, Warning,
};

use crate::kit::{ask, cache, chat};

/// Answers with the last text in capitals; with `panic` and `flood` as texts it does what they say.
struct Shout;

impl NativeAdapter for Shout {
    fn describe(&self) -> Description {
        Description {
            id: "shout".into(),
            version: "1.0.0".into(),
            operations: vec!["chat".into()],
            settings_schema: r#"{"properties": {"end": {"type": "string"}}, "additionalProperties": false}"#.into(),
            default_endpoint: Some("stub:".into()),
            ..Description::default()
        }
    }

    fn encode(&self, settings: &str, request: &Request) -> Result<HttpRequest, Error> {
        let Input::Chat(messages) = &request.input else {
            return Err(Error::no_operation("shout", &request.input));
        };
        let Some(Part::Text(text)) = messages.last().and_then(|message| message.parts.last()) else {
            return Err(Error::unsupported("messages", "only text can be shouted"));
        };
        let end = if settings.contains("!?") { "!?" } else { "!" };
        Ok(HttpRequest::post_json(&["shout"], format!("{}{end}", text.text.to_uppercase())))
    }

    fn decoder(&self, _: &str, _: Option<String>, _: ResponseHead) -> Box<dyn Decoder + Send> {
        Box::new(Heard(String::new()))
    }
}

struct Heard(String);

impl Decoder for Heard {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        for frame in frames {
            if let Frame::Bytes(bytes) = frame {
                self.0.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        match self.0.as_str() {
            "PANIC!" => panic!("as it was told"),
            "FLOOD!" => vec![Event::Started(Started::default()); 5_000],
            _ => Vec::new(),
        }
    }

    fn finish(&mut self) -> Vec<Event> {
        vec![
            Event::Started(Started::default()),
            Event::text_start(0, 0),
            Event::text(0, std::mem::take(&mut self.0)),
            Event::BlockStop(0),
            Event::finish(0, FinishReason::Stop, None),
            Event::Done,
        ]
    }
}

fn begin(toml: &str) -> Builder {
    Host::from_toml(toml).cache_dir(Some(cache()))
}

fn build(builder: Builder) -> Host {
    builder.build().unwrap_or_else(|error| panic!("{error}"))
}

fn problem(builder: Builder) -> String {
    match builder.build() {
        Err(BuildError::Config(problems)) => problems.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was built"),
    }
}

const SHOUT: &str = "[providers.loud]\nadapter = \"shout\"\n[models.\"*\"]\ntarget = \"loud\"\n";

fn saying(text: &str, stream: bool) -> Bytes {
    let body = serde_json::json!({
        "model": "any", "stream": stream, "messages": [{"role": "user", "content": text}],
    });
    Bytes::from(body.to_string())
}

async fn say(host: &Host, text: &str) -> (u16, String) {
    let request = witgate_host::Request {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        query: String::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: saying(text, false),
    };
    let answer = host.handle(request).await;
    let witgate_host::Body::Whole(body) = answer.body else { panic!("a stream") };
    (answer.status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_native_adapter_answers_as_a_component_does() {
    let host = build(begin(SHOUT).adapter("shout", Shout));
    let (status, body) = say(&host, "hello").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"HELLO!\""), "{body}");
    let (status, body) = ask(&host, "any", true).await;
    assert_eq!(status, 200);
    assert!(body.contains("HELLO!") && body.ends_with("data: [DONE]\n\n"), "{body}");
}

#[tokio::test]
async fn a_native_adapter_comes_before_a_built_in_one_and_gets_its_settings() {
    let toml = "[providers.stub]\nadapter = \"stub\"\nsettings.end = \"!?\"\n[models.\"*\"]\ntarget = \"stub\"\n";
    let host = build(begin(toml).adapter("stub", Shout));
    let (status, body) = say(&host, "hello").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"HELLO!?\""), "{body}");
    let wrong = problem(begin(&toml.replace("settings.end", "settings.start")).adapter("stub", Shout));
    assert!(wrong.contains("providers.stub.settings") && wrong.contains("start"), "{wrong}");
}

#[tokio::test]
async fn a_native_adapter_that_panics_or_floods_fails_its_own_request_and_is_named() {
    let warned = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&warned);
    let host = build(begin(SHOUT).adapter("shout", Shout).on_warning(move |warning| {
        if let Warning::Fault { fault, .. } = warning {
            seen.lock().unwrap().push(fault.to_string());
        }
    }));
    for (text, what) in [("panic", "panicked"), ("flood", "returned 5000 events")] {
        let (status, body) = say(&host, text).await;
        assert_eq!(status, 502, "{body}");
        assert!(body.contains("adapter \\\"shout\\\""), "{body}");
        let fault = warned.lock().unwrap().pop().unwrap();
        assert!(fault.starts_with("adapter \"shout\"") && fault.contains(what), "{fault}");
        assert_eq!(say(&host, "again").await.0, 200);
    }
}

#[test]
fn what_is_wrong_with_native_parts_is_said_where_it_is() {
    let unknown = problem(begin(SHOUT));
    assert!(unknown.contains("providers.loud.adapter: no adapter \"shout\""), "{unknown}");
    let near = problem(begin(SHOUT).adapter("shouts", Shout));
    assert!(near.contains("did you mean \"shouts\"?"), "{near}");
    let twice = problem(begin(&format!("{SHOUT}[adapters.shout]\npath = \"./shout.wasm\"")).adapter("shout", Shout));
    assert!(twice.contains("adapters.shout: this adapter is there twice"), "{twice}");
    struct Nameless;
    impl NativeAdapter for Nameless {
        fn describe(&self) -> Description {
            Description::default()
        }
        fn encode(&self, _: &str, _: &Request) -> Result<HttpRequest, Error> {
            Ok(HttpRequest::get(&[]))
        }
        fn decoder(&self, _: &str, _: Option<String>, _: ResponseHead) -> Box<dyn Decoder + Send> {
            Box::new(Heard(String::new()))
        }
    }
    let nameless = problem(begin(SHOUT).adapter("shout", Nameless));
    assert!(nameless.contains("adapter \"shout\" describes itself wrongly: its id is \"\""), "{nameless}");
    // A configuration that was made by hand names what nobody brings.
    let mut config = Config::builtin();
    config.providers.insert("loud".into(), Provider::new("loud", AdapterRef::Native("shout".into())));
    let absent = problem(Host::builder(config).cache_dir(Some(cache())));
    assert!(absent.contains("providers.loud.adapter: the program brings no adapter \"shout\""), "{absent}");
    let file = Host::from_file("/nowhere/witgate.toml").build().err().unwrap().to_string();
    assert!(file.starts_with("cannot read the configuration /nowhere/witgate.toml: "), "{file}");
}

/// Refuses what names a word, tags the rest, and takes the vowels out of answers.
struct House {
    word: &'static str,
}

impl NativePolicy for House {
    fn on_request(&self, _: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
        let Input::Chat(messages) = &request.input else { return Ok(Decision::default()) };
        let names = |part: &Part| matches!(part, Part::Text(text) if text.text.contains(self.word));
        if messages.iter().flat_map(|message| &message.parts).any(names) {
            return Err(Error::invalid("messages", "the house does not like that word"));
        }
        let tags = vec![Tag { name: "house".into(), value: "ok".into() }];
        Ok(Decision { tags, watch: Some("AEIOU".into()), ..Decision::default() })
    }

    fn watcher(&self, _: &str, note: String) -> Box<dyn Watcher + Send> {
        Box::new(Without(note))
    }
}

struct Without(String);

impl Watcher for Without {
    fn feed(&mut self, mut events: Vec<Event>) -> Filtered {
        for event in &mut events {
            if let Event::Text(delta) = event {
                delta.text.retain(|c| !self.0.contains(c));
            }
        }
        Filtered { events, held: 0 }
    }
}

#[tokio::test]
async fn a_native_policy_refuses_tags_and_watches() {
    let records = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&records);
    let toml = format!("[server]\npolicies = [\"house\"]\n{SHOUT}");
    let host = build(
        begin(&toml)
            .adapter("shout", Shout)
            .policy("house", House { word: "fnord" })
            .on_record(move |record| seen.lock().unwrap().push(record.clone())),
    );
    let (status, body) = say(&host, "a fnord").await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("the house does not like that word"), "{body}");
    let (status, body) = say(&host, "hello").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"HLL!\""), "{body}");
    let records = records.lock().unwrap();
    assert_eq!(records.last().unwrap().tags, [("house".to_owned(), "ok".to_owned())]);
    // Settings that it does not take, a policy that is not there.
    let toml = format!("{toml}[policies.house]\nsettings.word = \"x\"\n");
    let wrong = problem(begin(&toml).adapter("shout", Shout).policy("house", House { word: "x" }));
    assert!(wrong.contains("policies.house.settings"), "{wrong}");
    let absent = problem(
        begin(&format!("[server]\npolicies = [\"hose\"]\n{SHOUT}"))
            .adapter("shout", Shout)
            .policy("house", House { word: "x" }),
    );
    assert!(absent.contains("no policy \"hose\"") && absent.contains("did you mean \"house\"?"), "{absent}");
}

/// Memory that counts what is asked of it, and can be broken.
#[derive(Default)]
struct Counted {
    memory: Memory,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Counted {
    fn ask(&self) -> Result<&Memory, StateError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.broken.load(Ordering::Relaxed) {
            true => Err(StateError("it is broken".into())),
            false => Ok(&self.memory),
        }
    }
}

impl StateStore for Counted {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        self.ask()?.get(now, key).await
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        self.ask()?.set(now, key, value, expires, expect).await
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.ask()?.list(now, prefix, after, limit).await
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.ask()?.take(now, id, lease, charges).await
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.ask()?.settle(now, id, taken, uses, once).await
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.ask()?.used(now, meters).await
    }
}

#[tokio::test]
async fn limits_are_counted_in_a_store_of_the_programs_own() {
    let store = Counted::default();
    let (asked, broken) = (Arc::clone(&store.asked), Arc::clone(&store.broken));
    let toml =
        format!("[keys.a]\nsecret = \"sk-a-secret-of-some-length\"\nquota = {{ requests_per_minute = 1 }}\n{SHOUT}");
    let host = build(begin(&toml).adapter("shout", Shout).state(store));
    host.check_state().await.unwrap();
    let request = || witgate_host::Request {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        query: String::new(),
        headers: vec![
            ("content-type".into(), "application/json".into()),
            ("authorization".into(), "Bearer sk-a-secret-of-some-length".into()),
        ],
        body: saying("hello", false),
    };
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(host.handle(request()).await.status, 200);
    assert!(asked.load(Ordering::Relaxed) > before);
    assert_eq!(host.handle(request()).await.status, 429);
    broken.store(true, Ordering::Relaxed);
    let problem = host.check_state().await.unwrap_err().to_string();
    assert!(problem.contains("it is broken"), "{problem}");
}

/// A backend in the program itself, which notes what it was asked.
struct Inside {
    asked: Arc<Mutex<Vec<UpstreamRequest>>>,
    dropped: Arc<AtomicBool>,
}

struct SaysWhenDropped(Arc<AtomicBool>);

impl Drop for SaysWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl HttpClient for Inside {
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<BackendBody>, TransportError> {
        let stream = request.body.windows(13).any(|w| w == b"\"stream\":true");
        self.asked.lock().unwrap().push(request);
        if !stream {
            return Err(TransportError::Connect("nobody is there".into()));
        }
        let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
        let first = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"from inside\"}}]}\n\n";
        let guard = SaysWhenDropped(Arc::clone(&self.dropped));
        let pieces = stream::iter([Ok(Bytes::new()), Ok(Bytes::from_static(first))]).chain(stream::pending());
        let body = BackendBody::stream(pieces.map(move |piece| {
            let _ = &guard;
            piece
        }));
        Ok(UpstreamResponse { status: 200, headers, body })
    }
}

#[tokio::test]
async fn a_client_of_the_programs_own_gets_what_is_signed_with_its_secrets_and_is_cancelled() {
    let (asked, dropped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let toml = "[providers.far]\nadapter = \"openai\"\nendpoint = \"http://far.invalid/v1\"\napi_key = \"${FAR_KEY}\"\n\
                retry.attempts = 1\n[models.\"*\"]\ntarget = \"far/m\"\n";
    let without = problem(begin(toml).secrets(|_| None));
    assert!(without.contains("FAR_KEY is not set"), "{without}");
    let host = build(
        begin(toml)
            .secrets(|name| (name == "FAR_KEY").then(|| "sk-far".to_owned()))
            .http_client(Inside { asked: Arc::clone(&asked), dropped: Arc::clone(&dropped) }),
    );
    let (status, _) = ask(&host, "any", false).await;
    assert_eq!(status, 502);
    let mut service = host.service();
    let answer = service.call(post(chat("any", true))).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&piece).contains("from inside"));
    assert!(!dropped.load(Ordering::Relaxed));
    drop(body);
    assert!(dropped.load(Ordering::Relaxed));
    let asked = asked.lock().unwrap();
    let last = asked.last().unwrap();
    assert_eq!(last.url, "http://far.invalid/v1/chat/completions");
    assert!(last.headers.contains(&("authorization".into(), "Bearer sk-far".into())));
}

fn post(body: impl Into<Bytes>) -> http::Request<Full<Bytes>> {
    http::Request::post("/v1/chat/completions?x=1")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

#[tokio::test]
async fn a_service_is_bounded_and_drained_as_the_own_server_is() {
    let toml = format!("[limits]\nmax_body_bytes = \"1KiB\"\n{SHOUT}");
    let host = build(begin(&toml).adapter("shout", Shout));
    let mut service = host.service();
    let mut other = service.clone();
    let whole = other.call(post(saying("hello", false))).await.unwrap();
    assert_eq!(whole.status(), 200);
    let body = whole.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("HELLO!"));
    let large = service.call(post(saying(&"a".repeat(2_000), false))).await.unwrap();
    assert_eq!(large.status(), 413);
    // A body that is neither `Bytes` nor of one piece, and that breaks off.
    let pieces =
        saying("in pieces", false).chunks(7).map(|piece| Ok(piece.to_vec())).collect::<Vec<Result<_, String>>>();
    let request = |pieces: Vec<Result<Vec<u8>, String>>| {
        let frames =
            pieces.into_iter().map(|piece| piece.map(|piece| http_body::Frame::data(std::io::Cursor::new(piece))));
        let body = http_body_util::StreamBody::new(stream::iter(frames));
        http::Request::post("/v1/chat/completions").header("content-type", "application/json").body(body).unwrap()
    };
    let mut broken = pieces.clone();
    let answer = service.call(request(pieces)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("IN PIECES!"));
    broken[2] = Err("cut".into());
    assert_eq!(service.call(request(broken)).await.unwrap().status(), 408);
    assert_eq!(host.in_flight(), 0);
    let ready = |service: &mut witgate_host::Service| {
        service.call(http::Request::get("/ready").body(Full::new(Bytes::new())).unwrap())
    };
    assert_eq!(ready(&mut service).await.unwrap().status(), 200);
    host.drain();
    assert_eq!(ready(&mut service).await.unwrap().status(), 503);
}
