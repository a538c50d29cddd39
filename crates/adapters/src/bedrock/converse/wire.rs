//! The request body of Converse and ConverseStream, member for member as AWS's service model names it.

use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::json::{Members, long};
use super::super::settings::Guardrail;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a> {
    pub messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<SystemBlock<'a>>,
    #[serde(skip_serializing_if = "InferenceConfig::is_empty")]
    pub inference_config: InferenceConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrail_config: Option<Guardrail>,
    #[serde(skip_serializing_if = "Members::is_empty")]
    pub additional_model_request_fields: Members<'a>,
    #[serde(skip_serializing_if = "slice_is_empty")]
    pub additional_model_response_field_paths: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_metadata: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub performance_config: Option<Performance<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig<'a>>,
    /// Members of the client's own, where its dialect is ours.
    #[serde(flatten)]
    pub extra: Members<'a>,
}

fn slice_is_empty(slice: &&[String]) -> bool {
    slice.is_empty()
}

#[derive(Serialize)]
pub(super) struct Turn<'a> {
    pub role: &'static str,
    pub content: Vec<Block<'a>>,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum SystemBlock<'a> {
    #[serde(serialize_with = "long")]
    Text(&'a str),
    CachePoint(CachePoint<'a>),
    #[serde(untagged)]
    TextWith(TextWith<'a>),
    #[serde(untagged)]
    Raw(&'a RawValue),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Block<'a> {
    #[serde(serialize_with = "long")]
    Text(&'a str),
    Image(Media<'a>),
    Document(Media<'a>),
    Video(Media<'a>),
    Audio(Media<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    CachePoint(CachePoint<'a>),
    ReasoningContent(Reasoning<'a>),
    #[serde(untagged)]
    TextWith(TextWith<'a>),
    #[serde(untagged)]
    Raw(&'a RawValue),
}

/// Text with members that only the client's dialect knows.
#[derive(Serialize)]
pub(super) struct TextWith<'a> {
    #[serde(serialize_with = "long")]
    pub text: &'a str,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
pub(super) struct Media<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    /// Documents only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub source: Source<'a>,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Source<'a> {
    /// Base64, as JSON carries blobs.
    #[serde(serialize_with = "long")]
    Bytes(&'a str),
    S3Location(S3Location<'a>),
    /// Documents only.
    #[serde(serialize_with = "long")]
    Text(&'a str),
    #[serde(untagged)]
    Raw(&'a RawValue),
}

#[derive(Serialize)]
pub(super) struct S3Location<'a> {
    pub uri: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolUse<'a> {
    pub tool_use_id: String,
    pub name: String,
    pub input: &'a RawValue,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolResult<'a> {
    pub tool_use_id: String,
    pub content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
pub(super) struct CachePoint<'a> {
    pub r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reasoning<'a> {
    ReasoningText(ReasoningText<'a>),
    /// Base64.
    RedactedContent(&'a str),
}

#[derive(Serialize)]
pub(super) struct ReasoningText<'a> {
    #[serde(serialize_with = "long")]
    pub text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<&'a str>,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InferenceConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "slice_is_empty")]
    pub stop_sequences: &'a [String],
}

impl InferenceConfig<'_> {
    fn is_empty(&self) -> bool {
        self.max_tokens.is_none()
            && self.temperature.is_none()
            && self.top_p.is_none()
            && self.stop_sequences.is_empty()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    pub tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Tool<'a> {
    ToolSpec(ToolSpec<'a>),
    CachePoint(CachePoint<'a>),
    #[serde(untagged)]
    Raw(&'a RawValue),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolSpec<'a> {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    pub input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    #[serde(flatten)]
    pub extra: Members<'a>,
}

#[derive(Serialize)]
pub(super) struct InputSchema<'a> {
    pub json: Cow<'a, RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ToolChoice<'a> {
    Auto {},
    Any {},
    Tool {
        name: String,
    },
    #[serde(untagged)]
    Raw(&'a RawValue),
}

#[derive(Serialize)]
pub(super) struct Performance<'a> {
    pub latency: &'a str,
}

#[derive(Serialize)]
pub(super) struct ServiceTier<'a> {
    pub r#type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OutputConfig<'a> {
    pub text_format: TextFormat<'a>,
}

#[derive(Serialize)]
pub(super) struct TextFormat<'a> {
    pub r#type: &'static str,
    pub structure: FormatStructure<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FormatStructure<'a> {
    pub json_schema: FormatSchema<'a>,
}

#[derive(Serialize)]
pub(super) struct FormatSchema<'a> {
    /// The schema as a string of JSON.
    pub schema: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
}
