//! The normalised request, events and errors: the types of the public contract `wit/adapter`, in Rust.
//!
//! [`types`] is written by `cargo xtask wit` from the WIT itself, documentation included, so that the contract has one
//! source. The same structs serve everywhere: guests map their bindings to them, the host lifts and lowers them (feature
//! `wasmtime`), native code uses them as they are. Nothing is converted on the path.
//!
//! This crate does no IO, reads no clock and no environment.
//!
//! ```
//! use witgate_model::{Message, Part, Role};
//!
//! let message = Message::text(Role::User, "Hello");
//! assert_eq!(message.parts, [Part::text("Hello")]);
//! ```

mod adapter;
mod build;
mod export;
mod hooks;
#[rustfmt::skip]
pub mod normaliser;
mod order;
#[rustfmt::skip]
pub mod policy;
#[rustfmt::skip]
pub mod types;
pub mod watching;

pub use adapter::{Adapter, Decoder};
pub use hooks::{Policy, Watcher};
pub use order::Order;
pub use types::*;
