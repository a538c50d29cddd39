//! `witgate new`, and the templates that it writes.

use std::collections::BTreeMap;
use std::path::Path;

use witgate_host::new::{NewError, Project};

fn files(name: &str, language: &str) -> BTreeMap<String, String> {
    Project::new(name, language).files().unwrap().into_iter().collect()
}

fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[test]
fn the_examples_are_what_the_templates_write() {
    // The example's package is called after its file, its adapter is not.
    let rust = files("shout", "rust");
    let example = repository("examples/adapter-rust/src/lib.rs").replace("adapter_shout", "shout");
    assert_eq!(rust["src/lib.rs"], example);
    assert_eq!(rust["src/tests.rs"], repository("examples/adapter-rust/src/tests.rs"));
    assert_eq!(rust[".cargo/config.toml"], repository("examples/adapter-rust/.cargo/config.toml"));
    assert_eq!(files("shout-py", "python")["src/chat.py"], repository("examples/adapter-python/chat.py"));
    let js = files("shout-js", "js");
    assert_eq!(js["chat.js"], repository("examples/adapter-js/chat.js"));
    assert_eq!(js["chat.test.js"], repository("examples/adapter-js/chat.test.js"));
}

#[test]
fn every_template_is_filled_and_whole() {
    for language in ["rust", "python", "js"] {
        let all = files("my-own-2", language);
        for name in ["build", "witgate.toml", "README.md", ".gitignore", "samples/meta.json", "samples/chat.sse"] {
            assert!(all.contains_key(name), "{language}: {name} of {:?}", all.keys());
        }
        for (name, text) in &all {
            assert!(!text.contains("{{") && !name.ends_with(".tmpl"), "{language}: {name}");
        }
        let toml = &all["witgate.toml"];
        assert!(witgate_config::Config::from_toml(toml, "witgate.toml", &|_| None).is_ok(), "{toml}");
        let manifest = repository(&format!("templates/witgate-adapter-{language}/metadata/spin-template.toml"));
        assert!(manifest.contains(&format!("id = \"witgate-adapter-{language}\"")), "{manifest}");
    }
    assert!(files("my-own-2", "rust")["build"].contains("component/my_own_2.wasm"));
    assert!(files("a", "rust")["Cargo.toml"].contains("witgate-sdk = { path = \"/"));
}

#[test]
fn the_template_of_a_policy_is_filled_and_whole() {
    let all: BTreeMap<String, String> = Project::policy("my-own-2").files().unwrap().into_iter().collect();
    for name in ["build", "witgate.toml", "README.md", ".gitignore", "src/lib.rs", "src/tests.rs", "samples/words.json"]
    {
        assert!(all.contains_key(name), "{name} of {:?}", all.keys());
    }
    for (name, text) in &all {
        assert!(!text.contains("{{") && !name.ends_with(".tmpl"), "{name}");
    }
    let toml = &all["witgate.toml"];
    let config = witgate_config::Config::from_toml(toml, "witgate.toml", &|_| None).unwrap();
    assert!(config.policies.contains_key("my-own-2") && config.policy_chain == ["my-own-2"], "{toml}");
    assert_eq!(all[".cargo/config.toml"], files("a", "rust")[".cargo/config.toml"]);
    let manifest = repository("templates/witgate-policy-rust/metadata/spin-template.toml");
    assert!(manifest.contains("id = \"witgate-policy-rust\""), "{manifest}");
    let mut other = Project::policy("mine");
    other.language = "js".to_owned();
    assert!(other.files().unwrap_err().to_string().contains("a policy for the language \"js\""));
}

#[test]
fn a_project_is_written_into_an_empty_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("mine");
    Project::new("mine", "js").write(&at).unwrap();
    assert!(at.join("wit/types.wit").is_file());
    let error = Project::new("mine", "js").write(&at).unwrap_err();
    assert!(matches!(error, NewError::Taken(_)), "{error}");
    for (name, language) in [("Mine", "js"), ("../x", "js"), ("", "js"), ("mine", "cobol")] {
        let error = Project::new(name, language).write(&folder.path().join("other")).unwrap_err();
        assert!(matches!(error, NewError::Name(_) | NewError::Language(..)), "{error}");
        assert!(!folder.path().join("other").exists());
    }
}
