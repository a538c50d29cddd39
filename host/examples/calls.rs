//! What calls into components cost on this machine: `cargo run --release -p witgate-host --example calls`.
//!
//! Medians, in microseconds, on one thread. "Fresh" makes an instance and throws it away, as for an adapter that is not
//! trusted; "kept" takes an idle one, as for the built-in ones.
#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use witgate_config::Config;
use witgate_gateway::{Adapter, Normaliser};
use witgate_host::{AdapterComponent, Host};
use witgate_model::normaliser::{AnswerStart, Client, Limits, Parsed, Step};
use witgate_model::{Frame, Framing, Message, Request, ResponseHead, Role, SseEvent};

type Failure = Box<dyn std::error::Error>;

fn refused(error: witgate_model::Error) -> Failure {
    error.message.into()
}

/// What is to be asked of a backend.
fn asked(step: Result<Step, witgate_model::Error>) -> Result<Parsed, Failure> {
    match step.map_err(refused)? {
        Step::Ask(parsed) => Ok(parsed),
        other => Err(format!("not for a backend: {other:?}").into()),
    }
}

/// The median time of `f`, run for a while.
fn median<T>(mut f: impl FnMut() -> Result<T, Failure>) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) || times.len() < 20 {
        let start = Instant::now();
        drop(f()?);
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

fn show(what: &str, time: Duration) {
    println!("{what:<52} {:>9.2}", time.as_secs_f64() * 1e6);
}

/// A chat of about so many bytes.
fn chat(bytes: usize) -> Request {
    let text = "All happy families are alike. ".repeat(bytes.div_ceil(30) / 4 + 1);
    let messages = (0..4).map(|_| Message::text(Role::User, &text)).collect();
    Request::chat("openai-chat", "tiny", messages)
}

/// Bytes of memory that are this process's alone: pages that only show the components' files are shared.
fn own_memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    text.lines().filter(|line| line.starts_with("Private_")).filter_map(kib).sum::<f64>() * 1024.0
}

/// Shows what each of 1,000 sessions takes that are held at once.
fn show_memory<T>(what: &str, mut hold: impl FnMut() -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let before = own_memory();
    let mut held = Vec::with_capacity(1000);
    for _ in 0..1000 {
        held.push(hold()?);
    }
    println!("{:<52} {:>9.1}", format!("KiB of each of 1000 held: {what}"), (own_memory() - before) / 1024.0 / 1000.0);
    Ok(held)
}

fn main() -> Result<(), Failure> {
    let wasm: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/components/adapter-llama-cpp.wasm");
    // The same adapter twice: built in, so trusted, and as a file, so not.
    let config = format!(
        "[providers.kept]\nadapter = \"llama-cpp\"\nendpoint = \"http://127.0.0.1:1\"\n[providers.fresh]\nadapter = {:?}\n\
         endpoint = \"http://127.0.0.1:1\"",
        std::path::absolute(wasm)?
    );
    let config = Config::from_toml(&config, "calls.toml", &|_| None)?;
    drop(Host::builder(config.clone()).build()?);
    let begun = Instant::now();
    let host = Host::builder(config).build()?;
    show("warm start: 3 components, the server not counted", begun.elapsed());
    let adapters = host.adapters();
    let find = |trusted: bool| {
        let mut components = adapters.iter().map(|loaded| &loaded.component);
        components.find(|adapter| adapter.is_trusted() == trusted).ok_or("no such adapter")
    };
    let (kept, fresh) = (find(true)?, find(false)?);

    let head = |stream| ResponseHead {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        framing: Framing::Sse,
        stream,
    };
    let event = |content: &str| {
        let data = format!(
            "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}"
        );
        Frame::Sse(SseEvent { event: None, data, id: None })
    };
    // First of all, while no slot has been used.
    let body = &Bytes::from_static(br#"{"model":"tiny","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#);
    let limits = Limits { depth: 64, messages: 10_000 };
    let client = Client { method: "POST".into(), path: "/v1/chat/completions".into(), ..Client::default() };
    let normalisers = show_memory("normaliser", || {
        let mut session = host.normaliser().session()?;
        let parsed = asked(session.parse("openai-chat", &client, &limits, body)?)?;
        let start = AnswerStart { render: parsed.render, id: "1".into(), created: 1, model: "tiny".into() };
        session.start("openai-chat", start)?;
        session.head()?;
        Ok(session)
    })?;
    let adapters = show_memory("adapter", || {
        let mut session = kept.session()?;
        session.encode("{}", &Arc::new(chat(1000)))?.map_err(refused)?;
        session.start("{}", None, head(true))?;
        session.feed(vec![event("once")])?;
        Ok(session)
    })?;
    drop((normalisers, adapters));

    show("fresh instance, nothing called", median(|| Ok(fresh.session()?))?);
    show("kept instance, nothing called", median(|| Ok(kept.session()?))?);
    for size in [1_000, 10_000, 100_000, 1_000_000] {
        let request = Arc::new(chat(size));
        let encode = |adapter: &AdapterComponent| {
            median(|| {
                adapter.session()?.encode("{}", &request)?.map_err(refused)?;
                Ok(())
            })
        };
        show(&format!("fresh instance with its first encode, {size} bytes"), encode(fresh)?);
        show(&format!("kept instance with one encode, {size} bytes"), encode(kept)?);
        let mut session = kept.session()?;
        show(&format!("encode alone, {size} bytes"), median(|| session.encode("{}", &request)?.map_err(refused))?);
    }
    let mut session = kept.session()?;
    show("start (a decoder)", median(|| Ok(session.start("{}", None, head(true))?))?);
    session.feed(vec![event("once")])?;
    let frame = event(" upon");
    show("feed, 1 SSE event", median(|| Ok(session.feed(vec![frame.clone()])?))?);
    let frames = vec![frame.clone(); 10];
    show("feed, 10 SSE events in one read", median(|| Ok(session.feed(frames.clone())?))?);
    let events = session.feed(vec![frame.clone()])?;

    let normaliser = host.normaliser();
    show("normaliser: kept instance, nothing called", median(|| Ok(normaliser.session()?))?);
    for size in [1_000, 10_000, 100_000, 1_000_000] {
        let mut body = String::from("{\"model\":\"tiny\",\"messages\":[");
        for n in 0..4 {
            let text = "All happy families are alike. ".repeat(size / 120 + 1);
            write!(body, "{}{{\"role\":\"user\",\"content\":\"{text}\"}}", if n > 0 { "," } else { "" })?;
        }
        body.push_str("]}");
        let body = Bytes::from(body);
        let mut session = normaliser.session()?;
        let parse = median(|| {
            asked(session.parse("openai-chat", &client, &limits, &body)?)?;
            Ok(())
        })?;
        show(&format!("parse, {size} bytes"), parse);
    }
    let mut session = normaliser.session()?;
    let parsed = asked(session.parse("openai-chat", &client, &limits, body)?)?;
    let start = || AnswerStart { render: parsed.render.clone(), id: "1".into(), created: 1, model: "tiny".into() };
    show("start (a renderer)", median(|| Ok(session.start("openai-chat", start())?))?);
    show("head", median(|| Ok(session.head()?))?);
    let mut first = kept.session()?;
    first.start("{}", None, head(true))?;
    session.feed(first.feed(vec![event("once")])?)?;
    show("render, 1 event", median(|| Ok(session.feed(events.clone())?))?);

    Ok(())
}
