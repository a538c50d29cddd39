//! OpenAI's chat completions, as a server.
//!
//! How a request is read, where the contract leaves a choice:
//! - A content string becomes one text part with `extra` none. A part that came from an object always has an `extra`,
//!   `{}` at least, so that an encoder of the same dialect can restore the one form or the other.
//! - Unknown members of an inner object stay under that object's name: `{"image_url":{"x":1}}` in a part's `extra`,
//!   `{"function":{"x":1}}` in a tool's or a tool call's.
//! - `null` for a member that is known and optional means that it was not given. An unknown member keeps its `null`.
//! - `reasoning_content` of an assistant message (llama.cpp, DeepSeek, vLLM) becomes a reasoning part in front of the
//!   content; `reasoning_signature`, which our own answers carry, becomes its signature, and
//!   `reasoning_encrypted_content` a part of its own, with the encrypted form alone. Several pieces of reasoning, each with
//!   its proof, stand in these three as `proofs.rs` says, and come back apart. A `refusal` comes behind the content, tool calls come last.
//! - A tool call of an unknown type, or one whose arguments are not a JSON object, becomes `Part::Other` with the whole
//!   object. A content part of an unknown type does too; in an assistant message a tool call is the one with an `id`.
//! - A response format, or a tool choice, with a member that the contract cannot hold becomes `Other`, whole.
//! - Where `reasoning` was an object, its `extra` is `{}` at least; for `reasoning_effort` alone it is none.

pub(crate) mod parse;

use witgate_model::Error;
use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Step};

use crate::answer::{Answer, Flavour};
use crate::{Dialect, Render, sagemaker_proxy};

/// The name of this dialect.
pub(crate) const NAME: &str = "openai-chat";

/// The dialect `openai-chat`.
pub(crate) struct OpenAiChat;

impl Dialect for OpenAiChat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("POST", "/v1/chat/completions"),
            ("POST", "/chat/completions"),
            ("POST", "/openai/deployments/{model}/chat/completions"),
        ]
    }

    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        parse::parse(path, limits, body)
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        let parsed = self.parse(&client.path, limits, body)?;
        if sagemaker_proxy::is_chosen(&client.settings) {
            return sagemaker_proxy::complete(&client.settings, parsed).map(Step::Ask);
        }
        Ok(Step::Ask(parsed))
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        crate::openai::render_error(failure)
    }

    fn refuse(&self, settings: &str, failure: &Failure) -> Rendered {
        if sagemaker_proxy::is_chosen(settings) {
            return sagemaker_proxy::refuse(settings, failure);
        }
        self.render_error(failure)
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        Box::new(Answer::new(Flavour::Chat, start))
    }
}
