//! llm-exe-lambda's `/invoke`, as its client sees it: through the gateway, on a simulated clock.

use crate::world;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::UpstreamRequest;
use world::{Act, Client, Script, World};

/// The page for those who come from that service.
const PAGE: &str = include_str!("../../../docs/coming-from-llm-exe.md");

fn world_with(more: &str) -> World {
    let text = format!(
        r#"
        [providers.openai]
        adapter = "openai"
        endpoint = "http://openai/v1"
        secrets = {{ api_key = "${{OPEN_AI_API_KEY}}" }}
        [providers.anthropic]
        adapter = "anthropic"
        endpoint = "http://anthropic"
        secrets = {{ api_key = "${{ANTHROPIC_API_KEY}}" }}
        [providers.bedrock]
        adapter = "bedrock"
        settings = {{ region = "us-west-2" }}
        secrets = {{ aws_access_key_id = "AKIDOWN", aws_secret_access_key = "wJalrXUtnFEMI" }}
        {more}
        "#
    );
    let environment = |name: &str| match name {
        "OPEN_AI_API_KEY" => Some("sk-openai".to_owned()),
        "ANTHROPIC_API_KEY" => Some("sk-anthropic".to_owned()),
        _ => None,
    };
    World::new(1, Config::from_toml(&text, "t.toml", &environment).unwrap_or_else(|problems| panic!("{problems}")))
}

fn world() -> World {
    world_with("")
}

fn answered(status: u16, body: &Value) -> Script {
    let body = Bytes::from(body.to_string());
    Script::new(vec![(1, Act::Head(status, "application/json")), (1, Act::Bytes(body)), (1, Act::End)])
}

fn openai(text: &str) -> Script {
    let message = json!({"role": "assistant", "content": text});
    answered(
        200,
        &json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }),
    )
}

fn anthropic(text: &str) -> Script {
    answered(
        200,
        &json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
            "stop_sequence": null, "content": [{"type": "text", "text": text}],
            "usage": {"input_tokens": 5, "output_tokens": 2},
        }),
    )
}

fn converse(text: &str) -> Script {
    answered(
        200,
        &json!({
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
            "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
        }),
    )
}

fn invoke(world: &World, body: &Value) -> Client {
    world.call("POST", "/invoke", &[], Bytes::from(body.to_string()))
}

fn body(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {:?}", client.body))
}

fn sent(world: &World) -> Vec<(UpstreamRequest, Value)> {
    let parsed = |request: &UpstreamRequest| serde_json::from_slice(&request.body).unwrap();
    world.requests_sent().into_iter().map(|request| (request.clone(), parsed(&request))).collect()
}

fn header<'a>(request: &'a UpstreamRequest, name: &str) -> &'a str {
    request.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// The fenced pieces of the page, in order.
fn fenced() -> Vec<&'static str> {
    PAGE.split("```").skip(1).step_by(2).map(|piece| piece.split_once('\n').expect("a tag").1.trim_end()).collect()
}

#[test]
fn exe_1_what_the_page_says_is_true() {
    let fenced = fenced();
    // Payload, what the model writes, and the answer.
    let triple = |number: usize| {
        (serde_json::from_str::<Value>(fenced[number]).unwrap(), fenced[number + 1], fenced[number + 2])
    };
    let world = world();

    let (payload, written, answer) = triple(0);
    world.upstream(vec![openai(written)]);
    let client = invoke(&world, &payload);
    assert_eq!((client.status, String::from_utf8(client.body).unwrap()), (200, answer.to_owned()));

    let (payload, written, answer) = triple(3);
    world.upstream(vec![openai(written)]);
    let client = invoke(&world, &payload);
    assert_eq!(client.status, 200);
    assert_eq!(body(&client), serde_json::from_str::<Value>(answer).unwrap());

    let (payload, configuration, answer) = triple(6);
    world.store("configuration", "greet.latest.md", configuration);
    world.upstream(vec![anthropic("Good morning, Ada!")]);
    let client = invoke(&world, &payload);
    assert_eq!((client.status, String::from_utf8(client.body).unwrap()), (200, answer.to_owned()));
    assert_eq!(sent(&world)[2].1["messages"][0]["content"].as_str(), Some("Greet Ada."));

    let (event, written, answer) = triple(9);
    world.upstream(vec![openai(written)]);
    let client = invoke(&world, &event);
    assert_eq!((client.status, body(&client)), (200, serde_json::from_str(answer).unwrap()));
}

#[test]
fn exe_1_openai_is_asked_with_its_key_and_answers_in_text() {
    let world = world();
    world.upstream(vec![openai("Meow!")]);
    let client = invoke(
        &world,
        &json!({
            "providor": "openai", "model": "gpt-4o-mini", "output": "string", "message": "Talk like a kitten. Hello!",
        }),
    );
    assert_eq!((client.status, client.body.as_slice()), (200, b"Meow!".as_slice()));
    assert_eq!(client.header("content-type"), Some("text/plain; charset=utf-8"));
    let (request, body) = sent(&world).remove(0);
    assert_eq!(request.url, "http://openai/v1/chat/completions");
    assert_eq!(body["model"], json!("gpt-4o-mini"));
    assert_eq!(body["messages"], json!([{"role": "system", "content": "Talk like a kitten. Hello!"}]));
}

#[test]
fn exe_3_anthropic_is_asked_itself_and_on_bedrock() {
    let world = world();
    world.upstream(vec![anthropic("Meow!"), converse("Miau!")]);
    let client = invoke(
        &world,
        &json!({
            "providor": "anthropic", "model": "claude-3-5-sonnet-20240620", "output": "string",
            "message": [{"role": "user", "content": "Talk like a kitten. Hello!"}],
        }),
    );
    assert_eq!((client.status, client.body.as_slice()), (200, b"Meow!".as_slice()));
    let client = invoke(
        &world,
        &json!({
            "providor": "amazon:anthropic", "model": "anthropic.claude-3-5-sonnet-20241022-v2:0", "output": "string",
            "message": "Talk like a kitten. Hello!",
        }),
    );
    assert_eq!((client.status, client.body.as_slice()), (200, "Miau!".as_bytes()));
    let sent = sent(&world);
    assert_eq!(sent[0].0.url, "http://anthropic/v1/messages");
    assert_eq!((&sent[0].1["model"], &sent[0].1["max_tokens"]), (&json!("claude-3-5-sonnet-20240620"), &json!(4096)));
    let url =
        "https://bedrock-runtime.us-west-2.amazonaws.com/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse";
    assert_eq!(sent[1].0.url, url);
    assert_eq!(sent[1].1["inferenceConfig"]["maxTokens"], json!(10_000));
    assert_eq!(sent[1].1["messages"][0]["role"], json!("user"));
}

#[test]
fn exe_3_an_unknown_provider_is_an_invalid_type() {
    let world = world();
    let client = invoke(&world, &json!({"provider": "nope", "model": "m", "message": "Hi"}));
    assert_eq!((client.status, &body(&client)["error"]), (400, &json!("Invalid providor type")));
    assert_eq!(world.sent(), 0);
}

#[test]
fn exe_5_a_stored_configuration_is_used_with_the_requests_data() {
    let world = world();
    let stored = r#"{"provider":"openai","model":"gpt-4o-mini","message":"{{a}}{{b}}","data":{"a":"A","b":"?"}}"#;
    world.store("configuration", "team/greet.2.json", stored);
    world.upstream(vec![openai("Hi")]);
    let payload = json!({"key": "team/greet", "version": "2", "data": {"b": "B"}, "model": "other"});
    assert_eq!(invoke(&world, &payload).body, b"Hi");
    let (_, asked) = sent(&world).remove(0);
    assert_eq!((&asked["model"], &asked["messages"][0]["content"]), (&json!("gpt-4o-mini"), &json!("AB")));
}

#[test]
fn exe_8_a_missing_configuration_is_404_and_one_outside_is_refused() {
    let world = world();
    let client = invoke(&world, &json!({"key": "team/greet"}));
    assert_eq!(client.status, 404);
    assert!(body(&client)["error"].as_str().unwrap().contains("\"team/greet.latest\""));
    assert_eq!(invoke(&world, &json!({"key": "../secret"})).status, 400);
    assert_eq!(world.sent(), 0);
}

#[test]
fn exe_9_a_wrong_payload_asks_nobody() {
    let world = world();
    let client = invoke(&world, &json!({"provider": "openai", "model": "m", "message": []}));
    assert_eq!((client.status, &body(&client)["error"]), (400, &json!("Invalid format")));
    let client = invoke(&world, &json!({"provider": "openai", "model": "m", "message": "Hi", "temperature": 1}));
    assert_eq!(client.status, 400);
    assert!(body(&client)["error"].as_str().unwrap().contains("temperature"), "{:?}", body(&client));
    assert_eq!(world.sent(), 0);
}

#[test]
fn exe_16_amazon_meta_is_asked_by_invoke_model_with_its_template() {
    let world = world();
    world.upstream(vec![answered(
        200,
        &json!({
            "generation": "Meow!", "prompt_token_count": 9, "generation_token_count": 3, "stop_reason": "stop",
        }),
    )]);
    let client = invoke(
        &world,
        &json!({
            "provider": "amazon:meta", "model": "us.meta.llama3-1-8b-instruct-v1:0", "message": ["Be a kitten.", "Hello!"],
        }),
    );
    assert_eq!((client.status, client.body.as_slice()), (200, "Meow!".as_bytes()), "{:?}", client.body);
    let (request, body) = sent(&world).remove(0);
    assert!(request.url.ends_with("/model/us.meta.llama3-1-8b-instruct-v1%3A0/invoke"), "{}", request.url);
    let prompt = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe a kitten.<|eot_id|>\
                  <|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>\
                  <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(body, json!({"prompt": prompt, "max_gen_len": 2048}));
}

/// A payload for JSON; OpenAI gets the schema itself.
fn json_payload(more: &Value) -> Value {
    let mut payload = json!({
        "provider": "openai", "model": "m", "message": "Hi", "output": "json",
        "schema": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}, "b": {"type": "string"}}, "required": ["b"]},
    });
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

#[test]
fn exe_23_openai_gets_a_response_format_and_others_a_text() {
    let world = world();
    world.upstream(vec![openai("{\"b\":\"x\"}"), anthropic("```json\n{\"b\":\"x\"}\n```")]);
    let first = invoke(&world, &json_payload(&json!({})));
    let second = invoke(&world, &json_payload(&json!({"provider": "anthropic"})));
    for client in [first, second] {
        assert_eq!((client.status, body(&client)), (200, json!({"a": 1, "b": "x"})));
        assert_eq!(client.header("content-type"), Some("application/json"));
    }
    let sent = sent(&world);
    let format = json!({"type": "json_schema", "json_schema": {"name": "output", "schema": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"],
    }}});
    assert_eq!(sent[0].1["response_format"], format);
    let text = sent[1].1["messages"][0]["content"].to_string();
    assert!(text.contains("The schema specification below") && text.contains("For example:"), "{text}");
}

#[test]
fn exe_25_a_list_comes_as_json() {
    let world = world();
    world.upstream(vec![openai("Sure:\n1. a\n2. b")]);
    let client = invoke(&world, &json!({"provider": "openai", "model": "m", "message": "Hi", "output": "list"}));
    assert_eq!((client.status, client.body.as_slice()), (200, br#"["a","b"]"#.as_slice()));
}

#[test]
fn exe_26_an_answer_that_does_not_match_is_502_with_its_text() {
    let world = world();
    world.upstream(vec![openai("I cannot.")]);
    let client = invoke(&world, &json_payload(&json!({})));
    let body = body(&client);
    assert_eq!(
        (client.status, &body["error"], &body["output"]),
        (502, &json!("output_parse_failed"), &json!("I cannot."))
    );
    assert_eq!((world.sent(), world.records()[0].status), (1, 502));
}

#[test]
fn exe_26_one_retry_shows_the_model_its_error() {
    let world = world();
    world.upstream(vec![openai("{\"a\":2}"), openai("{\"b\":\"now\"}")]);
    let client = invoke(&world, &json_payload(&json!({"retries": 1})));
    assert_eq!((client.status, body(&client)), (200, json!({"a": 1, "b": "now"})));
    let again = sent(&world).remove(1).1;
    assert_eq!(again["model"], json!("m"));
    assert_eq!(again["messages"][1], json!({"role": "assistant", "content": "{\"a\":2}"}));
    assert!(again["messages"][2]["content"].as_str().unwrap().contains("\"b\" is missing"), "{again}");
    assert!(again["response_format"].is_object());
    // What both questions cost is counted.
    assert_eq!(world.records()[0].usage.as_ref().and_then(|usage| usage.input_tokens), Some(10));
    // A second failure is the end.
    world.upstream(vec![openai("no"), openai("no"), openai("never asked")]);
    assert_eq!(invoke(&world, &json_payload(&json!({"retries": 1}))).status, 502);
    assert_eq!(world.sent(), 4);
}

#[test]
fn exe_27_functions_are_offered_and_their_uses_given() {
    let world = world();
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "search", "arguments": "{\"q\":\"x\"}"}});
    world.upstream(vec![answered(200, &json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{
            "index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null, "tool_calls": [call]},
        }],
    }))]);
    let client = invoke(
        &world,
        &json!({
            "provider": "openai", "model": "m", "message": "Hi", "functionCall": "any",
            "functions": [{"name": "search", "description": "d", "parameters": {"type": "object"}}],
        }),
    );
    let used = json!([{"type": "function_use", "functionId": "call_1", "name": "search", "input": {"q": "x"}}]);
    assert_eq!((client.status, body(&client)), (200, used));
    let asked = sent(&world).remove(0).1;
    assert_eq!(asked["tool_choice"], json!("required"));
    assert_eq!(
        asked["tools"][0]["function"],
        json!({"name": "search", "description": "d", "parameters": {"type": "object"}})
    );
}

#[test]
fn exe_29_a_backends_failure_is_an_object_with_its_message() {
    let world = world();
    let refusal = json!({"error": {"message": "slow down", "type": "rate_limit_error", "code": "x"}});
    world.upstream(vec![answered(429, &refusal), answered(500, &refusal)]);
    let payload = json!({"provider": "openai", "model": "m", "message": "Hi"});
    let client = invoke(&world, &payload);
    assert_eq!((client.status, body(&client)), (429, json!({"error": "slow down"})));
    assert_eq!(invoke(&world, &payload).status, 502);

    let world = world_with("[dialects.llm-exe]\nlegacy_status = true");
    world.upstream(vec![answered(429, &refusal)]);
    assert_eq!(invoke(&world, &payload).status, 500);
    assert_eq!(invoke(&world, &json!({})).status, 500);
}

#[test]
fn exe_31_the_keys_of_the_environment_reach_their_backends() {
    let world = world();
    world.upstream(vec![openai("a"), anthropic("b")]);
    for (provider, model) in [("openai", "m"), ("anthropic", "claude")] {
        assert_eq!(invoke(&world, &json!({"provider": provider, "model": model, "message": "Hi"})).status, 200);
    }
    let sent = sent(&world);
    assert_eq!(header(&sent[0].0, "authorization"), "Bearer sk-openai");
    assert_eq!(header(&sent[1].0, "x-api-key"), "sk-anthropic");
}

#[test]
fn exe_envelopes_an_http_event_gets_its_answer_and_its_failure_in_an_envelope() {
    let world = world();
    world.upstream(vec![openai("Meow!")]);
    let payload = json!({"provider": "openai", "model": "m", "message": "Hi"}).to_string();
    let client = invoke(&world, &json!({"httpMethod": "POST", "path": "/invoke", "body": payload}));
    let answer = body(&client);
    assert_eq!((client.status, &answer["statusCode"], &answer["body"]), (200, &json!(200), &json!("Meow!")));
    let client = invoke(&world, &json!({"httpMethod": "POST", "path": "/invoke", "body": "{}"}));
    let answer = body(&client);
    assert_eq!((client.status, &answer["statusCode"]), (400, &json!(400)));
    let failure: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(failure["error"], "Invalid message");
    let client = invoke(&world, &json!({"Records": []}));
    assert_eq!((client.status, &body(&client)["error"]), (400, &json!("Invalid event")));
}

#[test]
fn exe_29_a_failure_behind_the_payload_is_in_its_envelope_too() {
    let payload = json!({"provider": "openai", "model": "m", "message": "Hi"}).to_string();
    let unknown = json!({"provider": "none", "model": "m", "message": "Hi"}).to_string();
    let v1 = |body: &str| json!({"httpMethod": "POST", "path": "/invoke", "body": body});
    let v2 = |body: &str| json!({"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body});
    let alb = |body: &str| json!({"httpMethod": "POST", "path": "/", "requestContext": {"elb": {}}, "headers": {}, "body": body});
    let lists = |body: &str| {
        let mut event = alb(body);
        event["multiValueHeaders"] = json!({});
        event
    };
    let envelopes: [&dyn Fn(&str) -> Value; 4] = [&v1, &v2, &alb, &lists];
    for (number, envelope) in envelopes.iter().enumerate() {
        for legacy in [false, true] {
            let world = world_with(if legacy { "[dialects.llm-exe]\nlegacy_status = true" } else { "" });
            let told = |client: &Client, native: u16| {
                let (status, answer) = (if legacy { 500 } else { native }, body(client));
                assert_eq!((client.status, &answer["statusCode"]), (status, &json!(status)), "{answer}");
                let headers = if number == 3 { &answer["multiValueHeaders"] } else { &answer["headers"] };
                let kind = json!("application/json");
                assert_eq!(headers["content-type"], if number == 3 { json!([kind]) } else { kind });
                assert_eq!(answer.get("isBase64Encoded"), (number >= 2).then_some(&json!(false)));
                let inner: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
                inner["error"].as_str().unwrap().to_owned()
            };
            world.upstream(vec![
                answered(429, &json!({"error": {"message": "slow down"}})),
                Script::new(vec![(1, Act::Refuse)]),
            ]);
            let limited = invoke(&world, &envelope(&payload));
            assert!(told(&limited, 429).contains("slow down"));
            assert!(told(&invoke(&world, &envelope(&payload)), 502).contains("connect"));
            assert_eq!(told(&invoke(&world, &envelope(&unknown)), 400), "Invalid providor type");
            assert_eq!(world.records()[0].error_type.as_deref(), Some("rate_limit_error"));
            world.upstream(vec![openai("Meow!")]);
            let good = body(&invoke(&world, &envelope(&payload)));
            assert_eq!((&good["statusCode"], &good["body"]), (&json!(200), &json!("Meow!")));
        }
    }
}

#[test]
fn exe_26_retries_and_exe_18_escape_have_defaults_of_the_operator() {
    let world = world_with("[dialects.llm-exe]\nretries = 1\nescape = \"html\"");
    let mut payload = json!({
        "provider": "openai", "model": "m", "message": "{{a}}", "data": {"a": "<b>"}, "output": "json",
        "schema": {"type": "object"},
    });
    world.upstream(vec![openai("no"), openai("{}")]);
    let client = invoke(&world, &payload);
    assert_eq!((client.status, body(&client), world.sent()), (200, json!({}), 2));
    let said = |number: usize| {
        let sent: Value = serde_json::from_slice(&world.requests_sent()[number].body).unwrap();
        sent["messages"][0]["content"].as_str().unwrap().to_owned()
    };
    assert!(said(0).starts_with("&lt;b&gt;"), "{}", said(0));
    // What the payload says counts more.
    payload["retries"] = json!(0);
    payload["escape"] = json!("none");
    world.upstream(vec![openai("no")]);
    assert_eq!((invoke(&world, &payload).status, world.sent()), (502, 3));
    assert!(said(2).starts_with("<b>"), "{}", said(2));
}
