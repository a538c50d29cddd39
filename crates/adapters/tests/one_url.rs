//! Endpoints that are one URL: the setting `path = "exact"`, and AWA's `/llm` (AWA-13).

use serde_json::{Value, json};
use witgate_adapters::{LlamaCpp, Ollama, OpenAi};
use witgate_model::{
    Adapter, Decoder, Error, ErrorKind, Event, Frame, Framing, Input, Message, Request, ResponseHead, Role,
};

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn llm(request: Request) -> Result<(Vec<String>, Value), Error> {
    let http = LlamaCpp::encode(r#"{"api":"llm"}"#, request)?;
    assert_eq!((http.method.as_str(), &http.framing), ("POST", &Framing::Whole));
    Ok((http.path, serde_json::from_slice(&http.body).unwrap()))
}

fn answer(status: u16, body: &str) -> Vec<Event> {
    let head = ResponseHead { status, headers: vec![], framing: Framing::Whole, stream: false };
    let mut decoder = LlamaCpp::decoder(r#"{"api":"llm"}"#, Some("llm".into()), head);
    let mut events = decoder.feed(vec![Frame::Bytes(body.as_bytes().to_vec())]);
    events.extend(decoder.finish());
    events
}

fn text(events: &[Event]) -> String {
    let text = |event: &Event| if let Event::Text(delta) = event { Some(delta.text.clone()) } else { None };
    events.iter().filter_map(text).collect()
}

#[test]
fn a_conversation_goes_to_the_exact_url_and_nothing_else_does() {
    let settings = r#"{"path":"exact"}"#;
    let chat = || Request::chat("openai-chat", "m", vec![user("Hi")]);
    let completion = || Request::completion("openai-completions", "m", "Hi");
    for (encode, probe) in [
        (OpenAi::encode as fn(&str, Request) -> _, OpenAi::probe as fn(&str) -> _),
        (LlamaCpp::encode, LlamaCpp::probe),
        (Ollama::encode, Ollama::probe),
    ] {
        assert!(encode(settings, chat()).unwrap().path.is_empty());
        assert!(!encode("{}", chat()).unwrap().path.is_empty());
        for other in [completion(), Request::new("", "", Input::Models)] {
            assert_eq!(encode(settings, other).unwrap_err().kind, ErrorKind::Unsupported);
        }
        assert_eq!(probe(settings).unwrap(), None);
        assert!(probe("{}").unwrap().is_some());
    }
}

#[test]
fn a_model_that_is_not_named_is_not_sent_in_openais_shape() {
    let http = OpenAi::encode("{}", Request::chat("openai-chat", "", vec![user("Hi")])).unwrap();
    assert_eq!(String::from_utf8(http.body).unwrap(), r#"{"messages":[{"role":"user","content":"Hi"}]}"#);
}

#[test]
fn awa_13_local_is_asked_with_prompt_temperature_and_max_tokens() {
    let mut request = Request::chat("awa-llm", "m", vec![user("Say \"hi\"")]);
    request.sampling.max_tokens = Some(256);
    request.sampling.temperature = Some(0.7);
    let body = json!({"prompt": "Say \"hi\"", "max_tokens": 256, "temperature": 0.7});
    assert_eq!(llm(request.clone()).unwrap(), (vec![], body.clone()));
    request.stream = true;
    assert_eq!(llm(request).unwrap().1, body);
    let messages = vec![Message::text(Role::System, "s"), user("u"), Message::text(Role::Assistant, "a"), user("v")];
    let (_, body) = llm(Request::chat("openai-chat", "m", messages)).unwrap();
    assert_eq!(body, json!({"prompt": "System: s\nu\nAssistant: a\nv"}));
    let (_, body) = llm(Request::completion("openai-completions", "m", "Once")).unwrap();
    assert_eq!(body, json!({"prompt": "Once"}));
}

#[test]
fn awa_13_the_services_own_members_travel_and_what_it_cannot_do_is_refused_by_name() {
    let mut request = Request::chat("awa-llm", "m", vec![user("u")]);
    request.extra = Some(r#"{"grammar":"g","prompt":"forged"}"#.into());
    assert_eq!(llm(request.clone()).unwrap().1, json!({"prompt": "u", "grammar": "g"}));
    request.dialect = "openai-chat".into();
    assert_eq!(llm(request.clone()).unwrap_err().param.as_deref(), Some("grammar"));
    request.extra = None;
    request.sampling.stop = vec!["x".into()];
    let error = llm(request.clone()).unwrap_err();
    assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some("stop")));
    let http = LlamaCpp::encode(r#"{"api":"llm","drop_unsupported":true}"#, request).unwrap();
    assert_eq!(http.dropped, ["stop"]);
    assert_eq!(LlamaCpp::probe(r#"{"api":"llm"}"#).unwrap(), None);
}

#[test]
fn awa_13_the_text_is_completion_text_content_or_the_raw_body() {
    for (body, expected) in [
        (r#"{"completion":"a","text":"b"}"#, "a"),
        (r#"{"content":"c","text":"b"}"#, "b"),
        (r#"{"completion":null,"content":"c"}"#, "c"),
        (r#"{"other":1}"#, r#"{"other":1}"#),
        ("plain words", "plain words"),
        (r#"["a"]"#, r#"["a"]"#),
    ] {
        let events = answer(200, body);
        assert_eq!((text(&events).as_str(), events.last()), (expected, Some(&Event::Done)), "{body}");
    }
}

#[test]
fn awa_12_an_answer_without_choices_is_taken_only_where_the_setting_says_so() {
    let events = |settings: &str, body: &str| {
        let request = Request::chat("awa-llm", "m", vec![user("u")]);
        let http = LlamaCpp::encode(settings, request).unwrap();
        let head = ResponseHead { status: 200, headers: vec![], framing: http.framing, stream: false };
        let mut decoder = LlamaCpp::decoder(settings, http.context, head);
        let mut events = decoder.feed(vec![Frame::Bytes(body.as_bytes().to_vec())]);
        events.extend(decoder.finish());
        events
    };
    for (body, expected) in [
        (r#"{"text":"a","content":"b"}"#, "a"),
        (r#"{"content":"b"}"#, "b"),
        (r#"{"choices":null,"x":1}"#, r#"{"choices":null,"x":1}"#),
        (r#""s""#, r#""s""#),
    ] {
        let loose = events(r#"{"loose_answers":true}"#, body);
        assert_eq!((text(&loose).as_str(), loose.last()), (expected, Some(&Event::Done)), "{body}");
        assert!(matches!(events("{}", body).last(), Some(Event::Failed(_))), "{body}");
    }
    for body in ["plain words", "{\"text\":", r#"{"error":{"message":"x"}}"#, ""] {
        let failed = events(r#"{"loose_answers":true}"#, body);
        assert!(matches!(failed.last(), Some(Event::Failed(_))), "{body}: {failed:?}");
    }
}

#[test]
fn awa_13_an_empty_answer_and_an_error_are_failures() {
    let Some(Event::Failed(error)) = answer(200, "").pop() else { panic!("no failure") };
    assert_eq!(error.kind, ErrorKind::MalformedResponse);
    let Some(Event::Failed(error)) = answer(500, r#"{"detail":"llama.cpp failed"}"#).pop() else {
        panic!("no failure")
    };
    assert_eq!((error.kind, error.status), (ErrorKind::UpstreamFailure, Some(500)));
    assert!(error.message.contains("llama.cpp failed"), "{}", error.message);
}
