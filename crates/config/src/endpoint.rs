//! Endpoint URLs: `http` or `https`, a host, maybe a port and a path, and nothing else.

use std::net::Ipv6Addr;

/// What is wrong with an endpoint: a message without the URL (which might hold a password), and what would be right.
pub(crate) struct Flaw(pub(crate) &'static str, pub(crate) &'static str);

const EXAMPLE: &str = "write \"http://host:port\" or \"https://host/path\"";

/// The longest endpoint, in bytes.
const MOST: usize = 2_048;

/// The endpoint without slashes at its end, scheme and host in lower case.
pub(crate) fn check(text: &str) -> Result<String, Flaw> {
    if text == "stub:" {
        return Ok(text.into());
    }
    if text.is_empty() {
        return Err(Flaw("is empty", EXAMPLE));
    }
    if text.len() > MOST {
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

/// What is wrong with the endpoint that an adapter has where the configuration names none: a URL as any other, in which
/// `{name}` stands for a setting. `{region}` may follow from a request, so it chooses among the hosts of one domain only:
/// what stands behind it ends with `.{dns_suffix}`, or with three labels in which nothing is filled in.
pub fn check_default_endpoint(text: &str) -> Result<(), String> {
    let said = |what: &str| Err(format!("its default-endpoint {what}"));
    if text.len() > MOST {
        return said("is longer than 2,048 bytes");
    }
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    if authority.rsplit_once("{region}").is_some_and(|(_, behind)| !is_in_a_domain(behind)) {
        return said(
            "lets the region, which a request may choose, choose the host: behind {region} and a dot there must be \
             {dns_suffix}, or three labels as in api.example.com",
        );
    }
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}') else { return said("has a \"{\" without its \"}\"") };
        // Nor does it hide where the host ends.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return said("has \"{…}\" that names no setting");
        }
        filled.push_str(before);
        filled.push('1');
        rest = after;
    }
    filled.push_str(rest);
    check(&filled).map(|_| ()).or_else(|Flaw(what, _)| said(what))
}

/// Whether a host that ends with `behind`, whatever stands before it, is in a domain that the adapter itself has named. Of
/// two labels, both may be a registry's: `co.uk`.
fn is_in_a_domain(behind: &str) -> bool {
    let host = behind.split(':').next().unwrap_or_default().trim_end_matches('.');
    // What stands before the first dot is of one label with the region.
    let Some((_, domain)) = host.split_once('.') else { return false };
    let fixed = domain.rsplit('.').take_while(|label| !label.contains(['{', '}'])).count();
    fixed >= 3 || domain == "{dns_suffix}" || domain.ends_with(".{dns_suffix}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapters_own_endpoint_is_a_url_whose_host_no_request_chooses() {
        for good in [
            "stub:",
            "https://api.example.com/v1",
            "https://bedrock-runtime.{region}.{dns_suffix}",
            "https://runtime.sagemaker.{region}.{dns_suffix}:443/x",
            "https://{region}.vpce.{dns_suffix}.",
            "https://{region}.api.example.com:8443/v1",
            "https://{region}-{kind}.{team}.api.example.com",
            "https://{host}/{region}",
            "https://{host}.example.com/a.{region}",
            "http://127.0.0.1:{port}",
        ] {
            assert_eq!(check_default_endpoint(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("https://{region}", "choose the host"),
            ("https://x.{region}:443/v1", "choose the host"),
            ("https://{region}./v1", "choose the host"),
            ("https://{region}.com", "choose the host"),
            ("https://{region}.com.", "choose the host"),
            ("https://x.{region}.co.uk:443", "choose the host"),
            ("https://{region}.example.com/v1", "choose the host"),
            ("https://{region}-api.example.com", "choose the host"),
            ("https://{region}{dns_suffix}", "choose the host"),
            ("https://{region}.x{dns_suffix}", "choose the host"),
            ("https://{region}.api.example.{tld}", "choose the host"),
            ("https://a.b.c.{region}.com", "choose the host"),
            ("https://{region}.a.b.c.{region}.com", "choose the host"),
            ("https://example.com:{region}", "choose the host"),
            ("https://[::{region}]", "choose the host"),
            ("https://{}.example.com", "names no setting"),
            ("https://{a/b}.{region}.com", "names no setting"),
            ("https://{region", "without its"),
            ("https://user@example.com", "user"),
            ("file:///etc/passwd", "neither http nor https"),
            ("", "is empty"),
        ] {
            let error = check_default_endpoint(bad).expect_err(bad);
            assert!(error.starts_with("its default-endpoint ") && error.contains(told), "{bad}: {error}");
        }
        assert!(check_default_endpoint(&format!("https://{}", "{region}".repeat(1_000_000))).is_err());
    }
}
