//! Sleeping on WASI's monotonic clock.
//!
//! A deadline that moves with each token would start and cancel a call to the runtime for every piece of an answer. All
//! sleeps of one request share one such call instead: when it comes back too early, since the deadline has moved, it is
//! made again.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::bindings::wasi::clocks::monotonic_clock;

/// Time since a fixed moment.
pub fn now() -> Duration {
    Duration::from_nanos(monotonic_clock::now())
}

/// The sleeps of one request.
#[derive(Clone, Default)]
pub struct Timer(Rc<RefCell<Option<Wait>>>);

/// A call to the runtime's clock that is under way.
struct Wait {
    until: Duration,
    call: Pin<Box<dyn Future<Output = ()>>>,
    sleepers: Arc<Sleepers>,
}

/// Those who wait for the call. Each is woken when it has come back, and looks at the clock for itself: so none depends on
/// another one that may be gone by then.
#[derive(Default)]
struct Sleepers(Mutex<Vec<Waker>>);

impl Wake for Sleepers {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Timer {
    /// Completes at `deadline`.
    pub async fn sleep_until(&self, deadline: Duration) {
        std::future::poll_fn(|cx| self.poll(cx, deadline)).await;
    }

    fn poll(&self, cx: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        if now() >= deadline {
            return Poll::Ready(());
        }
        let mut slot = self.0.borrow_mut();
        loop {
            let wait = match &mut *slot {
                Some(wait) if wait.until <= deadline => wait,
                // None, or one that would come too late. Its sleepers are woken, to find this one.
                other => {
                    if let Some(late) = other.take() {
                        late.sleepers.wake();
                    }
                    other.insert(Wait {
                        until: deadline,
                        call: Box::pin(wait_until(deadline)),
                        sleepers: Arc::default(),
                    })
                }
            };
            {
                let mut sleepers = wait.sleepers.0.lock().unwrap_or_else(PoisonError::into_inner);
                if !sleepers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    sleepers.push(cx.waker().clone());
                }
            }
            let waker = Waker::from(Arc::clone(&wait.sleepers));
            if wait.call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                return Poll::Pending;
            }
            if let Some(wait) = slot.take() {
                wait.sleepers.wake();
            }
            if now() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

async fn wait_until(deadline: Duration) {
    monotonic_clock::wait_until(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX)).await;
}
