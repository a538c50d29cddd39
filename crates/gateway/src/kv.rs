//! State in a key-value store of the edge: `wasi:keyvalue`, which gets, sets and deletes one key, adds to one counter, and
//! swaps the value of one key that is there. Nothing in it spans two keys, nothing expires, and keys come in no order.
//!
//! What [`State`] promises is made of that so:
//!
//! - A meter is a counter that is only ever added to. [`State::take`] looks first, then adds every charge, and looks at the
//!   sums that the additions gave: where one is above its limit, all are taken back. An addition is atomic and tells its
//!   own sum, so nobody is let in beyond a limit; but of two that meet at the last unit both may be refused.
//! - A reservation is a record of what was added, written behind the additions and deleted before they are corrected; who
//!   ends it is decided by a counter that one alone increments first. So nothing is given back twice, or settled twice. But
//!   the steps are several: a gateway that dies between them leaves what it had added until the window or the period ends,
//!   and a settlement in which it dies is not made by another one. A lease that has ended is noticed by a sweep, not by
//!   the next take, since there is no order by time: it comes back the later, the more keys there are.
//! - Places are counted by the five minutes in which they end, at most half an hour ahead: a gateway that died gives its
//!   places back up to five minutes late, and one that is held longer than 25 minutes may end early.
//! - A value that is there is compared and swapped atomically. A value that is absent is set by who is the first to add to
//!   a counter of its own; who died right then keeps the key blocked for [`GIVEN_UP`] attempts. A removal that compares
//!   leaves a mark, which the next sweep takes.
//! - A list reads all keys: linear in the store.
//! - What has expired is deleted a page at a time, after each [`SWEEP_EVERY`] writes of an instance, an hour late.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::state::{
    Charge, Expect, MAX_CHARGES, MAX_KEY_BYTES, Once, Rule, State, StateError, Taken, Use, check_key, counter, room,
    sliding,
};

/// The largest value, in bytes: what stores of the edge take.
const MAX_VALUE: usize = 1 << 20;
/// After how many attempts a key that somebody began to set and never did is set by another one.
pub const GIVEN_UP: i64 = 100;
/// How often a swap is tried again that others were quicker at.
const MOST_TRIES: usize = 64;
/// How long the ends of places are counted together, and how many such times are looked at.
const SLOT: Duration = Duration::from_secs(300);
const SLOTS: u64 = 6;
/// After how many writes a page of keys is looked through for what has expired.
pub const SWEEP_EVERY: u32 = 64;
/// How long something has expired before it is deleted.
const SWEEP_AFTER: Duration = Duration::from_secs(3_600);
const NEVER: u64 = u64::MAX;

/// A page of keys, and where the next one begins.
pub type Page = (Vec<String>, Option<String>);

/// A key-value store, as `wasi:keyvalue` has it.
pub trait KeyValue {
    /// What a key holds.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;
    /// Sets a key.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StateError>;
    /// Deletes a key, if it is there.
    fn delete(&self, key: &str) -> Result<(), StateError>;
    /// Adds to a counter, zero where there is none, and gives the sum; atomic. It is eight bytes, little-endian.
    fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError>;
    /// Sets a key that holds `known`, and gives whether it did; atomic for a key that is there.
    fn swap(&self, key: &str, known: &[u8], value: &[u8]) -> Result<bool, StateError>;
    /// Some of the keys, in any order; all of them over the pages that follow each other.
    fn keys(&self, page: Option<&str>) -> Result<Page, StateError>;
}

/// State in a [`KeyValue`] store.
#[derive(Debug)]
pub struct KeyValueState<K> {
    store: K,
    /// What every key begins with.
    prefix: String,
    writes: Cell<u32>,
    /// Where the next sweep begins.
    page: RefCell<Option<String>>,
}

/// A charge that was added.
#[derive(Serialize, Deserialize)]
struct Added {
    /// Of the counter.
    key: String,
    amount: i64,
    /// Whether it is a place: then it is taken away when the reservation ends.
    place: bool,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

/// A value as it lies in the store: when it expires in nanoseconds, and its bytes.
fn packed(expires: u64, value: &[u8]) -> Vec<u8> {
    [&expires.to_le_bytes(), value].concat()
}

/// When a value expires, and its bytes.
fn unpacked(raw: &[u8]) -> Result<(u64, &[u8]), StateError> {
    let (expires, value) =
        raw.split_first_chunk().ok_or_else(|| StateError("a value that something else wrote".to_owned()))?;
    Ok((u64::from_le_bytes(*expires), value))
}

fn number(raw: Option<Vec<u8>>) -> Result<u64, StateError> {
    let Some(raw) = raw else { return Ok(0) };
    let raw = raw.try_into().map_err(|_| StateError("a counter that something else wrote".to_owned()))?;
    Ok(u64::try_from(i64::from_le_bytes(raw)).unwrap_or(0))
}

/// The end that a counter's key tells, in seconds.
fn suffix(key: &str) -> Option<u64> {
    key.rsplit(':').next()?.parse().ok()
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

impl<K: KeyValue> KeyValueState<K> {
    /// State whose keys all begin with `prefix`.
    pub fn new(store: K, prefix: &str) -> Self {
        let prefix = format!("{prefix}/");
        KeyValueState { store, prefix, writes: Cell::default(), page: RefCell::default() }
    }

    fn key(&self, kind: char, key: &str) -> String {
        format!("{}{kind}/{key}", self.prefix)
    }

    /// A counter's key: its end is a part of it, so that a sweep knows.
    fn counter_key(&self, key: &str, rule: Rule, at: Duration) -> String {
        let (name, end) = counter(key, rule, at);
        format!("{}c/{name}:{}", self.prefix, end.as_secs())
    }

    fn slot_key(&self, key: &str, slot: u64) -> String {
        format!("{}p/{key}@{slot}:{}", self.prefix, (slot + 1).saturating_mul(SLOT.as_secs()))
    }

    fn slots(now: Duration) -> std::ops::RangeInclusive<u64> {
        let first = now.as_secs() / SLOT.as_secs();
        first..=first + SLOTS
    }

    fn places(&self, now: Duration, key: &str) -> Result<u64, StateError> {
        Self::slots(now)
            .try_fold(0, |sum: u64, slot| Ok(sum.saturating_add(number(self.store.get(&self.slot_key(key, slot))?)?)))
    }

    /// What a meter's running and former windows hold.
    fn counts(&self, now: Duration, key: &str, rule: Rule) -> Result<(u64, u64), StateError> {
        match rule {
            Rule::Held => Ok((self.places(now, key)?, 0)),
            Rule::Period(..) => Ok((number(self.store.get(&self.counter_key(key, rule, now))?)?, 0)),
            Rule::Sliding(window) => {
                let running = number(self.store.get(&self.counter_key(key, rule, now))?)?;
                let whole = Duration::from_millis(u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1_000));
                let before = match now.checked_sub(whole) {
                    Some(then) => number(self.store.get(&self.counter_key(key, rule, then))?)?,
                    None => 0,
                };
                Ok((running, before))
            }
        }
    }

    /// Adds a charge; gives it and what its meter holds then.
    fn add(&self, now: Duration, lease: Duration, charge: &Charge, before: u64) -> Result<(Added, u64), StateError> {
        if charge.rule == Rule::Held {
            let slot = (lease.as_secs() / SLOT.as_secs()).min(*Self::slots(now).end());
            let key = self.slot_key(&charge.key, slot);
            self.store.increment(&key, 1)?;
            let used = self.places(now, &charge.key)?;
            return Ok((Added { key, amount: 1, place: true }, used));
        }
        let (key, amount) = (self.counter_key(&charge.key, charge.rule, now), signed(charge.amount));
        let running = u64::try_from(self.store.increment(&key, amount)?).unwrap_or(0);
        let used = match charge.rule {
            Rule::Sliding(window) => sliding(window, now, running, before),
            Rule::Period(..) | Rule::Held => running,
        };
        Ok((Added { key, amount, place: false }, used))
    }

    fn take_back(&self, added: &[Added]) -> Result<(), StateError> {
        added.iter().try_for_each(|Added { key, amount, .. }| self.store.increment(key, -amount).map(drop))
    }

    /// Ends a reservation: what it holds, where it is there and nobody else is ending it.
    fn close(&self, id: &str) -> Result<Option<Vec<Added>>, StateError> {
        let record = self.key('r', id);
        let Some(raw) = self.store.get(&record)? else { return Ok(None) };
        let added = serde_json::from_slice(unpacked(&raw)?.1)
            .map_err(|_| StateError("a reservation that something else wrote".to_owned()))?;
        let ending = self.key('e', id);
        if self.store.increment(&ending, 1)? != 1 {
            return Ok(None);
        }
        // Somebody may have ended it since it was read.
        let there = self.store.get(&record)?.is_some();
        if there {
            self.store.delete(&record)?;
        }
        self.store.delete(&ending)?;
        Ok(there.then_some(added))
    }

    /// Looks through a page of keys now and then, and deletes what has expired an hour ago.
    fn sweep(&self, now: Duration) -> Result<(), StateError> {
        let writes = self.writes.get() + 1;
        self.writes.set(writes % SWEEP_EVERY);
        if writes < SWEEP_EVERY {
            return Ok(());
        }
        let Some(then) = now.checked_sub(SWEEP_AFTER) else { return Ok(()) };
        let (keys, next) = self.store.keys(self.page.borrow().as_deref())?;
        *self.page.borrow_mut() = next;
        for key in keys {
            let Some((kind, name)) = key.strip_prefix(&self.prefix).and_then(|key| key.split_once('/')) else {
                continue;
            };
            let ended = match kind {
                "c" | "p" => suffix(name).is_some_and(|end| end <= then.as_secs()),
                "v" | "t" => match self.store.get(&key)? {
                    Some(raw) => unpacked(&raw)?.0 <= nanos(then),
                    None => false,
                },
                "r" => {
                    let ended = self.store.get(&key)?.map(|raw| unpacked(&raw).map(|(end, _)| end <= nanos(now)));
                    if ended.transpose()?.unwrap_or(false)
                        && let Some(added) = self.close(name)?
                    {
                        // A counter that has ended is not begun anew.
                        let live = |added: &Added| suffix(&added.key).is_some_and(|end| end > now.as_secs());
                        let added: Vec<_> = added.into_iter().filter(live).collect();
                        self.take_back(&added)?;
                    }
                    false
                }
                _ => false,
            };
            if ended {
                self.store.delete(&key)?;
                match kind {
                    "v" => self.store.delete(&self.key('n', name))?,
                    "t" => self.store.delete(&self.key('s', name))?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl<K: KeyValue> State for KeyValueState<K> {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        if key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let Some(raw) = self.store.get(&self.key('v', key))? else { return Ok(None) };
        let (expires, _) = unpacked(&raw)?;
        Ok((expires > nanos(now)).then(|| Bytes::from(raw).slice(8..)))
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
        if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
            return Err(StateError(format!("a value of {} bytes; the most is {MAX_VALUE}", value.len())));
        }
        self.sweep(now)?;
        let name = self.key('v', key);
        let new = match &value {
            Some(value) => packed(expires.map_or(NEVER, nanos), value),
            // A mark that nobody sees.
            None => packed(0, b""),
        };
        if expect == Expect::Anything {
            match value {
                Some(_) => self.store.set(&name, &new)?,
                None => {
                    self.store.delete(&name)?;
                    self.store.delete(&self.key('n', key))?;
                }
            }
            return Ok(true);
        }
        for _ in 0..MOST_TRIES {
            let known = self.store.get(&name)?;
            let live = known.as_deref().map(unpacked).transpose()?.filter(|(expires, _)| *expires > nanos(now));
            let holds = match expect {
                Expect::Anything => true,
                Expect::Absent => live.is_none(),
                Expect::Is(bytes) => live.is_some_and(|(_, value)| value == bytes),
            };
            match &known {
                _ if !holds => return Ok(false),
                Some(known) => {
                    if self.store.swap(&name, known, &new)? {
                        return Ok(true);
                    }
                }
                None if value.is_none() => return Ok(true),
                None => {
                    let attempts = self.store.increment(&self.key('n', key), 1)?;
                    let mine = attempts == 1 || attempts > GIVEN_UP;
                    if mine {
                        self.store.set(&name, &new)?;
                    }
                    return Ok(mine);
                }
            }
        }
        Err(StateError(format!("others were quicker {MOST_TRIES} times")))
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        let start = self.key('v', "");
        let (mut keys, mut page) = (Vec::new(), None);
        loop {
            let (some, next) = self.store.keys(page.as_deref())?;
            let some = some.into_iter().filter_map(|key| key.strip_prefix(&start).map(str::to_owned));
            keys.extend(some.filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)));
            page = next;
            if page.is_none() {
                break;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let mut found = Vec::new();
        for key in keys {
            if found.len() >= limit {
                break;
            }
            if let Some(value) = self.get(now, &key).await? {
                found.push((key, value));
            }
        }
        Ok(found)
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        if charges.len() > MAX_CHARGES {
            return Err(StateError(format!("{} charges at once; the most is {MAX_CHARGES}", charges.len())));
        }
        check_key(id)?;
        let record = self.key('r', id);
        if self.store.get(&record)?.is_some() {
            let meters: Vec<_> = charges.iter().map(|charge| (charge.key.clone(), charge.rule)).collect();
            return self.used(now, &meters).await.map(Taken::All);
        }
        let refused = |at: usize, charge: &Charge, running: u64, before: u64| {
            let (used, after) = match charge.rule {
                Rule::Sliding(window) => (
                    sliding(window, now, running, before),
                    room(window, now, running, before, charge.limit, charge.amount),
                ),
                Rule::Period(_, end) if charge.amount <= charge.limit => (running, Some(end.saturating_sub(now))),
                Rule::Period(..) | Rule::Held => (running, None),
            };
            Taken::Refused { charge: at, used, after }
        };
        let mut befores = Vec::with_capacity(charges.len());
        for (at, charge) in charges.iter().enumerate() {
            check_key(&charge.key)?;
            let (running, before) = self.counts(now, &charge.key, charge.rule)?;
            let (used, amount) = match charge.rule {
                Rule::Sliding(window) => (sliding(window, now, running, before), charge.amount),
                Rule::Period(..) => (running, charge.amount),
                Rule::Held => (running, 1),
            };
            if used.saturating_add(amount) > charge.limit {
                return Ok(refused(at, charge, running, before));
            }
            befores.push(before);
        }
        self.sweep(now)?;
        let (mut added, mut all) = (Vec::with_capacity(charges.len()), Vec::with_capacity(charges.len()));
        for (at, (charge, before)) in charges.iter().zip(befores).enumerate() {
            let done = match self.add(now, lease, charge, before) {
                Ok(done) => done,
                Err(error) => {
                    self.take_back(&added)?;
                    return Err(error);
                }
            };
            let (one, used) = done;
            let amount = u64::try_from(one.amount).unwrap_or(0);
            added.push(one);
            if used > charge.limit {
                self.take_back(&added)?;
                let running = used.saturating_sub(amount);
                return Ok(match charge.rule {
                    Rule::Sliding(_) => {
                        let (running, before) = self.counts(now, &charge.key, charge.rule)?;
                        refused(at, charge, running, before)
                    }
                    Rule::Period(..) | Rule::Held => refused(at, charge, running, 0),
                });
            }
            all.push(used);
        }
        if !added.is_empty() {
            let added = serde_json::to_vec(&added).map_err(|error| StateError(error.to_string()))?;
            self.store.set(&record, &packed(nanos(lease), &added))?;
        }
        Ok(Taken::All(all))
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        check_key(id)?;
        uses.iter().try_for_each(|used| check_key(&used.key))?;
        if let Once::Until(until) = once {
            // First what lets a sweep find the counter.
            self.store.set(&self.key('t', id), &packed(nanos(until), b""))?;
            if self.store.increment(&self.key('s', id), 1)? > 1 {
                return Ok(());
            }
        } else if number(self.store.get(&self.key('s', id))?)? > 0 {
            return Ok(());
        }
        let closed = self.close(id)?;
        if closed.is_none() && once == Once::Again {
            return Ok(());
        }
        let added = closed.unwrap_or_default();
        for place in added.iter().filter(|added| added.place) {
            self.store.increment(&place.key, -1)?;
        }
        for Use { key, rule, amount } in uses {
            let (_, end) = counter(key, *rule, taken);
            if end <= now || *rule == Rule::Held {
                continue;
            }
            let name = self.counter_key(key, *rule, taken);
            let held = added.iter().find(|added| added.key == name).map_or(0, |added| added.amount);
            let change = signed(*amount).saturating_sub(held);
            if change != 0 {
                let sum = self.store.increment(&name, change)?;
                if sum < 0 {
                    self.store.increment(&name, sum.saturating_neg())?;
                }
            }
        }
        Ok(())
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        let used = meters.iter().map(|(key, rule)| {
            let (running, before) = self.counts(now, key, *rule)?;
            Ok(match rule {
                Rule::Sliding(window) => sliding(*window, now, running, before),
                Rule::Period(..) | Rule::Held => running,
            })
        });
        used.collect()
    }
}
