//! Policies: components that look at requests and answers, as the file has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::access::OnFailure;
use crate::component::{ComponentConfig, Given, Plugins};
use crate::config::Limits;
use crate::file::is_component;
use crate::names::{did_you_mean, list, quote};
use crate::read::{Anything, At, Count, Entry, Flag, Reader, Size, Text, Time, Word, join, table};
use crate::units::MIB;

/// The policies that come with witgate, by the names that configurations use.
pub const BUILTIN_POLICIES: [&str; 2] = ["guard", "redactor"];

/// Most policies in one chain.
const MAX_CHAIN: usize = 16;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Which component.
    pub source: PolicySource,
    /// Its settings, an object.
    pub settings: Json,
    /// The same as text.
    pub settings_text: Arc<str>,
    /// What is done when it fails.
    pub on_failure: OnFailure,
    /// Its instances may serve one request after another.
    pub trusted: bool,
    /// Most memory of one instance, in bytes.
    pub max_memory_bytes: usize,
    /// Most elements of one table of an instance.
    pub max_table_elements: usize,
    /// Longest time of one call.
    pub call_timeout: Duration,
}

impl PolicyConfig {
    /// A policy of which nothing is configured but where it comes from.
    pub fn new(source: PolicySource, limits: &Limits) -> Self {
        PolicyConfig {
            settings: Json::Object(serde_json::Map::new()),
            settings_text: "{}".into(),
            on_failure: OnFailure::Closed,
            trusted: !matches!(source, PolicySource::Component(_)),
            source,
            max_memory_bytes: limits.max_instance_memory_bytes,
            max_table_elements: Limits::TABLE_ELEMENTS as usize,
            call_timeout: limits.adapter_call_timeout,
        }
    }
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// One of [`BUILTIN_POLICIES`].
    Builtin(String),
    /// A component of the user's own.
    Component(ComponentConfig),
    /// One of the program's own, by its name among [`Native::policies`](crate::Native::policies).
    Native(String),
}

table! {
    /// A policy: a component that looks at requests and answers.
    pub(crate) struct PolicyTable {
        /// One that comes with witgate, "guard" or "redactor", or a component file of your own, relative to this file.
        /// Default: the policy's own name.
        component: Text;
        /// In the place of component: the URL of a component of your own, https, or http on this machine.
        url: Text;
        /// In the place of component: one of your own as an artifact of an OCI registry, "registry/repository:tag", with
        /// "@sha256:…" of its manifest or without.
        oci: Text;
        /// With one of your own: "sha256:…", the SHA-256 of the component: other bytes are refused. A URL must have one.
        digest: Text;
        /// With url or oci: whether it may be fetched from another machine without TLS. Default false.
        insecure: Flag;
        /// What it is to do: its description says what there is.
        settings: Anything;
        /// What happens when it fails: "closed" fails the request, "open" lets it pass. Default closed.
        on_failure: Word<OnFailure>;
        /// With one of your own: whether an instance may serve one request after another. Default false.
        trusted: Flag;
        /// Most memory of one instance. Default: limits.max_instance_memory_bytes.
        max_memory_bytes: Size = Limits::DEFAULT.max_instance_memory_bytes as u64, MIB..=Limits::MOST_MEMORY_BYTES;
        /// Most elements of one table of an instance: the functions that it calls by number.
        max_table_elements: Count = Limits::TABLE_ELEMENTS, 100..=Limits::MOST_TABLE_ELEMENTS;
        /// Longest time of one call. Default: limits.adapter_call_timeout.
        call_timeout: Time = Limits::DEFAULT.adapter_call_timeout, Duration::from_millis(1)..=Duration::from_secs(60);
    }
}

/// The policies of the file, and the names of all, those that could not be read among them. One of `native` needs no
/// table of its own.
pub(crate) fn policies(
    entries: Vec<Entry<PolicyTable>>,
    limits: &Limits,
    plugins: Plugins,
    native: &BTreeSet<String>,
    reader: &mut Reader<'_>,
) -> (BTreeMap<String, PolicyConfig>, Vec<String>) {
    let (mut policies, mut names) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let name = entry.key.name.clone();
        let path = join("policies", &name);
        names.push(name.clone());
        let good = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            let help = "write small letters, digits and \"-\", at most 64";
            reader.problem(&entry.key.span, &path, "not a name for a policy", Some(help.into()));
        }
        let Some(At { value, .. }) = entry.at else { continue };
        let given = Given {
            path: ("component", value.component),
            url: value.url,
            oci: value.oci,
            digest: value.digest,
            insecure: value.insecure,
        };
        let own = given.is_fetched() || given.path.1.as_ref().is_some_and(|at| is_component(&at.value));
        let source = if own {
            match given.resolve(&path, &entry.key, plugins, reader) {
                Some(component) => PolicySource::Component(component),
                None => continue,
            }
        } else {
            for (key, at) in
                [("digest", given.digest.map(|at| at.span)), ("insecure", given.insecure.map(|at| at.span))]
            {
                if let Some(span) = at {
                    let help = "leave it out: this policy comes with witgate";
                    reader.problem(&span, &join(&path, key), "only with a component of your own", Some(help.into()));
                }
            }
            let (of, span) = match given.path.1 {
                Some(at) => (at.value, at.span),
                None => (name.clone(), entry.key.span),
            };
            if native.contains(&of) {
                PolicySource::Native(of)
            } else {
                if !BUILTIN_POLICIES.contains(&of.as_str()) {
                    let help = did_you_mean(&of, BUILTIN_POLICIES);
                    let known = list(BUILTIN_POLICIES);
                    let help =
                        help.unwrap_or_else(|| format!("write component = {known}, or a file that ends in \".wasm\""));
                    let message = format!("no policy {} comes with witgate", quote(&of, 64));
                    reader.problem(&span, &path, message, Some(help));
                }
                PolicySource::Builtin(of)
            }
        };
        let mut policy = PolicyConfig::new(source, limits);
        if let Some(settings) = value.settings {
            policy.settings_text = settings.value.to_string().into();
            policy.settings = settings.value;
        }
        if let Some(at) = value.on_failure {
            policy.on_failure = at.value;
        }
        if let Some(at) = value.trusted {
            policy.trusted |= at.value;
        }
        if let Some(at) = value.max_memory_bytes {
            policy.max_memory_bytes = at.value as usize;
        }
        if let Some(at) = value.max_table_elements {
            policy.max_table_elements = at.value as usize;
        }
        if let Some(at) = value.call_timeout {
            policy.call_timeout = at.value;
        }
        policies.insert(name, policy);
    }
    for name in native.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>() {
        policies.insert(name.clone(), PolicyConfig::new(PolicySource::Native(name.clone()), limits));
        names.push(name);
    }
    (policies, names)
}

/// A chain of policies, each of which there must be.
pub(crate) fn chain(path: &str, names: Vec<At<String>>, known: &[String], reader: &mut Reader<'_>) -> Vec<String> {
    for (at, name) in names.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if at == MAX_CHAIN {
            let help = format!("keep at most {MAX_CHAIN}");
            reader.problem(&name.span, &path, "one policy too many", Some(help));
        }
        if !known.contains(&name.value) {
            let names = || known.iter().map(String::as_str);
            let help = did_you_mean(&name.value, names())
                .or_else(|| (!known.is_empty()).then(|| format!("the policies are {}", list(names()))))
                .or_else(|| Some(format!("add [policies.{}]", name.value)));
            reader.problem(&name.span, &path, format!("no policy {}", quote(&name.value, 64)), help);
        }
    }
    names.into_iter().map(|at| at.value).collect()
}
