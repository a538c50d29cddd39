//! What a request takes of limits and budgets: reserved when it starts, settled when it ends.
//!
//! All meters of a request (of its key, its tenant, its model) are taken from in one call, or none is: a refused request
//! costs nothing. Reserved are one request, one place, as many tokens as the prompt is estimated to have (a quarter of
//! its bytes, a thousand for a picture) and the answer may have (the request's own bound, else
//! `accounting.output_tokens`), and their price at the most expensive target that may answer. At the end, however it
//! comes, the tokens and the price become those that the backends counted, of answers too that the client did not see;
//! where a backend had begun an answer and no count came, they are estimated from what came of it.
//!
//! What is taken is a reservation of the state store, whose lease lasts as long as any request may take: what a process
//! that was killed had taken is given back when that is over. A settlement that failed is tried again for some time, and
//! happens once at most. What a request of a job owes is written with its answer ([`Debt`]), and settled from there as often
//! as need be: it counts once, whoever is killed when.
//!
//! A minute's limit refuses what would exceed it. A budget lets requests in until it is used up, those that run
//! included: it is exceeded by one request's worth at most, and none of it stays out of reach.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use witgate_config::{Config, OnFailure, Price, Quota, Route, Terms, Tokens, Unpriced, Webhook};
use witgate_model::{Error, ErrorKind, Event, Field, Input, MediaSource, Message, Part, Request, Retry, Usage};

use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http;
use crate::jobs;
use crate::keep::Keep;
use crate::keys::{Client, unavailable, within};
use crate::metrics::{Threshold, Thresholds};
use crate::path::Flight;
use crate::ports::Ports;
use crate::record::Warning;
use crate::state::{Charge, Expect, Once, Rule, State, StateError, Taken, Use};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: u64 = 86_400;
/// The end of all time, as far as budgets know it: the year 2286.
const ETERNITY: Duration = Duration::from_secs(9_999_999_999);
/// How much longer than a request may take what it has taken is kept for it.
const SLACK: Duration = Duration::from_secs(60);
/// The parts of a budget at which the operator is told, in percent.
const THRESHOLDS: [u64; 3] = [50, 80, 100];
/// Estimates: the bytes of a token, and the tokens of a picture, a sound, a document.
const BYTES_PER_TOKEN: u64 = 4;
const MEDIA_TOKENS: u64 = 1_000;
/// Of how much this process remembers that the store knows it already.
const MOST_TOLD: usize = 65_536;
/// Of a model's name, what spend is recorded under, in bytes.
const LONGEST_MODEL: usize = 256;

/// The waits before a settlement that failed is tried again.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];
/// The most settlements of one process that are tried again at a time.
const MOST_AGAIN: usize = 10_000;

/// What a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    Requests,
    Tokens,
    Places,
    Day,
    Month,
    Total,
}

impl Measure {
    fn is_money(self) -> bool {
        matches!(self, Measure::Day | Measure::Month | Measure::Total)
    }

    /// In a meter's name.
    fn name(self) -> &'static str {
        match self {
            Measure::Requests => "rpm",
            Measure::Tokens => "tpm",
            Measure::Places => "at-once",
            Measure::Day => "day",
            Measure::Month => "month",
            Measure::Total => "total",
        }
    }
}

/// Who shares a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    Key,
    Tenant,
    Model,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Scope::Key => "key",
            Scope::Tenant => "tenant",
            Scope::Model => "model",
        }
    }
}

/// What somebody may use of one thing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Meter {
    measure: Measure,
    scope: Scope,
    /// Of the key, the tenant, the model.
    owner: String,
    /// In the state store.
    key: Arc<str>,
    limit: u64,
}

/// The meters of terms.
pub(crate) fn meters(scope: Scope, owner: &str, terms: &Terms, into: &mut Vec<Arc<Meter>>) {
    let Quota { requests_per_minute, tokens_per_minute, concurrent_requests } = terms.quota;
    let limits = [
        (Measure::Requests, requests_per_minute.map(u64::from)),
        (Measure::Tokens, tokens_per_minute.map(u64::from)),
        (Measure::Places, concurrent_requests.map(u64::from)),
        (Measure::Day, terms.budget.day),
        (Measure::Month, terms.budget.month),
        (Measure::Total, terms.budget.total),
    ];
    into.extend(limits.into_iter().filter_map(|(measure, limit)| {
        let key = format!("meter/{}/{owner}/{}", scope.name(), measure.name()).into();
        Some(Arc::new(Meter { measure, scope, owner: owner.to_owned(), key, limit: limit? }))
    }));
}

/// The day of a moment, as `2026-11-21`, and its first second.
pub(crate) fn day(now: Duration) -> (String, u64) {
    let date = date(now);
    (format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()), now.as_secs() / DAY * DAY)
}

fn date(now: Duration) -> time::Date {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

/// The longest that a request to any provider may take.
pub(crate) fn longest(config: &Config) -> Duration {
    config.providers.values().map(|provider| provider.timeouts.total).max().unwrap_or_default()
}

/// When this month began, and when the next one begins.
fn month(now: Duration) -> (Duration, Duration) {
    let date = date(now);
    let today = now.as_secs() / DAY;
    let first = today + 1 - u64::from(date.day());
    let seconds = |days: u64| Duration::from_secs(days * DAY);
    (seconds(first), seconds(first + u64::from(date.month().length(date.year()))))
}

fn rule(measure: Measure, now: Duration) -> Rule {
    match measure {
        Measure::Requests | Measure::Tokens => Rule::Sliding(MINUTE),
        Measure::Places => Rule::Held,
        Measure::Day => {
            let start = now.as_secs() / DAY * DAY;
            Rule::Period(Duration::from_secs(start), Duration::from_secs(start + DAY))
        }
        Measure::Month => {
            let (start, end) = month(now);
            Rule::Period(start, end)
        }
        Measure::Total => Rule::Period(Duration::ZERO, ETERNITY),
    }
}

/// What the state store was told of before, so that it is told once: hashes. And what the metrics are told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    known: Arc<Mutex<HashSet<u64>>>,
    thresholds: Thresholds,
    webhook: Option<Webhook>,
    raised: AtomicUsize,
    /// Settlements that are being tried again.
    again: AtomicUsize,
}

impl Told {
    fn hash(what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        hasher.finish()
    }

    /// How many thresholds this process was the first to tell of.
    fn raised(&self) -> usize {
        self.raised.load(Ordering::Relaxed)
    }

    fn has(&self, what: u64) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&what)
    }

    fn add(&self, what: u64) {
        let mut told = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(what);
    }
}

/// What is the same for all requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The meters of models.
    models: std::collections::BTreeMap<String, Vec<Arc<Meter>>>,
    /// Longer than any request takes.
    longest: Duration,
    told: Arc<Told>,
}

impl Ledger {
    pub fn new(config: &Config, thresholds: Thresholds) -> Self {
        Ledger::knowing(config, thresholds, Arc::default())
    }

    /// `known` is what the state store was told of before.
    fn knowing(config: &Config, thresholds: Thresholds, known: Arc<Mutex<HashSet<u64>>>) -> Self {
        let quotas = config.access.models.iter().map(|(model, quota)| {
            let mut all = Vec::new();
            meters(Scope::Model, model, &Terms { quota: *quota, ..Terms::default() }, &mut all);
            (model.clone(), all)
        });
        let longest = longest(config);
        Ledger {
            models: quotas.collect(),
            longest: longest + SLACK,
            told: Arc::new(Told { known, thresholds, webhook: config.access.webhook.clone(), ..Told::default() }),
        }
    }

    /// The ledger that takes this one's place when the configuration is read anew. What was counted lies in the state
    /// store, and stays.
    pub fn successor(&self, config: &Config, thresholds: Thresholds) -> Self {
        Ledger::knowing(config, thresholds, Arc::clone(&self.told.known))
    }
}

/// What was taken of one meter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hold {
    #[serde(flatten)]
    meter: Arc<Meter>,
    rule: Rule,
    amount: u64,
    /// Whether its first threshold was reached when it was taken, what all requests had reserved included. Where none
    /// was, none is reached by a request that costs no more than it had reserved: who reserves more later sees it.
    #[serde(skip)]
    is_near: bool,
}

/// What one request has taken, and what it turns out to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bill {
    /// Of its reservation.
    id: String,
    /// When it was taken, since 1970.
    taken: Duration,
    holds: Vec<Hold>,
    /// It was refused, and costs nothing: whatever was taken for it, the request itself included, is given back.
    refused: bool,
    /// The estimate of the prompt, in tokens.
    prompt: u64,
    /// The bytes of the answer that have come, of the current try.
    seen: u64,
    /// A price that the current try has; none where there is no price.
    price: Option<Price>,
    priced: bool,
    /// In nano-dollars, of all tries that have ended.
    cost: u64,
    tokens: Tokens,
    /// Where spend is recorded.
    spend: Option<Arc<Spending>>,
    /// What the client is told of its limits.
    limits: [Option<Limit>; 2],
    told: Option<Arc<Told>>,
}

/// What the client is told of one limit.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Of the headers that say the limit, what is left of it, and when all of it is there again.
    names: [&'static str; 3],
    limit: u64,
    left: u64,
    reset: Duration,
}

impl Limit {
    fn new(hold: &Hold, used: u64, now: Duration) -> Option<Self> {
        let names = match hold.meter.measure {
            Measure::Requests => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
            Measure::Tokens => ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
            _ => return None,
        };
        let limit = hold.meter.limit;
        let (_, forgotten) = hold.rule.counter(now);
        let reset = if used == 0 { Duration::ZERO } else { forgotten.saturating_sub(now) };
        Some(Limit { names, limit, left: limit.saturating_sub(used), reset })
    }
}

/// Of the limits of a minute, of each kind the one of which least is left.
fn limits<'h>(now: Duration, meters: impl Iterator<Item = (&'h Hold, &'h u64)> + Clone) -> [Option<Limit>; 2] {
    [Measure::Requests, Measure::Tokens].map(|measure| {
        let of = meters.clone().filter(|(hold, _)| hold.meter.measure == measure);
        let (hold, used) = of.min_by_key(|(hold, used)| hold.meter.limit.saturating_sub(**used))?;
        Limit::new(hold, *used, now)
    })
}

/// Where a key's spend of a day at a model is recorded.
#[derive(Debug)]
pub(crate) struct Spending {
    /// The day's first second.
    start: u64,
    model: String,
    rule: Rule,
    /// Its counters' names, in the order of [`SPEND`].
    counters: [Arc<str>; 4],
    entry: Arc<Spend>,
}

/// The entry that a day's list of spend has.
#[derive(Debug, Serialize, Deserialize)]
struct Spend {
    key: String,
    /// The tenant.
    value: String,
    until: Duration,
    /// Whether the state store has it.
    #[serde(skip)]
    is_there: AtomicBool,
}

impl Bill {
    /// The next try is at this provider's model.
    pub fn price(&mut self, price: Option<Price>) {
        self.priced |= price.is_some();
        self.price = price;
    }

    /// Events have come.
    pub fn see(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) = event {
                self.seen = self.seen.saturating_add(delta.text.len() as u64);
            }
        }
    }

    /// A try has ended. `usage` is what the backend counted; `complete`: it has given its whole answer.
    pub fn close(&mut self, usage: Option<&Usage>, complete: bool) {
        let mut tokens = usage.map(tokens).unwrap_or_default();
        let seen = std::mem::take(&mut self.seen).div_ceil(BYTES_PER_TOKEN);
        if seen > 0 && (!complete || usage.is_none()) {
            // It was cut off before it told its last count.
            tokens.input = if tokens.input == 0 { self.prompt } else { tokens.input };
            tokens.output = tokens.output.max(seen);
        }
        self.cost = self.cost.saturating_add(self.price.map_or(0, |price| price.cost(&tokens)));
        self.tokens.input = self.tokens.input.saturating_add(tokens.input);
        self.tokens.output = self.tokens.output.saturating_add(tokens.output);
    }

    /// `x-ratelimit-…`.
    pub fn headers(&self, headers: &mut Vec<Field>) {
        for limit in self.limits.iter().flatten() {
            let values = [limit.limit.to_string(), limit.left.to_string(), reset(limit.reset)];
            headers.extend(limit.names.into_iter().map(str::to_owned).zip(values));
        }
    }

    /// What it has cost, in nano-dollars; none where no target has a price.
    pub fn cost(&self) -> Option<u64> {
        self.priced.then_some(self.cost)
    }

    /// It is to cost nothing: what was reserved is given back.
    pub fn void(&mut self) {
        (self.cost, self.tokens, self.spend) = (0, Tokens::default(), None);
    }

    /// What is to be done now that the request has ended; none where nothing is.
    pub fn work(&mut self, request_id: &str) -> Option<Work> {
        let debt = self.debt(request_id)?;
        Some(Work(Kind::Settle { debt, told: self.told.take().unwrap_or_default() }))
    }

    /// What it owes now that the request has ended; none where nothing was taken or is to be counted.
    pub fn debt(&mut self, request_id: &str) -> Option<Debt> {
        let used = self.tokens.input.saturating_add(self.tokens.output);
        let mut uses = Vec::with_capacity(self.holds.len() + 4);
        let mut budgets = Vec::new();
        let reserved = !self.holds.is_empty();
        for hold in self.holds.drain(..) {
            let amount = match hold.meter.measure {
                Measure::Requests if self.refused => 0,
                Measure::Requests | Measure::Places => continue,
                Measure::Tokens => used,
                _ => self.cost,
            };
            uses.push(Use { key: Arc::clone(&hold.meter.key), rule: hold.rule, amount });
            if hold.meter.measure.is_money() && (hold.is_near || amount > hold.amount) {
                budgets.push(hold);
            }
        }
        let spend = self.spend.take().filter(|_| used > 0 || self.cost > 0);
        if let Some(spend) = &spend {
            let amounts = [self.cost, 1, self.tokens.input, self.tokens.output];
            for (key, amount) in spend.counters.iter().zip(amounts) {
                uses.push(Use { key: Arc::clone(key), rule: spend.rule, amount });
            }
        }
        let spend = spend.map(|spend| Arc::clone(&spend.entry));
        if !reserved && uses.is_empty() {
            return None;
        }
        let id = std::mem::take(&mut self.id);
        Some(Debt { id, taken: self.taken, reserved, uses, budgets, spend, request_id: request_id.to_owned() })
    }
}

/// What the counters of spend are called.
pub(crate) const SPEND: [&str; 4] = ["cost", "requests", "input", "output"];

fn tokens(usage: &Usage) -> Tokens {
    let of = |count: Option<u64>| count.unwrap_or(0);
    Tokens {
        input: of(usage.input_tokens),
        output: of(usage.output_tokens),
        cache_read: of(usage.cache_read_tokens),
        cache_write: of(usage.cache_write_tokens),
        reasoning: of(usage.reasoning_tokens),
    }
}

/// What a request that has ended owes: how its reservation is to be settled, and what else is to be counted. It can be
/// written down and settled by another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Debt {
    /// Of the reservation.
    id: String,
    taken: Duration,
    /// Whether anything was reserved.
    reserved: bool,
    uses: Vec<Use>,
    /// Those that may have reached a threshold.
    budgets: Vec<Hold>,
    spend: Option<Arc<Spend>>,
    request_id: String,
}

/// What remains to be done for a request that has ended, whoever has left: see [`Ports::after`].
#[derive(Debug)]
pub struct Work(Kind);

#[derive(Debug)]
enum Kind {
    Settle { debt: Debt, told: Arc<Told> },
    Keep(Keep),
}

/// One settlement that is tried again.
struct Trying<'t>(&'t Told);

impl<'t> Trying<'t> {
    /// None where there are too many.
    fn new(told: &'t Told) -> Option<Self> {
        let before = told.again.fetch_add(1, Ordering::Relaxed);
        let trying = Trying(told);
        (before < MOST_AGAIN).then_some(trying)
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.again.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Work {
    pub(crate) fn keep(keep: Keep) -> Self {
        Work(Kind::Keep(keep))
    }

    /// Does it. Where a settlement's state store cannot be asked, the operator is told, and it is tried again for half a
    /// minute; what was reserved is given back when its lease is over.
    pub async fn run<P: Ports>(self, ports: &P) {
        match self.0 {
            Kind::Settle { debt, told } => debt.settle_for_sure(ports, &told).await,
            Kind::Keep(mut keep) => keep.write(ports).await,
        }
    }
}

impl Debt {
    /// Settles it, now or soon.
    async fn settle_for_sure<P: Ports>(&self, ports: &P, told: &Told) {
        let raised = told.raised();
        let Err(error) = self.settle(ports, told, Once::First).await else {
            if let Some(webhook) = told.webhook.as_ref().filter(|_| told.raised() != raised)
                && let Err(error) = jobs::send(ports, webhook, &jobs::Behind::default()).await
            {
                ports.warn(&Warning::State { why: &error });
            }
            return;
        };
        ports.warn(&Warning::State { why: &error });
        // What was not reserved cannot be told from what was counted already.
        let Some(_trying) = Trying::new(told).filter(|_| self.reserved) else { return };
        for pause in AGAIN {
            ports.sleep_until(ports.now() + pause).await;
            match self.settle(ports, told, Once::Again).await {
                Ok(()) => return,
                Err(error) => ports.warn(&Warning::State { why: &error }),
            }
        }
    }

    /// Settles it, and tells of thresholds that were reached.
    async fn settle<P: Ports>(&self, ports: &P, told: &Told, once: Once) -> Result<(), StateError> {
        let state = ports.state();
        let now = ports.unix_time();
        // First: what is counted can be found.
        if let Some(spend) = self.spend.as_ref().filter(|spend| !spend.is_there.load(Ordering::Relaxed)) {
            let hash = Told::hash(&spend.key);
            if !told.has(hash) {
                let value = Some(Bytes::from(spend.value.clone()));
                within(ports, state.set(now, &spend.key, value, Some(spend.until), Expect::Absent)).await?;
                told.add(hash);
            }
            spend.is_there.store(true, Ordering::Relaxed);
        }
        within(ports, state.settle(now, &self.id, self.taken, &self.uses, once)).await?;
        if self.budgets.is_empty() {
            return Ok(());
        }
        let meters: Vec<_> = self.budgets.iter().map(|hold| (Arc::clone(&hold.meter.key), hold.rule)).collect();
        let used = within(ports, state.used(now, &meters)).await?;
        for (hold, used) in self.budgets.iter().zip(used) {
            hold.tell(ports, told, now, used, &self.request_id).await?;
        }
        Ok(())
    }
}

impl Hold {
    /// What the webhook is told of a threshold.
    fn notice(&self, now: Duration, start: Duration, end: Duration, used: u64, percent: u64) -> Value {
        let usd = |nano: u64| nano as f64 / 1e9;
        let ends = (end != ETERNITY).then(|| jobs::timestamp(end.as_secs()));
        json!({
            "type": "budget.threshold",
            "timestamp": jobs::timestamp(now.as_secs()),
            "data": {
                "scope": self.meter.scope.name(), "owner": self.meter.owner, "period": self.meter.measure.name(), "percent": percent,
                "used_usd": usd(used), "limit_usd": usd(self.meter.limit),
                "period_start": ends.is_some().then(|| jobs::timestamp(start.as_secs())), "period_end": ends,
            },
        })
    }

    /// Tells the operator of thresholds that a budget has reached, each once in a period.
    async fn tell<P: Ports>(
        &self,
        ports: &P,
        told: &Told,
        now: Duration,
        used: u64,
        request_id: &str,
    ) -> Result<(), StateError> {
        let Rule::Period(start, end) = self.rule else { return Ok(()) };
        let reached =
            |percent: &&u64| u128::from(used) * 100 >= u128::from(self.meter.limit) * u128::from(**percent) && used > 0;
        for percent in THRESHOLDS.iter().filter(reached) {
            let hash = Told::hash((&self.meter.key, start, percent));
            if told.has(hash) {
                continue;
            }
            let key = format!("alert/{}@{}/{percent}", self.meter.key, start.as_secs());
            let body = told.webhook.is_some().then(|| self.notice(now, start, end, used, *percent));
            let first = within(ports, jobs::mark(ports, &key, end, body)).await?;
            told.add(hash);
            if first {
                let threshold = Threshold { scope: self.meter.scope.name(), percent: *percent };
                told.thresholds.get_or_create(&threshold).inc();
                told.raised.fetch_add(1, Ordering::Relaxed);
                ports.warn(&Warning::Budget {
                    request_id,
                    scope: self.meter.scope.name(),
                    owner: &self.meter.owner,
                    period: self.meter.measure.name(),
                    percent: *percent,
                    used,
                    limit: self.meter.limit,
                });
            }
        }
        Ok(())
    }
}

/// The most tokens that a request is expected to take: of its prompt and of its answer.
fn estimate(request: &Request, body_bytes: usize, default: u32) -> (u64, u64) {
    let (mut media, mut media_bytes) = (0_u64, 0_u64);
    let mut count = |messages: &[Message]| {
        for part in messages.iter().flat_map(|message| &message.parts) {
            if let Part::Media(part) = part {
                match &part.source {
                    MediaSource::Text(_) => continue,
                    MediaSource::Base64(text) => media_bytes += text.len() as u64,
                    _ => {}
                }
                media += 1;
            }
        }
    };
    match &request.input {
        Input::Chat(messages) | Input::CountTokens(messages) => count(messages),
        _ => {}
    }
    let text = (body_bytes as u64).saturating_sub(media_bytes);
    let input = text.div_ceil(BYTES_PER_TOKEN).saturating_add(media.saturating_mul(MEDIA_TOKENS));
    if !request.input.is_generation() {
        return (input, 0);
    }
    let sampling = &request.sampling;
    let bound = sampling.max_completion_tokens.or(sampling.max_tokens).unwrap_or(u64::from(default));
    (input, bound.saturating_mul(u64::from(sampling.n.unwrap_or(1).max(1))))
}

/// A time as OpenAI writes it: `1s`, `6m0s`, `20ms`.
fn reset(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (number, unit) = match (millis, millis.div_ceil(1_000)) {
        (0..1_000, _) => (millis, "ms"),
        (_, seconds @ 0..60) => (seconds, "s"),
        (_, seconds) => return format!("{}m{}s", seconds / 60, seconds % 60),
    };
    let mut text = number.to_string();
    text.push_str(unit);
    text
}

/// The most that the targets of a route may ask for so many tokens, of whichever kind, in nano-dollars; none where one has
/// no price and that is not free. `name` is the model as the client wrote it: targets without a name of their own are asked
/// for it.
fn dearest(config: &Config, route: &Route<'_>, name: &str, input: u64, output: u64) -> Option<u64> {
    let fallback = route.model.map(|model| &model.fallback);
    let lists = fallback.into_iter().flat_map(|lists| [&lists.any, &lists.context_length, &lists.content_policy]);
    let mut most = 0;
    for target in route.targets.iter().chain(lists.flatten()) {
        match config.access.price(&target.provider, target.model.as_deref().unwrap_or(name)) {
            Some(price) => {
                let all = Tokens { input, output, ..Tokens::default() };
                let cache_write = if price.cache_write > price.input { input } else { 0 };
                let reasoning = if price.reasoning > price.output { output } else { 0 };
                most = most.max(price.cost(&Tokens { cache_write, reasoning, ..all }));
            }
            None if config.access.unpriced == Unpriced::Refuse => return None,
            None => {}
        }
    }
    Some(most)
}

impl Gateway {
    /// Settles what a request owes that was written down: once, however often this is done until then.
    pub(crate) async fn pay<P: Ports>(&self, ports: &P, debt: &Debt, until: Duration) -> Result<(), StateError> {
        debt.settle(ports, &self.ledger.told, Once::Until(until)).await
    }

    /// Refuses a model that the client may not ask for. What it is served by is not asked: that a policy chooses another
    /// model is the operator's will.
    pub(crate) fn allow<P: Ports>(&self, flight: &Flight<P>, model: &str) -> Result<(), Failed> {
        let Some(client) = flight.client.as_ref().filter(|client| client.is_restricted()) else { return Ok(()) };
        let alias = || Some(self.config.route(model).ok()?.model?.alias.as_str());
        let name = if model.is_empty() { alias().unwrap_or_default() } else { model };
        if client.may_ask(name) {
            return Ok(());
        }
        let name: String = name.chars().take(128).collect();
        let message = format!("the API key may not ask for the model \"{name}\"");
        let mut failed = Failed::ours(403, "permission_error", "model_not_allowed", message);
        failed.error.param = Some("model".to_owned());
        Err(failed)
    }

    /// Takes what a request may need of its client's limits and budgets, or refuses it. `request` is the one that is
    /// served: as the policies have left it, its model the one that they chose.
    pub(crate) async fn take<P: Ports>(
        &self,
        flight: &mut Flight<P>,
        request: &Request,
        body_bytes: usize,
    ) -> Result<(), Failed> {
        let Some(client) = flight.client.clone() else { return Ok(()) };
        let access = &self.config.access;
        // An unknown model is refused later, and costs nothing.
        let Ok(route) = self.config.route(&request.model) else { return Ok(()) };
        let alias = route.model.map(|model| model.alias.as_str());
        let name = if request.model.is_empty() { alias.unwrap_or_default() } else { &request.model };
        let now = flight.ports.unix_time();
        let (input, output) = estimate(request, body_bytes, access.output_tokens);
        flight.bill.prompt = input;
        flight.bill.taken = now;
        flight.bill.id = http::id(flight.ports.random());
        flight.bill.told = Some(Arc::clone(&self.ledger.told));
        if client.has_key && access.admin_key.is_some() {
            // The alias for whatever has none says nothing of what was asked for.
            let model = alias.filter(|alias| *alias != "*").unwrap_or(name);
            flight.bill.spend = Some(client.spending.of(now, access.keep_spend, &client, model));
        }
        let of_model = alias.and_then(|alias| self.ledger.models.get(alias)).map_or(&[][..], Vec::as_slice);
        if client.meters.is_empty() && of_model.is_empty() {
            return Ok(());
        }
        let money = client.meters.iter().any(|meter| meter.measure.is_money());
        let cost = if money { dearest(&self.config, &route, &request.model, input, output) } else { Some(0) };
        let Some(cost) = cost else {
            let message = format!("no price is known for the model \"{name}\", and the API key has a budget");
            return Err(Failed::ours(403, "permission_error", "model_not_priced", message));
        };
        let all = client.meters.iter().chain(of_model);
        // What costs nothing needs no budget.
        let all = all.filter(|meter| !meter.measure.is_money() || cost > 0);
        let most = client.meters.len() + of_model.len();
        let (mut holds, mut charges) = (Vec::with_capacity(most), Vec::with_capacity(most));
        for meter in all {
            let amount = match meter.measure {
                Measure::Requests | Measure::Places => 1,
                Measure::Tokens => input.saturating_add(output),
                _ => cost,
            };
            let rule = rule(meter.measure, now);
            // A budget is open until it is used up.
            let most = match meter.measure.is_money() {
                true if meter.limit > 0 => meter.limit.saturating_add(amount) - 1,
                _ => meter.limit,
            };
            let charge = Charge { key: Arc::clone(&meter.key), rule, limit: most, amount };
            charges.push(charge);
            holds.push(Hold { meter: Arc::clone(meter), rule, amount, is_near: true });
        }
        if charges.is_empty() {
            return Ok(());
        }
        let ports = Arc::clone(&flight.ports);
        let lease = now + self.ledger.longest;
        // Before the store is asked: whoever stops waiting for it, what it has taken is given back.
        flight.bill.holds = holds;
        match within(ports.as_ref(), ports.state().take(now, &flight.bill.id, lease, &charges)).await {
            Ok(Taken::All(used)) => {
                let holds = &mut flight.bill.holds;
                for (hold, used) in holds.iter_mut().zip(&used) {
                    hold.is_near = used.saturating_mul(100) >= hold.meter.limit.saturating_mul(THRESHOLDS[0]);
                }
                flight.bill.limits = limits(now, holds.iter().zip(&used));
                Ok(())
            }
            Ok(Taken::Refused { charge, used, after }) => {
                flight.bill.spend = None;
                let Some(hold) = std::mem::take(&mut flight.bill.holds).into_iter().nth(charge) else {
                    return Err(unavailable());
                };
                if hold.meter.measure.is_money()
                    && let Err(error) =
                        hold.tell(ports.as_ref(), &self.ledger.told, now, used, &flight.record.request_id).await
                {
                    ports.warn(&Warning::State { why: &error });
                }
                flight.bill.limits = [Limit::new(&hold, used, now), None];
                Err(refused(&hold, used, after))
            }
            Err(error) => {
                ports.warn(&Warning::State { why: &error });
                match access.on_failure {
                    // Nobody knows whether it was taken: what is used counts, as soon as that can be told.
                    OnFailure::Open => Ok(()),
                    // Where it was, all of it is given back.
                    OnFailure::Closed => {
                        flight.bill.refused = true;
                        Err(unavailable())
                    }
                }
            }
        }
    }
}

/// Where a client's spend is recorded that asks for the same model as a rule: made once a day.
#[derive(Debug, Default)]
pub(crate) struct LastSpending(Mutex<Option<Arc<Spending>>>);

impl LastSpending {
    fn of(&self, now: Duration, keep: Duration, client: &Client, model: &str) -> Arc<Spending> {
        let end = (0..=model.len().min(LONGEST_MODEL)).rev().find(|at| model.is_char_boundary(*at)).unwrap_or(0);
        let model = model.get(..end).unwrap_or_default();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |last: &&Arc<Spending>| last.start == now.as_secs() / DAY * DAY && last.model == model;
        if let Some(last) = last.as_ref().filter(same) {
            return Arc::clone(last);
        }
        let (day, start) = day(now);
        let key = format!("spend/{day}/{}/{model}", client.id);
        let spending = Arc::new(Spending {
            start,
            model: model.to_owned(),
            rule: spend_rule(start, keep),
            counters: spend_counters(&key),
            entry: Arc::new(Spend {
                key,
                value: client.tenant.clone().unwrap_or_default(),
                until: Duration::from_secs(start) + keep,
                is_there: AtomicBool::new(false),
            }),
        });
        *last = Some(Arc::clone(&spending));
        spending
    }
}

/// The counters of an entry of spend, in the order of [`SPEND`].
pub(crate) fn spend_counters(entry: &str) -> [Arc<str>; 4] {
    SPEND.map(|name| format!("{entry}#{name}").into())
}

/// How the counters of spend count, of the day that begins at this second.
pub(crate) fn spend_rule(start: u64, keep: Duration) -> Rule {
    let start = Duration::from_secs(start);
    Rule::Period(start, start + keep)
}

/// What the client is told of a limit that it has reached.
fn refused(hold: &Hold, used: u64, after: Option<Duration>) -> Failed {
    let Meter { measure, scope, ref owner, limit, .. } = *hold.meter;
    let whose = format!("{} \"{owner}\"", scope.name());
    let dollars = |nano: u64| format!("${:.6}", nano as f64 / 1e9);
    if measure.is_money() {
        let period = match measure {
            Measure::Day => "today",
            Measure::Month => "this month",
            _ => "in all",
        };
        let message = format!(
            "the budget of the {whose} is used up: {} of {} {period}, running requests included",
            dollars(used),
            dollars(limit)
        );
        let error =
            Error::new(ErrorKind::QuotaExhausted, message).with_code("budget_exceeded").with_retry(Retry::Never);
        return Failed { error, status: 402, error_type: "insufficient_quota", provider: None };
    }
    let wait = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
    let (code, message, wait) = match measure {
        Measure::Places => {
            let message =
                format!("the {whose} has {used} requests at once, and {limit} is its limit; try again shortly");
            ("concurrency_limit_exceeded", message, Some(1_000))
        }
        _ => {
            let what = if measure == Measure::Requests { "requests" } else { "tokens" };
            let amount = hold.amount;
            let tail = match wait {
                Some(wait) => format!("try again in {}", reset(Duration::from_millis(wait))),
                None => "this request alone is larger".to_owned(),
            };
            let message = format!(
                "the {whose} has used {used} of {limit} {what} per minute, and this request needs {amount}; {tail}"
            );
            ("rate_limit_exceeded", message, wait)
        }
    };
    let retry = wait.map_or(Retry::Never, |wait| Retry::SameTarget(Some(wait)));
    let error = Error::new(ErrorKind::RateLimited, message).with_code(code).with_retry(retry);
    Failed { error, status: 429, error_type: "rate_limit_error", provider: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_written_as_openai_writes_it() {
        for (millis, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (59_000, "59s"),
            (59_001, "1m0s"),
            (60_000, "1m0s"),
            (61_500, "1m2s"),
            (119_001, "2m0s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(reset(Duration::from_millis(millis)), text, "{millis}");
        }
    }

    #[test]
    fn months_have_their_own_lengths() {
        let s = Duration::from_secs;
        let feb = s(1_707_955_200); // 2024-02-15
        assert_eq!(month(feb), (s(1_706_745_600), s(1_709_251_200)));
        assert_eq!(month(s(1_709_251_199)), (s(1_706_745_600), s(1_709_251_200)));
        assert_eq!(month(s(1_709_251_200)).0, s(1_709_251_200));
        assert_eq!(day(feb + s(5)), ("2024-02-15".to_owned(), 1_707_955_200));
    }
}
