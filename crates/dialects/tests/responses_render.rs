//! Events to answers of OpenAI's Responses API: whole, streamed, and kept.

mod common;

use common::failure;
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::{Renderer, default_limits, parse, render_error, step};
use witgate_model::normaliser::{AnswerStart, Client, Document, Ending, Step};
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, ErrorKind, Event, FinishReason, Scope, Started, ToolCallStart,
    Usage,
};

const DIALECT: &str = "openai-responses";

fn renderer(body: &Value) -> Renderer {
    let parsed = parse(DIALECT, "/v1/responses", &default_limits(), body.to_string().as_bytes()).unwrap();
    let start = AnswerStart { render: parsed.render, id: "abc".into(), created: 9, model: "alias".into() };
    Renderer::new(DIALECT, start)
}

fn start(index: u32, kind: BlockKind) -> Event {
    Event::BlockStart(BlockStart { index, choice: 0, kind })
}

fn call(index: u32, id: &str) -> Event {
    start(index, BlockKind::ToolCall(ToolCallStart { id: id.into(), name: "f".into() }))
}

fn delta(index: u32, text: &str) -> BlockDelta {
    BlockDelta { index, text: text.into(), logprobs: None }
}

fn began() -> Event {
    Event::Started(Started { id: Some("chatcmpl-up".into()), model: Some("m".into()), created: Some(7) })
}

fn usage() -> Event {
    Event::Usage(Usage {
        input_tokens: Some(9),
        output_tokens: Some(5),
        cache_read_tokens: Some(2),
        reasoning_tokens: Some(1),
        ..Usage::default()
    })
}

/// What a backend of another API answers: reasoning, text, and two calls.
fn answer() -> Vec<Event> {
    let logprobs = r#"{"content":[{"token":"b","logprob":-1,"bytes":[98],"top_logprobs":[]}],"refusal":null}"#;
    vec![
        began(),
        start(0, BlockKind::Reasoning),
        Event::Reasoning(delta(0, "hm")),
        Event::Reasoning(delta(0, " so")),
        Event::Signature(delta(0, "sig")),
        Event::BlockStop(0),
        Event::text_start(1, 0),
        Event::text(1, "a \"quote\"\n"),
        Event::Text(BlockDelta { index: 1, text: "b".into(), logprobs: Some(logprobs.into()) }),
        Event::BlockStop(1),
        call(2, "call_1"),
        Event::Arguments(delta(2, "{\"a\":")),
        Event::Arguments(delta(2, "1}")),
        Event::BlockStop(2),
        call(3, "call_2"),
        Event::BlockStop(3),
        usage(),
        Event::finish(0, FinishReason::ToolCalls, None),
        Event::Done,
    ]
}

fn output() -> Value {
    json!([
        {"id": "rs_abc_0", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm so"}],
         "encrypted_content": "sig"},
        {"id": "msg_abc_1", "type": "message", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "a \"quote\"\nb", "annotations": [],
             "logprobs": [{"token": "b", "logprob": -1, "bytes": [98], "top_logprobs": []}]}]},
        {"id": "fc_abc_2", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "f",
         "arguments": "{\"a\":1}"},
        {"id": "fc_abc_3", "type": "function_call", "status": "completed", "call_id": "call_2", "name": "f",
         "arguments": "{}"},
    ])
}

fn whole(body: &Value, events: Vec<Event>) -> Value {
    serde_json::from_slice(&renderer(body).feed(events)).unwrap()
}

/// The events of a stream; asserts that it is well-formed and numbered.
#[track_caller]
fn events(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with("\n\n"));
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        assert!(!data.contains(['\n', '\r']), "a line end inside an event: {data:?}");
        let data: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert_eq!(data["type"], name);
        assert_eq!(data["sequence_number"], all.len());
        all.push(data);
    }
    all
}

fn streamed(answer: Vec<Event>) -> Vec<Value> {
    events(&renderer(&json!({"input": "x", "stream": true})).feed(answer))
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

#[test]
fn a_whole_answer_has_all_that_was_asked_and_said() {
    let body = json!({
        "input": "x", "instructions": "i", "temperature": 0.5, "tools": [{"type": "web_search"}],
        "metadata": {"a": "b"}, "previous_response_id": null, "store": false, "max_output_tokens": 7,
    });
    let expected = json!({
        "id": "resp_abc", "object": "response", "created_at": 7, "status": "completed", "background": false,
        "error": null, "incomplete_details": null, "instructions": "i", "max_output_tokens": 7, "max_tool_calls": null,
        "model": "m", "output": output(), "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "service_tier": "default", "store": false, "temperature": 0.5,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [{"type": "web_search"}],
        "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": null, "metadata": {"a": "b"},
        "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0}, "output_tokens": 5,
                  "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 14},
    });
    assert_eq!(whole(&body, answer()), expected);
    let head = renderer(&body).head();
    assert_eq!((head.status, head.headers[0].1.as_str()), (200, "application/json"));
}

#[test]
fn a_stream_tells_every_step_and_then_the_whole() {
    let events = streamed(answer());
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert_eq!(events[0]["response"]["output"], json!([]));
    assert_eq!(events[0]["response"]["model"], "m");
    let item =
        json!({"id": "msg_abc_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []});
    let added = json!({"type": "response.output_item.added", "sequence_number": 9, "output_index": 1, "item": item});
    assert_eq!(events[9], added);
    let told = json!({"type": "response.output_text.delta", "sequence_number": 11, "item_id": "msg_abc_1",
                      "output_index": 1, "content_index": 0, "delta": "a \"quote\"\n", "logprobs": []});
    assert_eq!(events[11], told);
    let last = &events[events.len() - 1]["response"];
    let mut expected = whole(&json!({"input": "x"}), answer());
    assert_eq!(last, &expected.take());
    for (index, done) in events.iter().filter(|event| event["type"] == "response.output_item.done").enumerate() {
        assert_eq!((&done["output_index"], &done["item"]), (&json!(index), &output()[index]));
    }
}

#[test]
fn however_events_are_grouped_the_bytes_are_the_same() {
    let body = json!({"input": "x", "stream": true});
    let together = renderer(&body).feed(answer());
    let mut one_by_one = renderer(&body);
    let apart: Vec<u8> = answer().into_iter().flat_map(|event| one_by_one.feed(vec![event])).collect();
    assert_eq!(together, apart);
}

#[test]
fn reasoning_is_a_summary_where_the_client_asked_for_one_and_an_encrypted_one_has_no_text() {
    let body = json!({"input": "x", "reasoning": {"summary": "auto"}, "stream": true});
    let answer = vec![
        start(0, BlockKind::Reasoning),
        Event::Reasoning(delta(0, "hm")),
        Event::BlockStop(0),
        start(1, BlockKind::Reasoning),
        Event::Redacted(delta(1, "opa")),
        Event::Redacted(delta(1, "que")),
        Event::BlockStop(1),
        Event::Done,
    ];
    let events = events(&renderer(&body).feed(answer));
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds(&events), expected);
    let expected = json!([
        {"id": "rs_abc_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"id": "rs_abc_1", "type": "reasoning", "summary": [], "encrypted_content": "opaque"},
    ]);
    assert_eq!(events[10]["response"]["output"], expected);
}

#[test]
fn parts_of_a_reasoning_item_stay_apart_where_the_backend_says_where_they_begin() {
    let told = |index: u32, members: &str| Event::other(DIALECT, Scope::Block(index), members);
    let answer = || {
        vec![
            start(0, BlockKind::Reasoning),
            told(0, r#"{"id":"rs_up"}"#),
            Event::Reasoning(delta(0, "one")),
            told(0, r#"{"summary_index":1}"#),
            Event::Reasoning(delta(0, "\n\ntwo")),
            Event::Reasoning(delta(0, "\n\nof two")),
            told(0, r#"{"content_index":0}"#),
            Event::Reasoning(delta(0, "\n\nown")),
            Event::BlockStop(0),
            start(1, BlockKind::Reasoning),
            told(1, r#"{"id":"rs_own","content_index":0}"#),
            Event::Reasoning(delta(1, "\n\nall its own")),
            Event::BlockStop(1),
            Event::Done,
        ]
    };
    let piece = |kind: &str, text: &str| json!({"type": kind, "text": text});
    let expected = json!([
        {
            "id": "rs_up", "type": "reasoning",
            "summary": [piece("summary_text", "one"), piece("summary_text", "two\n\nof two")],
            "content": [piece("reasoning_text", "own")],
        },
        {
            "id": "rs_own", "type": "reasoning", "summary": [],
            "content": [piece("reasoning_text", "\n\nall its own")],
        },
    ]);
    assert_eq!(whole(&json!({"input": "x"}), answer())["output"], expected);
    let events = streamed(answer());
    let parts: Vec<_> = events.iter().filter(|event| event["type"] == "response.reasoning_summary_part.done").collect();
    assert_eq!((&parts[0]["summary_index"], &parts[1]["summary_index"]), (&json!(0), &json!(1)));
    assert_eq!(parts[1]["part"], piece("summary_text", "two\n\nof two"));
    let deltas = events.iter().filter(|event| event["type"] == "response.reasoning_summary_text.delta");
    let deltas: Vec<_> = deltas.map(|event| (event["summary_index"].clone(), event["delta"].clone())).collect();
    assert_eq!(deltas, [(json!(0), json!("one")), (json!(1), json!("two")), (json!(1), json!("\n\nof two"))]);
}

#[test]
fn texts_and_refusals_that_follow_each_other_are_one_message_and_a_call_between_them_parts_them() {
    let answer = |between: bool| {
        let mut answer = vec![Event::text_start(0, 0), Event::text(0, "a"), Event::BlockStop(0)];
        if between {
            answer.extend([call(1, "c"), Event::BlockStop(1)]);
        }
        answer.extend([start(2, BlockKind::Refusal), Event::Text(delta(2, "no")), Event::BlockStop(2), Event::Done]);
        answer
    };
    let text = json!({"type": "output_text", "text": "a", "annotations": [], "logprobs": []});
    let refusal = json!({"type": "refusal", "refusal": "no"});
    let output = whole(&json!({"input": "x"}), answer(false))["output"].clone();
    assert_eq!(output.as_array().unwrap().len(), 1);
    assert_eq!(output[0]["content"], json!([text, refusal]));
    let output = whole(&json!({"input": "x"}), answer(true))["output"].clone();
    assert_eq!((&output[0]["content"], &output[2]["content"]), (&json!([text]), &json!([refusal])));
    let events = streamed(answer(false));
    assert!(kinds(&events).contains(&"refusal.delta") && kinds(&events).contains(&"refusal.done"));
}

#[test]
fn a_text_that_goes_on_beside_a_call_stays_in_its_item() {
    let answer = vec![
        Event::text_start(0, 0),
        Event::text(0, "a"),
        call(1, "c"),
        Event::text(0, "b"),
        Event::Arguments(delta(1, "{}")),
        Event::BlockStop(0),
        Event::BlockStop(1),
        Event::Done,
    ];
    let output = whole(&json!({"input": "x"}), answer.clone())["output"].clone();
    assert_eq!((&output[0]["content"][0]["text"], &output[1]["arguments"]), (&json!("ab"), &json!("{}")));
    let events = streamed(answer);
    let done: Vec<_> = events.iter().filter(|event| event["type"] == "response.output_item.done").collect();
    assert_eq!((&done[0]["output_index"], &done[1]["output_index"]), (&json!(0), &json!(1)));
}

#[test]
fn an_answer_that_was_cut_by_a_bound_is_incomplete() {
    for (reason, word) in [(FinishReason::Length, "max_output_tokens"), (FinishReason::ContentFilter, "content_filter")]
    {
        let answer = vec![
            Event::text_start(0, 0),
            Event::text(0, "a"),
            Event::BlockStop(0),
            Event::finish(0, reason, None),
            Event::Done,
        ];
        let response = whole(&json!({"input": "x"}), answer.clone());
        assert_eq!(
            (&response["status"], &response["output"][0]["status"]),
            (&json!("incomplete"), &json!("incomplete"))
        );
        assert_eq!(response["incomplete_details"], json!({"reason": word}));
        let events = streamed(answer);
        assert_eq!(events[events.len() - 1]["type"], "response.incomplete");
    }
    let paused = vec![Event::finish(0, FinishReason::Other("pause_turn".into()), None), Event::Done];
    let response = whole(&json!({"input": "x"}), paused);
    assert_eq!((&response["status"], &response["native_finish_reason"]), (&json!("completed"), &json!("pause_turn")));
}

#[test]
fn a_stream_that_fails_ends_with_an_error_and_a_failed_response_and_never_completed() {
    for cut in 0..answer().len() - 1 {
        let mut renderer = renderer(&json!({"input": "x", "stream": true}));
        let mut bytes = renderer.feed(answer()[..cut].to_vec());
        bytes.extend(renderer.fail(&failure(ErrorKind::MalformedResponse, 502)));
        assert_eq!(renderer.feed(vec![Event::Done]), b"");
        assert_eq!(renderer.fail(&failure(ErrorKind::MalformedResponse, 502)), b"");
        let events = events(&bytes);
        let kinds = kinds(&events);
        assert_eq!((kinds[0], &kinds[kinds.len() - 2..]), ("created", ["error", "failed"].as_slice()));
        assert!(!kinds.contains(&"completed"));
        let error = &events[events.len() - 2];
        // Clients take a member `error` for a broken stream.
        assert_eq!((&error["code"], &error["message"]), (&json!("server_error"), &json!("it \"broke\"")));
        assert!(error.get("error").is_none());
        let response = &events[events.len() - 1]["response"];
        assert_eq!(response["status"], "failed");
        assert_eq!(response["error"], json!({"code": "server_error", "message": "it \"broke\""}));
        assert_eq!(renderer.end(), Ending::default());
    }
}

#[test]
fn an_answer_that_fails_before_it_begins_has_openais_shape() {
    let failure = failure(ErrorKind::NotFound, 404);
    let answer = render_error(DIALECT, &failure);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["error"]["message"]), (404, &json!("it \"broke\"")));
    let whole: Value = serde_json::from_slice(&renderer(&json!({"input": "x"})).fail(&failure)).unwrap();
    assert_eq!(whole, body);
}

#[test]
fn blocks_of_other_apis_and_of_other_choices_have_no_place() {
    let other = |dialect: &str, value: &str| BlockKind::Other(DialectJson::new(dialect, value));
    let answer = vec![
        start(0, other("anthropic-messages", r#"{"type":"server_tool_use"}"#)),
        Event::BlockStop(0),
        start(1, other(DIALECT, "{\"type\":\"web_search_call\",\n\"id\":\"ws_1\"}")),
        Event::BlockStop(1),
        start(2, other(DIALECT, "no JSON")),
        Event::BlockStop(2),
        Event::BlockStart(BlockStart { index: 3, choice: 1, kind: BlockKind::Text }),
        Event::text(3, "x"),
        Event::BlockStop(3),
        Event::other("openai-chat", Scope::Envelope, r#"{"system_fingerprint":"f"}"#),
        Event::other(DIALECT, Scope::Envelope, r#"{"id":"resp_up","store":false,"x":1}"#),
        Event::Done,
    ];
    let response = whole(&json!({"input": "x"}), answer);
    assert_eq!(response["output"], json!([{"type": "web_search_call", "id": "ws_1"}]));
    assert_eq!(
        (&response["id"], &response["store"], &response["x"], response.get("system_fingerprint")),
        (&json!("resp_abc"), &json!(true), &json!(1), None)
    );
}

#[test]
fn a_waiting_stream_has_comments_and_a_whole_answer_has_none() {
    assert_eq!(renderer(&json!({"input": "x", "stream": true})).keep_alive(), b": keep-alive\n\n");
    assert_eq!(renderer(&json!({"input": "x"})).keep_alive(), b"");
}

fn kept(body: &Value, answer: Vec<Event>) -> Vec<Document> {
    let mut renderer = renderer(body);
    renderer.feed(answer);
    let ending = renderer.end();
    assert_eq!(ending.again, None);
    ending.keep
}

#[test]
fn a_response_is_kept_with_its_conversation_and_goes_on_from_there() {
    let input =
        json!([{"role": "user", "content": "q"}, {"type": "function_call_output", "call_id": "c", "output": "r"}]);
    for stream in [false, true] {
        let documents = kept(&json!({"input": input, "stream": stream}), answer());
        assert_eq!(documents.len(), 1);
        assert_eq!((documents[0].at.kind.as_str(), documents[0].at.key.as_str()), ("response", "resp_abc"));
        let document: Value = serde_json::from_str(documents[0].content.as_ref().unwrap()).unwrap();
        assert_eq!(document["response"], whole(&json!({"input": "x"}), answer()));
        let expected = json!([
            {"id": "msg_abc_i0", "type": "message", "role": "user", "content": "q"},
            {"id": "fco_abc_i1", "type": "function_call_output", "call_id": "c", "output": "r"},
        ]);
        assert_eq!(document["input"], expected);
        // The next turn keeps both.
        let body = json!({"input": "next", "previous_response_id": "resp_abc"}).to_string();
        let client = Client { method: "POST".into(), path: "/v1/responses".into(), documents, ..Client::default() };
        let Step::Follow(parsed) = step(DIALECT, &client, &default_limits(), body.as_bytes()).unwrap() else {
            panic!()
        };
        let start = AnswerStart { render: parsed.render, id: "def".into(), created: 9, model: "alias".into() };
        let mut renderer = Renderer::new(DIALECT, start);
        let response: Value = serde_json::from_slice(&renderer.feed(vec![Event::Done])).unwrap();
        assert_eq!(response["previous_response_id"], "resp_abc");
        let keep = renderer.end().keep;
        let document: Value = serde_json::from_str(keep[0].content.as_ref().unwrap()).unwrap();
        let input = document["input"].as_array().unwrap();
        assert_eq!(input[..2], *expected.as_array().unwrap());
        assert_eq!(input[2..6], *output().as_array().unwrap());
        let text = json!({"type": "input_text", "text": "next"});
        assert_eq!(input[6], json!({"id": "msg_def_i6", "type": "message", "role": "user", "content": [text]}));
    }
}

#[test]
fn items_that_their_backend_named_are_documents_of_their_own() {
    let answer = vec![
        Event::text_start(0, 0),
        Event::other(DIALECT, Scope::Block(0), r#"{"id":"msg_up"}"#),
        Event::text(0, "a"),
        Event::BlockStop(0),
        start(1, BlockKind::Other(DialectJson::new(DIALECT, r#"{"type":"x_call","id":"../etc"}"#))),
        Event::BlockStop(1),
        Event::Done,
    ];
    let documents = kept(&json!({"input": "x"}), answer);
    let keys: Vec<_> = documents.iter().map(|document| document.at.key.as_str()).collect();
    assert_eq!(keys, ["resp_abc", "msg_up"]);
    let item: Value = serde_json::from_str(documents[1].content.as_ref().unwrap()).unwrap();
    assert_eq!((&item["type"], &item["content"][0]["text"]), (&json!("message"), &json!("a")));
}

#[test]
fn nothing_is_kept_that_must_not_be_or_is_too_large() {
    assert_eq!(kept(&json!({"input": "x", "store": false}), answer()), []);
    let large = "a".repeat(3 << 20);
    assert_eq!(kept(&json!({"input": large}), answer()).len(), 1);
    assert_eq!(kept(&json!({"input": "a".repeat(5 << 20)}), answer()), []);
    let answer = vec![Event::text_start(0, 0), Event::text(0, large.clone()), Event::BlockStop(0), Event::Done];
    assert_eq!(kept(&json!({"input": large}), answer), []);
}

fn any_event() -> impl Strategy<Value = Event> {
    let index = 0u32..4;
    let members = prop_oneof![
        Just(r#"{"id":"msg_up"}"#),
        Just(r#"{"annotations":[1,{"a":2}]}"#),
        Just(r#"{"annotations":5,"type":"x","y":1}"#),
        Just("{\"id\":7,\n\"phase\":\"p\"}"),
        Just("no JSON"),
    ];
    let kind = prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Refusal),
        Just(BlockKind::Reasoning),
        Just(BlockKind::ToolCall(ToolCallStart { id: "c".into(), name: "f".into() })),
        Just(BlockKind::Other(DialectJson::new(DIALECT, r#"{"type":"x_call"}"#))),
        Just(BlockKind::Other(DialectJson::new(DIALECT, r#"{"type":"output_x"}"#))),
    ];
    let text = prop_oneof![Just(""), Just("a"), Just("\u{1F30D}\n\"")];
    prop_oneof![
        Just(began()),
        Just(usage()),
        (index.clone(), kind).prop_map(|(index, kind)| start(index, kind)),
        (index.clone(), text.clone()).prop_map(|(index, text)| Event::Text(delta(index, text))),
        (index.clone(), text.clone()).prop_map(|(index, text)| Event::Reasoning(delta(index, text))),
        (index.clone(), text.clone()).prop_map(|(index, text)| Event::Signature(delta(index, text))),
        (index.clone(), text).prop_map(|(index, text)| Event::Arguments(delta(index, text))),
        index.clone().prop_map(Event::BlockStop),
        (index, members.clone()).prop_map(|(index, members)| Event::other(DIALECT, Scope::Block(index), members)),
        members.prop_map(|members| Event::other(DIALECT, Scope::Envelope, members)),
        Just(Event::finish(0, FinishReason::Length, None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_order_make_a_stream_whose_items_are_those_of_its_end(
        mut answer in prop::collection::vec(any_event(), 0..24),
    ) {
        answer.push(Event::Done);
        let events = streamed(answer);
        let output = events[events.len() - 1]["response"]["output"].as_array().unwrap();
        for kind in ["response.output_item.added", "response.output_item.done"] {
            let told: Vec<_> = events.iter().filter(|event| event["type"] == kind).collect();
            prop_assert_eq!(told.len(), output.len());
            for event in told {
                let item = &output[usize::try_from(event["output_index"].as_u64().unwrap()).unwrap()];
                prop_assert_eq!(&event["item"]["id"], &item["id"]);
                prop_assert!(kind != "response.output_item.done" || event["item"] == *item);
            }
        }
    }
}
