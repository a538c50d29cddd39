//! State in one file, for one process: it is there again after the process or the machine has ended in any way.
//!
//! The file is a redb database. Values are written by one thread, all that wait at once in one transaction, and a call
//! returns when its transaction is on the disk. Meters are counted in memory, exactly as [`Memory`] does, and written each
//! [`FileOptions::flush`]: who crashes loses at most the counts of that time, and nobody waits for a disk to be counted. What
//! is written together is of one moment: a reservation is there with what it took, or neither is. With a `flush` of zero a
//! call that took something returns when that is on the disk, and so does a settlement that is remembered in any case.
//!
//! No disk is touched on an async thread, and no call takes longer than [`FileOptions::timeout`]. When the disk fails, so does
//! every call from then on, those that only count in memory too, until a write succeeds again. As redb writes nothing more after
//! an error, that is when the process is started anew: what is on the disk then, nobody knows.
//!
//! [`Memory`]: witgate_gateway::state::Memory

use std::collections::HashSet;
use std::fmt::Display;
use std::mem::take as empty;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use witgate_gateway::state::{
    self, Charge, Counter, Counters, Expect, MAX_KEY_BYTES, Meters, Once, Reservation, Rule, State, StateError, Taken,
    Use, check_key,
};

/// Values: when they expire, in nanoseconds ([`NEVER`] for never), and what they are.
const VALUES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("values");
/// The keys of values that expire, in the order of their ends.
const ENDS: TableDefinition<(u64, &str), ()> = TableDefinition::new("ends");
/// Counters: how much, and when it is forgotten.
const COUNTERS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("counters");
/// Places: meter and id, and when it ends.
const PLACES: TableDefinition<(&str, &str), u64> = TableDefinition::new("places");
/// Reservations: the id, and when the lease ends, what it holds of counters (name, how much, until when), and the meters of
/// its places.
const RESERVATIONS: TableDefinition<&str, Held<'static>> = TableDefinition::new("reservations");
/// Settlements that are remembered, and until when.
const SETTLED: TableDefinition<&str, u64> = TableDefinition::new("settled");
/// Numbers about the file.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// How the tables are laid out: another number is another layout.
const LAYOUT: u64 = 1;

type Held<'a> = (u64, Vec<(&'a str, u64, u64)>, Vec<&'a str>);

const NEVER: u64 = u64::MAX;
/// What an entry takes beside its key and value, about, in bytes.
const ENTRY_BYTES: usize = 128;
/// How often what has expired is thrown away, on the clock of the calls.
const SWEEP: Duration = Duration::from_secs(10);
/// The most calls in one transaction, and the most that wait for one.
const MAX_BATCH: usize = 256;
const MAX_WAITING: usize = 1_024;
/// The most reads at once.
const MAX_READS: usize = 32;
/// How long to wait for a file that another process still has: the one before, about to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// What redb keeps of the file in memory, in bytes.
const CACHE: usize = 64 << 20;

/// Where the file is, and how it is used.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The file. Its folder must be there.
    pub path: PathBuf,
    /// The most bytes that values may take, keys included.
    pub max_bytes: u64,
    /// The longest that a call takes.
    pub timeout: Duration,
    /// How often meters are written; zero is at each call.
    pub flush: Duration,
}

/// State in one file.
pub struct File {
    shared: Arc<Shared>,
    /// None only while it is dropped.
    sender: Option<mpsc::Sender<Message>>,
    writer: Option<JoinHandle<()>>,
    reads: Arc<Semaphore>,
    timeout: Duration,
    at_once: bool,
}

struct Shared {
    database: Database,
    meters: Mutex<Tracked>,
    path: PathBuf,
}

/// Meters, and which of them the file does not have yet.
#[derive(Default)]
struct Tracked {
    meters: Meters,
    changed: Changed,
    sweep: Duration,
    /// The latest time that a call has brought.
    now: Duration,
    /// Why the last write failed; none where it did not.
    error: Option<StateError>,
}

/// A meter, and who holds a place of it.
type Place = (Arc<str>, Arc<str>);

/// The names of what the file does not have yet.
#[derive(Default)]
struct Changed {
    counters: HashSet<Counter>,
    places: HashSet<Place>,
    reservations: HashSet<Arc<str>>,
    settled: HashSet<String>,
}

/// What the file is to have: nothing in the place of what is gone.
#[derive(Default)]
struct Snapshot {
    counters: Vec<(Counter, Option<(u64, Duration)>)>,
    places: Vec<(Place, Option<Duration>)>,
    reservations: Vec<(Arc<str>, Option<Reservation>)>,
    settled: Vec<(String, Option<Duration>)>,
    /// The latest time that a call has brought.
    now: Duration,
}

impl Snapshot {
    fn is_empty(&self) -> bool {
        let Snapshot { counters, places, reservations, settled, now: _ } = self;
        counters.is_empty() && places.is_empty() && reservations.is_empty() && settled.is_empty()
    }

    /// What has not been written is still to be.
    fn back(self, changed: &mut Changed) {
        changed.counters.extend(self.counters.into_iter().map(|(name, _)| name));
        changed.places.extend(self.places.into_iter().map(|(name, _)| name));
        changed.reservations.extend(self.reservations.into_iter().map(|(id, _)| id));
        changed.settled.extend(self.settled.into_iter().map(|(id, _)| id));
    }
}

impl Tracked {
    /// All that has changed since the last time, as it is now.
    fn snapshot(&mut self) -> Snapshot {
        let Changed { counters, places, reservations, settled } = empty(&mut self.changed);
        let meters = &self.meters;
        Snapshot {
            counters: counters.into_iter().map(|counter| (meters.counter(&counter), counter)).map(turn).collect(),
            places: places.into_iter().map(|place| (meters.place(&place.0, &place.1), place)).map(turn).collect(),
            reservations: reservations.into_iter().map(|id| (meters.reservation(&id).cloned(), id)).map(turn).collect(),
            settled: settled.into_iter().map(|id| (meters.settlement(&id), id)).map(turn).collect(),
            now: self.now,
        }
    }
}

fn turn<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

enum Message {
    Write(Write),
    Flush(oneshot::Sender<Result<(), StateError>>),
}

struct Write {
    now: Duration,
    key: String,
    value: Option<Bytes>,
    expires: u64,
    expect: Wanted,
    done: oneshot::Sender<Result<bool, StateError>>,
}

enum Wanted {
    Anything,
    Absent,
    Is(Bytes),
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len() + ENTRY_BYTES) as u64
}

impl File {
    /// Opens the file, or makes it. Blocks while another process has it, for 5 seconds at most.
    pub fn open(options: &FileOptions) -> Result<Self, StateError> {
        let path = options.path.clone();
        let fail = |error: &dyn Display| failed(&path, error);
        let database = open(&path)?;
        let mut tracked = Tracked::default();
        let time = Duration::from_nanos;
        let transaction = database.begin_write().map_err(|error| fail(&error))?;
        let bytes = (|| -> Result<u64, redb::Error> {
            for row in transaction.open_table(COUNTERS)?.iter()? {
                let (name, counted) = row?;
                let (count, expires) = counted.value();
                if let Some(counter) = Counter::parse(name.value()) {
                    let _ = tracked.meters.change(&counter, count, 0, time(expires));
                }
            }
            let places = transaction.open_table(PLACES)?;
            for row in places.iter()? {
                let (key, expires) = row?;
                let (meter, token) = key.value();
                let _ = tracked.meters.hold(&meter.into(), &token.into(), time(expires.value()));
            }
            for row in transaction.open_table(RESERVATIONS)?.iter()? {
                let (id, held) = row?;
                let (lease, amounts, places) = held.value();
                let amount = |(name, n, end)| Some((Counter::parse(name)?, n, time(end)));
                let amounts = amounts.into_iter().filter_map(amount).collect();
                let places = places.into_iter().map(Arc::from).collect();
                let _ = tracked.meters.reserve(&id.value().into(), Reservation { lease: time(lease), amounts, places });
            }
            for row in transaction.open_table(SETTLED)?.iter()? {
                let (id, until) = row?;
                let _ = tracked.meters.remember(id.value(), time(until.value()));
            }
            transaction.open_table(VALUES)?;
            transaction.open_table(ENDS)?;
            let mut meta = transaction.open_table(META)?;
            if meta.get("layout")?.is_none() {
                meta.insert("layout", LAYOUT)?;
            }
            let layout = meta.get("layout")?.map_or(0, |layout| layout.value());
            let bytes = meta.get("bytes")?.map_or(0, |bytes| bytes.value());
            Ok(if layout == LAYOUT { bytes } else { NEVER })
        })()
        .map_err(|error| fail(&error))?;
        if bytes == NEVER {
            return Err(fail(&"it was written by another version of witgate"));
        }
        transaction.commit().map_err(|error| fail(&error))?;
        let shared = Arc::new(Shared { database, meters: Mutex::new(tracked), path: path.clone() });
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        // Zero is at each call, and what a call that nobody waits for leaves behind still has to be written some time.
        let flush = if options.flush.is_zero() { Duration::from_secs(1) } else { options.flush };
        let writer = Writer {
            shared: Arc::clone(&shared),
            bytes,
            max_bytes: options.max_bytes,
            sweep: Duration::ZERO,
            forget: Duration::ZERO,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| fail(&error))?;
        let writer = std::thread::Builder::new()
            .name("witgate-state".to_owned())
            .spawn(move || writer.run(&runtime, receiver, flush))
            .map_err(|error| fail(&error))?;
        Ok(File {
            shared,
            sender: Some(sender),
            writer: Some(writer),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            timeout: options.timeout,
            at_once: options.flush.is_zero(),
        })
    }

    /// Whether the file can be opened, or made. A file that another process has is well.
    pub fn check(options: &FileOptions) -> Result<(), StateError> {
        let path = &options.path;
        if path.exists() {
            return match try_open(path) {
                Ok(_) | Err(DatabaseError::DatabaseAlreadyOpen) => Ok(()),
                Err(error) => Err(failed(path, &error)),
            };
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match folder.is_dir() {
            true => Ok(()),
            false => Err(failed(path, &"its folder is not there")),
        }
    }

    fn late(&self) -> StateError {
        failed(&self.shared.path, &format!("it took longer than {} ms", self.timeout.as_millis()))
    }

    /// What the writer answers to a message.
    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, StateError>>) -> Message,
    ) -> Result<T, StateError> {
        let (done, answer) = oneshot::channel();
        let message = message(done);
        let ended = || failed(&self.shared.path, &"its writer has ended");
        let asked = async {
            let sender = self.sender.as_ref().ok_or_else(ended)?;
            sender.send(message).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Reads where blocking is allowed.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StateError> {
        let (shared, reads) = (Arc::clone(&self.shared), Arc::clone(&self.reads));
        let read = async move {
            let permit = reads.acquire_owned().await;
            let done = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work(&shared).map_err(|error| failed(&shared.path, &error))
            });
            done.await.unwrap_or_else(|_| Err(StateError("a read has ended by itself".to_owned())))
        };
        tokio::time::timeout(self.timeout, read).await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Waits until the meters are on the disk, where that is wanted.
    async fn written(&self, wanted: bool) -> Result<(), StateError> {
        if wanted { self.ask(Message::Flush).await } else { Ok(()) }
    }

    fn meters<T>(
        &self,
        now: Duration,
        work: impl FnOnce(&mut Tracked) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut tracked = self.shared.meters();
        // What is counted now would be lost, and pile up until then.
        if let Some(error) = &tracked.error {
            return Err(error.clone());
        }
        tracked.now = tracked.now.max(now);
        if now >= tracked.sweep {
            tracked.sweep = now + SWEEP;
            tracked.meters.forget(now);
        }
        work(&mut tracked)
    }
}

impl Drop for File {
    /// Waits for what is still to be written.
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

fn failed(path: &Path, error: &dyn Display) -> StateError {
    StateError(format!("{}: {error}", path.display()))
}

fn try_open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // It holds what clients asked and were answered.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| DatabaseError::Storage(error.into()))?;
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

fn open(path: &Path) -> Result<Database, StateError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_open(path) {
            Ok(database) => return Ok(database),
            Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(failed(path, &"another process has it")),
            Err(error) => return Err(failed(path, &error)),
        }
    }
}

impl Shared {
    fn meters(&self) -> MutexGuard<'_, Tracked> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters for Tracked {
    fn counts(&mut self, meter: &str, at: u64) -> Result<(u64, u64), StateError> {
        self.meters.counts(meter, at)
    }

    fn change(&mut self, counter: &Counter, more: u64, less: u64, expires: Duration) -> Result<(), StateError> {
        self.changed.counters.insert(counter.clone());
        self.meters.change(counter, more, less, expires)
    }

    fn places(&mut self, now: Duration, meter: &str) -> Result<u64, StateError> {
        self.meters.places(now, meter)
    }

    fn hold(&mut self, meter: &Arc<str>, id: &Arc<str>, expires: Duration) -> Result<(), StateError> {
        self.changed.places.insert((Arc::clone(meter), Arc::clone(id)));
        self.meters.hold(meter, id, expires)
    }

    fn release(&mut self, meter: &Arc<str>, id: &str) -> Result<(), StateError> {
        self.changed.places.insert((Arc::clone(meter), id.into()));
        self.meters.release(meter, id)
    }

    fn is_reserved(&mut self, id: &str) -> Result<bool, StateError> {
        self.meters.is_reserved(id)
    }

    fn reserve(&mut self, id: &Arc<str>, reservation: Reservation) -> Result<(), StateError> {
        self.changed.reservations.insert(Arc::clone(id));
        self.meters.reserve(id, reservation)
    }

    fn close(&mut self, id: &str) -> Result<Option<Reservation>, StateError> {
        let closed = self.meters.close(id)?;
        if closed.is_some() {
            self.changed.reservations.insert(id.into());
        }
        Ok(closed)
    }

    fn ended(&mut self, now: Duration) -> Result<Option<Arc<str>>, StateError> {
        self.meters.ended(now)
    }

    fn is_settled(&mut self, now: Duration, id: &str) -> Result<bool, StateError> {
        self.meters.is_settled(now, id)
    }

    fn remember(&mut self, id: &str, until: Duration) -> Result<(), StateError> {
        self.changed.settled.insert(id.to_owned());
        self.meters.remember(id, until)
    }
}

/// The one thread that writes.
struct Writer {
    shared: Arc<Shared>,
    /// What the values take.
    bytes: u64,
    max_bytes: u64,
    /// When values that have expired are looked for again, and meters.
    sweep: Duration,
    forget: Duration,
}

/// The values within a transaction, and what they take when it is on the disk.
struct Values<'t> {
    values: Table<'t, &'static str, (u64, &'static [u8])>,
    ends: Table<'t, (u64, &'static str), ()>,
    bytes: u64,
    max_bytes: u64,
}

impl Writer {
    fn run(mut self, runtime: &tokio::runtime::Runtime, mut receiver: mpsc::Receiver<Message>, flush: Duration) {
        let mut next = Instant::now() + flush;
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let waited =
                runtime.block_on(async { tokio::time::timeout(wait, receiver.recv_many(&mut batch, MAX_BATCH)).await });
            let ended = waited == Ok(0);
            let due = ended || Instant::now() >= next;
            if due {
                next = Instant::now() + flush;
            }
            self.write(empty(&mut batch), due);
            if ended {
                return;
            }
        }
    }

    /// Does what a batch asks for in one transaction, and writes the meters where that is due or asked for.
    fn write(&mut self, batch: Vec<Message>, due: bool) {
        let (mut writes, mut flushes) = (Vec::new(), Vec::new());
        for message in batch {
            match message {
                // Nobody waits for it any more: it must not happen after its caller was told that it did not.
                Message::Write(write) if write.done.is_closed() => {}
                Message::Write(write) => writes.push(write),
                Message::Flush(done) => flushes.push(done),
            }
        }
        let meters = due || !flushes.is_empty();
        let (snapshot, failing) = match meters {
            true => {
                let mut tracked = self.shared.meters();
                (tracked.snapshot(), tracked.error.is_some())
            }
            false => (Snapshot::default(), false),
        };
        // Where the last write failed one of nothing finds out whether the next one would.
        if writes.is_empty() && snapshot.is_empty() && !failing {
            flushes.into_iter().for_each(|done| drop(done.send(Ok(()))));
            return;
        }
        match self.transaction(&writes, &snapshot) {
            Ok(done) => {
                self.shared.meters().error = None;
                for (write, done) in writes.into_iter().zip(done) {
                    let _ = write.done.send(done);
                }
                flushes.into_iter().for_each(|done| drop(done.send(Ok(()))));
            }
            Err(error) => {
                let error = failed(&self.shared.path, &error);
                {
                    let mut tracked = self.shared.meters();
                    snapshot.back(&mut tracked.changed);
                    tracked.error = Some(error.clone());
                }
                writes.into_iter().for_each(|write| drop(write.done.send(Err(error.clone()))));
                flushes.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
            }
        }
    }

    fn transaction(
        &mut self,
        writes: &[Write],
        snapshot: &Snapshot,
    ) -> Result<Vec<Result<bool, StateError>>, redb::Error> {
        let Snapshot { counters, places, reservations, settled, now: counted } = snapshot;
        let counted = *counted;
        let transaction = self.shared.database.begin_write()?;
        let mut done = Vec::with_capacity(writes.len());
        let mut bytes = self.bytes;
        let now = writes.iter().map(|write| write.now).max();
        let sweep = now.filter(|now| *now >= self.sweep);
        if !writes.is_empty() {
            let mut values = Values {
                values: transaction.open_table(VALUES)?,
                ends: transaction.open_table(ENDS)?,
                bytes,
                max_bytes: self.max_bytes,
            };
            if let Some(now) = sweep {
                values.sweep(now)?;
            }
            for write in writes {
                done.push(values.write(write)?);
            }
            bytes = values.bytes;
            transaction.open_table(META)?.insert("bytes", bytes)?;
        }
        let forget = counted >= self.forget;
        if forget || !counters.is_empty() {
            let mut table = transaction.open_table(COUNTERS)?;
            if forget {
                table.retain(|_, (_, expires)| expires > nanos(counted))?;
            }
            for (counter, counted) in counters {
                let name = counter.to_string();
                match counted {
                    Some((count, expires)) => drop(table.insert(name.as_str(), (*count, nanos(*expires)))?),
                    None => drop(table.remove(name.as_str())?),
                }
            }
        }
        if forget || !places.is_empty() {
            let mut table = transaction.open_table(PLACES)?;
            if forget {
                table.retain(|_, expires| expires > nanos(counted))?;
            }
            for ((key, id), expires) in places {
                match expires {
                    Some(expires) => drop(table.insert((&**key, &**id), nanos(*expires))?),
                    None => drop(table.remove((&**key, &**id))?),
                }
            }
        }
        if !reservations.is_empty() {
            let mut table = transaction.open_table(RESERVATIONS)?;
            for (id, reservation) in reservations {
                let Some(Reservation { lease, amounts, places }) = reservation else {
                    table.remove(&**id)?;
                    continue;
                };
                let names: Vec<_> = amounts.iter().map(|(counter, ..)| counter.to_string()).collect();
                let amounts = names.iter().zip(amounts).map(|(name, (_, n, end))| (name.as_str(), *n, nanos(*end)));
                let places = places.iter().map(|place| &**place).collect();
                table.insert(&**id, (nanos(*lease), amounts.collect(), places))?;
            }
        }
        if forget || !settled.is_empty() {
            let mut table = transaction.open_table(SETTLED)?;
            if forget {
                table.retain(|_, until| until > nanos(counted))?;
            }
            for (id, until) in settled {
                match until {
                    Some(until) => drop(table.insert(id.as_str(), nanos(*until))?),
                    None => drop(table.remove(id.as_str())?),
                }
            }
        }
        transaction.commit()?;
        self.bytes = bytes;
        self.sweep = sweep.map_or(self.sweep, |now| now + SWEEP);
        if forget {
            self.forget = counted + SWEEP;
        }
        Ok(done)
    }
}

impl Values<'_> {
    fn sweep(&mut self, now: Duration) -> Result<(), TableError> {
        let ended = self.ends.extract_from_if((0, "")..(nanos(now).saturating_add(1), ""), |_, ()| true)?;
        for row in ended {
            let (end, ()) = row.map(|(key, _)| (key.value().1.to_owned(), ()))?;
            if let Some(value) = self.values.remove(end.as_str())? {
                self.bytes = self.bytes.saturating_sub(size(&end, value.value().1));
            }
        }
        Ok(())
    }

    /// Does one write; the inner error is of this write alone.
    fn write(&mut self, write: &Write) -> Result<Result<bool, StateError>, TableError> {
        let key = write.key.as_str();
        let known = self.values.get(key)?;
        let (mut old, mut end, mut holds) = (0, NEVER, true);
        if let Some(known) = &known {
            let (expires, value) = known.value();
            (old, end) = (size(key, value), expires);
        }
        let live = known.as_ref().map(|known| known.value()).filter(|(expires, _)| *expires > nanos(write.now));
        match &write.expect {
            Wanted::Anything => {}
            Wanted::Absent => holds = live.is_none(),
            Wanted::Is(bytes) => holds = live.is_some_and(|(_, value)| value == &bytes[..]),
        }
        drop(known);
        if !holds {
            return Ok(Ok(false));
        }
        let new = write.value.as_ref().map_or(0, |value| size(key, value));
        let mut bytes = self.bytes.saturating_sub(old) + new;
        if bytes > self.max_bytes && write.value.is_some() {
            self.sweep(write.now)?;
            if self.values.get(key)?.is_none() {
                (old, end) = (0, NEVER);
            }
            bytes = self.bytes.saturating_sub(old) + new;
            if bytes > self.max_bytes {
                return Ok(Err(StateError(format!("full: it may hold {} bytes", self.max_bytes))));
            }
        }
        if end != NEVER {
            self.ends.remove((end, key))?;
        }
        match &write.value {
            Some(value) => {
                self.values.insert(key, (write.expires, &value[..]))?;
                if write.expires != NEVER {
                    self.ends.insert((write.expires, key), ())?;
                }
            }
            None => drop(self.values.remove(key)?),
        }
        self.bytes = bytes;
        Ok(Ok(true))
    }
}

impl State for File {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        if key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let key = key.to_owned();
        let read = self.read(move |shared| {
            let table = shared.database.begin_read()?.open_table(VALUES)?;
            let found = table.get(key.as_str())?;
            Ok(found.and_then(|found| {
                let (expires, value) = found.value();
                (expires > nanos(now)).then(|| Bytes::copy_from_slice(value))
            }))
        });
        read.await
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
        let expect = match expect {
            Expect::Anything => Wanted::Anything,
            Expect::Absent => Wanted::Absent,
            Expect::Is(bytes) => Wanted::Is(Bytes::copy_from_slice(bytes)),
        };
        let (key, expires) = (key.to_owned(), expires.map_or(NEVER, nanos));
        self.ask(|done| Message::Write(Write { now, key, value, expires, expect, done })).await
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        let (prefix, after) = (prefix.to_owned(), after.filter(|after| *after >= prefix).map(str::to_owned));
        let read = self.read(move |shared| {
            let table = shared.database.begin_read()?.open_table(VALUES)?;
            let from = after.as_deref().map_or(Bound::Included(prefix.as_str()), Bound::Excluded);
            let mut found = Vec::new();
            if limit == 0 {
                return Ok(found);
            }
            for row in table.range::<&str>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                let (key, (expires, value)) = (key.value(), value.value());
                if !key.starts_with(&prefix) {
                    break;
                }
                if expires > nanos(now) {
                    found.push((key.to_owned(), Bytes::copy_from_slice(value)));
                    if found.len() == limit {
                        break;
                    }
                }
            }
            Ok(found)
        });
        read.await
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        let taken = self.meters(now, |tracked| state::take(tracked, now, id, lease, charges))?;
        self.written(self.at_once && matches!(taken, Taken::All(_))).await?;
        Ok(taken)
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.meters(now, |tracked| state::settle(tracked, now, id, taken, uses, once))?;
        self.written(self.at_once || matches!(once, Once::Until(_))).await
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.meters(now, |tracked| state::used(tracked, now, meters))
    }
}
