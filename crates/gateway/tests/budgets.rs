//! Budgets, prices and spend over the simulated world: what is reserved, what is charged, what operators are told.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::state::Rule;
use world::{Act, Client, Script, World, chat_body, text_stream, whole_answer};

const CHAT: &str = "/v1/chat/completions";
const TOTAL: Rule = Rule::Period(Duration::ZERO, Duration::from_secs(9_999_999_999));

/// The simulated backend counts 3 and 7 tokens: at these prices 3 * 2 + 7 * 8 = 62 micro-dollars.
const PRICE: &str = "[prices.\"p/*\"]\ninput = 2\noutput = 8\n[prices.\"q/*\"]\ninput = 1\noutput = 4\n";
const COST: u64 = 62_000;

fn config(more: &str) -> Config {
    let text = format!(
        "[limits]\nmax_concurrent_requests = 100000\n[timeouts]\nconnect = \"1s\"\nfirst_token = \"10s\"\nidle = \
         \"5s\"\ntotal = \"60s\"\n[metrics]\nenabled = true\n[admin]\nkey = \"root\"\n[providers.p]\nadapter = \"openai\"\nendpoint = \
         \"http://p/v1\"\n[providers.q]\nadapter = \"openai\"\nendpoint = \"http://q/v1\"\n[models.chain]\ntargets = \
         [\"p/m\", \"q/m\"]\n{PRICE}{more}"
    );
    Config::from_toml(&text, "budgets.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn world(more: &str) -> World {
    let world = World::new(1, config(&format!("[keys.alice]\nsecret = \"test-key\"\n{more}")));
    world.serve(|_, _| good(false));
    world
}

fn good(stream: bool) -> Script {
    let (kind, body) = match stream {
        true => ("text/event-stream", Bytes::from(text_stream())),
        false => ("application/json", whole_answer()),
    };
    Script::new(vec![(1_000, Act::Head(200, kind)), (0, Act::Bytes(body)), (0, Act::End)])
}

fn json_of(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

/// A request that says that its answer has at most so many tokens.
fn bounded(model: &str, tokens: u64) -> Bytes {
    let json = json!({"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "Hi"}]});
    Bytes::from(json.to_string())
}

fn spend(world: &World, query: &str) -> Value {
    let client = world.bare("GET", &format!("/admin/spend?{query}"), &[("authorization", "Bearer root")], Bytes::new());
    assert_eq!(client.status, 200, "{client:?}");
    json_of(&client)
}

#[test]
fn a_budget_is_open_until_it_is_used_up_and_then_402() {
    // Three and a half answers.
    let world = world("budget.total = 0.000217");
    for number in 0..4 {
        assert_eq!(world.request(CHAT, bounded("p/m", 7), None).status, 200, "{number}");
    }
    let refused = world.request(CHAT, bounded("p/m", 7), None);
    let error = &json_of(&refused)["error"];
    assert_eq!(
        (refused.status, &error["code"], &error["type"]),
        (402, &json!("budget_exceeded"), &json!("insufficient_quota"))
    );
    assert_eq!(
        error["message"],
        "the budget of the key \"alice\" is used up: $0.000248 of $0.000217 in all, running requests included"
    );
    assert_eq!(refused.header("retry-after"), None);
    let message = json!({"model": "p/m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
    let message = world.request("/v1/messages", Bytes::from(message.to_string()), None);
    assert_eq!((message.status, &json_of(&message)["error"]["type"]), (402, &json!("billing_error")));
    assert_eq!(world.sent(), 4);
    let metrics = world.bare("GET", "/metrics", &[], Bytes::new());
    let metrics = String::from_utf8(metrics.body).unwrap();
    let line = metrics.lines().find(|line| line.starts_with("witgate_cost_dollars_total{")).unwrap_or(&metrics);
    assert!(line.ends_with("} 0.000248"), "{line}");
    let costs: Vec<_> = world.records().iter().take(6).map(|record| record.cost).collect();
    assert_eq!(costs, [Some(COST), Some(COST), Some(COST), Some(COST), None, None]);
}

#[test]
fn a_thousand_concurrent_requests_exceed_a_budget_by_at_most_one_request_s_worth() {
    for (dollars, ceiling) in [(0.01, 10_000_000_u64), (0.001_003, 1_003_000), (0.000_000_001, 1)] {
        let world = world(&format!("tenant = \"t\"\n[tenants.t]\nbudget.day = {dollars}"));
        let body = bounded("p/m", 7);
        let worth = 2_000 * body.len().div_ceil(4) as u64 + 8_000 * 7;
        let clients = world.requests(CHAT, &body, 1_000);
        let good = clients.iter().filter(|client| client.status == 200).count() as u64;
        assert!(clients.iter().all(|client| matches!(client.status, 200 | 402)));
        let start = world.unix_time().as_secs() / 86_400 * 86_400;
        let day = Rule::Period(Duration::from_secs(start), Duration::from_secs(start + 86_400));
        let used = world.used(&[("meter/tenant/t/day", day)])[0];
        assert_eq!(used, good * COST, "charged is what was answered");
        assert_eq!(good, ceiling.div_ceil(worth), "reserved were whole requests");
        assert!(used < ceiling + worth);
        // Later ones use what was reserved and not spent, up to the last.
        loop {
            match world.request(CHAT, body.clone(), None).status {
                402 => break,
                status => assert_eq!(status, 200),
            }
        }
        let used = world.used(&[("meter/tenant/t/day", day)])[0];
        assert!((ceiling..ceiling + worth).contains(&used), "{used} of {ceiling}");
    }
}

#[test]
fn a_day_s_budget_is_new_on_the_next_day_and_a_month_s_in_the_next_month() {
    let world = world("budget = { day = 0.00006, month = 0.00018 }");
    // 2023-11-14, 22:13:20.
    let ask = || world.request(CHAT, bounded("p/m", 7), None).status;
    assert_eq!([ask(), ask()], [200, 402]);
    world.pass(Duration::from_secs(2 * 3_600));
    assert_eq!([ask(), ask()], [200, 402]);
    world.pass(Duration::from_secs(86_400));
    assert_eq!([ask(), ask()], [200, 402]);
    world.pass(Duration::from_secs(86_400));
    assert_eq!(ask(), 402, "the month's");
    world.pass(Duration::from_secs(14 * 86_400));
    assert_eq!(ask(), 200, "December");
}

#[test]
fn a_request_far_from_a_threshold_does_not_ask_again_how_much_is_used() {
    let calls = |budget: f64, tokens: u64| {
        let world = world(&format!("budget.total = {budget}"));
        let ask = || assert_eq!(world.request(CHAT, bounded("p/m", tokens), None).status, 200);
        // What is told once a day is told.
        ask();
        let before = world.store_calls();
        ask();
        world.store_calls() - before
    };
    let far = calls(1_000.0, 7);
    assert_eq!(far, 2, "it takes, and it settles");
    assert_eq!(calls(0.0003, 7), far + 1, "half of it may be used");
    assert_eq!(calls(1_000.0, 1), far + 1, "it costs more than was reserved");
}

#[test]
fn thresholds_are_told_once_in_a_period() {
    let world = world("budget.day = 0.00062");
    let mut told = Vec::new();
    for number in 1..=12 {
        world.request(CHAT, bounded("p/m", 7), None);
        for warning in world.new_warnings() {
            assert!(warning.contains("scope: \"key\", owner: \"alice\", period: \"day\""), "{warning}");
            let percent: u64 = warning.split("percent: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
            told.push((number, percent));
        }
    }
    assert_eq!(told, [(5, 50), (8, 80), (10, 100)]);
    world.pass(Duration::from_secs(86_400));
    (0..5).for_each(|_| drop(world.request(CHAT, bounded("p/m", 7), None)));
    assert_eq!(world.new_warnings().len(), 1, "a new day, 50 % again");
    let metrics = String::from_utf8(world.bare("GET", "/metrics", &[], Bytes::new()).body).unwrap();
    for (percent, count) in [(50, 2), (80, 1), (100, 1)] {
        let line = format!("witgate_budget_thresholds_total{{scope=\"key\",percent=\"{percent}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn the_dearest_target_is_reserved_and_the_one_that_answers_is_charged() {
    let world = world("budget.total = 1");
    world.serve(|host, _| match host {
        "p" => Script::new(vec![(1, Act::Refuse)]),
        _ => good(false),
    });
    assert_eq!(world.request(CHAT, bounded("chain", 7), None).status, 200);
    let record = world.records().pop().unwrap();
    assert_eq!((record.provider.as_deref(), record.cost), (Some("q"), Some(COST / 2)));
    assert_eq!(world.used(&[("meter/key/alice/total", TOTAL)]), [COST / 2]);
}

#[test]
fn what_the_alias_for_all_other_models_serves_is_priced_charged_and_recorded_by_the_name_that_was_asked_for() {
    let all = "[providers.r]\nadapter = \"openai\"\nendpoint = \"http://r/v1\"\n[models.\"*\"]\ntarget = \"r\"\n\
               [prices.gold]\ninput = 2\noutput = 8\n[accounting]\nunpriced = \"refuse\"";
    let world = world(&format!("budget.total = 0.00006\n{all}"));
    let ask = |model: &str| {
        let client = world.request(CHAT, bounded(model, 7), None);
        (client.status, json_of(&client)["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("lead"), (403, "model_not_priced".to_owned()));
    assert_eq!(ask("gold"), (200, String::new()));
    assert_eq!(world.used(&[("meter/key/alice/total", TOTAL)]), [COST]);
    assert_eq!(ask("gold"), (402, "budget_exceeded".to_owned()));
    let told = spend(&world, "group_by=model");
    let models: Vec<_> = told["data"].as_array().unwrap().iter().map(|entry| &entry["model"]).collect();
    assert_eq!(models, ["gold"]);
}

#[test]
fn reserved_is_the_price_of_the_dearest_kind_of_token() {
    // What is written to a cache, and reasoning, cost more than plain tokens here.
    let special = "[prices.\"p/special\"]\ninput = 2\noutput = 8\ncache_write = 20\nreasoning = 80";
    let world = world(&format!("budget.total = 0.001\n{special}"));
    let body = bounded("p/special", 7);
    let worth = 20_000 * body.len().div_ceil(4) as u64 + 80_000 * 7;
    let clients = world.requests(CHAT, &body, 10);
    let good = clients.iter().filter(|client| client.status == 200).count() as u64;
    assert_eq!(good, 1_000_000_u64.div_ceil(worth));
}

#[test]
fn cached_and_reasoning_tokens_are_charged_by_their_own_prices() {
    let special = "[prices.special]\ninput = 3\noutput = 15\ncache_read = 0.3\nreasoning = 30";
    let own = 1_000 * 2_000 + 100 * 8_000;
    let by_kind = 100 * 3_000 + 900 * 300 + 40 * 15_000 + 60 * 30_000;
    // The price of a provider's models stands before that of the name.
    for (provider, cost) in [("p", own), ("other", by_kind)] {
        let world = world(&format!("{special}\n[providers.other]\nadapter = \"openai\"\nendpoint = \"http://o/v1\""));
        world.serve(|_, _| {
            let answer = json!({
                "id": "1", "object": "chat.completion", "created": 1, "model": "special",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
                    "prompt_tokens_details": {"cached_tokens": 900},
                    "completion_tokens_details": {"reasoning_tokens": 60}},
            });
            let bytes = Bytes::from(answer.to_string());
            Script::new(vec![(1, Act::Head(200, "application/json")), (0, Act::Bytes(bytes)), (0, Act::End)])
        });
        world.request(CHAT, bounded(&format!("{provider}/special"), 7), None);
        assert_eq!(world.records()[0].cost, Some(cost), "{provider}");
    }
}

#[test]
fn a_model_without_a_price_is_free_or_refused_as_configured() {
    let unpriced = "[providers.local]\nadapter = \"openai\"\nendpoint = \"http://local/v1\"\n[models.mixed]\ntargets = \
                    [\"p/m\", \"local/m\"]\n[keys.bob]\nsecret = \"sk-bob\"\n";
    for (mode, expected) in [("free", [200, 200, 200]), ("refuse", [403, 403, 200])] {
        let world = world(&format!("budget.total = 1\n{unpriced}[accounting]\nunpriced = \"{mode}\""));
        let ask = |model: &str| world.request(CHAT, bounded(model, 7), None);
        assert_eq!(["local/m", "mixed", "p/m"].map(|model| ask(model).status), expected, "{mode}");
        if mode == "refuse" {
            assert_eq!(json_of(&ask("local/m"))["error"]["code"], "model_not_priced");
        }
        // Whoever has no budget needs no price.
        assert_eq!(world.request_with_key(Some("sk-bob"), CHAT, bounded("local/m", 7)).status, 200);
        assert_eq!(world.records().pop().unwrap().cost, None);
    }
}

#[test]
fn spend_can_be_asked_for_by_key_model_tenant_and_day() {
    let world = world("tenant = \"t\"\n[keys.bob]\nsecret = \"sk-bob\"");
    let ask = |key, model| assert_eq!(world.request_with_key(Some(key), CHAT, bounded(model, 7)).status, 200);
    ask("test-key", "p/m");
    ask("test-key", "chain");
    ask("sk-bob", "chain");
    world.pass(Duration::from_secs(86_400));
    ask("test-key", "chain");
    // An error is not spend.
    world.request(CHAT, chat_body("nothing", false), None);
    let all = spend(&world, "");
    assert_eq!((&all["to"], &all["from"]), (&json!("2023-11-15"), &json!("2023-10-17")));
    assert_eq!(
        all["total"],
        json!({"cost_usd": 0.000248, "cost_nano_usd": 4 * COST, "requests": 4, "input_tokens": 12, "output_tokens": 28})
    );
    let by = |query: &str, names: &[&str]| -> Vec<(String, u64)> {
        let answer = spend(&world, query);
        let data = answer["data"].as_array().unwrap().iter();
        let name =
            |entry: &Value| names.iter().map(|name| entry[*name].as_str().unwrap()).collect::<Vec<_>>().join(" ");
        data.map(|entry| (name(entry), entry["requests"].as_u64().unwrap())).collect()
    };
    let found =
        |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(by("group_by=key", &["key"]), found(&[("alice", 3), ("bob", 1)]));
    assert_eq!(by("group_by=model", &["model"]), found(&[("chain", 3), ("p/m", 1)]));
    assert_eq!(by("group_by=day", &["day"]), found(&[("2023-11-14", 3), ("2023-11-15", 1)]));
    assert_eq!(
        by("group_by=day,key&model=chain", &["day", "key"]),
        found(&[("2023-11-14 alice", 1), ("2023-11-14 bob", 1), ("2023-11-15 alice", 1),])
    );
    assert_eq!(spend(&world, "tenant=t")["total"]["requests"], 3);
    assert_eq!(spend(&world, "key=bob")["total"]["requests"], 1);
    assert_eq!(spend(&world, "model=p%2Fm")["total"]["requests"], 1);
    assert_eq!(spend(&world, "from=2023-11-15&to=2023-11-15")["total"]["requests"], 1);
    assert_eq!(spend(&world, "to=2023-11-13")["data"], json!([]));
}

#[test]
fn the_accounts_agree_over_a_thousand_seeds_of_faults_fallbacks_and_cancels() {
    let more = "[keys.alice]\nsecret = \"test-key\"\ntenant = \"t\"\nquota = { tokens_per_minute = 4000000000, \
                concurrent_requests = 1000 }\nbudget.total = 1000\n[tenants.t]\nbudget.total = 1000\n[models.q]\ntarget \
                = \"q/m\"\n";
    let (mut charged, mut cut, mut fell_back) = (0_u64, 0, 0);
    for seed in 0..1_000 {
        let world = World::new(seed, config(more));
        let count = 1 + world.below(6) as usize;
        let chats: Vec<_> = (0..count)
            .map(|_| {
                let at = Duration::from_millis(world.below(8_000));
                let leaves = world.chance(25).then(|| at + Duration::from_millis(world.below(9_000)));
                (at, world.chance(60), leaves)
            })
            .collect();
        let scripts = (0..count * 6).map(|number| Script::random(&world, chats[number % count].1)).collect();
        world.upstream(scripts);
        let clients = world.chats(chats);
        let records = world.records();
        assert_eq!(records.len(), clients.len(), "seed {seed}: requests in are records out");
        let cost: u64 = records.iter().filter_map(|record| record.cost).sum();
        let meters = [("meter/key/alice/total", TOTAL), ("meter/tenant/t/total", TOTAL)];
        assert_eq!(world.used(&meters), [cost, cost], "seed {seed}: charged is the sum over answers");
        let places = [("meter/key/alice/at-once", Rule::Held)];
        assert_eq!(world.used(&places), [0], "seed {seed}: every place is given back");
        let told = spend(&world, "from=2023-11-14&to=2023-11-15");
        assert_eq!(told["total"]["cost_nano_usd"], json!(cost), "seed {seed}: spend is what was charged");
        // What was answered whole cost what the backend counted, at one of the two prices, and never less.
        for record in records.iter().filter(|record| record.status == 200) {
            if let Some(usage) = record.usage.as_ref().filter(|_| record.outcome.as_str() == "complete") {
                let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
                let least = input * 1_000 + output * 4_000;
                let cost = record.cost.unwrap_or(0);
                assert!((least..=10 * least).contains(&cost), "seed {seed}: {cost} for {input} + {output}");
            }
        }
        charged += u64::from(cost > 0);
        cut += clients.iter().filter(|client| client.left && !client.body.is_empty()).count();
        fell_back += records.iter().filter(|record| record.attempts > 1).count();
    }
    // The seeds have shown all of it.
    assert!(charged > 800 && cut > 50 && fell_back > 300, "{charged} {cut} {fell_back}");
}

#[test]
fn an_exhausted_budget_refuses_streams_before_they_begin() {
    let world = world("budget.total = 0");
    let streams = (0..3).map(|_| {
        let headers = [("authorization", "Bearer test-key")];
        let world = &world;
        async move { world.bare_later(Duration::ZERO, "POST", CHAT, &headers, chat_body("p/m", true), None).await }
    });
    for client in world.run(join_all(streams)) {
        assert_eq!((client.status, client.header("content-type")), (402, Some("application/json")));
    }
    assert_eq!(world.sent(), 0);
}
