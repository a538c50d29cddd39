//! Builds the components into `target/components`.
//!
//! Adapters and the normaliser are built for `wasm32-unknown-unknown` and wrapped here, so that they import nothing; the
//! gateway for `wasm32-wasip2`, whose linker makes a component of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wit_component::ComponentEncoder;

use crate::root;

/// The packages that become components without any import, and the names of their files.
const PURE: &[(&str, &str)] = &[
    ("witgate-normaliser", "normaliser"),
    ("witgate-adapter-llama-cpp", "adapter-llama-cpp"),
    ("witgate-adapter-openai", "adapter-openai"),
    ("witgate-adapter-stub", "adapter-stub"),
    ("witgate-adapter-bedrock", "adapter-bedrock"),
    ("witgate-adapter-sagemaker", "adapter-sagemaker"),
    ("witgate-adapter-anthropic", "adapter-anthropic"),
    ("witgate-adapter-ollama", "adapter-ollama"),
    ("witgate-policy-guard", "policy-guard"),
    ("witgate-policy-redactor", "policy-redactor"),
    ("witgate-absent", "absent"),
];

/// Packages outside the workspace that become such components too: what a third party would write, and guests that misbehave.
const APART: &[(&str, &str)] = &[
    ("examples/adapter-rust", "adapter-shout"),
    ("tests/guests/hostile", "tests/hostile"),
    ("tests/guests/wrong-policy", "tests/wrong-policy"),
    ("tests/guests/hostile-policy", "tests/hostile-policy"),
];

/// The gateway's own file.
const GATEWAY: &str = "gateway";

/// Where the components are.
pub fn dir() -> PathBuf {
    root().join("target/components")
}

/// Builds the components of these names; all where there is none. `tests`: those too that only tests need.
pub fn build(tests: bool, names: &[String]) -> Result<()> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let known = || PURE.iter().chain(APART).map(|(_, name)| *name).chain([GATEWAY]);
    if let Some(unknown) = names.iter().find(|name| !known().any(|known| known == name.as_str())) {
        bail!("no component {unknown}; there are {}", known().collect::<Vec<_>>().join(", "));
    }
    target("wasm32-unknown-unknown")?;
    let pure: Vec<_> = PURE.iter().filter(|(_, name)| wanted(name)).collect();
    let packages: Vec<_> = pure.iter().flat_map(|(package, _)| ["-p", package]).collect();
    if !packages.is_empty() {
        cargo(&root(), "wasm32-unknown-unknown", &packages)?;
    }
    for (package, name) in pure {
        wrap(&root().join("target/wasm32-unknown-unknown/component"), package, name)?;
    }
    write(&dir().join("composition.wasm"), &witgate_compose::composition("", &[], &[]).wasm)?;
    if tests {
        for (folder, name) in APART.iter().filter(|(_, name)| wanted(name)) {
            let folder = root().join(folder);
            if !folder.exists() {
                continue;
            }
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
            let package = manifest
                .lines()
                .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
                .with_context(|| format!("no package name in {}", folder.display()))?;
            cargo(&folder, "wasm32-unknown-unknown", &[])?;
            wrap(&root().join("target/wasm32-unknown-unknown/component"), package, name)?;
        }
    }
    if wanted(GATEWAY) && root().join("components/gateway/Cargo.toml").exists() {
        target("wasm32-wasip2")?;
        cargo(&root(), "wasm32-wasip2", &["-p", "witgate-gateway-component"])?;
        let built = root().join("target/wasm32-wasip2/component/witgate_gateway_component.wasm");
        write(&dir().join("gateway.wasm"), &std::fs::read(&built).with_context(|| built.display().to_string())?)?;
    }
    Ok(())
}

fn cargo(folder: &Path, target: &str, arguments: &[&str]) -> Result<()> {
    let status = crate::cargo()
        .current_dir(folder)
        .args(["build", "--profile", "component", "--target", target, "--target-dir"])
        .arg(root().join("target"))
        .args(arguments)
        .status()?;
    ensure!(status.success(), "cargo build for {target} failed in {}", folder.display());
    Ok(())
}

/// Makes a component of a core module that carries its WIT; takes what a linker has made one already as it is.
fn wrap(folder: &Path, package: &str, name: &str) -> Result<()> {
    let module = folder.join(format!("{}.wasm", package.replace('-', "_")));
    let bytes = std::fs::read(&module).with_context(|| module.display().to_string())?;
    let file = dir().join(format!("{name}.wasm"));
    if bytes.starts_with(b"\0asm\x0d\0\x01\0") {
        return write(&file, &bytes);
    }
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("make a component of {}", module.display()))?;
    write(&file, &component)
}

/// Writes a file unless it is the same already, so that what depends on it is not built again.
fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::create_dir_all(file.parent().expect("a file in a folder"))?;
    std::fs::write(file, bytes).with_context(|| file.display().to_string())
}

/// Installs a wasm target where rustup does not have it.
fn target(name: &str) -> Result<()> {
    let libs = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", name])
        .output()
        .context("run rustc")?;
    let dir = String::from_utf8(libs.stdout)?;
    if Path::new(dir.trim()).exists() {
        return Ok(());
    }
    eprintln!("witgate: adding the Rust target {name}");
    match Command::new("rustup").args(["target", "add", name]).status() {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("the Rust target {name} is missing and `rustup target add {name}` failed: install it and try again"),
    }
}
