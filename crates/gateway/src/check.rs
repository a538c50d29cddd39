//! Checks that an adapter's events keep the contract's order, so that no renderer has to.

use witgate_model::{Event, Input, Usage};

/// The most blocks of one answer.
const MAX_BLOCKS: usize = 4096;
/// The most choices of one answer.
const MAX_CHOICES: u32 = 128;

/// What has been seen of one answer.
pub(crate) struct Order {
    /// The answer is said in choices, each of which must finish.
    generation: bool,
    started: bool,
    /// Per block: its choice, and whether it is open.
    blocks: Vec<(u32, bool)>,
    finished: Vec<u32>,
    pub ended: bool,
}

impl Order {
    /// For the answer to this input.
    pub fn new(input: &Input) -> Self {
        let generation = input.is_generation();
        Order { generation, started: false, blocks: Vec::new(), finished: Vec::new(), ended: false }
    }

    /// The next event. The error says what is wrong with it.
    pub fn next(&mut self, event: &Event) -> Result<(), String> {
        if self.ended {
            return Err("sent an event after the last one".into());
        }
        match event {
            Event::Started(_) if self.started => return Err("started an answer twice".into()),
            Event::Started(_) => self.started = true,
            Event::Failed(_) => self.ended = true,
            _ if !self.started => return Err("sent an event before `started`".into()),
            Event::BlockStart(_) | Event::Finish(_) if !self.generation => {
                return Err("said something, where vectors, models or a count were asked for".into());
            }
            Event::Embedding(_) | Event::Model(_) if self.generation => {
                return Err("sent vectors or models, where an answer was asked for".into());
            }
            Event::BlockStart(start) => {
                if start.index as usize != self.blocks.len() || self.blocks.len() >= MAX_BLOCKS {
                    return Err(format!("started block {}; {} was next", start.index, self.blocks.len()));
                }
                if start.choice >= MAX_CHOICES || self.finished.contains(&start.choice) {
                    return Err(format!("started a block of choice {}, which cannot be open", start.choice));
                }
                self.blocks.push((start.choice, true));
            }
            Event::Text(delta)
            | Event::Reasoning(delta)
            | Event::Signature(delta)
            | Event::Redacted(delta)
            | Event::Arguments(delta) => {
                if !self.blocks.get(delta.index as usize).is_some_and(|(_, open)| *open) {
                    return Err(format!("added to block {}, which is not open", delta.index));
                }
            }
            Event::BlockStop(index) => match self.blocks.get_mut(*index as usize) {
                Some((_, open)) if *open => *open = false,
                _ => return Err(format!("stopped block {index}, which is not open")),
            },
            Event::Finish(finish) => {
                if finish.choice >= MAX_CHOICES || self.finished.contains(&finish.choice) {
                    return Err(format!("finished choice {} twice", finish.choice));
                }
                if self.blocks.iter().any(|(choice, open)| *open && *choice == finish.choice) {
                    return Err(format!("finished choice {} with a block still open", finish.choice));
                }
                self.finished.push(finish.choice);
            }
            Event::Done => {
                if (self.generation && self.finished.is_empty()) || self.blocks.iter().any(|(_, open)| *open) {
                    return Err("ended an answer that has no finish or an open block".into());
                }
                self.ended = true;
            }
            Event::Usage(_) | Event::Other(_) | Event::Embedding(_) | Event::Model(_) => {}
        }
        Ok(())
    }
}

/// Both together.
pub(crate) fn add(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) => (one, other),
        (one, other) => return one.or(other),
    };
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
    Some(Usage {
        input_tokens: sum(one.input_tokens, other.input_tokens),
        output_tokens: sum(one.output_tokens, other.output_tokens),
        cache_read_tokens: sum(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens: sum(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens: sum(one.reasoning_tokens, other.reasoning_tokens),
        estimated: one.estimated || other.estimated,
        raw: None,
    })
}

/// Later counts replace earlier ones, field by field.
pub(crate) fn merge(old: &mut Option<Usage>, new: &Usage) {
    let old = old.get_or_insert_with(Usage::default);
    old.input_tokens = new.input_tokens.or(old.input_tokens);
    old.output_tokens = new.output_tokens.or(old.output_tokens);
    old.cache_read_tokens = new.cache_read_tokens.or(old.cache_read_tokens);
    old.cache_write_tokens = new.cache_write_tokens.or(old.cache_write_tokens);
    old.reasoning_tokens = new.reasoning_tokens.or(old.reasoning_tokens);
    old.estimated = new.estimated;
}
