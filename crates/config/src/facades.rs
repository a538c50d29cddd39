//! What the dialect of `/invoke/llm` gets to know: the backends that there are, and what they speak.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::config::{AdapterRef, Config, Provider};

/// The dialect.
pub(crate) const DIALECT: &str = "llm-invocation";

/// What is said of one backend beside the provider of its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    /// The model of requests that name none.
    pub(crate) model: Option<String>,
    /// Parameters where a request says nothing of them: a JSON object.
    pub(crate) defaults: Option<Json>,
    /// What it speaks, where there is no provider of its name.
    pub(crate) shape: Option<&'static str>,
    /// Why it cannot be asked.
    pub(crate) unavailable: Option<String>,
    /// What to do about a request that names no model.
    pub(crate) no_model: Option<String>,
}

/// Writes the settings of the dialect from the providers and what is said of them.
pub(crate) fn complete(config: &mut Config, mut own: BTreeMap<String, Backend>) {
    let mut backends = Map::new();
    for (name, provider) in &config.providers {
        let mut backend = own.remove(name).unwrap_or_default();
        backend.shape = Some(shape(provider));
        if backend.model.is_none() && backend.no_model.is_none() && !config.models.contains_key(name) {
            backend.no_model = Some("name a model".to_owned());
        }
        backends.insert(name.clone(), json(backend));
    }
    backends.extend(own.into_iter().map(|(name, backend)| (name, json(backend))));
    let dialect = config.dialects.entry(DIALECT.into()).or_default();
    let mut settings: Map<String, Json> = serde_json::from_str(&dialect.settings).unwrap_or_default();
    settings.insert("backends".into(), Json::Object(backends));
    dialect.settings = Json::Object(settings).to_string();
}

fn json(backend: Backend) -> Json {
    let mut all = Map::new();
    let texts = [
        ("shape", backend.shape.map(str::to_owned)),
        ("model", backend.model),
        ("unavailable", backend.unavailable),
        ("no_model", backend.no_model),
    ];
    for (name, text) in texts {
        all.extend(text.map(|text| (name.to_owned(), json!(text))));
    }
    all.extend(backend.defaults.map(|defaults| ("defaults".to_owned(), defaults)));
    Json::Object(all)
}

/// In whose shape the provider's answers are given.
fn shape(provider: &Provider) -> &'static str {
    match &provider.adapter {
        AdapterRef::Builtin(adapter) if adapter == "ollama" => "ollama",
        AdapterRef::Builtin(adapter) if adapter == "bedrock" && provider.settings["api"] == "invoke" => "invoke-model",
        _ => "openai",
    }
}
