//! The older services, each in a set-up made of its own environment variables, as their clients see them.

use crate::world;

use bytes::Bytes;
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::{Credentials, Outcome, UpstreamRequest};
use world::{Act, Client, Script, World};

/// A gateway in this environment, with AWS credentials.
fn world(variables: &[(&str, &str)]) -> World {
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let env = |name: &str| variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    of(Config::from_env(&env).unwrap_or_else(|problems| panic!("{problems}")))
}

fn of(config: Config) -> World {
    let world = World::new(1, config);
    world.credentials(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"));
    world
}

/// A gateway in that environment whose facade `dialect` gives the older service's status.
fn legacy(dialect: &str, variables: &[(&str, &str)]) -> World {
    let variables: Vec<(&str, &str)> = variables.to_vec();
    let env = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    let mut config = Config::from_env(&env).unwrap();
    let settings = &mut config.dialects.get_mut(dialect).unwrap().settings;
    let mut json: Value = serde_json::from_str(settings).unwrap();
    json["legacy_status"] = true.into();
    *settings = json.to_string();
    of(config)
}

/// What a backend answers.
fn answers(status: u16, body: impl ToString) -> Script {
    let body = Act::Bytes(Bytes::from(body.to_string()));
    Script::new(vec![(1, Act::Head(status, "application/json")), (1, body), (1, Act::End)])
}

fn post(world: &World, path: &str, body: &Value) -> Client {
    world.request_with_key(None, path, Bytes::from(body.to_string()))
}

fn value(client: &Client) -> Value {
    serde_json::from_slice(&client.body).unwrap_or_else(|error| panic!("{error}: {client:?}"))
}

/// Status and body.
fn told(client: &Client) -> (u16, Value) {
    (client.status, value(client))
}

fn sent(world: &World) -> (String, Value) {
    let request = world.requests_sent().pop().expect("nothing was sent");
    (request.url, serde_json::from_slice(&request.body).unwrap())
}

fn header<'r>(request: &'r UpstreamRequest, name: &str) -> Option<&'r str> {
    request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn chat_completion() -> Value {
    let message = json!({"role": "assistant", "content": "Hi!", "refusal": null});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    })
}

fn ollama_answer() -> Value {
    json!({
        "model": "llama3", "created_at": "2025-01-01T00:00:00.5Z",
        "message": {"role": "assistant", "content": "Hi!"}, "done_reason": "stop", "done": true,
        "total_duration": 5, "load_duration": 1, "prompt_eval_count": 3, "prompt_eval_duration": 1, "eval_count": 2,
        "eval_duration": 2,
    })
}

fn llama_answer() -> Value {
    json!({"generation": "Hi!", "prompt_token_count": 3, "generation_token_count": 2, "stop_reason": "stop"})
}

mod inv {
    use super::*;

    const PATH: &str = "/invoke/llm";
    const BOTH: [(&str, &str); 3] = [
        ("BEDROCK_OPENAI_ENDPOINTS", "https://bedrock.example"),
        ("OLLAMA_ENDPOINTS", "http://ollama:11434"),
        ("OLLAMA_DEFAULT_MODEL", "llama3"),
    ];

    /// What the backend of this name got for these members.
    fn asked(world: &World, backend: &str, members: Value) -> Value {
        let mut body = json!({"backend": backend, "prompt": "Hello"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        world.upstream(vec![answers(200, if backend == "ollama" { ollama_answer() } else { chat_completion() })]);
        let answer = post(world, PATH, &body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        sent(world).1
    }

    #[test]
    fn inv_1_without_backend_or_prompt_it_is_400() {
        let world = world(&BOTH);
        let missing = json!({"message": "Missing backend or prompt"});
        for body in [
            json!({}),
            json!({"backend": "bedrock"}),
            json!({"prompt": "Hello"}),
            json!({"backend": "", "prompt": "Hello"}),
            json!({"backend": "bedrock", "prompt": ""}),
            json!({"backend": null, "prompt": "Hello"}),
        ] {
            assert_eq!(told(&post(&world, PATH, &body)), (400, missing.clone()), "{body}");
        }
        assert_eq!(told(&world.request_with_key(None, PATH, Bytes::new())), (400, missing));
        let (status, broken) = told(&world.request_with_key(None, PATH, Bytes::from_static(b"{\"backend\"")));
        assert!(status == 400 && broken["message"].as_str().unwrap().starts_with("invalid JSON"), "{broken}");
        let (status, wrong) = told(&post(&world, PATH, &json!({"backend": 1, "prompt": "Hello"})));
        assert!(status == 400 && wrong["message"].as_str().unwrap().contains("`backend` must be a string"), "{wrong}");
        assert_eq!(world.sent(), 0);
    }

    #[test]
    fn inv_2_an_unknown_backend_is_400_and_names_those_there_are() {
        let answer = post(&world(&BOTH), PATH, &json!({"backend": "openai", "prompt": "Hello"}));
        let message = "Unknown backend \"openai\": there are bedrock, ollama";
        assert_eq!(told(&answer), (400, json!({"message": message})));
        // Without any of the variables too: the stub is a backend.
        let world = World::new(1, Config::builtin());
        let answer = post(&world, PATH, &json!({"backend": "bedrock", "prompt": "Hello"}));
        assert_eq!(value(&answer)["message"], "Unknown backend \"bedrock\": there are stub");
        let answer = post(&world, PATH, &json!({"backend": "stub", "prompt": "Hello", "model": "m"}));
        assert_eq!(value(&answer)["choices"][0]["message"]["content"], "[stub] Hello");
    }

    #[test]
    fn inv_3_bedrock_with_endpoints_is_asked_by_url_and_without_any_by_invoke_model_with_a_signature() {
        let by_url = world(&BOTH);
        asked(&by_url, "bedrock", json!({}));
        let request = by_url.requests_sent().pop().unwrap();
        assert_eq!(
            (request.method.as_str(), request.url.as_str()),
            ("POST", "https://bedrock.example/openai/v1/chat/completions")
        );
        let invoke = world(&[("STRONG_MODEL_ID", "us.meta.llama3-3-70b-instruct-v1:0"), ("WEAK_MODEL_ID", "w")]);
        invoke.upstream(vec![answers(200, llama_answer())]);
        let answer = post(&invoke, PATH, &json!({"backend": "bedrock", "prompt": "Hello"}));
        assert_eq!(told(&answer), (200, json!({"reply": "Hi!"})));
        let request = invoke.requests_sent().pop().unwrap();
        assert_eq!(
            request.url,
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.meta.llama3-3-70b-instruct-v1%3A0/invoke"
        );
        let signature = header(&request, "authorization").unwrap();
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
        let none = world(&[("BEDROCK_TEMPERATURE", "0.1")]);
        let (status, body) = told(&post(&none, PATH, &json!({"backend": "bedrock", "prompt": "Hello"})));
        assert!(status == 400 && body["message"].as_str().unwrap().contains("STRONG_MODEL_ID"), "{body}");
    }

    #[test]
    fn inv_6_to_9_endpoints_of_the_variable_rotate_one_that_fails_rests_for_60_s_and_a_request_has_one_try() {
        let world = world(&[("OLLAMA_ENDPOINTS", "http://a, http://b,,http://c")]);
        let ask = |answer: Script| {
            world.upstream(vec![answer]);
            post(&world, PATH, &json!({"backend": "ollama", "prompt": "Hello", "model": "llama3"})).status
        };
        for _ in 0..4 {
            assert_eq!(ask(answers(200, ollama_answer())), 200);
        }
        assert_eq!(world.hosts_asked(), ["a", "b", "c", "a"]);
        // b fails: the request with it, and no other endpoint is tried for it.
        assert_ne!(ask(answers(500, json!({"error": "out of memory"}))), 200);
        for _ in 0..3 {
            assert_eq!(ask(answers(200, ollama_answer())), 200);
        }
        assert_eq!(world.hosts_asked()[4..], ["b", "c", "a", "c"]);
        world.pass(std::time::Duration::from_secs(61));
        for _ in 0..3 {
            assert_eq!(ask(answers(200, ollama_answer())), 200);
        }
        assert!(world.hosts_asked()[8..].contains(&"b".to_owned()), "{:?}", world.hosts_asked());
    }

    #[test]
    fn inv_5_a_url_with_a_path_is_used_as_it_is() {
        let paths = [("https://b/x/chat/completions", "http://o/api/chat"), ("https://b/invoke", "http://o/proxy/x")];
        for (bedrock, ollama) in paths {
            let world = world(&[("BEDROCK_OPENAI_ENDPOINT", bedrock), ("OLLAMA_ENDPOINT", ollama)]);
            asked(&world, "bedrock", json!({}));
            assert_eq!(sent(&world).0, bedrock);
            asked(&world, "ollama", json!({}));
            assert_eq!(sent(&world).0, ollama);
        }
        let world = world(&[("OLLAMA_ENDPOINT", "http://o:1/")]);
        asked(&world, "ollama", json!({}));
        assert_eq!(sent(&world).0, "http://o:1/api/chat");
    }

    #[test]
    fn inv_9_within_one_request_no_other_endpoint_is_asked() {
        let world = world(&[("OLLAMA_ENDPOINTS", "http://a:1,http://b:1")]);
        world.upstream(vec![answers(500, json!({"error": "oops"})), answers(200, ollama_answer())]);
        assert_eq!(post(&world, PATH, &json!({"backend": "ollama", "prompt": "Hello"})).status, 502);
        assert_eq!(world.sent(), 1);
    }

    #[test]
    fn inv_10_ollama_without_endpoints_is_500() {
        let world = world(&BOTH[..1]);
        let answer = post(&world, PATH, &json!({"backend": "ollama", "prompt": "Hello"}));
        let body = json!({"statusCode": 500, "body": {"error": "500: No endpoints configured"}});
        assert_eq!(told(&answer), (500, body));
    }

    #[test]
    fn inv_11_the_bearer_is_sent_only_where_a_key_is_set() {
        let key = [BOTH[0], ("BEDROCK_API_KEY", "sk-bedrock")];
        for (variables, expected) in [(&BOTH[..1], None), (&key, Some("Bearer sk-bedrock"))] {
            let world = world(variables);
            asked(&world, "bedrock", json!({}));
            assert_eq!(header(&world.requests_sent()[0], "authorization"), expected);
        }
    }

    #[test]
    fn inv_12_the_prompt_becomes_messages_and_the_services_parameters_stand_beside_it() {
        let world = world(&BOTH);
        let messages = json!([{"role": "user", "content": "Hello"}]);
        assert_eq!(
            asked(&world, "bedrock", json!({})),
            json!({"messages": messages, "temperature": 0.5, "max_tokens": 2048, "top_p": 0.9})
        );
        assert_eq!(asked(&world, "bedrock", json!({"model": "openai.gpt-oss-20b"}))["model"], "openai.gpt-oss-20b");
        let options = json!({
            "num_ctx": 4096, "repeat_last_n": 64, "repeat_penalty": 1.1, "temperature": 0.7, "seed": 42,
            "stop": ["AI assistant:"], "num_predict": 42, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        });
        assert_eq!(
            asked(&world, "ollama", json!({})),
            json!({"model": "llama3", "messages": messages, "stream": false, "options": options})
        );
        assert_eq!(asked(&world, "ollama", json!({"model": "mistral"}))["model"], "mistral");
        for (refused, why) in [("messages", "prompt"), ("stream", "answers whole")] {
            let body = json!({"backend": "ollama", "prompt": "Hello", refused: true});
            let (status, body) = told(&post(&world, PATH, &body));
            assert!(status == 400 && body["message"].as_str().unwrap().contains(why), "{body}");
        }
    }

    #[test]
    fn inv_13_a_system_prompt_is_the_system_message_null_is_absent_and_empty_is_sent() {
        let world = world(&BOTH);
        for backend in ["bedrock", "ollama"] {
            let messages = |system: Value| asked(&world, backend, json!({"system_prompt": system}))["messages"].clone();
            let user = json!({"role": "user", "content": "Hello"});
            assert_eq!(messages(json!("Be brief")), json!([{"role": "system", "content": "Be brief"}, user]));
            assert_eq!(messages(json!("")), json!([{"role": "system", "content": ""}, user]));
            assert_eq!(messages(Value::Null), json!([user]));
        }
    }

    #[test]
    fn inv_14_defaults_fill_only_what_is_absent_and_every_other_member_travels_unchanged() {
        let world = world(&[BOTH[0], BOTH[1], ("BEDROCK_TEMPERATURE", "0.3"), ("OLLAMA_STOP", "END,STOP")]);
        let given = json!({
            "temperature": 0, "top_k": 5, "stop": ["x"], "x_own": {"a": [1, 2.50, null]}, "stream": false,
            "extra": {"temperature": 1, "seed": 7, "prompt": "other"},
        });
        let mut expected = json!({
            "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "top_k": 5, "stop": ["x"],
            "x_own": {"a": [1, 2.50, null]}, "seed": 7, "max_tokens": 2048, "top_p": 0.9,
        });
        assert_eq!(asked(&world, "bedrock", given.clone()), expected);
        expected["temperature"] = 0.3.into();
        assert_eq!(asked(&world, "bedrock", json!({}))["temperature"], 0.3);
        let body = asked(
            &world,
            "ollama",
            json!({
                "temperature": 0, "stop": "x", "format": "json", "keep_alive": "5m", "options": {"top_k": 1, "mirostat": 2},
                "extra": {"num_predict": 9, "temperature": 1},
            }),
        );
        let options = json!({
            "temperature": 0, "stop": ["x"], "top_k": 1, "mirostat": 2, "num_predict": 9, "num_ctx": 4096,
            "repeat_last_n": 64, "repeat_penalty": 1.1, "seed": 42, "top_p": 0.9, "min_p": 0.05,
        });
        assert_eq!((&body["options"], &body["format"], &body["keep_alive"]), (&options, &json!("json"), &json!("5m")));
        assert_eq!(asked(&world, "ollama", json!({}))["options"]["stop"], json!(["END", "STOP"]));
        // The defaults are this facade's: the same provider gets none from another.
        world.upstream(vec![answers(200, ollama_answer())]);
        let chat = json!({"model": "ollama/llama3", "messages": [{"role": "user", "content": "Hello"}]});
        assert_eq!(post(&world, "/v1/chat/completions", &chat).status, 200);
        assert_eq!(sent(&world).1.get("options"), None);
    }

    #[test]
    fn inv_14_parameters_that_openai_lacks_are_sent_only_with_passthrough() {
        let world = world(&[BOTH[0], ("BEDROCK_OPENAI_PASSTHROUGH", "true")]);
        let body = asked(&world, "bedrock", json!({"num_ctx": 1}));
        assert_eq!(
            (&body["num_ctx"], &body["top_k"], &body["max_tokens_to_sample"]),
            (&json!(1), &json!(50), &json!(2048))
        );
    }

    #[test]
    fn inv_15_invoke_model_honours_the_requests_overrides() {
        let world = world(&[("WEAK_MODEL_ID", "meta.llama3-8b-instruct-v1:0"), ("BEDROCK_TOP_P", "0.8")]);
        let ask = |members: Value| {
            let mut body = json!({"backend": "bedrock", "prompt": "Hello", "system_prompt": "Be brief"});
            body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            world.upstream(vec![answers(200, llama_answer())]);
            assert_eq!(post(&world, PATH, &body).status, 200);
            sent(&world)
        };
        let prompt = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|>\
                      <|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>\
                      <|start_header_id|>assistant<|end_header_id|>\n\n";
        let (_, body) = ask(json!({}));
        assert_eq!(body, json!({"prompt": prompt, "max_gen_len": 2048, "temperature": 0.5, "top_p": 0.8}));
        let (url, body) =
            ask(json!({"temperature": 0.1, "max_gen_len": 9, "top_p": 1.0, "model": "meta.llama3-70b-instruct-v1:0"}));
        assert_eq!(body, json!({"prompt": prompt, "max_gen_len": 9, "temperature": 0.1, "top_p": 1.0}));
        assert!(url.ends_with("/model/meta.llama3-70b-instruct-v1%3A0/invoke"), "{url}");
        let (status, body) =
            told(&post(&world, PATH, &json!({"backend": "bedrock", "prompt": "Hello", "mirostat": 2})));
        assert!(status == 400 && body["body"]["error"].as_str().unwrap().contains("mirostat"), "{body}");
    }

    #[test]
    fn inv_16_a_success_is_the_backends_json_unwrapped() {
        let world = world(&BOTH);
        for (backend, answer) in [("bedrock", chat_completion()), ("ollama", ollama_answer())] {
            world.upstream(vec![answers(200, &answer)]);
            let got = post(&world, PATH, &json!({"backend": backend, "prompt": "Hello"}));
            assert_eq!(told(&got), (200, answer));
            assert_eq!(got.header("content-type"), Some("application/json"));
        }
    }

    #[test]
    fn inv_17_a_failure_tells_status_and_text_in_an_object() {
        let ask = |world: &World, script: Script| {
            world.upstream(vec![script]);
            told(&post(world, PATH, &json!({"backend": "bedrock", "prompt": "Hello"})))
        };
        let failing = || answers(503, json!({"error": {"message": "no room"}}));
        let (status, body) = ask(&world(&BOTH), failing());
        assert_eq!((status, &body["statusCode"]), (503, &json!(503)));
        let text = body["body"]["error"].as_str().unwrap();
        assert!(text.starts_with("503: ") && text.contains("no room"), "{text}");
        let (status, body) = ask(&world(&BOTH), Script::new(vec![(1, Act::Refuse)]));
        assert_eq!((status, &body["statusCode"]), (502, &json!(502)));
        let (status, body) = ask(&legacy("llm-invocation", &BOTH), failing());
        assert_eq!((status, &body["statusCode"]), (500, &json!(500)));
        assert!(body["body"]["error"].as_str().unwrap().starts_with("503: "), "{body}");
        // The text has the backend's own status, whatever this answer's is.
        let denied = || answers(401, json!({"error": {"message": "no such key"}}));
        for (world, told) in [(world(&BOTH), 502), (legacy("llm-invocation", &BOTH), 500)] {
            let (status, body) = ask(&world, denied());
            assert_eq!((status, &body["statusCode"]), (told, &json!(told)));
            let text = body["body"]["error"].as_str().unwrap();
            assert!(text.starts_with("401: ") && text.contains("no such key"), "{text}");
        }
        // What is wrong with the request is its client's, whatever the switch says.
        assert_eq!(post(&legacy("llm-invocation", &BOTH), PATH, &json!({})).status, 400);
    }

    #[test]
    fn inv_16_what_the_facade_renders_is_not_reported_as_lost() {
        let world = world(&BOTH);
        let mut answer = ollama_answer();
        answer["own_member"] = json!(1);
        world.upstream(vec![answers(200, answer.clone()), answers(200, answer)]);
        let told = post(&world, PATH, &json!({"backend": "ollama", "prompt": "Hello", "model": "llama3"}));
        assert_eq!(value(&told)["own_member"], 1);
        // OpenAI's chat has no place for Ollama's.
        let chat = json!({"model": "ollama", "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(post(&world, "/v1/chat/completions", &chat).status, 200);
        let records = world.records();
        assert!(records[0].unmapped.is_empty(), "{:?}", records[0].unmapped);
        assert!(records[1].unmapped.iter().any(|lost| lost.contains("own_member")), "{:?}", records[1].unmapped);
    }

    #[test]
    fn inv_17_a_backend_that_does_not_answer_is_given_60_seconds() {
        let world = world(&BOTH);
        world.upstream(vec![Script::new(vec![(1, Act::Stall)])]);
        let answer = post(&world, PATH, &json!({"backend": "ollama", "prompt": "Hello"}));
        assert_eq!((answer.status, world.elapsed().as_secs()), (504, 60));
    }
}

mod awa {
    use super::*;

    const LAN: [(&str, &str); 1] = [("LLM_BASE_URL", "http://llm:8001/")];

    fn ask(world: &World) -> Client {
        post(world, "/llm", &json!({"prompt": "Say hi"}))
    }

    #[test]
    fn awa_1_health_is_always_ok_and_ready_asks_the_upstreams() {
        let world = world(&[LAN[0], ("LLM_API_KEY", "k"), ("LLM_PROVIDER_FALLBACK", ",")]);
        assert_eq!(told(&world.get("/health")), (200, json!({"status": "ok"})));
        assert_eq!(world.sent(), 0);
        assert_eq!(world.get("/ready").status, 503);
        assert_eq!(sent_url(&world), "http://llm:8001/health");
    }

    fn sent_url(world: &World) -> String {
        world.requests_sent().pop().unwrap().url
    }

    #[test]
    fn awa_5_and_10_lan_is_asked_with_one_user_message_at_its_chat_completions() {
        let world = world(&LAN);
        world.upstream(vec![answers(200, chat_completion()), answers(200, chat_completion())]);
        assert_eq!(told(&ask(&world)), (200, json!({"completion": "Hi!"})));
        let (url, body) = sent(&world);
        assert_eq!(url, "http://llm:8001/v1/chat/completions");
        assert_eq!(body["messages"], json!([{"role": "user", "content": "Say hi"}]));
        assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(256), &json!(0.7)));
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(told(&post(&world, "/v1/chat/completions", &chat)), (200, chat_completion()));
    }

    #[test]
    fn awa_7_the_log_has_the_requests_facts_and_never_its_prompt() {
        let world = world(&LAN);
        world.upstream(vec![answers(200, chat_completion())]);
        ask(&world);
        let record = world.records().pop().unwrap();
        assert_eq!((record.method.as_str(), record.path.as_str(), record.status), ("POST", "/llm", 200));
        assert_eq!((record.provider.as_deref(), record.outcome), (Some("lan"), Outcome::Complete));
        assert!(!record.request_id.is_empty() && !record.latency.is_zero());
        assert!(!format!("{record:?}").contains("Say hi"));
    }

    #[test]
    fn awa_8_with_a_key_a_missing_or_wrong_one_is_401_and_lan_gets_it() {
        let world = world(&[LAN[0], ("LLM_API_KEY", "k")]);
        for key in [None, Some("wrong")] {
            let answer = world.request_with_key(key, "/llm", Bytes::from_static(br#"{"prompt":"Say hi"}"#));
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
        }
        world.upstream(vec![answers(200, chat_completion())]);
        let answer = world.request_with_key(Some("k"), "/llm", Bytes::from_static(br#"{"prompt":"Say hi"}"#));
        assert_eq!(answer.status, 200);
        assert_eq!(header(&world.requests_sent()[0], "authorization"), Some("Bearer k"));
    }

    #[test]
    fn awa_13_local_is_asked_at_the_url_itself() {
        let world = world(&[("LLM_PROVIDER", "local"), ("LLM_URL", "http://llm:8000/llm")]);
        world.upstream(vec![answers(200, json!({"completion": " Hi! \n"}))]);
        assert_eq!(told(&ask(&world)), (200, json!({"completion": "Hi!"})));
        let request = json!({"prompt": "Say hi", "max_tokens": 256, "temperature": 0.7});
        assert_eq!(sent(&world), ("http://llm:8000/llm".to_owned(), request));
    }

    #[test]
    fn awa_12_the_text_is_the_first_choices_else_text_else_content_else_the_raw_body() {
        for (body, said) in [
            (chat_completion(), "Hi!"),
            (json!({"text": "t", "content": "c"}), "t"),
            (json!({"text": null, "content": " c "}), "c"),
            (json!({"answer": "a"}), r#"{"answer":"a"}"#),
            (json!(["a"]), r#"["a"]"#),
        ] {
            let world = world(&LAN);
            world.upstream(vec![answers(200, &body)]);
            let answer = ask(&world);
            assert_eq!(told(&answer), (200, json!({"completion": said})), "{body}");
            assert_eq!(answer.header("x-witgate-provider"), Some("lan"));
        }
        // No answer at all is a malformed reply, behind which the chain goes on.
        for body in ["", "<html>log in</html>", "{\"text\": \"cut", "{\"error\": {\"message\": \"x\"}}"] {
            let world = world(&LAN);
            world.upstream(vec![answers(200, body)]);
            assert_eq!(ask(&world).header("x-witgate-provider"), Some("stub"), "{body}");
        }
    }

    #[test]
    fn awa_15_the_stub_gives_back_the_first_64_characters() {
        let world = world(&[("LLM_PROVIDER", "stub")]);
        let prompt = "é".repeat(70);
        let answer = post(&world, "/llm", &json!({"prompt": prompt}));
        assert_eq!(value(&answer)["completion"], format!("[stub] {}", "é".repeat(64)));
    }

    #[test]
    fn awa_16_the_chain_goes_on_behind_failures_and_the_answer_says_who_gave_it() {
        let refused = Script::new(vec![(1, Act::Refuse)]);
        let odd = answers(200, "not json");
        let slow = Script::new(vec![(1, Act::Stall)]);
        let statuses = [408, 429, 500, 503].map(|status| answers(status, json!({"error": {"message": "x"}})));
        for script in [refused, odd, slow].into_iter().chain(statuses) {
            let world = world(&[LAN[0], ("LLM_TIMEOUT_SECS", "2")]);
            world.upstream(vec![script.clone()]);
            let answer = ask(&world);
            assert_eq!(told(&answer), (200, json!({"completion": "[stub] Say hi"})), "{script:?}");
            assert_eq!(answer.header("x-witgate-provider"), Some("stub"));
        }
    }

    #[test]
    fn awa_17_what_is_wrong_with_the_request_is_not_asked_of_another() {
        for status in [400, 404, 413, 422] {
            let world = world(&LAN);
            world.upstream(vec![answers(status, json!({"error": {"message": "bad"}}))]);
            let answer = ask(&world);
            assert_eq!(answer.status, 500, "{status}");
            assert!(value(&answer)["detail"].as_str().unwrap().contains("bad"), "{answer:?}");
        }
    }
}

mod bed {
    use super::*;

    const ENV: [(&str, &str); 1] = [("WEAK_MODEL_ID", "w")];
    const BED: &str = "/Prod/chat/";

    fn hello() -> Value {
        json!({"prompt": "Hello, how are you?"})
    }

    #[test]
    fn bed_1_and_2_a_prompt_gets_a_completion_with_and_without_a_stage_and_a_slash_at_the_end() {
        let world = world(&ENV);
        for path in ["/chat", "/chat/", "/Prod/chat/", "/dev/chat"] {
            world.upstream(vec![answers(200, llama_answer())]);
            assert_eq!(told(&post(&world, path, &hello())), (200, json!({"completion": "Hi!"})), "{path}");
        }
        assert_eq!(world.get("/Prod/chat").status, 405);
        assert_eq!(post(&world, "/a/b/chat", &hello()).status, 404);
    }

    #[test]
    fn bed_3_without_a_prompt_it_is_400() {
        let world = world(&ENV);
        for body in ["", "{}", r#"{"prompt":""}"#, r#"{"prompt":null}"#, r#"{"system":"s"}"#] {
            let answer = world.request_with_key(None, BED, Bytes::from_static(body.as_bytes()));
            assert_eq!(told(&answer), (400, json!({"error": "Missing prompt"})), "{body}");
        }
    }

    #[test]
    fn bed_4_what_is_no_json_object_is_400() {
        let world = world(&ENV);
        for body in ["{\"prompt\":", "[]", "\u{feff}{}", "1"] {
            let answer = world.request_with_key(None, BED, Bytes::from_static(body.as_bytes()));
            let (status, body) = told(&answer);
            assert!(status == 400 && body["error"].is_string(), "{body}");
        }
    }

    #[test]
    fn bed_5_any_other_failure_says_nothing_of_its_cause() {
        let ask = |world: World, script: Script| {
            world.upstream(vec![script]);
            told(&post(&world, BED, &hello()))
        };
        let told = json!({"error": "Internal Server Error"});
        let throttled = || answers(429, json!({"message": "secret detail"}));
        let denied = || answers(403, json!({"message": "no access to arn:aws:…"}));
        assert_eq!(ask(world(&ENV), throttled()), (429, told.clone()));
        assert_eq!(ask(world(&ENV), denied()), (502, told.clone()));
        assert_eq!(ask(world(&ENV), Script::new(vec![(1, Act::Refuse)])), (502, told.clone()));
        for script in [throttled(), denied(), answers(400, json!({"message": "bad"}))] {
            assert_eq!(ask(legacy("bedrock-chat", &ENV), script), (500, told.clone()));
        }
        assert_eq!(post(&legacy("bedrock-chat", &ENV), BED, &json!({})).status, 400);
    }

    #[test]
    fn bed_5_the_cause_is_in_the_log_without_the_requests_words() {
        let world = world(&ENV);
        let words = "You may not invoke arn:aws:bedrock:x, said of my private medical question";
        world.upstream(vec![answers(403, json!({"message": words})), Script::new(vec![(1, Act::Refuse)])]);
        let body = json!({"prompt": "This is my private medical question, Doctor"});
        assert_eq!(told(&post(&world, BED, &body)).1, json!({"error": "Internal Server Error"}));
        post(&world, BED, &body);
        let causes = world.records().into_iter().map(|record| record.cause.unwrap());
        let [denied, refused] = causes.collect::<Vec<_>>().try_into().unwrap();
        assert!(denied.contains("(status 403)") && denied.contains("arn:aws:bedrock:x, said of …"), "{denied}");
        assert!(!denied.contains("medical"), "{denied}");
        assert!(refused.starts_with("connection_failed: "), "{refused}");
        // A request that is served, or that is wrong by itself, has none.
        world.upstream(vec![answers(200, llama_answer())]);
        post(&world, BED, &body);
        post(&world, BED, &json!({}));
        assert!(world.records()[2..].iter().all(|record| record.cause.is_none()));
    }

    #[test]
    fn bed_1_a_version_is_no_stage() {
        let world = world(&ENV);
        for path in ["/v1/chat", "/v1/chat/"] {
            let answer = post(&world, path, &hello());
            let message = value(&answer)["error"]["message"].as_str().unwrap().to_owned();
            assert!(answer.status == 404 && message.contains("did you mean /v1/chat/completions?"), "{message}");
        }
    }

    #[test]
    fn bed_6_every_answer_is_json_and_open_to_all_origins() {
        let world = world(&ENV);
        world.upstream(vec![answers(200, llama_answer()), answers(500, "oops")]);
        let all = [post(&world, BED, &hello()), post(&world, BED, &hello()), post(&world, BED, &json!({}))];
        assert_eq!(all.each_ref().map(|answer| answer.status), [200, 502, 400]);
        for answer in all {
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
    }

    #[test]
    fn bed_7_the_model_is_asked_by_invoke_model_in_its_template() {
        let world = world(&ENV);
        world.upstream(vec![answers(200, llama_answer())]);
        post(&world, BED, &json!({"prompt": "Hi <|eot_id|>"}));
        let (url, body) = sent(&world);
        assert_eq!(
            url,
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.meta.llama3-1-8b-instruct-v1%3A0/invoke"
        );
        let prompt = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi <| eot_id|><|eot_id|>\
                      <|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(body, json!({"prompt": prompt, "max_gen_len": 512, "temperature": 0.5}));
    }

    #[test]
    fn bed_r5_model_parameters_in_the_body_are_checked_and_sent() {
        let world = world(&ENV);
        for bound in ["max_tokens", "max_gen_len"] {
            world.upstream(vec![answers(200, llama_answer())]);
            let body = json!({
                "prompt": "Hi", "system": "Be brief", "temperature": 0, "top_p": 1, bound: 9,
                "model": "us.meta.llama3-3-70b-instruct-v1:0",
            });
            assert_eq!(post(&world, BED, &body).status, 200);
            let (url, body) = sent(&world);
            assert!(url.ends_with("/model/us.meta.llama3-3-70b-instruct-v1%3A0/invoke"), "{url}");
            assert_eq!(
                (&body["max_gen_len"], &body["temperature"], &body["top_p"]),
                (&json!(9), &json!(0.0), &json!(1.0))
            );
            assert!(body["prompt"].as_str().unwrap().contains("system<|end_header_id|>\n\nBe brief<|eot_id|>"));
        }
        let before = world.sent();
        for (member, value, right) in [
            ("temperature", json!(1.5), "from 0 to 1"),
            ("temperature", json!("hot"), "from 0 to 1"),
            ("top_p", json!(-0.1), "from 0 to 1"),
            ("max_gen_len", json!(0), "from 1"),
            ("max_gen_len", json!(2049), "from 1 to 2048"),
            ("max_tokens", json!(1.5), "whole number"),
            ("model", json!(1), "a string"),
            ("stop", json!(["x"]), "prompt, system, model"),
        ] {
            let (status, body) = told(&post(&world, BED, &json!({"prompt": "Hi", member: value})));
            let message = body["error"].as_str().unwrap();
            assert!(status == 400 && message.contains(member) && message.contains(right), "{message}");
        }
        let both = json!({"prompt": "Hi", "max_tokens": 1, "max_gen_len": 2});
        assert!(value(&post(&world, BED, &both))["error"].as_str().unwrap().contains("contradict"));
        assert_eq!(world.sent(), before);
    }

    #[test]
    fn bed_9_the_mock_answers_by_an_explicit_switch_alone() {
        let mock = world(&[("BEDROCK_MOCK", "true")]);
        let answer = post(&mock, BED, &hello());
        assert_eq!(told(&answer), (200, json!({"completion": "[mock] Hello, how are you?"})));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(post(&mock, BED, &json!({})).status, 400);
        assert_eq!(mock.sent(), 0);
        let real = world(&[("BEDROCK_MOCK", "false")]);
        assert_eq!(post(&real, BED, &hello()).status, 502);
        assert!(real.sent() > 0);
    }
}

mod smk {
    use super::*;

    const ENV: [(&str, &str); 1] = [("SAGEMAKER_ENDPOINT_NAME", "vllm-endpoint-1")];
    const CHAT: &str = "/v1/chat/completions";
    const TEXT: &str = "/v1/completions";

    fn request() -> Value {
        json!({
            "messages": [{"role": "user", "content": "The future of AI is"}], "max_tokens": 100, "temperature": 0.7,
        })
    }

    fn generated(text: &str) -> Script {
        answers(200, json!([{"generated_text": text}]))
    }

    #[test]
    fn smk_2_the_models_are_the_endpoint() {
        let (status, body) = told(&world(&ENV).get("/v1/models"));
        assert_eq!((status, &body["object"], body["data"].as_array().unwrap().len()), (200, &json!("list"), 1));
        let model = &body["data"][0];
        assert_eq!(
            (&model["id"], &model["object"], &model["owned_by"]),
            (&json!("vllm-endpoint-1"), &json!("model"), &json!("sagemaker"))
        );
    }

    #[test]
    fn smk_3_options_is_200_and_names_the_methods() {
        let world = world(&ENV);
        for (path, methods) in [(CHAT, "POST, OPTIONS"), (TEXT, "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS")]
        {
            let asked = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
            let answer = world.call("OPTIONS", path, &asked, Bytes::new());
            assert_eq!((answer.status, answer.header("access-control-allow-methods")), (200, Some(methods)));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
    }

    #[test]
    fn smk_4_bad_json_is_400_in_openais_shape() {
        for path in [CHAT, TEXT] {
            let answer = world(&ENV).request_with_key(None, path, Bytes::from_static(b"{\"messages\": ["));
            let (status, body) = told(&answer);
            let message = body["error"]["message"].as_str().unwrap();
            assert!(status == 400 && message.starts_with("Invalid JSON"), "{message}");
            assert_eq!(body, json!({"error": {"message": message, "type": "invalid_request_error"}}));
        }
        let (status, body) = told(&post(&world(&ENV), CHAT, &json!({"messages": []})));
        assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")));
    }

    #[test]
    fn smk_5_without_an_endpoint_it_is_a_failure_of_the_set_up() {
        let text = r#"
            [providers.sagemaker]
            adapter = "sagemaker"
            [dialects.openai-chat]
            facade = "sagemaker-proxy"
            model = "${SAGEMAKER_ENDPOINT_NAME:-}"
            [dialects.openai-completions]
            facade = "sagemaker-proxy"
        "#;
        let world = of(Config::from_toml(text, "smk.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}")));
        let error = json!({"error": {"message": "SAGEMAKER_ENDPOINT_NAME not configured", "type": "server_error"}});
        assert_eq!(told(&post(&world, CHAT, &request())), (500, error.clone()));
        assert_eq!(told(&post(&world, TEXT, &json!({"prompt": "Once"}))), (500, error));
        assert_eq!(world.sent(), 0);
    }

    #[test]
    fn smk_5_an_empty_variable_is_a_proxy_that_is_not_set_up() {
        let error = json!({"error": {"message": "SAGEMAKER_ENDPOINT_NAME not configured", "type": "server_error"}});
        for variables in
            [&[("SAGEMAKER_ENDPOINT_NAME", "")][..], &[("SAGEMAKER_ENDPOINT_NAME", " "), ("AWS_REGION", "eu-west-1")]]
        {
            let world = world(variables);
            let mut named = request();
            named["model"] = json!("m");
            for (path, body) in [(CHAT, request()), (CHAT, named), (TEXT, json!({"prompt": "Once"}))] {
                let answer = post(&world, path, &body);
                assert_eq!(told(&answer), (500, error.clone()));
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            }
            let bad = world.request_with_key(None, CHAT, Bytes::from_static(b"{"));
            assert_eq!((bad.status, &value(&bad)["error"]["type"]), (400, &json!("invalid_request_error")));
        }
        // With another service set up, or the variable not there at all, it says nothing.
        let other = world(&[("SAGEMAKER_ENDPOINT_NAME", ""), ("LLM_PROVIDER", "stub")]);
        assert_eq!(post(&other, CHAT, &request()).status, 200);
        assert_eq!(post(&world(&[]), CHAT, &request()).status, 200);
    }

    #[test]
    fn smk_5_the_region_is_the_proxys_own_unless_another_is_set() {
        for (variables, region) in [(&ENV[..], "eu-north-1"), (&[ENV[0], ("AWS_REGION", "us-east-2")], "us-east-2")] {
            let world = world(variables);
            world.upstream(vec![generated("x")]);
            post(&world, CHAT, &request());
            let sent = world.requests_sent().pop().unwrap();
            let url = format!("https://runtime.sagemaker.{region}.amazonaws.com/endpoints/vllm-endpoint-1/invocations");
            assert_eq!(sent.url, url);
            assert!(header(&sent, "authorization").unwrap().contains(&format!("/{region}/sagemaker/aws4_request")));
        }
    }

    #[test]
    fn smk_6_unknown_paths_are_404_and_wrong_methods_405() {
        let world = world(&ENV);
        let (status, body) = told(&post(&world, "/v1/chat/completion", &request()));
        assert_eq!((status, body["error"].as_object().unwrap().len()), (404, 2));
        let answer = world.get(CHAT);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    }

    #[test]
    fn smk_7_and_8_a_conversation_is_one_prompt_with_the_proxys_parameters() {
        let world = world(&ENV);
        world.upstream(vec![generated("x"), generated("x"), generated("x"), generated("x")]);
        let messages = json!([
            {"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"},
        ]);
        post(&world, CHAT, &json!({"messages": messages}));
        let parameters =
            json!({"max_new_tokens": 100, "temperature": 0.7, "do_sample": true, "return_full_text": false});
        let inputs = "System: Be brief\nHi\nAssistant: Hello\nBye";
        assert_eq!(sent(&world).1, json!({"inputs": inputs, "parameters": parameters}));
        post(&world, TEXT, &json!({"prompt": "Once upon"}));
        assert_eq!(sent(&world).1, json!({"inputs": "Once upon", "parameters": parameters}));
        let own = json!({
            "messages": messages, "max_tokens": 9, "temperature": 0.2, "top_p": 0.5, "stop": ["END"], "seed": 7,
            "presence_penalty": 0.5,
        });
        let answer = post(&world, CHAT, &own);
        let parameters = json!({
            "max_new_tokens": 9, "temperature": 0.2, "do_sample": true, "top_p": 0.5, "stop": ["END"], "seed": 7,
            "return_full_text": false,
        });
        assert_eq!(sent(&world).1["parameters"], parameters);
        // The proxy never refused a parameter; now it says that it left one out.
        assert_eq!((answer.status, answer.header("x-witgate-dropped")), (200, Some("presence_penalty")));
        post(&world, CHAT, &json!({"messages": messages, "temperature": 0}));
        let greedy = json!({"max_new_tokens": 100, "do_sample": false, "return_full_text": false});
        assert_eq!(sent(&world).1["parameters"], greedy);
    }

    #[test]
    fn smk_9_10_11_and_12_the_answer_has_openais_shape_whatever_the_container_prefers() {
        let world = world(&ENV);
        let counted = json!({
            "object": "text_completion", "model": "served", "choices": [{"index": 0, "text": " bright", "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60},
        });
        for (script, model, usage) in [
            (answers(200, json!({"generated_text": " bright"})), "vllm-endpoint-1", [5, 1]),
            (generated(" bright"), "vllm-endpoint-1", [5, 1]),
            (answers(200, counted), "served", [10, 50]),
        ] {
            world.upstream(vec![script.clone()]);
            let (status, body) = told(&post(&world, CHAT, &request()));
            assert_eq!((status, &body["object"], &body["model"]), (200, &json!("chat.completion"), &json!(model)));
            assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"), "{body}");
            assert!(body["created"].as_u64().unwrap() >= 1_700_000_000, "{body}");
            let choice = &body["choices"][0];
            assert_eq!(
                choice["message"],
                json!({"role": "assistant", "content": " bright", "refusal": null}),
                "{script:?}"
            );
            assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
            let [prompt, completion] = usage;
            assert_eq!(
                (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
                (&json!(prompt), &json!(completion))
            );
            assert_eq!(body["usage"]["total_tokens"], prompt + completion);
            assert_eq!(body["usage"]["estimated"], if model == "served" { Value::Null } else { json!(true) });
        }
        world.upstream(vec![generated("one two three")]);
        let (_, body) = told(&post(&world, TEXT, &json!({"prompt": "Once upon", "max_tokens": 3})));
        assert!(body["id"].as_str().unwrap().starts_with("cmpl-"), "{body}");
        assert_eq!(
            (&body["object"], &body["choices"][0]["text"]),
            (&json!("text_completion"), &json!("one two three"))
        );
        assert_eq!(body["choices"][0]["finish_reason"], "length");
    }

    #[test]
    fn smk_9_the_event_of_the_documents_local_test_is_answered_in_its_kind() {
        let event = json!({
            "httpMethod": "POST", "path": "/v1/chat/completions",
            "body": "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 50}",
        });
        let request = witgate_gateway::event::read(event.to_string().as_bytes()).unwrap().unwrap();
        let world = world(&ENV);
        world.upstream(vec![generated(" there")]);
        let told = world.call(&request.method, &request.path, &[], request.body);
        assert_eq!(sent(&world).1["parameters"]["max_new_tokens"], 50);
        let answer = witgate_gateway::event::answer(told.status, &told.headers, &told.body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (&answer["statusCode"], &answer["headers"]["access-control-allow-origin"]),
            (&json!(200), &json!("*"))
        );
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], " there");
    }

    #[test]
    fn smk_10_and_11_ids_have_their_prefix_and_created_is_in_epoch_seconds() {
        for (path, body, prefix) in [(CHAT, request(), "chatcmpl-"), (TEXT, json!({"prompt": "Once"}), "cmpl-")] {
            let world = world(&ENV);
            world.upstream(vec![generated("x"), generated("x")]);
            let [one, two] = [(); 2].map(|()| value(&post(&world, path, &body)));
            assert!(one["id"].as_str().unwrap().starts_with(prefix) && one["id"] != two["id"], "{one} {two}");
            assert_eq!(one["created"], 1_700_000_000);
        }
    }

    #[test]
    fn smk_11_created_follows_the_clock() {
        let world = world(&ENV);
        world.upstream(vec![generated("x")]);
        world.pass(std::time::Duration::from_secs(90));
        assert_eq!(value(&post(&world, CHAT, &request()))["created"], 1_700_000_090);
    }

    #[test]
    fn smk_12_tokens_are_words_where_the_container_counts_none_and_an_answer_of_the_bound_is_cut() {
        let world = world(&ENV);
        for (said, most, reason) in [("one two", 3, "stop"), ("one two three", 3, "length"), ("a  b\nc d", 3, "length")]
        {
            world.upstream(vec![generated(said)]);
            let mut body = request();
            body["max_tokens"] = json!(most);
            let answer = value(&post(&world, CHAT, &body));
            let words = said.split_whitespace().count();
            assert_eq!(answer["choices"][0]["finish_reason"], reason, "{said}");
            let usage =
                json!({"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words, "estimated": true});
            assert_eq!(answer["usage"], usage);
        }
    }

    #[test]
    fn smk_13_a_failure_of_the_model_is_told_from_one_of_the_proxy() {
        let ask = |world: World, script: Script| {
            world.upstream(vec![script]);
            let (status, body) = told(&post(&world, CHAT, &request()));
            let error = body["error"].clone();
            assert_eq!(error.as_object().unwrap().len(), 2, "{error}");
            (status, error["type"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
        };
        let model = || {
            let body = json!({"OriginalStatusCode": 500, "OriginalMessage": "CUDA out of memory", "Message": "failed"});
            let headers =
                vec![("content-type", "application/json".to_owned()), ("x-amzn-errortype", "ModelError".into())];
            let body = Act::Bytes(Bytes::from(body.to_string()));
            Script::new(vec![(1, Act::HeadWith(424, headers)), (1, body), (1, Act::End)])
        };
        for world in [world(&ENV), legacy("openai-chat", &ENV)] {
            let (status, kind, message) = ask(world, model());
            assert_eq!((status, kind.as_str()), (502, "model_error"));
            assert!(message.starts_with("Model error: ") && message.contains("CUDA out of memory"), "{message}");
        }
        let refused = || Script::new(vec![(1, Act::Refuse)]);
        let throttled = || answers(429, json!({"__type": "ThrottlingException", "message": "slow down"}));
        let (status, kind, message) = ask(world(&ENV), refused());
        assert_eq!((status, kind.as_str(), message.starts_with("Internal error: ")), (502, "server_error", true));
        let (status, kind, _) = ask(world(&ENV), throttled());
        assert_eq!((status, kind.as_str()), (429, "rate_limit_error"));
        for script in [refused(), throttled()] {
            let (status, kind, message) = ask(legacy("openai-chat", &ENV), script);
            assert_eq!((status, kind.as_str()), (500, "server_error"));
            assert!(message.starts_with("Internal error: "), "{message}");
        }
    }

    #[test]
    fn smk_14_every_reply_is_open_to_all_origins() {
        let world = world(&ENV);
        world.upstream(vec![generated("x"), answers(500, "oops")]);
        let all = [
            post(&world, CHAT, &request()),
            post(&world, CHAT, &request()),
            post(&world, TEXT, &json!({})),
            world.get("/v1/models"),
            world.get("/nowhere"),
        ];
        assert_eq!(all.each_ref().map(|answer| answer.status), [200, 502, 400, 200, 404]);
        assert!(all.iter().all(|answer| answer.header("access-control-allow-origin") == Some("*")));
    }
}
