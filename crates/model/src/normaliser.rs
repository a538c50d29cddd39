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

/// Where a document is that the gateway keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct DocumentRef {
    /// What it is: `response` is an answer that a client may ask for again, `configuration` what an operator stored.
    ///
    /// `later` is an answer that is given later (`step.later`); `cancelled` is the same, and is cancelled first where
    /// it has not ended. Both are a JSON object: `status` (`queued`, `running`, `done`, `failed`, `cancelled`),
    /// `created` (seconds since 1970), `model`, `render` (of its `parsed`), and when it has ended by itself `http` (a
    /// status) and `answer` (its bytes, as a string).
    pub kind: String,
    /// Its name among those of its kind, at most 512 bytes; of an answer that is given later the `id` of `answer-start`.
    pub key: String,
}

/// A document that the gateway keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Document {
    /// Where it is.
    pub at: DocumentRef,
    /// What it holds; `none` where there is no such document.
    pub content: Option<String>,
}

/// What a dialect may see of a client's request beside its body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Client {
    /// `POST`, ….
    pub method: String,
    /// The path, still percent-encoded.
    pub path: String,
    /// The parameters of the query, decoded, in their order: at most 64, of at most 8 KiB as they came.
    pub query: Vec<Field>,
    /// The headers that carry a dialect's own switches: those whose names begin with `anthropic-` or `openai-`.
    /// Names in lower case.
    pub headers: Vec<Field>,
    /// The operator's settings of this dialect, a JSON object; empty for none.
    pub settings: Json,
    /// What an earlier `parse` of this request needed.
    pub documents: Vec<Document>,
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

/// An answer that is given later than its request ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Later {
    /// The request, to be followed. A later `parse` of the same body says the same.
    pub parsed: Parsed,
    /// Where the client finds the answer, by `GET`, and until then what has become of it; `{id}` is the `id` of
    /// `answer-start`. With `stream=true` in the query the answer is given as events.
    pub path: String,
}

/// What remains to be done when an answer is complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Ending {
    /// The answer is not what the client asked for, and the backend is to be asked this instead, to be followed too:
    /// the bytes that were rendered are thrown away. Never for a streamed answer.
    pub again: Option<Parsed>,
    /// Documents that are to be kept.
    pub keep: Vec<Document>,
}

/// What the gateway knows when the answer starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct AnswerStart {
    /// Opaque, from `parsed`.
    pub render: String,
    /// Unique, `[0-9A-Za-z]+`: becomes part of the answer's id where the backend gave none. Of an answer that is
    /// given later always the same.
    pub id: String,
    /// Seconds since 1970-01-01 UTC, where the backend gave none.
    pub created: u64,
    /// The model, where the backend gave none.
    pub model: String,
}

/// One try that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Attempt {
    /// The provider.
    pub provider: String,
    /// The model that it was asked for.
    pub model: String,
    /// The status of its answer, where there was one.
    pub status: Option<u16>,
    /// Why: the failure's code, or its kind.
    pub reason: String,
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
    /// The status of the backend's own answer, where there was one.
    pub upstream: Option<u16>,
    /// The request's id.
    #[cfg_attr(feature = "wasmtime", component(name = "request-id"))]
    pub request_id: String,
    /// All tries, in their order, where there was more than one.
    pub attempts: Vec<Attempt>,
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

/// An answer that needs no backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Reply {
    /// The answer.
    pub rendered: Rendered,
    /// Documents that are to be thrown away.
    pub forget: Vec<DocumentRef>,
}

/// The events of an answer that is given later, as they come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Tail {
    /// The answer; its kind is `later`.
    pub at: DocumentRef,
    /// How many events are left out.
    pub skip: u64,
    /// Status and headers.
    pub head: Rendered,
}

/// What is to be done with a client's request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A backend is to be asked.
    #[cfg_attr(feature = "wasmtime", component(name = "ask"))]
    Ask(Parsed),
    /// A backend is to be asked, and when the answer is complete, `renderer.end` is to be called.
    #[cfg_attr(feature = "wasmtime", component(name = "follow"))]
    Follow(Parsed),
    /// These documents are needed: `parse` is to be called again with them, once.
    #[cfg_attr(feature = "wasmtime", component(name = "needs"))]
    Needs(Vec<DocumentRef>),
    /// It is answered already.
    #[cfg_attr(feature = "wasmtime", component(name = "answer"))]
    Answer(Reply),
    /// A backend is to be asked after the client was told where it finds the answer.
    #[cfg_attr(feature = "wasmtime", component(name = "later"))]
    Later(Later),
    /// The client is to be given these events, each of which ends with an empty line. When the answer has ended, the
    /// rest is what `parse` says to the path of `later` with `stream=true` and, where there were any, the number of
    /// the last one, counted from 0, as `starting_after`.
    #[cfg_attr(feature = "wasmtime", component(name = "tail"))]
    Tail(Tail),
}
