//! Keys of clients and the admin API, over the simulated world.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use world::{Act, Client, Script, StoreIs, World, chat_body, whole_answer};

const CHAT: &str = "/v1/chat/completions";

fn config(more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\", \"other-key\"]\n[admin]\nkey = \"root\"\n[providers.p]\nadapter = \
         \"openai\"\nendpoint = \"http://p/v1\"\n[models.fast]\ntarget = \"p/m\"\n[models.slow]\ntarget = \"p/m\"\n{more}"
    );
    Config::from_toml(&text, "keys.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn world(more: &str) -> World {
    let world = World::new(1, config(more));
    world.serve(|_, _| {
        Script::new(vec![(1, Act::Head(200, "application/json")), (0, Act::Bytes(whole_answer())), (0, Act::End)])
    });
    world
}

fn body(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

fn admin(world: &World, method: &str, path: &str, json: &Value) -> (u16, Value) {
    let body = if json.is_null() { Bytes::new() } else { Bytes::from(json.to_string()) };
    let client = world.bare(method, path, &[("authorization", "Bearer root")], body);
    let json = serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"));
    (client.status, json)
}

/// Makes a key; its id and its secret.
fn made(world: &World, json: &Value) -> (String, String) {
    let (status, json) = admin(world, "POST", "/admin/keys", json);
    assert_eq!(status, 201, "{json}");
    (json["id"].as_str().unwrap().to_owned(), json["key"].as_str().unwrap().to_owned())
}

fn ask(world: &World, key: Option<&str>, model: &str) -> Client {
    world.request_with_key(key, CHAT, chat_body(model, false))
}

fn code(client: &Client) -> (u16, String) {
    (client.status, body(client)["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn bed_r1_no_key_is_401_and_a_wrong_one_403_on_this_facade_alone() {
    let world = world("[keys.alice]\nsecret = \"sk-alice\"\n[dialects.bedrock-chat]\nmodel = \"fast\"");
    let chat = |key| world.request_with_key(key, "/chat", Bytes::from_static(b"{\"prompt\":\"Hi\"}"));
    assert_eq!(chat(None).status, 401);
    assert_eq!(chat(Some("wrong")).status, 403);
    assert_eq!(body(&chat(Some("wrong")))["error"], "the API key is not one of this gateway's");
    for key in ["test-key", "other-key", "sk-alice"] {
        assert_eq!(chat(Some(key)).status, 200, "{key}");
    }
    // Several keys, each with an id of its own.
    let ids: Vec<_> = world.records().iter().filter_map(|record| record.key.clone()).collect();
    assert_eq!(ids, ["server.0", "server.1", "alice"]);
    assert_eq!(code(&ask(&world, None, "fast")), (401, "missing_api_key".to_owned()));
    assert_eq!(code(&ask(&world, Some("wrong"), "fast")), (401, "invalid_api_key".to_owned()));
    assert_eq!(code(&ask(&world, Some("sk-wg-wrong"), "fast")), (401, "invalid_api_key".to_owned()));
    let anthropic = world.bare("POST", "/v1/messages", &[("x-api-key", "wrong")], Bytes::new());
    assert_eq!((anthropic.status, &body(&anthropic)["error"]["type"]), (401, &json!("authentication_error")));
}

#[test]
fn a_key_may_ask_for_its_models_and_speak_its_dialects_until_it_expires() {
    let world = world(
        "[keys.alice]\nsecret = \"sk-alice\"\nmodels = [\"fast\", \"p/*-mini\"]\nroutes = [\"openai-*\"]\nexpires = \
         2023-11-14T22:15:00Z",
    );
    assert_eq!(ask(&world, Some("sk-alice"), "fast").status, 200);
    assert_eq!(ask(&world, Some("sk-alice"), "p/gpt-mini").status, 200);
    for model in ["slow", "p/gpt", "nothing"] {
        let refused = ask(&world, Some("sk-alice"), model);
        assert_eq!(code(&refused), (403, "model_not_allowed".to_owned()));
        assert_eq!(body(&refused)["error"]["param"], "model");
    }
    let messages = json!({"model": "fast", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    let message = |key| world.bare("POST", "/v1/messages", &[("x-api-key", key)], Bytes::from(messages.to_string()));
    let refused = message("sk-alice");
    let error = &body(&refused)["error"];
    assert_eq!(
        (refused.status, &error["type"], &error["code"]),
        (403, &json!("permission_error"), &json!("route_not_allowed"))
    );
    assert_eq!(message("test-key").status, 200);
    // What it may not ask for it does not see.
    let models = world.bare("GET", "/v1/models", &[("authorization", "Bearer sk-alice")], Bytes::new());
    let ids: Vec<_> = body(&models)["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["fast"]);
    // 1,700,000,000 is 22:13:20.
    world.pass(Duration::from_secs(100));
    assert_eq!(code(&ask(&world, Some("sk-alice"), "fast")), (401, "expired_api_key".to_owned()));
}

#[test]
fn a_server_without_keys_is_open_and_an_admin_key_closes_it() {
    let text = "[providers.p]\nadapter = \"stub\"\n[models.\"*\"]\ntarget = \"p\"\n";
    let open = World::new(1, Config::from_toml(text, "f", &|_| None).unwrap());
    assert_eq!(ask(&open, None, "any").status, 200);
    assert_eq!(open.records()[0].key, None);
    assert_eq!(open.bare("GET", "/admin/keys", &[], Bytes::new()).status, 404, "no admin API without its key");
    let text = format!("{text}[admin]\nkey = \"root\"");
    let closed = World::new(1, Config::from_toml(&text, "f", &|_| None).unwrap());
    assert_eq!(ask(&closed, None, "any").status, 401);
    assert_eq!(ask(&closed, Some("root"), "any").status, 401, "the admin key is no client's");
    let (_, secret) = made(&closed, &json!({"name": "n"}));
    assert_eq!(ask(&closed, Some(&secret), "any").status, 200);
}

#[test]
fn the_admin_api_wants_its_own_key_and_says_what_is_wrong() {
    let world = world("");
    for headers in [&[][..], &[("authorization", "Bearer test-key")], &[("authorization", "Bearer Root")]] {
        let refused = world.bare("GET", "/admin/keys", headers, Bytes::new());
        assert_eq!(code(&refused), (401, "invalid_admin_key".to_owned()));
    }
    for (method, path, body, status, says) in [
        ("POST", "/admin/keys", json!({}), 400, "name must be 1 to 256 bytes"),
        ("POST", "/admin/keys", json!({"nmae": "x"}), 400, "unknown field `nmae`"),
        ("POST", "/admin/keys", json!({"name": "x", "tenant": "a b"}), 400, "tenant must be letters"),
        ("POST", "/admin/keys", json!({"name": "x", "routes": ["openai-chatt"]}), 400, "no dialect \"openai-chatt\""),
        ("POST", "/admin/keys", json!({"name": "x", "budget": {"day": -1}}), 400, "an amount of budget"),
        ("POST", "/admin/keys", json!({"name": "x", "models": vec!["m"; 65]}), 400, "64 entries"),
        ("PUT", "/admin/keys", Value::Null, 405, "use GET, POST"),
        ("GET", "/admin/nothing", Value::Null, 404, "the admin API has"),
        ("GET", "/admin/keys/key_none", Value::Null, 404, "no key of this id"),
        ("GET", "/admin/keys?limit=0", Value::Null, 400, "limit must be"),
        ("GET", "/admin/spend?form=2026-01-01", Value::Null, 400, "no parameter \"form\""),
        ("GET", "/admin/spend?from=yesterday", Value::Null, 400, "from must be a day"),
        ("GET", "/admin/spend?group_by=hour", Value::Null, 400, "found \"hour\""),
    ] {
        let (found, json) = admin(&world, method, path, &body);
        let message = json["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(found == status && message.contains(says), "{method} {path}: {found} {message}");
    }
    let large = json!({"name": "x".repeat(70_000)});
    assert_eq!(admin(&world, "POST", "/admin/keys", &large).0, 413);
}

#[test]
fn a_key_is_made_shown_listed_changed_rotated_and_revoked() {
    let world = world("[keys.alice]\nsecret = \"sk-alice\"\ntenant = \"t\"");
    let wish = json!({
        "name": "ci", "tenant": "research", "metadata": {"owner": "bob"}, "models": ["fast"],
        "quota": {"requests_per_minute": 100}, "budget": {"month": 12.5},
    });
    let (id, secret) = made(&world, &wish);
    assert!(secret.starts_with("sk-wg-") && secret.len() == 70, "{secret}");
    assert_eq!(ask(&world, Some(&secret), "fast").status, 200);
    let record = world.records().pop().unwrap();
    assert_eq!((record.key.as_deref(), record.tenant.as_deref()), (Some(id.as_str()), Some("research")));

    // Nobody sees the secret again, nor its hash.
    let (_, shown) = admin(&world, "GET", &format!("/admin/keys/{id}"), &Value::Null);
    assert_eq!((&shown["budget"]["month"], &shown["created"]), (&json!(12.5), &json!(1_700_000_000)));
    let (_, list) = admin(&world, "GET", "/admin/keys", &Value::Null);
    let text = format!("{shown}{list}");
    assert!(!text.contains("sk-") && !text.contains("hash"), "{text}");
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|key| key["id"].clone()).collect();
    assert_eq!(ids, ["alice", id.as_str()]);
    assert_eq!(admin(&world, "DELETE", "/admin/keys/alice", &Value::Null).0, 409);

    let path = format!("/admin/keys/{id}");
    let (status, changed) =
        admin(&world, "PATCH", &path, &json!({"models": null, "metadata": {"owner": null, "x": "y"}}));
    assert_eq!((status, &changed["models"], &changed["metadata"]), (200, &json!([]), &json!({"x": "y"})));
    assert_eq!(changed["quota"]["requests_per_minute"], 100);
    assert_eq!(ask(&world, Some(&secret), "slow").status, 200, "at once, whatever was known of the key");
    assert_eq!(admin(&world, "PATCH", &path, &json!({"name": ""})).0, 400);

    // The old secret counts for the grace period, the new one at once.
    let (status, rotated) = admin(&world, "POST", &format!("{path}/rotate"), &json!({"grace_seconds": 60}));
    let new = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((status, &rotated["previous_valid_until"]), (200, &json!(1_700_000_060 + world.elapsed().as_secs())));
    for secret in [&secret, &new] {
        assert_eq!(ask(&world, Some(secret), "fast").status, 200);
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(ask(&world, Some(&secret), "fast").status, 401);
    assert_eq!(ask(&world, Some(&new), "fast").status, 200);
    // Without a grace period the old one ends at once.
    let (_, rotated) = admin(&world, "POST", &format!("{path}/rotate"), &json!({"grace_seconds": 0}));
    assert_eq!(ask(&world, Some(&new), "fast").status, 401);
    let newest = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!(ask(&world, Some(&newest), "fast").status, 200);

    let (status, revoked) = admin(&world, "DELETE", &path, &Value::Null);
    assert_eq!((status, revoked["revoked"].is_u64()), (200, true));
    assert_eq!(ask(&world, Some(&newest), "fast").status, 401, "at once");
    for (method, path) in [("DELETE", path.clone()), ("POST", format!("{path}/rotate"))] {
        assert_eq!(admin(&world, method, &path, &Value::Null).0, 409);
    }
}

#[test]
fn keys_are_listed_page_by_page() {
    let world = world("");
    let mut all: Vec<_> = (0..5).map(|number| made(&world, &json!({"name": format!("k{number}")})).0).collect();
    all.sort();
    let (_, first) = admin(&world, "GET", "/admin/keys?limit=3", &Value::Null);
    let ids = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((ids(&first), &first["has_more"]), (all[..3].to_vec(), &json!(true)));
    let (_, rest) = admin(&world, "GET", &format!("/admin/keys?limit=3&after={}", all[2]), &Value::Null);
    assert_eq!((ids(&rest), &rest["has_more"]), (all[3..].to_vec(), &json!(false)));
}

#[test]
fn a_key_that_was_read_asks_the_store_again_only_after_its_time() {
    let world = world("[accounting]\nkey_ttl = \"5s\"");
    let (_, secret) = made(&world, &json!({"name": "n"}));
    let asked = |key: &str| {
        let before = world.store_calls();
        ask(&world, Some(key), "nothing");
        world.store_calls() - before
    };
    assert_eq!((asked(&secret), asked(&secret), asked(&secret)), (2, 0, 0));
    // Wrong ones are remembered too, and those without the mark of a made key ask nobody.
    assert_eq!((asked("sk-wg-wrong"), asked("sk-wg-wrong"), asked("wrong")), (1, 0, 0));
    world.pass(Duration::from_secs(5));
    assert_eq!((asked(&secret), asked(&secret)), (2, 0));
}

#[test]
fn a_store_that_is_down_keeps_known_keys_and_lets_no_unknown_one_in() {
    for (mode, known) in [("open", 200), ("closed", 503)] {
        let world = world(&format!("[state]\non_failure = \"{mode}\""));
        let (_, secret) = made(&world, &json!({"name": "n"}));
        assert_eq!(ask(&world, Some(&secret), "fast").status, 200);
        for is in [StoreIs::Failing, StoreIs::Hanging] {
            world.store_is(is);
            world.pass(Duration::from_secs(6));
            let before = world.elapsed();
            let answer = ask(&world, Some(&secret), "fast");
            assert_eq!(answer.status, known, "{mode} {is:?}");
            let unknown = ask(&world, Some("sk-wg-unknown"), "fast");
            assert_eq!(code(&unknown), (503, "state_unavailable".to_owned()));
            assert_eq!(unknown.header("retry-after"), Some("1"));
            assert!(world.elapsed() - before < Duration::from_secs(9), "it hangs");
            // Keys of the configuration need no store.
            assert_eq!(ask(&world, Some("test-key"), "fast").status, 200);
            assert_eq!(admin(&world, "GET", "/admin/keys", &Value::Null).0, 503);
            assert!(world.new_warnings().iter().all(|warning| warning.starts_with("State")));
        }
        world.store_is(StoreIs::Well);
        assert_eq!(ask(&world, Some(&secret), "fast").status, 200, "{mode}");
    }
}

#[test]
fn what_is_kept_belongs_to_the_key_across_its_rotation_and_to_no_other() {
    let world = world("");
    let (id, secret) = made(&world, &json!({"name": "one", "tenant": "t"}));
    let (_, other) = made(&world, &json!({"name": "two", "tenant": "t"}));
    let responses = json!({"model": "fast", "input": "Hi", "store": true}).to_string();
    let created = world.request_with_key(Some(&secret), "/v1/responses", Bytes::from(responses));
    assert_eq!(created.status, 200, "{created:?}");
    let path = format!("/v1/responses/{}", body(&created)["id"].as_str().unwrap());
    let get = |key: &str| world.bare("GET", &path, &[("authorization", &format!("Bearer {key}"))], Bytes::new()).status;
    let (_, rotated) = admin(&world, "POST", &format!("/admin/keys/{id}/rotate"), &json!({}));
    let new = rotated["key"].as_str().unwrap();
    assert_eq!([&secret, new, &other, "test-key"].map(get), [200, 200, 404, 404]);
}

#[test]
fn health_tells_of_each_endpoint_and_the_store() {
    let world = world("");
    ask(&world, Some("test-key"), "fast");
    let (status, health) = admin(&world, "GET", "/admin/health", &Value::Null);
    let endpoint = &health["providers"]["p"]["endpoints"][0];
    assert_eq!((status, &health["state"], &endpoint["url"]), (200, &json!("ok"), &json!("http://p/v1")));
    assert_eq!(
        (&endpoint["well"], &endpoint["in_flight"], &endpoint["latency_ms"]),
        (&json!(true), &json!(0), &json!(1.0))
    );
    world.store_is(StoreIs::Failing);
    let (_, health) = admin(&world, "GET", "/admin/health", &Value::Null);
    assert_eq!(health["state"], "the state store: switched off");
}

#[test]
fn a_model_that_a_key_may_not_ask_for_is_refused_when_it_is_to_be_asked_later() {
    let world = world("[keys.alice]\nsecret = \"sk-alice\"\nmodels = [\"fast\"]\n[keys.bob]\nsecret = \"sk-bob\"");
    let ask = |key: &str, path: &str, json: Value| {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("prefer", "respond-async")];
        let headers = if path == "/v1/responses" { &headers[..1] } else { &headers[..] };
        world.bare("POST", path, headers, Bytes::from(json.to_string())).status
    };
    let chat = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let later = |model: &str| json!({"model": model, "input": "Hi", "background": true});
    let payload = json!({"backend": "p", "model": "m", "prompt": "Hi"});
    for (path, asked, status) in
        [(CHAT, chat("slow"), 202), ("/v1/responses", later("slow"), 200), ("/invoke/llm/enqueue", payload, 202)]
    {
        assert_eq!((ask("sk-alice", path, asked.clone()), ask("sk-bob", path, asked)), (403, status), "{path}");
    }
    assert_eq!((ask("sk-alice", CHAT, chat("fast")), ask("sk-alice", "/v1/responses", later("fast"))), (202, 200));
}
