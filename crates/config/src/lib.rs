//! The configuration of witgate: one file, or the environment variables of an older service, to a [`Config`] in which
//! every default is filled in and every reference is checked.
//!
//! This crate reads no file and no environment by itself: both come in as arguments, so that it serves a program, a
//! component and a test alike. All problems are collected, each with its place, its key and what would be right:
//!
//! ```
//! use witgate_config::Config;
//!
//! let env = |name: &str| (name == "LLAMA_KEY").then(|| "sk-1234".to_owned());
//! let config = Config::from_toml(
//!     r#"
//!     [providers.local]
//!     adapter = "llama-cpp"
//!     endpoint = "${LLAMA_URL:-http://localhost:8081}"
//!     api_key = "${LLAMA_KEY}"
//!     timeouts.first_token = "2m"
//!
//!     [models.fast]
//!     target = "local/tiny"
//!     "#,
//!     "witgate.toml",
//!     &env,
//! )?;
//! let local = &config.providers["local"];
//! assert_eq!(local.endpoints, ["http://localhost:8081"]);
//! assert_eq!(local.timeouts.first_token.as_secs(), 120);
//! assert_eq!(format!("{:?}", local.secrets), r#"{"api_key": [redacted]}"#);
//! assert_eq!(config.resolve("fast")?[0].model.as_deref(), Some("tiny"));
//! assert_eq!(config.resolve("local/large")?[0].model.as_deref(), Some("large"));
//! assert_eq!(config.resolve("fasst").unwrap_err().to_string(), r#"no model "fasst"; did you mean "fast"?"#);
//!
//! let problems = Config::from_toml("[providers.local]\nadapter = \"llama\"\nendpiont = \"x\"", "witgate.toml", &env);
//! assert_eq!(
//!     problems.unwrap_err().to_string(),
//!     r#"witgate.toml:2:11: providers.local.adapter: no adapter "llama"; did you mean "llama-cpp"?
//! witgate.toml:3:1: providers.local: unknown key "endpiont"; did you mean "endpoint"?"#
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The file's text may hold `${NAME}` and `${NAME:-default}` in any string; `$$` is a dollar sign. Durations are
//! written `"15s"`, `"500ms"`, `"2m"`, `"1h"` or as a number of seconds; sizes `"10MiB"`, `"64KiB"` or as a number of
//! bytes. The file at the root of the repository, `witgate.toml`, shows every key.

mod access;
mod aws;
mod component;
mod config;
mod endpoint;
mod env;
mod facades;
mod file;
mod hooks;
mod jobs;
mod names;
mod policy;
mod problem;
mod queues;
mod read;
mod secret;
#[cfg(feature = "schema")]
mod settings;
mod state;
mod units;
mod variables;
mod watch;

pub use access::{Access, Budget, Key, OnFailure, Price, Quota, Terms, Tokens, Unpriced, Webhook, fits, is_name};
pub use component::{ComponentConfig, ComponentSource, Digest, NoDigest, Plugins, Reference, is_loopback};
pub use config::{
    AdapterConfig, AdapterRef, BUILTIN_ADAPTERS, Config, Cors, Dialect, Documents, Limits, Model, Native, Origin,
    Provider, Route, Server, Settings, Target, Timeouts, UnknownModel,
};
pub use endpoint::check_default_endpoint;
pub use hooks::{BUILTIN_POLICIES, PolicyConfig, PolicySource};
pub use jobs::Jobs;
pub use policy::{
    Alarm, AlarmMetric, Cache, CacheWhen, Choice, Concurrency, EndpointOptions, Fallback, Health, Hedge, HedgeAfter,
    Metrics, Retry, Sticky, Strategy,
};
pub use problem::{Problem, Problems};
pub use queues::{Queue, QueueKind, Sqs, Stream};
pub use secret::Secret;
pub use state::{S3, Source, State, Store};
pub use variables::{Variable, variables};
