//! Answers of InvokeEndpoint to events: the transport's layers, around what the container says.

use witgate_framing::{Framer, Limits};
use witgate_model::{Decoder, Error, ErrorKind, Event, EventMessage, Frame, Framing, ResponseHead, SseEvent, Usage};

use super::generated::{self, Generated, Piece};
use super::{Context, Shape, Words, error};
use crate::openai_shape::{self, Flavour};

/// Most bytes of a whole answer.
const WHOLE: usize = 32 * 1024 * 1024;

/// Most bytes of an error answer that are looked at.
const ERROR_BODY: usize = 64 * 1024;

/// Most bytes of one line, or of one event, of the container's stream.
const HELD: usize = 4 * 1024 * 1024;

/// Most events for one frame, the contract's own bound.
const EVENTS: usize = 4096;

/// Decodes one answer of a SageMaker endpoint.
#[derive(Debug)]
pub struct SageMakerDecoder {
    head: ResponseHead,
    cut: Cut,
    hosted: Hosted,
    /// What is not a stream: the container's whole answer, or an error.
    body: Vec<u8>,
    /// Of the container's stream, those that one message completed: empty between messages.
    frames: Vec<Frame>,
    ended: bool,
    account: Account,
    failure: Option<Error>,
}

/// How the container's bytes are cut.
#[derive(Debug)]
enum Cut {
    /// Nothing but whitespace has come.
    Unknown,
    /// Not at all: one JSON value.
    Whole,
    /// Into events or lines.
    Pieces(Box<Framer>),
}

/// What the container says.
#[derive(Debug)]
enum Hosted {
    /// OpenAI's shape.
    Open(Box<openai_shape::Decoder>),
    /// An answer to `inputs`; OpenAI's shape, if its first piece is of it.
    Generated(Generated),
}

/// What the answer has cost, and what it would cost in words.
#[derive(Debug, Default)]
struct Account {
    prompt: u64,
    words: Words,
    input: bool,
    output: bool,
    finished: bool,
}

impl Account {
    /// Notes the new events behind `from`; estimates what is not counted when the answer is done.
    fn note(&mut self, out: &mut Vec<Event>, from: usize) {
        for event in out.iter().skip(from) {
            match event {
                Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => self.words.add(&delta.text),
                Event::BlockStop(_) => self.words.inside = false,
                Event::Usage(usage) => {
                    self.input |= usage.input_tokens.is_some();
                    self.output |= usage.output_tokens.is_some();
                }
                Event::Finish(_) => self.finished = true,
                _ => {}
            }
        }
        if self.finished && !(self.input && self.output) && matches!(out.last(), Some(Event::Done)) {
            let usage = Usage {
                input_tokens: (!self.input).then_some(self.prompt),
                output_tokens: (!self.output).then_some(self.words.count),
                estimated: true,
                ..Usage::default()
            };
            out.insert(out.len() - 1, Event::Usage(usage));
        }
    }
}

impl SageMakerDecoder {
    pub(super) fn new(context: Option<&str>, head: ResponseHead) -> Self {
        let (context, failure) = match context.map(serde_json::from_str::<Context>).transpose() {
            Ok(Some(context)) => (context, None),
            Ok(None) => (Context { shape: Some(Shape::default()), ..Context::default() }, None),
            Err(error) => {
                let message = format!("the context of this answer is not the one that encode made: {error}");
                let kind = ErrorKind::Other("internal".to_owned());
                (Context::default(), Some(Error::new(kind, message)))
            }
        };
        let hosted = match context.shape {
            Some(shape) => Hosted::Open(Box::new(open(shape.context.as_deref(), head.stream))),
            None => Hosted::Generated(Generated::new(context.most, context.stop)),
        };
        let cut = if head.framing == Framing::AwsEventstream { Cut::Unknown } else { Cut::Whole };
        let account = Account { prompt: context.words, ..Account::default() };
        SageMakerDecoder { head, cut, hosted, body: Vec::new(), frames: Vec::new(), ended: false, account, failure }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    fn malformed(&self, message: impl std::fmt::Display) -> Error {
        let id = error::request_id(&self.head).map(|id| format!(" (AWS request id {id})")).unwrap_or_default();
        Error::malformed(format!("SageMaker's answer is malformed: {message}{id}"))
    }

    /// Tells the failure; nothing may follow.
    fn fail(&mut self, error: Error, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(error));
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match frame {
            Frame::Bytes(bytes) => self.hold(bytes),
            Frame::Message(message) if self.is_success() => self.message(message, out),
            Frame::Message(message) => self.hold(message.payload),
            Frame::Sse(_) | Frame::Line(_) => Err(self.malformed("it came as text lines, not as an AWS event stream")),
        }
    }

    /// Keeps a piece of what is looked at as a whole.
    fn hold(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        if !self.is_success() {
            let room = ERROR_BODY.saturating_sub(self.body.len()).min(bytes.len());
            self.body.extend_from_slice(bytes.get(..room).unwrap_or_default());
        } else if self.body.len().saturating_add(bytes.len()) > WHOLE {
            return Err(self.malformed(format_args!("the container's answer has more than {WHOLE} bytes")));
        } else if self.body.is_empty() {
            self.body = bytes;
        } else {
            self.body.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn message(&mut self, message: EventMessage, out: &mut Vec<Event>) -> Result<(), Error> {
        let header = |name: &str| error::header(&message.headers, name);
        match header(":message-type") {
            Some("event") => match header(":event-type") {
                Some("PayloadPart") => self.part(message.payload, out),
                Some(_) => Ok(()),
                None => Err(self.malformed("an event without the header :event-type")),
            },
            Some("exception") => Err(error::of_exception(header(":exception-type"), &self.head, &message.payload)),
            Some("error") => Err(error::of_message(header(":error-code"), header(":error-message"), &self.head)),
            Some(other) => Err(self.malformed(format_args!("a message of the unknown type `{other}`"))),
            None => Err(self.malformed("a message without the header :message-type")),
        }
    }

    /// More of the container's bytes.
    fn part(&mut self, bytes: Vec<u8>, out: &mut Vec<Event>) -> Result<(), Error> {
        let mut bytes = bytes;
        if matches!(self.cut, Cut::Unknown) {
            let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else { return Ok(()) };
            bytes.drain(..first);
            let json = matches!(bytes.first(), Some(b'{' | b'['));
            let content_type = error::header(&self.head.headers, "x-amzn-sagemaker-content-type").unwrap_or_default();
            let lines = content_type.to_ascii_lowercase().contains("jsonl") || content_type.contains("ndjson");
            self.cut = match (json, lines) {
                (true, false) => Cut::Whole,
                (true, true) => self.pieces(&Framing::Ndjson)?,
                (false, _) => self.pieces(&Framing::Sse)?,
            };
        }
        let result = match &mut self.cut {
            Cut::Pieces(framer) => framer.push(&bytes, &mut self.frames),
            Cut::Unknown | Cut::Whole => return self.hold(bytes),
        };
        // What is in front of the fault counts.
        self.pieces_came(out)?;
        if self.ended { Ok(()) } else { result.map_err(|error| self.malformed(error)) }
    }

    fn pieces(&self, framing: &Framing) -> Result<Cut, Error> {
        let limits = Limits { max_frame_bytes: HELD, max_body_bytes: WHOLE };
        let framer = Framer::new(framing, limits).map_err(|error| self.malformed(error))?;
        Ok(Cut::Pieces(Box::new(framer)))
    }

    /// Events, or lines, of the container's stream.
    fn pieces_came(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        for frame in &mut self.frames {
            if let Frame::Line(data) = frame {
                *frame = Frame::Sse(SseEvent { event: None, data: std::mem::take(data), id: None });
            }
        }
        if let Hosted::Generated(state) = &mut self.hosted {
            let mut read = 0;
            let mut changes = false;
            for frame in &self.frames {
                let Frame::Sse(event) = frame else { continue };
                let data = event.data.trim();
                // TGI ends by its last event: an end like OpenAI's says nothing here.
                if !data.is_empty() && data != "[DONE]" {
                    let Piece::Generated(members) = generated::piece(data)? else {
                        changes = true;
                        break;
                    };
                    if state.event(&members, out)? {
                        self.ended = true;
                        return Ok(());
                    }
                }
                read += 1;
            }
            if !changes {
                self.frames.clear();
                return Ok(());
            }
            if state.has_started() {
                return Err(self.malformed("the container changes from one shape of answer to another"));
            }
            self.frames.drain(..read);
            self.hosted = Hosted::Open(Box::new(open(Some("completion 1"), true)));
        }
        if let Hosted::Open(decoder) = &mut self.hosted
            && !self.frames.is_empty()
        {
            decoder.take(self.frames.drain(..), out);
            self.ended = out.last().is_some_and(Event::is_last);
            // Only the last event can be a failure.
            if self.ended
                && let Some(last) = out.pop()
            {
                out.push(error::known(last));
            }
        }
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if !self.is_success() {
            return Err(error::of_answer(&self.head, &self.body));
        }
        let body = std::mem::take(&mut self.body);
        let framer = match &mut self.cut {
            Cut::Pieces(framer) => framer,
            Cut::Unknown | Cut::Whole if body.trim_ascii().is_empty() => return Err(self.malformed("it is empty")),
            Cut::Unknown | Cut::Whole => return self.whole(body, out),
        };
        let result = framer.finish(&mut self.frames);
        self.pieces_came(out)?;
        if self.ended {
            return Ok(());
        }
        result.map_err(|error| self.malformed(error))?;
        match &mut self.hosted {
            Hosted::Open(decoder) => out.extend(decoder.finish().into_iter().map(error::known)),
            Hosted::Generated(_) => return Err(Error::malformed("the container's answer ended before its finish")),
        }
        Ok(())
    }

    /// The container's answer in one piece.
    fn whole(&mut self, body: Vec<u8>, out: &mut Vec<Event>) -> Result<(), Error> {
        let mut other = None;
        if let Hosted::Generated(state) = &mut self.hosted {
            let text =
                std::str::from_utf8(&body).map_err(|_| Error::malformed("the container's answer is not UTF-8"))?;
            match generated::piece(text)? {
                Piece::Generated(members) => return state.whole(&members, out),
                Piece::Open => other = Some(open(Some("completion 1"), false)),
            }
        }
        let decoder = match (&mut other, &mut self.hosted) {
            (Some(decoder), _) => decoder,
            (None, Hosted::Open(decoder)) => decoder.as_mut(),
            (None, Hosted::Generated(_)) => return Ok(()),
        };
        let mut events = decoder.feed(vec![Frame::Bytes(body)]);
        if !events.last().is_some_and(Event::is_last) {
            events.append(&mut decoder.finish());
        }
        out.extend(events.into_iter().map(error::known));
        Ok(())
    }

    /// Notes what the new events behind `from` cost, and holds the contract's bound on their number.
    fn settle(&mut self, out: &mut Vec<Event>, from: usize) {
        self.account.note(out, from);
        if out.len() - from > EVENTS {
            merge(out, from);
        }
        if out.len() - from > EVENTS {
            out.truncate(from);
            let message = format!("one piece of the answer makes more than {EVENTS} events");
            self.fail(self.malformed(message), out);
        }
        self.ended |= out.last().is_some_and(Event::is_last);
    }
}

/// A decoder of OpenAI's shape for what stands inside of a good answer.
fn open(context: Option<&str>, stream: bool) -> openai_shape::Decoder {
    let framing = if stream { Framing::Sse } else { Framing::Whole };
    let head = ResponseHead { status: 200, headers: Vec::new(), framing, stream };
    openai_shape::Decoder::new(Flavour::OpenAi, context, head)
}

/// Joins neighbouring pieces of one text: a part of the stream may hold thousands of tokens.
fn merge(events: &mut Vec<Event>, from: usize) {
    let new = events.split_off(from);
    for event in new {
        match (events.get_mut(from..).and_then(<[Event]>::last_mut), event) {
            (Some(Event::Text(last)), Event::Text(delta))
            | (Some(Event::Reasoning(last)), Event::Reasoning(delta))
            | (Some(Event::Arguments(last)), Event::Arguments(delta))
                if last.index == delta.index && last.logprobs.is_none() && delta.logprobs.is_none() =>
            {
                last.text.push_str(&delta.text);
            }
            (_, event) => events.push(event),
        }
    }
}

impl Decoder for SageMakerDecoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut out = Vec::with_capacity(frames.len() + 2);
        for frame in frames {
            if self.ended {
                break;
            }
            let from = out.len();
            if let Err(error) = self.frame(frame, &mut out) {
                self.fail(error, &mut out);
            }
            self.settle(&mut out, from);
        }
        out
    }

    fn finish(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        if let Err(error) = self.end(&mut out) {
            self.fail(error, &mut out);
        }
        self.settle(&mut out, 0);
        self.ended = true;
        out
    }
}
