//! Failures of the backend, as the gateway acts on them.
//!
//! The HTTP status decides, unless the error's code, type or text says more. In a stream there is no status: llama.cpp
//! gives one as `error.code`, others say it by code and type.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{Error, ErrorKind, Field, Retry};

use super::json::{Loose, Members, count_of, text_of};

/// Most bytes of the backend's own message.
const MESSAGE: usize = 4096;

/// Most bytes of an answer that is not JSON, quoted in a message.
const SNIPPET: usize = 2048;

/// Most bytes of the error object that is handed on.
const RAW: usize = 16 * 1024;

/// Longest wait that is believed: one day, in milliseconds.
const LONGEST_WAIT: f64 = 86_400_000.0;

/// What an error object says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    param: Option<&'a RawValue>,
    #[serde(borrow)]
    n_prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    n_ctx: Option<&'a RawValue>,
}

/// True where the value of `error` means that there is one: not null, false, 0 or empty.
pub(crate) fn is_error(value: &RawValue) -> bool {
    !matches!(value.get(), "null" | "false" | "0" | "\"\"" | "{}" | "[]")
}

/// The failure that an error answer tells: by its status, and by what its body says in OpenAI's `{"error": {…}}` or in a
/// like object. A body that is no JSON is quoted; a wait is read from the headers. Headers' names are in lower case.
pub fn of_answer(status: u16, headers: &[Field], body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim();
    let members = Members::parse(Some(trimmed)).ok();
    let mut error = match members.as_ref().and_then(|members| members.get("error")).filter(|json| *json != "null") {
        Some(json) => of_object(Some(status), json),
        None if members.is_some() => of_object(Some(status), trimmed),
        None => {
            let message = match trimmed {
                "" => format!("the backend answered with status {status} and an empty body"),
                text => format!("the backend answered with status {status} and this text: {}", cut(text, SNIPPET)),
            };
            classify(Some(status), message, None, None)
        }
    };
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    // A date cannot be turned into a span here: there is no clock. The gateway sees the header too.
    let wait = header("retry-after-ms")
        .and_then(|value| value.parse::<f64>().ok())
        .or_else(|| header("retry-after").and_then(|value| value.parse::<f64>().ok()).map(|seconds| seconds * 1000.0))
        .filter(|wait| (0.0..=LONGEST_WAIT).contains(wait))
        .map(|wait| wait.ceil() as u64)
        .or_else(|| (status == 429 && header("retry-after").is_none()).then(|| until_reset(&header)).flatten());
    error.retry = match (error.retry, header("x-should-retry")) {
        (Retry::SameTarget(_), Some("false")) => Retry::OtherTarget,
        (Retry::SameTarget(_), _) => Retry::SameTarget(wait),
        (Retry::Never, Some("true")) => Retry::SameTarget(wait),
        (retry, _) => retry,
    };
    error
}

/// How long until the limits that are used up are reset, in milliseconds. OpenAI writes it as Go does: `1m2.5s`.
fn until_reset<'a>(header: &dyn Fn(&str) -> Option<&'a str>) -> Option<u64> {
    let waits = ["requests", "tokens"].into_iter().filter_map(|what| {
        let remaining = header(&format!("x-ratelimit-remaining-{what}"))?;
        go_duration(header(&format!("x-ratelimit-reset-{what}"))?).filter(|_| remaining == "0")
    });
    waits.reduce(f64::max).filter(|wait| *wait <= LONGEST_WAIT).map(|wait| wait.ceil() as u64)
}

/// Milliseconds of a duration in Go's notation: numbers with the units h, m, s and ms.
fn go_duration(text: &str) -> Option<f64> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let milliseconds = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * milliseconds;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

/// The failure that `error` of an answer, or of a chunk of a stream, tells. `status` is the answer's, if it was an error.
pub(crate) fn of_object(status: Option<u16>, json: &str) -> Error {
    if !json.starts_with('{') {
        let message = serde_json::from_str::<Loose<'_>>(json).ok().and_then(Loose::filled);
        return classify(status, cut(message.as_deref().unwrap_or(json), MESSAGE).into_owned(), None, None);
    }
    let said: Said<'_> = serde_json::from_str(json).unwrap_or_default();
    let loose = |value: Option<&RawValue>| {
        let value = serde_json::from_str::<Loose<'_>>(value?.get()).ok()?.filled()?;
        Some(cut(&value, MESSAGE).into_owned())
    };
    let code = loose(said.code);
    let kind = loose(said.kind);
    let stated = |value: &RawValue| text_of(value).unwrap_or(Cow::Borrowed(value.get())).into_owned();
    let mut message = match said.message.or(said.detail) {
        Some(value) => cut(&stated(value), MESSAGE).into_owned(),
        None => format!("the backend gave no message: {}", cut(json, SNIPPET)),
    };
    let tokens = (said.n_prompt_tokens.and_then(count_of), said.n_ctx.and_then(count_of));
    if let (Some(prompt), Some(context)) = tokens
        && !(message.contains(&prompt.to_string()) && message.contains(&context.to_string()))
    {
        message.push_str(&format!(" (the prompt has {prompt} tokens, the context {context})"));
    }
    // In a stream, llama.cpp's code is the status that the answer would have had.
    let status = status.or_else(|| code.as_deref()?.parse().ok().filter(|status| (400..600).contains(status)));
    let mut error = classify(status, message, code, kind.as_deref());
    error.param = loose(said.param);
    error.raw = (json.len() <= RAW).then(|| json.to_owned());
    error
}

/// At most `most` bytes of a text.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}… [truncated]", &text[..end]))
}

/// Texts by which backends tell that the prompt is too long, in lower case.
const TOO_LONG: [&str; 10] = [
    "maximum context length",
    "context length",
    "context window",
    "context size",
    "exceeds the context",
    "too many input tokens",
    "prompt is too long",
    "input is too long",
    "reduce the length of the messages",
    // llama.cpp's embeddings, of a text beyond its batch.
    "is too large to process",
];

/// Codes of a filter that refused.
const FILTERED: [&str; 5] = [
    "content_filter",
    "content_policy_violation",
    "image_content_policy_violation",
    "bio_policy",
    "misalignment_policy_violation",
];

/// Texts by which llama.cpp tells that it cannot do what was asked, whatever status it gives, in lower case.
const CANNOT: [&str; 5] = [
    "image input is not supported",
    "audio input is not supported",
    "video input is not supported",
    "param requires --jinja",
    "does not support multimodal",
];

fn classify(status: Option<u16>, message: String, code: Option<String>, kind: Option<&str>) -> Error {
    let name = |name: &str| code.as_deref() == Some(name) || kind == Some(name);
    let begins = |start: &str| [code.as_deref(), kind].into_iter().flatten().any(|text| text.starts_with(start));
    let lower = cut(&message, MESSAGE).to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let later = Retry::SameTarget(None);
    let refused = matches!(status, None | Some(400 | 413 | 422 | 500));
    let (kind, retry) = if name("context_length_exceeded") || name("exceed_context_size_error") {
        (ErrorKind::ContextLength, Retry::OtherTarget)
    } else if name("insufficient_quota") || name("billing_hard_limit_reached") || status == Some(402) {
        (ErrorKind::QuotaExhausted, Retry::OtherTarget)
    } else if FILTERED.iter().any(|code| name(code)) {
        (ErrorKind::ContentFiltered, Retry::Never)
    } else if status.is_none() && (name("invalid_prompt") || begins("invalid_image") || begins("image_")) {
        (ErrorKind::InvalidRequest, Retry::Never)
    } else if name("model_not_found") {
        (ErrorKind::NotFound, Retry::Never)
    } else if refused && says(&TOO_LONG) {
        (ErrorKind::ContextLength, Retry::OtherTarget)
    } else if refused && says(&CANNOT) {
        (ErrorKind::Unsupported, Retry::OtherTarget)
    } else {
        match status {
            Some(401) => (ErrorKind::Unauthenticated, Retry::OtherTarget),
            Some(403) => (ErrorKind::Forbidden, Retry::OtherTarget),
            Some(404) => (ErrorKind::NotFound, Retry::Never),
            Some(408 | 504) => (ErrorKind::Timeout, later),
            Some(409 | 424 | 425) => (ErrorKind::UpstreamFailure, later),
            Some(413) => (ErrorKind::TooLarge, Retry::Never),
            Some(429) => (ErrorKind::RateLimited, later),
            Some(400..=499) => (ErrorKind::InvalidRequest, Retry::Never),
            Some(501) => (ErrorKind::Unsupported, Retry::OtherTarget),
            Some(503 | 529) => (ErrorKind::Overloaded, later),
            Some(500..) => (ErrorKind::UpstreamFailure, later),
            // A redirection is not followed: the endpoint is not what the configuration says.
            Some(_) => (ErrorKind::UpstreamFailure, Retry::OtherTarget),
            None if begins("rate_limit") || name("tokens") || name("requests") => (ErrorKind::RateLimited, later),
            None if begins("overloaded") || name("unavailable_error") => (ErrorKind::Overloaded, later),
            None if begins("timeout") => (ErrorKind::Timeout, later),
            None if begins("authentication") || name("invalid_api_key") => {
                (ErrorKind::Unauthenticated, Retry::OtherTarget)
            }
            None if begins("permission") => (ErrorKind::Forbidden, Retry::OtherTarget),
            None if begins("invalid_request") => (ErrorKind::InvalidRequest, Retry::Never),
            None => (ErrorKind::UpstreamFailure, later),
        }
    };
    Error { kind, message, code, param: None, status, retry, raw: None }
}
