//! The project's own commands: `cargo xtask --help`.
#![allow(clippy::print_stdout)]

mod types;

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
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Wit { check } => wit(check),
    }
}

fn wit(check: bool) -> Result<()> {
    let file = root().join("crates/model/src/types.rs");
    let text = types::generate(&root().join("wit/adapter"))?;
    let old = std::fs::read_to_string(&file).unwrap_or_default();
    if old == text {
        return Ok(());
    }
    if check {
        bail!("{} differs from wit/adapter/types.wit: run `cargo xtask wit`", file.display());
    }
    std::fs::write(&file, text)?;
    println!("wrote {}", file.display());
    Ok(())
}
