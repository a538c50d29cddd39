//! Components that have been loaded: checked for what they import and export, ready to be instantiated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Store, Trap};
use witgate_gateway::Fault;
use witgate_model::Description;
use witgate_model::normaliser::Route;

use crate::engine::{Bounds, Denied, Runtime, State};
use crate::instances::{
    AdapterInstance, AdapterSession, NormaliserInstance, NormaliserSession, PolicyInstance, PolicySession, apart,
    described,
};
use crate::meter::{Failure, Meter};

/// The interfaces that an adapter may import. They hold types and nothing else.
const ADAPTER_IMPORTS: &[&str] = &["witgate:adapter/types@0.1.0"];
/// The interfaces that the normaliser may import.
const NORMALISER_IMPORTS: &[&str] = &["witgate:adapter/types@0.1.0", "witgate:normaliser/types@0.1.0"];
/// What an adapter exports.
const CHAT: &str = "witgate:adapter/chat@0.1.0";
/// The interfaces that a policy may import.
const POLICY_IMPORTS: &[&str] = &["witgate:adapter/types@0.1.0", "witgate:policy/types@0.1.0"];
/// What a policy exports.
pub(crate) const HOOKS: &str = "witgate:policy/hooks@0.1.0";
/// What the normaliser exports.
const DIALECTS: &str = "witgate:normaliser/dialects@0.1.0";

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no component.
    #[error("{component} is no WebAssembly component: {why}")]
    NoComponent {
        /// The component, as `adapter "shout"`.
        component: String,
        /// What they are instead.
        why: String,
    },
    /// It wants something of the world outside.
    #[error(
        "{component} imports {import}: a component may import nothing but types ({}). Build it for \
         wasm32-unknown-unknown and make a component of it with `wasm-tools component new`; for wasm32-wasip2 Rust's \
         standard library imports WASI",
        allowed.join(", ")
    )]
    Import {
        /// The component.
        component: String,
        /// The first import that is not allowed.
        import: String,
        /// Those that are.
        allowed: &'static [&'static str],
    },
    /// It does not export what it must, or with other types.
    #[error("{component} does not export {export} as the contract has it: {why}")]
    Export {
        /// The component.
        component: String,
        /// The function or interface.
        export: String,
        /// What differs.
        why: String,
    },
    /// It misbehaved when it was asked what it is.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// Its description breaks the contract.
    #[error("{component} describes itself wrongly: {why}")]
    Description {
        /// The component.
        component: String,
        /// What is wrong.
        why: String,
    },
}

/// A component's bytes, and what an engine has made of them already.
pub(crate) struct Wasm<'w> {
    pub bytes: &'w [u8],
    pub compiled: Option<Component>,
}

impl<'w> From<&'w [u8]> for Wasm<'w> {
    fn from(bytes: &'w [u8]) -> Self {
        Wasm { bytes, compiled: None }
    }
}

/// A component of some kind, of which instances can be had.
pub(crate) struct Unit<I, X> {
    /// As in messages: `adapter "shout"`.
    pub name: String,
    pub runtime: Arc<Runtime>,
    pre: InstancePre<State>,
    pub exports: X,
    pub imports: Vec<String>,
    pub bounds: Bounds,
    pub meter: Arc<Meter>,
    idle: Mutex<Vec<Held<I>>>,
    /// Another component serves in its place: no instance is kept.
    retired: AtomicBool,
    /// A call of it has run out of its time: from then on none of them shares a thread with other requests.
    overran: AtomicBool,
    /// Linear memory of a fresh instance, in bytes.
    fresh_memory: usize,
}

/// An instance in its own store.
pub(crate) struct Held<I> {
    pub store: Store<State>,
    pub instance: I,
}

/// What an instance of some kind of component is made of.
pub(crate) trait Exports<I> {
    fn instance(&self, instance: wasmtime::component::Instance) -> I;
}

/// How much an idle instance may have grown before it is thrown away rather than kept, in bytes.
const IDLE_GROWTH: usize = 1024 * 1024;

impl<I, X: Exports<I>> Unit<I, X> {
    fn load(
        runtime: &Arc<Runtime>,
        name: String,
        wasm: Wasm<'_>,
        bounds: Bounds,
        allowed: &'static [&'static str],
        exports: impl FnOnce(&Component) -> Result<X, (String, String)>,
    ) -> Result<Self, LoadError> {
        let no_component = |why: String| LoadError::NoComponent { component: name.clone(), why };
        match wasm.bytes.get(..8) {
            Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => {}
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
                let why = "it is a core module; make a component of it with `wasm-tools component new`";
                return Err(no_component(why.to_owned()));
            }
            _ => return Err(no_component("it does not begin as one".to_owned())),
        }
        let component = match wasm.compiled {
            Some(compiled) => compiled,
            None => Component::from_binary(&runtime.engine, wasm.bytes).map_err(|error| no_component(cause(&error)))?,
        };
        let imports = imports(runtime, &component);
        if let Some((import, _)) = imports.iter().find(|(import, types)| !types || !allowed.contains(&import.as_str()))
        {
            return Err(LoadError::Import { component: name, import: import.clone(), allowed });
        }
        let exports =
            exports(&component).map_err(|(export, why)| LoadError::Export { component: name.clone(), export, why })?;
        let pre =
            Linker::new(&runtime.engine).instantiate_pre(&component).map_err(|error| no_component(cause(&error)))?;
        Ok(Unit {
            meter: runtime.meters.of(&name),
            name,
            runtime: Arc::clone(runtime),
            pre,
            exports,
            imports: imports.into_iter().map(|(name, _)| name).collect(),
            bounds,
            idle: Mutex::new(Vec::new()),
            retired: AtomicBool::new(false),
            overran: AtomicBool::new(false),
            fresh_memory: 0,
        })
    }

    /// Whether it is of this engine, and has these bounds.
    fn is_of(&self, runtime: &Arc<Runtime>, bounds: &Bounds) -> bool {
        Arc::ptr_eq(&self.runtime, runtime) && self.bounds == *bounds
    }

    /// What the engine has made of it.
    fn compiled(&self, runtime: &Arc<Runtime>) -> Option<Component> {
        Arc::ptr_eq(&self.runtime, runtime).then(|| self.pre.component().clone())
    }

    /// An instance, held exclusively: a fresh one, or, of a trusted component, one that has served before.
    pub fn take(&self) -> Result<Held<I>, Fault> {
        if self.bounds.trusted
            && let Some(held) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
        {
            return Ok(held);
        }
        self.fresh()
    }

    fn fresh(&self) -> Result<Held<I>, Fault> {
        let mut store = self.runtime.store(&self.bounds);
        self.begin(&mut store);
        match self.place(|| self.pre.instantiate(&mut store)) {
            Ok(instance) => {
                self.meter.made(store.data().memory);
                Ok(Held { store, instance: self.exports.instance(instance) })
            }
            Err(error) if error.is::<Trap>() || store.data().denied.is_some() => Err(self.fault(store.data(), &error)),
            Err(error) => {
                self.meter.failed(Failure::Start);
                let what = format!("cannot be instantiated: {}", cause(&error));
                Err(Fault { component: self.name.clone(), what })
            }
        }
    }

    /// Gives an instance back that has done nothing wrong and holds no resource.
    pub fn give_back(&self, held: Held<I>) {
        if self.bounds.trusted && held.store.data().memory <= self.fresh_memory + IDLE_GROWTH {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.runtime.sandbox.idle && !self.retired.load(Ordering::Relaxed) {
                idle.push(held);
            }
        }
    }

    /// Another component serves in its place: its idle instances are dropped, and no more are kept.
    fn retire(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.retired.store(true, Ordering::Relaxed);
        idle.clear();
    }

    /// A call into one of its instances begins.
    pub fn begin(&self, store: &mut Store<State>) {
        self.runtime.begin(store);
    }

    /// Runs a call of it: where the caller is, or apart from other requests where one has taken all of its time before.
    pub fn place<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.overran.load(Ordering::Relaxed) { apart(call) } else { call() }
    }

    /// Remembers a call that has run out of its time.
    pub fn note(&self, error: &wasmtime::Error) {
        if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
            self.overran.store(true, Ordering::Relaxed);
        }
    }

    /// What went wrong in a call, in words that hold nothing of the request.
    pub fn fault(&self, state: &State, error: &wasmtime::Error) -> Fault {
        self.note(error);
        let trap = error.downcast_ref::<Trap>();
        self.meter.failed(match trap {
            Some(Trap::Interrupt) => Failure::Time,
            _ if state.denied.is_some() => Failure::Memory,
            Some(_) => Failure::Trap,
            None => Failure::Output,
        });
        let what = match (trap, state.denied) {
            (Some(Trap::Interrupt), _) => {
                format!("ran longer than its limit of {} ms for one call", self.bounds.call_time.as_millis())
            }
            (_, Some(Denied::Memory)) => {
                format!("wanted more than its limit of {} MiB of memory", self.bounds.memory_bytes >> 20)
            }
            (_, Some(Denied::Table)) => {
                format!("wanted more than its limit of {} elements in a table", self.bounds.table_elements)
            }
            (Some(trap), None) => {
                let trap = trap.to_string();
                format!("trapped: {}", trap.strip_prefix("wasm trap: ").unwrap_or(&trap))
            }
            (None, None) => format!("returned what cannot be read: {}", cause(error)),
        };
        Fault { component: self.name.clone(), what }
    }
}

/// The innermost reason, which says most.
fn cause(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.chars().take(300).collect()
}

/// The imports of a component, and whether each holds types only.
fn imports(runtime: &Runtime, component: &Component) -> Vec<(String, bool)> {
    let engine = &runtime.engine;
    let types_only = |item: &ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
        }
        _ => false,
    };
    let ty = component.component_type();
    ty.imports(engine).map(|(name, item)| (name.to_owned(), types_only(&item.ty))).collect()
}

/// Finds the functions of an exported interface.
fn find<const N: usize>(
    component: &Component,
    interface: &str,
    names: [&str; N],
) -> Result<[ComponentExportIndex; N], (String, String)> {
    let Some(parent) = component.get_export_index(None, interface) else {
        let engine = component.engine();
        let ty = component.component_type();
        let known: Vec<_> = ty.exports(engine).map(|(name, _)| name).take(16).collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        return Err((interface.to_owned(), format!("it exports {known}")));
    };
    let mut missing = None;
    let found = names.map(|name| {
        let index = component.get_export_index(Some(&parent), name);
        if index.is_none() {
            missing.get_or_insert(name);
        }
        index.unwrap_or(parent)
    });
    match missing {
        None => Ok(found),
        Some(name) => Err((format!("{interface} {name}"), "there is no such function".to_owned())),
    }
}

/// Where an adapter's functions are.
#[derive(Clone, Copy)]
pub(crate) struct AdapterExports {
    pub describe: ComponentExportIndex,
    pub probe: ComponentExportIndex,
    pub encode: ComponentExportIndex,
    pub decoder: ComponentExportIndex,
    pub feed: ComponentExportIndex,
    pub finish: ComponentExportIndex,
}

impl Exports<AdapterInstance> for AdapterExports {
    fn instance(&self, instance: wasmtime::component::Instance) -> AdapterInstance {
        AdapterInstance::new(instance)
    }
}

pub(crate) type AdapterUnit = Unit<AdapterInstance, AdapterExports>;

/// An adapter that has been loaded. Cheap to clone.
#[derive(Clone)]
pub struct AdapterComponent {
    unit: Arc<AdapterUnit>,
    description: Arc<Description>,
}

impl AdapterComponent {
    pub(crate) fn load(runtime: &Arc<Runtime>, name: &str, wasm: Wasm<'_>, bounds: Bounds) -> Result<Self, LoadError> {
        let mut unit =
            Unit::load(runtime, format!("adapter \"{name}\""), wasm, bounds, ADAPTER_IMPORTS, |component| {
                let names = [
                    "describe",
                    "probe",
                    "encode",
                    "[constructor]decoder",
                    "[method]decoder.feed",
                    "[method]decoder.finish",
                ];
                let [describe, probe, encode, decoder, feed, finish] = find(component, CHAT, names)?;
                Ok(AdapterExports { describe, probe, encode, decoder, feed, finish })
            })?;
        let mut held = unit.fresh()?;
        unit.fresh_memory = held.store.data().memory;
        if let Err((export, why)) = AdapterInstance::check(&mut held, &unit.exports) {
            return Err(LoadError::Export {
                component: unit.name,
                export: format!("{CHAT} {export}"),
                why: cause(&why),
            });
        }
        let unit = Arc::new(unit);
        let description = described(&unit, held)?;
        check(&description).map_err(|why| LoadError::Description { component: unit.name.clone(), why })?;
        Ok(AdapterComponent { unit, description: Arc::new(description) })
    }

    /// Whether it is of this engine, and has these bounds.
    pub(crate) fn is_of(&self, runtime: &Arc<Runtime>, bounds: &Bounds) -> bool {
        self.unit.is_of(runtime, bounds)
    }

    /// Whether both are the same, loaded once.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit)
    }

    /// Another one serves in its place.
    pub(crate) fn retire(&self) {
        self.unit.retire();
    }

    /// What it does, and its bounds.
    pub(crate) fn metered(&self) -> (Arc<Meter>, Bounds) {
        (Arc::clone(&self.unit.meter), self.unit.bounds)
    }

    /// What the engine has made of it.
    pub(crate) fn compiled(&self, runtime: &Arc<Runtime>) -> Option<Component> {
        self.unit.compiled(runtime)
    }

    /// An instance for one attempt.
    pub fn session(&self) -> Result<AdapterSession, Fault> {
        Ok(AdapterSession::new(Arc::clone(&self.unit), self.unit.take()?, Arc::clone(&self.description)))
    }

    /// What the adapter says that it is.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.unit.imports
    }

    /// Linear memory of a fresh instance, in bytes.
    pub fn memory(&self) -> usize {
        self.unit.fresh_memory
    }

    /// Whether its instances serve one request after another.
    pub fn is_trusted(&self) -> bool {
        self.unit.bounds.trusted
    }
}

/// Checks a description by the rules of the contract.
pub(crate) fn check(description: &Description) -> Result<(), String> {
    check_identity(&description.id, &description.version)?;
    check_names("operations", &description.operations)?;
    check_names("capabilities", &description.capabilities)?;
    check_names("dialects", &description.dialects)?;
    if !description.operations.iter().any(|operation| operation == "chat" || operation == "completion") {
        return Err("its operations hold neither `chat` nor `completion`".to_owned());
    }
    description.default_endpoint.as_deref().map_or(Ok(()), witgate_config::check_default_endpoint)?;
    check_schema(&description.settings_schema)
}

/// Checks a policy's description by the rules of the contract.
pub(crate) fn check_policy(description: &witgate_model::policy::Description) -> Result<(), String> {
    check_identity(&description.id, &description.version)?;
    check_schema(&description.settings_schema)
}

fn check_identity(id: &str, version: &str) -> Result<(), String> {
    let is_id = |id: &str| {
        id.len() <= 64
            && id.starts_with(|c: char| c.is_ascii_lowercase())
            && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if !is_id(id) {
        let id = clipped(id);
        return Err(format!(
            "its id is {id:?}; it must be letters a-z, digits and hyphens, begin with a letter, at most 64"
        ));
    }
    if !is_name(version) {
        return Err(format!("its version is {:?}; {NAME}", clipped(version)));
    }
    Ok(())
}

/// What a name must be that a component gives: lists show it in a terminal, and logs in a line.
const NAME: &str = "it must be 1 to 64 visible ASCII characters";

/// The most operations, capabilities or dialects of one adapter.
const MAX_NAMES: usize = 64;

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}

fn check_names(what: &str, names: &[String]) -> Result<(), String> {
    if names.len() > MAX_NAMES {
        return Err(format!("it has {} {what}; at most {MAX_NAMES} are allowed", names.len()));
    }
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(format!("one of its {what} is {:?}; {NAME}", clipped(name))),
        None => Ok(()),
    }
}

fn check_schema(schema: &str) -> Result<(), String> {
    match serde_json::from_str::<serde_json::Value>(schema) {
        Ok(schema) if schema.is_object() || schema.is_boolean() => Ok(()),
        Ok(_) => Err("its settings-schema is no JSON Schema: it must be an object".to_owned()),
        Err(error) => Err(format!("its settings-schema is not JSON: {error}")),
    }
}

/// Where a policy's functions are.
#[derive(Clone, Copy)]
pub(crate) struct PolicyExports {
    pub describe: ComponentExportIndex,
    pub on_request: ComponentExportIndex,
    pub watcher: ComponentExportIndex,
    pub feed: ComponentExportIndex,
}

impl Exports<PolicyInstance> for PolicyExports {
    fn instance(&self, instance: wasmtime::component::Instance) -> PolicyInstance {
        PolicyInstance::new(instance)
    }
}

pub(crate) type PolicyUnit = Unit<PolicyInstance, PolicyExports>;

/// A policy that has been loaded. Cheap to clone.
#[derive(Clone)]
pub struct PolicyComponent {
    unit: Arc<PolicyUnit>,
    description: Arc<witgate_model::policy::Description>,
}

impl PolicyComponent {
    pub(crate) fn load(runtime: &Arc<Runtime>, name: &str, wasm: Wasm<'_>, bounds: Bounds) -> Result<Self, LoadError> {
        let mut unit = Unit::load(runtime, format!("policy \"{name}\""), wasm, bounds, POLICY_IMPORTS, |component| {
            let names = ["describe", "on-request", "[constructor]watcher", "[method]watcher.feed"];
            let [describe, on_request, watcher, feed] = find(component, HOOKS, names)?;
            Ok(PolicyExports { describe, on_request, watcher, feed })
        })?;
        let mut held = unit.fresh()?;
        unit.fresh_memory = held.store.data().memory;
        if let Err((export, why)) = PolicyInstance::check(&mut held, &unit.exports) {
            let export = format!("{HOOKS} {export}");
            return Err(LoadError::Export { component: unit.name, export, why: cause(&why) });
        }
        let unit = Arc::new(unit);
        let mut session = PolicySession::new(Arc::clone(&unit), held);
        let description = session.describe()?;
        drop(session);
        check_policy(&description).map_err(|why| LoadError::Description { component: unit.name.clone(), why })?;
        Ok(PolicyComponent { unit, description: Arc::new(description) })
    }

    /// Whether it is of this engine, and has these bounds.
    pub(crate) fn is_of(&self, runtime: &Arc<Runtime>, bounds: &Bounds) -> bool {
        self.unit.is_of(runtime, bounds)
    }

    /// Whether both are the same, loaded once.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit)
    }

    /// Another one serves in its place.
    pub(crate) fn retire(&self) {
        self.unit.retire();
    }

    /// What it does, and its bounds.
    pub(crate) fn metered(&self) -> (Arc<Meter>, Bounds) {
        (Arc::clone(&self.unit.meter), self.unit.bounds)
    }

    /// What the engine has made of it.
    pub(crate) fn compiled(&self, runtime: &Arc<Runtime>) -> Option<Component> {
        self.unit.compiled(runtime)
    }

    /// An instance for one request or one answer.
    pub fn session(&self) -> Result<PolicySession, Fault> {
        Ok(PolicySession::new(Arc::clone(&self.unit), self.unit.take()?))
    }

    /// What the policy says that it is.
    pub fn description(&self) -> &witgate_model::policy::Description {
        &self.description
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.unit.imports
    }

    /// Linear memory of a fresh instance, in bytes.
    pub fn memory(&self) -> usize {
        self.unit.fresh_memory
    }

    /// Whether its instances serve one request after another.
    pub fn is_trusted(&self) -> bool {
        self.unit.bounds.trusted
    }
}

/// Where the normaliser's functions are.
#[derive(Clone, Copy)]
pub(crate) struct NormaliserExports {
    pub routes: ComponentExportIndex,
    pub parse: ComponentExportIndex,
    pub render_error: ComponentExportIndex,
    pub renderer: ComponentExportIndex,
    pub head: ComponentExportIndex,
    pub feed: ComponentExportIndex,
    pub end: ComponentExportIndex,
    pub refuse: ComponentExportIndex,
    pub fail: ComponentExportIndex,
    pub keep_alive: ComponentExportIndex,
}

impl Exports<NormaliserInstance> for NormaliserExports {
    fn instance(&self, instance: wasmtime::component::Instance) -> NormaliserInstance {
        NormaliserInstance::new(instance)
    }
}

pub(crate) type NormaliserUnit = Unit<NormaliserInstance, NormaliserExports>;

/// The normaliser, loaded. Cheap to clone.
#[derive(Clone)]
pub struct NormaliserComponent {
    unit: Arc<NormaliserUnit>,
    routes: Arc<Vec<Route>>,
}

impl NormaliserComponent {
    pub(crate) fn load(runtime: &Arc<Runtime>, wasm: Wasm<'_>, bounds: Bounds) -> Result<Self, LoadError> {
        let mut unit = Unit::load(runtime, "normaliser".to_owned(), wasm, bounds, NORMALISER_IMPORTS, |component| {
            let names = [
                "routes",
                "parse",
                "render-error",
                "[constructor]renderer",
                "[method]renderer.head",
                "[method]renderer.feed",
                "[method]renderer.end",
                "[method]renderer.refuse",
                "[method]renderer.fail",
                "[method]renderer.keep-alive",
            ];
            let [routes, parse, render_error, renderer, head, feed, end, refuse, fail, keep_alive] =
                find(component, DIALECTS, names)?;
            Ok(NormaliserExports { routes, parse, render_error, renderer, head, feed, end, refuse, fail, keep_alive })
        })?;
        let mut held = unit.fresh()?;
        unit.fresh_memory = held.store.data().memory;
        if let Err((export, why)) = NormaliserInstance::check(&mut held, &unit.exports) {
            let export = format!("{DIALECTS} {export}");
            return Err(LoadError::Export { component: unit.name, export, why: cause(&why) });
        }
        let unit = Arc::new(unit);
        let mut session = NormaliserSession::new(Arc::clone(&unit), held);
        let routes = witgate_gateway::Normaliser::routes(&mut session)?;
        Ok(NormaliserComponent { unit, routes: Arc::new(routes) })
    }

    /// Whether it is of this engine, and has these bounds.
    pub(crate) fn is_of(&self, runtime: &Arc<Runtime>, bounds: &Bounds) -> bool {
        self.unit.is_of(runtime, bounds)
    }

    /// Whether both are the same, loaded once.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit)
    }

    /// Another one serves in its place.
    pub(crate) fn retire(&self) {
        self.unit.retire();
    }

    /// What it does, and its bounds.
    pub(crate) fn metered(&self) -> (Arc<Meter>, Bounds) {
        (Arc::clone(&self.unit.meter), self.unit.bounds)
    }

    /// What the engine has made of it.
    pub(crate) fn compiled(&self, runtime: &Arc<Runtime>) -> Option<Component> {
        self.unit.compiled(runtime)
    }

    /// An instance for one request.
    pub fn session(&self) -> Result<NormaliserSession, Fault> {
        Ok(NormaliserSession::new(Arc::clone(&self.unit), self.unit.take()?))
    }

    /// All routes that it serves.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
            id: "mine".to_owned(),
            version: "1.0.0-rc.1+build".to_owned(),
            summary: "Is mine.".to_owned(),
            operations: vec!["chat".to_owned(), "count-tokens".to_owned()],
            capabilities: vec!["json-schema".to_owned()],
            dialects: vec!["openai-chat".to_owned()],
            secrets: Vec::new(),
            settings_schema: "{}".to_owned(),
            default_endpoint: None,
        }
    }

    #[test]
    fn what_a_description_is_listed_by_holds_no_control_characters_and_is_bounded() {
        assert_eq!(check(&description()), Ok(()));
        for bad in ["", "a\u{1b}[2J", "a\nb", "a b", "\u{202e}a", &"a".repeat(65)] {
            let told = check(&Description { version: bad.to_owned(), ..description() }).unwrap_err();
            assert!(told.starts_with("its version is ") && !told.contains('\u{1b}'), "{told}");
            let more = |known: Vec<String>| known.into_iter().chain([bad.to_owned()]).collect::<Vec<_>>();
            let is = description();
            for (what, is) in [
                ("operations", Description { operations: more(is.operations.clone()), ..is.clone() }),
                ("capabilities", Description { capabilities: more(is.capabilities.clone()), ..is.clone() }),
                ("dialects", Description { dialects: more(is.dialects.clone()), ..is.clone() }),
            ] {
                let told = check(&is).unwrap_err();
                let expected = format!("one of its {what} is {:?}; ", clipped(bad));
                assert!(told.starts_with(&expected), "{told}");
            }
        }
        let many = Description { dialects: vec!["a".to_owned(); 65], ..description() };
        assert_eq!(check(&many), Err("it has 65 dialects; at most 64 are allowed".to_owned()));
    }
}
