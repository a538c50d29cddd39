//! Requests to normalised ones.

use std::collections::{BTreeMap, VecDeque};

use witgate_model::normaliser::{Limits, Parsed};
use witgate_model::{
    CompletionPrompt, Error, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning,
    ReasoningPart, Request, ResponseFormat, ResultContent, Role, Sampling, TextPart, Tool, ToolCall, ToolResult,
};

use super::{Flags, UNNAMED};
use crate::openai::{read_body, stop};
use crate::openai_chat::parse::function_tool;
use crate::read::{Kind, Name, Read, Reader};
use crate::write::Members;

/// The most images of one message.
const MOST_IMAGES: usize = 4096;

/// Reads a request to `/api/chat`.
pub(super) fn chat(dialect: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    read_body(body, limits.depth, |reader| {
        let mut common = Common::default();
        let mut messages = Vec::new();
        let mut tools = Vec::new();
        reader.object(|reader, name| {
            match &*name.text {
                "messages" => messages = reader.optional(|reader| all_messages(reader, limits))?.unwrap_or_default(),
                "tools" => tools = reader.optional(|reader| reader.list(tool))?.unwrap_or_default(),
                _ => common.member(reader, name)?,
            }
            Ok(())
        })?;
        let mut parsed = common.finish(dialect, Input::Chat(messages));
        parsed.request.tools = tools;
        Ok(parsed)
    })
}

/// Reads a request to `/api/generate`.
pub(super) fn generate(dialect: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
    read_body(body, limits.depth, |reader| {
        let mut common = Common::default();
        let mut prompt = String::new();
        let mut suffix = None;
        let mut raw = false;
        // Where they stand depends on whether this is a chat: text and value.
        let mut system = None;
        let mut images = None;
        reader.object(|reader, name| {
            match &*name.text {
                "prompt" => prompt = reader.optional(Reader::owned)?.unwrap_or_default(),
                "suffix" => suffix = given(reader)?,
                "system" => {
                    let start = reader.position();
                    system = given(reader)?.map(|text| (reader.since(start), text));
                }
                "raw" => raw = reader.optional(Reader::bool)?.unwrap_or_default(),
                "images" => {
                    let start = reader.position();
                    let all = self::images(reader)?;
                    images = (!all.is_empty()).then(|| (reader.since(start), all));
                }
                "template" | "context" => common.unless_empty(reader, name)?,
                _ => common.member(reader, name)?,
            }
            Ok(())
        })?;
        let input = if prompt.is_empty() {
            Input::Chat(Vec::new())
        } else if raw || suffix.is_some() {
            let beside = [("system", system.map(|(text, _)| text)), ("images", images.map(|(text, _)| text))];
            for (name, text) in beside {
                if let Some(text) = text {
                    common.extra.push(name, text);
                }
            }
            if raw && suffix.is_some() {
                common.extra.push("raw", "true");
            }
            Input::Completion(CompletionPrompt { text: prompt, suffix, ..CompletionPrompt::default() })
        } else {
            let mut messages: Vec<_> = system.into_iter().map(|(_, text)| Message::text(Role::System, text)).collect();
            let mut message = Message::text(Role::User, prompt);
            message.parts.extend(images.into_iter().flat_map(|(_, images)| images).map(Part::Media));
            messages.push(message);
            Input::Chat(messages)
        };
        Ok(common.finish(dialect, input))
    })
}

/// Request members that chat and generation have in common.
struct Common {
    model: String,
    stream: bool,
    sampling: Sampling,
    reasoning: Option<Reasoning>,
    format: Option<ResponseFormat>,
    /// `keep_alive` is no time at all.
    unload: bool,
    extra: Members,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            model: String::new(),
            stream: true,
            sampling: Sampling::default(),
            reasoning: None,
            format: None,
            unload: false,
            extra: Members::default(),
        }
    }
}

impl Common {
    /// Reads the value of the member `name`: one that both APIs have, or one that neither knows.
    fn member<'a>(&mut self, reader: &mut Reader<'a>, name: &Name<'a>) -> Read<()> {
        match &*name.text {
            "model" => self.model = reader.optional(Reader::owned)?.unwrap_or_default(),
            "stream" => self.stream = reader.optional(Reader::bool)?.unwrap_or(true),
            "format" => self.format = reader.optional(format)?.flatten(),
            "think" => self.reasoning = reader.optional(think)?,
            "logprobs" => self.sampling.logprobs = reader.optional(Reader::bool)?,
            "top_logprobs" => self.sampling.top_logprobs = reader.optional(Reader::u32)?,
            "options" => {
                let mut rest = Members::default();
                let sampling = &mut self.sampling;
                reader.optional(|reader| reader.object(|reader, name| option(sampling, &mut rest, reader, name)))?;
                self.extra.push_members("options", rest);
            }
            "keep_alive" | "truncate" | "shift" if reader.kind() == Kind::Null => drop(reader.raw()?),
            "keep_alive" => {
                let raw = reader.raw()?;
                self.unload = is_no_time(raw);
                self.extra.push_raw(name.raw, raw);
            }
            _ => self.extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    }

    /// Keeps an unnamed member, unless it holds nothing.
    fn unless_empty<'a>(&mut self, reader: &mut Reader<'a>, name: &Name<'a>) -> Read<()> {
        let raw = reader.raw()?;
        if !is_empty(raw) {
            self.extra.push_raw(name.raw, raw);
        }
        Ok(())
    }

    /// The request around `input`, and what the renderer must know.
    fn finish(self, dialect: &str, input: Input) -> Parsed {
        let nothing = matches!(&input, Input::Chat(messages) if messages.is_empty()).then_some(if self.unload {
            "unload"
        } else {
            "load"
        });
        let stream = self.stream && nothing.is_none();
        let mut request = Request::new(dialect, self.model, input);
        request.stream = stream;
        request.sampling = self.sampling;
        request.reasoning = self.reasoning;
        request.response_format = self.format;
        request.extra = self.extra.finish();
        Parsed { request, render: Flags { stream, nothing }.to_text() }
    }
}

/// One of `options`.
fn option<'a>(sampling: &mut Sampling, rest: &mut Members, reader: &mut Reader<'a>, name: &Name<'a>) -> Read<()> {
    match &*name.text {
        "temperature" => sampling.temperature = reader.optional(Reader::f64)?,
        "top_k" => sampling.top_k = reader.optional(Reader::i64)?,
        "top_p" => sampling.top_p = reader.optional(Reader::f64)?,
        "min_p" => sampling.min_p = reader.optional(Reader::f64)?,
        "seed" => sampling.seed = reader.optional(Reader::i64)?,
        "repeat_penalty" => sampling.repetition_penalty = reader.optional(Reader::f64)?,
        "presence_penalty" => sampling.presence_penalty = reader.optional(Reader::f64)?,
        "frequency_penalty" => sampling.frequency_penalty = reader.optional(Reader::f64)?,
        "stop" => sampling.stop = reader.optional(stop)?.unwrap_or_default(),
        "num_predict" => {
            let start = reader.position();
            if let Some(most) = reader.optional(Reader::i64)? {
                match u64::try_from(most) {
                    Ok(most) => sampling.max_tokens = Some(most),
                    Err(_) => rest.push_raw(name.raw, reader.since(start)),
                }
            }
        }
        _ if reader.kind() == Kind::Null => drop(reader.raw()?),
        _ => rest.push_raw(name.raw, reader.raw()?),
    }
    Ok(())
}

/// A string that is given: not `null`, and not empty.
pub(super) fn given(reader: &mut Reader<'_>) -> Read<Option<String>> {
    Ok(reader.optional(Reader::owned)?.filter(|text| !text.is_empty()))
}

/// Valid JSON that holds nothing.
pub(super) fn is_empty(raw: &str) -> bool {
    let inside = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    raw == "null" || (raw.starts_with(['"', '[', '{']) && inside.trim_ascii().is_empty())
}

/// A `keep_alive` of 0, as a number of seconds or as a duration in Go's notation.
fn is_no_time(raw: &str) -> bool {
    let digits = raw.bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
    digits.filter(u8::is_ascii_digit).try_fold(false, |_, digit| (digit == b'0').then_some(true)).unwrap_or_default()
}

fn think(reader: &mut Reader<'_>) -> Read<Reasoning> {
    let mut reasoning = Reasoning::default();
    match reader.kind() {
        Kind::Bool => reasoning.enabled = Some(reader.bool()?),
        Kind::String => {
            let start = reader.position();
            let effort = reader.owned()?;
            if effort.is_empty() {
                return reader.fault(start, "is empty: expected a boolean, or how much to think, as \"low\"");
            }
            reasoning.effort = Some(effort);
        }
        _ => return reader.wrong("a boolean, or how much to think, as \"low\""),
    }
    Ok(reasoning)
}

/// `"json"` or a schema; `""` is no format.
fn format(reader: &mut Reader<'_>) -> Read<Option<ResponseFormat>> {
    match reader.kind() {
        Kind::String => {
            let start = reader.position();
            match &*reader.string()? {
                "" => Ok(None),
                "json" => Ok(Some(ResponseFormat::JsonObject)),
                _ => reader.fault(start, "must be \"json\" or a JSON Schema, found another string"),
            }
        }
        Kind::Object => {
            let schema = reader.raw_object()?.to_owned();
            Ok(Some(ResponseFormat::JsonSchema(JsonSchema { schema, ..JsonSchema::default() })))
        }
        _ => reader.wrong("\"json\" or a JSON Schema"),
    }
}

fn tool(reader: &mut Reader<'_>) -> Read<Tool> {
    let start = reader.position();
    if reader.tag("type")?.is_some_and(|kind| !matches!(&*kind, "function" | "")) {
        return Ok(Tool::Other(reader.raw_object()?.to_owned()));
    }
    let mut function = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "function" => function = Some(function_tool(reader)?),
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some((mut function, rest)) = function else {
        return reader.fault_in(start, "function", "is missing: an object with the function's `name`");
    };
    extra.push_members("function", rest);
    function.extra = extra.finish();
    Ok(Tool::Function(function))
}

fn all_messages(reader: &mut Reader<'_>, limits: &Limits) -> Read<Vec<Message>> {
    let mut messages = Vec::new();
    let mut calls = Calls::default();
    reader.array(|reader, index| {
        if index >= limits.messages as usize {
            let most = limits.messages;
            let position = reader.position();
            return reader.fault(position, format!("is one message too many: at most {most} are allowed"));
        }
        messages.push(message(reader, &mut calls)?);
        Ok(())
    })?;
    Ok(messages)
}

fn message(reader: &mut Reader<'_>, calls: &mut Calls) -> Read<Message> {
    let start = reader.position();
    let mut role = None;
    let mut content = None;
    let mut thinking = None;
    let mut images = Vec::new();
    let mut asked = Vec::new();
    let mut calls_at = start;
    let mut tool_name = None;
    let mut call_id = None;
    let mut extra = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "role" => role = Some(self::role(reader)?),
            "content" => content = reader.optional(Reader::owned)?,
            "thinking" => thinking = given(reader)?,
            "images" => images = self::images(reader)?,
            "tool_calls" => {
                calls_at = reader.position();
                reader.optional(|reader| {
                    reader.array(|reader, index| {
                        asked.push(tool_call(reader, index)?);
                        Ok(())
                    })
                })?;
            }
            "tool_name" => tool_name = given(reader)?,
            "tool_call_id" => call_id = given(reader)?,
            _ => extra.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some(role) = role else {
        return reader.fault_in(start, "role", "is missing: every message needs one, as \"user\"");
    };
    let reasoning = thinking.map(|text| Part::Reasoning(ReasoningPart { text, ..ReasoningPart::default() }));
    let mut parts: Vec<Part> = reasoning.into_iter().collect();
    if role == Role::Tool {
        let result = ToolResult {
            extra: call_id.is_some().then(|| "{}".to_owned()),
            call_id: calls.answer(call_id, tool_name.as_deref()),
            content: content.into_iter().map(text_result).chain(images.into_iter().map(ResultContent::Media)).collect(),
            ..ToolResult::default()
        };
        parts.push(Part::ToolResult(result));
    } else {
        parts.extend(content.map(Part::text));
        parts.extend(images.into_iter().map(Part::Media));
        for (name, value) in [("tool_name", &mut tool_name), ("tool_call_id", &mut call_id)] {
            if let Some(text) = value.take() {
                let mut json = Vec::new();
                crate::write::string(&mut json, &text);
                extra.push(name, &String::from_utf8_lossy(&json));
            }
        }
    }
    if !asked.is_empty() {
        if matches!(role, Role::System | Role::Developer | Role::User | Role::Tool) {
            return reader.fault_in(calls_at, "tool_calls", "is only for messages of the role \"assistant\"");
        }
        calls.turn();
        parts.extend(asked.into_iter().map(|call| Part::ToolCall(calls.ask(call))));
    }
    Ok(Message { role, name: tool_name, parts, extra: extra.finish() })
}

fn text_result(text: String) -> ResultContent {
    ResultContent::Text(TextPart { text, ..TextPart::default() })
}

/// A role; Ollama takes any case.
fn role(reader: &mut Reader<'_>) -> Read<Role> {
    let start = reader.position();
    let role = reader.string()?;
    let lower = role.to_lowercase();
    Ok(match &*lower {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "" => return reader.fault(start, "is empty: expected a role, as \"user\""),
        _ => Role::Other(lower),
    })
}

/// An array of images in base64.
fn images(reader: &mut Reader<'_>) -> Read<Vec<MediaPart>> {
    let mut images = Vec::new();
    reader.optional(|reader| {
        reader.array(|reader, index| {
            let start = reader.position();
            if index >= MOST_IMAGES {
                return reader.fault(start, format!("is one image too many: at most {MOST_IMAGES} are allowed"));
            }
            let data = reader.owned()?;
            if data.is_empty() {
                return reader.fault(start, "is empty: expected a picture in base64");
            }
            // A colon is no letter of base64: the client wrote a URL.
            if data.bytes().take(16).any(|byte| byte == b':') {
                return reader.fault(start, "must be the picture in base64, found a URL");
            }
            images.push(MediaPart {
                kind: MediaKind::Image,
                mime: image_type(&data).map(str::to_owned),
                source: MediaSource::Base64(data),
                name: None,
                detail: None,
                cache: None,
                extra: None,
            });
            Ok(())
        })
    })?;
    Ok(images)
}

/// The media type of a picture, by the first bytes of its base64.
fn image_type(data: &str) -> Option<&'static str> {
    let webp = data.starts_with("UklGR") && data.get(12..16) == Some("RUJQ");
    match data {
        _ if webp => Some("image/webp"),
        _ if data.starts_with("iVBORw0KGgo") => Some("image/png"),
        _ if data.starts_with("/9j/") => Some("image/jpeg"),
        _ if data.starts_with("R0lGOD") => Some("image/gif"),
        _ => None,
    }
}

/// A tool call at the position `index` of its message. Its id may be empty.
fn tool_call(reader: &mut Reader<'_>, index: usize) -> Read<ToolCall> {
    let start = reader.position();
    let mut id = None;
    let mut called = None;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        match &*name.text {
            "id" => id = given(reader)?,
            "function" => called = Some(called_function(reader)?),
            "type" => {
                let raw = reader.raw()?;
                if raw != "\"function\"" {
                    extra.push_raw(name.raw, raw);
                }
            }
            _ => extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    })?;
    let Some((name, arguments, placed, mut rest)) = called else {
        return reader.fault_in(start, "function", "is missing: an object with `name` and `arguments`");
    };
    let alone = extra.is_empty() && rest.is_empty();
    if let Some(number) = placed.filter(|number| !alone || *number != index.to_string()) {
        rest.push("index", number);
    }
    extra.push_members("function", rest);
    let extra = extra.finish().or_else(|| placed.map(|_| "{}".to_owned()));
    Ok(ToolCall { id: id.unwrap_or_default(), name, arguments, cache: None, extra })
}

/// Name, arguments, the `index` as it was written, and unknown members of a called function.
fn called_function<'a>(reader: &mut Reader<'a>) -> Read<(String, String, Option<&'a str>, Members)> {
    let start = reader.position();
    let mut name = None;
    let mut arguments = None;
    let mut index = None;
    let mut rest = Members::default();
    reader.object(|reader, member| {
        match &*member.text {
            "name" => name = Some(reader.owned()?),
            "arguments" => arguments = reader.optional(Reader::raw_object)?,
            "index" => index = Some(reader.raw()?),
            _ => rest.push_raw(member.raw, reader.raw()?),
        }
        Ok(())
    })?;
    match name {
        Some(name) => Ok((name, arguments.unwrap_or("{}").to_owned(), index, rest)),
        None => reader.fault_in(start, "name", "is missing: the name of the function"),
    }
}

/// The tool calls of a conversation: gives them ids, and results the calls that they answer.
#[derive(Default)]
struct Calls {
    /// Calls so far.
    count: usize,
    /// Ids of the latest turn's calls; `None` where a result has come.
    open: Vec<Option<String>>,
    /// No call before this one is open.
    first: usize,
    /// Where the calls of a name, and the call of an id, are.
    names: BTreeMap<String, VecDeque<usize>>,
    ids: BTreeMap<String, usize>,
}

impl Calls {
    fn made_id(&mut self) -> String {
        let id = format!("{UNNAMED}{}", self.count);
        self.count += 1;
        id
    }

    /// A turn that has calls begins: those of the turn before are not answered any more.
    fn turn(&mut self) {
        *self = Calls { count: self.count, ..Calls::default() };
    }

    /// The next call of this turn.
    fn ask(&mut self, mut call: ToolCall) -> ToolCall {
        if call.id.is_empty() {
            call.id = self.made_id();
        } else {
            self.count += 1;
        }
        let at = self.open.len();
        self.open.push(Some(call.id.clone()));
        self.names.entry(call.name.clone()).or_default().push_back(at);
        self.ids.insert(call.id.clone(), at);
        call
    }

    /// The id of the call that a result answers.
    fn answer(&mut self, id: Option<String>, name: Option<&str>) -> String {
        if let Some(id) = id {
            if let Some(open) = self.ids.get(&id).and_then(|&at| self.open.get_mut(at)) {
                *open = None;
            }
            return id;
        }
        let found = match name {
            Some(name) => {
                let calls = self.names.get_mut(name).into_iter();
                let mut calls = calls.flat_map(|calls| std::iter::from_fn(|| calls.pop_front()));
                calls.find_map(|at| self.open.get_mut(at).and_then(Option::take))
            }
            None => {
                let found =
                    self.open.iter_mut().skip(self.first).enumerate().find_map(|(at, open)| Some((at, open.take()?)));
                self.first += found.as_ref().map_or(0, |(at, _)| at + 1);
                found.map(|(_, id)| id)
            }
        };
        found.unwrap_or_else(|| self.made_id())
    }
}
