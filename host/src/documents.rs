//! Documents: answers that a client may ask for again, kept in memory, and configurations that an operator stored in a
//! folder.

use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use moka::sync::Cache;
use witgate_gateway::{Document, DocumentRef};

/// What operators store.
const CONFIGURATION: &str = "configuration";

/// The documents of one host.
pub(crate) struct Documents {
    /// Answers, by kind and key.
    kept: Cache<(String, String), String>,
    /// Configurations that were read of late; absent ones too.
    read: Cache<String, Option<String>>,
    folder: Option<PathBuf>,
    max_bytes: u64,
}

impl Documents {
    /// `base` is the folder to which the configuration's paths are relative.
    pub fn new(config: &witgate_config::Documents, base: &Path) -> Self {
        let kept = Cache::builder()
            .weigher(|(kind, key): &(String, String), content: &String| {
                u32::try_from(kind.len() + key.len() + content.len() + 128).unwrap_or(u32::MAX)
            })
            .max_capacity(config.memory_bytes)
            .time_to_live(config.keep_for);
        // A moment at least, so that a burst of requests reads a file once.
        let fresh = config.cache_ttl.max(Duration::from_millis(100));
        Documents {
            kept: kept.build(),
            read: Cache::builder().max_capacity(1_024).time_to_live(fresh).build(),
            folder: config.configurations.as_ref().map(|folder| base.join(folder)),
            max_bytes: config.max_bytes,
        }
    }

    /// The documents that take these ones' place when the configuration is read anew: the kept answers are the same.
    /// How many and for how long cannot change.
    pub fn successor(&self, config: &witgate_config::Documents, base: &Path) -> Self {
        Documents { kept: self.kept.clone(), ..Documents::new(config, base) }
    }

    /// What a document holds.
    pub async fn get(&self, at: &DocumentRef) -> Result<Option<String>, String> {
        if at.kind != CONFIGURATION {
            return Ok(self.kept.get(&(at.kind.clone(), at.key.clone())));
        }
        let Some(folder) = &self.folder else {
            return Err("no folder is configured (documents.configurations)".to_owned());
        };
        if let Some(read) = self.read.get(&at.key) {
            return Ok(read);
        }
        let inside = Path::new(&at.key).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || at.key.len() > 512 {
            return Ok(None);
        }
        let (folder, file, limit) = (folder.clone(), folder.join(&at.key), self.max_bytes);
        let content = tokio::task::spawn_blocking(move || text(&folder, &file, limit))
            .await
            .map_err(|_| "reading it failed".to_owned())??;
        self.read.insert(at.key.clone(), content.clone());
        Ok(content)
    }

    /// Keeps a document, or forgets it.
    pub fn keep(&self, document: Document) -> Result<(), String> {
        let DocumentRef { kind, key } = document.at;
        if kind == CONFIGURATION {
            return Err("configurations are the operator's: they are only read".to_owned());
        }
        match document.content {
            Some(content) => self.kept.insert((kind, key), content),
            None => self.kept.invalidate(&(kind, key)),
        }
        Ok(())
    }
}

/// The text of a file inside `folder`; none where there is no such file.
fn text(folder: &Path, file: &Path, limit: u64) -> Result<Option<String>, String> {
    let absent = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
    };
    let folder = folder.canonicalize().map_err(|error| format!("documents.configurations: {error}"))?;
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    // A link that leads out of the folder is no document of it.
    if !file.starts_with(&folder) || !file.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    let open = std::fs::File::open(&file).map_err(|error| error.to_string())?;
    open.take(limit + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > limit {
        Err(format!("it is larger than {limit} bytes (documents.max_bytes)"))
    } else {
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: &str, key: &str) -> DocumentRef {
        DocumentRef { kind: kind.into(), key: key.into() }
    }

    #[tokio::test]
    async fn answers_are_kept_and_forgotten() {
        let documents = Documents::new(&witgate_config::Documents::default(), Path::new(""));
        let document =
            |content: Option<&str>| Document { at: at("response", "r1"), content: content.map(str::to_owned) };
        assert_eq!(documents.get(&at("response", "r1")).await, Ok(None));
        documents.keep(document(Some("{}"))).unwrap();
        assert_eq!(documents.get(&at("response", "r1")).await, Ok(Some("{}".to_owned())));
        documents.keep(document(None)).unwrap();
        assert_eq!(documents.get(&at("response", "r1")).await, Ok(None));
    }

    #[tokio::test]
    async fn a_configuration_is_read_from_its_folder_and_from_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stored");
        std::fs::create_dir_all(folder.join("team")).unwrap();
        std::fs::write(folder.join("team/greet.latest.json"), "{\"a\":1}").unwrap();
        std::fs::write(dir.path().join("secret.json"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret.json"), folder.join("link.json")).unwrap();
        std::fs::write(folder.join("large.json"), " ".repeat(2_000)).unwrap();
        let config = witgate_config::Documents {
            configurations: Some("stored".into()),
            max_bytes: 1_000,
            ..witgate_config::Documents::default()
        };
        let documents = Documents::new(&config, dir.path());
        let get = async |key: &str| documents.get(&at("configuration", key)).await;
        assert_eq!(get("team/greet.latest.json").await, Ok(Some("{\"a\":1}".to_owned())));
        for key in ["../secret.json", "/etc/passwd", "link.json", "none.json", "team", "team/greet.latest.json/x", ""] {
            assert_eq!(documents.get(&at("configuration", key)).await, Ok(None), "{key}");
        }
        assert!(get("large.json").await.unwrap_err().contains("documents.max_bytes"));
        assert!(documents.keep(Document { at: at("configuration", "x"), content: None }).is_err());
    }
}
