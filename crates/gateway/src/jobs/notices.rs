//! Notices: what an operator is told by a webhook (`accounting.webhook`): the thresholds that budgets reach.
//!
//! A notice is the mark in the state store that its threshold was told of: who sets it first, of however many processes,
//! tells; so each is told once in its period. It is sent as callbacks are: signed, to a public address unless another is
//! allowed, until it is accepted with 2xx, `accounting.webhook_attempts` times at most, all with one `webhook-id`; 410 ends
//! it. The process that set the mark sends at once; what fails, or dies with its process, any worker takes up.
//!
//! | key | value |
//! |---|---|
//! | `alert/METER@START/PERCENT` | the notice, or nothing where none is wanted |
//! | `alertq/DUE-ID` | the notice of this key is to be sent at DUE |

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use witgate_config::Webhook;

use super::callback::{LEASE, Posting, all_due, backoff, check, post};
use super::store::{self, Called, Store, millis};
use super::work::{Due, UNBORN, warn};
use super::{Behind, hash};
use crate::http;
use crate::ports::Ports;
use crate::state::{Expect, StateError};

/// How long after its period a notice may still be sent.
const LONGER: Duration = Duration::from_secs(86_400);

#[derive(Serialize, Deserialize)]
struct Notice {
    id: String,
    body: String,
    state: Called,
    /// How often it was sent.
    tries: u32,
    /// When it is to be sent, in milliseconds since 1970.
    due: u64,
    /// Who sends it.
    lease: Option<String>,
    expires: u64,
}

/// Marks `key` as told until the moment `end`, and where `body` is given leaves that to be sent. Whether it was not told
/// before.
pub(crate) async fn mark<P: Ports>(
    ports: &P,
    key: &str,
    end: Duration,
    body: Option<Value>,
) -> Result<bool, StateError> {
    let store = Store(ports);
    let Some(body) = body else { return store.set(key, Some(Bytes::new()), Some(end), Expect::Absent).await };
    let (due, end) = (millis(store.now()), end + LONGER);
    let id = hash(&[key.as_bytes()]).chars().take(32).collect::<String>();
    let notice = Notice {
        id: format!("msg_budget_{id}"),
        body: body.to_string(),
        state: Called::Waiting,
        tries: 0,
        due,
        lease: None,
        expires: millis(end),
    };
    let bytes = serde_json::to_vec(&notice).map_err(|error| StateError(error.to_string()))?;
    // First what leads to it.
    enter(store, due, &id, key, end).await?;
    store.set(key, Some(Bytes::from(bytes)), Some(end), Expect::Absent).await
}

async fn enter<P: Ports>(store: Store<'_, P>, due: u64, id: &str, key: &str, end: Duration) -> Result<(), StateError> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    store.set(&store::at("alertq", due, id), Some(key), Some(end), Expect::Anything).await.map(drop)
}

/// Sends the notices that are due. When the next one is.
pub(crate) async fn send<P: Ports>(ports: &P, webhook: &Webhook, behind: &Behind) -> Result<Due, StateError> {
    all_due(ports, "alertq", behind, |entry, key| send_one(ports, webhook, entry, key)).await
}

async fn send_one<P: Ports>(ports: &P, webhook: &Webhook, entry: String, key: Bytes) -> Result<(), StateError> {
    let (store, entry) = (Store(ports), entry.as_str());
    let (Some((due, id)), Ok(key)) = (store::of("alertq", entry), std::str::from_utf8(&key)) else {
        return store.remove(entry).await;
    };
    let now = millis(store.now());
    let Some(bytes) = store.get(key).await? else {
        // It may be about to be written.
        return if due + millis(UNBORN) < now { store.remove(entry).await } else { Ok(()) };
    };
    // A mark alone: another process told of it, in its log.
    let Ok(mut notice) = serde_json::from_slice::<Notice>(&bytes) else { return store.remove(entry).await };
    if notice.state != Called::Waiting {
        return store.remove(entry).await;
    }
    let end = Duration::from_millis(notice.expires);
    if notice.due > now {
        // Another process sends it.
        enter(store, notice.due, id, key, end).await?;
        return store.remove(entry).await;
    }
    notice.tries += 1;
    notice.due = now + millis(LEASE);
    notice.lease = Some(http::id(ports.random()));
    let Some(bytes) = store.swap(key, Some(&bytes), &notice, end).await? else { return Ok(()) };
    let held = store::at("alertq", notice.due, id);
    enter(store, notice.due, id, key, end).await?;
    store.remove(entry).await?;

    let status = match check(&webhook.url, webhook.allow_private) {
        Ok(()) => {
            let posting = Posting {
                secret: &webhook.secret,
                public_only: !webhook.allow_private,
                url: webhook.url.clone(),
                id: notice.id.clone(),
                body: notice.body.clone(),
                request_id: "",
            };
            post(ports, posting).await
        }
        Err(what) => {
            warn(ports, "", &StateError(format!("the URL accounting.webhook {what}")));
            None
        }
    };
    notice.state = match status {
        Some(200..300) => Called::Accepted,
        Some(410) => Called::Failed,
        _ if notice.tries >= webhook.attempts => Called::Failed,
        _ => Called::Waiting,
    };
    notice.due = millis(store.now() + backoff(notice.tries, ports.random()));
    notice.lease = None;
    if store.swap(key, Some(&bytes), &notice, end).await?.is_some() && notice.state == Called::Waiting {
        enter(store, notice.due, id, key, end).await?;
    }
    store.remove(&held).await
}
