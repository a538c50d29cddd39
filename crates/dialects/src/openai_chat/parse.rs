//! A chat completion request to a normalised one.

use witgate_model::normaliser::{Limits, Parsed};
use witgate_model::{
    CacheMark, Error, FunctionTool, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning,
    ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolResult,
};

use crate::openai::{self, Common, model_of_path, read_body};
use crate::proofs;
use crate::read::{self, Kind, Name, Read, Reader};
use crate::write::Members;

/// Reads a whole request.
pub(super) fn parse(path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    let mut parsed = read_body(body, limits.depth, |reader| request(reader, limits))?;
    model_of_path(&mut parsed.request, path, "/chat/completions")?;
    Ok(parsed)
}

fn request(reader: &mut Reader<'_>, limits: &Limits) -> Read<Parsed> {
    let start = reader.position();
    let mut common = Common::default();
    let mut messages = None;
    let mut tools = Vec::new();
    let mut tool_choice = None;
    let mut parallel_tool_calls = None;
    let mut response_format = None;
    let mut effort = None;
    let mut effort_at = 0;
    let mut thinking = None;
    reader.object(|reader, name| {
        match &*name.text {
            "messages" => messages = Some(all_messages(reader, limits, message)?),
            "tools" => {
                tools = reader.optional(|reader| reader.list(|reader| tool(reader, limits)))?.unwrap_or_default()
            }
            "tool_choice" => tool_choice = reader.optional(|reader| openai::tool_choice(reader, true))?,
            "parallel_tool_calls" => parallel_tool_calls = reader.optional(Reader::bool)?,
            "response_format" => response_format = reader.optional(format)?,
            "reasoning_effort" => {
                effort_at = reader.position();
                effort = reader.optional(Reader::owned)?;
            }
            "reasoning" => thinking = reader.optional(reasoning)?,
            "max_completion_tokens" => common.sampling.max_completion_tokens = reader.optional(Reader::u64)?,
            "logprobs" => common.sampling.logprobs = reader.optional(Reader::bool)?,
            "top_logprobs" => common.sampling.top_logprobs = reader.optional(Reader::u32)?,
            _ => common.member(reader, name)?,
        }
        Ok(())
    })?;
    let Some(messages) = messages else {
        return reader.fault_in(start, "messages", "is missing: a chat request needs an array of messages");
    };
    if let Some(effort) = effort {
        let thinking = thinking.get_or_insert_with(Reasoning::default);
        match &thinking.effort {
            Some(other) if *other != effort => {
                let message = format!("and `reasoning.effort` contradict each other ({effort:?} and {other:?})");
                return reader.fault_in(effort_at, "reasoning_effort", message);
            }
            _ => thinking.effort = Some(effort),
        }
    }
    let mut parsed = common.finish(super::NAME, Input::Chat(messages));
    let request = &mut parsed.request;
    request.tools = tools;
    request.tool_choice = tool_choice;
    request.parallel_tool_calls = parallel_tool_calls;
    request.response_format = response_format;
    request.reasoning = thinking;
    Ok(parsed)
}

/// The conversation: at least one message, each of which `message` reads.
pub(crate) fn all_messages(
    reader: &mut Reader<'_>,
    limits: &Limits,
    message: fn(&mut Reader<'_>, &Limits) -> Read<Message>,
) -> Read<Vec<Message>> {
    let start = reader.position();
    let mut messages = Vec::new();
    reader.array(|reader, index| {
        if index >= limits.messages as usize {
            let most = limits.messages;
            let position = reader.position();
            return reader.fault(position, format!("is one message too many: at most {most} are allowed"));
        }
        messages.push(message(reader, limits)?);
        Ok(())
    })?;
    if messages.is_empty() {
        return reader.fault(start, "must hold at least one message, found none");
    }
    Ok(messages)
}

/// A string that an assistant message may have, with its text as it was written for other roles.
struct Said<'a> {
    position: usize,
    name: &'a str,
    raw: &'a str,
    text: Option<String>,
}

impl<'a> Said<'a> {
    fn read(reader: &mut Reader<'a>, name: &Name<'a>) -> Read<Self> {
        let position = reader.position();
        let text = reader.optional(Reader::owned)?;
        Ok(Said { position, name: name.raw, raw: reader.since(position), text })
    }
}

fn message(reader: &mut Reader<'_>, limits: &Limits) -> Read<Message> {
    let start = reader.position();
    let mut role = None;
    let mut name = None;
    let mut content = None;
    let mut content_at = None;
    let mut call_id = None;
    let mut refusal = None;
    let mut thought = None;
    let mut signature = None;
    let mut encrypted = None;
    let mut calls = Vec::new();
    let mut calls_at = None;
    let mut extra = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "role" => role = Some(self::role(reader)?),
            "content" => {
                content_at = Some(reader.position());
                content = reader.optional(self::content)?;
            }
            "name" => name = reader.optional(Reader::owned)?,
            "tool_call_id" => call_id = Some(Said::read(reader, member)?),
            "refusal" => refusal = Some(Said::read(reader, member)?),
            "reasoning_content" => thought = Some(Said::read(reader, member)?),
            "reasoning_signature" => signature = Some(Said::read(reader, member)?),
            "reasoning_encrypted_content" => encrypted = Some(Said::read(reader, member)?),
            "tool_calls" => {
                calls_at = Some(reader.position());
                reader.optional(|reader| {
                    reader.array(|reader, _| {
                        calls.push(tool_call(reader, limits)?);
                        Ok(())
                    })
                })?;
            }
            _ => extra.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(role) = role else {
        return reader.fault_in(start, "role", "is missing: every message needs one, as \"user\"");
    };

    let mut parts = Vec::new();
    let assistant = role == Role::Assistant;
    if assistant {
        let text = |said: &mut Option<Said<'_>>| said.take().and_then(|said| said.text);
        let (thought, signature, redacted) = (text(&mut thought), text(&mut signature), text(&mut encrypted));
        parts = proofs::pieces(thought, signature, redacted);
    }
    match role {
        Role::Tool => {
            let Some(content) = content else {
                return no_content(reader, start, content_at);
            };
            let Some(id) = call_id.take() else {
                return reader.fault_in(start, "tool_call_id", "is missing: a tool message names the call it answers");
            };
            let Some(call_id) = id.text else {
                return reader.fault_in(id.position, "tool_call_id", "must be a string, found null");
            };
            let content = content.into_iter().filter_map(result_content).collect();
            parts.push(Part::ToolResult(ToolResult { call_id, content, ..ToolResult::default() }));
        }
        Role::Assistant | Role::Other(_) => parts.extend(content.unwrap_or_default()),
        _ => match content {
            Some(content) => parts.extend(content),
            None => return no_content(reader, start, content_at),
        },
    }
    if assistant && let Some(text) = refusal.take().and_then(|said| said.text) {
        parts.push(Part::Refusal(TextPart { text, ..TextPart::default() }));
    }
    if !calls.is_empty() {
        if matches!(role, Role::System | Role::Developer | Role::User | Role::Tool) {
            let position = calls_at.unwrap_or(start);
            return reader.fault_in(position, "tool_calls", "is only for messages of the role \"assistant\"");
        }
        parts.append(&mut calls);
    }
    // What other roles say under these names is not known, and stays as it was.
    for said in [call_id, refusal, thought, signature, encrypted].into_iter().flatten() {
        extra.push_raw(said.name, said.raw);
    }
    Ok(Message { role, name, parts, extra: extra.finish() })
}

#[cold]
fn no_content<T>(reader: &Reader<'_>, start: usize, null_at: Option<usize>) -> Read<T> {
    match null_at {
        Some(position) => reader.fault_in(position, "content", "must be a string or an array of parts, found null"),
        None => reader.fault_in(start, "content", "is missing: a string or an array of parts"),
    }
}

fn role(reader: &mut Reader<'_>) -> Read<Role> {
    let start = reader.position();
    let role = reader.string()?;
    Ok(match &*role {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "" => return reader.fault(start, "is empty: expected a role, as \"user\""),
        _ => Role::Other(role.into_owned()),
    })
}

fn content(reader: &mut Reader<'_>) -> Read<Vec<Part>> {
    match reader.kind() {
        Kind::String => Ok(vec![Part::text(reader.owned()?)]),
        Kind::Array => reader.list(part),
        _ => reader.wrong("a string or an array of parts"),
    }
}

/// A content part as a piece of a tool's result; `None` for one that is none.
pub(crate) fn result_content(part: Part) -> Option<ResultContent> {
    match part {
        Part::Text(text) => Some(ResultContent::Text(text)),
        Part::Media(media) => Some(ResultContent::Media(media)),
        Part::Other(object) => Some(ResultContent::Other(object)),
        Part::Refusal(refusal) => Some(ResultContent::Text(refusal)),
        Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => None,
    }
}

/// One content part.
fn part(reader: &mut Reader<'_>) -> Read<Part> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: every part needs one, as \"text\"");
    };
    match &*kind {
        "text" => Ok(Part::Text(text_part(reader, "text")?)),
        "refusal" => Ok(Part::Refusal(text_part(reader, "refusal")?)),
        "image_url" => media_part(reader, "image_url", image),
        "input_audio" => media_part(reader, "input_audio", audio),
        "file" => media_part(reader, "file", file),
        _ => Ok(Part::Other(reader.raw_object()?.to_owned())),
    }
}

/// A part that is the text under `key`.
pub(crate) fn text_part(reader: &mut Reader<'_>, key: &str) -> Read<TextPart> {
    let start = reader.position();
    let mut text = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            member if member == key => text = Some(reader.owned()?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match text {
        Some(text) => Ok(TextPart { text, cache, extra: extra.finish_object() }),
        None => reader.fault_in(start, key, format!("is missing: a part of the type \"{key}\" needs it")),
    }
}

/// `cache_control`: a mark where the contract can hold it, else it stays with the unknown members.
pub(crate) fn cache_control<'a>(
    reader: &mut Reader<'a>,
    name: &Name<'a>,
    extra: &mut Members,
) -> Read<Option<CacheMark>> {
    if reader.kind() == Kind::Null {
        reader.raw()?;
        return Ok(None);
    }
    let start = reader.position();
    let mut known = false;
    let mut foreign = false;
    let mut ttl = None;
    reader.object(|reader, name| {
        match &*name.text {
            "type" => known = reader.string()? == "ephemeral",
            "ttl" => ttl = reader.optional(Reader::owned)?,
            _ => {
                foreign = true;
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    if known && !foreign {
        return Ok(Some(CacheMark { ttl }));
    }
    extra.push_raw(name.raw, reader.since(start));
    Ok(None)
}

/// What the inner object of a media part says.
struct Media {
    kind: MediaKind,
    mime: Option<String>,
    source: MediaSource,
    name: Option<String>,
    detail: Option<String>,
    rest: Members,
}

/// A part `{"type": key, key: {…}}` whose inner object `inner` reads. Where that finds something the contract cannot
/// hold, the part stays whole.
fn media_part<'a>(reader: &mut Reader<'a>, key: &str, inner: fn(&mut Reader<'a>) -> Read<Option<Media>>) -> Read<Part> {
    let start = reader.position();
    let mut media = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            member if member == key => media = Some(inner(reader)?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match media {
        None => reader.fault_in(start, key, format!("is missing: a part of the type \"{key}\" needs it")),
        Some(None) => Ok(Part::Other(reader.since(start).to_owned())),
        Some(Some(Media { kind, mime, source, name, detail, rest })) => {
            extra.push_members(key, rest);
            Ok(Part::Media(MediaPart { kind, mime, source, name, detail, cache, extra: extra.finish_object() }))
        }
    }
}

/// The media type and the base64 text of exactly `data:<mime>;base64,<data>`.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mime = head.strip_suffix(";base64")?;
    (!mime.is_empty() && !mime.contains(';')).then_some((mime, data))
}

fn image(reader: &mut Reader<'_>) -> Read<Option<Media>> {
    let start = reader.position();
    let mut url = None;
    let mut detail = None;
    let mut rest = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "url" => url = Some(reader.string()?),
            "detail" => detail = reader.optional(Reader::owned)?,
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(url) = url else {
        return reader.fault_in(start, "url", "is missing: an http(s) URL, or data:<mime>;base64,<data>");
    };
    let (mime, source) = match data_url(&url) {
        Some((mime, data)) => (Some(mime.to_owned()), MediaSource::Base64(data.to_owned())),
        None => (None, MediaSource::Url(url.into_owned())),
    };
    Ok(Some(Media { kind: MediaKind::Image, mime, source, name: None, detail, rest }))
}

fn audio(reader: &mut Reader<'_>) -> Read<Option<Media>> {
    let start = reader.position();
    let mut data = None;
    let mut format = None;
    let mut rest = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "data" => data = Some(reader.owned()?),
            "format" => format = Some(reader.string()?),
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(data) = data else {
        return reader.fault_in(start, "data", "is missing: the sound in base64");
    };
    let Some(format) = format else {
        return reader.fault_in(start, "format", "is missing: the sound's format, as \"wav\"");
    };
    let mime = Some(format!("audio/{format}"));
    let source = MediaSource::Base64(data);
    Ok(Some(Media { kind: MediaKind::Audio, mime, source, name: None, detail: None, rest }))
}

fn file(reader: &mut Reader<'_>) -> Read<Option<Media>> {
    let start = reader.position();
    let mut data = None;
    let mut id = None;
    let mut filename = None;
    let mut rest = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "file_data" => data = reader.optional(Reader::string)?,
            "file_id" => id = reader.optional(Reader::owned)?,
            "filename" => filename = reader.optional(Reader::owned)?,
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let (mime, source) = match (data, id) {
        (None, None) => return reader.fault_in(start, "file_data", "is missing, and so is `file_id`: one is needed"),
        (Some(_), Some(_)) => return Ok(None),
        (None, Some(id)) => (None, MediaSource::FileId(id)),
        (Some(data), None) => match data_url(&data) {
            Some((mime, data)) => (Some(mime.to_owned()), MediaSource::Base64(data.to_owned())),
            None if data.contains(':') => (None, MediaSource::Url(data.into_owned())),
            None => (None, MediaSource::Base64(data.into_owned())),
        },
    };
    Ok(Some(Media { kind: MediaKind::Document, mime, source, name: filename, detail: None, rest }))
}

fn tool_call(reader: &mut Reader<'_>, limits: &Limits) -> Read<Part> {
    let start = reader.position();
    if reader.tag("type")?.is_some_and(|kind| kind != "function") {
        return Ok(Part::Other(reader.raw_object()?.to_owned()));
    }
    let mut id = None;
    let mut called = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "id" => id = Some(reader.owned()?),
            "function" => called = Some(called_function(reader, limits)?),
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(id) = id else {
        return reader.fault_in(start, "id", "is missing: the id that the tool's result refers to");
    };
    let Some((name, arguments, rest)) = called else {
        return reader.fault_in(start, "function", "is missing: an object with `name` and `arguments`");
    };
    let Some(arguments) = arguments else {
        return Ok(Part::Other(reader.since(start).to_owned()));
    };
    extra.push_members("function", rest);
    Ok(Part::ToolCall(ToolCall { id, name, arguments, cache, extra: extra.finish() }))
}

/// Name, arguments (`None` where they are not a JSON object) and unknown members of a called function.
fn called_function(reader: &mut Reader<'_>, limits: &Limits) -> Read<(String, Option<String>, Members)> {
    let start = reader.position();
    let mut name = None;
    let mut arguments = None;
    let mut rest = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "name" => name = Some(reader.owned()?),
            "arguments" => {
                let position = reader.position();
                if reader.kind() == Kind::Object {
                    reader.raw()?;
                    return reader.fault(position, "must be a string that holds JSON, found an object");
                }
                let text = reader.owned()?;
                arguments = Some(if text.trim_ascii().is_empty() {
                    Some("{}".to_owned())
                } else {
                    match read::is_object(&text, limits.depth as usize) {
                        Ok(good) => good.then_some(text),
                        Err(fault) => return reader.fault(position, fault.message()),
                    }
                });
            }
            _ => rest.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(name) = name else {
        return reader.fault_in(start, "name", "is missing: the name of the function");
    };
    Ok((name, arguments.unwrap_or_else(|| Some("{}".to_owned())), rest))
}

fn tool(reader: &mut Reader<'_>, _: &Limits) -> Read<Tool> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: every tool needs one, as \"function\"");
    };
    if kind != "function" {
        return Ok(Tool::Other(reader.raw_object()?.to_owned()));
    }
    let mut function = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "function" => function = Some(function_tool(reader)?),
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some((mut function, rest)) = function else {
        return reader.fault_in(start, "function", "is missing: an object with the function's `name`");
    };
    extra.push_members("function", rest);
    function.cache = cache;
    function.extra = extra.finish();
    Ok(Tool::Function(function))
}

/// The function of a tool, and its unknown members.
pub(crate) fn function_tool(reader: &mut Reader<'_>) -> Read<(FunctionTool, Members)> {
    let start = reader.position();
    let mut name = None;
    let mut function = FunctionTool::default();
    let mut rest = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "name" => name = Some(reader.owned()?),
            "description" => function.description = reader.optional(Reader::owned)?,
            "parameters" => function.parameters = reader.optional(Reader::raw_object)?.map(str::to_owned),
            "strict" => function.strict = reader.optional(Reader::bool)?,
            _ => rest.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match name {
        Some(name) => Ok((FunctionTool { name, ..function }, rest)),
        None => reader.fault_in(start, "name", "is missing: the name of the function"),
    }
}

fn format(reader: &mut Reader<'_>) -> Read<ResponseFormat> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: \"text\", \"json_object\" or \"json_schema\"");
    };
    if !matches!(&*kind, "text" | "json_object" | "json_schema") {
        return Ok(ResponseFormat::Other(reader.raw_object()?.to_owned()));
    }
    let mut schema = None;
    let mut foreign = false;
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "json_schema" if kind == "json_schema" => {
                schema = Some(json_schema(reader, &mut foreign)?);
            }
            _ => {
                foreign = true;
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    if kind == "json_schema" && schema.is_none() {
        return reader.fault_in(start, "json_schema", "is missing: an object with `name` and `schema`");
    }
    Ok(match schema {
        _ if foreign => ResponseFormat::Other(reader.since(start).to_owned()),
        Some(schema) => ResponseFormat::JsonSchema(schema),
        None if kind == "text" => ResponseFormat::Text,
        None => ResponseFormat::JsonObject,
    })
}

fn json_schema(reader: &mut Reader<'_>, foreign: &mut bool) -> Read<JsonSchema> {
    let mut format = JsonSchema::default();
    let mut given = false;
    reader.object(|reader, name| {
        match &*name.text {
            "name" => format.name = reader.optional(Reader::owned)?,
            "description" => format.description = reader.optional(Reader::owned)?,
            "strict" => format.strict = reader.optional(Reader::bool)?,
            "schema" => {
                if let Some(schema) = reader.optional(Reader::raw_object)? {
                    given = true;
                    schema.clone_into(&mut format.schema);
                }
            }
            _ => {
                *foreign = true;
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    // OpenAI lets the schema be left out; the contract cannot say that, so the whole value goes on as it is.
    *foreign |= !given;
    Ok(format)
}

fn reasoning(reader: &mut Reader<'_>) -> Read<Reasoning> {
    let mut thinking = Reasoning::default();
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "effort" => thinking.effort = reader.optional(Reader::owned)?,
            "max_tokens" => thinking.budget_tokens = reader.optional(Reader::u64)?,
            "enabled" => thinking.enabled = reader.optional(Reader::bool)?,
            "summary" => thinking.summary = reader.optional(Reader::owned)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    thinking.extra = extra.finish_object();
    Ok(thinking)
}
