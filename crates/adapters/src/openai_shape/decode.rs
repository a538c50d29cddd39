//! An answer of the OpenAI shape to events: streams, whole answers and errors.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Error, Event, Finish, FinishReason, Scope, SseEvent, Started,
    ToolCallStart, Usage,
};

use super::chunk::{
    CHOICES, Choice, Content, ContentPart, Envelope, Message, Only, Others, TOOL_CALLS, ToolCall as ToolCallChunk,
};
use super::json::{self, Members, complaint, count_of, object_of, text_of};
use super::lift::{Lift, Piece};
use super::{Flavour, error};
use crate::repeat::Repeat;

/// Most bytes of arguments that may come before their tool call has a name.
const EARLY_ARGUMENTS: usize = 1024 * 1024;

/// Most bytes of a tool call that is not a function's.
const FOREIGN: usize = 1024 * 1024;

/// Most unknown envelope members that are remembered, and most bytes of each: what is not remembered is told again.
const REMEMBERED: (usize, usize) = (32, 1024);

/// Most bytes of a usage object that is handed on.
pub(super) const USAGE: usize = 16 * 1024;

/// Decodes the answer to a chat or a text completion.
///
/// Choices, blocks and tool calls are told apart by the backend's own numbers; blocks are numbered in the order of their
/// starts. Unknown members come as `other` events; a member beside `choices` that each chunk repeats comes once, and
/// again when it changes.
#[derive(Debug)]
pub(super) struct Generation {
    flavour: Flavour,
    dialect: &'static str,
    /// How many choices were asked for.
    expected: usize,
    /// The tag around reasoning in the text.
    tag: Option<String>,
    started: bool,
    /// Events that came before the answer had begun.
    held: Vec<Event>,
    choices: Vec<ChoiceState>,
    blocks: u32,
    tool_calls: usize,
    ids: BTreeSet<String>,
    remembered: Remembered,
    usage: UsageState,
    repeat: Repeat,
}

/// Members beside `choices` that were told, to be told again only when they change.
#[derive(Debug, Default)]
pub(super) struct Remembered(Vec<(String, String)>);

impl Remembered {
    /// The unknown members that are new or have changed.
    pub(super) fn news(&mut self, dialect: &str, others: &Others<'_>) -> Option<Event> {
        let mut news = Vec::new();
        for (name, value) in others {
            let value: &RawValue = value;
            let room = self.0.len() < REMEMBERED.0 && name.len() + value.get().len() <= REMEMBERED.1;
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) if known == value.get() => continue,
                Some((_, known)) => {
                    known.clear();
                    // Too long a value is not kept: an empty text equals no value, so it is told again.
                    if value.get().len() <= REMEMBERED.1 {
                        known.push_str(value.get());
                    }
                }
                None if room => self.0.push((name.to_string(), value.get().to_owned())),
                None => {}
            }
            news.push((Cow::Borrowed(&**name), value));
        }
        (!news.is_empty()).then(|| Event::other(dialect, Scope::Envelope, object_of(&news)))
    }
}

/// What is known of the usage.
#[derive(Debug, Default)]
struct UsageState {
    last: Option<String>,
    /// How often it came, and the output tokens of all of them.
    objects: u32,
    output: u64,
}

/// One choice of the answer.
#[derive(Debug)]
struct ChoiceState {
    number: u32,
    /// The text, reasoning or refusal block that is open.
    open: Option<(Flow, u32)>,
    tools: Vec<ToolState>,
    finished: bool,
    lift: Option<Lift>,
    /// The stop sequence that was met, where the backend tells.
    stop_sequence: Option<String>,
    /// Unknown members that were null before.
    nulls: BTreeSet<String>,
}

/// One tool call of a choice.
#[derive(Debug)]
struct ToolState {
    index: Option<u64>,
    /// The backend's own id; empty where it gave none.
    id: String,
    name: String,
    block: Option<u32>,
    /// Arguments that came before the name.
    early: String,
    /// What there is of a call that is not a function's.
    foreign: Option<Foreign>,
}

/// A tool call that is not a function's, as OpenAI's `custom`: its object, put together.
#[derive(Debug, Default)]
struct Foreign {
    kind: String,
    /// Names and values of the object that bears the name of the kind; strings without quotes are joined.
    inner: Vec<(String, ForeignValue)>,
    bytes: usize,
}

/// A member of a foreign tool call.
#[derive(Debug)]
enum ForeignValue {
    Text(String),
    Json(String),
}

impl Foreign {
    /// Adds a piece of the object that bears the name of the kind.
    fn add(&mut self, members: &Members<'_>) -> Result<(), Error> {
        for (name, value) in &members.0 {
            self.bytes += name.len() + value.get().len();
            if self.bytes > FOREIGN {
                return Err(Error::malformed(format!("a tool call of the answer has more than {FOREIGN} bytes")));
            }
            let known = self.inner.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value);
            match (known, text_of(value)) {
                (Some(ForeignValue::Text(known)), Some(text)) => known.push_str(&text),
                (Some(known), _) => *known = ForeignValue::Json(value.get().to_owned()),
                (None, Some(text)) => self.inner.push((name.to_string(), ForeignValue::Text(text.into_owned()))),
                (None, None) => self.inner.push((name.to_string(), ForeignValue::Json(value.get().to_owned()))),
            }
        }
        Ok(())
    }

    /// The whole object.
    fn object(&self, id: &str) -> String {
        let mut out = b"{\"id\":".to_vec();
        json::string(&mut out, id);
        out.extend_from_slice(b",\"type\":");
        json::string(&mut out, &self.kind);
        out.push(b',');
        json::string(&mut out, &self.kind);
        out.extend_from_slice(b":{");
        for (at, (name, value)) in self.inner.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::string(&mut out, name);
            out.push(b':');
            match value {
                ForeignValue::Text(text) => json::string(&mut out, text),
                ForeignValue::Json(json) => out.extend_from_slice(json.as_bytes()),
            }
        }
        out.extend_from_slice(b"}}");
        json::utf8(out)
    }
}

/// The kinds of block that hold running text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Text,
    Reasoning,
    Refusal,
}

impl Generation {
    /// For an answer of this dialect of which `expected` choices were asked for.
    pub(super) fn new(flavour: Flavour, dialect: &'static str, expected: usize) -> Self {
        Generation {
            flavour,
            dialect,
            expected,
            tag: None,
            started: false,
            held: Vec::new(),
            choices: Vec::new(),
            blocks: 0,
            tool_calls: 0,
            ids: BTreeSet::new(),
            remembered: Remembered::default(),
            usage: UsageState::default(),
            repeat: Repeat::default(),
        }
    }

    /// Lifts reasoning in this tag out of the text.
    pub(super) fn lift(&mut self, tag: &str) {
        self.tag = Some(tag.to_owned());
    }

    /// One event of a stream.
    pub(super) fn sse(&mut self, event: SseEvent, out: &mut Vec<Event>) -> Result<(), Error> {
        let named_error = event.event.is_some_and(|name| name == "error");
        if named_error {
            self.repeat.forget();
        }
        let text = match self.repeat.next(event.data) {
            Ok(event) => {
                out.push(event);
                return Ok(());
            }
            Err(text) => text,
        };
        self.repeat.forget();
        let data = text.trim();
        if data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            self.check_finished(false)?;
            out.push(Event::Done);
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_str(data).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("the backend sent an event that is not a chunk of an answer: {what}"))
        })?;
        if named_error && envelope.error.is_none() {
            return Err(error::of_object(None, data));
        }
        let (only, before) = (envelope.only(), out.len());
        self.envelope(envelope, false, out)?;
        let events = out.get(before..).unwrap_or_default();
        // Text that was lifted depends on what was before.
        let lifts = || self.choices.iter().any(|choice| choice.lift.is_some());
        if let (Some((only @ Only::Call(_), padding)), [Event::Arguments(_)])
        | (Some((only @ Only::Text(_), padding)), [Event::Text(_) | Event::Reasoning(_)]) = (only, events)
            && !lifts()
            && let Some(text) = only.written()
        {
            self.repeat.note(data, text, padding, events);
        }
        Ok(())
    }

    /// The whole answer, in one JSON object.
    pub(super) fn whole(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("the backend's answer is not the JSON that its API promises: {what}"))
        })?;
        self.envelope(envelope, true, out)?;
        if self.choices.is_empty() {
            return Err(Error::malformed("the backend's answer has no `choices`"));
        }
        out.push(Event::Done);
        Ok(())
    }

    /// The stream has ended without `[DONE]`.
    pub(super) fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Error> {
        if !self.started && self.choices.is_empty() {
            return Err(Error::malformed("the backend's answer is empty"));
        }
        self.check_finished(true)?;
        out.push(Event::Done);
        Ok(())
    }

    /// An answer is complete when each choice that it has, and at its bare end each that was asked for, has finished.
    fn check_finished(&self, all: bool) -> Result<(), Error> {
        let expected = if all { self.expected.max(1) } else { 1 };
        if self.choices.len() >= expected && self.choices.iter().all(|choice| choice.finished) {
            return Ok(());
        }
        Err(Error::malformed("the answer ended before its finish"))
    }

    fn envelope(&mut self, envelope: Envelope<'_>, whole: bool, out: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(error) = envelope.error.filter(|error| error::is_error(error)) {
            return Err(error::of_object(None, error.get()));
        }
        if !self.started {
            let id = envelope.id.filled();
            if id.is_none() && envelope.choices.is_empty() && !whole {
                // Azure's first chunk tells only of its filter: the answer has not begun.
                if let Some(event) = self.remembered.news(self.dialect, &envelope.others)
                    && self.held.len() < REMEMBERED.0
                {
                    self.held.push(event);
                }
                return Ok(());
            }
            self.started = true;
            out.push(Event::Started(Started {
                id: id.map(Cow::into_owned),
                model: envelope.model.filled().map(Cow::into_owned),
                created: envelope.created.and_then(count_of).filter(|created| *created > 0),
            }));
            out.append(&mut self.held);
        }
        out.extend(self.remembered.news(self.dialect, &envelope.others));
        let several = envelope.choices.len() > 1;
        for (position, choice) in envelope.choices.into_iter().enumerate() {
            self.choice(choice, position, whole, out)?;
        }
        if let Some(usage) = envelope.usage {
            out.extend(self.usage(usage, whole && several));
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice<'_>, position: usize, whole: bool, out: &mut Vec<Event>) -> Result<(), Error> {
        let number = choice.index.unwrap_or(if whole { position as u64 } else { 0 });
        let at = match self.choices.iter().position(|state| u64::from(state.number) == number) {
            Some(at) => at,
            None => {
                if number >= CHOICES as u64 {
                    return Err(Error::malformed(format!(
                        "the answer has a choice {number}: at most {CHOICES} are taken"
                    )));
                }
                self.choices.push(ChoiceState {
                    number: number as u32,
                    open: None,
                    tools: Vec::new(),
                    finished: false,
                    lift: self.tag.as_deref().map(Lift::new),
                    stop_sequence: None,
                    nulls: BTreeSet::new(),
                });
                self.choices.len() - 1
            }
        };
        let number = number as u32;
        let mut logprobs = choice.logprobs.map(RawValue::get);
        let before = out.len();
        if let Some(text) = choice.text {
            self.content(at, text, whole, &mut logprobs, out)?;
        }
        if let Some(message) = choice.message {
            self.message(at, message, whole, &mut logprobs, out)?;
        }
        if let Some(logprobs) = logprobs.filter(|logprobs| says_something(logprobs)) {
            if self.choices[at].tools.is_empty() {
                self.flow(at, Flow::Text, Cow::Borrowed(""), Some(logprobs), out);
            } else {
                out.push(Event::other(self.dialect, Scope::Choice(number), format!("{{\"logprobs\":{logprobs}}}")));
            }
        }
        if self.choices[at].finished && out[before..].iter().any(Event::is_content) {
            // Nothing of it stands in front of the failure: a block of a finished choice would be the adapter's fault.
            out.truncate(before);
            return Err(Error::malformed(format!("choice {number} goes on after its finish")));
        }
        if let Some((_, stop)) = choice.others.iter().find(|(name, _)| name == "stop_reason") {
            self.choices[at].stop_sequence = text_of(stop).map(Cow::into_owned);
        }
        if let Some(members) = self.news(at, &choice.others, whole) {
            out.push(Event::other(self.dialect, Scope::Choice(number), members));
        }
        let reason = choice.finish_reason.filled();
        if (reason.is_some() || whole) && !self.choices[at].finished {
            self.finish_choice(at, reason.as_deref(), out)?;
        }
        Ok(())
    }

    /// Unknown members of a choice or its message; one that is null again says nothing new.
    fn news(&mut self, at: usize, others: &Others<'_>, whole: bool) -> Option<String> {
        if others.is_empty() {
            return None;
        }
        let nulls = &mut self.choices[at].nulls;
        let mut news = Vec::new();
        for (name, value) in others {
            let known = !whole && value.get() == "null" && nulls.contains(&**name);
            if !known {
                if value.get() == "null" && nulls.len() < REMEMBERED.0 {
                    nulls.insert(name.to_string());
                }
                news.push((Cow::Borrowed(&**name), *value));
            }
        }
        (!news.is_empty()).then(|| object_of(&news))
    }

    fn message(
        &mut self,
        at: usize,
        message: Message<'_>,
        whole: bool,
        logprobs: &mut Option<&str>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let number = self.choices[at].number;
        // Some backends write the same reasoning under both names.
        let mut thought = None;
        let mut odd = Others::new();
        for (name, value) in [("reasoning_content", message.reasoning_content), ("reasoning", message.reasoning)] {
            let Some(value) = value else { continue };
            match text_of(value) {
                Some(text) if thought.is_none() && !text.is_empty() => thought = Some(text),
                Some(text) if text.is_empty() || thought.as_ref() == Some(&text) => {}
                _ => odd.push((Cow::Borrowed(name), value)),
            }
        }
        // Logprobs belong to the text, if there is any.
        let has_text = match &message.content {
            Content::Nothing => false,
            Content::Text(text) => !text.is_empty(),
            Content::Parts(_) => true,
        };
        let refusal = message.refusal.and_then(text_of).filter(|text| !text.is_empty());
        if let Some(text) = thought {
            let logprobs = if has_text || refusal.is_some() { None } else { logprobs.take() };
            self.flow(at, Flow::Reasoning, text, logprobs, out);
        }
        // Another gateway of our kind gives the proof of the reasoning too.
        let proof = message.others.iter().find(|(name, _)| name == "reasoning_signature");
        if let Some(text) = proof.and_then(|(_, value)| text_of(value)).filter(|text| !text.is_empty()) {
            let index = self.open(at, Flow::Reasoning, out);
            out.push(Event::Signature(BlockDelta { index, text: text.into_owned(), logprobs: None }));
        }
        let calls = !message.tool_calls.is_empty();
        self.content(at, message.content, whole && !calls, logprobs, out)?;
        if let Some(text) = refusal {
            self.flow(at, Flow::Refusal, text, logprobs.take(), out);
        }
        for (position, call) in message.tool_calls.iter().enumerate() {
            self.tool_call(at, call, whole.then_some(position as u64), out)?;
        }
        odd.extend(message.others.into_iter().filter(|(name, _)| name != "reasoning_signature"));
        if let Some(members) = self.news(at, &odd, whole) {
            out.push(Event::other(self.dialect, Scope::Message(number), members));
        }
        Ok(())
    }

    /// The content of a message. `keep_empty`: an empty text is a block all the same.
    fn content(
        &mut self,
        at: usize,
        content: Content<'_>,
        keep_empty: bool,
        logprobs: &mut Option<&str>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        match content {
            Content::Nothing => {}
            Content::Text(text) if text.is_empty() => {
                if keep_empty {
                    self.open(at, Flow::Text, out);
                }
            }
            Content::Text(text) => self.said(at, text, logprobs, out),
            Content::Parts(parts) => {
                for part in parts {
                    self.content_part(at, part, logprobs, out)?;
                }
            }
        }
        Ok(())
    }

    /// Text of the answer, out of which reasoning may have to be lifted.
    fn said(&mut self, at: usize, text: Cow<'_, str>, logprobs: &mut Option<&str>, out: &mut Vec<Event>) {
        let Some(mut lift) = self.choices[at].lift.take() else {
            return self.flow(at, Flow::Text, text, logprobs.take(), out);
        };
        let mut pieces = Vec::new();
        let more = lift.push(&text, &mut pieces);
        self.lifted(at, pieces, logprobs, out);
        self.choices[at].lift = more.then_some(lift);
    }

    /// Tells the pieces of a text out of which reasoning was lifted.
    fn lifted(&mut self, at: usize, pieces: Vec<Piece>, logprobs: &mut Option<&str>, out: &mut Vec<Event>) {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => self.flow(at, Flow::Reasoning, Cow::Owned(text), None, out),
                Piece::Text(text) => self.flow(at, Flow::Text, Cow::Owned(text), logprobs.take(), out),
            }
        }
    }

    /// One part of a content list.
    fn content_part(
        &mut self,
        at: usize,
        raw: &RawValue,
        logprobs: &mut Option<&str>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if let Some(text) = text_of(raw) {
            self.flow(at, Flow::Text, text, logprobs.take(), out);
            return Ok(());
        }
        let part: ContentPart<'_> = serde_json::from_str(raw.get()).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("a part of the answer's content is not an object with a `type`: {what}"))
        })?;
        let text = part.text.and_then(text_of);
        match (part.kind.0.as_deref(), text, part.thinking) {
            (Some("text"), Some(text), None) => {
                self.flow(at, Flow::Text, text, logprobs.take(), out);
                if !part.others.is_empty() {
                    let members = format!("{{\"content\":[{}]}}", object_of(&part.others));
                    out.push(Event::other(self.dialect, Scope::Message(self.choices[at].number), members));
                }
            }
            (Some("thinking"), None, Some(thinking)) => {
                let pieces: Vec<ContentPart<'_>> = match text_of(thinking) {
                    Some(text) => {
                        self.flow(at, Flow::Reasoning, text, None, out);
                        Vec::new()
                    }
                    None => serde_json::from_str(thinking.get()).unwrap_or_default(),
                };
                for text in pieces.iter().filter_map(|piece| text_of(piece.text?)) {
                    self.flow(at, Flow::Reasoning, text, None, out);
                }
            }
            _ => {
                let members = format!("{{\"content\":[{}]}}", raw.get());
                out.push(Event::other(self.dialect, Scope::Message(self.choices[at].number), members));
            }
        }
        Ok(())
    }

    /// The open block of this kind; opens one where another kind is open, or none.
    fn open(&mut self, at: usize, flow: Flow, out: &mut Vec<Event>) -> u32 {
        let choice = &mut self.choices[at];
        if let Some((open, index)) = choice.open {
            if open == flow {
                return index;
            }
            out.push(Event::BlockStop(index));
        }
        let index = self.blocks;
        self.blocks += 1;
        choice.open = Some((flow, index));
        let kind = match flow {
            Flow::Text => BlockKind::Text,
            Flow::Reasoning => BlockKind::Reasoning,
            Flow::Refusal => BlockKind::Refusal,
        };
        out.push(Event::BlockStart(BlockStart { index, choice: choice.number, kind }));
        index
    }

    /// More text of a kind.
    fn flow(&mut self, at: usize, flow: Flow, text: Cow<'_, str>, logprobs: Option<&str>, out: &mut Vec<Event>) {
        if text.is_empty() && logprobs.is_none() {
            return;
        }
        let index = self.open(at, flow, out);
        let delta = BlockDelta { index, text: text.into_owned(), logprobs: logprobs.map(str::to_owned) };
        out.push(if flow == Flow::Reasoning { Event::Reasoning(delta) } else { Event::Text(delta) });
    }

    /// A tool call, or a piece of one. `position` is its place in a whole answer.
    fn tool_call(
        &mut self,
        at: usize,
        raw: &RawValue,
        position: Option<u64>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let call: ToolCallChunk<'_> = serde_json::from_str(raw.get()).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("a tool call of the answer is not what its API promises: {what}"))
        })?;
        let number = self.choices[at].number;
        let Some(function) = call.function else {
            return self.foreign_call(at, call, position);
        };
        let (id, name) = (call.id.filled(), function.name.filled());
        let place = self.find_tool(at, position, call.index, id.as_deref(), name.as_deref())?;
        let tool = &mut self.choices[at].tools[place];
        if tool.id.is_empty()
            && let Some(id) = id
        {
            tool.id = id.into_owned();
        }
        if tool.block.is_none()
            && let Some(name) = name
        {
            tool.name = name.into_owned();
        }
        // Arguments are a string of JSON; a few backends write the JSON itself.
        let arguments = match function.arguments {
            Some(arguments) => text_of(arguments).unwrap_or(Cow::Borrowed(arguments.get())),
            None => Cow::Borrowed(""),
        };
        if tool.block.is_none() && !tool.name.is_empty() {
            self.start_tool(at, place, out);
        }
        let tool = &mut self.choices[at].tools[place];
        match tool.block {
            Some(index) => {
                let text = if tool.early.is_empty() {
                    arguments.into_owned()
                } else {
                    let mut text = std::mem::take(&mut tool.early);
                    text.push_str(&arguments);
                    text
                };
                if !text.is_empty() {
                    out.push(Event::Arguments(BlockDelta { index, text, logprobs: None }));
                }
            }
            None => {
                if tool.early.len() + arguments.len() > EARLY_ARGUMENTS {
                    return Err(Error::malformed(format!(
                        "a tool call of choice {number} has more than {EARLY_ARGUMENTS} bytes of arguments and no name"
                    )));
                }
                tool.early.push_str(&arguments);
            }
        }
        if !call.others.is_empty() || !function.others.is_empty() {
            let mut members = format!("{{\"tool_calls\":[{{\"index\":{place}");
            if !function.others.is_empty() {
                members.push_str(",\"function\":");
                members.push_str(&object_of(&function.others));
            }
            if let Some(inner) = object_of(&call.others).strip_prefix('{').filter(|inner| *inner != "}") {
                members.push(',');
                members.push_str(inner);
            } else {
                members.push('}');
            }
            members.push_str("]}");
            out.push(Event::other(self.dialect, Scope::Message(number), members));
        }
        Ok(())
    }

    /// A call that is not a function's, or a piece of one: it is told whole, when the choice ends.
    fn foreign_call(&mut self, at: usize, call: ToolCallChunk<'_>, position: Option<u64>) -> Result<(), Error> {
        let kind = call.kind.filled().filter(|kind| kind != "function");
        let id = call.id.filled();
        if kind.is_none() && id.is_none() && call.others.is_empty() {
            // A bare `{"index":0}` says nothing.
            return Ok(());
        }
        let place = self.find_tool(at, position, call.index, id.as_deref(), kind.as_deref())?;
        let tool = &mut self.choices[at].tools[place];
        if let (Some(kind), None) = (kind, &tool.foreign) {
            tool.foreign = Some(Foreign { kind: kind.into_owned(), ..Foreign::default() });
        }
        if let Some(id) = id {
            tool.id = id.into_owned();
        }
        if let Some(foreign) = &mut tool.foreign {
            let inner = call.others.iter().find(|(name, _)| **name == foreign.kind);
            let inner = inner.map(|(_, value)| Members::parse(Some(value.get())).unwrap_or_default());
            foreign.add(&inner.unwrap_or_default())?;
        }
        Ok(())
    }

    /// The place of the tool call that a piece belongs to; a new one where it begins another.
    fn find_tool(
        &mut self,
        at: usize,
        position: Option<u64>,
        index: Option<u64>,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Result<usize, Error> {
        let choice = &mut self.choices[at];
        let known = match (position, index, id) {
            (Some(_), ..) => None,
            (None, Some(index), _) => choice.tools.iter().rposition(|tool| tool.index == Some(index)),
            (None, None, Some(id)) => choice.tools.iter().rposition(|tool| tool.id == id),
            (None, None, None) => choice.tools.len().checked_sub(1).filter(|_| name.is_none()),
        };
        // Some backends give every call the number 0: another id or another name begins another call.
        let known = known.filter(|place| {
            let tool = &choice.tools[*place];
            let other_id = id.is_some_and(|id| !tool.id.is_empty() && tool.id != id);
            let other_name = name.is_some_and(|name| tool.block.is_some() && tool.name != name);
            !(other_id && name.is_some() || other_name)
        });
        if let Some(place) = known {
            return Ok(place);
        }
        if self.tool_calls == TOOL_CALLS {
            return Err(Error::malformed(format!("the answer has more than {TOOL_CALLS} tool calls")));
        }
        self.tool_calls += 1;
        let tool = ToolState {
            index: position.or(index),
            id: String::new(),
            name: String::new(),
            block: None,
            early: String::new(),
            foreign: None,
        };
        choice.tools.push(tool);
        Ok(choice.tools.len() - 1)
    }

    /// Begins the block of a tool call that has a name.
    fn start_tool(&mut self, at: usize, place: usize, out: &mut Vec<Event>) {
        let choice = &mut self.choices[at];
        if let Some((_, index)) = choice.open.take() {
            out.push(Event::BlockStop(index));
        }
        let number = choice.number;
        let tool = &mut choice.tools[place];
        let wanted = if tool.id.is_empty() { format!("call_{number}_{place}") } else { tool.id.clone() };
        let mut id = wanted.clone();
        let mut again = place;
        while !self.ids.insert(id.clone()) {
            id = format!("{wanted}_{again}");
            again += 1;
        }
        let index = self.blocks;
        self.blocks += 1;
        tool.block = Some(index);
        let kind = BlockKind::ToolCall(ToolCallStart { id, name: tool.name.clone() });
        out.push(Event::BlockStart(BlockStart { index, choice: number, kind }));
    }

    /// Ends a choice: its blocks, then itself.
    fn finish_choice(&mut self, at: usize, reason: Option<&str>, out: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(lift) = self.choices[at].lift.take() {
            self.lifted(at, lift.finish(), &mut None, out);
        }
        let choice = &mut self.choices[at];
        if let Some((_, index)) = choice.open.take() {
            out.push(Event::BlockStop(index));
        }
        for (place, tool) in choice.tools.iter_mut().enumerate() {
            if let Some(foreign) = tool.foreign.take() {
                let index = self.blocks;
                self.blocks += 1;
                if tool.id.is_empty() {
                    tool.id = format!("call_{}_{place}", choice.number);
                }
                let kind = BlockKind::Other(DialectJson::new(self.dialect, foreign.object(&tool.id)));
                out.push(Event::BlockStart(BlockStart { index, choice: choice.number, kind }));
                out.push(Event::BlockStop(index));
                continue;
            }
            let Some(index) = tool.block else {
                let number = choice.number;
                return Err(Error::malformed(format!("tool call {place} of choice {number} has no name")));
            };
            out.push(Event::BlockStop(index));
        }
        choice.finished = true;
        let called = !choice.tools.is_empty() && self.flavour == Flavour::LlamaCpp;
        let mapped = match reason {
            None | Some("stop" | "eos") if called => FinishReason::ToolCalls,
            None | Some("stop" | "eos") => FinishReason::Stop,
            Some("length" | "max_tokens") => FinishReason::Length,
            Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
            Some("content_filter") => FinishReason::ContentFilter,
            Some(other) => FinishReason::Other(other.to_owned()),
        };
        out.push(Event::Finish(Finish {
            choice: choice.number,
            reason: mapped,
            raw: reason.map(str::to_owned),
            stop_sequence: choice.stop_sequence.take(),
        }));
        Ok(())
    }

    /// What the answer has cost so far. `several`: a whole answer of more than one choice.
    fn usage(&mut self, raw: &RawValue, several: bool) -> Option<Event> {
        let said: UsageObject<'_> = serde_json::from_str(raw.get()).ok()?;
        let llama = self.flavour == Flavour::LlamaCpp;
        // A stream may repeat its usage on every chunk. llama.cpp gives each choice its own, and they may be equal.
        if !llama && self.usage.last.as_deref() == Some(raw.get()) {
            return None;
        }
        self.usage.last = (!llama && raw.get().len() <= USAGE).then(|| raw.get().to_owned());
        let mut usage = said.counts();
        usage.raw = (raw.get().len() <= USAGE).then(|| DialectJson::new(self.dialect, raw.get()));
        if llama {
            self.usage.objects = self.usage.objects.saturating_add(1);
            self.usage.output = self.usage.output.saturating_add(usage.output_tokens.unwrap_or(0));
            if self.usage.objects > 1 {
                usage.output_tokens = Some(self.usage.output);
                usage.raw = Some(DialectJson::new(self.dialect, summed(&usage)));
            }
            // Not in a stream, it counts the first choice only.
            usage.estimated = several;
        }
        Some(Event::Usage(usage))
    }
}

/// A usage object in OpenAI's shape of counts that were summed.
fn summed(usage: &Usage) -> String {
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    let total = input.saturating_add(output);
    let mut text = format!("{{\"completion_tokens\":{output},\"prompt_tokens\":{input},\"total_tokens\":{total}");
    if let Some(cached) = usage.cache_read_tokens {
        text.push_str(&format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}"));
    }
    text.push('}');
    text
}

/// True where a `logprobs` object lists at least one token.
fn says_something(logprobs: &str) -> bool {
    #[derive(Deserialize)]
    struct Lists<'a> {
        #[serde(borrow)]
        content: Option<&'a RawValue>,
        #[serde(borrow)]
        refusal: Option<&'a RawValue>,
        #[serde(borrow)]
        tokens: Option<&'a RawValue>,
    }
    let Ok(lists) = serde_json::from_str::<Lists<'_>>(logprobs) else { return true };
    let lists = [lists.content, lists.refusal, lists.tokens];
    lists.into_iter().flatten().any(|list| list.get() != "[]")
}

/// A usage object: OpenAI's names, and those that other backends have for the same.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UsageObject<'a> {
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_hit_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens_details: Option<Details<'a>>,
    #[serde(borrow)]
    completion_tokens_details: Option<Details<'a>>,
}

/// The details of a usage object.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    #[serde(borrow)]
    cached_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_write_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_tokens: Option<&'a RawValue>,
}

impl UsageObject<'_> {
    pub(super) fn counts(&self) -> Usage {
        let count = |value: Option<&RawValue>| value.and_then(count_of);
        let input = count(self.prompt_tokens);
        let rest = || count(self.total_tokens)?.checked_sub(input?);
        let prompt = self.prompt_tokens_details.as_ref();
        let completion = self.completion_tokens_details.as_ref();
        Usage {
            input_tokens: input,
            output_tokens: count(self.completion_tokens).or_else(rest),
            cache_read_tokens: count(prompt.and_then(|d| d.cached_tokens)).or(count(self.prompt_cache_hit_tokens)),
            cache_write_tokens: count(prompt.and_then(|d| d.cache_write_tokens)),
            reasoning_tokens: count(completion.and_then(|d| d.reasoning_tokens)),
            estimated: false,
            raw: None,
        }
    }
}
