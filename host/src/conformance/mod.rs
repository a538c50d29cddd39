//! Runs any adapter component against the contract: `witgate conformance FILE.wasm`.
//!
//! What is checked, area by area:
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
//! In every area a trap, a call over its limits or a result that cannot be read is a failure. How a body is cut into
//! frames is the gateway's own doing, so a cut at any byte comes to a cut between two frames: all of these are tried.

mod answers;
mod encoding;
mod report;
mod requests;
mod samples;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use witgate_config::{AdapterRef, Config, Provider};
use witgate_gateway::{Adapter as _, Fault};
use witgate_model::Description;

use crate::components::{AdapterComponent, LoadError, NormaliserComponent};
use crate::engine::{Bounds, Runtime, Sandbox};
use crate::instances::AdapterSession;

pub use report::{Area, Finding, Report};
pub use samples::SampleError;

/// What a run is given beside the component.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The provider's settings, a JSON object: `{}`.
    pub settings: String,
    /// The model that requests name: `test-model`.
    pub model: String,
    /// A folder of answers of the backend.
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
    /// wasmtime, or a component of our own.
    #[error("components cannot run on this machine: {0}")]
    Engine(String),
}

/// Checks the component in `file`.
///
/// # Errors
/// Where nothing can be checked: a file that cannot be read, settings that are no object, samples that make no sense.
/// What is wrong with the component stands in the report.
pub fn run(file: &Path, options: &Options) -> Result<Report, ConformanceError> {
    let wasm = crate::host::read(file).map_err(|error| ConformanceError::File { file: file.to_owned(), error })?;
    let settings: serde_json::Value =
        serde_json::from_str(&options.settings).map_err(|error| ConformanceError::Settings(error.to_string()))?;
    if !settings.is_object() {
        return Err(ConformanceError::Settings("it is another value".to_owned()));
    }
    let samples = match &options.samples {
        Some(folder) => samples::read(folder)?,
        None => Vec::new(),
    };
    let sandbox = Sandbox {
        memory_bytes: options.bounds.memory_bytes,
        call_time: options.bounds.call_time,
        instances: 64,
        cache: options.cache_dir.clone(),
        ..Sandbox::default()
    };
    let engine = |error: &dyn std::fmt::Display| ConformanceError::Engine(error.to_string());
    let runtime = Runtime::new(sandbox).map_err(|error| engine(&error))?;
    let own = Bounds { trusted: true, ..Bounds::default() };
    let normaliser =
        NormaliserComponent::load(&runtime, crate::builtin::NORMALISER.into(), own).map_err(|error| engine(&error))?;

    let mut report = Report::new(file, &wasm);
    let bounds = Bounds { trusted: false, ..options.bounds };
    let component = AdapterComponent::load(&runtime, &file.display().to_string(), wasm.as_slice().into(), bounds);
    runtime.save();
    let component = match component {
        Ok(component) => component,
        Err(error) => {
            report.fail(Area::Component, "load", error.to_string(), advice(&error));
            return Ok(report);
        }
    };
    report.pass(Area::Component);
    report.adapter = Some(component.description().clone());
    let canonical = requests::canonical(&normaliser, &options.model).map_err(|error| engine(&error))?;
    let mut run = Run { component, options, report };
    if run.settings(settings) {
        run.describe();
        run.probe();
        let basics = run.encoding(&canonical);
        run.answers(&basics, &samples);
        run.measure(&canonical);
    }
    Ok(run.report)
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
        LoadError::Export { .. } => "an export of witgate:adapter/chat@0.1.0 as docs/adapter-contract.md has it",
        LoadError::Fault(_) => "a `describe` that returns: it is called once before anything else",
        LoadError::Description { .. } => "a description as docs/adapter-contract.md says",
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
        self.held(area, case, session)
    }

    /// The result of a call; a fault is a failure of the adapter.
    fn held<T>(&mut self, area: Area, case: &str, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                let right = "a result for every input: an error where there is nothing better, and neither a trap nor a \
                             panic nor an exception";
                self.report.fail(area, case, format!("it {}", fault.what), right);
                None
            }
        }
    }

    /// Makes a call, and notes how long it took and what memory the instance has then.
    fn call<T>(
        &mut self,
        area: Area,
        case: &str,
        session: &mut AdapterSession,
        call: impl FnOnce(&mut AdapterSession) -> Result<T, Fault>,
    ) -> Option<T> {
        let begun = Instant::now();
        let result = call(session);
        self.report.slowest(case, begun.elapsed());
        self.report.memory_bytes = self.report.memory_bytes.max(session.memory());
        self.held(area, case, result)
    }

    /// Checks the schema, and the run's settings by it. False where nothing more can be asked.
    fn settings(&mut self, settings: serde_json::Value) -> bool {
        let mut config = Config::builtin();
        let name = "conformance";
        let adapter = AdapterRef::Path(self.report.file.clone());
        config.providers.insert(name.to_owned(), Provider { settings, ..Provider::new(name, adapter) });
        let problems = config.check_settings(name, &self.component.description().settings_schema);
        for problem in &problems {
            let right = if problem.key.ends_with(".adapter") {
                "a settings-schema that is a JSON Schema (2020-12) of an object".to_owned()
            } else {
                let help = problem.help.as_deref().unwrap_or("settings as the adapter's schema has them");
                format!("{help}; `--settings '{{…}}'` gives them to this run")
            };
            let key = problem.key.trim_start_matches("providers.conformance.");
            self.report.fail(Area::Settings, key, problem.message.clone(), &right);
        }
        if problems.is_empty() {
            self.report.pass(Area::Settings);
        }
        problems.is_empty()
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
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times.get(times.len() / 2).copied()
        };
        self.report.instance = median(&mut instances);
        self.report.encode = median(&mut calls);
    }
}

/// The operations that a description may name.
const OPERATIONS: [&str; 5] = ["chat", "completion", "embedding", "count-tokens", "models"];

/// What is wrong with a description that could be loaded.
fn description_problems(is: &Description) -> Vec<(&'static str, String, &'static str)> {
    let mut found = Vec::new();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let core = is.version.split(['-', '+']).next().unwrap_or_default();
    if core.split('.').count() != 3 || !core.split('.').all(number) {
        found.push(("version", format!("the version is {:?}", is.version), "a semantic version, as 1.0.0"));
    }
    if is.summary.trim().is_empty() {
        found.push(("summary", "the summary is empty".to_owned(), "one sentence for people"));
    }
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
