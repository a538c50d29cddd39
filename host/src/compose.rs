//! What a configuration names, as one component for Spin and other WASI hosts: the gateway, the normaliser, and those
//! adapters and policies that it uses, with the configuration itself inside. And what that component may reach: a
//! `spin.toml` for exactly that.
//!
//! Nothing is composed that [`crate::Builder::build`] would refuse. Secrets are not read: a variable that only secrets refer
//! to needs no value here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use witgate_compose::{ADAPTER_SLOTS, CHAT, DIALECTS, HOOKS, KEY_VALUE, POLICY_SLOTS, Part, VARIABLES};
use witgate_config::{
    AdapterRef, ComponentConfig, Config, PolicySource, Problem, Problems, Provider, Source, Store, Target, Variable,
    variables,
};

use crate::shown::word;
use crate::sources::{Kind, Refusal, Sources};
use crate::{BuildError, Host, LoadedAdapter, builtin};

/// Where the component is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Spin: variables are its own, and a manifest says what may be reached.
    Spin,
    /// Any host of `wasi:http/handler@0.3.0`, as `wasmtime serve`: variables are those of the environment.
    Wasi,
}

/// What to compose, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where it is to run.
    pub runtime: Runtime,
    /// The gateway's component, where it is not the one that comes with this program.
    pub gateway: Option<PathBuf>,
    /// Where compiled components are kept; see [`crate::Builder::cache_dir`].
    pub cache_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { runtime: Runtime::Spin, gateway: None, cache_dir: crate::default_cache_dir() }
    }
}

/// Why there is no composition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// The configuration has these problems.
    #[error(transparent)]
    Config(#[from] Problems),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A composed component, and what it may reach.
#[derive(Debug)]
#[non_exhaustive]
pub struct Composition {
    /// The component.
    pub wasm: Vec<u8>,
    /// The interfaces that it imports, types apart.
    pub imports: Vec<String>,
    /// The hosts that it has to call, each as `scheme://host:port`.
    pub hosts: BTreeSet<String>,
    /// The variables that it reads, by name.
    pub variables: Vec<Reads>,
    /// It keeps its state in the key-value store `default`.
    pub key_value: bool,
    /// The folder of stored configurations that is to be mounted as `/configurations`.
    pub configurations: Option<PathBuf>,
    /// What is in it beside the gateway.
    pub parts: Vec<Placed>,
    runtime: Runtime,
    /// The parts that are neither built in nor trusted.
    untrusted: Vec<String>,
}

/// A variable that a composed component reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reads {
    /// Its name in the environment; Spin has it in lower case.
    pub name: String,
    /// It holds a secret.
    pub secret: bool,
    /// Nothing works without it.
    pub required: bool,
    /// The value that the composition was made for: the hosts follow from it. Never that of a secret.
    pub value: Option<String>,
}

/// A part of a composed component: the normaliser, an adapter, a policy. None of them may reach anything.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// What it is, as `adapter "mine"`.
    pub name: String,
    /// `built in`, or its file.
    pub source: String,
    /// The gateway's import that it fills.
    pub slot: String,
}

/// Composes what a configuration names. `file`: what problems call it; its paths are relative to `base`. `env` gives the
/// environment's variables, as far as they are known by now.
///
/// # Errors
/// All problems of the configuration: those that `witgate check` tells, and what a component cannot have.
pub fn compose(
    text: &str,
    file: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    options: &Options,
) -> Result<Composition, ComposeError> {
    let named = variables(text);
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        match named.iter().find(|variable| variable.name == name) {
            Some(variable) if variable.only_secret => Some(placeholder(name)),
            _ => env(name).filter(|value| !value.is_empty()),
        }
    };
    let config = Config::from_toml(text, file, &lookup)?;
    let host = Host::builder(config).base_dir(base).cache_dir(options.cache_dir.clone()).without_state();
    let host = host.build().map_err(|error| match error {
        BuildError::Config(problems) => ComposeError::Config(problems),
        other => ComposeError::Other(other.to_string()),
    })?;
    let config = &*host.config();
    let mut problems = config.check_component();
    let configurations = match (&config.documents.from, &config.documents.configurations) {
        (Source::Folder, Some(folder)) => {
            let folder = base.join(folder);
            if !folder.is_dir() {
                let message = format!("{} is no folder", folder.display());
                problems.push(config.problem("documents.configurations", message, None));
            }
            Some(folder)
        }
        _ => None,
    };
    let hosts = hosts(&host, &mut problems);
    let reads = reads(&host, &named, &asked.take(), env, options.runtime, &mut problems);
    let sources = Sources::open(config, base, options.cache_dir.as_deref());
    let sources = sources.map_err(|problem| ComposeError::from(Problems(vec![problem])))?;
    let mut used = Used { base, sources, parts: Vec::new(), placed: Vec::new(), keys: Vec::new() };
    used.add("normaliser".to_owned(), ("built in".to_owned(), builtin::NORMALISER.into()), DIALECTS, DIALECTS, "");
    let adapters = used.adapters(&host, &mut problems);
    let policies = used.policies(&host, &mut problems);
    if !problems.is_empty() {
        problems.sort();
        return Err(Problems(problems).into());
    }

    let of_adapters = host.adapters().into_iter().filter(|loaded| !loaded.component.is_trusted());
    let of_policies = host.policies().into_iter();
    let of_policies = of_policies.filter(|loaded| loaded.component().is_some_and(|component| !component.is_trusted()));
    let untrusted = of_adapters
        .map(|loaded| format!("adapter \"{}\"", loaded.reference.as_str()))
        .chain(of_policies.map(|loaded| format!("policy \"{}\"", loaded.name)))
        .collect();
    let key_value = matches!(config.state.store, Store::KeyValue);
    let Used { mut parts, placed, keys, .. } = used;
    let filled: BTreeSet<&str> = placed.iter().map(|placed| placed.slot.as_str()).collect();
    let slots = |slots: &'static [(&str, &str)], export: &'static str| {
        slots.iter().map(move |(slot, _)| (*slot, export)).filter(|(slot, _)| !filled.contains(slot))
    };
    let mut absent: Vec<_> = slots(ADAPTER_SLOTS, CHAT).chain(slots(POLICY_SLOTS, HOOKS)).collect();
    if !key_value {
        absent.extend(KEY_VALUE.map(|import| (import, import)));
    }
    if reads.is_empty() || options.runtime == Runtime::Wasi {
        absent.push((VARIABLES, VARIABLES));
    }
    let fills = absent.into_iter().map(|(import, export)| (import.to_owned(), export.to_owned())).collect();
    parts.push(Part { name: "what stands for what is absent".to_owned(), wasm: builtin::ABSENT.into(), fills });
    parts.push(witgate_compose::composition(text, &adapters, &policies));
    let gateway = match &options.gateway {
        Some(file) => crate::sources::read(file)
            .map_err(|error| ComposeError::Other(format!("cannot read the gateway {}: {error}", file.display())))?
            .into(),
        None => Cow::Borrowed(builtin::GATEWAY),
    };
    let composed = witgate_compose::compose(&gateway, &parts).map_err(|error| {
        match error.part.and_then(|part| keys.get(part)).filter(|key| !key.is_empty()) {
            Some(key) => Problems(vec![config.problem(key, error.to_string(), None)]).into(),
            None => ComposeError::Other(error.to_string()),
        }
    })?;
    let mut imports = composed.imports;
    imports.sort();
    let composition = Composition {
        wasm: composed.bytes,
        imports,
        hosts,
        variables: reads,
        key_value,
        configurations,
        parts: placed,
        runtime: options.runtime,
        untrusted,
    };
    Ok(composition)
}

/// What stands for a secret here: it has the form that each of them may need to have, and is that of no other.
fn placeholder(name: &str) -> String {
    format!("whsec_{}", crate::cache::digest(name.as_bytes()))
}

/// The hosts of all that the configuration names.
fn hosts(host: &Host, problems: &mut Vec<Problem>) -> BTreeSet<String> {
    let config = &*host.config();
    let mut hosts = BTreeSet::new();
    for (name, provider) in &config.providers {
        if !provider.endpoints.is_empty() {
            hosts.extend(provider.endpoints.iter().filter_map(|url| origin(url)));
            continue;
        }
        let default = loaded(host, provider).and_then(|loaded| loaded.component.description().default_endpoint.clone());
        let Some(default) = default else { continue };
        let mut found = false;
        for (settings, region) in ways(config, name, provider) {
            let region = region.or_else(|| settings.get("region")?.as_str());
            let url = witgate_gateway::default_endpoint(&default, settings, region);
            let origin = url.as_deref().and_then(origin);
            found |= url.is_some();
            hosts.extend(origin);
        }
        if !found {
            let message =
                format!("the host is not known: it is {default}, and the settings do not say what to fill in");
            let help = "write them, as settings.region = \"us-east-1\", or an endpoint".to_owned();
            problems.push(config.problem(&format!("providers.{name}"), message, Some(help)));
        }
    }
    if let Source::S3(bucket) = &config.documents.from {
        hosts.extend(origin(&bucket.endpoint));
    }
    hosts.extend(config.access.webhook.as_ref().and_then(|webhook| origin(&webhook.url)));
    if config.jobs.callback_secret.is_some() {
        // Clients name where their callbacks go.
        hosts.extend(["http://*:*".to_owned(), "https://*:*".to_owned()]);
    }
    hosts
}

fn loaded(host: &Host, provider: &Provider) -> Option<LoadedAdapter> {
    host.adapters().into_iter().find(|loaded| loaded.reference == provider.adapter)
}

/// What fills in a provider's default endpoint: its settings, those of the targets that name it, the regions of ARNs.
fn ways<'c>(
    config: &'c Config,
    name: &'c str,
    provider: &'c Provider,
) -> impl Iterator<Item = (&'c serde_json::Value, Option<&'c str>)> {
    let targets = config.models.values().flat_map(|model| {
        let fallback = &model.fallback;
        [&model.targets, &fallback.any, &fallback.context_length, &fallback.content_policy].into_iter().flatten()
    });
    let of_targets = targets.filter(move |target| target.provider == name).map(|target: &Target| {
        let settings = target.settings.as_ref().map_or(&provider.settings, |settings| &settings.json);
        (settings, target.model.as_deref().and_then(arn_region))
    });
    std::iter::once((&provider.settings, None)).chain(of_targets)
}

/// The region of an ARN, as of `arn:aws:bedrock:us-east-1:1:…`.
fn arn_region(model: &str) -> Option<&str> {
    model.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
}

/// Scheme, host and port of a URL; none of `stub:`.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let behind_address = authority.rfind(']').map_or(0, |at| at + 1);
    let has_port = authority.get(behind_address..)?.contains(':');
    let port = if scheme == "https" { ":443" } else { ":80" };
    Some(format!("{scheme}://{authority}{}", if has_port { "" } else { port }))
}

/// The variables that the component will read: those that the configuration refers to, and those that AWS's backends take
/// by themselves.
fn reads(
    host: &Host,
    named: &[Variable],
    asked: &BTreeSet<String>,
    env: &dyn Fn(&str) -> Option<String>,
    runtime: Runtime,
    problems: &mut Vec<Problem>,
) -> Vec<Reads> {
    let config = host.config();
    let value = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut reads: BTreeMap<&str, Reads> = BTreeMap::new();
    for variable in named {
        let decides = variable.keys.iter().any(|key| {
            let last = key.rsplit('.').next().unwrap_or(key);
            ["endpoint", "endpoints", "url", "region", "regions"].contains(&last.split('[').next().unwrap_or(last))
        });
        let one = Reads {
            name: variable.name.clone(),
            secret: variable.secret,
            required: !variable.optional,
            value: value(&variable.name).filter(|_| decides && !variable.secret),
        };
        reads.insert(&variable.name, one);
    }
    // What was asked for beside them are the region and the API keys of AWS.
    for name in asked {
        reads.entry(name).or_insert_with(|| {
            let secret = !name.ends_with("_REGION");
            Reads { name: name.clone(), secret, required: false, value: value(name).filter(|_| !secret) }
        });
    }
    let by_variables = config.providers.values().any(|provider| {
        let signs = loaded(host, provider)
            .is_some_and(|loaded| loaded.component.description().secrets.iter().any(|slot| slot.name == "aws"));
        let bearer = provider.settings.get("auth").and_then(|auth| auth.as_str()) == Some("bearer");
        let ours = matches!(provider.adapter, AdapterRef::Builtin(_));
        ours && signs && !bearer && !provider.secrets.contains_key("aws_access_key_id")
    });
    let of_bucket = matches!(&config.documents.from, Source::S3(bucket) if bucket.credentials.is_none());
    if by_variables || of_bucket {
        for (name, required) in
            [("AWS_ACCESS_KEY_ID", true), ("AWS_SECRET_ACCESS_KEY", true), ("AWS_SESSION_TOKEN", false)]
        {
            let one = || Reads { name: name.to_owned(), secret: true, required, value: None };
            reads.entry(name).or_insert_with(one).secret = true;
        }
    }
    if runtime == Runtime::Spin {
        let mut lower: BTreeMap<String, &str> = BTreeMap::new();
        for variable in named {
            let key = variable.keys.first().map_or("", String::as_str);
            let spin = variable.name.to_ascii_lowercase();
            if !is_spin_name(&spin) {
                let message = format!("Spin has no variable of the name {spin}");
                let help = "begin with a letter, and write single underscores, none at the end".to_owned();
                problems.push(config.problem(key, message, Some(help)));
            }
            if let Some(other) = lower.insert(spin, &variable.name) {
                let message = format!("${{{}}} and ${{{other}}} are one variable in Spin", variable.name);
                problems.push(config.problem(key, message, Some("give one of them another name".to_owned())));
            }
        }
        let key = |name: &str| named.iter().find(|variable| variable.name == name).and_then(|of| of.keys.first());
        let (merged, differ) = one_in_lower_case(reads.into_values());
        for (one, other) in differ {
            let message = format!("{one} and {other} are one variable in Spin, and have two values here");
            let key = key(&other).or(key(&one)).map_or("", String::as_str);
            problems.push(config.problem(key, message, Some("unset one of them".to_owned())));
        }
        return merged;
    }
    reads.into_values().collect()
}

/// What is read where names that differ in their case alone are one variable, as `${aws_region}` of a configuration and AWS's
/// own `AWS_REGION`: it is a secret, or required, where one of them is. And the names of those of two values.
fn one_in_lower_case(reads: impl Iterator<Item = Reads>) -> (Vec<Reads>, Vec<(String, String)>) {
    let (mut merged, mut differ) = (BTreeMap::<String, Reads>::new(), Vec::new());
    for read in reads {
        match merged.entry(read.name.to_ascii_lowercase()) {
            Entry::Vacant(place) => {
                place.insert(read);
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if let (Some(one), Some(other)) = (&known.value, &read.value)
                    && one != other
                {
                    differ.push((known.name.clone(), read.name.clone()));
                }
                known.secret |= read.secret;
                known.required |= read.required;
                known.value = known.value.take().or(read.value).filter(|_| !known.secret);
            }
        }
    }
    (merged.into_values().collect(), differ)
}

fn is_spin_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('_').all(|word| !word.is_empty())
}

/// The parts as they are gathered, and the configuration's key for each.
struct Used<'a> {
    base: &'a Path,
    sources: Sources,
    parts: Vec<Part<'static>>,
    placed: Vec<Placed>,
    keys: Vec<String>,
}

/// A component that has no slot yet: what the configuration calls it, the key that names it, its source and its bytes.
struct Wanted {
    name: String,
    key: String,
    found: Result<(String, Cow<'static, [u8]>), String>,
}

impl Used<'_> {
    fn add(&mut self, name: String, (source, wasm): (String, Cow<'static, [u8]>), slot: &str, export: &str, key: &str) {
        let fills = vec![(slot.to_owned(), export.to_owned())];
        self.parts.push(Part { name: format!("{name} ({source})"), wasm, fills });
        self.placed.push(Placed { name, source, slot: slot.to_owned() });
        self.keys.push(key.to_owned());
    }

    fn file(&self, path: &str) -> Result<(String, Cow<'static, [u8]>), String> {
        let file = self.base.join(path);
        let wasm = crate::sources::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok((path.to_owned(), wasm.into()))
    }

    /// The component of a name in the configuration, which must be the one that was pinned.
    fn own(&self, kind: Kind, name: &str, component: &ComponentConfig) -> Result<(String, Cow<'static, [u8]>), String> {
        match self.sources.load(kind, name, component) {
            Ok(fetched) => Ok((component.source.to_string(), fetched.bytes.into())),
            Err(Refusal { message, help: Some(help), .. }) => Err(format!("{message}; {help}")),
            Err(Refusal { message, .. }) => Err(message),
        }
    }

    /// The adapters, each once, in slots: names and slots.
    fn adapters(&mut self, host: &Host, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        let config = &*host.config();
        let mut wanted: Vec<Wanted> = Vec::new();
        for (name, provider) in &config.providers {
            let reference = &provider.adapter;
            if wanted.iter().any(|wanted| wanted.name == reference.as_str()) {
                continue;
            }
            let key = match reference {
                AdapterRef::Configured(adapter) => {
                    let source = config.adapters.get(adapter).map(|adapter| &adapter.component.source);
                    format!("adapters.{adapter}.{}", source.map_or("path", |source| Kind::Adapter.key(source)))
                }
                _ => format!("providers.{name}.adapter"),
            };
            let found = match reference {
                AdapterRef::Builtin(of) => of_ours(&builtin::ADAPTERS, of),
                AdapterRef::Path(path) => self.file(path),
                AdapterRef::Configured(adapter) => match config.adapters.get(adapter) {
                    Some(own) => self.own(Kind::Adapter, adapter, &own.component),
                    None => Err("there is no such adapter".to_owned()),
                },
                AdapterRef::Native(_) => Err("it is part of a program, and no component".to_owned()),
            };
            let digest = loaded(host, provider).map(|loaded| loaded.digest);
            let found = found.and_then(|found| checked(found, digest.as_deref()));
            wanted.push(Wanted { name: reference.as_str().to_owned(), key, found });
        }
        self.place("adapter", wanted, (ADAPTER_SLOTS, CHAT), config, problems)
    }

    /// The same for policies.
    fn policies(&mut self, host: &Host, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        let (config, all) = (&*host.config(), host.policies());
        let mut wanted: Vec<Wanted> = Vec::new();
        // The gateway knows a policy by what its source is printed as, so there that is one component.
        let mut known: BTreeMap<String, (&str, Option<&str>)> = BTreeMap::new();
        for (name, policy) in &config.policies {
            let of = match &policy.source {
                PolicySource::Builtin(of) | PolicySource::Native(of) => of.clone(),
                PolicySource::Component(component) => component.source.to_string(),
            };
            let key = format!("policies.{name}");
            let digest = all.iter().find(|loaded| loaded.name == *name).map(|loaded| loaded.digest.as_str());
            if let Some((first, other)) = known.get(&of) {
                if *other != digest {
                    let message = format!(
                        "{of} is another component here than in policies.{first}, and composed both would be one"
                    );
                    let help = "name them by sources that differ in more than the lock file or a query: an artifact by \
                                its digest, behind \"@\", or two files";
                    problems.push(config.problem(&key, message, Some(help.to_owned())));
                }
                continue;
            }
            known.insert(of.clone(), (name, digest));
            let found = match &policy.source {
                PolicySource::Builtin(of) => of_ours(&builtin::POLICIES, of),
                PolicySource::Component(component) => self.own(Kind::Policy, name, component),
                PolicySource::Native(_) => Err("it is part of a program, and no component".to_owned()),
            };
            let found = found.and_then(|found| checked(found, digest));
            wanted.push(Wanted { name: of, key, found });
        }
        self.place("policy", wanted, (POLICY_SLOTS, HOOKS), config, problems)
    }

    /// Gives each a slot: that of its own name, else a spare one, else one that nothing else is called after.
    fn place(
        &mut self,
        kind: &str,
        wanted: Vec<Wanted>,
        (slots, export): (&[(&'static str, &str)], &str),
        config: &Config,
        problems: &mut Vec<Problem>,
    ) -> Vec<(String, String)> {
        let count = wanted.len();
        let own = |name: &str| slots.iter().map(|(slot, _)| *slot).find(|slot| *slot == name);
        let mut free: Vec<&str> = slots.iter().map(|(slot, _)| *slot).collect();
        free.retain(|slot| !wanted.iter().any(|wanted| wanted.name == *slot));
        free.sort_by_key(|slot| !slot.starts_with("custom"));
        let mut free = free.into_iter();
        let mut names = Vec::new();
        for Wanted { name, key, found } in wanted {
            let Some(slot) = own(&name).or_else(|| free.next()) else {
                let message =
                    format!("the gateway has {} slots, and this is one of {count}: it has no place", slots.len());
                problems.push(config.problem(&key, message, Some("compose several gateways".to_owned())));
                continue;
            };
            match found {
                Ok(found) => self.add(format!("{kind} \"{name}\""), found, slot, export, &key),
                Err(message) => problems.push(config.problem(&key, message, None)),
            }
            names.push((name, slot.to_owned()));
        }
        names
    }
}

/// What is composed is what was checked. `digest`: of the component that was.
fn checked(
    (source, wasm): (String, Cow<'static, [u8]>),
    digest: Option<&str>,
) -> Result<(String, Cow<'static, [u8]>), String> {
    match digest {
        Some(digest) if digest == crate::cache::digest(&wasm) => Ok((source, wasm)),
        _ => Err(format!("{source} has changed in the meantime")),
    }
}

fn of_ours(all: &[(&str, &'static [u8])], name: &str) -> Result<(String, Cow<'static, [u8]>), String> {
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, wasm)| ("built in".to_owned(), Cow::Borrowed(*wasm))).ok_or_else(|| "it is not built in".to_owned())
}

/// What gives each request an instance of its own, in `wasmtime serve` and in Spin.
const INSTANCE_EACH: &str = "--max-instance-reuse-count 1 --max-instance-concurrent-reuse-count 1";

/// The first line of a manifest, by which it is known as one of ours.
pub const MARK: &str = "# Written by `witgate compose`";

impl Composition {
    /// The `spin.toml` for exactly this. `component`: the component's file, relative to it; `config`: what the configuration
    /// was called.
    pub fn spin_toml(&self, component: &str, config: &str) -> String {
        let mut out = format!(
            "{MARK} from {}: what it names may be reached, and nothing else.\n\
             # Do not edit: change the configuration, and compose again.\n\
             spin_manifest_version = 2\n\n[application]\nname = \"witgate\"\nversion = {}\n\
             description = \"An LLM gateway, composed for one configuration\"\n",
            config.escape_default(),
            quoted(env!("CARGO_PKG_VERSION")),
        );
        if !self.variables.is_empty() {
            out.push_str("\n# By SPIN_VARIABLE_NAME, `spin up --variable name=value`, or a vault. An empty one counts as unset.\n[variables]\n");
        }
        for read in &self.variables {
            let default = read.value.as_deref().or((!read.required).then_some(""));
            let default = default.map_or("required = true".to_owned(), |value| format!("default = {}", quoted(value)));
            let secret = if read.secret { ", secret = true" } else { "" };
            let _ = writeln!(out, "{} = {{ {default}{secret} }}", read.name.to_ascii_lowercase());
        }
        let _ = write!(
            out,
            "\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"gateway\"\n\n[component.gateway]\nsource = {}\n",
            quoted(component)
        );
        if let Some(folder) = &self.configurations {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            let source = quoted(&folder.display().to_string());
            let _ = writeln!(out, "files = [{{ source = {source}, destination = \"/configurations\" }}]");
        }
        if self.key_value {
            out.push_str("key_value_stores = [\"default\"]\n");
        }
        let hosts: String = self.hosts.iter().map(|host| format!("    {},\n", quoted(host))).collect();
        match hosts.is_empty() {
            true => out.push_str("allowed_outbound_hosts = []\n"),
            false => {
                let _ = write!(out, "allowed_outbound_hosts = [\n{hosts}]\n");
            }
        }
        if !self.variables.is_empty() {
            out.push_str("\n[component.gateway.variables]\n");
        }
        for read in &self.variables {
            let name = read.name.to_ascii_lowercase();
            let _ = writeln!(out, "{name} = \"{{{{ {name} }}}}\"");
        }
        out
    }

    /// The command that serves it by wasmtime, as a shell reads it: with an instance for each request where a part is not
    /// trusted. `component`: the component's file.
    pub fn wasmtime(&self, component: &str) -> String {
        let mut out = "wasmtime serve -S cli".to_owned();
        for read in &self.variables {
            let _ = write!(out, " --env {}", read.name);
        }
        if let Some(folder) = &self.configurations {
            let _ = write!(out, " --dir {}", word(&format!("{}::/configurations", folder.display())));
        }
        if !self.untrusted.is_empty() {
            let _ = write!(out, " {INSTANCE_EACH}");
        }
        let _ = write!(out, " {}", word(component));
        out
    }
}

/// Says what each part may reach.
impl std::fmt::Display for Composition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listed = |names: Vec<String>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        writeln!(f, "gateway")?;
        writeln!(f, "  calls    {}", listed(self.hosts.iter().cloned().collect()))?;
        let reads = self.variables.iter().map(|read| {
            let secret = if read.secret { " (secret)" } else { "" };
            format!("{}{secret}", read.name)
        });
        writeln!(f, "  reads    {}", listed(reads.collect()))?;
        let mut keeps = Vec::new();
        if self.key_value {
            keeps.push("the key-value store \"default\"".to_owned());
        }
        if let Some(folder) = &self.configurations {
            keeps.push(format!("the folder {}, to read", folder.display()));
        }
        writeln!(f, "  state    {}", listed(keeps))?;
        writeln!(f, "  imports  {}", listed(self.imports.clone()))?;
        for part in &self.parts {
            writeln!(f, "{} ({})\n  nothing", part.name, part.source)?;
        }
        if !self.untrusted.is_empty() {
            let parts = self.untrusted.join(", ");
            let each = match self.runtime {
                Runtime::Spin => format!("`spin up` with {INSTANCE_EACH} gives each request an instance of its own"),
                Runtime::Wasi => "the command below gives each request an instance of its own".to_owned(),
            };
            writeln!(
                f,
                "note: what is not trusted ({parts}) can keep what it sees for as long as its instance lives; {each}, and \
                 state in memory then lasts for one request"
            )?;
        }
        if self.runtime == Runtime::Wasi {
            writeln!(
                f,
                "note: which hosts a component may call is the host's to say; `wasmtime serve` lets it call all"
            )?;
        }
        Ok(())
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    // JSON's escapes are among TOML's, which has one more character that must not stand for itself.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn an_origin_has_its_port() {
        let cases = [
            ("https://api.openai.com/v1", "https://api.openai.com:443"),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://[::1]/a:b", "http://[::1]:80"),
            ("http://[::1]:9/", "http://[::1]:9"),
        ];
        for (url, expected) in cases {
            assert_eq!(origin(url).as_deref(), Some(expected));
        }
        assert_eq!(origin("stub:"), None);
    }

    #[test]
    fn names_that_differ_in_their_case_alone_are_one_variable() {
        let one = |name: &str, secret, required, value: Option<&str>| Reads {
            name: name.to_owned(),
            secret,
            required,
            value: value.map(str::to_owned),
        };
        let reads = |value| {
            let of_keys = [one("AWS_KEY", true, true, None), one("aws_key", false, false, Some("shown"))];
            let of_regions = [one("AWS_REGION", false, false, None), one("B", false, true, Some("b")), value];
            of_keys.into_iter().chain(of_regions)
        };
        let (merged, differ) = one_in_lower_case(reads(one("aws_region", false, true, Some("us-east-1"))));
        let expected = [
            one("AWS_KEY", true, true, None),
            one("AWS_REGION", false, true, Some("us-east-1")),
            one("B", false, true, Some("b")),
        ];
        assert_eq!((merged.as_slice(), differ), (expected.as_slice(), Vec::new()));
        let (_, differ) = one_in_lower_case(reads(one("b", false, false, Some("c"))));
        assert_eq!(differ, [("B".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn names_that_spin_has_no_variable_for_are_known() {
        for good in ["a", "openai_api_key", "a2_3"] {
            assert!(is_spin_name(good), "{good}");
        }
        for bad in ["_a", "a__b", "a_", "2a", ""] {
            assert!(!is_spin_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_stand_in_of_a_secret_is_of_its_own_and_fits_everywhere() {
        assert_ne!(placeholder("A"), placeholder("B"));
        assert_eq!(placeholder("A").len(), "whsec_".len() + 2 * Sha256::output_size());
    }
}
