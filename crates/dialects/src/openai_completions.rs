//! OpenAI's text completions, as a server.
//!
//! `prompt` is one string (or an array of exactly one). `logprobs: k` becomes `logprobs: true` and `top_logprobs: k`. Log
//! probabilities of the answer are rendered in this API's own shape, whichever of OpenAI's two the backend used.

use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Step};
use witgate_model::{CompletionPrompt, Error, Input};

use crate::answer::{Answer, Flavour};
use crate::openai::{Common, read_body};
use crate::read::{Kind, Read, Reader};
use crate::{Dialect, Render, sagemaker_proxy};

/// The name of this dialect.
pub(crate) const NAME: &str = "openai-completions";

/// The dialect `openai-completions`.
pub(crate) struct OpenAiCompletions;

impl Dialect for OpenAiCompletions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/v1/completions"), ("POST", "/completions")]
    }

    fn parse(&self, _: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        read_body(body, limits.depth, request)
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
        Box::new(Answer::new(Flavour::Completions, start))
    }
}

fn request(reader: &mut Reader<'_>) -> Read<Parsed> {
    let start = reader.position();
    let mut common = Common::default();
    let mut text = None;
    let mut prompt = CompletionPrompt::default();
    reader.object(|reader, name| {
        match &*name.text {
            "prompt" => text = Some(self::prompt(reader)?),
            "suffix" => prompt.suffix = reader.optional(Reader::owned)?,
            "echo" => prompt.echo = reader.optional(Reader::bool)?,
            "best_of" => prompt.best_of = reader.optional(Reader::u32)?,
            "logprobs" => {
                common.sampling.top_logprobs = reader.optional(Reader::u32)?;
                common.sampling.logprobs = common.sampling.top_logprobs.map(|_| true);
            }
            _ => common.member(reader, name)?,
        }
        Ok(())
    })?;
    match text {
        Some(text) => Ok(common.finish(NAME, Input::Completion(CompletionPrompt { text, ..prompt }))),
        None => reader.fault_in(start, "prompt", "is missing: a completion needs one string to continue"),
    }
}

fn prompt(reader: &mut Reader<'_>) -> Read<String> {
    let start = reader.position();
    match reader.kind() {
        Kind::String => reader.owned(),
        Kind::Array => {
            let mut only = None;
            let mut more = false;
            reader.array(|reader, index| {
                match reader.kind() {
                    Kind::Number | Kind::Array => {
                        return reader.wrong("a string: tokens as a prompt are not supported");
                    }
                    _ if index == 0 => only = Some(reader.owned()?),
                    _ => {
                        more = true;
                        reader.string()?;
                    }
                }
                Ok(())
            })?;
            match only {
                Some(only) if !more => Ok(only),
                Some(_) => reader.fault(start, "must be one string: several prompts in one request are not supported"),
                None => reader.fault(start, "must be a string, found an empty array"),
            }
        }
        _ => reader.wrong("a string"),
    }
}
