//! What the gateway needs of the world, on a machine of one's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use witgate_config::Config;
use witgate_gateway::state::Either;
use witgate_gateway::{
    Document, DocumentRef, Fault, Ports, Record, TransportError, UpstreamRequest, UpstreamResponse, Warning, Work,
};
use witgate_stores::Store;

use crate::components::NormaliserComponent;
use crate::credentials::AwsCredentials;
use crate::documents::Documents;
use crate::embed::{Own, Watcher};
use crate::instances::NormaliserSession;
use crate::native::{AnyAdapter, AnyAdapterSession, AnyPolicy, AnyPolicySession};
use crate::own_state::OwnState;
use crate::upstream::{Body, Upstream};

/// The host's side of the gateway: components in wasmtime, pooled connections, the machine's clock.
pub struct HostPorts {
    normaliser: NormaliserComponent,
    /// By the provider's name.
    adapters: BTreeMap<String, AnyAdapter>,
    /// By their names in the configuration.
    policies: BTreeMap<String, AnyPolicy>,
    upstream: Upstream,
    aws: AwsCredentials,
    documents: Documents,
    state: Either<Store, OwnState>,
    record: Recorder,
    warn: Watcher,
    start: Instant,
}

/// What is done with the record of a request.
pub(crate) type Recorder = Box<dyn Fn(&Record) + Send + Sync>;

impl HostPorts {
    pub(crate) fn new(
        config: &Config,
        base: &Path,
        normaliser: NormaliserComponent,
        adapters: BTreeMap<String, AnyAdapter>,
        policies: BTreeMap<String, AnyPolicy>,
        state: Either<Store, OwnState>,
        record: Recorder,
        own: &Own,
    ) -> Self {
        let upstream = Upstream::new(config, own.client.clone());
        let documents = Documents::new(&config.documents, base);
        let aws = AwsCredentials::default();
        let (warn, start) = (Arc::clone(&own.warn), Instant::now());
        HostPorts { normaliser, adapters, policies, upstream, aws, documents, state, record, warn, start }
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

    fn record(&self, record: &Record) {
        (self.record)(record);
    }

    fn warn(&self, warning: &Warning<'_>) {
        (self.warn)(warning);
    }
}
