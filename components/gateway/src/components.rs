//! The adapters in their slots, and the normaliser.
//!
//! Their functions cannot fault here: a component that traps takes the whole instance with it, and the runtime answers.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use witgate_gateway::{Adapter, Fault, Normaliser};
use witgate_model::normaliser::{AnswerStart, Client, Ending, Failure, Limits, Rendered, Route, Step};
use witgate_model::{Description, Error, Event, Frame, HttpRequest, Request, ResponseHead};

use crate::bindings::witgate::normaliser::dialects;

/// One enum over all slots: each slot is an interface of its own, so that its functions and its decoder are other types.
macro_rules! slots {
    ($($variant:ident = $module:ident $name:literal,)*) => {
        /// A slot of the gateway's world.
        #[derive(Clone, Copy)]
        pub enum Slot {
            $($variant,)*
        }

        /// The decoder of an answer, in its slot.
        enum Decoder {
            $($variant(crate::bindings::$module::Decoder),)*
        }

        impl Slot {
            const ALL: &[Slot] = &[$(Slot::$variant,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Slot::$variant => $name,)*
                }
            }

            fn described(&self) -> (Self, Rc<Description>) {
                let description = match self {
                    $(Slot::$variant => crate::bindings::$module::describe(),)*
                };
                (*self, Rc::new(description))
            }

            fn probe(self, settings: &str) -> Result<Option<HttpRequest>, Error> {
                match self {
                    $(Slot::$variant => crate::bindings::$module::probe(settings),)*
                }
            }

            fn encode(self, settings: &str, request: &Request) -> Result<HttpRequest, Error> {
                match self {
                    $(Slot::$variant => crate::bindings::$module::encode(settings, request),)*
                }
            }

            fn decoder(self, settings: &str, context: Option<&str>, head: &ResponseHead) -> Decoder {
                match self {
                    $(Slot::$variant => {
                        Decoder::$variant(crate::bindings::$module::Decoder::new(settings, context, head))
                    })*
                }
            }
        }

        impl Decoder {
            fn feed(&self, frames: &[Frame]) -> Vec<Event> {
                match self {
                    $(Decoder::$variant(decoder) => decoder.feed(frames),)*
                }
            }

            fn finish(&self) -> Vec<Event> {
                match self {
                    $(Decoder::$variant(decoder) => decoder.finish(),)*
                }
            }
        }
    };
}

slots! {
    LlamaCpp = llama_cpp "llama-cpp",
    Openai = openai "openai",
    Stub = stub "stub",
    Bedrock = bedrock "bedrock",
    Sagemaker = sagemaker "sagemaker",
    Anthropic = anthropic "anthropic",
    Ollama = ollama "ollama",
    Custom = custom "custom",
    Custom2 = custom2 "custom2",
    Custom3 = custom3 "custom3",
    Custom4 = custom4 "custom4",
}

/// Which slot holds the adapter of a name, and what that adapter said that it is before it saw any request.
pub struct Slots(HashMap<String, (Slot, Rc<Description>)>);

impl Slots {
    /// What `placed` says, the names of adapters and of their slots; no other slot is asked anything. Where it says nothing
    /// each slot's adapter is asked who it is: a configuration names it by its slot, or by its own id where no slot has that
    /// name; of two adapters with one id the earlier slot's is meant.
    pub fn new(placed: Vec<(String, String)>) -> Self {
        if !placed.is_empty() {
            let slot = |name: &str| Slot::ALL.iter().find(|slot| slot.name() == name);
            let placed = placed.into_iter().filter_map(|(adapter, name)| Some((adapter, slot(&name)?.described())));
            return Slots(placed.collect());
        }
        let all: Vec<_> = Slot::ALL.iter().map(Slot::described).collect();
        let mut slots: HashMap<_, _> = all.iter().map(|of| (of.0.name().to_owned(), of.clone())).collect();
        // An empty slot has no id.
        for of in all.into_iter().filter(|(_, description)| !description.id.is_empty()) {
            slots.entry(of.1.id.clone()).or_insert(of);
        }
        Slots(slots)
    }

    /// The adapter of this name, for one attempt.
    ///
    /// The host takes a component's file for a name too, as `adapters/adapter-shout.wasm`. The same configuration works
    /// here where a slot holds an adapter whose id the file is called by: `shout`, or `adapter-shout`.
    pub fn adapter(&self, name: &str) -> Option<Held> {
        self.slot(name).cloned().map(|(slot, description)| Held { slot, description, decoder: None })
    }

    fn slot(&self, name: &str) -> Option<&(Slot, Rc<Description>)> {
        if let Some(slot) = self.0.get(name) {
            return Some(slot);
        }
        let file = name.strip_suffix(".wasm")?.rsplit('/').next()?;
        self.0.get(file).or_else(|| self.0.get(file.strip_prefix("adapter-")?))
    }

    /// The names that the adapters here go by, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// An adapter, held by one attempt.
pub struct Held {
    slot: Slot,
    description: Rc<Description>,
    decoder: Option<Decoder>,
}

impl Held {
    fn decoder(&self) -> Result<&Decoder, Fault> {
        let fault =
            || Fault { component: format!("adapter \"{}\"", self.slot.name()), what: "has no decoder".to_owned() };
        self.decoder.as_ref().ok_or_else(fault)
    }
}

impl Adapter for Held {
    fn description(&self) -> &Description {
        &self.description
    }

    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault> {
        Ok(self.slot.probe(settings))
    }

    fn encode(&mut self, settings: &str, request: &Arc<Request>) -> Result<Result<HttpRequest, Error>, Fault> {
        Ok(self.slot.encode(settings, request))
    }

    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault> {
        self.decoder = Some(self.slot.decoder(settings, context.as_deref(), &head));
        Ok(())
    }

    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault> {
        Ok(self.decoder()?.feed(&frames))
    }

    fn finish(&mut self) -> Result<Vec<Event>, Fault> {
        Ok(self.decoder()?.finish())
    }
}

/// The normaliser, held by one request.
#[derive(Default)]
pub struct Dialects {
    renderer: Option<dialects::Renderer>,
}

impl Dialects {
    fn renderer(&self) -> Result<&dialects::Renderer, Fault> {
        let fault = || Fault { component: "normaliser".to_owned(), what: "has no renderer".to_owned() };
        self.renderer.as_ref().ok_or_else(fault)
    }
}

impl Normaliser for Dialects {
    fn routes(&mut self) -> Result<Vec<Route>, Fault> {
        Ok(dialects::routes())
    }

    fn parse(
        &mut self,
        dialect: &str,
        client: &Client,
        limits: &Limits,
        body: &Bytes,
    ) -> Result<Result<Step, Error>, Fault> {
        Ok(dialects::parse(dialect, client, limits.clone(), body))
    }

    fn render_error(&mut self, dialect: &str, settings: &str, failure: &Failure) -> Result<Rendered, Fault> {
        Ok(dialects::render_error(dialect, settings, failure))
    }

    fn start(&mut self, dialect: &str, start: AnswerStart) -> Result<(), Fault> {
        self.renderer = Some(dialects::Renderer::new(dialect, &start));
        Ok(())
    }

    fn head(&mut self) -> Result<Rendered, Fault> {
        Ok(self.renderer()?.head())
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer()?.feed(&events))
    }

    fn end(&mut self) -> Result<Ending, Fault> {
        Ok(self.renderer()?.end())
    }

    fn refuse(&mut self, failure: &Failure) -> Result<Option<Rendered>, Fault> {
        Ok(self.renderer()?.refuse(failure))
    }

    fn fail(&mut self, failure: &Failure) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer()?.fail(failure))
    }

    fn keep_alive(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.renderer()?.keep_alive())
    }
}
