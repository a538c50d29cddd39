//! What was fetched, by its digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use witgate_config::Digest;

use super::MAX_COMPONENT;
use crate::cache::{make, read, remove};

/// Most documents that are kept.
const MAX_DOCUMENTS: usize = 256;
/// The bytes that they may take.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A folder whose files are named by their digests. Every file is verified when it is read.
pub(crate) struct Store {
    dir: Option<PathBuf>,
}

impl Store {
    /// In the folder `sources` of the cache; without a cache nothing is kept.
    pub fn new(cache: Option<&Path>) -> Self {
        Store { dir: cache.map(|dir| dir.join("sources")) }
    }

    /// The document with this digest, where it is here. One that was damaged is deleted.
    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let file = self.dir.as_ref()?.join(digest.hex());
        if fs::metadata(&file).ok()?.len() > MAX_COMPONENT {
            return None;
        }
        let bytes = read(&file).ok()??;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(target: "witgate::cache", file = %file.display(), "a fetched component was damaged; it is fetched again");
            let _ = remove(&file);
            return None;
        }
        // So that what is used is not what is deleted first.
        if let Ok(file) = fs::File::options().append(true).open(&file) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes)
    }

    /// Keeps a document. Those that were used least lately make room.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        make(dir)?;
        // Into place at once: a reader sees all of it or nothing. Several threads may fetch the same.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = dir.join(format!("{}.{}.{number}", digest.hex(), std::process::id()));
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, dir.join(digest.hex())));
        if written.is_err() {
            // Where it cannot be taken away, the first error says more.
            let _ = remove(&temporary);
        }
        written?;
        prune(dir, digest)
    }
}

/// Deletes what is too much, the oldest first, and never `new`.
fn prune(dir: &Path, new: &Digest) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let about = match entry.metadata() {
            // What another has put into its place, or deleted, since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about?,
        };
        if about.is_file() {
            files.push((about.modified()?, about.len(), entry.path()));
        }
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.0));
    let mut bytes = 0u64;
    for (number, (_, length, file)) in files.iter().enumerate() {
        bytes = bytes.saturating_add(*length);
        let is_new = file.file_name().is_some_and(|name| name == new.hex());
        if (number >= MAX_DOCUMENTS || bytes > MAX_BYTES) && !is_new {
            remove(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_may_keep_one_document_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(Some(folder.path()));
        // Long enough that some are at it together.
        let bytes = vec![7; 1024 * 1024];
        let digest = Digest::of(&bytes);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..20).try_for_each(|_| store.put(&digest, &bytes)))).collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        assert_eq!(store.get(&digest), Some(bytes));
        assert_eq!(fs::read_dir(folder.path().join("sources")).unwrap().count(), 1);
    }
}
