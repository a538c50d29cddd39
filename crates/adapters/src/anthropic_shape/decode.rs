//! An answer of the Messages API to events: streams, whole answers, counts, lists of models, errors.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Error, Event, Finish, FinishReason, Frame, ModelEntry,
    ResponseHead, Scope, SseEvent, Started, ToolCallStart, Usage,
};

use super::error;
use super::{Context, Flavour, MESSAGES, Operation};
use crate::openai_shape::json::{Loose, Members, Text, complaint, count_of, object_of, text_of};
use crate::openai_shape::object;
use crate::repeat::{Repeat, inside};

/// Most bytes of a whole answer.
const WHOLE: usize = 32 * 1024 * 1024;

/// Most bytes of an error answer that are looked at.
const ERROR_BODY: usize = 64 * 1024;

/// Most events for one frame, the contract's own bound.
const EVENTS: usize = 4096;

/// Most blocks of one answer.
const BLOCKS: u32 = 4096;

/// Most bytes of a usage object that is handed on.
const USAGE: usize = 16 * 1024;

/// Unknown members of one object.
type Others<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// One event of a stream.
#[derive(Default)]
struct StreamEvent<'a> {
    kind: Loose<'a>,
    index: Option<u64>,
    delta: Option<&'a RawValue>,
    block: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    others: Others<'a>,
}

object!(StreamEvent, "an event of the Messages API", |map, this, name| {
    "type" => this.kind = map.next_value()?,
    "index" => this.index = map.next_value()?,
    "delta" => this.delta = map.next_value()?,
    "content_block" => this.block = map.next_value()?,
    "message" => this.message = map.next_value()?,
    "usage" => this.usage = map.next_value()?,
    "error" => this.error = map.next_value()?,
});

/// The next piece of a block.
#[derive(Default)]
struct Delta<'a> {
    kind: Loose<'a>,
    text: Option<&'a RawValue>,
    partial_json: Option<&'a RawValue>,
    thinking: Option<&'a RawValue>,
    signature: Option<&'a RawValue>,
    citation: Option<&'a RawValue>,
    others: Others<'a>,
}

object!(Delta, "a delta of a content block", |map, this, name| {
    "type" => this.kind = map.next_value()?,
    "text" => this.text = map.next_value()?,
    "partial_json" => this.partial_json = map.next_value()?,
    "thinking" => this.thinking = map.next_value()?,
    "signature" => this.signature = map.next_value()?,
    "citation" => this.citation = map.next_value()?,
});

/// A message, whole or as a stream begins it.
#[derive(Default)]
struct Message<'a> {
    kind: Loose<'a>,
    id: Loose<'a>,
    model: Loose<'a>,
    role: Loose<'a>,
    content: Option<&'a RawValue>,
    stop_reason: Loose<'a>,
    stop_sequence: Loose<'a>,
    usage: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    others: Others<'a>,
}

object!(Message, "a message", |map, this, name| {
    "type" => this.kind = map.next_value()?,
    "id" => this.id = map.next_value()?,
    "model" => this.model = map.next_value()?,
    "role" => this.role = map.next_value()?,
    "content" => this.content = map.next_value()?,
    "stop_reason" => this.stop_reason = map.next_value()?,
    "stop_sequence" => this.stop_sequence = map.next_value()?,
    "usage" => this.usage = map.next_value()?,
    "error" => this.error = map.next_value()?,
});

/// How a message ended, as a stream tells it.
#[derive(Default)]
struct End<'a> {
    stop_reason: Loose<'a>,
    stop_sequence: Loose<'a>,
    others: Others<'a>,
}

object!(End, "the delta of a message", |map, this, name| {
    "stop_reason" => this.stop_reason = map.next_value()?,
    "stop_sequence" => this.stop_sequence = map.next_value()?,
});

/// A block, whole or as a stream begins it.
#[derive(Default)]
struct Block<'a> {
    kind: Loose<'a>,
    id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    thinking: Option<&'a RawValue>,
    signature: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    others: Others<'a>,
}

object!(Block, "a content block", |map, this, name| {
    "type" => this.kind = map.next_value()?,
    "id" => this.id = map.next_value()?,
    "name" => this.name = map.next_value()?,
    "text" => this.text = map.next_value()?,
    "input" => this.input = map.next_value()?,
    "thinking" => this.thinking = map.next_value()?,
    "signature" => this.signature = map.next_value()?,
    "data" => this.data = map.next_value()?,
});

/// A usage object.
#[derive(Default)]
struct Counts<'a> {
    input: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    read: Option<&'a RawValue>,
    write: Option<&'a RawValue>,
    details: Option<&'a RawValue>,
    others: Others<'a>,
}

object!(Counts, "a usage object", |map, this, name| {
    "input_tokens" => this.input = map.next_value()?,
    "output_tokens" => this.output = map.next_value()?,
    "cache_read_input_tokens" => this.read = map.next_value()?,
    "cache_creation_input_tokens" => this.write = map.next_value()?,
    "output_tokens_details" => this.details = map.next_value()?,
});

/// What an open block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Tool,
    /// A tool whose arguments are the answer's text.
    Answer,
    Other,
}

/// A block that has begun and not ended.
#[derive(Debug)]
struct Open {
    /// The backend's number.
    number: u64,
    index: u32,
    kind: Kind,
    /// A tool's input that came with the block's start: it counts where no pieces follow.
    input: Option<String>,
}

/// Decodes one answer of a backend that speaks the Messages API.
///
/// [`feed`](witgate_model::Decoder::feed) takes server-sent events, whole answers and error answers. A backend that
/// carries the same events in frames of its own unwraps them and calls [`Decoder::event`] for each.
#[derive(Debug)]
pub struct Decoder {
    flavour: Flavour,
    head: ResponseHead,
    context: Context,
    /// The bytes of an answer that is not a stream.
    body: Vec<u8>,
    started: bool,
    finished: bool,
    ended: bool,
    blocks: u32,
    open: Vec<Open>,
    /// The answer has calls for the client.
    calls: bool,
    /// The answer came as the input of a tool.
    answered: bool,
    /// The last known input, cache reads and cache writes: later usage objects may leave them out.
    input: [Option<u64>; 3],
    repeat: Repeat,
}

impl Decoder {
    /// A decoder for one answer; `context` is what the encoder gave.
    pub fn new(flavour: Flavour, context: Option<&str>, head: ResponseHead) -> Self {
        let context = context.and_then(|context| serde_json::from_str(context).ok()).unwrap_or_default();
        Decoder {
            flavour,
            head,
            context,
            body: Vec::new(),
            started: false,
            finished: false,
            ended: false,
            blocks: 0,
            open: Vec::new(),
            calls: false,
            answered: false,
            input: [None; 3],
            repeat: Repeat::default(),
        }
    }

    /// One event of a stream, as JSON text. A failure is told in `out`, like everything else.
    pub fn event(&mut self, json: impl Into<String>, out: &mut Vec<Event>) {
        self.guarded(out, |decoder, out| decoder.stream(None, json.into(), out));
    }

    /// Ends the answer by a failure that the caller knows of; nothing where it has ended.
    pub fn fail(&mut self, error: Error, out: &mut Vec<Event>) {
        self.guarded(out, |_, _| Err(error));
    }

    /// True when the last event of the answer has been told.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Runs one step of at most [`EVENTS`] events, and tells its failure.
    fn guarded(&mut self, out: &mut Vec<Event>, step: impl FnOnce(&mut Self, &mut Vec<Event>) -> Result<(), Error>) {
        if self.ended {
            return;
        }
        let before = out.len();
        let result = step(self, out);
        let error = if out.len() - before > EVENTS {
            out.truncate(before);
            Some(Error::malformed(format!("one piece of the answer makes more than {EVENTS} events")))
        } else {
            result.err()
        };
        if let Some(error) = error {
            self.ended = true;
            out.push(Event::Failed(error));
        }
    }

    fn backend(&self) -> &'static str {
        self.flavour.backend()
    }

    fn malformed(&self, what: impl fmt::Display) -> Error {
        Error::malformed(format!("{}'s answer is not what its API promises: {what}", self.backend()))
    }

    fn unreadable(&self, what: &str, error: &serde_json::Error) -> Error {
        self.malformed(format_args!("{what} can't be read: {}", complaint(error)))
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Event>) -> Result<(), Error> {
        match frame {
            Frame::Sse(event) if self.is_success() => self.stream(event.event.as_deref(), event.data, out),
            Frame::Bytes(bytes) => {
                let most = if self.is_success() { WHOLE } else { ERROR_BODY };
                if self.is_success() && self.body.len() + bytes.len() > most {
                    return Err(self.malformed(format_args!("it has more than {most} bytes")));
                }
                if self.body.is_empty() && bytes.len() <= most {
                    self.body = bytes;
                } else {
                    let room = most.saturating_sub(self.body.len());
                    self.body.extend(bytes.into_iter().take(room));
                }
                Ok(())
            }
            Frame::Sse(SseEvent { data, .. }) | Frame::Line(data) if !self.is_success() => {
                self.frame(Frame::Bytes(data.into_bytes()), out)
            }
            Frame::Sse(_) | Frame::Line(_) | Frame::Message(_) => {
                Err(self.malformed("it came in frames that this API does not have"))
            }
        }
    }

    /// One event of a stream; `name` is its `event:` field.
    fn stream(&mut self, name: Option<&str>, json: String, out: &mut Vec<Event>) -> Result<(), Error> {
        if name == Some("ping") {
            return Ok(());
        }
        let json = match self.repeat.next(json) {
            Ok(event) => {
                out.push(event);
                return Ok(());
            }
            Err(json) => json,
        };
        self.repeat.forget();
        self.read(name, &json, out)
    }

    /// One event of a stream that is not as the one before.
    fn read(&mut self, name: Option<&str>, json: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        if json.trim().is_empty() {
            return Ok(());
        }
        let event: StreamEvent<'_> = serde_json::from_str(json).map_err(|error| {
            // An error may be a text.
            if name == Some("error") {
                return error::of_object(self.backend(), None, json);
            }
            self.unreadable("an event", &error)
        })?;
        let kind = event.kind.0.as_deref().or(name).unwrap_or_default();
        match kind {
            "error" => return Err(error::of_object(self.backend(), None, json)),
            _ if event.error.is_some_and(|error| error.get() != "null") => {
                return Err(error::of_object(self.backend(), None, json));
            }
            "ping" => return Ok(()),
            "message_start" => return self.start(event.message, out),
            "content_block_start" | "content_block_delta" | "content_block_stop" | "message_delta" | "message_stop" => {
            }
            // The API may get more kinds of event; clients are to go on.
            _ => return Ok(()),
        }
        if !self.started {
            return Err(self.malformed(format_args!("`{kind}` came in front of `message_start`")));
        }
        let number = || event.index.ok_or_else(|| self.malformed(format_args!("`{kind}` has no index")));
        match kind {
            "content_block_start" => {
                let number = number()?;
                let block = event.block.ok_or_else(|| self.malformed("a block that begins with nothing"))?;
                self.begin(number, block, false, out)
            }
            "content_block_delta" => {
                let number = number()?;
                let delta = event.delta.ok_or_else(|| self.malformed("a delta that holds nothing"))?;
                let before = out.len();
                let text = self.delta(number, delta, out)?;
                // Without a type, the name of the event counts.
                if let Some(text) = text.and_then(inside).filter(|_| event.kind.0.is_some()) {
                    self.repeat.note(json, text, None, out.get(before..).unwrap_or_default());
                }
                Ok(())
            }
            "content_block_stop" => {
                let number = number()?;
                if let Some(at) = self.open.iter().position(|open| open.number == number) {
                    let open = self.open.swap_remove(at);
                    stop(open, out);
                }
                Ok(())
            }
            "message_delta" => {
                let end = match event.delta {
                    Some(delta) => serde_json::from_str(delta.get())
                        .map_err(|error| self.unreadable("a message's delta", &error))?,
                    None => End::default(),
                };
                other(Scope::Choice(0), &end.others, out);
                other(Scope::Envelope, &event.others, out);
                if let Some(usage) = event.usage {
                    self.usage(usage, out);
                }
                self.end(end.stop_reason, end.stop_sequence, out);
                Ok(())
            }
            _ => {
                other(Scope::Envelope, &event.others, out);
                if !self.finished {
                    return Err(self.malformed("it stopped without a stop_reason"));
                }
                self.done(out);
                Ok(())
            }
        }
    }

    fn done(&mut self, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Done);
    }

    /// A stream begins.
    fn start(&mut self, message: Option<&RawValue>, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.started {
            return Err(self.malformed("a second `message_start`"));
        }
        let message = message.ok_or_else(|| self.malformed("`message_start` has no message"))?;
        let message: Message<'_> =
            serde_json::from_str(message.get()).map_err(|error| self.unreadable("the message", &error))?;
        let content = self.opening(message, out)?;
        // A message that begins with content is not in the API; what is there counts.
        for (number, block) in (0..).zip(content) {
            self.begin(number, block, true, out)?;
        }
        Ok(())
    }

    /// What stands around a message's content.
    fn opening<'a>(&mut self, message: Message<'a>, out: &mut Vec<Event>) -> Result<Vec<&'a RawValue>, Error> {
        let content = match message.content {
            None => Vec::new(),
            Some(list) => serde_json::from_str(list.get()).map_err(|error| self.unreadable("the content", &error))?,
        };
        self.started = true;
        out.push(Event::Started(Started {
            id: message.id.filled().map(Cow::into_owned),
            model: message.model.filled().map(Cow::into_owned),
            created: None,
        }));
        other(Scope::Envelope, &message.others, out);
        if let Some(usage) = message.usage {
            self.usage(usage, out);
        }
        Ok(content)
    }

    /// A whole message.
    fn whole(&mut self, message: Message<'_>, out: &mut Vec<Event>) -> Result<(), Error> {
        if message.content.is_none() {
            return Err(self.malformed("it has no content"));
        }
        let (reason, sequence) = (message.stop_reason.clone(), message.stop_sequence.clone());
        let content = self.opening(message, out)?;
        for (number, block) in (0..).zip(content) {
            self.begin(number, block, true, out)?;
        }
        self.end(reason, sequence, out);
        if !self.finished {
            return Err(self.malformed("it has no stop_reason"));
        }
        self.done(out);
        Ok(())
    }

    /// A block begins; in a whole answer, it ends as well.
    fn begin(&mut self, number: u64, raw: &RawValue, whole: bool, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.finished {
            return Err(self.malformed("a block behind its end"));
        }
        if self.open.iter().any(|open| open.number == number) {
            return Err(self.malformed(format_args!("block {number} begins twice")));
        }
        if self.blocks == BLOCKS {
            return Err(self.malformed(format_args!("it has more than {BLOCKS} blocks")));
        }
        let block: Block<'_> = serde_json::from_str(raw.get()).map_err(|error| self.unreadable("a block", &error))?;
        let Some(kind) = block.kind.0.as_deref() else { return Err(self.malformed("a block without a type")) };
        let index = self.blocks;
        let text = |value: Option<&RawValue>| value.and_then(|value| text_of(value).map(Cow::into_owned));
        let (kind, contents) = match kind {
            "text" => (Kind::Text, BlockKind::Text),
            "thinking" | "redacted_thinking" => (Kind::Reasoning, BlockKind::Reasoning),
            "tool_use" => {
                let name = text(block.name).ok_or_else(|| self.malformed("a tool call without a name"))?;
                if self.context.answer.as_ref() == Some(&name) {
                    self.answered = true;
                    (Kind::Answer, BlockKind::Text)
                } else {
                    self.calls = true;
                    let id = text(block.id).unwrap_or_else(|| format!("toolu_{index}"));
                    let name = self.context.tools.get(&name).cloned().unwrap_or(name);
                    (Kind::Tool, BlockKind::ToolCall(ToolCallStart { id, name }))
                }
            }
            _ => (Kind::Other, BlockKind::Other(DialectJson::new(MESSAGES, raw.get()))),
        };
        self.blocks += 1;
        out.push(Event::BlockStart(BlockStart { index, choice: 0, kind: contents }));
        let mut open = Open { number, index, kind, input: None };
        let mut put = |make: fn(BlockDelta) -> Event, value: Option<&RawValue>| {
            if let Some(text) = value.and_then(text_of).filter(|text| !text.is_empty()) {
                out.push(make(piece(index, text.into_owned())));
            }
        };
        match kind {
            Kind::Text => put(Event::Text, block.text),
            Kind::Reasoning => {
                put(Event::Reasoning, block.thinking);
                put(Event::Signature, block.signature);
                put(Event::Redacted, block.data);
            }
            Kind::Tool | Kind::Answer => {
                let input = block.input.map(|input| input.get().trim());
                // No arguments at all mean `{}`, but text has to say so.
                let input = input.filter(|input| kind == Kind::Answer || !is_nothing(input));
                open.input = input.map(str::to_owned);
            }
            Kind::Other => {}
        }
        if !matches!(kind, Kind::Other | Kind::Answer) {
            let mut others = block.others;
            for (name, value, of) in [
                ("id", block.id, Kind::Tool),
                ("name", block.name, Kind::Tool),
                ("input", block.input, Kind::Tool),
                ("text", block.text, Kind::Text),
                ("thinking", block.thinking, Kind::Reasoning),
                ("signature", block.signature, Kind::Reasoning),
                ("data", block.data, Kind::Reasoning),
            ] {
                if let Some(value) = value.filter(|_| of != kind) {
                    others.push((Cow::Borrowed(name), value));
                }
            }
            other(Scope::Block(index), &others, out);
        }
        if whole {
            stop(open, out);
        } else {
            self.open.push(open);
        }
        Ok(())
    }

    /// More of an open block. Gives the text that it is.
    fn delta<'a>(
        &mut self,
        number: u64,
        raw: &'a RawValue,
        out: &mut Vec<Event>,
    ) -> Result<Option<&'a RawValue>, Error> {
        let delta: Delta<'_> = serde_json::from_str(raw.get()).map_err(|error| self.unreadable("a delta", &error))?;
        let backend = self.flavour.backend();
        let Some(open) = self.open.iter_mut().find(|open| open.number == number) else {
            return Err(self.malformed(format_args!("a delta of block {number}, which is not open")));
        };
        let index = open.index;
        type Make = fn(BlockDelta) -> Event;
        let (make, value) = match (delta.kind.0.as_deref().unwrap_or_default(), open.kind) {
            ("text_delta", Kind::Text) => (Event::Text as Make, delta.text),
            ("thinking_delta", Kind::Reasoning) => (Event::Reasoning as Make, delta.thinking),
            ("signature_delta", Kind::Reasoning) => (Event::Signature as Make, delta.signature),
            ("input_json_delta", Kind::Tool | Kind::Other) => (Event::Arguments as Make, delta.partial_json),
            ("input_json_delta", Kind::Answer) => (Event::Text as Make, delta.partial_json),
            ("citations_delta", Kind::Text) => {
                if let Some(citation) = delta.citation {
                    let members = format!("{{\"citations\":[{}]}}", citation.get());
                    out.push(Event::other(MESSAGES, Scope::Block(index), members));
                }
                return Ok(None);
            }
            ("text_delta" | "thinking_delta" | "signature_delta" | "input_json_delta", kind) if kind != Kind::Other => {
                let kind = delta.kind.0.unwrap_or_default();
                return Err(Error::malformed(format!("{backend} sent a `{kind}` for a block of another kind")));
            }
            _ => {
                out.push(Event::other(MESSAGES, Scope::Block(index), format!("{{\"delta\":{}}}", raw.get())));
                return Ok(None);
            }
        };
        if let Some(text) = value.and_then(text_of).filter(|text| !text.is_empty()) {
            open.input = None;
            out.push(make(piece(index, text.into_owned())));
        }
        if !delta.others.is_empty() {
            // What stands beside the piece: an estimate of tokens, say.
            let mut members = format!("{{\"delta\":{}", object_of(&delta.others));
            members.push('}');
            out.push(Event::other(MESSAGES, Scope::Block(index), members));
        }
        Ok(value)
    }

    /// The message has ended, where a reason is given.
    fn end(&mut self, reason: Loose<'_>, sequence: Loose<'_>, out: &mut Vec<Event>) {
        let Some(reason) = reason.filled().filter(|_| !self.finished) else { return };
        self.finished = true;
        for open in std::mem::take(&mut self.open) {
            stop(open, out);
        }
        let mapped = match &*reason {
            "tool_use" if self.answered && !self.calls => FinishReason::Stop,
            "end_turn" | "stop_sequence" | "pause_turn" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            other => FinishReason::Other(other.to_owned()),
        };
        out.push(Event::Finish(Finish {
            choice: 0,
            reason: mapped,
            raw: Some(reason.into_owned()),
            stop_sequence: sequence.0.map(Cow::into_owned),
        }));
    }

    /// What it cost so far. The input excludes what was read from the cache and written to it; ours includes both.
    fn usage(&mut self, raw: &RawValue, out: &mut Vec<Event>) {
        let Ok(counts) = serde_json::from_str::<Counts<'_>>(raw.get()) else { return };
        let count = |value: Option<&RawValue>| value.and_then(count_of);
        for (known, told) in self.input.iter_mut().zip([counts.input, counts.read, counts.write]) {
            *known = count(told).or(*known);
        }
        let [input, read, write] = self.input;
        let sum = input.map(|input| input.saturating_add(read.unwrap_or(0)).saturating_add(write.unwrap_or(0)));
        let details = Members::parse(counts.details.map(RawValue::get)).unwrap_or_default();
        let thinking = details.0.iter().find(|(name, _)| name == "thinking_tokens");
        out.push(Event::Usage(Usage {
            input_tokens: sum,
            output_tokens: count(counts.output),
            cache_read_tokens: read,
            cache_write_tokens: write,
            reasoning_tokens: thinking.and_then(|(_, value)| count_of(value)),
            estimated: false,
            raw: (raw.get().len() <= USAGE).then(|| DialectJson::new(MESSAGES, raw.get())),
        }));
    }

    /// The number of tokens of a prompt.
    fn count(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let counts: Members<'_> = serde_json::from_str(text).map_err(|error| self.unreadable("the count", &error))?;
        let tokens = counts.0.iter().find(|(name, _)| name == "input_tokens").and_then(|(_, value)| count_of(value));
        let tokens = tokens.ok_or_else(|| self.malformed("it has no `input_tokens`"))?;
        out.push(Event::Started(Started::default()));
        out.push(Event::Usage(Usage {
            input_tokens: Some(tokens),
            raw: (text.len() <= USAGE).then(|| DialectJson::new(MESSAGES, text)),
            ..Usage::default()
        }));
        self.done(out);
        Ok(())
    }

    /// The list of models.
    fn models(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let list: Members<'_> = serde_json::from_str(text).map_err(|error| self.unreadable("the list", &error))?;
        let data = list.get("data").ok_or_else(|| self.malformed("the list of models has no `data`"))?;
        let models: Vec<&RawValue> =
            serde_json::from_str(data).map_err(|error| self.unreadable("the list of models", &error))?;
        out.push(Event::Started(Started::default()));
        for raw in models {
            let model = Members::parse(Some(raw.get())).map_err(|error| self.unreadable("a model", &error))?;
            let member = |name: &str| model.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
            let text = |name: &str| member(name).and_then(text_of);
            let id = text("id").ok_or_else(|| self.malformed("a model without an id"))?.into_owned();
            // Servers that follow OpenAI's list as well write `created`. The year 1970 stands for "not known".
            let created =
                text("created_at").and_then(|date| seconds(&date)).or_else(|| member("created").and_then(count_of));
            out.push(Event::Model(ModelEntry {
                id,
                created: created.filter(|created| *created > 0),
                owned_by: text("owned_by").map(Cow::into_owned),
                raw: Some(DialectJson::new(MESSAGES, raw.get())),
            }));
        }
        self.done(out);
        Ok(())
    }

    /// The body has ended.
    fn complete(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if !self.is_success() {
            return Err(error::of_answer(self.backend(), self.head.status, &self.head.headers, &self.body));
        }
        if self.body.is_empty() {
            return Err(self.malformed(match (self.started, self.finished) {
                (false, _) => "it is empty",
                (true, false) => "it ended before its finish",
                (true, true) => "it ended without `message_stop`",
            }));
        }
        let body = std::mem::take(&mut self.body);
        let text = std::str::from_utf8(&body).map_err(|_| self.malformed("it is not UTF-8"))?.trim();
        if !text.starts_with('{') {
            let quoted: String = text.chars().take(200).collect();
            return Err(self.malformed(format_args!("it is not JSON but begins: {quoted}")));
        }
        let message: Message<'_> = serde_json::from_str(text).map_err(|error| self.unreadable("it", &error))?;
        if message.kind.0.as_deref() == Some("error") || message.error.is_some_and(|error| error.get() != "null") {
            return Err(error::of_object(self.backend(), None, text));
        }
        match self.context.operation {
            Operation::Chat => self.whole(message, out),
            Operation::CountTokens => self.count(text, out),
            Operation::Models => self.models(text, out),
        }
    }
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut out = Vec::with_capacity(frames.len() + 2);
        for frame in frames {
            self.guarded(&mut out, |decoder, out| decoder.frame(frame, out));
        }
        out
    }

    fn finish(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        self.guarded(&mut out, Decoder::complete);
        out
    }
}

fn piece(index: u32, text: String) -> BlockDelta {
    BlockDelta { index, text, logprobs: None }
}

/// Ends a block. An input that came with its start is told now, when it is known that no pieces came.
fn stop(open: Open, out: &mut Vec<Event>) {
    match (open.kind, open.input) {
        (Kind::Tool, Some(input)) => out.push(Event::Arguments(piece(open.index, input))),
        (Kind::Answer, Some(input)) => out.push(Event::Text(piece(open.index, input))),
        _ => {}
    }
    out.push(Event::BlockStop(open.index));
}

/// True for an input that says nothing.
fn is_nothing(input: &str) -> bool {
    input == "null"
        || input.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|all| all.trim().is_empty())
}

/// Members that the contract has no names for.
fn other(scope: Scope, members: &Others<'_>, out: &mut Vec<Event>) {
    if !members.is_empty() {
        out.push(Event::other(MESSAGES, scope, object_of(members)));
    }
}

/// Seconds since 1970 of a date like `2025-02-19T00:00:00Z`; fractions are cut, offsets from UTC counted.
fn seconds(date: &str) -> Option<u64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = date.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "" | "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = (zone.get(1..3)?.parse::<i64>().ok()?, zone.get(4..6)?.parse::<i64>().ok()?);
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (hours * 60 + minutes)
        }
    };
    // Years that begin in March: the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 719_469;
    u64::try_from(((days * 24 + hour) * 60 + minute - offset) * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (date, known) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:30:15Z", Some(951_827_415)),
            ("2025-02-19T00:00:00Z", Some(1_739_923_200)),
            ("2025-02-19T01:00:00.123+01:00", Some(1_739_923_200)),
            ("2024-12-31T23:59:59-00:30", Some(1_735_691_399)),
            ("2025-13-01T00:00:00Z", None),
            ("yesterday", None),
            ("1969-12-31T23:59:59Z", None),
        ] {
            assert_eq!(seconds(date), known, "{date}");
        }
    }
}
