//! The environment variables of the AWA LLM service (AWA-8, AWA-10, AWA-15, AWA-16).

use std::collections::BTreeMap;
use std::time::Duration;

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
    assert!(config.server.admits(Some("k1")) && !config.server.admits(Some("k2")) && !config.server.admits(None));
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
    assert_eq!(config.providers["stub"].timeouts, timeouts);
    assert_eq!(good(&[("LLM_TIMEOUT_SECS", "45")]).providers["lan"].timeouts.connect, Duration::from_secs(5));
}

#[test]
fn every_mistake_is_named_by_its_variable() {
    let problems = read(&[
        ("LLM_PROVIDER", "local"),
        ("LLM_PROVIDER_FALLBACK", "openia,gemini"),
        ("LLM_BASE_URL", "http://me:hunter2@llm"),
        ("LLM_TIMEOUT_SECS", "0"),
        ("LLM_API_KEY", "se\ncret"),
    ])
    .unwrap_err();
    assert_eq!(
        problems.to_string(),
        "environment: LLM_PROVIDER: the provider \"local\" is not served yet; take \"lan\" with LLM_BASE_URL, for the \
         same server's /v1/chat/completions\n\
         environment: LLM_PROVIDER_FALLBACK: no provider \"openia\"; did you mean \"openai\"?\n\
         environment: LLM_PROVIDER_FALLBACK: no provider \"gemini\"; write \"lan\", \"openai\" or \"stub\"\n\
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
