//! `wasi:keyvalue` as Spin has it, in memory: one store for all instances. `wasmtime-wasi-keyvalue` has an older draft of it, and
//! gives each opening a store of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{Resource, ResourceTable};

use bindings::wasi::keyvalue::{atomics, store};

/// What the store holds.
pub type Data = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// The one store there is.
const NAME: &str = "default";
/// Keys in a page.
const PAGE: usize = 100;

/// An open store.
pub struct Bucket;

/// A swap that has begun.
pub struct Cas {
    key: String,
    /// What it replaces, once that was asked for.
    known: Option<Option<Vec<u8>>>,
}

/// What an instance has of it.
pub struct View<'a> {
    pub data: &'a Data,
    pub table: &'a mut ResourceTable,
}

/// Names [`View`] to the linker.
pub struct HasView;

impl wasmtime::component::HasData for HasView {
    type Data<'a> = View<'a>;
}

#[allow(missing_docs)]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../../components/gateway/wit/deps/wasi-keyvalue",
        world: "wasi:keyvalue/imports",
        with: {
            "wasi:keyvalue/store.bucket": super::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
        imports: { default: trappable },
    });
}

impl View<'_> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl store::Host for View<'_> {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Bucket>, store::Error>> {
        match name.as_str() {
            NAME => Ok(Ok(self.table.push(Bucket)?)),
            _ => Ok(Err(store::Error::AccessDenied)),
        }
    }
}

impl store::HostBucket for View<'_> {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, store::Error>> {
        Ok(Ok(self.all().get(&key).cloned()))
    }

    fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), store::Error>> {
        self.all().insert(key, value);
        Ok(Ok(()))
    }

    fn delete(&mut self, _: Resource<Bucket>, key: String) -> wasmtime::Result<Result<(), store::Error>> {
        self.all().remove(&key);
        Ok(Ok(()))
    }

    fn exists(&mut self, _: Resource<Bucket>, key: String) -> wasmtime::Result<Result<bool, store::Error>> {
        Ok(Ok(self.all().contains_key(&key)))
    }

    fn list_keys(
        &mut self,
        _: Resource<Bucket>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<store::KeyResponse, store::Error>> {
        let all = self.all();
        let behind = all.keys().filter(|key| cursor.as_ref().is_none_or(|cursor| *key > cursor));
        let keys: Vec<_> = behind.take(PAGE).cloned().collect();
        let cursor = keys.last().filter(|_| keys.len() == PAGE).cloned();
        Ok(Ok(store::KeyResponse { keys, cursor }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    fn increment(
        &mut self,
        _: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, store::Error>> {
        let mut all = self.all();
        let known = all.get(&key).map_or(Some(0), |raw| Some(i64::from_le_bytes(raw[..].try_into().ok()?)));
        // Spin's store panics where the value is no counter: nobody may get that far.
        let known = known.ok_or_else(|| wasmtime::Error::msg(format!("{key} is incremented and is no counter")))?;
        all.insert(key, (known + delta).to_le_bytes().to_vec());
        Ok(Ok(known + delta))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let Cas { key, known } = self.table.delete(cas)?;
        let swapped = match (self.all().get_mut(&key), known) {
            (Some(held), Some(Some(known))) if *held == known => {
                *held = value;
                true
            }
            (_, Some(Some(_))) => false,
            _ => return Err(wasmtime::Error::msg(format!("{key} is swapped without a current value"))),
        };
        match swapped {
            true => Ok(Ok(())),
            false => Ok(Err(atomics::CasError::CasFailed(self.table.push(Cas { key, known: None })?))),
        }
    }
}

impl atomics::HostCas for View<'_> {
    fn new(&mut self, _: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Resource<Cas>, store::Error>> {
        Ok(Ok(self.table.push(Cas { key, known: None })?))
    }

    fn current(&mut self, cas: Resource<Cas>) -> wasmtime::Result<Result<Option<Vec<u8>>, store::Error>> {
        let key = self.table.get(&cas)?.key.clone();
        let known = self.all().get(&key).cloned();
        self.table.get_mut(&cas)?.known = Some(known.clone());
        Ok(Ok(known))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}
