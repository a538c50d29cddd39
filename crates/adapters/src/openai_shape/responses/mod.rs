//! OpenAI's Responses API as a backend (`api = "responses"`).
//!
//! # How a conversation maps
//! A first message of the role `system` that is one plain text becomes `instructions`; every other message becomes items
//! of `input`, in its own order: text, pictures, documents and refusals that stand together become one `message` item,
//! and each tool call (`function_call`), tool result (`function_call_output`) and piece of reasoning (`reasoning`) an
//! item of its own. `extra` of a message goes with its first `message` item. A part `other` of a request in the dialect
//! `openai-responses` is an item, or where its `type` is that of content (`input_…`, `output_text`, `refusal`), a piece
//! of the message.
//!
//! - `store` is `false` unless the client says otherwise: the gateway sends whole conversations, and keeps none at the
//!   backend. For models that reason, `include` asks for `reasoning.encrypted_content`, so that their reasoning can be
//!   given back.
//! - Reasoning goes back only with the encrypted content that OpenAI made of it, which stands in `redacted` or
//!   `signature`. Where the client's dialect is another, it is known by its start, `gAAAA`; any other reasoning is refused.
//! - A function that does not say whether it is `strict` is not, as in Chat Completions: Responses would take it to be.
//! - `max_completion_tokens`, or else `max_tokens`, is `max_output_tokens`; `response_format` is `text.format`; asking for
//!   log probabilities adds `message.output_text.logprobs` to `include`.
//! - The API has no `n` above 1, `stop`, `seed`, `logit_bias`, penalties, `top_k` or `min_p`, no sound, no video and no
//!   names of speakers: refused, or left out with `drop_unsupported`. `background` is refused: the answer would have to
//!   be fetched later.
//! - Of a request in `openai-chat`, the members that mean the same here pass (`metadata`, `service_tier`, `store`,
//!   `prompt_cache_key`, `prompt_cache_retention`, `safety_identifier`, `verbosity` as `text.verbosity`), others are
//!   refused.
//!
//! # How an answer maps
//! Each content part of a message is a block, each function call is one, and each reasoning item is one: its summary's
//! parts, and the parts of open models' own reasoning, joined by blank lines; where another part begins, an
//! `other` with its `summary_index` or `content_index` says so, in the scope of the block. `encrypted_content` is the `signature` of
//! a block with text, and else `redacted`. An item of another kind (a call that the backend itself has served, a custom
//! tool's) is told whole, as a block of its own, when it is complete; events about its progress are not told. What an
//! item says of itself beyond that (its `id`) comes as `other` in the scope of its block, and so do annotations. Members
//! of the response that are not known come in the scope of the envelope, once, and again when they have changed.
//!
//! Items are told apart by `output_index`, or where a server does not number them (llama.cpp's), by their ids; what a
//! server leaves out of a stream is taken from the complete item, or from the complete response.
//!
//! There is one choice. It ends with `tool-calls` where the client has a tool to run, with `length` or `content-filter`
//! where the response is incomplete for that reason, else with `stop`. A response that failed or was cancelled is
//! `failed`, as is one that is still at work.

mod decode;
mod encode;

pub(super) use decode::Responses;
pub(super) use encode::encode;
