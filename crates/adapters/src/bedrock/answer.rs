//! What the answers of all APIs have in common: their head, AWS's event streams, AWS's error bodies.

use witgate_model::{Error, Event, EventMessage, Frame, Framing, ResponseHead};

use super::error::{Fault, bare};

/// Largest body of a whole answer, in bytes.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// The start of an answer.
#[derive(Debug)]
pub(super) struct Head {
    status: u16,
    /// Not an event stream.
    pub whole: bool,
    /// `x-amzn-errortype`, cut to the name.
    error_type: Option<String>,
    request_id: Option<String>,
}

impl Head {
    pub fn new(head: &ResponseHead) -> Self {
        Head {
            status: head.status,
            whole: head.framing != Framing::AwsEventstream,
            error_type: header(head, "x-amzn-errortype")
                .map(|name| bare(name).to_owned())
                .filter(|name| !name.is_empty()),
            request_id: header(head, "x-amzn-requestid").map(str::to_owned),
        }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A success answer that does not say it is an error.
    pub fn is_answer(&self) -> bool {
        self.is_success() && self.error_type.is_none()
    }

    pub fn malformed(&self, message: impl std::fmt::Display) -> Error {
        let id = self.request_id.as_deref().map(|id| format!(" (AWS request id {id})")).unwrap_or_default();
        Error::malformed(format!("Bedrock's answer is malformed: {message}{id}"))
    }

    /// Adds a piece of a body.
    pub fn collect(&self, body: &mut Vec<u8>, bytes: Vec<u8>) -> Result<(), Error> {
        if body.len().saturating_add(bytes.len()) > LARGEST_BODY {
            return Err(self.malformed(format_args!("the body has more than {LARGEST_BODY} bytes")));
        }
        if body.is_empty() {
            *body = bytes;
        } else {
            body.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The type of an event; an error for every message that is none.
    pub fn event<'m>(&self, message: &'m EventMessage) -> Result<&'m str, Error> {
        let header = |name: &str| message.headers.iter().find(|(header, _)| header == name).map(|(_, v)| v.as_str());
        match header(":message-type") {
            Some("event") => {
                header(":event-type").ok_or_else(|| self.malformed("an event without the header :event-type"))
            }
            Some("exception") => {
                let mut fault = Fault::of_body(&message.payload);
                fault.name = header(":exception-type").map(|name| bare(name).into()).or(fault.name);
                fault.request_id = self.request_id.as_deref();
                Err(fault.into_error())
            }
            Some("error") => Err(Fault {
                name: header(":error-code").map(|name| bare(name).into()),
                message: header(":error-message").map(Into::into),
                request_id: self.request_id.as_deref(),
                ..Fault::default()
            }
            .into_error()),
            Some(other) => Err(self.malformed(format_args!("a message of the unknown type `{other}`"))),
            None => Err(self.malformed("a message without the header :message-type")),
        }
    }

    /// A body that is not an answer.
    pub fn error_body(&self, body: &[u8]) -> Error {
        if self.is_success() && body.iter().all(u8::is_ascii_whitespace) {
            return self.malformed("the body is empty");
        }
        let mut fault = Fault::of_body(body);
        fault.name = self.error_type.as_deref().map(Into::into).or(fault.name);
        fault.request_id = self.request_id.as_deref();
        if self.is_success() && fault.name.is_none() {
            let words = fault.message.as_deref().unwrap_or("neither an answer of this API nor an error");
            return self.malformed(words);
        }
        fault.status = (!self.is_success()).then_some(self.status);
        fault.into_error()
    }
}

/// The value of a header of the answer.
pub(super) fn header<'h>(head: &'h ResponseHead, name: &str) -> Option<&'h str> {
    head.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}

/// What has come of an answer of one of Bedrock's own APIs.
#[derive(Debug)]
pub(super) struct Arrived {
    pub head: Head,
    /// What came whole, or an error.
    body: Vec<u8>,
    messages: u64,
    /// The last event has been told.
    pub ended: bool,
}

impl Arrived {
    pub fn new(head: Head) -> Self {
        Arrived { head, body: Vec::new(), messages: 0, ended: false }
    }
}

/// An API whose answers come as AWS event streams, or whole.
pub(super) trait Api {
    fn arrived(&mut self) -> &mut Arrived;

    /// One message of the stream.
    fn message(&mut self, message: EventMessage, events: &mut Vec<Event>) -> Result<(), Error>;

    /// A body that came whole: an error, or an answer.
    fn whole(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), Error>;

    /// The stream has ended without a last event.
    fn cut_off(&mut self, events: &mut Vec<Event>) -> Result<(), Error>;

    /// What is told in front of a failure.
    fn spent(&self) -> Option<Event> {
        None
    }

    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut events = Vec::with_capacity(frames.len() + 2);
        for frame in frames {
            if self.arrived().ended {
                break;
            }
            let arrived = self.arrived();
            let result = match frame {
                Frame::Bytes(bytes) => arrived.head.collect(&mut arrived.body, bytes),
                Frame::Message(message) => {
                    arrived.messages += 1;
                    self.message(message, &mut events)
                }
                Frame::Sse(_) | Frame::Line(_) => {
                    Err(arrived.head.malformed("it came as text lines, not as an AWS event stream"))
                }
            };
            self.told(result, &mut events);
        }
        events
    }

    fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let arrived = self.arrived();
        if arrived.ended {
            return events;
        }
        let result = if arrived.head.whole || !arrived.head.is_success() || !arrived.body.is_empty() {
            let body = std::mem::take(&mut arrived.body);
            self.whole(&body, &mut events)
        } else if arrived.messages == 0 {
            Err(arrived.head.malformed("status 200, but not one event"))
        } else {
            self.cut_off(&mut events)
        };
        self.told(result, &mut events);
        events
    }

    /// Tells a failure; nothing may follow.
    fn told(&mut self, result: Result<(), Error>, events: &mut Vec<Event>) {
        if let Err(error) = result {
            self.arrived().ended = true;
            events.extend(self.spent());
            events.push(Event::Failed(error));
        }
    }
}
