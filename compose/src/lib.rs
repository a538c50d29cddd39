//! Composes the gateway with the normaliser, adapters and policies into one component: the same composition that Spin does
//! with the repository's `spin.toml`, and the one that `witgate compose` makes of a configuration.
//!
//! A part, whatever it is, must import nothing but types: so what a composition may reach is what its gateway may reach, and
//! [`ALLOWED_IMPORTS`] bounds that.
//!
//! The gateway has a fixed number of slots, [`ADAPTER_SLOTS`] and [`POLICY_SLOTS`], each of one interface. Which of them holds
//! what is told to it by one more part, [`composition`]; a slot that nothing needs gets an instance that it shares with all
//! others of its kind, so it takes no room.

mod composition;

pub use composition::composition;

use std::borrow::Cow;
use std::collections::BTreeSet;

use wac_graph::types::{ItemKind, Package, SubtypeChecker, Types, WorldId};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

/// The slots of adapters, with what each is for, in the order in which the gateway looks for an adapter.
pub const ADAPTER_SLOTS: &[(&str, &str)] = &[
    ("llama-cpp", "A llama.cpp server."),
    ("openai", "OpenAI, and what speaks its API."),
    ("stub", "Answers by itself, without a backend."),
    ("bedrock", "Amazon Bedrock."),
    ("sagemaker", "Endpoints of Amazon SageMaker."),
    ("anthropic", "Anthropic's Messages."),
    ("ollama", "Ollama, by its native API."),
    ("custom", "Spare: for an adapter of yours. Must be filled with something."),
    ("custom2", "Spare."),
    ("custom3", "Spare."),
    ("custom4", "Spare."),
];

/// The slots of policies, with what each is for.
pub const POLICY_SLOTS: &[(&str, &str)] = &[
    ("guard", "Blocked terms, words of prompt injection."),
    ("redactor", "Personal data and secrets."),
    ("custom-policy", "Spare: for a policy of yours. Must be filled with something."),
    ("custom-policy2", "Spare."),
    ("custom-policy3", "Spare."),
];

/// The interfaces that the composed gateway may import: what Spin and wasmtime provide.
pub const ALLOWED_IMPORTS: &[&str] = &[
    "wasi:cli/",
    "wasi:clocks/",
    VARIABLES,
    "wasi:filesystem/",
    "wasi:http/client@0.3.0",
    "wasi:http/types@0.3.0",
    "wasi:io/",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:random/",
];

/// Spin's variables.
pub const VARIABLES: &str = "wasi:config/store@0.2.0-draft-2024-09-27";

/// The key-value store.
pub const KEY_VALUE: [&str; 2] = ["wasi:keyvalue/store@0.2.0-draft2", "wasi:keyvalue/atomics@0.2.0-draft2"];

/// What adapters export.
pub const CHAT: &str = "witgate:adapter/chat@0.1.0";

/// What policies export.
pub const HOOKS: &str = "witgate:policy/hooks@0.1.0";

/// What the normaliser exports.
pub const DIALECTS: &str = "witgate:normaliser/dialects@0.1.0";

/// What tells the gateway which slot holds what; see [`composition`].
pub const COMPOSITION: &str = "witgate:gateway/composition@0.1.0";

/// The one interface that the composed gateway exports.
pub const EXPORT: &str = "wasi:http/handler@0.3.0";

/// What fills imports of the gateway.
pub struct Part<'a> {
    /// What errors call it: its file, say.
    pub name: String,
    /// The component.
    pub wasm: Cow<'a, [u8]>,
    /// The imports of the gateway that it fills, each with the export that fills it.
    pub fills: Vec<(String, String)>,
}

/// Why there is no composition.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// Which of the parts is wrong; none: the gateway, or all together.
    pub part: Option<usize>,
    /// What is wrong with it, its name included.
    pub what: String,
}

impl Error {
    fn all(what: impl ToString) -> Self {
        Error { part: None, what: what.to_string() }
    }
}

/// A composed component.
#[derive(Debug)]
pub struct Composed {
    /// The component.
    pub bytes: Vec<u8>,
    /// What it imports, types apart.
    pub imports: Vec<String>,
}

/// Composes `gateway` with the parts. Each of its imports beyond [`ALLOWED_IMPORTS`] must be filled by exactly one.
///
/// # Errors
/// Where a part is no component, imports anything but types or does not fit, or where an import is left without one.
pub fn compose(gateway: &[u8], parts: &[Part<'_>]) -> Result<Composed, Error> {
    let mut graph = CompositionGraph::new();
    let package = Package::from_bytes("gateway", None, gateway, graph.types_mut())
        .map_err(|error| Error::all(format!("the gateway is no component: {error:#}")))?;
    let world = package.ty();
    let gateway = graph.register_package(package).map_err(Error::all)?;
    let gateway = graph.instantiate(gateway);
    let mut filled = BTreeSet::new();
    for (at, part) in parts.iter().enumerate() {
        fill(&mut graph, (world, gateway), part, &mut filled).map_err(|what| Error { part: Some(at), what })?;
    }
    let exports: Vec<String> = graph.types()[world].exports.keys().cloned().collect();
    if exports != [EXPORT] {
        let exports = exports.join(", ");
        return Err(Error::all(format!("the gateway exports {exports}; it must export {EXPORT} and nothing else")));
    }
    let export = graph.alias_instance_export(gateway, EXPORT).map_err(Error::all)?;
    graph.export(export, EXPORT).map_err(Error::all)?;
    let bytes = graph.encode(EncodeOptions::default()).map_err(Error::all)?;
    let imports = imports(&bytes)?;
    let odd: Vec<_> = imports
        .iter()
        .filter(|import| !ALLOWED_IMPORTS.iter().any(|allowed| import.starts_with(allowed)))
        .cloned()
        .collect();
    if !odd.is_empty() {
        return Err(Error::all(format!("{} would stay without a provider", odd.join(", "))));
    }
    Ok(Composed { bytes, imports })
}

/// Fills the imports that a part is for. The error is what is wrong with it.
fn fill(
    graph: &mut CompositionGraph,
    (world, gateway): (WorldId, NodeId),
    part: &Part<'_>,
    filled: &mut BTreeSet<String>,
) -> Result<(), String> {
    let name = &part.name;
    // Parts of one name may differ, and the graph wants each package once.
    let package = format!("witgate:part-{}", graph.packages().count());
    let package = Package::from_bytes(&package, None, part.wasm.to_vec(), graph.types_mut())
        .map_err(|error| format!("{name} is no component: {error:#}"))?;
    let exporter = package.ty();
    let instance = graph.register_package(package).map_err(|error| error.to_string())?;
    let instance = graph.instantiate(instance);
    let denied = real_imports(graph.types(), exporter);
    if !denied.is_empty() {
        return Err(format!(
            "{name} imports {}: a part may import nothing but types (build it for wasm32-unknown-unknown and wrap it \
             with `wasm-tools component new`)",
            denied.join(", ")
        ));
    }
    for (import, export) in &part.fills {
        let types = graph.types();
        let provided = *types[exporter].exports.get(export).ok_or_else(|| {
            let exports: Vec<_> = types[exporter].exports.keys().take(16).cloned().collect();
            format!("{name} doesn't export {export}; it exports {}", exports.join(", "))
        })?;
        let wanted = *types[world].imports.get(import).ok_or_else(|| {
            let imports: Vec<_> = types[world].imports.keys().cloned().collect();
            format!("{import} doesn't match any import of the gateway; it imports {}", imports.join(", "))
        })?;
        SubtypeChecker::new(&mut Default::default())
            .is_subtype(provided, types, wanted, types)
            .map_err(|error| format!("{export} of {name} doesn't fit the import {import}: {error:#}"))?;
        if !filled.insert(import.clone()) {
            return Err(format!("the import {import} is filled twice"));
        }
        let alias = graph.alias_instance_export(instance, export).map_err(|error| error.to_string())?;
        graph.set_instantiation_argument(gateway, import, alias).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a component imports, beyond interfaces that hold nothing but types.
///
/// # Errors
/// Where it is no component.
pub fn imports(component: &[u8]) -> Result<Vec<String>, Error> {
    let mut types = Types::default();
    let world = Package::from_bytes("component", None, component, &mut types).map_err(Error::all)?.ty();
    Ok(real_imports(&types, world))
}

/// All that a component imports, by name.
///
/// # Errors
/// Where it is no component.
pub fn all_imports(component: &[u8]) -> Result<Vec<String>, Error> {
    let mut types = Types::default();
    let world = Package::from_bytes("component", None, component, &mut types).map_err(Error::all)?.ty();
    Ok(types[world].imports.keys().cloned().collect())
}

fn real_imports(types: &Types, world: WorldId) -> Vec<String> {
    let only_types = |kind: &ItemKind| match kind {
        ItemKind::Instance(interface) => {
            types[*interface].exports.values().all(|export| matches!(export, ItemKind::Type(ty) if !resource(ty)))
        }
        _ => false,
    };
    types[world].imports.iter().filter(|(_, kind)| !only_types(kind)).map(|(name, _)| name.clone()).collect()
}

fn resource(ty: &wac_graph::types::Type) -> bool {
    matches!(ty, wac_graph::types::Type::Resource(_))
}
