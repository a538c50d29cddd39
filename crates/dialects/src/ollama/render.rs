//! Events to lines, or to one object.

use std::collections::BTreeMap;

use witgate_model::normaliser::{AnswerStart, Failure, Rendered};
use witgate_model::{BlockDelta, BlockKind, BlockStart, Event, Finish, FinishReason, OtherEvent, Scope, Usage};

use super::{Api, Flags, UNNAMED, durations, error_body, is_ollama};
use crate::members::{self, Waiting};
use crate::openai::json_answer;
use crate::read::{Kind, Read, Reader};
use crate::{Render, usage, write};

// Members that we write ourselves: a backend's unknown members never replace them. `error` would make clients take a line
// for a failure. `created_at` and `done_reason` are not here: those of a backend replace ours.
const LINE: [&str; 12] = [
    "model",
    "message",
    "response",
    "thinking",
    "tool_calls",
    "invalid_tool_calls",
    "logprobs",
    "done",
    "error",
    "prompt_eval_count",
    "eval_count",
    "estimated",
];
const MESSAGE: [&str; 5] = ["role", "content", "thinking", "tool_calls", "invalid_tool_calls"];
const CALL: [&str; 1] = ["id"];
const FUNCTION: [&str; 2] = ["name", "arguments"];

/// The most bytes of a call's arguments that are kept until they are complete.
const MOST_ARGUMENTS: usize = 16 * 1024 * 1024;

/// The last second of the year 9999: RFC 3339 has four digits for the year.
const LAST_SECOND: u64 = 253_402_300_799;

/// An open block.
enum Block {
    Content,
    Thinking,
    Call(Box<Call>),
}

/// A tool call whose arguments come.
struct Call {
    /// Which of the answer's calls.
    number: u32,
    id: String,
    name: String,
    arguments: String,
    /// There were too many.
    cut: bool,
    /// Unknown members of the call, and of its function.
    extra: Waiting,
    function: Waiting,
}

/// What a line says, or the whole answer.
#[derive(Default)]
struct Said {
    content: String,
    thinking: String,
    /// Number and object of each.
    calls: Vec<(u32, Vec<u8>)>,
    invalid_calls: Vec<(u32, Vec<u8>)>,
    /// Elements of the list, with commas between.
    logprobs: String,
}

/// The renderer of one answer.
pub(super) struct Lines {
    api: Api,
    flags: Flags,
    model: String,
    /// As JSON.
    created: String,
    /// The start of each line, up to the text; empty where it must be made anew.
    head: Vec<u8>,
    blocks: BTreeMap<u32, Block>,
    /// Calls so far.
    calls: u32,
    /// The whole answer, where lines are not wanted.
    said: Said,
    /// Log probabilities that came without a text, for the next line.
    late: String,
    beside: Waiting,
    inside: Waiting,
    usage: Option<Usage>,
    finish: Option<Finish>,
    ended: bool,
}

impl Lines {
    pub(super) fn new(api: Api, start: AnswerStart) -> Self {
        Lines {
            api,
            flags: Flags::from_text(&start.render),
            model: start.model,
            created: rfc3339(start.created),
            head: Vec::new(),
            blocks: BTreeMap::new(),
            calls: 0,
            said: Said::default(),
            late: String::new(),
            beside: Waiting::default(),
            inside: Waiting::default(),
            usage: None,
            finish: None,
            ended: false,
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => self.delta(delta, out),
            Event::Started(started) => {
                if let Some(model) = started.model {
                    self.model = model;
                }
                if let Some(created) = started.created {
                    self.created = rfc3339(created);
                }
                self.head.clear();
            }
            Event::BlockStart(start) => self.block_start(start),
            Event::BlockStop(index) => self.block_stop(index, out),
            Event::Usage(later) => usage::merge(self.usage.get_or_insert_default(), later),
            Event::Finish(finish) if finish.choice == 0 => self.finish = Some(finish),
            Event::Other(other) if is_ollama(&other.dialect) => self.other(&other),
            Event::Done => {
                self.ended = true;
                let said = std::mem::take(&mut self.said);
                self.write(out, said, true);
            }
            // Other choices, and what has no place in this API or is not of this operation.
            Event::Finish(_)
            | Event::Other(_)
            | Event::Signature(_)
            | Event::Redacted(_)
            | Event::Failed(_)
            | Event::Embedding(_)
            | Event::Model(_) => {}
        }
    }

    fn block_start(&mut self, start: BlockStart) {
        if start.choice != 0 {
            return;
        }
        let block = match start.kind {
            BlockKind::Text | BlockKind::Refusal => Block::Content,
            BlockKind::Reasoning => Block::Thinking,
            BlockKind::ToolCall(call) => {
                let number = self.calls;
                self.calls += 1;
                Block::Call(Box::new(Call {
                    number,
                    id: call.id,
                    name: call.name,
                    arguments: String::new(),
                    cut: false,
                    extra: Waiting::default(),
                    function: Waiting::default(),
                }))
            }
            BlockKind::Other(_) => return,
        };
        self.blocks.insert(start.index, block);
    }

    fn delta(&mut self, delta: BlockDelta, out: &mut Vec<u8>) {
        let Some(block) = self.blocks.get_mut(&delta.index) else { return };
        let thinking = match block {
            Block::Call(call) => {
                call.add(&delta.text);
                return;
            }
            Block::Content => false,
            Block::Thinking => true,
        };
        let logprobs = delta.logprobs.as_deref().map(logprobs).unwrap_or_default();
        if !self.flags.stream {
            let text = if thinking { &mut self.said.thinking } else { &mut self.said.content };
            text.push_str(&delta.text);
            let late = std::mem::take(&mut self.late);
            append(&mut self.said.logprobs, &late);
            append(&mut self.said.logprobs, &logprobs);
            return;
        }
        if delta.text.is_empty() && logprobs.is_empty() {
            return;
        }
        let mut said = Said { logprobs, ..Said::default() };
        *(if thinking { &mut said.thinking } else { &mut said.content }) = delta.text;
        self.write(out, said, false);
    }

    /// A tool call is complete when its block ends.
    fn block_stop(&mut self, index: u32, out: &mut Vec<u8>) {
        let Some(Block::Call(mut call)) = self.blocks.remove(&index) else { return };
        let mut object = Vec::new();
        let valid = call.write(&mut object);
        let mut line = Said::default();
        let said = if self.flags.stream { &mut line } else { &mut self.said };
        let calls = if valid { &mut said.calls } else { &mut said.invalid_calls };
        calls.push((call.number, object));
        if self.flags.stream {
            self.write(out, line, false);
        }
    }

    fn other(&mut self, other: &OtherEvent) {
        match other.scope {
            Scope::Message(0) if self.api == Api::Chat => self.inside.add(&other.members, &MESSAGE),
            Scope::Envelope => {
                self.beside.add(&other.members, &LINE);
                if let Some(created) = self.beside.take("created_at").filter(|created| created.starts_with('"')) {
                    self.created = created;
                    self.head.clear();
                }
            }
            Scope::Block(index) => {
                if let Some(Block::Call(call)) = self.blocks.get_mut(&index) {
                    call.extra.add(&other.members, &CALL);
                    if let Some(function) = call.extra.take("function") {
                        call.function.add(&function, &FUNCTION);
                    }
                }
            }
            Scope::Choice(0) => {
                let mut members = Waiting::default();
                members.add(&other.members, &[]);
                if let Some(raw) = members.take("logprobs") {
                    append(&mut self.late, &logprobs(&raw));
                }
            }
            Scope::Choice(_) | Scope::Message(_) => {}
        }
    }

    /// One line, or the whole answer.
    fn write(&mut self, out: &mut Vec<u8>, mut said: Said, last: bool) {
        let chat = self.api == Api::Chat;
        if self.head.is_empty() {
            self.head.extend_from_slice(b"{\"model\":");
            write::string(&mut self.head, &self.model);
            self.head.extend_from_slice(b",\"created_at\":");
            self.head.extend_from_slice(self.created.as_bytes());
            self.head.extend_from_slice(if chat {
                b",\"message\":{\"role\":\"assistant\",\"content\":\""
            } else {
                b",\"response\":\""
            });
        }
        out.extend_from_slice(&self.head);
        write::string_body(out, &said.content);
        out.push(b'"');
        if !said.thinking.is_empty() {
            out.extend_from_slice(b",\"thinking\":");
            write::string(out, &said.thinking);
        }
        write_calls(out, "tool_calls", &mut said.calls);
        write_calls(out, "invalid_tool_calls", &mut said.invalid_calls);
        if chat {
            self.inside.write(out, false);
            out.push(b'}');
        }
        // What waits is older than a line's own; a whole answer has taken over all but the last.
        let late = std::mem::take(&mut self.late);
        let (mut logprobs, later) = if self.flags.stream { (late, said.logprobs) } else { (said.logprobs, late) };
        append(&mut logprobs, &later);
        if !logprobs.is_empty() {
            out.extend_from_slice(b",\"logprobs\":[");
            out.extend_from_slice(logprobs.as_bytes());
            out.push(b']');
        }
        if last {
            self.write_end(out);
        } else {
            out.extend_from_slice(b",\"done\":false");
        }
        self.beside.write(out, false);
        out.push(b'}');
        if self.flags.stream {
            out.push(b'\n');
        }
    }

    /// Why the answer is complete, and what it cost.
    fn write_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"done\":true");
        if !self.beside.has("done_reason") {
            out.extend_from_slice(b",\"done_reason\":");
            let reason = self.finish.as_ref().map_or(&FinishReason::Stop, |finish| &finish.reason);
            let word = match reason {
                FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Other(_) => "stop",
                FinishReason::Length => "length",
                FinishReason::ContentFilter => "content_filter",
            };
            write::string(out, self.flags.nothing.unwrap_or(word));
            if let FinishReason::Other(reason) = reason {
                out.extend_from_slice(b",\"native_finish_reason\":");
                write::string(out, self.finish.as_ref().and_then(|finish| finish.raw.as_ref()).unwrap_or(reason));
            }
        }
        if let Some(usage) = &self.usage {
            for (name, count) in [("prompt_eval_count", usage.input_tokens), ("eval_count", usage.output_tokens)] {
                if let Some(count) = count {
                    out.push(b',');
                    write::string(out, name);
                    out.push(b':');
                    write::number(out, count);
                }
            }
            if usage.estimated {
                out.extend_from_slice(b",\"estimated\":true");
            }
            let mut members = durations(Some(usage), &LINE);
            members.extend(std::mem::take(&mut self.beside));
            self.beside = members;
        }
    }
}

impl Call {
    fn add(&mut self, piece: &str) {
        if self.cut || self.arguments.len() + piece.len() > MOST_ARGUMENTS {
            self.cut = true;
        } else {
            self.arguments.push_str(piece);
        }
    }

    /// Writes the call's object. False where its arguments are not a JSON object: then they are text.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let arguments = if self.arguments.trim_ascii().is_empty() { "{}" } else { &self.arguments };
        let object = if self.cut { None } else { members::one_line_object(arguments) };
        out.push(b'{');
        if !self.id.starts_with(UNNAMED) {
            out.extend_from_slice(b"\"id\":");
            write::string(out, &self.id);
            out.push(b',');
        }
        out.extend_from_slice(b"\"function\":{");
        if !self.function.has("index") {
            out.extend_from_slice(b"\"index\":");
            write::number(out, u64::from(self.number));
            out.push(b',');
        }
        out.extend_from_slice(b"\"name\":");
        write::string(out, &self.name);
        out.extend_from_slice(b",\"arguments\":");
        match &object {
            Some(object) => out.extend_from_slice(object.as_bytes()),
            None => write::string(out, &self.arguments),
        }
        self.function.write(out, false);
        out.push(b'}');
        self.extra.write(out, false);
        out.push(b'}');
        object.is_some()
    }
}

/// A member that lists calls in the order of their starts, where there are some.
fn write_calls(out: &mut Vec<u8>, name: &str, calls: &mut [(u32, Vec<u8>)]) {
    if calls.is_empty() {
        return;
    }
    calls.sort_by_key(|(number, _)| *number);
    out.push(b',');
    write::string(out, name);
    for (at, (_, object)) in calls.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b":[" } else { b"," });
        out.extend_from_slice(object);
    }
    out.push(b']');
}

impl Render for Lines {
    fn head(&self) -> Rendered {
        if !self.flags.stream {
            return json_answer(200, Vec::new());
        }
        let headers =
            [("content-type", "application/x-ndjson"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Rendered { status: 200, headers, body: Vec::new() }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::with_capacity(if self.flags.stream { 160 * events.len() } else { 0 });
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
        let mut body = error_body(&failure.error);
        if self.flags.stream {
            body.push(b'\n');
        }
        body
    }

    fn keep_alive(&self) -> Vec<u8> {
        if self.flags.stream { b" ".to_vec() } else { Vec::new() }
    }
}

/// A point in time, as a JSON string.
fn rfc3339(seconds: u64) -> String {
    let seconds = seconds.min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the day that only some of them have; an era is 400 of them.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("\"{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z\"")
}

/// Adds elements to those of a list.
fn append(list: &mut String, elements: &str) {
    if !list.is_empty() && !elements.is_empty() {
        list.push(',');
    }
    list.push_str(elements);
}

/// Elements of this API's list of log probabilities, from either of OpenAI's shapes; empty where it is neither.
fn logprobs(raw: &str) -> String {
    let mut content = None;
    let (mut tokens, mut likely, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = Reader::new(raw, members::DEPTH);
    let result = reader.object(|reader, name| {
        match (&*name.text, reader.kind()) {
            ("content", Kind::Array) => content = Some(members::elements(reader.raw()?)),
            ("tokens", Kind::Array) => tokens = raw_elements(reader)?,
            ("token_logprobs", Kind::Array) => likely = raw_elements(reader)?,
            ("top_logprobs", Kind::Array) => tops = raw_elements(reader)?,
            _ => drop(reader.raw()?),
        }
        Ok(())
    });
    if result.and_then(|()| reader.end()).is_err() {
        return String::new();
    }
    if let Some(content) = content {
        return members::one_line_owned(content.to_owned());
    }
    let mut out = String::new();
    for (at, (token, logprob)) in tokens.iter().zip(&likely).enumerate() {
        // The first token of a prompt has none.
        if *logprob == "null" {
            continue;
        }
        out.push_str(if out.is_empty() { "{\"token\":" } else { ",{\"token\":" });
        out.push_str(token);
        out.push_str(",\"logprob\":");
        out.push_str(logprob);
        let mut list = String::new();
        let mut reader = Reader::new(tops.get(at).copied().unwrap_or_default(), members::DEPTH);
        // `null`, or none at all, adds nothing.
        let _ = reader.object(|reader, name| {
            list.push_str(if list.is_empty() { "{\"token\":" } else { ",{\"token\":" });
            list.push_str(name.raw);
            list.push_str(",\"logprob\":");
            list.push_str(reader.raw()?);
            list.push('}');
            Ok(())
        });
        if !list.is_empty() {
            out.push_str(",\"top_logprobs\":[");
            out.push_str(&list);
            out.push(']');
        }
        out.push('}');
    }
    members::one_line_owned(out)
}

fn raw_elements<'a>(reader: &mut Reader<'a>) -> Read<Vec<&'a str>> {
    reader.list(Reader::raw)
}
