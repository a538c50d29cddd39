//! Meta's Llama: a prompt as one text, and a text that continues it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use witgate_model::{
    CompletionPrompt, DialectJson, Error, Event, EventMessage, Finish, FinishReason, Message, Request, ResponseFormat,
    ResponseHead, Scope, Started, ToolChoice, Usage,
};

use super::super::answer::{Api, Arrived, Head};
use super::super::http::{Encoding, GUARDRAIL, internal};
use super::super::json::Members;
use super::super::model::Family;
use super::super::{Codec, Context};
use super::Counts;
use crate::prompt::{PromptFormat, render};

/// The dialect of what only these answers have.
pub(super) const DIALECT: &str = "bedrock-llama";

const BACKEND: &str = "Bedrock's InvokeModel for Llama";

#[derive(Serialize)]
struct Body<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_gen_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    /// Of the settings.
    #[serde(flatten)]
    fields: Members<'a>,
}

/// A conversation, in the template of Llama 3.
pub(in super::super) fn chat(
    mut encoding: Encoding<'_>,
    request: &Request,
    messages: &[Message],
) -> Result<witgate_model::HttpRequest, Error> {
    if encoding.target.family != Family::Llama3 {
        let message = "the prompt template of this model is not known here, only Llama 3's: set `api = \"converse\"`";
        return Err(Error::unsupported("model", message));
    }
    refuse(&mut encoding, request)?;
    let prompt = render(PromptFormat::Llama3, messages, BACKEND, encoding.omissions.list())?;
    send(encoding, request, &prompt.unwrap_or_default())
}

/// A text to continue, as it is.
pub(in super::super) fn completion(
    mut encoding: Encoding<'_>,
    request: &Request,
    prompt: &CompletionPrompt,
) -> Result<witgate_model::HttpRequest, Error> {
    for (name, asked) in [
        ("suffix", prompt.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty())),
        ("echo", prompt.echo == Some(true)),
        ("best_of", prompt.best_of.is_some_and(|best_of| best_of != 1)),
    ] {
        if asked {
            encoding.refuse(name, format!("{BACKEND} has no `{name}`"))?;
        }
    }
    if prompt.text.is_empty() {
        return Err(Error::invalid("prompt", format!("{BACKEND} wants a prompt that is not empty")));
    }
    refuse(&mut encoding, request)?;
    send(encoding, request, &prompt.text)
}

/// What these models lack.
fn refuse(encoding: &mut Encoding<'_>, request: &Request) -> Result<(), Error> {
    encoding.refuse_sampling(&request.sampling, BACKEND)?;
    let reasoning = request.reasoning.as_ref().is_some_and(|reasoning| {
        reasoning.effort.as_deref().is_some_and(|effort| effort != "none")
            || reasoning.budget_tokens.is_some()
            || reasoning.enabled == Some(true)
            || reasoning.summary.is_some()
    });
    let format = request.response_format.as_ref().is_some_and(|format| *format != ResponseFormat::Text);
    let choice = request.tool_choice.as_ref();
    for (param, asked, what) in [
        ("tools", !request.tools.is_empty(), "takes no tools: Converse does"),
        (
            "tool_choice",
            choice.is_some_and(|choice| !matches!(choice, ToolChoice::Auto | ToolChoice::None)),
            "takes no tools: Converse does",
        ),
        ("stop", !request.sampling.stop.is_empty(), "has no stop sequences: Converse has"),
        ("top_k", request.sampling.top_k.is_some(), "has no `top_k`"),
        ("response_format", format, "can't promise a form of the answer"),
        ("reasoning", reasoning, "can't be told to reason"),
        ("user", request.end_user.is_some(), "has no field for the end user: Converse has"),
    ] {
        if asked {
            encoding.refuse(param, format!("{BACKEND} {what}"))?;
        }
    }
    encoding.refuse_extra(&request.extra, BACKEND)
}

fn send(encoding: Encoding<'_>, request: &Request, prompt: &str) -> Result<witgate_model::HttpRequest, Error> {
    let mut encoding = encoding;
    let sampling = &request.sampling;
    let max_gen_len = sampling.max_completion_tokens.or(sampling.max_tokens);
    if max_gen_len == Some(0) {
        let name = if sampling.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
        return Err(Error::invalid(name, "Bedrock takes at least 1 token"));
    }
    let mut unit = |name: &str, value: Option<f64>| match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            encoding.refuse(name, format!("{BACKEND} takes a {name} from 0 to 1, not {value}"))?;
            Ok(None)
        }
        value => Ok::<_, Error>(value),
    };
    let (temperature, top_p) = (unit("temperature", sampling.temperature)?, unit("top_p", sampling.top_p)?);
    let mut fields = encoding.settings.additional_model_request_fields.clone().unwrap_or_default();
    fields.remove("prompt");
    for (name, given) in
        [("max_gen_len", max_gen_len.is_some()), ("temperature", temperature.is_some()), ("top_p", top_p.is_some())]
    {
        if given {
            fields.remove(name);
        }
    }
    if let Some(config) = encoding.guardrail_config(request.stream) {
        let config = serde_json::from_str::<&RawValue>(config).map_err(internal)?;
        fields.set(Cow::Borrowed(GUARDRAIL), Cow::Borrowed(config));
    }
    let body = Body { prompt, max_gen_len, temperature, top_p, fields };
    let body = serde_json::to_vec(&body).map_err(internal)?;
    encoding.invoke(request.stream, true, body, &Context { codec: Codec::Llama, ..Context::default() })
}

/// Decodes one answer.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    arrived: Arrived,
    counts: Counts,
    started: bool,
    open: bool,
    stop: Option<(FinishReason, Option<String>)>,
    filtered: bool,
    metrics: Option<Usage>,
    input: Option<u64>,
    output: Option<u64>,
}

impl Decoder {
    pub fn new(head: &ResponseHead) -> Self {
        Decoder {
            counts: Counts::new(head),
            arrived: Arrived::new(Head::new(head)),
            started: false,
            open: false,
            stop: None,
            filtered: false,
            metrics: None,
            input: None,
            output: None,
        }
    }

    /// One piece of the answer, or all of it.
    fn answer(&mut self, answer: &Members<'_>, events: &mut Vec<Event>) -> Result<(), Error> {
        if !self.started {
            self.started = true;
            events.push(Event::Started(Started::default()));
        }
        if let Some(text) = answer.string("generation").filter(|text| !text.is_empty()) {
            if self.stop.is_some() {
                return Err(self.arrived.head.malformed("it goes on after its stop_reason"));
            }
            if !self.open {
                self.open = true;
                events.push(Event::text_start(0, 0));
            }
            events.push(Event::text(0, text));
        }
        if let Some(prompt) = answer.number("prompt_token_count").filter(|_| self.input.is_none()) {
            self.input = Some(prompt);
            if !self.arrived.head.whole {
                // Told at once: who leaves in the middle has used it too.
                events.push(Event::Usage(Usage { input_tokens: self.input, ..Usage::default() }));
            }
        }
        self.output = answer.number("generation_token_count").or(self.output);
        self.filtered |= answer.string("amazon-bedrock-guardrailAction").is_some_and(|action| action == "INTERVENED");
        const METRICS: &str = "amazon-bedrock-invocationMetrics";
        if let Some(metrics) = answer.object(METRICS) {
            self.metrics = Some(Usage {
                input_tokens: metrics.number("inputTokenCount"),
                output_tokens: metrics.number("outputTokenCount"),
                cache_read_tokens: metrics.number("cacheReadInputTokenCount"),
                cache_write_tokens: metrics.number("cacheWriteInputTokenCount"),
                raw: answer.get(METRICS).map(|raw| DialectJson::new(DIALECT, raw.get())),
                ..Usage::default()
            });
        }
        if let Some(reason) = answer.string("stop_reason") {
            let mapped = match reason.as_ref() {
                "stop" => FinishReason::Stop,
                "length" => FinishReason::Length,
                other => FinishReason::Other(other.to_owned()),
            };
            self.stop = Some((mapped, Some(reason.into_owned())));
        }
        let rest =
            answer.without(&["generation", "prompt_token_count", "generation_token_count", "stop_reason", METRICS]);
        if !rest.is_empty() {
            events.push(Event::other(DIALECT, Scope::Envelope, rest.to_text()));
        }
        Ok(())
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        self.arrived.ended = true;
        if self.open {
            events.push(Event::BlockStop(0));
        }
        let metrics = self.metrics.take().unwrap_or_default();
        let usage = Usage {
            input_tokens: metrics.input_tokens.or(self.input).or(self.counts.input),
            output_tokens: metrics.output_tokens.or(self.output).or(self.counts.output),
            ..metrics
        };
        if usage != Usage::default() {
            events.push(Event::Usage(usage));
        }
        let (mut reason, raw) = self.stop.take().unwrap_or((FinishReason::Stop, None));
        if self.filtered {
            reason = FinishReason::ContentFilter;
        }
        events.push(Event::Finish(Finish { choice: 0, reason, raw, stop_sequence: None }));
        events.push(Event::Done);
    }
}

impl Api for Decoder {
    fn arrived(&mut self) -> &mut Arrived {
        &mut self.arrived
    }

    fn message(&mut self, message: EventMessage, events: &mut Vec<Event>) -> Result<(), Error> {
        let Some(bytes) = super::chunk(&self.arrived.head, &message)? else { return Ok(()) };
        let answer = Members::parse_bytes(&bytes)
            .map_err(|error| self.arrived.head.malformed(format_args!("the chunk is not a JSON object: {error}")))?;
        self.answer(&answer, events)?;
        // The metrics come with the stop, or behind it.
        if self.stop.is_some() && self.metrics.is_some() {
            self.complete(events);
        }
        Ok(())
    }

    fn whole(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), Error> {
        let answer = Members::parse_bytes(body).ok().filter(|_| self.arrived.head.is_answer());
        let Some(answer) = answer.filter(|answer| answer.string("generation").is_some()) else {
            return Err(self.arrived.head.error_body(body));
        };
        self.answer(&answer, events)?;
        self.complete(events);
        Ok(())
    }

    fn cut_off(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        if self.stop.is_none() {
            return Err(self.arrived.head.malformed("the stream ended before its stop_reason"));
        }
        // Without the metrics, but the model has finished.
        self.complete(events);
        Ok(())
    }

    fn spent(&self) -> Option<Event> {
        self.output.map(|_| Event::Usage(Usage { output_tokens: self.output, ..Usage::default() }))
    }
}
