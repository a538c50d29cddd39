//! `witgate adapters`: what there is, and from where. Without a further word it lists.
//!
//! What `add` and `remove` change are two files: the lock file and the configuration, whose comments and order stay.

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml_edit::{DocumentMut, Item, Table, TableLike, value};
use witgate_config::{ComponentSource, Digest};
use witgate_host::Plugin;
use witgate_host::sources::{Entry, Fetched, Kind, Lock, Sources, lock_file, replace};

use crate::shown::plain;
use crate::{Log, Source, UNUSABLE, Unusable};

/// What is asked.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Adapters {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the adapters and policies: built-in adapters and what the configuration has. So does `witgate adapters`
    /// alone.
    List(List),
    /// Fetches an adapter or a policy, checks it, and writes it into the configuration and into the lock file.
    Add(Add),
    /// Tells what a component is: its description, settings, secrets, imports, size, memory and digest.
    Inspect(Inspect),
    /// Takes an adapter or a policy out of the configuration and the lock file, where nothing uses it.
    Remove(Remove),
    /// Shows what the adapters and policies of a running gateway do: calls, times, failures, memory. Its admin key is read
    /// from WITGATE_ADMIN_KEY.
    Top(witgate_host::top::Top),
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    source: Source,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Add {
    /// What the configuration is to call it.
    name: String,
    /// A file that ends in ".wasm", a URL, or an artifact of an OCI registry: registry/repository:tag.
    source: String,
    /// The SHA-256 that it must have, as sha256:…
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// It is a policy. Without it, what it exports says what it is.
    #[arg(long)]
    policy: bool,
    /// Fetch it from another machine without TLS.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    configuration: Source,
}

#[derive(Args)]
struct Inspect {
    /// A name in the configuration, one that comes with witgate, a file, a URL, or an artifact of an OCI registry.
    what: String,
    /// Fetch it from another machine without TLS.
    #[arg(long)]
    insecure: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configuration: Source,
}

#[derive(Args)]
struct Remove {
    /// Its name in the configuration.
    name: String,
    /// It is a policy. Needed only where an adapter has the same name.
    #[arg(long)]
    policy: bool,
    #[command(flatten)]
    configuration: Source,
}

impl Adapters {
    /// Does it.
    pub(crate) fn run(self, log: Log) -> ExitCode {
        let done = match self.command {
            None => return list(&self.list, log),
            Some(Command::List(arguments)) => return list(&arguments, log),
            Some(Command::Top(top)) => return crate::top_command::run(top),
            Some(Command::Add(arguments)) => arguments.run(),
            Some(Command::Inspect(arguments)) => arguments.run(),
            Some(Command::Remove(arguments)) => arguments.run(),
        };
        match done {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(unusable) => {
                unusable.tell();
                ExitCode::FAILURE
            }
        }
    }
}

fn other(message: impl Into<String>) -> Unusable {
    Unusable::Other(message.into())
}

/// Reads a configuration as text that can be changed.
fn document(file: &Path) -> Result<DocumentMut, Unusable> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        other(format!("cannot read the configuration {}: {error}; --config FILE names another", file.display()))
    })?;
    text.parse().map_err(|error| other(format!("{}: {error}", file.display())))
}

fn lock_of(file: &Path) -> Result<Lock, Unusable> {
    Lock::read(&lock_file(file)).map_err(|problem| Unusable::Problems(witgate_config::Problems(vec![problem])))
}

/// The folder of a file, to which the paths in it are relative.
fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// Keeps other commands of this kind from changing what lies in a folder, until it is dropped. The files themselves are
/// replaced, so the folder is what can be locked; where its file system has no locks, it goes without.
fn hold(folder: &Path) -> Option<std::fs::File> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let open = std::fs::File::open(folder).ok()?;
    open.lock().ok().map(|()| open)
}

/// The path of a file as it is to be written into a configuration in a folder.
fn relative(path: &str, base: &Path) -> Result<String, Unusable> {
    let unusable = |error: std::io::Error| other(format!("{path}: {error}"));
    if Path::new(path).is_absolute() || base.as_os_str().is_empty() {
        return Ok(path.to_owned());
    }
    let (file, base) =
        (normal(&std::path::absolute(path).map_err(unusable)?), std::path::absolute(base).map_err(unusable)?);
    let inside = file.strip_prefix(normal(&base)).unwrap_or(&file);
    inside.to_str().map(str::to_owned).ok_or_else(|| other(format!("{path}: the path is not UTF-8")))
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

impl Add {
    fn run(self) -> Result<String, Unusable> {
        let name = &self.name;
        let good = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            let help = "write small letters, digits and \"-\", a letter first, at most 64";
            return Err(other(format!("{name:?} is not a name for an adapter; {help}")));
        }
        let file = self.configuration.named_file();
        // What cannot be changed is told before anything is fetched.
        document(&file)?;
        lock_of(&file)?;
        let base = folder(&file);
        let source = match ComponentSource::parse(&self.source).map_err(other)? {
            ComponentSource::Path(path) => ComponentSource::Path(relative(&path, base)?),
            source => source,
        };
        let cache = self.configuration.cache();
        let sources = Sources::unlocked(base, cache.as_deref());
        let fetched = sources.fetch(&source, self.insecure, self.digest.as_ref()).map_err(other)?;
        if let Some(wanted) = self.digest.as_ref().filter(|wanted| **wanted != fetched.digest) {
            return Err(other(format!("{source} has the digest {}, not {wanted}", fetched.digest)));
        }
        let wanted = self.policy.then_some(Kind::Policy);
        let plugin = Plugin::load(name, &fetched.bytes, wanted, cache).map_err(other)?;
        let kind = plugin.kind();
        // To fetch it may have taken minutes, in which others have changed them.
        let _held = hold(base);
        let mut document = document(&file)?;
        let mut lock = lock_of(&file)?;
        write(&mut document, kind, name, &source, &self, &fetched.digest)
            .map_err(|why| other(format!("{}: {why}", file.display())))?;
        let text = document.to_string();
        text.parse::<DocumentMut>().map_err(|_| {
            let table = format!("[{}]", kind.table());
            other(format!("{}: write {table} as tables of its own, not in one line", file.display()))
        })?;
        let fetched_at = OffsetDateTime::now_utc();
        let fetched_at = fetched_at.replace_nanosecond(0).unwrap_or(fetched_at);
        lock.set(
            kind,
            Entry {
                name: name.clone(),
                source: source.to_string(),
                digest: fetched.digest.clone(),
                manifest: fetched.manifest.clone(),
                size: fetched.bytes.len() as u64,
                fetched: fetched_at.format(&Rfc3339).map_err(|error| other(error.to_string()))?,
            },
        );
        // The lock first: alone it changes nothing.
        let cannot = |file: &Path, error| other(format!("cannot write {}: {error}", file.display()));
        lock.write().map_err(|error| cannot(lock.file(), error))?;
        replace(&file, &document.to_string()).map_err(|error| cannot(&file, error))?;
        let mut text =
            format!("added {} \"{name}\" to {} and {}\n", kind.as_str(), file.display(), lock.file().display());
        text.push_str(&about(&plugin, &source.to_string(), &fetched));
        text.push_str(&match kind {
            Kind::Adapter => format!("Use it in a provider: adapter = \"{name}\"\n"),
            Kind::Policy => format!("Use it in a chain: [server] policies = [\"{name}\"]\n"),
        });
        Ok(text)
    }
}

/// Writes the table of a component: its source and what pins it; what else is there stays.
fn write(
    document: &mut DocumentMut,
    kind: Kind,
    name: &str,
    source: &ComponentSource,
    add: &Add,
    digest: &Digest,
) -> Result<(), String> {
    let mut implicit = Table::new();
    implicit.set_implicit(true);
    let tables = document.entry(kind.table()).or_insert(Item::Table(implicit));
    let tables = tables.as_table_like_mut().ok_or_else(|| format!("{} is no table", kind.table()))?;
    let table = tables.entry(name).or_insert_with(|| {
        let mut table = Table::new();
        // Behind everything that is there.
        table.decor_mut().set_prefix("\n");
        Item::Table(table)
    });
    let table = table.as_table_like_mut().ok_or_else(|| format!("{}.{name} is no table", kind.table()))?;
    let key = kind.key(source);
    for old in ["path", "component", "url", "oci"] {
        if old != key {
            table.remove(old);
        }
    }
    let text = match source {
        // With its query: this is what is fetched.
        ComponentSource::Url(url) => url.clone(),
        ComponentSource::Oci(reference) => reference.to_string(),
        ComponentSource::Path(path) => path.clone(),
    };
    // A dollar sign begins a variable there.
    set(table, key, text.replace('$', "$$").into());
    match source {
        ComponentSource::Url(_) => set(table, "digest", digest.as_str().into()),
        _ if add.digest.is_some() || table.contains_key("digest") => set(table, "digest", digest.as_str().into()),
        _ => {}
    }
    if add.insecure && !matches!(source, ComponentSource::Path(_)) {
        set(table, "insecure", true.into());
    } else {
        table.remove("insecure");
    }
    Ok(())
}

/// Sets a value, and keeps the comment behind the one that was there.
fn set(table: &mut dyn TableLike, key: &str, new: toml_edit::Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(key, value(new));
        }
    }
}

impl Remove {
    fn run(self) -> Result<String, Unusable> {
        let name = &self.name;
        let file = self.configuration.named_file();
        let _held = hold(folder(&file));
        let mut document = document(&file)?;
        let mut lock = lock_of(&file)?;
        let has = |kind: Kind| document.get(kind.table()).and_then(|tables| tables.get(name)).is_some();
        let kinds = if self.policy { [Kind::Policy].as_slice() } else { &[Kind::Adapter, Kind::Policy] };
        let Some(kind) = kinds.iter().copied().find(|kind| has(*kind)) else {
            let known: Vec<_> = kinds
                .iter()
                .filter_map(|kind| document.get(kind.table())?.as_table_like())
                .flat_map(|tables| tables.iter().map(|(name, _)| name))
                .collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(other(format!("{} has no adapter or policy \"{name}\"; {known}", file.display())));
        };
        if let Some(user) = user(&document, kind, name) {
            let message = format!("the {} \"{name}\" is used by {user}; change that first", kind.as_str());
            return Err(other(message));
        }
        if let Some(tables) = document.get_mut(kind.table()).and_then(Item::as_table_like_mut) {
            tables.remove(name);
            if tables.is_empty() {
                document.remove(kind.table());
            }
        }
        let cannot = |file: &Path, error| other(format!("cannot write {}: {error}", file.display()));
        // The configuration first: a lock of what is not there changes nothing.
        replace(&file, &document.to_string()).map_err(|error| cannot(&file, error))?;
        if lock.remove(kind, name) {
            lock.write().map_err(|error| cannot(lock.file(), error))?;
        }
        Ok(format!("removed {} \"{name}\" from {}\n", kind.as_str(), file.display()))
    }
}

/// The key of the configuration that uses an adapter or a policy.
fn user(document: &DocumentMut, kind: Kind, name: &str) -> Option<String> {
    let tables = |of: &str| document.get(of).and_then(Item::as_table_like).into_iter().flat_map(|table| table.iter());
    let holds = |item: Option<&Item>| {
        item.and_then(Item::as_array).is_some_and(|array| array.iter().any(|item| item.as_str() == Some(name)))
    };
    match kind {
        Kind::Adapter => tables("providers")
            .find(|(_, provider)| provider.get("adapter").and_then(Item::as_str) == Some(name))
            .map(|(provider, _)| format!("providers.{provider}")),
        Kind::Policy => {
            if holds(document.get("server").and_then(|server| server.get("policies"))) {
                return Some("server.policies".to_owned());
            }
            let model = tables("models").find(|(_, model)| holds(model.get("policies")));
            model.map(|(model, _)| format!("models.{model}.policies"))
        }
    }
}

impl Inspect {
    fn run(self) -> Result<String, Unusable> {
        let what = &self.what;
        let cache = self.configuration.cache();
        let is_name = what.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let (source, fetched, kind) = if is_name {
            let (config, base) = self.configuration.read()?;
            let adapter = config.adapters.get(what).map(|adapter| (Kind::Adapter, &adapter.component));
            let policy = config.policies.get(what).and_then(|policy| match &policy.source {
                witgate_config::PolicySource::Component(component) => Some((Kind::Policy, component)),
                _ => None,
            });
            match adapter.or(policy) {
                Some((kind, component)) => {
                    let unusable = |problem| Unusable::Problems(witgate_config::Problems(vec![problem]));
                    let sources = Sources::open(&config, &base, cache.as_deref()).map_err(unusable)?;
                    let fetched = sources.load(kind, what, component).map_err(|refusal| {
                        let key = format!("{}.{what}.{}", kind.table(), refusal.key);
                        unusable(config.problem(&key, refusal.message, refusal.help))
                    })?;
                    (component.source.to_string(), fetched, Some(kind))
                }
                None => {
                    let (kind, wasm) = Plugin::builtin(what).ok_or_else(|| {
                        other(format!(
                            "no adapter or policy \"{what}\" comes with witgate or is in the configuration; a file is named \
                             with its ending, as ./{what}.wasm"
                        ))
                    })?;
                    let pin = witgate_host::sources::Pin::BuiltIn;
                    let fetched = Fetched { bytes: wasm.to_vec(), digest: Digest::of(wasm), manifest: None, pin };
                    ("built in".to_owned(), fetched, Some(kind))
                }
            }
        } else {
            let source = ComponentSource::parse(what).map_err(other)?;
            let sources = Sources::unlocked(Path::new(""), cache.as_deref());
            let fetched = sources.fetch(&source, self.insecure, None).map_err(other)?;
            (source.to_string(), fetched, None)
        };
        let plugin = Plugin::load(what, &fetched.bytes, kind, cache).map_err(other)?;
        Ok(if self.json { json(&plugin, &source, &fetched) } else { about(&plugin, &source, &fetched) })
    }
}

/// What a component is, for people.
fn about(plugin: &Plugin, source: &str, fetched: &Fetched) -> String {
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let (id, version, summary, schema) = identity(plugin);
    let mut rows = vec![
        (plugin.kind().as_str(), format!("{id} {version}")),
        ("summary", summary.to_owned()),
        ("source", source.to_owned()),
        ("digest", fetched.digest.to_string()),
    ];
    rows.extend(fetched.manifest.as_ref().map(|manifest| ("manifest", manifest.to_string())));
    rows.push(("size", format!("{} bytes", fetched.bytes.len())));
    rows.push(("memory", format!("{} KiB for each instance, at its start", plugin.memory() >> 10)));
    rows.push(("imports", none(plugin.imports().join(", "))));
    if let Some(is) = plugin.adapter() {
        rows.push(("operations", is.operations.join(", ")));
        rows.push(("capabilities", none(is.capabilities.join(", "))));
        rows.push(("dialects", none(is.dialects.join(", "))));
        rows.push(("endpoint", is.default_endpoint.clone().unwrap_or_else(|| "none by default".to_owned())));
        for slot in &is.secrets {
            let needed = if slot.required { "required" } else { "optional" };
            rows.push(("secret", format!("{} ({needed}): {}", slot.name, slot.description)));
        }
        if is.secrets.is_empty() {
            rows.push(("secrets", "none".to_owned()));
        }
    }
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap_or_default();
    let settings = schema.get("properties").and_then(serde_json::Value::as_object);
    for (name, setting) in settings.into_iter().flatten() {
        let text = setting.get("description").and_then(serde_json::Value::as_str).unwrap_or_default();
        rows.push(("setting", format!("{name}: {text}").trim_end_matches([':', ' ']).to_owned()));
    }
    if settings.is_none_or(serde_json::Map::is_empty) {
        rows.push(("settings", "none".to_owned()));
    }
    // What a component says of itself is text of a stranger.
    rows.iter().map(|(name, text)| format!("  {name:<13} {}\n", plain(text))).collect()
}

/// Id, version, summary and settings schema.
fn identity(plugin: &Plugin) -> (&str, &str, &str, &str) {
    match (plugin.adapter(), plugin.policy()) {
        (Some(is), _) => (is.id.as_str(), is.version.as_str(), is.summary.as_str(), is.settings_schema.as_str()),
        (None, Some(is)) => (is.id.as_str(), is.version.as_str(), is.summary.as_str(), is.settings_schema.as_str()),
        (None, None) => ("", "", "", ""),
    }
}

/// The same for programs.
fn json(plugin: &Plugin, source: &str, fetched: &Fetched) -> String {
    let (id, version, summary, schema) = identity(plugin);
    let mut all = serde_json::json!({
        "kind": plugin.kind().as_str(), "id": id, "version": version, "summary": summary, "source": source,
        "sha256": fetched.digest.hex(), "manifest": fetched.manifest.as_ref().map(Digest::as_str), "pinned": fetched.pin.as_str(),
        "size": fetched.bytes.len(), "memory_bytes": plugin.memory(), "imports": plugin.imports(),
        "settings_schema": serde_json::from_str::<serde_json::Value>(schema).unwrap_or_default(),
    });
    if let Some(is) = plugin.adapter() {
        all["operations"] = is.operations.clone().into();
        all["capabilities"] = is.capabilities.clone().into();
        all["dialects"] = is.dialects.clone().into();
        all["default_endpoint"] = is.default_endpoint.clone().into();
        let secrets = is.secrets.iter().map(
            |slot| serde_json::json!({"name": slot.name, "description": slot.description, "required": slot.required}),
        );
        all["secrets"] = secrets.collect();
    }
    format!("{all:#}\n")
}

fn list(list: &List, log: Log) -> ExitCode {
    let host = match list.source.host(true, log) {
        Ok(host) => host,
        Err(unusable) => {
            unusable.tell();
            return ExitCode::from(UNUSABLE);
        }
    };
    let (adapters, policies) = (host.adapters(), host.policies());
    if list.json {
        let adapters = adapters
            .iter()
            .map(|loaded| {
                let is = loaded.component.description();
                serde_json::json!({
                    "kind": "adapter", "name": loaded.reference.as_str(), "id": is.id, "version": is.version, "summary": is.summary,
                    "operations": is.operations, "capabilities": is.capabilities, "dialects": is.dialects,
                    "secrets": is.secrets.iter().map(|slot| &slot.name).collect::<Vec<_>>(),
                    "sha256": loaded.digest, "imports": loaded.component.imports(), "source": loaded.source,
                    "pinned": loaded.pin.as_str(), "size": loaded.size, "memory_bytes": loaded.component.memory(),
                    "trusted": loaded.component.is_trusted(),
                })
            });
        let policies = policies.iter().map(|loaded| {
            let is = loaded.description();
            let component = loaded.component();
            serde_json::json!({
                "kind": "policy", "name": loaded.name, "id": is.id, "version": is.version, "summary": is.summary,
                "sha256": loaded.digest, "imports": component.map(|component| component.imports()),
                "source": loaded.source, "pinned": loaded.pin.as_str(), "size": loaded.size,
                "memory_bytes": component.map(|component| component.memory()),
                "trusted": component.is_none_or(|component| component.is_trusted()),
            })
        });
        let list: Vec<_> = adapters.chain(policies).collect();
        println!("{:#}", serde_json::Value::from(list));
        return ExitCode::SUCCESS;
    }
    let mut rows =
        vec![["NAME", "ID", "VERSION", "OPERATIONS", "SHA-256", "IMPORTS", "PINNED", "SOURCE"].map(str::to_owned)];
    rows.extend(adapters.iter().map(|loaded| {
        let is = loaded.component.description();
        [
            loaded.reference.as_str().to_owned(),
            is.id.clone(),
            is.version.clone(),
            is.operations.join(","),
            loaded.digest.chars().take(12).collect(),
            imports(loaded.component.imports()),
            loaded.pin.as_str().to_owned(),
            loaded.source.clone(),
        ]
    }));
    rows.extend(policies.iter().map(|loaded| {
        let is = loaded.description();
        [
            loaded.name.clone(),
            is.id.clone(),
            is.version.clone(),
            "(policy)".to_owned(),
            loaded.digest.chars().take(12).collect(),
            loaded.component().map_or_else(|| "none".to_owned(), |component| imports(component.imports())),
            loaded.pin.as_str().to_owned(),
            loaded.source.clone(),
        ]
    }));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        println!("{}", line.trim_end());
    }
    ExitCode::SUCCESS
}

fn imports(all: &[String]) -> String {
    if all.is_empty() { "none".to_owned() } else { all.join(",") }
}
