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

/// A bell for each thing that somebody watches.
#[derive(Default)]
pub(crate) struct Bells(Mutex<HashMap<String, Arc<Bell>>>);

impl Bells {
    /// Somebody watches `id`, until the answer is dropped.
    pub fn watch(&self, id: &str) -> Watch<'_> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = Arc::clone(bells.entry(id.to_owned()).or_default());
        Watch { bells: self, id: id.to_owned(), bell }
    }

    /// `id` has changed.
    pub fn ring(&self, id: &str) {
        let bell = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
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
        // The map's and this one.
        if Arc::strong_count(&self.bell) <= 2 {
            bells.remove(&self.id);
        }
    }
}
