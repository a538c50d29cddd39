// Written by `cargo xtask wit` from the interface `types` of witgate:normaliser@0.1.0. Do not edit: change the WIT and run it again.

//! The values that cross `types`, as Rust types.

use serde::{Deserialize, Serialize};

use crate::types::*;

/// One route that the normaliser serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Route {
    /// `POST`, ….
    pub method: String,
    /// An exact path, as `/v1/chat/completions`; a segment `{name}` matches any one segment.
    pub path: String,
    /// The dialect that parses and renders it.
    pub dialect: String,
}

/// Bounds on what a client may send.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Limits {
    /// Deepest nesting of arrays and objects.
    pub depth: u32,
    /// Most messages in one request.
    pub messages: u32,
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Parsed {
    /// The normalised request. `model` is as the client wrote it, empty where it named none.
    pub request: Request,
    /// Opaque: given to `renderer` with the answer.
    pub render: String,
}

/// What the gateway knows when the answer starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct AnswerStart {
    /// Opaque, from `parsed`.
    pub render: String,
    /// Unique, `[0-9A-Za-z]+`: becomes part of the answer's id where the backend gave none.
    pub id: String,
    /// Seconds since 1970-01-01 UTC, where the backend gave none.
    pub created: u64,
    /// The model, where the backend gave none.
    pub model: String,
}

/// A failure with what only the gateway knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Failure {
    /// The failure. `status` is what the client shall see.
    pub error: Error,
    /// OpenAI's `error.type`.
    #[cfg_attr(feature = "wasmtime", component(name = "error-type"))]
    pub error_type: String,
    /// The provider that failed, where one did.
    pub provider: Option<String>,
    /// The request's id.
    #[cfg_attr(feature = "wasmtime", component(name = "request-id"))]
    pub request_id: String,
}

/// A whole HTTP answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Rendered {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<Field>,
    /// Body.
    pub body: Vec<u8>,
}
