//! Answers that are kept for requests that come again.
//!
//! The key is a SHA-256 of all that an answer depends on: the normalised content of the request, the name of the model as
//! the client wrote it, and whose request it is. What only says who asks and how the answer is wanted (ids, `user`,
//! `metadata`, whether it is streamed) is not in it, and the client's dialect only where the request holds members that
//! no other dialect knows: so an answer to one dialect serves another. What is kept is the answer's events, in the pieces
//! in which they came, so that it is told in any dialect, as a stream or whole, like the first time, without the waits.
//!
//! Only complete answers are kept: no error, nothing that a filter cut or the model refused, nothing that ended for a
//! length that the request itself did not set. They lie in the state store under `cache/`, each with its expiry; a store
//! that fails makes a miss. The bound on all of them is this process's: what is oldest and was not asked for goes first.
//!
//! Identical requests at the same time are asked once. The first one leads, the others wait for its answer; where it
//! fails, or its client leaves, another one leads. After two failures, or where the answer cannot be kept, each of those
//! that wait asks for itself: a request that fails by itself would otherwise make them fail one after another.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use witgate_config::{Cache as Rules, CacheWhen, Config, Model, Route};
use witgate_model::{BlockKind, BlockStart, Event, Field, FinishReason, Input, Order, Request};

use crate::failure::{Failed, Timeout};
use crate::http;
use crate::keys::{Client, hex};
use crate::path::{Ended, Flight, Run, before};
use crate::ports::{Fault, Normaliser, Ports};
use crate::record::Warning;
use crate::state::{Expect, State};
use crate::stream::Writer;

/// The header by which a client asks for the cache, and is told of it.
pub(crate) const HEADER: &str = "x-witgate-cache";

/// What only says who asks: members that change no answer.
const UNIMPORTANT: [&str; 5] = ["metadata", "prompt_cache_key", "request_id", "safety_identifier", "user"];

/// The name of one answer.
type Key = [u8; 32];

/// The answers that this process keeps, and those that it waits for.
pub(crate) struct Cache {
    /// Some model has one.
    used: bool,
    flights: Arc<Flights>,
    index: Arc<Mutex<Index>>,
}

/// What a request wants of the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Whose request it is.
    owner: Key,
    /// `x-witgate-cache: on`, or `off`.
    asked: Option<bool>,
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
    max_age: Option<u64>,
}

/// What a request found.
#[derive(Default)]
pub(crate) struct Found {
    hit: Option<Stored>,
    lead: Option<Lead>,
}

/// What a client is told of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    /// Its answer was kept for so many seconds.
    Hit(u64),
    /// It was not there.
    Miss,
    /// It was not looked for.
    Bypass,
}

impl Cache {
    pub fn new(config: &Config) -> Self {
        let all = config.models.values().filter_map(|model| model.cache.as_ref()).chain([&config.cache]);
        Cache {
            used: all.into_iter().any(|rules| rules.enabled),
            flights: Arc::default(),
            index: Arc::new(Mutex::new(Index { max: config.cache_max_bytes, ..Index::default() })),
        }
    }

    /// The cache that takes this one's place when the configuration is read anew: it has the same answers, and the same
    /// requests wait in it.
    pub fn successor(&self, config: &Config) -> Self {
        self.index().max = config.cache_max_bytes;
        Cache { flights: Arc::clone(&self.flights), index: Arc::clone(&self.index), ..Cache::new(config) }
    }

    /// What the request's headers want; none where there is no cache. The keys of one tenant share their answers.
    pub fn wish(&self, headers: &[Field], client: Option<&Client>) -> Result<Option<Wish>, Failed> {
        if !self.used {
            return Ok(None);
        }
        let owner = client.map(|client| match &client.tenant {
            Some(tenant) => format!("tenant {tenant}"),
            None => format!("client {}", client.owner),
        });
        let mut wish = Wish { owner: Sha256::digest(owner.unwrap_or_default()).into(), ..Wish::default() };
        wish.asked = match http::header(headers, HEADER).map(str::trim) {
            None => None,
            Some("on") => Some(true),
            Some("off") => Some(false),
            Some(_) => {
                let message = format!("the header {HEADER} is neither \"on\" nor \"off\"");
                return Err(Failed::ours(400, "invalid_request_error", "invalid_header", message));
            }
        };
        let values = headers.iter().filter(|(name, _)| name == "cache-control").flat_map(|(_, value)| value.split(','));
        for directive in values {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => wish.no_cache = true,
                "no-store" => wish.no_store = true,
                "only-if-cached" => wish.only_if_cached = true,
                // One that cannot be read is as good as 0 (RFC 9111 section 4.2.1).
                "max-age" => wish.max_age = Some(value.trim().trim_matches('"').parse().unwrap_or(0)),
                _ => {}
            }
        }
        Ok(Some(wish))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is kept, unless it is too old for the wish.
    async fn get<P: Ports>(&self, flight: &Flight<P>, key: &Key, wish: &Wish, input: &Input) -> Option<Stored> {
        let now = flight.ports.unix_time();
        let value = match flight.ports.state().get(now, &name(key)).await {
            Ok(value) => value?,
            Err(why) => {
                flight.warn(&why.to_string());
                return None;
            }
        };
        let Some(stored) = Stored::decode(&value, input) else {
            flight.warn("an answer in the cache cannot be read");
            return None;
        };
        let age = stored.age(now);
        wish.max_age.is_none_or(|most| age <= most).then(|| {
            self.index().touch(key);
            stored
        })
    }

    /// Keeps an answer, and forgets older ones where that is too much.
    pub async fn put<P: Ports>(&self, ports: &P, request_id: &str, fresh: &Fresh) {
        let Fresh { lead: Lead { key, .. }, value, ttl } = fresh;
        let warn = |why: &str| ports.warn(&Warning::Store { request_id, why });
        let (now, size) = (ports.unix_time(), value.len());
        let state = ports.state();
        match state.set(now, &name(key), Some(value.clone()), Some(now + *ttl), Expect::Anything).await {
            Ok(_) => {}
            // The answer is good all the same.
            Err(why) => return warn(&why.to_string()),
        }
        let over = self.index().add(*key, size, now + *ttl, now);
        for key in over {
            if let Err(why) = state.set(now, &name(&key), None, None, Expect::Anything).await {
                warn(&why.to_string());
            }
        }
    }
}

impl<P: Ports> Flight<P> {
    fn warn(&self, why: &str) {
        self.ports.warn(&Warning::Store { request_id: &self.record.request_id, why });
    }
}

/// The name in the state store.
fn name(key: &Key) -> String {
    format!("cache/{}", hex(key))
}

/// Whether the answer is the same each time.
fn is_deterministic(request: &Request) -> bool {
    request.sampling.temperature == Some(0.0)
        || request.sampling.seed.is_some()
        || matches!(request.input, Input::Embedding(_) | Input::CountTokens(_))
}

/// The name of the answer to a request.
fn key(request: &Request, owner: &Key) -> Key {
    /// All that an answer depends on.
    #[derive(Serialize)]
    struct Content<'a> {
        input: &'a Input,
        tools: &'a [witgate_model::Tool],
        tool_choice: &'a Option<witgate_model::ToolChoice>,
        parallel_tool_calls: Option<bool>,
        response_format: &'a Option<witgate_model::ResponseFormat>,
        sampling: &'a witgate_model::Sampling,
        reasoning: &'a Option<witgate_model::Reasoning>,
        more: Option<Members<'a>>,
    }
    // No `..`: what is added to the contract must be thought of here.
    let Request {
        model,
        dialect,
        input,
        tools,
        tool_choice,
        parallel_tool_calls,
        response_format,
        sampling,
        reasoning,
        stream: _,
        end_user: _,
        extra,
    } = request;
    let more = extra.as_deref().map(|extra| match serde_json::from_str::<Members<'_>>(extra) {
        Ok(mut members) => {
            members.0.retain(|(name, _)| !UNIMPORTANT.contains(&name.as_ref()));
            members
        }
        Err(_) => Members(vec![(Cow::Borrowed(extra), RawValue::NULL)]),
    });
    let more = more.filter(|members| !members.0.is_empty());
    let alone = more.is_some();
    let parallel_tool_calls = *parallel_tool_calls;
    let content =
        Content { input, tools, tool_choice, parallel_tool_calls, response_format, sampling, reasoning, more };
    // These types cannot fail to be written.
    let text = serde_json::to_string(&content).unwrap_or_default();
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(concat!("witgate ", env!("CARGO_PKG_VERSION")).as_bytes());
    part(owner);
    part(model.as_bytes());
    part(if alone || is_of_one_dialect(&text) { dialect.as_bytes() } else { b"" });
    part(text.as_bytes());
    hash.finalize().into()
}

/// Whether a request holds what only its own dialect gives a meaning to. Within a text a quote is escaped, so that these
/// are keys, never content.
fn is_of_one_dialect(text: &str) -> bool {
    const EXTRA: &str = "\"extra\":\"";
    text.contains("{\"other\":")
        || text.match_indices(EXTRA).any(|(at, _)| !text.get(at + EXTRA.len()..).is_some_and(|t| t.starts_with("{}\"")))
}

/// The members of an object, as they were written.
#[derive(Serialize)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What stands before the events of a kept answer.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// When it was made, in seconds since 1970.
    at: u64,
    provider: String,
    dropped: Vec<String>,
}

/// A kept answer.
#[derive(Debug)]
pub(crate) struct Stored {
    head: Head,
    /// The events, in the pieces in which they came.
    reads: Vec<Vec<Event>>,
}

impl Stored {
    fn decode(value: &[u8], input: &Input) -> Option<Self> {
        let (head, mut rest) = postcard::take_from_bytes(value).ok()?;
        let mut order = Order::new(input);
        let mut reads = Vec::new();
        while !rest.is_empty() {
            let (read, behind): (Vec<Event>, _) = postcard::take_from_bytes(rest).ok()?;
            read.iter().try_for_each(|event| order.next(event)).ok()?;
            reads.push(read);
            rest = behind;
        }
        order.ended().then_some(Stored { head, reads })
    }

    /// In seconds.
    fn age(&self, now: Duration) -> u64 {
        now.as_secs().saturating_sub(self.head.at)
    }
}

/// An answer while it comes, as it will be kept.
#[derive(Debug)]
pub(crate) struct Recorder {
    bytes: Vec<u8>,
    max: usize,
    /// The request says how long the answer may be: one that is so long is complete.
    bounded: bool,
    good: bool,
}

impl Recorder {
    fn new(rules: &Rules, request: &Request) -> Self {
        let sampling = &request.sampling;
        let bounded = sampling.max_tokens.is_some() || sampling.max_completion_tokens.is_some();
        Recorder { bytes: Vec::new(), max: rules.max_entry_bytes, bounded, good: true }
    }

    /// Another try begins.
    pub fn restart(&mut self) {
        self.bytes.clear();
        self.good = true;
    }

    /// The events of one network read.
    pub fn take(&mut self, events: &[Event]) {
        let keeps = |event: &Event| match event {
            Event::Finish(finish) => match finish.reason {
                FinishReason::Stop | FinishReason::ToolCalls => true,
                FinishReason::Length => self.bounded,
                FinishReason::ContentFilter | FinishReason::Other(_) => false,
            },
            Event::BlockStart(BlockStart { kind: BlockKind::Refusal, .. }) | Event::Failed(_) => false,
            _ => true,
        };
        self.good = self.good && events.iter().all(keeps);
        if self.good && !events.is_empty() {
            match postcard::to_extend(events, std::mem::take(&mut self.bytes)) {
                Ok(bytes) if bytes.len() <= self.max => self.bytes = bytes,
                _ => self.good = false,
            }
        }
    }

    /// What is to be kept.
    fn value(self, head: &Head) -> Option<Bytes> {
        let mut value = self.good.then(|| postcard::to_allocvec(head).ok()).flatten()?;
        value.extend_from_slice(&self.bytes);
        (value.len() <= self.max).then(|| Bytes::from(value))
    }
}

/// Which answers this process keeps, the oldest first.
#[derive(Debug, Default)]
struct Index {
    max: usize,
    bytes: usize,
    order: VecDeque<Key>,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    size: usize,
    expires: Duration,
    /// Somebody has asked for it since it was last looked at.
    asked: bool,
}

/// What an entry takes beside its value, about, in bytes: its name in the store and its place here.
const ENTRY_BYTES: usize = 256;

impl Index {
    fn touch(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.asked = true;
        }
    }

    /// Adds an answer. Gives those that have to go.
    fn add(&mut self, key: Key, size: usize, expires: Duration, now: Duration) -> Vec<Key> {
        let size = size + ENTRY_BYTES;
        self.bytes += size;
        match self.entries.insert(key, Entry { size, expires, asked: false }) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.size),
            None => self.order.push_back(key),
        }
        let mut over = Vec::new();
        loop {
            let ended = self.order.front().and_then(|key| self.entries.get(key)).is_some_and(|e| e.expires <= now);
            if !ended && self.bytes <= self.max {
                return over;
            }
            let Some(first) = self.order.pop_front() else { return over };
            match self.entries.get_mut(&first) {
                // Each is put back at most once for each time that it was asked for.
                Some(entry) if entry.asked && entry.expires > now => {
                    entry.asked = false;
                    self.order.push_back(first);
                }
                Some(entry) => {
                    self.bytes = self.bytes.saturating_sub(entry.size);
                    if entry.expires > now {
                        over.push(first);
                    }
                    self.entries.remove(&first);
                }
                None => {}
            }
        }
    }
}

/// The requests that are under way, by the name of their answer.
#[derive(Default)]
struct Flights(Mutex<HashMap<Key, Arc<Mutex<One>>>>);

/// One request under way, and those that wait for its answer.
struct One {
    stage: Stage,
    failures: u32,
    /// How many wait.
    followers: usize,
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

enum Stage {
    /// Somebody asks.
    Led,
    /// Whoever comes first asks.
    Vacant,
    /// The answer.
    Done(Bytes),
    /// Each asks for itself.
    Dissolved,
}

/// After so many failures those that wait ask for themselves.
const MOST_FAILURES: u32 = 2;

impl Flights {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Arc<Mutex<One>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Self>, key: Key) -> Result<Lead, Follower> {
        let mut all = self.all();
        let flights = Arc::clone(self);
        if let Some(one) = all.get(&key) {
            lock(one).followers += 1;
            return Err(Follower { flights, key, one: Arc::clone(one), ticket: None });
        }
        let one = One { stage: Stage::Led, failures: 0, followers: 0, next: 0, wakers: BTreeMap::new() };
        let one = Arc::new(Mutex::new(one));
        all.insert(key, Arc::clone(&one));
        Ok(Lead { key, of: Some((flights, one)) })
    }
}

fn lock(one: &Mutex<One>) -> MutexGuard<'_, One> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It asks, for itself and for those that wait. Dropped, another one leads.
pub(crate) struct Lead {
    key: Key,
    /// None where nobody waits for it.
    of: Option<(Arc<Flights>, Arc<Mutex<One>>)>,
}

impl Lead {
    /// Ends it. `stage` says what becomes of those that wait, where there are some.
    fn end(&mut self, stage: impl FnOnce(&mut One) -> Stage) {
        let Some((flights, one)) = self.of.take() else { return };
        let mut all = flights.all();
        let mut one = lock(&one);
        one.stage = stage(&mut one);
        if one.followers == 0 || !matches!(one.stage, Stage::Vacant) {
            all.remove(&self.key);
        }
        drop(all);
        let wakers = std::mem::take(&mut one.wakers);
        drop(one);
        wakers.into_values().for_each(Waker::wake);
    }

    /// It failed.
    fn failed(mut self) {
        self.end(|one| {
            one.failures += 1;
            if one.failures < MOST_FAILURES { Stage::Vacant } else { Stage::Dissolved }
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.end(|_| Stage::Vacant);
    }
}

/// An answer that is to be kept.
pub(crate) struct Fresh {
    lead: Lead,
    value: Bytes,
    ttl: Duration,
}

impl Fresh {
    /// Gives it to those that wait for it.
    pub fn give(mut self) {
        self.lead.end(|_| Stage::Done(self.value));
    }
}

/// Waits for the answer of another one.
struct Follower {
    flights: Arc<Flights>,
    key: Key,
    one: Arc<Mutex<One>>,
    ticket: Option<u64>,
}

/// How waiting ended.
enum Followed {
    Answer(Bytes),
    Lead(Lead),
    Alone,
}

impl Future for Follower {
    type Output = Followed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Followed> {
        let this = &mut *self;
        let mut one = lock(&this.one);
        Poll::Ready(match &one.stage {
            Stage::Led => {
                let ticket = *this.ticket.get_or_insert(one.next);
                one.next = one.next.max(ticket + 1);
                one.wakers.insert(ticket, cx.waker().clone());
                return Poll::Pending;
            }
            Stage::Vacant => {
                one.stage = Stage::Led;
                Followed::Lead(Lead { key: this.key, of: Some((Arc::clone(&this.flights), Arc::clone(&this.one))) })
            }
            Stage::Done(value) => Followed::Answer(value.clone()),
            Stage::Dissolved => Followed::Alone,
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut all = self.flights.all();
        let mut one = lock(&self.one);
        one.followers = one.followers.saturating_sub(1);
        if let Some(ticket) = self.ticket {
            one.wakers.remove(&ticket);
        }
        if one.followers == 0 && matches!(one.stage, Stage::Vacant) {
            all.remove(&self.key);
        }
    }
}

/// The failure of a client that wanted no other answer than a kept one.
fn not_cached() -> Failed {
    Failed::ours(
        504,
        "api_error",
        "not_cached",
        "there is no kept answer, and `cache-control: only-if-cached` wants no other",
    )
}

impl<N: Normaliser> Run<N> {
    /// What the cache has for this request. Waits where the same is being asked already.
    pub(crate) async fn look<P: Ports>(&mut self, flight: &mut Flight<P>, route: &Route<'_>) -> Result<Found, Failed> {
        let config = &self.gateway.config;
        let rules = route.model.and_then(|model: &Model| model.cache.as_ref()).unwrap_or(&config.cache);
        let Some(wish) = self.wish.take().filter(|_| rules.enabled) else { return Ok(Found::default()) };
        let meant = match (wish.asked, rules.when) {
            (Some(asked), _) => asked,
            (None, CacheWhen::All) => true,
            (None, CacheWhen::Deterministic) => is_deterministic(&self.request),
            (None, CacheWhen::Asked) => false,
        };
        if !meant || wish.no_store {
            flight.cache = Some(Told::Bypass);
            return if wish.only_if_cached { Err(not_cached()) } else { Ok(Found::default()) };
        }
        let cache = &self.gateway.cache;
        let key = key(&self.request, &wish.owner);
        let mut found = Found::default();
        if wish.no_cache {
            flight.cache = Some(Told::Bypass);
        } else {
            if let Some(stored) = cache.get(flight, &key, &wish, &self.request.input).await {
                flight.cache = Some(Told::Hit(stored.age(flight.ports.unix_time())));
                return Ok(Found { hit: Some(stored), lead: None });
            }
            flight.cache = Some(Told::Miss);
        }
        if wish.only_if_cached {
            return Err(not_cached());
        }
        let alone = Lead { key, of: None };
        found.lead = Some(match wish.no_cache {
            true => alone,
            false => match cache.flights.join(key) {
                Ok(lead) => lead,
                Err(follower) => {
                    let provider = route.targets.first().and_then(|target| config.providers.get(&target.provider));
                    let total = provider.map_or(config.timeouts.total, |provider| provider.timeouts.total);
                    match before(flight.ports.as_ref(), flight.start + total, follower).await {
                        Some(Followed::Lead(lead)) => lead,
                        Some(Followed::Alone) => alone,
                        Some(Followed::Answer(value)) => match Stored::decode(&value, &self.request.input) {
                            Some(stored) => {
                                flight.cache = Some(Told::Hit(stored.age(flight.ports.unix_time())));
                                return Ok(Found { hit: Some(stored), lead: None });
                            }
                            None => alone,
                        },
                        None => {
                            let name = route.targets.first().map_or("", |target| target.provider.as_str());
                            return Err(Timeout::Total.failure(name, total));
                        }
                    }
                }
            },
        });
        self.recorder = Some((Recorder::new(rules, &self.request), rules.ttl));
        Ok(found)
    }

    /// The answer that was found, as if it came now.
    pub(crate) async fn replay<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        stored: Stored,
        writer: &Writer,
    ) -> Result<Ended, Failed> {
        let provider = stored.head.provider.clone();
        let fault = |fault: Fault, flight: &Flight<P>| {
            flight.ports.warn(&Warning::Fault { request_id: &flight.record.request_id, fault: &fault });
            Failed::fault(&fault, None)
        };
        flight.record.cached = true;
        flight.record.provider = Some(provider);
        flight.record.dropped = stored.head.dropped;
        let (dialect, asked) = (&self.dialect, &self.request.dialect);
        stored.reads.iter().flatten().for_each(|event| flight.note(dialect, asked, event));
        flight.record.first_token.get_or_insert(flight.ports.now().saturating_sub(flight.start));
        let reads = self.watched_whole(flight, stored.reads)?;
        let mut whole = None;
        if self.request.stream {
            let mut begun = false;
            for read in reads.into_iter().filter(|read| !read.is_empty()) {
                let bytes = self.normaliser.feed(read).map_err(|error| fault(error, flight))?;
                if !begun {
                    begun = true;
                    let head = self.normaliser.head().map_err(|error| fault(error, flight))?;
                    writer.head(head.status, flight.headers(head.headers));
                    flight.record.status = head.status;
                }
                writer.write(Bytes::from(bytes)).await;
            }
        } else {
            let events = reads.into_iter().flatten().collect();
            whole = Some(Bytes::from(self.normaliser.feed(events).map_err(|error| fault(error, flight))?));
        }
        self.ended(flight, whole).map_err(|error| fault(error, flight))
    }

    /// The answer is complete: what is to be kept of it, for those that wait too.
    pub(crate) fn fresh<P: Ports>(&mut self, flight: &Flight<P>, found: &mut Found) -> Option<Fresh> {
        let (mut lead, (recorder, ttl)) = (found.lead.take()?, self.recorder.take()?);
        let head = Head {
            at: flight.ports.unix_time().as_secs(),
            provider: flight.record.provider.clone().unwrap_or_default(),
            dropped: flight.record.dropped.clone(),
        };
        match recorder.value(&head) {
            Some(value) => Some(Fresh { lead, value, ttl }),
            None => {
                lead.end(|_| Stage::Dissolved);
                None
            }
        }
    }

    /// There is no answer to keep: the request failed, or another one is to be asked (`again`).
    pub(crate) fn forgo(&mut self, found: &mut Found, again: bool) {
        self.recorder = None;
        match found.lead.take() {
            Some(mut lead) if again => lead.end(|_| Stage::Dissolved),
            Some(lead) => lead.failed(),
            None => {}
        }
    }
}

impl Found {
    /// The answer that is kept, once.
    pub fn hit(&mut self) -> Option<Stored> {
        self.hit.take()
    }
}

impl Told {
    /// The headers that tell it.
    pub fn headers(self, headers: &mut Vec<Field>) {
        let word = match self {
            Told::Hit(age) => {
                headers.push(("age".to_owned(), age.to_string()));
                "hit"
            }
            Told::Miss => "miss",
            Told::Bypass => "bypass",
        };
        headers.push((HEADER.to_owned(), word.to_owned()));
    }
}
