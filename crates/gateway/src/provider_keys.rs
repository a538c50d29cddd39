//! The keys of a provider: whose turn it is, and which one rests.
//!
//! Keys take turns. One that is refused (401, 402, 403) rests, twice as long each time, up to ten minutes; one of several
//! that is throttled (429) rests as long as the backend says. What is wrong with a key is nothing that its endpoint does:
//! that does not rest. (A provider without a key has nothing of the kind: AWS says 403 where a region does not have the
//! model, and then that region rests.) Where all keys rest, the one that rests shortest is used all the same, but a model's other targets
//! are asked first. A key is named by its place in the configuration, from 1, never by itself. When the configuration is
//! read anew, a key that stays rests on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use witgate_config::{Health as Rules, Provider, Secret};
use witgate_model::{ErrorKind, Retry};

use crate::failure::Failed;
use crate::pool::Tried;

/// The longest rest.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// Whether a failure is the key's, and not its endpoint's.
pub(crate) fn is_of_key(provider: &Provider, failed: &Failed) -> bool {
    failed.provider.is_some()
        && match failed.error.kind {
            ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::QuotaExhausted => {
                provider.secrets.contains_key("api_key")
            }
            ErrorKind::RateLimited => provider.api_keys.len() > 1,
            _ => false,
        }
}

/// A provider's keys as all requests share them. One without a key, or with credentials of another kind, has one.
#[derive(Debug)]
pub(crate) struct Keys {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cursor: usize,
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Default)]
struct Key {
    /// SHA-256 of the secret; none where the provider has no list of them.
    digest: Option<[u8; 32]>,
    /// It rests until then.
    until: Duration,
    /// How often it was refused since it last served.
    refusals: u32,
}

impl Keys {
    pub fn new(provider: &Provider) -> Self {
        let one = provider.secrets.get("api_key").filter(|_| provider.api_keys.is_empty());
        let of = |secret: &Secret| Key { digest: Some(secret.digest()), ..Key::default() };
        let mut keys: Vec<_> = provider.api_keys.iter().chain(one).map(of).collect();
        keys.resize(keys.len().max(1), Key::default());
        Keys { rules: provider.health, state: Mutex::new(State { cursor: 0, keys }) }
    }

    /// The keys that take these ones' place when `provider` is configured anew.
    pub fn successor(&self, provider: &Provider) -> Self {
        let next = Keys::new(provider);
        let before = self.state().keys.clone();
        for key in &mut next.state().keys {
            if let Some(known) = before.iter().find(|known| known.digest.is_some() && known.digest == key.digest) {
                key.clone_from(known);
            }
        }
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some key does not rest.
    pub fn is_fit(&self, now: Duration) -> bool {
        self.state().keys.iter().any(|key| key.until <= now)
    }

    /// The key whose turn it is. Where a request has tried some already, one that does not rest, or none.
    pub fn next(&self, now: Duration, tried: &Tried) -> Option<usize> {
        let mut state = self.state();
        let State { cursor, keys } = &mut *state;
        let count = keys.len();
        let at = match (0..count)
            .map(|step| (*cursor + step) % count)
            .find(|at| !tried.has(*at) && keys.get(*at).is_some_and(|key| key.until <= now))
        {
            None if tried.is_empty() => (0..count).min_by_key(|at| keys.get(*at).map(|key| key.until)),
            found => found,
        }?;
        *cursor = (at + 1) % count;
        Some(at)
    }

    /// One for a question beside the requests.
    pub fn peek(&self, now: Duration) -> usize {
        self.state().keys.iter().position(|key| key.until <= now).unwrap_or(0)
    }

    /// It has served.
    pub fn served(&self, at: usize) {
        if let Some(key) = self.state().keys.get_mut(at).filter(|key| key.refusals > 0) {
            (key.until, key.refusals) = (Duration::ZERO, 0);
        }
    }

    /// What a failure that is the key's tells of it: how long it rests.
    pub fn tell(&self, at: usize, now: Duration, failed: &Failed) -> Option<Duration> {
        let mut state = self.state();
        let key = state.keys.get_mut(at)?;
        let rest = match (&failed.error.kind, &failed.error.retry) {
            (ErrorKind::RateLimited, Retry::SameTarget(Some(wait))) => Duration::from_millis(*wait),
            (ErrorKind::RateLimited, _) => self.rules.rest,
            _ => {
                key.refusals = key.refusals.saturating_add(1);
                self.rules.rest.saturating_mul(1 << (key.refusals - 1).min(16))
            }
        };
        let rest = if self.rules.rest.is_zero() { Duration::ZERO } else { rest.min(LONGEST) };
        key.until = key.until.max(now + rest);
        Some(rest)
    }
}
