//! The queue behind the LLM invocation service: events with records, and payloads that are enqueued.

use crate::world;

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join, select};
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::Rule;
use world::{Act, Client, Script, World, whole_answer};

const PATH: &str = "/invoke/llm";
const ENQUEUE: &str = "/invoke/llm/enqueue";

fn world(more: &[(&'static str, &'static str)]) -> World {
    let mut variables = vec![
        ("BEDROCK_OPENAI_ENDPOINTS", "https://bedrock.example"),
        ("OLLAMA_ENDPOINTS", "http://ollama:11434"),
        ("OLLAMA_DEFAULT_MODEL", "llama3"),
    ];
    variables.extend(more);
    let env = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    World::new(1, Config::from_env(&env).unwrap_or_else(|problems| panic!("{problems}")))
}

fn answer(text: &str) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
}

fn script(ms: u64, status: u16, body: &Value) -> Script {
    let body = Act::Bytes(Bytes::from(body.to_string()));
    Script::new(vec![(ms, Act::Head(status, "application/json")), (0, body), (0, Act::End)])
}

async fn post(world: &World, path: &str, body: &Value) -> Client {
    world.ask("none", "POST", path, &[], Bytes::from(body.to_string())).await
}

fn json_of(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

fn record(id: &str, body: &str) -> Value {
    json!({"messageId": id, "receiptHandle": "r", "body": body, "attributes": {"ApproximateReceiveCount": "1"},
           "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-1:1:q", "awsRegion": "us-east-1"})
}

fn payload(prompt: &str) -> String {
    json!({"backend": "bedrock", "prompt": prompt}).to_string()
}

fn events(records: &[Value]) -> Value {
    json!({"Records": records})
}

#[test]
fn inv_18_a_queue_event_gets_one_result_per_record_in_order() {
    let world = world(&[]);
    let turn = Rc::new(Cell::new(0));
    // The later ones answer sooner.
    world.serve(move |_, _| {
        turn.set(turn.get() + 1);
        script(1_000 / turn.get(), 200, &answer(&format!("answer {}", turn.get())))
    });
    let records: Vec<_> =
        (1..=6).map(|number| record(&format!("m{number}"), &payload(&format!("p{number}")))).collect();
    let client = world.drive(post(&world, PATH, &events(&records)));
    let body = json_of(&client);
    assert_eq!((client.status, &body["batchItemFailures"]), (200, &json!([])));
    let results = body["results"].as_array().unwrap();
    for (number, request) in world.requests_sent().iter().enumerate() {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(asked["messages"][0]["content"], format!("p{}", number + 1));
        assert_eq!(results[number]["choices"][0]["message"]["content"], format!("answer {}", number + 1));
    }
    assert_eq!((results.len(), world.sent(), world.most_at("bedrock.example")), (6, 6, 4));
    assert_eq!((world.in_flight(), world.open_bodies()), (0, 0));
}

#[test]
fn inv_18_a_record_of_sns_is_read_too_and_what_is_no_record_is_said_in_its_place() {
    let world = world(&[]);
    world.serve(|_, _| script(1, 200, &answer("yes")));
    let sns = json!({"EventSource": "aws:sns", "Sns": {"MessageId": "s1", "Message": payload("p")}});
    let s3 = json!({"eventSource": "aws:s3", "s3": {"object": {"key": "k"}}});
    let client = world.drive(post(&world, PATH, &events(&[s3, sns, json!({"messageId": "x"}), json!(7)])));
    let body = json_of(&client);
    let error = |at: usize| body["results"][at]["body"]["error"].as_str().unwrap();
    assert!(error(0).starts_with("400: ") && error(0).contains("S3"), "{body}");
    assert_eq!(body["results"][1]["choices"][0]["message"]["content"], "yes");
    assert!(error(2).contains("`body`") && error(3).contains("cannot be read"), "{body}");
    assert_eq!((&body["batchItemFailures"], world.sent()), (&json!([]), 1));
}

#[test]
fn inv_19_transient_failures_are_named_and_permanent_ones_are_results() {
    let world = world(&[]);
    let statuses = [200, 429, 500, 400, 404, 200];
    let turn = Rc::new(Cell::new(0));
    world.serve(move |_, _| {
        let status = statuses[turn.get()];
        turn.set(turn.get() + 1);
        let error = json!({"error": {"message": "no", "type": "x"}});
        script(1, status, if status == 200 { &ANSWER } else { &error })
    });
    let mut records: Vec<_> = (0..6).map(|number| record(&format!("m{number}"), &payload("p"))).collect();
    records.push(record("bad-json", "{"));
    records.push(record("no-prompt", "{}"));
    // One after another: each gets the status of its turn.
    let results: Vec<_> = records
        .iter()
        .map(|record| json_of(&world.drive(post(&world, PATH, &events(std::slice::from_ref(record))))))
        .collect();
    let failures: Vec<_> = results.iter().map(|result| result["batchItemFailures"].clone()).collect();
    let named = |id: &str| json!([{"itemIdentifier": id}]);
    assert_eq!(failures, [json!([]), named("m1"), named("m2"), json!([]), json!([]), json!([]), json!([]), json!([])]);
    let result = |at: usize| results[at]["results"][0].clone();
    assert_eq!(result(3)["statusCode"], 400);
    assert!(result(2)["body"]["error"].as_str().unwrap().starts_with("500: "), "{}", result(2));
    assert_eq!(result(7), json!({"message": "Missing backend or prompt"}));
    assert!(result(6)["message"].is_string(), "{}", result(6));
}

static ANSWER: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| answer("yes"));

#[test]
fn inv_19_a_message_that_comes_twice_is_asked_once_and_one_that_failed_for_now_again() {
    let world = world(&[]);
    let turn = Rc::new(Cell::new(0));
    let shared = Rc::clone(&turn);
    world.serve(move |_, _| {
        shared.set(shared.get() + 1);
        match shared.get() {
            1 => script(1, 503, &json!({"error": {"message": "no"}})),
            number => script(1, 200, &answer(&format!("answer {number}"))),
        }
    });
    let event = events(&[record("m1", &payload("p"))]);
    let failed = json_of(&world.drive(post(&world, PATH, &event)));
    assert_eq!(failed["batchItemFailures"], json!([{"itemIdentifier": "m1"}]));
    world.pass(Duration::from_secs(70));
    let first = json_of(&world.drive(post(&world, PATH, &event)));
    assert_eq!(first["results"][0]["choices"][0]["message"]["content"], "answer 2");
    let second = json_of(&world.drive(post(&world, PATH, &event)));
    assert_eq!((second, turn.get()), (first, 2));
    let other = json_of(&world.drive(post(&world, PATH, &events(&[record("m1", &payload("another"))]))));
    assert_eq!(other["results"][0]["statusCode"], 409);
    assert_eq!((&other["batchItemFailures"], turn.get()), (&json!([]), 2));
}

#[test]
fn inv_19_a_message_that_comes_twice_at_once_is_asked_once_and_fails_for_now_the_other_time() {
    let world = world(&[]);
    world.serve(|_, _| script(2_000, 200, &answer("yes")));
    let event = events(&[record("m1", &payload("p"))]);
    let (one, two) = world.drive(join(post(&world, PATH, &event), post(&world, PATH, &event)));
    let failures = [&one, &two].map(|client| json_of(client)["batchItemFailures"].as_array().unwrap().len());
    assert_eq!((failures[0] + failures[1], world.sent()), (1, 1));
}

/// Runs a script beside a worker.
fn with_worker<T>(world: &World, script: impl Future<Output = T>) -> T {
    world.drive(async {
        match select(pin!(script), pin!(world.work())).await {
            Either::Left((out, _)) => out,
            Either::Right(((), _)) => unreachable!("a worker has no end"),
        }
    })
}

#[test]
fn inv_20_a_payload_is_enqueued_and_asked_later() {
    let world = world(&[]);
    world.serve(|_, _| script(3_000, 200, &answer("later")));
    let (client, result) = with_worker(&world, async {
        let client = post(&world, ENQUEUE, &json!({"backend": "bedrock", "prompt": "Hello"})).await;
        let job = json_of(&client)["job_id"].as_str().unwrap().to_owned();
        let result = world.ask("none", "GET", &format!("/v1/jobs/{job}/result?wait=30s"), &[], Bytes::new()).await;
        (client, result)
    });
    let body = json_of(&client);
    assert_eq!((client.status, &body["backend"], &body["queued"]), (202, &json!("bedrock"), &json!(true)));
    assert_eq!(client.header("location"), Some(format!("/v1/jobs/{}", body["job_id"].as_str().unwrap()).as_str()));
    assert_eq!((result.status, &json_of(&result)["choices"][0]["message"]["content"]), (200, &json!("later")));
}

#[test]
fn inv_20_without_a_backend_the_length_of_the_prompt_decides() {
    let words = |count: usize| vec!["word"; count].join(" ");
    for (variables, count, backend) in [
        (&[][..], 19, "ollama"),
        (&[], 20, "bedrock"),
        (&[("PROMPT_COMPLEXITY_THRESHOLD", "3")], 2, "ollama"),
        (&[("PROMPT_COMPLEXITY_THRESHOLD", "3")], 3, "bedrock"),
    ] {
        let world = world(variables);
        let client = world.drive(post(&world, ENQUEUE, &json!({"prompt": words(count)})));
        assert_eq!((client.status, &json_of(&client)["backend"]), (202, &json!(backend)), "{count}");
    }
    let world = world(&[]);
    let strategy =
        world.drive(post(&world, ENQUEUE, &json!({"backend": "bedrock", "prompt": "x", "strategy": "cheap"})));
    assert!(strategy.status == 400 && json_of(&strategy)["message"].as_str().unwrap().contains("`backend`"));
    let empty = world.drive(post(&world, ENQUEUE, &json!({})));
    assert_eq!((empty.status, json_of(&empty)), (400, json!({"message": "Missing backend or prompt"})));
    let here = world.drive(post(&world, PATH, &json!({"prompt": "Hello"})));
    assert_eq!(here.status, 400, "only what is enqueued may leave the backend out");
}

#[test]
fn a_message_that_somebody_else_is_about_to_write_is_looked_at_again_after_a_moment() {
    let world = world(&[]);
    world.serve(|_, _| script(1, 200, &answer("yes")));
    world.kept().block("msg/", 3);
    let result = json_of(&world.drive(post(&world, PATH, &events(&[record("m1", &payload("p"))]))));
    assert_eq!(result["results"][0]["choices"][0]["message"]["content"], "yes");
    assert!(world.elapsed() >= Duration::from_millis(30), "{:?}", world.elapsed());
}

#[test]
fn what_a_message_had_taken_whose_client_leaves_before_its_result_is_kept_is_given_back_at_once() {
    let text = "[providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n[keys.alice]\nsecret = \
                \"alice-key\"\nbudget.total = 1.0\nquota.concurrent_requests = 5\n[prices.\"p/*\"]\ninput = 2\noutput = 8";
    let world = World::new(1, Config::from_toml(text, "queue.toml", &|_| None).unwrap_or_else(|why| panic!("{why}")));
    world.serve(|_, _| {
        Script::new(vec![(1, Act::Head(200, "application/json")), (0, Act::Bytes(whole_answer())), (0, Act::End)])
    });
    let asked = json!({"backend": "p", "model": "m", "prompt": "Hello"}).to_string();
    let event = Bytes::from(events(&[record("m1", &asked)]).to_string());
    let headers = [("authorization", "Bearer alice-key")];
    world.kept().delay("msgb/", Duration::from_secs(5));
    let leaves = Some(Duration::from_secs(2));
    let client = world.run(world.bare_later(Duration::ZERO, "POST", PATH, &headers, event.clone(), leaves));
    assert!(client.left && world.sent() == 1);
    let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
    let used = || world.used(&[("meter/key/alice/total", total), ("meter/key/alice/at-once", Rule::Held)]);
    assert_eq!(used(), [0, 0]);
    // The message comes again when nobody works on it any more.
    world.kept().delay("msgb/", Duration::ZERO);
    world.pass(Duration::from_secs(3_600));
    let client = world.bare("POST", PATH, &headers, event);
    assert_eq!((json_of(&client)["batchItemFailures"].clone(), used()), (json!([]), vec![62_000, 0]));
}
