//! The gateway on a simulated clock, in front of a simulated upstream, from a seed. A failure prints its seed;
//! `WITGATE_SEED=n cargo test -p witgate-gateway --test world sim::` replays it.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use witgate_gateway::Outcome;
use world::{
    Act, Client, Script, World, answer_text, chat_body, config, config_of_several_endpoints, config_with_keep_alive,
    text_stream, whole_answer,
};

const SEEDS: u64 = 3_000;

fn seeds() -> Vec<u64> {
    match std::env::var("WITGATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("WITGATE_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// What a client may have seen in the end.
#[derive(Debug, PartialEq)]
enum End {
    Complete,
    CleanError,
    ClientGone,
}

/// Judges what the client saw; panics where it is none of the three.
fn judge(client: &Client, stream: bool, expected: &str) -> End {
    if client.left {
        return End::ClientGone;
    }
    let body = String::from_utf8(client.body.clone()).expect("UTF-8");
    if client.status != 200 {
        let json: serde_json::Value = serde_json::from_str(&body).expect("an error is JSON");
        assert!(client.status >= 400, "{}", client.status);
        assert!(json["error"]["message"].is_string() && json["error"]["type"].is_string(), "{json}");
        assert!(json["error"]["request_id"].is_string(), "{json}");
        return End::CleanError;
    }
    if !stream {
        let json: serde_json::Value = serde_json::from_str(&body).expect("an answer is JSON");
        assert_eq!(json["choices"][0]["message"]["content"], expected);
        assert_eq!(json["choices"][0]["finish_reason"], "stop");
        return End::Complete;
    }
    let events: Vec<&str> = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let mut text = String::new();
    for (at, event) in events.iter().enumerate() {
        let last = at + 1 == events.len();
        if *event == "[DONE]" {
            assert!(last, "nothing follows [DONE]");
            assert_eq!(text, expected, "a clean end has the whole answer");
            return End::Complete;
        }
        let json: serde_json::Value = serde_json::from_str(event).expect("a chunk is JSON");
        if json.get("error").is_some() {
            assert!(last, "nothing follows an error");
            assert!(expected.starts_with(&text), "{text:?}");
            return End::CleanError;
        }
        if let Some(more) = json["choices"][0]["delta"]["content"].as_str() {
            text.push_str(more);
        }
    }
    panic!("the stream ended with neither [DONE] nor an error:\n{body}");
}

/// Whatever the network does, in any order: every request ends in exactly one of complete, clean error, client gone; one
/// log line; nothing left open; within its total timeout.
#[test]
fn every_request_ends_in_exactly_one_way_whatever_the_upstream_does() {
    let mut ends = [0_u32; 3];
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| {
            let world = World::new(seed, config());
            let stream = world.chance(70);
            let scripts = (0..2).map(|_| Script::random(&world, stream)).collect();
            world.upstream(scripts);
            let leaves = world.chance(20).then(|| Duration::from_millis(world.below(20_000)));
            let client = world.request("/v1/chat/completions", chat_body("chain", stream), leaves);
            let end = judge(&client, stream, &answer_text());
            let records = world.records();
            assert_eq!(records.len(), 1, "one log line for each request");
            let outcome = match end {
                End::Complete => Outcome::Complete,
                End::CleanError => Outcome::Failed,
                End::ClientGone => Outcome::ClientGone,
            };
            assert_eq!(records[0].outcome, outcome);
            assert_eq!(world.open_bodies(), 0, "no upstream request outlives its client's");
            assert_eq!(world.in_flight(), 0);
            assert!(world.elapsed() <= Duration::from_secs(61), "{:?}", world.elapsed());
            if end == End::Complete && stream {
                assert_eq!(records[0].usage.as_ref().and_then(|usage| usage.output_tokens), Some(7));
            }
            end
        });
        match result {
            Ok(end) => ends[end as usize] += 1,
            Err(panic) => {
                eprintln!("seed {seed}: replay with WITGATE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // The seeds do reach all three; a replay of one seed reaches one.
    assert!(ends.iter().all(|count| *count > 0) || seeds().len() == 1, "{ends:?}");
}

/// The same with several endpoints, targets and requests at once: none is lost, none is tried after content (the text
/// would be there twice), tries and places are bounded.
#[test]
fn every_request_ends_in_exactly_one_way_with_several_endpoints_too() {
    let mut ends = [0_u32; 3];
    let mut tried_again = 0;
    for seed in seeds().into_iter().filter(|seed| seed % 5 == 0 || std::env::var_os("WITGATE_SEED").is_some()) {
        let result = std::panic::catch_unwind(|| {
            let world = World::new(seed, config_of_several_endpoints());
            // All of one kind: a script does not know who asks.
            let stream = world.chance(70);
            world.upstream((0..60).map(|_| Script::random(&world, stream)).collect());
            let chats = (0..1 + world.below(6)).map(|_| {
                let at = Duration::from_millis(world.below(3_000));
                (at, stream, world.chance(20).then(|| at + Duration::from_millis(world.below(20_000))))
            });
            let clients = world.chats(chats.collect());
            let ends: Vec<_> = clients.iter().map(|client| judge(client, stream, &answer_text())).collect();
            let records = world.records();
            assert_eq!(records.len(), clients.len(), "one log line for each request");
            for (end, outcome) in [
                (End::Complete, Outcome::Complete),
                (End::CleanError, Outcome::Failed),
                (End::ClientGone, Outcome::ClientGone),
            ] {
                let of = records.iter().filter(|record| record.outcome == outcome).count();
                assert_eq!(ends.iter().filter(|found| **found == end).count(), of);
            }
            let sent: usize = records.iter().map(|record| record.attempts as usize).sum();
            assert_eq!(sent, world.sent(), "every try is counted");
            // 3 rounds at 2 targets and 1 fallback, each with up to 2 more endpoints.
            assert!(records.iter().all(|record| record.attempts <= 27));
            assert!(["a", "b", "c"].iter().all(|host| world.most_at(host) <= 1));
            assert_eq!((world.open_bodies(), world.in_flight()), (0, 0));
            assert!(world.elapsed() <= Duration::from_secs(64), "{:?}", world.elapsed());
            (ends, records.iter().filter(|record| record.attempts > 1).count())
        });
        match result {
            Ok((found, again)) => {
                found.into_iter().for_each(|end| ends[end as usize] += 1);
                tried_again += again;
            }
            Err(panic) => {
                eprintln!("seed {seed}: replay with WITGATE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!((tried_again > 100 && ends.iter().all(|count| *count > 0)) || seeds().len() == 1, "{ends:?}");
}

#[test]
fn invariant_4_any_split_of_an_upstream_answer_gives_the_client_the_same_bytes() {
    let whole = run_cut(&[text_stream().len()]);
    for cut in 1..text_stream().len() {
        assert_eq!(content(&run_cut(&[cut])), content(&whole), "cut at {cut}");
    }
    let bytes: Vec<usize> = (1..text_stream().len()).collect();
    assert_eq!(content(&run_cut(&bytes)), content(&whole), "cut at every byte");
}

/// The stream's bytes without the id, which differs.
fn content(client: &Client) -> String {
    let body = String::from_utf8(client.body.clone()).unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    body
}

fn run_cut(cuts: &[usize]) -> Client {
    let world = World::new(1, config());
    world.upstream(vec![Script::stream_cut(&text_stream(), cuts)]);
    world.request("/v1/chat/completions", chat_body("first/m", true), None)
}

#[test]
fn invariant_6_a_stream_that_fails_before_its_first_content_falls_back_and_after_it_never() {
    let stream = text_stream();
    let first_content = String::from_utf8_lossy(&stream).find("Hel").unwrap();
    for cut in 0..stream.len() - 1 {
        let world = World::new(1, config());
        let broken = Script::new(vec![
            (5, Act::Head(200, "text/event-stream")),
            (5, Act::Bytes(Bytes::copy_from_slice(&stream[..cut]))),
            (5, Act::Break),
        ]);
        world.upstream(vec![broken, Script::stream_cut(&stream, &[stream.len()])]);
        let client = world.request("/v1/chat/completions", chat_body("chain", true), None);
        let end = judge(&client, true, &answer_text());
        let fell_back = world.sent() == 2;
        if cut < first_content {
            assert!(fell_back && end == End::Complete, "cut at {cut}: {end:?}");
            assert_eq!(client.header("x-witgate-provider"), Some("second"));
            assert_eq!(client.header("x-witgate-attempts"), Some("2"));
        } else if fell_back {
            // The cut lies inside the event that holds the first content: it has not been seen yet.
            assert!(!String::from_utf8_lossy(&client.body).contains("error"), "cut at {cut}");
            assert!(cut < first_content + 64, "cut at {cut}");
        } else {
            assert!(matches!(end, End::CleanError | End::Complete), "cut at {cut}: {end:?}");
        }
    }
}

#[test]
fn invariant_7_eof_without_a_finish_is_an_error_to_the_client_in_its_own_dialect() {
    let stream = text_stream();
    let cut = String::from_utf8_lossy(&stream).find("\"finish_reason\":\"stop\"").unwrap() - 40;
    let early = || {
        Script::new(vec![
            (1, Act::Head(200, "text/event-stream")),
            (1, Act::Bytes(Bytes::copy_from_slice(&stream[..cut]))),
            (1, Act::End),
        ])
    };
    let world = World::new(1, config());
    world.upstream(vec![early()]);
    let client = world.request("/v1/chat/completions", chat_body("first/m", true), None);
    assert_eq!(judge(&client, true, &answer_text()), End::CleanError);
    let body = String::from_utf8(client.body).unwrap();
    assert!(!body.contains("[DONE]"), "{body}");
    let world = World::new(1, config());
    world.upstream(vec![Script::new(vec![(1, Act::Head(200, "application/json")), (1, Act::End)])]);
    let client = world.request("/v1/chat/completions", chat_body("first/m", false), None);
    assert_eq!(client.status, 502);
}

#[test]
fn invariant_8_a_client_that_leaves_cancels_the_upstream_at_any_point() {
    for stream in [true, false] {
        for leave_ms in [0, 1, 5, 9, 12, 30, 80, 150, 400, 900] {
            let world = World::new(1, config());
            let script = if stream {
                let all = text_stream();
                let mut acts = vec![(10, Act::Head(200, "text/event-stream"))];
                acts.extend(all.chunks(40).map(|piece| (40, Act::Bytes(Bytes::copy_from_slice(piece)))));
                acts.push((100_000, Act::End));
                Script::new(acts)
            } else {
                Script::new(vec![(10, Act::Head(200, "application/json")), (100_000, Act::End)])
            };
            world.upstream(vec![script]);
            let leaves = Some(Duration::from_millis(leave_ms));
            let client = world.request("/v1/chat/completions", chat_body("first/m", stream), leaves);
            assert!(client.left);
            assert_eq!(world.elapsed(), Duration::from_millis(leave_ms));
            assert_eq!(world.open_bodies(), 0, "stream {stream}, left after {leave_ms} ms");
            assert_eq!(world.records()[0].outcome, Outcome::ClientGone);
            assert_eq!(world.in_flight(), 0);
        }
    }
}

#[test]
fn each_timeout_gives_a_504_that_names_it() {
    let stalled = || Script::new(vec![(1, Act::Head(200, "text/event-stream")), (1, Act::Stall)]);
    let never = || Script::new(vec![(1, Act::Stall)]);
    let half = || {
        let half = Act::Bytes(Bytes::from_static(b"{\"id\": "));
        Script::new(vec![(1, Act::Head(200, "application/json")), (1, half), (1, Act::Stall)])
    };
    for (script, stream, code, after) in [
        (Script::new(vec![(1, Act::ConnectTimeout)]), true, "connect_timeout", 1),
        (never(), true, "first_token_timeout", 10_000),
        (stalled(), true, "first_token_timeout", 10_000),
        (half(), false, "idle_timeout", 5_002),
        (never(), false, "total_timeout", 60_000),
    ] {
        let world = World::new(1, config_with_keep_alive("30s"));
        world.upstream(vec![script]);
        let client = world.request("/v1/chat/completions", chat_body("patient/m", stream), None);
        assert_eq!(client.status, 504, "{code}");
        let json: serde_json::Value = serde_json::from_slice(&client.body).unwrap();
        assert_eq!(json["error"]["code"], code, "{json}");
        assert_eq!(world.elapsed(), Duration::from_millis(after), "{code}");
    }
}

#[test]
fn comments_do_not_keep_a_stalled_backend_alive() {
    let mut acts = vec![(1, Act::Head(200, "text/event-stream"))];
    acts.extend((0..100).map(|_| (1_000, Act::Bytes(Bytes::from_static(b": ping\n\n")))));
    let world = World::new(1, config_with_keep_alive("30s"));
    world.upstream(vec![Script::new(acts)]);
    let client = world.request("/v1/chat/completions", chat_body("patient/m", true), None);
    assert_eq!(client.status, 504);
    assert_eq!(world.elapsed(), Duration::from_secs(10));
}

#[test]
fn a_stream_that_falls_silent_ends_in_an_idle_timeout_in_the_stream() {
    let stream = text_stream();
    let cut = String::from_utf8_lossy(&stream).find(" wor").unwrap();
    let world = World::new(1, config());
    world.upstream(vec![Script::new(vec![
        (1, Act::Head(200, "text/event-stream")),
        (1, Act::Bytes(Bytes::copy_from_slice(&stream[..cut]))),
        (1, Act::Stall),
    ])]);
    let client = world.request("/v1/chat/completions", chat_body("first/m", true), None);
    assert_eq!(client.status, 200);
    let body = String::from_utf8(client.body.clone()).unwrap();
    assert!(body.contains("\"idle_timeout\""), "{body}");
    assert_eq!(judge(&client, true, &answer_text()), End::CleanError);
}

#[test]
fn a_waiting_client_gets_keep_alive_comments_and_then_the_answer() {
    let world = World::new(1, config());
    let mut script = Script::stream_cut(&text_stream(), &[text_stream().len()]);
    script.delay(Duration::from_millis(8_100));
    world.upstream(vec![script]);
    let client = world.request("/v1/chat/completions", chat_body("patient/m", true), None);
    let body = String::from_utf8(client.body.clone()).unwrap();
    assert_eq!(body.matches(": keep-alive\n\n").count(), 4, "every 2 s: {body}");
    let without = body.replace(": keep-alive\n\n", "");
    let client = Client { body: without.into_bytes(), ..client };
    assert_eq!(judge(&client, true, &answer_text()), End::Complete);
}

#[test]
fn a_failure_after_keep_alive_comments_is_told_in_the_stream() {
    let world = World::new(1, config());
    world.upstream(vec![Script::new(vec![(5_000, Act::Refuse)])]);
    let client = world.request("/v1/chat/completions", chat_body("patient/m", true), None);
    assert_eq!(client.status, 200);
    let body = String::from_utf8(client.body.clone()).unwrap();
    assert!(body.starts_with(": keep-alive\n\n: keep-alive\n\ndata: {\"error\""), "{body}");
    assert!(!body.contains("[DONE]"));
}

#[test]
fn over_the_limit_of_concurrent_requests_a_client_is_told_to_come_again() {
    let world = World::new(1, config());
    let scripts = (0..3).map(|_| {
        Script::new(vec![(1_000, Act::Head(200, "application/json")), (1, Act::Bytes(whole_answer())), (1, Act::End)])
    });
    world.upstream(scripts.collect());
    let clients = world.requests("/v1/chat/completions", &chat_body("first/m", false), 3);
    let mut statuses: Vec<_> = clients.iter().map(|client| client.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503], "limits.max_concurrent_requests = 2");
    let refused = clients.iter().find(|client| client.status == 503).unwrap();
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(world.in_flight(), 0);
}

#[test]
fn a_request_without_the_key_is_refused_before_its_body_is_read() {
    let world = World::new(1, config());
    let client = world.request_with_key(None, "/v1/chat/completions", Bytes::from_static(b"not JSON"));
    assert_eq!(client.status, 401);
    assert_eq!(client.header("www-authenticate"), Some("Bearer"));
    let client = world.request_with_key(Some("wrong"), "/v1/chat/completions", Bytes::from_static(b"not JSON"));
    assert_eq!(client.status, 401);
    let client = world.request_with_key(Some("test-key"), "/v1/chat/completions", Bytes::from_static(b"not JSON"));
    assert_eq!(client.status, 400);
    for client in [world.get("/health"), world.get("/v1/model")] {
        assert_ne!(client.status, 401, "only what serves models needs a key");
    }
}

#[test]
fn a_body_over_the_limit_is_a_413_and_nothing_is_sent() {
    let world = World::new(1, config());
    let client = world.request("/v1/chat/completions", Bytes::from(vec![b' '; 1 << 20]), None);
    assert_eq!(client.status, 413);
    assert_eq!(world.sent(), 0);
}
