//! Queues from which requests come, `[queues]`: what is configured of them.

use std::time::Duration;

use crate::access::Access;
use crate::config::Server;
use crate::endpoint;
use crate::jobs::Jobs;
use crate::names::{list, quote};
use crate::read::{At, Count, Entry, Flag, Hidden, Named, Reader, Text, Time, Word, join, table};
use crate::secret::Secret;
use crate::state::{State, Store};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Most queues.
const MAX_QUEUES: usize = 16;
/// Longest name of a stream or a group.
const MAX_NAME: usize = 256;

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name in the configuration.
    pub name: String,
    /// What it is, and where.
    pub kind: QueueKind,
    /// Where the answers go; none: nowhere but into the record of the job.
    pub answers: Option<String>,
    /// Where messages go that failed too often; none: they come back (SQS), or their failure is their answer (Redis).
    pub dead_letters: Option<String>,
    /// How often a message is received before a failure that may pass is its last.
    pub receives: u32,
    /// Where a message goes as a request.
    pub path: String,
    /// The id of the key in whose stead messages ask; none on a server without keys.
    pub key: Option<String>,
    /// Messages that are worked on at once.
    pub concurrency: usize,
    /// How long a message belongs to the process that received it, unless that says again that it does.
    pub visibility: Duration,
    /// How long one question for messages may wait for one.
    pub wait: Duration,
    /// Where the end of each message's job is told.
    pub callback: Option<String>,
}

/// What a queue is.
#[derive(Clone, Debug)]
pub enum QueueKind {
    /// A queue of Amazon SQS, or of a service that speaks its protocol.
    Sqs(Sqs),
    /// A stream of a Redis or Valkey server.
    Redis(Stream),
}

/// A queue of Amazon SQS.
#[derive(Clone, Debug)]
pub struct Sqs {
    /// The queue's URL.
    pub url: String,
    /// The region to sign for.
    pub region: String,
    /// Who asks: access key id, secret access key and, of temporary ones, the session token. None takes what the runtime has.
    pub credentials: Option<(Secret, Secret, Option<Secret>)>,
}

/// A stream of a Redis or Valkey server.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The server's URL, which may hold a password.
    pub url: Secret,
    /// The stream's key.
    pub stream: String,
    /// The group of consumers, made where there is none.
    pub group: String,
    /// Messages stay in the stream when they are done.
    pub keep_messages: bool,
}

impl Queue {
    /// What the ids of its messages are unique in.
    pub fn source(&self) -> String {
        match &self.kind {
            QueueKind::Sqs(sqs) => sqs.url.clone(),
            QueueKind::Redis(stream) => format!("{}/{}", stream.stream, stream.group),
        }
    }
}

table! {
    /// A queue from which requests come.
    pub(crate) struct QueueTable {
        /// "sqs" (Amazon SQS), or "redis" (a stream of a Redis or Valkey server).
        kind: Word<KindName> [required];
        /// sqs: the queue's URL. redis: the server, as "redis://host:6379/0"; default that of the state store.
        url: Hidden;
        /// sqs only: the region. Default: as the URL has it.
        region: Text;
        /// sqs only, with secret_access_key: who asks. Without them the runtime's own credentials are taken.
        access_key_id: Hidden;
        /// sqs only: the secret to access_key_id.
        secret_access_key: Hidden;
        /// sqs only: of temporary credentials.
        session_token: Hidden;
        /// redis only: the stream's key.
        stream: Text;
        /// redis only: the group of consumers, made where there is none. Default "witgate".
        group: Text;
        /// redis only: messages stay in the stream when they are done, for other groups. Default false.
        keep_messages: Flag;
        /// The API that a message is a request of, by its path. Default "/v1/chat/completions".
        path: Text;
        /// The id of the key in whose stead messages ask: a name of [keys], "server.0" for the first of
        /// server.api_keys, or one that the admin API has made. Required where clients need keys.
        key: Text;
        /// Messages that one process works on at once.
        concurrency: Count = 10, 1..=1_000;
        /// How long a message belongs to the process that received it; while it works on it, it says again that it does.
        visibility: Time = Duration::from_secs(60), 5 * SECOND..=12 * HOUR;
        /// How long one question for messages waits for one.
        wait: Time = Duration::from_secs(20), Duration::ZERO..=Duration::from_secs(20);
        /// Where the answers go: the URL of another queue of SQS, or the key of another stream. Default: they are kept as
        /// those of jobs are.
        answers: Text;
        /// Where messages go that failed too often, as answers. Default: those of sqs come back until the queue's own
        /// redrive policy takes them, and of redis the failure is their answer.
        dead_letters: Text;
        /// How often a message is received before a failure that may pass is its last.
        receives: Count = 5, 1..=1_000;
        /// Where the end of each message's job is told, as with the header x-witgate-callback.
        callback: Text;
    }
}

/// The kind of a queue, by name.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum KindName {
    Sqs,
    Redis,
}

impl Named for KindName {
    const WHAT: &'static str = "kind of queue";
    const NAMES: &'static [(&'static str, Self)] = &[("sqs", KindName::Sqs), ("redis", KindName::Redis)];
}

/// The queues of the file.
pub(crate) fn queues(
    entries: Vec<Entry<QueueTable>>,
    (server, access, jobs, state): (&Server, &Access, &Jobs, &State),
    reader: &mut Reader<'_>,
) -> Vec<Queue> {
    let mut queues = Vec::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let path = join("queues", &entry.key.name);
        if number == MAX_QUEUES {
            let help = format!("keep at most {MAX_QUEUES}");
            reader.problem(&entry.key.span, &path, "one queue too many", Some(help));
        }
        let Some(At { mut value, span, .. }) = entry.at else { continue };
        let at = Place { span: &span, path: &path };
        let Some(kind) = value.kind.take().map(|kind| kind.value) else { continue };
        others(kind, &value, at, reader);
        let answers = place(kind, "answers", value.answers.take(), at, reader);
        let dead_letters = place(kind, "dead_letters", value.dead_letters.take(), at, reader);
        let key = key(value.key.take(), (server, access), at, reader);
        let callback = callback(value.callback.take(), jobs, at, reader);
        let route = value.path.take();
        if let Some(route) = route.as_ref().filter(|route| !route.value.starts_with('/') || route.value.contains('?')) {
            let message = format!("{} is no path", quote(&route.value, 64));
            let help = "write the path of an API, as \"/v1/chat/completions\"";
            reader.problem(&route.span, &join(&path, "path"), message, Some(help.into()));
        }
        let (concurrency, receives) = (value.concurrency.as_ref(), value.receives.as_ref());
        let (concurrency, receives) = (concurrency.map_or(10, |at| at.value), receives.map_or(5, |at| at.value));
        let visibility = value.visibility.as_ref().map_or(60 * SECOND, |at| at.value);
        let wait = value.wait.as_ref().map_or(20 * SECOND, |at| at.value);
        let kind = match kind {
            KindName::Sqs => sqs(value, at, reader).map(QueueKind::Sqs),
            KindName::Redis => stream(value, state, at, reader).map(QueueKind::Redis),
        };
        let Some(kind) = kind else { continue };
        queues.push(Queue {
            name: entry.key.name,
            kind,
            answers,
            dead_letters,
            receives,
            path: route.map_or_else(|| "/v1/chat/completions".to_owned(), |at| at.value),
            key,
            concurrency: concurrency as usize,
            visibility,
            wait,
            callback,
        });
    }
    queues
}

/// Where a table stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    span: &'a std::ops::Range<usize>,
    path: &'a str,
}

/// Tells of keys that belong to the other kind.
fn others(kind: KindName, table: &QueueTable, at: Place<'_>, reader: &mut Reader<'_>) {
    let sqs = [
        ("region", table.region.as_ref().map(|at| &at.span)),
        ("access_key_id", table.access_key_id.as_ref().map(|at| &at.span)),
        ("secret_access_key", table.secret_access_key.as_ref().map(|at| &at.span)),
        ("session_token", table.session_token.as_ref().map(|at| &at.span)),
    ];
    let redis = [
        ("stream", table.stream.as_ref().map(|at| &at.span)),
        ("group", table.group.as_ref().map(|at| &at.span)),
        ("keep_messages", table.keep_messages.as_ref().map(|at| &at.span)),
    ];
    let (keys, of): (&[_], _) = match kind {
        KindName::Sqs => (&redis, "redis"),
        KindName::Redis => (&sqs, "sqs"),
    };
    for (key, span) in keys {
        if let Some(span) = span {
            let help = format!("it is a key of kind = \"{of}\"");
            reader.problem(span, &join(at.path, key), "this queue has nothing of the kind", Some(help));
        }
    }
}

/// Another queue, as `answers`.
fn place(
    kind: KindName,
    name: &str,
    value: Option<At<String>>,
    at: Place<'_>,
    reader: &mut Reader<'_>,
) -> Option<String> {
    let At { value, span, .. } = value?;
    let path = join(at.path, name);
    match kind {
        KindName::Sqs => sqs_url(&value, &span, &path, reader),
        KindName::Redis => stream_name(value, &span, &path, reader),
    }
}

fn key(
    key: Option<At<String>>,
    (server, access): (&Server, &Access),
    at: Place<'_>,
    reader: &mut Reader<'_>,
) -> Option<String> {
    let wanted = access.wants_keys() || !server.api_keys.is_empty();
    let numbered: Vec<_> = (0..server.api_keys.len()).map(|at| format!("server.{at}")).collect();
    let known = || access.keys.keys().map(String::as_str).chain(numbered.iter().map(String::as_str));
    match &key {
        None if wanted => {
            let help = format!("write key = {}", list(known()));
            let help = if known().next().is_some() { help } else { "write key = the id of a key".to_owned() };
            let message = "there are keys, and none in whose stead messages ask";
            reader.problem(at.span, &join(at.path, "key"), message, Some(help));
        }
        Some(key) if !wanted => {
            let help = "leave it out: this server has no keys";
            let message = format!("no key {}", quote(&key.value, 64));
            reader.problem(&key.span, &join(at.path, "key"), message, Some(help.into()));
        }
        // The admin API may make others, of which nothing is known here.
        Some(key) if access.admin_key.is_none() && !known().any(|known| known == key.value) => {
            let message = format!("no key {}", quote(&key.value, 64));
            reader.problem(&key.span, &join(at.path, "key"), message, Some(format!("write {}", list(known()))));
        }
        _ => {}
    }
    key.map(|at| at.value)
}

fn callback(url: Option<At<String>>, jobs: &Jobs, at: Place<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let At { value, span, .. } = url?;
    if jobs.callback_secret.is_none() {
        let help = "set jobs.callback_secret, with which callbacks are signed";
        reader.problem(&span, &join(at.path, "callback"), "there are no callbacks", Some(help.into()));
    }
    Some(value)
}

/// The URL of a queue of SQS.
fn sqs_url(url: &str, span: &std::ops::Range<usize>, path: &str, reader: &mut Reader<'_>) -> Option<String> {
    const EXAMPLE: &str = "write \"https://sqs.us-east-1.amazonaws.com/123456789012/name\"";
    match endpoint::check(url) {
        Ok(url) if url.split('/').nth(3).is_some_and(|path| !path.is_empty()) => Some(url),
        Ok(_) => {
            reader.problem(span, path, "the URL is none of a queue", Some(EXAMPLE.into()));
            None
        }
        Err(endpoint::Flaw(message, help)) => {
            reader.problem(span, path, format!("the URL {message}"), Some(help.into()));
            None
        }
    }
}

fn sqs(table: QueueTable, at: Place<'_>, reader: &mut Reader<'_>) -> Option<Sqs> {
    let Some(url) = table.url else {
        let help = "write url = \"https://sqs.us-east-1.amazonaws.com/123456789012/name\"";
        reader.problem(at.span, &join(at.path, "url"), "the queue's URL is missing", Some(help.into()));
        return None;
    };
    let span = url.span;
    let url = sqs_url(url.value.expose(), &span, &join(at.path, "url"), reader)?;
    let of_url = || {
        let host = url.split('/').nth(2)?.split(':').next()?;
        let mut labels = host.split('.');
        (labels.next() == Some("sqs") && host.contains(".amazonaws.")).then(|| labels.next().map(str::to_owned))?
    };
    let region = match table.region {
        Some(region) => {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if !(1..=32).contains(&region.value.len()) || !region.value.bytes().all(good) {
                let message = format!("{} is no region", quote(&region.value, 60));
                let help = "write \"us-east-1\"";
                reader.problem(&region.span, &join(at.path, "region"), message, Some(help.into()));
                return None;
            }
            region.value
        }
        None => match of_url() {
            Some(region) => region,
            None => {
                let help = "write region = \"us-east-1\"";
                reader.problem(at.span, &join(at.path, "region"), "the URL names no region", Some(help.into()));
                return None;
            }
        },
    };
    let credentials = match (table.access_key_id, table.secret_access_key) {
        (Some(id), Some(secret)) => Some((id.value, secret.value, table.session_token.map(|at| at.value))),
        (None, None) => None,
        _ => {
            let help = "write both, or none for the runtime's own";
            reader.problem(at.span, at.path, "one half of the credentials is missing", Some(help.into()));
            return None;
        }
    };
    Some(Sqs { url, region, credentials })
}

fn stream_name(name: String, span: &std::ops::Range<usize>, path: &str, reader: &mut Reader<'_>) -> Option<String> {
    if (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Some(name);
    }
    let help = format!("write 1 to {MAX_NAME} bytes without control characters");
    reader.problem(span, path, format!("{} is no name", quote(&name, 60)), Some(help));
    None
}

fn stream(table: QueueTable, state: &State, at: Place<'_>, reader: &mut Reader<'_>) -> Option<Stream> {
    let url = match (table.url, &state.store) {
        (Some(url), _) if !["redis://", "rediss://"].iter().any(|scheme| url.value.expose().starts_with(scheme)) => {
            let help = "write \"redis://host:6379/0\", or \"rediss://host\" for TLS";
            let message = "the URL is none of a Redis server";
            reader.problem(&url.span, &join(at.path, "url"), message, Some(help.into()));
            return None;
        }
        (Some(url), _) => url.value,
        (None, Store::Redis(url)) => url.clone(),
        (None, _) => {
            let help = "write url = \"redis://host:6379/0\"";
            let message = "the server is missing, and the state store is none";
            reader.problem(at.span, &join(at.path, "url"), message, Some(help.into()));
            return None;
        }
    };
    let Some(stream) = table.stream else {
        let help = "write stream = \"requests\"";
        reader.problem(at.span, &join(at.path, "stream"), "the stream's key is missing", Some(help.into()));
        return None;
    };
    let stream = stream_name(stream.value, &stream.span, &join(at.path, "stream"), reader)?;
    let group = match table.group {
        Some(group) => stream_name(group.value, &group.span, &join(at.path, "group"), reader)?,
        None => "witgate".to_owned(),
    };
    let keep_messages = table.keep_messages.is_some_and(|at| at.value);
    Some(Stream { url, stream, group, keep_messages })
}
