//! The provider's settings.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use witgate_model::{Error, ErrorKind};

use super::json::Members;

/// JSON Schema of [`Settings`].
pub(super) const SCHEMA: &str = include_str!("settings.schema.json");

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings<'a> {
    #[serde(borrow)]
    pub region: Option<Cow<'a, str>>,
    pub auth: AuthKind,
    pub drop_unsupported: bool,
    #[serde(borrow)]
    pub inference_profile: Option<Cow<'a, str>>,
    pub model_vendor: Option<Vendor>,
    #[serde(borrow)]
    pub additional_model_request_fields: Option<Members<'a>>,
    pub additional_model_response_field_paths: Vec<String>,
    pub guardrail: Option<Guardrail>,
    pub latency: Option<String>,
    pub service_tier: Option<String>,
    pub request_metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AuthKind {
    #[default]
    Sigv4,
    Bearer,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Vendor {
    Anthropic,
    Other,
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
    /// Only `converse-stream` knows it.
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
}
