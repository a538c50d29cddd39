//! The contract's functions as traits: what a component exports, callable without a component.

use crate::types::{Description, Error, Event, Frame, HttpRequest, Request, ResponseHead};

/// A provider adapter. The functions keep the calling contract of `wit/adapter/chat.wit`: pure, no IO.
pub trait Adapter {
    /// Decodes one answer.
    type Decoder: Decoder;

    /// What this adapter is. Constant.
    fn describe() -> Description;

    /// The cheapest request that shows whether the backend serves, if there is one.
    fn probe(settings: &str) -> Result<Option<HttpRequest>, Error>;

    /// The HTTP request that asks the backend for `request`.
    fn encode(settings: &str, request: Request) -> Result<HttpRequest, Error>;

    /// A decoder for one answer whose head has come.
    fn decoder(settings: &str, context: Option<String>, head: ResponseHead) -> Self::Decoder;
}

/// Turns the frames of one answer into events.
pub trait Decoder {
    /// The frames of one network read, in order.
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event>;

    /// The body has ended: the last event is `Done` or `Failed`, unless one of them was returned before.
    fn finish(&mut self) -> Vec<Event>;
}
