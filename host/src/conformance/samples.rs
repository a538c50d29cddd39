//! The author's samples: answers of the backend, in a folder.
//!
//! With a `meta.json` in the folder, its keys name the files that are samples, and its values say how they came:
//!
//! ```json
//! {
//!   "chat.sse": {"stream": true, "expect": {"text": "Hello!", "finish": "stop"}},
//!   "busy.json": {"status": 429, "headers": {"retry-after": "3"}, "expect": {"error": "rate-limited"}}
//! }
//! ```
//!
//! Without one, each file is a sample; its name says how it came: `chat.sse`, `chat.ndjson` and `chat.bin` (an AWS event
//! stream) are streams, `chat.json`, `page.html` and `page.txt` are whole, and `busy.429.json` has the status 429.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The largest sample, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most samples.
const MAX_SAMPLES: usize = 1000;

/// Why a folder of samples cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the samples in {}: {what}", folder.display())]
pub struct SampleError {
    folder: PathBuf,
    what: String,
}

impl SampleError {
    pub(super) fn new(folder: &Path, what: String) -> Self {
        SampleError { folder: folder.to_owned(), what }
    }
}

/// An answer of the backend.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub name: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub stream: bool,
    /// The provider's settings, where the sample has its own.
    pub settings: Option<String>,
    /// What `encode` handed to the decoder, where the sample says.
    pub context: Option<String>,
    pub body: Vec<u8>,
    pub expect: Expect,
}

/// What should come of a sample.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// All text, joined.
    pub text: Option<String>,
    /// How the first choice ends, as `stop`, `length`, `tool-calls`.
    pub finish: Option<String>,
    /// The kind of the failure, as `rate-limited`.
    pub error: Option<String>,
    /// The names of the tools that are called.
    pub tools: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Meta {
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    content_type: Option<String>,
    stream: Option<bool>,
    settings: Option<serde_json::Value>,
    context: Option<String>,
    #[serde(default)]
    expect: Expect,
}

/// How a file of this name came: status, content type, in a stream.
fn by_name(name: &str) -> Option<(u16, &'static str, bool)> {
    let mut parts = name.rsplit('.');
    let (content_type, stream) = match parts.next()? {
        "json" => ("application/json", false),
        "html" => ("text/html", false),
        "txt" => ("text/plain", false),
        "sse" => ("text/event-stream", true),
        "ndjson" => ("application/x-ndjson", true),
        "bin" => ("application/vnd.amazon.eventstream", true),
        _ => return None,
    };
    let status = parts.next().and_then(|status| status.parse().ok()).filter(|status| (200..600).contains(status));
    Some((status.unwrap_or(200), content_type, stream))
}

/// The bytes of a sample's file.
fn load(folder: &Path, name: &str) -> Result<Vec<u8>, SampleError> {
    let file = folder.join(name);
    let cannot = |error: std::io::Error| SampleError::new(folder, format!("cannot read {name}: {error}"));
    let size = std::fs::metadata(&file).map_err(cannot)?.len();
    if size > MAX_BYTES {
        let what = format!("{name} has {size} bytes; at most {MAX_BYTES} are allowed");
        return Err(SampleError::new(folder, what));
    }
    std::fs::read(&file).map_err(cannot)
}

/// The names of a folder's files.
fn names(folder: &Path) -> Result<impl Iterator<Item = String>, SampleError> {
    let entries = std::fs::read_dir(folder).map_err(|error| SampleError::new(folder, error.to_string()))?;
    let files = entries.flatten().filter(|entry| entry.path().is_file());
    Ok(files.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// There are samples, and not too many. `example`: what to write where there is none.
fn counted(folder: &Path, count: usize, example: &str) -> Result<(), SampleError> {
    match count {
        0 => Err(SampleError::new(folder, format!("there is none; write e.g. {example}"))),
        1..=MAX_SAMPLES => Ok(()),
        _ => Err(SampleError::new(folder, format!("there are {count}; at most {MAX_SAMPLES} are allowed"))),
    }
}

/// The files of a folder whose names end so, by name, and what they hold.
pub(super) fn files(folder: &Path, ending: &str, example: &str) -> Result<Vec<(String, Vec<u8>)>, SampleError> {
    let ending = format!(".{ending}");
    let mut found: Vec<String> = names(folder)?.filter(|name| name.ends_with(&ending)).collect();
    counted(folder, found.len(), example)?;
    found.sort();
    found.into_iter().map(|name| Ok((name.clone(), load(folder, &name)?))).collect()
}

/// All samples of a folder, by name.
pub(super) fn read(folder: &Path) -> Result<Vec<Sample>, SampleError> {
    let bad = |what: String| SampleError::new(folder, what);
    let metas: BTreeMap<String, Option<Meta>> = if folder.join("meta.json").is_file() {
        let text = load(folder, "meta.json")?;
        serde_json::from_slice(&text).map_err(|error| bad(format!("meta.json: {error}")))?
    } else {
        names(folder)?.filter(|name| by_name(name).is_some()).map(|name| (name, None)).collect()
    };
    counted(folder, metas.len(), "chat.sse, chat.json or busy.429.json")?;
    let mut samples = Vec::new();
    for (name, meta) in metas {
        let body = load(folder, &name)?;
        let guess = by_name(&name);
        let (status, content_type, stream) = guess.unwrap_or((200, "", false));
        let meta = meta.unwrap_or_else(|| Meta {
            status: None,
            headers: BTreeMap::new(),
            content_type: None,
            stream: None,
            settings: None,
            context: None,
            expect: Expect::default(),
        });
        let mut headers: Vec<_> =
            meta.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        if !headers.iter().any(|(name, _)| name == "content-type") {
            let content_type = meta.content_type.unwrap_or_else(|| content_type.to_owned());
            if !content_type.is_empty() {
                headers.push(("content-type".to_owned(), content_type));
            }
        }
        let status = meta.status.unwrap_or(status);
        if !(200..600).contains(&status) {
            return Err(bad(format!("{name} has the status {status}; 200 to 599 are possible")));
        }
        samples.push(Sample {
            status,
            headers,
            stream: meta.stream.unwrap_or(stream),
            settings: meta.settings.map(|settings| settings.to_string()),
            context: meta.context,
            body,
            expect: meta.expect,
            name,
        });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_how_it_came() {
        assert_eq!(by_name("chat.sse"), Some((200, "text/event-stream", true)));
        assert_eq!(by_name("busy.429.json"), Some((429, "application/json", false)));
        assert_eq!(by_name("version.1.txt"), Some((200, "text/plain", false)));
        assert_eq!(by_name("README.md"), None);
    }

    #[test]
    fn a_folder_that_makes_no_sense_is_refused_with_what_would() {
        let folder = tempfile::tempdir().unwrap();
        let told = |folder: &Path| read(folder).unwrap_err().to_string();
        assert!(told(folder.path()).contains("write e.g. chat.sse"), "{}", told(folder.path()));
        std::fs::write(folder.path().join("meta.json"), r#"{"a.sse": {"expect": {"txt": "x"}}}"#).unwrap();
        assert!(told(folder.path()).contains("unknown field `txt`"), "{}", told(folder.path()));
        std::fs::write(folder.path().join("meta.json"), r#"{"a.sse": {}}"#).unwrap();
        assert!(told(folder.path()).contains("cannot read a.sse"), "{}", told(folder.path()));
        std::fs::write(folder.path().join("a.sse"), "data: 1\n\n").unwrap();
        let samples = read(folder.path()).unwrap();
        assert_eq!((samples.len(), samples[0].stream, samples[0].status), (1, true, 200));
    }
}
