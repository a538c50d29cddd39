//! Where witgate's state lies: in the memory of one process, in a file that one process owns, or in a Redis or Valkey server
//! that many share. All three do what `witgate_gateway::state` says; `tests/conformance` holds each to it.
//!
//! | | survives | shared by | take and settle |
//! |---|---|---|---|
//! | memory | nothing | one process | in memory |
//! | [`File`] | the process and the machine | one process | in memory, written within a second |
//! | [`Redis`] | what the server survives | all that reach it | one round trip |

mod file;
mod redis;
mod streams;

pub use file::{File, FileOptions};
pub use redis::{Redis, RedisOptions};
pub use streams::{StreamOptions, Streams};

use witgate_gateway::state::{Either, Memory};

/// Any of the stores, as an operator chose.
pub type Store = Either<Memory, Either<File, Redis>>;
