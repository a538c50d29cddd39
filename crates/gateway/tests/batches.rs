//! OpenAI's files and batches over the simulated world.

use crate::jobs::{error, good, json_of, with_worker};
use crate::world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::Rule;
use world::{Client, World, answer_text};

const CHAT: &str = "/v1/chat/completions";

fn config(jobs: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\", \"other-key\"]\n[retry]\nattempts = 1\n[health]\nrest = \"0s\"\n\
         [providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n[jobs]\nlease = \"9s\"\n{jobs}"
    );
    Config::from_toml(&text, "jobs.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn form(purpose: &str, content: &str) -> Bytes {
    Bytes::from(format!(
        "--XX\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--XX\r\ncontent-disposition: \
         form-data; name=\"file\"; filename=\"in.jsonl\"\r\ncontent-type: application/jsonl\r\n\r\n{content}\r\n--XX--\r\n"
    ))
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

async fn upload(world: &World, content: &str) -> Client {
    world.ask("test-key", "POST", "/v1/files", &[FORM], form("batch", content)).await
}

async fn get(world: &World, path: &str) -> Client {
    world.ask("test-key", "GET", path, &[], Bytes::new()).await
}

async fn post(world: &World, path: &str, body: &Value) -> Client {
    world.ask("test-key", "POST", path, &[], Bytes::from(body.to_string())).await
}

fn line(id: &str, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": id}]});
    json!({"custom_id": id, "method": "POST", "url": CHAT, "body": body}).to_string()
}

/// Uploads lines and makes a batch of them; its id.
async fn batch(world: &World, lines: &[String]) -> String {
    let file = json_of(&upload(world, &lines.join("\n")).await);
    let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
    let made = post(world, "/v1/batches", &asked).await;
    assert_eq!((made.status, &json_of(&made)["status"]), (200, &json!("validating")), "{made:?}");
    json_of(&made)["id"].as_str().unwrap().to_owned()
}

async fn until_final(world: &World, id: &str) -> Value {
    loop {
        let batch = json_of(&get(world, &format!("/v1/batches/{id}")).await);
        if ["completed", "failed", "expired", "cancelled"].contains(&batch["status"].as_str().unwrap()) {
            return batch;
        }
        world.sleep(Duration::from_millis(500)).await;
    }
}

/// The lines of a file, by their `custom_id`.
async fn results(world: &World, file: &Value) -> BTreeMap<String, Value> {
    let Some(id) = file.as_str() else { return BTreeMap::new() };
    let content = get(world, &format!("/v1/files/{id}/content")).await;
    assert_eq!(content.status, 200);
    let text = String::from_utf8(content.body).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let all: Vec<_> = lines.map(|line| (line["custom_id"].as_str().unwrap().to_owned(), line)).collect();
    let count = all.len();
    let all: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(all.len(), count, "each once");
    all
}

#[test]
fn a_file_is_uploaded_listed_read_and_deleted_by_its_owner_alone() {
    let world = World::new(1, config(""));
    world.drive(async {
        let content = "x".repeat(600_000);
        let made = upload(&world, &content).await;
        let file = json_of(&made);
        assert_eq!((made.status, &file["object"], &file["purpose"]), (200, &json!("file"), &json!("batch")));
        assert_eq!((&file["filename"], &file["bytes"]), (&json!("in.jsonl"), &json!(600_000)));
        let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
        assert_eq!(json_of(&get(&world, &path).await), file);
        let read = get(&world, &format!("{path}/content")).await;
        assert_eq!((read.status, read.body == content.as_bytes()), (200, true));
        assert_eq!(json_of(&get(&world, "/v1/files?purpose=batch").await)["data"], json!([file]));
        assert_eq!(json_of(&get(&world, "/v1/files?purpose=other").await)["data"], json!([]));
        for (method, path) in [("GET", path.clone()), ("GET", format!("{path}/content")), ("DELETE", path.clone())] {
            let other = world.ask("other-key", method, &path, &[], Bytes::new()).await;
            assert_eq!((other.status, &json_of(&other)["error"]["code"]), (404, &json!("file_not_found")));
        }
        let deleted = world.ask("test-key", "DELETE", &path, &[], Bytes::new()).await;
        assert_eq!((deleted.status, &json_of(&deleted)["deleted"]), (200, &json!(true)));
        assert_eq!(get(&world, &path).await.status, 404);
    });
}

#[test]
fn a_form_that_is_no_file_for_a_batch_is_refused_with_what_would_be_right() {
    let world = World::new(1, config("max_file_bytes = \"1KiB\""));
    world.drive(async {
        let send = |headers: Vec<(&'static str, &'static str)>, body: Bytes| {
            let world = &world;
            async move { world.ask("test-key", "POST", "/v1/files", &headers, body).await }
        };
        let json_body = send(vec![("content-type", "application/json")], Bytes::from_static(b"{}")).await;
        assert_eq!((json_body.status, &json_of(&json_body)["error"]["code"]), (400, &json!("invalid_form")));
        let purpose = send(vec![FORM], form("fine-tune", "x")).await;
        assert_eq!((purpose.status, &json_of(&purpose)["error"]["param"]), (400, &json!("purpose")));
        let none =
            Bytes::from_static(b"--XX\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX--\r\n");
        let none = send(vec![FORM], none).await;
        assert_eq!((none.status, &json_of(&none)["error"]["param"]), (400, &json!("file")));
        let cut = send(vec![FORM], form("batch", "x").slice(..120)).await;
        assert_eq!((cut.status, &json_of(&cut)["error"]["code"]), (400, &json!("invalid_form")));
        let large = send(vec![FORM], form("batch", &"x".repeat(2_000))).await;
        assert_eq!(large.status, 400);
        let larger = send(vec![FORM], form("batch", &"x".repeat(70_000))).await;
        assert_eq!(larger.status, 413);
    });
}

#[test]
fn a_batch_asks_each_line_and_writes_files_of_the_answers_and_of_the_failures() {
    let world = World::new(1, config("batch_concurrency = 3"));
    let asked = RefCell::new(0);
    world.serve(move |_, _| {
        *asked.borrow_mut() += 1;
        if *asked.borrow() == 2 { error(503) } else { good(300) }
    });
    let mut lines: Vec<_> = (0..10).map(|number| line(&format!("r{number}"), "p/m")).collect();
    lines.push(line("bad", "nowhere"));
    lines.push(String::new());
    let batch = with_worker(&world, async {
        let id = batch(&world, &lines).await;
        until_final(&world, &id).await
    });
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 11, "completed": 10, "failed": 1}));
    assert!(batch["completed_at"].is_u64() && batch["in_progress_at"].is_u64());
    let (output, errors) = world.drive(async {
        (results(&world, &batch["output_file_id"]).await, results(&world, &batch["error_file_id"]).await)
    });
    assert_eq!(output.len(), 10);
    for line in output.values() {
        assert_eq!((&line["error"], &line["response"]["status_code"]), (&Value::Null, &json!(200)));
        assert_eq!(line["response"]["body"]["choices"][0]["message"]["content"], answer_text());
        assert!(line["response"]["request_id"].is_string() && line["id"].as_str().unwrap().starts_with("batch_req_"));
    }
    assert_eq!(errors["bad"]["response"]["status_code"], 404);
    assert_eq!(errors["bad"]["response"]["body"]["error"]["code"], "model_not_found");
    assert_eq!((world.most_at("p"), world.sent()), (3, 11), "three at once; one was asked again");
    let listed = world.drive(get(&world, "/v1/batches"));
    assert_eq!(json_of(&listed)["data"], json!([batch]));
    let others = world.drive(world.ask("other-key", "GET", "/v1/batches", &[], Bytes::new()));
    assert_eq!(json_of(&others)["data"], json!([]));
}

#[test]
fn a_batch_whose_file_is_wrong_fails_and_names_the_lines() {
    let world = World::new(1, config("max_batch_requests = 5"));
    let wrong = [
        ("{", "invalid_json_line"),
        (r#"{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{}}"#, "invalid_method"),
        (r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}"#, "mismatched_url"),
        (r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":[]}"#, "invalid_body"),
        (r#"{"custom_id":"","method":"POST","url":"/v1/chat/completions","body":{}}"#, "invalid_custom_id"),
    ];
    let mut cases: Vec<(Vec<String>, &str, Value)> =
        wrong.iter().map(|(bad, code)| (vec![line("ok", "p/m"), (*bad).to_owned()], *code, json!(2))).collect();
    cases.push((vec![line("a", "p/m"), line("a", "p/m")], "duplicate_custom_id", json!(2)));
    cases.push((vec!["\n".to_owned()], "empty_file", Value::Null));
    cases.push(((0..6).map(|n| line(&n.to_string(), "p/m")).collect(), "too_many_tasks", Value::Null));
    for (lines, code, at) in cases {
        let failed = with_worker(&world, async {
            let id = batch(&world, &lines).await;
            until_final(&world, &id).await
        });
        assert_eq!(failed["status"], "failed", "{code}");
        assert_eq!((&failed["errors"]["data"][0]["code"], &failed["errors"]["data"][0]["line"]), (&json!(code), &at));
    }
    assert_eq!(world.sent(), 0);
    let create = |body: Value| world.drive(post(&world, "/v1/batches", &body));
    let file = json_of(&world.drive(upload(&world, "x")))["id"].clone();
    for (body, param) in [
        (json!({"input_file_id": file, "endpoint": "/health", "completion_window": "24h"}), "endpoint"),
        (json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "1 week"}), "completion_window"),
        (json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "48h"}), "completion_window"),
    ] {
        let refused = create(body);
        assert_eq!((refused.status, &json_of(&refused)["error"]["param"]), (400, &json!(param)));
    }
    let gone = create(json!({"input_file_id": "file-0", "endpoint": CHAT, "completion_window": "24h"}));
    assert_eq!((gone.status, &json_of(&gone)["error"]["code"]), (404, &json!("file_not_found")));
}

#[test]
fn a_cancelled_batch_keeps_what_it_has() {
    let world = World::new(1, config("batch_concurrency = 1"));
    world.serve(|_, _| good(2_000));
    let lines: Vec<_> = (0..10).map(|number| line(&format!("r{number}"), "p/m")).collect();
    let batch = with_worker(&world, async {
        let id = batch(&world, &lines).await;
        world.sleep(Duration::from_secs(5)).await;
        let cancelled = post(&world, &format!("/v1/batches/{id}/cancel"), &json!({})).await;
        assert_eq!((cancelled.status, &json_of(&cancelled)["status"]), (200, &json!("cancelling")));
        let batch = until_final(&world, &id).await;
        let again = post(&world, &format!("/v1/batches/{id}/cancel"), &json!({})).await;
        assert_eq!(again.status, 200);
        batch
    });
    assert_eq!(batch["status"], "cancelled");
    let (output, errors) = world.drive(async {
        (results(&world, &batch["output_file_id"]).await, results(&world, &batch["error_file_id"]).await)
    });
    assert!((1..=3).contains(&output.len()), "{}", output.len());
    assert_eq!(output.len() + errors.len(), 10);
    assert_eq!(errors["r9"]["error"]["code"], "batch_cancelled");
    assert_eq!((world.open_bodies(), world.in_flight()), (0, 0));
}

#[test]
fn what_a_batch_cannot_do_in_its_window_has_expired() {
    let world = World::new(1, config("batch_concurrency = 1"));
    world.serve(|_, _| good(20_000));
    let batch = with_worker(&world, async {
        let lines: Vec<_> = (0..6).map(|number| line(&format!("r{number}"), "p/m")).collect();
        let file = json_of(&upload(&world, &lines.join("\n")).await);
        let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "1m"});
        let id = json_of(&post(&world, "/v1/batches", &asked).await)["id"].as_str().unwrap().to_owned();
        until_final(&world, &id).await
    });
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("expired"), &json!(3)));
    let errors = world.drive(results(&world, &batch["error_file_id"]));
    assert_eq!(errors["r5"]["error"]["code"], "batch_expired");
}

#[test]
fn a_batch_whose_processes_are_killed_has_one_answer_for_each_line() {
    for seed in 0..60 {
        let mut world = World::new(seed, config("attempts = 100\nbatch_concurrency = 2"));
        world.serve(|_, _| good(700));
        let lines: Vec<_> = (0..7).map(|number| line(&format!("r{number}"), "p/m")).collect();
        let id = world.drive(batch(&world, &lines));
        for _ in 0..4 {
            world.kept().kill_after(world.below(70), world.chance(50));
            world.drive(async {
                let dead = async {
                    let _ = select(pin!(world.work()), pin!(world.kept().died())).await;
                };
                select(pin!(dead), pin!(world.sleep(Duration::from_secs(60)))).await;
            });
            world.restart();
        }
        let batch = with_worker(&world, async {
            let batch = until_final(&world, &id).await;
            world.sleep(Duration::from_secs(60)).await;
            batch
        });
        assert_eq!(batch["status"], "completed", "seed {seed}: {batch}");
        assert_eq!(world.drive(results(&world, &batch["output_file_id"])).len(), 7, "seed {seed}");
        let files = json_of(&world.drive(get(&world, "/v1/files")))["data"].as_array().unwrap().len();
        assert_eq!(files, 2, "seed {seed}: the input and the output");
        let mut charged: BTreeMap<String, usize> = BTreeMap::new();
        for record in world.records().iter().filter(|record| record.usage.is_some()) {
            *charged.entry(record.request_id.clone()).or_default() += 1;
        }
        assert!(charged.values().all(|count| *count == 1), "seed {seed}: {charged:?}");
    }
}

#[test]
fn a_line_that_wants_a_stream_is_refused_and_no_backend_is_asked() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    let stream = json!({"model": "p/m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let stream = json!({"custom_id": "stream", "method": "POST", "url": CHAT, "body": stream}).to_string();
    let batch = with_worker(&world, async {
        let id = batch(&world, &[line("whole", "p/m"), stream]).await;
        until_final(&world, &id).await
    });
    assert_eq!(batch["request_counts"], json!({"total": 2, "completed": 1, "failed": 1}));
    let errors = world.drive(results(&world, &batch["error_file_id"]));
    let response = &errors["stream"]["response"];
    assert_eq!(
        (&response["status_code"], &response["body"]["error"]["code"]),
        (&json!(400), &json!("stream_unsupported"))
    );
    assert_eq!(world.sent(), 1);
    let told: Vec<_> =
        world.records().into_iter().filter(|record| record.job.is_some()).map(|record| record.status).collect();
    assert!(told.len() == 2 && told.contains(&200) && told.contains(&400), "{told:?}");
}

#[test]
fn a_batch_whose_client_was_told_of_a_failure_is_found_by_its_idempotency_key() {
    for at in 0..14 {
        let world = World::new(at, config(""));
        world.serve(|_, _| good(10));
        let batch = with_worker(&world, async {
            let file = json_of(&upload(&world, &line("a", "p/m")).await);
            let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
            let create = async || {
                let key = [("idempotency-key", "order 66")];
                world.ask("test-key", "POST", "/v1/batches", &key, Bytes::from(asked.to_string())).await
            };
            world.kept().lose(at);
            let first = create().await;
            assert!([200, 503].contains(&first.status), "{at}: {first:?}");
            let second = loop {
                let second = create().await;
                if second.status != 503 {
                    break second;
                }
            };
            assert_eq!(second.status, 200, "{at}: {second:?}");
            assert!(first.status == 503 || json_of(&first)["id"] == json_of(&second)["id"], "{at}");
            until_final(&world, json_of(&second)["id"].as_str().unwrap()).await
        });
        assert_eq!(batch["status"], "completed", "{at}: {batch}");
    }
}

#[test]
fn a_line_s_answer_is_kept_while_somebody_else_seems_to_write_it() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    world.kept().block("batchd/", 3);
    let batch = with_worker(&world, async {
        let id = batch(&world, &[line("a", "p/m")]).await;
        until_final(&world, &id).await
    });
    assert_eq!(batch["request_counts"], json!({"total": 1, "completed": 1, "failed": 0}));
}

#[test]
fn a_batch_whose_job_was_never_written_has_failed_a_minute_later() {
    for cancelled in [false, true] {
        let world = World::new(1, config(""));
        with_worker(&world, async {
            let file = json_of(&upload(&world, &line("a", "p/m")).await);
            let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
            world.kept().refuse(Some("job/"));
            assert_eq!(post(&world, "/v1/batches", &asked).await.status, 503);
            world.kept().refuse(None);
            let listed = json_of(&get(&world, "/v1/batches").await)["data"][0].clone();
            assert_eq!(listed["status"], "validating");
            let path = format!("/v1/batches/{}", listed["id"].as_str().unwrap());
            let cancel = async || post(&world, &format!("{path}/cancel"), &json!({})).await;
            if cancelled {
                assert_eq!(json_of(&cancel().await)["status"], "cancelling");
            }
            world.sleep(Duration::from_secs(61)).await;
            let listed = json_of(&get(&world, "/v1/batches").await)["data"][0].clone();
            assert_eq!((&listed["status"], &listed["failed_at"].is_u64()), (&json!("failed"), &true), "{listed}");
            assert_eq!(listed["errors"]["data"][0]["code"], "batch_interrupted");
            assert_eq!(json_of(&get(&world, &path).await), listed);
            assert_eq!(cancel().await.status, 409);
        });
        assert_eq!(world.sent(), 0);
    }
}

#[test]
fn a_batch_that_has_the_job_of_one_that_was_cut_short_is_run_and_the_other_one_has_failed() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(80_000));
    with_worker(&world, async {
        let file = json_of(&upload(&world, &line("a", "p/m")).await);
        let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
        let create = async || {
            let key = [("idempotency-key", "order 66")];
            world.ask("test-key", "POST", "/v1/batches", &key, Bytes::from(asked.to_string())).await
        };
        world.kept().refuse(Some("job/"));
        assert_eq!(create().await.status, 503);
        world.kept().refuse(None);
        world.sleep(Duration::from_secs(5)).await;
        let made = create().await;
        assert_eq!(made.status, 200, "{made:?}");
        let id = json_of(&made)["id"].as_str().unwrap().to_owned();
        world.sleep(Duration::from_secs(70)).await;
        let listed = json_of(&get(&world, "/v1/batches").await)["data"].as_array().unwrap().clone();
        let stages: Vec<_> =
            listed.iter().map(|batch| (batch["id"] == *id, batch["status"].as_str().unwrap())).collect();
        assert_eq!(stages, [(true, "in_progress"), (false, "failed")]);
        assert_eq!(until_final(&world, &id).await["status"], "completed");
    });
    assert_eq!(world.sent(), 1);
}

#[test]
fn what_a_line_had_taken_whose_answer_cannot_be_kept_is_given_back_at_once() {
    let alice = "[keys.alice]\nsecret = \"alice-key\"\nbudget.total = 1.0\nquota.concurrent_requests = 5\n\
                 [prices.\"p/*\"]\ninput = 2\noutput = 8";
    let world = World::new(1, config(alice));
    world.serve(|_, _| good(10));
    let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
    let used = || world.used(&[("meter/key/alice/total", total), ("meter/key/alice/at-once", Rule::Held)]);
    let ask = |method, path, headers: Vec<(&'static str, &'static str)>, body| {
        let world = &world;
        async move { json_of(&world.ask("alice-key", method, path, &headers, body).await) }
    };
    world.kept().refuse(Some("batchd/"));
    with_worker(&world, async {
        let file = ask("POST", "/v1/files", vec![FORM], form("batch", &line("a", "p/m"))).await;
        let asked = json!({"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"});
        ask("POST", "/v1/batches", vec![], Bytes::from(asked.to_string())).await;
        world.sleep(Duration::from_secs(3)).await;
    });
    assert_eq!((used(), world.sent()), (vec![0, 0], 1));
    world.kept().refuse(None);
    let listed = with_worker(&world, async {
        world.sleep(Duration::from_secs(30)).await;
        ask("GET", "/v1/batches", vec![], Bytes::new()).await
    });
    assert_eq!(listed["data"][0]["request_counts"], json!({"total": 1, "completed": 1, "failed": 0}));
    assert_eq!((used(), world.sent()), (vec![62_000, 0], 2), "the answer that is kept counts, once");
}
