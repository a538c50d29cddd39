//! Any answer, cut into frames, through each adapter's decoder: no panic, events in the contract's order, exactly one
//! last event, and the same events however the network cuts the answer. What comes out is rendered in each dialect.
//!
//! The first byte picks the adapter (two bits), what kind of answer it is (two bits), whether a stream was asked for,
//! what `encode` had left in the context, and how a Bedrock stream is made of the input (two bits). The second picks
//! the status, or the framing. The rest is the answer's body.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::{LlamaCpp, OpenAi, Stub};
use witgate_dialects::{Renderer, parse};
use witgate_framing::{FramingError, Limits, effective};
use witgate_fuzz::order::Order;
use witgate_fuzz::{cut, pieces, with_checksums, written};
use witgate_model::normaliser::{AnswerStart, Failure};
use witgate_model::{Adapter, Decoder, Event, Framing, ResponseHead};

const STATUSES: [u16; 16] = [400, 401, 403, 404, 408, 413, 422, 424, 429, 500, 501, 502, 503, 504, 529, 302];

/// The contract's bound.
const EVENTS_PER_FRAME: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let [choice, second, body @ ..] = input else { return };
    let is_bedrock = choice & 3 == 3;
    let streamed = if is_bedrock { Framing::AwsEventstream } else { Framing::Sse };
    let (status, framing) = match choice >> 2 & 3 {
        0 => (200, streamed),
        1 => (200, Framing::Whole),
        2 => (STATUSES[usize::from(second & 15)], Framing::Whole),
        // No gateway gives these to these adapters; they must not fall over nevertheless.
        _ => (
            200,
            [Framing::Raw, Framing::Ndjson, Framing::Sse, Framing::AwsEventstream][usize::from(second & 3)].clone(),
        ),
    };
    let body = match choice >> 6 {
        _ if framing != Framing::AwsEventstream => body.to_vec(),
        0 => body.to_vec(),
        1 => with_checksums(body),
        _ => written(body),
    };
    let mut headers = vec![("content-type".to_owned(), content_type(&framing, status).to_owned())];
    if second & 16 != 0 {
        headers.push(("retry-after".to_owned(), "2".to_owned()));
        headers.push(("x-amzn-errortype".to_owned(), "ThrottlingException:http://internal.amazon.com/".to_owned()));
    }
    if second & 32 != 0 {
        headers.push(("retry-after-ms".to_owned(), "-1".to_owned()));
        headers.push(("x-amzn-requestid".to_owned(), "0b1f".to_owned()));
    }
    let context = match (choice & 32 != 0, is_bedrock) {
        (false, _) => None,
        (true, false) => Some(["completion", "chat 2", "completion 3", "\u{0} x"][usize::from(second >> 6)].to_owned()),
        (true, true) => {
            Some([r#"{"tools":{"get_weather":"get weather"}}"#, "{}", "[]", ""][usize::from(second >> 6)].to_owned())
        }
    };
    let head = ResponseHead { status, headers, framing, stream: choice & 16 != 0 };

    let run = match choice & 3 {
        0 => answer::<OpenAi>,
        1 => answer::<LlamaCpp>,
        2 => answer::<Stub>,
        _ => answer::<Bedrock>,
    };
    let (events, error) = run(&head, &context, vec![&body]);
    for pieces in [pieces(&body), body.chunks(1).collect()] {
        let other = run(&head, &context, pieces);
        assert_eq!(other.1, error, "the framing error depends on the cut");
        assert!(other.0 == events, "the events depend on the cut:\n{:?}\n{events:?}", other.0);
    }
    for start in STARTS.iter() {
        render(start, &events);
    }
});

fn content_type(framing: &Framing, status: u16) -> &'static str {
    let content_type = match framing {
        _ if status != 200 => "application/json",
        Framing::Sse => "text/event-stream; charset=utf-8",
        Framing::Ndjson => "application/x-ndjson",
        Framing::AwsEventstream => "application/vnd.amazon.eventstream",
        _ => "application/json",
    };
    assert_eq!(effective(framing, status, Some(content_type)), *framing);
    content_type
}

/// All events of one answer, and why it could not be cut any further. The calls are those that a gateway makes.
fn answer<A: Adapter>(
    head: &ResponseHead,
    context: &Option<String>,
    pieces: Vec<&[u8]>,
) -> (Vec<Event>, Option<FramingError>) {
    let mut decoder = A::decoder("{}", context.clone(), head.clone());
    let mut order = Order::default();
    let mut events = Vec::new();
    let cut = cut(&head.framing, Limits::default(), pieces);
    for frames in cut.batches {
        if frames.is_empty() {
            continue;
        }
        let bound = frames.len() * EVENTS_PER_FRAME;
        let more = decoder.feed(frames);
        assert!(more.len() <= bound, "{} events from at most {bound}", more.len());
        more.iter().for_each(|event| order.next(event));
        events.extend(more);
        if order.ended() {
            // What comes behind is of no interest to a gateway, and neither is how it was cut.
            return (events, None);
        }
    }
    if cut.error.is_none() {
        let more = decoder.finish();
        more.iter().for_each(|event| order.next(event));
        events.extend(more);
        assert!(order.ended(), "no last event: {events:?}");
    }
    (events, cut.error)
}

/// What a renderer of each dialect, streamed and not, is told at the start.
static STARTS: LazyLock<Vec<(String, bool, AnswerStart)>> = LazyLock::new(|| {
    let requests = [
        ("openai-chat", "/v1/chat/completions", r#""messages":[{"role":"user","content":"Hello"}]"#),
        ("openai-completions", "/v1/completions", r#""prompt":"Hello""#),
    ];
    let mut starts = Vec::new();
    for (dialect, path, members) in requests {
        for stream in [false, true] {
            let body =
                format!(r#"{{"model":"m","stream":{stream},"stream_options":{{"include_usage":true}},{members}}}"#);
            let parsed = parse(dialect, path, &witgate_dialects::default_limits(), body.as_bytes());
            let render = parsed.expect("a good request").render;
            let start = AnswerStart { render, id: "1".to_owned(), created: 0, model: "m".to_owned() };
            starts.push((dialect.to_owned(), stream, start));
        }
    }
    let start = AnswerStart { id: "1".to_owned(), model: "m".to_owned(), ..AnswerStart::default() };
    starts.push(("awa-llm".to_owned(), false, start));
    starts
});

/// What a client gets of these events: valid UTF-8, and where it is not streamed, one JSON document or nothing.
fn render((dialect, stream, start): &(String, bool, AnswerStart), events: &[Event]) {
    let mut renderer = Renderer::new(dialect, start.clone());
    renderer.head();
    let mut bytes = Vec::new();
    for event in events {
        match event {
            Event::Failed(error) => {
                let failure = Failure {
                    error: error.clone(),
                    error_type: "upstream_error".to_owned(),
                    provider: Some("p".to_owned()),
                    request_id: "r".to_owned(),
                    upstream: None,
                    attempts: Vec::new(),
                };
                bytes.extend(renderer.fail(&failure));
            }
            event => bytes.extend(renderer.feed(vec![event.clone()])),
        }
    }
    let text = str::from_utf8(&bytes).expect("UTF-8");
    if *stream {
        let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").for_each(witgate_fuzz::order::object);
    } else if !text.is_empty() {
        witgate_fuzz::order::object(text);
    }
}
