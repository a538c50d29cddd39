//! Anthropic's Messages API, as a server: answers, and counts of tokens.
//!
//! How a request is read, where the contract leaves a choice:
//! - `system` is the first message of the conversation, of the role `system`; it has no `extra`. An empty list of blocks is
//!   none at all. A message of the role `system` among the others stays where it stands.
//! - A content string becomes one text part with `extra` none; a block of text, an image or a document always has an
//!   `extra`, `{}` at least, so that an encoder of the same dialect can restore the one form or the other.
//! - Blocks that the contract does not name (those of tools that the backend runs, search results, whatever comes later)
//!   are `Part::Other`, whole; so are tools of a type other than `custom`, tool choices and formats of unknown types. A
//!   source of an unknown type is `MediaSource::Other`.
//! - `max_tokens`, which the API demands, counts thinking too: it is `max_completion_tokens`.
//! - `thinking`: `enabled` and `disabled` are `reasoning.enabled`. Another type, as `adaptive`, stays among its unknown
//!   members. `output_config.effort` is `reasoning.effort`. An empty signature proves nothing: it is none.
//! - `output_config.format`, and its older name `output_format`, is the response format.
//! - Unknown members of an inner object stay under that object's name: `{"source":{"x":1}}` in a part's `extra`;
//!   `metadata`, `tool_choice` and `output_config` in the request's.
//! - `null` for a member that is known and optional means that it was not given, as do a tool's type `custom` and an empty
//!   list of contents of a tool's result. An unknown member keeps its `null`.
//! - The header `anthropic-beta` becomes the member `anthropic_beta`, a list of names, which is Bedrock's form of it. A
//!   backend that does not speak this API refuses it as it does any unknown member.
//! - A count takes what shapes the prompt; every other member stays in `extra`, for the backend to judge.
//!
//! Errors have Anthropic's own shape, and statuses: what OpenAI calls 503 is 529 here, and a spent account is 402. `code`,
//! `param` and `provider` stand beside `type` and `message` where they are known.

mod answer;
mod parse;

use witgate_model::normaliser::{AnswerStart, Client, Failure, Limits, Parsed, Rendered, Step};
use witgate_model::{Error, ErrorKind};

use crate::read::Reader;
use crate::write::Members;
use crate::{Dialect, Render, openai, write};

/// The name of this dialect.
pub(crate) const NAME: &str = "anthropic-messages";

/// The member that holds the names of beta features.
const BETAS: &str = "anthropic_beta";

/// What `render` holds where a count is asked for.
const COUNT: &str = "count";

/// The dialect `anthropic-messages`.
pub(crate) struct AnthropicMessages;

impl Dialect for AnthropicMessages {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens")]
    }

    fn parse(&self, path: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        parse::parse(path, limits, body)
    }

    fn step(&self, client: &Client, limits: &Limits, body: &[u8]) -> Result<Step, Error> {
        let mut parsed = parse::parse(&client.path, limits, body)?;
        let header = |(name, value): &(String, String)| (name == "anthropic-beta").then(|| value.clone());
        let asked: Vec<String> = client.headers.iter().filter_map(header).collect();
        let betas = asked.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty());
        let betas: Vec<String> = betas.map(str::to_owned).collect();
        if !betas.is_empty() {
            parsed.request.extra = Some(with_betas(parsed.request.extra.as_deref().unwrap_or("{}"), betas, limits)?);
        }
        Ok(Step::Ask(parsed))
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        let (status, _) = told(&failure.error);
        let mut rendered = openai::json_answer(status, error_body(failure));
        rendered.headers.push(("request-id".to_owned(), failure.request_id.clone()));
        rendered
    }

    fn renderer(&self, start: AnswerStart) -> Box<dyn Render> {
        Box::new(answer::Answer::new(start))
    }
}

/// The members of `extra`, with the names of `betas` added to those that the client wrote into the body.
fn with_betas(extra: &str, betas: Vec<String>, limits: &Limits) -> Result<String, Error> {
    let mut names = Vec::new();
    let mut members = Members::default();
    let mut reader = Reader::new(extra, limits.depth as usize);
    let read = reader.object(|reader, name| {
        if name.text == BETAS {
            return reader.array(|reader, _| {
                names.push(reader.owned()?);
                Ok(())
            });
        }
        members.push_raw(name.raw, reader.raw()?);
        Ok(())
    });
    read.map_err(|_| Error::invalid(BETAS, "`anthropic_beta`: a list of names of beta features is right"))?;
    names.extend(betas);
    let mut list = Vec::new();
    for (number, name) in names.iter().enumerate() {
        list.push(if number == 0 { b'[' } else { b',' });
        write::string(&mut list, name);
    }
    list.push(b']');
    members.push(BETAS, &String::from_utf8_lossy(&list));
    Ok(members.finish().unwrap_or_default())
}

/// Status and `error.type` of a failure.
fn told(error: &Error) -> (u16, &'static str) {
    match (&error.kind, crate::status(error)) {
        (ErrorKind::Overloaded, _) | (_, 503 | 529) => (529, "overloaded_error"),
        (ErrorKind::QuotaExhausted, _) | (_, 402) => (402, "billing_error"),
        (_, status @ (408 | 504)) => (status, "timeout_error"),
        (_, 401) => (401, "authentication_error"),
        (_, 403) => (403, "permission_error"),
        (_, 404) => (404, "not_found_error"),
        (_, 413) => (413, "request_too_large"),
        (_, 429) => (429, "rate_limit_error"),
        (_, status @ 400..=499) => (status, "invalid_request_error"),
        (_, status) => (status, "api_error"),
    }
}

/// The body of an error, and the data of an event that tells of one.
fn error_body(failure: &Failure) -> Vec<u8> {
    let error = &failure.error;
    let mut out = Vec::with_capacity(192 + error.message.len());
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":\"");
    out.extend_from_slice(told(error).1.as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write::string(&mut out, &error.message);
    for (name, value) in [("code", &error.code), ("param", &error.param), ("provider", &failure.provider)] {
        if let Some(value) = value {
            out.push(b',');
            write::string(&mut out, name);
            out.push(b':');
            write::string(&mut out, value);
        }
    }
    out.extend_from_slice(b"},\"request_id\":");
    write::string(&mut out, &failure.request_id);
    out.push(b'}');
    out
}
