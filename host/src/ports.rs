//! What the gateway needs of the world, on a machine of one's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use witgate_config::Config;
use witgate_gateway::state::Either;
use witgate_gateway::{
    ComponentState, ConfigurationState, Document, DocumentRef, Fault, Ports, Record, Reload, TransportError,
    UpstreamRequest, UpstreamResponse, Warning, Work,
};
use witgate_stores::Store;

use crate::components::NormaliserComponent;
use crate::credentials::AwsCredentials;
use crate::documents::Documents;
use crate::embed::{Own, Watcher};
use crate::engine::Bounds;
use crate::instances::NormaliserSession;
use crate::meter::Meter;
use crate::native::{AnyAdapter, AnyAdapterSession, AnyPolicy, AnyPolicySession};
use crate::own_state::OwnState;
use crate::reload::Home;
use crate::upstream::{Body, Upstream};

/// The host's side of the gateway: components in wasmtime, pooled connections, the machine's clock.
pub struct HostPorts {
    normaliser: NormaliserComponent,
    /// By the provider's name.
    adapters: BTreeMap<String, AnyAdapter>,
    /// By their names in the configuration.
    policies: BTreeMap<String, AnyPolicy>,
    upstream: Upstream,
    aws: Arc<AwsCredentials>,
    documents: Documents,
    state: Arc<Either<Store, OwnState>>,
    record: Recorder,
    warn: Watcher,
    start: Instant,
    counted: Vec<Counted>,
    home: Home,
}

/// What is done with the record of a request.
pub(crate) type Recorder = Arc<dyn Fn(&Record) + Send + Sync>;

/// The components behind the ports.
pub(crate) struct Parts {
    pub normaliser: NormaliserComponent,
    /// By the provider's name.
    pub adapters: BTreeMap<String, AnyAdapter>,
    /// By their names in the configuration.
    pub policies: BTreeMap<String, AnyPolicy>,
    /// What they do, each once.
    pub counted: Vec<Counted>,
}

/// A component that is counted.
pub(crate) struct Counted {
    pub kind: &'static str,
    pub name: String,
    /// SHA-256, in hexadecimal.
    pub digest: String,
    pub meter: Arc<Meter>,
    pub bounds: Bounds,
    /// What its calls are called.
    pub calls: [&'static str; 2],
}

impl Counted {
    fn state(&self) -> ComponentState {
        let Counted { meter, bounds, .. } = self;
        ComponentState {
            kind: self.kind.to_owned(),
            name: self.name.clone(),
            digest: self.digest.clone(),
            calls: meter.calls(self.calls),
            failures: meter.failures(),
            refusals: meter.refusals(),
            instances: meter.instances(),
            memory_peak: meter.memory_peak(),
            memory_limit: bounds.memory_bytes as u64,
            table_limit: bounds.table_elements as u64,
            call_time: bounds.call_time,
        }
    }
}

impl HostPorts {
    pub(crate) fn new(
        config: &Config,
        base: &Path,
        parts: Parts,
        state: Either<Store, OwnState>,
        record: Recorder,
        own: &Own,
        home: &Home,
    ) -> Self {
        let Parts { normaliser, adapters, policies, counted } = parts;
        HostPorts {
            normaliser,
            adapters,
            policies,
            upstream: Upstream::new(config, own.client.clone()),
            aws: Arc::default(),
            documents: Documents::new(&config.documents, base),
            state: Arc::new(state),
            record,
            warn: Arc::clone(&own.warn),
            start: Instant::now(),
            counted,
            home: Arc::clone(home),
        }
    }

    /// The ports that take these ones' place when the configuration is read anew: over the same state store, the same
    /// connections, the same kept answers, the same clock.
    pub(crate) fn successor(&self, config: &Config, base: &Path, parts: Parts) -> Self {
        let Parts { normaliser, adapters, policies, counted } = parts;
        HostPorts {
            normaliser,
            adapters,
            policies,
            upstream: self.upstream.successor(config),
            aws: Arc::clone(&self.aws),
            documents: self.documents.successor(&config.documents, base),
            state: Arc::clone(&self.state),
            record: Arc::clone(&self.record),
            warn: Arc::clone(&self.warn),
            start: self.start,
            counted,
            home: Arc::clone(&self.home),
        }
    }
}

impl Ports for HostPorts {
    type Normaliser = NormaliserSession;
    type Adapter = AnyAdapterSession;
    type Policy = AnyPolicySession;
    type Body = Body;
    type State = Either<Store, OwnState>;

    fn normaliser(&self) -> Result<NormaliserSession, Fault> {
        self.normaliser.session()
    }

    fn adapter(&self, provider: &str) -> Result<AnyAdapterSession, Fault> {
        match self.adapters.get(provider) {
            Some(adapter) => adapter.session(),
            None => Err(Fault {
                component: format!("the adapter of provider \"{provider}\""),
                what: "is not loaded".to_owned(),
            }),
        }
    }

    fn policy(&self, name: &str) -> Result<AnyPolicySession, Fault> {
        match self.policies.get(name) {
            Some(policy) => policy.session(),
            None => Err(Fault { component: format!("policy \"{name}\""), what: "is not loaded".to_owned() }),
        }
    }

    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<Body>, TransportError> {
        self.upstream.send(request).await
    }

    async fn credentials(&self, _: &str) -> Result<Credentials, String> {
        self.aws.get().await
    }

    async fn document(&self, at: &DocumentRef) -> Result<Option<String>, String> {
        self.documents.get(at).await
    }

    async fn keep(&self, document: Document) -> Result<(), String> {
        self.documents.keep(document)
    }

    fn state(&self) -> &Either<Store, OwnState> {
        &self.state
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    async fn sleep_until(&self, deadline: Duration) {
        match self.start.checked_add(deadline) {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // The ids need not be secret; they only have to differ.
            use std::hash::{BuildHasher, RandomState};
            let half = || u128::from(RandomState::new().hash_one(self.start.elapsed()));
            return (half() << 64) | half();
        }
        u128::from_le_bytes(bytes)
    }

    fn secret(&self) -> Result<[u8; 32], String> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn after(self: &Arc<Self>, work: Work) {
        let ports = Arc::clone(self);
        let mut work = Box::pin(async move { work.run(ports.as_ref()).await });
        // State in memory is there at once: a task for it would cost more than the work.
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }

    fn components(&self) -> Vec<ComponentState> {
        self.counted.iter().map(Counted::state).collect()
    }

    fn configuration(&self) -> Option<ConfigurationState> {
        Some(self.home.get()?.upgrade()?.configuration())
    }

    async fn reload(&self) -> Reload {
        match self.home.get().and_then(Weak::upgrade) {
            Some(shared) => crate::reload::told(shared.reload().await),
            None => Reload::Unsupported,
        }
    }

    fn record(&self, record: &Record) {
        (self.record)(record);
    }

    fn warn(&self, warning: &Warning<'_>) {
        (self.warn)(warning);
    }
}
