//! The public API of the library `witgate_host`, as a list that is committed: what a change of it means for those who
//! embed the host is seen in review, and said by `cargo xtask api`.
//!
//! The list holds what an embedder can name: all of `witgate_host`, all of the contract's types in `witgate_model`, and what
//! the host gives on of `witgate_gateway`. A configuration is written as a file; the Rust types of `witgate_config` are not
//! promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use public_api::Builder;
use serde_json::Value;

/// The list, from the root.
pub const FILE: &str = "docs/public-api.txt";

/// What it begins with; the version follows.
const TITLE: &str = "# What programs that embed witgate use, as of version ";

/// Has rustdoc describe the crates in JSON; gives the folder.
pub fn describe(root: &Path) -> Result<PathBuf> {
    let mut cargo = crate::cargo();
    cargo.current_dir(root).args(["doc", "--release", "--workspace", "--lib", "--no-deps", "--quiet"]);
    // Rustdoc alone is told to do what is not stable: told to the compiler too, it would build everything once more.
    cargo.env("RUSTDOC", root.join("xtask/rustdoc")).env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json");
    let status = cargo.status().context("start cargo doc")?;
    if !status.success() {
        bail!("cargo doc failed ({status})");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("doc"))
}

/// Makes the list of rustdoc's description in a folder.
pub fn list(folder: &Path) -> Result<BTreeSet<String>> {
    let json = |name: &str| folder.join(format!("{name}.json"));
    let mut lines = items(&json("witgate_host"))?;
    lines.extend(items(&json("witgate_model"))?);
    let host: Value = serde_json::from_slice(&std::fs::read(json("witgate_host"))?)?;
    let given_on = given_on(&host, "witgate_gateway::");
    lines.extend(items(&json("witgate_gateway"))?.into_iter().filter(|line| is_of(line, &given_on)));
    Ok(lines)
}

/// The public items of one crate, each on a line.
fn items(json: &Path) -> Result<BTreeSet<String>> {
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("read {}", json.display()))?;
    Ok(api.items().map(|item| item.to_string()).collect())
}

/// The paths that a crate's `pub use` name, of those that begin with `of`.
fn given_on(json: &Value, of: &str) -> BTreeSet<String> {
    let index = json["index"].as_object();
    let uses = index.into_iter().flatten().filter_map(|(_, item)| item["inner"]["use"]["source"].as_str());
    uses.filter(|source| source.starts_with(of)).map(str::to_owned).collect()
}

/// Whether a line of a list says something of one of the paths.
fn is_of(line: &str, paths: &BTreeSet<String>) -> bool {
    // The first path of the crate is what the line is about: what follows are types of its signature.
    let Some(from) = line.find("witgate_gateway::") else { return false };
    let rest = &line[from..];
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
    let mut path = &rest[..end];
    loop {
        if paths.contains(path) {
            return true;
        }
        match path.rsplit_once("::") {
            Some((parent, _)) => path = parent,
            None => return false,
        }
    }
}

/// The list as the file has it.
pub fn text(version: &str, lines: &BTreeSet<String>) -> String {
    let mut text = format!("{TITLE}{version}; `cargo xtask api` compares, `cargo xtask api --renew` writes it.\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Compares a committed list with what there is now. The error says what changed, and which version that would be.
pub fn compare(committed: &str, version: &str, lines: &BTreeSet<String>) -> Result<()> {
    let (title, rest) = committed.split_once('\n').unwrap_or((committed, ""));
    let before = title.strip_prefix(TITLE).and_then(|rest| rest.split(';').next());
    let before = before.with_context(|| format!("the first line of {FILE} says no version; renew it"))?;
    let old: BTreeSet<&str> = rest.lines().collect();
    let new: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let mut changes = BTreeMap::new();
    changes.extend(old.difference(&new).map(|line| (*line, '-')));
    changes.extend(new.difference(&old).map(|line| (*line, '+')));
    if changes.is_empty() {
        return Ok(());
    }
    let breaks = changes.values().any(|sign| *sign == '-');
    let change: String = changes.iter().map(|(line, sign)| format!("{sign} {line}\n")).collect();
    let (kind, needed) = match breaks {
        true => ("breaks programs that embed witgate (a major change)", next(before, true)?),
        false => ("adds to the public API (a minor change)", next(before, false)?),
    };
    let version = match at_least(version, &needed)? {
        true => format!("the version is {version}, as it must"),
        false => format!("once {before} is released, the version must become {needed}"),
    };
    bail!("{change}This {kind}: {version}.\nIf it is meant, run `cargo xtask api --renew` and commit {FILE}.")
}

fn numbers(version: &str) -> Result<[u64; 3]> {
    let parts: Option<Vec<u64>> = version.split('.').map(|part| part.parse().ok()).collect();
    parts.and_then(|parts| parts.try_into().ok()).with_context(|| format!("{version:?} is no version like 1.2.3"))
}

/// The first version that a change may have, by Cargo's rules.
fn next(version: &str, breaks: bool) -> Result<String> {
    let [major, minor, patch] = numbers(version)?;
    let next = match (major, minor, breaks) {
        (0, 0, _) => [0, 0, patch + 1],
        (0, _, true) => [0, minor + 1, 0],
        (0, _, false) => [0, minor, patch + 1],
        (_, _, true) => [major + 1, 0, 0],
        (_, _, false) => [major, minor + 1, 0],
    };
    Ok(next.map(|number| number.to_string()).join("."))
}

fn at_least(version: &str, needed: &str) -> Result<bool> {
    Ok(numbers(version)? >= numbers(needed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    fn said(old: &[&str], new: &[&str], before: &str, version: &str) -> String {
        let committed = text(before, &set(old));
        compare(&committed, version, &set(new)).map_or_else(|error| error.to_string(), |()| "same".to_owned())
    }

    #[test]
    fn what_is_added_is_a_minor_change_and_what_is_gone_a_major_one() {
        assert_eq!(said(&["a", "b"], &["b", "a"], "0.1.0", "0.1.0"), "same");
        let added = said(&["a"], &["a", "b"], "0.1.0", "0.1.0");
        assert!(added.starts_with("+ b\nThis adds") && added.contains("must become 0.1.1"), "{added}");
        let gone = said(&["a", "b"], &["a", "c"], "0.1.4", "0.1.4");
        assert!(gone.starts_with("- b\n+ c\nThis breaks") && gone.contains("must become 0.2.0"), "{gone}");
        assert!(said(&["a"], &[], "1.2.3", "2.0.0").contains("the version is 2.0.0, as it must"));
        assert!(said(&["a"], &["a", "b"], "1.2.3", "1.2.4").contains("must become 1.3.0"));
    }

    #[test]
    fn of_the_gateway_only_what_the_host_gives_on_is_listed() {
        let paths = set(&["witgate_gateway::Record", "witgate_gateway::event"]);
        for (line, is) in [
            ("pub struct witgate_gateway::Record", true),
            ("pub witgate_gateway::Record::method: alloc::string::String", true),
            ("pub fn witgate_gateway::event::read(bytes: &[u8])", true),
            ("pub struct witgate_gateway::Records", false),
            ("pub fn witgate_gateway::Gateway::of(record: &witgate_gateway::Record)", false),
            ("impl core::fmt::Debug for witgate_gateway::Record", true),
        ] {
            assert_eq!(is_of(line, &paths), is, "{line}");
        }
    }

    #[test]
    fn what_a_crate_gives_on_is_read_from_its_description() {
        let json = serde_json::json!({"index": {
            "1": {"inner": {"use": {"source": "witgate_gateway::Record"}}},
            "2": {"inner": {"use": {"source": "crate::server::Server"}}},
            "3": {"inner": {"struct": {}}},
        }});
        assert_eq!(given_on(&json, "witgate_gateway::"), set(&["witgate_gateway::Record"]));
    }
}
