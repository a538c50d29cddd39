//! A client and a backend of the same dialect: what the one sends arrives equal as JSON, unknown members too, and so does
//! the answer. (`crates/adapters/tests/*_both_ways.rs` hold the same of every kept answer, streams included.)

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use witgate_dialects::Renderer;
use witgate_framing::{Framer, Limits};
use witgate_matrix::{api, parse_request};
use witgate_model::normaliser::AnswerStart;
use witgate_model::{Event, ResponseHead};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What may differ: numbers are compared by value; `null` for a known member is a member that was not given.
fn comparable(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| name.starts_with("x_") || !value.is_null());
            object.values_mut().for_each(comparable);
        }
        Value::Array(list) => list.iter_mut().for_each(comparable),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

/// An adapter's settings, where its name alone does not say which API is asked.
fn settings(adapter: &str) -> (&str, &str) {
    match adapter {
        "openai responses" => ("openai", r#"{"api":"responses"}"#),
        adapter => (adapter, "{}"),
    }
}

/// What arrives at `adapter` of a request in its own dialect.
fn arrived(dialect: &str, path: &str, adapter: &str, sent: &Value) -> Value {
    let request = parse_request(dialect, path, "", &sent.to_string()).request;
    let (adapter, settings) = settings(adapter);
    let http = (api(adapter).encode)(settings, request).unwrap_or_else(|error| panic!("{error:?}\n{sent}"));
    serde_json::from_slice(&http.body).unwrap()
}

/// What comes back to the client of a backend's answer: the body, cut into two network reads.
fn returned(dialect: &str, path: &str, adapter: &str, sent: &Value, answer: &[u8], cut: usize) -> String {
    let parsed = parse_request(dialect, path, "", &sent.to_string());
    let stream = parsed.request.stream;
    let (adapter, settings) = settings(adapter);
    let http = (api(adapter).encode)(settings, parsed.request).unwrap();
    let mut framer = Framer::new(&http.framing, Limits::default()).unwrap();
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: http.framing, stream };
    let mut decoder = (api(adapter).decoder)(settings, http.context, head);
    let start = AnswerStart { render: parsed.render, id: "a".into(), created: 1, model: "m".into() };
    let mut renderer = Renderer::new(dialect, start);
    let mut out = Vec::new();
    let mut last = None;
    for (piece, end) in [(&answer[..cut], false), (&answer[cut..], true)] {
        let mut frames = Vec::new();
        framer.push(piece, &mut frames).unwrap();
        if end {
            framer.finish(&mut frames).unwrap();
        }
        if !frames.is_empty() {
            let events = decoder.feed(frames);
            last = events.last().cloned().or(last);
            out.extend(renderer.feed(events));
        }
    }
    if !last.as_ref().is_some_and(Event::is_last) {
        let events = decoder.finish();
        last = events.last().cloned();
        out.extend(renderer.feed(events));
    }
    assert_eq!(last, Some(Event::Done), "{}", String::from_utf8_lossy(answer));
    String::from_utf8(out).unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("x_[a-z]{0,4}", inner, 0..3).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Members that no dialect knows.
fn unknown() -> BoxedStrategy<Map<String, Value>> {
    btree_map("x_[a-z]{1,4}", any_json(), 0..3).prop_map(|members| members.into_iter().collect()).boxed()
}

/// `object` without members that are `null`, and with `more`.
fn with(object: Value, more: Map<String, Value>) -> Value {
    let Value::Object(mut members) = object else { panic!("no object: {object}") };
    members.retain(|_, value| !value.is_null());
    members.extend(more);
    Value::Object(members)
}

fn arguments() -> impl Strategy<Value = Value> {
    btree_map("[a-c]", any_json(), 0..3).prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn thousandths() -> impl Strategy<Value = Option<f64>> {
    option::of((0..1000).prop_map(|number| f64::from(number) / 1000.0))
}

/// Ids that an answer has twice are told apart; these differ.
fn tell_apart(calls: &mut [Value]) {
    for (number, call) in calls.iter_mut().enumerate() {
        if let Some(id) = call["id"].as_str() {
            call["id"] = json!(format!("{id}-{number}"));
        }
    }
}

mod openai {
    use super::*;

    fn part() -> impl Strategy<Value = Value> {
        let url = prop_oneof![Just(format!("data:image/png;base64,{PIXEL}")), Just("https://e.com/a.png".to_owned())];
        prop_oneof![
            (".{0,8}", unknown()).prop_map(|(text, x)| with(json!({"type": "text", "text": text}), x)),
            (url, option::of("low|high"), unknown(), unknown()).prop_map(|(url, detail, x, y)| {
                let image = with(json!({"url": url, "detail": detail}), y);
                with(json!({"type": "image_url", "image_url": image}), x)
            }),
            unknown().prop_map(|x| with(json!({"type": "x_part", "data": 1}), x)),
        ]
    }

    fn content() -> impl Strategy<Value = Value> {
        prop_oneof![".{0,8}".prop_map(Value::from), vec(part(), 1..4).prop_map(Value::from)]
    }

    pub fn call() -> impl Strategy<Value = Value> {
        ("[a-z_0-9]{1,8}", "[fg]", arguments(), unknown(), unknown()).prop_map(|(id, name, arguments, x, y)| {
            let function = with(json!({"name": name, "arguments": arguments.to_string()}), y);
            with(json!({"id": id, "type": "function", "function": function}), x)
        })
    }

    fn message() -> impl Strategy<Value = Value> {
        prop_oneof![
            ("system|developer|user", content(), option::of("[a-z]{1,4}"), unknown())
                .prop_map(|(role, content, name, x)| with(json!({"role": role, "content": content, "name": name}), x)),
            (".{0,8}", option::of(".{1,8}"), vec(call(), 0..3), unknown()).prop_map(|(text, thought, calls, x)| {
                let calls = if calls.is_empty() { Value::Null } else { Value::from(calls) };
                let message =
                    json!({"role": "assistant", "content": text, "reasoning_content": thought, "tool_calls": calls});
                with(message, x)
            }),
            (vec(call(), 1..3), unknown())
                .prop_map(|(calls, x)| with(json!({"role": "assistant", "tool_calls": calls}), x)),
            ("[a-z]{1,4}", ".{0,8}", unknown())
                .prop_map(|(id, text, x)| with(json!({"role": "tool", "tool_call_id": id, "content": text}), x)),
        ]
    }

    prop_compose! {
        pub fn request()(
            messages in vec(message(), 1..6),
            tool in option::of(unknown()),
            function in unknown(),
            choice in option::of("auto|none|required"),
            parallel in option::of(any::<bool>()),
            temperature in thousandths(),
            top_p in thousandths(),
            seed in option::of(any::<i32>()),
            max_tokens in option::of(1..1000),
            stop in vec("[a-z\n]{1,3}", 0..3),
            effort in option::of("low|high"),
            schema in option::of(any::<bool>()),
            stream in any::<bool>(),
            x in unknown(),
        ) -> Value {
            let offered = tool.map(|x| {
                let parameters = json!({"type": "object", "properties": {}});
                let function = with(json!({"name": "f", "description": "d", "parameters": parameters, "strict": true}), function);
                json!([with(json!({"type": "function", "function": function}), x)])
            });
            let (choice, parallel) = if offered.is_some() { (choice, parallel) } else { (None, None) };
            let format = schema.map(|strict| json!({"type": "json_schema", "json_schema": {
                "name": "s", "schema": {"type": "object", "additionalProperties": false}, "strict": strict}}));
            let stop = if stop.is_empty() { Value::Null } else { json!(stop) };
            let options = stream.then(|| json!({"include_usage": true}));
            with(json!({
                "model": "gpt-4o", "messages": messages, "tools": offered, "tool_choice": choice, "parallel_tool_calls": parallel,
                "temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens, "stop": stop,
                "reasoning_effort": effort, "response_format": format, "stream": stream.then_some(true),
                "stream_options": options,
            }), x)
        }
    }

    prop_compose! {
        pub fn answer()(
            text in ".{1,12}",
            thought in option::of(".{1,8}"),
            mut calls in vec(call(), 0..3),
            (x, y, z, u) in (unknown(), unknown(), unknown(), unknown()),
            tokens in 0..1000u32,
        ) -> Value {
            tell_apart(&mut calls);
            let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
            let calls = if calls.is_empty() { Value::Null } else { Value::from(calls) };
            let message = json!({"role": "assistant", "content": text, "reasoning_content": thought, "tool_calls": calls});
            let choice = with(json!({"index": 0, "message": with(message, z), "finish_reason": reason}), y);
            let usage = with(json!({"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}), u);
            with(json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "gpt-4o-2024",
                "choices": [choice], "usage": usage}), x)
        }
    }

    /// What a client has gathered of a stream. An unknown member of a delta may come with the next chunk.
    pub fn gathered(chunks: &[Value]) -> Value {
        let (mut texts, mut calls) = (Vec::<(String, String)>::new(), Vec::<Value>::new());
        let (mut of_choice, mut of_delta) = (Vec::new(), Vec::new());
        let mut last = Map::new();
        for chunk in chunks {
            last.insert("id".into(), chunk["id"].clone());
            if chunk["usage"].is_object() {
                last.insert("usage".into(), chunk["usage"].clone());
            }
            for choice in chunk["choices"].as_array().unwrap() {
                if choice["finish_reason"].is_string() {
                    last.insert("finish".into(), choice["finish_reason"].clone());
                }
                let (choice, delta) = (choice.as_object().unwrap(), choice["delta"].as_object().unwrap());
                for (members, gathered) in [(choice, &mut of_choice), (delta, &mut of_delta)] {
                    gathered
                        .extend(members.iter().filter(|(name, _)| name.starts_with("x_")).map(|member| json!(member)));
                }
                for name in ["content", "reasoning_content"] {
                    let Some(piece) = delta.get(name).and_then(Value::as_str).filter(|piece| !piece.is_empty()) else {
                        continue;
                    };
                    match texts.last_mut() {
                        Some((kind, text)) if kind == name => text.push_str(piece),
                        _ => texts.push((name.to_owned(), piece.to_owned())),
                    }
                }
                for piece in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
                    let index = piece["index"].as_u64().unwrap() as usize;
                    match calls.get_mut(index) {
                        None => calls.push(piece.clone()),
                        Some(call) => {
                            let unknown = |of: &Value| -> Vec<(String, Value)> {
                                let members = of.as_object().into_iter().flatten();
                                members
                                    .filter(|(name, _)| name.starts_with("x_"))
                                    .map(|(a, b)| (a.clone(), b.clone()))
                                    .collect()
                            };
                            call.as_object_mut().unwrap().extend(unknown(piece));
                            call["function"].as_object_mut().unwrap().extend(unknown(&piece["function"]));
                            let (first, more) = (&call["function"]["arguments"], &piece["function"]["arguments"]);
                            call["function"]["arguments"] =
                                json!(first.as_str().unwrap().to_owned() + more.as_str().unwrap_or_default());
                        }
                    }
                }
            }
        }
        json!({"texts": texts, "of_choice": of_choice, "of_delta": of_delta, "calls": calls, "last": last})
    }

    prop_compose! {
        /// The chunks of a stream: the role, text in pieces, calls in two pieces each, the finish, the counts.
        pub fn chunks()(
            texts in vec((".{1,6}", any::<bool>(), unknown()), 1..5),
            mut calls in vec(call(), 0..3),
            (x, y) in (unknown(), unknown()),
            tokens in 0..1000u32,
        ) -> Vec<Value> {
            tell_apart(&mut calls);
            let chunk = |choices: Value| json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7,
                "model": "gpt-4o-2024", "choices": choices});
            let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta}]));
            let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}))];
            for (text, thought, x) in texts {
                let name = if thought { "reasoning_content" } else { "content" };
                chunks.push(delta(with(json!({name: text}), x)));
            }
            let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
            for (index, mut call) in calls.into_iter().enumerate() {
                let arguments = call["function"]["arguments"].take();
                call["function"]["arguments"] = json!("");
                call["index"] = json!(index);
                chunks.push(delta(json!({"tool_calls": [call]})));
                chunks.push(delta(json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})));
            }
            // Servers write members of a choice as null in every chunk but one; those say nothing.
            let x = x.into_iter().filter(|(_, value)| !value.is_null()).collect();
            chunks.push(chunk(json!([with(json!({"index": 0, "delta": {}, "finish_reason": reason}), x)])));
            let mut last = chunk(json!([]));
            last["usage"] = with(json!({"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}), y);
            chunks.push(last);
            chunks
        }
    }
}

mod anthropic {
    use super::*;

    fn text() -> impl Strategy<Value = Value> {
        (".{1,8}", option::of(any::<bool>()), unknown()).prop_map(|(text, cached, x)| {
            let mark =
                cached.map(
                    |long| if long { json!({"type": "ephemeral", "ttl": "1h"}) } else { json!({"type": "ephemeral"}) },
                );
            with(json!({"type": "text", "text": text, "cache_control": mark}), x)
        })
    }

    fn image() -> impl Strategy<Value = Value> {
        let source = prop_oneof![
            Just(json!({"type": "base64", "media_type": "image/png", "data": PIXEL})),
            Just(json!({"type": "url", "url": "https://e.com/a.png"})),
        ];
        (source, unknown()).prop_map(|(source, x)| with(json!({"type": "image", "source": source}), x))
    }

    fn result() -> impl Strategy<Value = Value> {
        let content =
            prop_oneof![".{1,8}".prop_map(Value::from), vec(prop_oneof![text(), image()], 1..3).prop_map(Value::from)];
        ("[a-z]{1,6}", content, option::of(any::<bool>()), unknown()).prop_map(|(id, content, error, x)| {
            with(json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": error}), x)
        })
    }

    pub fn block() -> impl Strategy<Value = Value> {
        prop_oneof![
            (".{1,8}", unknown()).prop_map(|(text, x)| with(json!({"type": "text", "text": text}), x)),
            ("[a-z]{1,6}", "[fg]", arguments(), unknown()).prop_map(|(id, name, input, x)| {
                with(json!({"type": "tool_use", "id": id, "name": name, "input": input}), x)
            }),
            (".{1,8}", "[a-zA-Z0-9]{4,8}", unknown()).prop_map(|(thought, signature, x)| {
                with(json!({"type": "thinking", "thinking": thought, "signature": signature}), x)
            }),
            "[a-zA-Z0-9]{4,8}".prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        ]
    }

    fn message() -> impl Strategy<Value = Value> {
        prop_oneof![
            (".{1,8}", unknown()).prop_map(|(text, x)| with(json!({"role": "user", "content": text}), x)),
            (vec(prop_oneof![text(), image(), result()], 1..4), unknown())
                .prop_map(|(content, x)| with(json!({"role": "user", "content": content}), x)),
            (vec(block(), 1..4), unknown())
                .prop_map(|(content, x)| with(json!({"role": "assistant", "content": content}), x)),
        ]
    }

    prop_compose! {
        pub fn request()(
            messages in vec(message(), 1..6),
            system in option::of(prop_oneof![".{1,8}".prop_map(Value::from), vec(text(), 1..3).prop_map(Value::from)]),
            tool in option::of(unknown()),
            choice in option::of("auto|none|any"),
            budget in option::of(1024..2000),
            temperature in thousandths(),
            top_k in option::of(1..100),
            stop in vec("[a-z]{1,3}", 0..3),
            user in option::of("[a-z]{1,4}"),
            stream in any::<bool>(),
            x in unknown(),
        ) -> Value {
            let offered = tool.map(|x| json!([with(json!({"name": "f", "input_schema": {"type": "object"}}), x)]));
            let choice = choice.filter(|_| offered.is_some()).map(|choice| json!({"type": choice}));
            let stop = if stop.is_empty() { Value::Null } else { json!(stop) };
            with(json!({
                "model": "claude-sonnet-4-5", "max_tokens": 4096, "messages": messages, "system": system, "tools": offered,
                "tool_choice": choice, "thinking": budget.map(|budget| json!({"type": "enabled", "budget_tokens": budget})),
                "temperature": temperature, "top_k": top_k, "stop_sequences": stop,
                "metadata": user.map(|user| json!({"user_id": user})), "stream": stream.then_some(true),
            }), x)
        }
    }

    prop_compose! {
        pub fn answer()(mut blocks in vec(block(), 1..4), x in unknown(), u in unknown(), tokens in 1..1000u32) -> Value {
            tell_apart(&mut blocks);
            let used = blocks.iter().any(|block| block["type"] == "tool_use");
            let reason = if used { "tool_use" } else { "end_turn" };
            let usage = with(json!({"input_tokens": 3, "output_tokens": tokens}), u);
            with(json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": blocks,
                "stop_reason": reason, "stop_sequence": null, "usage": usage}), x)
        }
    }
}

mod ollama {
    use super::*;

    pub fn call() -> impl Strategy<Value = Value> {
        (option::of("[a-z]{1,4}"), "[fg]", arguments(), unknown(), unknown()).prop_map(|(id, name, arguments, x, y)| {
            with(json!({"id": id, "function": with(json!({"name": name, "arguments": arguments}), y)}), x)
        })
    }

    fn message() -> impl Strategy<Value = Value> {
        prop_oneof![
            ("system|user", ".{0,8}", unknown())
                .prop_map(|(role, text, x)| with(json!({"role": role, "content": text}), x)),
            (".{0,8}", unknown())
                .prop_map(|(text, x)| with(json!({"role": "user", "content": text, "images": [PIXEL]}), x)),
            (".{0,8}", ".{1,8}", vec(call(), 1..3), unknown()).prop_map(|(text, thought, calls, x)| {
                with(json!({"role": "assistant", "content": text, "thinking": thought, "tool_calls": calls}), x)
            }),
            (".{0,8}", "[fg]", unknown())
                .prop_map(|(text, name, x)| with(json!({"role": "tool", "content": text, "tool_name": name}), x)),
        ]
    }

    prop_compose! {
        pub fn request()(
            messages in vec(message(), 1..6),
            tool in option::of((unknown(), unknown())),
            think in prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), Just(json!("low"))],
            format in prop_oneof![Just(Value::Null), Just(json!("json")), Just(json!({"type": "object", "a": [1]}))],
            temperature in thousandths(),
            num_predict in option::of(-2..100i64),
            stop in vec(".{1,4}", 0..3),
            keep_alive in prop_oneof![Just(Value::Null), Just(json!("5m")), Just(json!(-1))],
            (x, y) in (unknown(), unknown()),
            stream in any::<bool>(),
        ) -> Value {
            let offered = tool.map(|(x, y)| {
                let function = with(json!({"name": "f", "parameters": {"type": "object"}}), y);
                json!([with(json!({"type": "function", "function": function}), x)])
            });
            let stop = if stop.is_empty() { Value::Null } else { json!(stop) };
            // An option that is null was not given.
            let y = y.into_iter().filter(|(_, value)| !value.is_null()).collect();
            let options = with(json!({"temperature": temperature, "num_predict": num_predict, "stop": stop}), y);
            let options = if options == json!({}) { Value::Null } else { options };
            with(json!({"model": "m", "messages": messages, "tools": offered, "think": think, "format": format,
                "keep_alive": keep_alive, "options": options, "stream": stream}), x)
        }
    }

    prop_compose! {
        /// The lines of a stream: pieces of text and thought, calls, and the last.
        pub fn lines()(
            texts in vec((".{1,6}", any::<bool>(), unknown()), 1..5),
            mut calls in vec(call(), 0..3),
            x in unknown(),
            tokens in 0..1000u32,
        ) -> Vec<Value> {
            tell_apart(&mut calls);
            let line = |n: usize, message: Value, done: bool| {
                json!({"model": "m", "created_at": format!("2025-01-01T00:00:{n:02}.5Z"), "message": message, "done": done})
            };
            let mut lines = Vec::new();
            for (text, thought, x) in texts {
                let message = if thought {
                    json!({"role": "assistant", "content": "", "thinking": text})
                } else {
                    json!({"role": "assistant", "content": text})
                };
                lines.push(with(line(lines.len(), message, false), x));
            }
            for (index, mut call) in calls.into_iter().enumerate() {
                call["function"]["index"] = json!(index);
                let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
                lines.push(line(lines.len(), message, false));
            }
            let mut last = line(lines.len(), json!({"role": "assistant", "content": ""}), true);
            last["done_reason"] = json!("stop");
            last["total_duration"] = json!(5);
            last["prompt_eval_count"] = json!(3);
            last["eval_count"] = json!(tokens);
            lines.push(with(last, x));
            lines
        }
    }
}

mod responses {
    use super::*;

    fn part() -> impl Strategy<Value = Value> {
        let url = prop_oneof![Just(format!("data:image/png;base64,{PIXEL}")), Just("https://e.com/a.png".to_owned())];
        prop_oneof![
            (".{0,8}", unknown()).prop_map(|(text, x)| with(json!({"type": "input_text", "text": text}), x)),
            (url, option::of("low|high|auto"), unknown()).prop_map(|(url, detail, x)| {
                with(json!({"type": "input_image", "image_url": url, "detail": detail}), x)
            }),
        ]
    }

    fn call() -> impl Strategy<Value = Value> {
        ("[a-z_0-9]{1,8}", "[fg]", arguments(), unknown()).prop_map(|(id, name, arguments, x)| {
            let call =
                json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()});
            with(call, x)
        })
    }

    fn item() -> impl Strategy<Value = Value> {
        let content = prop_oneof![".{1,8}".prop_map(Value::from), vec(part(), 1..4).prop_map(Value::from)];
        prop_oneof![
            ("system|developer|user", content, unknown())
                .prop_map(|(role, content, x)| with(json!({"role": role, "content": content}), x)),
            (".{1,8}", unknown()).prop_map(|(text, x)| with(json!({"role": "assistant", "content": text}), x)),
            call(),
            ("[a-z_0-9]{1,8}", ".{0,8}", unknown()).prop_map(|(id, output, x)| {
                with(json!({"type": "function_call_output", "call_id": id, "output": output}), x)
            }),
            ("[a-z]{4}", ".{1,8}", option::of("[a-z]{4}"), unknown()).prop_map(|(id, text, sealed, x)| {
                let summary = json!([{"type": "summary_text", "text": text}]);
                let item = json!({"type": "reasoning", "id": format!("rs_{id}"), "summary": summary, "encrypted_content": sealed});
                with(item, x)
            }),
            unknown().prop_map(|x| with(json!({"type": "x_item", "data": 1}), x)),
        ]
    }

    prop_compose! {
        pub fn request()(
            input in prop_oneof![".{1,8}".prop_map(Value::from), vec(item(), 1..6).prop_map(Value::from)],
            instructions in option::of(".{1,8}"),
            tool in option::of(unknown()),
            choice in option::of("auto|none|required"),
            parallel in option::of(any::<bool>()),
            (temperature, top_p) in (thousandths(), thousandths()),
            most in option::of(16..1000),
            effort in option::of("low|high"),
            schema in option::of(any::<bool>()),
            verbosity in option::of("low|high"),
            stream in any::<bool>(),
            (x, y) in (unknown(), unknown()),
        ) -> Value {
            let tools = tool.map(|x| {
                let parameters = json!({"type": "object", "properties": {}});
                json!([with(json!({"type": "function", "name": "f", "parameters": parameters, "strict": true}), x)])
            });
            let (choice, parallel) = if tools.is_some() { (choice, parallel) } else { (None, None) };
            let sealed = effort.is_some().then(|| json!(["reasoning.encrypted_content"]));
            let format = schema.map(|strict| json!({"type": "json_schema", "name": "s", "strict": strict,
                "schema": {"type": "object", "additionalProperties": false}}));
            let y = y.into_iter().filter(|(_, value)| !value.is_null()).collect();
            let text = with(json!({"format": format, "verbosity": verbosity}), y);
            let text = if text == json!({}) { Value::Null } else { text };
            with(json!({
                "model": "gpt-4.1", "input": input, "instructions": instructions, "tools": tools, "tool_choice": choice,
                "parallel_tool_calls": parallel, "temperature": temperature, "top_p": top_p, "max_output_tokens": most,
                "reasoning": effort.map(|effort| json!({"effort": effort})), "text": text, "stream": stream.then_some(true),
                "store": false, "include": sealed,
            }), x)
        }
    }

    prop_compose! {
        pub fn answer()(
            pieces in vec((".{1,8}", any::<bool>(), unknown()), 1..4),
            calls in vec(call(), 0..3),
            (x, u) in (unknown(), unknown()),
            tokens in 1..1000u32,
        ) -> Value {
            // An unknown member of an item that is null says nothing.
            let said = |x: Map<String, Value>| x.into_iter().filter(|(_, value)| !value.is_null()).collect();
            let mut output = Vec::new();
            for (number, (text, thought, x)) in pieces.into_iter().enumerate() {
                output.push(if thought {
                    let summary = json!([{"type": "summary_text", "text": text}]);
                    with(json!({"id": format!("rs_a{number}"), "type": "reasoning", "summary": summary}), said(x))
                } else {
                    let content = json!([{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]);
                    with(json!({"id": format!("msg_a{number}"), "type": "message", "status": "completed", "role": "assistant",
                        "content": content}), said(x))
                });
            }
            for (number, mut call) in calls.into_iter().enumerate() {
                let id = format!("{}-{number}", call["call_id"].as_str().unwrap());
                call["call_id"] = json!(id);
                call["id"] = json!(format!("fc_a{number}"));
                call["status"] = json!("completed");
                let Value::Object(call) = call else { unreachable!() };
                output.push(Value::Object(said(call)));
            }
            let usage = with(json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": tokens,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens + 3}), u);
            let mut answer = with(json!({"object": "response", "created_at": 7, "model": "gpt-5-x", "status": "completed",
                "output": output, "usage": usage}), x);
            answer["id"] = json!("resp_up");
            answer
        }
    }
}

mod completions {
    use super::*;

    prop_compose! {
        pub fn request()(
            prompt in ".{1,12}",
            (temperature, top_p) in (thousandths(), thousandths()),
            seed in option::of(any::<i32>()),
            max_tokens in option::of(1..1000),
            stop in vec("[a-z\n]{1,3}", 0..3),
            echo in option::of(any::<bool>()),
            suffix in option::of(".{1,4}"),
            n in option::of(1..3),
            user in option::of("[a-z]{1,4}"),
            stream in any::<bool>(),
            x in unknown(),
        ) -> Value {
            let stop = if stop.is_empty() { Value::Null } else { json!(stop) };
            let options = stream.then(|| json!({"include_usage": true}));
            with(json!({
                "model": "m", "prompt": prompt, "temperature": temperature, "top_p": top_p, "seed": seed,
                "max_tokens": max_tokens, "stop": stop, "echo": echo, "suffix": suffix, "n": n, "user": user,
                "stream": stream.then_some(true), "stream_options": options,
            }), x)
        }
    }

    prop_compose! {
        pub fn answer()(texts in vec((".{1,8}", unknown()), 1..3), (x, u) in (unknown(), unknown()), tokens in 0..1000u32) -> Value {
            let choices: Vec<_> = texts.into_iter().enumerate().map(|(index, (text, x))| {
                with(json!({"index": index, "text": text, "finish_reason": "stop"}), x)
            }).collect();
            let usage = with(json!({"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}), u);
            with(json!({"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m-1", "choices": choices,
                "usage": usage}), x)
        }
    }
}

mod embeddings {
    use super::*;

    prop_compose! {
        pub fn openai()(
            texts in vec(".{1,8}", 1..4), one in any::<bool>(), dimensions in option::of(1..1024),
            format in option::of("float|base64"), user in option::of("[a-z]{1,4}"), x in unknown(),
        ) -> Value {
            let input = if one { json!(texts[0]) } else { json!(texts) };
            with(json!({"model": "m", "input": input, "dimensions": dimensions, "encoding_format": format, "user": user}), x)
        }
    }

    prop_compose! {
        pub fn ollama()(
            texts in vec(".{1,8}", 1..4), one in any::<bool>(), dimensions in option::of(1..1024),
            truncate in option::of(any::<bool>()), x in unknown(),
        ) -> Value {
            let input = if one { json!(texts[0]) } else { json!(texts) };
            with(json!({"model": "m", "input": input, "dimensions": dimensions, "truncate": truncate}), x)
        }
    }

    pub fn vector() -> impl Strategy<Value = Vec<f64>> {
        vec((-1000..1000).prop_map(|number| f64::from(number) / 1024.0), 1..5)
    }
}

fn equal(mut is: Value, mut should: Value) -> Result<(), TestCaseError> {
    comparable(&mut is);
    comparable(&mut should);
    prop_assert_eq!(is, should);
    Ok(())
}

fn back(dialect: &str, path: &str, adapter: &str, sent: &Value, answer: &Value, cut: usize) -> Value {
    let text = answer.to_string();
    let told = returned(dialect, path, adapter, sent, text.as_bytes(), cut % text.len());
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_of_openais_chat_arrives_equal_as_json(sent in openai::request()) {
        equal(arrived("openai-chat", "/v1/chat/completions", "openai", &sent), sent)?;
    }

    #[test]
    fn an_answer_of_openais_chat_comes_back_equal_as_json(answer in openai::answer(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        equal(back("openai-chat", "/v1/chat/completions", "openai", &sent, &answer, cut), answer)?;
    }

    #[test]
    fn a_stream_of_openais_chat_comes_back_equal_as_json(chunks in openai::chunks(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true,
            "stream_options": {"include_usage": true}});
        let text: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        let text = format!("{text}data: [DONE]\n\n");
        let told = returned("openai-chat", "/v1/chat/completions", "openai", &sent, text.as_bytes(), cut % text.len());
        let told = told.strip_suffix("data: [DONE]\n\n").expect("the clean end");
        let events = told.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("data"));
        let told: Vec<Value> = events.map(|event| serde_json::from_str(event).unwrap()).collect();
        equal(openai::gathered(&told), openai::gathered(&chunks))?;
    }

    #[test]
    fn a_request_of_anthropics_messages_arrives_equal_as_json(sent in anthropic::request()) {
        equal(arrived("anthropic-messages", "/v1/messages", "anthropic", &sent), sent)?;
    }

    #[test]
    fn an_answer_of_anthropics_messages_comes_back_equal_as_json(answer in anthropic::answer(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        equal(back("anthropic-messages", "/v1/messages", "anthropic", &sent, &answer, cut), answer)?;
    }

    #[test]
    fn a_request_of_ollamas_chat_arrives_equal_as_json(sent in ollama::request()) {
        equal(arrived("ollama-chat", "/api/chat", "ollama", &sent), sent)?;
    }

    #[test]
    fn a_stream_of_ollamas_chat_comes_back_equal_as_json(lines in ollama::lines(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let told = returned("ollama-chat", "/api/chat", "ollama", &sent, text.as_bytes(), cut % text.len());
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        equal(Value::from(told), Value::from(lines))?;
    }

    #[test]
    fn a_request_of_openais_chat_arrives_equal_at_llama_cpp(sent in openai::request()) {
        equal(arrived("openai-chat", "/v1/chat/completions", "llama-cpp", &sent), sent)?;
    }

    #[test]
    fn an_answer_of_llama_cpps_chat_comes_back_equal_as_json(answer in openai::answer(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        equal(back("openai-chat", "/v1/chat/completions", "llama-cpp", &sent, &answer, cut), answer)?;
    }

    #[test]
    fn a_request_of_openais_responses_arrives_equal_as_json(sent in responses::request()) {
        equal(arrived("openai-responses", "/v1/responses", "openai responses", &sent), sent)?;
    }

    #[test]
    fn an_answer_of_openais_responses_comes_back_equal_as_json(answer in responses::answer(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "input": "x", "store": false});
        let mut told = back("openai-responses", "/v1/responses", "openai responses", &sent, &answer, cut);
        // The id is the gateway's own, and what the request did not say is told.
        let members = told.as_object_mut().unwrap();
        members.retain(|name, _| answer.get(name).is_some());
        members.insert("id".into(), answer["id"].clone());
        equal(told, answer)?;
    }

    #[test]
    fn a_request_of_openais_completions_arrives_equal_as_json(sent in completions::request()) {
        equal(arrived("openai-completions", "/v1/completions", "openai", &sent), sent.clone())?;
        // llama.cpp's has no suffix and no echo.
        let mut sent = sent;
        sent.as_object_mut().unwrap().retain(|name, _| name != "suffix" && name != "echo");
        equal(arrived("openai-completions", "/v1/completions", "llama-cpp", &sent), sent)?;
    }

    #[test]
    fn an_answer_of_openais_completions_comes_back_equal_as_json(answer in completions::answer(), cut in any::<usize>()) {
        let sent = json!({"model": "m", "prompt": "x", "n": answer["choices"].as_array().unwrap().len()});
        // Of several choices llama.cpp counts the first alone: the gateway says that its counts are estimated.
        let one = answer["choices"].as_array().unwrap().len() == 1;
        for adapter in ["openai", "llama-cpp"].into_iter().filter(|adapter| one || *adapter == "openai") {
            equal(back("openai-completions", "/v1/completions", adapter, &sent, &answer, cut), answer.clone())?;
        }
    }

    #[test]
    fn a_request_of_embeddings_arrives_equal_as_json(openai in embeddings::openai(), ollama in embeddings::ollama()) {
        equal(arrived("openai-embeddings", "/v1/embeddings", "openai", &openai), openai.clone())?;
        // llama.cpp's vectors have the model's own length.
        let mut openai = openai;
        openai.as_object_mut().unwrap().remove("dimensions");
        equal(arrived("openai-embeddings", "/v1/embeddings", "llama-cpp", &openai), openai)?;
        equal(arrived("ollama-embed", "/api/embed", "ollama", &ollama), ollama)?;
    }

    #[test]
    fn an_answer_of_embeddings_comes_back_equal_as_json(
        vectors in vec((embeddings::vector(), unknown()), 1..4), x in unknown(), u in unknown(), cut in any::<usize>(),
    ) {
        let texts = vec!["x"; vectors.len()];
        let data: Vec<_> = vectors.iter().enumerate().map(|(index, (vector, x))| {
            with(json!({"object": "embedding", "index": index, "embedding": vector}), x.clone())
        }).collect();
        let usage = with(json!({"prompt_tokens": 3, "total_tokens": 3}), u);
        let openai = with(json!({"object": "list", "data": data, "model": "m-1", "usage": usage}), x.clone());
        let sent = json!({"model": "m", "input": texts, "encoding_format": "float"});
        for adapter in ["openai", "llama-cpp"] {
            equal(back("openai-embeddings", "/v1/embeddings", adapter, &sent, &openai, cut), openai.clone())?;
        }
        let vectors: Vec<_> = vectors.iter().map(|(vector, _)| vector).collect();
        let ollama = with(json!({"model": "m-1", "embeddings": vectors, "total_duration": 5, "prompt_eval_count": 3}), x);
        let sent = json!({"model": "m", "input": texts});
        equal(back("ollama-embed", "/api/embed", "ollama", &sent, &ollama, cut), ollama)?;
    }

    #[test]
    fn an_answer_of_ollamas_chat_comes_back_equal_as_json(
        text in ".{1,8}", thought in option::of(".{1,8}"), calls in vec(ollama::call(), 0..3), x in unknown(),
        tokens in 0..1000u32, cut in any::<usize>(),
    ) {
        let mut calls = calls;
        tell_apart(&mut calls);
        for (index, call) in calls.iter_mut().enumerate() {
            call["function"]["index"] = json!(index);
        }
        let calls = if calls.is_empty() { Value::Null } else { json!(calls) };
        let message = with(json!({"role": "assistant", "content": text, "thinking": thought, "tool_calls": calls}), Map::new());
        let answer = with(json!({"model": "m", "created_at": "2025-01-01T00:00:00.5Z", "message": message, "done": true,
            "done_reason": "stop", "total_duration": 5, "prompt_eval_count": 3, "eval_count": tokens}), x);
        let sent = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": false});
        equal(back("ollama-chat", "/api/chat", "ollama", &sent, &answer, cut), answer)?;
    }
}
