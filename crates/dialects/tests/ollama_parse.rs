//! Requests in Ollama's API, read.

mod common;

use common::shallow;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use witgate_dialects::{default_limits, parse};
use witgate_model::normaliser::{Limits, Parsed};
use witgate_model::{
    EmbeddingText, Error, ErrorKind, Input, JsonSchema, MediaSource, Message, Part, Reasoning, Request, ResponseFormat,
    ResultContent, Role, Sampling, TextPart, Tool,
};

fn read(dialect: &str, body: &str) -> Result<Parsed, Error> {
    parse(dialect, "/", &default_limits(), body.as_bytes())
}

fn chat(body: &str) -> Request {
    read("ollama-chat", body).unwrap().request
}

fn generate(body: &str) -> Request {
    read("ollama-generate", body).unwrap().request
}

fn messages(request: &Request) -> &[Message] {
    match &request.input {
        Input::Chat(messages) => messages,
        other => panic!("a chat, but {other:?}"),
    }
}

/// The messages of a chat.
fn conversation(messages: &str) -> Vec<Message> {
    self::messages(&chat(&format!(r#"{{"messages":{messages}}}"#))).to_vec()
}

/// `param` and message of what is wrong with a request.
#[track_caller]
fn wrong(dialect: &str, body: &str) -> (String, String) {
    let error = read(dialect, body).expect_err("the request is wrong");
    assert_eq!((&error.kind, error.status), (&ErrorKind::InvalidRequest, Some(400)));
    (error.param.unwrap_or_default(), error.message)
}

/// Id of each call, and of the call of each result.
fn ids(messages: &[Message]) -> Vec<String> {
    let parts = messages.iter().flat_map(|message| &message.parts);
    let id = |part: &Part| match part {
        Part::ToolCall(call) => Some(call.id.clone()),
        Part::ToolResult(result) => Some(format!("-> {}", result.call_id)),
        _ => None,
    };
    parts.filter_map(id).collect()
}

#[test]
fn an_answer_is_streamed_unless_the_client_says_no() {
    for (stream, wanted) in
        [("", true), (r#","stream":true"#, true), (r#","stream":null"#, true), (r#","stream":false"#, false)]
    {
        for (dialect, body) in [
            ("ollama-chat", format!(r#"{{"messages":[{{"role":"user","content":"a"}}]{stream}}}"#)),
            ("ollama-generate", format!(r#"{{"prompt":"a"{stream}}}"#)),
        ] {
            let parsed = read(dialect, &body).unwrap();
            assert_eq!(parsed.request.stream, wanted, "{body}");
            assert_eq!(parsed.render, if wanted { "stream" } else { "" });
        }
    }
}

#[test]
fn options_have_their_places() {
    let request = chat(
        r#"{"model":"m","messages":[{"role":"user","content":"a"}],"logprobs":true,"top_logprobs":3,"keep_alive":"5m",
            "options":{"temperature":0.5,"top_k":40,"top_p":0.9,"min_p":0.05,"seed":-7,"stop":["x","y"],"num_predict":42,
                       "repeat_penalty":1.1,"presence_penalty":0.25,"frequency_penalty":0.75,
                       "num_ctx": 4096,"mirostat":2,"num_gpu":null}}"#,
    );
    assert_eq!(
        request.sampling,
        Sampling {
            temperature: Some(0.5),
            top_k: Some(40),
            top_p: Some(0.9),
            min_p: Some(0.05),
            seed: Some(-7),
            stop: vec!["x".into(), "y".into()],
            max_tokens: Some(42),
            repetition_penalty: Some(1.1),
            presence_penalty: Some(0.25),
            frequency_penalty: Some(0.75),
            logprobs: Some(true),
            top_logprobs: Some(3),
            ..Sampling::default()
        }
    );
    assert_eq!(request.model, "m");
    assert_eq!(request.extra.as_deref(), Some(r#"{"keep_alive":"5m","options":{"num_ctx":4096,"mirostat":2}}"#));
}

#[test]
fn a_stop_sequence_may_stand_alone() {
    let request = generate(r#"{"prompt":"a","options":{"stop":"AI assistant:"}}"#);
    assert_eq!(request.sampling.stop, ["AI assistant:"]);
}

#[test]
fn a_negative_num_predict_is_no_bound() {
    for number in ["-1", "-2"] {
        let request = generate(&format!(r#"{{"prompt":"a","options":{{"num_predict": {number}}}}}"#));
        assert_eq!(request.sampling.max_tokens, None);
        assert_eq!(request.extra, Some(format!(r#"{{"options":{{"num_predict":{number}}}}}"#)));
    }
    assert_eq!(generate(r#"{"prompt":"a","options":{"num_predict":0}}"#).sampling.max_tokens, Some(0));
}

#[test]
fn members_that_a_client_writes_empty_were_not_given() {
    let full = read(
        "ollama-generate",
        r#"{"model":"","prompt":"a","suffix":"","system":"","template":"","context":[],"raw":false,"format":"",
            "images":[],"options":{},"think":null,"stream":null,"keep_alive":null,"logprobs":null,"top_logprobs":null}"#,
    );
    assert_eq!(full.unwrap(), read("ollama-generate", r#"{"prompt":"a"}"#).unwrap());
    let full = chat(
        r#"{"messages":[{"role":"user","content":"a","images":null,"thinking":"","tool_calls":null,"tool_name":"",
            "tool_call_id":null}],"tools":null,"format":null,"options":null,"truncate":null,"shift":null}"#,
    );
    assert_eq!(full, chat(r#"{"messages":[{"role":"user","content":"a"}]}"#));
}

#[test]
fn the_form_of_the_answer_is_json_or_a_schema() {
    let format = |format: &str| generate(&format!(r#"{{"prompt":"a","format":{format}}}"#)).response_format;
    assert_eq!(format(r#""json""#), Some(ResponseFormat::JsonObject));
    let schema = r#"{"type": "object","x":1.0}"#;
    let wanted = JsonSchema { schema: schema.into(), ..JsonSchema::default() };
    assert_eq!(format(schema), Some(ResponseFormat::JsonSchema(wanted)));
}

#[test]
fn thinking_is_switched_or_measured() {
    let think = |think: &str| generate(&format!(r#"{{"prompt":"a","think":{think}}}"#)).reasoning.unwrap();
    assert_eq!(think("true"), Reasoning { enabled: Some(true), ..Reasoning::default() });
    assert_eq!(think("false"), Reasoning { enabled: Some(false), ..Reasoning::default() });
    assert_eq!(think(r#""high""#), Reasoning { effort: Some("high".into()), ..Reasoning::default() });
}

#[test]
fn a_message_becomes_its_parts_in_order() {
    let all = conversation(
        r#"[{"role":"System","content":"s"},
            {"role":"assistant","images":["iVBORw0KGgoAAAA"],"tool_calls":[{"id":"c","function":{"name":"f","arguments":{"a": 1}}}],
             "content":"t","thinking":"hm","x":[1]},
            {"role":"tool","tool_call_id":"c","tool_name":"f","content":"r","images":["/9j/4AAQ"]},
            {"role":"ipython","content":""},
            {"role":"user","tool_name":"n"}]"#,
    );
    assert_eq!(all[0], Message::text(Role::System, "s"));
    let [Part::Reasoning(thought), Part::Text(text), Part::Media(image), Part::ToolCall(call)] = &all[1].parts[..]
    else {
        panic!("{:?}", all[1].parts)
    };
    assert_eq!((thought.text.as_str(), text.text.as_str()), ("hm", "t"));
    assert_eq!(
        (image.mime.as_deref(), &image.source),
        (Some("image/png"), &MediaSource::Base64("iVBORw0KGgoAAAA".into()))
    );
    assert_eq!((call.id.as_str(), call.name.as_str(), call.arguments.as_str()), ("c", "f", r#"{"a": 1}"#));
    assert_eq!(call.extra, None);
    assert_eq!(all[1].extra.as_deref(), Some(r#"{"x":[1]}"#));
    let [Part::ToolResult(result)] = &all[2].parts[..] else { panic!("{:?}", all[2].parts) };
    assert_eq!(
        (all[2].name.as_deref(), result.call_id.as_str(), result.extra.as_deref()),
        (Some("f"), "c", Some("{}"))
    );
    let [ResultContent::Text(TextPart { text, .. }), ResultContent::Media(image)] = &result.content[..] else {
        panic!("{:?}", result.content)
    };
    assert_eq!((text.as_str(), image.mime.as_deref()), ("r", Some("image/jpeg")));
    assert_eq!(all[3], Message::text(Role::Other("ipython".into()), ""));
    assert_eq!((&all[4].parts, all[4].extra.as_deref()), (&vec![], Some(r#"{"tool_name":"n"}"#)));
}

#[test]
fn the_first_bytes_tell_the_type_of_an_image() {
    for (data, mime) in [
        ("iVBORw0KGgoAAAANSUhEUg==", Some("image/png")),
        ("/9j/4AAQSkZJRgABAQ==", Some("image/jpeg")),
        ("R0lGODlhAQABAAAAACw=", Some("image/gif")),
        ("UklGRiQAAABXRUJQVlA4", Some("image/webp")),
        ("UklGRiQAAABXQVZFZm10", None),
        ("AAAA", None),
        ("é", None),
    ] {
        let request = generate(&format!(r#"{{"prompt":"a","images":["{data}"]}}"#));
        let [Part::Text(_), Part::Media(image)] = &messages(&request)[0].parts[..] else { panic!("{request:?}") };
        assert_eq!(image.mime.as_deref(), mime, "{data}");
    }
}

#[test]
fn calls_without_an_id_get_one_and_results_find_their_call() {
    let call = |name: &str| format!(r#"{{"function":{{"name":"{name}","arguments":{{}}}}}}"#);
    let turn = |names: &[&str]| {
        let calls: Vec<_> = names.iter().map(|name| call(name)).collect();
        format!(r#"{{"role":"assistant","content":"","tool_calls":[{}]}}"#, calls.join(","))
    };
    let result = |name: &str| format!(r#"{{"role":"tool","content":"r","tool_name":"{name}"}}"#);
    let nameless = r#"{"role":"tool","content":"r"}"#.to_owned();
    let ids = |messages: &[String]| self::ids(&conversation(&format!("[{}]", messages.join(",")))).join(" ");
    assert_eq!(
        ids(&[turn(&["f", "g", "f"]), result("f"), result("g"), result("f")]),
        "unnamed_0 unnamed_1 unnamed_2 -> unnamed_0 -> unnamed_1 -> unnamed_2"
    );
    assert_eq!(
        ids(&[turn(&["f", "g"]), nameless.clone(), nameless.clone()]),
        "unnamed_0 unnamed_1 -> unnamed_0 -> unnamed_1"
    );
    assert_eq!(
        ids(&[turn(&["f", "g"]), result("g"), nameless.clone()]),
        "unnamed_0 unnamed_1 -> unnamed_1 -> unnamed_0"
    );
    // A call of an earlier turn is not open any more.
    assert_eq!(ids(&[turn(&["f"]), turn(&["f"]), result("f")]), "unnamed_0 unnamed_1 -> unnamed_1");
    // What fits no call gets an id of its own.
    assert_eq!(
        ids(&[nameless.clone(), turn(&["f"]), result("x"), result("f"), nameless.clone()]),
        "-> unnamed_0 unnamed_1 -> unnamed_2 -> unnamed_1 -> unnamed_3"
    );
    let by_id = r#"{"role":"tool","content":"r","tool_call_id":"unnamed_1"}"#.to_owned();
    assert_eq!(ids(&[turn(&["f", "f"]), by_id, result("f")]), "unnamed_0 unnamed_1 -> unnamed_1 -> unnamed_0");
}

#[test]
fn a_call_shows_whether_its_index_was_written() {
    let extra = |call: &str| {
        let all = conversation(&format!(r#"[{{"role":"assistant","tool_calls":[{call}]}}]"#));
        match all[0].parts.as_slice() {
            [Part::ToolCall(call)] => call.extra.clone(),
            other => panic!("{other:?}"),
        }
    };
    for (call, wanted) in [
        (r#"{"function":{"name":"f"}}"#, None),
        (r#"{"type":"function","function":{"name":"f"}}"#, None),
        (r#"{"function":{"index":0,"name":"f"}}"#, Some("{}")),
        (r#"{"function":{"index":3,"name":"f"}}"#, Some(r#"{"function":{"index":3}}"#)),
        (r#"{"function":{"name":"f","x":1}}"#, Some(r#"{"function":{"x":1}}"#)),
        (r#"{"function":{"index":0,"name":"f"},"y":2}"#, Some(r#"{"y":2,"function":{"index":0}}"#)),
    ] {
        assert_eq!(extra(call).as_deref(), wanted, "{call}");
    }
}

#[test]
fn tools_keep_what_is_unknown() {
    let request = chat(
        r#"{"messages":[{"role":"user","content":"a"}],"tools":[
            {"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","$defs":{}},"x":1},"items":[2]},
            {"function":{"name":"g"}},
            {"type":"web_search","a":1}]}"#,
    );
    let [Tool::Function(f), Tool::Function(g), Tool::Other(other)] = &request.tools[..] else {
        panic!("{:?}", request.tools)
    };
    assert_eq!((f.name.as_str(), f.description.as_deref()), ("f", Some("d")));
    assert_eq!(f.parameters.as_deref(), Some(r#"{"type":"object","$defs":{}}"#));
    assert_eq!(f.extra.as_deref(), Some(r#"{"items":[2],"function":{"x":1}}"#));
    assert_eq!((g.name.as_str(), &g.parameters, &g.extra), ("g", &None, &None));
    assert_eq!(other, r#"{"type":"web_search","a":1}"#);
}

#[test]
fn a_prompt_is_a_chat_of_one_message() {
    let request =
        generate(r#"{"prompt":"p","system":"s","images":["AAAA"],"template":"{{ .Prompt }}","context":[1,2]}"#);
    let all = messages(&request);
    assert_eq!(all[0], Message::text(Role::System, "s"));
    assert_eq!((&all[1].role, all[1].parts.len(), all.len()), (&Role::User, 2, 2));
    assert_eq!(all[1].parts[0], Part::text("p"));
    assert_eq!(request.extra.as_deref(), Some(r#"{"template":"{{ .Prompt }}","context":[1,2]}"#));
    assert!(request.stream);
}

#[test]
fn a_raw_prompt_and_one_with_a_suffix_are_completions() {
    let completion = |body: &str| {
        let request = generate(body);
        match request.input {
            Input::Completion(prompt) => (prompt.text, prompt.suffix, request.extra),
            other => panic!("{other:?}"),
        }
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(completion(r#"{"prompt":"p","raw":true}"#), ("p".into(), None, None));
    assert_eq!(completion(r#"{"prompt":"p","suffix":"s"}"#), ("p".into(), text("s"), None));
    assert_eq!(completion(r#"{"prompt":"p","suffix":"s","raw":true}"#).2, text(r#"{"raw":true}"#));
    assert_eq!(
        completion(r#"{"images":[ "AAAA" ],"prompt":"p","suffix":"s","system":"\u0061"}"#).2,
        text(r#"{"system":"\u0061","images":[ "AAAA" ]}"#)
    );
}

#[test]
fn a_request_for_nothing_is_a_chat_of_no_messages() {
    for (dialect, body, render) in [
        ("ollama-chat", r#"{"model":"m"}"#, "load"),
        ("ollama-chat", r#"{"model":"m","messages":[],"keep_alive":"10m"}"#, "load"),
        ("ollama-chat", r#"{"model":"m","messages":[],"keep_alive":0}"#, "unload"),
        ("ollama-generate", r#"{"model":"m","stream":true}"#, "load"),
        ("ollama-generate", r#"{"model":"m","prompt":"","system":"s","keep_alive":-1}"#, "load"),
        ("ollama-generate", r#"{"model":"m","prompt":"","keep_alive":"0s"}"#, "unload"),
        ("ollama-generate", r#"{"model":"m","prompt":"","keep_alive":"0h0m"}"#, "unload"),
        ("ollama-generate", r#"{"model":"m","prompt":"","keep_alive":10}"#, "load"),
        ("ollama-generate", r#"{"model":"m","prompt":"","keep_alive":"s"}"#, "load"),
        ("ollama-embed", r#"{"model":"m"}"#, "load"),
        ("ollama-embed", r#"{"model":"m","input":[]}"#, "load"),
        ("ollama-embed", r#"{"model":"m","input":""}"#, "load"),
        ("ollama-embeddings", r#"{"model":"m","prompt":""}"#, "load"),
    ] {
        let parsed = read(dialect, body).unwrap();
        assert_eq!(parsed.request.input, Input::Chat(vec![]), "{body}");
        assert_eq!((parsed.request.stream, parsed.render.as_str()), (false, render), "{body}");
    }
}

#[test]
fn an_embedding_is_of_one_text_or_of_several() {
    let embed = |dialect: &str, body: &str| {
        let request = read(dialect, body).unwrap().request;
        assert_eq!(request.dialect, dialect);
        match request.input {
            Input::Embedding(input) => (input, request.extra),
            other => panic!("{other:?}"),
        }
    };
    let text = |text: &str| EmbeddingText::Text(text.into());
    let (input, extra) = embed(
        "ollama-embed",
        r#"{"model":"m","input":["a",""],"dimensions":256,"truncate":false,"options":{"temperature":1},"x":null}"#,
    );
    assert_eq!((input.texts, input.single, input.dimensions), (vec![text("a"), text("")], false, Some(256)));
    assert_eq!(extra.as_deref(), Some(r#"{"truncate":false,"options":{"temperature":1},"x":null}"#));
    let (input, extra) = embed("ollama-embed", r#"{"input":"a","dimensions":0,"options":{},"keep_alive":null}"#);
    assert_eq!((input.texts, input.single, input.dimensions, extra), (vec![text("a")], true, None, None));
    let (input, extra) = embed("ollama-embeddings", r#"{"model":"m","prompt":"a","keep_alive":"1h"}"#);
    assert_eq!((input.texts, input.single), (vec![text("a")], true));
    assert_eq!(extra.as_deref(), Some(r#"{"keep_alive":"1h"}"#));
}

#[test]
fn a_wrong_request_names_the_place() {
    for (dialect, body, param, message) in [
        (
            "ollama-chat",
            r#"{"messages":{}}"#,
            "messages",
            "`messages` must be an array, found an object (line 1, column 13)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"content":"a"}]}"#,
            "messages[0].role",
            "`messages[0].role` is missing: every message needs one, as \"user\" (line 1, column 14)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":""}]}"#,
            "messages[0].role",
            "`messages[0].role` is empty: expected a role, as \"user\" (line 1, column 22)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "messages[0].content",
            "`messages[0].content` must be a string, found an array (line 1, column 39)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"user","images":["https://a.b/c.png"]}]}"#,
            "messages[0].images[0]",
            "`messages[0].images[0]` must be the picture in base64, found a URL (line 1, column 39)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"user","images":["data:image/png;base64,AAAA"]}]}"#,
            "messages[0].images[0]",
            "`messages[0].images[0]` must be the picture in base64, found a URL (line 1, column 39)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"user","images":[""]}]}"#,
            "messages[0].images[0]",
            "`messages[0].images[0]` is empty: expected a picture in base64 (line 1, column 39)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]}"#,
            "messages[0].tool_calls[0].function.arguments",
            "`messages[0].tool_calls[0].function.arguments` must be an object, found a string (line 1, column 84)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"assistant","tool_calls":[{}]}]}"#,
            "messages[0].tool_calls[0].function",
            "`messages[0].tool_calls[0].function` is missing: an object with `name` and `arguments` (line 1, column 48)",
        ),
        (
            "ollama-chat",
            r#"{"messages":[{"role":"user","tool_calls":[{"function":{"name":"f"}}]}]}"#,
            "messages[0].tool_calls",
            "`messages[0].tool_calls` is only for messages of the role \"assistant\" (line 1, column 42)",
        ),
        (
            "ollama-chat",
            r#"{"tools":[{"type":"function"}]}"#,
            "tools[0].function",
            "`tools[0].function` is missing: an object with the function's `name` (line 1, column 11)",
        ),
        (
            "ollama-generate",
            r#"{"prompt":"a","format":"yaml"}"#,
            "format",
            "`format` must be \"json\" or a JSON Schema, found another string (line 1, column 24)",
        ),
        (
            "ollama-generate",
            r#"{"prompt":"a","think":""}"#,
            "think",
            "`think` is empty: expected a boolean, or how much to think, as \"low\" (line 1, column 23)",
        ),
        (
            "ollama-generate",
            r#"{"prompt":"a","think":1}"#,
            "think",
            "`think` must be a boolean, or how much to think, as \"low\", found a number (line 1, column 23)",
        ),
        (
            "ollama-generate",
            r#"{"prompt":"a","options":{"temperature":"hot"}}"#,
            "options.temperature",
            "`options.temperature` must be a number, found a string (line 1, column 40)",
        ),
        (
            "ollama-generate",
            r#"{"prompt":"a","stream":"no"}"#,
            "stream",
            "`stream` must be a boolean, found a string (line 1, column 24)",
        ),
        (
            "ollama-embed",
            r#"{"input":["a",1]}"#,
            "input[1]",
            "`input[1]` must be a string, found a number (line 1, column 15)",
        ),
        (
            "ollama-embed",
            r#"{"input":7}"#,
            "input",
            "`input` must be a string or an array of strings, found a number (line 1, column 10)",
        ),
        (
            "ollama-embeddings",
            r#"{"prompt":["a"]}"#,
            "prompt",
            "`prompt` must be a string, found an array (line 1, column 11)",
        ),
        ("ollama-chat", "", "", "the body is empty: expected a JSON object"),
    ] {
        assert_eq!(wrong(dialect, body), (param.to_owned(), message.to_owned()));
    }
}

#[test]
fn messages_images_texts_and_depth_are_bounded() {
    let two = r#"{"messages":[{"role":"user"},{"role":"user"}]}"#;
    let error = parse("ollama-chat", "/", &Limits { messages: 1, ..default_limits() }, two.as_bytes()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[1]"));
    let images = vec!["\"AAAA\""; 4097].join(",");
    let (param, message) = wrong("ollama-chat", &format!(r#"{{"messages":[{{"role":"user","images":[{images}]}}]}}"#));
    assert_eq!(param, "messages[0].images[4096]");
    assert!(message.contains("at most 4096 are allowed"), "{message}");
    let (param, _) = wrong("ollama-embed", &format!(r#"{{"input":[{}]}}"#, vec!["\"\""; 16_385].join(",")));
    assert_eq!(param, "input[16384]");
    for (dialect, body) in [("ollama-chat", r#"{"x":[[[1]]]}"#), ("ollama-embed", r#"{"x":[[[1]]]}"#)] {
        let error = parse(dialect, "/", &shallow(3), body.as_bytes()).unwrap_err();
        assert!(error.message.contains("nested deeper"), "{}", error.message);
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Merges `extra` into `object`; objects on both sides are merged.
fn merge(object: &mut Map<String, Value>, extra: Value) {
    let Value::Object(extra) = extra else { panic!("no object: {extra}") };
    for (name, unknown) in extra {
        match object.get_mut(&name) {
            Some(Value::Object(inner)) => merge(inner, unknown),
            Some(_) => panic!("{name} would be replaced"),
            None => drop(object.insert(name, unknown)),
        }
    }
}

fn object(members: Value, extra: Option<&String>) -> Value {
    let Value::Object(mut members) = members else { panic!("no object") };
    members.retain(|_, value| !value.is_null());
    if let Some(extra) = extra {
        merge(&mut members, value(extra));
    }
    Value::Object(members)
}

fn image(source: &MediaSource) -> Value {
    match source {
        MediaSource::Base64(data) => json!(data),
        other => panic!("{other:?}"),
    }
}

fn restored_message(message: &Message) -> Value {
    let role = match &message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Other(role) => role,
    };
    let mut members = json!({"role": role, "tool_name": message.name});
    let mut images = Vec::new();
    let mut calls = Vec::new();
    for part in &message.parts {
        match part {
            Part::Reasoning(reasoning) => members["thinking"] = json!(reasoning.text),
            Part::Text(text) => members["content"] = json!(text.text),
            Part::Media(media) => images.push(image(&media.source)),
            Part::ToolResult(result) => {
                if result.extra.is_some() {
                    members["tool_call_id"] = json!(result.call_id);
                }
                for piece in &result.content {
                    match piece {
                        ResultContent::Text(text) => members["content"] = json!(text.text),
                        ResultContent::Media(media) => images.push(image(&media.source)),
                        ResultContent::Other(other) => panic!("{other:?}"),
                    }
                }
            }
            Part::ToolCall(call) => {
                let mut function = json!({"name": call.name, "arguments": value(&call.arguments)});
                if call.extra.as_deref() == Some("{}") {
                    function["index"] = json!(calls.len());
                }
                let id = (!call.id.starts_with("unnamed_")).then_some(&call.id);
                calls.push(object(json!({"id": id, "function": function}), call.extra.as_ref()));
            }
            Part::Refusal(_) | Part::Other(_) => panic!("{part:?}"),
        }
    }
    if !images.is_empty() {
        members["images"] = json!(images);
    }
    if !calls.is_empty() {
        members["tool_calls"] = json!(calls);
    }
    object(members, message.extra.as_ref())
}

/// What the client wrote, by the rules that the dialects state.
fn restore(request: &Request) -> Value {
    let mut members = json!({"model": request.model});
    match &request.input {
        Input::Chat(messages) if request.dialect == "ollama-chat" => {
            members["messages"] = messages.iter().map(restored_message).collect();
        }
        Input::Chat(messages) => {
            for message in messages {
                let message = restored_message(message);
                let name = if message["role"] == "system" { "system" } else { "prompt" };
                members[name] = message["content"].clone();
                if let Some(images) = message.get("images") {
                    members["images"] = images.clone();
                }
            }
        }
        Input::Completion(prompt) => {
            members["prompt"] = json!(prompt.text);
            members["suffix"] = json!(prompt.suffix);
            if prompt.suffix.is_none() {
                members["raw"] = json!(true);
            }
        }
        other => panic!("{other:?}"),
    }
    if !request.stream {
        members["stream"] = json!(false);
    }
    if !request.tools.is_empty() {
        let tool = |tool: &Tool| match tool {
            Tool::Other(tool) => value(tool),
            Tool::Function(tool) => {
                let function = object(
                    json!({"name": tool.name, "description": tool.description, "strict": tool.strict,
                           "parameters": tool.parameters.as_deref().map(value)}),
                    None,
                );
                object(json!({"type": "function", "function": function}), tool.extra.as_ref())
            }
        };
        members["tools"] = request.tools.iter().map(tool).collect();
    }
    members["format"] = match &request.response_format {
        None => Value::Null,
        Some(ResponseFormat::JsonObject) => json!("json"),
        Some(ResponseFormat::JsonSchema(schema)) => value(&schema.schema),
        Some(other) => panic!("{other:?}"),
    };
    members["think"] = match &request.reasoning {
        None => Value::Null,
        Some(Reasoning { effort: Some(effort), .. }) => json!(effort),
        Some(reasoning) => json!(reasoning.enabled),
    };
    let s = &request.sampling;
    members["logprobs"] = json!(s.logprobs);
    members["top_logprobs"] = json!(s.top_logprobs);
    let mut options = object(
        json!({
            "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "min_p": s.min_p, "seed": s.seed,
            "num_predict": s.max_tokens, "repeat_penalty": s.repetition_penalty,
            "presence_penalty": s.presence_penalty, "frequency_penalty": s.frequency_penalty,
        }),
        None,
    );
    if !s.stop.is_empty() {
        options["stop"] = json!(s.stop);
    }
    if options.as_object().is_some_and(|options| !options.is_empty()) {
        members["options"] = options;
    }
    object(members, request.extra.as_ref())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("x_[a-z]{0,4}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_call() -> impl Strategy<Value = Value> {
    let unknown = prop::option::of(any_json()).boxed();
    ("[fg]", prop::option::of("[a-z]{1,4}"), prop::option::of(0..3u32), unknown.clone(), unknown, ".{0,6}").prop_map(
        |(name, id, index, x, y, text)| {
            let mut call = json!({"function": {"name": name, "arguments": {"a": text}}});
            if let Some(id) = id {
                call["id"] = json!(id);
            }
            if let Some(index) = index {
                call["function"]["index"] = json!(index);
            }
            if let Some(x) = x {
                call["function"]["x_f"] = x;
            }
            if let Some(y) = y {
                call["x_c"] = y;
            }
            call
        },
    )
}

fn any_message() -> impl Strategy<Value = Value> {
    let text = ".{0,12}";
    let images = prop::collection::vec("[A-Za-z0-9+/]{1,24}", 1..3);
    prop_oneof![
        text.prop_map(|text| json!({"role": "system", "content": text})),
        (text, images, any_json()).prop_map(|(text, images, x)| {
            json!({"role": "user", "content": text, "images": images, "x_m": x, "name": "n"})
        }),
        (text, ".{1,6}", prop::collection::vec(any_call(), 1..4)).prop_map(|(text, thought, calls)| {
            json!({"role": "assistant", "content": text, "thinking": thought, "tool_calls": calls})
        }),
        prop::collection::vec(any_call(), 1..3).prop_map(|calls| json!({"role": "assistant", "tool_calls": calls})),
        (text, "[fg]").prop_map(|(text, name)| json!({"role": "tool", "content": text, "tool_name": name})),
        (text, "[a-z]{1,4}").prop_map(|(text, id)| json!({"role": "tool", "content": text, "tool_call_id": id})),
        text.prop_map(|text| json!({"role": "tool", "content": text})),
    ]
}

prop_compose! {
    fn any_settings()(
        think in prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), Just(json!("low"))],
        format in prop_oneof![Just(Value::Null), Just(json!("json")), Just(json!({"type": "object", "a": [1]}))],
        num_predict in prop::option::of(-2..100i64),
        temperature in prop::option::of((0..2000).prop_map(|number| f64::from(number) / 1000.0)),
        stop in prop::collection::vec(".{1,4}", 0..3),
        num_ctx in prop::option::of(any::<u32>()),
        stream in any::<bool>(),
        keep_alive in prop_oneof![Just(Value::Null), Just(json!("5m")), Just(json!(-1)), Just(json!(0))],
        x in any_json(),
    ) -> Value {
        let mut options = object(json!({"num_predict": num_predict, "temperature": temperature, "num_ctx": num_ctx}), None);
        if !stop.is_empty() {
            options["stop"] = json!(stop);
        }
        let mut settings =
            object(json!({"think": think, "format": format, "keep_alive": keep_alive, "options": options}), None);
        if settings["options"] == json!({}) {
            settings.as_object_mut().unwrap().remove("options");
        }
        if !stream {
            settings["stream"] = json!(false);
        }
        settings["x_top"] = x;
        settings
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_parsed_of_a_chat_holds_all_that_was_sent(
        messages in prop::collection::vec(any_message(), 1..6),
        settings in any_settings(),
        parameters in any_json(),
    ) {
        let mut request = json!({
            "model": "m", "messages": messages,
            "tools": [{"type": "function", "function": {"name": "f", "x_t": parameters, "parameters": {"type": "object"}}}],
        });
        merge(request.as_object_mut().unwrap(), settings);
        let parsed = read("ollama-chat", &request.to_string()).map_err(|error| TestCaseError::fail(error.message))?;
        prop_assert_eq!(restore(&parsed.request), request);
    }

    #[test]
    fn what_was_parsed_of_a_generation_holds_all_that_was_sent(
        prompt in ".{1,12}",
        system in prop::option::of(".{1,8}"),
        suffix in prop::option::of(".{1,8}"),
        images in prop::option::of(prop::collection::vec("[A-Za-z0-9+/]{1,24}", 1..3)),
        template in prop::option::of(".{1,8}"),
        context in prop::option::of(prop::collection::vec(any::<u32>(), 1..4)),
        raw in any::<bool>(),
        settings in any_settings(),
    ) {
        let mut request = object(
            json!({"model": "m", "prompt": prompt, "system": system, "suffix": suffix, "images": images,
                   "template": template, "context": context, "raw": raw.then_some(true)}),
            None,
        );
        merge(request.as_object_mut().unwrap(), settings);
        let parsed = read("ollama-generate", &request.to_string()).map_err(|error| TestCaseError::fail(error.message))?;
        prop_assert_eq!(restore(&parsed.request), request);
    }
}
