//! Any answer, cut into frames, through each adapter's decoder, for each operation and each API that the adapter has: no
//! panic, events in the contract's order, exactly one last event, and the same events however the network cuts the
//! answer. What comes out is rendered in each dialect.
//!
//! The first byte picks one of `backends.json` (six bits) and how an event stream is made of the input (two bits). The
//! second picks the status, or the framing (four bits), headers (two bits) and what kind of answer it is (two bits); the
//! third whether a stream was asked for. The rest is the answer's body.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi, Stub};
use witgate_dialects::{Renderer, parse};
use witgate_framing::{FramingError, Limits, effective};
use witgate_fuzz::order::Order;
use witgate_fuzz::{cut, pieces, with_checksums, written};
use witgate_model::normaliser::{AnswerStart, Failure};
use witgate_model::{Adapter, Decoder, Event, Framing, ResponseHead};

const STATUSES: [u16; 16] = [400, 401, 403, 404, 408, 413, 422, 424, 429, 500, 501, 502, 503, 504, 529, 302];

/// The contract's bound.
const EVENTS_PER_FRAME: usize = 4096;

/// What answers, and to what.
struct Backend {
    run: fn(&Backend, &ResponseHead, Vec<&[u8]>) -> (Vec<Event>, Option<FramingError>),
    /// The framing of its streams.
    streamed: Framing,
    /// What `encode` had left for the decoder.
    context: Option<String>,
    /// The answer is a list of vectors or models, or a count.
    list: bool,
}

static BACKENDS: LazyLock<Vec<Backend>> = LazyLock::new(|| {
    let all: Vec<Value> = serde_json::from_str(include_str!("../backends.json")).expect("JSON");
    let backend = |entry: &Value| Backend {
        run: match entry["adapter"].as_str() {
            Some("openai") => answer::<OpenAi>,
            Some("llama-cpp") => answer::<LlamaCpp>,
            Some("stub") => answer::<Stub>,
            Some("anthropic") => answer::<Anthropic>,
            Some("ollama") => answer::<Ollama>,
            Some("bedrock") => answer::<Bedrock>,
            Some("sagemaker") => answer::<SageMaker>,
            other => panic!("no adapter {other:?}"),
        },
        streamed: match entry["streamed"].as_str() {
            Some("sse") => Framing::Sse,
            Some("ndjson") => Framing::Ndjson,
            Some("aws-eventstream") => Framing::AwsEventstream,
            other => panic!("no framing {other:?}"),
        },
        context: entry["context"].as_str().map(str::to_owned),
        list: entry["operation"].as_str() == Some("list"),
    };
    let all: Vec<Backend> = all.iter().map(backend).collect();
    assert!(all.len() <= 64, "six bits pick one");
    all
});

fuzz_target!(|input: &[u8]| {
    let [first, second, third, body @ ..] = input else { return };
    let backend = &BACKENDS[usize::from(first & 63) % BACKENDS.len()];
    let (status, framing) = match second >> 6 {
        0 => (200, backend.streamed.clone()),
        1 => (200, Framing::Whole),
        2 => (STATUSES[usize::from(second & 15)], Framing::Whole),
        // No gateway gives these where others are asked for; decoders must not fall over nevertheless.
        _ => (
            200,
            [Framing::Raw, Framing::Ndjson, Framing::Sse, Framing::AwsEventstream][usize::from(second & 3)].clone(),
        ),
    };
    let body = match first >> 6 {
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
        headers.push(("x-amzn-bedrock-input-token-count".to_owned(), "7".to_owned()));
        headers.push(("x-amzn-sagemaker-content-type".to_owned(), "application/jsonlines".to_owned()));
    }
    let head = ResponseHead { status, headers, framing, stream: third & 1 != 0 };

    let (events, error) = (backend.run)(backend, &head, vec![&body]);
    for pieces in [pieces(&body), body.chunks(1).collect()] {
        let other = (backend.run)(backend, &head, pieces);
        assert_eq!(other.1, error, "the framing error depends on the cut");
        assert!(other.0 == events, "the events depend on the cut:\n{:?}\n{events:?}", other.0);
    }
    for start in STARTS.iter().filter(|start| start.list == backend.list) {
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
    backend: &Backend,
    head: &ResponseHead,
    pieces: Vec<&[u8]>,
) -> (Vec<Event>, Option<FramingError>) {
    let mut decoder = A::decoder("{}", backend.context.clone(), head.clone());
    let mut order = if backend.list { Order::of_a_list() } else { Order::default() };
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

/// What a renderer is told at the start.
struct Start {
    dialect: &'static str,
    stream: bool,
    /// Of vectors, not of a conversation.
    list: bool,
    start: AnswerStart,
}

/// Of each dialect, streamed and not.
static STARTS: LazyLock<Vec<Start>> = LazyLock::new(|| {
    let requests = [
        ("openai-chat", "/v1/chat/completions", r#""messages":[{"role":"user","content":"Hello"}]"#),
        ("openai-completions", "/v1/completions", r#""prompt":"Hello""#),
        ("openai-responses", "/v1/responses", r#""input":"Hello""#),
        ("anthropic-messages", "/v1/messages", r#""max_tokens":9,"messages":[{"role":"user","content":"Hello"}]"#),
        ("ollama-chat", "/api/chat", r#""messages":[{"role":"user","content":"Hello"}]"#),
        ("openai-embeddings", "/v1/embeddings", r#""input":["Hello","you"]"#),
    ];
    let mut starts = Vec::new();
    for (dialect, path, members) in requests {
        let list = dialect == "openai-embeddings";
        for stream in [false, true] {
            let body = match stream {
                _ if list => format!(r#"{{"model":"m",{members}}}"#),
                _ if dialect == "openai-chat" || dialect == "openai-completions" => {
                    format!(r#"{{"model":"m","stream":{stream},"stream_options":{{"include_usage":true}},{members}}}"#)
                }
                _ => format!(r#"{{"model":"m","stream":{stream},{members}}}"#),
            };
            let parsed = parse(dialect, path, &witgate_dialects::default_limits(), body.as_bytes());
            let render = parsed.expect("a good request").render;
            let start = AnswerStart { render, id: "1".to_owned(), created: 0, model: "m".to_owned() };
            starts.push(Start { dialect, stream: stream && !list, list, start });
        }
    }
    let start = AnswerStart { id: "1".to_owned(), model: "m".to_owned(), ..AnswerStart::default() };
    starts.push(Start { dialect: "awa-llm", stream: false, list: false, start });
    starts
});

/// What a client gets of these events: valid UTF-8, and where it is not streamed, one JSON document or nothing.
fn render(start: &Start, events: &[Event]) {
    let mut renderer = Renderer::new(start.dialect, start.start.clone());
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
    if !start.stream {
        if !text.is_empty() {
            witgate_fuzz::order::object(text);
        }
    } else if start.dialect == "ollama-chat" {
        text.lines().filter(|line| !line.is_empty()).for_each(witgate_fuzz::order::object);
    } else {
        let data = text.split('\n').filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").for_each(witgate_fuzz::order::object);
    }
}
