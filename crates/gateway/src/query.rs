//! The query of a client's request: decoded once, for whichever dialect serves the path.

use witgate_model::Field;

use crate::failure::Failed;

/// The longest query, in bytes as it came.
const MOST_BYTES: usize = 8 * 1024;
/// The most parameters of one query.
const MOST_PARAMETERS: usize = 64;

/// The parameters in their order, as HTML forms write them: `+` is a blank, bytes that are no UTF-8 are U+FFFD.
pub(crate) fn parameters(query: &str) -> Result<Vec<Field>, Failed> {
    let long = |message: String| Failed::ours(414, "invalid_request_error", "uri_too_long", message);
    if query.len() > MOST_BYTES {
        return Err(long(format!("the query has {} bytes; at most {MOST_BYTES} are taken", query.len())));
    }
    let mut all = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if all.len() == MOST_PARAMETERS {
            return Err(long(format!("the query has more than {MOST_PARAMETERS} parameters")));
        }
        all.push((name.into_owned(), value.into_owned()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_in_their_order_and_bounded() {
        let decoded = parameters("a=1&include%5B%5D=x+y&b&include%5B%5D=%C3%A4").unwrap();
        let expected = [("a", "1"), ("include[]", "x y"), ("b", ""), ("include[]", "\u{e4}")];
        assert_eq!(decoded, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(parameters("").unwrap().is_empty());
        assert_eq!(parameters(&"a".repeat(MOST_BYTES + 1)).unwrap_err().status, 414);
        assert_eq!(parameters(&"a&".repeat(MOST_PARAMETERS)).unwrap().len(), MOST_PARAMETERS);
        assert_eq!(parameters(&"a&".repeat(MOST_PARAMETERS + 1)).unwrap_err().status, 414);
    }
}
