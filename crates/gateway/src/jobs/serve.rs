//! What clients ask of jobs: submit, look, wait, take the answer, cancel, forget, list.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use witgate_model::Field;
use witgate_model::normaliser::Client;

use super::store::{self, Called, Job, Status, Store, Work, job_key, millis};
use super::work::{MAX_BACKOFF, UNBORN, warn};
use super::{Prefer, batches, hash, is_enqueue, later, seconds, unavailable};
use crate::bill::longest;
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, Request, RequestBody, Whole};
use crate::path::{self, Asked, Flight};
use crate::ports::Ports;
use crate::query;
use crate::record::Outcome;
use crate::state::{Expect, StateError};

/// How often a waiting client's job is looked at for what other processes did to it.
const LOOK: Duration = Duration::from_millis(500);
/// How long a client is asked to wait before it looks again.
const COME_BACK: &str = "1";
/// Most jobs on one page, and where nothing is said.
const PAGE: (usize, usize) = (100, 20);
/// Longest idempotency key.
const MAX_KEY: usize = 255;
/// How often an idempotency key is looked at that others change.
const MOST_LOOKS: usize = 8;

/// What is asked about jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Question<'a> {
    List,
    Get(&'a str),
    Result(&'a str),
    Cancel(&'a str),
    Delete(&'a str),
}

/// What a request wants to be asked later.
pub(super) struct Submission {
    pub work: Work,
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<Field>,
    pub body: Bytes,
    pub dialect: String,
    pub model: String,
    /// What the renderer must know of the request, for one whose answer is looked for under its own id.
    pub render: Option<Bytes>,
    pub callback: Option<store::Callback>,
    pub message: Option<store::Message>,
}

/// What an idempotency key stands for.
#[derive(Clone, Serialize, Deserialize)]
struct Once {
    id: String,
    created: u64,
    /// Of the request.
    hash: String,
}

impl Gateway {
    /// Takes a request whose client wants its answer later.
    pub(crate) async fn submit<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        mut flight: Flight<P>,
        dialect: &str,
        request: Request<B>,
    ) -> Whole {
        match self.submitted(&mut flight, dialect, request).await {
            Ok(Submitted::Reply(reply)) => self.reply(flight, reply).await,
            Ok(Submitted::Told(whole)) => whole,
            Err(failed) => flight.refuse(self, dialect, failed),
        }
    }

    async fn submitted<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        flight: &mut Flight<P>,
        dialect: &str,
        request: Request<B>,
    ) -> Result<Submitted, Failed> {
        let Request { method, path, query, headers, body } = request;
        let ports = Arc::clone(&flight.ports);
        let callback = self.callback(http::header(&headers, "x-witgate-callback"))?;
        check_key(&headers)?;
        let once = http::header(&headers, "idempotency-key").map(str::to_owned);
        // The place comes first: it bounds how many bodies are read.
        let place = self.jobs.place(ports.as_ref(), self.config.jobs.max_queued).await?;
        let body = self.body(body, &headers).await?;
        let model = match self.check_later(flight, dialect, (&method, &path, &query), &headers, &body).await? {
            Checked::Later(model) => model,
            Checked::Answered(reply) => return Ok(Submitted::Reply(reply)),
        };
        self.allow(flight, &model)?;
        let prefer = Prefer::of(&headers);
        let submission = Submission {
            work: Work::Request,
            method,
            path,
            query,
            headers: self.kept_headers(headers),
            body,
            dialect: dialect.to_owned(),
            model,
            render: None,
            callback,
            message: None,
        };
        let job = self.enqueue(flight, submission, once.as_deref(), place).await?;
        flight.record.job = Some(job.id.clone());
        let mut applied = "respond-async".to_owned();
        let mut job = Some(job);
        if let Some(wait) = prefer.wait {
            let wait = wait.min(self.config.jobs.max_wait);
            applied.push_str(&format!(", wait={}", wait.as_secs()));
            let (id, owner) = job.take().map(|job| (job.id, job.owner)).unwrap_or_default();
            job = Some(self.awaited(ports.as_ref(), &id, &owner, wait).await?);
        }
        let job = job.ok_or_else(|| missing(""))?;
        let mut whole = match job.status.is_final() {
            true => self.result(flight, &job).await?,
            false => told(flight, 202, vec![("retry-after".to_owned(), COME_BACK.to_owned())], &taken(&job)),
        };
        whole.headers.retain(|(name, _)| name != "location");
        whole.headers.push(("location".to_owned(), format!("/v1/jobs/{}", job.id)));
        if prefer.respond_async {
            whole.headers.push(("preference-applied".to_owned(), applied));
        }
        Ok(Submitted::Told(whole))
    }

    /// Whether a request can be asked later: what is wrong with it is said at once.
    pub(super) async fn check_later<P: Ports>(
        &self,
        flight: &mut Flight<P>,
        dialect: &str,
        (method, path, query): (&str, &str, &str),
        headers: &[Field],
        body: &Bytes,
    ) -> Result<Checked, Failed> {
        let client = Client {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query::parameters(query)?,
            headers: path::own_headers(headers),
            settings: self.dialect_settings(dialect).to_owned(),
            documents: Vec::new(),
        };
        let parsed = match path::parse(self, flight, dialect, client, body).await? {
            Asked::Backend(parsed, ..) => parsed,
            Asked::Answer(reply) => return Ok(Checked::Answered(reply)),
            Asked::Later(_) => return Err(later::twice()),
            Asked::Tail(_) => return Err(later::not_here()),
        };
        if parsed.request.stream {
            let message = "the answer of a job is whole: `stream` must be false where `Prefer: respond-async` is given";
            let mut failed = Failed::ours(400, "invalid_request_error", "stream_unsupported", message);
            failed.error.param = Some("stream".to_owned());
            return Err(failed);
        }
        self.known_model(dialect, parsed.request.model).map(Checked::Later)
    }

    /// The model that is asked for, which must be one that there is.
    pub(super) fn known_model(&self, dialect: &str, mut model: String) -> Result<String, Failed> {
        if model.is_empty()
            && let Some(default) = self.config.dialects.get(dialect).and_then(|dialect| dialect.model.as_ref())
        {
            model.clone_from(default);
        }
        match self.config.route(&model) {
            Ok(_) => Ok(model),
            Err(_) => Err(self.unknown_model(&model)),
        }
    }

    /// Those of a client's headers that go with its job.
    pub(super) fn kept_headers(&self, headers: Vec<Field>) -> Vec<Field> {
        headers.into_iter().filter(|(name, _)| self.is_kept(name)).collect()
    }

    /// How long a job is kept when it has ended.
    pub(super) fn kept_for(&self, work: &Work) -> Duration {
        match work {
            Work::Later(_) => self.config.documents.keep_for,
            Work::Request | Work::Batch(_) => self.config.jobs.kept_for,
        }
    }

    /// The longest that a job which was begun in time may take until it has ended.
    fn longest_run(&self) -> Duration {
        (longest(&self.config) + MAX_BACKOFF + self.config.jobs.lease).saturating_mul(self.config.jobs.attempts)
    }

    /// Whether a client's header goes with its job. Never one that holds a secret.
    fn is_kept(&self, name: &str) -> bool {
        matches!(name, "content-type" | "traceparent")
            || ((path::is_own_header(name) || self.sticky.iter().any(|sticky| sticky == name))
                && !matches!(name, "authorization" | "x-api-key" | "api-key" | "cookie" | "proxy-authorization"))
    }

    /// Puts a job into the queue, or finds the one that the idempotency key stands for.
    pub(super) async fn enqueue<P: Ports>(
        &self,
        flight: &Flight<P>,
        submission: Submission,
        once: Option<&str>,
        mut place: super::Place,
    ) -> Result<Job, Failed> {
        let store = Store(flight.ports.as_ref());
        let owner = self.owner(flight);
        let Submission { work, method, path, query, headers, body, dialect, model, render, callback, message } =
            submission;
        let now = store.now();
        let rules = &self.config.jobs;
        let id = match &work {
            Work::Batch(batch) => batches::job_of(batch),
            Work::Request | Work::Later(_) => format!("job_{}", http::id(flight.ports.random())),
        };
        let mut this = Once {
            id,
            created: millis(now),
            hash: hash(&[method.as_bytes(), path.as_bytes(), query.as_bytes(), &body]),
        };
        let expires = now + rules.run_within + self.longest_run() + self.kept_for(&work);
        let key = once.map(|once| once_key(&owner, once));
        let done = async {
            let (mut replayed, mut looks) = (false, 0);
            while let Some(key) = &key
                && let Err((known, bytes)) = store.first(key, &this, expires).await?
            {
                // That of a message names its body; whether it is refused may be another thing at each receive.
                if known.hash != this.hash && message.is_none() {
                    return Ok(None);
                }
                if let Some((job, _)) = store.job(&known.id).await? {
                    if job.status == Status::Queued {
                        // Whoever wrote it may have died before this was sure to be there.
                        store.enter(&store::at("jobq", job.due, &job.id), job.expires()).await?;
                    }
                    return Ok(Some((job, false)));
                }
                if known.created.saturating_add(millis(UNBORN)) >= millis(now) {
                    // Somebody is about to write it, or has died.
                    (this, replayed) = (known, true);
                    break;
                }
                // The job is gone.
                if store.swap(key, Some(&bytes), &this, expires).await?.is_some() {
                    break;
                }
                looks += 1;
                if looks >= MOST_LOOKS {
                    return Err(StateError("others were quicker with an idempotency key".to_owned()));
                }
            }
            if let Work::Batch(batch) = &work
                && replayed
            {
                batches::give(store, batch, &this.id).await?;
            }
            store.put(&store::request_pieces(&this.id), &body, expires).await?;
            if let Some(render) = &render {
                // It is to be there as long as the job, which is kept from its end on.
                store.put(&store::render_pieces(&this.id), render, expires + rules.run_within).await?;
            }
            let job = Job {
                owner: owner.clone(),
                work: work.clone(),
                status: Status::Queued,
                created: this.created,
                // Not when its key was first used: an entry that old would be taken for one that nobody writes a job for.
                due: millis(now),
                started: None,
                finished: None,
                expires: millis(expires),
                attempts: 0,
                lease: None,
                method: method.clone(),
                path: path.clone(),
                query: query.clone(),
                headers: headers.clone(),
                body_bytes: body.len(),
                dialect: dialect.clone(),
                model: model.clone(),
                request_id: flight.record.request_id.clone(),
                answer: None,
                usage: None,
                provider: None,
                owed: None,
                callback: callback.clone(),
                message: message.clone(),
                id: this.id.clone(),
            };
            store.enter(&store::newest("jobo", &owner, job.created, &job.id), expires).await?;
            let entry = store::at("jobq", job.due, &job.id);
            store.enter(&entry, expires).await?;
            let is_slow = |since: Duration| store.now().saturating_sub(since) >= UNBORN / 2;
            if is_slow(now)
                && let Some(key) = &key
                && store.read::<Once>(key).await?.is_none_or(|(known, _)| known.id != this.id)
            {
                return Err(StateError("another job took over the idempotency key".to_owned()));
            }
            if let Err((job, _)) = store.first(&job_key(&job.id), &job, expires).await? {
                // Two at once with one idempotency key.
                return Ok(Some((job, false)));
            }
            if replayed || is_slow(now) {
                // A worker may have taken the entry for one that nobody would write a job for.
                store.enter(&entry, expires).await?;
            }
            Ok(Some((job, true)))
        };
        let done: Result<_, StateError> = done.await;
        match done.map_err(|error| unavailable(&error))? {
            Some((job, new)) => {
                if new {
                    place.taken = true;
                    self.jobs.bell.ring();
                }
                Ok(job)
            }
            None => {
                let message = "the idempotency key was used for another request";
                Err(Failed::ours(409, "invalid_request_error", "idempotency_key_reused", message))
            }
        }
    }

    /// An idempotency key stands for this job no more.
    pub(super) async fn unlink<P: Ports>(
        &self,
        ports: &P,
        owner: &str,
        once: &str,
        id: &str,
    ) -> Result<(), StateError> {
        let (store, key) = (Store(ports), once_key(owner, once));
        match store.read::<Once>(&key).await? {
            Some((known, bytes)) if known.id == id => store.set(&key, None, None, Expect::Is(&bytes)).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Answers a question about jobs.
    pub(crate) async fn ask_jobs<P: Ports>(
        self: &Arc<Self>,
        mut flight: Flight<P>,
        question: Question<'_>,
        query: &str,
        headers: &[Field],
    ) -> Whole {
        match self.answer_jobs(&mut flight, question, query, headers).await {
            Ok(whole) => whole,
            Err(failed) => flight.refuse(self, "openai-chat", failed),
        }
    }

    async fn answer_jobs<P: Ports>(
        &self,
        flight: &mut Flight<P>,
        question: Question<'_>,
        query: &str,
        headers: &[Field],
    ) -> Result<Whole, Failed> {
        let ports = Arc::clone(&flight.ports);
        let owner = self.owner(flight);
        let query = &query::parameters(query)?;
        let wait = match parameter(query, "wait") {
            Some(text) => {
                let what = || invalid("wait", "must be a time, as `30s`".to_owned());
                Some(seconds(text).ok_or_else(what)?)
            }
            None => Prefer::of(headers).wait,
        };
        let wait = wait.unwrap_or_default().min(self.config.jobs.max_wait);
        match question {
            Question::List => {
                let page = self.page(ports.as_ref(), &owner, query).await?;
                Ok(told(flight, 200, Vec::new(), &page))
            }
            Question::Get(id) => {
                let job = self.awaited(ports.as_ref(), id, &owner, wait).await?;
                let later = if job.status.is_final() {
                    Vec::new()
                } else {
                    vec![("retry-after".to_owned(), COME_BACK.to_owned())]
                };
                Ok(told(flight, 200, later, &shown(&job)))
            }
            Question::Result(id) => {
                let job = self.awaited(ports.as_ref(), id, &owner, wait).await?;
                self.result(flight, &job).await
            }
            Question::Cancel(id) => {
                let job = self.cancel(ports.as_ref(), id, &owner).await?;
                Ok(told(flight, 200, Vec::new(), &shown(&job)))
            }
            Question::Delete(id) => {
                self.forget(ports.as_ref(), id, &owner).await?;
                Ok(told(flight, 200, Vec::new(), &json!({"id": id, "object": "job", "deleted": true})))
            }
        }
    }

    /// A job, when it has ended, or as it is after `wait`.
    pub(super) async fn awaited<P: Ports>(
        &self,
        ports: &P,
        id: &str,
        owner: &str,
        wait: Duration,
    ) -> Result<Job, Failed> {
        let end = ports.now() + wait;
        let watch = self.jobs.bells.watch(id);
        loop {
            let heard = watch.bell.rung();
            let (job, _) = own_job(ports, id, owner).await?;
            let now = ports.now();
            if job.status.is_final() || now >= end {
                return Ok(job);
            }
            let next = end.min(now + LOOK);
            select(pin!(ports.sleep_until(next)), pin!(watch.bell.after(heard))).await;
        }
    }

    /// A job's answer, as its client would have got it at once.
    async fn result<P: Ports>(&self, flight: &mut Flight<P>, job: &Job) -> Result<Whole, Failed> {
        let Some(kept) = &job.answer else {
            if job.status == Status::Cancelled {
                let message = format!("job \"{}\" was cancelled: it has no answer", job.id);
                return Err(Failed::ours(409, "invalid_request_error", "job_cancelled", message));
            }
            let mut headers = vec![("retry-after".to_owned(), COME_BACK.to_owned())];
            headers.push(("location".to_owned(), format!("/v1/jobs/{}", job.id)));
            return Ok(told(flight, 202, headers, &shown(job)));
        };
        let pieces = store::answer_pieces(&job.id, &kept.run);
        let body = Store(flight.ports.as_ref()).pieces(&pieces, kept.bytes).await;
        let Some(body) = body.map_err(|error| unavailable(&error))? else { return Err(missing(&job.id)) };
        flight.end(kept.status, if kept.status < 400 { Outcome::Complete } else { Outcome::Failed });
        Ok(flight.respond(kept.status, kept.headers.clone(), body))
    }

    /// Ends a job that has not ended.
    pub(super) async fn cancel<P: Ports>(&self, ports: &P, id: &str, owner: &str) -> Result<Job, Failed> {
        let store = Store(ports);
        loop {
            let (job, bytes) = own_job(ports, id, owner).await?;
            if job.status.is_final() {
                return Ok(job);
            }
            let now = store.now();
            let mut next = job.clone();
            next.status = Status::Cancelled;
            next.finished = Some(millis(now));
            next.lease = None;
            next.expires = millis(now + self.kept_for(&next.work));
            if let Some(callback) = &mut next.callback {
                callback.due = millis(now);
            }
            if store.swap_job(Some(&bytes), &next).await.map_err(|error| unavailable(&error))?.is_some() {
                self.jobs.bells.ring(id);
                // Were this to fail, a worker would find the entry.
                let left = async {
                    self.leave(ports, &next, &store::at("jobq", job.due, id)).await?;
                    self.remove_events(ports, &job).await
                };
                if let Err(error) = left.await {
                    warn(ports, &job.request_id, &error);
                }
                return Ok(next);
            }
        }
    }

    /// Forgets a job, and its answer. One that runs is ended.
    pub(super) async fn forget<P: Ports>(&self, ports: &P, id: &str, owner: &str) -> Result<(), Failed> {
        let store = Store(ports);
        let job = self.cancel(ports, id, owner).await?;
        let done = async {
            if let Some(debt) = &job.owed {
                self.pay(ports, debt, job.expires()).await?;
            }
            // What one has too that is submitted again under the same id comes first: when the job is gone, it is the other's.
            store.remove(&store::newest("jobo", owner, job.created, id)).await?;
            if let Work::Later(bytes) = job.work {
                store.remove_pieces(&store::render_pieces(id), bytes).await?;
            }
            store.remove(&job_key(id)).await?;
            if let Some(kept) = &job.answer {
                store.remove_pieces(&store::answer_pieces(id, &kept.run), kept.bytes).await?;
            }
            Ok(())
        };
        done.await.map_err(|error: StateError| unavailable(&error))?;
        self.jobs.bells.ring(id);
        Ok(())
    }

    /// A page of an owner's jobs, the newest first.
    async fn page<P: Ports>(&self, ports: &P, owner: &str, query: &[Field]) -> Result<Value, Failed> {
        let store = Store(ports);
        let limit = limit(query)?;
        let after = match parameter(query, "after") {
            Some(id) => {
                let (job, _) = own_job(ports, id, owner).await?;
                Some(store::newest("jobo", owner, job.created, id))
            }
            None => None,
        };
        let prefix = format!("jobo/{owner}");
        let found = async {
            let mut jobs: Vec<Value> = Vec::new();
            let mut after = after;
            // One more than is shown: whether there are more.
            while jobs.len() <= limit {
                let page = store.list(&format!("{prefix}/"), after.as_deref(), limit + 1 - jobs.len()).await?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (key, _) in &page {
                    // Entries outlive their jobs a little.
                    if let Some((_, id)) = store::of(&prefix, key)
                        && let Some((job, _)) = store.job(id).await?
                        && !matches!(job.work, Work::Batch(_))
                    {
                        jobs.push(shown(&job));
                    }
                }
            }
            Ok(jobs)
        };
        let jobs = found.await.map_err(|error: StateError| unavailable(&error))?;
        Ok(listed(jobs, limit))
    }
}

/// Where it lies what an idempotency key stands for.
fn once_key(owner: &str, once: &str) -> String {
    format!("jobi/{owner}/{}", hash(&[once.as_bytes()]))
}

/// What a submission came to.
enum Submitted {
    Told(Whole),
    /// The dialect answers it by itself: there is nothing to wait for.
    Reply(witgate_model::normaliser::Reply),
}

/// What [`Gateway::check_later`] found.
pub(super) enum Checked {
    /// It can be asked, of this model.
    Later(String),
    /// The dialect answers it by itself.
    Answered(witgate_model::normaliser::Reply),
}

/// A list in OpenAI's shape, of which `limit` are shown.
pub(super) fn listed(mut all: Vec<Value>, limit: usize) -> Value {
    let more = all.len() > limit;
    all.truncate(limit);
    let id = |value: Option<&Value>| value.map_or(Value::Null, |value| value["id"].clone());
    let (first, last) = (id(all.first()), id(all.last()));
    json!({"object": "list", "data": all, "first_id": first, "last_id": last, "has_more": more})
}

/// The parameter `limit` of a query.
pub(super) fn limit(query: &[Field]) -> Result<usize, Failed> {
    let (most, usual) = PAGE;
    match parameter(query, "limit") {
        None => Ok(usual),
        Some(text) => match text.parse() {
            Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(invalid("limit", format!("must be a whole number from 1 to {most}"))),
        },
    }
}

/// A parameter of a query.
pub(super) fn parameter<'q>(query: &'q [Field], name: &str) -> Option<&'q str> {
    http::header(query, name)
}

pub(super) fn invalid(param: &str, message: String) -> Failed {
    let mut failed = Failed::ours(400, "invalid_request_error", "invalid_value", format!("`{param}` {message}"));
    failed.error.param = Some(param.to_owned());
    failed
}

fn missing(id: &str) -> Failed {
    let id: String = id.chars().take(64).collect();
    let message = format!("no job \"{id}\": it never was, has expired, or is another client's");
    Failed::ours(404, "not_found_error", "job_not_found", message)
}

/// The job of that id, for its owner.
pub(super) async fn own_job<P: Ports>(ports: &P, id: &str, owner: &str) -> Result<(Job, Bytes), Failed> {
    let plain = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain {
        return Err(missing(id));
    }
    let found = Store(ports).job(id).await.map_err(|error| unavailable(&error))?;
    found.filter(|(job, _)| job.owner == owner).ok_or_else(|| missing(id))
}

/// Answers with JSON; the end of the request.
pub(super) fn told<P: Ports>(flight: &mut Flight<P>, status: u16, mut headers: Vec<Field>, json: &Value) -> Whole {
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    flight.end(status, Outcome::Complete);
    flight.respond(status, headers, Bytes::from(json.to_string()))
}

/// A job that was taken, in the words of its service.
fn taken(job: &Job) -> Value {
    let mut out = shown(job);
    if let Some(members) = out.as_object_mut()
        && is_enqueue(&job.path)
    {
        let backend = job.model.split('/').next().unwrap_or_default();
        members.extend([
            ("backend".to_owned(), json!(backend)),
            ("queued".to_owned(), json!(true)),
            ("job_id".to_owned(), json!(job.id)),
        ]);
    }
    out
}

/// A job, as clients see it. Times in seconds since 1970.
pub(super) fn shown(job: &Job) -> Value {
    let seconds = |millis: Option<u64>| millis.map(|millis| millis / 1_000);
    let mut out = json!({
        "id": job.id,
        "object": "job",
        "status": job.status.as_str(),
        "created_at": job.created / 1_000,
        "started_at": seconds(job.started),
        "finished_at": seconds(job.finished),
        "expires_at": job.expires / 1_000,
        "attempts": job.attempts,
        "method": job.method,
        "path": job.path,
        "model": job.model,
        "request_id": job.request_id,
    });
    let Some(members) = out.as_object_mut() else { return out };
    if let Some(answer) = &job.answer {
        let content_type = http::header(&answer.headers, "content-type");
        members.insert(
            "result".to_owned(),
            json!({
                "status": answer.status, "content_type": content_type, "bytes": answer.bytes,
                "url": format!("/v1/jobs/{}/result", job.id),
            }),
        );
    }
    if let Some(usage) = &job.usage {
        members.insert(
            "usage".to_owned(),
            json!({"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}),
        );
    }
    if let Some(callback) = &job.callback {
        let state = match callback.state {
            Called::Waiting => "waiting",
            Called::Accepted => "accepted",
            Called::Failed => "failed",
        };
        members
            .insert("callback".to_owned(), json!({"url": callback.url, "status": state, "attempts": callback.tries}));
    }
    out
}

/// An idempotency key that is not usable.
pub(super) fn check_key(headers: &[Field]) -> Result<(), Failed> {
    match http::header(headers, "idempotency-key") {
        Some(key) if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
            let message = format!("the header idempotency-key must be 1 to {MAX_KEY} characters of visible ASCII");
            Err(Failed::ours(400, "invalid_request_error", "invalid_idempotency_key", message))
        }
        _ => Ok(()),
    }
}
