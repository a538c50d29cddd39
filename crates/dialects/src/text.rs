//! What an answer says, for dialects whose answer is one text.

use witgate_model::{BlockKind, Event};

/// The text of the first choice.
#[derive(Debug, Default)]
pub(crate) struct FirstText {
    pub(crate) text: String,
    /// Indexes of its text blocks that are open.
    blocks: Vec<u32>,
}

impl FirstText {
    /// Takes an event's text, if it is one of the first choice.
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::BlockStart(start)
                if start.choice == 0 && matches!(start.kind, BlockKind::Text | BlockKind::Refusal) =>
            {
                self.blocks.push(start.index);
            }
            Event::Text(delta) if self.blocks.contains(&delta.index) => self.text.push_str(&delta.text),
            Event::BlockStop(index) => self.blocks.retain(|block| block != index),
            _ => {}
        }
    }
}
