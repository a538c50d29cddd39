//! The policies in their slots.

use std::collections::HashMap;
use std::sync::Arc;

use witgate_config::{PolicyConfig, PolicySource};
use witgate_gateway::{Fault, Policy};
use witgate_model::policy::{Context, Decision, Filtered};
use witgate_model::{Error, Event, Request};

/// One enum over all slots, as for adapters.
macro_rules! slots {
    ($($variant:ident = $module:ident $name:literal,)*) => {
        /// A slot of the gateway's world.
        #[derive(Clone, Copy)]
        pub enum Slot {
            $($variant,)*
        }

        enum Watcher {
            $($variant(crate::bindings::$module::Watcher),)*
        }

        impl Slot {
            fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Slot::$variant),)*
                    _ => None,
                }
            }

            fn on_request(self, settings: &str, context: &Context, request: &Request) -> Result<Decision, Error> {
                match self {
                    $(Slot::$variant => crate::bindings::$module::on_request(settings, context, request),)*
                }
            }

            fn watcher(self, settings: &str, note: &str) -> Watcher {
                match self {
                    $(Slot::$variant => Watcher::$variant(crate::bindings::$module::Watcher::new(settings, note)),)*
                }
            }
        }

        impl Watcher {
            fn feed(&self, events: &[Event]) -> Filtered {
                match self {
                    $(Watcher::$variant(watcher) => watcher.feed(events),)*
                }
            }
        }
    };
}

slots! {
    Guard = guard "guard",
    Redactor = redactor "redactor",
    CustomPolicy = custom_policy "custom-policy",
    CustomPolicy2 = custom_policy2 "custom-policy2",
    CustomPolicy3 = custom_policy3 "custom-policy3",
}

/// Which slot holds which policy.
pub struct Slots(Option<HashMap<String, Slot>>);

impl Slots {
    /// What `placed` says, the names or files of policies and their slots. None: each slot holds what it is called after,
    /// and a file of the operator's own is the one in the first spare slot.
    pub fn new(placed: Option<Vec<(String, String)>>) -> Self {
        let slot = |(policy, name): (String, String)| Some((policy, Slot::of(&name)?));
        Slots(placed.map(|placed| placed.into_iter().filter_map(slot).collect()))
    }

    /// The slot of a policy.
    pub fn of(&self, config: &PolicyConfig) -> Option<Slot> {
        match (&self.0, &config.source) {
            (Some(placed), PolicySource::Builtin(name)) => placed.get(name).copied(),
            (Some(placed), PolicySource::Component(own)) => placed.get(&own.source.to_string()).copied(),
            (None, PolicySource::Builtin(name)) => Slot::of(name),
            (None, PolicySource::Component(_)) => Some(Slot::CustomPolicy),
            (_, PolicySource::Native(_)) => None,
        }
    }
}

/// A policy, held by one request or one answer.
pub struct Held {
    slot: Slot,
    watcher: Option<Watcher>,
}

impl Held {
    pub fn new(slot: Slot) -> Self {
        Held { slot, watcher: None }
    }
}

impl Policy for Held {
    fn on_request(
        &mut self,
        settings: &Arc<str>,
        context: &Context,
        request: &Arc<Request>,
    ) -> Result<Result<Decision, Error>, Fault> {
        Ok(self.slot.on_request(settings, context, request))
    }

    fn start(&mut self, settings: &Arc<str>, note: String) -> Result<(), Fault> {
        self.watcher = Some(self.slot.watcher(settings, &note));
        Ok(())
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault> {
        let fault = || Fault { component: "policy".to_owned(), what: "has no watcher".to_owned() };
        Ok(self.watcher.as_ref().ok_or_else(fault)?.feed(&events))
    }
}
