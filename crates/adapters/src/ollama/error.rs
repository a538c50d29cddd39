//! Failures, which Ollama tells as `{"error": "text"}`.
//!
//! What status and text tell in general is judged as for every backend that answers so; here stands what only Ollama
//! says.

use witgate_model::{Error, ErrorKind, Field, Retry};

use crate::openai_shape::error;

/// Most bytes of an error object that is handed on.
const RAW: usize = 16 * 1024;

/// The failure that an error answer tells.
pub(super) fn of_answer(status: u16, headers: &[Field], body: &[u8]) -> Error {
    let failure = judged(error::of_answer(status, headers, body));
    match std::str::from_utf8(body) {
        Ok(text) if failure.raw.is_none() && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            with_raw(failure, text.trim())
        }
        _ => failure,
    }
}

/// The failure that `error` of an object in a success answer tells.
pub(super) fn of_object(error: &str, object: &str) -> Error {
    with_raw(judged(error::of_object(None, error)), object.trim())
}

fn with_raw(mut failure: Error, object: &str) -> Error {
    failure.raw = (object.starts_with('{') && object.len() <= RAW).then(|| object.to_owned());
    failure
}

/// Kind and advice by Ollama's own texts.
fn judged(mut failure: Error) -> Error {
    let words = failure.message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    let (kind, retry) = if failure.kind == ErrorKind::ContextLength {
        return failure;
    } else if failure.status == Some(404) || (failure.status.is_none() && says(&["not found, try pulling"])) {
        // The model is not on this server: another one may have it.
        (ErrorKind::NotFound, Retry::OtherTarget)
    } else if says(&["does not support"]) && matches!(failure.status, None | Some(400 | 500 | 501)) {
        (ErrorKind::Unsupported, Retry::OtherTarget)
    } else if says(&["requires more system memory", "out of memory"]) {
        (ErrorKind::Overloaded, Retry::OtherTarget)
    } else if failure.status.is_none() && says(&["maximum pending requests", "server busy"]) {
        (ErrorKind::Overloaded, Retry::SameTarget(None))
    } else if failure.status == Some(499) {
        // "request canceled": we did not.
        (ErrorKind::UpstreamFailure, Retry::SameTarget(None))
    } else {
        return failure;
    };
    failure.kind = kind;
    failure.retry = retry;
    failure
}
