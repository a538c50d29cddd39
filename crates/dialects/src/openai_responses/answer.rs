//! Events to a response, streamed or whole.

use std::collections::BTreeMap;

use witgate_model::normaliser::{AnswerStart, Document, Ending, Failure, Rendered};
use witgate_model::{BlockDelta, BlockKind, ErrorKind, Event, Finish, FinishReason, OtherEvent, Scope, Usage};

use super::parse::{self, is_content};
use super::stored::{self, Kept};
use super::{LATER, MOST_KEPT, NAME, at, is_key, is_response_id, made_in, place, text_member};
use crate::members::{self, DEPTH, Waiting};
use crate::openai;
use crate::read::Reader;
use crate::{Render, usage, write};

// Members that we write ourselves: a backend's never replace them.
const RESPONSE: [&str; 13] = [
    "id",
    "object",
    "created_at",
    "status",
    "background",
    "error",
    "incomplete_details",
    "model",
    "output",
    "previous_response_id",
    "store",
    "usage",
    "instructions",
];
const ITEM: [&str; 11] = [
    "id",
    "type",
    "status",
    "role",
    "content",
    "arguments",
    "call_id",
    "name",
    "summary",
    "encrypted_content",
    "annotations",
];

/// What a request's members are in the response where the client did not give them.
const DEFAULTS: &str = r#"{"max_output_tokens":null,"max_tool_calls":null,"metadata":{},"parallel_tool_calls":true,"reasoning":{"effort":null,"summary":null},"service_tier":"default","temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","user":null}"#;

/// What goes to the client while the answer comes.
#[derive(Debug, Default)]
struct Wire {
    stream: bool,
    /// The number of the next event.
    sequence: u64,
}

impl Wire {
    /// One event, whose members behind its number `write` writes.
    fn event(&mut self, out: &mut Vec<u8>, kind: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.stream {
            return;
        }
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        write::number(out, self.sequence);
        self.sequence += 1;
        write(out);
        out.extend_from_slice(b"}\n\n");
    }
}

/// One piece of a message.
#[derive(Debug, Default)]
struct Piece {
    refusal: bool,
    text: String,
    /// Elements of the array.
    logprobs: String,
    /// Elements of the array.
    annotations: String,
    annotated: u32,
    /// A piece that only this API has: the whole object.
    other: Option<String>,
}

impl Piece {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(other) = &self.other {
            out.extend_from_slice(other.as_bytes());
            return;
        }
        if self.refusal {
            out.extend_from_slice(b"{\"type\":\"refusal\",\"refusal\":");
            write::string(out, &self.text);
            out.push(b'}');
            return;
        }
        out.extend_from_slice(b"{\"type\":\"output_text\",\"text\":");
        write::string(out, &self.text);
        out.extend_from_slice(b",\"annotations\":[");
        out.extend_from_slice(self.annotations.as_bytes());
        out.extend_from_slice(b"],\"logprobs\":[");
        out.extend_from_slice(self.logprobs.as_bytes());
        out.extend_from_slice(b"]}");
    }
}

#[derive(Debug)]
enum Body {
    Message(Vec<Piece>),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
    Reasoning {
        /// Only the last may be empty.
        parts: Vec<Thought>,
        proof: String,
        /// Of which kind they are, unless the backend says it.
        summary: bool,
    },
    /// An item that only this API has: the whole object.
    Other(String),
}

/// One part of a reasoning item.
#[derive(Debug, Default)]
struct Thought {
    /// It stands in `summary`, else in `content`.
    summary: bool,
    text: String,
}

/// The number that the last part has among those of its kind.
fn number_of_last(parts: &[Thought]) -> usize {
    let Some((last, before)) = parts.split_last() else { return 0 };
    before.iter().filter(|part| part.summary == last.summary).count()
}

/// One item of the output.
#[derive(Debug)]
struct Item {
    id: String,
    body: Body,
    members: Waiting,
    /// Blocks of it that are open.
    open: u32,
    /// The whole item, when it is done.
    json: Option<String>,
}

impl Item {
    fn write(&self, out: &mut Vec<u8>, status: &str, empty: bool) {
        if let Body::Other(object) = &self.body {
            out.extend_from_slice(object.as_bytes());
            return;
        }
        out.extend_from_slice(b"{\"id\":");
        write::string(out, &self.id);
        let status = |out: &mut Vec<u8>| {
            out.extend_from_slice(b",\"status\":\"");
            out.extend_from_slice(status.as_bytes());
            out.push(b'"');
        };
        match &self.body {
            Body::Message(pieces) => {
                out.extend_from_slice(b",\"type\":\"message\"");
                status(out);
                out.extend_from_slice(b",\"role\":\"assistant\",\"content\":[");
                let pieces = if empty { &[] } else { pieces.as_slice() };
                for (number, piece) in pieces.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    piece.write(out);
                }
                out.push(b']');
            }
            Body::Call { id, name, arguments } => {
                out.extend_from_slice(b",\"type\":\"function_call\"");
                status(out);
                out.extend_from_slice(b",\"call_id\":");
                write::string(out, id);
                out.extend_from_slice(b",\"name\":");
                write::string(out, name);
                out.extend_from_slice(b",\"arguments\":");
                write::string(out, if empty { "" } else { arguments });
            }
            Body::Reasoning { parts, proof, .. } => {
                out.extend_from_slice(b",\"type\":\"reasoning\",\"summary\":[");
                let told = |summary| {
                    parts.iter().filter(move |part| part.summary == summary && !part.text.is_empty() && !empty)
                };
                thoughts(out, "summary_text", told(true));
                out.push(b']');
                if told(false).next().is_some() {
                    out.extend_from_slice(b",\"content\":[");
                    thoughts(out, "reasoning_text", told(false));
                    out.push(b']');
                }
                if !empty && !proof.is_empty() {
                    out.extend_from_slice(b",\"encrypted_content\":");
                    write::string(out, proof);
                }
            }
            Body::Other(_) => {}
        }
        self.members.show(out, false);
        out.push(b'}');
    }
}

/// Pieces of reasoning, with commas between.
fn thoughts<'p>(out: &mut Vec<u8>, kind: &str, parts: impl Iterator<Item = &'p Thought>) {
    for (number, part) in parts.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        thought(out, kind, &part.text);
    }
}

/// The last piece of reasoning is complete.
fn thought_done(wire: &mut Wire, out: &mut Vec<u8>, id: &str, at: usize, parts: &[Thought]) {
    let Some(part) = parts.last().filter(|part| !part.text.is_empty()) else { return };
    let (index, event, added, kind) = reasoning_events(part.summary);
    let number = number_of_last(parts);
    wire.event(out, &format!("{event}.done"), |out| {
        place(out, id, at, Some((index, number)));
        text_member(out, "text", &part.text);
    });
    wire.event(out, &added.replace(".added", ".done"), |out| {
        place(out, id, at, Some((index, number)));
        out.extend_from_slice(b",\"part\":");
        thought(out, kind, &part.text);
    });
}

/// One piece of reasoning.
fn thought(out: &mut Vec<u8>, kind: &str, text: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"text\":");
    write::string(out, text);
    out.push(b'}');
}

/// A block that has begun, but may still be told its item's own members.
#[derive(Debug)]
struct Pending {
    index: u32,
    kind: BlockKind,
    members: Waiting,
}

/// The renderer of one answer.
#[derive(Debug)]
pub(super) struct Answer {
    wire: Wire,
    render: parse::Render,
    /// The unique part of ids.
    answer: String,
    created: u64,
    model: String,
    echo: Waiting,
    pending: Option<Pending>,
    items: Vec<Item>,
    /// Where the open blocks are: item and piece.
    blocks: BTreeMap<u32, (usize, usize)>,
    usage: Option<Usage>,
    finish: Option<Finish>,
    /// The backend has begun.
    started: bool,
    /// The client has been told that the response was created.
    told: bool,
    /// `Done` or a failure has come.
    ended: bool,
    /// The complete response, where it is to be kept.
    whole: Option<String>,
}

impl Answer {
    pub(super) fn new(start: AnswerStart) -> Self {
        let mut render = parse::Render::from_text(&start.render);
        let mut echo = Waiting::default();
        echo.add(DEFAULTS, &[]);
        if let Some(own) = render.echo.take() {
            echo.add(&own, &[]);
        }
        if !echo.has("instructions") {
            echo.push("instructions", "null");
        }
        Answer {
            wire: Wire { stream: render.stream, sequence: 0 },
            answer: if render.background { format!("{LATER}{}", start.id) } else { start.id },
            render,
            created: start.created,
            model: start.model,
            echo,
            pending: None,
            items: Vec::new(),
            blocks: BTreeMap::new(),
            usage: None,
            finish: None,
            started: false,
            told: false,
            ended: false,
            whole: None,
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Started(started) => {
                self.started = true;
                if !self.told {
                    // What is given later was created before a backend was asked.
                    self.created = started.created.filter(|_| !self.render.background).unwrap_or(self.created);
                    if let Some(model) = started.model {
                        self.model = model;
                    }
                }
            }
            Event::Usage(later) => usage::merge(self.usage.get_or_insert_default(), later),
            Event::Other(other) => self.other(&other, out),
            Event::BlockStart(start) => {
                self.settle(out);
                if start.choice == 0 {
                    self.pending = Some(Pending { index: start.index, kind: start.kind, members: Waiting::default() });
                }
            }
            event => {
                self.settle(out);
                match event {
                    Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => self.delta(&delta, out),
                    Event::Signature(delta) | Event::Redacted(delta) => self.proof(&delta),
                    Event::BlockStop(index) => self.block_stop(index, out),
                    Event::Finish(finish) if finish.choice == 0 => self.finish = Some(finish),
                    Event::Done => self.done(out),
                    _ => {}
                }
            }
        }
    }

    /// What was held back goes out.
    fn settle(&mut self, out: &mut Vec<u8>) {
        if !self.told {
            self.told = true;
            for kind in ["response.created", "response.in_progress"] {
                let mut wire = std::mem::take(&mut self.wire);
                wire.event(out, kind, |out| {
                    out.extend_from_slice(b",\"response\":");
                    self.response(out, "in_progress", None);
                });
                self.wire = wire;
            }
        }
        if let Some(pending) = self.pending.take() {
            self.block_start(pending, out);
        }
    }

    fn other(&mut self, other: &OtherEvent, out: &mut Vec<u8>) {
        if other.dialect != NAME {
            return;
        }
        match other.scope {
            Scope::Envelope => self.echo.add(&other.members, &RESPONSE),
            Scope::Block(index) => match &mut self.pending {
                Some(pending) if pending.index == index => pending.members.add(&other.members, &[]),
                _ => {
                    self.settle(out);
                    self.block_members(index, &other.members, out);
                }
            },
            Scope::Choice(_) | Scope::Message(_) => {}
        }
    }

    /// Members of an item that has begun.
    fn block_members(&mut self, index: u32, object: &str, out: &mut Vec<u8>) {
        let Some(&(at, number)) = self.blocks.get(&index) else { return };
        let Some(item) = self.items.get_mut(at) else { return };
        let mut members = Waiting::default();
        members.add(object, &[]);
        let annotations = members.take("annotations").filter(|list| list.starts_with('['));
        if let (Body::Message(pieces), Some(list)) = (&mut item.body, annotations)
            && let Some(piece) = pieces.get_mut(number)
        {
            let mut reader = Reader::new(&list, DEPTH);
            let _ = reader.array(|reader, _| {
                let annotation = reader.raw()?;
                if !piece.annotations.is_empty() {
                    piece.annotations.push(',');
                }
                piece.annotations.push_str(annotation);
                self.wire.event(out, "response.output_text.annotation.added", |out| {
                    place(out, &item.id, at, Some(("content_index", number)));
                    out.extend_from_slice(b",\"annotation_index\":");
                    write::number(out, u64::from(piece.annotated));
                    out.extend_from_slice(b",\"annotation\":");
                    out.extend_from_slice(annotation.as_bytes());
                });
                piece.annotated += 1;
                Ok(())
            });
        }
        // Another part of the reasoning begins.
        let kinds = [("summary_index", true), ("content_index", false)];
        let begins = kinds.iter().filter_map(|(name, summary)| members.take(name).map(|_| *summary)).next_back();
        if let (Body::Reasoning { parts, .. }, Some(summary)) = (&mut item.body, begins) {
            thought_done(&mut self.wire, out, &item.id, at, parts);
            match parts.last_mut().filter(|part| part.text.is_empty()) {
                Some(part) => part.summary = summary,
                None => parts.push(Thought { summary, text: String::new() }),
            }
        }
        members.remove(&ITEM);
        item.members.extend(members);
    }

    fn block_start(&mut self, pending: Pending, out: &mut Vec<u8>) {
        let Pending { index, kind, mut members } = pending;
        let own = members.take("id").and_then(|id| Reader::new(&id, 0).owned().ok()).filter(|id| is_key(id));
        let annotations = members.take("annotations");
        members.remove(&ITEM);
        let piece = match kind {
            BlockKind::Text => Piece::default(),
            BlockKind::Refusal => Piece { refusal: true, ..Piece::default() },
            BlockKind::Other(object) => {
                if object.dialect != NAME {
                    return;
                }
                let Some(whole) = members::one_line_object(&object.value) else { return };
                let kind = Reader::new(&whole, DEPTH).tag("type").ok().flatten().unwrap_or_default();
                if is_content(&kind) || kind.starts_with("output_") {
                    Piece { other: Some(whole.into_owned()), ..Piece::default() }
                } else {
                    let id = stored::id_of(&whole).unwrap_or_default();
                    let at = self.item(id, Body::Other(whole.into_owned()), Waiting::default(), out);
                    self.item_done(at, "completed", out);
                    return;
                }
            }
            BlockKind::ToolCall(call) => {
                let body = Body::Call { id: call.id, name: call.name, arguments: String::new() };
                let at = self.item(own.unwrap_or_else(|| self.own_id("fc")), body, members, out);
                self.block(index, at, 0);
                return;
            }
            BlockKind::Reasoning => {
                let own_text = members.take("content_index").is_some();
                let summary = !own_text && (own.is_some() || self.render.summary);
                members.remove(&["summary_index"]);
                let body = Body::Reasoning { parts: Vec::new(), proof: String::new(), summary };
                let at = self.item(own.unwrap_or_else(|| self.own_id("rs")), body, members, out);
                self.block(index, at, 0);
                return;
            }
        };
        // It goes on with the last message, unless the backend says that this is another one.
        let last = self.items.len().saturating_sub(1);
        let goes_on = own.is_none()
            && self.items.last().is_some_and(|item| matches!(item.body, Body::Message(_)) && item.json.is_none());
        let at = if goes_on {
            if let Some(item) = self.items.last_mut() {
                item.members.extend(members);
            }
            last
        } else {
            self.item(own.unwrap_or_else(|| self.own_id("msg")), Body::Message(Vec::new()), members, out)
        };
        let Some(Item { id, body: Body::Message(pieces), .. }) = self.items.get_mut(at) else { return };
        let number = pieces.len();
        self.wire.event(out, "response.content_part.added", |out| {
            place(out, id, at, Some(("content_index", number)));
            out.extend_from_slice(b",\"part\":");
            piece.write(out);
        });
        pieces.push(piece);
        self.block(index, at, number);
        if let Some(annotations) = annotations {
            self.block_members(index, &format!("{{\"annotations\":{annotations}}}"), out);
        }
    }

    /// The id that an item has where the backend gives none.
    fn own_id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.answer, self.items.len())
    }

    /// A block of an item is open.
    fn block(&mut self, index: u32, at: usize, piece: usize) {
        self.blocks.insert(index, (at, piece));
        if let Some(item) = self.items.get_mut(at) {
            item.open += 1;
        }
    }

    /// An item begins; the one before it is complete, unless a block of it is open.
    fn item(&mut self, id: String, body: Body, members: Waiting, out: &mut Vec<u8>) -> usize {
        let at = self.items.len();
        if self.items.last().is_some_and(|last| last.open == 0) {
            self.item_done(at - 1, "completed", out);
        }
        let item = Item { id, body, members, open: 0, json: None };
        self.wire.event(out, "response.output_item.added", |out| {
            out.extend_from_slice(b",\"output_index\":");
            write::number(out, at as u64);
            out.extend_from_slice(b",\"item\":");
            item.write(out, "in_progress", true);
        });
        self.items.push(item);
        at
    }

    fn item_done(&mut self, at: usize, status: &str, out: &mut Vec<u8>) {
        let Some(item) = self.items.get_mut(at).filter(|item| item.json.is_none()) else { return };
        let mut json = Vec::new();
        item.write(&mut json, status, false);
        let json = String::from_utf8(json).unwrap_or_default();
        self.wire.event(out, "response.output_item.done", |out| {
            out.extend_from_slice(b",\"output_index\":");
            write::number(out, at as u64);
            out.extend_from_slice(b",\"item\":");
            out.extend_from_slice(json.as_bytes());
        });
        item.json = Some(json);
    }

    /// More text, reasoning, refusal or arguments.
    fn delta(&mut self, delta: &BlockDelta, out: &mut Vec<u8>) {
        let Some(&(at, number)) = self.blocks.get(&delta.index) else { return };
        let Some(item) = self.items.get_mut(at) else { return };
        let text = &delta.text;
        let wire = &mut self.wire;
        let id = &item.id;
        match &mut item.body {
            Body::Message(pieces) => {
                let Some(piece) = pieces.get_mut(number) else { return };
                piece.text.push_str(text);
                let content = Some(("content_index", number));
                if piece.refusal {
                    wire.event(out, "response.refusal.delta", |out| {
                        place(out, id, at, content);
                        text_member(out, "delta", text);
                    });
                    return;
                }
                let logprobs = delta.logprobs.as_deref().map(logprobs).unwrap_or_default();
                if !logprobs.is_empty() {
                    if !piece.logprobs.is_empty() {
                        piece.logprobs.push(',');
                    }
                    piece.logprobs.push_str(&logprobs);
                }
                wire.event(out, "response.output_text.delta", |out| {
                    place(out, id, at, content);
                    text_member(out, "delta", text);
                    out.extend_from_slice(b",\"logprobs\":[");
                    out.extend_from_slice(logprobs.as_bytes());
                    out.push(b']');
                });
            }
            Body::Call { arguments, .. } => {
                arguments.push_str(text);
                wire.event(out, "response.function_call_arguments.delta", |out| {
                    place(out, id, at, None);
                    text_member(out, "delta", text);
                });
            }
            Body::Reasoning { parts, summary, .. } => {
                if parts.is_empty() {
                    parts.push(Thought { summary: *summary, text: String::new() });
                }
                let number = number_of_last(parts);
                let joined = parts.len() > 1;
                let Some(part) = parts.last_mut() else { return };
                let (index, event, added, kind) = reasoning_events(part.summary);
                let mut text = text.as_str();
                if part.text.is_empty() {
                    // What joins two parts where they are one text.
                    text = text.strip_prefix("\n\n").filter(|_| joined).unwrap_or(text);
                    if text.is_empty() {
                        return;
                    }
                    wire.event(out, added, |out| {
                        place(out, id, at, Some((index, number)));
                        out.extend_from_slice(b",\"part\":");
                        thought(out, kind, "");
                    });
                }
                part.text.push_str(text);
                wire.event(out, &format!("{event}.delta"), |out| {
                    place(out, id, at, Some((index, number)));
                    text_member(out, "delta", text);
                });
            }
            Body::Other(_) => {}
        }
    }

    /// A piece of what proves, or encrypts, reasoning.
    fn proof(&mut self, delta: &BlockDelta) {
        let Some(&(at, _)) = self.blocks.get(&delta.index) else { return };
        if let Some(Item { body: Body::Reasoning { proof, .. }, .. }) = self.items.get_mut(at) {
            proof.push_str(&delta.text);
        }
    }

    fn block_stop(&mut self, index: u32, out: &mut Vec<u8>) {
        let Some((at, number)) = self.blocks.remove(&index) else { return };
        let last = at + 1 == self.items.len();
        let Some(item) = self.items.get_mut(at) else { return };
        item.open -= 1;
        let wire = &mut self.wire;
        let id = &item.id;
        match &mut item.body {
            Body::Message(pieces) => {
                let Some(piece) = pieces.get(number) else { return };
                let content = Some(("content_index", number));
                if piece.refusal {
                    wire.event(out, "response.refusal.done", |out| {
                        place(out, id, at, content);
                        text_member(out, "refusal", &piece.text);
                    });
                } else if piece.other.is_none() {
                    wire.event(out, "response.output_text.done", |out| {
                        place(out, id, at, content);
                        text_member(out, "text", &piece.text);
                        out.extend_from_slice(b",\"logprobs\":[");
                        out.extend_from_slice(piece.logprobs.as_bytes());
                        out.push(b']');
                    });
                }
                wire.event(out, "response.content_part.done", |out| {
                    place(out, id, at, content);
                    out.extend_from_slice(b",\"part\":");
                    piece.write(out);
                });
            }
            Body::Call { arguments, name, .. } => {
                if arguments.is_empty() {
                    arguments.push_str("{}");
                    wire.event(out, "response.function_call_arguments.delta", |out| {
                        place(out, id, at, None);
                        text_member(out, "delta", arguments);
                    });
                }
                wire.event(out, "response.function_call_arguments.done", |out| {
                    place(out, id, at, None);
                    text_member(out, "name", name);
                    text_member(out, "arguments", arguments);
                });
            }
            Body::Reasoning { parts, .. } => thought_done(wire, out, id, at, parts),
            Body::Other(_) => {}
        }
        if !last && item.open == 0 {
            self.item_done(at, "completed", out);
        }
    }

    /// The answer is complete.
    fn done(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        let open: Vec<u32> = self.blocks.keys().copied().collect();
        for index in open {
            self.block_stop(index, out);
        }
        let reason = match self.finish.as_ref().map(|finish| &finish.reason) {
            Some(FinishReason::Length) => Some("max_output_tokens"),
            Some(FinishReason::ContentFilter) => Some("content_filter"),
            _ => None,
        };
        let status = if reason.is_some() { "incomplete" } else { "completed" };
        for at in 0..self.items.len() {
            let last = at + 1 == self.items.len();
            self.item_done(at, if last { status } else { "completed" }, out);
        }
        let mut response = Vec::new();
        self.response(&mut response, status, None);
        let kind = if reason.is_some() { "response.incomplete" } else { "response.completed" };
        self.wire.event(out, kind, |out| {
            out.extend_from_slice(b",\"response\":");
            out.extend_from_slice(&response);
        });
        if self.render.store {
            self.whole = String::from_utf8(response.clone()).ok();
        }
        if !self.wire.stream {
            *out = response;
        }
    }

    /// The items of the conversation in front of the answer, as they are kept, with commas between; none where they are
    /// not to be kept.
    pub(super) fn input(&mut self) -> Option<String> {
        let kept = format!("[{}]", self.render.kept.take()?);
        let mut input = String::with_capacity(kept.len());
        let mut number = 0;
        let result = Reader::new(&kept, usize::MAX).array(|reader, _| {
            if number > 0 {
                input.push(',');
            }
            input.push_str(&stored::named(reader.raw()?, &self.answer, number));
            number += 1;
            Ok(())
        });
        result.is_ok().then_some(input)
    }

    /// The response object. `failure` is the code and the message of its `error`.
    pub(super) fn response(&self, out: &mut Vec<u8>, status: &str, failure: Option<(&str, &str)>) {
        out.extend_from_slice(b"{\"id\":\"resp_");
        write::string_body(out, &self.answer);
        out.extend_from_slice(b"\",\"object\":\"response\",\"created_at\":");
        write::number(out, self.created);
        text_member(out, "status", status);
        out.extend_from_slice(if self.render.background { b",\"background\":true" } else { b",\"background\":false" });
        out.extend_from_slice(b",\"error\":");
        match failure {
            None => out.extend_from_slice(b"null"),
            Some((code, message)) => {
                out.extend_from_slice(b"{\"code\":");
                write::string(out, code);
                text_member(out, "message", message);
                out.push(b'}');
            }
        }
        let reason = match self.finish.as_ref().map(|finish| &finish.reason) {
            Some(FinishReason::Length) => "{\"reason\":\"max_output_tokens\"}",
            Some(FinishReason::ContentFilter) => "{\"reason\":\"content_filter\"}",
            _ => "null",
        };
        out.extend_from_slice(b",\"incomplete_details\":");
        out.extend_from_slice(if status == "incomplete" { reason.as_bytes() } else { b"null" });
        text_member(out, "model", &self.model);
        out.extend_from_slice(b",\"output\":[");
        let mut first = true;
        for json in self.items.iter().filter_map(|item| item.json.as_ref()).filter(|_| status != "in_progress") {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(json.as_bytes());
        }
        out.extend_from_slice(b"],\"previous_response_id\":");
        write::string_or_null(out, self.render.previous.as_deref());
        out.extend_from_slice(if self.render.store { b",\"store\":true" } else { b",\"store\":false" });
        out.extend_from_slice(b",\"usage\":");
        match &self.usage {
            Some(usage) if status != "in_progress" => write_usage(out, usage),
            _ => out.extend_from_slice(b"null"),
        }
        if let Some(Finish { reason: FinishReason::Other(reason), raw, .. }) = &self.finish
            && status == "completed"
        {
            text_member(out, "native_finish_reason", raw.as_ref().unwrap_or(reason));
        }
        self.echo.show(out, false);
        out.push(b'}');
    }
}

/// Of reasoning: the name of its index, its events, the event that begins it, and the type of its piece.
fn reasoning_events(summary: bool) -> (&'static str, &'static str, &'static str, &'static str) {
    if summary {
        let (event, added) = ("response.reasoning_summary_text", "response.reasoning_summary_part.added");
        ("summary_index", event, added, "summary_text")
    } else {
        ("content_index", "response.reasoning_text", "response.content_part.added", "reasoning_text")
    }
}

/// The `code` of a response that failed.
fn code(failure: &Failure) -> &str {
    match (&failure.error.kind, &failure.error.code) {
        (ErrorKind::RateLimited | ErrorKind::QuotaExhausted, _) => "rate_limit_exceeded",
        (_, Some(code)) => code,
        (_, None) => "server_error",
    }
}

/// The elements of `content` in log probabilities of chat completions.
fn logprobs(raw: &str) -> String {
    let mut content = "";
    let mut reader = Reader::new(raw, DEPTH);
    let result = reader.object(|reader, name| {
        let value = reader.raw()?;
        if name.text == "content" && value.starts_with('[') {
            content = value;
        }
        Ok(())
    });
    if result.is_err() { String::new() } else { members::one_line_owned(members::elements(content).to_owned()) }
}

/// What the answer has cost.
fn write_usage(out: &mut Vec<u8>, usage: &Usage) {
    let (mut top, mut input, mut output) = (Waiting::default(), Waiting::default(), Waiting::default());
    let raw = usage.raw.as_ref().filter(|raw| raw.dialect == NAME);
    if let Some(raw) = raw {
        top.add(&raw.value, &["input_tokens", "output_tokens"]);
        if let Some(details) = top.take("input_tokens_details") {
            input.add(&details, &["cached_tokens"]);
        }
        if let Some(details) = top.take("output_tokens_details") {
            output.add(&details, &["reasoning_tokens"]);
        }
    }
    let (read, written) = (usage.input_tokens.unwrap_or_default(), usage.output_tokens.unwrap_or_default());
    out.extend_from_slice(b"{\"input_tokens\":");
    write::number(out, read);
    out.extend_from_slice(b",\"input_tokens_details\":{\"cached_tokens\":");
    write::number(out, usage.cache_read_tokens.unwrap_or_default());
    // What a backend of this API says, and leaves out, stays so; clients take all of them for given.
    if raw.is_none() {
        out.extend_from_slice(b",\"cache_write_tokens\":");
        write::number(out, usage.cache_write_tokens.unwrap_or_default());
    }
    input.show(out, false);
    out.extend_from_slice(b"},\"output_tokens\":");
    write::number(out, written);
    out.extend_from_slice(b",\"output_tokens_details\":{\"reasoning_tokens\":");
    write::number(out, usage.reasoning_tokens.unwrap_or_default());
    output.show(out, false);
    out.push(b'}');
    if !top.has("total_tokens") {
        out.extend_from_slice(b",\"total_tokens\":");
        write::number(out, read.saturating_add(written));
    }
    if usage.estimated {
        out.extend_from_slice(b",\"estimated\":true");
    }
    top.show(out, false);
    out.push(b'}');
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        if self.wire.stream { openai::stream_answer() } else { openai::json_answer(200, Vec::new()) }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::with_capacity(if self.wire.stream { 320 * events.len() } else { 0 });
        for event in events {
            if self.ended {
                break;
            }
            self.event(event, &mut out);
        }
        if self.started && !self.ended {
            self.settle(&mut out);
        }
        out
    }

    fn end(&mut self) -> Ending {
        let Some(response) = self.whole.take() else { return Ending::default() };
        let document = |key: &str, content: String| Document { at: at(key), content: Some(content) };
        let mut keep = Vec::new();
        // The gateway itself keeps what it was to give later.
        if !self.render.background {
            let Some(input) = self.input() else { return Ending::default() };
            let content = Kept::write(&response, &input);
            if content.len() > MOST_KEPT {
                return Ending::default();
            }
            keep.push(document(&format!("resp_{}", self.answer), content));
        }
        for item in &self.items {
            let findable = is_key(&item.id) && made_in(&item.id).is_none() && !is_response_id(&item.id);
            if let Some(json) = item.json.as_ref().filter(|_| findable) {
                keep.push(document(&item.id, json.clone()));
            }
        }
        Ending { again: None, keep }
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        if !self.wire.stream {
            return openai::error_body(failure);
        }
        let mut out = Vec::new();
        self.settle(&mut out);
        self.wire.event(&mut out, "error", |out| {
            text_member(out, "code", code(failure));
            text_member(out, "message", &failure.error.message);
            out.extend_from_slice(b",\"param\":");
            write::string_or_null(out, failure.error.param.as_deref());
            text_member(out, "request_id", &failure.request_id);
        });
        // What there is of the answer, without another word about it.
        let stream = std::mem::replace(&mut self.wire.stream, false);
        for at in 0..self.items.len() {
            self.item_done(at, "incomplete", &mut Vec::new());
        }
        self.wire.stream = stream;
        let mut response = Vec::new();
        self.response(&mut response, "failed", Some((code(failure), &failure.error.message)));
        self.wire.event(&mut out, "response.failed", |out| {
            out.extend_from_slice(b",\"response\":");
            out.extend_from_slice(&response);
        });
        out
    }

    fn keep_alive(&self) -> Vec<u8> {
        if self.wire.stream { b": keep-alive\n\n".to_vec() } else { Vec::new() }
    }
}
