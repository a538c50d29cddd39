//! The path of a request, and the policy around it, written once over small ports.
//!
//! ```text
//! request in → parse → route → encode → sign → send → frame → decode → render → response out
//! ```
//!
//! [`Gateway::handle`] runs that line. A runtime brings [`Ports`]: how to send, what time it is, where the components
//! are. This crate does no IO, reads no clock and no environment, so that its tests run on a simulated clock from a seed.

mod alarms;
mod aws;
mod chain;
mod check;
mod contract;
mod cors;
mod encoding;
mod failure;
mod gateway;
mod health;
mod http;
mod metrics;
mod models;
mod path;
mod pool;
mod ports;
mod queue;
mod record;
mod retry;
mod route;
mod routes;
mod sign;
pub mod state;
mod stream;

pub use aws_credential_types::Credentials;
pub use contract::check_request;
pub use gateway::Gateway;
pub use http::{Body, BodyError, Request, RequestBody, Response};
pub use ports::{Adapter, Fault, Normaliser, Ports, TransportError, UpstreamBody, UpstreamRequest, UpstreamResponse};
pub use record::{Outcome, Record, Warning};
pub use witgate_model::normaliser::{Document, DocumentRef};
