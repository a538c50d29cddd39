//! `witgate conformance`, over good adapters and over bad ones.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use witgate_host::conformance::{Area, Options, Report, run};

use crate::kit;

fn options() -> Options {
    let mut options = Options::default();
    options.cache_dir = Some(kit::cache());
    options
}

fn report(component: &str, options: &Options) -> Report {
    run(Path::new(&kit::component(component)), options).unwrap()
}

fn failed(report: &Report, area: Area) -> Vec<String> {
    let of = report.failures.iter().filter(|finding| finding.area == area);
    of.map(|finding| format!("{}: {} (right: {})", finding.case, finding.what, finding.right)).collect()
}

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_witgate"));
    command.arg("conformance").args(arguments).env("WITGATE_CACHE_DIR", kit::cache()).output().unwrap()
}

#[test]
fn the_built_in_adapters_and_the_example_conform_with_the_answers_of_their_backends() {
    for (name, settings) in [
        ("openai", "{}"),
        ("llama-cpp", "{}"),
        ("anthropic", "{}"),
        ("ollama", "{}"),
        ("shout", r#"{"suffix": "hey"}"#),
    ] {
        let mut options = options();
        options.settings = settings.to_owned();
        options.samples = Some(kit::fixtures("upstream").join(if name == "shout" { "llama-cpp" } else { name }));
        let report = report(&format!("adapter-{name}.wasm"), &options);
        assert!(report.is_conformant(), "{report}");
        for area in [Area::Encode, Area::Silence, Area::Purity, Area::Answers, Area::Splits, Area::CutOff, Area::Errors]
        {
            assert!(report.counts[&area].passed >= 15, "{name}: {area}: {:?}", report.counts);
        }
        assert!(report.memory_bytes > 0 && report.instance.is_some() && report.call.is_some());
    }
}

/// A run of the hostile guest, which does what `deed` says.
fn hostile(deed: &str) -> Report {
    let mut options = options();
    options.settings = json!({"do": deed}).to_string();
    report("tests/hostile.wasm", &options)
}

#[test]
fn an_adapter_that_keeps_something_between_requests_is_found() {
    let report = hostile("nothing");
    let told = failed(&report, Area::Purity);
    assert!(told.iter().any(|told| told.contains("asked twice, it gives two different results")), "{told:?}");
    assert!(told.iter().any(|told| told.contains("than a fresh one")), "{told:?}");
    // It sends an empty object whatever it is asked.
    let told = failed(&report, Area::Silence);
    assert!(told.iter().any(|told| told.starts_with("a tool: taken, and not in the request")), "{told:?}");
    let told = failed(&report, Area::Encode);
    assert!(told.iter().any(|told| told.contains("takes the operation `embedding`")), "{told:?}");
    // It calls everything an answer, even a 500.
    let told = failed(&report, Area::Errors);
    assert!(told.iter().any(|told| told.starts_with("status 500 with JSON: it becomes 6 events")), "{told:?}");
}

#[test]
fn requests_that_the_gateway_would_not_send_are_found() {
    for (deed, expected) in [
        ("bad-path", "returned the path segment \"..\", which leaves its endpoint"),
        ("bad-header", "returned a value of header x-evil that HTTP does not allow"),
        ("bad-method", "asked for the HTTP method"),
        ("bad-auth", "returned the header authorization, which is the gateway's"),
        ("bad-framing", "asks for the framing \"morse\""),
    ] {
        let told = failed(&hostile(deed), Area::Encode);
        assert!(told.iter().any(|told| told.contains(expected)), "{deed}: {told:?}");
    }
}

#[test]
fn calls_that_trap_run_too_long_or_take_too_much_are_found_and_end_nothing() {
    for (deed, area, expected) in [
        ("trap", Area::Encode, "it trapped"),
        ("feed-panic", Area::Errors, "it trapped"),
        ("feed-loop", Area::Errors, "ran longer than its limit of 100 ms"),
        ("feed-grow", Area::Errors, "wanted more than its limit of 64 MiB"),
        ("probe-recurse", Area::Probe, "it trapped: "),
        ("flood", Area::Garbage, "returned 10000 events for 1 frames"),
    ] {
        let mut options = options();
        // The others may take a while on a busy machine.
        let limit = if deed.ends_with("loop") { 100 } else { 30_000 };
        options.bounds.call_time = std::time::Duration::from_millis(limit);
        options.settings = json!({"do": deed}).to_string();
        let report = report("tests/hostile.wasm", &options);
        let told = failed(&report, area);
        assert!(told.iter().any(|told| told.contains(expected)), "{deed}: {told:?}\n{report}");
    }
}

#[test]
fn events_out_of_order_are_found() {
    for (deed, expected) in [
        ("no-start", "sent an event before `started`"),
        ("no-block", "added to block 7, which is not open"),
        ("early-done", "ended an answer that has no finish or an open block"),
        ("after-done", "sent an event after the last one"),
    ] {
        let told = failed(&hostile(deed), Area::Garbage);
        assert!(told.iter().any(|told| told.contains(expected)), "{deed}: {told:?}");
    }
}

#[test]
fn a_sample_that_gives_something_else_than_it_should_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let chat = json!({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]});
    std::fs::write(folder.path().join("chat.json"), chat.to_string()).unwrap();
    let meta = |expect: Value| {
        let meta = json!({"chat.json": {"expect": expect}});
        std::fs::write(folder.path().join("meta.json"), meta.to_string()).unwrap();
        let mut options = options();
        options.samples = Some(folder.path().to_owned());
        failed(&report("adapter-openai.wasm", &options), Area::Answers)
    };
    assert!(meta(json!({"text": "Hi", "finish": "stop", "tools": []})).is_empty());
    let told = meta(json!({"text": "Ho", "finish": "length", "tools": ["x"]}));
    for expected in ["its text is \"Hi\", not \"Ho\"", "it ends with stop, not length", "it calls [], not [\"x\"]"] {
        assert!(told.iter().any(|told| told.contains(expected)), "{told:?}");
    }
    assert!(meta(json!({"error": "rate-limited"}))[0].contains("it becomes no failure, not rate-limited"));
}

#[test]
fn the_commands_status_and_report_say_what_is_wrong_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let wasi = folder.path().join("wasi.wasm");
    let text = "(component (import \"wasi:cli/environment@0.2.0\" (instance (export \"f\" (func)))))";
    std::fs::write(&wasi, wat::parse_str(text).unwrap()).unwrap();
    let output = command(&[wasi.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("imports wasi:cli/environment@0.2.0") && told.contains("--stub-wasi"), "{told}");

    let output =
        command(&[kit::component("adapter-bedrock.wasm").to_str().unwrap(), "--settings", "{\"region\": 1}", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["conformant"]), (Some(1), &Value::Bool(false)));
    assert_eq!(told["failures"][0]["area"], "settings", "{told:#}");
    assert!(told["failures"][0]["right"].as_str().unwrap().contains("--settings"), "{told:#}");

    // With what the configuration is to allow it.
    let openai = kit::component("adapter-openai.wasm");
    for (limit, count, status) in [("--max-table-elements", "99", 2), ("--max-table-elements", "30000", 0)] {
        let output = command(&[openai.to_str().unwrap(), limit, count]);
        assert_eq!(output.status.code(), Some(status), "{count}: {}", String::from_utf8_lossy(&output.stderr));
    }

    let output = command(&["no-such.wasm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read no-such.wasm"));
    let output = command(&[kit::component("adapter-stub.wasm").to_str().unwrap(), "--settings", "[]"]);
    assert_eq!(output.status.code(), Some(2));
}
