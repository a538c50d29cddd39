//! A policy that breaks its contract. How is chosen by its settings, `{"do": "…"}`; without them it lets all pass, and watches
//! it. That it describes itself otherwise when it is asked twice, it cannot help.

wit_bindgen::generate!({ path: ["../../../wit/adapter", "../../../wit/policy"], world: "witgate:policy/policy", generate_all });

use std::cell::{Cell, RefCell};

use exports::witgate::policy::hooks::{Guest, GuestWatcher};
use witgate::adapter::types::*;
use witgate::policy::types::{Context, Decision, Description, Filtered, Tag};

struct Wrong;

export!(Wrong);

thread_local! {
    /// How often this instance has been called: only one that is used twice gets to two.
    static DESCRIBED: Cell<u32> = const { Cell::new(0) };
    static ASKED: Cell<u32> = const { Cell::new(0) };
    static WATCHED: Cell<u32> = const { Cell::new(0) };
}

fn count(of: &'static std::thread::LocalKey<Cell<u32>>) -> u32 {
    let count = of.get() + 1;
    of.set(count);
    count
}

/// What the settings ask for.
fn what(settings: &str) -> &str {
    let Some((_, rest)) = settings.split_once("\"do\"") else { return "" };
    rest.split('"').nth(1).unwrap_or("")
}

fn error(message: &str) -> Error {
    Error {
        kind: ErrorKind::ContentFiltered,
        message: message.into(),
        code: None,
        param: None,
        status: None,
        retry: Retry::Never,
        raw: None,
    }
}

fn tag(name: &str, value: &str) -> Tag {
    Tag { name: name.into(), value: value.into() }
}

/// The first text that the request holds.
fn said(request: &Request) -> &str {
    let Input::Chat(messages) = &request.input else { return "" };
    let mut parts = messages.iter().flat_map(|message| &message.parts);
    parts.find_map(|part| if let Part::Text(text) = part { Some(text.text.as_str()) } else { None }).unwrap_or("")
}

impl Guest for Wrong {
    type Watcher = Watcher;

    fn describe() -> Description {
        Description {
            id: "wrong".into(),
            version: "first".into(),
            summary: if count(&DESCRIBED) == 1 { "Breaks its contract".into() } else { "".into() },
            settings_schema: r#"{"type": "object", "properties": {"do": {"type": "string"}}}"#.into(),
        }
    }

    fn on_request(settings: Json, _: Context, request: Request) -> Result<Decision, Error> {
        let asked = count(&ASKED);
        let mut decision = Decision { request: None, tags: Vec::new(), route: None, watch: Some(String::new()) };
        let mut changed = request.clone();
        match what(&settings) {
            "trap" => std::process::abort(),
            "loop" => loop {
                std::hint::black_box(0);
            },
            "trap-at-much" if said(&request).len() > 100_000 => std::process::abort(),
            "refuse" => return Err(error("")),
            "refuse-all" => return Err(error("not today")),
            "tag" => decision.tags.push(tag("a name", "x")),
            "tags" => decision.tags = vec![tag("a", "b"); 17],
            "tell" => decision.tags.push(tag("said", &said(&request).chars().take(60).collect::<String>())),
            "route" => decision.route = Some(String::new()),
            "count" => decision.tags.push(tag("count", &asked.to_string())),
            "model" => changed.model = "another".into(),
            "no-model" => changed.model.clear(),
            "operation" => changed.input = Input::Models,
            "no-json" => changed.extra = Some("[1]".into()),
            "nan" => changed.sampling.temperature = Some(f64::NAN),
            "copy" => decision.request = Some(request),
            _ => {}
        }
        if matches!(what(&settings), "model" | "no-model" | "operation" | "no-json" | "nan") {
            decision.request = Some(changed);
        }
        Ok(decision)
    }
}

struct Watcher {
    what: String,
    held: RefCell<Vec<Event>>,
}

fn text(event: &Event) -> Option<&BlockDelta> {
    match event {
        Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta) => Some(delta),
        _ => None,
    }
}

impl GuestWatcher for Watcher {
    fn new(settings: Json, _note: String) -> Self {
        Watcher { what: what(&settings).into(), held: RefCell::new(Vec::new()) }
    }

    fn feed(&self, mut events: Vec<Event>) -> Filtered {
        let watched = count(&WATCHED);
        let mut held = 0;
        let last = |event: &Event| matches!(event, Event::Done | Event::Failed(_));
        match self.what.as_str() {
            "feed-trap" => std::process::abort(),
            "feed-flood" => events = vec![events[0].clone(); 5_000],
            "no-end" => events.retain(|event| !last(event)),
            "early-end" => {
                if let Some(at) = events.iter().position(|event| matches!(event, Event::Finish(_))) {
                    events.truncate(at + 1);
                    events.push(Event::Done);
                }
            }
            "no-failure" => {
                if matches!(events.last(), Some(Event::Failed(_))) {
                    events.pop();
                    events.extend([
                        Event::BlockStop(0),
                        Event::Finish(Finish { choice: 0, reason: FinishReason::Stop, raw: None, stop_sequence: None }),
                        Event::Done,
                    ]);
                }
            }
            "other-failure" => {
                if let Some(Event::Failed(failure)) = events.last_mut() {
                    failure.kind = ErrorKind::InvalidRequest;
                }
            }
            "dumb" => {
                if let Some(at) = events.iter().position(|event| text(event).is_some()) {
                    events.truncate(at);
                    events.push(Event::Failed(error("")));
                }
            }
            "after-failed" => {
                if let Some(at) = events.iter().position(|event| text(event).is_some()) {
                    events.insert(at, Event::Failed(error("no")));
                }
            }
            "no-block" => events.retain(|event| !matches!(event, Event::BlockStart(_))),
            // Lets go at the answer's end only.
            "hoard" => {
                let mut kept = self.held.borrow_mut();
                let ended = events.iter().any(last);
                kept.append(&mut events);
                if ended {
                    events = std::mem::take(&mut kept);
                }
                held = kept.iter().filter_map(text).map(|delta| delta.text.len() as u32).sum();
            }
            // One event late, and says nothing of it.
            "lie" => {
                let mut kept = self.held.borrow_mut();
                let ended = events.iter().any(last);
                kept.append(&mut events);
                let keep = if ended { 0 } else { 1 };
                let give = kept.len().saturating_sub(keep);
                events = kept.drain(..give).collect();
            }
            "always-held" => held = 1,
            "per-feed" => {
                if let Some(Event::Text(delta)) = events.iter_mut().find(|event| matches!(event, Event::Text(_))) {
                    delta.text.insert(0, '|');
                }
            }
            "per-piece" => {
                for event in &mut events {
                    if let Event::Text(delta) = event {
                        delta.text.insert(0, '|');
                    }
                }
            }
            // Leaves quotes in arguments without their backslashes.
            "no-escapes" => {
                for event in &mut events {
                    if let Event::Arguments(delta) = event {
                        delta.text.retain(|c| c != '\\');
                    }
                }
            }
            "remember" => {
                for event in &mut events {
                    if let Event::Started(started) = event {
                        started.created = Some(watched.into());
                    }
                }
            }
            _ => {}
        }
        Filtered { events, held }
    }
}
