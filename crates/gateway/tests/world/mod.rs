//! A simulated world: a clock that jumps to the next timer, an upstream that plays scripts, clients that may leave. One
//! seed decides everything.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../native.rs"]
mod native;
mod store;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi, Stub};
use witgate_config::Config;
use witgate_gateway::state::{Charge, Expect, Memory, Once, Rule, StateError, Taken, Use};
use witgate_gateway::{
    Adapter, Body, Credentials, Fault, Gateway, Ports, Record, Request, TransportError, UpstreamBody, UpstreamRequest,
    UpstreamResponse, Warning, Work,
};
use witgate_model::normaliser::{Document, DocumentRef};
use witgate_model::policy::{Context as Context_, Decision, Filtered};
use witgate_model::{Description, Error, Event, Frame, HttpRequest, ResponseHead};

pub use native::NativeNormaliser;
pub use store::SimStore;

/// Two providers; `chain` tries both; `first/…` and `patient/…` are direct.
pub fn config() -> Config {
    config_with_keep_alive("2s")
}

pub fn config_with_keep_alive(keep_alive: &str) -> Config {
    let text = r#"
        [server]
        api_keys = ["test-key"]
        keep_alive = "KEEP_ALIVE"
        [limits]
        max_body_bytes = "64KiB"
        max_concurrent_requests = 2
        [timeouts]
        connect = "1s"
        first_token = "10s"
        idle = "5s"
        total = "60s"
        [providers.first]
        adapter = "openai"
        endpoint = "http://first/v1"
        [providers.second]
        adapter = "openai"
        endpoint = "http://second/v1"
        [providers.patient]
        adapter = "openai"
        endpoint = "http://patient/v1"
        [models.chain]
        targets = ["first/m", "second/m"]
    "#;
    let text = &text.replace("KEEP_ALIVE", keep_alive);
    Config::from_toml(text, "sim.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// As [`config`], but the first provider has three endpoints and few places, and what fails is tried again.
pub fn config_of_several_endpoints() -> Config {
    let text = r#"
        [server]
        api_keys = ["test-key"]
        keep_alive = "2s"
        [timeouts]
        connect = "1s"
        first_token = "10s"
        idle = "5s"
        total = "60s"
        [retry]
        attempts = 3
        [health]
        failures = 2
        [providers.first]
        adapter = "openai"
        endpoints = ["http://a/v1", "http://b/v1", { url = "http://c/v1", weight = 2 }]
        strategy = "weighted"
        concurrency = { max = 1, queue = 2, wait = "5s" }
        [providers.second]
        adapter = "openai"
        endpoints = ["http://d/v1", "http://e/v1"]
        strategy = "latency"
        [models.chain]
        strategy = "round-robin"
        targets = ["first/m", "second/m"]
        fallback = ["first/large"]
    "#;
    Config::from_toml(text, "sim.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn answer_text() -> String {
    "Hello, world \u{1F30D}!".into()
}

/// A stream as an OpenAI-compatible server sends it.
pub fn text_stream() -> Vec<u8> {
    let mut out = String::new();
    let chunk = |delta: &str, finish: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
             \"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]{usage}}}\n\n"
        )
    };
    out.push_str(": a comment\n\n");
    out.push_str(&chunk(r#"{"role":"assistant","content":""}"#, "null", ""));
    for piece in ["Hel", "lo,", " wor", "ld ", "\u{1F30D}", "!"] {
        out.push_str(&chunk(&format!("{{\"content\":\"{piece}\"}}"), "null", ""));
    }
    out.push_str(&chunk("{}", "\"stop\"", ""));
    out.push_str(
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\
         \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7,\"total_tokens\":10}}\n\ndata: [DONE]\n\n",
    );
    out.into_bytes()
}

/// The same answer in one piece.
pub fn whole_answer() -> Bytes {
    let json = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer_text()}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10},
    });
    Bytes::from(json.to_string())
}

pub fn chat_body(model: &str, stream: bool) -> Bytes {
    let json = serde_json::json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
    Bytes::from(json.to_string())
}

/// One thing that an upstream does.
#[derive(Clone, Debug)]
pub enum Act {
    Refuse,
    ConnectTimeout,
    Head(u16, &'static str),
    HeadWith(u16, Vec<(&'static str, String)>),
    Bytes(Bytes),
    Break,
    Stall,
    End,
}

/// What an upstream does with one request: acts, each after so many milliseconds.
#[derive(Clone, Debug)]
pub struct Script(VecDeque<(u64, Act)>, u64);

impl Script {
    pub fn new(acts: Vec<(u64, Act)>) -> Self {
        Script(acts.into(), 0)
    }

    /// The backend counts so many tokens when all of it has gone out.
    pub fn counting(mut self, tokens: u64) -> Self {
        self.1 = tokens;
        self
    }

    /// A good stream in pieces that end at `cuts`.
    pub fn stream_cut(stream: &[u8], cuts: &[usize]) -> Self {
        let mut acts = vec![(1, Act::Head(200, "text/event-stream"))];
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            if cut > from {
                acts.push((1, Act::Bytes(Bytes::copy_from_slice(&stream[from..cut]))));
                from = cut;
            }
        }
        acts.push((1, Act::End));
        Script::new(acts)
    }

    /// Adds a delay in front.
    pub fn delay(&mut self, delay: Duration) {
        if let Some((ms, _)) = self.0.front_mut() {
            *ms += u64::try_from(delay.as_millis()).unwrap();
        }
    }

    /// A good answer with faults thrown in.
    pub fn random(world: &World, stream: bool) -> Self {
        let ms = |world: &World| match world.below(10) {
            0 => world.below(12_000),
            1..3 => world.below(3_000),
            _ => world.below(30),
        };
        if world.chance(8) {
            return Script::new(vec![(ms(world), Act::Refuse)]);
        }
        if world.chance(4) {
            return Script::new(vec![(1_000, Act::ConnectTimeout)]);
        }
        if world.chance(4) {
            return Script::new(vec![(1, Act::Stall)]);
        }
        if world.chance(12) {
            let (status, body): (u16, &[u8]) = [
                (429, &br#"{"error":{"message":"slow down","type":"rate_limit_error","code":"x"}}"#[..]),
                (503, br#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#),
                (500, b"<html>oops</html>"),
                (400, br#"{"error":{"message":"bad","type":"invalid_request_error"}}"#),
                (401, br#"{"error":{"message":"no"}}"#),
                (404, b""),
            ][usize::try_from(world.below(6)).unwrap()];
            return Script::new(vec![
                (ms(world), Act::Head(status, "application/json")),
                (ms(world), Act::Bytes(Bytes::copy_from_slice(body))),
                (1, Act::End),
            ]);
        }
        let body = if stream { text_stream() } else { whole_answer().to_vec() };
        let content_type = if stream { "text/event-stream" } else { "application/json" };
        let mut acts = vec![(ms(world), Act::Head(200, content_type))];
        let mut at = 0;
        while at < body.len() {
            let len = 1 + usize::try_from(world.below(300)).unwrap();
            let end = (at + len).min(body.len());
            let mut piece = body[at..end].to_vec();
            if world.chance(1) {
                let spot = usize::try_from(world.below(piece.len() as u64)).unwrap();
                // Garbage that cannot be taken for other good content: inside JSON, where a NUL is never right. (In front of
                // it the standard for server-sent events has readers skip what they don't know.)
                let line = body[..at + spot].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
                if !stream || (at + spot >= line + 6 && body[line..].starts_with(b"data: {") && piece[spot] != b'\n') {
                    piece[spot] = 0;
                }
            }
            acts.push((ms(world), Act::Bytes(Bytes::from(piece))));
            if world.chance(2) {
                acts.push((
                    ms(world),
                    [Act::Break, Act::Stall, Act::End][usize::try_from(world.below(3)).unwrap()].clone(),
                ));
            }
            at = end;
        }
        acts.push((ms(world), Act::End));
        Script::new(acts)
    }
}

/// What a client got.
#[derive(Debug)]
pub struct Client {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// It left before the end.
    pub left: bool,
}

impl Client {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What goes on whoever leaves.
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// How the state store fares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum StoreIs {
    #[default]
    Well,
    /// Every call fails.
    Failing,
    /// Every call takes for ever.
    Hanging,
    /// Every call takes so many milliseconds.
    Slow(u64),
}

/// The state store in memory, with a switch.
#[derive(Default)]
pub struct Store {
    memory: Memory,
    is: Cell<StoreIs>,
    clock: RefCell<Option<std::rc::Weak<State>>>,
    calls: Cell<usize>,
}

impl Store {
    async fn wait(&self) -> Result<(), StateError> {
        self.calls.set(self.calls.get() + 1);
        match self.is.get() {
            StoreIs::Well => Ok(()),
            StoreIs::Failing => Err(StateError("switched off".to_owned())),
            StoreIs::Hanging => std::future::pending().await,
            StoreIs::Slow(ms) => {
                let state = self.clock.borrow().as_ref().and_then(std::rc::Weak::upgrade);
                if let Some(state) = state {
                    state.sleep_until(state.now.get() + Duration::from_millis(ms)).await;
                }
                Ok(())
            }
        }
    }
}

impl witgate_gateway::state::State for Store {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        self.wait().await?;
        self.memory.get(now, key).await
    }
    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        self.wait().await?;
        self.memory.set(now, key, value, expires, expect).await
    }
    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.wait().await?;
        self.memory.list(now, prefix, after, limit).await
    }
    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.wait().await?;
        self.memory.take(now, id, lease, charges).await
    }
    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.wait().await?;
        self.memory.settle(now, id, taken, uses, once).await
    }
    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.wait().await?;
        self.memory.used(now, meters).await
    }
}

/// The state that ports and test share.
#[derive(Default)]
struct State {
    now: Cell<Duration>,
    /// What waits, by its deadline and a number of its own.
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next_timer: Cell<u64>,
    random: Cell<u64>,
    /// The gateway's own chance: apart, so that it changes nothing of a test's.
    chance: Cell<u64>,
    /// Answers each request; without one, `scripts` do in their order.
    server: RefCell<Option<Server>>,
    /// Requests at each host: now, at most at once, and in all.
    hosts: RefCell<BTreeMap<String, [usize; 3]>>,
    scripts: RefCell<VecDeque<Script>>,
    sent: RefCell<Vec<UpstreamRequest>>,
    /// What the runtime's own AWS credentials are.
    credentials: RefCell<Option<Credentials>>,
    open: Rc<Cell<usize>>,
    records: RefCell<Vec<Record>>,
    /// What operators were told, as Debug shows it.
    warnings: RefCell<Vec<String>>,
    counted: Cell<u64>,
    /// The adapter of each provider.
    adapters: std::collections::BTreeMap<String, &'static Functions>,
    /// What was kept, and what operators stored, by kind and key.
    documents: RefCell<std::collections::BTreeMap<(String, String), String>>,
    store: SimStore,
    /// What goes on after its request.
    tasks: RefCell<Vec<Task>>,
    policies: RefCell<BTreeMap<String, MakePolicy>>,
}

/// Makes an instance of a policy.
type MakePolicy = Box<dyn Fn() -> Box<dyn Watching>>;

/// A policy in the world: what a component would be.
pub trait Watching {
    fn on_request(
        &mut self,
        settings: &str,
        context: &Context_,
        request: &witgate_model::Request,
    ) -> Result<Result<Decision, Error>, Fault>;
    fn start(&mut self, settings: &str, note: String) -> Result<(), Fault>;
    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault>;
}

/// One of witgate's own.
pub struct Own<P: witgate_model::Policy>(Option<P::Watcher>);

impl<P: witgate_model::Policy> Default for Own<P> {
    fn default() -> Self {
        Own(None)
    }
}

impl<P: witgate_model::Policy> Watching for Own<P> {
    fn on_request(
        &mut self,
        settings: &str,
        context: &Context_,
        request: &witgate_model::Request,
    ) -> Result<Result<Decision, Error>, Fault> {
        Ok(P::on_request(settings, context, request))
    }

    fn start(&mut self, settings: &str, note: String) -> Result<(), Fault> {
        self.0 = Some(P::watcher(settings, note));
        Ok(())
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault> {
        Ok(witgate_model::Watcher::feed(self.0.as_mut().unwrap(), events))
    }
}

pub struct NativePolicy(Box<dyn Watching>);

impl witgate_gateway::Policy for NativePolicy {
    fn on_request(
        &mut self,
        settings: &Arc<str>,
        context: &Context_,
        request: &Arc<witgate_model::Request>,
    ) -> Result<Result<Decision, Error>, Fault> {
        self.0.on_request(settings, context, request)
    }

    fn start(&mut self, settings: &Arc<str>, note: String) -> Result<(), Fault> {
        self.0.start(settings, note)
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault> {
        self.0.feed(events)
    }
}

impl State {
    fn next(&self) -> u64 {
        Self::mix(&self.random)
    }

    /// splitmix64.
    fn mix(random: &Cell<u64>) -> u64 {
        let state = random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn sleep_until(self: &Rc<Self>, deadline: Duration) -> Sleep {
        let number = self.next_timer.get();
        self.next_timer.set(number + 1);
        Sleep { state: Rc::clone(self), at: (deadline, number) }
    }
}

/// Waits on the simulated clock.
struct Sleep {
    state: Rc<State>,
    at: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.now.get() >= self.at.0 {
            return Poll::Ready(());
        }
        self.state.timers.borrow_mut().insert(self.at, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.state.timers.borrow_mut().remove(&self.at);
    }
}

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the upstreams do with a request to a host, sent at a time.
pub type Server = Box<dyn FnMut(&UpstreamRequest, Duration) -> Script>;

pub struct World {
    state: Rc<State>,
    ports: Arc<SimPorts>,
    gateway: Arc<Gateway>,
    config: Arc<Config>,
}

impl World {
    #[allow(clippy::arc_with_non_send_sync, reason = "the gateway takes an Arc; this world has one thread")]
    pub fn new(seed: u64, config: Config) -> Self {
        let adapters = config.providers.values();
        let adapters = adapters.map(|provider| (provider.name.clone(), functions_of(provider))).collect();
        let state = Rc::new(State { adapters, ..State::default() });
        state.random.set(seed);
        state.chance.set(!seed);
        *state.store.inner.clock.borrow_mut() = Some(Rc::downgrade(&state));
        let ports = Arc::new(SimPorts(Rc::clone(&state)));
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), witgate_dialects::routes().to_vec()));
        World { state, ports, gateway, config }
    }

    /// The state store.
    pub fn kept(&self) -> &SimStore {
        &self.state.store
    }

    /// A new process over the same state.
    pub fn restart(&mut self) {
        self.state.store.revive();
        self.gateway = Arc::new(Gateway::new(Arc::clone(&self.config), witgate_dialects::routes().to_vec()));
    }

    /// The same process with its configuration read anew: this one serves on what runs, the result what comes.
    pub fn reloaded(&self, config: Config) -> World {
        let config = Arc::new(config);
        let gateway = self.gateway.successor(Arc::clone(&config), witgate_dialects::routes().to_vec());
        self.gateway.retire();
        World { state: Rc::clone(&self.state), ports: Arc::clone(&self.ports), gateway: Arc::new(gateway), config }
    }

    /// Another process over the same state.
    pub fn another(&self) -> World {
        let gateway = Arc::new(Gateway::new(Arc::clone(&self.config), witgate_dialects::routes().to_vec()));
        let (state, ports, config) = (Rc::clone(&self.state), Arc::clone(&self.ports), Arc::clone(&self.config));
        World { state, ports, gateway, config }
    }

    /// Runs a future to its end.
    pub fn drive<F: Future>(&self, future: F) -> F::Output {
        self.run(future)
    }

    /// Runs jobs, without an end.
    pub async fn work(&self) {
        self.gateway.work(&self.ports).await;
    }

    /// Runs what jobs there are, and what is due soon, as a runtime does that lives from one request to the next.
    pub async fn work_off(&self) {
        self.gateway.work_off(&self.ports).await;
    }

    /// The same in passing: whether any was to be done now.
    pub async fn pass_by(&self) -> bool {
        let is_due = self.gateway.may_pass_by(self.state.now.get());
        if is_due {
            self.gateway.pass_by(&self.ports).await;
        }
        is_due
    }

    /// Whether a request has left a job.
    pub fn left_work(&self) -> bool {
        self.gateway.left_work()
    }

    /// Completes when a request has left a job.
    pub fn next_job(&self) -> impl Future<Output = ()> {
        self.gateway.next_job()
    }

    /// Answers the messages of the configuration's queue at this place.
    pub async fn consume<B: witgate_gateway::Broker>(
        &self,
        at: usize,
        broker: &B,
        finish: impl Future<Output = ()>,
        release: impl Future<Output = ()>,
    ) {
        self.gateway.consume(&self.ports, &self.config.queues[at], broker, finish, release).await;
    }

    /// That queue, which must be one of SQS.
    pub fn sqs(&self, at: usize) -> witgate_gateway::Sqs<SimPorts> {
        let queue = &self.config.queues[at];
        let witgate_config::QueueKind::Sqs(sqs) = &queue.kind else { panic!("not SQS") };
        witgate_gateway::Sqs::new(Arc::clone(&self.ports), queue, sqs)
    }

    /// The process is about to end.
    pub fn drain(&self) {
        self.gateway.drain();
    }

    /// Completes after some time.
    pub async fn sleep(&self, time: Duration) {
        self.state.sleep_until(self.state.now.get() + time).await;
    }

    /// Any request, with this key.
    pub async fn ask(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Client {
        let mut all = vec![("authorization".to_owned(), format!("Bearer {key}"))];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.exchange_with(method, all, path, body, None).await
    }

    /// True in so many percent of the calls.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.state.next() % limit
    }

    pub fn upstream(&self, scripts: Vec<Script>) {
        self.state.scripts.borrow_mut().extend(scripts);
    }

    /// The last script that waits is this one instead.
    pub fn replace_last(&self, script: Script) {
        let mut scripts = self.state.scripts.borrow_mut();
        scripts.pop_back();
        scripts.push_back(script);
    }

    /// From now on this answers each request.
    pub fn serve(&self, mut server: impl FnMut(&str, Duration) -> Script + 'static) {
        let server = move |request: &UpstreamRequest, now| server(host(&request.url), now);
        *self.state.server.borrow_mut() = Some(Box::new(server));
    }

    /// From now on this answers each request, by all that is in it.
    pub fn serve_requests(&self, mut server: impl FnMut(&UpstreamRequest) -> Script + 'static) {
        *self.state.server.borrow_mut() = Some(Box::new(move |request, _| server(request)));
    }

    /// The same, with the time.
    pub fn serve_timed(&self, server: impl FnMut(&UpstreamRequest, Duration) -> Script + 'static) {
        *self.state.server.borrow_mut() = Some(Box::new(server));
    }

    /// Lets time pass with the gateway's watch running. True where there is nothing to watch.
    pub fn watch(&self, time: Duration) -> bool {
        let until = self.state.sleep_until(self.state.now.get() + time);
        let watch = pin!(self.gateway.watch(&self.ports));
        let ended = self.run(futures_util::future::select(watch, until));
        matches!(ended, futures_util::future::Either::Left(_))
    }

    /// Tokens that the backends have counted: of each answer that went out to its end.
    pub fn counted(&self) -> u64 {
        self.state.counted.get()
    }

    /// Runs chats with these bodies, each from its time on, of clients that may leave then, with the gateway's watch.
    pub fn bodies_watched(&self, requests: Vec<(Duration, Bytes, Option<Duration>)>) -> Vec<Client> {
        let watch = async {
            self.gateway.watch(&self.ports).await;
            std::future::pending::<()>().await;
        };
        let all = Box::pin(self.all_bodies(requests));
        match self.run(futures_util::future::select(all, pin!(watch))) {
            futures_util::future::Either::Left((clients, _)) => clients,
            futures_util::future::Either::Right(_) => unreachable!("a watch does not end"),
        }
    }

    /// The most requests at once that a host has had.
    pub fn most_at(&self, host: &str) -> usize {
        self.state.hosts.borrow().get(host).map_or(0, |[_, most, _]| *most)
    }

    /// How many requests a host has had.
    pub fn sent_to(&self, host: &str) -> usize {
        self.state.hosts.borrow().get(host).map_or(0, |[.., all]| *all)
    }

    /// The hosts of the requests, in their order.
    pub fn hosts_asked(&self) -> Vec<String> {
        self.state.sent.borrow().iter().map(|request| host(&request.url).to_owned()).collect()
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.run(self.state.sleep_until(self.state.now.get() + time));
    }

    /// Runs requests, each from its time on: when it begins, its model, whether it is a stream.
    pub fn load(&self, requests: Vec<(Duration, String, bool)>) -> Vec<Client> {
        let all = requests.into_iter().map(|(at, model, stream)| async move {
            self.state.sleep_until(at).await;
            let body = chat_body(&model, stream);
            self.exchange("POST", Some("test-key"), "/v1/chat/completions", body, None).await
        });
        self.run(futures_util::future::join_all(all))
    }

    /// Runs chats with these models, streamed or not, each from its time on, of clients that may leave.
    pub fn chats(&self, chats: Vec<(Duration, bool, Option<Duration>)>) -> Vec<Client> {
        let all = chats.into_iter().map(|(at, stream, leaves)| async move {
            self.state.sleep_until(at).await;
            self.exchange("POST", Some("test-key"), "/v1/chat/completions", chat_body("chain", stream), leaves).await
        });
        self.run(futures_util::future::join_all(all))
    }

    /// Runs requests, each from its time on, of clients that may leave.
    pub fn load_leaving(&self, model: &str, requests: Vec<(Duration, Option<Duration>)>) -> Vec<Client> {
        let all = requests.into_iter().map(|(at, leaves)| async move {
            self.state.sleep_until(at).await;
            self.exchange("POST", Some("test-key"), "/v1/chat/completions", chat_body(model, false), leaves).await
        });
        self.run(futures_util::future::join_all(all))
    }

    /// Runs chats with these bodies, each from its time on, of clients that may leave then.
    pub fn bodies(&self, requests: Vec<(Duration, Bytes, Option<Duration>)>) -> Vec<Client> {
        self.run(self.all_bodies(requests))
    }

    async fn all_bodies(&self, requests: Vec<(Duration, Bytes, Option<Duration>)>) -> Vec<Client> {
        let all = requests.into_iter().map(|(at, body, leaves)| async move {
            self.state.sleep_until(at).await;
            self.exchange("POST", Some("test-key"), "/v1/chat/completions", body, leaves).await
        });
        futures_util::future::join_all(all).await
    }

    pub fn sent(&self) -> usize {
        self.state.sent.borrow().len()
    }

    /// What was sent to the upstreams.
    pub fn requests_sent(&self) -> Vec<UpstreamRequest> {
        self.state.sent.borrow().clone()
    }

    /// An operator has stored this document.
    pub fn store(&self, kind: &str, key: &str, content: &str) {
        self.state.documents.borrow_mut().insert((kind.to_owned(), key.to_owned()), content.to_owned());
    }

    /// The state store.
    pub fn state(&self) -> &SimStore {
        &self.state.store
    }

    /// The runtime has these AWS credentials of its own.
    pub fn credentials(&self, credentials: Credentials) {
        *self.state.credentials.borrow_mut() = Some(credentials);
    }

    /// From now on the state store is so.
    pub fn store_is(&self, is: StoreIs) {
        self.state.store.inner.is.set(is);
    }

    /// How often the state store was asked.
    pub fn store_calls(&self) -> usize {
        self.state.store.inner.calls.get()
    }

    /// How much of meters is used.
    pub fn used(&self, meters: &[(&str, Rule)]) -> Vec<u64> {
        let meters: Vec<_> = meters.iter().map(|(key, rule)| (Arc::from(*key), *rule)).collect();
        let now = self.unix_time();
        self.run(witgate_gateway::state::State::used(&self.state.store.inner.memory, now, &meters)).expect("in memory")
    }

    pub fn unix_time(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + self.state.now.get()
    }

    /// What the operator was warned of, since the last time.
    pub fn new_warnings(&self) -> Vec<String> {
        self.state.warnings.take()
    }

    /// Any request, without any header but these.
    pub fn bare(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Client {
        self.run(self.bare_later(Duration::ZERO, method, path, headers, body, None))
    }

    /// The same from a time on, of a client that may leave.
    pub async fn bare_later(
        &self,
        at: Duration,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        leaves: Option<Duration>,
    ) -> Client {
        self.state.sleep_until(at).await;
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.exchange_with(method, headers, path, body, leaves).await
    }

    pub fn open_bodies(&self) -> usize {
        self.state.open.get()
    }

    pub fn in_flight(&self) -> usize {
        self.gateway.in_flight()
    }

    pub fn elapsed(&self) -> Duration {
        self.state.now.get()
    }

    pub fn records(&self) -> Vec<Record> {
        self.state.records.borrow().clone()
    }

    /// What policy a name stands for.
    pub fn policy(&self, name: &str, make: impl Fn() -> Box<dyn Watching> + 'static) {
        self.state.policies.borrow_mut().insert(name.to_owned(), Box::new(make));
    }

    pub fn warnings(&self) -> Vec<String> {
        self.state.warnings.borrow().clone()
    }

    pub fn get(&self, path: &str) -> Client {
        self.run(self.exchange("GET", None, path, Bytes::new(), None))
    }

    pub fn request(&self, path: &str, body: Bytes, leaves: Option<Duration>) -> Client {
        self.run(self.exchange("POST", Some("test-key"), path, body, leaves))
    }

    /// Any request, with the right key.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Client {
        let mut all = vec![("authorization".to_owned(), "Bearer test-key".to_owned())];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.run(self.exchange_with(method, all, path, body, None))
    }

    pub fn request_with_key(&self, key: Option<&str>, path: &str, body: Bytes) -> Client {
        self.run(self.exchange("POST", key, path, body, None))
    }

    pub fn get_with_key(&self, key: Option<&str>, path: &str) -> Client {
        self.run(self.exchange("GET", key, path, Bytes::new(), None))
    }

    pub fn requests(&self, path: &str, body: &Bytes, count: usize) -> Vec<Client> {
        let all = (0..count).map(|_| self.exchange("POST", Some("test-key"), path, body.clone(), None));
        self.run(futures_util::future::join_all(all))
    }

    async fn exchange(
        &self,
        method: &str,
        key: Option<&str>,
        path: &str,
        body: Bytes,
        leaves: Option<Duration>,
    ) -> Client {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(key.map(|key| ("authorization".to_owned(), format!("Bearer {key}"))));
        self.exchange_with(method, headers, path, body, leaves).await
    }

    async fn exchange_with(
        &self,
        method: &str,
        headers: Vec<(String, String)>,
        path: &str,
        body: Bytes,
        leaves: Option<Duration>,
    ) -> Client {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let request = Request { method: method.to_owned(), path, query, headers, body };
        let mut client = Client { status: 0, headers: Vec::new(), body: Vec::new(), left: false };
        let served = async {
            let response = self.gateway.handle(&self.ports, request).await;
            client.status = response.status;
            client.headers = response.headers;
            match response.body {
                Body::Whole(bytes) => client.body.extend_from_slice(&bytes),
                Body::Stream(stream) => collect(stream, &mut client.body).await,
            }
        };
        let leaving = async {
            match leaves {
                Some(after) => self.state.sleep_until(after).await,
                None => std::future::pending().await,
            }
        };
        let left = match futures_util::future::select(pin!(served), pin!(leaving)).await {
            futures_util::future::Either::Left(_) => false,
            futures_util::future::Either::Right(_) => true,
        };
        client.left = left;
        client
    }

    /// Polls; when nothing can go on, jumps to the next timer.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        for _ in 0..10_000_000 {
            woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let mut tasks = self.state.tasks.take();
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            self.state.tasks.borrow_mut().append(&mut tasks);
            if woken.0.load(Ordering::Relaxed) {
                continue;
            }
            let next = self.state.timers.borrow().keys().next().copied();
            let (now, _) = next.expect("everything waits and no timer runs: a hang");
            self.state.now.set(now);
            let mut timers = self.state.timers.borrow_mut();
            let later = timers.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut *timers, later);
            drop(timers);
            due.into_values().for_each(Waker::wake);
        }
        panic!("no end in sight: a loop");
    }
}

async fn collect(stream: impl Stream<Item = Bytes>, into: &mut Vec<u8>) {
    let mut stream = pin!(stream);
    while let Some(bytes) = stream.next().await {
        into.extend_from_slice(&bytes);
    }
}

pub struct SimPorts(Rc<State>);

impl Ports for SimPorts {
    type Normaliser = NativeNormaliser;
    type Adapter = NativeAdapter;
    type Policy = NativePolicy;
    type Body = SimBody;
    type State = SimStore;

    fn normaliser(&self) -> Result<NativeNormaliser, Fault> {
        Ok(NativeNormaliser::default())
    }

    fn adapter(&self, provider: &str) -> Result<NativeAdapter, Fault> {
        Ok(NativeAdapter { functions: self.0.adapters[provider], decoder: None })
    }

    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<SimBody>, TransportError> {
        if request.url.starts_with("stub:") {
            // A runtime answers it by itself.
            let script = Script::new(vec![(0, Act::Bytes(request.body)), (0, Act::End)]);
            let headers = request.headers.into_iter().filter(|(name, _)| name == "content-type").collect();
            self.0.open.set(self.0.open.get() + 1);
            let host = String::new();
            let body = SimBody { state: Rc::clone(&self.0), host, script, since: self.0.now.get() };
            return Ok(UpstreamResponse { status: 200, headers, body });
        }
        let host = host(&request.url).to_owned();
        let script = match self.0.server.borrow_mut().as_mut() {
            Some(server) => server(&request, self.0.now.get()),
            None => self.0.scripts.borrow_mut().pop_front().unwrap_or_else(|| Script::new(vec![(0, Act::Refuse)])),
        };
        self.0.sent.borrow_mut().push(request);
        self.0.open.set(self.0.open.get() + 1);
        {
            let mut hosts = self.0.hosts.borrow_mut();
            let [now, most, all] = hosts.entry(host.clone()).or_default();
            (*now, *all) = (*now + 1, *all + 1);
            *most = (*most).max(*now);
        }
        let mut body = SimBody { state: Rc::clone(&self.0), host, script, since: self.0.now.get() };
        match body.act().await {
            Act::Head(status, content_type) => {
                let headers = vec![("content-type".to_owned(), content_type.to_owned())];
                Ok(UpstreamResponse { status, headers, body })
            }
            Act::HeadWith(status, headers) => {
                let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                Ok(UpstreamResponse { status, headers, body })
            }
            Act::ConnectTimeout => Err(TransportError::ConnectTimeout),
            Act::Refuse => Err(TransportError::Connect("refused".to_owned())),
            _ => Err(TransportError::Broken("reset".to_owned())),
        }
    }

    async fn credentials(&self, _provider: &str) -> Result<Credentials, String> {
        self.0.sleep_until(self.0.now.get() + Duration::from_millis(5)).await;
        self.0.credentials.borrow().clone().ok_or_else(|| "nothing in the chain".to_owned())
    }

    async fn document(&self, at: &DocumentRef) -> Result<Option<String>, String> {
        Ok(self.0.documents.borrow().get(&(at.kind.clone(), at.key.clone())).cloned())
    }

    async fn keep(&self, document: Document) -> Result<(), String> {
        let at = (document.at.kind, document.at.key);
        match document.content {
            Some(content) => self.0.documents.borrow_mut().insert(at, content),
            None => self.0.documents.borrow_mut().remove(&at),
        };
        Ok(())
    }

    fn policy(&self, name: &str) -> Result<NativePolicy, Fault> {
        self.0
            .policies
            .borrow()
            .get(name)
            .map(|make| NativePolicy(make()))
            .ok_or_else(|| Fault { component: format!("policy \"{name}\""), what: "is not loaded".to_owned() })
    }

    fn state(&self) -> &SimStore {
        &self.0.store
    }

    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + self.0.now.get()
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> {
        self.0.sleep_until(deadline)
    }

    fn random(&self) -> u128 {
        let next = || u128::from(State::mix(&self.0.chance));
        next() << 64 | next()
    }

    fn record(&self, record: &Record) {
        self.0.records.borrow_mut().push(record.clone());
    }

    fn secret(&self) -> Result<[u8; 32], String> {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&State::mix(&self.0.chance).to_le_bytes()));
        Ok(bytes)
    }

    fn after(self: &Arc<Self>, work: Work) {
        let ports = Arc::clone(self);
        let mut task: Task = Box::pin(async move { work.run(ports.as_ref()).await });
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.0.tasks.borrow_mut().push(task);
        }
    }

    fn warn(&self, warning: &Warning<'_>) {
        self.0.warnings.borrow_mut().push(format!("{warning:?}"));
    }
}

/// The host of a URL.
fn host(url: &str) -> &str {
    url.split('/').nth(2).unwrap_or_default()
}

pub struct SimBody {
    state: Rc<State>,
    host: String,
    script: Script,
    /// When the last act was done.
    since: Duration,
}

impl SimBody {
    /// The next act, at its time. Cancel-safe.
    async fn act(&mut self) -> Act {
        let Some((ms, act)) = self.script.0.front().cloned() else { return Act::End };
        if matches!(act, Act::Stall) {
            std::future::pending::<()>().await;
        }
        let at = self.since + Duration::from_millis(ms);
        let sleep: Pin<Box<dyn Future<Output = ()>>> = Box::pin(self.state.sleep_until(at));
        sleep.await;
        self.since = at;
        self.script.0.pop_front();
        // A stream's reader need not wait for more than its last event.
        if matches!(self.script.0.front(), None | Some((_, Act::End))) {
            self.state.counted.set(self.state.counted.get() + std::mem::take(&mut self.script.1));
        }
        act
    }
}

impl Drop for SimBody {
    fn drop(&mut self) {
        self.state.open.set(self.state.open.get() - 1);
        if let Some([now, ..]) = self.state.hosts.borrow_mut().get_mut(&self.host) {
            *now -= 1;
        }
    }
}

impl UpstreamBody for SimBody {
    async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        match self.act().await {
            Act::Bytes(bytes) => Some(Ok(bytes)),
            Act::End => None,
            _ => Some(Err(TransportError::Broken("reset".to_owned()))),
        }
    }
}

/// A built-in adapter without its component.
pub struct NativeAdapter {
    functions: &'static Functions,
    decoder: Option<Box<dyn witgate_model::Decoder>>,
}

/// The functions of an adapter.
struct Functions {
    description: LazyLock<Description>,
    probe: fn(&str) -> Result<Option<HttpRequest>, Error>,
    encode: fn(&str, witgate_model::Request) -> Result<HttpRequest, Error>,
    decoder: fn(&str, Option<String>, ResponseHead) -> Box<dyn witgate_model::Decoder>,
}

const fn functions<A: witgate_model::Adapter>() -> Functions
where
    A::Decoder: 'static,
{
    Functions {
        description: LazyLock::new(A::describe),
        probe: A::probe,
        encode: A::encode,
        decoder: |settings, context, head| Box::new(A::decoder(settings, context, head)),
    }
}

static OPENAI: Functions = functions::<OpenAi>();
static BEDROCK: Functions = functions::<Bedrock>();
static ANTHROPIC: Functions = functions::<Anthropic>();
static LLAMA_CPP: Functions = functions::<LlamaCpp>();
static OLLAMA: Functions = functions::<Ollama>();
static SAGEMAKER: Functions = functions::<SageMaker>();
static STUB: Functions = functions::<Stub>();

/// The functions of a provider's adapter.
fn functions_of(provider: &witgate_config::Provider) -> &'static Functions {
    match provider.adapter.as_str() {
        "anthropic" => &ANTHROPIC,
        "bedrock" => &BEDROCK,
        "llama-cpp" => &LLAMA_CPP,
        "ollama" => &OLLAMA,
        "sagemaker" => &SAGEMAKER,
        "stub" => &STUB,
        _ => &OPENAI,
    }
}

impl NativeAdapter {
    fn decoder(&mut self) -> &mut dyn witgate_model::Decoder {
        self.decoder.as_deref_mut().expect("start comes first")
    }
}

impl Adapter for NativeAdapter {
    fn description(&self) -> &Description {
        &self.functions.description
    }
    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault> {
        Ok((self.functions.probe)(settings))
    }
    fn encode(
        &mut self,
        settings: &str,
        request: &Arc<witgate_model::Request>,
    ) -> Result<Result<HttpRequest, Error>, Fault> {
        Ok((self.functions.encode)(settings, witgate_model::Request::clone(request)))
    }
    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault> {
        self.decoder = Some((self.functions.decoder)(settings, context, head));
        Ok(())
    }
    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault> {
        Ok(self.decoder().feed(frames))
    }
    fn finish(&mut self) -> Result<Vec<Event>, Fault> {
        Ok(self.decoder().finish())
    }
}
