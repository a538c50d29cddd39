//! A conversation to Bedrock's Chat Completions.

use serde::Serialize;
use witgate_model::{Error, HttpRequest, Message, Part, Request, ResponseFormat, Role, ToolChoice};

use super::super::http::{Encoding, internal};
use super::super::model::Family;
use super::super::settings::Parameter;
use super::super::{Codec, Context};
use super::lift::{CLOSE, OPEN};
use crate::openai_shape::{self, Flavour};

/// The settings of the shape.
#[derive(Serialize)]
struct ShapeSettings<'a> {
    drop_unsupported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_usage: Option<bool>,
}

/// `POST /openai/v1/chat/completions`.
pub(in super::super) fn encode(mut encoding: Encoding<'_>, mut request: Request) -> Result<HttpRequest, Error> {
    request.model.clone_from(&encoding.target.id);
    rejected(&mut encoding, &mut request)?;
    let family = encoding.target.family;
    if matches!(family, Family::GptOss | Family::Gpt)
        && encoding.settings.max_tokens_field.as_deref().is_none_or(|field| field == "auto")
    {
        let sampling = &mut request.sampling;
        sampling.max_completion_tokens = sampling.max_completion_tokens.or(sampling.max_tokens.take());
        sampling.max_tokens = None;
    }
    let mut calls = 0;
    if let witgate_model::Input::Chat(messages) = &mut request.input {
        for message in messages {
            if message.role == Role::Tool {
                message.name = None;
            }
            calls += message.parts.iter().filter(|part| matches!(part, Part::ToolCall(_))).count();
            if family == Family::GptOss {
                tag_reasoning(message);
            }
        }
    }
    let settings = ShapeSettings {
        drop_unsupported: encoding.settings.drop_unsupported,
        max_tokens_field: encoding.settings.max_tokens_field.as_deref(),
        stream_usage: encoding.settings.stream_usage,
    };
    let settings = serde_json::to_string(&settings).map_err(internal)?;
    let mut http = openai_shape::encode(Flavour::Bedrock, &settings, &request)?;
    http.path.splice(0..0, ["openai".to_owned(), "v1".to_owned()]);
    encoding.add_members(&mut http.body, encoding.settings.service_tier.as_deref(), request.stream)?;
    http.headers.extend(encoding.guardrail_headers());
    http.auth = encoding.auth();
    http.context =
        Context { codec: Codec::Openai, inner: http.context.take(), calls, ..Context::default() }.to_text()?;
    for path in std::mem::take(&mut http.dropped) {
        encoding.omissions.note(path);
    }
    http.dropped = encoding.omissions.into_paths();
    Ok(http)
}

/// gpt-oss gets its reasoning back as it gave it: in front of what it said, between tags.
fn tag_reasoning(message: &mut Message) {
    if message.role != Role::Assistant {
        return;
    }
    let mut thought = String::new();
    message.parts.retain(|part| match part {
        Part::Reasoning(part) if part.redacted.is_none() && part.extra.is_none() => {
            thought.push_str(&part.text);
            false
        }
        _ => true,
    });
    if thought.is_empty() {
        return;
    }
    thought = format!("{OPEN}{thought}{CLOSE}");
    match message.parts.first_mut() {
        Some(Part::Text(text)) => text.text.insert_str(0, &thought),
        _ => message.parts.insert(0, Part::text(thought)),
    }
}

/// What models of this family reject, where the settings say nothing.
fn default_rejections(family: Family) -> &'static [Parameter] {
    use Parameter as P;
    match family {
        Family::GptOss => &[P::LogitBias, P::N],
        Family::Gpt => &[P::FrequencyPenalty, P::PresencePenalty, P::Stop, P::Logprobs, P::TopLogprobs, P::N],
        Family::Grok => &[P::FrequencyPenalty, P::PresencePenalty, P::N],
        _ => &[],
    }
}

/// Refuses what the model rejects, or leaves it out.
fn rejected(encoding: &mut Encoding<'_>, request: &mut Request) -> Result<(), Error> {
    use Parameter as P;
    let settings = encoding.settings;
    let family = encoding.target.family;
    let list = settings.unsupported_parameters.as_deref().unwrap_or_else(|| default_rejections(family));
    for parameter in list {
        let sampling = &mut request.sampling;
        // Values that ask for nothing special are left out, and no harm.
        let (name, asked) = match parameter {
            P::FrequencyPenalty => {
                ("frequency_penalty", sampling.frequency_penalty.take().is_some_and(|penalty| penalty != 0.0))
            }
            P::LogitBias => ("logit_bias", sampling.logit_bias.take().is_some_and(|bias| bias.trim() != "{}")),
            P::Logprobs => ("logprobs", sampling.logprobs.take() == Some(true)),
            P::N => ("n", sampling.n.take().is_some_and(|n| n != 1)),
            P::ParallelToolCalls => ("parallel_tool_calls", request.parallel_tool_calls.take() == Some(false)),
            P::PresencePenalty => {
                ("presence_penalty", sampling.presence_penalty.take().is_some_and(|penalty| penalty != 0.0))
            }
            P::ReasoningEffort => ("reasoning_effort", request.reasoning.take().is_some()),
            P::ResponseFormat => {
                ("response_format", request.response_format.take().is_some_and(|format| format != ResponseFormat::Text))
            }
            P::Seed => ("seed", sampling.seed.take().is_some()),
            P::Stop => ("stop", !std::mem::take(&mut sampling.stop).is_empty()),
            P::Temperature => ("temperature", sampling.temperature.take().is_some()),
            P::ToolChoice => {
                ("tool_choice", request.tool_choice.take().is_some_and(|choice| choice != ToolChoice::Auto))
            }
            P::TopK => ("top_k", sampling.top_k.take().is_some()),
            P::TopLogprobs => ("top_logprobs", sampling.top_logprobs.take().is_some_and(|most| most > 0)),
            P::TopP => ("top_p", sampling.top_p.take().is_some()),
            P::User => ("user", request.end_user.take().is_some()),
        };
        if asked {
            let model = &encoding.target.id;
            let message = format!("the model {model} rejects `{name}` on Bedrock's OpenAI-compatible endpoint");
            encoding.refuse(name, message)?;
        }
    }
    Ok(())
}
