//! A normalised request to InvokeEndpoint. The rules are in the module's page.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use witgate_model::{
    Auth, AwsSigv4Auth, CompletionPrompt, Error, ErrorKind, Framing, HttpRequest, Input, Part, Reasoning, Request,
    ResponseFormat, Retry, ToolChoice,
};

use super::settings::{Codec, Settings};
use super::{BACKEND, Context, Shape, TGI, Words};
use crate::openai_shape::{self, Flavour, write_json_string};
use crate::prompt::render;

/// Largest body that InvokeEndpoint takes, in bytes.
const LARGEST_BODY: usize = 6_291_456;

/// Most stop sequences, and most bytes of all of them: they travel to the decoder.
const STOPS: (usize, usize) = (64, 8192);

/// The most entries of `HttpRequest.dropped`.
const MOST_DROPPED: usize = 64;

pub(super) fn encode(settings_text: &str, mut request: Request) -> Result<HttpRequest, Error> {
    let settings = Settings::parse(settings_text)?;
    match request.input {
        Input::Chat(_) | Input::Completion(_) => {}
        Input::Embedding(_) if settings.codec == Codec::Vllm => {}
        _ => return Err(Error::no_operation(BACKEND, &request.input)),
    }
    let endpoint = endpoint(&settings, &request.model)?;
    let words = words(&request.input);
    let mut refusals = Refusals { drop: settings.drop_unsupported, dropped: Vec::new() };
    let mut text = None;
    if let Input::Chat(messages) = &request.input {
        let dropped = settings.drop_unsupported.then_some(&mut refusals.dropped);
        text = render(settings.prompt_format(), messages, BACKEND, dropped)?;
    }
    let generates = settings.codec != Codec::Vllm && matches!(request.input, Input::Completion(_));
    if text.is_some() || generates {
        refusals.beyond_text(&mut request)?;
    }
    if let Some(text) = text {
        request.input = Input::Completion(CompletionPrompt { text, ..CompletionPrompt::default() });
    }
    let (body, context) = match &request.input {
        Input::Completion(prompt) if settings.codec != Codec::Vllm => {
            generate(&settings, &request, prompt, words, &mut refusals)?
        }
        _ => {
            if let Some(model) = &settings.served_model {
                request.model.clone_from(model);
            }
            let http = openai_shape::encode(Flavour::SageMaker, settings_text, &request)?;
            refusals.dropped.extend(http.dropped);
            (http.body, Context { shape: Some(Shape { context: http.context }), words, ..Context::default() })
        }
    };
    if body.len() > LARGEST_BODY {
        let message = format!(
            "the request has {} bytes as SageMaker gets it, which takes at most {LARGEST_BODY} bytes",
            body.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, message).with_status(413).with_retry(Retry::OtherTarget));
    }
    let (operation, accept, framing) = match request.stream {
        true => ("invocations-response-stream", "application/vnd.amazon.eventstream", Framing::AwsEventstream),
        false => ("invocations", "application/json", Framing::Whole),
    };
    let mut headers =
        vec![("content-type".to_owned(), "application/json".to_owned()), ("accept".to_owned(), accept.to_owned())];
    for (name, value) in [
        ("x-amzn-sagemaker-inference-component", settings.inference_component),
        ("x-amzn-sagemaker-target-variant", settings.target_variant),
        ("x-amzn-sagemaker-custom-attributes", settings.custom_attributes),
    ] {
        headers.extend(value.map(|value| (name.to_owned(), value)));
    }
    refusals.dropped.truncate(MOST_DROPPED);
    Ok(HttpRequest {
        method: "POST".to_owned(),
        path: vec!["endpoints".to_owned(), endpoint, operation.to_owned()],
        query: Vec::new(),
        headers,
        body,
        auth: Auth::AwsSigv4(AwsSigv4Auth { service: "sagemaker".to_owned(), slot: "aws".to_owned(), region: None }),
        framing,
        context: Some(json(&context)?),
        dropped: refusals.dropped,
    })
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| {
        Error::new(ErrorKind::Other("internal".to_owned()), format!("the context could not be written: {error}"))
    })
}

/// The endpoint's name.
fn endpoint(settings: &Settings, model: &str) -> Result<String, Error> {
    if let Some(name) = &settings.endpoint_name {
        return Ok(name.clone());
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=63).contains(&model.len()) && model.bytes().all(known);
    if !fits || model.starts_with('-') || model.ends_with('-') {
        let message = "without the setting `endpoint_name` the model is the name of a SageMaker endpoint: 1 to 63 \
                       letters, digits and inner hyphens";
        return Err(Error::invalid("model", message));
    }
    Ok(model.to_owned())
}

/// Words of the prompt.
fn words(input: &Input) -> u64 {
    let count = |text: &str| {
        let mut words = Words::default();
        words.add(text);
        words.count
    };
    match input {
        Input::Chat(messages) => {
            let parts = messages.iter().flat_map(|message| &message.parts);
            parts
                .map(|part| if let Part::Text(text) | Part::Refusal(text) = part { count(&text.text) } else { 0 })
                .sum()
        }
        Input::Completion(prompt) => count(&prompt.text),
        _ => 0,
    }
}

/// What cannot be done: an error, or left out and noted.
struct Refusals {
    drop: bool,
    dropped: Vec<String>,
}

impl Refusals {
    fn refuse(&mut self, param: &str, message: impl Into<String>) -> Result<(), Error> {
        if !self.drop {
            return Err(Error::unsupported(param, message));
        }
        if self.dropped.len() < MOST_DROPPED {
            self.dropped.push(param.to_owned());
        }
        Ok(())
    }

    /// What a text has no place for.
    fn beyond_text(&mut self, request: &mut Request) -> Result<(), Error> {
        let forced = !matches!(request.tool_choice, None | Some(ToolChoice::Auto | ToolChoice::None));
        let idle = |reasoning: &Reasoning| {
            let asks = reasoning.budget_tokens.is_some() || reasoning.summary.is_some() || reasoning.extra.is_some();
            !asks
                && reasoning.enabled != Some(true)
                && reasoning.effort.as_deref().is_none_or(|effort| effort == "none")
        };
        for (present, param, what) in [
            (!request.tools.is_empty(), "tools", "tools"),
            (forced, "tool_choice", "a choice among tools"),
            (
                !matches!(request.response_format, None | Some(ResponseFormat::Text)),
                "response_format",
                "a form of the answer",
            ),
            (!request.reasoning.as_ref().is_none_or(idle), "reasoning", "options of reasoning"),
            (request.sampling.logprobs == Some(true), "logprobs", "log probabilities"),
            (request.sampling.top_logprobs.is_some_and(|count| count > 0), "top_logprobs", "log probabilities"),
        ] {
            if present {
                let message = format!("this model of {BACKEND} continues one text, which has no place for {what}");
                self.refuse(param, message)?;
            }
        }
        request.tools.clear();
        request.tool_choice = None;
        request.parallel_tool_calls = None;
        request.response_format = None;
        request.reasoning = None;
        request.sampling.logprobs = None;
        request.sampling.top_logprobs = None;
        Ok(())
    }
}

/// `parameters`, while they are being written.
#[derive(Default)]
struct Parameters<'a> {
    out: Vec<u8>,
    /// Names that are written, or decided to be left out.
    decided: Vec<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    fn set(&mut self, name: &'a str, value: impl Serialize) -> Result<(), Error> {
        self.add(Cow::Borrowed(name), value)
    }

    /// Writes the member, unless one of its name is decided.
    fn add(&mut self, name: Cow<'a, str>, value: impl Serialize) -> Result<(), Error> {
        if self.decided.contains(&name) {
            return Ok(());
        }
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        write_json_string(&mut self.out, &name);
        self.out.push(b':');
        serde_json::to_writer(&mut self.out, &value).map_err(|error| {
            Error::new(ErrorKind::Other("internal".to_owned()), format!("`{name}` could not be written: {error}"))
        })?;
        self.decided.push(name);
        Ok(())
    }

    /// The names are left out, whatever the settings say of them.
    fn without(&mut self, names: &[&'static str]) {
        self.decided.extend(names.iter().map(|name| Cow::Borrowed(*name)));
    }
}

/// The body `{"inputs": …, "parameters": {…}}`.
fn generate(
    settings: &Settings,
    request: &Request,
    prompt: &CompletionPrompt,
    words: u64,
    refusals: &mut Refusals,
) -> Result<(Vec<u8>, Context), Error> {
    let tgi = settings.codec == Codec::Tgi;
    let codec = if tgi { "tgi" } else { "base" };
    let sampling = &request.sampling;
    let mut parameters = Parameters::default();

    let most = sampling.max_completion_tokens.or(sampling.max_tokens);
    if let Some(most) = most {
        parameters.set("max_new_tokens", most)?;
    }
    for (param, value) in [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("repetition_penalty", sampling.repetition_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ] {
        if value.is_some_and(|value| !value.is_finite()) {
            return Err(Error::invalid(param, "must be a finite number"));
        }
    }
    let greedy = sampling.temperature.is_some_and(|temperature| temperature <= 0.0);
    if greedy {
        parameters.set("do_sample", false)?;
        parameters.without(&["temperature", "top_p", "top_k", "typical_p", "min_p"]);
    } else {
        if let Some(temperature) = sampling.temperature {
            parameters.set("temperature", temperature)?;
        }
        let top_p = sampling.top_p.filter(|top_p| !tgi || *top_p < 1.0);
        let top_k = sampling.top_k.map(|top_k| top_k.max(0)).filter(|top_k| !tgi || *top_k > 0);
        let narrows = top_p.is_some_and(|top_p| top_p < 1.0) || top_k.is_some_and(|top_k| top_k > 0);
        if sampling.temperature.is_some() || narrows {
            parameters.set("do_sample", true)?;
        }
        match top_p {
            Some(top_p) => parameters.set("top_p", top_p)?,
            None if sampling.top_p.is_some() => parameters.without(&["top_p"]),
            None => {}
        }
        match top_k {
            Some(top_k) => parameters.set("top_k", top_k)?,
            None if sampling.top_k.is_some() => parameters.without(&["top_k"]),
            None => {}
        }
    }
    if !sampling.stop.is_empty() {
        let bytes: usize = sampling.stop.iter().map(String::len).sum();
        if sampling.stop.len() > STOPS.0 || bytes > STOPS.1 {
            let message = format!("at most {} stop sequences of together {} bytes are taken", STOPS.0, STOPS.1);
            return Err(Error::invalid("stop", message));
        }
        parameters.set("stop", &sampling.stop)?;
    }
    if let Some(seed) = sampling.seed {
        parameters.set("seed", seed)?;
    }
    if let Some(penalty) = sampling.repetition_penalty {
        parameters.set("repetition_penalty", penalty)?;
    }
    match sampling.frequency_penalty {
        Some(0.0) => parameters.without(&["frequency_penalty"]),
        Some(penalty) if tgi => parameters.set("frequency_penalty", penalty)?,
        _ => {}
    }
    match prompt.best_of {
        Some(best_of) if tgi && !request.stream && best_of > 1 => parameters.set("best_of", best_of)?,
        _ => {}
    }
    for (present, param) in [
        (sampling.n.is_some_and(|n| n != 1), "n"),
        (sampling.presence_penalty.is_some_and(|penalty| penalty != 0.0), "presence_penalty"),
        (!tgi && sampling.frequency_penalty.is_some_and(|penalty| penalty != 0.0), "frequency_penalty"),
        (sampling.min_p.is_some_and(|min_p| min_p != 0.0), "min_p"),
        (sampling.logit_bias.as_deref().is_some_and(|bias| bias != "{}"), "logit_bias"),
        (prompt.suffix.is_some(), "suffix"),
        (prompt.best_of.is_some_and(|best_of| best_of > 1) && (!tgi || request.stream), "best_of"),
        (prompt.echo == Some(true) && request.stream, "echo"),
        (request.end_user.is_some(), "user"),
    ] {
        if present {
            let stream = if request.stream { " in a stream" } else { "" };
            refusals.refuse(param, format!("{BACKEND}'s codec `{codec}` has no counterpart of `{param}`{stream}"))?;
        }
    }
    parameters.set("return_full_text", prompt.echo == Some(true) && !request.stream)?;
    if tgi && !request.stream {
        parameters.set("details", true)?;
    }
    if let Some(extra) = &request.extra {
        let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(extra).map_err(|error| {
            Error::invalid("", format!("the unknown members of the request are not a JSON object: {error}"))
        })?;
        for (name, value) in members {
            if request.dialect == TGI {
                parameters.add(name, value)?;
            } else {
                refusals.refuse(&name, format!("{BACKEND}'s codec `{codec}` has no counterpart of `{name}`"))?;
            }
        }
    }
    for (name, value) in &settings.parameters {
        parameters.set(name, value)?;
    }

    let mut body = Vec::with_capacity(prompt.text.len() + prompt.text.len() / 16 + parameters.out.len() + 64);
    body.extend_from_slice(b"{\"inputs\":");
    write_json_string(&mut body, &prompt.text);
    body.extend_from_slice(b",\"parameters\":{");
    body.extend_from_slice(&parameters.out);
    body.push(b'}');
    if request.stream {
        body.extend_from_slice(b",\"stream\":true");
    }
    body.push(b'}');
    let most = most.or_else(|| settings.parameters.get("max_new_tokens")?.get().parse().ok());
    let stop = sampling.stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
    Ok((body, Context { shape: None, words, most, stop }))
}
