//! Wake-ups within one process. Other processes are found out by looking, now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Wakes all that wait for it.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicU64,
    ears: Mutex<Vec<Waker>>,
}

impl Bell {
    /// How often it has been rung.
    pub fn rung(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        let ears = std::mem::take(&mut *self.ears.lock().unwrap_or_else(PoisonError::into_inner));
        ears.into_iter().for_each(Waker::wake);
    }

    /// Completes when it has been rung more often than `heard` times.
    pub async fn after(&self, heard: u64) {
        std::future::poll_fn(|cx| {
            if self.rung() != heard {
                return Poll::Ready(());
            }
            let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
            if !ears.iter().any(|ear| ear.will_wake(cx.waker())) {
                ears.push(cx.waker().clone());
            }
            drop(ears);
            // It may have been rung in between.
            if self.rung() != heard { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A bell for each thing that somebody watches, and how many do.
#[derive(Default)]
pub(crate) struct Bells(Mutex<HashMap<String, (usize, Arc<Bell>)>>);

impl Bells {
    /// Somebody watches `id`, until the answer is dropped.
    pub fn watch(&self, id: &str) -> Watch<'_> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (watches, bell) = bells.entry(id.to_owned()).or_default();
        *watches += 1;
        Watch { bells: self, id: id.to_owned(), bell: Arc::clone(bell) }
    }

    /// `id` has changed.
    pub fn ring(&self, id: &str) {
        // Whoever wakes may end its watch at once: the map is free by then.
        let bell = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).map(|(_, bell)| Arc::clone(bell));
        if let Some(bell) = bell {
            bell.ring();
        }
    }
}

/// See [`Bells::watch`].
pub(crate) struct Watch<'b> {
    bells: &'b Bells,
    id: String,
    pub bell: Arc<Bell>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut bells = self.bells.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((watches, _)) = bells.get_mut(&self.id) else { return };
        *watches -= 1;
        if *watches == 0 {
            bells.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::LazyLock;
    use std::task::{Context, Wake};

    static BELLS: LazyLock<Bells> = LazyLock::new(Bells::default);

    /// Ends its watch when it is woken.
    struct Leaving(Mutex<Option<Watch<'static>>>);

    impl Wake for Leaving {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }

    #[test]
    fn who_ends_a_watch_while_its_bell_is_rung_leaves_nothing() {
        let (one, two) = (BELLS.watch("job"), BELLS.watch("job"));
        let bell = Arc::clone(&one.bell);
        let waker = Waker::from(Arc::new(Leaving(Mutex::new(Some(one)))));
        let after = pin!(bell.after(0));
        assert!(after.poll(&mut Context::from_waker(&waker)).is_pending());
        BELLS.ring("job");
        assert_eq!((bell.rung(), BELLS.0.lock().unwrap().len()), (1, 1), "the other one still watches");
        drop(two);
        assert_eq!(BELLS.0.lock().unwrap().len(), 0);
    }
}
