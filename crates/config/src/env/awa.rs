//! The AWA LLM service: `LLM_…`.

use std::time::Duration;

use serde_json::json;

use super::Variables;
use crate::config::{AdapterRef, Config, Provider, Target, Timeouts};
use crate::names::{did_you_mean, quote};
use crate::policy::Retry;
use crate::units;

const PROVIDERS: [&str; 4] = ["lan", "openai", "local", "stub"];
const VARIABLES: [&str; 6] =
    ["LLM_PROVIDER", "LLM_PROVIDER_FALLBACK", "LLM_BASE_URL", "LLM_API_KEY", "LLM_TIMEOUT_SECS", "LLM_URL"];
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Adds what the variables say; false where there are none.
pub(super) fn add(variables: &mut Variables<'_>, config: &mut Config) -> bool {
    if !variables.any(&VARIABLES) {
        return false;
    }
    let primary = ("LLM_PROVIDER", variables.get("LLM_PROVIDER").unwrap_or_else(|| "lan".into()));
    let fallback = variables.get("LLM_PROVIDER_FALLBACK").unwrap_or_else(|| "stub".into());
    let fallback = fallback.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut chain: Vec<String> = Vec::new();
    for (variable, name) in [primary].into_iter().chain(fallback.map(|name| ("LLM_PROVIDER_FALLBACK", name.to_owned())))
    {
        let name = name.to_lowercase();
        if !PROVIDERS.contains(&name.as_str()) {
            let help = did_you_mean(&name, PROVIDERS)
                .unwrap_or_else(|| "write \"lan\", \"openai\", \"local\" or \"stub\"".to_owned());
            variables.problem(variable, format!("no provider {}", quote(&name, 64)), Some(help));
        } else if !chain.contains(&name) {
            chain.push(name);
        }
    }

    let timeouts = match variables.get("LLM_TIMEOUT_SECS") {
        None => Timeouts::DEFAULT,
        Some(text) => {
            let limit = text.parse::<f64>().ok().and_then(units::seconds);
            match limit.filter(|limit| !limit.is_zero() && *limit <= LONGEST_TIMEOUT) {
                Some(limit) => super::within(limit),
                None => {
                    let help = "write a number of seconds above 0, at most 86400, as 60".to_owned();
                    let message = format!("{} is not a time limit", quote(&text, 60));
                    variables.problem("LLM_TIMEOUT_SECS", message, Some(help));
                    Timeouts::DEFAULT
                }
            }
        }
    };

    let llm_key = variables.secret("LLM_API_KEY");
    let openai_key = variables.openai_key();
    let base = variables.get("LLM_BASE_URL").unwrap_or_else(|| "http://localhost:8000".into());
    let base = variables.url("LLM_BASE_URL", &base).unwrap_or_default();
    let local = variables.get("LLM_URL").unwrap_or_else(|| "http://llm:8000/llm".into());
    let local = variables.url("LLM_URL", &local).unwrap_or_default();

    config.server.api_keys = llm_key.iter().cloned().collect();
    config.timeouts = timeouts;
    let mut targets = Vec::new();
    for (number, name) in (1..).zip(chain) {
        // The limit is that of one attempt, and `total` counts from the request's start. Who calls tries again.
        let timeouts = Timeouts { total: timeouts.total.saturating_mul(number), ..timeouts };
        let retry = Retry { attempts: 1, failover: 0, ..Retry::DEFAULT };
        let mut provider = Provider { name: name.clone(), timeouts, retry, ..Provider::stub() };
        let mut model = None;
        match name.as_str() {
            "lan" | "local" => {
                provider.adapter = AdapterRef::Builtin("llama-cpp".into());
                provider.endpoints = vec![if name == "lan" { base.clone() } else { local.clone() }];
                provider.secrets.extend(llm_key.clone().map(|key| ("api_key".to_owned(), key)));
                provider.settings =
                    if name == "local" { json!({"api": "llm"}) } else { json!({"loose_answers": true}) };
            }
            "openai" => {
                provider.adapter = AdapterRef::Builtin("openai".into());
                provider.endpoints.clear();
                provider.secrets.extend(openai_key.clone().map(|key| ("api_key".to_owned(), key)));
                model = Some(variables.get("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".into()));
            }
            _ => {}
        }
        config.providers.insert(name.clone(), provider);
        targets.push(Target::new(name, model));
    }
    super::model(config, "*", targets);
    true
}
