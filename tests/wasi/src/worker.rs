//! Instances of the component, and what they may reach.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime::{Store, StoreContextMut, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::Log;
use crate::keyvalue::{Data, View};
use crate::net::Hooks;

/// An instance that nobody needs is kept this long.
const IDLE: Duration = Duration::from_secs(1);

/// What every instance is made of.
pub struct State {
    pub pre: ServicePre<Host>,
    pub folder: PathBuf,
    pub variables: Arc<BTreeMap<String, String>>,
    pub plain: bool,
    pub timeout: Option<Duration>,
    pub max_memory: Option<usize>,
    pub allowed: Arc<BTreeSet<String>>,
    pub keyvalue: Data,
    pub max_concurrent: usize,
    pub max_requests: usize,
    pub log: Log,
}

/// What one instance has.
pub struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: Hooks,
    variables: Arc<BTreeMap<String, String>>,
    keyvalue: Data,
    limits: StoreLimits,
}

impl Host {
    /// What it has of the key-value store.
    pub fn keyvalue(&mut self) -> View<'_> {
        View { data: &self.keyvalue, table: &mut self.table }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl crate::store::wasi::config::store::Host for Host {
    fn get(&mut self, key: String) -> Result<Option<String>, crate::store::wasi::config::store::Error> {
        Ok(self.variables.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, crate::store::wasi::config::store::Error> {
        Ok(self.variables.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl HandlerState for State {
    type StoreData = Host;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiration, Worker>> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stderr(self.log.clone());
        if self.plain {
            for (name, value) in self.variables.iter() {
                wasi.env(name.to_ascii_uppercase(), value);
            }
        }
        wasi.preopened_dir(&self.folder, "/", FsPerms::ReadOnly)?;
        let host = Host {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            http: WasiHttpCtx::new(),
            hooks: Hooks { allowed: Arc::clone(&self.allowed) },
            variables: Arc::clone(&self.variables),
            keyvalue: Arc::clone(&self.keyvalue),
            limits: StoreLimitsBuilder::new().memory_size(self.max_memory.unwrap_or(usize::MAX)).build(),
        };
        let mut store = Store::new(self.pre.engine(), host);
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = Proxy::P3(self.pre.instantiate_async(&mut store).await?);
        Ok(Instance {
            store,
            proxy,
            view: Host::http,
            expiration: Expiration { sleep: Box::pin(tokio::time::sleep(IDLE)), timeout: self.timeout },
            state: Worker { max_concurrent: self.max_concurrent, max_requests: self.max_requests },
        })
    }
}

/// When an instance has idled, or a request has taken, long enough.
pub struct Expiration {
    sleep: Pin<Box<Sleep>>,
    timeout: Option<Duration>,
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, status: WorkerStatus, start: Instant) -> Poll<()> {
        let longest = match status {
            WorkerStatus::Idle => Some(IDLE),
            WorkerStatus::Requests => self.timeout,
            WorkerStatus::PostReturn => None,
        };
        let Some(longest) = longest else { return Poll::Pending };
        let deadline = tokio::time::Instant::from_std(start + longest);
        if deadline != self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// How many requests an instance takes.
pub struct Worker {
    max_concurrent: usize,
    max_requests: usize,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = ();

    fn should_accept_request(&self, concurrent_count: usize, total_count: usize) -> ShouldAccept {
        if total_count >= self.max_requests {
            ShouldAccept::Never
        } else if concurrent_count >= self.max_concurrent {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Host>,
        (): (),
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, store: Store<Host>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            eprintln!("witgate-wasi-serve: an instance failed: {error:?}");
        }
        drop(store);
    }
}

/// Has an instance serve a request.
pub async fn handle(
    handler: ProxyHandler<State>,
    mut request: http::Request<Incoming>,
) -> Result<http::Response<WasiBody>, std::convert::Infallible> {
    // Guests see an absolute URL, its authority from the header.
    let authority = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost").to_owned();
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = authority.parse().ok();
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    let request = request.map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync());
    Ok(handler.handle((), request).await.unwrap_or_else(|error| {
        eprintln!("witgate-wasi-serve: a request failed: {error:?}");
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let mut response = http::Response::new(body);
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Log {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
