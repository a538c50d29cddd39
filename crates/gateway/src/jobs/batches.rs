//! OpenAI's `/v1/batches`: a file of requests, each of which is asked, and files of their answers.
//!
//! A batch is one job: one process runs it by a lease, `jobs.batch_concurrency` lines at once. The answer of each line is
//! kept by itself, only where there is none yet; so after a crash the next process goes on with the lines that are left,
//! and no line has two answers. When all are there, the files are written; doing that twice writes the same.
//!
//! | key | value |
//! |---|---|
//! | `batch/ID` | the batch |
//! | `batcho/OWNER/AGE-ID` | an owner's batches, the newest first |
//! | `batchd/ID/LINE` | that a line has an answer, and where |
//! | `batchr/ID/RUN/LINE/NUMBER` | pieces of the answer |

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use witgate_model::Field;

use super::files::{self, File, FileWriter};
use super::serve::{Submission, check_key, invalid, limit, listed, parameter, told};
use super::store::{self, Job, Status, Store, Work, millis};
use super::work::{Claimed, UNBORN, may_pass, pause, warn};
use super::{Behalf, Slot, Unkept, hash, seconds, unavailable};
use crate::bill::Debt;
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, Body, Request, RequestBody, Whole};
use crate::path::Flight;
use crate::ports::Ports;
use crate::query;
use crate::routes::{self, Endpoint};
use crate::state::StateError;

/// How often a batch's counts are written, and whether it was cancelled is looked up.
const TICK: Duration = Duration::from_secs(1);
/// Most mistakes of a file that are told.
const MOST_ERRORS: usize = 100;
/// Most members of `metadata`, and the longest of their names and values.
const METADATA: (usize, usize, usize) = (16, 64, 512);
/// Longest `custom_id`.
const MAX_CUSTOM_ID: usize = 512;
/// How many lines are looked up together.
const PAGE: usize = 1_000;

/// What is asked about batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BatchQuestion<'a> {
    Create,
    List,
    Get(&'a str),
    Cancel(&'a str),
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Validating,
    InProgress,
    Finalizing,
    Completed,
    Failed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Stage {
    fn is_final(self) -> bool {
        matches!(self, Stage::Completed | Stage::Failed | Stage::Expired | Stage::Cancelled)
    }
}

/// A batch. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Batch {
    id: String,
    owner: String,
    /// The job that runs it; not known of one that an older gateway made.
    job: String,
    endpoint: String,
    input_file_id: String,
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    stage: Stage,
    created: u64,
    /// By when it is to be done.
    window_end: u64,
    expires: u64,
    /// When each stage was reached.
    at: BTreeMap<Stage, u64>,
    total: usize,
    completed: usize,
    failed: usize,
    output: Option<String>,
    errors: Option<String>,
    /// What is wrong with the file.
    mistakes: Vec<Mistake>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mistake {
    code: String,
    line: Option<usize>,
    message: String,
    param: Option<String>,
}

impl Batch {
    fn reach(&mut self, stage: Stage, now: Duration) {
        self.stage = stage;
        self.at.entry(stage).or_insert(millis(now));
    }

    fn shown(&self) -> Value {
        let at = |stage| self.at.get(&stage).map(|at| at / 1_000);
        let mistakes: Vec<_> = self.mistakes.iter().map(|m| json!(m)).collect();
        json!({
            "id": self.id, "object": "batch", "endpoint": self.endpoint, "status": self.stage,
            "errors": (!mistakes.is_empty()).then(|| json!({"object": "list", "data": mistakes})),
            "input_file_id": self.input_file_id, "completion_window": self.completion_window,
            "output_file_id": self.output.as_ref().filter(|_| self.stage.is_final()),
            "error_file_id": self.errors.as_ref().filter(|_| self.stage.is_final()),
            "created_at": self.created / 1_000, "in_progress_at": at(Stage::InProgress),
            "expires_at": self.window_end / 1_000, "finalizing_at": at(Stage::Finalizing),
            "completed_at": at(Stage::Completed), "failed_at": at(Stage::Failed), "expired_at": at(Stage::Expired),
            "cancelling_at": at(Stage::Cancelling), "cancelled_at": at(Stage::Cancelled),
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
        })
    }
}

/// That a line has an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    /// The run that asked: its pieces have this name.
    run: String,
    bytes: usize,
    good: bool,
    /// Nobody was asked: the time was over.
    expired: bool,
    /// What it is to be settled with.
    #[serde(default)]
    owed: Option<Debt>,
}

/// A line of a batch's file.
#[derive(Deserialize)]
struct Asked<'a> {
    custom_id: String,
    method: String,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// What a client wants.
#[derive(Deserialize)]
struct Create {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    callback_url: Option<String>,
}

fn batch_key(id: &str) -> String {
    format!("batch/{id}")
}

/// The job that a batch is to have.
pub(super) fn job_of(id: &str) -> String {
    format!("job_{}", id.strip_prefix("batch_").unwrap_or(id))
}

/// The job that a batch is to have is this one.
pub(super) async fn give<P: Ports>(store: Store<'_, P>, id: &str, job: &str) -> Result<(), StateError> {
    alter(store, id, |batch| job.clone_into(&mut batch.job)).await.map(drop)
}

/// A batch, failed where there is no job for it: nobody runs it, nor will.
async fn unborn<P: Ports>(store: Store<'_, P>, batch: Batch) -> Result<Batch, StateError> {
    let now = store.now();
    if batch.stage.is_final() || batch.job.is_empty() || batch.created + millis(UNBORN) >= millis(now) {
        return Ok(batch);
    }
    let work = Work::Batch(batch.id.clone());
    if store.job(&batch.job).await?.is_some_and(|(job, _)| job.work == work) {
        return Ok(batch);
    }
    let failed = alter(store, &batch.id, |batch| {
        if !batch.stage.is_final() {
            let message = "no job runs the batch: it could not be written, or was deleted".to_owned();
            batch.mistakes.push(Mistake { code: "batch_interrupted".to_owned(), line: None, message, param: None });
            batch.reach(Stage::Failed, now);
        }
    });
    let failed = failed.await?;
    Ok(failed.unwrap_or(batch))
}

fn line_key(id: &str, line: usize) -> String {
    format!("batchd/{id}/{line:08}")
}

fn line_pieces(id: &str, run: &str, line: usize) -> String {
    format!("batchr/{id}/{run}/{line:08}")
}

fn missing(id: &str) -> Failed {
    let id: String = id.chars().take(64).collect();
    let message = format!("no batch \"{id}\": it never was, has expired, or is another client's");
    Failed::ours(404, "not_found_error", "batch_not_found", message)
}

/// The batch of that id, for its owner.
async fn own_batch<P: Ports>(store: Store<'_, P>, id: &str, owner: &str) -> Result<Batch, Failed> {
    let plain = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain {
        return Err(missing(id));
    }
    let found = store.read::<Batch>(&batch_key(id)).await.map_err(|error| unavailable(&error))?;
    found.map(|(batch, _)| batch).filter(|batch| batch.owner == owner).ok_or_else(|| missing(id))
}

/// Changes a batch, whoever else changes it; gives it as it then is, `None` where it is gone.
async fn alter<P: Ports>(
    store: Store<'_, P>,
    id: &str,
    change: impl Fn(&mut Batch),
) -> Result<Option<Batch>, StateError> {
    loop {
        let Some((mut batch, bytes)) = store.read::<Batch>(&batch_key(id)).await? else { return Ok(None) };
        change(&mut batch);
        let expires = Duration::from_millis(batch.expires);
        if store.swap(&batch_key(id), Some(&bytes), &batch, expires).await?.is_some() {
            return Ok(Some(batch));
        }
    }
}

impl Gateway {
    /// Answers a question about batches.
    pub(crate) async fn ask_batches<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        mut flight: Flight<P>,
        question: BatchQuestion<'_>,
        (headers, query, body): (&[Field], &str, B),
    ) -> Whole {
        let answer = async {
            let ports = Arc::clone(&flight.ports);
            let store = Store(ports.as_ref());
            let owner = self.owner(&flight);
            match question {
                BatchQuestion::Create => {
                    let batch = self.create(&flight, &owner, headers, body).await?;
                    Ok(told(&mut flight, 200, Vec::new(), &batch.shown()))
                }
                BatchQuestion::List => {
                    let page = batches(store, &owner, &query::parameters(query)?).await?;
                    Ok(told(&mut flight, 200, Vec::new(), &page))
                }
                BatchQuestion::Get(id) => {
                    let batch = own_batch(store, id, &owner).await?;
                    let batch = unborn(store, batch).await.map_err(|error| unavailable(&error))?;
                    Ok(told(&mut flight, 200, Vec::new(), &batch.shown()))
                }
                BatchQuestion::Cancel(id) => {
                    let batch = own_batch(store, id, &owner).await?;
                    let batch = unborn(store, batch).await.map_err(|error| unavailable(&error))?;
                    let now = store.now();
                    let batch = alter(store, id, |batch| {
                        if matches!(batch.stage, Stage::Validating | Stage::InProgress) {
                            batch.reach(Stage::Cancelling, now);
                        }
                    })
                    .await
                    .map_err(|error| unavailable(&error))?
                    .unwrap_or(batch);
                    if batch.stage != Stage::Cancelling && batch.stage != Stage::Cancelled {
                        let message = format!("the batch is {} already", json!(batch.stage));
                        return Err(Failed::ours(409, "invalid_request_error", "batch_not_cancellable", message));
                    }
                    Ok(told(&mut flight, 200, Vec::new(), &batch.shown()))
                }
            }
        };
        match answer.await {
            Ok(whole) => whole,
            Err(failed) => flight.refuse(self, "openai-chat", failed),
        }
    }

    async fn create<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        flight: &Flight<P>,
        owner: &str,
        headers: &[Field],
        body: B,
    ) -> Result<Batch, Failed> {
        check_key(headers)?;
        let place = self.jobs.place(flight.ports.as_ref(), self.config.jobs.max_queued).await?;
        let body = self.body(body, headers).await?;
        let asked: Create = serde_json::from_slice(&body).map_err(|error| {
            let message = format!(
                "the body is not {{\"input_file_id\", \"endpoint\", \"completion_window\", \"metadata\"}}: {error}"
            );
            Failed::ours(400, "invalid_request_error", "invalid_json", message)
        })?;
        let rules = &self.config.jobs;
        let callback = asked.callback_url.as_deref().or_else(|| http::header(headers, "x-witgate-callback"));
        let callback = self.callback(callback)?;
        let store = Store(flight.ports.as_ref());
        match routes::find(&self.routes, "POST", &asked.endpoint) {
            Ok(Endpoint::Dialect(_)) => {}
            _ => return Err(invalid("endpoint", "must be a path that takes a model's requests".to_owned())),
        }
        let window =
            seconds(&asked.completion_window).filter(|window| !window.is_zero() && *window <= rules.run_within);
        let Some(window) = window else {
            let most = rules.run_within.as_secs();
            return Err(invalid("completion_window", format!("must be a time, as `24h`, of at most {most} s")));
        };
        let (members, name, value) = METADATA;
        let fits = |metadata: &BTreeMap<String, String>| {
            metadata.len() <= members && metadata.iter().all(|(n, v)| n.len() <= name && v.len() <= value)
        };
        if !asked.metadata.as_ref().is_none_or(fits) {
            let message = format!("must have at most {members} members, of {name} and {value} bytes at most");
            return Err(invalid("metadata", message));
        }
        let file = files::own_file(store, &asked.input_file_id, owner).await?;
        if file.purpose != "batch" {
            return Err(invalid("input_file_id", "must name a file whose purpose is `batch`".to_owned()));
        }
        let now = store.now();
        let id = format!("batch_{}", http::id(flight.ports.random()));
        let batch = Batch {
            id: id.clone(),
            owner: owner.to_owned(),
            job: job_of(&id),
            endpoint: asked.endpoint,
            input_file_id: asked.input_file_id,
            completion_window: asked.completion_window,
            metadata: asked.metadata,
            stage: Stage::Validating,
            created: millis(now),
            window_end: millis(now + window),
            expires: millis(now + window + rules.files_kept_for),
            at: BTreeMap::new(),
            total: 0,
            completed: 0,
            failed: 0,
            output: None,
            errors: None,
            mistakes: Vec::new(),
        };
        let expires = Duration::from_millis(batch.expires);
        let written = async {
            store.enter(&store::newest("batcho", owner, batch.created, &id), expires).await?;
            store.write(&batch_key(&id), &batch, expires).await
        };
        written.await.map_err(|error| unavailable(&error))?;
        let submission = Submission {
            work: Work::Batch(id.clone()),
            method: "POST".to_owned(),
            path: "/v1/batches".to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body,
            dialect: "openai-chat".to_owned(),
            model: String::new(),
            callback,
            render: None,
            message: None,
        };
        let job = self.enqueue(flight, submission, http::header(headers, "idempotency-key"), place).await;
        let other = match &job {
            Ok(job) => job.work != Work::Batch(id.clone()),
            // Of another failure nobody knows whether there is a job: the batch stays, and has failed in time if there is none.
            Err(failed) => failed.status == 409,
        };
        if other {
            let removed = async {
                store.remove(&batch_key(&id)).await?;
                store.remove(&store::newest("batcho", owner, batch.created, &id)).await
            };
            removed.await.map_err(|error| unavailable(&error))?;
        }
        match job?.work {
            Work::Batch(known) if known != id => own_batch(store, &known, owner).await,
            _ => Ok(batch),
        }
    }

    /// Runs a batch to its end, or until it no longer belongs to this run.
    pub(super) async fn run_batch<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, mut claimed: Claimed, id: &str) {
        let store = Store(ports.as_ref());
        let job = claimed.job.clone();
        // Nothing of a line's answer is seen before it is kept.
        match self.hold(ports, &mut claimed, &Slot::default(), self.perform_batch(ports, &job, id)).await {
            None => {}
            Some(Ok(())) => {
                let now = store.now();
                let expires = now + self.config.jobs.kept_for;
                let ended = self.change_job(ports.as_ref(), &claimed, |job| {
                    job.status = Status::Done;
                    job.finished = Some(millis(now));
                    job.lease = None;
                    job.expires = millis(expires);
                    if let Some(callback) = &mut job.callback {
                        callback.due = millis(now);
                    }
                });
                if let Ok(job) = ended.await {
                    self.jobs.bells.ring(&job.id);
                    if let Err(error) = self.leave(ports.as_ref(), &job, &claimed.entry).await {
                        warn(ports.as_ref(), &job.request_id, &error);
                    }
                }
            }
            // The lease ends by itself, and somebody goes on.
            Some(Err(error)) => warn(ports.as_ref(), &job.request_id, &error),
        }
    }

    /// A batch that was begun too often has failed.
    pub(super) async fn give_up_batch<P: Ports>(
        &self,
        ports: &P,
        job: &Job,
        id: &str,
        why: &str,
    ) -> Result<(), StateError> {
        let store = Store(ports);
        let now = store.now();
        let known = known_lines(store, id).await?;
        self.pay_lines(ports, job, owed(&known, &BTreeSet::new())).await?;
        let mistake =
            Mistake { code: "batch_interrupted".to_owned(), line: None, message: why.to_owned(), param: None };
        alter(store, id, |batch| {
            if !batch.stage.is_final() {
                batch.mistakes.push(mistake.clone());
                batch.reach(Stage::Failed, now);
            }
        })
        .await
        .map(drop)
    }

    async fn perform_batch<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, job: &Job, id: &str) -> Result<(), StateError> {
        let store = Store(ports.as_ref());
        let Some((mut batch, _)) = store.read::<Batch>(&batch_key(id)).await? else { return Ok(()) };
        if batch.stage.is_final() {
            return Ok(());
        }
        let file = files::own_file(store, &batch.input_file_id, &batch.owner).await;
        let content = match file {
            Ok(file) => files::read(store, &file).await?,
            Err(failed) if failed.status == 404 => None,
            Err(failed) => return Err(StateError(failed.error.message)),
        };
        let lines = match &content {
            Some(content) => self.check_lines(&batch, content),
            None => {
                let message = "the input file is no longer there".to_owned();
                let code = "file_not_found".to_owned();
                Err(vec![Mistake { code, line: None, message, param: Some("input_file_id".to_owned()) }])
            }
        };
        let now = store.now();
        let lines = match lines {
            Ok(lines) => lines,
            Err(mistakes) => {
                let failed = |batch: &mut Batch| {
                    batch.mistakes.clone_from(&mistakes);
                    batch.reach(Stage::Failed, now);
                };
                return alter(store, id, failed).await.map(drop);
            }
        };
        let begun = alter(store, id, |batch| {
            batch.total = lines.len();
            if batch.stage == Stage::Validating {
                batch.reach(Stage::InProgress, now);
            }
        });
        match begun.await? {
            Some(begun) => batch = begun,
            None => return Ok(()),
        }
        let content = content.unwrap_or_default();
        let known = known_lines(store, id).await?;
        self.pay_lines(ports.as_ref(), job, owed(&known, &BTreeSet::new())).await?;
        let mut paid: BTreeSet<_> = known.keys().copied().collect();
        let mut counts = (known.values().filter(|line| line.good).count(), known.values().filter(|l| !l.good).count());
        if matches!(batch.stage, Stage::InProgress) {
            let todo = lines.iter().enumerate().filter(|(number, _)| !known.contains_key(number));
            let todo: Vec<_> = todo.map(|(number, range)| (number, content.slice(range.clone()))).collect();
            let at_once = self.config.jobs.batch_concurrency;
            let window_end = batch.window_end;
            let asking = todo.into_iter().map(|(number, line)| self.ask_line(ports, job, id, window_end, number, line));
            let mut asked = pin!(stream::iter(asking).buffer_unordered(at_once));
            loop {
                let tick = ports.now() + TICK;
                let mut over = false;
                loop {
                    match select(asked.next(), pin!(ports.sleep_until(tick))).await {
                        Either::Left((Some(done), _)) => {
                            let (number, good) = done?;
                            match good {
                                Some(true) => counts.0 += 1,
                                Some(false) => counts.1 += 1,
                                None => continue,
                            }
                            paid.insert(number);
                        }
                        Either::Left((None, _)) => {
                            over = true;
                            break;
                        }
                        Either::Right(_) => break,
                    }
                    if ports.now() >= tick {
                        break;
                    }
                }
                let (completed, failed) = counts;
                let counted = alter(store, id, |batch| {
                    (batch.completed, batch.failed) = (completed, failed);
                });
                match counted.await? {
                    None => return Ok(()),
                    Some(now) if now.stage != Stage::InProgress => break,
                    Some(_) if over => break,
                    Some(_) => {}
                }
            }
        }
        self.finalize(store, job, &batch, &lines, &content, &paid).await
    }

    /// The lines of a batch's file, by their places in it.
    fn check_lines(&self, batch: &Batch, content: &Bytes) -> Result<Vec<std::ops::Range<usize>>, Vec<Mistake>> {
        let (mut lines, mut mistakes, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut at = 0;
        for (number, line) in content.split(|b| *b == b'\n').enumerate() {
            let range = at..at + line.len();
            at = range.end + 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let mistake = match serde_json::from_slice::<Asked<'_>>(line) {
                Err(error) => {
                    let what = "the line is not {\"custom_id\", \"method\", \"url\", \"body\"}";
                    Some(("invalid_json_line", None, format!("{what}: {error}")))
                }
                Ok(asked) if asked.custom_id.is_empty() || asked.custom_id.len() > MAX_CUSTOM_ID => {
                    let message = format!("`custom_id` must have 1 to {MAX_CUSTOM_ID} bytes");
                    Some(("invalid_custom_id", Some("custom_id"), message))
                }
                Ok(asked) if asked.method != "POST" => {
                    Some(("invalid_method", Some("method"), "`method` must be `POST`".to_owned()))
                }
                Ok(asked) if asked.url != batch.endpoint => {
                    let message = format!("`url` must be the batch's endpoint, `{}`", batch.endpoint);
                    Some(("mismatched_url", Some("url"), message))
                }
                Ok(asked) if !asked.body.get().starts_with('{') => {
                    Some(("invalid_body", Some("body"), "`body` must be an object".to_owned()))
                }
                Ok(asked) => (!ids.insert(asked.custom_id)).then(|| {
                    ("duplicate_custom_id", Some("custom_id"), "`custom_id` is that of another line".to_owned())
                }),
            };
            if let Some((code, param, message)) = mistake {
                let (code, param) = (code.to_owned(), param.map(str::to_owned));
                mistakes.push(Mistake { code, line: Some(number + 1), message, param });
                if mistakes.len() >= MOST_ERRORS {
                    break;
                }
            }
            lines.push(range);
        }
        let most = self.config.jobs.max_batch_requests;
        let whole = |code: &str, message: String| Mistake { code: code.to_owned(), line: None, message, param: None };
        if lines.is_empty() {
            mistakes.push(whole("empty_file", "the input file has no requests".to_owned()));
        } else if lines.len() > most {
            let message = format!("the input file has {} requests; at most {most} are taken", lines.len());
            mistakes.push(whole("too_many_tasks", format!("{message} (jobs.max_batch_requests)")));
        }
        if mistakes.is_empty() { Ok(lines) } else { Err(mistakes) }
    }

    /// Settles what lines owe, several at once: those of which nobody knows whether it was done.
    async fn pay_lines<P: Ports>(&self, ports: &P, job: &Job, owed: Vec<Debt>) -> Result<(), StateError> {
        let until = job.expires();
        let paying = owed.into_iter().map(|debt| self.pay_owned(ports, debt, until));
        let mut paying = stream::iter(paying).buffer_unordered(self.config.jobs.batch_concurrency);
        while let Some(paid) = paying.next().await {
            paid?;
        }
        Ok(())
    }

    async fn pay_owned<P: Ports>(&self, ports: &P, debt: Debt, until: Duration) -> Result<(), StateError> {
        self.pay(ports, &debt, until).await
    }

    /// Asks what a line asks, and keeps the answer. Its number, and whether it is a good one; `None` where there is one
    /// already.
    async fn ask_line<P: Ports>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        job: &Job,
        id: &str,
        window_end: u64,
        number: usize,
        line: Bytes,
    ) -> Result<(usize, Option<bool>), StateError> {
        let store = Store(ports.as_ref());
        let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&line) else { return Ok((number, None)) };
        let request_id = format!("{id}-{}", number + 1);
        let mut attempts = 0;
        let (answer, unkept) = loop {
            let unkept = Unkept::new(ports);
            if millis(store.now()) >= window_end {
                break (None, unkept);
            }
            attempts += 1;
            let (status, headers, body) = self.ask_for(&unkept, job, &request_id, &asked).await;
            if matches!(status, 429 | 503) && unkept.has_asked() == Some(false) {
                attempts -= 1;
            }
            if !may_pass(status) || attempts >= self.config.jobs.attempts {
                break (Some((status, body)), unkept);
            }
            if let Some(told) = unkept.take() {
                self.tell(ports, told);
            }
            let after = http::header(&headers, "retry-after").and_then(|value| value.parse().ok());
            let pause = pause(after.map(Duration::from_secs), attempts, ports.random());
            ports.sleep_until(ports.now() + pause).await;
        };
        let expired = answer.is_none();
        let good = answer.as_ref().is_some_and(|(status, _)| *status < 400);
        let line = match answer {
            Some((status, body)) => {
                let response = json!({
                    "status_code": status, "request_id": request_id,
                    "body": serde_json::from_slice::<Value>(&body)
                        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
                });
                result(id, number, &asked.custom_id, response, Value::Null)
            }
            None => {
                let message = "This request could not be executed before the completion window expired.";
                let error = json!({"code": "batch_expired", "message": message});
                result(id, number, &asked.custom_id, Value::Null, error)
            }
        };
        let bytes = Bytes::from(line);
        let run = job.lease.clone().unwrap_or_default();
        let expires = store.now() + self.config.jobs.files_kept_for;
        store.put(&line_pieces(id, &run, number), &bytes, expires).await?;
        let kept = Line { run, bytes: bytes.len(), good, expired, owed: unkept.debt() };
        if store.first(&line_key(id, number), &kept, expires).await?.is_err() {
            return Ok((number, None));
        }
        if let Some(told) = unkept.take() {
            self.tell_of(ports.as_ref(), &told.record);
        }
        // Counted once: only for the answer that is kept.
        if let Some(debt) = &kept.owed {
            self.pay(ports.as_ref(), debt, job.expires()).await?;
        }
        Ok((number, Some(good)))
    }

    /// One question of a line: status, headers, body. What is to be told of it goes to `unkept`.
    async fn ask_for<P: Ports>(
        self: &Arc<Self>,
        unkept: &Unkept<'_, P>,
        job: &Job,
        request_id: &str,
        asked: &Asked<'_>,
    ) -> (u16, Vec<Field>, Bytes) {
        let ports = unkept.ports;
        let refused = |status: u16, code: &str, message: &str| {
            let json =
                json!({"error": {"message": message, "type": "invalid_request_error", "code": code, "param": null}});
            (status, Vec::new(), Bytes::from(json.to_string()))
        };
        let client = match self.client_of(ports.as_ref(), &job.owner).await {
            Ok(client) => client,
            Err(error) => return refused(503, "state_unavailable", &error.to_string()),
        };
        let Some(client) = client else {
            return refused(401, "invalid_api_key", "the API key of this batch is not one of this gateway's any more");
        };
        let request = Request {
            method: "POST".to_owned(),
            path: asked.url.clone(),
            query: String::new(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("x-request-id".to_owned(), request_id.to_owned()),
            ],
            body: Bytes::copy_from_slice(asked.body.get().as_bytes()),
        };
        let behalf = Behalf { client, job: Some(job.id.clone()), told: unkept.told.clone(), start: None };
        if let Some(answer) = self.refuse_line(ports, &behalf, &request).await {
            return (answer.status, answer.headers, answer.body);
        }
        let response = self.answer(ports, request, Some(behalf)).await;
        match response.body {
            Body::Whole(body) if body.len() <= self.config.jobs.max_answer_bytes => {
                (response.status, response.headers, body)
            }
            Body::Whole(_) => refused(400, "answer_too_large", "the answer is larger than jobs.max_answer_bytes"),
            // Dropping it closes the backend's connection.
            Body::Stream(_) => {
                refused(400, "stream_unsupported", "the answers of a batch are whole: `stream` must be false")
            }
        }
    }

    /// The answer to a line that cannot be asked as one of a batch: nothing is taken for it, and no backend asked.
    async fn refuse_line<P: Ports>(&self, ports: &Arc<P>, behalf: &Behalf, request: &Request<Bytes>) -> Option<Whole> {
        let Request { method, path, query, headers, body } = request;
        let Ok(Endpoint::Dialect(dialect)) = routes::find(&self.routes, method, path) else { return None };
        let mut flight = Flight::new(Arc::clone(ports), request);
        flight.record.dialect = Some(dialect.to_owned());
        flight.stand_in(behalf.clone());
        match self.check_later(&mut flight, dialect, (method, path, query), headers, body).await {
            Err(failed) if !may_pass(failed.status) => Some(flight.refuse(self, dialect, failed)),
            // It is asked as any other request is.
            _ => {
                flight.forget();
                None
            }
        }
    }

    /// Writes the files of a batch whose lines have their answers, or that was cancelled.
    async fn finalize<P: Ports>(
        &self,
        store: Store<'_, P>,
        job: &Job,
        batch: &Batch,
        lines: &[std::ops::Range<usize>],
        content: &Bytes,
        paid: &BTreeSet<usize>,
    ) -> Result<(), StateError> {
        let id = &batch.id;
        let known = known_lines(store, id).await?;
        self.pay_lines(store.0, job, owed(&known, paid)).await?;
        let now = store.now();
        let name = |what: &str| format!("file-{}", &hash(&[b"batch", id.as_bytes(), what.as_bytes()])[..22]);
        let (output, errors) = (name("output"), name("errors"));
        let finalizing = alter(store, id, |batch| {
            if batch.stage == Stage::InProgress {
                batch.reach(Stage::Finalizing, now);
            }
        });
        let Some(batch) = finalizing.await? else { return Ok(()) };
        let cancelled = batch.stage == Stage::Cancelling;
        // The same whoever writes them.
        let created = batch.at.get(&batch.stage).copied().unwrap_or(batch.created);
        let writer = |id: &str, name: String| {
            let (owner, purpose) = (batch.owner.clone(), "batch_output".to_owned());
            let expires = created + millis(self.config.jobs.files_kept_for);
            FileWriter::new(File { id: id.to_owned(), owner, filename: name, purpose, bytes: 0, created, expires })
        };
        let mut good = writer(&output, format!("{id}_output.jsonl"));
        let mut bad = writer(&errors, format!("{id}_error.jsonl"));
        let (mut completed, mut failed, mut expired) = (0, 0, false);
        for (number, range) in lines.iter().enumerate() {
            let custom_id = || {
                let line = content.get(range.clone()).unwrap_or_default();
                serde_json::from_slice::<Asked<'_>>(line).map(|asked| asked.custom_id).unwrap_or_default()
            };
            let told = match known.get(&number) {
                Some(line) => {
                    store.pieces(&line_pieces(id, &line.run, number), line.bytes).await?.map(|b| (line.good, b))
                }
                None => None,
            };
            let error = |code: &str, message: &str| {
                Bytes::from(result(id, number, &custom_id(), Value::Null, json!({"code": code, "message": message})))
            };
            let (is_good, bytes) = match told {
                Some((true, bytes)) if good.file.bytes + bytes.len() > self.config.jobs.max_file_bytes => {
                    (false, error("output_too_large", "The output file is full (jobs.max_file_bytes)."))
                }
                Some(told) => told,
                None if cancelled => (false, error("batch_cancelled", "The batch was cancelled before this request.")),
                None => (false, error("result_lost", "The answer is no longer in the state store.")),
            };
            expired |= known.get(&number).is_some_and(|line| line.expired);
            let writer = if is_good { &mut good } else { &mut bad };
            completed += usize::from(is_good);
            failed += usize::from(!is_good);
            writer.write(store, &bytes).await?;
            writer.write(store, b"\n").await?;
        }
        let (output, errors) = ((completed > 0).then_some(output), (failed > 0).then_some(errors));
        if output.is_some() {
            good.finish(store).await?;
        }
        if errors.is_some() {
            bad.finish(store).await?;
        }
        let now = store.now();
        let stage = match (cancelled, expired) {
            (true, _) => Stage::Cancelled,
            (false, true) => Stage::Expired,
            (false, false) => Stage::Completed,
        };
        alter(store, id, |batch| {
            (batch.completed, batch.failed) = (completed, failed);
            (batch.output, batch.errors) = (output.clone(), errors.clone());
            batch.reach(stage, now);
        })
        .await?;
        for (number, line) in known {
            store.remove_pieces(&line_pieces(id, &line.run, number), line.bytes).await?;
            store.remove(&line_key(id, number)).await?;
        }
        Ok(())
    }
}

/// A line of an output file, without its end.
fn result(id: &str, number: usize, custom_id: &str, response: Value, error: Value) -> String {
    let id = format!("batch_req_{}_{}", id.trim_start_matches("batch_"), number + 1);
    json!({"id": id, "custom_id": custom_id, "response": response, "error": error}).to_string()
}

/// What lines owe, but for those that have paid.
fn owed(lines: &BTreeMap<usize, Line>, paid: &BTreeSet<usize>) -> Vec<Debt> {
    let owing = lines.iter().filter(|(number, _)| !paid.contains(number));
    owing.filter_map(|(_, line)| line.owed.clone()).collect()
}

/// The lines that have an answer, by their numbers.
async fn known_lines<P: Ports>(store: Store<'_, P>, id: &str) -> Result<BTreeMap<usize, Line>, StateError> {
    let prefix = format!("batchd/{id}/");
    let (mut known, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let page = store.list(&prefix, after.as_deref(), PAGE).await?;
        let more = page.len() == PAGE;
        for (key, value) in page {
            let number = key.strip_prefix(&prefix).and_then(|number| number.parse().ok());
            if let (Some(number), Ok(line)) = (number, serde_json::from_slice(&value)) {
                known.insert(number, line);
            }
            after = Some(key);
        }
        if !more {
            return Ok(known);
        }
    }
}

/// A page of an owner's batches, the newest first.
async fn batches<P: Ports>(store: Store<'_, P>, owner: &str, query: &[Field]) -> Result<Value, Failed> {
    let limit = limit(query)?;
    let mut after = match parameter(query, "after") {
        Some(id) => Some(store::newest("batcho", owner, own_batch(store, id, owner).await?.created, id)),
        None => None,
    };
    let prefix = format!("batcho/{owner}");
    let mut found: Vec<Value> = Vec::new();
    let read = async {
        while found.len() <= limit {
            let page = store.list(&format!("{prefix}/"), after.as_deref(), limit + 1 - found.len()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in &page {
                if let Some((_, id)) = store::of(&prefix, key)
                    && let Some((batch, _)) = store.read::<Batch>(&batch_key(id)).await?
                {
                    found.push(unborn(store, batch).await?.shown());
                }
            }
        }
        Ok(())
    };
    read.await.map_err(|error: StateError| unavailable(&error))?;
    Ok(listed(found, limit))
}
