//! Every canonical request with every backend, and every backend's answers in every dialect.
//!
//! The requests are `tests/fixtures/requests`: those of OpenAI's chat lie at the top, those of other dialects in a folder of
//! the dialect's name. The answers are `tests/fixtures/upstream`. What comes of them is kept as snapshots for people to
//! read (`INSTA_UPDATE=always cargo test -p witgate-matrix` writes them), and as the table in `docs/adapters.md`
//! (`WITGATE_UPDATE=1`).

mod answers;
mod backends;
pub mod capabilities;
mod pretty;
mod requests;

pub use answers::{Answer, Client, Told, clients, counters, embedders, fixture};
pub use backends::{BACKENDS, Backend, api};
pub use pretty::pretty;
pub use requests::{Canonical, parse_request, requests};

use std::path::PathBuf;

/// A path below the repository's root.
pub fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
