//! What the cache costs a request, natively and without a network: `cargo run --release -p witgate-gateway --example cache`.
//!
//! Whole requests through the gateway over the tests' simulated world, with its backend answering at once: parse, route,
//! encode, decode, render, and a log line are in each figure. What the cache adds, or saves, is the difference.

#![allow(clippy::print_stdout, missing_docs, reason = "an example that prints")]

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Instant;

use bytes::Bytes;
use witgate_config::Config;
use world::{Act, Script, World, text_stream, whole_answer};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn config(enabled: bool) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[limits]\nmax_body_bytes = \"1MiB\"\n[cache]\nenabled = {enabled}\n\
         [providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n"
    );
    Config::from_toml(&text, "bench.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn body(size: usize, stream: bool, seed: u32) -> Bytes {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(size / 45 + 1);
    let messages = serde_json::json!([{"role": "user", "content": text[..size]}]);
    let body = serde_json::json!({"model": "p/m", "stream": stream, "seed": seed, "messages": messages});
    Bytes::from(body.to_string())
}

/// Microseconds for a request, the best of five rounds.
fn measure(enabled: bool, stream: bool, size: usize, header: Option<(&str, &str)>, hit: bool) -> f64 {
    let rounds = if size > 10_000 { 300 } else { 3_000 };
    let mut best = f64::MAX;
    for _ in 0..5 {
        let world = World::new(1, config(enabled));
        let (kind, answer) = match stream {
            true => ("text/event-stream", Bytes::from(text_stream())),
            false => ("application/json", whole_answer()),
        };
        world.serve(move |_, _| {
            Script::new(vec![(0, Act::Head(200, kind)), (0, Act::Bytes(answer.clone())), (0, Act::End)])
        });
        let bodies: Vec<_> = (0..rounds).map(|n| body(size, stream, if hit { 0 } else { n })).collect();
        let headers: Vec<_> = header.into_iter().collect();
        let ask = |body: &Bytes| world.call("POST", "/v1/chat/completions", &headers, body.clone());
        ask(&body(size, stream, 0));
        let begun = Instant::now();
        bodies.iter().for_each(|body| assert_eq!(ask(body).status, 200));
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
        assert_eq!(world.sent(), if hit { 1 } else { bodies.len() + usize::from(!enabled || header.is_some()) });
    }
    best
}

fn main() {
    println!("| prompt | | no cache | bypass | miss | hit |\n|---|---|---|---|---|---|");
    for size in [1_000, 10_000, 100_000] {
        for stream in [false, true] {
            let off = measure(false, stream, size, None, false);
            let bypass = measure(true, stream, size, Some(("x-witgate-cache", "off")), false);
            let miss = measure(true, stream, size, None, false);
            let hit = measure(true, stream, size, None, true);
            let kind = if stream { "streamed" } else { "whole" };
            println!("| {} KB | {kind} | {off:.1} | {bypass:.1} | {miss:.1} | {hit:.1} |", size / 1_000);
        }
    }
}
