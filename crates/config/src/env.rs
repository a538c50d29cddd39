//! The environment variables of the AWA LLM service, as a configuration.

use std::time::Duration;

use crate::config::{AdapterRef, Config, Model, Origin, Provider, Target, Timeouts};
use crate::endpoint::{self, Flaw};
use crate::names::{did_you_mean, quote};
use crate::problem::{Problem, Problems};
use crate::secret::Secret;
use crate::units;

const PROVIDERS: [&str; 4] = ["lan", "openai", "local", "stub"];
const VARIABLES: [&str; 6] =
    ["LLM_PROVIDER", "LLM_PROVIDER_FALLBACK", "LLM_BASE_URL", "LLM_API_KEY", "LLM_TIMEOUT_SECS", "LLM_URL"];
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Reads the environment.
pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let get = |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if VARIABLES.iter().all(|name| get(name).is_none()) {
        return Ok(Config::builtin());
    }
    let mut problems = Vec::new();
    let mut problem = |key: &str, message: String, help: Option<String>| {
        problems.push(Problem { file: "environment".into(), line: 0, column: 0, key: key.into(), message, help });
    };

    let primary = ("LLM_PROVIDER", get("LLM_PROVIDER").unwrap_or_else(|| "lan".into()));
    let fallback = get("LLM_PROVIDER_FALLBACK").unwrap_or_else(|| "stub".into());
    let fallback = fallback.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut chain: Vec<String> = Vec::new();
    for (variable, name) in [primary].into_iter().chain(fallback.map(|name| ("LLM_PROVIDER_FALLBACK", name.to_owned())))
    {
        let name = name.to_lowercase();
        if name == "local" {
            let message = "the provider \"local\" is not served yet".to_owned();
            let help = "take \"lan\" with LLM_BASE_URL, for the same server's /v1/chat/completions".to_owned();
            problem(variable, message, Some(help));
        } else if !PROVIDERS.contains(&name.as_str()) {
            let help =
                did_you_mean(&name, PROVIDERS).unwrap_or_else(|| "write \"lan\", \"openai\" or \"stub\"".to_owned());
            problem(variable, format!("no provider {}", quote(&name, 64)), Some(help));
        } else if !chain.contains(&name) {
            chain.push(name);
        }
    }

    let timeouts = match get("LLM_TIMEOUT_SECS") {
        None => Timeouts::DEFAULT,
        Some(text) => {
            let limit = text.parse::<f64>().ok().and_then(units::seconds);
            match limit.filter(|limit| !limit.is_zero() && *limit <= LONGEST_TIMEOUT) {
                Some(limit) => Timeouts {
                    connect: Timeouts::DEFAULT.connect.min(limit),
                    first_token: limit,
                    idle: limit,
                    total: limit,
                },
                None => {
                    let help = "write a number of seconds above 0, at most 86400, as 60".to_owned();
                    problem("LLM_TIMEOUT_SECS", format!("{} is not a time limit", quote(&text, 60)), Some(help));
                    Timeouts::DEFAULT
                }
            }
        }
    };

    let mut key = |name: &str| {
        let text = get(name)?;
        if text.bytes().any(|b| b.is_ascii_control() || !b.is_ascii()) {
            let message = "a key must not hold line ends or characters beyond ASCII".to_owned();
            problem(name, message, None);
        }
        Some(Secret::new(text))
    };
    let llm_key = key("LLM_API_KEY");
    let openai_key = key("OPENAI_API_KEY");
    let base = get("LLM_BASE_URL").unwrap_or_else(|| "http://localhost:8000".into());
    let base = endpoint::check(&base).unwrap_or_else(|Flaw(message, help)| {
        problem("LLM_BASE_URL", format!("the URL {message}"), Some(help.into()));
        String::new()
    });

    let mut config = Config::builtin();
    config.providers.clear();
    config.origin = Origin::Environment;
    config.server.api_keys = llm_key.iter().cloned().collect();
    config.timeouts = timeouts;
    let mut targets = Vec::new();
    for name in chain {
        let mut provider = Provider { name: name.clone(), timeouts, ..Provider::stub() };
        let mut model = None;
        match name.as_str() {
            "lan" => {
                provider.adapter = AdapterRef::Builtin("llama-cpp".into());
                provider.endpoints = vec![base.clone()];
                provider.secrets.extend(llm_key.clone().map(|key| ("api_key".to_owned(), key)));
            }
            "openai" => {
                provider.adapter = AdapterRef::Builtin("openai".into());
                provider.endpoints.clear();
                provider.secrets.extend(openai_key.clone().map(|key| ("api_key".to_owned(), key)));
                model = Some(get("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".into()));
            }
            _ => {}
        }
        config.providers.insert(name.clone(), provider);
        targets.push(Target::new(name, model));
    }
    config.models.insert("*".into(), Model::new("*", targets));
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}
