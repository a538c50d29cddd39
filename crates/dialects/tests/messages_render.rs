//! Events to the bytes of Anthropic's Messages API.

mod common;

use common::{failure, renderer};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::render_error;
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, DialectJson, ErrorKind, Event, Finish, FinishReason, Scope, Started,
    ToolCallStart, Usage,
};

const NAME: &str = "anthropic-messages";

fn stream(events: Vec<Event>) -> String {
    String::from_utf8(renderer(NAME, "stream").feed(events)).unwrap()
}

fn whole(events: Vec<Event>) -> Value {
    serde_json::from_slice(&renderer(NAME, "").feed(events)).unwrap()
}

fn started() -> Event {
    Event::Started(Started { id: Some("msg_up".into()), model: Some("m".into()), created: Some(7) })
}

fn block(index: u32, kind: BlockKind) -> Event {
    Event::BlockStart(BlockStart { index, choice: 0, kind })
}

fn call(index: u32, id: &str, name: &str) -> Event {
    block(index, BlockKind::ToolCall(ToolCallStart { id: id.into(), name: name.into() }))
}

fn delta(index: u32, text: &str) -> BlockDelta {
    BlockDelta { index, text: text.into(), logprobs: None }
}

fn arguments(index: u32, text: &str) -> Event {
    Event::Arguments(delta(index, text))
}

fn finish(reason: FinishReason, raw: &str) -> Event {
    Event::finish(0, reason, Some(raw.into()))
}

fn usage(input: u64, output: u64) -> Event {
    Event::Usage(Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() })
}

fn other(scope: Scope, members: &str) -> Event {
    Event::other(NAME, scope, members)
}

/// An answer that says `content`, as another API's backend ends it.
fn said(content: Vec<Event>) -> Vec<Event> {
    let mut events = vec![started()];
    events.extend(content);
    events.extend([finish(FinishReason::Stop, "stop"), usage(3, 2), Event::Done]);
    events
}

fn hello() -> Vec<Event> {
    said(vec![Event::text_start(0, 0), Event::text(0, "Hel"), Event::text(0, "lo \"you\"\n"), Event::BlockStop(0)])
}

/// The events of a stream, each of which names itself twice.
#[track_caller]
fn events(bytes: &str) -> Vec<Value> {
    assert!(bytes.is_empty() || bytes.ends_with("\n\n"));
    let read = |event: &str| {
        let (name, data) = event.strip_prefix("event: ").and_then(|event| event.split_once("\ndata: ")).unwrap();
        assert!(!data.contains(['\n', '\r']), "a line end inside an event: {data:?}");
        let data: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert_eq!(data["type"], name);
        data
    };
    bytes.split_terminator("\n\n").map(read).collect()
}

fn append(text: &mut Value, more: &Value) {
    let more = more.as_str().unwrap();
    *text = Value::from(text.as_str().unwrap().to_owned() + more);
}

/// What a client makes of a stream. It trusts in what the API promises: one `message_start`, blocks one after the other
/// with dense indexes, deltas of the block's kind, one `message_delta`, `message_stop` last.
#[track_caller]
fn accumulate(stream: &str) -> Value {
    let mut events = events(stream).into_iter().filter(|event| event["type"] != "ping");
    let start = events.next().unwrap();
    assert_eq!(start["type"], "message_start");
    let mut message = start["message"].clone();
    assert_eq!(message["content"], json!([]));
    assert!(message["usage"]["input_tokens"].is_u64() && message["usage"]["output_tokens"].is_u64());
    let mut blocks: Vec<Value> = Vec::new();
    let mut input = String::new();
    let mut open = false;
    loop {
        let event = events.next().expect("`message_delta`");
        if event["type"] == "message_delta" {
            assert!(!open, "a block is open");
            assert!(event["usage"]["output_tokens"].is_u64());
            for (from, to) in [(&event["delta"], "/"), (&event["usage"], "/usage")] {
                let to = if to == "/" { &mut message } else { message.pointer_mut(to).unwrap() };
                to.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
            }
            break;
        }
        let index = event["index"].as_u64().unwrap() as usize;
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!open && index == blocks.len(), "block {index} begins; {} was next", blocks.len());
                open = true;
                blocks.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                assert!(open && index + 1 == blocks.len(), "a delta of block {index}, which is not open");
                let (block, delta) = (blocks.last_mut().unwrap(), &event["delta"]);
                match (delta["type"].as_str().unwrap(), block["type"].as_str().unwrap()) {
                    ("text_delta", "text") => append(&mut block["text"], &delta["text"]),
                    ("thinking_delta", "thinking") => append(&mut block["thinking"], &delta["thinking"]),
                    // The official clients take the last one for the whole.
                    ("signature_delta", "thinking") => block["signature"] = delta["signature"].clone(),
                    ("input_json_delta", _) => input.push_str(delta["partial_json"].as_str().unwrap()),
                    ("citations_delta", "text") => match block.get_mut("citations").and_then(Value::as_array_mut) {
                        Some(all) => all.push(delta["citation"].clone()),
                        None => block["citations"] = json!([delta["citation"]]),
                    },
                    (delta, block) => panic!("a {delta} of a {block}"),
                }
            }
            "content_block_stop" => {
                assert!(open && index + 1 == blocks.len(), "block {index} ends");
                open = false;
                let input = std::mem::take(&mut input);
                if !input.is_empty() {
                    let read = serde_json::from_str::<Value>(&input).ok().filter(Value::is_object);
                    blocks.last_mut().unwrap()["input"] = read.unwrap_or(Value::from(input));
                }
            }
            kind => panic!("{kind}"),
        }
    }
    assert_eq!(events.next().unwrap(), json!({"type": "message_stop"}));
    assert_eq!(events.next(), None);
    message["content"] = Value::from(blocks);
    message
}

#[test]
fn a_text_stream() {
    assert_snapshot!(stream(hello()), @r#"
    event: message_start
    data: {"type":"message_start","message":{"id":"msg_up","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}

    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo \"you\"\n"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":0}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":3,"output_tokens":2}}

    event: message_stop
    data: {"type":"message_stop"}
    "#);
}

#[test]
fn a_whole_text() {
    let expected = json!({
        "id": "msg_up", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "Hello \"you\"\n"}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    });
    assert_eq!(whole(hello()), expected);
    assert_eq!(accumulate(&stream(hello())), expected);
}

fn tools() -> Vec<Event> {
    vec![
        started(),
        Event::text_start(0, 0),
        Event::text(0, "Let me see"),
        Event::BlockStop(0),
        call(1, "toolu_1", "weather"),
        arguments(1, "{\"city\":"),
        arguments(1, "\"Bonn\"}"),
        Event::BlockStop(1),
        call(2, "toolu_2", "time"),
        Event::BlockStop(2),
        finish(FinishReason::ToolCalls, "tool_calls"),
        Event::Done,
    ]
}

#[test]
fn tool_calls_stream_their_input_and_none_at_all_is_an_empty_object() {
    assert_snapshot!(stream(tools()).split_once("toolu_1").unwrap().1, @r#"
    ","name":"weather","input":{}}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"Bonn\"}"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":1}

    event: content_block_start
    data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_2","name":"time","input":{}}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":2}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":0}}

    event: message_stop
    data: {"type":"message_stop"}
    "#);
    let content = json!([
        {"type": "text", "text": "Let me see"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bonn"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]);
    assert_eq!(whole(tools())["content"], content);
    assert_eq!(accumulate(&stream(tools()))["content"], content);
}

#[test]
fn arguments_that_a_limit_cut_off_are_a_string() {
    let events = said(vec![call(0, "t", "f"), arguments(0, "{\"a\":\"b"), Event::BlockStop(0)]);
    assert_eq!(whole(events)["content"][0]["input"], "{\"a\":\"b");
}

#[test]
fn blocks_that_come_at_once_are_told_one_after_the_other() {
    let events = said(vec![
        call(0, "a", "f"),
        call(1, "b", "g"),
        arguments(1, "{\"y\":"),
        arguments(0, "{\"x\":"),
        Event::text_start(2, 0),
        Event::text(2, "aside"),
        arguments(0, "1}"),
        Event::BlockStop(2),
        arguments(1, "2}"),
        Event::BlockStop(0),
        Event::BlockStop(1),
    ]);
    let content = json!([
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"y": 2}},
        {"type": "text", "text": "aside"},
    ]);
    assert_eq!(whole(events.clone())["content"], content);
    assert_eq!(accumulate(&stream(events))["content"], content);
}

#[test]
fn what_a_later_block_says_comes_as_soon_as_its_turn_does() {
    let mut renderer = renderer(NAME, "stream");
    let mut feed = |events: Vec<Event>| events_of(renderer.feed(events));
    let first = feed(vec![started(), call(0, "a", "f"), call(1, "b", "g"), arguments(1, "{\"y\":")]);
    assert_eq!(first, [""; 0]);
    assert_eq!(feed(vec![arguments(0, "{}")]), ["message_start", "content_block_start", "content_block_delta"]);
    assert_eq!(feed(vec![Event::BlockStop(0)]), ["content_block_stop", "content_block_start", "content_block_delta"]);
    assert_eq!(feed(vec![arguments(1, "2}")]), ["content_block_delta"]);
}

fn events_of(bytes: Vec<u8>) -> Vec<String> {
    events(&String::from_utf8(bytes).unwrap()).iter().map(|event| event["type"].as_str().unwrap().into()).collect()
}

#[test]
fn a_stream_in_which_too_much_waits_ends_with_an_error() {
    let mut renderer = renderer(NAME, "stream");
    renderer.feed(vec![started(), call(0, "a", "f"), call(1, "b", "g")]);
    let piece = "x".repeat(1024 * 1024);
    let mut bytes = Vec::new();
    for _ in 0..6 {
        bytes.extend(renderer.feed(vec![arguments(1, &piece)]));
    }
    bytes.extend(renderer.feed(vec![finish(FinishReason::Stop, "stop"), Event::Done]));
    bytes.extend(renderer.fail(&failure(ErrorKind::UpstreamFailure, 502)));
    let all = events(std::str::from_utf8(&bytes).unwrap());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&all[0]["type"], &all[0]["error"]["type"]), (&json!("error"), &json!("api_error")));
}

fn thoughts() -> Vec<Event> {
    vec![
        started(),
        block(0, BlockKind::Reasoning),
        Event::Reasoning(delta(0, "h")),
        Event::Reasoning(delta(0, "m")),
        Event::Signature(delta(0, "c2")),
        Event::Signature(delta(0, "ln")),
        Event::BlockStop(0),
        block(1, BlockKind::Reasoning),
        Event::Redacted(delta(1, "b6")),
        Event::Redacted(delta(1, "4=")),
        Event::BlockStop(1),
        block(2, BlockKind::Reasoning),
        Event::Signature(delta(2, "bm9uZQ")),
        Event::BlockStop(2),
        Event::text_start(3, 0),
        Event::text(3, "So"),
        Event::BlockStop(3),
        finish(FinishReason::Stop, "end_turn"),
        Event::Done,
    ]
}

#[test]
fn thinking_its_signature_and_encrypted_thinking() {
    let content = json!([
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b64="},
        {"type": "thinking", "thinking": "", "signature": "bm9uZQ"},
        {"type": "text", "text": "So"},
    ]);
    assert_eq!(whole(thoughts())["content"], content);
    let streamed = stream(thoughts());
    assert_eq!(accumulate(&streamed)["content"], content);
    assert_eq!(streamed.matches("signature_delta\",").count(), 2);
}

#[test]
fn words_of_refusal_are_text_and_the_reason_says_so() {
    let events = said(vec![block(0, BlockKind::Refusal), Event::Text(delta(0, "I can't")), Event::BlockStop(0)]);
    let message = whole(events.clone());
    assert_eq!(message["content"], json!([{"type": "text", "text": "I can't"}]));
    assert_eq!(message["stop_reason"], "refusal");
    assert_eq!(accumulate(&stream(events)), message);
}

#[test]
fn an_answer_without_a_word_has_no_content() {
    assert_eq!(whole(said(vec![]))["content"], json!([]));
    assert_eq!(accumulate(&stream(said(vec![])))["content"], json!([]));
}

#[test]
fn reasons_are_those_of_the_api_and_others_stay_visible() {
    use FinishReason::{ContentFilter, Length, Other, Stop, ToolCalls};
    let told = |native: bool, reason: FinishReason, raw: Option<&str>, sequence: Option<&str>| {
        let finish =
            Finish { choice: 0, reason, raw: raw.map(str::to_owned), stop_sequence: sequence.map(str::to_owned) };
        let mut events = vec![started(), Event::Finish(finish), Event::Done];
        if native {
            events.insert(1, other(Scope::Envelope, "{\"x\":1}"));
        }
        let message = whole(events.clone());
        let streamed = accumulate(&stream(events));
        for member in ["stop_reason", "stop_sequence", "native_stop_reason"] {
            assert_eq!(message.get(member), streamed.get(member));
        }
        let word = |name: &str| message[name].as_str().unwrap_or("-").to_owned();
        [word("stop_reason"), word("stop_sequence"), word("native_stop_reason")].join(" ")
    };
    assert_eq!(told(false, Stop, Some("stop"), None), "end_turn - -");
    assert_eq!(told(false, Stop, Some("stop"), Some("END")), "stop_sequence END -");
    assert_eq!(told(false, Length, Some("length"), None), "max_tokens - -");
    assert_eq!(told(false, ToolCalls, None, None), "tool_use - -");
    assert_eq!(told(false, ContentFilter, Some("guardrail_intervened"), None), "refusal - -");
    assert_eq!(told(false, Other("weird".into()), Some("weird"), None), "end_turn - weird");
    // The adapter made text of a tool's call: it knows better than the raw word.
    assert_eq!(told(true, Stop, Some("tool_use"), None), "end_turn - -");
    assert_eq!(told(true, Stop, Some("pause_turn"), None), "pause_turn - -");
    assert_eq!(told(true, Stop, Some("stop_sequence"), Some("END")), "stop_sequence END -");
    assert_eq!(told(true, Length, Some("model_context_window_exceeded"), None), "model_context_window_exceeded - -");
    assert_eq!(told(true, Other("of_tomorrow".into()), Some("of_tomorrow"), None), "of_tomorrow - -");
}

#[test]
fn input_tokens_exclude_the_cache_and_later_counts_complete_earlier_ones() {
    let events = vec![
        started(),
        Event::Usage(Usage {
            input_tokens: Some(100),
            cache_read_tokens: Some(60),
            cache_write_tokens: Some(10),
            ..Usage::default()
        }),
        Event::text_start(0, 0),
        Event::BlockStop(0),
        finish(FinishReason::Stop, "stop"),
        Event::Usage(Usage { output_tokens: Some(9), reasoning_tokens: Some(4), estimated: true, ..Usage::default() }),
        Event::Done,
    ];
    let input = json!({
        "input_tokens": 30, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 60, "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4}, "estimated": true,
    });
    assert_eq!(whole(events.clone())["usage"], input);
    let all = self::events(&stream(events));
    let start = json!({
        "input_tokens": 30, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 60, "output_tokens": 0,
    });
    assert_eq!(all[0]["message"]["usage"], start);
    assert_eq!(all[all.len() - 2]["usage"], input);
}

#[test]
fn usage_that_comes_last_is_still_told() {
    let all = events(&stream(hello()));
    assert_eq!(all[0]["message"]["usage"], json!({"input_tokens": 0, "output_tokens": 0}));
    assert_eq!(all[all.len() - 2]["usage"], json!({"input_tokens": 3, "output_tokens": 2}));
}

#[test]
fn a_backend_of_this_api_is_passed_on_as_it_is() {
    let raw = |raw: &str| Event::Usage(Usage { raw: Some(DialectJson::new(NAME, raw)), ..Usage::default() });
    let events = vec![
        started(),
        other(Scope::Envelope, "{\"container\":null,\"id\":\"no\"}"),
        raw("{\"input_tokens\":9,\"output_tokens\":1,\"service_tier\":\"standard\"}"),
        Event::text_start(0, 0),
        other(Scope::Block(0), "{\"citations\":[],\"type\":\"no\"}"),
        other(Scope::Block(0), "{\"citations\":[{\"cited_text\":\"a\"}]}"),
        Event::text(0, "a"),
        other(Scope::Block(0), "{\"citations\":[{\"cited_text\":\"b\"}]}"),
        Event::BlockStop(0),
        block(
            1,
            BlockKind::Other(DialectJson::new(
                NAME,
                "{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{}}",
            )),
        ),
        arguments(1, "{\"query\":\"q\"}"),
        Event::BlockStop(1),
        call(2, "t", "f"),
        other(Scope::Block(2), "{\"caller\":{\"type\":\"direct\"}}"),
        Event::BlockStop(2),
        other(Scope::Choice(0), "{\"stop_details\":null}"),
        other(Scope::Envelope, "{\"context_management\":{\"applied_edits\":[]}}"),
        raw("{\"output_tokens\":5,\"x\":1}"),
        finish(FinishReason::ToolCalls, "tool_use"),
        Event::Done,
    ];
    let all = self::events(&stream(events.clone()));
    let usage = json!({"input_tokens": 9, "output_tokens": 1, "service_tier": "standard"});
    assert_eq!(all[0]["message"]["usage"], usage);
    assert_eq!(all[0]["message"]["container"], Value::Null);
    assert_eq!(all[0]["message"]["id"], "msg_up");
    let end = &all[all.len() - 2];
    let expected = json!({
        "type": "message_delta", "usage": {"output_tokens": 5, "x": 1},
        "delta": {"stop_reason": "tool_use", "stop_sequence": null, "stop_details": null},
        "context_management": {"applied_edits": []},
    });
    assert_eq!(*end, expected);
    let content = json!([
        {"type": "text", "text": "a", "citations": [{"cited_text": "a"}, {"cited_text": "b"}]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}},
    ]);
    assert_eq!(accumulate(&stream(events.clone()))["content"], content);
    let message = whole(events);
    assert_eq!(message["content"], content);
    assert_eq!(message["context_management"], json!({"applied_edits": []}));
}

#[test]
fn deltas_that_the_contract_does_not_name_are_passed_on() {
    let events = said(vec![
        block(0, BlockKind::Other(DialectJson::new(NAME, "{\"type\":\"compaction\"}"))),
        other(Scope::Block(0), "{\"delta\":{\"type\":\"compaction_delta\",\"content\":\"c\"}}"),
        Event::BlockStop(0),
        block(1, BlockKind::Reasoning),
        other(Scope::Block(1), "{\"delta\":{\"estimated_tokens\":50}}"),
        Event::BlockStop(1),
    ]);
    let deltas: Vec<_> =
        self::events(&stream(events)).into_iter().filter(|event| event["type"] == "content_block_delta").collect();
    assert_eq!(deltas[0]["delta"], json!({"type": "compaction_delta", "content": "c"}));
    assert_eq!(deltas[1]["delta"], json!({"type": "thinking_delta", "thinking": "", "estimated_tokens": 50}));
}

#[test]
fn what_only_another_dialect_or_a_second_choice_has_is_left_out_and_indexes_stay_dense() {
    let second = Event::BlockStart(BlockStart { index: 1, choice: 1, kind: BlockKind::Text });
    let events = said(vec![
        block(0, BlockKind::Other(DialectJson::new("openai-chat", "{\"type\":\"custom\"}"))),
        arguments(0, "x"),
        Event::BlockStop(0),
        second,
        Event::text(1, "no"),
        Event::BlockStop(1),
        block(2, BlockKind::Other(DialectJson::new(NAME, "[]"))),
        Event::BlockStop(2),
        Event::text_start(3, 0),
        Event::text(3, "yes"),
        Event::BlockStop(3),
        Event::other("openai-chat", Scope::Envelope, "{\"timings\":1}"),
    ]);
    let message = whole(events.clone());
    assert_eq!(message["content"], json!([{"type": "text", "text": "yes"}]));
    assert_eq!(message.get("timings"), None);
    assert_eq!(accumulate(&stream(events)), message);
}

#[test]
fn ids_are_messages_ids() {
    let events = |id: Option<&str>| {
        let mut events = hello();
        events[0] = Event::Started(Started { id: id.map(str::to_owned), model: None, created: None });
        whole(events)
    };
    assert_eq!(events(Some("chatcmpl-1"))["id"], "msg_abc");
    assert_eq!(events(None)["model"], "alias");
    assert_eq!(events(Some("msg_bdrk_1"))["id"], "msg_bdrk_1");
}

#[test]
fn a_count_is_a_number_of_tokens() {
    let count = |usage: Usage| {
        let events = vec![Event::Started(Started::default()), Event::Usage(usage), Event::Done];
        String::from_utf8(renderer(NAME, "count").feed(events)).unwrap()
    };
    let tokens = |tokens| Usage { input_tokens: Some(tokens), ..Usage::default() };
    assert_eq!(count(tokens(14)), "{\"input_tokens\":14}");
    assert_eq!(count(Usage { estimated: true, ..tokens(14) }), "{\"input_tokens\":14,\"estimated\":true}");
    let raw = DialectJson::new(NAME, "{\"input_tokens\":14,\"context_management\":{}}");
    assert_eq!(count(Usage { raw: Some(raw), ..tokens(14) }), "{\"input_tokens\":14,\"context_management\":{}}");
}

#[test]
fn a_stream_that_fails_shows_neither_a_stop_reason_nor_a_stop() {
    for content in 0..6 {
        let mut renderer = renderer(NAME, "stream");
        let mut bytes = renderer.feed(hello().into_iter().take(content).collect());
        bytes.extend(renderer.fail(&failure(ErrorKind::UpstreamFailure, 502)));
        assert!(renderer.feed(hello()).is_empty());
        assert!(renderer.fail(&failure(ErrorKind::UpstreamFailure, 502)).is_empty());
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("message_stop") && !text.contains("message_delta"), "{text}");
        let all = events(&text);
        let expected = json!({
            "type": "error", "request_id": "req-1",
            "error": {"type": "api_error", "message": "it \"broke\"", "provider": "local"},
        });
        assert_eq!(all.last(), Some(&expected));
        assert_eq!(all.iter().filter(|event| event["type"] == "error").count(), 1);
    }
}

#[test]
fn a_whole_answer_sends_nothing_before_its_end() {
    let mut renderer = renderer(NAME, "");
    let mut events = hello();
    let done = events.pop().unwrap();
    assert!(renderer.feed(events).is_empty());
    assert!(renderer.keep_alive().is_empty());
    assert!(!renderer.feed(vec![done]).is_empty());
    assert!(renderer.feed(hello()).is_empty());
}

#[test]
fn heads_and_keep_alives() {
    let stream = renderer(NAME, "stream");
    assert_eq!(stream.head().headers[0], ("content-type".into(), "text/event-stream".into()));
    assert_eq!(stream.keep_alive(), b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
    for flags in ["", "count"] {
        assert_eq!(renderer(NAME, flags).head().headers[0], ("content-type".into(), "application/json".into()));
    }
}

#[test]
fn errors_have_anthropics_shape_types_and_statuses() {
    for (kind, status, expected, name) in [
        (ErrorKind::InvalidRequest, 400, 400, "invalid_request_error"),
        (ErrorKind::InvalidRequest, 401, 401, "authentication_error"),
        (ErrorKind::QuotaExhausted, 429, 402, "billing_error"),
        (ErrorKind::Forbidden, 403, 403, "permission_error"),
        (ErrorKind::NotFound, 404, 404, "not_found_error"),
        (ErrorKind::InvalidRequest, 405, 405, "invalid_request_error"),
        (ErrorKind::InvalidRequest, 408, 408, "timeout_error"),
        (ErrorKind::TooLarge, 413, 413, "request_too_large"),
        (ErrorKind::InvalidRequest, 422, 422, "invalid_request_error"),
        (ErrorKind::RateLimited, 429, 429, "rate_limit_error"),
        (ErrorKind::Other("internal".into()), 500, 500, "api_error"),
        (ErrorKind::MalformedResponse, 502, 502, "api_error"),
        (ErrorKind::InvalidRequest, 503, 529, "overloaded_error"),
        (ErrorKind::Overloaded, 503, 529, "overloaded_error"),
        (ErrorKind::Timeout, 504, 504, "timeout_error"),
    ] {
        let rendered = render_error(NAME, &failure(kind, status));
        let body: Value = serde_json::from_slice(&rendered.body).unwrap();
        assert_eq!((rendered.status, body["error"]["type"].as_str()), (expected, Some(name)));
        assert_eq!((&body["type"], &body["request_id"]), (&json!("error"), &json!("req-1")));
        assert!(rendered.headers.contains(&("request-id".into(), "req-1".into())));
    }
    let mut failed = failure(ErrorKind::InvalidRequest, 400);
    failed.provider = None;
    failed.error = failed.error.with_param("max_tokens").with_code("c");
    let body: Value = serde_json::from_slice(&render_error(NAME, &failed).body).unwrap();
    let error = json!({"type": "invalid_request_error", "message": "it \"broke\"", "param": "max_tokens", "code": "c"});
    assert_eq!(body["error"], error);
}

fn any_event() -> impl Strategy<Value = Event> {
    let json = prop_oneof![
        Just("{\"a\":1}".to_string()),
        Just("{\"type\":\"server_tool_use\",\"input\":{},\"citations\":null}".to_string()),
        Just("{\"citations\":[\n1,{\"b\":\"\\n\"} ]}".to_string()),
        Just("{\"citations\":[ ],\"text\":1,\"delta\":{\"text\":1}}".to_string()),
        Just("{\"delta\":\n{\"type\":\"x_delta\",\n\"x\":1}}".to_string()),
        ".{0,10}",
    ]
    .boxed();
    let number = 0..4u32;
    let kind = prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Reasoning),
        Just(BlockKind::Refusal),
        (".{0,4}", ".{0,4}").prop_map(|(id, name)| BlockKind::ToolCall(ToolCallStart { id, name })),
        json.clone().prop_map(|json| BlockKind::Other(DialectJson::new(NAME, json))),
    ];
    let delta = (number.clone(), ".{0,8}")
        .prop_map(|(index, text)| BlockDelta { index, text, logprobs: Some("{}".into()) })
        .boxed();
    let scope = prop_oneof![
        Just(Scope::Envelope),
        number.clone().prop_map(Scope::Choice),
        number.clone().prop_map(Scope::Message),
        number.clone().prop_map(Scope::Block),
    ];
    prop_oneof![
        Just(started()),
        (number.clone(), 0..2u32, kind).prop_map(|(index, choice, kind)| Event::BlockStart(BlockStart {
            index,
            choice,
            kind
        })),
        delta.clone().prop_map(Event::Text),
        delta.clone().prop_map(Event::Reasoning),
        delta.clone().prop_map(Event::Signature),
        delta.clone().prop_map(Event::Redacted),
        delta.prop_map(Event::Arguments),
        number.clone().prop_map(Event::BlockStop),
        (any::<u64>(), prop::option::of(json.clone())).prop_map(|(n, raw)| Event::Usage(Usage {
            input_tokens: Some(n),
            output_tokens: Some(n),
            cache_read_tokens: Some(n / 2),
            cache_write_tokens: Some(u64::MAX),
            raw: raw.map(|raw| DialectJson::new(NAME, raw)),
            ..Usage::default()
        })),
        (number, ".{0,4}").prop_map(|(choice, raw)| Event::finish(choice, FinishReason::Other(raw), None)),
        (scope, json).prop_map(|(scope, members)| other(scope, &members)),
    ]
}

/// Several blocks with their deltas, in any order that the contract allows.
fn any_blocks() -> impl Strategy<Value = Vec<Event>> {
    let block = (0..4u8, prop::collection::vec(".{1,6}", 0..4));
    (prop::collection::vec(block, 0..5), prop::collection::vec(any::<prop::sample::Index>(), 40)).prop_map(
        |(blocks, order)| {
            let mut rows: Vec<std::collections::VecDeque<Event>> = Vec::new();
            for (index, (kind, pieces)) in (0..).zip(blocks) {
                let (start, make): (_, fn(BlockDelta) -> Event) = match kind {
                    0 => (Event::text_start(index, 0), Event::Text),
                    1 => (self::block(index, BlockKind::Reasoning), Event::Reasoning),
                    2 => (self::block(index, BlockKind::Reasoning), Event::Redacted),
                    _ => (call(index, "t", "f"), Event::Arguments),
                };
                let deltas = pieces.iter().map(|piece| make(delta(index, piece)));
                rows.push(std::iter::once(start).chain(deltas).chain([Event::BlockStop(index)]).collect());
            }
            let mut events = Vec::new();
            let mut begun = 0;
            let mut order = order.into_iter();
            while rows.iter().any(|row| !row.is_empty()) {
                let open: Vec<usize> = (0..rows.len()).filter(|&at| !rows[at].is_empty() && at <= begun).collect();
                let at = open[order.next().map_or(0, |index| index.index(open.len()))];
                begun = begun.max(at + 1);
                events.extend(rows[at].pop_front());
            }
            events
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_events_the_bytes_are_well_formed(
        events in prop::collection::vec(any_event(), 0..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut events = events;
        events.push(Event::Done);
        let bytes = renderer(NAME, "stream").feed(events.clone());
        let stream = self::events(std::str::from_utf8(&bytes).unwrap());
        prop_assert_eq!(stream.last(), Some(&json!({"type": "message_stop"})));
        prop_assert_eq!(stream.iter().filter(|event| event["type"] == "message_start").count(), 1);
        // However the events are fed, the bytes are the same.
        let mut parts = renderer(NAME, "stream");
        let (first, second) = events.split_at(cut.index(events.len()));
        let mut fed = parts.feed(first.to_vec());
        fed.extend(parts.feed(second.to_vec()));
        prop_assert_eq!(fed, bytes);
        let body: Value = serde_json::from_slice(&renderer(NAME, "").feed(events)).unwrap();
        prop_assert!(body["content"].is_array());
    }

    #[test]
    fn the_pieces_of_a_stream_add_up_to_the_whole_answer(blocks in any_blocks()) {
        let events = said(blocks);
        let mut message = whole(events.clone());
        let mut streamed = accumulate(&stream(events));
        prop_assert_eq!(streamed["content"].take(), message["content"].take());
        prop_assert_eq!(streamed, message);
    }
}
