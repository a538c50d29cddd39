//! Kept responses: what a document holds, and the routes that ask for one.

use witgate_model::normaliser::{Client, Document, Rendered, Reply, Step};
use witgate_model::{Error, ErrorKind, Field};

use super::{at, is_key, is_response_id, later, later_key, made_in, replay};
use crate::openai;
use crate::read::{Kind, Read, Reader};
use crate::write;

/// Nesting allowed in a document of our own: a little more than in what it was made of.
const DEPTH: usize = 256;

/// Most items on one page.
const MOST_ITEMS: usize = 100;

/// What a document of a response holds.
#[derive(Debug, Default)]
pub(super) struct Kept<'a> {
    /// The response, as the client got it.
    pub(super) response: &'a str,
    /// The items of its conversation, up to the answer.
    pub(super) input: Vec<&'a str>,
    /// The items of the answer.
    pub(super) output: Vec<&'a str>,
}

impl<'a> Kept<'a> {
    /// The document of a response. `response` is its object, `input` are the items in front of it, with commas between.
    pub(super) fn write(response: &str, input: &str) -> String {
        format!("{{\"response\":{response},\"input\":[{input}]}}")
    }

    pub(super) fn read(document: &'a str) -> Result<Self, Error> {
        let mut kept = Kept::default();
        let mut reader = Reader::new(document, DEPTH);
        let result = reader.object(|reader, name| {
            match &*name.text {
                "input" => kept.input = items(reader)?,
                "response" => {
                    let start = reader.position();
                    reader.object(|reader, name| {
                        match &*name.text {
                            "output" => kept.output = items(reader)?,
                            _ => drop(reader.raw()?),
                        }
                        Ok(())
                    })?;
                    kept.response = reader.since(start);
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        });
        if result.and_then(|()| reader.end()).is_err() || kept.response.is_empty() {
            let message = "a kept response is not what this gateway writes";
            return Err(Error::new(ErrorKind::Other("internal".to_owned()), message).with_status(500));
        }
        Ok(kept)
    }

    /// The status of the response.
    pub(super) fn status(&self) -> Option<String> {
        Some(Reader::new(self.response, DEPTH).tag("status").ok()??.into_owned())
    }

    /// The whole conversation.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a str> {
        self.input.iter().chain(&self.output).copied()
    }
}

fn items<'a>(reader: &mut Reader<'a>) -> Read<Vec<&'a str>> {
    reader.list(Reader::raw_object)
}

/// The `id` of an item.
pub(super) fn id_of(item: &str) -> Option<String> {
    Some(Reader::new(item, DEPTH).tag("id").ok()??.into_owned())
}

/// Kept documents that a request refers to.
#[derive(Debug, Default)]
pub(super) struct Shelf<'a> {
    responses: Vec<(&'a str, Kept<'a>)>,
    items: Vec<(&'a str, &'a str)>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(documents: &'a [Document]) -> Result<Self, Error> {
        let mut shelf = Shelf::default();
        for document in documents {
            let Some(content) = &document.content else { continue };
            if is_response_id(&document.at.key) {
                shelf.responses.push((&document.at.key, Kept::read(content)?));
            } else {
                shelf.items.push((&document.at.key, content));
            }
        }
        Ok(shelf)
    }

    pub(super) fn response(&self, id: &str) -> Option<&Kept<'a>> {
        self.responses.iter().find(|(own, _)| *own == id).map(|(_, kept)| kept)
    }

    /// Every item that can be referred to, with its id.
    pub(super) fn all(&self) -> std::collections::BTreeMap<String, &'a str> {
        let kept = self.responses.iter().flat_map(|(_, kept)| kept.items());
        let mut all: std::collections::BTreeMap<_, _> = kept.filter_map(|item| Some((id_of(item)?, item))).collect();
        all.extend(self.items.iter().map(|(id, item)| ((*id).to_owned(), *item)));
        all
    }
}

/// There is nothing of that id.
pub(super) fn missing(param: &str, what: &str, id: &str) -> Error {
    let shown: String = id.chars().take(64).collect();
    let message =
        format!("{what} with id '{shown}' not found: it was not stored, was deleted, or was too large to keep");
    Error::new(ErrorKind::NotFound, message).with_status(404).with_param(param)
}

/// What is asked about one response.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    id: &'a str,
    /// Behind the id: `input_items`, `cancel`, or nothing.
    what: &'a str,
    query: &'a [Field],
}

/// What the client asks about a response; `None` where it wants a new one.
pub(super) fn asked(client: &Client) -> Option<Asked<'_>> {
    let rest = client.path.strip_prefix("/v1/responses/")?;
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    Some(Asked { id, what, query: &client.query })
}

/// The answer to a question about a kept response.
pub(super) fn answer(client: &Client, asked: &Asked<'_>) -> Result<Step, Error> {
    let id = asked.id;
    let known = matches!(
        (client.method.as_str(), asked.what),
        ("GET" | "HEAD", "" | "input_items") | ("DELETE", "") | ("POST", "cancel")
    );
    if !known || !is_response_id(id) {
        return Err(missing("id", "Response", id));
    }
    let given_later = later_key(id);
    let mut wanted = at(id);
    if given_later.is_some() && asked.what == "cancel" {
        "cancelled".clone_into(&mut wanted.kind);
    }
    let Some(document) = client.documents.iter().find(|document| document.at == wanted) else {
        return Ok(Step::Needs(vec![wanted]));
    };
    let Document { content: Some(content), .. } = later::as_kept(document)? else {
        return Err(missing("id", "Response", id));
    };
    let kept = Kept::read(&content)?;
    let mut forget = Vec::new();
    let body = match (client.method.as_str(), asked.what) {
        ("GET" | "HEAD", "input_items") => page(&kept, asked.query)?,
        ("GET" | "HEAD", _) => {
            include(asked.query)?;
            let after = starting_after(asked.query)?;
            if streamed(asked.query)? {
                if let (Some(key), Some(document)) = (given_later, &document.content) {
                    return later::stream(document, key, &kept, after);
                }
                let rendered = openai::stream_answer();
                let rendered = Rendered { body: replay::stream(&kept, after), ..rendered };
                return Ok(Step::Answer(Reply { rendered, forget }));
            }
            if after.is_some() {
                return Err(wrong("starting_after", "is for `stream=true` alone"));
            }
            kept.response.as_bytes().to_vec()
        }
        ("DELETE", _) => {
            forget.push(at(id));
            let named = kept.output.iter().filter_map(|item| id_of(item));
            forget.extend(named.filter(|id| is_key(id) && made_in(id).is_none()).map(at));
            format!("{{\"id\":\"{id}\",\"object\":\"response\",\"deleted\":true}}").into_bytes()
        }
        _ if given_later.is_some() => kept.response.as_bytes().to_vec(),
        _ => return Err(later::not_in_background()),
    };
    Ok(Step::Answer(Reply { rendered: openai::json_answer(200, body), forget }))
}

/// The value of a query parameter.
fn parameter<'a>(query: &'a [Field], name: &str) -> Option<&'a str> {
    query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

fn wrong(param: &str, message: impl Into<String>) -> Error {
    Error::invalid(param, message).with_status(400)
}

/// Whether the response is to be given as a stream.
fn streamed(query: &[Field]) -> Result<bool, Error> {
    match parameter(query, "stream") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(wrong("stream", "must be `true` or `false`")),
    }
}

fn starting_after(query: &[Field]) -> Result<Option<u64>, Error> {
    let number = parameter(query, "starting_after").map(str::parse).transpose();
    number.map_err(|_| wrong("starting_after", "must be the number of an event, a whole number from 0"))
}

/// What a client may ask for beside the items themselves. All that is kept is given anyway.
const INCLUDE: [&str; 8] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

fn include(query: &[Field]) -> Result<(), Error> {
    let named = query.iter().filter(|(name, _)| name == "include" || name.starts_with("include["));
    for asked in named.flat_map(|(_, value)| value.split(',')) {
        if !INCLUDE.contains(&asked) {
            return Err(wrong("include", format!("must be one of {}", INCLUDE.join(", "))));
        }
    }
    Ok(())
}

/// A page of the items in front of an answer.
fn page(kept: &Kept<'_>, query: &[Field]) -> Result<Vec<u8>, Error> {
    include(query)?;
    let limit = match parameter(query, "limit").map(str::parse) {
        None => 20,
        Some(Ok(limit @ 1..=MOST_ITEMS)) => limit,
        Some(_) => {
            let message = format!("must be a whole number from 1 to {MOST_ITEMS}");
            return Err(wrong("limit", message));
        }
    };
    let mut items: Vec<(Option<String>, &str)> = kept.input.iter().map(|item| (id_of(item), *item)).collect();
    match parameter(query, "order") {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => return Err(wrong("order", "must be `asc` or `desc`")),
    }
    let first = match parameter(query, "after") {
        None => 0,
        Some(after) => match items.iter().position(|(id, _)| id.as_deref() == Some(after)) {
            Some(at) => at + 1,
            None => return Err(missing("after", "Item", after)),
        },
    };
    let rest = items.get(first..).unwrap_or_default();
    let shown = rest.get(..limit.min(rest.len())).unwrap_or_default();
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (number, (_, item)) in shown.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.as_bytes());
    }
    out.extend_from_slice(b"],\"first_id\":");
    write::string_or_null(&mut out, shown.first().and_then(|(id, _)| id.as_deref()));
    out.extend_from_slice(b",\"last_id\":");
    write::string_or_null(&mut out, shown.last().and_then(|(id, _)| id.as_deref()));
    out.extend_from_slice(if rest.len() > shown.len() { b",\"has_more\":true}" } else { b",\"has_more\":false}" });
    Ok(out)
}

/// An item as it is kept: with an id and a type. `made` names the response in which it is kept.
pub(super) fn named(item: &str, made: &str, number: usize) -> String {
    let (mut id, mut typed, mut prefix) = (false, false, "msg");
    let result = Reader::new(item, DEPTH).object(|reader, name| {
        match &*name.text {
            "id" => id = true,
            "type" => {
                typed = true;
                if reader.kind() == Kind::String {
                    prefix = match &*reader.string()? {
                        "message" => "msg",
                        "function_call" => "fc",
                        "function_call_output" => "fco",
                        "reasoning" => "rs",
                        _ => "item",
                    };
                    return Ok(());
                }
            }
            _ => {}
        }
        reader.raw().map(drop)
    });
    let rest = item.strip_prefix('{').map(str::trim_ascii_start).unwrap_or_default();
    if id || result.is_err() || rest.is_empty() || rest.starts_with('}') {
        return item.to_owned();
    }
    let kind = if typed { "" } else { "\"type\":\"message\"," };
    format!("{{\"id\":\"{prefix}_{made}_i{number}\",{kind}{rest}")
}
