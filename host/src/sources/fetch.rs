//! Reading a document from the web, bounded in every way.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use url::Url;
use witgate_config::{Secret, is_loopback};

use crate::upstream::{self, Connector};

/// The longest time for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest time without a byte.
const IDLE: Duration = Duration::from_secs(30);
/// The longest time for one document, redirects included.
const TOTAL: Duration = Duration::from_secs(300);
/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// Reads documents.
pub(crate) struct Fetcher {
    client: Client<Connector, Full<Bytes>>,
    insecure: bool,
}

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Fetcher {
    /// Of other machines only what is encrypted, unless it is `insecure`.
    pub fn new(insecure: bool) -> Self {
        Fetcher { client: upstream::any(CONNECT), insecure }
    }

    /// Whether a URL may be asked.
    pub fn allows(&self, url: &Url) -> Result<(), String> {
        match (url.scheme(), url.host_str()) {
            (_, None) => Err(format!("{} has no host", shown(url))),
            ("https", _) => Ok(()),
            ("http", Some(host)) if self.insecure || is_loopback(host) => Ok(()),
            ("http", _) => Err(format!("{} is not encrypted; insecure = true allows that", shown(url))),
            _ => Err(format!("{} is neither https nor http", shown(url))),
        }
    }

    /// Reads a document of at most `limit` bytes. Of an answer that is no success only so much is read as a message may
    /// need. The secret is a whole `Authorization`, and no host gets it but the one that was asked first.
    pub async fn get(
        &self,
        url: &str,
        accept: Option<&str>,
        authorization: Option<&Secret>,
        limit: u64,
    ) -> Result<Answer, String> {
        let asked = Url::parse(url).map_err(|error| format!("the URL is not valid: {error}"))?;
        match tokio::time::timeout(TOTAL, self.follow(&asked, accept, authorization, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{} took longer than {} s", shown(&asked), TOTAL.as_secs())),
        }
    }

    async fn follow(
        &self,
        asked: &Url,
        accept: Option<&str>,
        authorization: Option<&Secret>,
        limit: u64,
    ) -> Result<Answer, String> {
        let mut url = asked.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.allows(&url)?;
            let mut request = http::Request::get(url.as_str())
                .header(USER_AGENT, concat!("witgate/", env!("CARGO_PKG_VERSION")))
                .header(ACCEPT, accept.unwrap_or("*/*"));
            if let Some(secret) = authorization.filter(|_| url.origin() == asked.origin()) {
                let mut value = HeaderValue::from_str(secret.expose())
                    .map_err(|_| "the credentials hold characters that a header cannot".to_owned())?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let request = request
                .body(Full::new(Bytes::new()))
                .map_err(|_| format!("{} cannot be asked: the URL is not valid", shown(&url)))?;
            let answer = match tokio::time::timeout(IDLE, self.client.request(request)).await {
                Ok(answer) => answer.map_err(|error| format!("{} does not answer: {}", shown(&url), cause(&error)))?,
                Err(_) => return Err(format!("{} does not answer within {} s", shown(&url), IDLE.as_secs())),
            };
            let status = answer.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let to = to.ok_or_else(|| format!("{} redirects to nowhere", shown(&url)))?;
                url = url.join(to).map_err(|error| format!("{} redirects to no URL: {error}", shown(&url)))?;
                continue;
            }
            let limit = if status.is_success() { limit } else { limit.min(64 * 1024) };
            return read(&url, answer, limit).await;
        }
        Err(format!("{} redirects more than {MAX_REDIRECTS} times", shown(asked)))
    }
}

async fn read(url: &Url, answer: http::Response<hyper::body::Incoming>, limit: u64) -> Result<Answer, String> {
    let (head, mut body) = answer.into_parts();
    let length: Option<u64> = head.headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
    let too_large = || format!("{} has more than the {limit} bytes that are allowed", shown(url));
    if head.status.is_success() {
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        if let Some(coding) = head.headers.get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
            return Err(format!("{} is encoded as {coding:?}, which was not asked for", shown(url)));
        }
    }
    let mut bytes = Vec::new();
    loop {
        let frame = match tokio::time::timeout(IDLE, body.frame()).await {
            Err(_) => return Err(format!("{} stopped for {} s", shown(url), IDLE.as_secs())),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(format!("{} ended early: {}", shown(url), cause(&error))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() as u64).saturating_add(data.len() as u64) > limit {
            if head.status.is_success() {
                return Err(too_large());
            }
            break;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes })
}

/// A URL in a message: without its query, which may hold a token.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

/// The innermost reason, which says most.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
