//! The provider's settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{Error, ErrorKind};

use crate::prompt::PromptFormat;

/// JSON Schema of [`Settings`].
pub(super) const SCHEMA: &str = include_str!("settings.schema.json");

/// What the container behind the endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Codec {
    /// OpenAI's shape.
    #[default]
    Vllm,
    /// `inputs`, `parameters`, `generated_text`, with `details`.
    Tgi,
    /// The same without details.
    Base,
}

/// The settings. What only the OpenAI shape has a use for, it reads itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings<'a> {
    pub codec: Codec,
    prompt_format: Option<PromptFormat>,
    pub endpoint_name: Option<String>,
    pub served_model: Option<String>,
    pub inference_component: Option<String>,
    pub target_variant: Option<String>,
    pub custom_attributes: Option<String>,
    #[serde(borrow)]
    pub parameters: BTreeMap<String, &'a RawValue>,
    pub drop_unsupported: bool,
}

impl<'a> Settings<'a> {
    /// The gateway has checked the settings against the schema, so a failure here is the operator's, not the client's.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Settings::default());
        }
        let settings: Settings<'a> = serde_json::from_str(text)
            .map_err(|error| wrong(format!("the settings of the sagemaker adapter don't match its schema: {error}")))?;
        if settings.codec == Codec::Vllm && !settings.parameters.is_empty() {
            let message = "the setting `parameters` is for the codecs `tgi` and `base`: OpenAI's shape has none";
            return Err(wrong(message.to_owned()));
        }
        Ok(settings)
    }

    pub fn prompt_format(&self) -> PromptFormat {
        self.prompt_format.unwrap_or(match self.codec {
            Codec::Vllm => PromptFormat::Chat,
            Codec::Tgi | Codec::Base => PromptFormat::Base,
        })
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Other("configuration".to_owned()), message)
}
