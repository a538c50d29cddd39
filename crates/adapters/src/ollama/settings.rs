//! The provider's settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{Error, ErrorKind};

use crate::openai_shape::json::Members;

/// JSON Schema of [`Settings`].
pub(super) const SCHEMA: &str = include_str!("settings.schema.json");

/// Where a conversation is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PathKind {
    /// To `/api/chat` behind the endpoint.
    #[default]
    Api,
    /// To the endpoint itself.
    Exact,
}

/// The settings; a member that is not known here is ignored, because the gateway has checked them against the schema.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings<'a> {
    pub drop_unsupported: bool,
    pub path: PathKind,
    #[serde(borrow)]
    pub options: Option<Members<'a>>,
    #[serde(borrow)]
    pub keep_alive: Option<&'a RawValue>,
    #[serde(borrow)]
    pub think: Option<&'a RawValue>,
    pub truncate: Option<bool>,
    pub shift: Option<bool>,
    pub headers: BTreeMap<String, String>,
}

/// Headers that are the gateway's own, or that carry a secret: a setting must not name them.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "accept",
    "authorization",
    "proxy-authorization",
    "api-key",
    "x-api-key",
];

impl<'a> Settings<'a> {
    /// Reads the settings. What is wrong with them is the operator's fault, not the client's.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.is_empty() || text == "{}" {
            return Ok(Settings::default());
        }
        let wrong = |message: String| Error::new(ErrorKind::Other("configuration".to_owned()), message);
        let settings: Settings<'a> = serde_json::from_str(text)
            .map_err(|error| wrong(format!("the settings of the ollama adapter don't match its schema: {error}")))?;
        for name in settings.headers.keys() {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                let message = format!("`{name}` is not a header name in lower case letters, digits and hyphens");
                return Err(wrong(message).with_param(format!("settings.headers.{name}")));
            }
            if RESERVED.contains(&name.as_str()) {
                let message =
                    format!("the header `{name}` is the gateway's own: keys belong under the provider's secrets");
                return Err(wrong(message).with_param(format!("settings.headers.{name}")));
            }
        }
        Ok(settings)
    }
}
