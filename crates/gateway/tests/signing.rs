//! Signed requests, on a simulated clock: whose credentials, whose region, whose time.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::{Credentials, UpstreamRequest};
use world::{Act, Client, Script, World, chat_body, whole_answer};

fn world(settings: &str) -> World {
    let text = format!(
        r#"
        [server]
        api_keys = ["test-key"]
        [providers.aws]
        adapter = "bedrock"
        {settings}
        [providers.other]
        adapter = "openai"
        endpoint = "http://other/v1"
        [models.chain]
        targets = ["aws/us.meta.llama3-1-8b-instruct-v1:0", "other/m"]
        "#
    );
    World::new(1, Config::from_toml(&text, "t.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}")))
}

const OWN: &str = r#"
    settings = { region = "us-west-2" }
    secrets = { aws_access_key_id = "AKIDOWN", aws_secret_access_key = "wJalrXUtnFEMI", aws_session_token = "token-1" }"#;

fn converse() -> Script {
    let body = json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
    });
    let body = Bytes::from(body.to_string());
    Script::new(vec![(1, Act::Head(200, "application/json")), (1, Act::Bytes(body)), (1, Act::End)])
}

/// 2023-11-14T22:13:20Z is when the world begins.
fn refused(kind: &str, date: &str) -> Script {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-amzn-errortype", kind.to_owned()),
        ("date", date.to_owned()),
    ];
    let body = Bytes::from_static(br#"{"message":"Signature expired: 20231114T221320Z is now earlier than ..."}"#);
    Script::new(vec![(1, Act::HeadWith(403, headers)), (1, Act::Bytes(body)), (1, Act::End)])
}

fn ask(world: &World, model: &str) -> Client {
    world.request("/v1/chat/completions", chat_body(model, false), None)
}

fn header<'a>(request: &'a UpstreamRequest, name: &str) -> &'a str {
    request.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

fn error(client: &Client) -> Value {
    serde_json::from_slice::<Value>(&client.body).unwrap()["error"].clone()
}

#[test]
fn a_provider_signs_with_its_own_secrets_and_only_what_nobody_changes_on_the_way() {
    let world = world(OWN);
    world.upstream(vec![converse()]);
    assert_eq!(ask(&world, "aws/anthropic.claude-3:0").status, 200);
    let sent = &world.requests_sent()[0];
    assert_eq!(sent.url, "https://bedrock-runtime.us-west-2.amazonaws.com/model/anthropic.claude-3%3A0/converse");
    let authorization = header(sent, "authorization");
    let start = "AWS4-HMAC-SHA256 Credential=AKIDOWN/20231114/us-west-2/bedrock/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
    assert!(authorization.starts_with(start), "{authorization}");
    assert_eq!((header(sent, "x-amz-date"), header(sent, "x-amz-security-token")), ("20231114T221320Z", "token-1"));
    assert!(!format!("{sent:?}").contains("token-1"));
}

#[test]
fn a_provider_without_secrets_signs_with_those_of_the_runtime() {
    let world = world(r#"settings = { region = "eu-central-1" }"#);
    world.credentials(Credentials::new("AKIDCHAIN", "secret", None, None, "test"));
    world.upstream(vec![converse()]);
    assert_eq!(ask(&world, "aws/x.y").status, 200);
    let sent = &world.requests_sent()[0];
    assert!(header(sent, "authorization").contains("Credential=AKIDCHAIN/20231114/eu-central-1/bedrock/"));
    assert_eq!(header(sent, "x-amz-security-token"), "");
}

#[test]
fn without_credentials_the_next_target_answers_and_alone_the_error_says_why() {
    let world = world(r#"settings = { region = "eu-central-1" }"#);
    let whole =
        Script::new(vec![(1, Act::Head(200, "application/json")), (1, Act::Bytes(whole_answer())), (1, Act::End)]);
    world.upstream(vec![whole]);
    assert_eq!(ask(&world, "chain").status, 200);
    assert_eq!(world.sent(), 1);
    let alone = ask(&world, "aws/x.y");
    assert_eq!((alone.status, error(&alone)["code"].as_str()), (502, Some("aws_credentials")));
    let message = error(&alone)["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "provider \"aws\" has no AWS credentials: nothing in the chain");
}

#[test]
fn an_arn_names_its_own_region_and_no_region_at_all_is_an_error_that_says_what_to_set() {
    let world =
        world("secrets = { aws_access_key_id = \"A\", aws_secret_access_key = \"B\" }\nendpoint = \"http://aws:1\"");
    let none = ask(&world, "aws/anthropic.claude");
    assert_eq!((none.status, error(&none)["code"].as_str()), (500, Some("no_region")));
    assert!(error(&none)["message"].as_str().unwrap().contains("AWS_REGION"));
    assert_eq!(world.sent(), 0);
}

#[test]
fn a_skewed_clock_is_corrected_by_the_servers_date_and_tried_once_more() {
    let world = world(OWN);
    world.upstream(vec![refused("InvalidSignatureException", "Tue, 14 Nov 2023 22:23:20 GMT"), converse(), converse()]);
    assert_eq!(ask(&world, "aws/x.y").status, 200);
    assert_eq!(ask(&world, "aws/x.y").status, 200);
    let dates: Vec<_> = world.requests_sent().iter().map(|sent| header(sent, "x-amz-date").to_owned()).collect();
    assert_eq!(dates, ["20231114T221320Z", "20231114T222320Z", "20231114T222320Z"]);
    assert_eq!(world.open_bodies(), 0);
}

#[test]
fn a_signature_that_is_refused_for_another_reason_is_not_tried_again() {
    let world = world(OWN);
    let soon = "Tue, 14 Nov 2023 22:13:22 GMT";
    let late = "Tue, 14 Nov 2023 22:23:20 GMT";
    world.upstream(vec![refused("InvalidSignatureException", soon), refused("AccessDeniedException", late)]);
    for _ in 0..2 {
        let client = ask(&world, "aws/x.y");
        assert_eq!(client.status, 502, "{}", String::from_utf8_lossy(&client.body));
    }
    assert_eq!(world.sent(), 2);
    // Refused again with the corrected clock: that is the answer.
    world.upstream(vec![refused("RequestExpired", late), refused("RequestExpired", late)]);
    assert_eq!(ask(&world, "aws/x.y").status, 502);
    assert_eq!(world.sent(), 4);
    assert!(world.elapsed() < Duration::from_secs(1));
}
