//! The canonical requests, as the normaliser reads them.

use std::sync::Arc;

use bytes::Bytes;
use witgate_gateway::{Fault, Normaliser as _};
use witgate_model::normaliser::{Client, Limits, Step};
use witgate_model::{Error, Request};

use crate::components::NormaliserComponent;

include!(concat!(env!("OUT_DIR"), "/canonical.rs"));

/// One canonical request.
pub(super) struct Canonical {
    /// `tools`, or with its dialect in front, `anthropic-messages/tools`.
    pub name: String,
    pub request: Arc<Request>,
}

/// All canonical requests, for this model.
pub(super) fn canonical(normaliser: &NormaliserComponent, model: &str) -> Result<Vec<Canonical>, Fault> {
    let mut all = Vec::new();
    for (name, body) in CANONICAL {
        let dialect = name.split_once('/').map_or("openai-chat", |(dialect, _)| dialect);
        let path = name.contains("count-tokens").then_some("/v1/messages/count_tokens");
        if let Ok(Step::Ask(parsed) | Step::Follow(parsed)) = parse(normaliser, dialect, path, body)? {
            let request = Request { model: model.to_owned(), ..parsed.request };
            all.push(Canonical { name: (*name).to_owned(), request: Arc::new(request) });
        }
    }
    Ok(all)
}

/// The request that a body is in a dialect.
///
/// # Errors
/// Why it is none.
pub(super) fn request(normaliser: &NormaliserComponent, dialect: &str, body: &str) -> Result<Request, String> {
    match parse(normaliser, dialect, None, body) {
        Ok(Ok(Step::Ask(parsed) | Step::Follow(parsed))) => Ok(parsed.request),
        Ok(Ok(_)) => Err("it needs no backend, or more than its body".to_owned()),
        Ok(Err(error)) => Err(error.message),
        Err(fault) => Err(fault.to_string()),
    }
}

fn parse(
    normaliser: &NormaliserComponent,
    dialect: &str,
    path: Option<&str>,
    body: &str,
) -> Result<Result<Step, Error>, Fault> {
    let route = normaliser.routes().iter().find(|route| route.dialect == dialect).map(|route| route.path.as_str());
    let Some(path) = path.or(route) else {
        return Ok(Err(Error::invalid("dialect", format!("there is no dialect {dialect:?}"))));
    };
    // What the operator says of a dialect that cannot do without.
    let settings = match dialect {
        "llm-invocation" => {
            r#"{"backends":{"bedrock":{"shape":"openai","model":"m"},"ollama":{"shape":"ollama","model":"m"}}}"#
        }
        _ => "",
    };
    let (path, settings) = (path.to_owned(), settings.to_owned());
    let client = Client { method: "POST".to_owned(), path, settings, ..Client::default() };
    let limits = Limits { depth: 64, messages: 10_000 };
    normaliser.session()?.parse(dialect, &client, &limits, &Bytes::copy_from_slice(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canonical_request_is_read() {
        let runtime =
            crate::engine::Runtime::new(crate::engine::Sandbox { instances: 64, ..Default::default() }).unwrap();
        let bounds = crate::engine::Bounds { trusted: true, ..Default::default() };
        let normaliser = NormaliserComponent::load(&runtime, crate::builtin::NORMALISER.into(), bounds).unwrap();
        let read = canonical(&normaliser, "m").unwrap();
        let missing =
            CANONICAL.iter().map(|(name, _)| *name).filter(|name| !read.iter().any(|read| read.name == **name));
        assert_eq!(missing.collect::<Vec<_>>(), [""; 0]);
        assert!(read.len() > 60 && read.iter().any(|request| request.name == "text"), "{}", read.len());
    }
}
