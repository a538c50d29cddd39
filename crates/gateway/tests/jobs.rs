//! Asynchronous jobs over the simulated world: submitted, run, killed at any point, called back. From seeds, as `sim.rs`.

use crate::world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join, join_all, select};
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::{Rule, State as _};
use world::{Act, Client, Script, StoreIs, World, answer_text, chat_body, whole_answer};

const CHAT: &str = "/v1/chat/completions";
const LATER: (&str, &str) = ("prefer", "respond-async");
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn config(jobs: &str) -> Config {
    config_with(jobs, "")
}

fn config_with(jobs: &str, more: &str) -> Config {
    leased("9s", jobs, more)
}

/// The same with leases of so long.
fn leased(lease: &str, jobs: &str, more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\", \"other-key\"]\n[limits]\nmax_body_bytes = \"2MiB\"\n[timeouts]\nconnect = \
         \"1s\"\nfirst_token = \"10s\"\nidle = \"5s\"\ntotal = \"60s\"\n[retry]\nattempts = 1\n[health]\nrest = \"0s\"\n\
         [providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n{more}\n[jobs]\nlease = \"{lease}\"\ncallback_secret = \
         \"{SECRET}\"\n{jobs}"
    );
    Config::from_toml(&text, "jobs.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn good(ms: u64) -> Script {
    Script::new(vec![(ms, Act::Head(200, "application/json")), (0, Act::Bytes(whole_answer())), (0, Act::End)])
}

pub fn error(status: u16) -> Script {
    let body = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    Script::new(vec![(1, Act::Head(status, "application/json")), (0, Act::Bytes(body)), (0, Act::End)])
}

pub fn json_of(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

/// Runs a script beside a worker.
pub fn with_worker<T>(world: &World, script: impl Future<Output = T>) -> T {
    world.drive(async {
        match select(pin!(script), pin!(world.work())).await {
            Either::Left((out, _)) => out,
            Either::Right(((), _)) => unreachable!("a worker has no end"),
        }
    })
}

async fn submit_with(world: &World, body: Bytes, headers: &[(&str, &str)]) -> Client {
    let headers: Vec<_> = [LATER].into_iter().chain(headers.iter().copied()).collect();
    world.ask("test-key", "POST", CHAT, &headers, body).await
}

/// Submits a chat; the job's id.
async fn submit(world: &World) -> String {
    let client = submit_with(world, chat_body("p/m", false), &[]).await;
    assert_eq!(client.status, 202, "{client:?}");
    json_of(&client)["id"].as_str().unwrap().to_owned()
}

async fn get(world: &World, path: &str) -> Client {
    world.ask("test-key", "GET", path, &[], Bytes::new()).await
}

async fn job(world: &World, id: &str) -> Value {
    json_of(&get(world, &format!("/v1/jobs/{id}")).await)
}

async fn ended(world: &World, id: &str) -> Value {
    json_of(&get(world, &format!("/v1/jobs/{id}?wait=60s")).await)
}

/// Everything in the state store.
fn everything(world: &World) -> BTreeMap<String, Bytes> {
    let now = Duration::from_secs(1_700_000_000) + world.elapsed();
    world.drive(world.kept().list(now, "", None, usize::MAX)).unwrap().into_iter().collect()
}

#[test]
fn bed_r7_a_job_is_submitted_polled_and_its_answer_is_the_dialect_s_own() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5_000));
    let (submitted, running, done, result, sync) = with_worker(&world, async {
        let submitted = submit_with(&world, chat_body("p/m", false), &[]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        world.sleep(Duration::from_secs(1)).await;
        let running = job(&world, &id).await;
        let early = get(&world, &format!("/v1/jobs/{id}/result")).await;
        assert_eq!((early.status, early.header("retry-after")), (202, Some("1")), "not there yet");
        let done = ended(&world, &id).await;
        let result = get(&world, &format!("/v1/jobs/{id}/result")).await;
        let sync = world.ask("test-key", "POST", CHAT, &[], chat_body("p/m", false)).await;
        (submitted, running, done, result, sync)
    });
    let body = json_of(&submitted);
    let id = body["id"].as_str().unwrap();
    assert_eq!(submitted.header("location"), Some(format!("/v1/jobs/{id}").as_str()));
    assert_eq!(submitted.header("preference-applied"), Some("respond-async"));
    assert_eq!((&body["object"], &body["status"]), (&json!("job"), &json!("queued")));
    assert_eq!((&running["status"], &running["attempts"]), (&json!("running"), &json!(1)));
    assert_eq!((&done["status"], &done["result"]["status"]), (&json!("done"), &json!(200)));
    assert_eq!(done["usage"], json!({"input_tokens": 3, "output_tokens": 7}));
    assert!(done["finished_at"].as_u64() >= done["created_at"].as_u64().map(|at| at + 5));
    assert_eq!((result.status, result.header("content-type")), (200, sync.header("content-type")));
    assert_eq!(result.header("x-witgate-provider"), Some("p"));
    assert_eq!(json_of(&result)["choices"], json_of(&sync)["choices"]);
    assert_eq!(json_of(&result)["choices"][0]["message"]["content"], answer_text());
}

#[test]
fn jobs_that_wait_and_that_run_are_counted_in_the_metrics() {
    let world = World::new(1, config_with("concurrency = 2", "[metrics]\nenabled = true"));
    world.serve(|_, _| good(30_000));
    let gauges = async || {
        let text = String::from_utf8(get(&world, "/metrics").await.body.to_vec()).unwrap();
        let gauges = text.lines().filter_map(|line| line.strip_prefix("witgate_jobs{state="));
        gauges.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let is = |running: &str, queued: &str| {
        [format!("\"running\"}} {running}"), format!("\"queued\"}} {queued}")].into_iter().collect()
    };
    with_worker(&world, async {
        assert_eq!(gauges().await, is("0", "0"));
        for _ in 0..5 {
            submit(&world).await;
        }
        world.sleep(Duration::from_secs(10)).await;
        assert_eq!(gauges().await, is("2", "5"), "those that run wait for their end");
        world.sleep(Duration::from_secs(40)).await;
        assert_eq!(gauges().await, is("2", "3"));
        // Where nobody can tell, nothing is told.
        world.sleep(Duration::from_secs(6)).await;
        world.store_is(StoreIs::Failing);
        assert_eq!(gauges().await, ["\"running\"} 2".to_owned()].into());
        world.store_is(StoreIs::Well);
        assert_eq!(gauges().await, is("2", "3"), "as soon as it can be asked again");
    });
}

#[test]
fn every_dialect_s_requests_can_be_jobs() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    let user = json!([{"role": "user", "content": "Hi"}]);
    for (path, body, text) in [
        ("/v1/messages", json!({"model": "p/m", "max_tokens": 9, "messages": user}), "/content/0/text"),
        ("/v1/responses", json!({"model": "p/m", "input": "Hi"}), "/output/0/content/0/text"),
        ("/api/chat", json!({"model": "p/m", "stream": false, "messages": user}), "/message/content"),
    ] {
        let result = with_worker(&world, async {
            let body = Bytes::from(body.to_string());
            let submitted = world.ask("test-key", "POST", path, &[LATER], body).await;
            assert_eq!(submitted.status, 202, "{path}: {submitted:?}");
            let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
            get(&world, &format!("/v1/jobs/{id}/result?wait=30")).await
        });
        assert_eq!(json_of(&result).pointer(text), Some(&json!(answer_text())), "{path}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_when_it_is_submitted() {
    let world = World::new(1, config(""));
    let later = |path, body: &str| world.call("POST", path, &[LATER], Bytes::from(body.to_owned()));
    let bad = later(CHAT, "{");
    assert_eq!(bad.status, 400);
    let unknown = later(CHAT, r#"{"model":"nope","messages":[{"role":"user","content":"x"}]}"#);
    assert_eq!((unknown.status, &json_of(&unknown)["error"]["code"]), (404, &json!("model_not_found")));
    let stream = later(CHAT, r#"{"model":"p/m","stream":true,"messages":[{"role":"user","content":"x"}]}"#);
    assert_eq!((stream.status, &json_of(&stream)["error"]["param"]), (400, &json!("stream")));
    // Ollama's API streams unless it is told not to.
    assert_eq!(later("/api/chat", r#"{"model":"p/m","messages":[{"role":"user","content":"x"}]}"#).status, 400);
    let key = world.call("POST", CHAT, &[LATER, ("idempotency-key", "")], chat_body("p/m", false));
    assert_eq!((key.status, &json_of(&key)["error"]["code"]), (400, &json!("invalid_idempotency_key")));
    let nobody = world.request_with_key(None, CHAT, chat_body("p/m", false));
    assert_eq!(nobody.status, 401);
    assert!(everything(&world).is_empty(), "nothing is left of what was refused");
    assert_eq!(world.sent(), 0);
}

#[test]
fn an_idempotency_key_stands_for_one_job_of_its_owner() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    with_worker(&world, async {
        let key = ("idempotency-key", "order 66");
        let id = |client: &Client| json_of(client)["id"].clone();
        let first = submit_with(&world, chat_body("p/m", false), &[key]).await;
        let second = submit_with(&world, chat_body("p/m", false), &[key]).await;
        assert_eq!((first.status, id(&first)), (second.status, id(&second)));
        let other_body = submit_with(&world, chat_body("p/n", false), &[key]).await;
        assert_eq!(other_body.status, 409);
        assert_eq!(json_of(&other_body)["error"]["code"], "idempotency_key_reused");
        let other = world.ask("other-key", "POST", CHAT, &[LATER, key], chat_body("p/m", false)).await;
        assert_eq!(other.status, 202);
        assert_ne!(id(&other), id(&first));
        let same = join_all((0..5).map(|_| submit_with(&world, chat_body("p/m", false), &[("idempotency-key", "b")])));
        let same = same.await;
        assert!(same.iter().all(|client| client.status == 202 && id(client) == id(&same[0])), "at once, too");
        world.sleep(Duration::from_secs(5)).await;
    });
    assert_eq!(world.sent(), 3);
}

#[test]
fn nobody_but_its_owner_sees_a_job() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    with_worker(&world, async {
        let id = submit(&world).await;
        ended(&world, &id).await;
        for (method, path) in [
            ("GET", format!("/v1/jobs/{id}")),
            ("GET", format!("/v1/jobs/{id}/result")),
            ("POST", format!("/v1/jobs/{id}/cancel")),
            ("DELETE", format!("/v1/jobs/{id}")),
            ("GET", format!("/v1/jobs?after={id}")),
            ("GET", "/v1/jobs/job_0".to_owned()),
            ("GET", "/v1/jobs/..%2F".to_owned()),
        ] {
            let other = world.ask("other-key", method, &path, &[], Bytes::new()).await;
            assert_eq!((other.status, &json_of(&other)["error"]["code"]), (404, &json!("job_not_found")), "{path}");
        }
        let list = world.ask("other-key", "GET", "/v1/jobs", &[], Bytes::new()).await;
        assert_eq!(json_of(&list)["data"], json!([]));
        assert_eq!(get(&world, &format!("/v1/jobs/{id}")).await.status, 200);
    });
}

#[test]
fn jobs_are_listed_the_newest_first_page_by_page() {
    let world = World::new(1, config("concurrency = 0"));
    world.drive(async {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(submit(&world).await);
            world.sleep(Duration::from_millis(3)).await;
        }
        ids.reverse();
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = json_of(&get(&world, &format!("/v1/jobs?limit=2{after}")).await);
            let data = page["data"].as_array().unwrap();
            seen.extend(data.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            assert_eq!(page["last_id"], data.last().unwrap()["id"]);
            if page["has_more"] == json!(false) {
                break;
            }
            after = format!("&after={}", page["last_id"].as_str().unwrap());
        }
        assert_eq!(seen, ids);
        for bad in ["limit=0", "limit=101", "limit=x", "wait=soon"] {
            assert_eq!(get(&world, &format!("/v1/jobs?{bad}")).await.status, 400, "{bad}");
        }
    });
}

#[test]
fn a_client_may_wait_for_its_job_and_then_gets_the_answer_at_once() {
    let world = World::new(1, config("max_wait = \"20s\""));
    world.serve(|_, now| good(if now < Duration::from_secs(1) { 3_000 } else { 40_000 }));
    with_worker(&world, async {
        let prefer = [("prefer", "respond-async, wait=10")];
        let fast = world.ask("test-key", "POST", CHAT, &prefer, chat_body("p/m", false)).await;
        assert_eq!((fast.status, fast.header("preference-applied")), (200, Some("respond-async, wait=10")));
        assert_eq!(json_of(&fast)["choices"][0]["message"]["content"], answer_text());
        assert!(fast.header("location").is_some_and(|at| at.starts_with("/v1/jobs/job_")));
        assert!(world.elapsed() < Duration::from_millis(3_100), "as soon as it is there: {:?}", world.elapsed());
        let before = world.elapsed();
        let prefer = [("prefer", "respond-async, wait=1000")];
        let slow = world.ask("test-key", "POST", CHAT, &prefer, chat_body("p/m", false)).await;
        assert_eq!((slow.status, &json_of(&slow)["status"]), (202, &json!("running")));
        assert_eq!(world.elapsed() - before, Duration::from_secs(20), "no longer than the gateway lets it");
    });
}

#[test]
fn a_cancelled_job_is_not_begun_or_its_backend_s_request_is_closed() {
    let world = World::new(1, config("concurrency = 1"));
    world.serve(|_, _| good(30_000));
    with_worker(&world, async {
        let (running, queued) = (submit(&world).await, submit(&world).await);
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.open_bodies(), 1);
        for id in [&queued, &running] {
            let cancelled = world.ask("test-key", "POST", &format!("/v1/jobs/{id}/cancel"), &[], Bytes::new()).await;
            assert_eq!((cancelled.status, &json_of(&cancelled)["status"]), (200, &json!("cancelled")));
            let result = get(&world, &format!("/v1/jobs/{id}/result")).await;
            assert_eq!((result.status, &json_of(&result)["error"]["code"]), (409, &json!("job_cancelled")));
        }
        world.sleep(Duration::from_millis(10)).await;
        assert_eq!(world.open_bodies(), 0, "at once");
        world.sleep(Duration::from_secs(60)).await;
        assert_eq!((job(&world, &running).await["status"].clone(), world.sent()), (json!("cancelled"), 1));
        let deleted = world.ask("test-key", "DELETE", &format!("/v1/jobs/{running}"), &[], Bytes::new()).await;
        assert_eq!(json_of(&deleted)["deleted"], json!(true));
        assert_eq!(get(&world, &format!("/v1/jobs/{running}")).await.status, 404);
    });
    assert!(everything(&world).keys().all(|key| !key.starts_with("jobq/") && !key.starts_with("jobb/")));
}

#[test]
fn a_job_that_is_deleted_while_it_runs_leaves_nothing() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(30_000));
    with_worker(&world, async {
        let id = submit(&world).await;
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.ask("test-key", "DELETE", &format!("/v1/jobs/{id}"), &[], Bytes::new()).await.status, 200);
        world.sleep(Duration::from_secs(60)).await;
    });
    assert_eq!(everything(&world).keys().collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!((world.open_bodies(), world.in_flight()), (0, 0));
}

#[test]
fn bed_r3_a_burst_is_queued_and_never_more_than_the_limit_runs_at_once() {
    let world = World::new(1, config("concurrency = 8\nmax_queued = 1500"));
    world.serve(|_, _| good(40));
    let (accepted, refused) = with_worker(&world, async {
        let burst = join_all((0..2_000).map(|_| submit_with(&world, chat_body("p/m", false), &[]))).await;
        let (accepted, refused): (Vec<_>, Vec<_>) = burst.into_iter().partition(|client| client.status == 202);
        for client in &accepted {
            let id = json_of(client)["id"].as_str().unwrap().to_owned();
            assert_eq!(ended(&world, &id).await["status"], "done");
        }
        (accepted.len(), refused)
    });
    assert!((1_500..2_000).contains(&accepted), "{accepted}");
    for client in &refused {
        assert_eq!((client.status, client.header("retry-after")), (503, Some("5")));
        assert_eq!(json_of(client)["error"]["code"], "job_queue_full");
    }
    assert_eq!(world.sent(), accepted);
    assert_eq!(world.most_at("p"), 8);
}

#[test]
fn jobs_are_begun_in_the_order_in_which_they_came() {
    let world = World::new(1, config("concurrency = 1"));
    world.serve(|_, _| good(20));
    with_worker(&world, async {
        for number in 0..20 {
            let client = submit_with(&world, chat_body(&format!("p/m{number}"), false), &[]).await;
            assert_eq!(client.status, 202);
            world.sleep(Duration::from_millis(2)).await;
        }
        world.sleep(Duration::from_secs(2)).await;
    });
    let asked = world
        .requests_sent()
        .into_iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap()["model"].as_str().unwrap().to_owned());
    assert_eq!(asked.collect::<Vec<_>>(), (0..20).map(|number| format!("m{number}")).collect::<Vec<_>>());
}

#[test]
fn a_failure_that_may_pass_is_tried_again_and_one_that_does_not_is_the_answer() {
    for (failures, status, attempts) in
        [(vec![503, 429], 200, 3), (vec![503, 503, 500], 502, 3), (vec![400], 400, 1), (vec![404], 404, 1)]
    {
        let world = World::new(1, config(""));
        let left = RefCell::new(failures.clone());
        world.serve(move |_, _| if left.borrow().is_empty() { good(5) } else { error(left.borrow_mut().remove(0)) });
        let (job, result) = with_worker(&world, async {
            let id = submit(&world).await;
            (ended(&world, &id).await, get(&world, &format!("/v1/jobs/{id}/result")).await)
        });
        let expected = if status == 200 { "done" } else { "failed" };
        assert_eq!((&job["status"], &job["attempts"]), (&json!(expected), &json!(attempts)), "{failures:?}");
        assert_eq!(result.status / 100, status / 100, "{failures:?}: {result:?}");
        assert_eq!(world.sent(), attempts);
    }
}

#[test]
fn a_refusal_by_the_gateway_s_own_bounds_is_no_attempt() {
    let more = "concurrency = { max = 1, queue = 0, wait = \"1s\" }";
    let world = World::new(1, config_with("attempts = 1", more));
    world.serve(|_, _| good(8_000));
    let done = with_worker(&world, async {
        let ids = [submit(&world).await, submit(&world).await, submit(&world).await];
        let jobs = ids.iter().map(|id| ended(&world, id));
        join_all(jobs).await
    });
    assert!(done.iter().all(|job| job["status"] == "done"), "{done:?}");
    assert_eq!((world.sent(), world.most_at("p")), (3, 1));
}

#[test]
fn a_job_that_cannot_be_begun_in_time_has_failed() {
    let mut world = World::new(1, config("run_within = \"10s\""));
    world.serve(|_, _| good(5));
    let id = world.drive(submit(&world));
    world.pass(Duration::from_secs(20));
    world.restart();
    let (job, result) =
        with_worker(&world, async { (ended(&world, &id).await, get(&world, &format!("/v1/jobs/{id}/result")).await) });
    assert_eq!((&job["status"], world.sent()), (&json!("failed"), 0));
    assert_eq!((result.status, &json_of(&result)["error"]["code"]), (504, &json!("job_expired")));
}

#[test]
fn a_job_and_its_answer_are_forgotten_in_time() {
    let world = World::new(1, config("kept_for = \"100s\""));
    world.serve(|_, _| good(5));
    let id = with_worker(&world, async {
        let id = submit(&world).await;
        ended(&world, &id).await;
        world.sleep(Duration::from_secs(1)).await;
        id
    });
    world.pass(Duration::from_secs(90));
    assert_eq!(world.drive(get(&world, &format!("/v1/jobs/{id}"))).status, 200);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.drive(get(&world, &format!("/v1/jobs/{id}"))).status, 404);
    assert!(everything(&world).keys().all(|key| key.starts_with("jobo/")), "{:?}", everything(&world).keys());
}

#[test]
fn large_requests_and_answers_are_kept_in_pieces() {
    let world = World::new(1, config("max_answer_bytes = \"1MiB\""));
    let large = "x".repeat(700_000);
    let answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": large}, "finish_reason": "stop"}]});
    let answer = Bytes::from(answer.to_string());
    world.serve(move |_, _| {
        Script::new(vec![(1, Act::Head(200, "application/json")), (0, Act::Bytes(answer.clone())), (0, Act::End)])
    });
    let body = |content: &str| {
        Bytes::from(json!({"model": "p/m", "messages": [{"role": "user", "content": content}]}).to_string())
    };
    let result = with_worker(&world, async {
        let submitted = submit_with(&world, body(&large), &[]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        get(&world, &format!("/v1/jobs/{id}/result?wait=30s")).await
    });
    assert_eq!(json_of(&result)["choices"][0]["message"]["content"], large.as_str());
    assert!(world.requests_sent()[0].body.len() > 700_000);
}

#[test]
fn an_answer_that_is_too_large_to_keep_is_a_failure_and_asked_for_once() {
    let world = World::new(1, config("max_answer_bytes = \"1KiB\""));
    let large = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "x".repeat(2_000)}, "finish_reason": "stop"}]});
    let large = Bytes::from(large.to_string());
    world.serve(move |_, _| {
        Script::new(vec![(1, Act::Head(200, "application/json")), (0, Act::Bytes(large.clone())), (0, Act::End)])
    });
    let job = with_worker(&world, async {
        let id = submit(&world).await;
        ended(&world, &id).await
    });
    assert_eq!((&job["status"], &job["result"]["status"], world.sent()), (&json!("failed"), &json!(502), 1));
}

#[test]
fn no_secret_of_a_client_is_kept() {
    let world = World::new(1, config("concurrency = 0"));
    let headers = [("x-api-key", "test-key"), ("cookie", "test-key"), ("openai-organization", "org")];
    assert_eq!(world.drive(submit_with(&world, chat_body("p/m", false), &headers)).status, 202);
    let kept = everything(&world);
    assert!(kept.len() >= 4);
    for (key, value) in kept {
        assert!(!key.contains("test-key") && !String::from_utf8_lossy(&value).contains("test-key"), "{key}");
    }
}

#[test]
fn a_store_that_cannot_be_asked_refuses_a_job_and_loses_none() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(100));
    world.kept().fail(1);
    let refused = world.drive(submit_with(&world, chat_body("p/m", false), &[]));
    assert_eq!((refused.status, &json_of(&refused)["error"]["code"]), (503, &json!("state_unavailable")));
    for at in 0..40 {
        let done = with_worker(&world, async {
            let id = submit(&world).await;
            world.sleep(Duration::from_millis(at * 5)).await;
            world.kept().fail(at % 7 + 1);
            // Of the questions of this client's own some fail, too.
            loop {
                let client = get(&world, &format!("/v1/jobs/{id}?wait=30s")).await;
                if client.status == 200 {
                    break json_of(&client);
                }
                world.sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(done["status"], "done", "{at}");
    }
}

/// What a process that may die does: runs the script beside a worker, until it ends or the process dies.
fn until_death(world: &World, script: impl Future<Output = ()>) -> bool {
    world.drive(async {
        let living = pin!(async {
            let _ = select(pin!(script), pin!(world.work())).await;
        });
        matches!(select(living, pin!(world.kept().died())).await, Either::Left(_))
    })
}

/// After the last process: every job that a client was told of has one answer, and costs what one answer costs.
fn all_ended(world: &World, ids: &[String], what: &str) {
    for id in ids {
        let (job, result) =
            with_worker(world, async { (ended(world, id).await, get(world, &format!("/v1/jobs/{id}/result")).await) });
        assert_eq!(job["status"], "done", "{what}: {job}");
        assert_eq!(job["usage"], json!({"input_tokens": 3, "output_tokens": 7}), "{what}");
        assert_eq!(json_of(&result)["choices"][0]["message"]["content"], answer_text(), "{what}");
        let again = world.drive(get(world, &format!("/v1/jobs/{id}/result")));
        assert_eq!(again.body, result.body, "{what}: the answer stays the same");
    }
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for record in world.records() {
        if let (Some(job), Some(_)) = (&record.job, &record.usage) {
            *counted.entry(job.clone()).or_default() += 1;
        }
    }
    assert!(counted.values().all(|count| *count == 1), "{what}: charged more than once: {counted:?}");
    let left: Vec<_> = everything(world).into_keys().filter(|key| key.starts_with("jobq/")).collect();
    assert_eq!(left, Vec::<String>::new(), "{what}: the queue is empty");
}

/// The ids of all jobs in the store.
fn known(world: &World) -> Vec<String> {
    everything(world).into_keys().filter_map(|key| Some(key.strip_prefix("job/")?.to_owned())).collect()
}

#[test]
fn a_process_killed_at_any_operation_of_the_store_loses_no_job_and_answers_none_twice() {
    // How many operations there are without a death.
    let whole = {
        let world = World::new(1, config("attempts = 10"));
        world.serve(|_, _| good(4_000));
        let told = RefCell::new(Vec::new());
        assert!(until_death(&world, two_jobs(&world, &told)));
        all_ended(&world, &told.borrow(), "no death");
        world.kept().operations()
    };
    assert!(whole > 20, "{whole}");
    for at in 0..whole {
        for done in [false, true] {
            let mut world = World::new(1, config("attempts = 10"));
            world.serve(|_, _| good(4_000));
            world.kept().kill_after(at, done);
            let told = RefCell::new(Vec::new());
            until_death(&world, two_jobs(&world, &told));
            world.restart();
            // Those, too, whose clients died with the process before they were told.
            let mut ids = told.into_inner();
            ids.extend(known(&world));
            let later = async {
                world.sleep(Duration::from_secs(90)).await;
            };
            assert!(until_death(&world, later));
            all_ended(&world, &ids, &format!("killed at {at}, done {done}"));
        }
    }
}

async fn two_jobs(world: &World, told: &RefCell<Vec<String>>) {
    for key in ["a", "b"] {
        let client = submit_with(world, chat_body("p/m", false), &[("idempotency-key", key)]).await;
        if client.status == 202 {
            told.borrow_mut().push(json_of(&client)["id"].as_str().unwrap().to_owned());
        }
    }
    world.sleep(Duration::from_secs(12)).await;
}

#[test]
fn a_process_killed_at_any_operation_of_the_store_charges_each_answer_once() {
    let more = "[admin]\nkey = \"root\"\n[keys.alice]\nsecret = \"alice-key\"\nbudget.total = 1.0\n\
                quota.concurrent_requests = 50\n[prices.\"p/*\"]\ninput = 2\noutput = 8";
    let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
    let meters = [("meter/key/alice/total", total), ("meter/key/alice/at-once", Rule::Held)];
    let run = |kill: Option<(u64, bool)>| {
        let mut world = World::new(1, config_with("attempts = 10", more));
        world.serve(|_, _| good(4_000));
        if let Some((at, done)) = kill {
            world.kept().kill_after(at, done);
        }
        until_death(&world, async {
            for _ in 0..2 {
                world.ask("alice-key", "POST", CHAT, &[LATER], chat_body("p/m", false)).await;
            }
            world.sleep(Duration::from_secs(12)).await;
        });
        let operations = world.kept().operations();
        world.restart();
        // Until what the dead process had taken is anybody's again, who then takes something.
        assert!(until_death(&world, async {
            world.sleep(Duration::from_secs(200)).await;
            let client = world.ask("alice-key", "POST", CHAT, &[], chat_body("p/m", false)).await;
            assert_eq!(client.status, 200, "{kill:?}: {client:?}");
            world.sleep(Duration::from_secs(1)).await;
        }));
        let jobs = known(&world).len() as u64;
        // The simulated backend counts 3 and 7 tokens.
        assert_eq!(world.used(&meters), [(jobs + 1) * 62_000, 0], "{kill:?}: {jobs} jobs");
        let spend = world.bare("GET", "/admin/spend?group_by=key", &[("authorization", "Bearer root")], Bytes::new());
        let spend = json_of(&spend);
        let of = |name: &str| spend["data"][0][name].as_u64();
        assert_eq!((of("requests"), of("input_tokens")), (Some(jobs + 1), Some(3 * (jobs + 1))), "{kill:?}: {spend}");
        operations
    };
    let whole = run(None);
    assert!(whole > 30, "{whole}");
    for at in 0..whole {
        run(Some((at, false)));
        run(Some((at, true)));
    }
}

#[test]
fn processes_killed_at_random_points_from_seeds_lose_no_job_and_answer_none_twice() {
    for seed in 0..300 {
        let mut world = World::new(seed, config("attempts = 100\nconcurrency = 4"));
        let speed = 1 + world.below(6_000);
        world.serve(move |_, _| good(speed));
        let told = RefCell::new(Vec::new());
        for _ in 0..2 + world.below(4) {
            let clients = async {
                let jobs = 1 + world.below(6);
                let all = (0..jobs).map(|_| {
                    let (pause, told) = (Duration::from_millis(world.below(3_000)), &told);
                    let world = &world;
                    async move {
                        world.sleep(pause).await;
                        let client = submit_with(world, chat_body("p/m", false), &[]).await;
                        if client.status == 202 {
                            told.borrow_mut().push(json_of(&client)["id"].as_str().unwrap().to_owned());
                        }
                    }
                });
                join_all(all).await;
                world.sleep(Duration::from_millis(world.below(10_000))).await;
            };
            world.kept().kill_after(world.below(80), world.chance(50));
            until_death(&world, clients);
            world.restart();
        }
        let last = async {
            world.sleep(Duration::from_secs(120)).await;
        };
        assert!(until_death(&world, last));
        let mut ids = told.into_inner();
        ids.extend(known(&world));
        all_ended(&world, &ids, &format!("seed {seed}"));
    }
}

#[test]
fn two_processes_share_the_jobs_and_run_each_once() {
    let one = World::new(3, config("concurrency = 2"));
    one.serve(|_, _| good(20_000));
    let two = one.another();
    one.drive(async {
        let script = async {
            let mut ids = Vec::new();
            for _ in 0..8 {
                ids.push(submit(&one).await);
            }
            for id in &ids {
                let mut job = ended(&two, id).await;
                while job["finished_at"].is_null() {
                    job = ended(&two, id).await;
                }
                assert_eq!((&job["status"], &job["attempts"]), (&json!("done"), &json!(1)));
            }
        };
        select(pin!(script), pin!(join(one.work(), two.work()))).await;
    });
    assert_eq!((one.sent(), one.most_at("p")), (8, 4), "longer than a lease, and each once");
}

#[test]
fn a_job_that_kills_its_processes_fails_in_the_end() {
    let mut world = World::new(1, config("attempts = 2"));
    world.serve(|_, _| good(60_000));
    let id = world.drive(submit(&world));
    for _ in 0..2 {
        let killed = async {
            world.sleep(Duration::from_secs(15)).await;
        };
        until_death(&world, killed);
        world.restart();
    }
    let (job, result) =
        with_worker(&world, async { (ended(&world, &id).await, get(&world, &format!("/v1/jobs/{id}/result")).await) });
    assert_eq!((&job["status"], &job["attempts"]), (&json!("failed"), &json!(2)));
    assert_eq!((result.status, &json_of(&result)["error"]["code"]), (500, &json!("job_interrupted")));
}

/// The callbacks that a host was sent.
fn callbacks(world: &World) -> Vec<witgate_gateway::UpstreamRequest> {
    world.requests_sent().into_iter().filter(|request| request.url.contains("hooks.example.com")).collect()
}

/// Whether a callback is signed as Standard Webhooks wants it.
fn is_signed(request: &witgate_gateway::UpstreamRequest) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{Hmac, KeyInit, Mac};
    let header = |name: &str| request.headers.iter().find(|(own, _)| own == name).unwrap().1.clone();
    let key = STANDARD.decode(&SECRET[6..]).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

const CALLBACK: (&str, &str) = ("x-witgate-callback", "https://hooks.example.com/done?x=1");

#[test]
fn bed_r7_a_signed_callback_is_sent_once_when_it_is_accepted() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(500));
    let id = with_worker(&world, async {
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        ended(&world, &id).await;
        world.sleep(Duration::from_secs(600)).await;
        let callback = job(&world, &id).await["callback"].clone();
        assert_eq!((&callback["status"], &callback["attempts"]), (&json!("accepted"), &json!(1)));
        id
    });
    let sent = callbacks(&world);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].url.as_str(), sent[0].public_only), (CALLBACK.1, true));
    assert!(is_signed(&sent[0]));
    let body: Value = serde_json::from_slice(&sent[0].body).unwrap();
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("job.done"), &json!(id)));
    assert_eq!(body["timestamp"], "2023-11-14T22:13:20Z");
    assert!(everything(&world).keys().all(|key| !key.starts_with("jobc/")));
}

#[test]
fn bed_r7_a_callback_that_is_not_accepted_is_sent_again_with_longer_waits_and_not_for_ever() {
    for (statuses, state, sent) in
        [(vec![500, 302, 200], "accepted", 3), (vec![503; 9], "failed", 4), (vec![410], "failed", 1)]
    {
        let world = World::new(1, config("callback_attempts = 4"));
        let times = Rc::new(RefCell::new(Vec::new()));
        let (shared, left) = (Rc::clone(&times), RefCell::new(statuses));
        world.serve(move |host, now| {
            if host != "hooks.example.com" {
                return good(5);
            }
            shared.borrow_mut().push(now);
            match left.borrow_mut().remove(0) {
                200 => good(5),
                status => error(status),
            }
        });
        let callback = with_worker(&world, async {
            let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
            let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
            world.sleep(Duration::from_secs(3_600)).await;
            job(&world, &id).await["callback"].clone()
        });
        assert_eq!((&callback["status"], &callback["attempts"]), (&json!(state), &json!(sent)));
        let requests = callbacks(&world);
        assert!(requests.len() == sent && requests.iter().all(is_signed));
        let id = |request: &witgate_gateway::UpstreamRequest| {
            request.headers.iter().find(|(n, _)| n == "webhook-id").cloned()
        };
        assert!(requests.iter().all(|request| id(request) == id(&requests[0])));
        let waits: Vec<_> = times.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{waits:?}");
    }
}

#[test]
fn a_process_killed_while_it_calls_back_leaves_that_to_the_next() {
    for at in 0..60 {
        let mut world = World::new(at, config("attempts = 10"));
        let accepted = Rc::new(Cell::new(0));
        let shared = Rc::clone(&accepted);
        world.serve(move |host, _| {
            shared.set(shared.get() + usize::from(host == "hooks.example.com"));
            good(5)
        });
        let id = RefCell::new(None);
        let script = async {
            let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
            *id.borrow_mut() = Some(json_of(&submitted)["id"].as_str().unwrap().to_owned());
            // From behind the 202 on.
            world.kept().kill_after(at / 2, at % 2 == 0);
            world.sleep(Duration::from_secs(30)).await;
        };
        until_death(&world, script);
        world.restart();
        let job = with_worker(&world, async {
            world.sleep(Duration::from_secs(200)).await;
            let id = id.borrow().clone().unwrap();
            job(&world, &id).await
        });
        assert_eq!((&job["status"], &job["callback"]["status"]), (&json!("done"), &json!("accepted")), "{at}");
        assert!((1..=2).contains(&accepted.get()), "{at}: {}", accepted.get());
    }
}

/// Ten answers of 62 micro-dollars are the budget of alice's day; its thresholds go to a webhook.
fn with_webhook(url: &str, more: &str) -> Config {
    let more = format!(
        "[keys.alice]\nsecret = \"alice-key\"\nbudget.day = 0.00062\n[prices.\"p/*\"]\ninput = 2\noutput = 8\n[accounting]\n\
         webhook = \"{url}\"\nwebhook_secret = \"{SECRET}\"\noutput_tokens = 7\n{more}"
    );
    config_with("", &more)
}

async fn ask_as_alice(world: &World) -> u16 {
    let client = world.ask("alice-key", "POST", CHAT, &[], chat_body("p/m", false)).await;
    world.sleep(Duration::from_millis(100)).await;
    client.status
}

#[test]
fn thresholds_are_told_to_the_webhook_once_by_two_processes_until_they_are_accepted() {
    let one = World::new(1, with_webhook("https://hooks.example.com/budget", ""));
    let refused = Cell::new(0);
    one.serve(move |host, _| {
        let hook = host == "hooks.example.com";
        refused.set(refused.get() + u32::from(hook));
        if hook && refused.get() <= 2 { error(500) } else { good(20) }
    });
    let two = one.another();
    let script = async {
        for _ in 0..6 {
            ask_as_alice(&one).await;
            ask_as_alice(&two).await;
        }
        one.sleep(Duration::from_secs(600)).await;
    };
    one.drive(async {
        let _ = select(pin!(script), pin!(join(one.work(), two.work()))).await;
    });
    let sent = callbacks(&one);
    assert!(sent.iter().all(|request| is_signed(request) && request.public_only && request.provider.is_empty()));
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for request in &sent {
        let (_, id) = request.headers.iter().find(|(name, _)| name == "webhook-id").unwrap();
        told.entry(id.clone()).or_default().push(serde_json::from_slice(&request.body).unwrap());
    }
    assert_eq!((told.len(), sent.len()), (3, 5), "three thresholds, and two that were refused at first");
    let mut percents = Vec::new();
    for bodies in told.values() {
        assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:?}");
        let (body, data) = (&bodies[0], &bodies[0]["data"]);
        assert_eq!(
            (&body["type"], &data["scope"], &data["owner"]),
            (&json!("budget.threshold"), &json!("key"), &json!("alice"))
        );
        assert_eq!((&data["period"], &data["limit_usd"]), (&json!("day"), &json!(0.00062)));
        assert_eq!(
            (&data["period_start"], &data["period_end"]),
            (&json!("2023-11-14T00:00:00Z"), &json!("2023-11-15T00:00:00Z"))
        );
        percents.push(data["percent"].as_u64().unwrap());
    }
    percents.sort_unstable();
    assert_eq!(percents, [50, 80, 100]);
    assert!(everything(&one).keys().all(|key| !key.starts_with("alertq/")));
}

#[test]
fn a_process_killed_while_it_tells_of_a_threshold_leaves_that_to_the_next() {
    for at in 0..60 {
        let mut world = World::new(at, with_webhook("https://hooks.example.com/budget", ""));
        world.serve(|_, _| good(20));
        until_death(&world, async {
            for _ in 0..4 {
                ask_as_alice(&world).await;
            }
            world.kept().kill_after(at / 2, at % 2 == 0);
            for _ in 0..2 {
                ask_as_alice(&world).await;
            }
            world.sleep(Duration::from_secs(5)).await;
        });
        world.restart();
        with_worker(&world, async {
            // The second one finds what the dead process had reserved given back.
            ask_as_alice(&world).await;
            world.sleep(Duration::from_secs(200)).await;
            ask_as_alice(&world).await;
            world.sleep(Duration::from_secs(60)).await;
        });
        let sent = callbacks(&world);
        let half = |request: &&witgate_gateway::UpstreamRequest| {
            serde_json::from_slice::<Value>(&request.body).unwrap()["data"]["percent"] == 50
        };
        let told = sent.iter().filter(half).count();
        assert!((1..=2).contains(&told), "{at}: {told} of {}", sent.len());
    }
}

#[test]
fn a_webhook_of_a_private_address_is_told_nothing_unless_it_is_allowed() {
    for (more, told) in [("", 0), ("allow_private_webhook = true\n", 1)] {
        let world = World::new(1, with_webhook("http://10.0.0.1/hooks.example.com", more));
        world.serve(|_, _| good(20));
        with_worker(&world, async {
            for _ in 0..5 {
                ask_as_alice(&world).await;
            }
            world.sleep(Duration::from_secs(600)).await;
        });
        let sent = callbacks(&world);
        assert_eq!(sent.len(), told, "{more}");
        assert!(sent.iter().all(|request| !request.public_only));
        let warned = world.new_warnings().iter().any(|warning| warning.contains("accounting.webhook must be"));
        assert_eq!(warned, told == 0);
    }
}

#[test]
fn a_callback_to_a_private_address_is_refused_unless_it_is_allowed() {
    let world = World::new(1, config(""));
    let submit =
        |world: &World, url| world.drive(submit_with(world, chat_body("p/m", false), &[("x-witgate-callback", url)]));
    for url in [
        "http://127.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/",
        "http://localhost:80/",
        "nonsense",
    ] {
        let refused = submit(&world, url);
        assert_eq!(
            (refused.status, &json_of(&refused)["error"]["param"]),
            (400, &json!("x-witgate-callback")),
            "{url}"
        );
    }
    let world = World::new(1, config("allow_private_callbacks = true"));
    assert_eq!(submit(&world, "http://127.0.0.1/").status, 202);
    let text = "[providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n[server]\napi_keys = [\"test-key\"]";
    let world = World::new(1, Config::from_toml(text, "x", &|_| None).unwrap());
    let refused = submit(&world, "https://example.com/");
    assert!(String::from_utf8_lossy(&refused.body).contains("jobs.callback_secret"), "{refused:?}");
}

#[test]
fn awa_16_a_job_goes_along_the_chain_as_any_request_does() {
    let more =
        "[providers.q]\nadapter = \"openai\"\nendpoint = \"http://q/v1\"\n[models.chain]\ntargets = [\"p/m\", \"q/m\"]";
    let world = World::new(1, config_with("", more));
    world.serve(|host, _| if host == "p" { error(503) } else { good(5) });
    let (job, result) = with_worker(&world, async {
        let submitted = submit_with(&world, chat_body("chain", false), &[]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        (ended(&world, &id).await, get(&world, &format!("/v1/jobs/{id}/result")).await)
    });
    assert_eq!((&job["status"], &job["attempts"]), (&json!("done"), &json!(1)));
    assert_eq!((result.header("x-witgate-provider"), result.header("x-witgate-attempts")), (Some("q"), Some("2")));
    assert_eq!(world.hosts_asked(), ["p", "q"]);
}

#[test]
fn awa_17_a_job_does_not_fall_back_on_its_own_mistake() {
    let more =
        "[providers.q]\nadapter = \"openai\"\nendpoint = \"http://q/v1\"\n[models.chain]\ntargets = [\"p/m\", \"q/m\"]";
    for status in [400, 404, 413, 422] {
        let world = World::new(1, config_with("", more));
        world.serve(move |_, _| error(status));
        let job = with_worker(&world, async {
            let submitted = submit_with(&world, chat_body("chain", false), &[]).await;
            let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
            ended(&world, &id).await
        });
        assert_eq!((&job["status"], &job["result"]["status"]), (&json!("failed"), &json!(status)));
        assert_eq!(world.hosts_asked(), ["p"]);
    }
}

#[test]
fn a_job_is_charged_for_the_answer_that_is_kept_and_one_that_is_cancelled_before_any_came_costs_nothing() {
    let more = "[keys.alice]\nsecret = \"alice-key\"\nbudget.total = 1.0\n[prices.\"p/*\"]\ninput = 2\noutput = 8";
    let world = World::new(1, config_with("", more));
    world.serve(|_, now| if now < Duration::from_secs(60) { good(20_000) } else { error(400) });
    let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
    let used = |world: &World| world.used(&[("meter/key/alice/total", total)])[0];
    let ask = |method: &'static str, path: String, headers: Vec<(&'static str, &'static str)>| {
        let (body, world) = (if path == CHAT { chat_body("p/m", false) } else { Bytes::new() }, &world);
        async move { json_of(&world.ask("alice-key", method, &path, &headers, body).await) }
    };
    with_worker(&world, async {
        let kept = ask("POST", CHAT.to_owned(), vec![LATER]).await["id"].as_str().unwrap().to_owned();
        let cancelled = ask("POST", CHAT.to_owned(), vec![LATER]).await["id"].as_str().unwrap().to_owned();
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(ask("POST", format!("/v1/jobs/{cancelled}/cancel"), vec![]).await["status"], "cancelled");
        assert_eq!(ask("GET", format!("/v1/jobs/{kept}?wait=60"), vec![]).await["status"], "done");
        world.sleep(Duration::from_secs(60)).await;
        let failed = ask("POST", CHAT.to_owned(), vec![LATER]).await["id"].as_str().unwrap().to_owned();
        assert_eq!(ask("GET", format!("/v1/jobs/{failed}?wait=60"), vec![]).await["status"], "failed");
        world.sleep(Duration::from_secs(5)).await;
    });
    // The simulated backend counts 3 and 7 tokens.
    assert_eq!(used(&world), 62_000);
    let told: Vec<_> = world.records().into_iter().filter(|record| record.cost.is_some_and(|cost| cost > 0)).collect();
    assert_eq!((told.len(), told[0].key.as_deref()), (1, Some("alice")));
}

#[test]
fn a_job_whose_submission_was_cut_short_is_run_when_its_idempotency_key_comes_again() {
    for at in 0..6 {
        let mut world = World::new(at, config(""));
        world.serve(|_, _| good(5));
        let key = ("idempotency-key", "order 66");
        world.kept().kill_after(at, true);
        world.drive(select(
            Box::pin(submit_with(&world, chat_body("p/m", false), &[key])),
            Box::pin(world.kept().died()),
        ));
        world.restart();
        // Short of the time after which the key is free again, and long enough to look old.
        world.pass(Duration::from_secs(59));
        // A worker has the time to look at the queue before there is a job.
        world.kept().delay("job/", Duration::from_secs(5));
        let job = with_worker(&world, async {
            let again = submit_with(&world, chat_body("p/m", false), &[key]).await;
            assert_eq!(again.status, 202, "{at}: {again:?}");
            let id = json_of(&again)["id"].as_str().unwrap().to_owned();
            world.kept().delay("job/", Duration::ZERO);
            ended(&world, &id).await
        });
        assert_eq!((&job["status"], world.sent()), (&json!("done"), 1), "{at}");
    }
}

#[test]
fn an_idempotency_key_whose_job_is_gone_makes_a_new_one_that_has_all_its_time() {
    let world = World::new(1, config("run_within = \"100s\"\nkept_for = \"50s\""));
    world.serve(|_, _| good(5));
    with_worker(&world, async {
        let key = ("idempotency-key", "order 66");
        let mut ids = Vec::new();
        let once = async || {
            let submitted = submit_with(&world, chat_body("p/m", false), &[key]).await;
            let id = submitted.header("location").unwrap().strip_prefix("/v1/jobs/").unwrap().to_owned();
            assert_eq!(ended(&world, &id).await["status"], "done");
            id
        };
        ids.push(once().await);
        assert_eq!(once().await, ids[0], "as long as the job is there");
        // It is forgotten, and the time in which it could be begun is over.
        world.sleep(Duration::from_secs(130)).await;
        ids.push(once().await);
        assert_eq!(
            world.ask("test-key", "DELETE", &format!("/v1/jobs/{}", ids[1]), &[], Bytes::new()).await.status,
            200
        );
        world.sleep(Duration::from_secs(110)).await;
        ids.push(once().await);
        assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    });
    assert_eq!(world.sent(), 3);
}

#[test]
fn an_idempotency_key_that_somebody_else_is_writing_is_waited_for() {
    for (prefix, writes) in [("jobi/", 3), ("jobi/", 99), ("job/", 3)] {
        let world = World::new(1, config(""));
        world.serve(|_, _| good(5));
        let key = ("idempotency-key", "order 66");
        let job = with_worker(&world, async {
            world.kept().block(prefix, writes);
            let first = submit_with(&world, chat_body("p/m", false), &[key]).await;
            assert_eq!(first.status, 202, "{prefix} {writes}: {first:?}");
            let second = submit_with(&world, chat_body("p/m", false), &[key]).await;
            assert_eq!(json_of(&first)["id"], json_of(&second)["id"], "{prefix} {writes}");
            ended(&world, json_of(&first)["id"].as_str().unwrap()).await
        });
        assert_eq!((&job["status"], world.sent()), (&json!("done"), 1), "{prefix} {writes}");
    }
    // Not for ever.
    let world = World::new(1, config(""));
    world.kept().block("jobi/", u64::MAX);
    let refused = world.drive(submit_with(&world, chat_body("p/m", false), &[("idempotency-key", "a")]));
    assert_eq!((refused.status, &json_of(&refused)["error"]["code"]), (503, &json!("state_unavailable")));
}

#[test]
fn a_job_that_runs_longer_than_it_may_wait_and_is_kept_is_not_lost() {
    let world = World::new(1, config("run_within = \"1s\"\nkept_for = \"2s\""));
    world.serve(|_, _| good(9_000));
    let job = with_worker(&world, async {
        let id = submit(&world).await;
        ended(&world, &id).await
    });
    assert_eq!((&job["status"], world.sent()), (&json!("done"), 1));
}

#[test]
fn what_cannot_be_read_keeps_nothing_else_from_being_done() {
    let world = World::new(1, with_webhook("https://hooks.example.com/budget", ""));
    // The first notice is not accepted: a worker has to send it again.
    let told = Cell::new(false);
    world.serve_requests(move |request| match request.url.ends_with("/budget") && !told.replace(true) {
        true => error(500),
        false => good(5),
    });
    let strange = async |key: &str| {
        let (now, value) = (world.unix_time(), Some(Bytes::from_static(b"strange")));
        world.kept().set(now, key, value, None, witgate_gateway::state::Expect::Anything).await.unwrap();
    };
    with_worker(&world, async {
        for entry in ["job/job_0", "jobq/0000000000000001-job_0", "jobc/0000000000000001-job_0"] {
            strange(entry).await;
        }
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        assert_eq!(ended(&world, json_of(&submitted)["id"].as_str().unwrap()).await["status"], "done");
        for _ in 0..5 {
            assert_eq!(ask_as_alice(&world).await, 200);
        }
        world.sleep(Duration::from_secs(10)).await;
    });
    let urls: Vec<_> = callbacks(&world).into_iter().map(|request| request.url).collect();
    let budget = "https://hooks.example.com/budget";
    assert_eq!(urls, [CALLBACK.1, budget, budget]);
}

/// What an instance of the edge does: `script` beside the work that a request has left, which it outlives or not.
async fn instance<T>(world: &World, script: impl Future<Output = T>) -> T {
    join(script, world.work_off()).await.0
}

/// What becomes of an instance that lives for so long.
fn lives(world: &World, time: Duration, script: impl Future<Output = ()>) {
    world.drive(select(Box::pin(instance(world, script)), Box::pin(world.sleep(time))));
}

#[test]
fn at_the_edge_a_job_whose_instance_died_is_taken_up_by_any_later_request() {
    let mut world = World::new(1, config(""));
    world.serve(|_, _| good(5_000));
    let id = world.drive(submit(&world));
    lives(&world, Duration::from_secs(2), async {});
    assert_eq!((world.sent(), world.open_bodies()), (1, 0));
    world.restart();
    // The other's lease lasts: the work waits for its end.
    let (job, passed) = world.drive(async {
        assert_eq!(get(&world, "/health").await.status, 200);
        assert!(world.pass_by().await);
        let passed = world.elapsed();
        assert!(world.pass_by().await, "none has looked for long");
        (job(&world, &id).await, passed)
    });
    assert_eq!((&job["status"], &job["attempts"], world.sent()), (&json!("done"), &json!(2), 2));
    assert!((Duration::from_secs(14)..Duration::from_secs(17)).contains(&passed), "{passed:?}");
    world.drive(async {
        assert!(!world.pass_by().await, "a moment ago");
        let asked = world.store_calls();
        let other = world.another();
        assert!(other.pass_by().await);
        assert_eq!(world.store_calls(), asked + 1, "another instance asks whether somebody has looked, no more");
    });
}

/// The backend serves; who is called back answers 500 so long.
fn hooks_fail_until(world: &World, end: Duration) {
    world.serve(move |host, now| match host {
        "hooks.example.com" if now < end => error(500),
        _ => good(5),
    });
}

#[test]
fn at_the_edge_nobody_waits_for_what_is_due_in_more_than_half_a_minute() {
    let world = World::new(1, config(""));
    hooks_fail_until(&world, Duration::from_secs(90));
    world.drive(async {
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        world.work_off().await;
        // After 5, 10 and 20 seconds it was sent again; the next time is in 40.
        assert!((Duration::from_secs(35)..Duration::from_secs(45)).contains(&world.elapsed()), "{:?}", world.elapsed());
        let callback = job(&world, &id).await["callback"].clone();
        assert_eq!((&callback["status"], &callback["attempts"]), (&json!("waiting"), &json!(4)));
        world.sleep(Duration::from_secs(60)).await;
        assert!(world.pass_by().await);
        assert_eq!(job(&world, &id).await["callback"]["status"], "accepted");
    });
}

#[test]
fn at_the_edge_a_long_job_holds_nothing_else_up() {
    let world = World::new(1, leased("120s", "concurrency = 2", ""));
    world.serve(|host, now| match host {
        "p" if now < Duration::from_secs(2) => good(50_000),
        _ => good(5),
    });
    let long = world.drive(submit(&world));
    world.drive(instance(&world, async {
        world.sleep(Duration::from_secs(5)).await;
        // Another instance takes a job, and ends before it has run it.
        let other = world.another();
        let submitted = submit_with(&other, chat_body("p/m", false), &[CALLBACK]).await;
        let left = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        world.sleep(Duration::from_secs(3)).await;
        assert_eq!((job(&world, &left).await["status"].clone(), callbacks(&world).len()), (json!("done"), 1));
        assert_eq!(job(&world, &long).await["status"], "running");
    }));
    assert_eq!(world.drive(job(&world, &long))["status"], "done");
    assert!(world.elapsed() < Duration::from_secs(55), "{:?}", world.elapsed());
}

#[test]
fn at_the_edge_a_job_that_is_cancelled_while_it_waits_calls_back_at_once() {
    let world = World::new(1, leased("120s", "", ""));
    world.serve(|host, _| match host {
        "p" => Script::new(vec![
            (
                1,
                Act::HeadWith(
                    503,
                    vec![("content-type", "application/json".to_owned()), ("retry-after", "25".to_owned())],
                ),
            ),
            (0, Act::Bytes(Bytes::from_static(b"{}"))),
            (0, Act::End),
        ]),
        _ => good(5),
    });
    world.drive(async {
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        instance(&world, async {
            world.sleep(Duration::from_secs(5)).await;
            assert_eq!(job(&world, &id).await["status"], "queued", "it waits for its second attempt");
            let cancelled = world.ask("test-key", "POST", &format!("/v1/jobs/{id}/cancel"), &[], Bytes::new()).await;
            assert_eq!(cancelled.status, 200);
            world.sleep(Duration::from_secs(1)).await;
            assert_eq!(callbacks(&world).len(), 1);
        })
        .await;
    });
}

#[test]
fn at_the_edge_an_instance_that_runs_no_jobs_calls_back_all_the_same() {
    let world = World::new(1, config(""));
    hooks_fail_until(&world, Duration::from_secs(20));
    world.drive(async {
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
        select(Box::pin(world.work_off()), Box::pin(world.sleep(Duration::from_secs(2)))).await;
        let queued = submit(&world).await;
        world.sleep(Duration::from_secs(20)).await;
        let none = world.reloaded(config("concurrency = 0"));
        none.work_off().await;
        assert_eq!(job(&none, &id).await["callback"]["status"], "accepted");
        assert_eq!(job(&none, &queued).await["status"], "queued");
    });
}

#[test]
fn at_the_edge_a_job_that_a_request_leaves_wakes_who_waits_for_one() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5));
    world.drive(async {
        let mut next = Box::pin(world.next_job());
        let early = select(&mut next, Box::pin(world.sleep(Duration::from_secs(1)))).await;
        assert!(matches!(early, Either::Right(_)), "nobody has left one");
        let id = submit(&world).await;
        next.await;
        world.work_off().await;
        assert_eq!(job(&world, &id).await["status"], "done");
    });
}

#[test]
fn however_many_records_cannot_be_read_the_jobs_and_callbacks_behind_them_are_done() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5));
    with_worker(&world, async {
        for number in 0..100 {
            for list in ["job/", "jobq/0000000000000001-", "jobc/0000000000000001-"] {
                let (now, value) = (world.unix_time(), Some(Bytes::from_static(b"strange")));
                let key = format!("{list}job_{number}");
                world.kept().set(now, &key, value, None, witgate_gateway::state::Expect::Anything).await.unwrap();
            }
        }
        world.kept().at_most(20_000);
        let submitted = submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await;
        assert_eq!(ended(&world, json_of(&submitted)["id"].as_str().unwrap()).await["status"], "done");
        world.sleep(Duration::from_secs(20)).await;
    });
    assert_eq!(callbacks(&world).len(), 1);
}

#[test]
fn callbacks_that_a_store_does_not_let_begin_are_tried_with_pauses_and_sent_when_it_does() {
    let world = World::new(1, config(""));
    hooks_fail_until(&world, Duration::from_secs(10));
    let asked = with_worker(&world, async {
        for _ in 0..20 {
            assert_eq!(submit_with(&world, chat_body("p/m", false), &[CALLBACK]).await.status, 202);
        }
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(callbacks(&world).len(), 20, "none was accepted");
        // It takes nothing, and can be read.
        world.kept().refuse(Some(""));
        let before = world.kept().operations();
        world.kept().at_most(1_000);
        world.sleep(Duration::from_secs(20)).await;
        world.kept().operations() - before
    });
    assert!(asked > 100, "they are tried: {asked} operations in 20 s");
    // Nor does what lives from one request to the next stay at it.
    let before = world.elapsed();
    world.kept().at_most(1_000);
    world.drive(world.work_off());
    assert!(world.elapsed() - before < Duration::from_secs(10), "{:?}", world.elapsed() - before);
    world.kept().at_most(u64::MAX / 2);
    world.kept().refuse(None);
    with_worker(&world, world.sleep(Duration::from_secs(20)));
    assert_eq!(callbacks(&world).len(), 40);
    assert!(everything(&world).keys().all(|key| !key.starts_with("jobc/")));
}

#[test]
fn a_queue_of_which_no_job_can_be_begun_is_not_walked_to_its_end_each_time() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5));
    world.drive(async {
        for _ in 0..300 {
            submit(&world).await;
        }
    });
    world.kept().refuse(Some("job/"));
    with_worker(&world, world.sleep(Duration::from_millis(9_500)));
    let told = world.new_warnings().len();
    assert!((300..=640).contains(&told), "{told} warnings in 9.5 s");
    world.kept().refuse(None);
    with_worker(&world, world.sleep(Duration::from_secs(60)));
    assert_eq!(world.sent(), 300);
}

#[test]
fn an_answer_of_which_nobody_knows_whether_its_record_was_written_is_not_removed() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(500));
    // The store writes it and does not say so, and takes no change of the job until the lease is over.
    world.kept().refuse_from("job/", "\"status\":\"done\"");
    let (job, result) = with_worker(&world, async {
        let id = submit(&world).await;
        world.sleep(Duration::from_secs(15)).await;
        world.kept().refuse(None);
        (ended(&world, &id).await, get(&world, &format!("/v1/jobs/{id}/result")).await)
    });
    assert_eq!((&job["status"], result.status, world.sent()), (&json!("done"), 200, 1));
    assert_eq!(json_of(&result)["choices"][0]["message"]["content"], answer_text());
}

#[test]
fn a_job_that_is_submitted_again_while_it_is_deleted_is_listed_if_it_is_there() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5));
    with_worker(&world, async {
        let key = ("idempotency-key", "order 66");
        let submit = async || {
            let submitted = submit_with(&world, chat_body("p/m", false), &[key]).await;
            submitted.header("location").unwrap().to_owned()
        };
        let path = submit().await;
        world.sleep(Duration::from_secs(1)).await;
        // Its entry in the list is removed slowly.
        world.kept().delay("jobo/", Duration::from_secs(5));
        let again = async {
            world.sleep(Duration::from_secs(1)).await;
            world.kept().delay("jobo/", Duration::ZERO);
            assert_eq!(submit().await, path);
        };
        let (deleted, ()) = join(world.ask("test-key", "DELETE", &path, &[], Bytes::new()), again).await;
        assert_eq!(deleted.status, 200);
        let is_listed = async || {
            let listed = json_of(&get(&world, "/v1/jobs").await);
            listed["data"].as_array().unwrap().iter().any(|job| path.ends_with(job["id"].as_str().unwrap()))
        };
        assert_eq!(is_listed().await, get(&world, &path).await.status == 200);
        assert_eq!(submit().await, path);
        assert_eq!((is_listed().await, get(&world, &path).await.status), (true, 200));
    });
}
