//! Endpoint URLs: `http` or `https`, a host, maybe a port and a path, and nothing else.

use std::net::Ipv6Addr;

/// What is wrong with an endpoint: a message without the URL (which might hold a password), and what would be right.
pub(crate) struct Flaw(pub(crate) &'static str, pub(crate) &'static str);

const EXAMPLE: &str = "write \"http://host:port\" or \"https://host/path\"";

/// The endpoint without slashes at its end, scheme and host in lower case.
pub(crate) fn check(text: &str) -> Result<String, Flaw> {
    if text == "stub:" {
        return Ok(text.into());
    }
    if text.is_empty() {
        return Err(Flaw("is empty", EXAMPLE));
    }
    if text.len() > 2_048 {
        return Err(Flaw("is longer than 2,048 bytes", EXAMPLE));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Flaw("holds a blank, a control character or one beyond ASCII", EXAMPLE));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Flaw("has no scheme", EXAMPLE));
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(Flaw("has a scheme that is neither http nor https", EXAMPLE));
    }
    if rest.contains('#') {
        return Err(Flaw("has a fragment (\"#\")", "an endpoint ends with its path"));
    }
    if rest.contains('?') {
        return Err(Flaw("has a query (\"?\")", "an endpoint ends with its path"));
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err(Flaw("holds a user or a password", "put it under `secrets`, as in `api_key = \"${NAME}\"`"));
    }
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let Some((address, rest)) = inside.split_once(']') else {
            return Err(Flaw("has a \"[\" without its \"]\"", "write \"http://[::1]:8080\""));
        };
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(Flaw("has no IPv6 address between its brackets", "write \"http://[::1]:8080\""));
        }
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(Flaw("has something behind its \"]\" that is no port", EXAMPLE)),
        };
        (format!("[{}]", address.to_ascii_lowercase()), port)
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        if host.is_empty() {
            return Err(Flaw("has no host", EXAMPLE));
        }
        if host.len() > 253 || !host_name(host) {
            return Err(Flaw("has a host that is neither a name nor an address", EXAMPLE));
        }
        (host.to_ascii_lowercase(), port)
    };
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0))
    {
        return Err(Flaw("has a port that is not a number from 1 to 65535", EXAMPLE));
    }
    let path = path.trim_end_matches('/');
    for segment in path.split('/').skip(1) {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err(Flaw("has an empty segment, a \".\" or a \"..\" in its path", EXAMPLE));
        }
        if !escapes_are_whole(segment) || segment.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
            return Err(Flaw("has a character in its path that must be percent-encoded", EXAMPLE));
        }
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{scheme}://{host}{port}{path}"))
}

/// Labels of letters, digits, `-` and `_` (which container networks use), parted by single dots.
pub(crate) fn host_name(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).split('.').all(|label| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

fn escapes_are_whole(segment: &str) -> bool {
    segment.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}
