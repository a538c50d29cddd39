//! HTTP requests as a Lambda function gets them: the events of an API Gateway (REST and HTTP), of a function URL and of a
//! load balancer. What was written for such a function can be given to `witgate invoke` as it is.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use witgate_model::Field;

use crate::http::Request;

/// The request that an event stands for; none where it is no such event.
///
/// # Errors
/// What is wrong with the event, for people.
pub fn read(event: &[u8]) -> Result<Option<Request<Bytes>>, String> {
    let Ok(Value::Object(event)) = serde_json::from_slice::<Value>(event) else { return Ok(None) };
    let http = event.get("requestContext").and_then(|context| context.get("http"));
    let method = event.get("httpMethod").or_else(|| http?.get("method"));
    let path = event.get("path").or_else(|| event.get("rawPath")).or_else(|| http?.get("path"));
    let (Some(Value::String(method)), Some(Value::String(path))) = (method, path) else { return Ok(None) };
    let balancer = event.get("requestContext").is_some_and(|context| context.get("elb").is_some());
    let query = match event.get("rawQueryString") {
        Some(Value::String(query)) => query.clone(),
        _ => {
            let single = event.get("queryStringParameters");
            let pairs = lists(event.get("multiValueQueryStringParameters").filter(|all| !all.is_null()).or(single));
            // A load balancer leaves them as they came.
            let encode = |text: String| {
                if balancer { text } else { form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>() }
            };
            let pairs: Vec<_> =
                pairs.into_iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            pairs.join("&")
        }
    };
    let headers = lists(event.get("multiValueHeaders").filter(|all| !all.is_null()).or(event.get("headers")));
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let body = match event.get("body") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(body)) if event.get("isBase64Encoded") == Some(&Value::Bool(true)) => BASE64_STANDARD
            .decode(body.trim())
            .map_err(|error| format!("the event's `body` is not base64, as `isBase64Encoded` says: {error}"))?,
        Some(Value::String(body)) => body.clone().into_bytes(),
        Some(other) => other.to_string().into_bytes(),
    };
    Ok(Some(Request { method: method.clone(), path: path.clone(), query, headers, body: body.into() }))
}

/// Names and values of an object of texts, or of lists of texts.
fn lists(object: Option<&Value>) -> Vec<Field> {
    let mut all = Vec::new();
    for (name, value) in object.and_then(Value::as_object).into_iter().flatten() {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        all.extend(values.iter().filter_map(|value| Some((name.clone(), value.as_str()?.to_owned()))));
    }
    all
}

/// The answer to an event: `{statusCode, headers, body, isBase64Encoded}`.
pub fn answer(status: u16, headers: &[Field], body: &[u8]) -> String {
    let headers: Map<_, _> = headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let (body, encoded) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64_STANDARD.encode(body), true),
    };
    json!({"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": encoded}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(event: &Value) -> Request<Bytes> {
        read(event.to_string().as_bytes()).unwrap().unwrap_or_else(|| panic!("no event: {event}"))
    }

    #[test]
    fn each_kind_of_event_is_its_request() {
        let rest = json!({"httpMethod": "POST", "path": "/v1/x", "body": "{}", "headers": {"X-Own": "1"},
            "queryStringParameters": {"a": "b c"}, "multiValueQueryStringParameters": null});
        let url = json!({"version": "2.0", "rawPath": "/v1/x", "rawQueryString": "a=b+c", "headers": {"x-own": "1"},
            "requestContext": {"http": {"method": "POST", "path": "/v1/x"}}, "body": "e30=", "isBase64Encoded": true});
        let balancer = json!({"httpMethod": "POST", "path": "/v1/x", "requestContext": {"elb": {}}, "body": {},
            "multiValueHeaders": {"x-own": ["1"]}, "multiValueQueryStringParameters": {"a": ["b+c"]}});
        for event in [rest, url, balancer] {
            let request = request(&event);
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/x"), "{event}");
            assert_eq!((request.query.as_str(), &request.body[..]), ("a=b+c", &b"{}"[..]), "{event}");
            assert_eq!(request.headers, [("x-own".to_owned(), "1".to_owned())]);
        }
    }

    #[test]
    fn what_is_no_event_is_left_alone_and_a_broken_body_is_told() {
        for body in ["", "[]", "{", "{\"prompt\":\"x\"}", "{\"httpMethod\":\"POST\"}", "{\"path\":\"/x\"}"] {
            assert!(read(body.as_bytes()).unwrap().is_none(), "{body}");
        }
        let broken = json!({"httpMethod": "POST", "path": "/", "body": "*", "isBase64Encoded": true});
        assert!(read(broken.to_string().as_bytes()).err().unwrap().contains("base64"));
    }

    #[test]
    fn an_answer_is_text_where_it_can_be() {
        let told: Value = serde_json::from_str(&answer(404, &[("a".to_owned(), "b".to_owned())], b"x")).unwrap();
        assert_eq!(told, json!({"statusCode": 404, "headers": {"a": "b"}, "body": "x", "isBase64Encoded": false}));
        let told: Value = serde_json::from_str(&answer(200, &[], &[0xff])).unwrap();
        assert_eq!((&told["body"], &told["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
    }
}
