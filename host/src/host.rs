//! A host: a configuration, the components that it names, and the gateway over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use witgate_config::{AdapterRef, Config, Problems};
use witgate_gateway::{Gateway, Record, Request, RequestBody, Response};

use crate::builtin;
use crate::cache::digest;
use crate::components::{AdapterComponent, LoadError, NormaliserComponent};
use crate::engine::{Bounds, Runtime, Sandbox};
use crate::ports::{HostPorts, Recorder};
use crate::server::Server;

/// Makes a [`Host`].
pub struct Builder {
    config: Config,
    base: PathBuf,
    sandbox: Sandbox,
    all: bool,
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
        let config = self.config;
        let wanted = wanted(&config, self.all);
        let limits = &config.limits;
        // The pool's slots have one size, the largest that any component may have.
        self.sandbox.memory_bytes =
            wanted.iter().map(|w| w.bounds.memory_bytes).fold(limits.max_instance_memory_bytes, usize::max);
        self.sandbox.call_time = wanted.iter().map(|w| w.bounds.call_time).fold(limits.adapter_call_timeout, Ord::max);
        // A request holds the normaliser and one adapter; readiness probes and idle instances need some beside.
        let idle = self.sandbox.idle.saturating_mul(wanted.len() + 1);
        let instances = limits.max_concurrent_requests.saturating_mul(2).saturating_add(idle).saturating_add(64);
        self.sandbox.instances = u32::try_from(instances).unwrap_or(u32::MAX).min(16_384);
        self.sandbox.cached = self.sandbox.cached.max(2 * (wanted.len() + 1));
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
        runtime.save();
        let normaliser = normaliser?;
        let mut problems = Vec::new();
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
            let Some(loaded) = adapters.iter().find(|loaded| loaded.reference == provider.adapter) else { continue };
            let description = loaded.component.description();
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
            by_provider.insert(name.clone(), loaded.component.clone());
        }
        if !problems.is_empty() {
            problems.sort();
            return Err(BuildError::Config(Problems(problems)));
        }
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), normaliser.routes().to_vec()));
        let ports = Arc::new(HostPorts::new(&config, &self.base, normaliser.clone(), by_provider, self.record));
        Ok(Host { config, gateway, ports, normaliser, adapters, runtime })
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
    let wanted = references.into_iter().map(|(reference, key)| match &reference {
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
    });
    wanted.collect()
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
}

impl Host {
    /// Begins a host for a configuration.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            base: PathBuf::new(),
            sandbox: Sandbox::default(),
            all: false,
            record: Box::new(crate::log::request),
        }
    }

    /// Serves one request, without a server. Dropping the future, or the stream in its answer, cancels what it does.
    pub async fn handle<B: RequestBody>(&self, request: Request<B>) -> Response<impl Stream<Item = Bytes> + use<B>> {
        self.gateway.handle(&self.ports, request).await
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
