//! What SageMaker's exceptions, and the failures of containers, mean.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use witgate_model::{Decoder as _, Error, ErrorKind, Event, Field, Frame, Framing, ResponseHead, Retry, SseEvent};

use crate::openai_shape::json::count_of;
use crate::openai_shape::{Decoder, Flavour};

/// Longest piece of a body that is not JSON which is quoted in a message, in characters.
const QUOTED: usize = 300;

/// Largest error object that is kept as `raw`, in bytes.
const LARGEST_RAW: usize = 16 * 1024;

const AGAIN: Retry = Retry::SameTarget(None);

/// An error object of SageMaker.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(borrow, rename = "Message")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "message")]
    lower: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "__type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ErrorCode")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "OriginalStatusCode")]
    original_status: Option<&'a RawValue>,
    #[serde(borrow, rename = "OriginalMessage")]
    original_message: Option<Cow<'a, str>>,
}

/// The value of a header.
pub(super) fn header<'h>(headers: &'h [Field], name: &str) -> Option<&'h str> {
    headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}

/// The failure that an error answer tells.
pub(super) fn of_answer(head: &ResponseHead, body: &[u8]) -> Error {
    of_body(header(&head.headers, "x-amzn-errortype"), Some(head.status), request_id(head), body)
}

/// The failure that an exception in a stream tells.
pub(super) fn of_exception(name: Option<&str>, head: &ResponseHead, payload: &[u8]) -> Error {
    of_body(name, None, request_id(head), payload)
}

/// The failure that a message of the type `error` tells.
pub(super) fn of_message(code: Option<&str>, message: Option<&str>, head: &ResponseHead) -> Error {
    let said = Said { message: message.map(Cow::Borrowed), ..Said::default() };
    of_said(code, None, request_id(head), &said, None)
}

/// The id by which AWS finds the request again.
pub(super) fn request_id(head: &ResponseHead) -> Option<&str> {
    header(&head.headers, "x-amzn-requestid")
}

fn of_body(name: Option<&str>, status: Option<u16>, id: Option<&str>, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let raw = (text.len() <= LARGEST_RAW).then(|| text.to_owned());
    match serde_json::from_str::<Said>(text) {
        Ok(said) => of_said(name, status, id, &said, raw),
        Err(_) if text.is_empty() => of_said(name, status, id, &Said::default(), None),
        Err(_) => {
            let quoted: String = text.chars().take(QUOTED).collect();
            let message = Some(format!("the answer is no error object of SageMaker: {quoted}").into());
            of_said(name, status, id, &Said { message, ..Said::default() }, None)
        }
    }
}

/// The exception's name without what AWS writes around it: `ns#Name:http://…` is `Name`.
fn bare(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default()
}

fn of_said(name: Option<&str>, status: Option<u16>, id: Option<&str>, said: &Said, raw: Option<String>) -> Error {
    let name = name.or(said.kind.as_deref()).map(bare).filter(|name| !name.is_empty());
    let name = name.or(said.original_status.map(|_| "ModelError"));
    let words = said.message.as_deref().or(said.lower.as_deref()).unwrap_or_default();
    let judged = match name {
        Some("ModelError") => of_model(said, words),
        _ => judge(name, status, said.code.as_deref(), words),
    };
    let mut message = match (judged.message.is_empty(), name) {
        (false, _) => judged.message,
        (true, Some(name)) => format!("SageMaker answered {name} without a message"),
        (true, None) => {
            format!("SageMaker answered with status {} and no message", status.unwrap_or(judged.status))
        }
    };
    if let Some(id) = id {
        message.push_str(&format!(" (AWS request id {id})"));
    }
    Error {
        kind: judged.kind,
        message,
        code: name.map(str::to_owned),
        param: judged.param,
        status: Some(status.unwrap_or(judged.status)),
        retry: judged.retry,
        raw,
    }
}

/// What an exception means.
struct Judged {
    kind: ErrorKind,
    /// The status of AWS's model, where the failure has none of its own.
    status: u16,
    retry: Retry,
    message: String,
    param: Option<String>,
}

/// The container's failure, by its own status and words.
fn of_model(said: &Said, words: &str) -> Judged {
    // Where AWS leaves the members out, its message holds both: `Received client error (400) from primary with message
    // "…". See …`.
    let quoted = || {
        let (before, rest) = words.split_once(" with message \"")?;
        let status = before.split_once(" error (").and_then(|(_, rest)| rest.split_once(')')).map(|(status, _)| status);
        let text = rest.rsplit_once("\". See ").map_or(rest.trim_end_matches('"'), |(text, _)| text);
        Some((status.and_then(|status| status.parse::<u16>().ok()), text))
    };
    let (status, text) = quoted().unwrap_or((None, ""));
    let status = said.original_status.and_then(count_of).and_then(|code| u16::try_from(code).ok()).or(status);
    let text = said.original_message.as_deref().map(str::trim).filter(|text| !text.is_empty()).unwrap_or(text);
    let error = match status.filter(|status| (400..600).contains(status)) {
        Some(status) => of_container(status, text),
        None => Error::new(ErrorKind::UpstreamFailure, text).with_retry(AGAIN),
    };
    let message = if text.is_empty() { words.to_owned() } else { error.message };
    Judged { kind: error.kind, status: 424, retry: error.retry, message, param: error.param }
}

/// The failure of a container that answered with this status and this body.
fn of_container(status: u16, body: &str) -> Error {
    let head = ResponseHead { status, headers: Vec::new(), framing: Framing::Whole, stream: false };
    told(head, Frame::Bytes(body.as_bytes().to_vec()), body)
}

/// The failure that a container told in the middle of a good answer.
pub(super) fn of_piece(json: &str) -> Error {
    let head = ResponseHead { status: 200, headers: Vec::new(), framing: Framing::Sse, stream: true };
    told(head, Frame::Sse(SseEvent { event: None, data: json.to_owned(), id: None }), json)
}

fn told(head: ResponseHead, frame: Frame, body: &str) -> Error {
    let mut decoder = Decoder::new(Flavour::SageMaker, None, head);
    let mut events = decoder.feed(vec![frame]);
    events.append(&mut decoder.finish());
    match events.pop() {
        Some(Event::Failed(error)) => with_signs(error),
        _ => Error::new(ErrorKind::UpstreamFailure, body).with_retry(AGAIN),
    }
}

/// The event, a failure as this module sees it.
pub(super) fn known(event: Event) -> Event {
    match event {
        Event::Failed(error) => Event::Failed(with_signs(error)),
        event => event,
    }
}

/// What containers tell by their words alone, beyond what servers of OpenAI's shape do.
fn with_signs(mut error: Error) -> Error {
    const TOO_LONG: [&str; 4] = [
        "`inputs` must have less than",
        "`inputs` tokens + `max_new_tokens` must be",
        "is longer than the maximum model length",
        "input length of input_ids is",
    ];
    let refused = matches!(error.kind, ErrorKind::InvalidRequest | ErrorKind::TooLarge | ErrorKind::UpstreamFailure);
    let words = error.message.to_ascii_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if refused && says(&TOO_LONG) {
        (error.kind, error.retry) = (ErrorKind::ContextLength, Retry::OtherTarget);
    } else if (refused && says(&["out of memory"]))
        || ((refused || error.kind == ErrorKind::RateLimited) && says(&["model is overloaded"]))
    {
        (error.kind, error.retry) = (ErrorKind::Overloaded, AGAIN);
    }
    error
}

/// The advice `never` is for what is wrong with the request itself. Where only this account or endpoint stands in the
/// way, waiting does not help but another target may: `other-target`.
fn judge(name: Option<&str>, status: Option<u16>, code: Option<&str>, words: &str) -> Judged {
    use ErrorKind as Kind;
    let (kind, status, retry) = match name.unwrap_or_default() {
        "ModelNotReadyException" => (Kind::Overloaded, 429, AGAIN),
        "InternalDependencyException" => (Kind::UpstreamFailure, 530, AGAIN),
        "ServiceUnavailable" | "ServiceUnavailableException" => (Kind::Overloaded, 503, AGAIN),
        "InternalFailure" | "InternalStreamFailure" | "InternalServerException" => (Kind::UpstreamFailure, 500, AGAIN),
        "ModelStreamError" if code == Some("ModelInvocationTimeExceeded") => (Kind::Timeout, 424, AGAIN),
        "ModelStreamError" => (Kind::UpstreamFailure, 424, AGAIN),
        "ValidationError" | "ValidationException" => validation(words),
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" => (Kind::RateLimited, 429, AGAIN),
        "AccessDeniedException" | "AccessDenied" => by_status(403, words),
        "ExpiredTokenException"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => (Kind::Unauthenticated, 403, Retry::OtherTarget),
        _ if status == Some(400) => validation(words),
        _ => by_status(status.unwrap_or(500), words),
    };
    let message = match code {
        Some(code) if !words.contains(code) => format!("{words} ({code})").trim_start().to_owned(),
        _ => words.to_owned(),
    };
    Judged { kind, status, retry, message, param: None }
}

/// AWS has no other exception for an endpoint, a variant or a component that does not exist.
fn validation(words: &str) -> (ErrorKind, u16, Retry) {
    let words = words.to_ascii_lowercase();
    let missing = words.contains("not found") || words.contains("could not find") || words.contains("does not exist");
    if missing && ["endpoint", "variant", "component"].iter().any(|what| words.contains(what)) {
        (ErrorKind::NotFound, 400, Retry::OtherTarget)
    } else if words.contains("less than or equal to 6291456") {
        (ErrorKind::TooLarge, 400, Retry::OtherTarget)
    } else {
        (ErrorKind::InvalidRequest, 400, Retry::Never)
    }
}

fn by_status(status: u16, words: &str) -> (ErrorKind, u16, Retry) {
    use ErrorKind as Kind;
    const SIGNS: [&str; 4] = ["security token", "expired", "signature", "credential"];
    let about_credentials = || {
        let words = words.to_ascii_lowercase();
        SIGNS.iter().any(|sign| words.contains(sign))
    };
    let (kind, retry) = match status {
        401 => (Kind::Unauthenticated, Retry::OtherTarget),
        403 if about_credentials() => (Kind::Unauthenticated, Retry::OtherTarget),
        403 => (Kind::Forbidden, Retry::OtherTarget),
        404 => (Kind::NotFound, Retry::OtherTarget),
        408 | 504 => (Kind::Timeout, AGAIN),
        413 => (Kind::TooLarge, Retry::OtherTarget),
        424 => (Kind::UpstreamFailure, AGAIN),
        429 => (Kind::RateLimited, AGAIN),
        503 | 529 => (Kind::Overloaded, AGAIN),
        400..=499 => (Kind::InvalidRequest, Retry::Never),
        500..=599 => (Kind::UpstreamFailure, AGAIN),
        // A redirection is not followed: the endpoint is not what the configuration says.
        _ => (Kind::MalformedResponse, Retry::OtherTarget),
    };
    (kind, status, retry)
}
