//! Responses that the gateway keeps, as clients see them.

use crate::world;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use world::{Act, Client, Script, StoreIs, World, answer_text, config, text_stream, whole_answer};

const RESPONSES: &str = "/v1/responses";

fn body(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

fn create(world: &World, request: &Value) -> Client {
    world.call("POST", RESPONSES, &[], Bytes::from(request.to_string()))
}

fn get(world: &World, path: &str) -> Client {
    world.call("GET", path, &[], Bytes::new())
}

fn answers(world: &World) {
    let body = Act::Bytes(whole_answer());
    world.upstream(vec![Script::new(vec![(1, Act::Head(200, "application/json")), (1, body), (1, Act::End)])]);
}

fn sent(world: &World, number: usize) -> Value {
    serde_json::from_slice(&world.requests_sent()[number].body).unwrap()
}

/// The events of a stream.
fn events(client: &Client) -> Vec<Value> {
    let text = std::str::from_utf8(&client.body).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn a_conversation_goes_on_from_a_kept_response_until_it_is_deleted() {
    let world = World::new(1, config());
    answers(&world);
    let first = create(&world, &json!({"model": "chain", "input": "Hi", "instructions": "Be brief."}));
    let response = body(&first);
    assert_eq!((first.status, &response["status"]), (200, &json!("completed")));
    assert_eq!(response["output"][0]["content"][0]["text"], answer_text());
    let id = response["id"].as_str().unwrap();
    assert!(id.starts_with("resp_"), "{id}");
    let of = |rest: &str| format!("{RESPONSES}/{id}{rest}");

    let again = get(&world, &of(""));
    assert_eq!((again.status, body(&again)), (200, response.clone()));
    let items = body(&get(&world, &of("/input_items")));
    assert_eq!(items["data"][0]["content"][0]["text"], "Hi");

    answers(&world);
    let request = json!({"model": "chain", "input": "And?", "previous_response_id": id, "store": false});
    let second = body(&create(&world, &request));
    assert_eq!(second["previous_response_id"], id);
    let said = sent(&world, 1)["messages"].clone();
    let texts = said.as_array().unwrap().iter().map(|message| {
        let content = &message["content"];
        content.as_str().or(content[0]["text"].as_str()).unwrap().to_owned()
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["Hi", &answer_text(), "And?"]);

    answers(&world);
    let item = &response["output"][0]["id"];
    let request = json!({"model": "chain", "input": [{"type": "item_reference", "id": item},
                                                     {"role": "user", "content": "Why?"}]});
    assert_eq!(create(&world, &request).status, 200);
    assert_eq!(sent(&world, 2)["messages"].as_array().unwrap().len(), 2);

    let cancelled = world.call("POST", &of("/cancel"), &[], Bytes::new());
    assert_eq!((cancelled.status, &body(&cancelled)["error"]["param"]), (400, &json!("id")));
    let deleted = world.call("DELETE", &of(""), &[], Bytes::new());
    assert_eq!((deleted.status, body(&deleted)), (200, json!({"id": id, "object": "response", "deleted": true})));
    let gone = get(&world, &of(""));
    assert_eq!(gone.status, 404);
    assert!(body(&gone)["error"]["message"].as_str().unwrap().contains("not found"));
    let request = json!({"model": "chain", "input": "x", "previous_response_id": id});
    let gone = create(&world, &request);
    assert_eq!((gone.status, &body(&gone)["error"]["code"]), (404, &json!("previous_response_not_found")));
    assert_eq!(world.sent(), 3);
}

#[test]
fn a_stream_is_kept_when_it_is_complete_and_a_cut_one_is_not() {
    let request = json!({"model": "chain", "input": "Hi", "stream": true});
    let stream = text_stream();
    for (end, last, status) in [(stream.len(), "response.completed", 200), (stream.len() / 2, "response.failed", 404)] {
        let world = World::new(1, config());
        world.upstream(vec![Script::stream_cut(&stream[..end], &[400])]);
        let events = events(&create(&world, &request));
        let ended = events.last().unwrap();
        assert_eq!(ended["type"], last);
        let id = events[0]["response"]["id"].as_str().unwrap();
        assert_eq!(ended["response"]["id"], id);
        let kept = get(&world, &format!("{RESPONSES}/{id}"));
        assert_eq!(kept.status, status);
        if status == 200 {
            assert_eq!(body(&kept), ended["response"]);
        } else {
            assert_eq!(events[events.len() - 2]["type"], "error");
        }
    }
}

#[test]
fn a_response_that_is_not_to_be_kept_is_not() {
    let world = World::new(1, config());
    answers(&world);
    let response = body(&create(&world, &json!({"model": "chain", "input": "Hi", "store": false})));
    let kept = get(&world, &format!("{RESPONSES}/{}", response["id"].as_str().unwrap()));
    assert_eq!((kept.status, &response["store"]), (404, &json!(false)));
}

#[test]
fn what_is_kept_for_one_client_no_other_one_finds() {
    let mut config = config();
    config.server.api_keys.push(witgate_config::Secret::new("other-key"));
    let world = World::new(1, config);
    answers(&world);
    let request = Bytes::from(json!({"model": "chain", "input": "My secret"}).to_string());
    let theirs = body(&world.request_with_key(Some("other-key"), RESPONSES, request));
    let id = theirs["id"].as_str().unwrap();
    assert_eq!(get(&world, &format!("{RESPONSES}/{id}")).status, 404);
    let on = create(&world, &json!({"model": "chain", "input": "And?", "previous_response_id": id}));
    assert!((400..=404).contains(&on.status), "{on:?}");
    assert_eq!(world.sent(), 1, "nothing of it reached a backend");
}

#[test]
fn the_query_pages_the_items_and_streams_a_kept_response_again() {
    let world = World::new(1, config());
    answers(&world);
    let input: Vec<Value> = (0..3).map(|number| json!({"role": "user", "content": format!("m{number}")})).collect();
    let made = body(&create(&world, &json!({"model": "chain", "input": input})));
    let id = made["id"].as_str().unwrap();
    let first = body(&get(&world, &format!("{RESPONSES}/{id}/input_items?limit=2&order=asc")));
    let said = |page: &Value| -> Vec<String> {
        let items = page["data"].as_array().unwrap().iter();
        items.map(|item| item["content"].as_str().or(item["content"][0]["text"].as_str()).unwrap().to_owned()).collect()
    };
    assert_eq!((said(&first), &first["has_more"]), (vec!["m0".to_owned(), "m1".to_owned()], &json!(true)));
    let after = first["last_id"].as_str().unwrap();
    let rest = body(&get(&world, &format!("{RESPONSES}/{id}/input_items?limit=2&order=asc&after={after}")));
    assert_eq!((said(&rest), &rest["has_more"]), (vec!["m2".to_owned()], &json!(false)));

    let again = get(&world, &format!("{RESPONSES}/{id}?stream=true&include%5B%5D=message.output_text.logprobs"));
    assert_eq!(again.header("content-type"), Some("text/event-stream"));
    let all = events(&again);
    assert_eq!((&all[0]["type"], &all.last().unwrap()["response"]), (&json!("response.created"), &made));
    let text: String = all
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(text, answer_text());
    let behind = events(&get(&world, &format!("{RESPONSES}/{id}?stream=true&starting_after=2")));
    assert_eq!(behind, all[3..]);
    let wrong = get(&world, &format!("{RESPONSES}/{id}?include=secrets"));
    assert_eq!((wrong.status, &body(&wrong)["error"]["param"]), (400, &json!("include")));
}

#[test]
fn a_response_is_kept_though_its_client_leaves_before_that_is_written() {
    let text = "[server]\napi_keys = [\"test-key\"]\n[state]\nstore = \"redis\"\nurl = \"redis://h\"\n[providers.p]\nadapter \
                = \"openai\"\nendpoint = \"http://p/v1\"";
    let config = Config::from_toml(text, "kept.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let world = World::new(1, config);
    let stream = Act::Bytes(Bytes::from(text_stream()));
    world.upstream(vec![Script::new(vec![(1, Act::Head(200, "text/event-stream")), (1, stream), (1, Act::End)])]);
    world.store_is(StoreIs::Slow(1_000));
    let request = json!({"model": "p/m", "input": "Hi", "stream": true});
    let client = world.request(RESPONSES, Bytes::from(request.to_string()), Some(Duration::from_millis(500)));
    let completed = events(&client).pop().unwrap();
    assert!(client.left && completed["type"] == "response.completed", "{client:?}");
    let record = world.records().remove(0);
    assert_eq!((record.outcome.as_str(), record.status), ("complete", 200));
    world.pass(Duration::from_secs(5));
    world.store_is(StoreIs::Well);
    let path = format!("{RESPONSES}/{}", completed["response"]["id"].as_str().unwrap());
    assert_eq!(body(&get(&world, &path))["output"][0]["content"][0]["text"], answer_text());
}
