//! From Ollama's dialects to Ollama and back: what the client sent arrives, and what Ollama answered comes back.

mod common;

use common::{Answer, answers};
use serde_json::{Value, json};
use witgate_adapters::Ollama;
use witgate_dialects::{Renderer, default_limits, parse};
use witgate_model::normaliser::AnswerStart;
use witgate_model::{Adapter, Framing};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Whole numbers are equal however they were written.
fn comparable(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(list) => list.iter_mut().for_each(comparable),
        Value::Object(object) => object.values_mut().for_each(comparable),
        _ => {}
    }
}

#[test]
fn a_request_in_the_same_dialect_arrives_equal_as_json() {
    for (name, sent) in [
        ("chat", json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": true})),
        (
            "chat",
            json!({
                "model": "m", "stream": false, "keep_alive": "5m", "truncate": false, "shift": true, "think": "high",
                "format": {"type": "object", "properties": {"a": {"type": "integer"}}}, "logprobs": true, "top_logprobs": 2,
                "options": {"temperature": 1.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": -1, "stop": ["a", "b"],
                    "num_predict": -2, "repeat_penalty": 1.1, "repeat_last_n": 64, "presence_penalty": 0.5,
                    "frequency_penalty": 0.25, "num_ctx": 4096, "mirostat": 1, "unknown": {"a": [1, null]}},
                "tools": [
                    {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object",
                        "properties": {}}, "x": 1}, "items": [1]},
                    {"type": "function", "function": {"name": "g"}},
                ],
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Look.", "images": [PIXEL], "x": {"y": 1}},
                    {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [
                        {"function": {"name": "f", "arguments": {"a": 1.5}}},
                        {"function": {"index": 1, "name": "f", "arguments": {}}},
                        {"id": "call_1", "function": {"index": 7, "name": "g", "arguments": {"b": {"c": []}}, "z": 1}, "w": 2},
                    ]},
                    {"role": "tool", "content": "1", "tool_name": "f"},
                    {"role": "tool", "content": "2", "tool_name": "f", "images": [PIXEL]},
                    {"role": "tool", "content": "3", "tool_call_id": "call_1", "tool_name": "g", "x": 1},
                    {"role": "tool", "content": "4"},
                    {"role": "critic", "content": "x"},
                    {"role": "assistant", "content": "Two."},
                ],
                "future": [1, 2.5],
            }),
        ),
        (
            "chat",
            json!({"model": "m", "stream": false, "think": false, "format": "json", "options": {"num_predict": 7},
            "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]}),
        ),
        (
            "generate",
            json!({"model": "m", "prompt": "a", "system": "s", "images": [PIXEL], "stream": true,
            "context": [1, 2], "template": "t", "think": true, "options": {"seed": 1}}),
        ),
        ("generate", json!({"model": "m", "prompt": "a", "raw": true, "stream": false, "keep_alive": 3})),
        ("generate", json!({"model": "m", "prompt": "a", "suffix": "b", "stream": false, "system": "s"})),
        (
            "embed",
            json!({"model": "m", "input": ["a", "b"], "dimensions": 3, "truncate": true, "options": {"num_ctx": 9}}),
        ),
        ("embed", json!({"model": "m", "input": "a", "keep_alive": "1m", "x": 1})),
        ("embeddings", json!({"model": "m", "prompt": "a", "options": {"num_ctx": 9}})),
    ] {
        let (dialect, path) = (format!("ollama-{name}"), format!("/api/{name}"));
        let parsed = parse(&dialect, &path, &default_limits(), sent.to_string().as_bytes()).unwrap();
        let http = Ollama::encode("{}", parsed.request).unwrap();
        assert_eq!(http.path, ["api", name]);
        let (mut arrived, mut sent) = (serde_json::from_slice(&http.body).unwrap(), sent);
        comparable(&mut arrived);
        comparable(&mut sent);
        assert_eq!(arrived, sent);
    }
}

fn rendered(answer: &Answer, dialect: &str) -> Vec<Value> {
    let start = AnswerStart {
        render: if answer.head.stream { "stream".into() } else { String::new() },
        model: "m".into(),
        created: 0,
        ..AnswerStart::default()
    };
    let mut renderer = Renderer::new(dialect, start);
    let out = renderer.feed(common::events::<Ollama>(answer, &[]));
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_answer_in_the_same_dialect_comes_back_equal_as_json() {
    let mut seen = 0;
    for mut answer in answers("ollama", &Framing::Ndjson) {
        let operation = answer.context.as_deref().unwrap_or("chat 0").split(' ').take(2).collect::<Vec<_>>();
        let skipped = [
            // No answers, models, or not Ollama's.
            "error",
            "tags",
            "cut",
            "not-",
            "html",
            "empty",
            "few",
            "same-ids",
            "after-done",
            "unknown",
            // No reason, and no id, are written as ours.
            "no-reason",
            // Each call has a line of its own; its place in the answer is always told.
            "tools.ndjson",
            "no-ids",
        ];
        if skipped.iter().any(|part| answer.name.contains(part)) {
            continue;
        }
        let dialect = format!("ollama-{}", operation[0]);
        answer.context = Some(format!("{} native", operation.join(" ")));
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let mut sent: Vec<Value> =
            body.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut back = rendered(&answer, &dialect);
        for value in sent.iter_mut().chain(&mut back) {
            comparable(value);
        }
        assert_eq!(back, sent, "{}", answer.name);
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}
