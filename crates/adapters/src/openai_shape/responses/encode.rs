//! A normalised conversation to a request of the Responses API.

use serde::Deserialize;
use witgate_model::{
    Error, HttpRequest, Input, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart, Request,
    ResponseFormat, ResultContent, Role, Sampling, TextPart, Tool, ToolChoice, ToolResult,
};

use crate::image;
use crate::names::Mapping;
use crate::openai_shape::encode::{SHARED, is_reasoning_model, post, size_hint};
use crate::openai_shape::json::{self, Members, Name, Object, Text};
use crate::openai_shape::policy::Policy;
use crate::openai_shape::{CHAT, Flavour, RESPONSES, Settings, names};

/// Who refuses, in messages.
const API: &str = "OpenAI's Responses API";

/// How encrypted reasoning of OpenAI begins.
const ENCRYPTED: &str = "gAAAA";

/// Most entries of a client's `include`.
const INCLUDES: usize = 64;

/// The HTTP request for a conversation.
pub(in crate::openai_shape) fn encode(settings: &Settings, request: &Request) -> Result<HttpRequest, Error> {
    let native = request.dialect == RESPONSES;
    let policy = Policy::new(API, native, settings.drop_unsupported);
    let messages = if let Input::Chat(messages) = &request.input { messages.as_slice() } else { &[] };
    let names = names::mapping(!native || settings.strict, names::RESPONSES_ID, request, messages);
    let mut encoder = Encoder { out: Vec::with_capacity(size_hint(request)), policy, names };
    encoder.request(request)?;
    Ok(HttpRequest {
        context: names::with_names(Some("responses".into()), "responses", &encoder.names)?,
        dropped: encoder.policy.dropped,
        ..post(Flavour::OpenAi, settings, &["responses"], request.stream, encoder.out)
    })
}

/// The text of a message that can stand as `instructions`.
fn instructions(messages: &[Message]) -> Option<&str> {
    match messages.first()? {
        Message { role: Role::System, name: None, parts, extra: None } => match parts.as_slice() {
            [Part::Text(TextPart { text, extra: None, .. })] => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// True for the `type` of a piece of a message, false for that of an item.
fn is_content(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Text<'a>>,
    }
    let kind = serde_json::from_str::<Typed<'_>>(json).ok().and_then(|typed| typed.kind);
    kind.is_some_and(|kind| kind.0.starts_with("input_") || matches!(&*kind.0, "output_text" | "refusal" | "text"))
}

/// Where a part stands, in the client's terms.
fn path(message: usize, part: usize) -> String {
    format!("messages[{message}].content[{part}]")
}

/// The text of an input that the client wrote as a string.
fn alone(messages: &[Message]) -> Option<&str> {
    let [Message { role: Role::User, name: None, parts, extra: None }] = messages else { return None };
    match parts.as_slice() {
        [Part::Text(TextPart { text, extra: None, .. })] => Some(text),
        _ => None,
    }
}

struct Encoder {
    out: Vec<u8>,
    policy: Policy,
    names: Mapping,
}

impl Encoder {
    /// A comma between the elements of the list that began at `start`.
    fn separate(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }

    fn request(&mut self, request: &Request) -> Result<(), Error> {
        let mut shared = SHARED.to_vec();
        if request.dialect == CHAT {
            shared.extend(["store", "verbosity", "stream_options"]);
        }
        let mut extra = self.policy.extra(request.extra.as_deref(), &String::new, &shared)?;
        if extra.get("background").is_some_and(|value| value != "false" && value != "null") {
            self.policy
                .refuse("background", format!("{API} would answer later, and this gateway does not fetch answers"))?;
            extra.0.retain(|(name, _)| name != "background");
        }
        let Input::Chat(messages) = &request.input else {
            return Err(Error::no_operation(API, &request.input));
        };
        let mut top = Object::open(&mut self.out);
        top.string(&mut self.out, Name::Model, &request.model);
        let instructions = instructions(messages);
        if let Some(text) = instructions {
            top.string(&mut self.out, Name::Instructions, text);
        }
        top.name(&mut self.out, Name::Input);
        let first = usize::from(instructions.is_some());
        match alone(messages.get(first..).unwrap_or_default()).filter(|_| self.policy.native) {
            Some(text) => json::string(&mut self.out, text),
            None => {
                self.out.push(b'[');
                let start = self.out.len();
                for (at, message) in messages.iter().enumerate().skip(first) {
                    self.message(start, at, message)?;
                }
                self.out.push(b']');
            }
        }
        self.tools(&mut top, request)?;
        self.text(&mut top, request.response_format.as_ref(), &extra)?;
        if let Some(reasoning) = &request.reasoning {
            self.reasoning(&mut top, reasoning)?;
        }
        self.sampling(&mut top, &request.sampling)?;
        self.include(&mut top, request, &extra);
        if extra.get("store").is_none_or(|store| store == "null") {
            top.bool(&mut self.out, Name::Store, false);
        }
        if let Some(user) = &request.end_user {
            top.string(&mut self.out, Name::User, user);
        }
        if request.stream {
            top.bool(&mut self.out, Name::Stream, true);
        }
        // `verbosity` has been written in its place.
        if !self.policy.native {
            extra.0.retain(|(name, _)| name != "verbosity" && (name != "stream_options" || request.stream));
        }
        top.splice(&mut self.out, &extra);
        top.close(&mut self.out);
        Ok(())
    }

    /// The items of one message.
    fn message(&mut self, start: usize, at: usize, message: &Message) -> Result<(), Error> {
        let mut extra = self.policy.extra(message.extra.as_deref(), &|| format!("messages[{at}]"), &[])?;
        if message.name.is_some() && !self.policy.native {
            self.policy.refuse(format!("messages[{at}].name"), format!("{API} has no names of speakers"))?;
        }
        if message.parts.is_empty() {
            self.content(start, at, message, 0..0, &extra)?;
        }
        let mut number = 0;
        while let Some(part) = message.parts.get(number) {
            let this = number;
            number += 1;
            let place = || path(at, this);
            match part {
                Part::Reasoning(reasoning) => self.reasoning_item(start, place, reasoning)?,
                Part::ToolCall(call) => {
                    let extra = self.policy.extra(call.extra.as_deref(), &place, &[])?;
                    self.separate(start);
                    let mut object = Object::open(&mut self.out);
                    object.raw(&mut self.out, Name::Type, "\"function_call\"");
                    object.string(&mut self.out, Name::CallId, self.names.ids.map(&call.id));
                    object.string(&mut self.out, Name::Called, self.names.tools.map(&call.name));
                    object.string(&mut self.out, Name::Arguments, &call.arguments);
                    object.splice(&mut self.out, &extra);
                    object.close(&mut self.out);
                }
                Part::ToolResult(result) => self.tool_result(start, place, result)?,
                Part::Other(json) if !is_content(json) => {
                    if self.policy.passes(&place)? {
                        self.separate(start);
                        self.out.extend_from_slice(json.as_bytes());
                    }
                }
                Part::Text(_) | Part::Media(_) | Part::Refusal(_) | Part::Other(_) => {
                    let stands = |part: &Part| match part {
                        Part::Text(_) | Part::Media(_) | Part::Refusal(_) => true,
                        Part::Other(json) => is_content(json),
                        Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => false,
                    };
                    while message.parts.get(number).is_some_and(stands) {
                        number += 1;
                    }
                    self.content(start, at, message, this..number, &std::mem::take(&mut extra))?;
                }
            }
        }
        Ok(())
    }

    /// The `message` item of the parts in `range`.
    fn content(
        &mut self,
        start: usize,
        at: usize,
        message: &Message,
        range: std::ops::Range<usize>,
        extra: &Members<'_>,
    ) -> Result<(), Error> {
        let role = match &message.role {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Other(role) if self.policy.native => role,
            Role::Tool | Role::Other(_) => {
                let message = format!(
                    "{API} knows the roles system, developer, user and assistant; a tool's role is for its results"
                );
                return self.policy.refuse(format!("messages[{at}].role"), message);
            }
        };
        self.separate(start);
        let first = range.start;
        let parts = message.parts.get(range).unwrap_or_default();
        // An answer of the model has the form in which it came, and where it is a list says what it is: the API knows
        // `output_text` in an answer only, and some servers know an answer by nothing else.
        let answer = message.role == Role::Assistant && !self.policy.native;
        let mut object = Object::open(&mut self.out);
        let plain = matches!(parts, [] | [Part::Text(TextPart { extra: None, .. })]);
        if answer || (message.role == Role::Assistant && !plain) {
            object.raw(&mut self.out, Name::Type, "\"message\"");
        }
        object.string(&mut self.out, Name::Role, role);
        object.name(&mut self.out, Name::Content);
        match parts {
            [] if answer => self.out.extend_from_slice(b"[]"),
            [] => self.out.extend_from_slice(b"\"\""),
            [Part::Text(TextPart { text, extra: None, .. })] if !answer => json::string(&mut self.out, text),
            parts => {
                self.out.push(b'[');
                let start = self.out.len();
                for (number, part) in parts.iter().enumerate() {
                    let place = || path(at, first + number);
                    match part {
                        Part::Text(text) if message.role == Role::Assistant => {
                            self.text_piece(start, place, text, "output_text", Name::Text)?;
                        }
                        Part::Text(text) => self.text_piece(start, place, text, "input_text", Name::Text)?,
                        Part::Refusal(text) => self.text_piece(start, place, text, "refusal", Name::Refusal)?,
                        Part::Media(media) => self.media(start, place, media)?,
                        Part::Other(json) => {
                            if self.policy.passes(&place)? {
                                self.separate(start);
                                self.out.extend_from_slice(json.as_bytes());
                            }
                        }
                        Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => {}
                    }
                }
                self.out.push(b']');
            }
        }
        object.splice(&mut self.out, extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn text_piece(
        &mut self,
        start: usize,
        place: impl Fn() -> String,
        text: &TextPart,
        kind: &str,
        name: Name,
    ) -> Result<(), Error> {
        let extra = self.policy.extra(text.extra.as_deref(), &place, &[])?;
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        object.string(&mut self.out, Name::Type, kind);
        object.string(&mut self.out, name, &text.text);
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn media(&mut self, start: usize, place: impl Fn() -> String, media: &MediaPart) -> Result<(), Error> {
        let kind = match &media.kind {
            MediaKind::Image => "input_image",
            MediaKind::Document => "input_file",
            MediaKind::Audio => return self.policy.refuse(place(), format!("{API} takes no sound")),
            MediaKind::Video => return self.policy.refuse(place(), format!("{API} takes no video")),
            MediaKind::Other(kind) => {
                return self.policy.refuse(place(), format!("{API} has no part of the kind `{kind}`"));
            }
        };
        let extra = self.policy.extra(media.extra.as_deref(), &place, &[])?;
        let image = media.kind == MediaKind::Image;
        let mime = match (&media.mime, &media.source) {
            (Some(mime), _) => mime.as_str(),
            (None, MediaSource::Base64(data)) if image => image::sniffed(data).unwrap_or_default(),
            _ => "",
        };
        match &media.source {
            MediaSource::Text(_) | MediaSource::Other(_) => {
                return self.policy.refuse(place(), format!("{API} takes a file as base64, as a URL or by its id"));
            }
            MediaSource::Base64(_) if mime.is_empty() => {
                return Err(Error::invalid(
                    place(),
                    "the bytes need a media type, as `image/png` or `application/pdf`",
                ));
            }
            MediaSource::Base64(_) | MediaSource::Url(_) | MediaSource::FileId(_) => {}
        }
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        object.string(&mut self.out, Name::Type, kind);
        match &media.source {
            MediaSource::Base64(data) => {
                object.name(&mut self.out, if image { Name::ImageUrl } else { Name::FileData });
                self.out.reserve(data.len() + mime.len() + 16);
                self.out.push(b'"');
                for piece in ["data:", mime, ";base64,", data] {
                    json::escape(&mut self.out, piece);
                }
                self.out.push(b'"');
            }
            MediaSource::Url(url) => {
                object.string(&mut self.out, if image { Name::ImageUrl } else { Name::FileUrl }, url);
            }
            MediaSource::FileId(id) => object.string(&mut self.out, Name::FileId, id),
            MediaSource::Text(_) | MediaSource::Other(_) => {}
        }
        if let Some(name) = media.name.as_ref().filter(|_| !image) {
            object.string(&mut self.out, Name::Filename, name);
        }
        // Of a picture the API wants it said; `auto` is what it means where it is not.
        let usual = (image && !self.policy.native).then_some("auto");
        let said = media.detail.as_deref().filter(|_| image || self.policy.native);
        if let Some(detail) = said.or(usual) {
            object.string(&mut self.out, Name::Detail, detail);
        }
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn tool_result(&mut self, start: usize, place: impl Fn() -> String, result: &ToolResult) -> Result<(), Error> {
        let extra = self.policy.extra(result.extra.as_deref(), &place, &[])?;
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, Name::Type, "\"function_call_output\"");
        object.string(&mut self.out, Name::CallId, self.names.ids.map(&result.call_id));
        object.name(&mut self.out, Name::Output);
        let failed = result.is_error == Some(true);
        let text = match result.content.as_slice() {
            [] if failed => Some("the tool failed"),
            [] => Some(""),
            [ResultContent::Text(TextPart { text, extra: None, .. })] => Some(text.as_str()),
            _ => None,
        };
        match text {
            Some(text) => {
                let says_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
                self.out.push(b'"');
                json::escape(&mut self.out, if failed && !says_so { "Error: " } else { "" });
                json::escape(&mut self.out, text);
                self.out.push(b'"');
            }
            None => {
                self.out.push(b'[');
                let start = self.out.len();
                if failed {
                    self.out.extend_from_slice(b"{\"type\":\"input_text\",\"text\":\"Error:\"}");
                }
                for piece in &result.content {
                    match piece {
                        ResultContent::Text(text) => self.text_piece(start, &place, text, "input_text", Name::Text)?,
                        ResultContent::Media(media) => self.media(start, &place, media)?,
                        ResultContent::Other(json) => {
                            if self.policy.passes(&place)? {
                                self.separate(start);
                                self.out.extend_from_slice(json.as_bytes());
                            }
                        }
                    }
                }
                self.out.push(b']');
            }
        }
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// A `reasoning` item.
    fn reasoning_item(&mut self, start: usize, place: impl Fn() -> String, part: &ReasoningPart) -> Result<(), Error> {
        let native = self.policy.native;
        let proof = part.redacted.as_deref().or(part.signature.as_deref());
        let proof = proof.filter(|proof| native || proof.starts_with(ENCRYPTED));
        if proof.is_none() && !native {
            let message = format!("{API} takes reasoning back only with the encrypted content that it made of it");
            return self.policy.refuse(place(), message);
        }
        let extra = self.policy.extra(part.extra.as_deref(), &place, &[])?;
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, Name::Type, "\"reasoning\"");
        if extra.get("summary").is_none() {
            object.name(&mut self.out, Name::Summary);
            if part.text.is_empty() {
                self.out.extend_from_slice(b"[]");
            } else {
                self.out.extend_from_slice(b"[{\"type\":\"summary_text\",\"text\":");
                json::string(&mut self.out, &part.text);
                self.out.extend_from_slice(b"}]");
            }
        }
        if let Some(proof) = proof {
            object.string(&mut self.out, Name::EncryptedContent, proof);
        }
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn tools(&mut self, top: &mut Object, request: &Request) -> Result<(), Error> {
        if self.policy.takes_no_tool(request)? {
            return Ok(());
        }
        if !request.tools.is_empty() {
            top.name(&mut self.out, Name::Tools);
            self.out.push(b'[');
            let start = self.out.len();
            for (at, tool) in request.tools.iter().enumerate() {
                let place = || format!("tools[{at}]");
                let function = match tool {
                    Tool::Function(function) => function,
                    Tool::Other(json) => {
                        if self.policy.passes(&place)? {
                            self.separate(start);
                            self.out.extend_from_slice(json.as_bytes());
                        }
                        continue;
                    }
                };
                let extra = self.policy.extra(function.extra.as_deref(), &place, &[])?;
                self.separate(start);
                let mut object = Object::open(&mut self.out);
                object.raw(&mut self.out, Name::Type, "\"function\"");
                object.string(&mut self.out, Name::Called, self.names.tools.map(&function.name));
                if let Some(description) = &function.description {
                    object.string(&mut self.out, Name::Description, description);
                }
                // The API wants to have both said.
                if function.parameters.is_some() || !self.policy.native {
                    let parameters = function.parameters.as_deref().unwrap_or("null");
                    object.raw(&mut self.out, Name::Parameters, parameters);
                }
                if function.strict.is_some() || !self.policy.native {
                    object.bool(&mut self.out, Name::Strict, function.strict.unwrap_or(false));
                }
                object.splice(&mut self.out, &extra);
                object.close(&mut self.out);
            }
            self.out.push(b']');
        }
        match &request.tool_choice {
            None => {}
            Some(ToolChoice::Auto) => top.raw(&mut self.out, Name::ToolChoice, "\"auto\""),
            Some(ToolChoice::None) => top.raw(&mut self.out, Name::ToolChoice, "\"none\""),
            Some(ToolChoice::Required) => top.raw(&mut self.out, Name::ToolChoice, "\"required\""),
            Some(ToolChoice::Tool(name)) => {
                top.name(&mut self.out, Name::ToolChoice);
                self.out.extend_from_slice(b"{\"type\":\"function\",\"name\":");
                json::string(&mut self.out, self.names.tools.map(name));
                self.out.push(b'}');
            }
            Some(ToolChoice::Other(json)) if self.policy.passes(&|| "tool_choice".into())? => {
                top.raw(&mut self.out, Name::ToolChoice, json);
            }
            Some(ToolChoice::Other(_)) => {}
        }
        if let Some(parallel) = request.parallel_tool_calls {
            top.bool(&mut self.out, Name::Parallel, parallel);
        }
        Ok(())
    }

    /// `text`: the form of the answer, and how many words it makes.
    fn text(&mut self, top: &mut Object, format: Option<&ResponseFormat>, extra: &Members<'_>) -> Result<(), Error> {
        let verbosity = extra.get("verbosity").filter(|_| !self.policy.native);
        let format = match format {
            Some(ResponseFormat::Other(_)) if !self.policy.passes(&|| "response_format".into())? => None,
            format => format,
        };
        if format.is_none() && verbosity.is_none() {
            return Ok(());
        }
        top.name(&mut self.out, Name::Text);
        let mut text = Object::open(&mut self.out);
        match format {
            None => {}
            Some(ResponseFormat::Text) => text.raw(&mut self.out, Name::Format, r#"{"type":"text"}"#),
            Some(ResponseFormat::JsonObject) => text.raw(&mut self.out, Name::Format, r#"{"type":"json_object"}"#),
            Some(ResponseFormat::Other(json)) => text.raw(&mut self.out, Name::Format, json),
            Some(ResponseFormat::JsonSchema(schema)) => {
                text.name(&mut self.out, Name::Format);
                let mut object = Object::open(&mut self.out);
                object.raw(&mut self.out, Name::Type, "\"json_schema\"");
                object.string(&mut self.out, Name::Called, schema.name.as_deref().unwrap_or("output"));
                if let Some(description) = &schema.description {
                    object.string(&mut self.out, Name::Description, description);
                }
                object.raw(&mut self.out, Name::Schema, &schema.schema);
                if let Some(strict) = schema.strict {
                    object.bool(&mut self.out, Name::Strict, strict);
                }
                object.close(&mut self.out);
            }
        }
        if let Some(verbosity) = verbosity {
            text.raw(&mut self.out, Name::Verbosity, verbosity);
        }
        if self.policy.native {
            text.splice(&mut self.out, &extra.nested("text"));
        }
        text.close(&mut self.out);
        Ok(())
    }

    fn reasoning(&mut self, top: &mut Object, reasoning: &Reasoning) -> Result<(), Error> {
        let extra = self.policy.extra(reasoning.extra.as_deref(), &|| "reasoning".into(), &[])?;
        if reasoning.budget_tokens.is_some() {
            let message = format!("{API} bounds reasoning by `effort`, not by a number of tokens");
            self.policy.refuse("reasoning.budget_tokens", message)?;
        }
        let off = (reasoning.enabled == Some(false)).then_some("none");
        let effort = reasoning.effort.as_deref().or(off);
        if effort.is_none() && reasoning.summary.is_none() && extra.0.is_empty() && !self.policy.native {
            return Ok(());
        }
        top.name(&mut self.out, Name::Reasoning);
        let mut object = Object::open(&mut self.out);
        if let Some(effort) = effort {
            object.string(&mut self.out, Name::Effort, effort);
        }
        if let Some(summary) = &reasoning.summary {
            object.string(&mut self.out, Name::Summary, summary);
        }
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn sampling(&mut self, top: &mut Object, sampling: &Sampling) -> Result<(), Error> {
        for (param, present) in [
            ("n", sampling.n.is_some_and(|n| n != 1)),
            ("stop", !sampling.stop.is_empty()),
            ("seed", sampling.seed.is_some()),
            ("logit_bias", sampling.logit_bias.is_some()),
            ("frequency_penalty", sampling.frequency_penalty.is_some()),
            ("presence_penalty", sampling.presence_penalty.is_some()),
            ("repetition_penalty", sampling.repetition_penalty.is_some()),
            ("top_k", sampling.top_k.is_some()),
            ("min_p", sampling.min_p.is_some()),
        ] {
            if present {
                self.policy.refuse(param, format!("{API} has no `{param}`: its Chat Completions API may"))?;
            }
        }
        for (name, param, value) in
            [(Name::Temperature, "temperature", sampling.temperature), (Name::TopP, "top_p", sampling.top_p)]
        {
            let Some(value) = value else { continue };
            if !value.is_finite() {
                return Err(Error::invalid(param, "must be a finite number"));
            }
            top.name(&mut self.out, name);
            json::float(&mut self.out, value);
        }
        if let Some(count) = sampling.top_logprobs {
            top.integer(&mut self.out, Name::TopLogprobs, count);
        }
        if let Some(tokens) = sampling.max_completion_tokens.or(sampling.max_tokens) {
            top.integer(&mut self.out, Name::MaxOutputTokens, tokens);
        }
        Ok(())
    }

    /// What the answer is to hold beyond the usual: what the client asks for, and what we need.
    fn include(&mut self, top: &mut Object, request: &Request, extra: &Members<'_>) {
        let asked = extra.get("include");
        let asked: Vec<Text<'_>> = match asked.filter(|json| *json != "null").map(serde_json::from_str::<Vec<Text<'_>>>)
        {
            // What is no list of texts passes as it is.
            Some(Err(_)) => return,
            Some(Ok(list)) if list.len() > INCLUDES => return,
            Some(Ok(list)) => list,
            None => Vec::new(),
        };
        let off = |it: &Reasoning| it.effort.as_deref() == Some("none") || it.enabled == Some(false);
        let reasons = match &request.reasoning {
            Some(reasoning) if off(reasoning) => false,
            Some(reasoning) if reasoning.effort.is_some() || reasoning.summary.is_some() => true,
            _ => is_reasoning_model(&request.model) && !request.model.contains("-chat"),
        };
        let mut list: Vec<&str> = asked.iter().map(|text| &*text.0).collect();
        for (name, wanted) in [
            ("reasoning.encrypted_content", reasons),
            ("message.output_text.logprobs", request.sampling.logprobs == Some(true)),
        ] {
            if wanted && !list.contains(&name) {
                list.push(name);
            }
        }
        if list.is_empty() {
            return;
        }
        top.name(&mut self.out, Name::Include);
        self.out.push(b'[');
        for (at, name) in list.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            json::string(&mut self.out, name);
        }
        self.out.push(b']');
    }
}
