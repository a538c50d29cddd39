//! Invariant 5: the same fixture through the native crate and through the component gives the same result.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi, Stub};
use witgate_framing::{Framer, effective};
use witgate_gateway::{Adapter as _, Normaliser as _};
use witgate_host::{AdapterComponent, Host};
use witgate_model::normaliser::{AnswerStart, Attempt, Client, Failure, Limits};
use witgate_model::{Adapter, Decoder, Error, ErrorKind, Event, Frame, Framing, Request, ResponseHead};

use crate::kit;

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| kit::builder("[providers.stub]\nadapter = \"stub\"").all_adapters().build().unwrap())
}

fn adapter(name: &str) -> AdapterComponent {
    host().adapters().into_iter().find(|loaded| loaded.reference.as_str() == name).unwrap().component
}

/// Settings with which the adapters do more than without.
const SETTINGS: [&str; 2] = ["{}", r#"{"drop_unsupported": true}"#];

/// All requests of the fixtures, parsed natively, with and without a stream.
fn requests() -> Vec<(String, Request)> {
    let mut requests = Vec::new();
    for entry in std::fs::read_dir(kit::fixtures("requests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let body = std::fs::read(&path).unwrap();
        let parsed = witgate_dialects::parse("openai-chat", "/v1/chat/completions", &LIMITS, &body)
            .unwrap_or_else(|error| panic!("{name}: {}", error.message));
        let mut streamed = parsed.request.clone();
        streamed.stream = !streamed.stream;
        requests.push((format!("{name}, stream turned round"), streamed));
        requests.push((name, parsed.request));
    }
    assert!(requests.len() > 40, "{}", requests.len());
    requests
}

const LIMITS: Limits = Limits { depth: 64, messages: 10_000 };

#[test]
fn every_request_is_parsed_alike() {
    let mut count = 0;
    for entry in std::fs::read_dir(kit::fixtures("requests")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let body = std::fs::read(&path).unwrap();
        // Whole, and cut off at every 37th byte: errors must be alike too.
        let cuts = (0..body.len()).step_by(37).chain([body.len()]);
        for cut in cuts {
            for (dialect, at) in [
                ("openai-chat", "/v1/chat/completions"),
                ("openai-completions", "/v1/completions"),
                ("openai-embeddings", "/v1/embeddings"),
                ("anthropic-messages", "/v1/messages"),
                ("ollama-chat", "/api/chat"),
                ("no-such-dialect", "/"),
            ] {
                let client = Client { method: "POST".into(), path: at.into(), ..Client::default() };
                let native = witgate_dialects::step(dialect, &client, &LIMITS, &body[..cut]);
                let mut session = host().normaliser().session().unwrap();
                let part = Bytes::copy_from_slice(&body[..cut]);
                let component = session.parse(dialect, &client, &LIMITS, &part).unwrap();
                assert_eq!(native, component, "{} to {cut} as {dialect}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 200, "{count}");
}

fn encoded_alike<A: Adapter>(name: &str) {
    let component = adapter(name);
    assert_eq!(*component.description(), A::describe(), "{name}");
    let mut accepted = 0;
    for settings in SETTINGS {
        let mut session = component.session().unwrap();
        assert_eq!(A::probe(settings), session.probe(settings).unwrap(), "{name}");
        for (fixture, request) in requests() {
            let native = A::encode(settings, request.clone());
            accepted += usize::from(native.is_ok());
            let encoded = session.encode(settings, &Arc::new(request)).unwrap();
            assert_eq!(native, encoded, "{name}: {fixture} with {settings}");
        }
    }
    assert!(accepted > 10, "{name}: {accepted} accepted");
}

#[test]
fn every_request_is_encoded_alike() {
    encoded_alike::<LlamaCpp>("llama-cpp");
    encoded_alike::<OpenAi>("openai");
    encoded_alike::<Stub>("stub");
    encoded_alike::<Bedrock>("bedrock");
    encoded_alike::<SageMaker>("sagemaker");
    encoded_alike::<Anthropic>("anthropic");
    encoded_alike::<Ollama>("ollama");
}

/// A recorded answer.
struct Answer {
    name: String,
    settings: String,
    context: Option<String>,
    head: ResponseHead,
    body: Vec<u8>,
}

fn answers(folder: &str) -> Vec<Answer> {
    let folder = kit::fixtures("upstream").join(folder);
    let meta = std::fs::read(folder.join("meta.json")).unwrap();
    let meta: BTreeMap<String, Value> = serde_json::from_slice(&meta).unwrap();
    let answers: Vec<_> = meta
        .into_iter()
        .map(|(name, meta)| {
            let mut headers = Vec::new();
            if let Some(content_type) = meta["content_type"].as_str() {
                headers.push(("content-type".to_owned(), content_type.to_owned()));
            }
            for (name, value) in meta["headers"].as_object().into_iter().flatten() {
                headers.push((name.clone(), value.as_str().unwrap().to_owned()));
            }
            let stream = meta["stream"].as_bool().unwrap_or(name.ends_with(".sse"));
            let wanted = match name.rsplit_once('.').map(|(_, extension)| extension) {
                Some("sse") if stream => Framing::Sse,
                Some("ndjson") if stream => Framing::Ndjson,
                _ if stream => Framing::AwsEventstream,
                _ => Framing::Whole,
            };
            let status = meta["status"].as_u64().unwrap() as u16;
            let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
            let framing = effective(&wanted, status, content_type);
            let body = std::fs::read(folder.join(&name)).unwrap();
            let settings = meta.get("settings").map_or_else(|| "{}".to_owned(), Value::to_string);
            let context = meta["context"].as_str().map(str::to_owned);
            Answer { name, settings, context, head: ResponseHead { status, headers, framing, stream }, body }
        })
        .collect();
    assert!(answers.len() > 15, "{}: {}", folder.display(), answers.len());
    answers
}

/// What `feed` and `finish` are given, when the network delivers pieces of this size.
fn reads(answer: &Answer, piece: usize) -> Vec<Vec<Frame>> {
    let mut framer = Framer::new(&answer.head.framing, witgate_framing::Limits::default()).unwrap();
    let mut reads = Vec::new();
    let mut frames = Vec::new();
    for piece in answer.body.chunks(piece) {
        // A body that cannot be framed ends where it cannot.
        let framed = framer.push(piece, &mut frames);
        if !frames.is_empty() {
            reads.push(std::mem::take(&mut frames));
        }
        if framed.is_err() {
            return reads;
        }
    }
    let _ = framer.finish(&mut frames);
    if !frames.is_empty() {
        reads.push(frames);
    }
    reads
}

/// The events of an answer, which must be the same on both ways.
fn decode<A: Adapter>(name: &str, answer: &Answer, piece: usize) -> Vec<Event> {
    let (settings, context) = (&answer.settings, &answer.context);
    let mut native = A::decoder(settings, context.clone(), answer.head.clone());
    let mut session = adapter(name).session().unwrap();
    session.start(settings, context.clone(), answer.head.clone()).unwrap();
    let mut events: Vec<Event> = Vec::new();
    let what = || format!("{name}: {} in pieces of {piece}", answer.name);
    for frames in reads(answer, piece) {
        let from_component = session.feed(frames.clone()).unwrap();
        let from_native = native.feed(frames);
        assert_eq!(from_native, from_component, "{}", what());
        events.extend(from_native);
        if events.last().is_some_and(Event::is_last) {
            return events;
        }
    }
    let from_component = session.finish().unwrap();
    let from_native = native.finish();
    assert_eq!(from_native, from_component, "{}", what());
    events.extend(from_native);
    events
}

#[test]
fn every_answer_is_decoded_alike_however_the_network_cut_it() {
    for piece in [1, 7, 100, 1_000_000] {
        for (folder, name) in ["llama-cpp", "openai", "stub", "bedrock", "sagemaker", "anthropic", "ollama"]
            .map(|name| (if name == "stub" { "openai" } else { name }, name))
        {
            for answer in answers(folder) {
                match name {
                    "llama-cpp" => decode::<LlamaCpp>(name, &answer, piece),
                    "openai" => decode::<OpenAi>(name, &answer, piece),
                    "stub" => decode::<Stub>(name, &answer, piece),
                    "bedrock" => decode::<Bedrock>(name, &answer, piece),
                    "sagemaker" => decode::<SageMaker>(name, &answer, piece),
                    "anthropic" => decode::<Anthropic>(name, &answer, piece),
                    _ => decode::<Ollama>(name, &answer, piece),
                };
            }
        }
    }
}

#[test]
fn every_answer_is_rendered_alike() {
    let start = |render: &str| AnswerStart {
        render: render.to_owned(),
        id: "7kW2Mq21x0A6AOHmoRYH47".to_owned(),
        created: 1_700_000_000,
        model: "tiny".to_owned(),
    };
    let body = |stream: bool| {
        let usage = if stream { r#","stream_options":{"include_usage":true}"# } else { "" };
        format!(r#"{{"model":"tiny","stream":{stream},"messages":[{{"role":"user","content":"x"}}]{usage}}}"#)
    };
    let failure = Failure {
        error: Error::new(ErrorKind::RateLimited, "too much \"at\" once"),
        error_type: "rate_limit_error".to_owned(),
        provider: Some("local".to_owned()),
        upstream: Some(429),
        request_id: "r".to_owned(),
        attempts: vec![Attempt {
            provider: "local".to_owned(),
            model: "tiny".to_owned(),
            status: Some(429),
            reason: "rate_limited".to_owned(),
        }],
    };
    let mut whole = 0;
    for answer in answers("openai").iter().chain(&answers("llama-cpp")) {
        let mut events = decode::<OpenAi>("openai", answer, 100);
        let failed = matches!(events.last(), Some(Event::Failed(_)));
        if failed {
            events.pop();
        }
        let body = body(answer.head.stream);
        let parsed = witgate_dialects::parse("openai-chat", "/v1/chat/completions", &LIMITS, body.as_bytes()).unwrap();
        let mut native = witgate_dialects::Renderer::new("openai-chat", start(&parsed.render));
        let mut session = host().normaliser().session().unwrap();
        session.start("openai-chat", start(&parsed.render)).unwrap();
        assert_eq!(native.head(), session.head().unwrap());
        assert_eq!(native.keep_alive(), session.keep_alive().unwrap());
        for events in events.chunks(3) {
            let bytes = native.feed(events.to_vec());
            whole += bytes.len();
            assert_eq!(bytes, session.feed(events.to_vec()).unwrap(), "{}", answer.name);
        }
        if failed {
            assert_eq!(native.fail(&failure), session.fail(&failure).unwrap());
        }
        for dialect in ["openai-chat", "openai-completions", "awa-llm", "anthropic-messages", "ollama-chat"] {
            assert_eq!(
                witgate_dialects::render_error(dialect, &failure),
                session.render_error(dialect, "", &failure).unwrap()
            );
        }
    }
    assert!(whole > 10_000, "{whole} bytes");
}

#[test]
fn an_instance_that_served_before_answers_like_a_fresh_one() {
    // The pool gives the same instance again: what it did before must not show.
    let component = adapter("llama-cpp");
    assert!(component.is_trusted());
    for (fixture, request) in requests() {
        let mut used = component.session().unwrap();
        let again = used.encode("{}", &Arc::new(request.clone())).unwrap();
        assert_eq!(again, LlamaCpp::encode("{}", request), "{fixture}");
    }
}
