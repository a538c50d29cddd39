//! Limits of keys, tenants and models over the simulated world: what is reserved, what is settled, what clients are told.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::Rule;
use world::{Act, Client, Script, StoreIs, World, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";
const MINUTE: Rule = Rule::Sliding(Duration::from_secs(60));

fn config(more: &str) -> Config {
    let text = format!(
        "[limits]\nmax_concurrent_requests = 100000\n[providers.p]\nadapter = \"openai\"\nendpoint = \
         \"http://p/v1\"\nretry.attempts = 1\n[providers.q]\nadapter = \"openai\"\nendpoint = \
         \"http://q/v1\"\n[accounting]\noutput_tokens = 100\n{more}"
    );
    Config::from_toml(&text, "limits.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A world with one key, `alice`, with this quota.
fn world(quota: &str, more: &str) -> World {
    let world = World::new(1, config(&format!("[keys.alice]\nsecret = \"test-key\"\n{quota}\n{more}")));
    world.serve(|_, _| good(1_000, false));
    world
}

fn good(ms: u64, stream: bool) -> Script {
    let (kind, body) = match stream {
        true => ("text/event-stream", Bytes::from(text_stream())),
        false => ("application/json", whole_answer()),
    };
    Script::new(vec![(ms, Act::Head(200, kind)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn ask(world: &World) -> Client {
    world.request(CHAT, chat_body("p/m", false), None)
}

fn error(client: &Client) -> Value {
    let body: Value = serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"));
    body["error"].clone()
}

fn headers<'c>(client: &'c Client, of: &str) -> [&'c str; 3] {
    ["limit", "remaining", "reset"].map(|name| client.header(&format!("x-ratelimit-{name}-{of}")).unwrap_or("-"))
}

#[test]
fn bed_r2_requests_per_minute_are_counted_over_a_sliding_minute_and_the_next_is_429() {
    let world = world("quota.requests_per_minute = 3", "");
    // The window of the simulated time began 20 s before its start.
    for remaining in ["2", "1", "0"] {
        let answer = ask(&world);
        assert_eq!(answer.status, 200);
        let [limit, left, reset] = headers(&answer, "requests");
        assert_eq!((limit, left), ("3", remaining));
        assert!(reset.starts_with("1m"), "{reset}");
    }
    let refused = ask(&world);
    let error = error(&refused);
    assert_eq!(
        (refused.status, &error["code"], &error["type"]),
        (429, &json!("rate_limit_exceeded"), &json!("rate_limit_error"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("the key \"alice\" has used 3 of 3 requests per minute"), "{message}");
    assert_eq!(headers(&refused, "requests")[..2], ["3", "0"]);
    // It works when the answer says, and not a second before.
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(world.sent(), 3, "a refused request reaches no backend");
    world.pass(Duration::from_secs(wait - 2));
    assert_eq!(ask(&world).status, 429);
    world.pass(Duration::from_secs(2));
    assert_eq!(ask(&world).status, 200);
}

#[test]
fn bed_r2_each_dialect_tells_of_a_limit_in_its_own_shape() {
    let world = world("quota.requests_per_minute = 1", "[dialects.bedrock-chat]\nmodel = \"p/m\"");
    assert_eq!(ask(&world).status, 200);
    let messages = json!({"model": "p/m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    let message = world.request("/v1/messages", Bytes::from(messages.to_string()), None);
    assert_eq!((message.status, &error(&message)["type"]), (429, &json!("rate_limit_error")));
    let chat = world.request("/chat", Bytes::from_static(b"{\"prompt\":\"Hi\"}"), None);
    assert_eq!(chat.status, 429);
    assert!(error(&chat).as_str().unwrap().contains("requests per minute"), "{chat:?}");
    let ollama = world.request("/api/chat", chat_body("p/m", false), None);
    assert_eq!(ollama.status, 429);
    let stream = world.request(CHAT, chat_body("p/m", true), None);
    assert_eq!((stream.status, stream.header("content-type")), (429, Some("application/json")));
    for client in [&message, &chat, &ollama, &stream] {
        assert!(client.header("retry-after").is_some(), "{client:?}");
    }
}

#[test]
fn tokens_are_reserved_from_an_estimate_and_settled_by_the_backend_s_count() {
    let world = world("quota.tokens_per_minute = 1000", "");
    let prompt = chat_body("p/m", false).len().div_ceil(4) as u64;
    let meter = "meter/key/alice/tpm";
    let answer = ask(&world);
    // Reserved: the prompt's estimate and accounting.output_tokens; the backend counted 3 + 7.
    assert_eq!(headers(&answer, "tokens")[..2], ["1000", &(1000 - prompt - 100).to_string()]);
    assert_eq!(world.used(&[(meter, MINUTE)]), [10]);
    // The request's own bound counts where there is one, for each answer that is wanted.
    let body = json!({"model": "p/m", "max_tokens": 300, "n": 2, "messages": [{"role": "user", "content": "Hi"}]});
    let body = Bytes::from(body.to_string());
    let reserved = body.len().div_ceil(4) as u64 + 600;
    let answer = world.request(CHAT, body.clone(), None);
    assert_eq!(headers(&answer, "tokens")[1], (1000 - 10 - reserved).to_string());
    assert_eq!(world.used(&[(meter, MINUTE)]), [20]);
    // Two at once do not fit, and the one that is refused takes nothing.
    let both = world.requests(CHAT, &body, 2);
    let mut statuses: Vec<_> = both.iter().map(|client| client.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    assert_eq!(world.used(&[(meter, MINUTE)]), [30]);
    // What never fits is no matter of waiting.
    let body = json!({"model": "p/m", "max_tokens": 2000, "messages": [{"role": "user", "content": "Hi"}]});
    let refused = world.request(CHAT, Bytes::from(body.to_string()), None);
    assert_eq!((refused.status, refused.header("retry-after")), (429, None));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    // What was taken before counts for more than a minute.
    assert!(headers(&refused, "tokens")[2].starts_with("1m"), "{:?}", headers(&refused, "tokens"));
    assert!(error(&refused)["message"].as_str().unwrap().ends_with("this request alone is larger"));
}

#[test]
fn a_picture_is_not_estimated_by_its_bytes() {
    let world = world("quota.tokens_per_minute = 5000", "");
    let url = format!("data:image/png;base64,{}", "A".repeat(40_000));
    let content = json!([{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]);
    let body = json!({"model": "p/m", "max_tokens": 100, "messages": [{"role": "user", "content": content}]});
    let answer = world.request(CHAT, Bytes::from(body.to_string()), None);
    let left: u64 = headers(&answer, "tokens")[1].parse().unwrap();
    assert!((3_800..3_900).contains(&left), "{left}");
}

#[test]
fn what_fails_or_is_cancelled_gives_back_what_it_did_not_use() {
    let meters = [("meter/key/alice/tpm", MINUTE), ("meter/key/alice/at-once", Rule::Held)];
    let world = world("quota = { tokens_per_minute = 100000, concurrent_requests = 10 }", "");
    let fails = |script: fn() -> Script| world.serve(move |_, _| script());
    fails(|| Script::new(vec![(1, Act::Refuse)]));
    assert_eq!(ask(&world).status, 502);
    assert_eq!(world.used(&meters), [0, 0]);
    // The client leaves while the backend thinks.
    fails(|| Script::new(vec![(1, Act::Stall)]));
    assert!(world.request(CHAT, chat_body("p/m", false), Some(Duration::from_secs(1))).left);
    assert_eq!(world.used(&meters), [0, 0]);
    // It leaves in the middle of the answer: the prompt, and the 12 bytes that came, are estimated.
    fails(|| {
        let stream = text_stream();
        let cut = String::from_utf8_lossy(&stream).find(" wor").unwrap();
        let head = Bytes::copy_from_slice(&stream[..cut]);
        Script::new(vec![(1, Act::Head(200, "text/event-stream")), (1, Act::Bytes(head)), (1, Act::Stall)])
    });
    let body = chat_body("p/m", true);
    let prompt = body.len().div_ceil(4) as u64;
    assert!(world.request(CHAT, body, Some(world.elapsed() + Duration::from_secs(1))).left);
    assert_eq!(world.used(&meters), [prompt + 2, 0]);
}

#[test]
fn places_are_given_back_however_a_request_ends() {
    let world = world("quota.concurrent_requests = 2", "");
    let clients = world.requests(CHAT, &chat_body("p/m", false), 5);
    let refused: Vec<_> = clients.iter().filter(|client| client.status == 429).collect();
    assert_eq!(refused.len(), 3);
    assert_eq!(error(refused[0])["code"], "concurrency_limit_exceeded");
    assert_eq!(refused[0].header("retry-after"), Some("1"));
    assert_eq!(world.most_at("p"), 2);
    // Clients that leave give their places back too.
    let leaving: Vec<_> =
        (0..9).map(|at| (Duration::from_secs(2 + at), Some(Duration::from_millis(2_500 + 1_000 * at)))).collect();
    let clients = world.load_leaving("p/m", leaving);
    assert!(clients.iter().all(|client| client.left));
    assert_eq!(ask(&world).status, 200);
}

#[test]
fn a_tenant_s_keys_and_a_model_s_clients_share_their_limits() {
    let more = "tenant = \"t\"\n[keys.bob]\nsecret = \"sk-bob\"\ntenant = \"t\"\n[keys.eve]\nsecret = \
                \"sk-eve\"\n[tenants.t]\nquota.requests_per_minute = 3\n[models.m]\ntarget = \
                \"p/m\"\nquota.requests_per_minute = 2\n";
    let world = world("quota.requests_per_minute = 10", more);
    let status = |key, model: &str| {
        let client = world.request_with_key(Some(key), CHAT, chat_body(model, false));
        (client.status, error(&client)["message"].as_str().unwrap_or_default().chars().take(14).collect::<String>())
    };
    let fine = (200, String::new());
    assert_eq!([status("test-key", "m"), status("sk-bob", "p/x")], [fine.clone(), fine.clone()]);
    assert_eq!(status("sk-eve", "m"), fine);
    assert_eq!(status("sk-eve", "m"), (429, "the model \"m\" ".to_owned()));
    assert_eq!(status("sk-bob", "m"), (429, "the model \"m\" ".to_owned()));
    // Refused by the model, it took nothing of the tenant's share.
    assert_eq!(status("sk-bob", "p/x"), fine);
    assert_eq!(status("test-key", "p/x"), (429, "the tenant \"t\"".to_owned()));
    assert_eq!(status("sk-eve", "p/x"), fine);
}

#[test]
fn a_refused_request_costs_nothing_of_any_meter() {
    let world = world("quota = { requests_per_minute = 50, tokens_per_minute = 200 }", "");
    let keys = ["rpm", "tpm"].map(|name| format!("meter/key/alice/{name}"));
    let meters = [(keys[0].as_str(), MINUTE), (keys[1].as_str(), MINUTE)];
    let clients = world.requests(CHAT, &chat_body("p/m", false), 40);
    let good = clients.iter().filter(|client| client.status == 200).count() as u64;
    assert_eq!((good, clients.len()), (1, 40));
    assert_eq!(world.used(&meters), [good, 10 * good]);
    // An unknown model, and a body that is none, are refused before.
    world.request(CHAT, chat_body("nothing", false), None);
    world.request(CHAT, Bytes::from_static(b"{"), None);
    assert_eq!(world.used(&meters)[0], good);
}

#[test]
fn limits_of_a_store_that_fails_are_open_or_closed_as_configured_and_never_hang() {
    for (mode, status) in [("open", 200), ("closed", 503)] {
        let world = world("quota.requests_per_minute = 2", &format!("[state]\non_failure = \"{mode}\""));
        for is in [StoreIs::Failing, StoreIs::Hanging] {
            world.store_is(is);
            let before = world.elapsed();
            let clients = world.requests(CHAT, &chat_body("p/m", false), 5);
            assert!(clients.iter().all(|client| client.status == status), "{mode} {is:?}");
            assert!(world.elapsed() - before < Duration::from_secs(6), "{mode} {is:?}: {:?}", world.elapsed() - before);
            if mode == "closed" {
                assert_eq!(error(&clients[0])["code"], "state_unavailable");
            }
            assert!(world.new_warnings().iter().any(|warning| warning.starts_with("State")));
        }
        world.store_is(StoreIs::Well);
        let statuses: Vec<_> = (0..3).map(|_| ask(&world).status).collect();
        assert_eq!(statuses, [200, 200, 429], "{mode}: nothing was taken while it failed");
    }
}

#[test]
fn a_slow_store_settles_after_clients_have_left() {
    let world = world("quota = { concurrent_requests = 4, tokens_per_minute = 10000 }", "");
    world.store_is(StoreIs::Slow(300));
    let leaving: Vec<_> =
        (0..20).map(|at| (Duration::from_secs(at), Some(Duration::from_millis(700 + 1_000 * at)))).collect();
    let clients = world.load_leaving("p/m", leaving);
    assert!(clients.iter().all(|client| client.left));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.used(&[("meter/key/alice/at-once", Rule::Held)]), [0]);
    assert_eq!(world.used(&[("meter/key/alice/tpm", MINUTE)]), [0]);
}

#[test]
fn a_burst_never_exceeds_any_limit_and_everybody_is_answered() {
    let world = world("quota = { requests_per_minute = 500, concurrent_requests = 50 }", "");
    let burst = (0..2_000).map(|number| {
        let headers = [("authorization", "Bearer test-key")];
        let at = Duration::from_millis(number % 20);
        let world = &world;
        async move { world.bare_later(at, "POST", CHAT, &headers, chat_body("p/m", false), None).await }
    });
    let clients = world.run(join_all(burst));
    assert!(clients.iter().all(|client| matches!(client.status, 200 | 429)));
    assert_eq!(world.most_at("p"), 50);
    assert_eq!(clients.iter().filter(|client| client.status == 200).count(), 50);
    assert_eq!(world.used(&[("meter/key/alice/rpm", MINUTE)]), [50]);
}

#[test]
fn what_was_taken_for_a_request_that_never_learnt_of_it_is_given_back() {
    // Its client leaves while the store is asked; or the store answers too late, and it is refused.
    for (leaves, status, counted) in [(Some(Duration::from_millis(100)), 0, 1), (None, 503, 0)] {
        let closed = "budget.total = 1\n[prices.\"p/*\"]\ninput = 2\noutput = 8\n[state]\non_failure = \"closed\"";
        let world = world("quota = { requests_per_minute = 9, concurrent_requests = 9 }", closed);
        let total = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));
        let meters = [("meter/key/alice/rpm", MINUTE), ("meter/key/alice/at-once", Rule::Held)];
        world.kept().kill_after(0, true);
        let client = world.request(CHAT, chat_body("p/m", false), leaves);
        assert_eq!((client.left, client.status, world.sent()), (leaves.is_some(), status, 0));
        assert_eq!(world.used(&meters), [1, 1], "the store took it");
        world.kept().revive();
        world.pass(Duration::from_secs(10));
        assert_eq!(world.used(&meters), [counted, 0], "{leaves:?}");
        assert_eq!(world.used(&[("meter/key/alice/total", total)]), [0], "{leaves:?}");
    }
}
