//! Amazon SQS as a [`Broker`].
//!
//! Its JSON protocol (`AmazonSQS.ReceiveMessage` and four more), signed and sent as everything else is that goes to AWS:
//! by `sign.rs` with the credentials that the host already has, over [`Ports::send`]. The crate `aws-sdk-sqs` would be a
//! second HTTP client with TLS, retries and a runtime of its own beside that one, for five small requests; and it could not
//! run in a simulated world.
//!
//! A receive waits for `queues.NAME.wait` at the service (long poll). An answer goes out with its attributes as the
//! message's; into a FIFO queue with the job's id as its deduplication id, so that one that is sent twice arrives once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use witgate_config::{Queue, Sqs as Config};

use super::consume::{Broker, BrokerError, Message, Parcel};
use crate::aws::Clocks;
use crate::path::before;
use crate::ports::{Ports, UpstreamBody, UpstreamRequest};
use crate::sign;

/// How long SQS may take, beside what it is asked to wait.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// The most messages of one receive.
const MOST: usize = 10;
/// The largest answer of SQS: its messages together have 1 MiB at most, in JSON up to six times that.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// The largest body that is sent: what every queue takes with its attributes.
const MAX_BODY: usize = 250 * 1024;
/// The longest time that a message can be hidden.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// A queue of Amazon SQS.
pub struct Sqs<P> {
    ports: Arc<P>,
    config: Config,
    visibility: Duration,
    wait: Duration,
    /// Whose the requests are, for credentials and clocks.
    name: String,
    clocks: Clocks,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    messages: Option<Vec<One>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct One {
    message_id: String,
    receipt_handle: String,
    body: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    approximate_receive_count: Option<String>,
    message_group_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Fault {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

/// What a call came to that failed.
enum Refusal {
    /// SQS refuses it under this name.
    Refused(String, BrokerError),
    Failed(BrokerError),
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Refused(_, error) | Refusal::Failed(error) => error,
        }
    }
}

impl<P: Ports> Sqs<P> {
    /// The queue of this configuration.
    pub fn new(ports: Arc<P>, queue: &Queue, config: &Config) -> Self {
        Sqs {
            ports,
            config: config.clone(),
            visibility: queue.visibility,
            wait: queue.wait,
            name: format!("queues.{}", queue.name),
            clocks: Clocks::default(),
        }
    }

    /// Asks the service of a queue; again where it only refuses our clock.
    async fn call(&self, action: &str, queue: &str, mut body: Value, wait: Duration) -> Result<Bytes, Refusal> {
        if let Some(members) = body.as_object_mut() {
            members.insert("QueueUrl".to_owned(), queue.into());
        }
        let body = Bytes::from(body.to_string());
        let failed = |what: String| Refusal::Failed(BrokerError(format!("{action}: {what}")));
        let late = || failed(format!("no answer within {} s", (wait + TIMEOUT).as_secs()));
        let deadline = self.ports.now() + wait + TIMEOUT;
        let ask = async {
            match self.ask(action, queue, &body).await? {
                Err(_) if self.ports.now() >= deadline => Err(late()),
                Err(Retry) => {
                    self.ask(action, queue, &body).await?.map_err(|Retry| failed("refuses our clock".to_owned()))
                }
                Ok(answer) => Ok(answer),
            }
        };
        before(self.ports.as_ref(), deadline, ask).await.unwrap_or_else(|| Err(late()))
    }

    async fn ask(&self, action: &str, queue: &str, body: &Bytes) -> Result<Result<Bytes, Retry>, Refusal> {
        let failed = |what: &dyn std::fmt::Display| Refusal::Failed(BrokerError(format!("{action}: {what}")));
        // The service's own address: scheme and host of the queue's.
        let end = queue.match_indices('/').nth(2).map_or(queue.len(), |(at, _)| at);
        let mut request = UpstreamRequest {
            provider: String::new(),
            method: "POST".to_owned(),
            url: format!("{}/", queue.get(..end).unwrap_or(queue)),
            headers: vec![
                ("content-type".to_owned(), "application/x-amz-json-1.0".to_owned()),
                ("x-amz-target".to_owned(), format!("AmazonSQS.{action}")),
            ],
            body: body.clone(),
            connect_timeout: CONNECT,
            public_only: false,
        };
        let now = self.ports.unix_time();
        let signed = self.clocks.time(&self.name, now);
        let ports = self.ports.as_ref();
        sign::sqs(ports, &self.config, &self.name, &mut request, signed).await.map_err(|why| failed(&why))?;
        let mut answer = ports.send(request).await.map_err(|error| failed(&error))?;
        let mut all = Vec::new();
        while let Some(chunk) = answer.body.chunk().await {
            let chunk = chunk.map_err(|error| failed(&error))?;
            if all.len() + chunk.len() > MAX_ANSWER {
                return Err(failed(&format!("an answer of over {MAX_ANSWER} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        if answer.status == 200 {
            return Ok(Ok(Bytes::from(all)));
        }
        let fault: Fault = serde_json::from_slice(&all).unwrap_or_default();
        let kind = fault.kind.rsplit('#').next().unwrap_or_default();
        let mut headers = answer.headers;
        headers.push(("x-amzn-errortype".to_owned(), kind.to_owned()));
        if self.clocks.learn(&self.name, answer.status, &headers, signed, self.ports.unix_time()) {
            return Ok(Err(Retry));
        }
        let message: String = fault.message.chars().take(256).collect();
        let error = BrokerError(format!("{action}: {} {kind} {message}", answer.status));
        Err(if kind.is_empty() { Refusal::Failed(error) } else { Refusal::Refused(kind.to_owned(), error) })
    }

    /// As `call`, of a message that is ours; false where it is no more.
    async fn of_ours(&self, action: &str, message: &Message, mut body: Value) -> Result<bool, BrokerError> {
        if let Some(members) = body.as_object_mut() {
            members.insert("ReceiptHandle".to_owned(), message.receipt.as_str().into());
        }
        match self.call(action, &self.config.url, body, Duration::ZERO).await {
            Ok(_) => Ok(true),
            Err(Refusal::Refused(kind, _)) if is_gone(&kind) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// The signature was refused for its time; the next one has another.
struct Retry;

/// Whether a refusal says that a receive of a message counts no more.
fn is_gone(kind: &str) -> bool {
    let kind = kind.rsplit('.').next().unwrap_or_default();
    matches!(kind, "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue" | "InvalidIdFormat")
}

impl<P: Ports> Broker for Sqs<P> {
    const AT_ONCE: bool = false;
    const SHORT: bool = false;

    async fn receive(&self, most: usize) -> Result<Vec<Message>, BrokerError> {
        let body = json!({
            "MaxNumberOfMessages": most.clamp(1, MOST), "WaitTimeSeconds": self.wait.as_secs(),
            "VisibilityTimeout": self.visibility.as_secs(),
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "MessageGroupId"],
        });
        let answer = self.call("ReceiveMessage", &self.config.url, body, self.wait).await?;
        let received: Received = serde_json::from_slice(&answer)
            .map_err(|error| BrokerError(format!("ReceiveMessage: an answer that cannot be read: {error}")))?;
        let messages = received.messages.unwrap_or_default().into_iter().map(|one| Message {
            id: one.message_id,
            receipt: one.receipt_handle,
            body: one.body.map(Bytes::from).ok_or_else(|| "the message has no body".to_owned()),
            receives: one.attributes.approximate_receive_count.and_then(|count| count.parse().ok()).unwrap_or(1),
            group: one.attributes.message_group_id,
        });
        Ok(messages.collect())
    }

    async fn extend(&self, message: &Message) -> Result<bool, BrokerError> {
        let body = json!({"VisibilityTimeout": self.visibility.as_secs()});
        self.of_ours("ChangeMessageVisibility", message, body).await
    }

    fn takes(&self, body: &[u8]) -> bool {
        // The characters that SQS takes are those of XML.
        let taken =
            |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
        (1..=MAX_BODY).contains(&body.len()) && std::str::from_utf8(body).is_ok_and(|text| text.chars().all(taken))
    }

    async fn send(&self, message: &Message, parcel: &Parcel) -> Result<(), BrokerError> {
        let attribute =
            |(name, value): &(&str, String)| ((*name).to_owned(), json!({"DataType": "String", "StringValue": value}));
        let attributes: serde_json::Map<_, _> = parcel.attributes.iter().map(attribute).collect();
        let mut body = json!({"MessageBody": String::from_utf8_lossy(&parcel.body), "MessageAttributes": attributes});
        if let Some(members) = body.as_object_mut().filter(|_| parcel.to.ends_with(".fifo")) {
            members.insert("MessageGroupId".to_owned(), message.group.as_ref().unwrap_or(&message.id).as_str().into());
            members.insert("MessageDeduplicationId".to_owned(), parcel.once.as_str().into());
        }
        self.call("SendMessage", &parcel.to, body, Duration::ZERO).await?;
        Ok(())
    }

    async fn done(&self, message: &Message) -> Result<(), BrokerError> {
        // One that is ours no more comes again, and its answer is known then.
        self.of_ours("DeleteMessage", message, json!({})).await.map(drop)
    }

    async fn give_back(&self, message: &Message, pause: Duration) -> Result<(), BrokerError> {
        let seconds = pause.min(LONGEST).as_millis().div_ceil(1_000) as u64;
        self.of_ours("ChangeMessageVisibility", message, json!({"VisibilityTimeout": seconds})).await.map(drop)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}
