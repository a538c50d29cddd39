//! What stands in front of the path: methods, other origins, encodings, lists of models in three shapes.

use crate::world;

use std::io::Write;

use bytes::Bytes;
use serde_json::Value;
use witgate_config::Config;
use world::{Act, Client, Script, World, chat_body, config, whole_answer};

fn json(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

fn with_origins(origins: &[&str]) -> Config {
    let mut config = config();
    config.server.cors.origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    config
}

fn answers(world: &World) {
    let body = Act::Bytes(whole_answer());
    world.upstream(vec![Script::new(vec![(1, Act::Head(200, "application/json")), (1, body), (1, Act::End)])]);
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn options_tells_the_methods_of_a_path_without_a_key_and_a_wrong_path_is_not_found() {
    let world = World::new(1, config());
    let answer = world.get("/v1/chat/completions");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = world.call("OPTIONS", CHAT, &[], Bytes::new());
    assert_eq!((answer.status, answer.header("allow"), answer.body.len()), (200, Some("POST, OPTIONS"), 0));
    assert_eq!(answer.header("access-control-allow-origin"), None, "no origin is configured");
    let answer = world.call("OPTIONS", "/v1/models", &[], Bytes::new());
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(world.call("OPTIONS", "/v2/nothing", &[], Bytes::new()).status, 404);
}

#[test]
fn head_is_get_without_a_body() {
    let world = World::new(1, config());
    let answer = world.call("HEAD", "/health", &[], Bytes::new());
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[test]
fn a_browser_asks_before_and_every_answer_tells_it_an_error_too() {
    let world = World::new(1, with_origins(&["*"]));
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, x-custom, b@d"),
    ];
    let answer = world.call("OPTIONS", CHAT, &asked, Bytes::new());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-custom"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    answers(&world);
    for (body, status) in [(chat_body("chain", false), 200), (Bytes::from_static(b"{"), 400)] {
        let answer = world.call("POST", CHAT, &asked[..1], body);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some("*")));
        assert!(answer.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    }
}

#[test]
fn only_a_configured_origin_is_let_in_and_caches_are_told_that_it_matters() {
    let world = World::new(1, with_origins(&["https://app.example"]));
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let answer = world.call("GET", "/health", &[("origin", origin)], Bytes::new());
        assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(origin));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
}

#[test]
fn a_compressed_body_is_read_and_bounded_by_what_comes_out() {
    let gzip = |body: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let world = World::new(1, config());
    answers(&world);
    let encoded = [("content-encoding", "gzip")];
    let answer = world.call("POST", CHAT, &encoded, gzip(&chat_body("chain", false)));
    assert_eq!(answer.status, 200, "{answer:?}");
    // 64 KiB are the limit here.
    let answer = world.call("POST", CHAT, &encoded, gzip(&vec![b' '; 1 << 20]));
    assert_eq!((answer.status, json(&answer)["error"]["code"].as_str()), (413, Some("body_too_large")));
    let answer = world.call("POST", CHAT, &[("content-encoding", "lzma")], Bytes::from_static(b"x"));
    assert_eq!((answer.status, json(&answer)["error"]["code"].as_str()), (415, Some("content_encoding")));
}

/// What three OpenAI servers list, in the order in which they are asked.
fn listing(world: &World) {
    let script = |body: &'static str| {
        let body = Act::Bytes(Bytes::from_static(body.as_bytes()));
        Script::new(vec![(1, Act::Head(200, "application/json")), (1, body), (1, Act::End)])
    };
    world.upstream(vec![
        script(r#"{"object":"list","data":[{"id":"m","object":"model","created":1686935002,"owned_by":"a"}]}"#),
        script(r#"{"object":"list","data":[]}"#),
        script(r#"{"object":"list","data":[{"id":"n","object":"model","created":1,"owned_by":"b"}]}"#),
    ]);
}

#[test]
fn models_are_listed_in_the_shape_of_whoever_asks() {
    let world = World::new(1, config());
    listing(&world);
    let ids = |value: &Value, list: &str, id: &str| -> Vec<String> {
        value[list].as_array().unwrap().iter().map(|entry| entry[id].as_str().unwrap().to_owned()).collect()
    };
    let expected = ["chain", "first/m", "second/n"];
    let openai = json(&world.call("GET", "/v1/models", &[], Bytes::new()));
    assert_eq!(
        (openai["object"].as_str(), ids(&openai, "data", "id")),
        (Some("list"), expected.map(String::from).into())
    );
    let version = [("anthropic-version", "2023-06-01")];
    let anthropic = json(&world.call("GET", "/v1/models", &version, Bytes::new()));
    assert_eq!(ids(&anthropic, "data", "id"), expected);
    assert_eq!(anthropic["data"][1]["created_at"], "2023-06-16T17:03:22Z");
    assert_eq!((&anthropic["has_more"], &anthropic["last_id"]), (&false.into(), &"second/n".into()));
    let ollama = json(&world.call("GET", "/api/tags", &[], Bytes::new()));
    assert_eq!(ids(&ollama, "models", "name"), expected);
    let one = json(&world.call("GET", "/v1/models/first/m", &version, Bytes::new()));
    assert_eq!((one["type"].as_str(), one["id"].as_str()), (Some("model"), Some("first/m")));
    assert_eq!(world.sent(), 3, "the backends were asked once");
}

#[test]
fn a_backend_that_lists_no_models_does_not_stop_the_list_from_being_kept() {
    for (status, asked_again) in [(404, false), (500, true)] {
        let world = World::new(1, config());
        listing(&world);
        let body = Act::Bytes(Bytes::from_static(br#"{"error":{"message":"no"}}"#));
        let fails = Script::new(vec![(1, Act::Head(status, "application/json")), (1, body), (1, Act::End)]);
        // In place of the last one's.
        world.replace_last(fails);
        for _ in 0..2 {
            let listed = json(&world.call("GET", "/v1/models", &[], Bytes::new()));
            assert_eq!(listed["data"][1]["id"], "first/m");
            listing(&world);
        }
        assert_eq!(world.sent(), if asked_again { 6 } else { 3 }, "{status}");
    }
}

#[test]
fn a_backend_whose_adapter_refuses_to_list_models_is_none() {
    let text = r#"
        [providers.one]
        adapter = "openai"
        endpoint = "http://one/v1/chat/completions"
        settings = { path = "exact" }
    "#;
    let world = World::new(1, Config::from_toml(text, "t.toml", &|_| None).unwrap());
    for _ in 0..2 {
        assert_eq!(json(&world.call("GET", "/v1/models", &[], Bytes::new()))["data"], serde_json::json!([]));
    }
    assert_eq!(world.sent(), 0);
}

#[test]
fn a_query_that_is_too_long_is_refused_and_others_change_nothing() {
    let world = World::new(1, config());
    let path = format!("/v1/chat/completions?{}", "a=b&".repeat(65));
    let refused = world.call("POST", &path, &[], Bytes::from_static(b"{}"));
    assert_eq!((refused.status, json(&refused)["error"]["code"].as_str()), (414, Some("uri_too_long")));
    let body = world::chat_body("none", false);
    assert_eq!(world.call("POST", "/v1/chat/completions?api-version=2024-10-21", &[], body).status, 404);
}

#[test]
fn ollamas_clients_learn_the_version_and_what_a_model_is() {
    let world = World::new(1, config());
    listing(&world);
    assert!(json(&world.call("GET", "/api/version", &[], Bytes::new()))["version"].is_string());
    for body in [r#"{"model":"first/m"}"#, r#"{"name":"first/m:latest"}"#] {
        let shown = world.call("POST", "/api/show", &[], Bytes::from_static(body.as_bytes()));
        assert_eq!((shown.status, json(&shown)["modified_at"].as_str()), (200, Some("2023-06-16T17:03:22Z")));
    }
    assert_eq!(world.call("POST", "/api/show", &[], Bytes::from_static(br#"{"model":"none"}"#)).status, 404);
    assert_eq!(world.call("POST", "/api/show", &[], Bytes::from_static(b"[]")).status, 400);
    assert_eq!(world.request_with_key(None, "/api/show", Bytes::new()).status, 401);
}

#[test]
fn a_gateway_that_takes_any_name_lists_who_answers() {
    let world = World::new(1, Config::builtin());
    let listed = json(&world.call("GET", "/v1/models", &[], Bytes::new()));
    assert_eq!(listed["data"][0]["id"], "stub");
}
