//! The public settings of the adapters that speak the OpenAI shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use witgate_model::Error;

/// Where the bound on the answer's length is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MaxTokensField {
    /// As the client gave it; `max_completion_tokens` for OpenAI's reasoning models, which refuse `max_tokens`.
    #[default]
    Auto,
    /// Always `max_tokens`.
    MaxTokens,
    /// Always `max_completion_tokens`.
    MaxCompletionTokens,
}

/// Which API a conversation goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Api {
    /// Chat Completions.
    #[default]
    Chat,
    /// Responses.
    Responses,
    /// The `/llm` of the AWA LLM microservice.
    Llm,
}

/// Where a conversation is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PathKind {
    /// To the API's own path behind the endpoint.
    #[default]
    Api,
    /// To the endpoint itself.
    Exact,
}

/// Which header bears the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyHeader {
    /// `authorization: Bearer …`.
    #[default]
    Authorization,
    /// `api-key: …`, as Azure has it.
    ApiKey,
}

/// What llama-server is asked for readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Readiness {
    /// `/health`: the model is loaded.
    #[default]
    Health,
    /// `/slots?fail_on_no_slot=1`: a slot is free.
    Slots,
    /// `/props`: the model is loaded, and the key is right.
    Props,
}

/// The settings. The gateway has checked them against the schema; a member that is not known here is ignored.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) drop_unsupported: bool,
    pub(crate) api: Api,
    pub(crate) path: PathKind,
    pub(crate) strict: bool,
    pub(crate) key_header: KeyHeader,
    pub(crate) reasoning_tag: Option<String>,
    pub(crate) readiness: Readiness,
    pub(crate) loose_answers: bool,
    pub(crate) max_tokens_field: MaxTokensField,
    pub(crate) stream_usage: bool,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) organization: Option<String>,
    pub(crate) project: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            drop_unsupported: false,
            api: Api::Chat,
            path: PathKind::Api,
            strict: false,
            key_header: KeyHeader::Authorization,
            reasoning_tag: None,
            readiness: Readiness::Health,
            loose_answers: false,
            max_tokens_field: MaxTokensField::Auto,
            stream_usage: true,
            headers: BTreeMap::new(),
            query: BTreeMap::new(),
            organization: None,
            project: None,
        }
    }
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

impl Settings {
    /// Only conversations can be sent to this endpoint.
    pub(crate) fn is_one_url(&self) -> bool {
        self.path == PathKind::Exact || self.api == Api::Llm
    }

    /// Reads the settings; the error names what is wrong with them.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        if settings.is_empty() || settings == "{}" {
            return Ok(Settings::default());
        }
        let parsed: Settings = serde_json::from_str(settings)
            .map_err(|error| Error::invalid("settings", format!("the provider's settings cannot be read: {error}")))?;
        for name in parsed.headers.keys() {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                let message = format!("`{name}` is not a header name in lower case letters, digits and hyphens");
                return Err(Error::invalid(format!("settings.headers.{name}"), message));
            }
            if RESERVED.contains(&name.as_str()) {
                let message =
                    format!("the header `{name}` is the gateway's own: keys belong under the provider's secrets");
                return Err(Error::invalid(format!("settings.headers.{name}"), message));
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_ignore_what_they_do_not_know() {
        let settings = Settings::parse(r#"{"region":"eu","drop_unsupported":true}"#).unwrap();
        assert!(settings.drop_unsupported && settings.stream_usage);
        assert_eq!(settings.max_tokens_field, MaxTokensField::Auto);
        assert!(Settings::parse("").unwrap().headers.is_empty());
    }

    #[test]
    fn a_header_of_authentication_is_refused_in_the_settings() {
        for name in ["authorization", "host", "Authorization", "x_y", ""] {
            let settings = serde_json::json!({"headers": {name: "v"}}).to_string();
            assert_eq!(Settings::parse(&settings).unwrap_err().param.unwrap(), format!("settings.headers.{name}"));
        }
    }

    #[test]
    fn settings_of_the_wrong_type_are_an_error_that_says_so() {
        let error = Settings::parse(r#"{"max_tokens_field":"tokens"}"#).unwrap_err();
        assert!(error.message.contains("max_completion_tokens"), "{}", error.message);
    }
}
