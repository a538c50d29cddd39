//! InvokeModel and InvokeModelWithResponseStream: each family of models has a body of its own. The rules are in the page
//! of [`super`].

pub(super) mod claude;
pub(super) mod count;
pub(super) mod embed;
pub(super) mod llama;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::borrow::Cow;
use witgate_model::{Error, EventMessage, ResponseHead};

use super::answer::{Head, header};

/// The payload of a `chunk`. Beside it there is padding.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

/// What a message of the stream holds: one event of the model's own; `None` for an event that is not a chunk.
fn chunk(head: &Head, message: &EventMessage) -> Result<Option<Vec<u8>>, Error> {
    if head.event(message)? != "chunk" {
        return Ok(None);
    }
    let wrong = |what: &dyn std::fmt::Display| head.malformed(format_args!("the payload of a chunk: {what}"));
    let chunk: Chunk<'_> = serde_json::from_slice(&message.payload).map_err(|error| wrong(&error))?;
    STANDARD.decode(chunk.bytes.as_bytes()).map(Some).map_err(|error| wrong(&error))
}

/// What the headers of an answer that came whole tell of its cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    input: Option<u64>,
    output: Option<u64>,
}

impl Counts {
    pub(super) fn new(head: &ResponseHead) -> Self {
        let count = |name: &str| header(head, name).and_then(|value| value.trim().parse().ok());
        Counts { input: count("x-amzn-bedrock-input-token-count"), output: count("x-amzn-bedrock-output-token-count") }
    }
}
