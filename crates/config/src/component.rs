//! Where the component of an adapter or a policy comes from, and what pins it.
//!
//! There are three sources: a file, a URL, and an artifact in an OCI registry. What is loaded is pinned by the SHA-256
//! of its bytes, in the configuration (`digest`) or in the lock file that `witgate adapters add` writes. A file needs no
//! pin, a URL has its own always, and an artifact is pinned by either, or by the digest of its manifest behind `@` in
//! its reference, which is what other tools write there. Development mode (`[plugins] development = true`) does without.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::endpoint::{self, Flaw};
use crate::file::is_component;
use crate::names::quote;
use crate::read::{At, Flag, Key, Reader, join, table};

/// Where a component comes from, and what pins it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentConfig {
    /// Where it comes from.
    pub source: ComponentSource,
    /// What its bytes must be.
    pub digest: Option<Digest>,
    /// It may be fetched from another machine without TLS.
    pub insecure: bool,
}

impl ComponentConfig {
    /// A component that nothing pins.
    pub fn new(source: ComponentSource) -> Self {
        ComponentConfig { source, digest: None, insecure: false }
    }
}

/// Where a component comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// A file, relative to the configuration file.
    Path(String),
    /// A URL, `https` or `http`.
    Url(String),
    /// An artifact in an OCI registry.
    Oci(Reference),
}

impl ComponentSource {
    /// The source that a person names: a URL, `oci:` and a reference or the reference alone, or the path of a file.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let said = |Flaw(what, help): Flaw| format!("{} {what}; {help}", quote(text, 200));
        if text.contains("://") && !text.starts_with("oci://") {
            return url(text).map(|()| ComponentSource::Url(text.to_owned())).map_err(|flaw| {
                match text.contains('@') {
                    // It might be a password.
                    true => format!("the URL {}; {}", flaw.0, flaw.1),
                    false => said(flaw),
                }
            });
        }
        let explicit = text.strip_prefix("oci:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        if explicit.is_none() && (is_component(text) || text.starts_with(['.', '/'])) {
            return Ok(ComponentSource::Path(text.to_owned()));
        }
        reference(explicit.unwrap_or(text)).map(ComponentSource::Oci).map_err(|flaw| match explicit {
            Some(_) => said(flaw),
            None => format!(
                "{} is neither a file that ends in \".wasm\", nor a URL, nor an artifact: as the latter it {}; {}",
                quote(text, 200),
                flaw.0,
                flaw.1
            ),
        })
    }

    /// The key that holds it in the table of an adapter.
    pub fn key(&self) -> &'static str {
        match self {
            ComponentSource::Path(_) => "path",
            ComponentSource::Url(_) => "url",
            ComponentSource::Oci(_) => "oci",
        }
    }
}

/// The path, the URL without its query, which may hold a token, or the reference behind `oci:`.
impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComponentSource::Path(path) => f.write_str(path),
            ComponentSource::Url(url) => f.write_str(url.split_once('?').map_or(url, |(base, _)| base)),
            ComponentSource::Oci(reference) => write!(f, "oci:{reference}"),
        }
    }
}

impl fmt::Debug for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.key())
    }
}

/// A SHA-256, as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Of a SHA-256 in hexadecimal.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| Digest(format!("sha256:{}", hex.to_ascii_lowercase())))
    }

    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Digest::of_sum(sha2::Sha256::digest(bytes).into())
    }

    /// A SHA-256 that was made elsewhere.
    pub(crate) fn of_sum(sum: [u8; 32]) -> Self {
        let mut text = String::from("sha256:");
        for byte in sum {
            // Writing into a string does not fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        }
        Digest(text)
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest; write \"sha256:\" and 64 hexadecimal digits")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        text.strip_prefix("sha256:").and_then(Digest::from_hex).ok_or(NoDigest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An artifact in an OCI registry: `registry/repository`, then `:tag`, `@digest` or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry's host, with its port where it has one.
    pub registry: String,
    /// The repository, as `acme/shout`.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest of the artifact's manifest. Where it is there, the tag is for people only.
    pub digest: Option<Digest>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether a host, with its port or without, is this machine: what is fetched from it needs no TLS.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(inside) => inside.split_once(']').map_or(inside, |(address, _)| address),
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

const REFERENCE: &str = "write registry/repository:tag, as ghcr.io/acme/shout:1.0";

/// Reads a reference. There are no short names: which registry is asked must be said.
fn reference(text: &str) -> Result<Reference, Flaw> {
    if text.len() > 1_024 {
        return Err(Flaw("is longer than 1,024 bytes", REFERENCE));
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let help = "write \"sha256:\" and 64 hexadecimal digits behind \"@\"";
            (name, Some(digest.parse().map_err(|_| Flaw("has no digest behind its \"@\"", help))?))
        }
        None => (text, None),
    };
    let Some((registry, name)) = name.split_once('/') else {
        return Err(Flaw("names no registry", REFERENCE));
    };
    if !(registry.contains(['.', ':']) || registry == "localhost") {
        return Err(Flaw("does not begin with the host of a registry", REFERENCE));
    }
    if endpoint::check(&format!("https://{registry}")).is_err() {
        return Err(Flaw("names a registry that is no host", REFERENCE));
    }
    let (repository, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
    if !(1..=255).contains(&repository.len()) || !repository.split('/').all(is_path_component) {
        let help = "a repository is small letters and digits, parted by \".\", \"_\", \"-\" and \"/\"";
        return Err(Flaw("names a repository that is none", help));
    }
    let good = |tag: &str| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    match tag {
        Some(tag) if !good(tag) => {
            let help = "a tag is letters, digits, \"_\", \".\" and \"-\", at most 128";
            return Err(Flaw("has a tag that is none", help));
        }
        None if digest.is_none() => return Err(Flaw("has neither a tag nor a digest", REFERENCE)),
        _ => {}
    }
    Ok(Reference {
        registry: registry.to_ascii_lowercase(),
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// Small letters and digits, parted by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(alphanumeric) && text.bytes().next_back().is_some_and(alphanumeric);
    ends && text
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

/// Whether a URL is one from which a component can be had. The messages do not show it.
fn url(text: &str) -> Result<(), Flaw> {
    let example = "write \"https://host/path/adapter.wasm\"";
    let (base, query) = text.split_once('?').map_or((text, ""), |(base, query)| (base, query));
    let authority = base.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if text.contains('#') {
        return Err(Flaw("has a fragment (\"#\")", example));
    }
    if authority.contains('@') {
        return Err(Flaw("holds a user or a password", "fetch the file yourself and write path = \"….wasm\""));
    }
    if base == "stub:" || text.len() > 2_048 || !query.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Flaw("is not a URL", example));
    }
    endpoint::check(base).map(|_| ()).map_err(|Flaw(what, _)| Flaw(what, example))
}

/// What all kinds of plug-ins have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins {
    /// What nothing pins is fetched as it is now, and a file may differ from what the lock file says of it.
    pub development: bool,
}

table! {
    /// What all adapters and policies of your own have in common.
    pub(crate) struct PluginsTable {
        /// For development: what nothing pins is fetched as it is now, a URL needs no digest, and a file may differ from
        /// what witgate.lock says of it. Default false.
        development: Flag;
    }
}

/// What a table says of its component.
pub(crate) struct Given {
    /// The key of a file, and the file.
    pub(crate) path: (&'static str, Option<At<String>>),
    pub(crate) url: Option<At<String>>,
    pub(crate) oci: Option<At<String>>,
    pub(crate) digest: Option<At<String>>,
    pub(crate) insecure: Option<At<bool>>,
}

impl Given {
    /// Whether it is said where the component is fetched from.
    pub(crate) fn is_fetched(&self) -> bool {
        self.url.is_some() || self.oci.is_some()
    }

    /// The one source, checked; `table` is the path of the table, `key` its place.
    pub(crate) fn resolve(
        self,
        table: &str,
        key: &Key,
        plugins: Plugins,
        reader: &mut Reader<'_>,
    ) -> Option<ComponentConfig> {
        let Given { path: (file_key, file), url: address, oci, digest, insecure } = self;
        let insecure_span = insecure.as_ref().map(|at| at.span.clone());
        let insecure = insecure.is_some_and(|at| at.value);
        let has_digest = digest.is_some();
        let digest = digest.and_then(|at| match at.value.parse() {
            Ok(digest) => Some(digest),
            Err(NoDigest) => {
                let help = "write \"sha256:\" and 64 hexadecimal digits";
                reader.problem(&at.span, &join(table, "digest"), "not a digest", Some(help.into()));
                None
            }
        });
        let given = [(file_key, file), ("url", address), ("oci", oci)];
        let mut given = given.into_iter().filter_map(|(key, at)| Some((key, at?)));
        let Some((source_key, at)) = given.next() else {
            if !reader.partial {
                let help = format!("write {file_key} = \"….wasm\", url = \"https://…\" with a digest, or oci = \"…\"");
                reader.problem(&key.span, table, "it is not said where the component is", Some(help));
            }
            return None;
        };
        let others: Vec<_> = given.collect();
        if let Some((other, second)) = others.first() {
            let message = format!("both \"{source_key}\" and \"{other}\"");
            reader.problem(&second.span, table, message, Some("keep one: a component has one source".into()));
            return None;
        }
        let path = join(table, source_key);
        let shown = match &at.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None if source_key == "url" => "the URL".to_owned(),
            None => quote(&at.value, 100),
        };
        let source = match source_key {
            "url" => match url(&at.value) {
                Ok(()) => ComponentSource::Url(at.value),
                Err(Flaw(what, help)) => {
                    reader.problem(&at.span, &path, format!("{shown} {what}"), Some(help.into()));
                    return None;
                }
            },
            "oci" => match reference(&at.value) {
                Ok(reference) => ComponentSource::Oci(reference),
                Err(Flaw(what, help)) => {
                    reader.problem(&at.span, &path, format!("{shown} {what}"), Some(help.into()));
                    return None;
                }
            },
            _ if is_component(&at.value) => ComponentSource::Path(at.value),
            _ => {
                let help = "write the path of a component file that ends in \".wasm\"";
                reader.problem(&at.span, &path, "not the path of a component", Some(help.into()));
                return None;
            }
        };
        match &source {
            ComponentSource::Url(text) => {
                let plain = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
                let host = text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
                if plain && !insecure && !is_loopback(host) {
                    let help = "write https, or insecure = true where the way there is trusted";
                    reader.problem(&at.span, &path, format!("{shown} is not encrypted"), Some(help.into()));
                }
                if !has_digest && !plugins.development && !reader.partial {
                    let help = format!(
                        "write digest = \"sha256:…\", the SHA-256 of the file: \"witgate adapters add {} URL\" does",
                        key.name
                    );
                    reader.problem(&at.span, table, "a URL without a digest", Some(help));
                }
            }
            ComponentSource::Path(_) if insecure_span.is_some() => {
                let span = insecure_span.unwrap_or_default();
                let help = "leave it out: a file is not fetched";
                reader.problem(&span, &join(table, "insecure"), "only with \"url\" or \"oci\"", Some(help.into()));
            }
            _ => {}
        }
        Some(ComponentConfig { source, digest, insecure })
    }
}
