//! The state store: the one that the configuration names, and what a store of a program's own needs.

use std::path::Path;
use std::time::Duration;

use witgate_config::{Config, Problem, Store as Chosen};
use witgate_gateway::state::Either;
#[doc(inline)]
pub use witgate_gateway::state::{
    Charge, Counter, Counters, Expect, Memory, Meters, Once, Reservation, Rule, State, StateError, Taken, Use,
    check_key, counter, settle, take, used,
};
use witgate_stores::{File, FileOptions, Redis, RedisOptions, Store, StreamOptions, Streams};

/// The longest that one call to a stream takes, beside what it waits for entries.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `base` is the folder to which the configuration's paths are relative.
fn file(config: &Config, base: &Path, path: &str) -> FileOptions {
    let state = &config.state;
    FileOptions { path: base.join(path), max_bytes: state.max_bytes, timeout: state.timeout, flush: state.flush }
}

/// The URL may hold a password: beside `sign` in the gateway this is the one place that resolves a secret.
fn redis(config: &Config, url: &witgate_config::Secret) -> Result<Redis, StateError> {
    let (prefix, timeout) = (config.state.prefix.clone(), config.state.timeout);
    Redis::new(&RedisOptions { url: url.expose().to_owned(), prefix, timeout })
}

/// A stream of requests, on a server that is not asked yet. `consumer` is this process's own name.
pub(crate) fn stream(
    config: &Config,
    queue: &witgate_config::Queue,
    stream: &witgate_config::Stream,
    consumer: String,
) -> Result<Streams, Problem> {
    let options = StreamOptions {
        url: stream.url.expose().to_owned(),
        stream: stream.stream.clone(),
        group: stream.group.clone(),
        consumer,
        visibility: queue.visibility,
        wait: queue.wait,
        timeout: TIMEOUT,
        keep: stream.keep_messages,
    };
    Streams::new(options).map_err(|error| config.problem(&format!("queues.{}.url", queue.name), error.0, None))
}

fn problem(config: &Config, key: &str, error: &StateError) -> Problem {
    config.problem(&format!("state.{key}"), error.0.clone(), None)
}

fn not_here(config: &Config) -> Problem {
    let help = "write \"file\" or \"redis\"".to_owned();
    config.problem("state.store", "the key-value store is Spin's: this is none".to_owned(), Some(help))
}

/// Opens the store; one that is elsewhere is not asked yet.
pub(crate) fn open(config: &Config, base: &Path) -> Result<Store, Problem> {
    match &config.state.store {
        Chosen::Memory => Ok(Either::One(Memory::new(usize::try_from(config.state.max_bytes).unwrap_or(usize::MAX)))),
        Chosen::File(path) => match File::open(&file(config, base, path)) {
            Ok(store) => Ok(Either::Other(Either::One(store))),
            Err(error) => Err(problem(config, "path", &error)),
        },
        Chosen::Redis(url) => match redis(config, url) {
            Ok(store) => Ok(Either::Other(Either::Other(store))),
            Err(error) => Err(problem(config, "url", &error)),
        },
        Chosen::KeyValue | Chosen::Native => Err(not_here(config)),
    }
}

/// Whether the store can be used, without changing it.
pub(crate) async fn check(config: &Config, base: &Path) -> Result<(), Problem> {
    match &config.state.store {
        Chosen::Memory => Ok(()),
        Chosen::File(path) => {
            let options = file(config, base, path);
            let checked = tokio::task::spawn_blocking(move || File::check(&options)).await;
            let checked = checked.unwrap_or_else(|_| Err(StateError("looking at it failed".to_owned())));
            checked.map_err(|error| problem(config, "path", &error))
        }
        Chosen::Redis(url) => match redis(config, url) {
            Ok(store) => store.check().await.map_err(|error| problem(config, "url", &error)),
            Err(error) => Err(problem(config, "url", &error)),
        },
        Chosen::KeyValue | Chosen::Native => Err(not_here(config)),
    }
}
