//! Normalised request to Converse body. The rules, and the choices where AWS leaves one, are in the module's page.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;
use witgate_model::{
    CacheMark, Error, Framing, FunctionTool, HttpRequest, Json, MediaKind, MediaPart, MediaSource, Message, Part,
    ReasoningPart, Request, ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

use super::super::Context;
use super::super::http::{Encoding, internal};
use super::super::json::{Members, raw};
use super::super::model::Family;
use super::super::names::Names;
use super::{DIALECT, media, wire};
use crate::anthropic_shape::thinking::{self, SMALLEST_BUDGET, is_adaptive};
use crate::openai_shape::size_hint;
use crate::scan::base64_len;

/// Most images and most documents in one message.
const MOST_IMAGES: usize = 20;
const MOST_DOCUMENTS: usize = 5;

/// Most stop sequences.
const MOST_STOPS: usize = 2500;

/// Converse, or its stream.
pub(in super::super) fn encode(
    encoding: Encoding<'_>,
    request: &Request,
    messages: &[Message],
) -> Result<HttpRequest, Error> {
    let settings = encoding.settings;
    let mut encoder = Encoder::new(encoding, request, messages);
    let mut body = encoder.conversation_body(request, messages)?;
    body.inference_config = encoder.sampling(request)?;
    let mut extra = encoder.members(&request.extra, "")?;
    let fields = &mut body.additional_model_request_fields;
    if let Some(top_k) = request.sampling.top_k {
        fields.set(Cow::Borrowed("top_k"), raw(&top_k).map_err(internal)?);
    }
    encoder.reasoning(request, fields, body.inference_config.max_tokens)?;
    own_fields(&mut extra, fields)?;
    body.guardrail_config = settings.guardrail.clone().map(|mut guardrail| {
        guardrail.stream_processing_mode = guardrail.stream_processing_mode.filter(|_| request.stream);
        guardrail
    });
    body.additional_model_response_field_paths = &settings.additional_model_response_field_paths;
    body.request_metadata = encoder.metadata(request)?;
    body.performance_config = settings.latency.as_deref().map(|latency| wire::Performance { latency });
    body.service_tier = settings.service_tier.as_deref().map(|tier| wire::ServiceTier { r#type: tier });
    body.output_config = encoder.output_config(request)?;
    if !extra.is_empty() {
        // A client must not reach around the operator's guardrail.
        let present = serde_json::to_vec(&body).map_err(internal)?;
        let present = Members::parse_bytes(&present).map_err(internal)?;
        if let Some(name) = extra.names().find(|name| present.get(name).is_some()) {
            let message = format!("{name} is set already, by the provider's settings or another field of the request");
            return Err(Error::unsupported(name, message));
        }
        body.extra = extra;
    }
    let mut written = Vec::with_capacity(size_hint(request));
    serde_json::to_writer(&mut written, &body).map_err(internal)?;
    let context = encoder.context();
    let (operation, framing) = match request.stream {
        true => ("converse-stream", Framing::AwsEventstream),
        false => ("converse", Framing::Whole),
    };
    let model = encoder.encoding.target.id.clone();
    encoder.encoding.post(model, operation, framing, Vec::new(), written, &context)
}

/// The client's own `additionalModelRequestFields`, beside those of the settings.
fn own_fields<'a>(extra: &mut Members<'a>, fields: &mut Members<'a>) -> Result<(), Error> {
    let own = match extra.take("additionalModelRequestFields") {
        None => return Ok(()),
        Some(Cow::Borrowed(value)) => Members::of(value),
        Some(Cow::Owned(_)) => None,
    };
    let message = "additionalModelRequestFields must be an object";
    fields.merge(own.ok_or_else(|| Error::invalid("additionalModelRequestFields", message))?);
    Ok(())
}

/// The body of CountTokens, and what is left of the encoding.
pub(in super::super) fn count<'a>(
    encoding: Encoding<'a>,
    request: &'a Request,
    messages: &'a [Message],
) -> Result<(Encoding<'a>, Vec<u8>), Error> {
    let mut encoder = Encoder::new(encoding, request, messages);
    let mut body = encoder.conversation_body(request, messages)?;
    let mut extra = encoder.members(&request.extra, "")?;
    own_fields(&mut extra, &mut body.additional_model_request_fields)?;
    encoder.encoding.refuse_members(&extra, "", "Bedrock's CountTokens")?;
    #[derive(serde::Serialize)]
    struct Converse<'a> {
        converse: wire::Body<'a>,
    }
    #[derive(serde::Serialize)]
    struct Counted<'a> {
        input: Converse<'a>,
    }
    let body = serde_json::to_vec(&Counted { input: Converse { converse: body } }).map_err(internal)?;
    Ok((encoder.encoding, body))
}

/// Where in the client's request something stands.
#[derive(Clone, Copy)]
struct At {
    message: usize,
    part: Option<usize>,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.part {
            Some(part) => write!(f, "messages[{}].content[{part}]", self.message),
            None => write!(f, "messages[{}]", self.message),
        }
    }
}

/// One turn under way. Results of tools come first, as the models want them.
struct Turn<'a> {
    user: bool,
    results: Vec<wire::Block<'a>>,
    blocks: Vec<wire::Block<'a>>,
    extra: Members<'a>,
    images: usize,
    documents: usize,
    /// A document stands beside the text, not inside a tool's result.
    wants_text: bool,
    has_text: bool,
    /// The message that the turn began with.
    at: At,
}

impl Turn<'_> {
    fn count(&mut self, media: &MediaPart) {
        match media.kind {
            MediaKind::Image => self.images += 1,
            MediaKind::Document => self.documents += 1,
            _ => {}
        }
    }
}

pub(super) struct Encoder<'a> {
    pub(super) encoding: Encoding<'a>,
    /// The client speaks Converse: what the contract doesn't name is passed on.
    own: bool,
    tools: Names,
    ids: Names,
    /// Names of documents so far: no two may be equal.
    documents: BTreeSet<String>,
    /// Number of the last copy of a document's name: it only grows, so that many copies cost little.
    copies: usize,
}

impl<'a> Encoder<'a> {
    /// Knows every tool name and id of the request before the first is mapped.
    pub(super) fn new(encoding: Encoding<'a>, request: &Request, messages: &[Message]) -> Self {
        let (mut tools, mut ids) = (Names::tools(), Names::ids());
        for tool in &request.tools {
            if let Tool::Function(tool) = tool {
                tools.reserve(&tool.name);
            }
        }
        for part in messages.iter().flat_map(|message| &message.parts) {
            match part {
                Part::ToolCall(call) => {
                    tools.reserve(&call.name);
                    ids.reserve(&call.id);
                }
                Part::ToolResult(result) => ids.reserve(&result.call_id),
                _ => {}
            }
        }
        Encoder { encoding, own: request.dialect == DIALECT, tools, ids, documents: BTreeSet::new(), copies: 1 }
    }

    /// Refuses `param`; where it returns, the caller leaves it out.
    fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        self.encoding.refuse(param, message)
    }

    /// What a conversation is made of: turns, system prompt, tools.
    pub(super) fn conversation_body(
        &mut self,
        request: &'a Request,
        messages: &'a [Message],
    ) -> Result<wire::Body<'a>, Error> {
        let (system, turns) = self.conversation(messages)?;
        Ok(wire::Body {
            messages: turns,
            system,
            tool_config: self.tool_config(request, messages)?,
            additional_model_request_fields: self
                .encoding
                .settings
                .additional_model_request_fields
                .clone()
                .unwrap_or_default(),
            ..wire::Body::default()
        })
    }

    /// The unnamed members of an object at `at`, to be passed on.
    fn members(&mut self, extra: &'a Option<Json>, at: impl std::fmt::Display) -> Result<Members<'a>, Error> {
        let Some(extra) = extra else { return Ok(Members::default()) };
        let members = Members::parse(extra)
            .map_err(|error| Error::invalid(at.to_string(), format!("the members that have no name here: {error}")))?;
        if self.own {
            return Ok(members);
        }
        self.encoding.refuse_members(&members, at, "Bedrock's Converse API")?;
        Ok(Members::default())
    }

    /// An object that only the client's dialect knows, to be passed on as it is.
    fn foreign(&mut self, json: &'a Json, at: impl std::fmt::Display) -> Result<Option<&'a RawValue>, Error> {
        if !self.own {
            self.refuse(at.to_string(), "Bedrock's Converse API has nothing like this")?;
            return Ok(None);
        }
        let value = serde_json::from_str::<&RawValue>(json)
            .map_err(|error| Error::invalid(at.to_string(), format!("not JSON: {error}")))?;
        Ok(Some(value))
    }

    fn cache_point(&self, cache: &'a CacheMark, at: impl std::fmt::Display) -> Result<wire::CachePoint<'a>, Error> {
        if let Some(ttl) = &cache.ttl
            && !matches!(ttl.as_str(), "5m" | "1h")
        {
            return Err(Error::invalid(
                at.to_string(),
                format!("Bedrock caches prompts for `5m` or `1h`, not for `{ttl}`"),
            ));
        }
        Ok(wire::CachePoint { r#type: "default", ttl: cache.ttl.as_deref() })
    }

    /// System blocks and turns.
    fn conversation(
        &mut self,
        messages: &'a [Message],
    ) -> Result<(Vec<wire::SystemBlock<'a>>, Vec<wire::Turn<'a>>), Error> {
        let mut system = Vec::new();
        let mut turns: Vec<Turn<'a>> = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let at = At { message: number, part: None };
            if message.name.is_some() && message.role != Role::Tool {
                self.refuse(format!("{at}.name"), "Bedrock's Converse API has no names of speakers")?;
            }
            let user = match &message.role {
                Role::System | Role::Developer => {
                    self.system(message, at, &mut system)?;
                    continue;
                }
                Role::User | Role::Tool => true,
                Role::Assistant => false,
                Role::Other(role) => {
                    return Err(Error::unsupported(
                        format!("{at}.role"),
                        format!("Bedrock knows the roles system, user and assistant, not `{role}`"),
                    ));
                }
            };
            let mut turn = Turn {
                user,
                results: Vec::new(),
                blocks: Vec::new(),
                extra: self.members(&message.extra, at)?,
                images: 0,
                documents: 0,
                wants_text: false,
                has_text: false,
                at,
            };
            for (number, part) in message.parts.iter().enumerate() {
                self.part(part, At { part: Some(number), ..at }, &mut turn)?;
            }
            if turn.results.is_empty() && turn.blocks.is_empty() {
                if user {
                    return Err(Error::invalid(
                        format!("{at}.content"),
                        "the message is empty, and Bedrock refuses empty text",
                    ));
                }
                continue;
            }
            match turns.last_mut() {
                Some(last) if last.user == turn.user => {
                    last.results.append(&mut turn.results);
                    last.blocks.append(&mut turn.blocks);
                    last.extra.merge(turn.extra);
                    last.images += turn.images;
                    last.documents += turn.documents;
                    last.wants_text |= turn.wants_text;
                    last.has_text |= turn.has_text;
                }
                _ => turns.push(turn),
            }
        }
        self.check_start(&mut turns)?;
        for turn in &turns {
            check_turn(turn)?;
        }
        let turns = turns.into_iter().map(|mut turn| {
            turn.results.append(&mut turn.blocks);
            let role = if turn.user { "user" } else { "assistant" };
            wire::Turn { role, content: turn.results, extra: turn.extra }
        });
        Ok((system, turns.collect()))
    }

    /// The first turn is the user's.
    fn check_start(&mut self, turns: &mut Vec<Turn<'a>>) -> Result<(), Error> {
        if let Some(first) = turns.first()
            && !first.user
        {
            let calls_tools = first.blocks.iter().any(|block| matches!(block, wire::Block::ToolUse(_)));
            let message = "Bedrock wants the user's turn first, in front of the assistant's";
            if calls_tools {
                return Err(Error::unsupported(format!("{}.role", first.at), message));
            }
            self.refuse(format!("{}.role", first.at), message)?;
            turns.remove(0);
        }
        if turns.is_empty() {
            return Err(Error::invalid("messages", "Bedrock wants at least one message of the user"));
        }
        Ok(())
    }

    fn system(&mut self, message: &'a Message, at: At, system: &mut Vec<wire::SystemBlock<'a>>) -> Result<(), Error> {
        // Members beside `role` and `content` have no place at the top level, in any dialect.
        if let Some(extra) = &message.extra
            && Members::parse(extra).is_ok_and(|members| !members.is_empty())
        {
            self.refuse(at.to_string(), "Bedrock's system prompt has nothing but blocks of content")?;
        }
        for (number, part) in message.parts.iter().enumerate() {
            let at = At { part: Some(number), ..at };
            match part {
                Part::Text(text) => {
                    let extra = self.members(&text.extra, at)?;
                    match (text.text.is_empty(), extra.is_empty()) {
                        (true, true) => {}
                        (_, true) => system.push(wire::SystemBlock::Text(&text.text)),
                        (_, false) => {
                            system.push(wire::SystemBlock::TextWith(wire::TextWith { text: &text.text, extra }));
                        }
                    }
                    if let Some(cache) = &text.cache
                        && !system.is_empty()
                    {
                        system.push(wire::SystemBlock::CachePoint(self.cache_point(cache, at)?));
                    }
                }
                Part::Other(json) => {
                    if let Some(block) = self.foreign(json, at)? {
                        system.push(wire::SystemBlock::Raw(block));
                    }
                }
                _ => self.refuse(at.to_string(), "Bedrock's system prompt is text alone")?,
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &'a Part, at: At, turn: &mut Turn<'a>) -> Result<(), Error> {
        let cache = match part {
            Part::Text(text) | Part::Refusal(text) => {
                // Converse has no refusals: what the assistant said when it declined is what it said.
                turn.has_text |= !text.text.is_empty();
                turn.blocks.extend(self.text(text, at)?);
                &text.cache
            }
            Part::Media(media) => {
                if !turn.user {
                    self.refuse(at.to_string(), "Bedrock takes media in the user's turns only")?;
                    return Ok(());
                }
                turn.count(media);
                turn.wants_text |= media.kind == MediaKind::Document;
                turn.blocks.extend(self.media(media, at)?);
                &media.cache
            }
            Part::Reasoning(reasoning) => {
                if turn.user {
                    return Err(Error::invalid(at.to_string(), "reasoning belongs to turns of the assistant"));
                }
                self.reasoning_part(reasoning, at, turn)?;
                &None
            }
            Part::ToolCall(call) => {
                if turn.user {
                    return Err(Error::invalid(at.to_string(), "tool calls belong to turns of the assistant"));
                }
                let block = self.tool_use(call, at)?;
                turn.blocks.push(block);
                &call.cache
            }
            Part::ToolResult(result) => {
                if !turn.user {
                    return Err(Error::invalid(at.to_string(), "results of tools belong to turns of the user"));
                }
                let (block, cache) = self.tool_result(result, at, turn)?;
                turn.results.push(block);
                if let Some(cache) = cache {
                    turn.results.push(wire::Block::CachePoint(self.cache_point(cache, at)?));
                }
                &None
            }
            Part::Other(json) => {
                if let Some(block) = self.foreign(json, at)? {
                    turn.blocks.push(wire::Block::Raw(block));
                    // Whether it holds text is not ours to know.
                    turn.has_text = true;
                }
                &None
            }
        };
        if let Some(cache) = cache
            && !turn.blocks.is_empty()
        {
            turn.blocks.push(wire::Block::CachePoint(self.cache_point(cache, at)?));
        }
        Ok(())
    }

    /// A block of text; none where it is empty, which Bedrock refuses.
    fn text(&mut self, text: &'a TextPart, at: At) -> Result<Option<wire::Block<'a>>, Error> {
        let extra = self.members(&text.extra, at)?;
        Ok(match (text.text.is_empty(), extra.is_empty()) {
            (true, true) => None,
            (_, true) => Some(wire::Block::Text(&text.text)),
            (_, false) => Some(wire::Block::TextWith(wire::TextWith { text: &text.text, extra })),
        })
    }

    fn media(&mut self, part: &'a MediaPart, at: At) -> Result<Option<wire::Block<'a>>, Error> {
        let at = at.to_string();
        if let MediaKind::Other(kind) = &part.kind {
            self.refuse(at, format!("Bedrock takes images, documents, video and audio, not `{kind}`"))?;
            return Ok(None);
        }
        if part.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.refuse(format!("{at}.detail"), "Bedrock can't be told how closely to look")?;
        }
        let source = match &part.source {
            MediaSource::Base64(data) => {
                media::check_bytes(&part.kind, data, &at)?;
                wire::Source::Bytes(data)
            }
            MediaSource::Url(url) => wire::Source::S3Location(wire::S3Location { uri: media::s3(url, &at)? }),
            MediaSource::Text(text) if part.kind == MediaKind::Document => {
                media::check_text(text, &at)?;
                wire::Source::Text(text)
            }
            MediaSource::Text(_) | MediaSource::FileId(_) => {
                let message = "Bedrock keeps no files: send the data itself in base64, or an `s3://` address";
                return Err(Error::unsupported(at, message));
            }
            MediaSource::Other(json) => match self.foreign(json, &at)? {
                Some(source) => wire::Source::Raw(source),
                None => return Ok(None),
            },
        };
        let extra = self.members(&part.extra, &at)?;
        // Documents of the client's own dialect may hold text, which has no format.
        let format = match &source {
            wire::Source::Raw(_) if part.mime.is_none() && part.kind == MediaKind::Document => None,
            wire::Source::Text(_) if part.mime.is_none() => Some("txt"),
            _ => Some(media::format(part, &at)?),
        };
        let name = (part.kind == MediaKind::Document).then(|| {
            let base = media::document_name(part.name.as_deref(), self.documents.len() + 1);
            let mut name = base.clone();
            while !self.documents.insert(name.clone()) {
                self.copies += 1;
                name = format!("{base} ({})", self.copies);
            }
            name
        });
        let block = wire::Media { format, name, source, extra };
        Ok(Some(match part.kind {
            MediaKind::Image => wire::Block::Image(block),
            MediaKind::Document => wire::Block::Document(block),
            MediaKind::Video => wire::Block::Video(block),
            MediaKind::Audio => wire::Block::Audio(block),
            MediaKind::Other(_) => return Ok(None),
        }))
    }

    fn reasoning_part(&mut self, part: &'a ReasoningPart, at: At, turn: &mut Turn<'a>) -> Result<(), Error> {
        let extra = self.members(&part.extra, at)?;
        if !part.text.is_empty() || part.signature.is_some() || !extra.is_empty() {
            let text = wire::ReasoningText { text: &part.text, signature: part.signature.as_deref(), extra };
            turn.blocks.push(wire::Block::ReasoningContent(wire::Reasoning::ReasoningText(text)));
        }
        if let Some(redacted) = &part.redacted {
            if base64_len(redacted).is_none() {
                let message = "encrypted reasoning of Bedrock is base64; this is from another backend, or damaged";
                return Err(Error::invalid(at.to_string(), message));
            }
            turn.blocks.push(wire::Block::ReasoningContent(wire::Reasoning::RedactedContent(redacted)));
        }
        Ok(())
    }

    fn tool_use(&mut self, call: &'a ToolCall, at: At) -> Result<wire::Block<'a>, Error> {
        let text = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
        let input = serde_json::from_str::<&RawValue>(text).ok().filter(|input| input.get().starts_with('{'));
        let input = input.ok_or_else(|| {
            let message = format!("the arguments of the call to `{}` must be a JSON object", call.name);
            Error::invalid(at.to_string(), message)
        })?;
        Ok(wire::Block::ToolUse(wire::ToolUse {
            tool_use_id: self.ids.map(&call.id).to_owned(),
            name: self.tools.map(&call.name).to_owned(),
            input,
            extra: self.members(&call.extra, at)?,
        }))
    }

    /// The block, and the cache mark that belongs behind it: a piece of a result cannot carry one.
    fn tool_result(
        &mut self,
        result: &'a ToolResult,
        at: At,
        turn: &mut Turn<'a>,
    ) -> Result<(wire::Block<'a>, Option<&'a CacheMark>), Error> {
        let mut content = Vec::new();
        let mut cache = None;
        for piece in &result.content {
            match piece {
                ResultContent::Text(text) => {
                    content.extend(self.text(text, at)?);
                    cache = text.cache.as_ref().or(cache);
                }
                ResultContent::Media(media) => {
                    turn.count(media);
                    content.extend(self.media(media, at)?);
                    cache = media.cache.as_ref().or(cache);
                }
                ResultContent::Other(json) => content.extend(self.foreign(json, at)?.map(wire::Block::Raw)),
            }
        }
        let status = result.is_error.map(|is_error| if is_error { "error" } else { "success" });
        let tool_use_id = self.ids.map(&result.call_id).to_owned();
        let extra = self.members(&result.extra, at)?;
        let block = wire::Block::ToolResult(wire::ToolResult { tool_use_id, content, status, extra });
        Ok((block, result.cache.as_ref().or(cache)))
    }

    fn tool_config(
        &mut self,
        request: &'a Request,
        messages: &'a [Message],
    ) -> Result<Option<wire::ToolConfig<'a>>, Error> {
        if request.parallel_tool_calls == Some(false) {
            self.refuse("parallel_tool_calls", "Bedrock's Converse API can't forbid several tool calls in one turn")?;
        }
        let parts = || messages.iter().flat_map(|message| &message.parts);
        let has_blocks = parts().any(|part| matches!(part, Part::ToolCall(_) | Part::ToolResult(_)));
        if request.tool_choice == Some(ToolChoice::None) {
            if !has_blocks {
                return Ok(None);
            }
            self.refuse(
                "tool_choice",
                "Bedrock can't forbid tools in a conversation that has tool calls or results: it has no `none`",
            )?;
        }

        let mut tools = Vec::new();
        for (number, tool) in request.tools.iter().enumerate() {
            let at = format!("tools[{number}]");
            match tool {
                Tool::Function(tool) => {
                    let spec = self.tool_spec(tool, &at)?;
                    tools.push(wire::Tool::ToolSpec(spec));
                    if let Some(cache) = &tool.cache {
                        tools.push(wire::Tool::CachePoint(self.cache_point(cache, &at)?));
                    }
                }
                Tool::Other(json) => tools.extend(self.foreign(json, &at)?.map(wire::Tool::Raw)),
            }
        }
        if tools.is_empty() && has_blocks {
            // Bedrock wants a toolConfig wherever the history has tool blocks: the tools that the history names.
            let names: BTreeSet<&str> = parts()
                .filter_map(|part| match part {
                    Part::ToolCall(call) => Some(call.name.as_str()),
                    _ => None,
                })
                .collect();
            if names.is_empty() {
                return Err(Error::invalid("messages", "there are results of tools, but no calls that they answer"));
            }
            for name in names {
                tools.push(wire::Tool::ToolSpec(wire::ToolSpec {
                    name: self.tools.map(name).to_owned(),
                    description: None,
                    input_schema: any_object()?,
                    strict: None,
                    extra: Members::default(),
                }));
            }
        }

        let tool_choice = match &request.tool_choice {
            None | Some(ToolChoice::None) => None,
            Some(ToolChoice::Auto) if tools.is_empty() => None,
            Some(_) if tools.is_empty() => {
                return Err(Error::invalid("tool_choice", "tool_choice asks for a tool, but no tools are given"));
            }
            Some(ToolChoice::Auto) => Some(wire::ToolChoice::Auto {}),
            Some(ToolChoice::Required) => Some(wire::ToolChoice::Any {}),
            Some(ToolChoice::Tool(name)) => {
                let given = |tool: &Tool| matches!(tool, Tool::Function(tool) if tool.name == *name);
                // Tools of the backend's own (`Tool::Other`) have names that we don't see.
                if !request.tools.iter().any(|tool| given(tool) || matches!(tool, Tool::Other(_))) {
                    let message = format!("tool_choice names the tool `{name}`, which is not among the tools");
                    return Err(Error::invalid("tool_choice", message));
                }
                Some(wire::ToolChoice::Tool { name: self.tools.map(name).to_owned() })
            }
            Some(ToolChoice::Other(json)) => self.foreign(json, "tool_choice")?.map(wire::ToolChoice::Raw),
        };
        Ok((!tools.is_empty()).then_some(wire::ToolConfig { tools, tool_choice }))
    }

    fn tool_spec(&mut self, tool: &'a FunctionTool, at: &str) -> Result<wire::ToolSpec<'a>, Error> {
        let input_schema = match &tool.parameters {
            None => any_object()?,
            Some(schema) => {
                let json = serde_json::from_str::<&RawValue>(schema).map_err(|error| {
                    Error::invalid(format!("{at}.parameters"), format!("the JSON Schema is not JSON: {error}"))
                })?;
                wire::InputSchema { json: Cow::Borrowed(json) }
            }
        };
        Ok(wire::ToolSpec {
            name: self.tools.map(&tool.name).to_owned(),
            description: tool.description.as_deref().filter(|text| !text.is_empty()),
            input_schema,
            strict: tool.strict,
            extra: self.members(&tool.extra, at)?,
        })
    }

    fn sampling(&mut self, request: &'a Request) -> Result<wire::InferenceConfig<'a>, Error> {
        let sampling = &request.sampling;
        self.encoding.refuse_sampling(sampling, "Bedrock's Converse API")?;
        let mut in_unit = |name: &str, value: Option<f64>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                self.refuse(name, format!("Bedrock takes a {name} from 0 to 1, not {value}"))?;
                Ok(None)
            }
            value => Ok(value),
        };
        let max_tokens = sampling.max_completion_tokens.or(sampling.max_tokens);
        if max_tokens.is_some_and(|most| most == 0 || most > i32::MAX as u64) {
            let name = if sampling.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
            return Err(Error::invalid(name, format!("Bedrock takes 1 to {} tokens", i32::MAX)));
        }
        if sampling.stop.len() > MOST_STOPS {
            return Err(Error::invalid("stop", format!("Bedrock takes at most {MOST_STOPS} stop sequences")));
        }
        if let Some(empty) = sampling.stop.iter().position(String::is_empty) {
            return Err(Error::invalid(format!("stop[{empty}]"), "a stop sequence must not be empty"));
        }
        Ok(wire::InferenceConfig {
            max_tokens,
            temperature: in_unit("temperature", sampling.temperature)?,
            top_p: in_unit("top_p", sampling.top_p)?,
            stop_sequences: &sampling.stop,
        })
    }

    /// Reasoning is the model's own field: known for Anthropic's models, refused for others.
    fn reasoning(
        &mut self,
        request: &'a Request,
        fields: &mut Members<'a>,
        max_tokens: Option<u64>,
    ) -> Result<(), Error> {
        let Some(reasoning) = &request.reasoning else { return Ok(()) };
        self.members(&reasoning.extra, "reasoning")?;
        if reasoning.summary.as_deref().is_some_and(|summary| !matches!(summary, "auto" | "none")) {
            self.refuse("reasoning.summary", "Bedrock returns the reasoning as it is, and no summary of it")?;
        }
        let effort = reasoning.effort.as_deref();
        let param =
            if reasoning.budget_tokens.is_none() && effort.is_some() { "reasoning_effort" } else { "reasoning" };
        if self.encoding.target.family == Family::GptOss {
            return match (effort, reasoning.budget_tokens, reasoning.enabled) {
                (None, None, None | Some(true)) => Ok(()),
                (Some(effort @ ("low" | "medium" | "high")), None, None | Some(true)) => {
                    fields.set(Cow::Borrowed("reasoning_effort"), raw(effort).map_err(internal)?);
                    Ok(())
                }
                _ => self.refuse(param, "gpt-oss always reasons, and is told how much by low, medium or high"),
            };
        }
        let claude = self.encoding.target.family == Family::Claude;
        let adaptive = claude && is_adaptive(self.encoding.settings.thinking, &self.encoding.target.id);
        if reasoning.enabled == Some(false) || effort == Some("none") {
            fields.remove("thinking");
            if adaptive {
                // Only models that know budgets do not think unless they are told to.
                let off = serde_json::json!({"type": "disabled"});
                fields.set(Cow::Borrowed("thinking"), raw(&off).map_err(internal)?);
            }
            return Ok(());
        }
        if effort.is_none() && reasoning.budget_tokens.is_none() && reasoning.enabled != Some(true) {
            return Ok(());
        }
        if !claude {
            return self.refuse(
                param,
                "how this model is told to reason is not known here: \
                 put the model's own fields into the setting `additional_model_request_fields`",
            );
        }
        let table = thinking::budget(effort.unwrap_or("medium")).ok_or_else(|| {
            let word = effort.unwrap_or_default();
            Error::invalid(param, format!("`{word}` is not one of none, minimal, low, medium, high and xhigh"))
        })?;
        if adaptive {
            if reasoning.budget_tokens.is_some() {
                let message = "this model decides by itself how much it thinks: give an effort, or set \
                               `thinking = \"budget\"` if it takes one";
                self.refuse("reasoning.budget_tokens", message)?;
            }
            let thinking = serde_json::json!({"type": "adaptive"});
            fields.set(Cow::Borrowed("thinking"), raw(&thinking).map_err(internal)?);
            if let Some(effort) = effort {
                let effort = if effort == "minimal" { "low" } else { effort };
                let output = serde_json::json!({"effort": effort});
                fields.set(Cow::Borrowed("output_config"), raw(&output).map_err(internal)?);
            }
            return Ok(());
        }
        // The budget is part of max_tokens: what our table says must leave room for the answer.
        let fits = || max_tokens.map_or(table, |most| table.min(most / 2).max(SMALLEST_BUDGET));
        let budget = reasoning.budget_tokens.unwrap_or_else(fits);
        if budget < SMALLEST_BUDGET || max_tokens.is_some_and(|most| budget >= most) {
            let most = max_tokens.map_or("max_tokens".to_owned(), |most| format!("max_tokens ({most})"));
            let message =
                format!("a thinking budget has at least {SMALLEST_BUDGET} tokens and fewer than {most}, not {budget}");
            return Err(Error::invalid(param, message));
        }
        let thinking = serde_json::json!({"type": "enabled", "budget_tokens": budget});
        fields.set(Cow::Borrowed("thinking"), raw(&thinking).map_err(internal)?);
        Ok(())
    }

    fn output_config(&mut self, request: &'a Request) -> Result<Option<wire::OutputConfig<'a>>, Error> {
        let schema = match &request.response_format {
            None | Some(ResponseFormat::Text) => return Ok(None),
            Some(ResponseFormat::JsonSchema(schema)) => schema,
            Some(ResponseFormat::JsonObject) => {
                self.refuse("response_format", "Bedrock can't promise JSON without a schema: ask for `json_schema`")?;
                return Ok(None);
            }
            Some(ResponseFormat::Other(_)) => {
                self.refuse("response_format", "Bedrock's Converse API knows `json_schema` and text")?;
                return Ok(None);
            }
        };
        serde_json::from_str::<&RawValue>(&schema.schema).map_err(|error| {
            Error::invalid("response_format.json_schema.schema", format!("the JSON Schema is not JSON: {error}"))
        })?;
        let json_schema = wire::FormatSchema {
            schema: &schema.schema,
            name: schema.name.as_deref(),
            description: schema.description.as_deref(),
        };
        let structure = wire::FormatStructure { json_schema };
        Ok(Some(wire::OutputConfig { text_format: wire::TextFormat { r#type: "json_schema", structure } }))
    }

    /// The settings' metadata, and the end user: Converse has no field for abuse detection, but its invocation log is
    /// where an operator looks for it.
    fn metadata(&mut self, request: &'a Request) -> Result<BTreeMap<&'a str, &'a str>, Error> {
        let own = self.encoding.settings.request_metadata.iter();
        let mut metadata: BTreeMap<_, _> = own.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Some(user) = &request.end_user {
            let fits = user.len() <= 256
                && user
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":_@$#=/+,-.".contains(c));
            if fits {
                metadata.insert("end_user", user);
            } else {
                let message = "Bedrock takes at most 256 letters, digits, blanks and `:_@$#=/+,-.` to name the user";
                self.refuse("user", message)?;
            }
        }
        Ok(metadata)
    }

    /// What the decoder needs: the client's names of the tools that were mapped.
    fn context(&self) -> Context {
        let tools = self.tools.back().into_iter().map(|(mapped, own)| (mapped.to_owned(), own.to_owned()));
        Context { tools: tools.collect(), ..Context::default() }
    }
}

/// What AWS says of one message's content as a whole.
fn check_turn(turn: &Turn) -> Result<(), Error> {
    let at = format!("{}.content", turn.at);
    if turn.images > MOST_IMAGES {
        let message = format!("a message may hold {MOST_IMAGES} images on Bedrock, this one has {}", turn.images);
        return Err(Error::invalid(at, message));
    }
    if turn.documents > MOST_DOCUMENTS {
        let message =
            format!("a message may hold {MOST_DOCUMENTS} documents on Bedrock, this one has {}", turn.documents);
        return Err(Error::invalid(at, message));
    }
    if turn.wants_text && !turn.has_text {
        return Err(Error::invalid(at, "Bedrock wants text beside a document in the same message"));
    }
    Ok(())
}

/// The schema of a tool that takes no arguments, or whose arguments nobody told.
fn any_object() -> Result<wire::InputSchema<'static>, Error> {
    let schema = serde_json::json!({"type": "object", "properties": {}});
    Ok(wire::InputSchema { json: raw(&schema).map_err(internal)? })
}
