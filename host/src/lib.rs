//! The host of witgate: it runs the gateway's components in wasmtime, with an HTTP server in front and pooled connections
//! behind. The program `witgate` is this library with a command line; others can embed it.
//!
//! ```
//! use bytes::Bytes;
//! use witgate_config::Config;
//! use witgate_host::{Host, Request};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The built-in stub, which answers without a backend.
//! let host = Host::builder(Config::builtin()).build()?;
//! let answer = host
//!     .handle(Request {
//!         method: "POST".into(),
//!         path: "/v1/chat/completions".into(),
//!         query: String::new(),
//!         headers: vec![("content-type".into(), "application/json".into())],
//!         body: Bytes::from(r#"{"model": "any", "messages": [{"role": "user", "content": "Hello"}]}"#),
//!     })
//!     .await;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```
//!
//! To serve, bind it to its port and run it until something happens:
//!
//! ```
//! # use witgate_config::Config;
//! # use witgate_host::Host;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::builtin();
//! config.server.listen = "127.0.0.1:0".into();
//! let host = Host::builder(config).build()?;
//! let server = host.bind().await?;
//! println!("http://{}", server.local_addr()?);
//! let cut_off = server.serve(async { /* e.g. tokio::signal::ctrl_c().await */ }).await;
//! assert_eq!(cut_off, 0);
//! # Ok(())
//! # }
//! ```

mod builtin;
mod cache;
mod components;
pub mod compose;
pub mod conformance;
mod credentials;
mod documents;
mod embed;
mod engine;
mod host;
mod instances;
pub mod keys;
pub mod llama;
mod log;
mod meter;
mod native;
pub mod new;
mod own_client;
mod own_state;
mod plugin;
mod ports;
mod queues;
mod reload;
mod server;
mod service;
mod shown;
pub mod sources;
pub mod state;
pub mod top;
mod upstream;

pub use cache::default_dir as default_cache_dir;
pub use components::{AdapterComponent, LoadError, NormaliserComponent, PolicyComponent};
pub use engine::{Bounds, Sandbox};
pub use host::{BuildError, Builder, Host, LoadedAdapter, LoadedPolicy};
pub use instances::{AdapterSession, NormaliserSession, PolicySession};
pub use log::write_json as write_json_record;
pub use native::{NativeAdapter, NativePolicy};
pub use own_client::HttpClient;
pub use own_state::StateStore;
pub use plugin::Plugin;
pub use ports::HostPorts;
pub use reload::{Refused, Reloaded};
pub use server::Server;
pub use service::{Service, ServiceBody};
pub use upstream::Body as BackendBody;
pub use witgate_gateway::{
    Body, Fault, Outcome, Record, Request, Response, TransportError, UpstreamRequest, UpstreamResponse, Warning, event,
    is_public,
};
pub use witgate_model as model;
