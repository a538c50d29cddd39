//! What a policy makes of answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use witgate_gateway::{Fault, Policy as _};
use witgate_model::watching::{Broken, Rule, cut, joined, said, watch};
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Embedding, Error, ErrorKind, Event, FinishReason, ModelEntry,
    Retry, Started, ToolCallStart, Usage, Vector,
};

use super::answers::{difference, spread};
use super::encoding::kind;
use super::policy::{PolicyRun, Watched};
use super::report::Area;
use crate::instances::PolicySession;

/// The most notes with which all answers are watched: of requests that differ only in what they say, one is like the other.
const NOTES: usize = 4;
/// The most places at which one answer is cut in two; of more, every so-manieth.
const CUTS: usize = 24;

/// What a watcher made of an answer.
type Outcome = Result<Vec<Event>, Broken>;

impl PolicyRun<'_> {
    /// Has all answers watched.
    pub(super) fn answers(&mut self, watched: &[Watched]) {
        if watched.is_empty() {
            let what = "it watched no answer, so its watcher was not checked";
            let right = "`--settings` or `--samples` with which `on-request` returns `watch`, if it ever does";
            self.report.note(Area::Order, "answers", what, right);
            // The report shows a note beside its area's count.
            self.report.counts.entry(Area::Order).or_default();
            return;
        }
        let words = words(&self.settings);
        let settings = Arc::clone(&self.settings);
        for watched in watched.iter().take(NOTES) {
            for (case, answer) in answers_to(watched.generation, &words) {
                self.answer(&case, &settings, &watched.note, &answer);
            }
        }
        if let Some(watched) = watched.iter().find(|watched| watched.generation) {
            self.large_answers(&settings, &watched.note);
        }
    }

    /// Watches an answer that comes in these reads. A broken rule is reported, and so is a fault, after which the instance
    /// is replaced.
    fn outcome(
        &mut self,
        area: Area,
        case: &str,
        session: &mut PolicySession,
        (settings, note): (&Arc<str>, &str),
        reads: &[&[Event]],
    ) -> Option<Vec<Event>> {
        let reads = reads.iter().map(|read| read.to_vec());
        let mut slowest = Duration::ZERO;
        let outcome: Result<Outcome, Fault> = session.start(settings, note.to_owned()).and_then(|()| {
            watch(reads, |events| {
                let begun = Instant::now();
                let filtered = session.feed(events);
                slowest = slowest.max(begun.elapsed());
                filtered
            })
        });
        self.report.slowest(case, slowest);
        self.report.memory_bytes = self.report.memory_bytes.max(session.memory());
        let outcome = self.report.held(area, case, outcome);
        if outcome.is_none()
            && let Some(fresh) = self.session(area, case)
        {
            *session = fresh;
        }
        match outcome? {
            Ok(events) => Some(events),
            Err(Broken { rule, feed, what }) => {
                let (area, right) = match rule {
                    Rule::Order => (
                        Area::Order,
                        "`started`, blocks, `usage` and `other`, a `finish` for each choice, and last `done` or `failed`; \
                         nothing behind `failed`",
                    ),
                    Rule::Held => (
                        Area::Held,
                        "at most 65,536 bytes held back, told to the byte by `held`, and none behind a block's end",
                    ),
                    Rule::End => (
                        Area::End,
                        "the answer's last event in the feed that brings it; `failed` to stop an answer, never `done`",
                    ),
                };
                self.report.fail(area, case, format!("at feed {feed}, it {what}"), right);
                None
            }
        }
    }

    /// Watches one answer in all groupings and cuts. Gives what goes on of it.
    pub(super) fn answer(
        &mut self,
        case: &str,
        settings: &Arc<str>,
        note: &str,
        answer: &[Event],
    ) -> Option<Vec<Event>> {
        let mut session = self.session(Area::Order, case)?;
        let made = (settings, note);
        let singly: Vec<&[Event]> = answer.chunks(1).collect();
        let whole = self.outcome(Area::Order, case, &mut session, made, &singly)?;
        for area in [Area::Order, Area::Held, Area::End] {
            self.report.pass(area);
        }
        self.ending(case, answer, &whole);
        self.arguments(case, answer, &whole);

        let right = "the same events however many come with one `feed`: keep what is undecided for the next one";
        let plain = joined(&whole);
        let mut reads: Vec<(String, Vec<&[Event]>)> =
            vec![("all in one feed".to_owned(), vec![answer]), ("two by two".to_owned(), answer.chunks(2).collect())];
        for at in spread(1, answer.len(), CUTS) {
            let (first, second) = answer.split_at(at);
            reads.push((format!("in two feeds, cut behind event {at}"), vec![first, second]));
        }
        for (how, reads) in reads {
            let Some(events) = self.outcome(Area::Splits, case, &mut session, made, &reads) else { return Some(whole) };
            let events = joined(&events);
            let what = format!("{how}, it gives other events than one by one: {}", difference(&plain, &events));
            self.report.check(Area::Splits, case, events == plain, what, right);
        }

        let right = "the same text wherever the backend cuts it, within words too: hold back what is undecided";
        for (how, pieces) in [
            ("with its text in pieces of one character", cut(answer, 1)),
            ("with its text in pieces of 7 bytes", cut(answer, 7)),
            ("with its text in one piece", joined(answer)),
        ] {
            let reads: Vec<&[Event]> = pieces.chunks(1).collect();
            let Some(events) = self.outcome(Area::Splits, case, &mut session, made, &reads) else { return Some(whole) };
            let events = joined(&events);
            // How much goes on before an answer is stopped depends on what came at once.
            let stops = |events: &[Event]| match (answer.last(), events.last()) {
                (Some(Event::Done), Some(Event::Failed(error))) => Some(error.kind.clone()),
                _ => None,
            };
            let (before, after) = (stops(&plain), stops(&events));
            let same = if before.is_some() { before == after } else { events == plain };
            let what = format!("{how}, the answer becomes another one: {}", difference(&plain, &events));
            self.report.check(Area::Splits, case, same, what, right);
        }

        if let Some(events) = self.outcome(Area::Purity, case, &mut session, made, &singly) {
            let what =
                format!("an instance that has watched others gives other events: {}", difference(&whole, &events));
            self.report.check(Area::Purity, case, events == whole, what, "nothing kept outside the watcher");
        }
        Some(whole)
    }

    /// How an answer ends.
    fn ending(&mut self, case: &str, answer: &[Event], watched: &[Event]) {
        let Some(Event::Failed(error)) = watched.last() else { return };
        match answer.last() {
            Some(Event::Failed(was)) => {
                let what = format!("the failure `{}` becomes `{}`", kind(&was.kind), kind(&error.kind));
                let right = "the backend's failure as it came: the gateway acts on its kind";
                self.report.check(Area::End, case, was.kind == error.kind, what, right);
            }
            _ => {
                let told = !error.message.trim().is_empty();
                let right = "a message for the client: why its answer stops";
                self.report.check(Area::End, case, told, "it stops an answer without a message", right);
            }
        }
    }

    /// A tool call's arguments that are JSON stay JSON.
    fn arguments(&mut self, case: &str, answer: &[Event], watched: &[Event]) {
        // An answer that was stopped may end within them.
        if stopped(watched).is_some() {
            return;
        }
        let after = arguments(watched);
        for (index, before) in arguments(answer) {
            let Some(after) = after.get(&index).filter(|_| is_json(&before)) else { continue };
            let what = format!("the arguments of a tool call, {before}, become {after}, which is no JSON");
            let right = "arguments that stay JSON: in their text a backslash and what is behind it are one character, and \
                         the quotes around a string stay";
            self.report.check(Area::Order, case, is_json(after), what, right);
        }
    }

    /// Large answers, within the limits.
    fn large_answers(&mut self, settings: &Arc<str>, note: &str) {
        let word = "All happy families are alike. ";
        let long = "x".repeat(1 << 20);
        let prose = word.repeat((1 << 20) / word.len());
        let pieces = vec![word; 5_000];
        for (case, answer) in [
            ("a word of 1 MiB in one piece", said(BlockKind::Text, &[&long])),
            ("a word of 1 MiB in pieces of 4 KiB", cut(&said(BlockKind::Text, &[&long]), 4_096)),
            ("a text of 1 MiB in one piece", said(BlockKind::Text, &[&prose])),
            ("5,000 pieces", said(BlockKind::Text, &pieces)),
        ] {
            for (how, reads) in [("one by one", answer.chunks(1).collect::<Vec<_>>()), ("at once", vec![&answer[..]])] {
                let Some(mut session) = self.session(Area::Limits, case) else { return };
                let case = format!("{case}, {how}");
                if self.outcome(Area::Limits, &case, &mut session, (settings, note), &reads).is_some() {
                    self.report.pass(Area::Limits);
                }
            }
        }
    }
}

/// The texts of settings: what a policy may look for.
fn words(settings: &str) -> Vec<String> {
    fn of(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => drop(found.insert(text.chars().take(200).collect())),
            Value::Array(items) => items.iter().for_each(|item| of(item, found)),
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                found.insert(name.chars().take(200).collect());
                of(value, found);
            }),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    if let Ok(settings) = serde_json::from_str(settings) {
        of(&settings, &mut found);
    }
    found.into_iter().take(32).collect()
}

fn call(id: &str) -> BlockKind {
    BlockKind::ToolCall(ToolCallStart { id: id.to_owned(), name: "send".to_owned() })
}

fn delta(index: u32, text: &str) -> BlockDelta {
    BlockDelta { index, text: text.to_owned(), logprobs: None }
}

fn started() -> Event {
    Event::Started(Started { id: Some("a1".to_owned()), model: Some("m".to_owned()), created: Some(1) })
}

fn usage() -> Event {
    Event::Usage(Usage { input_tokens: Some(5), output_tokens: Some(9), ..Usage::default() })
}

/// Answers of many kinds, with these words in some.
fn answers_to(generation: bool, words: &[String]) -> Vec<(String, Vec<Event>)> {
    let named = |name: &str, events: Vec<Event>| (name.to_owned(), events);
    let fail = |kind: ErrorKind| Event::Failed(Error::new(kind, "the backend failed").with_retry(Retry::OtherTarget));
    if !generation {
        let vector = |index| Event::Embedding(Embedding { index, values: Vector::Numbers("[0.5,-1]".to_owned()) });
        let model = ModelEntry { id: "m".to_owned(), created: None, owned_by: None, raw: None };
        return vec![
            named("vectors", vec![started(), vector(0), vector(1), usage(), Event::Done]),
            named("models", vec![started(), Event::Model(model), Event::Done]),
            named("a failure at once", vec![fail(ErrorKind::RateLimited)]),
        ];
    }
    let of_settings = words.join(" and ");
    let of_settings = format!("It says {of_settings}, then goes on. ");
    let prose = ["Write to ada@ex", "ample.com or call +1 (555) 010-0", "100. Grüße, 日本", "語 \u{1F30D}!\n\nBye"];
    let start = |index, choice, kind| Event::BlockStart(BlockStart { index, choice, kind });
    let finish = |choice, reason| Event::finish(choice, reason, None);
    // With an address behind an escape: who takes the `n` for a letter of it leaves the backslash alone.
    let object = r#"{"to": "ada@example.com", "n": [1, 2.5e3], "text": "a \"quoted\" word\nbob@example.com\n"}"#;
    let reasoned = vec![
        started(),
        start(0, 0, BlockKind::Reasoning),
        Event::Reasoning(delta(0, "They want me to wr")),
        Event::Reasoning(delta(0, "ite. So I ")),
        Event::Signature(delta(0, "c2lnbmVk")),
        Event::BlockStop(0),
        start(1, 0, BlockKind::Reasoning),
        Event::Redacted(delta(1, "ZW5jcnlwdGVk")),
        Event::BlockStop(1),
        start(2, 0, BlockKind::Text),
        Event::text(2, "Dear Ada, "),
        Event::text(2, "hello"),
        Event::BlockStop(2),
        usage(),
        finish(0, FinishReason::Stop),
        Event::Done,
    ];
    let choices = vec![
        started(),
        start(0, 0, BlockKind::Text),
        start(1, 1, BlockKind::Text),
        Event::text(0, "One ans"),
        Event::text(1, "Another "),
        Event::text(0, "wer is "),
        Event::text(1, "one says"),
        Event::text(0, "this"),
        Event::BlockStop(0),
        finish(0, FinishReason::Stop),
        Event::text(1, " that"),
        Event::BlockStop(1),
        finish(1, FinishReason::Length),
        usage(),
        Event::Done,
    ];
    let tools = vec![
        started(),
        start(0, 0, BlockKind::Text),
        Event::text(0, "I will se"),
        Event::text(0, "nd it."),
        Event::BlockStop(0),
        start(1, 0, call("c1")),
        Event::Arguments(delta(1, &object[..20])),
        Event::Arguments(delta(1, &object[20..])),
        Event::BlockStop(1),
        start(2, 0, call("c2")),
        Event::BlockStop(2),
        finish(0, FinishReason::ToolCalls),
        Event::Done,
    ];
    let other = vec![
        started(),
        Event::other("openai-chat", witgate_model::Scope::Envelope, r#"{"system_fingerprint":"f"}"#),
        start(0, 0, BlockKind::Other(DialectJson::new("anthropic-messages", r#"{"type":"server_tool_use"}"#))),
        Event::Arguments(delta(0, r#"{"q": "x"}"#)),
        Event::BlockStop(0),
        start(1, 0, BlockKind::Text),
        Event::Text(BlockDelta { logprobs: Some(r#"{"content":[]}"#.to_owned()), ..delta(1, "Likely") }),
        Event::Text(BlockDelta { logprobs: Some(r#"{"content":[]}"#.to_owned()), ..delta(1, " words") }),
        Event::BlockStop(1),
        usage(),
        finish(0, FinishReason::Stop),
        Event::Done,
    ];
    let mut cut_off = said(BlockKind::Text, &["It broke off in the mid"]);
    cut_off.truncate(3);
    cut_off.push(fail(ErrorKind::MalformedResponse));
    let object = [&object[..9], &object[9..]];
    vec![
        named("prose", said(BlockKind::Text, &prose)),
        named("the words of the settings", said(BlockKind::Text, &["Well. ", &of_settings, "Bye"])),
        named("the words of the settings at the end", said(BlockKind::Text, &["Well. ", of_settings.trim_end()])),
        named("an empty text", said(BlockKind::Text, &[])),
        named("a refusal", said(BlockKind::Refusal, &["I cannot he", "lp with that."])),
        named("a tool call", said(call("c1"), &object)),
        named("tool calls behind text", tools),
        named("reasoning with its signature", reasoned),
        named("two choices at once", choices),
        named("members of the backend's own, and log probabilities", other),
        named("an answer that breaks off", cut_off),
        named("a failure at once", vec![fail(ErrorKind::RateLimited)]),
    ]
}

/// All text of an answer.
pub(super) fn text(events: &[Event]) -> String {
    let of = |event: &Event| match event {
        Event::Text(delta) | Event::Arguments(delta) => Some(delta.text.clone()),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// The arguments of each tool call of an answer, by its block.
fn arguments(events: &[Event]) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for event in events {
        match event {
            Event::BlockStart(BlockStart { index, kind: BlockKind::ToolCall(_), .. }) => {
                found.insert(*index, String::new());
            }
            Event::Arguments(delta) => {
                if let Some(text) = found.get_mut(&delta.index) {
                    text.push_str(&delta.text);
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether arguments are JSON; none at all are `{}`.
fn is_json(arguments: &str) -> bool {
    arguments.is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok()
}

/// The failure that ends an answer.
pub(super) fn stopped(events: &[Event]) -> Option<&Error> {
    match events.last() {
        Some(Event::Failed(error)) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use witgate_model::Order;

    use super::super::answers::short;
    use super::*;

    #[test]
    fn all_answers_keep_the_contracts_order() {
        for generation in [true, false] {
            for (name, answer) in answers_to(generation, &["a word".to_owned()]) {
                assert_eq!(Order::check(&answer), Ok(()), "{name}: {}", short(answer.last()));
            }
        }
    }

    #[test]
    fn the_answers_hold_arguments_that_are_json() {
        let answers = answers_to(true, &[]);
        let of: Vec<_> = answers.iter().flat_map(|(_, answer)| arguments(answer).into_values()).collect();
        assert_eq!(of.len(), 3, "{of:?}");
        assert!(
            of.iter().all(|arguments| is_json(arguments)) && of.iter().any(|arguments| arguments.contains("\\nbob"))
        );
        assert!(!is_json(&of[0].replace("\\nbob", "\\[")) && !is_json("{"));
    }

    #[test]
    fn the_words_of_settings_are_names_and_texts() {
        assert_eq!(words(r#"{"b": ["x", {"y": "z"}], "n": 1}"#), ["b", "n", "x", "y", "z"]);
    }
}
