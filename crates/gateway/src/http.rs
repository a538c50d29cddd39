//! The client's side: requests in, responses out, request ids and traces.

use std::future::Future;

use bytes::Bytes;
use witgate_model::Field;

/// A client's request, its body still to come.
pub struct Request<B> {
    /// `POST`, ….
    pub method: String,
    /// Path without the query, percent-encoded as it came.
    pub path: String,
    /// The query without its `?`, as it came; empty for none.
    pub query: String,
    /// Headers, names in lower case; values that are not UTF-8 left out.
    pub headers: Vec<Field>,
    /// The body.
    pub body: B,
}

impl<B> Request<B> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The first value of a header.
pub(crate) fn header<'a>(headers: &'a [Field], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The key that a client brings as `authorization: Bearer KEY`.
pub(crate) fn bearer(headers: &[Field]) -> Option<&str> {
    let (scheme, key) = header(headers, "authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// A request's body, read when the gateway has decided that it wants it.
pub trait RequestBody {
    /// The whole body.
    fn read(self, limit: usize) -> impl Future<Output = Result<Bytes, BodyError>>;
}

impl RequestBody for Bytes {
    async fn read(self, limit: usize) -> Result<Bytes, BodyError> {
        if self.len() > limit { Err(BodyError::TooLarge) } else { Ok(self) }
    }
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than the limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The client did not send it in time.
    #[error("the body did not arrive in time")]
    Timeout,
    /// The connection broke.
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// The gateway's answer.
pub struct Response<S> {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<Field>,
    /// What follows.
    pub body: Body<S>,
}

impl<S> Response<S> {
    /// The same with another stream.
    pub(crate) fn map<T>(self, change: impl FnOnce(S) -> T) -> Response<T> {
        let body = match self.body {
            Body::Whole(bytes) => Body::Whole(bytes),
            Body::Stream(stream) => Body::Stream(change(stream)),
        };
        Response { status: self.status, headers: self.headers, body }
    }
}

/// An answer that is whole.
pub(crate) struct Whole {
    pub status: u16,
    pub headers: Vec<Field>,
    pub body: Bytes,
}

impl Whole {
    pub fn response<S>(self) -> Response<S> {
        Response { status: self.status, headers: self.headers, body: Body::Whole(self.body) }
    }
}

/// The body of an answer.
pub enum Body<S> {
    /// All of it.
    Whole(Bytes),
    /// Pieces as they come. Dropping the stream cancels the backend's request.
    Stream(S),
}

/// A header's value that lists texts: what a header cannot carry becomes `?`, and it is at most 1 KiB long.
pub(crate) fn list(texts: &[String]) -> String {
    let mut out = String::new();
    for text in texts {
        if out.len() + text.len() + 2 > 1024 {
            out.push_str(", ...");
            break;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.extend(text.chars().map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '?' }));
    }
    out
}

/// A request id that a client may choose: visible ASCII, at most 128 characters.
pub(crate) fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// 22 letters and digits from 128 random bits.
pub(crate) fn id(random: u128) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(22);
    // Halves, of 11 digits each: a processor divides 64 bits by itself.
    for mut rest in [random as u64, (random >> 64) as u64] {
        for _ in 0..11 {
            out.push(char::from(DIGITS[(rest % 62) as usize]));
            rest /= 62;
        }
    }
    out
}

/// A valid `traceparent` (W3C Trace Context, version 00): its trace id and flags.
pub(crate) fn traceparent(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    valid.then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_only_when_it_is_valid() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(traceparent(&format!("00-{trace}-00f067aa0ba902b7-01")), Some((trace, "01")));
        assert_eq!(traceparent(&format!("01-{trace}-00f067aa0ba902b7-01-later")), Some((trace, "01")));
        for bad in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &format!("00-{trace}-0000000000000000-01"),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
            &format!("00-{trace}-00f067aa0ba902b7-01-more"),
            &format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
        ] {
            assert_eq!(traceparent(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_in_a_header_is_visible_ascii_and_bounded() {
        assert_eq!(list(&["n".into(), "messages[0].naïve, \r\n".into()]), "n, messages[0].na?ve????");
        let long = list(&vec!["tools[0].strict".to_owned(); 64]);
        assert_eq!(list(&vec!["x".repeat(300); 9]).len(), 3 * 302 - 2 + 5);
        assert!(long.len() <= 1029, "{}", long.len());
    }

    #[test]
    fn an_id_has_22_letters_and_digits() {
        assert_eq!(id(0), "0".repeat(22));
        assert!(id(u128::MAX).bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(id(1), id(2));
    }
}
