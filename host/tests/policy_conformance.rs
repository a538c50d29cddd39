//! `witgate conformance` over good policies and over one that breaks each rule.

use std::path::Path;

use serde_json::{Value, json};
use witgate_host::conformance::{Area, Options, Report, run};

use crate::kit;

fn report(component: &str, settings: Value, samples: Option<&Path>) -> Report {
    let mut options = Options::default();
    options.cache_dir = Some(kit::cache());
    options.settings = settings.to_string();
    options.samples = samples.map(Path::to_owned);
    run(&kit::component(component), &options).unwrap()
}

fn failed(report: &Report, area: Area) -> Vec<String> {
    let of = report.failures.iter().filter(|finding| finding.area == area);
    of.map(|finding| format!("{}: {} (right: {})", finding.case, finding.what, finding.right)).collect()
}

/// What is found in an area of the policy that breaks its contract so.
#[track_caller]
fn found(deed: &str, area: Area, expected: &str) {
    let mut options = Options::default();
    options.cache_dir = Some(kit::cache());
    options.settings = json!({"do": deed}).to_string();
    // The others may take a while on a busy machine.
    let limit = if deed.ends_with("loop") { 100 } else { 30_000 };
    options.bounds.call_time = std::time::Duration::from_millis(limit);
    let report = run(&kit::component("tests/wrong-policy.wasm"), &options).unwrap();
    let told = failed(&report, area);
    assert!(told.iter().any(|told| told.contains(expected)), "{deed}: {area}: {told:?}\n{report}");
}

#[test]
fn the_built_in_policies_conform_and_are_watched_where_they_watch() {
    let samples = tempfile::tempdir().unwrap();
    let write = |name: &str, sample: Value| std::fs::write(samples.path().join(name), sample.to_string()).unwrap();
    let asks = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
    write(
        "masked.json",
        json!({"request": asks("Mail ada@example.com"), "answer": ["I mailed ada@exam", "ple.com."],
            "expect": {"request": "Mail [EMAIL]", "answer": "I mailed [EMAIL].", "tags": {"redacted.email": "1"}}}),
    );
    write(
        "restored.json",
        json!({"settings": {"mode": "restore"}, "request": asks("Mail ada@example.com"), "answer": ["To [EMA", "IL_1]."],
            "expect": {"request": "Mail [EMAIL_1]", "answer": "To ada@example.com."}}),
    );
    write(
        "refused.json",
        json!({"settings": {"mode": "block"}, "request": asks("Mail ada@example.com"),
            "expect": {"refused": "content-filtered"}}),
    );
    let redactor = report("policy-redactor.wasm", json!({}), Some(samples.path()));
    assert!(redactor.is_conformant(), "{redactor}");
    assert!(redactor.counts[&Area::Samples].passed >= 6, "{:?}", redactor.counts);

    let guard = report("policy-guard.wasm", json!({"blocked_terms": ["project falcon", "ada"]}), None);
    assert!(guard.is_conformant(), "{guard}");
    for report in [&redactor, &guard] {
        for area in [Area::Requests, Area::Purity, Area::Order, Area::Held, Area::End, Area::Splits, Area::Limits] {
            assert!(report.counts[&area].passed >= 10, "{area}: {:?}", report.counts);
        }
        assert!(report.memory_bytes > 0 && report.instance.is_some() && report.call.is_some());
        let told = report.to_string();
        assert!(told.contains("a small on-request") && report.json()["policy"]["id"].is_string(), "{told}");
    }
    // Without a term it watches nothing, and the report says so.
    let idle = report("policy-guard.wasm", json!({}), None);
    let told: Vec<_> = idle.notes.iter().map(|note| note.what.as_str()).collect();
    assert!(idle.is_conformant() && told.iter().any(|told| told.contains("it watched no answer")), "{told:?}");
    assert!(idle.to_string().contains("note: answers: it watched no answer"), "{idle}");
}

#[test]
fn what_a_policy_says_of_itself_and_its_settings_is_checked() {
    found("nothing", Area::Describe, "the description differs");
    found("nothing", Area::Describe, "the version is \"first\"");
    let report = report("tests/wrong-policy.wasm", json!({"do": 1}), None);
    let told = failed(&report, Area::Settings);
    assert!(told[0].starts_with("settings.do: ") && told[0].contains("--settings"), "{told:?}");
}

#[test]
fn decisions_that_the_contract_does_not_allow_are_found() {
    for (deed, expected) in [
        ("trap", "it trapped"),
        ("loop", "ran longer than its limit of 100 ms"),
        ("refuse", "it refuses without a message"),
        ("tag", "returned tags that break the rules"),
        ("tags", "returned tags that break the rules"),
        ("tell", "the tag \"said\" holds what the request says"),
        ("route", "returned a model's name that is empty"),
        ("model", "it changes the model to \"another\""),
        ("no-model", "it takes the model's name out"),
        ("operation", "it makes the operation `models` of `chat`"),
        ("no-json", "`request.extra` is to be JSON, and is none"),
        ("nan", "a number of `sampling` is none"),
    ] {
        found(deed, Area::Requests, expected);
    }
    found("count", Area::Purity, "asked twice, it decides otherwise");
    found("count", Area::Purity, "decides otherwise than a fresh one");
    found("trap-at-much", Area::Limits, "a text of 1 MB: it trapped");
    for (deed, expected) in [("copy", "as it got it"), ("refuse-all", "it refuses every request")] {
        let report = report("tests/wrong-policy.wasm", json!({"do": deed}), None);
        let told: Vec<_> = report.notes.iter().map(|note| note.what.as_str()).collect();
        assert!(told.iter().any(|told| told.contains(expected)), "{deed}: {told:?}");
    }
}

#[test]
fn watchers_that_break_the_contract_are_found() {
    for (deed, area, expected) in [
        ("feed-trap", Area::Order, "it trapped"),
        ("feed-flood", Area::Order, "returned 5000 events for 1"),
        ("no-block", Area::Order, "added to block 0, which is not open"),
        ("after-failed", Area::Order, "sent an event after the last one"),
        ("no-escapes", Area::Order, "a tool call: the arguments of a tool call, {"),
        ("no-escapes", Area::Order, "which is no JSON"),
        ("no-end", Area::End, "kept the answer's end back"),
        ("early-end", Area::End, "ended the answer before its backend did"),
        ("no-failure", Area::End, "made a success of a failure"),
        ("other-failure", Area::End, "the failure `rate-limited` becomes `invalid-request`"),
        ("dumb", Area::End, "it stops an answer without a message"),
        ("hoard", Area::Held, "bytes back where no block is open"),
        ("hoard", Area::Held, "bytes back; at most 65536 are allowed"),
        ("lie", Area::Held, "and said that it were 0"),
        ("always-held", Area::Held, "says that it holds 1 bytes back where no block is open"),
        ("per-feed", Area::Splits, "all in one feed, it gives other events than one by one"),
        ("per-piece", Area::Splits, "with its text in pieces of one character, the answer becomes another one"),
        ("remember", Area::Splits, "it gives other events than one by one"),
        ("remember", Area::Purity, "an instance that has watched others gives other events"),
    ] {
        found(deed, area, expected);
    }
}

#[test]
fn a_sample_that_becomes_something_else_than_it_should_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let with = |sample: Value| {
        std::fs::write(folder.path().join("one.json"), sample.to_string()).unwrap();
        failed(&report("policy-redactor.wasm", json!({}), Some(folder.path())), Area::Samples)
    };
    let request = json!({"messages": [{"role": "user", "content": "Mail ada@example.com"}]});
    let expect = json!({"request": "Mail", "route": "m", "tags": {}, "answer": "Hi"});
    let told = with(json!({"request": request, "answer": "Ho", "expect": expect}));
    for expected in [
        "its request is \"Mail [EMAIL]\", not \"Mail\"",
        "its route is \"\", not \"m\"",
        "its tags are {\"redacted.email\": \"1\"}, not {}",
        "its answer is \"Ho\", not \"Hi\"",
    ] {
        assert!(told.iter().any(|told| told.contains(expected)), "{expected}: {told:?}");
    }
    let told = with(json!({"request": request, "expect": {"refused": "content-filtered"}}));
    assert!(told[0].contains("it passes, and is not refused as content-filtered"), "{told:?}");
    let told = with(json!({"request": request, "expect": {"stopped": "content-filtered"}}));
    assert!(told[0].contains("its answer is not stopped as content-filtered"), "{told:?}");
    let told = with(json!({"request": request, "settings": {"mode": "block"}}));
    assert!(told[0].contains("it is refused as `content-filtered`"), "{told:?}");

    let mut options = Options::default();
    options.samples = Some(folder.path().to_owned());
    for (sample, expected) in [
        ("{", "one.json: EOF"),
        ("{\"request\": {}, \"expct\": 1}", "unknown field `expct`"),
        ("{\"request\": {\"messages\": 1}}", "one.json: request: "),
        ("{\"request\": {}, \"dialect\": \"latin\"}", "there is no dialect \"latin\""),
    ] {
        std::fs::write(folder.path().join("one.json"), sample).unwrap();
        let error = run(&kit::component("policy-redactor.wasm"), &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{sample}: {error}");
    }
}
