//! Bodies made to hurt: each must come to an end, in linear time, with an answer or a clear error.

mod common;

use std::time::{Duration, Instant};

use common::{chat, completion, restore};
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::{default_limits, parse};
use witgate_model::Input;

const DIALECTS: [&str; 12] = [
    "openai-chat",
    "openai-completions",
    "openai-embeddings",
    "openai-responses",
    "anthropic-messages",
    "awa-llm",
    "ollama-chat",
    "ollama-generate",
    "ollama-embed",
    "ollama-embeddings",
    "bedrock-chat",
    "llm-invocation",
];

fn megabytes(piece: &str) -> String {
    piece.repeat(10 * 1024 * 1024 / piece.len())
}

/// A debug build takes a few seconds for what is quadratic at a hundredth of this size.
fn quickly(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    assert!(start.elapsed() < Duration::from_secs(30), "{what} took {:?}", start.elapsed());
}

#[test]
fn ten_mebibytes_of_anything_end_in_linear_time() {
    let user = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":"{content}"}}]}}"#);
    let mut names = String::new();
    for number in 0..600_000 {
        names.push_str(&format!("\"m{number}\":1,"));
    }
    let bodies = [
        ("backslashes", user(&megabytes("\\\\")), true),
        ("quotes", user(&megabytes("\\\"")), true),
        ("escapes", user(&megabytes("\\u00e9")), true),
        ("a backslash too many", user(&megabytes("\\\\").replacen("\\", "", 1)), false),
        ("quotes without escape", user(&megabytes("\"")), false),
        ("nothing but quotes", megabytes("\""), false),
        ("nothing but backslashes", megabytes("\\"), false),
        ("opening brackets", megabytes("["), false),
        ("opening braces", megabytes("{\"a\":"), false),
        ("unknown brackets", format!("{{\"x\":{}", megabytes("[")), false),
        ("blanks", megabytes(" "), false),
        ("commas", format!("[{}", megabytes(",")), false),
        ("digits", format!("{{\"n\":{}}}", megabytes("9")), false),
        ("digits of a float", format!("{{\"temperature\":0.{}}}", megabytes("9")), false),
        ("digits that nobody reads", format!("{{\"x\":{}}}", megabytes("9")), false),
        ("members", format!("{{{}\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}]}}", names), true),
        (
            "inner members",
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],\"x\":{{{names}\"z\":1}}}}"),
            true,
        ),
        ("one name again and again", format!("{{\"x\":{{{}}}}}", megabytes("\"a\":1,")), false),
        (
            "numbers",
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],\"x\":[{}1]}}", megabytes("1,")),
            true,
        ),
        ("part types", format!("{{\"messages\":[{{\"role\":\"user\",\"content\":[{}", megabytes("{\"a\":1,")), false),
    ];
    for (what, body, good) in &bodies {
        quickly(what, || {
            let result = chat(body);
            assert_eq!(result.is_ok(), *good, "{what}: {:?}", result.map(|_| ()));
            if let Err(error) = result {
                assert!(error.message.len() < 2000, "{what}: the message is long");
                assert!(error.param.is_none_or(|param| param.len() < 1000), "{what}: the path is long");
            }
        });
    }
    for dialect in ["openai-completions", "awa-llm"] {
        quickly(dialect, || {
            let body = format!("{{\"prompt\":\"{}\"}}", megabytes("\\\\"));
            let parsed = parse(dialect, "/", &default_limits(), body.as_bytes()).unwrap();
            let length = match parsed.request.input {
                Input::Completion(prompt) => prompt.text.len(),
                Input::Chat(messages) => match &messages[0].parts[0] {
                    witgate_model::Part::Text(text) => text.text.len(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            assert_eq!(length, 5 * 1024 * 1024);
        });
    }
}

#[test]
fn ten_mebibytes_of_texts_and_tokens_end_in_linear_time() {
    for (what, body, good) in [
        ("a text", format!("{{\"input\":\"{}\"}}", megabytes("\\\"")), true),
        ("texts", format!("{{\"input\":[{}\"a\"]}}", megabytes("\"a\",")), false),
        ("tokens", format!("{{\"input\":[{}1]}}", megabytes("1,")), true),
        ("texts of tokens", format!("{{\"input\":[{}[1]]}}", megabytes("[1],")), false),
        ("brackets", format!("{{\"input\":{}", megabytes("[")), false),
    ] {
        quickly(what, || {
            let result = parse("openai-embeddings", "/v1/embeddings", &default_limits(), body.as_bytes());
            assert_eq!(result.is_ok(), good, "{what}");
        });
    }
}

#[test]
fn ten_mebibytes_of_items_end_in_linear_time() {
    let items = |piece: &str, last: &str| format!("{{\"input\":[{}{last}]}}", megabytes(piece));
    let said = r#"{"type":"message","role":"assistant","content":"a"},"#;
    let call = r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},"#;
    let reference = r#"{"type":"item_reference","id":"msg_1_0"},"#;
    let behind = format!("{{\"input\":[{{\"content\":\"{}\",\"id\":\"i\",\"role\":\"user\"}}]}}", megabytes("a"));
    let parts = r#"{"type":"input_text","text":"a"},"#;
    for (what, body, good) in [
        ("a text", format!("{{\"input\":\"{}\"}}", megabytes("\\\"")), true),
        ("messages", items(said, "1"), false),
        ("calls", items(call, "1"), false),
        ("references", items(reference, reference.trim_end_matches(',')), false),
        ("members behind the content", behind, true),
        ("parts", format!("{{\"input\":[{{\"role\":\"user\",\"content\":[{}{{}}]}}]}}", megabytes(parts)), false),
        ("brackets", format!("{{\"input\":{}", megabytes("[")), false),
        ("types", format!("{{\"input\":[{}", megabytes("{\"type\":")), false),
        ("instructions", format!("{{\"input\":\"a\",\"instructions\":\"{}\"}}", megabytes("\\n")), true),
    ] {
        quickly(what, || {
            let result = parse("openai-responses", "/v1/responses", &default_limits(), body.as_bytes());
            assert_eq!(result.is_ok(), good, "{what}: {:?}", result.map(|_| ()));
        });
    }
}

#[test]
fn a_mebibyte_in_ollamas_api_ends_in_linear_time() {
    let mebibyte = |piece: &str| piece.repeat(1024 * 1024 / piece.len());
    let assistant = |calls: &str| format!(r#"{{"role":"assistant","tool_calls":[{calls}]}}"#);
    let chat = |messages: &str| format!(r#"{{"messages":[{messages}]}}"#);
    let many = |piece: &str| mebibyte(piece).trim_end_matches(',').to_owned();
    let call = r#"{"function":{"name":"f"}},"#;
    let results = r#"{"role":"tool","tool_name":"f"},"#.repeat(9_000);
    let nameless = r#"{"role":"tool"},"#.repeat(9_000);
    let turns = format!("{},", assistant(r#"{"function":{"name":"f"}}"#)).repeat(9_000);
    for (what, dialect, body, good) in [
        ("calls", "ollama-chat", chat(&assistant(&many(call))), true),
        (
            "results",
            "ollama-chat",
            chat(&format!("{},{}", assistant(&many(call)), results.trim_end_matches(','))),
            true,
        ),
        (
            "nameless",
            "ollama-chat",
            chat(&format!("{},{}", assistant(&many(call)), nameless.trim_end_matches(','))),
            true,
        ),
        ("turns", "ollama-chat", chat(turns.trim_end_matches(',')), true),
        ("images", "ollama-chat", chat(&format!(r#"{{"role":"user","images":[{}]}}"#, many("\"A\","))), false),
        ("a picture", "ollama-generate", format!(r#"{{"prompt":"a","images":["{}"]}}"#, mebibyte("A")), true),
        ("a prompt", "ollama-generate", format!(r#"{{"prompt":"{}"}}"#, mebibyte("\\\"")), true),
        ("context", "ollama-generate", format!(r#"{{"prompt":"a","context":[{}]}}"#, many("1,")), true),
        ("options", "ollama-generate", format!(r#"{{"prompt":"a","options":{{"x":{}"#, mebibyte("{\"a\":")), false),
        ("no time", "ollama-generate", format!(r#"{{"keep_alive":"{}"}}"#, mebibyte("0")), true),
        ("texts", "ollama-embed", format!(r#"{{"input":[{}]}}"#, many("\"a\",")), false),
        ("a text", "ollama-embeddings", format!(r#"{{"prompt":"{}"}}"#, mebibyte("\\\"")), true),
    ] {
        quickly(what, || {
            let result = parse(dialect, "/", &default_limits(), body.as_bytes());
            assert_eq!(result.is_ok(), good, "{what}: {:?}", result.map(|_| ()));
        });
    }
}

#[test]
fn ten_mebibytes_of_anthropics_blocks_end_in_linear_time() {
    let content = |content: String| format!(r#"{{"max_tokens":1,"messages":[{{"role":"user","content":{content}"#);
    let result = |content: &str| format!(r#"[{{"type":"tool_result","tool_use_id":"a","content":{content}"#);
    for (what, body, good) in [
        ("blocks", content(format!("[{}{{\"type\":\"x\"}}]}}]}}", megabytes("{\"type\":\"x\"},"))), true),
        ("nested results", content(megabytes(&result("")[..])), false),
        ("a type that comes last", content(format!("[{{\"x\":[{}1],\"type\":\"x\"}}]}}]}}", megabytes("1,"))), true),
        (
            "pieces of a result",
            content(format!("{}[{}{{\"type\":\"x\"}}]}}]}}]}}", result(""), megabytes("{\"type\":\"x\"},"))),
            true,
        ),
        (
            "an input",
            content(format!(
                "[{{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{{\"a\":\"{}\"}}}}]}}]}}",
                megabytes("\\\"")
            )),
            true,
        ),
        ("stop sequences", format!("{{\"stop_sequences\":[{}\"a\"]", megabytes("\"a\",")), false),
    ] {
        quickly(what, || {
            let result = parse("anthropic-messages", "/v1/messages", &default_limits(), body.as_bytes());
            assert_eq!(result.is_ok(), good, "{what}: {:?}", result.map(|_| ()));
        });
    }
}

#[test]
fn a_great_depth_limit_does_not_reach_the_stack() {
    let limits = witgate_model::normaliser::Limits { depth: u32::MAX, messages: 1 };
    let nested = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let body = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"x":{nested}}}"#);
    let parsed = parse("openai-chat", "/", &limits, body.as_bytes()).unwrap();
    assert_eq!(parsed.request.extra.unwrap().len(), 2_000_000 + r#"{"x":}"#.len());
}

#[test]
fn every_cut_of_a_good_request_is_an_error_with_a_place() {
    for body in [
        include_str!("../../../tests/fixtures/requests/unknown-fields.json"),
        include_str!("../../../tests/fixtures/requests/parts.json"),
        include_str!("../../../tests/fixtures/requests/foreign-types.json"),
    ] {
        let body = body.trim_end();
        for (end, _) in body.char_indices().skip(1) {
            let error = chat(&body[..end]).expect_err("a cut request");
            assert!(error.message.contains("(line "), "{}", error.message);
        }
    }
}

/// Any JSON, not too large.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000..1_000_000).prop_map(|number| Value::from(f64::from(number) / 1000.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("x_[a-z]{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A part that this dialect knows, with unknown members here and there.
fn any_part() -> impl Strategy<Value = Value> {
    let text = ".{0,20}";
    let url = prop_oneof![
        "[A-Za-z0-9+/]{0,12}".prop_map(|data| format!("data:image/png;base64,{data}")),
        "https://[a-z]{1,8}/[a-z]{0,4}",
    ];
    prop_oneof![
        (text, any_json()).prop_map(|(text, x)| json!({"type": "text", "text": text, "x_y": x})),
        text.prop_map(
            |text| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": "1h"}})
        ),
        (url, any_json()).prop_map(|(url, x)| json!({"type": "image_url", "image_url": {"url": url, "x_z": x}})),
        "[a-z]{1,5}".prop_map(|id| json!({"type": "file", "file": {"file_id": id}})),
        any_json().prop_map(|x| json!({"type": "x_new", "x_new": x})),
    ]
}

fn any_message() -> impl Strategy<Value = Value> {
    let parts = prop::collection::vec(any_part(), 1..4).prop_map(Value::from);
    let content = prop_oneof![".{0,40}".prop_map(Value::from), parts].boxed();
    let call = ("[a-z]{1,8}", ".{0,12}", any_json()).prop_map(|(name, text, x)| {
        json!({"id": "c", "type": "function", "function": {"name": name, "arguments": json!({"a": text}).to_string(), "x_f": x}})
    });
    prop_oneof![
        (content.clone(), any_json()).prop_map(|(c, x)| json!({"role": "user", "content": c, "x_message": x})),
        content.clone().prop_map(|c| json!({"role": "system", "content": c, "name": "n"})),
        content.clone().prop_map(|c| json!({"role": "tool", "tool_call_id": "c", "content": c})),
        (content, prop::collection::vec(call, 1..3), ".{0,8}").prop_map(|(c, calls, thought)| {
            json!({"role": "assistant", "content": c, "tool_calls": calls, "reasoning_content": thought})
        }),
    ]
}

prop_compose! {
    fn any_request()(
        messages in prop::collection::vec(any_message(), 1..5),
        temperature in prop::option::of((0..2000).prop_map(|number| f64::from(number) / 1000.0)),
        n in prop::option::of(1u32..9),
        seed in prop::option::of(any::<i64>()),
        max_tokens in prop::option::of(any::<u64>()),
        stop in prop::collection::vec(".{0,4}", 0..3),
        unknown in any_json(),
        parameters in prop::collection::hash_map("x_[a-z]{0,6}", any_json(), 0..3),
        stream in any::<bool>(),
    ) -> Value {
        let mut request = json!({
            "model": "m", "messages": messages, "temperature": temperature, "n": n, "seed": seed,
            "max_tokens": max_tokens, "x_unknown": unknown,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        });
        let members = request.as_object_mut().unwrap();
        members.retain(|name, value| name == "x_unknown" || !value.is_null());
        if !stop.is_empty() {
            members.insert("stop".into(), json!(stop));
        }
        if stream {
            members.insert("stream".into(), true.into());
        }
        request
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_parsed_holds_all_that_was_sent(request in any_request(), pretty in any::<bool>()) {
        let body = if pretty { serde_json::to_string_pretty(&request) } else { serde_json::to_string(&request) }.unwrap();
        let parsed = chat(&body).map_err(|error| TestCaseError::fail(error.message))?;
        prop_assert_eq!(restore(&parsed.request, false), request);
    }

    #[test]
    fn a_mutated_request_never_panics_and_is_judged_as_another_parser_does(
        request in any_request(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let mut body = serde_json::to_vec(&request).unwrap();
        for (place, byte, how) in edits {
            let at = place.index(body.len().max(1)).min(body.len().saturating_sub(1));
            match how {
                _ if body.is_empty() => {}
                0 => body[at] = byte,
                1 => drop(body.remove(at)),
                _ => body.insert(at, br#"{}[]",:\0nu"#[usize::from(byte) % 11]),
            }
        }
        for dialect in DIALECTS {
            let result = parse(dialect, "/", &default_limits(), &body);
            let json = serde_json::from_slice::<Value>(&body);
            if result.is_ok() {
                prop_assert!(json.is_ok(), "{dialect} took what is not JSON: {:?}", String::from_utf8_lossy(&body));
            }
        }
        // Whatever is JSON is never called broken JSON (but for what we refuse beyond it: duplicates, depth, numbers
        // that serde's tree cannot hold come out the other way round).
        if serde_json::from_slice::<Value>(&body).is_ok()
            && let Err(error) = parse("openai-chat", "/", &default_limits(), &body) {
            prop_assert!(!error.message.starts_with("invalid JSON"), "{}", error.message);
        }
    }

    #[test]
    fn any_json_is_accepted_as_an_unknown_member_and_kept(value in any_json()) {
        let body = format!(r#"{{"prompt":"p","x":{value}}}"#);
        for parsed in [
            completion(&body),
            parse("awa-llm", "/llm", &default_limits(), body.as_bytes()),
            parse("ollama-generate", "/api/generate", &default_limits(), body.as_bytes()),
            parse("openai-responses", "/v1/responses", &default_limits(), body.replace("prompt", "input").as_bytes()),
        ] {
            let extra: Value = serde_json::from_str(&parsed.unwrap().request.extra.unwrap()).unwrap();
            prop_assert_eq!(&extra["x"], &value);
        }
    }

    #[test]
    fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for dialect in DIALECTS {
            let _ = parse(dialect, "/", &default_limits(), &body);
        }
    }
}
