//! What an author of an adapter, or of a policy, needs. Policies have a module of their own, [`policy`].
//!
//! An adapter turns a normalised request into one HTTP request, and the answer's frames into events. It is pure: it does
//! no IO, reads no clock, and sees no secret. `docs/write-an-adapter.md` goes from nothing to production; the contract
//! itself is `docs/adapter-contract.md`.
//!
//! There are two ways, and [`export!`] makes a component of either:
//!
//! - [`Variation`]: the backend speaks OpenAI's API, or that of another built-in adapter, but for something. Most do. The
//!   author writes what differs.
//! - [`Adapter`]: the backend speaks an API of its own. The author writes the four functions.
//!
//! # A variation
//! A server that speaks OpenAI's API, wants its key in a header of its own, and calls `max_tokens` `max_length`:
//!
//! ```
//! use witgate_sdk::{
//!     Auth, Error, HeaderAuth, HttpRequest, JsonObject, Message, NoSettings, OpenAi, Request, ResponseHead, Role,
//!     Variation, Varied,
//! };
//!
//! struct Acme;
//!
//! impl Variation for Acme {
//!     type Base = OpenAi;
//!     type Settings = NoSettings;
//!     const ID: &str = "acme";
//!     const VERSION: &str = env!("CARGO_PKG_VERSION");
//!     const SUMMARY: &str = "Acme's models.";
//!
//!     fn http(_: &NoSettings, http: &mut HttpRequest) -> Result<(), Error> {
//!         http.auth = Auth::Header(HeaderAuth { name: "x-acme-key".into(), prefix: "".into(), slot: "api_key".into() });
//!         JsonObject::edit(&mut http.body, |body| {
//!             body.rename("max_tokens", "max_length");
//!             Ok(())
//!         })
//!     }
//!
//!     fn answer(_: NoSettings, _: &ResponseHead) -> Self {
//!         Acme
//!     }
//! }
//!
//! witgate_sdk::export!(Varied<Acme>);
//!
//! // What the component does can be tested as it is, without one.
//! use witgate_sdk::Adapter;
//! let mut request = Request::chat("openai-chat", "m", vec![Message::text(Role::User, "Hi")]);
//! request.sampling.max_tokens = Some(9);
//! let http = Varied::<Acme>::encode("{}", request)?;
//! assert_eq!(http.body, br#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_length":9}"#);
//! # Ok::<(), Error>(())
//! ```
//!
//! # An adapter of its own
//! A backend that takes a prompt, and answers with a text:
//!
//! ```
//! use witgate_sdk::*;
//!
//! struct Plain;
//!
//! impl Adapter for Plain {
//!     type Decoder = PlainDecoder;
//!
//!     fn describe() -> Description {
//!         Description {
//!             id: "plain".into(),
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             summary: "A prompt for a text.".into(),
//!             operations: vec!["completion".into()],
//!             settings_schema: r#"{"type": "object", "additionalProperties": false}"#.into(),
//!             ..Description::default()
//!         }
//!     }
//!
//!     fn probe(_: &str) -> Result<Option<HttpRequest>, Error> {
//!         Ok(Some(HttpRequest::get(&["health"])))
//!     }
//!
//!     fn encode(_: &str, request: Request) -> Result<HttpRequest, Error> {
//!         let Input::Completion(prompt) = request.input else {
//!             return Err(Error::no_operation("the backend", &request.input));
//!         };
//!         let mut body = JsonObject::default();
//!         body.set("prompt", &prompt.text)?;
//!         Ok(HttpRequest::post_json(&["generate"], body.to_bytes()))
//!     }
//!
//!     fn decoder(_: &str, _: Option<String>, head: ResponseHead) -> PlainDecoder {
//!         PlainDecoder { head, body: Vec::new() }
//!     }
//! }
//!
//! struct PlainDecoder {
//!     head: ResponseHead,
//!     body: Vec<u8>,
//! }
//!
//! impl Decoder for PlainDecoder {
//!     fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
//!         for frame in frames {
//!             if let Frame::Bytes(bytes) = frame {
//!                 self.body.extend(bytes);
//!             }
//!         }
//!         Vec::new()
//!     }
//!
//!     fn finish(&mut self) -> Vec<Event> {
//!         if self.head.status != 200 {
//!             return vec![Event::Failed(error_of_answer(self.head.status, &self.head.headers, &self.body))];
//!         }
//!         match String::from_utf8(std::mem::take(&mut self.body)) {
//!             Ok(text) if !text.is_empty() => vec![
//!                 Event::Started(Started::default()),
//!                 Event::text_start(0, 0),
//!                 Event::text(0, text),
//!                 Event::BlockStop(0),
//!                 Event::finish(0, FinishReason::Stop, None),
//!                 Event::Done,
//!             ],
//!             Ok(_) => vec![Event::Failed(Error::malformed("the backend's answer is empty"))],
//!             Err(_) => vec![Event::Failed(Error::malformed("the backend's answer is not UTF-8"))],
//!         }
//!     }
//! }
//!
//! witgate_sdk::export!(Plain);
//!
//! let events = testing::every_cut::<Plain>(&testing::Answer::new(200, "text/plain", "Hello"));
//! assert_eq!(testing::text(&events), "Hello");
//! ```
//!
//! # Building
//! For the target `wasm32-unknown-unknown`, whose standard library imports nothing, with the linker `wasm-component-ld`
//! that comes with Rust and makes a component of it at once (`.cargo/config.toml`):
//!
//! ```toml
//! [target.wasm32-unknown-unknown]
//! linker = "wasm-component-ld"
//! ```
//!
//! `witgate conformance FILE.wasm` then says whether it keeps the contract.
#![deny(unsafe_code)]

mod export;
mod json;
pub mod policy;
pub mod testing;
mod variation;

pub use json::JsonObject;
pub use variation::{NoSettings, Variation, Varied, VariedDecoder};
pub use witgate_adapters::openai_shape::error_of_answer;
pub use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi};
pub use witgate_model::types::*;
pub use witgate_model::{Adapter, Decoder, Order};

#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[allow(missing_docs, unsafe_code)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/adapter",
        world: "adapter",
        with: { "witgate:adapter/types@0.1.0": witgate_model::types },
        pub_export_macro: true,
        default_bindings_module: "witgate_sdk::bindings",
    });
}

#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[allow(missing_docs, unsafe_code)]
pub mod policy_bindings {
    wit_bindgen::generate!({
        path: ["../wit/adapter", "../wit/policy"],
        world: "witgate:policy/policy",
        with: {
            "witgate:adapter/types@0.1.0": witgate_model::types,
            "witgate:policy/types@0.1.0": witgate_model::policy,
        },
        pub_export_macro: true,
        default_bindings_module: "witgate_sdk::policy_bindings",
    });
}

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use witgate_model::{adapter_shell, policy_shell};
