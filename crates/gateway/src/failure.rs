//! Failures: what a client is told, and whether another target may still serve.

use std::time::Duration;

use witgate_config::Provider;
use witgate_model::normaliser::Attempt;
use witgate_model::{Error, ErrorKind, Retry};

use crate::ports::{Fault, TransportError};

/// Which of the gateway's timeouts ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Connect,
    FirstToken,
    Idle,
    Total,
}

impl Timeout {
    /// The key in the configuration.
    fn key(self) -> &'static str {
        match self {
            Timeout::Connect => "connect",
            Timeout::FirstToken => "first_token",
            Timeout::Idle => "idle",
            Timeout::Total => "total",
        }
    }

    pub(crate) fn failure(self, provider: &str, limit: Duration) -> Failed {
        let limit = if limit.subsec_millis() == 0 {
            format!("{} s", limit.as_secs())
        } else {
            format!("{} ms", limit.as_millis())
        };
        let what = match self {
            Timeout::Connect => "did not accept a connection",
            Timeout::FirstToken => "sent no token",
            Timeout::Idle => "sent no further token",
            Timeout::Total => "did not complete the answer",
        };
        let key = self.key();
        let error =
            Error::new(ErrorKind::Timeout, format!("provider \"{provider}\" {what} within {limit} (timeout `{key}`)"))
                .with_code(format!("{key}_timeout"))
                .with_retry(Retry::OtherTarget);
        Failed { error, status: 504, error_type: "timeout_error", provider: Some(provider.to_owned()) }
    }
}

/// A failure, with what the client is told about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failed {
    pub error: Error,
    /// The client's HTTP status.
    pub status: u16,
    /// `error.type`, in OpenAI's and Anthropic's words.
    pub error_type: &'static str,
    /// The provider that failed; none where the gateway itself refuses.
    pub provider: Option<String>,
}

impl Failed {
    /// The gateway itself refuses the request.
    pub fn ours(status: u16, error_type: &'static str, code: &str, message: impl Into<String>) -> Self {
        let error = Error::new(ErrorKind::InvalidRequest, message).with_code(code);
        Failed { error, status, error_type, provider: None }
    }

    /// The normaliser refuses the request.
    pub fn request(error: Error) -> Self {
        let (status, error_type) = told(&error.kind, error.status);
        Failed { error, status, error_type, provider: None }
    }

    /// A backend, or its adapter while it encodes, refuses the request, or the backend failed.
    pub fn provider(mut error: Error, provider: &Provider) -> Self {
        crate::sign::redact(provider, &mut error);
        // What clients look for. A code of digits only repeats a status.
        if error.kind == ErrorKind::ContextLength {
            error.code = Some("context_length_exceeded".to_owned());
        }
        error.code = error.code.filter(|code| !code.bytes().all(|b| b.is_ascii_digit()));
        Failed { provider: Some(provider.name.clone()), ..Failed::request(error) }
    }

    /// A component broke its contract.
    pub fn fault(fault: &Fault, provider: Option<&str>) -> Self {
        let error = Error::malformed(fault.to_string()).with_code("component_fault");
        Failed { error, status: 502, error_type: "api_error", provider: provider.map(str::to_owned) }
    }

    /// There is nothing to sign with.
    pub fn no_credentials(provider: &Provider, why: &str) -> Self {
        let message = format!("provider \"{}\" has no AWS credentials: {why}", provider.name);
        let error = Error::new(ErrorKind::Unauthenticated, message).with_code("aws_credentials");
        Failed { provider: Some(provider.name.clone()), ..Failed::request(error.with_retry(Retry::OtherTarget)) }
    }

    /// The network failed before or inside the answer.
    pub fn transport(error: &TransportError, provider: &str, connect: Duration) -> Self {
        if *error == TransportError::ConnectTimeout {
            return Timeout::Connect.failure(provider, connect);
        }
        let (code, retry) = match error {
            TransportError::Connect(_) => ("connection_failed", Retry::SameTarget(None)),
            TransportError::Denied(_) => ("connection_denied", Retry::OtherTarget),
            _ => ("connection_broken", Retry::SameTarget(None)),
        };
        let error = Error::new(ErrorKind::UpstreamFailure, format!("provider \"{provider}\": {error}"))
            .with_code(code)
            .with_retry(retry);
        Failed { error, status: 502, error_type: "api_error", provider: Some(provider.to_owned()) }
    }

    /// Whether the next target may be tried.
    pub fn may_fall_back(&self) -> bool {
        match &self.error.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::NotFound
            | ErrorKind::TooLarge
            | ErrorKind::ContextLength
            | ErrorKind::ContentFiltered
            | ErrorKind::Unsupported => false,
            ErrorKind::Other(kind) if kind == "configuration" || kind == "internal" => false,
            ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::QuotaExhausted => true,
            _ => self.provider.is_some(),
        }
    }

    /// Whether another endpoint of the same provider, with the same account, may serve.
    pub fn may_pass_elsewhere(&self) -> bool {
        let own =
            matches!(self.error.kind, ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::QuotaExhausted);
        !own && self.error.code.as_deref() != Some("component_fault") && self.provider.is_some() && self.may_fall_back()
    }

    /// Whether another model of the same provider is likely to fail in the same way. Not where the request is at fault, or
    /// the account, or where one model has had enough requests.
    pub fn is_of_provider(&self) -> bool {
        self.may_pass_elsewhere() && self.error.kind != ErrorKind::RateLimited
    }

    /// Whether the time for the whole request ran out.
    pub fn is_total_timeout(&self) -> bool {
        self.error.code.as_deref() == Some("total_timeout")
    }

    /// How much it explains to a client, beside the failures of other targets: most, what a backend says of its load or
    /// of the prompt; least, what another choice of targets would have spared.
    pub fn explains(&self) -> u8 {
        match self.error.kind {
            ErrorKind::RateLimited | ErrorKind::Overloaded | ErrorKind::ContextLength | ErrorKind::ContentFiltered => 2,
            ErrorKind::Unauthenticated
            | ErrorKind::Forbidden
            | ErrorKind::InvalidRequest
            | ErrorKind::Unsupported
            | ErrorKind::NotFound
            | ErrorKind::TooLarge => 0,
            _ => 1,
        }
    }

    /// The status of the backend's own answer, where there was one.
    pub fn upstream(&self) -> Option<u16> {
        self.error.status.filter(|_| self.provider.is_some())
    }

    /// In a word: its code, or its kind.
    pub fn reason(&self) -> &str {
        self.error.code.as_deref().unwrap_or(match self.error.kind {
            ErrorKind::InvalidRequest => "invalid_request",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::NotFound => "not_found",
            ErrorKind::RateLimited => "rate_limited",
            ErrorKind::QuotaExhausted => "quota_exhausted",
            ErrorKind::ContextLength => "context_length",
            ErrorKind::ContentFiltered => "content_filtered",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::UpstreamFailure => "upstream_failure",
            ErrorKind::MalformedResponse => "malformed_response",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Other(_) => "other",
        })
    }

    /// `retry-after`, in whole seconds, at least one.
    pub fn retry_after(&self) -> Option<u64> {
        match self.error.retry {
            Retry::SameTarget(Some(ms)) => Some(ms.div_ceil(1000).max(1)),
            // What passes by itself, where nobody has said when.
            Retry::SameTarget(None) if self.status == 429 => Some(1),
            _ if self.status == 503 => Some(1),
            _ => None,
        }
    }

    /// For the normaliser.
    pub fn render(&self, request_id: &str, attempts: &[Attempt]) -> witgate_model::normaliser::Failure {
        let mut error = self.error.clone();
        error.status = Some(self.status);
        witgate_model::normaliser::Failure {
            error,
            error_type: self.error_type.to_owned(),
            provider: self.provider.clone(),
            upstream: self.upstream(),
            request_id: request_id.to_owned(),
            attempts: attempts.to_vec(),
        }
    }
}

/// HTTP status and `error.type` of a kind of failure. `upstream` is the status that an adapter or the normaliser gave.
fn told(kind: &ErrorKind, upstream: Option<u16>) -> (u16, &'static str) {
    match kind {
        ErrorKind::InvalidRequest => match upstream {
            Some(status @ (409 | 415 | 422)) => (status, "invalid_request_error"),
            _ => (400, "invalid_request_error"),
        },
        ErrorKind::Unsupported | ErrorKind::ContextLength | ErrorKind::ContentFiltered => {
            (400, "invalid_request_error")
        }
        // Our credentials, not the client's: the client can do nothing about them.
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => (502, "api_error"),
        ErrorKind::NotFound => (404, "not_found_error"),
        ErrorKind::RateLimited => (429, "rate_limit_error"),
        ErrorKind::QuotaExhausted => (429, "insufficient_quota"),
        ErrorKind::TooLarge => (413, "invalid_request_error"),
        ErrorKind::Timeout => (504, "timeout_error"),
        ErrorKind::Overloaded => (503, "overloaded_error"),
        // The operator's to mend, or ours.
        ErrorKind::Other(kind) if kind == "configuration" || kind == "internal" => (500, "api_error"),
        ErrorKind::UpstreamFailure | ErrorKind::MalformedResponse | ErrorKind::Other(_) => (502, "api_error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_has_to_mend_is_500_and_no_other_target_is_asked() {
        let config = witgate_config::Config::builtin();
        let provider = &config.providers["stub"];
        for (kind, status, falls_back) in [("configuration", 500, false), ("internal", 500, false), ("odd", 502, true)]
        {
            let error = Error::new(ErrorKind::Other(kind.to_owned()), "settings.x is missing");
            let failed = Failed::provider(error, provider);
            assert_eq!((failed.status, failed.error_type, failed.may_fall_back()), (status, "api_error", falls_back));
            assert_eq!(failed.may_pass_elsewhere(), falls_back);
            assert_eq!(failed.upstream(), None);
        }
    }

    #[test]
    fn a_client_that_may_try_again_is_told_when_also_where_the_backend_said_nothing() {
        let config = witgate_config::Config::builtin();
        let after = |kind: ErrorKind, retry: Retry| {
            Failed::provider(Error::new(kind, "x").with_retry(retry), &config.providers["stub"]).retry_after()
        };
        assert_eq!(after(ErrorKind::RateLimited, Retry::SameTarget(None)), Some(1));
        assert_eq!(after(ErrorKind::RateLimited, Retry::SameTarget(Some(2_001))), Some(3));
        assert_eq!(after(ErrorKind::Overloaded, Retry::OtherTarget), Some(1));
        assert_eq!(after(ErrorKind::QuotaExhausted, Retry::Never), None);
        assert_eq!(after(ErrorKind::UpstreamFailure, Retry::SameTarget(None)), None);
    }
}
