//! Composes the gateway with the normaliser and the adapters, as Spin does it with the same `spin.toml`: so the shape that
//! runs under Spin is built, checked and tested on machines without Spin.
//!
//! Two differences, both on the safe side. Spin links a dependency's imports to an adapter that denies at run time; here
//! a dependency that imports anything but types is refused. Dependencies from a registry or a URL are refused too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use witgate_compose::Part;
pub use witgate_compose::{ALLOWED_IMPORTS, EXPORT};

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

    let file = source(root, name, component)?;
    let gateway = read(&file)?;
    let gateway_imports =
        witgate_compose::all_imports(&gateway).with_context(|| format!("{} is no component", file.display()))?;
    let (mut parts, mut places, mut filled) = (Vec::new(), Vec::new(), Vec::new());
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
        let imports: Vec<_> = gateway_imports.iter().filter(|import| matches(dependency_name, import)).collect();
        ensure!(
            !imports.is_empty(),
            "{at}: doesn't match any import of {name}; it imports {}",
            gateway_imports.join(", ")
        );
        filled.extend(imports.iter().map(|import| ((*import).clone(), file.clone())));
        let fills = imports.into_iter().map(|import| {
            let export = dependency.export.as_ref().unwrap_or(import);
            (import.clone(), export.clone())
        });
        parts.push(Part { name: file.display().to_string(), wasm: read(&file)?.into(), fills: fills.collect() });
        places.push(at);
    }
    let composed = witgate_compose::compose(&gateway, &parts).map_err(|error| {
        match error.part.and_then(|part| places.get(part)) {
            Some(at) => anyhow!("{at}: {error}"),
            None => anyhow!("spin.toml: [component.{name}]: {error}"),
        }
    })?;
    filled.sort();
    Ok(Composed { bytes: composed.bytes, imports: composed.imports, filled })
}

/// What a component imports, beyond interfaces that hold nothing but types.
pub fn imports(component: &[u8]) -> Result<Vec<String>> {
    Ok(witgate_compose::imports(component)?)
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
