//! OpenAI's Responses API as a backend: what is sent, and what its answers become.

mod common;

use common::{calls, check_order, failure, finishes, text, thought, usage};
use serde_json::{Value, json};
use witgate_adapters::OpenAi;
use witgate_framing::{Framer, Limits, effective};
use witgate_model::{
    Adapter, BlockKind, CacheMark, Decoder, Error, ErrorKind, Event, FinishReason, Frame, Framing, FunctionTool,
    HttpRequest, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart, Request,
    ResponseFormat, ResponseHead, ResultContent, Retry, Role, Scope, SseEvent, TextPart, Tool, ToolCall, ToolChoice,
    ToolResult, Usage,
};

const SETTINGS: &str = r#"{"api":"responses"}"#;
const DROP: &str = r#"{"api":"responses","drop_unsupported":true}"#;

fn body(http: &HttpRequest) -> Value {
    serde_json::from_slice(&http.body).unwrap_or_else(|error| panic!("{error} in {:?}", http.body))
}

fn encoded(request: Request) -> Value {
    body(&OpenAi::encode(SETTINGS, request).unwrap())
}

fn refusal(request: Request) -> (ErrorKind, String, String) {
    let error = OpenAi::encode(SETTINGS, request).unwrap_err();
    (error.kind, error.param.unwrap(), error.message)
}

fn message(role: Role, parts: Vec<Part>) -> Message {
    Message { role, name: None, parts, extra: None }
}

fn request(dialect: &str, messages: Vec<Message>) -> Request {
    Request::chat(dialect, "gpt-4o", messages)
}

fn asked(text: &str) -> Request {
    request("openai-chat", vec![Message::text(Role::User, text)])
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), ..ToolCall::default() })
}

fn result(id: &str, content: Vec<ResultContent>, is_error: Option<bool>) -> Part {
    Part::ToolResult(ToolResult { call_id: id.into(), content, is_error, ..ToolResult::default() })
}

fn piece(text: &str, extra: Option<&str>) -> TextPart {
    TextPart { text: text.into(), extra: extra.map(str::to_owned), cache: None }
}

fn media(kind: MediaKind, mime: Option<&str>, source: MediaSource) -> MediaPart {
    MediaPart { kind, mime: mime.map(str::to_owned), source, name: None, detail: None, cache: None, extra: None }
}

#[test]
fn a_conversation_becomes_instructions_and_items() {
    let picture = media(MediaKind::Image, Some("image/png"), MediaSource::Base64("AAAA".into()));
    let thinking = ReasoningPart { text: "hm".into(), signature: Some("gAAAAB==".into()), ..ReasoningPart::default() };
    let marked = TextPart { cache: Some(CacheMark { ttl: None }), ..piece("be \"kind\"", None) };
    let request = request(
        "anthropic-messages",
        vec![
            message(Role::System, vec![Part::Text(marked)]),
            message(Role::User, vec![Part::text("look"), Part::Media(picture.clone())]),
            message(
                Role::Assistant,
                vec![
                    Part::Reasoning(thinking),
                    Part::text("I ask."),
                    call("t1", "f", r#"{"x": 1}"#),
                    call("t2", "g", "{}"),
                ],
            ),
            message(
                Role::User,
                vec![
                    result("t1", vec![ResultContent::Text(piece("42", None))], None),
                    result(
                        "t2",
                        vec![ResultContent::Text(piece("none", None)), ResultContent::Media(picture)],
                        Some(true),
                    ),
                    Part::text("go on"),
                ],
            ),
            message(Role::Tool, vec![result("t3", vec![], Some(true))]),
            message(Role::Tool, vec![result("t4", vec![ResultContent::Text(piece("gone", None))], Some(true))]),
            message(Role::Assistant, vec![Part::text("a"), Part::Refusal(piece("no", None))]),
            message(Role::Developer, vec![Part::text("short")]),
            message(Role::User, vec![]),
        ],
    );
    let http = OpenAi::encode(SETTINGS, request).unwrap();
    assert_eq!(
        (http.path.as_slice(), http.context.as_deref()),
        (["responses".to_owned()].as_slice(), Some("responses"))
    );
    assert_eq!((&http.framing, http.dropped.len()), (&Framing::Whole, 0));
    assert_eq!(
        body(&http),
        json!({
            "model": "gpt-4o",
            "instructions": "be \"kind\"",
            "input": [
                {"role": "user", "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                ]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAAAB=="},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I ask."}]},
                {"type": "function_call", "call_id": "t1", "name": "f", "arguments": "{\"x\": 1}"},
                {"type": "function_call", "call_id": "t2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "t1", "output": "42"},
                {"type": "function_call_output", "call_id": "t2", "output": [
                    {"type": "input_text", "text": "Error:"},
                    {"type": "input_text", "text": "none"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                ]},
                {"role": "user", "content": "go on"},
                {"type": "function_call_output", "call_id": "t3", "output": "Error: the tool failed"},
                {"type": "function_call_output", "call_id": "t4", "output": "Error: gone"},
                {"type": "message", "role": "assistant", "content": [
                    {"type": "output_text", "text": "a"},
                    {"type": "refusal", "refusal": "no"},
                ]},
                {"role": "developer", "content": "short"},
                {"role": "user", "content": ""},
            ],
            "store": false,
        })
    );
}

#[test]
fn options_go_under_the_names_of_the_api() {
    let mut request = asked("x");
    request.tools = vec![
        Tool::Function(FunctionTool {
            name: "f".into(),
            description: Some("d".into()),
            parameters: Some(r#"{"type": "object"}"#.into()),
            ..FunctionTool::default()
        }),
        Tool::Function(FunctionTool { name: "g".into(), strict: Some(true), ..FunctionTool::default() }),
    ];
    request.tool_choice = Some(ToolChoice::Tool("f".into()));
    request.parallel_tool_calls = Some(false);
    request.response_format = Some(ResponseFormat::JsonSchema(JsonSchema {
        schema: r#"{"type":"object"}"#.into(),
        strict: Some(true),
        ..JsonSchema::default()
    }));
    request.reasoning =
        Some(Reasoning { effort: Some("low".into()), summary: Some("auto".into()), ..Reasoning::default() });
    request.sampling.temperature = Some(0.5);
    request.sampling.top_p = Some(1.0);
    request.sampling.n = Some(1);
    request.sampling.max_tokens = Some(5);
    request.sampling.logprobs = Some(true);
    request.sampling.top_logprobs = Some(2);
    request.end_user = Some("u".into());
    request.stream = true;
    request.extra = Some(
        r#"{"metadata":{"a":"b"},"store":true,"verbosity":"low","service_tier":"flex","stream_options":{"include_obfuscation":false},"audio":null}"#
            .into(),
    );
    let http = OpenAi::encode(SETTINGS, request).unwrap();
    assert_eq!(http.framing, Framing::Sse);
    assert_eq!(
        body(&http),
        json!({
            "model": "gpt-4o",
            "input": [{"role": "user", "content": "x"}],
            "tools": [
                {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": false},
                {"type": "function", "name": "g", "parameters": null, "strict": true},
            ],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": false,
            "text": {
                "format": {"type": "json_schema", "name": "output", "schema": {"type": "object"}, "strict": true},
                "verbosity": "low",
            },
            "reasoning": {"effort": "low", "summary": "auto"},
            "temperature": 0.5, "top_p": 1, "top_logprobs": 2, "max_output_tokens": 5,
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
            "store": true, "service_tier": "flex", "metadata": {"a": "b"},
            "user": "u", "stream": true, "stream_options": {"include_obfuscation": false},
        })
    );
    for (choice, word) in [(ToolChoice::Auto, "auto"), (ToolChoice::None, "none"), (ToolChoice::Required, "required")] {
        assert_eq!(encoded(Request { tool_choice: Some(choice), ..asked("x") })["tool_choice"], word);
    }
    for (format, kind) in [(ResponseFormat::Text, "text"), (ResponseFormat::JsonObject, "json_object")] {
        let sent = encoded(Request { response_format: Some(format), ..asked("x") });
        assert_eq!(sent["text"], json!({"format": {"type": kind}}));
    }
    let mut both = asked("x");
    both.sampling.max_tokens = Some(5);
    both.sampling.max_completion_tokens = Some(9);
    assert_eq!(encoded(both)["max_output_tokens"], 9);
}

#[test]
fn encrypted_reasoning_is_asked_for_where_the_model_reasons() {
    let included = |model: &str, reasoning: Option<Reasoning>| {
        encoded(Request { model: model.into(), reasoning, ..asked("x") }).get("include").cloned()
    };
    let encrypted = Some(json!(["reasoning.encrypted_content"]));
    assert_eq!(included("gpt-5.1", None), encrypted);
    assert_eq!(included("o3", None), encrypted);
    assert_eq!(included("gpt-4o", None), None);
    assert_eq!(included("gpt-5-chat-latest", None), None);
    let off = Reasoning { enabled: Some(false), ..Reasoning::default() };
    assert_eq!(included("gpt-5.1", Some(off.clone())), None);
    assert_eq!(encoded(Request { reasoning: Some(off), ..asked("x") })["reasoning"], json!({"effort": "none"}));
    let low = Reasoning { effort: Some("low".into()), ..Reasoning::default() };
    assert_eq!(included("gpt-oss-20b", Some(low)), encrypted);
}

#[test]
fn what_the_api_cannot_do_is_refused_by_name_or_left_out_and_told() {
    let with = |change: fn(&mut Request)| {
        let mut request = asked("x");
        change(&mut request);
        request
    };
    for (param, request) in [
        ("n", with(|request| request.sampling.n = Some(2))),
        ("stop", with(|request| request.sampling.stop = vec!["a".into()])),
        ("seed", with(|request| request.sampling.seed = Some(1))),
        ("logit_bias", with(|request| request.sampling.logit_bias = Some("{}".into()))),
        ("frequency_penalty", with(|request| request.sampling.frequency_penalty = Some(1.0))),
        ("presence_penalty", with(|request| request.sampling.presence_penalty = Some(1.0))),
        ("repetition_penalty", with(|request| request.sampling.repetition_penalty = Some(1.0))),
        ("top_k", with(|request| request.sampling.top_k = Some(1))),
        ("min_p", with(|request| request.sampling.min_p = Some(0.1))),
        (
            "reasoning.budget_tokens",
            with(|request| {
                request.reasoning = Some(Reasoning { budget_tokens: Some(9), ..Reasoning::default() });
            }),
        ),
        ("modalities", with(|request| request.extra = Some(r#"{"modalities":["audio"]}"#.into()))),
        ("tools[0]", with(|request| request.tools = vec![Tool::Other("{}".into())])),
        ("tool_choice", with(|request| request.tool_choice = Some(ToolChoice::Other("{}".into())))),
        ("response_format", with(|request| request.response_format = Some(ResponseFormat::Other("{}".into())))),
    ] {
        let (kind, at, why) = refusal(request.clone());
        assert_eq!((kind, at.as_str()), (ErrorKind::Unsupported, param));
        assert!(!why.is_empty());
        let http = OpenAi::encode(DROP, request).unwrap();
        assert_eq!(http.dropped, [param]);
        assert_eq!(body(&http), encoded(asked("x")), "{param}");
    }
}

#[test]
fn parts_that_the_api_cannot_take_are_refused_where_they_stand() {
    let base64 = || MediaSource::Base64("AAAA".into());
    let thought = |signature: &str| {
        let signature = Some(signature.to_owned());
        Part::Reasoning(ReasoningPart { text: "hm".into(), signature, ..ReasoningPart::default() })
    };
    for (role, part) in [
        (Role::User, Part::Media(media(MediaKind::Audio, Some("audio/wav"), base64()))),
        (Role::User, Part::Media(media(MediaKind::Video, Some("video/mp4"), base64()))),
        (Role::User, Part::Media(media(MediaKind::Document, None, MediaSource::Text("x".into())))),
        (Role::User, Part::Media(media(MediaKind::Other("hologram".into()), None, base64()))),
        (Role::User, Part::Other(r#"{"type":"input_odd"}"#.into())),
        (Role::User, Part::Other(r#"{"type":"odd"}"#.into())),
        (Role::Assistant, thought("EqQBCgIYAhIM of another backend")),
    ] {
        let request = request("anthropic-messages", vec![message(role, vec![Part::text("x"), part])]);
        let (kind, at, _) = refusal(request.clone());
        assert_eq!((kind, at.as_str()), (ErrorKind::Unsupported, "messages[0].content[1]"));
        assert_eq!(OpenAi::encode(DROP, request).unwrap().dropped, ["messages[0].content[1]"]);
    }
    let named = Message { name: Some("Ann".into()), ..Message::text(Role::User, "x") };
    assert_eq!(refusal(request("openai-chat", vec![named])).1, "messages[0].name");
    let blind = Part::Media(media(MediaKind::Document, None, base64()));
    let (kind, at, _) = refusal(request("openai-chat", vec![message(Role::User, vec![blind])]));
    assert_eq!((kind, at.as_str()), (ErrorKind::InvalidRequest, "messages[0].content[0]"));
}

#[test]
fn files_go_as_bytes_as_a_url_or_by_their_id() {
    let file = |source| media(MediaKind::Document, Some("application/pdf"), source);
    let mut named = file(MediaSource::Base64("AAAA".into()));
    named.name = Some("a.pdf".into());
    let mut close = media(MediaKind::Image, None, MediaSource::Url("https://x/y".into()));
    close.detail = Some("high".into());
    for (part, expected) in [
        (named, json!({"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"})),
        (file(MediaSource::Url("https://x".into())), json!({"type": "input_file", "file_url": "https://x"})),
        (file(MediaSource::FileId("f1".into())), json!({"type": "input_file", "file_id": "f1"})),
        (close, json!({"type": "input_image", "image_url": "https://x/y", "detail": "high"})),
        (
            media(MediaKind::Image, None, MediaSource::FileId("f2".into())),
            json!({"type": "input_image", "file_id": "f2", "detail": "auto"}),
        ),
    ] {
        let sent = encoded(request("openai-chat", vec![message(Role::User, vec![Part::Media(part)])]));
        assert_eq!(sent["input"][0]["content"], json!([expected]));
    }
}

#[test]
fn what_the_clients_dialect_knows_alone_passes_where_it_is_this_apis() {
    let mut user = message(
        Role::User,
        vec![
            Part::Text(piece("x", Some(r#"{"prompt_cache_breakpoint":{"mode":"explicit"}}"#))),
            Part::Other(r#"{"type":"input_odd","y":1.50}"#.into()),
        ],
    );
    user.extra = Some(r#"{"id":"msg_1","status":"completed","type":"message"}"#.into());
    let thinking = ReasoningPart {
        redacted: Some("opaque".into()),
        extra: Some(
            r#"{"id":"rs_1","summary":[{"type":"summary_text","text":"a"},{"type":"summary_text","text":"b"}]}"#.into(),
        ),
        text: "a\n\nb".into(),
        ..ReasoningPart::default()
    };
    let mut request = request(
        "openai-responses",
        vec![
            user,
            message(
                Role::Assistant,
                vec![Part::Reasoning(thinking), Part::Other(r#"{"type":"item_reference","id":"i"}"#.into())],
            ),
        ],
    );
    request.tools = vec![
        Tool::Other(r#"{"type":"web_search"}"#.into()),
        Tool::Function(FunctionTool {
            name: "f".into(),
            extra: Some(r#"{"defer_loading":true}"#.into()),
            ..FunctionTool::default()
        }),
    ];
    request.tool_choice = Some(ToolChoice::Other(r#"{"type":"web_search"}"#.into()));
    request.response_format = Some(ResponseFormat::JsonObject);
    request.sampling.logprobs = Some(true);
    request.extra = Some(r#"{"truncation":"auto","include":["web_search_call.results"],"text":{"verbosity":"high","format":"evil"},"model":"evil","max_tool_calls":3}"#.into());
    assert_eq!(
        encoded(request),
        json!({
            "model": "gpt-4o",
            "input": [
                {"role": "user", "id": "msg_1", "status": "completed", "type": "message", "content": [
                    {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
                    {"type": "input_odd", "y": 1.50},
                ]},
                {"type": "reasoning", "id": "rs_1", "encrypted_content": "opaque", "summary": [
                    {"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"},
                ]},
                {"type": "item_reference", "id": "i"},
            ],
            "tools": [{"type": "web_search"}, {"type": "function", "name": "f", "defer_loading": true}],
            "tool_choice": {"type": "web_search"},
            "text": {"format": {"type": "json_object"}, "verbosity": "high"},
            "include": ["web_search_call.results", "message.output_text.logprobs"],
            "truncation": "auto", "max_tool_calls": 3, "store": false,
        })
    );
    let background =
        Request { extra: Some(r#"{"background":true}"#.into()), ..Request::chat("openai-responses", "m", vec![]) };
    assert_eq!(refusal(background.clone()).1, "background");
    let http = OpenAi::encode(DROP, background).unwrap();
    assert_eq!((http.dropped.as_slice(), body(&http).get("background")), (["background".to_owned()].as_slice(), None));
}

#[test]
fn members_that_mean_the_same_pass_from_responses_to_chat() {
    let mut request = request("openai-responses", vec![Message::text(Role::User, "x")]);
    request.extra = Some(r#"{"metadata":{"a":"b"},"safety_identifier":"s","truncation":null}"#.into());
    let http = OpenAi::encode("{}", request.clone()).unwrap();
    assert_eq!((&body(&http)["metadata"], &body(&http)["safety_identifier"]), (&json!({"a": "b"}), &json!("s")));
    request.extra = Some(r#"{"truncation":"auto"}"#.into());
    assert_eq!(OpenAi::encode("{}", request).unwrap_err().param.as_deref(), Some("truncation"));
}

#[test]
fn text_completions_embeddings_and_models_keep_their_own_paths() {
    let http = OpenAi::encode(SETTINGS, Request::completion("openai-completions", "m", "x")).unwrap();
    assert_eq!(http.path, ["completions"]);
    let http = OpenAi::encode(SETTINGS, Request::new("", "", witgate_model::Input::Models)).unwrap();
    assert_eq!(http.path, ["models"]);
}

/// The events of a fixture.
fn decoded(name: &str) -> Vec<Event> {
    let body = std::fs::read(common::folder("openai").join(name)).unwrap();
    let (stream, content_type) =
        if name.ends_with(".sse") { (true, "text/event-stream") } else { (false, "application/json") };
    let framing = effective(if stream { &Framing::Sse } else { &Framing::Whole }, 200, Some(content_type));
    let mut framer = Framer::new(&framing, Limits::default()).unwrap();
    let mut frames = Vec::new();
    framer.push(&body, &mut frames).unwrap();
    framer.finish(&mut frames).unwrap();
    let head = ResponseHead { status: 200, headers: Vec::new(), framing, stream };
    let mut decoder = OpenAi::decoder(SETTINGS, Some("responses".into()), head);
    let mut events = decoder.feed(frames);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    check_order(name, &events);
    events
}

/// What blocks there are, with the whole object of those that only the dialect knows.
fn kinds(events: &[Event]) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::BlockStart(start) => Some(match &start.kind {
            BlockKind::Text => "text".to_owned(),
            BlockKind::Reasoning => "reasoning".to_owned(),
            BlockKind::Refusal => "refusal".to_owned(),
            BlockKind::ToolCall(call) => call.name.clone(),
            BlockKind::Other(json) => {
                let object: Value = serde_json::from_str(&json.value).unwrap();
                format!("{} {}", json.dialect, object["type"].as_str().unwrap())
            }
        }),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Everything of the scope of blocks, by block.
fn of_blocks(events: &[Event]) -> Vec<(u32, Value)> {
    let of = |event: &Event| match event {
        Event::Other(other) => match other.scope {
            Scope::Block(index) => Some((index, serde_json::from_str(&other.members).unwrap())),
            _ => None,
        },
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_stream_and_a_whole_answer_say_the_same() {
    for name in ["text", "tools", "redacted", "refusal", "search", "custom-tool", "length", "filtered", "logprobs"] {
        let stream = decoded(&format!("responses-{name}.sse"));
        let whole = decoded(&format!("responses-{name}.json"));
        assert_eq!(text(&stream), text(&whole), "{name}");
        assert_eq!(thought(&stream), thought(&whole), "{name}");
        assert_eq!(calls(&stream), calls(&whole), "{name}");
        assert_eq!(kinds(&stream), kinds(&whole), "{name}");
        assert_eq!(of_blocks(&stream), of_blocks(&whole), "{name}");
        assert_eq!(finishes(&stream), finishes(&whole), "{name}");
        // Only the white space of the usage object differs.
        let counts = |events: &[Event]| Usage { raw: None, ..usage(events) };
        assert_eq!(counts(&stream), counts(&whole), "{name}");
        assert_eq!(stream.last(), Some(&Event::Done), "{name}");
        assert_eq!(stream[0], whole[0], "{name}");
    }
}

#[test]
fn text_comes_with_its_ids_and_all_of_its_usage() {
    let events = decoded("responses-text.sse");
    let Event::Started(started) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!((started.id.as_deref(), started.created), (Some("resp_1"), Some(1_741_476_542)));
    assert_eq!(started.model.as_deref(), Some("gpt-5.1-2025-11-13"));
    assert_eq!(text(&events), "Grüße aus 世界 🦀: \"ok\".");
    assert_eq!(of_blocks(&events), [(0, json!({"id": "msg_1", "phase": "final_answer"}))]);
    let said = usage(&events);
    assert_eq!(
        (said.input_tokens, said.output_tokens, said.cache_read_tokens, said.reasoning_tokens, said.estimated),
        (Some(36), Some(87), Some(32), Some(64), false)
    );
    assert_eq!(said.raw.unwrap().dialect, "openai-responses");
    // What the response repeats of the request is told once.
    let echoes = events.iter().filter(|event| matches!(event, Event::Other(other) if other.scope == Scope::Envelope));
    assert_eq!(echoes.count(), 1);
}

#[test]
fn reasoning_and_calls_are_blocks_of_their_own() {
    for name in ["responses-tools.sse", "responses-tools.json", "responses-only-completed.sse"] {
        let events = decoded(name);
        assert_eq!(kinds(&events), ["reasoning", "text", "get_weather", "get_time"], "{name}");
        assert_eq!(thought(&events), "**Weighing it**\n\nTwo cities.\n\n**Calling**");
        let expected = [("call_1", "get_weather", "{\"city\":\"Ulm\"}"), ("call_2", "get_time", "{}")];
        assert_eq!(calls(&events), expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        // Where the next part of the summary begins is told to those who know parts.
        let parts: Vec<_> = of_blocks(&events).into_iter().filter(|(block, _)| *block == 0).collect();
        assert_eq!(parts.last(), Some(&(0, json!({"summary_index": 1}))), "{name}");
        let proofs: Vec<_> = events.iter().filter(|event| matches!(event, Event::Signature(_))).collect();
        assert!(matches!(proofs[..], [Event::Signature(delta)] if delta.text == "gAAAAABo_enc==" && delta.index == 0));
        assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
        assert_eq!(events.last(), Some(&Event::Done));
    }
    let events = decoded("responses-redacted.sse");
    assert!(events.iter().any(|event| matches!(event, Event::Redacted(delta) if delta.text == "gAAAAABo_only==")));
    assert!(!events.iter().any(|event| matches!(event, Event::Signature(_) | Event::Reasoning(_))));
    let events = decoded("responses-open-model.sse");
    assert_eq!((thought(&events).as_str(), text(&events).as_str()), ("I weigh it.", "4"));
}

#[test]
fn items_that_a_server_does_not_number_are_told_apart_by_their_ids() {
    for name in ["responses-llama-reasoning.sse", "responses-llama-reasoning.json"] {
        let events = decoded(name);
        assert_eq!(kinds(&events), ["reasoning", "text"], "{name}");
        assert_eq!((thought(&events).trim_end(), text(&events).as_str()), ("I weigh it.", "It is 4."), "{name}");
        assert_eq!((usage(&events).input_tokens, usage(&events).output_tokens), (Some(34), Some(27)), "{name}");
        assert_eq!(events.last(), Some(&Event::Done), "{name}");
    }
    let called = calls(&decoded("responses-llama-tools.sse"));
    assert_eq!((called.len(), called[0].1.as_str()), (1, "get_weather"));
    assert!(serde_json::from_str::<Value>(&called[0].2).unwrap()["city"].is_string());
    // Two calls one after the other, neither with a number.
    let item = |id: &str| json!({"type": "function_call", "id": id, "call_id": id, "name": "f", "arguments": ""});
    let mut said = Vec::new();
    for id in ["a", "b"] {
        said.push(json!({"type": "response.output_item.added", "item": item(id)}));
        said.push(json!({"type": "response.function_call_arguments.delta", "item_id": id, "delta": format!("{{\"{id}\":1}}")}));
    }
    said.push(json!({"type": "response.completed", "response": {"status": "completed", "output": []}}));
    let both = [("a", "f", "{\"a\":1}"), ("b", "f", "{\"b\":1}")];
    assert_eq!(calls(&streamed(&said)), both.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[test]
fn what_the_backend_did_itself_is_told_whole_and_is_no_call() {
    let events = decoded("responses-search.sse");
    assert_eq!(kinds(&events), ["openai-responses web_search_call", "text", "text"]);
    assert_eq!(finishes(&events)[0].reason, FinishReason::Stop);
    let kept = of_blocks(&events);
    assert_eq!(kept[1].0, 1);
    assert_eq!(kept[1].1["annotations"][0]["url"], "https://example.com/");
    // A custom tool is the client's to run.
    let events = decoded("responses-custom-tool.sse");
    assert_eq!(kinds(&events), ["openai-responses custom_tool_call"]);
    assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
}

#[test]
fn log_probabilities_have_the_shape_of_chat_completions() {
    for name in ["responses-logprobs.sse", "responses-logprobs.json"] {
        let events = decoded(name);
        let of = |event: &Event| match event {
            Event::Text(delta) => delta.logprobs.clone(),
            _ => None,
        };
        let tokens: Vec<Value> = events
            .iter()
            .filter_map(of)
            .flat_map(|text| serde_json::from_str::<Value>(&text).unwrap()["content"].as_array().unwrap().clone())
            .collect();
        assert_eq!(tokens.len(), 2, "{name}");
        assert_eq!((&tokens[0]["token"], &tokens[1]["logprob"]), (&json!("Hi"), &json!(-0.5)));
    }
}

#[test]
fn an_incomplete_response_says_why() {
    let length = &finishes(&decoded("responses-length.sse"))[0];
    assert_eq!((&length.reason, length.raw.as_deref()), (&FinishReason::Length, Some("max_output_tokens")));
    let filtered = &finishes(&decoded("responses-filtered.sse"))[0];
    assert_eq!((&filtered.reason, filtered.raw.as_deref()), (&FinishReason::ContentFilter, Some("content_filter")));
    for (status, details, reason) in [
        ("incomplete", json!({"reason": "max_messages"}), FinishReason::Other("max_messages".into())),
        ("incomplete", json!(null), FinishReason::Other("incomplete".into())),
        ("completed", json!(null), FinishReason::Stop),
    ] {
        let events = answered(&json!({"id": "r", "status": status, "incomplete_details": details, "output": []}));
        assert_eq!(finishes(&events)[0].reason, reason);
    }
}

/// The events of a whole answer.
fn answered(body: &Value) -> Vec<Event> {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Whole, stream: false };
    let mut decoder = OpenAi::decoder(SETTINGS, Some("responses".into()), head);
    let mut events = decoder.feed(vec![Frame::Bytes(body.to_string().into_bytes())]);
    events.extend(decoder.finish());
    check_order("", &events);
    events
}

/// The events of a stream.
fn streamed(said: &[Value]) -> Vec<Event> {
    let frame = |said: &Value| Frame::Sse(SseEvent { event: None, data: said.to_string(), id: None });
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Sse, stream: true };
    let mut decoder = OpenAi::decoder(SETTINGS, Some("responses".into()), head);
    let mut events = decoder.feed(said.iter().map(frame).collect());
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    check_order("", &events);
    events
}

#[test]
fn a_response_that_failed_is_a_failure_with_its_kind() {
    for name in ["responses-failed.sse", "responses-failed.json"] {
        let error = failure(&decoded(name));
        assert_eq!((error.kind, error.retry), (ErrorKind::UpstreamFailure, Retry::SameTarget(None)), "{name}");
        assert_eq!(
            (error.code.as_deref(), error.message.as_str()),
            (Some("server_error"), "The model failed to generate a response.")
        );
    }
    let error: Error = failure(&decoded("responses-error.sse"));
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::RateLimited, Some("rate_limit_exceeded")));
    assert_eq!(error.message, "Rate limit reached for gpt-4o");
    assert_eq!(failure(&decoded("responses-cut.sse")).kind, ErrorKind::MalformedResponse);
    let nested = streamed(&[json!({"type": "error", "error": {"code": "context_length_exceeded", "message": "m"}})]);
    assert_eq!(failure(&nested).kind, ErrorKind::ContextLength);
    for (code, kind) in [
        ("invalid_prompt", ErrorKind::InvalidRequest),
        ("invalid_image_url", ErrorKind::InvalidRequest),
        ("image_too_large", ErrorKind::InvalidRequest),
        ("image_content_policy_violation", ErrorKind::ContentFiltered),
        ("bio_policy", ErrorKind::ContentFiltered),
        ("rate_limit_exceeded", ErrorKind::RateLimited),
        ("vector_store_timeout", ErrorKind::UpstreamFailure),
    ] {
        let error =
            failure(&answered(&json!({"status": "failed", "output": [], "error": {"code": code, "message": "m"}})));
        assert_eq!(error.kind, kind, "{code}");
    }
    for status in ["failed", "cancelled", "odd \"status\""] {
        let error = failure(&answered(&json!({"status": status, "output": []})));
        assert_eq!(error.kind, ErrorKind::UpstreamFailure, "{status}");
        assert!(error.message.contains("status"), "{}", error.message);
    }
    for status in ["queued", "in_progress"] {
        let error = failure(&answered(&json!({"status": status, "output": []})));
        assert_eq!(error.kind, ErrorKind::MalformedResponse);
    }
}

#[test]
fn a_stream_that_ends_anywhere_before_its_end_is_a_malformed_answer() {
    let whole = std::fs::read_to_string(common::folder("openai").join("responses-tools.sse")).unwrap();
    let said: Vec<Value> = whole
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(said.len() > 25, "{}", said.len());
    for kept in 0..said.len() {
        let events = streamed(&said[..kept]);
        assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse, "after {kept}");
    }
    assert_eq!(streamed(&said).last(), Some(&Event::Done));
}

#[test]
fn what_servers_leave_out_of_a_stream_is_made_up_for() {
    let item = json!({"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{\"x\":1}"});
    let end = json!({"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}});
    // No `created`, no deltas, not even `added`.
    let events =
        streamed(&[json!({"type": "response.output_item.done", "output_index": 0, "item": item}), end.clone()]);
    assert_eq!(calls(&events), [("c".to_owned(), "f".to_owned(), "{\"x\":1}".to_owned())]);
    // Only the whole text, not its pieces.
    let done = json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi"});
    assert_eq!(text(&streamed(&[done, end.clone()])), "Hi");
    // Two calls of one id.
    let added = |number: u64| json!({"type": "response.output_item.done", "output_index": number, "item": item});
    let ids: Vec<String> =
        calls(&streamed(&[added(0), added(1), end.clone()])).into_iter().map(|call| call.0).collect();
    assert_eq!(ids, ["c", "c_1"]);
    // Events that nobody knows, and pieces of items that come whole.
    let odd = json!({"type": "response.odd.delta", "output_index": 7, "delta": {"x": 1}});
    assert_eq!(streamed(&[odd, end]).last(), Some(&Event::Done));
}

#[test]
fn a_stream_that_contradicts_itself_is_a_malformed_answer() {
    let item = |kind: &str| json!({"type": kind, "id": "i", "name": "f", "call_id": "c", "content": []});
    let added = |kind: &str| json!({"type": "response.output_item.added", "output_index": 0, "item": item(kind)});
    let done = |kind: &str| json!({"type": "response.output_item.done", "output_index": 0, "item": item(kind)});
    let said = json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"});
    let arguments = json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"});
    let part_done = json!({"type": "response.content_part.done", "output_index": 0, "content_index": 0});
    for events in [
        vec![added("function_call"), said.clone()],
        vec![added("message"), arguments.clone()],
        vec![arguments],
        vec![added("message"), done("message"), said.clone()],
        vec![said.clone(), part_done, said],
        vec![json!({"type": "response.completed"})],
        vec![json!({"type": "response.output_item.added", "item": {"type": "function_call"}})],
        vec![json!([1])],
    ] {
        assert_eq!(failure(&streamed(&events)).kind, ErrorKind::MalformedResponse, "{events:?}");
    }
}

#[test]
fn a_flood_of_items_or_pieces_is_refused() {
    let item =
        |number: u64| json!({"type": "response.output_item.done", "output_index": number, "item": {"type": "odd"}});
    let many: Vec<Value> = (0..4097).map(item).collect();
    assert!(failure(&streamed(&many)).message.contains("4096 items"));
    let said = |number: u64| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": number, "delta": "a"});
    let many: Vec<Value> = (0..4097).map(said).collect();
    assert!(failure(&streamed(&many)).message.contains("4096 blocks"));
    let output: Vec<Value> = (0..4097).map(|_| json!({"type": "odd"})).collect();
    assert_eq!(failure(&answered(&json!({"output": output}))).kind, ErrorKind::MalformedResponse);
}

#[test]
fn a_list_that_the_assistant_said_is_a_message_also_without_an_id() {
    let plain = message(Role::Assistant, vec![Part::text("Hi")]);
    let piece = message(Role::Assistant, vec![Part::Text(piece("Hi", Some("{}")))]);
    let mut known = piece.clone();
    known.extra = Some(r#"{"id":"msg_1","status":"completed","type":"message"}"#.into());
    let sent = encoded(request("openai-responses", vec![plain, piece, known]));
    let content = json!([{"type": "output_text", "text": "Hi"}]);
    assert_eq!(
        sent["input"],
        json!([
            {"role": "assistant", "content": "Hi"},
            {"type": "message", "role": "assistant", "content": content},
            {"type": "message", "role": "assistant", "content": content, "id": "msg_1", "status": "completed"},
        ])
    );
}
