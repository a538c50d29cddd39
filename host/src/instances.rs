//! Instances of components, each held exclusively by one request or attempt, and the calls into them.
//!
//! Every call is bounded in time (the engine's epoch), memory (the store's limiter) and size of its result. A call that
//! fails spoils its instance: it is thrown away with its store, and nothing of it meets another request.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, ResourceAny, TypedFunc};
use witgate_gateway::{Adapter, Fault, Normaliser, Policy};
use witgate_model::normaliser::{AnswerStart, Client, Ending, Failure, Limits, Rendered, Route, Step};
use witgate_model::policy::{self, Context, Decision, Filtered};
use witgate_model::{
    Description, EmbeddingText, Error, Event, Frame, HttpRequest, Input, Part, Request, ResponseHead, ResultContent,
};

use crate::components::{
    AdapterExports, AdapterUnit, Exports, Held, NormaliserExports, NormaliserUnit, PolicyExports, PolicyUnit, Unit,
};
use crate::meter::{self, Call};

/// From this size on, in bytes, a call moves its thread's other tasks away first: it may take milliseconds.
const LARGE: usize = 256 * 1024;

/// Runs a call, aside from the runtime's other tasks if what it works on is large.
pub(crate) fn aside<T>(size: usize, call: impl FnOnce() -> T) -> T {
    if size > LARGE { apart(call) } else { call() }
}

/// Runs a call that may take long: its thread's other tasks move to another one. A runtime of one thread has none.
pub(crate) fn apart<T>(call: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let other_threads = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if other_threads { tokio::task::block_in_place(call) } else { call() }
}

type Typed<P, R> = TypedFunc<P, (R,)>;
type Checked = Result<(), (&'static str, wasmtime::Error)>;

/// One call: everything that bounds it is here.
fn call<I, X: Exports<I>, P, R>(
    unit: &Unit<I, X>,
    held: &mut Held<I>,
    healthy: &mut bool,
    func: Result<Typed<P, R>, wasmtime::Error>,
    params: P,
) -> Result<R, Fault>
where
    P: ComponentNamedList + Lower,
    R: Lift,
    (R,): ComponentNamedList + Lift,
{
    // An instance that failed before is not asked again.
    if !*healthy {
        return Err(Fault { component: unit.name.clone(), what: "was called after it failed".to_owned() });
    }
    unit.begin(&mut held.store);
    match func.and_then(|func| func.call(&mut held.store, params)) {
        Ok((result,)) => Ok(result),
        Err(error) => {
            *healthy = false;
            Err(unit.fault(held.store.data(), &error))
        }
    }
}

/// A session's instance, its resource if it has made one, and what it belongs to.
struct Session<I, X: Exports<I>> {
    unit: Arc<Unit<I, X>>,
    /// `None` only while it is dropped.
    held: Option<Held<I>>,
    resource: Option<ResourceAny>,
    healthy: bool,
}

impl<I, X: Exports<I>> Session<I, X> {
    fn new(unit: Arc<Unit<I, X>>, held: Held<I>) -> Self {
        Session { unit, held: Some(held), resource: None, healthy: true }
    }

    fn call<P, R>(
        &mut self,
        func: impl FnOnce(&mut Held<I>, &X) -> Result<Typed<P, R>, wasmtime::Error>,
        params: P,
    ) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: Lift,
        (R,): ComponentNamedList + Lift,
    {
        let Some(held) = &mut self.held else {
            return Err(self.misused("was called while it was dropped"));
        };
        let (unit, healthy) = (&self.unit, &mut self.healthy);
        unit.place(|| {
            let func = func(held, &unit.exports);
            call(unit, held, healthy, func, params)
        })
    }

    /// Does one call, and counts it.
    fn timed<R>(&mut self, of: Call, call: impl FnOnce(&mut Self) -> R) -> R {
        let begun = Instant::now();
        let result = call(self);
        let memory = self.held.as_ref().map_or(0, |held| held.store.data().memory);
        self.unit.meter.called(of, begun.elapsed(), memory);
        result
    }

    fn resource(&self) -> Result<ResourceAny, Fault> {
        self.resource.ok_or_else(|| self.misused("was called out of order"))
    }

    fn misused(&self, what: &str) -> Fault {
        Fault { component: self.unit.name.clone(), what: what.to_owned() }
    }

    /// Destroys the resource, so that the instance can be used again. False where that failed.
    fn clear(&mut self) -> bool {
        let (Some(resource), Some(held)) = (self.resource.take(), &mut self.held) else { return true };
        let unit = &self.unit;
        unit.place(|| {
            unit.begin(&mut held.store);
            let dropped = resource.resource_drop(&mut held.store);
            dropped.inspect_err(|error| unit.note(error)).is_ok()
        })
    }
}

impl<I, X: Exports<I>> Drop for Session<I, X> {
    fn drop(&mut self) {
        if self.unit.bounds.trusted
            && self.healthy
            && self.clear()
            && let Some(held) = self.held.take()
        {
            self.unit.give_back(held);
        }
    }
}

/// A function of an instance: its types are compared with ours when it is first called.
struct Func<P, R>(Option<Typed<P, R>>);

impl<P, R> Default for Func<P, R> {
    fn default() -> Self {
        Func(None)
    }
}

impl<P, R> Func<P, R>
where
    P: ComponentNamedList + Lower,
    R: Lift,
    (R,): ComponentNamedList + Lift,
{
    fn get<T: 'static>(
        &mut self,
        instance: Instance,
        store: &mut wasmtime::Store<T>,
        index: &ComponentExportIndex,
    ) -> Result<Typed<P, R>, wasmtime::Error> {
        match self.0 {
            Some(func) => Ok(func),
            None => Ok(*self.0.insert(instance.get_typed_func::<P, (R,)>(store, index)?)),
        }
    }
}

/// What `encode` takes: shared, so that the function's type has no lifetime and is compared once for each instance.
type Encode = (Arc<str>, Arc<Request>);

/// An adapter's instance.
pub(crate) struct AdapterInstance {
    instance: Instance,
    encode: Func<Encode, Result<HttpRequest, Error>>,
    decoder: Func<(Arc<str>, Option<String>, ResponseHead), ResourceAny>,
    feed: Func<(ResourceAny, Vec<Frame>), Vec<Event>>,
    finish: Func<(ResourceAny,), Vec<Event>>,
}

impl AdapterInstance {
    pub fn new(instance: Instance) -> Self {
        AdapterInstance {
            instance,
            encode: Func::default(),
            decoder: Func::default(),
            feed: Func::default(),
            finish: Func::default(),
        }
    }

    /// Compares all functions' types with the contract's.
    pub fn check(held: &mut Held<Self>, exports: &AdapterExports) -> Checked {
        find::<_, (), Description>(held, &exports.describe).map_err(|e| ("describe", e))?;
        find::<_, (&str,), Result<Option<HttpRequest>, Error>>(held, &exports.probe).map_err(|e| ("probe", e))?;
        find::<_, Encode, Result<HttpRequest, Error>>(held, &exports.encode).map_err(|e| ("encode", e))?;
        find::<_, (Arc<str>, Option<String>, ResponseHead), ResourceAny>(held, &exports.decoder)
            .map_err(|e| ("[constructor]decoder", e))?;
        find::<_, (ResourceAny, Vec<Frame>), Vec<Event>>(held, &exports.feed)
            .map_err(|e| ("[method]decoder.feed", e))?;
        find::<_, (ResourceAny,), Vec<Event>>(held, &exports.finish).map_err(|e| ("[method]decoder.finish", e))?;
        Ok(())
    }
}

/// An instance that has wasmtime's handle.
pub(crate) trait Handle {
    fn handle(&self) -> Instance;
}

impl Handle for AdapterInstance {
    fn handle(&self) -> Instance {
        self.instance
    }
}

/// A function of an instance, its type compared.
fn find<I: Handle, P, R>(held: &mut Held<I>, index: &ComponentExportIndex) -> Result<Typed<P, R>, wasmtime::Error>
where
    P: ComponentNamedList + Lower,
    R: Lift,
    (R,): ComponentNamedList + Lift,
{
    let instance = held.instance.handle();
    instance.get_typed_func::<P, (R,)>(&mut held.store, index)
}

/// An adapter, held by one attempt.
pub struct AdapterSession(Session<AdapterInstance, AdapterExports>, Arc<Description>);

impl AdapterSession {
    /// `description`: what the adapter said when it was loaded.
    pub(crate) fn new(unit: Arc<AdapterUnit>, held: Held<AdapterInstance>, description: Arc<Description>) -> Self {
        AdapterSession(Session::new(unit, held), description)
    }

    /// Asks the adapter what it is.
    ///
    /// # Errors
    /// Where it traps, or goes over its limits.
    pub fn describe(&mut self) -> Result<Description, Fault> {
        describe(&mut self.0)
    }

    /// Bytes of linear memory that the instance has.
    pub fn memory(&self) -> usize {
        self.0.held.as_ref().map_or(0, |held| held.store.data().memory)
    }

    fn bounded(&mut self, events: Vec<Event>, frames: usize) -> Result<Vec<Event>, Fault> {
        let most = self.0.unit.bounds.events_per_frame;
        if events.len() > most.saturating_mul(frames) {
            self.0.healthy = false;
            self.0.unit.meter.failed(meter::Failure::Output);
            let what =
                format!("returned {} events for {frames} frames; at most {most} for each are allowed", events.len());
            return Err(self.0.misused(&what));
        }
        Ok(events)
    }
}

fn describe(session: &mut Session<AdapterInstance, AdapterExports>) -> Result<Description, Fault> {
    session.call::<(), _>(|held, exports| find(held, &exports.describe), ())
}

/// What an adapter that is being loaded says that it is.
pub(crate) fn described(unit: &Arc<AdapterUnit>, held: Held<AdapterInstance>) -> Result<Description, Fault> {
    describe(&mut Session::new(Arc::clone(unit), held))
}

impl Adapter for AdapterSession {
    fn description(&self) -> &Description {
        &self.1
    }

    fn probe(&mut self, settings: &str) -> Result<Result<Option<HttpRequest>, Error>, Fault> {
        self.0.call(|held, exports| find(held, &exports.probe), (settings,))
    }

    fn encode(&mut self, settings: &str, request: &Arc<Request>) -> Result<Result<HttpRequest, Error>, Fault> {
        let arguments = (Arc::from(settings), Arc::clone(request));
        let func = |held: &mut Held<AdapterInstance>, exports: &AdapterExports| {
            let instance = held.instance.instance;
            held.instance.encode.get(instance, &mut held.store, &exports.encode)
        };
        let encoded = aside(size(request), || self.0.timed(Call::Request, |session| session.call(func, arguments)))?;
        if encoded.is_err() {
            self.0.unit.meter.refused();
        }
        Ok(encoded)
    }

    fn start(&mut self, settings: &str, context: Option<String>, head: ResponseHead) -> Result<(), Fault> {
        // One decoder for each session: a second one takes the first one's place.
        if !self.0.clear() {
            self.0.healthy = false;
        }
        let func = |held: &mut Held<AdapterInstance>, exports: &AdapterExports| {
            let instance = held.instance.instance;
            held.instance.decoder.get(instance, &mut held.store, &exports.decoder)
        };
        self.0.resource = Some(self.0.call(func, (Arc::from(settings), context, head))?);
        Ok(())
    }

    fn feed(&mut self, frames: Vec<Frame>) -> Result<Vec<Event>, Fault> {
        let decoder = self.0.resource()?;
        let count = frames.len();
        let size = frames.iter().map(frame_size).sum();
        let func = |held: &mut Held<AdapterInstance>, exports: &AdapterExports| {
            let instance = held.instance.instance;
            held.instance.feed.get(instance, &mut held.store, &exports.feed)
        };
        let events = aside(size, || self.0.timed(Call::Feed, |session| session.call(func, (decoder, frames))))?;
        self.bounded(events, count)
    }

    fn finish(&mut self) -> Result<Vec<Event>, Fault> {
        let decoder = self.0.resource()?;
        let func = |held: &mut Held<AdapterInstance>, exports: &AdapterExports| {
            let instance = held.instance.instance;
            held.instance.finish.get(instance, &mut held.store, &exports.finish)
        };
        let events = self.0.timed(Call::Feed, |session| session.call(func, (decoder,)))?;
        self.bounded(events, 1)
    }
}

/// About how many bytes of text and media a request holds.
pub(crate) fn size(request: &Request) -> usize {
    let messages = match &request.input {
        Input::Chat(messages) | Input::CountTokens(messages) => messages,
        Input::Completion(prompt) => return prompt.text.len(),
        Input::Embedding(input) => {
            let text = |text: &EmbeddingText| match text {
                EmbeddingText::Text(text) => text.len(),
                EmbeddingText::Tokens(tokens) => 4 * tokens.len(),
            };
            return input.texts.iter().map(text).sum();
        }
        Input::Models => return 0,
        Input::Other(other) => return other.value.len(),
    };
    let media = |source: &witgate_model::MediaSource| match source {
        witgate_model::MediaSource::Base64(text)
        | witgate_model::MediaSource::Text(text)
        | witgate_model::MediaSource::Url(text)
        | witgate_model::MediaSource::FileId(text)
        | witgate_model::MediaSource::Other(text) => text.len(),
    };
    let result = |content: &ResultContent| match content {
        ResultContent::Text(part) => part.text.len(),
        ResultContent::Media(part) => media(&part.source),
        ResultContent::Other(json) => json.len(),
    };
    let part = |part: &Part| match part {
        Part::Text(part) | Part::Refusal(part) => part.text.len(),
        Part::Media(part) => media(&part.source),
        Part::Reasoning(part) => part.text.len(),
        Part::ToolCall(call) => call.arguments.len(),
        Part::ToolResult(found) => found.content.iter().map(result).sum(),
        Part::Other(json) => json.len(),
    };
    messages.iter().flat_map(|message| &message.parts).map(part).sum()
}

pub(crate) fn frame_size(frame: &Frame) -> usize {
    match frame {
        Frame::Bytes(bytes) => bytes.len(),
        Frame::Sse(event) => event.data.len(),
        Frame::Line(line) => line.len(),
        Frame::Message(message) => message.payload.len(),
    }
}

/// What `on-request` takes.
type OnRequest = (Arc<str>, Context, Arc<Request>);

/// A policy's instance.
pub(crate) struct PolicyInstance {
    instance: Instance,
    on_request: Func<OnRequest, Result<Decision, Error>>,
    watcher: Func<(Arc<str>, String), ResourceAny>,
    feed: Func<(ResourceAny, Vec<Event>), Filtered>,
}

impl Handle for PolicyInstance {
    fn handle(&self) -> Instance {
        self.instance
    }
}

impl PolicyInstance {
    pub fn new(instance: Instance) -> Self {
        PolicyInstance { instance, on_request: Func::default(), watcher: Func::default(), feed: Func::default() }
    }

    /// Compares all functions' types with the contract's.
    pub fn check(held: &mut Held<Self>, exports: &PolicyExports) -> Checked {
        find::<_, (), policy::Description>(held, &exports.describe).map_err(|e| ("describe", e))?;
        find::<_, OnRequest, Result<Decision, Error>>(held, &exports.on_request).map_err(|e| ("on-request", e))?;
        find::<_, (Arc<str>, String), ResourceAny>(held, &exports.watcher).map_err(|e| ("[constructor]watcher", e))?;
        find::<_, (ResourceAny, Vec<Event>), Filtered>(held, &exports.feed).map_err(|e| ("[method]watcher.feed", e))?;
        Ok(())
    }
}

/// A policy, held by one request or one answer.
pub struct PolicySession(Session<PolicyInstance, PolicyExports>);

impl PolicySession {
    pub(crate) fn new(unit: Arc<PolicyUnit>, held: Held<PolicyInstance>) -> Self {
        PolicySession(Session::new(unit, held))
    }

    /// Bytes of linear memory that the instance has.
    pub fn memory(&self) -> usize {
        self.0.held.as_ref().map_or(0, |held| held.store.data().memory)
    }

    /// What the policy says that it is.
    ///
    /// # Errors
    /// Where it traps, or goes over its limits.
    pub fn describe(&mut self) -> Result<policy::Description, Fault> {
        self.0.call::<(), _>(|held, exports| find(held, &exports.describe), ())
    }
}

impl Policy for PolicySession {
    fn on_request(
        &mut self,
        settings: &Arc<str>,
        context: &Context,
        request: &Arc<Request>,
    ) -> Result<Result<Decision, Error>, Fault> {
        let arguments = (Arc::clone(settings), context.clone(), Arc::clone(request));
        let func = |held: &mut Held<PolicyInstance>, exports: &PolicyExports| {
            let instance = held.instance.instance;
            held.instance.on_request.get(instance, &mut held.store, &exports.on_request)
        };
        let decided = aside(size(request), || self.0.timed(Call::Request, |session| session.call(func, arguments)))?;
        if decided.is_err() {
            self.0.unit.meter.refused();
        }
        Ok(decided)
    }

    fn start(&mut self, settings: &Arc<str>, note: String) -> Result<(), Fault> {
        if !self.0.clear() {
            self.0.healthy = false;
        }
        let func = |held: &mut Held<PolicyInstance>, exports: &PolicyExports| {
            let instance = held.instance.instance;
            held.instance.watcher.get(instance, &mut held.store, &exports.watcher)
        };
        self.0.resource = Some(self.0.call(func, (Arc::clone(settings), note))?);
        Ok(())
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Filtered, Fault> {
        let watcher = self.0.resource()?;
        let count = events.len();
        let size = events.iter().map(event_size).sum();
        let func = |held: &mut Held<PolicyInstance>, exports: &PolicyExports| {
            let instance = held.instance.instance;
            held.instance.feed.get(instance, &mut held.store, &exports.feed)
        };
        let filtered: Filtered =
            aside(size, || self.0.timed(Call::Feed, |session| session.call(func, (watcher, events))))?;
        let most = self.0.unit.bounds.events_per_frame.saturating_mul(count);
        if filtered.events.len() > most {
            self.0.healthy = false;
            self.0.unit.meter.failed(meter::Failure::Output);
            let what = format!("returned {} events for {count}; at most {most} are allowed", filtered.events.len());
            return Err(self.0.misused(&what));
        }
        Ok(filtered)
    }
}

/// What `parse` takes.
type Parse = (String, Client, Limits, Bytes);

/// The normaliser's instance.
pub(crate) struct NormaliserInstance {
    instance: Instance,
    parse: Func<Parse, Result<Step, Error>>,
    renderer: Func<(String, AnswerStart), ResourceAny>,
    head: Func<(ResourceAny,), Rendered>,
    keep_alive: Func<(ResourceAny,), Vec<u8>>,
    feed: Func<(ResourceAny, Vec<Event>), Vec<u8>>,
}

impl Handle for NormaliserInstance {
    fn handle(&self) -> Instance {
        self.instance
    }
}

impl NormaliserInstance {
    pub fn new(instance: Instance) -> Self {
        NormaliserInstance {
            instance,
            parse: Func::default(),
            renderer: Func::default(),
            head: Func::default(),
            keep_alive: Func::default(),
            feed: Func::default(),
        }
    }

    /// Compares all functions' types with the interface's.
    pub fn check(held: &mut Held<Self>, exports: &NormaliserExports) -> Checked {
        find::<_, (), Vec<Route>>(held, &exports.routes).map_err(|e| ("routes", e))?;
        find::<_, Parse, Result<Step, Error>>(held, &exports.parse).map_err(|e| ("parse", e))?;
        find::<_, (&str, &str, &Failure), Rendered>(held, &exports.render_error).map_err(|e| ("render-error", e))?;
        find::<_, (String, AnswerStart), ResourceAny>(held, &exports.renderer)
            .map_err(|e| ("[constructor]renderer", e))?;
        find::<_, (ResourceAny,), Rendered>(held, &exports.head).map_err(|e| ("[method]renderer.head", e))?;
        find::<_, (ResourceAny, Vec<Event>), Vec<u8>>(held, &exports.feed).map_err(|e| ("[method]renderer.feed", e))?;
        find::<_, (ResourceAny,), Ending>(held, &exports.end).map_err(|e| ("[method]renderer.end", e))?;
        find::<_, (ResourceAny, &Failure), Option<Rendered>>(held, &exports.refuse)
            .map_err(|e| ("[method]renderer.refuse", e))?;
        find::<_, (ResourceAny, &Failure), Vec<u8>>(held, &exports.fail).map_err(|e| ("[method]renderer.fail", e))?;
        find::<_, (ResourceAny,), Vec<u8>>(held, &exports.keep_alive)
            .map_err(|e| ("[method]renderer.keep-alive", e))?;
        Ok(())
    }
}

/// The normaliser, held by one request.
pub struct NormaliserSession(Session<NormaliserInstance, NormaliserExports>);

impl NormaliserSession {
    pub(crate) fn new(unit: Arc<NormaliserUnit>, held: Held<NormaliserInstance>) -> Self {
        NormaliserSession(Session::new(unit, held))
    }
}

impl Normaliser for NormaliserSession {
    fn routes(&mut self) -> Result<Vec<Route>, Fault> {
        self.0.call::<(), _>(|held, exports| find(held, &exports.routes), ())
    }

    fn parse(
        &mut self,
        dialect: &str,
        client: &Client,
        limits: &Limits,
        body: &Bytes,
    ) -> Result<Result<Step, Error>, Fault> {
        let arguments = (dialect.to_owned(), client.clone(), limits.clone(), body.clone());
        let func = |held: &mut Held<NormaliserInstance>, exports: &NormaliserExports| {
            let instance = held.instance.instance;
            held.instance.parse.get(instance, &mut held.store, &exports.parse)
        };
        let parsed = aside(body.len(), || self.0.timed(Call::Request, |session| session.call(func, arguments)))?;
        if parsed.is_err() {
            self.0.unit.meter.refused();
        }
        Ok(parsed)
    }

    fn render_error(&mut self, dialect: &str, settings: &str, failure: &Failure) -> Result<Rendered, Fault> {
        self.0.call(|held, exports| find(held, &exports.render_error), (dialect, settings, failure))
    }

    fn start(&mut self, dialect: &str, start: AnswerStart) -> Result<(), Fault> {
        if !self.0.clear() {
            self.0.healthy = false;
        }
        let func = |held: &mut Held<NormaliserInstance>, exports: &NormaliserExports| {
            let instance = held.instance.instance;
            held.instance.renderer.get(instance, &mut held.store, &exports.renderer)
        };
        self.0.resource = Some(self.0.call(func, (dialect.to_owned(), start))?);
        Ok(())
    }

    fn head(&mut self) -> Result<Rendered, Fault> {
        let renderer = self.0.resource()?;
        let func = |held: &mut Held<NormaliserInstance>, exports: &NormaliserExports| {
            let instance = held.instance.instance;
            held.instance.head.get(instance, &mut held.store, &exports.head)
        };
        self.0.call(func, (renderer,))
    }

    fn feed(&mut self, events: Vec<Event>) -> Result<Vec<u8>, Fault> {
        let renderer = self.0.resource()?;
        let size = events.iter().map(event_size).sum();
        let func = |held: &mut Held<NormaliserInstance>, exports: &NormaliserExports| {
            let instance = held.instance.instance;
            held.instance.feed.get(instance, &mut held.store, &exports.feed)
        };
        aside(size, || self.0.timed(Call::Feed, |session| session.call(func, (renderer, events))))
    }

    fn end(&mut self) -> Result<Ending, Fault> {
        let renderer = self.0.resource()?;
        self.0.call(|held, exports| find(held, &exports.end), (renderer,))
    }

    fn refuse(&mut self, failure: &Failure) -> Result<Option<Rendered>, Fault> {
        let renderer = self.0.resource()?;
        self.0.call(|held, exports| find(held, &exports.refuse), (renderer, failure))
    }

    fn fail(&mut self, failure: &Failure) -> Result<Vec<u8>, Fault> {
        let renderer = self.0.resource()?;
        self.0.call(|held, exports| find(held, &exports.fail), (renderer, failure))
    }

    fn keep_alive(&mut self) -> Result<Vec<u8>, Fault> {
        let renderer = self.0.resource()?;
        let func = |held: &mut Held<NormaliserInstance>, exports: &NormaliserExports| {
            let instance = held.instance.instance;
            held.instance.keep_alive.get(instance, &mut held.store, &exports.keep_alive)
        };
        self.0.call(func, (renderer,))
    }
}

pub(crate) fn event_size(event: &Event) -> usize {
    match event {
        Event::Text(delta)
        | Event::Reasoning(delta)
        | Event::Signature(delta)
        | Event::Redacted(delta)
        | Event::Arguments(delta) => delta.text.len(),
        _ => 64,
    }
}
