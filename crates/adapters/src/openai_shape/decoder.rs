//! The decoder of all operations: what their answers have in common, and which of them it is.

use witgate_model::{Error, Event, Frame, ResponseHead, SseEvent};

use super::decode::Generation;
use super::responses::Responses;
use super::{COMPLETIONS, Flavour, embeddings, error, llm, models};

/// Most bytes of a whole answer.
const WHOLE: usize = 32 * 1024 * 1024;

/// Most bytes of an error answer that are looked at.
const ERROR_BODY: usize = 64 * 1024;

/// Most events for one frame, the contract's own bound.
const EVENTS: usize = 4096;

/// Decodes one answer of a backend that speaks the OpenAI shape.
///
/// What the request asked for is told by the encoder's context. An answer that is an error, or fails, ends in `failed`;
/// nothing follows an answer's last event.
#[derive(Debug)]
pub struct Decoder {
    head: ResponseHead,
    operation: Operation,
    /// The bytes of an answer that is not a stream.
    body: Vec<u8>,
    ended: bool,
}

/// What the answer is to.
#[derive(Debug)]
enum Operation {
    Generation(Box<Generation>),
    Responses(Box<Responses>),
    /// How many texts were sent.
    Embedding(usize),
    Models,
    Llm,
}

impl Decoder {
    /// A decoder for one answer; `context` is what the encoder gave.
    pub fn new(flavour: Flavour, context: Option<&str>, head: ResponseHead) -> Self {
        let mut context = context.unwrap_or_default().split(' ');
        let name = context.next().unwrap_or_default();
        let count = context.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        let operation = match name {
            "embedding" => Operation::Embedding(count),
            "models" => Operation::Models,
            "llm" => Operation::Llm,
            "responses" => Operation::Responses(Box::default()),
            "completion" => Operation::Generation(Box::new(Generation::new(flavour, COMPLETIONS, count))),
            _ => Operation::Generation(Box::new(Generation::new(flavour, super::CHAT, count))),
        };
        Decoder { head, operation, body: Vec::new(), ended: false }
    }

    /// Lifts what stands between `<tag>` and `</tag>` at the start of a message out of its text, as reasoning.
    #[must_use]
    pub fn lift(mut self, tag: Option<&str>) -> Self {
        if let (Operation::Generation(generation), Some(tag)) = (&mut self.operation, tag) {
            generation.lift(tag);
        }
        self
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    /// Tells the failure; nothing may follow.
    fn fail(&mut self, error: Error, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(error));
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Event>) -> Result<(), Error> {
        match frame {
            Frame::Sse(event) if self.is_success() => match &mut self.operation {
                Operation::Generation(generation) => generation.sse(event, out),
                Operation::Responses(responses) => responses.sse(&event, out),
                Operation::Embedding(_) | Operation::Models | Operation::Llm => {
                    Err(Error::malformed("the answer came as a stream, where one JSON object was expected"))
                }
            },
            Frame::Bytes(bytes) => {
                let most = if self.is_success() { WHOLE } else { ERROR_BODY };
                if self.body.is_empty() && bytes.len() <= most {
                    self.body = bytes;
                } else if self.is_success() && self.body.len() + bytes.len() > most {
                    return Err(Error::malformed(format!("the backend's answer has more than {most} bytes")));
                } else {
                    let room = most.saturating_sub(self.body.len()).min(bytes.len());
                    self.body.extend(bytes.into_iter().take(room));
                }
                Ok(())
            }
            Frame::Sse(SseEvent { data, .. }) | Frame::Line(data) if !self.is_success() => {
                self.frame(Frame::Bytes(data.into_bytes()), out)
            }
            Frame::Sse(_) | Frame::Line(_) | Frame::Message(_) => Err(Error::malformed(
                "the answer came in frames that this API does not have: server-sent events or one JSON object were expected",
            )),
        }
    }

    /// The whole answer, in one JSON value.
    fn whole(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        let body = std::mem::take(&mut self.body);
        let text = std::str::from_utf8(&body).map_err(|_| Error::malformed("the backend's answer is not UTF-8"))?;
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(Error::malformed("the backend's answer is empty"));
        }
        match &mut self.operation {
            Operation::Generation(generation) => generation.whole(text, out),
            Operation::Responses(responses) => responses.whole(text, out),
            Operation::Embedding(count) => embeddings::whole(text, *count, out),
            Operation::Models => models::whole(text, out),
            Operation::Llm => {
                llm::whole(text, out);
                Ok(())
            }
        }
    }

    /// The body has ended without a last event.
    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        match &mut self.operation {
            _ if !self.body.is_empty() => self.whole(out),
            Operation::Generation(generation) => generation.end(out),
            Operation::Responses(responses) => responses.end(),
            Operation::Embedding(_) | Operation::Models | Operation::Llm => {
                Err(Error::malformed("the backend's answer is empty"))
            }
        }
    }

    /// As [`feed`](witgate_model::Decoder::feed), to where the events are collected.
    pub(crate) fn take(&mut self, frames: impl IntoIterator<Item = Frame>, out: &mut Vec<Event>) {
        for frame in frames {
            if self.ended {
                break;
            }
            let before = out.len();
            if let Err(error) = self.frame(frame, out) {
                self.fail(error, out);
            }
            self.ended |= out.get(before..).and_then(<[Event]>::last).is_some_and(Event::is_last);
            if out.len() - before > EVENTS {
                out.truncate(before);
                self.fail(Error::malformed(format!("one piece of the answer makes more than {EVENTS} events")), out);
            }
        }
    }
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut out = Vec::with_capacity(frames.len() + 2);
        self.take(frames, &mut out);
        out
    }

    fn finish(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        self.ended = true;
        if !self.is_success() {
            let error = error::of_answer(self.head.status, &self.head.headers, &self.body);
            self.fail(error, &mut out);
            return out;
        }
        if let Err(error) = self.end(&mut out) {
            self.fail(error, &mut out);
        }
        if out.len() > EVENTS {
            out.clear();
            self.fail(Error::malformed(format!("the answer makes more than {EVENTS} events")), &mut out);
        }
        out
    }
}
