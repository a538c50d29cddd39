//! Composes the gateway with the normaliser and the adapters, as Spin does it with the same `spin.toml`: so the shape that
//! runs under Spin is built, checked and tested on machines without Spin.
//!
//! Two differences, both on the safe side. Spin links a dependency's imports to an adapter that denies at run time; here
//! a dependency that imports anything but types is refused. Dependencies from a registry or a URL are refused too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use wac_graph::types::{ItemKind, Package, SubtypeChecker, Types};
use wac_graph::{CompositionGraph, EncodeOptions};

/// The interfaces that the composed gateway may import: what Spin and wasmtime provide.
pub const ALLOWED_IMPORTS: &[&str] = &[
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:filesystem/",
    "wasi:http/client@0.3.0",
    "wasi:http/types@0.3.0",
    "wasi:io/",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:random/",
];

/// The one interface that the composed gateway exports.
pub const EXPORT: &str = "wasi:http/handler@0.3.0";

/// What this needs of `spin.toml`. Keys that it does not need are Spin's to check.
#[derive(Deserialize)]
struct Manifest {
    trigger: Triggers,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Triggers {
    http: Vec<Trigger>,
}

#[derive(Deserialize)]
struct Trigger {
    component: String,
}

#[derive(Deserialize)]
struct Component {
    source: toml::Value,
    #[serde(default)]
    dependencies: BTreeMap<String, Dependency>,
    #[serde(default)]
    dependencies_inherit_configuration: bool,
}

/// A dependency that is a file, or another component of the manifest. Spin ignores misspelt keys here in silence, so that
/// `inherit_configuratoin = false` passes for whatever it is; this refuses them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    path: Option<PathBuf>,
    component: Option<String>,
    export: Option<String>,
    #[serde(default)]
    inherit_configuration: Option<toml::Value>,
}

/// A composed application.
pub struct Composed {
    /// The component.
    pub bytes: Vec<u8>,
    /// What it imports, types apart.
    pub imports: Vec<String>,
    /// Each import of the gateway that a dependency fills, and that dependency's file.
    pub filled: Vec<(String, PathBuf)>,
}

/// Composes the component of the first HTTP trigger of `manifest`, the text of a `spin.toml` whose paths are relative to
/// `root`.
pub fn compose(manifest: &str, root: &Path) -> Result<Composed> {
    let manifest: Manifest = toml::from_str(manifest).context("read spin.toml")?;
    let name = &manifest.trigger.http.first().context("spin.toml: no [[trigger.http]]")?.component;
    let component = named(&manifest, name)?;
    ensure!(
        !component.dependencies_inherit_configuration,
        "spin.toml: [component.{name}] has dependencies_inherit_configuration = true: adapters must inherit nothing"
    );

    let mut graph = CompositionGraph::new();
    let file = source(root, name, component)?;
    let gateway = Package::from_bytes(name, None, read(&file)?, graph.types_mut())
        .with_context(|| format!("{} is no component", file.display()))?;
    let world = gateway.ty();
    let gateway = graph.register_package(gateway)?;
    let gateway = graph.instantiate(gateway);

    let mut filled: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (dependency_name, dependency) in &component.dependencies {
        let at = format!("spin.toml: [component.{name}.dependencies] {dependency_name}");
        ensure!(
            dependency.inherit_configuration.as_ref().is_none_or(|value| value.as_bool() == Some(false)),
            "{at}: inherit_configuration is set: adapters and the normaliser must inherit nothing"
        );
        let file = match (&dependency.path, &dependency.component) {
            (Some(path), None) => root.join(path),
            (None, Some(other)) => source(root, other, named(&manifest, other)?)?,
            _ => bail!("{at}: exactly one of `path` and `component` must be there"),
        };
        let imports: Vec<String> =
            graph.types()[world].imports.keys().filter(|import| matches(dependency_name, import)).cloned().collect();
        ensure!(
            !imports.is_empty(),
            "{at}: doesn't match any import of {name}; it imports {}",
            graph.types()[world].imports.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        let package = Package::from_bytes(dependency_name, None, read(&file)?, graph.types_mut())
            .with_context(|| format!("{at}: {} is no component", file.display()))?;
        let exporter = package.ty();
        let instance = graph.register_package(package)?;
        let instance = graph.instantiate(instance);
        let denied = real_imports(graph.types(), exporter);
        ensure!(
            denied.is_empty(),
            "{at}: {} imports {}: an adapter or normaliser may import nothing but types (build it for \
             wasm32-unknown-unknown and wrap it with `wasm-tools component new`)",
            file.display(),
            denied.join(", ")
        );
        for import in imports {
            let export = dependency.export.as_ref().unwrap_or(&import);
            let types = graph.types();
            let provided = *types[exporter].exports.get(export).with_context(|| {
                format!(
                    "{at}: {} doesn't export {export}; it exports {}",
                    file.display(),
                    types[exporter].exports.keys().cloned().collect::<Vec<_>>().join(", ")
                )
            })?;
            let wanted = types[world].imports[&import];
            SubtypeChecker::new(&mut Default::default())
                .is_subtype(provided, types, wanted, types)
                .with_context(|| format!("{at}: {export} of {} doesn't fit the import {import}", file.display()))?;
            let alias = graph.alias_instance_export(instance, export)?;
            graph.set_instantiation_argument(gateway, &import, alias)?;
            if filled.insert(import.clone(), file.clone()).is_some() {
                bail!("{at}: the import {import} is filled twice");
            }
        }
    }

    let exports: Vec<String> = graph.types()[world].exports.keys().cloned().collect();
    ensure!(exports == [EXPORT], "{name} exports {}; it must export {EXPORT} and nothing else", exports.join(", "));
    let export = graph.alias_instance_export(gateway, EXPORT)?;
    graph.export(export, EXPORT)?;
    let bytes = graph.encode(EncodeOptions::default()).context("compose")?;

    let mut types = Types::default();
    let world = Package::from_bytes("composed", None, bytes.clone(), &mut types)?.ty();
    let imports = real_imports(&types, world);
    let odd: Vec<_> = imports
        .iter()
        .filter(|import| !ALLOWED_IMPORTS.iter().any(|allowed| import.starts_with(allowed)))
        .cloned()
        .collect();
    ensure!(
        odd.is_empty(),
        "{} would stay without a provider: fill it in [component.{name}.dependencies], or take it out of the gateway",
        odd.join(", ")
    );
    Ok(Composed { bytes, imports, filled: filled.into_iter().collect() })
}

/// What a component imports, beyond interfaces that hold nothing but types.
pub fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut types = Types::default();
    let world = Package::from_bytes("component", None, component, &mut types)?.ty();
    Ok(real_imports(&types, world))
}

fn real_imports(types: &Types, world: wac_graph::types::WorldId) -> Vec<String> {
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

/// Whether a dependency's name means this import, by Spin's rules: a plain name is the import's own; a package name may
/// leave out the interface and the version.
fn matches(dependency: &str, import: &str) -> bool {
    if !dependency.contains(':') || !import.contains(':') {
        return dependency == import;
    }
    let parts = |name: &str| -> (String, Option<String>, Option<String>) {
        let (path, version) = match name.split_once('@') {
            Some((path, version)) => (path, Some(version.to_owned())),
            None => (name, None),
        };
        match path.split_once('/') {
            Some((package, interface)) => (package.to_owned(), Some(interface.to_owned()), version),
            None => (path.to_owned(), None, version),
        }
    };
    let (package, interface, version) = parts(dependency);
    let (import_package, import_interface, import_version) = parts(import);
    package == import_package
        && (interface.is_none() || interface == import_interface)
        && (version.is_none() || version == import_version)
}

fn named<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Component> {
    manifest.component.get(name).with_context(|| format!("spin.toml: no [component.{name}]"))
}

fn source(root: &Path, name: &str, component: &Component) -> Result<PathBuf> {
    let file = component.source.as_str().with_context(|| {
        format!("spin.toml: [component.{name}] source is no path: only components in files can be composed here")
    })?;
    Ok(root.join(file))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("read {} (is it built? `cargo xtask components`)", file.display()))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn dependency_names_match_imports_as_spin_matches_them() {
        assert!(matches("a:b/c@0.1.0", "a:b/c@0.1.0"));
        assert!(matches("a:b/c", "a:b/c@0.1.0"));
        assert!(matches("a:b", "a:b/c@0.1.0"));
        assert!(matches("a:b@0.1.0", "a:b/c@0.1.0"));
        assert!(matches("llama-cpp", "llama-cpp"));
        assert!(!matches("llama-cpp", "openai"));
        assert!(!matches("a:b/c@0.1.0", "a:b/c"));
        assert!(!matches("a:b/c", "a:b/d"));
        assert!(!matches("a:b@0.2.0", "a:b/c@0.1.0"));
        assert!(!matches("a-b", "a:b/c"));
    }
}
