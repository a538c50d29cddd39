//! What the backends of AWS take from the environment, as AWS's own tools do.

use serde_json::json;

use crate::config::{AdapterRef, Provider};
use crate::secret::Secret;

/// Variables that hold an API key of Bedrock, in their order.
const BEARER: [&str; 2] = ["BEDROCK_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"];

/// What AWS credentials consist of; the last is there only where they are temporary.
pub(crate) const PARTS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

/// Variables that hold a region, in their order.
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Fills in what the file does not say: the region, and, where the provider has no secret of its own, Bedrock's API key.
/// A provider with such a key and no `auth` authenticates by it.
pub(crate) fn complete(provider: &mut Provider, env: &dyn Fn(&str) -> Option<String>) {
    let AdapterRef::Builtin(adapter) = &provider.adapter else { return };
    let bedrock = adapter == "bedrock";
    if !bedrock && adapter != "sagemaker" {
        return;
    }
    let get = |names: [&str; 2]| {
        names.into_iter().find_map(|name| env(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty()))
    };
    let Some(settings) = provider.settings.as_object_mut() else { return };
    if !settings.contains_key("region")
        && let Some(region) = get(REGION)
    {
        settings.insert("region".into(), json!(region));
    }
    if bedrock && !settings.contains_key("auth") {
        if provider.secrets.is_empty()
            && let Some(key) = get(BEARER).filter(|key| key.bytes().all(|b| b.is_ascii_graphic()))
        {
            provider.secrets.insert("api_key".into(), Secret::new(key));
        }
        if provider.secrets.contains_key("api_key") {
            settings.insert("auth".into(), json!("bearer"));
        }
    }
}
