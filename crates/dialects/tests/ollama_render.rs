//! Answers in Ollama's API, written.

mod common;

use common::{failure, renderer};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::{Renderer, render_error};
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, Embedding, Error, ErrorKind, Event, Finish, FinishReason, Scope,
    Started, ToolCallStart, Usage, Vector,
};

fn started() -> Event {
    Event::Started(Started { id: Some("x".into()), model: Some("m".into()), created: None })
}

fn start(index: u32, kind: BlockKind) -> Event {
    Event::BlockStart(BlockStart { index, choice: 0, kind })
}

fn call(index: u32, id: &str, name: &str) -> Event {
    start(index, BlockKind::ToolCall(ToolCallStart { id: id.into(), name: name.into() }))
}

fn arguments(index: u32, text: &str) -> Event {
    Event::Arguments(BlockDelta { index, text: text.into(), logprobs: None })
}

fn thought(index: u32, text: &str) -> Event {
    Event::Reasoning(BlockDelta { index, text: text.into(), logprobs: None })
}

fn with_logprobs(index: u32, text: &str, logprobs: &str) -> Event {
    Event::Text(BlockDelta { index, text: text.into(), logprobs: Some(logprobs.into()) })
}

fn counts(input: u64, output: u64) -> Event {
    Event::Usage(Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() })
}

fn finish(reason: FinishReason) -> Event {
    Event::finish(0, reason, None)
}

fn lines_of(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line without its end: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn lines(dialect: &str, events: Vec<Event>) -> Vec<Value> {
    lines_of(&renderer(dialect, "stream").feed(events))
}

fn text(dialect: &str, render: &str, events: Vec<Event>) -> String {
    String::from_utf8(renderer(dialect, render).feed(events)).unwrap()
}

fn whole(dialect: &str, events: Vec<Event>) -> Value {
    serde_json::from_str(&text(dialect, "", events)).unwrap()
}

/// Reasoning, text, a tool call, the count, the end.
fn answer() -> Vec<Event> {
    vec![
        started(),
        start(0, BlockKind::Reasoning),
        thought(0, "Hm"),
        thought(0, "m\n"),
        Event::BlockStop(0),
        Event::text_start(1, 0),
        Event::text(1, "He said "),
        Event::text(1, "\"hi\""),
        Event::BlockStop(1),
        call(2, "call_1", "weather"),
        arguments(2, "{\"city\":"),
        arguments(2, " \"Bern\",\n\"days\": 2.0}"),
        Event::BlockStop(2),
        counts(7, 5),
        finish(FinishReason::ToolCalls),
        Event::Done,
    ]
}

#[test]
fn a_chat_is_a_line_for_each_delta_and_each_call() {
    assert_snapshot!(text("ollama-chat", "stream", answer()), @r#"
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"","thinking":"m\n"},"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"He said "},"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"\"hi\""},"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"weather","arguments":{"city": "Bern", "days": 2.0}}}]},"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":5}
    "#);
}

#[test]
fn a_generation_is_a_line_for_each_delta_and_each_call() {
    assert_snapshot!(text("ollama-generate", "stream", answer()), @r#"
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"","thinking":"Hm","done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"","thinking":"m\n","done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"He said ","done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"\"hi\"","done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"weather","arguments":{"city": "Bern", "days": 2.0}}}],"done":false}
    {"model":"m","created_at":"2023-11-14T22:13:20Z","response":"","done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":5}
    "#);
}

#[test]
fn a_whole_answer_is_one_object() {
    assert_snapshot!(text("ollama-chat", "", answer()), @r#"{"model":"m","created_at":"2023-11-14T22:13:20Z","message":{"role":"assistant","content":"He said \"hi\"","thinking":"Hmm\n","tool_calls":[{"id":"call_1","function":{"index":0,"name":"weather","arguments":{"city": "Bern", "days": 2.0}}}]},"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":5}"#);
    assert_snapshot!(text("ollama-generate", "", answer()), @r#"{"model":"m","created_at":"2023-11-14T22:13:20Z","response":"He said \"hi\"","thinking":"Hmm\n","tool_calls":[{"id":"call_1","function":{"index":0,"name":"weather","arguments":{"city": "Bern", "days": 2.0}}}],"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":5}"#);
}

#[test]
fn the_head_tells_lines_from_an_object() {
    let head = |dialect, render| renderer(dialect, render).head();
    for dialect in ["ollama-chat", "ollama-generate"] {
        let head = head(dialect, "stream");
        assert_eq!((head.status, head.headers[0].1.as_str()), (200, "application/x-ndjson"));
    }
    for dialect in ["ollama-chat", "ollama-generate", "ollama-embed", "ollama-embeddings"] {
        let head = head(dialect, "");
        assert_eq!((head.status, head.headers[0].1.as_str()), (200, "application/json"));
    }
}

#[test]
fn what_keeps_a_stream_open_leaves_every_line_json() {
    let mut answer = renderer("ollama-chat", "stream");
    let mut bytes = answer.keep_alive();
    bytes.extend(answer.keep_alive());
    bytes.extend(answer.feed(vec![started(), Event::text_start(0, 0), Event::text(0, "a")]));
    bytes.extend(answer.keep_alive());
    bytes.extend(answer.fail(&failure(ErrorKind::Timeout, 504)));
    assert!(bytes.starts_with(b"  {"));
    assert_eq!(lines_of(&bytes).len(), 2);
    assert!(renderer("ollama-chat", "").keep_alive().is_empty());
}

#[test]
fn a_request_for_nothing_is_answered_as_ollama_does() {
    let done = || vec![Event::Done];
    let at = "2023-11-14T22:13:20Z";
    let message = json!({"role": "assistant", "content": ""});
    for word in ["load", "unload"] {
        let answer: Value = serde_json::from_str(&text("ollama-chat", word, done())).unwrap();
        assert_eq!(
            answer,
            json!({"model": "alias", "created_at": at, "message": message, "done": true, "done_reason": word})
        );
        let answer: Value = serde_json::from_str(&text("ollama-generate", word, done())).unwrap();
        assert_eq!(
            answer,
            json!({"model": "alias", "created_at": at, "response": "", "done": true, "done_reason": word})
        );
    }
    assert_eq!(text("ollama-embed", "load", done()), r#"{"model":"alias","embeddings":[]}"#);
    assert_eq!(text("ollama-embeddings", "load", done()), r#"{"embedding":[]}"#);
}

#[test]
fn the_reason_of_the_end_is_one_that_clients_know() {
    let ended = |finish: Finish| {
        let last = lines("ollama-chat", vec![started(), Event::Finish(finish), Event::Done]).remove(0);
        (last["done_reason"].as_str().unwrap().to_owned(), last.get("native_finish_reason").cloned())
    };
    let finish =
        |reason, raw: Option<&str>| Finish { choice: 0, reason, raw: raw.map(str::to_owned), stop_sequence: None };
    assert_eq!(ended(finish(FinishReason::Stop, Some("end_turn"))), ("stop".into(), None));
    assert_eq!(ended(finish(FinishReason::ToolCalls, None)), ("stop".into(), None));
    assert_eq!(ended(finish(FinishReason::Length, None)), ("length".into(), None));
    assert_eq!(ended(finish(FinishReason::ContentFilter, None)), ("content_filter".into(), None));
    let other = FinishReason::Other("paused".into());
    assert_eq!(ended(finish(other.clone(), None)), ("stop".into(), Some(json!("paused"))));
    assert_eq!(ended(finish(other, Some("PAUSE"))), ("stop".into(), Some(json!("PAUSE"))));
}

#[test]
fn only_the_first_choice_is_shown() {
    let second = BlockStart { index: 1, choice: 1, kind: BlockKind::Text };
    let events = vec![
        started(),
        Event::text_start(0, 0),
        Event::BlockStart(second),
        Event::text(1, "no"),
        Event::text(0, "yes"),
        Event::BlockStop(1),
        Event::BlockStop(0),
        Event::finish(1, FinishReason::Length, None),
        finish(FinishReason::Stop),
        Event::Done,
    ];
    let answer = whole("ollama-generate", events);
    assert_eq!((&answer["response"], &answer["done_reason"]), (&json!("yes"), &json!("stop")));
}

#[test]
fn a_refusal_is_content() {
    let events =
        vec![started(), start(0, BlockKind::Refusal), Event::text(0, "I won't"), Event::BlockStop(0), Event::Done];
    assert_eq!(whole("ollama-chat", events)["message"]["content"], "I won't");
}

#[test]
fn calls_that_overlap_stay_apart_and_in_the_order_of_their_starts() {
    let events = || {
        vec![
            started(),
            call(0, "a", "f"),
            call(1, "b", "g"),
            arguments(1, "{\"n\""),
            arguments(0, "{}"),
            arguments(1, ":1}"),
            Event::BlockStop(1),
            Event::BlockStop(0),
            Event::Done,
        ]
    };
    let f = json!({"id": "a", "function": {"index": 0, "name": "f", "arguments": {}}});
    let g = json!({"id": "b", "function": {"index": 1, "name": "g", "arguments": {"n": 1}}});
    assert_eq!(whole("ollama-chat", events())["message"]["tool_calls"], json!([f, g]));
    let lines = lines("ollama-chat", events());
    let calls: Vec<_> = lines.iter().map(|line| &line["message"]["tool_calls"]).collect();
    assert_eq!(calls, [&json!([g]), &json!([f]), &Value::Null]);
}

#[test]
fn a_call_without_arguments_has_none() {
    let events = vec![started(), call(0, "a", "f"), Event::BlockStop(0), Event::Done];
    assert_eq!(whole("ollama-generate", events)["tool_calls"][0]["function"]["arguments"], json!({}));
}

#[test]
fn arguments_that_are_no_object_are_shown_as_text_and_not_as_a_call() {
    for cut in ["{\"a\":", "[]", "1", "{} {}", "null"] {
        let events = || vec![started(), call(0, "a", "f"), arguments(0, cut), Event::BlockStop(0), Event::Done];
        let wanted = json!([{"id": "a", "function": {"index": 0, "name": "f", "arguments": cut}}]);
        let message = whole("ollama-chat", events())["message"].clone();
        assert_eq!((message.get("tool_calls"), &message["invalid_tool_calls"]), (None, &wanted));
        assert_eq!(lines("ollama-generate", events())[0]["invalid_tool_calls"], wanted);
    }
}

#[test]
fn arguments_are_bounded() {
    let piece = " ".repeat(1024 * 1024);
    let mut answer = renderer("ollama-chat", "stream");
    let mut events = vec![started(), call(0, "a", "f"), arguments(0, "{}")];
    events.extend((0..17).map(|_| arguments(0, &piece)));
    events.push(Event::BlockStop(0));
    let bytes = answer.feed(events);
    assert!(bytes.len() < 17 * 1024 * 1024, "{}", bytes.len());
    assert!(lines_of(&bytes)[0]["message"]["invalid_tool_calls"].is_array());
}

#[test]
fn a_call_that_an_ollama_backend_did_not_name_has_no_id() {
    let events = vec![started(), call(0, "unnamed_4", "f"), Event::BlockStop(0), Event::Done];
    let wanted = json!({"function": {"index": 0, "name": "f", "arguments": {}}});
    assert_eq!(whole("ollama-chat", events)["message"]["tool_calls"], json!([wanted]));
}

#[test]
fn what_an_ollama_backend_adds_is_kept_and_replaces_nothing_but_its_own() {
    let raw = json!({"prompt_eval_count": 26, "eval_count": 259, "total_duration": 10, "load_duration": 2,
                     "prompt_eval_duration": 3, "eval_duration": 4});
    let usage = Usage {
        input_tokens: Some(26),
        output_tokens: Some(259),
        raw: Some(DialectJson::new("ollama-chat", raw.to_string())),
        ..Usage::default()
    };
    let other = |scope, members: Value| Event::other("ollama-chat", scope, members.to_string());
    let events = || {
        vec![
            started(),
            other(
                Scope::Envelope,
                json!({"created_at": "2026-01-01T00:00:00.123456789Z", "x": 1, "done": true, "error": "evil"}),
            ),
            other(Scope::Message(0), json!({"y": [2], "content": "evil"})),
            Event::text_start(0, 0),
            Event::text(0, "a"),
            Event::BlockStop(0),
            call(1, "c", "f"),
            other(Scope::Block(1), json!({"z": 3, "function": {"index": 9, "w": 4, "name": "evil"}, "id": "evil"})),
            Event::BlockStop(1),
            Event::other("openai-chat", Scope::Envelope, r#"{"system_fingerprint":"f"}"#),
            other(
                Scope::Envelope,
                json!({"created_at": "2026-01-01T00:00:01Z", "done_reason": "odd", "remote_host": "h"}),
            ),
            Event::Usage(usage.clone()),
            Event::finish(0, FinishReason::Other("odd".into()), Some("odd".into())),
            Event::Done,
        ]
    };
    let call = json!({"id": "c", "function": {"index": 9, "name": "f", "arguments": {}, "w": 4}, "z": 3});
    let lines = lines("ollama-chat", events());
    assert_eq!(
        lines[0],
        json!({"model": "m", "created_at": "2026-01-01T00:00:00.123456789Z",
               "message": {"role": "assistant", "content": "a", "y": [2]}, "done": false, "x": 1})
    );
    assert_eq!(lines[1]["message"], json!({"role": "assistant", "content": "", "tool_calls": [call]}));
    let end = json!({"model": "m", "created_at": "2026-01-01T00:00:01Z", "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": "odd", "remote_host": "h", "total_duration": 10, "load_duration": 2,
        "prompt_eval_count": 26, "prompt_eval_duration": 3, "eval_count": 259, "eval_duration": 4});
    assert_eq!((lines.len(), &lines[2]), (3, &end));
    let mut wanted = end;
    wanted["message"] = json!({"role": "assistant", "content": "a", "y": [2], "tool_calls": [call]});
    wanted["x"] = json!(1);
    assert_eq!(whole("ollama-chat", events()), wanted);
}

#[test]
fn other_backends_tell_counts_and_no_durations() {
    let usage = Usage {
        input_tokens: Some(0),
        estimated: true,
        raw: Some(DialectJson::new("openai-chat", r#"{"total_duration":1}"#)),
        ..Usage::default()
    };
    let last = whole("ollama-generate", vec![started(), Event::Usage(usage), Event::Done]);
    let wanted = json!({"model": "m", "created_at": "2023-11-14T22:13:20Z", "response": "", "done": true,
                        "done_reason": "stop", "prompt_eval_count": 0, "estimated": true});
    assert_eq!(last, wanted);
}

#[test]
fn log_probabilities_are_a_list() {
    let first = r#"{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1.0}]}],"refusal":null}"#;
    let second = r#"{"tokens":["\"","c"],"token_logprobs":[null,-2],"top_logprobs":[null,{"c":-2,"d":-3.5}],"text_offset":[0,1]}"#;
    let third = r#"{"content":[{"token":"","logprob":-4}]}"#;
    let events = || {
        vec![
            started(),
            Event::text_start(0, 0),
            with_logprobs(0, "a", first),
            with_logprobs(0, "c", second),
            with_logprobs(0, "", third),
            with_logprobs(0, "", "{\"content\":null}"),
            with_logprobs(0, "e", "broken"),
            Event::BlockStop(0),
            Event::Done,
        ]
    };
    let a = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.0}]});
    let c = json!({"token": "c", "logprob": -2, "top_logprobs": [{"token": "c", "logprob": -2}, {"token": "d", "logprob": -3.5}]});
    let nothing = json!({"token": "", "logprob": -4});
    assert_eq!(whole("ollama-chat", events())["logprobs"], json!([a, c, nothing]));
    let lines = lines("ollama-generate", events());
    let lists: Vec<_> = lines.iter().map(|line| line["logprobs"].clone()).collect();
    assert_eq!(lists, [json!([a]), json!([c]), json!([nothing]), Value::Null, Value::Null]);
}

#[test]
fn log_probabilities_without_a_text_stand_in_the_next_line() {
    let late = |token: &str| {
        let list = json!({"logprobs": {"content": [{"token": token, "logprob": -1}]}});
        Event::other("ollama-chat", Scope::Choice(0), list.to_string())
    };
    let events = || {
        vec![
            started(),
            late("a"),
            start(0, BlockKind::Reasoning),
            thought(0, "hm"),
            Event::BlockStop(0),
            late("b"),
            Event::text_start(1, 0),
            with_logprobs(1, "c", r#"{"content":[{"token":"c","logprob":-1}]}"#),
            Event::BlockStop(1),
            late("d"),
            Event::Done,
        ]
    };
    let tokens = |line: &Value| -> String {
        line["logprobs"].as_array().unwrap().iter().map(|one| one["token"].as_str().unwrap()).collect()
    };
    assert_eq!(tokens(&whole("ollama-chat", events())), "abcd");
    assert_eq!(lines("ollama-chat", events()).iter().map(tokens).collect::<Vec<_>>(), ["a", "bc", "d"]);
}

#[test]
fn a_failure_is_a_line_after_which_nothing_follows() {
    let mut answer = renderer("ollama-chat", "stream");
    let mut bytes =
        answer.feed(vec![started(), Event::text_start(0, 0), Event::text(0, "a"), finish(FinishReason::Stop)]);
    bytes.extend(answer.fail(&failure(ErrorKind::MalformedResponse, 502)));
    bytes.extend(answer.feed(vec![Event::text(0, "b"), Event::Done]));
    bytes.extend(answer.fail(&failure(ErrorKind::Timeout, 504)));
    let lines = lines_of(&bytes);
    assert_eq!(lines[1..], [json!({"error": "it \"broke\""})]);
    assert_eq!(lines[0]["done"], false);
}

#[test]
fn a_failure_of_what_is_not_streamed_is_one_object() {
    for dialect in ["ollama-chat", "ollama-generate", "ollama-embed", "ollama-embeddings"] {
        let rendered = render_error(dialect, &failure(ErrorKind::Overloaded, 503));
        assert_eq!((rendered.status, rendered.body.as_slice()), (503, br#"{"error":"it \"broke\""}"#.as_slice()));
        assert_eq!(rendered.headers[0], ("content-type".into(), "application/json".into()));
        let mut answer = renderer(dialect, "");
        answer.feed(vec![started()]);
        assert_eq!(answer.fail(&failure(ErrorKind::Overloaded, 503)), br#"{"error":"it \"broke\""}"#);
        assert!(answer.feed(vec![Event::Done]).is_empty());
    }
}

#[test]
fn an_error_names_the_field_at_fault_once() {
    let body = |error: Error| {
        let failure = witgate_model::normaliser::Failure { error, ..failure(ErrorKind::Timeout, 504) };
        String::from_utf8(render_error("ollama-chat", &failure).body).unwrap()
    };
    assert_eq!(body(Error::unsupported("template", "cannot do this")), r#"{"error":"cannot do this (template)"}"#);
    assert_eq!(body(Error::unsupported("template", "no `template` here")), r#"{"error":"no `template` here"}"#);
}

#[test]
fn nothing_follows_the_end() {
    for render in ["stream", ""] {
        let mut answer = renderer("ollama-chat", render);
        assert!(!answer.feed(vec![started(), Event::Done, Event::Done]).is_empty());
        assert!(answer.feed(vec![Event::text(0, "a"), Event::Done]).is_empty());
        assert!(answer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
    }
}

#[test]
fn the_time_is_written_as_rfc_3339_has_it() {
    for (seconds, wanted) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_704_067_199, "2023-12-31T23:59:59Z"),
        (1_704_067_200, "2024-01-01T00:00:00Z"),
        (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (u64::MAX, "9999-12-31T23:59:59Z"),
    ] {
        let start = Event::Started(Started { created: Some(seconds), ..Started::default() });
        assert_eq!(whole("ollama-chat", vec![start, Event::Done])["created_at"], wanted);
    }
}

fn embedding(index: u32, values: Vector) -> Event {
    Event::Embedding(Embedding { index, values })
}

#[test]
fn vectors_stand_in_the_order_of_their_texts() {
    let events = vec![
        started(),
        embedding(1, Vector::Base64("AACAPwAAAL8=".into())),
        embedding(0, Vector::Numbers("[0.010071029, -2e-3]".into())),
        Event::other("ollama-embed", Scope::Envelope, r#"{"x":1,"embeddings":"evil","error":"evil"}"#),
        Event::other("openai-embeddings", Scope::Envelope, r#"{"id":"e"}"#),
        Event::Usage(Usage {
            input_tokens: Some(8),
            raw: Some(DialectJson::new("ollama-embed", r#"{"total_duration":14,"prompt_eval_count":8}"#)),
            ..Usage::default()
        }),
        Event::Done,
    ];
    assert_snapshot!(text("ollama-embed", "", events), @r#"{"model":"m","embeddings":[[0.010071029, -2e-3],[1.0,-0.5]],"prompt_eval_count":8,"total_duration":14,"x":1}"#);
}

#[test]
fn the_older_api_gives_one_vector_and_no_more() {
    let events = vec![started(), embedding(0, Vector::Numbers("[1]".into())), counts(1, 0), Event::Done];
    assert_eq!(text("ollama-embeddings", "", events), r#"{"embedding":[1]}"#);
}

/// An event of an answer, valid or not.
fn any_event() -> impl Strategy<Value = Event> {
    let index = 0..3u32;
    let json = prop_oneof![
        Just("{}".to_owned()),
        Just("{\"a\":\n1}".to_owned()),
        Just("{\"content\":[{\"token\":\"a\",\"logprob\":-1}]}".to_owned()),
        Just("{\"created_at\":1,\"done_reason\":\"x\",\"done\":true,\"function\":{\"index\":1}}".to_owned()),
        "[{}\\[\\]\":,a1 ]{0,8}",
    ]
    .boxed();
    let kind = prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Reasoning),
        Just(BlockKind::Refusal),
        (".{0,4}", ".{0,4}").prop_map(|(id, name)| BlockKind::ToolCall(ToolCallStart { id, name })),
    ];
    let scope = prop_oneof![
        Just(Scope::Envelope),
        (0..2u32).prop_map(Scope::Message),
        (0..3u32).prop_map(Scope::Block),
        (0..2u32).prop_map(Scope::Choice),
    ];
    prop_oneof![
        (index.clone(), 0..2u32, kind).prop_map(|(index, choice, kind)| Event::BlockStart(BlockStart {
            index,
            choice,
            kind
        })),
        (index.clone(), ".{0,6}", prop::option::of(json.clone()))
            .prop_map(|(index, text, logprobs)| Event::Text(BlockDelta { index, text, logprobs })),
        (index.clone(), ".{0,6}").prop_map(|(index, text)| thought(index, &text)),
        (index.clone(), json.clone()).prop_map(|(index, text)| arguments(index, &text)),
        index.prop_map(Event::BlockStop),
        (scope, json.clone()).prop_map(|(scope, members)| Event::other("ollama-chat", scope, members)),
        (any::<Option<u64>>(), json).prop_map(|(input, raw)| Event::Usage(Usage {
            input_tokens: input,
            raw: Some(DialectJson::new("ollama-chat", raw)),
            ..Usage::default()
        })),
        Just(started()),
        Just(finish(FinishReason::Length)),
    ]
}

fn feed_in_pieces(answer: &mut Renderer, events: Vec<Event>) -> Vec<u8> {
    events.into_iter().flat_map(|event| answer.feed(vec![event])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_events_each_line_is_json_and_only_the_last_is_done(
        events in prop::collection::vec(any_event(), 0..24),
        generate in any::<bool>(),
    ) {
        let dialect = if generate { "ollama-generate" } else { "ollama-chat" };
        let mut events = events;
        events.push(Event::Done);
        let bytes = renderer(dialect, "stream").feed(events.clone());
        prop_assert_eq!(&feed_in_pieces(&mut renderer(dialect, "stream"), events.clone()), &bytes);
        let lines = lines_of(&bytes);
        for (at, line) in lines.iter().enumerate() {
            prop_assert_eq!(&line["done"], &json!(at + 1 == lines.len()));
            prop_assert!(line.get("error").is_none());
        }
        // The whole answer says the same as the lines.
        let answer = whole(dialect, events);
        let message = |line: &Value| if generate { line.clone() } else { line["message"].clone() };
        for name in ["content", "response", "thinking"] {
            let parts: String = lines.iter().filter_map(|line| message(line)[name].as_str().map(str::to_owned)).collect();
            prop_assert_eq!(message(&answer)[name].as_str().unwrap_or_default().to_owned(), parts);
        }
        let calls = |line: &Value| message(line)["tool_calls"].as_array().map_or(0, Vec::len);
        prop_assert_eq!(calls(&answer), lines.iter().map(calls).sum::<usize>());
    }
}
