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
//! integer. Places held at once are a set of tokens, each with an end of its own, so that a gateway that died gives its
//! places back.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

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

    /// Takes every charge (at most [`MAX_CHARGES`]), or none. `token` is the request's own: it names the places that it
    /// holds.
    fn take(&self, now: Duration, token: &str, charges: &[Charge]) -> impl Future<Output = Result<Taken, StateError>>;

    /// Corrects what `token` took at the moment `taken`: what was not used is given back, what was used beyond it is
    /// taken, whatever the limit. Places are given up.
    fn settle(
        &self,
        now: Duration,
        token: &str,
        taken: Duration,
        corrections: &[Correction],
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Over the time that ends now and is this long. At least a second.
    Sliding(Duration),
    /// From one moment to another, since 1970.
    Period(Duration, Duration),
    /// At once: a place, until it is given up, or until this moment if its holder forgets to.
    Held(Duration),
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
    /// How much is taken; of a [`Rule::Held`] always one place.
    pub amount: u64,
}

/// What is to be corrected at one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The meter's name.
    pub key: String,
    /// How it counts, as when it was taken.
    pub rule: Rule,
    /// What is added: less than zero gives back.
    pub amount: i64,
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

/// Where counters lie, within one transaction: the half of a store that [`take`] and [`settle`] need.
pub trait Counters {
    /// A counter; zero where there is none.
    fn count(&mut self, key: &str) -> Result<u64, StateError>;
    /// Sets a counter that may be forgotten from the moment `expires` on.
    fn set_count(&mut self, key: &str, value: u64, expires: Duration) -> Result<(), StateError>;
    /// The tokens that hold a place now, without those whose end has come.
    fn places(&mut self, now: Duration, key: &str) -> Result<u64, StateError>;
    /// Gives a token a place until `expires`.
    fn hold(&mut self, key: &str, token: &str, expires: Duration) -> Result<(), StateError>;
    /// Takes a token's place away.
    fn release(&mut self, key: &str, token: &str) -> Result<(), StateError>;
}

/// The name of the counter that a meter uses at a moment, and the moment from which it counts no more.
pub fn counter(key: &str, rule: Rule, now: Duration) -> (String, Duration) {
    match rule {
        Rule::Sliding(window) => {
            let number = window_number(window, now);
            (format!("{key}@{number}"), window_start(window, number + 2))
        }
        Rule::Period(start, end) => (format!("{key}@{}", start.as_secs()), end),
        Rule::Held(until) => (key.to_owned(), until),
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

fn now_used(counters: &mut impl Counters, now: Duration, key: &str, rule: Rule) -> Result<(u64, u64, u64), StateError> {
    let (name, _) = counter(key, rule, now);
    Ok(match rule {
        Rule::Sliding(window) => {
            let running = counters.count(&name)?;
            let number = window_number(window, now);
            let before = match number.checked_sub(1) {
                Some(number) => counters.count(&format!("{key}@{number}"))?,
                None => 0,
            };
            (sliding(window, now, running, before), running, before)
        }
        Rule::Period(..) => {
            let used = counters.count(&name)?;
            (used, used, 0)
        }
        Rule::Held(_) => {
            let used = counters.places(now, key)?;
            (used, used, 0)
        }
    })
}

/// [`State::take`] within a transaction.
pub fn take(counters: &mut impl Counters, now: Duration, token: &str, charges: &[Charge]) -> Result<Taken, StateError> {
    if charges.len() > MAX_CHARGES {
        return Err(StateError(format!("{} charges at once; the most is {MAX_CHARGES}", charges.len())));
    }
    let mut all = Vec::with_capacity(charges.len());
    for (number, charge) in charges.iter().enumerate() {
        check_key(&charge.key)?;
        let (used, running, before) = now_used(counters, now, &charge.key, charge.rule)?;
        let amount = if matches!(charge.rule, Rule::Held(_)) { 1 } else { charge.amount };
        if used.saturating_add(amount) > charge.limit {
            let after = match charge.rule {
                Rule::Sliding(window) => room(window, now, running, before, charge.limit, amount),
                Rule::Period(_, end) if amount <= charge.limit => Some(end.saturating_sub(now)),
                Rule::Period(..) | Rule::Held(_) => None,
            };
            return Ok(Taken::Refused { charge: number, used, after });
        }
        all.push((used.saturating_add(amount), running.saturating_add(amount)));
    }
    for (charge, (_, count)) in charges.iter().zip(&all) {
        match charge.rule {
            Rule::Held(until) => counters.hold(&charge.key, token, until)?,
            rule => {
                let (name, expires) = counter(&charge.key, rule, now);
                counters.set_count(&name, *count, expires)?;
            }
        }
    }
    Ok(Taken::All(all.into_iter().map(|(used, _)| used).collect()))
}

/// [`State::settle`] within a transaction.
pub fn settle(
    counters: &mut impl Counters,
    now: Duration,
    token: &str,
    taken: Duration,
    corrections: &[Correction],
) -> Result<(), StateError> {
    for Correction { key, rule, amount } in corrections {
        if let Rule::Held(_) = rule {
            counters.release(key, token)?;
            continue;
        }
        let (name, expires) = counter(key, *rule, taken);
        if *amount != 0 && expires > now {
            let count = counters.count(&name)?.saturating_add_signed(*amount);
            counters.set_count(&name, count, expires)?;
        }
    }
    Ok(())
}

/// [`State::used`] within a transaction.
pub fn used(counters: &mut impl Counters, now: Duration, meters: &[(String, Rule)]) -> Result<Vec<u64>, StateError> {
    meters.iter().map(|(key, rule)| now_used(counters, now, key, *rule).map(|(used, ..)| used)).collect()
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

    async fn take(&self, now: Duration, token: &str, charges: &[Charge]) -> Result<Taken, StateError> {
        match self {
            Either::One(store) => store.take(now, token, charges).await,
            Either::Other(store) => store.take(now, token, charges).await,
        }
    }

    async fn settle(
        &self,
        now: Duration,
        token: &str,
        taken: Duration,
        corrections: &[Correction],
    ) -> Result<(), StateError> {
        match self {
            Either::One(store) => store.settle(now, token, taken, corrections).await,
            Either::Other(store) => store.settle(now, token, taken, corrections).await,
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
    /// By name: the tokens that hold a place, and until when.
    pub places: HashMap<String, HashMap<String, Duration>>,
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
        self.places.retain(|_, tokens| {
            tokens.retain(|_, expires| *expires > now);
            !tokens.is_empty()
        });
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
        let Some(tokens) = self.places.get_mut(key) else { return Ok(0) };
        tokens.retain(|_, expires| *expires > now);
        Ok(tokens.len() as u64)
    }

    fn hold(&mut self, key: &str, token: &str, expires: Duration) -> Result<(), StateError> {
        self.places.entry(key.to_owned()).or_default().insert(token.to_owned(), expires);
        Ok(())
    }

    fn release(&mut self, key: &str, token: &str) -> Result<(), StateError> {
        if let Some(tokens) = self.places.get_mut(key) {
            tokens.remove(token);
        }
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

    async fn take(&self, now: Duration, token: &str, charges: &[Charge]) -> Result<Taken, StateError> {
        self.with(now, |inner| take(&mut inner.meters, now, token, charges))
    }

    async fn settle(
        &self,
        now: Duration,
        token: &str,
        taken: Duration,
        corrections: &[Correction],
    ) -> Result<(), StateError> {
        self.with(now, |inner| settle(&mut inner.meters, now, token, taken, corrections))
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
        assert_eq!(now(memory.take(s(59), "a", &one)), Ok(Taken::All(vec![10])));
        // A new window has begun, and still all but a sixtieth of the old one counts.
        let refused = now(memory.take(s(61), "b", &[charge("k", minute, 10, 1)]));
        assert_eq!(refused, Ok(Taken::Refused { charge: 0, used: 10, after: Some(s(5)) }));
        let at = s(61 + 5);
        assert_eq!(now(memory.take(at, "b", &[charge("k", minute, 10, 1)])), Ok(Taken::All(vec![10])));
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
        let refused = now(memory.take(s(10), "a", &charges));
        assert_eq!(refused, Ok(Taken::Refused { charge: 1, used: 0, after: None }));
        let meters = [("requests".to_owned(), Rule::Sliding(s(60))), ("budget".to_owned(), day)];
        assert_eq!(now(memory.used(s(10), &meters)), Ok(vec![0, 0]));
    }

    #[test]
    fn settling_corrects_the_window_in_which_it_was_taken() {
        let memory = Memory::default();
        let minute = Rule::Sliding(s(60));
        assert!(matches!(now(memory.take(s(30), "a", &[charge("t", minute, 100, 50)])), Ok(Taken::All(_))));
        let less = [Correction { key: "t".into(), rule: minute, amount: -40 }];
        now(memory.settle(s(90), "a", s(30), &less)).expect("settled");
        // Half of the ten that are left still counts.
        assert_eq!(now(memory.used(s(90), &[("t".into(), minute)])), Ok(vec![5]));
        // What comes when the window is long gone changes nothing.
        now(memory.settle(s(500), "a", s(30), &[Correction { key: "t".into(), rule: minute, amount: 1_000 }]))
            .expect("ok");
        assert_eq!(now(memory.used(s(500), &[("t".into(), minute)])), Ok(vec![0]));
    }

    #[test]
    fn a_place_is_given_up_or_ends_by_itself() {
        let memory = Memory::default();
        let held = |until| [charge("c", Rule::Held(s(until)), 1, 1)];
        assert_eq!(now(memory.take(s(1), "a", &held(100))), Ok(Taken::All(vec![1])));
        let refused = Ok(Taken::Refused { charge: 0, used: 1, after: None });
        assert_eq!(now(memory.take(s(2), "b", &held(100))), refused);
        let give = [Correction { key: "c".into(), rule: Rule::Held(s(100)), amount: 0 }];
        now(memory.settle(s(3), "a", s(1), &give)).expect("given up");
        assert_eq!(now(memory.take(s(4), "b", &held(50))), Ok(Taken::All(vec![1])));
        assert_eq!(now(memory.take(s(50), "c", &held(100))), Ok(Taken::All(vec![1])));
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
