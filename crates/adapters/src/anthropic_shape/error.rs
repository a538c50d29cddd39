//! Failures, as Anthropic tells them.

use std::borrow::Cow;

use serde_json::value::RawValue;
use witgate_model::{Error, ErrorKind, Field, Retry};

use crate::openai_shape::json::{Loose, Members, text_of};

/// Most characters of an answer that is not JSON, quoted in a message.
const SNIPPET: usize = 500;

/// Most bytes of the backend's own message.
const MESSAGE: usize = 4096;

/// Most bytes of the error object that is handed on.
const RAW: usize = 16 * 1024;

/// Longest wait that is believed: one day, in milliseconds.
const LONGEST_WAIT: f64 = 86_400_000.0;

/// The failure that an error answer tells.
pub(crate) fn of_answer(backend: &str, status: u16, headers: &[Field], body: &[u8]) -> Error {
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim();
    let mut error = if trimmed.starts_with('{') && Members::parse(Some(trimmed)).is_ok() {
        of_object(backend, Some(status), trimmed)
    } else {
        let message = match trimmed {
            "" => format!("{backend} answered with status {status} and an empty body"),
            text => {
                let quoted: String = text.chars().take(SNIPPET).collect();
                format!("{backend} answered with status {status} and this text, which is no error of its API: {quoted}")
            }
        };
        judge(Some(status), None, message)
    };
    if let Some(id) = header("request-id").filter(|id| !id.is_empty() && !error.message.contains(id)) {
        error.message.push_str(&format!(" (request id {id})"));
    }
    // A date cannot be turned into a span here: there is no clock. The gateway sees the header too.
    let wait = header("retry-after-ms")
        .and_then(|value| value.parse::<f64>().ok())
        .or_else(|| header("retry-after").and_then(|value| value.parse::<f64>().ok()).map(|seconds| seconds * 1000.0))
        .filter(|wait| (0.0..=LONGEST_WAIT).contains(wait))
        .map(|wait| wait.ceil() as u64);
    error.retry = match (error.retry, header("x-should-retry")) {
        (Retry::SameTarget(_), Some("false")) => Retry::OtherTarget,
        (Retry::SameTarget(_), _) => Retry::SameTarget(wait),
        (Retry::Never, Some("true")) => Retry::SameTarget(wait),
        (retry, _) => retry,
    };
    error
}

/// The failure that an error object tells: `{"type":"error","error":{"type","message"},"request_id"}`. In a stream there
/// is no status: the error's type stands for one.
pub(crate) fn of_object(backend: &str, status: Option<u16>, json: &str) -> Error {
    let Ok(outer) = Members::parse(Some(json)) else {
        let quoted: String = json.chars().take(SNIPPET).collect();
        let message = format!("{backend} sent an error that is none of its API: {quoted}");
        return judge(status, None, message);
    };
    let text = |members: &Members<'_>, name: &str| {
        let (_, value) = members.0.iter().find(|(key, _)| key == name)?;
        stated(value).map(|text| cut(&text, MESSAGE))
    };
    // Some servers put the error's members outside, some give a text.
    let bare = outer.get("error").filter(|error| error.starts_with('"'));
    let inner = if outer.get("error").is_some_and(|error| error.starts_with('{')) {
        outer.nested("error")
    } else {
        Members::parse(Some(json)).unwrap_or_default()
    };
    let kind = text(&inner, "type").filter(|kind| kind != "error");
    let message = bare
        .and_then(|bare| serde_json::from_str::<Loose<'_>>(bare).ok().and_then(Loose::filled))
        .map(|text| cut(&text, MESSAGE))
        .or_else(|| text(&inner, "message"))
        .or_else(|| text(&inner, "detail"))
        .unwrap_or_else(|| match &kind {
            Some(kind) => format!("{backend} answered {kind} without a message"),
            None => format!("{backend} answered with an error without a message"),
        });
    // What is wrong in detail, where the API tells by a code.
    let detail = inner.nested("details");
    let code = text(&detail, "error_code").or_else(|| text(&inner, "code"));
    // A number only repeats a status.
    let code = code.filter(|code| !code.bytes().all(|byte| byte.is_ascii_digit()));
    let mut error = judge(status, kind.as_deref(), message);
    if let Some(code) = code {
        match code.as_str() {
            // A limit that was set in money: waiting for minutes does not help.
            "contract_spend_limit_reached"
            | "enforced_spend_limit_reached"
            | "linked_organization_spend_limit_reached"
            | "credit_balance_too_low" => {
                error.kind = ErrorKind::QuotaExhausted;
                error.retry = Retry::OtherTarget;
            }
            "request_body_too_large_after_decoding" => error.kind = ErrorKind::TooLarge,
            _ => {}
        }
        error.code = Some(code);
    }
    error.raw = (json.len() <= RAW).then(|| json.to_owned());
    error
}

/// A text, or another value as text.
fn stated(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get() {
        "null" | "\"\"" => None,
        json => Some(text_of(value).unwrap_or(Cow::Borrowed(json))),
    }
}

/// At most `most` bytes of a text.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… [truncated]", text.get(..end).unwrap_or_default())
}

/// Texts by which the API tells that the prompt does not fit, in lower case.
const TOO_LONG: [&str; 6] = [
    "prompt is too long",
    "input is too long",
    "exceed context limit",
    "context window",
    "context length",
    "context size",
];

/// Texts by which the API tells that the account is spent, in lower case.
const SPENT: [&str; 3] = ["credit balance is too low", "spend limit", "specified api usage limits"];

/// Kind, status and advice. The advice `never` is for what is wrong with the request itself. Where only this account,
/// key or model stands in the way, waiting does not help but another target may: `other-target`.
fn judge(status: Option<u16>, kind: Option<&str>, message: String) -> Error {
    use ErrorKind as Kind;
    let modelled = match kind {
        Some("invalid_request_error") => Some(400),
        Some("authentication_error") => Some(401),
        Some("billing_error") => Some(402),
        Some("permission_error") => Some(403),
        Some("not_found_error") => Some(404),
        Some("conflict_error" | "memory_path_conflict_error") => Some(409),
        Some("memory_precondition_failed_error") => Some(412),
        Some("request_too_large") => Some(413),
        Some("rate_limit_error") => Some(429),
        Some("api_error") => Some(500),
        Some("timeout_error") => Some(504),
        Some("overloaded_error") => Some(529),
        _ => None,
    };
    let status = status.filter(|status| !(200..300).contains(status)).or(modelled);
    let lower = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let later = Retry::SameTarget(None);
    // These types say more than the status of whoever passed them on.
    let told = matches!(
        kind,
        Some("billing_error" | "request_too_large" | "rate_limit_error" | "timeout_error" | "overloaded_error")
    );
    let (what, retry) = match if told { modelled } else { status } {
        Some(400 | 413 | 422) if says(&TOO_LONG) => (Kind::ContextLength, Retry::OtherTarget),
        Some(400 | 403 | 429) if says(&SPENT) => (Kind::QuotaExhausted, Retry::OtherTarget),
        Some(401) => (Kind::Unauthenticated, Retry::OtherTarget),
        Some(402) => (Kind::QuotaExhausted, Retry::OtherTarget),
        Some(403) => (Kind::Forbidden, Retry::OtherTarget),
        Some(404) => (Kind::NotFound, Retry::Never),
        Some(408 | 504) => (Kind::Timeout, later),
        Some(409) => (Kind::UpstreamFailure, later),
        Some(413) => (Kind::TooLarge, Retry::Never),
        Some(429) => (Kind::RateLimited, later),
        Some(400..=499) => (Kind::InvalidRequest, Retry::Never),
        Some(501) => (Kind::Unsupported, Retry::OtherTarget),
        Some(503 | 529) => (Kind::Overloaded, later),
        Some(500..) => (Kind::UpstreamFailure, later),
        // A redirection is not followed: the endpoint is not what the configuration says.
        Some(_) => (Kind::UpstreamFailure, Retry::OtherTarget),
        None => (Kind::UpstreamFailure, later),
    };
    Error { kind: what, message, code: kind.map(str::to_owned), param: None, status, retry, raw: None }
}
