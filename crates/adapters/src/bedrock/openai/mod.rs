//! The OpenAI-compatible endpoint. The rules are in the page of [`super`].

mod decode;
mod encode;
mod lift;

pub(super) use decode::Decoder;
pub(super) use encode::encode;
