//! Routing and resilience over the simulated world: endpoints, targets, retries, health, queues. From seeds, as `sim.rs`.

use crate::world;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use witgate_config::Config;
use world::{Act, Client, Script, World, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";

/// A configuration whose one key is the simulated clients'; `more` has providers and models.
fn config(more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[limits]\nmax_concurrent_requests = 100000\n[timeouts]\nconnect = \
         \"1s\"\nfirst_token = \"10s\"\nidle = \"5s\"\ntotal = \"60s\"\n{more}"
    );
    Config::from_toml(&text, "policy.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A provider `p` with the endpoints `http://a`, `http://b`, …, and these keys besides.
fn endpoints(names: &str, more: &str) -> String {
    let urls: Vec<_> = names.chars().map(|name| format!("\"http://{name}/v1\"")).collect();
    format!("[providers.p]\nadapter = \"openai\"\nendpoints = [{}]\n{more}\n", urls.join(", "))
}

/// Single providers of these names.
fn providers(names: &[&str]) -> String {
    names.iter().map(|n| format!("[providers.{n}]\nadapter = \"openai\"\nendpoint = \"http://{n}/v1\"\n")).collect()
}

fn good(ms: u64, stream: bool) -> Script {
    let (kind, body) = match stream {
        true => ("text/event-stream", Bytes::from(text_stream())),
        false => ("application/json", whole_answer()),
    };
    Script::new(vec![(ms, Act::Head(200, kind)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn error(status: u16, headers: &[(&'static str, &str)]) -> Script {
    error_with(status, headers, r#"{"error":{"message":"no","type":"x","code":null}}"#)
}

fn error_with(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Script {
    let mut all = vec![("content-type", "application/json".to_owned())];
    all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let body = Bytes::from_static(body.as_bytes());
    Script::new(vec![(1, Act::HeadWith(status, all)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn refuse() -> Script {
    Script::new(vec![(1, Act::Refuse)])
}

fn ask(world: &World, model: &str) -> Client {
    world.request(CHAT, chat_body(model, false), None)
}

fn json(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap()
}

/// A switch that the test and the simulated servers share.
fn switch<T: Copy + 'static>(value: T) -> (Rc<Cell<T>>, Rc<Cell<T>>) {
    let cell = Rc::new(Cell::new(value));
    (Rc::clone(&cell), cell)
}

const ROTATE: &str =
    "strategy = \"round-robin\"\nhealth = { failures = 1, rest = \"60s\" }\nretry = { attempts = 1, failover = 0 }";

#[test]
fn inv_6_endpoints_rotate_in_order() {
    let world = World::new(1, config(&endpoints("abc", ROTATE)));
    world.serve(|_, _| good(1, false));
    (0..4).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(world.hosts_asked(), ["a", "b", "c", "a"]);
}

#[test]
fn inv_7_a_failed_endpoint_rests_for_60_s_and_a_success_clears_it() {
    for failure in [
        refuse as fn() -> Script,
        || error(500, &[]),
        || error(503, &[]),
        || Script::new(vec![(1, Act::ConnectTimeout)]),
    ] {
        let world = World::new(1, config(&endpoints("ab", ROTATE)));
        let (bad, shared) = switch(true);
        world.serve(move |host, _| if host == "a" && shared.get() { failure() } else { good(1, false) });
        assert_ne!(ask(&world, "p/m").status, 200);
        let rested = world.elapsed();
        bad.set(false);
        while world.elapsed() < rested + Duration::from_secs(59) {
            assert_eq!(ask(&world, "p/m").status, 200);
            world.pass(Duration::from_secs(7));
        }
        assert_eq!(world.sent_to("a"), 1, "it rests");
        world.pass(Duration::from_secs(5));
        (0..4).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
        assert_eq!(world.sent_to("a"), 3, "one found out, and then it takes its turn again");
    }
}

#[test]
fn inv_7_what_is_the_request_s_own_fault_is_not_the_endpoint_s() {
    let world = World::new(1, config(&endpoints("ab", ROTATE)));
    world.serve(|_, _| error(400, &[]));
    (0..4).for_each(|_| assert_eq!(ask(&world, "p/m").status, 400));
    assert_eq!(world.hosts_asked(), ["a", "b", "a", "b"]);
}

#[test]
fn inv_8_where_all_rest_the_next_in_rotation_is_used_all_the_same() {
    let world = World::new(1, config(&endpoints("abc", ROTATE)));
    let (bad, shared) = switch(true);
    world.serve(move |_, _| if shared.get() { refuse() } else { good(1, false) });
    (0..5).for_each(|_| assert_eq!(ask(&world, "p/m").status, 502));
    assert_eq!(world.hosts_asked(), ["a", "b", "c", "a", "b"]);
    bad.set(false);
    assert_eq!(ask(&world, "p/m").status, 200);
    (0..3).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(world.hosts_asked()[5..], ["c", "c", "c", "c"], "it alone is well");
}

#[test]
fn inv_9_failover_within_one_request_is_bounded_and_can_be_switched_off() {
    for (failover, asked, status) in [(0, 1, 502), (1, 2, 502), (2, 3, 200)] {
        let more = format!("retry = {{ attempts = 1, failover = {failover} }}");
        let world = World::new(1, config(&endpoints("abcd", &more)));
        world.serve(|host, _| if host < "c" { refuse() } else { good(1, false) });
        assert_eq!(ask(&world, "p/m").status, status);
        assert_eq!(world.sent(), asked);
        assert!(world.elapsed() < Duration::from_millis(50), "at once: {:?}", world.elapsed());
    }
}

#[test]
fn bed_r4_a_failure_that_may_pass_is_tried_again_after_a_wait_with_chance_in_it() {
    let mut waits = Vec::new();
    for seed in 0..20 {
        let world = World::new(seed, config(&format!("{}[retry]\nattempts = 3", providers(&["p"]))));
        let times = Rc::new(RefCell::new(Vec::new()));
        let shared = Rc::clone(&times);
        world.serve(move |_, now| {
            shared.borrow_mut().push(now);
            if shared.borrow().len() < 3 { error(503, &[]) } else { good(1, false) }
        });
        let client = ask(&world, "p/m");
        assert_eq!((client.status, client.header("x-witgate-attempts")), (200, Some("3")));
        let times = times.borrow();
        let (first, second) = (times[1] - times[0], times[2] - times[1]);
        assert!((126..=251).contains(&first.as_millis()) && (251..=501).contains(&second.as_millis()), "{times:?}");
        waits.push(first);
    }
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");
}

#[test]
fn bed_r4_what_the_backend_says_of_the_wait_counts() {
    // The simulated world begins at Tue, 14 Nov 2023 22:13:20 GMT.
    for (header, value, least) in [
        ("retry-after-ms", "1500", 1_500),
        ("retry-after", "2", 2_000),
        ("retry-after", "Tue, 14 Nov 2023 22:13:23 GMT", 2_999),
    ] {
        let world = World::new(1, config(&providers(&["p"])));
        let (count, shared) = switch(0);
        world.serve(move |_, _| {
            shared.set(shared.get() + 1);
            if shared.get() == 1 { error(429, &[(header, value)]) } else { good(1, false) }
        });
        assert_eq!(ask(&world, "p/m").status, 200);
        let took = world.elapsed().as_millis();
        assert!(count.get() == 2 && (least..least + 130).contains(&took), "{header}: {took}");
    }
    // Longer than max_backoff: the client is told how long.
    let world = World::new(1, config(&providers(&["p"])));
    world.serve(|_, _| error(429, &[("retry-after", "7")]));
    let client = ask(&world, "p/m");
    assert_eq!((client.status, client.header("retry-after"), world.sent()), (429, Some("7"), 1));
}

#[test]
fn each_target_of_a_group_is_tried_again_after_its_own_wait() {
    let text = format!("{}[models.m]\ntargets = [\"a/x\", \"b/y\"]\n[retry]\nattempts = 3\n", providers(&["a", "b"]));
    let world = World::new(1, config(&text));
    let (asked, times) = (Rc::new(RefCell::new(Vec::new())), Cell::new(0));
    let seen = Rc::clone(&asked);
    world.serve(move |host, now| {
        seen.borrow_mut().push((host.to_owned(), now));
        match host {
            "a" if times.replace(1) == 0 => error(429, &[("retry-after", "3")]),
            "a" => good(1, false),
            _ => error(500, &[]),
        }
    });
    assert_eq!(ask(&world, "m").status, 200);
    let asked = asked.borrow();
    let hosts: Vec<_> = asked.iter().map(|(host, _)| host.as_str()).collect();
    assert_eq!(hosts, ["a", "b", "b", "b", "a"]);
    assert!(asked[3].1 < Duration::from_secs(2) && asked[4].1 >= Duration::from_secs(3), "{asked:?}");
}

#[test]
fn bed_r4_the_backend_says_whether_to_try_again() {
    for (status, should, sent) in [(503, "false", 1), (400, "true", 2), (400, "false", 1)] {
        let world = World::new(1, config(&providers(&["p"])));
        world.serve(move |_, _| error(status, &[("x-should-retry", should)]));
        assert_eq!(ask(&world, "p/m").status, status);
        assert_eq!(world.sent(), sent, "{status} {should}");
    }
}

#[test]
fn bed_r4_no_try_begins_that_cannot_end_inside_the_total_timeout() {
    let more = "timeouts.total = \"3s\"\nretry = { attempts = 9, backoff = \"1s\", max_backoff = \"1s\" }";
    let world = World::new(1, config(&endpoints("a", more)));
    world.serve(|_, _| error(503, &[]));
    assert_eq!(ask(&world, "p/m").status, 503);
    assert!(world.elapsed() <= Duration::from_secs(3), "{:?}", world.elapsed());
    assert!((3..=6).contains(&world.sent()), "{}", world.sent());
}

#[test]
fn bed_r9_regions_are_asked_in_order_with_the_model_s_name_in_each() {
    let text = "[providers.aws]\nadapter = \"bedrock\"\nsecrets = { aws_access_key_id = \"A\", aws_secret_access_key = \
                \"S\" }\n[models.m]\ntargets = [{ provider = \"aws\", model = \"us.anthropic.claude-3-haiku-20240307-v1:0\", \
                regions = [\"us-east-1\", { region = \"eu-west-1\", model = \"eu.anthropic.claude-3-haiku-20240307-v1:0\" }] \
                }]\n[health]\nfailures = 1\n[retry]\nattempts = 1\n";
    let world = World::new(1, config(text));
    world.serve(|_, _| refuse());
    assert_eq!(ask(&world, "m").status, 502);
    let urls: Vec<_> = world.requests_sent().iter().map(|request| request.url.clone()).collect();
    assert!(urls[0].starts_with("https://bedrock-runtime.us-east-1.") && urls[0].contains("/us.anthropic"), "{urls:?}");
    assert!(urls[1].starts_with("https://bedrock-runtime.eu-west-1.") && urls[1].contains("/eu.anthropic"), "{urls:?}");
    assert_eq!(urls.len(), 2);
}

#[test]
fn a_region_that_rests_is_asked_after_one_that_is_well() {
    let text = "[providers.aws]\nadapter = \"bedrock\"\nsecrets = { aws_access_key_id = \"A\", aws_secret_access_key = \
                \"S\" }\n[models.m]\ntargets = [{ provider = \"aws\", model = \"amazon.nova-lite-v1:0\", regions = [\"us-east-1\", \
                \"us-west-2\"] }]\n[health]\nfailures = 1\n[retry]\nattempts = 1\n";
    let world = World::new(1, config(text));
    let answer = r#"{"output":{"message":{"role":"assistant","content":[{"text":"a"}]}},"stopReason":"end_turn","usage":
                     {"inputTokens":1,"outputTokens":1,"totalTokens":2}}"#;
    world.serve(move |host, _| if host.contains("us-east-1") { refuse() } else { error_with(200, &[], answer) });
    for _ in 0..3 {
        assert_eq!(ask(&world, "m").status, 200);
    }
    let east = world.hosts_asked().iter().filter(|host| host.contains("us-east-1")).count();
    assert_eq!((east, world.sent()), (1, 4));
}

#[test]
fn strategies_of_a_model_choose_the_first_target_and_the_others_follow() {
    let names = ["a", "b", "c"];
    let of = |strategy: &str| {
        let text = format!(
            "{}[models.m]\nstrategy = \"{strategy}\"\ntargets = [\"a/m\", {{ provider = \"b\", model = \"m\", weight = 3 }}, \
             \"c/m\"]\n",
            providers(&names)
        );
        let world = World::new(5, config(&text));
        world
            .serve(|host, _| if host == "c" { error(500, &[]) } else { good(if host == "a" { 20 } else { 5 }, false) });
        (0..300).for_each(|_| assert_eq!(ask(&world, "m").status, 200));
        names.map(|name| world.sent_to(name))
    };
    assert_eq!(of("ordered"), [300, 0, 0]);
    let [a, b, c] = of("round-robin");
    assert!(a > 100 && b > 90 && c >= 3, "{a} {b} {c}: c fails, and its requests go on to a");
    let [a, b, _] = of("weighted");
    assert!(b > a * 2 && a > 40, "{a} {b}");
    let [a, b, _] = of("latency");
    assert!(b > a, "{a} {b}");
}

#[test]
fn least_in_flight_and_latency_keep_away_from_a_slow_endpoint() {
    for strategy in ["least-in-flight", "latency"] {
        let world = World::new(3, config(&endpoints("ab", &format!("strategy = \"{strategy}\""))));
        world.serve(|host, _| good(if host == "a" { 2_000 } else { 20 }, false));
        let requests = (0..200).map(|i| (Duration::from_millis(i * 10), "p/m".to_owned(), false)).collect();
        assert!(world.load(requests).iter().all(|client| client.status == 200));
        assert!(
            world.sent_to("a") * 5 < world.sent_to("b"),
            "{strategy}: {} {}",
            world.sent_to("a"),
            world.sent_to("b")
        );
    }
}

#[test]
fn a_sticky_header_keeps_a_session_at_its_endpoint_until_that_rests() {
    let more = "sticky = \"header:x-session\"\nstrategy = \"round-robin\"\nhealth.failures = 1";
    let world = World::new(1, config(&endpoints("abcd", more)));
    let (bad, shared) = switch(' ');
    world.serve(move |host, _| if host.starts_with(shared.get()) { refuse() } else { good(1, false) });
    let ask = |session: &str| {
        let client = world.call("POST", CHAT, &[("x-session", session)], chat_body("p/m", false));
        assert_eq!(client.status, 200);
        world.hosts_asked().pop().unwrap()
    };
    let sessions: Vec<_> = (0..40).map(|i| i.to_string()).collect();
    let places: Vec<_> = sessions.iter().map(|session| ask(session)).collect();
    for (session, place) in sessions.iter().zip(&places) {
        assert_eq!(ask(session), *place);
    }
    assert!(
        "abcd".chars().all(|name| places.iter().filter(|place| place.starts_with(name)).count() >= 3),
        "{places:?}"
    );
    let gone = &places[0];
    bad.set(gone.chars().next().unwrap());
    for (session, place) in sessions.iter().zip(&places) {
        let now = ask(session);
        assert!(now != *gone && (place == gone || now == *place));
    }
}

#[test]
fn a_prompt_that_does_not_fit_goes_to_the_larger_model_and_a_filter_s_refusal_elsewhere() {
    let text = format!(
        "{}[models.m]\ntargets = [\"small/s\", \"other/s\"]\nfallback = [\"last/l\"]\nfallback_on_context_length = \
         [\"large/l\"]\nfallback_on_content_policy = [\"mild/l\"]\n",
        providers(&["small", "other", "large", "mild", "last"])
    );
    let too_long =
        r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    let filtered = r#"{"error":{"message":"filtered","type":"invalid_request_error","code":"content_filter"}}"#;
    for (body, provider) in [(too_long, "large"), (filtered, "mild")] {
        let world = World::new(1, config(&text));
        world.serve(move |host, _| if host == "small" { error_with(400, &[], body) } else { good(1, false) });
        let client = ask(&world, "m");
        assert_eq!((client.status, client.header("x-witgate-provider")), (200, Some(provider)), "{body}");
        assert_eq!(world.hosts_asked(), ["small", provider]);
    }
    let world = World::new(1, config(&text));
    world.serve(|host, _| if host == "last" { good(1, false) } else { error(500, &[("x-should-retry", "false")]) });
    assert_eq!(ask(&world, "m").status, 200);
    assert_eq!(world.hosts_asked(), ["small", "other", "last"]);
}

#[test]
fn the_client_is_told_what_explains_most_and_of_every_try() {
    let text = format!(
        "{}[models.m]\ntargets = [\"a/x\", \"b/y\", \"c/z\"]\n[retry]\nattempts = 1\n",
        providers(&["a", "b", "c"])
    );
    let world = World::new(1, config(&text));
    world.serve(|host, _| match host {
        "a" => refuse(),
        "b" => error(429, &[("retry-after", "30")]),
        _ => error(401, &[]),
    });
    let client = ask(&world, "m");
    assert_eq!((client.status, client.header("retry-after")), (429, Some("30")));
    let error = &json(&client)["error"];
    assert_eq!(error["provider"], "b");
    assert_eq!(
        error["attempts"],
        serde_json::json!([
            {"provider": "a", "model": "x", "code": "connection_failed"},
            {"provider": "b", "model": "y", "status": 429, "code": "rate_limited"},
            {"provider": "c", "model": "z", "status": 401, "code": "unauthenticated"},
        ])
    );
    assert_eq!(client.header("x-witgate-failed"), Some("a/x:connection_failed, b/y:rate_limited, c/z:unauthenticated"));
    // With one try there is nothing to list.
    let client = ask(&world, "a/x");
    assert!(json(&client)["error"].get("attempts").is_none());
}

#[test]
fn bed_r3_a_burst_of_10_000_never_exceeds_the_limit_and_each_gets_an_answer() {
    for seed in 0..2 {
        let more = "strategy = \"least-in-flight\"\nconcurrency = { max = 20, queue = 4000, wait = \"8s\" }";
        let world = World::new(seed, config(&endpoints("ab", more)));
        let random = Cell::new(seed);
        world.serve(move |_, _| {
            random.set(random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            let random = random.get() >> 33;
            match random % 50 {
                0 => error(429, &[("retry-after", "60")]),
                1 => error(500, &[]),
                _ => good(10 + random % 290, false),
            }
        });
        let burst = (0..10_000).map(|i| (Duration::from_millis(i % 7), "p/m".to_owned(), false)).collect();
        let clients = world.load(burst);
        let mut counts = std::collections::BTreeMap::new();
        for client in &clients {
            assert!(matches!(client.status, 200 | 429 | 500 | 502 | 503), "{}", client.status);
            if matches!(client.status, 429 | 503) {
                assert!(client.header("retry-after").is_some(), "{}", String::from_utf8_lossy(&client.body));
            }
            *counts.entry(client.status).or_insert(0) += 1;
        }
        assert_eq!(clients.len(), 10_000);
        assert!(world.most_at("a") <= 20 && world.most_at("b") <= 20, "{} {}", world.most_at("a"), world.most_at("b"));
        assert!(world.most_at("a").max(world.most_at("b")) == 20, "the limit is used");
        assert!(counts[&200] > 1_500 && counts[&503] >= 5_900, "{counts:?}");
        assert_eq!((world.open_bodies(), world.in_flight()), (0, 0));
        assert!(world.elapsed() < Duration::from_secs(30), "{:?}", world.elapsed());
    }
}

#[test]
fn a_client_that_leaves_the_queue_makes_room_and_holds_up_nobody() {
    let world = World::new(1, config(&endpoints("a", "concurrency = { max = 1, queue = 2, wait = \"30s\" }")));
    world.serve(|_, _| good(100, false));
    let ms = Duration::from_millis;
    let one = |at: u64, leaves: Option<u64>| (ms(at), leaves.map(ms));
    let clients =
        world.load_leaving("p/m", vec![one(0, None), one(1, Some(50)), one(2, None), one(60, None), one(61, None)]);
    let statuses: Vec<_> = clients.iter().map(|client| (client.status, client.left)).collect();
    assert_eq!(statuses, [(200, false), (0, true), (200, false), (200, false), (503, false)]);
    assert_eq!(json(&clients[4])["error"]["code"], "queue_full");
    assert_eq!((world.most_at("a"), world.elapsed()), (1, ms(300)));
}

/// Several endpoints and targets, each with faults that come and go: no request is lost, none is tried after content, tries
/// are bounded, and the budget holds.
#[test]
fn whatever_the_endpoints_do_every_request_has_its_answer_within_bounds() {
    let mut served = 0;
    for seed in 0..30 {
        let text = format!(
            "{}[providers.q]\nadapter = \"openai\"\nendpoints = [\"http://x/v1\", \"http://y/v1\"]\nstrategy = \
             \"latency\"\n[models.m]\ntargets = [\"p/m\", \"q/m\"]\n[retry]\nattempts = 3\nbudget = 20\nreserve = 10\n",
            endpoints("abc", "strategy = \"round-robin\"\nconcurrency = { max = 8, queue = 50, wait = \"2s\" }")
        );
        let world = Rc::new(World::new(seed, config(&text)));
        // Each host is sound or broken for spans of 4 s; `y` is always sound.
        let broken: Vec<bool> = (0..40).map(|_| world.chance(40)).collect();
        let random = Cell::new(seed);
        world.serve(move |host, now| {
            random.set(random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99));
            let random = random.get() >> 33;
            let span = (now.as_secs() / 4) as usize + host.bytes().map(usize::from).sum::<usize>() * 7;
            if host == "y" || !broken[span % broken.len()] {
                return good(5 + random % 200, false);
            }
            match random % 5 {
                0 => refuse(),
                1 => error(503, &[]),
                2 => error(429, &[("retry-after-ms", "300")]),
                3 => Script::new(vec![(1, Act::Head(200, "application/json")), (3, Act::Break)]),
                _ => error(500, &[]),
            }
        });
        let requests: Vec<_> =
            (0..400).map(|_| (Duration::from_millis(world.below(20_000)), "m".to_owned(), false)).collect();
        let clients = world.load(requests);
        for client in &clients {
            assert_eq!(client.status, 200, "seed {seed}: y is sound: {}", String::from_utf8_lossy(&client.body));
        }
        served += clients.len();
        let records = world.records();
        assert_eq!(records.len(), clients.len(), "one log line for each request");
        // 3 rounds at 2 targets, each with 2 more endpoints at once.
        assert!(records.iter().all(|record| record.attempts <= 18), "seed {seed}");
        assert_eq!((world.open_bodies(), world.in_flight()), (0, 0), "seed {seed}");
        assert!(["a", "b", "c"].iter().all(|host| world.most_at(host) <= 8), "seed {seed}");
        let at = |hosts: &[&str]| hosts.iter().map(|host| world.sent_to(host)).sum::<usize>();
        // A fifth of the requests, and ten in each of the two minutes that are touched.
        let most = clients.len() * 12 / 10 + 20;
        assert!(
            at(&["a", "b", "c"]) <= most && at(&["x", "y"]) <= most,
            "seed {seed}: {} {}",
            at(&["a", "b", "c"]),
            at(&["x", "y"])
        );
    }
    assert_eq!(served, 30 * 400);
}

#[test]
fn in_an_outage_the_budget_bounds_the_extra_load() {
    let more = "retry = { attempts = 5, failover = 5 }\nstrategy = \"round-robin\"";
    let world = World::new(1, config(&endpoints("abc", more)));
    world.serve(|_, _| error(503, &[]));
    let requests = (0..2_000).map(|i| (Duration::from_millis(i * 5), "p/m".to_owned(), false)).collect();
    assert!(world.load(requests).iter().all(|client| client.status == 503));
    assert!((2_300..=2_420).contains(&world.sent()), "{}", world.sent());
}

#[test]
fn another_model_of_a_provider_that_is_down_is_a_further_try_at_it() {
    let text = |more: &str| {
        let retry =
            format!("[retry]\nattempts = 1\nfailover = 0\n{more}\n[models.m]\ntargets = [\"p/a\", \"p/b\", \"p/c\"]\n");
        format!("{}{retry}[models.l]\ntarget = \"p/a\"\nfallback_on_context_length = [\"p/b\"]\n", providers(&["p"]))
    };
    let world = World::new(1, config(&text("")));
    world.serve(|_, _| refuse());
    let requests = (0..2_000).map(|i| (Duration::from_millis(i * 5), "m".to_owned(), false)).collect();
    assert!(world.load(requests).iter().all(|client| client.status == 502));
    assert!((2_300..=2_420).contains(&world.sent()), "{}", world.sent());
    // What one model had enough of, or cannot take, another one of the provider's may: that is no further try.
    let too_long =
        r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    for (model, status, body) in [("m", 429, r#"{"error":{"message":"slow down"}}"#), ("l", 400, too_long)] {
        let world = World::new(1, config(&text("budget = 0\nreserve = 0")));
        world.serve_requests(move |request| match String::from_utf8_lossy(&request.body).contains("\"model\":\"a\"") {
            true => error_with(status, &[], body),
            false => good(1, false),
        });
        (0..5).for_each(|_| assert_eq!(ask(&world, model).status, 200, "{model}"));
        assert_eq!(world.sent(), 10);
    }
}

#[test]
fn a_further_try_that_is_never_made_is_not_counted() {
    let text = format!(
        "{}[retry]\nattempts = 2\nfailover = 0\nbudget = 0\nreserve = 1\n[health]\nrest = \"0s\"\n[models.m]\ntargets = \
         [\"a/x\", \"b/y\"]\n",
        providers(&["a", "b"])
    );
    let world = World::new(1, config(&text));
    let failures = Cell::new(6);
    world.serve(move |host, _| match host {
        "a" if failures.replace(failures.get().max(1) - 1) > 0 => error(503, &[]),
        _ => good(1, false),
    });
    // The other target answers before it would be tried again.
    (0..5).for_each(|_| assert_eq!(ask(&world, "m").status, 200));
    assert_eq!(ask(&world, "a/x").status, 200);
    assert_eq!(world.sent_to("a"), 7);
}

#[test]
fn who_waits_for_a_place_gets_that_of_an_endpoint_that_has_rested_or_was_probed() {
    for (health, watched) in [("rest = \"10s\"", false), ("rest = \"60s\", probe_interval = \"5s\"", true)] {
        let more = format!(
            "strategy = \"round-robin\"\nretry = {{ attempts = 1, failover = 0 }}\nhealth = {{ failures = 1, {health} }}\n\
             concurrency = {{ max = 1, queue = 5, wait = \"50s\" }}"
        );
        let world = World::new(1, config(&endpoints("ab", &more)));
        let down = Cell::new(true);
        world.serve(move |host, _| match host {
            "a" => good(40_000, false),
            _ if down.replace(false) => refuse(),
            _ => good(1, false),
        });
        // One at each endpoint; the third finds the first busy and the second resting.
        let at = |ms| (Duration::from_millis(ms), chat_body("p/m", false), None);
        let requests = vec![at(0), at(10), at(20)];
        let clients = if watched { world.bodies_watched(requests) } else { world.bodies(requests) };
        assert_eq!(clients.iter().map(|client| client.status).collect::<Vec<_>>(), [200, 502, 200]);
        let third = &world.records()[1];
        assert!(third.status == 200 && third.latency < Duration::from_secs(12), "{health}: {third:?}");
    }
}

#[test]
fn a_stream_that_fails_before_its_first_content_goes_to_another_endpoint_and_after_it_never() {
    let stream = text_stream();
    let first_content = String::from_utf8_lossy(&stream).find("Hel").unwrap();
    for (cut, sent) in [(first_content - 20, 2), (first_content + 200, 1)] {
        let world = World::new(1, config(&endpoints("ab", "")));
        let piece = Bytes::copy_from_slice(&stream[..cut]);
        world.serve(move |host, _| match host {
            "a" => Script::new(vec![
                (1, Act::Head(200, "text/event-stream")),
                (1, Act::Bytes(piece.clone())),
                (1, Act::Break),
            ]),
            _ => good(1, true),
        });
        let client = world.request(CHAT, chat_body("p/m", true), None);
        assert_eq!((client.status, world.sent()), (200, sent));
        let body = String::from_utf8(client.body).unwrap();
        assert_eq!(body.contains("[DONE]"), sent == 2, "{body}");
        assert_eq!(body.contains("\"error\""), sent == 1, "{body}");
    }
}

#[test]
fn a_client_is_told_not_to_try_again_where_the_backend_wants_no_other_try() {
    for (should, told, after) in [("false", Some("false"), None), ("true", None, Some("1"))] {
        let world = World::new(1, config(&format!("{}[retry]\nattempts = 1", providers(&["p"]))));
        world.serve(move |_, _| error(429, &[("x-should-retry", should)]));
        let client = ask(&world, "p/m");
        assert_eq!(client.status, 429);
        assert_eq!((client.header("x-should-retry"), client.header("retry-after")), (told, after), "{should}");
    }
}

#[test]
fn a_target_whose_time_has_come_is_asked_also_where_another_one_is_to_be_asked_once_more() {
    let names = ["a", "b", "c"];
    let text =
        format!("{}[models.m]\ntargets = [\"a/x\", \"b/y\", \"c/z\"]\n[retry]\nattempts = 3\n", providers(&names));
    let world = World::new(1, config(&text));
    let asked = RefCell::new([0; 3]);
    world.serve(move |host, _| {
        let mut asked = asked.borrow_mut();
        let count = &mut asked[names.iter().position(|name| *name == host).unwrap()];
        *count += 1;
        match (host, *count) {
            // Until it has answered, the times of both others have come.
            ("c", _) => {
                let mut slow = error(500, &[("x-should-retry", "false")]);
                slow.delay(Duration::from_secs(5));
                slow
            }
            (_, 1) => error(503, &[]),
            ("a", _) => error(400, &[("x-should-retry", "true")]),
            _ => good(1, false),
        }
    });
    assert_eq!(ask(&world, "m").status, 200);
    assert_eq!(world.hosts_asked(), ["a", "b", "c", "a", "b"]);
}
