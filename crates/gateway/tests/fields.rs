//! Invariant 9: unknown fields, both ways.

use serde_json::{Value, json};
use witgate_adapters::OpenAi;
use witgate_dialects::{Renderer, parse};
use witgate_model::normaliser::{AnswerStart, Limits};
use witgate_model::{Adapter, Decoder, ErrorKind, Frame, Framing, ResponseHead};

const LIMITS: Limits = Limits { depth: 64, messages: 1000 };

fn sent(request: &Value) -> Value {
    let body = request.to_string();
    let parsed = parse("openai-chat", "/v1/chat/completions", &LIMITS, body.as_bytes()).unwrap();
    let http = OpenAi::encode("{}", parsed.request).unwrap();
    serde_json::from_slice(&http.body).unwrap()
}

#[test]
fn invariant_9_unknown_fields_of_a_request_reach_a_backend_of_its_dialect_at_every_level() {
    let request = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "s", "x_message": {"deep": [1, 2.50, null]}},
            {"role": "user", "name": "u", "content": [
                {"type": "text", "text": "t", "x_part": true},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "x_part_type", "x": 1},
            ]},
            {"role": "assistant", "content": "a", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}, "x_call": 1},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "x_tool": 1}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "temperature": 0.5,
        "x_top": {"a": "b"},
        "mirostat": 2,
        "metadata": {"k": "v"},
    });
    assert_eq!(sent(&request), request);
}

#[test]
fn invariant_9_unknown_fields_of_an_answer_reach_a_client_of_its_dialect() {
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "x_top": [1],
        "choices": [{"index": 0, "finish_reason": "stop", "x_choice": {"y": 1},
                     "message": {"role": "assistant", "content": "a", "x_message": "z"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "x_usage": 4},
        "timings": {"prompt_n": 1},
    });
    let body = br#"{"model":"m","messages":[{"role":"user","content":"u"}]}"#;
    let parsed = parse("openai-chat", "/v1/chat/completions", &LIMITS, body).unwrap();
    let head = ResponseHead { status: 200, headers: vec![], framing: Framing::Whole, stream: false };
    let mut decoder = OpenAi::decoder("{}", None, head);
    let mut events = decoder.feed(vec![Frame::Bytes(answer.to_string().into_bytes())]);
    if !events.last().is_some_and(witgate_model::Event::is_last) {
        events.extend(decoder.finish());
    }
    let start = AnswerStart { render: parsed.render, id: "x".into(), created: 9, model: "m".into() };
    let rendered = Renderer::new("openai-chat", start).feed(events);
    let rendered: Value = serde_json::from_slice(&rendered).unwrap();
    for pointer in ["/x_top", "/choices/0/x_choice", "/choices/0/message/x_message", "/timings", "/usage/x_usage"] {
        assert_eq!(rendered.pointer(pointer), answer.pointer(pointer), "{pointer}: {rendered}");
    }
}

#[test]
fn invariant_9_what_another_dialect_cannot_carry_is_refused_by_name() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"u"}],"x_top":1}"#;
    let mut parsed = parse("openai-chat", "/v1/chat/completions", &LIMITS, body).unwrap();
    parsed.request.dialect = "another-dialect".into();
    let error = OpenAi::encode("{}", parsed.request).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(error.param.as_deref(), Some("x_top"));
}
