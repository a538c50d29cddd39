//! Watchers that look at text: what is held back of each block, and when it is let go.

use std::collections::BTreeMap;

use witgate_model::policy::Filtered;
use witgate_model::watching::MAX_HELD;
use witgate_model::{BlockDelta, BlockKind, Error, Event, Request, Watcher};

/// What becomes of the text of an answer's blocks. [`TextWatcher`] makes a watcher of it, which keeps the contract: events
/// stay in order, what is held back is bounded and told, and nothing is held back behind a block's end.
///
/// Backends cut text anywhere, within a word too. So a filter sees what has not gone on yet together with what has come, and
/// leaves what it cannot decide before it has seen more.
///
/// ```
/// use witgate_model::watching::said;
/// use witgate_model::{BlockKind, Error, Event, Watcher};
/// use witgate_policies::{TextFilter, TextWatcher};
///
/// /// Writes `fig` for `fish`.
/// struct NoFish;
///
/// impl TextFilter for NoFish {
///     type Block = ();
///
///     fn block(&mut self, kind: &BlockKind) -> Option<()> {
///         matches!(kind, BlockKind::Text).then_some(())
///     }
///
///     fn pass(&mut self, _: &mut (), held: &mut String, last: bool) -> Result<String, Error> {
///         // The last word may go on.
///         let decided = if last { held.len() } else { held.rfind(' ').map_or(0, |blank| blank + 1) };
///         Ok(held.drain(..decided).collect::<String>().replace("fish", "fig"))
///     }
/// }
///
/// let mut watcher = TextWatcher::new(NoFish);
/// let filtered = watcher.feed(said(BlockKind::Text, &["a fi", "sh, tw", "o fish"]));
/// let text: String = filtered.events.iter().filter_map(|e| if let Event::Text(d) = e { Some(&*d.text) } else { None }).collect();
/// assert_eq!((text.as_str(), filtered.held), ("a fig, two fig", 0));
/// ```
pub trait TextFilter {
    /// What is remembered of an open block.
    type Block;

    /// The most bytes of one block that are held back. Of a block that has more the filter is asked with `last`.
    const WINDOW: usize = 4_096;

    /// Whether the text of a block of this kind is looked at. Of any other it goes on as it is.
    fn block(&mut self, kind: &BlockKind) -> Option<Self::Block>;

    /// Takes out of `held`, which has grown at its end, what can be decided, and gives what goes on in its place. With `last`
    /// nothing more comes behind it: all can be decided, and what is left goes on as it is.
    ///
    /// # Errors
    /// Stops the answer: its client is told of the error in the place of what would come.
    fn pass(&mut self, block: &mut Self::Block, held: &mut String, last: bool) -> Result<String, Error>;
}

/// How an event of a block is made.
type Delta = fn(BlockDelta) -> Event;

/// An open block that is looked at.
struct Open<B> {
    make: Delta,
    held: String,
    block: B,
}

/// The watcher that a [`TextFilter`] makes.
pub struct TextWatcher<F: TextFilter> {
    filter: Result<F, Error>,
    blocks: BTreeMap<u32, Open<F::Block>>,
    /// Bytes held back in all blocks.
    held: usize,
    stopped: bool,
}

impl<F: TextFilter> TextWatcher<F> {
    /// Looks at an answer with this filter.
    pub fn new(filter: F) -> Self {
        TextWatcher::from(Ok(filter))
    }
}

impl<F: TextFilter> From<Result<F, Error>> for TextWatcher<F> {
    /// With an error, as of a note that cannot be read, the answer is stopped: better than to let it pass unseen.
    fn from(filter: Result<F, Error>) -> Self {
        TextWatcher { filter, blocks: BTreeMap::new(), held: 0, stopped: false }
    }
}

impl<F: TextFilter> Watcher for TextWatcher<F> {
    fn feed(&mut self, events: Vec<Event>) -> Filtered {
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            if self.stopped {
                break;
            }
            if let Err(error) = self.next(event, &mut out) {
                self.stopped = true;
                self.blocks.clear();
                self.held = 0;
                out.push(Event::Failed(error));
            }
        }
        Filtered { events: out, held: u32::try_from(self.held).unwrap_or(u32::MAX) }
    }
}

impl<F: TextFilter> TextWatcher<F> {
    fn next(&mut self, event: Event, out: &mut Vec<Event>) -> Result<(), Error> {
        let filter = self.filter.as_mut().map_err(|error| error.clone())?;
        let (make, delta): (Delta, BlockDelta) = match event {
            Event::Text(delta) => (Event::Text, delta),
            Event::Reasoning(delta) => (Event::Reasoning, delta),
            Event::Arguments(delta) => (Event::Arguments, delta),
            other => {
                match &other {
                    Event::BlockStart(start) => {
                        let make = match start.kind {
                            BlockKind::Text | BlockKind::Refusal => Event::Text,
                            BlockKind::Reasoning => Event::Reasoning,
                            BlockKind::ToolCall(_) | BlockKind::Other(_) => Event::Arguments as Delta,
                        };
                        if let Some(block) = filter.block(&start.kind) {
                            self.blocks.insert(start.index, Open { make, held: String::new(), block });
                        }
                    }
                    // A signature is over all the text before it.
                    Event::Signature(delta) => self.release(delta.index, out)?,
                    Event::BlockStop(index) => {
                        self.release(*index, out)?;
                        self.blocks.remove(index);
                    }
                    Event::Failed(_) | Event::Done => {
                        let open: Vec<u32> = self.blocks.keys().copied().collect();
                        open.into_iter().try_for_each(|index| self.release(index, out))?;
                        self.blocks.clear();
                    }
                    _ => {}
                }
                out.push(other);
                return Ok(());
            }
        };
        let Some(open) = self.blocks.get_mut(&delta.index) else {
            out.push(make(delta));
            return Ok(());
        };
        let untouched = open.held.is_empty();
        let others = self.held - open.held.len();
        open.held.push_str(&delta.text);
        let mut text = filter.pass(&mut open.block, &mut open.held, false)?;
        if open.held.len() > F::WINDOW.min((MAX_HELD as usize).saturating_sub(others)) {
            text.push_str(&filter.pass(&mut open.block, &mut open.held, true)?);
            text.push_str(&std::mem::take(&mut open.held));
        }
        self.held = others + open.held.len();
        if untouched && open.held.is_empty() && text == delta.text {
            // As it came, with what it says of its tokens.
            out.push(make(delta));
        } else if !text.is_empty() {
            out.push(make(BlockDelta { text, logprobs: None, index: delta.index }));
        }
        Ok(())
    }

    /// Lets go of what is held back of a block.
    fn release(&mut self, index: u32, out: &mut Vec<Event>) -> Result<(), Error> {
        let filter = self.filter.as_mut().map_err(|error| error.clone())?;
        let Some(open) = self.blocks.get_mut(&index) else { return Ok(()) };
        self.held -= open.held.len();
        let mut text = filter.pass(&mut open.block, &mut open.held, true)?;
        text.push_str(&std::mem::take(&mut open.held));
        if !text.is_empty() {
            out.push((open.make)(BlockDelta { index, text, logprobs: None }));
        }
        Ok(())
    }
}

/// Refuses a request for log probabilities: a text that was held back, or changed, comes without them, and a client that
/// asked for them must not find some missing. Ask this wherever an answer is to be watched.
///
/// # Errors
/// `unsupported` with the parameter `logprobs` and this message, where they were asked for.
pub(crate) fn without_logprobs(request: &Request, message: &str) -> Result<(), Error> {
    match request.input.is_generation() && request.sampling.logprobs == Some(true) {
        true => Err(Error::unsupported("logprobs", message)),
        false => Ok(()),
    }
}
