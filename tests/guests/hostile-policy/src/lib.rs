//! A policy that misbehaves. What it does wrong is chosen by its settings, `{"do": "…"}`; without them it lets all pass and
//! counts, in a tag, the requests that this instance has seen.

wit_bindgen::generate!({
    path: ["../../../wit/adapter", "../../../wit/policy"],
    world: "witgate:policy/policy",
    generate_all,
});

use std::cell::Cell;

use exports::witgate::policy::hooks::{Guest, GuestWatcher};
use witgate::adapter::types::{BlockDelta, Error, Event, Request};
use witgate::policy::types::{Context, Decision, Description, Filtered, Tag};

struct Hostile;

export!(Hostile);

thread_local! {
    /// How many requests this instance has seen: only one that is used twice gets to two.
    static SEEN: Cell<u32> = const { Cell::new(0) };
}

/// What the settings ask for.
fn what(settings: &str) -> &str {
    let Some((_, rest)) = settings.split_once("\"do\"") else { return "" };
    rest.split('"').nth(1).unwrap_or("")
}

fn misbehave(what: &str) {
    match what {
        "trap" => std::process::abort(),
        "loop" => {
            let mut n = 0u64;
            loop {
                n = std::hint::black_box(n.wrapping_add(1));
            }
        }
        "grow" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        _ => {}
    }
}

impl Guest for Hostile {
    type Watcher = Watcher;

    fn describe() -> Description {
        Description {
            id: "hostile".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Misbehaves as its settings say".into(),
            settings_schema: r#"{"type": "object"}"#.into(),
        }
    }

    fn on_request(settings: String, _: Context, _: Request) -> Result<Decision, Error> {
        let what = what(&settings);
        misbehave(what);
        let seen = SEEN.get() + 1;
        SEEN.set(seen);
        let value = match what {
            "bad-tag" => "a\r\nset-cookie: stolen".to_owned(),
            _ => seen.to_string(),
        };
        let tags = vec![Tag { name: "seen".into(), value }];
        Ok(Decision { request: None, tags, route: None, watch: Some(String::new()) })
    }
}

/// One answer.
struct Watcher {
    what: String,
}

impl GuestWatcher for Watcher {
    fn new(settings: String, _: String) -> Self {
        Watcher { what: what(&settings).to_owned() }
    }

    fn feed(&self, mut events: Vec<Event>) -> Filtered {
        if let Some(what) = self.what.strip_prefix("feed-") {
            misbehave(what);
        }
        match self.what.as_str() {
            "hold" => Filtered { events: vec![], held: 1 << 20 },
            // Keeps all that comes, and says that it keeps nothing.
            "swallow" => Filtered { events: vec![], held: 0 },
            "order" => {
                events.insert(0, Event::Text(BlockDelta { index: 7, text: "smuggled".into(), logprobs: None }));
                Filtered { events, held: 0 }
            }
            "after-done" if matches!(events.last(), Some(Event::Done)) => {
                let again = events.clone();
                events.extend(again);
                Filtered { events, held: 0 }
            }
            _ => Filtered { events, held: 0 },
        }
    }
}
