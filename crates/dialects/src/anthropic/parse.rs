//! A request of the Messages API to a normalised one.

use witgate_model::normaliser::{Limits, Parsed};
use witgate_model::{
    Error, FunctionTool, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart,
    Request, ResponseFormat, Role, Sampling, Tool, ToolCall, ToolChoice, ToolResult,
};

use super::{COUNT, NAME};
use crate::openai::{Flags, read_body};
use crate::openai_chat::parse::{all_messages, cache_control, result_content, text_part};
use crate::read::{Kind, Read, Reader};
use crate::write::Members;

/// Reads a whole request.
pub(super) fn parse(path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let count = path.trim_end_matches('/').ends_with("/count_tokens");
    read_body(body, limits.depth, |reader| request(reader, limits, count))
}

fn request(reader: &mut Reader<'_>, limits: &Limits, count: bool) -> Read<Parsed> {
    let start = reader.position();
    let mut model = String::new();
    let mut system = None;
    let mut messages = None;
    let mut tools = Vec::new();
    let mut tool_choice = None;
    let mut thinking = None;
    let mut config = Config::default();
    let mut output_format = None;
    let mut output_format_at = 0;
    let mut end_user = None;
    let mut stream = false;
    let mut sampling = Sampling::default();
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "model" => model = reader.optional(Reader::owned)?.unwrap_or_default(),
            "system" => system = reader.optional(content)?.filter(|parts| !parts.is_empty()),
            "messages" => messages = Some(all_messages(reader, limits, message)?),
            "tools" => tools = reader.optional(|reader| reader.list(tool))?.unwrap_or_default(),
            "tool_choice" => tool_choice = reader.optional(choice)?,
            "thinking" => thinking = reader.optional(self::thinking)?,
            "output_config" => config = reader.optional(Config::read)?.unwrap_or_default(),
            "output_format" => {
                output_format_at = reader.position();
                output_format = reader.optional(format)?;
            }
            // The rest is of no use to a count; what stands there all the same is for the backend to judge.
            _ if count => extra.push_raw(name.raw, reader.raw()?),
            "max_tokens" => sampling.max_completion_tokens = reader.optional(Reader::u64)?,
            "temperature" => sampling.temperature = reader.optional(Reader::f64)?,
            "top_p" => sampling.top_p = reader.optional(Reader::f64)?,
            "top_k" => sampling.top_k = reader.optional(Reader::i64)?,
            "stop_sequences" => {
                sampling.stop = reader.optional(|reader| reader.list(Reader::owned))?.unwrap_or_default()
            }
            "stream" => stream = reader.optional(Reader::bool)?.unwrap_or_default(),
            "metadata" => {
                let mut rest = Members::default();
                reader.optional(|reader| {
                    reader.object(|reader, name| {
                        match &*name.text {
                            "user_id" => end_user = reader.optional(Reader::owned)?,
                            _ => rest.push_raw(name.raw, reader.raw()?),
                        }
                        Ok(())
                    })
                })?;
                extra.push_members("metadata", rest);
            }
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(mut messages) = messages else {
        return reader.fault_in(start, "messages", "is missing: a request needs an array of messages");
    };
    if !count && sampling.max_completion_tokens.is_none() {
        return reader.fault_in(start, "max_tokens", "is missing: the most tokens that may be generated, as 1024");
    }
    if let Some((format, rest)) = output_format {
        if config.format.is_some() {
            let message = "and `output_config.format` are the same thing: give one of them";
            return reader.fault_in(output_format_at, "output_format", message);
        }
        config.format = Some(format);
        config.format_rest = rest;
    }
    if let Some(parts) = system {
        messages.insert(0, Message { role: Role::System, name: None, parts, extra: None });
    }
    config.rest.push_members("format", config.format_rest);
    extra.push_members("output_config", config.rest);
    let parallel_tool_calls = match tool_choice {
        Some(Choice { parallel, ref mut rest, .. }) => {
            extra.push_members("tool_choice", std::mem::take(rest));
            parallel
        }
        None => None,
    };
    if config.effort.is_some() {
        thinking.get_or_insert_with(Reasoning::default).effort = config.effort;
    }

    let input = if count { Input::CountTokens(messages) } else { Input::Chat(messages) };
    let mut request = Request::new(NAME, model, input);
    request.tools = tools;
    request.tool_choice = tool_choice.map(|choice| choice.choice);
    request.parallel_tool_calls = parallel_tool_calls;
    request.response_format = config.format;
    request.sampling = sampling;
    request.reasoning = thinking;
    request.stream = stream;
    request.end_user = end_user;
    request.extra = extra.finish();
    let render = if count { COUNT.to_owned() } else { Flags { stream, include_usage: false }.to_text() };
    Ok(Parsed { request, render })
}

fn message(reader: &mut Reader<'_>, _: &Limits) -> Read<Message> {
    let start = reader.position();
    let mut role = None;
    let mut parts = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "role" => {
                let start = reader.position();
                let word = reader.string()?;
                role = Some(match &*word {
                    "user" => Role::User,
                    "assistant" => Role::Assistant,
                    "system" => Role::System,
                    "" => return reader.fault(start, "is empty: expected a role, as \"user\""),
                    _ => Role::Other(word.into_owned()),
                });
            }
            "content" => parts = Some(content(reader)?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(role) = role else {
        return reader.fault_in(start, "role", "is missing: every message needs one, as \"user\"");
    };
    let Some(parts) = parts else {
        return reader.fault_in(start, "content", "is missing: a string or an array of blocks");
    };
    Ok(Message { role, name: None, parts, extra: extra.finish() })
}

fn content(reader: &mut Reader<'_>) -> Read<Vec<Part>> {
    blocks(reader, block)
}

/// A string, or an array of blocks.
fn blocks(reader: &mut Reader<'_>, block: fn(&mut Reader<'_>) -> Read<Part>) -> Read<Vec<Part>> {
    match reader.kind() {
        Kind::String => Ok(vec![Part::text(reader.owned()?)]),
        Kind::Array => reader.list(block),
        _ => reader.wrong("a string or an array of blocks"),
    }
}

/// One block of a message.
fn block(reader: &mut Reader<'_>) -> Read<Part> {
    match &*block_type(reader)? {
        "thinking" => reasoning(reader, "thinking"),
        "redacted_thinking" => reasoning(reader, "data"),
        "tool_use" => tool_use(reader),
        "tool_result" => tool_result(reader),
        kind => plain_block(reader, kind),
    }
}

/// One block of a tool's result.
fn inner_block(reader: &mut Reader<'_>) -> Read<Part> {
    let kind = block_type(reader)?;
    plain_block(reader, &kind)
}

fn block_type<'a>(reader: &mut Reader<'a>) -> Read<std::borrow::Cow<'a, str>> {
    let start = reader.position();
    match reader.tag("type")? {
        Some(kind) => Ok(kind),
        None => reader.fault_in(start, "type", "is missing: every block needs one, as \"text\""),
    }
}

fn plain_block(reader: &mut Reader<'_>, kind: &str) -> Read<Part> {
    match kind {
        "text" => Ok(Part::Text(text_part(reader, "text")?)),
        "image" => media(reader, MediaKind::Image),
        "document" => media(reader, MediaKind::Document),
        _ => Ok(Part::Other(reader.raw_object()?.to_owned())),
    }
}

fn media(reader: &mut Reader<'_>, kind: MediaKind) -> Read<Part> {
    let start = reader.position();
    let document = kind == MediaKind::Document;
    let mut source = None;
    let mut title = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "source" => source = Some(self::source(reader, document)?),
            "title" if document => title = reader.optional(Reader::owned)?,
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(Source { source, mime, rest }) = source else {
        return reader.fault_in(start, "source", "is missing: an object with the data, or with where it is");
    };
    extra.push_members("source", rest);
    Ok(Part::Media(MediaPart { kind, mime, source, name: title, detail: None, cache, extra: extra.finish_object() }))
}

struct Source {
    source: MediaSource,
    mime: Option<String>,
    rest: Members,
}

/// Where the bytes of an image or a document are.
fn source(reader: &mut Reader<'_>, document: bool) -> Read<Source> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        let message = "is missing: every source needs one, as \"base64\" or \"url\"";
        return reader.fault_in(start, "type", message);
    };
    let (key, wrap): (_, fn(String) -> MediaSource) = match &*kind {
        "base64" => ("data", MediaSource::Base64),
        "text" if document => ("data", MediaSource::Text),
        "url" => ("url", MediaSource::Url),
        "file" => ("file_id", MediaSource::FileId),
        _ => {
            let source = MediaSource::Other(reader.raw_object()?.to_owned());
            return Ok(Source { source, mime: None, rest: Members::default() });
        }
    };
    let mut value = None;
    let mut mime = None;
    let mut rest = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "media_type" if key == "data" => mime = reader.optional(Reader::owned)?,
            member if member == key => value = Some(reader.owned()?),
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match value {
        Some(value) => Ok(Source { source: wrap(value), mime, rest }),
        None => reader.fault_in(start, key, format!("is missing: a source of the type \"{kind}\" needs it")),
    }
}

/// A block of thinking, whose words, or their encrypted form, stand under `key`.
fn reasoning(reader: &mut Reader<'_>, key: &str) -> Read<Part> {
    let start = reader.position();
    let redacted = key == "data";
    let mut text = None;
    let mut signature = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            member if member == key => text = Some(reader.owned()?),
            "signature" if !redacted => {
                signature = reader.optional(Reader::owned)?.filter(|signature| !signature.is_empty());
            }
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(text) = text else {
        return reader.fault_in(start, key, "is missing: the block as the model gave it");
    };
    let extra = extra.finish();
    Ok(Part::Reasoning(if redacted {
        ReasoningPart { redacted: Some(text), extra, ..ReasoningPart::default() }
    } else {
        ReasoningPart { text, signature, redacted: None, extra }
    }))
}

fn tool_use(reader: &mut Reader<'_>) -> Read<Part> {
    let start = reader.position();
    let mut id = None;
    let mut called = None;
    let mut input = None;
    let mut cache = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "id" => id = Some(reader.owned()?),
            "name" => called = Some(reader.owned()?),
            "input" => input = Some(reader.raw_object()?.to_owned()),
            "cache_control" => cache = cache_control(reader, name, &mut extra)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(id) = id else {
        return reader.fault_in(start, "id", "is missing: the id that the tool's result refers to");
    };
    let Some(name) = called else {
        return reader.fault_in(start, "name", "is missing: the name of the tool");
    };
    let Some(arguments) = input else {
        return reader.fault_in(start, "input", "is missing: an object with the tool's arguments");
    };
    Ok(Part::ToolCall(ToolCall { id, name, arguments, cache, extra: extra.finish() }))
}

fn tool_result(reader: &mut Reader<'_>) -> Read<Part> {
    let start = reader.position();
    let mut call_id = None;
    let mut parts = None;
    let mut result = ToolResult::default();
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "tool_use_id" => call_id = Some(reader.owned()?),
            "content" => parts = reader.optional(|reader| blocks(reader, inner_block))?,
            "is_error" => result.is_error = reader.optional(Reader::bool)?,
            "cache_control" => result.cache = cache_control(reader, name, &mut extra)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(call_id) = call_id else {
        return reader.fault_in(start, "tool_use_id", "is missing: a result names the call that it answers");
    };
    let content = parts.unwrap_or_default().into_iter().filter_map(result_content).collect();
    Ok(Part::ToolResult(ToolResult { call_id, content, extra: extra.finish(), ..result }))
}

fn tool(reader: &mut Reader<'_>) -> Read<Tool> {
    let start = reader.position();
    if reader.tag("type")?.is_some_and(|kind| kind != "custom") {
        return Ok(Tool::Other(reader.raw_object()?.to_owned()));
    }
    let mut name = None;
    let mut tool = FunctionTool::default();
    let mut extra = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "type" => drop(reader.raw()?),
            "name" => name = Some(reader.owned()?),
            "description" => tool.description = reader.optional(Reader::owned)?,
            "input_schema" => tool.parameters = Some(reader.raw_object()?.to_owned()),
            "strict" => tool.strict = reader.optional(Reader::bool)?,
            "cache_control" => tool.cache = cache_control(reader, member, &mut extra)?,
            _ => extra.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(name) = name else {
        return reader.fault_in(start, "name", "is missing: the name of the tool");
    };
    if tool.parameters.is_none() {
        let message = "is missing: a JSON Schema of the tool's arguments, as {\"type\":\"object\"}";
        return reader.fault_in(start, "input_schema", message);
    }
    Ok(Tool::Function(FunctionTool { name, extra: extra.finish(), ..tool }))
}

struct Choice {
    choice: ToolChoice,
    parallel: Option<bool>,
    rest: Members,
}

fn choice(reader: &mut Reader<'_>) -> Read<Choice> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: \"auto\", \"any\", \"tool\" or \"none\"");
    };
    let mut rest = Members::default();
    let mut parallel = None;
    let mut tool = None;
    let mut choice = match &*kind {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Tool(String::new()),
        _ => {
            let choice = ToolChoice::Other(reader.raw_object()?.to_owned());
            return Ok(Choice { choice, parallel, rest });
        }
    };
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "disable_parallel_tool_use" => parallel = reader.optional(Reader::bool)?.map(|disabled| !disabled),
            "name" if kind == "tool" => tool = Some(reader.owned()?),
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    if let ToolChoice::Tool(name) = &mut choice {
        match tool {
            Some(tool) => *name = tool,
            None => return reader.fault_in(start, "name", "is missing: the tool that must be used"),
        }
    }
    Ok(Choice { choice, parallel, rest })
}

fn thinking(reader: &mut Reader<'_>) -> Read<Reasoning> {
    let start = reader.position();
    let Some(kind) = reader.tag("type")? else {
        return reader.fault_in(start, "type", "is missing: \"enabled\", \"adaptive\" or \"disabled\"");
    };
    let enabled = match &*kind {
        "enabled" => Some(true),
        "disabled" => Some(false),
        _ => None,
    };
    let mut thinking = Reasoning { enabled, ..Reasoning::default() };
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" if enabled.is_some() => drop(reader.string()?),
            "budget_tokens" => thinking.budget_tokens = reader.optional(Reader::u64)?,
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    thinking.extra = extra.finish();
    Ok(thinking)
}

/// `output_config`.
#[derive(Default)]
struct Config {
    effort: Option<String>,
    format: Option<ResponseFormat>,
    format_rest: Members,
    rest: Members,
}

impl Config {
    fn read(reader: &mut Reader<'_>) -> Read<Self> {
        let mut config = Config::default();
        reader.object(|reader, name| {
            match &*name.text {
                "effort" => config.effort = reader.optional(Reader::owned)?,
                "format" => {
                    if let Some((format, rest)) = reader.optional(format)? {
                        config.format = Some(format);
                        config.format_rest = rest;
                    }
                }
                _ => config.rest.push_raw(name.raw, reader.raw()?),
            }
            Ok(())
        })?;
        Ok(config)
    }
}

/// The form of the answer, and its unknown members.
fn format(reader: &mut Reader<'_>) -> Read<(ResponseFormat, Members)> {
    let start = reader.position();
    let mut rest = Members::default();
    match reader.tag("type")?.as_deref() {
        Some("json_schema") => {}
        Some(_) => return Ok((ResponseFormat::Other(reader.raw_object()?.to_owned()), rest)),
        None => return reader.fault_in(start, "type", "is missing: every format needs one, as \"json_schema\""),
    }
    let mut schema = None;
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.string()?),
            "schema" => schema = Some(reader.raw_object()?.to_owned()),
            _ => rest.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match schema {
        Some(schema) => Ok((ResponseFormat::JsonSchema(JsonSchema { schema, ..JsonSchema::default() }), rest)),
        None => reader.fault_in(start, "schema", "is missing: the JSON Schema that the answer must match"),
    }
}
