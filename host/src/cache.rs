//! Compiled components, kept between starts.
//!
//! wasmtime's own cache holds them: it names an entry by a hash of the component's bytes, the compiler's version and its
//! settings, so a stale entry is never found. What it does not do is look at what it reads: an entry is machine code, and
//! one that was damaged on disk would be run as it is. So the digests of all entries are kept beside them, and before
//! the engine sees the cache every entry whose bytes are not those that were written is deleted; the engine then
//! compiles it again.
//!
//! This guards against damage, not against an enemy who may write into the folder: that one could replace the digests
//! as well. The folder is therefore made for its owner alone, and one that others may write to is not used.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wasmtime::{Cache, CacheConfig};
use witgate_config::Digest;

/// Where compiled components are kept where nothing else is said: `$WITGATE_CACHE_DIR`, or `witgate` in the user's cache
/// folder (`$XDG_CACHE_HOME`, `~/.cache`). `None` where there is no such folder, or where the variable is empty.
pub fn default_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(dir) = set("WITGATE_CACHE_DIR") {
        return Some(dir).filter(|dir| !dir.as_os_str().is_empty());
    }
    let absolute = |dir: &PathBuf| dir.is_absolute();
    set("XDG_CACHE_HOME")
        .filter(absolute)
        .or_else(|| set("HOME").filter(absolute).map(|home| home.join(".cache")))
        .map(|dir| dir.join("witgate"))
}

/// A cache whose entries have been checked.
pub(crate) struct CheckedCache {
    dir: PathBuf,
    cache: Cache,
    digests: BTreeMap<String, String>,
}

impl CheckedCache {
    /// Opens the cache in `dir`, made where it is missing, and deletes what is damaged. The entries that were used last
    /// are kept, so many of them, and no others: reading all that older versions have left would delay each start.
    pub fn open(dir: &Path, keep: usize) -> io::Result<Self> {
        // An absolute path: wasmtime takes no other.
        let dir = std::path::absolute(dir)?;
        make(&dir)?;
        let entries = dir.join("entries");
        make(&entries)?;
        let known = read_digests(&dir.join("digests"));
        let mut digests = BTreeMap::new();
        let mut damaged = 0;
        let mut found = list(&entries)?;
        found.sort_by_cached_key(|(_, path)| std::cmp::Reverse(last_used(path)));
        for (_, path) in found.drain(keep.min(found.len())..) {
            remove(&path)?;
        }
        for (name, path) in found {
            // Another start may have deleted it meanwhile.
            let Some(digest) = read(&path)?.map(|bytes| digest(&bytes)) else { continue };
            if known.get(&name).is_some_and(|known| *known == digest) {
                digests.insert(name, digest);
            } else {
                remove(&path)?;
                damaged += 1;
            }
        }
        if damaged > 0 {
            tracing::warn!(target: "witgate::cache", damaged, "entries of the cache were damaged and are compiled again");
        }
        let mut config = CacheConfig::new();
        config
            .with_directory(&entries)
            // No entry is ever rewritten: its digest would not fit any more.
            .with_optimized_compression_usage_counter_threshold(u64::MAX)
            .with_files_total_size_soft_limit(128 * 1024 * 1024)
            .with_cleanup_interval(Duration::from_secs(60 * 60));
        let cache = Cache::new(config).map_err(io::Error::other)?;
        Ok(CheckedCache { dir, cache, digests })
    }

    /// For the engine.
    pub fn cache(&self) -> Cache {
        self.cache.clone()
    }

    /// Components that were found in the cache.
    pub fn hits(&self) -> usize {
        self.cache.cache_hits()
    }

    /// Components that had to be compiled.
    pub fn misses(&self) -> usize {
        self.cache.cache_misses()
    }

    /// Writes the digests of entries that are new. To be called when components have been loaded.
    pub fn save(&mut self) -> io::Result<()> {
        let mut new = false;
        for (name, path) in list(&self.dir.join("entries"))? {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.digests.entry(name)
                && let Some(bytes) = read(&path)?
            {
                entry.insert(digest(&bytes));
                new = true;
            }
        }
        if !new {
            return Ok(());
        }
        let mut text = String::new();
        for (name, digest) in &self.digests {
            let _ = writeln!(text, "{digest}  {name}");
        }
        // Into place at once: a reader sees the old digests or the new ones.
        let temporary = self.dir.join(format!("digests.{}", std::process::id()));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.dir.join("digests"))
    }
}

/// Makes a folder for its owner alone. Refuses one that others may write to.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        builder.mode(0o700);
        builder.create(dir)?;
        if fs::metadata(dir)?.permissions().mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} can be written by others; `chmod go-w` it", dir.display()),
            ));
        }
        Ok(())
    }
    #[cfg(not(unix))]
    builder.create(dir)
}

/// The entries, by their path within the cache: not wasmtime's statistics (`.stats`) and locks (`.wip-…`).
fn list(entries: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![(entries.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < 4 {
                folders.push((entry.path(), format!("{name}/"), depth + 1));
            } else if kind.is_file() && entry.path().extension().is_none() {
                found.push((name, entry.path()));
            }
        }
    }
    Ok(found)
}

/// When an entry was used last: wasmtime writes its statistics then.
fn last_used(entry: &Path) -> Option<SystemTime> {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified(&entry.with_extension("stats")).max(modified(entry))
}

/// Reads a file; `None` where it is not there any more.
pub(crate) fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a file that may be gone already.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_digests(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once("  ")).map(|(digest, name)| (name.into(), digest.into())).collect()
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).hex().to_owned()
}
