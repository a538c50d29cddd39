//! A chunk that is as the one before but for its text is not parsed. What it gives must be what parsing gives: each stream
//! is decoded as it is, and once more with frames between its chunks that say nothing, after which nothing is known of
//! the chunk before.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
use witgate_model::{Adapter, Decoder, Event, EventMessage, Frame, Framing, ResponseHead, SseEvent};

/// A backend's chunks, with `$T` where text stands and `$P` where padding or a time does.
struct Shapes {
    settings: &'static str,
    context: Option<&'static str>,
    framing: Framing,
    /// What the stream begins with.
    start: &'static [(&'static str, &'static str)],
    /// Chunks: their type, and their JSON.
    chunks: &'static [(&'static str, &'static str)],
    /// A chunk that says nothing, once the answer has begun.
    nothing: (&'static str, &'static str),
}

/// What may stand inside of a JSON string, and what may not.
const TEXTS: &[&str] = &[
    "",
    "a",
    " word",
    " word",
    "grüße 🦙",
    r"line\nbreak",
    r#"{\"quoted\":"#,
    r"\u00e9\ud83e\udd99",
    r"\ud800",
    r"\x",
    "\\",
    r"\\",
    "a\tb",
    "a\"b",
    "}]}",
    "<think>",
    "</think>",
    "\u{2028}",
    "[DONE]",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

const OPENAI: Shapes = Shapes {
    settings: "{}",
    context: None,
    framing: Framing::Sse,
    start: &[("", r#"{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}"#)],
    chunks: &[
        ("", r#"{"id":"c","choices":[{"index":0,"delta":{"content":"$T"},"finish_reason":null}],"obfuscation":"$P"}"#),
        (
            "",
            r#"{"obfuscation":"$P","id":"c","choices":[{"index":0,"delta":{"content":"$T"},"logprobs":null}],"usage":null}  "#,
        ),
        ("", r#"{"choices":[{"delta":{"content":"$T","role":"assistant"},"index":0}],"created":1,"timings":{"n":1}}"#),
        ("", r#"{"choices":[{"delta":{"content":"$T"},"index":1,"stop_reason":null}],"system_fingerprint":null}"#),
        ("", r#"{"choices":[{"delta":{"content":"$T"},"index":0},{"delta":{"content":"$P"},"index":1}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"","reasoning_content":"$T"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":null,"reasoning":"$T","reasoning_content":"$P"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T","reasoning":"$P"}}]}"#),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"content":"$T","content":"$P"}}],"obfuscation":"x","obfuscation":"$P"}"#,
        ),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$P","refusal":"$T"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T","refusal":"no"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T","custom":"$P"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T"},"logprobs":{"content":[{"token":"$P"}]}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T","reasoning_signature":"$P"}}]}"#),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"$T"}}]}}]}"#,
        ),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"$T"}}]}}],"obfuscation":"$P"}"#,
        ),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"content":"$T","tool_calls":[{"index":0,"function":{"arguments":"$P"}}]}}]}"#,
        ),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"content":"$T","tool_calls":[{"index":1,"type":"custom","custom":{"input":"x"}}]}}]}"#,
        ),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"content":"$T","tool_calls":[{"index":2,"function":{"arguments":"{"}}]}}]}"#,
        ),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":2,"function":{"name":"g","arguments":"$T"}}]}}]}"#,
        ),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"refusal":"$P","tool_calls":[{"index":3,"function":{"arguments":"$T"}}]}}]}"#,
        ),
        ("", r#"{"choices":[{"index":0,"text":"$T"}]}"#),
        ("", r#"{"choices":[{"index":0,"text":"$T","delta":{"content":"$P"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"$T"}]}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{"content":"$T"},"finish_reason":"stop"}]}"#),
        ("error", r#"{"choices":[{"index":0,"delta":{"content":"$T"}}]}"#),
        ("", r#"{"choices":[{"index":0,"delta":{}}],"error":{"message":"$T"}}"#),
        ("", "[DONE]"),
    ],
    nothing: ("", " "),
};

/// As [`OPENAI`], once a tool has been called.
const OPENAI_CALLED: Shapes = Shapes {
    start: &[
        ("", r#"{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}"#),
        (
            "",
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]}}]}"#,
        ),
    ],
    ..OPENAI
};

const OLLAMA: Shapes = Shapes {
    settings: "{}",
    context: None,
    framing: Framing::Ndjson,
    start: &[("", r#"{"model":"m","message":{"role":"assistant","content":"$T"},"done":false}"#)],
    chunks: &[
        ("", r#"{"model":"m","created_at":"$P","message":{"role":"assistant","content":"$T"},"done":false}"#),
        ("", r#"{"message":{"content":"$T","role":"assistant"},"created_at":"$P"}"#),
        ("", r#"{"created_at":"$P","message":{"content":"","thinking":"$T"},"done":false}"#),
        ("", r#"{"created_at":"$P","message":{"content":"$P","thinking":"$T"},"done":false}"#),
        ("", r#"{"created_at":7,"message":{"content":"$T"},"other":"$P"}"#),
        ("", r#"{"created_at":"$P","response":"$T","done":false}"#),
        ("", r#"{"created_at":"$P","response":"$T","thinking":"$P"}"#),
        ("", r#"{"message":{"content":"$T","images":null},"logprobs":[{"token":"$P","logprob":-1}]}"#),
        ("", r#"{"message":{"content":"$T","tool_calls":[{"function":{"name":"f","arguments":{"a":"$P"}}}]}}"#),
        ("", r#"{"message":{"content":"$T"},"error":"$P"}"#),
        ("", r#"{"created_at":"$P","message":{"content":"$T"},"done":true,"done_reason":"stop","eval_count":3}"#),
    ],
    nothing: ("", "{}"),
};

const ANTHROPIC: Shapes = Shapes {
    settings: "{}",
    context: Some(r#"{"answer":"json"}"#),
    framing: Framing::Sse,
    start: &[
        ("message_start", r#"{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":1}}}"#),
        ("", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
        ("", r#"{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":""}}"#),
        (
            "",
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{"a":1}}}"#,
        ),
        ("", r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"u","name":"json"}}"#),
        ("", r#"{"type":"content_block_start","index":4,"content_block":{"type":"server_tool_use","name":"s"}}"#),
    ],
    chunks: &[
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"$T"}}"#,
        ),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"$T"}      }"#,
        ),
        ("content_block_delta", r#"{"index":0,"delta":{"type":"text_delta","text":"$T"}}"#),
        ("ping", r#"{"index":0,"delta":{"type":"text_delta","text":"$T"}}"#),
        ("error", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"$T"}}"#),
        (
            "",
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"$T","text":"$P"}}"#,
        ),
        ("", r#"{"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"$T"}}"#),
        ("", r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"$T"}}"#),
        (
            "",
            r#"{"type":"content_block_delta","index":3,"delta":{"partial_json":"$T","type":"input_json_delta"},"p":"$P"}"#,
        ),
        ("", r#"{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"$T"}}"#),
        ("", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"$T","estimate":"$P"}}"#),
        ("", r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"a":"$T"}}}"#),
        ("", r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"$T"}}"#),
        ("", r#"{"type":"content_block_delta","index":0,"index":1,"delta":{"type":"text_delta","text":"$T"}}"#),
        ("", r#"{"type":"content_block_stop","index":0}"#),
        ("", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#),
        ("", r#"{"type":"message_stop"}"#),
    ],
    nothing: ("", " "),
};

const CONVERSE: Shapes = Shapes {
    settings: r#"{"region":"us-east-1"}"#,
    context: None,
    framing: Framing::AwsEventstream,
    start: &[
        ("messageStart", r#"{"role":"assistant"}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":2,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":3,"start":{"other":{}}}"#),
    ],
    chunks: &[
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T"},"p":"$P"}"#),
        ("contentBlockDelta", r#"{"p":"$P","delta":{"text":"$T","p":"x"},"contentBlockIndex":0}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"reasoningContent":{"text":"$T"}},"p":"$P"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"reasoningContent":{"signature":"$T"}},"p":"$P"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"toolUse":{"input":"$T"}},"p":"$P"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":3,"delta":{"text":"$T"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T","text":"$P"},"p":"x","p":"$P"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T"},"delta":{"text":"$P"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T","reasoningContent":{"text":"$P"}}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T"},"more":"$P"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T","more":"$P"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"$T"},"p":7}"#),
        ("unknown", r#"{"contentBlockIndex":0,"delta":{"text":"$T"},"p":"$P"}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("messageStop", r#"{"stopReason":"end_turn"}"#),
        ("metadata", r#"{"usage":{"inputTokens":1,"outputTokens":2}}"#),
    ],
    nothing: ("messageStart", "{}"),
};

/// One chunk of a stream: which shape, its text and its padding, and perhaps a character that came into it.
type Chunk = (Index, &'static str, &'static str, Option<(Index, char)>);

/// Streams that go back and forth between few shapes and few texts.
fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
    let damage = (any::<Index>(), select(vec!['"', '\\', '}', '{', ',', ' ', '1', '\u{1}', 'é']));
    let chunk = (0..3_usize, 0..4_usize, 0..4_usize, proptest::option::weighted(0.1, damage));
    (vec(any::<Index>(), 2), vec(select(TEXTS), 4), vec(chunk, 1..12)).prop_map(|(shapes, texts, chunks)| {
        let chunk = |(shape, text, padding, damage): (usize, usize, usize, _)| {
            (shapes[shape / 2], texts[text], texts[padding], damage)
        };
        chunks.into_iter().map(chunk).collect()
    })
}

fn frame(framing: &Framing, (kind, json): (&str, String)) -> Frame {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match framing {
        Framing::Ndjson => Frame::Line(json),
        Framing::AwsEventstream => Frame::Message(EventMessage {
            headers: vec![field(":event-type", kind), field(":message-type", "event")],
            payload: json.into_bytes(),
        }),
        _ => Frame::Sse(SseEvent { event: (!kind.is_empty()).then(|| kind.to_owned()), data: json, id: None }),
    }
}

/// The events of these frames; with `apart`, nothing is known of the chunk before.
fn events<A: Adapter>(shapes: &Shapes, frames: &[Frame], apart: bool) -> Vec<Event> {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: shapes.framing.clone(), stream: true };
    let mut decoder = A::decoder(shapes.settings, shapes.context.map(str::to_owned), head);
    let mut events: Vec<Event> = Vec::new();
    let (kind, nothing) = shapes.nothing;
    for frame_of_stream in frames {
        events.extend(decoder.feed(vec![frame_of_stream.clone()]));
        if apart && !events.last().is_some_and(Event::is_last) {
            let said = decoder.feed(vec![frame(&shapes.framing, (kind, nothing.to_owned()))]);
            assert_eq!(said, [], "what says nothing said something");
        }
        if events.last().is_some_and(Event::is_last) {
            return events;
        }
    }
    events.extend(decoder.finish());
    events
}

fn check<A: Adapter>(shapes: &Shapes, chunks: &[Chunk]) -> Result<(), TestCaseError> {
    let start = shapes.start.iter().map(|(kind, json)| (*kind, json.replace("$T", "a")));
    let chunks = chunks.iter().map(|(shape, text, padding, damage)| {
        let (kind, json) = shapes.chunks[shape.index(shapes.chunks.len())];
        let mut json = json.replace("$T", text).replace("$P", padding);
        if let Some((place, character)) = damage {
            let mut at = place.index(json.len());
            while !json.is_char_boundary(at) {
                at -= 1;
            }
            json.insert(at, *character);
        }
        (kind, json)
    });
    let frames: Vec<Frame> = start.chain(chunks).map(|chunk| frame(&shapes.framing, chunk)).collect();
    let alike = events::<A>(shapes, &frames, false);
    prop_assert_eq!(&alike, &events::<A>(shapes, &frames, true), "{:?}", frames);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn openai_chunks_alike_give_what_parsing_gives(chunks in chunks()) {
        check::<OpenAi>(&OPENAI, &chunks)?;
        check::<OpenAi>(&Shapes { settings: r#"{"reasoning_tag":"think"}"#, ..OPENAI }, &chunks)?;
        check::<OpenAi>(&OPENAI_CALLED, &chunks)?;
        check::<LlamaCpp>(&OPENAI, &chunks)?;
    }

    #[test]
    fn ollama_lines_alike_give_what_parsing_gives(chunks in chunks()) {
        check::<Ollama>(&OLLAMA, &chunks)?;
        check::<Ollama>(&Shapes { context: Some("chat 0 native"), ..OLLAMA }, &chunks)?;
    }

    #[test]
    fn anthropic_events_alike_give_what_parsing_gives(chunks in chunks()) {
        check::<Anthropic>(&ANTHROPIC, &chunks)?;
    }

    #[test]
    fn converse_messages_alike_give_what_parsing_gives(chunks in chunks()) {
        check::<Bedrock>(&CONVERSE, &chunks)?;
    }
}
