//! The public settings of backends that speak the Messages API.

use std::collections::BTreeMap;

use serde::Deserialize;
use witgate_model::Error;

/// How a model is told to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Thinking {
    /// By the model's name.
    #[default]
    Auto,
    /// `{"type": "adaptive"}` and `output_config.effort`.
    Adaptive,
    /// `{"type": "enabled", "budget_tokens": …}`.
    Budget,
}

/// How an answer in JSON is had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StructuredOutput {
    /// By the model's name and the schema.
    #[default]
    Auto,
    /// `output_config.format`.
    Native,
    /// A tool that the model must call.
    Tool,
}

/// The settings. The gateway has checked them against the schema; a member that is not known here is ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// The header `anthropic-version`.
    pub(crate) version: String,
    /// Beta features: the header `anthropic-beta`, or `anthropic_beta` in the body.
    pub(crate) betas: Vec<String>,
    /// `max_tokens` where the client gives none.
    pub(crate) default_max_tokens: u64,
    /// How a model is told to think.
    pub(crate) thinking: Thinking,
    /// How an answer in JSON is had.
    pub(crate) structured_output: StructuredOutput,
    /// Leave out what the backend cannot do.
    pub(crate) drop_unsupported: bool,
    /// Further headers.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: "2023-06-01".to_owned(),
            betas: Vec::new(),
            default_max_tokens: 4096,
            thinking: Thinking::Auto,
            structured_output: StructuredOutput::Auto,
            drop_unsupported: false,
            headers: BTreeMap::new(),
        }
    }
}

/// Headers that are the gateway's own, that carry a secret, or that have a setting of their own.
const RESERVED: [&str; 11] = [
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "accept",
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "anthropic-version",
    "anthropic-beta",
];

impl Settings {
    /// Reads the settings; the error names what is wrong with them.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        if settings.is_empty() || settings == "{}" {
            return Ok(Settings::default());
        }
        let parsed: Settings = serde_json::from_str(settings)
            .map_err(|error| Error::invalid("settings", format!("the provider's settings cannot be read: {error}")))?;
        if !is_token(&parsed.version) {
            return Err(Error::invalid("settings.version", "a version of the API is a date, as 2023-06-01"));
        }
        if let Some(at) = parsed.betas.iter().position(|beta| !is_token(beta)) {
            let message = "the name of a beta feature has letters, digits, `-`, `_` and `.` only";
            return Err(Error::invalid(format!("settings.betas[{at}]"), message));
        }
        for name in parsed.headers.keys() {
            let param = || format!("settings.headers.{name}");
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                let message = format!("`{name}` is not a header name in lower case letters, digits and hyphens");
                return Err(Error::invalid(param(), message));
            }
            if RESERVED.contains(&name.as_str()) {
                let message = format!(
                    "the header `{name}` is the gateway's own: keys belong under the provider's secrets, the API's \
                     version and beta features into `version` and `betas`"
                );
                return Err(Error::invalid(param(), message));
            }
        }
        Ok(parsed)
    }
}

/// True for what can stand in a list of names in a header.
pub(super) fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_ignore_what_they_do_not_know() {
        let settings = Settings::parse(r#"{"region":"eu","thinking":"adaptive"}"#).unwrap();
        assert_eq!(settings.thinking, Thinking::Adaptive);
        assert_eq!((settings.version.as_str(), settings.default_max_tokens), ("2023-06-01", 4096));
        assert!(!Settings::parse("").unwrap().drop_unsupported);
    }

    #[test]
    fn what_cannot_be_a_header_is_refused_in_the_settings() {
        for name in ["authorization", "x-api-key", "anthropic-beta", "X-Name", "x_y", ""] {
            let settings = serde_json::json!({"headers": {name: "v"}}).to_string();
            assert_eq!(Settings::parse(&settings).unwrap_err().param.unwrap(), format!("settings.headers.{name}"));
        }
        for (settings, param) in [
            (r#"{"betas":["fine","a,b"]}"#, "settings.betas[1]"),
            (r#"{"version":"2023\r\nx: y"}"#, "settings.version"),
            (r#"{"default_max_tokens":"many"}"#, "settings"),
        ] {
            assert_eq!(Settings::parse(settings).unwrap_err().param.unwrap(), param);
        }
    }
}
