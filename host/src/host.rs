//! A host: a configuration, the components that it names, and the gateway over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use witgate_config::{
    AdapterRef, ComponentConfig, ComponentSource, Config, PolicyConfig, PolicySource, Problem, Problems,
};
use witgate_gateway::state::{Either, Memory, State};
use witgate_gateway::{Gateway, Ports, Record, Request, RequestBody, Response};

use crate::builtin;
use crate::cache::digest;
use crate::components::{AdapterComponent, LoadError, NormaliserComponent, PolicyComponent, Wasm};
use crate::embed::{Configuration, Own};
use crate::engine::{Bounds, MEMORIES, MOST_MEMORIES, Runtime, Sandbox};
use crate::meter::Meters;
use crate::native::{AnyAdapter, AnyPolicy};
use crate::ports::{Counted, HostPorts, Parts, Recorder};
use crate::reload::{Home, Refused, Reloaded, Shared};
use crate::server::Server;
use crate::service::Service;
use crate::sources::{Fetched, Kind, Pin, Refusal, Sources, lock_of};

/// The most instances of all components at once.
const MOST_INSTANCES: u32 = 16_384;

/// Makes a [`Host`].
pub struct Builder {
    pub(crate) setup: Setup,
}

/// What stays the same when the configuration is read anew.
pub(crate) struct Setup {
    config: Configuration,
    pub own: Own,
    base: PathBuf,
    sandbox: Sandbox,
    all: bool,
    without_state: bool,
    record: Recorder,
    meters: Arc<Meters>,
    /// The host that this is the setup of.
    pub home: Home,
}

/// All that serves one configuration. Replaced as a whole when the configuration is read anew.
pub(crate) struct Serving {
    pub config: Arc<Config>,
    pub gateway: Arc<Gateway>,
    pub ports: Arc<HostPorts>,
    pub normaliser: NormaliserComponent,
    pub adapters: Vec<LoadedAdapter>,
    pub policies: Vec<LoadedPolicy>,
    pub runtime: Arc<Runtime>,
}

impl Builder {
    /// The folder to which the paths of adapters are relative: that of the configuration file. Without it, the current
    /// folder.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.setup.base = dir.into();
        self
    }

    /// Where compiled components are kept between starts; `None` compiles them each time, which takes seconds. Without
    /// it, [`default_cache_dir`](crate::default_cache_dir).
    pub fn cache_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.setup.sandbox.cache = dir;
        self
    }

    /// Keeps state in memory, whatever the configuration says: for one who only looks.
    pub fn without_state(mut self) -> Self {
        self.setup.without_state = true;
        self
    }

    /// Loads all built-in and all configured adapters, not only those that a provider uses.
    pub fn all_adapters(mut self) -> Self {
        self.setup.all = true;
        self
    }

    /// What is done with the record of each request, when it has ended. Without it, a `tracing` event of the target
    /// `witgate::request`. It is called on the threads that serve: it should not block.
    pub fn on_record(mut self, record: impl Fn(&Record) + Send + Sync + 'static) -> Self {
        self.setup.record = Arc::new(record);
        self
    }

    /// Loads the components and checks the configuration against what they say.
    ///
    /// # Errors
    /// All problems of the configuration: an adapter that cannot be read or used, settings that its schema does not
    /// allow, secrets that it lacks. Or [`BuildError::Engine`] where this machine cannot run components at all.
    pub fn build(self) -> Result<Host, BuildError> {
        let mut setup = self.setup;
        let mut config = setup.config.read(&setup.own, &mut setup.base)?;
        setup.adapt(&mut config);
        let serving = setup.first(config)?;
        Ok(Host { shared: Shared::new(setup, serving) })
    }
}

impl Setup {
    /// What serves a configuration. Of what serves `before` it, all is taken over that is the same, compiled components
    /// and what is known of backends, and all that only one can have: the state store.
    /// None where configuration and components are the same as before.
    pub fn serving(&self, config: Config, before: Option<&Serving>) -> Result<Option<Serving>, BuildError> {
        let wanted = wanted(&config, self.all);
        let sandbox = self.sandbox(&config, &wanted);
        let runtime = match before.filter(|before| before.runtime.holds(&sandbox)) {
            Some(before) => Arc::clone(&before.runtime),
            None => {
                // A few more components can come without another engine.
                let more = u32::try_from(sandbox.idle.saturating_mul(4)).unwrap_or(u32::MAX);
                let sandbox = Sandbox {
                    instances: sandbox.instances.saturating_add(more).min(MOST_INSTANCES),
                    memories: sandbox.memories.saturating_add(more).min(MOST_MEMORIES),
                    ..sandbox
                };
                Runtime::metered(sandbox, Arc::clone(&self.meters))
                    .map_err(|error| BuildError::Engine(error.to_string()))?
            }
        };
        let components = self.load(&config, &runtime, wanted, before)?;
        // One that was given once and for all is the same each time.
        let given = matches!(self.config, Configuration::Read(_));
        let same = |before: &Serving| given || before.config.is_same(&config);
        if before.is_some_and(|before| same(before) && components.are_those_of(before)) {
            return Ok(None);
        }
        self.assemble(config, runtime, components, before).map(Some)
    }

    fn first(&self, config: Config) -> Result<Serving, BuildError> {
        let none = || BuildError::Engine("nothing was loaded".to_owned());
        self.serving(config, None)?.ok_or_else(none)
    }

    /// What the program brings itself counts, whatever the configuration says.
    fn adapt(&self, config: &mut Config) {
        if self.own.state.is_some() {
            config.state.store = witgate_config::Store::Native;
        }
    }

    /// What all components of a configuration together need.
    fn sandbox(&self, config: &Config, wanted: &[Wanted]) -> Sandbox {
        let mut sandbox = self.sandbox.clone();
        let limits = &config.limits;
        // The pool's slots have one size, the largest that any component may have.
        sandbox.memory_bytes =
            wanted.iter().map(|w| w.bounds.memory_bytes).fold(limits.max_instance_memory_bytes, usize::max);
        sandbox.call_time = wanted.iter().map(|w| w.bounds.call_time).fold(limits.adapter_call_timeout, Ord::max);
        sandbox.table_elements =
            wanted.iter().map(|w| w.bounds.table_elements).fold(sandbox.table_elements, usize::max);
        for policy in config.policies.values() {
            sandbox.memory_bytes = sandbox.memory_bytes.max(policy.max_memory_bytes);
            sandbox.table_elements = sandbox.table_elements.max(policy.max_table_elements);
            sandbox.call_time = sandbox.call_time.max(policy.call_timeout);
        }
        // A request holds the normaliser and one adapter; readiness probes and idle instances need some beside.
        let idle = sandbox.idle.saturating_mul(wanted.len() + config.policies.len() + 1);
        // The longest chain of policies, each of which may watch the answer.
        let chains = config.models.values().filter_map(|model| model.policies.as_ref()).chain([&config.policy_chain]);
        let watching = chains.map(Vec::len).max().unwrap_or(0);
        let instances =
            limits.max_concurrent_requests.saturating_mul(2 + watching).saturating_add(idle).saturating_add(64);
        sandbox.instances = u32::try_from(instances).unwrap_or(u32::MAX).min(MOST_INSTANCES);
        // A built-in component has one memory; what others have is not known before they are loaded.
        let most = |own: bool| if own { MEMORIES as usize } else { 1 };
        let of_adapters = wanted.iter().map(|wanted| most(!matches!(wanted.source, Source::Builtin(_))));
        let of_policies =
            config.policies.values().map(|policy| most(matches!(policy.source, PolicySource::Component(_))));
        let all = of_adapters.clone().chain(of_policies.clone()).sum::<usize>() + 1;
        let request = 1 + of_adapters.max().unwrap_or(1) + watching.saturating_mul(of_policies.max().unwrap_or(1));
        let memories = limits
            .max_concurrent_requests
            .saturating_mul(request)
            .saturating_add(sandbox.idle.saturating_mul(all))
            .saturating_add(64 * MEMORIES as usize);
        sandbox.memories = u32::try_from(memories).unwrap_or(u32::MAX).min(MOST_MEMORIES);
        sandbox.cached = sandbox.cached.max(2 * (wanted.len() + config.policies.len() + 1));
        sandbox
    }

    /// Loads the components and checks the configuration against them.
    fn load(
        &self,
        config: &Config,
        runtime: &Arc<Runtime>,
        wanted: Vec<Wanted>,
        before: Option<&Serving>,
    ) -> Result<Components, BuildError> {
        let sources = Sources::open(config, &self.base, self.sandbox.cache.as_deref())
            .map_err(|problem| BuildError::Config(Problems(vec![problem])))?;
        let sources = &sources;
        let bounds = Bounds { trusted: true, ..bounds(config) };
        let known = before.map(|before| before.adapters.as_slice()).unwrap_or_default();
        let (normaliser, loaded) = std::thread::scope(|scope| {
            let threads: Vec<_> =
                wanted.into_iter().map(|wanted| scope.spawn(|| wanted.load(runtime, sources, known))).collect();
            let normaliser = match before.map(|before| &before.normaliser) {
                Some(known) if known.is_of(runtime, &bounds) => Ok(known.clone()),
                known => {
                    let compiled = known.and_then(|known| known.compiled(runtime));
                    NormaliserComponent::load(runtime, Wasm { bytes: builtin::NORMALISER, compiled }, bounds)
                }
            };
            let loaded: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            (normaliser, loaded)
        });
        let mut problems = Vec::new();
        let known = before.map(|before| before.policies.as_slice()).unwrap_or_default();
        let mut policies = Vec::new();
        for (name, policy) in &config.policies {
            let loaded = match &policy.source {
                PolicySource::Native(of) => match self.own.policy(name, of, &config.limits) {
                    Ok(policy) => Ok(LoadedPolicy {
                        name: name.clone(),
                        source: "the program".to_owned(),
                        pin: Pin::BuiltIn,
                        size: 0,
                        digest: String::new(),
                        policy,
                    }),
                    Err(message) => Err(Unloadable { key: format!("policies.{name}"), message, help: None }),
                },
                _ => load_policy(runtime, sources, name, policy, bounds, known),
            };
            match loaded {
                Ok(loaded) => {
                    let schema = &loaded.policy.description().settings_schema;
                    problems.extend(config.check_policy_settings(name, schema));
                    policies.push(loaded);
                }
                Err(Unloadable { key, message, help }) => problems.push(config.problem(&key, message, help)),
            }
        }
        runtime.save();
        let normaliser = normaliser?;
        let mut adapters: Vec<LoadedAdapter> = Vec::new();
        for loaded in loaded {
            match loaded {
                Ok(Ok(adapter)) => adapters.push(adapter),
                Ok(Err(Unloadable { key, message, help })) => problems.push(config.problem(&key, message, help)),
                Err(_) => return Err(BuildError::Engine("loading a component panicked".to_owned())),
            }
        }
        let mut by_provider = BTreeMap::new();
        for (name, provider) in &config.providers {
            let adapter = match &provider.adapter {
                AdapterRef::Native(of) => match self.own.adapter(of, &config.limits) {
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
        Ok(Components { normaliser, adapters, by_provider, policies })
    }

    /// The gateway over the components.
    fn assemble(
        &self,
        config: Config,
        runtime: Arc<Runtime>,
        components: Components,
        before: Option<&Serving>,
    ) -> Result<Serving, BuildError> {
        let Components { normaliser, adapters, by_provider, policies } = components;
        let config = Arc::new(config);
        let routes = normaliser.routes().to_vec();
        let gateway = match before {
            Some(before) => before.gateway.successor(Arc::clone(&config), routes),
            None => Gateway::new(Arc::clone(&config), routes),
        };
        let problems = crate::queues::check(&gateway, &config);
        if !problems.is_empty() {
            return Err(BuildError::Config(Problems(problems)));
        }
        let of_policies = policies.iter().map(|loaded| (loaded.name.clone(), loaded.policy.clone())).collect();
        let counted = counted(&normaliser, &adapters, &policies);
        let parts = Parts { normaliser: normaliser.clone(), adapters: by_provider, policies: of_policies, counted };
        let ports = match before {
            Some(before) => before.ports.successor(&config, &self.base, parts),
            None => {
                // Who only looks takes no file away from the gateway that runs.
                let state = match (self.without_state, &self.own.state) {
                    (true, _) => Either::One(Either::One(Memory::default())),
                    (false, Some(own)) => Either::Other(own.clone()),
                    (false, None) => Either::One(
                        crate::state::open(&config, &self.base)
                            .map_err(|problem| BuildError::Config(Problems(vec![problem])))?,
                    ),
                };
                HostPorts::new(&config, &self.base, parts, state, Arc::clone(&self.record), &self.own, &self.home)
            }
        };
        let (gateway, ports) = (Arc::new(gateway), Arc::new(ports));
        Ok(Serving { config, gateway, ports, normaliser, adapters, policies, runtime })
    }

    /// Reads the configuration anew.
    pub fn read(&self) -> Result<Config, BuildError> {
        let mut config = self.config.read(&self.own, &mut self.base.clone())?;
        self.adapt(&mut config);
        Ok(config)
    }

    /// The files in which a configuration stands, its own one and those of its components.
    pub fn files(&self, config: &Config) -> Vec<PathBuf> {
        let own = self.config.file().map(Path::to_owned);
        let file = |component: &ComponentConfig| match &component.source {
            ComponentSource::Path(path) => Some(self.base.join(path)),
            ComponentSource::Url(_) | ComponentSource::Oci(_) => None,
        };
        let adapters = wanted(config, self.all).into_iter().filter_map(|wanted| match wanted.source {
            Source::File(path) => Some(self.base.join(path)),
            Source::Configured(component) => file(&component),
            Source::Builtin(_) => None,
        });
        let policies = config.policies.values().filter_map(|policy| match &policy.source {
            PolicySource::Component(component) => file(component),
            _ => None,
        });
        // What is pinned may change with the lock file alone.
        let lock = (!config.adapters.is_empty() || !config.policies.is_empty()).then(|| lock_of(config, &self.base));
        own.into_iter().chain(lock).chain(adapters).chain(policies).collect()
    }
}

impl Serving {
    /// `next` serves in its place: no further job is begun here, and of components that `next` does not have no idle
    /// instance is kept.
    pub fn retire(&self, next: &Serving) {
        self.gateway.retire();
        if !self.normaliser.is(&next.normaliser) {
            self.normaliser.retire();
        }
        for loaded in &self.adapters {
            if !next.adapters.iter().any(|other| other.component.is(&loaded.component)) {
                loaded.component.retire();
            }
        }
        let of = |serving: &Serving| -> Vec<PolicyComponent> {
            serving.policies.iter().filter_map(|loaded| loaded.policy.component().cloned()).collect()
        };
        let next = of(next);
        of(self).iter().filter(|own| !next.iter().any(|other| other.is(own))).for_each(PolicyComponent::retire);
    }
}

/// What is counted of each component.
fn counted(normaliser: &NormaliserComponent, adapters: &[LoadedAdapter], policies: &[LoadedPolicy]) -> Vec<Counted> {
    let one = |kind, name: &str, digest: &str, (meter, bounds), calls| Counted {
        kind,
        name: name.to_owned(),
        digest: digest.to_owned(),
        meter,
        bounds,
        calls,
    };
    let own = one("normaliser", "normaliser", &digest(builtin::NORMALISER), normaliser.metered(), ["parse", "feed"]);
    let adapters = adapters
        .iter()
        .map(|of| one("adapter", of.reference.as_str(), &of.digest, of.component.metered(), ["encode", "feed"]));
    let policies = policies.iter().filter_map(|of| {
        let component = of.policy.component()?;
        Some(one("policy", &of.name, &of.digest, component.metered(), ["on-request", "feed"]))
    });
    std::iter::once(own).chain(adapters).chain(policies).collect()
}

/// What a configuration's components are.
struct Components {
    normaliser: NormaliserComponent,
    adapters: Vec<LoadedAdapter>,
    by_provider: BTreeMap<String, AnyAdapter>,
    policies: Vec<LoadedPolicy>,
}

impl Components {
    /// Whether they are those that serve already. What a program brings itself never changes.
    fn are_those_of(&self, before: &Serving) -> bool {
        let adapter = |(own, other): (&LoadedAdapter, &LoadedAdapter)| {
            own.reference == other.reference && own.component.is(&other.component)
        };
        let policy = |(own, other): (&LoadedPolicy, &LoadedPolicy)| {
            let same = match (own.policy.component(), other.policy.component()) {
                (Some(own), Some(other)) => own.is(other),
                (own, other) => own.is_none() && other.is_none(),
            };
            own.name == other.name && same
        };
        self.adapters.len() == before.adapters.len()
            && self.policies.len() == before.policies.len()
            && self.adapters.iter().zip(&before.adapters).all(adapter)
            && self.policies.iter().zip(&before.policies).all(policy)
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
    /// The configuration cannot be made.
    #[error("{0}")]
    Other(String),
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
    /// A file that a provider names itself.
    File(String),
    Configured(ComponentConfig),
}

/// Why a component is not loaded.
struct Unloadable {
    /// The key of the configuration that is at fault.
    key: String,
    message: String,
    help: Option<String>,
}

/// The bounds of a component that sets none of its own.
fn bounds(config: &Config) -> Bounds {
    Bounds {
        memory_bytes: config.limits.max_instance_memory_bytes,
        table_elements: witgate_config::Limits::TABLE_ELEMENTS as usize,
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
                let key = format!("adapters.{name}");
                let (source, bounds) = match config.adapters.get(name) {
                    Some(adapter) => {
                        let bounds = Bounds {
                            memory_bytes: adapter.max_memory_bytes,
                            table_elements: adapter.max_table_elements,
                            call_time: adapter.call_timeout,
                            trusted: adapter.trusted,
                            ..plain
                        };
                        (Source::Configured(adapter.component.clone()), bounds)
                    }
                    None => (Source::File(String::new()), plain),
                };
                Wanted { source, bounds, key, reference }
            }
        })
    });
    wanted.collect()
}

fn load_policy(
    runtime: &Arc<Runtime>,
    sources: &Sources,
    name: &str,
    config: &PolicyConfig,
    bounds: Bounds,
    known: &[LoadedPolicy],
) -> Result<LoadedPolicy, Unloadable> {
    let table = format!("policies.{name}");
    let unloadable = |message| Unloadable { key: table.clone(), message, help: None };
    let (source, wasm, pin) = match &config.source {
        PolicySource::Builtin(of) => {
            let wasm = builtin::POLICIES.iter().find(|(known, _)| known == of).map(|(_, wasm)| *wasm);
            let wasm = wasm.ok_or_else(|| unloadable(format!("no policy \"{of}\" comes with witgate")))?;
            ("built in".to_owned(), std::borrow::Cow::Borrowed(wasm), Pin::BuiltIn)
        }
        PolicySource::Native(of) => return Err(unloadable(format!("the program brings no policy \"{of}\""))),
        PolicySource::Component(component) => {
            let Fetched { bytes, pin, .. } = load(sources, Kind::Policy, name, component)?;
            (component.source.to_string(), bytes.into(), pin)
        }
    };
    let bounds = Bounds {
        memory_bytes: config.max_memory_bytes,
        table_elements: config.max_table_elements,
        call_time: config.call_timeout,
        trusted: config.trusted,
        ..bounds
    };
    let digest = digest(&wasm);
    let known = || {
        known.iter().filter(|known| known.digest == digest).filter_map(|known| match &known.policy {
            AnyPolicy::Component(component) => Some((known, component)),
            AnyPolicy::Native(_) => None,
        })
    };
    if let Some((same, _)) = known().find(|(known, component)| known.name == name && component.is_of(runtime, &bounds))
    {
        return Ok(LoadedPolicy { source, pin, ..same.clone() });
    }
    let compiled = known().find_map(|(_, component)| component.compiled(runtime));
    let component = PolicyComponent::load(runtime, name, Wasm { bytes: &wasm, compiled }, bounds);
    let component = component.map_err(|error| unloadable(error.to_string()))?;
    let policy = AnyPolicy::Component(component);
    Ok(LoadedPolicy { name: name.to_owned(), source, pin, size: wasm.len(), digest, policy })
}

/// The component of a name in the configuration.
fn load(sources: &Sources, kind: Kind, name: &str, component: &ComponentConfig) -> Result<Fetched, Unloadable> {
    sources.load(kind, name, component).map_err(|Refusal { key, message, help }| Unloadable {
        key: format!("{}.{name}.{key}", kind.table()),
        message,
        help,
    })
}

impl Wanted {
    /// What is `known` already is not compiled again.
    fn load(
        self,
        runtime: &Arc<Runtime>,
        sources: &Sources,
        known: &[LoadedAdapter],
    ) -> Result<LoadedAdapter, Unloadable> {
        let name = self.reference.as_str();
        let (source, wasm, pin) = match self.source {
            Source::Builtin(wasm) => ("built in".to_owned(), std::borrow::Cow::Borrowed(wasm), Pin::BuiltIn),
            Source::File(path) => {
                let source = ComponentSource::Path(path);
                let fetched = sources.fetch(&source, false, None);
                let fetched = fetched.map_err(|message| Unloadable { key: self.key.clone(), message, help: None })?;
                (source.to_string(), fetched.bytes.into(), Pin::Nothing)
            }
            Source::Configured(component) => {
                let Fetched { bytes, pin, .. } = load(sources, Kind::Adapter, name, &component)?;
                (component.source.to_string(), bytes.into(), pin)
            }
        };
        let digest = digest(&wasm);
        let known = known.iter().filter(|known| known.digest == digest);
        let component = match known
            .clone()
            .find(|known| known.reference == self.reference && known.component.is_of(runtime, &self.bounds))
        {
            Some(same) => same.component.clone(),
            None => {
                let compiled = known.clone().find_map(|known| known.component.compiled(runtime));
                AdapterComponent::load(runtime, name, Wasm { bytes: &wasm, compiled }, self.bounds)
                    .map_err(|error| Unloadable { key: self.key, message: error.to_string(), help: None })?
            }
        };
        Ok(LoadedAdapter { digest, size: wasm.len(), pin, component, source, reference: self.reference })
    }
}

/// An adapter that a host has loaded.
#[derive(Clone)]
pub struct LoadedAdapter {
    /// How the configuration refers to it.
    pub reference: AdapterRef,
    /// `built in`, or where the component comes from, as the configuration has it.
    pub source: String,
    /// What holds it to its bytes.
    pub pin: Pin,
    /// The component's bytes, how many.
    pub size: usize,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The adapter itself.
    pub component: AdapterComponent,
}

/// A policy that a host has loaded.
#[derive(Clone)]
pub struct LoadedPolicy {
    /// As the configuration names it.
    pub name: String,
    /// `built in`, `the program`, or where the component comes from, as the configuration has it.
    pub source: String,
    /// What holds it to its bytes.
    pub pin: Pin,
    /// The component's bytes, how many; 0 where the program brings it.
    pub size: usize,
    /// SHA-256 of the component, in hexadecimal; empty where the program brings it.
    pub digest: String,
    pub(crate) policy: AnyPolicy,
}

impl LoadedPolicy {
    /// What it says of itself.
    pub fn description(&self) -> &witgate_model::policy::Description {
        self.policy.description()
    }

    /// The component, where it is one.
    pub fn component(&self) -> Option<&PolicyComponent> {
        self.policy.component()
    }
}

/// The gateway with all that it needs, ready to serve.
pub struct Host {
    shared: Arc<Shared>,
}

impl Host {
    /// Begins a host for a configuration.
    pub fn builder(config: Config) -> Builder {
        Host::begin(Configuration::Read(Box::new(config)))
    }

    pub(crate) fn begin(config: Configuration) -> Builder {
        Builder {
            setup: Setup {
                config,
                own: Own::default(),
                base: PathBuf::new(),
                sandbox: Sandbox::default(),
                all: false,
                without_state: false,
                record: Arc::new(crate::log::request),
                meters: Arc::default(),
                home: Home::default(),
            },
        }
    }

    /// Whether the state store can be used: its file, or the server that it is. Changes nothing.
    pub async fn check_state(&self) -> Result<(), Problem> {
        let serving = self.shared.serving();
        if !matches!(serving.config.state.store, witgate_config::Store::Native) {
            return crate::state::check(&serving.config, &self.shared.setup.base).await;
        }
        // A store of the program's own: a question that finds nothing.
        let ports = &serving.ports;
        let asked = State::get(ports.state(), ports.unix_time(), "check").await;
        asked.map(drop).map_err(|error| serving.config.problem("state", error.0, None))
    }

    /// Serves one request, without a server. Dropping the future, or the stream in its answer, cancels what it does.
    pub async fn handle<B: RequestBody>(&self, request: Request<B>) -> Response<impl Stream<Item = Bytes> + use<B>> {
        let serving = self.shared.serving();
        serving.gateway.handle(&serving.ports, request).await
    }

    /// Reads the configuration anew, with its components, and serves it from the next request on. Requests that run end on
    /// the one before; connections, state, jobs, counters and what is known of backends stay. Where the configuration was
    /// given as a [`Config`] or a text, only the files of its components can have changed. To be called in a Tokio runtime.
    ///
    /// # Errors
    /// All that is wrong with it, or that cannot change while the gateway runs: `server.listen`, `server.threads`, the
    /// state store, and how many answers are kept for how long. Then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, Refused> {
        self.shared.reload().await
    }

    /// A service that answers HTTP requests, to be mounted in a server of one's own. Clone it rather than ask for another:
    /// it probes endpoints that rest, runs jobs and looks for changes of the configuration, from now on where a Tokio
    /// runtime runs, else from the first request on.
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.shared))
    }

    /// Begins the end, for a program that ends its own server: `/ready` answers 503 from now on, and no further job is
    /// begun. Requests are still answered.
    pub fn drain(&self) {
        self.shared.serving().gateway.drain();
    }

    /// How many requests run.
    pub fn in_flight(&self) -> usize {
        self.shared.serving().gateway.in_flight()
    }

    /// Takes the port that the configuration names.
    ///
    /// # Errors
    /// Where the address is not this machine's, or is in use.
    pub async fn bind(&self) -> std::io::Result<Server> {
        Server::bind(Arc::clone(&self.shared)).await
    }

    /// The configuration that is served now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.serving().config)
    }

    /// The adapters that are loaded now.
    pub fn adapters(&self) -> Vec<LoadedAdapter> {
        self.shared.serving().adapters.clone()
    }

    /// The policies that are loaded now.
    pub fn policies(&self) -> Vec<LoadedPolicy> {
        self.shared.serving().policies.clone()
    }

    /// The normaliser.
    pub fn normaliser(&self) -> NormaliserComponent {
        self.shared.serving().normaliser.clone()
    }

    /// Components found compiled in the cache, and components compiled, by the engine that runs now. `None` where there is
    /// no cache.
    pub fn cached(&self) -> Option<(usize, usize)> {
        self.shared.serving().runtime.cached()
    }
}
