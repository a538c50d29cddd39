//! What is composed, and what is refused.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;
use witgate_wasi_serve::root;
use xtask::compose::{Composed, compose, imports};

fn manifest() -> String {
    std::fs::read_to_string(root().join("spin.toml")).expect("read spin.toml")
}

fn refused(manifest: &str) -> String {
    match compose(manifest, &root()) {
        Ok(_) => panic!("was composed:\n{manifest}"),
        Err(error) => format!("{error:#}"),
    }
}

fn replaced(from: &str, to: &str) -> String {
    let changed = manifest().replace(from, to);
    assert_ne!(changed, manifest(), "spin.toml has no {from}");
    changed
}

/// A component of this world, which does nothing; beside our own packages it may use `wasi:random`.
fn component(folder: &Path, name: &str, world: &str) -> String {
    let mut resolve = Resolve::default();
    resolve.push_dir(root().join("wit/adapter")).expect("read wit/adapter");
    resolve
        .push_str("random.wit", "package wasi:random@0.3.0;\ninterface random { get-random-u64: func() -> u64; }")
        .expect("wasi");
    let package = resolve.push_str("test.wit", &format!("package test:test;\nworld test {{ {world} }}")).expect(world);
    let world = resolve.select_world(&[package], Some("test")).expect("the world");
    let mut module = wit_component::dummy_module(
        &resolve,
        world,
        wit_parser::ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync),
    );
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("embed");
    let bytes = ComponentEncoder::default().module(&module).and_then(ComponentEncoder::encode).expect("encode");
    let file = folder.join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).expect("write");
    file.display().to_string()
}

fn custom(file: &str) -> String {
    replaced("custom = { path = \"target/components/adapter-stub.wasm\"", &format!("custom = {{ path = \"{file}\""))
}

#[test]
fn the_application_is_composed_and_imports_wasi_alone() {
    let Composed { bytes, imports, filled } = compose(&manifest(), &root()).expect("compose");
    assert_eq!(imports, xtask::compose::imports(&bytes).expect("a component"));
    assert!(imports.iter().all(|import| import.starts_with("wasi:")), "{imports:?}");
    for needed in
        ["wasi:http/client@0.3.0", "wasi:config/store@0.2.0-draft-2024-09-27", "wasi:keyvalue/atomics@0.2.0-draft2"]
    {
        assert!(imports.iter().any(|import| import == needed), "{needed} is not in {imports:?}");
    }
    assert!(!imports.iter().any(|import| import.starts_with("wasi:sockets")), "{imports:?}");
    let filled: Vec<_> = filled.into_iter().map(|(import, _)| import).collect();
    let expected = [
        "anthropic",
        "bedrock",
        "custom",
        "custom-policy",
        "custom-policy2",
        "custom-policy3",
        "custom2",
        "custom3",
        "custom4",
        "guard",
        "llama-cpp",
        "ollama",
        "openai",
        "redactor",
        "sagemaker",
        "stub",
        "witgate:gateway/composition@0.1.0",
        "witgate:normaliser/dialects@0.1.0",
    ];
    assert_eq!(filled, expected);
    // Spin's manifest takes no other name than one whose words all begin with a letter.
    for name in filled.iter().filter(|name| !name.contains(':')) {
        assert!(name.split('-').all(|word| word.starts_with(|c: char| c.is_ascii_lowercase())), "{name}");
    }
}

#[test]
fn invariant_1_an_adapter_that_imports_anything_but_types_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = component(folder.path(), "good", "export witgate:adapter/chat@0.1.0;");
    compose(&custom(&good), &root()).expect("an adapter that imports nothing");
    let nosy = "import wasi:random/random@0.3.0; export witgate:adapter/chat@0.1.0;";
    let nosy = component(folder.path(), "nosy", nosy);
    assert_eq!(imports(&std::fs::read(&nosy).expect("read")).expect("imports"), ["wasi:random/random@0.3.0"]);
    let error = refused(&custom(&nosy));
    assert!(error.contains("custom") && error.contains("nosy.wasm imports wasi:random/random@0.3.0"), "{error}");
}

#[test]
fn what_is_no_adapter_is_refused() {
    let error = refused(&custom("target/components/normaliser.wasm"));
    assert!(error.contains("doesn't export witgate:adapter/chat@0.1.0"), "{error}");
    let error = refused(&custom("Cargo.toml"));
    assert!(error.contains("Cargo.toml is no component"), "{error}");
    let error = refused(&custom("target/components/no-such.wasm"));
    assert!(error.contains("no-such.wasm") && error.contains("cargo xtask components"), "{error}");
}

#[test]
fn a_slot_that_nothing_fills_is_refused() {
    let line = manifest().lines().find(|line| line.starts_with("custom = ")).expect("the slot").to_owned();
    let error = refused(&replaced(&line, ""));
    assert!(error.contains("custom would stay without a provider"), "{error}");
    let error = refused(&replaced("custom = {", "costum = {"));
    assert!(error.contains("costum: doesn't match any import of gateway"), "{error}");
}

#[test]
fn a_dependency_that_inherits_is_refused() {
    let stub = "stub = { path = \"target/components/adapter-stub.wasm\",";
    for inherits in ["inherit_configuration = true,", "inherit_configuration = [\"allowed_outbound_hosts\"],"] {
        let error = refused(&replaced(stub, &format!("{stub} {inherits}")));
        assert!(error.contains("stub: inherit_configuration is set"), "{error}");
    }
    compose(&replaced(stub, &format!("{stub} inherit_configuration = false,")), &root()).expect("false is the default");
    let error = refused(&replaced(stub, &format!("{stub} inherit_configuratoin = false,")));
    assert!(error.contains("inherit_configuratoin"), "{error}");
    let all = "files = [{ source = \"spin\", destination = \"/\" }]";
    let error = refused(&replaced(all, &format!("{all}\ndependencies_inherit_configuration = true")));
    assert!(error.contains("must inherit nothing"), "{error}");
}

/// What Spin 4.1 reads (its crate `spin-manifest`, `AppManifest`), which refuses a key that it does not know.
mod spin {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    pub struct Manifest {
        pub spin_manifest_version: u32,
        pub application: Application,
        pub variables: BTreeMap<String, Variable>,
        pub trigger: BTreeMap<String, Vec<Trigger>>,
        pub component: BTreeMap<String, Component>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    pub struct Application {
        pub name: String,
        pub version: String,
        pub description: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Variable {
        pub default: Option<String>,
        #[serde(default)]
        pub required: bool,
        #[serde(default)]
        pub secret: bool,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Trigger {
        pub route: String,
        pub component: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    pub struct Component {
        pub source: String,
        pub files: Vec<Placement>,
        pub key_value_stores: Vec<String>,
        pub allowed_outbound_hosts: Vec<String>,
        pub variables: BTreeMap<String, String>,
        pub dependencies: BTreeMap<String, Dependency>,
        pub build: Build,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Placement {
        pub source: String,
        pub destination: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Dependency {
        pub path: String,
        pub export: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    pub struct Build {
        pub command: String,
        pub watch: Vec<String>,
    }
}

#[test]
fn spin_toml_is_what_spin_reads() {
    let manifest: spin::Manifest = toml::from_str(&manifest()).expect("spin.toml in Spin's shape");
    assert_eq!(manifest.spin_manifest_version, 2);
    let [trigger] = manifest.trigger["http"].as_slice() else { panic!("one HTTP trigger") };
    assert_eq!((trigger.route.as_str(), trigger.component.as_str()), ("/...", "gateway"));
    let gateway = &manifest.component["gateway"];
    for host in &gateway.allowed_outbound_hosts {
        // With another scheme a dependency could open connections; a path is refused by Spin.
        let rest = host.strip_prefix("http://").or_else(|| host.strip_prefix("https://"));
        assert!(rest.is_some_and(|rest| !rest.contains('/')), "{host}");
    }
    // The one that `[state] store = "key-value"` opens.
    assert_eq!(gateway.key_value_stores, ["default"]);
    for (name, variable) in &manifest.variables {
        assert!(variable.default.is_some() != variable.required, "{name}: a default, or required");
        let secret =
            ["_key", "_key_id", "_session_token", "_bearer_token_bedrock"].iter().any(|end| name.ends_with(end));
        assert_eq!(variable.secret, secret, "{name}");
        assert_eq!(gateway.variables.get(name), Some(&format!("{{{{ {name} }}}}")), "{name}");
    }
    assert_eq!(manifest.variables.len(), gateway.variables.len());
    for (name, dependency) in &gateway.dependencies {
        // Spin takes an `export` for plain names; a package's interface is its own export.
        assert_eq!(dependency.export.is_some(), !name.contains(':'), "{name}");
        assert!(root().join(&dependency.path).exists(), "{} is not built", dependency.path);
    }
    for mount in &gateway.files {
        assert!(mount.destination == "/" && root().join(&mount.source).is_dir(), "{}", mount.source);
    }
}
