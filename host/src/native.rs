//! Adapters and policies of the program itself: Rust values that do what components do, without a sandbox around them.
//!
//! Whatever implements [`witgate_model::Adapter`] or [`witgate_model::Policy`], and so everything that is written with the
//! SDK, is a [`NativeAdapter`] or [`NativePolicy`] as it stands: the same code as a component and as a value. An own
//! implementation may have state, as a table that it was made with.
//!
//! Nothing bounds the time and the memory of such code, and it must not block. What it gives is checked as what a component
//! gives is: a request by the rules of the contract, events by their order and number. A panic fails the request with a 502
//! that names the adapter or the policy (with `panic = "abort"` it ends the program).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use witgate_gateway::{Adapter, Fault, Policy};
use witgate_model::policy::{self, Context, Decision, Filtered};
use witgate_model::{Decoder, Description, Error, Event, Frame, HttpRequest, Request, ResponseHead, Watcher};

use crate::components::{AdapterComponent, LoadError, PolicyComponent, check, check_policy};
use crate::instances::{AdapterSession, PolicySession, aside, event_size, frame_size, size};

/// An adapter of the program itself: what a component exports, as a Rust value. The calling contract is that of
/// `wit/adapter/chat.wit`; nothing here may wait for anything.
///
/// ```
/// use witgate_host::NativeAdapter;
/// use witgate_host::model::*;
///
/// /// A backend that takes a prompt, and answers with a text.
/// struct Plain;
///
/// impl NativeAdapter for Plain {
///     fn describe(&self) -> Description {
///         Description {
///             id: "plain".into(),
///             version: "1".into(),
///             operations: vec!["completion".into()],
///             settings_schema: "{}".into(),
///             ..Description::default()
///         }
///     }
///
///     fn encode(&self, _: &str, request: &Request) -> Result<HttpRequest, Error> {
///         let Input::Completion(prompt) = &request.input else {
///             return Err(Error::no_operation("the backend", &request.input));
///         };
///         Ok(HttpRequest::post_json(&["generate"], prompt.text.clone().into_bytes()))
///     }
///
///     fn decoder(&self, _: &str, _: Option<String>, _: ResponseHead) -> Box<dyn Decoder + Send> {
///         Box::new(Text(Vec::new()))
///     }
/// }
///
/// struct Text(Vec<u8>);
///
/// impl Decoder for Text {
///     fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
///         self.0.extend(frames.into_iter().flat_map(|frame| match frame {
///             Frame::Bytes(bytes) => bytes,
///             _ => Vec::new(),
///         }));
///         Vec::new()
///     }
///
///     fn finish(&mut self) -> Vec<Event> {
///         let text = String::from_utf8_lossy(&self.0).into_owned();
///         vec![
///             Event::Started(Started::default()),
///             Event::text_start(0, 0),
///             Event::text(0, text),
///             Event::BlockStop(0),
///             Event::finish(0, FinishReason::Stop, None),
///             Event::Done,
///         ]
///     }
/// }
/// ```
pub trait NativeAdapter: Send + Sync + 'static {
    /// What this adapter is. Asked for each provider that names it, when the host is built and each time that its
    /// configuration is read anew; while it serves, what was told then counts.
    fn describe(&self) -> Description;

    /// The cheapest request that shows whether the backend serves; without one, a backend counts as ready.
    fn probe(&self, settings: &str) -> Result<Option<HttpRequest>, Error> {
        let _ = settings;
        Ok(None)
    }

    /// The HTTP request that asks the backend. `settings` are the provider's, a JSON object that matches the schema of the
    /// description.
    fn encode(&self, settings: &str, request: &Request) -> Result<HttpRequest, Error>;

    /// A decoder for one answer whose head has come. `context` is what [`encode`](Self::encode) gave.
    fn decoder(&self, settings: &str, context: Option<String>, head: ResponseHead) -> Box<dyn Decoder + Send>;
}

impl<A> NativeAdapter for A
where
    A: witgate_model::Adapter + Send + Sync + 'static,
    A::Decoder: Send + 'static,
{
    fn describe(&self) -> Description {
        <A as witgate_model::Adapter>::describe()
    }

    fn probe(&self, settings: &str) -> Result<Option<HttpRequest>, Error> {
        <A as witgate_model::Adapter>::probe(settings)
    }

    fn encode(&self, settings: &str, request: &Request) -> Result<HttpRequest, Error> {
        <A as witgate_model::Adapter>::encode(settings, request.clone())
    }

    fn decoder(&self, settings: &str, context: Option<String>, head: ResponseHead) -> Box<dyn Decoder + Send> {
        Box::new(<A as witgate_model::Adapter>::decoder(settings, context, head))
    }
}

/// A policy of the program itself: what a component exports, as a Rust value. The calling contract is that of
/// `wit/policy/policy.wit`; nothing here may wait for anything.
///
/// ```
/// use witgate_host::NativePolicy;
/// use witgate_host::model::policy::{Context, Decision};
/// use witgate_host::model::{Error, Request};
///
/// /// Nobody asks for more than so many tokens.
/// struct AtMost(u64);
///
/// impl NativePolicy for AtMost {
///     fn on_request(&self, _: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
///         if request.sampling.max_tokens.is_some_and(|asked| asked > self.0) {
///             return Err(Error::invalid("max_tokens", format!("at most {} are allowed here", self.0)));
///         }
///         Ok(Decision::default())
///     }
/// }
/// ```
pub trait NativePolicy: Send + Sync + 'static {
    /// What this policy is. Asked for each policy of the configuration that it is, when the host is built and each time that
    /// the configuration is read anew. Without an own one, a policy takes no settings.
    fn describe(&self) -> policy::Description {
        policy::Description {
            id: "native".to_owned(),
            version: "0".to_owned(),
            summary: String::new(),
            settings_schema: r#"{"type": "object", "additionalProperties": false}"#.to_owned(),
        }
    }

    /// What becomes of a request: an error refuses it, [`Decision::default`] lets it pass as it is.
    fn on_request(&self, settings: &str, context: &Context, request: &Request) -> Result<Decision, Error>;

    /// A watcher for one answer, where [`on_request`](Self::on_request) asked for one by `watch`, which is `note` here.
    /// Without an own one, the answer passes.
    fn watcher(&self, settings: &str, note: String) -> Box<dyn Watcher + Send> {
        let _ = (settings, note);
        Box::new(Passes)
    }
}

impl<P> NativePolicy for P
where
    P: witgate_model::Policy + Send + Sync + 'static,
    P::Watcher: Send + 'static,
{
    fn describe(&self) -> policy::Description {
        <P as witgate_model::Policy>::describe()
    }

    fn on_request(&self, settings: &str, context: &Context, request: &Request) -> Result<Decision, Error> {
        <P as witgate_model::Policy>::on_request(settings, context, request)
    }

    fn watcher(&self, settings: &str, note: String) -> Box<dyn Watcher + Send> {
        Box::new(<P as witgate_model::Policy>::watcher(settings, note))
    }
}

struct Passes;

impl Watcher for Passes {
    fn feed(&mut self, events: Vec<Event>) -> Filtered {
        Filtered { events, held: 0 }
    }
}

/// Native code with what is said of it.
pub(crate) struct Unit<T: ?Sized, D> {
    /// As in messages: `adapter "shout"`.
    name: String,
    description: D,
    /// Most events that it may return for each frame, or each event.
    events: usize,
    code: Arc<T>,
}

impl<T: ?Sized, D> Unit<T, D> {
    fn fault(&self, what: &str) -> Fault {
        Fault { component: self.name.clone(), what: what.to_owned() }
    }

    /// One call; what panicked once is not asked again.
    fn call<R>(&self, healthy: &mut bool, size: usize, call: impl FnOnce(&T) -> R) -> Result<R, Fault> {
        if !std::mem::replace(healthy, false) {
            return Err(self.fault("was called after it failed"));
        }
        let result = aside(size, || catch_unwind(AssertUnwindSafe(|| call(&self.code))));
        *healthy = result.is_ok();
        result.map_err(|_| self.fault("panicked"))
    }

    fn bounded(&self, given: usize, asked: usize, of: &str) -> Result<(), Fault> {
        let most = self.events.saturating_mul(asked);
        if given > most {
            return Err(self.fault(&format!("returned {given} events for {asked} {of}; at most {most} are allowed")));
        }
        Ok(())
    }
}

pub(crate) type AdapterUnit = Unit<dyn NativeAdapter, Description>;
pub(crate) type PolicyUnit = Unit<dyn NativePolicy, policy::Description>;

/// An adapter, whatever it is made of. Cheap to clone.
#[derive(Clone)]
pub(crate) enum AnyAdapter {
    Component(AdapterComponent),
    Native(Arc<AdapterUnit>),
}

impl AnyAdapter {
    /// Asks a native adapter what it is, and checks that.
    pub fn native(name: &str, code: Arc<dyn NativeAdapter>, events: usize) -> Result<Self, LoadError> {
        let (name, description) = (format!("adapter \"{name}\""), code.describe());
        match check(&description) {
            Ok(()) => Ok(AnyAdapter::Native(Arc::new(Unit { name, description, events, code }))),
            Err(why) => Err(LoadError::Description { component: name, why }),
        }
    }

    pub fn description(&self) -> &Description {
        match self {
            AnyAdapter::Component(component) => component.description(),
            AnyAdapter::Native(unit) => &unit.description,
        }
    }

    pub fn session(&self) -> Result<AnyAdapterSession, Fault> {
        Ok(match self {
            AnyAdapter::Component(component) => AnyAdapterSession::Component(component.session()?),
            AnyAdapter::Native(unit) => {
                AnyAdapterSession::Native(NativeDecoder { unit: Arc::clone(unit), decoder: None, healthy: true })
            }
        })
    }
}

/// A policy, whatever it is made of. Cheap to clone.
#[derive(Clone)]
pub(crate) enum AnyPolicy {
    Component(PolicyComponent),
    Native(Arc<PolicyUnit>),
}

impl AnyPolicy {
    /// Asks a native policy what it is, and checks that.
    pub fn native(name: &str, code: Arc<dyn NativePolicy>, events: usize) -> Result<Self, LoadError> {
        let (name, description) = (format!("policy \"{name}\""), code.describe());
        match check_policy(&description) {
            Ok(()) => Ok(AnyPolicy::Native(Arc::new(Unit { name, description, events, code }))),
            Err(why) => Err(LoadError::Description { component: name, why }),
        }
    }

    /// What runs in wasmtime; none where it is the program's own.
    pub fn component(&self) -> Option<&PolicyComponent> {
        match self {
            AnyPolicy::Component(component) => Some(component),
            AnyPolicy::Native(_) => None,
        }
    }

    pub fn description(&self) -> &policy::Description {
        match self {
            AnyPolicy::Component(component) => component.description(),
            AnyPolicy::Native(unit) => &unit.description,
        }
    }

    pub fn session(&self) -> Result<AnyPolicySession, Fault> {
        Ok(match self {
            AnyPolicy::Component(component) => AnyPolicySession::Component(component.session()?),
            AnyPolicy::Native(unit) => {
                AnyPolicySession::Native(NativeWatcher { unit: Arc::clone(unit), watcher: None, healthy: true })
            }
        })
    }
}

/// An adapter, held by one attempt.
pub enum AnyAdapterSession {
    /// In wasmtime.
    Component(AdapterSession),
    /// In the program itself.
    Native(NativeDecoder),
}

/// A native adapter, held by one attempt.
pub struct NativeDecoder {
    unit: Arc<AdapterUnit>,
    decoder: Option<Box<dyn Decoder + Send>>,
    healthy: bool,
}

impl NativeDecoder {
    fn decode(
        &mut self,
        size: usize,
        frames: usize,
        call: impl FnOnce(&mut (dyn Decoder + Send)) -> Vec<Event>,
    ) -> Result<Vec<Event>, Fault> {
        let NativeDecoder { unit, decoder, healthy } = self;
        let Some(decoder) = decoder else { return Err(unit.fault("was called out of order")) };
        let events = unit.call(healthy, size, |_| call(decoder.as_mut()))?;
        unit.bounded(events.len(), frames, "frames")?;
        Ok(events)
    }
}

impl Adapter for AnyAdapterSession {
    fn description(&self) -> &Description {
        match self {
            Self::Component(session) => session.description(),
            Self::Native(native) => &native.unit.description,
        }
    }

    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault> {
        match self {
            Self::Component(session) => session.probe(settings),
            Self::Native(NativeDecoder { unit, healthy, .. }) => unit.call(healthy, 0, |code| code.probe(settings)),
        }
    }

    fn encode(&mut self, settings: &str, request: &Arc<Request>) -> Result<Result<HttpRequest, Error>, Fault> {
        match self {
            Self::Component(session) => session.encode(settings, request),
            Self::Native(NativeDecoder { unit, healthy, .. }) => {
                unit.call(healthy, size(request), |code| code.encode(settings, request))
            }
        }
    }

    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault> {
        match self {
            Self::Component(session) => session.start(settings, context, head),
            Self::Native(NativeDecoder { unit, decoder, healthy }) => {
                *decoder = Some(unit.call(healthy, 0, |code| code.decoder(settings, context, head))?);
                Ok(())
            }
        }
    }

    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault> {
        match self {
            Self::Component(session) => session.feed(frames),
            Self::Native(native) => {
                let (size, count) = (frames.iter().map(frame_size).sum(), frames.len());
                native.decode(size, count, |decoder| decoder.feed(frames))
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<Event>, Fault> {
        match self {
            Self::Component(session) => session.finish(),
            Self::Native(native) => native.decode(0, 1, |decoder| decoder.finish()),
        }
    }
}

/// A policy, held by one request or one answer.
pub enum AnyPolicySession {
    /// In wasmtime.
    Component(PolicySession),
    /// In the program itself.
    Native(NativeWatcher),
}

/// A native policy, held by one request or one answer.
pub struct NativeWatcher {
    unit: Arc<PolicyUnit>,
    watcher: Option<Box<dyn Watcher + Send>>,
    healthy: bool,
}

impl Policy for AnyPolicySession {
    fn on_request(
        &mut self,
        settings: &Arc<str>,
        context: &Context,
        request: &Arc<Request>,
    ) -> Result<Result<Decision, Error>, Fault> {
        match self {
            Self::Component(session) => session.on_request(settings, context, request),
            Self::Native(NativeWatcher { unit, healthy, .. }) => {
                unit.call(healthy, size(request), |code| code.on_request(settings, context, request))
            }
        }
    }

    fn start(&mut self, settings: &Arc<str>, note: String) -> Result<(), Fault> {
        match self {
            Self::Component(session) => session.start(settings, note),
            Self::Native(NativeWatcher { unit, watcher, healthy }) => {
                *watcher = Some(unit.call(healthy, 0, |code| code.watcher(settings, note))?);
                Ok(())
            }
        }
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault> {
        match self {
            Self::Component(session) => session.feed(events),
            Self::Native(NativeWatcher { unit, watcher, healthy }) => {
                let Some(watcher) = watcher else { return Err(unit.fault("was called out of order")) };
                let (size, count) = (events.iter().map(event_size).sum(), events.len());
                let filtered = unit.call(healthy, size, |_| watcher.feed(events))?;
                unit.bounded(filtered.events.len(), count, "events")?;
                Ok(filtered)
            }
        }
    }
}
