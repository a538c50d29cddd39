//! Which dialect serves a path, and what to say where none does.

use witgate_model::normaliser::Route;

use crate::jobs::{BatchQuestion, FileQuestion, Question};

/// What a request is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint<'a> {
    /// What somebody sees who only knows the address.
    Root,
    Health,
    Ready,
    /// Metrics for Prometheus.
    Metrics,
    Models,
    Model(&'a str),
    /// Ollama's list of models.
    Tags,
    /// Ollama's list of models in memory.
    Running,
    /// Ollama's version.
    Version,
    /// Ollama's description of a model.
    Show,
    Jobs(Question<'a>),
    Files(FileQuestion<'a>),
    Batches(BatchQuestion<'a>),
    Dialect(&'a str),
}

/// Why there is nothing for a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Missing {
    /// No such path; the nearest one there is.
    Path(Option<String>),
    /// The path takes these methods.
    Method(String),
}

/// The gateway's own routes.
const OWN: [(&str, &str); 24] = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/api/tags"),
    ("GET", "/api/ps"),
    ("GET", "/api/version"),
    ("POST", "/api/show"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/{id}/result"),
    ("POST", "/v1/jobs/{id}/cancel"),
    ("GET", "/v1/jobs/{id}"),
    ("DELETE", "/v1/jobs/{id}"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/{id}/content"),
    ("GET", "/v1/files/{id}"),
    ("DELETE", "/v1/files/{id}"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("POST", "/v1/batches/{id}/cancel"),
    ("GET", "/v1/batches/{id}"),
];

/// Finds the endpoint of a request. HEAD is taken as GET.
pub(crate) fn find<'a>(routes: &'a [Route], method: &str, path: &'a str) -> Result<Endpoint<'a>, Missing> {
    let method = if method == "HEAD" { "GET" } else { method };
    let path = without_slash(path);
    let mut allowed: Vec<&str> = Vec::new();
    for (route_method, route) in OWN {
        if let Some(captured) = matches(route, path) {
            if route_method == method {
                return Ok(match route {
                    "/" => Endpoint::Root,
                    "/health" => Endpoint::Health,
                    "/ready" => Endpoint::Ready,
                    "/metrics" => Endpoint::Metrics,
                    "/v1/models" => Endpoint::Models,
                    "/api/tags" => Endpoint::Tags,
                    "/api/ps" => Endpoint::Running,
                    "/api/version" => Endpoint::Version,
                    "/api/show" => Endpoint::Show,
                    "/v1/files" if method == "POST" => Endpoint::Files(FileQuestion::Upload),
                    "/v1/files" => Endpoint::Files(FileQuestion::List),
                    "/v1/files/{id}/content" => Endpoint::Files(FileQuestion::Content(captured)),
                    "/v1/files/{id}" if method == "DELETE" => Endpoint::Files(FileQuestion::Delete(captured)),
                    "/v1/files/{id}" => Endpoint::Files(FileQuestion::Get(captured)),
                    "/v1/batches" if method == "POST" => Endpoint::Batches(BatchQuestion::Create),
                    "/v1/batches" => Endpoint::Batches(BatchQuestion::List),
                    "/v1/batches/{id}/cancel" => Endpoint::Batches(BatchQuestion::Cancel(captured)),
                    "/v1/batches/{id}" => Endpoint::Batches(BatchQuestion::Get(captured)),
                    "/v1/jobs" => Endpoint::Jobs(Question::List),
                    "/v1/jobs/{id}/result" => Endpoint::Jobs(Question::Result(captured)),
                    "/v1/jobs/{id}/cancel" => Endpoint::Jobs(Question::Cancel(captured)),
                    "/v1/jobs/{id}" if method == "DELETE" => Endpoint::Jobs(Question::Delete(captured)),
                    "/v1/jobs/{id}" => Endpoint::Jobs(Question::Get(captured)),
                    _ => Endpoint::Model(captured),
                });
            }
            allowed.push(route_method);
            allowed.extend((route_method == "GET").then_some("HEAD"));
        }
    }
    for route in routes {
        if matches(&route.path, path).is_some() {
            if route.method == method {
                return Ok(Endpoint::Dialect(&route.dialect));
            }
            if !allowed.contains(&route.method.as_str()) {
                allowed.push(&route.method);
            }
        }
    }
    if !allowed.is_empty() {
        return Err(Missing::Method(allowed.join(", ")));
    }
    let known = || OWN.iter().map(|(_, path)| *path).chain(routes.iter().map(|route| route.path.as_str()));
    // A path that ends too early means what begins with it.
    let longer = known().filter(|route| route.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
    if let Some(longer) = longer.filter(|_| path.len() > 1).min_by_key(|route| route.len()) {
        return Err(Missing::Path(Some(longer.to_owned())));
    }
    let path: String = path.chars().take(128).collect();
    let nearest = known()
        .map(|route| (strsim::damerau_levenshtein(route, &path), route))
        .filter(|(distance, route)| *distance <= route.len() / 2)
        .min();
    Err(Missing::Path(nearest.map(|(_, route)| route.to_owned())))
}

/// Whether a path fits a route, with or without a slash at its end.
pub(crate) fn fits(route: &str, path: &str) -> bool {
    matches(route, without_slash(path)).is_some()
}

fn without_slash(path: &str) -> &str {
    if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path }
}

/// Whether a path fits a route; what its `{…}` stands for, or an empty text.
fn matches<'p>(route: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = route.split_once('{') else { return (route == path).then_some("") };
    let (_, after) = rest.split_once('}')?;
    let captured = path.strip_prefix(before)?.strip_suffix(after)?;
    // The stage of an API Gateway is no version of an API, and no other API's name.
    if rest.starts_with("stage}") && !is_stage(captured) {
        return None;
    }
    // A model may be written `provider/model`, so the last segment may hold a slash; one in the middle may not.
    (!captured.is_empty() && (after.is_empty() || !captured.contains('/'))).then_some(captured)
}

/// Whether a first segment can be a stage, as `Prod`: not `v1`, `api`, `openai`.
fn is_stage(segment: &str) -> bool {
    let version = segment.strip_prefix(['v', 'V']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    !version && !["api", "openai"].contains(&segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Vec<Route> {
        let route = |method: &str, path: &str, dialect: &str| Route {
            method: method.into(),
            path: path.into(),
            dialect: dialect.into(),
        };
        vec![
            route("POST", "/v1/chat/completions", "openai-chat"),
            route("POST", "/openai/deployments/{model}/chat/completions", "openai-chat"),
            route("POST", "/v1/completions", "openai-completions"),
            route("POST", "/chat", "bedrock-chat"),
            route("POST", "/{stage}/chat", "bedrock-chat"),
        ]
    }

    #[test]
    fn a_path_finds_its_dialect_with_and_without_a_trailing_slash() {
        let routes = routes();
        for path in ["/v1/completions", "/v1/completions/"] {
            assert_eq!(find(&routes, "POST", path), Ok(Endpoint::Dialect("openai-completions")));
        }
        let path = "/openai/deployments/gpt-4o/chat/completions";
        assert_eq!(find(&routes, "POST", path), Ok(Endpoint::Dialect("openai-chat")));
        assert_eq!(find(&routes, "GET", "/v1/models/local/tiny"), Ok(Endpoint::Model("local/tiny")));
        assert_eq!(find(&routes, "HEAD", "/health"), Ok(Endpoint::Health));
    }

    #[test]
    fn bed_1_a_stage_is_any_segment_but_a_version_or_another_apis_name() {
        let routes = routes();
        for path in ["/chat", "/chat/", "/Prod/chat/", "/dev/chat", "/very-own/chat", "/v/chat"] {
            assert_eq!(find(&routes, "POST", path), Ok(Endpoint::Dialect("bedrock-chat")), "{path}");
        }
        let nearest = Some("/v1/chat/completions".to_owned());
        assert_eq!(find(&routes, "POST", "/v1/chat"), Err(Missing::Path(nearest)));
        for path in ["/v1/chat/", "/v2/chat", "/V1beta/chat", "/api/chat", "/openai/chat", "//chat", "/a/b/chat"] {
            assert!(matches!(find(&routes, "POST", path), Err(Missing::Path(_))), "{path}");
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones_and_a_wrong_path_the_nearest() {
        let routes = routes();
        assert_eq!(find(&routes, "GET", "/v1/chat/completions"), Err(Missing::Method("POST".into())));
        assert_eq!(find(&routes, "POST", "/health"), Err(Missing::Method("GET, HEAD".into())));
        assert_eq!(
            find(&routes, "POST", "/v1/chat/completion"),
            Err(Missing::Path(Some("/v1/chat/completions".into())))
        );
        assert_eq!(find(&routes, "GET", "/"), Ok(Endpoint::Root));
        assert_eq!(find(&routes, "POST", "/"), Err(Missing::Method("GET, HEAD".into())));
    }
}
