//! Where the components of adapters and policies come from: files, URLs and OCI registries; what was fetched is kept,
//! and what is loaded is what was pinned.
//!
//! **What pins.** The SHA-256 of a component's bytes, in the configuration (`digest`) or in the lock file beside it,
//! which [`Lock`] reads; an entry of the lock counts for the source for which it was written, and no other. The digest of
//! an artifact's manifest, behind `@` in its reference, pins too, since the manifest names the component by its digest.
//! What nothing pins is not fetched, but in development mode. A file may do without a pin: whoever may write it may
//! write the configuration as well.
//!
//! **What is fetched.** What is pinned and in the cache is not asked for again, so a registry that is away, or a tag
//! that was moved, changes nothing. What comes has at most 256 MiB and 5 minutes, over TLS (not from this machine,
//! and not where `insecure` says so), and is refused where its digest differs. The cache is the folder `sources` beside
//! the compiled components; its files are named by their digests and verified each time they are read.
//!
//! **Signatures** are not verified: a digest says exactly which bytes are meant, and the configuration that holds it is
//! under the operator's own version control. To check who made them, verify a signature (cosign, in CI) before the
//! digest is committed.

mod fetch;
mod lock;
mod oci;
mod store;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use witgate_config::{ComponentConfig, ComponentSource, Config, Digest, Origin, Problem, Reference};

pub use lock::{Entry, Lock};

use crate::shown::word;

use fetch::Fetcher;
use oci::Registry;
use store::Store;

/// Largest component, in bytes.
pub(crate) const MAX_COMPONENT: u64 = 256 * 1024 * 1024;

/// What a component is in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of `[adapters]`.
    Adapter,
    /// One of `[policies]`.
    Policy,
}

impl Kind {
    /// As in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Adapter => "adapter",
            Kind::Policy => "policy",
        }
    }

    /// The table that holds it.
    pub fn table(self) -> &'static str {
        match self {
            Kind::Adapter => "adapters",
            Kind::Policy => "policies",
        }
    }

    /// The key of its file.
    fn file_key(self) -> &'static str {
        match self {
            Kind::Adapter => "path",
            Kind::Policy => "component",
        }
    }

    /// The key that holds a source in its table.
    pub fn key(self, source: &ComponentSource) -> &'static str {
        match source {
            ComponentSource::Path(_) => self.file_key(),
            other => other.key(),
        }
    }

    /// What the command line has for it.
    fn flag(self) -> &'static str {
        match self {
            Kind::Adapter => "",
            Kind::Policy => "--policy ",
        }
    }
}

/// What holds a component to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// It comes with witgate.
    BuiltIn,
    /// The configuration.
    Configuration,
    /// The lock file.
    Lock,
    /// Nothing.
    Nothing,
}

impl Pin {
    /// One word, as lists show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Pin::BuiltIn => "built-in",
            Pin::Configuration => "configuration",
            Pin::Lock => "lock",
            Pin::Nothing => "no",
        }
    }
}

/// A component's bytes.
pub struct Fetched {
    /// The component.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// That of its manifest, where it came from a registry.
    pub manifest: Option<Digest>,
    /// What held it to these bytes.
    pub pin: Pin,
}

/// Why there is no component.
pub struct Refusal {
    /// The key at fault, within the component's table.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// The sources of one configuration.
pub struct Sources {
    base: PathBuf,
    /// The configuration's file, which need not be there.
    configuration: PathBuf,
    lock: Lock,
    store: Store,
    development: bool,
}

impl Sources {
    /// For a configuration in the folder `base`. `cache` is the folder of the cache; without one nothing is kept.
    ///
    /// # Errors
    /// Where the lock file cannot be read.
    pub fn open(config: &Config, base: &Path, cache: Option<&Path>) -> Result<Self, Problem> {
        let configuration = configuration(config, base);
        let lock = Lock::read(&lock_file(&configuration))?;
        let (base, store) = (base.to_owned(), Store::new(cache));
        Ok(Sources { base, configuration, lock, store, development: config.plugins.development })
    }

    /// For what is not in a configuration yet: nothing is locked, and what is asked for is fetched.
    pub fn unlocked(base: &Path, cache: Option<&Path>) -> Self {
        let lock = Lock::empty(Path::new(""));
        let (base, store) = (base.to_owned(), Store::new(cache));
        Sources { base, configuration: PathBuf::new(), lock, store, development: true }
    }

    /// The component of a name in the configuration. Waits for the network where it is not here.
    ///
    /// # Errors
    /// Where it cannot be had, or is not the one that was pinned.
    pub fn load(&self, kind: Kind, name: &str, component: &ComponentConfig) -> Result<Fetched, Refusal> {
        let source = &component.source;
        let key = kind.key(source);
        let refuse = |key, message: String, help: Option<String>| Err(Refusal { key, message, help });
        let add = || self.add(kind, name, component);
        let shown = source.to_string();
        let locked = self.lock.get(kind, name);
        let entry = locked.filter(|entry| entry.source == shown);
        let lock = self.lock.file().display();
        if let (Some(own), Some(entry)) = (&component.digest, entry)
            && *own != entry.digest
        {
            let message = format!("{lock} has the digest {} for it", entry.digest);
            return refuse("digest", message, Some(format!("if this one is right, {}", add())));
        }
        let pin = component.digest.as_ref().or(entry.map(|entry| &entry.digest));
        let by = match (&component.digest, entry) {
            (Some(_), _) => Pin::Configuration,
            (None, Some(_)) => Pin::Lock,
            (None, None) => Pin::Nothing,
        };
        if let ComponentSource::Path(path) = source {
            let mut fetched = self.file(path).or_else(|message| refuse(key, message, None))?;
            if let Some(pin) = pin.filter(|pin| **pin != fetched.digest) {
                let is = &fetched.digest;
                if by == Pin::Configuration {
                    return refuse("digest", format!("{path} has the digest {is}"), None);
                }
                if !self.development {
                    let message = format!("{path} has the digest {is}, and {lock} has {pin}");
                    let help = format!(
                        "if the change is wanted, {}; while you work on it, [plugins] development = true",
                        add()
                    );
                    return refuse(key, message, Some(help));
                }
                tracing::warn!(target: "witgate", name, file = path, "the file is not the one that was locked");
            }
            fetched.pin = by;
            return Ok(fetched);
        }
        if let Some(bytes) = pin.and_then(|pin| self.store.get(pin)) {
            let digest = pin.cloned().unwrap_or_else(|| Digest::of(&bytes));
            return Ok(Fetched { bytes, digest, manifest: None, pin: by });
        }
        let fetched = match source {
            ComponentSource::Oci(reference) => {
                if pin.is_none() && reference.digest.is_none() && !self.development {
                    let message = match locked {
                        Some(entry) => format!("{lock} has it from {}, not from {source}", entry.source),
                        None => format!("{source} is not pinned: a tag may be moved, and {lock} does not have it"),
                    };
                    return refuse(key, message, Some(add()));
                }
                // Of what is locked, the manifest is asked for: the tag may have moved.
                let manifest = entry.and_then(|entry| entry.manifest.clone());
                let reference = match manifest {
                    Some(manifest) => Reference { digest: Some(manifest), ..reference.clone() },
                    None => reference.clone(),
                };
                self.fetch(&ComponentSource::Oci(reference), component.insecure, pin)
            }
            _ => self.fetch(source, component.insecure, pin),
        };
        let mut fetched = fetched.or_else(|message| refuse(key, message, None))?;
        if let Some(pin) = pin.filter(|pin| **pin != fetched.digest) {
            let message = format!("{source} has the digest {}, not {pin}", fetched.digest);
            let help = format!("look at what it has become; if it is wanted, {}", add());
            return refuse(key, message, Some(help));
        }
        fetched.pin = match source {
            ComponentSource::Oci(reference) if reference.digest.is_some() => Pin::Configuration,
            _ => by,
        };
        Ok(fetched)
    }

    /// What pins a component: the command, as a shell reads it, and where its lock is to be.
    fn add(&self, kind: Kind, name: &str, component: &ComponentConfig) -> String {
        let (file, flag) = (&self.configuration, kind.flag());
        let is_there = file.is_file();
        // What the command takes anyhow is not named.
        let is_named = is_there && file.strip_prefix(".").unwrap_or(file) != Path::new("witgate.toml");
        let config = if is_named { format!("--config {} ", word(&file.display().to_string())) } else { String::new() };
        let (source, insecure, note) = match &component.source {
            // The command takes it from the folder in which it is run.
            ComponentSource::Path(path) if is_there => (self.base.join(path).display().to_string(), "", ""),
            source @ ComponentSource::Path(_) => (source.to_string(), "", ""),
            source => {
                let has_query = matches!(source, ComponentSource::Url(url) if url.contains('?'));
                let note = if has_query { " (the URL with its query)" } else { "" };
                (source.to_string(), if component.insecure { "--insecure " } else { "" }, note)
            }
        };
        let command = format!("run witgate adapters add {config}{flag}{insecure}{name} {}{note}", word(&source));
        if is_there {
            return command;
        }
        // The text of a program is in no file.
        format!("{command} beside a witgate.toml, and name its witgate.lock {}", self.lock.file().display())
    }

    /// Fetches a component as it is now, and keeps it where it has the digest that is wanted.
    ///
    /// # Errors
    /// Where it cannot be had; a digest that differs is none.
    pub fn fetch(&self, source: &ComponentSource, insecure: bool, wanted: Option<&Digest>) -> Result<Fetched, String> {
        if let ComponentSource::Path(path) = source {
            return self.file(path);
        }
        let fetched = blocking(self.fetch_from_afar(source, insecure, wanted))?;
        if wanted.is_none_or(|wanted| *wanted == fetched.digest) {
            self.keep(&fetched.digest, &fetched.bytes);
        }
        Ok(fetched)
    }

    async fn fetch_from_afar(
        &self,
        source: &ComponentSource,
        insecure: bool,
        wanted: Option<&Digest>,
    ) -> Result<Fetched, String> {
        let fetcher = Fetcher::new(insecure);
        match source {
            ComponentSource::Path(path) => self.file(path),
            ComponentSource::Url(url) => {
                let answer = fetcher.get(url, None, None, MAX_COMPONENT).await?;
                match answer.status {
                    200 => Ok(fetched(answer.body, None)),
                    status => Err(format!("{source} answers with {status}")),
                }
            }
            ComponentSource::Oci(reference) => {
                let said = |message: String| format!("{source}: {message}");
                let mut registry = Registry::new(&fetcher, reference, insecure);
                let kept = reference.digest.as_ref().and_then(|digest| Some((digest.clone(), self.store.get(digest)?)));
                let is_kept = kept.is_some();
                let (manifest, text) = match kept {
                    Some(kept) => kept,
                    None => registry.manifest().await.map_err(said)?,
                };
                let layer = oci::layer(&text).map_err(|message| format!("{source} {message}"))?;
                if reference.digest.is_some() && !is_kept {
                    self.keep(&manifest, &text);
                }
                if let Some(wanted) = wanted.filter(|wanted| **wanted != layer.digest) {
                    return Err(format!("{source} has the digest {}, not {wanted}", layer.digest));
                }
                let bytes = match self.store.get(&layer.digest) {
                    Some(bytes) => bytes,
                    None => registry.blob(&layer).await.map_err(said)?,
                };
                Ok(fetched(bytes, Some(manifest)))
            }
        }
    }

    fn file(&self, path: &str) -> Result<Fetched, String> {
        let file = self.base.join(path);
        let bytes = read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Ok(fetched(bytes, None))
    }

    /// What cannot be kept is fetched again.
    fn keep(&self, digest: &Digest, bytes: &[u8]) {
        if let Err(error) = self.store.put(digest, bytes) {
            tracing::warn!(target: "witgate::cache", %error, "a fetched component cannot be kept");
        }
    }

    /// The lock file, as it was read.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }
}

fn fetched(bytes: Vec<u8>, manifest: Option<Digest>) -> Fetched {
    Fetched { digest: Digest::of(&bytes), bytes, manifest, pin: Pin::Nothing }
}

/// The file of a configuration in the folder `base`.
fn configuration(config: &Config, base: &Path) -> PathBuf {
    let name = match &config.origin {
        Origin::File(file) => Path::new(file).file_name().map(Path::new),
        Origin::Environment | Origin::Builtin => None,
    };
    base.join(name.unwrap_or(Path::new("witgate.toml")))
}

/// The lock file of a configuration in the folder `base`.
pub(crate) fn lock_of(config: &Config, base: &Path) -> PathBuf {
    lock_file(&configuration(config, base))
}

/// The lock file of a configuration file: its name with the ending `.lock`.
pub fn lock_file(configuration: &Path) -> PathBuf {
    configuration.with_extension("lock")
}

/// The bytes of a component's file.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(file)?.len();
    if length > MAX_COMPONENT {
        let message = format!("it has {length} bytes; at most {MAX_COMPONENT} are allowed");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    fs::read(file)
}

/// Writes a file, all of it or nothing, with the permissions of the one that it replaces and, where that is allowed, its
/// owner.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    // What a link names is replaced, not the link.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = file.with_file_name(name);
    // One of a process that was killed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, text, fs::metadata(&file).ok().as_ref());
    let written = written.and_then(|()| fs::rename(&temporary, &file));
    if written.is_err() {
        // It holds what the file was to hold. Where it cannot be taken away, the first error says more.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a new file, like an `old` one. Until its permissions are the old one's nobody else may read it.
fn write_new(file: &Path, text: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    use io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if old.is_some() {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut new = options.open(file)?;
    new.write_all(text.as_bytes())?;
    if let Some(old) = old {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, fchown};
            let is = new.metadata()?;
            if (is.uid(), is.gid()) != (old.uid(), old.gid()) {
                // Root may do that, others may not: then it is the owner's who runs this.
                let _ = fchown(&new, Some(old.uid()), Some(old.gid()));
            }
        }
        new.set_permissions(old.permissions())?;
    }
    new.sync_all()
}

/// Runs a future on a thread of its own: the caller may be a runtime's, or none.
fn blocking<T: Send>(future: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let result = runtime.block_on(future);
            // Without waiting for what hangs: a name that is looked up, a helper of docker's.
            runtime.shutdown_background();
            result
        });
        thread.join().unwrap_or_else(|_| Err("fetching it panicked".to_owned()))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_replaces_a_file_has_its_mode_and_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("witgate.toml");
        replace(&file, "first").unwrap();
        for mode in [0o666, 0o640, 0o400] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let before = fs::metadata(&file).unwrap();
            replace(&file, "second").unwrap();
            let after = fs::metadata(&file).unwrap();
            assert_eq!(after.permissions().mode() & 0o777, mode);
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
            assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        }
        assert_eq!(names(folder.path()), ["witgate.toml"]);
    }

    #[test]
    fn where_a_file_cannot_be_replaced_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        // No file takes the place of a folder that has something in it.
        let file = folder.path().join("witgate.toml");
        fs::create_dir(&file).unwrap();
        fs::write(file.join("inside"), "").unwrap();
        assert!(replace(&file, "text").is_err());
        assert_eq!(names(folder.path()), ["witgate.toml"]);
    }

    #[test]
    fn what_a_call_that_was_given_up_still_does_is_not_waited_for() {
        let (release, hangs) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let caller = std::thread::spawn(move || {
            let result: Result<(), String> = blocking(async move {
                // As docker's credential helper: begun, and given up at its limit.
                drop(tokio::task::spawn_blocking(move || hangs.recv()));
                Err("given up".to_owned())
            });
            tell.send(result)
        });
        let result = told.recv_timeout(Duration::from_secs(30));
        drop(release);
        assert_eq!(result.expect("an answer"), Err("given up".to_owned()));
        caller.join().unwrap().unwrap();
    }
}
