//! The wasmtime engine that all components share, and the clock that stops those that run too long.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter, Store, Trap,
    UpdateDeadline,
};

use crate::cache::CheckedCache;
use crate::meter::Meters;

/// How fine a component's time limit is.
const TICK: Duration = Duration::from_millis(5);

/// How many times its limit a call may take by the clock after the first half of it, on a machine that leaves it no
/// processor.
const PATIENCE: u32 = 10;

/// The most elements of a table where nothing else is said.
const TABLE_ELEMENTS: usize = witgate_config::Limits::TABLE_ELEMENTS as usize;

/// The most linear memories that an instance of a component may have: one made by componentize-qjs has three.
pub(crate) const MEMORIES: u32 = 4;

/// The most core instances of an instance of a component, which consists of several modules: its own, and small ones that
/// join it to the component model; one made by componentize-py has 38.
const CORE_INSTANCES: u32 = 64;

/// The most linear memories of an engine. For each 4 GiB of address space are reserved and a guard of 32 MiB behind them, so
/// that no access needs a check: this is 60.5 TiB of the 128 that a process has, and a second engine, which there is while
/// it takes the first one's place, has room beside it.
pub(crate) const MOST_MEMORIES: u32 = 15_360;

/// So many instances, and so many memories, are tried even where there is little address space.
const FEW: u32 = 64;

/// How many instances and memories to try where there is no address space for so many; none where these are few already.
fn fewer(instances: u32, memories: u32) -> Option<(u32, u32)> {
    let half = |count: u32| if count > FEW { (count / 2).max(FEW) } else { count };
    let less = (half(instances), half(memories));
    (less != (instances, memories)).then_some(less)
}

/// What all components together may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sandbox {
    /// The most linear memory that any instance may have, in bytes: 64 MiB. Rounded up to whole wasm pages of 64 KiB; at
    /// most 4 GiB.
    pub memory_bytes: usize,
    /// The longest time that any call may take: 2 s. See [`Bounds::call_time`].
    pub call_time: Duration,
    /// The most instances at once, over all components: 4,096. Each takes address space, some GiB, but no memory.
    pub instances: u32,
    /// The most linear memories of all instances together; 0 is as many as one may have for each.
    pub(crate) memories: u32,
    /// The most elements that any table may have: 20,000.
    pub(crate) table_elements: usize,
    /// The most idle instances that are kept of each trusted component: 64.
    pub idle: usize,
    /// Where compiled components are kept; `None` compiles them at each start.
    pub cache: Option<PathBuf>,
    /// How many compiled components are kept, of this and of earlier versions: 64.
    pub cached: usize,
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox {
            memory_bytes: 64 * 1024 * 1024,
            call_time: Duration::from_secs(2),
            instances: 4096,
            memories: 0,
            table_elements: TABLE_ELEMENTS,
            idle: 64,
            cache: crate::cache::default_dir(),
            cached: 64,
        }
    }
}

/// What one component may use.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// The most linear memory of one instance, in bytes: 64 MiB. Not more than [`Sandbox::memory_bytes`]. One call may
    /// return as many bytes at most.
    pub memory_bytes: usize,
    /// The most elements of one table of an instance: 20,000.
    pub table_elements: usize,
    /// The longest time of one call: 1 s. Not more than [`Sandbox::call_time`]. Kept to within about 10 ms. Of the second
    /// half only what the processor works for the call counts, so that a busy machine ends no call that had no time; by the
    /// clock it is at most ten times the limit.
    pub call_time: Duration,
    /// The most events that an adapter may make of one frame: 4,096.
    pub events_per_frame: usize,
    /// The component is trusted as our own code is: its instances serve one request after another. Any other component
    /// gets a fresh instance for each request.
    pub trusted: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            memory_bytes: 64 * 1024 * 1024,
            table_elements: TABLE_ELEMENTS,
            call_time: Duration::from_secs(1),
            events_per_frame: 4096,
            trusted: false,
        }
    }
}

/// The engine with all that belongs to it.
pub(crate) struct Runtime {
    pub engine: Engine,
    pub sandbox: Sandbox,
    /// How many instances and memories were asked for; there may be fewer.
    asked: (u32, u32),
    pub meters: Arc<Meters>,
    ticker: Ticker,
    cache: Option<Mutex<CheckedCache>>,
}

impl Runtime {
    pub fn new(sandbox: Sandbox) -> wasmtime::Result<Arc<Self>> {
        Self::metered(sandbox, Arc::default())
    }

    /// One whose components are counted where others may have been.
    pub fn metered(mut sandbox: Sandbox, meters: Arc<Meters>) -> wasmtime::Result<Arc<Self>> {
        let page = 64 * 1024;
        sandbox.memory_bytes = sandbox.memory_bytes.clamp(page, 1 << 32).div_ceil(page) * page;
        if sandbox.memories == 0 {
            sandbox.memories = sandbox.instances.saturating_mul(MEMORIES);
        }
        sandbox.memories = sandbox.memories.min(MOST_MEMORIES);
        let asked = (sandbox.instances, sandbox.memories);
        let cache = sandbox.cache.as_ref().and_then(|dir| match CheckedCache::open(dir, sandbox.cached) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(
                    target: "witgate::cache",
                    dir = %dir.display(), %error,
                    "the cache of compiled components cannot be used, so this start takes longer",
                );
                None
            }
        });
        // Address space may be limited (`ulimit -v`, some containers): fewer instances are better than none.
        let engine = loop {
            match Engine::new(&config(&sandbox, cache.as_ref())) {
                Ok(engine) => break engine,
                Err(error) => {
                    let Some((instances, memories)) = fewer(sandbox.instances, sandbox.memories) else {
                        return Err(error);
                    };
                    tracing::warn!(
                        target: "witgate::engine",
                        instances = sandbox.instances, memories = sandbox.memories, %error,
                        "no address space for so many instances; trying half of them",
                    );
                    (sandbox.instances, sandbox.memories) = (instances, memories);
                }
            }
        };
        let ticker = Ticker::start(&engine, sandbox.call_time)?;
        Ok(Arc::new(Runtime { engine, sandbox, asked, meters, ticker, cache: cache.map(Mutex::new) }))
    }

    /// Whether it is enough for this.
    pub fn holds(&self, sandbox: &Sandbox) -> bool {
        sandbox.memory_bytes.min(1 << 32) <= self.sandbox.memory_bytes
            && sandbox.table_elements <= self.sandbox.table_elements
            && sandbox.call_time <= self.sandbox.call_time
            && sandbox.instances <= self.asked.0
            && sandbox.memories.min(MOST_MEMORIES) <= self.asked.1
            && sandbox.cache == self.sandbox.cache
    }

    /// Components found in the cache, and components compiled, so far. `None` without a cache.
    pub fn cached(&self) -> Option<(usize, usize)> {
        let cache = self.cache.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some((cache.hits(), cache.misses()))
    }

    /// Keeps what has been compiled. Without it the next start compiles again.
    pub fn save(&self) {
        let Some(cache) = &self.cache else { return };
        if let Err(error) = cache.lock().unwrap_or_else(PoisonError::into_inner).save() {
            tracing::warn!(target: "witgate::cache", %error, "the cache's digests cannot be written");
        }
    }

    /// A store, whose calls end in time.
    pub fn store(&self, bounds: &Bounds) -> Store<State> {
        let call_time = bounds.call_time.min(self.sandbox.call_time);
        let mut store = Store::new(&self.engine, State::new(bounds, call_time, Arc::clone(&self.ticker.shared)));
        store.limiter(|state| state);
        store.set_hostcall_fuel(bounds.memory_bytes);
        store.epoch_deadline_callback(|mut store| store.data_mut().time.look());
        store
    }

    /// A call begins.
    pub fn begin(&self, store: &mut Store<State>) {
        self.ticker.wake();
        let ticks = store.data_mut().time.begin();
        store.set_epoch_deadline(ticks);
    }
}

fn config(sandbox: &Sandbox, cache: Option<&CheckedCache>) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(sandbox.instances)
        // These are counts; only memories and tables take address space.
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(sandbox.instances.saturating_mul(CORE_INSTANCES))
        .max_memories_per_component(MEMORIES)
        .total_memories(sandbox.memories)
        .max_tables_per_component(16)
        .total_tables(sandbox.instances.saturating_mul(4))
        .max_memory_size(sandbox.memory_bytes)
        .table_elements(sandbox.table_elements)
        .max_unused_warm_slots(256)
        .linear_memory_keep_resident(256 * 1024)
        .table_keep_resident(16 * 1024);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cache(cache.map(CheckedCache::cache))
        .epoch_interruption(true)
        // Collecting a backtrace made the first trap take 370 ms, and there is nobody to read it.
        .wasm_backtrace_max_frames(None)
        .concurrency_support(false)
        .memory_init_cow(true);
    config
}

/// Raises the engine's epoch while components run. Sleeps when none has run for a while, so that an idle gateway wakes no
/// processor.
struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// A call has begun since the last tick.
    used: AtomicBool,
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: &Engine, call_time: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let engine = engine.weak();
        // Longer than any call can run, so that no call is left without a clock.
        let rest = (call_time + Duration::from_secs(1)).div_duration_f64(TICK) as u64;
        let handle = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("witgate-epoch".to_owned()).spawn(move || {
                let mut unused = 0;
                while !shared.stop.load(Ordering::SeqCst) {
                    thread::sleep(TICK);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                    unused = if shared.used.swap(false, Ordering::SeqCst) { 0 } else { unused + 1 };
                    if unused > rest {
                        shared.parked.store(true, Ordering::SeqCst);
                        if !shared.used.load(Ordering::SeqCst) && !shared.stop.load(Ordering::SeqCst) {
                            thread::park();
                        }
                        shared.parked.store(false, Ordering::SeqCst);
                        unused = 0;
                    }
                }
            })
        };
        Ok(Ticker { shared, thread: handle?.thread().clone() })
    }

    fn wake(&self) {
        if !self.shared.used.load(Ordering::SeqCst) {
            self.shared.used.store(true, Ordering::SeqCst);
        }
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// How long the call of a store may still run. The first half of its limit is by the clock, which costs a call that ends
/// before nothing; of the second half, what its thread has worked counts.
pub(crate) struct CallTime {
    limit: Duration,
    /// What its thread had worked when the first half was over, and when that was.
    half: Option<(Duration, Instant)>,
    ticker: Arc<Shared>,
}

impl CallTime {
    /// A call begins: ticks until the first look at it.
    fn begin(&mut self) -> u64 {
        self.half = None;
        ticks(self.limit / 2)
    }

    /// A look at a call that runs: it goes on for some ticks, or has had its time.
    fn look(&mut self) -> wasmtime::Result<UpdateDeadline> {
        // The clock is kept for as long as somebody runs.
        self.ticker.used.store(true, Ordering::SeqCst);
        let worked = thread_time();
        let (half, since) = *self.half.get_or_insert_with(|| (worked, Instant::now()));
        let left = (self.limit / 2).saturating_sub(worked.saturating_sub(half));
        if left.is_zero() || since.elapsed() >= self.limit.saturating_mul(PATIENCE) {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(ticks(left)))
    }
}

/// Ticks until a time has surely passed: one more, since the next may come at once.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// How long a processor has worked for this thread.
#[cfg(unix)]
fn thread_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Where that is not told, the clock's time.
#[cfg(not(unix))]
fn thread_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// What one store holds: how much its instance uses and may use.
pub(crate) struct State {
    time: CallTime,
    memory_limit: usize,
    table_limit: usize,
    /// Bytes of linear memory, over all memories.
    pub memory: usize,
    /// The instance wanted more than it may have.
    pub denied: Option<Denied>,
}

/// What an instance wanted too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Memory,
    Table,
}

impl State {
    fn new(bounds: &Bounds, call_time: Duration, ticker: Arc<Shared>) -> Self {
        State {
            time: CallTime { limit: call_time, half: None, ticker },
            memory_limit: bounds.memory_bytes,
            table_limit: bounds.table_elements,
            memory: 0,
            denied: None,
        }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let memory = self.memory.saturating_add(desired.saturating_sub(current));
        if memory > self.memory_limit {
            self.denied = Some(Denied::Memory);
            return Ok(false);
        }
        self.memory = memory;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.table_limit {
            self.denied = Some(Denied::Table);
            return Ok(false);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call with this limit, whose first half is over.
    fn half_over(limit: Duration) -> CallTime {
        let mut time = CallTime { limit, half: None, ticker: Arc::default() };
        time.begin();
        assert!(goes_on(&mut time));
        time
    }

    fn goes_on(time: &mut CallTime) -> bool {
        time.look().is_ok()
    }

    #[test]
    fn where_address_space_is_short_both_instances_and_memories_become_few() {
        let mut tried = vec![(64, 256)];
        while let Some(next) = tried.last().and_then(|(instances, memories)| fewer(*instances, *memories)) {
            tried.push(next);
        }
        assert_eq!(tried, [(64, 256), (64, 128), (64, 64)]);
        assert_eq!(fewer(4_096, 15_360), Some((2_048, 7_680)));
        assert_eq!(fewer(100, 16), Some((64, 16)));
        assert_eq!(fewer(16, 64), None);
    }

    #[test]
    fn a_call_whose_thread_gets_no_processor_is_not_ended_for_that() {
        let limit = Duration::from_secs(1);
        let mut time = half_over(limit);
        let begun = Instant::now();
        thread::sleep(limit);
        assert!(goes_on(&mut time), "its thread has done nothing for {:?}", begun.elapsed());
        let worked = thread_time();
        while thread_time() - worked < limit / 2 {
            std::hint::spin_loop();
        }
        let error = time.look().err().expect("it has worked for half of its limit");
        assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::Interrupt));
        // The next call has all of its time again.
        time.begin();
        assert!(goes_on(&mut time));
    }

    #[test]
    fn a_call_ends_by_the_clock_where_its_thread_never_gets_a_processor() {
        let limit = Duration::from_millis(20);
        let mut time = half_over(limit);
        thread::sleep(limit * PATIENCE);
        assert!(!goes_on(&mut time));
    }
}
