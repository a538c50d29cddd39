//! The runtime's key-value store, over `wasi:keyvalue`.
//!
//! Spin's store wants care: only counters are incremented, and only by `increment` (it holds anything else than eight bytes for
//! a fault of its own); a swap asks for the current value first (without that it overwrites); and only a value that is
//! there is swapped (one that is absent is not compared). `witgate_gateway::kv` keeps to that.

use witgate_config::Store as Chosen;
use witgate_config::{Config, Problem};
use witgate_gateway::kv::{KeyValue, KeyValueState, Page};
use witgate_gateway::state::{Either, Memory, StateError};

use crate::bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use crate::bindings::wasi::keyvalue::store::{self, Bucket, Error};

/// The store's name in `spin.toml`.
const NAME: &str = "default";

/// Where the state lies.
pub type Store = Either<Memory, KeyValueState<Opened>>;

/// The store that the configuration names.
pub fn open(config: &Config) -> Result<Store, Problem> {
    let state = &config.state;
    match &state.store {
        Chosen::Memory => Ok(Either::One(Memory::new(usize::try_from(state.max_bytes).unwrap_or(usize::MAX)))),
        Chosen::KeyValue => match store::open(NAME) {
            Ok(bucket) => Ok(Either::Other(KeyValueState::new(Opened(bucket), &state.prefix))),
            Err(error) => {
                let help = format!("write key_value_stores = [\"{NAME}\"] under [component.gateway] in spin.toml");
                let message = format!("the key-value store \"{NAME}\" cannot be opened: {}", told(&error));
                Err(config.problem("state.store", message, Some(help)))
            }
        },
        // `Config::check_component` has said what is wrong with it.
        Chosen::File(_) | Chosen::Redis(_) | Chosen::Native => {
            Err(config.problem("state.store", "not to be had", None))
        }
    }
}

/// An open store.
pub struct Opened(Bucket);

fn told(error: &Error) -> String {
    match error {
        Error::NoSuchStore => "there is none".to_owned(),
        Error::AccessDenied => "it may not be used".to_owned(),
        Error::Other(why) => why.clone(),
    }
}

fn failed(error: Error) -> StateError {
    StateError(format!("the key-value store: {}", told(&error)))
}

impl KeyValue for Opened {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key).map_err(failed)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.0.set(key, value).map_err(failed)
    }

    fn delete(&self, key: &str) -> Result<(), StateError> {
        self.0.delete(key).map_err(failed)
    }

    fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        atomics::increment(&self.0, key, delta).map_err(failed)
    }

    fn swap(&self, key: &str, known: &[u8], value: &[u8]) -> Result<bool, StateError> {
        let cas = Cas::new(&self.0, key).map_err(failed)?;
        if cas.current().map_err(failed)?.as_deref() != Some(known) {
            return Ok(false);
        }
        match atomics::swap(cas, value) {
            Ok(()) => Ok(true),
            Err(CasError::CasFailed(_)) => Ok(false),
            Err(CasError::StoreError(error)) => Err(failed(error)),
        }
    }

    fn keys(&self, page: Option<&str>) -> Result<Page, StateError> {
        let answer = self.0.list_keys(page).map_err(failed)?;
        Ok((answer.keys, answer.cursor.filter(|cursor| !cursor.is_empty())))
    }
}
