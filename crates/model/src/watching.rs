//! The contract's rules about what a watcher makes of an answer, for tests of policies.
//!
//! [`watch`] feeds an answer to a watcher as the gateway does, and checks each thing that it returns. [`joined`] and [`cut`]
//! make of one answer others that say the same: what a watcher makes of them must be the same too.

use std::collections::BTreeMap;

use crate::policy::Filtered;
use crate::types::{BlockDelta, BlockStart, Event};
use crate::{BlockKind, Order};

/// The most bytes of an answer that a watcher may hold back.
pub const MAX_HELD: u32 = 65_536;

/// Which rule of the contract a watcher broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What goes on is in the order of an adapter's events.
    Order,
    /// What is held back is bounded, told rightly, and let go of.
    Held,
    /// An answer's end goes on as it came, or as a failure.
    End,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub rule: Rule,
    /// At which feed, from 0.
    pub feed: usize,
    /// What the watcher did, as a sentence that lacks its subject: `kept the answer's end back`.
    pub what: String,
}

/// The text of an event of a block, as far as a watcher may hold it back.
fn text(event: &Event) -> Option<&BlockDelta> {
    match event {
        Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => Some(delta),
        _ => None,
    }
}

fn text_mut(event: &mut Event) -> Option<&mut BlockDelta> {
    match event {
        Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => Some(delta),
        _ => None,
    }
}

fn bytes(events: &[Event]) -> usize {
    events.iter().filter_map(text).map(|delta| delta.text.len()).sum()
}

/// What goes on of a whole answer that comes in these reads. A watcher that stops the answer is fed nothing more.
///
/// ```
/// use std::convert::Infallible;
/// use witgate_model::policy::Filtered;
/// use witgate_model::watching::{Rule, watch};
/// use witgate_model::{Event, FinishReason, Started};
///
/// let answer = [Event::Started(Started::default()), Event::finish(0, FinishReason::Stop, None), Event::Done];
/// let reads = answer.iter().map(|event| vec![event.clone()]);
/// let deaf = |_| Ok::<_, Infallible>(Filtered::default());
/// let Ok(watched) = watch(reads, deaf);
/// assert_eq!(watched.unwrap_err().rule, Rule::End);
/// ```
///
/// # Errors
/// The outer one is that of `feed`, the inner one a broken rule.
pub fn watch<E>(
    reads: impl IntoIterator<Item = Vec<Event>>,
    mut feed: impl FnMut(Vec<Event>) -> Result<Filtered, E>,
) -> Result<Result<Vec<Event>, Broken>, E> {
    let reads: Vec<Vec<Event>> = reads.into_iter().filter(|read| !read.is_empty()).collect();
    let whole: Vec<Event> = reads.iter().flatten().cloned().collect();
    let mut order = Order::of(&whole);
    let mut given: Vec<Event> = Vec::new();
    // Of each open block, the bytes fed.
    let mut open: BTreeMap<u32, usize> = BTreeMap::new();
    let mut fed = 0;
    // After each feed: the bytes that have not gone on, and those that it says it holds back.
    let mut steps = Vec::with_capacity(reads.len());
    for (at, read) in reads.into_iter().enumerate() {
        let broken = |rule, what: String| Broken { rule, feed: at, what };
        for event in &read {
            match event {
                Event::BlockStart(start) => drop(open.insert(start.index, 0)),
                Event::BlockStop(index) => drop(open.remove(index)),
                _ => {
                    if let Some(delta) = text(event)
                        && let Some(bytes) = open.get_mut(&delta.index)
                    {
                        *bytes += delta.text.len();
                    }
                }
            }
        }
        fed += bytes(&read);
        let (last, failed) = match read.last() {
            Some(Event::Failed(_)) => (true, true),
            last => (last.is_some_and(Event::is_last), false),
        };
        let mut filtered = feed(read)?;
        for event in &filtered.events {
            if let Err(what) = order.next(event) {
                return Ok(Err(broken(Rule::Order, what)));
            }
        }
        let held = filtered.held as usize;
        let ended = filtered.events.last().cloned().filter(Event::is_last);
        given.append(&mut filtered.events);
        let wrong = match &ended {
            Some(Event::Done) if failed => Some((Rule::End, "made a success of a failure".to_owned())),
            Some(Event::Done) if !last => Some((Rule::End, "ended the answer before its backend did".to_owned())),
            None if last => Some((Rule::End, "kept the answer's end back".to_owned())),
            _ if held > MAX_HELD as usize => {
                Some((Rule::Held, format!("holds {held} bytes back; at most {MAX_HELD} are allowed")))
            }
            Some(_) if held > 0 => {
                Some((Rule::Held, format!("says after the answer's end that it holds {held} bytes back")))
            }
            _ if held > 0 && open.is_empty() => {
                Some((Rule::Held, format!("says that it holds {held} bytes back where no block is open")))
            }
            _ if held > open.values().sum::<usize>() => {
                let of: usize = open.values().sum();
                Some((Rule::Held, format!("says that it holds {held} bytes back, where the open blocks have had {of}")))
            }
            _ => None,
        };
        if let Some((rule, what)) = wrong {
            return Ok(Err(broken(rule, what)));
        }
        steps.push((fed.saturating_sub(bytes(&given)), held));
        if ended.is_some() {
            break;
        }
    }
    // Of text that went on as it came, it is known to the byte what was held back.
    if joined(&given) == joined(&whole)
        && let Some(feed) = steps.iter().position(|(back, said)| back != said)
        && let Some((back, said)) = steps.get(feed)
    {
        let what = format!("held {back} bytes back and said that it were {said}");
        return Ok(Err(Broken { rule: Rule::Held, feed, what }));
    }
    Ok(Ok(given))
}

/// The same answer with neighbouring pieces of a block in one: two answers that say the same are equal then. Pieces with
/// log probabilities stay as they are.
pub fn joined(events: &[Event]) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::with_capacity(events.len());
    for event in events {
        if let (Some(delta), Some(last)) = (text(event), out.last_mut())
            && std::mem::discriminant(event) == std::mem::discriminant(last)
            && let Some(into) = text_mut(last)
            && into.index == delta.index
            && into.logprobs.is_none()
            && delta.logprobs.is_none()
        {
            into.text.push_str(&delta.text);
        } else {
            out.push(event.clone());
        }
    }
    out
}

/// The same answer with its text cut into pieces of at most so many bytes, at least one character each. Pieces with log
/// probabilities stay as they are.
pub fn cut(events: &[Event], most: usize) -> Vec<Event> {
    let mut out = Vec::new();
    for event in events {
        let Some(delta) = text(event).filter(|delta| delta.logprobs.is_none()) else {
            out.push(event.clone());
            continue;
        };
        let mut rest = delta.text.as_str();
        while !rest.is_empty() {
            let end = (1..=most.clamp(1, rest.len())).rfind(|end| rest.is_char_boundary(*end));
            let end = end.unwrap_or_else(|| rest.chars().next().map_or(rest.len(), char::len_utf8));
            let (piece, after) = rest.split_at(end);
            let mut event = event.clone();
            if let Some(delta) = text_mut(&mut event) {
                piece.clone_into(&mut delta.text);
            }
            out.push(event);
            rest = after;
        }
    }
    out
}

/// A whole answer of one block of this kind that says these pieces.
pub fn said(kind: BlockKind, pieces: &[&str]) -> Vec<Event> {
    let make: fn(BlockDelta) -> Event = match &kind {
        BlockKind::Text | BlockKind::Refusal => Event::Text,
        BlockKind::Reasoning => Event::Reasoning,
        BlockKind::ToolCall(_) | BlockKind::Other(_) => Event::Arguments,
    };
    let reason = match &kind {
        BlockKind::ToolCall(_) => crate::FinishReason::ToolCalls,
        _ => crate::FinishReason::Stop,
    };
    let mut events =
        vec![Event::Started(crate::Started::default()), Event::BlockStart(BlockStart { index: 0, choice: 0, kind })];
    let pieces = pieces.iter().filter(|piece| !piece.is_empty());
    events.extend(pieces.map(|piece| make(BlockDelta { index: 0, text: (*piece).to_owned(), logprobs: None })));
    events.extend([Event::BlockStop(0), Event::finish(0, reason, None), Event::Done]);
    events
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{Error, ErrorKind};

    fn answer() -> Vec<Event> {
        said(BlockKind::Text, &["Hello, ", "wörld"])
    }

    fn one_by_one(mut feed: impl FnMut(Event) -> Filtered) -> Result<Vec<Event>, Broken> {
        let reads = answer().into_iter().map(|event| vec![event]);
        let Ok(watched) = watch(reads, |mut events| Ok::<_, Infallible>(feed(events.remove(0))));
        watched
    }

    fn pass(events: Vec<Event>, held: u32) -> Filtered {
        Filtered { events, held }
    }

    #[test]
    fn what_goes_on_as_it_came_breaks_no_rule() {
        assert_eq!(one_by_one(|event| pass(vec![event], 0)).unwrap(), answer());
    }

    #[test]
    fn each_rule_is_seen_broken() {
        let told =
            |watched: Result<Vec<Event>, Broken>| watched.map_err(|broken| (broken.rule, broken.what)).unwrap_err();
        let end = |what: &str| (Rule::End, what.to_owned());
        let held = |what: &str| (Rule::Held, what.to_owned());
        let without_last = one_by_one(|event| pass(if event.is_last() { vec![] } else { vec![event] }, 0));
        assert_eq!(told(without_last), end("kept the answer's end back"));
        let early = one_by_one(|event| match event {
            Event::Finish(_) => pass(vec![event, Event::Done], 0),
            event => pass(vec![event], 0),
        });
        assert_eq!(told(early), end("ended the answer before its backend did"));
        let twice = one_by_one(|event| pass(vec![event.clone(), event], 0));
        assert_eq!(told(twice), (Rule::Order, "started an answer twice".to_owned()));
        let much = one_by_one(|event| pass(vec![event], 65_537));
        assert_eq!(told(much), held("holds 65537 bytes back; at most 65536 are allowed"));
        let before = one_by_one(|event| pass(vec![event], 1));
        assert_eq!(told(before), held("says that it holds 1 bytes back where no block is open"));
        let more = one_by_one(|event| match event {
            Event::Text(_) => pass(vec![event], 9),
            event => pass(vec![event], 0),
        });
        assert_eq!(told(more), held("says that it holds 9 bytes back, where the open blocks have had 7"));
        let lie = one_by_one(|event| match event {
            Event::Text(_) => pass(vec![event], 1),
            event => pass(vec![event], 0),
        });
        assert_eq!(told(lie), held("held 0 bytes back and said that it were 1"));
        let after = one_by_one(|event| match event {
            Event::Done => pass(vec![event], 1),
            event => pass(vec![event], 0),
        });
        assert_eq!(told(after), held("says after the answer's end that it holds 1 bytes back"));
        let failed = vec![Event::Failed(Error::malformed("cut"))];
        let Ok(watched) =
            watch([failed], |_| Ok::<_, Infallible>(pass(vec![Event::Started(Default::default()), Event::Done], 0)));
        assert_eq!(told(watched), end("made a success of a failure"));
    }

    #[test]
    fn a_watcher_that_stops_the_answer_is_fed_nothing_more() {
        let mut feeds = 0;
        let watched = one_by_one(|event| {
            feeds += 1;
            match event {
                Event::Text(_) => pass(vec![Event::Failed(Error::new(ErrorKind::ContentFiltered, "no"))], 0),
                event => pass(vec![event], 0),
            }
        });
        assert_eq!((feeds, watched.unwrap().len()), (3, 3));
    }

    #[test]
    fn an_answer_that_is_cut_says_the_same_when_it_is_joined() {
        let answer = answer();
        let pieces = cut(&answer, 1);
        assert_eq!(pieces.len(), 5 + 12);
        assert_eq!(joined(&pieces), joined(&answer));
        assert_eq!(joined(&cut(&answer, 5)), joined(&answer));
        assert_eq!(cut(&answer, 100), answer);
    }
}
