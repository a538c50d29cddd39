//! What ARCHITECTURE.md says is absent, is absent.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The part of a source file in front of its unit tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or(source)
}

fn crates() -> Vec<PathBuf> {
    let crates: Vec<_> = std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(crates.len() >= 6, "{crates:?}");
    crates
}

#[test]
fn invariant_1_no_built_component_imports_anything_but_types() {
    let folder = root().join("target/components");
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("run `cargo xtask components` first") {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("adapter-") || name == "normaliser.wasm") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let wit_component::DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes).unwrap() else {
            panic!("{name} is not a component")
        };
        for (key, item) in &resolve.worlds[world].imports {
            let import = resolve.name_world_key(key);
            let wit_parser::WorldItem::Interface { id, .. } = item else { panic!("{name} imports {import}") };
            let interface = &resolve.interfaces[*id];
            assert!(interface.functions.is_empty(), "{name} imports functions of {import}");
            let resource = |id: &wit_parser::TypeId| resolve.types[*id].kind == wit_parser::TypeDefKind::Resource;
            assert!(!interface.types.values().any(resource), "{name} imports a resource of {import}");
        }
        checked.push(name);
    }
    let adapters = ["anthropic", "bedrock", "llama-cpp", "ollama", "openai", "sagemaker", "stub"];
    for name in adapters.map(|name| format!("adapter-{name}.wasm")).into_iter().chain(["normaliser.wasm".to_owned()]) {
        assert!(checked.contains(&name), "{name} was not checked: {checked:?}");
    }
}

#[test]
fn invariant_2_no_crate_under_crates_does_io_reads_a_clock_or_the_environment() {
    const FORBIDDEN: [&str; 19] = [
        "std::fs",
        // Addresses are values; sockets and look-ups are not.
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "std::env",
        "std::process",
        "std::thread",
        "std::io::stdin",
        "std::io::stdout",
        "std::os",
        // Times are values too; reading a clock is not.
        "SystemTime::now",
        "OffsetDateTime::now",
        ".elapsed()",
        "Instant",
        "tokio::",
        "println!",
        "include_bytes!",
        "rand::",
    ];
    let mut checked = 0;
    for folder in crates() {
        let mut files = Vec::new();
        rust_files(&folder.join("src"), &mut files);
        for file in files {
            let source = std::fs::read_to_string(&file).unwrap();
            for (at, line) in without_tests(&source).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in FORBIDDEN {
                    assert!(!code.contains(word), "{}:{}: {word}", file.display(), at + 1);
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} files");
}

#[test]
fn unsafe_code_is_forbidden_in_every_crate() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    // Components, and the SDK for them, hold what wit-bindgen generates; all else takes the workspace's lints.
    assert!(std::fs::read_to_string(root().join("sdk/src/lib.rs")).unwrap().contains("#![deny(unsafe_code)]"));
    for folder in crates().into_iter().chain([root().join("host"), root().join("xtask"), root().join("tests/wasi")]) {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", folder.display());
    }
}

#[test]
fn what_a_component_shell_holds_is_no_logic() {
    for entry in std::fs::read_dir(root().join("components")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("adapter-") {
            let source = std::fs::read_to_string(path.join("src/lib.rs")).unwrap();
            let code = source.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).count();
            assert_eq!(code, 1, "{name} is one macro call");
        }
    }
}
