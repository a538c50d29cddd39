//! `witgate.lock`: what the names of the configuration were when they were added.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use witgate_config::{Digest, Problem};

use super::Kind;

/// The version of the file's format.
const VERSION: u32 = 1;
/// Largest lock file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
const HEAD: &str = "# What `witgate adapters add` found. Keep it with the configuration; do not write it by hand.\n";

/// A lock file.
#[derive(Clone, Debug)]
pub struct Lock {
    file: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    adapter: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    policy: Vec<Entry>,
}

/// What one name was.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name in the configuration.
    pub name: String,
    /// The source, as [`witgate_config::ComponentSource`] prints it.
    pub source: String,
    /// Of the component.
    #[serde(with = "text")]
    pub digest: Digest,
    /// Of the manifest, for an artifact of a registry.
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Of the component, in bytes.
    pub size: u64,
    /// When it was fetched, as RFC 3339 writes it.
    pub fetched: String,
}

impl Lock {
    /// Reads a lock file; one that is not there is empty.
    ///
    /// # Errors
    /// Where it cannot be read, or is not what this version writes.
    pub fn read(file: &Path) -> Result<Self, Problem> {
        let shown = file.display().to_string();
        let problem = |line, message: String| Problem {
            file: shown.clone(),
            line,
            column: u32::from(line > 0),
            key: String::new(),
            message,
            help: Some("take it from your version control, or delete it and add what it held once more".to_owned()),
        };
        match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Lock::empty(file));
            }
            Err(error) => return Err(problem(0, format!("cannot be read: {error}"))),
            Ok(about) if about.len() > MAX_BYTES => {
                return Err(problem(0, format!("is larger than {MAX_BYTES} bytes")));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(file).map_err(|error| problem(0, format!("cannot be read: {error}")))?;
        let content: Content = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
            problem(u32::try_from(line).unwrap_or(u32::MAX), error.message().to_owned())
        })?;
        if content.version != VERSION {
            let message = format!("has the version {}; this witgate reads {VERSION}", content.version);
            return Err(problem(0, message));
        }
        Ok(Lock { file: file.to_owned(), content })
    }

    pub(super) fn empty(file: &Path) -> Self {
        Lock { file: file.to_owned(), content: Content { version: VERSION, ..Content::default() } }
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn entries(&self, kind: Kind) -> &[Entry] {
        match kind {
            Kind::Adapter => &self.content.adapter,
            Kind::Policy => &self.content.policy,
        }
    }

    fn entries_mut(&mut self, kind: Kind) -> &mut Vec<Entry> {
        match kind {
            Kind::Adapter => &mut self.content.adapter,
            Kind::Policy => &mut self.content.policy,
        }
    }

    /// The entry of a name.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Entry> {
        self.entries(kind).iter().find(|entry| entry.name == name)
    }

    /// Sets the entry of a name.
    pub fn set(&mut self, kind: Kind, entry: Entry) {
        self.remove(kind, &entry.name);
        let entries = self.entries_mut(kind);
        entries.push(entry);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Takes the entry of a name away, and says whether there was one.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        let entries = self.entries_mut(kind);
        let before = entries.len();
        entries.retain(|entry| entry.name != name);
        entries.len() < before
    }

    /// Writes the file, all of it or nothing.
    pub fn write(&self) -> io::Result<()> {
        let text = toml::to_string(&self.content).map_err(io::Error::other)?;
        super::replace(&self.file, &format!("{HEAD}{text}"))
    }
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use witgate_config::Digest;

    pub fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(digest.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

mod optional {
    use serde::{Deserializer, Serializer};
    use witgate_config::Digest;

    pub fn serialize<S: Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => to.serialize_str(digest.as_str()),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
        super::text::deserialize(from).map(Some)
    }
}
