//! What the tests share.

#![allow(dead_code)]

use serde_json::{Map, Value, json};
use witgate_dialects::{Renderer, default_limits, parse};
use witgate_model::normaliser::{AnswerStart, Failure, Limits, Parsed};
use witgate_model::{
    CacheMark, Error, ErrorKind, Event, Input, MediaKind, MediaPart, MediaSource, Message, Part, Request,
    ResponseFormat, ResultContent, Role, Started, TextPart, Tool, ToolChoice,
};

pub const CHAT: &str = "/v1/chat/completions";

/// Parses a chat request.
pub fn chat(body: &str) -> Result<Parsed, Error> {
    parse("openai-chat", CHAT, &default_limits(), body.as_bytes())
}

/// Parses a chat request with one message that is `message`.
pub fn one_message(message: &str) -> Result<Message, Error> {
    let parsed = chat(&format!(r#"{{"messages":[{message}]}}"#))?;
    match parsed.request.input {
        Input::Chat(mut messages) => Ok(messages.remove(0)),
        other => unreachable!("a chat request, but {other:?}"),
    }
}

/// Parses a text completion.
pub fn completion(body: &str) -> Result<Parsed, Error> {
    parse("openai-completions", "/v1/completions", &default_limits(), body.as_bytes())
}

pub fn shallow(depth: u32) -> Limits {
    Limits { depth, ..default_limits() }
}

/// `param` and message of what is wrong with a chat request.
#[track_caller]
pub fn wrong(body: &str) -> (String, String) {
    let error = chat(body).expect_err("the request is wrong");
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert_eq!(error.status, Some(400));
    (error.param.unwrap_or_default(), error.message)
}

pub fn renderer(dialect: &str, render: &str) -> Renderer {
    let start = AnswerStart { render: render.into(), id: "abc".into(), created: 1_700_000_000, model: "alias".into() };
    Renderer::new(dialect, start)
}

pub fn started() -> Event {
    Event::Started(Started { id: Some("chatcmpl-up".into()), model: Some("m".into()), created: Some(7) })
}

pub fn failure(kind: ErrorKind, status: u16) -> Failure {
    Failure {
        error: Error::new(kind, "it \"broke\"").with_status(status),
        error_type: "server_error".into(),
        provider: Some("local".into()),
        request_id: "req-1".into(),
        upstream: None,
        attempts: Vec::new(),
    }
}

/// The JSON of every event of a stream; asserts that the stream is well-formed.
#[track_caller]
pub fn chunks(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("no data line: {event}"));
        assert!(!data.contains(['\n', '\r']), "a line end inside an event: {data:?}");
        if data == "[DONE]" {
            all.push(Value::String("[DONE]".into()));
        } else {
            all.push(serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")));
        }
    }
    assert!(text.is_empty() || text.ends_with("\n\n"));
    all
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("the parser lets only JSON pass")
}

/// Merges `extra` into `object`; names under an inner object are merged there.
fn with_extra(mut object: Map<String, Value>, extra: Option<&String>) -> Value {
    if let Some(extra) = extra {
        let Value::Object(members) = value(extra) else { panic!("extra is no object: {extra}") };
        for (name, unknown) in members {
            match object.get_mut(&name) {
                None => drop(object.insert(name, unknown)),
                Some(Value::Object(inner)) => {
                    let Value::Object(members) = unknown else { panic!("{name} would be replaced") };
                    for (name, unknown) in members {
                        assert!(inner.insert(name, unknown).is_none(), "an unknown member replaces a known one");
                    }
                }
                Some(_) => panic!("{name} would be replaced"),
            }
        }
    }
    Value::Object(object)
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(mut members) = value else { panic!("no object") };
    members.retain(|_, value| !value.is_null());
    members
}

fn cache(mark: Option<&CacheMark>) -> Value {
    mark.map_or(Value::Null, |mark| Value::Object(object(json!({"type": "ephemeral", "ttl": mark.ttl}))))
}

fn text_part(key: &str, part: &TextPart) -> Value {
    let mut members = object(json!({"type": key, "cache_control": cache(part.cache.as_ref())}));
    members.insert(key.into(), part.text.clone().into());
    with_extra(members, part.extra.as_ref())
}

fn media_part(part: &MediaPart) -> Value {
    let mime = part.mime.as_deref();
    let data_url = |data: &str| format!("data:{};base64,{data}", mime.unwrap_or_default());
    let (key, inner) = match (&part.kind, &part.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => ("image_url", json!({"url": data_url(data)})),
        (MediaKind::Image, MediaSource::Url(url)) => ("image_url", json!({"url": url})),
        (MediaKind::Audio, MediaSource::Base64(data)) => {
            ("input_audio", json!({"data": data, "format": mime.unwrap().strip_prefix("audio/").unwrap()}))
        }
        (MediaKind::Document, MediaSource::Base64(data)) if mime.is_some() => {
            ("file", json!({"file_data": data_url(data)}))
        }
        (MediaKind::Document, MediaSource::Base64(data) | MediaSource::Url(data)) => {
            ("file", json!({"file_data": data}))
        }
        (MediaKind::Document, MediaSource::FileId(id)) => ("file", json!({"file_id": id})),
        other => panic!("this dialect makes no {other:?}"),
    };
    let mut inner = object(inner);
    inner.extend(object(json!({"detail": part.detail, "filename": part.name})));
    let mut members = object(json!({"type": key, "cache_control": cache(part.cache.as_ref())}));
    members.insert(key.into(), Value::Object(inner));
    with_extra(members, part.extra.as_ref())
}

fn message(message: &Message) -> Value {
    let mut members = Map::new();
    let mut content = Vec::new();
    let mut whole = None;
    let mut calls = Vec::new();
    let role = match &message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Other(role) => role,
    };
    members.insert("role".into(), role.into());
    for part in &message.parts {
        match part {
            Part::Text(TextPart { text, extra: None, .. }) => whole = Some(text.clone()),
            Part::Text(text) => content.push(text_part("text", text)),
            Part::Refusal(TextPart { text, extra: None, .. }) => {
                members.insert("refusal".into(), text.clone().into());
            }
            Part::Refusal(text) => content.push(text_part("refusal", text)),
            Part::Media(media) => content.push(media_part(media)),
            Part::Reasoning(reasoning) => {
                if let Some(redacted) = &reasoning.redacted {
                    members.insert("reasoning_signature".into(), redacted.clone().into());
                } else {
                    members.insert("reasoning_content".into(), reasoning.text.clone().into());
                    if let Some(signature) = &reasoning.signature {
                        members.insert("reasoning_signature".into(), signature.clone().into());
                    }
                }
            }
            Part::ToolCall(call) => {
                let function = json!({"name": call.name, "arguments": call.arguments});
                let call_members = object(json!({
                    "type": "function", "id": call.id, "function": function, "cache_control": cache(call.cache.as_ref()),
                }));
                calls.push(with_extra(call_members, call.extra.as_ref()));
            }
            Part::ToolResult(result) => {
                members.insert("tool_call_id".into(), result.call_id.clone().into());
                for piece in &result.content {
                    match piece {
                        ResultContent::Text(TextPart { text, extra: None, .. }) => whole = Some(text.clone()),
                        ResultContent::Text(text) => content.push(text_part("text", text)),
                        ResultContent::Media(media) => content.push(media_part(media)),
                        ResultContent::Other(object) => content.push(value(object)),
                    }
                }
            }
            Part::Other(object) => {
                let object = value(object);
                let call = message.role == Role::Assistant && object.get("id").is_some();
                if call { calls.push(object) } else { content.push(object) }
            }
        }
    }
    assert!(whole.is_none() || content.is_empty(), "a string and parts");
    if let Some(text) = whole {
        members.insert("content".into(), text.into());
    } else if !content.is_empty() {
        members.insert("content".into(), content.into());
    }
    if !calls.is_empty() {
        members.insert("tool_calls".into(), calls.into());
    }
    if let Some(name) = &message.name {
        members.insert("name".into(), name.clone().into());
    }
    with_extra(members, message.extra.as_ref())
}

fn tool(tool: &Tool) -> Value {
    match tool {
        Tool::Other(tool) => value(tool),
        Tool::Function(tool) => {
            let function = object(json!({
                "name": tool.name, "description": tool.description, "strict": tool.strict,
                "parameters": tool.parameters.as_deref().map(value),
            }));
            let members = object(json!({
                "type": "function", "function": function, "cache_control": cache(tool.cache.as_ref()),
            }));
            with_extra(members, tool.extra.as_ref())
        }
    }
}

/// The chat request that `request` was made of, up to members that were `null`. `include_usage` is known to the renderer
/// alone, so the caller says it.
pub fn restore(request: &Request, include_usage: bool) -> Value {
    let Input::Chat(messages) = &request.input else { panic!("a chat request") };
    let s = &request.sampling;
    let mut members = object(json!({
        "messages": messages.iter().map(message).collect::<Vec<_>>(),
        "temperature": s.temperature, "top_p": s.top_p, "top_k": s.top_k, "min_p": s.min_p,
        "frequency_penalty": s.frequency_penalty, "presence_penalty": s.presence_penalty,
        "repetition_penalty": s.repetition_penalty, "seed": s.seed, "n": s.n,
        "logit_bias": s.logit_bias.as_deref().map(value), "logprobs": s.logprobs, "top_logprobs": s.top_logprobs,
        "max_tokens": s.max_tokens, "max_completion_tokens": s.max_completion_tokens,
        "parallel_tool_calls": request.parallel_tool_calls, "user": request.end_user,
    }));
    if !request.model.is_empty() {
        members.insert("model".into(), request.model.clone().into());
    }
    if !s.stop.is_empty() {
        members.insert("stop".into(), json!(s.stop));
    }
    if !request.tools.is_empty() {
        members.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if request.stream {
        members.insert("stream".into(), true.into());
    }
    if include_usage {
        members.insert("stream_options".into(), json!({"include_usage": true}));
    }
    let choice = request.tool_choice.as_ref().map(|choice| match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Tool(name) => json!({"type": "function", "function": {"name": name}}),
        ToolChoice::Other(choice) => value(choice),
    });
    let format = request.response_format.as_ref().map(|format| match format {
        ResponseFormat::Text => json!({"type": "text"}),
        ResponseFormat::JsonObject => json!({"type": "json_object"}),
        ResponseFormat::JsonSchema(schema) => {
            let inner = object(json!({
                "name": schema.name, "description": schema.description, "schema": value(&schema.schema),
                "strict": schema.strict,
            }));
            json!({"type": "json_schema", "json_schema": inner})
        }
        ResponseFormat::Other(format) => value(format),
    });
    if let Some(reasoning) = &request.reasoning {
        match &reasoning.extra {
            None => drop(members.insert("reasoning_effort".into(), json!(reasoning.effort))),
            extra => {
                let inner = object(json!({
                    "effort": reasoning.effort, "max_tokens": reasoning.budget_tokens, "enabled": reasoning.enabled,
                    "summary": reasoning.summary,
                }));
                members.insert("reasoning".into(), with_extra(inner, extra.as_ref()));
            }
        }
    }
    for (name, value) in [("tool_choice", choice), ("response_format", format)] {
        if let Some(value) = value {
            members.insert(name.into(), value);
        }
    }
    with_extra(members, request.extra.as_ref())
}
