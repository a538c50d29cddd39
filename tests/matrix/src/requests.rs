//! The canonical requests.

use std::path::Path;

use witgate_dialects::{default_limits, step};
use witgate_model::normaliser::{Client, Parsed, Step};

use crate::root;

/// One canonical request.
#[derive(Clone, Debug)]
pub struct Canonical {
    /// `tools`, or with its dialect in front, `anthropic-messages/tools`.
    pub name: String,
    /// The dialect that it is written in.
    pub dialect: String,
    /// What the client sends.
    pub body: String,
}

impl Canonical {
    /// The request as the dialect reads it.
    pub fn parsed(&self) -> Parsed {
        parse_request(&self.dialect, path(&self.dialect, &self.name), settings(&self.dialect), &self.body)
    }
}

/// Where a client of `dialect` sends a request of that name.
fn path<'a>(dialect: &str, name: &str) -> &'a str {
    if name.contains("count-tokens") {
        return "/v1/messages/count_tokens";
    }
    let route = witgate_dialects::routes().iter().find(|route| route.dialect == dialect);
    &route.unwrap_or_else(|| panic!("there is no dialect {dialect}")).path
}

/// What the operator says of a dialect that cannot do without.
fn settings(dialect: &str) -> &'static str {
    match dialect {
        "llm-invocation" => {
            r#"{"backends":{"bedrock":{"shape":"openai","model":"m"},"ollama":{"shape":"ollama","model":"m"}}}"#
        }
        _ => "",
    }
}

/// What `dialect` reads in `body`. `settings` are the operator's, of that dialect.
pub fn parse_request(dialect: &str, path: &str, settings: &str, body: &str) -> Parsed {
    let (path, settings) = (path.to_owned(), settings.to_owned());
    let client = Client { method: "POST".to_owned(), path, settings, ..Client::default() };
    match step(dialect, &client, &default_limits(), body.as_bytes()) {
        Ok(Step::Ask(parsed) | Step::Follow(parsed)) => parsed,
        other => panic!("{dialect} does not ask a backend: {other:?}\n{body}"),
    }
}

fn read(folder: &Path, dialect: &str, prefix: &str, all: &mut Vec<Canonical>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            read(&path, &name, &format!("{name}/"), all);
        } else {
            let body = std::fs::read_to_string(&path).unwrap();
            all.push(Canonical { name: format!("{prefix}{name}"), dialect: dialect.to_owned(), body });
        }
    }
}

/// All canonical requests, by name.
pub fn requests() -> Vec<Canonical> {
    let mut all = Vec::new();
    read(&root("tests/fixtures/requests"), "openai-chat", "", &mut all);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
