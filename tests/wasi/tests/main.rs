//! The composed gateway in wasmtime's own handler, all in one program: each of its own would compile the whole path anew.

mod common;
mod compose;
mod isolation;
mod serve;
