//! An answer of the Responses API to events.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Error, Event, Finish, FinishReason, Scope, SseEvent, Started,
    ToolCallStart, Usage,
};

use crate::openai_shape::chunk::List;
use crate::openai_shape::decode::{Remembered, USAGE};
use crate::openai_shape::json::{Members, complaint, count_of, object_of, text_of};
use crate::openai_shape::{RESPONSES, error};

/// Most items and most blocks of one answer.
const MOST: usize = 4096;

/// Most pieces of one item.
const PIECES: usize = 1024;

/// One event of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    part: Option<&'a RawValue>,
    output_index: Option<u64>,
    #[serde(borrow)]
    item_id: Option<&'a RawValue>,
    content_index: Option<u64>,
    summary_index: Option<u64>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    annotation: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The response object.
struct Response<'a> {
    members: Members<'a>,
}

/// Members of the response that are said by events of their own.
const SAID: [&str; 9] =
    ["id", "object", "created_at", "model", "output", "usage", "error", "status", "incomplete_details"];

/// Members of an item that are said by events of their own, or by its kind.
const SAID_OF_ITEM: [&str; 9] =
    ["type", "role", "status", "content", "call_id", "name", "arguments", "summary", "encrypted_content"];

impl<'a> Response<'a> {
    fn parse(json: &'a str) -> Result<Self, Error> {
        let members = Members::parse(Some(json)).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("the backend's response is not the JSON that its API promises: {what}"))
        })?;
        Ok(Response { members })
    }

    fn value(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        found.filter(|value| value.get() != "null")
    }

    fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text_of(self.value(name)?).filter(|text| !text.is_empty())
    }
}

/// What an item holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    FunctionCall,
    Reasoning,
    Foreign,
}

/// What a block of a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Text,
    Refusal,
}

/// One item of the output.
#[derive(Debug)]
struct Item {
    /// Its `output_index`.
    number: u64,
    /// Its `id`; empty where it has none.
    id: String,
    kind: Kind,
    /// What it says of itself, to be told with its first block.
    members: Option<String>,
    /// The block of a function call or of reasoning.
    block: Option<u32>,
    /// Some of its arguments or of its text have been told.
    told: bool,
    /// The piece of reasoning that was told last: summaries and contents are numbered apart.
    piece: Option<(bool, u64)>,
    done: bool,
}

/// One piece of a message.
#[derive(Debug)]
struct Piece {
    item: u64,
    number: u64,
    block: u32,
    open: bool,
    told: bool,
}

/// Decodes the answer to a request of the Responses API.
#[derive(Debug, Default)]
pub(in crate::openai_shape) struct Responses {
    started: bool,
    items: Vec<Item>,
    pieces: Vec<Piece>,
    blocks: u32,
    /// The client has a tool to run.
    called: bool,
    ids: BTreeSet<String>,
    remembered: Remembered,
}

fn at_most(count: usize, what: &str) -> Result<(), Error> {
    if count < MOST { Ok(()) } else { Err(Error::malformed(format!("the answer has more than {MOST} {what}"))) }
}

/// Log probabilities in the shape of Chat Completions; `None` for an empty list.
fn logprobs(list: Option<&RawValue>) -> Option<String> {
    let list = list?.get();
    (list.starts_with('[') && list != "[]").then(|| format!("{{\"content\":{list}}}"))
}

impl Responses {
    /// One event of a stream.
    pub(in crate::openai_shape) fn sse(&mut self, event: &SseEvent, out: &mut Vec<Event>) -> Result<(), Error> {
        let data = event.data.trim();
        if data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            // Some servers send it, behind the event that ends the answer.
            return self.end();
        }
        let mut said: StreamEvent<'_> = serde_json::from_str(data).map_err(|error| {
            let what = complaint(&error);
            Error::malformed(format!("the backend sent an event that is not of its Responses API: {what}"))
        })?;
        let kind = said.kind.and_then(text_of).or(event.event.as_deref().map(Cow::Borrowed)).unwrap_or_default();
        if let Some(failure) = said.error.filter(|failure| error::is_error(failure)) {
            return Err(error::of_object(None, failure.get()));
        }
        if kind == "error" {
            return Err(error::of_object(None, data));
        }
        let number = self.number(&said);
        said.output_index = Some(number);
        match &*kind {
            "response.created" | "response.in_progress" | "response.queued" => {
                let response = self.response(&said)?;
                if !self.started {
                    self.start(&response, out);
                    self.unknown(&response, out);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                let response = self.response(&said)?;
                self.start(&response, out);
                if self.items.is_empty() {
                    self.output(&response, out)?;
                }
                self.terminal(&response, kind.strip_prefix("response."), out)?;
            }
            _ if !self.started && kind.starts_with("response.") => self.bare_start(out),
            _ => {}
        }
        match &*kind {
            "response.output_item.added" => {
                if let Some(item) = said.item {
                    self.item(number, item, out)?;
                }
            }
            "response.output_item.done" => {
                if let Some(item) = said.item {
                    self.item(number, item, out)?;
                    self.item_done(number, item, out)?;
                }
            }
            "response.content_part.added" => {
                let kind = said.part.and_then(|part| Response::parse(part.get()).ok()?.text("type"));
                match kind.as_deref() {
                    Some("output_text") => drop(self.piece(&said, Flow::Text, out)?),
                    Some("refusal") => drop(self.piece(&said, Flow::Refusal, out)?),
                    _ => {}
                }
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                let flow = if &*kind == "response.refusal.delta" { Flow::Refusal } else { Flow::Text };
                let text = said.delta.and_then(text_of).unwrap_or_default();
                self.more(&said, flow, text, logprobs(said.logprobs), out)?;
            }
            "response.output_text.done" | "response.refusal.done" => {
                let (flow, text) = match said.refusal {
                    Some(refusal) => (Flow::Refusal, text_of(refusal)),
                    None => (Flow::Text, said.text.and_then(text_of)),
                };
                let at = self.piece(&said, flow, out)?;
                if self.pieces.get(at).is_some_and(|piece| !piece.told) {
                    self.more(&said, flow, text.unwrap_or_default(), logprobs(said.logprobs), out)?;
                }
            }
            "response.output_text.annotation.added" => {
                if let Some(annotation) = said.annotation {
                    let at = self.piece(&said, Flow::Text, out)?;
                    self.annotations(at, &format!("[{}]", annotation.get()), out);
                }
            }
            "response.content_part.done" => {
                let number = (number, said.content_index.unwrap_or(0));
                let piece = self.pieces.iter_mut().rfind(|piece| (piece.item, piece.number) == number);
                if let Some(piece) = piece.filter(|piece| piece.open) {
                    piece.open = false;
                    out.push(Event::BlockStop(piece.block));
                }
            }
            "response.function_call_arguments.delta" => {
                self.arguments(number, said.delta.and_then(text_of).unwrap_or_default(), false, out)?;
            }
            "response.function_call_arguments.done" => {
                self.arguments(number, said.arguments.and_then(text_of).unwrap_or_default(), true, out)?;
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_summary_text.done" => {
                let piece = (false, said.summary_index.unwrap_or(0));
                let whole = said.delta.is_none();
                let text = said.delta.or(said.text).and_then(text_of).unwrap_or_default();
                self.thought(number, piece, text, whole, out)?;
            }
            "response.reasoning_text.delta" | "response.reasoning_text.done" => {
                let piece = (true, said.content_index.unwrap_or(0));
                let whole = said.delta.is_none();
                let text = said.delta.or(said.text).and_then(text_of).unwrap_or_default();
                self.thought(number, piece, text, whole, out)?;
            }
            // Progress of what comes whole with `output_item.done`.
            _ => {}
        }
        Ok(())
    }

    /// The whole answer, in one JSON object.
    pub(in crate::openai_shape) fn whole(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
        let response = Response::parse(text)?;
        if let Some(failure) = response.value("error").filter(|failure| error::is_error(failure)) {
            return Err(error::of_object(None, failure.get()));
        }
        if response.value("output").is_none() {
            return Err(Error::malformed("the backend's answer has no `output`"));
        }
        self.start(&response, out);
        self.unknown(&response, out);
        self.output(&response, out)?;
        self.terminal(&response, None, out)
    }

    /// The stream has ended without the event that ends an answer.
    pub(in crate::openai_shape) fn end(&self) -> Result<(), Error> {
        Err(Error::malformed(if self.started {
            "the answer ended before its finish"
        } else {
            "the backend's answer is empty"
        }))
    }

    /// The number of the item that an event tells of. Servers that do not number them name them by their ids.
    fn number(&self, said: &StreamEvent<'_>) -> u64 {
        if let Some(number) = said.output_index {
            return number;
        }
        let item = said.item.and_then(|item| Response::parse(item.get()).ok());
        let id = item.as_ref().and_then(|item| item.text("id")).or(said.item_id.and_then(text_of));
        match id.and_then(|id| self.items.iter().rfind(|item| item.id == id)) {
            Some(item) => item.number,
            // Another item begins, unless this one has not ended.
            None => match self.items.last() {
                Some(last) if said.item.is_some() || last.done => last.number.saturating_add(1),
                Some(last) => last.number,
                None => 0,
            },
        }
    }

    fn response<'a>(&self, said: &StreamEvent<'a>) -> Result<Response<'a>, Error> {
        match said.response {
            Some(response) => Response::parse(response.get()),
            None => Err(Error::malformed("the backend sent an event of a response without the `response`")),
        }
    }

    fn start(&mut self, response: &Response<'_>, out: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        out.push(Event::Started(Started {
            id: response.text("id").map(Cow::into_owned),
            model: response.text("model").map(Cow::into_owned),
            created: response.value("created_at").and_then(count_of).filter(|created| *created > 0),
        }));
    }

    fn bare_start(&mut self, out: &mut Vec<Event>) {
        self.started = true;
        out.push(Event::Started(Started::default()));
    }

    /// What is new of the response's members that are not known.
    fn unknown(&mut self, response: &Response<'_>, out: &mut Vec<Event>) {
        let others = response.members.0.iter().filter(|(name, _)| !SAID.contains(&&**name));
        let others = others.map(|(name, value)| (Cow::Borrowed(&**name), *value)).collect();
        out.extend(self.remembered.news(RESPONSES, &others));
    }

    /// All items of a whole answer.
    fn output(&mut self, response: &Response<'_>, out: &mut Vec<Event>) -> Result<(), Error> {
        let Some(output) = response.value("output") else { return Ok(()) };
        let output: List<&RawValue, MOST> = serde_json::from_str(output.get()).map_err(|error| {
            Error::malformed(format!("the answer's `output` is not a list of items: {}", complaint(&error)))
        })?;
        for (number, item) in output.0.into_iter().enumerate() {
            self.item(number as u64, item, out)?;
            self.item_done(number as u64, item, out)?;
        }
        Ok(())
    }

    /// The end of the answer. `event` is the word for it of the event's name.
    fn terminal(&mut self, response: &Response<'_>, event: Option<&str>, out: &mut Vec<Event>) -> Result<(), Error> {
        let status = response.text("status").or(event.map(Cow::Borrowed)).unwrap_or(Cow::Borrowed("completed"));
        if let Some(failure) = response.value("error").filter(|failure| error::is_error(failure)) {
            return Err(error::of_object(None, failure.get()));
        }
        let details = response.value("incomplete_details").and_then(|details| Response::parse(details.get()).ok());
        let reason = details.and_then(|details| details.text("reason"));
        let (reason, raw) = match (&*status, reason) {
            ("completed", _) if self.called => (FinishReason::ToolCalls, status),
            ("completed", _) => (FinishReason::Stop, status),
            ("incomplete", Some(reason)) => match &*reason {
                "max_output_tokens" | "max_tokens" => (FinishReason::Length, reason),
                "content_filter" => (FinishReason::ContentFilter, reason),
                other => (FinishReason::Other(other.to_owned()), reason),
            },
            ("incomplete", None) => (FinishReason::Other("incomplete".into()), status),
            ("in_progress" | "queued", _) => {
                return Err(Error::malformed(format!(
                    "the backend's answer is not complete: its status is `{status}`"
                )));
            }
            (other, _) => {
                let error = error::of_object(
                    None,
                    &format!("{{\"message\":\"the backend's response has the status `{}`\"}}", other.escape_default()),
                );
                return Err(error);
            }
        };
        for piece in self.pieces.iter_mut().filter(|piece| piece.open) {
            piece.open = false;
            out.push(Event::BlockStop(piece.block));
        }
        for item in self.items.iter_mut().filter(|item| !item.done) {
            item.done = true;
            out.extend(item.block.map(Event::BlockStop));
        }
        self.unknown(response, out);
        if let Some(usage) = response.value("usage") {
            out.extend(counts(usage).map(Event::Usage));
        }
        let finish = Finish { choice: 0, reason, raw: Some(raw.into_owned()), stop_sequence: None };
        out.push(Event::Finish(finish));
        out.push(Event::Done);
        Ok(())
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.items.iter().rposition(|item| item.number == number)
    }

    /// The place of the item of this number, which is of this kind; a new one where it has not come.
    fn expect(&mut self, number: u64, kind: Kind) -> Result<usize, Error> {
        let at = match self.find(number) {
            Some(at) => at,
            None => {
                at_most(self.items.len(), "items")?;
                self.items.push(Item {
                    number,
                    id: String::new(),
                    kind,
                    members: None,
                    block: None,
                    told: false,
                    piece: None,
                    done: false,
                });
                self.items.len() - 1
            }
        };
        match self.items.get(at) {
            Some(item) if item.kind == kind && !item.done => Ok(at),
            _ => {
                Err(Error::malformed(format!("item {number} of the answer goes on after its end, or as another kind")))
            }
        }
    }

    /// A block begins.
    fn open(&mut self, kind: BlockKind, members: Option<String>, out: &mut Vec<Event>) -> Result<u32, Error> {
        at_most(self.blocks as usize, "blocks")?;
        let index = self.blocks;
        self.blocks += 1;
        out.push(Event::BlockStart(BlockStart { index, choice: 0, kind }));
        out.extend(members.map(|members| Event::other(RESPONSES, Scope::Block(index), members)));
        Ok(index)
    }

    /// An item begins, unless it has.
    fn item(&mut self, number: u64, raw: &RawValue, out: &mut Vec<Event>) -> Result<(), Error> {
        let item = Response::parse(raw.get())?;
        let kind = match item.text("type").as_deref() {
            Some("message") => Kind::Message,
            Some("function_call") => Kind::FunctionCall,
            Some("reasoning") => Kind::Reasoning,
            _ => Kind::Foreign,
        };
        let known = self.find(number).is_some();
        let at = self.expect(number, kind)?;
        if let (Some(begun), Some(id)) = (self.items.get_mut(at).filter(|_| !known), item.text("id")) {
            begun.id = id.into_owned();
        }
        if known || kind == Kind::Foreign {
            return Ok(());
        }
        let others =
            item.members.0.iter().filter(|(name, value)| !SAID_OF_ITEM.contains(&&**name) && value.get() != "null");
        let others: Vec<_> = others.map(|(name, value)| (Cow::Borrowed(&**name), *value)).collect();
        let members = (!others.is_empty()).then(|| object_of(&others));
        if kind != Kind::FunctionCall {
            if let Some(item) = self.items.get_mut(at) {
                item.members = members;
            }
            return Ok(());
        }
        let Some(name) = item.text("name") else {
            return Err(Error::malformed(format!(
                "item {number} of the answer is a call of a function without a name"
            )));
        };
        let wanted = item.text("call_id").or(item.text("id")).map_or_else(|| format!("call_{number}"), Cow::into_owned);
        let mut id = wanted.clone();
        let mut again = number;
        while !self.ids.insert(id.clone()) {
            id = format!("{wanted}_{again}");
            again += 1;
        }
        self.called = true;
        let block = self.open(BlockKind::ToolCall(ToolCallStart { id, name: name.into_owned() }), members, out)?;
        if let Some(item) = self.items.get_mut(at) {
            item.block = Some(block);
        }
        Ok(())
    }

    /// An item is complete: what of it has not been told.
    fn item_done(&mut self, number: u64, raw: &RawValue, out: &mut Vec<Event>) -> Result<(), Error> {
        let item = Response::parse(raw.get())?;
        let Some(at) = self.find(number) else { return Ok(()) };
        let list = |name: &str| -> Result<Vec<&RawValue>, Error> {
            let Some(value) = item.value(name) else { return Ok(Vec::new()) };
            let list: List<&RawValue, PIECES> = serde_json::from_str(value.get()).map_err(|error| {
                Error::malformed(format!("`{name}` of an item of the answer is not a list: {}", complaint(&error)))
            })?;
            Ok(list.0)
        };
        match self.items.get(at).map(|item| item.kind) {
            Some(Kind::FunctionCall) => {
                self.arguments(number, item.text("arguments").unwrap_or_default(), true, out)?;
            }
            Some(Kind::Reasoning) => {
                for (own, name) in [(false, "summary"), (true, "content")] {
                    for (position, piece) in list(name)?.into_iter().enumerate() {
                        let text = Response::parse(piece.get())?.text("text").unwrap_or_default();
                        self.thought(number, (own, position as u64), text, true, out)?;
                    }
                }
                if let Some(proof) = item.text("encrypted_content") {
                    let block = self.thinking(number, out)?;
                    let told = self.items.get(at).is_some_and(|item| item.told);
                    let delta = BlockDelta { index: block, text: proof.into_owned(), logprobs: None };
                    out.push(if told { Event::Signature(delta) } else { Event::Redacted(delta) });
                }
            }
            Some(Kind::Message) => {
                for (position, piece) in list("content")?.into_iter().enumerate() {
                    self.whole_piece(number, position as u64, piece, out)?;
                }
                for piece in self.pieces.iter_mut().filter(|piece| piece.item == number && piece.open) {
                    piece.open = false;
                    out.push(Event::BlockStop(piece.block));
                }
            }
            Some(Kind::Foreign) | None => {
                let kind = item.text("type").unwrap_or_default();
                // These wait for an answer of the client.
                self.called |= matches!(
                    &*kind,
                    "custom_tool_call" | "computer_call" | "local_shell_call" | "shell_call" | "apply_patch_call"
                ) && item.value("output").is_none();
                let block = self.open(BlockKind::Other(DialectJson::new(RESPONSES, raw.get())), None, out)?;
                out.push(Event::BlockStop(block));
            }
        }
        if let Some(item) = self.items.get_mut(at) {
            item.done = true;
            out.extend(item.block.map(Event::BlockStop));
        }
        Ok(())
    }

    /// A piece of a complete message: what of it has not been told.
    fn whole_piece(&mut self, item: u64, number: u64, raw: &RawValue, out: &mut Vec<Event>) -> Result<(), Error> {
        if self.pieces.iter().any(|piece| (piece.item, piece.number) == (item, number)) {
            return Ok(());
        }
        let piece = Response::parse(raw.get())?;
        let said = StreamEvent { output_index: Some(item), content_index: Some(number), ..StreamEvent::default() };
        let (flow, text) = match piece.text("type").as_deref() {
            Some("output_text") => (Flow::Text, piece.text("text")),
            Some("refusal") => (Flow::Refusal, piece.text("refusal")),
            _ => {
                let block = self.open(BlockKind::Other(DialectJson::new(RESPONSES, raw.get())), None, out)?;
                out.push(Event::BlockStop(block));
                return Ok(());
            }
        };
        let at = self.piece(&said, flow, out)?;
        self.more(&said, flow, text.unwrap_or_default(), logprobs(piece.value("logprobs")), out)?;
        if let Some(annotations) = piece.value("annotations").filter(|list| list.get() != "[]") {
            self.annotations(at, annotations.get(), out);
        }
        if let Some(piece) = self.pieces.get_mut(at) {
            piece.open = false;
            out.push(Event::BlockStop(piece.block));
        }
        Ok(())
    }

    /// The place of the piece of a message that an event tells of; a new one where it has not come.
    fn piece(&mut self, said: &StreamEvent<'_>, flow: Flow, out: &mut Vec<Event>) -> Result<usize, Error> {
        let (item, number) = (said.output_index.unwrap_or(0), said.content_index.unwrap_or(0));
        if let Some(at) = self.pieces.iter().rposition(|piece| (piece.item, piece.number) == (item, number)) {
            if self.pieces.get(at).is_some_and(|piece| piece.open) {
                return Ok(at);
            }
            return Err(Error::malformed(format!("piece {number} of item {item} of the answer goes on after its end")));
        }
        let at = self.expect(item, Kind::Message)?;
        let members = self.items.get_mut(at).and_then(|item| item.members.take());
        let kind = if flow == Flow::Refusal { BlockKind::Refusal } else { BlockKind::Text };
        let block = self.open(kind, members, out)?;
        self.pieces.push(Piece { item, number, block, open: true, told: false });
        Ok(self.pieces.len() - 1)
    }

    /// More text of a message.
    fn more(
        &mut self,
        said: &StreamEvent<'_>,
        flow: Flow,
        text: Cow<'_, str>,
        logprobs: Option<String>,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let at = self.piece(said, flow, out)?;
        if let Some(piece) = self.pieces.get_mut(at).filter(|_| !text.is_empty() || logprobs.is_some()) {
            piece.told = true;
            out.push(Event::Text(BlockDelta { index: piece.block, text: text.into_owned(), logprobs }));
        }
        Ok(())
    }

    fn annotations(&self, at: usize, list: &str, out: &mut Vec<Event>) {
        if let Some(piece) = self.pieces.get(at) {
            out.push(Event::other(RESPONSES, Scope::Block(piece.block), format!("{{\"annotations\":{list}}}")));
        }
    }

    /// Arguments of a call; `whole` where they are all of them.
    fn arguments(&mut self, number: u64, text: Cow<'_, str>, whole: bool, out: &mut Vec<Event>) -> Result<(), Error> {
        let at = self.expect(number, Kind::FunctionCall)?;
        let Some(item) = self.items.get_mut(at) else { return Ok(()) };
        let Some(index) = item.block else {
            return Err(Error::malformed(format!("item {number} of the answer has arguments, but no function")));
        };
        if text.is_empty() || (whole && item.told) {
            return Ok(());
        }
        item.told = true;
        out.push(Event::Arguments(BlockDelta { index, text: text.into_owned(), logprobs: None }));
        Ok(())
    }

    /// The block of a reasoning item.
    fn thinking(&mut self, number: u64, out: &mut Vec<Event>) -> Result<u32, Error> {
        let at = self.expect(number, Kind::Reasoning)?;
        let Some(item) = self.items.get_mut(at) else { return Ok(0) };
        if let Some(block) = item.block {
            return Ok(block);
        }
        let members = item.members.take();
        let block = self.open(BlockKind::Reasoning, members, out)?;
        if let Some(item) = self.items.get_mut(at) {
            item.block = Some(block);
        }
        Ok(block)
    }

    /// More of a reasoning item. `piece`: whether of its own text or of the summary, and the number there; `whole` where
    /// it is all of that piece.
    fn thought(
        &mut self,
        number: u64,
        piece: (bool, u64),
        text: Cow<'_, str>,
        whole: bool,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let at = self.expect(number, Kind::Reasoning)?;
        // A whole piece that is not behind the last one told has been told in pieces.
        if whole && self.items.get(at).is_some_and(|item| item.piece.is_some_and(|told| piece <= told)) {
            return Ok(());
        }
        let index = self.thinking(number, out)?;
        let Some(item) = self.items.get_mut(at) else { return Ok(()) };
        let before = item.piece.replace(piece);
        let again = before.is_some_and(|told| told != piece);
        item.told = true;
        if again || (before.is_none() && piece != (false, 0)) {
            // For clients that know parts: to others they are one text.
            let name = if piece.0 { "content_index" } else { "summary_index" };
            out.push(Event::other(RESPONSES, Scope::Block(index), format!("{{\"{name}\":{}}}", piece.1)));
        }
        let text = if again { format!("\n\n{text}") } else { text.into_owned() };
        out.push(Event::Reasoning(BlockDelta { index, text, logprobs: None }));
        Ok(())
    }
}

/// A usage object of a response.
#[derive(Deserialize)]
struct UsageObject<'a> {
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_tokens_details: Option<Details<'a>>,
    #[serde(borrow, default)]
    output_tokens_details: Option<Details<'a>>,
}

/// The details of a usage object.
#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    cached_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_write_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_tokens: Option<&'a RawValue>,
}

/// What the answer has cost.
fn counts(raw: &RawValue) -> Option<Usage> {
    let said: UsageObject<'_> = serde_json::from_str(raw.get()).ok()?;
    let count = |value: Option<&RawValue>| value.and_then(count_of);
    let (input, output) = (said.input_tokens_details.as_ref(), said.output_tokens_details.as_ref());
    Some(Usage {
        input_tokens: count(said.input_tokens),
        output_tokens: count(said.output_tokens),
        cache_read_tokens: count(input.and_then(|details| details.cached_tokens)),
        cache_write_tokens: count(input.and_then(|details| details.cache_write_tokens)),
        reasoning_tokens: count(output.and_then(|details| details.reasoning_tokens)),
        estimated: false,
        raw: (raw.get().len() <= USAGE).then(|| DialectJson::new(RESPONSES, raw.get())),
    })
}
