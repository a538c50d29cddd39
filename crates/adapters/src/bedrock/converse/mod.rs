//! Converse and ConverseStream. The rules are in the page of [`super`].

mod decode;
mod encode;
mod media;
mod wire;

pub(super) use decode::Decoder;
pub(super) use encode::{count, encode};

/// The dialect that this API passes on.
pub(super) const DIALECT: &str = "bedrock-converse";
