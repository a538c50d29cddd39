//! The LLM invocation service and the serverless Bedrock endpoint: `BEDROCK_…`, `OLLAMA_…`, `STRONG_MODEL_ID`,
//! `WEAK_MODEL_ID`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::{Variables, otherwise, within};
use crate::aws;
use crate::config::{AdapterRef, Config, Dialect, Provider, Target};
use crate::facades::Backend;
use crate::policy::{Choice, Health, Retry, Strategy};

const BEDROCK: [&str; 13] = [
    "BEDROCK_OPENAI_ENDPOINTS",
    "BEDROCK_OPENAI_ENDPOINT",
    "BEDROCK_API_KEY",
    "BEDROCK_TEMPERATURE",
    "BEDROCK_NUM_CTX",
    "BEDROCK_MAX_TOKENS",
    "BEDROCK_TOP_P",
    "BEDROCK_TOP_K",
    "BEDROCK_MAX_TOKENS_TO_SAMPLE",
    "BEDROCK_OPENAI_PASSTHROUGH",
    "BEDROCK_MODEL_ID",
    "BEDROCK_MOCK",
    "STRONG_MODEL_ID",
];
const OLLAMA: [&str; 13] = [
    "OLLAMA_ENDPOINTS",
    "OLLAMA_ENDPOINT",
    "OLLAMA_DEFAULT_MODEL",
    "OLLAMA_NUM_CTX",
    "OLLAMA_REPEAT_LAST_N",
    "OLLAMA_REPEAT_PENALTY",
    "OLLAMA_TEMPERATURE",
    "OLLAMA_SEED",
    "OLLAMA_STOP",
    "OLLAMA_NUM_PREDICT",
    "OLLAMA_TOP_K",
    "OLLAMA_TOP_P",
    "OLLAMA_MIN_P",
];
const TIMEOUT: Duration = Duration::from_secs(60);
/// The model and the region of the serverless endpoint.
const LLAMA: &str = "us.meta.llama3-1-8b-instruct-v1:0";
const REGION: &str = "us-east-1";

/// Adds what the variables say, and gives what `/invoke/llm` is to know of its backends; `None` where there are none.
pub(super) fn add(variables: &mut Variables<'_>, config: &mut Config) -> Option<BTreeMap<String, Backend>> {
    let bedrock = variables.any(&BEDROCK) || variables.any(&["WEAK_MODEL_ID"]);
    let ollama = variables.any(&OLLAMA);
    if !bedrock && !ollama {
        return None;
    }
    if let Some(threshold) = variables.whole("PROMPT_COMPLEXITY_THRESHOLD", 1) {
        let settings = json!({"prompt_complexity_threshold": threshold}).to_string();
        config.dialects.insert(crate::facades::DIALECT.into(), Dialect { settings, ..Dialect::default() });
    }
    let mut backends = BTreeMap::new();
    if bedrock {
        backends.insert("bedrock".to_owned(), self::bedrock(variables, config));
    }
    backends.insert("ollama".to_owned(), self::ollama(variables, config));
    Some(backends)
}

fn bedrock(variables: &mut Variables<'_>, config: &mut Config) -> Backend {
    let temperature = variables.number("BEDROCK_TEMPERATURE", 0.0).unwrap_or_else(|| json!(0.5));
    let top_p = variables.number("BEDROCK_TOP_P", 0.0).unwrap_or_else(|| json!(0.9));
    let max_tokens = variables.whole("BEDROCK_MAX_TOKENS", 1).unwrap_or_else(|| json!(2048));
    let num_ctx = variables.whole("BEDROCK_NUM_CTX", 1).unwrap_or_else(|| json!(4096));
    let top_k = variables.whole("BEDROCK_TOP_K", 0).unwrap_or_else(|| json!(50));
    let to_sample = variables.whole("BEDROCK_MAX_TOKENS_TO_SAMPLE", 1);
    let passthrough = variables.switch("BEDROCK_OPENAI_PASSTHROUGH");
    let mock = variables.switch("BEDROCK_MOCK");
    let key = variables.secret("BEDROCK_API_KEY");
    let chat_model = variables.get("BEDROCK_MODEL_ID");
    let urls = urls(
        variables,
        ["BEDROCK_OPENAI_ENDPOINTS", "BEDROCK_OPENAI_ENDPOINT"],
        ("/openai/v1/chat/completions", "/chat/completions"),
    );

    let mut runtime = None;
    let backend = match urls {
        Some((endpoints, settings)) => {
            let mut provider = Provider {
                name: "bedrock".into(),
                adapter: AdapterRef::Builtin("openai".into()),
                endpoints,
                settings,
                timeouts: within(TIMEOUT),
                ..Provider::stub()
            };
            provider.secrets.extend(key.map(|key| ("api_key".to_owned(), key)));
            rotate(&mut provider);
            config.providers.insert("bedrock".into(), provider);
            alias(config, "bedrock", Some(String::new()));
            // `/chat` asks InvokeModel, which these URLs do not have.
            if chat_model.is_some() {
                runtime = Some("bedrock-runtime");
            }
            let mut defaults = json!({"temperature": temperature, "max_tokens": max_tokens, "top_p": top_p});
            if passthrough && let Some(defaults) = defaults.as_object_mut() {
                let to_sample = to_sample.unwrap_or_else(|| json!(2048));
                defaults.extend([
                    ("num_ctx".to_owned(), num_ctx),
                    ("top_k".to_owned(), top_k),
                    ("max_tokens_to_sample".to_owned(), to_sample),
                ]);
            }
            Backend { defaults: Some(defaults), ..Backend::default() }
        }
        None => {
            runtime = Some("bedrock");
            let model = variables.get("STRONG_MODEL_ID").or_else(|| variables.get("WEAK_MODEL_ID"));
            let no_model = model.is_none().then(|| "name a model, or set STRONG_MODEL_ID".to_owned());
            // Of Claude alone: Llama has no such parameter.
            let claude = model.as_deref().is_some_and(|model| model.contains("anthropic."));
            alias(config, "bedrock", model);
            // InvokeModel's own name of the bound counts more.
            let bound = to_sample.unwrap_or(max_tokens);
            let mut defaults = json!({"temperature": temperature, "max_tokens": bound, "top_p": top_p});
            if claude && let Some(defaults) = defaults.as_object_mut() {
                defaults.insert("top_k".into(), top_k);
            }
            Backend { defaults: Some(defaults), no_model, ..Backend::default() }
        }
    };
    if let Some(name) = runtime {
        let mut provider = Provider {
            name: name.into(),
            adapter: AdapterRef::Builtin("bedrock".into()),
            endpoints: Vec::new(),
            settings: json!({"api": "invoke"}),
            timeouts: within(TIMEOUT),
            ..Provider::stub()
        };
        aws::complete(&mut provider, variables.env);
        if let Some(settings) = provider.settings.as_object_mut() {
            settings.entry("region").or_insert_with(|| REGION.into());
        }
        config.providers.insert(name.into(), provider);
        let model = format!("{name}/{}", chat_model.as_deref().unwrap_or(LLAMA));
        let settings = if mock { json!({"provider": name, "mock": true}) } else { json!({"provider": name}) };
        config.dialects.insert("bedrock-chat".into(), Dialect { model: Some(model), settings: settings.to_string() });
    } else if mock {
        let settings = json!({"mock": true}).to_string();
        config.dialects.insert("bedrock-chat".into(), Dialect { model: None, settings });
    }
    otherwise(config, "bedrock");
    backend
}

fn ollama(variables: &mut Variables<'_>, config: &mut Config) -> Backend {
    let mut options = Map::new();
    let whole = [
        ("OLLAMA_NUM_CTX", "num_ctx", 1, 4096),
        ("OLLAMA_REPEAT_LAST_N", "repeat_last_n", -1, 64),
        ("OLLAMA_SEED", "seed", i64::MIN, 42),
        ("OLLAMA_NUM_PREDICT", "num_predict", -2, 42),
        ("OLLAMA_TOP_K", "top_k", 0, 40),
    ];
    for (variable, name, least, default) in whole {
        options.insert(name.into(), variables.whole(variable, least).unwrap_or_else(|| json!(default)));
    }
    let numbers = [
        ("OLLAMA_REPEAT_PENALTY", "repeat_penalty", 1.1),
        ("OLLAMA_TEMPERATURE", "temperature", 0.7),
        ("OLLAMA_TOP_P", "top_p", 0.9),
        ("OLLAMA_MIN_P", "min_p", 0.05),
    ];
    for (variable, name, default) in numbers {
        options.insert(name.into(), variables.number(variable, 0.0).unwrap_or_else(|| json!(default)));
    }
    let mut stop = variables.list("OLLAMA_STOP");
    if stop.is_empty() {
        stop.push("AI assistant:".into());
    }
    options.insert("stop".into(), json!(stop));
    let defaults = Some(Json::Object(options));
    let urls = urls(variables, ["OLLAMA_ENDPOINTS", "OLLAMA_ENDPOINT"], ("/api/chat", "/api/chat"));
    let Some((endpoints, settings)) = urls else {
        let unavailable = Some("No endpoints configured".to_owned());
        return Backend { shape: Some("ollama"), defaults, unavailable, ..Backend::default() };
    };
    let mut provider = Provider {
        name: "ollama".into(),
        adapter: AdapterRef::Builtin("ollama".into()),
        endpoints,
        settings,
        timeouts: within(TIMEOUT),
        ..Provider::stub()
    };
    rotate(&mut provider);
    config.providers.insert("ollama".into(), provider);
    alias(config, "ollama", Some(variables.get("OLLAMA_DEFAULT_MODEL").unwrap_or_default()));
    otherwise(config, "ollama");
    Backend { defaults, ..Backend::default() }
}

/// The service's own way with several endpoints: one after the other, one that fails rests for a minute, and a request has
/// one try.
fn rotate(provider: &mut Provider) {
    provider.choice = Choice { strategy: Strategy::RoundRobin, sticky: None };
    provider.health = Health { failures: 1, rest: Duration::from_secs(60), ..Health::DEFAULT };
    provider.retry = Retry { attempts: 1, failover: 0, ..Retry::DEFAULT };
}

/// Requests that name no model of the backend: `/invoke/llm` calls it like the backend.
fn alias(config: &mut Config, backend: &str, model: Option<String>) {
    if model.is_some() {
        super::model(config, backend, vec![Target::new(backend, model)]);
    }
}

/// The URLs of the first of two variables that has some, and the adapter's settings for them. A URL without a path gets
/// `path`. The adapter adds `suffix` by itself, so that it is taken off where all end with it; else the URLs are exact.
fn urls(variables: &mut Variables<'_>, names: [&str; 2], (path, suffix): (&str, &str)) -> Option<(Vec<String>, Json)> {
    let (name, list) = names.into_iter().map(|name| (name, variables.list(name))).find(|(_, list)| !list.is_empty())?;
    let checked = list.iter().filter_map(|url| variables.url(name, url)).collect::<Vec<_>>();
    let full: Vec<String> = checked
        .into_iter()
        .map(|url| {
            let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
            if has_path { url } else { format!("{url}{path}") }
        })
        .collect();
    let bases: Option<Vec<String>> = full.iter().map(|url| url.strip_suffix(suffix).map(str::to_owned)).collect();
    Some(match bases {
        Some(bases) => (bases, json!({})),
        None => (full, json!({"path": "exact"})),
    })
}
