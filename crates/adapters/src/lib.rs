//! The built-in adapters: each turns a normalised request into one backend's HTTP request, and its answer into events.
//!
//! - [`OpenAi`]: OpenAI, and every server that speaks its API.
//! - [`LlamaCpp`]: llama.cpp's own server.
//! - [`Anthropic`]: Anthropic's Messages API.
//! - [`Ollama`]: Ollama by its native API.
//! - [`Stub`]: answers without any backend.
//!
//! The first two are variations of one shape, [`openai_shape`]; that of the third, [`anthropic_shape`], is carried by
//! Bedrock too. An adapter is pure: it does no IO, reads no clock and no environment, and sees no secret.
//!
//! ```
//! use witgate_adapters::OpenAi;
//! use witgate_model::{Adapter, Message, Request, Role};
//!
//! let request = Request::chat("openai-chat", "gpt-4o-mini", vec![Message::text(Role::User, "Hello")]);
//! let http = OpenAi::encode("{}", request)?;
//! assert_eq!(http.path, ["chat", "completions"]);
//! assert_eq!(http.body, br#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}"#);
//! # Ok::<(), witgate_model::Error>(())
//! ```

mod anthropic;
pub mod anthropic_shape;
pub mod bedrock;
mod image;
mod llama_cpp;
mod names;
pub mod ollama;
mod openai;
pub mod openai_shape;
mod prompt;
mod repeat;
pub mod sagemaker;
mod scan;
mod stub;

pub use anthropic::Anthropic;
pub use llama_cpp::LlamaCpp;
pub use ollama::Ollama;
pub use openai::OpenAi;
pub use stub::Stub;
