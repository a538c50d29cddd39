//! The project's own commands: `cargo xtask --help`.
#![allow(clippy::print_stdout)]

mod api;
mod components;
mod docs;
mod types;
mod world;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

/// Builds, composes, checks and tests witgate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Builds all there is and starts the gateway; arguments go to `witgate serve`.
    Serve {
        /// As `witgate serve --help` says.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs all tests: crates, components, the host, the composed component, end to end.
    Test,
    /// Builds the components, the host and the composed component, and nothing more.
    Build,
    /// Writes what is generated from the WIT: Rust types, the gateway component's world, the reference in docs/.
    Wit {
        /// Writes nothing; fails where a file differs from what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Compares the public API of the library with docs/public-api.txt, and says what a change of it means.
    Api {
        /// Writes docs/public-api.txt anew.
        #[arg(long)]
        renew: bool,
        /// A folder in which rustdoc has described the crates in JSON. Without it, that is done, with a release build.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Builds the components into target/components.
    Components {
        /// Only these, by their files' names: normaliser, adapter-openai, gateway … Without any: all.
        names: Vec<String>,
    },
    /// Composes gateway, normaliser and adapters as spin.toml says, into target/components/witgate.wasm.
    Compose,
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Serve { arguments } => serve(&arguments),
        Command::Test => test(),
        Command::Build => build(),
        Command::Wit { check } => wit(check),
        Command::Api { renew, json } => api(renew, json),
        Command::Components { names } => components::build(true, &names),
        Command::Compose => compose(),
    }
}

/// Builds, then becomes the gateway, so that signals reach it.
fn serve(arguments: &[String]) -> Result<()> {
    eprintln!("witgate: building the components (WebAssembly)");
    components::build(false, &[])?;
    eprintln!("witgate: building the host (the first time, this takes some minutes)");
    run(cargo().args(["build", "--release", "--bin", "witgate"]))?;
    let mut gateway = Process::new(root().join("target/release/witgate"));
    if std::env::var_os("WITGATE_LOG_FORMAT").is_none() {
        // Somebody sits in front of it, even where the output goes through a pipe.
        gateway.env("WITGATE_LOG_FORMAT", "text");
    }
    let error = gateway.arg("serve").args(arguments).exec();
    bail!("start target/release/witgate: {error}")
}

fn build() -> Result<()> {
    components::build(true, &[])?;
    run(cargo().args(["build", "--release", "--bin", "witgate", "--bin", "witgate-wasi-serve"]))?;
    compose()
}

fn test() -> Result<()> {
    wit(true)?;
    build()?;
    guests()?;
    // The examples, which measure, take minutes to build, and clippy looks at them.
    run(cargo().args(["test", "--release", "--no-fail-fast", "--lib", "--bins", "--tests"]))?;
    run(cargo().args(["test", "--release", "--no-fail-fast", "--doc"]))?;
    run(cargo()
        .current_dir(root().join("examples/adapter-rust"))
        .args(["test", "--target-dir"])
        .arg(root().join("target")))?;
    python()?;
    run(&mut Process::new(root().join("tests/e2e/run")))
}

/// The example's adapters in other languages, built from their registries.
fn guests() -> Result<()> {
    run(&mut Process::new(root().join("examples/adapter-python/build")))?;
    run(&mut Process::new(root().join("examples/adapter-js/build")))?;
    run(Process::new("node").arg("--test").current_dir(root().join("examples/adapter-js")))
}

/// What Python checks beside the end-to-end suite: the Bedrock codec against AWS's own models, an adapter in Python.
fn python() -> Result<()> {
    let made = Process::new(root().join("tests/tools/venv")).stderr(Stdio::inherit()).output()?;
    ensure!(made.status.success(), "tests/tools/venv failed ({})", made.status);
    let python = PathBuf::from(String::from_utf8(made.stdout)?.trim()).join("bin/python");
    let bedrock = root().join("tests/fixtures/upstream/bedrock");
    run(Process::new(&python).arg(bedrock.join("make.py")).arg("--check"))?;
    run(Process::new(&python).arg(bedrock.join("check_requests.py")))?;
    run(Process::new(&python).arg(root().join("examples/adapter-python/test_chat.py")))
}

/// Cargo in the root. What is built is chosen by its target, never by `--package`: that would choose other features of
/// wasmtime than the tests have, and compile it once more.
fn cargo() -> Process {
    let mut cargo = Process::new(env!("CARGO"));
    cargo.current_dir(root());
    // What `cargo run` tells us of this package: build scripts of others look at it, and half of all would be built again
    // after each change between `cargo xtask test` and `cargo test`.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn run(command: &mut Process) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    ensure!(status.success(), "{} failed ({status})", command.get_program().display());
    Ok(())
}

fn wit(check: bool) -> Result<()> {
    let adapter = root().join("wit/adapter");
    let normaliser = root().join("wit/normaliser");
    write(check, "crates/model/src/types.rs", &types::generate(std::slice::from_ref(&adapter), "types")?)?;
    let policy = root().join("wit/policy");
    let of = |package| types::generate(&[adapter.clone(), package], "types");
    write(check, "crates/model/src/normaliser.rs", &of(normaliser)?)?;
    write(check, "crates/model/src/policy.rs", &of(policy.clone())?)?;
    let adapters =
        docs::generate(std::slice::from_ref(&adapter), "wit/adapter", "the adapter contract", ["chat", "types"])?;
    write(check, "docs/adapter-contract.md", &adapters)?;
    let policies = docs::generate(&[adapter, policy], "wit/policy", "the contract of policies", ["hooks", "types"])?;
    write(check, "docs/policy-contract.md", &policies)?;
    let chat = std::fs::read_to_string(root().join("wit/adapter/chat.wit"))?;
    let types = std::fs::read_to_string(root().join("wit/adapter/types.wit"))?;
    for language in ["python", "js"] {
        let folder = format!("templates/witgate-adapter-{language}/content/wit");
        write(check, &format!("{folder}/chat.wit"), &chat)?;
        write(check, &format!("{folder}/types.wit"), &types)?;
    }
    let policy = std::fs::read_to_string(root().join("wit/policy/policy.wit"))?;
    write(check, "components/gateway/wit/world.wit", &world::generate(&chat, &policy)?)
}

fn api(renew: bool, json: Option<PathBuf>) -> Result<()> {
    let (file, version) = (root().join(api::FILE), env!("CARGO_PKG_VERSION"));
    let lines = api::list(&match json {
        Some(folder) => folder,
        None => api::describe(&root())?,
    })?;
    if renew {
        return Ok(std::fs::write(&file, api::text(version, &lines))?);
    }
    api::compare(&std::fs::read_to_string(&file).with_context(|| format!("read {}", api::FILE))?, version, &lines)
}

fn compose() -> Result<()> {
    let composed = xtask::compose::compose(&std::fs::read_to_string(root().join("spin.toml"))?, &root())?;
    let file = components::dir().join("witgate.wasm");
    std::fs::write(&file, &composed.bytes)?;
    for (import, dependency) in &composed.filled {
        println!("{import} = {}", dependency.display());
    }
    println!("imports {}", composed.imports.join(", "));
    println!("wrote {} ({} KiB)", file.display(), composed.bytes.len() / 1024);
    Ok(())
}

/// Writes a generated file, or, to check, fails where it differs.
fn write(check: bool, file: &str, text: &str) -> Result<()> {
    let path = root().join(file);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if check {
        bail!("{file} is not what the WIT says: run `cargo xtask wit`");
    }
    std::fs::write(&path, text)?;
    println!("wrote {file}");
    Ok(())
}
