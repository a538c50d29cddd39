//! Stored configurations from a bucket and from the state store, and answers that are kept in the state store.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::{Expect, State};
use witgate_gateway::{BUCKET, Credentials};
use world::{Act, Client, Script, World, whole_answer};

const STORED: &str = r#"{"provider":"openai","model":"m","message":"Say {{a}}"}"#;

fn world(more: &str) -> World {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[providers.openai]\nadapter = \"openai\"\nendpoint = \"http://openai/v1\"\n\
         api_key = \"sk\"\n{more}"
    );
    World::new(1, Config::from_toml(&text, "t.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}")))
}

fn invoke(world: &World, key: &str) -> Client {
    let payload = json!({"key": key, "version": "2", "data": {"a": "A"}});
    world.call("POST", "/invoke", &[], Bytes::from(payload.to_string()))
}

fn script(status: u16, content: &str) -> Script {
    let body = Bytes::copy_from_slice(content.as_bytes());
    Script::new(vec![(1, Act::Head(status, "application/xml")), (1, Act::Bytes(body)), (1, Act::End)])
}

/// The bucket has one object; its other keys, and the model's answers, are these.
fn bucket(world: &World, status: u16, content: &'static str) {
    let mut json = true;
    world.serve(move |host, _| {
        if host == "openai" {
            return Script::new(vec![
                (1, Act::Head(200, "application/json")),
                (1, Act::Bytes(whole_answer())),
                (1, Act::End),
            ]);
        }
        // The dialect asks for greet.2.json and greet.2.md.
        json = !json;
        match json {
            false => script(status, content),
            true => script(404, "<Error><Code>NoSuchKey</Code></Error>"),
        }
    });
}

const S3: &str = "[documents]\ncache_ttl = \"30s\"\nmax_bytes = \"1KiB\"\n\
                  s3 = { bucket = \"stored\", prefix = \"a b\", region = \"eu-west-1\", endpoint = \"http://s3:9000\" }";

fn body(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

fn error(client: &Client) -> String {
    body(client)["error"].to_string()
}

#[test]
fn a_configuration_is_got_from_a_bucket_signed_and_counts_as_read_for_a_while() {
    let world = world(S3);
    world.credentials(Credentials::new("AKIDTEST", "secret", Some("of-a-session".into()), None, "test"));
    bucket(&world, 200, STORED);
    assert_eq!(invoke(&world, "team/greet ü").status, 200);
    let sent = world.requests_sent();
    let got: Vec<_> = sent.iter().filter(|request| request.provider == BUCKET).collect();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].url, "http://s3:9000/stored/a%20b/team/greet%20%C3%BC.2.json");
    let header = |name: &str| got[0].headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!((header("x-amz-content-sha256"), header("x-amz-security-token")), (Some(empty), Some("of-a-session")));
    let authorization = header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIDTEST/20231114/eu-west-1/s3/aws4_request"), "{authorization}");
    assert!(!format!("{:?}", got[0]).contains("of-a-session"));
    let asked: Value = serde_json::from_slice(&sent.last().unwrap().body).unwrap();
    assert!(asked["messages"].to_string().contains("Say A"), "{asked}");

    // Both are known now, the absent one too, and are asked for again when they have aged.
    assert_eq!(invoke(&world, "team/greet ü").status, 200);
    assert_eq!(world.sent_to("s3:9000"), 2);
    world.pass(Duration::from_secs(31));
    assert_eq!(invoke(&world, "team/greet ü").status, 200);
    assert_eq!(world.sent_to("s3:9000"), 4);
}

#[test]
fn what_a_bucket_does_not_have_is_not_found_and_what_it_refuses_is_told() {
    for (status, content, told, what) in [
        (404, "<Error><Code>NoSuchKey</Code></Error>", 404, "greet.2"),
        (404, "<Error><Code>NoSuchBucket</Code></Error>", 503, "the bucket stored answers 404 NoSuchBucket"),
        (403, "<Error><Code>AccessDenied</Code></Error>", 503, "s3:ListBucket"),
        (500, "no", 503, "the bucket stored answers 500"),
        (200, "\u{e9}\u{0}", 400, "greet.2"),
    ] {
        let world = world(S3);
        world.credentials(Credentials::new("AKIDTEST", "secret", None, None, "test"));
        bucket(&world, status, content);
        let client = invoke(&world, "greet");
        assert_eq!(client.status, told, "{status} {content}: {client:?}");
        assert!(error(&client).contains(what), "{status} {content}: {}", error(&client));
        assert_eq!(world.sent_to("openai"), 0);
    }
}

#[test]
fn a_bucket_that_sends_too_much_or_hangs_or_has_no_credentials_is_told() {
    let long: &'static str = Box::leak("x".repeat(1_025).into_boxed_str());
    let world_of = || {
        let world = world(S3);
        world.credentials(Credentials::new("AKIDTEST", "secret", None, None, "test"));
        world
    };
    let world = world_of();
    bucket(&world, 200, long);
    assert!(error(&invoke(&world, "greet")).contains("larger than 1024 bytes (documents.max_bytes)"));

    let world = world_of();
    world.serve(|_, _| Script::new(vec![(60_000, Act::Head(200, "text/plain")), (1, Act::End)]));
    let client = invoke(&world, "greet");
    assert_eq!(client.status, 503);
    assert!(error(&client).contains("did not answer within 10 s"), "{}", error(&client));
    assert!(world.elapsed() < Duration::from_secs(15));
    // A failure is not remembered.
    bucket(&world, 200, STORED);
    assert_eq!(invoke(&world, "greet").status, 200);

    let world = self::world(S3);
    bucket(&world, 200, STORED);
    assert!(error(&invoke(&world, "greet")).contains("no credentials for the bucket"));
    assert_eq!(world.sent(), 0);
}

#[test]
fn a_configuration_is_read_from_the_state_store() {
    let world = world("[documents]\nfrom = \"state\"");
    let now = Duration::from_secs(1_700_000_000);
    let set = |key: &str, value: &'static str| {
        let set = world.state().set(now, key, Some(Bytes::from_static(value.as_bytes())), None, Expect::Anything);
        assert_eq!(set.now_or_never(), Some(Ok(true)));
    };
    set("configuration/team/greet.2.json", STORED);
    bucket(&world, 500, "");
    assert_eq!(invoke(&world, "team/greet").status, 200);
    assert_eq!(invoke(&world, "team/other").status, 404);
    // It counts as read for a minute, which is the default.
    set("configuration/team/greet.2.json", "{}");
    assert_eq!(invoke(&world, "team/greet").status, 200);
    world.pass(Duration::from_secs(61));
    assert_eq!(invoke(&world, "team/greet").status, 400);
}

fn responses(more: &str, keys: &str) -> World {
    let text = format!(
        "[server]\napi_keys = [{keys}]\n[providers.first]\nadapter = \"openai\"\nendpoint = \"http://first/v1\"\n\
         [models.chain]\ntarget = \"first/m\"\n[limits]\nmax_response_bytes = \"8MiB\"\n{more}"
    );
    World::new(1, Config::from_toml(&text, "t.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}")))
}

fn create(world: &World, text: &str) -> String {
    let answer = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    });
    let whole = Act::Bytes(Bytes::from(answer.to_string()));
    world.upstream(vec![Script::new(vec![(1, Act::Head(200, "application/json")), (1, whole), (1, Act::End)])]);
    let request = json!({"model": "chain", "input": "Hi"}).to_string();
    let client = world.call("POST", "/v1/responses", &[], Bytes::from(request));
    assert_eq!(client.status, 200, "{client:?}");
    body(&client)["id"].as_str().unwrap().to_owned()
}

const STATE: &str = "[state]\nstore = \"redis\"\nurl = \"redis://h\"\n[documents]\nkeep_for = \"1h\"";

fn keys(world: &World) -> Vec<String> {
    let now = Duration::from_secs(1_700_000_000) + world.elapsed();
    let found = world.state().list(now, "", None, 1_000).now_or_never().unwrap().unwrap();
    found.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn an_answer_is_kept_in_a_store_that_outlives_the_process_for_its_time_and_its_client() {
    let world = responses(STATE, "\"test-key\", \"other-key\"");
    let id = create(&world, "Hello");
    let get = || world.call("GET", &format!("/v1/responses/{id}"), &[], Bytes::new());
    assert_eq!((keys(&world).len(), get().status), (1, 200));
    assert!(keys(&world)[0].starts_with("document/response/"), "{:?}", keys(&world));
    let other = world.request_with_key(
        Some("other-key"),
        "/v1/responses",
        Bytes::from(json!({"model": "chain", "input": "And?", "previous_response_id": id}).to_string()),
    );
    assert_eq!(other.status, 404, "{other:?}");
    world.pass(Duration::from_secs(3_601));
    assert_eq!(get().status, 404);

    let id = create(&world, "Hello");
    let of = format!("/v1/responses/{id}");
    assert_eq!(world.call("DELETE", &of, &[], Bytes::new()).status, 200);
    assert_eq!(world.call("GET", &of, &[], Bytes::new()).status, 404);
    assert!(keys(&world).is_empty(), "{:?}", keys(&world));
}

#[test]
fn a_long_answer_is_kept_in_parts_and_read_as_one() {
    let world = responses(STATE, "\"test-key\"");
    let text = "Hell\u{f6} ".repeat(300_000);
    let id = create(&world, &text);
    assert!(keys(&world).len() >= 5, "{:?}", keys(&world));
    let client = world.call("GET", &format!("/v1/responses/{id}"), &[], Bytes::new());
    assert_eq!(body(&client)["output"][0]["content"][0]["text"], text);
    // A store that has lost a part has lost the answer.
    let lost = keys(&world).into_iter().find(|key| key.ends_with(".002")).unwrap();
    let now = Duration::from_secs(1_700_000_000);
    assert_eq!(world.state().set(now, &lost, None, None, Expect::Anything).now_or_never(), Some(Ok(true)));
    assert_eq!(world.call("GET", &format!("/v1/responses/{id}"), &[], Bytes::new()).status, 404);
}

#[test]
fn without_a_store_that_outlives_the_process_the_runtime_keeps_answers() {
    let world = responses("", "\"test-key\"");
    let id = create(&world, "Hello");
    assert!(keys(&world).is_empty());
    assert_eq!(world.call("GET", &format!("/v1/responses/{id}"), &[], Bytes::new()).status, 200);
}
