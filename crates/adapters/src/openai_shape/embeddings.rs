//! OpenAI's embeddings: texts to vectors.

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{
    DialectJson, Embedding, EmbeddingInput, EmbeddingText, Error, Event, HttpRequest, Request, Scope, Started, Vector,
};

use super::decode::{USAGE, UsageObject};
use super::encode::post;
use super::json::{self, Members, Name, Object, complaint, count_of, object_of, text_of};
use super::policy::Policy;
use super::{EMBEDDINGS, Flavour, Settings, error};

/// Most texts of one request: each becomes an event, and one answer has at most 4,096.
const TEXTS: usize = 4000;

/// The HTTP request for these texts.
pub(super) fn encode(
    flavour: Flavour,
    settings: &Settings,
    request: &Request,
    input: &EmbeddingInput,
) -> Result<HttpRequest, Error> {
    let mut policy = Policy::new(flavour.backend(), request.dialect == EMBEDDINGS, settings.drop_unsupported);
    let count = input.texts.len();
    if count == 0 {
        return Err(Error::invalid("input", "must hold at least one text"));
    }
    if count > TEXTS {
        return Err(Error::invalid("input", format!("has {count} texts: at most {TEXTS} can be embedded at once")));
    }
    let extra = policy.extra(request.extra.as_deref(), &String::new, &[])?;
    let size = input.texts.iter().map(|text| match text {
        EmbeddingText::Text(text) => text.len() + text.len() / 16 + 4,
        EmbeddingText::Tokens(tokens) => tokens.len() * 6 + 4,
    });
    let mut out = Vec::with_capacity(256 + size.sum::<usize>());
    let mut top = Object::open(&mut out);
    top.string(&mut out, Name::Model, &request.model);
    top.name(&mut out, Name::Input);
    match input.texts.as_slice() {
        [one] if input.single => text(&mut out, one),
        texts => {
            out.push(b'[');
            for (at, one) in texts.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                text(&mut out, one);
            }
            out.push(b']');
        }
    }
    if let Some(dimensions) = input.dimensions {
        if flavour == Flavour::LlamaCpp {
            policy.refuse("dimensions", "llama.cpp gives vectors of the model's own length only")?;
        } else {
            top.integer(&mut out, Name::Dimensions, dimensions);
        }
    }
    if let Some(encoding) = &input.encoding {
        top.string(&mut out, Name::EncodingFormat, encoding);
    }
    if let Some(user) = &request.end_user {
        top.string(&mut out, Name::User, user);
    }
    top.splice(&mut out, &extra);
    top.close(&mut out);
    Ok(HttpRequest {
        context: Some(format!("embedding {count}")),
        dropped: policy.dropped,
        ..post(flavour, settings, &["embeddings"], false, out)
    })
}

fn text(out: &mut Vec<u8>, text: &EmbeddingText) {
    match text {
        EmbeddingText::Text(text) => json::string(out, text),
        EmbeddingText::Tokens(tokens) => {
            out.push(b'[');
            for (at, token) in tokens.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::integer(out, i128::from(*token));
            }
            out.push(b']');
        }
    }
}

/// One vector of the answer.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

/// For how many texts members beside a vector are told: an answer has a bound on its events.
const MOST_DESCRIBED: usize = 1_000;

/// What stands beside the vector and is not known here.
fn others<'a>(entry: &'a RawValue) -> Option<Members<'a>> {
    let mut members = Members::parse(Some(entry.get())).ok()?;
    members.0.retain(|(name, _)| !matches!(&**name, "index" | "embedding" | "object"));
    (!members.0.is_empty()).then_some(members)
}

/// The events of the whole answer to `expected` texts.
pub(super) fn whole(text: &str, expected: usize, out: &mut Vec<Event>) -> Result<(), Error> {
    let mut members = Members::parse(Some(text)).map_err(|error| {
        Error::malformed(format!("the backend's answer is not the JSON that its API promises: {}", complaint(&error)))
    })?;
    let mut take = |name: &str| {
        let at = members.0.iter().position(|(known, _)| known == name)?;
        Some(members.0.remove(at).1)
    };
    let (data, model, usage) = (take("data"), take("model"), take("usage"));
    take("object");
    // Some servers fail with the status of a success.
    if let Some(error) = take("error").filter(|error| error::is_error(error)) {
        return Err(error::of_object(None, error.get()));
    }
    let Some(data) = data else { return Err(Error::malformed("the backend's answer has no `data`")) };
    let wrong = |error: &serde_json::Error| {
        Error::malformed(format!("the answer's `data` is not a list of vectors: {}", complaint(error)))
    };
    let entries: Vec<&RawValue> = serde_json::from_str(data.get()).map_err(|error| wrong(&error))?;
    if entries.len() != expected {
        let count = entries.len();
        return Err(Error::malformed(format!("the answer has {count} vectors for {expected} texts")));
    }
    let model = model.and_then(text_of).filter(|model| !model.is_empty());
    out.push(Event::Started(Started { id: None, model: model.map(|model| model.into_owned()), created: None }));
    let mut seen = vec![false; expected];
    for (position, raw) in entries.into_iter().enumerate() {
        let entry: Entry<'_> = serde_json::from_str(raw.get()).map_err(|error| wrong(&error))?;
        let index = entry.index.and_then(count_of).unwrap_or(position as u64);
        match usize::try_from(index).ok().and_then(|index| seen.get_mut(index)) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(Error::malformed(format!("the answer's vector {position} is of a text {index}"))),
        }
        let values = match text_of(entry.embedding) {
            Some(base64) => Vector::Base64(base64.into_owned()),
            None if is_numbers(entry.embedding.get()) => Vector::Numbers(entry.embedding.get().to_owned()),
            None => {
                return Err(Error::malformed(format!("the answer's vector {position} is neither numbers nor base64")));
            }
        };
        out.push(Event::Embedding(Embedding { index: index as u32, values }));
        if let Some(others) = others(raw).filter(|_| expected <= MOST_DESCRIBED) {
            out.push(Event::other(EMBEDDINGS, Scope::Choice(index as u32), object_of(&others.0)));
        }
    }
    if let Some(raw) = usage
        && let Ok(said) = serde_json::from_str::<UsageObject<'_>>(raw.get())
    {
        let mut usage = said.counts();
        usage.raw = (raw.get().len() <= USAGE).then(|| DialectJson::new(EMBEDDINGS, raw.get()));
        out.push(Event::Usage(usage));
    }
    if !members.0.is_empty() {
        out.push(Event::other(EMBEDDINGS, Scope::Envelope, object_of(&members.0)));
    }
    out.push(Event::Done);
    Ok(())
}

/// True for JSON that is a list of numbers, or a list of such lists.
fn is_numbers(json: &str) -> bool {
    json.starts_with('[')
        && json.bytes().all(|byte| {
            matches!(
                byte,
                b'0'..=b'9' | b'[' | b']' | b',' | b'.' | b'+' | b'-' | b'e' | b'E' | b' ' | b'\n' | b'\r' | b'\t'
            )
        })
}
