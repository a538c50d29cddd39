//! What `/` answers: to a browser a page with the providers' state and a form to try a model, to anything else a line.
//!
//! The page is one file without anything from elsewhere, and its policy says so to the browser. It holds nothing that the
//! gateway knows but its version: what it shows it asks by the API, with the key that its reader types.

use witgate_model::Field;

const PAGE: &str = include_str!("page.html");

/// No other origin is asked, none may frame the page, and its script is the one that is part of it.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The headers and the text; `shown` is whether there is a page, `accept` the header of that name.
pub(crate) fn root(shown: bool, accept: Option<&str>) -> (Vec<Field>, String) {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let vary = field("vary", "accept");
    if !shown || !accept.is_some_and(|accept| accept.contains("text/html")) {
        return (vec![field("content-type", "text/plain; charset=utf-8"), vary], "witgate is running\n".to_owned());
    }
    let headers = vec![
        field("content-type", "text/html; charset=utf-8"),
        vary,
        field("content-security-policy", POLICY),
        field("x-content-type-options", "nosniff"),
        field("referrer-policy", "no-referrer"),
    ];
    (headers, PAGE.replace("{{version}}", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_a_page_that_brings_all_it_needs() {
        let (headers, text) = root(true, Some("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(headers.contains(&("content-type".into(), "text/html; charset=utf-8".into())), "{headers:?}");
        assert!(headers.iter().any(|(name, value)| name == "content-security-policy" && value.contains("'none'")));
        assert!(text.contains(env!("CARGO_PKG_VERSION")) && !text.contains("{{"), "{text}");
        for elsewhere in ["http://", "https://", "src=", "@import", "innerHTML"] {
            assert!(!text.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn others_get_a_line_and_so_does_everybody_where_there_is_no_page() {
        for (shown, accept) in [(true, None), (true, Some("*/*")), (false, Some("text/html"))] {
            let (headers, text) = root(shown, accept);
            assert_eq!(headers[0].1, "text/plain; charset=utf-8");
            assert_eq!(text, "witgate is running\n");
        }
    }
}
