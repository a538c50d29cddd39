// Written by `cargo xtask wit` from the interface `types` of witgate:adapter@0.1.0. Do not edit: change the WIT and run it again.

//! The values that cross `types`, as Rust types.

use serde::{Deserialize, Serialize};

/// JSON text (RFC 8259), UTF-8. Numbers and member order are kept as they were written.
pub type Json = String;

/// A header or a query parameter: a name and a value.
pub type Field = (String, String);

/// JSON that only one dialect gives a meaning to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct DialectJson {
    /// The dialect, as `anthropic-messages`.
    pub dialect: String,
    /// The whole value.
    pub value: Json,
}

/// Who speaks in a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Instructions of the operator. Adapters for backends with one top-level system prompt join them in order.
    #[cfg_attr(feature = "wasmtime", component(name = "system"))]
    System,
    /// OpenAI's name for instructions above the user's. Treat as `system` where the backend has no such role.
    #[cfg_attr(feature = "wasmtime", component(name = "developer"))]
    Developer,
    /// The end user.
    #[cfg_attr(feature = "wasmtime", component(name = "user"))]
    User,
    /// The model.
    #[cfg_attr(feature = "wasmtime", component(name = "assistant"))]
    Assistant,
    /// Results of tools: the message holds `tool-result` parts.
    #[cfg_attr(feature = "wasmtime", component(name = "tool"))]
    Tool,
    /// A role that only the backend knows, as it was written.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// "The prompt up to and including this part may be cached by the backend."
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct CacheMark {
    /// How long, in the backend's notation (`5m`, `1h`); `none` is the backend's default.
    pub ttl: Option<String>,
}

/// Text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct TextPart {
    /// May be empty.
    pub text: String,
    /// Prompt-cache mark behind this part.
    pub cache: Option<CacheMark>,
    /// Unnamed members of the part's object; `none` where the client wrote the text without an object around it.
    pub extra: Option<Json>,
}

/// What a media part holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum MediaKind {
    /// A picture.
    #[cfg_attr(feature = "wasmtime", component(name = "image"))]
    Image,
    /// Sound.
    #[cfg_attr(feature = "wasmtime", component(name = "audio"))]
    Audio,
    /// Moving pictures.
    #[cfg_attr(feature = "wasmtime", component(name = "video"))]
    Video,
    /// A document: PDF, text, a spreadsheet.
    #[cfg_attr(feature = "wasmtime", component(name = "document"))]
    Document,
    /// Something else, as the client's dialect calls it.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// Where the bytes of a media part are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum MediaSource {
    /// The bytes in standard base64 with padding (RFC 4648 section 4), exactly as the client sent them.
    #[cfg_attr(feature = "wasmtime", component(name = "base64"))]
    Base64(String),
    /// A document that is plain text.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(String),
    /// A URL that the backend fetches. The gateway never fetches it.
    #[cfg_attr(feature = "wasmtime", component(name = "url"))]
    Url(String),
    /// The name of a file that was uploaded to the backend before.
    #[cfg_attr(feature = "wasmtime", component(name = "file-id"))]
    FileId(String),
    /// A source that only the backend knows.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// A picture, a sound, a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct MediaPart {
    /// What it is.
    pub kind: MediaKind,
    /// Media type, as `image/png`; `none` where the client did not say.
    pub mime: Option<String>,
    /// The bytes, or where they are.
    pub source: MediaSource,
    /// File name or title.
    pub name: Option<String>,
    /// How closely to look: OpenAI's `low`, `high`, `auto`.
    pub detail: Option<String>,
    /// Prompt-cache mark behind this part.
    pub cache: Option<CacheMark>,
    /// Unnamed members of the part's object.
    pub extra: Option<Json>,
}

/// What the model thought, given back to it in a later turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ReasoningPart {
    /// The visible text; may be empty.
    pub text: String,
    /// The backend's proof that the text is its own; must be returned unchanged.
    pub signature: Option<String>,
    /// Reasoning that the backend encrypted; opaque.
    pub redacted: Option<String>,
    /// Unnamed members of the part's object.
    pub extra: Option<Json>,
}

/// The model asks for a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ToolCall {
    /// Names the call within the conversation. Adapters map ids that the backend would refuse, and map them back.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, a JSON object as text; `{}` where there are none.
    pub arguments: Json,
    /// Prompt-cache mark behind this part.
    pub cache: Option<CacheMark>,
    /// Unnamed members of the part's object.
    pub extra: Option<Json>,
}

/// One piece of a tool's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum ResultContent {
    /// Text.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(TextPart),
    /// A picture or a document.
    #[cfg_attr(feature = "wasmtime", component(name = "media"))]
    Media(MediaPart),
    /// A piece that only the client's dialect knows.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// What a tool answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ToolResult {
    /// The `tool-call.id` that this answers.
    #[cfg_attr(feature = "wasmtime", component(name = "call-id"))]
    pub call_id: String,
    /// The pieces, in order; may be empty.
    pub content: Vec<ResultContent>,
    /// True where the tool failed; `none` where the dialect cannot say.
    #[cfg_attr(feature = "wasmtime", component(name = "is-error"))]
    pub is_error: Option<bool>,
    /// Prompt-cache mark behind this part.
    pub cache: Option<CacheMark>,
    /// Unnamed members of the part's object.
    pub extra: Option<Json>,
}

/// One piece of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Text.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(TextPart),
    /// A picture, a sound, a document.
    #[cfg_attr(feature = "wasmtime", component(name = "media"))]
    Media(MediaPart),
    /// The model's own reasoning of an earlier turn.
    #[cfg_attr(feature = "wasmtime", component(name = "reasoning"))]
    Reasoning(ReasoningPart),
    /// The model asked for a tool.
    #[cfg_attr(feature = "wasmtime", component(name = "tool-call"))]
    ToolCall(ToolCall),
    /// A tool's answer.
    #[cfg_attr(feature = "wasmtime", component(name = "tool-result"))]
    ToolResult(ToolResult),
    /// The model declined; its words.
    #[cfg_attr(feature = "wasmtime", component(name = "refusal"))]
    Refusal(TextPart),
    /// A part that only the request's dialect knows: the whole object.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// One message of the conversation, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name, where the dialect has one.
    pub name: Option<String>,
    /// The pieces, in order; may be empty.
    pub parts: Vec<Part>,
    /// Unnamed members of the message's object.
    pub extra: Option<Json>,
}

/// Raw text for the model to continue, without a chat template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct CompletionPrompt {
    /// The text; may be empty.
    pub text: String,
    /// Text that follows the gap to fill.
    pub suffix: Option<String>,
    /// Repeat the prompt in front of the answer.
    pub echo: Option<bool>,
    /// Generate this many on the server and return the best `n`.
    #[cfg_attr(feature = "wasmtime", component(name = "best-of"))]
    pub best_of: Option<u32>,
}

/// One text to embed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingText {
    /// As text.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(String),
    /// As numbers of tokens of the model's own vocabulary.
    #[cfg_attr(feature = "wasmtime", component(name = "tokens"))]
    Tokens(Vec<u32>),
}

/// Texts to turn into vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct EmbeddingInput {
    /// The texts, in order, at least one.
    pub texts: Vec<EmbeddingText>,
    /// The client wrote one text without a list around it.
    pub single: bool,
    /// Length of each vector.
    pub dimensions: Option<u32>,
    /// How vectors are to be written: OpenAI's `float` or `base64`. An adapter whose backend knows only one of them
    /// gives that one: the renderer converts.
    pub encoding: Option<String>,
}

/// What the backend is to work on. An adapter refuses (`unsupported`) an operation that its `description` does not
/// list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A conversation. Operation `chat`.
    #[cfg_attr(feature = "wasmtime", component(name = "chat"))]
    Chat(Vec<Message>),
    /// A text to continue. Operation `completion`.
    #[cfg_attr(feature = "wasmtime", component(name = "completion"))]
    Completion(CompletionPrompt),
    /// Texts to turn into vectors. Operation `embedding`. The answer is one `embedding` event for each text.
    #[cfg_attr(feature = "wasmtime", component(name = "embedding"))]
    Embedding(EmbeddingInput),
    /// How many tokens a conversation has, tools included. Operation `count-tokens`. The answer is a `usage` event
    /// with `input-tokens`.
    #[cfg_attr(feature = "wasmtime", component(name = "count-tokens"))]
    CountTokens(Vec<Message>),
    /// Which models there are. Operation `models`; `request.model` is empty. The answer is one `model` event each.
    #[cfg_attr(feature = "wasmtime", component(name = "models"))]
    Models,
    /// An operation that only the request's dialect knows.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(DialectJson),
}

/// A function that the model may ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct FunctionTool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments; `none` means that it takes none.
    pub parameters: Option<Json>,
    /// Arguments must match the schema exactly.
    pub strict: Option<bool>,
    /// Prompt-cache mark behind this tool.
    pub cache: Option<CacheMark>,
    /// Unnamed members of the tool's object.
    pub extra: Option<Json>,
}

/// A tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// A function that the client runs.
    #[cfg_attr(feature = "wasmtime", component(name = "function"))]
    Function(FunctionTool),
    /// A tool that only the request's dialect knows (one that the backend runs itself): the whole object.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// Whether, and which, tools must be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum ToolChoice {
    /// The model decides.
    #[cfg_attr(feature = "wasmtime", component(name = "auto"))]
    Auto,
    /// No tool.
    #[cfg_attr(feature = "wasmtime", component(name = "none"))]
    None,
    /// At least one tool.
    #[cfg_attr(feature = "wasmtime", component(name = "required"))]
    Required,
    /// This one.
    #[cfg_attr(feature = "wasmtime", component(name = "tool"))]
    Tool(String),
    /// A choice that only the request's dialect knows: the whole value.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// A JSON Schema that the answer must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct JsonSchema {
    /// Name of the schema.
    pub name: Option<String>,
    /// What it is for, for the model.
    pub description: Option<String>,
    /// The schema.
    pub schema: Json,
    /// The backend must guarantee the match.
    pub strict: Option<bool>,
}

/// The form of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum ResponseFormat {
    /// Text.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text,
    /// Some JSON object.
    #[cfg_attr(feature = "wasmtime", component(name = "json-object"))]
    JsonObject,
    /// JSON that matches a schema.
    #[cfg_attr(feature = "wasmtime", component(name = "json-schema"))]
    JsonSchema(JsonSchema),
    /// A form that only the request's dialect knows: the whole value.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(Json),
}

/// How tokens are chosen. Unset stays unset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Sampling {
    /// 0 and up; most backends take at most 1 or 2.
    pub temperature: Option<f64>,
    /// Nucleus, 0 to 1.
    #[cfg_attr(feature = "wasmtime", component(name = "top-p"))]
    pub top_p: Option<f64>,
    /// Only the `k` most likely tokens.
    #[cfg_attr(feature = "wasmtime", component(name = "top-k"))]
    pub top_k: Option<i64>,
    /// Only tokens at least this likely, relative to the most likely, 0 to 1.
    #[cfg_attr(feature = "wasmtime", component(name = "min-p"))]
    pub min_p: Option<f64>,
    /// OpenAI's, -2 to 2.
    #[cfg_attr(feature = "wasmtime", component(name = "frequency-penalty"))]
    pub frequency_penalty: Option<f64>,
    /// OpenAI's, -2 to 2.
    #[cfg_attr(feature = "wasmtime", component(name = "presence-penalty"))]
    pub presence_penalty: Option<f64>,
    /// llama.cpp's and vLLM's `repeat_penalty` / `repetition_penalty`; 1 is off.
    #[cfg_attr(feature = "wasmtime", component(name = "repetition-penalty"))]
    pub repetition_penalty: Option<f64>,
    /// For a repeatable answer.
    pub seed: Option<i64>,
    /// Generation ends in front of any of these; empty where none was given.
    pub stop: Vec<String>,
    /// How many answers ("choices") to make, from 1.
    pub n: Option<u32>,
    /// Token id to bias, -100 to 100, a JSON object.
    #[cfg_attr(feature = "wasmtime", component(name = "logit-bias"))]
    pub logit_bias: Option<Json>,
    /// Return the log probability of each token.
    pub logprobs: Option<bool>,
    /// How many alternatives per token, 0 to 20.
    #[cfg_attr(feature = "wasmtime", component(name = "top-logprobs"))]
    pub top_logprobs: Option<u32>,
    /// The most tokens of visible answer; OpenAI's `max_tokens`.
    #[cfg_attr(feature = "wasmtime", component(name = "max-tokens"))]
    pub max_tokens: Option<u64>,
    /// The most tokens in all, reasoning included; OpenAI's `max_completion_tokens`. A backend with one bound
    /// gets this one where both are set.
    #[cfg_attr(feature = "wasmtime", component(name = "max-completion-tokens"))]
    pub max_completion_tokens: Option<u64>,
}

/// How much the model thinks before it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Reasoning {
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh`: OpenAI's words.
    pub effort: Option<String>,
    /// The most tokens to think.
    #[cfg_attr(feature = "wasmtime", component(name = "budget-tokens"))]
    pub budget_tokens: Option<u64>,
    /// Switches thinking on or off where the backend can.
    pub enabled: Option<bool>,
    /// Return a summary: `auto`, `concise`, `detailed`.
    pub summary: Option<String>,
    /// Unnamed members.
    pub extra: Option<Json>,
}

/// One normalised request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Request {
    /// The model, by the backend's own name for it.
    pub model: String,
    /// The client's dialect, as `openai-chat`: says what `extra` and `other` mean.
    pub dialect: String,
    /// The conversation, or the text to continue.
    pub input: Input,
    /// Tools on offer, in order.
    pub tools: Vec<Tool>,
    /// Whether, and which, tools must be used.
    #[cfg_attr(feature = "wasmtime", component(name = "tool-choice"))]
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come in one turn.
    #[cfg_attr(feature = "wasmtime", component(name = "parallel-tool-calls"))]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    #[cfg_attr(feature = "wasmtime", component(name = "response-format"))]
    pub response_format: Option<ResponseFormat>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// How much to think.
    pub reasoning: Option<Reasoning>,
    /// The answer is wanted in pieces, as they come.
    pub stream: bool,
    /// A stable name of the end user, for the backend's abuse detection.
    #[cfg_attr(feature = "wasmtime", component(name = "end-user"))]
    pub end_user: Option<String>,
    /// Unnamed top-level members.
    pub extra: Option<Json>,
}

/// A header whose value is `prefix` followed by a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct HeaderAuth {
    /// Header name, as `authorization`.
    pub name: String,
    /// In front of the secret, as `Bearer ` with its blank.
    pub prefix: String,
    /// The secret slot, one of the adapter's own `description.secrets`.
    pub slot: String,
}

/// AWS Signature Version 4 over the final bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct AwsSigv4Auth {
    /// The signing name, as `bedrock`.
    pub service: String,
    /// Whose credentials: the secrets `<slot>_access_key_id`, `<slot>_secret_access_key` and, where they are
    /// temporary, `<slot>_session_token`; without them those that the gateway itself runs with.
    pub slot: String,
    /// The region to sign for; `none` is the one of the provider's settings.
    pub region: Option<String>,
}

/// How the gateway authenticates the request. The adapter names a slot; it never sees the secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Not at all.
    #[cfg_attr(feature = "wasmtime", component(name = "none"))]
    None,
    /// By a header. Where the slot is optional and empty, the header is left out.
    #[cfg_attr(feature = "wasmtime", component(name = "header"))]
    Header(HeaderAuth),
    /// By AWS Signature Version 4.
    #[cfg_attr(feature = "wasmtime", component(name = "aws-sigv4"))]
    AwsSigv4(AwsSigv4Auth),
    /// A way that this gateway may know by name; refused where it does not.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// How the gateway cuts the answer into frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// One frame `bytes` with the whole body.
    #[cfg_attr(feature = "wasmtime", component(name = "whole"))]
    Whole,
    /// Server-sent events (WHATWG HTML section 9.2): one frame `sse` per dispatched event. Comments are dropped.
    #[cfg_attr(feature = "wasmtime", component(name = "sse"))]
    Sse,
    /// One frame `line` per line that is not blank, without its line end.
    #[cfg_attr(feature = "wasmtime", component(name = "ndjson"))]
    Ndjson,
    /// One frame `message` per message of `application/vnd.amazon.eventstream`; checksums are verified before.
    #[cfg_attr(feature = "wasmtime", component(name = "aws-eventstream"))]
    AwsEventstream,
    /// One frame `bytes` per piece that the network delivered, cut anywhere.
    #[cfg_attr(feature = "wasmtime", component(name = "raw"))]
    Raw,
    /// A framing that this gateway may know by name; refused where it does not.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// The HTTP request that asks the backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct HttpRequest {
    /// `POST`, `GET`, ….
    pub method: String,
    /// Path segments behind the configured endpoint, *decoded*: the gateway percent-encodes each one (so a `/`
    /// in a model id stays inside its segment) and refuses empty segments, `.` and `..`. An adapter cannot
    /// choose a host, and cannot leave the endpoint's path.
    pub path: Vec<String>,
    /// Query parameters, decoded; the gateway encodes them.
    pub query: Vec<Field>,
    /// Headers, names in lower case. `host`, `content-length`, `connection`, `transfer-encoding`, `authorization`
    /// and every other header of authentication are the gateway's: naming one is a contract violation.
    pub headers: Vec<Field>,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// How to authenticate.
    pub auth: Auth,
    /// How to cut a success answer. Error answers, and answers whose content type denies this framing, are cut
    /// `whole`: `response-head.framing` says what was done.
    pub framing: Framing,
    /// Handed to the decoder of this request's answer, unseen by the gateway: what it needs to map names and ids
    /// back. At most 64 KiB.
    pub context: Option<String>,
    /// What the backend cannot do and was left out because the setting `drop_unsupported` says so: JSON paths in
    /// the client's terms. The gateway tells the client. At most 64.
    pub dropped: Vec<String>,
}

/// The start of the backend's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ResponseHead {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<Field>,
    /// How the body will be cut; see `http-request.framing`.
    pub framing: Framing,
    /// What `request.stream` was.
    pub stream: bool,
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct SseEvent {
    /// The `event:` field.
    pub event: Option<String>,
    /// The `data:` lines, joined by line feeds. Invalid UTF-8 became U+FFFD, as the standard says.
    pub data: String,
    /// The `id:` field.
    pub id: Option<String>,
}

/// One message of an AWS event stream, its checksums verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct EventMessage {
    /// Headers, names without change (`:message-type`, `:event-type`, `:exception-type`, …). Values that are not
    /// strings are written as text: numbers in decimal, timestamps in milliseconds, bytes in base64.
    pub headers: Vec<Field>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// One piece of the answer, cut as `response-head.framing` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// For `whole` and `raw`.
    #[cfg_attr(feature = "wasmtime", component(name = "bytes"))]
    Bytes(Vec<u8>),
    /// For `sse`.
    #[cfg_attr(feature = "wasmtime", component(name = "sse"))]
    Sse(SseEvent),
    /// For `ndjson`.
    #[cfg_attr(feature = "wasmtime", component(name = "line"))]
    Line(String),
    /// For `aws-eventstream`.
    #[cfg_attr(feature = "wasmtime", component(name = "message"))]
    Message(EventMessage),
}

/// The answer has begun. Comes once, first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Started {
    /// The backend's id of the answer.
    pub id: Option<String>,
    /// The model that answers, as the backend names it.
    pub model: Option<String>,
    /// When, in seconds since 1970-01-01 UTC.
    pub created: Option<u64>,
}

/// The fixed part of a tool call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ToolCallStart {
    /// Names the call; unique within the conversation.
    pub id: String,
    /// The tool's name, as the client gave it.
    pub name: String,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// Text for the user.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text,
    /// The model's reasoning.
    #[cfg_attr(feature = "wasmtime", component(name = "reasoning"))]
    Reasoning,
    /// A tool call; its arguments follow as `arguments`. None at all means `{}`.
    #[cfg_attr(feature = "wasmtime", component(name = "tool-call"))]
    ToolCall(ToolCallStart),
    /// The model's words of refusal.
    #[cfg_attr(feature = "wasmtime", component(name = "refusal"))]
    Refusal,
    /// A block that only the backend's dialect knows: the whole object.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(DialectJson),
}

/// A block begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct BlockStart {
    /// From 0, dense, in order of their starts, over all choices.
    pub index: u32,
    /// The choice that the block belongs to, from 0.
    pub choice: u32,
    /// What it holds.
    pub kind: BlockKind,
}

/// More text of an open block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct BlockDelta {
    /// `block-start.index`.
    pub index: u32,
    /// At least one character, unless `logprobs` is there.
    pub text: String,
    /// For text blocks: log probabilities of the tokens of this piece, in the shape of OpenAI's
    /// `choices[].logprobs` object.
    pub logprobs: Option<Json>,
}

/// What the answer cost. Later `usage` events replace earlier ones field by field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Usage {
    /// Tokens of the prompt, cache reads and writes included.
    #[cfg_attr(feature = "wasmtime", component(name = "input-tokens"))]
    pub input_tokens: Option<u64>,
    /// Tokens generated, reasoning included.
    #[cfg_attr(feature = "wasmtime", component(name = "output-tokens"))]
    pub output_tokens: Option<u64>,
    /// Of the input: read from the backend's prompt cache.
    #[cfg_attr(feature = "wasmtime", component(name = "cache-read-tokens"))]
    pub cache_read_tokens: Option<u64>,
    /// Of the input: written to the backend's prompt cache.
    #[cfg_attr(feature = "wasmtime", component(name = "cache-write-tokens"))]
    pub cache_write_tokens: Option<u64>,
    /// Of the output: spent on reasoning.
    #[cfg_attr(feature = "wasmtime", component(name = "reasoning-tokens"))]
    pub reasoning_tokens: Option<u64>,
    /// True where the backend gave no counts and these are a guess.
    pub estimated: bool,
    /// The backend's own usage object.
    pub raw: Option<DialectJson>,
}

/// A vector, as the backend wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Vector {
    /// A JSON array of numbers, or where the backend makes one vector for each token, an array of such arrays.
    #[cfg_attr(feature = "wasmtime", component(name = "numbers"))]
    Numbers(Json),
    /// 32-bit floats, little-endian, in base64.
    #[cfg_attr(feature = "wasmtime", component(name = "base64"))]
    Base64(String),
}

/// One text as a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Embedding {
    /// Which of `embedding-input.texts`, from 0.
    pub index: u32,
    /// The vector.
    pub values: Vector,
}

/// A model that the backend has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct ModelEntry {
    /// What `request.model` must be to get it.
    pub id: String,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub created: Option<u64>,
    /// Who made it, or who serves it.
    #[cfg_attr(feature = "wasmtime", component(name = "owned-by"))]
    pub owned_by: Option<String>,
    /// What else the backend tells of it: the whole object.
    pub raw: Option<DialectJson>,
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// The model was done, or a stop sequence was met.
    #[cfg_attr(feature = "wasmtime", component(name = "stop"))]
    Stop,
    /// A token limit was met.
    #[cfg_attr(feature = "wasmtime", component(name = "length"))]
    Length,
    /// The model wants tools.
    #[cfg_attr(feature = "wasmtime", component(name = "tool-calls"))]
    ToolCalls,
    /// The backend's filter stepped in.
    #[cfg_attr(feature = "wasmtime", component(name = "content-filter"))]
    ContentFilter,
    /// A reason without a counterpart; clients are told `stop`, the raw text stays visible.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// A choice has ended: comes once per choice, when all its blocks have stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Finish {
    /// From 0.
    pub choice: u32,
    /// Why.
    pub reason: FinishReason,
    /// The backend's own word.
    pub raw: Option<String>,
    /// The stop sequence that was met, where the backend tells.
    #[cfg_attr(feature = "wasmtime", component(name = "stop-sequence"))]
    pub stop_sequence: Option<String>,
}

/// Where unknown members of the backend's answer stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Beside `id` and `choices`.
    #[cfg_attr(feature = "wasmtime", component(name = "envelope"))]
    Envelope,
    /// In the choice of this number.
    #[cfg_attr(feature = "wasmtime", component(name = "choice"))]
    Choice(u32),
    /// In the message (or delta) of the choice of this number.
    #[cfg_attr(feature = "wasmtime", component(name = "message"))]
    Message(u32),
    /// In the block of this index, which is open: its citations, its id.
    #[cfg_attr(feature = "wasmtime", component(name = "block"))]
    Block(u32),
}

/// Members of the backend's answer that the contract does not name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct OtherEvent {
    /// The backend's dialect, as `openai-chat`.
    pub dialect: String,
    /// Where they stood.
    pub scope: Scope,
    /// A JSON object with those members.
    pub members: Json,
}

/// What went wrong, in the terms on which the gateway acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request is wrong: 400.
    #[cfg_attr(feature = "wasmtime", component(name = "invalid-request"))]
    InvalidRequest,
    /// The backend does not accept our credentials.
    #[cfg_attr(feature = "wasmtime", component(name = "unauthenticated"))]
    Unauthenticated,
    /// The backend forbids this.
    #[cfg_attr(feature = "wasmtime", component(name = "forbidden"))]
    Forbidden,
    /// No such model or endpoint: 404.
    #[cfg_attr(feature = "wasmtime", component(name = "not-found"))]
    NotFound,
    /// Too many requests for now.
    #[cfg_attr(feature = "wasmtime", component(name = "rate-limited"))]
    RateLimited,
    /// The account is spent: waiting does not help.
    #[cfg_attr(feature = "wasmtime", component(name = "quota-exhausted"))]
    QuotaExhausted,
    /// The prompt does not fit the model's context.
    #[cfg_attr(feature = "wasmtime", component(name = "context-length"))]
    ContextLength,
    /// The backend's filter refused.
    #[cfg_attr(feature = "wasmtime", component(name = "content-filtered"))]
    ContentFiltered,
    /// The request is larger than the backend takes: 413.
    #[cfg_attr(feature = "wasmtime", component(name = "too-large"))]
    TooLarge,
    /// The backend gave up waiting.
    #[cfg_attr(feature = "wasmtime", component(name = "timeout"))]
    Timeout,
    /// The backend has no room, or still loads the model.
    #[cfg_attr(feature = "wasmtime", component(name = "overloaded"))]
    Overloaded,
    /// The backend failed.
    #[cfg_attr(feature = "wasmtime", component(name = "upstream-failure"))]
    UpstreamFailure,
    /// The backend's answer is not what its API promises, or ended early.
    #[cfg_attr(feature = "wasmtime", component(name = "malformed-response"))]
    MalformedResponse,
    /// The backend cannot do what was asked; `param` names the field.
    #[cfg_attr(feature = "wasmtime", component(name = "unsupported"))]
    Unsupported,
    /// Something else.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(String),
}

/// Advice about trying again. The gateway decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// It would fail again.
    #[cfg_attr(feature = "wasmtime", component(name = "never"))]
    Never,
    /// The same target may serve it, after this many milliseconds where the backend said how long.
    #[cfg_attr(feature = "wasmtime", component(name = "same-target"))]
    SameTarget(Option<u64>),
    /// Another target may serve it; this one will not.
    #[cfg_attr(feature = "wasmtime", component(name = "other-target"))]
    OtherTarget,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// For people: what, where, and what would be right. The backend's own words where it gave some.
    pub message: String,
    /// The backend's code, as `context_length_exceeded` or `ThrottlingException`.
    pub code: Option<String>,
    /// The field at fault, as a JSON path in the client's terms (`messages[2].content`).
    pub param: Option<String>,
    /// The backend's HTTP status, or the one that its documents give to this failure.
    pub status: Option<u16>,
    /// Whether to try again.
    pub retry: Retry,
    /// The backend's error object.
    pub raw: Option<Json>,
}

/// One step of the answer. A valid answer is: `started`, then blocks (`block-start`, deltas, `block-stop`;
/// several may be open), `usage` and `other` anywhere, one `finish` per choice, and last `done` or `failed`. An answer that
/// fails at once may be `failed` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(variant))]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The answer has begun.
    #[cfg_attr(feature = "wasmtime", component(name = "started"))]
    Started(Started),
    /// A block begins.
    #[cfg_attr(feature = "wasmtime", component(name = "block-start"))]
    BlockStart(BlockStart),
    /// More text of a `text` or `refusal` block.
    #[cfg_attr(feature = "wasmtime", component(name = "text"))]
    Text(BlockDelta),
    /// More text of a `reasoning` block.
    #[cfg_attr(feature = "wasmtime", component(name = "reasoning"))]
    Reasoning(BlockDelta),
    /// A piece of the signature over a `reasoning` block's text; pieces add up.
    #[cfg_attr(feature = "wasmtime", component(name = "signature"))]
    Signature(BlockDelta),
    /// A piece of a `reasoning` block that the backend encrypted; pieces add up. Such a block has no text.
    #[cfg_attr(feature = "wasmtime", component(name = "redacted"))]
    Redacted(BlockDelta),
    /// A further piece of a tool call's arguments, or of what an `other` block takes in: JSON text, cut anywhere.
    #[cfg_attr(feature = "wasmtime", component(name = "arguments"))]
    Arguments(BlockDelta),
    /// The block of this index has ended.
    #[cfg_attr(feature = "wasmtime", component(name = "block-stop"))]
    BlockStop(u32),
    /// What it cost so far.
    #[cfg_attr(feature = "wasmtime", component(name = "usage"))]
    Usage(Usage),
    /// A choice has ended.
    #[cfg_attr(feature = "wasmtime", component(name = "finish"))]
    Finish(Finish),
    /// One text as a vector. Such an answer is `started`, these, `usage`, `done`.
    #[cfg_attr(feature = "wasmtime", component(name = "embedding"))]
    Embedding(Embedding),
    /// One model that the backend has. Such an answer is `started`, these, `done`.
    #[cfg_attr(feature = "wasmtime", component(name = "model"))]
    Model(ModelEntry),
    /// Members that the contract does not name.
    #[cfg_attr(feature = "wasmtime", component(name = "other"))]
    Other(OtherEvent),
    /// The answer is complete. Nothing follows.
    #[cfg_attr(feature = "wasmtime", component(name = "done"))]
    Done,
    /// The answer has failed. Nothing follows.
    #[cfg_attr(feature = "wasmtime", component(name = "failed"))]
    Failed(Error),
}

/// A secret that the adapter may name in `auth`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct SecretSlot {
    /// Name, as `api_key`: the key in the provider's configuration.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The gateway refuses to start without it.
    pub required: bool,
}

/// What an adapter is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "wasmtime", derive(wasmtime::component::ComponentType, wasmtime::component::Lift, wasmtime::component::Lower), component(record))]
pub struct Description {
    /// `[a-z][a-z0-9-]*`, at most 64 characters; the name that configurations use.
    pub id: String,
    /// Semantic version of the adapter.
    pub version: String,
    /// One sentence for people.
    pub summary: String,
    /// What it can do: `chat`, `completion`, `embedding`, `count-tokens`, `models`.
    pub operations: Vec<String>,
    /// What it can take beyond text: `tools`, `images`, `audio`, `documents`, `json-schema`, `reasoning`,
    /// `logprobs`, `n`, `prompt-cache`, ….
    pub capabilities: Vec<String>,
    /// Dialects whose `extra` and `other` it passes on, as `openai-chat`.
    pub dialects: Vec<String>,
    /// The secrets that it may name.
    pub secrets: Vec<SecretSlot>,
    /// JSON Schema (2020-12) of the provider's `settings`; the configuration is checked by it.
    #[cfg_attr(feature = "wasmtime", component(name = "settings-schema"))]
    pub settings_schema: Json,
    /// Base URL where the configuration names none; `{name}` stands for the setting of that name. `{region}` is the
    /// region that a request is signed for, `{dns_suffix}` that region's domain, as `amazonaws.com`.
    #[cfg_attr(feature = "wasmtime", component(name = "default-endpoint"))]
    pub default_endpoint: Option<String>,
}
