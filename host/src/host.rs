//! A host: a configuration, the components that it names, and the gateway over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use witgate_config::{AdapterRef, Config, PolicyConfig, PolicySource, Problem, Problems};
use witgate_gateway::state::{Either, Memory, State};
use witgate_gateway::{Gateway, Ports, Record, Request, RequestBody, Response};

use crate::builtin;
use crate::cache::digest;
use crate::components::{AdapterComponent, LoadError, NormaliserComponent, PolicyComponent};
use crate::embed::{Configuration, Own};
use crate::engine::{Bounds, Runtime, Sandbox};
use crate::native::{AnyAdapter, AnyPolicy};
use crate::ports::{HostPorts, Recorder};
use crate::server::Server;
use crate::service::Service;

/// Makes a [`Host`].
pub struct Builder {
    config: Configuration,
    pub(crate) own: Own,
    base: PathBuf,
    sandbox: Sandbox,
    all: bool,
    without_state: bool,
    record: Recorder,
}

impl Builder {
    /// The folder to which the paths of adapters are relative: that of the configuration file. Without it, the current
    /// folder.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base = dir.into();
        self
    }

    /// Where compiled components are kept between starts; `None` compiles them each time, which takes seconds. Without
    /// it, [`default_cache_dir`](crate::default_cache_dir).
    pub fn cache_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.sandbox.cache = dir;
        self
    }

    /// Keeps state in memory, whatever the configuration says: for one who only looks.
    pub fn without_state(mut self) -> Self {
        self.without_state = true;
        self
    }

    /// Loads all built-in and all configured adapters, not only those that a provider uses.
    pub fn all_adapters(mut self) -> Self {
        self.all = true;
        self
    }

    /// What is done with the record of each request, when it has ended. Without it, a `tracing` event of the target
    /// `witgate::request`. It is called on the threads that serve: it should not block.
    pub fn on_record(mut self, record: impl Fn(&Record) + Send + Sync + 'static) -> Self {
        self.record = Box::new(record);
        self
    }

    /// Loads the components and checks the configuration against what they say.
    ///
    /// # Errors
    /// All problems of the configuration: an adapter that cannot be read or used, settings that its schema does not
    /// allow, secrets that it lacks. Or [`BuildError::Engine`] where this machine cannot run components at all.
    pub fn build(mut self) -> Result<Host, BuildError> {
        let mut config = self.config.read(&self.own, &mut self.base)?;
        if self.own.state.is_some() {
            config.state.store = witgate_config::Store::Native;
        }
        let wanted = wanted(&config, self.all);
        let limits = &config.limits;
        // The pool's slots have one size, the largest that any component may have.
        self.sandbox.memory_bytes =
            wanted.iter().map(|w| w.bounds.memory_bytes).fold(limits.max_instance_memory_bytes, usize::max);
        self.sandbox.call_time = wanted.iter().map(|w| w.bounds.call_time).fold(limits.adapter_call_timeout, Ord::max);
        for policy in config.policies.values() {
            self.sandbox.memory_bytes = self.sandbox.memory_bytes.max(policy.max_memory_bytes);
            self.sandbox.call_time = self.sandbox.call_time.max(policy.call_timeout);
        }
        // A request holds the normaliser and one adapter; readiness probes and idle instances need some beside.
        let idle = self.sandbox.idle.saturating_mul(wanted.len() + config.policies.len() + 1);
        // The longest chain of policies, each of which may watch the answer.
        let chains = config.models.values().filter_map(|model| model.policies.as_ref()).chain([&config.policy_chain]);
        let watching = chains.map(Vec::len).max().unwrap_or(0);
        let instances =
            limits.max_concurrent_requests.saturating_mul(2 + watching).saturating_add(idle).saturating_add(64);
        self.sandbox.instances = u32::try_from(instances).unwrap_or(u32::MAX).min(16_384);
        self.sandbox.cached = self.sandbox.cached.max(2 * (wanted.len() + config.policies.len() + 1));
        let runtime = Runtime::new(self.sandbox).map_err(|error| BuildError::Engine(error.to_string()))?;

        let base = &self.base;
        let bounds = Bounds { trusted: true, ..bounds(&config) };
        let (normaliser, loaded) = std::thread::scope(|scope| {
            let threads: Vec<_> =
                wanted.into_iter().map(|wanted| scope.spawn(|| wanted.load(&runtime, base))).collect();
            let normaliser = NormaliserComponent::load(&runtime, builtin::NORMALISER, bounds);
            let loaded: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            (normaliser, loaded)
        });
        let mut problems = Vec::new();
        let mut policies = BTreeMap::new();
        for (name, policy) in &config.policies {
            let loaded = match &policy.source {
                PolicySource::Native(of) => self.own.policy(name, of, limits),
                _ => load_policy(&runtime, base, name, policy, bounds).map(AnyPolicy::Component),
            };
            match loaded {
                Ok(policy) => {
                    problems.extend(config.check_policy_settings(name, &policy.description().settings_schema));
                    policies.insert(name.clone(), policy);
                }
                Err(message) => problems.push(config.problem(&format!("policies.{name}"), message, None)),
            }
        }
        runtime.save();
        let normaliser = normaliser?;
        let mut adapters: Vec<LoadedAdapter> = Vec::new();
        for loaded in loaded {
            match loaded {
                Ok(Ok(adapter)) => adapters.push(adapter),
                Ok(Err((key, message))) => problems.push(config.problem(&key, message, None)),
                Err(_) => return Err(BuildError::Engine("loading a component panicked".to_owned())),
            }
        }
        let mut by_provider = BTreeMap::new();
        for (name, provider) in &config.providers {
            let adapter = match &provider.adapter {
                AdapterRef::Native(of) => match self.own.adapter(of, limits) {
                    Ok(adapter) => adapter,
                    Err(message) => {
                        problems.push(config.problem(&format!("providers.{name}.adapter"), message, None));
                        continue;
                    }
                },
                reference => match adapters.iter().find(|loaded| loaded.reference == *reference) {
                    Some(loaded) => AnyAdapter::Component(loaded.component.clone()),
                    None => continue,
                },
            };
            let description = adapter.description();
            problems.extend(config.check_settings(name, &description.settings_schema));
            let slots: Vec<_> = description.secrets.iter().map(|slot| (slot.name.as_str(), slot.required)).collect();
            problems.extend(config.check_secrets(name, &slots));
            if provider.endpoints.is_empty() && description.default_endpoint.is_none() {
                problems.push(config.problem(
                    &format!("providers.{name}"),
                    format!("no endpoint, and the adapter \"{}\" has no default", provider.adapter.as_str()),
                    Some("write endpoint = \"http://host:port\"".to_owned()),
                ));
            }
            by_provider.insert(name.clone(), adapter);
        }
        if !problems.is_empty() {
            problems.sort();
            return Err(BuildError::Config(Problems(problems)));
        }
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), normaliser.routes().to_vec()));
        let problems = crate::queues::check(&gateway, &config);
        if !problems.is_empty() {
            return Err(BuildError::Config(Problems(problems)));
        }
        // Who only looks takes no file away from the gateway that runs.
        let state = match self.without_state {
            true => Either::One(Either::One(Memory::default())),
            false => match &self.own.state {
                Some(own) => Either::Other(own.clone()),
                None => Either::One(
                    crate::state::open(&config, &self.base)
                        .map_err(|problem| BuildError::Config(Problems(vec![problem])))?,
                ),
            },
        };
        let ports = HostPorts::new(
            &config,
            &self.base,
            normaliser.clone(),
            by_provider,
            policies,
            state,
            self.record,
            &self.own,
        );
        let (ports, base) = (Arc::new(ports), self.base);
        Ok(Host { config, gateway, ports, normaliser, adapters, runtime, base })
    }
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration has these problems.
    #[error(transparent)]
    Config(Problems),
    /// The built-in normaliser cannot be used: the program was built wrongly.
    #[error("the built-in normaliser cannot be used: {0}")]
    Normaliser(#[from] LoadError),
    /// wasmtime cannot run here.
    #[error("components cannot run on this machine: {0}")]
    Engine(String),
    /// The configuration's file cannot be read.
    #[error("cannot read the configuration {}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// An adapter to load.
struct Wanted {
    reference: AdapterRef,
    /// Where the configuration names it.
    key: String,
    source: Source,
    bounds: Bounds,
}

enum Source {
    Builtin(&'static [u8]),
    File(String),
}

/// The bounds of a component that sets none of its own.
fn bounds(config: &Config) -> Bounds {
    Bounds {
        memory_bytes: config.limits.max_instance_memory_bytes,
        call_time: config.limits.adapter_call_timeout,
        events_per_frame: config.limits.max_events_per_frame,
        trusted: false,
    }
}

/// The adapters that the configuration uses, each once; with `all`, those too that it does not.
fn wanted(config: &Config, all: bool) -> Vec<Wanted> {
    let mut references: Vec<(AdapterRef, String)> = Vec::new();
    for (name, provider) in &config.providers {
        if !references.iter().any(|(reference, _)| *reference == provider.adapter) {
            references.push((provider.adapter.clone(), format!("providers.{name}.adapter")));
        }
    }
    if all {
        let builtin = builtin::ADAPTERS.iter().map(|(name, _)| AdapterRef::Builtin((*name).to_owned()));
        let configured = config.adapters.keys().map(|name| AdapterRef::Configured(name.clone()));
        for reference in builtin.chain(configured) {
            if !references.iter().any(|(known, _)| *known == reference) {
                references.push((reference, String::new()));
            }
        }
    }
    let plain = bounds(config);
    let wanted = references.into_iter().filter_map(|(reference, key)| {
        Some(match &reference {
            AdapterRef::Native(_) => return None,
            AdapterRef::Builtin(name) => {
                let wasm = builtin::ADAPTERS.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, wasm)| wasm);
                Wanted { source: Source::Builtin(wasm), bounds: Bounds { trusted: true, ..plain }, key, reference }
            }
            AdapterRef::Path(path) => Wanted { source: Source::File(path.clone()), bounds: plain, key, reference },
            AdapterRef::Configured(name) => {
                let key = format!("adapters.{name}.path");
                let (path, bounds) = match config.adapters.get(name) {
                    Some(adapter) => {
                        let bounds = Bounds {
                            memory_bytes: adapter.max_memory_bytes,
                            call_time: adapter.call_timeout,
                            trusted: adapter.trusted,
                            ..plain
                        };
                        (adapter.path.clone(), bounds)
                    }
                    None => (String::new(), plain),
                };
                Wanted { source: Source::File(path), bounds, key, reference }
            }
        })
    });
    wanted.collect()
}

/// The error says what is wrong with it.
fn load_policy(
    runtime: &Arc<Runtime>,
    base: &Path,
    name: &str,
    config: &PolicyConfig,
    bounds: Bounds,
) -> Result<PolicyComponent, String> {
    let wasm = match &config.source {
        PolicySource::Builtin(of) => {
            let wasm = builtin::POLICIES.iter().find(|(known, _)| known == of).map(|(_, wasm)| *wasm);
            std::borrow::Cow::Borrowed(wasm.ok_or_else(|| format!("no policy \"{of}\" comes with witgate"))?)
        }
        PolicySource::Native(of) => return Err(format!("the program brings no policy \"{of}\"")),
        PolicySource::Path(path) => {
            let file = base.join(path);
            read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?.into()
        }
    };
    let bounds = Bounds {
        memory_bytes: config.max_memory_bytes,
        call_time: config.call_timeout,
        trusted: config.trusted,
        ..bounds
    };
    PolicyComponent::load(runtime, name, &wasm, bounds).map_err(|error| error.to_string())
}

/// The largest component file, in bytes.
const MAX_COMPONENT: u64 = 256 * 1024 * 1024;

impl Wanted {
    /// The error is the configuration's key and what is wrong with it.
    fn load(self, runtime: &Arc<Runtime>, base: &Path) -> Result<LoadedAdapter, (String, String)> {
        let name = self.reference.as_str();
        let (source, wasm) = match self.source {
            Source::Builtin(wasm) => ("built in".to_owned(), std::borrow::Cow::Borrowed(wasm)),
            Source::File(path) => {
                let file = base.join(&path);
                let wasm = read(&file)
                    .map_err(|error| (self.key.clone(), format!("cannot read {}: {error}", file.display())))?;
                (file.display().to_string(), wasm.into())
            }
        };
        let component =
            AdapterComponent::load(runtime, name, &wasm, self.bounds).map_err(|error| (self.key, error.to_string()))?;
        Ok(LoadedAdapter { digest: digest(&wasm), component, source, reference: self.reference })
    }
}

/// The bytes of a component's file.
pub(crate) fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let length = std::fs::metadata(file)?.len();
    if length > MAX_COMPONENT {
        let message = format!("it has {length} bytes; at most {MAX_COMPONENT} are allowed");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    std::fs::read(file)
}

/// An adapter that a host has loaded.
#[derive(Clone)]
pub struct LoadedAdapter {
    /// How the configuration refers to it.
    pub reference: AdapterRef,
    /// `built in`, or the component's file.
    pub source: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The adapter itself.
    pub component: AdapterComponent,
}

/// The gateway with all that it needs, ready to serve.
pub struct Host {
    config: Arc<Config>,
    gateway: Arc<Gateway>,
    ports: Arc<HostPorts>,
    normaliser: NormaliserComponent,
    adapters: Vec<LoadedAdapter>,
    runtime: Arc<Runtime>,
    base: PathBuf,
}

impl Host {
    /// Begins a host for a configuration.
    pub fn builder(config: Config) -> Builder {
        Host::begin(Configuration::Read(Box::new(config)))
    }

    pub(crate) fn begin(config: Configuration) -> Builder {
        Builder {
            config,
            own: Own::default(),
            base: PathBuf::new(),
            sandbox: Sandbox::default(),
            all: false,
            without_state: false,
            record: Box::new(crate::log::request),
        }
    }

    /// Whether the state store can be used: its file, or the server that it is. Changes nothing.
    pub async fn check_state(&self) -> Result<(), Problem> {
        if !matches!(self.config.state.store, witgate_config::Store::Native) {
            return crate::state::check(&self.config, &self.base).await;
        }
        // A store of the program's own: a question that finds nothing.
        let asked = State::get(self.ports.state(), self.ports.unix_time(), "check").await;
        asked.map(drop).map_err(|error| self.config.problem("state", error.0, None))
    }

    /// Serves one request, without a server. Dropping the future, or the stream in its answer, cancels what it does.
    pub async fn handle<B: RequestBody>(&self, request: Request<B>) -> Response<impl Stream<Item = Bytes> + use<B>> {
        self.gateway.handle(&self.ports, request).await
    }

    /// A service that answers HTTP requests, to be mounted in a server of one's own. Clone it rather than ask for another:
    /// it probes endpoints that rest and runs jobs, from now on where a Tokio runtime runs, else from the first request on.
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.gateway), Arc::clone(&self.ports))
    }

    /// Begins the end, for a program that ends its own server: `/ready` answers 503 from now on, and no further job is
    /// begun. Requests are still answered.
    pub fn drain(&self) {
        self.gateway.drain();
    }

    /// How many requests run.
    pub fn in_flight(&self) -> usize {
        self.gateway.in_flight()
    }

    /// Takes the port that the configuration names.
    ///
    /// # Errors
    /// Where the address is not this machine's, or is in use.
    pub async fn bind(&self) -> std::io::Result<Server> {
        Server::bind(Arc::clone(&self.gateway), Arc::clone(&self.ports), &self.config).await
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The adapters that are loaded.
    pub fn adapters(&self) -> &[LoadedAdapter] {
        &self.adapters
    }

    /// The normaliser.
    pub fn normaliser(&self) -> &NormaliserComponent {
        &self.normaliser
    }

    /// Components found compiled in the cache, and components compiled by this host. `None` where there is no cache.
    pub fn cached(&self) -> Option<(usize, usize)> {
        self.runtime.cached()
    }
}
