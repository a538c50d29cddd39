//! What components do, counted: how often they are called and how long that takes, what fails, what they need.
//!
//! A call costs two looks at the clock and three additions to counters that nobody waits for. Times lie in buckets that
//! grow with them, eight to each doubling, so that a percentile is right to an eighth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use witgate_gateway::CallState;

/// The shortest time that is told from others, as a power of two, in nanoseconds: 256.
const LEAST: u32 = 8;
/// Up to 17 s.
const BUCKETS: usize = 8 * 26;

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
    /// `encode`, `on-request`, `parse`.
    Request,
    /// `feed` and `finish`.
    Feed,
}

/// What a component did wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    /// It trapped.
    Trap,
    /// It ran too long.
    Time,
    /// It wanted too much memory.
    Memory,
    /// It returned too much, or what cannot be read.
    Output,
    /// It could not be instantiated.
    Start,
}

const FAILURES: [(Failure, &str); 5] = [
    (Failure::Trap, "trap"),
    (Failure::Time, "time"),
    (Failure::Memory, "memory"),
    (Failure::Output, "output"),
    (Failure::Start, "start"),
];

/// The calls of one kind.
struct Calls {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Calls {
    fn default() -> Self {
        Calls { nanos: AtomicU64::new(0), buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// The bucket of a time.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1 << LEAST);
    // The place of the first bit, and the three bits behind it.
    let octave = 63 - nanos.leading_zeros();
    ((octave - LEAST) as usize * 8 + ((nanos >> (octave - 3)) & 7) as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn most(bucket: usize) -> Duration {
    Duration::from_nanos(((9 + bucket as u64 % 8) << (bucket as u64 / 8 + u64::from(LEAST) - 3)) - 1)
}

/// What one component has done.
#[derive(Default)]
pub(crate) struct Meter {
    calls: [Calls; 2],
    failures: [AtomicU64; FAILURES.len()],
    refusals: AtomicU64,
    instances: AtomicU64,
    memory: AtomicU64,
}

impl Meter {
    /// A call has ended, well or not; the instance has so many bytes of memory.
    pub fn called(&self, call: Call, took: Duration, memory: usize) {
        let [request, feed] = &self.calls;
        let calls = match call {
            Call::Request => request,
            Call::Feed => feed,
        };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        calls.nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(bucket) = calls.buckets.get(bucket(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.memory(memory);
    }

    /// An instance has so many bytes of memory.
    fn memory(&self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes > self.memory.load(Ordering::Relaxed) {
            self.memory.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    pub fn failed(&self, failure: Failure) {
        for ((kind, _), count) in FAILURES.iter().zip(&self.failures) {
            if *kind == failure {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// It has refused a request, as it may.
    pub fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// An instance was made, with so many bytes of memory.
    pub fn made(&self, memory: usize) {
        self.instances.fetch_add(1, Ordering::Relaxed);
        self.memory(memory);
    }

    /// Its calls, which the kind of component calls so.
    pub fn calls(&self, names: [&'static str; 2]) -> Vec<CallState> {
        let one = |(call, calls): (&'static str, &Calls)| {
            let counts = calls.buckets.iter().enumerate().map(|(at, count)| (most(at), count.load(Ordering::Relaxed)));
            CallState {
                call,
                total: Duration::from_nanos(calls.nanos.load(Ordering::Relaxed)),
                buckets: counts.filter(|(_, count)| *count > 0).collect(),
            }
        };
        names.into_iter().zip(&self.calls).map(one).collect()
    }

    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        let counts = FAILURES.iter().zip(&self.failures);
        counts.map(|((_, name), count)| (*name, count.load(Ordering::Relaxed))).collect()
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    pub fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }

    /// The most memory that an instance has had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }
}

/// The meters of a host, by the component's name in messages. They outlive the configuration that named it.
#[derive(Default)]
pub(crate) struct Meters(Mutex<BTreeMap<String, Arc<Meter>>>);

impl Meters {
    /// The meter of a component. Those that nobody uses any more are forgotten.
    pub fn of(&self, name: &str) -> Arc<Meter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, meter| known == name || Arc::strong_count(meter) > 1);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_bucket_that_is_at_most_an_eighth_longer() {
        for nanos in (0..35).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]) {
            if nanos > 1 << 33 {
                continue;
            }
            let most = u64::try_from(most(bucket(nanos)).as_nanos()).unwrap();
            let nanos = nanos.max(256);
            assert!(most >= nanos && most <= nanos + nanos / 8, "{nanos} is in {most}");
        }
    }

    #[test]
    fn what_is_counted_is_told() {
        let meter = Meter::default();
        for _ in 0..99 {
            meter.called(Call::Request, Duration::from_micros(10), 100);
        }
        meter.called(Call::Request, Duration::from_millis(50), 300);
        meter.made(200);
        meter.failed(Failure::Time);
        meter.refused();
        let [request, feed] = &meter.calls(["encode", "feed"])[..] else { panic!("two kinds of calls") };
        assert_eq!((request.count(), feed.count()), (100, 0));
        let p50 = request.percentile(50).unwrap();
        assert!(p50 >= Duration::from_micros(10) && p50 < Duration::from_micros(12), "{p50:?}");
        assert!(request.percentile(100).unwrap() >= Duration::from_millis(50));
        assert_eq!((meter.memory_peak(), meter.instances(), meter.refusals()), (300, 1, 1));
        assert_eq!(meter.failures().iter().map(|(_, count)| count).sum::<u64>(), 1);
    }

    #[test]
    fn a_meter_is_the_same_as_long_as_somebody_uses_it() {
        let meters = Meters::default();
        let first = meters.of("a");
        first.refused();
        assert_eq!(meters.of("a").refusals(), 1);
        drop(first);
        meters.of("b");
        assert_eq!(meters.of("a").refusals(), 0);
    }
}
