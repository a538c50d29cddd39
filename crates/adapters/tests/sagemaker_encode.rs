//! Requests to SageMaker endpoints: the transport, and what each codec's container is sent.

use serde_json::{Value, json};
use witgate_adapters::sagemaker::SageMaker;
use witgate_dialects::{default_limits, parse};
use witgate_model::{
    Adapter, Auth, AwsSigv4Auth, CompletionPrompt, Error, ErrorKind, Framing, FunctionTool, HttpRequest, Input,
    Message, Part, Reasoning, Request, ResponseFormat, Retry, Role, Sampling, TextPart, Tool, ToolChoice,
};

fn conversation() -> Vec<Message> {
    vec![
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, "Say hi"),
        Message::text(Role::Assistant, "Hi"),
        Message::text(Role::User, "Again"),
    ]
}

fn chat() -> Request {
    Request::chat("openai-chat", "llama", conversation())
}

fn completion() -> Request {
    Request::completion("openai-completions", "llama", "Once upon")
}

fn encode(settings: Value, request: Request) -> HttpRequest {
    SageMaker::encode(&settings.to_string(), request).unwrap_or_else(|error| panic!("{error:?}"))
}

fn refused(settings: Value, request: Request) -> Error {
    SageMaker::encode(&settings.to_string(), request).unwrap_err()
}

fn body(http: &HttpRequest) -> Value {
    serde_json::from_slice(&http.body).unwrap()
}

/// `parameters` of a request with this sampling.
fn parameters(settings: Value, sampling: Sampling) -> Value {
    body(&encode(settings, Request { sampling, ..completion() }))["parameters"].clone()
}

fn header<'h>(http: &'h HttpRequest, name: &str) -> Option<&'h str> {
    http.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_transport_is_invoke_endpoint_signed_for_sagemaker() {
    let http = encode(json!({}), chat());
    assert_eq!((http.method.as_str(), http.path.join("/").as_str()), ("POST", "endpoints/llama/invocations"));
    assert_eq!(http.framing, Framing::Whole);
    assert_eq!(header(&http, "content-type"), Some("application/json"));
    assert_eq!(header(&http, "accept"), Some("application/json"));
    assert!(http.query.is_empty());
    let auth = AwsSigv4Auth { service: "sagemaker".into(), slot: "aws".into(), region: None };
    assert_eq!(http.auth, Auth::AwsSigv4(auth));
    let http = encode(json!({}), Request { stream: true, ..chat() });
    assert_eq!(http.path.join("/"), "endpoints/llama/invocations-response-stream");
    assert_eq!(http.framing, Framing::AwsEventstream);
    let is = SageMaker::describe();
    assert_eq!(is.default_endpoint.as_deref(), Some("https://runtime.sagemaker.{region}.{dns_suffix}"));
    assert!(is.secrets.iter().any(|secret| secret.name == "aws" && !secret.required));
    assert_eq!(SageMaker::probe("{}").unwrap(), None);
}

#[test]
fn the_settings_schema_knows_every_setting_and_its_names_are_read() {
    let schema: Value = serde_json::from_str(&SageMaker::describe().settings_schema).unwrap();
    let codecs = schema["properties"]["codec"]["enum"].as_array().unwrap();
    let formats = schema["properties"]["prompt_format"]["enum"].as_array().unwrap();
    assert_eq!((codecs.len(), formats.len()), (3, 4));
    for codec in codecs {
        for format in formats {
            encode(json!({"codec": codec, "prompt_format": format}), chat());
        }
    }
}

#[test]
fn the_endpoint_is_of_the_settings_or_the_requests_model() {
    let http = encode(json!({"endpoint_name": "prod-llama"}), chat());
    assert_eq!(http.path[1], "prod-llama");
    assert_eq!(body(&http)["model"], "llama");
    let http = encode(json!({"endpoint_name": "prod-llama", "served_model": "/opt/ml/model"}), chat());
    assert_eq!((http.path[1].as_str(), &body(&http)["model"]), ("prod-llama", &json!("/opt/ml/model")));
    let http = encode(json!({"served_model": "meta/llama"}), chat());
    assert_eq!((http.path[1].as_str(), &body(&http)["model"]), ("llama", &json!("meta/llama")));
    for model in ["", "a/b", "meta.llama", "-a", "a-", "..", &"x".repeat(64), "é"] {
        let error = refused(json!({}), Request { model: model.into(), ..chat() });
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::InvalidRequest, Some("model")), "{model}");
    }
}

#[test]
fn inference_component_variant_and_attributes_are_headers() {
    let http = encode(
        json!({"inference_component": "ic-1", "target_variant": "blue", "custom_attributes": "accept_eula=true"}),
        chat(),
    );
    assert_eq!(header(&http, "x-amzn-sagemaker-inference-component"), Some("ic-1"));
    assert_eq!(header(&http, "x-amzn-sagemaker-target-variant"), Some("blue"));
    assert_eq!(header(&http, "x-amzn-sagemaker-custom-attributes"), Some("accept_eula=true"));
    assert_eq!(encode(json!({}), chat()).headers.len(), 2);
}

#[test]
fn a_body_larger_than_invoke_endpoint_takes_is_too_large() {
    for settings in [json!({}), json!({"codec": "tgi"})] {
        let empty = encode(settings.clone(), Request::completion("openai-completions", "e", "")).body.len();
        let fits = Request::completion("openai-completions", "e", "x".repeat(6_291_456 - empty));
        assert_eq!(encode(settings.clone(), fits).body.len(), 6_291_456);
        let large = Request::completion("openai-completions", "e", "x".repeat(6_291_457 - empty));
        let error = refused(settings, large);
        assert_eq!((error.kind, error.status, error.retry), (ErrorKind::TooLarge, Some(413), Retry::OtherTarget));
        assert!(error.message.contains("6291456") && error.message.contains("6291457"), "{}", error.message);
    }
}

#[test]
fn vllm_gets_exactly_messages_or_prompt() {
    let members = |http: &HttpRequest| {
        let body = body(http);
        (body.get("messages").is_some(), body.get("prompt").is_some(), body.get("inputs").is_some())
    };
    assert_eq!(members(&encode(json!({}), chat())), (true, false, false));
    assert_eq!(members(&encode(json!({}), completion())), (false, true, false));
    for format in ["base", "llama3", "plain-dialogue"] {
        assert_eq!(members(&encode(json!({"prompt_format": format}), chat())), (false, true, false), "{format}");
    }
}

#[test]
fn vllm_gets_what_openai_gets() {
    let text = json!({
        "model": "llama", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "a cat"}],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "auto", "temperature": 0, "max_tokens": 9, "stop": ["#"], "n": 2, "logprobs": true, "min_tokens": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "stream": true, "stream_options": {"include_usage": true},
    });
    let request = parse("openai-chat", "", &default_limits(), text.to_string().as_bytes()).unwrap().request;
    let http = encode(json!({"codec": "vllm"}), request);
    assert_eq!(body(&http), text);
    assert!(http.dropped.is_empty());
}

#[test]
fn a_conversation_is_rendered_as_the_prompt_format_says() {
    let inputs = |settings: Value| body(&encode(settings, chat()))["inputs"].as_str().map(str::to_owned);
    let base = "System: Be brief.\nSay hi\nAssistant: Hi\nAgain";
    assert_eq!(inputs(json!({"codec": "base"})).as_deref(), Some(base));
    assert_eq!(inputs(json!({"codec": "tgi"})).as_deref(), Some(base));
    assert_eq!(inputs(json!({"codec": "base", "prompt_format": "base"})).as_deref(), Some(base));
    let plain = "System: Be brief.\nUser: Say hi\nAssistant: Hi\nUser: Again\nAssistant:";
    assert_eq!(inputs(json!({"codec": "tgi", "prompt_format": "plain-dialogue"})).as_deref(), Some(plain));
    let llama3 = inputs(json!({"codec": "tgi", "prompt_format": "llama3"})).unwrap();
    assert!(llama3.starts_with("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"));
    let http = encode(json!({"prompt_format": "plain-dialogue"}), chat());
    assert_eq!(body(&http), json!({"model": "llama", "prompt": plain}));
    // `chat` passes the messages intact, whatever the codec.
    for codec in ["vllm", "tgi", "base"] {
        let body = body(&encode(json!({"codec": codec, "prompt_format": "chat"}), chat()));
        assert_eq!(body["messages"].as_array().map(Vec::len), Some(4), "{codec}");
        assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be brief."}), "{codec}");
    }
}

#[test]
fn unset_stays_unset() {
    let base = encode(json!({"codec": "base"}), completion());
    assert_eq!(body(&base), json!({"inputs": "Once upon", "parameters": {"return_full_text": false}}));
    let tgi = encode(json!({"codec": "tgi"}), completion());
    assert_eq!(body(&tgi)["parameters"], json!({"return_full_text": false, "details": true}));
    let stream = encode(json!({"codec": "tgi"}), Request { stream: true, ..completion() });
    assert_eq!(
        body(&stream),
        json!({"inputs": "Once upon", "parameters": {"return_full_text": false}, "stream": true})
    );
}

#[test]
fn parameters_are_those_of_the_container() {
    let sampling = Sampling {
        temperature: Some(0.5),
        top_p: Some(0.9),
        top_k: Some(40),
        seed: Some(7),
        stop: vec!["###".into()],
        max_tokens: Some(50),
        repetition_penalty: Some(1.1),
        ..Sampling::default()
    };
    let given = parameters(json!({"codec": "base"}), sampling);
    let wanted = json!({
        "max_new_tokens": 50, "temperature": 0.5, "do_sample": true, "top_p": 0.9, "top_k": 40, "stop": ["###"],
        "seed": 7, "repetition_penalty": 1.1, "return_full_text": false,
    });
    assert_eq!(given, wanted);
    let both = Sampling { max_tokens: Some(50), max_completion_tokens: Some(80), ..Sampling::default() };
    assert_eq!(parameters(json!({"codec": "tgi"}), both)["max_new_tokens"], 80);
}

#[test]
fn a_temperature_of_zero_is_greedy() {
    let sampling = Sampling { temperature: Some(0.0), top_p: Some(0.9), top_k: Some(3), ..Sampling::default() };
    let settings = json!({"codec": "base", "parameters": {"temperature": 0.7, "top_p": 0.5, "do_sample": true}});
    assert_eq!(parameters(settings, sampling), json!({"do_sample": false, "return_full_text": false}));
}

#[test]
fn what_switches_something_off_is_left_out_for_tgi() {
    let off = || Sampling {
        top_p: Some(1.0),
        top_k: Some(-1),
        min_p: Some(0.0),
        frequency_penalty: Some(0.0),
        presence_penalty: Some(0.0),
        n: Some(1),
        logprobs: Some(false),
        ..Sampling::default()
    };
    let settings = |codec: &str| json!({"codec": codec, "parameters": {"top_p": 0.5, "frequency_penalty": 0.3}});
    assert_eq!(parameters(settings("tgi"), off()), json!({"return_full_text": false, "details": true}));
    let base = parameters(settings("base"), off());
    assert_eq!(base, json!({"top_p": 1.0, "top_k": 0, "return_full_text": false}));
}

#[test]
fn the_settings_parameters_stand_where_the_request_says_nothing() {
    let settings = json!({"codec": "base", "parameters": {
        "max_new_tokens": 100, "temperature": 0.7, "do_sample": true, "watermark": [1, {"a": null}]}});
    let given = parameters(settings.clone(), Sampling::default());
    let wanted = json!({
        "max_new_tokens": 100, "temperature": 0.7, "do_sample": true, "watermark": [1, {"a": null}],
        "return_full_text": false,
    });
    assert_eq!(given, wanted);
    let asked = Sampling { max_tokens: Some(5), ..Sampling::default() };
    assert_eq!(parameters(settings.clone(), asked)["max_new_tokens"], 5);
    let context = |request| encode(settings.clone(), request).context.unwrap();
    assert!(context(completion()).contains(r#""most":100"#));
    let error = refused(json!({"codec": "vllm", "parameters": {"seed": 1}}), chat());
    assert_eq!(error.kind, ErrorKind::Other("configuration".into()));
}

#[test]
fn tools_images_and_forms_are_refused_where_the_model_gets_a_text() {
    let tool = FunctionTool { name: "f".into(), ..FunctionTool::default() };
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = chat();
        change(&mut request);
        request
    };
    let requests = [
        ("tools", with(&|request| request.tools = vec![Tool::Function(tool.clone())])),
        ("tool_choice", with(&|request| request.tool_choice = Some(ToolChoice::Required))),
        ("response_format", with(&|request| request.response_format = Some(ResponseFormat::JsonObject))),
        (
            "reasoning",
            with(&|request| request.reasoning = Some(Reasoning { effort: Some("low".into()), ..Reasoning::default() })),
        ),
        ("logprobs", with(&|request| request.sampling.logprobs = Some(true))),
        ("guided_json", with(&|request| request.extra = Some(r#"{"guided_json":{}}"#.into()))),
        (
            "messages[0].content[0]",
            with(&|request| {
                let text = r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/b.png"}}]}"#;
                let text = format!(r#"{{"model":"llama","messages":[{text},{{"role":"user","content":"Hi"}}]}}"#);
                *request = parse("openai-chat", "", &default_limits(), text.as_bytes()).unwrap().request;
            }),
        ),
    ];
    for settings in [json!({"codec": "tgi"}), json!({"codec": "base"}), json!({"prompt_format": "llama3"})] {
        for (param, request) in &requests {
            let error = refused(settings.clone(), request.clone());
            assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some(*param)), "{settings}");
        }
    }
    for codec in ["tgi", "base"] {
        for (param, request) in &requests {
            let http = encode(json!({"codec": codec, "drop_unsupported": true}), request.clone());
            assert_eq!(http.dropped, [*param], "{codec}");
            assert!(body(&http)["inputs"].is_string());
        }
    }
    // What asks for nothing is no harm.
    let mut idle = chat();
    idle.tool_choice = Some(ToolChoice::None);
    idle.parallel_tool_calls = Some(false);
    idle.response_format = Some(ResponseFormat::Text);
    idle.reasoning = Some(Reasoning { effort: Some("none".into()), ..Reasoning::default() });
    assert!(encode(json!({"codec": "tgi"}), idle).dropped.is_empty());
}

#[test]
fn what_the_container_cannot_do_is_refused_or_listed() {
    let tgi = json!({"codec": "tgi"});
    let base = json!({"codec": "base"});
    let sampled = |sampling: Sampling| Request { sampling, ..completion() };
    let prompted = |prompt: CompletionPrompt| Request { input: Input::Completion(prompt), ..completion() };
    let prompt = || CompletionPrompt { text: "x".into(), ..CompletionPrompt::default() };
    for (param, settings, request) in [
        ("n", &tgi, sampled(Sampling { n: Some(2), ..Sampling::default() })),
        ("presence_penalty", &tgi, sampled(Sampling { presence_penalty: Some(1.0), ..Sampling::default() })),
        ("frequency_penalty", &base, sampled(Sampling { frequency_penalty: Some(1.0), ..Sampling::default() })),
        ("min_p", &tgi, sampled(Sampling { min_p: Some(0.1), ..Sampling::default() })),
        ("logit_bias", &tgi, sampled(Sampling { logit_bias: Some(r#"{"5":1}"#.into()), ..Sampling::default() })),
        ("logprobs", &tgi, sampled(Sampling { logprobs: Some(true), ..Sampling::default() })),
        ("suffix", &tgi, prompted(CompletionPrompt { suffix: Some("end".into()), ..prompt() })),
        ("best_of", &base, prompted(CompletionPrompt { best_of: Some(3), ..prompt() })),
        ("echo", &tgi, Request { stream: true, ..prompted(CompletionPrompt { echo: Some(true), ..prompt() }) }),
        ("user", &tgi, Request { end_user: Some("u".into()), ..completion() }),
        ("min_tokens", &tgi, Request { extra: Some(r#"{"min_tokens":1}"#.into()), ..completion() }),
    ] {
        let error = refused(settings.clone(), request.clone());
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some(param)), "{param}");
        assert!(error.message.contains("SageMaker"), "{}", error.message);
        let mut lenient = settings.clone();
        lenient["drop_unsupported"] = json!(true);
        assert_eq!(encode(lenient, request).dropped, [param]);
    }
    let echo = encode(tgi.clone(), prompted(CompletionPrompt { echo: Some(true), best_of: Some(2), ..prompt() }));
    assert_eq!(body(&echo)["parameters"]["return_full_text"], true);
    assert_eq!(body(&echo)["parameters"]["best_of"], 2);
    let penalty = sampled(Sampling { frequency_penalty: Some(0.5), ..Sampling::default() });
    assert_eq!(body(&encode(tgi, penalty))["parameters"]["frequency_penalty"], 0.5);
}

#[test]
fn unknown_members_of_its_own_dialect_are_parameters() {
    let mut request = Request::completion("tgi", "llama", "x");
    request.sampling.seed = Some(1);
    request.extra = Some(r#"{"typical_p":0.95,"seed":2}"#.into());
    let given = body(&encode(json!({"codec": "base", "parameters": {"typical_p": 0.1}}), request));
    assert_eq!(given["parameters"], json!({"seed": 1, "return_full_text": false, "typical_p": 0.95}));
}

#[test]
fn bad_values_are_refused_where_they_stand() {
    let base = json!({"codec": "base"});
    for (param, sampling) in [
        ("temperature", Sampling { temperature: Some(f64::NAN), ..Sampling::default() }),
        ("top_p", Sampling { top_p: Some(f64::INFINITY), ..Sampling::default() }),
        ("stop", Sampling { stop: vec!["x".into(); 65], ..Sampling::default() }),
        ("stop", Sampling { stop: vec!["x".repeat(8193)], ..Sampling::default() }),
    ] {
        let error = refused(base.clone(), Request { sampling, ..completion() });
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::InvalidRequest, Some(param)));
    }
    let mut request = completion();
    request.extra = Some("[]".into());
    assert_eq!(refused(base, request).kind, ErrorKind::InvalidRequest);
}

#[test]
fn operations_that_a_container_does_not_have_are_refused() {
    for settings in [json!({}), json!({"codec": "tgi"})] {
        for input in [Input::Models, Input::CountTokens(conversation())] {
            let error = refused(settings.clone(), Request::new("openai-chat", "llama", input));
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert_eq!(error.code.as_deref(), Some("unsupported_operation"));
            assert!(error.message.contains("SageMaker"), "{}", error.message);
        }
    }
}

#[test]
fn the_prompts_words_travel_to_the_decoder() {
    let parts = vec![Part::text("two words"), Part::Text(TextPart { text: "one".into(), ..TextPart::default() })];
    let message = Message { role: Role::User, name: None, parts, extra: None };
    for settings in [json!({}), json!({"codec": "base"})] {
        let request = Request::chat("openai-chat", "llama", vec![message.clone()]);
        let context = encode(settings, request).context.unwrap();
        assert!(context.contains(r#""words":3"#), "{context}");
    }
}

#[test]
fn a_text_cannot_leave_its_string() {
    let text = "a \"quote\" \\ \n\u{1} 🦀";
    let request = Request::completion("openai-completions", "llama", text);
    assert_eq!(body(&encode(json!({"codec": "base"}), request))["inputs"], text);
}
