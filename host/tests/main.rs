//! The host as its users see it, all in one program: each program of its own would compile the whole path anew.

mod cache;
mod cli;
mod compose;
mod conformance;
mod embed;
mod hostile;
mod kit;
mod llama;
mod native_and_component;
mod new;
mod policy_conformance;
mod reload;
mod server;
mod sources;
