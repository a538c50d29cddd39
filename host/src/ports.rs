//! What the gateway needs of the world, on a machine of one's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use witgate_config::Config;
use witgate_gateway::{
    Document, DocumentRef, Fault, Ports, Record, TransportError, UpstreamRequest, UpstreamResponse, Warning, Work,
};
use witgate_stores::Store;

use crate::components::{AdapterComponent, NormaliserComponent, PolicyComponent};
use crate::credentials::AwsCredentials;
use crate::documents::Documents;
use crate::instances::{AdapterSession, NormaliserSession, PolicySession};
use crate::upstream::{Body, Upstream};

/// The host's side of the gateway: components in wasmtime, pooled connections, the machine's clock.
pub struct HostPorts {
    normaliser: NormaliserComponent,
    /// By the provider's name.
    adapters: BTreeMap<String, AdapterComponent>,
    /// By their names in the configuration.
    policies: BTreeMap<String, PolicyComponent>,
    upstream: Upstream,
    aws: AwsCredentials,
    documents: Documents,
    state: Store,
    record: Recorder,
    start: Instant,
}

/// What is done with the record of a request.
pub(crate) type Recorder = Box<dyn Fn(&Record) + Send + Sync>;

impl HostPorts {
    pub(crate) fn new(
        config: &Config,
        base: &Path,
        normaliser: NormaliserComponent,
        adapters: BTreeMap<String, AdapterComponent>,
        policies: BTreeMap<String, PolicyComponent>,
        state: Store,
        record: Recorder,
    ) -> Self {
        let upstream = Upstream::new(config);
        let documents = Documents::new(&config.documents, base);
        let aws = AwsCredentials::default();
        HostPorts { normaliser, adapters, policies, upstream, aws, documents, state, record, start: Instant::now() }
    }
}

impl Ports for HostPorts {
    type Normaliser = NormaliserSession;
    type Adapter = AdapterSession;
    type Policy = PolicySession;
    type Body = Body;
    type State = Store;

    fn normaliser(&self) -> Result<NormaliserSession, Fault> {
        self.normaliser.session()
    }

    fn adapter(&self, provider: &str) -> Result<AdapterSession, Fault> {
        match self.adapters.get(provider) {
            Some(adapter) => adapter.session(),
            None => Err(Fault {
                component: format!("the adapter of provider \"{provider}\""),
                what: "is not loaded".to_owned(),
            }),
        }
    }

    fn policy(&self, name: &str) -> Result<PolicySession, Fault> {
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

    fn state(&self) -> &Store {
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

    fn record(&self, record: &Record) {
        (self.record)(record);
    }

    fn warn(&self, warning: &Warning<'_>) {
        crate::log::warning(warning);
    }
}
