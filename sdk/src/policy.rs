//! What an author of a policy needs.
//!
//! A policy looks at normalised requests, and where it wants to at the events of their answers: it lets pass, rewrites,
//! refuses, tags, or chooses another model. `docs/policies.md` goes from nothing to production; the contract itself is
//! `docs/policy-contract.md`.
//!
//! [`each`] and [`rewrite`] go over the texts of a request. [`TextFilter`] is a watcher of text: it holds back what it
//! cannot decide yet, within a bound. [`watched`] tests a policy without a component.
//!
//! ```
//! use witgate_sdk::policy::{Context, Decision, Description, Policy, Tag, TextFilter, TextWatcher, rewrite, watched};
//! use witgate_sdk::{BlockKind, Error, Message, Request, Role};
//!
//! /// Keeps the name of a project to ourselves.
//! struct Discreet;
//!
//! witgate_sdk::export_policy!(Discreet);
//!
//! fn clean(text: &str) -> Option<String> {
//!     text.contains("Falcon").then(|| text.replace("Falcon", "the project"))
//! }
//!
//! impl Policy for Discreet {
//!     type Watcher = TextWatcher<Discreet>;
//!
//!     fn describe() -> Description {
//!         Description {
//!             id: "discreet".into(),
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             summary: "Keeps the name of a project to ourselves".into(),
//!             settings_schema: r#"{"type": "object", "additionalProperties": false}"#.into(),
//!         }
//!     }
//!
//!     fn on_request(_: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
//!         let changed = rewrite(request, |_, text| clean(text));
//!         let tags = changed.iter().map(|_| Tag { name: "discreet".into(), value: "1".into() }).collect();
//!         Ok(Decision { request: changed, tags, watch: Some(String::new()), ..Decision::default() })
//!     }
//!
//!     fn watcher(_: &str, _: String) -> TextWatcher<Discreet> {
//!         TextWatcher::new(Discreet)
//!     }
//! }
//!
//! impl TextFilter for Discreet {
//!     type Block = ();
//!
//!     fn block(&mut self, kind: &BlockKind) -> Option<()> {
//!         matches!(kind, BlockKind::Text).then_some(())
//!     }
//!
//!     fn pass(&mut self, _: &mut (), held: &mut String, last: bool) -> Result<String, Error> {
//!         // The last word may go on with the next piece.
//!         let decided = if last { held.len() } else { held.rfind(' ').map_or(0, |blank| blank + 1) };
//!         let text: String = held.drain(..decided).collect();
//!         Ok(clean(&text).unwrap_or(text))
//!     }
//! }
//!
//! let request = Request::chat("openai-chat", "m", vec![Message::text(Role::User, "How is Falcon?")]);
//! let decision = Discreet::on_request("{}", &Context::default(), &request)?;
//! assert_eq!(decision.tags[0].name, "discreet");
//! assert_eq!(watched::<Discreet>("{}", &decision, &["Fal", "con is well"]).unwrap(), "the project is well");
//! # Ok::<(), Error>(())
//! ```
//!
//! It is built as an adapter is (see the crate's page), and `witgate conformance FILE.wasm` checks it as it does adapters.

use std::convert::Infallible;

use witgate_model::watching::{cut, joined, said, watch};
use witgate_model::{BlockKind, Error, Event};

pub use witgate_model::policy::*;
pub use witgate_model::{Policy, Watcher};
pub use witgate_policies::{Guard, Place, Redactor, TextFilter, TextWatcher, each, rewrite};

/// What goes on of an answer of one text in these pieces, after this decision. The text is the same however the backend
/// cuts it and the gateway groups its events, and the watcher keeps the contract; an answer that it stops is its error.
///
/// # Errors
/// The failure with which the watcher stops the answer.
///
/// # Panics
/// Where the watcher breaks the contract, as assertions do: it is for tests.
pub fn watched<P: Policy>(settings: &str, decision: &Decision, pieces: &[&str]) -> Result<String, Error> {
    let events = every_way::<P>(settings, decision, &said(BlockKind::Text, pieces));
    match events.last() {
        Some(Event::Failed(error)) => Err(error.clone()),
        _ => Ok(crate::testing::text(&events)),
    }
}

/// What goes on of an answer, pieces of a block joined, after this decision: the same however the backend cuts its text and
/// the gateway groups its events.
///
/// # Panics
/// Where it is not, or where the watcher breaks another rule of the contract: it is for tests.
pub fn every_way<P: Policy>(settings: &str, decision: &Decision, answer: &[Event]) -> Vec<Event> {
    let Some(note) = &decision.watch else { return joined(answer) };
    let go = |how: &str, reads: &mut dyn Iterator<Item = Vec<Event>>| {
        let mut watcher = P::watcher(settings, note.clone());
        let Ok(watched) = watch(reads, |events| Ok::<_, Infallible>(watcher.feed(events)));
        match watched {
            Ok(events) => joined(&events),
            Err(broken) => panic!("{how}, at feed {}, the watcher {}", broken.feed, broken.what),
        }
    };
    let singly = |events: &[Event]| events.iter().map(|event| vec![event.clone()]).collect::<Vec<_>>().into_iter();
    let plain = go("one by one", &mut singly(answer));
    let stopped = |events: &[Event]| match (answer.last(), events.last()) {
        (Some(Event::Done), Some(Event::Failed(error))) => Some(error.kind.clone()),
        _ => None,
    };
    for at in 0..answer.len() {
        let (first, second) = answer.split_at(at);
        let events = go("in two feeds", &mut [first.to_vec(), second.to_vec()].into_iter());
        assert_eq!(events, plain, "in feeds of {at} events and the rest, the answer is another one");
    }
    for most in [1, 3, usize::MAX] {
        let pieces = if most == usize::MAX { joined(answer) } else { cut(answer, most) };
        let events = go("in other pieces", &mut singly(&pieces));
        if stopped(&plain).is_some() {
            // How much goes on before an answer is stopped depends on what came at once.
            assert_eq!(
                stopped(&events),
                stopped(&plain),
                "with its text in other pieces, the answer is not stopped so"
            );
        } else {
            assert_eq!(events, plain, "with its text in other pieces, the answer is another one");
        }
    }
    plain
}
