//! State in a key-value store of the edge does what every store does, but for what its module page says of it.

mod conformance;

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use conformance::{charge, conforms, runtime, s, used};
use witgate_gateway::kv::{GIVEN_UP, KeyValue, KeyValueState, Page, SWEEP_EVERY};
use witgate_gateway::state::{Expect, Once, Rule, State, StateError, Taken, Use};

/// A store that does what `wasi:keyvalue` promises and no more: each call by itself is atomic.
#[derive(Default)]
struct Edge(Mutex<BTreeMap<String, Vec<u8>>>);

impl KeyValue for &Edge {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.0.lock().unwrap().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), StateError> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }

    fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let mut all = self.0.lock().unwrap();
        let known = all.get(key).map_or(0, |raw| i64::from_le_bytes(raw[..].try_into().expect("eight bytes")));
        all.insert(key.to_owned(), (known + delta).to_le_bytes().to_vec());
        Ok(known + delta)
    }

    fn swap(&self, key: &str, known: &[u8], value: &[u8]) -> Result<bool, StateError> {
        match self.0.lock().unwrap().get_mut(key) {
            Some(held) if held == known => *held = value.to_owned(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn keys(&self, page: Option<&str>) -> Result<Page, StateError> {
        let all = self.0.lock().unwrap();
        let keys: Vec<_> =
            all.keys().filter(|key| page.is_none_or(|page| key.as_str() > page)).take(100).cloned().collect();
        let next = keys.last().filter(|_| keys.len() == 100).cloned();
        // In no order.
        Ok((keys.into_iter().rev().collect(), next))
    }
}

/// One instance of the component for each thread, as at the edge: each call goes to one of its own.
struct Instances<'a>(&'a Edge);

impl Instances<'_> {
    fn one(&self) -> KeyValueState<&Edge> {
        KeyValueState::new(self.0, "w")
    }
}

impl State for Instances<'_> {
    async fn get(&self, now: std::time::Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        self.one().get(now, key).await
    }

    async fn set(
        &self,
        now: std::time::Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<std::time::Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        self.one().set(now, key, value, expires, expect).await
    }

    async fn list(
        &self,
        now: std::time::Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.one().list(now, prefix, after, limit).await
    }

    async fn take(
        &self,
        now: std::time::Duration,
        id: &str,
        lease: std::time::Duration,
        charges: &[witgate_gateway::state::Charge],
    ) -> Result<Taken, StateError> {
        self.one().take(now, id, lease, charges).await
    }

    async fn settle(
        &self,
        now: std::time::Duration,
        id: &str,
        taken: std::time::Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.one().settle(now, id, taken, uses, once).await
    }

    async fn used(
        &self,
        now: std::time::Duration,
        meters: &[(std::sync::Arc<str>, Rule)],
    ) -> Result<Vec<u64>, StateError> {
        self.one().used(now, meters).await
    }
}

#[test]
fn a_store_of_the_edge_conforms_but_for_when_places_end() {
    let edge = Edge::default();
    conforms(&runtime(), &Instances(&edge), false);
}

#[test]
fn a_place_whose_holder_died_comes_back_within_five_minutes_of_its_end() {
    let edge = Edge::default();
    let (store, runtime) = (KeyValueState::new(&edge, "w"), runtime());
    let take = |at, id: &str| {
        let held = [charge("c", Rule::Held, 1, 1)];
        runtime.block_on(store.take(s(at), id, s(at + 100), &held))
    };
    assert_eq!(take(100, "a"), Ok(Taken::All(vec![1])));
    assert!(matches!(take(250, "b"), Ok(Taken::Refused { charge: 0, used: 1, after: None })));
    assert_eq!(take(300, "b"), Ok(Taken::All(vec![1])));
}

#[test]
fn what_a_gateway_had_taken_that_died_comes_back_with_a_sweep() {
    let edge = Edge::default();
    let (store, runtime) = (KeyValueState::new(&edge, "w"), runtime());
    let day = Rule::Period(s(0), s(86_400));
    runtime.block_on(async {
        assert_eq!(store.take(s(1), "a", s(100), &[charge("d", day, 10, 9)]).await, Ok(Taken::All(vec![9])));
        let sweep = async |at| {
            for n in 0..SWEEP_EVERY {
                store.set(s(at), &format!("k{n}"), Some(Bytes::new()), None, Expect::Anything).await.unwrap();
            }
        };
        // A lease that lasts is left alone.
        sweep(3_650).await;
        let meters = [("d".into(), day)];
        assert_eq!(store.take(s(3_650), "b", s(3_800), &[charge("d", day, 10, 1)]).await, Ok(Taken::All(vec![1])));
        sweep(3_700).await;
        assert_eq!(store.used(s(3_700), &meters).await, Ok(vec![1]));
        sweep(3_800).await;
        assert_eq!(store.used(s(3_800), &meters).await, Ok(vec![0]));
    });
}

#[test]
fn who_dies_while_it_sets_a_key_blocks_it_for_a_while_only() {
    let edge = Edge::default();
    let store = KeyValueState::new(&edge, "w");
    (&&edge).increment("w/n/k", 1).unwrap();
    let runtime = runtime();
    let set = || runtime.block_on(store.set(s(1), "k", Some(Bytes::from("v")), None, Expect::Absent)).unwrap();
    let attempts = (0..).take_while(|_| !set()).count();
    assert_eq!(attempts as i64, GIVEN_UP - 1);
}

#[test]
fn what_has_expired_is_deleted_in_time() {
    let edge = Edge::default();
    let (store, runtime) = (KeyValueState::new(&edge, "w"), runtime());
    runtime.block_on(async {
        let day = s(86_400);
        for n in 0..10 {
            let value = Some(Bytes::from("v"));
            store.set(day, &format!("k{n}"), value, Some(day + s(10)), Expect::Absent).await.unwrap();
            let charges = [charge(&format!("m{n}"), Rule::Sliding(s(60)), 5, 1), charge("c", Rule::Held, 99, 1)];
            let (id, uses) = (n.to_string(), [used(&format!("m{n}"), Rule::Sliding(s(60)), 2)]);
            store.take(day, &id, day + s(60), &charges).await.unwrap();
            match n % 3 {
                0 => store.settle(day, &id, day, &uses, Once::First).await.unwrap(),
                1 => store.settle(day, &id, day, &uses, Once::Until(day + s(60))).await.unwrap(),
                _ => {}
            }
        }
        for n in 0..3 * SWEEP_EVERY {
            store.set(2 * day, &format!("later{}", n % 4), Some(Bytes::new()), None, Expect::Anything).await.unwrap();
        }
    });
    let left: Vec<_> = edge.0.lock().unwrap().keys().cloned().collect();
    assert_eq!(left, ["w/v/later0", "w/v/later1", "w/v/later2", "w/v/later3"]);
}

#[test]
fn what_something_else_wrote_is_an_error() {
    let edge = Edge::default();
    (&&edge).set("w/v/k", b"short").unwrap();
    (&&edge).set("w/c/m@0:86400", b"ten").unwrap();
    let (store, runtime) = (KeyValueState::new(&edge, "w"), runtime());
    let error = runtime.block_on(store.get(s(1), "k")).unwrap_err().to_string();
    assert!(error.contains("something else wrote"), "{error}");
    let taken = runtime.block_on(store.take(s(1), "a", s(60), &[charge("m", Rule::Period(s(0), s(86_400)), 5, 1)]));
    assert!(taken.unwrap_err().to_string().contains("something else wrote"));
}
