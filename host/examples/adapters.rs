//! What each built-in adapter costs on this machine, as a component and natively: `cargo run --release -p witgate-host
//! --example adapters`.
//!
//! Medians on one thread. Encode: a chat of so many bytes; "image" is a chat with a picture of 1 MB in base64. Decode: a
//! stream of small chunks, per chunk and per MB of bytes that came from the network, framing included; beside it the floor,
//! which is what it costs to copy those bytes once.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
use witgate_config::Config;
use witgate_framing::Framer;
use witgate_gateway::Adapter as _;
use witgate_host::Host;
use witgate_model::{
    Adapter, Decoder, Frame, Framing, MediaKind, MediaPart, MediaSource, Message, Part, Request, ResponseHead, Role,
};

type Failure = Box<dyn std::error::Error>;

/// How many chunks a stream has.
const CHUNKS: usize = 2_000;

fn median<T>(mut f: impl FnMut() -> Result<T, Failure>) -> Result<f64, Failure> {
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) || times.len() < 9 {
        let start = Instant::now();
        drop(f()?);
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

fn chat(bytes: usize) -> Request {
    let text = "All happy families are alike. ".repeat(bytes.div_ceil(30) / 4 + 1);
    let messages = (0..4).map(|_| Message::text(Role::User, &text)).collect();
    let mut request = Request::chat("openai-chat", "tiny", messages);
    request.sampling.max_tokens = Some(100);
    request
}

fn image() -> Request {
    let mut request = chat(100);
    let part = MediaPart {
        kind: MediaKind::Image,
        mime: Some("image/png".to_owned()),
        source: MediaSource::Base64("iVBORw0KGgoA".repeat(1_000_000 / 12)),
        name: None,
        detail: None,
        cache: None,
        extra: None,
    };
    request.input = match request.input {
        witgate_model::Input::Chat(mut messages) => {
            if let Some(message) = messages.first_mut() {
                message.parts.push(Part::Media(part));
            }
            witgate_model::Input::Chat(messages)
        }
        other => other,
    };
    request
}

/// One message of an AWS event stream.
fn frame(kind: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = 16 + headers.len() + payload.len();
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload.as_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// A stream of [`CHUNKS`] chunks of text, without its end.
fn stream(adapter: &str) -> (Framing, &'static str, Vec<u8>) {
    let mut out = Vec::new();
    let openai = r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
    match adapter {
        "bedrock" => {
            out.extend(frame("messageStart", r#"{"role":"assistant"}"#));
            for _ in 0..CHUNKS {
                out.extend(frame(
                    "contentBlockDelta",
                    r#"{"contentBlockIndex":0,"delta":{"text":" word"},"p":"abcdefgh"}"#,
                ));
            }
            (Framing::AwsEventstream, "application/vnd.amazon.eventstream", out)
        }
        "sagemaker" => {
            for _ in 0..CHUNKS {
                out.extend(frame("PayloadPart", &format!("data: {openai}\n\n")));
            }
            (Framing::AwsEventstream, "application/vnd.amazon.eventstream", out)
        }
        "anthropic" => {
            out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
            for _ in 0..CHUNKS {
                out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n");
            }
            (Framing::Sse, "text/event-stream", out)
        }
        "ollama" => {
            for _ in 0..CHUNKS {
                out.extend_from_slice(b"{\"model\":\"m\",\"created_at\":\"2026-11-21T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\" word\"},\"done\":false}\n");
            }
            (Framing::Ndjson, "application/x-ndjson", out)
        }
        _ => {
            for _ in 0..CHUNKS {
                out.extend_from_slice(format!("data: {openai}\n\n").as_bytes());
            }
            (Framing::Sse, "text/event-stream", out)
        }
    }
}

/// The frames of a stream, in reads of 16 KiB.
fn reads(framing: &Framing, body: &[u8]) -> Result<Vec<Vec<Frame>>, Failure> {
    let mut framer = Framer::new(framing, witgate_framing::Limits::default())?;
    let mut all = Vec::new();
    for piece in body.chunks(16 * 1024) {
        let mut frames = Vec::new();
        framer.push(piece, &mut frames)?;
        all.push(frames);
    }
    Ok(all)
}

fn native<A: Adapter>(name: &str, settings: &str, host: &Host) -> Result<(), Failure> {
    let component =
        &host.adapters().iter().find(|adapter| adapter.reference.as_str() == name).ok_or("not loaded")?.component;
    let refused = |error: witgate_model::Error| Failure::from(error.message);
    for (what, request) in
        [("1 KB", chat(1_000)), ("10 KB", chat(10_000)), ("100 KB", chat(100_000)), ("image", image())]
    {
        let alone = match A::encode(settings, request.clone()) {
            Ok(_) => median(|| A::encode(settings, request.clone()).map_err(refused))?,
            Err(error) => {
                println!("{name:<10} encode {what:<7} refused: {}", error.message);
                continue;
            }
        };
        let copy = median(|| Ok(request.clone()))?;
        let request = Arc::new(request);
        let mut session = component.session()?;
        let call = median(|| session.encode(settings, &request)?.map_err(refused))?;
        println!("{name:<10} encode {what:<7} native {:>9.2} us   component {call:>9.2} us", (alone - copy).max(0.0));
    }
    let (framing, content_type, body) = stream(name);
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-type".into(), content_type.into())],
        framing: framing.clone(),
        stream: true,
    };
    let megabytes = body.len() as f64 / 1e6;
    let copy = || std::hint::black_box(std::hint::black_box(body.as_slice()).to_vec());
    let floor = median(|| Ok(copy()))? / megabytes;
    let framed = median(|| reads(&framing, &body))? / megabytes;
    let alone = median(|| {
        let mut decoder = A::decoder(settings, None, head.clone());
        for frames in reads(&framing, &body)? {
            drop(decoder.feed(frames));
        }
        Ok(())
    })?;
    let call = median(|| {
        let mut session = component.session()?;
        session.start(settings, None, head.clone())?;
        for frames in reads(&framing, &body)? {
            drop(session.feed(frames)?);
        }
        Ok(())
    })?;
    println!(
        "{name:<10} decode         native {:>9.2} us   component {:>9.2} us a chunk of {} bytes",
        alone / CHUNKS as f64,
        call / CHUNKS as f64,
        body.len() / CHUNKS
    );
    println!(
        "{name:<10} a MB of stream copied {floor:>6.0} us ({:.1} GB/s)   framed {framed:>6.0} us ({:.1} x)   decoded {:>7.0} us ({:.1} x)   by component {:>7.0} us",
        1e3 / floor,
        framed / floor,
        alone / megabytes,
        alone / megabytes / floor,
        call / megabytes,
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let config = Config::from_toml("[providers.stub]\nadapter = \"stub\"", "adapters.toml", &|_| None)?;
    let host = Host::builder(config).all_adapters().build()?;
    native::<OpenAi>("openai", "{}", &host)?;
    native::<LlamaCpp>("llama-cpp", "{}", &host)?;
    native::<Anthropic>("anthropic", "{}", &host)?;
    native::<Ollama>("ollama", "{}", &host)?;
    native::<Bedrock>("bedrock", r#"{"region":"us-east-1","api":"converse"}"#, &host)?;
    native::<SageMaker>("sagemaker", r#"{"region":"us-east-1","codec":"vllm"}"#, &host)?;
    Ok(())
}
