//! Borrowed views of answers.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::openai_shape::chunk::{List, Others, object};
use crate::openai_shape::json::{Loose, Text};

/// Most tool calls in one line.
const TOOL_CALLS: usize = 1024;

/// Most vectors or models in one answer.
const ENTRIES: usize = super::TEXTS;

/// One line of a stream, or the whole answer, of `/api/chat` or `/api/generate`.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    pub model: Loose<'a>,
    pub created_at: Option<&'a RawValue>,
    /// Of `/api/chat`.
    pub message: Option<Message<'a>>,
    /// The text of `/api/generate`.
    pub response: Option<Text<'a>>,
    /// The reasoning of `/api/generate`.
    pub thinking: Option<Text<'a>>,
    /// The tool calls of `/api/generate`.
    pub tool_calls: Vec<ToolCall<'a>>,
    pub done: Option<bool>,
    pub done_reason: Loose<'a>,
    /// Counts and durations, as they were written.
    pub metrics: Others<'a>,
    pub logprobs: Option<&'a RawValue>,
    pub error: Option<&'a RawValue>,
    pub others: Others<'a>,
}

object!(Chunk, "an object", |map, this, name| {
    "model" => this.model = map.next_value()?,
    "created_at" => this.created_at = map.next_value()?,
    "message" => this.message = map.next_value()?,
    "response" => this.response = map.next_value()?,
    "thinking" => this.thinking = map.next_value()?,
    "tool_calls" => this.tool_calls = map.next_value::<Option<List<_, TOOL_CALLS>>>()?.unwrap_or_default().0,
    "done" => this.done = map.next_value()?,
    "done_reason" => this.done_reason = map.next_value()?,
    "total_duration" | "load_duration" | "prompt_eval_count" | "prompt_eval_duration" | "eval_count"
    | "eval_duration" => this.metrics.push((name, map.next_value()?)),
    "logprobs" => this.logprobs = map.next_value()?,
    "error" => this.error = map.next_value()?,
});

/// `message` of `/api/chat`.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub content: Option<Text<'a>>,
    pub thinking: Option<Text<'a>>,
    pub tool_calls: Vec<ToolCall<'a>>,
    pub others: Others<'a>,
}

object!(Message, "a message", |map, this, name| {
    "role" => {
        let role: &RawValue = map.next_value()?;
        if role.get() != "\"assistant\"" {
            this.others.push((name, role));
        }
    },
    "content" => this.content = map.next_value()?,
    "thinking" => this.thinking = map.next_value()?,
    "tool_calls" => this.tool_calls = map.next_value::<Option<List<_, TOOL_CALLS>>>()?.unwrap_or_default().0,
});

/// A tool call.
#[derive(Debug, Default)]
pub(super) struct ToolCall<'a> {
    pub id: Loose<'a>,
    pub function: Option<Function<'a>>,
    pub others: Others<'a>,
}

object!(ToolCall, "a tool call", |map, this, name| {
    "id" => this.id = map.next_value()?,
    "function" => this.function = map.next_value()?,
    "type" => {
        let kind: &RawValue = map.next_value()?;
        if kind.get() != "\"function\"" {
            this.others.push((name, kind));
        }
    },
});

/// The function of a tool call.
#[derive(Debug, Default)]
pub(super) struct Function<'a> {
    pub index: Option<&'a RawValue>,
    pub name: Loose<'a>,
    pub arguments: Option<&'a RawValue>,
    pub others: Others<'a>,
}

object!(Function, "the function of a tool call", |map, this, name| {
    "index" => this.index = map.next_value()?,
    "name" => this.name = map.next_value()?,
    "arguments" => this.arguments = map.next_value()?,
});

/// The answer of `/api/embed`, or of `/api/embeddings`.
#[derive(Debug, Default)]
pub(super) struct Vectors<'a> {
    pub model: Loose<'a>,
    pub embeddings: Vec<&'a RawValue>,
    pub metrics: Others<'a>,
    pub error: Option<&'a RawValue>,
    pub others: Others<'a>,
}

object!(Vectors, "an object with `embeddings`", |map, this, name| {
    "model" => this.model = map.next_value()?,
    "embeddings" => this.embeddings = map.next_value::<Option<List<_, ENTRIES>>>()?.unwrap_or_default().0,
    // The older endpoint's only one.
    "embedding" => this.embeddings.push(map.next_value()?),
    "total_duration" | "load_duration" | "prompt_eval_count" => this.metrics.push((name, map.next_value()?)),
    "error" => this.error = map.next_value()?,
});

/// The answer of `/api/tags`.
#[derive(Debug, Default)]
pub(super) struct Tags<'a> {
    /// `None` where there is no such member; null is an empty list.
    pub models: Option<Vec<&'a RawValue>>,
    pub error: Option<&'a RawValue>,
    pub others: Others<'a>,
}

object!(Tags, "an object with `models`", |map, this, name| {
    "models" => this.models = Some(map.next_value::<Option<List<_, ENTRIES>>>()?.unwrap_or_default().0),
    "error" => this.error = map.next_value()?,
});

/// One model.
#[derive(Debug, Default)]
pub(super) struct Tag<'a> {
    pub name: Loose<'a>,
    pub model: Loose<'a>,
    pub modified_at: Loose<'a>,
    pub others: Others<'a>,
}

object!(Tag, "an object with `model`", |map, this, name| {
    "name" => this.name = map.next_value()?,
    "model" => this.model = map.next_value()?,
    "modified_at" => this.modified_at = map.next_value()?,
});

/// One token with its log probability.
#[derive(Debug, Default)]
pub(super) struct Logprob<'a> {
    pub bytes: Option<&'a RawValue>,
    pub top_logprobs: Option<Vec<Logprob<'a>>>,
    pub others: Others<'a>,
}

object!(Logprob, "the log probability of a token", |map, this, name| {
    "bytes" => this.bytes = map.next_value()?,
    "top_logprobs" => this.top_logprobs = map.next_value()?,
});
