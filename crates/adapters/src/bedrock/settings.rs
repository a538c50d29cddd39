//! The provider's settings.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use witgate_model::{Error, ErrorKind};

use super::json::Members;
use crate::anthropic_shape::settings::Thinking;

/// JSON Schema of [`Settings`].
pub(super) const SCHEMA: &str = include_str!("settings.schema.json");

/// What this adapter reads itself. The gateway reads `region` too, and `profile`; `anthropic_shape` reads settings of its
/// own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings<'a> {
    pub api: Option<Api>,
    #[serde(borrow)]
    pub region: Option<Cow<'a, str>>,
    auth: AuthKind,
    pub drop_unsupported: bool,
    #[serde(borrow)]
    pub inference_profile: Option<Cow<'a, str>>,
    pub model_vendor: Option<Vendor>,
    pub thinking: Thinking,
    #[serde(borrow)]
    pub additional_model_request_fields: Option<Members<'a>>,
    pub additional_model_response_field_paths: Vec<String>,
    pub guardrail: Option<Guardrail>,
    pub latency: Option<String>,
    pub service_tier: Option<String>,
    pub request_metadata: BTreeMap<String, String>,
    pub unsupported_parameters: Option<Vec<Parameter>>,
    #[serde(borrow)]
    pub max_tokens_field: Option<Cow<'a, str>>,
    pub stream_usage: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Api {
    Converse,
    Invoke,
    Openai,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AuthKind {
    #[default]
    Sigv4,
    Bearer,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Vendor {
    Amazon,
    Anthropic,
    Cohere,
    Meta,
    Openai,
    Other,
}

/// A parameter of a chat request that some models behind the OpenAI-compatible endpoint reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Parameter {
    FrequencyPenalty,
    LogitBias,
    Logprobs,
    N,
    ParallelToolCalls,
    PresencePenalty,
    ReasoningEffort,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    ToolChoice,
    TopK,
    TopLogprobs,
    TopP,
    User,
}

/// Read as our settings write it, written as the API wants it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Guardrail {
    #[serde(rename(serialize = "guardrailIdentifier"))]
    pub identifier: String,
    #[serde(rename(serialize = "guardrailVersion"))]
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Only streams know it.
    #[serde(rename(serialize = "streamProcessingMode"), skip_serializing_if = "Option::is_none")]
    pub stream_processing_mode: Option<String>,
}

impl<'a> Settings<'a> {
    /// The gateway has checked the settings against the schema, so a failure here is the operator's, not the client's.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(
                ErrorKind::Other("configuration".to_owned()),
                format!("the settings of the bedrock adapter don't match its schema: {error}"),
            )
        })
    }

    /// Requests carry an API key, and no signature.
    pub fn is_bearer(&self) -> bool {
        self.auth == AuthKind::Bearer
    }
}
