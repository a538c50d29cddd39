//! Requests of Anthropic's Messages API.

mod common;

use common::shallow;
use serde_json::{Value, json};
use witgate_dialects::{default_limits, parse};
use witgate_model::normaliser::{Limits, Parsed};
use witgate_model::{
    CacheMark, Error, ErrorKind, Input, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart,
    Request, ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn read(path: &str, body: &str) -> Result<Parsed, Error> {
    parse("anthropic-messages", path, &default_limits(), body.as_bytes())
}

/// The request of these members, beside those that every one needs.
#[track_caller]
fn with(members: Value) -> Request {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    read(MESSAGES, &body.to_string()).unwrap().request
}

#[track_caller]
fn messages(request: &Request) -> &[Message] {
    match &request.input {
        Input::Chat(messages) | Input::CountTokens(messages) => messages,
        other => panic!("{other:?}"),
    }
}

/// The part that a block of a message of the user becomes.
#[track_caller]
fn part(block: Value) -> Part {
    let request = with(json!({"messages": [{"role": "user", "content": [block]}]}));
    messages(&request)[0].parts[0].clone()
}

/// `param` and message of what is wrong with a request of these members.
#[track_caller]
fn wrong(members: Value) -> (String, String) {
    let mut body = json!({"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let error = read(MESSAGES, &body.to_string()).expect_err("the request is wrong");
    assert_eq!((&error.kind, error.status), (&ErrorKind::InvalidRequest, Some(400)), "{error:?}");
    (error.param.unwrap_or_default(), error.message)
}

fn extra(extra: Option<&String>) -> Value {
    extra.map_or(Value::Null, |extra| serde_json::from_str(extra).unwrap())
}

fn mark(ttl: Option<&str>) -> Option<CacheMark> {
    Some(CacheMark { ttl: ttl.map(str::to_owned) })
}

#[test]
fn everything_with_a_place_in_the_contract_finds_it() {
    let request = with(json!({
        "system": "Be brief.", "stream": true, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 64,
        "stop_sequences": ["END", "\n\n"], "metadata": {"user_id": "u-1"},
    }));
    assert_eq!((&*request.model, &*request.dialect, request.stream), ("m", "anthropic-messages", true));
    assert_eq!(messages(&request), [Message::text(Role::System, "Be brief."), Message::text(Role::User, "Hi")]);
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.5), Some(0.9), Some(40)));
    assert_eq!((sampling.max_tokens, sampling.max_completion_tokens), (None, Some(64)));
    assert_eq!(sampling.stop, ["END", "\n\n"]);
    assert_eq!(request.end_user.as_deref(), Some("u-1"));
    assert_eq!((request.extra, request.tool_choice, request.reasoning), (None, None, None));
}

#[test]
fn a_system_prompt_of_blocks_keeps_them_and_an_empty_one_is_none() {
    let system = json!([
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]);
    let request = with(json!({ "system": system }));
    let [system, _] = messages(&request) else { panic!("{request:?}") };
    let text = |text: &str, cache| Part::Text(TextPart { text: text.into(), cache, extra: Some("{}".into()) });
    assert_eq!(system.parts, [text("a", mark(None)), text("b", mark(Some("1h")))]);
    for none in [json!([]), Value::Null] {
        assert_eq!(messages(&with(json!({ "system": none }))).len(), 1);
    }
}

#[test]
fn roles_and_unknown_members_of_messages_are_kept() {
    let request = with(json!({"messages": [
        {"role": "user", "content": "a", "x_m": [1]}, {"role": "assistant", "content": ""},
        {"role": "system", "content": "now"}, {"role": "critic", "content": []},
    ]}));
    let roles: Vec<_> = messages(&request).iter().map(|message| message.role.clone()).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::System, Role::Other("critic".into())]);
    assert_eq!(messages(&request)[0].extra.as_deref(), Some(r#"{"x_m":[1]}"#));
    assert_eq!(messages(&request)[1].parts, [Part::text("")]);
}

#[test]
fn a_string_and_a_list_of_one_text_can_be_told_apart() {
    assert_eq!(messages(&with(json!({})))[0].parts, [Part::text("Hi")]);
    let block = part(json!({"type": "text", "text": "Hi"}));
    assert_eq!(block, Part::Text(TextPart { text: "Hi".into(), cache: None, extra: Some("{}".into()) }));
}

#[test]
fn images_and_documents_of_every_source() {
    let media = |block: Value| match part(block) {
        Part::Media(media) => media,
        other => panic!("{other:?}"),
    };
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let image = media(json!({"type": "image", "source": source, "cache_control": {"type": "ephemeral"}}));
    let expected = MediaPart {
        kind: MediaKind::Image,
        mime: Some("image/png".into()),
        source: MediaSource::Base64("AAAA".into()),
        name: None,
        detail: None,
        cache: mark(None),
        extra: Some("{}".into()),
    };
    assert_eq!(image, expected);
    let image = media(json!({"type": "image", "source": {"type": "url", "url": "https://a/b", "x": 1}, "title": "t"}));
    assert_eq!(image.source, MediaSource::Url("https://a/b".into()));
    assert_eq!(extra(image.extra.as_ref()), json!({"title": "t", "source": {"x": 1}}));
    let source = json!({"type": "text", "media_type": "text/plain", "data": "words"});
    let document = media(json!({"type": "document", "source": source, "title": "T", "citations": {"enabled": true}}));
    assert_eq!((&document.kind, document.name.as_deref()), (&MediaKind::Document, Some("T")));
    assert_eq!(document.source, MediaSource::Text("words".into()));
    assert_eq!(document.mime.as_deref(), Some("text/plain"));
    assert_eq!(extra(document.extra.as_ref()), json!({"citations": {"enabled": true}}));
    let document = media(json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}}));
    assert_eq!(document.source, MediaSource::FileId("file_1".into()));
    let content = json!({"type": "content", "content": [{"type": "text", "text": "a"}]});
    let document = media(json!({"type": "document", "source": content}));
    let MediaSource::Other(source) = document.source else { panic!("{document:?}") };
    assert_eq!(serde_json::from_str::<Value>(&source).unwrap(), content);
}

#[test]
fn tool_calls_and_their_results() {
    let call = part(json!({"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2.50]},
        "cache_control": {"type": "ephemeral", "ttl": "5m"}, "caller": {"type": "direct"}}));
    let expected = ToolCall {
        id: "t1".into(),
        name: "f".into(),
        arguments: r#"{"a":[1,2.5]}"#.into(),
        cache: mark(Some("5m")),
        extra: Some(r#"{"caller":{"type":"direct"}}"#.into()),
    };
    assert_eq!(call, Part::ToolCall(expected));

    let result = |members: Value| {
        let mut block = json!({"type": "tool_result", "tool_use_id": "t1"});
        block.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        match part(block) {
            Part::ToolResult(result) => result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(result(json!({})), ToolResult { call_id: "t1".into(), ..ToolResult::default() });
    let failed = result(json!({"content": "no such file", "is_error": true}));
    assert_eq!(failed.is_error, Some(true));
    assert_eq!(failed.content, [ResultContent::Text(TextPart { text: "no such file".into(), ..TextPart::default() })]);
    let nested = result(json!({"content": [
        {"type": "text", "text": "a"},
        {"type": "image", "source": {"type": "url", "url": "https://a/b"}},
        {"type": "tool_reference", "tool_name": "g"},
    ]}));
    let [ResultContent::Text(text), ResultContent::Media(media), ResultContent::Other(other)] = &*nested.content else {
        panic!("{nested:?}")
    };
    assert_eq!(text.extra.as_deref(), Some("{}"));
    assert_eq!(media.source, MediaSource::Url("https://a/b".into()));
    assert_eq!(other, r#"{"tool_name":"g","type":"tool_reference"}"#);
}

#[test]
fn thinking_of_earlier_turns() {
    let thought = part(json!({"type": "thinking", "thinking": "hm", "signature": "c2ln"}));
    let expected = ReasoningPart { text: "hm".into(), signature: Some("c2ln".into()), redacted: None, extra: None };
    assert_eq!(thought, Part::Reasoning(expected));
    // What we tell clients of backends that sign nothing comes back so.
    let unsigned = part(json!({"type": "thinking", "thinking": "hm", "signature": ""}));
    assert_eq!(unsigned, Part::Reasoning(ReasoningPart { text: "hm".into(), ..ReasoningPart::default() }));
    let redacted = part(json!({"type": "redacted_thinking", "data": "b64"}));
    assert_eq!(redacted, Part::Reasoning(ReasoningPart { redacted: Some("b64".into()), ..ReasoningPart::default() }));
}

#[test]
fn blocks_that_the_contract_does_not_name_are_kept_whole() {
    for block in [
        json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}),
        json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
        json!({"type": "search_result", "source": "s", "title": "t", "content": []}),
        json!({"type": "container_upload", "file_id": "f"}),
        json!({"type": "of_tomorrow", "x": null}),
    ] {
        assert_eq!(part(block.clone()), Part::Other(block.to_string()));
    }
}

#[test]
fn a_cache_mark_that_is_no_ephemeral_one_stays_as_it_is() {
    let Part::Text(text) = part(json!({"type": "text", "text": "a", "cache_control": {"type": "eternal"}})) else {
        panic!()
    };
    assert_eq!(text.cache, None);
    assert_eq!(text.extra.as_deref(), Some(r#"{"cache_control":{"type":"eternal"}}"#));
}

#[test]
fn tools_of_the_client_are_functions_and_others_are_kept_whole() {
    let search = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3});
    let request = with(json!({"tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true, "x_tool": 1,
         "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "g", "input_schema": {}},
        search,
    ]}));
    let [Tool::Function(f), Tool::Function(g), Tool::Other(other)] = &*request.tools else { panic!("{request:?}") };
    assert_eq!((&*f.name, f.description.as_deref(), f.strict, &f.cache), ("f", Some("d"), Some(true), &mark(None)));
    assert_eq!(f.parameters.as_deref(), Some(r#"{"type":"object"}"#));
    assert_eq!(f.extra.as_deref(), Some(r#"{"x_tool":1}"#));
    assert_eq!((&*g.name, &g.extra), ("g", &None));
    assert_eq!(*other, search.to_string());
}

#[test]
fn tool_choices() {
    for (choice, expected, parallel, unknown) in [
        (json!({"type": "auto"}), ToolChoice::Auto, None, Value::Null),
        (json!({"type": "any", "disable_parallel_tool_use": true}), ToolChoice::Required, Some(false), Value::Null),
        (json!({"type": "none"}), ToolChoice::None, None, Value::Null),
        (
            json!({"type": "tool", "name": "f", "disable_parallel_tool_use": false, "x": 1}),
            ToolChoice::Tool("f".into()),
            Some(true),
            json!({"tool_choice": {"x": 1}}),
        ),
        (json!({"type": "x"}), ToolChoice::Other(r#"{"type":"x"}"#.into()), None, Value::Null),
    ] {
        let request = with(json!({ "tool_choice": choice }));
        assert_eq!(request.tool_choice, Some(expected));
        assert_eq!(request.parallel_tool_calls, parallel);
        assert_eq!(extra(request.extra.as_ref()), unknown);
    }
}

#[test]
fn how_much_to_think() {
    let thinking = |members: Value| with(members).reasoning.unwrap();
    let enabled = thinking(json!({"thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"}}));
    let display = Some(r#"{"display":"omitted"}"#.to_owned());
    let expected = Reasoning { enabled: Some(true), budget_tokens: Some(2048), extra: display, ..Reasoning::default() };
    assert_eq!(enabled, expected);
    let disabled = thinking(json!({"thinking": {"type": "disabled"}}));
    assert_eq!(disabled, Reasoning { enabled: Some(false), ..Reasoning::default() });
    let adaptive = thinking(json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}));
    let kind = Some(r#"{"type":"adaptive"}"#.to_owned());
    assert_eq!(adaptive, Reasoning { effort: Some("high".into()), extra: kind, ..Reasoning::default() });
}

#[test]
fn the_form_of_the_answer_by_either_name() {
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    let expected = |request: &Request| match &request.response_format {
        Some(ResponseFormat::JsonSchema(schema)) => schema.schema.clone(),
        other => panic!("{other:?}"),
    };
    for request in [with(json!({"output_config": {"format": format}})), with(json!({"output_format": format}))] {
        assert_eq!(expected(&request), r#"{"type":"object"}"#);
        assert_eq!(request.extra, None);
    }
    let request = with(json!({"output_config": {"x": 1, "format": {"type": "json_schema", "schema": {}, "y": 2}}}));
    assert_eq!(extra(request.extra.as_ref()), json!({"output_config": {"x": 1, "format": {"y": 2}}}));
    let request = with(json!({"output_config": {"format": {"type": "regex"}}}));
    assert_eq!(request.response_format, Some(ResponseFormat::Other(r#"{"type":"regex"}"#.into())));
    let (param, message) = wrong(json!({"output_format": format, "output_config": {"format": format}}));
    assert_eq!(param, "output_format");
    assert!(message.contains("give one of them"), "{message}");
}

#[test]
fn unknown_members_stay_together_with_what_is_no_ones() {
    let request = with(json!({
        "service_tier": "auto", "container": null, "cache_control": {"type": "ephemeral"}, "mcp_servers": [], "n": 2,
        "metadata": {"user_id": "u", "x": 1},
    }));
    let expected = json!({
        "service_tier": "auto", "container": null, "cache_control": {"type": "ephemeral"}, "mcp_servers": [], "n": 2,
        "metadata": {"x": 1},
    });
    assert_eq!(extra(request.extra.as_ref()), expected);
    assert_eq!(request.sampling.n, None);
}

#[test]
fn a_count_needs_no_bound_and_keeps_what_is_of_no_use_to_it() {
    let body = json!({"model": "m", "system": "s", "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"name": "f", "input_schema": {}}], "thinking": {"type": "enabled", "budget_tokens": 1024},
        "temperature": 1});
    for path in [COUNT, "/v1/messages/count_tokens/", "/v1/messages/count_tokens?beta=true"] {
        let request = read(path, &body.to_string()).unwrap().request;
        assert_eq!(request.input.operation(), "count-tokens");
        assert_eq!(request.dialect, "anthropic-messages");
        assert_eq!((messages(&request).len(), request.tools.len()), (2, 1));
        assert_eq!(request.reasoning.unwrap().budget_tokens, Some(1024));
        assert_eq!(request.extra.as_deref(), Some(r#"{"temperature":1}"#));
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let block = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (members, param, says) in [
        (json!({"max_tokens": null}), "max_tokens", "is missing"),
        (json!({"max_tokens": -1}), "max_tokens", "whole number"),
        (json!({"messages": []}), "messages", "at least one message"),
        (json!({"messages": "Hi"}), "messages", "must be an array"),
        (json!({"messages": [{"content": "a"}]}), "messages[0].role", "is missing"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", "a string or an array of blocks"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages[0].content", "found null"),
        (json!({"system": 1}), "system", "a string or an array of blocks"),
        (json!({"system": [{"text": "a"}]}), "system[0].type", "is missing"),
        (block(json!({"type": "text"})), "messages[0].content[0].text", "is missing"),
        (block(json!({"type": "image"})), "messages[0].content[0].source", "is missing"),
        (block(json!({"type": "image", "source": "x"})), "messages[0].content[0].source", "an object"),
        (
            block(json!({"type": "image", "source": {"type": "base64"}})),
            "messages[0].content[0].source.data",
            "needs it",
        ),
        (block(json!({"type": "thinking"})), "messages[0].content[0].thinking", "is missing"),
        (block(json!({"type": "tool_use", "id": "a", "name": "f"})), "messages[0].content[0].input", "is missing"),
        (
            block(json!({"type": "tool_use", "id": "a", "name": "f", "input": "{}"})),
            "messages[0].content[0].input",
            "must be an object",
        ),
        (block(json!({"type": "tool_result"})), "messages[0].content[0].tool_use_id", "is missing"),
        (
            block(json!({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": 1}]})),
            "messages[0].content[0].content[0].text",
            "must be a string",
        ),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema", "is missing"),
        (json!({"tools": [{"input_schema": {}}]}), "tools[0].name", "is missing"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name", "is missing"),
        (json!({"tool_choice": "auto"}), "tool_choice", "an object"),
        (json!({"thinking": {}}), "thinking.type", "is missing"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema", "is missing"),
        (json!({"stop_sequences": "END"}), "stop_sequences", "must be an array"),
        (json!({"temperature": "hot"}), "temperature", "must be a number"),
        (json!({"metadata": {"user_id": 1}}), "metadata.user_id", "must be a string"),
    ] {
        let (at, message) = wrong(members.clone());
        assert_eq!(at, param, "{members}: {message}");
        assert!(message.contains(says), "{members}: {message}");
    }
    let error = read(MESSAGES, "{}").unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages"));
    assert!(read(MESSAGES, "").unwrap_err().message.contains("empty"));
}

#[test]
fn bounds_are_those_of_the_other_dialects() {
    let body = |messages: &str| format!(r#"{{"max_tokens":1,"messages":[{messages}]}}"#);
    let message = r#"{"role":"user","content":"a"}"#;
    let two = body(&[message, message].join(","));
    let limits = Limits { messages: 1, ..default_limits() };
    let error = parse("anthropic-messages", MESSAGES, &limits, two.as_bytes()).unwrap_err();
    assert!(error.message.contains("one message too many"), "{}", error.message);
    let deep = body(r#"{"role":"user","content":[{"type":"x","x":[[[[1]]]]}]}"#);
    assert!(parse("anthropic-messages", MESSAGES, &shallow(9), deep.as_bytes()).is_ok());
    let error = parse("anthropic-messages", MESSAGES, &shallow(6), deep.as_bytes()).unwrap_err();
    assert!(error.message.contains("nested deeper"), "{}", error.message);
}

#[test]
fn beta_features_of_the_header_join_those_of_the_body() {
    use witgate_model::normaliser::{Client, Step};
    let extra = |header: &str, member: &str| {
        let body = format!(r#"{{"max_tokens":1,"messages":[{{"role":"user","content":"Hi"}}],"x":1.50{member}}}"#);
        let client = Client {
            path: "/v1/messages".into(),
            headers: vec![("anthropic-beta".into(), header.into()), ("anthropic-version".into(), "2023-06-01".into())],
            ..Client::default()
        };
        match witgate_dialects::step(
            "anthropic-messages",
            &client,
            &witgate_dialects::default_limits(),
            body.as_bytes(),
        ) {
            Ok(Step::Ask(parsed)) => Ok(parsed.request.extra.unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.param),
        }
    };
    assert_eq!(extra("a, b", ""), Ok(r#"{"x":1.50,"anthropic_beta":["a","b"]}"#.into()));
    assert_eq!(extra("b", r#","anthropic_beta":["a"]"#), Ok(r#"{"x":1.50,"anthropic_beta":["a","b"]}"#.into()));
    assert_eq!(extra(" ", ""), Ok(r#"{"x":1.50}"#.into()));
    assert_eq!(extra("a", r#","anthropic_beta":1"#), Err(Some("anthropic_beta".into())));
}
