//! What the tests of all adapters share: fixtures of answers, driving framing and decoder as the gateway does, and the
//! contract's rules about the order of events.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use witgate_framing::{Framer, Limits, effective};
use witgate_model::{Adapter, BlockKind, Decoder, Error, Event, Finish, Framing, ResponseHead, Usage};

/// What `meta.json` of a folder of fixtures says of one answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Meta {
    /// Where it comes from: which documents, which server. For people, and never empty.
    pub source: String,
    pub status: u16,
    /// The request asked for a stream.
    #[serde(default)]
    pub stream: bool,
    /// Names in lower case; with `content-type`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What `encode` handed to the decoder.
    #[serde(default)]
    pub context: Option<String>,
    /// The provider's settings.
    #[serde(default)]
    pub settings: Option<serde_json::Value>,
}

/// An answer of a backend.
#[derive(Clone, Debug)]
pub struct Answer {
    pub name: String,
    pub settings: String,
    pub context: Option<String>,
    pub head: ResponseHead,
    pub body: Vec<u8>,
}

/// The folder `tests/fixtures/upstream/<name>`.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/upstream").join(name)
}

/// All answers of a folder, by its `meta.json`. `streamed` is the framing that the adapter asks for where it streams.
pub fn answers(name: &str, streamed: &Framing) -> Vec<Answer> {
    let folder = folder(name);
    let meta = std::fs::read(folder.join("meta.json")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let metas: BTreeMap<String, Meta> = serde_json::from_slice(&meta).unwrap();
    let answer = |(name, meta): (String, Meta)| {
        assert!(!meta.source.is_empty(), "{name} has no source");
        let body = std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = if meta.stream { streamed.clone() } else { Framing::Whole };
        let content_type = meta.headers.get("content-type").map(String::as_str);
        let head = ResponseHead {
            status: meta.status,
            framing: effective(&wanted, meta.status, content_type),
            headers: meta.headers.into_iter().collect(),
            stream: meta.stream,
        };
        let settings = meta.settings.map_or_else(|| "{}".to_owned(), |settings| settings.to_string());
        Answer { name, settings, context: meta.context, head, body }
    };
    metas.into_iter().map(answer).collect()
}

/// The events of an answer whose body the network cuts at these offsets, as the gateway drives framing and decoder.
pub fn events<A: Adapter>(answer: &Answer, cuts: &[usize]) -> Vec<Event> {
    let mut framer = Framer::new(&answer.head.framing, Limits::default()).unwrap();
    let mut decoder = A::decoder(&answer.settings, answer.context.clone(), answer.head.clone());
    let (mut events, mut frames) = (Vec::new(), Vec::new());
    let ended = |events: &[Event]| events.last().is_some_and(Event::is_last);
    let mut start = 0;
    for end in cuts.iter().copied().chain([answer.body.len()]) {
        framer.push(&answer.body[start..end], &mut frames).unwrap();
        if !frames.is_empty() && !ended(&events) {
            events.append(&mut decoder.feed(std::mem::take(&mut frames)));
        }
        start = end;
    }
    framer.finish(&mut frames).unwrap();
    if !frames.is_empty() && !ended(&events) {
        events.append(&mut decoder.feed(std::mem::take(&mut frames)));
    }
    if !ended(&events) {
        events.append(&mut decoder.finish());
    }
    events
}

/// Holds that the answer cut at any one offset, and cut everywhere, gives the same events. Gives them.
pub fn every_cut<A: Adapter>(answer: &Answer) -> Vec<Event> {
    let whole = events::<A>(answer, &[]);
    check_order(&answer.name, &whole);
    for cut in 1..answer.body.len() {
        assert_eq!(events::<A>(answer, &[cut]), whole, "{} cut at {cut}", answer.name);
    }
    let everywhere: Vec<usize> = (1..answer.body.len()).collect();
    assert_eq!(events::<A>(answer, &everywhere), whole, "{} cut everywhere", answer.name);
    whole
}

/// What the contract says of a valid answer.
pub fn check_order(name: &str, events: &[Event]) {
    let mut open: Vec<(u32, u32)> = Vec::new();
    let mut finished: Vec<u32> = Vec::new();
    let (mut blocks, mut bare) = (0, false);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(
            event.is_last(),
            number + 1 == events.len(),
            "{name}: event {number} of {}: {event:?}",
            events.len()
        );
        match event {
            Event::Started(_) => assert_eq!(number, 0, "{name}: a second start"),
            Event::Failed(_) => {}
            _ if number == 0 => panic!("{name}: {event:?} in front of `started`"),
            Event::BlockStart(start) => {
                assert_eq!(start.index, blocks, "{name}: blocks are numbered from 0 without gaps");
                assert!(!finished.contains(&start.choice), "{name}: a block behind its choice's finish");
                blocks += 1;
                open.push((start.index, start.choice));
            }
            Event::Text(delta)
            | Event::Reasoning(delta)
            | Event::Signature(delta)
            | Event::Redacted(delta)
            | Event::Arguments(delta) => {
                assert!(open.iter().any(|(index, _)| *index == delta.index), "{name}: {event:?} of no open block");
                assert!(!delta.text.is_empty() || delta.logprobs.is_some(), "{name}: an empty delta");
            }
            Event::BlockStop(index) => {
                let before = open.len();
                open.retain(|(block, _)| block != index);
                assert_eq!(open.len() + 1, before, "{name}: a stop of {index}, which is not open");
            }
            Event::Finish(finish) => {
                assert!(
                    open.iter().all(|(_, choice)| *choice != finish.choice),
                    "{name}: a finish before its blocks' stop"
                );
                assert!(!finished.contains(&finish.choice), "{name}: a second finish");
                finished.push(finish.choice);
            }
            Event::Other(other) => {
                let members: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_str(&other.members).unwrap();
                assert!(!members.is_empty(), "{name}: nothing in {event:?}");
            }
            Event::Embedding(_) | Event::Model(_) => bare = true,
            Event::Usage(_) => bare |= events.len() == 3,
            Event::Done => assert!((bare || !finished.is_empty()) && open.is_empty(), "{name}: done too early"),
        }
    }
    assert!(events.last().is_some_and(Event::is_last), "{name}: no last event");
}

/// Events for a snapshot: one JSON a line.
pub fn lines(events: &[Event]) -> String {
    events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect()
}

/// All text of the answer.
pub fn text(events: &[Event]) -> String {
    let of = |event: &Event| if let Event::Text(delta) = event { Some(delta.text.clone()) } else { None };
    events.iter().filter_map(of).collect()
}

/// All visible reasoning.
pub fn thought(events: &[Event]) -> String {
    let of = |event: &Event| if let Event::Reasoning(delta) = event { Some(delta.text.clone()) } else { None };
    events.iter().filter_map(of).collect()
}

/// Id, name and arguments of every tool call.
pub fn calls(events: &[Event]) -> Vec<(String, String, String)> {
    let mut calls: BTreeMap<u32, (String, String, String)> = BTreeMap::new();
    for event in events {
        match event {
            Event::BlockStart(start) => {
                if let BlockKind::ToolCall(call) = &start.kind {
                    calls.insert(start.index, (call.id.clone(), call.name.clone(), String::new()));
                }
            }
            Event::Arguments(delta) => {
                if let Some(call) = calls.get_mut(&delta.index) {
                    call.2.push_str(&delta.text);
                }
            }
            _ => {}
        }
    }
    calls.into_values().collect()
}

/// What the usage events say together.
pub fn usage(events: &[Event]) -> Usage {
    let mut sum: Option<Usage> = None;
    for event in events {
        let Event::Usage(later) = event else { continue };
        let sum = sum.get_or_insert_with(Usage::default);
        sum.input_tokens = later.input_tokens.or(sum.input_tokens);
        sum.output_tokens = later.output_tokens.or(sum.output_tokens);
        sum.cache_read_tokens = later.cache_read_tokens.or(sum.cache_read_tokens);
        sum.cache_write_tokens = later.cache_write_tokens.or(sum.cache_write_tokens);
        sum.reasoning_tokens = later.reasoning_tokens.or(sum.reasoning_tokens);
        sum.estimated = later.estimated;
        sum.raw = later.raw.clone().or(sum.raw.take());
    }
    sum.expect("no usage")
}

/// How the choices ended.
pub fn finishes(events: &[Event]) -> Vec<Finish> {
    let of = |event: &Event| if let Event::Finish(finish) = event { Some(finish.clone()) } else { None };
    events.iter().filter_map(of).collect()
}

/// The failure that the answer ends with.
pub fn failure(events: &[Event]) -> Error {
    match events.last() {
        Some(Event::Failed(error)) => error.clone(),
        other => panic!("no failure, but {other:?}"),
    }
}
