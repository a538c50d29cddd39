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
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
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
    fn used(&self, now: Duration, meters: &[(String, Rule)]) -> impl Future<Output = Result<Vec<u64>, StateError>>;
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
    pub key: String,
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
    pub key: String,
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

/// What a reservation holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// When its lease ends.
    pub lease: Duration,
    /// Of counters: the counter's name, how much, and when the counter counts no more.
    pub amounts: Vec<(String, u64, Duration)>,
    /// The meters of which it holds a place.
    pub places: Vec<String>,
}

/// Where counters lie, within one transaction: the half of a store that [`take`] and [`settle`] need.
pub trait Counters {
    /// A counter; zero where there is none.
    fn count(&mut self, key: &str) -> Result<u64, StateError>;
    /// Sets a counter that may be forgotten from the moment `expires` on.
    fn set_count(&mut self, key: &str, value: u64, expires: Duration) -> Result<(), StateError>;
    /// The ids that hold a place now, without those whose end has come.
    fn places(&mut self, now: Duration, key: &str) -> Result<u64, StateError>;
    /// Gives an id a place until `expires`.
    fn hold(&mut self, key: &str, id: &str, expires: Duration) -> Result<(), StateError>;
    /// Takes an id's place away.
    fn release(&mut self, key: &str, id: &str) -> Result<(), StateError>;
    /// Whether there is a reservation.
    fn is_reserved(&mut self, id: &str) -> Result<bool, StateError>;
    /// Adds a reservation.
    fn reserve(&mut self, id: &str, reservation: Reservation) -> Result<(), StateError>;
    /// Removes a reservation; what it held is still taken.
    fn close(&mut self, id: &str) -> Result<Option<Reservation>, StateError>;
    /// A reservation whose lease has ended.
    fn ended(&mut self, now: Duration) -> Result<Option<String>, StateError>;
    /// Whether a settlement is remembered.
    fn is_settled(&mut self, now: Duration, id: &str) -> Result<bool, StateError>;
    /// Remembers a settlement.
    fn remember(&mut self, id: &str, until: Duration) -> Result<(), StateError>;
}

/// The name of the counter that a meter uses at a moment, and the moment from which it counts no more.
pub fn counter(key: &str, rule: Rule, now: Duration) -> (String, Duration) {
    match rule {
        Rule::Sliding(window) => {
            let number = window_number(window, now);
            (format!("{key}@{number}"), window_start(window, number + 2))
        }
        Rule::Period(start, end) => (format!("{key}@{}", start.as_secs()), end),
        Rule::Held => (key.to_owned(), Duration::MAX),
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

/// What a meter holds: as it counts, in the counter `name` of now, and in the one before that.
fn now_used(
    counters: &mut impl Counters,
    now: Duration,
    key: &str,
    rule: Rule,
    name: &str,
) -> Result<(u64, u64, u64), StateError> {
    Ok(match rule {
        Rule::Sliding(window) => {
            let running = counters.count(name)?;
            let number = window_number(window, now);
            let before = match number.checked_sub(1) {
                Some(number) => counters.count(&format!("{key}@{number}"))?,
                None => 0,
            };
            (sliding(window, now, running, before), running, before)
        }
        Rule::Period(..) => {
            let used = counters.count(name)?;
            (used, used, 0)
        }
        Rule::Held => {
            let used = counters.places(now, key)?;
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
    let (mut all, mut counts) = (Vec::with_capacity(charges.len()), Vec::with_capacity(charges.len()));
    let mut reservation = Reservation { lease, amounts: Vec::with_capacity(charges.len()), places: Vec::new() };
    for (number, charge) in charges.iter().enumerate() {
        check_key(&charge.key)?;
        let (name, expires) = counter(&charge.key, charge.rule, now);
        let (used, running, before) = now_used(counters, now, &charge.key, charge.rule, &name)?;
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
        match charge.rule {
            Rule::Held => reservation.places.push(name),
            _ => {
                counts.push(running.saturating_add(amount));
                reservation.amounts.push((name, amount, expires));
            }
        }
    }
    if again || charges.is_empty() {
        return Ok(Taken::All(all));
    }
    for ((name, _, expires), count) in reservation.amounts.iter().zip(counts) {
        counters.set_count(name, count, *expires)?;
    }
    for key in &reservation.places {
        counters.hold(key, id, lease)?;
    }
    counters.reserve(id, reservation)?;
    Ok(Taken::All(all))
}

/// Gives back what a reservation holds whose lease has ended.
fn give_back(counters: &mut impl Counters, now: Duration, id: &str) -> Result<(), StateError> {
    let Some(Reservation { amounts, places, .. }) = counters.close(id)? else { return Ok(()) };
    for (name, amount, expires) in amounts {
        if expires > now {
            let count = counters.count(&name)?.saturating_sub(amount);
            counters.set_count(&name, count, expires)?;
        }
    }
    places.iter().try_for_each(|key| counters.release(key, id))
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
    places.iter().try_for_each(|key| counters.release(key, id))?;
    for Use { key, rule, amount } in uses {
        let (name, expires) = counter(key, *rule, taken);
        let held = amounts.iter().find(|(held, ..)| *held == name).map_or(0, |(_, held, _)| *held);
        if *amount != held && expires > now && *rule != Rule::Held {
            let count = counters.count(&name)?.saturating_add(*amount).saturating_sub(held);
            counters.set_count(&name, count, expires)?;
        }
    }
    match once {
        Once::Until(until) => counters.remember(id, until),
        Once::First | Once::Again => Ok(()),
    }
}

/// [`State::used`] within a transaction.
pub fn used(counters: &mut impl Counters, now: Duration, meters: &[(String, Rule)]) -> Result<Vec<u64>, StateError> {
    let each = meters.iter().map(|(key, rule)| {
        let (name, _) = counter(key, *rule, now);
        now_used(counters, now, key, *rule, &name).map(|(used, ..)| used)
    });
    each.collect()
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

    async fn used(&self, now: Duration, meters: &[(String, Rule)]) -> Result<Vec<u64>, StateError> {
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

/// Counters in memory, for a store that keeps them there.
#[derive(Debug, Default)]
pub struct Meters {
    /// By name: how much was taken, and the moment from which it counts no more.
    pub counters: HashMap<String, (u64, Duration)>,
    /// By name: the ids that hold a place, and until when.
    pub places: HashMap<String, HashMap<String, Duration>>,
    /// By id; those that [`Counters::reserve`] has added.
    pub reservations: HashMap<String, Reservation>,
    /// By id: until when a settlement is remembered.
    pub settled: HashMap<String, Duration>,
    /// The ends of leases, and whose they are.
    leases: BTreeSet<(Duration, String)>,
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
        self.counters.retain(|_, (_, expires)| *expires > now);
        self.places.retain(|_, ids| {
            ids.retain(|_, expires| *expires > now);
            !ids.is_empty()
        });
        self.settled.retain(|_, until| *until > now);
    }

    /// Adds a reservation that was read from where they are kept.
    pub fn restore(&mut self, id: &str, reservation: Reservation) {
        self.leases.insert((reservation.lease, id.to_owned()));
        self.reservations.insert(id.to_owned(), reservation);
    }
}

impl Counters for Meters {
    fn count(&mut self, key: &str) -> Result<u64, StateError> {
        Ok(self.counters.get(key).map_or(0, |(count, _)| *count))
    }

    fn set_count(&mut self, key: &str, value: u64, expires: Duration) -> Result<(), StateError> {
        match self.counters.get_mut(key) {
            Some(counter) => *counter = (value, expires),
            None => drop(self.counters.insert(key.to_owned(), (value, expires))),
        }
        Ok(())
    }

    fn places(&mut self, now: Duration, key: &str) -> Result<u64, StateError> {
        let Some(ids) = self.places.get_mut(key) else { return Ok(0) };
        ids.retain(|_, expires| *expires > now);
        Ok(ids.len() as u64)
    }

    fn hold(&mut self, key: &str, id: &str, expires: Duration) -> Result<(), StateError> {
        self.places.entry(key.to_owned()).or_default().insert(id.to_owned(), expires);
        Ok(())
    }

    fn release(&mut self, key: &str, id: &str) -> Result<(), StateError> {
        if let Some(ids) = self.places.get_mut(key) {
            ids.remove(id);
        }
        Ok(())
    }

    fn is_reserved(&mut self, id: &str) -> Result<bool, StateError> {
        Ok(self.reservations.contains_key(id))
    }

    fn reserve(&mut self, id: &str, reservation: Reservation) -> Result<(), StateError> {
        self.restore(id, reservation);
        Ok(())
    }

    fn close(&mut self, id: &str) -> Result<Option<Reservation>, StateError> {
        let Some((id, reservation)) = self.reservations.remove_entry(id) else { return Ok(None) };
        self.leases.remove(&(reservation.lease, id));
        Ok(Some(reservation))
    }

    fn ended(&mut self, now: Duration) -> Result<Option<String>, StateError> {
        let first = self.leases.first().filter(|(lease, _)| *lease <= now);
        Ok(first.map(|(_, id)| id.clone()))
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

    async fn used(&self, now: Duration, meters: &[(String, Rule)]) -> Result<Vec<u64>, StateError> {
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
        Charge { key: key.to_owned(), rule, limit, amount }
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
        let meters = [("requests".to_owned(), Rule::Sliding(s(60))), ("budget".to_owned(), day)];
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
