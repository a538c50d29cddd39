//! Documents: stored configurations, from where the operator has them, and answers that are kept for their clients.
//!
//! A configuration in a folder is the runtime's to read ([`Ports::document`]). One in a bucket of S3 or in the state store is
//! read here, and counts as read for `documents.cache_ttl`, an absent one too; a failure is not remembered.
//!
//! Answers are kept in the state store where that outlives the process or is shared, else by the runtime ([`Ports::keep`]).
//! A long one is kept in parts, the first of which is written last: it names the others, so that nobody reads half of one.
//! What is forgotten of a kept answer is that first part; the others end by themselves.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use witgate_config::{S3, Source};
use witgate_model::normaliser::{Document, DocumentRef};

use crate::gateway::Gateway;
use crate::http;
use crate::path::before;
use crate::ports::{Ports, UpstreamBody};
use crate::sign;
use crate::state::{Expect, State};

/// The name under which a bucket is asked for ([`UpstreamRequest::provider`](crate::UpstreamRequest::provider)), and
/// credentials for it.
pub const BUCKET: &str = "documents.s3";

/// What operators store.
const CONFIGURATION: &str = "configuration";
/// The largest part of a kept document, in bytes: what stores of the edge take.
const PART: usize = 512 * 1024;
/// The most parts: 64 MiB.
const MAX_PARTS: usize = 128;
/// How long a bucket may take.
const S3_TIMEOUT: Duration = Duration::from_secs(10);
const S3_CONNECT: Duration = Duration::from_secs(5);
/// The most configurations that count as read.
const MAX_READ: usize = 1_024;
/// The longest key of a configuration, in bytes.
const MAX_KEY: usize = 480;
/// What a document in one piece begins with, and one in parts.
const WHOLE: u8 = b'w';
const PARTED: u8 = b'p';

/// A configuration that was read, at a moment; what it holds, or that there is none.
type Known = (Duration, Option<String>);

/// Configurations that were read of late.
#[derive(Default)]
pub(crate) struct Read(Mutex<BTreeMap<String, Known>>);

impl Read {
    fn get(&self, now: Duration, ttl: Duration, key: &str) -> Option<Option<String>> {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        read.get(key).filter(|(at, _)| now < at.saturating_add(ttl)).map(|(_, content)| content.clone())
    }

    fn put(&self, now: Duration, ttl: Duration, key: &str, content: Option<String>) {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= MAX_READ && !read.contains_key(key) {
            read.retain(|_, (at, _)| now < at.saturating_add(ttl));
            if read.len() >= MAX_READ {
                read.clear();
            }
        }
        read.insert(key.to_owned(), (now, content));
    }
}

/// What a document holds; none where there is none. The error says for people why that cannot be told.
pub(crate) async fn get<P: Ports>(gateway: &Gateway, ports: &P, at: &DocumentRef) -> Result<Option<String>, String> {
    let config = &gateway.config;
    if at.kind != CONFIGURATION {
        return match config.state.store.outlives() {
            true => kept(ports, &key(at)).await,
            false => ports.document(at).await,
        };
    }
    if let Source::Folder = config.documents.from {
        return ports.document(at).await;
    }
    let inside = at.key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !inside || at.key.len() > MAX_KEY || at.key.chars().any(char::is_control) {
        return Ok(None);
    }
    let ttl = config.documents.cache_ttl;
    if let Some(known) = gateway.read.get(ports.now(), ttl, &at.key) {
        return Ok(known);
    }
    let limit = usize::try_from(config.documents.max_bytes).unwrap_or(usize::MAX);
    let content = match &config.documents.from {
        Source::S3(s3) => {
            let deadline = ports.now() + S3_TIMEOUT;
            let late = || Err(format!("the bucket {} did not answer within {} s", s3.bucket, S3_TIMEOUT.as_secs()));
            before(ports, deadline, from_bucket(ports, s3, &at.key, limit)).await.unwrap_or_else(late)?
        }
        Source::State | Source::Folder => {
            let found = ports.state().get(ports.unix_time(), &key(at)).await.map_err(|error| error.to_string())?;
            found.map(|content| text(&content, limit)).transpose()?
        }
    };
    gateway.read.put(ports.now(), ttl, &at.key, content.clone());
    Ok(content)
}

/// Keeps a document, or forgets it.
pub(crate) async fn keep<P: Ports>(gateway: &Gateway, ports: &P, document: Document) -> Result<(), String> {
    if document.at.kind == CONFIGURATION {
        return Err("configurations are the operator's: they are only read".to_owned());
    }
    if !gateway.config.state.store.outlives() {
        return ports.keep(document).await;
    }
    let (now, key) = (ports.unix_time(), key(&document.at));
    let end = now.saturating_add(gateway.config.documents.keep_for);
    let set = async |key: &str, value: Option<Bytes>| {
        let set = ports.state().set(now, key, value, Some(end), Expect::Anything).await;
        set.map(drop).map_err(|error| error.to_string())
    };
    let Some(content) = document.content else { return set(&key, None).await };
    let mut content = Bytes::from(content);
    if content.len() < PART {
        return set(&key, Some(Bytes::from([&[WHOLE], &content[..]].concat()))).await;
    }
    let parts = content.len().div_ceil(PART);
    if parts > MAX_PARTS {
        return Err(format!("it is larger than {} bytes", MAX_PARTS * PART));
    }
    // Each version has parts of its own, so that one that replaces another does not mix with it.
    let version = ports.random();
    for number in 0..parts {
        let part = content.split_to(content.len().min(PART));
        set(&part_key(&key, version, number), Some(part)).await?;
    }
    let first = format!("{}{version:032x}{parts:03}", char::from(PARTED));
    set(&key, Some(Bytes::from(first))).await
}

/// Where a document lies in the state store.
fn key(at: &DocumentRef) -> String {
    match at.kind.as_str() {
        CONFIGURATION => format!("{CONFIGURATION}/{}", at.key),
        kind => format!("document/{kind}/{}", at.key),
    }
}

fn part_key(key: &str, version: u128, number: usize) -> String {
    format!("{key}#{version:032x}.{number:03}")
}

/// What is kept under a key.
async fn kept<P: Ports>(ports: &P, key: &str) -> Result<Option<String>, String> {
    let now = ports.unix_time();
    let get = async |key: &str| ports.state().get(now, key).await.map_err(|error| error.to_string());
    let Some(first) = get(key).await? else { return Ok(None) };
    let strange = || "what is kept there is no document".to_owned();
    match first.split_first() {
        Some((&WHOLE, content)) => text(content, usize::MAX).map(Some),
        Some((&PARTED, named)) => {
            let named = std::str::from_utf8(named).ok().and_then(|named| named.split_at_checked(32));
            let (version, parts) = named.ok_or_else(strange)?;
            let version = u128::from_str_radix(version, 16).map_err(|_| strange())?;
            let parts = parts.parse().ok().filter(|parts| *parts <= MAX_PARTS).ok_or_else(strange)?;
            let mut content = Vec::with_capacity(parts * PART);
            for number in 0..parts {
                // The store has lost a part, or it has ended in this moment.
                let Some(part) = get(&part_key(key, version, number)).await? else { return Ok(None) };
                content.extend_from_slice(&part);
            }
            String::from_utf8(content).map(Some).map_err(|_| strange())
        }
        _ => Err(strange()),
    }
}

fn text(content: &[u8], limit: usize) -> Result<String, String> {
    if content.len() > limit {
        return Err(format!("it is larger than {limit} bytes (documents.max_bytes)"));
    }
    std::str::from_utf8(content).map(str::to_owned).map_err(|_| "it is not UTF-8".to_owned())
}

/// An object of a bucket; none where there is none.
async fn from_bucket<P: Ports>(ports: &P, s3: &S3, key: &str, limit: usize) -> Result<Option<String>, String> {
    let request = sign::stored(ports, s3, key, S3_CONNECT).await?;
    let at = |why: &dyn std::fmt::Display| format!("the bucket {} {why}", s3.bucket);
    let mut answer = ports.send(request).await.map_err(|error| at(&error))?;
    // Of a refusal its code, and no more.
    let limit = if answer.status == 200 { limit } else { 16 * 1024 };
    let mut body = Vec::new();
    while let Some(chunk) = answer.body.chunk().await {
        let chunk = chunk.map_err(|error| at(&error))?;
        if body.len() + chunk.len() > limit {
            return Err(format!("it is larger than {limit} bytes (documents.max_bytes)"));
        }
        body.extend_from_slice(&chunk);
    }
    if answer.status == 200 {
        let length = http::header(&answer.headers, "content-length").and_then(|length| length.parse::<usize>().ok());
        return match length {
            Some(length) if body.len() != length => Err(at(&"broke off in mid-answer")),
            _ => text(&body, limit).map(Some),
        };
    }
    let code = code(&body);
    match (answer.status, code) {
        // A bucket that is not there is no document that is not there.
        (404, None | Some("NoSuchKey")) => Ok(None),
        (403, Some("AccessDenied")) => {
            Err(at(&"answers 403 AccessDenied (to one without s3:ListBucket also where there is no such object)"))
        }
        (status, Some(code)) => Err(at(&format!("answers {status} {code}"))),
        (status, None) => Err(at(&format!("answers {status}"))),
    }
}

/// The code of an error of S3, `<Code>…</Code>`.
fn code(body: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    ((1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_read_ends_and_is_bounded() {
        let (read, ttl, s) = (Read::default(), Duration::from_secs(60), Duration::from_secs);
        read.put(s(1), ttl, "a", Some("x".into()));
        read.put(s(1), ttl, "b", None);
        assert_eq!(read.get(s(60), ttl, "a"), Some(Some("x".into())));
        assert_eq!(read.get(s(60), ttl, "b"), Some(None));
        assert_eq!((read.get(s(61), ttl, "a"), read.get(s(1), ttl, "c")), (None, None));
        for n in 0..3 * MAX_READ {
            read.put(s(2), ttl, &n.to_string(), None);
            assert!(read.0.lock().unwrap().len() <= MAX_READ);
        }
    }

    #[test]
    fn the_code_of_an_error_is_found_and_nothing_else_of_it() {
        assert_eq!(code(b"<?xml?><Error><Code>NoSuchKey</Code><Message>no</Message>"), Some("NoSuchKey"));
        for odd in [&b""[..], b"<Code>", b"<Code></Code>", b"<Code>a b</Code>", b"\xff<Code>A</Code>"] {
            assert_eq!(code(odd), None);
        }
    }
}
