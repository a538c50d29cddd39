//! One component, looked at without a configuration: is it an adapter or a policy, and does it keep its contract?

use std::path::PathBuf;

use witgate_config::Limits;
use witgate_model::Description;
use witgate_model::policy::Description as PolicyDescription;

use crate::builtin;
use crate::components::{AdapterComponent, PolicyComponent};
use crate::conformance::kind::kind as kind_of;
use crate::engine::{Bounds, Runtime, Sandbox};
use crate::sources::Kind;

/// A component that was checked as loading checks it: it imports nothing but types, exports what its contract says, and
/// describes itself.
pub enum Plugin {
    /// An adapter.
    Adapter(AdapterComponent),
    /// A policy.
    Policy(PolicyComponent),
}

impl Plugin {
    /// Loads a component under a name, as what `kind` says, else as what it exports; with as much memory, and as large
    /// tables, as a configuration may allow it. `cache` is where compiled components are kept.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(name: &str, wasm: &[u8], kind: Option<Kind>, cache: Option<PathBuf>) -> Result<Self, String> {
        let bounds = Bounds {
            memory_bytes: usize::try_from(Limits::MOST_MEMORY_BYTES).unwrap_or(usize::MAX),
            table_elements: Limits::MOST_TABLE_ELEMENTS as usize,
            ..Bounds::default()
        };
        let Bounds { memory_bytes, table_elements, .. } = bounds;
        let sandbox = Sandbox { instances: 16, memory_bytes, table_elements, cache, ..Sandbox::default() };
        let runtime =
            Runtime::new(sandbox).map_err(|error| format!("components cannot run on this machine: {error}"))?;
        let loaded = match kind.unwrap_or_else(|| kind_of(wasm)) {
            Kind::Adapter => AdapterComponent::load(&runtime, name, wasm.into(), bounds).map(Plugin::Adapter),
            Kind::Policy => PolicyComponent::load(&runtime, name, wasm.into(), bounds).map(Plugin::Policy),
        };
        runtime.save();
        loaded.map_err(|error| error.to_string())
    }

    /// The component of this name that comes with witgate.
    pub fn builtin(name: &str) -> Option<(Kind, &'static [u8])> {
        let find = |all: &[(&str, &'static [u8])]| all.iter().find(|(known, _)| *known == name).map(|(_, wasm)| *wasm);
        let adapter = find(&builtin::ADAPTERS).map(|wasm| (Kind::Adapter, wasm));
        adapter.or_else(|| find(&builtin::POLICIES).map(|wasm| (Kind::Policy, wasm)))
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Plugin::Adapter(_) => Kind::Adapter,
            Plugin::Policy(_) => Kind::Policy,
        }
    }

    /// What it says of itself, as an adapter.
    pub fn adapter(&self) -> Option<&Description> {
        match self {
            Plugin::Adapter(adapter) => Some(adapter.description()),
            Plugin::Policy(_) => None,
        }
    }

    /// What it says of itself, as a policy.
    pub fn policy(&self) -> Option<&PolicyDescription> {
        match self {
            Plugin::Adapter(_) => None,
            Plugin::Policy(policy) => Some(policy.description()),
        }
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        match self {
            Plugin::Adapter(adapter) => adapter.imports(),
            Plugin::Policy(policy) => policy.imports(),
        }
    }

    /// Linear memory of a fresh instance, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Plugin::Adapter(adapter) => adapter.memory(),
            Plugin::Policy(policy) => policy.memory(),
        }
    }
}
