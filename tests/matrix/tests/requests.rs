//! What each canonical request becomes at each backend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use witgate_matrix::{BACKENDS, Backend, pretty, requests, root};
use witgate_model::{Auth, Error, Framing, HttpRequest, Input, Request};

/// The body as a person reads it: a body that came before is named, not repeated.
fn body(http: &HttpRequest, backend: &Backend, seen: &mut BTreeMap<String, &'static str>) -> String {
    if http.body.is_empty() {
        return "no body\n".to_owned();
    }
    let text = std::str::from_utf8(&http.body).expect("a body is UTF-8");
    let whole = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    assert!(whole || backend.name == "stub", "{} sends what is no JSON: {text}", backend.name);
    let without_model = text.replacen(&format!("\"model\":\"{}\"", backend.model), "\"model\":", 1);
    match seen.get(&without_model) {
        Some(first) if without_model == text => format!("body: as to {first}\n"),
        Some(first) => format!("body: as to {first}, but for the model\n"),
        None => {
            seen.insert(without_model, backend.name);
            let text = if whole { pretty(text) } else { text.trim_end().to_owned() };
            format!("{text}\n")
        }
    }
}

fn sent(http: &HttpRequest, backend: &Backend, seen: &mut BTreeMap<String, &'static str>) -> String {
    let mut out = format!(
        "{} /{}",
        http.method,
        http.path.iter().map(|segment| segment.replace('/', "%2F")).collect::<Vec<_>>().join("/")
    );
    for (number, (name, value)) in http.query.iter().enumerate() {
        write!(out, "{}{name}={value}", if number == 0 { "?" } else { "&" }).unwrap();
    }
    out.push('\n');
    for (name, value) in &http.headers {
        writeln!(out, "{name}: {value}").unwrap();
    }
    match &http.auth {
        Auth::None => out.push_str("auth: none\n"),
        Auth::Header(auth) => writeln!(out, "auth: {}: {}<{}>", auth.name, auth.prefix, auth.slot).unwrap(),
        Auth::AwsSigv4(auth) => {
            let region = auth.region.as_deref().unwrap_or("the provider's");
            writeln!(out, "auth: AWS Signature Version 4 for {}, slot {}, region {region}", auth.service, auth.slot)
                .unwrap();
        }
        Auth::Other(name) => writeln!(out, "auth: {name}").unwrap(),
    }
    let framing = match &http.framing {
        Framing::Whole => "whole",
        Framing::Sse => "sse",
        Framing::Ndjson => "ndjson",
        Framing::AwsEventstream => "aws-eventstream",
        Framing::Raw => "raw",
        Framing::Other(name) => name,
    };
    writeln!(out, "framing: {framing}").unwrap();
    if let Some(context) = &http.context {
        writeln!(out, "context: {context}").unwrap();
    }
    out.push_str(&body(http, backend, seen));
    out
}

fn refusal(error: &Error) -> String {
    let kind = format!("{:?}", error.kind);
    format!("refused, {kind} at {}: {}\n", error.param.as_deref().unwrap_or("no field"), error.message)
}

/// One file: what every backend makes of `request`.
fn sections(request: &Request, wrong: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut seen = BTreeMap::new();
    for backend in BACKENDS {
        if backend.embeds_only && !matches!(request.input, Input::Embedding(_)) {
            continue;
        }
        writeln!(out, "# {}\n", backend.name).unwrap();
        match backend.encode(request, false) {
            Ok(http) => {
                if !http.dropped.is_empty() {
                    wrong.push(format!("{} leaves out {:?} unasked", backend.name, http.dropped));
                }
                out.push_str(&sent(&http, backend, &mut seen));
            }
            Err(error) => {
                assert!(error.message.len() > 15, "{error:?}");
                out.push_str(&refusal(&error));
                match backend.encode(request, true) {
                    Ok(http) => {
                        if !(1..=64).contains(&http.dropped.len()) {
                            wrong.push(format!("{} tells of {} things left out", backend.name, http.dropped.len()));
                        }
                        let refused = error.param.as_ref().is_some_and(|param| http.dropped.contains(param));
                        if !refused {
                            wrong.push(format!(
                                "{} refuses {:?}, and drops {:?}",
                                backend.name, error.param, http.dropped
                            ));
                        }
                        writeln!(out, "\nwith drop_unsupported, without {}:", http.dropped.join(", ")).unwrap();
                        out.push_str(&sent(&http, backend, &mut seen));
                    }
                    Err(again) if again == error => out.push_str("with drop_unsupported too\n"),
                    Err(again) => write!(out, "with drop_unsupported {}", refusal(&again)).unwrap(),
                }
            }
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_request_becomes_at_every_backend_what_was_read_and_approved() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots/requests");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    let models = Request::new("openai-chat", "", Input::Models);
    let mut all = vec![("models".to_owned(), models)];
    for canonical in requests() {
        let mut request = canonical.parsed().request;
        // That one's requests are those of the backend's own dialect.
        assert!(request.dialect == canonical.dialect || canonical.dialect == "llm-invocation", "{}", canonical.name);
        request.model.clear();
        all.push((canonical.name.replace('/', "-"), request));
    }
    assert!(all.len() > 70, "{}", all.len());
    let mut wrong = Vec::new();
    for (name, request) in &all {
        let mut found = Vec::new();
        let text = sections(request, &mut found);
        wrong.extend(found.into_iter().map(|found| format!("{name}: {found}")));
        if std::panic::catch_unwind(|| insta::assert_snapshot!(name.as_str(), text)).is_err() {
            wrong.push(format!("{name} is not what was approved"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    let kept = std::fs::read_dir(root("tests/matrix/snapshots/requests")).unwrap();
    let kept: BTreeSet<_> = kept.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let wanted: BTreeSet<_> = all.iter().map(|(name, _)| format!("{name}.snap")).collect();
    assert_eq!(kept, wanted, "snapshots of requests that are gone");
}
