//! The worker: takes jobs from the queue, runs them, keeps their answers.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, pending, select};
use futures_util::stream::FuturesUnordered;

use super::later;
use super::store::{self, Called, Job, Kept, Status, Store, Work, millis};
use super::{Behalf, Jobs, Slot, Told};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, Body, Request, Whole};
use crate::path::Flight;
use crate::ports::Ports;
use crate::record::Warning;
use crate::state::StateError;

/// How often the queue is looked at for what other processes did.
pub(super) const POLL: Duration = Duration::from_secs(1);
/// How long [`Gateway::work_off`] waits for what is due later.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often at most all processes together look, in passing, for what others left.
const SELDOM: Duration = Duration::from_secs(10);
/// How long after a failure of the state store it is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// How many entries of the queue are looked at together.
const PAGE: usize = 64;
/// How long an entry of the queue may wait for its job to be written.
pub(super) const UNBORN: Duration = Duration::from_secs(60);
/// The wait before a job's second attempt; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest such wait, and the longest that a backend may ask for.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// A job that belongs to this run.
pub(super) struct Claimed {
    pub job: Job,
    /// The record as it is in the store.
    pub bytes: Bytes,
    /// Its entry in the queue.
    pub entry: String,
}

/// Why a job does not belong to a run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its owner has cancelled or deleted it: nobody runs it again.
    Ended,
    /// Another run has it, or may have it.
    Taken,
    /// Nobody knows what became of the last change: the store did not say before the lease was over.
    Unknown,
}

impl Lost {
    /// `ours` is the job as this run had it, `known` as it is at `now`. Within a lease nobody but its owner ends it.
    fn of(ours: &Job, known: Option<&Job>, now: u64) -> Self {
        let is_ended = known.is_none_or(|known| known.status == Status::Cancelled);
        if is_ended && now < ours.due { Lost::Ended } else { Lost::Taken }
    }
}

/// What a worker does at one time.
enum Duty {
    /// Looks for at most so many jobs.
    Look(usize),
    /// Sends callbacks.
    Call,
    Run(Box<Claimed>, Running),
}

/// One job that runs, among those of this process.
struct Running(Arc<Jobs>);

impl Running {
    fn new(jobs: &Arc<Jobs>) -> Self {
        jobs.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(jobs))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What it has done.
enum Did {
    /// The jobs that it has now, and when the next one is due.
    Looked(Vec<Claimed>, Due),
    /// Callbacks were sent; when the next one is due.
    Called(Due),
    Ran,
}

/// When there is something to do, in milliseconds since 1970: a moment that is past where there may be more by now, none
/// where nothing is known.
pub(super) type Due = Option<u64>;

/// An answer, and what is to be told of it when it is kept.
struct Performed {
    answer: Whole,
    told: Option<Told>,
    /// Another attempt would be no better.
    last: bool,
}

impl Gateway {
    /// Runs jobs, `jobs.concurrency` at once, and sends callbacks and notices, until it is dropped: what then runs is taken
    /// up by another worker when its lease has ended. Any number of processes may do this over one state store. While the
    /// gateway drains ([`Gateway::drain`]), no further job is begun. Completes only where the gateway has been retired
    /// ([`Gateway::retire`]) and its last job has ended; those count to the `jobs.concurrency` of its successor.
    pub async fn work<P: Ports>(self: &Arc<Self>, ports: &Arc<P>) {
        self.work_until(ports, false).await;
    }

    /// Runs the jobs and sends the callbacks and notices that are due, or will be in half a minute, and then completes: for a
    /// runtime that lives from one request to the next. Completes at once where the same process does so already. With
    /// `jobs.concurrency` 0 it runs no job, and does the rest.
    pub async fn work_off<P: Ports>(self: &Arc<Self>, ports: &Arc<P>) {
        /// Says at its end that nobody works.
        struct Working<'j>(&'j AtomicBool);
        impl Drop for Working<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        if self.jobs.working.swap(true, Ordering::AcqRel) {
            return;
        }
        let _working = Working(&self.jobs.working);
        self.work_until(ports, true).await;
    }

    /// Whether a request has left a job to be run, or looked at one that has not ended, since the last time: for a runtime
    /// that lives from one request to the next, as [`leaves_work`](crate::leaves_work).
    pub fn left_work(&self) -> bool {
        self.jobs.left.swap(false, Ordering::Relaxed)
    }

    /// Completes when a request has left a job since the call.
    pub fn next_job(&self) -> impl Future<Output = ()> {
        self.jobs.bell.after(self.jobs.bell.rung())
    }

    /// Whether [`Gateway::pass_by`] is to be called after a request, whatever it was; `now` is that of the ports.
    pub fn may_pass_by(&self, now: Duration) -> bool {
        let mut passed = self.jobs.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = passed.is_none_or(|passed| now.saturating_sub(passed) >= SELDOM);
        if is_due {
            *passed = Some(now);
        }
        is_due
    }

    /// As [`Gateway::work_off`], unless any process did this in the last 10 seconds: so what one left behind, a callback that
    /// was not accepted or a job whose process has gone, is done as long as there are requests.
    pub async fn pass_by<P: Ports>(self: &Arc<Self>, ports: &Arc<P>) {
        let store = Store(ports.as_ref());
        let passed = async {
            let passed = store.get(store::PASSED).await?.is_some();
            if !passed {
                store.enter(store::PASSED, store.now() + SELDOM).await?;
            }
            Ok(passed)
        };
        match passed.await {
            Ok(true) => {}
            Ok(false) => self.work_off(ports).await,
            Err(error) => warn(ports.as_ref(), "", &error),
        }
    }

    /// Runs jobs; where `once`, until none is due for a while.
    async fn work_until<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, once: bool) {
        let most = self.config.jobs.concurrency;
        let duty = |duty| self.duty(ports, duty);
        let mut tasks = FuturesUnordered::new();
        let (mut running, mut looking, mut heard, mut called) = (0_usize, false, 0, 0);
        // None: not before something happens.
        let (mut look_at, mut calling, mut call_at) = (Some(ports.now()), false, Some(ports.now()));
        let again = |due: Due, busy: bool| {
            let now = millis(ports.unix_time());
            let wait = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
            // Beside what goes on there is time for what others leave.
            match once && !busy {
                true => wait.filter(|wait| *wait <= PATIENCE).map(|wait| ports.now() + wait),
                false => Some(ports.now() + wait.unwrap_or(POLL).min(POLL)),
            }
        };
        loop {
            let (rung, rung_for_calls) = (self.jobs.bell.rung(), self.jobs.calls.rung());
            let retired = self.is_retired();
            let looked = most == 0 || (look_at.is_none() && heard == rung);
            let done = once && looked && call_at.is_none() && called == rung_for_calls;
            if (retired || done) && tasks.is_empty() {
                return;
            }
            // Those too that run on a gateway that this one has replaced.
            let room = most.saturating_sub(self.jobs.running.load(Ordering::Relaxed).max(running));
            let idle = !looking && room > 0 && !retired && !self.is_draining();
            if idle && look_at.is_some_and(|at| ports.now() >= at) {
                heard = rung;
                looking = true;
                tasks.push(duty(Duty::Look(room)));
                continue;
            }
            if !calling && !retired && call_at.is_some_and(|at| ports.now() >= at) {
                called = rung_for_calls;
                calling = true;
                tasks.push(duty(Duty::Call));
                continue;
            }
            let done = {
                let done = pin!(async {
                    match tasks.next().await {
                        Some(done) => done,
                        None => pending().await,
                    }
                });
                let sleep_until = async |at: Option<Duration>| match at {
                    Some(at) => ports.sleep_until(at).await,
                    None => pending().await,
                };
                let look_until = look_at;
                let look = pin!(async {
                    if idle {
                        select(pin!(sleep_until(look_until)), pin!(self.jobs.bell.after(heard))).await;
                    } else {
                        pending::<()>().await;
                    }
                });
                let call_until = call_at;
                let call = pin!(async {
                    if calling || retired {
                        pending::<()>().await;
                    } else {
                        select(pin!(sleep_until(call_until)), pin!(self.jobs.calls.after(called))).await;
                    }
                });
                match select(done, select(look, call)).await {
                    Either::Left((done, _)) => Some(done),
                    Either::Right((Either::Left(_), _)) => {
                        look_at = Some(ports.now());
                        None
                    }
                    Either::Right((Either::Right(_), _)) => {
                        call_at = Some(ports.now());
                        None
                    }
                }
            };
            match done {
                None => {}
                Some(Did::Called(due)) => {
                    calling = false;
                    call_at = again(due, !tasks.is_empty());
                }
                Some(Did::Ran) => {
                    running -= 1;
                    (look_at, call_at) = (Some(ports.now()), Some(ports.now()));
                }
                Some(Did::Looked(claimed, due)) => {
                    looking = false;
                    running += claimed.len();
                    look_at = if claimed.is_empty() { again(due, !tasks.is_empty()) } else { Some(ports.now()) };
                    for claimed in claimed {
                        tasks.push(duty(Duty::Run(Box::new(claimed), Running::new(&self.jobs))));
                    }
                }
            }
        }
    }

    async fn duty<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, duty: Duty) -> Did {
        let failed = |error| {
            warn(ports.as_ref(), "", &error);
            None
        };
        match duty {
            Duty::Look(want) => {
                let mut claimed = Vec::new();
                let due = self.look(ports, want, &mut claimed).await.unwrap_or_else(failed);
                Did::Looked(claimed, due)
            }
            Duty::Call => Did::Called(self.call(ports).await.unwrap_or_else(failed)),
            Duty::Run(claimed, _running) => {
                self.run_job(ports, *claimed).await;
                Did::Ran
            }
        }
    }

    /// Sends callbacks and notices that are due. When the next one is.
    async fn call<P: Ports>(self: &Arc<Self>, ports: &Arc<P>) -> Result<Due, StateError> {
        let callback = self.call_back(ports).await.unwrap_or_else(|error| {
            warn(ports.as_ref(), "", &error);
            None
        });
        let notice = match &self.config.access.webhook {
            Some(webhook) => super::send(ports.as_ref(), webhook, &self.jobs.noticed).await?,
            None => None,
        };
        Ok(callback.into_iter().chain(notice).min())
    }

    /// Takes up to `want` jobs that are due, the oldest first. When the next one is.
    async fn look<P: Ports>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        want: usize,
        claimed: &mut Vec<Claimed>,
    ) -> Result<Due, StateError> {
        let store = Store(ports.as_ref());
        let (mut after, mut failures) = (self.jobs.looked.take(), 0);
        loop {
            let page = store.list("jobq/", after.as_deref(), PAGE).await?;
            let more = page.len() == PAGE;
            for (entry, _) in page {
                let Some((due, id)) = store::of("jobq", &entry) else {
                    store.remove(&entry).await?;
                    continue;
                };
                if due > millis(store.now()) {
                    return Ok(Some(due));
                }
                match self.claim(ports, &entry, due, id).await {
                    Ok(job) => claimed.extend(job),
                    // Those behind it are not to wait for that, nor is a store asked for all of them that takes nothing.
                    Err(error) => {
                        warn(ports.as_ref(), "", &error);
                        failures += 1;
                        if failures == PAGE {
                            self.jobs.looked.set(entry);
                            return Ok(Some(millis(store.now() + POLL)));
                        }
                    }
                }
                if claimed.len() >= want {
                    return Ok(Some(due));
                }
                after = Some(entry);
            }
            if !more {
                return Ok(None);
            }
        }
    }

    /// Takes the job of an entry that is due, if it is to be begun; else puts the entry right.
    async fn claim<P: Ports>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        entry: &str,
        due: u64,
        id: &str,
    ) -> Result<Option<Claimed>, StateError> {
        let store = Store(ports.as_ref());
        let now = millis(store.now());
        let Some((job, bytes)) = store.job(id).await? else {
            // It may be about to be written.
            if due + millis(UNBORN) < now {
                store.remove(entry).await?;
            }
            return Ok(None);
        };
        if job.status.is_final() {
            self.leave(ports.as_ref(), &job, entry).await?;
            return Ok(None);
        }
        if job.due > now {
            let right = store::at("jobq", job.due, id);
            store.enter(&right, job.expires()).await?;
            store.remove(entry).await?;
            return Ok(None);
        }
        let rules = &self.config.jobs;
        let late = now.saturating_sub(job.created) > millis(rules.run_within);
        let over = job.attempts >= rules.attempts;
        let failed = if late && !matches!(job.work, Work::Batch(_)) {
            Some(Failed::ours(
                504,
                "timeout_error",
                "job_expired",
                format!("the job could not be run within {} s (jobs.run_within)", rules.run_within.as_secs()),
            ))
        } else if over {
            let message = format!("the job was begun {} times, and interrupted (jobs.attempts)", job.attempts);
            Some(Failed::ours(500, "api_error", "job_interrupted", message))
        } else {
            None
        };
        let token = http::id(ports.random());
        let mut next = job;
        next.status = Status::Running;
        next.started = next.started.or(Some(now));
        next.attempts += u32::from(failed.is_none());
        next.lease = Some(token);
        next.due = now + millis(rules.lease);
        let Some(bytes) = store.swap_job(Some(&bytes), &next).await? else { return Ok(None) };
        let moved = store::at("jobq", next.due, id);
        store.enter(&moved, next.expires()).await?;
        store.remove(entry).await?;
        let claimed = Claimed { job: next, bytes, entry: moved };
        match failed {
            None => Ok(Some(claimed)),
            Some(failed) => {
                if let Work::Batch(id) = &claimed.job.work {
                    self.give_up_batch(ports.as_ref(), &claimed.job, id, &failed.error.message).await?;
                }
                let performed = self.refusal(ports, &claimed.job, failed);
                self.keep_answer(ports, claimed, performed).await;
                Ok(None)
            }
        }
    }

    /// A job has ended: nobody is to look at it any more.
    pub(super) async fn leave<P: Ports>(&self, ports: &P, job: &Job, entry: &str) -> Result<(), StateError> {
        let store = Store(ports);
        if let Some(callback) = job.callback.as_ref().filter(|callback| callback.state == Called::Waiting) {
            store.enter(&store::at("jobc", callback.due, &job.id), job.expires()).await?;
            self.jobs.calls.ring();
        }
        if let Some(debt) = &job.owed {
            self.pay(ports, debt, job.expires()).await?;
        }
        store.remove(entry).await?;
        store.remove_pieces(&store::request_pieces(&job.id), job.body_bytes).await?;
        self.jobs.left();
        Ok(())
    }

    /// Runs a job to its end, or until it no longer belongs to this run.
    async fn run_job<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, mut claimed: Claimed) {
        let job = claimed.job.clone();
        if let Work::Batch(id) = &job.work {
            return self.run_batch(ports, claimed, id).await;
        }
        let slot = Slot::default();
        if let Some(performed) = self.hold(ports, &mut claimed, &slot, self.perform(ports, &job, &slot)).await {
            return self.keep_answer(ports, claimed, performed).await;
        }
        match slot.take() {
            Some(told) if slot.is_ended() => self.tell(ports, told),
            Some(told) => told.void(ports),
            None => {}
        }
    }

    /// Does `work` while the job belongs to this run. `None`: it no longer does, and the work was dropped; `slot` is told
    /// before that where its owner has ended the job.
    pub(super) async fn hold<P: Ports, F: Future>(
        &self,
        ports: &Arc<P>,
        claimed: &mut Claimed,
        slot: &Slot,
        work: F,
    ) -> Option<F::Output> {
        let lease = self.config.jobs.lease;
        let watch = self.jobs.bells.watch(&claimed.job.id);
        let mut work = pin!(work);
        let mut pause = lease / 3;
        loop {
            let heard = watch.bell.rung();
            let until = ports.now() + pause;
            let woken = pin!(async {
                select(pin!(ports.sleep_until(until)), pin!(watch.bell.after(heard))).await;
            });
            if let Either::Left((output, _)) = select(work.as_mut(), woken).await {
                return Some(output);
            }
            let renewed = {
                let renewing = pin!(self.renew(ports.as_ref(), &claimed.job, &claimed.bytes));
                match select(work.as_mut(), renewing).await {
                    Either::Left((output, _)) => return Some(output),
                    Either::Right((renewed, _)) => renewed,
                }
            };
            match renewed {
                Ok(Ok((job, bytes))) => {
                    (claimed.job, claimed.bytes) = (job, bytes);
                    pause = lease / 3;
                }
                Ok(Err(lost)) => {
                    if lost == Lost::Ended {
                        slot.end();
                    }
                    return None;
                }
                Err(error) => {
                    warn(ports.as_ref(), &claimed.job.request_id, &error);
                    if millis(ports.unix_time()) >= claimed.job.due {
                        return None;
                    }
                    pause = AGAIN;
                }
            }
        }
    }

    /// Lengthens the lease of a job, unless it belongs to this run no more.
    async fn renew<P: Ports>(
        &self,
        ports: &P,
        job: &Job,
        bytes: &Bytes,
    ) -> Result<Result<(Job, Bytes), Lost>, StateError> {
        let store = Store(ports);
        let (mut job, mut bytes) = (job.clone(), bytes.clone());
        loop {
            let mut next = job.clone();
            next.due = millis(store.now() + self.config.jobs.lease);
            if matches!(next.work, Work::Batch(_)) {
                // It gets on: what interrupts it from now on is no repetition.
                next.attempts = 1;
            }
            if let Some(bytes) = store.swap_job(Some(&bytes), &next).await? {
                return Ok(Ok((next, bytes)));
            }
            match store.job(&job.id).await? {
                Some((known, now)) if known.lease == job.lease && now != bytes => (job, bytes) = (known, now),
                known => return Ok(Err(Lost::of(&job, known.as_ref().map(|(known, _)| known), millis(store.now())))),
            }
        }
    }

    /// Changes a job that belongs to this run, unless it is this run's no more; tries again while its lease lasts.
    pub(super) async fn change_job<P: Ports>(
        &self,
        ports: &P,
        claimed: &Claimed,
        change: impl Fn(&mut Job),
    ) -> Result<Job, Lost> {
        let store = Store(ports);
        let (mut job, mut bytes) = (claimed.job.clone(), claimed.bytes.clone());
        loop {
            let mut next = job.clone();
            change(&mut next);
            let tried = async {
                match store.swap_job(Some(&bytes), &next).await? {
                    Some(_) => Ok(Some(None)),
                    None => store.job(&job.id).await.map(|known| known.map(Some)),
                }
            };
            match tried.await {
                Ok(Some(None)) => return Ok(next),
                // A renewal whose end nobody saw.
                Ok(Some(Some((known, now)))) if known.lease == job.lease && now != bytes => (job, bytes) = (known, now),
                Ok(known) => {
                    return Err(Lost::of(&job, known.flatten().as_ref().map(|(known, _)| known), millis(store.now())));
                }
                Err(error) => {
                    warn(ports, &job.request_id, &error);
                    if millis(ports.unix_time()) >= job.due {
                        return Err(Lost::Unknown);
                    }
                    ports.sleep_until(ports.now() + AGAIN).await;
                }
            }
        }
    }

    /// Asks what the job's client asked.
    async fn perform<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, job: &Job, told: &Slot) -> Performed {
        let store = Store(ports.as_ref());
        let client = loop {
            match self.client_of(ports.as_ref(), &job.owner).await {
                Ok(client) => break client,
                Err(error) => {
                    warn(ports.as_ref(), &job.request_id, &error);
                    ports.sleep_until(ports.now() + AGAIN).await;
                }
            }
        };
        let Some(client) = client else {
            let message = "the API key that submitted the job is not one of this gateway's any more";
            return self.refusal(ports, job, Failed::ours(401, "authentication_error", "invalid_api_key", message));
        };
        if let Some(refused) = job.message.as_ref().and_then(|message| message.refused.clone()) {
            let error_type = match refused.status {
                403 => "permission_error",
                404 => "not_found_error",
                _ => "invalid_request_error",
            };
            let failed = Failed { error: refused.error, status: refused.status, error_type, provider: None };
            return self.refusal(ports, job, failed);
        }
        let body = loop {
            match store.pieces(&store::request_pieces(&job.id), job.body_bytes).await {
                Ok(Some(body)) => break body,
                Ok(None) => {
                    let message = "the job's request is no longer in the state store";
                    return self.refusal(ports, job, Failed::ours(500, "api_error", "job_lost", message));
                }
                Err(error) => {
                    warn(ports.as_ref(), &job.request_id, &error);
                    ports.sleep_until(ports.now() + AGAIN).await;
                }
            }
        };
        let behalf = Behalf { client, job: Some(job.id.clone()), told: told.clone(), start: later::Start::of(job) };
        let mut headers = job.headers.clone();
        headers.push(("x-request-id".to_owned(), job.request_id.clone()));
        let (method, path, query) = (job.method.clone(), job.path.clone(), job.query.clone());
        let response = self.answer(ports, Request { method, path, query, headers, body }, Some(behalf)).await;
        let (status, headers) = (response.status, response.headers);
        let most = self.config.jobs.max_answer_bytes;
        let body = match response.body {
            Body::Whole(bytes) => bytes,
            Body::Stream(stream) => {
                let mut stream = pin!(stream);
                let mut all = BytesMut::new();
                let mut log = later::Log::new(job);
                while all.len() <= most
                    && let Some(bytes) = log.next(ports.as_ref(), stream.as_mut(), &self.jobs.bells).await
                {
                    all.extend_from_slice(&bytes);
                }
                log.remove(ports.as_ref()).await;
                if all.len() > most {
                    // It ends with its stream: what came of the answer counts.
                    told.end();
                }
                all.freeze()
            }
        };
        let told = told.take();
        if body.len() > most {
            let message = format!("the answer is larger than {most} bytes (jobs.max_answer_bytes)");
            let failed = Failed::ours(502, "api_error", "answer_too_large", message);
            return Performed { told, ..self.refusal(ports, job, failed) };
        }
        Performed { answer: Whole { status, headers, body }, told, last: false }
    }

    /// The answer to a job that the gateway itself refuses, in the client's dialect.
    fn refusal<P: Ports>(&self, ports: &Arc<P>, job: &Job, failed: Failed) -> Performed {
        let told = Slot::default();
        let request = Request {
            method: job.method.clone(),
            path: job.path.clone(),
            query: String::new(),
            headers: vec![("x-request-id".to_owned(), job.request_id.clone())],
            body: (),
        };
        let mut flight = Flight::new(Arc::clone(ports), &request);
        flight.record.dialect = Some(job.dialect.clone());
        flight.record.request_model = Some(job.model.clone());
        flight.record.job = Some(job.id.clone());
        flight.told = Some(told.clone());
        let answer = flight.refuse(self, &job.dialect, failed);
        Performed { answer, told: told.take(), last: true }
    }

    /// Keeps the answer of a run, or puts the job back where it is to be tried again.
    async fn keep_answer<P: Ports>(&self, ports: &Arc<P>, claimed: Claimed, performed: Performed) {
        let Performed { answer, told, last } = performed;
        let store = Store(ports.as_ref());
        let (now, rules) = (store.now(), &self.config.jobs);
        let job = &claimed.job;
        let refused_here =
            matches!(answer.status, 429 | 503) && told.as_ref().is_some_and(|told| told.record.attempts == 0);
        let late = millis(now).saturating_sub(job.created) > millis(rules.run_within);
        // A message is tried again by its queue.
        let more = refused_here || (job.message.is_none() && job.attempts < rules.attempts);
        let again = !last && may_pass(answer.status) && more && !late;
        let changed = if again {
            let asked = http::header(&answer.headers, "retry-after").and_then(|value| value.parse().ok());
            let pause = pause(asked.map(Duration::from_secs), job.attempts, ports.random());
            let due = millis(now + pause);
            let changed = self
                .change_job(ports.as_ref(), &claimed, |job| {
                    job.status = Status::Queued;
                    job.attempts -= u32::from(refused_here && job.attempts > 0);
                    job.lease = None;
                    job.due = due;
                })
                .await;
            if let Ok(job) = &changed {
                // Were this to fail, the old entry would be found when the lease had ended.
                let moved = async {
                    store.enter(&store::at("jobq", due, &job.id), job.expires()).await?;
                    store.remove(&claimed.entry).await
                };
                if let Err(error) = moved.await {
                    warn(ports.as_ref(), &job.request_id, &error);
                }
            }
            changed
        } else {
            let run = job.lease.clone().unwrap_or_default();
            let pieces = store::answer_pieces(&job.id, &run);
            let expires = now + self.kept_for(&job.work);
            // A little longer than the record that says that they are there.
            if !self.put(ports.as_ref(), job, &pieces, &answer.body, expires + POLL).await {
                if let Some(told) = told {
                    told.void(ports);
                }
                return;
            }
            let owed = told.as_ref().and_then(Told::debt);
            let kept = Kept { status: answer.status, headers: kept(&answer.headers), bytes: answer.body.len(), run };
            let changed = self
                .change_job(ports.as_ref(), &claimed, |job| {
                    job.status = if kept.status < 400 { Status::Done } else { Status::Failed };
                    job.finished = Some(millis(now));
                    job.lease = None;
                    job.expires = millis(expires);
                    job.answer = Some(kept.clone());
                    job.owed.clone_from(&owed);
                    if let Some(Told { record, .. }) = &told {
                        job.usage.clone_from(&record.usage);
                        job.provider.clone_from(&record.provider);
                    }
                    // A message that comes back has not ended.
                    if may_pass(kept.status) && job.message.as_ref().is_some_and(|message| !message.last) {
                        job.callback = None;
                    }
                    if let Some(callback) = &mut job.callback {
                        callback.due = millis(now);
                    }
                })
                .await;
            match &changed {
                // The record may say that they are there.
                Err(Lost::Unknown) => {}
                Err(_) => drop(store.remove_pieces(&pieces, answer.body.len()).await),
                Ok(job) => {
                    self.jobs.bells.ring(&job.id);
                    if let Some(told) = &told {
                        self.tell_of(ports.as_ref(), &told.record);
                    }
                    if let Err(error) = self.leave(ports.as_ref(), job, &claimed.entry).await {
                        warn(ports.as_ref(), &job.request_id, &error);
                    }
                }
            }
            if changed.is_ok() {
                return;
            }
            if let (Err(Lost::Ended), Some(told), Some(owed)) = (&changed, &told, &owed) {
                // It may have been kept, and paid by whoever deleted it, before that was seen here: it counts once.
                self.tell_of(ports.as_ref(), &told.record);
                if let Err(error) = self.pay(ports.as_ref(), owed, expires).await {
                    warn(ports.as_ref(), &job.request_id, &error);
                }
                return;
            }
            changed
        };
        // What a run found out whose job another one has, or may have, nobody is told, nor charged for here.
        match told {
            Some(told) if !matches!(changed, Err(Lost::Taken | Lost::Unknown)) => self.tell(ports, told),
            Some(told) => told.void(ports),
            None => {}
        }
    }

    /// Keeps bytes; tries again while the job's lease lasts.
    async fn put<P: Ports>(&self, ports: &P, job: &Job, pieces: &str, bytes: &Bytes, expires: Duration) -> bool {
        loop {
            match Store(ports).put(pieces, bytes, expires).await {
                Ok(()) => return true,
                Err(error) => {
                    warn(ports, &job.request_id, &error);
                    if millis(ports.unix_time()) >= job.due {
                        return false;
                    }
                    ports.sleep_until(ports.now() + AGAIN).await;
                }
            }
        }
    }
}

/// Whether a failure may be another answer next time.
pub(super) fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// How long to wait before the attempt after `attempts`: what was asked for, or twice as long each time, give or take.
pub(super) fn pause(asked: Option<Duration>, attempts: u32, random: u128) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    let share = u32::try_from(random % 512).unwrap_or(0);
    let chance = doubled / 1_024 * share;
    (doubled + chance).max(asked.unwrap_or_default()).min(MAX_BACKOFF)
}

/// Those headers of an answer that a later one brings along. The others are of the connection, or made anew.
fn kept(headers: &[witgate_model::Field]) -> Vec<witgate_model::Field> {
    headers.iter().filter(|(name, _)| name != "content-length" && name != "x-request-id").cloned().collect()
}

pub(super) fn warn<P: Ports>(ports: &P, request_id: &str, error: &StateError) {
    ports.warn(&Warning::Store { request_id, why: &error.0 });
}
