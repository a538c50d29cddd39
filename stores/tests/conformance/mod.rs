//! What every store does, whatever it stands on: [`conforms`] is run against each.
//!
//! All times are given, from 1970 on, so that a store that looked at a clock of its own would fail here.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use witgate_gateway::state::{Charge, Expect, MAX_CHARGES, MAX_KEY_BYTES, Once, Rule, State, StateError, Taken, Use};

pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn charge(key: &str, rule: Rule, limit: u64, amount: u64) -> Charge {
    Charge { key: key.into(), rule, limit, amount }
}

pub fn used(key: &str, rule: Rule, amount: u64) -> Use {
    Use { key: key.into(), rule, amount }
}

const MINUTE: Rule = Rule::Sliding(s(60));
const DAY: Rule = Rule::Period(s(0), s(86_400));

/// A runtime whose threads hold up against blocking tests.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// One store under test. Every test uses keys of its own, so that one store can serve them all.
struct Case<'a, S> {
    runtime: &'a Runtime,
    store: &'a S,
}

impl<S: State + Sync> Case<'_, S> {
    /// For a reservation whose lease no test sees the end of.
    fn take(&self, at: Duration, id: &str, charges: &[Charge]) -> Result<Taken, StateError> {
        self.lease(at, id, s(1 << 33), charges)
    }

    fn lease(&self, at: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.runtime.block_on(self.store.take(at, id, lease, charges))
    }

    fn settle(&self, now: Duration, id: &str, taken: Duration, uses: &[Use]) {
        self.settle_once(now, id, taken, uses, Once::First);
    }

    fn settle_once(&self, now: Duration, id: &str, taken: Duration, uses: &[Use], once: Once) {
        self.runtime.block_on(self.store.settle(now, id, taken, uses, once)).expect("settled");
    }

    fn used(&self, now: Duration, key: &str, rule: Rule) -> u64 {
        self.runtime.block_on(self.store.used(now, &[(key.into(), rule)])).expect("asked")[0]
    }

    fn get(&self, now: Duration, key: &str) -> Option<Bytes> {
        self.runtime.block_on(self.store.get(now, key)).expect("asked")
    }

    fn set(
        &self,
        now: Duration,
        key: &str,
        value: &[u8],
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        let value = Some(Bytes::copy_from_slice(value));
        self.runtime.block_on(self.store.set(now, key, value, expires, expect))
    }

    fn remove(&self, now: Duration, key: &str, expect: Expect<'_>) -> Result<bool, StateError> {
        self.runtime.block_on(self.store.set(now, key, None, None, expect))
    }

    fn keys(&self, now: Duration, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let found = self.runtime.block_on(self.store.list(now, prefix, after, limit)).expect("listed");
        found.into_iter().map(|(key, _)| key).collect()
    }

    /// Runs `work` on as many threads at once; gives what each made.
    fn together<T: Send>(&self, numbers: Range<usize>, work: impl AsyncFn(usize) -> T + Sync) -> Vec<T> {
        let (work, runtime) = (&work, self.runtime);
        std::thread::scope(|scope| {
            let threads: Vec<_> = numbers.map(|n| scope.spawn(move || runtime.handle().block_on(work(n)))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }
}

/// Runs all of it against one store, which must be empty. `exact` is whether a place, and a lease, ends on the
/// moment.
pub fn conforms<S: State + Sync>(runtime: &Runtime, store: &S, exact: bool) {
    let case = Case { runtime, store };
    windows_slide(&case);
    what_is_promised_of_room_holds(&case);
    all_or_none(&case);
    periods_end(&case);
    settling_corrects_the_window_in_which_it_was_taken(&case);
    what_was_not_taken_is_settled_in_full(&case);
    a_reservation_is_taken_once(&case);
    a_reservation_is_settled_once(&case);
    places_are_given_up(&case);
    if exact {
        places_end(&case);
        leases_end(&case);
        many_leases_end(&case);
    }
    takes_are_bounded(&case);
    long_windows_are_counted_to_the_last_one(&case);
    many_take_exactly_the_limit(&case);
    many_hold_no_more_places_than_there_are(&case);
    values_are_set_got_and_removed(&case);
    values_expire(&case);
    values_are_compared(&case);
    one_wins_a_race(&case);
    listing_has_an_order_and_pages(&case);
    keys_are_bounded(&case);
}

fn windows_slide<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.take(s(59), "a1", &[charge("w/k", MINUTE, 10, 10)]), Ok(Taken::All(vec![10])));
    // A new window has begun, and still all but a sixtieth of the old one counts.
    let refused = case.take(s(61), "a23", &[charge("w/k", MINUTE, 10, 1)]);
    assert_eq!(refused, Ok(Taken::Refused { charge: 0, used: 10, after: Some(s(5)) }));
    assert_eq!(case.used(s(61), "w/k", MINUTE), 10);
    assert_eq!(case.take(s(66), "a24", &[charge("w/k", MINUTE, 10, 1)]), Ok(Taken::All(vec![10])));
    assert_eq!(case.used(s(200), "w/k", MINUTE), 0);
}

fn what_is_promised_of_room_holds<S: State + Sync>(case: &Case<'_, S>) {
    for (n, (before, running, limit, amount, into)) in
        [(10, 0, 10, 1, 1), (0, 10, 10, 1, 0), (9, 7, 10, 3, 30), (100, 3, 10, 2, 12), (7, 7, 8, 8, 59)]
            .into_iter()
            .enumerate()
    {
        let key = format!("r/{n}");
        let fill = |at, amount| case.settle(at, "fill", at, &[used(&key, MINUTE, amount)]);
        fill(s(600), before);
        fill(s(660), running);
        let at = s(660 + into);
        let wanted = [charge(&key, MINUTE, limit, amount)];
        let Ok(Taken::Refused { after: Some(after), .. }) = case.take(at, &format!("r/{n}"), &wanted) else {
            panic!("{n}: not refused")
        };
        let sooner = at + after - Duration::from_millis(1);
        assert!(matches!(case.take(sooner, &format!("r/{n}"), &wanted), Ok(Taken::Refused { .. })), "{n}: {after:?}");
        assert!(matches!(case.take(at + after, &format!("r/{n}"), &wanted), Ok(Taken::All(_))), "{n}: {after:?}");
    }
}

fn all_or_none<S: State + Sync>(case: &Case<'_, S>) {
    let charges = [charge("a/requests", MINUTE, 5, 1), charge("a/budget", DAY, 100, 101)];
    let refused = case.take(s(10), "a5", &charges);
    assert_eq!(refused, Ok(Taken::Refused { charge: 1, used: 0, after: None }));
    let held = Rule::Held;
    let charges = [charge("a/place", held, 1, 1), charge("a/requests", MINUTE, 5, 6)];
    assert_eq!(case.take(s(10), "a6", &charges), Ok(Taken::Refused { charge: 1, used: 0, after: None }));
    for (key, rule) in [("a/requests", MINUTE), ("a/budget", DAY), ("a/place", held)] {
        assert_eq!(case.used(s(10), key, rule), 0, "{key}");
    }
    let charges = [charge("a/requests", MINUTE, 5, 2), charge("a/budget", DAY, 100, 30), charge("a/place", held, 1, 9)];
    assert_eq!(case.take(s(10), "a7", &charges), Ok(Taken::All(vec![2, 30, 1])));
    assert_eq!(case.take(s(10), "a8", &[]), Ok(Taken::All(vec![])));
    let meters = [("a/budget".into(), DAY), ("a/place".into(), held), ("a/requests".into(), MINUTE)];
    assert_eq!(case.runtime.block_on(case.store.used(s(10), &meters)), Ok(vec![30, 1, 2]));
}

fn periods_end<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.take(s(86_000), "a9", &[charge("p/k", DAY, 10, 9)]), Ok(Taken::All(vec![9])));
    let refused = case.take(s(86_100), "a10", &[charge("p/k", DAY, 10, 2)]);
    assert_eq!(refused, Ok(Taken::Refused { charge: 0, used: 9, after: Some(s(300)) }));
    let next = Rule::Period(s(86_400), s(2 * 86_400));
    assert_eq!(case.take(s(86_400), "a11", &[charge("p/k", next, 10, 2)]), Ok(Taken::All(vec![2])));
}

fn settling_corrects_the_window_in_which_it_was_taken<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.take(s(30), "s/1", &[charge("s/t", MINUTE, 100, 50)]), Ok(Taken::All(vec![50])));
    case.settle(s(90), "s/1", s(30), &[used("s/t", MINUTE, 10)]);
    // Half of the ten that are left still counts.
    assert_eq!(case.used(s(90), "s/t", MINUTE), 5);
    // What comes when the window is long gone changes nothing.
    case.settle(s(500), "s/1", s(30), &[used("s/t", MINUTE, 1_000)]);
    assert_eq!(case.used(s(500), "s/t", MINUTE), 0);
    // What was used beyond what was taken counts, whatever the limit.
    assert_eq!(case.take(s(600), "s/2", &[charge("s/t", MINUTE, 100, 50)]), Ok(Taken::All(vec![50])));
    case.settle(s(600), "s/2", s(600), &[used("s/t", MINUTE, 120)]);
    let refused = case.take(s(600), "s/3", &[charge("s/t", MINUTE, 100, 1)]);
    assert!(matches!(refused, Ok(Taken::Refused { charge: 0, used: 120, after: Some(_) })), "{refused:?}");
    // What is not told of stays as it was taken.
    assert_eq!(case.take(s(900), "s/4", &[charge("s/t", MINUTE, 100, 50)]), Ok(Taken::All(vec![50])));
    case.settle(s(900), "s/4", s(900), &[]);
    assert_eq!(case.used(s(900), "s/t", MINUTE), 50);
}

fn what_was_not_taken_is_settled_in_full<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.take(s(30), "z/1", &[charge("z/t", DAY, 100, 5)]), Ok(Taken::All(vec![5])));
    case.settle(s(31), "z/1", s(30), &[used("z/t", DAY, 0), used("z/other", DAY, 7)]);
    case.settle(s(31), "z/2", s(30), &[used("z/t", DAY, 3)]);
    assert_eq!((case.used(s(31), "z/t", DAY), case.used(s(31), "z/other", DAY)), (3, 7));
}

fn a_reservation_is_taken_once<S: State + Sync>(case: &Case<'_, S>) {
    let charges = [charge("o/day", DAY, 10, 6), charge("o/minute", MINUTE, 10, 4), charge("o/place", Rule::Held, 1, 1)];
    let all = Ok(Taken::All(vec![6, 4, 1]));
    assert_eq!(case.take(s(30), "o/1", &charges), all);
    // A second time would not fit.
    assert_eq!(case.take(s(30), "o/1", &charges), all);
    assert!(matches!(case.take(s(30), "o/2", &charges), Ok(Taken::Refused { charge: 0, used: 6, .. })));
    case.settle(s(30), "o/1", s(30), &[used("o/day", DAY, 1), used("o/minute", MINUTE, 1)]);
    for (key, rule, used) in [("o/day", DAY, 1), ("o/minute", MINUTE, 1), ("o/place", Rule::Held, 0)] {
        assert_eq!(case.used(s(30), key, rule), used, "{key}");
    }
    // It may be taken anew when it has been settled.
    assert_eq!(case.take(s(30), "o/1", &charges), Ok(Taken::All(vec![7, 5, 1])));
    case.settle(s(30), "o/1", s(30), &[]);
}

fn a_reservation_is_settled_once<S: State + Sync>(case: &Case<'_, S>) {
    let taken = |id: &str| {
        let charges = [charge("q/day", DAY, 1_000, 50), charge("q/place", Rule::Held, 1, 1)];
        assert!(matches!(case.take(s(30), id, &charges), Ok(Taken::All(_))), "{id}");
    };
    let uses = [used("q/day", DAY, 20), used("q/spend", DAY, 20)];
    let both = || (case.used(s(31), "q/day", DAY), case.used(s(31), "q/spend", DAY));
    // Of which nobody knows whether it was made: not without its reservation.
    taken("q/1");
    for _ in 0..3 {
        case.settle_once(s(31), "q/1", s(30), &uses, Once::Again);
        assert_eq!(both(), (20, 20));
    }
    // That is remembered: however often, also after a first one whose end nobody saw, and by all at once.
    taken("q/2");
    case.together(0..4, async |_| {
        for _ in 0..5 {
            case.store.settle(s(31), "q/2", s(30), &uses, Once::Until(s(500))).await.expect("settled");
        }
    });
    assert_eq!(both(), (40, 40));
    case.settle_once(s(499), "q/2", s(30), &uses, Once::First);
    case.settle_once(s(499), "q/2", s(30), &uses, Once::Until(s(500)));
    assert_eq!(both(), (40, 40));
    assert_eq!(case.used(s(31), "q/place", Rule::Held), 0);
    // Without anything reserved it counts once too.
    for _ in 0..2 {
        case.settle_once(s(31), "q/3", s(30), &uses, Once::Until(s(500)));
        assert_eq!(both(), (60, 60));
    }
}

fn places_are_given_up<S: State + Sync>(case: &Case<'_, S>) {
    let held = [charge("h/c", Rule::Held, 1, 1)];
    assert_eq!(case.lease(s(1), "h/1", s(100), &held), Ok(Taken::All(vec![1])));
    let refused = Ok(Taken::Refused { charge: 0, used: 1, after: None });
    assert_eq!(case.lease(s(2), "h/2", s(100), &held), refused);
    // Who holds no place gives none up.
    case.settle(s(3), "h/3", s(1), &[]);
    assert_eq!(case.lease(s(3), "h/2", s(100), &held), refused);
    case.settle(s(3), "h/1", s(1), &[]);
    assert_eq!(case.used(s(3), "h/c", Rule::Held), 0);
}

fn places_end<S: State + Sync>(case: &Case<'_, S>) {
    let held = [charge("h/e", Rule::Held, 1, 1)];
    let refused = Ok(Taken::Refused { charge: 0, used: 1, after: None });
    assert_eq!(case.lease(s(4), "h/4", s(50), &held), Ok(Taken::All(vec![1])));
    assert_eq!(case.lease(s(49), "h/5", s(100), &held), refused);
    assert_eq!(case.lease(s(50), "h/5", s(100), &held), Ok(Taken::All(vec![1])));
    assert_eq!(case.used(s(100), "h/e", Rule::Held), 0);
}

fn leases_end<S: State + Sync>(case: &Case<'_, S>) {
    let charges = [charge("n/day", DAY, 10, 8), charge("n/minute", MINUTE, 10, 8)];
    let one = [charge("n/day", DAY, 10, 3), charge("n/minute", MINUTE, 10, 3)];
    assert_eq!(case.lease(s(300), "n/1", s(310), &charges), Ok(Taken::All(vec![8, 8])));
    assert!(matches!(case.lease(s(309), "n/2", s(350), &one), Ok(Taken::Refused { charge: 0, used: 8, .. })));
    // The process that had taken it has died: whoever takes next has it.
    assert_eq!(case.lease(s(310), "n/2", s(350), &one), Ok(Taken::All(vec![3, 3])));
    // It has not: what it used counts in full.
    case.settle(s(311), "n/1", s(300), &[used("n/day", DAY, 5)]);
    assert_eq!(case.used(s(311), "n/day", DAY), 8);
    // But for a settlement that may have been made.
    case.settle_once(s(311), "n/1", s(300), &[used("n/day", DAY, 5)], Once::Again);
    assert_eq!(case.used(s(311), "n/day", DAY), 8);
    case.settle(s(312), "n/2", s(310), &[used("n/day", DAY, 3)]);
    // What was settled is not given back when its lease would have ended.
    let other = [charge("n/other", DAY, 10, 1)];
    assert_eq!(case.lease(s(351), "n/3", s(400), &other), Ok(Taken::All(vec![1])));
    assert_eq!(case.used(s(351), "n/day", DAY), 8);
    // The counter of a period that is over is not begun anew.
    let day = charge("n/other", DAY, 10, 1);
    assert_eq!(case.lease(s(86_399), "n/4", s(86_410), &[day]), Ok(Taken::All(vec![1])));
    let next = Rule::Period(s(86_400), s(2 * 86_400));
    assert_eq!(case.lease(s(86_411), "n/5", s(86_412), &[charge("n/other", next, 1, 1)]), Ok(Taken::All(vec![1])));
}

fn many_leases_end<S: State + Sync>(case: &Case<'_, S>) {
    for n in 0..200 {
        let charges = [charge("n/many", DAY, 200, 1), charge("n/places", Rule::Held, 200, 1)];
        assert_eq!(case.lease(s(400), &format!("n/many/{n}"), s(500), &charges), Ok(Taken::All(vec![n + 1; 2])));
    }
    let charges = [charge("n/many", DAY, 200, 200), charge("n/places", Rule::Held, 1, 1)];
    assert_eq!(case.lease(s(501), "n/after", s(600), &charges), Ok(Taken::All(vec![200, 1])));
    case.settle(s(501), "n/after", s(501), &[]);
}

fn takes_are_bounded<S: State + Sync>(case: &Case<'_, S>) {
    let all: Vec<_> = (0..MAX_CHARGES).map(|n| charge(&format!("b/{n}"), MINUTE, 5, 1)).collect();
    assert_eq!(case.take(s(1), "a18", &all), Ok(Taken::All(vec![1; MAX_CHARGES])));
    let more: Vec<_> = (0..=MAX_CHARGES).map(|n| charge(&format!("b/{n}"), MINUTE, 5, 1)).collect();
    let refused = case.take(s(1), "a19", &more).expect_err("too many charges");
    assert!(refused.to_string().contains("17 charges"), "{refused}");
    assert_eq!(case.used(s(1), "b/0", MINUTE), 1);
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    let refused = case.take(s(1), "a20", &[charge(&long, MINUTE, 5, 1)]).expect_err("too long a key");
    assert!(refused.to_string().contains("a key of 513 bytes"), "{refused}");
    assert_eq!(case.used(s(1), &long[1..], MINUTE), 0);
}

fn long_windows_are_counted_to_the_last_one<S: State + Sync>(case: &Case<'_, S>) {
    // 30 days in milliseconds, times a count, is more than a double holds.
    let month = 30 * 86_400;
    let rule = Rule::Sliding(s(month));
    let count: u64 = 9_007_199_254_000_001;
    case.settle(s(month), "l", s(month), &[used("l/k", rule, count)]);
    for into in [1, 12_345, 777_777_777, 2_591_999_999] {
        let at = s(2 * month) + Duration::from_millis(into);
        let millis = u128::from(month) * 1_000;
        let left = (u128::from(count) * (millis - u128::from(into))).div_ceil(millis) as u64;
        assert_eq!(case.used(at, "l/k", rule), left);
        let refused = case.take(at, "a21", &[charge("l/k", rule, left, 1)]);
        assert!(matches!(refused, Ok(Taken::Refused { used: told, .. }) if told == left), "{refused:?} {left}");
        assert_eq!(case.take(at, "l/1", &[charge("l/k", rule, left + 1, 1)]), Ok(Taken::All(vec![left + 1])));
        case.settle(at, "l/1", at, &[used("l/k", rule, 0)]);
    }
}

fn many_take_exactly_the_limit<S: State + Sync>(case: &Case<'_, S>) {
    const LIMIT: u64 = 1_000;
    let charges = [charge("m/requests", MINUTE, LIMIT, 1), charge("m/budget", DAY, 3 * LIMIT, 3)];
    let taken = case.together(0..8, async |n| {
        let mut taken = 0;
        for call in 0..1_000 {
            match case.store.take(s(30), &format!("m/{n}.{call}"), s(90), &charges).await {
                Ok(Taken::All(_)) => taken += 1,
                Ok(Taken::Refused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        taken
    });
    assert_eq!(taken.iter().sum::<u64>(), LIMIT, "{taken:?}");
    assert_eq!(case.used(s(30), "m/requests", MINUTE), LIMIT);
    assert_eq!(case.used(s(30), "m/budget", DAY), 3 * LIMIT);
}

fn many_hold_no_more_places_than_there_are<S: State + Sync>(case: &Case<'_, S>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rule = Rule::Held;
    case.together(0..8, async |n| {
        for call in 0..100 {
            let token = format!("c/{n}.{call}");
            if let Taken::All(_) =
                case.store.take(s(1), &token, s(100), &[charge("c/k", rule, 3, 1)]).await.expect("asked")
            {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                case.store.settle(s(1), &token, s(1), &[], Once::First).await.expect("settled");
            }
        }
    });
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(case.used(s(1), "c/k", rule), 0);
}

fn values_are_set_got_and_removed<S: State + Sync>(case: &Case<'_, S>) {
    let anything = Expect::Anything;
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(case.get(s(1), "v/bytes"), None);
    assert_eq!(case.set(s(1), "v/bytes", &bytes, None, anything), Ok(true));
    assert_eq!(case.get(s(1), "v/bytes").as_deref(), Some(bytes.as_slice()));
    assert_eq!(case.set(s(1), "v/bytes", b"", None, anything), Ok(true));
    assert_eq!(case.get(s(9_999_999_999), "v/bytes").as_deref(), Some(b"".as_slice()));
    assert_eq!(case.remove(s(1), "v/bytes", anything), Ok(true));
    assert_eq!(case.remove(s(1), "v/bytes", anything), Ok(true));
    assert_eq!(case.get(s(1), "v/bytes"), None);
    let large = vec![7; 600_000];
    assert_eq!(case.set(s(1), "v/ключ \0 \u{10ffff}", &large, None, anything), Ok(true));
    assert_eq!(case.get(s(1), "v/ключ \0 \u{10ffff}").as_deref(), Some(large.as_slice()));
}

fn values_expire<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.set(s(1), "e/a", b"x", Some(s(5)), Expect::Absent), Ok(true));
    assert!(case.get(s(5) - Duration::from_millis(1), "e/a").is_some());
    assert_eq!(case.get(s(5), "e/a"), None);
    assert_eq!(case.keys(s(5), "e/", None, 10), [""; 0]);
    // What has expired is absent, and no longer what it was.
    assert_eq!(case.set(s(5), "e/a", b"y", Some(s(9)), Expect::Is(b"x")), Ok(false));
    assert_eq!(case.set(s(5), "e/a", b"y", Some(s(9)), Expect::Absent), Ok(true));
    // A later end, an earlier one, and none, in the place of the one before.
    assert_eq!(case.set(s(6), "e/a", b"z", None, Expect::Is(b"y")), Ok(true));
    assert_eq!(case.get(s(1_000), "e/a").as_deref(), Some(b"z".as_slice()));
    assert_eq!(case.set(s(1_000), "e/a", b"z", Some(s(1_001)), Expect::Anything), Ok(true));
    assert_eq!(case.get(s(1_001), "e/a"), None);
    // One that has ended before it began.
    assert_eq!(case.set(s(2_000), "e/b", b"z", Some(s(1_999)), Expect::Anything), Ok(true));
    assert_eq!(case.get(s(2_000), "e/b"), None);
}

fn values_are_compared<S: State + Sync>(case: &Case<'_, S>) {
    assert_eq!(case.set(s(1), "x/k", b"1", None, Expect::Is(b"1")), Ok(false));
    assert_eq!(case.set(s(1), "x/k", b"1", None, Expect::Is(b"")), Ok(false));
    assert_eq!(case.get(s(1), "x/k"), None);
    assert_eq!(case.set(s(1), "x/k", b"1", None, Expect::Absent), Ok(true));
    assert_eq!(case.set(s(1), "x/k", b"2", None, Expect::Absent), Ok(false));
    assert_eq!(case.set(s(1), "x/k", b"2", None, Expect::Is(b"1")), Ok(true));
    assert_eq!(case.remove(s(1), "x/k", Expect::Is(b"1")), Ok(false));
    assert_eq!(case.remove(s(1), "x/k", Expect::Absent), Ok(false));
    assert_eq!(case.get(s(1), "x/k").as_deref(), Some(b"2".as_slice()));
    assert_eq!(case.remove(s(1), "x/k", Expect::Is(b"2")), Ok(true));
    assert_eq!(case.remove(s(1), "x/k", Expect::Absent), Ok(true));
}

fn one_wins_a_race<S: State + Sync>(case: &Case<'_, S>) {
    for round in 0..25 {
        let key = format!("race/{round}");
        let won = case.together(0..8, async |n| {
            let value = Some(Bytes::from(n.to_string()));
            case.store.set(s(1), &key, value, Some(s(100)), Expect::Absent).await.expect("asked")
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let winner = won.iter().position(|won| *won).expect("one has won").to_string();
        assert_eq!(case.get(s(1), &key).as_deref(), Some(winner.as_bytes()));
    }
    // A counter by compare-and-set: nothing is lost.
    assert_eq!(case.set(s(1), "race/count", b"0", None, Expect::Absent), Ok(true));
    case.together(0..4, async |_| {
        for _ in 0..10 {
            loop {
                let known = case.store.get(s(1), "race/count").await.expect("asked").expect("it is there");
                let number: u64 = std::str::from_utf8(&known).expect("text").parse().expect("a number");
                let next = Some(Bytes::from((number + 1).to_string()));
                if case.store.set(s(1), "race/count", next, None, Expect::Is(&known)).await.expect("asked") {
                    break;
                }
            }
        }
    });
    assert_eq!(case.get(s(1), "race/count").as_deref(), Some(b"40".as_slice()));
}

fn listing_has_an_order_and_pages<S: State + Sync>(case: &Case<'_, S>) {
    for key in ["j/b", "j/a", "j", "j0", "j/", "j/a/1", "j/ä", "j/Z", "i/z", "j/gone", "j/ended"] {
        let expires = (key == "j/ended").then_some(s(5));
        assert_eq!(case.set(s(1), key, key.as_bytes(), expires, Expect::Anything), Ok(true));
    }
    assert_eq!(case.remove(s(2), "j/gone", Expect::Anything), Ok(true));
    let all = ["j/", "j/Z", "j/a", "j/a/1", "j/b", "j/ä"];
    assert_eq!(case.keys(s(5), "j/", None, 100), all);
    assert_eq!(case.keys(s(4), "j/e", None, 100), ["j/ended"]);
    assert_eq!(case.keys(s(5), "j/", None, 2), all[..2]);
    assert_eq!(case.keys(s(5), "j/", Some("j/Z"), 2), all[2..4]);
    // From behind a key that is not there, one in front of the prefix, and one behind it.
    assert_eq!(case.keys(s(5), "j/", Some("j/aa"), 100), all[4..]);
    assert_eq!(case.keys(s(5), "j/", Some("a"), 100), all);
    assert_eq!(case.keys(s(5), "j/", Some("k"), 100), [""; 0]);
    assert_eq!(case.keys(s(5), "j/", None, 0), [""; 0]);
    let values = case.runtime.block_on(case.store.list(s(5), "j/", None, 100)).expect("listed");
    assert!(values.iter().all(|(key, value)| key.as_bytes() == value), "{values:?}");
    // Many, most of which have expired: pages are full all the same.
    for n in 0..300 {
        let expires = if n % 10 == 0 { s(1_000) } else { s(10) };
        assert_eq!(case.set(s(6), &format!("page/{n:03}"), b"", Some(expires), Expect::Absent), Ok(true));
    }
    let expected: Vec<_> = (0..30).map(|n| format!("page/{:03}", n * 10)).collect();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = case.keys(s(20), "page/", after.as_deref(), 7);
        assert!(page.len() == 7 || found.len() + page.len() == 30, "{page:?}");
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page);
    }
    assert_eq!(found, expected);
}

fn keys_are_bounded<S: State + Sync>(case: &Case<'_, S>) {
    let longest = "k".repeat(MAX_KEY_BYTES);
    assert_eq!(case.set(s(1), &longest, b"x", None, Expect::Anything), Ok(true));
    assert_eq!(case.get(s(1), &longest).as_deref(), Some(b"x".as_slice()));
    let long = format!("{longest}k");
    let refused = case.set(s(1), &long, b"x", None, Expect::Anything).expect_err("too long a key");
    assert!(refused.to_string().contains("a key of 513 bytes; the most is 512"), "{refused}");
    assert_eq!(case.get(s(1), &long), None);
}

/// A store that may hold `max_bytes` says when it is full, and has room again when something has expired or is removed.
#[allow(dead_code, reason = "a Redis server has its own bound")]
pub fn is_bounded<S: State + Sync>(runtime: &Runtime, store: &S, max_bytes: usize) {
    let case = Case { runtime, store };
    let piece = vec![1; max_bytes / 10];
    let mut set = 0;
    let refused = loop {
        match case.set(s(1), &format!("full/{set}"), &piece, Some(s(10)), Expect::Absent) {
            Ok(done) => assert!(done),
            Err(refused) => break refused,
        }
        set += 1;
        assert!(set <= 10, "{set} tenths");
    };
    assert!(set >= 8 && refused.to_string().contains(&format!("{max_bytes} bytes")), "{set}: {refused}");
    // What is there stays; a smaller value in its place is taken, and so is a removal.
    assert!(case.get(s(1), "full/0").is_some());
    assert_eq!(case.set(s(1), "full/0", b"less", Some(s(10)), Expect::Anything), Ok(true));
    assert_eq!(case.remove(s(1), "full/1", Expect::Anything), Ok(true));
    assert_eq!(case.set(s(1), "full/1", &piece, Some(s(10)), Expect::Absent), Ok(true));
    // What has expired makes room.
    assert_eq!(case.set(s(30), "full/new", &vec![1; max_bytes / 10 * 7], None, Expect::Absent), Ok(true));
}
