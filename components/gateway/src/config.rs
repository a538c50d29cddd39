//! The configuration: `/witgate.toml` where it is mounted, else the one that the gateway was composed with, else the
//! environment's variables.
//!
//! A variable is looked up among Spin's, in lower case as Spin wants it (`LLM_API_KEY` is `llm_api_key`), and then in the
//! environment as it is. An empty one counts as unset: in `spin.toml` a variable needs a default.

use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;
use witgate_config::Config;
use witgate_gateway::{Adapter, Gateway};

use crate::Shared;
use crate::bindings::wasi::config::store;
use crate::bindings::witgate::gateway::composition;
use crate::bindings::witgate::normaliser::dialects;
use crate::components::Slots;
use crate::policies;
use crate::ports::log;

/// Where the file is mounted.
const FILE: &str = "/witgate.toml";

/// Reads the configuration and makes what the requests share. What is wrong goes to the log, once per instance.
pub fn load() -> Option<Rc<Shared>> {
    let adapters = composition::adapters();
    let composed = !adapters.is_empty();
    let slots = Slots::new(adapters);
    let mut policies = policies::Slots::new(composed.then(composition::policies));
    let read = read().and_then(|config| {
        policies.assign(&config);
        check(config, &slots, &policies, composed)
    });
    let opened = read.and_then(|config| match crate::store::open(&config) {
        Ok(state) => Ok((config, state)),
        Err(problem) => Err(vec![problem.to_string()]),
    });
    match opened {
        Ok((config, state)) => {
            let config = Arc::new(config);
            let gateway = Arc::new(Gateway::new(Arc::clone(&config), dialects::routes()));
            Some(Rc::new(Shared { gateway, config, slots, policies, state }))
        }
        Err(problems) => {
            log(json!({ "event": "misconfigured", "problems": problems }));
            None
        }
    }
}

fn read() -> Result<Config, Vec<String>> {
    let lines = |problems: witgate_config::Problems| problems.iter().map(ToString::to_string).collect();
    match std::fs::read_to_string(FILE) {
        Ok(text) => Config::from_toml(&text, "witgate.toml", &variable).map_err(lines),
        Err(error) if error.kind() == ErrorKind::NotFound => match composition::configuration() {
            none if none.is_empty() => Config::from_env(&variable).map_err(lines),
            text => Config::from_toml(&text, "witgate.toml", &variable).map_err(lines),
        },
        Err(error) => Err(vec![format!("{FILE}: {error}")]),
    }
}

/// A variable; none where it is unset or empty.
pub fn variable(name: &str) -> Option<String> {
    let spin = store::get(&name.to_ascii_lowercase()).unwrap_or_else(|error| {
        log(json!({ "event": "warning", "what": format!("the variable {name}: {error}") }));
        None
    });
    spin.or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
}

/// What the configuration says of adapters and policies, against those that are there.
fn check(config: Config, slots: &Slots, policies: &policies::Slots, composed: bool) -> Result<Config, Vec<String>> {
    let mut problems = config.check_component();
    for (name, policy) in &config.policies {
        if let Some((message, help)) = policies.missing(policy) {
            problems.push(config.problem(&format!("policies.{name}"), message, Some(help)));
        }
    }
    for (name, provider) in &config.providers {
        let Some(adapter) = slots.adapter(provider.adapter.as_str()) else {
            let (of, there) = (provider.adapter.as_str(), slots.names().join(", "));
            let (message, help) = if composed {
                let help = format!("there are {there}; run `witgate compose` with this configuration");
                (format!("the adapter \"{of}\" was not composed into this component"), help)
            } else {
                let help = format!("there are {there}; put yours into the slot custom");
                (format!("the adapter \"{of}\" is in no slot of spin.toml"), help)
            };
            problems.push(config.problem(&format!("providers.{name}.adapter"), message, Some(help)));
            continue;
        };
        let description = adapter.description();
        let endpoint = description.default_endpoint.as_deref().map_or(Ok(()), witgate_config::check_default_endpoint);
        if let Err(message) = endpoint {
            problems.push(config.problem(&format!("providers.{name}.adapter"), message, None));
        }
        let slots: Vec<_> = description.secrets.iter().map(|slot| (slot.name.as_str(), slot.required)).collect();
        problems.extend(config.check_secrets(name, &slots));
    }
    if problems.is_empty() {
        return Ok(config);
    }
    problems.sort();
    Err(problems.iter().map(ToString::to_string).collect())
}
