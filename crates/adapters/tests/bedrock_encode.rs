//! Requests to Bedrock, rule by rule: first those of Converse, then those of the other APIs.
//!
//! Requests that go through [`kept`] are also kept in `tests/fixtures/upstream/bedrock/requests`, where
//! `check_requests.py` holds them against AWS's own model. `WITGATE_UPDATE=1` writes them anew.

use std::path::PathBuf;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use witgate_adapters::bedrock::Bedrock;
use witgate_model::{
    Adapter, Auth, AwsSigv4Auth, CacheMark, CompletionPrompt, DialectJson, EmbeddingInput, EmbeddingText, Error,
    ErrorKind, Framing, FunctionTool, HeaderAuth, HttpRequest, Input, JsonSchema, MediaKind, MediaPart, MediaSource,
    Message, Part, Reasoning, ReasoningPart, Request, ResponseFormat, ResultContent, Retry, Role, Sampling, TextPart,
    Tool, ToolCall, ToolChoice, ToolResult,
};

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

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

fn sampled(sampling: Sampling) -> Request {
    Request { sampling, ..hello() }
}

fn encode(settings: Value, request: &Request) -> Result<HttpRequest, Error> {
    Bedrock::encode(&settings.to_string(), request.clone())
}

fn body(settings: Value, request: &Request) -> Value {
    serde_json::from_slice(&encode(settings, request).unwrap().body).unwrap()
}

/// The refusal: its kind and the field that it names. The message must not be empty.
fn refused(settings: Value, request: &Request) -> (ErrorKind, String) {
    let error = encode(settings, request).unwrap_err();
    assert!(error.message.len() > 20, "{error:?}");
    (error.kind, error.param.unwrap_or_default())
}

fn unsupported(param: &str) -> (ErrorKind, String) {
    (ErrorKind::Unsupported, param.to_owned())
}

fn invalid(param: &str) -> (ErrorKind, String) {
    (ErrorKind::InvalidRequest, param.to_owned())
}

/// Refused by default, and left out and listed where the settings say so: gives the body without it.
fn droppable(request: &Request, param: &str) -> Value {
    assert_eq!(refused(json!({}), request), unsupported(param));
    assert!(encode(json!({}), &hello()).unwrap().dropped.is_empty());
    let http = encode(json!({"drop_unsupported": true}), request).unwrap();
    assert_eq!(http.dropped, [param]);
    serde_json::from_slice(&http.body).unwrap()
}

/// Encodes, and compares with the request that is kept under this name.
fn kept(name: &str, settings: Value, request: &Request) -> Value {
    let http = encode(settings, request).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/upstream/bedrock/requests");
    let body: &RawValue = serde_json::from_slice(&http.body).unwrap();
    let text = format!(
        "{{\"path\":{},\"headers\":{},\"context\":{},\n\"body\":{}}}\n",
        serde_json::to_string(&http.path).unwrap(),
        serde_json::to_string(&http.headers).unwrap(),
        serde_json::to_string(&http.context).unwrap(),
        body.get()
    );
    let path = folder.join(format!("{name}.json"));
    if std::env::var_os("WITGATE_UPDATE").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{name}");
    serde_json::from_str(body.get()).unwrap()
}

fn image(source: MediaSource, mime: Option<&str>) -> Part {
    media(MediaKind::Image, source, mime, None)
}

fn media(kind: MediaKind, source: MediaSource, mime: Option<&str>, name: Option<&str>) -> Part {
    Part::Media(MediaPart {
        kind,
        mime: mime.map(str::to_owned),
        source,
        name: name.map(str::to_owned),
        detail: None,
        cache: None,
        extra: None,
    })
}

fn pixel() -> Part {
    image(MediaSource::Base64(PIXEL.to_owned()), Some("image/png"))
}

fn document(name: &str) -> Part {
    media(MediaKind::Document, MediaSource::Base64("JVBERi0=".to_owned()), Some("application/pdf"), Some(name))
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), ..ToolCall::default() })
}

fn result(id: &str, text: &str) -> Part {
    let text = ResultContent::Text(TextPart { text: text.to_owned(), ..TextPart::default() });
    Part::ToolResult(ToolResult { call_id: id.to_owned(), content: vec![text], ..ToolResult::default() })
}

fn tool(name: &str) -> Tool {
    Tool::Function(FunctionTool {
        name: name.to_owned(),
        description: Some("Tells the weather".to_owned()),
        parameters: Some(r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"number"}}}"#.to_owned()),
        ..FunctionTool::default()
    })
}

fn cached(text: &str, ttl: Option<&str>) -> Part {
    let cache = Some(CacheMark { ttl: ttl.map(str::to_owned) });
    Part::Text(TextPart { text: text.to_owned(), cache, extra: None })
}

// --- the request as HTTP ---

#[test]
fn the_two_operations_have_their_paths_and_framings() {
    let http = encode(json!({}), &hello()).unwrap();
    assert_eq!((http.method.as_str(), http.path), ("POST", vec!["model".into(), CLAUDE.to_owned(), "converse".into()]));
    assert_eq!(http.framing, Framing::Whole);
    let http = encode(json!({}), &Request { stream: true, ..hello() }).unwrap();
    assert_eq!(http.path[2], "converse-stream");
    assert_eq!(http.framing, Framing::AwsEventstream);
    assert!(http.headers.contains(&("content-type".to_owned(), "application/json".to_owned())));
    assert!(http.headers.iter().all(|(name, _)| matches!(name.as_str(), "content-type" | "accept")));
    assert!(http.query.is_empty() && http.context.is_none());
}

#[test]
fn requests_are_signed_for_bedrock_or_carry_a_bearer_key() {
    let sigv4 = Auth::AwsSigv4(AwsSigv4Auth { service: "bedrock".to_owned(), slot: "aws".to_owned(), region: None });
    assert_eq!(encode(json!({}), &hello()).unwrap().auth, sigv4);
    assert_eq!(encode(json!({"auth": "sigv4"}), &hello()).unwrap().auth, sigv4);
    let bearer =
        HeaderAuth { name: "authorization".to_owned(), prefix: "Bearer ".to_owned(), slot: "api_key".to_owned() };
    assert_eq!(encode(json!({"auth": "bearer"}), &hello()).unwrap().auth, Auth::Header(bearer));
    let slots: Vec<_> = Bedrock::describe().secrets.into_iter().map(|slot| slot.name).collect();
    assert_eq!(slots, ["aws", "api_key"]);
}

#[test]
fn a_model_id_is_one_segment_as_it_is() {
    let arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3";
    let request = Request { model: arn.to_owned(), ..hello() };
    assert_eq!(encode(json!({"region": "eu-west-1"}), &request).unwrap().path[1], arn);
    kept("arn", json!({}), &Request { stream: true, ..request });
    for wrong in ["", "..", "a?b", "a#b", "a%2e", "a b", "a\n", "ü", &"x".repeat(2049)] {
        let request = Request { model: wrong.to_owned(), ..hello() };
        assert_eq!(refused(json!({}), &request), invalid("model"), "{wrong:?}");
    }
}

#[test]
fn a_request_is_signed_for_the_region_of_its_arn() {
    let request = |region: &str| {
        let model = format!("arn:aws:bedrock:{region}::foundation-model/amazon.nova-lite-v1:0");
        Request { model, ..hello() }
    };
    let signed_for = |settings: Value, region: &str| match encode(settings, &request(region)).unwrap().auth {
        Auth::AwsSigv4(auth) => auth.region,
        other => panic!("{other:?}"),
    };
    assert_eq!(signed_for(json!({"region": "us-east-1"}), "us-west-2").as_deref(), Some("us-west-2"));
    assert_eq!(signed_for(json!({}), "us-gov-west-1").as_deref(), Some("us-gov-west-1"));
    assert_eq!(signed_for(json!({"region": "us-east-1"}), ""), None);
    // A key opens one region, the provider's.
    let bearer = json!({"region": "us-east-1", "auth": "bearer"});
    assert_eq!(refused(bearer.clone(), &request("us-west-2")), invalid("model"));
    assert!(encode(bearer, &request("us-east-1")).is_ok());
    assert_eq!(refused(json!({}), &request("a/b")), invalid("model"));
}

#[test]
fn bare_model_ids_get_the_inference_profile_of_the_settings() {
    let path = |model: &str| {
        let request = Request { model: model.to_owned(), ..hello() };
        encode(json!({"inference_profile": "eu"}), &request).unwrap().path[1].clone()
    };
    assert_eq!(path("anthropic.claude-3-haiku-20240307-v1:0"), "eu.anthropic.claude-3-haiku-20240307-v1:0");
    assert_eq!(path("eu.amazon.nova-lite-v1:0"), "eu.amazon.nova-lite-v1:0");
    for prefix in ["us", "apac", "global"] {
        assert_eq!(path(&format!("{prefix}.amazon.nova-lite-v1:0")), format!("{prefix}.amazon.nova-lite-v1:0"));
    }
    let arn = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0";
    assert_eq!(path(arn), arn);
}

// --- the conversation ---

#[test]
fn system_messages_go_to_the_top_level_wherever_they_stand() {
    let messages = vec![
        Message::text(Role::System, "Be brief."),
        user("Hi"),
        assistant("Hello"),
        Message::text(Role::Developer, "Be kind."),
        user("And?"),
    ];
    let body = kept("system", json!({}), &chat(messages));
    assert_eq!(body["system"], json!([{"text": "Be brief."}, {"text": "Be kind."}]));
    assert_eq!(body["messages"].as_array().unwrap().len(), 3);
    let images = chat(vec![of(Role::System, vec![pixel()]), user("Hi")]);
    assert_eq!(refused(json!({}), &images), unsupported("messages[0].content[0]"));
}

#[test]
fn consecutive_turns_of_one_role_are_merged() {
    let messages = vec![user("a"), user("b"), assistant("c"), assistant("d"), user("e")];
    let body = kept("merged", json!({}), &chat(messages));
    let wanted = json!([
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "content": [{"text": "e"}]},
    ]);
    assert_eq!(body["messages"], wanted);
}

#[test]
fn the_first_turn_is_the_users() {
    let request = chat(vec![Message::text(Role::System, "s"), assistant("Welcome"), user("Hi")]);
    let body = droppable(&request, "messages[1].role");
    assert_eq!(body["messages"], json!([{"role": "user", "content": [{"text": "Hi"}]}]));
    // A call cannot be left out: its result would hang in the air.
    let request = chat(vec![of(Role::Assistant, vec![call("1", "f", "{}")]), of(Role::Tool, vec![result("1", "x")])]);
    assert_eq!(refused(json!({"drop_unsupported": true}), &request), unsupported("messages[0].role"));
    for messages in [vec![], vec![Message::text(Role::System, "s")], vec![assistant("")]] {
        assert_eq!(refused(json!({"drop_unsupported": true}), &chat(messages)), invalid("messages"));
    }
}

#[test]
fn empty_text_is_left_out_and_an_empty_message_of_the_user_refused() {
    assert_eq!(refused(json!({}), &chat(vec![user("")])), invalid("messages[0].content"));
    assert_eq!(refused(json!({}), &chat(vec![of(Role::User, vec![])])), invalid("messages[0].content"));
    let messages = vec![
        Message::text(Role::System, ""),
        of(Role::User, vec![Part::text(""), Part::text("Hi")]),
        assistant(""),
        user(" "),
    ];
    let body = body(json!({}), &chat(messages));
    assert_eq!(body, json!({"messages": [{"role": "user", "content": [{"text": "Hi"}, {"text": " "}]}]}));
}

#[test]
fn unknown_roles_and_names_of_speakers_are_refused() {
    let request = chat(vec![user("Hi"), Message::text(Role::Other("critic".to_owned()), "No")]);
    assert_eq!(refused(json!({}), &request), unsupported("messages[1].role"));
    let request = chat(vec![Message { name: Some("ann".to_owned()), ..user("Hi") }]);
    assert_eq!(
        droppable(&request, "messages[0].name"),
        json!({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]})
    );
}

#[test]
fn parts_stand_in_the_turns_that_they_belong_to() {
    let at = |role: Role, part: Part| chat(vec![user("Hi"), of(role, vec![part])]);
    assert_eq!(refused(json!({}), &at(Role::User, call("1", "f", "{}"))), invalid("messages[1].content[0]"));
    assert_eq!(refused(json!({}), &at(Role::Assistant, result("1", "x"))), invalid("messages[1].content[0]"));
    assert_eq!(refused(json!({}), &at(Role::Assistant, pixel())), unsupported("messages[1].content[0]"));
    let thought = Part::Reasoning(ReasoningPart { text: "hm".to_owned(), ..ReasoningPart::default() });
    assert_eq!(refused(json!({}), &at(Role::User, thought)), invalid("messages[1].content[0]"));
    let declined = at(Role::Assistant, Part::Refusal(TextPart { text: "No.".to_owned(), ..TextPart::default() }));
    assert_eq!(body(json!({}), &declined)["messages"][1]["content"], json!([{"text": "No."}]));
}

#[test]
fn plain_text_to_continue_is_refused() {
    let request = Request::completion("openai-completions", CLAUDE, "Once");
    assert_eq!(refused(json!({}), &request), unsupported("prompt"));
}

// --- media ---

#[test]
fn images_are_base64_with_their_format() {
    let formats = [
        ("image/png", "png"),
        ("image/jpeg", "jpeg"),
        ("IMAGE/JPG", "jpeg"),
        ("image/gif", "gif"),
        ("image/webp", "webp"),
    ];
    for (mime, format) in formats {
        let part = image(MediaSource::Base64(PIXEL.to_owned()), Some(mime));
        let body = body(json!({}), &chat(vec![of(Role::User, vec![part])]));
        let wanted = json!([{"image": {"format": format, "source": {"bytes": PIXEL}}}]);
        assert_eq!(body["messages"][0]["content"], wanted);
    }
    let told_by_its_bytes = chat(vec![of(Role::User, vec![image(MediaSource::Base64(PIXEL.to_owned()), None)])]);
    assert_eq!(body(json!({}), &told_by_its_bytes)["messages"][0]["content"][0]["image"]["format"], "png");
    for (data, mime) in [(PIXEL, Some("image/bmp")), ("QUJD", None)] {
        let request = chat(vec![of(Role::User, vec![image(MediaSource::Base64(data.to_owned()), mime)])]);
        assert_eq!(refused(json!({}), &request), unsupported("messages[0].content[0]"));
    }
    for data in ["", "not base64!", "QUJ"] {
        let request = chat(vec![of(Role::User, vec![image(MediaSource::Base64(data.to_owned()), Some("image/png"))])]);
        assert_eq!(refused(json!({}), &request), invalid("messages[0].content[0]"), "{data:?}");
    }
}

#[test]
fn urls_are_refused_and_s3_addresses_taken() {
    for source in [
        MediaSource::Url("https://example.com/a.png".to_owned()),
        MediaSource::Url("data:image/png;base64,QUJD".to_owned()),
        MediaSource::FileId("file-1".to_owned()),
        MediaSource::Other("{}".to_owned()),
    ] {
        let request = chat(vec![user("See"), of(Role::User, vec![Part::text("x"), image(source, Some("image/png"))])]);
        assert_eq!(refused(json!({}), &request), unsupported("messages[1].content[1]"));
    }
    for source in [MediaSource::Url("https://example.com/a.png".to_owned()), MediaSource::FileId("file-1".to_owned())] {
        let part = image(source, Some("image/png"));
        for request in [
            chat(vec![of(Role::User, vec![Part::text("See"), part.clone()])]),
            Request { model: CLAUDE.to_owned(), ..chat(vec![of(Role::User, vec![Part::text("See"), part.clone()])]) },
        ] {
            let body = droppable(&request, "messages[0].content[1]");
            assert_eq!(body["messages"][0]["content"], json!([{"text": "See"}]));
            let invoked = encode(json!({"api": "invoke", "drop_unsupported": true}), &to(CLAUDE, &request)).unwrap();
            assert_eq!(invoked.dropped, ["messages[0].content[1]"]);
            let body: Value = serde_json::from_slice(&invoked.body).unwrap();
            assert_eq!(body["messages"][0]["content"], json!([{"type": "text", "text": "See"}]));
        }
        // An answer about nothing is no answer.
        let alone = chat(vec![of(Role::User, vec![part])]);
        assert_eq!(refused(json!({"drop_unsupported": true}), &alone), invalid("messages[0].content"));
    }
    // So is a format that Converse lacks.
    let bitmap = image(MediaSource::Base64("Qk0=".to_owned()), Some("image/bmp"));
    let body = droppable(&chat(vec![of(Role::User, vec![Part::text("See"), bitmap])]), "messages[0].content[1]");
    assert_eq!(body["messages"][0]["content"], json!([{"text": "See"}]));
    let s3 = |name: &str| MediaSource::Url(format!("s3://bucket-of-mine/{name}"));
    let parts = vec![
        Part::text("See"),
        image(s3("a.webp"), None),
        media(MediaKind::Video, s3("a.mp4"), None, None),
        media(MediaKind::Audio, MediaSource::Base64("SUQz".to_owned()), Some("audio/mpeg"), None),
    ];
    let body = kept("s3", json!({}), &chat(vec![of(Role::User, parts)]));
    let wanted = json!({"format": "webp", "source": {"s3Location": {"uri": "s3://bucket-of-mine/a.webp"}}});
    assert_eq!(body["messages"][0]["content"][1]["image"], wanted);
    assert_eq!(body["messages"][0]["content"][2]["video"]["format"], "mp4");
}

#[test]
fn an_image_has_at_most_three_and_three_quarters_megabytes() {
    let of_size = |bytes: usize| {
        let data = "A".repeat(bytes / 3 * 4) + ["", "AA==", "AAA="][bytes % 3];
        chat(vec![of(Role::User, vec![image(MediaSource::Base64(data), Some("image/png"))])])
    };
    assert!(encode(json!({}), &of_size(3_932_160)).is_ok());
    let error = encode(json!({}), &of_size(3_932_161)).unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::TooLarge, Retry::OtherTarget));
    assert!(error.message.contains("3.75 MB") && error.message.contains("3932161"), "{}", error.message);
}

#[test]
fn a_message_holds_at_most_twenty_images() {
    let with = |count: usize| chat(vec![of(Role::User, vec![pixel(); count - 1]), of(Role::User, vec![pixel()])]);
    assert!(encode(json!({}), &with(20)).is_ok());
    assert_eq!(refused(json!({}), &with(21)), invalid("messages[0].content"));
    // Of one message: AWS's model counts so.
    let two = chat(vec![of(Role::User, vec![pixel(); 20]), assistant("Many"), of(Role::User, vec![pixel(); 20])]);
    assert!(encode(json!({}), &two).is_ok());
}

#[test]
fn documents_have_a_format_a_name_and_text_beside_them() {
    let parts = vec![
        Part::text("Read"),
        document("q3_report.final.pdf"),
        document("q3 report final.pdf"),
        media(MediaKind::Document, MediaSource::Base64("YSxi".to_owned()), None, Some("table.CSV")),
        media(MediaKind::Document, MediaSource::Base64("aGk=".to_owned()), Some("text/plain; charset=utf-8"), None),
    ];
    let body = kept("documents", json!({}), &chat(vec![of(Role::User, parts)]));
    let names: Vec<_> = body["messages"][0]["content"].as_array().unwrap()[1..]
        .iter()
        .map(|block| (block["document"]["name"].as_str().unwrap(), block["document"]["format"].as_str().unwrap()))
        .collect();
    let wanted = [("q3 report final", "pdf"), ("q3 report final (2)", "pdf"), ("table", "csv"), ("document 4", "txt")];
    assert_eq!(names, wanted);
    assert_eq!(
        refused(json!({}), &chat(vec![of(Role::User, vec![document("a.pdf")])])),
        invalid("messages[0].content")
    );
}

#[test]
fn plain_text_is_a_document_too() {
    let text = |text: &str, mime| {
        let part = media(MediaKind::Document, MediaSource::Text(text.to_owned()), mime, Some("notes.md"));
        chat(vec![of(Role::User, vec![part, Part::text("Read.")])])
    };
    let body = kept("document-text", json!({}), &text("All of it", None));
    let wanted = json!({"format": "txt", "name": "notes", "source": {"text": "All of it"}});
    assert_eq!(body["messages"][0]["content"][0]["document"], wanted);
    let marked = self::body(json!({}), &text("# All", Some("text/markdown")));
    assert_eq!(marked["messages"][0]["content"][0]["document"]["format"], "md");
    assert_eq!(refused(json!({}), &text("", None)), invalid("messages[0].content[0]"));
    assert_eq!(refused(json!({}), &text(&"x".repeat(4_718_593), None)).0, ErrorKind::TooLarge);
    let image = image(MediaSource::Text("x".to_owned()), Some("image/png"));
    assert_eq!(refused(json!({}), &chat(vec![of(Role::User, vec![image])])), unsupported("messages[0].content[0]"));
}

#[test]
fn a_message_holds_at_most_five_documents_of_four_and_a_half_megabytes() {
    let with = |count: usize| {
        let mut parts = vec![Part::text("Read")];
        parts.extend((0..count).map(|_| document("a.pdf")));
        chat(vec![of(Role::User, parts)])
    };
    assert!(encode(json!({}), &with(5)).is_ok());
    assert_eq!(refused(json!({}), &with(6)), invalid("messages[0].content"));
    let of_size = |bytes: usize| {
        let data = MediaSource::Base64("A".repeat(bytes / 3 * 4));
        let part = media(MediaKind::Document, data, Some("application/pdf"), None);
        chat(vec![of(Role::User, vec![Part::text("Read"), part])])
    };
    assert!(encode(json!({}), &of_size(4_718_592)).is_ok());
    assert_eq!(refused(json!({}), &of_size(4_718_595)).0, ErrorKind::TooLarge);
}

#[test]
fn how_closely_to_look_cannot_be_told() {
    let look = |detail: &str| {
        let Part::Media(part) = pixel() else { unreachable!() };
        chat(vec![of(Role::User, vec![Part::Media(MediaPart { detail: Some(detail.to_owned()), ..part })])])
    };
    assert!(encode(json!({}), &look("auto")).is_ok());
    droppable(&look("high"), "messages[0].content[0].detail");
}

// --- tools ---

#[test]
fn tools_calls_and_results_have_their_blocks() {
    let failed = Part::ToolResult(ToolResult {
        call_id: "call_2".to_owned(),
        content: vec![ResultContent::Media(MediaPart {
            kind: MediaKind::Image,
            mime: Some("image/png".to_owned()),
            source: MediaSource::Base64(PIXEL.to_owned()),
            name: None,
            detail: None,
            cache: None,
            extra: None,
        })],
        is_error: Some(true),
        ..ToolResult::default()
    });
    let messages = vec![
        user("Weather?"),
        of(
            Role::Assistant,
            vec![
                Part::text("Looking."),
                call("call_1", "get_weather", r#"{ "z": 1.0,"a":[] }"#),
                call("call_2", "now", ""),
            ],
        ),
        of(Role::Tool, vec![result("call_1", "sunny")]),
        Message { name: Some("now".to_owned()), ..of(Role::Tool, vec![failed]) },
        user("So?"),
    ];
    let now = Tool::Function(FunctionTool { name: "now".to_owned(), strict: Some(true), ..FunctionTool::default() });
    let request =
        Request { tools: vec![tool("get_weather"), now], tool_choice: Some(ToolChoice::Auto), ..chat(messages) };
    let body = kept("tools", json!({}), &request);
    let wanted = json!([
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "sunny"}]}},
        {"toolResult": {
            "toolUseId": "call_2",
            "content": [{"image": {"format": "png", "source": {"bytes": PIXEL}}}],
            "status": "error"
        }},
        {"text": "So?"},
    ]);
    assert_eq!(body["messages"][2], json!({"role": "user", "content": wanted}));
    assert_eq!(
        body["messages"][1]["content"][2]["toolUse"],
        json!({"toolUseId": "call_2", "name": "now", "input": {}})
    );
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"auto": {}}));
    assert_eq!(body["toolConfig"]["tools"][1]["toolSpec"]["strict"], json!(true));
    // Arguments and schemas keep their text.
    let text = String::from_utf8(encode(json!({}), &request).unwrap().body).unwrap();
    assert!(text.contains(r#""input":{ "z": 1.0,"a":[] }"#));
    assert!(text.contains(r#"{"z":{"type":"string"},"a":{"type":"number"}}"#));
}

#[test]
fn results_of_tools_come_first_in_their_turn() {
    let messages = vec![
        user("?"),
        of(Role::Assistant, vec![call("1", "f", "{}")]),
        of(Role::User, vec![Part::text("Also:"), result("1", "x")]),
    ];
    let body = body(json!({}), &chat(messages));
    let content = body["messages"][2]["content"].as_array().unwrap();
    assert!(content[0].get("toolResult").is_some() && content[1]["text"] == "Also:");
}

#[test]
fn a_history_with_tool_blocks_gets_a_tool_config() {
    let messages = vec![
        user("?"),
        of(Role::Assistant, vec![call("1", "f", "{}"), call("2", "g", "{}"), call("3", "f", "{}")]),
        of(Role::Tool, vec![result("1", ""), result("2", "y"), result("3", "z")]),
    ];
    let body = kept("tools-of-history", json!({}), &chat(messages));
    let any = json!({"json": {"type": "object", "properties": {}}});
    let wanted = json!({"tools": [
        {"toolSpec": {"name": "f", "inputSchema": any}},
        {"toolSpec": {"name": "g", "inputSchema": any}},
    ]});
    assert_eq!(body["toolConfig"], wanted);
    let orphan = chat(vec![of(Role::Tool, vec![result("1", "x")])]);
    assert_eq!(refused(json!({}), &orphan), invalid("messages"));
}

#[test]
fn every_tool_choice_has_its_counterpart_but_none() {
    let choose = |choice: ToolChoice| Request { tools: vec![tool("f")], tool_choice: Some(choice), ..hello() };
    let choice = |choice_: ToolChoice| body(json!({}), &choose(choice_))["toolConfig"]["toolChoice"].clone();
    assert_eq!(choice(ToolChoice::Auto), json!({"auto": {}}));
    assert_eq!(choice(ToolChoice::Required), json!({"any": {}}));
    assert_eq!(choice(ToolChoice::Tool("f".to_owned())), json!({"tool": {"name": "f"}}));
    kept("tool-choice-any", json!({}), &choose(ToolChoice::Required));
    kept("tool-choice-tool", json!({}), &choose(ToolChoice::Tool("f".to_owned())));
    assert_eq!(refused(json!({}), &choose(ToolChoice::Tool("g".to_owned()))), invalid("tool_choice"));
    assert_eq!(refused(json!({}), &choose(ToolChoice::Other("{}".to_owned()))), unsupported("tool_choice"));
    // None: without tools in the history, no tools are offered.
    assert_eq!(body(json!({}), &choose(ToolChoice::None)).get("toolConfig"), None);
    let messages =
        vec![user("?"), of(Role::Assistant, vec![call("1", "f", "{}")]), of(Role::Tool, vec![result("1", "x")])];
    let request = Request { tools: vec![tool("f")], tool_choice: Some(ToolChoice::None), ..chat(messages) };
    assert_eq!(droppable(&request, "tool_choice")["toolConfig"].get("toolChoice"), None);
    let toolless = |choice: ToolChoice| Request { tool_choice: Some(choice), ..hello() };
    assert_eq!(refused(json!({}), &toolless(ToolChoice::Required)), invalid("tool_choice"));
    assert!(encode(json!({}), &toolless(ToolChoice::Auto)).is_ok());
}

#[test]
fn names_and_ids_that_bedrock_refuses_are_mapped_and_the_context_maps_names_back() {
    let long = "x".repeat(70);
    let messages = vec![
        user("?"),
        of(Role::Assistant, vec![call("call/1", "weather.get", "{}"), call(&long, "fine-name_1", "{}")]),
        of(Role::Tool, vec![result("call/1", "a"), result(&long, "b")]),
    ];
    let request = Request {
        tools: vec![tool("weather.get"), tool("fine-name_1"), tool(&long)],
        tool_choice: Some(ToolChoice::Tool("weather.get".to_owned())),
        ..chat(messages)
    };
    let body = kept("mapped-names", json!({}), &request);
    let calls = body["messages"][1]["content"].as_array().unwrap();
    let name = calls[0]["toolUse"]["name"].as_str().unwrap();
    let fits = |text: &str| {
        (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    assert!(fits(name) && name.starts_with("weather_get_"));
    assert_eq!(calls[1]["toolUse"]["name"], "fine-name_1");
    assert_eq!(body["toolConfig"]["toolChoice"]["tool"]["name"], name);
    let specs: Vec<_> = (0..3).map(|n| body["toolConfig"]["tools"][n]["toolSpec"]["name"].as_str().unwrap()).collect();
    assert!(specs[0] == name && specs.iter().all(|name| fits(name)));
    let results = body["messages"][2]["content"].as_array().unwrap();
    for (call, result) in calls.iter().zip(results) {
        let id = call["toolUse"]["toolUseId"].as_str().unwrap();
        assert!(fits(id));
        assert_eq!(result["toolResult"]["toolUseId"], id);
    }
    let context: Value = serde_json::from_str(&encode(json!({}), &request).unwrap().context.unwrap()).unwrap();
    assert_eq!(context["tools"], json!({name: "weather.get", specs[2]: long}));
}

#[test]
fn a_context_beyond_its_bound_is_refused() {
    let tools = (0..70).map(|n| tool(&format!("{n}.{}", "x".repeat(1000)))).collect();
    assert_eq!(refused(json!({}), &Request { tools, ..hello() }), invalid("tools"));
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    for arguments in ["[]", "1", "{", "{}x", "null"] {
        let messages = vec![user("?"), of(Role::Assistant, vec![call("1", "f", arguments)])];
        assert_eq!(refused(json!({}), &chat(messages)), invalid("messages[1].content[0]"), "{arguments}");
    }
    let schema =
        Tool::Function(FunctionTool { name: "f".into(), parameters: Some("{".into()), ..FunctionTool::default() });
    assert_eq!(refused(json!({}), &Request { tools: vec![schema], ..hello() }), invalid("tools[0].parameters"));
}

#[test]
fn several_calls_in_one_turn_cannot_be_forbidden() {
    assert!(encode(json!({}), &Request { parallel_tool_calls: Some(true), ..hello() }).is_ok());
    droppable(&Request { parallel_tool_calls: Some(false), ..hello() }, "parallel_tool_calls");
}

// --- sampling, reasoning, format ---

#[test]
fn sampling_goes_into_the_inference_config_and_top_k_into_the_models_own_fields() {
    let sampling = Sampling {
        temperature: Some(0.5),
        top_p: Some(0.9),
        top_k: Some(40),
        stop: vec!["###".to_owned(), "\n".to_owned()],
        max_tokens: Some(10),
        max_completion_tokens: Some(20),
        ..Sampling::default()
    };
    let settings = json!({"additional_model_request_fields": {"top_k": 1, "other": {"b": 1, "a": 2}}});
    let body = kept("sampling", settings, &sampled(sampling));
    let wanted = json!({"maxTokens": 20, "temperature": 0.5, "topP": 0.9, "stopSequences": ["###", "\n"]});
    assert_eq!(body["inferenceConfig"], wanted);
    assert_eq!(body["additionalModelRequestFields"], json!({"top_k": 40, "other": {"b": 1, "a": 2}}));
}

#[test]
fn unset_stays_unset() {
    let body = kept("smallest", json!({}), &hello());
    assert_eq!(body, json!({"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}));
}

#[test]
fn what_converse_lacks_is_refused_by_name_or_left_out() {
    let table = [
        ("n", Sampling { n: Some(2), ..Sampling::default() }),
        ("logprobs", Sampling { logprobs: Some(true), ..Sampling::default() }),
        ("top_logprobs", Sampling { top_logprobs: Some(3), ..Sampling::default() }),
        ("seed", Sampling { seed: Some(7), ..Sampling::default() }),
        ("logit_bias", Sampling { logit_bias: Some(r#"{"1":5}"#.to_owned()), ..Sampling::default() }),
        ("frequency_penalty", Sampling { frequency_penalty: Some(0.5), ..Sampling::default() }),
        ("presence_penalty", Sampling { presence_penalty: Some(-0.5), ..Sampling::default() }),
        ("repetition_penalty", Sampling { repetition_penalty: Some(1.1), ..Sampling::default() }),
        ("min_p", Sampling { min_p: Some(0.1), ..Sampling::default() }),
        ("temperature", Sampling { temperature: Some(1.5), ..Sampling::default() }),
        ("temperature", Sampling { temperature: Some(f64::NAN), ..Sampling::default() }),
        ("top_p", Sampling { top_p: Some(-0.1), ..Sampling::default() }),
    ];
    for (param, sampling) in table {
        let body = droppable(&sampled(sampling), param);
        assert_eq!(body, json!({"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}), "{param}");
    }
    let harmless = Sampling {
        n: Some(1),
        logprobs: Some(false),
        top_logprobs: Some(0),
        logit_bias: Some("{}".to_owned()),
        frequency_penalty: Some(0.0),
        presence_penalty: Some(0.0),
        repetition_penalty: Some(1.0),
        min_p: Some(0.0),
        ..Sampling::default()
    };
    assert!(encode(json!({}), &sampled(harmless)).is_ok());
}

#[test]
fn bounds_of_sampling_are_told() {
    let table = [
        ("max_tokens", Sampling { max_tokens: Some(0), ..Sampling::default() }),
        ("max_completion_tokens", Sampling { max_completion_tokens: Some(1 << 31), ..Sampling::default() }),
        ("stop[1]", Sampling { stop: vec!["a".to_owned(), String::new()], ..Sampling::default() }),
        ("stop", Sampling { stop: vec!["a".to_owned(); 2501], ..Sampling::default() }),
    ];
    for (param, sampling) in table {
        assert_eq!(refused(json!({}), &sampled(sampling)), invalid(param));
    }
}

#[test]
fn reasoning_is_thinking_for_anthropics_models() {
    let think = |effort: Option<&str>, budget: Option<u64>, enabled: Option<bool>, max: Option<u64>| Request {
        reasoning: Some(Reasoning {
            effort: effort.map(str::to_owned),
            budget_tokens: budget,
            enabled,
            ..Reasoning::default()
        }),
        ..sampled(Sampling { max_tokens: max, ..Sampling::default() })
    };
    let budget = |request: &Request| body(json!({}), request)["additionalModelRequestFields"].clone();
    let enabled = |tokens: u64| json!({"thinking": {"type": "enabled", "budget_tokens": tokens}});
    for (effort, tokens) in [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 16384), ("xhigh", 32768)] {
        assert_eq!(budget(&think(Some(effort), None, None, None)), enabled(tokens));
    }
    kept("reasoning", json!({}), &think(Some("high"), None, None, Some(20_000)));
    assert_eq!(budget(&think(Some("high"), None, None, Some(4000))), enabled(2000));
    assert_eq!(budget(&think(Some("low"), Some(5000), None, Some(6000))), enabled(5000));
    assert_eq!(budget(&think(None, None, Some(true), None)), enabled(8192));
    assert_eq!(budget(&think(None, None, None, None)), Value::Null);
    for none in [think(Some("none"), None, None, None), think(None, None, Some(false), None)] {
        assert_eq!(budget(&none), Value::Null);
        // What the settings ask for is switched off.
        let settings = json!({"additional_model_request_fields": {"thinking": {"type": "enabled"}}});
        assert_eq!(body(settings, &none).get("additionalModelRequestFields"), None);
    }
    // Where no budget fits, the request to reason is refused, or left out and told.
    for (request, param) in [
        (think(Some("low"), None, None, Some(1000)), "reasoning_effort"),
        (think(Some("high"), None, None, Some(1024)), "reasoning_effort"),
        (think(None, Some(5000), None, Some(5000)), "reasoning"),
        (think(None, Some(1000), None, None), "reasoning"),
    ] {
        assert_eq!(droppable(&request, param).get("additionalModelRequestFields"), None);
        let invoked = encode(json!({"api": "invoke", "drop_unsupported": true}), &to(CLAUDE, &request)).unwrap();
        assert_eq!(invoked.dropped, [param]);
        assert!(!String::from_utf8(invoked.body).unwrap().contains("thinking"));
    }
    assert_eq!(refused(json!({}), &think(Some("huge"), None, None, None)), invalid("reasoning_effort"));
    // Claude 4.6 and later decide by themselves how much they think.
    let later = |request: Request| Request { model: "eu.anthropic.claude-opus-4-6-v1".to_owned(), ..request };
    let adaptive = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}});
    assert_eq!(budget(&later(think(Some("minimal"), None, None, None))), adaptive);
    let off = json!({"thinking": {"type": "disabled"}});
    assert_eq!(budget(&later(think(Some("none"), None, None, None))), off);
    droppable(&later(think(Some("low"), Some(5000), None, None)), "reasoning.budget_tokens");
    let forced = body(json!({"thinking": "budget"}), &later(think(Some("low"), None, None, None)));
    assert_eq!(forced["additionalModelRequestFields"], enabled(2048));
    // gpt-oss has efforts of its own.
    let oss = |effort: &str| Request { model: GPT_OSS.to_owned(), ..think(Some(effort), None, None, None) };
    let converse = json!({"api": "converse"});
    assert_eq!(
        body(converse.clone(), &oss("high"))["additionalModelRequestFields"],
        json!({"reasoning_effort": "high"})
    );
    for effort in ["none", "xhigh"] {
        assert_eq!(refused(converse.clone(), &oss(effort)), unsupported("reasoning_effort"));
    }
    let nova = Request { model: "amazon.nova-lite-v1:0".to_owned(), ..think(Some("low"), None, None, None) };
    droppable(&nova, "reasoning_effort");
    assert_eq!(body(json!({"model_vendor": "anthropic"}), &nova)["additionalModelRequestFields"], enabled(2048));
    assert_eq!(
        refused(json!({"model_vendor": "other"}), &think(Some("low"), None, None, None)),
        unsupported("reasoning_effort")
    );
}

#[test]
fn reasoning_goes_back_with_its_signature_and_its_encrypted_parts() {
    let thought = ReasoningPart {
        text: "hm".to_owned(),
        signature: Some("c2ln".to_owned()),
        redacted: Some("c2VjcmV0".to_owned()),
        extra: None,
    };
    let turn = |thought: ReasoningPart| {
        let parts = vec![Part::Reasoning(thought), Part::text("42")];
        chat(vec![user("?"), of(Role::Assistant, parts), user("Sure?")])
    };
    let body = kept("reasoning-history", json!({}), &turn(thought));
    let wanted = json!([
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VjcmV0"}},
        {"text": "42"},
    ]);
    assert_eq!(body["messages"][1]["content"], wanted);
    let foreign = ReasoningPart { redacted: Some("not base64".to_owned()), ..ReasoningPart::default() };
    assert_eq!(refused(json!({}), &turn(foreign)), invalid("messages[1].content[0]"));
}

#[test]
fn a_json_schema_is_the_output_config() {
    let schema = r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}}}"#;
    let format = |format: ResponseFormat| Request { response_format: Some(format), ..hello() };
    let wanted = JsonSchema {
        name: Some("answer".to_owned()),
        description: Some("The answer".to_owned()),
        schema: schema.to_owned(),
        strict: Some(true),
    };
    let body = kept("json-schema", json!({}), &format(ResponseFormat::JsonSchema(wanted)));
    let structure = json!({"jsonSchema": {"schema": schema, "name": "answer", "description": "The answer"}});
    assert_eq!(body["outputConfig"], json!({"textFormat": {"type": "json_schema", "structure": structure}}));
    assert!(encode(json!({}), &format(ResponseFormat::Text)).is_ok());
    droppable(&format(ResponseFormat::JsonObject), "response_format");
    droppable(&format(ResponseFormat::Other("{}".to_owned())), "response_format");
    let broken = JsonSchema { name: None, description: None, schema: "{".to_owned(), strict: None };
    let param = "response_format.json_schema.schema";
    assert_eq!(refused(json!({}), &format(ResponseFormat::JsonSchema(broken))), invalid(param));
}

#[test]
fn cache_marks_are_cache_points() {
    let marked = Part::ToolResult(ToolResult {
        call_id: "1".to_owned(),
        content: vec![ResultContent::Text(TextPart {
            text: "x".to_owned(),
            cache: Some(CacheMark { ttl: None }),
            extra: None,
        })],
        ..ToolResult::default()
    });
    let messages = vec![
        of(Role::System, vec![cached("Long.", Some("1h"))]),
        of(Role::User, vec![cached("Also long.", None), Part::text("?")]),
        of(Role::Assistant, vec![call("1", "f", "{}")]),
        of(Role::Tool, vec![marked]),
    ];
    let cache = Some(CacheMark { ttl: Some("5m".to_owned()) });
    let tool = Tool::Function(FunctionTool { name: "f".to_owned(), cache, ..FunctionTool::default() });
    let body = kept("cache", json!({}), &Request { tools: vec![tool], ..chat(messages) });
    let point = json!({"cachePoint": {"type": "default"}});
    assert_eq!(body["system"], json!([{"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]));
    assert_eq!(body["messages"][0]["content"], json!([{"text": "Also long."}, point, {"text": "?"}]));
    assert_eq!(body["messages"][2]["content"][1], point);
    assert_eq!(body["toolConfig"]["tools"][1], json!({"cachePoint": {"type": "default", "ttl": "5m"}}));
    let odd = chat(vec![of(Role::User, vec![cached("x", Some("2d"))])]);
    assert_eq!(refused(json!({}), &odd), invalid("messages[0].content[0]"));
}

// --- unknown members, settings ---

#[test]
fn members_of_other_dialects_are_refused_by_name() {
    let extra = |text: &str| Some(text.to_owned());
    let request = Request { extra: extra(r#"{"service_tier":"flex"}"#), ..hello() };
    assert_eq!(droppable(&request, "service_tier").get("service_tier"), None);
    let request = chat(vec![Message { extra: extra(r#"{"mood":"good"}"#), ..user("Hi") }]);
    droppable(&request, "messages[0].mood");
    let text = Part::Text(TextPart { text: "Hi".to_owned(), cache: None, extra: extra(r#"{"tint":1}"#) });
    droppable(&chat(vec![of(Role::User, vec![text])]), "messages[0].content[0].tint");
    let odd = FunctionTool { name: "f".to_owned(), extra: extra(r#"{"x":1}"#), ..FunctionTool::default() };
    droppable(&Request { tools: vec![Tool::Function(odd)], ..hello() }, "tools[0].x");
    let own = Tool::Other(r#"{"type":"web_search"}"#.to_owned());
    assert_eq!(droppable(&Request { tools: vec![own], ..hello() }, "tools[0]").get("toolConfig"), None);
    let other = of(Role::User, vec![Part::text("x"), Part::Other("{}".to_owned())]);
    droppable(&chat(vec![other]), "messages[0].content[1]");
    assert!(encode(json!({}), &Request { extra: extra("{}"), ..hello() }).is_ok());
    assert_eq!(refused(json!({}), &Request { extra: extra("["), ..hello() }).0, ErrorKind::InvalidRequest);
}

#[test]
fn at_most_sixty_four_of_what_was_left_out_are_listed_and_none_twice() {
    let named = |n: usize| Message { name: Some(format!("u{n}")), ..user("Hi") };
    let request = chat((0..100).map(named).collect());
    let dropped = encode(json!({"drop_unsupported": true}), &request).unwrap().dropped;
    assert_eq!(dropped.len(), 64);
    assert_eq!((dropped[0].as_str(), dropped[63].as_str()), ("messages[0].name", "messages[63].name"));
    let sampling = Sampling { seed: Some(1), n: Some(3), ..Sampling::default() };
    let twice = Request { extra: Some(r#"{"seed":2}"#.to_owned()), ..sampled(sampling) };
    assert_eq!(encode(json!({"drop_unsupported": true}), &twice).unwrap().dropped, ["n", "seed"]);
}

#[test]
fn usage_options_are_never_forwarded_and_never_refused() {
    for extra in [r#"{"stream_options":{"include_usage":true}}"#, r#"{"include_usage":true}"#] {
        let request = Request { extra: Some(extra.to_owned()), ..hello() };
        assert_eq!(body(json!({}), &request), body(json!({}), &hello()));
    }
}

#[test]
fn members_of_our_own_dialect_are_passed_on() {
    let extra = |text: &str| Some(text.to_owned());
    let own = Part::Other(r#"{"guardContent":{"text":{"text":"guard me"}}}"#.to_owned());
    let cited = Part::Media(MediaPart {
        kind: MediaKind::Document,
        mime: None,
        source: MediaSource::Other(r#"{"text":"All of it"}"#.to_owned()),
        name: Some("notes.txt".to_owned()),
        detail: None,
        cache: None,
        extra: extra(r#"{"citations":{"enabled":true}}"#),
    });
    let request = Request {
        dialect: "bedrock-converse".to_owned(),
        tools: vec![Tool::Other(r#"{"systemTool":{"name":"nova_grounding"}}"#.to_owned())],
        extra: extra(r#"{"promptVariables":{"a":{"text":"b"}},"additionalModelRequestFields":{"top_k":3}}"#),
        ..chat(vec![of(Role::User, vec![own, cited])])
    };
    let settings = json!({"additional_model_request_fields": {"top_k": 1, "k": 2}});
    let body = kept("own-dialect", settings, &request);
    assert_eq!(body["promptVariables"], json!({"a": {"text": "b"}}));
    assert_eq!(body["additionalModelRequestFields"], json!({"k": 2, "top_k": 3}));
    assert_eq!(body["toolConfig"]["tools"], json!([{"systemTool": {"name": "nova_grounding"}}]));
    let document = json!({"name": "notes", "source": {"text": "All of it"}, "citations": {"enabled": true}});
    assert_eq!(body["messages"][0]["content"][1]["document"], document);
}

#[test]
fn a_client_cannot_reach_around_the_operators_guardrail() {
    let request = Request {
        dialect: "bedrock-converse".to_owned(),
        extra: Some(r#"{"guardrailConfig":{"guardrailIdentifier":"weak","guardrailVersion":"1"}}"#.to_owned()),
        ..hello()
    };
    assert_eq!(body(json!({}), &request)["guardrailConfig"]["guardrailIdentifier"], "weak");
    let settings = json!({"guardrail": {"identifier": "strict1", "version": "1"}});
    assert_eq!(refused(settings, &request), unsupported("guardrailConfig"));
    for (api, dialect) in [("invoke", "anthropic-messages"), ("openai", "openai-chat")] {
        let request = Request {
            dialect: dialect.to_owned(),
            extra: Some(r#"{"amazon-bedrock-guardrailConfig":{"tagSuffix":"x"}}"#.to_owned()),
            ..hello()
        };
        assert_eq!(body(json!({"api": api}), &request)["amazon-bedrock-guardrailConfig"], json!({"tagSuffix": "x"}));
        let settings = json!({"api": api, "guardrail": {"identifier": "strict1", "version": "1"}});
        assert_eq!(refused(settings, &request), unsupported("amazon-bedrock-guardrailConfig"));
    }
}

#[test]
fn settings_become_the_members_of_the_request() {
    let settings = json!({
        "guardrail": {"identifier": "abc1", "version": "DRAFT", "trace": "enabled", "stream_processing_mode": "async"},
        "latency": "optimized",
        "service_tier": "flex",
        "request_metadata": {"team": "search"},
        "additional_model_response_field_paths": ["/stop_sequence"],
    });
    let request = Request { end_user: Some("user-7".to_owned()), ..hello() };
    let body = kept("settings", settings.clone(), &request);
    let guardrail = json!({"guardrailIdentifier": "abc1", "guardrailVersion": "DRAFT", "trace": "enabled"});
    assert_eq!(body["guardrailConfig"], guardrail);
    assert_eq!(body["performanceConfig"], json!({"latency": "optimized"}));
    assert_eq!(body["serviceTier"], json!({"type": "flex"}));
    assert_eq!(body["requestMetadata"], json!({"team": "search", "end_user": "user-7"}));
    assert_eq!(body["additionalModelResponseFieldPaths"], json!(["/stop_sequence"]));
    // Only the streaming operation knows the mode.
    let body = kept("settings-stream", settings, &Request { stream: true, ..request });
    assert_eq!(body["guardrailConfig"]["streamProcessingMode"], "async");
}

#[test]
fn an_end_user_that_the_log_refuses_is_refused() {
    droppable(&Request { end_user: Some("Jürgen".to_owned()), ..hello() }, "user");
    droppable(&Request { end_user: Some("x".repeat(257)), ..hello() }, "user");
}

#[test]
fn the_schema_of_the_settings_names_every_setting() {
    let description = Bedrock::describe();
    let schema: Value = serde_json::from_str(&description.settings_schema).unwrap();
    assert_eq!(schema["additionalProperties"], json!(false));
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.values().all(|property| property["description"].is_string()));
    // Each is read: a value of the wrong type is noticed. The gateway reads the profile, and other shapes their own.
    let of_claude = ["betas", "default_max_tokens", "thinking", "structured_output"];
    for name in properties.keys().filter(|name| *name != "profile") {
        let api = if of_claude.contains(&name.as_str()) { "invoke" } else { "openai" };
        let mut settings = json!({ "api": api });
        settings[name] = json!([[1]]);
        let error = encode(settings, &hello()).unwrap_err();
        let configuration = error.kind == ErrorKind::Other("configuration".to_owned());
        assert!(configuration || error.param.as_deref() == Some("settings"), "{name}: {error:?}");
    }
    assert_eq!(description.default_endpoint.as_deref(), Some("https://bedrock-runtime.{region}.{dns_suffix}"));
    assert_eq!(Bedrock::probe("{}").unwrap(), None);
}

#[test]
fn hostile_requests_are_refused_or_encoded_but_never_crash() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let tool = FunctionTool { name: "f".to_owned(), parameters: Some(deep.clone()), ..FunctionTool::default() };
    assert!(encode(json!({}), &Request { tools: vec![Tool::Function(tool)], ..hello() }).is_ok());
    let messages = vec![user("?"), of(Role::Assistant, vec![call("1", "f", &deep)])];
    assert!(encode(json!({}), &chat(messages)).is_err());
    // Many documents of one name, and many names to map, take no more than their share of time.
    let parts: Vec<_> = (0..5000).map(|_| document("a.pdf")).collect();
    assert!(encode(json!({}), &chat(vec![of(Role::User, parts)])).is_err());
    let calls = (0..5000).map(|n| call(&format!("{n}/"), "f", "{}")).collect();
    assert!(encode(json!({}), &chat(vec![user("?"), of(Role::Assistant, calls)])).is_ok());
}

// --- which API ---

/// The same request to another model.
fn to(model: &str, request: &Request) -> Request {
    Request { model: model.to_owned(), ..request.clone() }
}

const LLAMA: &str = "us.meta.llama3-1-70b-instruct-v1:0";
const GPT_OSS: &str = "openai.gpt-oss-20b-1:0";

#[test]
fn the_api_is_the_one_of_the_settings_or_suits_the_family() {
    let operation = |settings: Value, model: &str| encode(settings, &to(model, &hello())).unwrap().path.pop().unwrap();
    for model in [
        CLAUDE,
        LLAMA,
        "meta.llama4-scout-17b-instruct-v1:0",
        "apac.amazon.nova-lite-v1:0",
        "eu.mistral.pixtral-large-2502-v1:0",
        "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3",
    ] {
        assert_eq!(operation(json!({}), model), "converse", "{model}");
    }
    let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.openai.gpt-oss-120b-1:0";
    for model in [GPT_OSS, "us-gov.openai.gpt-oss-120b-1:0", arn] {
        assert_eq!(operation(json!({}), model), "completions", "{model}");
        assert_eq!(operation(json!({"api": "converse"}), model), "converse", "{model}");
    }
    for model in [CLAUDE, LLAMA, "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-70b-instruct-v1:0"] {
        assert_eq!(operation(json!({"api": "invoke"}), model), "invoke", "{model}");
        assert_eq!(operation(json!({"api": "openai"}), model), "completions", "{model}");
    }
    let invoke = |vendor: Option<&str>, model: &str| {
        let settings = match vendor {
            Some(vendor) => json!({"api": "invoke", "model_vendor": vendor}),
            None => json!({"api": "invoke"}),
        };
        encode(settings, &to(model, &hello()))
    };
    for model in ["amazon.nova-lite-v1:0", GPT_OSS, "meta.llama4-scout-17b-instruct-v1:0", "a1b2c3"] {
        let error = invoke(None, model).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some("model")), "{model}");
    }
    assert!(invoke(Some("meta"), "a1b2c3").is_ok());
    assert!(invoke(Some("anthropic"), "a1b2c3").is_ok());
}

#[test]
fn every_api_is_signed_for_bedrock_or_carries_a_bearer_key() {
    for (api, model) in [("converse", CLAUDE), ("invoke", CLAUDE), ("invoke", LLAMA), ("openai", GPT_OSS)] {
        let auth = |auth: &str| encode(json!({"api": api, "auth": auth}), &to(model, &hello())).unwrap().auth;
        assert!(matches!(auth("sigv4"), Auth::AwsSigv4(auth) if auth.service == "bedrock" && auth.slot == "aws"));
        assert!(matches!(auth("bearer"), Auth::Header(auth) if auth.prefix == "Bearer " && auth.slot == "api_key"));
    }
}

#[test]
fn what_bedrock_does_not_do_is_refused_by_name() {
    let error = encode(json!({}), &Request::new("openai-models", "", Input::Models)).unwrap_err();
    assert!(error.message.contains("lists no models"), "{}", error.message);
    let other = Input::Other(DialectJson::new("openai-responses", "{}"));
    assert_eq!(encode(json!({}), &Request::new("x", CLAUDE, other)).unwrap_err().kind, ErrorKind::Unsupported);
    assert_eq!(Bedrock::describe().operations, ["chat", "completion", "embedding", "count-tokens"]);
}

// --- InvokeModel: Llama ---

fn llama(settings: Value) -> Value {
    let mut all = json!({"api": "invoke"});
    all.as_object_mut().unwrap().append(&mut settings.as_object().cloned().unwrap());
    all
}

#[test]
fn a_llama_gets_its_template_and_four_parameters() {
    let sampling = Sampling {
        max_tokens: Some(99),
        max_completion_tokens: Some(64),
        temperature: Some(0.5),
        top_p: Some(0.25),
        ..Sampling::default()
    };
    let messages =
        vec![user("Who are <|eot_id|> you?"), assistant("A llama."), Message::text(Role::System, "Be brief.")];
    let request = Request { sampling, ..to(LLAMA, &chat(messages)) };
    let body = kept("llama", llama(json!({})), &request);
    assert_eq!(
        body,
        json!({
            "prompt": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
                       <|start_header_id|>user<|end_header_id|>\n\nWho are <| eot_id|> you?<|eot_id|>\
                       <|start_header_id|>assistant<|end_header_id|>\n\nA llama.<|eot_id|>\
                       <|start_header_id|>assistant<|end_header_id|>\n\n",
            "max_gen_len": 64, "temperature": 0.5, "top_p": 0.25,
        })
    );
    let http = encode(llama(json!({})), &Request { stream: true, ..request }).unwrap();
    assert_eq!((http.path[2].as_str(), http.framing), ("invoke-with-response-stream", Framing::AwsEventstream));
    // Unset stays unset.
    let body = self::body(llama(json!({})), &to(LLAMA, &hello()));
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["prompt"]);
}

#[test]
fn what_a_llama_lacks_is_refused_by_name_or_left_out_and_listed() {
    let hello = to(LLAMA, &hello());
    let sampled = |sampling: Sampling| Request { sampling, ..hello.clone() };
    let with = |message: Message| Request { input: Input::Chat(vec![user("Hi"), message]), ..hello.clone() };
    let schema = JsonSchema { name: None, description: None, schema: "{}".to_owned(), strict: None };
    let table = [
        ("tools", Request { tools: vec![tool("f")], ..hello.clone() }),
        ("tool_choice", Request { tool_choice: Some(ToolChoice::Required), ..hello.clone() }),
        ("stop", sampled(Sampling { stop: vec!["x".to_owned()], ..Sampling::default() })),
        ("top_k", sampled(Sampling { top_k: Some(3), ..Sampling::default() })),
        ("n", sampled(Sampling { n: Some(2), ..Sampling::default() })),
        ("seed", sampled(Sampling { seed: Some(2), ..Sampling::default() })),
        ("temperature", sampled(Sampling { temperature: Some(1.5), ..Sampling::default() })),
        ("response_format", Request { response_format: Some(ResponseFormat::JsonSchema(schema)), ..hello.clone() }),
        (
            "reasoning",
            Request { reasoning: Some(Reasoning { enabled: Some(true), ..Reasoning::default() }), ..hello.clone() },
        ),
        ("user", Request { end_user: Some("u".to_owned()), ..hello.clone() }),
        ("store", Request { extra: Some(r#"{"store":true}"#.to_owned()), ..hello.clone() }),
        ("messages[1].content[0]", with(of(Role::User, vec![pixel(), Part::text("See?")]))),
        ("messages[1].name", with(Message { name: Some("Bob".to_owned()), ..user("Hi") })),
        ("messages[1]", with(of(Role::Tool, vec![result("1", "x")]))),
    ];
    for (param, request) in table {
        assert_eq!(refused(llama(json!({})), &request), unsupported(param));
        let http = encode(llama(json!({"drop_unsupported": true})), &request).unwrap();
        assert_eq!(http.dropped, [param]);
        let body: Value = serde_json::from_slice(&http.body).unwrap();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["prompt"], "{param}");
    }
    let harmless = Request {
        tool_choice: Some(ToolChoice::None),
        response_format: Some(ResponseFormat::Text),
        reasoning: Some(Reasoning { effort: Some("none".to_owned()), ..Reasoning::default() }),
        extra: Some(r#"{"stream_options":{"include_usage":true}}"#.to_owned()),
        ..hello.clone()
    };
    assert!(encode(llama(json!({})), &harmless).is_ok());
    assert_eq!(
        refused(llama(json!({})), &sampled(Sampling { max_tokens: Some(0), ..Sampling::default() })),
        invalid("max_tokens")
    );
}

#[test]
fn settings_become_headers_and_members_of_what_is_invoked() {
    let settings = llama(json!({
        "guardrail": {"identifier": "abc1", "version": "DRAFT", "trace": "enabled", "stream_processing_mode": "async"},
        "latency": "optimized",
        "service_tier": "flex",
        "additional_model_request_fields": {"max_gen_len": 9, "temperature": 0.1, "prompt": "mine"},
    }));
    let request =
        Request { sampling: Sampling { temperature: Some(0.5), ..Sampling::default() }, ..to(LLAMA, &hello()) };
    let body = kept("llama-settings", settings.clone(), &Request { stream: true, ..request.clone() });
    assert_eq!((&body["max_gen_len"], &body["temperature"]), (&json!(9), &json!(0.5)));
    assert_eq!(body["amazon-bedrock-guardrailConfig"], json!({"streamProcessingMode": "ASYNCHRONOUS"}));
    assert!(body["prompt"].as_str().unwrap().contains("Hello"));
    let http = encode(settings.clone(), &request).unwrap();
    let header = |name: &str| http.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    assert_eq!(header("x-amzn-bedrock-guardrailidentifier"), Some("abc1"));
    assert_eq!(header("x-amzn-bedrock-guardrailversion"), Some("DRAFT"));
    assert_eq!(header("x-amzn-bedrock-trace"), Some("ENABLED"));
    assert_eq!(header("x-amzn-bedrock-performanceconfig-latency"), Some("optimized"));
    assert_eq!(header("x-amzn-bedrock-service-tier"), Some("flex"));
    let body = kept("claude-settings", settings, &Request { sampling: Sampling::default(), ..hello() });
    assert_eq!((&body["max_gen_len"], &body["max_tokens"]), (&json!(9), &json!(4096)));
}

#[test]
fn a_llama_continues_plain_text_as_it_is() {
    let request = Request::completion("openai-completions", LLAMA, "Once <|eot_id|>");
    assert_eq!(kept("llama-completion", json!({}), &request), json!({"prompt": "Once <|eot_id|>"}));
    let completion = |prompt: CompletionPrompt| Request { input: Input::Completion(prompt), ..request.clone() };
    let prompt = || CompletionPrompt { text: "Once".to_owned(), ..CompletionPrompt::default() };
    for (param, prompt) in [
        ("suffix", CompletionPrompt { suffix: Some("end".to_owned()), ..prompt() }),
        ("echo", CompletionPrompt { echo: Some(true), ..prompt() }),
        ("best_of", CompletionPrompt { best_of: Some(2), ..prompt() }),
    ] {
        assert_eq!(droppable(&completion(prompt), param), json!({"prompt": "Once"}));
    }
    assert_eq!(refused(json!({}), &completion(CompletionPrompt::default())), invalid("prompt"));
    assert_eq!(refused(json!({"api": "converse"}), &request), unsupported("prompt"));
}

#[test]
fn more_than_bedrock_takes_in_a_body_is_refused() {
    let request = to(LLAMA, &chat(vec![user(&"x".repeat(25_000_001))]));
    assert_eq!(encode(llama(json!({})), &request).unwrap_err().kind, ErrorKind::TooLarge);
}

// --- InvokeModel: Claude ---

#[test]
fn claudes_body_is_that_of_the_messages_api_without_model_and_stream() {
    let settings = json!({"api": "invoke", "betas": ["context-1m-2025-08-07"]});
    let request = Request {
        stream: true,
        tools: vec![tool("weather.get")],
        extra: Some(r#"{"anthropic_beta":["computer-use-2025-01-24"]}"#.to_owned()),
        dialect: "anthropic-messages".to_owned(),
        sampling: Sampling { max_tokens: Some(64), ..Sampling::default() },
        ..hello()
    };
    let body = kept("claude-native", settings, &request);
    assert_eq!(body["anthropic_version"], "bedrock-2023-05-31");
    assert_eq!(body["anthropic_beta"], json!(["context-1m-2025-08-07", "computer-use-2025-01-24"]));
    assert_eq!((body.get("model"), body.get("stream"), &body["max_tokens"]), (None, None, &json!(64)));
    let foreign = Request { tools: vec![tool("weather.get")], end_user: Some("u".to_owned()), ..hello() };
    let body = kept("claude", json!({"api": "invoke", "default_max_tokens": 77}), &foreign);
    assert_eq!((&body["max_tokens"], &body["metadata"]), (&json!(77), &json!({"user_id": "u"})));
    let http = encode(json!({"api": "invoke"}), &foreign).unwrap();
    let context: Value = serde_json::from_str(http.context.as_deref().unwrap()).unwrap();
    assert_eq!(context["codec"], "claude");
    assert!(context["inner"].as_str().unwrap().contains("weather.get"));
}

#[test]
fn what_claude_lacks_is_left_out_of_what_is_invoked_and_listed() {
    let request = sampled(Sampling { seed: Some(1), ..Sampling::default() });
    assert_eq!(refused(json!({"api": "invoke"}), &request), unsupported("seed"));
    assert_eq!(encode(json!({"api": "invoke", "drop_unsupported": true}), &request).unwrap().dropped, ["seed"]);
    let url = image(MediaSource::Url("https://example.org/a.png".to_owned()), None);
    assert_eq!(refused(json!({"api": "invoke"}), &chat(vec![of(Role::User, vec![url])])).0, ErrorKind::Unsupported);
}

// --- the OpenAI-compatible endpoint ---

#[test]
fn the_openai_compatible_endpoint_gets_openais_body() {
    let sampling = Sampling { max_tokens: Some(64), ..Sampling::default() };
    let http = encode(json!({}), &Request { stream: true, sampling, ..to(GPT_OSS, &hello()) }).unwrap();
    assert_eq!(http.path, ["openai", "v1", "chat", "completions"]);
    assert_eq!(http.framing, Framing::Sse);
    assert_eq!(http.context.as_deref(), Some(r#"{"codec":"openai"}"#));
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    let wanted = json!({
        "model": GPT_OSS, "messages": [{"role": "user", "content": "Hello"}], "stream": true,
        "stream_options": {"include_usage": true}, "max_completion_tokens": 64,
    });
    assert_eq!(body, wanted);
    let sampling = Sampling { max_tokens: Some(64), ..Sampling::default() };
    let request = Request { sampling, ..to(GPT_OSS, &hello()) };
    assert_eq!(self::body(json!({"max_tokens_field": "max_tokens"}), &request)["max_tokens"], 64);
    let silent = self::body(json!({"stream_usage": false}), &Request { stream: true, ..request.clone() });
    assert_eq!(silent.get("stream_options"), None);
    let profile = self::body(json!({"inference_profile": "us"}), &request);
    assert_eq!(profile["model"], format!("us.{GPT_OSS}"));
}

#[test]
fn what_a_model_rejects_at_the_openai_compatible_endpoint_is_refused_before_it_is_asked() {
    let openai = |settings: Value| {
        let mut all = json!({"api": "openai"});
        all.as_object_mut().unwrap().append(&mut settings.as_object().cloned().unwrap());
        all
    };
    let bias = Sampling { logit_bias: Some(r#"{"1":5}"#.to_owned()), ..Sampling::default() };
    let stop = Sampling { stop: vec!["x".to_owned()], ..Sampling::default() };
    let penalty = Sampling { presence_penalty: Some(0.5), ..Sampling::default() };
    let several = Sampling { n: Some(2), ..Sampling::default() };
    for (model, sampling, param) in [
        (GPT_OSS, &bias, "logit_bias"),
        (GPT_OSS, &several, "n"),
        ("openai.gpt-5.4", &stop, "stop"),
        ("openai.gpt-5.4", &penalty, "presence_penalty"),
        ("us.xai.grok-4.3", &penalty, "presence_penalty"),
    ] {
        let request = Request { sampling: sampling.clone(), ..to(model, &hello()) };
        assert_eq!(refused(openai(json!({})), &request), unsupported(param), "{model}");
        let http = encode(openai(json!({"drop_unsupported": true})), &request).unwrap();
        assert_eq!(http.dropped, [param], "{model}");
        let body: Value = serde_json::from_slice(&http.body).unwrap();
        assert_eq!(body.get(param), None, "{model}");
        // The settings know better.
        assert!(encode(openai(json!({"unsupported_parameters": []})), &request).is_ok(), "{model}");
    }
    let everything = Request {
        parallel_tool_calls: Some(false),
        reasoning: Some(Reasoning { effort: Some("low".to_owned()), ..Reasoning::default() }),
        response_format: Some(ResponseFormat::JsonObject),
        tool_choice: Some(ToolChoice::Required),
        tools: vec![tool("f")],
        end_user: Some("u".to_owned()),
        sampling: Sampling {
            frequency_penalty: Some(1.0),
            presence_penalty: Some(1.0),
            logit_bias: Some(r#"{"1":5}"#.to_owned()),
            logprobs: Some(true),
            top_logprobs: Some(2),
            n: Some(2),
            seed: Some(1),
            stop: vec!["x".to_owned()],
            temperature: Some(0.5),
            top_p: Some(0.5),
            top_k: Some(5),
            ..Sampling::default()
        },
        ..to(GPT_OSS, &hello())
    };
    let schema: Value = serde_json::from_str(&Bedrock::describe().settings_schema).unwrap();
    let names = &schema["properties"]["unsupported_parameters"]["items"]["enum"];
    let settings = openai(json!({"unsupported_parameters": names, "drop_unsupported": true}));
    let http = encode(settings, &everything).unwrap();
    assert_eq!(json!(http.dropped), *names);
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["messages", "model", "tools"]);
}

#[test]
fn settings_become_members_and_headers_at_the_openai_compatible_endpoint() {
    let settings = json!({
        "guardrail": {"identifier": "abc1", "version": "1", "stream_processing_mode": "sync"},
        "service_tier": "priority",
        "additional_model_request_fields": {"seed": 1, "custom": {"a": [1]}},
    });
    let sampling = Sampling { seed: Some(7), ..Sampling::default() };
    let http = encode(settings, &Request { stream: true, sampling, ..to(GPT_OSS, &hello()) }).unwrap();
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    assert_eq!((&body["seed"], &body["custom"]), (&json!(7), &json!({"a": [1]})));
    assert_eq!(body["service_tier"], "priority");
    assert_eq!(body["amazon-bedrock-guardrailConfig"], json!({"streamProcessingMode": "SYNCHRONOUS"}));
    assert!(http.headers.contains(&("x-amzn-bedrock-guardrailidentifier".to_owned(), "abc1".to_owned())));
}

#[test]
fn gpt_oss_gets_its_reasoning_back_as_it_gave_it() {
    let thought = |text: &str| Part::Reasoning(ReasoningPart { text: text.to_owned(), ..ReasoningPart::default() });
    let messages = vec![
        user("?"),
        of(Role::Assistant, vec![thought("Hm."), Part::text("42")]),
        user("Sure?"),
        of(Role::Assistant, vec![thought("Look."), call("call_0", "f", "{}")]),
        Message { name: Some("f".to_owned()), ..of(Role::Tool, vec![result("call_0", "yes")]) },
    ];
    let http = encode(json!({}), &to(GPT_OSS, &chat(messages))).unwrap();
    let body: Value = serde_json::from_slice(&http.body).unwrap();
    assert_eq!(body["messages"][1], json!({"role": "assistant", "content": "<reasoning>Hm.</reasoning>42"}));
    assert_eq!(body["messages"][3]["content"], "<reasoning>Look.</reasoning>");
    assert_eq!(body["messages"][3]["tool_calls"][0]["id"], "call_0");
    assert_eq!(body["messages"][4], json!({"role": "tool", "tool_call_id": "call_0", "content": "yes"}));
    // The decoder knows how many calls there were.
    assert_eq!(http.context.as_deref(), Some(r#"{"codec":"openai","calls":1}"#));
}

// --- embeddings, counts ---

fn embedding(model: &str, input: EmbeddingInput) -> Request {
    Request::new("openai-embeddings", model, Input::Embedding(input))
}

fn texts(texts: &[&str]) -> EmbeddingInput {
    let texts: Vec<_> = texts.iter().map(|text| EmbeddingText::Text((*text).to_owned())).collect();
    EmbeddingInput { single: texts.len() == 1, texts, dimensions: None, encoding: None }
}

#[test]
fn vectors_are_asked_of_titan_one_text_at_a_time() {
    const TITAN: &str = "amazon.titan-embed-text-v2:0";
    let long = EmbeddingInput { dimensions: Some(256), encoding: Some("base64".to_owned()), ..texts(&["Hi"]) };
    let settings = json!({"additional_model_request_fields": {"normalize": false}});
    let body = kept("titan", settings, &embedding(TITAN, long.clone()));
    assert_eq!(body, json!({"inputText": "Hi", "normalize": false, "dimensions": 256}));
    assert_eq!(refused(json!({}), &embedding(TITAN, texts(&["a", "b"]))), unsupported("input"));
    assert_eq!(refused(json!({}), &embedding(TITAN, texts(&[""]))), invalid("input"));
    let tokens = EmbeddingInput { texts: vec![EmbeddingText::Tokens(vec![1, 2])], ..texts(&["a"]) };
    assert_eq!(refused(json!({}), &embedding(TITAN, tokens)), unsupported("input"));
    let first = "amazon.titan-embed-text-v1";
    assert_eq!(droppable(&embedding(first, long), "dimensions"), json!({"inputText": "Hi"}));
    assert_eq!(
        droppable(&Request { end_user: Some("u".to_owned()), ..embedding(TITAN, texts(&["a"])) }, "user"),
        json!({"inputText": "a"})
    );
    assert_eq!(refused(json!({}), &embedding(CLAUDE, texts(&["a"]))), unsupported("model"));
}

#[test]
fn vectors_are_asked_of_cohere_for_a_purpose() {
    let long = EmbeddingInput { dimensions: Some(512), ..texts(&["a", "b"]) };
    let body = kept("cohere", json!({}), &embedding("global.cohere.embed-v4:0", long));
    let wanted = json!({"texts": ["a", "b"], "output_dimension": 512, "embedding_types": ["float"], "input_type": "search_document"});
    assert_eq!(body, wanted);
    let settings = json!({"additional_model_request_fields": {"input_type": "search_query", "truncate": "END"}});
    let body = self::body(settings, &embedding("cohere.embed-english-v3", texts(&["a"])));
    assert_eq!((&body["input_type"], &body["truncate"]), (&json!("search_query"), &json!("END")));
    let many = texts(&["a"; 97]);
    assert_eq!(refused(json!({}), &embedding("cohere.embed-english-v3", many)), unsupported("input"));
    let gap = EmbeddingInput { single: false, ..texts(&["a", ""]) };
    assert_eq!(refused(json!({}), &embedding("cohere.embed-english-v3", gap)), invalid("input[1]"));
}

#[test]
fn tokens_are_counted_of_what_converse_would_send() {
    let messages = vec![Message::text(Role::System, "Be brief."), user("Hello")];
    let counted = Request::new("openai-chat", CLAUDE, Input::CountTokens(messages));
    let body = kept("count-tokens", json!({}), &Request { tools: vec![tool("weather.get")], ..counted.clone() });
    let converse = &body["input"]["converse"];
    assert_eq!(converse["system"], json!([{"text": "Be brief."}]));
    assert!(converse["toolConfig"]["tools"][0]["toolSpec"]["name"].as_str().unwrap().starts_with("weather_get_"));
    let http = encode(json!({}), &counted).unwrap();
    // Profiles can't count.
    assert_eq!(http.path[1..], ["anthropic.claude-sonnet-4-5-20250929-v1:0".to_owned(), "count-tokens".to_owned()]);
    assert_eq!(http.framing, Framing::Whole);
}
