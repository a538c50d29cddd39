//! A request for a response to a normalised one.

use std::collections::BTreeMap;

use witgate_model::normaliser::{Document, DocumentRef, Later, Limits, Parsed, Step};
use witgate_model::{
    Error, FunctionTool, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart,
    Request, ResponseFormat, ResultContent, Role, Sampling, TextPart, Tool, ToolCall, ToolResult,
};

use super::stored::{self, Shelf};
use super::{LATER, MOST_KEPT, NAME, at, is_key, is_response_id, made_in};
use crate::openai::{self, read_body};
use crate::openai_chat::parse::{data_url, function_tool, result_content};
use crate::read::{self, Kind, Read, Reader};
use crate::write::{self, Members};

/// Most documents that one request may need.
const MOST_DOCUMENTS: usize = 8;

/// Most bytes that a request may refer to: one small reference may stand for a large item.
const MOST_REFERRED: usize = 4 * MOST_KEPT;

/// Members of the request that stand in the response.
const ECHOED: [&str; 19] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// What the API adds to an item when it answers.
const OF_ANSWERS: [&str; 3] = ["type", "id", "status"];

/// What a request refers to.
#[derive(Default)]
struct References {
    previous: Option<String>,
    items: Vec<String>,
}

/// Reads a whole request. `documents` are those that it has asked for before.
pub(super) fn create(documents: &[Document], limits: &Limits, body: &[u8]) -> Result<Step, Error> {
    let references = read_body(body, limits.depth, references)?;
    if documents.is_empty() {
        let needs = needs(&references)?;
        if !needs.is_empty() {
            return Ok(Step::Needs(needs));
        }
    }
    let shelf = Shelf::new(documents)?;
    let mut conversation = Conversation::new(limits);
    if !references.items.is_empty() {
        conversation.known = shelf.all();
    }
    if let Some(id) = &references.previous {
        let Some(kept) = shelf.response(id) else {
            return Err(stored::missing("previous_response_id", "Previous response", id)
                .with_code("previous_response_not_found"));
        };
        if let Some(status) = kept.status().filter(|status| is_unanswered(status)) {
            let message = format!("is {status}: a conversation goes on from a response that is completed");
            return Err(Error::invalid("previous_response_id", message).with_status(400));
        }
        for item in kept.items() {
            let mut reader = Reader::new(item, read_depth(limits));
            conversation.item(&mut reader).map_err(|fault| {
                let message = format!("the conversation so far: an item {}", fault.message());
                Error::invalid("previous_response_id", message).with_status(400)
            })?;
        }
    }
    for id in &references.items {
        if !conversation.known.contains_key(id) {
            return Err(stored::missing("input", "Item", id));
        }
    }
    let whole = Whole { conversation, previous: references.previous };
    let (parsed, when) = read_body(body, limits.depth, |reader| request(reader, whole))?;
    Ok(match when {
        When::Unkept => Step::Ask(parsed),
        When::Kept => Step::Follow(parsed),
        When::Later => Step::Later(Later { parsed, path: format!("/v1/responses/resp_{LATER}{{id}}") }),
    })
}

/// Whether the status of a response says that it is no answer, or none yet.
fn is_unanswered(status: &str) -> bool {
    matches!(status, "queued" | "in_progress" | "cancelled" | "failed")
}

/// Nesting of a kept item: what its own request was allowed, whatever the bound is now.
fn read_depth(limits: &Limits) -> usize {
    (limits.depth as usize).max(crate::members::DEPTH)
}

/// The documents that hold what is referred to.
fn needs(references: &References) -> Result<Vec<DocumentRef>, Error> {
    let mut keys: Vec<String> = Vec::new();
    if let Some(id) = &references.previous {
        if !is_response_id(id) {
            return Err(stored::missing("previous_response_id", "Previous response", id)
                .with_code("previous_response_not_found"));
        }
        keys.push(id.clone());
    }
    // The newest first: a kept conversation holds the items before it.
    for id in references.items.iter().rev() {
        if !is_key(id) || is_response_id(id) {
            return Err(stored::missing("input", "Item", id));
        }
        let key = made_in(id).map_or_else(|| id.clone(), |answer| format!("resp_{answer}"));
        if keys.len() < MOST_DOCUMENTS && !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys.into_iter().map(at).collect())
}

/// A first look at the body.
fn references(reader: &mut Reader<'_>) -> Read<References> {
    let mut references = References::default();
    reader.object(|reader, name| {
        match &*name.text {
            "previous_response_id" => references.previous = reader.optional(Reader::owned)?,
            "input" if reader.kind() == Kind::Array => reader.array(|reader, _| {
                if reader.kind() == Kind::Object && reader.tag("type")?.as_deref() == Some("item_reference") {
                    let start = reader.position();
                    match reader.tag("id")? {
                        Some(id) => references.items.push(id.into_owned()),
                        None => return reader.fault_in(start, "id", "is missing: the item that is referred to"),
                    }
                }
                reader.raw().map(drop)
            })?,
            _ => drop(reader.raw()?),
        }
        Ok(())
    })?;
    Ok(references)
}

/// What becomes of the answer.
enum When {
    /// It is given, and forgotten.
    Unkept,
    /// It is given, and kept.
    Kept,
    /// It is kept, and given to who asks for it.
    Later,
}

/// What a request is made with.
struct Whole<'d> {
    conversation: Conversation<'d>,
    previous: Option<String>,
}

fn request(reader: &mut Reader<'_>, whole: Whole<'_>) -> Read<(Parsed, When)> {
    let Whole { mut conversation, previous } = whole;
    let start = reader.position();
    let mut model = String::new();
    let mut instructions = None;
    let mut input_at = None;
    let mut own_input = false;
    let mut tools = Vec::new();
    let mut tool_choice = None;
    let mut parallel_tool_calls = None;
    let mut response_format = None;
    let mut thinking: Option<Reasoning> = None;
    let mut sampling = Sampling::default();
    let mut end_user = None;
    let mut include = None;
    let mut store = true;
    let mut background = None;
    let mut stream = false;
    let mut extra = Members::default();
    let mut echo = Members::default();
    reader.object(|reader, name| {
        let from = reader.position();
        let null = reader.kind() == Kind::Null;
        match &*name.text {
            "model" => model = reader.optional(Reader::owned)?.unwrap_or_default(),
            "instructions" => instructions = reader.optional(Reader::owned)?,
            "input" => {
                input_at = Some(from);
                match reader.kind() {
                    Kind::String => conversation.text(reader.owned()?),
                    Kind::Array => {
                        reader.array(|reader, _| conversation.item(reader))?;
                        conversation.listed();
                    }
                    _ => return reader.wrong("a string or an array of items"),
                }
            }
            "tools" => tools = reader.optional(|reader| reader.list(tool))?.unwrap_or_default(),
            "tool_choice" => tool_choice = reader.optional(|reader| openai::tool_choice(reader, false))?,
            "parallel_tool_calls" => parallel_tool_calls = reader.optional(Reader::bool)?,
            "text" => {
                reader.optional(|reader| {
                    let mut rest = Members::default();
                    reader.object(|reader, name| {
                        match &*name.text {
                            "format" => response_format = reader.optional(format)?,
                            _ => rest.push_raw(name.raw, reader.raw()?),
                        }
                        Ok(())
                    })?;
                    extra.push_members("text", rest);
                    Ok(())
                })?;
            }
            "reasoning" => thinking = reader.optional(reasoning)?,
            "max_output_tokens" => sampling.max_completion_tokens = reader.optional(Reader::u64)?,
            "temperature" => sampling.temperature = reader.optional(Reader::f64)?,
            "top_p" => sampling.top_p = reader.optional(Reader::f64)?,
            "top_logprobs" => sampling.top_logprobs = reader.optional(Reader::u32)?,
            "user" => end_user = reader.optional(Reader::owned)?,
            "include" => include = reader.optional(self::include)?.map(|list| (reader.since(from), list)),
            "store" => store = reader.optional(Reader::bool)?.unwrap_or(true),
            "stream" => stream = reader.optional(Reader::bool)?.unwrap_or_default(),
            "previous_response_id" => drop(reader.raw()?),
            "background" => background = reader.optional(Reader::bool)?.filter(|later| *later).map(|_| from),
            text => {
                // These bring an input of their own.
                own_input |= matches!(text, "prompt" | "conversation") && !null;
                extra.push_raw(name.raw, reader.raw()?);
            }
        }
        if !null && ECHOED.contains(&&*name.text) {
            echo.push(&name.text, reader.since(from));
        }
        Ok(())
    })?;
    if conversation.messages.is_empty() && !own_input {
        return match input_at {
            Some(position) => reader.fault_in(position, "input", "must hold at least one item, found none"),
            None => reader.fault_in(start, "input", "is missing: a string or an array of items"),
        };
    }
    if let Some((raw, list)) = include {
        sampling.logprobs = list.logprobs.then_some(true);
        if list.others || (list.encrypted && !thinking.as_ref().is_some_and(asks_for_reasoning)) {
            extra.push("include", raw);
        }
    }
    if let Some(position) = background {
        if !store {
            return reader.fault_in(position, "background", "needs `store`, which is false: the answer is given later");
        }
        if conversation.kept.is_none() {
            let message = format!("needs a conversation that can be kept: this one is larger than {MOST_KEPT} bytes");
            return reader.fault_in(position, "background", &message);
        }
    }
    let when = match (background, store) {
        (Some(_), _) => When::Later,
        (None, true) => When::Kept,
        (None, false) => When::Unkept,
    };
    let background = background.is_some();
    let summary = thinking.as_ref().is_some_and(|thinking| thinking.summary.is_some());
    let kept = if store { conversation.kept } else { None };
    let render = Render { stream, store, background, summary, previous, echo: echo.finish(), kept }.to_text();
    let mut messages = conversation.messages;
    if let Some(text) = instructions {
        messages.insert(0, Message::text(Role::System, text));
    }
    let mut request = Request::new(NAME, model, Input::Chat(messages));
    request.tools = tools;
    request.tool_choice = tool_choice;
    request.parallel_tool_calls = parallel_tool_calls;
    request.response_format = response_format;
    request.reasoning = thinking;
    request.sampling = sampling;
    request.stream = stream;
    request.end_user = end_user;
    request.extra = extra.finish();
    Ok((Parsed { request, render }, when))
}

/// What the renderer must know of the request: the opaque `render` of the parsed request.
#[derive(Debug, Default)]
pub(super) struct Render {
    /// Server-sent events are wanted.
    pub(super) stream: bool,
    /// The response is to be kept.
    pub(super) store: bool,
    /// It is given later.
    pub(super) background: bool,
    /// A summary of the reasoning is wanted.
    pub(super) summary: bool,
    pub(super) previous: Option<String>,
    /// Members of the request that stand in the response, as an object.
    pub(super) echo: Option<String>,
    /// The items of the conversation, with commas between, where they are to be kept.
    pub(super) kept: Option<String>,
}

impl Render {
    fn to_text(&self) -> String {
        let mut out = Vec::with_capacity(128 + self.kept.as_ref().map_or(0, String::len));
        let flags = [
            ("stream", self.stream),
            ("store", self.store),
            ("background", self.background),
            ("summary", self.summary),
        ];
        for (name, value) in flags {
            out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(if value { b"\":true" } else { b"\":false" });
        }
        out.extend_from_slice(b",\"previous\":");
        write::string_or_null(&mut out, self.previous.as_deref());
        out.extend_from_slice(b",\"echo\":");
        out.extend_from_slice(self.echo.as_deref().unwrap_or("null").as_bytes());
        out.extend_from_slice(b",\"kept\":");
        match &self.kept {
            Some(items) => {
                out.push(b'[');
                out.extend_from_slice(items.as_bytes());
                out.push(b']');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        String::from_utf8(out).unwrap_or_default()
    }

    /// Reads what [`Render::to_text`] wrote.
    pub(super) fn from_text(text: &str) -> Self {
        let mut render = Render::default();
        let mut reader = Reader::new(text, usize::MAX);
        let result = reader.object(|reader, name| {
            match &*name.text {
                "stream" => render.stream = reader.bool()?,
                "store" => render.store = reader.bool()?,
                "background" => render.background = reader.bool()?,
                "summary" => render.summary = reader.bool()?,
                "previous" => render.previous = reader.optional(Reader::owned)?,
                "echo" => render.echo = reader.optional(Reader::raw_object)?.map(str::to_owned),
                "kept" => {
                    render.kept = reader.optional(Reader::raw)?.map(|kept| crate::members::elements(kept).to_owned())
                }
                _ => drop(reader.raw()?),
            }
            Ok(())
        });
        if result.is_ok() { render } else { Render::default() }
    }
}

/// What `include` asks for.
#[derive(Default)]
struct Include {
    logprobs: bool,
    encrypted: bool,
    others: bool,
}

fn include(reader: &mut Reader<'_>) -> Read<Include> {
    let mut include = Include::default();
    reader.array(|reader, _| {
        match &*reader.string()? {
            "message.output_text.logprobs" => include.logprobs = true,
            "reasoning.encrypted_content" => include.encrypted = true,
            _ => include.others = true,
        }
        Ok(())
    })?;
    Ok(include)
}

/// Such a request is given encrypted reasoning by every backend that has it.
fn asks_for_reasoning(reasoning: &Reasoning) -> bool {
    let off = reasoning.effort.as_deref() == Some("none");
    !off && (reasoning.effort.is_some() || reasoning.summary.is_some())
}

/// A conversation that grows.
struct Conversation<'d> {
    messages: Vec<Message>,
    /// Items so far.
    count: usize,
    limits: Limits,
    /// Items that can be referred to.
    known: BTreeMap<String, &'d str>,
    /// Bytes of the items that were referred to.
    referred: usize,
    /// The items, with commas between, as long as they can be kept.
    kept: Option<String>,
}

impl<'d> Conversation<'d> {
    fn new(limits: &Limits) -> Self {
        let kept = Some(String::new());
        Conversation {
            messages: Vec::new(),
            count: 0,
            limits: limits.clone(),
            known: BTreeMap::new(),
            referred: 0,
            kept,
        }
    }

    /// Remembers an item as it was written.
    fn keep(&mut self, item: &str) {
        let Some(kept) = &mut self.kept else { return };
        if kept.len() + item.len() >= MOST_KEPT {
            self.kept = None;
            return;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(item);
    }

    /// An input that is one text.
    fn text(&mut self, text: String) {
        let mut item =
            b"{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":".to_vec();
        write::string(&mut item, &text);
        item.extend_from_slice(b"}]}");
        self.keep(&String::from_utf8(item).unwrap_or_default());
        self.messages.push(Message::text(Role::User, text));
    }

    /// One item.
    /// The input was a list: a string of the system in front of it could also be `instructions`, and one of the user alone an
    /// input that is that string.
    fn listed(&mut self) {
        let alone = self.messages.len() == 1;
        if let Some(Message { role, parts, extra: extra @ None, .. }) = self.messages.first_mut()
            && (*role == Role::System || (*role == Role::User && alone))
            && matches!(parts.as_slice(), [Part::Text(TextPart { extra: None, .. })])
        {
            *extra = Some("{}".to_owned());
        }
    }

    fn item(&mut self, reader: &mut Reader<'_>) -> Read<()> {
        let start = reader.position();
        if self.count >= self.limits.messages as usize {
            let most = self.limits.messages;
            return reader.fault(start, format!("is one item too many: at most {most} are allowed"));
        }
        self.count += 1;
        let kind = reader.tag("type")?;
        let known =
            matches!(kind.as_deref(), None | Some("message" | "function_call" | "function_call_output" | "reasoning"));
        let keep = known && reader.tag("id")?.is_some_and(|id| made_in(&id).is_none());
        match kind.as_deref() {
            Some("message") => self.message(reader, keep)?,
            None if reader.tag("role")?.is_some() => self.message(reader, keep)?,
            None => {
                return reader.fault_in(
                    start,
                    "type",
                    "is missing: every item but a message needs one, as \"message\"",
                );
            }
            Some("function_call") => {
                let part = function_call(reader, &self.limits, keep)?;
                self.assistant().parts.push(part);
            }
            Some("function_call_output") => {
                let part = function_call_output(reader, keep)?;
                self.messages.push(Message { role: Role::Tool, name: None, parts: vec![part], extra: None });
            }
            Some("reasoning") => {
                let part = reasoning_item(reader, keep)?;
                self.assistant().parts.push(part);
            }
            Some("item_reference") => {
                let id = reader.tag("id")?.unwrap_or_default();
                reader.raw_object()?;
                // That it is known was seen before.
                let Some(item) = self.known.get(&*id).copied() else { return Ok(()) };
                self.count -= 1;
                self.referred += item.len();
                if self.referred > MOST_REFERRED {
                    let message = format!("is one reference too many: they stand for more than {MOST_REFERRED} bytes");
                    return reader.fault(start, message);
                }
                let mut referred = Reader::new(item, read_depth(&self.limits));
                if referred.tag("type").ok().flatten().as_deref() == Some("item_reference") {
                    return Ok(());
                }
                let read = self.item(&mut referred);
                return read
                    .or_else(|fault| reader.fault(start, format!("refers to an item that {}", fault.message())));
            }
            Some(kind) if is_content(kind) => {
                let message = format!("is \"{kind}\", which is content: it belongs in the `content` of a message");
                return reader.fault_in(start, "type", message);
            }
            Some(kind) => {
                let part = Part::Other(reader.raw_object()?.to_owned());
                if kind.ends_with("_output") {
                    self.messages.push(Message { role: Role::Tool, name: None, parts: vec![part], extra: None });
                } else {
                    self.assistant().parts.push(part);
                }
            }
        }
        self.keep(reader.since(start));
        Ok(())
    }

    /// The message of the assistant that what it said next belongs to.
    fn assistant(&mut self) -> &mut Message {
        if self.messages.last().is_none_or(|last| last.role != Role::Assistant) {
            self.messages.push(Message { role: Role::Assistant, name: None, parts: Vec::new(), extra: None });
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }

    fn message(&mut self, reader: &mut Reader<'_>, keep: bool) -> Read<()> {
        let start = reader.position();
        let mut role = None;
        let mut parts = None;
        let mut extra = Members::default();
        reader.object(|reader, name| {
            match &*name.text {
                "role" => role = Some(self::role(reader)?),
                "content" => parts = Some(content(reader, keep)?),
                text if OF_ANSWERS.contains(&text) && !keep => drop(reader.raw()?),
                _ => extra.push_raw(name.raw, reader.raw()?),
            }
            Ok(())
        })?;
        let Some(role) = role else {
            return reader.fault_in(start, "role", "is missing: every message needs one, as \"user\"");
        };
        let Some(mut parts) = parts else {
            return reader.fault_in(start, "content", "is missing: a string or an array of parts");
        };
        let extra = extra.finish();
        if role == Role::Assistant && !parts.is_empty() {
            let free = |message: &Message| {
                let item = |part: &Part| matches!(part, Part::Reasoning(_) | Part::ToolCall(_));
                message.role == Role::Assistant && message.extra.is_none() && message.parts.iter().all(item)
            };
            if let Some(last) = self.messages.last_mut().filter(|last| free(last)) {
                last.parts.append(&mut parts);
                last.extra = extra;
                return Ok(());
            }
        }
        self.messages.push(Message { role, name: None, parts, extra });
        Ok(())
    }
}

/// True for the type of a piece of a message.
pub(super) fn is_content(kind: &str) -> bool {
    kind.starts_with("input_") || matches!(kind, "output_text" | "refusal" | "text")
}

fn role(reader: &mut Reader<'_>) -> Read<Role> {
    let start = reader.position();
    let role = reader.string()?;
    Ok(match &*role {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => {
            let message =
                "is \"tool\", which this API does not have: a tool's result is an item `function_call_output`";
            return reader.fault(start, message);
        }
        "" => return reader.fault(start, "is empty: expected a role, as \"user\""),
        _ => Role::Other(role.into_owned()),
    })
}

fn content(reader: &mut Reader<'_>, keep: bool) -> Read<Vec<Part>> {
    match reader.kind() {
        Kind::String => Ok(vec![Part::text(reader.owned()?)]),
        Kind::Array => reader.list(|reader| part(reader, keep)),
        _ => reader.wrong("a string or an array of parts"),
    }
}

/// One piece of a message.
fn part(reader: &mut Reader<'_>, keep: bool) -> Read<Part> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: every part needs one, as \"input_text\"");
    };
    match &*kind {
        "input_text" => Ok(Part::Text(text(reader, "text", true)?)),
        "output_text" => Ok(Part::Text(text(reader, "text", keep)?)),
        "refusal" => Ok(Part::Refusal(text(reader, "refusal", keep)?)),
        "input_image" => media(reader, MediaKind::Image),
        "input_file" => media(reader, MediaKind::Document),
        _ => Ok(Part::Other(reader.raw_object()?.to_owned())),
    }
}

/// A part that is the text under `key`. Unless `keep`, what only stands in answers, and is empty, says nothing.
fn text(reader: &mut Reader<'_>, key: &str, keep: bool) -> Read<TextPart> {
    let start = reader.position();
    let mut text = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            member if member == key => text = Some(reader.owned()?),
            member => {
                let raw = reader.raw()?;
                let empty = || raw == "null" || (raw.starts_with('[') && crate::members::elements(raw).is_empty());
                if keep || !matches!(member, "annotations" | "logprobs") || !empty() {
                    extra.push_raw(name.raw, raw);
                }
            }
        }
        Ok(())
    })?;
    match text {
        Some(text) => Ok(TextPart { text, cache: None, extra: extra.finish_object() }),
        None => reader.fault_in(start, key, "is missing: the part has no text without it"),
    }
}

/// A picture or a file. What the contract cannot hold stays whole.
fn media(reader: &mut Reader<'_>, kind: MediaKind) -> Read<Part> {
    let start = reader.position();
    let image = kind == MediaKind::Image;
    let mut source = None;
    let mut mime = None;
    let mut filename = None;
    let mut detail = None;
    let mut foreign = false;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        let mut found = None;
        match (&*name.text, image) {
            ("type", _) => drop(reader.raw()?),
            ("detail", _) => detail = reader.optional(Reader::owned)?,
            ("filename", false) => filename = reader.optional(Reader::owned)?,
            ("file_id", _) => found = reader.optional(Reader::owned)?.map(MediaSource::FileId),
            ("file_url", false) => found = reader.optional(Reader::owned)?.map(MediaSource::Url),
            ("image_url", true) | ("file_data", false) => {
                if let Some(url) = reader.optional(Reader::string)? {
                    found = Some(match data_url(&url) {
                        Some((own, data)) => {
                            mime = Some(own.to_owned());
                            MediaSource::Base64(data.to_owned())
                        }
                        None => {
                            // Bytes without a media type: only the API knows what they are.
                            foreign |= !image;
                            MediaSource::Url(url.into_owned())
                        }
                    });
                }
            }
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        if let Some(found) = found {
            foreign |= source.replace(found).is_some();
        }
        Ok(())
    })?;
    let Some(source) = source else {
        return if image {
            reader.fault_in(start, "image_url", "is missing: an http(s) URL, or data:<mime>;base64,<data>")
        } else {
            let message = "is missing, and so are `file_url` and `file_id`: one is needed";
            reader.fault_in(start, "file_data", message)
        };
    };
    if foreign {
        return Ok(Part::Other(reader.since(start).to_owned()));
    }
    let extra = extra.finish_object();
    Ok(Part::Media(MediaPart { kind, mime, source, name: filename, detail, cache: None, extra }))
}

fn function_call(reader: &mut Reader<'_>, limits: &Limits, keep: bool) -> Read<Part> {
    let start = reader.position();
    let mut id = None;
    let mut called = None;
    let mut arguments = Some("{}".to_owned());
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "call_id" => id = Some(reader.owned()?),
            "name" => called = Some(reader.owned()?),
            "arguments" => {
                let position = reader.position();
                let text = reader.owned()?;
                if !text.trim_ascii().is_empty() {
                    arguments = match read::is_object(&text, limits.depth as usize) {
                        Ok(good) => good.then_some(text),
                        Err(fault) => return reader.fault(position, fault.message()),
                    };
                }
            }
            text if OF_ANSWERS.contains(&text) && !keep => drop(reader.raw()?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(id) = id else {
        return reader.fault_in(start, "call_id", "is missing: the id that the function's output refers to");
    };
    let Some(name) = called else {
        return reader.fault_in(start, "name", "is missing: the name of the function");
    };
    let Some(arguments) = arguments else {
        return Ok(Part::Other(reader.since(start).to_owned()));
    };
    Ok(Part::ToolCall(ToolCall { id, name, arguments, cache: None, extra: extra.finish() }))
}

fn function_call_output(reader: &mut Reader<'_>, keep: bool) -> Read<Part> {
    let start = reader.position();
    let mut id = None;
    let mut output = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "call_id" => id = Some(reader.owned()?),
            "output" => output = Some(self::output(reader)?),
            text if OF_ANSWERS.contains(&text) && !keep => drop(reader.raw()?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(call_id) = id else {
        return reader.fault_in(start, "call_id", "is missing: the call that this is the output of");
    };
    let Some(output) = output else {
        return reader.fault_in(start, "output", "is missing: a string or an array of parts");
    };
    let extra = extra.finish();
    Ok(Part::ToolResult(ToolResult { call_id, content: output, is_error: None, cache: None, extra }))
}

/// What a function has put out. A piece that is no input is one that only this API knows.
fn output(reader: &mut Reader<'_>) -> Read<Vec<ResultContent>> {
    if reader.kind() != Kind::Array {
        return Ok(content(reader, true)?.into_iter().filter_map(result_content).collect());
    }
    let mut pieces = Vec::new();
    reader.array(|reader, _| {
        let known = reader.tag("type")?.is_none_or(|kind| kind.starts_with("input_"));
        pieces.extend(if known {
            result_content(part(reader, true)?)
        } else {
            Some(ResultContent::Other(reader.raw_object()?.to_owned()))
        });
        Ok(())
    })?;
    Ok(pieces)
}

/// The texts of a list of pieces of reasoning, whether one of them has a member beside `type` and `text`, and how many.
#[derive(Default)]
struct Thoughts<'a> {
    texts: Vec<String>,
    foreign: bool,
    raw: &'a str,
}

impl<'a> Thoughts<'a> {
    fn read(reader: &mut Reader<'a>) -> Read<Self> {
        let start = reader.position();
        let mut thoughts = Thoughts::default();
        reader.array(|reader, _| {
            let mut text = None;
            reader.object(|reader, name| {
                match &*name.text {
                    "type" => drop(reader.raw()?),
                    "text" => text = reader.optional(Reader::owned)?,
                    _ => {
                        thoughts.foreign = true;
                        reader.raw()?;
                    }
                }
                Ok(())
            })?;
            thoughts.texts.extend(text);
            Ok(())
        })?;
        thoughts.raw = reader.since(start);
        Ok(thoughts)
    }
}

fn reasoning_item(reader: &mut Reader<'_>, keep: bool) -> Read<Part> {
    let mut summary = None;
    let mut own = None;
    let mut proof = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "summary" => summary = reader.optional(Thoughts::read)?,
            "content" => own = reader.optional(Thoughts::read)?,
            "encrypted_content" => proof = reader.optional(Reader::owned)?.filter(|proof| !proof.is_empty()),
            text if OF_ANSWERS.contains(&text) && !keep => drop(reader.raw()?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    if keep {
        // A summary of one part is the text; another one goes back as it is.
        let plain = |it: &&Thoughts<'_>| !it.foreign && (it.texts.len() == 1 || (it.texts.is_empty() && own.is_none()));
        if let Some(summary) = summary.as_ref().filter(|it| !plain(it)) {
            extra.push("summary", summary.raw);
        }
        if let Some(own) = &own {
            extra.push("content", own.raw);
        }
    }
    let texts = [summary, own].into_iter().flatten().map(|thoughts| thoughts.texts).find(|texts| !texts.is_empty());
    let text = texts.unwrap_or_default().join("\n\n");
    let (signature, redacted) = if text.is_empty() { (None, proof) } else { (proof, None) };
    Ok(Part::Reasoning(ReasoningPart { text, signature, redacted, extra: extra.finish() }))
}

fn tool(reader: &mut Reader<'_>) -> Read<Tool> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: every tool needs one, as \"function\"");
    };
    if kind != "function" {
        return Ok(Tool::Other(reader.raw_object()?.to_owned()));
    }
    let (function, rest) = function_tool(reader)?;
    // The type stands beside the name here.
    let mut extra = Members::default();
    if let Some(rest) = rest.finish() {
        let mut reader = Reader::new(&rest, crate::members::DEPTH.max(rest.len()));
        reader.object(|reader, name| {
            let value = reader.raw()?;
            if name.text != "type" {
                extra.push_raw(name.raw, value);
            }
            Ok(())
        })?;
    }
    Ok(Tool::Function(FunctionTool { extra: extra.finish(), ..function }))
}

fn format(reader: &mut Reader<'_>) -> Read<ResponseFormat> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: \"text\", \"json_object\" or \"json_schema\"");
    };
    if !matches!(&*kind, "text" | "json_object" | "json_schema") {
        return Ok(ResponseFormat::Other(reader.raw_object()?.to_owned()));
    }
    let schema = kind == "json_schema";
    let mut format = JsonSchema::default();
    let mut given = false;
    let mut foreign = false;
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "name" if schema => format.name = Some(reader.owned()?),
            "description" if schema => format.description = reader.optional(Reader::owned)?,
            "strict" if schema => format.strict = reader.optional(Reader::bool)?,
            "schema" if schema => {
                given = true;
                reader.raw_object()?.clone_into(&mut format.schema);
            }
            _ => {
                foreign = true;
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    if schema {
        if format.name.is_none() {
            return reader.fault_in(start, "name", "is missing: every schema needs one, as \"answer\"");
        }
        if !given {
            return reader.fault_in(start, "schema", "is missing: the JSON Schema of the answer");
        }
    }
    Ok(match &*kind {
        _ if foreign => ResponseFormat::Other(reader.since(start).to_owned()),
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        _ => ResponseFormat::JsonSchema(format),
    })
}

fn reasoning(reader: &mut Reader<'_>) -> Read<Reasoning> {
    let mut thinking = Reasoning::default();
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "effort" => thinking.effort = reader.optional(Reader::owned)?,
            "summary" => thinking.summary = reader.optional(Reader::owned)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    thinking.extra = extra.finish_object();
    Ok(thinking)
}
