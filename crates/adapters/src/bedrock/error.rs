//! What Bedrock's exceptions mean.

use std::borrow::Cow;

use witgate_model::{Error, ErrorKind, Retry};

use super::json::Members;

/// Longest piece of a body that is not JSON which is quoted in a message, in characters.
const QUOTED: usize = 300;

/// Largest error object that is kept as `raw`, in bytes.
const LARGEST_RAW: usize = 64 * 1024;

/// One failure as the backend told it.
#[derive(Debug, Default)]
pub(super) struct Fault<'a> {
    /// The exception's name without namespace, in any case of its first letter.
    pub name: Option<Cow<'a, str>>,
    /// The HTTP status, where the failure came as one; exceptions in a stream have the one of AWS's model.
    pub status: Option<u16>,
    /// The backend's words.
    pub message: Option<Cow<'a, str>>,
    /// `originalStatusCode` of the model behind Bedrock.
    pub original_status: Option<u16>,
    /// The backend's error object.
    pub raw: Option<String>,
    /// `x-amzn-requestid`.
    pub request_id: Option<&'a str>,
}

impl<'a> Fault<'a> {
    /// Reads an error object, as bodies of error answers and payloads of exceptions hold it.
    pub fn of_body(body: &'a [u8]) -> Self {
        let Ok(members) = Members::parse_bytes(body) else {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            if text.is_empty() {
                return Fault::default();
            }
            let quoted: String = text.chars().take(QUOTED).collect();
            return Fault {
                message: Some(Cow::Owned(format!("the answer is not JSON: {quoted}"))),
                ..Fault::default()
            };
        };
        let own = |text: Cow<str>| Cow::Owned(text.into_owned());
        let words = ["message", "Message", "errorMessage"].iter().find_map(|name| members.string(name));
        let original = members.string("originalMessage").filter(|text| !text.is_empty());
        let message = match (words, original) {
            (Some(words), Some(original)) if !words.contains(original.as_ref()) => {
                Some(Cow::Owned(format!("{words} ({original})")))
            }
            (words, original) => words.or(original).map(own),
        };
        Fault {
            name: members.string("__type").map(|name| Cow::Owned(bare(&name).to_owned())),
            message,
            original_status: members.number("originalStatusCode").and_then(|status| u16::try_from(status).ok()),
            raw: (body.len() <= LARGEST_RAW).then(|| String::from_utf8_lossy(body).into_owned()),
            ..Fault::default()
        }
    }

    /// The failure in the contract's terms.
    pub fn into_error(self) -> Error {
        let name = self.name.as_deref().map(|name| {
            let mut letters = name.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        });
        let words = self.message.as_deref().unwrap_or_default();
        let (kind, status, retry) = judge(name.as_deref(), self.status, self.original_status, words);
        let mut message = match (words.is_empty(), &name) {
            (false, _) => words.to_owned(),
            (true, Some(name)) => format!("Bedrock answered {name} without a message"),
            (true, None) => format!("Bedrock answered with status {status} and no message"),
        };
        if let Some(id) = self.request_id {
            message.push_str(&format!(" (AWS request id {id})"));
        }
        Error { kind, message, code: name, param: None, status: Some(status), retry, raw: self.raw }
    }
}

/// The exception's name without what AWS writes around it: `ns#Name:http://…` is `Name`.
pub(super) fn bare(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default()
}

/// Kind, status and advice.
///
/// The advice `never` is for what is wrong with the request itself. Where only this account, key or model stands in
/// the way, waiting does not help but another target may: `other-target`.
fn judge(name: Option<&str>, status: Option<u16>, original: Option<u16>, words: &str) -> (ErrorKind, u16, Retry) {
    use ErrorKind as Kind;
    const AGAIN: Retry = Retry::SameTarget(None);
    let (kind, modelled, retry) = match name.unwrap_or_default() {
        "ThrottlingException" => throttled(words),
        "ModelNotReadyException" => (Kind::Overloaded, 429, AGAIN),
        "ModelTimeoutException" => (Kind::Timeout, 408, AGAIN),
        "ModelErrorException" | "ModelStreamErrorException" => match original {
            Some(original) => {
                let (kind, _, retry) = by_status(original, words);
                (kind, 424, retry)
            }
            None => (Kind::UpstreamFailure, 424, AGAIN),
        },
        "InternalServerException" | "InternalFailure" => (Kind::UpstreamFailure, 500, AGAIN),
        "ServiceUnavailableException" | "ServiceUnavailable" => (Kind::Overloaded, 503, AGAIN),
        "ValidationException" => by_status(400, words),
        "ServiceQuotaExceededException" => (Kind::QuotaExhausted, 400, Retry::OtherTarget),
        "ConflictException" => (Kind::InvalidRequest, 400, Retry::Never),
        "AccessDeniedException" => by_status(403, words),
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
        "ResourceNotFoundException" | "UnknownOperationException" => (Kind::NotFound, 404, Retry::OtherTarget),
        _ => by_status(status.unwrap_or(500), words),
    };
    (kind, status.unwrap_or(modelled), retry)
}

fn throttled(words: &str) -> (ErrorKind, u16, Retry) {
    // A spent daily quota is not worth waiting for.
    let daily = words.to_ascii_lowercase().contains("per day");
    (ErrorKind::RateLimited, 429, if daily { Retry::OtherTarget } else { Retry::SameTarget(None) })
}

fn by_status(status: u16, words: &str) -> (ErrorKind, u16, Retry) {
    use ErrorKind as Kind;
    const AGAIN: Retry = Retry::SameTarget(None);
    let (kind, retry) = match status {
        400 | 422 if is_context_overflow(words) => (Kind::ContextLength, Retry::OtherTarget),
        401 => (Kind::Unauthenticated, Retry::OtherTarget),
        403 if is_about_credentials(words) => (Kind::Unauthenticated, Retry::OtherTarget),
        403 => (Kind::Forbidden, Retry::OtherTarget),
        404 => (Kind::NotFound, Retry::OtherTarget),
        408 | 504 => (Kind::Timeout, AGAIN),
        413 => (Kind::TooLarge, Retry::OtherTarget),
        429 => return throttled(words),
        503 | 529 => (Kind::Overloaded, AGAIN),
        400..=423 | 425..=499 => (Kind::InvalidRequest, Retry::Never),
        424 | 500..=599 => (Kind::UpstreamFailure, AGAIN),
        _ => (Kind::MalformedResponse, Retry::OtherTarget),
    };
    (kind, status, retry)
}

/// A context overflow has no code of its own. Asked only of what is a validation error otherwise: throttling speaks
/// of "too many tokens" as well.
fn is_context_overflow(words: &str) -> bool {
    const SIGNS: [&str; 5] = [
        "input is too long",
        "too many tokens",
        "prompt is too long",
        "too many input tokens",
        // "expected maxLength: 200000, actual: 210342"
        "expected maxlength",
    ];
    let words = words.to_ascii_lowercase();
    SIGNS.iter().any(|sign| words.contains(sign))
}

/// `AccessDeniedException` stands for a missing permission and for bad credentials alike.
fn is_about_credentials(words: &str) -> bool {
    const SIGNS: [&str; 6] =
        ["security token", "api key", "expired", "authentication failed", "bearer token", "signature"];
    let words = words.to_ascii_lowercase();
    SIGNS.iter().any(|sign| words.contains(sign))
}
