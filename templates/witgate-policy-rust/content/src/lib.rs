//! A policy: it writes other words for some, in requests and in answers.
//!
//! `cargo test` tests it, `cargo component` builds it into `target/wasm32-unknown-unknown/component/{{project-name | snake_case}}.wasm`.

use std::collections::BTreeMap;

use serde::Deserialize;
use witgate_sdk::policy::{Context, Decision, Description, Policy, Tag, TextFilter, TextWatcher, rewrite};
use witgate_sdk::{BlockKind, Error, Request};

/// The settings, and what becomes of texts by them.
#[derive(Deserialize)]
struct Words {
    words: BTreeMap<String, String>,
}

witgate_sdk::export_policy!(Words);

impl Words {
    fn new(settings: &str) -> Result<Self, Error> {
        // The gateway has checked them by the schema.
        serde_json::from_str(settings).map_err(|error| Error::invalid("settings", error.to_string()))
    }

    /// The text with other words, and how many they are.
    fn replace(&self, text: &str) -> (String, usize) {
        let (mut out, mut count) = (String::with_capacity(text.len()), 0);
        for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
            let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
            let other = self.words.get(word);
            count += usize::from(other.is_some());
            out.push_str(other.map_or(word, String::as_str));
            out.push_str(&piece[word.len()..]);
        }
        (out, count)
    }
}

impl Policy for Words {
    type Watcher = TextWatcher<Words>;

    fn describe() -> Description {
        Description {
            id: "{{project-name | kebab_case}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Writes other words for some".into(),
            settings_schema: r#"{
                "type": "object",
                "additionalProperties": false,
                "required": ["words"],
                "properties": {"words": {"type": "object", "additionalProperties": {"type": "string"}}}
            }"#
            .into(),
        }
    }

    fn on_request(settings: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
        let words = Words::new(settings)?;
        let mut all = 0;
        let changed = rewrite(request, |_, text| {
            let (text, count) = words.replace(text);
            all += count;
            (count > 0).then_some(text)
        });
        // Tags hold names and counts, never what the request says: they stand in logs.
        let tag = Tag { name: "{{project-name | kebab_case}}.words".into(), value: all.to_string() };
        let tags = if all > 0 { vec![tag] } else { Vec::new() };
        Ok(Decision { request: changed, tags, watch: Some(String::new()), ..Decision::default() })
    }

    fn watcher(settings: &str, _: String) -> TextWatcher<Words> {
        Words::new(settings).into()
    }
}

impl TextFilter for Words {
    type Block = ();

    fn block(&mut self, kind: &BlockKind) -> Option<()> {
        matches!(kind, BlockKind::Text).then_some(())
    }

    fn pass(&mut self, _: &mut (), held: &mut String, last: bool) -> Result<String, Error> {
        // The last word may go on with the next piece.
        let decided = if last { held.len() } else { held.trim_end_matches(char::is_alphanumeric).len() };
        let text: String = held.drain(..decided).collect();
        Ok(self.replace(&text).0)
    }
}

#[cfg(test)]
mod tests;
