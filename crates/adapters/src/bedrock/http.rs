//! What the requests of all APIs have in common: the address, the authentication, the operator's headers.

use serde_json::value::RawValue;
use witgate_model::{
    Auth, AwsSigv4Auth, Error, ErrorKind, Field, Framing, HeaderAuth, HttpRequest, Json, Request, Retry, Sampling,
};

use super::Context;
use super::json::{Members, raw};
use super::model::Target;
use super::omissions::Omissions;
use super::settings::Settings;

/// Largest `context` that the contract allows, in bytes.
const LARGEST_CONTEXT: usize = 64 * 1024;

/// Largest body of InvokeModel, in bytes.
const LARGEST_BODY: usize = 25_000_000;

/// Beside the model's own members: how the guardrail works.
pub(super) const GUARDRAIL: &str = "amazon-bedrock-guardrailConfig";

/// One request under way.
#[derive(Debug)]
pub(super) struct Encoding<'s> {
    pub settings: &'s Settings<'s>,
    pub target: Target,
    pub omissions: Omissions,
}

impl<'s> Encoding<'s> {
    pub fn new(settings: &'s Settings<'s>, request: &Request) -> Result<Self, Error> {
        let target = Target::new(settings, &request.model)?;
        Ok(Encoding { settings, target, omissions: Omissions::new(settings.drop_unsupported) })
    }

    /// Refuses `param`; where it returns, the caller leaves it out.
    pub fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        self.omissions.refuse(param, message)
    }

    /// Refuses the sampling that no model behind Bedrock's own APIs knows. Values that ask for nothing special are no
    /// harm.
    pub fn refuse_sampling(&mut self, sampling: &Sampling, backend: &str) -> Result<(), Error> {
        let unsupported = [
            ("n", sampling.n.is_some_and(|n| n != 1)),
            ("logprobs", sampling.logprobs == Some(true)),
            ("top_logprobs", sampling.top_logprobs.is_some_and(|most| most > 0)),
            ("seed", sampling.seed.is_some()),
            ("logit_bias", sampling.logit_bias.as_deref().is_some_and(|bias| bias.trim() != "{}")),
            ("frequency_penalty", sampling.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("presence_penalty", sampling.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("repetition_penalty", sampling.repetition_penalty.is_some_and(|penalty| penalty != 1.0)),
            ("min_p", sampling.min_p.is_some_and(|p| p != 0.0)),
        ];
        for (name, asked) in unsupported {
            if asked {
                self.refuse(name, format!("{backend} has no `{name}`"))?;
            }
        }
        Ok(())
    }

    /// Refuses the unnamed members of an object at `at`, which another dialect wrote.
    pub fn refuse_members(
        &mut self,
        members: &Members<'_>,
        at: impl std::fmt::Display,
        backend: &str,
    ) -> Result<(), Error> {
        // Usage always comes; Bedrock refuses the words.
        for name in members.names().filter(|name| !matches!(*name, "stream_options" | "include_usage")) {
            let at = at.to_string();
            let param = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            self.refuse(param, format!("{backend} has nothing like `{name}`"))?;
        }
        Ok(())
    }

    /// Refuses the unnamed top-level members of a request.
    pub fn refuse_extra(&mut self, extra: &Option<Json>, backend: &str) -> Result<(), Error> {
        let Some(extra) = extra else { return Ok(()) };
        let members = Members::parse(extra)
            .map_err(|error| Error::invalid("", format!("the members that have no name here: {error}")))?;
        self.refuse_members(&members, "", backend)
    }

    /// `POST /model/{model}/{operation}`.
    pub fn post(
        self,
        model: String,
        operation: &str,
        framing: Framing,
        headers: Vec<Field>,
        body: Vec<u8>,
        context: &Context,
    ) -> Result<HttpRequest, Error> {
        let mut all = vec![field("content-type", "application/json")];
        all.push(match framing {
            Framing::AwsEventstream => field("accept", "application/vnd.amazon.eventstream"),
            _ => field("accept", "application/json"),
        });
        all.extend(headers);
        Ok(HttpRequest {
            method: "POST".to_owned(),
            path: vec!["model".to_owned(), model, operation.to_owned()],
            query: Vec::new(),
            headers: all,
            body,
            auth: self.auth(),
            framing,
            context: context.to_text()?,
            dropped: self.omissions.into_paths(),
        })
    }

    /// InvokeModel, or its stream. `guarded`: the request is a chat, which the operator's guardrail must see.
    pub fn invoke(self, stream: bool, guarded: bool, body: Vec<u8>, context: &Context) -> Result<HttpRequest, Error> {
        if body.len() > LARGEST_BODY {
            let message = format!("Bedrock takes at most {LARGEST_BODY} bytes, this request has {}", body.len());
            return Err(Error::new(ErrorKind::TooLarge, message).with_retry(Retry::OtherTarget));
        }
        let mut headers = if guarded { self.guardrail_headers() } else { Vec::new() };
        if let Some(latency) = self.settings.latency.as_deref().filter(|_| guarded) {
            headers.push(field("x-amzn-bedrock-performanceconfig-latency", latency));
        }
        if let Some(tier) = &self.settings.service_tier {
            headers.push(field("x-amzn-bedrock-service-tier", tier));
        }
        let (operation, framing) = match stream {
            true => ("invoke-with-response-stream", Framing::AwsEventstream),
            false => ("invoke", Framing::Whole),
        };
        if stream {
            headers.push(field("x-amzn-bedrock-accept", "application/json"));
        }
        let model = self.target.id.clone();
        self.post(model, operation, framing, headers, body, context)
    }

    /// The operator's guardrail, where it is not a member of the body.
    pub fn guardrail_headers(&self) -> Vec<Field> {
        let Some(guardrail) = &self.settings.guardrail else { return Vec::new() };
        let mut headers = vec![
            field("x-amzn-bedrock-guardrailidentifier", &guardrail.identifier),
            field("x-amzn-bedrock-guardrailversion", &guardrail.version),
        ];
        if let Some(trace) = &guardrail.trace {
            headers.push(field("x-amzn-bedrock-trace", &trace.to_ascii_uppercase()));
        }
        headers
    }

    /// [`GUARDRAIL`], where the settings say how a stream is guarded.
    pub fn guardrail_config(&self, stream: bool) -> Option<&'static str> {
        let mode = self.settings.guardrail.as_ref().filter(|_| stream)?.stream_processing_mode.as_deref()?;
        Some(match mode {
            "async" => r#"{"streamProcessingMode":"ASYNCHRONOUS"}"#,
            _ => r#"{"streamProcessingMode":"SYNCHRONOUS"}"#,
        })
    }

    /// Adds the members that the settings want to a chat's body, which is an object with members. Those that it has stay.
    pub fn add_members(&self, body: &mut Vec<u8>, tier: Option<&str>, stream: bool) -> Result<(), Error> {
        let mut members = self.settings.additional_model_request_fields.clone().unwrap_or_default();
        if let Some(tier) = tier {
            members.set("service_tier".into(), raw(tier).map_err(internal)?);
        }
        if let Some(config) = self.guardrail_config(stream) {
            let config = serde_json::from_str::<&RawValue>(config).map_err(internal)?;
            members.set(GUARDRAIL.into(), std::borrow::Cow::Borrowed(config));
        }
        if members.is_empty() && self.settings.guardrail.is_none() {
            return Ok(());
        }
        let present = Members::parse_bytes(body).map_err(internal)?;
        // A client must not reach around the operator's guardrail.
        if self.settings.guardrail.is_some() && present.get(GUARDRAIL).is_some() {
            return Err(Error::unsupported(
                GUARDRAIL,
                "the provider's settings have a guardrail, which is not yours to set",
            ));
        }
        let names: Vec<&str> = present.names().collect();
        let new = members.without(&names).to_text();
        drop(present);
        if let Some(new) = new.strip_prefix('{').filter(|new| *new != "}") {
            body.pop();
            body.push(b',');
            body.extend_from_slice(new.as_bytes());
        }
        Ok(())
    }

    /// A signature for the region of the model's ARN, or a key.
    pub fn auth(&self) -> Auth {
        if self.settings.is_bearer() {
            return Auth::Header(HeaderAuth {
                name: "authorization".to_owned(),
                prefix: "Bearer ".to_owned(),
                slot: "api_key".to_owned(),
            });
        }
        Auth::AwsSigv4(AwsSigv4Auth {
            service: "bedrock".to_owned(),
            slot: "aws".to_owned(),
            region: self.target.region.clone(),
        })
    }
}

impl Context {
    /// `http-request.context`; none for what a decoder takes without one.
    pub fn to_text(&self) -> Result<Option<String>, Error> {
        if *self == Context::default() {
            return Ok(None);
        }
        let context = serde_json::to_string(self).map_err(internal)?;
        if context.len() > LARGEST_CONTEXT {
            let message = "too many tools with names that Bedrock refuses: use 1 to 64 letters, digits, `_` and `-`";
            return Err(Error::invalid("tools", message));
        }
        Ok(Some(context))
    }
}

pub(super) fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), value.to_owned())
}

pub(super) fn internal(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Other("internal".to_owned()), format!("the request could not be written as JSON: {error}"))
}
