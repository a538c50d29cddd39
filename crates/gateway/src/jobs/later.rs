//! Answers that are given later, under their own id: OpenAI's responses in the background.
//!
//! The dialect says that a request is one of those ([`Step::Later`](witgate_model::normaliser::Step)). It becomes a job
//! ([`Work::Later`]) whose id is that of the answer, and all that there is of the answer is in the job: the request, what
//! the renderer must know of it, the state, and in the end the answer as its client would have got it. So there is one
//! truth, changed by compare-and-set; whoever asks for the answer gets what the dialect makes of that (a document of the
//! kind `later`).
//!
//! An answer that is made as events is given as they come, to any number of clients, each from where it wants: the run
//! keeps its events, several at once, and who follows reads them. When the run is taken up by another process, the events of
//! the new one are others: who has had some already gets the last one alone, which has the whole answer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt};
use serde_json::json;
use witgate_model::Field;
use witgate_model::normaliser::{Client, Document, DocumentRef, Later, Tail};

use super::bell::Bells;
use super::serve::{Submission, check_key, own_job};
use super::store::{self, Job, PIECE, Store, Work};
use super::unavailable;
use super::work::{AGAIN, warn};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http;
use crate::path::{self, Asked, Ended, Flight};
use crate::ports::Ports;
use crate::record::Outcome;
use crate::state::StateError;
use crate::stream::Writer;

/// The kind of the documents that say what has become of an answer.
const LATER: &str = "later";
/// The same, of an answer that is cancelled first.
const CANCELLED: &str = "cancelled";
/// How often the events of a run are kept at most.
const EVERY: Duration = Duration::from_millis(100);
/// How often one who follows looks for what other processes did.
const LOOK: Duration = Duration::from_millis(500);
/// Sent to one who follows when there was nothing else for so long.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// What an answer that is given later begins with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The part of its id that the gateway makes.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
}

impl Start {
    pub fn of(job: &Job) -> Option<Self> {
        match job.work {
            Work::Later(_) => Some(Start { id: own_id(&job.id).to_owned(), created: job.created / 1_000 }),
            Work::Request | Work::Batch(_) => None,
        }
    }
}

/// The id of a job as that of its answer.
fn own_id(job: &str) -> &str {
    job.strip_prefix("job_").unwrap_or(job)
}

fn job_id(own: &str) -> String {
    format!("job_{own}")
}

fn bell_of_events(job: &str) -> String {
    format!("{job}/events")
}

/// A request whose answer is to be given later both by its dialect and by a header.
pub(super) fn twice() -> Failed {
    let message = "the request asks for its answer in the background already: leave out `background` where it is \
                   submitted as a job (`Prefer: respond-async`), or as a line of a batch";
    let mut failed = Failed::ours(400, "invalid_request_error", "background_twice", message);
    failed.error.param = Some("background".to_owned());
    failed
}

/// The dialect made of an answer's state what cannot be.
pub(crate) fn strange() -> Failed {
    Failed::ours(500, "api_error", "internal", "the normaliser made no answer of the state of one that is given later")
}

/// A question about an answer where only a request for one is taken.
pub(super) fn not_here() -> Failed {
    Failed::ours(400, "invalid_request_error", "stream_unsupported", "an answer cannot be followed as a job")
}

/// The events of a run, kept for those who follow it.
pub(super) struct Log {
    job: String,
    prefix: String,
    expires: Duration,
    /// Pieces that are kept.
    pieces: usize,
    waiting: BytesMut,
    /// When what waits is to be kept.
    due: Option<Duration>,
    /// Not before.
    next: Duration,
}

impl Log {
    pub fn new(job: &Job) -> Self {
        let prefix = store::event_pieces(&job.id, job.lease.as_deref().unwrap_or_default());
        let (waiting, next) = (BytesMut::new(), Duration::ZERO);
        Log { job: job.id.clone(), prefix, expires: job.expires(), pieces: 0, waiting, due: None, next }
    }

    /// The next bytes of the run's answer; those before are kept meanwhile.
    pub async fn next<P: Ports>(
        &mut self,
        ports: &P,
        mut stream: Pin<&mut impl Stream<Item = Bytes>>,
        bells: &Bells,
    ) -> Option<Bytes> {
        loop {
            let Some(due) = self.due else {
                let bytes = stream.next().await?;
                self.waiting.extend_from_slice(&bytes);
                self.due = Some(self.next.max(ports.now()));
                return Some(bytes);
            };
            if ports.now() >= due {
                self.keep(ports, bells).await;
                continue;
            }
            if let Either::Left((bytes, _)) = select(stream.next(), pin!(ports.sleep_until(due))).await {
                let bytes = bytes?;
                self.waiting.extend_from_slice(&bytes);
                return Some(bytes);
            }
        }
    }

    async fn keep<P: Ports>(&mut self, ports: &P, bells: &Bells) {
        let store = Store(ports);
        while !self.waiting.is_empty() {
            let piece = self.waiting.split_to(self.waiting.len().min(PIECE)).freeze();
            if let Err(error) = store.put_piece(&self.prefix, self.pieces, piece.clone(), self.expires).await {
                warn(ports, "", &error);
                let mut rest = BytesMut::from(&piece[..]);
                rest.unsplit(std::mem::take(&mut self.waiting));
                self.waiting = rest;
                self.due = Some(ports.now() + AGAIN);
                return;
            }
            self.pieces += 1;
        }
        self.due = None;
        self.next = ports.now() + EVERY;
        bells.ring(&bell_of_events(&self.job));
    }

    /// The answer is there: its events are not looked for here any more.
    pub async fn remove<P: Ports>(self, ports: &P) {
        if let Err(error) = Store(ports).remove_pieces(&self.prefix, self.pieces * PIECE).await {
            warn(ports, "", &error);
        }
    }
}

/// Counts events, and leaves out those that a client does not want.
struct Counter {
    /// The events so far, those that were left out too.
    count: u64,
    skip: u64,
    /// The last byte ended a line.
    line: bool,
}

impl Counter {
    /// What the client is given of `bytes`.
    fn take(&mut self, bytes: &Bytes) -> Bytes {
        let mut from = if self.count < self.skip { bytes.len() } else { 0 };
        for (at, byte) in bytes.iter().enumerate() {
            let ends = *byte == b'\n' && self.line;
            self.line = *byte == b'\n' && !ends;
            if ends {
                self.count += 1;
                if self.count == self.skip {
                    from = at + 1;
                }
            }
        }
        bytes.slice(from..)
    }
}

impl Gateway {
    /// Takes a request whose answer is given later; where it is found, and what is to be told of it now.
    pub(crate) async fn take_later<P: Ports>(
        self: &Arc<Self>,
        flight: &mut Flight<P>,
        dialect: &str,
        later: Later,
        (headers, body): (Vec<Field>, Bytes),
    ) -> Result<(Asked<P::Normaliser>, String), Failed> {
        if flight.told.is_some() {
            return Err(twice());
        }
        let ports = Arc::clone(&flight.ports);
        let callback = self.callback(http::header(&headers, "x-witgate-callback"))?;
        check_key(&headers)?;
        let once = http::header(&headers, "idempotency-key").map(str::to_owned);
        let model = self.known_model(dialect, later.parsed.request.model)?;
        self.allow(flight, &model)?;
        let place = self.jobs.place(ports.as_ref(), self.config.jobs.max_queued).await?;
        let render = Bytes::from(later.parsed.render);
        let submission = Submission {
            work: Work::Later(render.len()),
            method: flight.record.method.clone(),
            path: flight.record.path.clone(),
            query: String::new(),
            headers: self.kept_headers(headers),
            body,
            dialect: dialect.to_owned(),
            model,
            render: Some(render.clone()),
            callback,
            message: None,
        };
        let job = self.enqueue(flight, submission, once.as_deref(), place).await?;
        self.jobs.left.store(true, Ordering::Relaxed);
        flight.record.job = Some(job.id.clone());
        let key = own_id(&job.id).to_owned();
        let path = later.path.replace("{id}", &key);
        let content = self.state_of(ports.as_ref(), &job, &render).await?;
        let at = DocumentRef { kind: LATER.to_owned(), key };
        let mut query = Vec::new();
        if later.parsed.request.stream {
            query.push(("stream".to_owned(), "true".to_owned()));
        }
        let asked = self.look_later(flight, dialect, &path, query, vec![Document { at, content }]).await?;
        Ok((asked, path))
    }

    /// What the dialect makes of an answer's state.
    async fn look_later<P: Ports>(
        &self,
        flight: &mut Flight<P>,
        dialect: &str,
        path: &str,
        query: Vec<Field>,
        documents: Vec<Document>,
    ) -> Result<Asked<P::Normaliser>, Failed> {
        let client = Client {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query,
            headers: Vec::new(),
            settings: self.dialect_settings(dialect).to_owned(),
            documents,
        };
        path::parse(self, flight, dialect, client, &Bytes::new()).await
    }

    /// The document that says what has become of an answer, where that is what `at` names.
    pub(crate) async fn later<P: Ports>(
        &self,
        flight: &Flight<P>,
        dialect: &str,
        at: &DocumentRef,
    ) -> Option<Result<Option<String>, Failed>> {
        let cancelled = at.kind == CANCELLED;
        (cancelled || at.kind == LATER).then_some(())?;
        let found = async {
            let (ports, owner) = (flight.ports.as_ref(), self.owner(flight));
            let id = job_id(&at.key);
            let (mut job, _) = match own_job(ports, &id, &owner).await {
                Err(failed) if failed.status == 404 => return Ok(None),
                found => found?,
            };
            let Work::Later(bytes) = job.work else { return Ok(None) };
            if job.dialect != dialect {
                return Ok(None);
            }
            if cancelled {
                job = self.cancel(ports, &id, &owner).await?;
            }
            let render = Store(ports).pieces(&store::render_pieces(&id), bytes).await;
            match render.map_err(|error| unavailable(&error))? {
                Some(render) => self.state_of(ports, &job, &render).await,
                None => Ok(None),
            }
        };
        Some(found.await)
    }

    /// Forgets an answer, where that is what `at` names.
    pub(crate) async fn forget_later<P: Ports>(
        &self,
        flight: &Flight<P>,
        at: &DocumentRef,
    ) -> Option<Result<(), String>> {
        (at.kind == LATER).then_some(())?;
        let done = self.forget(flight.ports.as_ref(), &job_id(&at.key), &self.owner(flight)).await;
        Some(match done {
            Err(failed) if failed.status != 404 => Err(failed.error.message),
            _ => Ok(()),
        })
    }

    /// What has become of an answer, as the normaliser reads it. `None` where the answer is not there any more.
    async fn state_of<P: Ports>(&self, ports: &P, job: &Job, render: &Bytes) -> Result<Option<String>, Failed> {
        if !job.status.is_final() {
            self.jobs.left.store(true, Ordering::Relaxed);
        }
        let mut state = json!({
            "status": job.status.as_str(),
            "created": job.created / 1_000,
            "model": job.model,
            "render": String::from_utf8_lossy(render),
        });
        if let (Some(kept), Some(members)) = (&job.answer, state.as_object_mut()) {
            let answer = Store(ports).pieces(&store::answer_pieces(&job.id, &kept.run), kept.bytes).await;
            let Some(answer) = answer.map_err(|error| unavailable(&error))? else { return Ok(None) };
            members.insert("http".to_owned(), json!(kept.status));
            members.insert("answer".to_owned(), json!(String::from_utf8_lossy(&answer)));
        }
        Ok(Some(state.to_string()))
    }

    /// Removes the events of a run that was ended.
    pub(super) async fn remove_events<P: Ports>(&self, ports: &P, job: &Job) -> Result<(), StateError> {
        let (Work::Later(_), Some(run)) = (&job.work, &job.lease) else { return Ok(()) };
        let (store, prefix) = (Store(ports), store::event_pieces(&job.id, run));
        let mut pieces = 0;
        while store.piece(&prefix, pieces).await?.is_some() {
            pieces += 1;
        }
        store.remove_pieces(&prefix, pieces * PIECE).await
    }

    /// Gives the events of an answer as they come, and then what is left of them.
    pub(crate) async fn follow<P: Ports>(
        self: Arc<Self>,
        mut flight: Flight<P>,
        dialect: String,
        (tail, path): (Tail, String),
        writer: Writer,
    ) -> Ended {
        flight.record.stream = true;
        let (id, owner) = (job_id(&tail.at.key), self.owner(&flight));
        let mut counter = Counter { count: 0, skip: tail.skip, line: false };
        let changed = self.events_until_end(&flight, (&id, &owner), &mut counter, &writer).await;
        let mut query = vec![("stream".to_owned(), "true".to_owned())];
        if let Some(last) = counter.count.max(tail.skip).checked_sub(1) {
            query.push(("starting_after".to_owned(), last.to_string()));
        }
        let rest = self.look_later(&mut flight, &dialect, &path, query, Vec::new()).await;
        let complete = match rest {
            Ok(Asked::Answer(reply)) => {
                let body = Bytes::from(reply.rendered.body);
                // Those of another run do not go with what the client has.
                let from = if changed { last_event(&body) } else { 0 };
                writer.write(body.slice(from..)).await;
                true
            }
            // It is gone: the stream ends without its last event, which clients take for an error.
            _ => false,
        };
        flight.end(200, if complete { Outcome::Complete } else { Outcome::Failed });
        Ended::Streamed
    }

    /// Gives the events of a run until the answer has ended, or is not there any more. Whether they were of another run than
    /// the one that ended.
    async fn events_until_end<P: Ports>(
        &self,
        flight: &Flight<P>,
        (id, owner): (&str, &str),
        counter: &mut Counter,
        writer: &Writer,
    ) -> bool {
        let ports = flight.ports.as_ref();
        let store = Store(ports);
        let (ends, events) = (self.jobs.bells.watch(id), self.jobs.bells.watch(&bell_of_events(id)));
        let mut run = None::<String>;
        let mut pieces = 0;
        loop {
            let heard = (ends.bell.rung(), events.bell.rung());
            let state = match own_job(ports, id, owner).await {
                Ok((job, _)) if job.status.is_final() => {
                    let last = job.answer.map(|kept| kept.run);
                    return pieces > 0 && last.is_some() && run != last;
                }
                Ok((job, _)) => {
                    if pieces == 0 {
                        run.clone_from(&job.lease);
                    }
                    match &run {
                        Some(own) if job.lease == run => {
                            let prefix = store::event_pieces(id, own);
                            loop {
                                match store.piece(&prefix, pieces).await {
                                    Ok(Some(piece)) => {
                                        pieces += 1;
                                        writer.write(counter.take(&piece)).await;
                                    }
                                    Ok(None) => break Ok(()),
                                    Err(error) => break Err(error),
                                }
                            }
                        }
                        _ => Ok(()),
                    }
                }
                Err(failed) if failed.status == 404 => return false,
                Err(failed) => Err(StateError(failed.error.message)),
            };
            if let Err(error) = state {
                warn(ports, &flight.record.request_id, &error);
            }
            let rung = pin!(async {
                select(pin!(ends.bell.after(heard.0)), pin!(events.bell.after(heard.1))).await;
            });
            select(pin!(ports.sleep_until(ports.now() + LOOK)), rung).await;
        }
    }
}

/// Where the last event begins.
fn last_event(body: &[u8]) -> usize {
    let events = body.strip_suffix(b"\n\n").unwrap_or(body);
    events.windows(2).rposition(|two| two == b"\n\n").map_or(0, |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_their_bytes_are_cut() {
        let all = b"event: a\ndata: 0\n\nevent: b\ndata: 1\n\nevent: c\ndata: 2\n\n";
        for skip in 0..5 {
            for cut in 0..=all.len() {
                let mut counter = Counter { count: 0, skip, line: false };
                let mut given = counter.take(&Bytes::from_static(&all[..cut])).to_vec();
                given.extend_from_slice(&counter.take(&Bytes::from_static(&all[cut..])));
                let wanted: usize = 18 * usize::try_from(skip).unwrap().min(3);
                assert_eq!((given.as_slice(), counter.count), (&all[wanted..], 3), "{skip} {cut}");
            }
        }
        assert_eq!((last_event(all), last_event(&all[..18]), last_event(b"")), (36, 0, 0));
    }
}
