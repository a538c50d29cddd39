//! The SageMaker proxy: `SAGEMAKER_ENDPOINT_NAME` and `AWS_REGION`.

use std::time::Duration;

use serde_json::json;

use super::{Variables, within};
use crate::aws;
use crate::config::{AdapterRef, Config, Dialect, Provider, Target};
use crate::names::quote;

const VARIABLE: &str = "SAGEMAKER_ENDPOINT_NAME";
const PROVIDER: &str = "sagemaker";
/// The region of this service where the environment names none.
const REGION: &str = "eu-north-1";
/// How long a model may take: what an invocation may.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The proxy without an endpoint: where the variable is there and empty, and nothing else is set up, its every request is a
/// failure of the set-up.
pub(super) fn add_unset(variables: &Variables<'_>, config: &mut Config) -> bool {
    let unset = (variables.env)(VARIABLE).is_some_and(|value| value.trim().is_empty());
    if unset {
        facade(config, "");
    }
    unset
}

/// Adds what the variables say; false where there are none.
pub(super) fn add(variables: &mut Variables<'_>, config: &mut Config) -> bool {
    let Some(endpoint) = variables.get(VARIABLE) else { return false };
    let good = (1..=63).contains(&endpoint.len())
        && !endpoint.starts_with('-')
        && !endpoint.ends_with('-')
        && endpoint.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !good {
        let message = format!("{} is not the name of an endpoint", quote(&endpoint, 80));
        let help = "write letters, digits and inner hyphens, at most 63".to_owned();
        variables.problem(VARIABLE, message, Some(help));
        return true;
    }
    let mut provider = Provider {
        name: PROVIDER.into(),
        adapter: AdapterRef::Builtin("sagemaker".into()),
        endpoints: Vec::new(),
        // The proxy never refused a parameter that its model does not have. What is left out is told.
        settings: json!({"codec": "base", "endpoint_name": endpoint, "drop_unsupported": true}),
        timeouts: within(TIMEOUT),
        ..Provider::stub()
    };
    aws::complete(&mut provider, variables.env);
    if let Some(settings) = provider.settings.as_object_mut() {
        settings.entry("region").or_insert_with(|| REGION.into());
    }
    config.providers.insert(PROVIDER.into(), provider);
    let target = Target::new(PROVIDER, Some(endpoint.clone()));
    super::model(config, &endpoint, vec![target.clone()]);
    // The proxy asked its endpoint whatever model was named.
    if !config.models.contains_key("*") {
        super::model(config, "*", vec![target]);
    }
    facade(config, &endpoint);
    true
}

/// Makes the APIs of OpenAI what they were in the proxy.
fn facade(config: &mut Config, endpoint: &str) {
    for dialect in ["openai-chat", "openai-completions"] {
        let settings = json!({"facade": "sagemaker-proxy", "model": endpoint}).to_string();
        let model = (!endpoint.is_empty()).then(|| endpoint.to_owned());
        config.dialects.insert(dialect.into(), Dialect { model, settings });
    }
    config.server.cors.origins = vec!["*".into()];
}
