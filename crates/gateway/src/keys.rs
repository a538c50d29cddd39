//! Keys of clients: who asks, and what they may ask for.
//!
//! A key stands in the configuration (`server.api_keys`, `[keys]`), or the admin API has made it: then the state store
//! knows it by its SHA-256 alone (`keyhash/<hash>` is the key's id, `key/<id>` its record). What was read counts for
//! `accounting.key_ttl`, so that most requests ask no store; what this process changes, it forgets at once. Where the
//! store cannot be asked, a key that was valid when last read stays so under `state.on_failure = "open"`; one that was
//! never read is refused with 503, never let in.
//!
//! A server without any key, and without an admin API that could make one, is open: everybody is one client.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use witgate_config::{Budget, Config, OnFailure, Quota, Secret, Terms};

use crate::bill::{self, LastSpending, Meter, Scope};
use crate::failure::Failed;
use crate::ports::Ports;
use crate::state::{State, StateError};

/// How the owner begins whose key has a name.
const NAMED: &str = "key.";
/// How the secret of a key begins that the admin API has made.
const PREFIX: &str = "sk-wg-";
/// The most keys that are kept in memory after they were read.
const MOST_KNOWN: usize = 65_536;
/// How long the state store may take.
const STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// SHA-256 of a secret.
pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// A new secret.
pub(crate) fn secret(random: &Hash) -> String {
    format!("{PREFIX}{}", hex(random))
}

/// What the state store says within its time.
pub(crate) async fn within<P: Ports, T>(
    ports: &P,
    asked: impl Future<Output = Result<T, StateError>>,
) -> Result<T, StateError> {
    let late = || StateError(format!("did not answer within {} s", STATE_TIMEOUT.as_secs()));
    crate::path::before(ports, ports.now() + STATE_TIMEOUT, asked).await.unwrap_or_else(|| Err(late()))
}

/// The store cannot be asked, and what is wanted cannot be had without it.
pub(crate) fn unavailable() -> Failed {
    Failed::ours(503, "api_error", "state_unavailable", "the gateway's state store cannot be asked; try again shortly")
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Client {
    /// The key's id.
    pub id: String,
    /// Under what its jobs, files and kept answers lie: what the key opens, it alone opens, whatever becomes of the
    /// configuration's order.
    pub owner: String,
    /// The server is open, or this is a key.
    pub has_key: bool,
    /// Whose key it is.
    pub tenant: Option<String>,
    /// Since 1970.
    expires: Option<Duration>,
    models: Vec<String>,
    routes: Vec<String>,
    /// What it may use, its tenant's share included.
    pub meters: Vec<Arc<Meter>>,
    /// Where what it spends is recorded.
    pub spending: LastSpending,
}

impl Client {
    fn of(config: &Config, id: String, wish: &Wish) -> Self {
        let mut meters = Vec::new();
        bill::meters(Scope::Key, &id, &wish.terms(), &mut meters);
        if let Some(tenant) = &wish.tenant
            && let Some(terms) = config.access.tenants.get(tenant)
        {
            bill::meters(Scope::Tenant, tenant, terms, &mut meters);
        }
        Client {
            owner: format!("{NAMED}{id}"),
            id,
            has_key: true,
            tenant: wish.tenant.clone(),
            expires: wish.expires.map(Duration::from_secs),
            models: wish.models.clone(),
            routes: wish.routes.clone(),
            meters,
            spending: LastSpending::default(),
        }
    }

    /// Whether it may ask for a model of this name.
    pub fn may_ask(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| witgate_config::fits(pattern, model))
    }

    /// Whether there are models that it may not ask for.
    pub fn is_restricted(&self) -> bool {
        !self.models.is_empty()
    }

    /// The failure of one that may not speak a dialect.
    pub fn check(&self, dialect: Option<&str>) -> Result<(), Failed> {
        match dialect {
            Some(dialect) if !self.may_speak(dialect) => {
                let message = format!("the API key may not be used for the API \"{dialect}\"");
                Err(Failed::ours(403, "permission_error", "route_not_allowed", message))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may speak this dialect.
    pub fn may_speak(&self, dialect: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|pattern| witgate_config::fits(pattern, dialect))
    }
}

/// What the operator wants of a key. In the store, and in the admin API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wish {
    /// For people.
    pub name: String,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Free texts.
    pub metadata: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub expires: Option<u64>,
    /// Patterns; empty is all.
    pub models: Vec<String>,
    /// Patterns; empty is all.
    pub routes: Vec<String>,
    pub quota: WishedQuota,
    pub budget: WishedBudget,
}

/// As [`Quota`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WishedQuota {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
}

/// As [`Budget`], in dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WishedBudget {
    pub day: Option<f64>,
    pub month: Option<f64>,
    pub total: Option<f64>,
}

/// The most that a wish may list, and the longest text in it.
const MOST_ENTRIES: usize = 64;
const LONGEST: usize = 256;
/// The largest amount of money, in dollars.
const MOST_DOLLARS: f64 = 1e9;

impl Wish {
    /// What is wrong with it. `dialects` are those that routes may name.
    pub fn check(&self, dialects: &[&str]) -> Result<(), String> {
        let text = |what: &str, text: &str, least: usize| match text.len() {
            length if (least..=LONGEST).contains(&length) && !text.chars().any(char::is_control) => Ok(()),
            _ => Err(format!("{what} must be {least} to {LONGEST} bytes without control characters")),
        };
        text("name", &self.name, 1)?;
        if self.tenant.as_ref().is_some_and(|tenant| !witgate_config::is_name(tenant)) {
            return Err("tenant must be letters, digits, \"_\" and \"-\", at most 64".to_owned());
        }
        let lists = [self.metadata.len(), self.models.len(), self.routes.len()];
        if lists.iter().any(|length| *length > MOST_ENTRIES) {
            return Err(format!("metadata, models and routes may have {MOST_ENTRIES} entries each"));
        }
        for (name, value) in &self.metadata {
            text("a name in metadata", name, 1)?;
            text("a value in metadata", value, 0)?;
        }
        for model in &self.models {
            text("an entry of models", model, 1)?;
        }
        for route in &self.routes {
            if !dialects.iter().any(|dialect| witgate_config::fits(route, dialect)) {
                let route: String = route.chars().take(64).collect();
                return Err(format!("no dialect \"{route}\" in routes; there are {}", dialects.join(", ")));
            }
        }
        let amounts = [self.budget.day, self.budget.month, self.budget.total];
        if amounts.iter().flatten().any(|amount| !(0.0..=MOST_DOLLARS).contains(amount)) {
            return Err(format!("an amount of budget must be a number of dollars from 0 to {MOST_DOLLARS}"));
        }
        Ok(())
    }

    fn terms(&self) -> Terms {
        let limit = |limit: Option<u32>| limit.filter(|limit| *limit > 0);
        let nano = |dollars: Option<f64>| dollars.map(|dollars| (dollars * 1e9).round() as u64);
        let WishedQuota { requests_per_minute, tokens_per_minute, concurrent_requests } = self.quota;
        let WishedBudget { day, month, total } = self.budget;
        Terms {
            quota: Quota {
                requests_per_minute: limit(requests_per_minute),
                tokens_per_minute: limit(tokens_per_minute),
                concurrent_requests: limit(concurrent_requests),
            },
            budget: Budget { day: nano(day), month: nano(month), total: nano(total) },
        }
    }

    /// What the configuration wants of a key.
    pub fn configured(name: &str, key: &witgate_config::Key) -> Self {
        let Terms { quota, budget } = key.terms;
        let dollars = |nano: Option<u64>| nano.map(|nano| nano as f64 / 1e9);
        Wish {
            name: name.to_owned(),
            tenant: key.tenant.clone(),
            metadata: key.metadata.clone(),
            expires: key.expires.map(|expires| expires.as_secs()),
            models: key.models.clone(),
            routes: key.routes.clone(),
            quota: WishedQuota {
                requests_per_minute: quota.requests_per_minute,
                tokens_per_minute: quota.tokens_per_minute,
                concurrent_requests: quota.concurrent_requests,
            },
            budget: WishedBudget {
                day: dollars(budget.day),
                month: dollars(budget.month),
                total: dollars(budget.total),
            },
        }
    }
}

/// A key of the state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970; it is valid no more.
    pub revoked: Option<u64>,
    /// SHA-256 of its secret, in hex.
    pub hash: String,
    /// The hash before it was rotated, and until when that counts, in seconds since 1970.
    pub previous: Option<(String, u64)>,
    pub wish: Wish,
}

impl Stored {
    pub fn read(bytes: &[u8]) -> Result<Self, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError(format!("holds a key that cannot be read: {error}")))
    }

    /// Whether a secret with this hash is the key's.
    fn opens(&self, hash: &str, now: Duration) -> bool {
        let earlier = self.previous.as_ref().is_some_and(|(old, until)| old == hash && now.as_secs() < *until);
        self.revoked.is_none() && (self.hash == hash || earlier)
    }
}

/// The names under which the state store has a key.
pub(crate) fn record_key(id: &str) -> String {
    format!("key/{id}")
}

pub(crate) fn hash_key(hash: &str) -> String {
    format!("keyhash/{hash}")
}

/// All keys.
pub(crate) struct Keys {
    /// The client of an open server; none where keys are wanted.
    open: Option<Arc<Client>>,
    /// Those of the configuration.
    own: HashMap<Hash, Arc<Client>>,
    ttl: Duration,
    on_failure: OnFailure,
    /// How often the configuration had been read anew when these were made.
    generation: u64,
    known: Arc<Mutex<Known>>,
}

/// What was read from the state store.
#[derive(Default)]
struct Known {
    /// Only the newest keys may add to it: what is known of a client depends on the configuration.
    generation: u64,
    /// How often something has been forgotten: what was read before is not kept.
    forgotten: u64,
    /// No client: the store knows none. Until when that counts.
    clients: HashMap<Hash, (Option<Arc<Client>>, Duration)>,
}

impl Keys {
    pub fn new(config: &Config) -> Self {
        let access = &config.access;
        let plain = |id: String| Client::of(config, id, &Wish::default());
        // Not the key's number: others than its client would get what is kept when the configuration changes.
        let numbered_client = |at: usize, secret: &Secret| {
            let owner = hex(&hash(&format!("witgate owner {}", hex(&secret.digest()))));
            let owner = format!("server.{}", owner.get(..32).unwrap_or_default());
            Client { owner, ..plain(format!("server.{at}")) }
        };
        let numbered = config.server.api_keys.iter().enumerate();
        let hashed = Secret::digest;
        let mut own: HashMap<_, _> =
            numbered.map(|(at, secret)| (hashed(secret), Arc::new(numbered_client(at, secret)))).collect();
        for (name, key) in &access.keys {
            let client = Client::of(config, name.clone(), &Wish::configured(name, key));
            own.insert(hashed(&key.secret), Arc::new(client));
        }
        let open = own.is_empty() && !access.wants_keys();
        Keys {
            open: open.then(|| Arc::new(Client { has_key: false, ..plain("anonymous".to_owned()) })),
            own,
            ttl: access.key_ttl,
            on_failure: access.on_failure,
            generation: 0,
            known: Arc::default(),
        }
    }

    /// The keys that take these ones' place when the configuration is read anew. What was read from the state store is
    /// read again; where that cannot be asked, it counts as before.
    pub fn successor(&self, config: &Config) -> Self {
        let mut known = self.known();
        known.generation += 1;
        known.clients.values_mut().for_each(|(_, until)| *until = Duration::ZERO);
        Keys { generation: known.generation, known: Arc::clone(&self.known), ..Keys::new(config) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who brings this secret. The failure is what the client is told; a wrong key is no 401 everywhere.
    pub async fn find<P: Ports>(
        &self,
        config: &Config,
        ports: &P,
        given: Option<&str>,
        wrong: u16,
    ) -> Result<Arc<Client>, Failed> {
        if let Some(open) = &self.open {
            return Ok(Arc::clone(open));
        }
        let refused = |status, code, message: &str| Err(Failed::ours(status, "authentication_error", code, message));
        let Some(given) = given else {
            return refused(401, "missing_api_key", "no API key; send it as `authorization: Bearer KEY`");
        };
        let hash = hash(given);
        let client = match self.own.get(&hash) {
            Some(client) => Some(Arc::clone(client)),
            None if given.starts_with(PREFIX) => self.stored(config, ports, hash).await?,
            None => None,
        };
        match client {
            Some(client) if client.expires.is_some_and(|expires| expires <= ports.unix_time()) => {
                refused(wrong, "expired_api_key", "the API key has expired")
            }
            Some(client) => Ok(client),
            None => refused(wrong, "invalid_api_key", "the API key is not one of this gateway's"),
        }
    }

    /// A key of the state store.
    async fn stored<P: Ports>(&self, config: &Config, ports: &P, hash: Hash) -> Result<Option<Arc<Client>>, Failed> {
        let now = ports.now();
        let (earlier, forgotten) = {
            let known = self.known();
            match known.clients.get(&hash) {
                Some((client, until)) if now < *until => return Ok(client.clone()),
                earlier => (earlier.and_then(|(client, _)| client.clone()), known.forgotten),
            }
        };
        match within(ports, read(config, ports, &hash)).await {
            Ok((client, until)) => {
                let until = (now + self.ttl).min(until.unwrap_or(Duration::MAX));
                let mut known = self.known();
                if known.generation == self.generation && known.forgotten == forgotten && !self.ttl.is_zero() {
                    if known.clients.len() >= MOST_KNOWN {
                        known.clients.retain(|_, (client, until)| client.is_some() && now < *until);
                    }
                    if known.clients.len() >= MOST_KNOWN {
                        known.clients.clear();
                    }
                    known.clients.insert(hash, (client.clone(), until));
                }
                Ok(client)
            }
            Err(error) => {
                ports.warn(&crate::record::Warning::State { why: &error });
                match earlier {
                    Some(client) if self.on_failure == OnFailure::Open => Ok(Some(client)),
                    _ => Err(unavailable()),
                }
            }
        }
    }

    /// The client whose [`Client::owner`] this is, where its key is still valid.
    pub async fn of_owner<P: Ports>(
        &self,
        config: &Config,
        ports: &P,
        owner: &str,
    ) -> Result<Option<Arc<Client>>, StateError> {
        let own = self.open.iter().chain(self.own.values()).find(|client| client.owner == owner).cloned();
        let client = match (own, owner.strip_prefix(NAMED)) {
            (Some(client), _) => Some(client),
            (None, None) => None,
            (None, Some(id)) => {
                let record = within(ports, ports.state().get(ports.unix_time(), &record_key(id))).await?;
                let stored = record.map(|record| Stored::read(&record)).transpose()?;
                let valid = stored.filter(|stored| stored.revoked.is_none());
                valid.map(|stored| Arc::new(Client::of(config, stored.id, &stored.wish)))
            }
        };
        Ok(client.filter(|client| client.expires.is_none_or(|expires| expires > ports.unix_time())))
    }

    /// The client of the key with this id, where that is still valid; without one that of an open server.
    pub async fn of_id<P: Ports>(
        &self,
        config: &Config,
        ports: &P,
        id: Option<&str>,
    ) -> Result<Option<Arc<Client>>, StateError> {
        let Some(id) = id else { return Ok(self.open.clone()) };
        let own = self.own.values().find(|client| client.id == id);
        let owner = own.map_or_else(|| format!("{NAMED}{id}"), |client| client.owner.clone());
        self.of_owner(config, ports, &owner).await
    }

    /// Forgets what was read of the state store: something has changed there.
    pub fn forget(&self) {
        let mut known = self.known();
        known.forgotten += 1;
        known.clients.clear();
    }
}

/// The client of a secret, and, where it is one that has been rotated away, the moment (of [`Ports::now`]) at which it
/// counts no more.
async fn read<P: Ports>(
    config: &Config,
    ports: &P,
    hash: &Hash,
) -> Result<(Option<Arc<Client>>, Option<Duration>), StateError> {
    let now = ports.unix_time();
    let hash = hex(hash);
    let Some(id) = ports.state().get(now, &hash_key(&hash)).await? else { return Ok((None, None)) };
    let id = String::from_utf8_lossy(&id);
    let Some(record) = ports.state().get(now, &record_key(&id)).await? else { return Ok((None, None)) };
    let stored = Stored::read(&record)?;
    if !stored.opens(&hash, now) {
        return Ok((None, None));
    }
    let until = stored.previous.as_ref().filter(|(old, _)| *old == hash);
    let until = until.map(|(_, until)| ports.now() + Duration::from_secs(*until).saturating_sub(now));
    Ok((Some(Arc::new(Client::of(config, stored.id, &stored.wish))), until))
}
