//! `/llm` of the AWA LLM microservice: one prompt with `max_tokens` and `temperature`, and one completion.
//!
//! The endpoint is that URL itself. A conversation becomes one prompt: the text of a user alone as it is, several
//! messages as `System: …` and `Assistant: …`, the user's bare, in lines. The answer is whole, for a stream too; its text
//! is the first of the members `completion`, `text` and `content` that is a string, else the body as it came.

use serde_json::value::RawValue;
use witgate_model::{Error, Event, FinishReason, HttpRequest, Input, Request, ResponseFormat, Started, ToolChoice};

use super::encode::post;
use super::json::{self, Members, text_of};
use super::policy::Policy;
use super::{Flavour, Settings};
use crate::prompt::{PromptFormat, render};

/// What is asked, in messages.
const BACKEND: &str = "the service's /llm";

/// The dialect of its clients.
const DIALECT: &str = "awa-llm";

/// The HTTP request for `request`.
pub(super) fn encode(settings: &Settings, request: &Request) -> Result<HttpRequest, Error> {
    let mut policy = Policy::new(request.dialect == DIALECT, settings.drop_unsupported);
    let prompt = match &request.input {
        Input::Chat(messages) => {
            let dropped = settings.drop_unsupported.then_some(&mut policy.dropped);
            render(PromptFormat::Base, messages, BACKEND, dropped)?.unwrap_or_default()
        }
        Input::Completion(prompt) => {
            for (param, asked) in [
                ("suffix", prompt.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty())),
                ("echo", prompt.echo == Some(true)),
                ("best_of", prompt.best_of.is_some_and(|best_of| best_of != 1)),
            ] {
                if asked {
                    policy.refuse(param, format!("{BACKEND} has no `{param}`"))?;
                }
            }
            prompt.text.clone()
        }
        other => return Err(Error::no_operation(BACKEND, other)),
    };
    let sampling = &request.sampling;
    let asks = |value: Option<f64>, nothing: f64| value.is_some_and(|value| value != nothing);
    for (param, asked) in [
        ("tools", !request.tools.is_empty()),
        ("tool_choice", !matches!(request.tool_choice, None | Some(ToolChoice::Auto | ToolChoice::None))),
        ("response_format", !matches!(request.response_format, None | Some(ResponseFormat::Text))),
        ("reasoning", request.reasoning.is_some()),
        ("user", request.end_user.is_some()),
        ("top_p", asks(sampling.top_p, 1.0)),
        ("top_k", sampling.top_k.is_some_and(|top_k| top_k > 0)),
        ("min_p", asks(sampling.min_p, 0.0)),
        ("frequency_penalty", asks(sampling.frequency_penalty, 0.0)),
        ("presence_penalty", asks(sampling.presence_penalty, 0.0)),
        ("repetition_penalty", asks(sampling.repetition_penalty, 1.0)),
        ("seed", sampling.seed.is_some()),
        ("stop", !sampling.stop.is_empty()),
        ("n", sampling.n.is_some_and(|n| n != 1)),
        ("logit_bias", sampling.logit_bias.as_deref().is_some_and(|bias| bias.trim() != "{}")),
        ("logprobs", sampling.logprobs == Some(true)),
    ] {
        if asked {
            policy.refuse(param, format!("{BACKEND} takes a prompt, max_tokens and temperature, but no `{param}`"))?;
        }
    }
    let extra = policy.extra(request.extra.as_deref(), &String::new, &[])?;
    let mut body = Vec::with_capacity(prompt.len() + prompt.len() / 16 + 64);
    body.extend_from_slice(b"{\"prompt\":");
    json::string(&mut body, &prompt);
    if let Some(most) = sampling.max_completion_tokens.or(sampling.max_tokens) {
        body.extend_from_slice(format!(",\"max_tokens\":{most}").as_bytes());
    }
    if let Some(temperature) = sampling.temperature {
        if !temperature.is_finite() {
            return Err(Error::invalid("temperature", "must be a finite number"));
        }
        body.extend_from_slice(b",\"temperature\":");
        json::float(&mut body, temperature);
    }
    for (name, value) in extra.0.iter().filter(|(name, _)| !matches!(&**name, "prompt" | "max_tokens" | "temperature"))
    {
        body.push(b',');
        json::string(&mut body, name);
        body.push(b':');
        body.extend_from_slice(value.get().as_bytes());
    }
    body.push(b'}');
    let http = post(Flavour::LlamaCpp, settings, &[], false, body);
    Ok(HttpRequest { path: Vec::new(), context: Some("llm".into()), dropped: policy.dropped, ..http })
}

/// Whether it is JSON that a chat completion cannot be: it has neither `choices` nor an `error`.
pub(super) fn is_loose(text: &str) -> bool {
    let is = |value: &RawValue| value.get() != "null";
    match Members::parse(Some(text)) {
        Ok(members) => !members.0.iter().any(|(name, value)| matches!(&**name, "choices" | "error") && is(value)),
        Err(_) => serde_json::from_str::<&RawValue>(text).is_ok_and(|value| !value.get().starts_with('{')),
    }
}

/// The events of the whole answer: its text is the first of these members that is a string, else the body as it came.
pub(super) fn take(text: &str, names: &[&str], out: &mut Vec<Event>) {
    let said = Members::parse(Some(text)).ok().and_then(|members| {
        let value = |name: &str| members.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let string = |value: &RawValue| text_of(value).map(std::borrow::Cow::into_owned);
        names.iter().find_map(|name| value(name).and_then(string))
    });
    out.extend([
        Event::Started(Started::default()),
        Event::text_start(0, 0),
        Event::text(0, said.unwrap_or_else(|| text.to_owned())),
        Event::BlockStop(0),
        Event::finish(0, FinishReason::Stop, None),
        Event::Done,
    ]);
}
