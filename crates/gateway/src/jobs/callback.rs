//! Callbacks: a job's end is told to an address that its client named, signed as Standard Webhooks.
//!
//! A callback is sent until its receiver accepts it with 2xx, at most `jobs.callback_attempts` times, with waits that
//! double from 5 s to an hour; 410 ends it at once, and redirects are not followed. All sendings have one `webhook-id`: a
//! receiver that got one twice, because a process died before it had noted the first, knows it by that.
//!
//! The address must be a public one, unless `jobs.allow_private_callbacks` is set: what is written as an address is
//! checked here, what a name resolves to is checked by the runtime when it connects (`UpstreamRequest::public_only`).

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;
use witgate_config::Secret;

use super::Behind;
use super::serve::shown;
use super::store::{self, Callback, Called, Store, millis};
use super::work::{Due, POLL, warn};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http;
use crate::path::before;
use crate::ports::{Ports, UpstreamRequest};
use crate::sign;
use crate::state::StateError;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long nobody else sends a callback that somebody is sending.
pub(super) const LEASE: Duration = Duration::from_secs(20);
/// How many are sent at once.
const AT_ONCE: usize = 16;
/// The wait before the second sending; it doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(3_600);
/// Longest address.
const MAX_URL: usize = 2_048;

impl Gateway {
    /// The callback that a client wants.
    pub(super) fn callback(&self, url: Option<&str>) -> Result<Option<Callback>, Failed> {
        let Some(url) = url else { return Ok(None) };
        let refuse = |what: &str| {
            let mut failed =
                Failed::ours(400, "invalid_request_error", "invalid_callback", format!("the callback's URL {what}"));
            failed.error.param = Some("x-witgate-callback".to_owned());
            failed
        };
        let rules = &self.config.jobs;
        if rules.callback_secret.is_none() {
            return Err(refuse("is not taken: this gateway sends no callbacks (jobs.callback_secret is not set)"));
        }
        check(url, rules.allow_private_callbacks).map_err(|what| refuse(&what))?;
        Ok(Some(Callback { url: url.to_owned(), state: Called::Waiting, tries: 0, due: 0, lease: None }))
    }

    /// Sends the callbacks that are due. When the next one is.
    pub(super) async fn call_back<P: Ports>(self: &Arc<Self>, ports: &Arc<P>) -> Result<Due, StateError> {
        all_due(ports.as_ref(), "jobc", &self.jobs.called, |entry, _| self.call_one(ports, entry)).await
    }

    async fn call_one<P: Ports>(self: &Arc<Self>, ports: &Arc<P>, entry: String) -> Result<(), StateError> {
        let entry = entry.as_str();
        let Some((_, id)) = store::of("jobc", entry) else { return Ok(()) };
        let store = Store(ports.as_ref());
        let now = millis(store.now());
        let Some((mut job, bytes)) = store.job(id).await? else { return store.remove(entry).await };
        let Some(callback) = &mut job.callback else { return store.remove(entry).await };
        if callback.state != Called::Waiting {
            return store.remove(entry).await;
        }
        if callback.due > now {
            // Another process sends it.
            let right = store::at("jobc", callback.due, id);
            store.enter(&right, job.expires()).await?;
            return store.remove(entry).await;
        }
        callback.tries += 1;
        callback.due = now + millis(LEASE);
        callback.lease = Some(http::id(ports.random()));
        let (url, tries, due) = (callback.url.clone(), callback.tries, callback.due);
        let Some(bytes) = store.swap_job(Some(&bytes), &job).await? else { return Ok(()) };
        let held = store::at("jobc", due, id);
        store.enter(&held, job.expires()).await?;
        store.remove(entry).await?;

        let status = self.send_callback(ports, &job, url).await;
        let state = match status {
            Some(200..300) => Called::Accepted,
            Some(410) => Called::Failed,
            _ if tries >= self.config.jobs.callback_attempts => Called::Failed,
            _ => Called::Waiting,
        };
        let due = millis(store.now() + backoff(tries, ports.random()));
        if let Some(callback) = &mut job.callback {
            callback.state = state;
            callback.due = due;
            callback.lease = None;
        }
        if store.swap_job(Some(&bytes), &job).await?.is_some() && state == Called::Waiting {
            store.enter(&store::at("jobc", due, id), job.expires()).await?;
        }
        store.remove(&held).await
    }

    /// Sends a callback once; the status of its answer.
    async fn send_callback<P: Ports>(&self, ports: &Arc<P>, job: &store::Job, url: String) -> Option<u16> {
        let secret = self.config.jobs.callback_secret.as_ref()?;
        let finished = job.finished.unwrap_or_default() / 1_000;
        let body = json!({
            "type": format!("job.{}", job.status.as_str()), "timestamp": timestamp(finished), "data": shown(job),
        });
        let posting = Posting {
            secret,
            public_only: !self.config.jobs.allow_private_callbacks,
            url,
            id: format!("msg_{}", job.id),
            body: body.to_string(),
            request_id: &job.request_id,
        };
        post(ports.as_ref(), posting).await
    }
}

/// Does what is due of a list, several at once, from where the time before ended. When the next of it is due.
pub(super) async fn all_due<P: Ports, F: Future<Output = Result<(), StateError>>>(
    ports: &P,
    list: &str,
    behind: &Behind,
    one: impl Fn(String, Bytes) -> F,
) -> Result<Due, StateError> {
    let (store, prefix) = (Store(ports), format!("{list}/"));
    let due_at = |entry: &str| store::of(list, entry).map(|(due, _)| due);
    let now = millis(store.now());
    let begin = behind.take();
    let page = store.list(&prefix, begin.as_deref(), AT_ONCE).await?;
    let last = page.last().filter(|_| page.len() == AT_ONCE).map(|(entry, _)| entry.clone());
    let (mut doing, mut next) = (Vec::new(), None);
    for (entry, value) in page {
        match due_at(&entry) {
            Some(due) if due <= now => {
                let doing_it = one(entry.clone(), value);
                doing.push(async { (entry, doing_it.await) });
            }
            due => next = next.or(due),
        }
    }
    // More may be due behind them.
    let last = last.filter(|_| next.is_none());
    if doing.is_empty() && last.is_none() {
        return Ok(next);
    }
    let mut failed = Vec::new();
    for (entry, done) in join_all(doing).await {
        if let Err(error) = done {
            warn(ports, "", &error);
            failed.push(entry);
        }
    }
    if let Some(last) = last {
        behind.set(last);
        // A store that takes nothing is not asked without a pause.
        let pause = if failed.is_empty() { Duration::ZERO } else { POLL };
        return Ok(Some(millis(store.now() + pause)));
    }
    // What was not accepted has been put off; what another process does, or is about to write, is still there. What cannot be
    // read is not waited for.
    let left = store.list(&prefix, begin.as_deref(), failed.len() + 1).await?;
    let next = left.iter().find(|(entry, _)| !failed.contains(entry));
    Ok(next.and_then(|(entry, _)| due_at(entry)).map(|due| due.max(millis(store.now() + POLL))))
}

/// A message that is to be posted.
pub(super) struct Posting<'a> {
    pub secret: &'a Secret,
    /// It must not go to an address of a private network.
    pub public_only: bool,
    pub url: String,
    /// The same for all postings of one message.
    pub id: String,
    pub body: String,
    /// Of the request that led to it, for the log.
    pub request_id: &'a str,
}

/// Posts a message once, signed as Standard Webhooks; the status of its answer.
pub(super) async fn post<P: Ports>(ports: &P, posting: Posting<'_>) -> Option<u16> {
    let Posting { secret, public_only, url, id, body, request_id } = posting;
    let now = ports.unix_time().as_secs().to_string();
    let signature = sign::webhook(secret, &id, &now, body.as_bytes())?;
    let header = |name: &str, value: String| (name.to_owned(), value);
    let request = UpstreamRequest {
        provider: String::new(),
        method: "POST".to_owned(),
        url,
        headers: vec![
            header("content-type", "application/json".to_owned()),
            header("webhook-id", id),
            header("webhook-timestamp", now),
            header("webhook-signature", signature),
        ],
        body: Bytes::from(body),
        connect_timeout: TIMEOUT / 3,
        public_only,
    };
    match before(ports, ports.now() + TIMEOUT, ports.send(request)).await {
        Some(Ok(answer)) => Some(answer.status),
        Some(Err(error)) => {
            warn(ports, request_id, &StateError(format!("a callback could not be sent: {error}")));
            None
        }
        None => None,
    }
}

/// How long to wait after so many sendings.
pub(super) fn backoff(tries: u32, random: u128) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << tries.saturating_sub(1).min(12)).min(MAX_BACKOFF);
    doubled + doubled / 1_024 * u32::try_from(random % 128).unwrap_or(0)
}

/// A moment as RFC 3339 writes it.
pub(crate) fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    let (Some(time), format) = (time, &time::format_description::well_known::Rfc3339) else { return String::new() };
    time.format(format).unwrap_or_default()
}

/// What is wrong with the address of a callback.
pub(super) fn check(url: &str, private: bool) -> Result<(), String> {
    if url.len() > MAX_URL {
        return Err(format!("is longer than {MAX_URL} bytes"));
    }
    if url.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err("holds what is no visible ASCII".to_owned());
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("must begin with https:// or http://".to_owned()) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') || rest.contains('\\') {
        return Err("must not hold a user or a backslash".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or("has no host")?,
        None => match authority.split_once(':') {
            Some((host, _)) => (host, authority.get(host.len()..).unwrap_or_default()),
            None => (authority, ""),
        },
    };
    let port_fits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
    if host.is_empty() || !port_fits {
        return Err("has no valid host and port".to_owned());
    }
    if private {
        return Ok(());
    }
    let refused = || "must be that of a public address (jobs.allow_private_callbacks allows others)".to_owned();
    if let Ok(address) = host.parse::<IpAddr>() {
        return if is_public(address) { Ok(()) } else { Err(refused()) };
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // What resolvers take for an address although it does not look like one: 127.1, 0x7f.1, 2130706433.
    let number = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    let local = ["localhost", "local", "internal", "localdomain", "home", "lan"].contains(&last) || !name.contains('.');
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if number || local || !plain {
        return Err(refused());
    }
    Ok(())
}

/// Whether an address is one of the public internet: not of a private network, not of this machine, not link-local, nor
/// reserved for another purpose. An IPv4 address within an IPv6 one counts as itself.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Carriers' own, protocol assignments, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let within = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Unspecified, loopback, IPv4-compatible and IPv4-mapped.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => within(high, low),
        // NAT64 and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => within(high, low),
        // Local use of NAT64, Teredo, documentation.
        [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2001, 0xdb8, ..] => false,
        // Only 2000::/3 is given out: not unique local, link-local, multicast and all that is reserved.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_go_to_public_addresses_only() {
        for url in [
            "https://example.com/hook",
            "http://example.com:8080/hook?x=1",
            "https://93.184.216.34/",
            "https://[2606:2800:220:1:248:1893:25c8:1946]:8443/x",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://10.1.2.3/",
            "http://172.16.0.1:80/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.64.0.1/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://localhost/",
            "http://foo.localhost./",
            "http://metadata.google.internal/",
            "http://intranet/",
            "http://2130706433/",
            "http://127.1/",
            "http://0x7f.0.0.0x1/",
            "http://example.com@127.0.0.1/",
            "http://127.0.0.1\\@example.com/",
            "ftp://example.com/",
            "https://",
            "https://example.com:99999/",
            "https://example.com:0/",
            "https://exa mple.com/",
        ] {
            assert!(check(url, false).is_err(), "{url}");
        }
        assert_eq!(check("http://127.0.0.1:9000/hook", true), Ok(()));
        assert!(check("file:///etc/passwd", true).is_err());
    }
}
