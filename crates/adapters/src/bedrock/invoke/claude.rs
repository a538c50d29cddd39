//! Anthropic's Claude: the body and the events of the Messages API, carried by InvokeModel.

use witgate_model::{
    DialectJson, Error, Event, EventMessage, Finish, FinishReason, Frame, HttpRequest, Request, ResponseHead, Usage,
};

use super::super::answer::Head;
use super::super::http::Encoding;
use super::super::json::Members;
use super::super::{Codec, Context};
use super::Counts;
use crate::anthropic_shape::{self, Flavour, MESSAGES};

const METRICS: &str = "amazon-bedrock-invocationMetrics";

/// A conversation. `settings` is the text that `encoding.settings` was read from.
pub(in super::super) fn encode(
    mut encoding: Encoding<'_>,
    settings: &str,
    request: &Request,
) -> Result<HttpRequest, Error> {
    let shape = anthropic_shape::Settings::parse(settings)?;
    let encoded = anthropic_shape::body(Flavour::Bedrock, &shape, request)?;
    let mut body = encoded.body;
    encoding.add_members(&mut body, None, request.stream)?;
    for path in encoded.dropped {
        encoding.omissions.note(path);
    }
    let context = Context { codec: Codec::Claude, inner: encoded.context, ..Context::default() };
    encoding.invoke(request.stream, true, body, &context)
}

/// Decodes one answer.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    head: Head,
    counts: Counts,
    inner: anthropic_shape::Decoder,
    /// The body of an error answer.
    error: Vec<u8>,
    messages: u64,
    /// The answer has told what it cost.
    counted: bool,
    filtered: bool,
    /// The finish waits for what stands behind it.
    finish: Option<Finish>,
    ended: bool,
}

impl Decoder {
    pub fn new(context: Option<&str>, head: ResponseHead) -> Self {
        Decoder {
            counts: Counts::new(&head),
            head: Head::new(&head),
            inner: anthropic_shape::Decoder::new(Flavour::Bedrock, context, head),
            error: Vec::new(),
            messages: 0,
            counted: false,
            filtered: false,
            finish: None,
            ended: false,
        }
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Event>) {
        match frame {
            Frame::Message(message) => {
                if let Err(error) = self.message(&message, out) {
                    self.inner.fail(error, out);
                }
            }
            Frame::Bytes(bytes) if !self.head.is_answer() => {
                if let Err(error) = self.head.collect(&mut self.error, bytes) {
                    self.inner.fail(error, out);
                }
            }
            Frame::Bytes(bytes) => out.extend(witgate_model::Decoder::feed(&mut self.inner, vec![Frame::Bytes(bytes)])),
            Frame::Sse(_) | Frame::Line(_) => {
                let error = self.head.malformed("it came as text lines, not as an AWS event stream");
                self.inner.fail(error, out);
            }
        }
    }

    fn message(&mut self, message: &EventMessage, out: &mut Vec<Event>) -> Result<(), Error> {
        self.messages += 1;
        let Some(bytes) = super::chunk(&self.head, message)? else { return Ok(()) };
        let text = String::from_utf8(bytes).map_err(|_| self.head.malformed("a chunk is not UTF-8"))?;
        self.inner.event(text, out);
        Ok(())
    }

    /// What the inner decoder told, with the finish where everything is known.
    fn told(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut out = Vec::with_capacity(events.len() + 1);
        for event in events {
            match event {
                Event::Finish(finish) => self.finish = Some(finish),
                Event::Done => {
                    self.complete(&mut out);
                    out.push(Event::Done);
                }
                event => {
                    match &event {
                        Event::Usage(_) => self.counted = true,
                        Event::Other(other) if other.members.contains("\"amazon-bedrock-") => {
                            self.beside(&other.members, &mut out);
                        }
                        _ => {}
                    }
                    out.push(event);
                }
            }
        }
        self.ended = out.last().is_some_and(Event::is_last);
        out
    }

    /// What Bedrock writes beside the model's own members.
    fn beside(&mut self, members: &str, out: &mut Vec<Event>) {
        let Ok(members) = Members::parse(members) else { return };
        self.filtered |= members.string("amazon-bedrock-guardrailAction").is_some_and(|action| action == "INTERVENED");
        if let Some(metrics) = members.object(METRICS).filter(|_| !self.counted) {
            self.counted = true;
            out.push(Event::Usage(Usage {
                input_tokens: metrics.number("inputTokenCount"),
                output_tokens: metrics.number("outputTokenCount"),
                raw: members.get(METRICS).map(|raw| DialectJson::new(MESSAGES, raw.get())),
                ..Usage::default()
            }));
        }
    }

    fn complete(&mut self, out: &mut Vec<Event>) {
        let (input_tokens, output_tokens) = (self.counts.input, self.counts.output);
        if !self.counted && (input_tokens.is_some() || output_tokens.is_some()) {
            out.push(Event::Usage(Usage { input_tokens, output_tokens, ..Usage::default() }));
        }
        if let Some(mut finish) = self.finish.take() {
            if self.filtered {
                finish.reason = FinishReason::ContentFilter;
            }
            out.push(Event::Finish(finish));
        }
    }
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut events = Vec::new();
        for frame in frames {
            if self.ended || self.inner.is_ended() {
                break;
            }
            self.frame(frame, &mut events);
        }
        self.told(events)
    }

    fn finish(&mut self) -> Vec<Event> {
        if self.ended {
            return Vec::new();
        }
        let mut events = Vec::new();
        if !self.head.is_answer() {
            self.inner.fail(self.head.error_body(&self.error), &mut events);
        } else if !self.head.whole && self.messages == 0 {
            self.inner.fail(self.head.malformed("status 200, but not one event"), &mut events);
        } else {
            events = witgate_model::Decoder::finish(&mut self.inner);
        }
        self.told(events)
    }
}
