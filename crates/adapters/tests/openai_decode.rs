//! Answers of the OpenAI shape: recordings and hand-made ones, through the framing and the decoder.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{calls, check_order, failure, finishes, lines, text, thought};
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_adapters::{LlamaCpp, OpenAi, Stub};
use witgate_framing::{Framer, Limits, effective};
use witgate_model::{
    Adapter, BlockKind, Decoder, Embedding, Error, ErrorKind, Event, Finish, FinishReason, Frame, Framing, Request,
    ResponseHead, Retry, Scope, SseEvent, Usage, Vector,
};

/// A fixture and what is known about it.
struct Answer {
    folder: &'static str,
    name: String,
    head: ResponseHead,
    body: Vec<u8>,
    context: Option<String>,
    settings: String,
}

/// All fixtures of a folder.
fn fixtures(folder: &'static str) -> Vec<Answer> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/upstream").join(folder);
    let meta: BTreeMap<String, Value> =
        serde_json::from_slice(&std::fs::read(path.join("meta.json")).unwrap()).unwrap();
    let mut answers = Vec::new();
    for (name, meta) in meta {
        let status = meta["status"].as_u64().unwrap() as u16;
        let content_type = meta["content_type"].as_str().unwrap();
        let wanted = if name.ends_with(".sse") { Framing::Sse } else { Framing::Whole };
        let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
        for (name, value) in meta["headers"].as_object().into_iter().flatten() {
            headers.push((name.clone(), value.as_str().unwrap().to_owned()));
        }
        let n = meta["request"]["n"].as_u64().unwrap_or(1);
        let context = if let Some(context) = meta["context"].as_str() {
            Some(context.to_owned())
        } else if name.starts_with("completion") {
            Some(format!("completion {n}"))
        } else {
            (n > 1).then(|| format!("chat {n}"))
        };
        let framing = effective(&wanted, status, Some(content_type));
        let head = ResponseHead { status, headers, framing, stream: name.ends_with(".sse") };
        let body = std::fs::read(path.join(&name)).unwrap();
        let settings = meta.get("settings").map_or_else(|| "{}".to_owned(), Value::to_string);
        answers.push(Answer { folder, name, head, body, context, settings });
    }
    assert!(answers.len() > 20, "{folder}: {}", answers.len());
    answers
}

fn fixture(folder: &'static str, name: &str) -> Answer {
    fixtures(folder).into_iter().find(|answer| answer.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}

/// The events of an answer that the network cut at these offsets.
fn events_of<A: Adapter>(answer: &Answer, cuts: &[usize]) -> Vec<Event> {
    let mut framer = Framer::new(&answer.head.framing, Limits::default()).unwrap();
    let mut decoder = A::decoder(&answer.settings, answer.context.clone(), answer.head.clone());
    let mut events = Vec::new();
    let mut start = 0;
    let ends = cuts.iter().copied().chain([answer.body.len()]);
    for end in ends {
        let mut frames = Vec::new();
        framer.push(&answer.body[start..end], &mut frames).unwrap();
        if !frames.is_empty() && !events.last().is_some_and(Event::is_last) {
            events.extend(decoder.feed(frames));
        }
        start = end;
    }
    let mut frames = Vec::new();
    framer.finish(&mut frames).unwrap();
    if !frames.is_empty() && !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.feed(frames));
    }
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    events
}

fn decoded(answer: &Answer, cuts: &[usize]) -> Vec<Event> {
    match answer.folder {
        "llama-cpp" => events_of::<LlamaCpp>(answer, cuts),
        _ => events_of::<OpenAi>(answer, cuts),
    }
}

fn usage(events: &[Event]) -> Usage {
    let usage = events.iter().rev().find_map(|event| match event {
        Event::Usage(usage) => Some(usage.clone()),
        _ => None,
    });
    usage.expect("no usage")
}

fn success(framing: Framing) -> ResponseHead {
    ResponseHead { status: 200, headers: Vec::new(), stream: framing == Framing::Sse, framing }
}

/// The events of a stream of these chunks, then `[DONE]` where `done`.
fn streamed<A: Adapter>(chunks: &[Value], done: bool) -> Vec<Event> {
    let frame = |data: String| Frame::Sse(SseEvent { event: None, data, id: None });
    let mut frames: Vec<Frame> = chunks.iter().map(|chunk| frame(chunk.to_string())).collect();
    if done {
        frames.push(frame("[DONE]".into()));
    }
    let mut decoder = A::decoder("{}", None, success(Framing::Sse));
    let mut events = decoder.feed(frames);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    check_order("", &events);
    events
}

fn delta(delta: Value) -> Value {
    json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn refused(status: u16, headers: &[(&str, &str)], body: &str) -> Error {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let head = ResponseHead { status, headers, framing: Framing::Whole, stream: false };
    let mut decoder = OpenAi::decoder("{}", None, head);
    let mut events = decoder.feed(vec![Frame::Bytes(body.as_bytes().to_vec())]);
    events.extend(decoder.finish());
    assert_eq!(events.len(), 1);
    failure(&events)
}

#[test]
fn every_fixture_gives_the_events_that_were_read_and_approved() {
    for folder in ["llama-cpp", "openai"] {
        for answer in fixtures(folder) {
            if answer.name == "health.json" {
                continue;
            }
            let events = decoded(&answer, &[]);
            check_order("", &events);
            insta::assert_snapshot!(format!("{folder}-{}", answer.name), lines(&events));
        }
    }
}

#[test]
fn a_stream_and_a_whole_answer_of_the_same_request_say_the_same() {
    let names = ["chat-text", "chat-length", "chat-logprobs", "chat-json-schema", "chat-characters", "chat-reasoning"];
    for name in names.into_iter().chain(["completion-text", "completion-logprobs"]) {
        let stream = decoded(&fixture("llama-cpp", &format!("{name}.sse")), &[]);
        let whole = decoded(&fixture("llama-cpp", &format!("{name}.json")), &[]);
        assert_eq!(text(&stream), text(&whole), "{name}");
        assert_eq!(thought(&stream), thought(&whole), "{name}");
        assert_eq!(finishes(&stream), finishes(&whole), "{name}");
        let (a, b) = (usage(&stream), usage(&whole));
        assert_eq!((a.input_tokens, a.output_tokens), (b.input_tokens, b.output_tokens), "{name}");
        assert!(a.output_tokens > Some(0), "{name}");
    }
    assert_eq!(text(&decoded(&fixture("llama-cpp", "chat-characters.sse"), &[])), "Grüße, 世界 🦀\n\"quoted\" \\ end");
}

#[test]
fn a_streams_usage_of_several_choices_is_their_sum_and_a_whole_ones_is_marked_as_a_guess() {
    let stream = usage(&decoded(&fixture("llama-cpp", "chat-two-choices.sse"), &[]));
    assert_eq!((stream.input_tokens, stream.output_tokens, stream.estimated), (Some(30), Some(11), false));
    let raw: Value = serde_json::from_str(&stream.raw.unwrap().value).unwrap();
    assert_eq!(raw["completion_tokens"], 11);
    assert_eq!(raw["total_tokens"], 41);
    let whole = usage(&decoded(&fixture("llama-cpp", "chat-two-choices.json"), &[]));
    assert_eq!((whole.output_tokens, whole.estimated), (Some(6), true));
}

#[test]
fn a_real_tool_call_has_an_id_a_name_and_valid_arguments() {
    for name in ["chat-tool-call.sse", "chat-tool-call.json"] {
        let events = decoded(&fixture("llama-cpp", name), &[]);
        let calls = calls(&events);
        assert_eq!(calls.len(), 1, "{name}");
        assert!(!calls[0].0.is_empty());
        assert_eq!(calls[0].1, "get_weather");
        let arguments: Value = serde_json::from_str(&calls[0].2).unwrap();
        assert!(arguments["city"].is_string() && arguments["days"].is_u64(), "{arguments}");
        assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_of_a_recorded_answer_gives_the_same_events(seeds in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        for folder in ["llama-cpp", "openai"] {
            for answer in fixtures(folder) {
                let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(answer.body.len() + 1)).collect();
                cuts.sort_unstable();
                prop_assert_eq!(decoded(&answer, &cuts), decoded(&answer, &[]), "{}", answer.name);
            }
        }
    }

    #[test]
    fn a_damaged_answer_ends_in_one_last_event_and_keeps_the_rules(
        at in any::<prop::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..12), drop in 0..40_usize,
    ) {
        for folder in ["llama-cpp", "openai"] {
            for mut answer in fixtures(folder) {
                let at = at.index(answer.body.len() + 1);
                let end = (at + drop).min(answer.body.len());
                answer.body.splice(at..end, bytes.iter().copied());
                check_order(&answer.name, &decoded(&answer, &[]));
            }
        }
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_events() {
    for folder in ["llama-cpp", "openai"] {
        for answer in fixtures(folder) {
            let cuts: Vec<usize> = (1..answer.body.len()).collect();
            assert_eq!(decoded(&answer, &cuts), decoded(&answer, &[]), "{}", answer.name);
        }
    }
}

/// A decoder sees frames, not bytes: each cut must give the same frames, and each way in which a cut can divide them
/// among two reads the same events.
#[test]
fn a_cut_at_any_byte_gives_the_same_events() {
    for folder in ["llama-cpp", "openai"] {
        for answer in fixtures(folder) {
            let mut divisions = BTreeMap::new();
            let mut expected = None;
            for cut in 0..=answer.body.len() {
                let mut framer = Framer::new(&answer.head.framing, Limits::default()).unwrap();
                let mut frames = Vec::new();
                framer.push(&answer.body[..cut], &mut frames).unwrap();
                let first = frames.len();
                framer.push(&answer.body[cut..], &mut frames).unwrap();
                framer.finish(&mut frames).unwrap();
                assert_eq!(expected.get_or_insert_with(|| frames.clone()), &frames, "{} cut at {cut}", answer.name);
                divisions.insert(first, cut);
            }
            let whole = decoded(&answer, &[]);
            for cut in divisions.into_values() {
                assert_eq!(decoded(&answer, &[cut]), whole, "{} cut at {cut}", answer.name);
            }
        }
    }
}

#[test]
fn a_stream_cut_at_any_event_fails_unless_every_choice_had_finished() {
    for answer in fixtures("llama-cpp").into_iter().filter(|answer| answer.name.ends_with(".sse")) {
        let text = String::from_utf8(answer.body.clone()).unwrap();
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        let choices = if answer.name.contains("two-choices") { 2 } else { 1 };
        for kept in 0..events.len() {
            let body = events[..kept].concat();
            let finished = body.matches("\"finish_reason\":\"").count();
            let cut = Answer {
                body: body.into_bytes(),
                head: answer.head.clone(),
                name: String::new(),
                context: answer.context.clone(),
                settings: answer.settings.clone(),
                ..answer
            };
            let events = decoded(&cut, &[]);
            check_order("", &events);
            if finished == choices {
                assert_eq!(events.last(), Some(&Event::Done), "{} after {kept}", answer.name);
            } else {
                let error = failure(&events);
                assert_eq!(error.kind, ErrorKind::MalformedResponse, "{} after {kept}", answer.name);
                assert_eq!(error.retry, Retry::OtherTarget);
            }
        }
    }
}

#[test]
fn a_whole_answer_where_a_stream_was_asked_for_is_decoded_all_the_same() {
    let mut answer = fixture("openai", "chat-text.json");
    answer.head.framing = effective(&Framing::Sse, 200, Some("application/json"));
    answer.head.stream = true;
    let events = decoded(&answer, &[]);
    assert_eq!(text(&events), "Hello!");
    assert_eq!(events.last(), Some(&Event::Done));
}

#[test]
fn the_members_that_each_chunk_repeats_come_once_and_again_when_they_change() {
    let chunk = |fingerprint: &str, content: &str| json!({"id": "x", "system_fingerprint": fingerprint, "object": "chat.completion.chunk", "obfuscation": content, "service_tier": null, "choices": [{"index": 0, "delta": {"content": content}}]});
    let events =
        streamed::<OpenAi>(&[chunk("a", "1"), chunk("a", "2"), chunk("b", "3"), chunk("a", "4"), finish("stop")], true);
    let others: Vec<Value> = events
        .iter()
        .filter_map(|event| match event {
            Event::Other(other) => {
                assert_eq!((other.dialect.as_str(), &other.scope), ("openai-chat", &Scope::Envelope));
                Some(serde_json::from_str(&other.members).unwrap())
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        others,
        [
            json!({"system_fingerprint": "a", "service_tier": null}),
            json!({"system_fingerprint": "b"}),
            json!({"system_fingerprint": "a"})
        ]
    );
}

#[test]
fn a_completion_says_which_dialect_its_unknown_members_are_of() {
    for event in decoded(&fixture("llama-cpp", "completion-text.sse"), &[]) {
        if let Event::Other(other) = event {
            assert_eq!(other.dialect, "openai-completions");
        }
    }
}

#[test]
fn calls_that_share_a_number_are_told_apart_by_their_ids() {
    let events = decoded(&fixture("openai", "chat-tool-calls-index-zero.sse"), &[]);
    let call = |id: &str, arguments: &str| (id.to_owned(), "a".to_owned(), arguments.to_owned());
    assert_eq!(calls(&events), [call("call_1", "{\"x\":1}"), call("call_2", "{\"x\":2}")]);
}

#[test]
fn tool_calls_tolerate_gaps_late_names_repeated_heads_and_missing_ids() {
    let call = |call: Value| delta(json!({"tool_calls": [call]}));
    let events = streamed::<OpenAi>(
        &[
            call(json!({"index": 5, "id": "", "function": {"name": "far", "arguments": ""}})),
            call(json!({"index": 2, "id": "late", "function": {"arguments": "{\"a\""}})),
            call(json!({"index": 5, "function": {"arguments": "{}"}})),
            call(json!({"index": 2, "function": {"name": "named", "arguments": ":1"}})),
            // The head again, as some servers send it with each piece.
            call(
                json!({"index": 2, "id": "late", "type": "function", "function": {"name": "named", "arguments": "}"}}),
            ),
            call(json!({"index": 9, "id": "late", "function": {"name": "twin", "arguments": {"as": "object"}}})),
            call(json!({"index": 9})),
            finish("tool_calls"),
        ],
        true,
    );
    let expected =
        [("call_0_0", "far", "{}"), ("late", "named", "{\"a\":1}"), ("late_2", "twin", "{\"as\":\"object\"}")];
    assert_eq!(calls(&events), expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[test]
fn a_tool_call_without_a_name_is_a_malformed_answer() {
    let chunk = delta(json!({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]}));
    assert_eq!(failure(&streamed::<OpenAi>(&[chunk, finish("tool_calls")], true)).kind, ErrorKind::MalformedResponse);
}

#[test]
fn a_custom_tool_call_is_told_whole() {
    for (name, at) in [("chat-custom-tool.sse", 0), ("chat-tool-calls.json", 0)] {
        let events = decoded(&fixture("openai", name), &[]);
        let objects: Vec<Value> = events
            .iter()
            .filter_map(|event| match event {
                Event::BlockStart(start) => match &start.kind {
                    BlockKind::Other(json) => Some(serde_json::from_str(&json.value).unwrap()),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(
            objects[at],
            json!({"id": "call_c", "type": "custom", "custom": {"name": "run_sql", "input": "SELECT 1;"}}),
            "{name}"
        );
    }
}

#[test]
fn ids_that_repeat_within_an_answer_are_made_unique() {
    let ids: Vec<String> =
        calls(&decoded(&fixture("openai", "chat-tool-calls.json"), &[])).into_iter().map(|call| call.0).collect();
    assert_eq!(ids, ["call_a", "call_a_1"]);
}

#[test]
fn stop_after_tool_calls_means_tool_calls_for_llama_cpp_only() {
    let chunks = [
        delta(json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]})),
        finish("stop"),
    ];
    assert_eq!(finishes(&streamed::<LlamaCpp>(&chunks, true))[0].reason, FinishReason::ToolCalls);
    assert_eq!(finishes(&streamed::<OpenAi>(&chunks, true))[0].reason, FinishReason::Stop);
}

#[test]
fn a_limit_in_the_middle_of_a_tool_call_is_a_length_and_no_call_to_run() {
    for name in ["chat-tool-call-cut.sse", "chat-tool-call-cut.json"] {
        let events = decoded(&fixture("llama-cpp", name), &[]);
        let finish = finishes(&events)[0].clone();
        assert_eq!((finish.reason, finish.raw.as_deref()), (FinishReason::Length, Some("length")), "{name}");
        assert_eq!(events.last(), Some(&Event::Done));
    }
    let began = delta(json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"a"}}]}));
    for events in [
        streamed::<LlamaCpp>(&[began.clone(), finish("length")], true),
        streamed::<OpenAi>(&[began, finish("length")], true),
    ] {
        assert_eq!(finishes(&events)[0].reason, FinishReason::Length);
    }
}

#[test]
fn finish_reasons_map_as_the_table_says() {
    for (raw, reason) in [
        ("stop", FinishReason::Stop),
        ("length", FinishReason::Length),
        ("tool_calls", FinishReason::ToolCalls),
        ("function_call", FinishReason::ToolCalls),
        ("content_filter", FinishReason::ContentFilter),
        ("abort", FinishReason::Other("abort".into())),
    ] {
        let events = streamed::<OpenAi>(&[delta(json!({"content": "a"})), finish(raw)], true);
        assert_eq!(finishes(&events), [Finish { choice: 0, reason, raw: Some(raw.into()), stop_sequence: None }]);
    }
}

#[test]
fn reasoning_text_and_refusal_are_blocks_of_their_own() {
    let events = streamed::<OpenAi>(
        &[
            delta(json!({"reasoning_content": "think", "reasoning": "think"})),
            delta(json!({"content": "say", "reasoning_content": ""})),
            delta(json!({"reasoning": "again"})),
            delta(json!({"refusal": "no"})),
            finish("stop"),
        ],
        true,
    );
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::BlockStart(start) => Some(start.kind.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [BlockKind::Reasoning, BlockKind::Text, BlockKind::Reasoning, BlockKind::Refusal]);
    assert_eq!((thought(&events).as_str(), text(&events).as_str()), ("thinkagain", "sayno"));
}

#[test]
fn the_first_chunk_of_azures_filter_does_not_start_the_answer() {
    let events = decoded(&fixture("openai", "chat-azure.sse"), &[]);
    let Event::Started(started) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(started.id.as_deref(), Some("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"));
    let Event::Other(other) = &events[1] else { panic!("{:?}", events[1]) };
    assert!(other.members.contains("prompt_filter_results"));
    assert_eq!(events.last(), Some(&Event::Done));
}

#[test]
fn content_behind_a_finish_is_a_malformed_answer() {
    let chunks = [delta(json!({"content": "a"})), finish("stop"), delta(json!({"content": "b"}))];
    let frame = |data: String| Frame::Sse(SseEvent { event: None, data, id: None });
    let mut decoder = OpenAi::decoder("{}", None, success(Framing::Sse));
    let events = decoder.feed(chunks.iter().map(|chunk| frame(chunk.to_string())).collect());
    assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse);
}

#[test]
fn done_without_a_finish_is_a_malformed_answer() {
    assert_eq!(
        failure(&streamed::<OpenAi>(&[delta(json!({"content": "a"}))], true)).kind,
        ErrorKind::MalformedResponse
    );
    assert_eq!(failure(&streamed::<OpenAi>(&[], true)).kind, ErrorKind::MalformedResponse);
    assert_eq!(failure(&streamed::<OpenAi>(&[], false)).kind, ErrorKind::MalformedResponse);
}

#[test]
fn an_answer_that_is_not_what_the_api_promises_says_so_without_quoting_it() {
    for body in [
        "",
        "  ",
        "secret words",
        "[1]",
        "{\"choices\":",
        "{\"choices\":5}",
        "{}",
        "{\"choices\":[{\"message\":{\"content\":{\"secret\":1}}}]}",
    ] {
        let mut decoder = OpenAi::decoder("{}", None, success(Framing::Whole));
        let mut events = decoder.feed(vec![Frame::Bytes(body.as_bytes().to_vec())]);
        events.extend(decoder.finish());
        let error = failure(&events);
        assert_eq!(error.kind, ErrorKind::MalformedResponse, "{body}");
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
}

#[test]
fn a_flood_of_tool_calls_choices_or_events_is_refused() {
    let call =
        |index: usize| json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": "{}"}});
    let many =
        |count: usize| -> Vec<Value> { (0..count).map(|index| delta(json!({"tool_calls": [call(index)]}))).collect() };
    let mut chunks = many(1024);
    chunks.push(finish("tool_calls"));
    assert_eq!(streamed::<OpenAi>(&chunks, true).last(), Some(&Event::Done));
    assert!(failure(&streamed::<OpenAi>(&many(1025), true)).message.contains("1024 tool calls"));
    let list: Vec<Value> = (0..1025).map(call).collect();
    assert_eq!(
        failure(&streamed::<OpenAi>(&[delta(json!({"tool_calls": list}))], true)).kind,
        ErrorKind::MalformedResponse
    );

    let choice = |index: u64| json!({"id": "x", "choices": [{"index": index, "delta": {"content": "a"}}]});
    assert!(failure(&streamed::<OpenAi>(&[choice(127), choice(128)], true)).message.contains("128"));
    assert!(failure(&streamed::<OpenAi>(&[choice(u64::MAX)], true)).message.contains("128"));
    let choices: Vec<Value> = (0..129).map(|_| json!({})).collect();
    assert_eq!(
        failure(&streamed::<OpenAi>(&[json!({"id": "x", "choices": choices})], true)).kind,
        ErrorKind::MalformedResponse
    );

    let parts: Vec<Value> = (0..1000)
        .map(|at| json!({"type": if at % 2 == 0 { "text" } else { "thinking" }, "text": "a", "thinking": "b"}))
        .collect();
    let parts: Vec<Value> = parts
        .into_iter()
        .map(|mut part| {
            let name = if part["type"] == "text" { "thinking" } else { "text" };
            part.as_object_mut().unwrap().remove(name);
            part
        })
        .collect();
    let choices: Vec<Value> = (0..4).map(|index| json!({"index": index, "delta": {"content": parts}})).collect();
    assert!(
        failure(&streamed::<OpenAi>(&[json!({"id": "x", "choices": choices})], true)).message.contains("4096 events")
    );
}

#[test]
fn deep_nesting_in_unknown_members_does_no_harm() {
    let deep = format!("{{\"id\":\"x\",\"x\":{}1{},\"choices\":[]}}", "[".repeat(200_000), "]".repeat(200_000));
    let mut decoder = OpenAi::decoder("{}", None, success(Framing::Sse));
    let mut events = decoder.feed(vec![Frame::Sse(SseEvent { event: None, data: deep, id: None })]);
    events.extend(decoder.finish());
    assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse);
}

#[test]
fn errors_of_openai_are_told_apart_by_status_code_and_text() {
    let error = |name: &str| failure(&decoded(&fixture("openai", name), &[]));
    for (name, kind, retry, status) in [
        ("error-context.json", ErrorKind::ContextLength, Retry::OtherTarget, 400),
        ("error-quota.json", ErrorKind::QuotaExhausted, Retry::OtherTarget, 429),
        ("error-rate.json", ErrorKind::RateLimited, Retry::SameTarget(Some(1834)), 429),
        ("error-key.json", ErrorKind::Unauthenticated, Retry::OtherTarget, 401),
        ("error-model.json", ErrorKind::NotFound, Retry::Never, 404),
        ("error-server.json", ErrorKind::UpstreamFailure, Retry::SameTarget(Some(500)), 500),
        ("error-parameter.json", ErrorKind::InvalidRequest, Retry::Never, 400),
        ("error-gateway.html", ErrorKind::UpstreamFailure, Retry::SameTarget(None), 502),
    ] {
        let error = error(name);
        assert_eq!((error.kind, error.retry, error.status), (kind, retry, Some(status)), "{name}");
    }
    let context = error("error-context.json");
    assert_eq!(
        (context.code.as_deref(), context.param.as_deref()),
        (Some("context_length_exceeded"), Some("messages"))
    );
    assert!(context.message.starts_with("This model's maximum context length is 8192"));
    assert_eq!(serde_json::from_str::<Value>(&context.raw.unwrap()).unwrap()["type"], "invalid_request_error");
    assert!(error("error-gateway.html").message.contains("nginx"));
}

#[test]
fn errors_of_llama_cpp_are_told_apart_by_status_type_and_text() {
    let error = |name: &str| failure(&decoded(&fixture("llama-cpp", name), &[]));
    for (name, kind, retry) in [
        ("error-context.json", ErrorKind::ContextLength, Retry::OtherTarget),
        ("error-context-stream.json", ErrorKind::ContextLength, Retry::OtherTarget),
        ("error-bad-json.json", ErrorKind::InvalidRequest, Retry::Never),
        ("error-too-many-choices.json", ErrorKind::InvalidRequest, Retry::Never),
        ("error-image.json", ErrorKind::Unsupported, Retry::OtherTarget),
        ("error-loading.json", ErrorKind::Overloaded, Retry::SameTarget(None)),
        ("error-no-key.json", ErrorKind::Unauthenticated, Retry::OtherTarget),
        ("error-not-found.json", ErrorKind::NotFound, Retry::Never),
        ("error-not-supported.json", ErrorKind::Unsupported, Retry::OtherTarget),
    ] {
        let error = error(name);
        assert_eq!((error.kind, error.retry), (kind, retry), "{name}");
    }
    // A server that was started without what tools need: another one may have it.
    for (status, message) in
        [(400, "tools param requires --jinja flag"), (500, "tool_choice param requires --jinja flag")]
    {
        let body = json!({"error": {"code": status, "message": message, "type": "server_error"}}).to_string();
        let error = refused(status, &[], &body);
        assert_eq!((error.kind, error.retry), (ErrorKind::Unsupported, Retry::OtherTarget), "{message}");
        assert_eq!(error.message, message);
    }
    let context = error("error-context.json");
    assert_eq!(context.code.as_deref(), Some("400"));
    assert!(context.message.contains("4024") && context.message.contains("1024"), "{}", context.message);
}

#[test]
fn statuses_have_the_kinds_and_the_advice_of_the_table() {
    for (status, kind, retry) in [
        (302, ErrorKind::UpstreamFailure, Retry::OtherTarget),
        (400, ErrorKind::InvalidRequest, Retry::Never),
        (402, ErrorKind::QuotaExhausted, Retry::OtherTarget),
        (403, ErrorKind::Forbidden, Retry::OtherTarget),
        (408, ErrorKind::Timeout, Retry::SameTarget(None)),
        (413, ErrorKind::TooLarge, Retry::Never),
        (422, ErrorKind::InvalidRequest, Retry::Never),
        (429, ErrorKind::RateLimited, Retry::SameTarget(None)),
        (500, ErrorKind::UpstreamFailure, Retry::SameTarget(None)),
        (501, ErrorKind::Unsupported, Retry::OtherTarget),
        (503, ErrorKind::Overloaded, Retry::SameTarget(None)),
        (504, ErrorKind::Timeout, Retry::SameTarget(None)),
        (529, ErrorKind::Overloaded, Retry::SameTarget(None)),
    ] {
        for body in [
            "",
            "{}",
            "<html>",
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"message":"m"}"#,
            r#"{"detail":"m"}"#,
        ] {
            let error = refused(status, &[], body);
            assert_eq!(
                (error.kind, error.retry, error.status),
                (kind.clone(), retry.clone(), Some(status)),
                "{status} {body}"
            );
            if body.contains("\"m\"") {
                assert_eq!(error.message, "m");
            }
        }
    }
}

#[test]
fn the_headers_about_trying_again_are_honoured() {
    let body = r#"{"error":{"message":"m"}}"#;
    let retry = |status, headers: &[(&str, &str)]| refused(status, headers, body).retry;
    assert_eq!(retry(429, &[("retry-after", "3")]), Retry::SameTarget(Some(3000)));
    assert_eq!(retry(429, &[("retry-after-ms", "1.5"), ("retry-after", "3")]), Retry::SameTarget(Some(2)));
    assert_eq!(retry(503, &[("retry-after", "Fri, 31 Dec 2027 23:59:59 GMT")]), Retry::SameTarget(None));
    for wait in ["-1", "NaN", "inf", "1e300", ""] {
        assert_eq!(retry(429, &[("retry-after", wait)]), Retry::SameTarget(None), "{wait}");
    }
    assert_eq!(retry(500, &[("x-should-retry", "false")]), Retry::OtherTarget);
    assert_eq!(retry(409, &[("x-should-retry", "true")]), Retry::SameTarget(None));
    assert_eq!(retry(400, &[("x-should-retry", "true"), ("retry-after", "1")]), Retry::SameTarget(Some(1000)));
    assert_eq!(
        refused(429, &[("x-should-retry", "true")], r#"{"error":{"code":"insufficient_quota"}}"#).retry,
        Retry::OtherTarget
    );
}

#[test]
fn texts_alone_tell_a_full_context_but_not_for_a_rate_limit() {
    for text in [
        "This model's maximum context length is 8192 tokens",
        "prompt is too long: 9 > 8",
        "Input is too long for requested model",
    ] {
        assert_eq!(refused(400, &[], &json!({"error": {"message": text}}).to_string()).kind, ErrorKind::ContextLength);
        assert_eq!(refused(429, &[], &json!({"error": {"message": text}}).to_string()).kind, ErrorKind::RateLimited);
    }
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let error = refused(502, &[], &"ü".repeat(10_000));
    assert!(error.message.len() < 2300 && error.message.ends_with("… [truncated]"), "{}", error.message.len());
    let error = refused(500, &[], &json!({"error": {"message": "ü".repeat(50_000)}}).to_string());
    assert!(error.message.len() < 5000);
}

#[test]
fn a_failure_in_a_stream_is_told_with_its_kind_and_nothing_follows() {
    let events = decoded(&fixture("openai", "chat-error-in-stream.sse"), &[]);
    let error = failure(&events);
    assert_eq!((error.kind, error.retry, error.status), (ErrorKind::UpstreamFailure, Retry::SameTarget(None), None));
    assert!(error.message.starts_with("The server had an error"));
    for (error, kind) in [
        (
            json!({"code": 400, "message": "request (9 tokens) exceeds", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}),
            ErrorKind::ContextLength,
        ),
        (json!({"code": 500, "message": "m", "type": "server_error"}), ErrorKind::UpstreamFailure),
        (json!({"code": 503, "message": "Loading model", "type": "unavailable_error"}), ErrorKind::Overloaded),
        (json!({"code": "rate_limit_exceeded", "message": "m"}), ErrorKind::RateLimited),
        (json!("plain text"), ErrorKind::UpstreamFailure),
    ] {
        let failed = failure(&streamed::<LlamaCpp>(
            &[delta(json!({"content": "a"})), json!({"error": error}), delta(json!({"content": "b"}))],
            true,
        ));
        assert_eq!(failed.kind, kind, "{error}");
        if kind == ErrorKind::ContextLength {
            assert!(failed.message.contains("9 tokens, the context 8"), "{}", failed.message);
            assert_eq!(failed.status, Some(400));
        }
    }
    for nothing in [json!(null), json!(false), json!({}), json!("")] {
        let chunk =
            json!({"id": "x", "error": nothing, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        assert_eq!(streamed::<OpenAi>(&[chunk], true).last(), Some(&Event::Done));
    }
}

#[test]
fn usage_is_read_in_all_its_parts_and_told_again_only_when_it_changes() {
    let events = decoded(&fixture("openai", "chat-text.sse"), &[]);
    let usages: Vec<_> = events.iter().filter(|event| matches!(event, Event::Usage(_))).collect();
    assert_eq!(usages.len(), 1);
    let said = usage(&events);
    assert_eq!(
        (said.input_tokens, said.output_tokens, said.cache_read_tokens, said.reasoning_tokens, said.estimated),
        (Some(19), Some(10), Some(16), Some(4), false)
    );
    assert!(said.raw.unwrap().value.contains("accepted_prediction_tokens"));
    let chunk = |tokens: u64| json!({"id": "x", "usage": {"prompt_tokens": 1, "completion_tokens": tokens}, "choices": [{"index": 0, "delta": {"content": "a"}}]});
    let events = streamed::<OpenAi>(&[chunk(1), chunk(1), chunk(2), finish("stop")], true);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Usage(_))).count(), 2);
    assert_eq!(usage(&events).output_tokens, Some(2));
}

#[test]
fn the_stop_sequence_that_a_server_names_comes_with_the_finish() {
    let events = decoded(&fixture("openai", "chat-vllm.sse"), &[]);
    assert_eq!(finishes(&events)[0].stop_sequence.as_deref(), Some("END"));
    assert_eq!(text(&events), "ab");
}

/// Index and first characters of each vector.
fn vectors(events: &[Event]) -> Vec<(u32, &'static str, String)> {
    let of = |event: &Event| match event {
        Event::Embedding(Embedding { index, values: Vector::Numbers(json) }) => {
            Some((*index, "numbers", json[..9].into()))
        }
        Event::Embedding(Embedding { index, values: Vector::Base64(text) }) => {
            Some((*index, "base64", text[..9].into()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn vectors_come_as_the_backend_wrote_them_each_with_its_text() {
    let events = decoded(&fixture("openai", "embeddings.json"), &[]);
    assert_eq!(vectors(&events), [(0, "numbers", "[\n       ".to_owned()), (1, "numbers", "[\n       ".to_owned())]);
    assert_eq!((usage(&events).input_tokens, usage(&events).output_tokens), (Some(8), Some(0)));
    let Event::Started(started) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(started.model.as_deref(), Some("text-embedding-3-small"));

    let events = decoded(&fixture("openai", "embeddings-base64.json"), &[]);
    assert_eq!(vectors(&events), [(1, "base64", "ZicXO4DRG".to_owned()), (0, "base64", "AACAPgAAg".to_owned())]);
    let others: Vec<_> = events.iter().filter(|event| matches!(event, Event::Other(_))).collect();
    assert_eq!(others, [&Event::other("openai-embeddings", Scope::Envelope, r#"{"x_request":{"id": 7}}"#)]);

    let events = decoded(&fixture("llama-cpp", "embeddings-tokens.json"), &[]);
    let found = vectors(&events);
    assert_eq!(found.iter().map(|(index, ..)| *index).collect::<Vec<_>>(), [0, 1]);
    assert!(found[0].2.starts_with("[0."), "{}", found[0].2);
    assert_eq!(usage(&events).input_tokens, Some(4));
}

fn answered<A: Adapter>(context: &str, body: &str) -> Vec<Event> {
    let mut decoder = A::decoder("{}", Some(context.into()), success(Framing::Whole));
    let mut events = decoder.feed(vec![Frame::Bytes(body.as_bytes().to_vec())]);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    check_order(body, &events);
    events
}

#[test]
fn vectors_that_do_not_fit_the_texts_are_a_malformed_answer() {
    let with = |data: Value| json!({"data": data}).to_string();
    for body in [
        "".to_owned(),
        "{}".to_owned(),
        with(json!({})),
        with(json!([{"index": 0, "embedding": [1]}])),
        with(json!([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}])),
        with(json!([{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}])),
        with(json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": {"secret": 1}}])),
        with(json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": ["secret"]}])),
        with(json!([{"index": 0, "embedding": [1]}, {"index": 1}])),
    ] {
        let error = failure(&answered::<OpenAi>("embedding 2", &body));
        assert_eq!(error.kind, ErrorKind::MalformedResponse, "{body}");
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
    let nested = with(json!([{"embedding": [[1, 2.5e-3], [-1, 0]]}]));
    assert_eq!(answered::<LlamaCpp>("embedding 1", &nested).last(), Some(&Event::Done));
    let failed =
        failure(&answered::<OpenAi>("embedding 1", r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#));
    assert_eq!((failed.kind, failed.message.as_str()), (ErrorKind::RateLimited, "m"));
}

#[test]
fn models_are_listed_in_every_shape_that_servers_write() {
    let models = |folder, name| -> Vec<(String, Option<u64>, Option<String>)> {
        let of = |event: Event| match event {
            Event::Model(model) => Some((model.id, model.created, model.owned_by)),
            _ => None,
        };
        decoded(&fixture(folder, name), &[]).into_iter().filter_map(of).collect()
    };
    assert_eq!(
        models("openai", "models.json"),
        [
            ("gpt-5.1".to_owned(), Some(1_686_935_002), Some("openai".to_owned())),
            ("ft:gpt-4o:acme::1".to_owned(), Some(1_686_935_003), Some("acme".to_owned()))
        ]
    );
    assert_eq!(models("openai", "models-list.json"), [("meta-llama/Llama-3-8b".to_owned(), None, None)]);
    // Both `models` and `data` are there: the model is listed once.
    let listed = models("llama-cpp", "models.json");
    assert_eq!((listed.len(), listed[0].0.as_str(), listed[0].2.as_deref()), (1, "tiny", Some("llamacpp")));

    let old = answered::<LlamaCpp>("models", r#"{"models":[{"name":"a.gguf","model":"a.gguf"}]}"#);
    assert!(matches!(&old[1], Event::Model(model) if model.id == "a.gguf"), "{old:?}");
    let mut none = OpenAi::decoder("{}", Some("models".into()), success(Framing::Whole));
    assert!(none.feed(vec![Frame::Bytes(br#"{"object":"list","data":[]}"#.to_vec())]).is_empty());
    assert_eq!(none.finish().last(), Some(&Event::Done));
    for body in ["{}", "[1]", r#"{"data":[{}]}"#, r#"{"data":5}"#, ""] {
        assert_eq!(failure(&answered::<OpenAi>("models", body)).kind, ErrorKind::MalformedResponse, "{body}");
    }
    let many = json!({"data": (0..4001).map(|at| json!({"id": at.to_string()})).collect::<Vec<_>>()});
    assert!(failure(&answered::<OpenAi>("models", &many.to_string())).message.contains("list of models"));
}

#[test]
fn reasoning_is_found_under_every_name_that_servers_give_it() {
    for (name, thoughts, said) in [
        ("chat-deepseek.sse", "I weigh it.", "It is 4."),
        ("chat-groq.sse", "I weigh it.", "4"),
        ("chat-vllm-reasoning.sse", "I weigh it.", "4"),
        ("chat-think.sse", "I weigh < it.", "It is <think>."),
        ("chat-reasoning-openrouter.sse", "Hm", "Yes"),
    ] {
        let events = decoded(&fixture("openai", name), &[]);
        assert_eq!((thought(&events).as_str(), text(&events).as_str()), (thoughts, said), "{name}");
        assert_eq!(events.last(), Some(&Event::Done), "{name}");
    }
    let deepseek = usage(&decoded(&fixture("openai", "chat-deepseek.sse"), &[]));
    assert_eq!((deepseek.cache_read_tokens, deepseek.reasoning_tokens), (Some(16), Some(7)));
    // Without the setting the text stays as it was written.
    let mut plain = fixture("openai", "chat-think.sse");
    plain.settings = "{}".into();
    assert_eq!(text(&decoded(&plain, &[])), "<think>\nI weigh < it.\n</think>\n\nIt is <think>.");
}

#[test]
fn calls_without_ids_and_numbers_are_told_apart_by_their_names() {
    let events = decoded(&fixture("openai", "chat-tool-calls-no-id.sse"), &[]);
    let call = |id: &str, arguments: &str| (id.to_owned(), "a".to_owned(), arguments.to_owned());
    assert_eq!(calls(&events), [call("call_0_0", "{\"x\":1}"), call("call_0_1", "{\"x\":2}")]);
}

#[test]
fn a_failure_beside_a_finish_reason_is_a_failure() {
    let error = failure(&decoded(&fixture("openai", "chat-openrouter-error.sse"), &[]));
    assert_eq!((error.kind, error.status), (ErrorKind::UpstreamFailure, Some(502)));
    assert_eq!(error.message, "Provider disconnected");
}

#[test]
fn timings_of_llama_cpp_are_kept() {
    for name in ["chat-text.sse", "chat-text.json"] {
        let events = decoded(&fixture("llama-cpp", name), &[]);
        let kept = events.iter().filter(|event| match event {
            Event::Other(other) => other.scope == Scope::Envelope && other.members.contains("\"timings\":{"),
            _ => false,
        });
        assert_eq!(kept.count(), 1, "{name}");
    }
}

#[test]
fn a_filter_of_azure_and_a_text_beyond_the_batch_are_told_by_their_kind() {
    let error = failure(&decoded(&fixture("openai", "error-azure-filter.json"), &[]));
    assert_eq!((error.kind, error.retry, error.status), (ErrorKind::ContentFiltered, Retry::Never, Some(400)));
    assert!(error.raw.unwrap().contains("ResponsibleAIPolicyViolation"));
    let error = failure(&decoded(&fixture("llama-cpp", "error-embeddings-batch.json"), &[]));
    assert_eq!((error.kind, error.retry), (ErrorKind::ContextLength, Retry::OtherTarget));
}

#[test]
fn a_limit_that_is_used_up_tells_when_it_is_reset() {
    let error = failure(&decoded(&fixture("openai", "error-rate-reset.json"), &[]));
    assert_eq!((error.kind, error.retry), (ErrorKind::RateLimited, Retry::SameTarget(Some(62_500))));
    let retry = |reset: &str| {
        refused(429, &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", reset)], "{}").retry
    };
    assert_eq!(retry("20ms"), Retry::SameTarget(Some(20)));
    assert_eq!(retry("1h0m0.5s"), Retry::SameTarget(Some(3_600_500)));
    for odd in ["", "12", "s", "1x", "-1s", "1.2.3s", "99999h", "ü"] {
        assert_eq!(retry(odd), Retry::SameTarget(None), "{odd}");
    }
}

#[test]
fn frames_of_another_kind_are_a_malformed_answer() {
    for frame in [
        Frame::Line("{}".into()),
        Frame::Message(witgate_model::EventMessage { headers: Vec::new(), payload: Vec::new() }),
    ] {
        let mut decoder = OpenAi::decoder("{}", None, success(Framing::Sse));
        assert_eq!(failure(&decoder.feed(vec![frame])).kind, ErrorKind::MalformedResponse);
        assert_eq!(decoder.finish(), []);
    }
}

#[test]
fn the_stub_answers_with_the_start_of_the_last_user_text() {
    let long = "Grüße an alle, die dies lesen: 世界 und 🦀 und noch viel mehr Text dahinter";
    let expected = format!("[stub] {}", long.chars().take(64).collect::<String>());
    for stream in [false, true] {
        for dialect in ["openai-chat", "openai-completions"] {
            let mut request = if dialect == "openai-chat" {
                let messages = vec![
                    witgate_model::Message::text(witgate_model::Role::User, "first"),
                    witgate_model::Message::text(witgate_model::Role::Assistant, "answer"),
                    witgate_model::Message::text(witgate_model::Role::User, long),
                ];
                Request::chat(dialect, "m", messages)
            } else {
                Request::completion(dialect, "m", long)
            };
            request.stream = stream;
            request.sampling.n = Some(2);
            let http = Stub::encode("{}", request).unwrap();
            assert!(http.path.is_empty());
            let content_type = http.headers[0].1.clone();
            let framing = effective(&http.framing, 200, Some(&content_type));
            assert_eq!(framing, http.framing);
            let head = ResponseHead { status: 200, headers: http.headers, framing, stream };
            let (name, settings) = (String::new(), "{}".to_owned());
            let answer = Answer { folder: "stub", name, head, body: http.body, context: http.context, settings };
            let events = events_of::<Stub>(&answer, &[]);
            check_order("", &events);
            assert_eq!(events.last(), Some(&Event::Done));
            assert_eq!(text(&events), expected.repeat(2), "{dialect} {stream}");
            assert_eq!(finishes(&events).len(), 2);
            let usage = usage(&events);
            assert!(usage.estimated);
            assert_eq!(usage.output_tokens, Some(2 * expected.split_whitespace().count() as u64));
            if stream {
                assert!(events.iter().filter(|event| matches!(event, Event::Text(_))).count() > 10);
            }
        }
    }
}
