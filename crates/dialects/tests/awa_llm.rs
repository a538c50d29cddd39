//! The AWA LLM microservice's `/llm`, by the numbers of its description.

mod common;

use common::{failure, renderer, started};
use serde_json::{Value, json};
use witgate_dialects::{default_limits, parse, render_error};
use witgate_model::normaliser::{Failure, Parsed};
use witgate_model::{BlockKind, BlockStart, Error, ErrorKind, Event, FinishReason, Input, Message, Role};

fn llm(body: &str) -> Result<Parsed, Error> {
    parse("awa-llm", "/llm", &default_limits(), body.as_bytes())
}

/// Status and body of the answer to a request that `parse` refused.
fn refused(body: &str) -> (u16, Value) {
    let error = llm(body).expect_err("the request is wrong");
    let refusal = Failure {
        error,
        error_type: "invalid_request_error".into(),
        provider: None,
        request_id: "req-1".into(),
        upstream: None,
        attempts: Vec::new(),
    };
    let rendered = render_error("awa-llm", &refusal);
    (rendered.status, serde_json::from_slice(&rendered.body).unwrap())
}

fn problem(param: &str, message: &str, kind: &str) -> (u16, Value) {
    (422, json!({"detail": [{"loc": ["body", param], "msg": message, "type": kind}]}))
}

#[test]
fn awa_2_a_prompt_becomes_a_chat_request_with_the_services_defaults() {
    let request = llm(r#"{"prompt":"Hi \u00e9"}"#).unwrap().request;
    assert_eq!(request.input, Input::Chat(vec![Message::text(Role::User, "Hi é")]));
    assert_eq!((request.sampling.max_tokens, request.sampling.temperature), (Some(256), Some(0.7)));
    assert_eq!((request.model.as_str(), request.stream, request.extra), ("", false, None));
    assert_eq!(request.dialect, "awa-llm");
}

#[test]
fn awa_2_parameters_override_the_defaults_and_others_travel() {
    let request =
        llm(r#"{"x": [1],"max_tokens":5,"temperature":0,"prompt":"a","model":"m","stream":true}"#).unwrap().request;
    assert_eq!((request.sampling.max_tokens, request.sampling.temperature), (Some(5), Some(0.0)));
    assert_eq!(request.model, "m");
    assert_eq!(request.extra.as_deref(), Some(r#"{"x":[1],"stream":true}"#));
    // As in pydantic, a number in a string counts.
    let request = llm(r#"{"prompt":"a","max_tokens":"12","temperature":"0.5","model":null}"#).unwrap().request;
    assert_eq!((request.sampling.max_tokens, request.sampling.temperature), (Some(12), Some(0.5)));
    assert_eq!(llm(r#"{"prompt":"a","max_tokens":3.0}"#).unwrap().request.sampling.max_tokens, Some(3));
}

#[test]
fn awa_2_the_answer_is_the_trimmed_text() {
    let mut answer = renderer("awa-llm", "");
    let reasoning = BlockStart { index: 0, choice: 0, kind: BlockKind::Reasoning };
    let first = vec![
        started(),
        Event::BlockStart(reasoning),
        Event::Reasoning(witgate_model::BlockDelta { index: 0, text: "Hm.".into(), logprobs: None }),
        Event::BlockStop(0),
        Event::text_start(1, 0),
        Event::text_start(2, 1),
        Event::text(1, "\n  Hello "),
        Event::text(2, "another choice"),
    ];
    assert!(answer.feed(first).is_empty());
    let last = vec![Event::text(1, "\"you\" \n"), Event::finish(0, FinishReason::Stop, None), Event::Done];
    assert_eq!(String::from_utf8(answer.feed(last)).unwrap(), r#"{"completion":"Hello \"you\""}"#);
    assert!(answer.feed(vec![Event::Done]).is_empty());
    let head = answer.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers, [("content-type".to_string(), "application/json".to_string())]);
    assert!(answer.keep_alive().is_empty());
}

#[test]
fn awa_3_a_missing_prompt_is_422_in_fastapis_shape() {
    assert_eq!(refused("{}"), problem("prompt", "Field required", "missing"));
    assert_eq!(
        String::from_utf8(
            render_error(
                "awa-llm",
                &Failure {
                    error: llm("{}").unwrap_err(),
                    error_type: String::new(),
                    provider: None,
                    request_id: String::new(),
                    upstream: None,
                    attempts: Vec::new(),
                }
            )
            .body
        )
        .unwrap(),
        r#"{"detail":[{"loc":["body","prompt"],"msg":"Field required","type":"missing"}]}"#
    );
}

#[test]
fn awa_3_a_wrong_type_is_422_and_names_the_member() {
    for (body, param, message, kind) in [
        (r#"{"prompt":5}"#, "prompt", "Input should be a valid string", "string_type"),
        (r#"{"prompt":null}"#, "prompt", "Input should be a valid string", "string_type"),
        (r#"{"prompt":["a"]}"#, "prompt", "Input should be a valid string", "string_type"),
        (r#"{"prompt":"a","model":{}}"#, "model", "Input should be a valid string", "string_type"),
        (
            r#"{"prompt":"a","max_tokens":"many"}"#,
            "max_tokens",
            "Input should be a valid integer, unable to parse string as an integer",
            "int_parsing",
        ),
        (r#"{"prompt":"a","max_tokens":null}"#, "max_tokens", "Input should be a valid integer", "int_type"),
        (
            r#"{"prompt":"a","max_tokens":1.5}"#,
            "max_tokens",
            "Input should be a valid integer, got a number with a fractional part",
            "int_from_float",
        ),
        (
            r#"{"prompt":"a","max_tokens":-1}"#,
            "max_tokens",
            "Input should be greater than or equal to 0",
            "greater_than_equal",
        ),
        (
            r#"{"prompt":"a","max_tokens":1e400}"#,
            "max_tokens",
            "Unable to parse input string as an integer, exceeded maximum size",
            "int_parsing_size",
        ),
        (r#"{"prompt":"a","temperature":[]}"#, "temperature", "Input should be a valid number", "float_type"),
        (
            r#"{"prompt":"a","temperature":"hot"}"#,
            "temperature",
            "Input should be a valid number, unable to parse string as a number",
            "float_parsing",
        ),
        (r#"{"prompt":"a","temperature":1e999}"#, "temperature", "Input should be a finite number", "finite_number"),
    ] {
        assert_eq!(refused(body), problem(param, message, kind), "{body}");
        let error = llm(body).unwrap_err();
        assert_eq!(
            (error.kind, error.status, error.param.as_deref()),
            (ErrorKind::InvalidRequest, Some(422), Some(param))
        );
    }
}

#[test]
fn awa_3_all_that_is_wrong_is_told_at_once() {
    let (status, body) = refused(r#"{"max_tokens":"x","temperature":{}}"#);
    let kinds: Vec<_> = body["detail"].as_array().unwrap().iter().map(|problem| problem["type"].clone()).collect();
    assert_eq!((status, kinds), (422, vec![json!("missing"), json!("int_parsing"), json!("float_type")]));
}

#[test]
fn awa_3_what_is_no_json_object_is_422() {
    assert_eq!(refused(""), (422, json!({"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]})));
    let (status, body) = refused("[]");
    assert_eq!((status, &body["detail"][0]["type"]), (422, &json!("model_attributes_type")));
    let (status, body) = refused("{\"prompt\":\n nope}");
    assert_eq!(status, 422);
    assert_eq!(
        body["detail"][0],
        json!({"loc": ["body", 12], "type": "json_invalid",
            "msg": "JSON decode error: `prompt`: expected a JSON value, found `nope` (line 2, column 2)"})
    );
    let (_, body) = refused(r#"{"prompt":"a","prompt":"b"}"#);
    assert_eq!(
        body["detail"][0]["msg"],
        "JSON decode error: `prompt`: is given twice in the same object (line 1, column 15)"
    );
    let error = parse("awa-llm", "/llm", &default_limits(), b"{\"prompt\":\"\xff\"}").unwrap_err();
    assert_eq!((error.status, error.code.as_deref()), (Some(422), Some("json_invalid")));
}

#[test]
fn awa_4_a_backends_failure_is_500_with_its_words() {
    for (kind, status) in [
        (ErrorKind::UpstreamFailure, 502),
        (ErrorKind::RateLimited, 429),
        (ErrorKind::InvalidRequest, 400),
        (ErrorKind::NotFound, 404),
        (ErrorKind::Timeout, 504),
        (ErrorKind::Overloaded, 503),
    ] {
        let rendered = render_error("awa-llm", &failure(kind.clone(), status));
        assert_eq!(
            (rendered.status, rendered.body.as_slice()),
            (500, br#"{"detail":"it \"broke\""}"#.as_slice()),
            "{kind:?}"
        );
    }
}

#[test]
fn awa_4_a_long_text_is_cut_at_2048_bytes_between_characters() {
    let detail = |message: String| {
        let mut broken = failure(ErrorKind::UpstreamFailure, 502);
        broken.error.message = message;
        let body: Value = serde_json::from_slice(&render_error("awa-llm", &broken).body).unwrap();
        body["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(detail("a".repeat(2048)), "a".repeat(2048));
    assert_eq!(detail("a".repeat(2049)), format!("{} [truncated]", "a".repeat(2048)));
    assert_eq!(detail(format!("a{}", "é".repeat(2000))), format!("a{} [truncated]", "é".repeat(1023)));
}

#[test]
fn awa_4_a_failure_behind_the_head_has_the_same_body() {
    let mut answer = renderer("awa-llm", "");
    answer.feed(vec![started()]);
    assert_eq!(answer.fail(&failure(ErrorKind::Timeout, 504)), br#"{"detail":"it \"broke\""}"#);
    assert!(answer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
}

#[test]
fn awa_8_what_the_gateway_refuses_keeps_its_status() {
    for (kind, status) in [
        (ErrorKind::Unauthenticated, 401),
        (ErrorKind::Forbidden, 403),
        (ErrorKind::NotFound, 404),
        (ErrorKind::TooLarge, 413),
        (ErrorKind::RateLimited, 429),
        (ErrorKind::Overloaded, 503),
    ] {
        let mut refusal = failure(kind, status);
        refusal.provider = None;
        let rendered = render_error("awa-llm", &refusal);
        assert_eq!((rendered.status, rendered.body.as_slice()), (status, br#"{"detail":"it \"broke\""}"#.as_slice()));
        let challenge = rendered.headers.contains(&("www-authenticate".into(), "Bearer".into()));
        assert_eq!(challenge, status == 401);
    }
}
