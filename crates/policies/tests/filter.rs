//! What a filter of text holds back, and when it lets go.

use witgate_model::watching::{cut, joined, said, watch};
use witgate_model::{BlockDelta, BlockKind, BlockStart, Error, ErrorKind, Event, Watcher};
use witgate_policies::{TextFilter, TextWatcher};

/// Gives whole words in capitals, and stops at `stop`. Without `WINDOW` it would hold a long word back for ever.
struct Words;

impl TextFilter for Words {
    type Block = ();
    const WINDOW: usize = 16;

    fn block(&mut self, kind: &BlockKind) -> Option<()> {
        (!matches!(kind, BlockKind::ToolCall(_))).then_some(())
    }

    fn pass(&mut self, _: &mut (), held: &mut String, last: bool) -> Result<String, Error> {
        if held.contains("stop") {
            return Err(Error::new(ErrorKind::ContentFiltered, "stopped"));
        }
        // With `last` it leaves the last word, which must not be lost.
        let decided = held.rfind(' ').map_or(0, |blank| blank + 1);
        let text: String = held.drain(..decided).collect();
        Ok(if last { text } else { text.to_uppercase() })
    }
}

fn watched(answer: &[Event]) -> Vec<Event> {
    let mut watcher = TextWatcher::new(Words);
    let reads = answer.iter().map(|event| vec![event.clone()]);
    let Ok(watched) = watch(reads, |events| Ok::<_, std::convert::Infallible>(watcher.feed(events)));
    watched.unwrap()
}

#[test]
fn whole_words_go_on_and_the_last_one_with_the_blocks_end() {
    let answer = said(BlockKind::Text, &["one tw", "o three"]);
    for most in [1, 3, 100] {
        assert_eq!(joined(&watched(&cut(&answer, most))), said(BlockKind::Text, &["ONE TWO three"]));
    }
}

#[test]
fn a_word_that_does_not_end_is_held_back_up_to_the_window() {
    let long = "x".repeat(200);
    let mut watcher = TextWatcher::new(Words);
    let mut most = 0;
    for event in cut(&said(BlockKind::Text, &[&long]), 1) {
        most = most.max(watcher.feed(vec![event]).held);
    }
    assert_eq!(most, 16);
    assert_eq!(joined(&watched(&cut(&said(BlockKind::Text, &[&long]), 1))), said(BlockKind::Text, &[&long]));
}

#[test]
fn all_blocks_together_are_held_back_up_to_the_contracts_bound() {
    struct Hoard;
    impl TextFilter for Hoard {
        type Block = ();
        const WINDOW: usize = 40_000;
        fn block(&mut self, _: &BlockKind) -> Option<()> {
            Some(())
        }
        fn pass(&mut self, _: &mut (), held: &mut String, last: bool) -> Result<String, Error> {
            Ok(if last { std::mem::take(held) } else { String::new() })
        }
    }
    let mut watcher = TextWatcher::new(Hoard);
    let start = |index| Event::BlockStart(BlockStart { index, choice: index, kind: BlockKind::Text });
    watcher.feed(vec![Event::Started(Default::default()), start(0), start(1), start(2)]);
    let text = "x".repeat(30_000);
    let held = [0, 1, 2].map(|index| watcher.feed(vec![Event::text(index, text.as_str())]).held);
    assert_eq!(held, [30_000, 60_000, 60_000]);
}

#[test]
fn a_filters_error_ends_the_answer_and_nothing_is_held_back() {
    let answer = said(BlockKind::Text, &["one st", "op two ", "three"]);
    let events = watched(&answer);
    assert!(matches!(events.last(), Some(Event::Failed(error)) if error.message == "stopped"), "{events:?}");
    assert_eq!(events[2], Event::text(0, "ONE "));
    let mut watcher = TextWatcher::<Words>::from(Err(Error::new(ErrorKind::Other("note".into()), "no note")));
    let filtered = watcher.feed(answer);
    assert!(matches!(&filtered.events[..], [Event::Failed(error)] if error.message == "no note"));
}

#[test]
fn log_probabilities_go_on_with_what_is_not_touched_only() {
    let piece = |text: &str| Event::Text(BlockDelta { index: 0, text: text.into(), logprobs: Some("{}".into()) });
    let mut answer = said(BlockKind::Text, &[]);
    answer.insert(2, piece("A "));
    answer.insert(3, piece("b "));
    let events = watched(&answer);
    assert_eq!(events[2..4], [piece("A "), Event::text(0, "B ")]);
}

#[test]
fn what_is_not_looked_at_goes_on_as_it_came() {
    let call = witgate_model::ToolCallStart { id: "1".into(), name: "f".into() };
    let answer = said(BlockKind::ToolCall(call), &["{\"a\": ", "\"b\"}"]);
    assert_eq!(watched(&answer), answer);
}
