//! The functions of a policy as traits: what a component exports, callable without a component.

use crate::policy::{Context, Decision, Description, Filtered};
use crate::types::{Error, Event, Request};

/// A policy. The functions keep the calling contract of `wit/policy/policy.wit`: pure, no IO.
pub trait Policy {
    /// Looks at one answer.
    type Watcher: Watcher;

    /// What this policy is. Constant.
    fn describe() -> Description;

    /// What becomes of a request; an error refuses it.
    fn on_request(settings: &str, context: &Context, request: &Request) -> Result<Decision, Error>;

    /// A watcher for one answer. `note` is what [`Policy::on_request`] returned as `watch`.
    fn watcher(settings: &str, note: String) -> Self::Watcher;
}

/// Looks at the events of one answer.
pub trait Watcher {
    /// The next events, at least one; what goes on of them.
    fn feed(&mut self, events: Vec<Event>) -> Filtered;
}
