//! Bedrock's answers, as binary event streams and as whole bodies, through the framing and the decoder.
//!
//! The fixtures are in `tests/fixtures/upstream/bedrock`: the README there says how each was made. The events that each
//! must give are in its folder `events`; `WITGATE_UPDATE=1` writes them anew, to be read before they are committed.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use common::{calls, check_order, text};
use serde::Deserialize;
use witgate_adapters::bedrock::Bedrock;
use witgate_framing::{Framer, Limits, effective};
use witgate_model::{
    Adapter, BlockKind, Decoder, DialectJson, Error, ErrorKind, Event, EventMessage, Finish, FinishReason, Frame,
    Framing, ResponseHead, Retry, SseEvent, Usage, Vector,
};

#[derive(Deserialize)]
struct Meta {
    status: u16,
    stream: bool,
    headers: BTreeMap<String, String>,
    context: Option<String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/upstream/bedrock")
}

fn metas() -> BTreeMap<String, Meta> {
    serde_json::from_slice(&std::fs::read(folder().join("meta.json")).unwrap()).unwrap()
}

fn body(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn head(meta: &Meta) -> ResponseHead {
    let wanted = match (meta.stream, meta.headers.get("content-type").map(String::as_str)) {
        (false, _) => Framing::Whole,
        // The OpenAI-compatible endpoint.
        (true, Some("text/event-stream")) => Framing::Sse,
        (true, _) => Framing::AwsEventstream,
    };
    ResponseHead {
        status: meta.status,
        headers: meta.headers.clone().into_iter().collect(),
        framing: effective(&wanted, meta.status, meta.headers.get("content-type").map(String::as_str)),
        stream: meta.stream,
    }
}

/// The events of a body that the network delivers in these pieces, as the gateway drives framing and decoder.
fn events<'a>(head: ResponseHead, context: Option<String>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut framer = Framer::new(&head.framing, Limits::default()).unwrap();
    let mut decoder = Bedrock::decoder("{}", context, head);
    let (mut events, mut frames) = (Vec::new(), Vec::new());
    let ended = |events: &[Event]| events.last().is_some_and(Event::is_last);
    for piece in pieces {
        framer.push(piece, &mut frames).unwrap();
        if !frames.is_empty() && !ended(&events) {
            events.append(&mut decoder.feed(std::mem::take(&mut frames)));
        }
    }
    framer.finish(&mut frames).unwrap();
    if !frames.is_empty() && !ended(&events) {
        events.append(&mut decoder.feed(std::mem::take(&mut frames)));
    }
    if !ended(&events) {
        events.append(&mut decoder.finish());
    }
    events
}

fn fixture(name: &str) -> Vec<Event> {
    let body = body(name);
    let meta = &metas()[name];
    events(head(meta), meta.context.clone(), [body.as_slice()])
}

fn failure(events: &[Event]) -> &Error {
    match events.last() {
        Some(Event::Failed(error)) => error,
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn finish(events: &[Event]) -> &Finish {
    match events {
        [.., Event::Finish(finish), Event::Done] => finish,
        other => panic!("expected a finish and done at the end, got {other:?}"),
    }
}

fn usage(events: &[Event]) -> &Usage {
    let found: Vec<_> =
        events.iter().filter_map(|event| if let Event::Usage(usage) = event { Some(usage) } else { None }).collect();
    assert_eq!(found.len(), 1, "{events:?}");
    found[0]
}

fn others(events: &[Event]) -> Vec<&str> {
    fn members(event: &Event) -> Option<&str> {
        let Event::Other(other) = event else { return None };
        Some(&other.members)
    }
    events.iter().filter_map(members).collect()
}

#[test]
fn every_fixture_gives_the_events_that_are_kept_beside_it() {
    let update = std::env::var_os("WITGATE_UPDATE").is_some();
    let kept = folder().join("events");
    for name in metas().keys() {
        let events = fixture(name);
        check_order(name, &events);
        let path = kept.join(format!("{name}.jsonl"));
        let lines: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
        if update {
            std::fs::create_dir_all(&kept).unwrap();
            std::fs::write(&path, &lines).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), lines, "{name}");
    }
}

#[test]
fn any_split_of_an_answer_gives_the_same_events() {
    for (name, meta) in metas() {
        let body = body(&name);
        let events = |pieces: Vec<&[u8]>| events(head(&meta), meta.context.clone(), pieces);
        let wanted = events(vec![body.as_slice()]);
        for at in 0..=body.len() {
            let (left, right) = body.split_at(at);
            assert_eq!(events(vec![left, right]), wanted, "{name} split at byte {at}");
        }
        assert_eq!(events(body.chunks(1).collect()), wanted, "{name} byte by byte");
        assert_eq!(events(body.chunks(7).collect()), wanted, "{name} by seven bytes");
    }
}

#[test]
fn the_finish_waits_for_the_usage_in_either_order() {
    for name in ["stream-text.bin", "stream-reversed.bin"] {
        let events = fixture(name);
        assert_eq!(text(&events), "Hello!");
        assert_eq!(finish(&events).reason, FinishReason::Stop);
        assert_eq!(finish(&events).raw.as_deref(), Some("end_turn"));
        assert_eq!((usage(&events).input_tokens, usage(&events).output_tokens), (Some(12), Some(7)), "{name}");
    }
}

#[test]
fn a_stream_without_metadata_is_complete_but_has_no_usage() {
    let events = fixture("stream-no-metadata.bin");
    assert_eq!(finish(&events).reason, FinishReason::Stop);
    assert!(!events.iter().any(|event| matches!(event, Event::Usage(_))));
}

#[test]
fn characters_and_escapes_come_through() {
    assert_eq!(text(&fixture("stream-characters.bin")), "Grüße, 世界 🦀\n\"quoted\" \\ end");
}

#[test]
fn an_empty_content_block_start_begins_nothing() {
    let events = fixture("stream-empty-start.bin");
    assert_eq!(text(&events), "Hi");
    assert_eq!(events.iter().filter(|event| matches!(event, Event::BlockStart(_))).count(), 1);
}

#[test]
fn fragments_of_tool_input_are_joined_and_kept_as_text() {
    let events = fixture("stream-tool.bin");
    let wanted = ("tooluse_Kf3aQ".to_owned(), "get_weather".to_owned(), "{\"city\": \"Zürich\"}".to_owned());
    assert_eq!(calls(&events), [wanted]);
    assert_eq!(finish(&events).reason, FinishReason::ToolCalls);
}

#[test]
fn a_tool_call_without_input_has_no_arguments() {
    assert_eq!(calls(&fixture("stream-tool-no-input.bin")), [("tooluse_1".into(), "now".into(), String::new())]);
}

#[test]
fn parallel_tool_calls_keep_their_own_blocks() {
    let wanted = [
        ("tooluse_a".to_owned(), "add".to_owned(), "{\"x\":1}".to_owned()),
        ("tooluse_b".to_owned(), "mul".to_owned(), "{\"y\":2}".to_owned()),
    ];
    assert_eq!(calls(&fixture("stream-tools-parallel.bin")), wanted);
}

#[test]
fn mapped_tool_names_come_back_as_the_client_wrote_them() {
    let context = r#"{"tools":{"get_weather":"weather.get/v2"}}"#.to_owned();
    for name in ["stream-tool.bin", "whole-tools.json"] {
        let body = body(name);
        let events = events(head(&metas()[name]), Some(context.clone()), [body.as_slice()]);
        assert_eq!(calls(&events)[0].1, "weather.get/v2", "{name}");
    }
}

#[test]
fn a_context_that_is_not_ours_fails_the_answer() {
    let body = body("stream-text.bin");
    let events = events(head(&metas()["stream-text.bin"]), Some("nonsense".to_owned()), [body.as_slice()]);
    assert!(failure(&events).message.contains("context"));
}

#[test]
fn reasoning_comes_with_its_signature_and_its_encrypted_parts() {
    let events = fixture("stream-reasoning.bin");
    let thought: String = events
        .iter()
        .filter_map(|event| if let Event::Reasoning(delta) = event { Some(delta.text.as_str()) } else { None })
        .collect();
    assert_eq!(thought, "Let me think.");
    let signed = |events: &[Event], proof: &str| {
        events.iter().any(|event| matches!(event, Event::Signature(delta) if delta.text == proof))
    };
    let redacted = |events: &[Event], secret: &str| {
        events.iter().any(|event| matches!(event, Event::Redacted(delta) if delta.text == secret))
    };
    assert!(signed(&events, "c2lnbmF0dXJl"));
    assert!(redacted(&fixture("stream-redacted.bin"), "c2VjcmV0"));
    let whole = fixture("whole-reasoning.json");
    assert!(signed(&whole, "c2ln") && redacted(&whole, "c2VjcmV0"));
    assert_eq!(text(&whole), "42");
}

#[test]
fn input_tokens_include_what_the_cache_gave_and_took() {
    for name in ["stream-cache.bin", "whole-cache.json"] {
        let events = fixture(name);
        let usage = usage(&events);
        assert_eq!(usage.input_tokens, Some(110), "{name}");
        assert_eq!((usage.cache_read_tokens, usage.cache_write_tokens), (Some(80), Some(20)), "{name}");
        assert_eq!(usage.output_tokens, Some(7));
        assert!(usage.raw.as_ref().unwrap().value.contains("\"inputTokens\":10"));
    }
}

#[test]
fn every_stop_reason_has_its_finish() {
    let table = [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("guardrail_intervened", FinishReason::ContentFilter),
        ("content_filtered", FinishReason::ContentFilter),
        ("something_new", FinishReason::Other("something_new".to_owned())),
    ];
    for (reason, wanted) in table {
        let events = stream(&[
            ("messageStart", r#"{"role":"assistant"}"#),
            ("messageStop", &format!(r#"{{"stopReason":"{reason}"}}"#)),
        ]);
        assert_eq!(finish(&events).reason, wanted);
        assert_eq!(finish(&events).raw.as_deref(), Some(reason));
        let body = format!(r#"{{"output":{{"message":{{"role":"assistant","content":[]}}}},"stopReason":"{reason}"}}"#);
        assert_eq!(finish(&whole(&body)).reason, wanted);
    }
}

#[test]
fn a_malformed_turn_of_the_model_is_a_failure_worth_another_try() {
    for (name, reason) in [
        ("stream-malformed-tool.bin", "malformed_tool_use"),
        ("stream-malformed-output.bin", "malformed_model_output"),
        ("whole-malformed-tool.json", "malformed_tool_use"),
    ] {
        let events = fixture(name);
        let error = failure(&events);
        assert_eq!(error.kind, ErrorKind::MalformedResponse, "{name}");
        assert_eq!(error.code.as_deref(), Some(reason));
        assert_eq!(error.retry, Retry::SameTarget(None));
        assert!(usage(&events).output_tokens.is_some(), "{name}: what was spent is still told");
    }
}

#[test]
fn the_stop_sequence_is_told_where_the_backend_tells_it() {
    let events = fixture("stream-stop-sequence.bin");
    assert_eq!(finish(&events).stop_sequence.as_deref(), Some("###"));
    assert!(others(&events).contains(&r####"{"additionalModelResponseFields":{"stop_sequence":"###"}}"####));
}

#[test]
fn what_the_contract_does_not_name_comes_as_other_events_and_padding_does_not() {
    let events = fixture("stream-unknown.bin");
    let others = others(&events);
    for wanted in [
        r#"{"moodChange":{"mood":"bright"}}"#,
        r#"{"tint":"red"}"#,
        r#"{"contentBlockDelta":{"weight":2}}"#,
        r#"{"metrics":{"latencyMs":412}}"#,
    ] {
        assert!(others.contains(&wanted), "{wanted} in {others:?}");
    }
    assert_eq!(finish(&events).reason, FinishReason::Other("model_took_a_nap".to_owned()));
    for name in metas().keys() {
        for event in fixture(name) {
            assert!(!matches!(&event, Event::Other(other) if other.members.contains("\"p\":")), "{name}: {event:?}");
        }
    }
    let whole = fixture("whole-unknown.json");
    let hologram = |event: &Event| matches!(event, Event::BlockStart(start) if start.kind == BlockKind::Other(DialectJson::new("bedrock-converse", r#"{"hologram":{"format":"cube"}}"#)));
    assert!(whole.iter().any(hologram));
    assert_eq!(text(&whole), "See above.");
}

#[test]
fn a_tool_that_the_service_runs_itself_is_no_call_for_the_client() {
    let events = fixture("stream-server-tool.bin");
    assert!(calls(&events).is_empty());
    assert_eq!(text(&events), "Blue.");
    assert!(others(&events).contains(&r#"{"toolUse":{"input":"{\"q\":\"sky\"}"}}"#));
}

#[test]
fn text_inside_of_citations_is_text() {
    for name in ["stream-citations.bin", "whole-citations.json"] {
        let events = fixture(name);
        assert_eq!(text(&events), "The sky is blue.", "{name}");
        assert!(others(&events).iter().any(|members| members.contains("Sky")), "{name}");
    }
}

#[test]
fn the_answer_has_no_id_and_no_time_of_its_own() {
    for name in ["stream-text.bin", "whole-text.json"] {
        let Some(Event::Started(started)) = fixture(name).into_iter().next() else { panic!("{name}") };
        assert_eq!((started.id, started.created), (None, None));
    }
}

#[test]
fn an_answer_with_status_200_and_no_event_is_malformed() {
    let events = fixture("stream-empty.bin");
    assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse);
    assert_eq!(events.len(), 1);
    assert_eq!(failure(&whole("")).kind, ErrorKind::MalformedResponse);
}

#[test]
fn a_stream_that_ends_before_its_finish_is_malformed_wherever_it_ends() {
    let error = failure(&fixture("stream-truncated.bin")).clone();
    assert_eq!(error.kind, ErrorKind::MalformedResponse);
    assert!(error.message.contains("messageStop"), "{}", error.message);

    // Cut behind every message of a good stream: only behind messageStop it is complete.
    let messages = frames("stream-tool.bin");
    let stop = messages.iter().position(|message| header(message, ":event-type") == "messageStop").unwrap();
    for cut in 0..messages.len() {
        let events = feed(messages[..cut].iter().cloned().map(Frame::Message).collect());
        match cut > stop {
            true => assert_eq!(finish(&events).reason, FinishReason::ToolCalls),
            false => assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse, "{cut}"),
        }
    }
}

#[test]
fn exceptions_have_the_status_and_the_advice_of_the_table() {
    use ErrorKind as Kind;
    const AGAIN: Retry = Retry::SameTarget(None);
    let table = [
        ("stream-throttled-first.bin", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("stream-throttled-later.bin", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("stream-model-error-429.bin", "ModelStreamErrorException", Kind::RateLimited, 424, AGAIN),
        ("stream-model-error-400.bin", "ModelStreamErrorException", Kind::InvalidRequest, 424, Retry::Never),
        ("stream-internal.bin", "InternalServerException", Kind::UpstreamFailure, 500, AGAIN),
        ("stream-unavailable.bin", "ServiceUnavailableException", Kind::Overloaded, 503, AGAIN),
        ("stream-context.bin", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("stream-error.bin", "InternalFailure", Kind::UpstreamFailure, 500, AGAIN),
        ("error-throttled.json", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("error-throttled-day.json", "ThrottlingException", Kind::RateLimited, 429, Retry::OtherTarget),
        ("error-not-ready.json", "ModelNotReadyException", Kind::Overloaded, 429, AGAIN),
        ("error-timeout.json", "ModelTimeoutException", Kind::Timeout, 408, AGAIN),
        ("error-model-503.json", "ModelErrorException", Kind::Overloaded, 424, AGAIN),
        ("error-model-400.json", "ModelErrorException", Kind::InvalidRequest, 424, Retry::Never),
        ("error-model.json", "ModelErrorException", Kind::UpstreamFailure, 424, AGAIN),
        ("error-internal.json", "InternalServerException", Kind::UpstreamFailure, 500, AGAIN),
        ("error-unavailable.json", "ServiceUnavailableException", Kind::Overloaded, 503, AGAIN),
        ("error-validation.json", "ValidationException", Kind::InvalidRequest, 400, Retry::Never),
        ("error-context-0.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("error-context-1.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("error-context-2.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("error-context-3.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("error-context-4.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("error-quota.json", "ServiceQuotaExceededException", Kind::QuotaExhausted, 400, Retry::OtherTarget),
        ("error-conflict.json", "ConflictException", Kind::InvalidRequest, 400, Retry::Never),
        ("error-denied.json", "AccessDeniedException", Kind::Forbidden, 403, Retry::OtherTarget),
        ("error-expired.json", "AccessDeniedException", Kind::Unauthenticated, 403, Retry::OtherTarget),
        ("error-signature.json", "UnrecognizedClientException", Kind::Unauthenticated, 403, Retry::OtherTarget),
        ("error-not-found.json", "ResourceNotFoundException", Kind::NotFound, 404, Retry::OtherTarget),
        ("error-in-body.json", "ValidationException", Kind::InvalidRequest, 400, Retry::Never),
    ];
    for (name, code, kind, status, retry) in table {
        let events = fixture(name);
        let error = failure(&events);
        assert_eq!(error.code.as_deref(), Some(code), "{name}");
        assert_eq!((&error.kind, error.status, &error.retry), (&kind, Some(status), &retry), "{name}");
        assert!(error.message.contains("(AWS request id 7d5b1a0e-"), "{name}: {}", error.message);
    }
}

#[test]
fn an_exception_says_what_the_model_said() {
    let events = fixture("stream-model-error-429.bin");
    let error = failure(&events);
    assert!(error.message.starts_with("The model returned an error. (slow down)"), "{}", error.message);
    assert!(error.raw.as_deref().unwrap().contains("\"originalStatusCode\":429"));
    assert!(failure(&fixture("stream-error.bin")).message.starts_with("The stream broke."));
    assert!(failure(&fixture("error-denied.json")).message.starts_with("You don't have access"));
}

#[test]
fn an_exception_before_the_first_event_leaves_room_for_a_fallback() {
    assert!(!fixture("stream-throttled-first.bin").iter().any(Event::is_content));
    assert!(!fixture("stream-context.bin").iter().any(Event::is_content));
}

#[test]
fn error_bodies_that_are_not_bedrocks_are_told_by_their_status() {
    let events = fixture("error-html.json");
    assert_eq!(failure(&events).kind, ErrorKind::UpstreamFailure);
    assert!(failure(&events).message.contains("Bad Gateway"));
    let events = fixture("error-empty.json");
    assert_eq!((&failure(&events).kind, failure(&events).status), (&ErrorKind::Overloaded, Some(503)));
    let events = fixture("error-200.json");
    assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse);
    assert!(failure(&events).message.contains("Boom."));
}

#[test]
fn a_whole_answer_to_a_streaming_request_is_taken_as_it_is() {
    let body = body("whole-tools.json");
    let head = ResponseHead { stream: true, ..head(&metas()["whole-tools.json"]) };
    let events = events(head, None, [body.as_slice()]);
    assert_eq!(calls(&events)[0].2, r#"{"city":"Zürich","n":1}"#);
    assert_eq!(finish(&events).reason, FinishReason::ToolCalls);
}

#[test]
fn nonsense_is_malformed_and_never_a_panic() {
    let bad_payloads = [
        ("contentBlockDelta", r#"{"delta":{"text":"x"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":-1,"delta":{"text":"x"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":0,"start":{"toolUse":{"name":"x"}}}"#),
        ("messageStop", "{}"),
        ("messageStart", "[]"),
        ("messageStart", ""),
        ("messageStart", "{"),
        ("metadata", "null"),
    ];
    for (kind, payload) in bad_payloads {
        let events = stream(&[("messageStart", "{}"), (kind, payload)]);
        assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse, "{kind} {payload}");
        check_order(kind, &events);
    }
    let deep = format!(r#"{{"contentBlockIndex":0,"delta":{{"new":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    check_order("deep", &stream(&[("contentBlockDelta", &deep), ("messageStop", r#"{"stopReason":"end_turn"}"#)]));
    for body in
        ["[]", "{", "null", "{}", r#"{"output":1}"#, r#"{"output":{"message":{"content":[1]}},"stopReason":"x"}"#]
    {
        assert_eq!(failure(&whole(body)).kind, ErrorKind::MalformedResponse, "{body}");
    }
    for (kind, name) in [(":message-type", "holiday"), (":message-type", "event"), (":other", "x")] {
        let message = EventMessage { headers: vec![(kind.to_owned(), name.to_owned())], payload: b"{}".to_vec() };
        assert_eq!(failure(&feed(vec![Frame::Message(message)])).kind, ErrorKind::MalformedResponse);
    }
    assert_eq!(failure(&feed(vec![Frame::Line("{}".to_owned())])).kind, ErrorKind::MalformedResponse);
}

#[test]
fn nonsense_of_the_other_apis_is_a_failure_and_never_a_panic() {
    let tags = "<reasoning>a</reasoning>".repeat(50_000);
    let bodies = [
        "".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        r#"{"generation":7,"stop_reason":{}}"#.to_owned(),
        r#"{"generation":null,"stop_reason":null}"#.to_owned(),
        r#"{"type":"message_delta"}"#.to_owned(),
        r#"{"type":"message_start","message":7}"#.to_owned(),
        r#"{"choices":[{"delta":{"content":7}}]}"#.to_owned(),
        r#"{"embedding":{"float":1},"embeddings":{"float":[1]}}"#.to_owned(),
        r#"{"embedding":[],"inputTokens":-1,"amazon-bedrock-invocationMetrics":[]}"#.to_owned(),
        r#"{"inputTokens":"many"}"#.to_owned(),
        format!(r#"{{"choices":[{{"message":{{"content":"{tags}"}},"finish_reason":"stop"}}]}}"#),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
    ];
    for codec in ["claude", "llama", "openai", "titan", "cohere", "count-tokens"] {
        let context = Some(format!(r#"{{"codec":"{codec}"}}"#));
        for body in &bodies {
            let encoded = base64::engine::general_purpose::STANDARD.encode(body);
            let payload = format!(r#"{{"bytes":"{encoded}"}}"#);
            let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let headers = vec![header(":message-type", "event"), header(":event-type", "chunk")];
            let frames = [
                (Framing::AwsEventstream, Frame::Message(EventMessage { headers, payload: payload.into_bytes() })),
                (Framing::Sse, Frame::Sse(SseEvent { event: None, data: body.clone(), id: None })),
                (Framing::Whole, Frame::Bytes(body.clone().into_bytes())),
            ];
            for (framing, frame) in frames {
                for status in [200, 503] {
                    let head = ResponseHead { status, headers: Vec::new(), framing: framing.clone(), stream: true };
                    let mut decoder = Bedrock::decoder("{}", context.clone(), head);
                    let mut events = decoder.feed(vec![frame.clone()]);
                    assert!(events.len() <= 4096);
                    if !events.last().is_some_and(Event::is_last) {
                        events.append(&mut decoder.finish());
                    }
                    let name = format!("{codec} {framing:?} {status} {}", body.chars().take(80).collect::<String>());
                    check_order(&name, &events);
                    let good = body.len() > 1_000_000 && codec == "openai" && framing != Framing::AwsEventstream;
                    assert!(
                        good && status == 200 || matches!(events.last(), Some(Event::Failed(_))),
                        "{name}: {events:?}"
                    );
                }
            }
        }
    }
    for context in [r#"{"codec":"x"}"#, "7", "{\"calls\":-1}"] {
        let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Whole, stream: false };
        assert!(failure(&events(head, Some(context.to_owned()), [b"{}".as_slice()])).message.contains("context"));
    }
}

#[test]
fn too_many_blocks_are_refused() {
    let blocks: Vec<_> = (0..2000).map(|n| format!(r#"{{"contentBlockIndex":{n},"delta":{{"text":"x"}}}}"#)).collect();
    let messages: Vec<_> = blocks.iter().map(|block| ("contentBlockDelta", block.as_str())).collect();
    let events = stream(&messages);
    assert!(failure(&events).message.contains("1024 blocks"));
    let body = format!(
        r#"{{"output":{{"message":{{"content":[{}]}}}},"stopReason":"end_turn"}}"#,
        vec![r#"{"text":"x"}"#; 2000].join(",")
    );
    assert!(whole(&body).len() <= 4096);
}

#[test]
fn our_binaries_are_what_awss_own_writer_makes() {
    for name in metas().keys().filter(|name| name.ends_with(".bin")) {
        let mut written = Vec::new();
        for message in frames(name) {
            // Only headers of text: the one fixture with others is read by botocore, see make.py.
            if message.headers.iter().any(|(header, _)| matches!(header.as_str(), "count" | "flag" | "blob")) {
                written.clear();
                break;
            }
            let headers =
                message.headers.into_iter().map(|(name, value)| Header::new(name, HeaderValue::String(value.into())));
            write_message_to(&Message::new_from_parts(headers.collect(), message.payload), &mut written).unwrap();
        }
        if !written.is_empty() {
            assert_eq!(written, body(name), "{name}");
        }
    }
}

// --- InvokeModel ---

#[test]
fn llamas_answers_come_in_chunks_and_end_with_their_metrics() {
    for name in
        ["llama-stream-text.bin", "llama-stream-no-metrics.bin", "llama-stream-metrics-later.bin", "llama-whole.json"]
    {
        let events = fixture(name);
        assert_eq!(text(&events), "Hello!", "{name}");
        assert_eq!(finish(&events).reason, FinishReason::Stop, "{name}");
        assert_eq!(finish(&events).raw.as_deref(), Some("stop"));
        assert_eq!(
            (common::usage(&events).input_tokens, common::usage(&events).output_tokens),
            (Some(12), Some(5)),
            "{name}"
        );
    }
    let metrics = common::usage(&fixture("llama-stream-text.bin")).raw.unwrap();
    assert_eq!(metrics.dialect, "bedrock-llama");
    assert!(metrics.value.contains("\"firstByteLatency\":120"));
    let events = fixture("llama-stream-characters.bin");
    assert_eq!(text(&events), "Grüße, 世界 🦀\n\"quoted\" \\ end");
    assert_eq!(finish(&events).reason, FinishReason::Length);
}

#[test]
fn counts_in_headers_stand_in_for_those_that_a_body_lacks() {
    for name in ["llama-whole-headers.json", "claude-whole-headers.json"] {
        let events = fixture(name);
        assert_eq!(
            (common::usage(&events).input_tokens, common::usage(&events).output_tokens),
            (Some(12), Some(5)),
            "{name}"
        );
        assert_eq!(common::usage(&events).raw, None);
    }
    let events = fixture("claude-whole.json");
    assert_eq!((common::usage(&events).input_tokens, common::usage(&events).output_tokens), (Some(110), Some(7)));
}

#[test]
fn what_a_guardrail_stopped_is_filtered_content_whatever_the_model_says() {
    for name in ["llama-stream-guardrail.bin", "claude-stream-guardrail.bin", "claude-whole-guardrail.json"] {
        let events = fixture(name);
        assert_eq!(finish(&events).reason, FinishReason::ContentFilter, "{name}");
        assert!(others(&events).iter().any(|members| members.contains("INTERVENED")), "{name}");
    }
}

#[test]
fn what_a_broken_answer_has_cost_is_told() {
    for name in ["llama-stream-truncated.bin", "llama-stream-timeout.bin"] {
        let said = common::usage(&fixture(name));
        assert_eq!((said.input_tokens, said.output_tokens), (Some(12), Some(3)), "{name}");
    }
}

#[test]
fn an_unknown_reason_of_a_llama_keeps_its_text() {
    let events = fixture("llama-stream-unknown.bin");
    assert_eq!(finish(&events).reason, FinishReason::Other("tired".to_owned()));
    assert!(others(&events).contains(&r#"{"mood":"bright"}"#));
}

#[test]
fn failures_of_invoked_models_have_the_status_and_the_advice_of_the_table() {
    use ErrorKind as Kind;
    const AGAIN: Retry = Retry::SameTarget(None);
    let table = [
        ("llama-stream-throttled.bin", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("llama-stream-timeout.bin", "ModelTimeoutException", Kind::Timeout, 408, AGAIN),
        ("llama-stream-model-error.bin", "ModelStreamErrorException", Kind::Overloaded, 424, AGAIN),
        ("llama-error.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("claude-stream-throttled.bin", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("claude-error-context.json", "ValidationException", Kind::ContextLength, 400, Retry::OtherTarget),
        ("claude-error-throttled.json", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("titan-error.json", "ValidationException", Kind::InvalidRequest, 400, Retry::Never),
        ("count-tokens-error.json", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
        ("openai-error-aws.json", "AccessDeniedException", Kind::Unauthenticated, 403, Retry::OtherTarget),
        ("openai-error-throttled.json", "ThrottlingException", Kind::RateLimited, 429, AGAIN),
    ];
    for (name, code, kind, status, retry) in table {
        let events = fixture(name);
        let error = failure(&events);
        assert_eq!(error.code.as_deref(), Some(code), "{name}");
        assert_eq!((&error.kind, error.status, &error.retry), (&kind, Some(status), &retry), "{name}");
        assert!(error.message.contains("(AWS request id 7d5b1a0e-"), "{name}: {}", error.message);
    }
    // Told by the model's own API.
    assert_eq!(failure(&fixture("claude-stream-overloaded.bin")).kind, Kind::Overloaded);
    assert_eq!(failure(&fixture("openai-error.json")).param.as_deref(), Some("logit_bias"));
    assert_eq!(failure(&fixture("openai-error-context.json")).kind, Kind::ContextLength);
    assert_eq!(failure(&fixture("openai-stream-error.sse")).kind, Kind::RateLimited);
}

#[test]
fn what_is_no_answer_of_an_invoked_model_is_malformed() {
    for name in [
        "llama-stream-truncated.bin",
        "llama-stream-empty.bin",
        "llama-stream-nonsense.bin",
        "llama-stream-no-base64.bin",
        "llama-whole-none.json",
        "claude-stream-truncated.bin",
        "claude-stream-empty.bin",
        "titan-none.json",
        "openai-stream-truncated.sse",
    ] {
        assert_eq!(failure(&fixture(name)).kind, ErrorKind::MalformedResponse, "{name}");
    }
}

#[test]
fn an_error_under_a_good_status_keeps_the_words_of_aws() {
    let head = ResponseHead {
        status: 200,
        headers: vec![("x-amzn-requestid".to_owned(), "7d5b1a0e".to_owned())],
        framing: Framing::Whole,
        stream: false,
    };
    for codec in ["claude", "llama", "openai", "titan"] {
        for body in [r#"{"message":"Too many tokens, wait."}"#, r#"{"Message":"Too many tokens, wait."}"#] {
            let context = Some(format!(r#"{{"codec":"{codec}"}}"#));
            let told = events(head.clone(), context, [body.as_bytes()]);
            let error = failure(&told);
            assert_eq!(error.kind, ErrorKind::MalformedResponse, "{codec}");
            assert!(error.message.contains("Too many tokens, wait. (AWS request id 7d5b1a0e)"), "{codec}: {error:?}");
        }
        // By its name it is known.
        let context = Some(format!(r#"{{"codec":"{codec}"}}"#));
        let body = r#"{"__type":"com.amazon#ThrottlingException","message":"Slow down."}"#;
        let told = events(head.clone(), context, [body.as_bytes()]);
        assert_eq!(failure(&told).kind, ErrorKind::RateLimited, "{codec}");
    }
}

#[test]
fn claudes_events_come_in_chunks() {
    let events = fixture("claude-stream-text.bin");
    assert_eq!(text(&events), "Hello!");
    assert_eq!(finish(&events).raw.as_deref(), Some("end_turn"));
    assert!(others(&events).iter().any(|members| members.contains("amazon-bedrock-invocationMetrics")));
    let said = common::usage(&events);
    assert_eq!((said.input_tokens, said.output_tokens), (Some(110), Some(7)));
    assert_eq!((said.cache_read_tokens, said.cache_write_tokens), (Some(80), Some(20)));
    assert_eq!(finish(&fixture("claude-stream-stop.bin")).stop_sequence.as_deref(), Some("###"));
}

#[test]
fn claudes_tools_and_thoughts_come_through_with_mapped_names_mapped_back() {
    let events = fixture("claude-stream-tools.bin");
    assert_eq!(common::thought(&events), "Let me think.");
    let wanted = [
        ("toolu_bdrk_a".to_owned(), "weather.get/v2".to_owned(), "{\"city\":\"Zürich\"}".to_owned()),
        ("toolu_bdrk_b".to_owned(), "now".to_owned(), String::new()),
    ];
    assert_eq!(calls(&events), wanted);
    assert_eq!(finish(&events).reason, FinishReason::ToolCalls);
    assert_eq!(calls(&fixture("claude-whole-tools.json"))[0].1, "weather.get/v2");
}

// --- vectors, counts ---

#[test]
fn vectors_come_as_the_models_write_them() {
    let vectors = |events: &[Event]| -> Vec<(u32, Vector)> {
        let of = |event: &Event| match event {
            Event::Embedding(embedding) => Some((embedding.index, embedding.values.clone())),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    };
    let numbers = |text: &str| Vector::Numbers(text.to_owned());
    for (name, wanted, tokens) in [
        ("titan-1.json", vec![(0, numbers("[0.25,-0.0015]"))], 4),
        ("titan-2.json", vec![(0, numbers("[0.25,-0.5]"))], 4),
        ("cohere-types.json", vec![(0, numbers("[0.25,1]")), (1, numbers("[-0.5,2]"))], 6),
        ("cohere-floats.json", vec![(0, numbers("[0.25,1]"))], 3),
    ] {
        let events = fixture(name);
        assert_eq!(vectors(&events), wanted, "{name}");
        assert_eq!(usage(&events).input_tokens, Some(tokens), "{name}");
    }
}

#[test]
fn a_count_is_the_input_of_the_usage() {
    assert_eq!(usage(&fixture("count-tokens.json")).input_tokens, Some(42));
}

// --- the OpenAI-compatible endpoint ---

#[test]
fn reasoning_inside_of_the_content_is_lifted_out() {
    for (name, thought, said) in [
        ("openai-stream-reasoning.sse", "The user says <hi>.", "Hello! <reasoning>"),
        ("openai-stream-reasonings.sse", "The user", "Hi"),
        ("openai-stream-unclosed.sse", "So</", ""),
        ("openai-stream-tag.sse", "", "<reas"),
        ("openai-whole-reasoning.json", "The user says hi.", "Hello!"),
    ] {
        let events = fixture(name);
        assert_eq!((common::thought(&events).as_str(), text(&events).as_str()), (thought, said), "{name}");
        assert_eq!((usage(&events).input_tokens, usage(&events).output_tokens), (Some(70), Some(30)), "{name}");
    }
}

#[test]
fn ids_of_tool_calls_that_repeat_each_turn_are_replaced_by_unique_ones() {
    let first = calls(&fixture("openai-stream-tools.sse"));
    let later = calls(&fixture("openai-stream-tools-later.sse"));
    for calls in [&first, &later] {
        assert_eq!(calls[0].1, "get_weather");
        assert_eq!(calls[0].2, "{\"city\":\"Zürich\"}");
        assert_eq!((calls[1].1.as_str(), calls[1].2.as_str()), ("now", "{}"));
    }
    let whole = calls(&fixture("openai-whole-tools.json"));
    assert_eq!(whole[1].0, "chatcmpl-tool-4f1c9d0a2b");
    // Even of two answers of one id: there are more calls before the later.
    assert_ne!(first[0].0, first[1].0);
    assert_ne!(first[0].0, later[0].0);
    for id in [&first[0].0, &first[1].0, &later[0].0, &whole[0].0] {
        assert!(id.starts_with("call_") && id.len() == 21, "{id}");
    }
}

fn header<'a>(message: &'a EventMessage, name: &str) -> &'a str {
    message.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

fn frames(name: &str) -> Vec<EventMessage> {
    let mut framer = Framer::new(&Framing::AwsEventstream, Limits::default()).unwrap();
    let mut frames = Vec::new();
    framer.push(&body(name), &mut frames).unwrap();
    framer.finish(&mut frames).unwrap();
    frames
        .into_iter()
        .map(|frame| if let Frame::Message(message) = frame { message } else { panic!("{frame:?}") })
        .collect()
}

/// The events of frames that all come at once.
fn feed(frames: Vec<Frame>) -> Vec<Event> {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::AwsEventstream, stream: true };
    let mut decoder = Bedrock::decoder("{}", None, head);
    let mut events = if frames.is_empty() { Vec::new() } else { decoder.feed(frames) };
    if !events.last().is_some_and(Event::is_last) {
        events.append(&mut decoder.finish());
    }
    events
}

/// The events of a stream of these types and payloads.
fn stream(messages: &[(&str, &str)]) -> Vec<Event> {
    let message = |(kind, payload): &(&str, &str)| {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![header(":message-type", "event"), header(":event-type", kind)];
        Frame::Message(EventMessage { headers, payload: payload.as_bytes().to_vec() })
    };
    feed(messages.iter().map(message).collect())
}

/// The events of a whole answer with status 200.
fn whole(body: &str) -> Vec<Event> {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Whole, stream: false };
    events(head, None, [body.as_bytes()])
}
