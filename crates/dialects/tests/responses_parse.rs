//! Requests of OpenAI's Responses API to normalised ones, and what is answered without a backend.

use serde_json::{Value, json};
use witgate_dialects::{default_limits, step};
use witgate_model::normaliser::{Client, Document, DocumentRef, Limits, Parsed, Reply, Step};
use witgate_model::{
    Error, ErrorKind, Input, JsonSchema, MediaKind, MediaSource, Message, Part, Reasoning, ReasoningPart, Request,
    ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice,
};

const DIALECT: &str = "openai-responses";

fn ask(method: &str, path: &str, documents: &[Document], body: &str) -> Result<Step, Error> {
    ask_within(&default_limits(), method, path, documents, body)
}

fn ask_within(limits: &Limits, method: &str, path: &str, documents: &[Document], body: &str) -> Result<Step, Error> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let client =
        Client { method: method.into(), path: path.into(), query, documents: documents.to_vec(), ..Client::default() };
    step(DIALECT, &client, limits, body.as_bytes())
}

fn create(body: &Value) -> Result<Step, Error> {
    ask("POST", "/v1/responses", &[], &body.to_string())
}

#[track_caller]
fn parsed(step: Step) -> Parsed {
    match step {
        Step::Ask(parsed) | Step::Follow(parsed) => parsed,
        other => panic!("not for a backend: {other:?}"),
    }
}

#[track_caller]
fn request(body: &Value) -> Request {
    parsed(create(body).unwrap()).request
}

fn conversation(request: Request) -> Vec<Message> {
    match request.input {
        Input::Chat(messages) => messages,
        other => panic!("no conversation: {other:?}"),
    }
}

#[track_caller]
fn messages(input: Value) -> Vec<Message> {
    conversation(request(&json!({"input": input})))
}

/// `param` and message of what is wrong.
#[track_caller]
fn wrong(body: &Value) -> (String, String) {
    let error = create(body).expect_err("the request is wrong");
    assert_eq!((&error.kind, error.status), (&ErrorKind::InvalidRequest, Some(400)));
    (error.param.unwrap_or_default(), error.message)
}

fn document(key: &str, content: Option<&Value>) -> Document {
    let at = DocumentRef { kind: "response".into(), key: key.into() };
    Document { at, content: content.map(Value::to_string) }
}

/// A kept response, with one turn.
fn kept() -> Value {
    json!({
        "response": {"id": "resp_1", "object": "response", "status": "completed", "output": [
            {"id": "msg_1_0", "type": "message", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"id": "fc_up", "type": "function_call", "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"},
        ]},
        "input": [{"id": "msg_1_i0", "type": "message", "role": "user", "content": "a"}],
    })
}

#[test]
fn an_input_that_is_a_string_is_one_message_of_the_user_and_instructions_stand_in_front() {
    let all = conversation(request(&json!({"input": "hi", "instructions": "Be brief.", "model": "m"})));
    assert_eq!(all, [Message::text(Role::System, "Be brief."), Message::text(Role::User, "hi")]);
    assert_eq!(messages(json!("")), [Message::text(Role::User, "")]);
}

#[test]
fn what_the_model_said_beside_a_message_joins_it_and_each_output_is_a_message_of_a_tool() {
    let all = messages(json!([
        {"role": "user", "content": "q"},
        {"type": "reasoning", "id": "rs_abc_0", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}],
         "encrypted_content": "sig"},
        {"type": "message", "id": "msg_abc_1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": null}]},
        {"type": "function_call", "id": "fc_abc_2", "call_id": "c1", "name": "f", "arguments": "", "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": "r"},
        {"type": "message", "role": "assistant", "content": "x"},
        {"type": "message", "role": "assistant", "content": "y"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "computer_call_output", "call_id": "c2"},
    ]));
    let roles: Vec<_> = all.iter().map(|message| message.role.clone()).collect();
    use Role::{Assistant, Tool, User};
    assert_eq!(roles, [User, Assistant, Tool, Assistant, Assistant, Tool]);
    let [Part::Reasoning(thought), Part::Text(text), Part::ToolCall(call)] = all[1].parts.as_slice() else {
        panic!("{:?}", all[1])
    };
    let expected = ReasoningPart { text: "hm".into(), signature: Some("sig".into()), ..ReasoningPart::default() };
    assert_eq!(*thought, expected);
    assert_eq!((text.text.as_str(), text.extra.as_deref()), ("a", Some("{}")));
    let expected = ToolCall { id: "c1".into(), name: "f".into(), arguments: "{}".into(), ..ToolCall::default() };
    assert_eq!(*call, expected);
    assert_eq!(all[1].extra, None);
    let Part::ToolResult(result) = &all[2].parts[0] else { panic!("{:?}", all[2]) };
    assert_eq!(result.content, [ResultContent::Text(TextPart { text: "r".into(), ..TextPart::default() })]);
    assert_eq!(all[4].parts[1], Part::Other(r#"{"id":"ws_1","type":"web_search_call"}"#.into()));
}

#[test]
fn an_item_that_its_backend_named_keeps_all_its_members() {
    let all = messages(json!([{"type": "message", "id": "msg_67cc", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]}]));
    let extra: Value = serde_json::from_str(all[0].extra.as_ref().unwrap()).unwrap();
    assert_eq!(extra, json!({"type": "message", "id": "msg_67cc", "status": "completed"}));
    let Part::Text(text) = &all[0].parts[0] else { panic!() };
    let extra: Value = serde_json::from_str(text.extra.as_ref().unwrap()).unwrap();
    assert_eq!(extra, json!({"annotations": [], "logprobs": []}));
}

#[test]
fn reasoning_without_a_text_is_encrypted_and_several_parts_are_joined() {
    let all = messages(json!([
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": ""},
    ]));
    let part = |text: &str, redacted: Option<&str>| {
        Part::Reasoning(ReasoningPart {
            text: text.into(),
            redacted: redacted.map(str::to_owned),
            ..ReasoningPart::default()
        })
    };
    assert_eq!(all[0].parts, [part("", Some("x")), part("a\n\nb", None), part("", None)]);
}

#[test]
fn pictures_and_files_are_media_and_what_the_contract_cannot_hold_stays_whole() {
    let all = messages(json!([{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_image", "image_url": null, "file_id": "f"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,BBBB", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://a/b"},
        {"type": "input_file", "file_data": "BBBB"},
        {"type": "input_file", "file_url": "https://a/b", "file_id": "f"},
        {"type": "input_audio", "input_audio": {}},
    ]}]));
    let said = all[0].parts.iter().map(|part| match part {
        Part::Media(media) => Some((media.kind.clone(), media.mime.as_deref(), media.source.clone())),
        Part::Other(_) => None,
        other => panic!("{other:?}"),
    });
    let said: Vec<_> = said.collect();
    assert_eq!(
        said,
        [
            Some((MediaKind::Image, Some("image/png"), MediaSource::Base64("AAAA".into()))),
            Some((MediaKind::Image, None, MediaSource::FileId("f".into()))),
            Some((MediaKind::Document, Some("application/pdf"), MediaSource::Base64("BBBB".into()))),
            Some((MediaKind::Document, None, MediaSource::Url("https://a/b".into()))),
            None,
            None,
            None,
        ]
    );
}

#[test]
fn parameters_have_their_places() {
    let body = json!({
        "model": "m", "input": "x", "max_output_tokens": 5, "temperature": 0.5, "top_p": 0.25, "top_logprobs": 3,
        "include": ["message.output_text.logprobs"], "user": "u", "stream": true, "store": false,
        "parallel_tool_calls": false, "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "parameters": {"a": 1}, "strict": true}, {"type": "web_search"}],
        "reasoning": {"effort": "high", "summary": "auto"}, "metadata": {"a": "b"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": true}, "verbosity": "low"},
    });
    let Step::Ask(parsed) = create(&body).unwrap() else { panic!("nothing is kept") };
    let request = parsed.request;
    assert_eq!((request.model.as_str(), request.dialect.as_str(), request.stream), ("m", DIALECT, true));
    let sampling = &request.sampling;
    assert_eq!((sampling.max_completion_tokens, sampling.max_tokens), (Some(5), None));
    assert_eq!((sampling.temperature, sampling.top_p), (Some(0.5), Some(0.25)));
    assert_eq!((sampling.top_logprobs, sampling.logprobs), (Some(3), Some(true)));
    assert_eq!(request.end_user.as_deref(), Some("u"));
    assert_eq!(request.parallel_tool_calls, Some(false));
    assert_eq!(request.tool_choice, Some(ToolChoice::Tool("f".into())));
    let [Tool::Function(function), Tool::Other(other)] = request.tools.as_slice() else { panic!() };
    assert_eq!((function.name.as_str(), function.strict, &function.extra), ("f", Some(true), &None));
    assert_eq!(other, r#"{"type":"web_search"}"#);
    let reasoning = request.reasoning.unwrap();
    let expected = Reasoning {
        effort: Some("high".into()),
        summary: Some("auto".into()),
        extra: Some("{}".into()),
        ..Reasoning::default()
    };
    assert_eq!(reasoning, expected);
    let schema =
        JsonSchema { name: Some("n".into()), description: None, schema: r#"{"a":1}"#.into(), strict: Some(true) };
    assert_eq!(request.response_format, Some(ResponseFormat::JsonSchema(schema)));
    let extra: Value = serde_json::from_str(&request.extra.unwrap()).unwrap();
    assert_eq!(extra, json!({"text": {"verbosity": "low"}, "metadata": {"a": "b"}}));
}

#[test]
fn encrypted_reasoning_is_given_anyway_where_reasoning_is_asked_for_and_else_must_be_asked_for() {
    let include = |reasoning: Value, include: Value| {
        request(&json!({"input": "x", "reasoning": reasoning, "include": include})).extra
    };
    let encrypted = json!(["reasoning.encrypted_content"]);
    assert_eq!(include(json!({"effort": "low"}), encrypted.clone()), None);
    assert!(include(json!({"effort": "none"}), encrypted.clone()).is_some());
    assert!(include(Value::Null, encrypted).is_some());
    assert_eq!(include(Value::Null, json!([])), None);
    let both = include(json!({"effort": "low"}), json!(["file_search_call.results", "message.output_text.logprobs"]));
    assert!(both.unwrap().contains("file_search_call.results"));
}

#[test]
fn a_response_is_kept_unless_the_client_says_otherwise() {
    assert!(matches!(create(&json!({"input": "x"})).unwrap(), Step::Follow(_)));
    assert!(matches!(create(&json!({"input": "x", "store": null})).unwrap(), Step::Follow(_)));
    assert!(matches!(create(&json!({"input": "x", "store": false})).unwrap(), Step::Ask(_)));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (body, param, message) in [
        (json!({}), "input", "is missing"),
        (json!({"input": []}), "input", "at least one item"),
        (json!({"input": 5}), "input", "must be a string or an array of items, found a number"),
        (json!({"input": [5]}), "input[0]", "must be an object"),
        (json!({"input": [{"content": "x"}]}), "input[0].type", "is missing"),
        (json!({"input": [{"type": "message", "content": "x"}]}), "input[0].role", "is missing"),
        (json!({"input": [{"role": "user"}]}), "input[0].content", "is missing"),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role", "`function_call_output`"),
        (json!({"input": [{"role": "user", "content": [{"text": "x"}]}]}), "input[0].content[0].type", "is missing"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
            "input[0].content[0].text",
            "missing",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].image_url",
            "an http(s) URL",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
            "input[0].content[0].file_data",
            "one is needed",
        ),
        (
            json!({"input": [{"type": "input_text", "text": "x"}]}),
            "input[0].type",
            "belongs in the `content` of a message",
        ),
        (
            json!({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}),
            "input[0].call_id",
            "is missing",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}),
            "input[0].name",
            "is missing",
        ),
        (json!({"input": [{"type": "function_call_output", "call_id": "c"}]}), "input[0].output", "is missing"),
        (json!({"input": [{"type": "function_call_output", "output": "c"}]}), "input[0].call_id", "is missing"),
        (json!({"input": [{"type": "item_reference"}]}), "input[0].id", "is missing"),
        (json!({"input": "x", "background": true, "store": false}), "background", "needs `store`"),
        (json!({"input": "x", "background": 1}), "background", "must be a boolean"),
        (json!({"input": "x", "tools": [{"name": "f"}]}), "tools[0].type", "is missing"),
        (json!({"input": "x", "tools": [{"type": "function"}]}), "tools[0].name", "is missing"),
        (json!({"input": "x", "tool_choice": {"type": "function"}}), "tool_choice.name", "is missing"),
        (
            json!({"input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}}),
            "text.format.name",
            "is missing",
        ),
        (
            json!({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}),
            "text.format.schema",
            "missing",
        ),
        (json!({"input": "x", "include": "all"}), "include", "must be an array"),
        (json!({"input": "x", "store": "no"}), "store", "must be a boolean"),
    ] {
        let (at, said) = wrong(&body);
        assert_eq!(at, param, "{body}: {said}");
        assert!(said.contains(message), "{body}: {said}");
    }
}

#[test]
fn a_previous_response_is_asked_for_and_put_in_front() {
    let body = json!({"input": "c", "instructions": "i", "previous_response_id": "resp_1"}).to_string();
    let Step::Needs(needs) = ask("POST", "/v1/responses", &[], &body).unwrap() else { panic!() };
    assert_eq!(needs, [DocumentRef { kind: "response".into(), key: "resp_1".into() }]);
    let step = ask("POST", "/responses", &[document("resp_1", Some(&kept()))], &body).unwrap();
    let all = conversation(parsed(step).request);
    let roles: Vec<_> = all.iter().map(|message| &message.role).collect();
    assert_eq!(roles, [&Role::System, &Role::User, &Role::Assistant, &Role::User]);
    assert_eq!(all[1], Message::text(Role::User, "a"));
    let [Part::Text(_), Part::ToolCall(call)] = all[2].parts.as_slice() else { panic!("{:?}", all[2]) };
    // The backend's own name is its own again; ours is not told.
    assert!(call.extra.as_ref().unwrap().contains("fc_up"));
    assert_eq!(all[2].extra, None);
    assert_eq!(all[3], Message::text(Role::User, "c"));
    // Without any input of its own, too.
    let body = json!({"previous_response_id": "resp_1"}).to_string();
    assert!(ask("POST", "/v1/responses", &[document("resp_1", Some(&kept()))], &body).is_ok());
}

#[test]
fn items_are_referred_to_by_their_ids_and_found_in_the_newest_responses() {
    let body = json!({"input": [
        {"type": "item_reference", "id": "msg_1_i0"}, {"type": "item_reference", "id": "msg_1_0"},
        {"type": "item_reference", "id": "fc_up"}, {"role": "user", "content": "c"}]});
    let Step::Needs(needs) = create(&body).unwrap() else { panic!() };
    let keys: Vec<_> = needs.iter().map(|at| at.key.as_str()).collect();
    assert_eq!(keys, ["fc_up", "resp_1"]);
    let item = &kept()["response"]["output"][1];
    let documents = [document("fc_up", Some(item)), document("resp_1", Some(&kept()))];
    let all = conversation(parsed(ask("POST", "/v1/responses", &documents, &body.to_string()).unwrap()).request);
    let roles: Vec<_> = all.iter().map(|message| &message.role).collect();
    assert_eq!(roles, [&Role::User, &Role::Assistant, &Role::User]);
    assert_eq!(all[1].parts.len(), 2);
    // The eight newest documents at most.
    let many: Vec<_> = (0..20).map(|n| json!({"type": "item_reference", "id": format!("msg_{n}_0")})).collect();
    let Step::Needs(needs) = create(&json!({"input": many})).unwrap() else { panic!() };
    assert_eq!((needs.len(), needs[0].key.as_str(), needs[7].key.as_str()), (8, "resp_19", "resp_12"));
}

#[test]
fn what_is_not_there_is_404_and_named() {
    let gone = |method: &str, path: &str, documents: &[Document], body: &str| {
        let error = ask(method, path, documents, body).expect_err("it is not there");
        assert_eq!((&error.kind, error.status), (&ErrorKind::NotFound, Some(404)));
        (error.param.unwrap(), error.code, error.message)
    };
    let none = [document("resp_1", None)];
    let previous = json!({"input": "x", "previous_response_id": "resp_1"}).to_string();
    let (param, code, message) = gone("POST", "/v1/responses", &none, &previous);
    assert_eq!((param.as_str(), code.as_deref()), ("previous_response_id", Some("previous_response_not_found")));
    assert!(message.contains("'resp_1' not found"), "{message}");
    let reference = json!({"input": [{"type": "item_reference", "id": "msg_1_7"}]}).to_string();
    let (param, _, message) = gone("POST", "/v1/responses", &[document("resp_1", Some(&kept()))], &reference);
    assert!(param == "input" && message.contains("'msg_1_7' not found"), "{message}");
    for (method, path) in [
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
    ] {
        assert!(matches!(ask(method, path, &[], "").unwrap(), Step::Needs(needs) if needs[0].key == "resp_1"));
        assert_eq!(gone(method, path, &none, "").0, "id");
    }
    // What cannot be the id of a response is not looked for.
    for id in ["msg_1_0", "resp_%2e%2e", "..", "resp_1/x/y"] {
        gone("GET", &format!("/v1/responses/{id}"), &[], "");
    }
    gone("POST", "/v1/responses", &[], r#"{"input":"x","previous_response_id":"../etc"}"#);
    gone("POST", "/v1/responses", &[], r#"{"input":[{"type":"item_reference","id":"resp_1"}]}"#);
}

#[track_caller]
fn reply(method: &str, path: &str) -> (Value, Reply) {
    match ask(method, path, &[document("resp_1", Some(&kept()))], "").unwrap() {
        Step::Answer(reply) => (serde_json::from_slice(&reply.rendered.body).unwrap(), reply),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_kept_response_is_given_listed_and_thrown_away() {
    let (body, reply) = self::reply("GET", "/v1/responses/resp_1");
    assert_eq!((body, reply.rendered.status, reply.forget.len()), (kept()["response"].clone(), 200, 0));
    let (body, _) = self::reply("GET", "/v1/responses/resp_1/input_items");
    let expected = json!({"object": "list", "data": kept()["input"], "first_id": "msg_1_i0", "last_id": "msg_1_i0",
                          "has_more": false});
    assert_eq!(body, expected);
    let (body, reply) = self::reply("DELETE", "/v1/responses/resp_1");
    assert_eq!(body, json!({"id": "resp_1", "object": "response", "deleted": true}));
    let keys: Vec<_> = reply.forget.iter().map(|at| at.key.as_str()).collect();
    assert_eq!(keys, ["resp_1", "fc_up"]);
}

#[test]
fn input_items_come_in_pages_in_the_order_that_the_query_says() {
    let mut kept = kept();
    let item = |at: usize| json!({"id": format!("msg_1_i{at}"), "type": "message", "role": "user", "content": "a"});
    kept["input"] = (0..25).map(item).collect();
    let documents = [document("resp_1", Some(&kept))];
    let page = |query: &str| {
        let step = ask("GET", &format!("/v1/responses/resp_1/input_items{query}"), &documents, "");
        let Step::Answer(reply) = step.map_err(|error| error.param.unwrap_or_default())? else { panic!() };
        let body: Value = serde_json::from_slice(&reply.rendered.body).unwrap();
        let ids = body["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()[7..].to_owned());
        let ids: Vec<_> = ids.collect();
        assert_eq!(body["first_id"].as_str().map(|id| &id[7..]), ids.first().map(String::as_str));
        assert_eq!(body["last_id"].as_str().map(|id| &id[7..]), ids.last().map(String::as_str));
        Ok::<_, String>((ids, body["has_more"].as_bool().unwrap()))
    };
    let numbers = |range: &mut dyn Iterator<Item = usize>| range.map(|at| at.to_string()).collect::<Vec<_>>();
    assert_eq!(page(""), Ok((numbers(&mut (5..25).rev()), true)));
    assert_eq!(page("?after=msg_1_i5"), Ok((numbers(&mut (0..5).rev()), false)));
    assert_eq!(page("?order=asc&limit=2"), Ok((numbers(&mut (0..2)), true)));
    assert_eq!(page("?order=asc&limit=100&after=msg_1_i1&include[]=reasoning.encrypted_content").unwrap().0.len(), 23);
    assert_eq!(page("?order=asc&after=msg_1_i24"), Ok((Vec::new(), false)));
    for (query, param) in [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=x", "limit"),
        ("?order=up", "order"),
        ("?after=msg_1_i99", "after"),
        ("?include[]=secrets", "include"),
        ("?include=reasoning.encrypted_content,x", "include"),
    ] {
        assert_eq!(page(query), Err(param.to_owned()), "{query}");
    }
}

#[test]
fn a_kept_response_is_streamed_again_and_from_behind_any_event() {
    let mut kept = kept();
    let reasoning = json!({"id": "rs_1_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}],
                           "encrypted_content": "e"});
    kept["response"]["output"].as_array_mut().unwrap().insert(0, reasoning);
    kept["response"]["output"][1]["content"][0]["annotations"] = json!([{"type": "url_citation", "url": "u"}]);
    kept["response"]["usage"] = json!({"total_tokens": 3});
    let documents = [document("resp_1", Some(&kept))];
    let stream = |query: &str| {
        let step = ask("GET", &format!("/v1/responses/resp_1?{query}"), &documents, "");
        let Step::Answer(reply) = step.map_err(|error| error.param.unwrap_or_default())? else { panic!() };
        let text = String::from_utf8(reply.rendered.body).unwrap();
        assert_eq!(reply.rendered.headers[0].1, "text/event-stream");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        Ok::<Vec<Value>, String>(data.map(|data| serde_json::from_str(data).unwrap()).collect())
    };
    let all = stream("stream=true").unwrap();
    let kinds: Vec<_> =
        all.iter().map(|event| event["type"].as_str().unwrap()["response.".len()..].to_owned()).collect();
    let expected = "created in_progress output_item.added reasoning_summary_part.added reasoning_summary_text.delta \
                    reasoning_summary_text.done reasoning_summary_part.done output_item.done output_item.added \
                    content_part.added output_text.delta output_text.annotation.added output_text.done content_part.done \
                    output_item.done output_item.added function_call_arguments.delta function_call_arguments.done \
                    output_item.done completed";
    assert_eq!(kinds.join(" "), expected);
    assert!(all.iter().enumerate().all(|(number, event)| event["sequence_number"] == number), "{all:?}");
    let begun = &all[0]["response"];
    assert_eq!(
        (&begun["status"], &begun["output"], &begun["usage"]),
        (&json!("in_progress"), &json!([]), &json!(null))
    );
    assert_eq!(all.last().unwrap()["response"], kept["response"]);
    // What the events add up to is the item.
    assert_eq!((&all[8]["item"]["content"], &all[9]["part"]["text"]), (&json!([]), &json!("")));
    assert_eq!((&all[10]["delta"], &all[14]["item"]), (&json!("b"), &kept["response"]["output"][1]));
    assert_eq!((&all[15]["item"]["arguments"], &all[16]["delta"]), (&json!(""), &json!("{}")));
    for after in 0..all.len() - 1 {
        assert_eq!(stream(&format!("stream=true&starting_after={after}")).unwrap(), all[after + 1..]);
    }
    // The last event holds all: it always comes.
    assert_eq!(stream("stream=true&starting_after=1000").unwrap(), all[all.len() - 1..]);
    for (query, param) in [
        ("stream=yes", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("starting_after=1", "starting_after"),
        ("include=x", "include"),
    ] {
        assert_eq!(stream(query), Err(param.to_owned()), "{query}");
    }
}

#[test]
fn a_response_that_is_complete_cannot_be_cancelled() {
    let documents = [document("resp_1", Some(&kept()))];
    let error = ask("POST", "/v1/responses/resp_1/cancel", &documents, "").expect_err("it is complete");
    assert_eq!(error.status, Some(400));
    assert!(error.message.starts_with("Cannot cancel a synchronous response"), "{}", error.message);
}

#[test]
fn kept_and_new_items_together_keep_the_bound_on_messages() {
    let limits = Limits { messages: 3, ..default_limits() };
    let body = json!({"input": [{"role": "user", "content": "c"}], "previous_response_id": "resp_1"}).to_string();
    let documents = [document("resp_1", Some(&kept()))];
    let error = ask_within(&limits, "POST", "/v1/responses", &documents, &body).expect_err("one too many");
    assert!(error.message.contains("at most 3"), "{}", error.message);
    let limits = Limits { messages: 2, ..default_limits() };
    let error = ask_within(&limits, "POST", "/v1/responses", &documents, &body).expect_err("one too many");
    assert_eq!(error.param.as_deref(), Some("previous_response_id"));
}

#[test]
fn small_references_to_a_large_item_end_at_a_bound() {
    let mut kept = kept();
    kept["input"][0]["content"] = "a".repeat(1 << 20).into();
    let reference = json!({"type": "item_reference", "id": "msg_1_i0"});
    let body = json!({"input": vec![reference; 100]}).to_string();
    let error = ask("POST", "/v1/responses", &[document("resp_1", Some(&kept))], &body).expect_err("too much");
    assert!(error.message.contains("one reference too many"), "{}", error.message);
}

#[test]
fn a_document_that_is_not_ours_fails_the_request_as_our_fault() {
    for content in ["", "[]", "{}", "{\"response\":5}", "{\"response\":{},\"input\":[5]}"] {
        let documents = [Document {
            at: DocumentRef { kind: "response".into(), key: "resp_1".into() },
            content: Some(content.into()),
        }];
        let error = ask("GET", "/v1/responses/resp_1", &documents, "").expect_err("broken");
        assert_eq!(error.status, Some(500), "{content}");
    }
}

/// What the gateway says of an answer that is given later.
fn later(more: Value) -> Document {
    let body = json!({"model": "m", "input": "Hi", "background": true, "stream": more["stream"] == true});
    let Step::Later(later) = create(&body).unwrap() else { panic!("not later") };
    assert_eq!(later.path, "/v1/responses/resp_bg-{id}");
    let mut state = json!({"status": "queued", "created": 7, "model": "m", "render": later.parsed.render});
    state.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Document { at: DocumentRef { kind: "later".into(), key: "X".into() }, content: Some(state.to_string()) }
}

#[test]
fn a_response_that_is_given_later_is_made_of_its_state() {
    let path = "/v1/responses/resp_bg-X";
    let get = |path: &str, document: Document| match ask("GET", path, &[document], "").unwrap() {
        Step::Answer(reply) => String::from_utf8(reply.rendered.body).unwrap(),
        other => panic!("{other:?}"),
    };
    let as_json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let wanted = |step: Step| match step {
        Step::Needs(needs) => (needs[0].kind.clone(), needs[0].key.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(wanted(ask("GET", path, &[], "").unwrap()), ("later".into(), "X".into()));
    assert_eq!(wanted(ask("POST", &format!("{path}/cancel"), &[], "").unwrap()), ("cancelled".into(), "X".into()));
    for (status, told) in [("queued", "queued"), ("running", "in_progress"), ("cancelled", "cancelled")] {
        let response = as_json(&get(path, later(json!({"status": status}))));
        assert_eq!((&response["id"], &response["status"]), (&json!("resp_bg-X"), &json!(told)));
        assert_eq!((&response["background"], &response["created_at"]), (&json!(true), &json!(7)));
        assert_eq!((&response["output"], &response["usage"]), (&json!([]), &Value::Null));
    }
    let answer = json!({"id": "resp_bg-X", "status": "completed", "output": []}).to_string();
    assert_eq!(get(path, later(json!({"status": "done", "http": 200, "answer": answer}))), answer);
    let error = json!({"error": {"message": "no", "type": "x", "code": null}}).to_string();
    for (http, code) in [(400, "server_error"), (429, "rate_limit_exceeded")] {
        let response = as_json(&get(path, later(json!({"status": "failed", "http": http, "answer": error}))));
        assert_eq!(
            (&response["status"], &response["error"]),
            (&json!("failed"), &json!({"code": code, "message": "no"}))
        );
    }
    let items = as_json(&get(&format!("{path}/input_items"), later(json!({}))));
    assert_eq!(
        (&items["data"][0]["id"], &items["data"][0]["content"][0]["text"]),
        (&json!("msg_bg-X_i0"), &json!("Hi"))
    );
    // What is not of this gateway's making is no response.
    for content in ["{}", "[]", "{\"status\": \"queued\"}", ""] {
        let at = DocumentRef { kind: "later".into(), key: "X".into() };
        let error = ask("GET", path, &[Document { at, content: Some(content.into()) }], "").unwrap_err();
        assert_eq!(error.status, Some(500), "{content}");
    }
    assert!(ask("GET", path, &[document("resp_1", None)], "").is_ok(), "it is asked for");
}

#[test]
fn the_events_of_a_response_that_is_given_later_begin_where_the_client_says() {
    let last = json!({"type": "response.completed", "sequence_number": 2, "response": {"id": "resp_bg-X", "status": "completed", "output": []}});
    let answer = format!("event: a\ndata: {{}}\n\nevent: b\ndata: {{}}\n\nevent: response.completed\ndata: {last}\n\n");
    let done = || later(json!({"stream": true, "status": "done", "http": 200, "answer": answer}));
    let get =
        |query: &str, document: Document| ask("GET", &format!("/v1/responses/resp_bg-X?{query}"), &[document], "");
    let body = |query: &str| match get(query, done()).unwrap() {
        Step::Answer(reply) => String::from_utf8(reply.rendered.body).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(body("stream=true"), answer);
    assert_eq!(body("stream=true&starting_after=0"), answer[answer.find("event: b").unwrap()..]);
    for after in [1, 2, 9, u64::MAX] {
        let rest = body(&format!("stream=true&starting_after={after}"));
        assert_eq!(rest, answer[answer.find("event: response").unwrap()..], "the last one in any case: {after}");
    }
    assert_eq!(serde_json::from_str::<Value>(&body("")).unwrap(), last["response"]);
    let running = || later(json!({"stream": true, "status": "running"}));
    match get("stream=true&starting_after=4", running()).unwrap() {
        Step::Tail(tail) => assert_eq!((tail.at.kind.as_str(), tail.at.key.as_str(), tail.skip), ("later", "X", 5)),
        other => panic!("{other:?}"),
    }
    let whole = get("stream=true", later(json!({"status": "running"}))).unwrap_err();
    assert_eq!((whole.status, whole.param.as_deref()), (Some(400), Some("stream")));
}
