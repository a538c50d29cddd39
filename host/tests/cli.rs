//! The program's commands, run as a user runs them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::kit;

/// Runs a command in a folder, with nothing in the environment that would change it.
fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_witgate"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("WITGATE_CACHE_DIR", kit::cache())
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails before it reads does not mind.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder(toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if !toml.is_empty() {
        std::fs::write(folder.path().join("witgate.toml"), toml).unwrap();
    }
    folder
}

#[test]
fn check_is_content_with_nothing_at_all_and_with_the_file_of_the_repository() {
    let output = run(folder("").path(), &["check"], &[], "");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "ok: 1 providers, 1 models, 7 adapters\n"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = run(&root, &["check"], &[], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn check_tells_all_that_the_components_know_to_be_wrong() {
    let toml = "[providers.a]\nadapter = \"llama-cpp\"\nendpoint = \"http://127.0.0.1:1\"\n[providers.a.settings]\nno_such = 1\n\
                [providers.b]\nadapter = \"no/such.wasm\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let output = run(folder(toml).path(), &["check"], &[], "");
    let told = err(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: witgate.toml:5:1: providers.a.settings: unknown key \"no_such\""), "{told}");
    assert!(told.contains("error: witgate.toml:7:11: providers.b.adapter: cannot read no/such.wasm: "), "{told}");
    assert!(told.ends_with("witgate: the configuration has 2 problems\n"), "{told}");
    // Serving it is refused in the same words.
    let output = run(folder(toml).path(), &["serve"], &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("witgate.toml:5:1: "), "{}", err(&output));
}

#[test]
fn the_file_of_the_folder_is_read_unless_the_environment_or_an_argument_says_otherwise() {
    let here = folder("[server]\nlissten = 1\n");
    let check = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = run(here.path(), &[&["check"], arguments].concat(), environment, "");
        (output.status.code(), err(&output))
    };
    let (code, told) = check(&[], &[]);
    assert!(code == Some(1) && told.contains("witgate.toml:2:1"), "{told}");
    let (code, told) = check(&[], &[("LLM_BASE_URL", "http://127.0.0.1:1")]);
    assert!(code == Some(0) && told.contains("--config witgate.toml chooses the file"), "{told}");
    let (code, told) = check(&["--config", "other.toml"], &[]);
    assert!(code == Some(1) && told.contains("cannot read the configuration other.toml: "), "{told}");
    let (code, told) = check(&[], &[("WITGATE_CONFIG", "witgate.toml"), ("LLM_BASE_URL", "http://127.0.0.1:1")]);
    assert!(code == Some(1) && told.contains("witgate.toml:2:1"), "{told}");
}

#[test]
fn adapters_lists_each_with_its_digest_and_imports() {
    let toml = format!(
        "[adapters.mine]\npath = {:?}\n[providers.stub]\nadapter = \"stub\"\n",
        kit::component("tests/hostile.wasm")
    );
    let output = run(folder(&toml).path(), &["adapters", "--json"], &[], "");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut names: Vec<_> = list.iter().map(|adapter| adapter["name"].as_str().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["anthropic", "bedrock", "llama-cpp", "mine", "ollama", "openai", "sagemaker", "stub"]);
    for adapter in &list {
        assert_eq!(adapter["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(adapter["imports"], serde_json::json!(["witgate:adapter/types@0.1.0"]));
        assert_eq!(adapter["trusted"].as_bool().unwrap(), adapter["name"] != "mine");
        assert!(adapter["operations"].as_array().unwrap().iter().any(|operation| operation == "chat"));
    }
    let named = run(folder(&toml).path(), &["adapters", "list", "--json"], &[("WITGATE_CONFIG", "witgate.toml")], "");
    assert_eq!(out(&named), out(&output), "{}", err(&named));
    let output = run(folder(&toml).path(), &["adapters"], &[], "");
    assert_eq!(out(&output).lines().count(), 9, "{}", out(&output));
    assert!(out(&output).contains("hostile.wasm"), "{}", out(&output));
}

#[test]
fn invoke_answers_from_stdin_and_from_a_file_and_fails_with_an_error() {
    let here = folder("");
    let output = run(here.path(), &["invoke"], &[], &kit::chat("any", false));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "[stub] Hello");

    std::fs::write(here.path().join("request.json"), kit::chat("any", true)).unwrap();
    let output = run(here.path(), &["invoke", "-i", "request.json"], &[], "");
    assert!(out(&output).ends_with("data: [DONE]\n\n"), "{}", out(&output));
    assert!(err(&output).contains("content-type: text/event-stream"), "{}", err(&output));

    let output = run(here.path(), &["invoke"], &[], "{\"model\": 1}");
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["error"]["param"], "model");
}

#[test]
fn invoke_brings_a_key_where_the_server_wants_one_and_shows_it_nowhere() {
    let here = folder("[server]\napi_keys = [\"sk-very-secret\"]\n[providers.stub]\nadapter = \"stub\"\n");
    let output = run(here.path(), &["invoke", "-i"], &[], &kit::chat("stub/m", false));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(!(out(&output) + &err(&output)).contains("sk-very-secret"));
}

#[test]
fn the_log_has_one_line_for_each_request_and_no_content() {
    let output = run(folder("").path(), &["invoke"], &[], &kit::chat("any", false).replace("Hello", "Sesame"));
    assert!(out(&output).contains("Sesame"));
    let log = err(&output);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let line = &lines[0];
    assert_eq!(line["target"], "witgate::request");
    for (key, value) in
        [("method", "POST"), ("path", "/v1/chat/completions"), ("outcome", "complete"), ("provider", "stub")]
    {
        assert_eq!(line[key], value, "{log}");
    }
    assert_eq!((&line["status"], &line["input_tokens"]), (&200.into(), &1.into()));
    assert_eq!(line["request_id"].as_str().unwrap().len(), 22);
    assert!(line["latency_ms"].is_number());
    assert!(!log.contains("Sesame"), "{log}");
    let output =
        run(folder("").path(), &["invoke", "--log-level", "witgate::request=off"], &[], &kit::chat("any", false));
    assert_eq!(err(&output), "");
}

#[test]
fn a_port_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(folder("").path(), &["serve", "--listen", &address], &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(&format!("cannot listen on {address}: ")), "{}", err(&output));
}
