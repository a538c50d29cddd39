//! An answer whose bytes are made by one running future: [`Writer`] on its side, [`Answer`] on the client's.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use witgate_model::Field;

use crate::ports::Ports;

/// What passes from the writer to the answer.
#[derive(Default)]
struct Slot {
    /// Status and headers, when they are known.
    head: Option<(u16, Vec<Field>)>,
    /// Bytes that the client has not got yet.
    bytes: Option<Bytes>,
    /// The head has been given to the client: from here on an error goes into the stream.
    committed: bool,
}

/// The side of the future that makes the answer.
#[derive(Clone, Default)]
pub(crate) struct Writer(Arc<Mutex<Slot>>);

impl Writer {
    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The client has got the head: a failure can only be told inside the stream.
    pub fn committed(&self) -> bool {
        self.slot().committed
    }

    /// Sets status and headers; without effect once they have been given to the client.
    pub fn head(&self, status: u16, headers: Vec<Field>) {
        self.slot().head = Some((status, headers));
    }

    /// Gives bytes to the client. Completes when they have been taken: this is the back-pressure.
    pub async fn write(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.slot().bytes = Some(bytes);
        std::future::poll_fn(|_| if self.slot().bytes.is_some() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// The client's side: a stream of bytes. Dropping it drops the future that makes them, and so the backend's request.
pub(crate) struct Answer<P, F> {
    ports: Arc<P>,
    /// Fused: `None` when it has completed.
    future: Option<Pin<Box<F>>>,
    writer: Writer,
    /// Sent when nothing else was for so long; empty for none.
    keep_alive: (Duration, Bytes),
}

/// What came first.
pub(crate) enum First<T> {
    /// The stream has begun: status and headers.
    Head(u16, Vec<Field>),
    /// It failed, or was whole, before it began.
    End(T),
}

impl<P: Ports, F: Future> Answer<P, F> {
    pub fn new(ports: Arc<P>, future: F, writer: Writer, keep_alive: (Duration, Bytes)) -> Self {
        Answer { ports, future: Some(Box::pin(future)), writer, keep_alive }
    }

    /// Runs the future until it has bytes for the client, or ends, or `keep_alive` has passed: then the stream begins
    /// with `head`, so that a load balancer sees a living connection.
    pub async fn first(&mut self, head: impl FnOnce() -> (u16, Vec<Field>)) -> First<F::Output> {
        let deadline = self.ports.now() + self.keep_alive.0;
        let ports = Arc::clone(&self.ports);
        let mut sleep = std::pin::pin!(ports.sleep_until(deadline));
        let early = std::future::poll_fn(|cx| {
            let Some(future) = self.future.as_mut() else { return Poll::Ready(Err(None)) };
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                self.future = None;
                return Poll::Ready(Err(Some(output)));
            }
            if self.writer.slot().bytes.is_some() {
                return Poll::Ready(Ok(()));
            }
            if !self.keep_alive.1.is_empty() && sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await;
        let mut slot = self.writer.slot();
        match early {
            Err(Some(output)) => return First::End(output),
            Err(None) => {}
            Ok(()) if slot.bytes.is_none() => slot.bytes = Some(self.keep_alive.1.clone()),
            Ok(()) => {}
        }
        slot.committed = true;
        let (status, headers) = slot.head.take().unwrap_or_else(head);
        First::Head(status, headers)
    }

    /// The rest, as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> {
        futures_util::stream::unfold(self, |mut this| async move {
            let bytes = this.next().await?;
            Some((bytes, this))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        let deadline = self.ports.now() + self.keep_alive.0;
        let ports = Arc::clone(&self.ports);
        let mut sleep = std::pin::pin!(ports.sleep_until(deadline));
        std::future::poll_fn(|cx| {
            // What was written before: taken first, so that the future goes on.
            if let Some(bytes) = self.writer.slot().bytes.take() {
                return Poll::Ready(Some(bytes));
            }
            let Some(future) = self.future.as_mut() else { return Poll::Ready(None) };
            if future.as_mut().poll(cx).is_ready() {
                self.future = None;
            }
            if let Some(bytes) = self.writer.slot().bytes.take() {
                return Poll::Ready(Some(bytes));
            }
            if self.future.is_none() {
                return Poll::Ready(None);
            }
            if !self.keep_alive.1.is_empty() && sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(self.keep_alive.1.clone()));
            }
            Poll::Pending
        })
        .await
    }
}
