//! llm-exe-lambda's `/invoke`, by the numbers of its description.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{failure, started};
use serde_json::{Value, json};
use witgate_dialects::{Renderer, default_limits, refuse, step};
use witgate_model::normaliser::{AnswerStart, Client, Document, Failure, Limits, Parsed, Rendered, Step};
use witgate_model::{
    BlockKind, BlockStart, Error, ErrorKind, Event, FinishReason, Input, Message, Part, Request, ResponseFormat, Role,
    Tool, ToolCallStart, ToolChoice,
};

const DIALECT: &str = "llm-exe";

fn client() -> Client {
    Client { method: "POST".into(), path: "/invoke".into(), ..Client::default() }
}

fn run(client: &Client, body: &Value) -> Result<Step, Error> {
    step(DIALECT, client, &default_limits(), body.to_string().as_bytes())
}

/// The parsed request; `follow` is dropped.
#[track_caller]
fn asked(body: &Value) -> Parsed {
    match run(&client(), body) {
        Ok(Step::Ask(parsed) | Step::Follow(parsed)) => parsed,
        other => panic!("{body}: {other:?}"),
    }
}

fn refusal(error: Error) -> Failure {
    Failure {
        error,
        error_type: "invalid_request_error".into(),
        provider: None,
        request_id: "req-1".into(),
        upstream: None,
        attempts: Vec::new(),
    }
}

/// Status and body of a refused payload.
#[track_caller]
fn refused(body: &Value) -> (u16, Value) {
    let error = match run(&client(), body) {
        Err(error) => error,
        other => panic!("{body}: {other:?}"),
    };
    let rendered = refuse(DIALECT, "", &refusal(error));
    (rendered.status, serde_json::from_slice(&rendered.body).unwrap())
}

/// The words of a payload refused with 400, and the detail.
#[track_caller]
fn words(body: &Value) -> (String, String) {
    let (status, json) = refused(body);
    assert_eq!(status, 400, "{json}");
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    (text("error"), text("detail"))
}

/// A payload for OpenAI with these members beside.
fn payload(more: Value) -> Value {
    let mut members = json!({"provider": "openai", "model": "m", "message": "Hi"});
    for (name, value) in more.as_object().unwrap() {
        members[name] = value.clone();
    }
    members
}

fn messages(request: &Request) -> Vec<(Role, String)> {
    let Input::Chat(messages) = &request.input else { panic!("no chat: {:?}", request.input) };
    let text = |message: &Message| match &message.parts[..] {
        [Part::Text(text)] => text.text.clone(),
        [Part::ToolResult(result)] => format!("{:?}", result.content),
        other => panic!("{other:?}"),
    };
    messages.iter().map(|message| (message.role.clone(), text(message))).collect()
}

/// What a template makes of data.
#[track_caller]
fn template(text: &str, data: Value) -> String {
    messages(&asked(&payload(json!({"message": text, "data": data}))).request).remove(0).1
}

/// What is wrong with a template.
#[track_caller]
fn broken(text: &str, data: Value) -> String {
    let (status, json) = refused(&payload(json!({"message": text, "data": data})));
    assert_eq!(status, 400);
    json["error"].as_str().unwrap().to_owned()
}

fn renderer(parsed: &Parsed) -> Renderer {
    let start =
        AnswerStart { render: parsed.render.clone(), id: "x".into(), created: 0, model: parsed.request.model.clone() };
    Renderer::new(DIALECT, start)
}

fn events(text: &str) -> Vec<Event> {
    let mut events = vec![started(), Event::text_start(0, 0)];
    if !text.is_empty() {
        events.push(Event::text(0, text));
    }
    events.extend([Event::BlockStop(0), Event::finish(0, FinishReason::Stop, None), Event::Done]);
    events
}

/// The whole answer when the model has written `text`.
fn answer(parsed: &Parsed, text: &str) -> Rendered {
    let mut renderer = renderer(parsed);
    let body = renderer.feed(events(text));
    Rendered { body, ..renderer.head() }
}

fn as_json(rendered: &Rendered) -> Value {
    serde_json::from_slice(&rendered.body).unwrap()
}

fn header<'r>(rendered: &'r Rendered, name: &str) -> &'r str {
    rendered.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

fn list(text: &str) -> Value {
    as_json(&answer(&asked(&payload(json!({"output": "list"}))), text))
}

fn structured(schema: Value, text: &str) -> (u16, Value) {
    let rendered = answer(&asked(&payload(json!({"output": "json", "schema": schema}))), text);
    (rendered.status, as_json(&rendered))
}

/// The fifth example of the document.
fn example_5() -> Value {
    let property = |description: &str| json!({"type": "string", "default": "none", "description": description});
    json!({
        "output": "json", "providor": "openai", "model": "gpt-4o-mini",
        "message": ["You are performing research for an article. Search Google to learn more about the topic. The topic is: {{ topic }}"],
        "schema": {
            "type": "object",
            "properties": {
                "query": property("The query you would like to use for initiating a Google search."),
                "explanation": property("Provide a brief explanation on the required research approach or findings, as if collaborating with a colleague."),
                "thought": property("Detail your insights or thought process in a first-person narrative."),
            },
            "required": ["query", "explanation", "thought"],
            "additionalProperties": false,
        },
        "data": {"topic": "shark week"},
    })
}

#[test]
fn exe_1_the_first_example_of_the_document_asks_openai() {
    let parsed = asked(&json!({
        "providor": "openai", "model": "gpt-4o-mini", "output": "string", "message": "Talk like a kitten. Hello!",
    }));
    let request = &parsed.request;
    assert_eq!((request.model.as_str(), request.dialect.as_str()), ("openai/gpt-4o-mini", DIALECT));
    assert_eq!(messages(request), [(Role::System, "Talk like a kitten. Hello!".into())]);
    assert_eq!((request.sampling.max_tokens, request.stream, &request.extra), (None, false, &None));
    let rendered = answer(&parsed, "Meow!");
    assert_eq!((rendered.status, rendered.body.as_slice()), (200, "Meow!".as_bytes()));
    assert_eq!(header(&rendered, "content-type"), "text/plain; charset=utf-8");
}

#[test]
fn exe_1_the_second_and_third_examples_of_the_document_ask_anthropics_models() {
    let request = asked(&json!({
        "providor": "amazon:anthropic", "model": "anthropic.claude-3-5-sonnet-20241022-v2:0", "output": "string",
        "message": "Talk like a kitten. Hello!",
    }))
    .request;
    assert_eq!(request.model, "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0");
    assert_eq!(messages(&request), [(Role::User, "Talk like a kitten. Hello!".into())]);
    let request = asked(&json!({
        "providor": "anthropic", "model": "claude-3-5-sonnet-20240620", "output": "string",
        "message": [{"role": "user", "content": "Talk like a kitten. Hello!"}],
    }))
    .request;
    assert_eq!(request.model, "anthropic/claude-3-5-sonnet-20240620");
    assert_eq!(messages(&request), [(Role::User, "Talk like a kitten. Hello!".into())]);
}

#[test]
fn exe_1_the_fifth_example_of_the_document_has_data_and_a_schema() {
    let parsed = asked(&example_5());
    let text = "You are performing research for an article. Search Google to learn more about the topic. The topic is: \
                shark week";
    assert_eq!(messages(&parsed.request), [(Role::System, text.into())]);
    let rendered = answer(&parsed, r#"{"query":"shark week dates","explanation":"e","thought":"t"}"#);
    assert_eq!(rendered.status, 200);
    assert_eq!(header(&rendered, "content-type"), "application/json");
    assert_eq!(as_json(&rendered), json!({"query": "shark week dates", "explanation": "e", "thought": "t"}));
}

#[test]
fn exe_2_providor_and_provider_are_one_and_must_not_differ() {
    for members in [
        json!({"providor": "openai", "provider": null}),
        json!({"provider": "openai"}),
        json!({"providor": "openai", "provider": "openai"}),
    ] {
        let mut body = json!({"model": "m", "message": "Hi"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        assert_eq!(asked(&body).request.model, "openai/m");
    }
    let (error, detail) = words(&payload(json!({"providor": "anthropic"})));
    assert_eq!(error, "Invalid providor type");
    assert!(detail.contains("differ"), "{detail}");
}

#[test]
fn exe_2_the_output_is_a_string_where_none_is_named() {
    assert_eq!(answer(&asked(&payload(json!({}))), "- a\n").body, b"- a\n");
}

#[test]
fn exe_2_members_that_this_api_does_not_have_are_left_to_the_adapter() {
    let request = asked(&payload(json!({"temperature": 0.5, "x": [1]}))).request;
    assert_eq!(request.extra.as_deref(), Some(r#"{"temperature":0.5,"x":[1]}"#));
}

#[test]
fn exe_3_providers_become_targets() {
    for (provider, model) in [
        ("openai", "openai/m"),
        ("anthropic", "anthropic/m"),
        ("amazon:anthropic", "bedrock/m"),
        ("amazon:meta", "bedrock/m"),
        ("local", "local/m"),
    ] {
        assert_eq!(asked(&payload(json!({"provider": provider}))).request.model, model);
    }
    // A model's own slashes are its own.
    assert_eq!(asked(&payload(json!({"model": "a/b"}))).request.model, "openai/a/b");
}

#[test]
fn exe_3_a_provider_that_the_gateway_does_not_know_is_an_invalid_type() {
    let error = Error::new(ErrorKind::InvalidRequest, "no model \"x/m\"").with_code("model_not_found").with_status(404);
    let rendered = refuse(DIALECT, "", &refusal(error));
    assert_eq!(rendered.status, 400);
    assert_eq!(as_json(&rendered), json!({"error": "Invalid providor type", "detail": "no model \"x/m\""}));
    assert_eq!(words(&payload(json!({"provider": "a/b"}))).0, "Invalid providor type");
}

fn needs(body: &Value) -> Vec<String> {
    match run(&client(), body) {
        Ok(Step::Needs(at)) => {
            assert!(at.iter().all(|at| at.kind == "configuration"));
            at.into_iter().map(|at| at.key).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// What becomes of a payload that names a configuration, with these documents.
fn with_documents(body: &Value, documents: &[(&str, &str)]) -> Result<Step, Error> {
    let Ok(Step::Needs(at)) = run(&client(), body) else { panic!("{body} needs nothing") };
    let content = |key: &str| documents.iter().find(|(name, _)| *name == key).map(|(_, text)| (*text).to_owned());
    let documents = at.into_iter().map(|at| Document { content: content(&at.key), at }).collect();
    run(&Client { documents, ..client() }, body)
}

#[track_caller]
fn stored(body: &Value, documents: &[(&str, &str)]) -> Request {
    match with_documents(body, documents) {
        Ok(Step::Ask(parsed) | Step::Follow(parsed)) => parsed.request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn exe_4_a_key_names_a_stored_configuration_and_its_version() {
    assert_eq!(needs(&json!({"key": "greet"})), ["greet.latest.json", "greet.latest.md"]);
    assert_eq!(needs(&json!({"key": "team/greet", "version": "2"})), ["team/greet.2.json", "team/greet.2.md"]);
    assert_eq!(needs(&json!({"key": "greet", "version": 3})), ["greet.3.json", "greet.3.md"]);
    let text = r#"{"providor":"openai","model":"gpt-4o-mini","message":"Greet {{name}}."}"#;
    let request = stored(&json!({"key": "greet", "data": {"name": "Ada"}}), &[("greet.latest.json", text)]);
    assert_eq!(request.model, "openai/gpt-4o-mini");
    assert_eq!(messages(&request), [(Role::System, "Greet Ada.".into())]);
}

#[test]
fn exe_5_the_requests_data_is_merged_over_the_stored_data_and_nothing_else_overrides() {
    let text = r#"{"provider":"openai","model":"m","message":"{{a}} {{b}} {{c}}","data":{"a":1,"b":{"x":1},"c":3}}"#;
    let body = json!({
        "key": "k", "data": {"b": 2}, "model": "other", "provider": "anthropic", "message": "no", "output": "json",
    });
    let request = stored(&body, &[("k.latest.json", text)]);
    assert_eq!(request.model, "openai/m");
    assert_eq!(messages(&request), [(Role::System, "1 2 3".into())]);
    assert_eq!(request.extra, None);
    // Where both are there, JSON comes first.
    let markdown = "---\nprovider: openai\nmodel: other\n---\nHi";
    let request = stored(&json!({"key": "k"}), &[("k.latest.md", markdown), ("k.latest.json", text)]);
    assert_eq!(request.model, "openai/m");
}

#[test]
fn exe_7_a_stored_file_may_be_markdown_with_front_matter_and_sections() {
    let text = "---\r\nproviders: &no x\r\n---\r\nHi";
    let error = with_documents(&json!({"key": "k"}), &[("k.latest.md", text)]).unwrap_err();
    assert_eq!(error.status, Some(400));
    assert!(error.message.contains("\"k.latest.md\"") && error.message.contains("line 2: anchors"), "{error:?}");

    let text = "---\nprovidor: anthropic # who\nmodel: \"claude-3-5-sonnet\"\noutput: json\ndata:\n  tone: warm\n  count: 3\n  \
                list: [a, 2, true, null, 1.5, '4']\nschema:\n  type: object\n  properties:\n    greeting:\n      type: string\n  \
                required:\n    - greeting\n---\nNotes that are no message.\n\nSystem: You are {{tone}}.\nGreet {{count}} \
                times.\n\n  user: Hello, {{name}}!\n{{#each list}}{{this}};{{/each}}\n\nASSISTANT: Dear\n";
    let request = stored(&json!({"key": "k", "data": {"name": "Ada"}}), &[("k.latest.md", text)]);
    assert_eq!(request.model, "anthropic/claude-3-5-sonnet");
    let got = messages(&request);
    assert!(got[0].1.starts_with("You are warm.\nGreet 3 times.\n\nThe schema specification"), "{got:?}");
    assert_eq!(got[1..], [(Role::User, "Hello, Ada!\na;2;true;;1.5;4;".into()), (Role::Assistant, "Dear".into()),]);
}

#[test]
fn exe_7_markdown_without_sections_is_one_message() {
    let text = "---\nprovider: openai\nmodel: m\n---\n\nTalk like a kitten.\n---\nHello!\n";
    let request = stored(&json!({"key": "k"}), &[("k.latest.md", text)]);
    assert_eq!(messages(&request), [(Role::System, "Talk like a kitten.\n---\nHello!".into())]);
}

#[test]
fn exe_7_what_is_wrong_with_front_matter_is_told_with_its_line() {
    for (text, what) in [
        ("---\nmodel: m\n", "has no end"),
        ("---\nmodel: m\nmodel: n\n---\n", "line 3: `model` stands there twice"),
        ("---\na: [1\n---\n", "line "),
        ("---\n- a\n---\n", "no mapping"),
        ("---\na: !!binary x\n---\n", "line 2: tags"),
        ("---\na: *x\n---\n", "line 2"),
        ("---\nmessage: x\n---\n", "`message`"),
        ("---\nkey: x\n---\n", "names another one"),
    ] {
        let error = with_documents(&json!({"key": "k"}), &[("k.latest.md", text)]).unwrap_err();
        assert!(error.message.contains(what), "{text:?}: {}", error.message);
        assert_eq!(error.status, Some(400));
    }
}

#[test]
fn exe_8_a_missing_configuration_is_404_with_its_key() {
    let error = with_documents(&json!({"key": "team/greet", "version": "7"}), &[]).unwrap_err();
    let rendered = refuse(DIALECT, "", &refusal(error));
    assert_eq!(rendered.status, 404);
    let text = as_json(&rendered)["error"].as_str().unwrap().to_owned();
    assert!(text.contains("\"team/greet.7\""), "{text}");
}

#[test]
fn exe_8_keys_that_lead_out_of_the_folder_are_refused() {
    let long = "k".repeat(385);
    for body in [
        json!({"key": "../x"}),
        json!({"key": "a/../../x"}),
        json!({"key": "a..b"}),
        json!({"key": "/etc/x"}),
        json!({"key": "a//b"}),
        json!({"key": "a/"}),
        json!({"key": "a\\b"}),
        json!({"key": "a\u{0}"}),
        json!({"key": ""}),
        json!({"key": 1}),
        json!({"key": long}),
        json!({"key": "a", "version": "../x"}),
        json!({"key": "a", "version": "b/c"}),
        json!({"key": "a", "version": true}),
        json!({"key": "a", "version": ""}),
    ] {
        assert_eq!(words(&body).0, "Invalid event", "{body}");
    }
}

#[test]
fn exe_9_what_is_wrong_is_said_in_the_words_of_the_original() {
    for (body, error) in [
        (json!([]), "Invalid event"),
        (json!("x"), "Invalid event"),
        (payload(json!({"message": ""})), "Invalid message"),
        (payload(json!({"message": null})), "Invalid message"),
        (payload(json!({"message": 5})), "Invalid format"),
        (payload(json!({"model": ""})), "Invalid model"),
        (payload(json!({"model": 5})), "Invalid model"),
        (payload(json!({"provider": null})), "Invalid providor type"),
        (payload(json!({"provider": 5})), "Invalid providor type"),
        (payload(json!({"output": "xml"})), "Invalid output type"),
        (payload(json!({"output": ["json"]})), "Invalid output type"),
        (payload(json!({"output": "json"})), "Output type of json requires schema"),
        (payload(json!({"output": "json", "schema": null})), "Output type of json requires schema"),
        // The first in this order.
        (json!({}), "Invalid message"),
        (json!({"message": "a"}), "Invalid model"),
        (json!({"message": "a", "model": "m"}), "Invalid providor type"),
    ] {
        let (told, detail) = words(&body);
        assert_eq!(told, error, "{body}");
        assert!(!detail.is_empty());
    }
    let Err(error) = step(DIALECT, &client(), &default_limits(), b"{\"a\":1,}") else { panic!() };
    let rendered = refuse(DIALECT, "", &refusal(error));
    assert_eq!((rendered.status, &as_json(&rendered)["error"]), (400, &json!("Invalid event")));
    assert!(as_json(&rendered)["detail"].as_str().unwrap().contains("line 1, column 8"), "{:?}", as_json(&rendered));
}

#[test]
fn exe_9_wrong_settings_of_a_payload_are_named() {
    for (more, name) in [
        (json!({"data": []}), "data"),
        (json!({"escape": "xml"}), "escape"),
        (json!({"retries": 2}), "retries"),
        (json!({"retries": "1"}), "retries"),
        (json!({"stream": true}), "stream"),
        (json!({"prompt_format": "llama3"}), "prompt_format"),
        (json!({"provider": "amazon:meta", "prompt_format": "x"}), "prompt_format"),
        (json!({"output": "json", "schema": {"type": "strin"}}), "schema"),
        (json!({"output": "json", "schema": {"$ref": "http://x/y"}}), "nothing is fetched"),
        (json!({"output": "json", "schema": {"pattern": "(?=a)"}}), "/pattern"),
    ] {
        let (error, _) = words(&payload(more.clone()));
        assert!(error.contains(name), "{more}: {error}");
    }
}

#[test]
fn exe_10_mixed_or_empty_messages_are_an_invalid_format() {
    for message in [
        json!([]),
        json!([""]),
        json!(["a", {"role": "user", "content": "b"}]),
        json!([{"role": "user", "content": "b"}, "a"]),
        json!([{"role": "user"}]),
        json!([{"content": "a"}]),
        json!([{"role": "user", "content": ""}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
        json!([1]),
        json!({"role": "user", "content": "a"}),
    ] {
        let (error, detail) = words(&payload(json!({"message": message})));
        assert_eq!(error, "Invalid format", "{message}");
        assert!(detail.contains("`message"), "{detail}");
    }
}

#[test]
fn exe_12_one_string_is_the_systems_and_for_anthropics_family_the_users() {
    for (provider, model, role) in [
        ("openai", "m", Role::System),
        ("local", "m", Role::System),
        ("anthropic", "m", Role::User),
        ("amazon:anthropic", "m", Role::User),
        ("bedrock", "us.anthropic.claude-x", Role::User),
    ] {
        let request = asked(&payload(json!({"provider": provider, "model": model}))).request;
        assert_eq!(messages(&request), [(role, "Hi".into())], "{provider}");
    }
    let request = asked(&payload(json!({"provider": "anthropic", "message": ["only"]}))).request;
    assert_eq!(messages(&request), [(Role::User, "only".into())]);
}

#[test]
fn exe_13_strings_are_the_systems_the_users_the_assistants_and_so_on() {
    let got = |message: Value| messages(&asked(&payload(json!({"message": message}))).request);
    assert_eq!(
        got(json!(["s", "u", "a", "u2", "a2"])),
        [
            (Role::System, "s".into()),
            (Role::User, "u".into()),
            (Role::Assistant, "a".into()),
            (Role::User, "u2".into()),
            (Role::Assistant, "a2".into()),
        ]
    );
    assert_eq!(got(json!(["", "u"])), [(Role::User, "u".into())]);
    assert_eq!(got(json!(["s", "", "a"])), [(Role::System, "s".into()), (Role::Assistant, "a".into())]);
}

#[test]
fn exe_14_objects_keep_their_order_and_unknown_roles_are_refused() {
    let roles = ["user", "assistant", "system", "developer", "tool"];
    let list: Vec<_> = roles.iter().map(|role| json!({"role": role, "content": "{{a}}"})).collect();
    let request = asked(&payload(json!({"message": list, "data": {"a": "A"}}))).request;
    let got = messages(&request);
    assert_eq!(got[..3], [(Role::User, "A".into()), (Role::Assistant, "A".into()), (Role::System, "A".into()),]);
    // Templates are those of the three others.
    assert_eq!(got[3], (Role::Developer, "{{a}}".into()));
    assert_eq!(got[4].0, Role::Tool);
    assert!(got[4].1.contains("{{a}}"));
    let (error, detail) = words(&payload(json!({"message": [{"role": "robot", "content": "a"}]})));
    assert_eq!(error, "Invalid format");
    assert!(detail.contains("`message[0].role`"), "{detail}");
}

#[test]
fn exe_16_amazon_meta_gets_the_template_of_llama_3() {
    let request = asked(&payload(json!({
        "provider": "amazon:meta", "message": [
            {"role": "user", "content": "Hi <|eot_id|>"}, {"role": "assistant", "content": "Yes"},
            {"role": "system", "content": "Be {{tone}}."}, {"role": "user", "content": "Go\n"},
        ], "data": {"tone": "kind"},
    })))
    .request;
    let Input::Completion(completion) = &request.input else { panic!("{request:?}") };
    let turn = |role: &str, text: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>");
    let text = format!(
        "<|begin_of_text|>{}{}{}{}<|start_header_id|>assistant<|end_header_id|>\n\n",
        turn("system", "Be kind."),
        turn("user", "Hi <| eot_id|>"),
        turn("assistant", "Yes"),
        turn("user", "Go\n"),
    );
    assert_eq!(completion.text, text);
}

#[test]
fn exe_16_amazon_meta_takes_plain_dialogue_and_messages_too() {
    let of = |format: &str| {
        let message = json!(["Be kind.", "Hi\nAssistant: no", "Yes", "Go"]);
        asked(&payload(json!({"provider": "amazon:meta", "prompt_format": format, "message": message}))).request
    };
    let Input::Completion(completion) = of("plain-dialogue").input else { panic!() };
    assert_eq!(completion.text, "System: Be kind.\nUser: Hi\nAssistant : no\nAssistant: Yes\nUser: Go\nAssistant:");
    assert_eq!(messages(&of("chat")).len(), 4);
}

#[test]
fn exe_17_the_bounds_of_the_original_are_the_defaults() {
    for (provider, bound) in
        [("anthropic", Some(4096)), ("amazon:anthropic", Some(10_000)), ("amazon:meta", Some(2048)), ("openai", None)]
    {
        let request = asked(&payload(json!({"provider": provider}))).request;
        assert_eq!(request.sampling.max_tokens, bound, "{provider}");
    }
}

#[test]
fn exe_18_values_are_written_as_javascript_writes_them() {
    let data = json!({
        "n": null, "f": false, "z": 0, "l": [1, 2], "t": "<b>&\"", "x": 1.0, "y": 1.5, "o": {"a": {"b": "deep"}},
        "m": [[1], null, "c"],
    });
    for (text, result) in [
        ("[{{missing}}{{n}}{{o.missing.more}}]", "[]"),
        ("{{f}} {{z}} {{l}} {{x}} {{y}} {{m}}", "false 0 1,2 1 1.5 1,,c"),
        ("{{o}} {{o.a.b}} {{ o.a.b }} {{l.[1]}}", "[object Object] deep deep 2"),
        (r"\{{a}} {{f}}", "{{a}} false"),
        ("{{t}} {{{t}}} {{&t}}", "<b>&\" <b>&\" <b>&\""),
        ("no template } { }}", "no template } { }}"),
        ("{{! a comment }}{{!-- {{f}} --}}a", "a"),
        ("a {{~f~}} b", "afalseb"),
    ] {
        assert_eq!(template(text, data.clone()), result, "{text}");
    }
}

#[test]
fn exe_18_nothing_is_escaped_unless_the_payload_says_html() {
    let of = |escape: Value| {
        let body =
            json!({"message": "{{t}} {{{t}}} {{join l}}", "data": {"t": "<b>&\"", "l": ["<"]}, "escape": escape});
        messages(&asked(&payload(body)).request).remove(0).1
    };
    assert_eq!(of(json!("none")), "<b>&\" <b>&\" <");
    assert_eq!(of(json!(null)), "<b>&\" <b>&\" <");
    assert_eq!(of(json!("html")), "&lt;b&gt;&amp;&quot; <b>&\" &lt;");
}

#[test]
fn exe_18_what_is_wrong_with_a_template_is_told_with_its_line() {
    for (text, line, what) in [
        ("a\n{{#if a}}b", "", "line "),
        ("a\n\n{{nope a}}", "line 3", "missing helper \"nope\""),
        ("a\n{{#nope}}b{{/nope}}", "line 2", "missing helper \"nope\""),
        ("{{#if a}}\n{{#each a}}\n{{nope 1}}\n{{/each}}{{/if}}", "line 3", "missing helper"),
        ("a\n{{> nope}}", "line 2", "missing partial \"nope\""),
        ("{{#*inline \"x\"}}{{> x}}{{/inline}}{{> x}}", "line 1", "missing decorator \"inline\""),
        ("{{log \"x\"}}", "line 1", "missing helper \"log\""),
        ("{{ }}", "line 1", ""),
        ("{{a", "line 1", ""),
    ] {
        let error = broken(text, json!({"a": [1]}));
        assert!(error.contains(line) && error.contains(what), "{text}: {error}");
        assert!(error.starts_with("`message` line "), "{error}");
    }
    let (error, _) = words(&payload(json!({"message": ["a", "b\n{{x y}}"]})));
    assert!(error.starts_with("`message[1]` line 2:"), "{error}");
}

#[test]
fn exe_18_templates_are_bounded_in_steps_depth_size_and_output() {
    let list: Vec<u32> = (0..100).collect();
    let loops = |depth: usize, inner: &str| {
        format!("{}{inner}{}", "{{#each @root.l}}".repeat(depth), "{{/each}}".repeat(depth))
    };
    assert!(broken(&loops(4, ""), json!({"l": list})).contains("steps"));
    assert!(broken(&loops(3, "{{#if x}}{{/if}}"), json!({"l": list})).contains("steps"));
    assert!(broken(&loops(2, &"a".repeat(10_000)), json!({"l": list})).contains("bytes"));
    let big: Vec<u32> = (0..5000).collect();
    assert!(broken(&loops(2, "{{indentJson @root.big}}"), json!({"l": list, "big": big})).contains("steps"));
    assert!(broken(&loops(17, ""), json!({"l": [1]})).contains("nested deeper than 16"));
    assert_eq!(template(&loops(16, "x"), json!({"l": [1]})), "x");
    assert!(broken(&format!("{{{{join {}a{}}}}}", "(join ".repeat(17), ")".repeat(17)), json!({})).contains("nested"));
    assert!(broken(&format!("{{{{a}}}}{}", "b".repeat(256 * 1024)), json!({})).contains("bytes"));
    // A text without a template may be longer.
    assert_eq!(template(&"b".repeat(300_000), json!({})).len(), 300_000);
    // The bounds are those of all templates together.
    let message: Vec<_> = (0..60).map(|_| loops(2, "{{#if x}}{{/if}}")).collect();
    let (error, _) = words(&payload(json!({"message": message, "data": {"l": list}})));
    assert!(error.contains("steps"), "{error}");
}

#[test]
fn exe_19_blocks_loops_and_lookups() {
    let data = json!({
        "l": ["a", "b"], "o": {"y": 1, "x": 2}, "e": [], "eo": {}, "p": {"q": {"r": "R"}}, "i": 1, "k": "y", "z": 0,
    });
    for (text, result) in [
        ("{{#if l}}1{{else}}2{{/if}}{{#if e}}1{{else}}2{{/if}}{{#if eo}}1{{else}}2{{/if}}", "121"),
        ("{{#if z}}1{{else}}2{{/if}}{{#if z includeZero=true}}1{{else}}2{{/if}}", "21"),
        ("{{#if missing}}1{{else if l}}2{{else}}3{{/if}}", "2"),
        ("{{#unless missing}}1{{else}}2{{/unless}}{{#unless l}}1{{/unless}}", "1"),
        ("{{#each l}}{{@index}}{{@first}}{{@last}}{{this}} {{/each}}", "0truefalsea 1falsetrueb "),
        // In the order of names.
        ("{{#each o}}{{@key}}={{this}};{{/each}}", "x=2;y=1;"),
        ("{{#each l as |item n|}}{{n}}{{item}}{{/each}}", "0a1b"),
        ("{{#each e}}1{{else}}none{{/each}}{{#each missing}}1{{else}}none{{/each}}", "nonenone"),
        ("{{#each l}}{{#each @root.o}}{{@../index}}{{@key}}{{/each}}{{/each}}", "0x0y1x1y"),
        ("{{#with p}}{{q.r}}{{../k}}{{/with}}{{#with missing}}1{{else}}2{{/with}}", "Ry2"),
        ("{{lookup l 1}}{{lookup l i}}{{lookup o k}}{{lookup o \"nope\"}}{{lookup l 7}}", "bb1"),
        ("{{#each l}}{{lookup ../l @index}}{{/each}}", "ab"),
        ("{{#each (lookup p \"q\")}}{{this}}{{/each}}", "R"),
    ] {
        assert_eq!(template(text, data.clone()), result, "{text}");
    }
}

#[test]
fn exe_20_helpers() {
    let data = json!({
        "l": ["a", "b", 3], "o": {"name": "Ada", "age": 36}, "n": 2, "one": 1, "t": "hello world", "e": "", "yes": true,
        "p": {"q": "deep"},
        "s": {"type": "object", "properties": {
            "query": {"type": "string", "default": "none", "description": "what"}, "count": {"type": "integer"},
            "inner": {"type": "object", "properties": {"x": {"type": "number", "default": 1}}},
        }},
    });
    let pretty = |value: Value| serde_json::to_string_pretty(&value).unwrap();
    let example = json!({"query": "none", "count": "", "inner": {"x": 1}});
    let cases = [
        ("{{pluralize \"cat|cats\" n}} {{pluralize \"cat|cats\" one}}", "cats cat".into()),
        (
            "{{#eq t \"hello world\"}}1{{else}}2{{/eq}}{{#eq n \"1, 2\"}}1{{else}}2{{/eq}}{{#eq n 3}}1{{else}}2{{/eq}}",
            "112".into(),
        ),
        ("{{#neq n \"1,2\"}}1{{else}}2{{/neq}}{{#neq t l}}1{{/neq}}", "21".into()),
        ("{{#if (eq n 2)}}1{{/if}}{{eq n 2}}", "1true".into()),
        ("{{#ifCond n \"==\" \"2\"}}1{{/ifCond}}{{#ifCond n \"===\" \"2\"}}1{{else}}2{{/ifCond}}", "12".into()),
        ("{{#ifCond n \"!=\" 2}}1{{else}}2{{/ifCond}}{{#ifCond n \"!==\" \"2\"}}1{{/ifCond}}", "21".into()),
        (
            "{{#ifCond n \"<\" 3}}1{{/ifCond}}{{#ifCond n \"<=\" 2}}1{{/ifCond}}{{#ifCond n \">\" 2}}1{{else}}2{{/ifCond}}{{#ifCond \"b\" \">=\" \"a\"}}1{{/ifCond}}",
            "1121".into(),
        ),
        ("{{#ifCond yes \"&&\" e}}1{{else}}2{{/ifCond}}{{#ifCond yes \"||\" e}}1{{/ifCond}}", "21".into()),
        ("{{join l}}|{{join l \"; \"}}|{{join t}}|{{join n}}", "a, b, 3|a; b; 3|hello world|".into()),
        ("{{substring t 0 5}}|{{substring t 6 99}}|{{substring t 3 1}}|{{substring t 6}}", "hello|world||world".into()),
        ("{{cut t \"o\"}}|{{cut t \".\"}}", "hell wrld|hello world".into()),
        ("{{getOr missing \"x\"}}{{getOr e \"x\"}}{{getOr n \"x\"}}", "xx2".into()),
        (
            "{{getKeyOr \"p.q\" \"x\"}}{{getKeyOr \"p.z\" \"x\"}}{{getKeyOr \"l[1]\" \"x\"}}{{#with p}}{{getKeyOr \"q\" 1}}{{/with}}",
            "deepxbdeep".into(),
        ),
        ("{{objectToList o}}", "- age: 36\n- name: Ada".into()),
        ("{{indentJson o}}", pretty(data["o"].clone())),
        ("{{indentJson o \"true\"}}{{indentJson t}}", "{\"age\":36,\"name\":\"Ada\"}hello world".into()),
        ("{{jsonSchemaExample \"s\" \"default\"}}", pretty(example.clone())),
        ("{{jsonSchemaExample \"s\" \"default\" \"true\"}}", example.to_string()),
        ("{{jsonSchemaExample \"nope\" \"default\"}}", String::new()),
    ];
    for (text, result) in cases {
        assert_eq!(template(text, data.clone()), result, "{text}");
    }
    assert!(
        broken("a\n{{#ifCond 1 \"<>\" 2}}{{/ifCond}}", json!({}))
            .contains("line 2: \"ifCond\" knows no operator \"<>\"")
    );
    assert!(broken("{{#if}}{{/if}}", json!({})).contains("\"if\" wants 1 argument"));
}

#[test]
fn exe_22_variables_are_the_data_and_in_json_mode_the_schema() {
    let body = json!({"output": "json", "schema": {"type": "object", "title": "T"}, "message": "{{schema.title}}{{a}}", "data": {"a": 1}});
    assert_eq!(messages(&asked(&payload(body)).request)[0].1, "T1");
    let body = json!({"output": "list", "schema": {"title": "T"}, "message": "[{{schema.title}}]"});
    assert_eq!(messages(&asked(&payload(body)).request)[0].1, "[]");
}

#[test]
fn exe_23_openai_gets_the_schema_as_its_response_format_without_defaults() {
    let request = asked(&example_5()).request;
    let Some(ResponseFormat::JsonSchema(format)) = &request.response_format else { panic!("{request:?}") };
    assert_eq!((format.name.as_deref(), format.strict), (Some("output"), None));
    let schema: Value = serde_json::from_str(&format.schema).unwrap();
    assert!(!format.schema.contains("default"), "{}", format.schema);
    assert_eq!(schema["required"], json!(["query", "explanation", "thought"]));
    // A member of that name is no keyword.
    let schema = json!({
        "properties": {"default": {"default": 1, "enum": [{"default": 2}]}}, "items": [{"default": 1}],
        "$defs": {"default": {"default": 1}}, "not": {"default": 1}, "const": {"default": 3},
    });
    let request = asked(&payload(json!({"output": "json", "schema": schema}))).request;
    let Some(ResponseFormat::JsonSchema(format)) = &request.response_format else { panic!("{request:?}") };
    let kept = json!({
        "properties": {"default": {"enum": [{"default": 2}]}}, "items": [{}], "$defs": {"default": {}}, "not": {},
        "const": {"default": 3},
    });
    assert_eq!(serde_json::from_str::<Value>(&format.schema).unwrap(), kept);
}

#[test]
fn exe_23_others_get_the_schema_and_an_example_behind_the_first_message() {
    let mut body = example_5();
    body["providor"] = json!("anthropic");
    let request = asked(&body).request;
    assert_eq!(request.response_format, None);
    let text = messages(&request).remove(0).1;
    let schema = serde_json::to_string_pretty(&body["schema"]).unwrap();
    let example =
        serde_json::to_string_pretty(&json!({"query": "none", "explanation": "none", "thought": "none"})).unwrap();
    assert!(text.contains("shark week\n\n"), "{text}");
    assert!(text.contains(&schema) && text.ends_with(&format!("For example:\n{example}")), "{text}");
    // Braces in a schema are no template.
    let body = json!({"provider": "x", "output": "json", "schema": {"type": "string", "description": "{{a}}"}, "data": {"a": 1}});
    assert!(messages(&asked(&payload(body)).request)[0].1.contains("{{a}}"));
}

#[test]
fn exe_24_a_string_is_given_unchanged() {
    let parsed = asked(&payload(json!({})));
    for text in ["", " a\r\n\n\"b\" ", "{\"a\":1}"] {
        let rendered = answer(&parsed, text);
        assert_eq!((rendered.status, rendered.body.as_slice()), (200, text.as_bytes()));
    }
}

#[test]
fn exe_25_a_list_loses_its_markers_blanks_and_line_ends() {
    assert_eq!(list("- a\r\n* b\r\n\r\n+ c\n• d\n1. e\n12) f\n"), json!(["a", "b", "c", "d", "e", "f"]));
    assert_eq!(list("  a  \n\n b\rc"), json!(["a", "b", "c"]));
    // One marker only.
    assert_eq!(list("- - a\n1. 2. b"), json!(["- a", "2. b"]));
    assert_eq!(list(""), json!([]));
}

#[test]
fn exe_25_unmarked_lines_are_an_introduction_or_continue_their_item() {
    assert_eq!(list("Here you are:\nas asked\n- a\n  more of a\n- b"), json!(["a\nmore of a", "b"]));
    // What only looks like a marker is none.
    assert_eq!(list("-5 degrees\n*bold*\n1.5 litres\n3 cats"), json!(["-5 degrees", "*bold*", "1.5 litres", "3 cats"]));
}

#[test]
fn exe_26_json_is_bare_fenced_or_the_one_value_in_prose() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    for text in [
        "{\"a\": 1}",
        "  \n{\"a\": 1}\n",
        "```json\n{\"a\": 1}\n```",
        "```\n{\"a\": 1}\n```",
        "```JSON5 {\"a\": 1}```",
        "Here:\n```whatever\n{\"a\": 1}\n```\nDone {ok}.",
        "```{\"a\": 1}```",
        "The answer is {\"a\": 1}, as asked.",
        "Let {x} be. So: {\"a\": 1}",
    ] {
        assert_eq!(structured(schema.clone(), text), (200, json!({"a": 1})), "{text}");
    }
    assert_eq!(structured(json!({"type": "array"}), "Items: [1, 2]."), (200, json!([1, 2])));
    assert_eq!(structured(json!({"type": "string"}), "\"a\""), (200, json!("a")));
    for text in ["", "no", "{\"a\": 1} or {\"a\": 2}", "```\n{\"a\":1}\n```\n```\n{\"a\":2}\n```", "{\"a\": 1"] {
        let (status, body) = structured(schema.clone(), text);
        assert_eq!((status, &body["error"]), (502, &json!("output_parse_failed")), "{text}");
        assert_eq!(body["output"], json!(text));
        assert!(!body["detail"].as_str().unwrap().is_empty());
    }
}

#[test]
fn exe_26_defaults_are_applied_then_the_schema_is_checked() {
    let schema = json!({
        "type": "object", "required": ["a", "b", "n"], "additionalProperties": false,
        "properties": {
            "a": {"type": "integer", "default": 5}, "b": {"$ref": "#/$defs/b"},
            "n": {"type": "array", "items": {"properties": {"x": {"default": true}}, "required": ["x"]}},
        },
        "$defs": {"b": {"type": "object", "properties": {"c": {"type": "string", "default": "d"}}}},
    });
    let (status, body) = structured(schema.clone(), r#"{"b":{},"n":[{},{"x":false}]}"#);
    assert_eq!((status, body), (200, json!({"b": {"c": "d"}, "n": [{"x": true}, {"x": false}], "a": 5})));
    for (text, what) in [
        (r#"{"a":"x","b":{},"n":[]}"#, "/a: \"x\" is not of type \"integer\""),
        (r#"{"a":1,"b":{}}"#, "\"n\" is missing"),
        (r#"{"b":{},"n":[],"z":1}"#, "/z: no such member"),
        (r#"{"b":{"c":1},"n":[]}"#, "/b/c: 1 is not of type"),
    ] {
        let (status, body) = structured(schema.clone(), text);
        assert_eq!(status, 502);
        assert!(body["detail"].as_str().unwrap().contains(what), "{body}");
    }
}

#[test]
fn exe_26_the_raw_text_of_a_failure_is_bounded_and_a_cut_answer_named() {
    let parsed = asked(&payload(json!({"output": "json", "schema": {}})));
    let mut renderer = renderer(&parsed);
    let mut all = events(&"é".repeat(6000));
    let last = all.len() - 2;
    all[last] = Event::finish(0, FinishReason::Length, None);
    let body: Value = serde_json::from_slice(&renderer.feed(all)).unwrap();
    assert_eq!(renderer.head().status, 502);
    assert_eq!(body["output"].as_str().unwrap(), format!("{} [truncated]", "é".repeat(4096)));
    assert!(body["detail"].as_str().unwrap().contains("cut at its limit"), "{body}");
}

#[test]
fn exe_26_one_retry_shows_the_model_its_error() {
    let body = payload(json!({"output": "json", "schema": {"type": "object"}, "retries": 1}));
    let Ok(Step::Follow(parsed)) = run(&client(), &body) else { panic!("not followed") };
    let mut first = renderer(&parsed);
    first.feed(events("[1]"));
    let again = first.end().again.expect("a second question");
    assert_eq!(
        (&again.request.model, &again.request.response_format),
        (&parsed.request.model, &parsed.request.response_format)
    );
    let got = messages(&again.request);
    assert_eq!(got[..2], [(Role::System, "Hi".into()), (Role::Assistant, "[1]".into())]);
    assert_eq!(got[2].0, Role::User);
    assert!(got[2].1.contains("is not of type \"object\""), "{got:?}");

    let mut second = renderer(&again);
    assert_eq!(second.feed(events("{}")), b"{}");
    assert_eq!((second.head().status, second.end().again), (200, None));
    // Only once.
    let mut second = renderer(&again);
    second.feed(events("no"));
    assert_eq!((second.head().status, second.end().again), (502, None));
    // A good answer is not asked for again.
    let mut first = renderer(&parsed);
    first.feed(events("{}"));
    assert_eq!(first.end().again, None);
    // Without `retries` there is no second question.
    assert!(matches!(run(&client(), &payload(json!({"output": "json", "schema": {}}))), Ok(Step::Ask(_))));
}

#[test]
fn exe_26_a_retry_of_amazon_meta_continues_its_text() {
    let of = |format: &str| {
        let body = json!({"provider": "amazon:meta", "output": "json", "schema": {"type": "object"}, "retries": 1, "prompt_format": format});
        let parsed = asked(&payload(body));
        let Input::Completion(before) = parsed.request.input.clone() else { panic!() };
        let mut answer = renderer(&parsed);
        answer.feed(events("[1] <|eot_id|>"));
        let Some(Parsed { request: Request { input: Input::Completion(after), .. }, .. }) = answer.end().again else {
            panic!()
        };
        after.text.strip_prefix(&before.text).expect("continued").to_owned()
    };
    let llama = of("llama3");
    assert!(
        llama.starts_with("[1] <| eot_id|><|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThis answer cannot"),
        "{llama}"
    );
    assert!(llama.ends_with("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"), "{llama}");
    let plain = of("plain-dialogue");
    assert!(
        plain.starts_with(" [1] <| eot_id|>\nUser: This answer cannot") && plain.ends_with("\nAssistant:"),
        "{plain}"
    );
}

#[test]
fn exe_27_functions_become_tools() {
    let functions = json!([
        {"name": "search", "description": "d", "parameters": {"type": "object"}}, {"name": "stop"},
    ]);
    let of = |choice: Value| asked(&payload(json!({"functions": functions, "functionCall": choice}))).request;
    let request = of(json!(null));
    assert_eq!(request.tool_choice, None);
    let [Tool::Function(search), Tool::Function(stop)] = &request.tools[..] else { panic!("{request:?}") };
    assert_eq!((search.name.as_str(), search.description.as_deref()), ("search", Some("d")));
    assert_eq!(search.parameters.as_deref(), Some(r#"{"type":"object"}"#));
    assert_eq!((stop.name.as_str(), &stop.parameters), ("stop", &None));
    for (choice, tool_choice) in [
        (json!("auto"), ToolChoice::Auto),
        (json!("none"), ToolChoice::None),
        (json!("any"), ToolChoice::Required),
        (json!({"name": "stop"}), ToolChoice::Tool("stop".into())),
    ] {
        assert_eq!(of(choice).tool_choice, Some(tool_choice));
    }
    for (more, name) in [
        (json!({"functions": {}}), "`functions`"),
        (json!({"functions": [{"description": "x"}]}), "`functions[0].name`"),
        (json!({"functions": [{"name": "x", "parameters": []}]}), "`functions[0].parameters`"),
        (json!({"functions": functions, "functionCall": {"name": "other"}}), "`functionCall`"),
        (json!({"functions": functions, "functionCall": "some"}), "`functionCall`"),
        (json!({"functionCall": "any"}), "`functionCall`"),
    ] {
        let (error, _) = words(&payload(more.clone()));
        assert!(error.contains(name), "{more}: {error}");
    }
    let (error, _) = words(&payload(json!({"functions": functions, "output": "list"})));
    assert_eq!(error, "Invalid output type");
}

#[test]
fn exe_27_the_answer_is_a_list_of_texts_and_function_uses() {
    let parsed = asked(&payload(json!({"functions": [{"name": "search"}, {"name": "stop"}]})));
    let call = |index, id: &str, name: &str| {
        let kind = BlockKind::ToolCall(ToolCallStart { id: id.into(), name: name.into() });
        Event::BlockStart(BlockStart { index, choice: 0, kind })
    };
    let arguments =
        |index, text: &str| Event::Arguments(witgate_model::BlockDelta { index, text: text.into(), logprobs: None });
    let run = |last: &str| {
        let mut answer = renderer(&parsed);
        let body = answer.feed(vec![
            started(),
            Event::text_start(0, 0),
            Event::text(0, "Let me look."),
            Event::BlockStop(0),
            call(1, "call_1", "search"),
            call(2, "call_2", "stop"),
            arguments(1, "{\"q\":"),
            arguments(1, last),
            Event::BlockStop(1),
            Event::BlockStop(2),
            Event::finish(0, FinishReason::ToolCalls, None),
            Event::Done,
        ]);
        (answer.head().status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    assert_eq!(
        run("\"x\"}"),
        (
            200,
            json!([
                {"type": "text", "text": "Let me look."},
                {"type": "function_use", "functionId": "call_1", "name": "search", "input": {"q": "x"}},
                {"type": "function_use", "functionId": "call_2", "name": "stop", "input": {}},
            ])
        )
    );
    let (status, body) = run("oops");
    assert_eq!((status, &body["error"]), (502, &json!("output_parse_failed")));
    assert_eq!(as_json(&answer(&parsed, "Hi")), json!([{"type": "text", "text": "Hi"}]));
}

#[test]
fn exe_28_a_string_is_text_and_all_else_json() {
    for (more, kind, body) in [
        (json!({}), "text/plain; charset=utf-8", "[1]"),
        (json!({"output": "list"}), "application/json", "[\"[1]\"]"),
        (json!({"output": "json", "schema": true}), "application/json", "[1]"),
        (json!({"functions": []}), "application/json", "[{\"text\":\"[1]\",\"type\":\"text\"}]"),
    ] {
        let rendered = answer(&asked(&payload(more)), "[1]");
        assert_eq!((rendered.status, header(&rendered, "content-type")), (200, kind));
        assert_eq!(rendered.body, body.as_bytes());
    }
}

#[test]
fn exe_29_a_failure_is_an_object_with_its_message() {
    for (kind, status) in [(ErrorKind::UpstreamFailure, 502), (ErrorKind::Timeout, 504), (ErrorKind::RateLimited, 429)]
    {
        let rendered = refuse(DIALECT, "", &failure(kind.clone(), status));
        assert_eq!((rendered.status, rendered.body.as_slice()), (status, br#"{"error":"it \"broke\""}"#.as_slice()));
        // The statuses of the original, where the operator wants them.
        let rendered = refuse(DIALECT, r#"{"legacy_status":true}"#, &failure(kind, status));
        assert_eq!(rendered.status, 500);
    }
    // A backend's own code is not taken for one of ours.
    let mut broken = failure(ErrorKind::InvalidRequest, 400);
    broken.error.code = Some("model_not_found".into());
    assert_eq!(as_json(&refuse(DIALECT, "", &broken)), json!({"error": "it \"broke\""}));
    let mut answer = renderer(&asked(&payload(json!({}))));
    answer.feed(vec![started()]);
    assert_eq!(answer.fail(&failure(ErrorKind::Timeout, 504)), br#"{"error":"it \"broke\""}"#);
    assert!(answer.fail(&failure(ErrorKind::Timeout, 504)).is_empty());
}

fn proxied(event: &Value, text: &str) -> (u16, Value) {
    let rendered = answer(&asked(event), text);
    (rendered.status, as_json(&rendered))
}

#[test]
fn exe_envelopes_of_http_get_a_proxy_answer() {
    let body = payload(json!({})).to_string();
    let gateway = json!({"httpMethod": "POST", "path": "/invoke", "headers": {}, "body": body});
    let url = json!({"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body});
    let encoded = json!({
        "httpMethod": "POST", "path": "/", "isBase64Encoded": true, "body": STANDARD.encode(&body),
        "Records": [], "agent": {},
    });
    let object = json!({"httpMethod": "POST", "path": "/", "body": payload(json!({}))});
    for event in [gateway, url, encoded, object] {
        let expected =
            json!({"statusCode": 200, "headers": {"content-type": "text/plain; charset=utf-8"}, "body": "Meow"});
        assert_eq!(proxied(&event, "Meow"), (200, expected));
    }
    let body = payload(json!({"output": "json", "schema": {"type": "object"}})).to_string();
    let event = json!({"httpMethod": "POST", "path": "/", "body": body});
    let (status, answer) = proxied(&event, "{\"a\":1}");
    assert_eq!(
        (status, &answer["headers"]["content-type"], &answer["body"]),
        (200, &json!("application/json"), &json!("{\"a\":1}"))
    );
    let (status, answer) = proxied(&event, "no");
    assert_eq!((status, &answer["statusCode"]), (502, &json!(502)));
    assert!(answer["body"].as_str().unwrap().contains("output_parse_failed"));
}

#[test]
fn exe_envelopes_of_http_get_failures_in_a_proxy_answer_too() {
    for (event, error) in [
        (json!({"httpMethod": "POST", "path": "/"}), "Invalid event"),
        (json!({"httpMethod": "POST", "path": "/", "body": "{"}), "Invalid event"),
        (json!({"httpMethod": "POST", "path": "/", "body": "*", "isBase64Encoded": true}), "Invalid event"),
        (json!({"httpMethod": "POST", "path": "/", "body": "{}"}), "Invalid message"),
        (json!({"version": "2.0", "requestContext": {"http": {}}, "body": "{}"}), "Invalid message"),
    ] {
        let Ok(Step::Answer(reply)) = run(&client(), &event) else { panic!("{event}") };
        let answer = as_json(&reply.rendered);
        assert_eq!((reply.rendered.status, &answer["statusCode"]), (400, &json!(400)));
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["error"], json!(error), "{event}");
        let legacy = Client { settings: r#"{"legacy_status":true}"#.into(), ..client() };
        let Ok(Step::Answer(reply)) = run(&legacy, &event) else { panic!("{event}") };
        assert_eq!(as_json(&reply.rendered)["statusCode"], json!(500));
    }
}

#[test]
fn exe_envelopes_of_agents_are_opened_and_records_refused() {
    for input in [payload(json!({})), payload(json!({})).to_string().into()] {
        let rendered = answer(&asked(&json!({"agent": {"input": input}})), "Meow");
        assert_eq!(rendered.body, b"Meow");
    }
    let (error, detail) = words(&json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}));
    assert_eq!(error, "Invalid event");
    assert!(detail.contains("`Records`"), "{detail}");
    assert_eq!(words(&json!({"agent": {}})).0, "Invalid event");
}

#[test]
fn exe_hostile_payloads_are_refused_without_harm() {
    let deep = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let limits = Limits { depth: 64, messages: 3 };
    for body in [deep("[", "]", 100_000), deep("{\"a\":", "}", 100_000), format!("{{\"data\":{}}}", deep("[", "]", 65))]
    {
        assert!(step(DIALECT, &client(), &limits, body.as_bytes()).is_err());
    }
    // Inside of texts too.
    let event = json!({"agent": {"input": deep("[", "]", 65)}});
    assert!(run(&client(), &event).is_err());
    let many = payload(json!({"message": ["a", "b", "c", "d"]}));
    assert!(step(DIALECT, &client(), &limits, many.to_string().as_bytes()).is_err());
    // Schemas that refer to themselves.
    for schema in [
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"oneOf": [{"$ref": "#"}, {"$ref": "#/$defs/a"}]}}}),
    ] {
        assert_eq!(structured(schema, "{}").0, 502);
    }
    // Answers that are.
    assert_eq!(structured(json!({}), &deep("[", "]", 100_000)).0, 502);
    assert_eq!(structured(json!({}), &"{".repeat(1_000_000)).0, 502);
    assert_eq!(structured(json!({}), &"```".repeat(300_000)).0, 502);
}
