//! Hedged requests, spilling, and a provider's keys, over the simulated world.

use crate::world;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use witgate_config::Config;
use world::{Act, Client, Script, World, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";

fn config(more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[limits]\nmax_concurrent_requests = 10000\n[timeouts]\nfirst_token = \
         \"10s\"\nidle = \"5s\"\ntotal = \"60s\"\n{more}"
    );
    Config::from_toml(&text, "hedge.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A provider `p` with these endpoints, and these keys besides.
fn endpoints(names: &str, more: &str) -> String {
    let urls: Vec<_> = names.chars().map(|name| format!("\"http://{name}/v1\"")).collect();
    format!("[providers.p]\nadapter = \"openai\"\nendpoints = [{}]\n{more}\n", urls.join(", "))
}

fn good(ms: u64, stream: bool) -> Script {
    let (kind, body) = match stream {
        true => ("text/event-stream", Bytes::from(text_stream())),
        false => ("application/json", whole_answer()),
    };
    Script::new(vec![(ms, Act::Head(200, kind)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn error(ms: u64, status: u16, headers: &[(&'static str, &str)]) -> Script {
    let mut all = vec![("content-type", "application/json".to_owned())];
    all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let body = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    Script::new(vec![(ms, Act::HeadWith(status, all)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn ask(world: &World, model: &str) -> Client {
    world.request(CHAT, chat_body(model, false), None)
}

/// Twenty requests that are served at once, so that a hedge is within its bound.
fn warm(world: &World) {
    (0..20).for_each(|_| assert_eq!(ask(world, "p/m").status, 200));
}

#[test]
fn a_second_endpoint_is_asked_when_the_first_is_slow_and_the_first_good_answer_counts() {
    let world = World::new(1, config(&endpoints("ab", "hedge = { after = \"800ms\" }")));
    let (slow, shared) = switch(1);
    world.serve(move |host, _| good(if host == "a" { shared.get() } else { 100 }, false));
    warm(&world);
    slow.set(5_000);
    let begun = world.elapsed();
    let client = ask(&world, "p/m");
    assert_eq!((client.status, client.header("x-witgate-attempts")), (200, Some("2")));
    assert_eq!(world.elapsed() - begun, Duration::from_millis(900));
    assert_eq!(&world.hosts_asked()[20..], ["a", "b"]);
    let record = world.records().pop().unwrap();
    assert_eq!((record.hedged, record.attempts, record.provider.as_deref()), (Some(true), 2, Some("p")));
    assert_eq!(record.usage.and_then(|usage| usage.output_tokens), Some(7), "the other one's is not known");
    assert_eq!((world.open_bodies(), world.in_flight()), (0, 0), "the other one was cancelled");
    // The first one is faster after all.
    slow.set(850);
    (0..20).for_each(|_| drop(ask(&world, "p/n")));
    let hedged: Vec<_> = world.records()[21..].iter().filter_map(|record| record.hedged).collect();
    assert_eq!((hedged, world.open_bodies()), (vec![false], 0));
}

#[test]
fn a_hedge_is_no_more_than_its_share_of_the_requests_and_of_the_retry_budget() {
    for (percent, budget, least, most) in [(5, 20, 45, 50), (100, 20, 200, 215), (100, 0, 0, 0)] {
        let more = format!(
            "strategy = \"round-robin\"\nhedge = {{ after = \"50ms\", max_percent = {percent} }}\nretry = {{ budget = \
             {budget}, reserve = 10, attempts = 1 }}"
        );
        let more = if budget == 0 { more.replace("reserve = 10", "reserve = 0") } else { more };
        let world = World::new(1, config(&endpoints("ab", &more)));
        world.serve(|_, _| good(100, false));
        let requests = (0..1_000).map(|i| (Duration::from_millis(i * 5), "p/m".to_owned(), false)).collect();
        assert!(world.load(requests).iter().all(|client| client.status == 200));
        let hedges = world.sent() - 1_000;
        assert!((least..=most).contains(&hedges), "{percent} {budget}: {hedges}");
        let told = world.records().iter().filter(|record| record.hedged.is_some()).count();
        assert_eq!(told, hedges);
    }
}

#[test]
fn a_percentile_is_that_of_the_answers_of_late() {
    let world = World::new(1, config(&endpoints("ab", "hedge = { after = \"p95\", max_percent = 100 }")));
    let (slow, shared) = switch(0);
    let turn = Cell::new(0_u64);
    world.serve(move |host, _| {
        turn.set(turn.get() + 1);
        good(if host == "a" { 100 + turn.get() % 50 + shared.get() } else { 1 }, false)
    });
    (0..19).for_each(|_| drop(ask(&world, "p/m")));
    slow.set(1_000);
    ask(&world, "p/m");
    assert_eq!(world.sent_to("b"), 0, "nothing is known yet");
    slow.set(0);
    (0..200).for_each(|_| drop(ask(&world, "p/m")));
    let before = world.sent_to("b");
    slow.set(5_000);
    let begun = world.elapsed();
    assert_eq!(ask(&world, "p/m").status, 200);
    let took = world.elapsed() - begun;
    assert_eq!(world.sent_to("b"), before + 1);
    assert!((130..200).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_stream_is_never_hedged() {
    let world = World::new(1, config(&endpoints("ab", "hedge = { after = \"10ms\", max_percent = 100 }")));
    world.serve(|_, _| good(500, true));
    for _ in 0..30 {
        assert_eq!(world.request(CHAT, chat_body("p/m", true), None).status, 200);
    }
    assert_eq!(world.sent_to("b"), 0);
}

#[test]
fn where_one_of_the_two_fails_the_other_one_s_answer_counts() {
    for (first, second, status, host) in [
        (error(400, 500, &[]), good(600, false), 200, "b"),
        (good(600, false), error(100, 500, &[]), 200, "a"),
        (error(400, 500, &[]), error(300, 503, &[]), 503, ""),
    ] {
        let more = "hedge = { after = \"200ms\" }\nretry = { attempts = 1, failover = 0 }";
        let world = World::new(1, config(&endpoints("ab", more)));
        let (bad, shared) = switch(false);
        world.serve(move |host, _| match (shared.get(), host) {
            (false, _) => good(1, false),
            (true, "a") => first.clone(),
            (true, _) => second.clone(),
        });
        warm(&world);
        bad.set(true);
        let client = ask(&world, "p/m");
        assert_eq!(client.status, status, "{}", String::from_utf8_lossy(&client.body));
        let record = world.records().pop().unwrap();
        assert_eq!((record.hedged, record.attempts), (Some(host == "b"), 2));
        assert_eq!((world.open_bodies(), world.sent()), (0, 22));
    }
}

#[test]
fn a_hedge_goes_to_another_target_where_there_is_no_other_endpoint() {
    let text = "[providers.a]\nadapter = \"openai\"\nendpoint = \"http://a/v1\"\n[providers.b]\nadapter = \
                \"openai\"\nendpoint = \"http://b/v1\"\n[models.m]\ntargets = [\"a/x\", \"b/y\"]\nhedge = { after = \"300ms\", \
                max_percent = 100 }\n";
    let world = World::new(1, config(text));
    world.serve(|host, _| if host == "a" { Script::new(vec![(1, Act::Stall)]) } else { good(50, false) });
    for _ in 0..3 {
        let client = ask(&world, "m");
        assert_eq!((client.status, client.header("x-witgate-provider")), (200, Some("b")));
    }
    let models: Vec<_> = world.requests_sent().iter().map(|sent| model_of(&sent.body)).collect();
    assert_eq!(models, ["x", "y", "x", "y", "x", "y"]);
    assert_eq!(world.elapsed(), Duration::from_millis(3 * 350));
}

fn model_of(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body).unwrap()["model"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_that_leaves_cancels_both() {
    let world = World::new(1, config(&endpoints("ab", "hedge = { after = \"100ms\", max_percent = 100 }")));
    world.serve(|_, _| good(1_000, false));
    assert!(world.request(CHAT, chat_body("p/m", false), Some(Duration::from_millis(500))).left);
    assert_eq!((world.sent(), world.open_bodies(), world.in_flight()), (2, 0, 0));
}

/// Whatever the two do: one answer, one log line, nothing left open.
#[test]
fn every_hedged_request_ends_in_exactly_one_way() {
    let mut won = 0;
    for seed in 0..500 {
        let world =
            Rc::new(World::new(seed, config(&endpoints("ab", "hedge = { after = \"400ms\", max_percent = 100 }"))));
        let random = Rc::clone(&world);
        world.serve(move |_, _| Script::random(&random, false));
        let requests = (0..10).map(|_| (Duration::from_millis(world.below(9_000)), "p/m".to_owned(), false)).collect();
        let clients = world.load(requests);
        assert!(clients.iter().all(|client| client.status >= 200), "seed {seed}");
        assert_eq!(world.records().len(), clients.len(), "seed {seed}");
        assert_eq!((world.open_bodies(), world.in_flight()), (0, 0), "seed {seed}");
        won += world.records().iter().filter(|record| record.hedged == Some(true)).count();
    }
    assert!(won > 100, "{won}");
}

/// A switch that the test and the simulated servers share.
fn switch<T: Copy + 'static>(value: T) -> (Rc<Cell<T>>, Rc<Cell<T>>) {
    let cell = Rc::new(Cell::new(value));
    (Rc::clone(&cell), cell)
}

const SPILL: &str = "[providers.a]\nadapter = \"openai\"\nendpoint = \"http://a/v1\"\nconcurrency = { max = 2, wait = \"9s\", \
                     spill = true }\n[providers.b]\nadapter = \"openai\"\nendpoint = \"http://b/v1\"\nconcurrency = { max = 3 \
                     }\n[models.m]\ntargets = [\"a/x\", \"b/y\"]\n";

#[test]
fn where_a_request_would_wait_the_next_target_with_a_place_is_asked_first() {
    for (spill, at_b, took) in [(true, 3, 1_000), (false, 0, 3_000)] {
        let text = SPILL.replace("spill = true", &format!("spill = {spill}"));
        let world = World::new(1, config(&text));
        world.serve(|_, _| good(1_000, false));
        let requests = (0..5).map(|i| (Duration::from_millis(i), "m".to_owned(), false)).collect();
        assert!(world.load(requests).iter().all(|client| client.status == 200));
        assert_eq!((world.sent_to("b"), world.most_at("a")), (at_b, 2));
        assert!(world.elapsed().as_millis() <= took + 5, "{:?}", world.elapsed());
    }
    // All are full: they wait at the one whose turn it is.
    let world = World::new(1, config(&SPILL.replace("max = 3", "max = 3, spill = true")));
    world.serve(|_, _| good(1_000, false));
    let requests = (0..7).map(|i| (Duration::from_millis(i), "m".to_owned(), false)).collect();
    assert!(world.load(requests).iter().all(|client| client.status == 200));
    assert_eq!((world.sent_to("a"), world.sent_to("b")), (4, 3));
}

#[test]
fn a_target_that_is_not_well_is_asked_after_one_that_is_full() {
    let text =
        SPILL.replace("[models.m]", "health = { failures = 1, rest = \"60s\" }\nretry = { attempts = 1 }\n[models.m]");
    let world = World::new(1, config(&text));
    world.serve(|host, _| if host == "a" { good(1_000, false) } else { error(1, 500, &[]) });
    assert_ne!(ask(&world, "b/y").status, 200);
    let requests = (0..4).map(|_| (world.elapsed(), "m".to_owned(), false)).collect();
    assert!(world.load(requests).iter().all(|client| client.status == 200));
    assert_eq!((world.sent_to("a"), world.sent_to("b")), (4, 1));
}

/// The key of each request that was sent.
fn keys_used(world: &World) -> Vec<String> {
    let sent = world.requests_sent();
    sent.iter()
        .map(|sent| {
            let (_, value) = sent.headers.iter().find(|(name, _)| name == "authorization").unwrap();
            value.strip_prefix("Bearer sk-").unwrap().to_owned()
        })
        .collect()
}

/// A provider with keys, and a server that answers each key as it likes.
fn with_keys(more: &str, mut server: impl FnMut(&str) -> Script + 'static) -> World {
    let keys = "[providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\napi_keys = [\"sk-first\", \"sk-second\", \
                \"sk-third\"]\n";
    let world = World::new(1, config(&format!("{keys}{more}")));
    world.serve_requests(move |request| {
        let key = request.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
        server(key.and_then(|key| key.strip_prefix("Bearer sk-")).unwrap_or_default())
    });
    world
}

#[test]
fn keys_take_turns() {
    let world = with_keys("", |_| good(1, false));
    (0..4).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(keys_used(&world), ["first", "second", "third", "first"]);
}

#[test]
fn a_key_that_is_refused_rests_and_the_next_one_is_tried_at_once() {
    for status in [401, 402, 403] {
        let world = with_keys("retry = { attempts = 1, failover = 0, budget = 0, reserve = 0 }", move |key| {
            if key == "second" { error(1, status, &[]) } else { good(1, false) }
        });
        (0..8).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200, "{status}"));
        assert_eq!(keys_used(&world).iter().filter(|key| *key == "second").count(), 1, "{status}: it rests");
        assert!(world.elapsed() < Duration::from_millis(50));
        let client = &world.records()[1];
        assert_eq!(client.attempts, 2);
        // Each rest is twice as long as the one before.
        for (pass, asked) in [(11, 2), (11, 2), (11, 3), (20, 3), (25, 4)] {
            world.pass(Duration::from_secs(pass));
            (0..3).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
            assert_eq!(keys_used(&world).iter().filter(|key| *key == "second").count(), asked, "{status}");
        }
        let warned = world.warnings();
        assert!(warned.iter().any(|text| text.contains("key: 2")), "{warned:?}");
        assert!(warned.iter().all(|text| !text.contains("sk-") && !text.contains("second")), "{warned:?}");
    }
}

#[test]
fn a_key_that_is_throttled_rests_as_long_as_it_was_told_and_its_endpoint_does_not() {
    let world =
        with_keys("", |key| if key == "first" { error(1, 429, &[("retry-after", "30")]) } else { good(1, false) });
    (0..6).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(keys_used(&world), ["first", "second", "third", "second", "third", "second", "third"]);
    world.pass(Duration::from_secs(29));
    (0..3).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(keys_used(&world).iter().filter(|key| *key == "first").count(), 1);
    world.pass(Duration::from_secs(2));
    (0..3).for_each(|_| assert_eq!(ask(&world, "p/m").status, 200));
    assert_eq!(keys_used(&world).iter().filter(|key| *key == "first").count(), 2);
}

#[test]
fn where_all_keys_are_refused_the_client_is_told_and_each_was_tried_once() {
    let world = with_keys("", |_| error(1, 401, &[]));
    let client = ask(&world, "p/m");
    assert_eq!((client.status, world.sent()), (502, 3));
    let text = String::from_utf8(client.body).unwrap();
    assert!(!text.contains("sk-") && text.contains("\"attempts\""), "{text}");
    // All rest: the one that rests shortest is asked all the same, and no other one.
    assert_eq!((ask(&world, "p/m").status, world.sent()), (502, 4));
}

#[test]
fn a_single_key_that_is_refused_rests_no_endpoint_and_other_targets_are_asked_first() {
    let text = "[providers.a]\nadapter = \"openai\"\nendpoints = [\"http://a/v1\", \"http://b/v1\"]\napi_key = \
                \"sk-one\"\nhealth = { failures = 1 }\n[providers.c]\nadapter = \"openai\"\nendpoint = \
                \"http://c/v1\"\n[models.m]\ntargets = [\"a/x\", \"c/y\"]\n";
    let world = World::new(1, config(text));
    let (refuses, shared) = switch(true);
    world.serve(move |host, _| if shared.get() && host != "c" { error(1, 403, &[]) } else { good(1, false) });
    assert_eq!(ask(&world, "a/x").status, 502);
    assert_eq!(world.hosts_asked(), ["a"], "another endpoint would refuse it too");
    (0..3).for_each(|_| assert_eq!(ask(&world, "m").status, 200));
    assert_eq!(world.hosts_asked(), ["a", "c", "c", "c"]);
    refuses.set(false);
    assert_eq!(ask(&world, "a/x").status, 200);
    assert_eq!(world.hosts_asked().last().map(String::as_str), Some("a"), "its endpoint is well");
    assert_eq!(ask(&world, "m").status, 200);
    assert_eq!(world.hosts_asked().last().map(String::as_str), Some("a"), "and so is the key");
}

/// What the backend says of the wait counts for each of its spellings, and for retries and rests alike.
#[test]
fn bed_r4_a_throttled_endpoint_gets_nothing_before_its_time_however_it_says_so() {
    for (header, value) in
        [("retry-after-ms", "20000"), ("retry-after", "20"), ("retry-after", "Tue, 14 Nov 2023 22:13:40 GMT")]
    {
        let world = World::new(1, config(&endpoints("ab", "strategy = \"round-robin\"")));
        let times = Rc::new(RefCell::new(Vec::new()));
        let shared = Rc::clone(&times);
        world.serve(move |host, now| {
            if host == "b" {
                return good(1, false);
            }
            shared.borrow_mut().push(now);
            if shared.borrow().len() == 1 { error(1, 429, &[(header, value)]) } else { good(1, false) }
        });
        while world.elapsed() < Duration::from_secs(30) {
            assert_eq!(ask(&world, "p/m").status, 200, "{header}");
            world.pass(Duration::from_millis(700));
        }
        let second = times.borrow()[1];
        assert!((19_000..22_500).contains(&second.as_millis()), "{header}: {second:?}");
    }
}
