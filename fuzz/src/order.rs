//! The rules of `wit/adapter/types.wit` for the events of one answer, written down once more: the gateway has its own
//! check, and a fuzzer that used it would not find its faults.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;
use witgate_model::{BlockKind, Event, Scope};

/// The blocks of one answer, as far as it has come.
#[derive(Default)]
pub struct Order {
    /// The answer is a list of vectors or models, or a count: it has no blocks and no finish.
    list: bool,
    started: bool,
    ended: bool,
    blocks: Vec<Block>,
    finished: BTreeSet<u32>,
}

struct Block {
    choice: u32,
    kind: Kind,
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Reasoning,
    ToolCall,
    Other,
}

impl Order {
    /// Of an answer that is a list of vectors or models, or a count.
    pub fn of_a_list() -> Self {
        Order { list: true, ..Order::default() }
    }

    /// The next event. Panics where it breaks a rule.
    pub fn next(&mut self, event: &Event) {
        assert!(!self.ended, "an event after the last one: {event:?}");
        if !matches!(event, Event::Started(_) | Event::Failed(_)) {
            assert!(self.started, "an event before `started`: {event:?}");
        }
        match event {
            Event::Started(_) => {
                assert!(!self.started, "`started` twice");
                self.started = true;
            }
            Event::BlockStart(start) => {
                assert!(!self.list, "a block in an answer that is a list");
                assert_eq!(start.index as usize, self.blocks.len(), "blocks are not numbered densely");
                assert!(!self.finished.contains(&start.choice), "a block in a choice that has finished");
                let kind = match &start.kind {
                    BlockKind::Text | BlockKind::Refusal => Kind::Text,
                    BlockKind::Reasoning => Kind::Reasoning,
                    BlockKind::ToolCall(call) => {
                        assert!(!call.id.is_empty(), "a tool call without an id");
                        Kind::ToolCall
                    }
                    BlockKind::Other(json) => {
                        object(&json.value);
                        Kind::Other
                    }
                };
                self.blocks.push(Block { choice: start.choice, kind, open: true });
            }
            Event::Text(delta) => self.delta(delta.index, Kind::Text, &delta.text, &delta.logprobs),
            Event::Reasoning(delta) => self.delta(delta.index, Kind::Reasoning, &delta.text, &delta.logprobs),
            Event::Signature(delta) | Event::Redacted(delta) => {
                self.delta(delta.index, Kind::Reasoning, &delta.text, &delta.logprobs)
            }
            Event::Arguments(delta) => {
                // An `other` block takes in text too: the input of a tool that the backend runs.
                let kind = match self.blocks.get(delta.index as usize) {
                    Some(block) if block.kind == Kind::Other => Kind::Other,
                    _ => Kind::ToolCall,
                };
                self.delta(delta.index, kind, &delta.text, &delta.logprobs);
            }
            Event::BlockStop(index) => {
                let block = self.blocks.get_mut(*index as usize).expect("a block that began");
                assert!(block.open, "block {index} stopped twice");
                block.open = false;
            }
            Event::Usage(usage) => {
                if let Some(raw) = &usage.raw {
                    json(&raw.value);
                }
            }
            Event::Finish(finish) => {
                assert!(!self.list, "a finish of an answer that is a list");
                assert!(self.finished.insert(finish.choice), "choice {} finished twice", finish.choice);
                let open = self.blocks.iter().any(|block| block.open && block.choice == finish.choice);
                assert!(!open, "choice {} finished with an open block", finish.choice);
            }
            Event::Other(other) => {
                object(&other.members);
                if let Scope::Block(index) = other.scope {
                    let block = self.blocks.get(index as usize).expect("members of a block that began");
                    assert!(block.open, "members of block {index}, which has stopped");
                }
            }
            Event::Embedding(_) | Event::Model(_) => assert!(self.list, "vectors or models in an answer to a chat"),
            Event::Done => {
                assert!(self.list || !self.finished.is_empty(), "`done` without a finish");
                for block in &self.blocks {
                    assert!(!block.open, "`done` with an open block");
                    assert!(self.finished.contains(&block.choice), "`done` without the finish of a choice");
                }
                self.ended = true;
            }
            Event::Failed(error) => {
                assert!(!error.message.is_empty(), "a failure without a message");
                if let Some(raw) = &error.raw {
                    json(raw);
                }
                self.ended = true;
            }
        }
    }

    /// The last event has come.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn delta(&self, index: u32, kind: Kind, text: &str, logprobs: &Option<String>) {
        let block = self.blocks.get(index as usize).expect("a delta of a block that began");
        assert!(block.open, "a delta of block {index}, which has stopped");
        assert_eq!(block.kind, kind, "a delta of another kind than block {index}");
        assert!(!text.is_empty() || logprobs.is_some(), "a delta of no text");
        if let Some(logprobs) = logprobs {
            json(logprobs);
        }
    }
}

/// Panics unless the text is JSON.
pub fn json(text: &str) {
    if let Err(error) = serde_json::from_str::<&RawValue>(text) {
        panic!("not JSON: {error}: {text:?}");
    }
}

/// Panics unless the text is a JSON object.
pub fn object(text: &str) {
    json(text);
    assert!(text.trim_ascii_start().starts_with('{'), "not an object: {text:?}");
}

/// The value with every JSON text inside of it written in one way: without blanks, members in the order of their names,
/// strings with the fewest escapes. Numbers stay as they were written. Two values are equal as JSON if these are equal.
pub fn normal(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(normal_text(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, normal(value))).collect())
        }
        scalar => scalar,
    }
}

/// One JSON text in its one way; any other text, as it is. The parsers bound the depth.
fn normal_text(text: &str) -> String {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let written = match text.bytes().next() {
        Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(text).map(|members| {
            let members = members.into_iter().map(|(name, value)| format!("{name:?}:{}", normal_text(value.get())));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text).map(|items| {
            let items = items.into_iter().map(|item| normal_text(item.get()));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }),
        Some(b'"') => serde_json::from_str::<String>(text).map(|text| format!("{text:?}")),
        _ => return text.to_owned(),
    };
    written.unwrap_or_else(|_| text.to_owned())
}
