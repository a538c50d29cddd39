//! Events to an answer of OpenAI's two completion APIs, streamed or whole.
//!
//! A streamed answer is a row of server-sent events. The chunk that carries a choice's finish is held back until
//! [`Event::Done`], so that unknown members which the backend sent beside or behind it (as llama.cpp's `timings`) still
//! have a chunk to stand in, and so that a stream which fails never shows a finish. Nothing else is held back.
//!
//! Beyond OpenAI's own members: `reasoning_content`, `reasoning_signature`, `reasoning_encrypted_content` and
//! `content_parts` of delta and message (the last are parts of a backend's answer that OpenAI's answers don't have), `estimated` in the usage,
//! `native_finish_reason` beside a `finish_reason` that stands for a reason OpenAI does not have, and `stop_reason`, the
//! stop sequence that was met.

use witgate_model::normaliser::{AnswerStart, Failure, Rendered};
use witgate_model::{BlockDelta, BlockKind, BlockStart, Event, Finish, FinishReason, OtherEvent, Scope, Usage};

use crate::members::{self, Joined, Waiting};
use crate::openai::{self, Flags};
use crate::proofs::Proofs;
use crate::read::{Kind, Reader};
use crate::{Render, openai_chat, openai_completions, usage, write};

/// Which of the two APIs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flavour {
    Chat,
    Completions,
}

impl Flavour {
    fn dialect(self) -> &'static str {
        match self {
            Flavour::Chat => openai_chat::NAME,
            Flavour::Completions => openai_completions::NAME,
        }
    }

    fn id_prefix(self) -> &'static str {
        match self {
            Flavour::Chat => "chatcmpl-",
            Flavour::Completions => "cmpl-",
        }
    }

    fn object(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Flavour::Chat, true) => "chat.completion.chunk",
            (Flavour::Chat, false) => "chat.completion",
            (Flavour::Completions, _) => "text_completion",
        }
    }
}

// Members that we write ourselves: a backend's unknown members never replace them. `error` would make OpenAI's clients
// take a chunk for a failure.
const ENVELOPE: [&str; 7] = ["id", "object", "created", "model", "choices", "usage", "error"];
// `logprobs` of a choice, `content` and `tool_calls` of a message are not here: those of a backend join ours.
const CHOICE: [&str; 7] =
    ["index", "delta", "message", "text", "finish_reason", "native_finish_reason", "reasoning_content"];
const MESSAGE: [&str; 6] =
    ["role", "refusal", "reasoning_content", "reasoning_signature", "reasoning_encrypted_content", "content_parts"];
const CALL: [&str; 4] = ["index", "id", "type", "function"];
const FUNCTION: [&str; 2] = ["name", "arguments"];

/// Choices of one answer; the gateway lets no more pass.
const MOST_CHOICES: u32 = 128;

/// Alternatives of one token in log probabilities; OpenAI gives 20 at most.
const MOST_ALTERNATIVES: usize = 64;

/// Where the deltas of a block go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Text,
    Reasoning,
    Refusal,
    /// The tool call of this number within its choice.
    Call(u32),
    /// Nowhere: a block without a counterpart here.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    index: u32,
    choice: u32,
    target: Target,
    /// A delta has come.
    filled: bool,
}

/// A tool call of a whole answer.
#[derive(Debug)]
enum Call {
    Function {
        id: String,
        name: String,
        arguments: String,
        extra: CallExtra,
    },
    /// One that only OpenAI's own API has: the whole object.
    Other(String),
}

/// Unknown members of a tool call and of its function.
#[derive(Debug, Default)]
struct CallExtra {
    call: Waiting,
    function: Waiting,
}

/// What one choice has said, for a whole answer.
#[derive(Debug, Default)]
struct Said {
    content: Option<String>,
    reasoning: Option<String>,
    signature: Option<String>,
    encrypted: Option<String>,
    refusal: Option<String>,
    calls: Vec<Call>,
    logprobs: Joined,
}

#[derive(Debug, Default)]
struct Choice {
    number: u32,
    /// The start of each of its chunks, up to where the delta's members begin.
    head: Vec<u8>,
    /// Its first chunk has gone.
    begun: bool,
    /// Tool calls so far.
    calls: u32,
    /// Characters so far: for the offsets of log probabilities in text completions.
    offset: usize,
    finish: Option<Finish>,
    beside: Waiting,
    inside: Waiting,
    /// Log probabilities that came without a text, for the next chunk.
    late: Joined,
    /// Content parts without a counterpart here, for the next chunk: JSON values with commas between.
    parts: String,
    said: Said,
    proofs: Proofs,
}

/// The renderer of one answer.
#[derive(Debug)]
pub(crate) struct Answer {
    flavour: Flavour,
    flags: Flags,
    id: String,
    created: u64,
    model: String,
    blocks: Vec<Block>,
    choices: Vec<Choice>,
    envelope: Waiting,
    usage: Option<Usage>,
    /// `Done` or a failure has come.
    ended: bool,
    /// Bytes have gone.
    begun: bool,
}

impl Answer {
    pub(crate) fn new(flavour: Flavour, start: AnswerStart) -> Self {
        Answer {
            flavour,
            flags: Flags::from_text(&start.render),
            id: format!("{}{}", flavour.id_prefix(), start.id),
            created: start.created,
            model: start.model,
            blocks: Vec::new(),
            choices: Vec::new(),
            envelope: Waiting::default(),
            usage: None,
            ended: false,
            begun: false,
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Text(delta) => self.delta(delta, out),
            Event::Reasoning(delta) | Event::Arguments(delta) => self.delta(delta, out),
            Event::Signature(delta) => self.proof(&delta, false, out),
            Event::Redacted(delta) => self.proof(&delta, true, out),
            Event::Started(started) => {
                // The names in a stream's chunks don't change once the first one has gone.
                if !self.begun {
                    if let Some(id) = started.id.filter(|id| id.starts_with(self.flavour.id_prefix())) {
                        self.id = id;
                    }
                    self.created = started.created.unwrap_or(self.created);
                    if let Some(model) = started.model {
                        self.model = model;
                    }
                    for choice in &mut self.choices {
                        choice.head.clear();
                    }
                }
            }
            Event::BlockStart(start) => self.block_start(start, out),
            Event::BlockStop(index) => self.block_stop(index, out),
            Event::Usage(later) => usage::merge(self.usage.get_or_insert_default(), later),
            Event::Finish(finish) => {
                let at = self.choice(finish.choice);
                self.choices[at].finish = Some(finish);
            }
            Event::Other(other) => self.other(&other, out),
            Event::Done => {
                self.ended = true;
                if self.flags.stream { self.end_stream(out) } else { self.whole(out) }
            }
            // Not of this operation.
            Event::Failed(_) | Event::Embedding(_) | Event::Model(_) => {}
        }
    }

    /// Where the choice of that number is; a new one is put in order.
    fn choice(&mut self, number: u32) -> usize {
        if self.choices.get(number as usize).is_some_and(|choice| choice.number == number) {
            return number as usize;
        }
        self.choices.binary_search_by_key(&number, |choice| choice.number).unwrap_or_else(|at| {
            self.choices.insert(at, Choice { number, ..Choice::default() });
            at
        })
    }

    /// Where the block of that index is.
    fn block(&self, index: u32) -> Option<usize> {
        if self.blocks.get(index as usize).is_some_and(|block| block.index == index) {
            return Some(index as usize);
        }
        self.blocks.binary_search_by_key(&index, |block| block.index).ok()
    }

    fn block_start(&mut self, start: BlockStart, out: &mut Vec<u8>) {
        let at = self.choice(start.choice);
        let chat = self.flavour == Flavour::Chat;
        let target = match start.kind {
            BlockKind::Text => Target::Text,
            BlockKind::Reasoning => Target::Reasoning,
            BlockKind::Refusal => Target::Refusal,
            BlockKind::ToolCall(_) | BlockKind::Other(_) if !chat => Target::Nothing,
            BlockKind::ToolCall(call) => {
                let number = self.next_call(at);
                if self.flags.stream {
                    self.delta_chunk(at, out, None, |out| {
                        out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                        write::number(out, u64::from(number));
                        out.extend_from_slice(b",\"id\":");
                        write::string(out, &call.id);
                        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                        write::string(out, &call.name);
                        out.extend_from_slice(b",\"arguments\":\"\"}}]");
                    });
                } else {
                    let call = Call::Function {
                        id: call.id,
                        name: call.name,
                        arguments: String::new(),
                        extra: CallExtra::default(),
                    };
                    self.choices[at].said.calls.push(call);
                }
                Target::Call(number)
            }
            BlockKind::Other(object) => {
                // Only a tool call in OpenAI's own shape has a place here.
                if let Some(mut call) = foreign_call(&object.value) {
                    let number = self.next_call(at);
                    if self.flags.stream {
                        self.delta_chunk(at, out, None, |out| {
                            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                            write::number(out, u64::from(number));
                            call.write(out, false);
                            out.extend_from_slice(b"}]");
                        });
                    } else {
                        let mut object = vec![b'{'];
                        call.write(&mut object, true);
                        object.push(b'}');
                        let object = String::from_utf8(object).unwrap_or_default();
                        self.choices[at].said.calls.push(Call::Other(object));
                    }
                }
                Target::Nothing
            }
        };
        if !self.flags.stream && target == Target::Text {
            self.choices[at].said.content.get_or_insert_default();
        }
        let block = Block { index: start.index, choice: start.choice, target, filled: false };
        match self.blocks.last() {
            Some(last) if last.index >= start.index => {
                match self.blocks.binary_search_by_key(&start.index, |block| block.index) {
                    Ok(at) => self.blocks[at] = block,
                    Err(at) => self.blocks.insert(at, block),
                }
            }
            _ => self.blocks.push(block),
        }
    }

    fn next_call(&mut self, at: usize) -> u32 {
        let choice = &mut self.choices[at];
        let number = choice.calls;
        choice.calls += 1;
        number
    }

    fn block_stop(&mut self, index: u32, out: &mut Vec<u8>) {
        let Some(at) = self.block(index) else { return };
        let block = self.blocks[at];
        if block.target == Target::Reasoning {
            let at = self.choice(block.choice);
            if let Some(told) = self.choices[at].proofs.end() {
                self.tell(at, false, &told, out);
            }
        }
        // Arguments of which not one piece came are an empty object. A whole answer fills them in at its end.
        if let Target::Call(_) = block.target
            && !block.filled
            && self.flags.stream
        {
            self.delta(BlockDelta { index, text: "{}".to_owned(), logprobs: None }, out);
        }
    }

    /// More text, reasoning, refusal or arguments.
    fn delta(&mut self, delta: BlockDelta, out: &mut Vec<u8>) {
        let Some(at) = self.block(delta.index) else { return };
        if delta.text.is_empty() && delta.logprobs.is_none() {
            return;
        }
        let block = &mut self.blocks[at];
        block.filled = true;
        let Block { choice, target, .. } = *block;
        let at = self.choice(choice);
        if target == Target::Reasoning && self.flavour == Flavour::Chat {
            if let Some(place) = self.choices[at].proofs.begin(delta.index) {
                self.tell(at, true, &place, out);
            }
            self.choices[at].proofs.text(delta.text.len());
        }
        let logprobs = delta.logprobs.as_deref().and_then(|raw| self.logprobs(at, raw));
        if !self.flags.stream {
            let said = &mut self.choices[at].said;
            let text = match target {
                Target::Text => said.content.get_or_insert_default(),
                Target::Reasoning => said.reasoning.get_or_insert_default(),
                Target::Refusal => said.refusal.get_or_insert_default(),
                Target::Call(number) => match said.calls.get_mut(number as usize) {
                    Some(Call::Function { arguments, .. }) => arguments,
                    _ => return,
                },
                Target::Nothing => return,
            };
            if text.is_empty() {
                *text = delta.text;
            } else {
                text.push_str(&delta.text);
            }
            if let Some(logprobs) = logprobs {
                said.logprobs.add(&logprobs);
            }
            return;
        }
        let chat = self.flavour == Flavour::Chat;
        let name: &[u8] = match target {
            Target::Text if chat => b"\"content\":\"",
            Target::Text => b"\"text\":\"",
            // Text completions have no place of their own for these; `text` is always there.
            Target::Reasoning if chat => b"\"reasoning_content\":\"",
            Target::Reasoning => b"\"text\":\"\",\"reasoning_content\":\"",
            Target::Refusal if chat => b"\"refusal\":\"",
            Target::Refusal => b"\"text\":\"\",\"refusal\":\"",
            Target::Call(number) => {
                self.delta_chunk(at, out, None, |out| {
                    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                    write::number(out, u64::from(number));
                    out.extend_from_slice(b",\"function\":{\"arguments\":");
                    write::string(out, &delta.text);
                    out.extend_from_slice(b"}}]");
                });
                return;
            }
            Target::Nothing => return,
        };
        self.delta_chunk(at, out, logprobs.as_deref(), |out| {
            out.extend_from_slice(name);
            write::string_body(out, &delta.text);
            out.push(b'"');
        });
    }

    /// A piece of a signature, or of reasoning that is encrypted.
    fn proof(&mut self, delta: &BlockDelta, encrypted: bool, out: &mut Vec<u8>) {
        let Some(at) = self.block(delta.index) else { return };
        if delta.text.is_empty() || self.blocks[at].target != Target::Reasoning || self.flavour != Flavour::Chat {
            return;
        }
        let at = self.choice(self.blocks[at].choice);
        if encrypted {
            let told = self.choices[at].proofs.encrypted(delta.index, &delta.text);
            return self.tell(at, true, &told, out);
        }
        if let Some(place) = self.choices[at].proofs.begin(delta.index) {
            self.tell(at, true, &place, out);
        }
        let told = self.choices[at].proofs.signature(&delta.text);
        self.tell(at, false, &told, out);
    }

    /// Tells the client a piece of what proves, or encrypts, reasoning.
    fn tell(&mut self, at: usize, encrypted: bool, text: &str, out: &mut Vec<u8>) {
        if self.flags.stream {
            self.delta_chunk(at, out, None, |out| {
                let name: &[u8] =
                    if encrypted { b"\"reasoning_encrypted_content\":" } else { b"\"reasoning_signature\":" };
                out.extend_from_slice(name);
                write::string(out, text);
            });
        } else {
            let said = &mut self.choices[at].said;
            let proof = if encrypted { &mut said.encrypted } else { &mut said.signature };
            proof.get_or_insert_default().push_str(text);
        }
    }

    fn other(&mut self, other: &OtherEvent, out: &mut Vec<u8>) {
        if other.dialect != self.flavour.dialect() {
            return;
        }
        match other.scope {
            Scope::Choice(number) | Scope::Message(number) if number >= MOST_CHOICES => {}
            // A block has no object of its own here.
            Scope::Block(_) => {}
            Scope::Envelope => self.envelope.add(&other.members, &ENVELOPE),
            Scope::Choice(number) => {
                let at = self.choice(number);
                self.choices[at].beside.add(&other.members, &CHOICE);
                self.late_logprobs(at);
            }
            Scope::Message(number) => {
                let at = self.choice(number);
                // Text completions have no message: its members stand in the choice.
                if self.flavour == Flavour::Completions {
                    self.choices[at].beside.add(&other.members, &CHOICE);
                    self.late_logprobs(at);
                    return;
                }
                let choice = &mut self.choices[at];
                choice.inside.add(&other.members, &MESSAGE);
                if let Some(content) = choice.inside.take("content").filter(|content| content.starts_with('[')) {
                    let parts = members::elements(&content);
                    if !choice.parts.is_empty() && !parts.is_empty() {
                        choice.parts.push(',');
                    }
                    choice.parts.push_str(parts);
                }
                if let Some(calls) = choice.inside.take("tool_calls") {
                    self.call_members(at, &calls, out);
                }
            }
        }
    }

    /// Log probabilities that the backend gave without a text, as beside a tool call.
    fn late_logprobs(&mut self, at: usize) {
        let Some(raw) = self.choices[at].beside.take("logprobs") else { return };
        let Some(logprobs) = self.logprobs(at, &raw) else { return };
        let choice = &mut self.choices[at];
        if self.flags.stream { choice.late.add(&logprobs) } else { choice.said.logprobs.add(&logprobs) }
    }

    /// Unknown members of tool calls: `calls` is an array of objects with an `index` each.
    fn call_members(&mut self, at: usize, calls: &str, out: &mut Vec<u8>) {
        let mut reader = Reader::new(calls, members::DEPTH);
        let mut all = Vec::new();
        let result = reader.array(|reader, _| {
            let mut number = None;
            let mut extra = CallExtra::default();
            reader.object(|reader, name| {
                match &*name.text {
                    "index" => number = Some(reader.u32()?),
                    "function" => extra.function.add(reader.raw_object()?, &FUNCTION),
                    other if CALL.contains(&other) => drop(reader.raw()?),
                    other => extra.call.push(other, reader.raw()?),
                }
                Ok(())
            })?;
            all.extend(number.map(|number| (number, extra)));
            Ok(())
        });
        if result.is_err() {
            return;
        }
        for (number, mut extra) in all {
            let known = number < self.choices[at].calls;
            if !known || (extra.call.is_empty() && extra.function.is_empty()) {
                continue;
            }
            if self.flags.stream {
                self.delta_chunk(at, out, None, |out| {
                    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                    write::number(out, u64::from(number));
                    if !extra.function.is_empty() {
                        out.extend_from_slice(b",\"function\":{");
                        extra.function.write(out, true);
                        out.push(b'}');
                    }
                    extra.call.write(out, false);
                    out.extend_from_slice(b"}]");
                });
            } else if let Some(Call::Function { extra: own, .. }) = self.choices[at].said.calls.get_mut(number as usize)
            {
                own.call.extend(extra.call);
                own.function.extend(extra.function);
            }
        }
    }

    /// Log probabilities as this API writes them.
    fn logprobs(&mut self, at: usize, raw: &str) -> Option<String> {
        match self.flavour {
            Flavour::Chat => members::one_line_object(raw).map(|object| object.into_owned()),
            Flavour::Completions => completion_logprobs(raw, &mut self.choices[at].offset),
        }
    }

    /// The members that every chunk, and the whole answer, begins with.
    fn envelope_head(&self, out: &mut Vec<u8>) {
        if self.flags.stream {
            out.extend_from_slice(b"data: ");
        }
        out.extend_from_slice(b"{\"id\":");
        write::string(out, &self.id);
        out.extend_from_slice(b",\"object\":\"");
        out.extend_from_slice(self.flavour.object(self.flags.stream).as_bytes());
        out.extend_from_slice(b"\",\"created\":");
        write::number(out, self.created);
        out.extend_from_slice(b",\"model\":");
        write::string(out, &self.model);
        out.extend_from_slice(b",\"choices\":[");
    }

    /// A chunk whose delta (in text completions: whose choice) has the members that `write` writes. The first one of a
    /// chat choice goes in front of it.
    fn delta_chunk(&mut self, at: usize, out: &mut Vec<u8>, logprobs: Option<&str>, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.choices[at].begun {
            self.choices[at].begun = true;
            if self.flavour == Flavour::Chat {
                self.chunk(at, out, None, None, |out| {
                    out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
                });
            }
        }
        self.chunk(at, out, logprobs, None, write);
    }

    /// One chunk of one choice.
    fn chunk(
        &mut self,
        at: usize,
        out: &mut Vec<u8>,
        logprobs: Option<&str>,
        finish: Option<&Finish>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begun = true;
        if self.choices[at].head.is_empty() {
            let mut head = Vec::new();
            self.envelope_head(&mut head);
            head.extend_from_slice(b"{\"index\":");
            write::number(&mut head, u64::from(self.choices[at].number));
            head.extend_from_slice(if self.flavour == Flavour::Chat { b",\"delta\":{" } else { b"," });
            self.choices[at].head = head;
        }
        let choice = &mut self.choices[at];
        out.extend_from_slice(&choice.head);
        let start = out.len();
        write(out);
        if self.flavour == Flavour::Chat {
            choice.inside.write(out, out.len() == start);
            write_parts(out, &mut choice.parts, out.len() == start);
            out.push(b'}');
        }
        let joined = (!choice.late.is_empty()).then(|| {
            let mut late = std::mem::take(&mut choice.late);
            if let Some(logprobs) = logprobs {
                late.add(logprobs);
            }
            late.to_text()
        });
        match (joined.as_deref().or(logprobs), finish) {
            (None, None) => out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null"),
            (logprobs, finish) => {
                out.extend_from_slice(b",\"logprobs\":");
                out.extend_from_slice(logprobs.unwrap_or("null").as_bytes());
                finish_members(out, finish, &choice.beside);
            }
        }
        choice.beside.write(out, false);
        out.extend_from_slice(b"}]");
        self.envelope.write(out, false);
        out.extend_from_slice(if self.flags.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
    }

    /// The chunks that were held back, the usage, and the end of a stream.
    fn end_stream(&mut self, out: &mut Vec<u8>) {
        let chat = self.flavour == Flavour::Chat;
        for at in 0..self.choices.len() {
            let choice = &mut self.choices[at];
            let finish = choice.finish.take();
            let nothing_waits = choice.beside.is_empty()
                && choice.inside.is_empty()
                && choice.late.is_empty()
                && choice.parts.is_empty();
            if finish.is_none() && nothing_waits {
                continue;
            }
            if !choice.begun && chat {
                choice.begun = true;
                self.chunk(at, out, None, None, |out| {
                    out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
                });
            }
            self.chunk(at, out, None, finish.as_ref(), |out| {
                if !chat {
                    out.extend_from_slice(b"\"text\":\"\"");
                }
            });
        }
        if self.flags.include_usage || !self.envelope.is_empty() {
            self.envelope_head(out);
            out.push(b']');
            self.envelope.write(out, false);
            if self.flags.include_usage {
                out.extend_from_slice(b",\"usage\":");
                match &self.usage {
                    Some(usage) => usage::write(out, usage),
                    None => out.extend_from_slice(b"null"),
                }
            }
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The body of an answer that is not streamed.
    fn whole(&mut self, out: &mut Vec<u8>) {
        self.envelope_head(out);
        for (number, choice) in self.choices.iter_mut().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"index\":");
            write::number(out, u64::from(choice.number));
            let said = &choice.said;
            match self.flavour {
                Flavour::Chat => {
                    out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
                    let silent = said.calls.is_empty() && said.refusal.is_none();
                    match &said.content {
                        Some(content) => write::string(out, content),
                        None if silent => out.extend_from_slice(b"\"\""),
                        None => out.extend_from_slice(b"null"),
                    }
                    out.extend_from_slice(b",\"refusal\":");
                    write::string_or_null(out, said.refusal.as_deref());
                    if let Some(reasoning) = &said.reasoning {
                        out.extend_from_slice(b",\"reasoning_content\":");
                        write::string(out, reasoning);
                    }
                    if let Some(signature) = &said.signature {
                        out.extend_from_slice(b",\"reasoning_signature\":");
                        write::string(out, signature);
                    }
                    if let Some(encrypted) = &said.encrypted {
                        out.extend_from_slice(b",\"reasoning_encrypted_content\":");
                        write::string(out, encrypted);
                    }
                    write_calls(out, &mut choice.said.calls);
                    choice.inside.write(out, false);
                    write_parts(out, &mut choice.parts, false);
                    out.push(b'}');
                }
                Flavour::Completions => {
                    out.extend_from_slice(b",\"text\":");
                    write::string(out, said.content.as_deref().unwrap_or_default());
                    for (name, text) in [("reasoning_content", &said.reasoning), ("refusal", &said.refusal)] {
                        if let Some(text) = text {
                            out.push(b',');
                            write::string(out, name);
                            out.push(b':');
                            write::string(out, text);
                        }
                    }
                }
            }
            out.extend_from_slice(b",\"logprobs\":");
            choice.said.logprobs.write(out);
            let stop = Finish { choice: 0, reason: FinishReason::Stop, raw: None, stop_sequence: None };
            finish_members(out, Some(choice.finish.as_ref().unwrap_or(&stop)), &choice.beside);
            choice.beside.write(out, false);
            out.push(b'}');
        }
        out.push(b']');
        if let Some(usage) = &self.usage {
            out.extend_from_slice(b",\"usage\":");
            usage::write(out, usage);
        }
        self.envelope.write(out, false);
        out.push(b'}');
    }
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        if self.flags.stream { openai::stream_answer() } else { openai::json_answer(200, Vec::new()) }
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::with_capacity(if self.flags.stream { 320 * events.len() } else { 0 });
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
        let body = openai::error_body(failure);
        if !self.flags.stream {
            return body;
        }
        [b"data: ".as_slice(), &body, b"\n\n"].concat()
    }

    fn keep_alive(&self) -> Vec<u8> {
        if self.flags.stream { b": keep-alive\n\n".to_vec() } else { Vec::new() }
    }
}

/// `finish_reason` and what explains it, unless the backend's members that follow say it already.
fn finish_members(out: &mut Vec<u8>, finish: Option<&Finish>, beside: &Waiting) {
    out.extend_from_slice(b",\"finish_reason\":");
    let Some(finish) = finish else {
        out.extend_from_slice(b"null");
        return;
    };
    out.extend_from_slice(match finish.reason {
        FinishReason::Stop | FinishReason::Other(_) => b"\"stop\"",
        FinishReason::Length => b"\"length\"",
        FinishReason::ToolCalls => b"\"tool_calls\"",
        FinishReason::ContentFilter => b"\"content_filter\"",
    });
    if let FinishReason::Other(reason) = &finish.reason {
        out.extend_from_slice(b",\"native_finish_reason\":");
        write::string(out, finish.raw.as_ref().unwrap_or(reason));
    }
    if let Some(sequence) = &finish.stop_sequence
        && !beside.has("stop_reason")
    {
        out.extend_from_slice(b",\"stop_reason\":");
        write::string(out, sequence);
    }
}

/// The member `content_parts`, where there are some, and forgets them.
fn write_parts(out: &mut Vec<u8>, parts: &mut String, first: bool) {
    if parts.is_empty() {
        return;
    }
    out.extend_from_slice(if first { b"\"content_parts\":[" } else { b",\"content_parts\":[" });
    out.extend_from_slice(parts.as_bytes());
    out.push(b']');
    parts.clear();
}

fn write_calls(out: &mut Vec<u8>, calls: &mut [Call]) {
    for (number, call) in calls.iter_mut().enumerate() {
        out.extend_from_slice(if number == 0 { b",\"tool_calls\":[" } else { b"," });
        match call {
            Call::Function { id, name, arguments, extra } => {
                out.extend_from_slice(b"{\"id\":");
                write::string(out, id);
                out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                write::string(out, name);
                out.extend_from_slice(b",\"arguments\":");
                write::string(out, if arguments.is_empty() { "{}" } else { arguments });
                extra.function.write(out, false);
                out.push(b'}');
                extra.call.write(out, false);
                out.push(b'}');
            }
            Call::Other(object) => out.extend_from_slice(object.as_bytes()),
        }
    }
    if !calls.is_empty() {
        out.push(b']');
    }
}

/// The members of a tool call in OpenAI's own shape (`id`, `type`, and an object under the name of the type), without
/// its `index`; `None` where `object` is something else.
fn foreign_call(object: &str) -> Option<Waiting> {
    let mut reader = Reader::new(object, members::DEPTH);
    reader.tag("id").ok()??;
    let kind = reader.tag("type").ok()??;
    let mut call = Waiting::default();
    call.add(object, &["index"]);
    call.has(&kind).then_some(call)
}

/// Log probabilities in the shape of text completions, from OpenAI's shape for chat; what has that shape already is
/// left as it is. `offset` counts the characters of the tokens before these.
fn completion_logprobs(raw: &str, offset: &mut usize) -> Option<String> {
    let mut tokens = Columns::default();
    let mut chat = false;
    let mut reader = Reader::new(raw, members::DEPTH);
    let mut next = *offset;
    reader
        .object(|reader, name| {
            if name.text != "content" || reader.kind() != Kind::Array {
                return reader.raw().map(drop);
            }
            chat = true;
            reader.array(|reader, _| tokens.token(reader, &mut next))
        })
        .ok()?;
    reader.end().ok()?;
    if !chat {
        return members::one_line_object(raw).map(|object| object.into_owned());
    }
    *offset = next;
    tokens.finish()
}

/// The four columns of the old shape, without their brackets.
#[derive(Default)]
struct Columns {
    tokens: Vec<u8>,
    logprobs: Vec<u8>,
    tops: Vec<u8>,
    offsets: Vec<u8>,
}

impl Columns {
    fn token(&mut self, reader: &mut Reader<'_>, offset: &mut usize) -> crate::read::Read<()> {
        let mut token = None;
        let mut logprob = "null";
        let mut top: Vec<(String, &str)> = Vec::new();
        reader.object(|reader, name| {
            match &*name.text {
                "token" => token = Some(reader.owned()?),
                "logprob" => logprob = reader.raw()?,
                "top_logprobs" if reader.kind() == Kind::Array => reader.array(|reader, _| {
                    let mut other = None;
                    let mut likely = "null";
                    reader.object(|reader, name| {
                        match &*name.text {
                            "token" => other = Some(reader.owned()?),
                            "logprob" => likely = reader.raw()?,
                            _ => drop(reader.raw()?),
                        }
                        Ok(())
                    })?;
                    // Different tokens may read the same: an object can hold only one of them.
                    if let Some(other) = other
                        && top.len() < MOST_ALTERNATIVES
                        && !top.iter().any(|(known, _)| *known == other)
                    {
                        top.push((other, likely));
                    }
                    Ok(())
                })?,
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let token = token.unwrap_or_default();
        for column in [&mut self.tokens, &mut self.logprobs, &mut self.tops, &mut self.offsets] {
            if !column.is_empty() {
                column.push(b',');
            }
        }
        write::string(&mut self.tokens, &token);
        self.logprobs.extend_from_slice(logprob.as_bytes());
        self.tops.push(b'{');
        for (number, (token, logprob)) in top.iter().enumerate() {
            if number > 0 {
                self.tops.push(b',');
            }
            write::string(&mut self.tops, token);
            self.tops.push(b':');
            self.tops.extend_from_slice(logprob.as_bytes());
        }
        self.tops.push(b'}');
        write::number(&mut self.offsets, *offset as u64);
        *offset += token.chars().count();
        Ok(())
    }

    fn finish(self) -> Option<String> {
        let mut out = Vec::new();
        for (name, column) in [
            (&b"{\"tokens\":["[..], self.tokens),
            (b"],\"token_logprobs\":[", self.logprobs),
            (b"],\"top_logprobs\":[", self.tops),
            (b"],\"text_offset\":[", self.offsets),
        ] {
            out.extend_from_slice(name);
            out.extend_from_slice(&column);
        }
        out.extend_from_slice(b"]}");
        String::from_utf8(out).ok().map(members::one_line_owned)
    }
}
