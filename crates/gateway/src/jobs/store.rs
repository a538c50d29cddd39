//! Where jobs lie: a few keys of a state store, changed by compare-and-set alone.
//!
//! | key | value |
//! |---|---|
//! | `job/ID` | the job: the one truth |
//! | `jobq/DUE-ID` | somebody is to look at the job at DUE |
//! | `jobc/DUE-ID` | the job's callback is to be sent at DUE |
//! | `jobo/OWNER/AGE-ID` | an owner's jobs, the newest first |
//! | `jobi/OWNER/HASH` | the job that an idempotency key stands for |
//! | `jobb/ID/NAME/NUMBER` | pieces of a request or an answer |
//! | `jobp` | somebody has looked in passing, a moment ago |
//!
//! An index may lag behind the job, never the other way round: it is written before the job and removed after it, and
//! who finds an entry that is not true puts it right. Only a job that its owner deletes leaves his list first: the same id may
//! be another job's right after.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use witgate_model::{Field, Usage};

use crate::bill::Debt;
use crate::kv::GIVEN_UP;
use crate::ports::Ports;
use crate::state::{Expect, State, StateError};

/// The largest piece of a value, in bytes: some stores take no larger ones.
pub(crate) const PIECE: usize = 256 * 1024;

/// What an entry of an index holds: all of it is in the key.
pub(crate) const ENTRY: &[u8] = b"1";

/// See [`crate::Gateway::pass_by`].
pub(super) const PASSED: &str = "jobp";

/// How often, and after which pause, a key is tried again that somebody else seems to be writing: more often than a store
/// of the edge takes to give that one up.
const MOST_TRIES: i64 = 2 * GIVEN_UP;
const MOMENT: Duration = Duration::from_millis(10);

/// The end of the times that an index can tell, in milliseconds since 1970.
const LAST: u64 = 9_999_999_999_999_999;

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(LAST).min(LAST)
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl Status {
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Queued | Status::Running)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Asks what its client asked.
    Request,
    /// Asks each line of a batch's file; the batch has this id.
    Batch(String),
    /// Asks what its client asked, who looks for the answer under the answer's own id. What the renderer must know of the
    /// request has this length, and is kept as long as the job.
    Later(usize),
}

/// A job. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub id: String,
    /// Whose it is; see `Gateway::owner`.
    pub owner: String,
    pub work: Work,
    pub status: Status,
    pub created: u64,
    /// When a process is to look at it: a queued job may be begun, a running one has lost its lease.
    pub due: u64,
    pub started: Option<u64>,
    pub finished: Option<u64>,
    /// When it is forgotten, unless it ends before.
    pub expires: u64,
    /// How often it was begun.
    pub attempts: u32,
    /// Who runs it: a token that no other run has.
    pub lease: Option<String>,
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<Field>,
    /// The length of the request's body.
    pub body_bytes: usize,
    pub dialect: String,
    pub model: String,
    /// The id of the request that submitted it.
    pub request_id: String,
    pub answer: Option<Kept>,
    /// What its one answer cost. Written with the answer, so that it counts once.
    pub usage: Option<Usage>,
    pub provider: Option<String>,
    /// What that is to be settled with, before the job leaves the queue.
    #[serde(default)]
    pub owed: Option<Debt>,
    pub callback: Option<Callback>,
    /// The message of a queue that it answers: its failures are tried again by that queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
}

/// The message of a queue that a job answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Its queue's name in the configuration.
    pub queue: String,
    /// Its id there.
    pub id: String,
    /// At which of its receives the job was made, from 1.
    pub receive: u32,
    /// A failure that may pass is its last.
    pub last: bool,
    /// Why it cannot be asked.
    pub refused: Option<Refused>,
}

/// What a client would have been told at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub status: u16,
    pub error: witgate_model::Error,
}

/// An answer that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub status: u16,
    pub headers: Vec<Field>,
    pub bytes: usize,
    /// The run that made it: its pieces have this name.
    pub run: String,
}

/// What is to be called when a job has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Callback {
    pub url: String,
    pub state: Called,
    /// How often it was sent.
    pub tries: u32,
    /// When it is to be sent.
    pub due: u64,
    /// Who sends it.
    pub lease: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Called {
    Waiting,
    Accepted,
    Failed,
}

impl Job {
    pub fn expires(&self) -> Duration {
        Duration::from_millis(self.expires)
    }
}

/// The key of an index by time.
pub(crate) fn at(prefix: &str, due: u64, id: &str) -> String {
    format!("{prefix}/{:016}-{id}", due.min(LAST))
}

/// The time and the id of such a key.
pub(crate) fn of<'k>(prefix: &str, key: &'k str) -> Option<(u64, &'k str)> {
    let (due, id) = key.strip_prefix(prefix)?.strip_prefix('/')?.split_once('-')?;
    Some((due.parse().ok()?, id))
}

/// The key of an index of an owner's things, the newest first.
pub(crate) fn newest(prefix: &str, owner: &str, created: u64, id: &str) -> String {
    at(&format!("{prefix}/{owner}"), LAST.saturating_sub(created), id)
}

/// The state store, for jobs.
pub(crate) struct Store<'p, P: Ports>(pub &'p P);

impl<P: Ports> Clone for Store<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Ports> Copy for Store<'_, P> {}

impl<P: Ports> Store<'_, P> {
    pub fn now(&self) -> Duration {
        self.0.unix_time()
    }

    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        self.0.state().get(self.now(), key).await
    }

    pub async fn set(
        &self,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        self.0.state().set(self.now(), key, value, expires, expect).await
    }

    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.0.state().list(self.now(), prefix, after, limit).await
    }

    pub async fn remove(&self, key: &str) -> Result<(), StateError> {
        self.set(key, None, None, Expect::Anything).await.map(drop)
    }

    /// An entry of an index.
    pub async fn enter(&self, key: &str, expires: Duration) -> Result<(), StateError> {
        self.set(key, Some(Bytes::from_static(ENTRY)), Some(expires), Expect::Anything).await.map(drop)
    }

    /// A record, and what it was read from.
    pub async fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<(T, Bytes)>, StateError> {
        let Some(bytes) = self.get(key).await? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some((record, bytes))),
            Err(error) => Err(StateError(format!("{} holds what this gateway does not write: {error}", kind(key)))),
        }
    }

    /// Writes a record in the place of `old`. Gives what was written, or `None` where the record is another one by now.
    pub async fn swap<T: Serialize>(
        &self,
        key: &str,
        old: Option<&Bytes>,
        new: &T,
        expires: Duration,
    ) -> Result<Option<Bytes>, StateError> {
        let bytes = Bytes::from(serde_json::to_vec(new).map_err(|error| StateError(error.to_string()))?);
        let expect = old.map_or(Expect::Absent, |old| Expect::Is(old));
        if self.set(key, Some(bytes.clone()), Some(expires), expect).await? {
            return Ok(Some(bytes));
        }
        // It may have been written by a call that seemed to fail.
        Ok(self.get(key).await?.filter(|known| *known == bytes))
    }

    /// Writes a record where there is none: what was written, or the one that is there. One that somebody is about to write
    /// is waited for.
    pub async fn first<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        key: &str,
        new: &T,
        expires: Duration,
    ) -> Result<Result<Bytes, (T, Bytes)>, StateError> {
        for _ in 0..MOST_TRIES {
            if let Some(bytes) = self.swap(key, None, new, expires).await? {
                return Ok(Ok(bytes));
            }
            if let Some(known) = self.read(key).await? {
                return Ok(Err(known));
            }
            self.0.sleep_until(self.0.now() + MOMENT).await;
        }
        Err(StateError(format!("{} is being written by another one, who does not end", kind(key))))
    }

    /// Writes a record, whatever was there.
    pub async fn write<T: Serialize>(&self, key: &str, record: &T, expires: Duration) -> Result<(), StateError> {
        let bytes = Bytes::from(serde_json::to_vec(record).map_err(|error| StateError(error.to_string()))?);
        self.set(key, Some(bytes), Some(expires), Expect::Anything).await.map(drop)
    }

    pub async fn job(&self, id: &str) -> Result<Option<(Job, Bytes)>, StateError> {
        self.read(&job_key(id)).await
    }

    pub async fn swap_job(&self, old: Option<&Bytes>, new: &Job) -> Result<Option<Bytes>, StateError> {
        self.swap(&job_key(&new.id), old, new, new.expires()).await
    }

    /// Keeps bytes in pieces.
    pub async fn put(&self, prefix: &str, bytes: &Bytes, expires: Duration) -> Result<(), StateError> {
        for number in 0..bytes.len().div_ceil(PIECE) {
            let from = number * PIECE;
            let piece = bytes.slice(from..bytes.len().min(from + PIECE));
            self.set(&piece_key(prefix, number), Some(piece), Some(expires), Expect::Anything).await?;
        }
        Ok(())
    }

    /// One piece.
    pub async fn put_piece(
        &self,
        prefix: &str,
        number: usize,
        piece: Bytes,
        expires: Duration,
    ) -> Result<(), StateError> {
        self.set(&piece_key(prefix, number), Some(piece), Some(expires), Expect::Anything).await.map(drop)
    }

    /// A piece, if it is there.
    pub async fn piece(&self, prefix: &str, number: usize) -> Result<Option<Bytes>, StateError> {
        self.get(&piece_key(prefix, number)).await
    }

    /// What was kept in pieces; `None` where a piece is missing.
    pub async fn pieces(&self, prefix: &str, bytes: usize) -> Result<Option<Bytes>, StateError> {
        if bytes <= PIECE {
            return match bytes {
                0 => Ok(Some(Bytes::new())),
                _ => Ok(self.get(&piece_key(prefix, 0)).await?.filter(|piece| piece.len() == bytes)),
            };
        }
        let mut all = BytesMut::with_capacity(bytes);
        for number in 0..bytes.div_ceil(PIECE) {
            let Some(piece) = self.get(&piece_key(prefix, number)).await? else { return Ok(None) };
            all.extend_from_slice(&piece);
        }
        Ok((all.len() == bytes).then(|| all.freeze()))
    }

    pub async fn remove_pieces(&self, prefix: &str, bytes: usize) -> Result<(), StateError> {
        for number in 0..bytes.div_ceil(PIECE) {
            self.remove(&piece_key(prefix, number)).await?;
        }
        Ok(())
    }
}

fn piece_key(prefix: &str, number: usize) -> String {
    format!("{prefix}/{number:06}")
}

/// What a key is of, for people.
fn kind(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

pub(crate) fn job_key(id: &str) -> String {
    format!("job/{id}")
}

/// Where a job's request is, in pieces.
pub(crate) fn request_pieces(id: &str) -> String {
    format!("jobb/{id}/in")
}

/// Where what the renderer must know of a job's request is, in pieces.
pub(crate) fn render_pieces(id: &str) -> String {
    format!("jobb/{id}/render")
}

/// Where the events of a run are while it runs: whole ones, several in a piece.
pub(crate) fn event_pieces(id: &str, run: &str) -> String {
    format!("jobb/{id}/{run}-events")
}

/// Where the answer of a run is, in pieces.
pub(crate) fn answer_pieces(id: &str, run: &str) -> String {
    format!("jobb/{id}/{run}")
}
