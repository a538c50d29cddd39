//! What the project's commands and its tests share.

pub mod compose;
