//! The admin API, for operators: keys, spend, health. JSON, under `/admin/`, with a key of its own (`[admin] key`).
//!
//! | | |
//! |---|---|
//! | `POST /admin/keys` | makes a key; its secret is in this answer, and nowhere else |
//! | `GET /admin/keys?after=&limit=` | lists them, those of the configuration first |
//! | `GET`, `PATCH`, `DELETE /admin/keys/{id}` | shows, changes (a JSON merge patch), revokes |
//! | `POST /admin/keys/{id}/rotate` | a new secret; the old one stays valid for `grace_seconds` |
//! | `GET /admin/spend?key=&tenant=&model=&from=&to=&group_by=` | what was spent, by `day`, `model` or `key` |
//! | `GET /admin/health` | how each endpoint and the state store fare |
//! | `GET /admin/adapters` | what each component has done: calls, times, failures, memory |
//! | `GET /admin/configuration` | what is served since when, and why the last one was refused |
//! | `POST /admin/reload` | reads the configuration anew; 422 says what is wrong with it |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Date, Month};

use crate::bill::{self, SPEND};
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, BodyError, Request, RequestBody, Whole};
use crate::keys::{self, Stored, Wish, hash_key, record_key, unavailable, within};
use crate::operate::{ComponentState, Reload};
use crate::path::Flight;
use crate::ports::Ports;
use crate::record::{Outcome, Warning};
use crate::state::{Expect, State, StateError};

/// The dialect in which failures are told.
const DIALECT: &str = "openai-chat";
/// The largest body.
const MOST_BYTES: usize = 64 << 10;
/// The most keys of one answer.
const MOST_LISTED: usize = 1_000;
/// How long an old secret stays valid where the request does not say, and at most.
const GRACE: u64 = 3_600;
const LONGEST_GRACE: u64 = 30 * 86_400;
/// How often a change is tried that another one overtakes.
const TRIES: usize = 4;
/// The days of spend that are told where the request does not say.
const DAYS: u64 = 30;
/// The most records of spend that one question may read, and how many are read at once.
const MOST_SPEND: usize = 200_000;
const SPEND_PAGE: usize = 500;

/// What the admin API answers.
type Answer = Result<(u16, Value), Failed>;

fn wrong(message: impl Into<String>) -> Failed {
    Failed::ours(400, "invalid_request_error", "invalid_request", message)
}

fn not_found(what: &str) -> Failed {
    Failed::ours(404, "not_found_error", "not_found", what)
}

/// The parameters of a query, decoded.
struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Those that are known.
    fn read(query: &'q str, known: &[&str]) -> Result<Self, Failed> {
        let mut all = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &'q str| percent_decode_str(text).decode_utf8();
            let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
                return Err(wrong("the query is not UTF-8"));
            };
            if !known.contains(&&*name) {
                let name: String = name.chars().take(64).collect();
                return Err(wrong(format!("no parameter \"{name}\" here; there are {}", known.join(", "))));
            }
            all.push((name, value));
        }
        Ok(Query(all))
    }

    /// A parameter that is not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| &**value)
    }
}

impl Gateway {
    /// Serves one request of an operator's.
    pub(crate) async fn admin<P: Ports, B: RequestBody>(&self, mut flight: Flight<P>, request: Request<B>) -> Whole {
        let given = http::bearer(&request.headers).or_else(|| request.header("x-api-key"));
        let admitted = match (&self.config.access.admin_key, given) {
            (Some(key), Some(given)) if key.matches(given) => Ok(()),
            (_, None) => Err("no admin key; send it as `authorization: Bearer KEY`"),
            _ => Err("this is not the admin key"),
        };
        let answer = match admitted {
            Ok(()) => self.administer(&flight, request).await,
            Err(message) => Err(Failed::ours(401, "authentication_error", "invalid_admin_key", message)),
        };
        match answer {
            Ok((status, json)) => {
                flight.end(status, Outcome::Complete);
                let headers = [("content-type", "application/json"), ("cache-control", "no-store")];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                flight.respond(status, headers.to_vec(), Bytes::from(json.to_string()))
            }
            Err(failed) => flight.refuse(self, DIALECT, failed),
        }
    }

    async fn administer<P: Ports, B: RequestBody>(&self, flight: &Flight<P>, request: Request<B>) -> Answer {
        let Request { method, path, query, body, .. } = request;
        let ports = flight.ports.as_ref();
        let rest = path.strip_prefix("/admin/").unwrap_or_default();
        let segments: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        let allow = match (segments.as_slice(), method.as_str()) {
            (["keys"], "POST") => return self.make(ports, read_body(body).await?).await,
            (["keys"], "GET") => return self.list(ports, &query).await,
            (["keys", id], "GET") => return self.show_key(ports, id).await,
            (["keys", id], "PATCH") => return self.change_key(ports, id, read_body(body).await?).await,
            (["keys", id], "DELETE") => return self.revoke(ports, id).await,
            (["keys", id, "rotate"], "POST") => return self.rotate(ports, id, read_body(body).await?).await,
            (["spend"], "GET") => return self.spend(ports, &query).await,
            (["health"], "GET") => return Ok((200, self.health(ports).await)),
            (["adapters"], "GET") => {
                let data: Vec<_> = ports.components().iter().map(ComponentState::json).collect();
                return Ok((200, json!({"object": "list", "data": data})));
            }
            (["configuration"], "GET") => return Ok((200, configuration(ports)?)),
            (["reload"], "POST") => return self.reload(ports).await,
            (["keys"], _) => "GET, POST",
            (["keys", _], _) => "GET, PATCH, DELETE",
            (["keys", _, "rotate"], _) => "POST",
            (["spend" | "health" | "adapters" | "configuration"], _) => "GET",
            (["reload"], _) => "POST",
            _ => {
                return Err(not_found(
                    "the admin API has /admin/keys, /admin/keys/{id}, /admin/keys/{id}/rotate, /admin/spend, \
                     /admin/health, /admin/adapters, /admin/configuration and /admin/reload",
                ));
            }
        };
        let message = format!("{method} is not served here; use {allow}");
        Err(Failed::ours(405, "invalid_request_error", "method_not_allowed", message))
    }

    async fn reload<P: Ports>(&self, ports: &P) -> Answer {
        let reloaded = match ports.reload().await {
            Reload::Done => true,
            Reload::Unchanged => false,
            Reload::Unsupported => return Err(unsupported()),
            Reload::Refused(problems) => {
                let message = problems.join("\n");
                return Err(Failed::ours(422, "invalid_request_error", "configuration_refused", message));
            }
        };
        Ok((200, json!({"reloaded": reloaded, "configuration": configuration(ports)?})))
    }

    /// The names that a key's routes may have.
    fn dialects(&self) -> Vec<&str> {
        let mut dialects: Vec<_> = self.routes.iter().map(|route| route.dialect.as_str()).collect();
        dialects.sort_unstable();
        dialects.dedup();
        dialects
    }

    async fn make<P: Ports>(&self, ports: &P, body: Bytes) -> Answer {
        let wish: Wish = parse(&body)?;
        wish.check(&self.dialects()).map_err(wrong)?;
        let secret = new_secret(ports)?;
        let now = ports.unix_time();
        let stored = Stored {
            id: format!("key_{}", http::id(ports.random())),
            created: now.as_secs(),
            revoked: None,
            hash: keys::hex(&keys::hash(&secret)),
            previous: None,
            wish,
        };
        let state = ports.state();
        let (record, index) = (record_key(&stored.id), hash_key(&stored.hash));
        let id = Bytes::from(stored.id.clone());
        let made = async {
            state.set(now, &record, Some(bytes(&stored)), None, Expect::Absent).await?;
            state.set(now, &index, Some(id), None, Expect::Absent).await
        };
        asked(ports, made).await?;
        let mut json = shown(&stored);
        json["key"] = secret.into();
        Ok((201, json))
    }

    async fn list<P: Ports>(&self, ports: &P, query: &str) -> Answer {
        let query = Query::read(query, &["after", "limit"])?;
        let limit = match query.get("limit").map(str::parse) {
            None => 100,
            Some(Ok(limit @ 1..=MOST_LISTED)) => limit,
            Some(_) => return Err(wrong(format!("limit must be a number from 1 to {MOST_LISTED}"))),
        };
        let after = query.get("after").map(record_key);
        let own = self.config.access.keys.iter().filter(|_| after.is_none());
        let mut data: Vec<_> = own.map(|(name, key)| configured(name, key)).collect();
        let listed = ports.state().list(ports.unix_time(), "key/", after.as_deref(), limit + 1);
        let mut listed = asked(ports, listed).await?;
        let more = listed.len() > limit;
        listed.truncate(limit);
        for (_, bytes) in &listed {
            data.push(shown(&Stored::read(bytes).map_err(|error| unavailable_because(ports, &error))?));
        }
        Ok((200, json!({"object": "list", "data": data, "has_more": more})))
    }

    async fn show_key<P: Ports>(&self, ports: &P, id: &str) -> Answer {
        if let Some(key) = self.config.access.keys.get(id) {
            return Ok((200, configured(id, key)));
        }
        let (stored, _) = self.stored(ports, id).await?;
        Ok((200, shown(&stored)))
    }

    /// A key of the state store, also as it lies there.
    async fn stored<P: Ports>(&self, ports: &P, id: &str) -> Result<(Stored, Bytes), Failed> {
        if self.config.access.keys.contains_key(id) {
            let message = "this key stands in the configuration: change it there";
            return Err(Failed::ours(409, "invalid_request_error", "configured_key", message));
        }
        let missing = || not_found("there is no key of this id");
        if !witgate_config::is_name(id) {
            return Err(missing());
        }
        let bytes = asked(ports, ports.state().get(ports.unix_time(), &record_key(id))).await?.ok_or_else(missing)?;
        let stored = Stored::read(&bytes).map_err(|error| unavailable_because(ports, &error))?;
        Ok((stored, bytes))
    }

    /// Changes a key that nobody else changes at the same time, and forgets what was known of it.
    async fn update<P: Ports>(
        &self,
        ports: &P,
        id: &str,
        until: Option<Duration>,
        change: impl Fn(&mut Stored) -> Result<(), Failed>,
    ) -> Result<(Stored, Stored), Failed> {
        for _ in 0..TRIES {
            let (before, lies) = self.stored(ports, id).await?;
            if before.revoked.is_some() {
                return Err(Failed::ours(409, "invalid_request_error", "revoked_key", "this key has been revoked"));
            }
            let mut after = before.clone();
            change(&mut after)?;
            let record = record_key(id);
            let set =
                ports.state().set(ports.unix_time(), &record, Some(bytes(&after)), until, Expect::Is(lies.as_ref()));
            let done = asked(ports, set).await;
            self.keys.forget();
            if done? {
                return Ok((before, after));
            }
        }
        Err(Failed::ours(409, "invalid_request_error", "conflict", "the key is being changed by others; try again"))
    }

    async fn change_key<P: Ports>(&self, ports: &P, id: &str, body: Bytes) -> Answer {
        let patch: Value = parse(&body)?;
        if !patch.is_object() {
            return Err(wrong("the body is no JSON object"));
        }
        let dialects = self.dialects();
        let (_, stored) = self
            .update(ports, id, None, |stored| {
                let mut json = serde_json::to_value(&stored.wish).unwrap_or_default();
                merge(&mut json, &patch);
                let wish = serde_json::from_value(json).map_err(|error| wrong(format!("the body: {error}")))?;
                stored.wish = wish;
                stored.wish.check(&dialects).map_err(wrong)
            })
            .await?;
        Ok((200, shown(&stored)))
    }

    async fn revoke<P: Ports>(&self, ports: &P, id: &str) -> Answer {
        let now = ports.unix_time();
        let until = now + self.config.access.keep_spend;
        let (before, after) = self
            .update(ports, id, Some(until), |stored| {
                stored.revoked = Some(now.as_secs());
                stored.previous = None;
                Ok(())
            })
            .await?;
        let hashes = [Some(before.hash), before.previous.map(|(old, _)| old)];
        for hash in hashes.into_iter().flatten() {
            asked(ports, ports.state().set(now, &hash_key(&hash), None, None, Expect::Anything)).await?;
        }
        Ok((200, shown(&after)))
    }

    async fn rotate<P: Ports>(&self, ports: &P, id: &str, body: Bytes) -> Answer {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Asked {
            grace_seconds: Option<u64>,
        }
        let asked_for: Asked = if body.is_empty() { Asked::default() } else { parse(&body)? };
        let grace = asked_for.grace_seconds.unwrap_or(GRACE);
        if grace > LONGEST_GRACE {
            return Err(wrong(format!("grace_seconds must be a number from 0 to {LONGEST_GRACE}")));
        }
        let now = ports.unix_time();
        let secret = new_secret(ports)?;
        let hash = keys::hex(&keys::hash(&secret));
        // Both must exist before the new secret is told, so the way to the record comes first: it opens nothing by itself.
        let (state, index) = (ports.state(), hash_key(&hash));
        let owner = Bytes::from(id.to_owned());
        self.stored(ports, id).await?;
        asked(ports, state.set(now, &index, Some(owner.clone()), None, Expect::Absent)).await?;
        let until = now.as_secs().saturating_add(grace);
        let changed = self
            .update(ports, id, None, |stored| {
                let old = std::mem::replace(&mut stored.hash, hash.clone());
                stored.previous = (grace > 0).then_some((old, until));
                Ok(())
            })
            .await;
        let (before, after) = match changed {
            Ok(changed) => changed,
            Err(failed) => {
                asked(ports, state.set(now, &index, None, None, Expect::Anything)).await?;
                return Err(failed);
            }
        };
        // The record says what is valid; this only tidies up.
        let expires = Duration::from_secs(until);
        let old = (grace > 0).then_some(owner);
        asked(ports, state.set(now, &hash_key(&before.hash), old, Some(expires), Expect::Anything)).await?;
        if let Some((older, _)) = before.previous {
            asked(ports, state.set(now, &hash_key(&older), None, None, Expect::Anything)).await?;
        }
        let mut json = shown(&after);
        json["key"] = secret.into();
        Ok((200, json))
    }

    /// What was spent.
    async fn spend<P: Ports>(&self, ports: &P, query: &str) -> Answer {
        let query = Query::read(query, &["key", "tenant", "model", "from", "to", "group_by"])?;
        let now = ports.unix_time();
        let day = |name: &str, default: Duration| match query.get(name) {
            None => Ok(bill::day(default)),
            Some(text) => match day_of(text) {
                Some(start) => Ok((text.to_owned(), start)),
                None => Err(wrong(format!("{name} must be a day, as 2026-11-21"))),
            },
        };
        let (to, _) = day("to", now)?;
        let (from, _) = day("from", now.saturating_sub(Duration::from_secs((DAYS - 1) * 86_400)))?;
        let by: Vec<&str> = query.get("group_by").map(|by| by.split(',').collect()).unwrap_or_default();
        if let Some(unknown) = by.iter().find(|by| !["day", "model", "key"].contains(by)) {
            let unknown: String = unknown.chars().take(64).collect();
            return Err(wrong(format!("group_by must be day, model, key, or some of them; found \"{unknown}\"")));
        }
        let wanted = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
        let keep = self.config.access.keep_spend;
        let mut groups: BTreeMap<[String; 3], [u64; 4]> = BTreeMap::new();
        let mut total = [0_u64; 4];
        let mut after = format!("spend/{from}/");
        let mut read = 0;
        loop {
            let page = asked(ports, ports.state().list(now, "spend/", Some(&after), SPEND_PAGE)).await?;
            let Some((last, _)) = page.last() else { break };
            read += page.len();
            if read > MOST_SPEND {
                return Err(wrong(format!("more than {MOST_SPEND} records: ask for fewer days")));
            }
            let full = page.len() == SPEND_PAGE;
            let last = last.clone();
            let (mut found, mut meters, mut beyond) = (Vec::new(), Vec::new(), false);
            for (name, tenant) in &page {
                let mut parts = name.splitn(4, '/').skip(1);
                let (Some(day), Some(key), Some(model)) = (parts.next(), parts.next(), parts.next()) else { continue };
                beyond |= day > to.as_str();
                let tenant = std::str::from_utf8(tenant).unwrap_or_default();
                let Some(start) = day_of(day).filter(|_| day <= to.as_str()) else { continue };
                if wanted("key", key) && wanted("tenant", tenant) && wanted("model", model) {
                    let rule = bill::spend_rule(start, keep);
                    meters.extend(bill::spend_counters(name).map(|counter| (counter, rule)));
                    let group = |wanted: &str, value: &str| match by.contains(&wanted) {
                        true => value.to_owned(),
                        false => String::new(),
                    };
                    found.push([group("day", day), group("model", model), group("key", key)]);
                }
            }
            let used = asked(ports, ports.state().used(now, &meters)).await?;
            for (group, amounts) in found.into_iter().zip(used.chunks_exact(SPEND.len())) {
                let sum = groups.entry(group).or_default();
                for ((sum, total), amount) in sum.iter_mut().zip(&mut total).zip(amounts) {
                    *sum = sum.saturating_add(*amount);
                    *total = total.saturating_add(*amount);
                }
            }
            if beyond || !full {
                break;
            }
            after = last;
        }
        let data: Vec<_> = groups
            .into_iter()
            .map(|(group, amounts)| {
                let mut json = amounts_of(amounts);
                for (name, value) in ["day", "model", "key"].into_iter().zip(group) {
                    if by.contains(&name) {
                        json[name] = value.into();
                    }
                }
                json
            })
            .collect();
        Ok((200, json!({"from": from, "to": to, "data": data, "total": amounts_of(total)})))
    }

    /// How everything fares.
    async fn health<P: Ports>(&self, ports: &P) -> Value {
        let now = ports.now();
        let mut providers = serde_json::Map::new();
        for (name, pools) in &self.pools {
            let urls =
                self.config.providers.get(name).map(|provider| provider.endpoints.as_slice()).unwrap_or_default();
            let own = std::iter::once((None, &pools.own));
            let regions = pools.regions.iter().map(|(region, pool)| (Some(region), pool));
            let (mut endpoints, mut waiting) = (Vec::new(), 0);
            for (region, pool) in own.chain(regions) {
                waiting += pool.waiting();
                for (at, (well, in_flight, latency)) in pool.report(now).into_iter().enumerate() {
                    endpoints.push(json!({
                        "url": urls.get(at), "region": region, "well": well, "in_flight": in_flight,
                        "latency_ms": (!latency.is_zero()).then_some(latency.as_secs_f64() * 1e3),
                    }));
                }
            }
            providers.insert(name.clone(), json!({"endpoints": endpoints, "waiting": waiting}));
        }
        let state = match within(ports, ports.state().get(ports.unix_time(), "health")).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        json!({"in_flight": self.in_flight(), "state": state, "providers": providers})
    }
}

fn unsupported() -> Failed {
    let message = "this runtime reads its configuration once, when it starts";
    Failed::ours(501, "invalid_request_error", "not_supported", message)
}

fn configuration<P: Ports>(ports: &P) -> Result<Value, Failed> {
    ports.configuration().map(|state| state.json()).ok_or_else(unsupported)
}

async fn read_body<B: RequestBody>(body: B) -> Result<Bytes, Failed> {
    body.read(MOST_BYTES).await.map_err(|error| match error {
        BodyError::TooLarge => {
            let message = format!("the body is larger than {MOST_BYTES} bytes");
            Failed::ours(413, "invalid_request_error", "request_too_large", message)
        }
        error => Failed::ours(408, "invalid_request_error", "body_incomplete", error.to_string()),
    })
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| wrong(format!("the body: {error}")))
}

fn new_secret<P: Ports>(ports: &P) -> Result<String, Failed> {
    let random = ports.secret().map_err(|why| {
        let message = format!("there is no secret randomness: {why}");
        Failed::ours(500, "api_error", "no_randomness", message)
    })?;
    Ok(keys::secret(&random))
}

fn bytes(stored: &Stored) -> Bytes {
    Bytes::from(serde_json::to_vec(stored).unwrap_or_default())
}

fn unavailable_because<P: Ports>(ports: &P, error: &StateError) -> Failed {
    ports.warn(&Warning::State { why: error });
    unavailable()
}

/// What the state store says, or 503.
async fn asked<P: Ports, T>(ports: &P, asked: impl Future<Output = Result<T, StateError>>) -> Result<T, Failed> {
    within(ports, asked).await.map_err(|error| unavailable_because(ports, &error))
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// A key as operators see it: without any secret, or a hash of one.
fn shown(stored: &Stored) -> Value {
    let mut json = serde_json::to_value(&stored.wish).unwrap_or_default();
    json["id"] = stored.id.as_str().into();
    json["source"] = "store".into();
    json["created"] = stored.created.into();
    json["revoked"] = stored.revoked.into();
    json["previous_valid_until"] = stored.previous.as_ref().map(|(_, until)| *until).into();
    json
}

/// A key of the configuration.
fn configured(name: &str, key: &witgate_config::Key) -> Value {
    let mut json = serde_json::to_value(Wish::configured(name, key)).unwrap_or_default();
    json["id"] = name.into();
    json["source"] = "configuration".into();
    json
}

fn amounts_of([cost, requests, input, output]: [u64; 4]) -> Value {
    json!({
        "cost_usd": cost as f64 / 1e9, "cost_nano_usd": cost, "requests": requests, "input_tokens": input,
        "output_tokens": output,
    })
}

/// The first second of a day that is written as `2026-11-21`.
fn day_of(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [year.len(), month.len(), day.len()] != [4, 2, 2] {
        return None;
    }
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_as_it_is_written() {
        assert_eq!(day_of("2024-02-29"), Some(1_709_164_800));
        for wrong in ["2023-02-29", "2024-2-29", "2024-02-29-", "2024-13-01", "today", "", "1969-12-31"] {
            assert_eq!(day_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_merge_patch_sets_changes_and_removes() {
        let mut json = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]});
        merge(&mut json, &json!({"a": null, "b": {"c": 4, "d": null}, "e": [2], "f": {"g": null, "h": 1}}));
        assert_eq!(json, json!({"b": {"c": 4}, "e": [2], "f": {"h": 1}}));
    }
}
