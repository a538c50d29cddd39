//! OpenAI's responses in the background: looked at, followed, cancelled, and run again when a process dies.

use crate::jobs::{error, good, json_of, with_worker};
use crate::world;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::Outcome;
use witgate_gateway::state::Rule;
use world::{Act, Client, Script, World, answer_text, text_stream};

const RESPONSES: &str = "/v1/responses";

fn config(jobs: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\", \"other-key\"]\n[timeouts]\nfirst_token = \"10s\"\nidle = \"5s\"\ntotal = \
         \"60s\"\n[retry]\nattempts = 1\n[health]\nrest = \"0s\"\n[providers.p]\nadapter = \"openai\"\nendpoint = \
         \"http://p/v1\"\n[jobs]\nlease = \"9s\"\n{jobs}"
    );
    Config::from_toml(&text, "background.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

async fn create(world: &World, more: Value) -> Client {
    let mut body = json!({"model": "p/m", "input": "Hi", "instructions": "Be brief.", "background": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.ask("test-key", "POST", RESPONSES, &[], Bytes::from(body.to_string())).await
}

/// Creates one that is not followed; its id.
async fn created(world: &World) -> String {
    let client = create(world, json!({})).await;
    assert_eq!((client.status, &json_of(&client)["status"]), (200, &json!("queued")), "{client:?}");
    json_of(&client)["id"].as_str().unwrap().to_owned()
}

async fn ask(world: &World, method: &str, rest: &str) -> Client {
    world.ask("test-key", method, &format!("{RESPONSES}/{rest}"), &[], Bytes::new()).await
}

/// The response when it has ended.
async fn ended(world: &World, id: &str) -> Value {
    loop {
        let response = json_of(&ask(world, "GET", id).await);
        if !["queued", "in_progress"].contains(&response["status"].as_str().unwrap()) {
            return response;
        }
        world.sleep(Duration::from_millis(300)).await;
    }
}

/// A stream whose chunks come each second.
fn slow_stream() -> Script {
    let stream = String::from_utf8(text_stream()).unwrap();
    let chunks = stream.split_inclusive("\n\n").map(|chunk| (1_000, Act::Bytes(Bytes::from(chunk.to_owned()))));
    let head = (1, Act::Head(200, "text/event-stream"));
    Script::new([head].into_iter().chain(chunks).chain([(1, Act::End)]).collect())
}

fn events(client: &Client) -> Vec<Value> {
    let text = std::str::from_utf8(&client.body).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn text_of(response: &Value) -> &Value {
    &response["output"][0]["content"][0]["text"]
}

#[test]
fn a_response_in_the_background_is_queued_then_in_progress_then_completed() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5_000));
    with_worker(&world, async {
        let queued = create(&world, json!({"metadata": {"a": "b"}})).await;
        assert_eq!((queued.status, world.sent()), (200, 0), "at once");
        let queued = json_of(&queued);
        let id = queued["id"].as_str().unwrap();
        assert!(id.starts_with("resp_"), "{id}");
        assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)));
        assert_eq!((&queued["output"], &queued["metadata"]), (&json!([]), &json!({"a": "b"})));
        world.sleep(Duration::from_secs(1)).await;
        let running = json_of(&ask(&world, "GET", id).await);
        assert_eq!((&running["status"], &running["id"]), (&json!("in_progress"), &json!(id)));
        let early = ask(&world, "GET", &format!("{id}?stream=true")).await;
        assert_eq!((early.status, &json_of(&early)["error"]["param"]), (400, &json!("stream")));
        let on = json!({"background": false, "previous_response_id": id});
        let on = create(&world, on).await;
        assert_eq!((on.status, &json_of(&on)["error"]["param"]), (400, &json!("previous_response_id")));

        let done = ended(&world, id).await;
        assert_eq!((&done["status"], text_of(&done)), (&json!("completed"), &json!(answer_text())));
        assert_eq!((&done["id"], &done["created_at"]), (&json!(id), &queued["created_at"]));
        assert_eq!((&done["usage"]["input_tokens"], &done["background"]), (&json!(3), &json!(true)));
        let items = json_of(&ask(&world, "GET", &format!("{id}/input_items")).await);
        assert_eq!(items["data"][0]["content"][0]["text"], "Hi");
        let replayed = events(&ask(&world, "GET", &format!("{id}?stream=true")).await);
        assert_eq!(replayed.last().unwrap()["response"], done);
        let after = ask(&world, "POST", &format!("{id}/cancel")).await;
        assert_eq!((after.status, json_of(&after)), (200, done.clone()), "it has ended already");

        // The conversation goes on, in the background or not; and its items can be referred to.
        for background in [true, false] {
            let more = json!({"input": "And?", "previous_response_id": id, "background": background});
            let next = json_of(&create(&world, more).await);
            let next = ended(&world, next["id"].as_str().unwrap()).await;
            assert_eq!((&next["status"], &next["previous_response_id"]), (&json!("completed"), &json!(id)));
            let sent: Value = serde_json::from_slice(&world.requests_sent().last().unwrap().body).unwrap();
            let texts: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|said| &said["content"]).collect();
            assert_eq!(texts.len(), 4, "instructions, Hi, the answer, And?: {texts:?}");
            assert_eq!(sent["messages"][2]["role"], "assistant");
        }
        let item = json!([{"type": "item_reference", "id": done["output"][0]["id"]}, {"role": "user", "content": "?"}]);
        let referring = create(&world, json!({"input": item, "background": false})).await;
        assert_eq!(referring.status, 200, "{referring:?}");

        let deleted = ask(&world, "DELETE", id).await;
        let told = json!({"id": id, "object": "response", "deleted": true});
        assert_eq!((deleted.status, json_of(&deleted)), (200, told));
        assert_eq!(ask(&world, "GET", id).await.status, 404);
    });
    let charged = world.records().into_iter().filter(|record| record.job.is_some() && record.usage.is_some());
    assert_eq!(charged.count(), 2, "each job once");
}

#[test]
fn a_response_in_the_background_is_cancelled_and_its_backend_s_request_closed() {
    let world = World::new(1, config("concurrency = 1"));
    world.serve(|_, _| good(30_000));
    with_worker(&world, async {
        let (running, queued) = (created(&world).await, created(&world).await);
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.open_bodies(), 1);
        for id in [&queued, &running] {
            let other = world.ask("other-key", "POST", &format!("{RESPONSES}/{id}/cancel"), &[], Bytes::new()).await;
            assert_eq!(other.status, 404, "another client's");
            for _ in 0..2 {
                let cancelled = ask(&world, "POST", &format!("{id}/cancel")).await;
                assert_eq!((cancelled.status, &json_of(&cancelled)["status"]), (200, &json!("cancelled")));
            }
        }
        world.sleep(Duration::from_millis(10)).await;
        assert_eq!(world.open_bodies(), 0);
        world.sleep(Duration::from_secs(60)).await;
        assert_eq!((&ended(&world, &running).await["status"], world.sent()), (&json!("cancelled"), 1));
        let third = created(&world).await;
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(ask(&world, "DELETE", &third).await.status, 200);
        world.sleep(Duration::from_millis(10)).await;
        assert_eq!((world.open_bodies(), ask(&world, "GET", &third).await.status), (0, 404));
    });
}

#[test]
fn a_response_in_the_background_is_its_client_s_alone() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(10));
    with_worker(&world, async {
        let id = created(&world).await;
        ended(&world, &id).await;
        for (method, rest) in [("GET", ""), ("GET", "/input_items"), ("DELETE", ""), ("POST", "/cancel")] {
            let path = format!("{RESPONSES}/{id}{rest}");
            assert_eq!(world.ask("other-key", method, &path, &[], Bytes::new()).await.status, 404, "{method} {rest}");
        }
        let on = json!({"model": "p/m", "input": "And?", "previous_response_id": id}).to_string();
        assert_eq!(world.ask("other-key", "POST", RESPONSES, &[], Bytes::from(on)).await.status, 404);
        assert_eq!(ask(&world, "GET", &id).await.status, 200);
        // A job of another kind is no response.
        let chat = world::chat_body("p/m", false);
        let job = world.ask("test-key", "POST", "/v1/chat/completions", &[("prefer", "respond-async")], chat).await;
        let job = json_of(&job)["id"].as_str().unwrap().replace("job_", "resp_bg-");
        assert_eq!(ask(&world, "GET", &job).await.status, 404);
    });
}

#[test]
fn what_cannot_be_answered_in_the_background_is_refused_at_once() {
    let world = World::new(1, config("concurrency = 0"));
    world.drive(async {
        for (more, status, param) in [
            (json!({"store": false}), 400, "background"),
            (json!({"background": "yes"}), 400, "background"),
            (json!({"model": "nope"}), 404, "model"),
            (json!({"previous_response_id": "resp_bg-x"}), 404, "previous_response_id"),
        ] {
            let refused = create(&world, more.clone()).await;
            assert_eq!((refused.status, &json_of(&refused)["error"]["param"]), (status, &json!(param)), "{more}");
        }
        let body = json!({"model": "p/m", "input": "Hi", "background": true}).to_string();
        let prefer = [("prefer", "respond-async")];
        let twice = world.ask("test-key", "POST", RESPONSES, &prefer, Bytes::from(body)).await;
        assert_eq!((twice.status, &json_of(&twice)["error"]["param"]), (400, &json!("background")));
        let once = [("idempotency-key", "a")];
        let asked = |body: Value| world.ask("test-key", "POST", RESPONSES, &once, Bytes::from(body.to_string()));
        let body = json!({"model": "p/m", "input": "Hi", "background": true});
        let (first, second) = (asked(body.clone()).await, asked(body).await);
        assert_eq!(json_of(&first)["id"], json_of(&second)["id"], "one response of one idempotency key");
    });
    assert_eq!(world.sent(), 0);
}

#[test]
fn a_failure_in_the_background_is_a_response_that_has_failed() {
    for (stream, status, sent) in [(false, 400, 1), (true, 400, 1), (false, 503, 3), (true, 503, 3)] {
        let world = World::new(1, config(""));
        world.serve(move |_, _| error(status));
        let (failed, followed) = with_worker(&world, async {
            let made = create(&world, json!({"stream": stream})).await;
            let id = match stream {
                true => events(&made)[0]["response"]["id"].clone(),
                false => json_of(&made)["id"].clone(),
            };
            (ended(&world, id.as_str().unwrap()).await, made)
        });
        assert_eq!((&failed["status"], world.sent()), (&json!("failed"), sent), "{stream} {status}");
        assert!(failed["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{failed}");
        if stream {
            let last = events(&followed).pop().unwrap();
            assert_eq!((&last["type"], &last["response"]), (&json!("response.failed"), &failed));
        }
    }
}

#[test]
fn a_stream_in_the_background_goes_on_without_its_client_and_is_followed_again_from_where_it_was() {
    let world = World::new(1, config(""));
    world.serve(|_, _| slow_stream());
    with_worker(&world, async {
        let followed = create(&world, json!({"stream": true})).await;
        let all = events(&followed);
        assert_eq!(followed.header("content-type"), Some("text/event-stream"));
        assert_eq!((&all[0]["type"], &all[0]["response"]["background"]), (&json!("response.created"), &json!(true)));
        assert!(all.iter().enumerate().all(|(at, event)| event["sequence_number"] == at), "{all:?}");
        let done = all.last().unwrap();
        assert_eq!((&done["type"], text_of(&done["response"])), (&json!("response.completed"), &json!(answer_text())));
        let id = done["response"]["id"].as_str().unwrap();
        assert_eq!(json_of(&ask(&world, "GET", id).await), done["response"]);
        let again = ask(&world, "GET", &format!("{id}?stream=true")).await;
        assert_eq!(events(&again), all, "the very events");
        assert_eq!(world.records().iter().filter(|record| record.usage.is_some()).count(), 1);

        // One whose client leaves in its midst.
        let before = world.sent();
        let leaving = pin!(create(&world, json!({"stream": true})));
        assert!(matches!(select(leaving, pin!(world.sleep(Duration::from_secs(4)))).await, Either::Right(_)));
        let listed = json_of(&world.ask("test-key", "GET", "/v1/jobs?limit=1", &[], Bytes::new()).await);
        let id = listed["data"][0]["id"].as_str().unwrap().replace("job_", "resp_bg-");
        assert_eq!(json_of(&ask(&world, "GET", &id).await)["status"], "in_progress");
        let at = world.elapsed();
        let rest = events(&ask(&world, "GET", &format!("{id}?stream=true&starting_after=2")).await);
        assert!(world.elapsed() > at + Duration::from_secs(3), "as they come");
        assert_eq!(rest[0]["sequence_number"], 3);
        assert_eq!(rest.last().unwrap()["type"], "response.completed");
        let numbers = rest.iter().map(|event| event["sequence_number"].as_u64().unwrap());
        assert!(numbers.eq(3..u64::try_from(rest.len()).unwrap() + 3), "none twice, none left out");
        assert_eq!(world.sent(), before + 1);
        assert_eq!(text_of(&ended(&world, &id).await), &json!(answer_text()));
    });
    assert_eq!((world.open_bodies(), world.in_flight()), (0, 0));
}

#[test]
fn who_follows_a_stream_that_is_cancelled_or_deleted_gets_its_end() {
    for (method, rest, last) in [("POST", "/cancel", Some("response.cancelled")), ("DELETE", "", None)] {
        let world = World::new(1, config(""));
        world.serve(|_, _| slow_stream());
        let followed = with_worker(&world, async {
            let followed = create(&world, json!({"stream": true}));
            let ending = async {
                world.sleep(Duration::from_secs(4)).await;
                let listed = json_of(&world.ask("test-key", "GET", "/v1/jobs", &[], Bytes::new()).await);
                let id = listed["data"][0]["id"].as_str().unwrap().replace("job_", "resp_bg-");
                assert_eq!(ask(&world, method, &format!("{id}{rest}")).await.status, 200);
            };
            futures_util::future::join(followed, ending).await.0
        });
        assert!(world.elapsed() < Duration::from_secs(6));
        let events = events(&followed);
        match last {
            Some(last) => assert_eq!(events.last().unwrap()["type"], last),
            None => assert_eq!(events.last().unwrap()["type"], "response.output_text.delta"),
        }
        assert_eq!(world.open_bodies(), 0);
    }
}

#[test]
fn a_response_in_the_background_outlives_its_process_and_is_answered_once() {
    for stream in [false, true] {
        let mut world = World::new(1, config(""));
        world.serve(move |_, _| if stream { slow_stream() } else { good(6_000) });
        let dying = async {
            let made = async {
                create(&world, json!({"stream": stream})).await;
                std::future::pending::<()>().await;
            };
            select(pin!(made), pin!(world.sleep(Duration::from_secs(4)))).await;
            let listed = json_of(&world.ask("test-key", "GET", "/v1/jobs", &[], Bytes::new()).await);
            listed["data"][0]["id"].as_str().unwrap().replace("job_", "resp_bg-")
        };
        let id = with_worker(&world, dying);
        world.restart();
        let done = with_worker(&world, ended(&world, &id));
        assert_eq!((&done["status"], text_of(&done)), (&json!("completed"), &json!(answer_text())));
        assert_eq!(world.sent(), 2, "asked again");
        assert_eq!(world.records().iter().filter(|record| record.usage.is_some()).count(), 1, "charged once");
    }
}

#[test]
fn who_follows_a_run_that_dies_gets_the_whole_answer_of_the_next_one_at_its_end() {
    let world = World::new(1, config(""));
    let other = world.another();
    world.serve(|_, _| slow_stream());
    let followed = world.drive(async {
        let workers = async {
            select(pin!(world.work()), pin!(world.sleep(Duration::from_secs(4)))).await;
            other.work().await;
        };
        match select(pin!(create(&world, json!({"stream": true}))), pin!(workers)).await {
            Either::Left((client, _)) => client,
            Either::Right(((), _)) => unreachable!("a worker has no end"),
        }
    });
    let events = events(&followed);
    let done = events.last().unwrap();
    assert_eq!((&done["type"], text_of(&done["response"])), (&json!("response.completed"), &json!(answer_text())));
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta").count();
    assert!((1..6).contains(&deltas), "those of the first run, and none twice: {deltas}");
    assert_eq!(world.sent(), 2);
}

const ALICE: &str = "[keys.alice]\nsecret = \"alice-key\"\nbudget.total = 1.0\nquota.concurrent_requests = 5\n\
                     [prices.\"p/*\"]\ninput = 2\noutput = 8";

/// What alice's requests have cost, and how many there are now.
fn used_by_alice(world: &World) -> (u64, u64) {
    let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
    let used = world.used(&[("meter/key/alice/total", total), ("meter/key/alice/at-once", Rule::Held)]);
    (used[0], used[1])
}

async fn as_alice(world: &World, method: &str, path: &str, body: Bytes) -> Client {
    world.ask("alice-key", method, path, &[], body).await
}

/// The id of alice's newest answer.
async fn newest(world: &World) -> String {
    let listed = json_of(&as_alice(world, "GET", "/v1/jobs?limit=1", Bytes::new()).await);
    listed["data"][0]["id"].as_str().unwrap().replace("job_", "resp_bg-")
}

#[test]
fn an_answer_that_its_owner_ends_costs_what_had_come_of_it() {
    for (method, rest, far) in
        [("POST", "/cancel", false), ("POST", "/cancel", true), ("DELETE", "", false), ("DELETE", "", true)]
    {
        let world = World::new(1, config(ALICE));
        world.serve(|_, _| slow_stream());
        let another = world.another();
        with_worker(&world, async {
            let body = json!({"model": "p/m", "input": "Hi", "background": true, "stream": true}).to_string();
            let followed = as_alice(&world, "POST", RESPONSES, Bytes::from(body));
            let ending = async {
                world.sleep(Duration::from_millis(6_500)).await;
                let path = format!("{RESPONSES}/{}{rest}", newest(&world).await);
                let by = if far { &another } else { &world };
                assert_eq!(as_alice(by, method, &path, Bytes::new()).await.status, 200);
            };
            futures_util::future::join(followed, ending).await;
            world.sleep(Duration::from_secs(20)).await;
        });
        let told: Vec<_> = world.records().into_iter().filter(|told| told.cost.is_some_and(|cost| cost > 0)).collect();
        assert_eq!((told.len(), told[0].key.as_deref()), (1, Some("alice")), "{method} {far}");
        assert_eq!(told[0].outcome, Outcome::ClientGone, "{method} {far}");
        let cost = told[0].cost.unwrap();
        // "Hello, world " is four tokens; another process is heard of when the lease is renewed.
        let tokens = if far { 5 } else { 4 };
        assert!(cost > tokens * 8_000 && (cost - tokens * 8_000).is_multiple_of(2_000), "{method} {far}: {cost}");
        assert_eq!(used_by_alice(&world), (cost, 0), "{method} {far}");
    }
}

#[test]
fn an_answer_that_its_owner_ends_when_all_of_it_has_come_is_paid_at_once() {
    let world = World::new(1, config(ALICE));
    world.serve(|_, _| slow_stream());
    with_worker(&world, async {
        // Its events are removed while it is ended.
        world.kept().delay("jobb/", Duration::from_secs(2));
        let body = json!({"model": "p/m", "input": "Hi", "background": true, "stream": true}).to_string();
        let followed = as_alice(&world, "POST", RESPONSES, Bytes::from(body));
        let ending = async {
            world.sleep(Duration::from_secs(8)).await;
            assert_eq!(world.open_bodies(), 1);
            while world.open_bodies() > 0 {
                world.sleep(Duration::from_millis(10)).await;
            }
            let path = format!("{RESPONSES}/{}/cancel", newest(&world).await);
            let cancelled = as_alice(&world, "POST", &path, Bytes::new()).await;
            assert_eq!(json_of(&cancelled)["status"], "cancelled");
        };
        futures_util::future::join(followed, ending).await;
        world.sleep(Duration::from_secs(5)).await;
    });
    assert_eq!(used_by_alice(&world), (62_000, 0));
}

#[test]
fn a_background_request_leaves_work_until_its_answer_is_there() {
    let world = World::new(1, config(""));
    world.serve(|_, _| good(5));
    world.drive(async {
        assert!(!world.left_work());
        let id = created(&world).await;
        assert!(world.left_work() && !world.left_work(), "said once");
        assert_eq!(json_of(&ask(&world, "GET", &id).await)["status"], "queued");
        assert!(world.left_work(), "who looks leads to it, too");
        world.work_off().await;
        assert_eq!(json_of(&ask(&world, "GET", &id).await)["status"], "completed");
        assert!(!world.left_work());
    });
}

#[test]
fn a_stream_that_is_too_large_to_keep_costs_what_had_come_of_it_and_is_told_of() {
    let world = World::new(1, config(&format!("max_answer_bytes = \"1KiB\"\n{ALICE}")));
    world.serve(|_, _| slow_stream());
    let response = with_worker(&world, async {
        let body = json!({"model": "p/m", "input": "Hi", "background": true, "stream": true}).to_string();
        as_alice(&world, "POST", RESPONSES, Bytes::from(body)).await;
        let path = format!("{RESPONSES}/{}", newest(&world).await);
        json_of(&as_alice(&world, "GET", &path, Bytes::new()).await)
    });
    assert_eq!((&response["status"], world.sent(), world.open_bodies()), (&json!("failed"), 1, 0));
    let told: Vec<_> = world.records().into_iter().filter(|told| told.cost.is_some_and(|cost| cost > 0)).collect();
    assert_eq!((told.len(), told[0].key.as_deref()), (1, Some("alice")));
    assert_eq!(used_by_alice(&world), (told[0].cost.unwrap(), 0));
}
