//! The project's own commands: `cargo xtask --help`.
#![allow(clippy::print_stdout)]

mod components;
mod types;
mod world;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser;

/// Builds, composes, checks and tests witgate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Writes what is generated from the WIT: the types of crates/model.
    Wit {
        /// Writes nothing; fails where a file differs from what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Builds the components into target/components.
    Components,
    /// Composes gateway, normaliser and adapters as spin.toml says, into target/components/witgate.wasm.
    Compose,
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Wit { check } => wit(check),
        Command::Components => components::build(true),
        Command::Compose => compose(),
    }
}

fn wit(check: bool) -> Result<()> {
    let adapter = root().join("wit/adapter");
    let normaliser = root().join("wit/normaliser");
    write(check, "crates/model/src/types.rs", &types::generate(std::slice::from_ref(&adapter), "types")?)?;
    write(check, "crates/model/src/normaliser.rs", &types::generate(&[adapter, normaliser], "types")?)?;
    let chat = std::fs::read_to_string(root().join("wit/adapter/chat.wit"))?;
    write(check, "components/gateway/wit/world.wit", &world::generate(&chat)?)
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
