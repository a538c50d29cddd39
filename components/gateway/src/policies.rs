//! The policies in their slots.

use std::collections::HashMap;
use std::sync::Arc;

use witgate_config::{Config, PolicyConfig, PolicySource};
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

            fn name(self) -> &'static str {
                match self {
                    $(Slot::$variant => $name,)*
                }
            }

            /// Whether nothing is in it: what stands there instead has no id.
            fn is_empty(self) -> bool {
                let id = match self {
                    $(Slot::$variant => crate::bindings::$module::describe().id,)*
                };
                id.is_empty()
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

/// The slots for components of the operator's own, in the order in which they are given away.
const SPARE: [Slot; 3] = [Slot::CustomPolicy, Slot::CustomPolicy2, Slot::CustomPolicy3];

/// Which slot holds which policy.
pub struct Slots {
    /// By the names or sources of policies. None: each slot holds what it is called after.
    placed: Option<HashMap<String, Slot>>,
    /// The operator's own components by their sources, where nothing says which slot holds them.
    own: HashMap<String, Slot>,
}

impl Slots {
    /// What `placed` says, the names or sources of policies and their slots. None: each slot holds what it is called after,
    /// and the spare ones hold the operator's own, see [`Slots::assign`].
    pub fn new(placed: Option<Vec<(String, String)>>) -> Self {
        let slot = |(policy, name): (String, String)| Some((policy, Slot::of(&name)?));
        Slots { placed: placed.map(|placed| placed.into_iter().filter_map(slot).collect()), own: HashMap::new() }
    }

    /// Where nothing says which slot holds what, the operator's own components are in the spare ones, each once, in the
    /// order of the policies that first name them.
    pub fn assign(&mut self, config: &Config) {
        for policy in config.policies.values().filter(|_| self.placed.is_none()) {
            let PolicySource::Component(component) = &policy.source else { continue };
            let source = component.source.to_string();
            if !self.own.contains_key(&source)
                && let Some(slot) = SPARE.get(self.own.len())
            {
                self.own.insert(source, *slot);
            }
        }
    }

    /// The slot of a policy.
    pub fn of(&self, config: &PolicyConfig) -> Option<Slot> {
        match (&self.placed, &config.source) {
            (Some(placed), PolicySource::Builtin(name)) => placed.get(name).copied(),
            (Some(placed), PolicySource::Component(own)) => placed.get(&own.source.to_string()).copied(),
            (None, PolicySource::Builtin(name)) => Slot::of(name),
            (None, PolicySource::Component(own)) => self.own.get(&own.source.to_string()).copied(),
            (_, PolicySource::Native(_)) => None,
        }
    }

    /// Why a policy cannot be had, and what would be right.
    pub fn missing(&self, config: &PolicyConfig) -> Option<(String, String)> {
        let compose = "run `witgate compose` with this configuration";
        let of_ours = self.placed.is_none();
        match self.of(config) {
            None if of_ours => {
                let count = SPARE.len();
                let message = format!("spin.toml has {count} slots for components of your own, and this is one more");
                Some((message, compose.to_owned()))
            }
            None => Some(("the policy was not composed into this component".to_owned(), compose.to_owned())),
            Some(slot) if of_ours && slot.is_empty() => {
                let spare = SPARE.map(Slot::name).join(", ");
                let help =
                    format!("put the component there: yours are in {spare}, in the order of the policies' names");
                Some((format!("the slot {} of spin.toml is empty", slot.name()), help))
            }
            Some(_) => None,
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
