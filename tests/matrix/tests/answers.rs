//! What clients of each dialect see of each backend's answers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use witgate_matrix::{Answer, Client, Told, clients, counters, embedders, fixture, pretty, root};
use witgate_model::Event;

/// One answer of each kind from each backend. Pictures are in requests only: what a model says of one is text.
const ANSWERS: &[(&str, &str, &str)] = &[
    ("openai-text", "openai", "chat-text.json"),
    ("openai-stream", "openai", "chat-text.sse"),
    ("openai-tools", "openai", "chat-tool-calls.json"),
    ("openai-stream-tools", "openai", "chat-tool-calls.sse"),
    ("openai-stream-reasoning", "openai", "chat-deepseek.sse"),
    ("openai-refusal", "openai", "chat-refusal.sse"),
    ("openai-error", "openai", "error-context.json"),
    ("openai-stream-error", "openai", "chat-error-in-stream.sse"),
    ("openai-stream-cut", "openai", "chat-cut.sse"),
    ("openai-embeddings", "openai", "embeddings.json"),
    ("openai-responses-text", "openai", "responses-text.json"),
    ("openai-responses-stream", "openai", "responses-text.sse"),
    ("openai-responses-tools", "openai", "responses-tools.json"),
    ("openai-responses-stream-tools", "openai", "responses-tools.sse"),
    ("openai-responses-error", "openai", "responses-failed.json"),
    ("openai-responses-stream-error", "openai", "responses-error.sse"),
    ("openai-responses-stream-cut", "openai", "responses-cut.sse"),
    ("anthropic-text", "anthropic", "message-text.json"),
    ("anthropic-stream", "anthropic", "stream-text.sse"),
    ("anthropic-tools", "anthropic", "message-tools.json"),
    ("anthropic-stream-tools", "anthropic", "stream-tools.sse"),
    ("anthropic-stream-reasoning", "anthropic", "stream-thinking.sse"),
    ("anthropic-json-schema", "anthropic", "message-json-answer.json"),
    ("anthropic-stream-json-schema", "anthropic", "stream-json-answer.sse"),
    ("anthropic-error", "anthropic", "error-429.json"),
    ("anthropic-stream-error", "anthropic", "stream-error.sse"),
    ("anthropic-stream-cut", "anthropic", "stream-cut.sse"),
    ("anthropic-count", "anthropic", "count.json"),
    ("bedrock-text", "bedrock", "whole-text.json"),
    ("bedrock-stream", "bedrock", "stream-text.bin"),
    ("bedrock-tools", "bedrock", "whole-tools.json"),
    ("bedrock-stream-tools", "bedrock", "stream-tools-parallel.bin"),
    ("bedrock-stream-reasoning", "bedrock", "stream-reasoning.bin"),
    ("bedrock-error", "bedrock", "error-context-0.json"),
    ("bedrock-stream-error", "bedrock", "stream-throttled-later.bin"),
    ("bedrock-stream-cut", "bedrock", "stream-truncated.bin"),
    ("bedrock-claude-text", "bedrock", "claude-whole.json"),
    ("bedrock-claude-tools", "bedrock", "claude-whole-tools.json"),
    ("bedrock-claude-stream", "bedrock", "claude-stream-text.bin"),
    ("bedrock-claude-stream-tools", "bedrock", "claude-stream-tools.bin"),
    ("bedrock-claude-stream-cut", "bedrock", "claude-stream-truncated.bin"),
    ("bedrock-llama-text", "bedrock", "llama-whole.json"),
    ("bedrock-llama-stream", "bedrock", "llama-stream-text.bin"),
    ("bedrock-llama-stream-cut", "bedrock", "llama-stream-truncated.bin"),
    ("bedrock-openai-tools", "bedrock", "openai-whole-tools.json"),
    ("bedrock-openai-stream-tools", "bedrock", "openai-stream-tools.sse"),
    ("bedrock-openai-stream-cut", "bedrock", "openai-stream-truncated.sse"),
    ("bedrock-embeddings", "bedrock", "titan-2.json"),
    ("bedrock-count", "bedrock", "count-tokens.json"),
    ("sagemaker-vllm-text", "sagemaker", "whole-vllm.json"),
    ("sagemaker-vllm-tools", "sagemaker", "whole-vllm-tools.json"),
    ("sagemaker-vllm-stream", "sagemaker", "vllm-chat.bin"),
    ("sagemaker-vllm-stream-tools", "sagemaker", "vllm-tools.bin"),
    ("sagemaker-vllm-error", "sagemaker", "model-error-vllm-context.json"),
    ("sagemaker-vllm-stream-error", "sagemaker", "vllm-error.bin"),
    ("sagemaker-vllm-stream-cut", "sagemaker", "vllm-cut.bin"),
    ("sagemaker-tgi-text", "sagemaker", "whole-tgi.json"),
    ("sagemaker-tgi-stream", "sagemaker", "tgi-tokens.bin"),
    ("sagemaker-tgi-stream-error", "sagemaker", "tgi-error.bin"),
    ("sagemaker-tgi-stream-cut", "sagemaker", "tgi-cut.bin"),
    ("sagemaker-base-text", "sagemaker", "whole-base.json"),
    ("ollama-text", "ollama", "chat-text.json"),
    ("ollama-stream", "ollama", "chat-text.ndjson"),
    ("ollama-tools", "ollama", "chat-tools.json"),
    ("ollama-stream-tools", "ollama", "chat-tools.ndjson"),
    ("ollama-stream-reasoning", "ollama", "chat-thinking.ndjson"),
    ("ollama-error", "ollama", "error-context.json"),
    ("ollama-stream-error", "ollama", "chat-error-later.ndjson"),
    ("ollama-stream-cut", "ollama", "chat-cut.ndjson"),
    ("ollama-embeddings", "ollama", "embed.json"),
    ("llama-cpp-text", "llama-cpp", "chat-text.json"),
    ("llama-cpp-stream", "llama-cpp", "chat-text.sse"),
    ("llama-cpp-tools", "llama-cpp", "chat-tool-calls-parallel.json"),
    ("llama-cpp-stream-tools", "llama-cpp", "chat-tool-calls-parallel.sse"),
    ("llama-cpp-stream-reasoning", "llama-cpp", "chat-reasoning.sse"),
    ("llama-cpp-json-schema", "llama-cpp", "chat-json-schema.json"),
    ("llama-cpp-stream-json-schema", "llama-cpp", "chat-json-schema.sse"),
    ("llama-cpp-embeddings", "llama-cpp", "embeddings.json"),
    ("llama-cpp-error", "llama-cpp", "error-context.json"),
];

/// Dialects that have no place for tools.
const TEXTS: [&str; 6] =
    ["openai-completions", "ollama-generate", "awa-llm", "bedrock-chat", "llm-invocation", "llm-exe"];

/// Who may ask for such an answer. Text completions have no place for tools.
fn askers(name: &str, answer: &Answer) -> Vec<Client> {
    if name.ends_with("-embeddings") {
        return embedders();
    }
    if name.ends_with("-count") {
        return counters();
    }
    let text = |client: &Client| !name.contains("tools") || !TEXTS.contains(&client.dialect);
    clients(answer.head.stream).into_iter().filter(text).collect()
}

fn complete(events: &[Event]) -> bool {
    events.last() == Some(&Event::Done)
}

/// Holds what every client must be told of how the answer ended.
fn check(name: &str, client: &Client, events: &[Event], told: &Told) {
    let Client { dialect, stream, ends, error, usage, .. } = client;
    let clean: usize = ends.iter().map(|end| told.body.matches(end).count()).sum();
    let of = format!("{name} to {dialect}: {}", told.body);
    let counted = events.iter().any(
        |event| matches!(event, Event::Usage(usage) if usage.output_tokens.is_some() && usage.input_tokens.is_some()),
    );
    if complete(events) {
        assert_eq!(told.status, 200, "{of}");
        assert!(!stream || clean == 1, "no clean end, or more than one: {of}");
        assert!(!counted || told.body.contains(usage), "no token counts: {of}");
    } else if *stream && told.status == 200 {
        assert!(clean == 0, "a clean end of an answer that failed: {of}");
        assert!(told.body.contains(error), "nothing of the failure: {of}");
    } else {
        assert!(told.status >= 400, "{of}");
    }
}

#[test]
fn every_answer_is_in_every_dialect_what_was_read_and_approved() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots/answers");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    let mut wrong = Vec::new();
    for (name, adapter, file) in ANSWERS {
        let answer = fixture(adapter, file);
        let events = answer.events();
        assert_eq!(name.contains("error") || name.contains("cut"), !complete(&events), "{name}: {events:?}");
        let mut out = format!("{adapter}/{file}\n\n");
        for client in askers(name, &answer) {
            let told = client.sees(events.clone());
            check(name, &client, &events, &told);
            let whole = serde_json::from_str::<&serde_json::value::RawValue>(&told.body).is_ok();
            let body = if whole { pretty(&told.body) } else { told.body.trim_end().to_owned() };
            writeln!(out, "# {}\n\n{} {}\n{body}\n", client.dialect, told.status, told.content_type).unwrap();
        }
        if std::panic::catch_unwind(|| insta::assert_snapshot!(*name, out)).is_err() {
            wrong.push(*name);
        }
    }
    assert_eq!(wrong, [""; 0], "these are not what was approved");
    let kept = std::fs::read_dir(root("tests/matrix/snapshots/answers")).unwrap();
    let kept: BTreeSet<_> = kept.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let wanted: BTreeSet<_> = ANSWERS.iter().map(|(name, ..)| format!("{name}.snap")).collect();
    assert_eq!(kept, wanted, "snapshots of answers that are gone");
}

#[test]
fn a_stream_cut_anywhere_never_shows_the_clean_end_of_any_dialect() {
    let mut failed = 0;
    let streams = |(name, ..): &&(&str, &str, &str)| name.ends_with("-stream") || name.ends_with("-stream-tools");
    for (name, adapter, file) in ANSWERS.iter().filter(streams) {
        let answer = fixture(adapter, file);
        let whole = answer.events();
        let mut last = Vec::new();
        // What ends an answer stands at its end.
        let end = answer.body.len().saturating_sub(300);
        for length in (0..end).step_by(5).chain(end..answer.body.len()) {
            let events = answer.events_of(length);
            if events == last {
                continue;
            }
            let finished = events.iter().any(|event| matches!(event, Event::Finish(_)));
            assert!(finished || !complete(&events), "{name} is complete after {length} bytes, without a finish");
            // What comes behind the finish may be cut unnoticed; then nothing that it told is missing but counts.
            if complete(&events) {
                let content = |events: &[Event]| events.iter().filter(|event| event.is_content()).count();
                assert_eq!(content(&events), content(&whole), "{name} cut after {length} bytes has lost something");
            } else {
                failed += 1;
            }
            for client in askers(name, &answer) {
                check(&format!("{name} cut after {length} bytes"), &client, &events, &client.sees(events.clone()));
            }
            last = events;
        }
    }
    assert!(failed > 300, "{failed}");
}

#[test]
fn every_dialect_takes_part() {
    let known: BTreeSet<_> = [clients(true), clients(false), embedders(), counters()]
        .iter()
        .flatten()
        .map(|client| client.dialect)
        .collect();
    let routes: BTreeSet<_> = witgate_dialects::routes().iter().map(|route| route.dialect.as_str()).collect();
    assert_eq!(known, routes, "a dialect needs a client in tests/matrix/src/answers.rs");
}
