//! Finds the components that the library includes: in `$WITGATE_COMPONENTS_DIR`, else in `target/components`, where
//! `cargo xtask components` puts them.
#![allow(clippy::print_stdout)]

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=WITGATE_COMPONENTS_DIR");
    let dir = match env::var_os("WITGATE_COMPONENTS_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../target/components"),
    };
    let adapters = ["anthropic", "bedrock", "llama-cpp", "ollama", "openai", "sagemaker", "stub"];
    let adapters = adapters.map(|name| format!("adapter-{name}"));
    for name in adapters.iter().map(String::as_str).chain(["normaliser", "policy-guard", "policy-redactor"]) {
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
