//! Answers to events.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::value::RawValue;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, Decoder, DialectJson, Embedding, Error, Event, Finish, FinishReason, Frame,
    ModelEntry, ResponseHead, Scope, Started, ToolCallStart, Usage, Vector,
};

use super::wire::{Chunk, Logprob, Tag, Tags, ToolCall, Vectors};
use super::{Context, Operation, UNNAMED, error, time};
use crate::openai_shape::chunk::Others;
use crate::openai_shape::error::is_error;
use crate::openai_shape::json::{self, complaint, count_of, object_of, text_of};
use crate::repeat::{Repeat, inside};

/// Most bytes of a whole answer.
const WHOLE: usize = 32 * 1024 * 1024;

/// Most bytes of an error answer that are looked at.
const ERROR_BODY: usize = 64 * 1024;

/// Most events for one frame, and most blocks of one answer: the contract's own bounds.
const EVENTS: usize = 4096;

/// Most unknown members that are remembered, and most bytes of each: what is not remembered is told again.
const REMEMBERED: (usize, usize) = (32, 1024);

/// The kinds of block that hold running text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flow {
    Text,
    Reasoning,
}

/// Decodes one answer of Ollama.
#[derive(Debug)]
pub struct OllamaDecoder {
    context: Context,
    head: ResponseHead,
    /// The bytes of an answer that is not a stream.
    body: Vec<u8>,
    started: bool,
    ended: bool,
    /// The block of running text that is open.
    open: Option<(Flow, u32)>,
    blocks: u32,
    /// Tool calls of this answer.
    calls: u64,
    /// Ids of tool calls of this answer.
    ids: BTreeSet<String>,
    /// Unknown members that were told: `true` for those of the message.
    remembered: Vec<(bool, String, String)>,
    repeat: Repeat,
}

impl OllamaDecoder {
    pub(super) fn new(context: Context, head: ResponseHead) -> Self {
        OllamaDecoder {
            context,
            head,
            body: Vec::new(),
            started: false,
            ended: false,
            open: None,
            blocks: 0,
            calls: 0,
            ids: BTreeSet::new(),
            remembered: Vec::new(),
            repeat: Repeat::default(),
        }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    fn fail(&mut self, error: Error, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(error));
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Event>) -> Result<(), Error> {
        match frame {
            Frame::Line(line) if self.is_success() => match self.repeat.next(line) {
                Ok(event) => {
                    out.push(event);
                    Ok(())
                }
                Err(line) => self.line(&line, out),
            },
            Frame::Line(line) => self.frame(Frame::Bytes(line.into_bytes()), out),
            Frame::Bytes(bytes) => {
                let most = if self.is_success() { WHOLE } else { ERROR_BODY };
                let room = most.saturating_sub(self.body.len());
                if self.is_success() && bytes.len() > room {
                    return Err(Error::malformed(format!("Ollama's answer has more than {most} bytes")));
                }
                if self.body.is_empty() && bytes.len() <= room {
                    self.body = bytes;
                } else {
                    self.body.extend(bytes.into_iter().take(room));
                }
                Ok(())
            }
            Frame::Sse(_) | Frame::Message(_) => Err(Error::malformed(
                "the answer came in frames that Ollama does not send: lines of JSON, or one JSON object, were expected",
            )),
        }
    }

    /// The whole answer, in one JSON object.
    fn whole(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        let body = std::mem::take(&mut self.body);
        let text = std::str::from_utf8(&body).map_err(|_| Error::malformed("Ollama's answer is not UTF-8"))?;
        match self.context.operation {
            Operation::Chat | Operation::Generate => self.line(text, out)?,
            Operation::Embed | Operation::Embeddings => self.vectors(text, out)?,
            Operation::Tags => self.tags(text, out)?,
        }
        if self.ended { Ok(()) } else { Err(ended_early()) }
    }

    /// One line of a stream, or the whole of an answer that is none.
    fn line(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        self.repeat.forget();
        let mut chunk: Chunk<'_> = serde_json::from_str(text).map_err(|error| not_promised(&error))?;
        if let Some(error) = chunk.error.filter(|error| is_error(error)) {
            return Err(error::of_object(error.get(), text));
        }
        let created = chunk.created_at.and_then(text_of);
        if !self.started {
            let created = created.as_deref().and_then(time::seconds);
            self.start(std::mem::take(&mut chunk.model).filled(), created, out);
        }
        let (content, thinking, calls, others) = match chunk.message {
            Some(message) => (message.content, message.thinking, message.tool_calls, message.others),
            None => (chunk.response, chunk.thinking, chunk.tool_calls, Others::new()),
        };
        let content = content.map(|text| text.0).unwrap_or_default();
        let thinking = thinking.map(|text| text.0).unwrap_or_default();
        let said = match (&content, &thinking) {
            (Cow::Borrowed(text), thinking) if thinking.is_empty() => *text,
            (content, Cow::Borrowed(text)) if content.is_empty() => *text,
            _ => "",
        };
        // To a client of another dialect, the time of a line is told with the last one only.
        let time = chunk.created_at.filter(|_| !self.context.native).and_then(inside);
        let before = out.len();
        let logprobs = chunk.logprobs.and_then(|logprobs| self.logprobs(logprobs.get()));
        let (done, native) = (chunk.done == Some(true), self.context.native);
        // `other` of a line stands in front of its text: a renderer of this dialect writes it into the same line.
        let mut beside = chunk.others;
        if let Some(created) = chunk.created_at.filter(|_| done || native) {
            beside.push((Cow::Borrowed("created_at"), created));
        }
        if !done {
            self.tell(Scope::Envelope, &beside, out);
        }
        self.tell(Scope::Message(0), &others, out);
        let silent = content.is_empty() && !(thinking.is_empty() && calls.is_empty());
        let (of_thinking, of_text) = match logprobs {
            Some(json) if silent && !native => {
                out.push(Event::other(self.dialect(), Scope::Choice(0), format!("{{\"logprobs\":{json}}}")));
                (None, None)
            }
            Some(json) if content.is_empty() && !thinking.is_empty() => (Some(json), None),
            logprobs => (None, logprobs),
        };
        self.flow(Flow::Reasoning, thinking, of_thinking, out)?;
        self.flow(Flow::Text, content, of_text, out)?;
        for call in calls {
            self.tool_call(call, out)?;
        }
        if done {
            self.close(out);
            let word = chunk.done_reason.filled();
            let reason;
            if let Some(word) = word.as_deref().filter(|word| !matches!(*word, "stop" | "length")) {
                reason = RawValue::from_string(quoted(word)).ok();
                beside.extend(reason.as_deref().map(|reason| (Cow::Borrowed("done_reason"), reason)));
            }
            self.tell(Scope::Envelope, &beside, out);
            out.extend(usage(self.dialect(), &chunk.metrics));
            self.finished(word, out);
        } else {
            self.repeat.note(text, said, time, out.get(before..).unwrap_or_default());
        }
        Ok(())
    }

    fn dialect(&self) -> &'static str {
        self.context.operation.dialect()
    }

    fn start(&mut self, model: Option<Cow<'_, str>>, created: Option<u64>, out: &mut Vec<Event>) {
        self.started = true;
        out.push(Event::Started(Started { id: None, model: model.map(Cow::into_owned), created }));
    }

    fn finished(&mut self, word: Option<Cow<'_, str>>, out: &mut Vec<Event>) {
        let stop = if self.calls > 0 { FinishReason::ToolCalls } else { FinishReason::Stop };
        let reason = match word.as_deref() {
            None | Some("stop" | "load" | "unload") => stop,
            Some("length") => FinishReason::Length,
            Some(other) => FinishReason::Other(other.to_owned()),
        };
        out.push(Event::Finish(Finish { choice: 0, reason, raw: word.map(Cow::into_owned), stop_sequence: None }));
        out.push(Event::Done);
        self.ended = true;
    }

    /// More running text.
    fn flow(
        &mut self,
        flow: Flow,
        text: Cow<'_, str>,
        logprobs: Option<String>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if text.is_empty() && logprobs.is_none() {
            return Ok(());
        }
        let index = match self.open {
            Some((open, index)) if open == flow => index,
            _ => {
                self.close(out);
                let kind = match flow {
                    Flow::Text => BlockKind::Text,
                    Flow::Reasoning => BlockKind::Reasoning,
                };
                let index = self.block(kind, out)?;
                self.open = Some((flow, index));
                index
            }
        };
        let delta = BlockDelta { index, text: text.into_owned(), logprobs };
        out.push(match flow {
            Flow::Text => Event::Text(delta),
            Flow::Reasoning => Event::Reasoning(delta),
        });
        Ok(())
    }

    fn block(&mut self, kind: BlockKind, out: &mut Vec<Event>) -> Result<u32, Error> {
        let index = self.blocks;
        if index as usize >= EVENTS {
            return Err(Error::malformed(format!("the answer has more than {EVENTS} blocks")));
        }
        self.blocks += 1;
        out.push(Event::BlockStart(BlockStart { index, choice: 0, kind }));
        Ok(index)
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if let Some((_, index)) = self.open.take() {
            out.push(Event::BlockStop(index));
        }
    }

    fn tool_call(&mut self, call: ToolCall<'_>, out: &mut Vec<Event>) -> Result<(), Error> {
        let mut function = call.function.unwrap_or_default();
        let Some(name) = function.name.filled() else {
            return Err(Error::malformed("a tool call of the answer has no name"));
        };
        let arguments = match function.arguments {
            None => Cow::Borrowed("{}"),
            Some(arguments) => {
                object(arguments).ok_or_else(|| Error::malformed("the arguments of a tool call are not an object"))?
            }
        };
        let own = call.id.filled().map(Cow::into_owned).filter(|id| !self.ids.contains(id));
        let id = own.unwrap_or_else(|| self.new_id());
        self.ids.insert(id.clone());
        self.close(out);
        let index = self.block(BlockKind::ToolCall(ToolCallStart { id, name: name.into_owned() }), out)?;
        if arguments != "{}" {
            out.push(Event::Arguments(BlockDelta { index, text: arguments.into_owned(), logprobs: None }));
        }
        if let Some(place) = function.index.filter(|place| count_of(place) != Some(self.calls)) {
            function.others.push((Cow::Borrowed("index"), place));
        }
        if !(function.others.is_empty() && call.others.is_empty()) {
            let mut members = b"{".to_vec();
            for (name, value) in &call.others {
                json::member(&mut members, name, value);
                members.push(b',');
            }
            members.extend_from_slice(b"\"function\":");
            members.extend_from_slice(object_of(&function.others).as_bytes());
            members.push(b'}');
            out.push(Event::other(self.dialect(), Scope::Block(index), json::utf8(members)));
        }
        out.push(Event::BlockStop(index));
        self.calls += 1;
        Ok(())
    }

    /// An id that no call of the conversation has.
    fn new_id(&self) -> String {
        let first = self.context.count.saturating_add(self.calls);
        // Fewer ids are taken than this answer has calls, so one of these is free.
        let mut candidates = (first..=first.saturating_add(self.calls)).map(|number| format!("{UNNAMED}{number}"));
        candidates.find(|id| !self.ids.contains(id)).unwrap_or_default()
    }

    /// Tells the unknown members: to a client of another dialect only those that are new or have changed.
    fn tell(&mut self, scope: Scope, others: &Others<'_>, out: &mut Vec<Event>) {
        let of_message = matches!(scope, Scope::Message(_));
        let mut news = Others::new();
        for (name, value) in others {
            let value: &RawValue = value;
            if self.context.native || self.is_new(of_message, name, value) {
                news.push((Cow::Borrowed(&**name), value));
            }
        }
        if !news.is_empty() {
            out.push(Event::other(self.dialect(), scope, object_of(&news)));
        }
    }

    /// Remembers a member. False where it was told before.
    fn is_new(&mut self, of_message: bool, name: &str, value: &RawValue) -> bool {
        let value = value.get();
        let short = name.len() + value.len() <= REMEMBERED.1;
        let room = self.remembered.len() < REMEMBERED.0;
        match self.remembered.iter_mut().find(|(scope, known, _)| *scope == of_message && known == name) {
            Some((_, _, known)) if known == value => return false,
            // Too long a value is not kept: an empty text equals no value, so it is told again.
            Some((_, _, known)) => *known = if short { value.to_owned() } else { String::new() },
            None if short && room => self.remembered.push((of_message, name.to_owned(), value.to_owned())),
            None => {}
        }
        true
    }

    /// Log probabilities as OpenAI's object of them; nothing where there are none.
    fn logprobs(&self, list: &str) -> Option<String> {
        if matches!(list, "null" | "[]") {
            return None;
        }
        if !self.context.native
            && let Ok(tokens) = serde_json::from_str::<Vec<Logprob<'_>>>(list)
        {
            let mut out = b"{\"content\":".to_vec();
            write_logprobs(&mut out, &tokens, true);
            out.push(b'}');
            return Some(json::utf8(out));
        }
        Some(format!("{{\"content\":{list}}}"))
    }

    fn vectors(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let answer: Vectors<'_> = serde_json::from_str(text).map_err(|error| not_promised(&error))?;
        if let Some(error) = answer.error.filter(|error| is_error(error)) {
            return Err(error::of_object(error.get(), text));
        }
        let vectors = answer.embeddings;
        if vectors.len() as u64 != self.context.count {
            let (found, expected) = (vectors.len(), self.context.count);
            return Err(Error::malformed(format!("Ollama's answer has {found} embeddings for {expected} texts")));
        }
        if vectors.iter().any(|vector| !vector.get().starts_with('[')) {
            return Err(Error::malformed("an embedding of Ollama's answer is not a list"));
        }
        self.start(answer.model.filled(), None, out);
        for (index, vector) in (0..).zip(vectors) {
            out.push(Event::Embedding(Embedding { index, values: Vector::Numbers(vector.get().to_owned()) }));
        }
        self.tell(Scope::Envelope, &answer.others, out);
        out.extend(usage(self.dialect(), &answer.metrics));
        out.push(Event::Done);
        self.ended = true;
        Ok(())
    }

    fn tags(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let answer: Tags<'_> = serde_json::from_str(text).map_err(|error| not_promised(&error))?;
        if let Some(error) = answer.error.filter(|error| is_error(error)) {
            return Err(error::of_object(error.get(), text));
        }
        let models = answer.models.ok_or_else(|| Error::malformed("Ollama's answer has no `models`"))?;
        self.start(None, None, out);
        for model in models {
            let tag: Tag<'_> = serde_json::from_str(model.get()).map_err(|error| not_promised(&error))?;
            let Some(id) = tag.model.filled().or(tag.name.filled()) else {
                return Err(Error::malformed("a model of Ollama's answer has no name"));
            };
            out.push(Event::Model(ModelEntry {
                id: id.into_owned(),
                created: tag.modified_at.filled().and_then(|date| time::seconds(&date)),
                owned_by: None,
                raw: Some(DialectJson::new(self.dialect(), model.get())),
            }));
        }
        self.tell(Scope::Envelope, &answer.others, out);
        out.push(Event::Done);
        self.ended = true;
        Ok(())
    }
}

fn ended_early() -> Error {
    Error::malformed("the answer ended before its finish: no line had `done`")
}

fn not_promised(error: &serde_json::Error) -> Error {
    Error::malformed(format!("Ollama's answer is not the JSON that its API promises: {}", complaint(error)))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::string(&mut out, text);
    json::utf8(out)
}

/// What the answer cost, where it tells something.
fn usage(dialect: &str, metrics: &Others<'_>) -> Option<Event> {
    let count = |name: &str| metrics.iter().find(|(known, _)| known == name).and_then(|(_, count)| count_of(count));
    (!metrics.is_empty()).then(|| {
        Event::Usage(Usage {
            input_tokens: count("prompt_eval_count"),
            output_tokens: count("eval_count"),
            raw: Some(DialectJson::new(dialect, object_of(metrics))),
            ..Usage::default()
        })
    })
}

/// The object that a value is, or holds as text; nothing is an empty one.
fn object(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = match text_of(value) {
        Some(text) => text,
        None if value.get().starts_with('{') => return Some(Cow::Borrowed(value.get())),
        None => return (value.get() == "null").then_some(Cow::Borrowed("{}")),
    };
    let trimmed = inner.trim();
    if trimmed.is_empty() {
        return Some(Cow::Borrowed("{}"));
    }
    let valid = trimmed.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok();
    valid.then(|| Cow::Owned(trimmed.to_owned()))
}

/// Writes tokens with the members that OpenAI's have always.
fn write_logprobs(out: &mut Vec<u8>, tokens: &[Logprob<'_>], with_top: bool) {
    out.push(b'[');
    for (at, token) in tokens.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'{');
        for (name, value) in &token.others {
            json::member(out, name, value);
            out.push(b',');
        }
        out.extend_from_slice(b"\"bytes\":");
        out.extend_from_slice(token.bytes.map_or("null", RawValue::get).as_bytes());
        if with_top {
            out.extend_from_slice(b",\"top_logprobs\":");
            write_logprobs(out, token.top_logprobs.as_deref().unwrap_or_default(), false);
        }
        out.push(b'}');
    }
    out.push(b']');
}

impl Decoder for OllamaDecoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut out = Vec::with_capacity(frames.len() + 2);
        for frame in frames {
            if self.ended {
                break;
            }
            let before = out.len();
            if let Err(error) = self.frame(frame, &mut out) {
                self.fail(error, &mut out);
            }
            if out.len() - before > EVENTS {
                out.truncate(before);
                let message = format!("one line of the answer makes more than {EVENTS} events");
                self.fail(Error::malformed(message), &mut out);
            }
        }
        out
    }

    fn finish(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        let result = if !self.is_success() {
            Err(error::of_answer(self.head.status, &self.head.headers, &self.body))
        } else if !self.body.is_empty() {
            self.whole(&mut out)
        } else if self.started {
            Err(ended_early())
        } else {
            Err(Error::malformed("Ollama's answer is empty"))
        };
        if let Err(error) = result {
            self.fail(error, &mut out);
        }
        if out.len() > EVENTS {
            out.clear();
            self.fail(Error::malformed(format!("the answer makes more than {EVENTS} events")), &mut out);
        }
        out
    }
}
