//! Answers of SageMaker endpoints, through the framing and the decoder, as the gateway drives them.
//!
//! The fixtures are in `tests/fixtures/upstream/sagemaker`: the README there says how each was made.

mod common;

use common::{Answer, answers, calls, check_order, events, every_cut, failure, finishes, lines, text, thought, usage};
use proptest::prelude::*;
use witgate_adapters::sagemaker::SageMaker;
use witgate_model::{
    Adapter, Decoder, EmbeddingInput, EmbeddingText, Error, ErrorKind, Event, EventMessage, FinishReason, Frame,
    Framing, Input, Request, ResponseHead, Retry,
};

const AGAIN: Retry = Retry::SameTarget(None);

fn all() -> Vec<Answer> {
    let answers = answers("sagemaker", &Framing::AwsEventstream);
    assert!(answers.len() > 80, "{}", answers.len());
    answers
}

fn fixture(name: &str) -> Answer {
    all().into_iter().find(|answer| answer.name == name).unwrap_or_else(|| panic!("no fixture {name}"))
}

fn given(name: &str) -> Vec<Event> {
    let answer = fixture(name);
    let events = events::<SageMaker>(&answer, &[]);
    check_order(name, &events);
    events
}

fn failed(name: &str) -> Error {
    failure(&given(name))
}

/// The events of a container's stream whose bytes come in these parts.
fn parts<'a>(context: &str, content_type: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let head = ResponseHead {
        status: 200,
        headers: vec![("x-amzn-sagemaker-content-type".into(), content_type.into())],
        framing: Framing::AwsEventstream,
        stream: true,
    };
    let mut decoder = SageMaker::decoder("{}", Some(context.to_owned()), head);
    let mut events = Vec::new();
    for part in parts {
        let headers = vec![(":message-type".into(), "event".into()), (":event-type".into(), "PayloadPart".into())];
        let message = EventMessage { headers, payload: part.to_vec() };
        events.append(&mut decoder.feed(vec![Frame::Message(message)]));
        if events.last().is_some_and(Event::is_last) {
            return events;
        }
    }
    events.append(&mut decoder.finish());
    events
}

/// What the container sent, out of the parts of a fixture.
fn inside(answer: &Answer) -> Vec<u8> {
    let mut framer = witgate_framing::Framer::new(&Framing::AwsEventstream, Default::default()).unwrap();
    let mut frames = Vec::new();
    framer.push(&answer.body, &mut frames).unwrap();
    let payload = |frame: Frame| match frame {
        Frame::Message(message) if message.headers.iter().any(|(_, value)| value == "PayloadPart") => message.payload,
        _ => Vec::new(),
    };
    frames.into_iter().flat_map(payload).collect()
}

const SHAPE: &str = r#"{"shape":{},"words":4}"#;
const INPUTS: &str = r####"{"words":4,"most":20,"stop":["###"]}"####;

fn sse(events: impl IntoIterator<Item = String>) -> Vec<u8> {
    events.into_iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
}

#[test]
fn every_answer_gives_the_events_of_its_snapshot() {
    for answer in all() {
        let events = events::<SageMaker>(&answer, &[]);
        check_order(&answer.name, &events);
        insta::assert_snapshot!(answer.name, lines(&events));
    }
}

#[test]
fn an_answer_that_the_network_cut_anywhere_gives_the_same_events() {
    for answer in all() {
        every_cut::<SageMaker>(&answer);
    }
}

#[test]
fn a_part_cut_anywhere_gives_the_same_events() {
    for answer in all().into_iter().filter(|answer| answer.head.framing == Framing::AwsEventstream) {
        let bytes = inside(&answer);
        let content_type = answer.head.headers.iter().find(|(name, _)| name == "x-amzn-sagemaker-content-type");
        let content_type = content_type.map(|(_, value)| value.as_str()).unwrap_or_default();
        let context = answer.context.as_deref().unwrap();
        let wanted = parts(context, content_type, [bytes.as_slice()]);
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(parts(context, content_type, [left, right]), wanted, "{} cut at {at}", answer.name);
        }
        assert_eq!(parts(context, content_type, bytes.chunks(1)), wanted, "{} byte by byte", answer.name);
    }
}

#[test]
fn the_same_stream_in_other_parts_is_the_same_answer() {
    let one = given("vllm-chat-one-part.bin");
    assert_eq!(text(&one), "Grüße, 世界 🦀!\n");
    for name in ["vllm-chat.bin", "vllm-chat-odd.bin", "vllm-crlf.bin", "unknown-event.bin"] {
        assert_eq!(given(name), one, "{name}");
    }
    assert_eq!(text(&given("vllm-chat-small.bin")), "Grüße 🦀");
    assert_eq!(text(&given("tgi-tokens-small.bin")), "ü🦀");
}

#[test]
fn vllm_streams_as_openai_does() {
    let events = given("vllm-chat.bin");
    let usage = usage(&events);
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (Some(12), Some(5), false));
    assert_eq!(finishes(&events)[0].reason, FinishReason::Stop);
    let events = given("vllm-tools.bin");
    let call = |id: &str, name: &str, arguments: &str| (id.to_owned(), name.to_owned(), arguments.to_owned());
    assert_eq!(calls(&events), [call("call_a", "add", r#"{"x":1}"#), call("call_b", "now", "{}")]);
    assert_eq!(finishes(&events)[0].reason, FinishReason::ToolCalls);
    let events = given("vllm-reasoning.bin");
    assert_eq!((thought(&events).as_str(), text(&events).as_str()), ("Let me think.", "42"));
    assert_eq!(text(&given("vllm-completion.bin")), "Once upon");
    assert_eq!(text(&given("vllm-not-streamed.bin")), "Hello!");
    assert_eq!(text(&given("whole-vllm.json")), "Hello!");
    assert_eq!(calls(&given("whole-vllm-tools.json")), [call("call_a", "add", r#"{"x": 1}"#)]);
}

#[test]
fn tgi_streams_tokens_of_which_special_ones_are_no_text() {
    let events = given("tgi-tokens.bin");
    assert_eq!(text(&events), "Grüße 世界 🦀");
    assert_eq!(finishes(&events)[0].reason, FinishReason::Length);
    let counts = usage(&events);
    assert_eq!((counts.input_tokens, counts.output_tokens, counts.estimated), (Some(9), Some(5), false));
    let events = given("tgi-special.bin");
    assert_eq!(text(&events), "Hi there");
    assert_eq!(finishes(&events)[0].raw.as_deref(), Some("eos_token"));
    assert_eq!(text(&given("tgi-only-text.bin")), "Hello you");
    assert_eq!(text(&given("lmi-lines.bin")), "Hi you");
    assert_eq!(text(&given("base-not-streamed.bin")), "Hello you");
}

#[test]
fn a_stop_sequence_is_cut_off_and_named() {
    let events = given("tgi-stop.bin");
    assert_eq!(text(&events), "a # b ##x\nUse c ");
    let finish = &finishes(&events)[0];
    assert_eq!((&finish.reason, finish.stop_sequence.as_deref()), (&FinishReason::Stop, Some("###")));
    assert_eq!(finish.raw.as_deref(), Some("stop_sequence"));
    assert_eq!(text(&given("tgi-held.bin")), "a\nUser");
    let events = given("tgi-ignored-stop.bin");
    assert_eq!((text(&events).as_str(), &finishes(&events)[0].reason), ("a", &FinishReason::Stop));
    let events = given("whole-tgi-stop.json");
    assert_eq!((text(&events).as_str(), finishes(&events)[0].stop_sequence.as_deref()), ("Hello", Some("###")));
}

#[test]
fn an_answer_is_an_object_a_list_of_one_or_of_openais_shape() {
    for (name, said, reason) in [
        ("whole-tgi.json", "Hello you", FinishReason::Length),
        ("whole-tgi-list.json", "Hello you", FinishReason::Stop),
        ("whole-base.json", " Hello there you", FinishReason::Stop),
        ("whole-open.json", "Hello", FinishReason::Length),
        ("whole-to-stream.json", "Hello you", FinishReason::Stop),
        ("tgi-open.bin", "Grüße, 世界 🦀!\n", FinishReason::Stop),
    ] {
        let events = given(name);
        assert_eq!((text(&events).as_str(), &finishes(&events)[0].reason), (said, &reason), "{name}");
    }
    assert_eq!(text(&given("whole-base-empty.json")), "");
    for name in ["whole-two.json", "whole-nothing.json", "whole-number.json", "whole-not-json.json", "whole-empty.json"]
    {
        assert_eq!(failed(name).kind, ErrorKind::MalformedResponse, "{name}");
    }
}

#[test]
fn the_finish_is_length_where_as_much_was_generated_as_allowed() {
    let events = given("whole-base-length.json");
    assert_eq!(finishes(&events)[0].reason, FinishReason::Length);
    assert_eq!(finishes(&given("whole-base.json"))[0].reason, FinishReason::Stop);
}

#[test]
fn usage_that_nobody_counted_is_estimated_by_words() {
    let counts = |name: &str| {
        let usage = usage(&given(name));
        (usage.input_tokens, usage.output_tokens, usage.estimated)
    };
    assert_eq!(counts("whole-base.json"), (Some(4), Some(3), true));
    assert_eq!(counts("vllm-no-usage.bin"), (Some(4), Some(3), true));
    assert_eq!(counts("whole-vllm-no-usage.json"), (Some(4), Some(3), true));
    // The container counted its answer only.
    assert_eq!(counts("tgi-special.bin"), (Some(4), Some(3), true));
    assert_eq!(counts("whole-tgi-list.json"), (Some(4), Some(3), true));
    assert_eq!(counts("whole-tgi.json"), (Some(1), Some(20), false));
    assert_eq!(counts("whole-open.json"), (Some(4), Some(20), false));
}

#[test]
fn a_stream_and_a_whole_answer_cost_the_same() {
    for (stream, whole) in [("vllm-chat.bin", "whole-vllm.json"), ("vllm-no-usage.bin", "whole-vllm-no-usage.json")] {
        let counts = |name: &str| {
            let usage = usage(&given(name));
            (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.estimated)
        };
        assert_eq!(counts(stream), counts(whole), "{stream}");
    }
}

#[test]
fn a_member_that_nobody_knows_is_handed_on() {
    let others: Vec<_> =
        given("whole-base-more.json").into_iter().filter(|event| matches!(event, Event::Other(_))).collect();
    assert_eq!(others, [Event::other("tgi", witgate_model::Scope::Envelope, r#"{"mood":"bright"}"#)]);
}

#[test]
fn an_answer_that_ends_early_is_an_error() {
    for name in [
        "vllm-cut.bin",
        "vllm-cut-inside.bin",
        "tgi-cut.bin",
        "empty.bin",
        "blank.bin",
        "tgi-not-json.bin",
        "tgi-mixed.bin",
    ] {
        let error = failed(name);
        assert_eq!((&error.kind, &error.retry), (&ErrorKind::MalformedResponse, &Retry::OtherTarget), "{name}");
    }
    assert_eq!(text(&given("vllm-cut.bin")), "Hel");
}

#[test]
fn exceptions_in_the_stream_come_behind_the_text_before_them() {
    for (name, kind, code, status, said) in [
        ("model-stream-error-timeout.bin", ErrorKind::Timeout, "ModelStreamError", 424, "Grüße"),
        ("model-stream-error-broken.bin", ErrorKind::UpstreamFailure, "ModelStreamError", 424, ""),
        ("internal-stream-failure.bin", ErrorKind::UpstreamFailure, "InternalStreamFailure", 500, "Grüße"),
        ("error-message.bin", ErrorKind::UpstreamFailure, "InternalFailure", 500, ""),
    ] {
        let events = given(name);
        let error = failure(&events);
        assert_eq!((error.kind, error.code.as_deref(), error.status), (kind, Some(code), Some(status)), "{name}");
        assert_eq!(error.retry, AGAIN, "{name}");
        assert!(error.message.contains("7d5b1a0e"), "{name}: {}", error.message);
        assert!(text(&events).starts_with(said) || said.is_empty(), "{name}: {}", text(&events));
    }
    assert!(failed("model-stream-error-broken.bin").message.contains("(StreamBroken)"));
}

#[test]
fn a_container_that_fails_in_its_stream_is_an_error() {
    assert_eq!(failed("vllm-error.bin").message, "EngineCore encountered an issue.");
    assert_eq!(text(&given("vllm-error.bin")), "Hel");
    assert_eq!(failed("tgi-error.bin").kind, ErrorKind::Overloaded);
    assert_eq!(failed("tgi-overloaded.bin").kind, ErrorKind::Overloaded);
    assert_eq!(failed("whole-error.json").kind, ErrorKind::ContextLength);
}

#[test]
fn a_model_error_is_what_the_container_said() {
    let context = (ErrorKind::ContextLength, Retry::OtherTarget);
    for (name, (kind, retry), words) in [
        ("model-error-vllm-context.json", context.clone(), "This model's maximum context length is 4096 tokens."),
        ("model-error-vllm-length.json", context.clone(), "The decoder prompt (length 5000)"),
        ("model-error-tgi-context.json", context.clone(), "Input validation error: `inputs` tokens"),
        ("model-error-tgi-inputs.json", context.clone(), "Input validation error: `inputs` must have less"),
        ("model-error-message-only.json", context, "Input validation error: `inputs` must have less"),
        ("model-error-vllm-parameter.json", (ErrorKind::InvalidRequest, Retry::Never), "top_p must be in"),
        ("model-error-tgi-parameter.json", (ErrorKind::InvalidRequest, Retry::Never), "Input validation error: `temp"),
        ("model-error-vllm-model.json", (ErrorKind::NotFound, Retry::Never), "The model `llama` does not exist."),
        ("model-error-tgi-overloaded.json", (ErrorKind::Overloaded, AGAIN), "Model is overloaded"),
        ("model-error-toolkit.json", (ErrorKind::Overloaded, AGAIN), "CUDA out of memory."),
        ("model-error-text.json", (ErrorKind::UpstreamFailure, AGAIN), "the backend answered with status 500"),
        ("model-error-unavailable.json", (ErrorKind::Overloaded, AGAIN), "the backend answered with status 503"),
        ("model-error-busy.json", (ErrorKind::RateLimited, AGAIN), "the backend answered with status 429"),
        ("model-error-silent.json", (ErrorKind::UpstreamFailure, AGAIN), "Received server error (500)"),
        ("model-error-bare.json", (ErrorKind::UpstreamFailure, AGAIN), "The model failed."),
        ("model-error-no-header.json", (ErrorKind::Overloaded, AGAIN), "the backend answered with status 503"),
    ] {
        let error = failed(name);
        assert_eq!((error.kind, error.retry), (kind, retry), "{name}: {}", error.message);
        assert!(error.message.starts_with(words), "{name}: {}", error.message);
        assert_eq!((error.code.as_deref(), error.status), (Some("ModelError"), Some(424)), "{name}");
    }
    assert_eq!(failed("model-error-vllm-parameter.json").param.as_deref(), Some("top_p"));
}

#[test]
fn every_exception_of_the_table_has_its_meaning_and_advice() {
    for (name, kind, code, status, retry) in [
        ("not-ready.json", ErrorKind::Overloaded, "ModelNotReadyException", 429, AGAIN),
        ("internal-dependency.json", ErrorKind::UpstreamFailure, "InternalDependencyException", 530, AGAIN),
        ("unavailable.json", ErrorKind::Overloaded, "ServiceUnavailable", 503, AGAIN),
        ("internal.json", ErrorKind::UpstreamFailure, "InternalFailure", 500, AGAIN),
        ("validation.json", ErrorKind::InvalidRequest, "ValidationError", 400, Retry::Never),
        ("no-endpoint.json", ErrorKind::NotFound, "ValidationError", 400, Retry::OtherTarget),
        ("no-variant.json", ErrorKind::NotFound, "ValidationError", 400, Retry::OtherTarget),
        ("too-large.json", ErrorKind::TooLarge, "ValidationError", 400, Retry::OtherTarget),
        ("throttled.json", ErrorKind::RateLimited, "ThrottlingException", 400, AGAIN),
        ("denied.json", ErrorKind::Forbidden, "AccessDeniedException", 403, Retry::OtherTarget),
        ("expired.json", ErrorKind::Unauthenticated, "ExpiredTokenException", 403, Retry::OtherTarget),
        ("signature.json", ErrorKind::Unauthenticated, "InvalidSignatureException", 403, Retry::OtherTarget),
        ("no-name.json", ErrorKind::InvalidRequest, "ValidationError", 400, Retry::Never),
    ] {
        let error = failed(name);
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{name}");
        assert_eq!((error.status, error.retry), (Some(status), retry), "{name}");
        assert!(error.message.ends_with("(AWS request id 7d5b1a0e-3c1f-4a52-9c55-0b6f7d2f6c11)"), "{name}");
    }
    let error = failed("html.json");
    assert_eq!((error.kind, error.status), (ErrorKind::UpstreamFailure, Some(502)));
    assert!(error.message.contains("Bad Gateway"), "{}", error.message);
    let error = failed("nothing.json");
    assert_eq!((error.kind, error.status), (ErrorKind::Timeout, Some(504)));
}

#[test]
fn what_is_held_back_has_a_bound() {
    let line = vec![b'x'; 1 << 20];
    let endless = || std::iter::once(b"data: ".as_slice()).chain(std::iter::repeat_n(line.as_slice(), 6));
    for context in [SHAPE, INPUTS] {
        let error = failure(&parts(context, "text/event-stream", endless()));
        assert_eq!(error.kind, ErrorKind::MalformedResponse);
        assert!(error.message.contains("4194304"), "{}", error.message);
    }
    let brace = [b"{\"generated_text\":\"".as_slice()];
    let value = brace.into_iter().chain(std::iter::repeat_n(line.as_slice(), 40));
    let error = failure(&parts(INPUTS, "application/json", value));
    assert!(error.message.contains("33554432"), "{}", error.message);
}

#[test]
fn a_part_of_very_many_tokens_keeps_to_the_bound_on_events() {
    let token = |number: usize| format!(r#"{{"token":{{"text":" {number}"}},"generated_text":null}}"#);
    let last = r#"{"token":{"text":"."},"generated_text":"","details":{"finish_reason":"eos_token"}}"#;
    let stream = sse((0..10_000).map(token).chain([last.to_owned()]));
    let events = parts(INPUTS, "text/event-stream", [stream.as_slice()]);
    assert!(events.len() <= 4096, "{}", events.len());
    assert_eq!(text(&events).split(' ').count(), 10_001);
    let chunk = |number: usize| {
        format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":" {number}"}},"finish_reason":null}}]}}"#)
    };
    let end = r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let stream = sse((0..10_000).map(chunk).chain([end.to_owned(), "[DONE]".to_owned()]));
    let events = parts(SHAPE, "text/event-stream", [stream.as_slice()]);
    assert!(events.len() <= 4096, "{}", events.len());
    assert_eq!(usage(&events).output_tokens, Some(10_000));
}

#[test]
fn the_context_of_a_request_is_what_its_decoder_reads() {
    let mut request = Request::completion("openai-completions", "e", "one two three");
    request.sampling.stop = vec!["###".into()];
    request.sampling.max_tokens = Some(2);
    let http = SageMaker::encode(r#"{"codec":"base"}"#, request).unwrap();
    let answer = Answer {
        name: "made here".into(),
        settings: r#"{"codec":"base"}"#.into(),
        context: http.context,
        head: ResponseHead { status: 200, headers: vec![], framing: Framing::Whole, stream: false },
        body: br####"[{"generated_text":"four five###six"}]"####.to_vec(),
    };
    let events = every_cut::<SageMaker>(&answer);
    assert_eq!(text(&events), "four five");
    assert_eq!((usage(&events).input_tokens, usage(&events).output_tokens), (Some(3), Some(2)));
    assert_eq!(finishes(&events)[0].stop_sequence.as_deref(), Some("###"));
}

#[test]
fn vectors_of_a_container_are_read_as_openai_writes_them() {
    let body = br#"{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]},
        {"object":"embedding","index":1,"embedding":[2]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let input = EmbeddingInput {
        texts: ["a b", "c"].map(|text| EmbeddingText::Text(text.into())).to_vec(),
        single: false,
        dimensions: None,
        encoding: None,
    };
    let request = Request::new("openai-embeddings", "m", Input::Embedding(input));
    let http = SageMaker::encode("{}", request).unwrap();
    let head = ResponseHead { status: 200, headers: vec![], framing: http.framing, stream: false };
    let mut decoder = SageMaker::decoder("{}", http.context, head);
    let mut events = decoder.feed(vec![Frame::Bytes(body.to_vec())]);
    events.append(&mut decoder.finish());
    check_order("vectors", &events);
    let vectors = events.iter().filter(|event| matches!(event, Event::Embedding(_))).count();
    assert_eq!((vectors, usage(&events).input_tokens, events.last()), (2, Some(3), Some(&Event::Done)));
    assert!(SageMaker::describe().operations.contains(&"embedding".to_owned()));
}

#[test]
fn a_context_of_someone_else_is_an_error_of_ours() {
    let head = ResponseHead { status: 200, headers: vec![], framing: Framing::Whole, stream: false };
    let mut decoder = SageMaker::decoder("{}", Some("chat 1".into()), head);
    assert_eq!(failure(&decoder.finish()).kind, ErrorKind::Other("internal".into()));
}

const PIECES: [&[u8]; 14] = [
    b"data: ",
    b"\n\n",
    b"[DONE]",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{\"token\":{\"text\":\"#\"}}",
    b"{\"generated_text\":\"a##\"}",
    b"\xc3",
    b"\xbc",
    b"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}",
    b"{\"error\":1}",
    b" ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_decoder_panic_or_break_the_rules(
        pieces in proptest::collection::vec(
            proptest::sample::select(&PIECES[..]),
            0..24,
        ),
        inputs: bool,
        stream: bool,
    ) {
        let context = if inputs { INPUTS } else { SHAPE };
        let bytes: Vec<u8> = pieces.concat();
        let events = if stream {
            let whole = parts(context, "", [bytes.as_slice()]);
            prop_assert_eq!(&parts(context, "", pieces.iter().copied()), &whole);
            whole
        } else {
            let head = ResponseHead { status: 200, headers: vec![], framing: Framing::Whole, stream: false };
            let mut decoder = SageMaker::decoder("{}", Some(context.into()), head);
            let mut events = decoder.feed(vec![Frame::Bytes(bytes)]);
            if !events.last().is_some_and(Event::is_last) {
                events.append(&mut decoder.finish());
            }
            events
        };
        check_order("random", &events);
    }
}
