//! Answers of Bedrock's Chat Completions: those of OpenAI's shape, but for reasoning inside of the content, ids of tool
//! calls that repeat, and errors that may be AWS's.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use witgate_model::{BlockDelta, BlockKind, BlockStart, Event, Frame, ResponseHead, Scope};

use super::super::answer::Head;
use super::lift::{Lift, Piece};
use crate::openai_shape::{self, Flavour};

/// Ids of fewer characters count from 0 in each answer.
const SHORTEST_ID: usize = 16;

/// Most bytes of an error answer that are kept.
const LARGEST_ERROR: usize = 64 * 1024;

/// Largest body of a good status that is looked at for an error.
const HIDDEN_ERROR: usize = 16 * 1024;

/// Most events for one frame, the contract's own bound.
const EVENTS: usize = 4096;

/// Decodes one answer.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    head: Head,
    inner: openai_shape::Decoder,
    /// The body of an error answer, or of one that may turn out to be none.
    error: Vec<u8>,
    /// Tool calls in the conversation before this answer.
    calls: usize,
    /// The backend's id of the answer.
    id: String,
    minted: u32,
    /// Blocks under way, by the number that `inner` gave them.
    blocks: BTreeMap<u32, Block>,
    /// The number of the next block.
    next: u32,
    ended: bool,
}

/// One block of `inner`.
#[derive(Debug)]
enum Block {
    /// Of any kind but text: the number that it has outside.
    Same(u32),
    /// Text, whose beginning may be reasoning.
    Text { choice: u32, lift: Lift, open: Option<Open> },
}

/// The block outside that a text block has open.
#[derive(Clone, Copy, Debug)]
struct Open {
    thinks: bool,
    index: u32,
}

impl Decoder {
    pub fn new(context: Option<&str>, calls: usize, head: ResponseHead) -> Self {
        Decoder {
            calls,
            head: Head::new(&head),
            inner: openai_shape::Decoder::new(Flavour::Bedrock, context, head),
            error: Vec::new(),
            id: String::new(),
            minted: 0,
            blocks: BTreeMap::new(),
            next: 0,
            ended: false,
        }
    }

    /// What `inner` told of one frame.
    fn map(&mut self, events: Vec<Event>, out: &mut Vec<Event>) {
        let before = out.len();
        for event in events {
            self.event(event, out);
        }
        if out.len() - before > EVENTS {
            out.truncate(before);
            let what = format_args!("one piece of it makes more than {EVENTS} events");
            out.push(Event::Failed(self.head.malformed(what)));
        }
        self.ended = out.last().is_some_and(Event::is_last);
    }

    fn event(&mut self, event: Event, out: &mut Vec<Event>) {
        match event {
            Event::Started(started) => {
                self.id = started.id.clone().unwrap_or_default();
                out.push(Event::Started(started));
            }
            Event::BlockStart(start) if start.kind == BlockKind::Text => {
                let block = Block::Text { choice: start.choice, lift: Lift::default(), open: None };
                self.blocks.insert(start.index, block);
            }
            Event::BlockStart(start) => {
                let kind = match start.kind {
                    BlockKind::ToolCall(mut call) if call.id.len() < SHORTEST_ID => {
                        call.id = self.mint();
                        BlockKind::ToolCall(call)
                    }
                    kind => kind,
                };
                let index = self.number();
                self.blocks.insert(start.index, Block::Same(index));
                out.push(Event::BlockStart(BlockStart { index, choice: start.choice, kind }));
            }
            Event::Text(delta) => self.text(delta, out),
            Event::Reasoning(delta) => out.extend(self.same(delta).map(Event::Reasoning)),
            Event::Signature(delta) => out.extend(self.same(delta).map(Event::Signature)),
            Event::Redacted(delta) => out.extend(self.same(delta).map(Event::Redacted)),
            Event::Arguments(delta) => out.extend(self.same(delta).map(Event::Arguments)),
            Event::BlockStop(index) => self.stop(index, out),
            Event::Other(mut other) => {
                if let Scope::Block(index) = other.scope {
                    other.scope = match self.blocks.get(&index) {
                        Some(Block::Same(index) | Block::Text { open: Some(Open { index, .. }), .. }) => {
                            Scope::Block(*index)
                        }
                        _ => Scope::Envelope,
                    };
                }
                out.push(Event::Other(other));
            }
            event => out.push(event),
        }
    }

    fn number(&mut self) -> u32 {
        let index = self.next;
        self.next = self.next.saturating_add(1);
        index
    }

    /// The delta with the number that its block has outside.
    fn same(&self, delta: BlockDelta) -> Option<BlockDelta> {
        match self.blocks.get(&delta.index)? {
            Block::Same(index) => Some(BlockDelta { index: *index, ..delta }),
            Block::Text { .. } => None,
        }
    }

    fn text(&mut self, delta: BlockDelta, out: &mut Vec<Event>) {
        let Some(Block::Text { choice, lift, open }) = self.blocks.get_mut(&delta.index) else {
            // A refusal's words come as text too.
            out.extend(self.same(delta).map(Event::Text));
            return;
        };
        let choice = *choice;
        let mut writer = Writer { choice, open, next: &mut self.next, logprobs: delta.logprobs, from: out.len(), out };
        lift.push(&delta.text, |piece| writer.say(piece));
        if let Some(logprobs) = writer.logprobs {
            // Of what is held, or of a tag.
            let members = format!("{{\"logprobs\":{logprobs}}}");
            out.push(Event::other(openai_shape::CHAT, Scope::Choice(choice), members));
        }
    }

    fn stop(&mut self, index: u32, out: &mut Vec<Event>) {
        match self.blocks.remove(&index) {
            Some(Block::Same(index)) => out.push(Event::BlockStop(index)),
            Some(Block::Text { choice, mut lift, mut open }) => {
                let next = &mut self.next;
                let mut writer = Writer { choice, open: &mut open, next, logprobs: None, from: out.len(), out };
                lift.end(|piece| writer.say(piece));
                // An empty text is a block all the same.
                let thinks = writer.open.is_some_and(|open| open.thinks);
                let index = writer.block(thinks);
                out.push(Event::BlockStop(index));
            }
            None => {}
        }
    }

    /// An id that no other call of the conversation has: of the answer's id, and of how many calls there were before.
    fn mint(&mut self) -> String {
        let number = self.calls.saturating_add(self.minted as usize);
        self.minted = self.minted.saturating_add(1);
        format!("call_{:016x}", crate::names::fnv1a(&format!("{} {number}", self.id)))
    }

    /// The body of an error is OpenAI's, or AWS's.
    fn is_openai_error(&self) -> bool {
        let object = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&self.error);
        object.is_ok_and(|members| members.contains_key("error"))
    }
}

/// Writes pieces of one text block, each in a block of its kind.
struct Writer<'a> {
    choice: u32,
    open: &'a mut Option<Open>,
    next: &'a mut u32,
    /// For the first text.
    logprobs: Option<String>,
    /// How many events there were: to those behind, pieces add up.
    from: usize,
    out: &'a mut Vec<Event>,
}

impl Writer<'_> {
    /// The open block of this kind.
    fn block(&mut self, thinks: bool) -> u32 {
        match *self.open {
            Some(open) if open.thinks == thinks => return open.index,
            Some(open) => self.out.push(Event::BlockStop(open.index)),
            None => {}
        }
        let index = *self.next;
        *self.next = index.saturating_add(1);
        *self.open = Some(Open { thinks, index });
        let kind = if thinks { BlockKind::Reasoning } else { BlockKind::Text };
        self.out.push(Event::BlockStart(BlockStart { index, choice: self.choice, kind }));
        index
    }

    fn say(&mut self, piece: Piece<'_>) {
        let (thinks, text) = match piece {
            Piece::Text(text) => (false, text),
            Piece::Reasoning(text) => (true, text),
        };
        let index = self.block(thinks);
        if self.out.len() > self.from
            && let Some(Event::Text(last) | Event::Reasoning(last)) = self.out.last_mut()
            && last.index == index
        {
            last.text.push_str(text);
            return;
        }
        let logprobs = if thinks { None } else { self.logprobs.take() };
        let delta = BlockDelta { index, text: text.to_owned(), logprobs };
        self.out.push(if thinks { Event::Reasoning(delta) } else { Event::Text(delta) });
    }
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        let mut out = Vec::with_capacity(frames.len() + 2);
        for frame in frames {
            if self.ended {
                break;
            }
            if let Frame::Bytes(bytes) = &frame
                && (!self.head.is_success() || bytes.len() <= HIDDEN_ERROR)
            {
                let room = LARGEST_ERROR.saturating_sub(self.error.len()).min(bytes.len());
                self.error.extend_from_slice(bytes.get(..room).unwrap_or_default());
            }
            let events = self.inner.feed(vec![frame]);
            self.map(events, &mut out);
        }
        out
    }

    fn finish(&mut self) -> Vec<Event> {
        if self.ended {
            return Vec::new();
        }
        if !self.head.is_success() && !self.is_openai_error() {
            self.ended = true;
            return vec![Event::Failed(self.head.error_body(&self.error))];
        }
        let mut events = self.inner.finish();
        if let Some(Event::Failed(failure)) = events.last_mut()
            && let Some(error) = self.head.hidden_error(&self.error)
        {
            *failure = error;
        }
        let mut out = Vec::with_capacity(events.len());
        self.map(events, &mut out);
        out
    }
}
