//! What is kept of an answer that is complete: the documents that its dialect wants, and the answer itself for the cache.
//!
//! The client has all of the answer by then, and may leave. What is not written when it does, is written after it.

use std::sync::Arc;
use std::time::Duration;

use witgate_model::normaliser::Document;

use crate::bill::Work;
use crate::cache::Fresh;
use crate::documents;
use crate::gateway::{Gateway, Place};
use crate::path::before;
use crate::ports::Ports;
use crate::record::Warning;

/// The longest that writing takes.
const LONGEST: Duration = Duration::from_secs(30);

/// What is to be kept.
pub(crate) struct Keep {
    pub gateway: Arc<Gateway>,
    pub request_id: String,
    pub documents: Vec<Document>,
    /// The answer, for the cache.
    pub fresh: Option<Fresh>,
    /// The request's place among the concurrent ones, until all is written.
    pub _place: Option<Place>,
}

impl Keep {
    /// Writes what of it is not written yet.
    pub async fn write<P: Ports>(&mut self, ports: &P) {
        let deadline = ports.now() + LONGEST;
        if before(ports, deadline, self.try_write(ports)).await.is_none() {
            let why = format!("what is to be kept was not written within {} s", LONGEST.as_secs());
            ports.warn(&Warning::Store { request_id: &self.request_id, why: &why });
        }
        self.documents.clear();
        if let Some(fresh) = self.fresh.take() {
            fresh.give();
        }
    }

    async fn try_write<P: Ports>(&mut self, ports: &P) {
        while let Some(document) = self.documents.first() {
            // The answer is good all the same; who asks for the document later is told that it is not there.
            if let Err(why) = documents::keep(&self.gateway, ports, document.clone()).await {
                ports.warn(&Warning::Store { request_id: &self.request_id, why: &why });
            }
            self.documents.remove(0);
        }
        if let Some(fresh) = &self.fresh {
            self.gateway.cache.put(ports, &self.request_id, fresh).await;
        }
    }
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// Writing it while the client waits. Dropped before its end, it is ended after the request.
pub(crate) struct Keeping<P: Ports> {
    ports: Arc<P>,
    keep: Option<Keep>,
}

impl<P: Ports> Keeping<P> {
    pub fn new(ports: Arc<P>, keep: Keep) -> Self {
        Keeping { ports, keep: Some(keep) }
    }

    pub async fn end(mut self) {
        if let Some(keep) = &mut self.keep {
            keep.write(self.ports.as_ref()).await;
        }
        self.keep = None;
    }
}

impl<P: Ports> Drop for Keeping<P> {
    fn drop(&mut self) {
        if let Some(keep) = self.keep.take() {
            self.ports.after(Work::keep(keep));
        }
    }
}
