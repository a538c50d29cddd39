//! OpenAI's embeddings, as a server.
//!
//! - `input` is one text, one text as tokens, or an array of up to 2,048 of either kind, not of both. Empty texts are
//!   refused, as OpenAI does.
//! - Vectors stand in the answer in the order of their texts, in the encoding that the client asked for, whichever one the
//!   backend gave. Nothing is converted where they agree: numbers keep the form in which the backend wrote them. Numbers
//!   made from base64 are the shortest that mean the same 32-bit float.
//! - Where a backend makes one vector for each token, base64 is an array of such texts.
//! - A vector that cannot be read, and a number in base64 that is not finite, is `null`.

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use witgate_model::normaliser::{AnswerStart, Failure, Limits, Parsed, Rendered};
use witgate_model::{
    Embedding, EmbeddingInput, EmbeddingText, Error, Event, Input, OtherEvent, Request, Scope, Usage, Vector,
};

use crate::members::Waiting;
use crate::openai::{self, model_of_path, read_body};
use crate::read::{Kind, Read, Reader};
use crate::write::{self, Members};
use crate::{Dialect, Render, usage};

/// The name of this dialect.
const NAME: &str = "openai-embeddings";

/// The most texts of one request; OpenAI's own bound.
const MOST_TEXTS: usize = 2048;

/// What `render` holds where base64 was asked for.
const BASE64: &str = "base64";

/// The dialect `openai-embeddings`.
pub(crate) struct OpenAiEmbeddings;

impl Dialect for OpenAiEmbeddings {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/v1/embeddings"), ("POST", "/embeddings"), ("POST", "/openai/deployments/{model}/embeddings")]
    }

    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        let mut parsed = read_body(body, limits.depth, request)?;
        model_of_path(&mut parsed.request, path, "/embeddings")?;
        Ok(parsed)
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        openai::render_error(failure)
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        Box::new(Answer {
            base64: start.render == BASE64,
            model: start.model,
            vectors: Vec::new(),
            beside: BTreeMap::new(),
            envelope: Waiting::default(),
            usage: None,
            ended: false,
        })
    }
}

fn request(reader: &mut Reader<'_>) -> Read<Parsed> {
    let start = reader.position();
    let mut model = String::new();
    let mut input = None;
    let mut dimensions = None;
    let mut encoding = None;
    let mut end_user = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "model" => model = reader.optional(Reader::owned)?.unwrap_or_default(),
            "input" => input = Some(self::input(reader)?),
            "dimensions" => dimensions = reader.optional(Reader::count)?,
            "encoding_format" => encoding = reader.optional(self::encoding)?,
            "user" => end_user = reader.optional(Reader::owned)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some((texts, single)) = input else {
        return reader.fault_in(start, "input", "is missing: a string, or an array of strings");
    };
    let render = encoding.clone().filter(|encoding| encoding == BASE64).unwrap_or_default();
    let input = EmbeddingInput { texts, single, dimensions, encoding };
    let mut request = Request::new(NAME, model, Input::Embedding(input));
    request.end_user = end_user;
    request.extra = extra.finish();
    Ok(Parsed { request, render })
}

fn encoding(reader: &mut Reader<'_>) -> Read<String> {
    let start = reader.position();
    let encoding = reader.string()?;
    match &*encoding {
        "float" | BASE64 => Ok(encoding.into_owned()),
        _ => reader.fault(start, "must be \"float\" or \"base64\""),
    }
}

/// The texts, and whether it is one without an array around it.
fn input(reader: &mut Reader<'_>) -> Read<(Vec<EmbeddingText>, bool)> {
    match reader.kind() {
        Kind::String => return Ok((vec![text(reader)?], true)),
        Kind::Array => {}
        _ => return reader.wrong("a string, an array of tokens, or an array of either"),
    }
    let start = reader.position();
    let mut first = None;
    let mut texts = Vec::new();
    let mut tokens = Vec::new();
    reader.array(|reader, index| {
        let kind = *first.get_or_insert(reader.kind());
        if kind != Kind::Number && index >= MOST_TEXTS {
            let position = reader.position();
            return reader.fault(position, format!("is one text too many: at most {MOST_TEXTS} are allowed"));
        }
        match kind {
            Kind::String if reader.kind() == kind => texts.push(text(reader)?),
            Kind::String => return reader.wrong("a string, as the texts before it"),
            Kind::Number if reader.kind() == kind => tokens.push(reader.u32()?),
            Kind::Number => return reader.wrong("a token, as those before it"),
            Kind::Array if reader.kind() == kind => texts.push(EmbeddingText::Tokens(self::tokens(reader)?)),
            Kind::Array => return reader.wrong("an array of tokens, as the texts before it"),
            _ => return reader.wrong("a string, a token, or an array of tokens"),
        }
        Ok(())
    })?;
    if first.is_none() {
        return reader.fault(start, "must hold at least one text, found an empty array");
    }
    if tokens.is_empty() { Ok((texts, false)) } else { Ok((vec![EmbeddingText::Tokens(tokens)], true)) }
}

fn text(reader: &mut Reader<'_>) -> Read<EmbeddingText> {
    let start = reader.position();
    let text = reader.owned()?;
    if text.is_empty() {
        return reader.fault(start, "must not be an empty string: there is nothing to embed");
    }
    Ok(EmbeddingText::Text(text))
}

fn tokens(reader: &mut Reader<'_>) -> Read<Vec<u32>> {
    let start = reader.position();
    let mut tokens = Vec::new();
    reader.array(|reader, _| {
        tokens.push(reader.u32()?);
        Ok(())
    })?;
    if tokens.is_empty() {
        return reader.fault(start, "must hold at least one token, found an empty array");
    }
    Ok(tokens)
}

// Members that we write ourselves: a backend's unknown members never replace them.
const ENVELOPE: [&str; 5] = ["object", "data", "model", "usage", "error"];

const ENTRY: [&str; 3] = ["object", "index", "embedding"];

/// The renderer of one answer.
struct Answer {
    base64: bool,
    model: String,
    vectors: Vec<Embedding>,
    /// What stands beside a vector, by its number.
    beside: BTreeMap<u32, Waiting>,
    envelope: Waiting,
    usage: Option<Usage>,
    ended: bool,
}

impl Answer {
    fn whole(&mut self, out: &mut Vec<u8>) {
        self.vectors.sort_by_key(|vector| vector.index);
        out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
        for (number, Embedding { index, values }) in self.vectors.drain(..).enumerate() {
            if number > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
            write::number(out, u64::from(index));
            out.extend_from_slice(b",\"embedding\":");
            write_vector(out, &values, self.base64);
            if let Some(mut members) = self.beside.remove(&index) {
                members.write(out, false);
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"model\":");
        write::string(out, &self.model);
        if let Some(usage) = &self.usage {
            out.extend_from_slice(b",\"usage\":");
            usage::write_input(out, usage);
        }
        self.envelope.write(out, false);
        out.push(b'}');
    }
}

impl Render for Answer {
    fn head(&self) -> Rendered {
        openai::json_answer(200, Vec::new())
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::new();
        for event in events {
            match event {
                _ if self.ended => break,
                Event::Started(started) => {
                    if let Some(model) = started.model {
                        self.model = model;
                    }
                }
                Event::Embedding(embedding) => self.vectors.push(embedding),
                Event::Usage(later) => usage::merge(self.usage.get_or_insert_default(), later),
                Event::Other(other) if other.dialect == NAME && other.scope == Scope::Envelope => {
                    self.envelope.add(&other.members, &ENVELOPE);
                }
                Event::Other(OtherEvent { scope: Scope::Choice(index), members, dialect }) if dialect == NAME => {
                    self.beside.entry(index).or_default().add(&members, &ENTRY);
                }
                Event::Done => {
                    self.ended = true;
                    self.whole(&mut out);
                }
                _ => {}
            }
        }
        out
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { openai::error_body(failure) }
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Writes a vector in one of the two encodings; `null` where it cannot be read.
pub(crate) fn write_vector(out: &mut Vec<u8>, vector: &Vector, base64: bool) {
    let start = out.len();
    if try_write_vector(out, vector, base64).is_none() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn try_write_vector(out: &mut Vec<u8>, vector: &Vector, base64: bool) -> Option<()> {
    match vector {
        Vector::Numbers(json) if base64 => {
            let mut floats = Vec::with_capacity(json.len() / 2);
            let mut ends = Vec::new();
            read_numbers(json, |number| match number {
                // One that a float cannot hold becomes the nearest that it can.
                Some(number) => floats.extend_from_slice(&number.parse().unwrap_or(f32::NAN).to_le_bytes()),
                None => ends.push(floats.len()),
            })?;
            if ends.is_empty() {
                write_base64(out, &floats);
                return Some(());
            }
            let mut start = 0;
            for (number, end) in ends.into_iter().enumerate() {
                out.push(if number == 0 { b'[' } else { b',' });
                write_base64(out, floats.get(start..end)?);
                start = end;
            }
            out.push(b']');
        }
        Vector::Numbers(json) => {
            read_numbers(json, |_| ())?;
            out.extend_from_slice(json.trim_ascii().as_bytes());
        }
        Vector::Base64(text) if base64 => write::string(out, text),
        Vector::Base64(text) => {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            let (floats, []) = bytes.as_chunks::<4>() else { return None };
            out.push(b'[');
            for (number, float) in floats.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                let float = f32::from_le_bytes(*float);
                // `Debug` gives the shortest text that reads back as the same float, with an exponent where it is long.
                if float.is_finite() { write!(out, "{float:?}").ok()? } else { out.extend_from_slice(b"null") }
            }
            out.push(b']');
        }
    }
    Some(())
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len() + 1;
    out.push(b'"');
    out.resize(start + bytes.len().div_ceil(3) * 4, b'"');
    // The space is exactly what the encoder needs.
    let written = out.get_mut(start..).and_then(|space| BASE64_STANDARD.encode_slice(bytes, space).ok());
    out.truncate(start + written.unwrap_or_default());
    out.push(b'"');
}

/// Reads an array of numbers, or of such arrays. `take` gets each number, and nothing behind each inner array. `None`
/// where `json` is something else.
fn read_numbers(json: &str, mut take: impl FnMut(Option<&str>)) -> Option<()> {
    let mut reader = Reader::new(json, 2);
    let rows = json.trim_ascii_start().as_bytes().get(1..)?.trim_ascii_start().starts_with(b"[");
    let number = |reader: &mut Reader<'_>, take: &mut dyn FnMut(Option<&str>)| match reader.kind() {
        Kind::Number => {
            take(Some(reader.raw()?));
            Ok(())
        }
        _ => reader.wrong("a number"),
    };
    reader
        .array(|reader, _| {
            if !rows {
                return number(reader, &mut take);
            }
            reader.array(|reader, _| number(reader, &mut take))?;
            take(None);
            Ok(())
        })
        .ok()?;
    reader.end().ok()
}
