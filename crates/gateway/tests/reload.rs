//! A configuration that is read anew: what goes on where it was, over the simulated world.

use crate::world;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join, join3, select};
use serde_json::Value;
use witgate_config::Config;
use world::{Act, Client, Script, World, answer_text, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";

fn config(endpoints: &str, provider: &str, more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[timeouts]\nconnect = \"1s\"\nfirst_token = \"30s\"\nidle = \"30s\"\n\
         total = \"60s\"\n[retry]\nattempts = 1\nfailover = 0\n[metrics]\nenabled = true\n{more}\n[providers.p]\n\
         adapter = \"openai\"\nendpoints = [{endpoints}]\n{provider}\n"
    );
    Config::from_toml(&text, "reload.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn good(ms: u64) -> Script {
    Script::new(vec![(ms, Act::Head(200, "application/json")), (0, Act::Bytes(whole_answer())), (0, Act::End)])
}

fn bad() -> Script {
    let body = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    Script::new(vec![(1, Act::Head(500, "application/json")), (0, Act::Bytes(body)), (0, Act::End)])
}

async fn ask(world: &World, stream: bool) -> Client {
    world.ask("test-key", "POST", CHAT, &[], chat_body("p/m", stream)).await
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The value of the first line of the metrics that begins so and has this in it.
fn metric(world: &World, begins: &str, has: &str) -> Option<f64> {
    let client = world.get("/metrics");
    let text = String::from_utf8(client.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(begins) && line.contains(has))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_stream_ends_whole_on_the_old_one_while_the_new_one_serves_already() {
    let old = World::new(1, config("\"http://a/v1\"", "", ""));
    let stream = text_stream();
    let cuts: Vec<_> = (50..stream.len()).step_by(50).collect();
    let mut slow = Script::stream_cut(&stream, &cuts);
    slow.delay(ms(2_000));
    old.upstream(vec![slow, good(5)]);
    let (client, later, between) = old.drive(async {
        let swap = async {
            old.sleep(ms(500)).await;
            let new = old.reloaded(config("\"http://b/v1\"", "", ""));
            let client = ask(&new, false).await;
            (client, old.in_flight())
        };
        let (client, (later, running)) = join(ask(&old, true), swap).await;
        (client, later, running)
    });
    assert_eq!((client.status, later.status), (200, 200), "{client:?} {later:?}");
    assert!(String::from_utf8_lossy(&client.body).ends_with("data: [DONE]\n\n"), "{client:?}");
    assert!(String::from_utf8_lossy(&later.body).contains(&answer_text()[..5]), "{later:?}");
    assert_eq!(between, 1, "the stream was still running");
    assert_eq!(old.hosts_asked(), ["a", "b"]);
    assert_eq!(old.in_flight(), 0);
}

#[test]
fn an_endpoint_that_rests_goes_on_resting_and_one_that_is_new_does_not() {
    let rest = "health = { failures = 1, rest = \"60s\" }\nstrategy = \"round-robin\"";
    let old = World::new(1, config("\"http://a/v1\", \"http://b/v1\"", rest, ""));
    old.serve(|host, _| if host == "a" { bad() } else { good(5) });
    old.drive(async { ask(&old, false).await });
    old.drive(async { ask(&old, false).await });
    assert_eq!((old.sent_to("a"), old.sent_to("b")), (1, 1));
    // In another order, and with another one beside.
    let new = old.reloaded(config("\"http://c/v1\", \"http://b/v1\", \"http://a/v1\"", rest, ""));
    for _ in 0..6 {
        assert_eq!(new.drive(async { ask(&new, false).await }).status, 200);
    }
    assert_eq!((new.sent_to("a"), new.sent_to("b"), new.sent_to("c")), (1, 4, 3));
    new.pass(Duration::from_secs(61));
    new.serve(|_, _| good(5));
    for _ in 0..3 {
        new.drive(async { ask(&new, false).await });
    }
    assert_eq!(new.sent_to("a"), 2, "its rest is over");
}

#[test]
fn a_backend_never_gets_more_requests_at_once_than_it_may_from_both_together() {
    let one = "concurrency = { max = 1, queue = 10, wait = \"20s\" }";
    let old = World::new(1, config("\"http://a/v1\"", one, ""));
    old.serve(|_, _| good(1_000));
    let new = old.reloaded(config("\"http://a/v1\"", &format!("{one}\nhealth = {{ rest = \"7s\" }}"), ""));
    let (a, b, c) = old.drive(async {
        let second = async {
            old.sleep(ms(100)).await;
            ask(&new, false).await
        };
        let third = async {
            old.sleep(ms(200)).await;
            ask(&old, false).await
        };
        join3(ask(&old, false), second, third).await
    });
    assert_eq!([a.status, b.status, c.status], [200; 3], "{a:?} {b:?} {c:?}");
    assert_eq!(old.most_at("a"), 1);
    assert_eq!(old.elapsed(), ms(3_000), "each waited for the one before");
}

#[test]
fn requests_of_both_count_against_the_limit_of_the_gateway() {
    let limit = "[limits]\nmax_concurrent_requests = 1";
    let old = World::new(1, config("\"http://a/v1\"", "", limit));
    old.serve(|_, _| good(1_000));
    let new = old.reloaded(config("\"http://b/v1\"", "", limit));
    let (first, second) = old.drive(async {
        let second = async {
            old.sleep(ms(100)).await;
            ask(&new, false).await
        };
        join(ask(&old, false), second).await
    });
    assert_eq!((first.status, second.status), (200, 503));
    assert_eq!(new.drive(async { ask(&new, false).await }).status, 200);
}

#[test]
fn counters_go_on_and_what_is_configured_no_more_is_told_no_more() {
    let old = World::new(1, config("\"http://a/v1\", \"http://b/v1\"", "", ""));
    old.serve(|_, _| good(5));
    for _ in 0..3 {
        old.drive(async { ask(&old, false).await });
    }
    assert_eq!(metric(&old, "witgate_requests_total", "provider_name=\"p\""), Some(3.0));
    assert_eq!(metric(&old, "witgate_endpoint_up", "endpoint=\"1\""), Some(1.0));
    let new = old.reloaded(config("\"http://a/v1\"", "", ""));
    new.drive(async { ask(&new, false).await });
    assert_eq!(metric(&new, "witgate_requests_total", "provider_name=\"p\""), Some(4.0));
    assert_eq!(metric(&new, "witgate_endpoint_up", "endpoint=\"0\""), Some(1.0));
    assert_eq!(metric(&new, "witgate_endpoint_up", "endpoint=\"1\""), None);
}

#[test]
fn a_kept_answer_is_still_kept_and_a_limit_is_still_used_up() {
    let more = "[cache]\nenabled = true\nwhen = \"all\"\n[keys.k]\nsecret = \"k-key\"\n\
                quota = { requests_per_minute = 2 }";
    let old = World::new(1, config("\"http://a/v1\"", "", more));
    old.serve(|_, _| good(5));
    let ask = |world: &World| world.drive(world.ask("k-key", "POST", CHAT, &[], chat_body("p/m", false)));
    assert_eq!(ask(&old).status, 200);
    let new = old.reloaded(config("\"http://a/v1\"", "timeouts = { idle = \"9s\" }", more));
    let kept = ask(&new);
    assert_eq!((kept.status, kept.header("x-witgate-cache")), (200, Some("hit")));
    assert_eq!(new.sent(), 1);
    assert_eq!(ask(&new).status, 429, "the first one was on the old configuration");
}

#[test]
fn a_providers_key_that_is_refused_rests_on() {
    let keys = |keys: &str| format!("api_keys = [{keys}]\nretry = {{ attempts = 2 }}");
    let old = World::new(1, config("\"http://a/v1\"", &keys("\"k-1\", \"k-2\""), ""));
    old.serve_requests(|request| {
        let wrong = request.headers.iter().any(|(_, value)| value.ends_with("k-1"));
        match wrong {
            true => {
                Script::new(vec![(1, Act::Head(401, "application/json")), (0, Act::Bytes("{}".into())), (0, Act::End)])
            }
            false => good(5),
        }
    });
    let refused = |world: &World| {
        let all = world.requests_sent();
        all.iter().filter(|request| request.headers.iter().any(|(_, value)| value.ends_with("k-1"))).count()
    };
    old.drive(async { ask(&old, false).await });
    old.drive(async { ask(&old, false).await });
    assert_eq!(refused(&old), 1);
    let new = old.reloaded(config("\"http://a/v1\"", &keys("\"k-3\", \"k-1\""), ""));
    for _ in 0..4 {
        assert_eq!(new.drive(async { ask(&new, false).await }).status, 200);
    }
    assert_eq!(refused(&new), 1, "it has another place now, and is the same key");
}

#[test]
fn a_job_that_runs_ends_on_the_old_one_and_both_together_keep_to_the_bound() {
    let jobs = "[jobs]\nconcurrency = 1\nlease = \"9s\"";
    let old = World::new(1, config("\"http://a/v1\"", "", jobs));
    old.serve(|_, _| good(3_000));
    let submit = async |world: &World| {
        let headers = [("prefer", "respond-async")];
        let client = world.ask("test-key", "POST", CHAT, &headers, chat_body("p/m", false)).await;
        assert_eq!(client.status, 202, "{client:?}");
        let job: Value = serde_json::from_slice(&client.body).unwrap();
        job["id"].as_str().unwrap().to_owned()
    };
    let (new, ids) = old.drive(async {
        let work = async {
            // A retired worker ends.
            old.work().await;
            old.elapsed()
        };
        let rest = async {
            let ids = [submit(&old).await, submit(&old).await];
            old.sleep(ms(1_000)).await;
            let new = old.reloaded(config("\"http://b/v1\"", "", jobs));
            let waits = async {
                old.sleep(ms(9_000)).await;
            };
            match select(pin!(new.work()), pin!(waits)).await {
                Either::Left(_) => panic!("the new worker ended"),
                Either::Right(_) => {}
            }
            (new, ids)
        };
        let (ended, (new, ids)) = join(work, rest).await;
        assert!(ended >= ms(3_000) && ended < ms(5_000), "the old worker ended at {ended:?}");
        (new, ids)
    });
    for id in ids {
        let client = new.drive(new.ask("test-key", "GET", &format!("/v1/jobs/{id}"), &[], Bytes::new()));
        let job: Value = serde_json::from_slice(&client.body).unwrap();
        assert_eq!(job["status"], "done", "{job}");
    }
    assert_eq!(old.hosts_asked(), ["a", "b"]);
    assert_eq!((old.most_at("a"), old.most_at("b")), (1, 1));
}

#[test]
fn a_runtime_that_cannot_reload_says_so() {
    let world = World::new(1, config("\"http://a/v1\"", "", "[admin]\nkey = \"admin-key\""));
    let ask = |method: &str, path: &str| world.drive(world.ask("admin-key", method, path, &[], Bytes::new()));
    assert_eq!(ask("POST", "/admin/reload").status, 501);
    assert_eq!(ask("GET", "/admin/configuration").status, 501);
    assert_eq!(ask("GET", "/admin/reload").status, 405);
    let adapters = ask("GET", "/admin/adapters");
    let told: Value = serde_json::from_slice(&adapters.body).unwrap();
    assert_eq!((adapters.status, told), (200, serde_json::json!({"object": "list", "data": []})));
}
