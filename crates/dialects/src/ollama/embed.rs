//! Embeddings, by both of the APIs for them.

use witgate_model::normaliser::{AnswerStart, Failure, Limits, Parsed, Rendered};
use witgate_model::{Embedding, EmbeddingInput, EmbeddingText, Error, Event, Input, Request, Scope, Usage};

use super::parse::{given, is_empty};
use super::{Api, Flags, durations, error_body, is_ollama};
use crate::members::Waiting;
use crate::openai::{json_answer, read_body};
use crate::openai_embeddings::write_vector;
use crate::read::{Kind, Read, Reader};
use crate::write::{self, Members};
use crate::{Dialect, Render, usage};

/// The most texts of one request.
const MOST_TEXTS: usize = 16_384;

/// Reads a request to `/api/embed`, or to the older `/api/embeddings`.
pub(super) fn parse(api: Api, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    let old = api == Api::Embeddings;
    read_body(body, limits.depth, |reader| {
        let mut model = String::new();
        let mut input = EmbeddingInput::default();
        let mut extra = Members::default();
        reader.object(|reader, name| {
            match &*name.text {
                "model" => model = reader.optional(Reader::owned)?.unwrap_or_default(),
                "prompt" if old => one_text(reader, &mut input)?,
                "input" if !old => texts(reader, &mut input)?,
                "dimensions" if !old => input.dimensions = reader.optional(Reader::u32)?.filter(|&count| count > 0),
                "options" => {
                    if let Some(options) = reader.optional(Reader::raw_object)?.filter(|object| !is_empty(object)) {
                        extra.push_raw(name.raw, options);
                    }
                }
                "keep_alive" | "truncate" if reader.kind() == Kind::Null => drop(reader.raw()?),
                _ => extra.push_raw(name.raw, reader.raw()?),
            }
            Ok(())
        })?;
        let nothing = input.texts.is_empty().then_some("load");
        let input = if nothing.is_some() { Input::Chat(Vec::new()) } else { Input::Embedding(input) };
        let mut request = Request::new(api.name(), model, input);
        request.extra = extra.finish();
        Ok(Parsed { request, render: Flags { stream: false, nothing }.to_text() })
    })
}

fn one_text(reader: &mut Reader<'_>, input: &mut EmbeddingInput) -> Read<()> {
    input.single = true;
    input.texts = given(reader)?.map(EmbeddingText::Text).into_iter().collect();
    Ok(())
}

/// `input`: a text, or an array of them.
fn texts(reader: &mut Reader<'_>, input: &mut EmbeddingInput) -> Read<()> {
    match reader.kind() {
        Kind::String | Kind::Null => one_text(reader, input),
        Kind::Array => reader.array(|reader, index| {
            if index >= MOST_TEXTS {
                let position = reader.position();
                return reader.fault(position, format!("is one text too many: at most {MOST_TEXTS} are allowed"));
            }
            input.texts.push(EmbeddingText::Text(reader.owned()?));
            Ok(())
        }),
        _ => reader.wrong("a string or an array of strings"),
    }
}

// Members that we write ourselves: a backend's unknown members never replace them. `error` would make clients take the
// answer for a failure.
const OURS: [&str; 5] = ["model", "embeddings", "embedding", "prompt_eval_count", "error"];

/// The renderer of one answer.
pub(super) struct Vectors {
    api: Api,
    model: String,
    vectors: Vec<Embedding>,
    beside: Waiting,
    usage: Option<Usage>,
    ended: bool,
}

impl Vectors {
    pub(super) fn new(api: Api, start: AnswerStart) -> Self {
        let (vectors, beside) = (Vec::new(), Waiting::default());
        Vectors { api, model: start.model, vectors, beside, usage: None, ended: false }
    }

    fn whole(&mut self, out: &mut Vec<u8>) {
        self.vectors.sort_by_key(|vector| vector.index);
        if self.api == Api::Embeddings {
            out.extend_from_slice(b"{\"embedding\":");
            match self.vectors.first() {
                Some(vector) => write_vector(out, &vector.values, false),
                None => out.extend_from_slice(b"[]"),
            }
        } else {
            out.extend_from_slice(b"{\"model\":");
            write::string(out, &self.model);
            out.extend_from_slice(b",\"embeddings\":[");
            for (number, vector) in self.vectors.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_vector(out, &vector.values, false);
            }
            out.push(b']');
            let mut members = durations(self.usage.as_ref(), &OURS);
            members.extend(std::mem::take(&mut self.beside));
            self.beside = members;
            if let Some(count) = self.usage.as_ref().and_then(|usage| usage.input_tokens) {
                out.extend_from_slice(b",\"prompt_eval_count\":");
                write::number(out, count);
            }
        }
        self.beside.write(out, false);
        out.push(b'}');
    }
}

impl Render for Vectors {
    fn head(&self) -> Rendered {
        json_answer(200, Vec::new())
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
                Event::Other(other) if is_ollama(&other.dialect) && other.scope == Scope::Envelope => {
                    self.beside.add(&other.members, &OURS);
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
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { error_body(&failure.error) }
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}
