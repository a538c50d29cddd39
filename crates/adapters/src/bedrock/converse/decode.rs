//! Answers of Converse and ConverseStream to events.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Error, Event, EventMessage, Finish, FinishReason, OtherEvent,
    Retry, Scope, Started, ToolCallStart, Usage,
};

use super::super::answer::{Api, Arrived, Head};
use super::super::json::{Members, wrap};
use super::DIALECT;
use crate::repeat::{Repeat, inside};

/// Most blocks in one answer: what one frame closes stays below the contract's bound on events.
const MOST_BLOCKS: u32 = 1024;

/// Decodes one answer of Converse or ConverseStream.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    arrived: Arrived,
    /// Mapped tool names to the client's own.
    tools: BTreeMap<String, String>,
    started: bool,
    /// Open blocks by the backend's number.
    open: BTreeMap<u64, Open>,
    next: u32,
    stop: Option<Stop>,
    metadata: bool,
    repeat: Repeat,
}

#[derive(Debug)]
struct Open {
    index: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Reasoning,
    ToolCall,
    Other,
}

#[derive(Debug)]
struct Stop {
    reason: String,
    sequence: Option<String>,
}

impl Decoder {
    pub fn new(tools: BTreeMap<String, String>, head: Head) -> Self {
        Decoder {
            arrived: Arrived::new(head),
            tools,
            started: false,
            open: BTreeMap::new(),
            next: 0,
            stop: None,
            metadata: false,
            repeat: Repeat::default(),
        }
    }

    fn malformed(&self, message: impl std::fmt::Display) -> Error {
        self.arrived.head.malformed(message)
    }

    fn start(&mut self, events: &mut Vec<Event>) {
        if !self.started {
            self.started = true;
            // Converse gives neither an id of the answer nor a time: the gateway makes both.
            events.push(Event::Started(Started::default()));
        }
    }

    /// One event; `payload` is read from `json`.
    fn event(&mut self, kind: &str, json: &[u8], payload: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        let block = || {
            payload
                .number("contentBlockIndex")
                .ok_or_else(|| self.malformed(format_args!("{kind} without a contentBlockIndex")))
        };
        // `p` is padding.
        let known: &[&str] = match kind {
            "messageStart" => &["role", "p"],
            "contentBlockStart" => {
                let block = block()?;
                if let Some(start) = payload.object("start") {
                    self.block_start(block, &start, events)?;
                }
                &["start", "contentBlockIndex", "p"]
            }
            "contentBlockDelta" => {
                let block = block()?;
                let delta = payload.object("delta");
                let delta = delta.ok_or_else(|| self.malformed("contentBlockDelta without a delta"))?;
                let before = events.len();
                self.delta(block, &delta, events)?;
                self.note(json, payload, &delta, events.get(before..).unwrap_or_default());
                &["delta", "contentBlockIndex", "p"]
            }
            "contentBlockStop" => {
                let block = block()?;
                if let Some(open) = self.open.remove(&block) {
                    events.push(Event::BlockStop(open.index));
                }
                &["contentBlockIndex", "p"]
            }
            "messageStop" => {
                self.stop(payload, events)?;
                &["stopReason", "additionalModelResponseFields", "p"]
            }
            "metadata" => {
                self.metadata = true;
                usage(payload.object("usage"), payload.get("usage"), events);
                other(Scope::Envelope, &payload.without(&["usage", "p"]), events);
                if self.stop.is_some() {
                    self.complete(events);
                }
                return Ok(());
            }
            unknown => {
                let members = payload.without(&["p"]);
                events.push(Event::other(DIALECT, Scope::Envelope, wrap(unknown, &members)));
                return Ok(());
            }
        };
        let rest = payload.without(known);
        if !rest.is_empty() {
            self.repeat.forget();
            events.push(Event::other(DIALECT, Scope::Envelope, wrap(kind, &rest)));
        }
        if self.metadata && self.stop.is_some() {
            self.complete(events);
        }
        Ok(())
    }

    /// Notes a delta that is a piece of text.
    fn note(&mut self, json: &[u8], payload: &Members, delta: &Members, events: &[Event]) {
        let Ok(json) = str::from_utf8(json) else { return };
        let padding = payload.get("p").and_then(inside);
        let part = match events {
            [Event::Text(_)] => return self.noted(json, delta.get("text"), padding, events),
            [Event::Reasoning(_)] => delta.object("reasoningContent"),
            [Event::Arguments(_)] => delta.object("toolUse"),
            _ => return,
        };
        let name = if matches!(events, [Event::Reasoning(_)]) { "text" } else { "input" };
        self.noted(json, part.as_ref().and_then(|part| part.get(name)), padding, events);
    }

    fn noted(&mut self, json: &str, text: Option<&RawValue>, padding: Option<&str>, events: &[Event]) {
        if let Some(text) = text.and_then(inside) {
            self.repeat.note(json, text, padding, events);
        }
    }

    /// The number of a new block of this kind.
    fn begin(&mut self, kind: BlockKind, events: &mut Vec<Event>) -> Result<u32, Error> {
        let index = self.next;
        if index >= MOST_BLOCKS {
            return Err(self.malformed(format_args!("it has more than {MOST_BLOCKS} blocks")));
        }
        self.next += 1;
        events.push(Event::BlockStart(BlockStart { index, choice: 0, kind }));
        Ok(index)
    }

    fn block_start(&mut self, block: u64, start: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        let start = start.without(&["p"]);
        // Text and reasoning mostly begin with their first delta, and an empty start says nothing.
        if start.is_empty() {
            return Ok(());
        }
        if let Some(open) = self.open.remove(&block) {
            events.push(Event::BlockStop(open.index));
        }
        let (kind, contents) = match start.object("toolUse") {
            Some(tool) if tool.get("type").is_none() => (Kind::ToolCall, BlockKind::ToolCall(self.tool_call(&tool)?)),
            // A tool that the backend runs itself is not a call for the client.
            _ => (Kind::Other, BlockKind::Other(DialectJson::new(DIALECT, start.to_text()))),
        };
        let index = self.begin(contents, events)?;
        self.open.insert(block, Open { index, kind });
        Ok(())
    }

    fn tool_call(&self, tool: &Members) -> Result<ToolCallStart, Error> {
        let (Some(id), Some(name)) = (tool.string("toolUseId"), tool.string("name")) else {
            return Err(self.malformed("a toolUse without toolUseId and name"));
        };
        let name = self.tools.get(name.as_ref()).cloned().unwrap_or_else(|| name.into_owned());
        Ok(ToolCallStart { id: id.into_owned(), name })
    }

    /// The open block for a delta of this kind; begins one where none is open.
    fn open(&mut self, block: u64, kind: Kind, events: &mut Vec<Event>) -> Result<u32, Error> {
        match self.open.get(&block) {
            Some(open) if open.kind == kind => return Ok(open.index),
            Some(open) => events.push(Event::BlockStop(open.index)),
            None => {}
        }
        let contents = match kind {
            Kind::Reasoning => BlockKind::Reasoning,
            _ => BlockKind::Text,
        };
        let index = self.begin(contents, events)?;
        self.open.insert(block, Open { index, kind });
        Ok(index)
    }

    fn delta(&mut self, block: u64, delta: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(open) = self.open.get(&block)
            && open.kind == Kind::Other
        {
            other(Scope::Message(0), &delta.without(&["p"]), events);
            return Ok(());
        }
        if let Some(text) = delta.string("text")
            && !text.is_empty()
        {
            let index = self.open(block, Kind::Text, events)?;
            events.push(Event::Text(piece(index, text.into_owned())));
        }
        if let Some(reasoning) = delta.object("reasoningContent") {
            self.reasoning(block, &reasoning, events)?;
        }
        if let Some(tool) = delta.object("toolUse") {
            let Some(open) = self.open.get(&block).filter(|open| open.kind == Kind::ToolCall) else {
                return Err(self.malformed("the input of a tool call that never began"));
            };
            if let Some(input) = tool.string("input")
                && !input.is_empty()
            {
                events.push(Event::Arguments(piece(open.index, input.into_owned())));
            }
        }
        other(Scope::Message(0), &delta.without(&["text", "reasoningContent", "toolUse", "p"]), events);
        Ok(())
    }

    /// One delta of reasoning, or one whole block's content.
    fn reasoning(&mut self, block: u64, reasoning: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(text) = reasoning.string("text")
            && !text.is_empty()
        {
            let index = self.open(block, Kind::Reasoning, events)?;
            events.push(Event::Reasoning(piece(index, text.into_owned())));
        }
        type Make = fn(BlockDelta) -> Event;
        for (name, event) in [("signature", Event::Signature as Make), ("redactedContent", Event::Redacted as Make)] {
            if let Some(proof) = reasoning.string(name)
                && !proof.is_empty()
            {
                let index = self.open(block, Kind::Reasoning, events)?;
                events.push(event(piece(index, proof.into_owned())));
            }
        }
        let rest = reasoning.without(&["text", "signature", "redactedContent"]);
        if !rest.is_empty() {
            events.push(Event::other(DIALECT, Scope::Message(0), wrap("reasoningContent", &rest)));
        }
        Ok(())
    }

    /// The answer's end; the finish waits for the usage.
    fn stop(&mut self, answer: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        for open in std::mem::take(&mut self.open).into_values() {
            events.push(Event::BlockStop(open.index));
        }
        let reason = answer.string("stopReason").ok_or_else(|| self.malformed("it ended without a stopReason"))?;
        let fields = answer.object("additionalModelResponseFields");
        let sequence = fields.as_ref().and_then(|fields| fields.string("stop_sequence"));
        self.stop = Some(Stop { reason: reason.into_owned(), sequence: sequence.map(|text| text.into_owned()) });
        if let Some(fields) = answer.get("additionalModelResponseFields").filter(|fields| fields.get() != "null") {
            let members = wrap("additionalModelResponseFields", fields);
            events.push(Event::other(DIALECT, Scope::Envelope, members));
        }
        Ok(())
    }

    /// The finish that was held back.
    fn complete(&mut self, events: &mut Vec<Event>) {
        let Some(stop) = self.stop.take() else { return };
        for open in std::mem::take(&mut self.open).into_values() {
            events.push(Event::BlockStop(open.index));
        }
        self.arrived.ended = true;
        let reason = match stop.reason.as_str() {
            "end_turn" | "stop_sequence" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "guardrail_intervened" | "content_filtered" => FinishReason::ContentFilter,
            "malformed_model_output" | "malformed_tool_use" => {
                let what = if stop.reason == "malformed_tool_use" { "a tool call" } else { "output" };
                // The model may do better the next time.
                let error = self
                    .malformed(format_args!("the model produced {what} that Bedrock could not read ({})", stop.reason))
                    .with_code(stop.reason)
                    .with_retry(Retry::SameTarget(None));
                events.push(Event::Failed(error));
                return;
            }
            unknown => FinishReason::Other(unknown.to_owned()),
        };
        let finish = Finish { choice: 0, reason, raw: Some(stop.reason), stop_sequence: stop.sequence };
        events.push(Event::Finish(finish));
        events.push(Event::Done);
    }

    fn content_block(&mut self, number: u64, block: &Members, events: &mut Vec<Event>) -> Result<(), Error> {
        if let Some(tool) = block.object("toolUse").filter(|tool| tool.get("type").is_none()) {
            let index = self.begin(BlockKind::ToolCall(self.tool_call(&tool)?), events)?;
            if let Some(input) = tool.get("input") {
                events.push(Event::Arguments(piece(index, input.get().to_owned())));
            }
            self.open.insert(number, Open { index, kind: Kind::ToolCall });
            return Ok(());
        }
        if let Some(text) = block.string("text") {
            if !text.is_empty() {
                let index = self.open(number, Kind::Text, events)?;
                events.push(Event::Text(piece(index, text.into_owned())));
            }
            other(Scope::Message(0), &block.without(&["text"]), events);
            return Ok(());
        }
        if let Some(reasoning) = block.object("reasoningContent") {
            if let Some(text) = reasoning.object("reasoningText") {
                self.reasoning(number, &text, events)?;
            }
            return self.reasoning(number, &reasoning.without(&["reasoningText"]), events);
        }
        if let Some(cited) = block.object("citationsContent") {
            // The model's text is inside of the citations, as it is beside them in a stream.
            let pieces = cited.get("content").map(RawValue::get).unwrap_or("[]");
            let pieces = serde_json::from_str::<Vec<&RawValue>>(pieces).unwrap_or_default();
            for text in pieces.into_iter().filter_map(Members::of) {
                if let Some(text) = text.string("text")
                    && !text.is_empty()
                {
                    let index = self.open(number, Kind::Text, events)?;
                    events.push(Event::Text(piece(index, text.into_owned())));
                }
            }
            other(Scope::Message(0), &cited.without(&["content"]), events);
            return Ok(());
        }
        let index = self.begin(BlockKind::Other(DialectJson::new(DIALECT, block.to_text())), events)?;
        self.open.insert(number, Open { index, kind: Kind::Other });
        Ok(())
    }
}

impl Api for Decoder {
    fn arrived(&mut self) -> &mut Arrived {
        &mut self.arrived
    }

    fn message(&mut self, mut message: EventMessage, events: &mut Vec<Event>) -> Result<(), Error> {
        if self.arrived.head.event(&message)? == "contentBlockDelta" {
            message.payload = match String::from_utf8(std::mem::take(&mut message.payload)) {
                Ok(json) => match self.repeat.next(json) {
                    Ok(event) => {
                        events.push(event);
                        return Ok(());
                    }
                    Err(json) => json.into_bytes(),
                },
                Err(error) => error.into_bytes(),
            };
        }
        self.repeat.forget();
        let kind = self.arrived.head.event(&message)?;
        let payload = Members::parse_bytes(&message.payload)
            .map_err(|error| self.malformed(format_args!("the payload of {kind}: {error}")))?;
        self.start(events);
        self.event(kind, &message.payload, &payload, events)
    }

    fn whole(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        let answer = Members::parse_bytes(body).ok().filter(|_| self.arrived.head.is_answer());
        let Some(answer) = answer.filter(|answer| answer.get("output").is_some() || answer.get("stopReason").is_some())
        else {
            return Err(self.arrived.head.error_body(body));
        };
        self.start(events);
        let output = answer.object("output");
        let message = output.as_ref().and_then(|output| output.object("message"));
        let message = message.ok_or_else(|| self.malformed("it has no output.message"))?;
        let blocks =
            message.get("content").and_then(|content| serde_json::from_str::<Vec<&RawValue>>(content.get()).ok());
        let blocks = blocks.ok_or_else(|| self.malformed("output.message.content is not a list"))?;
        for (number, block) in (0..).zip(blocks) {
            let block = Members::of(block).ok_or_else(|| self.malformed("a content block is not an object"))?;
            self.content_block(number, &block, events)?;
            if let Some(open) = self.open.remove(&number) {
                events.push(Event::BlockStop(open.index));
            }
        }
        other(Scope::Message(0), &message.without(&["role", "content"]), events);
        usage(answer.object("usage"), answer.get("usage"), events);
        self.stop(&answer, events)?;
        let known = ["output", "stopReason", "usage", "additionalModelResponseFields"];
        other(Scope::Envelope, &answer.without(&known), events);
        self.complete(events);
        Ok(())
    }

    fn cut_off(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        if self.stop.is_none() {
            return Err(self.malformed("the stream ended before messageStop"));
        }
        // Without the usage, but the model has finished.
        self.complete(events);
        Ok(())
    }
}

fn piece(index: u32, text: String) -> BlockDelta {
    BlockDelta { index, text, logprobs: None }
}

/// Members that the contract has no names for.
fn other(scope: Scope, members: &Members, events: &mut Vec<Event>) {
    if !members.is_empty() {
        let event = OtherEvent { dialect: DIALECT.to_owned(), scope, members: members.to_text() };
        events.push(Event::Other(event));
    }
}

/// Bedrock's input excludes what came from the cache and what went there; ours includes both.
fn usage(usage: Option<Members>, raw: Option<&RawValue>, events: &mut Vec<Event>) {
    let Some(usage) = usage else { return };
    let (read, write) = (usage.number("cacheReadInputTokens"), usage.number("cacheWriteInputTokens"));
    let input = usage.number("inputTokens");
    events.push(Event::Usage(Usage {
        input_tokens: input
            .map(|input| input.saturating_add(read.unwrap_or_default()).saturating_add(write.unwrap_or_default())),
        output_tokens: usage.number("outputTokens"),
        cache_read_tokens: read,
        cache_write_tokens: write,
        reasoning_tokens: None,
        estimated: false,
        raw: raw.map(|raw| DialectJson::new(DIALECT, raw.get())),
    }));
}
