//! Events to an answer of the Messages API, streamed or whole.
//!
//! - A stream has one open block at a time, and backends may have several: what comes for a later block waits until those
//!   before it have stopped, at most [`MOST_WAITING`] bytes of it. Past that the stream ends with an error.
//! - Indexes are those of the blocks that the client sees, from 0. Left out are blocks that only another dialect knows, and
//!   choices but the first: a request of this API asks for one. Words of refusal are text here.
//! - `message_start` comes with the first block, so that what the backend says at its start has a place there. The start
//!   of a block comes with what follows it, for the same reason. A signature comes in one piece in front of the block's
//!   stop, since clients take each piece for the whole; encrypted thinking is one block with all of its data.
//! - `message_delta` is held back until [`Event::Done`]: usage may follow the finish, and a stream that fails must not show
//!   a stop reason.
//! - Unknown members of a backend of this dialect: in a whole answer all those beside blocks are members of the message.
//!   In a stream, what comes before the first block stands in `message_start.message`; later, what belongs to the choice
//!   or the message stands in `message_delta.delta`, what belongs to the envelope beside it. A block's `citations` become
//!   `citations_delta`, one for each; what is under its `delta` is a delta, beside an empty piece where it has no `type`;
//!   others stand in the block's start, and nowhere once that has gone.
//! - The usage object of such a backend is passed on as it is; its stop reasons too. Other backends' reasons without a
//!   counterpart are `end_turn`, with their own word in `native_stop_reason`. Usage that was guessed says `estimated`.
//! - Arguments of a tool call that are not a JSON object (a model was cut off) are, in a whole answer, a string.

use std::collections::VecDeque;

use witgate_model::normaliser::{AnswerStart, Failure, Rendered};
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, Event, Finish, FinishReason, OtherEvent, Scope, Started, ToolCallStart, Usage,
};

use super::{COUNT, NAME};
use crate::members::{self, Waiting};
use crate::openai::{self, Flags};
use crate::read::Reader;
use crate::{Render, usage, write};

/// The most bytes that wait for their turn.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// The API's stop reasons, with what they mean. An adapter that says something else of one has its grounds.
const REASONS: [(&str, FinishReason); 7] = [
    ("end_turn", FinishReason::Stop),
    ("stop_sequence", FinishReason::Stop),
    ("pause_turn", FinishReason::Stop),
    ("max_tokens", FinishReason::Length),
    ("model_context_window_exceeded", FinishReason::Length),
    ("tool_use", FinishReason::ToolCalls),
    ("refusal", FinishReason::ContentFilter),
];

// Members that we write ourselves: a backend's unknown members never replace them.
const MESSAGE: [&str; 8] = ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"];
const DELTA: [&str; 2] = ["stop_reason", "stop_sequence"];
const EVENT: [&str; 3] = ["type", "delta", "usage"];
const BLOCK: [&str; 8] = ["type", "text", "thinking", "signature", "data", "id", "name", "input"];

/// What a block is in this API.
#[derive(Debug)]
enum What {
    Text,
    /// Readable or encrypted: its first delta tells.
    Thinking,
    Tool(ToolCallStart),
    /// One that only this API knows: the members of its object.
    Other(Waiting),
}

/// A block: of a stream while it has not stopped, of a whole answer until the end.
#[derive(Debug)]
struct Block {
    /// As the events have it.
    index: u32,
    what: What,
    /// Text, thinking or arguments that have not gone.
    text: String,
    signature: String,
    redacted: String,
    /// JSON values with commas between.
    citations: String,
    /// Further deltas that have not gone, as objects.
    deltas: Vec<String>,
    /// Unknown members for its start.
    members: Waiting,
    /// Its start has gone.
    begun: bool,
    stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Stream,
    Whole,
    Count,
}

/// The renderer of one answer.
pub(super) struct Answer {
    form: Form,
    id: String,
    model: String,
    /// In the order of their indexes. In a stream the first one is the open one.
    blocks: VecDeque<Block>,
    /// The client's index of the block that is open, or comes next.
    index: u64,
    /// Bytes that wait.
    waiting: usize,
    /// For the message.
    message: Waiting,
    /// For `message_delta.delta`, and for `message_delta`.
    delta: Waiting,
    event: Waiting,
    usage: Usage,
    finish: Option<Finish>,
    /// The backend speaks this dialect.
    native: bool,
    refused: bool,
    /// `message_start` has gone.
    begun: bool,
    /// `Done` or a failure has come.
    ended: bool,
}

impl Answer {
    pub(super) fn new(start: AnswerStart) -> Self {
        Answer {
            form: match &*start.render {
                COUNT => Form::Count,
                flags if Flags::from_text(flags).stream => Form::Stream,
                _ => Form::Whole,
            },
            id: format!("msg_{}", start.id),
            model: start.model,
            blocks: VecDeque::new(),
            index: 0,
            waiting: 0,
            message: Waiting::default(),
            delta: Waiting::default(),
            event: Waiting::default(),
            usage: Usage::default(),
            finish: None,
            native: false,
            refused: false,
            begun: false,
            ended: false,
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => self.text(delta, out),
            Event::Signature(delta) => self.opaque(&delta, |block| &mut block.signature, out),
            Event::Redacted(delta) => self.opaque(&delta, |block| &mut block.redacted, out),
            Event::Started(started) => self.started(started),
            Event::BlockStart(start) => self.block_start(start),
            Event::BlockStop(index) => self.block_stop(index, out),
            Event::Usage(later) => {
                self.native |= later.raw.as_ref().is_some_and(|raw| raw.dialect == NAME);
                usage::merge(&mut self.usage, later);
            }
            Event::Finish(finish) => {
                if finish.choice == 0 {
                    self.finish = Some(finish);
                }
            }
            Event::Other(other) => self.other(&other, out),
            Event::Done => {
                self.ended = true;
                match self.form {
                    Form::Stream => self.end_stream(out),
                    Form::Whole => self.whole(out),
                    Form::Count => self.count(out),
                }
            }
            // Not of this operation.
            Event::Failed(_) | Event::Embedding(_) | Event::Model(_) => {}
        }
    }

    fn started(&mut self, started: Started) {
        if self.begun {
            return;
        }
        if let Some(id) = started.id.filter(|id| id.starts_with("msg_")) {
            self.id = id;
        }
        if let Some(model) = started.model {
            self.model = model;
        }
    }

    fn block_start(&mut self, start: BlockStart) {
        // Only the first choice has a place; the gateway has checked the order of the indexes.
        if start.choice != 0 || self.blocks.back().is_some_and(|last| last.index >= start.index) {
            return;
        }
        let what = match start.kind {
            BlockKind::Text => What::Text,
            BlockKind::Refusal => {
                self.refused = true;
                What::Text
            }
            BlockKind::Reasoning => What::Thinking,
            BlockKind::ToolCall(call) => What::Tool(call),
            BlockKind::Other(object) => {
                let mut members = Waiting::default();
                members.add(&object.value, &[]);
                if object.dialect != NAME || !members.has("type") {
                    return;
                }
                self.native = true;
                What::Other(members)
            }
        };
        self.blocks.push_back(Block {
            index: start.index,
            what,
            text: String::new(),
            signature: String::new(),
            redacted: String::new(),
            citations: String::new(),
            deltas: Vec::new(),
            members: Waiting::default(),
            begun: false,
            stopped: false,
        });
    }

    /// Where the block of that index is.
    fn block(&self, index: u32) -> Option<usize> {
        match self.blocks.front() {
            Some(first) if first.index == index => Some(0),
            _ => self.blocks.binary_search_by_key(&index, |block| block.index).ok(),
        }
    }

    /// More text, thinking or arguments.
    fn text(&mut self, delta: BlockDelta, out: &mut Vec<u8>) {
        let Some(at) = self.block(delta.index).filter(|_| !delta.text.is_empty()) else { return };
        if self.form == Form::Stream && at == 0 {
            self.begin(out);
            if let Some(block) = self.blocks.front() {
                text_delta(out, self.index, &block.what, &delta.text);
            }
            return;
        }
        let Some(block) = self.blocks.get_mut(at) else { return };
        if block.text.is_empty() {
            self.waiting += delta.text.len();
            block.text = delta.text;
            self.bound(out);
        } else {
            self.wait(at, &delta.text, |block| &mut block.text, out);
        }
    }

    /// More of what clients get in one piece when the block stops.
    fn opaque(&mut self, delta: &BlockDelta, field: fn(&mut Block) -> &mut String, out: &mut Vec<u8>) {
        let Some(at) = self.block(delta.index) else { return };
        if self.blocks.get(at).is_some_and(|block| matches!(block.what, What::Thinking)) {
            self.wait(at, &delta.text, field, out);
        }
    }

    /// Keeps something for later.
    fn wait(&mut self, at: usize, text: &str, field: fn(&mut Block) -> &mut String, out: &mut Vec<u8>) {
        let Some(block) = self.blocks.get_mut(at) else { return };
        field(block).push_str(text);
        self.waiting += text.len();
        self.bound(out);
    }

    /// Fails a stream in which too much waits. A whole answer is bounded by the gateway.
    fn bound(&mut self, out: &mut Vec<u8>) {
        if self.form != Form::Stream || self.waiting <= MOST_WAITING {
            return;
        }
        self.ended = true;
        open_event(out, "error");
        out.extend_from_slice(b",\"error\":{\"type\":\"api_error\",\"message\":");
        let message = format!(
            "the backend sends several blocks at once, and this API one after the other: more than {MOST_WAITING} bytes \
             wait for a block that does not end; ask again without `stream`"
        );
        write::string(out, &message);
        out.extend_from_slice(b"}}\n\n");
    }

    fn block_stop(&mut self, index: u32, out: &mut Vec<u8>) {
        let Some(at) = self.block(index) else { return };
        if let Some(block) = self.blocks.get_mut(at) {
            block.stopped = true;
        }
        if self.form == Form::Stream && at == 0 {
            self.advance(out);
        }
    }

    /// Ends the open block of a stream, where it has stopped, and goes on with those behind it.
    fn advance(&mut self, out: &mut Vec<u8>) {
        while let Some(block) = self.blocks.front() {
            let waits = !(block.text.is_empty() && block.citations.is_empty() && block.deltas.is_empty());
            if waits {
                self.begin(out);
            }
            if !self.blocks.front().is_some_and(|block| block.stopped) {
                break;
            }
            self.end_block(out);
        }
    }

    /// The start of the message, where it has not gone.
    fn begin_message(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        open_event(out, "message_start");
        out.extend_from_slice(b",\"message\":");
        self.message_head(out);
        out.extend_from_slice(b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
        write_usage(out, &self.usage, false);
        self.message.write(out, false);
        out.extend_from_slice(b"}}\n\n");
    }

    /// The start of the open block, where it has not gone, and what waits for it but must not wait for its end.
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.begin_message(out);
        let index = self.index;
        let Some(block) = self.blocks.front_mut() else { return };
        if !std::mem::replace(&mut block.begun, true) {
            open_block(out, index);
            match &mut block.what {
                What::Text => out.extend_from_slice(b"{\"type\":\"text\",\"text\":\"\""),
                What::Thinking => {
                    out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"");
                }
                What::Tool(call) => {
                    tool_head(out, call);
                    out.extend_from_slice(b",\"input\":{}");
                }
                What::Other(object) => {
                    out.push(b'{');
                    object.write(out, true);
                }
            }
            block.members.write(out, false);
            out.extend_from_slice(b"}}\n\n");
        }
        if !block.text.is_empty() {
            let text = std::mem::take(&mut block.text);
            self.waiting = self.waiting.saturating_sub(text.len());
            text_delta(out, index, &block.what, &text);
        }
        if !block.citations.is_empty() {
            let citations = std::mem::take(&mut block.citations);
            self.waiting = self.waiting.saturating_sub(citations.len());
            each(&format!("[{citations}]"), |citation| {
                open_delta(out, index);
                out.extend_from_slice(b"{\"type\":\"citations_delta\",\"citation\":");
                out.extend_from_slice(citation.as_bytes());
                out.extend_from_slice(b"}}\n\n");
            });
        }
        for delta in block.deltas.drain(..) {
            self.waiting = self.waiting.saturating_sub(delta.len());
            open_delta(out, index);
            out.extend_from_slice(delta.as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
    }

    /// The end of the open block of a stream.
    fn end_block(&mut self, out: &mut Vec<u8>) {
        let redacted_only = |block: &Block| !block.begun && block.signature.is_empty() && !block.redacted.is_empty();
        if !self.blocks.front().is_some_and(redacted_only) {
            self.begin(out);
        }
        self.begin_message(out);
        let Some(mut block) = self.blocks.pop_front() else { return };
        self.waiting = self.waiting.saturating_sub(block.signature.len() + block.redacted.len());
        if !block.signature.is_empty() {
            open_delta(out, self.index);
            out.extend_from_slice(b"{\"type\":\"signature_delta\",\"signature\":");
            write::string(out, &block.signature);
            out.extend_from_slice(b"}}\n\n");
        }
        if block.begun {
            self.stop(out);
        }
        if !block.redacted.is_empty() {
            open_block(out, self.index);
            redacted(out, &mut block);
            out.extend_from_slice(b"}\n\n");
            self.stop(out);
        }
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        open_event(out, "content_block_stop");
        out.extend_from_slice(b",\"index\":");
        write::number(out, self.index);
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    fn other(&mut self, other: &OtherEvent, out: &mut Vec<u8>) {
        if other.dialect != NAME {
            return;
        }
        self.native = true;
        match other.scope {
            Scope::Block(index) => self.block_members(index, &other.members, out),
            Scope::Choice(1..) | Scope::Message(1..) => {}
            _ if !self.begun => self.message.add(&other.members, &MESSAGE),
            Scope::Envelope => self.event.add(&other.members, &EVENT),
            Scope::Choice(_) | Scope::Message(_) => self.delta.add(&other.members, &DELTA),
        }
    }

    /// Unknown members of a block.
    fn block_members(&mut self, index: u32, object: &str, out: &mut Vec<u8>) {
        let Some(at) = self.block(index) else { return };
        let stream = self.form == Form::Stream;
        let Some(block) = self.blocks.get_mut(at) else { return };
        let mut members = Waiting::default();
        members.add(object, &[]);
        if let Some(delta) = members.take("delta").filter(|_| stream).and_then(|delta| whole_delta(&block.what, delta))
        {
            self.waiting += delta.len();
            block.deltas.push(delta);
        }
        let citations = members.take("citations");
        match citations.as_deref().map(|citations| (citations, members::elements(citations))) {
            Some((all, cited)) if all.starts_with('[') && !cited.is_empty() => {
                let before = block.citations.len();
                if before > 0 {
                    block.citations.push(',');
                }
                block.citations.push_str(cited);
                self.waiting += block.citations.len() - before;
            }
            // A list that is empty, or `null`.
            Some((all, _)) => members.push("citations", all),
            None => {}
        }
        if !block.begun {
            let reserved: &[&str] = if matches!(block.what, What::Other(_)) { &["type"] } else { &BLOCK };
            for name in reserved {
                members.take(name);
            }
            match &mut block.what {
                What::Other(own) => own.extend(members),
                _ => block.members.extend(members),
            }
        }
        if stream && at == 0 {
            self.advance(out);
        }
        if !self.ended {
            self.bound(out);
        }
    }

    /// The members that a message begins with.
    fn message_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write::string(out, &self.id);
        out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        write::string(out, &self.model);
    }

    /// `stop_reason` and what explains it.
    fn stop_reason(&self, out: &mut Vec<u8>) {
        let (reason, raw, sequence) = match &self.finish {
            Some(finish) => (&finish.reason, finish.raw.as_deref(), finish.stop_sequence.as_deref()),
            None => (&FinishReason::Stop, None, None),
        };
        let mut foreign = None;
        let told = match (reason, raw) {
            (FinishReason::Stop, _) if sequence.is_some() => "stop_sequence",
            (_, Some(raw)) if REASONS.iter().any(|(word, means)| *word == raw && means == reason) => raw,
            (FinishReason::Other(_), Some(raw)) if self.native => raw,
            (FinishReason::Stop, _) if self.refused => "refusal",
            (FinishReason::Stop, _) => "end_turn",
            (FinishReason::Length, _) => "max_tokens",
            (FinishReason::ToolCalls, _) => "tool_use",
            (FinishReason::ContentFilter, _) => "refusal",
            (FinishReason::Other(reason), raw) => {
                foreign = Some(raw.unwrap_or(reason));
                "end_turn"
            }
        };
        out.extend_from_slice(b"\"stop_reason\":");
        write::string(out, told);
        out.extend_from_slice(b",\"stop_sequence\":");
        write::string_or_null(out, sequence);
        if let Some(foreign) = foreign {
            out.extend_from_slice(b",\"native_stop_reason\":");
            write::string(out, foreign);
        }
    }

    fn end_stream(&mut self, out: &mut Vec<u8>) {
        self.begin_message(out);
        // The gateway lets no answer end with an open block; a client shall see it closed in any case.
        for block in &mut self.blocks {
            block.stopped = true;
        }
        self.advance(out);
        open_event(out, "message_delta");
        out.extend_from_slice(b",\"delta\":{");
        self.stop_reason(out);
        self.delta.write(out, false);
        out.extend_from_slice(b"},\"usage\":");
        write_usage(out, &self.usage, true);
        self.event.write(out, false);
        out.extend_from_slice(b"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    /// The body of an answer that is not streamed.
    fn whole(&mut self, out: &mut Vec<u8>) {
        self.message_head(out);
        out.extend_from_slice(b",\"content\":[");
        let start = out.len();
        for mut block in std::mem::take(&mut self.blocks) {
            let redacted_only = block.text.is_empty() && block.signature.is_empty() && !block.redacted.is_empty();
            if !redacted_only {
                if out.len() > start {
                    out.push(b',');
                }
                whole_block(out, &mut block);
            }
            if !block.redacted.is_empty() {
                if out.len() > start {
                    out.push(b',');
                }
                redacted(out, &mut block);
            }
        }
        out.extend_from_slice(b"],");
        self.stop_reason(out);
        out.extend_from_slice(b",\"usage\":");
        write_usage(out, &self.usage, false);
        self.message.write(out, false);
        out.push(b'}');
    }

    /// The body of a count. What the backend did not count is not made up.
    fn count(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"input_tokens\":");
        match self.usage.input_tokens {
            Some(tokens) => write::number(out, tokens),
            None => out.extend_from_slice(b"null"),
        }
        if self.usage.estimated {
            out.extend_from_slice(b",\"estimated\":true");
        }
        if let Some(raw) = self.usage.raw.as_ref().filter(|raw| raw.dialect == NAME) {
            self.message.add(&raw.value, &[]);
        }
        for name in ["input_tokens", "estimated"] {
            self.message.take(name);
        }
        self.message.write(out, false);
        out.push(b'}');
    }
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        if self.form == Form::Stream { openai::stream_answer() } else { openai::json_answer(200, Vec::new()) }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::with_capacity(if self.form == Form::Stream { 160 * events.len() } else { 0 });
        for event in events {
            if self.ended {
                break;
            }
            self.event(event, &mut out);
        }
        out
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        let body = super::error_body(failure);
        if self.form != Form::Stream {
            return body;
        }
        [b"event: error\ndata: ".as_slice(), &body, b"\n\n"].concat()
    }

    fn keep_alive(&self) -> Vec<u8> {
        if self.form == Form::Stream { b"event: ping\ndata: {\"type\":\"ping\"}\n\n".to_vec() } else { Vec::new() }
    }
}

/// An event up to behind its `type`.
fn open_event(out: &mut Vec<u8>, kind: &str) {
    for piece in ["event: ", kind, "\ndata: {\"type\":\"", kind, "\""] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// The start of a block up to its object.
fn open_block(out: &mut Vec<u8>, index: u64) {
    open_event(out, "content_block_start");
    out.extend_from_slice(b",\"index\":");
    write::number(out, index);
    out.extend_from_slice(b",\"content_block\":");
}

/// A delta up to its object.
fn open_delta(out: &mut Vec<u8>, index: u64) {
    out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
    write::number(out, index);
    out.extend_from_slice(b",\"delta\":");
}

fn text_delta(out: &mut Vec<u8>, index: u64, what: &What, text: &str) {
    open_delta(out, index);
    out.extend_from_slice(match what {
        What::Text => b"{\"type\":\"text_delta\",\"text\":".as_slice(),
        What::Thinking => b"{\"type\":\"thinking_delta\",\"thinking\":",
        What::Tool(_) | What::Other(_) => b"{\"type\":\"input_json_delta\",\"partial_json\":",
    });
    write::string(out, text);
    out.extend_from_slice(b"}}\n\n");
}

fn tool_head(out: &mut Vec<u8>, call: &ToolCallStart) {
    out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
    write::string(out, &call.id);
    out.extend_from_slice(b",\"name\":");
    write::string(out, &call.name);
}

/// A delta of a kind that the contract does not name, or what a backend says beside a piece that has gone: that stands
/// beside an empty piece.
fn whole_delta(what: &What, delta: String) -> Option<String> {
    if Reader::new(&delta, members::DEPTH).tag("type").ok()?.is_some() {
        return Some(delta);
    }
    let mut members = Waiting::default();
    members.add(&delta, &["text", "thinking", "partial_json"]);
    let mut out = match what {
        What::Text => b"{\"type\":\"text_delta\",\"text\":\"\"".to_vec(),
        What::Thinking => b"{\"type\":\"thinking_delta\",\"thinking\":\"\"".to_vec(),
        What::Tool(_) | What::Other(_) => b"{\"type\":\"input_json_delta\",\"partial_json\":\"\"".to_vec(),
    };
    members.write(&mut out, false);
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// A block of encrypted thinking.
fn redacted(out: &mut Vec<u8>, block: &mut Block) {
    out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
    write::string(out, &block.redacted);
    block.members.write(out, false);
    out.push(b'}');
}

/// A block of a whole answer.
fn whole_block(out: &mut Vec<u8>, block: &mut Block) {
    let text = std::mem::take(&mut block.text);
    match &mut block.what {
        What::Text => {
            out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
            write::string(out, &text);
        }
        What::Thinking => {
            out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
            write::string(out, &text);
            out.extend_from_slice(b",\"signature\":");
            write::string(out, &block.signature);
        }
        What::Tool(call) => {
            tool_head(out, call);
            out.extend_from_slice(b",\"input\":");
            input(out, &text);
        }
        What::Other(object) => {
            out.push(b'{');
            if !text.is_empty() {
                object.take("input");
            }
            object.write(out, true);
            if !text.is_empty() {
                out.extend_from_slice(b",\"input\":");
                input(out, &text);
            }
        }
    }
    if !block.citations.is_empty() {
        block.members.take("citations");
        out.extend_from_slice(b",\"citations\":[");
        out.extend_from_slice(block.citations.as_bytes());
        out.push(b']');
    }
    block.members.write(out, false);
    out.push(b'}');
}

/// What a tool is called with.
fn input(out: &mut Vec<u8>, arguments: &str) {
    if arguments.is_empty() {
        out.extend_from_slice(b"{}");
    } else if let Some(object) = members::one_line_object(arguments) {
        out.extend_from_slice(object.as_bytes());
    } else {
        write::string(out, arguments);
    }
}

/// Calls `take` with each element of a JSON array.
fn each(array: &str, mut take: impl FnMut(&str)) {
    // It was read as JSON before.
    let _ = Reader::new(array, members::DEPTH + 1).array(|reader, _| {
        take(reader.raw()?);
        Ok(())
    });
}

/// Writes the usage object: of a message, or of `message_delta`, which may leave the input out.
fn write_usage(out: &mut Vec<u8>, usage: &Usage, delta: bool) {
    let mut own = Waiting::default();
    if let Some(raw) = usage.raw.as_ref().filter(|raw| raw.dialect == NAME) {
        own.add(&raw.value, &[]);
    }
    let native = !own.is_empty();
    let cached =
        usage.cache_read_tokens.unwrap_or_default().saturating_add(usage.cache_write_tokens.unwrap_or_default());
    let input = usage.input_tokens.map(|tokens| tokens.saturating_sub(cached));
    let input = if delta { input.filter(|_| !native) } else { Some(input.unwrap_or_default()) };
    let counts = [
        ("input_tokens", input),
        ("cache_creation_input_tokens", usage.cache_write_tokens.filter(|_| !native)),
        ("cache_read_input_tokens", usage.cache_read_tokens.filter(|_| !native)),
        ("output_tokens", Some(usage.output_tokens.unwrap_or_default())),
    ];
    out.push(b'{');
    let start = out.len();
    for (name, count) in counts {
        let Some(count) = count.filter(|_| !own.has(name)) else { continue };
        if out.len() > start {
            out.push(b',');
        }
        write::string(out, name);
        out.push(b':');
        write::number(out, count);
    }
    if !native {
        if let Some(tokens) = usage.reasoning_tokens {
            out.extend_from_slice(b",\"output_tokens_details\":{\"thinking_tokens\":");
            write::number(out, tokens);
            out.push(b'}');
        }
        if usage.estimated {
            out.extend_from_slice(b",\"estimated\":true");
        }
    }
    let first = out.len() == start;
    own.write(out, first);
    out.push(b'}');
}
