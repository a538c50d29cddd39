//! The canonical requests, as the normaliser reads them.

use std::sync::Arc;

use bytes::Bytes;
use witgate_gateway::{Fault, Normaliser as _};
use witgate_model::Request;
use witgate_model::normaliser::{Client, Limits, Step};

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
    let limits = Limits { depth: 64, messages: 10_000 };
    let mut all = Vec::new();
    for (name, body) in CANONICAL {
        let dialect = name.split_once('/').map_or("openai-chat", |(dialect, _)| dialect);
        let route = normaliser.routes().iter().find(|route| route.dialect == dialect);
        let path = match route {
            _ if name.contains("count-tokens") => "/v1/messages/count_tokens".to_owned(),
            Some(route) => route.path.clone(),
            None => continue,
        };
        // What the operator says of a dialect that cannot do without.
        let settings = match dialect {
            "llm-invocation" => {
                r#"{"backends":{"bedrock":{"shape":"openai","model":"m"},"ollama":{"shape":"ollama","model":"m"}}}"#
            }
            _ => "",
        };
        let client = Client { method: "POST".to_owned(), path, settings: settings.to_owned(), ..Client::default() };
        let step = normaliser.session()?.parse(dialect, &client, &limits, &Bytes::from_static(body.as_bytes()))?;
        if let Ok(Step::Ask(parsed) | Step::Follow(parsed)) = step {
            let request = Request { model: model.to_owned(), ..parsed.request };
            all.push(Canonical { name: (*name).to_owned(), request: Arc::new(request) });
        }
    }
    Ok(all)
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
