//! Events to the bytes of OpenAI's two completion APIs.

mod common;

use common::{chunks, completion, failure, renderer, started};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::render_error;
use witgate_model::normaliser::Rendered;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, CompletionPrompt, DialectJson, ErrorKind, Event, Finish, FinishReason, Input,
    Scope, Started, ToolCallStart, Usage,
};

const STREAM: &str = "stream";
const USAGE: &str = "stream,usage";
const WHOLE: &str = "";

fn render(dialect: &str, render: &str, events: Vec<Event>) -> String {
    String::from_utf8(renderer(dialect, render).feed(events)).unwrap()
}

fn chat(flags: &str, events: Vec<Event>) -> String {
    render("openai-chat", flags, events)
}

/// The JSON of a whole answer.
fn whole(dialect: &str, events: Vec<Event>) -> Value {
    serde_json::from_str(&render(dialect, WHOLE, events)).unwrap()
}

fn block(index: u32, choice: u32, kind: BlockKind) -> Event {
    Event::BlockStart(BlockStart { index, choice, kind })
}

fn call(index: u32, choice: u32, id: &str, name: &str) -> Event {
    block(index, choice, BlockKind::ToolCall(ToolCallStart { id: id.into(), name: name.into() }))
}

fn delta(index: u32, text: &str) -> BlockDelta {
    BlockDelta { index, text: text.into(), logprobs: None }
}

fn stop(choice: u32) -> Event {
    Event::finish(choice, FinishReason::Stop, Some("stop".into()))
}

fn usage(input: u64, output: u64) -> Event {
    Event::Usage(Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() })
}

fn other(scope: Scope, members: &str) -> Event {
    Event::other("openai-chat", scope, members)
}

/// Text, as most answers are.
fn hello() -> Vec<Event> {
    vec![
        started(),
        Event::text_start(0, 0),
        Event::text(0, "Hel"),
        Event::text(0, "lo \"you\"\n"),
        Event::BlockStop(0),
        stop(0),
        usage(3, 2),
        Event::Done,
    ]
}

#[test]
fn a_text_stream() {
    assert_snapshot!(chat(STREAM, hello()), @r#"
    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"lo \"you\"\n"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

    data: [DONE]
    "#);
}

#[test]
fn a_text_stream_with_usage() {
    assert_snapshot!(chat(USAGE, hello()), @r#"
    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"lo \"you\"\n"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}

    data: [DONE]
    "#);
}

#[test]
fn a_whole_text() {
    assert_snapshot!(chat(WHOLE, hello()), @r#"{"id":"chatcmpl-up","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello \"you\"\n","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#);
}

fn tools() -> Vec<Event> {
    vec![
        started(),
        Event::text_start(0, 0),
        Event::text(0, "Let me see."),
        Event::BlockStop(0),
        call(1, 0, "c1", "weather"),
        call(2, 0, "c2", "time"),
        Event::Arguments(delta(1, "{\"city\":")),
        Event::Arguments(delta(1, "\"Paris\"}")),
        Event::BlockStop(1),
        Event::BlockStop(2),
        Event::finish(0, FinishReason::ToolCalls, None),
        Event::Done,
    ]
}

#[test]
fn parallel_tool_calls_have_dense_indexes_and_name_themselves_once() {
    assert_snapshot!(chat(STREAM, tools()), @r#"
    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"Let me see."},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}]},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"time","arguments":""}}]},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"Paris\"}"}}]},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]}

    data: [DONE]
    "#);
}

#[test]
fn a_whole_answer_with_tool_calls() {
    assert_snapshot!(chat(WHOLE, tools()), @r#"{"id":"chatcmpl-up","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Let me see.","refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Paris\"}"}},{"id":"c2","type":"function","function":{"name":"time","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}]}"#);
}

#[test]
fn content_is_null_where_there_are_only_tool_calls() {
    let body = whole("openai-chat", vec![started(), call(0, 0, "c", "f"), Event::BlockStop(0), stop(0), Event::Done]);
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{}");
}

#[test]
fn tool_indexes_are_counted_per_choice() {
    let events =
        vec![started(), call(0, 0, "a", "f"), call(1, 1, "b", "f"), call(2, 0, "c", "f"), call(3, 1, "d", "f")];
    let indexes: Vec<_> = chunks(chat(STREAM, events).as_bytes())
        .iter()
        .filter(|chunk| chunk["choices"][0]["delta"].get("tool_calls").is_some())
        .map(|chunk| {
            let choice = &chunk["choices"][0];
            (choice["index"].clone(), choice["delta"]["tool_calls"][0]["index"].clone())
        })
        .collect();
    assert_eq!(indexes, [(json!(0), json!(0)), (json!(1), json!(0)), (json!(0), json!(1)), (json!(1), json!(1))]);
}

fn reasoning() -> Vec<Event> {
    vec![
        started(),
        block(0, 0, BlockKind::Reasoning),
        Event::Reasoning(delta(0, "Hm.")),
        Event::Signature(delta(0, "c2ln")),
        Event::BlockStop(0),
        Event::text_start(1, 0),
        Event::text(1, "4"),
        Event::BlockStop(1),
        stop(0),
        Event::Done,
    ]
}

#[test]
fn reasoning_and_its_signature() {
    assert_snapshot!(chat(STREAM, reasoning()), @r#"
    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"reasoning_content":"Hm."},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"reasoning_signature":"c2ln"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"4"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

    data: [DONE]
    "#);
    assert_snapshot!(chat(WHOLE, reasoning()), @r#"{"id":"chatcmpl-up","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"4","refusal":null,"reasoning_content":"Hm.","reasoning_signature":"c2ln"},"logprobs":null,"finish_reason":"stop"}]}"#);
}

#[test]
fn what_we_render_as_an_answer_can_be_sent_back() {
    let body = whole("openai-chat", reasoning());
    let message = common::one_message(&body["choices"][0]["message"].to_string()).unwrap();
    let witgate_model::Part::Reasoning(part) = &message.parts[0] else { panic!("{message:?}") };
    assert_eq!((part.text.as_str(), part.signature.as_deref()), ("Hm.", Some("c2ln")));
    assert_eq!(message.parts[1], witgate_model::Part::text("4"));
    assert_eq!(message.extra, None);
}

#[test]
fn encrypted_reasoning_is_no_signature_streamed_or_whole_and_comes_back_as_it_went() {
    let events = || {
        vec![
            started(),
            block(0, 0, BlockKind::Reasoning),
            Event::Signature(delta(0, "c2ln")),
            Event::BlockStop(0),
            block(1, 0, BlockKind::Reasoning),
            Event::Redacted(delta(1, "ZW5j")),
            Event::BlockStop(1),
            stop(0),
            Event::Done,
        ]
    };
    let stream = chunks(chat(STREAM, events()).as_bytes());
    let deltas: Vec<&Value> = stream.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    assert_eq!(deltas[1], &json!({"reasoning_signature": "c2ln"}));
    assert_eq!(deltas[2], &json!({"reasoning_encrypted_content": "ZW5j"}));
    let message = whole("openai-chat", events())["choices"][0]["message"].clone();
    let parts = common::one_message(&message.to_string()).unwrap().parts;
    let part = |signature: Option<&str>, redacted: Option<&str>| {
        witgate_model::Part::Reasoning(witgate_model::ReasoningPart {
            signature: signature.map(str::to_owned),
            redacted: redacted.map(str::to_owned),
            ..Default::default()
        })
    };
    assert_eq!(parts[..2], [part(Some("c2ln"), None), part(None, Some("ZW5j"))]);
}

#[test]
fn a_refusal_is_no_content() {
    let events = || {
        vec![
            started(),
            block(0, 0, BlockKind::Refusal),
            Event::text(0, "No."),
            Event::BlockStop(0),
            Event::finish(0, FinishReason::ContentFilter, None),
            Event::Done,
        ]
    };
    let stream = chunks(chat(STREAM, events()).as_bytes());
    assert_eq!(stream[1]["choices"][0]["delta"], json!({"refusal": "No."}));
    assert_eq!(stream[2]["choices"][0]["finish_reason"], "content_filter");
    let message = &whole("openai-chat", events())["choices"][0]["message"];
    assert_eq!(*message, json!({"role": "assistant", "content": null, "refusal": "No."}));
}

#[test]
fn an_answer_without_a_word_is_an_empty_string() {
    let events = || vec![started(), stop(0), Event::Done];
    assert_eq!(whole("openai-chat", events())["choices"][0]["message"]["content"], "");
    let stream = chunks(chat(STREAM, events()).as_bytes());
    assert_eq!(stream.len(), 3);
    assert_eq!(stream[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(stream[1]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn only_openais_finish_reasons_are_told_and_others_stay_visible() {
    for (reason, wanted) in [
        (FinishReason::Stop, "stop"),
        (FinishReason::Length, "length"),
        (FinishReason::ToolCalls, "tool_calls"),
        (FinishReason::ContentFilter, "content_filter"),
        (FinishReason::Other("pause_turn".into()), "stop"),
    ] {
        let native = matches!(reason, FinishReason::Other(_)).then_some("pause_turn");
        let finish = Finish { choice: 0, reason, raw: native.map(String::from), stop_sequence: Some("END".into()) };
        let events = vec![started(), Event::Finish(finish), Event::Done];
        let stream = chunks(chat(STREAM, events.clone()).as_bytes());
        for choice in [&stream[1]["choices"][0], &whole("openai-chat", events)["choices"][0]] {
            assert_eq!(choice["finish_reason"], wanted);
            assert_eq!(choice.get("native_finish_reason").and_then(Value::as_str), native);
            assert_eq!(choice["stop_reason"], "END");
        }
    }
}

#[test]
fn several_choices_are_interleaved_in_the_stream_and_sorted_in_the_whole() {
    let events = || {
        vec![
            started(),
            Event::text_start(0, 1),
            Event::text(0, "b"),
            Event::text_start(1, 0),
            Event::text(1, "a"),
            Event::text(0, "B"),
            Event::BlockStop(0),
            Event::BlockStop(1),
            Event::finish(1, FinishReason::Length, None),
            stop(0),
            Event::Done,
        ]
    };
    let stream: Vec<_> = chunks(chat(STREAM, events()).as_bytes())
        .iter()
        .filter_map(|chunk| {
            let choice = chunk["choices"].get(0)?;
            Some((choice["index"].as_u64()?, choice["delta"].get("content").cloned(), choice["finish_reason"].clone()))
        })
        .collect();
    let text = |text: &str| Some(json!(text));
    assert_eq!(
        stream,
        [
            (1, text(""), Value::Null),
            (1, text("b"), Value::Null),
            (0, text(""), Value::Null),
            (0, text("a"), Value::Null),
            (1, text("B"), Value::Null),
            (0, None, json!("stop")),
            (1, None, json!("length")),
        ]
    );
    let body = whole("openai-chat", events());
    assert_eq!(body["choices"][0]["message"]["content"], "a");
    assert_eq!(body["choices"][1]["message"]["content"], "bB");
    assert_eq!(body["choices"][1]["index"], 1);
}

#[test]
fn names_of_the_backend_are_used_where_they_fit() {
    let name = |dialect: &str, id: Option<&str>, model: Option<&str>, created| {
        let start = Started { id: id.map(String::from), model: model.map(String::from), created };
        let body = whole(dialect, vec![Event::Started(start), stop(0), Event::Done]);
        (body["id"].clone(), body["model"].clone(), body["created"].clone())
    };
    assert_eq!(
        name("openai-chat", Some("chatcmpl-1"), Some("m"), Some(5)),
        (json!("chatcmpl-1"), json!("m"), json!(5))
    );
    let made = |prefix: &str| (json!(format!("{prefix}-abc")), json!("alias"), json!(1_700_000_000));
    assert_eq!(name("openai-chat", Some("msg_1"), None, None), made("chatcmpl"));
    assert_eq!(name("openai-chat", None, None, None), made("chatcmpl"));
    assert_eq!(name("openai-completions", Some("chatcmpl-1"), None, None), made("cmpl"));
    assert_eq!(name("openai-completions", Some("cmpl-9"), None, None).0, "cmpl-9");
}

#[test]
fn unknown_members_stand_in_the_next_chunk_of_their_scope() {
    let events = vec![
        started(),
        other(Scope::Envelope, "{\"system_fingerprint\":\"f1\",\"id\":\"evil\",\"usage\":{}}"),
        Event::text_start(0, 0),
        Event::text(0, "a"),
        other(Scope::Message(0), "{\"audio\":{\"x\": 1},\"content\":\"evil\",\"role\":\"evil\"}"),
        other(Scope::Choice(0), "{\"x_choice\":\n[1],\"finish_reason\":\"evil\",\"index\":9}"),
        Event::text(0, "b"),
        Event::text(0, "c"),
        other(Scope::Envelope, "{\"error\":{\"message\":\"evil\"}}"),
        Event::BlockStop(0),
        stop(0),
        other(Scope::Envelope, "{\"timings\":{\"ms\":1.50}}"),
        Event::Done,
    ];
    let stream = chunks(chat(STREAM, events.clone()).as_bytes());
    let with = |name: &str| stream.iter().map(|chunk| chunk.get(name).is_some()).collect::<Vec<_>>();
    assert_eq!(with("system_fingerprint"), [true, false, false, false, false, false]);
    assert_eq!(with("timings"), [false, false, false, false, true, false]);
    assert_eq!(with("error"), [false; 6]);
    assert_eq!(
        stream[2]["choices"][0],
        json!({"index": 0, "delta": {"content": "b", "audio": {"x": 1}}, "logprobs": null, "finish_reason": null, "x_choice": [1]})
    );
    assert_eq!(stream[3]["choices"][0]["delta"], json!({"content": "c"}));
    assert_eq!(stream[4]["choices"][0]["finish_reason"], "stop");
    assert!(stream.iter().take(5).all(|chunk| chunk["id"] == "chatcmpl-up"));

    let body = whole("openai-chat", events);
    assert_eq!(body["timings"], json!({"ms": 1.5}));
    assert_eq!(body["system_fingerprint"], "f1");
    assert_eq!(body["choices"][0]["x_choice"], json!([1]));
    assert_eq!(body["choices"][0]["message"]["audio"], json!({"x": 1}));
    assert_eq!(body["choices"][0]["message"]["content"], "abc");
}

#[test]
fn unknown_members_without_a_further_chunk_get_one() {
    let end = |scope| {
        let events =
            vec![started(), Event::text_start(0, 0), Event::text(0, "a"), other(scope, "{\"late\":1}"), Event::Done];
        chunks(chat(STREAM, events).as_bytes()).split_off(2)
    };
    let envelope = end(Scope::Envelope);
    assert_eq!((envelope.len(), &envelope[0]["late"], &envelope[0]["choices"]), (2, &json!(1), &json!([])));
    let choice = end(Scope::Choice(0));
    assert_eq!((choice.len(), &choice[0]["choices"][0]["late"]), (2, &json!(1)));
    let message = end(Scope::Message(0));
    assert_eq!((message.len(), &message[0]["choices"][0]["delta"]), (2, &json!({"late": 1})));
}

#[test]
fn later_unknown_members_replace_earlier_ones_of_their_name() {
    let events = vec![
        started(),
        other(Scope::Envelope, "{\"a\":1,\"b\":1}"),
        other(Scope::Envelope, "{\"b\":2}"),
        stop(0),
        Event::Done,
    ];
    let text = chat(WHOLE, events);
    assert_eq!(text.matches("\"b\":").count(), 1);
    assert!(text.contains("\"a\":1,\"b\":2"));
}

#[test]
fn unknown_members_of_another_dialect_or_that_are_no_json_are_left_out() {
    for event in [
        Event::other("anthropic-messages", Scope::Envelope, "{\"x\":1}"),
        other(Scope::Envelope, "{\"x\":1"),
        other(Scope::Envelope, "[\"x\"]"),
        other(Scope::Envelope, "{\"x\":1}{}"),
        other(Scope::Choice(4_000_000_000), "{\"x\":1}"),
    ] {
        assert_eq!(whole("openai-chat", vec![started(), event, stop(0), Event::Done]).get("x"), None);
    }
}

#[test]
fn a_tool_call_that_only_openai_has_is_passed_on_and_other_blocks_are_not() {
    let object = r#"{"index":7,"id":"c","type":"custom","custom":{"name":"sh","input":"ls"}}"#;
    let events = vec![
        started(),
        call(0, 0, "a", "f"),
        block(1, 0, BlockKind::Other(DialectJson::new("openai-chat", object))),
        block(2, 0, BlockKind::Other(DialectJson::new("bedrock-converse", r#"{"citationsContent":{}}"#))),
        stop(0),
        Event::Done,
    ];
    let stream = chunks(chat(STREAM, events.clone()).as_bytes());
    assert_eq!(
        stream[2]["choices"][0]["delta"]["tool_calls"],
        json!([{"index": 1, "id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}])
    );
    assert_eq!(stream.len(), 5);
    let calls = whole("openai-chat", events)["choices"][0]["message"]["tool_calls"].clone();
    assert_eq!(calls[1], json!({"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}));
    assert_eq!(calls.as_array().unwrap().len(), 2);
}

#[test]
fn what_a_backend_adds_to_tool_calls_content_and_log_probabilities_joins_ours() {
    let events = vec![
        started(),
        call(0, 0, "c1", "f"),
        other(
            Scope::Message(0),
            "{\"tool_calls\":[{\"index\":0,\"id\":\"evil\",\"function\":{\"name\":\"evil\",\"x_f\":\n1},\"x_c\":2}]}",
        ),
        other(Scope::Message(0), "{\"tool_calls\":[{\"index\":5,\"x_c\":3}]}"),
        other(Scope::Message(0), "{\"tool_calls\":\"evil\"}"),
        other(Scope::Choice(0), "{\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-1}]}}"),
        Event::Arguments(delta(0, "{}")),
        Event::BlockStop(0),
        other(Scope::Choice(0), "{\"logprobs\":{\"content\":[{\"token\":\"b\",\"logprob\":-2}]}}"),
        other(Scope::Message(0), "{\"content\":[{\"type\":\"image\"}]}"),
        other(Scope::Message(0), "{\"content\":[{\"type\":\"sound\"}]}"),
        other(Scope::Message(0), "{\"content\":\"evil\"}"),
        stop(0),
        Event::Done,
    ];
    let text = chat(STREAM, events.clone());
    assert!(!text.contains("evil"));
    let stream = chunks(text.as_bytes());
    assert_eq!(stream[2]["choices"][0]["delta"]["tool_calls"], json!([{"index": 0, "function": {"x_f": 1}, "x_c": 2}]));
    assert_eq!(stream[3]["choices"][0]["logprobs"], json!({"content": [{"token": "a", "logprob": -1}]}));
    let last = &stream[4]["choices"][0];
    assert_eq!(last["finish_reason"], "stop");
    assert_eq!(last["logprobs"], json!({"content": [{"token": "b", "logprob": -2}]}));
    assert_eq!(last["delta"], json!({"content_parts": [{"type": "image"}, {"type": "sound"}]}));
    assert_eq!(stream.len(), 6);

    let body = whole("openai-chat", events);
    let choice = &body["choices"][0];
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}", "x_f": 1}, "x_c": 2}])
    );
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 2);
    assert_eq!(choice["message"]["content_parts"], json!([{"type": "image"}, {"type": "sound"}]));
}

fn with_logprobs(dialect_shape: &[&str]) -> Vec<Event> {
    let mut events = vec![started(), Event::text_start(0, 0)];
    for (number, logprobs) in dialect_shape.iter().enumerate() {
        let text = if number == 1 { "" } else { "né" };
        events.push(Event::Text(BlockDelta { index: 0, text: text.into(), logprobs: Some((*logprobs).into()) }));
    }
    events.extend([Event::BlockStop(0), stop(0), Event::Done]);
    events
}

const LOGPROBS: [&str; 2] = [
    "{\"content\": [{\"token\":\"n\",\"logprob\":-0.10,\"bytes\":[110],\"top_logprobs\":[{\"token\":\"n\",\"logprob\":-0.10},{\"token\":\"m\",\"logprob\":-3}]},\n {\"token\":\"é\",\"logprob\":-0.2,\"top_logprobs\":[]}], \"refusal\":null}",
    "{\"content\":[{\"token\":\"x\",\"logprob\":-1e-3}]}",
];

#[test]
fn log_probabilities_of_chat_are_passed_on_and_joined() {
    let stream = chunks(chat(STREAM, with_logprobs(&LOGPROBS)).as_bytes());
    assert_eq!(stream[1]["choices"][0]["logprobs"]["content"][1]["token"], "é");
    assert_eq!(stream[2]["choices"][0]["delta"]["content"], "");
    assert_eq!(stream[2]["choices"][0]["logprobs"]["content"][0]["token"], "x");
    let body = chat(WHOLE, with_logprobs(&LOGPROBS));
    assert!(body.contains("-0.10"), "numbers keep their form");
    let body: Value = serde_json::from_str(&body).unwrap();
    let tokens: Vec<_> = body["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["token"].clone())
        .collect();
    assert_eq!(tokens, ["n", "é", "x"]);
    assert_eq!(body["choices"][0]["logprobs"]["refusal"], Value::Null);
}

#[test]
fn log_probabilities_that_are_no_json_are_null() {
    for broken in ["{", "[]", "{\"content\":[1]}x", ""] {
        for dialect in ["openai-chat", "openai-completions"] {
            for flags in [STREAM, WHOLE] {
                let text = render(dialect, flags, with_logprobs(&[broken]));
                assert!(text.contains("\"logprobs\":null"), "{text}");
            }
        }
    }
}

#[test]
fn log_probabilities_of_text_completions_have_their_own_shape() {
    let wanted = json!({
        "tokens": ["n", "é", "x"], "token_logprobs": [-0.1, -0.2, -0.001],
        "top_logprobs": [{"n": -0.1, "m": -3}, {}, {}], "text_offset": [0, 1, 2],
    });
    let body = whole("openai-completions", with_logprobs(&LOGPROBS));
    assert_eq!(body["choices"][0]["logprobs"], wanted);
    let stream = chunks(render("openai-completions", STREAM, with_logprobs(&LOGPROBS)).as_bytes());
    assert_eq!(stream[1]["choices"][0]["logprobs"]["text_offset"], json!([2]));
    // A backend that uses the old shape itself keeps it.
    let old = "{\"tokens\":[\"a\"],\"token_logprobs\":[-1],\"top_logprobs\":null,\"text_offset\":[4]}";
    let body = whole("openai-completions", with_logprobs(&[old]));
    assert_eq!(body["choices"][0]["logprobs"], serde_json::from_str::<Value>(old).unwrap());
}

#[test]
fn usage_is_merged_field_by_field_and_keeps_what_openai_backends_add() {
    let raw = r#"{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18,"x":1,
        "prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":7,"audio_tokens":2}}"#;
    let events = vec![
        started(),
        stop(0),
        Event::Usage(Usage { input_tokens: Some(10), cache_read_tokens: Some(4), ..Usage::default() }),
        Event::Usage(Usage {
            output_tokens: Some(5),
            raw: Some(DialectJson::new("openai-chat", raw)),
            ..Usage::default()
        }),
        Event::Done,
    ];
    let wanted = json!({
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "x": 1,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 2},
    });
    assert_eq!(whole("openai-chat", events.clone())["usage"], wanted);
    let stream = chunks(chat(USAGE, events).as_bytes());
    assert_eq!(stream[2]["usage"], wanted);
    assert_eq!(stream[2]["choices"], json!([]));
}

#[test]
fn usage_of_another_shape_is_not_copied_and_an_estimate_is_marked() {
    let usage = Usage {
        input_tokens: Some(1),
        output_tokens: Some(2),
        cache_write_tokens: Some(3),
        reasoning_tokens: Some(1),
        estimated: true,
        raw: Some(DialectJson::new("bedrock-converse", r#"{"inputTokens":1,"serverToolUsage":{}}"#)),
        ..Usage::default()
    };
    let body = whole("openai-chat", vec![started(), stop(0), Event::Usage(usage), Event::Done]);
    assert_eq!(
        body["usage"],
        json!({
            "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
            "prompt_tokens_details": {"cache_write_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1},
            "estimated": true,
        })
    );
}

#[test]
fn usage_chunks_come_only_where_they_were_asked_for() {
    let without = chunks(chat(STREAM, hello()).as_bytes());
    assert!(without.iter().all(|chunk| chunk.get("usage").is_none()));
    let with = chunks(chat(USAGE, hello()).as_bytes());
    assert_eq!(with.len(), without.len() + 1);
    assert!(with[..with.len() - 2].iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    // A backend that told nothing: the promised chunk still comes.
    let silent = chunks(chat(USAGE, vec![started(), stop(0), Event::Done]).as_bytes());
    assert_eq!((&silent[2]["choices"], &silent[2]["usage"]), (&json!([]), &Value::Null));
}

#[test]
fn a_stream_that_fails_shows_neither_a_finish_nor_done() {
    let mut renderer = renderer("openai-chat", STREAM);
    let mut bytes =
        renderer.feed(vec![started(), Event::text_start(0, 0), Event::text(0, "a"), Event::BlockStop(0), stop(0)]);
    bytes.extend(renderer.fail(&failure(ErrorKind::MalformedResponse, 502)));
    let stream = chunks(&bytes);
    assert!(stream.iter().all(|chunk| *chunk != "[DONE]"));
    assert!(stream.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert_eq!(
        *stream.last().unwrap(),
        json!({"error": {"message": "it \"broke\"", "type": "server_error", "code": null, "param": null,
            "provider": "local", "request_id": "req-1"}})
    );
    assert!(renderer.feed(vec![Event::text(0, "b"), Event::Done]).is_empty());
    assert!(renderer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
}

#[test]
fn nothing_follows_the_end() {
    for flags in [STREAM, WHOLE] {
        let mut renderer = renderer("openai-chat", flags);
        let mut events = hello();
        events.extend([Event::text(0, "x"), Event::Done]);
        let bytes = renderer.feed(events);
        assert_eq!(String::from_utf8(bytes).unwrap(), chat(flags, hello()));
        assert!(renderer.feed(vec![Event::Done]).is_empty());
        assert!(renderer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
    }
}

#[test]
fn nothing_is_sent_before_content() {
    let mut renderer = renderer("openai-chat", STREAM);
    let quiet =
        vec![started(), Event::text_start(0, 0), Event::text(0, ""), usage(1, 0), other(Scope::Envelope, "{\"a\":1}")];
    assert!(quiet.iter().all(|event| !event.is_content() || matches!(event, Event::Text(_))));
    assert!(renderer.feed(quiet).is_empty());
    // Another target may start the answer again.
    let again = Event::Started(Started { id: Some("chatcmpl-2".into()), model: None, created: None });
    let bytes = renderer.feed(vec![again, Event::text(0, "a")]);
    assert!(chunks(&bytes).iter().all(|chunk| chunk["id"] == "chatcmpl-2"));
}

#[test]
fn a_whole_answer_sends_nothing_before_done() {
    let mut renderer = renderer("openai-chat", WHOLE);
    let mut events = hello();
    events.pop();
    assert!(renderer.feed(events).is_empty());
    assert!(!renderer.feed(vec![Event::Done]).is_empty());
}

#[test]
fn heads_and_keep_alives() {
    let stream = renderer("openai-chat", STREAM);
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(stream.head(), Rendered { status: 200, headers, body: vec![] });
    assert_eq!(stream.keep_alive(), b": keep-alive\n\n");
    let whole = renderer("openai-chat", WHOLE);
    assert_eq!(whole.head().headers, [("content-type".to_string(), "application/json".to_string())]);
    assert_eq!(whole.keep_alive(), b"");
}

#[test]
fn an_error_before_the_answer_has_openais_shape() {
    let mut broken = failure(ErrorKind::Unauthenticated, 401);
    broken.error.code = Some("invalid_api_key".into());
    broken.error.param = Some("a[0]".into());
    for dialect in ["openai-chat", "openai-completions", "unknown"] {
        let rendered = render_error(dialect, &broken);
        assert_eq!(rendered.status, 401);
        assert_eq!(
            rendered.headers,
            [
                ("content-type".to_string(), "application/json".to_string()),
                ("www-authenticate".to_string(), "Bearer".to_string())
            ]
        );
        assert_eq!(
            String::from_utf8(rendered.body).unwrap(),
            concat!(
                r#"{"error":{"message":"it \"broke\"","type":"server_error","code":"invalid_api_key","#,
                r#""param":"a[0]","provider":"local","request_id":"req-1"}}"#
            )
        );
    }
}

#[test]
fn an_error_without_a_status_gets_that_of_its_kind() {
    for (kind, status) in [
        (ErrorKind::InvalidRequest, 400),
        (ErrorKind::Unauthenticated, 401),
        (ErrorKind::Forbidden, 403),
        (ErrorKind::NotFound, 404),
        (ErrorKind::RateLimited, 429),
        (ErrorKind::QuotaExhausted, 429),
        (ErrorKind::ContextLength, 400),
        (ErrorKind::ContentFiltered, 400),
        (ErrorKind::TooLarge, 413),
        (ErrorKind::Timeout, 504),
        (ErrorKind::Overloaded, 503),
        (ErrorKind::UpstreamFailure, 502),
        (ErrorKind::MalformedResponse, 502),
        (ErrorKind::Unsupported, 400),
        (ErrorKind::Other("x".into()), 500),
    ] {
        for nonsense in [None, Some(200), Some(0), Some(999)] {
            let mut failed = failure(kind.clone(), 0);
            failed.error.status = nonsense;
            assert_eq!(render_error("openai-chat", &failed).status, status, "{kind:?}");
        }
    }
}

#[test]
fn a_text_completion_streamed_and_whole() {
    assert_snapshot!(render("openai-completions", USAGE, hello()), @r#"
    data: {"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"Hel","logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"lo \"you\"\n","logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}

    data: {"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}

    data: [DONE]
    "#);
    assert_snapshot!(render("openai-completions", WHOLE, hello()), @r#"{"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"Hello \"you\"\n","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#);
}

#[test]
fn events_without_a_place_in_text_completions_are_left_out() {
    let events = vec![
        started(),
        call(0, 0, "c", "f"),
        Event::Arguments(delta(0, "{}")),
        Event::BlockStop(0),
        Event::other("openai-completions", Scope::Choice(0), "{\"x\":1,\"text\":\"evil\"}"),
        stop(0),
        Event::Done,
    ];
    let stream = chunks(render("openai-completions", STREAM, events.clone()).as_bytes());
    assert_eq!(stream.len(), 2);
    assert_eq!(
        stream[0]["choices"],
        json!([{"index": 0, "text": "", "logprobs": null, "finish_reason": "stop", "x": 1}])
    );
    assert_eq!(whole("openai-completions", events)["choices"][0]["x"], 1);
}

#[test]
fn a_completion_request_is_read() {
    let parsed = completion(
        r#"{"model":"m","prompt":["a b"],"suffix":"s","echo":true,"best_of":3,"n":2,"logprobs":0,"max_tokens":5,"stop":"x",
            "temperature":0.5,"stream":true,"stream_options":{"include_usage":true},"n_predict":7}"#,
    )
    .unwrap();
    let request = parsed.request;
    let prompt = CompletionPrompt { text: "a b".into(), suffix: Some("s".into()), echo: Some(true), best_of: Some(3) };
    assert_eq!(request.input, Input::Completion(prompt));
    assert_eq!((request.sampling.logprobs, request.sampling.top_logprobs), (Some(true), Some(0)));
    assert_eq!((request.sampling.n, request.sampling.max_tokens), (Some(2), Some(5)));
    assert_eq!(request.sampling.stop, ["x"]);
    assert_eq!(request.extra.as_deref(), Some(r#"{"n_predict":7}"#));
    assert!(request.stream);
    assert_eq!(request.dialect, "openai-completions");
    assert_eq!(parsed.render, USAGE);
    assert_eq!(completion(r#"{"prompt":""}"#).unwrap().request.input, Input::Completion(CompletionPrompt::default()));
}

#[test]
fn a_wrong_completion_request_names_the_prompt() {
    for (body, param, message) in [
        ("{}", "prompt", "`prompt` is missing: a completion needs one string to continue (line 1, column 1)"),
        ("{\"prompt\":null}", "prompt", "`prompt` must be a string, found null (line 1, column 11)"),
        ("{\"prompt\":5}", "prompt", "`prompt` must be a string, found a number (line 1, column 11)"),
        ("{\"prompt\":[]}", "prompt", "`prompt` must be a string, found an empty array (line 1, column 11)"),
        (
            "{\"prompt\":[\"a\",\"b\"]}",
            "prompt",
            "`prompt` must be one string: several prompts in one request are not supported (line 1, column 11)",
        ),
        (
            "{\"prompt\":[1,2]}",
            "prompt[0]",
            "`prompt[0]` must be a string: tokens as a prompt are not supported, found a number (line 1, column 12)",
        ),
        (
            "{\"prompt\":[[1]]}",
            "prompt[0]",
            "`prompt[0]` must be a string: tokens as a prompt are not supported, found an array (line 1, column 12)",
        ),
        (
            "{\"prompt\":\"a\",\"logprobs\":true}",
            "logprobs",
            "`logprobs` must be a whole number from 0 to 4294967295, found a boolean (line 1, column 26)",
        ),
    ] {
        let error = completion(body).unwrap_err();
        assert_eq!((error.param.as_deref(), error.message.as_str()), (Some(param), message));
    }
}

/// Any event, in or out of order.
fn any_event() -> impl Strategy<Value = Event> {
    let json = prop_oneof![
        Just("{\"a\":1}".to_string()),
        Just("{\"content\":[{\"token\":\"a\",\"logprob\":\n-1}]}".to_string()),
        Just("{\"id\":\"c\",\"type\":\"custom\",\"custom\":{}}".to_string()),
        Just("{\"tool_calls\":[{\"index\":0,\"x\":1}],\"logprobs\":{\"content\":[]},\"content\":[\n1]}".to_string()),
        ".{0,10}",
    ]
    .boxed();
    let number = 0..4u32;
    let kind = prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Reasoning),
        Just(BlockKind::Refusal),
        (".{0,4}", ".{0,4}").prop_map(|(id, name)| BlockKind::ToolCall(ToolCallStart { id, name })),
        json.clone().prop_map(|json| BlockKind::Other(DialectJson::new("openai-chat", json))),
    ];
    let delta = (number.clone(), ".{0,8}", prop::option::of(json.clone()))
        .prop_map(|(index, text, logprobs)| BlockDelta { index, text, logprobs })
        .boxed();
    let scope = prop_oneof![
        Just(Scope::Envelope),
        number.clone().prop_map(Scope::Choice),
        number.clone().prop_map(Scope::Message),
    ];
    prop_oneof![
        Just(started()),
        (number.clone(), number.clone(), kind).prop_map(|(index, choice, kind)| block(index, choice, kind)),
        delta.clone().prop_map(Event::Text),
        delta.clone().prop_map(Event::Reasoning),
        delta.clone().prop_map(Event::Signature),
        delta.prop_map(Event::Arguments),
        number.clone().prop_map(Event::BlockStop),
        (any::<u64>(), prop::option::of(json.clone())).prop_map(|(n, raw)| Event::Usage(Usage {
            input_tokens: Some(n),
            output_tokens: Some(n),
            raw: raw.map(|raw| DialectJson::new("openai-chat", raw)),
            ..Usage::default()
        })),
        (number, ".{0,4}").prop_map(|(choice, raw)| Event::finish(choice, FinishReason::Other(raw), None)),
        (scope, json).prop_map(|(scope, members)| other(scope, &members)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_events_the_bytes_are_well_formed(
        events in prop::collection::vec(any_event(), 0..30),
        chat in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let dialect = if chat { "openai-chat" } else { "openai-completions" };
        let mut events = events;
        events.push(Event::Done);
        for flags in [STREAM, USAGE] {
            let bytes = renderer(dialect, flags).feed(events.clone());
            let stream = chunks(&bytes);
            prop_assert_eq!(stream.last(), Some(&json!("[DONE]")));
            prop_assert_eq!(stream.iter().filter(|chunk| **chunk == "[DONE]").count(), 1);
            // However the events are fed, the bytes are the same.
            let mut parts = renderer(dialect, flags);
            let (first, second) = events.split_at(cut.index(events.len()));
            let mut fed = parts.feed(first.to_vec());
            fed.extend(parts.feed(second.to_vec()));
            prop_assert_eq!(fed, bytes);
        }
        let body: Value = serde_json::from_slice(&renderer(dialect, WHOLE).feed(events)).unwrap();
        prop_assert!(body["choices"].is_array());
    }

    #[test]
    fn the_pieces_of_a_stream_add_up_to_the_whole_answer(pieces in prop::collection::vec(".{1,9}", 0..12)) {
        let mut events = vec![started(), Event::text_start(0, 0)];
        events.extend(pieces.iter().map(|piece| Event::text(0, piece)));
        events.extend([Event::BlockStop(0), stop(0), Event::Done]);
        let streamed: String = chunks(chat(STREAM, events.clone()).as_bytes())
            .iter()
            .filter_map(|chunk| chunk["choices"].get(0)?["delta"].get("content")?.as_str().map(String::from))
            .collect();
        prop_assert_eq!(&streamed, &pieces.concat());
        prop_assert_eq!(&whole("openai-chat", events)["choices"][0]["message"]["content"], &json!(streamed));
    }
}

#[test]
fn several_pieces_of_reasoning_come_back_apart_each_with_its_own_proof() {
    let events = || {
        let piece = |index| block(index, 0, BlockKind::Reasoning);
        vec![
            started(),
            piece(0),
            Event::Reasoning(delta(0, "on")),
            Event::Reasoning(delta(0, "e")),
            Event::Signature(delta(0, "s")),
            Event::Signature(delta(0, "=")),
            Event::BlockStop(0),
            piece(1),
            Event::Redacted(delta(1, "r")),
            Event::BlockStop(1),
            piece(2),
            Event::Reasoning(delta(2, "two")),
            Event::Signature(delta(2, "t")),
            Event::BlockStop(2),
            Event::text_start(3, 0),
            Event::text(3, "Hi"),
            stop(0),
            Event::Done,
        ]
    };
    let mut streamed = serde_json::Map::new();
    for chunk in chunks(chat(STREAM, events()).as_bytes()) {
        for (name, piece) in chunk["choices"][0]["delta"].as_object().into_iter().flatten() {
            let known = streamed.entry(name.clone()).or_insert_with(|| json!(""));
            *known = json!(format!("{}{}", known.as_str().unwrap(), piece.as_str().unwrap_or_default()));
        }
    }
    for message in [Value::Object(streamed), whole("openai-chat", events())["choices"][0]["message"].clone()] {
        assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("onetwo"), &json!("Hi")));
        assert_eq!(message["reasoning_signature"], "s= 3 t");
        assert_eq!(message["reasoning_encrypted_content"], "r 3");
        let mut said = message.clone();
        said.as_object_mut().unwrap().insert("role".into(), json!("assistant"));
        let said = common::one_message(&said.to_string()).unwrap();
        let pieces = said.parts.iter().filter_map(|part| match part {
            witgate_model::Part::Reasoning(part) => {
                Some((part.text.as_str(), part.signature.as_deref(), part.redacted.as_deref()))
            }
            _ => None,
        });
        let expected = [("one", Some("s="), None), ("", None, Some("r")), ("two", Some("t"), None)];
        assert_eq!(pieces.collect::<Vec<_>>(), expected);
    }
}
