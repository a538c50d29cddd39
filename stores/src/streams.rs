//! A stream of a Redis or Valkey server (6.2 or later) as a queue of requests.
//!
//! Each process is a consumer of one group. An entry is `XREADGROUP`'s to give, and then its consumer's, for as long as
//! that says so: who works on one sets its idle time back, and what has been idle for `visibility` any other one takes
//! (`XAUTOCLAIM`). Each change of an entry looks first whose it is, in one script with the change: who was stalled takes
//! nothing away from the one that came after.
//!
//! An answer is added to its stream in the script that acknowledges the entry, and only if the entry was still to be
//! acknowledged: there is one answer, whoever dies and whenever. In a cluster both streams must have one hash tag.
//!
//! The content of an entry is its field `body`. An entry that is done is removed from the stream, unless it is to stay for
//! other groups. A consumer that leaves gives back what it had and is removed; those that were killed are removed when they
//! have had nothing for a day.
//!
//! Reads wait for entries on a connection of their own: a server answers the calls of one connection in their order.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, RedisError, Script, ToRedisArgs, Value};
use witgate_gateway::state::StateError;
use witgate_gateway::{Broker, BrokerError, Message, Parcel};

use crate::redis::{address, describe};

/// The longest that a read waits for entries: what others have left is looked for in between.
const BLOCK: Duration = Duration::from_secs(1);
/// How long nobody had anything of a consumer that is removed.
const GONE: Duration = Duration::from_secs(86_400);

/// Entries: id, how often given, whether there is a body, the body.
type Left = Vec<(String, u32, u8, Vec<u8>)>;

/// How the stream is reached.
#[derive(Clone)]
pub struct StreamOptions {
    /// As of the store's. A secret: it is in no error.
    pub url: String,
    /// The stream's key.
    pub stream: String,
    /// The group's name.
    pub group: String,
    /// This process's name in the group: no other one's.
    pub consumer: String,
    /// How long an entry is its consumer's unless that says again that it is.
    pub visibility: Duration,
    /// The longest that a read waits for entries, at most a second.
    pub wait: Duration,
    /// The longest that a call takes.
    pub timeout: Duration,
    /// Entries stay in the stream when they are done.
    pub keep: bool,
}

/// A stream as a queue.
pub struct Streams {
    options: StreamOptions,
    client: Client,
    server: String,
    /// For reads that wait, and for all else.
    reads: OnceLock<ConnectionManager>,
    calls: OnceLock<ConnectionManager>,
    /// The group is there, and consumers that are gone were removed.
    ready: OnceLock<()>,
    /// Where entries that were left are looked for next.
    cursor: Mutex<String>,
    scripts: Scripts,
}

struct Scripts {
    claim: Script,
    hold: Script,
    done: Script,
    sweep: Script,
}

/// KEYS: the stream. ARGV: group, consumer, visibility in ms, how many, where to look from. Gives where to look from the
/// next time, and of each entry that was left: id, how often it
/// was given, whether it has a body, and that.
const CLAIM: &str = r"
local all = {}
local found = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[5], 'COUNT', ARGV[4])
for _, entry in ipairs(found[2]) do
  if entry and entry[2] then
    local known = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    local body, has = '', 0
    for at = 1, #entry[2], 2 do
      if entry[2][at] == 'body' then body, has = entry[2][at + 1], 1 end
    end
    all[#all + 1] = {entry[1], known[1] and known[1][4] or 1, has, body}
  end
end
return {found[1], all}
";

/// KEYS: the stream. ARGV: group, consumer, id, idle time to have from now on in ms. Gives whether the entry is that consumer's.
const HOLD: &str = r"
local known = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if not known[1] or known[1][2] ~= ARGV[2] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[4], 'JUSTID')
return 1
";

/// KEYS: the stream, and where the answer goes or the stream again. ARGV: group, id, whether it stays, and the fields of the
/// answer. Gives whether it was to be acknowledged. What it has done stays when a later step fails: so the answer comes first.
const DONE: &str = r"
local known = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if known.err then
  if string.find(known.err, 'NOGROUP') then return 0 end
  return known
end
if not known[1] then return 0 end
if #ARGV > 3 then redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4)) end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if ARGV[3] == '0' then redis.call('XDEL', KEYS[1], ARGV[2]) end
return 1
";

/// KEYS: the stream. ARGV: group, this consumer, visibility in ms, ms after which a consumer without entries is gone; and
/// whether this one leaves: then what it has is free at once.
const SWEEP: &str = r"
if ARGV[5] == '1' then
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])) do
    redis.call('XCLAIM', KEYS[1], ARGV[1], 'left', 0, entry[1], 'IDLE', ARGV[3], 'JUSTID')
  end
end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for at = 1, #consumer, 2 do of[consumer[at]] = consumer[at + 1] end
  local leaves = ARGV[5] == '1' and of['name'] == ARGV[2]
  if of['pending'] == 0 and (leaves or of['idle'] > tonumber(ARGV[4])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of['name'])
  end
end
return 1
";

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Streams {
    /// A queue on a server, which is not asked yet. An error says what is wrong with the URL, and does not repeat it.
    pub fn new(options: StreamOptions) -> Result<Self, StateError> {
        let (client, server) = address(&options.url)?;
        let scripts = Scripts {
            claim: Script::new(CLAIM),
            hold: Script::new(HOLD),
            done: Script::new(DONE),
            sweep: Script::new(SWEEP),
        };
        let (reads, calls, ready) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let cursor = Mutex::new("0-0".to_owned());
        Ok(Streams { options, client, server, reads, calls, ready, cursor, scripts })
    }

    fn failed(&self, what: &str) -> BrokerError {
        BrokerError(format!("{}: {what}", self.server))
    }

    fn connection(&self, of: &OnceLock<ConnectionManager>, more: Duration) -> Result<ConnectionManager, BrokerError> {
        if let Some(connection) = of.get() {
            return Ok(connection.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.options.timeout))
            .set_response_timeout(Some(self.options.timeout + more))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(10));
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), config);
        let made = made.map_err(|error| self.failed(&describe(&error)))?;
        Ok(of.get_or_init(|| made).clone())
    }

    /// Makes a call within its time.
    async fn within<T>(
        &self,
        more: Duration,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<Result<T, RedisError>, BrokerError> {
        let limit = self.options.timeout + more;
        let late = |_| self.failed(&format!("no answer within {} ms", limit.as_millis()));
        tokio::time::timeout(limit, call).await.map_err(late)
    }

    async fn script<T: FromRedisValue>(&self, call: redis::ScriptInvocation<'_>) -> Result<T, BrokerError> {
        let mut connection = self.connection(&self.calls, Duration::ZERO)?;
        let done = self.within(Duration::ZERO, async move { call.invoke_async(&mut connection).await }).await?;
        done.map_err(|error| self.failed(&describe(&error)))
    }

    /// Makes the group where there is none, which begins with what the stream holds, and removes consumers that are gone.
    async fn prepare(&self) -> Result<(), BrokerError> {
        let StreamOptions { stream, group, .. } = &self.options;
        let mut connection = self.connection(&self.calls, Duration::ZERO)?;
        let mut make = redis::cmd("XGROUP");
        make.arg("CREATE").arg(stream).arg(group).arg("0").arg("MKSTREAM");
        let made = self.within(Duration::ZERO, async { make.query_async::<String>(&mut connection).await }).await?;
        match made {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(self.failed(&describe(&error))),
            _ => self.sweep(false).await,
        }
    }

    async fn sweep(&self, leaves: bool) -> Result<(), BrokerError> {
        let StreamOptions { stream, group, consumer, visibility, .. } = &self.options;
        let mut call = self.scripts.sweep.key(stream);
        call.arg(group).arg(consumer).arg(millis(*visibility)).arg(millis(GONE)).arg(u8::from(leaves));
        self.script::<u64>(call).await.map(drop)
    }

    /// Entries that others have left.
    async fn claim(&self, most: usize) -> Result<Vec<Message>, BrokerError> {
        let StreamOptions { stream, group, consumer, visibility, .. } = &self.options;
        let mut call = self.scripts.claim.key(stream);
        // A call looks at some of what all consumers have: the next one goes on where it ended.
        let from = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        call.arg(group).arg(consumer).arg(millis(*visibility)).arg(most).arg(from);
        let (next, left): (String, Left) = self.script(call).await?;
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(left
            .into_iter()
            .map(|(id, receives, has, body)| message(id, (has == 1).then_some(body), receives))
            .collect())
    }

    /// Entries that nobody has had.
    async fn read(&self, most: usize) -> Result<Vec<Message>, BrokerError> {
        let StreamOptions { stream, group, consumer, .. } = &self.options;
        let wait = self.options.wait.min(BLOCK);
        let mut connection = self.connection(&self.reads, wait)?;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(group).arg(consumer).arg("COUNT").arg(most);
        // Zero would be for ever.
        if !wait.is_zero() {
            read.arg("BLOCK").arg(millis(wait).max(1));
        }
        read.arg("STREAMS").arg(stream).arg(">");
        let answer = self.within(wait, async { read.query_async::<Value>(&mut connection).await }).await?;
        let answer = answer.map_err(|error| self.failed(&describe(&error)))?;
        type Entries = Vec<(String, Option<Vec<(Vec<u8>, Vec<u8>)>>)>;
        let strange = |_| self.failed("an answer of another kind");
        let of: Option<Vec<(String, Value)>> = FromRedisValue::from_redis_value(answer).map_err(strange)?;
        let mut all = Vec::new();
        for (_, entries) in of.unwrap_or_default() {
            for (id, fields) in Entries::from_redis_value(entries).map_err(strange)? {
                let body = fields.unwrap_or_default().into_iter().find(|(name, _)| name == b"body");
                all.push(message(id, body.map(|(_, body)| body), 1));
            }
        }
        Ok(all)
    }

    /// Sets how long an entry of ours has been idle; false where it is not ours.
    async fn hold(&self, message: &Message, idle: Duration) -> Result<bool, BrokerError> {
        let StreamOptions { stream, group, consumer, .. } = &self.options;
        let mut call = self.scripts.hold.key(stream);
        call.arg(group).arg(consumer).arg(&message.receipt).arg(millis(idle));
        Ok(self.script::<u64>(call).await? == 1)
    }

    async fn finish(&self, message: &Message, parcel: Option<&Parcel>) -> Result<(), BrokerError> {
        let StreamOptions { stream, group, keep, .. } = &self.options;
        let mut call = self.scripts.done.key(stream);
        call.key(parcel.map_or(stream, |parcel| &parcel.to));
        call.arg(group).arg(&message.receipt).arg(u8::from(*keep));
        if let Some(parcel) = parcel {
            for (name, value) in &parcel.attributes {
                call.arg(*name).arg(value);
            }
            call.arg("body").arg(Raw(&parcel.body));
        }
        self.script::<u64>(call).await.map(drop)
    }
}

/// Bytes as they are.
struct Raw<'a>(&'a [u8]);

impl ToRedisArgs for Raw<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.0);
    }
}

fn message(id: String, body: Option<Vec<u8>>, receives: u32) -> Message {
    let body = body.map(Bytes::from).ok_or_else(|| "the entry has no field `body`".to_owned());
    Message { receipt: id.clone(), id, body, receives, group: None }
}

impl Broker for Streams {
    const AT_ONCE: bool = true;
    const SHORT: bool = true;

    async fn receive(&self, most: usize) -> Result<Vec<Message>, BrokerError> {
        if self.ready.get().is_none() {
            self.prepare().await?;
            let _ = self.ready.set(());
        }
        let received = async {
            let left = self.claim(most).await?;
            if left.is_empty() { self.read(most).await } else { Ok(left) }
        };
        let received = received.await;
        if received.is_err() {
            // The stream may have been removed: the group is made anew, and the next call finds it.
            let _ = self.prepare().await;
        }
        received
    }

    async fn extend(&self, message: &Message) -> Result<bool, BrokerError> {
        self.hold(message, Duration::ZERO).await
    }

    fn takes(&self, _: &[u8]) -> bool {
        true
    }

    async fn send(&self, message: &Message, parcel: &Parcel) -> Result<(), BrokerError> {
        self.finish(message, Some(parcel)).await
    }

    async fn done(&self, message: &Message) -> Result<(), BrokerError> {
        self.finish(message, None).await
    }

    async fn give_back(&self, message: &Message, pause: Duration) -> Result<(), BrokerError> {
        self.hold(message, self.options.visibility.saturating_sub(pause)).await.map(drop)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.sweep(true).await
    }
}

impl std::fmt::Debug for StreamOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StreamOptions { stream, group, consumer, .. } = self;
        let mut f = f.debug_struct("StreamOptions");
        f.field("stream", stream).field("group", group).field("consumer", consumer).finish_non_exhaustive()
    }
}
