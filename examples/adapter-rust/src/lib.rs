//! A third party's adapter: it asks a server that speaks OpenAI's API and gives the answer back in capitals.
//!
//! `cargo test` tests it, `cargo component` builds it into `target/wasm32-unknown-unknown/component/adapter_shout.wasm`.

use serde::Deserialize;
use witgate_sdk::{BlockKind, Error, Event, LlamaCpp, Request, ResponseHead, Variation, Varied};

#[derive(Default, Deserialize)]
struct Settings {
    suffix: Option<String>,
}

/// One answer.
struct Shout {
    suffix: Option<String>,
    /// The first block of text, while it is open.
    block: Option<u32>,
}

witgate_sdk::export!(Varied<Shout>);

impl Variation for Shout {
    type Base = LlamaCpp;
    type Settings = Settings;
    const ID: &str = "shout";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "A server that speaks OpenAI's API, whose answers are shouted";
    const SETTINGS: &str = r#"{"suffix": {"type": "string", "description": "Shouted after every answer."}}"#;

    fn takes(operation: &str) -> bool {
        operation == "chat"
    }

    fn request(_: &Settings, request: &mut Request) -> Result<(), Error> {
        if request.tools.is_empty() { Ok(()) } else { Err(Error::unsupported("tools", "shouting needs both hands")) }
    }

    fn answer(settings: Settings, _: &ResponseHead) -> Self {
        Shout { suffix: settings.suffix, block: None }
    }

    fn event(&mut self, mut event: Event, out: &mut Vec<Event>) {
        match &mut event {
            Event::BlockStart(start) if matches!(start.kind, BlockKind::Text) => self.block = Some(start.index),
            Event::Text(delta) => delta.text = delta.text.to_uppercase(),
            Event::BlockStop(index) if self.block == Some(*index) => {
                let suffix = self.suffix.take().filter(|suffix| !suffix.is_empty());
                out.extend(suffix.map(|suffix| Event::text(*index, suffix.to_uppercase())));
            }
            _ => {}
        }
        out.push(event);
    }
}

#[cfg(test)]
mod tests;
