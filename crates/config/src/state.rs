//! Where state lies, `[state]`, and where stored configurations come from.

use std::time::Duration;

use serde_json::Value as Json;

use crate::access::OnFailure;
use crate::endpoint::{self, Flaw};
use crate::names::quote;
use crate::read::{At, Hidden, Kind, Named, Node, Reader, Size, Text, Time, Word, join, table};
use crate::secret::Secret;
use crate::units::{GIB, MIB};

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Where state lies: keys, meters, jobs, kept answers.
#[derive(Clone, Debug)]
pub struct State {
    /// In what.
    pub store: Store,
    /// The longest that one call of the store takes.
    pub timeout: Duration,
    /// How often a file gets the meters; zero is at each call.
    pub flush: Duration,
    /// The most that values take in memory and in a file, in bytes.
    pub max_bytes: u64,
    /// What every key begins with in a store that others may use too.
    pub prefix: String,
    /// What holds for limits and budgets while it cannot be asked.
    pub on_failure: OnFailure,
}

/// What state lies in.
#[derive(Clone, Debug, Default)]
pub enum Store {
    /// The memory of the process.
    #[default]
    Memory,
    /// A file of one process, by its path relative to the configuration's.
    File(String),
    /// A Redis or Valkey server, by its URL, which may hold a password.
    Redis(Secret),
    /// The key-value store of the runtime, at the edge.
    KeyValue,
    /// One of the program's own, whatever the file says.
    Native,
}

impl Store {
    /// Whether what is kept outlives the process, or is shared with others.
    pub fn outlives(&self) -> bool {
        !matches!(self, Store::Memory)
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            store: Store::Memory,
            timeout: Duration::from_secs(1),
            flush: Duration::from_secs(1),
            max_bytes: 256 * MIB,
            prefix: "witgate".into(),
            on_failure: OnFailure::Open,
        }
    }
}

/// Where stored configurations come from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// A folder, [`Documents::configurations`](crate::Documents::configurations).
    #[default]
    Folder,
    /// The state store: the value `configuration/KEY`.
    State,
    /// A bucket.
    S3(S3),
}

/// A bucket of S3, or of a service that speaks its protocol.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What stands before every key; empty, or ending in a slash.
    pub prefix: String,
    /// The region to sign for.
    pub region: String,
    /// The service, without a slash at its end.
    pub endpoint: String,
    /// Who asks: access key id, secret access key and, of temporary ones, the session token. None takes what the runtime has.
    pub credentials: Option<(Secret, Secret, Option<Secret>)>,
}

table! {
    /// Where state lies: what is kept of answers, counted against limits, and known of keys and jobs.
    struct StateTable {
        /// "memory" (the default), "file" (one process, survives it), "redis" (shared by many), or "key-value" (Spin's).
        store: Word<StoreName>;
        /// file only: the file, relative to this one. Its folder must be there.
        path: Text;
        /// redis only: the server, as "redis://host:6379/0", or "rediss://user:password@host" for TLS.
        url: Hidden;
        /// The longest that one call of the store takes.
        timeout: Time = State::default().timeout, MS..=MINUTE;
        /// file only: how often counts are written, which are lost for that time in a crash; 0 is at each call.
        flush: Time = State::default().flush, Duration::ZERO..=MINUTE;
        /// memory and file only: the most that values take, keys included.
        max_bytes: Size = State::default().max_bytes, MIB..=1_024 * GIB;
        /// redis and key-value only: what every key begins with. Default "witgate".
        prefix: Text;
        /// What holds for limits and budgets while it cannot be asked: open (the default: requests are served without
        /// them), or closed (requests are refused with 503).
        on_failure: Word<OnFailure>;
    }
}

table! {
    /// A bucket of stored configurations.
    struct S3Table {
        /// The bucket's name.
        bucket: Text [required];
        /// What stands before every key. Default nothing.
        prefix: Text;
        /// Its region.
        region: Text [required];
        /// The service, where it is another one than AWS.
        endpoint: Text;
        /// With secret_access_key: who asks. Without them the runtime's own credentials are taken.
        access_key_id: Hidden;
        /// The secret to access_key_id.
        secret_access_key: Hidden;
        /// Of temporary credentials.
        session_token: Hidden;
    }
}

/// The name of a store.
#[derive(Clone, Copy)]
enum StoreName {
    Memory,
    File,
    Redis,
    KeyValue,
}

impl Named for StoreName {
    const WHAT: &'static str = "store";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("memory", StoreName::Memory),
        ("file", StoreName::File),
        ("redis", StoreName::Redis),
        ("key-value", StoreName::KeyValue),
    ];
}

/// The table `[state]`.
pub(crate) struct StateKind;

impl Kind for StateKind {
    type Value = State;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<State> {
        let table = StateTable::read(node, path, reader)?;
        let default = State::default();
        let prefix = match table.prefix {
            Some(at) if !is_prefix(&at.value) => {
                let message = format!("{} is no prefix", node_text(&at));
                let help = "write 1 to 64 letters, digits, \"-\", \"_\", \".\", \":\" or \"/\"";
                reader.problem(&at.span, &join(path, "prefix"), message, Some(help.into()));
                return None;
            }
            Some(at) => at.value,
            None => default.prefix,
        };
        let store = match table.store.map_or(StoreName::Memory, |at| at.value) {
            StoreName::File => match table.path {
                Some(at) if at.value.is_empty() => {
                    let help = "write a file's path, as \"witgate-state.redb\"";
                    reader.problem(&at.span, &join(path, "path"), "the path is empty", Some(help.into()));
                    return None;
                }
                Some(at) => Store::File(at.value),
                None => {
                    reader.missing_key(node, path, "path");
                    return None;
                }
            },
            StoreName::Redis => match table.url {
                Some(at) if !["redis://", "rediss://"].iter().any(|scheme| starts_with(&at.value, scheme)) => {
                    let help = "write \"redis://host:6379/0\", or \"rediss://host\" for TLS";
                    reader.problem(
                        &at.span,
                        &join(path, "url"),
                        "the URL is none of a Redis server",
                        Some(help.into()),
                    );
                    return None;
                }
                Some(at) => Store::Redis(at.value),
                None => {
                    reader.missing_key(node, path, "url");
                    return None;
                }
            },
            StoreName::KeyValue => Store::KeyValue,
            StoreName::Memory => Store::Memory,
        };
        Some(State {
            store,
            timeout: table.timeout.map_or(default.timeout, |at| at.value),
            flush: table.flush.map_or(default.flush, |at| at.value),
            max_bytes: table.max_bytes.map_or(default.max_bytes, |at| at.value),
            prefix,
            on_failure: table.on_failure.map_or(default.on_failure, |at| at.value),
        })
    }

    fn schema() -> Json {
        StateTable::schema()
    }
}

fn starts_with(secret: &Secret, scheme: &str) -> bool {
    let text = secret.expose();
    text.len() > scheme.len() && text.starts_with(scheme)
}

fn is_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
}

fn node_text(at: &At<String>) -> String {
    match &at.variable {
        Some(name) => format!("the value of ${{{name}}}"),
        None => quote(&at.value, 60),
    }
}

/// Where stored configurations come from, by name.
#[derive(Clone, Copy)]
pub(crate) enum SourceName {
    Folder,
    S3,
    State,
}

impl Named for SourceName {
    const WHAT: &'static str = "source of configurations";
    const NAMES: &'static [(&'static str, Self)] =
        &[("folder", SourceName::Folder), ("s3", SourceName::S3), ("state", SourceName::State)];
}

/// What `from` and `s3` of `[documents]` say together.
pub(crate) fn source(from: Option<At<SourceName>>, s3: Option<At<S3>>, reader: &mut Reader<'_>) -> Source {
    let (from, span) = from.map_or((None, 0..0), |at| (Some(at.value), at.span));
    match (from, s3) {
        (Some(SourceName::S3), None) => {
            let help = "write s3 = { bucket = \"…\", region = \"…\" }";
            reader.problem(&span, "documents.from", "there is no \"s3\" to read from", Some(help.into()));
            Source::Folder
        }
        (Some(SourceName::State), _) => Source::State,
        (None | Some(SourceName::S3), Some(s3)) => Source::S3(s3.value),
        (None | Some(SourceName::Folder), _) => Source::Folder,
    }
}

/// The table `s3`.
pub(crate) struct S3Kind;

impl Kind for S3Kind {
    type Value = S3;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<S3> {
        let table = S3Table::read(node, path, reader)?;
        let (bucket, region) = (table.bucket?, table.region?);
        let bucket_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if !(3..=63).contains(&bucket.value.len())
            || !bucket.value.bytes().all(bucket_char)
            || bucket.value.starts_with('.')
        {
            let message = format!("{} is no name of a bucket", node_text(&bucket));
            let help = "write 3 to 63 lower-case letters, digits, \"-\" or \".\"";
            reader.problem(&bucket.span, &join(path, "bucket"), message, Some(help.into()));
            return None;
        }
        let region_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&region.value.len()) || !region.value.bytes().all(region_char) {
            let message = format!("{} is no region", node_text(&region));
            reader.problem(&region.span, &join(path, "region"), message, Some("write \"us-east-1\"".into()));
            return None;
        }
        let endpoint = match table.endpoint {
            None => format!(
                "https://s3.{}.amazonaws.com{}",
                region.value,
                if region.value.starts_with("cn-") { ".cn" } else { "" }
            ),
            Some(at) => match endpoint::check(&at.value) {
                Ok(url) if url != "stub:" => url,
                Ok(_) => {
                    let help = "write \"https://host\"";
                    reader.problem(&at.span, &join(path, "endpoint"), "the stub is no bucket", Some(help.into()));
                    return None;
                }
                Err(Flaw(message, help)) => {
                    reader.problem(&at.span, &join(path, "endpoint"), format!("the URL {message}"), Some(help.into()));
                    return None;
                }
            },
        };
        let prefix = table.prefix.map(|at| at.value).unwrap_or_default();
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let credentials = match (table.access_key_id, table.secret_access_key) {
            (Some(id), Some(secret)) => Some((id.value, secret.value, table.session_token.map(|at| at.value))),
            (None, None) => None,
            _ => {
                let help = "write both, or none for the runtime's own";
                reader.problem(&node.span, path, "one half of the credentials is missing", Some(help.into()));
                return None;
            }
        };
        Some(S3 { bucket: bucket.value, prefix, region: region.value, endpoint, credentials })
    }

    fn schema() -> Json {
        S3Table::schema()
    }
}
