//! A state store of the program's own, in the place of those that a configuration names.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use witgate_gateway::state::{Charge, Expect, Once, Rule, State, StateError, Taken, Use};

/// Where keys, meters, jobs and kept answers lie: the gateway's [`State`] with futures that may move between threads.
///
/// What each function must do is said there, and `stores/tests/conformance` in the repository holds a store to it. All of
/// them must be bounded in time by the store itself: a call fails with [`StateError`] rather than hang. The functions of
/// [`witgate_gateway::state`] do the counting for a store that has transactions.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use witgate_config::Config;
/// use witgate_host::state::{Charge, Expect, Memory, Once, Rule, State, StateError, Taken, Use};
/// use witgate_host::{Host, StateStore};
///
/// /// Memory that says what is written.
/// struct Told(Memory);
///
/// impl StateStore for Told {
///     async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
///         self.0.get(now, key).await
///     }
///
///     async fn set(
///         &self,
///         now: Duration,
///         key: &str,
///         value: Option<Bytes>,
///         expires: Option<Duration>,
///         expect: Expect<'_>,
///     ) -> Result<bool, StateError> {
///         println!("{key} is set");
///         self.0.set(now, key, value, expires, expect).await
///     }
///
///     async fn list(
///         &self,
///         now: Duration,
///         prefix: &str,
///         after: Option<&str>,
///         limit: usize,
///     ) -> Result<Vec<(String, Bytes)>, StateError> {
///         self.0.list(now, prefix, after, limit).await
///     }
///
///     async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
///         self.0.take(now, id, lease, charges).await
///     }
///
///     async fn settle(
///         &self,
///         now: Duration,
///         id: &str,
///         taken: Duration,
///         uses: &[Use],
///         once: Once,
///     ) -> Result<(), StateError> {
///         self.0.settle(now, id, taken, uses, once).await
///     }
///
///     async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
///         self.0.used(now, meters).await
///     }
/// }
///
/// let host = Host::builder(Config::builtin()).state(Told(Memory::default())).build()?;
/// # Ok::<(), witgate_host::BuildError>(())
/// ```
pub trait StateStore: Send + Sync + 'static {
    /// As [`State::get`].
    fn get(&self, now: Duration, key: &str) -> impl Future<Output = Result<Option<Bytes>, StateError>> + Send;

    /// As [`State::set`].
    fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> impl Future<Output = Result<bool, StateError>> + Send;

    /// As [`State::list`].
    fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(String, Bytes)>, StateError>> + Send;

    /// As [`State::take`].
    fn take(
        &self,
        now: Duration,
        id: &str,
        lease: Duration,
        charges: &[Charge],
    ) -> impl Future<Output = Result<Taken, StateError>> + Send;

    /// As [`State::settle`].
    fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> impl Future<Output = Result<(), StateError>> + Send;

    /// As [`State::used`].
    fn used(
        &self,
        now: Duration,
        meters: &[(Arc<str>, Rule)],
    ) -> impl Future<Output = Result<Vec<u64>, StateError>> + Send;
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StateError>> + Send + 'a>>;

/// [`StateStore`] without its type: one virtual call and one small allocation for each operation.
trait Erased: Send + Sync {
    fn get<'a>(&'a self, now: Duration, key: &'a str) -> Boxed<'a, Option<Bytes>>;
    fn set<'a>(
        &'a self,
        now: Duration,
        key: &'a str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'a>,
    ) -> Boxed<'a, bool>;
    fn list<'a>(
        &'a self,
        now: Duration,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Boxed<'a, Vec<(String, Bytes)>>;
    fn take<'a>(&'a self, now: Duration, id: &'a str, lease: Duration, charges: &'a [Charge]) -> Boxed<'a, Taken>;
    fn settle<'a>(&'a self, now: Duration, id: &'a str, taken: Duration, uses: &'a [Use], once: Once) -> Boxed<'a, ()>;
    fn used<'a>(&'a self, now: Duration, meters: &'a [(Arc<str>, Rule)]) -> Boxed<'a, Vec<u64>>;
}

impl<S: StateStore> Erased for S {
    fn get<'a>(&'a self, now: Duration, key: &'a str) -> Boxed<'a, Option<Bytes>> {
        Box::pin(StateStore::get(self, now, key))
    }

    fn set<'a>(
        &'a self,
        now: Duration,
        key: &'a str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'a>,
    ) -> Boxed<'a, bool> {
        Box::pin(StateStore::set(self, now, key, value, expires, expect))
    }

    fn list<'a>(
        &'a self,
        now: Duration,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Boxed<'a, Vec<(String, Bytes)>> {
        Box::pin(StateStore::list(self, now, prefix, after, limit))
    }

    fn take<'a>(&'a self, now: Duration, id: &'a str, lease: Duration, charges: &'a [Charge]) -> Boxed<'a, Taken> {
        Box::pin(StateStore::take(self, now, id, lease, charges))
    }

    fn settle<'a>(&'a self, now: Duration, id: &'a str, taken: Duration, uses: &'a [Use], once: Once) -> Boxed<'a, ()> {
        Box::pin(StateStore::settle(self, now, id, taken, uses, once))
    }

    fn used<'a>(&'a self, now: Duration, meters: &'a [(Arc<str>, Rule)]) -> Boxed<'a, Vec<u64>> {
        Box::pin(StateStore::used(self, now, meters))
    }
}

/// A [`StateStore`] of any type, as the gateway wants one.
#[derive(Clone)]
pub struct OwnState(Arc<dyn Erased>);

impl OwnState {
    pub(crate) fn new(store: impl StateStore) -> Self {
        OwnState(Arc::new(store))
    }
}

impl State for OwnState {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        self.0.get(now, key).await
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        self.0.set(now, key, value, expires, expect).await
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.0.list(now, prefix, after, limit).await
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.0.take(now, id, lease, charges).await
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.0.settle(now, id, taken, uses, once).await
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.0.used(now, meters).await
    }
}
