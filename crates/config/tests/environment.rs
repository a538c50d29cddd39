//! The environment variables of the services that witgate replaces.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use witgate_config::{AdapterRef, Config, Origin, Problems, Target, Timeouts};

fn read(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_env(&|name| variables.get(name).cloned())
}

fn good(variables: &[(&str, &str)]) -> Config {
    read(variables).unwrap_or_else(|problems| panic!("{problems}"))
}

fn chain(config: &Config) -> Vec<(String, Option<String>)> {
    let targets = config.resolve("gpt").unwrap();
    targets.into_iter().map(|Target { provider, model, .. }| (provider, model)).collect()
}

fn named(name: &str, model: Option<&str>) -> (String, Option<String>) {
    (name.into(), model.map(str::to_owned))
}

#[test]
fn with_nothing_set_the_stub_alone_answers() {
    for variables in [&[][..], &[("OPENAI_API_KEY", "sk"), ("OPENAI_MODEL", "m")], &[("LLM_BASE_URL", " ")]] {
        let config = good(variables);
        assert_eq!(config.origin, Origin::Builtin);
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["stub"]);
        assert_eq!(config.providers["stub"].adapter, AdapterRef::Builtin("stub".into()));
        assert_eq!(config.providers["stub"].endpoints, ["stub:"]);
        assert_eq!(chain(&config), [named("stub", None)]);
        assert_eq!(chain(&config), chain(&Config::builtin()));
        assert_eq!(config.resolve("").unwrap().len(), 1);
        assert!(config.server.api_keys.is_empty());
    }
}

#[test]
fn a_base_url_alone_means_lan_and_then_the_stub() {
    let config = good(&[("LLM_BASE_URL", "http://llm:8001/")]);
    assert_eq!(config.origin, Origin::Environment);
    let lan = &config.providers["lan"];
    assert_eq!(lan.adapter, AdapterRef::Builtin("llama-cpp".into()));
    assert_eq!(lan.endpoints, ["http://llm:8001"]);
    assert!(lan.secrets.is_empty());
    assert_eq!(lan.settings, json!({"loose_answers": true}));
    assert_eq!(lan.timeouts, Timeouts::DEFAULT);
    assert_eq!(chain(&config), [named("lan", None), named("stub", None)]);
}

#[test]
fn lan_is_the_default_at_port_8000() {
    assert_eq!(good(&[("LLM_PROVIDER", "LAN")]).providers["lan"].endpoints, ["http://localhost:8000"]);
    assert_eq!(good(&[("LLM_TIMEOUT_SECS", "30")]).providers["lan"].endpoints, ["http://localhost:8000"]);
}

#[test]
fn the_key_is_asked_of_clients_and_sent_to_lan_alone() {
    let config = good(&[
        ("LLM_API_KEY", "k1"),
        ("LLM_PROVIDER_FALLBACK", "openai, ,stub,lan"),
        ("OPENAI_API_KEY", "k2"),
        ("OPENAI_MODEL", "gpt-5"),
    ]);
    let client = |key| config.server.client(key);
    assert_eq!((client(Some("k1")), client(Some("k2")), client(None)), (Some(0), None, None));
    assert_eq!(config.providers["lan"].secrets["api_key"].expose(), "k1");
    assert_eq!(config.providers["openai"].secrets["api_key"].expose(), "k2");
    assert_eq!(config.providers["openai"].adapter, AdapterRef::Builtin("openai".into()));
    assert!(config.providers["openai"].endpoints.is_empty());
    assert!(config.providers["stub"].secrets.is_empty());
    assert_eq!(chain(&config), [named("lan", None), named("openai", Some("gpt-5")), named("stub", None)]);
    assert!(!format!("{config:?}").contains("k2"));
}

#[test]
fn openai_has_a_default_model_and_needs_no_fallback() {
    let config = good(&[("LLM_PROVIDER", "openai"), ("LLM_PROVIDER_FALLBACK", ",")]);
    assert_eq!(chain(&config), [named("openai", Some("gpt-4o-mini"))]);
    assert!(config.server.api_keys.is_empty());
    let found: Vec<String> =
        config.check_secrets("openai", &[("api_key", true)]).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["environment: providers.openai: the secret \"api_key\" is missing; set OPENAI_API_KEY"]);
}

#[test]
fn the_time_limit_bounds_each_attempt() {
    let config = good(&[("LLM_TIMEOUT_SECS", "2.5")]);
    let limit = Duration::from_millis(2_500);
    let timeouts = Timeouts { connect: limit, first_token: limit, idle: limit, total: limit };
    assert_eq!(config.providers["lan"].timeouts, timeouts);
    assert_eq!(config.providers["stub"].timeouts, Timeouts { total: 2 * limit, ..timeouts });
    assert_eq!(good(&[("LLM_TIMEOUT_SECS", "45")]).providers["lan"].timeouts.connect, Duration::from_secs(5));
}

#[test]
fn every_mistake_is_named_by_its_variable() {
    let problems = read(&[
        ("LLM_PROVIDER_FALLBACK", "openia,gemini"),
        ("LLM_BASE_URL", "http://me:hunter2@llm"),
        ("LLM_TIMEOUT_SECS", "0"),
        ("LLM_API_KEY", "se\ncret"),
    ])
    .unwrap_err();
    assert_eq!(
        problems.to_string(),
        "environment: LLM_PROVIDER_FALLBACK: no provider \"openia\"; did you mean \"openai\"?\n\
         environment: LLM_PROVIDER_FALLBACK: no provider \"gemini\"; write \"lan\", \"openai\", \"local\" or \"stub\"\n\
         environment: LLM_TIMEOUT_SECS: \"0\" is not a time limit; write a number of seconds above 0, at most 86400, \
         as 60\n\
         environment: LLM_API_KEY: a key must not hold line ends or characters beyond ASCII\n\
         environment: LLM_BASE_URL: the URL holds a user or a password; put it under `secrets`, as in `api_key = \
         \"${NAME}\"`"
    );
    for bad in ["-1", "abc", "inf", "NaN", "86401", "1e99", "0.0001"] {
        assert_eq!(read(&[("LLM_TIMEOUT_SECS", bad)]).unwrap_err().0[0].key, "LLM_TIMEOUT_SECS", "{bad}");
    }
}

/// What a dialect gets to see.
fn seen(config: &Config, dialect: &str) -> Value {
    serde_json::from_str(&config.dialects[dialect].settings).unwrap()
}

/// What `/invoke/llm` knows of a backend.
fn backend(config: &Config, name: &str) -> Value {
    seen(config, "llm-invocation")["backends"][name].clone()
}

fn adapter(config: &Config, provider: &str) -> String {
    config.providers[provider].adapter.as_str().to_owned()
}

#[test]
fn awa_13_local_is_the_url_itself_with_the_key() {
    let config = good(&[("LLM_PROVIDER", "local"), ("LLM_API_KEY", "k")]);
    let local = &config.providers["local"];
    assert_eq!((adapter(&config, "local").as_str(), &local.settings), ("llama-cpp", &json!({"api": "llm"})));
    assert_eq!(local.endpoints, ["http://llm:8000/llm"]);
    assert_eq!(local.secrets["api_key"].expose(), "k");
    assert_eq!(chain(&config), [named("local", None), named("stub", None)]);
    let config = good(&[("LLM_PROVIDER", "local"), ("LLM_URL", "http://llama:9000/v2/llm/")]);
    assert_eq!(config.providers["local"].endpoints, ["http://llama:9000/v2/llm"]);
    assert_eq!(read(&[("LLM_URL", "llama")]).unwrap_err().0[0].key, "LLM_URL");
}

#[test]
fn inv_3_bedrock_with_endpoints_is_an_openai_style_url_and_without_one_invoke_model() {
    let config = good(&[("BEDROCK_OPENAI_ENDPOINTS", "https://b.example"), ("STRONG_MODEL_ID", "m")]);
    assert_eq!(
        (adapter(&config, "bedrock").as_str(), &backend(&config, "bedrock")["shape"]),
        ("openai", &json!("openai"))
    );
    assert_eq!(config.resolve("bedrock").unwrap(), [Target::new("bedrock", Some(String::new()))]);
    for (variables, model) in [
        (&[("STRONG_MODEL_ID", "us.anthropic.s"), ("WEAK_MODEL_ID", "w")][..], "us.anthropic.s"),
        (&[("WEAK_MODEL_ID", "meta.llama3-w")], "meta.llama3-w"),
    ] {
        let config = good(variables);
        let bedrock = &config.providers["bedrock"];
        assert_eq!(adapter(&config, "bedrock"), "bedrock");
        assert_eq!(bedrock.settings, json!({"api": "invoke", "region": "us-east-1"}));
        assert!(bedrock.endpoints.is_empty() && bedrock.secrets.is_empty());
        assert_eq!(backend(&config, "bedrock")["shape"], "invoke-model");
        assert_eq!(config.resolve("bedrock").unwrap(), [Target::new("bedrock", Some(model.into()))]);
    }
    let config = good(&[("BEDROCK_TEMPERATURE", "0.1"), ("AWS_REGION", "eu-west-1")]);
    assert_eq!(config.providers["bedrock"].settings["region"], "eu-west-1");
    assert!(backend(&config, "bedrock")["no_model"].as_str().unwrap().contains("STRONG_MODEL_ID"));
}

#[test]
fn inv_4_lists_are_split_trimmed_and_cleared_of_empties_and_an_empty_one_is_unset() {
    let config = good(&[("OLLAMA_ENDPOINTS", " http://a:1 ,, http://b:2/ ,"), ("OLLAMA_ENDPOINT", "http://c:3")]);
    assert_eq!(config.providers["ollama"].endpoints, ["http://a:1", "http://b:2"]);
    let config = good(&[("OLLAMA_ENDPOINTS", " , "), ("OLLAMA_ENDPOINT", "http://c:3")]);
    assert_eq!(config.providers["ollama"].endpoints, ["http://c:3"]);
    assert_eq!(good(&[("OLLAMA_ENDPOINTS", "  ")]).origin, Origin::Builtin);
}

#[test]
fn inv_4_a_bad_number_is_a_start_up_problem_that_names_its_variable() {
    let bedrock = ["TEMPERATURE", "NUM_CTX", "MAX_TOKENS", "TOP_P", "TOP_K", "MAX_TOKENS_TO_SAMPLE"];
    let ollama = ["NUM_CTX", "REPEAT_LAST_N", "REPEAT_PENALTY", "TEMPERATURE", "SEED", "NUM_PREDICT", "TOP_K", "TOP_P"];
    let bedrock = bedrock.map(|name| format!("BEDROCK_{name}"));
    let ollama = ollama.map(|name| format!("OLLAMA_{name}"));
    for variable in bedrock.iter().chain(&ollama).map(String::as_str).chain(["OLLAMA_MIN_P"]) {
        for bad in ["warm", "1,5", "NaN", "inf", "--1"] {
            let problems = read(&[(variable, bad)]).unwrap_err().0;
            assert_eq!((problems.len(), problems[0].key.as_str()), (1, variable), "{bad}");
            assert!(problems[0].help.as_deref().unwrap().contains("number"), "{problems:?}");
        }
    }
    assert_eq!(read(&[("BEDROCK_MAX_TOKENS", "0")]).unwrap_err().0[0].key, "BEDROCK_MAX_TOKENS");
    assert_eq!(read(&[("BEDROCK_MOCK", "maybe")]).unwrap_err().0[0].key, "BEDROCK_MOCK");
    let problems =
        read(&[("OLLAMA_SEED", "x"), ("OLLAMA_ENDPOINT", "ftp://a"), ("LLM_TIMEOUT_SECS", "x")]).unwrap_err();
    let keys: Vec<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["LLM_TIMEOUT_SECS", "OLLAMA_SEED", "OLLAMA_ENDPOINT"]);
}

#[test]
fn inv_5_a_url_with_a_path_is_used_as_it_is_and_one_without_gets_the_services_path() {
    let bedrock = |urls: &str| {
        let provider = good(&[("BEDROCK_OPENAI_ENDPOINT", urls)]).providers["bedrock"].clone();
        (provider.endpoints, provider.settings)
    };
    // The adapter appends `/chat/completions`, unless told that the URL is exact.
    assert_eq!(bedrock("https://b:8443"), (vec!["https://b:8443/openai/v1".to_owned()], json!({})));
    assert_eq!(bedrock("https://b/x/chat/completions"), (vec!["https://b/x".to_owned()], json!({})));
    let exact = json!({"path": "exact"});
    assert_eq!(bedrock("https://b/invoke"), (vec!["https://b/invoke".to_owned()], exact.clone()));
    let both = vec!["https://a/openai/v1/chat/completions".to_owned(), "https://b/invoke".to_owned()];
    assert_eq!(bedrock("https://a,https://b/invoke"), (both, exact.clone()));
    let ollama = |urls: &str| {
        let provider = good(&[("OLLAMA_ENDPOINTS", urls)]).providers["ollama"].clone();
        (provider.endpoints, provider.settings)
    };
    assert_eq!(
        ollama("http://o:11434,http://p/api/chat"),
        (vec!["http://o:11434".into(), "http://p".into()], json!({}))
    );
    assert_eq!(ollama("http://o/proxy"), (vec!["http://o/proxy".to_owned()], exact));
}

#[test]
fn inv_10_without_endpoints_ollama_is_known_and_not_available() {
    let config = good(&[("STRONG_MODEL_ID", "m")]);
    assert!(!config.providers.contains_key("ollama"));
    let ollama = backend(&config, "ollama");
    assert_eq!((&ollama["unavailable"], &ollama["shape"]), (&json!("No endpoints configured"), &json!("ollama")));
    // A configuration has a provider, whatever was set.
    assert_eq!(good(&[("OLLAMA_SEED", "1")]).providers.keys().collect::<Vec<_>>(), ["stub"]);
}

#[test]
fn inv_11_bedrocks_key_is_sent_only_where_it_is_set() {
    let secrets = |variables: &[(&str, &str)]| good(variables).providers["bedrock"].secrets.clone();
    assert!(secrets(&[("BEDROCK_OPENAI_ENDPOINT", "https://b")]).is_empty());
    assert_eq!(secrets(&[("BEDROCK_OPENAI_ENDPOINT", "https://b"), ("BEDROCK_API_KEY", "k")])["api_key"].expose(), "k");
}

#[test]
fn inv_14_the_services_defaults_are_the_facades_own_and_no_providers() {
    let config = good(&[("BEDROCK_OPENAI_ENDPOINT", "https://b"), ("OLLAMA_ENDPOINT", "http://o")]);
    assert_eq!(backend(&config, "bedrock")["defaults"], json!({"temperature": 0.5, "max_tokens": 2048, "top_p": 0.9}));
    let ollama = json!({
        "num_ctx": 4096, "repeat_last_n": 64, "repeat_penalty": 1.1, "temperature": 0.7, "seed": 42,
        "stop": ["AI assistant:"], "num_predict": 42, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
    });
    assert_eq!(backend(&config, "ollama")["defaults"], ollama);
    assert_eq!(config.providers["ollama"].settings, json!({}));
    assert_eq!(config.resolve("ollama").unwrap(), [Target::new("ollama", Some(String::new()))]);
    assert_eq!(config.providers["ollama"].timeouts.total, Duration::from_secs(60));

    let config = good(&[
        ("BEDROCK_OPENAI_ENDPOINT", "https://b"),
        ("BEDROCK_OPENAI_PASSTHROUGH", "true"),
        ("BEDROCK_TEMPERATURE", "0"),
        ("BEDROCK_TOP_K", "7"),
        ("OLLAMA_ENDPOINT", "http://o"),
        ("OLLAMA_DEFAULT_MODEL", "llama3"),
        ("OLLAMA_STOP", "END, STOP ,"),
        ("OLLAMA_SEED", "-1"),
    ]);
    assert_eq!(
        backend(&config, "bedrock")["defaults"],
        json!({"temperature": 0.0, "max_tokens": 2048, "top_p": 0.9, "num_ctx": 4096, "top_k": 7, "max_tokens_to_sample": 2048})
    );
    assert_eq!(backend(&config, "ollama")["defaults"]["stop"], json!(["END", "STOP"]));
    assert_eq!(backend(&config, "ollama")["defaults"]["seed"], -1);
    assert_eq!(config.resolve("ollama").unwrap(), [Target::new("ollama", Some("llama3".into()))]);
}

#[test]
fn inv_15_by_invoke_model_its_own_name_of_the_bound_counts_more() {
    let defaults = |variables: &[(&str, &str)]| backend(&good(variables), "bedrock")["defaults"].clone();
    assert_eq!(
        defaults(&[("STRONG_MODEL_ID", "meta.llama3-1-8b"), ("BEDROCK_MAX_TOKENS", "9")]),
        json!({"temperature": 0.5, "max_tokens": 9, "top_p": 0.9})
    );
    assert_eq!(
        defaults(&[("STRONG_MODEL_ID", "us.anthropic.c"), ("BEDROCK_MAX_TOKENS_TO_SAMPLE", "7")]),
        json!({"temperature": 0.5, "max_tokens": 7, "top_p": 0.9, "top_k": 50})
    );
}

#[test]
fn bed_7_the_serverless_endpoint_has_its_model_and_region() {
    let config = good(&[("BEDROCK_MODEL_ID", "us.meta.llama3-3-70b-instruct-v1:0")]);
    let chat = &config.dialects["bedrock-chat"];
    assert_eq!(chat.model.as_deref(), Some("bedrock/us.meta.llama3-3-70b-instruct-v1:0"));
    let config = good(&[("WEAK_MODEL_ID", "w")]);
    let chat = &config.dialects["bedrock-chat"];
    assert_eq!(chat.model.as_deref(), Some("bedrock/us.meta.llama3-1-8b-instruct-v1:0"));
    assert_eq!(seen(&config, "bedrock-chat"), json!({"provider": "bedrock"}));
    assert_eq!(config.providers["bedrock"].settings["region"], "us-east-1");
    // Beside Bedrock by URL it has a provider of its own.
    let config = good(&[("BEDROCK_OPENAI_ENDPOINT", "https://b"), ("BEDROCK_MODEL_ID", "meta.llama3-x")]);
    assert_eq!(config.dialects["bedrock-chat"].model.as_deref(), Some("bedrock-runtime/meta.llama3-x"));
    assert_eq!(adapter(&config, "bedrock-runtime"), "bedrock");
}

#[test]
fn bed_9_the_mock_is_an_explicit_switch() {
    assert_eq!(seen(&good(&[("BEDROCK_MOCK", "true")]), "bedrock-chat")["mock"], true);
    assert_eq!(seen(&good(&[("BEDROCK_MOCK", "0")]), "bedrock-chat").get("mock"), None);
    let config = good(&[("BEDROCK_MOCK", "1"), ("BEDROCK_OPENAI_ENDPOINT", "https://b")]);
    assert_eq!(seen(&config, "bedrock-chat"), json!({"mock": true}));
}

#[test]
fn smk_5_the_endpoint_and_its_region_make_the_proxy() {
    let config = good(&[("SAGEMAKER_ENDPOINT_NAME", "vllm-endpoint-1")]);
    let settings = json!({
        "codec": "base", "endpoint_name": "vllm-endpoint-1", "drop_unsupported": true, "region": "eu-north-1",
    });
    assert_eq!(
        (adapter(&config, "sagemaker").as_str(), &config.providers["sagemaker"].settings),
        ("sagemaker", &settings)
    );
    let endpoint = [Target::new("sagemaker", Some("vllm-endpoint-1".into()))];
    for model in ["", "vllm-endpoint-1", "gpt-4"] {
        assert_eq!(config.resolve(model).unwrap(), endpoint, "{model}");
    }
    for dialect in ["openai-chat", "openai-completions"] {
        assert_eq!(config.dialects[dialect].model.as_deref(), Some("vllm-endpoint-1"));
        assert_eq!(seen(&config, dialect), json!({"facade": "sagemaker-proxy", "model": "vllm-endpoint-1"}));
    }
    assert_eq!(config.server.cors.origins, ["*"]);
    let config = good(&[("SAGEMAKER_ENDPOINT_NAME", "e"), ("AWS_REGION", "us-east-2")]);
    assert_eq!(config.providers["sagemaker"].settings["region"], "us-east-2");
    for bad in ["-e", "a/b", "a b", &"e".repeat(64)] {
        let problems = read(&[("SAGEMAKER_ENDPOINT_NAME", bad)]).unwrap_err();
        assert_eq!(problems.0[0].key, "SAGEMAKER_ENDPOINT_NAME", "{bad}");
    }
    assert_eq!(good(&[("AWS_REGION", "us-east-2")]).origin, Origin::Builtin);
    // Set and empty, and alone, it is a proxy that is not set up.
    let config = good(&[("SAGEMAKER_ENDPOINT_NAME", " ")]);
    assert_eq!((config.origin.clone(), config.dialects["openai-chat"].model.clone()), (Origin::Environment, None));
    assert_eq!(seen(&config, "openai-chat"), json!({"facade": "sagemaker-proxy", "model": ""}));
    assert!(!good(&[("SAGEMAKER_ENDPOINT_NAME", ""), ("LLM_PROVIDER", "stub")]).dialects.contains_key("openai-chat"));
}

#[test]
fn exe_31_the_keys_of_llm_exe_make_the_two_providers() {
    let config = good(&[("OPEN_AI_API_KEY", "k1"), ("OPENAI_API_KEY", "k0"), ("ANTHROPIC_API_KEY", "k2")]);
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["anthropic", "openai"]);
    assert_eq!(config.providers["openai"].secrets["api_key"].expose(), "k1");
    assert_eq!(config.providers["anthropic"].secrets["api_key"].expose(), "k2");
    assert_eq!(chain(&config), [named("openai", None)]);
    assert!(config.server.api_keys.is_empty());
    let config = good(&[("ANTHROPIC_API_KEY", "k2"), ("OPENAI_API_KEY", "k0")]);
    assert_eq!(config.providers["openai"].secrets["api_key"].expose(), "k0");
}

#[test]
fn several_groups_make_several_providers_and_the_first_has_the_other_models() {
    let config = good(&[
        ("LLM_BASE_URL", "http://llm"),
        ("SAGEMAKER_ENDPOINT_NAME", "e"),
        ("OLLAMA_ENDPOINT", "http://o"),
        ("STRONG_MODEL_ID", "meta.llama3-x"),
        ("ANTHROPIC_API_KEY", "k"),
    ]);
    let names: Vec<_> = config.providers.keys().collect();
    assert_eq!(names, ["anthropic", "bedrock", "lan", "ollama", "sagemaker", "stub"]);
    assert_eq!(chain(&config), [named("lan", None), named("stub", None)]);
    assert_eq!(config.resolve("ollama/llama3").unwrap(), [Target::new("ollama", Some("llama3".into()))]);
    let known = seen(&config, "llm-invocation")["backends"].clone();
    let known: Vec<_> = known.as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, ["anthropic", "bedrock", "lan", "ollama", "sagemaker", "stub"]);
}

/// What a runtime does not hand on is not there: `spin.toml` must know every variable that is ever asked for.
#[test]
fn every_variable_that_is_asked_for_is_one_of_spin_toml() {
    let groups: [&[(&str, &str)]; 7] = [
        &[("LLM_BASE_URL", "http://llm")],
        &[("LLM_PROVIDER", "openai"), ("OPENAI_API_KEY", "k")],
        &[("BEDROCK_MODEL_ID", "m"), ("LLM_PROVIDER", "bedrock"), ("LLM_PROVIDER_FALLBACK", "stub")],
        &[("SAGEMAKER_ENDPOINT_NAME", "e")],
        &[("OLLAMA_ENDPOINT", "http://o"), ("BEDROCK_OPENAI_ENDPOINT", "http://b")],
        &[("OLLAMA_ENDPOINTS", "http://o"), ("STRONG_MODEL_ID", "meta.llama3-x"), ("WEAK_MODEL_ID", "meta.llama3-y")],
        &[("OPEN_AI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")],
    ];
    let asked = RefCell::new(BTreeSet::new());
    // What the component itself asks for, to sign.
    asked.borrow_mut().extend(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(str::to_owned));
    for group in groups {
        let found = |name: &str| {
            asked.borrow_mut().insert(name.to_owned());
            group.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let _ = Config::from_env(&found);
        let file = "[providers.b]\nadapter = \"bedrock\"\n[providers.s]\nadapter = \"sagemaker\"\n";
        let _ = Config::from_toml(file, "witgate.toml", &found);
    }
    let asked = asked.into_inner();
    assert!(asked.len() > 40 && asked.contains("AWS_BEARER_TOKEN_BEDROCK"), "{asked:?}");
    let manifest = include_str!("../../../spin.toml").parse::<toml::Table>().unwrap();
    let names = |table: &toml::Value| table.as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let (known, handed_on) = (names(&manifest["variables"]), names(&manifest["component"]["gateway"]["variables"]));
    assert_eq!(known, handed_on);
    let unknown: Vec<_> = asked.into_iter().filter(|name| !known.contains(&name.to_ascii_lowercase())).collect();
    assert!(unknown.is_empty(), "spin.toml lacks {unknown:?}");
}
