//! The path of a request, and the policy around it, written once over small ports.
//!
//! ```text
//! request in → parse → route → encode → sign → send → frame → decode → render → response out
//! ```
//!
//! [`Gateway::handle`] runs that line. A runtime brings [`Ports`]: how to send, what time it is, where the components
//! are. This crate does no IO, reads no clock and no environment, so that its tests run on a simulated clock from a seed.

mod admin;
mod alarms;
mod aws;
mod bill;
mod cache;
mod cause;
mod chain;
mod check;
mod contract;
mod cors;
mod documents;
mod encoding;
pub mod event;
mod failure;
mod gateway;
mod health;
mod hedge;
mod http;
mod jobs;
mod keep;
mod keys;
pub mod kv;
mod metrics;
mod models;
mod operate;
mod page;
mod path;
mod policies;
mod pool;
mod ports;
mod provider_keys;
mod query;
mod queue;
mod record;
mod retry;
mod route;
mod routes;
mod sign;
pub mod state;
mod stream;
mod watch;

pub use aws_credential_types::Credentials;
pub use bill::Work;
pub use contract::{check_decision, check_request};
pub use documents::BUCKET;
pub use gateway::Gateway;
pub use http::{Body, BodyError, Request, RequestBody, Response};
pub use jobs::{Broker, BrokerError, Message, Parcel, Sqs, is_public, leaves_work};
pub use operate::{CallState, ComponentState, ConfigurationState, Refusal, Reload};
pub use path::default_endpoint;
pub use ports::{
    Adapter, Fault, Normaliser, Policy, Ports, TransportError, UpstreamBody, UpstreamRequest, UpstreamResponse,
};
pub use record::{Outcome, Record, Warning};
pub use witgate_model::normaliser::{Document, DocumentRef};
