//! A small JSON writer, and borrowed views of JSON objects whose members are not looked into.
//!
//! Requests are written straight into the body's bytes: nothing is built in between, and what the client wrote as JSON
//! (schemas, unknown members) is copied as it stands. [`Object`] knows which names it has written, so that an unknown
//! member can never appear beside a known one of the same name.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::scan;

macro_rules! names {
    ($($variant:ident $text:literal,)*) => {
        /// Every member name that an encoder of the OpenAI shape may write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Name { $(#[doc = $text] $variant,)* }

        impl Name {
            /// The name with its quotes and colon.
            fn quoted(self) -> &'static str {
                match self { $(Name::$variant => concat!("\"", $text, "\":"),)* }
            }

            /// The name of this text.
            fn find(text: &str) -> Option<Name> {
                match text { $($text => Some(Name::$variant),)* _ => None }
            }
        }
    };
}

names! {
    Arguments "arguments", BestOf "best_of", CacheControl "cache_control", CallId "call_id", Called "name",
    Content "content", Data "data", Description "description", Detail "detail", Dimensions "dimensions", Echo "echo",
    Effort "effort", EnableThinking "enable_thinking", Enabled "enabled", EncodingFormat "encoding_format",
    EncryptedContent "encrypted_content", File "file", FileData "file_data", FileId "file_id", FileUrl "file_url",
    Filename "filename", Format "format", FrequencyPenalty "frequency_penalty", Function "function", Id "id",
    ImageUrl "image_url", Include "include", IncludeUsage "include_usage", Input "input", InputAudio "input_audio",
    Instructions "instructions", JsonSchema "json_schema", Kwargs "chat_template_kwargs", LogitBias "logit_bias",
    Logprobs "logprobs", MaxCompletionTokens "max_completion_tokens", MaxOutputTokens "max_output_tokens",
    MaxTokens "max_tokens", Messages "messages", MinP "min_p", Model "model", N "n", Output "output",
    Parallel "parallel_tool_calls", Parameters "parameters", PresencePenalty "presence_penalty", Prompt "prompt",
    Reasoning "reasoning", ReasoningContent "reasoning_content", ReasoningEffort "reasoning_effort",
    ReasoningSignature "reasoning_signature", Refusal "refusal", RepeatPenalty "repeat_penalty",
    RepetitionPenalty "repetition_penalty", ResponseFormat "response_format", Role "role", Schema "schema",
    Seed "seed", Stop "stop", Store "store", Stream "stream", StreamOptions "stream_options", Strict "strict",
    Suffix "suffix", Summary "summary", Temperature "temperature", Text "text",
    ThinkingBudget "thinking_budget_tokens", ToolCallId "tool_call_id", ToolCalls "tool_calls",
    ToolChoice "tool_choice", Tools "tools", TopK "top_k", TopLogprobs "top_logprobs", TopP "top_p", Ttl "ttl",
    Type "type", Url "url", User "user", Verbosity "verbosity", VideoUrl "video_url",
}

/// An object that is being written.
pub(crate) struct Object {
    written: u128,
    empty: bool,
    /// Names that were spliced in.
    spliced: BTreeSet<String>,
}

impl Object {
    /// Opens an object.
    pub(crate) fn open(out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { written: 0, empty: true, spliced: BTreeSet::new() }
    }

    /// Writes a name; the value must follow.
    pub(crate) fn name(&mut self, out: &mut Vec<u8>, name: Name) {
        if !self.empty {
            out.push(b',');
        }
        self.empty = false;
        self.written |= 1 << name as u32;
        out.extend_from_slice(name.quoted().as_bytes());
    }

    /// A member whose value is a string.
    pub(crate) fn string(&mut self, out: &mut Vec<u8>, name: Name, value: &str) {
        self.name(out, name);
        string(out, value);
    }

    /// A member whose value is JSON text already.
    pub(crate) fn raw(&mut self, out: &mut Vec<u8>, name: Name, json: &str) {
        self.name(out, name);
        out.extend_from_slice(json.as_bytes());
    }

    /// A member whose value is `true` or `false`.
    pub(crate) fn bool(&mut self, out: &mut Vec<u8>, name: Name, value: bool) {
        self.raw(out, name, if value { "true" } else { "false" });
    }

    /// A member whose value is an integer.
    pub(crate) fn integer(&mut self, out: &mut Vec<u8>, name: Name, value: impl Into<i128>) {
        self.name(out, name);
        integer(out, value.into());
    }

    /// True where a member of this name has been written.
    fn has(&self, name: &str) -> bool {
        Name::find(name).is_some_and(|name| self.written & (1 << name as u32) != 0) || self.spliced.contains(name)
    }

    /// Adds the members that have not been written yet.
    pub(crate) fn splice(&mut self, out: &mut Vec<u8>, members: &Members<'_>) {
        for (name, value) in &members.0 {
            if !self.has(name) {
                if !self.empty {
                    out.push(b',');
                }
                self.empty = false;
                self.spliced.insert(name.to_string());
                member(out, name, value);
            }
        }
    }

    /// Closes the object.
    pub(crate) fn close(self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

/// Writes `"name":value`.
pub(crate) fn member(out: &mut Vec<u8>, name: &str, value: &RawValue) {
    string(out, name);
    out.push(b':');
    out.extend_from_slice(value.get().as_bytes());
}

/// Writes an integer in decimal.
pub(crate) fn integer(out: &mut Vec<u8>, value: i128) {
    let mut digits = [0_u8; 40];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes a finite number in its shortest form; whole numbers without a fraction.
pub(crate) fn float(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        integer(out, value as i128);
    } else {
        // Writing to a vector cannot fail, and the caller has refused what is not finite.
        let _ = serde_json::to_writer(out, &value);
    }
}

/// Writes a string with its quotes.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Writes text as the inside of a JSON string.
pub(crate) fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at(scan::plain(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = after.split_first() else { return };
        escaped(out, *byte);
        rest = after;
    }
}

/// Writes the escape of one byte.
fn escaped(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A string that is borrowed where nothing in it was escaped.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(value)))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(value.to_owned())))
            }
            fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(value)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The members of a JSON object, in order, their values not looked into.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of an object given as text; none for `None`.
    pub(crate) fn parse(json: Option<&'a str>) -> Result<Self, serde_json::Error> {
        match json {
            None | Some("{}") => Ok(Members::default()),
            Some(json) => serde_json::from_str(json),
        }
    }

    /// The value of the first member of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// The members of the object that the member of this name holds; none where it is not an object.
    pub(crate) fn nested(&self, name: &str) -> Members<'a> {
        Members::parse(self.get(name)).unwrap_or_default()
    }
}

/// Writes members as an object.
pub(crate) fn object_of(members: &[(Cow<'_, str>, &RawValue)]) -> String {
    let mut out = Vec::with_capacity(16 + members.iter().map(|(n, v)| n.len() + v.get().len() + 4).sum::<usize>());
    out.push(b'{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        member(&mut out, name, value);
    }
    out.push(b'}');
    utf8(out)
}

/// Bytes that were joined from strings, as a string.
pub(crate) fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    members.push((name, map.next_value::<&RawValue>()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

/// A string, or something that can stand for one: a number or a truth value as text. Null is nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loose<'a>(pub(crate) Option<Cow<'a, str>>);

impl<'a> Loose<'a> {
    /// The text where there is some and it is not empty.
    pub(crate) fn filled(self) -> Option<Cow<'a, str>> {
        self.0.filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LooseVisitor;
        impl<'de> Visitor<'de> for LooseVisitor {
            type Value = Loose<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or null")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Borrowed(value))))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Owned(value.to_owned()))))
            }
            fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Owned(value))))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Ok(Loose(None))
            }
            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Borrowed(if value { "true" } else { "false" }))))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Loose(Some(Cow::Owned(value.to_string()))))
            }
        }
        deserializer.deserialize_any(LooseVisitor)
    }
}

/// The text of a JSON string; `None` for any other value.
pub(crate) fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// A whole number that may have been written with a fraction or in quotes; `None` for anything else.
pub(crate) fn count_of(value: &RawValue) -> Option<u64> {
    let text = value.get().trim_matches('"');
    text.parse::<u64>().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        (number >= 0.0 && number < u64::MAX as f64).then_some(number as u64)
    })
}

/// What is wrong with a backend's JSON, without quoting what it says: that may be content.
pub(crate) fn complaint(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it is cut off",
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Data | serde_json::error::Category::Io => "a value has the wrong type",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// An error for a list that is longer than its bound.
pub(crate) fn too_many<E: serde::de::Error>(what: &str, most: usize) -> E {
    E::custom(format_args!("more than {most} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        utf8(out)
    }

    #[test]
    fn every_string_is_escaped_as_json_reads_it() {
        let mut texts: Vec<String> = (0..0x100_u32).filter_map(char::from_u32).map(String::from).collect();
        texts.push("a \"quoted\" path C:\\dir\nline two\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f} Grüße 世界 🦀".into());
        for at in 0..24 {
            let mut text = "x".repeat(24);
            text.replace_range(at..=at, "\"");
            texts.push(text);
        }
        for first in ["\u{1f}", " ", "!", "\"", "#", "[", "\\", "]", "\u{7f}", "ÿ", "\u{80}"] {
            for second in ["\u{1}", "\"", "\\", "a", "é", "!"] {
                texts.push(format!("{first}{second}{second}{first}ab{second}{first}"));
            }
        }
        for text in texts {
            assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text, "{:?}", written(&text));
        }
    }

    #[test]
    fn numbers_are_short_and_exact() {
        let written = |value: f64| {
            let mut out = Vec::new();
            float(&mut out, value);
            utf8(out)
        };
        for (value, text) in
            [(0.0, "0"), (1.0, "1"), (-2.0, "-2"), (0.7, "0.7"), (1e-7, "1e-7"), (0.1 + 0.2, "0.30000000000000004")]
        {
            assert_eq!(written(value), text);
        }
        for value in [1e15, 1e300, f64::MIN_POSITIVE] {
            assert_eq!(written(value).parse::<f64>().unwrap(), value);
        }
        let mut out = Vec::new();
        integer(&mut out, i64::MIN.into());
        integer(&mut out, u64::MAX.into());
        assert_eq!(utf8(out), "-922337203685477580818446744073709551615");
    }

    #[test]
    fn an_unknown_member_never_stands_beside_a_written_one() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.string(&mut out, Name::Model, "m");
        let members = Members::parse(Some(r#"{"model":"other","a\"b": [1, 2.50],"stop":null}"#)).unwrap();
        object.splice(&mut out, &members);
        object.close(&mut out);
        assert_eq!(utf8(out), r#"{"model":"m","a\"b":[1, 2.50],"stop":null}"#);
    }
}
