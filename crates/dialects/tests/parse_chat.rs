//! Chat requests, good and bad.

mod common;

use common::{CHAT, chat, one_message, restore, shallow, wrong};
use serde_json::{Value, json};
use witgate_dialects::{default_limits, parse, routes};
use witgate_model::normaliser::Limits;
use witgate_model::{
    CacheMark, ErrorKind, Input, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart,
    ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

fn text(text: &str) -> Part {
    Part::text(text)
}

fn object_text(text: &str) -> TextPart {
    TextPart { text: text.into(), cache: None, extra: Some("{}".into()) }
}

/// A body with one good message and these members.
fn with(members: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"Hi"}}],{members}}}"#)
}

#[test]
fn the_routes_are_those_of_the_documents() {
    let all: Vec<_> =
        routes().iter().map(|route| format!("{} {} {}", route.method, route.path, route.dialect)).collect();
    assert_eq!(
        all,
        [
            "POST /v1/chat/completions openai-chat",
            "POST /chat/completions openai-chat",
            "POST /openai/deployments/{model}/chat/completions openai-chat",
            "POST /v1/completions openai-completions",
            "POST /completions openai-completions",
            "POST /v1/embeddings openai-embeddings",
            "POST /embeddings openai-embeddings",
            "POST /openai/deployments/{model}/embeddings openai-embeddings",
            "POST /v1/responses openai-responses",
            "POST /responses openai-responses",
            "GET /v1/responses/{id} openai-responses",
            "GET /v1/responses/{id}/input_items openai-responses",
            "DELETE /v1/responses/{id} openai-responses",
            "POST /v1/responses/{id}/cancel openai-responses",
            "POST /v1/messages anthropic-messages",
            "POST /v1/messages/count_tokens anthropic-messages",
            "POST /llm awa-llm",
            "POST /invoke llm-exe",
            "POST /api/chat ollama-chat",
            "POST /api/generate ollama-generate",
            "POST /api/embed ollama-embed",
            "POST /api/embeddings ollama-embeddings",
            "POST /invoke/llm llm-invocation",
            "POST /invoke/llm/enqueue llm-invocation",
            "POST /chat bedrock-chat",
            "POST /{stage}/chat bedrock-chat",
        ]
    );
}

#[test]
fn an_unknown_dialect_is_an_error_that_names_those_there_are() {
    let error = parse("klingon", "/", &default_limits(), b"{}").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other("internal".into()));
    let there = "there is no dialect \"klingon\"; there are ";
    let names = error.message.strip_prefix(there).unwrap().split(", ").collect::<Vec<_>>();
    let known: std::collections::BTreeSet<_> = routes().iter().map(|route| route.dialect.as_str()).collect();
    assert_eq!(names.into_iter().collect::<std::collections::BTreeSet<_>>(), known);
}

#[test]
fn every_fixture_can_be_restored_from_what_was_parsed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/requests");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Requests of other dialects have folders of their own.
        if path.is_dir() {
            continue;
        }
        let body = std::fs::read_to_string(&path).unwrap();
        let parsed = chat(&body).unwrap_or_else(|error| panic!("{}: {}", path.display(), error.message));
        let mut wanted: Value = serde_json::from_str(&body).unwrap();
        // What is equal in meaning: a lone stop string, and `null` content, which is no content.
        if let Some(stop) = wanted.get_mut("stop").filter(|stop| stop.is_string()) {
            *stop = json!([stop]);
        }
        for message in wanted["messages"].as_array_mut().unwrap() {
            message.as_object_mut().unwrap().retain(|name, value| name != "content" || !value.is_null());
        }
        let include_usage = parsed.render.contains("usage");
        assert_eq!(restore(&parsed.request, include_usage), wanted, "{}", path.display());
        count += 1;
    }
    assert!(count >= 20, "the fixtures are missing");
}

#[test]
fn a_content_string_is_one_part_without_extra_and_an_array_is_parts_with_extra() {
    let message = one_message(r#"{"role":"user","content":"a\"b"}"#).unwrap();
    assert_eq!(message, Message::text(Role::User, "a\"b"));
    let message =
        one_message(r#"{"role":"user","content":[{"type":"text","text":"a"},{"text":"b","x":null,"type":"text"}]}"#);
    let second = TextPart { extra: Some(r#"{"x":null}"#.into()), ..object_text("b") };
    assert_eq!(message.unwrap().parts, [Part::Text(object_text("a")), Part::Text(second)]);
}

#[test]
fn images_audio_and_files_become_media() {
    let message = one_message(
        r#"{"role":"user","content":[
            {"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD","detail":"high","x":1}},
            {"type":"image_url","image_url":{"url":"data:image/png,raw"}},
            {"type":"image_url","image_url":{"url":"data:text/plain;charset=x;base64,QQ=="}},
            {"type":"input_audio","input_audio":{"data":"QQ==","format":"mp3"}},
            {"type":"file","file":{"file_data":"data:application/pdf;base64,JVBE","filename":"a.pdf"}},
            {"type":"file","file":{"file_id":"file-1"}}]}"#,
    )
    .unwrap();
    let media = |kind, mime: Option<&str>, source, extra: &str| MediaPart {
        kind,
        mime: mime.map(String::from),
        source,
        name: None,
        detail: None,
        cache: None,
        extra: Some(extra.into()),
    };
    let base64 = |data: &str| MediaSource::Base64(data.into());
    let image = media(MediaKind::Image, Some("image/png"), base64("QUJD"), r#"{"image_url":{"x":1}}"#);
    let pdf = media(MediaKind::Document, Some("application/pdf"), base64("JVBE"), "{}");
    assert_eq!(
        message.parts,
        [
            Part::Media(MediaPart { detail: Some("high".into()), ..image }),
            Part::Media(media(MediaKind::Image, None, MediaSource::Url("data:image/png,raw".into()), "{}")),
            Part::Media(media(
                MediaKind::Image,
                None,
                MediaSource::Url("data:text/plain;charset=x;base64,QQ==".into()),
                "{}"
            )),
            Part::Media(media(MediaKind::Audio, Some("audio/mp3"), base64("QQ=="), "{}")),
            Part::Media(MediaPart { name: Some("a.pdf".into()), ..pdf }),
            Part::Media(media(MediaKind::Document, None, MediaSource::FileId("file-1".into()), "{}")),
        ]
    );
}

#[test]
fn an_assistant_message_gives_reasoning_content_refusal_and_tool_calls_in_this_order() {
    let message = one_message(
        r#"{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":" {\"a\": 1} "}},
            {"id":"c2","function":{"name":"g","arguments":""}}],"refusal":"no","content":"yes",
            "reasoning_content":"hm","reasoning_signature":"sig"}"#,
    )
    .unwrap();
    let call = |id: &str, name: &str, arguments: &str| {
        Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), ..Default::default() })
    };
    assert_eq!(
        message.parts,
        [
            Part::Reasoning(ReasoningPart { text: "hm".into(), signature: Some("sig".into()), ..Default::default() }),
            text("yes"),
            Part::Refusal(TextPart { text: "no".into(), ..Default::default() }),
            call("c1", "f", " {\"a\": 1} "),
            call("c2", "g", "{}"),
        ]
    );
    assert_eq!(message.extra, None);
}

#[test]
fn a_signature_and_encrypted_reasoning_are_told_apart_by_their_names() {
    let redacted = Part::Reasoning(ReasoningPart { redacted: Some("enc".into()), ..Default::default() });
    let signed = Part::Reasoning(ReasoningPart { signature: Some("sig".into()), ..Default::default() });
    let message = one_message(r#"{"role":"assistant","content":"x","reasoning_encrypted_content":"enc"}"#).unwrap();
    assert_eq!(message.parts, [redacted.clone(), text("x")]);
    let message = one_message(r#"{"role":"assistant","content":"x","reasoning_signature":"sig"}"#).unwrap();
    assert_eq!(message.parts, [signed.clone(), text("x")]);
    let both = r#"{"role":"assistant","reasoning_encrypted_content":"enc","reasoning_signature":"sig","content":"x"}"#;
    assert_eq!(one_message(both).unwrap().parts, [signed, redacted, text("x")]);
}

#[test]
fn a_tool_message_is_one_result() {
    let message = one_message(
        r#"{"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"a"},{"type":"video_url","v":1}]}"#,
    )
    .unwrap();
    let result = ToolResult {
        call_id: "c1".into(),
        content: vec![
            ResultContent::Text(object_text("a")),
            ResultContent::Other(r#"{"type":"video_url","v":1}"#.into()),
        ],
        ..Default::default()
    };
    assert_eq!(message.parts, [Part::ToolResult(result)]);
}

#[test]
fn tool_calls_that_the_contract_cannot_hold_stay_whole() {
    for call in [
        r#"{"id":"c","type":"custom","custom":{"name":"sh","input":"ls"}}"#,
        r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{\"cut\":"}}"#,
        r#"{"id":"c","type":"function","function":{"name":"f","arguments":"[1]"}}"#,
    ] {
        let message = one_message(&format!(r#"{{"role":"assistant","tool_calls":[{call}]}}"#)).unwrap();
        assert_eq!(message.parts, [Part::Other(call.into())]);
    }
}

#[test]
fn cache_marks_are_taken_where_the_contract_can_hold_them() {
    let part = |cache: &str| {
        let body = format!(r#"{{"role":"user","content":[{{"type":"text","text":"a","cache_control":{cache}}}]}}"#);
        match one_message(&body).unwrap().parts.remove(0) {
            Part::Text(part) => (part.cache, part.extra.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(part(r#"{"type":"ephemeral"}"#), (Some(CacheMark { ttl: None }), "{}".into()));
    assert_eq!(part(r#"{"ttl":"5m","type":"ephemeral"}"#), (Some(CacheMark { ttl: Some("5m".into()) }), "{}".into()));
    assert_eq!(part("null"), (None, "{}".into()));
    assert_eq!(part(r#"{"type":"eternal"}"#), (None, r#"{"cache_control":{"type":"eternal"}}"#.into()));
    assert_eq!(part(r#"{"type":"ephemeral","x":1}"#), (None, r#"{"cache_control":{"type":"ephemeral","x":1}}"#.into()));
}

#[test]
fn unknown_members_stay_as_they_were_written_and_in_order() {
    let request = chat(&with(r#""b": [1.50, 1e400, {"z":null}] ,"a":null,"\u0063\n":"\u00e9","#.trim_end_matches(',')));
    assert_eq!(
        request.unwrap().request.extra.unwrap(),
        r#"{"b":[1.50, 1e400, {"z":null}],"a":null,"\u0063\n":"\u00e9"}"#
    );
    let message =
        one_message(r#"{"x": 1,"role":"user","content":"a","refusal":"not an assistant's","y":{} }"#).unwrap();
    assert_eq!(message.extra.unwrap(), r#"{"x":1,"y":{},"refusal":"not an assistant's"}"#);
}

#[test]
fn the_name_repeat_penalty_is_left_to_the_backend() {
    let request = chat(&with(r#""repeat_penalty":1.1,"repetition_penalty":1.2"#)).unwrap().request;
    assert_eq!(request.sampling.repetition_penalty, Some(1.2));
    assert_eq!(request.extra.unwrap(), r#"{"repeat_penalty":1.1}"#);
}

#[test]
fn null_means_not_given() {
    let nulls = [
        "model",
        "stream",
        "stream_options",
        "user",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "n",
        "max_tokens",
        "logit_bias",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "reasoning",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
    ];
    let members: Vec<_> = nulls.iter().map(|name| format!("\"{name}\":null")).collect();
    assert_eq!(chat(&with(&members.join(","))).unwrap(), chat(&with(r#""n":null"#)).unwrap());
    assert_eq!(chat(&with(&members.join(","))).unwrap().request.extra, None);
}

#[test]
fn stream_options_are_split_between_the_renderer_and_the_backend() {
    let parsed = chat(&with(r#""stream":true,"stream_options":{"include_usage":true,"x":2}"#)).unwrap();
    assert_eq!(parsed.request.extra.unwrap(), r#"{"stream_options":{"x":2}}"#);
    assert!(parsed.request.stream);
    let parsed = chat(&with(r#""stream":true,"stream_options":{"include_usage":true}"#)).unwrap();
    assert_eq!(parsed.request.extra, None);
    assert_ne!(parsed.render, chat(&with(r#""stream":true"#)).unwrap().render);
}

#[test]
fn tool_choices_and_response_formats_are_mapped_or_stay_whole() {
    let choice = |choice: &str| chat(&with(&format!("\"tool_choice\":{choice}"))).unwrap().request.tool_choice.unwrap();
    assert_eq!(choice(r#""auto""#), ToolChoice::Auto);
    assert_eq!(choice(r#""none""#), ToolChoice::None);
    assert_eq!(choice(r#""required""#), ToolChoice::Required);
    assert_eq!(choice(r#""any""#), ToolChoice::Other(r#""any""#.into()));
    assert_eq!(choice(r#"{"type":"function","function":{"name":"f"}}"#), ToolChoice::Tool("f".into()));
    for whole in [r#"{"type":"function","function":{"name":"f"},"x":1}"#, r#"{"type":"custom","custom":{"name":"f"}}"#]
    {
        assert_eq!(choice(whole), ToolChoice::Other(whole.into()));
    }
    let format =
        |format: &str| chat(&with(&format!("\"response_format\":{format}"))).unwrap().request.response_format.unwrap();
    assert_eq!(format(r#"{"type":"text"}"#), ResponseFormat::Text);
    assert_eq!(format(r#"{"type":"json_object"}"#), ResponseFormat::JsonObject);
    for whole in [
        r#"{"type":"json_object","schema":{"type":"object"}}"#,
        r#"{"type":"grammar","grammar":"x"}"#,
        r#"{"type":"json_schema","json_schema":{"name":"x"}}"#,
        r#"{"type":"json_schema","json_schema":{"name":"x","schema":{},"x":1}}"#,
    ] {
        assert_eq!(format(whole), ResponseFormat::Other(whole.into()));
    }
}

#[test]
fn reasoning_effort_and_a_reasoning_object_agree_or_are_refused() {
    let reasoning = |members: &str| chat(&with(members)).map(|parsed| parsed.request.reasoning.unwrap());
    let low = Some("low".to_owned());
    assert_eq!(reasoning(r#""reasoning_effort":"low""#), Ok(Reasoning { effort: low.clone(), ..Default::default() }));
    assert_eq!(
        reasoning(r#""reasoning":{"max_tokens":9,"enabled":true,"summary":"auto","x":1},"reasoning_effort":"low""#),
        Ok(Reasoning {
            effort: low,
            budget_tokens: Some(9),
            enabled: Some(true),
            summary: Some("auto".into()),
            extra: Some(r#"{"x":1}"#.into())
        })
    );
    let body = with(r#""reasoning":{"effort":"high"},"reasoning_effort":"low""#);
    let column = body.find("\"low\"").unwrap() + 1;
    let (param, message) = wrong(&body);
    assert_eq!(param, "reasoning_effort");
    assert_eq!(
        message,
        format!(
            "`reasoning_effort` and `reasoning.effort` contradict each other (\"low\" and \"high\") (line 1, column {column})"
        )
    );
}

#[test]
fn tools_that_are_not_functions_stay_whole() {
    let request = chat(&with(r#""tools":[{"type":"web_search","x":1}]"#)).unwrap().request;
    assert_eq!(request.tools, [Tool::Other(r#"{"type":"web_search","x":1}"#.into())]);
}

#[test]
fn the_path_names_the_model_where_the_body_does_not() {
    let model = |path: &str, body: &str| {
        parse("openai-chat", path, &default_limits(), body.as_bytes()).map(|parsed| parsed.request.model)
    };
    let silent = with(r#""n":1"#);
    assert_eq!(model("/openai/deployments/gpt-4o/chat/completions", &silent), Ok("gpt-4o".into()));
    assert_eq!(
        model("/openai/deployments/org%2Fmodel%20x/chat/completions?api-version=2024", &silent),
        Ok("org/model x".into())
    );
    assert_eq!(model("/openai/deployments/a/chat/completions", &with(r#""model":"b""#)), Ok("b".into()));
    assert_eq!(model(CHAT, &silent), Ok(String::new()));
    for broken in ["%zz", "%4", "%ff"] {
        let path = format!("/openai/deployments/{broken}/chat/completions");
        assert_eq!(model(&path, &silent).unwrap_err().param.as_deref(), Some("model"));
    }
}

#[test]
fn every_wrong_request_gets_its_place_and_what_would_be_right() {
    let table: &[(&str, &str, &str)] = &[
        ("", "", "the body is empty: expected a JSON object"),
        (" \n ", "", "the body is empty: expected a JSON object"),
        ("[]", "", "the body must be an object, found an array (line 1, column 1)"),
        ("null", "", "the body must be an object, found null (line 1, column 1)"),
        ("hello", "", "invalid JSON: expected an object, found `hello` (line 1, column 1)"),
        ("\u{feff}{}", "", "invalid JSON: the body starts with a byte order mark; JSON is UTF-8 without one"),
        ("{", "", "invalid JSON: expected a member's name in double quotes, the body ends here (line 1, column 2)"),
        ("{,}", "", "invalid JSON: expected a member's name in double quotes, found `,` (line 1, column 2)"),
        ("{'a':1}", "", "invalid JSON: expected a member's name in double quotes, found `'` (line 1, column 2)"),
        ("{\"a\" 1}", "", "invalid JSON: expected a colon behind the name \"a\", found `1` (line 1, column 6)"),
        ("{\"a\":1,}", "", "invalid JSON: expected a member's name in double quotes, found `}` (line 1, column 8)"),
        ("{\"a\":1 \"b\":2}", "", "invalid JSON: expected a comma or a closing brace, found `\"` (line 1, column 8)"),
        ("{\"a\":}", "a", "invalid JSON at `a`: expected a JSON value, found `}` (line 1, column 6)"),
        ("{\"a\":NaN}", "a", "invalid JSON at `a`: expected a JSON value, found `NaN` (line 1, column 6)"),
        ("{\"a\":[1,]}", "a[1]", "invalid JSON at `a[1]`: expected a JSON value, found `]` (line 1, column 9)"),
        (
            "{\"a\":[1 2]}",
            "a[0]",
            "invalid JSON at `a[0]`: expected a comma or a closing bracket, found `2` (line 1, column 9)",
        ),
        ("{\"a\":[}", "a[0]", "invalid JSON at `a[0]`: expected a JSON value, found `}` (line 1, column 7)"),
        ("{\"a\":nul}", "a", "invalid JSON at `a`: expected a JSON value, found `nul` (line 1, column 6)"),
        ("{\"a\":trueish}", "a", "invalid JSON at `a`: expected a JSON value, found `trueish` (line 1, column 6)"),
        ("{\"a\":01}", "a", "invalid JSON at `a`: expected a JSON number, found `01` (line 1, column 6)"),
        ("{\"a\":1.}", "a", "invalid JSON at `a`: expected a JSON number, found `1.` (line 1, column 6)"),
        ("{\"a\":-}", "a", "invalid JSON at `a`: expected a JSON number, found `-` (line 1, column 6)"),
        ("{\"a\":1e}", "a", "invalid JSON at `a`: expected a JSON number, found `1e` (line 1, column 6)"),
        ("{\"a\":\"x", "a", "invalid JSON at `a`: a string that begins here is not closed (line 1, column 6)"),
        (
            "{\"a\":\"x\ty\"}",
            "a",
            "invalid JSON at `a`: a string holds the control character U+0009; write it as \\u0009 (line 1, column 8)",
        ),
        (
            "{\"a\":\"\\x\"}",
            "a",
            "invalid JSON at `a`: a backslash is followed by none of `\"`, `\\`, `/`, `b`, `f`, `n`, `r`, `t`, `u` (line 1, column 7)",
        ),
        (
            "{\"a\":\"\\u12g4\"}",
            "a",
            "invalid JSON at `a`: \\u is not followed by four hexadecimal digits (line 1, column 7)",
        ),
        (
            "{\"a\":\"\\ud800\"}",
            "a",
            "invalid JSON at `a`: \\ud800 is half of a surrogate pair; both halves must stand together (line 1, column 7)",
        ),
        (
            "{\"a\":{\"b\":\"\\udc00\\ud800\"}}",
            "a.b",
            "invalid JSON at `a.b`: \\udc00 is half of a surrogate pair; both halves must stand together (line 1, column 12)",
        ),
        (
            "{\"a\":\"\\ud800\\u0041\"}",
            "a",
            "invalid JSON at `a`: \\ud800 is half of a surrogate pair; both halves must stand together (line 1, column 7)",
        ),
        ("{}", "messages", "`messages` is missing: a chat request needs an array of messages (line 1, column 1)"),
        ("{\"messages\":{}}", "messages", "`messages` must be an array, found an object (line 1, column 13)"),
        ("{\"messages\":null}", "messages", "`messages` must be an array, found null (line 1, column 13)"),
        ("{\"messages\":[]}", "messages", "`messages` must hold at least one message, found none (line 1, column 13)"),
        ("{\"messages\":[1]}", "messages[0]", "`messages[0]` must be an object, found a number (line 1, column 14)"),
        (
            "{\"messages\":[{}]}",
            "messages[0].role",
            "`messages[0].role` is missing: every message needs one, as \"user\" (line 1, column 14)",
        ),
        (
            "{\"messages\":[{\"role\":7}]}",
            "messages[0].role",
            "`messages[0].role` must be a string, found a number (line 1, column 22)",
        ),
        (
            "{\"messages\":[{\"role\":\"\"}]}",
            "messages[0].role",
            "`messages[0].role` is empty: expected a role, as \"user\" (line 1, column 22)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\"}]}",
            "messages[0].content",
            "`messages[0].content` is missing: a string or an array of parts (line 1, column 14)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\n  \"content\":null}]}",
            "messages[0].content",
            "`messages[0].content` must be a string or an array of parts, found null (line 2, column 13)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":5}]}",
            "messages[0].content",
            "`messages[0].content` must be a string or an array of parts, found a number (line 1, column 39)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}",
            "messages[0].content[0]",
            "`messages[0].content[0]` must be an object, found a string (line 1, column 40)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{}]}]}",
            "messages[0].content[0].type",
            "`messages[0].content[0].type` is missing: every part needs one, as \"text\" (line 1, column 40)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":3}]}]}",
            "messages[0].content[0].type",
            "`messages[0].content[0].type` must be a string, found a number (line 1, column 48)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
            "messages[0].content[0].text",
            "`messages[0].content[0].text` is missing: a part of the type \"text\" needs it (line 1, column 40)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"http://a\"}]}]}",
            "messages[0].content[0].image_url",
            "`messages[0].content[0].image_url` must be an object, found a string (line 1, column 72)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
            "messages[0].content[0].image_url.url",
            "`messages[0].content[0].image_url.url` is missing: an http(s) URL, or data:<mime>;base64,<data> (line 1, column 72)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{}}]}]}",
            "messages[0].content[0].file.file_data",
            "`messages[0].content[0].file.file_data` is missing, and so is `file_id`: one is needed (line 1, column 62)",
        ),
        (
            "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
            "messages[0].tool_call_id",
            "`messages[0].tool_call_id` is missing: a tool message names the call it answers (line 1, column 14)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\"}}]}]}",
            "messages[0].tool_calls",
            "`messages[0].tool_calls` is only for messages of the role \"assistant\" (line 1, column 56)",
        ),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]}]}",
            "messages[0].tool_calls[0].function.arguments",
            "`messages[0].tool_calls[0].function.arguments` must be a string that holds JSON, found an object (line 1, column 93)",
        ),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}]}",
            "messages[0].tool_calls[0].id",
            "`messages[0].tool_calls[0].id` is missing: the id that the tool's result refers to (line 1, column 48)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"role\":\"user\"}]}",
            "messages[0].role",
            "`messages[0].role` is given twice in the same object (line 1, column 43)",
        ),
        (
            "{\"x\":[{\"a\":1,\"\\u0061\":2}]}",
            "x[0].a",
            "`x[0].a` is given twice in the same object (line 1, column 14)",
        ),
        (
            "{\"x y\":[NaN]}",
            "[\"x y\"][0]",
            "invalid JSON at `[\"x y\"][0]`: expected a JSON value, found `NaN` (line 1, column 9)",
        ),
        (
            "{\"temperature\":\"1\"}",
            "temperature",
            "`temperature` must be a number, found a string (line 1, column 16)",
        ),
        (
            "{\"temperature\":1e999}",
            "temperature",
            "`temperature` must be a number of 64 bits, found 1e999 (line 1, column 16)",
        ),
        (
            "{\"temperature\":NaN}",
            "temperature",
            "invalid JSON at `temperature`: expected a number, found `NaN` (line 1, column 16)",
        ),
        (
            "{\"temperature\":-Infinity}",
            "temperature",
            "invalid JSON at `temperature`: expected a JSON number, found `-Infinity` (line 1, column 16)",
        ),
        ("{\"n\":-1}", "n", "`n` must be a whole number from 1 to 4294967295, found -1 (line 1, column 6)"),
        (
            "{\"n\":4294967296}",
            "n",
            "`n` must be a whole number from 1 to 4294967295, found 4294967296 (line 1, column 6)",
        ),
        ("{\"n\":1.0}", "n", "`n` must be a whole number from 1 to 4294967295, found 1.0 (line 1, column 6)"),
        ("{\"n\":true}", "n", "`n` must be a whole number from 1 to 4294967295, found a boolean (line 1, column 6)"),
        (
            "{\"seed\":9223372036854775808}",
            "seed",
            "`seed` must be a whole number from -9223372036854775808 to 9223372036854775807, found 9223372036854775808 (line 1, column 9)",
        ),
        ("{\"stop\":[1]}", "stop[0]", "`stop[0]` must be a string, found a number (line 1, column 10)"),
        ("{\"stop\":1}", "stop", "`stop` must be a string or an array of strings, found a number (line 1, column 9)"),
        ("{\"stream\":\"yes\"}", "stream", "`stream` must be a boolean, found a string (line 1, column 11)"),
        ("{\"logit_bias\":[]}", "logit_bias", "`logit_bias` must be an object, found an array (line 1, column 15)"),
        ("{\"tools\":{}}", "tools", "`tools` must be an array, found an object (line 1, column 10)"),
        (
            "{\"tools\":[{}]}",
            "tools[0].type",
            "`tools[0].type` is missing: every tool needs one, as \"function\" (line 1, column 11)",
        ),
        (
            "{\"tools\":[{\"type\":\"function\",\"function\":{}}]}",
            "tools[0].function.name",
            "`tools[0].function.name` is missing: the name of the function (line 1, column 41)",
        ),
        (
            "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":\"{}\"}}]}",
            "tools[0].function.parameters",
            "`tools[0].function.parameters` must be an object, found a string (line 1, column 66)",
        ),
        (
            "{\"tool_choice\":5}",
            "tool_choice",
            "`tool_choice` must be \"auto\", \"none\", \"required\" or an object that names a tool, found a number (line 1, column 16)",
        ),
        (
            "{\"response_format\":{}}",
            "response_format.type",
            "`response_format.type` is missing: \"text\", \"json_object\" or \"json_schema\" (line 1, column 20)",
        ),
        (
            "{\"response_format\":{\"type\":\"json_schema\"}}",
            "response_format.json_schema",
            "`response_format.json_schema` is missing: an object with `name` and `schema` (line 1, column 20)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":\"é\"}]} x",
            "",
            "invalid JSON: expected the end of the body behind the JSON value, found `x` (line 1, column 46)",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}{}",
            "",
            "invalid JSON: expected the end of the body behind the JSON value, found `{` (line 1, column 45)",
        ),
    ];
    let found: Vec<_> = table.iter().map(|(body, ..)| (*body, wrong(body))).collect();
    let wanted: Vec<_> =
        table.iter().map(|(body, param, message)| (*body, ((*param).into(), (*message).into()))).collect();
    let differing: Vec<_> = found.iter().zip(&wanted).filter(|(found, wanted)| found != wanted).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
fn invalid_utf_8_is_told_with_its_offset() {
    let error = parse("openai-chat", CHAT, &default_limits(), b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!(error.message, "invalid JSON: the body is not UTF-8, the byte at offset 6 (0xff) begins no character");
    assert_eq!((error.param, error.status), (None, Some(400)));
}

#[test]
fn nesting_is_bounded_everywhere() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    // The body itself is the first level.
    assert!(chat(&with(&format!("\"x\":{}", nested(63)))).is_ok());
    let (param, message) = wrong(&with(&format!("\"x\":{}", nested(64))));
    assert_eq!(param, format!("x{}", "[0]".repeat(63)));
    assert!(message.contains("is nested deeper than the 64 levels allowed (line 1, column "), "{message}");

    let objects = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    for body in [
        with(&format!(r#""tools":[{{"type":"function","function":{{"name":"f","parameters":{objects}}}}}]"#)),
        with(&format!(r#""response_format":{{"type":"json_schema","json_schema":{{"schema":{objects}}}}}"#)),
        with(&format!(r#""logit_bias":{objects}"#)),
        format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"x","y":{objects}}}]}}]}}"#),
    ] {
        assert!(wrong(&body).1.contains("is nested deeper than the 64 levels allowed"), "{body}");
    }
    let arguments = serde_json::to_string(&objects).unwrap();
    let call = format!(r#"{{"id":"c","function":{{"name":"f","arguments":{arguments}}}}}"#);
    let (param, message) = wrong(&format!(r#"{{"messages":[{{"role":"assistant","tool_calls":[{call}]}}]}}"#));
    assert_eq!(param, "messages[0].tool_calls[0].function.arguments");
    assert!(message.contains("holds JSON that is nested deeper than the 64 levels allowed"), "{message}");

    // A limit smaller than the dialect's own nesting holds too.
    let error = parse("openai-chat", CHAT, &shallow(2), with(r#""n":1"#).as_bytes()).unwrap_err();
    assert!(error.message.starts_with("`messages[0]` is nested deeper than the 2 levels allowed"), "{}", error.message);
}

#[test]
fn the_number_of_messages_is_bounded() {
    let message = r#"{"role":"user","content":"a"}"#;
    let body = |count: usize| format!(r#"{{"messages":[{}]}}"#, vec![message; count].join(","));
    let limits = Limits { depth: 0, messages: 3 };
    assert!(parse("openai-chat", CHAT, &limits, body(3).as_bytes()).is_ok());
    let error = parse("openai-chat", CHAT, &limits, body(4).as_bytes()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[3]"));
    assert!(error.message.starts_with("`messages[3]` is one message too many: at most 3 are allowed"));
}

#[test]
fn a_bound_of_nought_means_the_default() {
    let limits = Limits::default();
    assert!(parse("openai-chat", CHAT, &limits, with(r#""x":[[1]]"#).as_bytes()).is_ok());
    let deep = with(&format!("\"x\":{}{}", "[".repeat(65), "]".repeat(65)));
    assert!(parse("openai-chat", CHAT, &limits, deep.as_bytes()).is_err());
}

#[test]
fn many_members_of_one_object_are_checked_for_duplicates_too() {
    let members: Vec<_> = (0..1000).map(|number| format!("\"m{number}\":{number}")).collect();
    assert!(chat(&with(&format!("\"x\":{{{}}}", members.join(",")))).is_ok());
    assert!(chat(&with(&members.join(","))).is_ok());
    let (param, message) = wrong(&with(&format!("\"x\":{{{},\"m500\":1}}", members.join(","))));
    assert_eq!(param, "x.m500");
    assert!(message.starts_with("`x.m500` is given twice in the same object"), "{message}");
    assert_eq!(wrong(&with(&format!("{},\"m7\":1", members.join(",")))).0, "m7");
    // The object around one of many members still knows where it is.
    assert_eq!(wrong(&with(&format!("\"y\":{{\"x\":{{{}}},\"z\":NaN}}", members.join(",")))).0, "y.z");
}

#[test]
fn a_long_path_is_cut_in_the_message() {
    let name = "n".repeat(1_000_000);
    let (param, message) = wrong(&format!("{{\"{name}\":NaN}}"));
    assert_eq!(param, format!("[\"{}…\"]", "n".repeat(64)));
    assert!(message.len() < 400);
    let deep = format!("{}NaN", "{\"0123456789\":".repeat(60));
    assert!(wrong(&deep).0.len() < 300);
}

#[test]
fn surrogate_pairs_and_all_escapes_are_read() {
    let message = one_message(r#"{"role":"user","content":"\ud83d\ude00\"\\\/\b\f\n\r\t\u00E9\u0000x"}"#).unwrap();
    assert_eq!(message.parts, [text("😀\"\\/\u{8}\u{c}\n\r\té\0x")]);
}

#[test]
fn a_type_behind_a_large_member_is_found() {
    let data = "A".repeat(100_000);
    let body = format!(
        r#"{{"role":"user","content":[{{"image_url":{{"url":"data:image/png;base64,{data}"}},"type":"image_url"}}]}}"#
    );
    let Part::Media(media) = one_message(&body).unwrap().parts.remove(0) else { panic!("no media") };
    assert_eq!(media.source, MediaSource::Base64(data));
}

#[test]
fn roles_of_other_times_are_kept() {
    let message = one_message(r#"{"role":"function","name":"f","content":null,"tool_call_id":"x"}"#).unwrap();
    assert_eq!(message.role, Role::Other("function".into()));
    assert_eq!(message.name.as_deref(), Some("f"));
    assert_eq!(message.extra.as_deref(), Some(r#"{"tool_call_id":"x"}"#));
    let Input::Chat(messages) =
        chat(include_str!("../../../tests/fixtures/requests/legacy-functions.json")).unwrap().request.input
    else {
        panic!("no chat")
    };
    assert!(messages[1].extra.as_ref().unwrap().starts_with("{\"function_call\":{"));
}
