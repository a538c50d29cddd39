//! Finds the components that the library includes: in `$WITGATE_COMPONENTS_DIR`, else in `target/components`, where
//! `cargo xtask components` puts them. Lists the canonical requests and the templates, which it
//! includes too.
#![allow(clippy::print_stdout)]

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    canonical_requests();
    templates();
    println!("cargo::rerun-if-env-changed=WITGATE_COMPONENTS_DIR");
    let dir = match env::var_os("WITGATE_COMPONENTS_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../target/components"),
    };
    let adapters = ["anthropic", "bedrock", "llama-cpp", "ollama", "openai", "sagemaker", "stub"];
    let adapters = adapters.map(|name| format!("adapter-{name}"));
    for name in adapters.iter().map(String::as_str).chain([
        "absent",
        "gateway",
        "normaliser",
        "policy-guard",
        "policy-redactor",
    ]) {
        let file = std::path::absolute(dir.join(format!("{name}.wasm"))).unwrap_or_default();
        println!("cargo::rerun-if-changed={}", file.display());
        if !file.is_file() {
            println!("cargo::error={} is not there: run `cargo xtask components` first", file.display());
            continue;
        }
        let variable = name.to_uppercase().replace('-', "_");
        println!("cargo::rustc-env=WITGATE_{variable}={}", file.display());
    }
}

/// Writes the list of `tests/fixtures/requests`: the name of each, as `anthropic-messages/tools`, and its text.
fn canonical_requests() {
    let named = |path: &str| path.strip_suffix(".json").map(str::to_owned);
    include("../tests/fixtures/requests", "CANONICAL", "canonical.rs", &named);
}

/// Writes the list of `templates`: the path of each file, and its text.
fn templates() {
    include("../templates", "TEMPLATES", "templates.rs", &|path| Some(path.to_owned()));
}

/// Writes a list of a folder's files, as code that includes them. `named`: the name of the file of this path.
fn include(folder: &str, constant: &str, file: &str, named: &dyn Fn(&str) -> Option<String>) {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(folder);
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut all = Vec::new();
    list(&folder, "", &mut all);
    all.sort();
    let mut code = format!("const {constant}: &[(&str, &str)] = &[\n");
    for (path, file) in all {
        if let Some(name) = named(&path) {
            let _ = writeln!(code, "    ({name:?}, include_str!({file:?})),");
        }
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(file);
    if let Err(error) = std::fs::write(&out, code) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

fn list(folder: &Path, prefix: &str, all: &mut Vec<(String, PathBuf)>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return println!("cargo::error=cannot read {}: {error}", folder.display()),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            list(&path, &format!("{name}/"), all);
        } else {
            all.push((name, std::path::absolute(&path).unwrap_or(path)));
        }
    }
}
