//! OpenAI's own rules about names, ids and media: which adapters keep them, and what becomes of what breaks them.

use serde_json::{Value, json};
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{LlamaCpp, OpenAi};
use witgate_model::{
    Adapter, BlockKind, Decoder, Error, ErrorKind, Event, Frame, Framing, FunctionTool, HttpRequest, MediaKind,
    MediaPart, MediaSource, Message, Part, Request, ResponseHead, ResultContent, Role, SseEvent, TextPart, Tool,
    ToolCall, ToolChoice, ToolResult,
};

const ODD: &str = "fs.read/file";
const LONG_ID: &str = "toolu_vrtx_01A09q90qw90lq917835lq9_and_more_of_it";

fn encode<A: Adapter>(settings: &str, request: &Request) -> Result<HttpRequest, Error> {
    A::encode(settings, request.clone())
}

fn body(http: &HttpRequest) -> Value {
    serde_json::from_slice(&http.body).unwrap()
}

fn of(role: Role, parts: Vec<Part>) -> Message {
    Message { role, name: None, parts, extra: None }
}

fn call(id: &str, name: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: "{}".into(), ..ToolCall::default() })
}

fn result(id: &str, content: Vec<ResultContent>) -> Part {
    Part::ToolResult(ToolResult { call_id: id.into(), content, ..ToolResult::default() })
}

fn text(text: &str) -> ResultContent {
    ResultContent::Text(TextPart { text: text.into(), ..TextPart::default() })
}

fn picture() -> MediaPart {
    MediaPart {
        kind: MediaKind::Image,
        mime: Some("image/png".into()),
        source: MediaSource::Base64("iVBORw0KGgo=".into()),
        name: None,
        detail: None,
        cache: None,
        extra: None,
    }
}

/// A tool with an odd name, called before under a long id, and demanded again.
fn odd(dialect: &str) -> Request {
    let mut request = Request::chat(
        dialect,
        "m",
        vec![
            Message::text(Role::User, "Read."),
            of(Role::Assistant, vec![call(LONG_ID, ODD)]),
            of(Role::Tool, vec![result(LONG_ID, vec![text("Read.")])]),
        ],
    );
    request.tools = [ODD, "plain"]
        .map(|name| Tool::Function(FunctionTool { name: name.into(), ..FunctionTool::default() }))
        .to_vec();
    request.tool_choice = Some(ToolChoice::Tool(ODD.into()));
    request
}

fn fits(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// What the decoder tells of an answer that calls the tool by this name: streamed, and whole.
fn called<A: Adapter>(settings: &str, http: &HttpRequest, stream: bool, answer: &Value) -> Vec<String> {
    let framing = if stream { Framing::Sse } else { Framing::Whole };
    let head = ResponseHead { status: 200, headers: Vec::new(), framing, stream };
    let mut decoder = A::decoder(settings, http.context.clone(), head);
    let data = answer.to_string();
    let mut events = decoder.feed(vec![match stream {
        true => Frame::Sse(SseEvent { event: None, data, id: None }),
        false => Frame::Bytes(data.into_bytes()),
    }]);
    events.append(&mut decoder.finish());
    let name = |event: Event| match event {
        Event::BlockStart(start) => match start.kind {
            BlockKind::ToolCall(call) => Some(call.name),
            _ => None,
        },
        _ => None,
    };
    events.into_iter().filter_map(name).collect()
}

/// Calls of a mapped tool and of another one, in Chat Completions.
fn chat_answer(member: &str, mapped: &str) -> Value {
    let call = |index: usize, name: &str| json!({"index": index, "id": format!("call_{index}"), "type": "function", "function": {"name": name, "arguments": "{}"}});
    json!({"id": "c", "choices": [{"index": 0, member: {"tool_calls": [call(0, mapped), call(1, "plain")]}, "finish_reason": "tool_calls"}]})
}

#[test]
fn names_that_openai_refuses_are_mapped_and_the_client_is_told_its_own() {
    let bedrock = r#"{"region":"us-east-1","api":"openai"}"#;
    let check = |http: HttpRequest, called: &dyn Fn(&HttpRequest, bool, &Value) -> Vec<String>| {
        let sent = body(&http);
        let name = sent["tools"][0]["function"]["name"].as_str().unwrap().to_owned();
        assert!(fits(&name, 64) && name.starts_with("fs_read_file_"), "{name}");
        assert_eq!(sent["tools"][1]["function"]["name"], "plain");
        assert_eq!(sent["tool_choice"]["function"]["name"], json!(name));
        let call = &sent["messages"][1]["tool_calls"][0];
        assert_eq!(call["function"]["name"], json!(name));
        let id = call["id"].as_str().unwrap();
        assert!(fits(id, 40), "{id}");
        assert_eq!(sent["messages"][2]["tool_call_id"], json!(id));
        for (stream, member) in [(true, "delta"), (false, "message")] {
            assert_eq!(called(&http, stream, &chat_answer(member, &name)), [ODD, "plain"]);
        }
    };
    check(encode::<OpenAi>("{}", &odd("anthropic-messages")).unwrap(), &|http, stream, answer| {
        called::<OpenAi>("{}", http, stream, answer)
    });
    // A client of OpenAI's own is passed on as it wrote, unless the server is known to refuse it.
    check(encode::<OpenAi>(r#"{"strict":true}"#, &odd("openai-chat")).unwrap(), &|http, stream, answer| {
        called::<OpenAi>("{}", http, stream, answer)
    });
    let oss = Request { model: "openai.gpt-oss-120b-1:0".into(), ..odd("anthropic-messages") };
    check(encode::<Bedrock>(bedrock, &oss).unwrap(), &|http, stream, answer| {
        called::<Bedrock>(bedrock, http, stream, answer)
    });
}

#[test]
fn responses_takes_longer_ids_and_gets_its_names_mapped_too() {
    const SETTINGS: &str = r#"{"api":"responses"}"#;
    let http = encode::<OpenAi>(SETTINGS, &odd("anthropic-messages")).unwrap();
    let sent = body(&http);
    let name = sent["tools"][0]["name"].as_str().unwrap();
    assert!(fits(name, 64), "{name}");
    assert_eq!((&sent["tool_choice"]["name"], &sent["input"][1]["name"]), (&json!(name), &json!(name)));
    assert_eq!((&sent["input"][1]["call_id"], &sent["input"][2]["call_id"]), (&json!(LONG_ID), &json!(LONG_ID)));
    let answer = json!({"id": "r", "status": "completed", "output": [
        {"type": "function_call", "call_id": "call_1", "name": name, "arguments": "{}"},
    ]});
    assert_eq!(called::<OpenAi>(SETTINGS, &http, false, &answer), [ODD]);
    let longer = format!("{LONG_ID}{LONG_ID}");
    let messages = vec![of(Role::Assistant, vec![call(&longer, "f")]), of(Role::Tool, vec![result(&longer, vec![])])];
    let sent = body(&encode::<OpenAi>(SETTINGS, &Request::chat("anthropic-messages", "m", messages)).unwrap());
    let id = sent["input"][0]["call_id"].as_str().unwrap();
    assert!(fits(id, 64), "{id}");
    assert_eq!(sent["input"][1]["call_id"], json!(id));
    let native = body(&encode::<OpenAi>(SETTINGS, &odd("openai-responses")).unwrap());
    assert_eq!(native["tools"][0]["name"], ODD);
}

#[test]
fn servers_that_take_any_name_get_the_clients_own() {
    let sagemaker = r#"{"region":"eu-west-1","endpoint_name":"e","codec":"vllm"}"#;
    for http in [
        encode::<LlamaCpp>("{}", &odd("anthropic-messages")),
        encode::<SageMaker>(sagemaker, &odd("anthropic-messages")),
        encode::<OpenAi>("{}", &odd("openai-chat")),
    ] {
        let sent = body(&http.unwrap());
        assert_eq!(sent["tools"][0]["function"]["name"], ODD);
        assert_eq!(sent["messages"][1]["tool_calls"][0]["id"], LONG_ID);
        assert_eq!(sent["messages"][2]["tool_call_id"], LONG_ID);
    }
}

#[test]
fn more_mapped_names_than_the_decoder_can_be_told_are_refused() {
    let mut request = odd("anthropic-messages");
    let tool =
        |n: usize| Tool::Function(FunctionTool { name: format!("{n}.{}", "x".repeat(64)), ..Default::default() });
    request.tools = (0..600).map(tool).collect();
    request.tool_choice = None;
    let error = encode::<OpenAi>("{}", &request).unwrap_err();
    assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::InvalidRequest, Some("tools")));
}

#[test]
fn media_in_messages_of_tools_go_in_a_message_of_the_user_where_the_api_takes_text_there() {
    let answered = |dialect: &str, content| {
        let messages = vec![of(Role::Assistant, vec![call("c", "f")]), of(Role::Tool, vec![result("c", content)])];
        Request::chat(dialect, "m", messages)
    };
    let shown = |dialect: &str| answered(dialect, vec![text("See:"), ResultContent::Media(picture())]);
    for (settings, dialect) in [("{}", "anthropic-messages"), (r#"{"strict":true}"#, "openai-chat")] {
        let http = encode::<OpenAi>(settings, &shown(dialect)).unwrap();
        assert!(http.dropped.is_empty());
        let messages = &body(&http)["messages"];
        assert_eq!((&messages[1]["role"], &messages[1]["content"]), (&json!("tool"), &json!("See:")));
        assert_eq!(messages[2]["role"], "user");
        assert_eq!(messages[2]["content"][0]["text"], "The result of the tool call c has this content:");
        assert_eq!(messages[2]["content"][1]["type"], "image_url");
    }
    let alone = answered("anthropic-messages", vec![ResultContent::Media(picture())]);
    let http = encode::<OpenAi>("{}", &alone).unwrap();
    assert_eq!(body(&http)["messages"][1]["content"], "its content is in the next message of the user");
    // Responses takes them, llama.cpp's server and vLLM do, and a client of OpenAI's own may know a server that does.
    let sagemaker = r#"{"region":"eu-west-1","endpoint_name":"e","codec":"vllm"}"#;
    for http in [
        encode::<OpenAi>("{}", &shown("openai-chat")),
        encode::<LlamaCpp>("{}", &shown("anthropic-messages")),
        encode::<SageMaker>(sagemaker, &shown("anthropic-messages")),
    ] {
        assert_eq!(body(&http.unwrap())["messages"][1]["content"][1]["type"], "image_url");
    }
    let http = encode::<OpenAi>(r#"{"api":"responses"}"#, &shown("anthropic-messages")).unwrap();
    assert_eq!(body(&http)["input"][1]["output"][1]["type"], "input_image");
}

#[test]
fn media_of_the_assistant_or_the_system_are_refused_alike() {
    for role in [Role::System, Role::Assistant] {
        let message = of(role.clone(), vec![Part::text("See:"), Part::Media(picture())]);
        let request = Request::chat("ollama-chat", "m", vec![Message::text(Role::User, "x"), message]);
        let error = encode::<OpenAi>("{}", &request).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some("messages[1].content[1]")));
        let http = encode::<OpenAi>(r#"{"drop_unsupported":true}"#, &request).unwrap();
        assert_eq!(
            (http.dropped.as_slice(), &body(&http)["messages"][1]["content"]),
            (&["messages[1].content[1]".to_owned()][..], &json!("See:"))
        );
        assert!(encode::<LlamaCpp>("{}", &request).is_ok());
    }
}

#[test]
fn a_refusal_names_the_backend() {
    let mut requests = Vec::new();
    let change = |change: fn(&mut Request)| {
        let mut request = Request::chat("anthropic-messages", "m", vec![Message::text(Role::User, "x")]);
        change(&mut request);
        request
    };
    requests.push(change(|request| request.extra = Some(r#"{"container":"c"}"#.into())));
    requests.push(change(|request| request.tools = vec![Tool::Other("{}".into())]));
    requests.push(change(|request| request.tool_choice = Some(ToolChoice::Other("{}".into()))));
    requests.push(change(|request| {
        request.reasoning = Some(witgate_model::Reasoning { summary: Some("auto".into()), ..Default::default() });
    }));
    requests.push(Request::chat("anthropic-messages", "m", vec![of(Role::User, vec![Part::Other("{}".into())])]));
    let odd = MediaPart { kind: MediaKind::Other("hologram".into()), ..picture() };
    requests.push(Request::chat("anthropic-messages", "m", vec![of(Role::User, vec![Part::Media(odd)])]));
    requests.push(Request::chat("anthropic-messages", "m", vec![of(Role::User, vec![call("c", "f")])]));
    let bedrock = r#"{"region":"us-east-1","api":"openai"}"#;
    let sagemaker = r#"{"region":"eu-west-1","endpoint_name":"e","codec":"vllm"}"#;
    for request in requests {
        let oss = Request { model: "openai.gpt-oss-120b-1:0".into(), ..request.clone() };
        for (backend, result) in [
            ("OpenAI's API", encode::<OpenAi>("{}", &request)),
            ("llama.cpp", encode::<LlamaCpp>("{}", &request)),
            ("Bedrock", encode::<Bedrock>(bedrock, &oss)),
            ("SageMaker", encode::<SageMaker>(sagemaker, &request)),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported, "{backend}: {error:?}");
            assert!(error.message.contains(backend), "{backend}: {}", error.message);
        }
    }
}

#[test]
fn unknown_members_stand_in_front_of_the_text_that_they_came_with() {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Sse, stream: true };
    let mut decoder = OpenAi::decoder("{}", None, head);
    let chunk = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi", "odd": 1}, "even": 2}]});
    let events = decoder.feed(vec![Frame::Sse(SseEvent { event: None, data: chunk.to_string(), id: None })]);
    let text = events.iter().position(|event| matches!(event, Event::Text(_))).unwrap();
    let others = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Other(_)));
    let places: Vec<usize> = others.map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2);
    assert!(places.iter().all(|at| *at < text), "{events:?}");
}

#[test]
fn what_we_tell_a_client_of_reasoning_our_own_adapter_reads_back() {
    let delta = |index, text: &str| witgate_model::BlockDelta { index, text: text.into(), logprobs: None };
    let start = |index| Event::BlockStart(witgate_model::BlockStart { index, choice: 0, kind: BlockKind::Reasoning });
    let started = witgate_model::Started { id: Some("chatcmpl-1".into()), model: Some("m".into()), created: Some(7) };
    let events = vec![
        Event::Started(started),
        start(0),
        Event::Reasoning(delta(0, "Hm.")),
        Event::Signature(delta(0, "c2ln")),
        Event::BlockStop(0),
        start(1),
        Event::Redacted(delta(1, "ZW5j")),
        Event::BlockStop(1),
        Event::text_start(2, 0),
        Event::text(2, "4"),
        Event::BlockStop(2),
        Event::finish(0, witgate_model::FinishReason::Stop, Some("stop".into())),
        Event::Done,
    ];
    for stream in [true, false] {
        let body = format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"x"}}]}}"#);
        let limits = witgate_dialects::default_limits();
        let parsed = witgate_dialects::parse("openai-chat", "/v1/chat/completions", &limits, body.as_bytes()).unwrap();
        let start = witgate_model::normaliser::AnswerStart {
            render: parsed.render,
            id: "1".into(),
            created: 7,
            model: "m".into(),
        };
        let bytes = witgate_dialects::Renderer::new("openai-chat", start).feed(events.clone());
        let framing = if stream { Framing::Sse } else { Framing::Whole };
        let head = ResponseHead { status: 200, headers: Vec::new(), framing: framing.clone(), stream };
        let mut framer = witgate_framing::Framer::new(&framing, witgate_framing::Limits::default()).unwrap();
        let mut frames = Vec::new();
        framer.push(&bytes, &mut frames).unwrap();
        framer.finish(&mut frames).unwrap();
        let mut decoder = OpenAi::decoder("{}", None, head);
        let mut told = decoder.feed(frames);
        if !told.last().is_some_and(Event::is_last) {
            told.append(&mut decoder.finish());
        }
        told.retain(|event| !matches!(event, Event::Usage(_) | Event::Other(_)));
        assert_eq!(told, events, "stream: {stream}");
    }
}
