// Written by `cargo xtask wit` from the interface `types` of witgate:policy@0.1.0. Do not edit: change the WIT and run it again.

//! The values that cross `types`, as Rust types.

use serde::{Deserialize, Serialize};

use crate::types::*;

/// What a policy is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Description {
    /// Letters a-z, digits and hyphens, beginning with a letter, at most 64.
    pub id: String,
    /// The component's version, 1 to 64 characters.
    pub version: String,
    /// What it does, in one sentence for operators.
    pub summary: String,
    /// JSON Schema of `settings`, an object.
    #[cfg_attr(feature = "wasmtime", component(name = "settings-schema"))]
    pub settings_schema: Json,
}

/// What operators find in the log and in the header `x-witgate-tags`: never content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Tag {
    /// Letters a-z, digits, `.`, `_` and `-`, at most 64.
    pub name: String,
    /// Printable ASCII without `,` and `;`, at most 128.
    pub value: String,
}

/// What a policy may know of a request beside its content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Context {
    /// The API that the client speaks, as `openai-chat`.
    pub dialect: String,
    /// The model that the client asked for.
    pub model: String,
    /// Whose request it is, where keys have tenants.
    pub tenant: Option<String>,
    /// What policies before this one tagged it with.
    pub tags: Vec<Tag>,
}

/// What a policy makes of a request that it lets pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Decision {
    /// The request that goes on in the place of this one; `none` leaves it as it is, and costs nothing.
    pub request: Option<Request>,
    /// For the log; at most 16.
    pub tags: Vec<Tag>,
    /// The model that is to serve instead, as a client would name it. The last policy that names one decides.
    pub route: Option<String>,
    /// What the watcher of the answer is made with; `none` where the answer need not be watched, and costs nothing.
    pub watch: Option<String>,
}

/// What a policy makes of some events of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Filtered {
    /// The events that go on. Their order is that of the contract of adapters, as if an adapter had sent them.
    pub events: Vec<Event>,
    /// How many bytes of the text fed so far are held back, the last ones of the running block; at most 65,536. Zero
    /// after a block's end and after the answer's.
    pub held: u32,
}
