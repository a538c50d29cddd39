//! Runs any component of an adapter or a policy against its contract: `witgate conformance FILE.wasm`. Which of them it is,
//! its export tells.
//!
//! What is checked of an adapter, area by area:
//!
//! | area | what |
//! |---|---|
//! | `component` | it is one, imports nothing but types, exports `chat` with the contract's types, describes itself validly |
//! | `settings` | its schema can be used, and allows the settings of this run |
//! | `describe`, `probe` | they are constant; the probe is a request that the gateway would send |
//! | `encode` | every canonical request (`tests/fixtures/requests`), streamed and not: accepted with a request that the gateway would send and a slot of its own, or refused by name |
//! | `silence` | what was asked for reaches the backend, or is refused: nothing is left out without a word |
//! | `purity` | the same request gives the same result, in an instance that has served others and in a fresh one |
//! | `answers` | the author's samples: the events' order, an end, what the sample says it should give |
//! | `splits` | wherever the network cuts a sample, its events are the same |
//! | `cut-off` | a sample that ends early is no success |
//! | `errors` | statuses with bodies of JSON, HTML and none become the kinds on which the gateway acts |
//! | `garbage` | what is no answer fails, in order |
//! | `limits` | large requests and answers stay within memory and time |
//!
//! And of a policy:
//!
//! | area | what |
//! |---|---|
//! | `component`, `settings`, `describe` | as of an adapter; it exports `hooks` |
//! | `requests` | every canonical request: a decision that the contract allows, and a request in it that is still one; or a refusal with a message |
//! | `purity` | the same request, and the same answer, give the same, in an instance that has served others and in a fresh one |
//! | `order` | what goes on of answers of all kinds is in the contract's order, and a tool call's arguments in it stay JSON |
//! | `held` | what is held back is at most 65,536 bytes, told to the byte, and let go at a block's end |
//! | `end` | an answer's end goes on at once, a failure as the failure that it was; `failed` is what stops an answer |
//! | `splits` | the events of an answer give the same in any grouping, and its text the same however the backend cuts it |
//! | `limits` | large requests and answers stay within memory and time |
//! | `samples` | what the author's samples should become, they do |
//!
//! In every area a trap, a call over its limits or a result that cannot be read is a failure. How a body is cut into
//! frames is the gateway's own doing, so a cut at any byte comes to a cut between two frames: all of these are tried.

mod answers;
mod encoding;
pub(crate) mod kind;
mod policy;
mod policy_samples;
mod report;
mod requests;
mod samples;
mod watchers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use witgate_config::{AdapterRef, Config, Provider};
use witgate_gateway::{Adapter as _, Fault};
use witgate_model::Description;

use crate::components::{AdapterComponent, LoadError, NormaliserComponent, PolicyComponent};
use crate::engine::{Bounds, Runtime, Sandbox};
use crate::instances::AdapterSession;
use crate::sources::Kind;

use policy::PolicyRun;

pub use report::{Area, Finding, Report};
pub use samples::SampleError;

/// What a run is given beside the component.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The settings of the provider, or of the policy, a JSON object: `{}`.
    pub settings: String,
    /// The model that requests name: `test-model`.
    pub model: String,
    /// A folder of answers of the backend; for a policy, of requests and answers.
    pub samples: Option<PathBuf>,
    /// Where compiled components are kept.
    pub cache_dir: Option<PathBuf>,
    /// What the component may use: as adapters that a configuration says no more of.
    pub bounds: Bounds,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            settings: "{}".to_owned(),
            model: "test-model".to_owned(),
            samples: None,
            cache_dir: crate::cache::default_dir(),
            bounds: Bounds::default(),
        }
    }
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConformanceError {
    /// The component's file.
    #[error("cannot read {}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The settings of the run.
    #[error("the settings are no JSON object: {0}; write e.g. '{{\"region\": \"eu-west-1\"}}'")]
    Settings(String),
    /// The folder of samples.
    #[error(transparent)]
    Samples(#[from] SampleError),
    /// The component, where [`Plugin::load`] was to load it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// wasmtime, or a component of our own.
    #[error("components cannot run on this machine: {0}")]
    Engine(String),
}

/// A component that has been loaded by itself.
#[derive(Clone)]
#[non_exhaustive]
pub enum Plugin {
    /// An adapter.
    Adapter(AdapterComponent),
    /// A policy.
    Policy(PolicyComponent),
}

impl Plugin {
    /// Loads the component in `file` as a run does: untrusted, within the bounds of the options.
    ///
    /// # Errors
    /// A file that cannot be read, a machine without wasmtime, a component that breaks its contract so far that it cannot
    /// be loaded.
    pub fn load(file: &Path, options: &Options) -> Result<Self, ConformanceError> {
        let (wasm, runtime) = (read(file)?, runtime(options)?);
        let plugin = load(&runtime, file, &wasm, options.bounds);
        runtime.save();
        Ok(plugin?)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ConformanceError> {
    crate::sources::read(file).map_err(|error| ConformanceError::File { file: file.to_owned(), error })
}

fn engine(error: &dyn std::fmt::Display) -> ConformanceError {
    ConformanceError::Engine(error.to_string())
}

fn runtime(options: &Options) -> Result<Arc<Runtime>, ConformanceError> {
    let (bounds, plain) = (options.bounds, Sandbox::default());
    // The normaliser runs in it too.
    let sandbox = Sandbox {
        memory_bytes: bounds.memory_bytes.max(plain.memory_bytes),
        table_elements: bounds.table_elements.max(plain.table_elements),
        call_time: bounds.call_time,
        instances: 64,
        cache: options.cache_dir.clone(),
        ..plain
    };
    Runtime::new(sandbox).map_err(|error| engine(&error))
}

fn load(runtime: &Arc<Runtime>, file: &Path, wasm: &[u8], bounds: Bounds) -> Result<Plugin, LoadError> {
    let (name, bounds) = (file.display().to_string(), Bounds { trusted: false, ..bounds });
    Ok(match kind::kind(wasm) {
        Kind::Adapter => Plugin::Adapter(AdapterComponent::load(runtime, &name, wasm.into(), bounds)?),
        Kind::Policy => Plugin::Policy(PolicyComponent::load(runtime, &name, wasm.into(), bounds)?),
    })
}

/// Checks the component in `file`.
///
/// # Errors
/// Where nothing can be checked: a file that cannot be read, settings that are no object, samples that make no sense.
/// What is wrong with the component stands in the report.
pub fn run(file: &Path, options: &Options) -> Result<Report, ConformanceError> {
    let wasm = read(file)?;
    let settings: serde_json::Value =
        serde_json::from_str(&options.settings).map_err(|error| ConformanceError::Settings(error.to_string()))?;
    if !settings.is_object() {
        return Err(ConformanceError::Settings("it is another value".to_owned()));
    }
    let runtime = runtime(options)?;
    let own = Bounds { trusted: true, ..Bounds::default() };
    let normaliser =
        NormaliserComponent::load(&runtime, crate::builtin::NORMALISER.into(), own).map_err(|error| engine(&error))?;
    let (mut samples, mut policy_samples) = (Vec::new(), Vec::new());
    match (&options.samples, kind::kind(&wasm)) {
        (Some(folder), Kind::Adapter) => samples = samples::read(folder)?,
        (Some(folder), Kind::Policy) => policy_samples = policy_samples::read(folder, &normaliser, &options.model)?,
        (None, _) => {}
    }

    let mut report = Report::new(file, &wasm);
    let component = load(&runtime, file, &wasm, options.bounds);
    runtime.save();
    let component = match component {
        Ok(component) => component,
        Err(error) => {
            report.fail(Area::Component, "load", error.to_string(), advice(&error));
            return Ok(report);
        }
    };
    report.pass(Area::Component);
    let canonical = requests::canonical(&normaliser, &options.model).map_err(|error| engine(&error))?;
    Ok(match component {
        Plugin::Adapter(component) => {
            report.adapter = Some(component.description().clone());
            let mut run = Run { component, options, report };
            if run.settings(settings) {
                run.describe();
                run.probe();
                let basics = run.encoding(&canonical);
                run.answers(&basics, &samples);
                run.measure(&canonical);
            }
            run.report
        }
        Plugin::Policy(component) => {
            report.policy = Some(component.description().clone());
            let text = options.settings.as_str().into();
            let mut run = PolicyRun { component, options, settings: text, report };
            run.all(settings, &canonical, &policy_samples);
            run.report
        }
    })
}

/// What would be right, where a component cannot even be loaded.
fn advice(error: &LoadError) -> &'static str {
    match error {
        LoadError::NoComponent { .. } => {
            "a component: in Rust, link for wasm32-unknown-unknown with `wasm-component-ld`; elsewhere `wasm-tools \
             component new` makes one of a core module"
        }
        LoadError::Import { .. } => {
            "a component that imports nothing but types: Rust's target wasm32-unknown-unknown; `--stub-wasi` of \
             componentize-py and of componentize-qjs"
        }
        LoadError::Export { .. } => {
            "an export of witgate:adapter/chat@0.1.0 as docs/adapter-contract.md has it, or of witgate:policy/hooks@0.1.0 \
             as docs/policy-contract.md does"
        }
        LoadError::Fault(_) => "a `describe` that returns: it is called once before anything else",
        LoadError::Description { .. } => "a description as docs/adapter-contract.md, or docs/policy-contract.md, says",
    }
}

/// One run.
struct Run<'a> {
    component: AdapterComponent,
    options: &'a Options,
    report: Report,
}

impl Run<'_> {
    /// A fresh instance.
    fn session(&mut self, area: Area, case: &str) -> Option<AdapterSession> {
        let session = self.component.session();
        self.report.held(area, case, session)
    }

    /// Makes a call, and notes what it took.
    fn call<T>(
        &mut self,
        area: Area,
        case: &str,
        session: &mut AdapterSession,
        call: impl FnOnce(&mut AdapterSession) -> Result<T, Fault>,
    ) -> Option<T> {
        self.report.call(area, case, session, call)
    }

    /// Checks the schema, and the run's settings by it. False where nothing more can be asked.
    fn settings(&mut self, settings: serde_json::Value) -> bool {
        let mut config = Config::builtin();
        let name = "conformance";
        let adapter = AdapterRef::Path(self.report.file.clone());
        config.providers.insert(name.to_owned(), Provider { settings, ..Provider::new(name, adapter) });
        let problems = config.check_settings(name, &self.component.description().settings_schema);
        self.report.settings(&problems, ("providers.conformance", "providers.conformance.adapter"))
    }

    fn describe(&mut self) {
        let known = self.component.description().clone();
        if let Some(mut session) = self.session(Area::Describe, "again") {
            for case in ["in another instance", "twice in one instance"] {
                let Some(again) = self.call(Area::Describe, case, &mut session, |s| s.describe()) else { return };
                let right = "the same description whenever it is asked";
                self.report.check(Area::Describe, case, again == known, "the description differs", right);
            }
        }
        self.report.identity(&known.version, &known.summary);
        for (case, problem, right) in description_problems(&known) {
            self.report.fail(Area::Describe, case, problem, right);
        }
    }

    fn probe(&mut self) {
        let Some(mut session) = self.session(Area::Probe, "probe") else { return };
        let settings = self.options.settings.clone();
        let ask = |s: &mut AdapterSession| s.probe(&settings);
        let Some(first) = self.call(Area::Probe, "probe", &mut session, ask) else { return };
        let Some(again) = self.call(Area::Probe, "twice", &mut session, ask) else { return };
        self.report.check(Area::Probe, "twice", first == again, "two probes differ", "the same request each time");
        match first {
            Ok(Some(http)) => self.http(Area::Probe, "probe", http, false),
            Ok(None) => self.report.pass(Area::Probe),
            Err(error) => {
                let right = "a request or `none`: these settings match the schema";
                self.report.fail(Area::Probe, "probe", format!("it failed: {}", error.message), right);
            }
        }
    }

    /// What an instance and a call cost.
    fn measure(&mut self, canonical: &[requests::Canonical]) {
        let mut instances: Vec<Duration> = Vec::new();
        let mut calls: Vec<Duration> = Vec::new();
        let text = canonical.iter().find(|request| request.name == "text").map(|request| Arc::clone(&request.request));
        for _ in 0..9 {
            let begun = Instant::now();
            let Ok(mut session) = self.component.session() else { return };
            instances.push(begun.elapsed());
            if let Some(text) = &text
                && session.encode(&self.options.settings, text).is_ok()
            {
                // The first call of an instance is another thing: it touches its memory.
                let begun = Instant::now();
                if session.encode(&self.options.settings, text).is_ok() {
                    calls.push(begun.elapsed());
                }
            }
        }
        self.report.instance = median(&mut instances);
        self.report.call = median(&mut calls);
    }
}

/// The time in the middle.
fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort();
    times.get(times.len() / 2).copied()
}

/// The operations that a description may name.
const OPERATIONS: [&str; 5] = ["chat", "completion", "embedding", "count-tokens", "models"];

/// What is wrong with a description that could be loaded.
fn description_problems(is: &Description) -> Vec<(&'static str, String, &'static str)> {
    let mut found = Vec::new();
    for operation in is.operations.iter().filter(|operation| !OPERATIONS.contains(&operation.as_str())) {
        let right = "chat, completion, embedding, count-tokens, models";
        found.push(("operations", format!("there is no operation {operation:?}"), right));
    }
    for (at, slot) in is.secrets.iter().enumerate() {
        let named = !slot.name.is_empty()
            && slot.name.len() <= 64
            && slot.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !named || is.secrets.iter().take(at).any(|other| other.name == slot.name) {
            let right = "names of a-z, 0-9 and _, each once: they are keys of the configuration, as api_key";
            found.push(("secrets", format!("the secret slot {:?} cannot be configured", slot.name), right));
        }
        if slot.description.trim().is_empty() {
            found.push(("secrets", format!("the slot {:?} has no description", slot.name), "what the secret is"));
        }
    }
    if let Some(endpoint) = &is.default_endpoint
        && !["http://", "https://", "stub:"].iter().any(|scheme| endpoint.starts_with(scheme))
    {
        let right = "a URL that begins with http:// or https://, or none";
        found.push(("default-endpoint", format!("the default endpoint is {endpoint:?}"), right));
    }
    found
}
