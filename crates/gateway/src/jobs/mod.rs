//! Asynchronous jobs: requests that are answered later.
//!
//! A client submits any dialect's request with `Prefer: respond-async` and gets 202 with the job's place. A worker
//! ([`Gateway::work`], driven by the runtime) runs it on the same path as any other request, and keeps the answer.
//!
//! # What holds
//! - **None is lost.** Once a client has its 202, the job is in the state store and in its queue. A process that runs one
//!   holds it by a lease; when it dies, the lease ends and another one takes the job.
//! - **None is answered twice.** Everything about a job is one record, changed by compare-and-set. A run may write an
//!   answer only while the record still has the token of its lease; so the first answer stands, and with it what it cost.
//!   A backend may well be asked twice (at least once is what can be had), but a client is told of, and charged for, one
//!   answer: what a run owes for it is written with it, and settled before the job leaves its queue, by whoever gets there,
//!   as often as need be: it counts once. A run whose job its owner cancels or deletes owes what had come of the answer.
//!   One that has lost its job to another owes nothing; what it had taken of limits and budgets is given back, and what a
//!   killed process had taken when the lease of that is over.
//! - **None waits for ever.** A job that was begun `jobs.attempts` times, or that could not be begun within
//!   `jobs.run_within`, has failed.
//! - A failure that may pass (408, 429, 5xx) is tried again after a wait, that of its `retry-after` or one that doubles. A
//!   refusal by this gateway's own bounds does not count as an attempt.
//! - Jobs are begun in the order in which they came. Only their owner sees them: for all others they are not there.
//!
//! How they lie in the store: `store.rs`. The queue is ordered by the time at which somebody is to look at the job: its
//! submission; while it runs, the end of its lease.

mod batches;
mod bell;
mod callback;
mod consume;
mod files;
pub(crate) mod later;
mod notices;
mod records;
mod serve;
mod sqs;
mod store;
mod work;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use witgate_model::Field;

use crate::bill::{Bill, Debt};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::Request;
use crate::keys::{Client, hex};
use crate::path::Flight;
use crate::ports::Ports;
use crate::record::Record;
use crate::state::StateError;

pub(crate) use batches::BatchQuestion;
pub use callback::is_public;
pub(crate) use callback::timestamp;
pub use consume::{Broker, BrokerError, Message, Parcel};
pub(crate) use files::FileQuestion;
pub(crate) use notices::{mark, send};
pub(crate) use serve::Question;
pub use sqs::Sqs;

use bell::{Bell, Bells};
use store::Store;

/// How long the queue's length counts as known: other processes change it too.
const COUNTED_FOR: Duration = Duration::from_secs(5);

/// What one process knows of jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Rung when there is a new job.
    bell: Bell,
    /// Rung when there is a new callback.
    calls: Bell,
    /// Rung when a job has changed.
    bells: Bells,
    /// How far the queue, the callbacks and the notices were gone through.
    looked: Behind,
    called: Behind,
    noticed: Behind,
    /// How many run: on one gateway and on those that it has replaced.
    running: AtomicUsize,
    /// Somebody runs jobs in [`crate::Gateway::work_off`].
    working: AtomicBool,
    /// A request has left a job to be run, or looked at one that has not ended; see [`crate::Gateway::left_work`].
    left: AtomicBool,
    /// When this process looked last, in passing, for what others left.
    passed: Mutex<Option<Duration>>,
    /// When the queue was counted, and its length.
    queued: Mutex<(Option<Duration>, usize)>,
}

impl Jobs {
    /// A place in the queue.
    pub async fn place<P: Ports>(self: &Arc<Self>, ports: &P, most: usize) -> Result<Place, Failed> {
        self.know(ports, most).await.map_err(|error| unavailable(&error))?;
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.1 >= most {
            let message = format!("{most} jobs wait already, the limit (jobs.max_queued); try again later");
            let mut failed = Failed::ours(503, "overloaded_error", "job_queue_full", message);
            failed.error.retry = witgate_model::Retry::SameTarget(Some(5_000));
            return Err(failed);
        }
        queued.1 += 1;
        Ok(Place { jobs: Arc::clone(self), taken: false })
    }

    /// Counts the queue, up to `most`, unless that was done a moment ago.
    async fn know<P: Ports>(&self, ports: &P, most: usize) -> Result<(), StateError> {
        let now = ports.now();
        {
            let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
            if queued.0.is_some_and(|counted| now.saturating_sub(counted) < COUNTED_FOR) {
                return Ok(());
            }
            // Others go on with the old number meanwhile.
            queued.0 = Some(now);
        }
        let counted = count(ports, most).await;
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        match counted {
            Ok(count) => queued.1 = count,
            Err(_) => queued.0 = None,
        }
        counted.map(|_| ())
    }

    /// How many jobs run in this process, and how many are in the queue, up to `most`: those that run are in it too. Of the
    /// queue nothing is told where the store cannot be asked.
    pub async fn count<P: Ports>(&self, ports: &P, most: usize) -> (usize, Option<usize>) {
        let queued = self.know(ports, most).await.is_ok();
        let queued = queued.then(|| self.queued.lock().unwrap_or_else(PoisonError::into_inner).1);
        (self.running.load(Ordering::Relaxed), queued)
    }

    /// Whoever runs jobs is to look at what there is to do.
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// A job has left the queue.
    fn left(&self) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.1 = queued.1.saturating_sub(1);
    }
}

/// The length of the queue, up to `most`.
async fn count<P: Ports>(ports: &P, most: usize) -> Result<usize, StateError> {
    const PAGE: usize = 1_000;
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let page = Store(ports).list("jobq/", after.as_deref(), PAGE).await?;
        count += page.len();
        if page.len() < PAGE || count >= most {
            return Ok(count.min(most));
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}

/// How far a list was gone through that is not gone through at once: the next time goes on behind this entry, so that what
/// cannot be done at its beginning keeps nothing else from being done. Who comes to its end begins anew.
#[derive(Default)]
pub(crate) struct Behind(Mutex<Option<String>>);

impl Behind {
    /// Where this time begins; the next one begins at the first entry.
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The next time begins behind this entry.
    fn set(&self, entry: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    }
}

/// A place in the queue, given back unless a job takes it.
pub(crate) struct Place {
    jobs: Arc<Jobs>,
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            self.jobs.left();
        }
    }
}

/// Who asks in a client's stead: a job.
#[derive(Clone)]
pub(crate) struct Behalf {
    pub client: Arc<Client>,
    /// The job's id; none for a record of a queue event.
    pub job: Option<String>,
    pub told: Slot,
    /// What the answer begins with, where it is one that is given later.
    pub start: Option<later::Start>,
}

/// What is to be told of a request that has ended.
pub(crate) struct Told {
    pub record: Record,
    /// What it took of limits and budgets.
    pub bill: Bill,
}

/// Where that goes: it counts when the answer is kept, or when its owner does not want the rest of it.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Filled>);

#[derive(Default)]
struct Filled {
    told: Mutex<Option<Told>>,
    ended: AtomicBool,
}

impl Slot {
    pub fn set(&self, told: Told) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    pub fn take(&self) -> Option<Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What `look` sees of it, where it is there.
    fn see<T>(&self, look: impl FnOnce(&Told) -> T) -> Option<T> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    /// The owner has ended the job: nobody asks again, and what came of the answer counts.
    fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    pub fn is_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }
}

impl Told {
    /// What it owes, to be written with its answer.
    fn debt(&self) -> Option<Debt> {
        self.bill.clone().debt(&self.record.request_id)
    }

    /// The answer is not kept: nobody is told of it, and it costs nothing.
    fn void<P: Ports>(self, ports: &Arc<P>) {
        let Told { record, mut bill } = self;
        bill.void();
        if let Some(work) = bill.work(&record.request_id) {
            ports.after(work);
        }
    }
}

/// What is to be told of an answer that is not kept yet. Where it never is, whoever has left, it costs nothing: what it had
/// taken is given back at once. One that was kept all the same, and nobody saw that, has what it owes with it.
struct Unkept<'p, P: Ports> {
    ports: &'p Arc<P>,
    told: Slot,
}

impl<'p, P: Ports> Unkept<'p, P> {
    fn new(ports: &'p Arc<P>) -> Self {
        Unkept { ports, told: Slot::default() }
    }

    /// It is kept, or counts anyhow.
    fn take(&self) -> Option<Told> {
        self.told.take()
    }

    /// What it owes, to be written with its answer.
    fn debt(&self) -> Option<Debt> {
        self.told.see(Told::debt).flatten()
    }

    /// A backend was asked.
    fn has_asked(&self) -> Option<bool> {
        self.told.see(|told| told.record.attempts > 0)
    }
}

impl<P: Ports> Drop for Unkept<'_, P> {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told.void(self.ports);
        }
    }
}

impl Gateway {
    /// Whose the jobs, files and batches of a request are.
    fn owner<P: Ports>(&self, flight: &Flight<P>) -> String {
        flight.client.as_ref().map(|client| client.owner.clone()).unwrap_or_default()
    }

    /// An answer that is kept, or an attempt that came to nothing, is told of.
    fn tell_of<P: Ports>(&self, ports: &P, record: &Record) {
        self.watched(ports, Some(record));
        ports.record(record);
    }

    /// The same, and what it took is settled.
    fn tell<P: Ports>(&self, ports: &Arc<P>, told: Told) {
        let Told { record, mut bill } = told;
        self.tell_of(ports.as_ref(), &record);
        if let Some(work) = bill.work(&record.request_id) {
            ports.after(work);
        }
    }

    /// The client whose a job is; `None` where there is none any more.
    async fn client_of<P: Ports>(&self, ports: &P, owner: &str) -> Result<Option<Arc<Client>>, StateError> {
        self.keys.of_owner(&self.config, ports, owner).await
    }
}

/// Whether a request may leave something to do behind: for a runtime that lives from one request to the next, which then
/// calls [`crate::Gateway::work_off`].
pub fn leaves_work<B>(request: &Request<B>) -> bool {
    Prefer::of(&request.headers).respond_async
        || is_enqueue(&request.path)
        || ["/v1/jobs", "/v1/batches"].iter().any(|path| request.path.starts_with(path))
}

/// The route whose requests are always asked later.
const ENQUEUE: &str = "/invoke/llm/enqueue";

/// Whether a client wants its answer later.
pub(crate) fn wanted<P: Ports, B>(flight: &Flight<P>, request: &Request<B>) -> bool {
    flight.told.is_none()
        && request.method == "POST"
        && (is_enqueue(&request.path) || Prefer::of(&request.headers).respond_async)
}

fn is_enqueue(path: &str) -> bool {
    path.trim_end_matches('/') == ENQUEUE
}

/// SHA-256 over texts, each with its length, in hexadecimal.
fn hash(texts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hex(&hash.finalize())
}

/// The state store cannot be asked.
fn unavailable(error: &StateError) -> Failed {
    Failed::ours(503, "api_error", "state_unavailable", error.to_string())
}

/// What a client prefers (RFC 7240).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Prefer {
    pub respond_async: bool,
    pub wait: Option<Duration>,
}

impl Prefer {
    pub fn of(headers: &[Field]) -> Self {
        let mut prefer = Prefer::default();
        for (_, value) in headers.iter().filter(|(name, _)| name == "prefer") {
            for preference in value.split(',') {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                    ("respond-async", _) => prefer.respond_async = true,
                    ("wait", value) => prefer.wait = seconds(value).or(prefer.wait),
                    _ => {}
                }
            }
        }
        prefer
    }
}

/// A time to wait: a number of seconds, or with a unit, as `500ms`, `30s`, `2m`, `24h`.
fn seconds(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_the_standard_writes_them() {
        let of = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("prefer".to_owned(), (*value).to_owned())).collect();
            Prefer::of(&headers)
        };
        let wait = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(of(&[]), Prefer::default());
        assert_eq!(of(&["respond-async, wait=10"]), Prefer { respond_async: true, wait: wait(10) });
        assert_eq!(
            of(&["Respond-Async; x=1", "return=minimal, wait=\"7\""]),
            Prefer { respond_async: true, wait: wait(7) }
        );
        assert_eq!(of(&["wait=soon"]), Prefer::default());
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("2m"), wait(120));
        assert_eq!(seconds("99999999999999999999"), None);
    }
}
