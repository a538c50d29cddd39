//! Requests to Ollama, rule by rule.

use serde_json::{Value, json};
use witgate_adapters::Ollama;
use witgate_model::{
    Adapter, Auth, CacheMark, CompletionPrompt, DialectJson, EmbeddingInput, EmbeddingText, Error, ErrorKind, Framing,
    FunctionTool, HeaderAuth, HttpRequest, Input, JsonSchema, MediaKind, MediaPart, MediaSource, Message, Part,
    Reasoning, ReasoningPart, Request, ResponseFormat, ResultContent, Role, Sampling, TextPart, Tool, ToolCall,
    ToolChoice, ToolResult,
};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn of(role: Role, parts: Vec<Part>) -> Message {
    Message { role, name: None, parts, extra: None }
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

/// From a client of another dialect.
fn chat(messages: Vec<Message>) -> Request {
    Request::chat("openai-chat", "llama3.2", messages)
}

fn hello() -> Request {
    chat(vec![user("Hello")])
}

/// From a client of Ollama's own dialect.
fn native(messages: Vec<Message>) -> Request {
    Request { dialect: "ollama-chat".into(), ..chat(messages) }
}

fn sampled(sampling: Sampling) -> Request {
    Request { sampling, ..hello() }
}

fn thinking(reasoning: Reasoning) -> Request {
    Request { reasoning: Some(reasoning), ..hello() }
}

fn prompt(prompt: CompletionPrompt) -> Request {
    Request::new("openai-completions", "codellama", Input::Completion(prompt))
}

fn texts(texts: &[&str], single: bool) -> Request {
    let texts = texts.iter().map(|text| EmbeddingText::Text((*text).to_owned())).collect();
    let input = EmbeddingInput { texts, single, ..EmbeddingInput::default() };
    Request::new("openai-embeddings", "all-minilm", Input::Embedding(input))
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), ..ToolCall::default() })
}

fn result(id: &str, text: &str) -> ToolResult {
    let content = vec![ResultContent::Text(TextPart { text: text.into(), ..TextPart::default() })];
    ToolResult { call_id: id.into(), content, ..ToolResult::default() }
}

fn media(kind: MediaKind, source: MediaSource) -> MediaPart {
    MediaPart { kind, mime: None, source, name: None, detail: None, cache: None, extra: None }
}

fn pixel() -> Part {
    Part::Media(media(MediaKind::Image, MediaSource::Base64(PIXEL.into())))
}

fn tool(name: &str, parameters: Option<&str>) -> FunctionTool {
    FunctionTool { name: name.into(), parameters: parameters.map(str::to_owned), ..FunctionTool::default() }
}

fn encode(settings: Value, request: &Request) -> Result<HttpRequest, Error> {
    Ollama::encode(&settings.to_string(), request.clone())
}

fn body_with(settings: Value, request: &Request) -> Value {
    let http = encode(settings, request).unwrap();
    assert_eq!(http.dropped, Vec::<String>::new());
    serde_json::from_slice(&http.body).unwrap()
}

fn body(request: &Request) -> Value {
    body_with(json!({}), request)
}

fn messages(request: &Request) -> Value {
    body(request)["messages"].clone()
}

/// The refusal: its kind and the field that it names.
fn refused(request: &Request) -> (ErrorKind, String) {
    let error = encode(json!({}), request).unwrap_err();
    assert!(error.message.len() > 20, "{error:?}");
    (error.kind, error.param.unwrap_or_default())
}

/// Refused by default; left out and listed where the settings say so: gives the body without it.
fn droppable(request: &Request, param: &str) -> Value {
    let error = encode(json!({}), request).unwrap_err();
    assert!(error.message.contains("Ollama") || error.message.contains("only"), "{}", error.message);
    assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some(param)));
    let http = encode(json!({"drop_unsupported": true}), request).unwrap();
    assert_eq!(http.dropped, [param]);
    serde_json::from_slice(&http.body).unwrap()
}

#[test]
fn a_conversation_goes_to_the_native_endpoint() {
    let http = encode(json!({"headers": {"x-team": "a"}}), &hello()).unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_slice()),
        ("POST", ["api".to_owned(), "chat".to_owned()].as_slice())
    );
    assert_eq!(http.framing, Framing::Whole);
    assert_eq!(http.context, None);
    let header = |name: &str| http.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("accept"), Some("application/json"));
    assert_eq!(header("x-team"), Some("a"));
    let auth = HeaderAuth { name: "authorization".into(), prefix: "Bearer ".into(), slot: "api_key".into() };
    assert_eq!(http.auth, Auth::Header(auth));
    assert!(!Ollama::describe().secrets[0].required);
    let expected = json!({"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}], "stream": false});
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), expected);
}

#[test]
fn a_stream_is_lines_of_json() {
    let http = encode(json!({}), &Request { stream: true, ..hello() }).unwrap();
    assert_eq!(http.framing, Framing::Ndjson);
    assert!(http.headers.contains(&("accept".into(), "application/x-ndjson".into())));
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap()["stream"], true);
}

#[test]
fn sampling_stands_under_options_and_stop_is_an_array() {
    let request = sampled(Sampling {
        temperature: Some(0.7),
        top_p: Some(0.9),
        top_k: Some(40),
        min_p: Some(0.05),
        frequency_penalty: Some(-0.5),
        presence_penalty: Some(1.0),
        repetition_penalty: Some(1.1),
        seed: Some(42),
        stop: vec!["AI assistant:".into()],
        n: Some(1),
        max_tokens: Some(42),
        ..Sampling::default()
    });
    let expected = json!({
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "frequency_penalty": -0.5, "presence_penalty": 1,
        "repeat_penalty": 1.1, "seed": 42, "stop": ["AI assistant:"], "num_predict": 42,
    });
    let body = body(&request);
    assert_eq!(body["options"], expected);
    assert_eq!(body.as_object().unwrap().len(), 4);
    let both = sampled(Sampling { max_tokens: Some(1), max_completion_tokens: Some(2), ..Sampling::default() });
    assert_eq!(self::body(&both)["options"], json!({"num_predict": 2}));
    let infinite = sampled(Sampling { temperature: Some(f64::INFINITY), ..Sampling::default() });
    assert_eq!(refused(&infinite), (ErrorKind::InvalidRequest, "temperature".into()));
}

#[test]
fn settings_fill_what_a_request_leaves_unset_and_nothing_else_does() {
    let settings = json!({
        "options": {
            "num_ctx": 4096, "repeat_last_n": 64, "repeat_penalty": 1.1, "temperature": 0.7, "seed": 42,
            "stop": ["AI assistant:"], "num_predict": 42, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        },
        "keep_alive": "10m", "think": false, "truncate": false, "shift": false,
    });
    let filled = body_with(settings.clone(), &hello());
    assert_eq!(filled["options"], settings["options"]);
    for name in ["keep_alive", "think", "truncate", "shift"] {
        assert_eq!(filled[name], settings[name], "{name}");
        assert_eq!(body(&hello()).get(name), None, "{name}");
    }
    assert_eq!(body(&hello()).get("options"), None);
    let request = Request {
        reasoning: Some(Reasoning { enabled: Some(true), ..Reasoning::default() }),
        extra: Some(r#"{"options":{"num_ctx":100,"mirostat":2},"keep_alive":-1,"truncate":true}"#.into()),
        sampling: Sampling { seed: Some(1), stop: vec!["x".into()], max_tokens: Some(5), ..Sampling::default() },
        ..native(vec![user("Hello")])
    };
    let said = body_with(settings.clone(), &request);
    let options = &said["options"];
    assert_eq!((&options["num_ctx"], &options["mirostat"], &options["seed"]), (&json!(100), &json!(2), &json!(1)));
    assert_eq!((&options["stop"], &options["num_predict"], &options["top_k"]), (&json!(["x"]), &json!(5), &json!(40)));
    assert_eq!((&said["keep_alive"], &said["truncate"], &said["think"]), (&json!(-1), &json!(true), &json!(true)));
    let embedded = body_with(settings.clone(), &texts(&["a"], true));
    assert_eq!((&embedded["options"]["num_ctx"], &embedded["truncate"]), (&json!(4096), &json!(false)));
    assert_eq!((embedded.get("think"), embedded.get("shift")), (None, None));
    let raw = prompt(CompletionPrompt { text: "a".into(), ..CompletionPrompt::default() });
    assert_eq!(body_with(settings, &raw).get("think"), None);
}

#[test]
fn every_option_of_the_environment_is_in_the_schema() {
    let schema: Value = serde_json::from_str(&Ollama::describe().settings_schema).unwrap();
    let options = &schema["properties"]["options"]["properties"];
    for name in [
        "num_ctx",
        "repeat_last_n",
        "repeat_penalty",
        "temperature",
        "seed",
        "stop",
        "num_predict",
        "top_k",
        "top_p",
        "min_p",
    ] {
        assert!(options[name]["type"].is_string(), "{name}");
    }
    for name in ["keep_alive", "think", "truncate", "shift", "drop_unsupported"] {
        assert!(schema["properties"][name].is_object(), "{name}");
    }
}

#[test]
fn settings_that_are_wrong_are_the_operators_fault() {
    for settings in [
        json!({"headers": {"authorization": "x"}}),
        json!({"headers": {"X": "x"}}),
        json!({"options": 1}),
        json!({"truncate": "x"}),
        json!(1),
    ] {
        let error = encode(settings.clone(), &hello()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Other("configuration".into()), "{settings}");
        assert!(Ollama::probe(&settings.to_string()).is_err());
    }
}

#[test]
fn roles_and_texts_become_one_string_each() {
    let request = chat(vec![
        Message::text(Role::Developer, "Be brief."),
        of(Role::User, vec![Part::text("a"), Part::text("b \"c\"")]),
        of(Role::Assistant, vec![Part::Refusal(TextPart { text: "No.".into(), ..TextPart::default() })]),
        of(Role::User, vec![]),
    ]);
    let expected = json!([
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb \"c\""},
        {"role": "assistant", "content": "No."}, {"role": "user", "content": ""},
    ]);
    assert_eq!(messages(&request), expected);
    let other = chat(vec![Message::text(Role::Other("critic".into()), "x")]);
    assert_eq!(refused(&other), (ErrorKind::Unsupported, "messages[0].role".into()));
    assert_eq!(refused(&chat(vec![])), (ErrorKind::InvalidRequest, "messages".into()));
    let named = chat(vec![Message { name: Some("ann".into()), ..user("x") }]);
    assert_eq!(droppable(&named, "messages[0].name")["messages"], json!([{"role": "user", "content": "x"}]));
}

#[test]
fn images_are_data_only() {
    let request = chat(vec![of(Role::User, vec![Part::text("What?"), pixel(), pixel()])]);
    assert_eq!(messages(&request), json!([{"role": "user", "content": "What?", "images": [PIXEL, PIXEL]}]));
    for (kind, source) in [
        (MediaKind::Image, MediaSource::Url("https://example.com/a.png".into())),
        (MediaKind::Image, MediaSource::FileId("file-1".into())),
        (MediaKind::Image, MediaSource::Other("{}".into())),
        (MediaKind::Audio, MediaSource::Base64("AAAA".into())),
        (MediaKind::Document, MediaSource::Text("text".into())),
    ] {
        let request = chat(vec![of(Role::User, vec![Part::text("What?"), Part::Media(media(kind, source))])]);
        let left = droppable(&request, "messages[0].content[1]");
        assert_eq!(left["messages"], json!([{"role": "user", "content": "What?"}]));
    }
    let closely = |detail: &str| {
        let image =
            MediaPart { detail: Some(detail.into()), ..media(MediaKind::Image, MediaSource::Base64(PIXEL.into())) };
        chat(vec![of(Role::User, vec![Part::Media(image)])])
    };
    assert_eq!(messages(&closely("auto"))[0]["images"], json!([PIXEL]));
    assert_eq!(
        droppable(&closely("high"), "messages[0].content[0].image_url.detail")["messages"][0]["images"],
        json!([PIXEL])
    );
}

#[test]
fn tool_calls_have_objects_as_arguments_and_results_the_tools_name() {
    let mut failed = result("b", "no network");
    failed.is_error = Some(true);
    let request = chat(vec![
        user("Weather?"),
        of(Role::Assistant, vec![call("a", "get_weather", r#"{"city": "Paris"}"#), call("b", "get_time", "")]),
        of(Role::User, vec![Part::ToolResult(result("a", "sunny")), Part::ToolResult(failed), Part::text("So?")]),
    ]);
    let expected = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
            {"id": "b", "function": {"name": "get_time", "arguments": {}}},
        ]},
        {"role": "tool", "content": "sunny", "tool_name": "get_weather", "tool_call_id": "a"},
        {"role": "tool", "content": "Error: no network", "tool_name": "get_time", "tool_call_id": "b"},
        {"role": "user", "content": "So?"},
    ]);
    assert_eq!(messages(&request), expected);
    assert_eq!(encode(json!({}), &request).unwrap().context.as_deref(), Some("chat 2"));
    for wrong in ["[1]", "\"{}\"", "{", "1", "null", "{}{}"] {
        let request = chat(vec![of(Role::Assistant, vec![Part::text("x"), call("a", "f", wrong)])]);
        let expected = (ErrorKind::InvalidRequest, "messages[0].content[1].arguments".to_owned());
        assert_eq!(refused(&request), expected, "{wrong}");
    }
}

#[test]
fn the_name_of_a_tools_message_is_used_where_the_conversation_tells_none() {
    let message = Message { name: Some("f".into()), ..of(Role::Tool, vec![Part::ToolResult(result("gone", "1"))]) };
    let expected = json!([{"role": "tool", "content": "1", "tool_name": "f", "tool_call_id": "gone"}]);
    assert_eq!(messages(&chat(vec![message])), expected);
}

#[test]
fn results_hold_images_and_say_when_they_failed() {
    let with_image = ToolResult {
        content: vec![
            ResultContent::Text(TextPart { text: "here".into(), ..TextPart::default() }),
            ResultContent::Media(media(MediaKind::Image, MediaSource::Base64(PIXEL.into()))),
        ],
        ..result("a", "")
    };
    let said = |result: ToolResult| messages(&chat(vec![of(Role::Tool, vec![Part::ToolResult(result)])]))[0].clone();
    assert_eq!((&said(with_image.clone())["content"], &said(with_image)["images"]), (&json!("here"), &json!([PIXEL])));
    for (text, expected) in [("ERROR: x", "ERROR: x"), ("x", "Error: x"), ("", "Error: ")] {
        let result = ToolResult { is_error: Some(true), ..result("a", text) };
        assert_eq!(said(result)["content"], expected);
    }
    let nothing = ToolResult { is_error: Some(true), content: vec![], ..result("a", "") };
    assert_eq!(said(nothing)["content"], "Error: the tool failed");
    let other = ToolResult { content: vec![ResultContent::Other("{}".into())], ..result("a", "") };
    let other = chat(vec![of(Role::Tool, vec![Part::ToolResult(other)])]);
    assert_eq!(droppable(&other, "messages[0].content[0]")["messages"][0]["content"], "");
}

#[test]
fn an_id_that_was_made_is_not_sent_and_the_next_one_is_new() {
    let request = chat(vec![
        of(Role::Assistant, vec![call("unnamed_7", "f", "{}")]),
        of(Role::Tool, vec![Part::ToolResult(result("unnamed_7", "1"))]),
    ]);
    let expected = json!([
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "1", "tool_name": "f"},
    ]);
    assert_eq!(messages(&request), expected);
    assert_eq!(encode(json!({}), &request).unwrap().context.as_deref(), Some("chat 8"));
}

#[test]
fn tools_are_functions_with_a_schema() {
    let schema = r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#;
    let full = FunctionTool { description: Some("d".into()), strict: Some(false), ..tool("f", Some(schema)) };
    let request = Request {
        tools: vec![Tool::Function(full), Tool::Function(tool("g", None))],
        tool_choice: Some(ToolChoice::Auto),
        parallel_tool_calls: Some(true),
        ..hello()
    };
    let expected = json!([
        {"type": "function", "function": {"name": "f", "description": "d",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]);
    assert_eq!(body(&request)["tools"], expected);
    assert_eq!(body(&request).get("tool_choice"), None);
    let strict = FunctionTool { strict: Some(true), ..tool("f", Some(schema)) };
    let strict = Request { tools: vec![Tool::Function(strict)], ..hello() };
    assert_eq!(droppable(&strict, "tools[0].function.strict")["tools"][0]["function"].get("strict"), None);
    let search = Request { tools: vec![Tool::Other(r#"{"type":"web_search"}"#.into())], ..hello() };
    assert_eq!(droppable(&search, "tools[0]")["tools"], json!([]));
}

#[test]
fn a_choice_of_tools_that_ollama_lacks_is_refused() {
    let with = |choice| Request { tools: vec![Tool::Function(tool("f", None))], tool_choice: Some(choice), ..hello() };
    for choice in [ToolChoice::Required, ToolChoice::Tool("f".into()), ToolChoice::Other("{}".into())] {
        let left = droppable(&with(choice), "tool_choice");
        assert_eq!(left["tools"][0]["function"]["name"], "f");
    }
    assert_eq!(body(&with(ToolChoice::None)).get("tools"), None);
    let single = Request { parallel_tool_calls: Some(false), ..with(ToolChoice::Auto) };
    assert!(droppable(&single, "parallel_tool_calls")["tools"].is_array());
}

#[test]
fn structured_output_is_the_format() {
    let with = |format| Request { response_format: Some(format), ..hello() };
    let schema = JsonSchema {
        name: Some("n".into()),
        schema: r#"{"type":"object"}"#.into(),
        strict: Some(true),
        description: None,
    };
    assert_eq!(body(&with(ResponseFormat::Text)).get("format"), None);
    assert_eq!(body(&with(ResponseFormat::JsonObject))["format"], "json");
    assert_eq!(body(&with(ResponseFormat::JsonSchema(schema.clone())))["format"], json!({"type": "object"}));
    let described = with(ResponseFormat::JsonSchema(JsonSchema { description: Some("d".into()), ..schema }));
    let left = droppable(&described, "response_format.json_schema.description");
    assert_eq!(left["format"], json!({"type": "object"}));
    assert_eq!(droppable(&with(ResponseFormat::Other("1".into())), "response_format").get("format"), None);
}

#[test]
fn reasoning_is_switched_and_measured_by_think() {
    for (enabled, effort, expected) in [
        (Some(true), None, json!(true)),
        (Some(false), None, json!(false)),
        (Some(false), Some("high"), json!(false)),
        (None, Some("none"), json!(false)),
        (None, Some("minimal"), json!("low")),
        (None, Some("low"), json!("low")),
        (Some(true), Some("medium"), json!("medium")),
        (None, Some("high"), json!("high")),
        (None, Some("xhigh"), json!("max")),
        (None, Some("max"), json!("max")),
    ] {
        let request = thinking(Reasoning { enabled, effort: effort.map(str::to_owned), ..Reasoning::default() });
        assert_eq!(body(&request)["think"], expected);
    }
    assert_eq!(body(&thinking(Reasoning::default())).get("think"), None);
    let budget = Reasoning { enabled: Some(true), budget_tokens: Some(1024), ..Reasoning::default() };
    assert_eq!(droppable(&thinking(budget), "reasoning.budget_tokens")["think"], true);
    let summary = Reasoning { summary: Some("auto".into()), ..Reasoning::default() };
    droppable(&thinking(summary), "reasoning.summary");
    let effort = Reasoning { effort: Some("enormous".into()), ..Reasoning::default() };
    assert_eq!(droppable(&thinking(effort), "reasoning.effort").get("think"), None);
    let extra = Reasoning { extra: Some(r#"{"x":1}"#.into()), ..Reasoning::default() };
    droppable(&thinking(extra), "reasoning.x");
}

#[test]
fn reasoning_of_earlier_turns_is_given_back() {
    let thought = ReasoningPart { text: "Hm.".into(), signature: Some("proof".into()), ..ReasoningPart::default() };
    let request = chat(vec![of(Role::Assistant, vec![Part::Reasoning(thought.clone()), Part::text("Yes.")])]);
    assert_eq!(messages(&request), json!([{"role": "assistant", "content": "Yes.", "thinking": "Hm."}]));
    let hidden = ReasoningPart { redacted: Some("xyz".into()), ..ReasoningPart::default() };
    let hidden = chat(vec![of(Role::Assistant, vec![Part::Reasoning(hidden), Part::text("Yes.")])]);
    let error = encode(json!({}), &hidden).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[0].content[0]"));
    let misplaced = chat(vec![of(Role::User, vec![Part::text("x"), Part::Reasoning(thought)])]);
    assert_eq!(droppable(&misplaced, "messages[0].content[1]")["messages"], json!([{"role": "user", "content": "x"}]));
    let misplaced = chat(vec![of(Role::User, vec![Part::text("x"), call("a", "f", "{}")])]);
    assert_eq!(droppable(&misplaced, "messages[0].content[1]")["messages"], json!([{"role": "user", "content": "x"}]));
}

#[test]
fn what_ollama_cannot_do_is_refused_or_listed() {
    droppable(&sampled(Sampling { n: Some(2), ..Sampling::default() }), "n");
    droppable(&sampled(Sampling { logit_bias: Some(r#"{"1":2}"#.into()), ..Sampling::default() }), "logit_bias");
    assert_eq!(body(&sampled(Sampling { logit_bias: Some("{}".into()), ..Sampling::default() })).get("options"), None);
    droppable(&Request { end_user: Some("u".into()), ..hello() }, "user");
    droppable(&Request { extra: Some(r#"{"service_tier":"flex"}"#.into()), ..hello() }, "service_tier");
    droppable(&chat(vec![of(Role::User, vec![Part::text("x"), Part::Other("{}".into())])]), "messages[0].content[1]");
    let marked =
        TextPart { text: "x".into(), extra: Some(r#"{"citations":[]}"#.into()), cache: Some(CacheMark::default()) };
    droppable(&chat(vec![of(Role::User, vec![Part::Text(marked)])]), "messages[0].content[0].citations");
    let usage = Request { extra: Some(r#"{"stream_options":{"include_usage":true}}"#.into()), ..hello() };
    assert_eq!(body(&usage).get("stream_options"), None);
    let broken = Request { extra: Some("[".into()), ..hello() };
    assert_eq!(refused(&broken).0, ErrorKind::InvalidRequest);
    let many = chat(vec![of(Role::User, vec![Part::Other("{}".into()); 100])]);
    assert_eq!(encode(json!({"drop_unsupported": true}), &many).unwrap().dropped.len(), 64);
    for input in [Input::CountTokens(vec![user("x")]), Input::Other(DialectJson::new("x", "{}"))] {
        let error = encode(json!({"drop_unsupported": true}), &Request::new("x", "m", input)).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("unsupported_operation"));
    }
}

#[test]
fn log_probabilities_are_asked_for_as_the_api_has_them() {
    let request = sampled(Sampling { logprobs: Some(true), top_logprobs: Some(3), ..Sampling::default() });
    let body = body(&request);
    assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(3)));
}

#[test]
fn a_text_to_continue_is_raw_unless_there_is_a_gap_to_fill() {
    let plain = CompletionPrompt { text: "Once".into(), ..CompletionPrompt::default() };
    let http = encode(json!({}), &prompt(plain.clone())).unwrap();
    assert_eq!(http.path, ["api", "generate"]);
    assert_eq!(http.context.as_deref(), Some("generate 0"));
    let expected = json!({"model": "codellama", "prompt": "Once", "raw": true, "stream": false});
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), expected);
    let filled = body(&prompt(CompletionPrompt { suffix: Some("end".into()), ..plain.clone() }));
    assert_eq!(filled, json!({"model": "codellama", "prompt": "Once", "suffix": "end", "stream": false}));
    droppable(&prompt(CompletionPrompt { echo: Some(true), ..plain.clone() }), "echo");
    droppable(&prompt(CompletionPrompt { best_of: Some(2), ..plain.clone() }), "best_of");
    let harmless = CompletionPrompt { echo: Some(false), best_of: Some(1), ..plain.clone() };
    assert_eq!(body(&prompt(harmless)), expected);
    droppable(&Request { tools: vec![Tool::Function(tool("f", None))], ..prompt(plain.clone()) }, "tools");
    droppable(&Request { tool_choice: Some(ToolChoice::Required), ..prompt(plain) }, "tool_choice");
}

#[test]
fn texts_are_embedded_in_their_order() {
    let http = encode(json!({}), &texts(&["a", "b"], false)).unwrap();
    assert_eq!(http.path, ["api", "embed"]);
    assert_eq!((http.context.as_deref(), http.framing), (Some("embed 2"), Framing::Whole));
    let expected = json!({"model": "all-minilm", "input": ["a", "b"]});
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), expected);
    assert_eq!(body(&texts(&["a"], true))["input"], "a");
    assert_eq!(body(&texts(&["a"], false))["input"], json!(["a"]));
    let embed = |input| Request::new("openai-embeddings", "m", Input::Embedding(input));
    let tokens = EmbeddingInput { texts: vec![EmbeddingText::Tokens(vec![1, 2])], single: true, ..Default::default() };
    assert_eq!(refused(&embed(tokens)), (ErrorKind::Unsupported, "input".into()));
    let sized = EmbeddingInput {
        texts: vec![EmbeddingText::Text("a".into())],
        dimensions: Some(64),
        encoding: Some("base64".into()),
        ..Default::default()
    };
    assert_eq!(body(&embed(sized)), json!({"model": "m", "input": ["a"], "dimensions": 64}));
    assert_eq!(refused(&texts(&[], false)), (ErrorKind::InvalidRequest, "input".into()));
    assert_eq!(refused(&texts(&["a"; 4001], false)), (ErrorKind::InvalidRequest, "input".into()));
}

#[test]
fn models_and_readiness_are_asked_without_a_body() {
    let http = encode(json!({}), &Request::new("openai-models", "", Input::Models)).unwrap();
    assert_eq!((http.method.as_str(), http.path.join("/").as_str()), ("GET", "api/tags"));
    assert_eq!((http.body.len(), http.context.as_deref()), (0, Some("tags 0")));
    let probe = Ollama::probe("{}").unwrap().unwrap();
    assert_eq!((probe.method.as_str(), probe.path.join("/").as_str()), ("GET", "api/version"));
    assert!(probe.body.is_empty());
}

#[test]
fn a_conversation_of_the_own_dialect_arrives_as_it_was_sent() {
    let first = ToolCall { extra: Some("{}".into()), ..ToolCall::default() };
    let odd = ToolCall {
        id: "call_x".into(),
        name: "g".into(),
        arguments: r#"{"a": [1.50]}"#.into(),
        extra: Some(r#"{"note":1,"function":{"index":9,"strict":true}}"#.into()),
        ..ToolCall::default()
    };
    let answered = ToolResult { extra: Some("{}".into()), ..result("call_x", "2") };
    let request = Request {
        tools: vec![
            Tool::Function(FunctionTool {
                strict: Some(true),
                extra: Some(r#"{"items":1,"function":{"deep":2}}"#.into()),
                ..tool("f", None)
            }),
            Tool::Other(r#"{"type":"web"}"#.into()),
        ],
        reasoning: Some(Reasoning { effort: Some("enormous".into()), ..Reasoning::default() }),
        sampling: Sampling { logprobs: Some(true), ..Sampling::default() },
        extra: Some(r#"{"options":{"num_ctx":2048,"num_predict":-1},"_debug_render_only":false}"#.into()),
        stream: true,
        ..native(vec![
            Message::text(Role::Developer, ""),
            Message { extra: Some(r#"{"mood":"calm"}"#.into()), ..of(Role::User, vec![pixel()]) },
            of(
                Role::Assistant,
                vec![
                    Part::ToolCall(ToolCall {
                        id: "unnamed_0".into(),
                        name: "f".into(),
                        arguments: "{}".into(),
                        ..first
                    }),
                    Part::ToolCall(odd),
                ],
            ),
            Message { name: Some("f".into()), ..of(Role::Tool, vec![Part::ToolResult(result("unnamed_0", "1"))]) },
            of(Role::Tool, vec![Part::ToolResult(answered)]),
            Message::text(Role::Other("critic".into()), "x"),
        ])
    };
    let http = encode(json!({}), &request).unwrap();
    assert_eq!(http.context.as_deref(), Some("chat 2 native"));
    let expected = json!({
        "model": "llama3.2", "stream": true, "think": "enormous", "logprobs": true, "_debug_render_only": false,
        "options": {"num_ctx": 2048, "num_predict": -1},
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "deep": 2}, "items": 1}, {"type": "web"}],
        "messages": [
            {"role": "developer", "content": ""},
            {"role": "user", "images": [PIXEL], "mood": "calm"},
            {"role": "assistant", "tool_calls": [
                {"function": {"index": 0, "name": "f", "arguments": {}}},
                {"id": "call_x", "note": 1, "function": {"index": 9, "name": "g", "arguments": {"a": [1.5]}, "strict": true}},
            ]},
            {"role": "tool", "content": "1", "tool_name": "f"},
            {"role": "tool", "content": "2", "tool_call_id": "call_x"},
            {"role": "critic", "content": "x"},
        ],
    });
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), expected);
}

#[test]
fn a_prompt_of_the_own_dialect_goes_back_to_its_endpoint() {
    let turn = vec![Message::text(Role::System, "Be brief."), of(Role::User, vec![Part::text("Hi"), pixel()])];
    let extra = Some(r#"{"context":[1,2],"template":"{{ .Prompt }}"}"#.to_owned());
    let request = Request { dialect: "ollama-generate".into(), extra, ..chat(turn) };
    let http = encode(json!({}), &request).unwrap();
    assert_eq!((http.path.join("/").as_str(), http.context.as_deref()), ("api/generate", Some("generate 0 native")));
    let expected = json!({
        "model": "llama3.2", "prompt": "Hi", "system": "Be brief.", "images": [PIXEL], "stream": false,
        "context": [1, 2], "template": "{{ .Prompt }}",
    });
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), expected);
    let gap = CompletionPrompt { text: "a".into(), suffix: Some("b".into()), ..CompletionPrompt::default() };
    let extra = Some(r#"{"raw":true,"system":"s"}"#.to_owned());
    let request = Request { dialect: "ollama-generate".into(), extra, ..prompt(gap) };
    let expected =
        json!({"model": "codellama", "prompt": "a", "suffix": "b", "raw": true, "system": "s", "stream": false});
    assert_eq!(body(&request), expected);
}

#[test]
fn texts_of_the_own_dialects_go_back_to_their_endpoints() {
    let extra = Some(r#"{"options":{"num_ctx":64},"keep_alive":"1m","truncate":false}"#.to_owned());
    let request = Request { dialect: "ollama-embed".into(), extra, ..texts(&["a"], false) };
    let expected = json!({
        "model": "all-minilm", "input": ["a"], "options": {"num_ctx": 64}, "keep_alive": "1m", "truncate": false,
    });
    assert_eq!(body(&request), expected);
    let request = Request { dialect: "ollama-embeddings".into(), ..texts(&["a"], true) };
    let http = encode(json!({"truncate": true}), &request).unwrap();
    assert_eq!(
        (http.path.join("/").as_str(), http.context.as_deref()),
        ("api/embeddings", Some("embeddings 1 native"))
    );
    assert_eq!(serde_json::from_slice::<Value>(&http.body).unwrap(), json!({"model": "all-minilm", "prompt": "a"}));
}
