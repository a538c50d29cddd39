//! What a browser is told of answers to other origins (the Fetch standard's CORS protocol).

use witgate_config::Cors;
use witgate_model::Field;

use crate::http::{self, Request};

/// Headers of ours that a page may read beside those that it always may.
const EXPOSED: &str = "x-request-id, x-witgate-provider, x-witgate-dropped, x-witgate-attempts, retry-after";

/// Headers for an answer to `request`; none where its origin is not let in. `open`: every origin is, because the API that
/// is asked has always let them in.
pub(crate) fn headers<B>(cors: &Cors, open: bool, request: &Request<B>) -> Vec<Field> {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    if open || cors.origins.iter().any(|origin| origin == "*") {
        return vec![field("access-control-allow-origin", "*"), field("access-control-expose-headers", EXPOSED)];
    }
    if cors.origins.is_empty() {
        return Vec::new();
    }
    // Whatever the origin is, the answer depends on it: a cache must know.
    let mut headers = vec![field("vary", "origin")];
    if let Some(origin) = request.header("origin").filter(|origin| cors.origins.iter().any(|own| own == origin)) {
        headers.push(field("access-control-allow-origin", origin));
        headers.push(field("access-control-expose-headers", EXPOSED));
    }
    headers
}

/// Headers of the answer to OPTIONS, for a path that takes the methods `allow`.
pub(crate) fn preflight<B>(cors: &Cors, allow: &str, request: &Request<B>) -> Vec<Field> {
    let allow = format!("{allow}, OPTIONS");
    let mut headers = vec![("allow".to_owned(), allow.clone())];
    if request.header("access-control-request-method").is_some() {
        headers.push(("access-control-allow-methods".to_owned(), allow));
        let wanted = http::header(&request.headers, "access-control-request-headers");
        let token = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let wanted: Vec<_> = wanted
            .iter()
            .flat_map(|names| names.split(','))
            .map(str::trim)
            .filter(|name| (1..=64).contains(&name.len()) && token(name))
            .take(64)
            .collect();
        if !wanted.is_empty() {
            headers.push(("access-control-allow-headers".to_owned(), wanted.join(", ")));
        }
        headers.push(("access-control-max-age".to_owned(), cors.max_age.as_secs().to_string()));
    }
    headers
}
