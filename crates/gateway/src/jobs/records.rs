//! Queue events: a Lambda function's `Records`, each with a request of its own, of SQS or SNS.
//!
//! Each record is a request of the dialect whose route the event came to, `jobs.batch_concurrency` at once. The answer has
//! one result for each record, in their order, and `batchItemFailures` names those whose failure may pass (408, 429, 5xx):
//! the queue brings them again. Any other failure is a result like a success: bringing it again would change nothing.
//!
//! A message's id stands for one result of its owner: when the queue brings a message twice, the result of the first time
//! is given again, and no backend is asked. A message that somebody asks for at this moment fails for now.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use witgate_model::Field;

use super::serve::{invalid, told};
use super::store::{Store, millis};
use super::work::may_pass;
use super::{Behalf, Unkept, hash, unavailable};
use crate::bill::{Debt, longest};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, Body, Request, RequestBody, Response};
use crate::path::Flight;
use crate::ports::Ports;
use crate::routes::{self, Endpoint};
use crate::state::StateError;

/// The dialects whose services were Lambda functions behind queues.
const DIALECTS: [&str; 2] = ["llm-exe", "llm-invocation"];
/// Most records of one event: as many as SQS gives at most.
const MOST: usize = 10_000;
/// How much longer than a request may take its message is nobody else's.
const SLACK: Duration = Duration::from_secs(60);

/// An event, as far as it is looked at.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
}

/// A record.
#[derive(Deserialize)]
struct Of<'a> {
    #[serde(rename = "messageId")]
    message_id: Option<String>,
    /// Of SQS: the payload as text.
    body: Option<String>,
    /// Of SNS.
    #[serde(rename = "Sns")]
    sns: Option<Sns>,
    /// Of S3: an object that this gateway does not read.
    #[serde(borrow)]
    s3: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Sns {
    #[serde(rename = "MessageId")]
    message_id: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
}

/// What is known of a message.
#[derive(Serialize, Deserialize)]
struct Known {
    /// Who asks.
    run: String,
    /// Of the payload.
    hash: String,
    /// When it counts as given up, where there is no result: milliseconds since 1970.
    until: u64,
    /// Status and length of the result.
    result: Option<(u16, usize)>,
    /// What the result is to be settled with.
    #[serde(default)]
    owed: Option<Debt>,
}

/// The records of an event; none where it is no such event.
fn read(body: &Bytes) -> Option<Vec<Bytes>> {
    // Most bodies are no events: they are not parsed for that.
    body.windows(9).any(|window| window == b"\"Records\"").then_some(())?;
    let records = serde_json::from_slice::<Event<'_>>(body).ok()?.records?;
    let records: Vec<_> = records.into_iter().map(|record| body.slice_ref(record.get().as_bytes())).collect();
    (!records.is_empty()).then_some(records)
}

impl Gateway {
    /// The dialect of a request that may be a queue event.
    pub(crate) fn of_queue<B>(&self, request: &Request<B>) -> Option<String> {
        match routes::find(&self.routes, &request.method, &request.path) {
            Ok(Endpoint::Dialect(dialect)) if DIALECTS.contains(&dialect) => Some(dialect.to_owned()),
            _ => None,
        }
    }

    /// Serves a request that may be a queue event.
    pub(crate) async fn serve_records<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        dialect: &str,
        request: Request<B>,
    ) -> Response<impl Stream<Item = Bytes> + use<P, B>> {
        let mut flight = Flight::new(Arc::clone(ports), &request);
        flight.record.dialect = Some(dialect.to_owned());
        let Request { method, path, query, headers, body } = request;
        let read = async {
            let asked = Request { method: method.clone(), path: path.clone(), query: query.clone(), headers, body: () };
            self.authenticate(&mut flight, &asked, Some(dialect)).await?;
            flight.place = Some(self.admit()?);
            let body = self.body(body, &asked.headers).await?;
            Ok((asked.headers, body))
        };
        let (mut headers, body) = match read.await {
            Ok(read) => read,
            Err(failed) => return flight.refuse(self, dialect, failed).response(),
        };
        let Some(records) = self::read(&body) else {
            // It is decoded by now.
            headers.retain(|(name, _)| name != "content-encoding" && name != "content-length");
            flight.forget();
            return self.answer(ports, Request { method, path, query, headers, body }, None).await;
        };
        if records.len() > MOST {
            let failed = invalid("Records", format!("has {} entries; at most {MOST} are taken", records.len()));
            return flight.refuse(self, dialect, failed).response();
        }
        // The records take places of their own.
        flight.place = None;
        let request_id = flight.record.request_id.clone();
        let asked = records.into_iter().enumerate().map(|(number, record)| {
            let request_id = format!("{request_id}-{}", number + 1);
            self.record(ports, &flight, &path, request_id, record)
        });
        let results: Vec<_> = stream::iter(asked).buffered(self.config.jobs.batch_concurrency).collect().await;
        let mut failures = Vec::new();
        let mut all = Vec::with_capacity(results.len());
        for (number, (id, status, result)) in results.into_iter().enumerate() {
            if may_pass(status) {
                failures.push(json!({"itemIdentifier": id.unwrap_or_else(|| number.to_string())}));
            }
            all.push(result);
        }
        told(&mut flight, 200, Vec::new(), &json!({"results": all, "batchItemFailures": failures})).response()
    }

    /// Asks what one record asks: its message's id, the status, the result.
    async fn record<P: Ports>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        flight: &Flight<P>,
        path: &str,
        request_id: String,
        record: Bytes,
    ) -> (Option<String>, u16, Value) {
        let wrong = |message: &str| (400, json!({"statusCode": 400, "body": {"error": format!("400: {message}")}}));
        let of: Of<'_> = match serde_json::from_slice(&record) {
            Ok(of) => of,
            Err(error) => {
                let (status, result) = wrong(&format!("the record cannot be read: {error}"));
                return (None, status, result);
            }
        };
        let (id, payload) = match of.sns {
            Some(sns) => (sns.message_id, sns.message),
            None => (of.message_id, of.body),
        };
        let Some(payload) = payload else {
            let (status, result) = match of.s3 {
                Some(_) => wrong("objects of S3 are not read here: send their content"),
                None => wrong("the record has neither `body` (SQS) nor `Sns.Message`"),
            };
            return (id, status, result);
        };
        let payload = Bytes::from(payload);
        let asked = match &id {
            Some(message) => self.record_once(ports, flight, path, request_id, message, payload).await,
            None => {
                let unkept = Unkept::new(ports);
                let (status, body) = self.record_asked(&unkept, flight, path, request_id, payload).await;
                if let Some(told) = unkept.take() {
                    self.tell(ports, told);
                }
                Ok((status, body))
            }
        };
        let (status, body) = asked.unwrap_or_else(|failed: Failed| {
            let error = format!("{}: {}", failed.status, failed.error.message);
            (failed.status, Bytes::from(json!({"statusCode": failed.status, "body": {"error": error}}).to_string()))
        });
        let result = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        (id, status, result)
    }

    /// Asks for a message, unless its result is known.
    async fn record_once<P: Ports>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        flight: &Flight<P>,
        path: &str,
        request_id: String,
        message: &str,
        payload: Bytes,
    ) -> Result<(u16, Bytes), Failed> {
        let store = Store(ports.as_ref());
        let owner = self.owner(flight);
        let name = hash(&[message.as_bytes()]);
        let key = format!("msg/{owner}/{name}");
        let pieces = format!("msgb/{owner}/{name}");
        let now = store.now();
        let until = now + longest(&self.config) + SLACK;
        let kept_until = until + self.config.jobs.kept_for;
        let run = http::id(ports.random());
        let mine =
            Known { run, hash: hash(&[path.as_bytes(), &payload]), until: millis(until), result: None, owed: None };
        let gone = |error: StateError| unavailable(&error);
        let ours = loop {
            let (known, bytes) = match store.first(&key, &mine, kept_until).await.map_err(gone)? {
                Ok(bytes) => break bytes,
                Err(known) => known,
            };
            if known.hash != mine.hash {
                let message = "the message's id was that of another message";
                return Err(Failed::ours(409, "invalid_request_error", "message_id_reused", message));
            }
            match known.result {
                Some((status, length)) => match store.pieces(&pieces, length).await.map_err(gone)? {
                    Some(body) => {
                        // Whoever kept the result may have died before it settled.
                        if let Some(debt) = &known.owed {
                            self.pay(ports.as_ref(), debt, kept_until).await.map_err(gone)?;
                        }
                        return Ok((status, body));
                    }
                    None => store.remove(&key).await.map_err(gone)?,
                },
                None if known.until > millis(now) => {
                    let message = "the message is being worked on; it fails for now";
                    return Err(Failed::ours(503, "overloaded_error", "message_in_progress", message));
                }
                None => {
                    if let Some(bytes) = store.swap(&key, Some(&bytes), &mine, kept_until).await.map_err(gone)? {
                        break bytes;
                    }
                }
            }
        };
        let unkept = Unkept::new(ports);
        let (status, body) = self.record_asked(&unkept, flight, path, request_id, payload).await;
        let owed = if may_pass(status) { None } else { unkept.debt() };
        let kept = async {
            if may_pass(status) {
                return store.remove(&key).await.map(|()| Some(false));
            }
            store.put(&pieces, &body, kept_until + SLACK).await?;
            let known = Known { result: Some((status, body.len())), owed: owed.clone(), ..mine };
            if store.swap(&key, Some(&ours), &known, kept_until).await?.is_none() {
                return Ok(None);
            }
            if let Some(debt) = &owed {
                self.pay(ports.as_ref(), debt, kept_until).await?;
            }
            Ok(Some(true))
        };
        let kept: Result<_, StateError> = kept.await;
        if let Err(error) = &kept {
            super::work::warn(ports.as_ref(), &flight.record.request_id, error);
        }
        match (unkept.take(), kept) {
            (Some(told), Ok(Some(true))) => self.tell_of(ports.as_ref(), &told.record),
            // Nobody knows how far it came: when the message comes again it is settled, or asked for again.
            (Some(told), Err(_)) if owed.is_some() => {
                self.tell_of(ports.as_ref(), &told.record);
                told.void(ports);
            }
            (Some(told), Ok(Some(false)) | Err(_)) => self.tell(ports, told),
            // Another run has the message by now.
            (Some(told), Ok(None)) => told.void(ports),
            (None, _) => {}
        }
        Ok((status, body))
    }

    /// Asks for a payload. What is to be told of it goes to `unkept`.
    async fn record_asked<P: Ports>(
        self: &Arc<Self>,
        unkept: &Unkept<'_, P>,
        flight: &Flight<P>,
        path: &str,
        request_id: String,
        payload: Bytes,
    ) -> (u16, Bytes) {
        let Some(client) = flight.client.clone() else { return (401, Bytes::new()) };
        let behalf = Behalf { client, job: None, told: unkept.told.clone(), start: None };
        let headers: Vec<Field> =
            vec![("content-type".to_owned(), "application/json".to_owned()), ("x-request-id".to_owned(), request_id)];
        let (method, path) = ("POST".to_owned(), path.to_owned());
        let request = Request { method, path, query: String::new(), headers, body: payload };
        let response = self.answer(unkept.ports, request, Some(behalf)).await;
        match response.body {
            Body::Whole(body) => (response.status, body),
            Body::Stream(_) => {
                let error = json!({"statusCode": 400, "body": {"error": "400: the answers to records are whole"}});
                (400, Bytes::from(error.to_string()))
            }
        }
    }
}
