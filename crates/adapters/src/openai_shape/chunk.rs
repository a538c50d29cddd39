//! Borrowed views of an answer: one chunk of a stream, or the whole of one. Both have the same members.
//!
//! Nothing is copied out of the JSON except strings with escapes in them, and every member that is not known is kept as
//! the text that it was. Lists have bounds, so that a small text cannot grow into a large structure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Loose, Text, too_many};
use crate::repeat::inside;

/// Most choices in one answer.
pub(super) const CHOICES: usize = 128;

/// Most tool calls in one answer.
pub(super) const TOOL_CALLS: usize = 1024;

/// Most elements of a content list.
const CONTENT_PARTS: usize = 1024;

/// Unknown members of one object.
pub(crate) type Others<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Deserialises an object member by member.
macro_rules! object {
    ($type:ident, $what:literal, |$map:ident, $this:ident, $name:ident| { $($key:pat => $action:expr,)* }) => {
        impl<'de> Deserialize<'de> for $type<'de> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor;
                impl<'de> Visitor<'de> for ObjectVisitor {
                    type Value = $type<'de>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<Self::Value, A::Error> {
                        let mut $this = $type::default();
                        while let Some(Text($name)) = $map.next_key()? {
                            match &*$name {
                                $($key => $action,)*
                                _ => $this.others.push(($name, $map.next_value()?)),
                            }
                        }
                        Ok($this)
                    }
                }
                deserializer.deserialize_map(ObjectVisitor)
            }
        }
    };
}

pub(crate) use object;

/// The outermost object.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) id: Loose<'a>,
    pub(super) model: Loose<'a>,
    pub(super) created: Option<&'a RawValue>,
    pub(super) choices: Vec<Choice<'a>>,
    pub(super) usage: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
    /// Of random length, so that the length of a chunk does not tell that of its text.
    pub(super) padding: Option<&'a RawValue>,
    pub(super) others: Others<'a>,
}

object!(Envelope, "an object with `choices`", |map, this, name| {
    "id" => this.id = map.next_value()?,
    "model" => this.model = map.next_value()?,
    "created" => this.created = map.next_value()?,
    "choices" => this.choices = map.next_value::<Option<List<Choice<'de>, CHOICES>>>()?.unwrap_or_default().0,
    "usage" => this.usage = map.next_value()?,
    "error" => this.error = map.next_value()?,
    "obfuscation" => this.padding = map.next_value()?,
    // The dialect names the kind of object.
    "object" => drop(map.next_value::<IgnoredAny>()?),
});

/// What there is but one of in a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Only<'a> {
    /// Text, or reasoning, as it was written.
    Text(&'a str),
    /// A tool call.
    Call(&'a RawValue),
}

impl<'a> Only<'a> {
    /// The text, or the arguments, as they were written.
    pub(super) fn written(self) -> Option<&'a str> {
        match self {
            Only::Text(text) => Some(text),
            Only::Call(call) => {
                serde_json::from_str::<ToolCall<'a>>(call.get()).ok()?.function?.arguments.and_then(inside)
            }
        }
    }
}

impl<'a> Envelope<'a> {
    /// What the chunk says, where it says but one thing, and its padding.
    pub(super) fn only(&self) -> Option<(Only<'a>, Option<&'a str>)> {
        let [choice] = self.choices.as_slice() else { return None };
        let only = match (&choice.text, &choice.message) {
            (Some(Content::Text(Cow::Borrowed(text))), None) => Only::Text(text),
            (None, Some(message)) => {
                let thoughts = [message.reasoning_content, message.reasoning];
                let mut thoughts = thoughts.into_iter().flatten().filter(|thought| thought.get() != "\"\"");
                let content = match &message.content {
                    Content::Nothing => "",
                    Content::Text(Cow::Borrowed(text)) => text,
                    Content::Text(Cow::Owned(_)) | Content::Parts(_) => return None,
                };
                // One and the same reasoning may stand under both names: what comes of it depends on both. A tool call
                // may be kept without a word, to be told at its end.
                match (content, thoughts.next(), thoughts.next(), message.tool_calls.as_slice()) {
                    ("", None, _, [call]) => Only::Call(call),
                    ("", Some(thought), None, []) => Only::Text(inside(thought)?),
                    (text, None, _, []) => Only::Text(text),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((only, self.padding.and_then(inside)))
    }
}

/// One choice.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    pub(super) index: Option<u64>,
    /// `delta` of a chunk, `message` of a whole answer.
    pub(super) message: Option<Message<'a>>,
    /// The text of a text completion.
    pub(super) text: Option<Content<'a>>,
    pub(super) finish_reason: Loose<'a>,
    pub(super) logprobs: Option<&'a RawValue>,
    pub(super) others: Others<'a>,
}

object!(Choice, "a choice", |map, this, name| {
    "index" => this.index = map.next_value()?,
    "delta" | "message" => this.message = map.next_value()?,
    "text" => this.text = map.next_value()?,
    "finish_reason" => this.finish_reason = map.next_value()?,
    "logprobs" => this.logprobs = map.next_value()?,
});

/// A message, or the next piece of one.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) content: Content<'a>,
    pub(super) reasoning_content: Option<&'a RawValue>,
    pub(super) reasoning: Option<&'a RawValue>,
    pub(super) refusal: Option<&'a RawValue>,
    pub(super) tool_calls: Vec<&'a RawValue>,
    pub(super) others: Others<'a>,
}

object!(Message, "a message", |map, this, name| {
    "role" => drop(map.next_value::<IgnoredAny>()?),
    "content" => this.content = map.next_value()?,
    "reasoning_content" => this.reasoning_content = map.next_value()?,
    "reasoning" => this.reasoning = map.next_value()?,
    "refusal" => this.refusal = map.next_value()?,
    "tool_calls" => this.tool_calls = map.next_value::<Option<List<&RawValue, TOOL_CALLS>>>()?.unwrap_or_default().0,
});

/// A tool call, or the next piece of one.
#[derive(Debug, Default)]
pub(super) struct ToolCall<'a> {
    pub(super) index: Option<u64>,
    pub(super) id: Loose<'a>,
    pub(super) kind: Loose<'a>,
    pub(super) function: Option<Function<'a>>,
    pub(super) others: Others<'a>,
}

object!(ToolCall, "a tool call", |map, this, name| {
    "index" => this.index = map.next_value()?,
    "id" => this.id = map.next_value()?,
    "type" => this.kind = map.next_value()?,
    "function" => this.function = map.next_value()?,
});

/// The function of a tool call.
#[derive(Debug, Default)]
pub(super) struct Function<'a> {
    pub(super) name: Loose<'a>,
    pub(super) arguments: Option<&'a RawValue>,
    pub(super) others: Others<'a>,
}

object!(Function, "the function of a tool call", |map, this, name| {
    "name" => this.name = map.next_value()?,
    "arguments" => this.arguments = map.next_value()?,
});

/// Content: a text, or (as some backends send it) a list of parts.
#[derive(Debug, Default)]
pub(super) enum Content<'a> {
    /// Null, or not there.
    #[default]
    Nothing,
    /// A text.
    Text(Cow<'a, str>),
    /// A list of parts.
    Parts(Vec<&'a RawValue>),
}

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of parts or null")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Borrowed(value)))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Owned(value.to_owned())))
            }
            fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Owned(value)))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Ok(Content::Nothing)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    if parts.len() == CONTENT_PARTS {
                        return Err(too_many("parts of a content", CONTENT_PARTS));
                    }
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// One part of a content list: `text`, or (as Mistral sends it) `thinking` with a list of texts.
#[derive(Debug, Default)]
pub(super) struct ContentPart<'a> {
    pub(super) kind: Loose<'a>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) thinking: Option<&'a RawValue>,
    pub(super) others: Others<'a>,
}

object!(ContentPart, "a part of a content", |map, this, name| {
    "type" => this.kind = map.next_value()?,
    "text" => this.text = map.next_value()?,
    "thinking" => this.thinking = map.next_value()?,
});

/// A list of at most `MOST` elements.
#[derive(Debug)]
pub(crate) struct List<T, const MOST: usize>(pub(crate) Vec<T>);

impl<T, const MOST: usize> Default for List<T, MOST> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MOST: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListVisitor<T, MOST> {
            type Value = List<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == MOST {
                        return Err(too_many("elements of a list", MOST));
                    }
                    list.push(element);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}
