//! Requests that come from the queues of others: Amazon SQS, streams of Redis.
//!
//! Those do the distribution: many processes ask one queue, and each message is one process's until it is done, or until
//! its time is over ([`Broker`]). What becomes of a message is here, once for all of them:
//!
//! - **A message is a job.** Its body is the request; the message's id is the job's idempotency key, so that however often
//!   a queue brings it there is one job, one answer, and one charge, over all processes that share the state store. The job
//!   runs as any other one does (`work.rs`), in whichever process takes it.
//! - **It is held while its job runs:** its time is lengthened each third of it. It leaves the queue only when its answer is
//!   kept, and sent where one is to be sent. Whatever dies in between, the queue brings it again, and the job is found.
//! - **Only what failed comes back.** A failure that may pass (408, 429, 5xx) gives the message back, after the backend's
//!   `retry-after` or waits that double; the next receive makes a job anew. Any other failure is an answer (INV-19). At the
//!   last receive such a message goes to the dead letters; without any, SQS goes on as its redrive policy says, and for a
//!   stream the failure is the answer.
//! - **The gateway's own troubles are no failures of a message:** while the state store cannot be asked, the queue of jobs
//!   is full or the key is missing, it is held, and asked again.
//! - **An answer is sent once** where sending it and taking the message out of the queue is one step (a stream). Else a mark
//!   in the state store says that it was sent: twice it goes out only where the process dies between the two, and then it
//!   has the same job's id (a FIFO queue of SQS takes out even that one).
//! - **The end:** when the process drains, nothing more is received, jobs that run are awaited, and what is left is given
//!   back at once for others.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, FutureExt, pending, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use witgate_config::{Queue, QueueKind};
use witgate_model::Field;

use super::bell::Bell;
use super::serve::{Checked, Submission, shown};
use super::store::{self, Job, Status, Store, Work, millis};
use super::work::{may_pass, pause};
use super::{hash, unavailable};
use crate::encoding;
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, Request};
use crate::path::Flight;
use crate::ports::Ports;
use crate::record::Warning;
use crate::routes::{self, Endpoint};
use crate::state::StateError;

/// How often it is looked whether the process drains.
const LOOK: Duration = Duration::from_secs(1);
/// The wait after the first failure of the queue or of the state store, and the longest.
const AGAIN: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How long nobody else sends an answer that somebody is sending.
const SENDING: Duration = Duration::from_secs(60);

/// A queue of messages, each of which belongs to one receiver for a while (its visibility, which the queue was told).
/// Every call ends by itself: those but `receive` within some seconds.
pub trait Broker {
    /// Whether [`Broker::send`] takes the message out of its queue in the same step.
    const AT_ONCE: bool;

    /// Whether a receive ends within a second or so: then one that is under way at the end is awaited.
    const SHORT: bool;

    /// Up to `most` messages, each of which is now ours; none where none came in time.
    fn receive(&self, most: usize) -> impl Future<Output = Result<Vec<Message>, BrokerError>>;

    /// Lengthens our time with a message, counted from now. False where it is ours no more.
    fn extend(&self, message: &Message) -> impl Future<Output = Result<bool, BrokerError>>;

    /// Whether a body can be sent.
    fn takes(&self, body: &[u8]) -> bool;

    /// Sends what became of a message; with [`Broker::AT_ONCE`] only if the message is still in its queue.
    fn send(&self, message: &Message, parcel: &Parcel) -> impl Future<Output = Result<(), BrokerError>>;

    /// Takes a message out of its queue.
    fn done(&self, message: &Message) -> impl Future<Output = Result<(), BrokerError>>;

    /// Gives a message back, to be received again after `pause`, or as near to that as the queue can.
    fn give_back(&self, message: &Message, pause: Duration) -> impl Future<Output = Result<(), BrokerError>>;

    /// This receiver asks for nothing more: whatever it may still own is given back.
    fn close(&self) -> impl Future<Output = Result<(), BrokerError>>;
}

/// The queue failed; why, for people. Holds no content and no secret.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BrokerError(pub String);

/// A message.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Its id in its queue, the same whenever it is received.
    pub id: String,
    /// What the queue calls this receive.
    pub receipt: String,
    /// Its content; the error says why there is none.
    pub body: Result<Bytes, String>,
    /// How often it was received, this time included.
    pub receives: u32,
    /// The group whose order it is in.
    pub group: Option<String>,
}

/// Shows no content.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("receives", &self.receives).finish_non_exhaustive()
    }
}

/// What becomes of a message, to be sent to another queue.
#[derive(Clone)]
pub struct Parcel {
    /// That queue, as the configuration names it.
    pub to: String,
    /// The answer, or of a dead letter the message's own content.
    pub body: Bytes,
    /// What is said beside: `message_id`, `job_id`, `status`, and what else there is.
    pub attributes: Vec<(&'static str, String)>,
    /// The same whenever this is sent.
    pub once: String,
}

/// What is left to do with a message.
enum After {
    /// Nothing.
    Done,
    /// It goes back, for so long.
    Back(Duration),
}

/// Whether an answer was sent.
#[derive(Serialize, Deserialize)]
enum Sent {
    /// This one sends it until then, in milliseconds since 1970.
    By(String, u64),
    Yes,
}

/// What a consumer does at one time.
enum Step {
    Receive { most: usize, at: Duration },
    Attend(Message),
    GiveBack(Message),
}

/// What it has done.
enum Did {
    Received(Result<Vec<Message>, BrokerError>),
    Attended,
}

struct Consumer<'a, P, B> {
    gateway: &'a Arc<Gateway>,
    ports: &'a Arc<P>,
    queue: &'a Queue,
    broker: &'a B,
    dialect: String,
    /// Rung when what is in hand is to be given back.
    release: Bell,
}

impl Gateway {
    /// What of the configured queues cannot be: the key of the configuration, and why.
    pub fn check_queues(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for queue in &self.config.queues {
            if self.dialect_of_queue(queue).is_none() {
                let message = format!("no API takes requests at \"{}\"", queue.path);
                problems.push((format!("queues.{}.path", queue.name), message));
            }
            if let Err(failed) = self.callback(queue.callback.as_deref()) {
                problems.push((format!("queues.{}.callback", queue.name), failed.error.message));
            }
        }
        problems
    }

    fn dialect_of_queue(&self, queue: &Queue) -> Option<String> {
        match routes::find(&self.routes, "POST", &queue.path) {
            Ok(Endpoint::Dialect(dialect)) => Some(dialect.to_owned()),
            _ => None,
        }
    }

    /// Answers the messages of a queue, `queue.concurrency` at once. Completes when `finish` has completed, or a successor
    /// serves ([`Gateway::retire`]), and nothing is in hand any more; when `release` completes, that is given back. Jobs must be run beside ([`Gateway::work`]), here or in
    /// another process over the same state store.
    pub async fn consume<P: Ports, B: Broker>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        queue: &Queue,
        broker: &B,
        finish: impl Future<Output = ()>,
        release: impl Future<Output = ()>,
    ) {
        let Some(dialect) = self.dialect_of_queue(queue) else { return };
        let consumer = Consumer { gateway: self, ports, queue, broker, dialect, release: Bell::default() };
        let (mut finish, mut release) = (pin!(finish.fuse()), pin!(release.fuse()));
        let (mut finishing, mut receiving, mut in_hand, mut failures) = (false, false, 0_usize, 0_u32);
        let mut tasks = FuturesUnordered::new();
        let mut next_at = ports.now();
        while !finishing || in_hand > 0 || (receiving && B::SHORT) {
            if !finishing && !receiving && in_hand < queue.concurrency {
                receiving = true;
                tasks.push(consumer.step(Step::Receive { most: queue.concurrency - in_hand, at: next_at }));
            }
            let did = {
                let did = pin!(async {
                    match tasks.next().await {
                        Some(did) => did,
                        None => pending().await,
                    }
                });
                let told = select(finish.as_mut(), release.as_mut());
                match select(did, told).await {
                    Either::Left((did, _)) => Some(did),
                    Either::Right((Either::Left(_), _)) => {
                        finishing = true;
                        None
                    }
                    Either::Right((Either::Right(_), _)) => {
                        finishing = true;
                        consumer.release.ring();
                        None
                    }
                }
            };
            finishing |= self.is_retired();
            match did {
                None => {}
                Some(Did::Attended) => in_hand -= 1,
                Some(Did::Received(received)) => {
                    receiving = false;
                    next_at = ports.now();
                    match received {
                        Ok(messages) => {
                            failures = 0;
                            in_hand += messages.len();
                            for message in messages {
                                let step = if finishing { Step::GiveBack(message) } else { Step::Attend(message) };
                                tasks.push(consumer.step(step));
                            }
                        }
                        Err(error) => {
                            consumer.warn(&error);
                            next_at += rest(failures);
                            failures += 1;
                        }
                    }
                }
            }
        }
        drop(tasks);
        if let Err(error) = broker.close().await {
            consumer.warn(&error);
        }
    }
}

/// The wait after so many failures before.
fn rest(failures: u32) -> Duration {
    AGAIN.saturating_mul(1 << failures.min(10)).min(LONGEST)
}

impl<P: Ports, B: Broker> Consumer<'_, P, B> {
    fn warn(&self, why: &dyn std::fmt::Display) {
        self.ports.warn(&Warning::Queue { queue: &self.queue.name, why: &why.to_string() });
    }

    /// Tells of a failure, and waits before the next try.
    async fn again(&self, failures: &mut u32, why: String) {
        self.warn(&why);
        self.ports.sleep_until(self.ports.now() + rest(*failures)).await;
        *failures += 1;
    }

    async fn step(&self, step: Step) -> Did {
        match step {
            Step::Receive { most, at } => {
                self.ports.sleep_until(at).await;
                Did::Received(self.broker.receive(most).await)
            }
            Step::Attend(message) => {
                self.attend(&message).await;
                Did::Attended
            }
            Step::GiveBack(message) => {
                self.give_back(&message, Duration::ZERO).await;
                Did::Attended
            }
        }
    }

    async fn give_back(&self, message: &Message, pause: Duration) {
        // Were this to fail, it would come back by itself.
        if let Err(error) = self.broker.give_back(message, pause).await {
            self.warn(&error);
        }
    }

    /// Sees to a message while it is ours.
    async fn attend(&self, message: &Message) {
        let third = self.queue.visibility / 3;
        let mut pause = third;
        let mut work = pin!(async {
            match select(pin!(self.answer(message)), pin!(self.release.after(0))).await {
                Either::Left((after, _)) => after,
                Either::Right(_) => After::Back(Duration::ZERO),
            }
        });
        let after = loop {
            let wait = pin!(self.ports.sleep_until(self.ports.now() + pause));
            if let Either::Left((after, _)) = select(work.as_mut(), wait).await {
                break after;
            }
            let extended = match select(work.as_mut(), pin!(self.broker.extend(message))).await {
                Either::Left((after, _)) => break after,
                Either::Right((extended, _)) => extended,
            };
            match extended {
                Ok(true) => pause = third,
                Ok(false) => {
                    self.warn(&format!("message {} is no longer ours: another receiver sees to it", message.id));
                    return;
                }
                Err(error) => {
                    self.warn(&error);
                    pause = LOOK.min(third);
                }
            }
        };
        if let After::Back(pause) = after {
            self.give_back(message, pause).await;
        }
    }

    /// Finds the message's answer, and sees that it is where it belongs.
    async fn answer(&self, message: &Message) -> After {
        let mut failures = 0;
        loop {
            let job = match self.job(message).await {
                Ok(job) => job,
                Err(failed) if self.gateway.is_draining() => {
                    self.warn(&failed.error.message);
                    return After::Back(Duration::ZERO);
                }
                Err(failed) => {
                    self.again(&mut failures, failed.error.message).await;
                    continue;
                }
            };
            let ended = loop {
                match self.gateway.awaited(self.ports.as_ref(), &job.id, &job.owner, LOOK).await {
                    Ok(job) if job.status.is_final() => break Some(job),
                    // This process begins no more jobs: others may.
                    Ok(job) if job.status == Status::Queued && self.gateway.is_draining() => {
                        return After::Back(Duration::ZERO);
                    }
                    Ok(_) => {}
                    Err(failed) if failed.status == 404 => break None,
                    Err(failed) => self.again(&mut failures, failed.error.message).await,
                }
            };
            let Some(job) = ended else { continue };
            let passes = job.answer.as_ref().is_some_and(|answer| may_pass(answer.status));
            let known = job.message.as_ref();
            if passes && known.is_some_and(|known| known.receive < message.receives) {
                // It was the failure of an earlier receive.
                match self.forget(message, &job).await {
                    Ok(()) => failures = 0,
                    Err(error) => self.again(&mut failures, error.to_string()).await,
                }
                continue;
            }
            let last = known.is_some_and(|known| known.last);
            if passes && !last {
                let headers = job.answer.as_ref().map_or(&[][..], |answer| &answer.headers);
                let asked = http::header(headers, "retry-after").and_then(|value| value.parse().ok());
                let random = self.ports.random();
                return After::Back(pause(asked.map(Duration::from_secs), message.receives, random));
            }
            self.deliver(message, &job, passes).await;
            return After::Done;
        }
    }

    /// What stands for the message among its owner's idempotency keys: none that a client can send begins like this.
    fn once(&self, message: &Message) -> String {
        let body = message.body.as_ref().map_or(&[][..], |body| body);
        let of = hash(&[self.queue.path.as_bytes(), body]);
        format!("\0queue {} {} {of}", self.queue.source(), message.id)
    }

    /// The job of a message, made where there is none.
    async fn job(&self, message: &Message) -> Result<Job, Failed> {
        let (gateway, ports, queue) = (self.gateway, self.ports, self.queue);
        let client = gateway.keys.of_id(&gateway.config, ports.as_ref(), queue.key.as_deref()).await;
        let client = client.map_err(|error| unavailable(&error))?.ok_or_else(|| {
            let message = "the key in whose stead messages ask is not valid (queues.NAME.key)";
            Failed::ours(401, "authentication_error", "invalid_api_key", message)
        })?;
        let callback = gateway.callback(queue.callback.as_deref())?;
        let place = gateway.jobs.place(ports.as_ref(), gateway.config.jobs.max_queued).await?;
        let headers: Vec<Field> = vec![("content-type".to_owned(), "application/json".to_owned())];
        let (method, path) = ("POST".to_owned(), queue.path.clone());
        let request = Request { method, path, query: String::new(), headers, body: () };
        let mut flight = Flight::new(Arc::clone(ports), &request);
        flight.client = Some(client);
        // The job has a record of its own.
        flight.forget();
        let Request { method, path, query, headers, .. } = request;
        let most = gateway.config.limits.max_body_bytes;
        let checked = match &message.body {
            Err(flaw) => Err(Failed::ours(400, "invalid_request_error", "invalid_message", flaw.clone())),
            Ok(body) if body.len() > most => Err(encoding::too_large(most)),
            Ok(body) => gateway.check_later(&mut flight, &self.dialect, (&method, &path, &query), &headers, body).await,
        };
        let (model, refused) = match checked {
            Ok(Checked::Later(model)) => (model, None),
            Ok(Checked::Answered(_)) => (String::new(), None),
            // The run will find it out, and may find it well.
            Err(failed) if may_pass(failed.status) => (String::new(), None),
            Err(failed) => (String::new(), Some(failed)),
        };
        let body = message.body.as_ref().ok().filter(|_| refused.is_none()).cloned().unwrap_or_default();
        // What SQS does with messages that fail too often is its own to say.
        let ends = queue.dead_letters.is_some() || matches!(queue.kind, QueueKind::Redis(_));
        let of = store::Message {
            queue: queue.name.clone(),
            id: message.id.clone(),
            receive: message.receives,
            last: ends && message.receives >= queue.receives,
            refused: refused.map(|failed| store::Refused { status: failed.status, error: failed.error }),
        };
        let dialect = self.dialect.clone();
        let submission = Submission {
            work: Work::Request,
            method,
            path,
            query,
            headers,
            body,
            dialect,
            model,
            render: None,
            callback,
            message: Some(of),
        };
        gateway.enqueue(&flight, submission, Some(&self.once(message)), place).await
    }

    /// The message's id stands for this job no more.
    async fn forget(&self, message: &Message, job: &Job) -> Result<(), StateError> {
        self.gateway.unlink(self.ports.as_ref(), &job.owner, &self.once(message), &job.id).await
    }

    /// What is to be sent; `dead`: the message has failed for the last time.
    async fn parcel(&self, message: &Message, job: &Job, failed: bool) -> Result<Option<Parcel>, StateError> {
        let status = job.answer.as_ref().map_or_else(|| job.status.as_str().to_owned(), |kept| kept.status.to_string());
        let mut attributes = vec![("message_id", message.id.clone()), ("job_id", job.id.clone()), ("status", status)];
        let once = job.id.clone();
        if failed && let Some(to) = &self.queue.dead_letters {
            attributes.push(("receives", message.receives.to_string()));
            let body = message.body.clone().unwrap_or_default();
            return Ok(Some(Parcel { to: to.clone(), body, attributes, once }));
        }
        let Some(to) = &self.queue.answers else { return Ok(None) };
        let body = match &job.answer {
            Some(kept) => {
                let pieces = store::answer_pieces(&job.id, &kept.run);
                Store(self.ports.as_ref()).pieces(&pieces, kept.bytes).await?.filter(|body| self.broker.takes(body))
            }
            None => None,
        };
        let body = match body {
            Some(body) => {
                let headers = job.answer.as_ref().map_or(&[][..], |kept| &kept.headers);
                attributes.extend(http::header(headers, "content-type").map(|kind| ("content_type", kind.to_owned())));
                body
            }
            // It says where the answer is.
            None => {
                attributes.push(("result", format!("/v1/jobs/{}/result", job.id)));
                Bytes::from(shown(job).to_string())
            }
        };
        Ok(Some(Parcel { to: to.clone(), body, attributes, once }))
    }

    /// Sends what is to be sent, and takes the message out of the queue.
    async fn deliver(&self, message: &Message, job: &Job, failed: bool) {
        let mut failures = 0;
        let parcel = loop {
            match self.parcel(message, job, failed).await {
                Ok(parcel) => break parcel,
                Err(error) => self.again(&mut failures, error.to_string()).await,
            }
        };
        if let Some(parcel) = parcel {
            let token = http::id(self.ports.random());
            loop {
                let ours = B::AT_ONCE
                    || match self.sending(job, &token).await {
                        Ok(None) => break,
                        Ok(Some(ours)) => ours,
                        Err(error) => {
                            self.again(&mut failures, error.to_string()).await;
                            continue;
                        }
                    };
                if !ours {
                    self.ports.sleep_until(self.ports.now() + LOOK).await;
                    continue;
                }
                match self.broker.send(message, &parcel).await {
                    Ok(()) if B::AT_ONCE => return,
                    Ok(()) => {
                        let mark = Store(self.ports.as_ref()).write(&mark_key(job), &Sent::Yes, job.expires()).await;
                        if let Err(error) = mark {
                            self.warn(&error);
                        }
                        break;
                    }
                    Err(error) => self.again(&mut failures, error.to_string()).await,
                }
            }
        }
        while let Err(error) = self.broker.done(message).await {
            self.again(&mut failures, error.to_string()).await;
        }
    }

    /// Whether we are to send an answer now; `None` where it was sent.
    async fn sending(&self, job: &Job, token: &str) -> Result<Option<bool>, StateError> {
        let (store, key) = (Store(self.ports.as_ref()), mark_key(job));
        let now = store.now();
        let mine = Sent::By(token.to_owned(), millis(now + SENDING));
        let known = store.read::<Sent>(&key).await?;
        let old = match &known {
            Some((Sent::Yes, _)) => return Ok(None),
            Some((Sent::By(other, until), _)) if other != token && *until > millis(now) => return Ok(Some(false)),
            Some((Sent::By(..), bytes)) => Some(bytes),
            None => None,
        };
        Ok(Some(store.swap(&key, old, &mine, job.expires()).await?.is_some()))
    }
}

/// Where it is said whether a job's answer was sent.
fn mark_key(job: &Job) -> String {
    format!("jobm/{}", job.id)
}
