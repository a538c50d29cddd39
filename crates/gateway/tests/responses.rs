//! Invariant 9 for OpenAI's Responses API: from its client to its backend, and back, everything arrives as it was sent.

use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
use witgate_dialects::{Renderer, default_limits, parse};
use witgate_model::normaliser::AnswerStart;
use witgate_model::{Adapter, Decoder, Event, Frame, Framing, HttpRequest, Request, ResponseHead, SseEvent};

const DIALECT: &str = "openai-responses";
const PATH: &str = "/v1/responses";
const SETTINGS: &str = r#"{"api":"responses"}"#;

fn request(request: &Value) -> Request {
    parse(DIALECT, PATH, &default_limits(), request.to_string().as_bytes()).unwrap().request
}

/// What the backend gets of a request.
fn sent(body: &Value) -> Value {
    let http = OpenAi::encode(SETTINGS, request(body)).unwrap();
    assert_eq!(http.dropped, [""; 0]);
    serde_json::from_slice(&http.body).unwrap()
}

/// What the client gets of an answer in these frames.
fn rendered(body: &Value, frames: Vec<Frame>) -> String {
    let stream = body["stream"] == true;
    let parsed = parse(DIALECT, PATH, &default_limits(), body.to_string().as_bytes()).unwrap();
    let context = OpenAi::encode(SETTINGS, parsed.request).unwrap().context;
    let framing = if stream { Framing::Sse } else { Framing::Whole };
    let mut decoder =
        OpenAi::decoder(SETTINGS, context, ResponseHead { status: 200, headers: vec![], framing, stream });
    let start = AnswerStart { render: parsed.render, id: "x".into(), created: 9, model: "alias".into() };
    let mut renderer = Renderer::new(DIALECT, start);
    let mut out = Vec::new();
    let mut last = None;
    for frame in frames {
        let events = decoder.feed(vec![frame]);
        last = events.last().cloned().or(last);
        out.extend(renderer.feed(events));
    }
    if last != Some(Event::Done) {
        let events = decoder.finish();
        assert_eq!(events.last(), Some(&Event::Done), "{events:?}");
        out.extend(renderer.feed(events));
    }
    String::from_utf8(out).unwrap()
}

fn usage() -> Value {
    json!({
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 2, "x": 1}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 14, "x_usage": 1,
    })
}

fn response(output: &Value, status: &str) -> Value {
    let complete = status != "in_progress";
    let mut response = json!({
        "id": "resp_x", "object": "response", "created_at": 7, "status": status, "background": false, "error": null,
        "incomplete_details": null, "instructions": "Be brief.", "max_output_tokens": 100, "max_tool_calls": null,
        "model": "m-2026", "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "flex", "store": false, "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"}, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
        "top_p": 1.0, "truncation": "disabled", "user": null, "metadata": {"a": "b"}, "x_response": [1],
        "usage": if complete { usage() } else { Value::Null },
    });
    if complete {
        response["completed_at"] = json!(8);
    }
    response
}

fn output() -> Value {
    json!([
        {"id": "rs_up1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}],
         "encrypted_content": "gAAAAA", "x_item": 1},
        {"id": "rs_up2", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"},
        {"id": "ws_up", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"id": "msg_up1", "type": "message", "status": "completed", "role": "assistant", "phase": "commentary",
         "content": [
            {"type": "output_text", "text": "a b", "logprobs": [{"token": "a", "logprob": -0.5, "top_logprobs": []}],
             "annotations": [{"type": "url_citation", "url": "u"}, {"type": "x"}]},
            {"type": "refusal", "refusal": "no"},
         ]},
        {"id": "msg_up2", "type": "message", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "c", "annotations": [], "logprobs": []}]},
        {"id": "fc_up", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "f",
         "arguments": "{\"a\": 2.50}"},
        {"id": "ct_up", "type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x"},
    ])
}

#[test]
fn invariant_9_a_request_with_unknown_members_at_every_level_arrives_as_it_was_sent() {
    let request = json!({
        "model": "m", "stream": true, "stream_options": {"include_obfuscation": false}, "store": false,
        "instructions": "Be brief.", "max_output_tokens": 100, "temperature": 0.5, "top_p": 0.25, "top_logprobs": 2,
        "include": ["file_search_call.results", "reasoning.encrypted_content", "message.output_text.logprobs"],
        "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "truncation": "auto", "service_tier": "flex",
        "prompt_cache_key": "k", "max_tool_calls": 3, "x_new": {"deep": [1, 2.50, null]}, "prompt": null,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}, "strict": true,
                            "description": "d"}, "verbosity": "low", "x_text": 1},
        "reasoning": {"effort": "low", "summary": "auto", "x_reasoning": 1},
        "tools": [
            {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": false,
             "x_tool": 1},
            {"type": "function", "name": "h"},
            {"type": "web_search", "filters": {"x": 1}},
            {"type": "custom", "name": "g", "format": {"type": "text"}},
        ],
        "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false,
        "input": [
            {"role": "system", "content": "first"},
            {"role": "user", "content": "a", "x_message": 1},
            {"role": "developer", "content": [{"type": "input_text", "text": "b", "x_part": 1}]},
            {"role": "user", "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high", "x_part": 1},
                {"type": "input_image", "image_url": "https://a/b"},
                {"type": "input_image", "file_id": "file_1", "detail": "auto"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
                {"type": "input_file", "file_url": "https://a/b.pdf"},
                {"type": "input_file", "file_id": "file_2", "x_part": 1},
                {"type": "input_file", "file_data": "AAAA", "filename": "b.pdf"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ]},
            {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}],
             "encrypted_content": "gAAAAA", "status": null},
            {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"},
            {"id": "rs_3", "type": "reasoning", "summary": [{"type": "summary_text", "text": "a"},
             {"type": "summary_text", "text": "b"}], "encrypted_content": "gAAAAC"},
            {"id": "rs_4", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "own"}]},
            {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "phase": "commentary",
             "content": [
                {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"}]},
            {"id": "msg_2", "type": "message", "status": "incomplete", "role": "assistant", "content": [
                {"type": "output_text", "text": "b", "annotations": [{"type": "url_citation", "url": "u"}]}]},
            {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c1", "name": "f",
             "arguments": "{\"b\": 1, \"a\": [2.50]}"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}", "x_call": 1},
            {"type": "custom_tool_call", "call_id": "c3", "name": "g", "input": "x"},
            {"type": "function_call_output", "call_id": "c1", "output": "1", "x_output": 1},
            {"type": "function_call_output", "call_id": "c2", "output": [
                {"type": "input_text", "text": "2"}, {"type": "input_image", "image_url": "https://a/c"}]},
            {"type": "custom_tool_call_output", "call_id": "c3", "output": "3"},
            {"role": "assistant", "content": "x"},
            {"type": "x_item", "id": 5, "x": [1]},
        ],
    });
    assert_eq!(sent(&request), request);
}

#[test]
fn a_backend_that_knows_the_dialect_is_not_told_what_says_nothing() {
    let request = json!({
        "model": "m", "store": true, "background": false, "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low"},
        "input": [
            {"type": "message", "role": "user", "content": "a"},
            {"type": "message", "id": "msg_x_0", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
        ],
    });
    let expected = json!({
        "model": "m", "store": false, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"},
        "input": [
            {"role": "user", "content": "a"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        ],
    });
    assert_eq!(sent(&request), expected);
}

#[test]
fn invariant_9_a_whole_answer_with_unknown_members_arrives_as_it_was_sent() {
    let request = json!({"model": "m", "input": "u", "instructions": "Be brief.", "store": false});
    let mut answer = response(&output(), "completed");
    answer["id"] = "resp_up".into();
    let rendered = rendered(&request, vec![Frame::Bytes(answer.to_string().into_bytes())]);
    // The id of a response is always the gateway's.
    assert_eq!(serde_json::from_str::<Value>(&rendered).unwrap(), response(&output(), "completed"));
}

fn frame(event: &Value) -> Frame {
    Frame::Sse(SseEvent { event: event["type"].as_str().map(str::to_owned), data: event.to_string(), id: None })
}

#[test]
fn invariant_9_a_stream_with_unknown_members_arrives_as_it_was_sent() {
    let request = json!({"model": "m", "input": "u", "instructions": "Be brief.", "store": false, "stream": true});
    let items = output();
    let text = &items[3]["content"][0];
    let bare = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
    let cited = |number: usize| {
        json!({
        "type": "response.output_text.annotation.added", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
        "annotation_index": number, "annotation": text["annotations"][number]})
    };
    let added = |index: usize, item: Value| {
        json!({
        "type": "response.output_item.added", "output_index": index, "item": item})
    };
    let done = |index: usize| json!({"type": "response.output_item.done", "output_index": index, "item": items[index]});
    let mut events = vec![
        json!({"type": "response.created", "response": response(&json!([]), "in_progress")}),
        json!({"type": "response.in_progress", "response": response(&json!([]), "in_progress")}),
        added(0, json!({"id": "rs_up1", "type": "reasoning", "summary": [], "x_item": 1})),
        json!({"type": "response.reasoning_summary_part.added", "item_id": "rs_up1", "output_index": 0,
               "summary_index": 0, "part": {"type": "summary_text", "text": ""}}),
        json!({"type": "response.reasoning_summary_text.delta", "item_id": "rs_up1", "output_index": 0,
               "summary_index": 0, "delta": "hm"}),
        json!({"type": "response.reasoning_summary_text.done", "item_id": "rs_up1", "output_index": 0,
               "summary_index": 0, "text": "hm"}),
        json!({"type": "response.reasoning_summary_part.done", "item_id": "rs_up1", "output_index": 0,
               "summary_index": 0, "part": {"type": "summary_text", "text": "hm"}}),
        done(0),
        added(1, json!({"id": "rs_up2", "type": "reasoning", "summary": []})),
        done(1),
        added(2, items[2].clone()),
        done(2),
        added(
            3,
            json!({"id": "msg_up1", "type": "message", "status": "in_progress", "role": "assistant",
                        "phase": "commentary", "content": []}),
        ),
        json!({"type": "response.content_part.added", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
               "part": bare}),
        json!({"type": "response.output_text.delta", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
               "delta": "a", "logprobs": text["logprobs"]}),
        json!({"type": "response.output_text.delta", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
               "delta": " b", "logprobs": []}),
        cited(0),
        cited(1),
        json!({"type": "response.output_text.done", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
               "text": "a b", "logprobs": text["logprobs"]}),
        json!({"type": "response.content_part.done", "item_id": "msg_up1", "output_index": 3, "content_index": 0,
               "part": text}),
        json!({"type": "response.content_part.added", "item_id": "msg_up1", "output_index": 3, "content_index": 1,
               "part": {"type": "refusal", "refusal": ""}}),
        json!({"type": "response.refusal.delta", "item_id": "msg_up1", "output_index": 3, "content_index": 1,
               "delta": "no"}),
        json!({"type": "response.refusal.done", "item_id": "msg_up1", "output_index": 3, "content_index": 1,
               "refusal": "no"}),
        json!({"type": "response.content_part.done", "item_id": "msg_up1", "output_index": 3, "content_index": 1,
               "part": {"type": "refusal", "refusal": "no"}}),
        done(3),
        added(
            4,
            json!({"id": "msg_up2", "type": "message", "status": "in_progress", "role": "assistant",
                        "content": []}),
        ),
        json!({"type": "response.content_part.added", "item_id": "msg_up2", "output_index": 4, "content_index": 0,
               "part": bare}),
        json!({"type": "response.output_text.delta", "item_id": "msg_up2", "output_index": 4, "content_index": 0,
               "delta": "c", "logprobs": []}),
        json!({"type": "response.output_text.done", "item_id": "msg_up2", "output_index": 4, "content_index": 0,
               "text": "c", "logprobs": []}),
        json!({"type": "response.content_part.done", "item_id": "msg_up2", "output_index": 4, "content_index": 0,
               "part": items[4]["content"][0]}),
        done(4),
        added(
            5,
            json!({"id": "fc_up", "type": "function_call", "status": "in_progress", "call_id": "call_1",
                        "name": "f", "arguments": ""}),
        ),
        json!({"type": "response.function_call_arguments.delta", "item_id": "fc_up", "output_index": 5,
               "delta": "{\"a\": 2.50}"}),
        json!({"type": "response.function_call_arguments.done", "item_id": "fc_up", "output_index": 5, "name": "f",
               "arguments": "{\"a\": 2.50}"}),
        done(5),
        added(6, items[6].clone()),
        done(6),
        json!({"type": "response.completed", "response": response(&items, "completed")}),
    ];
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    let frames = events.iter().map(|event| {
        let mut event = event.clone();
        if let Some(response) = event.get_mut("response") {
            response["id"] = "resp_up".into();
        }
        frame(&event)
    });
    let text = rendered(&request, frames.collect());
    let mut got = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        got.push(data);
    }
    for (number, event) in events.iter().enumerate() {
        assert_eq!(got.get(number), Some(event), "event {number}");
    }
    assert_eq!(got.len(), events.len());
}

/// A conversation as a client sends it that appends the output of a response of ours to its input.
fn turns() -> Value {
    json!({
        "model": "m", "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {"id": "msg_abc_0", "type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "Let me look.", "annotations": [], "logprobs": []}]},
            {"id": "fc_abc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "look",
             "arguments": "{\"city\":\"Rome\"}"},
            {"id": "fc_abc_2", "type": "function_call", "status": "completed", "call_id": "call_2", "name": "look",
             "arguments": "{\"city\":\"Bern\"}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "function_call_output", "call_id": "call_2", "output": "sun"},
        ],
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}],
    })
}

#[test]
fn an_answer_of_ours_can_be_sent_back_to_any_backend() {
    fn takes<A: Adapter>(settings: &str) -> HttpRequest {
        let http = A::encode(settings, request(&turns())).unwrap();
        assert_eq!(http.dropped, [""; 0]);
        http
    }
    takes::<Anthropic>("{}");
    takes::<Ollama>("{}");
    takes::<LlamaCpp>("{}");
    takes::<Bedrock>(r#"{"region":"eu-central-1"}"#);
    takes::<OpenAi>(SETTINGS);
    let chat: Value = serde_json::from_slice(&takes::<OpenAi>("{}").body).unwrap();
    let messages = chat["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool"]);
    assert_eq!(messages[2]["tool_calls"].as_array().unwrap().len(), 2);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("x_[a-z]{1,6}", inner, 0..4).prop_map(|all| json!(all)),
        ]
    })
}

fn any_content(kind: &'static str) -> impl Strategy<Value = Value> {
    let text = (".{0,20}", any_json()).prop_map(move |(text, x)| json!({"type": kind, "text": text, "x_part": x}));
    let image = "[A-Za-z0-9+/]{1,12}".prop_map(
        |data| json!({"type": "input_image", "image_url": format!("data:image/png;base64,{data}"), "detail": "low"}),
    );
    let refusal = ".{0,20}".prop_map(|text| json!({"type": "refusal", "refusal": text}));
    let other = any_json().prop_map(|x| json!({"type": "input_x", "x": x}));
    prop::collection::vec(prop_oneof![text, image, refusal, other], 1..4).prop_map(Value::from)
}

fn any_item() -> impl Strategy<Value = Value> {
    let id = "[a-z0-9]{4,12}";
    let said = prop_oneof![".{0,20}".prop_map(Value::from), any_content("input_text")];
    prop_oneof![
        (said.clone(), any_json()).prop_map(|(said, x)| json!({"role": "user", "content": said, "x_message": x})),
        (id, any_content("output_text")).prop_map(|(id, content)| json!({
            "type": "message", "id": format!("msg_{id}"), "status": "completed", "role": "assistant",
            "content": content})),
        (".{0,20}", any_json()).prop_map(|(text, x)| json!({"role": "assistant", "content": text, "x_message": x})),
        (id, ".{1,20}", any::<bool>()).prop_map(|(id, text, told)| json!({
            "type": "reasoning", "id": format!("rs_{id}"), "encrypted_content": text,
            "summary": if told { json!([{"type": "summary_text", "text": text}]) } else { json!([]) }})),
        (id, ".{1,8}", any_json()).prop_map(|(id, name, x)| json!({
            "type": "function_call", "id": format!("fc_{id}"), "call_id": "c", "name": name,
            "arguments": json!({"a": x}).to_string()})),
        (said, any_json()).prop_map(|(said, x)| json!({
            "type": "function_call_output", "call_id": "c", "output": said, "x_output": x})),
        (id, any_json()).prop_map(|(id, x)| json!({"type": "x_call", "id": id, "x": x})),
        any_json().prop_map(|x| json!({"type": "x_call_output", "x": x})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_9_any_request_arrives_as_it_was_sent(
        input in prop::collection::vec(any_item(), 1..8),
        instructions in ".{0,12}",
        temperature in (0..1000).prop_map(|number| f64::from(2 * number + 1) / 1024.0),
        tokens in any::<u64>(),
        unknown in any_json(),
    ) {
        let request = json!({
            "model": "m", "instructions": instructions, "input": input, "temperature": temperature, "store": false,
            "max_output_tokens": tokens, "x_unknown": unknown,
        });
        prop_assert_eq!(sent(&request), request);
    }
}
