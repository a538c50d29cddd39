//! Metrics and alarms over the simulated world.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use witgate_config::Config;
use world::{Act, Client, Script, World, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";

fn world(more: &str) -> World {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[retry]\nattempts = 1\nfailover = 0\n[health]\nrest = \"0s\"\n[providers.p]\nadapter = \
         \"openai\"\nendpoints = [\"http://a/v1\", \"http://b/v1\"]\n[models.fast]\ntarget = \"p/m\"\n{more}"
    );
    let config = Config::from_toml(&text, "metrics.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    World::new(1, config)
}

fn good(stream: bool) -> Script {
    let (kind, body) = match stream {
        true => ("text/event-stream", Bytes::from(text_stream())),
        false => ("application/json", whole_answer()),
    };
    Script::new(vec![(50, Act::Head(200, kind)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn bad(status: u16) -> Script {
    let body = Bytes::from_static(br#"{"error":{"message":"no","type":"x","code":null}}"#);
    Script::new(vec![(1, Act::Head(status, "application/json")), (0, Act::Bytes(body)), (0, Act::End)])
}

fn ask(world: &World, model: &str, stream: bool) -> Client {
    world.request(CHAT, chat_body(model, stream), None)
}

fn text(world: &World) -> String {
    let client = world.get("/metrics");
    assert_eq!(client.status, 200);
    assert!(client.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    String::from_utf8(client.body.to_vec()).unwrap()
}

#[test]
fn bed_r6_requests_throttles_tokens_latency_and_queues_are_counted() {
    let world = world("[metrics]\nenabled = true");
    world.upstream(vec![good(false), good(true), bad(429), good(false)]);
    assert_eq!(ask(&world, "fast", false).status, 200);
    assert_eq!(ask(&world, "fast", true).status, 200);
    assert_eq!(ask(&world, "fast", false).status, 429);
    assert_eq!(ask(&world, "p/m", false).status, 200);
    let text = text(&world);
    let line = |begins: &str, has: &[&str]| {
        let found = text.lines().find(|line| line.starts_with(begins) && has.iter().all(|part| line.contains(part)));
        let found = found.unwrap_or_else(|| panic!("no {begins} with {has:?} in\n{text}"));
        found.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let fast = r#"gen_ai_request_model="fast""#;
    assert_eq!(line("witgate_requests_total", &[fast, r#"http_response_status_code="200""#]), 2.0);
    assert_eq!(line("witgate_requests_total", &[fast, r#"http_response_status_code="429""#]), 1.0);
    assert_eq!(line("witgate_requests_total", &[r#"gen_ai_request_model="p/m""#, r#"outcome="complete""#]), 1.0);
    assert_eq!(line("gen_ai_server_request_duration_seconds_count", &[fast]), 2.0);
    assert_eq!(line("gen_ai_server_time_to_first_token_seconds_count", &[fast]), 2.0);
    let records = world.records();
    let output: u64 = records
        .iter()
        .filter(|record| record.request_model.as_deref() == Some("fast"))
        .filter_map(|record| record.usage.as_ref()?.output_tokens)
        .sum();
    assert!(output > 0);
    assert_eq!(line("witgate_tokens_total", &[fast, r#"gen_ai_token_type="output""#]), output as f64);
    assert_eq!(line("witgate_queue_length", &[r#"gen_ai_provider_name="p""#]), 0.0);
    assert_eq!(line("witgate_endpoint_up", &[r#"endpoint="1""#]), 1.0);
    assert_eq!(line("witgate_requests_in_flight", &[]), 0.0);
    assert!(text.ends_with("# EOF\n"), "it is whole");
}

#[test]
fn clients_cannot_fill_the_memory_with_names_of_models() {
    let world = world("[metrics]\nenabled = true");
    world.serve(|_, _| good(false));
    for number in 0..700 {
        assert_eq!(ask(&world, &format!("p/m{number}"), false).status, 200);
    }
    for number in 0..50 {
        assert_eq!(ask(&world, &format!("nobody{number}"), false).status, 404);
    }
    let text = text(&world);
    let models = text.lines().filter(|line| line.starts_with("witgate_requests_total")).count();
    assert!((400..=520).contains(&models), "{models}");
    assert!(text.contains(r#"gen_ai_request_model="other""#) && !text.contains("nobody"));
}

#[test]
fn metrics_have_a_key_of_their_own_and_are_off_by_default() {
    let off = world("");
    let answer = off.get("/metrics");
    assert_eq!(answer.status, 404);
    assert!(String::from_utf8_lossy(&answer.body).contains("metrics.enabled = true"));
    let on = world("[metrics]\nenabled = true\nkey = \"scrape\"");
    assert_eq!(on.get("/metrics").status, 401);
    assert_eq!(on.get_with_key(Some("scrape"), "/metrics").status, 200);
    assert_eq!(on.get_with_key(None, "/metrics").status, 401);
}

fn alarms(world: &World) -> Vec<String> {
    world.warnings().into_iter().filter(|warning| warning.starts_with("Alarm")).collect()
}

#[test]
fn bed_r6_a_threshold_raises_one_event_and_its_end_another() {
    let world = world(
        "[alarms.errors]\nmetric = \"error-rate\"\nabove = 20\nover = \"60s\"\nat_least = 5\n\
         [alarms.throttles]\nmetric = \"throttle-rate\"\nabove = 50\nat_least = 1\nmodel = \"fast\"",
    );
    world.upstream(vec![bad(500), bad(500), good(false), good(false)]);
    (0..4).for_each(|_| drop(ask(&world, "fast", false)));
    assert_eq!(alarms(&world), [""; 0], "four requests are too few to tell");
    world.upstream(vec![good(false)]);
    ask(&world, "fast", false);
    let seen = alarms(&world);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].contains("errors") && seen[0].contains("on: true, value: 40, above: 20"), "{seen:?}");
    // The failures are forgotten with time, and the next request finds out.
    world.pass(Duration::from_secs(61));
    world.serve(|_, _| good(false));
    (0..5).for_each(|_| drop(ask(&world, "p/m", false)));
    let seen = alarms(&world);
    assert_eq!(seen.len(), 2);
    assert!(seen[1].contains("on: false, value: 0"), "{seen:?}");
    // What is refused because of a limit is another figure, and of one model only.
    world.serve(|_, _| bad(429));
    ask(&world, "p/m", false);
    assert_eq!(alarms(&world).len(), 2);
    ask(&world, "fast", false);
    ask(&world, "fast", false);
    assert_eq!(alarms(&world).len(), 2, "not more than half of all within five minutes yet");
    (0..4).for_each(|_| drop(ask(&world, "fast", false)));
    let seen = alarms(&world);
    assert!(seen.len() == 3 && seen[2].contains("throttles"), "{seen:?}");
}

#[test]
fn an_alarm_on_latency_looks_at_the_slowest_twentieth() {
    let world = world("[alarms.slow]\nmetric = \"latency-p95\"\nabove = 1000\nat_least = 20");
    let slow = || {
        Script::new(vec![(3_000, Act::Head(200, "application/json")), (0, Act::Bytes(whole_answer())), (0, Act::End)])
    };
    world.upstream((0..19).map(|_| good(false)).chain([slow()]).collect());
    (0..20).for_each(|_| drop(ask(&world, "fast", false)));
    assert_eq!(alarms(&world), [""; 0], "one in twenty may be slow");
    world.upstream(vec![slow()]);
    ask(&world, "fast", false);
    assert_eq!(alarms(&world).len(), 1);
}
