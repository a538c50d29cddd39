//! The contract's rules about the order of an answer's events.

use crate::types::{DialectJson, Event, Input};

/// The most blocks of one answer.
const MAX_BLOCKS: usize = 4096;
/// The most choices of one answer.
const MAX_CHOICES: u32 = 128;

/// An event of an answer that is said.
fn says(event: &Event) -> bool {
    matches!(event, Event::BlockStart(_) | Event::Finish(_))
}

/// What has been seen of one answer, and so what may come next.
///
/// ```
/// use witgate_model::{Event, FinishReason, Input, Order, Started};
///
/// let mut order = Order::new(&Input::Chat(Vec::new()));
/// order.next(&Event::Started(Started::default()))?;
/// assert_eq!(order.next(&Event::text(0, "Hi")).unwrap_err(), "added to block 0, which is not open");
/// order.next(&Event::finish(0, FinishReason::Stop, None))?;
/// order.next(&Event::Done)?;
/// assert!(order.ended());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Order {
    /// The answer is said in choices, each of which must finish.
    generation: bool,
    started: bool,
    /// Per block: its choice, and whether it is open.
    blocks: Vec<(u32, bool)>,
    finished: Vec<u32>,
    ended: bool,
}

impl Order {
    /// For the answer to this input.
    pub fn new(input: &Input) -> Self {
        let generation = input.is_generation();
        Order { generation, started: false, blocks: Vec::new(), finished: Vec::new(), ended: false }
    }

    /// For this answer: what it is an answer to is told by its events.
    pub(crate) fn of(events: &[Event]) -> Self {
        let generation = events.iter().any(says);
        Order::new(&if generation { Input::Other(DialectJson::default()) } else { Input::Models })
    }

    /// Checks a whole answer; what it is an answer to is told by its events.
    ///
    /// # Errors
    /// What is wrong with the first event at fault, or with the end, and the number of that event.
    pub fn check(events: &[Event]) -> Result<(), (usize, String)> {
        let mut order = Order::of(events);
        for (number, event) in events.iter().enumerate() {
            order.next(event).map_err(|what| (number, what))?;
        }
        let lists = |event: &Event| matches!(event, Event::Embedding(_) | Event::Model(_) | Event::Usage(_));
        if matches!(events.last(), Some(Event::Done)) && !order.generation && !events.iter().any(lists) {
            return Err((events.len() - 1, "ended an answer that holds nothing, not even a finish".into()));
        }
        if order.ended { Ok(()) } else { Err((events.len(), "ended without `done` or `failed`".into())) }
    }

    /// The last event has come: `done` or `failed`.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next event.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence that lacks its subject: `started an answer twice`.
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
