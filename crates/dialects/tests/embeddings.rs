//! OpenAI's embeddings: requests, good and bad, and answers.

mod common;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{failure, renderer};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_dialects::{default_limits, parse, render_error};
use witgate_model::normaliser::Parsed;
use witgate_model::{
    DialectJson, Embedding, EmbeddingInput, EmbeddingText, Error, ErrorKind, Event, Input, Scope, Started, Usage,
    Vector,
};

const FLOAT: &str = "";
const BASE64: &str = "base64";

fn at(path: &str, body: &str) -> Result<Parsed, Error> {
    parse("openai-embeddings", path, &default_limits(), body.as_bytes())
}

fn embeddings(body: &str) -> Result<Parsed, Error> {
    at("/v1/embeddings", body)
}

fn input(input: &str) -> Result<EmbeddingInput, Error> {
    match embeddings(&format!(r#"{{"input":{input}}}"#))?.request.input {
        Input::Embedding(input) => Ok(input),
        other => unreachable!("{other:?}"),
    }
}

fn text(text: &str) -> EmbeddingText {
    EmbeddingText::Text(text.into())
}

fn tokens(tokens: &[u32]) -> EmbeddingText {
    EmbeddingText::Tokens(tokens.to_vec())
}

#[test]
fn an_input_is_one_text_or_several_as_text_or_as_tokens() {
    for (json, texts, single) in [
        (r#""a\n""#, vec![text("a\n")], true),
        (r#"["a"]"#, vec![text("a")], false),
        (r#"["a", "b"]"#, vec![text("a"), text("b")], false),
        ("[1, 4294967295]", vec![tokens(&[1, u32::MAX])], true),
        ("[[1,2],[3]]", vec![tokens(&[1, 2]), tokens(&[3])], false),
    ] {
        let input = input(json).unwrap();
        assert_eq!((input.texts, input.single), (texts, single), "{json}");
    }
}

#[test]
fn every_member_has_its_place() {
    let parsed = embeddings(
        r#"{"model":"m","input":"a","dimensions":256,"encoding_format":"base64","user":"u","input_type":"query","x": {"y":1.0}}"#,
    )
    .unwrap();
    let request = parsed.request;
    assert_eq!((request.model.as_str(), request.dialect.as_str()), ("m", "openai-embeddings"));
    assert_eq!(request.end_user.as_deref(), Some("u"));
    assert_eq!(request.extra.as_deref(), Some(r#"{"input_type":"query","x":{"y":1.0}}"#));
    assert!(!request.stream);
    let wanted =
        EmbeddingInput { texts: vec![text("a")], single: true, dimensions: Some(256), encoding: Some("base64".into()) };
    assert_eq!(request.input, Input::Embedding(wanted));
    assert_eq!(parsed.render, BASE64);
    assert_eq!(embeddings(r#"{"input":"a","encoding_format":"float"}"#).unwrap().render, FLOAT);
}

#[test]
fn null_means_not_given() {
    let body = r#"{"input":"a","model":null,"dimensions":null,"encoding_format":null,"user":null}"#;
    assert_eq!(embeddings(body).unwrap(), embeddings(r#"{"input":"a"}"#).unwrap());
}

#[test]
fn the_path_names_the_model_where_the_body_does_not() {
    let model = |path: &str, body: &str| at(path, body).map(|parsed| parsed.request.model);
    let silent = r#"{"input":"a"}"#;
    assert_eq!(model("/openai/deployments/ada%2F2/embeddings?api-version=1", silent), Ok("ada/2".into()));
    assert_eq!(model("/openai/deployments/ada/embeddings", r#"{"input":"a","model":"m"}"#), Ok("m".into()));
    assert_eq!(model("/v1/embeddings", silent), Ok(String::new()));
    let error = model("/openai/deployments/%zz/embeddings", silent).unwrap_err();
    assert_eq!((error.param.as_deref(), error.status), (Some("model"), Some(400)));
}

#[test]
fn a_wrong_request_names_the_place() {
    for (body, param, message) in [
        ("{}", "input", "`input` is missing: a string, or an array of strings (line 1, column 1)"),
        (
            "{\"input\":null}",
            "input",
            "`input` must be a string, an array of tokens, or an array of either, found null (line 1, column 10)",
        ),
        (
            "{\"input\":{}}",
            "input",
            "`input` must be a string, an array of tokens, or an array of either, found an object (line 1, column 10)",
        ),
        (
            "{\"input\":\"\"}",
            "input",
            "`input` must not be an empty string: there is nothing to embed (line 1, column 10)",
        ),
        ("{\"input\":[]}", "input", "`input` must hold at least one text, found an empty array (line 1, column 10)"),
        (
            "{\"input\":[\"a\",\"\"]}",
            "input[1]",
            "`input[1]` must not be an empty string: there is nothing to embed (line 1, column 15)",
        ),
        (
            "{\"input\":[[1],[]]}",
            "input[1]",
            "`input[1]` must hold at least one token, found an empty array (line 1, column 15)",
        ),
        (
            "{\"input\":[\"a\",1]}",
            "input[1]",
            "`input[1]` must be a string, as the texts before it, found a number (line 1, column 15)",
        ),
        (
            "{\"input\":[1,\"a\"]}",
            "input[1]",
            "`input[1]` must be a token, as those before it, found a string (line 1, column 13)",
        ),
        (
            "{\"input\":[[1],2]}",
            "input[1]",
            "`input[1]` must be an array of tokens, as the texts before it, found a number (line 1, column 15)",
        ),
        (
            "{\"input\":[null]}",
            "input[0]",
            "`input[0]` must be a string, a token, or an array of tokens, found null (line 1, column 11)",
        ),
        (
            "{\"input\":[-1]}",
            "input[0]",
            "`input[0]` must be a whole number from 0 to 4294967295, found -1 (line 1, column 11)",
        ),
        (
            "{\"input\":[[1.5]]}",
            "input[0][0]",
            "`input[0][0]` must be a whole number from 0 to 4294967295, found 1.5 (line 1, column 12)",
        ),
        (
            "{\"input\":\"a\",\"dimensions\":0}",
            "dimensions",
            "`dimensions` must be a whole number from 1 to 4294967295, found 0 (line 1, column 27)",
        ),
        (
            "{\"input\":\"a\",\"encoding_format\":\"int8\"}",
            "encoding_format",
            "`encoding_format` must be \"float\" or \"base64\" (line 1, column 32)",
        ),
        (
            "{\"input\":[\"a\",",
            "input[1]",
            "invalid JSON at `input[1]`: expected a string, as the texts before it, the body ends here (line 1, column 15)",
        ),
        ("{\"input\":\"a\",\"input\":\"b\"}", "input", "`input` is given twice in the same object (line 1, column 14)"),
    ] {
        let error = embeddings(body).unwrap_err();
        assert_eq!((error.param.as_deref(), error.message.as_str()), (Some(param), message));
        assert_eq!((error.kind, error.status), (ErrorKind::InvalidRequest, Some(400)));
    }
}

#[test]
fn the_number_of_texts_is_bounded_and_that_of_tokens_is_not() {
    let many = |piece: &str, count: usize| format!("[{}]", vec![piece; count].join(","));
    for piece in ["\"a\"", "[7]"] {
        assert_eq!(input(&many(piece, 2048)).unwrap().texts.len(), 2048);
        let error = input(&many(piece, 2049)).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input[2048]"));
        assert!(error.message.starts_with("`input[2048]` is one text too many: at most 2048 are allowed"));
    }
    assert_eq!(input(&many("7", 8191)).unwrap().texts, [tokens(&[7; 8191])]);
}

fn render(flags: &str, events: Vec<Event>) -> String {
    String::from_utf8(renderer("openai-embeddings", flags).feed(events)).unwrap()
}

fn whole(flags: &str, events: Vec<Event>) -> Value {
    serde_json::from_str(&render(flags, events)).unwrap()
}

fn started() -> Event {
    Event::Started(Started { id: None, model: Some("m".into()), created: None })
}

fn embedding(index: u32, values: Vector) -> Event {
    Event::Embedding(Embedding { index, values })
}

fn numbers(json: &str) -> Vector {
    Vector::Numbers(json.into())
}

fn floats(floats: &[f32]) -> Vector {
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    Vector::Base64(BASE64_STANDARD.encode(bytes))
}

/// What the client gets for one vector.
fn one(flags: &str, vector: Vector) -> Value {
    whole(flags, vec![started(), embedding(0, vector), Event::Done])["data"][0]["embedding"].clone()
}

#[test]
fn an_answer_is_a_list_in_the_order_of_the_texts() {
    let events = vec![
        started(),
        embedding(1, numbers("[0.10,-2e-3]")),
        embedding(0, numbers(" [1, 2] ")),
        Event::Usage(Usage { input_tokens: Some(7), ..Usage::default() }),
        Event::Done,
    ];
    assert_snapshot!(render(FLOAT, events), @r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1, 2]},{"object":"embedding","index":1,"embedding":[0.10,-2e-3]}],"model":"m","usage":{"prompt_tokens":7,"total_tokens":7}}"#);
}

#[test]
fn an_answer_without_a_model_or_a_count_says_neither() {
    let start = Event::Started(Started::default());
    let answer = whole(FLOAT, vec![start, embedding(0, numbers("[1]")), Event::Done]);
    assert_eq!((&answer["model"], answer.get("usage")), (&json!("alias"), None));
}

#[test]
fn vectors_come_in_the_encoding_that_was_asked_for() {
    let values = [1.0_f32, -0.5, 3.25];
    let Vector::Base64(base64) = floats(&values) else { unreachable!() };
    assert_eq!(one(BASE64, numbers("[1.0, -0.5 ,\n3.25]")), json!(base64));
    assert_eq!(one(BASE64, floats(&values)), json!(base64));
    assert_eq!(one(FLOAT, floats(&values)), json!([1.0, -0.5, 3.25]));
    assert_eq!(one(FLOAT, numbers("[1.0]")), json!([1.0]));
    // Vectors of all lengths, so that base64 is padded in all ways.
    for length in 0..7 {
        let vector = vec![0.1_f32; length];
        let Vector::Base64(base64) = floats(&vector) else { unreachable!() };
        assert_eq!(one(BASE64, numbers(&format!("{vector:?}"))), json!(base64));
    }
}

#[test]
fn numbers_keep_their_form_and_those_of_base64_are_the_shortest() {
    let text = render(FLOAT, vec![started(), embedding(0, numbers("[0.10000000149011612, 1E-2]")), Event::Done]);
    assert!(text.contains("[0.10000000149011612, 1E-2]"), "{text}");
    let vector = floats(&[0.1, 1e-7, 1e20, -0.0, 16_777_216.0, f32::MIN_POSITIVE]);
    let text = render(FLOAT, vec![started(), embedding(0, vector), Event::Done]);
    assert!(text.contains("[0.1,1e-7,1e20,-0.0,16777216.0,1.1754944e-38]"), "{text}");
}

#[test]
fn vectors_of_each_token_are_arrays_in_either_encoding() {
    let rows = "[[1,2],[3,4],[]]";
    assert_eq!(one(FLOAT, numbers(rows)), json!([[1, 2], [3, 4], []]));
    let row = |values: &[f32]| match floats(values) {
        Vector::Base64(text) => json!(text),
        Vector::Numbers(_) => unreachable!(),
    };
    assert_eq!(one(BASE64, numbers(rows)), json!([row(&[1.0, 2.0]), row(&[3.0, 4.0]), row(&[])]));
}

#[test]
fn a_vector_that_cannot_be_read_is_null() {
    for broken in ["", "{}", "[1", "[1]]", "[\"1\"]", "[[1],2]", "[1,[2]]", "[[[1]]]", "[null]", "[NaN]", "1"] {
        for flags in [FLOAT, BASE64] {
            assert_eq!(one(flags, numbers(broken)), Value::Null, "{broken}");
        }
    }
    for broken in ["AAA=", "AAAAAAA", "!", "AAAAAAAAAA=="] {
        assert_eq!(one(FLOAT, Vector::Base64(broken.into())), Value::Null, "{broken}");
    }
    assert_eq!(one(FLOAT, floats(&[f32::NAN, 1.0, f32::INFINITY])), json!([null, 1.0, null]));
}

#[test]
fn what_the_backend_adds_is_kept_and_replaces_nothing() {
    let raw = r#"{"prompt_tokens":9,"total_tokens":9,"x":1,"completion_tokens":0}"#;
    let events = vec![
        started(),
        Event::other("openai-embeddings", Scope::Envelope, r#"{"id":"e1","model":"evil","object":"evil"}"#),
        Event::other("ollama", Scope::Envelope, r#"{"load_duration":1}"#),
        embedding(0, numbers("[1]")),
        Event::Usage(Usage {
            input_tokens: Some(9),
            estimated: true,
            raw: Some(DialectJson::new("openai-embeddings", raw)),
            ..Usage::default()
        }),
        Event::Done,
    ];
    assert_eq!(
        whole(FLOAT, events),
        json!({
            "object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [1]}], "model": "m", "id": "e1",
            "usage": {"prompt_tokens": 9, "total_tokens": 9, "estimated": true, "x": 1},
        })
    );
}

#[test]
fn the_body_comes_with_done_and_nothing_follows() {
    let mut answer = renderer("openai-embeddings", FLOAT);
    assert_eq!(answer.head().headers, [("content-type".to_string(), "application/json".to_string())]);
    assert!(answer.keep_alive().is_empty());
    assert!(answer.feed(vec![started(), embedding(0, numbers("[1]"))]).is_empty());
    assert!(!answer.feed(vec![Event::Done]).is_empty());
    assert!(answer.feed(vec![Event::Done]).is_empty());
    assert!(answer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
}

#[test]
fn failures_have_openais_shape() {
    let wanted = json!({"error": {"message": "it \"broke\"", "type": "server_error", "code": null, "param": null,
        "provider": "local", "request_id": "req-1"}});
    let rendered = render_error("openai-embeddings", &failure(ErrorKind::Overloaded, 503));
    assert_eq!((rendered.status, serde_json::from_slice::<Value>(&rendered.body).unwrap()), (503, wanted.clone()));
    let mut answer = renderer("openai-embeddings", FLOAT);
    answer.feed(vec![started(), embedding(0, numbers("[1]"))]);
    let bytes = answer.fail(&failure(ErrorKind::Overloaded, 503));
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), wanted);
    assert!(answer.feed(vec![Event::Done]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_vector_survives_both_encodings(values in prop::collection::vec(any::<f32>(), 0..20)) {
        let values: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
        let text = render(FLOAT, vec![started(), embedding(0, floats(&values)), Event::Done]);
        let start = text.find("\"embedding\":[").unwrap() + "\"embedding\":".len();
        let end = text[start..].find(']').unwrap() + start + 1;
        prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
        let back: Vec<f32> = text[start + 1..end - 1]
            .split_terminator(',')
            .map(|number| number.parse().unwrap())
            .collect();
        prop_assert_eq!(back.iter().map(|f| f.to_bits()).collect::<Vec<_>>(), values.iter().map(|f| f.to_bits()).collect::<Vec<_>>());
        let Vector::Base64(base64) = floats(&values) else { unreachable!() };
        prop_assert_eq!(one(BASE64, numbers(&text[start..end])), json!(base64));
    }

    #[test]
    fn whatever_the_vectors_the_body_is_json(
        vectors in prop::collection::vec((0..4u32, prop_oneof!["[\\[\\]0-9.,e \"-]{0,12}", ".{0,8}"], any::<bool>()), 0..6),
        base64 in any::<bool>(),
    ) {
        let mut events = vec![started()];
        events.extend(vectors.into_iter().map(|(index, text, numbers)| {
            embedding(index, if numbers { Vector::Numbers(text) } else { Vector::Base64(text) })
        }));
        events.push(Event::Done);
        let answer = whole(if base64 { BASE64 } else { FLOAT }, events);
        let indexes: Vec<_> = answer["data"].as_array().unwrap().iter().map(|one| one["index"].as_u64().unwrap()).collect();
        prop_assert!(indexes.is_sorted());
    }

    #[test]
    fn texts_are_kept_as_they_were_sent(texts in prop::collection::vec(".{1,12}", 1..6), x in ".{0,6}") {
        let parsed = embeddings(&json!({"input": texts, "x": x}).to_string()).unwrap().request;
        let wanted = texts.iter().map(|text| EmbeddingText::Text(text.clone())).collect();
        let wanted = EmbeddingInput { texts: wanted, single: false, dimensions: None, encoding: None };
        prop_assert_eq!(parsed.input, Input::Embedding(wanted));
        prop_assert_eq!(serde_json::from_str::<Value>(&parsed.extra.unwrap()).unwrap(), json!({"x": x}));
    }
}
