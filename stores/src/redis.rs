//! State in a Redis or Valkey server, shared by all gateways that reach it.
//!
//! Every call is one round trip, and what must be atomic is one script: the arithmetic of `witgate_gateway::state`, to the
//! last unit (a script's numbers are doubles: counts end at 2⁵³ − 1, and shares of a window are divided by hand). Times are
//! those of the calls, never the server's clock; the server's own expiry only frees memory, a minute later.
//!
//! All keys begin with `{PREFIX}`, braces included: a cluster keeps them on one node, where a script may touch several.
//!
//! | key | what |
//! |---|---|
//! | `{PREFIX}v:KEY` | a value: a hash of `v` (its bytes) and `e` (when it expires, in µs) |
//! | `{PREFIX}index` | a sorted set of all values' keys, by name: lists are read from it |
//! | `{PREFIX}ends` | a sorted set of the keys that expire, by when: each write removes some of those that have |
//! | `{PREFIX}c:METER@WINDOW` | a counter |
//! | `{PREFIX}p:METER` | a sorted set of ids that hold a place, by when it ends |
//! | `{PREFIX}r:ID` | a reservation: a hash of counters and how much of each, and of places |
//! | `{PREFIX}leases` | a sorted set of reservations, by when their lease ends: each take gives back those that have |
//! | `{PREFIX}s:ID` | a settlement that is remembered |
//!
//! A server that is down is not asked by every request: after three failures in a row calls fail at once, and only now and
//! then one is let through to see whether it is back. No call takes longer than [`RedisOptions::timeout`]. What a call that ran
//! out of time did at the server is unknown: it may have taken.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, ErrorKind, FromRedisValue, Pipeline, RedisError, Script};
use witgate_gateway::state::{
    Charge, Expect, MAX_CHARGES, MAX_KEY_BYTES, Once, Rule, State, StateError, Taken, Use, check_key, counter, room,
    sliding,
};

/// The largest count: what a double counts to without a gap.
const MAX_COUNT: u64 = (1 << 53) - 1;
/// The largest value, in bytes.
const MAX_VALUE: usize = 64 << 20;
/// The longest sliding window: what the scripts' division holds.
const MAX_WINDOW: Duration = Duration::from_millis(1 << 44);
/// How much longer than its use a key lives at the server, in milliseconds.
const GRACE_MS: u64 = 60_000;
/// The most leases that have ended that one take gives back.
const MAX_ENDED: usize = 256;
/// The most keys that one step of a list looks at.
const MAX_STEP: usize = 256;
/// After how many failures in a row calls fail at once, and for how long at first and at most.
const FAILURES: u32 = 3;
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(5);
/// The most calls that wait for an answer of the server.
const MAX_CALLS: usize = 4_096;

/// How the server is reached.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://…` for TLS. A secret: it is in no error.
    pub url: String,
    /// What every key begins with, in braces.
    pub prefix: String,
    /// The longest that a call takes.
    pub timeout: Duration,
}

/// State in a Redis or Valkey server.
pub struct Redis {
    client: Client,
    config: ConnectionManagerConfig,
    /// Made by the first call, which is within a runtime.
    connection: OnceLock<ConnectionManager>,
    prefix: String,
    /// The server, for messages: host and port.
    server: String,
    timeout: Duration,
    circuit: Circuit,
    scripts: Scripts,
}

struct Scripts {
    take: Script,
    settle: Script,
    set: Script,
    list: Script,
}

/// `ceil(count * part / whole)` for whole numbers below 2⁵³, `part` no more than `whole`, `whole` at most 2⁴⁴.
const SHARE: &str = r"
local function share(count, part, whole)
  local rest = math.fmod(count, whole)
  local sum = (count - rest) / whole * part
  local quotient, left, digit = 0, 0, 281474976710656
  while digit >= 1 do
    local step = left * 256 + rest * math.fmod(math.floor(part / digit), 256)
    left = math.fmod(step, whole)
    quotient = quotient * 256 + (step - left) / whole
    digit = digit / 256
  end
  if left > 0 then quotient = quotient + 1 end
  return sum + quotient
end
";

/// KEYS: the reservation, the leases; two for each charge: its counter and the one of the window before, or its places and
/// those again. ARGV: now in µs, the id, when the lease ends in µs, what every reservation's key begins with, the longest of
/// the times to live, how many leases that have ended are looked at; for each charge its kind, limit, amount, time to live in
/// ms, and for a window its length and what of the one before it still covers, in ms.
/// Gives 0 and, for each charge, the counts before; or its number from 1, and the two counts of it.
const TAKE: &str = r"
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[6])) do
  local held = redis.call('HGETALL', ARGV[4] .. id)
  for i = 1, #held, 2 do
    if held[i + 1] == 'p' then
      redis.call('ZREM', held[i], id)
    else
      local count = tonumber(redis.call('GET', held[i]) or '0')
      local back = math.min(count, tonumber(held[i + 1]))
      if back > 0 then redis.call('DECRBY', held[i], string.format('%.0f', back)) end
    end
  end
  redis.call('DEL', ARGV[4] .. id)
  redis.call('ZREM', KEYS[2], id)
end
local again = redis.call('EXISTS', KEYS[1]) == 1
local counts, all = {}, {0}
for i = 1, #KEYS / 2 - 1 do
  local at = i * 6
  local kind, limit, amount = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local running, before = 0, 0
  if kind == 'h' then
    redis.call('ZREMRANGEBYSCORE', KEYS[2 * i + 2], '-inf', ARGV[1])
    running = redis.call('ZCARD', KEYS[2 * i + 2])
  else
    running = tonumber(redis.call('GET', KEYS[2 * i + 1]) or '0')
  end
  if again then running = math.max(0, running - amount) end
  local used = running
  if kind == 's' then
    before = tonumber(redis.call('GET', KEYS[2 * i + 2]) or '0')
    used = running + share(before, tonumber(ARGV[at + 6]), tonumber(ARGV[at + 5]))
  end
  if used + amount > limit and not again then return {i, running, before} end
  counts[i] = running + amount
  all[2 * i], all[2 * i + 1] = running, before
end
if again then return all end
for i, count in ipairs(counts) do
  local at = i * 6
  local key, life = KEYS[2 * i + 1], tonumber(ARGV[at + 4])
  if ARGV[at + 1] == 'h' then
    redis.call('ZADD', key, ARGV[3], ARGV[2])
    if redis.call('PTTL', key) < life then redis.call('PEXPIRE', key, life) end
    redis.call('HSET', KEYS[1], key, 'p')
  else
    redis.call('SET', key, string.format('%.0f', count), 'PX', life)
    redis.call('HSET', KEYS[1], key, ARGV[at + 3])
  end
end
local life = tonumber(ARGV[5])
redis.call('PEXPIRE', KEYS[1], life)
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
if redis.call('PTTL', KEYS[2]) < life then redis.call('PEXPIRE', KEYS[2], life) end
return all
";

/// KEYS: the reservation, the leases, where it is remembered; one for each counter. ARGV: the id, the largest count, whether
/// it is made for the `f`irst time, `a`gain, or is to be `r`emembered, and for how long in ms; for each counter how much was
/// used, and the time to live in ms.
const SETTLE: &str = r"
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local held, all = {}, redis.call('HGETALL', KEYS[1])
if #all == 0 and ARGV[3] == 'a' then return 0 end
for i = 1, #all, 2 do
  if all[i + 1] == 'p' then redis.call('ZREM', all[i], ARGV[1]) else held[all[i]] = tonumber(all[i + 1]) end
end
for i = 4, #KEYS do
  local at = 4 + (i - 4) * 2
  local change = tonumber(ARGV[at + 1]) - (held[KEYS[i]] or 0)
  if change ~= 0 then
    local count = tonumber(redis.call('GET', KEYS[i]) or '0') + change
    count = math.max(0, math.min(count, tonumber(ARGV[2])))
    redis.call('SET', KEYS[i], string.format('%.0f', count), 'PX', ARGV[at + 2])
  end
end
if #all > 0 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
if ARGV[3] == 'r' then redis.call('SET', KEYS[3], '1', 'PX', ARGV[4]) end
return 1
";

/// KEYS: the value, the index, the ends. ARGV: now in µs, the key, what every value's key begins with, `a`nything,
/// a`b`sent or `i`s, what it is, whether to `s`et or `r`emove, the value, when it expires in µs or empty, time to live in ms.
const SET: &str = r"
local now = tonumber(ARGV[1])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 8)) do
  redis.call('DEL', ARGV[3] .. key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
end
local known = redis.call('HMGET', KEYS[1], 'v', 'e')
local value = known[1]
if value and known[2] and tonumber(known[2]) <= now then value = false end
if ARGV[4] == 'b' and value then return 0 end
if ARGV[4] == 'i' and value ~= ARGV[5] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[6] == 'r' then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
  return 1
end
redis.call('ZADD', KEYS[2], 0, ARGV[2])
if ARGV[8] == '' then
  redis.call('HSET', KEYS[1], 'v', ARGV[7])
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('HSET', KEYS[1], 'v', ARGV[7], 'e', ARGV[8])
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  redis.call('ZADD', KEYS[3], ARGV[8], ARGV[2])
end
return 1
";

/// KEYS: the index. ARGV: now in µs, what every value's key begins with, from, to, how many keys to look at.
/// Gives how many keys it looked at, the last of them, and the keys and values that have not expired.
const LIST: &str = r"
local found = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[3], ARGV[4], 'LIMIT', 0, ARGV[5])
local all = {#found, found[#found] or ''}
for _, key in ipairs(found) do
  local known = redis.call('HMGET', ARGV[2] .. key, 'v', 'e')
  if known[1] and (not known[2] or tonumber(known[2]) > tonumber(ARGV[1])) then
    all[#all + 1] = key
    all[#all + 1] = known[1]
  end
end
return all
";

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(MAX_COUNT)
}

/// An end, in microseconds, none of which is lost.
fn end_micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).min(MAX_COUNT)
}

/// How long the server keeps something that ends at `end`, in milliseconds.
fn life(now: Duration, end: Duration) -> u64 {
    // A century: more than that overflows the server's own arithmetic.
    u64::try_from(end.saturating_sub(now).as_millis()).unwrap_or(u64::MAX).min(3_155_760_000_000) + GRACE_MS
}

impl Redis {
    /// A store on a server, which is not asked yet. An error says what is wrong with the URL, and does not repeat it.
    pub fn new(options: &RedisOptions) -> Result<Self, StateError> {
        let (client, server) = address(&options.url)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(10))
            .set_concurrency_limit(MAX_CALLS);
        let script = |code: &str| Script::new(code);
        Ok(Redis {
            client,
            config,
            connection: OnceLock::new(),
            prefix: format!("{{{}}}", options.prefix),
            server,
            timeout: options.timeout,
            circuit: Circuit::default(),
            scripts: Scripts {
                take: script(&format!("{SHARE}{TAKE}")),
                settle: script(SETTLE),
                set: script(SET),
                list: script(LIST),
            },
        })
    }

    /// Asks the server whether it is there.
    pub async fn check(&self) -> Result<(), StateError> {
        let mut connection = self.connection()?;
        self.call(async { redis::cmd("PING").query_async::<String>(&mut connection).await }).await.map(drop)
    }

    fn connection(&self) -> Result<ConnectionManager, StateError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection.clone());
        }
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone());
        let made = made.map_err(|error| StateError(format!("{}: {}", self.server, describe(&error))))?;
        Ok(self.connection.get_or_init(|| made).clone())
    }

    /// Makes a call, unless the server is known to be down.
    async fn call<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, StateError> {
        let failed = |what: String| StateError(format!("{}: {what}", self.server));
        let ask = self.circuit.ask(Instant::now(), self.timeout).map_err(|why| failed(why.to_owned()))?;
        let done = tokio::time::timeout(self.timeout, call).await;
        let result = match done {
            Ok(Ok(value)) => Ok(value),
            // The server has answered: it is there.
            Ok(Err(error)) if is_answer(&error) => {
                ask.answered();
                return Err(failed(describe(&error)));
            }
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        match result {
            Ok(value) => {
                ask.answered();
                Ok(value)
            }
            Err(why) => {
                ask.failed(Instant::now());
                Err(failed(why))
            }
        }
    }

    async fn script<T: FromRedisValue>(&self, call: redis::ScriptInvocation<'_>) -> Result<T, StateError> {
        let mut connection = self.connection()?;
        self.call(async move { call.invoke_async(&mut connection).await }).await
    }

    fn value_key(&self, key: &str) -> String {
        format!("{}v:{key}", self.prefix)
    }

    /// The key of a meter at a moment, and the one of its window before where it has one.
    fn meter_keys(&self, key: &str, rule: Rule, now: Duration) -> (String, Option<String>) {
        let name = |at: Duration| format!("{}c:{}", self.prefix, counter(key, rule, at).0);
        match rule {
            Rule::Sliding(window) => {
                (name(now), now.checked_sub(Duration::from_millis(parts(window, now).0)).map(name))
            }
            Rule::Period(..) => (name(now), None),
            Rule::Held => (format!("{}p:{key}", self.prefix), None),
        }
    }

    fn reservation_key(&self, id: &str) -> String {
        format!("{}r:{id}", self.prefix)
    }

    fn leases_key(&self) -> String {
        format!("{}leases", self.prefix)
    }
}

/// A client for a URL, and the server for messages: host and port.
pub(crate) fn address(url: &str) -> Result<(Client, String), StateError> {
    let wrong = |what: &str| StateError(format!("the url {what}"));
    let client = Client::open(url)
        .map_err(|_| wrong("is none of a Redis server, as redis://host:6379/0 or rediss://user:password@host"))?;
    let server = match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
        ConnectionAddr::Unix(path) => path.display().to_string(),
        _ => return Err(wrong("is of a kind that is not supported")),
    };
    Ok((client, server))
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("server", &self.server).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RedisOptions { url: _, prefix, timeout } = self;
        f.debug_struct("RedisOptions").field("prefix", prefix).field("timeout", timeout).finish_non_exhaustive()
    }
}

/// Whether an error is what the server answered, rather than that it did not.
fn is_answer(error: &RedisError) -> bool {
    error.code().is_some() && !matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY"))
}

/// An error's kind and the server's code, and no more: a text may repeat a key or a value.
pub(crate) fn describe(error: &RedisError) -> String {
    match (error.code(), error.kind()) {
        (Some(code), _) => format!("it answers {code}"),
        (None, ErrorKind::AuthenticationFailed) => "it refuses the password".to_owned(),
        (None, ErrorKind::Io) if error.is_timeout() => "no answer in time".to_owned(),
        (None, ErrorKind::Io) => format!("cannot be reached: {error}"),
        (None, kind) => format!("{kind:?}"),
    }
}

/// The window's length and what of the one before still counts, in milliseconds.
fn parts(window: Duration, now: Duration) -> (u64, u64) {
    let whole = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1_000);
    let into = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) % whole;
    (whole, whole - into)
}

fn check_meter(key: &str, rule: Rule) -> Result<(), StateError> {
    check_key(key)?;
    match rule {
        Rule::Sliding(window) if window > MAX_WINDOW => {
            Err(StateError(format!("a window of {} s; the most is {}", window.as_secs(), MAX_WINDOW.as_secs())))
        }
        _ => Ok(()),
    }
}

impl State for Redis {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        if key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let mut connection = self.connection()?;
        let mut ask = redis::cmd("HMGET");
        ask.arg(self.value_key(key)).arg("v").arg("e");
        let (value, end): (Option<Vec<u8>>, Option<u64>) =
            self.call(async { ask.query_async(&mut connection).await }).await?;
        Ok(value.filter(|_| end.is_none_or(|end| end > micros(now))).map(Bytes::from))
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        check_key(key)?;
        if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
            return Err(StateError(format!("a value of {} bytes; the most is {MAX_VALUE}", value.len())));
        }
        let (kind, is): (_, &[u8]) = match expect {
            Expect::Anything => ("a", b""),
            Expect::Absent => ("b", b""),
            Expect::Is(bytes) => ("i", bytes),
        };
        let mut call = self.scripts.set.key(self.value_key(key));
        call.key(format!("{}index", self.prefix)).key(format!("{}ends", self.prefix));
        call.arg(micros(now)).arg(key).arg(self.value_key("")).arg(kind).arg(is);
        call.arg(if value.is_some() { "s" } else { "r" }).arg(value.as_deref().unwrap_or_default());
        call.arg(expires.map_or_else(String::new, |end| end_micros(end).to_string()));
        call.arg(expires.map_or(0, |end| life(now, end)));
        Ok(self.script::<u64>(call).await? == 1)
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        let mut from = match after {
            Some(after) if after >= prefix => format!("({after}"),
            _ => format!("[{prefix}"),
        };
        // No key has this byte, which is none of UTF-8: it stands behind every key of the prefix.
        let to = [b"(", prefix.as_bytes(), b"\xff"].concat();
        let mut all = Vec::new();
        while all.len() < limit {
            let step = (limit - all.len()).min(MAX_STEP);
            let mut call = self.scripts.list.key(format!("{}index", self.prefix));
            call.arg(micros(now)).arg(self.value_key("")).arg(&from).arg(&to).arg(step);
            let (looked, last, found): (usize, String, Vec<(String, Vec<u8>)>) = listed(self.script(call).await?)?;
            all.extend(found.into_iter().map(|(key, value)| (key, Bytes::from(value))));
            if looked < step {
                break;
            }
            from = format!("({last}");
        }
        Ok(all)
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        if charges.is_empty() {
            return Ok(Taken::All(Vec::new()));
        }
        if charges.len() > MAX_CHARGES {
            return Err(StateError(format!("{} charges at once; the most is {MAX_CHARGES}", charges.len())));
        }
        check_key(id)?;
        let ends = |charge: &Charge| match charge.rule {
            Rule::Held => lease,
            rule => counter(&charge.key, rule, now).1,
        };
        // As long as anything of it can be given back.
        let longest = charges.iter().map(ends).max().unwrap_or(lease).max(lease);
        let mut call = self.scripts.take.key(self.reservation_key(id));
        call.key(self.leases_key());
        call.arg(micros(now)).arg(id).arg(end_micros(lease)).arg(self.reservation_key("")).arg(life(now, longest));
        call.arg(MAX_ENDED);
        for charge in charges {
            let Charge { key, rule, limit, amount } = charge;
            check_meter(key, *rule)?;
            let (running, before) = self.meter_keys(key, *rule, now);
            // A sliding window from the first one on has none before: what nobody writes is empty.
            let before = before.unwrap_or_else(|| match rule {
                Rule::Sliding(_) => format!("{}none", self.prefix),
                Rule::Period(..) | Rule::Held => running.clone(),
            });
            call.key(running).key(before);
            let (kind, (first, second)) = match *rule {
                Rule::Sliding(window) => ("s", parts(window, now)),
                Rule::Period(..) => ("p", (0, 0)),
                Rule::Held => ("h", (0, 0)),
            };
            let amount = if kind == "h" { 1 } else { (*amount).min(MAX_COUNT + 1) };
            let life = life(now, ends(charge));
            call.arg(kind).arg((*limit).min(MAX_COUNT)).arg(amount).arg(life).arg(first).arg(second);
        }
        let numbers: Vec<u64> = self.script(call).await?;
        let strange = || StateError(format!("{}: an answer of another kind", self.server));
        let used = |charge: &Charge, running, before| match charge.rule {
            Rule::Sliding(window) => sliding(window, now, running, before),
            Rule::Period(..) | Rule::Held => running,
        };
        match numbers[..] {
            [0, ref counts @ ..] if counts.len() == 2 * charges.len() => {
                let each = charges.iter().zip(counts.chunks_exact(2));
                let all = each.map(|(charge, counts)| {
                    let amount = if let Rule::Held = charge.rule { 1 } else { charge.amount };
                    let [running, before] = counts[..] else { return Err(strange()) };
                    Ok(used(charge, running, before).saturating_add(amount))
                });
                all.collect::<Result<_, _>>().map(Taken::All)
            }
            [number, running, before] => {
                let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or_else(strange)?;
                let charge = charges.get(at).ok_or_else(strange)?;
                let after = match charge.rule {
                    Rule::Sliding(window) => room(window, now, running, before, charge.limit, charge.amount),
                    Rule::Period(_, end) if charge.amount <= charge.limit => Some(end.saturating_sub(now)),
                    Rule::Period(..) | Rule::Held => None,
                };
                Ok(Taken::Refused { charge: at, used: used(charge, running, before), after })
            }
            _ => Err(strange()),
        }
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        check_key(id)?;
        let mut call = self.scripts.settle.key(self.reservation_key(id));
        call.key(self.leases_key()).key(format!("{}s:{id}", self.prefix));
        let (kind, remembered) = match once {
            Once::First => ("f", 0),
            Once::Again => ("a", 0),
            Once::Until(until) => ("r", life(now, until)),
        };
        call.arg(id).arg(MAX_COUNT).arg(kind).arg(remembered);
        for Use { key, rule, amount } in uses {
            check_meter(key, *rule)?;
            let (_, end) = counter(key, *rule, taken);
            if end > now && *rule != Rule::Held {
                call.key(self.meter_keys(key, *rule, taken).0);
                call.arg((*amount).min(MAX_COUNT)).arg(life(now, end));
            }
        }
        self.script::<u64>(call).await.map(drop)
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        if meters.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::new();
        for (key, rule) in meters {
            let (running, before) = self.meter_keys(key, *rule, now);
            match rule {
                Rule::Held => ask.zcount(running, format!("({}", micros(now)), "+inf"),
                Rule::Sliding(_) => ask.mget(&[running, before.unwrap_or_else(|| format!("{}none", self.prefix))]),
                Rule::Period(..) => ask.mget(&[running]),
            };
        }
        let mut connection = self.connection()?;
        let answers: Vec<redis::Value> = self.call(async { ask.query_async(&mut connection).await }).await?;
        let strange = || StateError(format!("{}: an answer of another kind", self.server));
        if answers.len() != meters.len() {
            return Err(strange());
        }
        let each = meters.iter().zip(answers).map(|((_, rule), answer)| {
            if let Rule::Held = rule {
                return u64::from_redis_value(answer).map_err(|_| strange());
            }
            let counts = Vec::<Option<u64>>::from_redis_value(answer).map_err(|_| strange())?;
            let mut counts = counts.into_iter().map(Option::unwrap_or_default);
            let (running, before) = (counts.next().ok_or_else(strange)?, counts.next().unwrap_or_default());
            Ok(match rule {
                Rule::Sliding(window) => sliding(*window, now, running, before),
                Rule::Period(..) | Rule::Held => running,
            })
        });
        each.collect()
    }
}

/// A list's answer: how many keys were looked at, the last of them, and what was found.
#[allow(clippy::type_complexity, reason = "taken apart at once")]
fn listed(answer: Vec<redis::Value>) -> Result<(usize, String, Vec<(String, Vec<u8>)>), StateError> {
    let strange = |_| StateError("an answer of another kind".to_owned());
    let mut answer = answer.into_iter();
    let mut next = || answer.next().unwrap_or(redis::Value::Nil);
    let looked = usize::from_redis_value(next()).map_err(strange)?;
    let last = String::from_redis_value(next()).map_err(strange)?;
    let mut found = Vec::new();
    while let (Some(key), Some(value)) = (answer.next(), answer.next()) {
        let key = String::from_redis_value(key).map_err(strange)?;
        found.push((key, Vec::from_redis_value(value).map_err(strange)?));
    }
    Ok((looked, last, found))
}

/// Whether the server is asked.
#[derive(Default)]
struct Circuit(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    in_a_row: u32,
    /// Until when nobody asks.
    until: Option<Instant>,
}

/// One asking; dropped without an end, it says nothing of the server.
struct Ask<'a>(&'a Circuit);

impl Circuit {
    /// Lets a call through, or says why not. While the server is down, one in a while is: `patience` is how long it may take.
    fn ask(&self, now: Instant, patience: Duration) -> Result<Ask<'_>, &'static str> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.until {
            Some(until) if now < until => Err("it does not answer; it is asked again in a moment"),
            Some(_) => {
                failures.until = Some(now + patience);
                Ok(Ask(self))
            }
            None => Ok(Ask(self)),
        }
    }
}

impl Ask<'_> {
    fn answered(self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
    }

    fn failed(self, now: Instant) {
        let mut failures = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        if failures.in_a_row >= FAILURES {
            let rest = FIRST_REST * 2_u32.saturating_pow((failures.in_a_row - FAILURES).min(8));
            failures.until = Some(now + rest.min(LONGEST_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_is_asked_now_and_then_only() {
        let circuit = Circuit::default();
        let (start, patience) = (Instant::now(), Duration::from_secs(1));
        for _ in 0..FAILURES {
            circuit.ask(start, patience).unwrap_or_else(|why| panic!("{why}")).failed(start);
        }
        assert!(circuit.ask(start + FIRST_REST / 2, patience).is_err());
        // One is let through, and while it asks, no other.
        let later = start + FIRST_REST;
        let ask = circuit.ask(later, patience).unwrap_or_else(|why| panic!("{why}"));
        assert!(circuit.ask(later, patience).is_err());
        ask.failed(later);
        assert!(circuit.ask(later + FIRST_REST, patience).is_err(), "it rests longer");
        // One that was given up does not keep the others out for ever.
        let later = later + LONGEST_REST;
        assert!(circuit.ask(later, patience).is_ok());
        let ask = circuit.ask(later + patience, patience).unwrap_or_else(|why| panic!("{why}"));
        ask.answered();
        assert!(circuit.ask(later + patience, patience).is_ok());
        assert!(circuit.ask(later + patience, patience).is_ok());
    }

    #[test]
    fn no_url_is_shown() {
        let options =
            RedisOptions { url: "redis://:hunter2@h".into(), prefix: "witgate".into(), timeout: Duration::ZERO };
        assert!(!format!("{options:?}").contains("hunter2"));
        let wrong = RedisOptions { url: "http://:hunter2@h".into(), ..options };
        let error = Redis::new(&wrong).map(drop).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("redis://host") && !error.contains("hunter2")));
    }
}
