//! Who may ask for what, how often, and what it may cost: keys, tenants, quotas, budgets, prices.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::names::{did_you_mean, list, quote};
use crate::read::{
    At, Count, Entry, Flag, Hidden, Kind, ListOf, MapOf, Named, Node, Reader, Text, Time, Value, Word, join, table,
};
use crate::secret::Secret;

/// Nano-dollars in a dollar.
const NANO: f64 = 1e9;
/// The largest amount that a configuration may name, in dollars.
const MOST_DOLLARS: f64 = 1e9;
/// Most entries of a list, or of metadata.
const MOST_ENTRIES: usize = 64;
/// Longest text of a name, a pattern, a value of metadata.
const LONGEST: usize = 256;

/// Who may ask for what, and what it may cost.
#[derive(Clone, Debug)]
pub struct Access {
    /// The admin API's own key; without one there is no admin API.
    pub admin_key: Option<Secret>,
    /// The keys of the configuration, by name.
    pub keys: BTreeMap<String, Key>,
    /// What all keys of a tenant together may use, by the tenant's name.
    pub tenants: BTreeMap<String, Terms>,
    /// What all requests for a name of a model together may use, by the name.
    pub models: BTreeMap<String, Quota>,
    /// Prices that replace those of the table that comes with witgate.
    pub prices: BTreeMap<String, Price>,
    /// What holds where a target has no price.
    pub unpriced: Unpriced,
    /// The tokens of an answer that are reserved where a request names no bound.
    pub output_tokens: u32,
    /// How long a key of the state store counts as read.
    pub key_ttl: Duration,
    /// How long spend can be asked for.
    pub keep_spend: Duration,
    /// What holds while the state store cannot be asked.
    pub on_failure: OnFailure,
    /// Where thresholds of budgets are told, beside the log.
    pub webhook: Option<Webhook>,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            admin_key: None,
            keys: BTreeMap::new(),
            tenants: BTreeMap::new(),
            models: BTreeMap::new(),
            prices: BTreeMap::new(),
            unpriced: Unpriced::Free,
            output_tokens: 1_024,
            key_ttl: Duration::from_secs(5),
            keep_spend: Duration::from_secs(400 * 86_400),
            on_failure: OnFailure::Open,
            webhook: None,
        }
    }
}

/// Where thresholds of budgets are told.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// An address of `http` or `https`.
    pub url: String,
    /// What each message is signed with, as Standard Webhooks.
    pub secret: Secret,
    /// How often one is sent at most.
    pub attempts: u32,
    /// It may be an address of a private network, or of this machine.
    pub allow_private: bool,
}

/// A key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// What the client brings.
    pub secret: Secret,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Free texts, for the operator.
    pub metadata: BTreeMap<String, String>,
    /// Until when it is valid, since 1970-01-01 UTC.
    pub expires: Option<Duration>,
    /// The models that it may ask for, as clients write them; `*` stands for any text. Empty is all.
    pub models: Vec<String>,
    /// The dialects that it may speak; `*` stands for any text. Empty is all.
    pub routes: Vec<String>,
    /// What it may use.
    pub terms: Terms,
}

/// What somebody may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How often.
    pub quota: Quota,
    /// For how much money.
    pub budget: Budget,
}

/// How often somebody may ask. None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in any minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in any minute, prompts and answers together.
    pub tokens_per_minute: Option<u32>,
    /// Requests at once.
    pub concurrent_requests: Option<u32>,
}

/// What somebody may spend, in nano-dollars. None is no limit. Days and months are those of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// In a day.
    pub day: Option<u64>,
    /// In a month.
    pub month: Option<u64>,
    /// Ever.
    pub total: Option<u64>,
}

/// What a target without a price means for somebody with a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// Its answers cost nothing.
    Free,
    /// The request is refused.
    Refuse,
}

/// What a failure means for requests: of the state store for limits and budgets, of a policy for what it looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Requests are served without them.
    #[default]
    Open,
    /// Requests are refused.
    Closed,
}

/// What a model's tokens cost, in pico-dollars for a token: a dollar for a million tokens is a million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of the prompt, read from the backend's cache.
    pub cache_read: u64,
    /// Of the prompt, written to the backend's cache.
    pub cache_write: u64,
    /// Of the answer, spent on reasoning.
    pub reasoning: u64,
}

/// Tokens of one answer, as backends count them: those of caches are part of the input, those of reasoning of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of the input: read from the cache.
    pub cache_read: u64,
    /// Of the input: written to the cache.
    pub cache_write: u64,
    /// Of the output: reasoning.
    pub reasoning: u64,
}

impl Price {
    /// In nano-dollars, what is less than one counted as one.
    pub fn cost(&self, tokens: &Tokens) -> u64 {
        let input = tokens.input.saturating_sub(tokens.cache_read).saturating_sub(tokens.cache_write);
        let output = tokens.output.saturating_sub(tokens.reasoning);
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let pico = part(input, self.input)
            + part(output, self.output)
            + part(tokens.cache_read, self.cache_read)
            + part(tokens.cache_write, self.cache_write)
            + part(tokens.reasoning, self.reasoning);
        u64::try_from(pico.div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}

/// The table that comes with witgate.
static TABLE: LazyLock<BTreeMap<String, Price>> = LazyLock::new(|| {
    let table: Json = serde_json::from_str(include_str!("../data/prices.json")).unwrap_or_default();
    let models = table["models"].as_object().into_iter().flatten();
    let price = |entry: &Json| {
        let pico = |name: &str| Some(dollars_for_a_million(entry[name].as_f64()?));
        let (input, output) = (pico("input")?, pico("output")?);
        let or = |name, other| pico(name).unwrap_or(other);
        Some(Price {
            input,
            output,
            cache_read: or("cache_read", input),
            cache_write: or("cache_write", input),
            reasoning: or("reasoning", output),
        })
    };
    models.filter_map(|(name, entry)| Some((name.clone(), price(entry)?))).collect()
});

/// Pico-dollars for a token.
fn dollars_for_a_million(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

impl Access {
    /// What a provider's model costs. Looked for are, in the configuration `provider/model`, `provider/*` and `model`, and
    /// then the model in the table that comes with witgate, there also without what Bedrock writes in front of a name
    /// (a region, `anthropic.`) and without a version or a date at its end.
    pub fn price(&self, provider: &str, model: &str) -> Option<Price> {
        if !self.prices.is_empty() {
            let mut name = String::with_capacity(provider.len() + model.len() + 2);
            let found = [model, "*"].into_iter().find_map(|model| {
                name.clear();
                name.extend([provider, "/", model]);
                self.prices.get(&name)
            });
            if let Some(price) = found.or_else(|| self.prices.get(model)) {
                return Some(*price);
            }
        }
        listed(model)
    }

    /// Whether clients need a key, even where `server.api_keys` has none.
    pub fn wants_keys(&self) -> bool {
        self.admin_key.is_some() || !self.keys.is_empty()
    }
}

/// The price that the table gives to a backend's name for a model.
fn listed(model: &str) -> Option<Price> {
    let find = |name: &str| TABLE.get(name).copied();
    let region = ["us.", "eu.", "apac.", "global.", "jp.", "au.", "ca.", "us-gov."];
    let base = region.iter().find_map(|region| model.strip_prefix(region)).unwrap_or(model);
    let unversioned = without_version(base);
    let undated = without_date(unversioned);
    let names = [model, base, unversioned, undated];
    names.iter().find_map(|name| find(name)).or_else(|| {
        let own = |name: &&str| name.strip_prefix("anthropic.").and_then(find);
        names.iter().find_map(own)
    })
}

/// Without `-v1:0` or `-v1` at the end.
fn without_version(name: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    match name.rsplit_once("-v") {
        Some((before, version)) if digits(version) => before,
        _ => name,
    }
}

/// Without `-2024-08-06`, `-20240806`, `@20240806` or `-latest` at the end.
fn without_date(name: &str) -> &str {
    if let Some(name) = name.strip_suffix("-latest") {
        return name;
    }
    let dated = |length: usize, marks: &[u8]| {
        let at = name.len().checked_sub(length)?;
        let (before, date) = (name.get(..at)?, name.get(at..)?.as_bytes());
        let (mark, date) = date.split_first()?;
        let year = date.starts_with(b"20");
        let good = date.iter().enumerate().all(|(at, b)| match (length, at) {
            (11, 4 | 7) => *b == b'-',
            _ => b.is_ascii_digit(),
        });
        (marks.contains(mark) && year && good).then_some(before)
    };
    dated(11, b"-").or_else(|| dated(9, b"-@")).unwrap_or(name)
}

/// Whether a name fits a pattern in which each `*` stands for any text.
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut rest = rest;
    while let Some((middle, behind)) = rest.split_once('*') {
        let Some(at) = name.find(middle) else { return false };
        name = name.get(at + middle.len()..).unwrap_or_default();
        rest = behind;
    }
    name.ends_with(rest)
}

table! {
    /// The admin API, under /admin/: keys, spend, health.
    pub(crate) struct AdminTable {
        /// The key that the admin API wants as "Authorization: Bearer …", and no client has; without one, or with an
        /// empty one, there is no admin API.
        key: Hidden;
    }
}

table! {
    /// How requests are counted.
    pub(crate) struct AccountingTable {
        /// What holds for a key or a tenant with a budget where a target has no price: free (the default), or refuse.
        unpriced: Word<Unpriced>;
        /// Tokens of an answer that are reserved where a request names no bound.
        output_tokens: Count = Access::default().output_tokens, 1..=10_000_000;
        /// How long a key counts as read from the state store: how long another process may still take a revoked one.
        key_ttl: Time = Access::default().key_ttl, Duration::ZERO..=Duration::from_secs(3_600);
        /// How long spend can be asked for.
        keep_spend: Time = Access::default().keep_spend, Duration::from_secs(86_400)..=Duration::from_secs(3_660 * 86_400);
        /// The URL that is told when a budget reaches 50, 80 and 100 %, beside the log.
        webhook: Text;
        /// What that is signed with as Standard Webhooks: "whsec_" and base64.
        webhook_secret: Hidden;
        /// Most times that a message is sent until it is accepted.
        webhook_attempts: Count = 8, 1..=20;
        /// The URL may be one of a private network or of this machine.
        allow_private_webhook: Flag;
    }
}

table! {
    /// A key for clients.
    pub(crate) struct KeyTable {
        /// What the client brings as "Authorization: Bearer …".
        secret: Hidden [required];
        /// Whose it is: a name of [tenants], or any other.
        tenant: Text;
        /// Free texts, for you.
        metadata: MapOf<Text>;
        /// Until when it is valid, as 2027-01-31T00:00:00Z.
        expires: Moment;
        /// The models that it may ask for, as clients write them; "*" stands for any text. Default: all.
        models: ListOf<Text>;
        /// The APIs that it may speak, by the names that [dialects] uses, as "openai-*". Default: all.
        routes: ListOf<Text>;
        /// How often it may ask.
        quota: QuotaTable;
        /// What it may spend.
        budget: BudgetTable;
    }
}

table! {
    /// What all keys of a tenant together may use.
    pub(crate) struct TenantTable {
        /// How often they may ask.
        quota: QuotaTable;
        /// What they may spend.
        budget: BudgetTable;
    }
}

table! {
    /// How often somebody may ask; more is refused with 429 and Retry-After.
    pub(crate) struct QuotaTable {
        /// Requests in any minute; 0 is no limit.
        requests_per_minute: Count = 0, 0..=u32::MAX;
        /// Tokens in any minute, prompts and answers together; 0 is no limit.
        tokens_per_minute: Count = 0, 0..=u32::MAX;
        /// Requests at once; 0 is no limit.
        concurrent_requests: Count = 0, 0..=1_000_000;
    }
}

table! {
    /// What somebody may spend, in US dollars; more is refused with 402. Days and months are those of UTC.
    pub(crate) struct BudgetTable {
        /// Most in a day.
        day: Dollars;
        /// Most in a month.
        month: Dollars;
        /// Most in all time.
        total: Dollars;
    }
}

table! {
    /// What a model costs, in US dollars for a million tokens.
    pub(crate) struct PriceTable {
        /// Of the prompt.
        input: Dollars [required];
        /// Of the answer.
        output: Dollars [required];
        /// Of the prompt, read from the backend's cache. Default: as input.
        cache_read: Dollars;
        /// Of the prompt, written to the backend's cache. Default: as input.
        cache_write: Dollars;
        /// Of the answer, spent on reasoning. Default: as output.
        reasoning: Dollars;
    }
}

/// An amount of US dollars.
pub(crate) struct Dollars;

impl Kind for Dollars {
    type Value = f64;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<f64> {
        let amount = match (&node.value, &node.variable) {
            (Value::Integer(number), _) => Some(*number as f64),
            (Value::Float(number), _) => Some(*number),
            (Value::String(text), Some(_)) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(amount) = amount else {
            let help = "write a number of US dollars, as 2.50";
            reader.problem(&node.span, path, "expected an amount", Some(help.into()));
            return None;
        };
        if !(0.0..=MOST_DOLLARS).contains(&amount) {
            let help = format!("write one from 0 to {MOST_DOLLARS}");
            reader.problem(&node.span, path, "the amount is out of range", Some(help));
            return None;
        }
        Some(amount)
    }

    fn schema() -> Json {
        json!({"type": ["number", "string"], "minimum": 0, "maximum": MOST_DOLLARS, "pattern": "\\$\\{"})
    }
}

/// A moment: a date and a time with its offset from UTC.
pub(crate) struct Moment;

impl Kind for Moment {
    type Value = Duration;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Duration> {
        let moment = match &node.value {
            Value::Datetime(text) | Value::String(text) => moment(text),
            _ => None,
        };
        if moment.is_none() && !matches!(node.value, Value::Broken) {
            let help = "write a date and a time with their offset from UTC, as 2027-01-31T00:00:00Z";
            reader.problem(&node.span, path, "not a moment", Some(help.into()));
        }
        moment
    }

    fn schema() -> Json {
        json!({"type": "string"})
    }
}

/// The time since 1970-01-01 UTC of a date and a time with its offset.
fn moment(text: &str) -> Option<Duration> {
    let toml::value::Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = text.parse().ok()? else {
        return None;
    };
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let clock = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    u64::try_from(days * 86_400 + clock - minutes * 60).ok().map(Duration::from_secs)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that a leap day is the last of its year; eras of 400 years repeat.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl Named for Unpriced {
    const WHAT: &'static str = "choice here";
    const NAMES: &'static [(&'static str, Self)] = &[("free", Unpriced::Free), ("refuse", Unpriced::Refuse)];
}

impl Named for OnFailure {
    const WHAT: &'static str = "choice here";
    const NAMES: &'static [(&'static str, Self)] = &[("open", OnFailure::Open), ("closed", OnFailure::Closed)];
}

/// The tables of the file that say who may ask for what.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) admin: Option<At<AdminTable>>,
    pub(crate) keys: Option<At<Vec<Entry<KeyTable>>>>,
    pub(crate) tenants: Option<At<Vec<Entry<TenantTable>>>>,
    pub(crate) prices: Option<At<Vec<Entry<PriceTable>>>>,
    pub(crate) accounting: Option<At<AccountingTable>>,
    pub(crate) on_failure: OnFailure,
    /// By the name of a model.
    pub(crate) models: Vec<(String, At<QuotaTable>)>,
}

/// What the tables say. `dialects` are the names that routes may have.
pub(crate) fn access(tables: Tables, dialects: &[&str], reader: &mut Reader<'_>) -> Access {
    let default = Access::default();
    let admin = tables.admin.and_then(|at| at.value.key);
    if let Some(at) = &admin {
        header_text(at, "admin.key", reader);
    }
    let mut keys = BTreeMap::new();
    for entry in tables.keys.map(|at| at.value).unwrap_or_default() {
        let path = join("keys", &entry.key.name);
        check_name(&entry, &path, "a key", reader);
        if let Some(key) = entry.at.and_then(|at| key(at.value, &path, dialects, reader)) {
            keys.insert(entry.key.name, key);
        }
    }
    let mut tenants = BTreeMap::new();
    for entry in tables.tenants.map(|at| at.value).unwrap_or_default() {
        check_name(&entry, &join("tenants", &entry.key.name), "a tenant", reader);
        if let Some(at) = entry.at {
            tenants.insert(entry.key.name, terms(at.value.quota, at.value.budget));
        }
    }
    let mut prices = BTreeMap::new();
    for entry in tables.prices.map(|at| at.value).unwrap_or_default() {
        let Some(At {
            value: PriceTable { input: Some(input), output: Some(output), cache_read, cache_write, reasoning },
            ..
        }) = entry.at
        else {
            continue;
        };
        let or = |at: Option<At<f64>>, other: f64| dollars_for_a_million(at.map_or(other, |at| at.value));
        let price = Price {
            input: dollars_for_a_million(input.value),
            output: dollars_for_a_million(output.value),
            cache_read: or(cache_read, input.value),
            cache_write: or(cache_write, input.value),
            reasoning: or(reasoning, output.value),
        };
        prices.insert(entry.key.name, price);
    }
    let mut accounting = tables.accounting.map(|at| at.value).unwrap_or_default();
    let webhook = webhook(&mut accounting, reader);
    Access {
        admin_key: admin.map(|at| at.value).filter(|key| !key.expose().is_empty()),
        keys,
        tenants,
        models: tables.models.into_iter().map(|(name, at)| (name, quota(at.value))).collect(),
        prices,
        unpriced: accounting.unpriced.map_or(default.unpriced, |at| at.value),
        output_tokens: accounting.output_tokens.map_or(default.output_tokens, |at| at.value),
        key_ttl: accounting.key_ttl.map_or(default.key_ttl, |at| at.value),
        keep_spend: accounting.keep_spend.map_or(default.keep_spend, |at| at.value),
        on_failure: tables.on_failure,
        webhook,
    }
}

fn webhook(table: &mut AccountingTable, reader: &mut Reader<'_>) -> Option<Webhook> {
    let url = table.webhook.take()?;
    if !["http://", "https://"].iter().any(|scheme| url.value.starts_with(scheme)) {
        let help = "write one that begins with https:// or http://".to_owned();
        reader.problem(&url.span, "accounting.webhook", "not an address that can be told", Some(help));
    }
    let Some(secret) = table.webhook_secret.take() else {
        let help = "set accounting.webhook_secret: each message is signed with it".to_owned();
        reader.problem(&url.span, "accounting.webhook", "a webhook without a secret", Some(help));
        return None;
    };
    webhook_secret(&secret, "accounting.webhook_secret", reader);
    Some(Webhook {
        url: url.value,
        secret: secret.value,
        attempts: table.webhook_attempts.take().map_or(8, |at| at.value),
        allow_private: table.allow_private_webhook.take().is_some_and(|at| at.value),
    })
}

/// Refuses what is no secret of Standard Webhooks.
pub(crate) fn webhook_secret(secret: &At<Secret>, key: &str, reader: &mut Reader<'_>) {
    let base64 = secret.value.expose().strip_prefix("whsec_").map(|text| text.trim_end_matches('='));
    let fits = |text: &str| {
        (32..=86).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    };
    if !base64.is_some_and(fits) {
        let help = "write \"whsec_\" and 24 to 64 random bytes in base64, as `openssl rand -base64 32` gives them";
        reader.problem(&secret.span, key, "is not a secret of Standard Webhooks", Some(help.to_owned()));
    }
}

fn key(table: KeyTable, path: &str, dialects: &[&str], reader: &mut Reader<'_>) -> Option<Key> {
    let secret = table.secret?;
    let inner = join(path, "secret");
    if secret.value.expose().is_empty() {
        let help = "write the text that the client brings";
        reader.problem(&secret.span, &inner, "an empty key", Some(help.into()));
    } else {
        header_text(&secret, &inner, reader);
    }
    let tenant = table.tenant.filter(|at| !at.value.is_empty());
    if let Some(at) = tenant.as_ref().filter(|at| !is_name(&at.value)) {
        reader.problem(&at.span, &join(path, "tenant"), "not a name for a tenant", Some(NAME_HELP.into()));
    }
    let mut metadata = BTreeMap::new();
    for entry in table.metadata.map(|at| at.value).unwrap_or_default() {
        let inner = join(&join(path, "metadata"), &entry.key.name);
        let Some(at) = entry.at else { continue };
        if metadata.len() >= MOST_ENTRIES || entry.key.name.len() > LONGEST || at.value.len() > LONGEST {
            let help = format!("write at most {MOST_ENTRIES} texts of at most {LONGEST} bytes");
            reader.problem(&at.span, &inner, "too much metadata", Some(help));
        }
        metadata.insert(entry.key.name, at.value);
    }
    let models = patterns(table.models, &join(path, "models"), reader);
    let routes = patterns(table.routes, &join(path, "routes"), reader);
    for (at, (route, span)) in routes.iter().enumerate() {
        if !dialects.iter().any(|dialect| fits(route, dialect)) {
            let names = || dialects.iter().copied();
            let help = did_you_mean(route, names()).unwrap_or_else(|| format!("write {}", list(names())));
            reader.problem(
                span,
                &format!("{path}.routes[{at}]"),
                format!("no dialect {}", quote(route, 64)),
                Some(help),
            );
        }
    }
    Some(Key {
        secret: secret.value,
        tenant: tenant.map(|at| at.value),
        metadata,
        expires: table.expires.map(|at| at.value),
        models: models.into_iter().map(|(text, _)| text).collect(),
        routes: routes.into_iter().map(|(text, _)| text).collect(),
        terms: terms(table.quota, table.budget),
    })
}

type Pattern = (String, std::ops::Range<usize>);

fn patterns(list: Option<At<Vec<At<String>>>>, path: &str, reader: &mut Reader<'_>) -> Vec<Pattern> {
    let Some(list) = list else { return Vec::new() };
    if list.value.is_empty() {
        let help = "leave the key out where all are allowed";
        reader.problem(&list.span, path, "an empty list would allow nothing", Some(help.into()));
    }
    if list.value.len() > MOST_ENTRIES || list.value.iter().any(|at| at.value.is_empty() || at.value.len() > LONGEST) {
        let help = format!("write at most {MOST_ENTRIES} texts of 1 to {LONGEST} bytes");
        reader.problem(&list.span, path, "too many entries, or one that is empty or too long", Some(help));
    }
    list.value.into_iter().map(|at| (at.value, at.span)).collect()
}

fn terms(quota: Option<At<QuotaTable>>, budget: Option<At<BudgetTable>>) -> Terms {
    let budget = budget.map(|at| at.value).unwrap_or_default();
    let nano = |at: Option<At<f64>>| at.map(|at| (at.value * NANO).round() as u64);
    Terms {
        quota: self::quota(quota.map(|at| at.value).unwrap_or_default()),
        budget: Budget { day: nano(budget.day), month: nano(budget.month), total: nano(budget.total) },
    }
}

fn quota(table: QuotaTable) -> Quota {
    let limit = |at: Option<At<u32>>| at.map(|at| at.value).filter(|limit| *limit > 0);
    Quota {
        requests_per_minute: limit(table.requests_per_minute),
        tokens_per_minute: limit(table.tokens_per_minute),
        concurrent_requests: limit(table.concurrent_requests),
    }
}

const NAME_HELP: &str = "write letters, digits, \"_\" and \"-\", at most 64";

/// Whether a text may be the name of a key or of a tenant.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn check_name<T>(entry: &Entry<T>, path: &str, what: &str, reader: &mut Reader<'_>) {
    if !is_name(&entry.key.name) {
        reader.problem(&entry.key.span, path, format!("not a name for {what}"), Some(NAME_HELP.into()));
    }
}

/// What cannot be in a header cannot be a key.
fn header_text(secret: &At<Secret>, path: &str, reader: &mut Reader<'_>) {
    crate::file::check_header_text(secret, path, "a key", reader);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_s_star_stands_for_any_text() {
        for (pattern, name, fit) in [
            ("*", "", true),
            ("fast", "fast", true),
            ("fast", "faster", false),
            ("openai/*", "openai/gpt-4o", true),
            ("openai/*", "openai", false),
            ("*/gpt-*-mini", "openai/gpt-4o-mini", true),
            ("*/gpt-*-mini", "openai/gpt-mini", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn a_price_is_found_by_every_name_of_a_model_and_no_other() {
        let access = Access::default();
        let sonnet = access.price("anthropic", "claude-sonnet-4-5").expect("listed");
        assert_eq!((sonnet.input, sonnet.cache_read, sonnet.output), (3_000_000, 300_000, 15_000_000));
        for name in [
            "claude-sonnet-4-5-20250929",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5-latest",
        ] {
            assert_eq!(access.price("p", name), Some(sonnet), "{name}");
        }
        assert_ne!(access.price("openai", "gpt-4o-2024-05-13"), access.price("openai", "gpt-4o"));
        assert_eq!(access.price("openai", "gpt-4o-2024-08-06"), access.price("openai", "gpt-4o"));
        for unknown in ["gpt-4o-realtime", "tiny", "", "gpt", "-20240806", "é-2024-08-0"] {
            assert_eq!(access.price("p", unknown), None, "{unknown}");
        }
        assert!(TABLE.len() > 100 && TABLE.values().all(|price| price.input > 0));
    }

    #[test]
    fn cached_and_reasoning_tokens_have_prices_of_their_own() {
        let price =
            Price { input: 3_000_000, output: 15_000_000, cache_read: 300_000, cache_write: 3_750_000, reasoning: 1 };
        let tokens = Tokens { input: 1_000, output: 100, cache_read: 600, cache_write: 300, reasoning: 50 };
        assert_eq!(price.cost(&tokens), (100 * 3_000 + 600 * 300 + 300 * 3_750 + 50 * 15_000) + 1);
        assert_eq!(Price { input: 1, ..Price::default() }.cost(&Tokens { input: 1, ..Tokens::default() }), 1);
        assert_eq!(price.cost(&Tokens { input: u64::MAX, ..Tokens::default() }), u64::MAX);
    }

    #[test]
    fn moments_are_read_with_their_offset() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2025-01-01T01:00:00+01:00", Some(1_735_689_600)),
            ("2025-01-01T00:00:00", None),
            ("2025-01-01", None),
            ("soon", None),
        ] {
            assert_eq!(moment(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
