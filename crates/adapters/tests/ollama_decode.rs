//! Ollama's answers, as lines and as whole bodies, through the framing and the decoder.

mod common;

use common::{Answer, answers, calls, every_cut, failure, finishes, lines, text, thought, usage};
use serde_json::{Value, json};
use witgate_adapters::Ollama;
use witgate_model::{
    Adapter, Decoder, ErrorKind, Event, FinishReason, Frame, Framing, ResponseHead, Retry, Scope, Vector,
};

fn fixtures() -> Vec<Answer> {
    let all = answers("ollama", &Framing::Ndjson);
    assert!(all.len() > 50, "{}", all.len());
    all
}

fn fixture(name: &str) -> Vec<Event> {
    let answer = fixtures().into_iter().find(|answer| answer.name == name);
    common::events::<Ollama>(&answer.unwrap_or_else(|| panic!("no fixture {name}")), &[])
}

fn head(status: u16, framing: Framing) -> ResponseHead {
    ResponseHead { status, headers: Vec::new(), stream: framing == Framing::Ndjson, framing }
}

/// The events of a stream of these lines.
fn streamed(lines: &[Value]) -> Vec<Event> {
    let frames = lines.iter().map(|line| Frame::Line(line.to_string())).collect();
    let mut decoder = Ollama::decoder("{}", None, head(200, Framing::Ndjson));
    let mut events = decoder.feed(frames);
    if !events.last().is_some_and(Event::is_last) {
        events.extend(decoder.finish());
    }
    common::check_order("", &events);
    events
}

fn said(message: Value) -> Value {
    json!({"model": "m", "message": message, "done": false})
}

fn last() -> Value {
    json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"})
}

fn reason(name: &str) -> (FinishReason, Option<String>) {
    let finish = finishes(&fixture(name)).remove(0);
    (finish.reason, finish.raw)
}

fn others(events: &[Event]) -> Vec<(Scope, Value)> {
    let of = |event: &Event| match event {
        Event::Other(other) => {
            assert!(other.dialect.starts_with("ollama-"));
            Some((other.scope.clone(), serde_json::from_str(&other.members).unwrap()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn logprobs(events: &[Event]) -> Vec<(String, Value)> {
    let of = |event: &Event| match event {
        Event::Text(delta) | Event::Reasoning(delta) => {
            Some((delta.text.clone(), serde_json::from_str(delta.logprobs.as_deref()?).unwrap()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn failed(name: &str) -> (ErrorKind, Retry, Option<u16>) {
    let error = failure(&fixture(name));
    assert!(!error.message.is_empty());
    (error.kind, error.retry, error.status)
}

#[test]
fn every_fixture_cut_at_every_byte_gives_the_events_that_were_read_and_approved() {
    for answer in fixtures() {
        insta::assert_snapshot!(answer.name.as_str(), lines(&every_cut::<Ollama>(&answer)));
    }
}

#[test]
fn a_stream_and_a_whole_answer_say_the_same() {
    for name in ["chat-text", "chat-thinking", "chat-tools"] {
        let (stream, whole) = (fixture(&format!("{name}.ndjson")), fixture(&format!("{name}.json")));
        assert_eq!(text(&stream), text(&whole), "{name}");
        assert_eq!(calls(&stream), calls(&whole), "{name}");
        assert_eq!(finishes(&stream), finishes(&whole), "{name}");
        assert_eq!(usage(&stream).input_tokens, usage(&whole).input_tokens, "{name}");
    }
    assert_eq!(thought(&fixture("chat-thinking.ndjson")), thought(&fixture("chat-thinking.json")));
    assert_eq!(text(&fixture("chat-text.json")), "The sky is blue.");
}

#[test]
fn the_start_tells_model_and_time() {
    let Event::Started(started) = &fixture("chat-text.json")[0] else { panic!() };
    assert_eq!(started.model.as_deref(), Some("llama3.2"));
    assert_eq!(started.created, Some(1_751_919_739));
    assert_eq!(started.id, None);
}

#[test]
fn every_finish_reason_of_the_table_is_told() {
    for (name, expected, raw) in [
        ("chat-text.ndjson", FinishReason::Stop, Some("stop")),
        ("chat-load.json", FinishReason::Stop, Some("load")),
        ("chat-unload.json", FinishReason::Stop, Some("unload")),
        ("chat-no-reason.ndjson", FinishReason::Stop, None),
        ("chat-empty-reason.ndjson", FinishReason::Stop, None),
        ("chat-length.ndjson", FinishReason::Length, Some("length")),
        ("chat-tools.ndjson", FinishReason::ToolCalls, Some("stop")),
        ("chat-tools-lines.ndjson", FinishReason::ToolCalls, Some("stop")),
        ("chat-tools-length.json", FinishReason::Length, Some("length")),
        ("chat-unknown-reason.ndjson", FinishReason::Other("tired".into()), Some("tired")),
    ] {
        assert_eq!(reason(name), (expected, raw.map(str::to_owned)), "{name}");
    }
}

#[test]
fn several_tool_calls_of_one_line_are_several_blocks() {
    let expected = [
        ("call_a1b2c3d4".to_owned(), "get_weather".to_owned(), r#"{"city":"Paris","units":"°C"}"#.to_owned()),
        ("call_e5f6g7h8".to_owned(), "get_time".to_owned(), String::new()),
    ];
    assert_eq!(calls(&fixture("chat-tools.ndjson")), expected);
    assert_eq!(calls(&fixture("chat-tools-lines.ndjson")), expected);
    assert_eq!(text(&fixture("chat-tools-lines.ndjson")), "Let me look.And the time.");
}

#[test]
fn calls_without_ids_get_ids_that_no_call_of_the_conversation_has() {
    let ids = |name| calls(&fixture(name)).into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
    assert_eq!(ids("chat-tools-no-ids.ndjson"), ["unnamed_1", "unnamed_2"]);
    assert_eq!(ids("chat-tools-same-ids.json"), ["x", "unnamed_1", "unnamed_2"]);
    let taken = json!([{"id": "unnamed_1", "function": {"name": "f"}}, {"function": {"name": "f"}}]);
    let events = streamed(&[said(json!({"tool_calls": taken})), last()]);
    assert_eq!(calls(&events).into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), ["unnamed_1", "unnamed_2"]);
}

#[test]
fn arguments_are_an_object_also_where_they_came_as_text() {
    let arguments: Vec<_> = calls(&fixture("chat-tools-same-ids.json")).into_iter().map(|(.., text)| text).collect();
    assert_eq!(arguments, [r#"{"a": 1}"#, "", ""]);
    for wrong in [json!([1]), json!("[1]"), json!(1), json!("{"), json!("x")] {
        let call = json!({"tool_calls": [{"function": {"name": "f", "arguments": wrong}}]});
        assert_eq!(failure(&streamed(&[said(call)])).kind, ErrorKind::MalformedResponse, "{wrong}");
    }
    let nameless = json!({"tool_calls": [{"function": {"arguments": {}}}]});
    assert_eq!(failure(&streamed(&[said(nameless)])).kind, ErrorKind::MalformedResponse);
}

#[test]
fn counts_may_be_absent() {
    let counted = usage(&fixture("chat-text.ndjson"));
    assert_eq!((counted.input_tokens, counted.output_tokens, counted.estimated), (Some(26), Some(7), false));
    let raw = counted.raw.unwrap();
    assert_eq!(raw.dialect, "ollama-chat");
    assert_eq!(serde_json::from_str::<Value>(&raw.value).unwrap()["total_duration"], 4_883_583_458_u64);
    let uncounted = usage(&fixture("chat-no-counts.ndjson"));
    assert_eq!((uncounted.input_tokens, uncounted.output_tokens), (None, None));
    let usages = |name: &str| fixture(name).iter().filter(|event| matches!(event, Event::Usage(_))).count();
    assert_eq!(usages("chat-no-metrics.ndjson"), 0);
    assert_eq!(usages("chat-text.ndjson"), 1);
}

#[test]
fn reasoning_stands_in_a_block_of_its_own() {
    let events = fixture("chat-thinking.ndjson");
    assert_eq!((thought(&events).as_str(), text(&events).as_str()), ("One and one.", "Two."));
    let events = fixture("generate-context.json");
    assert_eq!((thought(&events).as_str(), text(&events).as_str()), ("One and one.", "Two."));
}

#[test]
fn text_completions_are_read_from_response() {
    let events = fixture("generate-raw.ndjson");
    assert_eq!(text(&events), "once upon a time");
    assert_eq!(finishes(&events)[0].reason, FinishReason::Length);
    let context = others(&fixture("generate-context.json"));
    assert_eq!(context[0].1["context"], json!([128_006, 9125, 128_007]));
}

#[test]
fn unknown_members_come_once_and_again_when_they_change() {
    let remote: Vec<_> = others(&fixture("chat-remote.ndjson")).into_iter().map(|(_, members)| members).collect();
    assert_eq!(remote[0], json!({"remote_model": "gpt-oss:120b", "remote_host": "https://ollama.com:443"}));
    assert_eq!(remote[1], json!({"remote_model": "gpt-oss:20b"}));
    assert_eq!(remote.len(), 3);
    assert_eq!(remote[2].as_object().unwrap().keys().collect::<Vec<_>>(), ["created_at"]);
    let unknown = others(&fixture("chat-unknown.ndjson"));
    assert_eq!(unknown[0], (Scope::Envelope, json!({"weather": [1, 2.50]})));
    assert_eq!(unknown[1], (Scope::Message(0), json!({"mood": "calm", "role": "critic"})));
    assert_eq!(unknown[2], (Scope::Block(1), json!({"cost": 3, "function": {"strict": true}})));
}

#[test]
fn a_client_of_the_same_dialect_gets_the_date_of_each_line() {
    let members: Vec<_> = others(&fixture("chat-native.ndjson")).into_iter().map(|(_, members)| members).collect();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|members| members["created_at"].is_string()), "{members:?}");
    assert_eq!(members[1]["remote_host"], "https://ollama.com:443");
}

#[test]
fn log_probabilities_have_the_shape_of_openai() {
    let events = fixture("chat-logprobs.ndjson");
    let expected = json!({"content": [{"token": "Yes", "logprob": -0.25, "bytes": [89, 101, 115], "top_logprobs": [
        {"token": "Yes", "logprob": -0.25, "bytes": null}, {"token": "No", "logprob": -1.5, "bytes": null}]}]});
    let found = logprobs(&events);
    assert_eq!(found[0], ("Yes".to_owned(), expected));
    assert_eq!(found[1].0, "");
    assert_eq!(found[2].1["content"][0]["top_logprobs"], json!([]));
    let thoughts = &others(&events)[0];
    assert_eq!((&thoughts.0, &thoughts.1["logprobs"]["content"][0]["token"]), (&Scope::Choice(0), &json!("Hm")));
    let native = logprobs(&fixture("chat-logprobs-native.ndjson"));
    assert_eq!(native[0].0, "Hm");
    assert_eq!(native[3].1, json!({"content": [{"token": ".", "logprob": -0.01, "bytes": [46]}]}));
}

#[test]
fn embeddings_come_in_the_order_of_their_texts() {
    let events = fixture("embed.json");
    let of = |event: &Event| match event {
        Event::Embedding(embedding) => Some((embedding.index, embedding.values.clone())),
        _ => None,
    };
    let vectors: Vec<_> = events.iter().filter_map(of).collect();
    assert_eq!(vectors[0], (0, Vector::Numbers("[0.010071029,-0.0017594862,1e-07]".into())));
    assert_eq!(vectors[1].0, 1);
    assert_eq!(usage(&events).input_tokens, Some(8));
    assert_eq!(failed("embed-few.json").0, ErrorKind::MalformedResponse);
    assert_eq!(fixture("embeddings.json").iter().filter_map(of).count(), 1);
}

#[test]
fn models_are_listed_with_what_is_known_of_them() {
    let events = fixture("tags.json");
    let models: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Model(model) = event { Some(model.clone()) } else { None })
        .collect();
    assert_eq!((models[0].id.as_str(), models[0].created), ("llama3.2:latest", Some(1_746_405_464)));
    assert_eq!((models[1].id.as_str(), models[1].created), ("deepseek-r1:latest", Some(1_746_864_408)));
    assert!(models[0].raw.as_ref().unwrap().value.contains("\"parameter_size\":\"3.2B\""));
    for (body, last) in [(r#"{"models":null}"#, true), (r#"{"models":[]}"#, true), ("{}", false), ("[]", false)] {
        let mut decoder = Ollama::decoder("{}", Some("tags 0".into()), head(200, Framing::Whole));
        decoder.feed(vec![Frame::Bytes(body.into())]);
        assert_eq!(decoder.finish().last() == Some(&Event::Done), last, "{body}");
    }
}

#[test]
fn an_answer_that_ends_before_its_finish_has_failed() {
    for name in [
        "chat-cut.ndjson",
        "chat-cut-line.ndjson",
        "chat-not-json.ndjson",
        "chat-not-done.json",
        "chat-html.json",
        "chat-empty.json",
    ] {
        assert_eq!(failed(name), (ErrorKind::MalformedResponse, Retry::OtherTarget, None), "{name}");
    }
    assert_eq!(text(&fixture("chat-cut.ndjson")), "The sky");
    assert_eq!(text(&fixture("chat-after-done.ndjson")), "Hi");
}

#[test]
fn errors_before_the_answer_say_what_to_do() {
    use ErrorKind as Kind;
    let again = Retry::SameTarget(None);
    for (name, kind, retry, status) in [
        ("busy", Kind::Overloaded, again.clone(), 503),
        ("model", Kind::NotFound, Retry::OtherTarget, 404),
        ("model-pull", Kind::NotFound, Retry::OtherTarget, 404),
        ("no-tools", Kind::Unsupported, Retry::OtherTarget, 400),
        ("no-thinking", Kind::Unsupported, Retry::OtherTarget, 400),
        ("context", Kind::ContextLength, Retry::OtherTarget, 400),
        ("context-truncated", Kind::ContextLength, Retry::OtherTarget, 400),
        ("memory", Kind::Overloaded, Retry::OtherTarget, 500),
        ("runner", Kind::UpstreamFailure, again.clone(), 500),
        ("canceled", Kind::UpstreamFailure, again.clone(), 499),
        ("unauthorized", Kind::Unauthenticated, Retry::OtherTarget, 401),
        ("invalid", Kind::InvalidRequest, Retry::Never, 400),
        ("host", Kind::Forbidden, Retry::OtherTarget, 403),
        ("proxy", Kind::UpstreamFailure, again, 502),
    ] {
        let name = format!("error-{name}.json");
        assert_eq!(fixture(&name).len(), 1, "{name}");
        assert_eq!(failed(&name), (kind, retry, Some(status)), "{name}");
    }
    let error = failure(&fixture("error-model.json"));
    assert_eq!(error.message, "model 'nope' not found");
    assert_eq!(error.raw.as_deref(), Some(r#"{"error":"model 'nope' not found"}"#));
}

#[test]
fn errors_in_the_middle_of_a_stream_are_not_lost() {
    let events = fixture("chat-error-later.ndjson");
    assert_eq!(text(&events), "The");
    let error = failure(&events);
    assert_eq!(error.kind, ErrorKind::UpstreamFailure);
    assert_eq!(error.message, "an error was encountered while running the model: unexpected EOF");
    assert!(error.raw.unwrap().starts_with(r#"{"error":"#));
    assert_eq!(failed("chat-error-context.ndjson"), (ErrorKind::ContextLength, Retry::OtherTarget, None));
    assert_eq!(failed("chat-error-object.ndjson"), (ErrorKind::Overloaded, Retry::SameTarget(None), None));
    assert_eq!(failed("chat-error-200.json").0, ErrorKind::UpstreamFailure);
    let missing = failure(&streamed(&[json!({"error": "model \"x\" not found, try pulling it first"})]));
    assert_eq!((missing.kind, missing.retry), (ErrorKind::NotFound, Retry::OtherTarget));
    let nothing = streamed(&[json!({"error": null, "message": {"content": "a"}}), last()]);
    assert_eq!(text(&nothing), "a");
}

#[test]
fn hostile_answers_fail_and_stay_within_bounds() {
    let call = json!({"function": {"name": "f", "arguments": {"a": 1}}});
    let of = |count: usize| streamed(&[said(json!({"tool_calls": vec![call.clone(); count]})), last()]);
    assert_eq!(calls(&of(1000)).len(), 1000);
    assert_eq!(failure(&of(1025)).kind, ErrorKind::MalformedResponse);
    let blocks: Vec<Value> = (0..4200)
        .map(|at| said(if at % 2 == 0 { json!({"content": "a"}) } else { json!({"thinking": "b"}) }))
        .collect();
    assert_eq!(failure(&streamed(&blocks)).kind, ErrorKind::MalformedResponse);
    for line in ["null", "[]", "1", "\"x\"", "{\"message\":1}", "{\"message\":{\"content\":1}}", "{", ""] {
        let mut decoder = Ollama::decoder("{}", None, head(200, Framing::Ndjson));
        let events = decoder.feed(vec![Frame::Line(line.into())]);
        assert_eq!(failure(&events).kind, ErrorKind::MalformedResponse, "{line}");
        assert_eq!(decoder.feed(vec![Frame::Line(last().to_string())]), []);
        assert_eq!(decoder.finish(), []);
    }
    let changing: Vec<Value> = (0..100).map(|at| json!({"message": {}, format!("m{at}"): "x".repeat(2000)})).collect();
    assert_eq!(others(&streamed(&changing)).len(), 100);
    let mut whole = Ollama::decoder("{}", None, head(200, Framing::Whole));
    assert_eq!(whole.feed(vec![Frame::Bytes(vec![b' '; 33 << 20])]).len(), 1);
    for context in ["", "chat", "chat x", "tags", "embed 99999999999999999999", "generate 18446744073709551615 native"]
    {
        let mut decoder = Ollama::decoder("{}", Some(context.into()), head(200, Framing::Whole));
        decoder.feed(vec![Frame::Bytes(last().to_string().into_bytes())]);
        assert!(decoder.finish().last().is_some_and(Event::is_last), "{context}");
    }
    let full = Some("chat 18446744073709551615".to_owned());
    let mut decoder = Ollama::decoder("{}", full, head(200, Framing::Ndjson));
    let line = said(json!({"tool_calls": [call.clone(), call]})).to_string();
    assert_eq!(calls(&decoder.feed(vec![Frame::Line(line)])).len(), 2);
}
