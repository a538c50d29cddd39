//! What a payload may come in, and how the answer goes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use witgate_model::Error;
use witgate_model::normaliser::Rendered;

use super::{INVALID_EVENT, invalid};
use crate::openai::json_answer;

/// How the answer goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum Envelope {
    /// As it is.
    #[default]
    None,
    /// As `{statusCode, headers, body}`, which API Gateway and function URLs turn into an HTTP answer.
    Proxy,
    /// The same for a load balancer (ALB), which wants `isBase64Encoded` too.
    Balancer,
    /// A load balancer whose headers have lists of values.
    BalancerOfLists,
}

impl Envelope {
    /// An answer in this envelope, with the same status.
    pub(super) fn wrap(self, rendered: Rendered) -> Rendered {
        if self == Envelope::None {
            return rendered;
        }
        let lists = self == Envelope::BalancerOfLists;
        let value = |value: String| if lists { Value::Array(vec![value.into()]) } else { value.into() };
        let headers: Map<_, _> = rendered.headers.into_iter().map(|(name, text)| (name, value(text))).collect();
        let body = String::from_utf8_lossy(&rendered.body);
        let name = if lists { "multiValueHeaders" } else { "headers" };
        let mut envelope = json!({"statusCode": rendered.status, name: headers, "body": body});
        if self != Envelope::Proxy
            && let Some(members) = envelope.as_object_mut()
        {
            members.insert("isBase64Encoded".to_owned(), false.into());
        }
        json_answer(rendered.status, envelope.to_string().into_bytes())
    }
}

/// Which envelope an event is.
pub(super) fn of(event: &Value) -> Envelope {
    let gateway = event.get("httpMethod").is_some() && event.get("path").is_some();
    let url =
        event.pointer("/requestContext/http").is_some() && event.get("version").is_none_or(|version| version == "2.0");
    if gateway && event.pointer("/requestContext/elb").is_some() {
        let lists = event.get("multiValueHeaders").is_some();
        if lists { Envelope::BalancerOfLists } else { Envelope::Balancer }
    } else if gateway || (event.get("Records").is_none() && event.get("agent").is_none() && url) {
        Envelope::Proxy
    } else {
        Envelope::None
    }
}

/// The payload that an event brings. What is inside of text is read with nesting up to `depth`.
pub(super) fn open(mut event: Value, depth: u32) -> Result<Map<String, Value>, Error> {
    let payload = if event.get("httpMethod").is_some() && event.get("path").is_some() {
        http_body(&mut event, depth)?
    } else if event.get("Records").is_some() {
        let what = "`Records` (S3, SNS, SQS) are not read here; send each record's payload by itself";
        return Err(invalid(INVALID_EVENT, "Records", what));
    } else if let Some(agent) = event.get_mut("agent") {
        match agent.get_mut("input") {
            Some(input) => json(input.take(), "agent.input", depth)?,
            None => return Err(invalid(INVALID_EVENT, "agent.input", "the event of an agent has no `agent.input`")),
        }
    } else if of(&event) == Envelope::Proxy {
        http_body(&mut event, depth)?
    } else {
        event
    };
    match payload {
        Value::Object(payload) => Ok(payload),
        _ => Err(invalid(INVALID_EVENT, "", "the payload is not a JSON object")),
    }
}

/// The body of an event that stands for an HTTP request.
fn http_body(event: &mut Value, depth: u32) -> Result<Value, Error> {
    let body = event.get_mut("body").map(Value::take).unwrap_or_default();
    if body.is_null() {
        return Err(invalid(INVALID_EVENT, "body", "the event has no `body`"));
    }
    if event.get("isBase64Encoded") != Some(&Value::Bool(true)) {
        return json(body, "body", depth);
    }
    let text = body.as_str().and_then(|body| STANDARD.decode(body.trim()).ok());
    match text.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => json(Value::String(text), "body", depth),
        None => Err(invalid(INVALID_EVENT, "body", "`body` is not UTF-8 in base64, as `isBase64Encoded` says")),
    }
}

/// A value that may be JSON in a text.
fn json(value: Value, param: &str, depth: u32) -> Result<Value, Error> {
    let Value::String(text) = value else { return Ok(value) };
    super::parse(text.as_bytes(), depth).map_err(|error| {
        let what = format!("`{param}` does not hold a payload: {}", error.message);
        invalid(INVALID_EVENT, param, what)
    })
}
