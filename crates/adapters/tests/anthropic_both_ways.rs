//! The Messages API on both sides: what its client sends arrives as it was sent, and so does the answer.

mod common;

use common::{answers, events};
use serde_json::{Value, json};
use witgate_adapters::Anthropic;
use witgate_dialects::{Renderer, default_limits, parse};
use witgate_model::normaliser::AnswerStart;
use witgate_model::{Adapter, Event, Framing};

/// Numbers by value; what is not given is no member.
fn comparable(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(comparable),
        Value::Array(list) => list.iter_mut().for_each(comparable),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

fn arrives(path: &str, request: &Value) {
    let parsed = parse("anthropic-messages", path, &default_limits(), request.to_string().as_bytes()).unwrap();
    let http = Anthropic::encode("{}", parsed.request).unwrap();
    assert_eq!(format!("/{}", http.path.join("/")), path);
    let (mut arrived, mut sent) = (serde_json::from_slice(&http.body).unwrap(), request.clone());
    comparable(&mut arrived);
    comparable(&mut sent);
    assert_eq!(arrived, sent);
}

#[test]
fn a_request_arrives_equal_as_json() {
    let mark = json!({"type": "ephemeral", "ttl": "1h"});
    let requests = [
        json!({"messages": [{"role": "user", "content": "Hi"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "system": "S"}),
        json!({"messages": [{"role": "user", "content": ""}, {"role": "user", "content": "b", "x": null}],
            "system": [{"type": "text", "text": "S", "cache_control": mark}, {"type": "text", "text": ""}]}),
        json!({"messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "", "signature": "sig"},
                    {"type": "thinking", "thinking": "hm", "signature": "sig", "y": 1},
                    {"type": "redacted_thinking", "data": "enc"},
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
                    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                    {"type": "text", "text": "a", "citations": [{"type": "char_location", "cited_text": "b"}]},
                    {"type": "tool_use", "id": "t 1", "name": "f.g", "input": {"n": [1, {"b": null}]}, "caller": {"type": "direct"}},
                    {"type": "tool_use", "id": "t2", "name": "h", "input": {}, "cache_control": {"type": "ephemeral"}}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "before"},
                    {"type": "tool_result", "tool_use_id": "t 1", "content": "x", "is_error": false},
                    {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "cache_control": mark, "content": [
                        {"type": "text", "text": "y"},
                        {"type": "image", "source": {"type": "url", "url": "https://e.com/a.png"}},
                        {"type": "search_result", "source": "s", "title": "t", "content": []},
                        {"type": "tool_reference", "tool_name": "z"}]},
                    {"type": "tool_result", "tool_use_id": "t3"},
                    {"type": "tool_result", "tool_use_id": "t4", "content": ""},
                    {"type": "tool_result", "tool_use_id": "t5", "content": [{"type": "text", "text": "one"}]},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                    {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                    {"type": "document", "title": "T", "context": "C", "citations": {"enabled": true},
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t", "x": 1}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "z"}]}},
                    {"type": "container_upload", "file_id": "file_2"}]},
                {"role": "system", "content": "in between"}],
            "tools": [
                {"name": "f.g", "description": "", "input_schema": {"type": "object"}, "strict": false, "cache_control": mark,
                    "eager_input_streaming": true, "input_examples": [{"a": 1}]},
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
                {"name": "h", "input_schema": {"properties": {}}, "defer_loading": true}],
            "tool_choice": {"type": "tool", "name": "f.g", "disable_parallel_tool_use": true, "x": 1},
            "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
            "metadata": {"user_id": "u", "more": 1}, "service_tier": "auto", "container": null, "speed": "fast",
            "temperature": 1.0, "top_p": 0.25, "top_k": 5, "stop_sequences": ["\n", "END"], "stream": true,
            "cache_control": mark, "mcp_servers": [{"type": "url", "url": "https://e.com", "name": "m"}]}),
        json!({"messages": [{"role": "user", "content": []}], "thinking": {"type": "adaptive"},
            "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}, "x": 1}, "y": 2},
            "tool_choice": {"type": "none"}}),
        json!({"messages": [{"role": "user", "content": "a"}], "thinking": {"type": "disabled"},
            "output_config": {"task_budget": {"total": 5}}, "tool_choice": {"type": "any", "disable_parallel_tool_use": false}}),
        json!({"messages": [{"role": "user", "content": "a"}], "thinking": {"type": "between_tools"},
            "output_config": {"format": {"type": "grammar", "grammar": "x"}}, "tool_choice": {"type": "later", "z": 1},
            "metadata": {"other": 1}}),
    ];
    for mut request in requests {
        request["model"] = json!("claude-sonnet-4-5");
        let mut count = request.clone();
        request["max_tokens"] = json!(100);
        arrives("/v1/messages", &request);
        for name in ["stream", "temperature"] {
            count.as_object_mut().unwrap().remove(name);
        }
        arrives("/v1/messages/count_tokens", &count);
    }
}

/// The data of the events, without those that say nothing.
fn data(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).unwrap();
    let known = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    let mut events: Vec<Value> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(line).unwrap();
        let empty = ["partial_json", "text", "thinking"].iter().any(|name| event["delta"][name] == "");
        if known.contains(&event["type"].as_str().unwrap()) && !empty {
            events.push(event);
        }
    }
    events
}

#[test]
fn an_answer_comes_back_equal_as_json() {
    let mut seen = 0;
    for answer in answers("anthropic", &Framing::Sse) {
        let events = events::<Anthropic>(&answer, &[]);
        let own = answer.context.is_none() || answer.name.starts_with("count");
        // What is not as the API has it is brought into its form.
        let odd = [
            "stream-interleaved.sse",
            "stream-input-at-start.sse",
            "stream-unknown.sse",
            "stream-cache-repeated.sse",
            "message-stream-asked.json",
        ];
        if events.last() != Some(&Event::Done) || !own || odd.contains(&answer.name.as_str()) {
            continue;
        }
        seen += 1;
        let render = match (answer.head.stream, &answer.context) {
            (_, Some(_)) => "/v1/messages/count_tokens",
            _ => "/v1/messages",
        };
        let mut request =
            json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": answer.head.stream});
        if render == "/v1/messages" {
            request["max_tokens"] = json!(1);
        }
        let parsed = parse("anthropic-messages", render, &default_limits(), request.to_string().as_bytes()).unwrap();
        let start = AnswerStart { render: parsed.render, id: "1".into(), created: 0, model: "m".into() };
        let bytes = Renderer::new("anthropic-messages", start).feed(events);
        if answer.head.stream {
            assert_eq!(data(&bytes), data(&answer.body), "{}", answer.name);
        } else {
            let (told, sent): (Value, Value) =
                (serde_json::from_slice(&bytes).unwrap(), serde_json::from_slice(&answer.body).unwrap());
            assert_eq!(told, sent, "{}", answer.name);
        }
    }
    assert!(seen > 14, "{seen}");
}
