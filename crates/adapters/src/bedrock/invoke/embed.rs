//! Embeddings: Amazon Titan Text Embeddings and Cohere Embed.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use witgate_model::{
    DialectJson, Embedding, EmbeddingInput, EmbeddingText, Error, Event, HttpRequest, Request, Scope, Started, Usage,
    Vector,
};

use super::super::http::{Encoding, internal};
use super::super::json::{Members, raw};
use super::super::model::Family;
use super::super::{Codec, Context};
use super::Counts;

/// The dialects of what only these answers have.
const TITAN: &str = "bedrock-titan-embed";
const COHERE: &str = "bedrock-cohere-embed";

/// Most texts of one request to Cohere's models.
const MOST_TEXTS: usize = 96;

/// Texts to vectors.
pub(in super::super) fn encode(
    mut encoding: Encoding<'_>,
    request: &Request,
    input: &EmbeddingInput,
) -> Result<HttpRequest, Error> {
    let (codec, backend, dimensions) = match encoding.target.family {
        Family::TitanEmbed1 => (Codec::Titan, "Amazon Titan Embeddings G1", None),
        Family::TitanEmbed2 => (Codec::Titan, "Amazon Titan Text Embeddings V2", Some("dimensions")),
        Family::CohereEmbed3 => (Codec::Cohere, "Cohere Embed 3 on Bedrock", None),
        Family::CohereEmbed4 => (Codec::Cohere, "Cohere Embed 4 on Bedrock", Some("output_dimension")),
        _ => {
            let message = "this model makes no embeddings that are known here: amazon.titan-embed-text-v1 and -v2 and \
                           cohere.embed-* do. For an ARN that does not tell, set `model_vendor` to `amazon` or `cohere`";
            return Err(Error::unsupported("model", message));
        }
    };
    encoding.refuse_extra(&request.extra, backend)?;
    if request.end_user.is_some() {
        encoding.refuse("user", format!("{backend} has no field for the end user"))?;
    }
    let texts = texts(input, backend)?;
    let mut fields = encoding.settings.additional_model_request_fields.clone().unwrap_or_default();
    match (input.dimensions, dimensions) {
        (Some(length), Some(name)) => fields.set(Cow::Borrowed(name), raw(&length).map_err(internal)?),
        (Some(_), None) => {
            encoding
                .refuse("dimensions", format!("the vectors of {backend} have one length, which can't be chosen"))?;
        }
        (None, _) => {}
    }
    let body = match codec {
        Codec::Titan => {
            let [text] = texts.as_slice() else {
                let message =
                    format!("{backend} takes one text in a request, not {}: send one request each", texts.len());
                return Err(Error::unsupported("input", message));
            };
            fields.remove("inputText");
            #[derive(Serialize)]
            struct Body<'a> {
                #[serde(rename = "inputText")]
                text: &'a str,
                #[serde(flatten)]
                fields: Members<'a>,
            }
            serde_json::to_vec(&Body { text, fields })
        }
        _ => {
            if texts.len() > MOST_TEXTS {
                let message = format!("{backend} takes at most {MOST_TEXTS} texts in a request, not {}", texts.len());
                return Err(Error::unsupported("input", message));
            }
            fields.remove("texts");
            fields.set(Cow::Borrowed("embedding_types"), raw(&["float"]).map_err(internal)?);
            if fields.get("input_type").is_none() {
                fields.set(Cow::Borrowed("input_type"), raw("search_document").map_err(internal)?);
            }
            #[derive(Serialize)]
            struct Body<'a> {
                texts: Vec<&'a str>,
                #[serde(flatten)]
                fields: Members<'a>,
            }
            serde_json::to_vec(&Body { texts, fields })
        }
    };
    let body = body.map_err(internal)?;
    encoding.invoke(false, false, body, &Context { codec, ..Context::default() })
}

fn texts<'a>(input: &'a EmbeddingInput, backend: &str) -> Result<Vec<&'a str>, Error> {
    let text = |(number, text): (usize, &'a EmbeddingText)| {
        let at = || if input.single { "input".to_owned() } else { format!("input[{number}]") };
        match text {
            EmbeddingText::Text(text) if text.is_empty() => {
                Err(Error::invalid(at(), format!("{backend} refuses empty text")))
            }
            EmbeddingText::Text(text) => Ok(text.as_str()),
            EmbeddingText::Tokens(_) => {
                Err(Error::unsupported(at(), format!("{backend} takes text, not numbers of tokens")))
            }
        }
    };
    input.texts.iter().enumerate().map(text).collect()
}

/// The events of an answer of Titan's; `None` where it is none.
pub(in super::super) fn titan(answer: &Members<'_>, counts: Counts) -> Option<Vec<Event>> {
    let types = answer.object("embeddingsByType");
    let vector = answer.get("embedding").or_else(|| types.as_ref()?.get("float"))?;
    let mut events = vec![Event::Started(Started::default()), vector_event(0, vector)?];
    usage(answer.number("inputTextTokenCount").or(counts.input), None, &mut events);
    rest(TITAN, &answer.without(&["embedding", "inputTextTokenCount", "embeddingsByType"]), &mut events);
    events.push(Event::Done);
    Some(events)
}

/// The events of an answer of Cohere's; `None` where it is none.
pub(in super::super) fn cohere(answer: &Members<'_>, counts: Counts) -> Option<Vec<Event>> {
    // A list of vectors, or one for each type.
    let all = answer.object("embeddings");
    let list = match &all {
        Some(all) => all.get("float")?,
        None => answer.get("embeddings")?,
    };
    let vectors: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    if vectors.is_empty() || vectors.len() > MOST_TEXTS {
        return None;
    }
    let id = answer.string("id").map(|id| id.into_owned());
    let mut events = vec![Event::Started(Started { id, ..Started::default() })];
    for (index, vector) in (0..).zip(vectors) {
        events.push(vector_event(index, vector)?);
    }
    let billed = answer.object("meta").and_then(|meta| meta.object("billed_units")?.number("input_tokens"));
    usage(billed.or(counts.input), answer.get("meta"), &mut events);
    rest(COHERE, &answer.without(&["embeddings", "id", "texts", "meta", "response_type"]), &mut events);
    events.push(Event::Done);
    Some(events)
}

fn vector_event(index: u32, vector: &RawValue) -> Option<Event> {
    let numbers = vector.get();
    let is_list = numbers.starts_with('[') && numbers != "[]";
    is_list.then(|| Event::Embedding(Embedding { index, values: Vector::Numbers(numbers.to_owned()) }))
}

fn usage(input_tokens: Option<u64>, raw: Option<&RawValue>, events: &mut Vec<Event>) {
    if input_tokens.is_some() {
        let raw = raw.map(|raw| DialectJson::new(COHERE, raw.get()));
        events.push(Event::Usage(Usage { input_tokens, raw, ..Usage::default() }));
    }
}

fn rest(dialect: &str, members: &Members<'_>, events: &mut Vec<Event>) {
    if !members.is_empty() {
        events.push(Event::other(dialect, Scope::Envelope, members.to_text()));
    }
}
