//! Requests to the Messages API, rule by rule.

use serde_json::{Value, json};
use witgate_adapters::Anthropic;
use witgate_model::{
    Adapter, Auth, CacheMark, Error, ErrorKind, Framing, FunctionTool, HeaderAuth, HttpRequest, Input, JsonSchema,
    MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart, Request, ResponseFormat, ResultContent,
    Role, Sampling, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// Takes a budget, and keeps to schemas by itself.
const CLAUDE: &str = "claude-sonnet-4-5";
/// Takes an effort.
const ADAPTIVE: &str = "claude-opus-4-6";
/// Keeps to no schema by itself.
const OLD: &str = "claude-3-7-sonnet-20250219";

fn chat(messages: Vec<Message>) -> Request {
    Request::chat("openai-chat", CLAUDE, messages)
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::text(Role::Assistant, text)
}

fn of(role: Role, parts: Vec<Part>) -> Message {
    Message { role, name: None, parts, extra: None }
}

fn hello() -> Request {
    chat(vec![user("Hello")])
}

fn encode(settings: Value, request: &Request) -> Result<HttpRequest, Error> {
    Anthropic::encode(&settings.to_string(), request.clone())
}

fn body(request: &Request) -> Value {
    body_with(json!({}), request)
}

fn body_with(settings: Value, request: &Request) -> Value {
    serde_json::from_slice(&encode(settings, request).unwrap().body).unwrap()
}

/// The refusal: its kind and the field that it names.
fn refused(request: &Request) -> (ErrorKind, String) {
    let error = encode(json!({}), request).unwrap_err();
    assert!(error.message.len() > 20, "{error:?}");
    (error.kind, error.param.unwrap_or_default())
}

fn unsupported(param: &str) -> (ErrorKind, String) {
    (ErrorKind::Unsupported, param.to_owned())
}

fn invalid(param: &str) -> (ErrorKind, String) {
    (ErrorKind::InvalidRequest, param.to_owned())
}

/// What is left out, and the body without it, where the settings say so.
fn left_out(request: &Request) -> (Vec<String>, Value) {
    let http = encode(json!({"drop_unsupported": true}), request).unwrap();
    (http.dropped.clone(), serde_json::from_slice(&http.body).unwrap())
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), cache: None, extra: None })
}

fn result(id: &str, text: &str) -> Part {
    let content = vec![ResultContent::Text(TextPart { text: text.into(), ..TextPart::default() })];
    Part::ToolResult(ToolResult { call_id: id.into(), content, ..ToolResult::default() })
}

fn tool(name: &str) -> Tool {
    Tool::Function(FunctionTool {
        name: name.into(),
        description: Some("Does it".into()),
        parameters: Some(r#"{"type":"object","properties":{"q":{"type":"string"}}}"#.into()),
        ..FunctionTool::default()
    })
}

fn marked(text: &str, ttl: Option<&str>) -> Part {
    let cache = Some(CacheMark { ttl: ttl.map(str::to_owned) });
    Part::Text(TextPart { text: text.into(), cache, extra: None })
}

fn media(kind: MediaKind, mime: Option<&str>, source: MediaSource) -> MediaPart {
    MediaPart { kind, mime: mime.map(str::to_owned), source, name: None, detail: None, cache: None, extra: None }
}

/// The first block of a user's message that holds this part and a text.
fn block(part: MediaPart) -> Value {
    let request = chat(vec![of(Role::User, vec![Part::Media(part), Part::text("What?")])]);
    body(&request)["messages"][0]["content"][0].clone()
}

fn schema(schema: &str, strict: Option<bool>) -> Option<ResponseFormat> {
    let name = Some("city".to_owned());
    Some(ResponseFormat::JsonSchema(JsonSchema { name, description: None, schema: schema.into(), strict }))
}

const CLOSED: &str =
    r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}"#;
const OPEN: &str = r#"{"type":"object","properties":{"city":{"type":"string","minLength":1}}}"#;

fn thinking(model: &str, reasoning: Reasoning) -> Request {
    Request { model: model.into(), reasoning: Some(reasoning), ..hello() }
}

fn effort(word: &str) -> Reasoning {
    Reasoning { effort: Some(word.into()), ..Reasoning::default() }
}

fn sampled(sampling: Sampling) -> Request {
    Request { sampling, ..hello() }
}

#[test]
fn a_plain_request_is_this_http_request() {
    let http = encode(json!({}), &hello()).unwrap();
    assert_eq!((http.method.as_str(), http.path.clone()), ("POST", vec!["v1".to_owned(), "messages".to_owned()]));
    assert_eq!(
        String::from_utf8(http.body).unwrap(),
        r#"{"model":"claude-sonnet-4-5","max_tokens":4096,"messages":[{"role":"user","content":"Hello"}]}"#
    );
    let header = |name: &str| http.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("anthropic-version"), Some("2023-06-01"));
    assert_eq!((header("anthropic-beta"), header("content-type")), (None, Some("application/json")));
    let key = HeaderAuth { name: "x-api-key".into(), prefix: String::new(), slot: "api_key".into() };
    assert_eq!(http.auth, Auth::Header(key));
    assert_eq!((http.framing, http.context), (Framing::Whole, None));

    let http = encode(json!({}), &Request { stream: true, ..hello() }).unwrap();
    assert_eq!(http.framing, Framing::Sse);
    assert!(String::from_utf8(http.body).unwrap().ends_with(r#","stream":true}"#));
    assert!(http.headers.contains(&("accept".to_owned(), "text/event-stream".to_owned())));
}

#[test]
fn version_betas_and_further_headers_come_from_the_settings() {
    let settings = json!({"version": "2024-01-01", "betas": ["a-2025-01-01", "b"], "headers": {"x-team": "blue"}});
    let http = encode(settings.clone(), &hello()).unwrap();
    for field in [("anthropic-version", "2024-01-01"), ("anthropic-beta", "a-2025-01-01,b"), ("x-team", "blue")] {
        assert!(http.headers.contains(&(field.0.to_owned(), field.1.to_owned())), "{field:?}");
    }
    // A client of this API may ask for more of them in the body, as on Bedrock.
    let mut request = hello();
    request.dialect = "anthropic-messages".into();
    request.extra = Some(r#"{"anthropic_beta":["b","c"]}"#.into());
    let http = encode(settings, &request).unwrap();
    assert!(http.headers.contains(&("anthropic-beta".to_owned(), "a-2025-01-01,b,c".to_owned())));
    assert!(!String::from_utf8(http.body).unwrap().contains("anthropic_beta"));
    request.extra = Some(r#"{"anthropic_beta":["b\r\nx: y"]}"#.into());
    assert_eq!(refused(&request), invalid("anthropic_beta"));
}

#[test]
fn models_and_the_probe_are_a_list() {
    let http = encode(json!({"betas": ["b"]}), &Request::new("openai-chat", "", Input::Models)).unwrap();
    assert_eq!((http.method.as_str(), http.path.join("/").as_str()), ("GET", "v1/models"));
    assert_eq!(http.query, [("limit".to_owned(), "1000".to_owned())]);
    assert!(http.body.is_empty() && matches!(http.auth, Auth::Header(_)));
    assert_eq!(http.context.as_deref(), Some(r#"{"operation":"models"}"#));
    assert!(http.headers.contains(&("anthropic-version".to_owned(), "2023-06-01".to_owned())));
    let probe = Anthropic::probe("{}").unwrap().unwrap();
    assert_eq!(probe.query, [("limit".to_owned(), "1".to_owned())]);
}

#[test]
fn a_count_has_what_shapes_the_prompt_and_nothing_else() {
    let mut request = hello();
    request.input = Input::CountTokens(vec![Message::text(Role::System, "Be brief."), user("Hello")]);
    request.tools = vec![tool("f")];
    request.sampling = Sampling { temperature: Some(0.5), max_tokens: Some(10), ..Sampling::default() };
    request.end_user = Some("u".into());
    let http = encode(json!({}), &request).unwrap();
    assert_eq!(http.path.join("/"), "v1/messages/count_tokens");
    assert_eq!(http.context.as_deref(), Some(r#"{"operation":"count-tokens"}"#));
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    let members: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["messages", "model", "system", "tools"]);
}

#[test]
fn operations_that_the_api_lacks_are_refused() {
    let request = Request::completion("openai-completions", CLAUDE, "Once");
    let error = encode(json!({}), &request).unwrap_err();
    assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some("prompt")));
    assert!(error.message.contains("Anthropic"));
}

#[test]
fn instructions_go_to_the_top_level_and_turns_of_one_side_are_merged() {
    let mut messages = vec![Message::text(Role::System, "One"), user("a"), user("b"), assistant("c"), assistant("d")];
    messages.extend([Message::text(Role::Developer, "Two"), user("e")]);
    let body = body(&chat(messages));
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(body["system"], json!([text("One"), text("Two")]));
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": [text("a"), text("b")]},
            {"role": "assistant", "content": [text("c"), text("d")]},
            {"role": "user", "content": "e"},
        ])
    );
    assert_eq!(self::body(&chat(vec![Message::text(Role::System, "One"), user("a")]))["system"], "One");
}

#[test]
fn the_first_turn_is_the_users() {
    let request = chat(vec![assistant("Hi"), user("Hello")]);
    assert_eq!(refused(&request), unsupported("messages[0].role"));
    let (dropped, body) = left_out(&request);
    assert_eq!(dropped, ["messages[0].role"]);
    assert_eq!(body["messages"], json!([{"role": "user", "content": "Hello"}]));
    assert_eq!(refused(&chat(vec![Message::text(Role::System, "x")])), invalid("messages"));
    assert_eq!(refused(&chat(vec![])), invalid("messages"));
    assert_eq!(refused(&chat(vec![of(Role::Other("critic".into()), vec![])])), unsupported("messages[0].role"));
}

#[test]
fn empty_text_is_left_out_and_an_empty_message_of_the_user_refused() {
    let request = chat(vec![of(Role::User, vec![Part::text(""), Part::text("a"), marked("", None)]), assistant("")]);
    let mark = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
    assert_eq!(body(&request)["messages"], json!([{"role": "user", "content": [mark]}]));
    assert_eq!(refused(&chat(vec![user("a"), user("")])), invalid("messages[1].content"));
}

#[test]
fn calls_and_results_take_their_places() {
    let mut failed = ToolResult { call_id: "t2".into(), is_error: Some(true), ..ToolResult::default() };
    failed.content = vec![
        ResultContent::Text(TextPart { text: "no".into(), ..TextPart::default() }),
        ResultContent::Media(media(MediaKind::Image, None, MediaSource::Base64(PIXEL.into()))),
    ];
    let mut request = chat(vec![
        user("Go"),
        of(Role::Assistant, vec![Part::text("I look"), call("t1", "f", r#"{"q": "x"}"#), call("t2", "g", "")]),
        of(Role::Tool, vec![result("t1", "yes")]),
        of(Role::User, vec![Part::text("and"), Part::ToolResult(failed)]),
    ]);
    request.tools = vec![tool("f"), tool("g")];
    let body = body(&request);
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"q": "x"}},
            {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        ])
    );
    assert_eq!(
        body["messages"][2]["content"],
        json!([
            {"type": "tool_result", "tool_use_id": "t1", "content": "yes"},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                {"type": "text", "text": "no"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            ]},
            {"type": "text", "text": "and"},
        ])
    );
    assert_eq!(
        body["tools"][0],
        json!({"name": "f", "description": "Does it",
            "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}})
    );

    let bad = chat(vec![user("Go"), of(Role::Assistant, vec![call("t", "f", "[1]")])]);
    assert_eq!(refused(&bad), invalid("messages[1].content[0]"));
    let misplaced = chat(vec![user("Go"), of(Role::Assistant, vec![result("t", "x")])]);
    assert_eq!(refused(&misplaced), invalid("messages[1].content[0]"));
}

#[test]
fn odd_names_and_ids_are_mapped_and_names_travel_in_the_context() {
    let mut request = chat(vec![
        user("Go"),
        of(Role::Assistant, vec![call("call:1/ü", "fs.read", "{}")]),
        of(Role::Tool, vec![result("call:1/ü", "x")]),
    ]);
    request.tools = vec![tool("fs.read"), tool("plain")];
    request.tool_choice = Some(ToolChoice::Tool("fs.read".into()));
    let http = encode(json!({}), &request).unwrap();
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    let name = body["tools"][0]["name"].as_str().unwrap();
    let fits = |text: &str| text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    assert!(fits(name) && name != "fs.read");
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": name}));
    let sent = &body["messages"][1]["content"][0];
    assert_eq!(sent["name"], name);
    assert!(fits(sent["id"].as_str().unwrap()));
    assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], sent["id"]);
    let context: Value = serde_json::from_str(&http.context.unwrap()).unwrap();
    assert_eq!(context, json!({"operation": "chat", "tools": {name: "fs.read"}}));
}

#[test]
fn tool_choices_are_those_of_the_api() {
    let with = |choice: Option<ToolChoice>, parallel: Option<bool>| {
        let request = Request { tools: vec![tool("f")], tool_choice: choice, parallel_tool_calls: parallel, ..hello() };
        body(&request).get("tool_choice").cloned().unwrap_or_default()
    };
    assert_eq!(with(None, None), Value::Null);
    assert_eq!(with(Some(ToolChoice::Auto), Some(true)), json!({"type": "auto"}));
    assert_eq!(with(None, Some(false)), json!({"type": "auto", "disable_parallel_tool_use": true}));
    assert_eq!(
        with(Some(ToolChoice::Required), Some(false)),
        json!({"type": "any", "disable_parallel_tool_use": true})
    );
    assert_eq!(with(Some(ToolChoice::None), Some(false)), json!({"type": "none"}));
    assert_eq!(with(Some(ToolChoice::Tool("f".into())), None), json!({"type": "tool", "name": "f"}));

    let missing = Request { tools: vec![tool("f")], tool_choice: Some(ToolChoice::Tool("g".into())), ..hello() };
    assert_eq!(refused(&missing), invalid("tool_choice"));
    assert_eq!(refused(&Request { tool_choice: Some(ToolChoice::Required), ..hello() }), invalid("tool_choice"));
    assert!(body(&Request { tool_choice: Some(ToolChoice::None), ..hello() }).get("tool_choice").is_none());
}

#[test]
fn a_history_with_calls_gets_the_tools_that_it_names() {
    let messages =
        vec![user("Go"), of(Role::Assistant, vec![call("t", "f", "{}")]), of(Role::Tool, vec![result("t", "x")])];
    let body = body(&chat(messages));
    assert_eq!(body["tools"], json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]));
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
}

#[test]
fn schemas_of_tools_get_the_type_that_the_api_wants() {
    let mut function = FunctionTool { name: "f".into(), ..FunctionTool::default() };
    let sent = |function: &FunctionTool| {
        body(&Request { tools: vec![Tool::Function(function.clone())], ..hello() })["tools"][0].clone()
    };
    assert_eq!(sent(&function)["input_schema"], json!({"type": "object", "properties": {}}));
    function.parameters = Some(r#"{"properties":{}}"#.into());
    function.strict = Some(true);
    assert_eq!(
        sent(&function),
        json!({"name": "f", "strict": true, "input_schema": {"type": "object", "properties": {}}})
    );
    function.parameters = Some("[]".into());
    let request = Request { tools: vec![Tool::Function(function)], ..hello() };
    assert_eq!(refused(&request), invalid("tools[0].parameters"));
}

#[test]
fn images_are_base64_or_urls() {
    let base64 = |mime| media(MediaKind::Image, mime, MediaSource::Base64(PIXEL.into()));
    for (mime, sent) in [(Some("image/png"), "image/png"), (None, "image/png"), (Some("image/JPG"), "image/jpeg")] {
        assert_eq!(
            block(base64(mime)),
            json!({"type": "image", "source": {"type": "base64", "media_type": sent, "data": PIXEL}})
        );
    }
    let url = media(MediaKind::Image, None, MediaSource::Url("https://example.com/a.png".into()));
    assert_eq!(
        block(url.clone()),
        json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})
    );
    let at = |part: MediaPart| refused(&chat(vec![of(Role::User, vec![Part::Media(part)])]));
    assert_eq!(at(base64(Some("image/tiff"))), unsupported("messages[0].content[0]"));
    assert_eq!(
        at(media(MediaKind::Image, Some("image/png"), MediaSource::Base64("a b".into()))),
        invalid("messages[0].content[0]")
    );
    assert_eq!(at(MediaPart { detail: Some("low".into()), ..url }), unsupported("messages[0].content[0].detail"));
    let sound = media(MediaKind::Audio, Some("audio/wav"), MediaSource::Base64("UklG".into()));
    assert_eq!(at(sound), unsupported("messages[0].content[0]"));
    let said = chat(vec![user("a"), of(Role::Assistant, vec![Part::Media(base64(None)), Part::text("b")])]);
    assert_eq!(refused(&said), unsupported("messages[1].content[0]"));
    let (dropped, body) = left_out(&said);
    assert_eq!((dropped.len(), &body["messages"][1]["content"]), (1, &json!([{"type": "text", "text": "b"}])));
}

#[test]
fn documents_are_pdf_text_urls_and_files() {
    let document = |mime, source, name: Option<&str>| {
        block(MediaPart { name: name.map(str::to_owned), ..media(MediaKind::Document, mime, source) })
    };
    let pdf = || MediaSource::Base64("JVBERi0x".into());
    let sent = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"});
    assert_eq!(
        document(Some("application/pdf"), pdf(), Some("a.pdf")),
        json!({"type": "document", "source": sent, "title": "a.pdf"})
    );
    assert_eq!(document(None, pdf(), None)["source"], sent);
    let text = json!({"type": "text", "media_type": "text/plain", "data": "Hi\n"});
    assert_eq!(document(Some("text/csv; charset=utf-8"), MediaSource::Base64("SGkK".into()), None)["source"], text);
    assert_eq!(document(None, MediaSource::Text("Hi\n".into()), None)["source"], text);
    assert_eq!(
        document(None, MediaSource::Url("https://e.com/a".into()), None)["source"],
        json!({"type": "url", "url": "https://e.com/a"})
    );
    assert_eq!(
        document(None, MediaSource::FileId("file_1".into()), None)["source"],
        json!({"type": "file", "file_id": "file_1"})
    );
    let zip = media(MediaKind::Document, Some("application/zip"), MediaSource::Base64("UEsD".into()));
    let request = chat(vec![of(Role::User, vec![Part::Media(zip)])]);
    assert_eq!(refused(&request), unsupported("messages[0].content[0]"));
}

#[test]
fn thinking_is_replayed_with_its_proof_and_foreign_thinking_refused() {
    let thought = |text: &str, signature: Option<&str>, redacted: Option<&str>| {
        Part::Reasoning(ReasoningPart {
            text: text.into(),
            signature: signature.map(str::to_owned),
            redacted: redacted.map(str::to_owned),
            extra: None,
        })
    };
    let with = |parts: Vec<Part>| chat(vec![user("a"), of(Role::Assistant, parts), user("b")]);
    let request = with(vec![thought("hm", Some("sig"), None), thought("", None, Some("enc")), Part::text("c")]);
    assert_eq!(
        body(&request)["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "enc"},
            {"type": "text", "text": "c"},
        ])
    );
    let foreign = with(vec![thought("hm", None, None), Part::text("c")]);
    assert_eq!(refused(&foreign), unsupported("messages[1].content[0]"));
    let (dropped, body) = left_out(&foreign);
    assert_eq!(dropped, ["messages[1].content[0]"]);
    assert_eq!(body["messages"][1]["content"], json!([{"type": "text", "text": "c"}]));
}

#[test]
fn models_that_take_a_budget_get_one_with_room_for_the_answer() {
    for (word, budget) in [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 16_384), ("xhigh", 32_768)] {
        let sent = body(&thinking(CLAUDE, effort(word)));
        assert_eq!(sent["thinking"], json!({"type": "enabled", "budget_tokens": budget}));
        assert_eq!(sent["max_tokens"], 4096 + budget);
        assert!(sent.get("output_config").is_none());
    }
    let bounded = |most: u64| {
        let sampling = Sampling { max_tokens: Some(most), ..Sampling::default() };
        Request { sampling, ..thinking(CLAUDE, effort("high")) }
    };
    assert_eq!(body(&bounded(6000))["thinking"]["budget_tokens"], 3000);
    assert_eq!(body(&bounded(1025))["thinking"]["budget_tokens"], 1024);
    // No budget fits beside an answer: the request to reason is refused, or left out and told.
    for most in [1, 1000, 1024] {
        assert_eq!(refused(&bounded(most)), unsupported("reasoning_effort"));
        let (dropped, sent) = left_out(&bounded(most));
        assert_eq!(dropped, ["reasoning_effort"]);
        assert_eq!((sent.get("thinking"), &sent["max_tokens"]), (None, &json!(most)));
    }
    let exact = |tokens| Reasoning { budget_tokens: Some(tokens), ..Reasoning::default() };
    assert_eq!(body(&thinking(CLAUDE, exact(2000)))["thinking"]["budget_tokens"], 2000);
    assert_eq!(refused(&thinking(CLAUDE, exact(10))), unsupported("reasoning"));
    let sampling = Sampling { max_tokens: Some(2000), ..Sampling::default() };
    assert_eq!(refused(&Request { sampling, ..thinking(CLAUDE, exact(2000)) }), unsupported("reasoning"));
    assert_eq!(refused(&thinking(CLAUDE, effort("lots"))), invalid("reasoning_effort"));
    assert!(body(&thinking(CLAUDE, effort("none"))).get("thinking").is_none());
}

#[test]
fn models_that_decide_for_themselves_get_an_effort() {
    let sent = body(&thinking(ADAPTIVE, effort("minimal")));
    assert_eq!((&sent["thinking"], &sent["output_config"]), (&json!({"type": "adaptive"}), &json!({"effort": "low"})));
    let told = Reasoning { summary: Some("auto".into()), ..effort("high") };
    assert_eq!(body(&thinking(ADAPTIVE, told))["thinking"], json!({"type": "adaptive", "display": "summarized"}));
    assert_eq!(body(&thinking(ADAPTIVE, effort("none")))["thinking"], json!({"type": "disabled"}));
    let exact = Reasoning { budget_tokens: Some(2000), ..Reasoning::default() };
    assert_eq!(refused(&thinking(ADAPTIVE, exact)), unsupported("reasoning.budget_tokens"));
    // The setting knows better than the name.
    let sent = body_with(json!({"thinking": "budget"}), &thinking(ADAPTIVE, effort("low")));
    assert_eq!(sent["thinking"], json!({"type": "enabled", "budget_tokens": 2048}));
    let sent = body_with(json!({"thinking": "adaptive"}), &thinking("my-model", effort("low")));
    assert_eq!(sent["output_config"], json!({"effort": "low"}));
}

#[test]
fn a_schema_that_the_model_keeps_to_is_native() {
    let with = |schema, model: &str| Request { response_format: schema, model: model.into(), ..hello() };
    for request in [with(schema(CLOSED, None), CLAUDE), with(schema(CLOSED, Some(true)), ADAPTIVE)] {
        let sent = body(&request);
        let schema: Value = serde_json::from_str(CLOSED).unwrap();
        assert_eq!(sent["output_config"], json!({"format": {"type": "json_schema", "schema": schema}}));
        assert!(sent.get("tools").is_none());
    }
    // The client wants a guarantee, or the model is to think, which it can't where a tool is forced.
    assert!(body(&with(schema(OPEN, Some(true)), CLAUDE)).get("output_config").is_some());
    let thinks = Request { response_format: schema(OPEN, None), ..thinking(ADAPTIVE, effort("low")) };
    assert_eq!(body(&thinks)["output_config"]["effort"], "low");
    assert_eq!(body(&thinks)["output_config"]["format"]["type"], "json_schema");
}

#[test]
fn other_schemas_are_a_tool_that_must_be_called() {
    let with = |schema, model: &str| Request { response_format: schema, model: model.into(), ..hello() };
    for (request, given) in [
        (with(schema(OPEN, None), CLAUDE), OPEN),
        (with(schema(CLOSED, Some(true)), OLD), CLOSED),
        (with(Some(ResponseFormat::JsonObject), CLAUDE), r#"{"type":"object","additionalProperties":true}"#),
    ] {
        let http = encode(json!({}), &request).unwrap();
        let sent: Value = serde_json::from_slice(&http.body).unwrap();
        assert_eq!(sent["tools"][0]["name"], "json_answer");
        assert_eq!(sent["tools"][0]["input_schema"], serde_json::from_str::<Value>(given).unwrap());
        let choice = json!({"type": "tool", "name": "json_answer", "disable_parallel_tool_use": true});
        assert_eq!(sent["tool_choice"], choice);
        assert!(sent.get("output_config").is_none());
        assert_eq!(http.context.as_deref(), Some(r#"{"operation":"chat","answer":"json_answer"}"#));
    }
}

#[test]
fn a_forced_answer_stands_beside_the_clients_tools() {
    let mut request = Request { response_format: schema(OPEN, None), tools: vec![tool("json_answer")], ..hello() };
    let sent = body(&request);
    assert_eq!(sent["tools"][1]["name"], "json_answer_");
    assert_eq!(sent["tool_choice"], json!({"type": "any"}));
    request.tool_choice = Some(ToolChoice::None);
    assert_eq!(body(&request)["tool_choice"]["name"], "json_answer_");
    // The answer is the call that the client demands.
    request.tool_choice = Some(ToolChoice::Required);
    let sent = body(&request);
    assert_eq!((sent["tools"].as_array().unwrap().len(), &sent["tool_choice"]), (1, &json!({"type": "any"})));
}

#[test]
fn what_a_forced_answer_cannot_do_is_refused() {
    let list = Request { response_format: schema(r#"{"type":"array"}"#, None), model: OLD.into(), ..hello() };
    assert_eq!(refused(&list), unsupported("response_format.json_schema.schema"));
    let thinks = Request { response_format: schema(CLOSED, None), ..thinking(OLD, effort("low")) };
    assert_eq!(refused(&thinks), unsupported("reasoning_effort"));
    let (dropped, body) = left_out(&thinks);
    assert_eq!(dropped, ["reasoning_effort"]);
    assert!(body.get("thinking").is_none());
    let bad = Request { response_format: schema("[", None), model: OLD.into(), ..hello() };
    assert_eq!(refused(&bad), invalid("response_format.json_schema.schema"));

    let native = json!({"structured_output": "native"});
    let request = Request { response_format: schema(OPEN, None), ..hello() };
    assert!(body_with(native.clone(), &request).get("output_config").is_some());
    let error = encode(native, &Request { response_format: Some(ResponseFormat::JsonObject), ..hello() }).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("response_format"));
    let request = Request { response_format: schema(CLOSED, None), ..hello() };
    assert!(body_with(json!({"structured_output": "tool"}), &request).get("tools").is_some());
}

#[test]
fn marks_are_sent_where_they_stood() {
    let mut function = FunctionTool { name: "f".into(), ..FunctionTool::default() };
    function.cache = Some(CacheMark { ttl: Some("1h".into()) });
    let mut request = chat(vec![
        of(Role::System, vec![marked("s", None)]),
        of(Role::User, vec![marked("u", Some("5m")), Part::text("v")]),
    ]);
    request.tools = vec![Tool::Function(function)];
    let sent = body(&request);
    assert_eq!(sent["system"], json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]));
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], json!({"type": "ephemeral", "ttl": "5m"}));
    assert_eq!(sent["tools"][0]["cache_control"], json!({"type": "ephemeral", "ttl": "1h"}));
    let five = chat(vec![of(Role::User, (0..5).map(|_| marked("x", None)).collect())]);
    assert_eq!(refused(&five), unsupported("messages[0].content[4].cache_control"));
    assert_eq!(left_out(&five).0, ["messages[0].content[4].cache_control"]);
    let odd = chat(vec![of(Role::User, vec![marked("x", Some("2d"))])]);
    assert_eq!(refused(&odd), invalid("messages[0].content[0].cache_control.ttl"));
}

#[test]
fn a_bound_on_the_answer_is_always_sent() {
    let both = Sampling { max_tokens: Some(10), max_completion_tokens: Some(20), ..Sampling::default() };
    assert_eq!(body(&sampled(both))["max_tokens"], 20);
    let one = Sampling { max_tokens: Some(10), ..Sampling::default() };
    assert_eq!(body(&sampled(one))["max_tokens"], 10);
    assert_eq!(body_with(json!({"default_max_tokens": 77}), &hello())["max_tokens"], 77);
}

#[test]
fn sampling_that_the_api_has_is_sent_and_the_rest_refused() {
    let known = Sampling {
        temperature: Some(0.5),
        top_p: Some(1.0),
        top_k: Some(40),
        stop: vec!["END".into()],
        n: Some(1),
        frequency_penalty: Some(0.0),
        ..Sampling::default()
    };
    let sent = body(&Request { end_user: Some("u1".into()), ..sampled(known) });
    assert_eq!((&sent["temperature"], &sent["top_p"], &sent["top_k"]), (&json!(0.5), &json!(1), &json!(40)));
    assert_eq!((&sent["stop_sequences"], &sent["metadata"]), (&json!(["END"]), &json!({"user_id": "u1"})));
    let default = Sampling::default;
    for (param, sampling) in [
        ("n", Sampling { n: Some(2), ..default() }),
        ("logprobs", Sampling { logprobs: Some(true), ..default() }),
        ("top_logprobs", Sampling { top_logprobs: Some(2), ..default() }),
        ("seed", Sampling { seed: Some(1), ..default() }),
        ("logit_bias", Sampling { logit_bias: Some(r#"{"1":2}"#.into()), ..default() }),
        ("frequency_penalty", Sampling { frequency_penalty: Some(0.5), ..default() }),
        ("presence_penalty", Sampling { presence_penalty: Some(0.5), ..default() }),
        ("repetition_penalty", Sampling { repetition_penalty: Some(1.1), ..default() }),
        ("min_p", Sampling { min_p: Some(0.1), ..default() }),
        ("temperature", Sampling { temperature: Some(1.5), ..default() }),
        ("stop[0]", Sampling { stop: vec![" \n".into()], ..default() }),
    ] {
        let request = sampled(sampling);
        assert_eq!(refused(&request), unsupported(param));
        let (dropped, sent) = left_out(&request);
        assert_eq!(dropped, [param]);
        assert_eq!(sent, body(&hello()), "{param}");
    }
    let empty = Sampling { stop: vec![String::new()], ..default() };
    assert_eq!(refused(&sampled(empty)), invalid("stop[0]"));
    let endless = Sampling { temperature: Some(f64::NAN), ..default() };
    assert_eq!(refused(&sampled(endless)), invalid("temperature"));
}

#[test]
fn what_only_another_dialect_knows_is_refused_or_left_out() {
    let mut request = hello();
    request.extra = Some(r#"{"store":true,"stream_options":{"include_usage":true}}"#.into());
    assert_eq!(refused(&request), unsupported("store"));
    let (dropped, sent) = left_out(&request);
    assert_eq!((dropped, sent), (vec!["store".to_owned()], body(&hello())));
    let named = chat(vec![Message { name: Some("Ann".into()), ..user("Hello") }]);
    assert_eq!(refused(&named), unsupported("messages[0].name"));
    let part = chat(vec![of(Role::User, vec![Part::Other(r#"{"type":"x"}"#.into()), Part::text("a")])]);
    assert_eq!(refused(&part), unsupported("messages[0].content[0]"));
    assert_eq!(refused(&Request { tools: vec![Tool::Other("{}".into())], ..hello() }), unsupported("tools[0]"));
    let choice = Request { tools: vec![tool("f")], tool_choice: Some(ToolChoice::Other("{}".into())), ..hello() };
    assert_eq!(refused(&choice), unsupported("tool_choice"));
}

#[test]
fn no_member_stands_twice_whatever_the_unknown_members_are_called() {
    let mut request = native(vec![of(
        Role::User,
        vec![Part::Text(TextPart {
            text: "x".into(),
            cache: Some(CacheMark::default()),
            extra: Some(r#"{"type":"evil","text":"evil","cache_control":{"type":"evil"},"more":1,"more":2}"#.into()),
        })],
    )]);
    request.stream = true;
    request.extra = Some(r#"{"messages":[],"stream":false,"max_tokens":1,"max\u005ftokens":2,"x":1,"x":2}"#.into());
    let http = encode(json!({}), &request).unwrap();
    assert_eq!(
        String::from_utf8(http.body).unwrap(),
        r#"{"model":"claude-sonnet-4-5","max_tokens":4096,"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"},"more":1}]}],"stream":true,"x":1}"#
    );
}

#[test]
fn a_result_without_words_has_no_content() {
    let messages = |text| {
        vec![user("Go"), of(Role::Assistant, vec![call("t", "f", "{}")]), of(Role::Tool, vec![result("t", text)])]
    };
    let sent = body(&chat(messages("")));
    assert_eq!(sent["messages"][2]["content"], json!([{"type": "tool_result", "tool_use_id": "t"}]));
    let own = body(&native(messages("")));
    assert_eq!(own["messages"][2]["content"][0]["content"], "");
}

/// A request as its own dialect reads it.
fn native(input: Vec<Message>) -> Request {
    Request { dialect: "anthropic-messages".into(), ..chat(input) }
}

#[test]
fn a_client_of_this_api_is_passed_on_as_it_wrote() {
    let object = |text: &str| Part::Text(TextPart { text: text.into(), cache: None, extra: Some("{}".into()) });
    let mut document = media(MediaKind::Document, Some("text/plain"), MediaSource::Text("t".into()));
    document.name = Some("T".into());
    document.extra = Some(r#"{"citations":{"enabled":true},"source":{"x":1}}"#.into());
    let mut messages = vec![
        of(Role::System, vec![object("s")]),
        user("plain"),
        user(""),
        of(
            Role::Assistant,
            vec![
                Part::Reasoning(ReasoningPart { text: "hm".into(), ..ReasoningPart::default() }),
                Part::Other(r#"{"type":"server_tool_use","id":"s1","name":"web_search","input":{"q":1.50}}"#.into()),
                call("odd id!", "odd.name", "{}"),
            ],
        ),
        of(Role::User, vec![Part::Media(document), object(""), result("odd id!", "x")]),
        of(Role::System, vec![Part::text("in between")]),
        of(Role::User, vec![]),
    ];
    messages[1].extra = Some(r#"{"id":"m1"}"#.into());
    let mut request = native(messages);
    request.tools = vec![tool("odd.name"), Tool::Other(r#"{"type":"web_search_20250305","name":"web_search"}"#.into())];
    request.tool_choice = Some(ToolChoice::Auto);
    request.parallel_tool_calls = Some(true);
    request.sampling = Sampling {
        max_completion_tokens: Some(5),
        temperature: Some(1.5),
        stop: vec![" ".into()],
        ..Sampling::default()
    };
    request.reasoning = Some(Reasoning {
        effort: Some("max".into()),
        extra: Some(r#"{"type":"adaptive","display":"omitted"}"#.into()),
        ..Reasoning::default()
    });
    request.response_format = schema(OPEN, None);
    request.stream = true;
    request.end_user = Some("u".into());
    request.extra = Some(
        r#"{"service_tier":"auto","metadata":{"x":1},"tool_choice":{"y":2},"output_config":{"z":3,"format":{"w":4}},"model":"other"}"#
            .into(),
    );
    let http = encode(json!({}), &request).unwrap();
    assert_eq!((http.context, http.dropped.len()), (None, 0));
    let sent: Value = serde_json::from_slice(&http.body).unwrap();
    assert_eq!(
        sent,
        json!({
            "model": CLAUDE,
            "max_tokens": 5,
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": "plain", "id": "m1"},
                {"role": "user", "content": ""},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": 1.5}},
                    {"type": "tool_use", "id": "odd id!", "name": "odd.name", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t", "x": 1},
                        "title": "T", "citations": {"enabled": true}},
                    {"type": "text", "text": ""},
                    {"type": "tool_result", "tool_use_id": "odd id!", "content": "x"},
                ]},
                {"role": "system", "content": "in between"},
                {"role": "user", "content": []},
            ],
            "tools": [
                {"name": "odd.name", "description": "Does it",
                    "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": false, "y": 2},
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "max", "z": 3, "format": {
                "type": "json_schema", "w": 4, "schema": serde_json::from_str::<Value>(OPEN).unwrap()}},
            "metadata": {"user_id": "u", "x": 1},
            "temperature": 1.5,
            "stop_sequences": [" "],
            "stream": true,
            "service_tier": "auto",
        })
    );
    // Numbers stay as they were written.
    assert!(String::from_utf8(http.body).unwrap().contains("1.50"));
}

#[test]
fn what_is_no_json_never_reaches_the_body() {
    let part = native(vec![of(Role::User, vec![Part::Other("{".into())])]);
    assert_eq!(refused(&part), invalid("messages[0].content[0]"));
    let extra = Request { extra: Some("[]".into()), ..native(vec![user("a")]) };
    assert_eq!(refused(&extra).0, ErrorKind::InvalidRequest);
    let broken = native(vec![user("a"), of(Role::Assistant, vec![call("t", "f", r#"{"a":"#)])]);
    assert_eq!(refused(&broken), invalid("messages[1].content[0]"));
}

#[test]
fn a_description_that_the_configuration_can_check() {
    let description = Anthropic::describe();
    let schema: Value = serde_json::from_str(&description.settings_schema).unwrap();
    let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["betas", "default_max_tokens", "drop_unsupported", "headers", "structured_output", "thinking", "version"]
    );
    assert_eq!(description.operations, ["chat", "count-tokens", "models"]);
    assert_eq!(description.dialects, ["anthropic-messages"]);
}
