//! Answers in the place of what is not there: an empty slot of an adapter or a policy, a key-value store, variables. A
//! composition puts it where the configuration needs none, so that the gateway runs where nobody provides them.

#[allow(missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/adapter", "../../wit/policy", "../gateway/wit/deps/wasi-config", "../gateway/wit/deps/wasi-keyvalue", "wit"],
        world: "witgate:absent/absent",
        generate_all,
    });
}

use bindings::exports::wasi::config::store as config;
use bindings::exports::wasi::keyvalue::atomics::{self, CasError};
use bindings::exports::wasi::keyvalue::store::{self, Bucket, BucketBorrow, Error, KeyResponse};
use bindings::exports::witgate::adapter::chat;
use bindings::exports::witgate::policy::hooks;
use bindings::witgate::adapter::types as adapter;
use bindings::witgate::policy::types as policy;

struct Absent;

bindings::export!(Absent with_types_in bindings);

/// What nobody gets: a store, a swap in one, the answer of an empty slot.
enum Never {}

fn empty_slot() -> adapter::Error {
    adapter::Error {
        kind: adapter::ErrorKind::Unsupported,
        message: "nothing is in this slot".to_owned(),
        code: None,
        param: None,
        status: None,
        retry: adapter::Retry::Never,
        raw: None,
    }
}

impl chat::Guest for Absent {
    type Decoder = Nothing;

    /// Without an id, so that no configuration can mean it.
    fn describe() -> adapter::Description {
        adapter::Description {
            id: String::new(),
            version: String::new(),
            summary: String::new(),
            operations: Vec::new(),
            capabilities: Vec::new(),
            dialects: Vec::new(),
            secrets: Vec::new(),
            settings_schema: "{}".to_owned(),
            default_endpoint: None,
        }
    }

    fn probe(_: String) -> Result<Option<adapter::HttpRequest>, adapter::Error> {
        Err(empty_slot())
    }

    fn encode(_: String, _: adapter::Request) -> Result<adapter::HttpRequest, adapter::Error> {
        Err(empty_slot())
    }
}

/// A decoder, or a watcher, that has nothing to say.
struct Nothing;

impl chat::GuestDecoder for Nothing {
    fn new(_: String, _: Option<String>, _: adapter::ResponseHead) -> Self {
        Nothing
    }

    fn feed(&self, _: Vec<adapter::Frame>) -> Vec<adapter::Event> {
        vec![adapter::Event::Failed(empty_slot())]
    }

    fn finish(&self) -> Vec<adapter::Event> {
        vec![adapter::Event::Failed(empty_slot())]
    }
}

impl hooks::Guest for Absent {
    type Watcher = Nothing;

    fn describe() -> policy::Description {
        policy::Description {
            id: String::new(),
            version: String::new(),
            summary: String::new(),
            settings_schema: "{}".to_owned(),
        }
    }

    fn on_request(_: String, _: policy::Context, _: adapter::Request) -> Result<policy::Decision, adapter::Error> {
        Err(empty_slot())
    }
}

impl hooks::GuestWatcher for Nothing {
    fn new(_: String, _: String) -> Self {
        Nothing
    }

    fn feed(&self, _: Vec<adapter::Event>) -> policy::Filtered {
        policy::Filtered { events: vec![adapter::Event::Failed(empty_slot())], held: 0 }
    }
}

impl config::Guest for Absent {
    fn get(_: String) -> Result<Option<String>, config::Error> {
        Ok(None)
    }

    fn get_all() -> Result<Vec<(String, String)>, config::Error> {
        Ok(Vec::new())
    }
}

impl store::Guest for Absent {
    type Bucket = Never;

    fn open(_: String) -> Result<Bucket, Error> {
        Err(Error::NoSuchStore)
    }
}

impl store::GuestBucket for Never {
    fn get(&self, _: String) -> Result<Option<Vec<u8>>, Error> {
        match *self {}
    }

    fn set(&self, _: String, _: Vec<u8>) -> Result<(), Error> {
        match *self {}
    }

    fn delete(&self, _: String) -> Result<(), Error> {
        match *self {}
    }

    fn exists(&self, _: String) -> Result<bool, Error> {
        match *self {}
    }

    fn list_keys(&self, _: Option<String>) -> Result<KeyResponse, Error> {
        match *self {}
    }
}

impl atomics::Guest for Absent {
    type Cas = Never;

    fn increment(_: BucketBorrow<'_>, _: String, _: i64) -> Result<i64, Error> {
        Err(Error::NoSuchStore)
    }

    fn swap(_: atomics::Cas, _: Vec<u8>) -> Result<(), CasError> {
        Err(CasError::StoreError(Error::NoSuchStore))
    }
}

impl atomics::GuestCas for Never {
    fn new(_: BucketBorrow<'_>, _: String) -> Result<atomics::Cas, Error> {
        Err(Error::NoSuchStore)
    }

    fn current(&self) -> Result<Option<Vec<u8>>, Error> {
        match *self {}
    }
}
