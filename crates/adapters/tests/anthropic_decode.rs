//! Answers of the Messages API, through the framing and the decoder.

mod common;

use common::{Answer, answers, calls, check_order, events, every_cut, failure, finishes, lines, text, thought, usage};
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_adapters::Anthropic;
use witgate_adapters::anthropic_shape::{Decoder, Flavour};
use witgate_model::{
    Adapter, BlockKind, Decoder as _, ErrorKind, Event, FinishReason, Frame, Framing, ResponseHead, Retry, Scope,
    SseEvent,
};

fn all() -> Vec<Answer> {
    answers("anthropic", &Framing::Sse)
}

fn fixture(name: &str) -> Answer {
    all().into_iter().find(|answer| answer.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}

fn of(name: &str) -> Vec<Event> {
    let events = events::<Anthropic>(&fixture(name), &[]);
    check_order(name, &events);
    events
}

/// `other` events as scope and JSON.
fn others(events: &[Event]) -> Vec<(Scope, Value)> {
    let of = |event: &Event| match event {
        Event::Other(other) => {
            assert_eq!(other.dialect, "anthropic-messages");
            Some((other.scope.clone(), serde_json::from_str(&other.members).unwrap()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// The kinds of the blocks.
fn blocks(events: &[Event]) -> Vec<BlockKind> {
    let of = |event: &Event| if let Event::BlockStart(start) = event { Some(start.kind.clone()) } else { None };
    events.iter().filter_map(of).collect()
}

#[test]
fn every_answer_gives_the_events_that_were_reviewed() {
    let answers = all();
    assert!(answers.len() > 60, "{}", answers.len());
    for answer in answers {
        insta::assert_snapshot!(answer.name.as_str(), lines(&events::<Anthropic>(&answer, &[])));
    }
}

#[test]
fn every_answer_cut_anywhere_gives_the_same_events() {
    for answer in all() {
        every_cut::<Anthropic>(&answer);
    }
}

#[test]
fn a_stream_and_a_whole_answer_say_the_same() {
    for (stream, whole) in [
        ("stream-tools.sse", "message-tools.json"),
        ("stream-thinking.sse", "message-thinking.json"),
        ("stream-json-answer.sse", "message-json-answer.json"),
    ] {
        let (stream, whole) = (of(stream), of(whole));
        assert_eq!(finishes(&stream)[0].reason, finishes(&whole)[0].reason);
        assert_eq!(usage(&stream).reasoning_tokens, usage(&whole).reasoning_tokens);
        assert_eq!(thought(&stream), thought(&whole));
    }
    let json = |name| serde_json::from_str::<Value>(&text(&of(name))).unwrap();
    assert_eq!(json("stream-json-answer.sse"), json("message-json-answer.json"));
}

#[test]
fn calls_come_apart_and_a_call_without_arguments_has_none() {
    let call = |id: &str, name: &str, arguments: &str| (id.to_owned(), name.to_owned(), arguments.to_owned());
    let events = of("stream-tools.sse");
    assert_eq!(
        calls(&events),
        [
            call("toolu_01A", "get_weather", r#"{"city": "München", "days": 2}"#),
            call("toolu_01B", "now", ""),
            call("toolu_01C", "now", "")
        ]
    );
    assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
    assert_eq!(others(&events), [(Scope::Block(1), json!({"caller": {"type": "direct"}}))]);
    let whole = of("message-tools.json");
    assert_eq!(calls(&whole)[0].2, r#"{"city":"München","days":2.5}"#);
    assert_eq!(calls(&whole)[1].2, "");
}

#[test]
fn an_input_that_comes_with_the_start_counts_where_no_pieces_follow() {
    let arguments: Vec<String> = calls(&of("stream-input-at-start.sse")).into_iter().map(|call| call.2).collect();
    assert_eq!(arguments, [r#"{"a":1}"#, r#"{"a":2}"#]);
}

#[test]
fn a_mapped_name_comes_back_as_the_client_gave_it() {
    assert_eq!(calls(&of("stream-mapped-name.sse"))[0].1, "fs.read");
}

#[test]
fn a_forced_tool_is_the_answers_text_and_a_clients_call_stays_a_call() {
    for name in ["stream-json-answer.sse", "message-json-answer.json"] {
        let events = of(name);
        assert_eq!(blocks(&events), [BlockKind::Text], "{name}");
        assert_eq!(serde_json::from_str::<Value>(&text(&events)).unwrap(), json!({"city": "Rom"}));
        assert_eq!(finishes(&events)[0].reason, FinishReason::Stop);
    }
    assert_eq!(text(&of("stream-json-answer-empty.sse")), "{}");
    let events = of("message-json-answer-and-call.json");
    assert_eq!(calls(&events)[0].1, "get_weather");
    assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
}

#[test]
fn thinking_has_its_signature_and_encrypted_thinking_its_data() {
    for name in ["stream-thinking.sse", "message-thinking.json"] {
        let events = of(name);
        assert_eq!(thought(&events), "27 * 453 = 12231", "{name}");
        assert_eq!(text(&events), "12231");
        assert_eq!(usage(&events).reasoning_tokens, Some(41));
        assert!(events.iter().any(|event| matches!(event, Event::Signature(delta) if delta.text.starts_with("EqQB"))));
        assert!(events.iter().any(|event| matches!(event, Event::Redacted(delta) if delta.text.starts_with("Emw"))));
    }
}

#[test]
fn a_tool_that_the_backend_runs_is_no_call_for_the_client() {
    for name in ["stream-server-tools.sse", "message-server-tools.json"] {
        let events = of(name);
        let kinds: Vec<Value> = blocks(&events)
            .iter()
            .map(|kind| match kind {
                BlockKind::Other(object) => serde_json::from_str::<Value>(&object.value).unwrap()["type"].clone(),
                _ => json!("known"),
            })
            .collect();
        assert_eq!(kinds, ["server_tool_use", "web_search_tool_result", "known", "known"], "{name}");
        assert!(calls(&events).is_empty());
        assert_eq!(finishes(&events)[0].reason, FinishReason::Stop);
        let cited: usize = others(&events)
            .iter()
            .filter(|(scope, _)| *scope == Scope::Block(2))
            .filter_map(|(_, members)| members["citations"].as_array().map(Vec::len))
            .sum();
        assert_eq!(cited, 2, "{name}");
    }
    let events = of("stream-server-tools.sse");
    let input: String = events
        .iter()
        .filter_map(|event| if let Event::Arguments(delta) = event { Some(delta.text.as_str()) } else { None })
        .collect();
    assert_eq!(input, r#"{"query": "rain"}"#);
    let told = others(&events);
    assert_eq!(told[0], (Scope::Envelope, json!({"container": null})));
    assert!(told.contains(&(Scope::Envelope, json!({"context_management": {"applied_edits": []}}))));
    assert!(
        told.iter().any(|(scope, members)| *scope == Scope::Choice(0) && members["container"]["id"] == "container_01")
    );
}

#[test]
fn input_counts_cache_reads_and_writes_and_later_usage_fills_in() {
    let cached = usage(&of("stream-cache.sse"));
    assert_eq!(cached.input_tokens, Some(21 + 188_086 + 12));
    assert_eq!((cached.cache_read_tokens, cached.cache_write_tokens), (Some(12), Some(188_086)));
    assert_eq!(cached.output_tokens, Some(393));
    let whole = usage(&of("message-cache.json"));
    assert_eq!((whole.input_tokens, whole.output_tokens), (cached.input_tokens, cached.output_tokens));

    let repeated = usage(&of("stream-cache-repeated.sse"));
    assert_eq!((repeated.input_tokens, repeated.output_tokens), (Some(130), Some(3)));
    assert_eq!(repeated.cache_read_tokens, Some(100));
    assert_eq!(repeated.raw.unwrap().dialect, "anthropic-messages");
}

#[test]
fn the_first_usage_comes_in_front_of_the_first_block_and_the_last_in_front_of_the_finish() {
    let events = of("stream-cache.sse");
    let at = |is: fn(&Event) -> bool| events.iter().position(is).unwrap();
    let usages: Vec<usize> =
        events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Usage(_))).map(|(at, _)| at).collect();
    assert!(usages[0] < at(|event| matches!(event, Event::BlockStart(_))));
    assert!(usages[1] < at(|event| matches!(event, Event::Finish(_))));
}

#[test]
fn stop_reasons_are_those_of_the_table() {
    for (name, reason, raw) in [
        ("stream-text.sse", FinishReason::Stop, "end_turn"),
        ("message-stop-sequence.json", FinishReason::Stop, "stop_sequence"),
        ("message-pause.json", FinishReason::Stop, "pause_turn"),
        ("stream-cache.sse", FinishReason::Length, "max_tokens"),
        ("message-context-window.json", FinishReason::Length, "model_context_window_exceeded"),
        ("stream-tools.sse", FinishReason::ToolCalls, "tool_use"),
        ("stream-refusal.sse", FinishReason::ContentFilter, "refusal"),
        ("stream-unknown.sse", FinishReason::Other("sparkled".into()), "sparkled"),
    ] {
        let finish = finishes(&of(name)).remove(0);
        assert_eq!((finish.reason, finish.raw.as_deref()), (reason, Some(raw)), "{name}");
    }
    assert_eq!(finishes(&of("message-stop-sequence.json"))[0].stop_sequence.as_deref(), Some("3"));
    let refused = others(&of("stream-refusal.sse"));
    assert_eq!(refused[0].1["stop_details"]["category"], "cyber");
}

#[test]
fn what_does_not_exist_yet_is_passed_on_or_ignored() {
    let events = of("stream-unknown.sse");
    assert_eq!(text(&events), "ab");
    let told = others(&events);
    for expected in [
        (Scope::Envelope, json!({"diagnostics": {"cache_miss_reason": null}})),
        (Scope::Block(0), json!({"delta": {"type": "sparkle_delta", "sparkle": {"x": [1.5]}}})),
        (
            Scope::Block(1),
            json!({"delta": {"type": "compaction_delta", "content": "Summary", "encrypted_content": "Zm9v"}}),
        ),
        (Scope::Block(2), json!({"origin": "x"})),
        (Scope::Block(2), json!({"delta": {"estimated_tokens": 7}})),
        (Scope::Block(3), json!({"id": "blk_3"})),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    assert!(told.last().unwrap().1.get("amazon-bedrock-invocationMetrics").is_some());
}

#[test]
fn blocks_that_no_stop_ends_end_with_the_message() {
    let events = of("stream-interleaved.sse");
    assert_eq!((text(&events).as_str(), calls(&events)[0].2.as_str()), ("late", "{}"));
}

#[test]
fn counts_and_models_are_read() {
    let count = of("count.json");
    assert_eq!((count.len(), usage(&count).input_tokens), (3, Some(2095)));
    assert!(usage(&of("count-context.json")).raw.unwrap().value.contains("original_input_tokens"));
    let models = |name: &str| -> Vec<_> {
        let of = |event| {
            if let Event::Model(model) = event { Some((model.id, model.created, model.owned_by)) } else { None }
        };
        self::of(name).into_iter().filter_map(of).collect()
    };
    let known = ("claude-opus-4-6".to_owned(), Some(1_770_163_200), None);
    assert_eq!(models("models.json"), [known, ("claude-mythos-preview".to_owned(), None, None)]);
    assert_eq!(models("models-openai.json"), [("qwen3".to_owned(), Some(1_763_000_000), Some("llamacpp".to_owned()))]);
}

#[test]
fn an_answer_that_ends_early_or_is_none_is_malformed() {
    for (name, words) in [
        ("stream-cut.sse", "ended before its finish"),
        ("stream-no-message-stop.sse", "message_stop"),
        ("stream-empty.sse", "empty"),
        ("stream-no-start.sse", "message_start"),
        ("stream-not-json.sse", "cut off"),
        ("stream-wrong-delta.sse", "input_json_delta"),
        ("message-no-stop-reason.json", "stop_reason"),
        ("message-empty-body.json", "empty"),
        ("message-html.html", "<!DOCTYPE html>"),
    ] {
        let error = failure(&of(name));
        assert_eq!((error.kind, error.retry), (ErrorKind::MalformedResponse, Retry::OtherTarget), "{name}");
        assert!(error.message.contains(words), "{name}: {}", error.message);
    }
}

#[test]
fn every_failure_says_what_it_is_and_whether_to_try_again() {
    let later = Retry::SameTarget(None);
    let after = |ms| Retry::SameTarget(Some(ms));
    for (name, kind, status, retry) in [
        ("error-400.json", ErrorKind::InvalidRequest, Some(400), Retry::Never),
        ("error-400-stream.json", ErrorKind::InvalidRequest, Some(400), Retry::Never),
        ("error-context.json", ErrorKind::ContextLength, Some(400), Retry::OtherTarget),
        ("error-context-max-tokens.json", ErrorKind::ContextLength, Some(400), Retry::OtherTarget),
        ("error-llama.json", ErrorKind::ContextLength, Some(400), Retry::OtherTarget),
        ("error-credit.json", ErrorKind::QuotaExhausted, Some(400), Retry::OtherTarget),
        ("error-401.json", ErrorKind::Unauthenticated, Some(401), Retry::OtherTarget),
        ("error-402.json", ErrorKind::QuotaExhausted, Some(402), Retry::OtherTarget),
        ("error-403.json", ErrorKind::Forbidden, Some(403), Retry::OtherTarget),
        ("error-403.html", ErrorKind::Forbidden, Some(403), Retry::OtherTarget),
        ("error-404.json", ErrorKind::NotFound, Some(404), Retry::Never),
        ("error-408.json", ErrorKind::Timeout, Some(408), later.clone()),
        ("error-409.json", ErrorKind::UpstreamFailure, Some(409), later.clone()),
        ("error-413.json", ErrorKind::TooLarge, Some(413), Retry::Never),
        ("error-429.json", ErrorKind::RateLimited, Some(429), after(7000)),
        ("error-429-no-retry.json", ErrorKind::RateLimited, Some(429), Retry::OtherTarget),
        ("error-429-spend.json", ErrorKind::QuotaExhausted, Some(429), Retry::OtherTarget),
        ("error-429-ramp.json", ErrorKind::RateLimited, Some(429), after(1500)),
        ("error-500.json", ErrorKind::UpstreamFailure, Some(500), later.clone()),
        ("error-502.html", ErrorKind::UpstreamFailure, Some(502), after(3000)),
        ("error-503.json", ErrorKind::Overloaded, Some(503), later.clone()),
        ("error-504.json", ErrorKind::Timeout, Some(504), later.clone()),
        ("error-529.json", ErrorKind::Overloaded, Some(529), later.clone()),
        ("error-empty.json", ErrorKind::UpstreamFailure, Some(500), later.clone()),
        ("stream-error.sse", ErrorKind::Overloaded, Some(529), later.clone()),
        ("stream-error-first.sse", ErrorKind::RateLimited, Some(429), later.clone()),
        ("stream-error-text.sse", ErrorKind::UpstreamFailure, None, later.clone()),
        ("message-error.json", ErrorKind::UpstreamFailure, Some(500), later),
    ] {
        let error = failure(&of(name));
        assert_eq!((error.kind, error.status, error.retry), (kind, status, retry), "{name}");
        assert!(error.message.len() > 8, "{name}: {}", error.message);
    }
    let spend = failure(&of("error-429-spend.json"));
    assert_eq!(spend.code.as_deref(), Some("contract_spend_limit_reached"));
    let limited = failure(&of("error-429.json"));
    assert_eq!(limited.code.as_deref(), Some("rate_limit_error"));
    assert!(limited.message.contains("req_011CSHoEeqs5C35K2UUqR7Fy"), "{}", limited.message);
    assert!(limited.raw.unwrap().contains("\"request_id\""));
    let text = failure(&of("stream-error-text.sse"));
    assert!(text.message.contains("upstream connect error") && text.raw.is_none());
    assert!(failure(&of("error-502.html")).message.contains("502 Bad Gateway"));
}

#[test]
fn a_carrier_of_another_framing_hands_over_one_event_after_the_other() {
    let answer = fixture("stream-tools.sse");
    let head = ResponseHead { framing: Framing::AwsEventstream, ..answer.head.clone() };
    let mut decoder = Decoder::new(Flavour::Bedrock, None, head.clone());
    let mut out = Vec::new();
    for line in String::from_utf8(answer.body.clone()).unwrap().lines() {
        if let Some(data) = line.strip_prefix("data: ") {
            assert!(!decoder.is_ended());
            decoder.event(data, &mut out);
        }
    }
    assert!(decoder.is_ended() && decoder.finish().is_empty());
    assert_eq!(out, events::<Anthropic>(&answer, &[]));

    let mut decoder = Decoder::new(Flavour::Bedrock, None, head);
    let mut out = Vec::new();
    decoder.event("{", &mut out);
    decoder.event("{}", &mut out);
    assert_eq!(out.len(), 1);
    assert!(failure(&out).message.contains("Bedrock"));
}

fn sse(data: Value) -> Frame {
    Frame::Sse(SseEvent { event: None, data: data.to_string(), id: None })
}

fn stream() -> Decoder {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Sse, stream: true };
    Anthropic::decoder("{}", None, head)
}

#[test]
fn the_type_inside_of_an_event_is_enough() {
    let mut decoder = stream();
    let events = decoder.feed(vec![
        sse(json!({"type": "message_start", "message": {"id": "m", "content": []}})),
        sse(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})),
        sse(json!({"type": "message_stop"})),
        sse(json!({"type": "ping"})),
    ]);
    check_order("by type", &events);
    assert_eq!(events.last(), Some(&Event::Done));
    assert!(decoder.finish().is_empty());
}

#[test]
fn blocks_have_a_bound() {
    let mut decoder = stream();
    decoder.feed(vec![sse(json!({"type": "message_start", "message": {}}))]);
    for number in 0..4096 {
        let block =
            json!({"type": "content_block_start", "index": number, "content_block": {"type": "text", "text": ""}});
        let stop = json!({"type": "content_block_stop", "index": number});
        assert_eq!(decoder.feed(vec![sse(block), sse(stop)]).len(), 2);
    }
    let block = json!({"type": "content_block_start", "index": 4096, "content_block": {"type": "text", "text": ""}});
    assert!(failure(&decoder.feed(vec![sse(block)])).message.contains("4096 blocks"));

    let blocks = vec![json!({"type": "text", "text": "x"}); 2000];
    let body = json!({"content": blocks, "stop_reason": "end_turn"}).to_string();
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Whole, stream: false };
    let mut decoder = Anthropic::decoder("{}", None, head);
    assert!(decoder.feed(vec![Frame::Bytes(body.into_bytes())]).is_empty());
    assert!(failure(&decoder.finish()).message.contains("4096 events"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_decoder_panic_or_break_the_order(
        at in 0_usize..70, cut in any::<prop::sample::Index>(), byte in any::<u8>(), len in 0_usize..4,
    ) {
        let all = all();
        let mut answer = all[at % all.len()].clone();
        if !answer.body.is_empty() {
            let start = cut.index(answer.body.len());
            let end = (start + len).min(answer.body.len());
            answer.body.splice(start..end, [byte]);
        }
        check_order(&answer.name, &events::<Anthropic>(&answer, &[]));
    }
}
