//! A state store whose process can be killed at any of its operations.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use witgate_gateway::state::{Charge, Expect, Once, Rule, State, StateError, Taken, Use};

/// A store that outlives the processes that use it.
#[derive(Default)]
pub struct SimStore {
    pub(super) inner: super::Store,
    operations: Cell<u64>,
    /// At which operation the process dies, and whether that is done all the same.
    kill: Cell<Option<(u64, bool)>>,
    dead: Cell<bool>,
    /// From here on as many operations fail.
    failing: Cell<u64>,
    /// The operation that is done, but seems to fail.
    losing: Cell<Option<u64>>,
    /// Writes of keys that begin so take so long.
    slow: RefCell<Option<(String, Duration)>>,
    /// Keys of which the first writes find somebody else writing, whom nobody sees: how they begin, and how many writes.
    blocked: RefCell<Option<(String, u64)>>,
    /// Writes of keys that begin so fail.
    refused: RefCell<Option<String>>,
    /// From the write of a key that begins so on, of a value that has this in it, such writes fail; this one is done.
    cut: RefCell<Option<(String, &'static str)>>,
    /// The last operation that there may be.
    last: Cell<Option<u64>>,
    mourner: RefCell<Option<Waker>>,
}

impl SimStore {
    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.operations.get()
    }

    /// The process dies at the operation after `more` others; `done`: the operation is done, but its end is not seen.
    pub fn kill_after(&self, more: u64, done: bool) {
        self.kill.set(Some((self.operations.get() + more + 1, done)));
    }

    /// The next operations fail.
    pub fn fail(&self, count: u64) {
        self.failing.set(count);
    }

    /// The operation after `more` others is done, but seems to fail.
    pub fn lose(&self, more: u64) {
        self.losing.set(Some(self.operations.get() + more + 1));
    }

    /// As many writes of absent keys that begin so find that somebody else is about to write.
    pub fn block(&self, prefix: &str, count: u64) {
        *self.blocked.borrow_mut() = Some((prefix.to_owned(), count));
    }

    /// From now on writes of keys that begin so take so long.
    pub fn delay(&self, prefix: &str, time: Duration) {
        *self.slow.borrow_mut() = Some((prefix.to_owned(), time));
    }

    /// More operations than so many from now on are a loop that does not end.
    pub fn at_most(&self, more: u64) {
        self.last.set(Some(self.operations.get() + more));
    }

    /// From now on writes of keys that begin so fail; all other operations are done.
    pub fn refuse(&self, prefix: Option<&str>) {
        *self.refused.borrow_mut() = prefix.map(str::to_owned);
    }

    /// Writes of keys that begin so are refused from the first one on whose value has `part` in it; that one is done, and seems
    /// to fail.
    pub fn refuse_from(&self, prefix: &str, part: &'static str) {
        *self.cut.borrow_mut() = Some((prefix.to_owned(), part));
    }

    fn is_refused(&self, key: &str) -> bool {
        self.refused.borrow().as_ref().is_some_and(|prefix| key.starts_with(prefix.as_str()))
    }

    /// Whether it is the write at which refusing begins.
    fn is_cut(&self, key: &str, value: Option<&Bytes>) -> bool {
        let mut cut = self.cut.borrow_mut();
        let holds =
            |part: &str| value.is_some_and(|value| value.windows(part.len()).any(|window| window == part.as_bytes()));
        match cut.take_if(|(prefix, part)| key.starts_with(prefix.as_str()) && holds(part)) {
            Some((prefix, _)) => {
                self.refuse(Some(&prefix));
                true
            }
            None => false,
        }
    }

    async fn delayed(&self, key: &str) {
        let slow = self.slow.borrow().clone().filter(|(prefix, _)| key.starts_with(prefix.as_str()));
        let clock = self.inner.clock.borrow().as_ref().and_then(std::rc::Weak::upgrade);
        if let (Some((_, time)), Some(clock)) = (slow, clock) {
            clock.sleep_until(clock.now.get() + time).await;
        }
    }

    fn is_blocked(&self, key: &str, expect: Expect<'_>) -> bool {
        match self.blocked.borrow_mut().as_mut() {
            Some((prefix, left)) if *left > 0 && expect == Expect::Absent && key.starts_with(prefix.as_str()) => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// A new process.
    pub fn revive(&self) {
        self.dead.set(false);
        self.kill.set(None);
    }

    /// Completes when the process is dead.
    pub fn died(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|cx| {
            if self.dead.get() {
                return Poll::Ready(());
            }
            *self.mourner.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    async fn at<T>(&self, work: impl Future<Output = Result<T, StateError>>) -> Result<T, StateError> {
        // Others get their turn before each operation, where somebody may die.
        let mut first = self.kill.get().is_some();
        std::future::poll_fn(|cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let number = self.operations.get() + 1;
        let dies = match self.kill.get() {
            _ if self.dead.get() => Some(false),
            Some((at, done)) if at == number => Some(done),
            _ => None,
        };
        if dies == Some(false) {
            self.die().await;
        }
        self.operations.set(number);
        assert!(self.last.get().is_none_or(|last| number <= last), "the store is asked again and again");
        if self.failing.get() > 0 {
            self.failing.set(self.failing.get() - 1);
            return Err(StateError("not to be reached".to_owned()));
        }
        let done = work.await;
        if dies == Some(true) {
            self.die().await;
        }
        if self.losing.get() == Some(number) {
            return Err(StateError("no answer".to_owned()));
        }
        done
    }

    async fn die(&self) {
        self.dead.set(true);
        if let Some(mourner) = self.mourner.borrow_mut().take() {
            mourner.wake();
        }
        std::future::pending::<()>().await;
    }
}

impl State for SimStore {
    async fn get(&self, now: Duration, key: &str) -> Result<Option<Bytes>, StateError> {
        self.at(self.inner.get(now, key)).await
    }

    async fn set(
        &self,
        now: Duration,
        key: &str,
        value: Option<Bytes>,
        expires: Option<Duration>,
        expect: Expect<'_>,
    ) -> Result<bool, StateError> {
        assert!(value.as_ref().is_none_or(|value| value.len() <= 512 * 1024), "{key}: values are small");
        self.delayed(key).await;
        if self.is_blocked(key, expect) {
            return self.at(async { Ok(false) }).await;
        }
        if self.is_refused(key) {
            return self.at(async { Err(StateError("takes nothing".to_owned())) }).await;
        }
        let is_cut = self.is_cut(key, value.as_ref());
        let done = self.at(self.inner.set(now, key, value, expires, expect)).await;
        if is_cut { Err(StateError("no answer".to_owned())) } else { done }
    }

    async fn list(
        &self,
        now: Duration,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StateError> {
        self.at(self.inner.list(now, prefix, after, limit)).await
    }

    async fn take(&self, now: Duration, id: &str, lease: Duration, charges: &[Charge]) -> Result<Taken, StateError> {
        self.at(self.inner.take(now, id, lease, charges)).await
    }

    async fn settle(
        &self,
        now: Duration,
        id: &str,
        taken: Duration,
        uses: &[Use],
        once: Once,
    ) -> Result<(), StateError> {
        self.at(self.inner.settle(now, id, taken, uses, once)).await
    }

    async fn used(&self, now: Duration, meters: &[(Arc<str>, Rule)]) -> Result<Vec<u64>, StateError> {
        self.at(self.inner.used(now, meters)).await
    }
}
