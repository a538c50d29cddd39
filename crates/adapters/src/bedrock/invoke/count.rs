//! CountTokens: how many tokens a conversation has, in the terms of Converse.

use witgate_model::{Error, Event, Framing, HttpRequest, Message, Request, Started, Usage};

use super::super::converse;
use super::super::http::Encoding;
use super::super::json::Members;
use super::super::{Codec, Context};

/// The count of a conversation and its tools.
pub(in super::super) fn encode(
    encoding: Encoding<'_>,
    request: &Request,
    messages: &[Message],
) -> Result<HttpRequest, Error> {
    let (encoding, body) = converse::count(encoding, request, messages)?;
    let model = encoding.target.foundation().to_owned();
    let context = Context { codec: Codec::CountTokens, ..Context::default() };
    encoding.post(model, "count-tokens", Framing::Whole, Vec::new(), body, &context)
}

/// The events of the answer.
pub(in super::super) fn decode(answer: &Members<'_>) -> Option<Vec<Event>> {
    let usage = Usage { input_tokens: Some(answer.number("inputTokens")?), ..Usage::default() };
    Some(vec![Event::Started(Started::default()), Event::Usage(usage), Event::Done])
}
