//! Any body through the parser of each route: no panic, a clear error or a request. A request that was accepted is the
//! same when it is read again, and an adapter of the same dialect sends a body that is read as the same request.
//!
//! The first byte picks the route and, by its high bit, tight limits; the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use witgate_adapters::OpenAi;
use witgate_dialects::{default_limits, parse, render_error, routes};
use witgate_fuzz::order::{json, normal, object};
use witgate_model::normaliser::{Failure, Limits};
use witgate_model::{Adapter, Input, Part, Request, Role};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let routes: Vec<_> = routes().iter().filter(|route| route.method == "POST").collect();
    let route = routes[usize::from(choice & 127) % routes.len()];
    let limits = if choice & 128 == 0 { default_limits() } else { Limits { depth: 4, messages: 2 } };
    let path = route.path.replace("{model}", "a%2Fb");

    let first = parse(&route.dialect, &path, &limits, body);
    assert_eq!(parse(&route.dialect, &path, &limits, body), first, "parsing is not pure");
    let parsed = match first {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.message.is_empty());
            assert!(error.message.len() < 4096, "a message of {} bytes", error.message.len());
            assert!(error.status.is_none_or(|status| (400..500).contains(&status)), "{error:?}");
            let failure = Failure {
                error,
                error_type: "invalid_request_error".to_owned(),
                provider: None,
                request_id: "r".to_owned(),
                upstream: None,
                attempts: Vec::new(),
            };
            let rendered = render_error(&route.dialect, &failure);
            assert!((400..500).contains(&rendered.status), "{rendered:?}");
            json(str::from_utf8(&rendered.body).expect("UTF-8"));
            return;
        }
    };
    let request = parsed.request;
    if let Some(extra) = &request.extra {
        object(extra);
    }

    // OpenAI's adapter, which neither adds nor takes away anything where the dialect is that of the API that it asks.
    if !["openai-chat", "openai-completions"].contains(&route.dialect.as_str()) {
        return;
    }
    if guesses(&request) {
        return;
    }
    // The names of some models change a member's name.
    let request = Request { model: "m".to_owned(), ..request };
    if let Ok(http) = OpenAi::encode(r#"{"stream_usage":false}"#, request.clone()) {
        let sent = String::from_utf8(http.body).expect("UTF-8");
        object(&sent);
        let again = match parse(&route.dialect, &path, &limits, sent.as_bytes()) {
            Ok(parsed) => parsed.request,
            Err(error) => panic!("what was sent is not accepted: {error:?}\n{sent}"),
        };
        // Unknown members may be escaped in another way; they are equal as JSON.
        let equal = again == request || record(&again) == record(&request);
        assert!(equal, "what was sent is another request: {sent}\n{again:?}\n{request:?}");
    }
});

fn record(request: &Request) -> serde_json::Value {
    normal(serde_json::to_value(request).expect("a request is JSON"))
}

/// A part that the contract has no name for does not say whether it stood in `content` or in `tool_calls` of an
/// assistant's message. An adapter guesses by its members, and may guess wrong: such requests are no proof.
fn guesses(request: &Request) -> bool {
    let Input::Chat(messages) = &request.input else { return false };
    messages.iter().any(|message| {
        matches!(message.role, Role::Assistant | Role::Other(_))
            && message.parts.iter().any(|part| matches!(part, Part::Other(_)))
    })
}
