//! Invariant 9 for Anthropic's Messages API: from its client to its backend, and back, everything arrives as it was sent.

use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_adapters::{Anthropic, LlamaCpp, OpenAi};
use witgate_dialects::{Renderer, default_limits, parse};
use witgate_model::normaliser::AnswerStart;
use witgate_model::{Adapter, Decoder, Event, Frame, Framing, ResponseHead, SseEvent};

const DIALECT: &str = "anthropic-messages";
const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// What the backend gets of a request, and what the decoder must know.
fn sent(path: &str, request: &Value) -> (Value, Option<String>) {
    let body = request.to_string();
    let parsed = parse(DIALECT, path, &default_limits(), body.as_bytes()).unwrap();
    let http = Anthropic::encode("{}", parsed.request).unwrap();
    assert_eq!(http.dropped, [""; 0]);
    (serde_json::from_slice(&http.body).unwrap(), http.context)
}

/// What the client gets of an answer in these frames.
fn rendered(path: &str, stream: bool, frames: Vec<Frame>) -> String {
    let request =
        json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "u"}], "stream": stream});
    let parsed = parse(DIALECT, path, &default_limits(), request.to_string().as_bytes()).unwrap();
    let context = Anthropic::encode("{}", parsed.request).unwrap().context;
    let framing = if stream { Framing::Sse } else { Framing::Whole };
    let head = ResponseHead { status: 200, headers: vec![], framing, stream };
    let mut decoder = Anthropic::decoder("{}", context, head);
    let mut events = decoder.feed(frames);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    assert_eq!(events.last(), Some(&Event::Done), "{events:?}");
    let start = AnswerStart { render: parsed.render, id: "x".into(), created: 9, model: "alias".into() };
    String::from_utf8(Renderer::new(DIALECT, start).feed(events)).unwrap()
}

fn whole(path: &str, answer: &Value) -> Value {
    let frames = vec![Frame::Bytes(answer.to_string().into_bytes())];
    serde_json::from_str(&rendered(path, false, frames)).unwrap()
}

fn streamed(events: &[Value]) -> Vec<Value> {
    let frame = |event: &Value| {
        Frame::Sse(SseEvent { event: event["type"].as_str().map(str::to_owned), data: event.to_string(), id: None })
    };
    let text = rendered(MESSAGES, true, events.iter().map(frame).collect());
    let data = |event: &str| serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap();
    text.split_terminator("\n\n").map(data).collect()
}

#[test]
fn invariant_9_a_request_with_unknown_members_at_every_level_arrives_as_it_was_sent() {
    let mark = json!({"type": "ephemeral", "ttl": "1h"});
    let request = json!({
        "model": "m", "max_tokens": 4096, "stream": true, "temperature": 0.5, "top_p": 0.25, "top_k": 3,
        "stop_sequences": ["a", "b"], "metadata": {"user_id": "u", "x": 1},
        "system": [{"type": "text", "text": "s", "cache_control": mark}, {"type": "x_system", "x": 1}],
        "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "omitted"},
        "output_config": {"effort": "high", "x": 1, "format": {"type": "json_schema", "schema": {"b": 1, "a": 2}, "y": 1}},
        "service_tier": "auto", "container": null, "cache_control": {"type": "ephemeral"}, "mcp_servers": [{"x": 1}],
        "messages": [
            {"role": "user", "content": "a", "x_message": {"deep": [1, 2.50, null]}},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "b64"},
                {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "tool_use", "id": "t.1", "name": "f g", "input": {"b": 1, "a": [2.50]}, "caller": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t.1", "is_error": false, "content": [
                    {"type": "text", "text": "r", "cache_control": mark},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "tool_reference", "tool_name": "f g"},
                ], "x_result": 1},
                {"type": "image", "source": {"type": "url", "url": "https://a/b", "x_source": 1}, "title": "x"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                 "title": "T", "context": "c", "citations": {"enabled": true}, "cache_control": mark},
                {"type": "document", "source": {"type": "content", "content": "c"}},
                {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "search_result", "source": "s", "title": "t", "content": []},
            ]},
            {"role": "system", "content": "mind this"},
        ],
        "tools": [
            {"name": "f g", "description": "d", "input_schema": {"type": "object"}, "strict": false, "x_tool": 1},
            {"name": "h", "input_schema": {}, "cache_control": mark},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
        ],
        "tool_choice": {"type": "tool", "name": "f g", "disable_parallel_tool_use": true, "x_choice": 1},
    });
    assert_eq!(sent(MESSAGES, &request).0, request);
    let mut count = request;
    for name in ["max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata"] {
        count.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(sent(COUNT, &count).0, count);
}

#[test]
fn invariant_9_a_whole_answer_with_unknown_members_arrives_as_it_was_sent() {
    let answer = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "x_top": [1], "container": null,
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln", "x": 1},
            {"type": "thinking", "thinking": "", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "b64"},
            {"type": "text", "text": "a", "citations": [{"type": "char_location"}, {"x": 1}]},
            {"type": "text", "text": "", "citations": null},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"x": 1}]},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 2.50}, "caller": {"type": "direct"}},
            {"type": "tool_use", "id": "u", "name": "f", "input": {}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null, "stop_details": null, "context_management": {"x": []},
        "usage": {"input_tokens": 9, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 5,
                  "cache_creation": {"ephemeral_5m_input_tokens": 1}, "service_tier": "standard"},
    });
    assert_eq!(whole(MESSAGES, &answer), answer);
    let count = json!({"input_tokens": 14, "context_management": {"original_input_tokens": 20}});
    assert_eq!(whole(COUNT, &count), count);
}

#[test]
fn invariant_9_a_stream_with_unknown_members_arrives_as_it_was_sent() {
    let start =
        |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
    let input = |json: &str| json!({"type": "input_json_delta", "partial_json": json});
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null,
        "stop_sequence": null, "x_top": 1, "usage": {"input_tokens": 9, "cache_read_input_tokens": 2, "output_tokens": 1},
    });
    let events = [
        json!({"type": "message_start", "message": message}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "", "estimated_tokens": 50})),
        delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
        delta(0, json!({"type": "signature_delta", "signature": "c2ln"})),
        stop(0),
        start(1, json!({"type": "redacted_thinking", "data": "b64"})),
        stop(1),
        start(2, json!({"type": "text", "text": "", "citations": []})),
        delta(2, json!({"type": "citations_delta", "citation": {"type": "char_location"}})),
        delta(2, json!({"type": "text_delta", "text": "a \"b\"\n"})),
        stop(2),
        start(3, json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        delta(3, input("{\"query\":")),
        delta(3, input("\"q\"}")),
        stop(3),
        start(4, json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"x": 1}]})),
        stop(4),
        start(5, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}})),
        delta(5, input("{\"a\":1}")),
        stop(5),
        start(6, json!({"type": "tool_use", "id": "u", "name": "f", "input": {}})),
        stop(6),
        start(7, json!({"type": "compaction", "content": null})),
        delta(7, json!({"type": "compaction_delta", "content": "c"})),
        stop(7),
        json!({
            "type": "message_delta", "usage": {"output_tokens": 5, "server_tool_use": {"web_search_requests": 1}},
            "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c"}},
            "context_management": {"applied_edits": []},
        }),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(streamed(&events), events);
}

/// What a backend gets of a request of this API.
fn taken<A: Adapter>(request: &Value) -> Value {
    let parsed = parse(DIALECT, MESSAGES, &default_limits(), request.to_string().as_bytes()).unwrap();
    let http = A::encode("{}", parsed.request).unwrap_or_else(|error| panic!("{}: {error:?}", A::describe().id));
    serde_json::from_slice(&http.body).unwrap()
}

#[test]
fn a_request_with_tools_results_and_pictures_reaches_backends_of_other_apis() {
    let request = json!({
        "model": "m", "max_tokens": 64, "system": "Be brief.", "stream": true, "temperature": 0.5,
        "stop_sequences": ["END"],
        "tools": [{"type": "custom", "name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]},
                {"type": "text", "text": "And?"},
            ]},
        ],
    });
    for body in [taken::<OpenAi>(&request), taken::<LlamaCpp>(&request)] {
        let roles: Vec<_> = body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(body["messages"][3]["tool_call_id"], "t");
        assert_eq!(body["stop"], json!(["END"]));
    }
}

#[test]
fn an_answer_of_another_api_becomes_a_message() {
    let chunk = |delta: Value, finish: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        Frame::Sse(SseEvent { event: None, data: chunk.to_string(), id: None })
    };
    let call = |index: u32, call: Value| json!({"tool_calls": [and(json!({ "index": index }), call)]});
    let begin = |index: u32, id: &str| {
        call(index, json!({"id": id, "type": "function", "function": {"name": "f", "arguments": ""}}))
    };
    let arguments = |index: u32, json: &str| call(index, json!({"function": {"arguments": json}}));
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 5}});
    let frames = vec![
        chunk(json!({"role": "assistant", "reasoning_content": "hm"}), Value::Null),
        chunk(json!({"content": "Both:"}), Value::Null),
        chunk(begin(0, "a"), Value::Null),
        chunk(begin(1, "b"), Value::Null),
        chunk(arguments(1, "{\"y\""), Value::Null),
        chunk(arguments(0, "{\"x\":1}"), Value::Null),
        chunk(arguments(1, ":2}"), Value::Null),
        chunk(json!({}), json!("tool_calls")),
        Frame::Sse(SseEvent {
            event: None,
            data: json!({"id": "chatcmpl-1", "model": "up", "choices": [], "usage": usage}).to_string(),
            id: None,
        }),
        Frame::Sse(SseEvent { event: None, data: "[DONE]".into(), id: None }),
    ];
    let head = ResponseHead { status: 200, headers: vec![], framing: Framing::Sse, stream: true };
    let mut decoder = OpenAi::decoder("{}", None, head);
    let mut events = decoder.feed(frames);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    let start = AnswerStart { render: String::new(), id: "x".into(), created: 9, model: "alias".into() };
    let message: Value = serde_json::from_slice(&Renderer::new(DIALECT, start).feed(events)).unwrap();
    let expected = json!({
        "id": "msg_x", "type": "message", "role": "assistant", "model": "up",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Both:"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "f", "input": {"y": 2}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 4},
    });
    assert_eq!(message, expected);
}

/// Any JSON, not too large; numbers that every reader reads alike.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("x_[a-z]{0,6}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A JSON object of unknown members.
fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map("x_[a-z]{0,6}", any_json(), 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// `object` with the members of `more`.
fn and(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// A text, an image or a document.
fn any_plain_block() -> BoxedStrategy<Value> {
    let source = prop_oneof![
        "[A-Za-z0-9+/]{0,8}".prop_map(|data| json!({"type": "base64", "media_type": "image/png", "data": data})),
        "[a-z:/]{0,8}".prop_map(|url| json!({"type": "url", "url": url})),
        "[a-z]{0,4}".prop_map(|id| json!({"type": "file", "file_id": id})),
        any_json().prop_map(|x| json!({"type": "x_source", "x": x})),
    ];
    prop_oneof![
        (".{0,12}", any_object()).prop_map(|(text, x)| and(json!({"type": "text", "text": text}), x)),
        (source, any_object(), any_object(), any::<bool>(), ".{0,4}").prop_map(|(source, x, y, image, title)| {
            let source = if source["type"] == "x_source" { source } else { and(source, y) };
            let kind = if image { "image" } else { "document" };
            and(json!({"type": kind, "source": source, "title": title}), x)
        }),
        (".{0,4}", any_json()).prop_map(|(text, x)| json!({"type": format!("x_{text}"), "x": x})),
    ]
    .boxed()
}

fn any_block() -> impl Strategy<Value = Value> {
    let content = prop_oneof![
        ".{0,8}".prop_map(Value::from),
        prop::collection::vec(any_plain_block(), 1..3).prop_map(Value::from),
    ];
    prop_oneof![
        3 => any_plain_block(),
        1 => (".{0,8}", "[a-z]{1,4}", any_object()).prop_map(|(text, signature, x)| {
            and(json!({"type": "thinking", "thinking": text, "signature": signature}), x)
        }),
        1 => (".{0,8}", any_object())
            .prop_map(|(data, x)| and(json!({"type": "redacted_thinking", "data": data}), x)),
        2 => (".{0,6}", ".{0,6}", any_object(), any_object()).prop_map(|(id, name, input, x)| {
            and(json!({"type": "tool_use", "id": id, "name": name, "input": input}), x)
        }),
        2 => (".{0,6}", prop::option::of(content), prop::option::of(any::<bool>()), any_object()).prop_map(
            |(id, content, is_error, x)| {
                let mut result = and(json!({"type": "tool_result", "tool_use_id": id}), x);
                for (name, value) in [("content", content), ("is_error", is_error.map(Value::from))] {
                    if let Some(value) = value {
                        result[name] = value;
                    }
                }
                result
            }
        ),
    ]
}

fn any_content() -> impl Strategy<Value = Value> {
    prop_oneof![".{0,12}".prop_map(Value::from), prop::collection::vec(any_block(), 0..4).prop_map(Value::from)]
}

fn any_tool() -> impl Strategy<Value = Value> {
    let schema = any_object();
    prop_oneof![
        (".{0,6}", schema, prop::option::of(".{0,4}"), prop::option::of(any::<bool>()), any_object()).prop_map(
            |(name, schema, description, strict, x)| {
                let mut tool = and(json!({"name": name, "input_schema": schema}), x);
                for (name, value) in
                    [("description", description.map(Value::from)), ("strict", strict.map(Value::from))]
                {
                    if let Some(value) = value {
                        tool[name] = value;
                    }
                }
                tool
            }
        ),
        any_object().prop_map(|x| and(json!({"type": "x_20250101"}), x)),
    ]
}

/// Members of a request that may be there or not.
fn any_options() -> impl Strategy<Value = Value> {
    let thinking = prop_oneof![
        (any::<u32>(), any_object()).prop_map(|(n, x)| and(json!({"type": "enabled", "budget_tokens": n}), x)),
        any_object().prop_map(|x| and(json!({"type": "disabled"}), x)),
        any_object().prop_map(|x| and(json!({"type": "adaptive"}), x)),
    ];
    let choice = (prop::option::of(any::<bool>()), any_object(), 0..5).prop_map(|(single, x, kind)| {
        let mut choice = match kind {
            0 => json!({"type": "auto"}),
            1 => json!({"type": "any"}),
            2 => json!({"type": "none"}),
            3 => json!({"type": "tool", "name": "f"}),
            _ => json!({"type": "x_choice"}),
        };
        if let Some(single) = single {
            choice["disable_parallel_tool_use"] = single.into();
        }
        and(choice, x)
    });
    let format = prop_oneof![
        (any_object(), any_object()).prop_map(|(s, x)| and(json!({"type": "json_schema", "schema": s}), x)),
        any_object().prop_map(|x| and(json!({"type": "x_format"}), x)),
    ];
    let config = (prop::option::of(format), prop::option::of("[a-z]{1,6}")).prop_filter_map(
        "an empty object says nothing",
        |(format, effort)| {
            let mut config = json!({});
            for (name, value) in [("format", format), ("effort", effort.map(Value::from))] {
                if let Some(value) = value {
                    config[name] = value;
                }
            }
            (config != json!({})).then_some(config)
        },
    );
    let metadata = (".{0,6}", any_object()).prop_map(|(user, x)| and(json!({"user_id": user}), x));
    let temperatures = (0..10u8).prop_map(|n| Value::from(f64::from(2 * n + 1) / 20.0));
    let stops = prop::collection::vec(".{0,4}", 1..3).prop_map(Value::from);
    let tools = prop::collection::vec(any_tool(), 1..3).prop_map(Value::from);
    let some = |name: &'static str, value: BoxedStrategy<Value>| {
        prop::option::of(value).prop_map(move |value| value.map(|value| (name, value)))
    };
    (
        some("thinking", thinking.boxed()),
        some("tool_choice", choice.boxed()),
        some("output_config", config.boxed()),
        some("metadata", metadata.boxed()),
        some("temperature", temperatures.boxed()),
        some("top_k", any::<i64>().prop_map(Value::from).boxed()),
        some("stop_sequences", stops.boxed()),
        some("tools", tools.boxed()),
        some("stream", Just(Value::Bool(true)).boxed()),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i)| {
            let members = [a, b, c, d, e, f, g, h, i].into_iter().flatten();
            Value::Object(members.map(|(name, value)| (name.to_owned(), value)).collect())
        })
}

prop_compose! {
    fn any_request()(
        messages in prop::collection::vec((any::<bool>(), any_content(), any_object()), 1..4),
        system in prop::option::of(prop_oneof![
            ".{0,8}".prop_map(Value::from),
            prop::collection::vec(any_plain_block(), 1..3).prop_map(Value::from),
        ]),
        marked in any::<bool>(),
        options in any_options(),
        unknown in any_object(),
        max_tokens in any::<u32>(),
    ) -> Value {
        let mut messages: Vec<Value> = messages
            .into_iter()
            .map(|(user, content, x)| {
                and(json!({"role": if user { "user" } else { "assistant" }, "content": content}), x)
            })
            .collect();
        if marked && let Some(block) = messages[0]["content"].as_array_mut().and_then(|all| all.first_mut()) {
            block["cache_control"] = json!({"type": "ephemeral"});
        }
        let request = json!({"model": "m", "max_tokens": max_tokens, "messages": messages});
        let mut request = and(and(request, options), unknown);
        if let Some(system) = system {
            request["system"] = system;
        }
        request
    }
}

/// A block of a whole answer.
fn any_answer_block() -> impl Strategy<Value = Value> {
    let citations = prop_oneof![
        Just(json!({})),
        Just(json!({"citations": null})),
        prop::collection::vec(any_object(), 0..3).prop_map(|all| json!({ "citations": all })),
    ];
    prop_oneof![
        (".{0,12}", citations, any_object())
            .prop_map(|(text, c, x)| and(and(json!({"type": "text", "text": text}), c), x)),
        (".{0,8}", "[a-z]{0,4}", any_object()).prop_map(|(text, signature, x)| {
            and(json!({"type": "thinking", "thinking": text, "signature": signature}), x)
        }),
        (".{1,8}", any_object()).prop_map(|(data, x)| and(json!({"type": "redacted_thinking", "data": data}), x)),
        ("[a-z]{1,6}", "[a-z]{1,6}", any_object(), any_object()).prop_map(|(id, name, input, x)| {
            and(json!({"type": "tool_use", "id": id, "name": name, "input": input}), x)
        }),
        any_object().prop_map(|x| and(json!({"type": "x_block"}), x)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_9_any_request_arrives_as_it_was_sent(request in any_request()) {
        prop_assert_eq!(sent(MESSAGES, &request).0, request);
    }

    #[test]
    fn invariant_9_any_whole_answer_arrives_as_it_was_sent(
        content in prop::collection::vec(any_answer_block(), 0..5),
        reason in prop::sample::select(&["end_turn", "max_tokens", "tool_use", "pause_turn", "refusal", "x_reason"][..]),
        usage in any_object(),
        unknown in any_object(),
        tokens in any::<(u32, u32)>(),
    ) {
        let answer = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": reason, "stop_sequence": null,
            "usage": and(json!({"input_tokens": tokens.0, "output_tokens": tokens.1}), usage),
        });
        let answer = and(answer, unknown);
        prop_assert_eq!(whole(MESSAGES, &answer), answer);
    }
}
