//! The dialects of the older services, where it takes no gateway to see what they do.

use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::{Renderer, default_limits, refuse, routes, step};
use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Step};
use witgate_model::{Error, ErrorKind, Event, FinishReason, Input, Role};

fn backends() -> Value {
    json!({"backends": {
        "bedrock": {"shape": "openai", "defaults": {"temperature": 0.5, "max_tokens": 2048}},
        "ollama": {"shape": "ollama", "model": "llama3", "defaults": {"num_ctx": 4096, "stop": ["A:"]}},
        "runtime": {"shape": "invoke-model", "no_model": "set STRONG_MODEL_ID", "defaults": {"max_tokens": 2048}},
        "gone": {"shape": "ollama", "unavailable": "No endpoints configured"},
    }})
}

fn ask(dialect: &str, settings: &Value, body: &str) -> Result<Step, Error> {
    let client = Client { settings: settings.to_string(), ..Client::default() };
    step(dialect, &client, &default_limits(), body.as_bytes())
}

#[track_caller]
fn parsed(dialect: &str, settings: &Value, body: &Value) -> Parsed {
    match ask(dialect, settings, &body.to_string()) {
        Ok(Step::Ask(parsed)) => parsed,
        other => panic!("{other:?}"),
    }
}

fn wrong(dialect: &str, settings: &Value, body: &Value) -> (String, String) {
    let error = ask(dialect, settings, &body.to_string()).expect_err("the request is wrong");
    assert_eq!((&error.kind, error.status), (&ErrorKind::InvalidRequest, Some(400)));
    (error.param.unwrap_or_default(), error.message)
}

fn said(dialect: &str, render: String) -> Value {
    let start = AnswerStart { render, id: "abc".into(), created: 1_700_000_000, model: "alias".into() };
    let mut renderer = Renderer::new(dialect, start);
    assert_eq!(renderer.head().status, 200);
    assert!(renderer.keep_alive().is_empty());
    let events = vec![
        Event::Started(witgate_model::Started::default()),
        Event::text_start(0, 0),
        Event::text(0, " a "),
        Event::text(0, "b"),
        Event::BlockStop(0),
        Event::finish(0, FinishReason::Stop, None),
        Event::Done,
    ];
    serde_json::from_slice(&renderer.feed(events)).unwrap()
}

fn failed(kind: ErrorKind, status: u16, provider: Option<&str>) -> Failure {
    Failure {
        error: Error::new(kind, "it broke").with_status(status),
        error_type: "api_error".into(),
        provider: provider.map(str::to_owned),
        request_id: "r".into(),
        upstream: None,
        attempts: Vec::new(),
    }
}

fn refused(dialect: &str, settings: &str, failure: &Failure) -> (u16, Value) {
    let rendered = refuse(dialect, settings, failure);
    (rendered.status, serde_json::from_slice(&rendered.body).unwrap())
}

#[test]
fn bed_1_the_route_has_a_form_with_a_stage() {
    let paths = |dialect: &str| -> Vec<&str> {
        routes().iter().filter(|route| route.dialect == dialect).map(|route| route.path.as_str()).collect()
    };
    assert_eq!(paths("bedrock-chat"), ["/chat", "/{stage}/chat"]);
    assert_eq!(paths("llm-invocation"), ["/invoke/llm", "/invoke/llm/enqueue"]);
    // `/api/chat` is Ollama's: it stands in front.
    let place = |path: &str| routes().iter().position(|route| route.path == path).unwrap();
    assert!(place("/api/chat") < place("/{stage}/chat"));
}

#[test]
fn bed_2_the_completion_is_the_text_as_it_came() {
    assert_eq!(said("bedrock-chat", String::new()), json!({"completion": " a b"}));
}

#[test]
fn bed_7_a_model_that_the_client_names_is_the_providers_of_the_settings() {
    let body = json!({"prompt": "Hi", "system": "s", "model": "m"});
    let request = parsed("bedrock-chat", &json!({"provider": "rt"}), &body).request;
    assert_eq!((request.model.as_str(), request.sampling.max_tokens), ("rt/m", Some(512)));
    let Input::Chat(messages) = &request.input else { panic!("no chat") };
    assert_eq!([&messages[0].role, &messages[1].role], [&Role::System, &Role::User]);
    assert_eq!(parsed("bedrock-chat", &json!({}), &body).request.model, "m");
    assert_eq!(parsed("bedrock-chat", &json!({"provider": "rt"}), &json!({"prompt": "Hi"})).request.model, "");
    // Another model's bound is its own.
    let long = json!({"prompt": "Hi", "model": "amazon.nova-lite-v1:0", "max_tokens": 9000});
    assert_eq!(parsed("bedrock-chat", &json!({}), &long).request.sampling.max_tokens, Some(9000));
}

#[test]
fn inv_2_a_backend_that_is_gone_answers_by_itself_and_one_without_a_model_wants_one() {
    let asked = |backend: &str| json!({"backend": backend, "prompt": "Hi"}).to_string();
    let Ok(Step::Answer(reply)) = ask("llm-invocation", &backends(), &asked("gone")) else { panic!("no answer") };
    assert_eq!(reply.rendered.status, 500);
    let (param, message) = wrong("llm-invocation", &backends(), &json!({"backend": "runtime", "prompt": "Hi"}));
    assert_eq!(param, "model");
    assert_eq!(message, "the backend \"runtime\" has no default model: set STRONG_MODEL_ID");
    let (_, message) = wrong("llm-invocation", &json!({}), &json!({"backend": "x", "prompt": "Hi"}));
    assert!(message.starts_with("Unknown backend \"x\""), "{message}");
}

#[test]
fn inv_12_the_request_is_one_of_the_backends_own_dialect() {
    for (backend, dialect, model) in [("bedrock", "openai-chat", "bedrock"), ("ollama", "ollama-chat", "ollama/llama3")]
    {
        let request = parsed("llm-invocation", &backends(), &json!({"backend": backend, "prompt": "Hi"})).request;
        assert_eq!((request.dialect.as_str(), request.model.as_str()), (dialect, model));
        assert!(!request.stream);
    }
    let body = json!({"backend": "bedrock", "prompt": "Hi", "model": "x/y"});
    assert_eq!(parsed("llm-invocation", &backends(), &body).request.model, "bedrock/x/y");
    let body = json!({"backend": "bedrock", "prompt": "Hi", "extra": {"model": "z"}, "max_completion_tokens": 5});
    let request = parsed("llm-invocation", &backends(), &body).request;
    assert_eq!((request.model.as_str(), request.sampling.max_tokens), ("bedrock/z", None));
}

#[test]
fn inv_14_what_the_backends_own_parser_refuses_is_named_without_a_false_place() {
    let body = json!({"backend": "bedrock", "prompt": "Hi", "temperature": "hot"});
    let (param, message) = wrong("llm-invocation", &backends(), &body);
    assert_eq!((param.as_str(), message.as_str()), ("temperature", "`temperature` must be a number, found a string"));
    for (body, param) in [
        (json!({"backend": "ollama", "prompt": "Hi", "options": 1}), "options"),
        (json!({"backend": "ollama", "prompt": "Hi", "extra": []}), "extra"),
        (json!({"backend": "ollama", "prompt": "Hi", "extra": {"messages": []}}), "extra.messages"),
    ] {
        assert_eq!(wrong("llm-invocation", &backends(), &body).0, param);
    }
}

#[test]
fn inv_16_the_answers_shape_is_the_backends() {
    let of = |body: Value| said("llm-invocation", parsed("llm-invocation", &backends(), &body).render);
    let reply = of(json!({"backend": "runtime", "prompt": "Hi", "model": "m"}));
    assert_eq!(reply, json!({"reply": " a b"}));
    assert_eq!(of(json!({"backend": "ollama", "prompt": "Hi"}))["message"]["content"], " a b");
    assert_eq!(of(json!({"backend": "bedrock", "prompt": "Hi"}))["choices"][0]["message"]["content"], " a b");
}

#[test]
fn the_legacy_status_is_for_failures_alone() {
    let legacy = r#"{"legacy_status":true,"facade":"sagemaker-proxy"}"#;
    let native = r#"{"facade":"sagemaker-proxy"}"#;
    for dialect in ["bedrock-chat", "llm-invocation", "openai-chat", "openai-completions"] {
        let upstream = failed(ErrorKind::Timeout, 504, Some("p"));
        assert_eq!(
            (refused(dialect, native, &upstream).0, refused(dialect, legacy, &upstream).0),
            (504, 500),
            "{dialect}"
        );
        let ours = failed(ErrorKind::InvalidRequest, 401, None);
        assert_eq!((refused(dialect, native, &ours).0, refused(dialect, legacy, &ours).0), (401, 401), "{dialect}");
    }
    assert_eq!(refused("bedrock-chat", "", &failed(ErrorKind::NotFound, 404, None)).1, json!({"error": "it broke"}));
    let body = json!({"error": "Internal Server Error"});
    assert_eq!(refused("bedrock-chat", "", &failed(ErrorKind::NotFound, 404, Some("p"))).1, body);
}

#[test]
fn smk_8_the_proxys_defaults_are_its_facades_and_no_others() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let sampling = |settings: Value, body: &Value| parsed("openai-chat", &settings, body).request.sampling;
    let plain = sampling(json!({}), &body);
    assert_eq!((plain.max_tokens, plain.temperature), (None, None));
    let facade = json!({"facade": "sagemaker-proxy"});
    let filled = sampling(facade.clone(), &body);
    assert_eq!((filled.max_tokens, filled.temperature), (Some(100), Some(0.7)));
    let own = json!({"model": "m", "messages": body["messages"], "max_completion_tokens": 5, "temperature": 0});
    let given = sampling(facade, &own);
    assert_eq!((given.max_tokens, given.max_completion_tokens, given.temperature), (None, Some(5), Some(0.0)));
}

#[test]
fn many_members_end_in_linear_time() {
    let mut names = String::new();
    for number in 0..60_000 {
        names.push_str(&format!(",\"m{number}\":1"));
    }
    let start = std::time::Instant::now();
    for body in [
        format!(r#"{{"backend":"ollama","prompt":"Hi"{names}}}"#),
        format!(r#"{{"backend":"bedrock","prompt":"Hi","extra":{{"a":1{names}}}}}"#),
        format!(r#"{{"backend":"ollama","prompt":"Hi","options":{{"a":1{names}}}}}"#),
    ] {
        assert!(ask("llm-invocation", &backends(), &body).is_ok());
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn whatever_the_members_are_there_is_a_request_or_a_named_error(
        backend in prop_oneof!["bedrock", "ollama", "runtime"],
        members in proptest::collection::btree_map(
            prop_oneof!["temperature", "stop", "options", "extra", "model", "tools", "stream", "max_tokens", "[a-z\"é]{1,4}"],
            prop_oneof![
                Just(json!(null)), Just(json!(true)), Just(json!(1)), Just(json!("x\"\\\n")), Just(json!([1, {"a": "b"}])),
                Just(json!({"temperature": 1, "stop": "x", "a\"": {"b": [null]}})),
            ],
            0..5,
        ),
    ) {
        let mut body = json!({"backend": backend, "prompt": "Hi"});
        body.as_object_mut().unwrap().extend(members);
        let client = Client { settings: backends().to_string(), ..Client::default() };
        match step("llm-invocation", &client, &Limits { depth: 8, messages: 4 }, body.to_string().as_bytes()) {
            Ok(Step::Ask(parsed)) => {
                prop_assert!(parsed.request.model.starts_with(&backend));
                let Input::Chat(messages) = &parsed.request.input else { return Err(TestCaseError::fail("no chat")) };
                prop_assert_eq!(messages.len(), 1);
            }
            Ok(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
            Err(error) => prop_assert!(error.status == Some(400) && !error.message.is_empty() && error.param.is_some()),
        }
    }
}
