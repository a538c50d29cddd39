//! The path of one request: route, then for each target encode, sign, send, frame, decode, and render for the client.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use witgate_config::Provider;
use witgate_framing::{Framer, effective};
use witgate_model::normaliser::{
    AnswerStart, Attempt as Try, Client, Document, DocumentRef, Later, Limits, Parsed, Reply as OwnReply, Step, Tail,
};
use witgate_model::{Auth, Event, Field, Frame, Input, Order, ResponseHead, Retry, Usage};

use crate::aws;
use crate::bill::Bill;
use crate::cache::{Recorder, Told, Wish};
use crate::cause;
use crate::check::{add, merge};
use crate::documents;
use crate::failure::{Failed, Timeout};
use crate::gateway::{Gateway, Place};
use crate::http::{self, Request, Whole};
use crate::jobs::{self, Behalf, Slot};
use crate::keep::{Keep, Keeping};
use crate::keys;
use crate::policies::{Watch, Watchers};
use crate::pool::Lease;
use crate::ports::{Adapter, Fault, Normaliser, Ports, TransportError, UpstreamBody, UpstreamRequest};
use crate::record::{Outcome, Record, Warning};
use crate::retry::Hint;
use crate::sign;
use crate::stream::Writer;

/// A request on its way: what will be logged of it. Dropped before its end, it is logged as abandoned by its client.
pub(crate) struct Flight<P: Ports> {
    pub ports: Arc<P>,
    pub record: Record,
    pub place: Option<Place>,
    pub start: Duration,
    /// The tries that failed before any content.
    pub tried: Vec<Try>,
    /// Who asks; none before that is known.
    pub client: Option<Arc<keys::Client>>,
    /// Where the record goes in place of the runtime, and that this is a job's request: nobody is to prove who he is.
    pub told: Option<Slot>,
    /// What its answer begins with, where it is one that is given later.
    pub begins: Option<jobs::later::Start>,
    /// What it takes of limits and budgets.
    pub bill: Bill,
    /// Where it is counted, if that is wanted.
    pub gateway: Option<Arc<Gateway>>,
    /// What answers have cost that the client does not get to see.
    spent: Option<Usage>,
    /// What the client is told of the cache.
    pub cache: Option<Told>,
    ended: bool,
}

impl<P: Ports> Flight<P> {
    pub fn new<B>(ports: Arc<P>, request: &Request<B>) -> Self {
        let start = ports.now();
        let request_id = match request.header("x-request-id") {
            Some(id) if http::is_request_id(id) => id.to_owned(),
            _ => http::id(ports.random()),
        };
        let trace_id = request.header("traceparent").and_then(http::traceparent).map(|(trace, _)| trace.to_owned());
        let record = Record {
            method: request.method.clone(),
            path: request.path.chars().take(512).collect(),
            status: 0,
            outcome: Outcome::ClientGone,
            latency: Duration::ZERO,
            first_token: None,
            request_id,
            job: None,
            trace_id,
            dialect: None,
            request_model: None,
            response_model: None,
            provider: None,
            attempts: 0,
            hedged: None,
            stream: false,
            usage: None,
            key: None,
            tenant: None,
            cost: None,
            cached: false,
            error_type: None,
            cause: None,
            unmapped: Vec::new(),
            dropped: Vec::new(),
            tags: Vec::new(),
        };
        Flight {
            ports,
            record,
            place: None,
            start,
            tried: Vec::new(),
            client: None,
            told: None,
            begins: None,
            bill: Bill::default(),
            gateway: None,
            spent: None,
            cache: None,
            ended: false,
        }
    }

    /// Says how it ended, once.
    pub fn end(&mut self, status: u16, outcome: Outcome) {
        if !self.ended {
            self.ended = true;
            self.bill.close(self.record.used(), outcome == Outcome::Complete);
            self.record.cost = self.bill.cost();
            self.record.usage = add(self.spent.take(), self.record.usage.take());
            self.record.status = status;
            self.record.outcome = outcome;
            self.record.latency = self.ports.now().saturating_sub(self.start);
            if let Some(told) = &self.told {
                let mut bill = std::mem::take(&mut self.bill);
                // Who does not want the rest of an answer owes what came of it.
                if outcome != Outcome::ClientGone || told.is_ended() {
                    told.set(jobs::Told { record: self.record.clone(), bill });
                    return;
                }
                // It was interrupted, and somebody else may ask again: nothing is charged.
                bill.void();
                if let Some(work) = bill.work(&self.record.request_id) {
                    self.ports.after(work);
                }
                return;
            }
            if let Some(gateway) = self.gateway.take() {
                gateway.watched(self.ports.as_ref(), Some(&self.record));
            }
            self.ports.record(&self.record);
            if let Some(work) = self.bill.work(&self.record.request_id) {
                self.ports.after(work);
            }
        }
    }

    /// Nothing is told of it: the same request goes on as another one.
    pub fn forget(&mut self) {
        self.ended = true;
    }

    /// What was counted is of an answer that the client does not get to see; whether it was a whole one.
    pub fn discard(&mut self, complete: bool) {
        self.bill.close(self.record.usage.as_ref(), complete);
        self.spent = add(self.spent.take(), self.record.usage.take());
    }

    /// The tries, where there was more than one.
    fn attempts(&self) -> &[Try] {
        if self.tried.len() > 1 { &self.tried } else { &[] }
    }

    /// Where a document lies: what is kept for one client, no other one finds. Configurations are the operator's, for all.
    pub fn own(&self, at: DocumentRef) -> DocumentRef {
        match at.kind.as_str() {
            "configuration" => at,
            _ => {
                let owner = self.client.as_ref().map_or("", |client| &client.owner);
                DocumentRef { key: format!("{owner}/{}", at.key), ..at }
            }
        }
    }

    /// A parent id for the backend's span; not zero, as the standard wants.
    pub fn span_id(&self) -> u64 {
        (self.ports.random() as u64) | 1
    }

    /// Notes what an event tells of the answer. `dialect` is the client's; facades answer in the one that they asked in.
    pub fn note(&mut self, dialect: &str, asked: &str, event: &Event) {
        match event {
            Event::Started(started) => self.record.response_model.clone_from(&started.model),
            Event::Usage(usage) => merge(&mut self.record.usage, usage),
            Event::Other(other)
                if other.dialect != dialect && other.dialect != asked && self.record.unmapped.len() < 16 =>
            {
                self.record.unmapped.push(format!("{}: {}", other.dialect, names(&other.members)));
            }
            _ => {}
        }
    }

    /// It is asked in a client's stead.
    pub fn stand_in(&mut self, behalf: Behalf) {
        self.record.key = behalf.client.has_key.then(|| behalf.client.id.clone());
        self.record.tenant.clone_from(&behalf.client.tenant);
        self.record.job = behalf.job;
        self.client = Some(behalf.client);
        self.told = Some(behalf.told);
        self.begins = behalf.start;
    }

    pub fn headers(&self, mut headers: Vec<Field>) -> Vec<Field> {
        headers.reserve(12);
        headers.push(("x-request-id".to_owned(), self.record.request_id.clone()));
        self.bill.headers(&mut headers);
        if let Some(provider) = &self.record.provider {
            headers.push(("x-witgate-provider".to_owned(), provider.clone()));
        }
        if let Some(told) = self.cache {
            told.headers(&mut headers);
        }
        if !self.record.dropped.is_empty() {
            headers.push(("x-witgate-dropped".to_owned(), http::list(&self.record.dropped)));
        }
        if !self.record.tags.is_empty() {
            let tags = self.record.tags.iter().map(|(name, value)| format!("{name}={value}"));
            headers.push(("x-witgate-tags".to_owned(), http::list(&tags.collect::<Vec<_>>())));
        }
        if self.record.attempts > 1 {
            headers.push(("x-witgate-attempts".to_owned(), self.record.attempts.to_string()));
        }
        if !self.tried.is_empty() {
            let tried = self.tried.iter().map(|tried| format!("{}/{}:{}", tried.provider, tried.model, tried.reason));
            headers.push(("x-witgate-failed".to_owned(), http::list(&tried.collect::<Vec<_>>())));
        }
        headers
    }

    pub fn respond(&self, status: u16, headers: Vec<Field>, body: Bytes) -> Whole {
        Whole { status, headers: self.headers(headers), body }
    }

    /// An error before the answer began, in the client's dialect; the end of this request.
    pub fn refuse(&mut self, gateway: &Gateway, dialect: &str, failed: Failed) -> Whole {
        let failure = failed.render(&self.record.request_id, self.attempts());
        let settings = gateway.dialect_settings(dialect);
        let rendered =
            self.ports.normaliser().and_then(|mut normaliser| normaliser.render_error(dialect, settings, &failure));
        let (status, headers, body) = match rendered {
            Ok(rendered) => (rendered.status, rendered.headers, Bytes::from(rendered.body)),
            Err(fault) => {
                self.ports.warn(&Warning::Fault { request_id: &self.record.request_id, fault: &fault });
                let json = serde_json::json!({"error": {
                    "message": failure.error.message, "type": failure.error_type, "code": failure.error.code,
                    "param": failure.error.param, "provider": failure.provider, "request_id": failure.request_id,
                }});
                let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                (failed.status, headers, Bytes::from(json.to_string()))
            }
        };
        self.refused(failed, status, headers, body)
    }

    /// The end of this request: the answer that tells of a failure, with what every dialect's has.
    fn refused(&mut self, failed: Failed, status: u16, mut headers: Vec<Field>, body: Bytes) -> Whole {
        if let Some(seconds) = failed.retry_after() {
            headers.push(("retry-after".to_owned(), seconds.to_string()));
        }
        if failed.status == 429 && !matches!(failed.error.retry, Retry::SameTarget(_)) {
            // A spent account, or a backend that wants no other try: OpenAI's clients would try again after any other 429.
            headers.push(("x-should-retry".to_owned(), "false".to_owned()));
        }
        self.record.error_type = Some(failed.error_type.to_owned());
        self.record.provider = failed.provider.or(self.record.provider.take());
        self.end(status, Outcome::Failed);
        self.respond(status, headers, body)
    }
}

impl<P: Ports> Drop for Flight<P> {
    fn drop(&mut self) {
        let status = if self.record.status == 0 { 499 } else { self.record.status };
        self.end(status, Outcome::ClientGone);
    }
}

/// How a fault names a provider's adapter.
pub(crate) fn component(provider: &Provider) -> String {
    format!("adapter \"{}\"", provider.adapter.as_str())
}

/// `future`'s output, or `None` when `deadline` comes first.
pub(crate) async fn before<P: Ports, F: Future>(ports: &P, deadline: Duration, future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    let sleep = std::pin::pin!(ports.sleep_until(deadline));
    match select(future, sleep).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// The base URLs of a provider: the configured ones, else the adapter's own with `settings` filled in, and with `region`,
/// that of a signature.
pub(crate) fn endpoints<'p, A: Adapter>(
    provider: &'p Provider,
    settings: &serde_json::Value,
    region: Option<&str>,
    adapter: &A,
) -> Cow<'p, [String]> {
    if !provider.endpoints.is_empty() {
        return Cow::Borrowed(&provider.endpoints);
    }
    let own = adapter.description().default_endpoint.as_deref();
    let own = own.and_then(|endpoint| default_endpoint(endpoint, settings, region));
    own.map_or(Cow::Borrowed(&[]), |endpoint| Cow::Owned(vec![endpoint]))
}

/// An adapter's default endpoint with `settings` filled in, and with `region`, that of a signature; `None` where they do
/// not say what it needs.
pub fn default_endpoint(endpoint: &str, settings: &serde_json::Value, region: Option<&str>) -> Option<String> {
    let (mut filled, mut rest) = (String::with_capacity(endpoint.len()), endpoint);
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}') else { break };
        // It becomes a part of a host name: letters, digits, hyphens and dots only.
        let value = match (name, region) {
            ("region", Some(region)) => region,
            ("dns_suffix", Some(region)) => aws::dns_suffix(region),
            _ => settings.get(name).and_then(|value| value.as_str()).unwrap_or_default(),
        };
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return None;
        }
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// The region that a request is signed for: the adapter's choice, as of an ARN, else that of the settings.
pub(crate) fn region<'r>(auth: &'r Auth, settings: &'r serde_json::Value) -> Option<&'r str> {
    let own = match auth {
        Auth::AwsSigv4(auth) => auth.region.as_deref(),
        _ => None,
    };
    own.or_else(|| settings.get("region")?.as_str())
}

/// Whether a header carries a dialect's own switches.
pub(crate) fn is_own_header(name: &str) -> bool {
    name.starts_with("anthropic-") || name.starts_with("openai-")
}

/// Those headers that a dialect may see.
pub(crate) fn own_headers(headers: &[Field]) -> Vec<Field> {
    headers.iter().filter(|(name, _)| is_own_header(name)).cloned().collect()
}

/// The most documents that a dialect may want for one request.
const MOST_DOCUMENTS: usize = 64;

/// What the normaliser made of a request.
#[allow(clippy::large_enum_variant, reason = "made once for a request, and taken apart at once")]
pub(crate) enum Asked<N> {
    /// A backend is to be asked: the request, the normaliser for the answer, and whether it follows the answer to its end.
    Backend(Parsed, N, bool),
    /// It is answered already.
    Answer(OwnReply),
    /// A backend is to be asked later.
    Later(Later),
    /// An answer that is given later is to be given as it comes.
    Tail(Tail),
}

/// Has the normaliser parse a request, with the documents that it needs.
pub(crate) async fn parse<P: Ports>(
    gateway: &Gateway,
    flight: &mut Flight<P>,
    dialect: &str,
    mut client: Client,
    body: &Bytes,
) -> Result<Asked<P::Normaliser>, Failed> {
    let limits = Limits { depth: gateway.config.limits.max_json_depth, messages: gateway.config.limits.max_messages };
    let ports = Arc::clone(&flight.ports);
    let fault = |flight: &Flight<P>, fault: Fault| {
        flight.ports.warn(&Warning::Fault { request_id: &flight.record.request_id, fault: &fault });
        Failed::fault(&fault, None)
    };
    let broke = |what: &str| Fault { component: "normaliser".to_owned(), what: what.to_owned() };
    let mut normaliser = ports.normaliser().map_err(|error| fault(flight, error))?;
    loop {
        let step = normaliser.parse(dialect, &client, &limits, body).map_err(|error| fault(flight, error))?;
        let (parsed, follow) = match step.map_err(Failed::request)? {
            Step::Ask(parsed) => (parsed, false),
            Step::Follow(parsed) => (parsed, true),
            Step::Answer(reply) => return Ok(Asked::Answer(reply)),
            Step::Later(later) if flight.begins.is_some() => (later.parsed, true),
            Step::Later(later) => return Ok(Asked::Later(later)),
            Step::Tail(tail) => return Ok(Asked::Tail(tail)),
            Step::Needs(wanted) => {
                if !client.documents.is_empty() || wanted.is_empty() || wanted.len() > MOST_DOCUMENTS {
                    return Err(fault(flight, broke("asked for documents twice, for none, or for too many")));
                }
                for at in wanted {
                    if let Some(found) = gateway.later(flight, dialect, &at).await {
                        let content = found?;
                        client.documents.push(Document { at, content });
                        continue;
                    }
                    let content =
                        documents::get(gateway, ports.as_ref(), &flight.own(at.clone())).await.map_err(|why| {
                            let message = format!("the {} \"{}\" cannot be read: {why}", at.kind, at.key);
                            Failed::ours(503, "api_error", "store_unavailable", message)
                        })?;
                    client.documents.push(Document { at, content });
                }
                continue;
            }
        };
        flight.record.request_model = Some(parsed.request.model.chars().take(256).collect());
        flight.record.stream = parsed.request.stream;
        return Ok(Asked::Backend(parsed, normaliser, follow));
    }
}

/// How the path ended.
pub(crate) enum Ended {
    /// With this answer: a whole one, or an error before anything was given to the client.
    Whole(Whole),
    /// All bytes, an error among them if there was one, have gone through the writer.
    Streamed,
    /// Not yet: the answer was not what the client asked for, and this is to be asked instead.
    Again(Box<Parsed>),
}

impl Ended {
    /// The answer of a path on which no stream has begun.
    pub fn whole(self) -> Whole {
        match self {
            Ended::Whole(whole) => whole,
            Ended::Streamed | Ended::Again(_) => unreachable!("a path ends with its answer where no stream has begun"),
        }
    }
}

/// How often a client's request may be asked again because of its answer.
const MOST_AGAIN: u32 = 2;

/// Why an attempt has no answer.
pub(crate) enum Attempt {
    /// Before any content: another target may be tried.
    Before(Failed),
    /// After content went to the client.
    After(Failed),
}

/// A parsed request with all that its path needs.
pub(crate) struct Run<N> {
    pub gateway: Arc<Gateway>,
    pub normaliser: N,
    pub dialect: String,
    /// Opaque, for the renderer.
    pub render: String,
    pub request: Arc<witgate_model::Request>,
    /// Those headers of the client's that requests may be kept together by.
    pub headers: Vec<Field>,
    pub traceparent: Option<String>,
    /// The normaliser wants to know when the answer is complete.
    pub follow: bool,
    /// The policies that watch its answers.
    pub watches: Vec<Watch>,
    /// What it wants of the cache, until that was looked at.
    pub wish: Option<Wish>,
    /// What is to be kept of the answer, and for how long.
    pub recorder: Option<(Recorder, Duration)>,
    /// The documents that are to be kept of the answer.
    pub keep: Vec<Document>,
}

/// Status and headers of a stream's head, and its keep-alive comment.
type Early = ((u16, Vec<Field>), Bytes);

impl<N: Normaliser> Run<N> {
    /// What comes before anything is taken of limits and budgets: the renderer is made, and the policies look at the request,
    /// whose model is then the one that serves.
    pub fn enter<P: Ports>(&mut self, flight: &mut Flight<P>) -> Result<(), Failed> {
        self.start(flight).map_err(|fault| Failed::fault(&fault, None))?;
        let gateway = Arc::clone(&self.gateway);
        let passed = gateway.apply_policies(flight, &self.dialect, &mut self.request, None)?;
        self.watches = passed.watches;
        if let Some(route) = passed.route {
            Arc::make_mut(&mut self.request).model = route;
        }
        Ok(())
    }

    /// The head of a stream that begins before a backend has answered, and the comment that keeps it open.
    pub fn early<P: Ports>(&mut self, flight: &Flight<P>) -> Result<Early, Fault> {
        let head = self.normaliser.head()?;
        let comment = Bytes::from(self.normaliser.keep_alive()?);
        Ok(((head.status, flight.headers(head.headers)), comment))
    }

    /// Makes the renderer of the answer.
    fn start<P: Ports>(&mut self, flight: &Flight<P>) -> Result<(), Fault> {
        let (id, created) = match &flight.begins {
            Some(begins) => (begins.id.clone(), begins.created),
            None => (http::id(flight.ports.random()), flight.ports.unix_time().as_secs()),
        };
        let start =
            AnswerStart { render: std::mem::take(&mut self.render), id, created, model: self.request.model.clone() };
        self.normaliser.start(&self.dialect, start)
    }

    /// Tries the targets in order until one answers.
    pub async fn run<P: Ports>(mut self, mut flight: Flight<P>, writer: &Writer) -> Ended {
        let gateway = Arc::clone(&self.gateway);
        let config = Arc::clone(&gateway.config);
        let client_model = self.request.model.clone();
        let route = match config.route(&client_model) {
            Ok(route) => route,
            Err(_) => return self.fail(flight, gateway.unknown_model(&client_model), writer).await,
        };
        if matches!(&self.request.input, Input::Chat(messages) if messages.is_empty()) {
            return self.nothing(flight, writer).await;
        }
        let mut found = match self.look(&mut flight, &route).await {
            Ok(found) => found,
            Err(failed) => return self.fail(flight, failed, writer).await,
        };
        let mut again = 0;
        loop {
            let answered = match found.hit() {
                Some(stored) => self.replay(&mut flight, stored, writer).await,
                None => self.targets(&mut flight, &route, &client_model, writer).await,
            };
            match answered {
                Ok(Ended::Again(parsed)) if again < MOST_AGAIN => {
                    again += 1;
                    self.forgo(&mut found, true);
                    if std::mem::take(&mut flight.record.cached) {
                        flight.record.usage = None;
                        flight.cache = Some(Told::Miss);
                    }
                    self.request = Arc::new(parsed.request);
                    self.render = parsed.render;
                    flight.discard(true);
                    let served = Some(client_model.as_str());
                    match gateway.apply_policies(&mut flight, &self.dialect, &mut self.request, served) {
                        Ok(passed) => self.watches = passed.watches,
                        Err(failed) => return self.fail(flight, failed, writer).await,
                    }
                    if let Err(fault) = self.start(&flight) {
                        return self.fail(flight, Failed::fault(&fault, None), writer).await;
                    }
                }
                Ok(Ended::Again(_)) => {
                    let fault = Fault { component: "normaliser".to_owned(), what: "asked again and again".to_owned() };
                    return self.fail(flight, Failed::fault(&fault, None), writer).await;
                }
                Ok(ended) => {
                    let fresh = self.fresh(&flight, &mut found);
                    let status = if flight.record.status == 0 { 200 } else { flight.record.status };
                    // It is complete, whether or not its client waits for what is kept of it.
                    flight.end(status, if status < 400 { Outcome::Complete } else { Outcome::Failed });
                    let documents = std::mem::take(&mut self.keep);
                    if fresh.is_some() || !documents.is_empty() {
                        let (request_id, _place) = (flight.record.request_id.clone(), flight.place.take());
                        let keep = Keep { gateway, request_id, documents, fresh, _place };
                        Keeping::new(Arc::clone(&flight.ports), keep).end().await;
                    }
                    return ended;
                }
                Err(failed) => {
                    self.forgo(&mut found, false);
                    return self.fail(flight, failed, writer).await;
                }
            }
        }
    }

    /// A conversation without a message: the client only wants to know that the model is there (Ollama's clients have it
    /// loaded so). No backend is asked.
    async fn nothing<P: Ports>(mut self, mut flight: Flight<P>, writer: &Writer) -> Ended {
        let rendered = self.normaliser.feed(vec![Event::Done]).and_then(|body| Ok((self.normaliser.head()?, body)));
        match rendered {
            Ok((head, body)) => {
                flight.end(head.status, Outcome::Complete);
                Ended::Whole(flight.respond(head.status, head.headers, Bytes::from(body)))
            }
            Err(fault) => self.fail(flight, Failed::fault(&fault, None), writer).await,
        }
    }

    /// Tells the client of a failure: as an answer of its own where nothing has been given yet, else in the stream.
    pub async fn fail<P: Ports>(mut self, mut flight: Flight<P>, failed: Failed, writer: &Writer) -> Ended {
        if failed.provider.is_some() || failed.status >= 500 {
            flight.record.cause = Some(cause::of(&failed, &self.request));
        }
        let failure = failed.render(&flight.record.request_id, flight.attempts());
        if !writer.committed() {
            // An instance that is broken answers in no shape at all; a fresh one does in the dialect's usual one.
            let own = self.normaliser.refuse(&failure).ok().flatten();
            return Ended::Whole(match own {
                Some(rendered) => flight.refused(failed, rendered.status, rendered.headers, rendered.body.into()),
                None => flight.refuse(&self.gateway, &self.dialect, failed),
            });
        }
        flight.record.error_type = Some(failed.error_type.to_owned());
        flight.record.status = 200;
        // Where even that fails the stream just ends, without its terminal event: clients take that as an error too.
        if let Ok(bytes) = self.normaliser.fail(&failure) {
            writer.write(Bytes::from(bytes)).await;
        }
        flight.end(200, Outcome::Failed);
        Ended::Streamed
    }

    /// One target: encode, sign, send, and give the answer to the client.
    pub(crate) async fn attempt<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        provider: &Provider,
        settings: (&serde_json::Value, &str),
        (lease, key): (&mut Lease, usize),
        writer: &Writer,
    ) -> Result<Ended, Attempt> {
        let ports = Arc::clone(&flight.ports);
        let request_id = flight.record.request_id.clone();
        let gateway = Arc::clone(&self.gateway);
        let call = Call {
            gateway: &gateway,
            ports: ports.as_ref(),
            provider,
            settings,
            endpoint: lease.at(),
            key,
            request_id: &request_id,
        };
        let policy = |fault: Fault| {
            call.ports.warn(&Warning::Fault { request_id: call.request_id, fault: &fault });
            Failed::fault(&fault, None)
        };
        // First: where one cannot be made, no backend is asked.
        let watchers = gateway.watchers(ports.as_ref(), &request_id, &self.watches, &self.request.input);
        let watchers = watchers.map_err(|fault| Attempt::Before(policy(fault)))?;
        let asked = (&self.request, self.traceparent.clone(), flight.start);
        let mut reply = Reply::open(call, asked, &mut flight.record.dropped).await.map_err(Attempt::Before)?;
        lease.answered = true;
        if let Some((recorder, _)) = &mut self.recorder {
            recorder.restart();
        }
        let mut sink = Sink {
            order: Order::new(&self.request.input),
            watchers,
            watched: Order::new(&self.request.input),
            held: Vec::new(),
            content: false,
            body: None,
        };
        loop {
            let events = reply.events(sink.content).await.map_err(|failed| sink.attempt(failed))?;
            let taken = sink.take(self, flight, provider, events, writer, &mut reply.exchange).await;
            let done = taken.map_err(|refused| match refused {
                Refused::Fault(fault) => sink.attempt(call.fault(&fault)),
                Refused::Policy(fault) => sink.attempt(policy(fault)),
                Refused::Failed(failed) => sink.attempt(failed),
            })?;
            if sink.content {
                lease.served(ports.now());
            }
            if done {
                break;
            }
        }
        let whole = sink.body.take();
        self.ended(flight, whole).map_err(|fault| sink.attempt(call.fault(&fault)))
    }

    /// The answer is complete: what remains to be done. `whole` is one that is not streamed.
    pub(crate) fn ended<P: Ports>(&mut self, flight: &mut Flight<P>, whole: Option<Bytes>) -> Result<Ended, Fault> {
        if self.follow {
            let ending = self.normaliser.end()?;
            self.keep.extend(ending.keep.into_iter().map(|kept| Document { at: flight.own(kept.at), ..kept }));
            if let Some(again) = ending.again.filter(|_| !self.request.stream) {
                return Ok(Ended::Again(Box::new(again)));
            }
        }
        let Some(body) = whole else { return Ok(Ended::Streamed) };
        let head = self.normaliser.head()?;
        flight.record.status = head.status;
        Ok(Ended::Whole(flight.respond(head.status, head.headers, body)))
    }
}

/// What one question to a backend needs.
pub(crate) struct Call<'p, P: Ports> {
    pub gateway: &'p Gateway,
    pub ports: &'p P,
    pub provider: &'p Provider,
    /// The settings that count for it, also as text.
    pub settings: (&'p serde_json::Value, &'p str),
    /// Which of the provider's endpoints.
    pub endpoint: usize,
    /// Which of its keys.
    pub key: usize,
    pub request_id: &'p str,
}

impl<P: Ports> Clone for Call<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Ports> Copy for Call<'_, P> {}

impl<P: Ports> Call<'_, P> {
    /// Reports what a component did.
    pub fn fault(&self, fault: &Fault) -> Failed {
        self.ports.warn(&Warning::Fault { request_id: self.request_id, fault });
        Failed::fault(fault, Some(&self.provider.name))
    }
}

/// A backend's answer, as events.
pub(crate) struct Reply<'p, P: Ports> {
    call: Call<'p, P>,
    exchange: Exchange<'p, P>,
    framer: Framer,
    adapter: P::Adapter,
    frames: Vec<Frame>,
    /// What an error answer's headers say of another try.
    hint: Hint,
}

impl<'p, P: Ports> Reply<'p, P> {
    /// Encodes, signs and sends; the answer's head has come. What the adapter left out is added to `dropped`.
    pub async fn open(
        call: Call<'p, P>,
        (request, traceparent, start): (&Arc<witgate_model::Request>, Option<String>, Duration),
        dropped: &mut Vec<String>,
    ) -> Result<Self, Failed> {
        let Call { gateway, ports, provider, settings: (settings, text), .. } = call;
        let fault = |fault: Fault| call.fault(&fault);
        let mut adapter = ports.adapter(&provider.name).map_err(fault)?;
        let encoded = adapter.encode(text, request).map_err(fault)?;
        let mut asked = encoded.map_err(|error| Failed::provider(error, provider))?;
        let region = region(&asked.auth, settings).map(str::to_owned);
        if region.is_none() && matches!(asked.auth, Auth::AwsSigv4(_)) {
            let message = format!(
                "provider \"{}\" has no AWS region: set settings.region, or the variable AWS_REGION",
                provider.name
            );
            return Err(Failed::ours(500, "api_error", "no_region", message));
        }
        let endpoints = endpoints(provider, settings, region.as_deref(), &adapter);
        let Some(endpoint) = endpoints.get(call.endpoint) else {
            let message = format!("provider \"{}\" has no endpoint", provider.name);
            return Err(Failed::ours(500, "api_error", "no_endpoint", message));
        };
        let (framing, context) = (asked.framing.clone(), asked.context.take());
        let left_out = std::mem::take(&mut asked.dropped);
        let prepared =
            sign::prepare(provider, endpoint, (region.as_deref(), call.key), asked, traceparent).map_err(fault)?;
        *dropped = left_out;
        let mut exchange = if prepared.is_signed() {
            let signed_at = gateway.clocks.time(&provider.name, ports.unix_time());
            let signed = prepared.signed(ports, provider, signed_at).await?;
            let exchange = Exchange::send(ports, provider, signed, request.stream, start).await?;
            let (clocks, now) = (&gateway.clocks, ports.unix_time());
            if clocks.learn(&provider.name, exchange.status, &exchange.headers, signed_at, now) {
                drop(exchange);
                let signed = prepared.signed(ports, provider, clocks.time(&provider.name, now)).await?;
                Exchange::send(ports, provider, signed, request.stream, start).await?
            } else {
                exchange
            }
        } else {
            Exchange::send(ports, provider, prepared.unsigned(), request.stream, start).await?
        };
        let framing = effective(&framing, exchange.status, http::header(&exchange.headers, "content-type"));
        let limits = witgate_framing::Limits {
            max_frame_bytes: gateway.config.limits.max_frame_bytes,
            max_body_bytes: gateway.config.limits.max_response_bytes,
        };
        let framer = Framer::new(&framing, limits).map_err(|error| {
            fault(Fault { component: component(provider), what: format!("asked for a framing: {error}") })
        })?;
        let hint = match exchange.status {
            200..300 => Hint::default(),
            _ => Hint::of(&exchange.headers, ports.unix_time()),
        };
        let head = ResponseHead {
            status: exchange.status,
            headers: std::mem::take(&mut exchange.headers),
            framing,
            stream: request.stream,
        };
        adapter.start(text, context, head).map_err(fault)?;
        Ok(Reply { call, exchange, framer, adapter, frames: Vec::new(), hint })
    }

    /// The events of the next network read, perhaps none; the last of all is `done` or `failed`. `content`: some has
    /// gone to the client.
    pub async fn events(&mut self, content: bool) -> Result<Vec<Event>, Failed> {
        let chunk = self.exchange.chunk(content).await?;
        let framed = match &chunk {
            Some(chunk) => self.framer.push(chunk, &mut self.frames),
            None => self.framer.finish(&mut self.frames),
        };
        let name = &self.call.provider.name;
        let fault = |fault: Fault| self.call.fault(&fault);
        let mut events = Vec::new();
        if !self.frames.is_empty() {
            events = self.adapter.feed(std::mem::take(&mut self.frames)).map_err(fault)?;
        }
        if !events.last().is_some_and(Event::is_last) {
            if let Err(error) = framed {
                let message = format!("provider \"{name}\" sent an answer that cannot be read: {error}");
                events.push(Event::Failed(witgate_model::Error::malformed(message)));
            } else if chunk.is_none() {
                events.extend(self.adapter.finish().map_err(fault)?);
                if !events.last().is_some_and(Event::is_last) {
                    let message = format!("provider \"{name}\" ended its answer early");
                    events.push(Event::Failed(witgate_model::Error::malformed(message)));
                }
            }
        }
        if let Some(Event::Failed(error)) = events.last_mut() {
            self.hint.apply(error);
        }
        Ok(events)
    }

    /// All events of an answer that is not streamed, checked.
    pub async fn all(mut self, input: &Input) -> Result<Vec<Event>, Failed> {
        let mut order = Order::new(input);
        let mut all = Vec::new();
        while !order.ended() {
            for event in self.events(false).await? {
                order
                    .next(&event)
                    .map_err(|what| self.call.fault(&Fault { component: component(self.call.provider), what }))?;
                match event {
                    Event::Failed(error) => return Err(Failed::provider(error, self.call.provider)),
                    event => all.push(event),
                }
            }
        }
        Ok(all)
    }
}

/// Why events were not taken.
enum Refused {
    Fault(Fault),
    /// A policy's: it would fail whatever target were asked.
    Policy(Fault),
    Failed(Failed),
}

/// Takes an answer's events: checks them, holds them back until there is content, renders them.
struct Sink<P: Ports> {
    order: Order,
    watchers: Watchers<P>,
    /// The order of what they let pass.
    watched: Order,
    /// Events before the first content: dropped where the attempt fails, since another target may answer.
    held: Vec<Event>,
    /// Content has gone to the client.
    content: bool,
    /// The whole answer, where it is not streamed.
    body: Option<Bytes>,
}

impl<P: Ports> Sink<P> {
    fn attempt(&self, failed: Failed) -> Attempt {
        if self.content { Attempt::After(failed) } else { Attempt::Before(failed) }
    }

    /// What the policies let pass of some events.
    fn watch(&mut self, flight: &Flight<P>, events: Vec<Event>) -> Result<Vec<Event>, Fault> {
        let id = &flight.record.request_id;
        let last = events.last().is_some_and(Event::is_last);
        let events = self.watchers.feed(flight.ports.as_ref(), id, events)?;
        let broke = |what: String| Fault { component: "a policy".to_owned(), what };
        for event in &events {
            self.watched.next(event).map_err(broke)?;
        }
        match last && !self.watched.ended() {
            true => Err(broke("kept the end of an answer back".to_owned())),
            false => Ok(events),
        }
    }

    /// Takes the events of one network read. True when the answer is complete.
    async fn take<N: Normaliser>(
        &mut self,
        run: &mut Run<N>,
        flight: &mut Flight<P>,
        provider: &Provider,
        mut events: Vec<Event>,
        writer: &Writer,
        answer: &mut Exchange<'_, P>,
    ) -> Result<bool, Refused> {
        if events.is_empty() {
            return Ok(false);
        }
        let mut content = false;
        flight.bill.see(&events);
        for event in &events {
            self.order.next(event).map_err(|what| Refused::Fault(Fault { component: component(provider), what }))?;
            content |= event.is_content();
            flight.note(&run.dialect, &run.request.dialect, event);
        }
        if let Some((recorder, _)) = &mut run.recorder {
            recorder.take(&events);
        }
        if content {
            answer.content(flight);
        }
        let mut ended = self.order.ended();
        if !self.watchers.is_empty() {
            events = self.watch(flight, events).map_err(Refused::Policy)?;
            content = events.iter().any(Event::is_content);
            ended = self.watched.ended();
        }
        let failed = match events.last() {
            Some(Event::Failed(_)) => match events.pop() {
                Some(Event::Failed(error)) => Some(Failed::provider(error, provider)),
                _ => None,
            },
            _ => None,
        };
        let done = ended && failed.is_none();
        let stream = run.request.stream;
        // Content in the very read that also brings a failure, and nothing given yet: the failure wins.
        if !self.content && (!(content || done) || failed.is_some() || (!stream && !done)) {
            self.held.append(&mut events);
        } else {
            let events = if self.held.is_empty() {
                events
            } else {
                self.held.append(&mut events);
                std::mem::take(&mut self.held)
            };
            if !events.is_empty() {
                let bytes = Bytes::from(run.normaliser.feed(events).map_err(Refused::Fault)?);
                if stream {
                    if !self.content {
                        self.content = true;
                        let head = run.normaliser.head().map_err(Refused::Fault)?;
                        writer.head(head.status, flight.headers(head.headers));
                        flight.record.status = head.status;
                    }
                    writer.write(bytes).await;
                } else {
                    self.body = Some(bytes);
                }
            }
        }
        match failed {
            Some(failed) => Err(Refused::Failed(failed)),
            None => Ok(done),
        }
    }
}

/// The names of an object's members, for the log: never their values.
fn names(members: &str) -> String {
    match serde_json::from_str::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(members) {
        Ok(members) => members.into_keys().take(16).collect::<Vec<_>>().join(","),
        Err(_) => "?".to_owned(),
    }
}

/// A request that was sent, with its deadlines.
struct Exchange<'p, P: Ports> {
    ports: &'p P,
    provider: &'p Provider,
    status: u16,
    headers: Vec<Field>,
    body: P::Body,
    /// When the whole request must have ended.
    total: Duration,
    /// When the first, or the next, token must have come. Of an answer that is not streamed, when the next piece of its body
    /// must have come; none before the first one, which comes when the whole answer is made.
    token: Option<Duration>,
    stream: bool,
}

impl<'p, P: Ports> Exchange<'p, P> {
    async fn send(
        ports: &'p P,
        provider: &'p Provider,
        request: UpstreamRequest,
        stream: bool,
        start: Duration,
    ) -> Result<Self, Failed> {
        let timeouts = &provider.timeouts;
        let total = start + timeouts.total;
        let token = stream.then(|| ports.now() + timeouts.first_token);
        let deadline = token.map_or(total, |token| token.min(total));
        let answer = match before(ports, deadline, ports.send(request)).await {
            None => {
                return Err(Self::timed_out(provider, total, token, false));
            }
            Some(Err(error)) => {
                return Err(Failed::transport(&error, &provider.name, timeouts.connect));
            }
            Some(Ok(answer)) => answer,
        };
        Ok(Exchange {
            ports,
            provider,
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            total,
            token,
            stream,
        })
    }

    fn timed_out(provider: &Provider, total: Duration, token: Option<Duration>, content: bool) -> Failed {
        let (timeout, limit) = match token {
            Some(token) if token < total && content => (Timeout::Idle, provider.timeouts.idle),
            Some(token) if token < total => (Timeout::FirstToken, provider.timeouts.first_token),
            _ => (Timeout::Total, provider.timeouts.total),
        };
        timeout.failure(&provider.name, limit)
    }

    /// The next piece of the body, `None` at its end.
    async fn chunk(&mut self, content: bool) -> Result<Option<Bytes>, Failed> {
        let deadline = self.token.map_or(self.total, |token| token.min(self.total));
        match before(self.ports, deadline, self.body.chunk()).await {
            None => Err(Self::timed_out(self.provider, self.total, self.token, content || !self.stream)),
            Some(None) => Ok(None),
            Some(Some(Ok(chunk))) => {
                if !self.stream {
                    self.token = Some(self.ports.now() + self.provider.timeouts.idle);
                }
                Ok(Some(chunk))
            }
            Some(Some(Err(_))) => {
                let error = TransportError::Broken("the answer ended early".to_owned());
                Err(Failed::transport(&error, &self.provider.name, self.provider.timeouts.connect))
            }
        }
    }

    /// Content has come: the wait for the next token begins.
    fn content(&mut self, flight: &mut Flight<P>) {
        let now = self.ports.now();
        if self.token.is_some() {
            self.token = Some(now + self.provider.timeouts.idle);
        }
        flight.record.first_token.get_or_insert(now.saturating_sub(flight.start));
    }
}
