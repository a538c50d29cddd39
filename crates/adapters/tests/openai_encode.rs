//! Requests of the OpenAI shape: that what a client sent arrives, and that what cannot arrive is refused.

use std::path::PathBuf;

use serde_json::{Value, json};
use witgate_adapters::{LlamaCpp, OpenAi, Stub};
use witgate_dialects::{default_limits, parse};
use witgate_model::{
    Adapter, Auth, CacheMark, CompletionPrompt, EmbeddingInput, EmbeddingText, Error, ErrorKind, Framing, FunctionTool,
    HttpRequest, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart,
    Request, ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

fn body(http: &HttpRequest) -> Value {
    let text = std::str::from_utf8(&http.body).unwrap();
    let pairs = Names::of(text);
    assert!(pairs, "a member stands twice in {text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Looks for objects in which a name stands twice.
struct Names;

impl Names {
    /// True where no object of the JSON has a name twice.
    fn of(text: &str) -> bool {
        serde_json::from_str::<Unique>(text).is_ok()
    }
}

struct Unique;

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Unique;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut names = std::collections::BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    map.next_value::<Unique>()?;
                    if !names.insert(name) {
                        return Err(serde::de::Error::custom("twice"));
                    }
                }
                Ok(Unique)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                while seq.next_element::<Unique>()?.is_some() {}
                Ok(Unique)
            }
            fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
                Ok(Unique)
            }
            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn chat(parts: Vec<Part>) -> Request {
    Request::chat("openai-chat", "m", vec![Message { role: Role::User, name: None, parts, extra: None }])
}

fn foreign(parts: Vec<Part>) -> Request {
    Request { dialect: "anthropic-messages".into(), ..chat(parts) }
}

fn encoded(request: Request) -> Value {
    body(&OpenAi::encode("{}", request).unwrap())
}

fn refusal(result: Result<HttpRequest, Error>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    assert!(!error.message.is_empty());
    (error.kind, error.param.unwrap())
}

fn media(kind: MediaKind, mime: Option<&str>, source: MediaSource) -> MediaPart {
    MediaPart { kind, mime: mime.map(str::to_owned), source, name: None, detail: None, cache: None, extra: None }
}

/// What may differ between a client's request and ours: numbers are compared by value, `null` for a member that was
/// not given, one stop sequence as a string, and what the gateway decides: the model and the stream's options.
fn comparable(value: &mut Value, depth: usize) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(|value| comparable(value, depth + 1));
            if depth == 0 {
                object.remove("model");
                if object.get("stream") == Some(&Value::Bool(false)) {
                    object.remove("stream");
                }
                if let Some(Value::Object(options)) = object.get_mut("stream_options") {
                    options.remove("include_usage");
                    if options.is_empty() {
                        object.remove("stream_options");
                    }
                }
                if let Some(stop) = object.get_mut("stop").filter(|stop| stop.is_string()) {
                    *stop = Value::Array(vec![stop.take()]);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| comparable(value, depth + 1)),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

#[test]
fn a_request_in_the_same_dialect_arrives_equal_as_json() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/requests");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Requests of other dialects have folders of their own.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        let sent: Value = serde_json::from_slice(&text).unwrap();
        seen += 1;
        let mut parsed = parse("openai-chat", "/v1/chat/completions", &default_limits(), &text).unwrap();
        parsed.request.model = "the-target's".into();
        let http = OpenAi::encode("{}", parsed.request).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        let mut arrived = body(&http);
        assert_eq!(arrived["model"], "the-target's");
        if sent["stream"] == true {
            assert_eq!(arrived["stream_options"]["include_usage"], true, "{}", path.display());
        }
        let mut sent = sent;
        comparable(&mut sent, 0);
        comparable(&mut arrived, 0);
        assert_eq!(arrived, sent, "{}", path.display());
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn a_text_completion_arrives_equal_as_json() {
    let sent = json!({
        "prompt": "Once \"upon\"\n", "suffix": "end", "echo": true, "best_of": 3, "logprobs": 2, "max_tokens": 5, "temperature": 0.25,
        "stop": ["a", "b"], "n": 2, "seed": -4, "user": "u", "x_unknown": {"deep": [1.50, null]}, "logit_bias": {"50256": -100},
    });
    let parsed =
        parse("openai-completions", "/v1/completions", &default_limits(), sent.to_string().as_bytes()).unwrap();
    let http = OpenAi::encode("{}", parsed.request).unwrap();
    assert_eq!(http.path, ["completions"]);
    assert_eq!(http.context.as_deref(), Some("completion 2"));
    let (mut arrived, mut sent) = (body(&http), sent);
    comparable(&mut arrived, 0);
    comparable(&mut sent, 0);
    assert_eq!(arrived, sent);
}

#[test]
fn raw_json_is_copied_byte_for_byte() {
    let mut request = chat(vec![Part::text("x")]);
    request.extra = Some(r#"{"big": 123456789012345678901234567890, "float":1.0e+2 , "esc\u0061ped":"\u00e9"}"#.into());
    let http = OpenAi::encode("{}", request).unwrap();
    let text = String::from_utf8(http.body).unwrap();
    assert!(text.ends_with(r#","big":123456789012345678901234567890,"float":1.0e+2,"escaped":"\u00e9"}"#), "{text}");
}

#[test]
fn no_member_stands_twice_whatever_the_unknown_members_are_called() {
    let mut request = chat(vec![Part::Text(TextPart {
        text: "x".into(),
        cache: Some(CacheMark { ttl: Some("1h".into()) }),
        extra: Some(r#"{"type":"evil","text":"evil","cache_control":{"type":"evil"},"more":1}"#.into()),
    })]);
    request.stream = true;
    request.sampling.temperature = Some(0.5);
    request.extra = Some(r#"{"messages":[],"model":"evil","stream":false,"temperature":2,"stream_options":{"include_usage":false,"x":1},"top_p":0.5}"#.into());
    let arrived = encoded(request);
    assert_eq!(
        arrived,
        json!({
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}, "more": 1}]}],
            "temperature": 0.5, "stream": true, "stream_options": {"include_usage": true, "x": 1}, "top_p": 0.5,
        })
    );
}

#[test]
fn unknown_members_of_another_dialect_are_refused_by_name_or_left_out_where_allowed() {
    let extra = || Some(r#"{"strange":1}"#.to_owned());
    let text = |extra| Part::Text(TextPart { text: "x".into(), extra, ..TextPart::default() });
    let mut top = foreign(vec![Part::text("x")]);
    top.extra = extra();
    let mut message = foreign(vec![Part::text("x")]);
    if let witgate_model::Input::Chat(messages) = &mut message.input {
        messages[0].extra = extra();
    }
    let part = foreign(vec![text(extra()), text(None)]);
    let one = foreign(vec![text(extra())]);
    let mut tool = foreign(vec![Part::text("x")]);
    tool.tools = vec![Tool::Function(FunctionTool { name: "f".into(), extra: extra(), ..FunctionTool::default() })];
    for (request, param) in [
        (top, "strange"),
        (message, "messages[0].strange"),
        (part, "messages[0].content[0].strange"),
        (one, "messages[0].content[0].strange"),
        (tool, "tools[0].strange"),
    ] {
        assert_eq!(refusal(OpenAi::encode("{}", request.clone())), (ErrorKind::Unsupported, param.to_owned()));
        let http = OpenAi::encode(r#"{"drop_unsupported":true}"#, request).unwrap();
        assert_eq!(http.dropped, [param]);
        assert!(!String::from_utf8(http.body).unwrap().contains("strange"));
    }
}

#[test]
fn parts_tools_and_choices_that_only_another_dialect_knows_are_refused() {
    let mut tool = foreign(vec![Part::text("x")]);
    tool.tools =
        vec![Tool::Function(FunctionTool { name: "f".into(), ..FunctionTool::default() }), Tool::Other("{}".into())];
    let mut choice = foreign(vec![Part::text("x")]);
    choice.tool_choice = Some(ToolChoice::Other("{}".into()));
    let mut format = foreign(vec![Part::text("x")]);
    format.response_format = Some(ResponseFormat::Other("{}".into()));
    let part = foreign(vec![Part::text("x"), Part::Other(r#"{"type":"odd"}"#.into())]);
    let hidden = ReasoningPart { redacted: Some("abc".into()), ..ReasoningPart::default() };
    let mut redacted = foreign(vec![]);
    redacted.input = witgate_model::Input::Chat(vec![Message {
        role: Role::Assistant,
        name: None,
        parts: vec![Part::text("x"), Part::Reasoning(hidden)],
        extra: None,
    }]);
    for (request, param) in [
        (tool, "tools[1]"),
        (choice, "tool_choice"),
        (format, "response_format"),
        (part, "messages[0].content[1]"),
        (redacted, "messages[0].content[1]"),
    ] {
        assert_eq!(refusal(OpenAi::encode("{}", request.clone())), (ErrorKind::Unsupported, param.to_owned()));
        let http = OpenAi::encode(r#"{"drop_unsupported":true}"#, request).unwrap();
        body(&http);
        assert_eq!(http.dropped, [param]);
    }
}

#[test]
fn everything_that_was_left_out_is_told_up_to_the_contracts_bound() {
    let mut request = foreign(vec![Part::text("x")]);
    request.extra = Some(r#"{"a":1,"b":{},"nothing":null,"none":[],"a":2}"#.into());
    request.reasoning = Some(Reasoning {
        budget_tokens: Some(9),
        summary: Some("auto".into()),
        extra: Some(r#"{"c":1,"d":2}"#.into()),
        ..Reasoning::default()
    });
    let http = OpenAi::encode(r#"{"drop_unsupported":true}"#, request.clone()).unwrap();
    assert_eq!(http.dropped, ["a", "b", "reasoning.c", "reasoning.d", "reasoning.budget_tokens", "reasoning.summary"]);
    let many: Vec<String> = (0..100).map(|at| format!("\"x{at}\":0")).collect();
    request.extra = Some(format!("{{{}}}", many.join(",")));
    assert_eq!(OpenAi::encode(r#"{"drop_unsupported":true}"#, request).unwrap().dropped.len(), 64);
    let suffix = CompletionPrompt { suffix: Some("s".into()), best_of: Some(2), ..CompletionPrompt::default() };
    let request = Request::new("openai-completions", "m", Input::Completion(suffix));
    let http = LlamaCpp::encode(r#"{"drop_unsupported":true}"#, request).unwrap();
    assert_eq!(http.dropped, ["suffix", "best_of"]);
}

#[test]
fn where_no_tool_is_left_nothing_is_said_of_their_use() {
    let mut request = foreign(vec![Part::text("x")]);
    request.tools = vec![Tool::Other(r#"{"type":"bash"}"#.into())];
    request.tool_choice = Some(ToolChoice::Required);
    request.parallel_tool_calls = Some(false);
    let http = OpenAi::encode(r#"{"drop_unsupported":true}"#, request).unwrap();
    assert_eq!(http.dropped, ["tools[0]", "tool_choice", "parallel_tool_calls"]);
    assert_eq!(body(&http), encoded(foreign(vec![Part::text("x")])));
}

#[test]
fn a_strict_server_is_asked_for_no_more_than_openai_has() {
    let strict = r#"{"strict":true}"#;
    let with = |change: fn(&mut Request)| {
        let mut request = chat(vec![Part::text("x")]);
        change(&mut request);
        request
    };
    let thinking = with(|request| {
        let hm = ReasoningPart { text: "hm".into(), ..ReasoningPart::default() };
        let parts = vec![Part::text("x"), Part::Reasoning(hm)];
        request.input = Input::Chat(vec![Message { role: Role::Assistant, name: None, parts, extra: None }]);
    });
    let video = media(MediaKind::Video, Some("video/mp4"), MediaSource::Base64("AAAA".into()));
    for (param, request) in [
        ("top_k", with(|request| request.sampling.top_k = Some(4))),
        ("min_p", with(|request| request.sampling.min_p = Some(0.1))),
        ("repetition_penalty", with(|request| request.sampling.repetition_penalty = Some(1.1))),
        ("messages[0].content[1]", thinking),
        ("messages[0].content[1]", chat(vec![Part::text("x"), Part::Media(video)])),
    ] {
        assert_eq!(refusal(OpenAi::encode(strict, request.clone())), (ErrorKind::Unsupported, param.to_owned()));
        assert_eq!(OpenAi::encode("{}", request.clone()).unwrap().dropped, [""; 0]);
        let http = OpenAi::encode(r#"{"strict":true,"drop_unsupported":true}"#, request).unwrap();
        assert_eq!(http.dropped, [param]);
        let text = String::from_utf8(http.body).unwrap();
        assert!(
            !["top_k", "min_p", "repetition", "reasoning", "video"].iter().any(|name| text.contains(name)),
            "{text}"
        );
    }
}

fn embedding(dialect: &str, texts: Vec<EmbeddingText>, single: bool) -> Request {
    Request::new(dialect, "m", Input::Embedding(EmbeddingInput { texts, single, dimensions: None, encoding: None }))
}

#[test]
fn texts_to_embed_arrive_equal_as_json() {
    for sent in [
        json!({"input": "Grüße \"x\"\n", "x_unknown": [1.50, null]}),
        json!({"input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "u"}),
        json!({"input": ["a"], "encoding_format": "float"}),
        json!({"input": [[1, 2, 4_294_967_295_u32], [3]]}),
        json!({"input": [[7]]}),
    ] {
        let fields = sent.as_object().unwrap();
        let text = |value: &Value| match value {
            Value::Array(tokens) => {
                EmbeddingText::Tokens(tokens.iter().map(|token| token.as_u64().unwrap() as u32).collect())
            }
            text => EmbeddingText::Text(text.as_str().unwrap().into()),
        };
        let (texts, single) = match &fields["input"] {
            Value::Array(texts) => (texts.iter().map(text).collect(), false),
            one => (vec![text(one)], true),
        };
        let count = texts.len();
        let input = EmbeddingInput {
            texts,
            single,
            dimensions: fields.get("dimensions").map(|it| it.as_u64().unwrap() as u32),
            encoding: fields.get("encoding_format").map(|it| it.as_str().unwrap().into()),
        };
        let mut request = Request::new("openai-embeddings", "m", Input::Embedding(input));
        request.end_user = fields.get("user").map(|user| user.as_str().unwrap().into());
        request.extra = fields.get("x_unknown").map(|it| format!("{{\"x_unknown\":{it}}}"));
        let http = OpenAi::encode("{}", request).unwrap();
        assert_eq!((http.path.as_slice(), &http.framing), (["embeddings".to_owned()].as_slice(), &Framing::Whole));
        assert_eq!(http.context, Some(format!("embedding {count}")));
        let mut arrived = body(&http);
        assert_eq!(arrived.as_object_mut().unwrap().remove("model"), Some(json!("m")));
        assert_eq!(arrived, sent);
    }
}

#[test]
fn embeddings_refuse_what_the_backend_would_not_do() {
    let one = || vec![EmbeddingText::Text("x".into())];
    let mut shorter = embedding("openai-embeddings", one(), true);
    let Input::Embedding(input) = &mut shorter.input else { unreachable!() };
    input.dimensions = Some(8);
    assert_eq!(refusal(LlamaCpp::encode("{}", shorter.clone())), (ErrorKind::Unsupported, "dimensions".into()));
    let http = LlamaCpp::encode(r#"{"drop_unsupported":true}"#, shorter).unwrap();
    assert_eq!(
        (http.path, http.dropped),
        (vec!["v1".to_owned(), "embeddings".to_owned()], vec!["dimensions".to_owned()])
    );

    let mut odd = embedding("ollama", one(), true);
    odd.extra = Some(r#"{"truncate":true}"#.into());
    assert_eq!(refusal(OpenAi::encode("{}", odd)), (ErrorKind::Unsupported, "truncate".into()));
    for count in [0, 4001] {
        let texts = vec![EmbeddingText::Text("x".into()); count];
        let request = embedding("openai-embeddings", texts, false);
        assert_eq!(refusal(OpenAi::encode("{}", request)), (ErrorKind::InvalidRequest, "input".into()));
    }
    let tokens = Request::new("openai-chat", "m", Input::CountTokens(Vec::new()));
    assert_eq!(refusal(OpenAi::encode("{}", tokens)), (ErrorKind::Unsupported, "messages".into()));
}

#[test]
fn models_are_asked_for_where_each_backend_lists_them() {
    let request = || Request::new("", "", Input::Models);
    let http = OpenAi::encode(r#"{"query":{"api-version":"1"}}"#, request()).unwrap();
    assert_eq!((http.method.as_str(), http.path, http.body.len()), ("GET", vec!["models".to_owned()], 0));
    assert_eq!((http.context.as_deref(), http.query.len()), (Some("models"), 1));
    let http = LlamaCpp::encode("{}", request()).unwrap();
    assert_eq!(http.path, ["v1", "models"]);
}

#[test]
fn what_only_llama_cpp_has_passes_in_its_own_dialects_alone() {
    let extra = json!({
        "grammar": "root ::= \"a\"", "mirostat": 2, "mirostat_tau": 5.0, "cache_prompt": true, "id_slot": 1, "typical_p": 0.9,
        "dynatemp_range": 0.5, "samplers": ["top_k"], "timings_per_token": true, "lora": [{"id": 0, "scale": 0.5}],
    });
    for request in [chat(vec![Part::text("x")]), Request::completion("openai-completions", "m", "x")] {
        let sent = body(&LlamaCpp::encode("{}", Request { extra: Some(extra.to_string()), ..request }).unwrap());
        for (name, value) in extra.as_object().unwrap() {
            assert_eq!(&sent[name], value, "{name}");
        }
    }
    let request = Request { extra: Some(r#"{"grammar":"x"}"#.into()), ..foreign(vec![Part::text("x")]) };
    assert_eq!(refusal(LlamaCpp::encode("{}", request)), (ErrorKind::Unsupported, "grammar".into()));
}

#[test]
fn readiness_of_llama_cpp_is_asked_as_the_settings_say() {
    let none: &[(String, String)] = &[];
    let slots = [("fail_on_no_slot".to_owned(), "1".to_owned())];
    for (settings, path, query) in [
        ("{}", "health", none),
        (r#"{"readiness":"health"}"#, "health", none),
        (r#"{"readiness":"slots"}"#, "slots", &slots[..]),
        (r#"{"readiness":"props"}"#, "props", none),
    ] {
        let probe = LlamaCpp::probe(settings).unwrap().unwrap();
        assert_eq!((probe.path.as_slice(), probe.query.as_slice()), ([path.to_owned()].as_slice(), query));
    }
    assert!(LlamaCpp::probe(r#"{"readiness":"odd"}"#).is_err());
}

#[test]
fn azure_has_its_key_in_a_header_of_its_own() {
    let settings = r#"{"key_header":"api-key"}"#;
    for auth in [
        OpenAi::encode(settings, chat(vec![Part::text("x")])).unwrap().auth,
        OpenAi::probe(settings).unwrap().unwrap().auth,
    ] {
        let Auth::Header(auth) = auth else { panic!("{auth:?}") };
        assert_eq!((auth.name.as_str(), auth.prefix.as_str(), auth.slot.as_str()), ("api-key", "", "api_key"));
    }
}

#[test]
fn every_setting_that_is_read_is_in_a_schema() {
    for (description, names) in [
        (OpenAi::describe(), vec!["api", "strict", "key_header", "reasoning_tag", "drop_unsupported"]),
        (LlamaCpp::describe(), vec!["readiness", "reasoning_tag", "drop_unsupported"]),
    ] {
        let schema: Value = serde_json::from_str(&description.settings_schema).unwrap();
        for name in names {
            assert!(schema["properties"].get(name).is_some(), "{} {name}", description.id);
        }
        assert_eq!(description.operations, ["chat", "completion", "embedding", "models"]);
    }
}

#[test]
fn a_conversation_of_another_dialect_becomes_one_that_every_server_takes() {
    let block =
        |text: &str| TextPart { text: text.into(), cache: Some(CacheMark { ttl: None }), extra: Some("{}".into()) };
    let message = |role, parts| Message { role, name: None, parts, extra: None };
    let result = |id: &str, content, is_error| {
        Part::ToolResult(ToolResult { call_id: id.into(), content, is_error, ..ToolResult::default() })
    };
    let mut request = foreign(vec![]);
    request.input = witgate_model::Input::Chat(vec![
        message(Role::System, vec![Part::Text(block("be kind"))]),
        message(Role::User, vec![Part::Text(block("a")), Part::Text(block("b"))]),
        message(
            Role::Assistant,
            vec![
                Part::Reasoning(ReasoningPart {
                    text: "hm".into(),
                    signature: Some("sig".into()),
                    ..ReasoningPart::default()
                }),
                Part::ToolCall(ToolCall {
                    id: "t1".into(),
                    name: "f".into(),
                    arguments: r#"{"x": 1}"#.into(),
                    ..ToolCall::default()
                }),
                Part::ToolCall(ToolCall {
                    id: "t2".into(),
                    name: "g".into(),
                    arguments: "{}".into(),
                    ..ToolCall::default()
                }),
            ],
        ),
        message(
            Role::User,
            vec![
                result("t1", vec![ResultContent::Text(block("42"))], None),
                result("t2", vec![ResultContent::Text(block("no such file"))], Some(true)),
                Part::Text(block("go on")),
            ],
        ),
        message(
            Role::User,
            vec![
                result("t3", vec![], Some(true)),
                result("t4", vec![], None),
                result("t5", vec![ResultContent::Text(block("Error: x"))], Some(true)),
            ],
        ),
    ]);
    request.response_format =
        Some(ResponseFormat::JsonSchema(JsonSchema { schema: r#"{"type":"object"}"#.into(), ..JsonSchema::default() }));
    assert_eq!(
        encoded(request),
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                    {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "t1", "content": "42"},
                {"role": "tool", "tool_call_id": "t2", "content": "Error: no such file"},
                {"role": "user", "content": "go on"},
                {"role": "tool", "tool_call_id": "t3", "content": "Error: the tool failed"},
                {"role": "tool", "tool_call_id": "t4", "content": ""},
                {"role": "tool", "tool_call_id": "t5", "content": "Error: x"},
            ],
            "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}}},
        })
    );
}

#[test]
fn pictures_in_the_results_of_tools_go_as_the_user_s_behind_all_results_and_name_their_call() {
    let message = |role, parts| Message { role, name: None, parts, extra: None };
    let picture = || ResultContent::Media(media(MediaKind::Image, None, MediaSource::Url("https://x".into())));
    let text = |text: &str| ResultContent::Text(TextPart { text: text.into(), ..TextPart::default() });
    let result =
        |id: &str, content| Part::ToolResult(ToolResult { call_id: id.into(), content, ..ToolResult::default() });
    let mut request = foreign(vec![]);
    request.input = Input::Chat(vec![
        message(Role::Tool, vec![result("t1", vec![text("two"), picture(), picture()])]),
        message(Role::User, vec![result("t2", vec![picture()]), result("t3", vec![text("no")]), Part::text("So?")]),
        message(Role::Tool, vec![result("t4", vec![picture()])]),
    ]);
    let (told, shown) = (
        |id: &str| json!({"type": "text", "text": format!("The result of the tool call {id} has this content:")}),
        json!({"type": "image_url", "image_url": {"url": "https://x"}}),
    );
    let elsewhere = "its content is in the next message of the user";
    let expected = json!([
        {"role": "tool", "tool_call_id": "t1", "content": "two"},
        {"role": "tool", "tool_call_id": "t2", "content": elsewhere},
        {"role": "tool", "tool_call_id": "t3", "content": "no"},
        {"role": "user", "content": [told("t1"), shown, shown, told("t2"), shown]},
        {"role": "user", "content": "So?"},
        {"role": "tool", "tool_call_id": "t4", "content": elsewhere},
        {"role": "user", "content": [told("t4"), shown]},
    ]);
    assert_eq!(encoded(request.clone())["messages"], expected);
    // What an OpenAI client sent goes as it is, unless the server is known to take no more than OpenAI's.
    request.dialect = "openai-chat".into();
    assert_eq!(encoded(request.clone())["messages"][1]["content"], json!([shown]));
    let strict = OpenAi::encode(r#"{"strict":true}"#, request).unwrap();
    assert_eq!(body(&strict)["messages"][1]["content"], elsewhere);
    let video = media(MediaKind::Video, Some("video/mp4"), MediaSource::Base64("AAAA".into()));
    let mut request = foreign(vec![]);
    request.input = Input::Chat(vec![message(Role::Tool, vec![result("t1", vec![ResultContent::Media(video)])])]);
    let (kind, param) = refusal(OpenAi::encode(r#"{"strict":true}"#, request));
    assert_eq!((kind, param.as_str()), (ErrorKind::Unsupported, "messages[0].content[0]"));
}

#[test]
fn media_go_as_the_api_takes_them() {
    let base64 = || MediaSource::Base64("AAAA".into());
    let url = || MediaSource::Url("https://x/y?a=\"b\"".into());
    let mut detailed = media(MediaKind::Image, Some("image/png"), base64());
    detailed.detail = Some("low".into());
    detailed.extra = Some(r#"{"image_url":{"x":1},"y":2}"#.into());
    let mut named = media(MediaKind::Document, Some("application/pdf"), base64());
    named.name = Some("a.pdf".into());
    for (part, expected) in [
        (
            detailed,
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low", "x": 1}, "y": 2}),
        ),
        (
            media(MediaKind::Image, None, url()),
            json!({"type": "image_url", "image_url": {"url": "https://x/y?a=\"b\""}}),
        ),
        (
            media(MediaKind::Image, None, MediaSource::Base64("iVBORw0KGgoA".into())),
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA"}}),
        ),
        (
            media(MediaKind::Audio, Some("audio/mp3"), base64()),
            json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}),
        ),
        (
            named,
            json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}),
        ),
        (
            media(MediaKind::Document, None, MediaSource::FileId("f1".into())),
            json!({"type": "file", "file": {"file_id": "f1"}}),
        ),
        (
            media(MediaKind::Video, Some("video/mp4"), base64()),
            json!({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}),
        ),
    ] {
        assert_eq!(encoded(chat(vec![Part::Media(part)]))["messages"][0]["content"], json!([expected]));
    }
    let mp3 = media(MediaKind::Audio, Some("audio/mpeg"), base64());
    let sent = encoded(foreign(vec![Part::Media(mp3)]));
    assert_eq!(sent["messages"][0]["content"][0]["input_audio"]["format"], "mp3");
}

#[test]
fn media_that_the_api_lacks_are_refused_where_they_stand() {
    let url = || MediaSource::Url("https://x".into());
    for part in [
        media(MediaKind::Audio, Some("audio/wav"), url()),
        media(MediaKind::Document, Some("application/pdf"), url()),
        media(MediaKind::Image, Some("image/png"), MediaSource::FileId("f".into())),
        media(MediaKind::Other("hologram".into()), None, url()),
        media(MediaKind::Image, None, MediaSource::Other("{}".into())),
    ] {
        let request = foreign(vec![Part::text("look"), Part::Media(part)]);
        assert_eq!(
            refusal(OpenAi::encode("{}", request.clone())),
            (ErrorKind::Unsupported, "messages[0].content[1]".into())
        );
        let sent = body(&OpenAi::encode(r#"{"drop_unsupported":true}"#, request).unwrap());
        assert_eq!(sent["messages"][0]["content"], json!([{"type": "text", "text": "look"}]));
    }
    let blind = chat(vec![Part::Media(media(MediaKind::Image, None, MediaSource::Base64("AAAA".into())))]);
    assert_eq!(refusal(OpenAi::encode("{}", blind)), (ErrorKind::InvalidRequest, "messages[0].content[0]".into()));
    let document = media(MediaKind::Document, Some("application/pdf"), MediaSource::Base64("AAAA".into()));
    assert_eq!(refusal(LlamaCpp::encode("{}", chat(vec![Part::Media(document)]))).0, ErrorKind::Unsupported);
}

#[test]
fn the_bound_on_the_answers_length_goes_where_the_model_wants_it() {
    let sent = |settings: &str, model: &str, visible: Option<u64>, all: Option<u64>| {
        let mut request = chat(vec![Part::text("x")]);
        request.model = model.into();
        request.sampling.max_tokens = visible;
        request.sampling.max_completion_tokens = all;
        let sent = body(&OpenAi::encode(settings, request).unwrap());
        (sent.get("max_tokens").and_then(Value::as_u64), sent.get("max_completion_tokens").and_then(Value::as_u64))
    };
    assert_eq!(sent("{}", "gpt-4o", Some(1), None), (Some(1), None));
    assert_eq!(sent("{}", "gpt-4o", Some(1), Some(2)), (Some(1), Some(2)));
    for model in ["o1", "o3-mini", "o4-mini", "gpt-5", "gpt-5.1-codex", "openai/o3"] {
        assert_eq!(sent("{}", model, Some(1), None), (None, Some(1)), "{model}");
        assert_eq!(sent("{}", model, Some(1), Some(2)), (None, Some(2)), "{model}");
    }
    assert_eq!(sent("{}", "olmo", Some(1), None), (Some(1), None));
    assert_eq!(sent(r#"{"max_tokens_field":"max_tokens"}"#, "gpt-5", Some(1), Some(2)), (Some(2), None));
    assert_eq!(sent(r#"{"max_tokens_field":"max_completion_tokens"}"#, "x", Some(1), None), (None, Some(1)));
}

#[test]
fn reasoning_goes_under_the_names_that_each_backend_has() {
    let with = |reasoning: Reasoning| Request { reasoning: Some(reasoning), ..chat(vec![Part::text("x")]) };
    let effort = || with(Reasoning { effort: Some("low".into()), ..Reasoning::default() });
    assert_eq!(encoded(effort())["reasoning_effort"], "low");
    assert_eq!(body(&LlamaCpp::encode("{}", effort()).unwrap())["reasoning_effort"], "low");

    let off = || with(Reasoning { enabled: Some(false), ..Reasoning::default() });
    assert_eq!(encoded(off())["reasoning_effort"], "none");
    let mut mixed = off();
    mixed.extra = Some(r#"{"chat_template_kwargs":{"x":1,"enable_thinking":true}}"#.into());
    let sent = body(&LlamaCpp::encode("{}", mixed).unwrap());
    assert_eq!(sent["chat_template_kwargs"], json!({"enable_thinking": false, "x": 1}));

    let budget = || with(Reasoning { budget_tokens: Some(9), ..Reasoning::default() });
    assert_eq!(refusal(OpenAi::encode("{}", budget())), (ErrorKind::Unsupported, "reasoning.budget_tokens".into()));
    assert_eq!(body(&LlamaCpp::encode("{}", budget()).unwrap())["thinking_budget_tokens"], 9);

    let object = with(Reasoning {
        effort: Some("high".into()),
        extra: Some(r#"{"exclude":true}"#.into()),
        ..Reasoning::default()
    });
    assert_eq!(encoded(object)["reasoning"], json!({"effort": "high", "exclude": true}));
}

#[test]
fn llama_cpp_has_its_own_path_names_and_limits() {
    let mut request = chat(vec![Part::text("x")]);
    request.sampling.repetition_penalty = Some(1.1);
    request.sampling.top_k = Some(40);
    request.sampling.min_p = Some(0.05);
    request.sampling.n = Some(2);
    let http = LlamaCpp::encode("{}", request.clone()).unwrap();
    assert_eq!(http.path, ["v1", "chat", "completions"]);
    assert_eq!(http.context.as_deref(), Some("chat 2"));
    let sent = body(&http);
    assert_eq!(
        (&sent["repeat_penalty"], &sent["top_k"], &sent["min_p"], &sent["n"]),
        (&json!(1.1), &json!(40), &json!(0.05), &json!(2))
    );
    assert!(sent.get("repetition_penalty").is_none());
    assert_eq!(encoded(request)["repetition_penalty"], 1.1);
    let probe = LlamaCpp::probe("{}").unwrap().unwrap();
    assert_eq!((probe.method.as_str(), probe.path), ("GET", vec!["health".to_owned()]));

    for (param, change) in [
        ("suffix", (|prompt| prompt.suffix = Some("s".into())) as fn(&mut witgate_model::CompletionPrompt)),
        ("echo", |prompt| prompt.echo = Some(true)),
        ("best_of", |prompt| prompt.best_of = Some(2)),
    ] {
        let mut request = Request::completion("openai-completions", "m", "x");
        let witgate_model::Input::Completion(prompt) = &mut request.input else { unreachable!() };
        change(prompt);
        assert_eq!(refusal(LlamaCpp::encode("{}", request.clone())), (ErrorKind::Unsupported, param.into()));
        assert!(OpenAi::encode("{}", request).is_ok());
    }
}

#[test]
fn a_text_completion_refuses_what_only_a_chat_can_do() {
    let mut request = Request::completion("openai-completions", "m", "x");
    request.tools = vec![Tool::Function(FunctionTool { name: "f".into(), ..FunctionTool::default() })];
    assert_eq!(refusal(OpenAi::encode("{}", request)), (ErrorKind::Unsupported, "tools".into()));
}

#[test]
fn the_request_around_the_body_is_what_the_contract_asks_for() {
    let mut request = chat(vec![Part::text("x")]);
    request.stream = true;
    let settings = r#"{"headers":{"x-team":"a"},"query":{"api-version":"2024-10-21"},"organization":"org","project":"p","stream_usage":false}"#;
    let http = OpenAi::encode(settings, request).unwrap();
    assert_eq!((http.method.as_str(), &http.framing), ("POST", &Framing::Sse));
    assert_eq!(http.path, ["chat", "completions"]);
    assert_eq!(http.query, [("api-version".to_owned(), "2024-10-21".to_owned())]);
    let header = |name: &str| http.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("openai-organization", "org"),
        ("openai-project", "p"),
        ("x-team", "a"),
    ] {
        assert_eq!(header(name), Some(value), "{name}");
    }
    let Auth::Header(auth) = &http.auth else { panic!("{:?}", http.auth) };
    assert_eq!((auth.name.as_str(), auth.prefix.as_str(), auth.slot.as_str()), ("authorization", "Bearer ", "api_key"));
    assert!(OpenAi::describe().secrets.iter().any(|slot| slot.name == auth.slot));
    assert!(body(&http).get("stream_options").is_none());
    let probe = OpenAi::probe(settings).unwrap().unwrap();
    assert_eq!((probe.method.as_str(), probe.path, probe.query.len()), ("GET", vec!["models".to_owned()], 1));
}

#[test]
fn numbers_that_json_does_not_have_are_refused() {
    for value in [f64::NAN, f64::INFINITY] {
        let mut request = chat(vec![Part::text("x")]);
        request.sampling.top_p = Some(value);
        assert_eq!(refusal(OpenAi::encode("{}", request)), (ErrorKind::InvalidRequest, "top_p".into()));
    }
}

#[test]
fn unknown_members_that_are_no_object_are_an_error_and_no_body() {
    let mut request = chat(vec![Part::text("x")]);
    request.extra = Some("},\"model\":\"evil\"".into());
    assert_eq!(OpenAi::encode("{}", request).unwrap_err().kind, ErrorKind::InvalidRequest);
}

#[test]
fn many_unknown_members_take_no_more_than_their_own_time() {
    let members: Vec<String> = (0..100_000).map(|at| format!("\"x{at}\":0")).collect();
    let mut request = chat(vec![Part::text("x")]);
    request.extra = Some(format!("{{{}}}", members.join(",")));
    let http = OpenAi::encode("{}", request).unwrap();
    assert!(http.body.len() > 1_000_000);
}

#[test]
fn descriptions_keep_the_rules_of_the_contract() {
    for description in [OpenAi::describe(), LlamaCpp::describe(), Stub::describe()] {
        assert!(description.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        assert!(description.default_endpoint.is_some());
        let schema: Value = serde_json::from_str(&description.settings_schema).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
        }
    }
}

#[test]
fn the_stub_takes_what_a_newcomer_may_try_and_refuses_what_it_cannot_pretend() {
    let mut request =
        chat(vec![Part::text("x"), Part::Media(media(MediaKind::Image, None, MediaSource::Url("u".into())))]);
    request.tools = vec![Tool::Function(FunctionTool { name: "f".into(), ..FunctionTool::default() })];
    request.tool_choice = Some(ToolChoice::Auto);
    request.extra = Some(r#"{"x":1}"#.into());
    assert!(Stub::encode("{}", request.clone()).is_ok());
    assert_eq!(Stub::probe("{}").unwrap(), None);

    let required = Request { tool_choice: Some(ToolChoice::Required), ..request.clone() };
    assert_eq!(refusal(Stub::encode("{}", required.clone())), (ErrorKind::Unsupported, "tool_choice".into()));
    assert!(Stub::encode(r#"{"drop_unsupported":true}"#, required).is_ok());
    let json = Request { response_format: Some(ResponseFormat::JsonObject), ..request.clone() };
    assert_eq!(refusal(Stub::encode("{}", json)), (ErrorKind::Unsupported, "response_format".into()));
    let mut many = request;
    many.sampling.n = Some(u32::MAX);
    assert_eq!(refusal(Stub::encode("{}", many)), (ErrorKind::InvalidRequest, "n".into()));
}
