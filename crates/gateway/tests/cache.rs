//! The cache over the simulated world: who is answered from it, with what, and what never gets into it.

use crate::world;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use world::{Act, Client, Script, StoreIs, World, answer_text, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";

/// One provider `p`; the cache is on, with these settings besides; `more` is further text.
fn config_with(cache: &str, more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\", \"other-key\"]\nkeep_alive = \"2s\"\n[limits]\nmax_concurrent_requests = 1000\n\
         [timeouts]\nfirst_token = \"10s\"\nidle = \"5s\"\ntotal = \"60s\"\n[cache]\nenabled = true\n{cache}\n[providers.p]\n\
         adapter = \"openai\"\nendpoint = \"http://p/v1\"\nretry = {{ attempts = 1 }}\n{more}"
    );
    Config::from_toml(&text, "cache.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn world(cache: &str) -> World {
    let world = World::new(1, config_with(cache, ""));
    world.serve(|_, _| good(5));
    world
}

/// A good answer, not streamed, after so many milliseconds.
fn good(ms: u64) -> Script {
    reply(ms, 200, whole_answer())
}

fn reply(ms: u64, status: u16, body: Bytes) -> Script {
    Script::new(vec![(ms, Act::Head(status, "application/json")), (0, Act::Bytes(body)), (0, Act::End)])
}

fn streamed() -> Script {
    let stream = text_stream();
    let cuts: Vec<_> = (100..stream.len()).step_by(100).collect();
    Script::stream_cut(&stream, &cuts)
}

/// A chat with temperature 0, and these members over it.
fn chat(members: Value) -> Bytes {
    let mut body = json!({"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    Bytes::from(body.to_string())
}

fn ask(world: &World, body: Bytes) -> Client {
    world.call("POST", CHAT, &[], body)
}

fn ask_with(world: &World, headers: &[(&str, &str)], body: Bytes) -> Client {
    world.call("POST", CHAT, headers, body)
}

/// What the client was told of the cache.
fn told(client: &Client) -> Option<&str> {
    client.header("x-witgate-cache")
}

fn json_of(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap()
}

#[test]
fn bed_r8_the_same_request_again_is_answered_from_the_cache_and_uses_nothing() {
    let world = world("");
    let first = ask(&world, chat(json!({})));
    assert_eq!((first.status, told(&first), first.header("age")), (200, Some("miss"), None));
    world.pass(Duration::from_secs(7));
    let again = ask(&world, chat(json!({})));
    assert_eq!((again.status, told(&again), again.header("age")), (200, Some("hit"), Some("7")));
    assert_eq!(again.header("x-witgate-provider"), Some("p"));
    let (first, again) = (json_of(&first), json_of(&again));
    assert_eq!((&first["choices"], &first["usage"]), (&again["choices"], &again["usage"]));
    assert_eq!(world.sent(), 1);
    let records = world.records();
    assert_eq!(
        records.iter().map(|record| (record.cached, record.attempts)).collect::<Vec<_>>(),
        [(false, 1), (true, 0)]
    );
    assert_eq!(records[1].usage.as_ref().and_then(|usage| usage.output_tokens), Some(7));
    assert_eq!(records[1].response_model.as_deref(), Some("m"));
}

#[test]
fn bed_r8_what_a_hit_tells_of_tokens_is_not_counted_again() {
    let world = World::new(1, config_with("", "[metrics]\nenabled = true"));
    world.serve(|_, _| good(5));
    (0..5).for_each(|_| assert_eq!(ask(&world, chat(json!({}))).status, 200));
    let metrics = String::from_utf8(world.get("/metrics").body).unwrap();
    let output: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("witgate_tokens") && line.contains("output")).collect();
    assert!(output.len() == 1 && output[0].ends_with(" 7"), "{output:?}");
    assert_eq!(world.records().iter().filter_map(|record| record.used()).count(), 1);
}

#[test]
fn bed_r8_the_key_is_the_content_the_model_and_the_client() {
    let members = [
        json!({}),
        json!({"messages": [{"role": "user", "content": "Ho"}]}),
        json!({"messages": [{"role": "system", "content": "Hi"}]}),
        json!({"temperature": 1, "seed": 4}),
        json!({"temperature": 1, "seed": 5}),
        json!({"max_tokens": 9}),
        json!({"stop": ["x"]}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}),
        json!({"a_member_that_nobody_knows": 1}),
        json!({"a_member_that_nobody_knows": 2}),
        json!({"model": "p/n"}),
    ];
    let world = world("");
    for (at, members) in members.iter().enumerate() {
        assert_eq!(told(&ask(&world, chat(members.clone()))), Some("miss"), "{members}");
        assert_eq!(world.sent(), at + 1);
    }
    for members in &members {
        assert_eq!(told(&ask(&world, chat(members.clone()))), Some("hit"), "{members}");
    }
    // Who it is that asks is no part of the content.
    for members in [json!({"user": "u1"}), json!({"metadata": {"trace": "x"}}), json!({"safety_identifier": "s"})] {
        assert_eq!(told(&ask(&world, chat(members.clone()))), Some("hit"), "{members}");
    }
    let other = world.request_with_key(Some("other-key"), CHAT, chat(json!({})));
    assert_eq!((told(&other), world.sent()), (Some("miss"), members.len() + 1), "another client's answers are its own");
}

#[test]
fn bed_r8_only_what_is_deterministic_or_asks_for_it_is_kept() {
    let plain = || chat(json!({"temperature": 0.7}));
    let on = [("x-witgate-cache", "on")];
    let off = [("x-witgate-cache", "off")];
    let world_of = |cache| {
        let world = world(cache);
        (0..2).for_each(|_| drop(ask(&world, plain())));
        world
    };
    let world = world_of("");
    assert_eq!((told(&ask(&world, plain())), world.sent()), (Some("bypass"), 3));
    assert_eq!(told(&ask_with(&world, &on, plain())), Some("miss"));
    assert_eq!((told(&ask_with(&world, &on, plain())), world.sent()), (Some("hit"), 4));
    assert_eq!(told(&ask_with(&world, &off, chat(json!({})))), Some("bypass"));
    assert_eq!(told(&ask(&world, chat(json!({})))), Some("miss"), "what bypassed it was not kept either");
    let wrong = ask_with(&world, &[("x-witgate-cache", "yes")], plain());
    assert_eq!((wrong.status, &json_of(&wrong)["error"]["code"]), (400, &json!("invalid_header")));
    assert_eq!(told(&ask(&world_of("when = \"all\""), plain())), Some("hit"));
    let world = world_of("when = \"asked\"");
    assert_eq!(told(&ask(&world, chat(json!({})))), Some("bypass"));
    // Vectors are the same each time.
    let body = json!({"model": "p/e", "input": ["a", "b"]}).to_string();
    let world = World::new(1, config_with("", ""));
    let vectors = json!({"object": "list", "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2}, "data":
        [{"object": "embedding", "index": 0, "embedding": [0.5, 1]}, {"object": "embedding", "index": 1, "embedding": [2]}]});
    world.serve(move |_, _| reply(1, 200, Bytes::from(vectors.to_string())));
    let answers: Vec<_> =
        (0..2).map(|_| world.call("POST", "/v1/embeddings", &[], Bytes::from(body.clone()))).collect();
    assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), [Some("miss"), Some("hit")]);
    assert_eq!(json_of(&answers[0])["data"], json_of(&answers[1])["data"]);
}

#[test]
fn bed_r8_without_a_cache_nobody_is_told_of_one() {
    let world = World::new(1, config_with("", "").tap(|config| config.cache.enabled = false));
    world.serve(|_, _| good(1));
    for _ in 0..2 {
        let client = ask_with(&world, &[("x-witgate-cache", "on")], chat(json!({})));
        assert_eq!((client.status, told(&client)), (200, None));
    }
    assert_eq!(world.sent(), 2);
    // One model may have its own.
    let more = "[models.kept]\ntarget = \"p/m\"\ncache = { enabled = true, when = \"all\", ttl = \"3s\" }";
    let world = World::new(1, config_with("", more).tap(|config| config.cache.enabled = false));
    world.serve(|_, _| good(1));
    let kept = || chat(json!({"model": "kept", "temperature": 1}));
    assert_eq!(
        [ask(&world, kept()), ask(&world, kept())].iter().map(told).collect::<Vec<_>>(),
        [Some("miss"), Some("hit")]
    );
    assert_eq!(told(&ask(&world, chat(json!({})))), None);
    world.pass(Duration::from_secs(4));
    assert_eq!(told(&ask(&world, kept())), Some("miss"), "its time is over");
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Config {}

#[test]
fn bed_r8_an_answer_is_replayed_in_any_dialect_streamed_or_whole() {
    for first_is_streamed in [true, false] {
        let world = World::new(1, config_with("", ""));
        world.serve(move |_, _| if first_is_streamed { streamed() } else { good(1) });
        let body = |stream: bool| chat(json!({"max_completion_tokens": 50, "stream": stream}));
        let messages = |stream: bool| {
            let body = json!({"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0,
                "max_tokens": 50, "stream": stream});
            let client = world.call("POST", "/v1/messages", &[], Bytes::from(body.to_string()));
            assert_eq!((client.status, told(&client)), (200, Some("hit")), "{}", String::from_utf8_lossy(&client.body));
            String::from_utf8(client.body).unwrap()
        };
        let first = ask(&world, body(first_is_streamed));
        assert_eq!((first.status, told(&first)), (200, Some("miss")));
        let at = world.elapsed();
        let whole = ask(&world, body(false));
        assert_eq!(json_of(&whole)["choices"][0]["message"]["content"], answer_text());
        assert_eq!(json_of(&whole)["usage"]["total_tokens"], 10);
        let stream = ask(&world, body(true));
        assert_eq!((told(&whole), told(&stream)), (Some("hit"), Some("hit")));
        assert_eq!(stream.header("content-type").map(|kind| kind.starts_with("text/event-stream")), Some(true));
        let text = String::from_utf8(stream.body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let pieces = text.matches("\"content\":").count();
        if first_is_streamed {
            assert!(pieces >= 6, "the pieces in which it came: {text}");
        }
        let told: Value = serde_json::from_str(&messages(false)).unwrap();
        assert_eq!(told["content"][0]["text"], answer_text());
        assert!(messages(true).contains("event: message_stop"));
        assert_eq!((world.sent(), world.elapsed()), (1, at), "no wait");
    }
}

#[test]
fn bed_r8_cache_control_is_honoured() {
    let world = world("ttl = \"1h\"");
    let body = || chat(json!({}));
    let control = |value| ask_with(&world, &[("cache-control", value)], body());
    let miss = control("only-if-cached");
    assert_eq!((miss.status, &json_of(&miss)["error"]["code"], world.sent()), (504, &json!("not_cached"), 0));
    assert_eq!((told(&control("no-store")), told(&control("max-age=60"))), (Some("bypass"), Some("miss")));
    assert_eq!((told(&control("only-if-cached")), world.sent()), (Some("hit"), 2));
    world.pass(Duration::from_secs(30));
    assert_eq!(told(&control("max-age=60, only-if-cached")), Some("hit"));
    assert_eq!(control("max-age=10, only-if-cached").status, 504);
    assert_eq!(told(&control("max-age=10")), Some("miss"), "too old for this one; asked anew, and kept");
    assert_eq!(control("max-age=10").header("age"), Some("0"));
    world.pass(Duration::from_secs(20));
    assert_eq!(told(&control("No-Cache")), Some("bypass"));
    assert_eq!((control("max-age=1").header("age"), world.sent()), (Some("0"), 4), "and kept again");
    assert_eq!(told(&control("max-age=nonsense")), Some("hit"), "it is as new as can be");
    world.pass(Duration::from_secs(2));
    assert_eq!(told(&control("max-age=nonsense")), Some("miss"));
    world.pass(Duration::from_secs(3_601));
    assert_eq!(told(&ask(&world, body())), Some("miss"), "its time is over");
    let random = || chat(json!({"temperature": 1}));
    assert_eq!(ask_with(&world, &[("cache-control", "only-if-cached")], random()).status, 504);
}

#[test]
fn bed_r8_errors_and_truncated_or_filtered_answers_are_never_kept() {
    let finish = |reason: &str| {
        let text = String::from_utf8(whole_answer().to_vec()).unwrap();
        Bytes::from(text.replace("\"finish_reason\":\"stop\"", &format!("\"finish_reason\":\"{reason}\"")))
    };
    let refusal = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": null, "refusal": "No."}, "finish_reason": "stop"}]});
    let error = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    let whole = whole_answer();
    let half = whole.slice(..whole.len() / 2);
    for (script, status, kept, body) in [
        (reply(1, 500, error.clone()), 502, false, json!({})),
        (reply(1, 429, error.clone()), 429, false, json!({})),
        (reply(1, 400, error), 400, false, json!({})),
        (reply(1, 200, half), 502, false, json!({})),
        (reply(1, 200, finish("content_filter")), 200, false, json!({})),
        (reply(1, 200, finish("something_new")), 200, false, json!({})),
        (reply(1, 200, finish("length")), 200, false, json!({})),
        (reply(1, 200, finish("length")), 200, true, json!({"max_tokens": 7})),
        (reply(1, 200, Bytes::from(refusal.to_string())), 200, false, json!({})),
        (reply(1, 200, finish("stop")), 200, true, json!({})),
    ] {
        let shown = format!("{script:?}");
        let world = World::new(1, config_with("", ""));
        world.serve(move |_, _| script.clone());
        assert_eq!(ask(&world, chat(body.clone())).status, status, "{shown}");
        let again = ask(&world, chat(body));
        assert_eq!((told(&again) == Some("hit"), world.sent() == 1), (kept, kept), "{shown}");
    }
    // A stream that is cut, at every place.
    let stream = text_stream();
    for cut in (20..stream.len() - 1).step_by(37) {
        let world = World::new(1, config_with("", ""));
        let head = (1, Act::Head(200, "text/event-stream"));
        let piece = (1, Act::Bytes(Bytes::copy_from_slice(&stream[..cut])));
        world.upstream(vec![Script::new(vec![head, piece, (1, Act::Break)]), streamed()]);
        ask(&world, chat(json!({"stream": true})));
        assert_eq!(told(&ask(&world, chat(json!({"stream": true})))), Some("miss"), "{cut}");
        assert_eq!(world.sent(), 2);
    }
}

#[test]
fn bed_r8_an_answer_that_is_too_large_is_not_kept_and_the_oldest_make_room() {
    let world = world("max_entry_bytes = \"1KiB\"\nmax_bytes = \"4KiB\"");
    let chat = |n: usize| chat(json!({"seed": n}));
    let hits = |numbers: std::ops::Range<usize>| {
        numbers
            .filter(|n| ask_with(&world, &[("cache-control", "only-if-cached")], chat(*n)).status == 200)
            .collect::<Vec<_>>()
    };
    (0..30).for_each(|n| assert_eq!(told(&ask(&world, chat(n))), Some("miss")));
    let kept = hits(0..30);
    assert!(!kept.is_empty() && kept.len() < 16 && kept.last() == Some(&29), "{kept:?}");
    assert_eq!(kept, (30 - kept.len()..30).collect::<Vec<_>>());
    // What is asked for stays. (All of the above were, just now; a round makes them equal again.)
    (30..45).for_each(|n| drop(ask(&world, chat(n))));
    let favourite = 44;
    for n in 45..60 {
        assert_eq!(told(&ask(&world, chat(favourite))), Some("hit"));
        ask(&world, chat(n));
    }
    assert_eq!(hits(favourite..favourite + 1), [favourite]);

    let long = Bytes::from(String::from_utf8(whole_answer().to_vec()).unwrap().replace("Hello", &"Hello".repeat(500)));
    let world = World::new(1, config_with("max_entry_bytes = \"1KiB\"", ""));
    world.serve(move |_, _| reply(1, 200, long.clone()));
    let clients = world.requests(CHAT, &chat(1), 3);
    assert!(clients.iter().all(|client| client.status == 200));
    assert_eq!(world.sent(), 3, "those that waited ask for themselves");
    assert_eq!(told(&ask(&world, chat(1))), Some("miss"));
}

/// Requests with the same content: when each begins, and when its client leaves.
fn same(world: &World, clients: Vec<(u64, Option<u64>)>, stream: bool) -> Vec<Client> {
    let ms = Duration::from_millis;
    let body = chat(json!({"stream": stream}));
    world.bodies(clients.into_iter().map(|(at, leaves)| (ms(at), body.clone(), leaves.map(ms))).collect())
}

#[test]
fn bed_r8_identical_requests_at_the_same_time_are_asked_once() {
    for stream in [false, true] {
        let world = World::new(1, config_with("", ""));
        world.serve(move |_, _| if stream { streamed() } else { good(3_000) });
        let clients = same(&world, (0..100).map(|at| (at / 10, None)).collect(), stream);
        assert!(clients.iter().all(|client| client.status == 200));
        assert_eq!(world.sent(), 1);
        let records = world.records();
        assert_eq!((records.len(), records.iter().filter(|record| !record.cached).count()), (100, 1));
        if !stream {
            assert!(clients.iter().all(|client| client.body == clients[0].body || told(client) == Some("hit")));
            assert_eq!(clients.iter().filter(|client| told(client) == Some("hit")).count(), 99);
        }
    }
}

#[test]
fn bed_r8_another_one_leads_where_the_first_one_s_client_leaves_or_it_fails() {
    // It leaves.
    let world = World::new(1, config_with("", ""));
    world.serve(|_, _| good(1_000));
    let clients = same(&world, vec![(0, Some(500)), (10, Some(700)), (20, None), (30, None), (40, Some(300))], false);
    let seen: Vec<_> = clients.iter().map(|client| (client.status, client.left)).collect();
    assert_eq!(seen, [(0, true), (0, true), (200, false), (200, false), (0, true)]);
    assert_eq!((world.sent(), world.open_bodies(), world.in_flight()), (3, 0, 0));
    assert_eq!(world.elapsed(), Duration::from_millis(1_700));
    // It fails once.
    let world = World::new(1, config_with("", ""));
    let error = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    world.upstream(vec![reply(100, 400, error.clone()), good(100)]);
    let clients = same(&world, (0..9).map(|at| (at, None)).collect(), false);
    assert_eq!(
        clients.iter().map(|client| client.status).collect::<Vec<_>>(),
        [400, 200, 200, 200, 200, 200, 200, 200, 200]
    );
    assert_eq!(world.sent(), 2);
    // It always fails: not one after another.
    let world = World::new(1, config_with("", ""));
    world.serve(move |_, _| reply(100, 400, error.clone()));
    let clients = same(&world, (0..9).map(|at| (at, None)).collect(), false);
    assert!(clients.iter().all(|client| client.status == 400));
    assert_eq!((world.sent(), world.elapsed() < Duration::from_millis(400)), (9, true), "{:?}", world.elapsed());
}

#[test]
fn bed_r8_nobody_waits_for_another_one_beyond_its_own_deadline() {
    let world = World::new(1, config_with("", "timeouts = { total = \"3s\" }"));
    world.serve(|_, _| Script::new(vec![(1, Act::Stall)]));
    let clients = same(&world, vec![(0, None), (1_000, None), (2_000, None)], false);
    assert!(clients.iter().all(|client| client.status == 504));
    let took: Vec<_> = world.records().iter().map(|record| record.latency.as_millis()).collect();
    assert!(took.iter().all(|took| *took <= 3_001), "{took:?}");
}

/// Whatever the backend does and whoever leaves: every request has one end, a hit is a whole answer, nothing hangs.
#[test]
fn bed_r8_whatever_happens_a_hit_is_a_whole_answer() {
    let mut hits = 0;
    for seed in 0..300 {
        let world = Rc::new(World::new(seed, config_with("ttl = \"20s\"", "")));
        let random = Rc::clone(&world);
        let stream = world.chance(50);
        // The world outlives its server by the cycle; it is one of a few hundred in a test.
        world.serve(move |_, _| Script::random(&random, stream));
        let body = |n: u64| chat(json!({"stream": stream, "seed": n}));
        let requests = (0..40).map(|_| {
            let leaves = world.chance(20).then(|| Duration::from_millis(world.below(70_000)));
            (Duration::from_millis(world.below(60_000)), body(world.below(3)), leaves)
        });
        let clients = world.bodies(requests.collect());
        for client in clients.iter().filter(|client| told(client) == Some("hit") && !client.left) {
            hits += 1;
            let text = String::from_utf8_lossy(&client.body);
            assert_eq!(client.status, 200, "seed {seed}");
            match stream {
                true => {
                    assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("\"error\""), "seed {seed}: {text}")
                }
                false => assert_eq!(json_of(client)["choices"][0]["message"]["content"], answer_text(), "seed {seed}"),
            }
        }
        assert_eq!(world.records().len(), clients.len(), "seed {seed}: one log line for each");
        assert_eq!((world.open_bodies(), world.in_flight()), (0, 0), "seed {seed}");
    }
    assert!(hits > 2_000, "{hits}");
}

#[test]
fn the_keys_of_one_tenant_share_answers_and_those_of_two_do_not() {
    let key = |name: &str, tenant: &str| format!("[keys.{name}]\nsecret = \"sk-{name}\"\n{tenant}\n");
    let keys = [("a", "tenant = \"t\""), ("b", "tenant = \"t\""), ("c", "tenant = \"u\""), ("d", ""), ("e", "")];
    let keys: String = keys.iter().map(|(name, tenant)| key(name, tenant)).collect();
    let world = World::new(1, config_with("", &format!("[tenants.t]\n[tenants.u]\n{keys}")));
    world.serve(|_, _| good(5));
    let found = ["a", "b", "c", "d", "e"].map(|name| {
        let client = world.request_with_key(Some(&format!("sk-{name}")), CHAT, chat(json!({})));
        told(&client).unwrap_or_default().to_owned()
    });
    assert_eq!(found, ["miss", "hit", "miss", "miss", "miss"]);
    assert_eq!(world.sent(), 4);
}

#[test]
fn an_answer_is_complete_and_kept_though_its_client_leaves_before_that_is_written() {
    let world = world("");
    world.serve(|_, _| streamed());
    // To look takes a second, and to keep does: the client has its answer, and is gone between.
    world.store_is(StoreIs::Slow(1_000));
    let client = world.request(CHAT, chat(json!({"stream": true})), Some(Duration::from_millis(1_500)));
    assert!(client.left && String::from_utf8_lossy(&client.body).contains("[DONE]"), "{client:?}");
    let record = world.records().remove(0);
    assert_eq!((record.outcome.as_str(), record.status), ("complete", 200));
    assert_eq!(record.usage.and_then(|usage| usage.output_tokens), Some(7));
    assert_eq!(world.in_flight(), 1, "it has its place until all is written");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.in_flight(), 0);
    world.store_is(StoreIs::Well);
    let again = ask(&world, chat(json!({})));
    assert_eq!((told(&again), world.sent()), (Some("hit"), 1));
    // A store that never answers holds up nobody for long.
    world.store_is(StoreIs::Hanging);
    let asked = world.elapsed();
    let no_cache = [("cache-control", "no-cache")];
    assert_eq!(ask_with(&world, &no_cache, chat(json!({"stream": true}))).status, 200);
    assert!(world.elapsed() - asked < Duration::from_secs(40) && world.in_flight() == 0);
}
