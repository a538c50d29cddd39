//! State that outlives one request: keys, meters, kept answers, jobs.
//!
//! A store has two halves. The first is a map of small values with expiry and compare-and-set, enough for records that
//! one process changes at a time. The second counts: [`State::take`] takes amounts from several meters at once, or from
//! none of them, and [`State::settle`] corrects what was taken when the real amount is known. Both are atomic, over all
//! gateways that share the store.
//!
//! Nothing here reads a clock: every call brings the time (since 1970-01-01 UTC). A store bounds its own time: a call
//! fails with [`StateError`] rather than hang. What a failure means is the caller's choice, and the operator's.
//!
//! # Meters
//!
//! A sliding window is counted in two halves that are whole windows: what was taken in the running window counts fully,
//! what was taken in the one before it counts by the share that the sliding window still covers. It refuses exactly at
//! the limit, forgets evenly, and is two integers however many requests there are. A period (a day, a month) is one
//! integer. Places held at once are a set of ids, each with an end of its own.
//!
//! # Reservations
//!
//! What a [`State::take`] took is a reservation: it has the id that the caller gave it, and a lease. A second `take` with an
//! id that is still reserved takes nothing more, so that a call of which nobody knows what became of it may be made again.
//! [`State::settle`] ends the reservation: what it held of each meter becomes what was used. When the lease has ended before,
//! because the process that took it has died, whoever takes next gives back all that it held, places too; a settlement that
//! comes later still then counts what was used in full. A settlement may be made again as [`Once`] says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::quality::RandomState;
use serde::{Deserialize, Serialize};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Most charges of one [`State::take`].
pub const MAX_CHARGES: usize = 16;

/// Where state lies.
pub trait State {
    /// A value, unless it has expired.
    fn get(&self, now: Duration, key: &str) -> impl Future<Output = Result<Option<Bytes>, StateError>>;

    /// Sets a value, or with `None` removes it, where `expect` holds; gives whether it held. A value with an `expires`
    /// is gone from that moment on.
    fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> impl Future<Output = Result<bool, StateError>>;

    /// The values whose keys begin with `prefix`, in the order of their keys, from behind `after`, at most `limit`.
    fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(String, Bytes)>, StateError>>;

    /// Takes every charge (at most [`MAX_CHARGES`]), or none, for the reservation `id`, whose lease ends at `lease`. Where it
    /// is taken already nothing more is, and the answer tells what is used. The same id with other charges is a mistake.
    fn take(
        &self,
        now: Duration,
        id: &str,
        lease: Duration,
        charges: &[Charge],
    ) -> impl Future<Output = Result<Taken, StateError>>;

    /// Ends the reservation `id`, taken at the moment `taken`: what it held of each meter in `uses` becomes what was used
    /// of it, whatever the limit; of meters that it did not hold, or no longer, that is taken in full. What it held of other
    /// meters stays taken; places are given up.
    fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> impl Future<Output = Result<(), StateError>>;

    /// How much of each meter is used, without taking of it.
    fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> impl Future<Output = Result<Vec<u64>, StateError>>;
}

/// What a value must be for a [`State::set`] to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Whatever it is.
    Anything,
    /// There is none.
    Absent,
    /// These bytes.
    Is(&'a [u8]),
}

/// How a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Over the time that ends now and is this long. At least a second.
    Sliding(Duration),
    /// From one moment to another, since 1970.
    Period(Duration, Duration),
    /// At once: a place, until its reservation ends, or the lease of that.
    Held,
}

/// What is to be taken from one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The meter's name.
    pub key: Arc<str>,
    /// How it counts.
    pub rule: Rule,
    /// The most that it may hold.
    pub limit: u64,
    /// How much is taken; of [`Rule::Held`] always one place.
    pub amount: u64,
}

/// What was used of one meter in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The meter's name.
    pub key: Arc<str>,
    /// How it counts, as when it was taken. Not [`Rule::Held`]: a place is given up with its reservation.
    pub rule: Rule,
    /// How much.
    pub amount: u64,
}

/// How often a settlement may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// It is made for the first time.
    First,
    /// It was made before, and nobody knows what became of it: it happens only if the reservation is still there.
    Again,
    /// It may be made any number of times until this moment, by anybody, and happens once: the store remembers it, and has
    /// written it as safely as it writes values when the call returns.
    Until(Duration),
}

/// What [`State::take`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Everything was taken: how full each meter is now, in the order of the charges.
    All(Vec<u64>),
    /// Nothing was: the first meter that was too full.
    Refused {
        /// Its place among the charges.
        charge: usize,
        /// How much of it was used.
        used: u64,
        /// When the same charge can be taken at the earliest, if nobody else takes any; `None` for never, the amount
        /// being more than the limit, and for places, since nobody knows.
        after: Option<Duration>,
    },
}

/// The store cannot be asked. The text is for operators: it names no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state store: {0}")]
pub struct StateError(pub String);

/// What a meter counts in: a number, for one window or period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The meter's name.
    pub meter: Arc<str>,
    /// Of the window, or the period's first second.
    pub at: u64,
}

/// As [`counter`] names it.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.meter, self.at)
    }
}

impl Counter {
    /// The counter that is shown as this.
    pub fn parse(shown: &str) -> Option<Self> {
        let (meter, at) = shown.rsplit_once('@')?;
        Some(Counter { meter: meter.into(), at: at.parse().ok()? })
    }
}

/// What a reservation holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// When its lease ends.
    pub lease: Duration,
    /// Of counters: which, how much, and when the counter counts no more.
    pub amounts: Vec<(Counter, u64, Duration)>,
    /// The meters of which it holds a place.
    pub places: Vec<Arc<str>>,
}

/// Where counters lie, within one transaction: the half of a store that [`take`] and [`settle`] need.
pub trait Counters {
    /// A counter, and the same meter's of the number before; zero where there is none.
    fn counts(&mut self, meter: &str, at: u64) -> Result<(u64, u64), StateError>;
    /// Adds `more` to a counter and takes `less` away, but not below zero. It may be forgotten from the moment `expires` on.
    fn change(&mut self, counter: &Counter, more: u64, less: u64, expires: Duration) -> Result<(), StateError>;
    /// How many ids hold a place now, without those whose end has come.
    fn places(&mut self, now: Duration, meter: &str) -> Result<u64, StateError>;
    /// Gives an id a place until `expires`.
    fn hold(&mut self, meter: &Arc<str>, id: &Arc<str>, expires: Duration) -> Result<(), StateError>;
    /// Takes an id's place away.
    fn release(&mut self, meter: &Arc<str>, id: &str) -> Result<(), StateError>;
    /// Whether there is a reservation.
    fn is_reserved(&mut self, id: &str) -> Result<bool, StateError>;
    /// Adds a reservation.
    fn reserve(&mut self, id: &Arc<str>, reservation: Reservation) -> Result<(), StateError>;
    /// Removes a reservation; what it held is still taken.
    fn close(&mut self, id: &str) -> Result<Option<Reservation>, StateError>;
    /// A reservation whose lease has ended.
    fn ended(&mut self, now: Duration) -> Result<Option<Arc<str>>, StateError>;
    /// Whether a settlement is remembered.
    fn is_settled(&mut self, now: Duration, id: &str) -> Result<bool, StateError>;
    /// Remembers a settlement.
    fn remember(&mut self, id: &str, until: Duration) -> Result<(), StateError>;
}

impl Rule {
    /// The number of the counter that a meter uses at a moment, and the moment from which that counts no more.
    pub fn counter(self, now: Duration) -> (u64, Duration) {
        match self {
            Rule::Sliding(window) => {
                let number = window_number(window, now);
                (number, window_start(window, number + 2))
            }
            Rule::Period(start, end) => (start.as_secs(), end),
            Rule::Held => (0, Duration::MAX),
        }
    }
}

/// The name of the counter that a meter uses at a moment, and the moment from which it counts no more. A meter of places
/// has its own name.
pub fn counter(key: &str, rule: Rule, now: Duration) -> (String, Duration) {
    match (rule, rule.counter(now)) {
        (Rule::Held, (_, end)) => (key.to_owned(), end),
        (_, (at, end)) => (format!("{key}@{at}"), end),
    }
}

fn window_millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1_000)
}

fn window_number(window: Duration, now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX) / window_millis(window)
}

fn window_start(window: Duration, number: u64) -> Duration {
    Duration::from_millis(number.saturating_mul(window_millis(window)))
}

/// What a sliding window holds at a moment: the running window's count, and the share of the one before that it covers.
pub fn sliding(window: Duration, now: Duration, running: u64, before: u64) -> u64 {
    let millis = window_millis(window);
    let into = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) % millis;
    let share = u128::from(before) * u128::from(millis - into);
    running.saturating_add(u64::try_from(share.div_ceil(u128::from(millis))).unwrap_or(u64::MAX))
}

/// When a sliding window has room for `amount` again, if nobody takes of it.
pub fn room(window: Duration, now: Duration, running: u64, before: u64, limit: u64, amount: u64) -> Option<Duration> {
    if amount > limit {
        return None;
    }
    let millis = window_millis(window);
    let into = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) % millis;
    // The time from the start of a window at which `old`, taken in the one before, has shrunk to `free`.
    let shrunk = |old: u64, free: u64| match old {
        0 => 0,
        old => {
            let left = u128::from(free) * u128::from(millis) / u128::from(old);
            millis - u64::try_from(left).unwrap_or(u64::MAX).min(millis)
        }
    };
    let wait = match (limit - amount).checked_sub(running) {
        Some(free) => shrunk(before, free).saturating_sub(into),
        None => (millis - into) + shrunk(running, limit - amount),
    };
    Some(Duration::from_millis(wait))
}

/// Fails where a key is longer than [`MAX_KEY_BYTES`]. Each store asks this before it writes.
pub fn check_key(key: &str) -> Result<(), StateError> {
    match key.len() {
        0..=MAX_KEY_BYTES => Ok(()),
        length => Err(StateError(format!("a key of {length} bytes; the most is {MAX_KEY_BYTES}"))),
    }
}

/// What a meter holds: as it counts, in the counter of now, and in the one before that.
fn now_used(
    counters: &mut impl Counters,
    now: Duration,
    meter: &str,
    rule: Rule,
) -> Result<(u64, u64, u64), StateError> {
    Ok(match rule {
        Rule::Sliding(window) => {
            let (running, before) = counters.counts(meter, window_number(window, now))?;
            (sliding(window, now, running, before), running, before)
        }
        Rule::Period(start, _) => {
            let (used, _) = counters.counts(meter, start.as_secs())?;
            (used, used, 0)
        }
        Rule::Held => {
            let used = counters.places(now, meter)?;
            (used, used, 0)
        }
    })
}

/// [`State::take`] within a transaction.
pub fn take(
    counters: &mut impl Counters,
    now: Duration,
    id: &str,
    lease: Duration,
    charges: &[Charge],
) -> Result<Taken, StateError> {
    if charges.len() > MAX_CHARGES {
        return Err(StateError(format!("{} charges at once; the most is {MAX_CHARGES}", charges.len())));
    }
    while let Some(ended) = counters.ended(now)? {
        give_back(counters, now, &ended)?;
    }
    let again = counters.is_reserved(id)?;
    let mut all = Vec::with_capacity(charges.len());
    let mut reservation = Reservation { lease, amounts: Vec::with_capacity(charges.len()), places: Vec::new() };
    for (number, charge) in charges.iter().enumerate() {
        check_key(&charge.key)?;
        let (used, running, before) = now_used(counters, now, &charge.key, charge.rule)?;
        if again {
            all.push(used);
            continue;
        }
        let amount = if charge.rule == Rule::Held { 1 } else { charge.amount };
        if used.saturating_add(amount) > charge.limit {
            let after = match charge.rule {
                Rule::Sliding(window) => room(window, now, running, before, charge.limit, amount),
                Rule::Period(_, end) if amount <= charge.limit => Some(end.saturating_sub(now)),
                Rule::Period(..) | Rule::Held => None,
            };
            return Ok(Taken::Refused { charge: number, used, after });
        }
        all.push(used.saturating_add(amount));
        let meter = Arc::clone(&charge.key);
        match charge.rule {
            Rule::Held => reservation.places.push(meter),
            rule => {
                let (at, expires) = rule.counter(now);
                reservation.amounts.push((Counter { meter, at }, amount, expires));
            }
        }
    }
    if again || charges.is_empty() {
        return Ok(Taken::All(all));
    }
    let id = Arc::from(id);
    for (counter, amount, expires) in &reservation.amounts {
        counters.change(counter, *amount, 0, *expires)?;
    }
    for meter in &reservation.places {
        counters.hold(meter, &id, lease)?;
    }
    counters.reserve(&id, reservation)?;
    Ok(Taken::All(all))
}

/// Gives back what a reservation holds whose lease has ended.
fn give_back(counters: &mut impl Counters, now: Duration, id: &str) -> Result<(), StateError> {
    let Some(Reservation { amounts, places, .. }) = counters.close(id)? else { return Ok(()) };
    for (counter, amount, expires) in amounts {
        if expires > now {
            counters.change(&counter, 0, amount, expires)?;
        }
    }
    places.iter().try_for_each(|meter| counters.release(meter, id))
}

/// [`State::settle`] within a transaction.
pub fn settle(
    counters: &mut impl Counters,
    now: Duration,
    id: &str,
    taken: Duration,
    uses: &[Use],
    once: Once,
) -> Result<(), StateError> {
    uses.iter().try_for_each(|used| check_key(&used.key))?;
    if counters.is_settled(now, id)? {
        return Ok(());
    }
    let Reservation { amounts, places, .. } = match counters.close(id)? {
        Some(reservation) => reservation,
        None if once == Once::Again => return Ok(()),
        None => Reservation::default(),
    };
    places.iter().try_for_each(|meter| counters.release(meter, id))?;
    for Use { key, rule, amount } in uses {
        let (at, expires) = rule.counter(taken);
        let holds = |held: &Counter| held.at == at && held.meter == *key;
        let held = amounts.iter().find(|(held, ..)| holds(held)).map_or(0, |(_, held, _)| *held);
        if *amount != held && expires > now && *rule != Rule::Held {
            counters.change(&Counter { meter: Arc::clone(key), at }, *amount, held, expires)?;
        }
    }
    match once {
        Once::Until(until) => counters.remember(id, until),
        Once::First | Once::Again => Ok(()),
    }
}

/// [`State::used`] within a transaction.
pub fn used(counters: &mut impl Counters, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
    meters.iter().map(|(meter, rule)| now_used(counters, now, meter, *rule).map(|(used, ..)| used)).collect()
}

/// One of two stores, as an operator chose.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The one.
    One(A),
    /// The other.
    Other(B),
}

impl<A: State, B: State> State for Either<A, B> {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        match self {
            Either::One(store) => store.get(now, key).await,
            Either::Other(store) => store.get(now, key).await,
        }
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        match self {
            Either::One(store) => store.set(now, key, value, expires, expect).await,
            Either::Other(store) => store.set(now, key, value, expires, expect).await,
        }
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        match self {
            Either::One(store) => store.list(now, prefix, after, limit).await,
            Either::Other(store) => store.list(now, prefix, after, limit).await,
        }
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        match self {
            Either::One(store) => store.take(now, id, lease, charges).await,
            Either::Other(store) => store.take(now, id, lease, charges).await,
        }
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        match self {
            Either::One(store) => store.settle(now, id, taken, uses, once).await,
            Either::Other(store) => store.settle(now, id, taken, uses, once).await,
        }
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        match self {
            Either::One(store) => store.used(now, meters).await,
            Either::Other(store) => store.used(now, meters).await,
        }
    }
}

/// State in the memory of one process: gone with it, and not shared.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

/// Meters in memory, for a store that keeps them there.
#[derive(Debug, Default)]
pub struct Meters {
    /// By name.
    meters: HashMap<Arc<str>, Meter, RandomState>,
    /// By id.
    reservations: HashMap<Arc<str>, Reservation, RandomState>,
    /// By id: until when a settlement is remembered.
    settled: HashMap<String, Duration, RandomState>,
    /// The ends of leases, and whose they are.
    leases: BTreeSet<(Duration, Arc<str>)>,
}

/// What a meter holds.
#[derive(Debug, Default)]
struct Meter {
    /// Counters: their numbers, how much was taken, and the moment from which they count no more. There are few.
    counts: Vec<(u64, u64, Duration)>,
    /// The ids that hold a place, and until when.
    places: HashMap<Arc<str>, Duration, RandomState>,
    /// No place ends before this moment.
    next_end: Duration,
}

impl Meter {
    fn count(&self, at: u64) -> u64 {
        self.counts.iter().find(|(number, ..)| *number == at).map_or(0, |(_, count, _)| *count)
    }

    /// Throws away the places whose end has come.
    fn end(&mut self, now: Duration) {
        if now >= self.next_end {
            self.places.retain(|_, expires| *expires > now);
            self.next_end = self.places.values().min().copied().unwrap_or(Duration::MAX);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    values: BTreeMap<String, (Bytes, Option<Duration>)>,
    bytes: usize,
    meters: Meters,
    /// When what has expired is looked for again.
    sweep: Duration,
}

/// What an entry takes beside its key and value, about, in bytes.
const ENTRY_BYTES: usize = 128;
/// How often what has expired is thrown away.
const SWEEP: Duration = Duration::from_secs(10);

impl Memory {
    /// An empty store whose values take at most `max_bytes`, keys included: what would take more is refused.
    pub fn new(max_bytes: usize) -> Self {
        Memory { inner: Mutex::default(), max_bytes }
    }

    fn with<T>(&self, now: Duration, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= inner.sweep {
            inner.sweep = now + SWEEP;
            inner.forget(now);
        }
        work(&mut inner)
    }
}

impl Default for Memory {
    /// 256 MiB.
    fn default() -> Self {
        Memory::new(256 << 20)
    }
}

impl Inner {
    fn forget(&mut self, now: Duration) {
        let mut freed = 0;
        self.values.retain(|key, (value, expires)| {
            let keep = expires.is_none_or(|expires| expires > now);
            freed += if keep { 0 } else { key.len() + value.len() + ENTRY_BYTES };
            keep
        });
        self.bytes = self.bytes.saturating_sub(freed);
        self.meters.forget(now);
    }

    fn get(&self, now: Duration, key: &str) -> Option<&Bytes> {
        let (value, expires) = self.values.get(key)?;
        expires.is_none_or(|expires| expires > now).then_some(value)
    }
}

impl Meters {
    /// Throws away what counts no more.
    pub fn forget(&mut self, now: Duration) {
        self.meters.retain(|_, meter| {
            meter.counts.retain(|(.., expires)| *expires > now);
            meter.end(now);
            !meter.counts.is_empty() || !meter.places.is_empty()
        });
        self.settled.retain(|_, until| *until > now);
    }

    /// What a counter holds, and the moment from which it counts no more.
    pub fn counter(&self, counter: &Counter) -> Option<(u64, Duration)> {
        let counts = &self.meters.get(&counter.meter)?.counts;
        counts.iter().find(|(at, ..)| *at == counter.at).map(|(_, count, expires)| (*count, *expires))
    }

    /// Until when an id holds a place.
    pub fn place(&self, meter: &str, id: &str) -> Option<Duration> {
        self.meters.get(meter)?.places.get(id).copied()
    }

    /// A reservation.
    pub fn reservation(&self, id: &str) -> Option<&Reservation> {
        self.reservations.get(id)
    }

    /// Until when a settlement is remembered.
    pub fn settlement(&self, id: &str) -> Option<Duration> {
        self.settled.get(id).copied()
    }

    /// Does something to a meter, which is made where it is not there.
    fn with(&mut self, name: &Arc<str>, work: impl FnOnce(&mut Meter)) {
        match self.meters.get_mut(name) {
            Some(meter) => work(meter),
            None => work(self.meters.entry(Arc::clone(name)).or_default()),
        }
    }
}

impl Counters for Meters {
    fn counts(&mut self, meter: &str, at: u64) -> Result<(u64, u64), StateError> {
        let Some(meter) = self.meters.get(meter) else { return Ok((0, 0)) };
        Ok((meter.count(at), at.checked_sub(1).map_or(0, |before| meter.count(before))))
    }

    fn change(&mut self, counter: &Counter, more: u64, less: u64, expires: Duration) -> Result<(), StateError> {
        self.with(&counter.meter, |meter| match meter.counts.iter_mut().find(|(at, ..)| *at == counter.at) {
            Some((_, count, until)) => (*count, *until) = (count.saturating_add(more).saturating_sub(less), expires),
            None => meter.counts.push((counter.at, more.saturating_sub(less), expires)),
        });
        Ok(())
    }

    fn places(&mut self, now: Duration, meter: &str) -> Result<u64, StateError> {
        let Some(meter) = self.meters.get_mut(meter) else { return Ok(0) };
        meter.end(now);
        Ok(meter.places.len() as u64)
    }

    fn hold(&mut self, meter: &Arc<str>, id: &Arc<str>, expires: Duration) -> Result<(), StateError> {
        self.with(meter, |meter| {
            meter.next_end = meter.next_end.min(expires);
            meter.places.insert(Arc::clone(id), expires);
        });
        Ok(())
    }

    fn release(&mut self, meter: &Arc<str>, id: &str) -> Result<(), StateError> {
        if let Some(meter) = self.meters.get_mut(meter) {
            meter.places.remove(id);
        }
        Ok(())
    }

    fn is_reserved(&mut self, id: &str) -> Result<bool, StateError> {
        Ok(self.reservations.contains_key(id))
    }

    fn reserve(&mut self, id: &Arc<str>, reservation: Reservation) -> Result<(), StateError> {
        self.leases.insert((reservation.lease, Arc::clone(id)));
        self.reservations.insert(Arc::clone(id), reservation);
        Ok(())
    }

    fn close(&mut self, id: &str) -> Result<Option<Reservation>, StateError> {
        let Some((id, reservation)) = self.reservations.remove_entry(id) else { return Ok(None) };
        self.leases.remove(&(reservation.lease, id));
        Ok(Some(reservation))
    }

    fn ended(&mut self, now: Duration) -> Result<Option<Arc<str>>, StateError> {
        let first = self.leases.first().filter(|(lease, _)| *lease <= now);
        Ok(first.map(|(_, id)| Arc::clone(id)))
    }

    fn is_settled(&mut self, now: Duration, id: &str) -> Result<bool, StateError> {
        Ok(self.settled.get(id).is_some_and(|until| *until > now))
    }

    fn remember(&mut self, id: &str, until: Duration) -> Result<(), StateError> {
        self.settled.insert(id.to_owned(), until);
        Ok(())
    }
}

impl State for Memory {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        Ok(self.with(now, |inner| inner.get(now, key).cloned()))
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        check_key(key)?;
        self.with(now, |inner| {
            let known = inner.get(now, key);
            let holds = match expect {
                Expect::Anything => true,
                Expect::Absent => known.is_none(),
                Expect::Is(bytes) => known.is_some_and(|known| known == bytes),
            };
            if !holds {
                return Ok(false);
            }
            let size = |value: &Bytes| key.len() + value.len() + ENTRY_BYTES;
            let old = inner.values.get(key).map_or(0, |(value, _)| size(value));
            let after = inner.bytes.saturating_sub(old) + value.as_ref().map_or(0, size);
            if value.is_some() && after > self.max_bytes {
                return Err(StateError(format!("full: it may hold {} bytes", self.max_bytes)));
            }
            inner.bytes = after;
            match value {
                Some(value) => drop(inner.values.insert(key.to_owned(), (value, expires))),
                None => drop(inner.values.remove(key)),
            }
            Ok(true)
        })
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        Ok(self.with(now, |inner| {
            let found = inner.values.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
            let live = found.filter(|(_, (_, expires))| expires.is_none_or(|expires| expires > now));
            live.take(limit).map(|(key, (value, _))| (key.clone(), value.clone())).collect()
        }))
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.with(now, |inner| take(&mut inner.meters, now, id, lease, charges))
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.with(now, |inner| settle(&mut inner.meters, now, id, taken, uses, once))
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.with(now, |inner| used(&mut inner.meters, now, meters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<F: Future>(future: F) -> F::Output {
        futures_util::FutureExt::now_or_never(future).unwrap_or_else(|| panic!("memory does not wait"))
    }

    const LEASE: Duration = s(3_600);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn charge(key: &str, rule: Rule, limit: u64, amount: u64) -> Charge {
        Charge { key: key.into(), rule, limit, amount }
    }

    #[test]
    fn a_window_slides_instead_of_starting_anew() {
        let memory = Memory::default();
        let minute = Rule::Sliding(s(60));
        let one = [charge("k", minute, 10, 10)];
        assert_eq!(now(memory.take(s(59), "a", LEASE, &one)), Ok(Taken::All(vec![10])));
        // A new window has begun, and still all but a sixtieth of the old one counts.
        let refused = now(memory.take(s(61), "b", LEASE, &[charge("k", minute, 10, 1)]));
        assert_eq!(refused, Ok(Taken::Refused { charge: 0, used: 10, after: Some(s(5)) }));
        let at = s(61 + 5);
        assert_eq!(now(memory.take(at, "b", LEASE, &[charge("k", minute, 10, 1)])), Ok(Taken::All(vec![10])));
    }

    #[test]
    fn what_is_promised_of_room_holds_and_not_a_moment_sooner() {
        for (running, before, limit, amount, into) in [
            (0, 10, 10, 1, 1),
            (10, 0, 10, 1, 0),
            (7, 9, 10, 3, 30),
            (10, 10, 10, 10, 59),
            (3, 100, 10, 2, 12),
            (0, 0, 5, 5, 9),
        ] {
            let (window, at) = (s(60), s(600 + into));
            let wait = room(window, at, running, before, limit, amount).expect("there will be room");
            let used = |at: Duration| match window_number(window, at) - 10 {
                0 => sliding(window, at, running, before),
                1 => sliding(window, at, 0, running),
                _ => 0,
            };
            assert!(used(at + wait) + amount <= limit, "{running} {before} {limit} {amount} {into}: {wait:?}");
            if let Some(sooner) = wait.checked_sub(Duration::from_millis(1)) {
                assert!(used(at + sooner) + amount > limit, "{running} {before} {limit} {amount} {into}: {wait:?}");
            }
        }
        assert_eq!(room(s(60), s(1), 0, 0, 5, 6), None);
    }

    #[test]
    fn all_charges_are_taken_or_none() {
        let memory = Memory::default();
        let day = Rule::Period(s(0), s(86_400));
        let charges = [charge("requests", Rule::Sliding(s(60)), 5, 1), charge("budget", day, 100, 101)];
        let refused = now(memory.take(s(10), "a", LEASE, &charges));
        assert_eq!(refused, Ok(Taken::Refused { charge: 1, used: 0, after: None }));
        let meters = [("requests".into(), Rule::Sliding(s(60))), ("budget".into(), day)];
        assert_eq!(now(memory.used(s(10), &meters)), Ok(vec![0, 0]));
    }

    #[test]
    fn settling_corrects_the_window_in_which_it_was_taken() {
        let memory = Memory::default();
        let minute = Rule::Sliding(s(60));
        assert!(matches!(now(memory.take(s(30), "a", LEASE, &[charge("t", minute, 100, 50)])), Ok(Taken::All(_))));
        let used = |amount| [Use { key: "t".into(), rule: minute, amount }];
        now(memory.settle(s(90), "a", s(30), &used(10), Once::First)).expect("settled");
        // Half of the ten that are left still counts.
        assert_eq!(now(memory.used(s(90), &[("t".into(), minute)])), Ok(vec![5]));
        // What comes when the window is long gone changes nothing.
        now(memory.settle(s(500), "a", s(30), &used(1_000), Once::First)).expect("ok");
        assert_eq!(now(memory.used(s(500), &[("t".into(), minute)])), Ok(vec![0]));
    }

    #[test]
    fn a_place_is_given_up_or_ends_by_itself() {
        let memory = Memory::default();
        let take = |at, id: &str, lease| now(memory.take(s(at), id, s(lease), &[charge("c", Rule::Held, 1, 1)]));
        assert_eq!(take(1, "a", 100), Ok(Taken::All(vec![1])));
        let refused = Ok(Taken::Refused { charge: 0, used: 1, after: None });
        assert_eq!(take(2, "b", 100), refused);
        now(memory.settle(s(3), "a", s(1), &[], Once::First)).expect("given up");
        assert_eq!(take(4, "b", 50), Ok(Taken::All(vec![1])));
        assert_eq!(take(50, "c", 100), Ok(Taken::All(vec![1])));
    }

    #[test]
    fn values_expire_are_compared_and_listed_in_order() {
        let memory = Memory::new(1_000);
        let set = |at, key: &str, value: &'static str, expires, expect| {
            now(memory.set(s(at), key, Some(Bytes::from_static(value.as_bytes())), expires, expect))
        };
        assert_eq!(set(1, "j/b", "1", None, Expect::Absent), Ok(true));
        assert_eq!(set(1, "j/b", "2", None, Expect::Absent), Ok(false));
        assert_eq!(set(1, "j/b", "2", None, Expect::Is(b"1")), Ok(true));
        assert_eq!(set(1, "j/a", "x", Some(s(5)), Expect::Anything), Ok(true));
        assert_eq!(set(1, "k", "y", None, Expect::Anything), Ok(true));
        let keys = |at, after| {
            now(memory.list(s(at), "j/", after, 10))
                .expect("listed")
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(1, None), ["j/a", "j/b"]);
        assert_eq!(keys(1, Some("j/a")), ["j/b"]);
        assert_eq!(keys(5, None), ["j/b"]);
        assert_eq!(now(memory.get(s(5), "j/a")), Ok(None));
        let large = now(memory.set(s(6), "large", Some(Bytes::from(vec![0; 900])), None, Expect::Anything));
        assert!(large.is_err_and(|error| error.to_string().contains("1000 bytes")));
        // What has expired makes room.
        assert_eq!(now(memory.set(s(20), "j/b", None, None, Expect::Anything)), Ok(true));
        let large = now(memory.set(s(20), "large", Some(Bytes::from(vec![0; 700])), None, Expect::Anything));
        assert_eq!(large, Ok(true));
    }
}
