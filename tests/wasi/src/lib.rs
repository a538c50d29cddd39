//! Serves a composed gateway in wasmtime's own `wasi:http` handler, the one that Spin and `wasmtime serve` stand on, with
//! Spin's defaults: 16 requests at once and 128 in all per instance, which idles for at most a second.
//!
//! The component gets what a Spin component of `spin.toml` gets and no more: its configuration file at `/witgate.toml`, read
//! only; variables over `wasi:config/store`; a key-value store; outgoing HTTP to the hosts that its configuration names; clocks, random numbers,
//! standard error. No environment, no other file, no sockets.
//!
//! [`Options::plain`] is a host that knows nothing of Spin: neither variables nor a key-value store are there to import, as
//! with `wasmtime serve`; variables are the environment's.

mod keyvalue;
mod net;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::error::Context as _;
use wasmtime::{Cache, CacheConfig, Result};
use wasmtime::{Config, Engine};
use wasmtime_wasi_http::handler::ProxyHandler;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::keyvalue::{Data, HasView};
use crate::worker::{Host, State};

/// What to serve, and how.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The configuration's text, mounted as `/witgate.toml`; none mounts nothing.
    pub config: Option<String>,
    /// Variables, names in lower case.
    pub variables: BTreeMap<String, String>,
    /// Hosts that may be called (`host` or `host:port`), beside those that the configuration and the variables name.
    pub allow: Vec<String>,
    /// The most requests that an instance serves at once, from 1.
    pub max_concurrent: usize,
    /// The most requests that an instance serves in all, from 1.
    pub max_requests: usize,
    /// Where the component's standard error goes.
    pub log: Log,
    /// Gives no variables and no key-value store: variables are those of the environment, names in capitals.
    pub plain: bool,
    /// The longest that a request may take to its head, as `wasmtime serve -W timeout` bounds it. None: for ever.
    pub timeout: Option<Duration>,
    /// The most bytes of one linear memory, as `wasmtime serve -W max-memory-size` bounds it. None: 4 GiB.
    pub max_memory: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            config: None,
            variables: BTreeMap::new(),
            allow: Vec::new(),
            max_concurrent: 16,
            max_requests: 128,
            log: Log::Inherit,
            plain: false,
            timeout: None,
            max_memory: None,
        }
    }
}

/// Where the component's standard error goes.
#[derive(Clone, Default)]
pub enum Log {
    /// To that of this process.
    #[default]
    Inherit,
    /// Here, for a test to read.
    Memory(Arc<Mutex<Vec<u8>>>),
}

/// An engine for [`Served`] components.
///
/// `cache`: an absolute path of a folder where compiled components are kept; without it each compile takes its seconds.
pub fn engine(cache: Option<PathBuf>) -> Result<Engine> {
    let mut config = Config::new();
    if let Some(folder) = cache {
        let mut cache = CacheConfig::new();
        cache.with_directory(folder);
        config.cache(Some(Cache::new(cache)?));
    }
    config.wasm_component_model(true);
    config.wasm_component_model_async(true);
    // As Spin: what computes for long lets others run in between, and can be stopped there.
    config.epoch_interruption(true);
    let engine = Engine::new(&config)?;
    let ticks = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = ticks.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
    Ok(engine)
}

/// How long a component computes before others may run.
const TICK: Duration = Duration::from_millis(10);

/// Compiles a component: seconds for a large one.
pub fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component> {
    Component::from_binary(engine, bytes)
}

/// A component that is being served. Dropping it closes the listener; connections end with the process.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a component.
pub async fn serve(component: &Component, options: Options) -> Result<Served> {
    let folder = tempfile::tempdir().context("make a folder for the configuration")?;
    if let Some(config) = &options.config {
        std::fs::write(folder.path().join("witgate.toml"), config)?;
    }
    let mut linker = Linker::<Host>::new(component.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    if !options.plain {
        store::wasi::config::store::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
        keyvalue::bindings::wasi::keyvalue::store::add_to_linker::<_, HasView>(&mut linker, Host::keyvalue)?;
        keyvalue::bindings::wasi::keyvalue::atomics::add_to_linker::<_, HasView>(&mut linker, Host::keyvalue)?;
    }
    let pre = linker.instantiate_pre(component).context("the component imports what is not provided")?;
    let pre = ServicePre::new(pre).context("the component exports no wasi:http/handler@0.3.0")?;
    let allowed = allowed(&options);
    let state = State {
        pre,
        folder: folder.path().to_path_buf(),
        variables: Arc::new(options.variables),
        plain: options.plain,
        timeout: options.timeout,
        max_memory: options.max_memory,
        allowed: Arc::new(allowed),
        keyvalue: Data::default(),
        max_concurrent: options.max_concurrent,
        max_requests: options.max_requests,
        log: options.log,
    };
    let handler = ProxyHandler::new(state);
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Too many open files, say: what is open must end first.
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| worker::handle(handler.clone(), request));
                // The error of one connection: its client is gone, or spoke no HTTP.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(Served { address, task, _folder: folder })
}

/// The hosts, with ports, that may be called.
fn allowed(options: &Options) -> BTreeSet<String> {
    let mut urls: Vec<String> = options.variables.values().cloned().collect();
    if let Some(config) = &options.config {
        // A configuration that is no TOML names no host; the component says what is wrong with it.
        if let Ok(value) = toml::from_str::<toml::Value>(config) {
            strings(&value, &mut urls);
        }
    }
    let mut allowed: BTreeSet<String> = options.allow.iter().map(|host| with_port(host, "80")).collect();
    for url in urls {
        let url = expand(&url, &options.variables);
        if let Ok(url) = url.parse::<http::Uri>()
            && let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority())
        {
            match scheme {
                "http" => allowed.insert(with_port(authority.as_str(), "80")),
                "https" => allowed.insert(with_port(authority.as_str(), "443")),
                _ => false,
            };
        }
    }
    allowed
}

fn strings(value: &toml::Value, out: &mut Vec<String>) {
    match value {
        toml::Value::String(text) => out.push(text.clone()),
        toml::Value::Array(values) => values.iter().for_each(|value| strings(value, out)),
        toml::Value::Table(table) => table.values().for_each(|value| strings(value, out)),
        _ => {}
    }
}

/// Replaces `${NAME}` by the variable `name`; one that is not there stays.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        match variables.get(&name.to_ascii_lowercase()) {
            Some(value) => out.push_str(value),
            None => out.push_str(&format!("${{{name}}}")),
        }
        rest = behind;
    }
    out + rest
}

fn with_port(authority: &str, port: &str) -> String {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let name_end = host.rfind(']').map_or(0, |at| at + 1);
    if host[name_end..].contains(':') { host } else { format!("{host}:{port}") }
}

impl Log {
    fn write(&self, bytes: &[u8]) {
        match self {
            Log::Inherit => {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), bytes);
            }
            Log::Memory(buffer) => buffer.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes),
        }
    }
}

/// Reads a component from a file.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .with_context(|| format!("read {} (`cargo xtask components && cargo xtask compose`)", file.display()))
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

#[allow(missing_docs)]
mod store {
    wasmtime::component::bindgen!({
        path: "../../components/gateway/wit/deps/wasi-config",
        world: "wasi:config/imports",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_that_the_configuration_names_may_be_called() {
        let options = Options {
            config: Some(
                "[providers.a]\nendpoints = ['http://127.0.0.1:8080/v1', 'https://${WHERE}/x']\nsettings = { a = 'no' }"
                    .to_owned(),
            ),
            variables: BTreeMap::from([
                ("where".to_owned(), "Example.com".to_owned()),
                ("llm_base_url".to_owned(), "http://[::1]:9/v1".to_owned()),
            ]),
            allow: vec!["localhost".to_owned()],
            ..Options::default()
        };
        let allowed: Vec<_> = allowed(&options).into_iter().collect();
        assert_eq!(allowed, ["127.0.0.1:8080", "[::1]:9", "example.com:443", "localhost:80"]);
    }
}
