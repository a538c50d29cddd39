//! `witgate compose`: what is composed is what the configuration names, and what it may reach is said.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::kit;

/// Runs `witgate compose` in a folder with this configuration, with nothing in the environment but what is given.
fn compose(toml: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("witgate.toml"), toml).unwrap();
    std::fs::copy(kit::component("tests/hostile.wasm"), folder.path().join("mine.wasm")).unwrap();
    let output = again(folder.path(), arguments, environment);
    (folder, output)
}

fn again(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_witgate"))
        .arg("compose")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("WITGATE_CACHE_DIR", kit::cache())
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn good(toml: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let (folder, output) = compose(toml, arguments, environment);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (folder, text(&output.stdout))
}

fn refused(toml: &str, environment: &[(&str, &str)]) -> String {
    let (folder, output) = compose(toml, &[], environment);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(!folder.path().join("composed").exists(), "something was written");
    text(&output.stderr)
}

fn imports(folder: &Path) -> Vec<String> {
    witgate_compose::imports(&std::fs::read(folder.join("composed/witgate.wasm")).unwrap()).unwrap()
}

/// Two providers, an adapter of one's own, a policy.
const CONFIG: &str = "[server]\napi_keys = [\"${CLIENT_KEY}\"]\npolicies = [\"redactor\"]\n\
    [policies.redactor]\n\
    [adapters.mine]\npath = \"mine.wasm\"\n\
    [providers.openai]\nadapter = \"openai\"\nendpoint = \"https://api.openai.com/v1\"\napi_key = \"${OPENAI_API_KEY:-}\"\n\
    [providers.local]\nadapter = \"mine\"\nendpoints = [\"${LOCAL_URL}\", \"http://[::1]:9/x\"]\n\
    headers = { x-team = \"${TEAM:-none}\" }\n\
    [models.\"*\"]\ntarget = \"openai\"\n";

const LOCAL: &[(&str, &str)] = &[("LOCAL_URL", "http://gpu.internal:8081/v1"), ("OPENAI_API_KEY", "sk-never-read")];

/// What Spin asks of its host, beside WASI's own.
const OF_SPIN: [&str; 3] = [
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft2",
];

/// What every composition imports: WASI as the gateway's standard library and its HTTP need it, in order.
const WASI: [&str; 23] = [
    "wasi:cli/environment@0.2.6",
    "wasi:cli/exit@0.2.6",
    "wasi:cli/stderr@0.2.6",
    "wasi:cli/stdin@0.2.6",
    "wasi:cli/stdout@0.2.6",
    "wasi:cli/terminal-input@0.2.6",
    "wasi:cli/terminal-output@0.2.6",
    "wasi:cli/terminal-stderr@0.2.6",
    "wasi:cli/terminal-stdin@0.2.6",
    "wasi:cli/terminal-stdout@0.2.6",
    "wasi:clocks/monotonic-clock@0.2.6",
    "wasi:clocks/monotonic-clock@0.3.0",
    "wasi:clocks/system-clock@0.3.0",
    "wasi:clocks/wall-clock@0.2.6",
    "wasi:filesystem/preopens@0.2.6",
    "wasi:filesystem/types@0.2.6",
    "wasi:http/client@0.3.0",
    "wasi:http/types@0.3.0",
    "wasi:io/error@0.2.6",
    "wasi:io/poll@0.2.6",
    "wasi:io/streams@0.2.6",
    "wasi:random/insecure-seed@0.2.6",
    "wasi:random/random@0.3.0",
];

#[test]
fn two_providers_and_an_adapter_of_ones_own_give_this_manifest_and_this_component() {
    let (folder, told) = good(CONFIG, &[], LOCAL);
    let manifest = std::fs::read_to_string(folder.path().join("composed/spin.toml")).unwrap();
    let expected = "# Written by `witgate compose` from witgate.toml: what it names may be reached, and nothing else.\n\
        # Do not edit: change the configuration, and compose again.\n\
        spin_manifest_version = 2\n\n\
        [application]\nname = \"witgate\"\nversion = \"0.1.0\"\n\
        description = \"An LLM gateway, composed for one configuration\"\n\n\
        # By SPIN_VARIABLE_NAME, `spin up --variable name=value`, or a vault. An empty one counts as unset.\n\
        [variables]\n\
        client_key = { required = true, secret = true }\n\
        local_url = { default = \"http://gpu.internal:8081/v1\" }\n\
        openai_api_key = { default = \"\", secret = true }\n\
        team = { default = \"\", secret = true }\n\n\
        [[trigger.http]]\nroute = \"/...\"\ncomponent = \"gateway\"\n\n\
        [component.gateway]\nsource = \"witgate.wasm\"\n\
        allowed_outbound_hosts = [\n    \"http://[::1]:9\",\n    \"http://gpu.internal:8081\",\n    \
        \"https://api.openai.com:443\",\n]\n\n\
        [component.gateway.variables]\n\
        client_key = \"{{ client_key }}\"\nlocal_url = \"{{ local_url }}\"\n\
        openai_api_key = \"{{ openai_api_key }}\"\nteam = \"{{ team }}\"\n";
    assert_eq!(manifest, expected);
    let mut found = imports(folder.path());
    found.sort();
    let mut expected = WASI.to_vec();
    expected.push(OF_SPIN[0]);
    expected.sort_unstable();
    assert_eq!(found, expected);
    for line in [
        "  calls    http://[::1]:9, http://gpu.internal:8081, https://api.openai.com:443\n",
        "  reads    CLIENT_KEY (secret), LOCAL_URL, OPENAI_API_KEY (secret), TEAM (secret)\n",
        "normaliser (built in)\n  nothing\n",
        "adapter \"mine\" (mine.wasm)\n  nothing\n",
        "adapter \"openai\" (built in)\n  nothing\n",
        "policy \"redactor\" (built in)\n  nothing\n",
        "spin up --from composed/spin.toml",
    ] {
        assert!(told.contains(line), "{line:?} is not in {told}");
    }
    let wasm = std::fs::read(folder.path().join("composed/witgate.wasm")).unwrap();
    for text in [told.as_bytes(), manifest.as_bytes(), &wasm] {
        assert!(!text.windows(13).any(|window| window == b"sk-never-read"), "a secret was written");
    }
    // The same configuration gives the same bytes; its own manifest is written over.
    assert_eq!(again(folder.path(), &[], LOCAL).status.code(), Some(0));
    assert_eq!(std::fs::read(folder.path().join("composed/witgate.wasm")).unwrap(), wasm);
}

/// What Spin reads, which refuses a key that it does not know, as far as it is written here.
#[test]
fn the_manifest_has_the_shape_that_spin_reads() {
    let toml = format!("{CONFIG}[state]\nstore = \"key-value\"\n[documents]\nconfigurations = \".\"\n");
    let (folder, _) = good(&toml, &[], LOCAL);
    let manifest = std::fs::read_to_string(folder.path().join("composed/spin.toml")).unwrap();
    let manifest: BTreeMap<String, Value> = toml::from_str(&manifest).unwrap();
    let keys: Vec<_> = manifest.keys().map(String::as_str).collect();
    assert_eq!(keys, ["application", "component", "spin_manifest_version", "trigger", "variables"]);
    let component = &manifest["component"]["gateway"];
    let keys: Vec<_> = component.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["allowed_outbound_hosts", "files", "key_value_stores", "source", "variables"]);
    assert_eq!(component["key_value_stores"], serde_json::json!(["default"]));
    assert_eq!(component["files"][0]["destination"], "/configurations");
    for (name, variable) in manifest["variables"].as_object().unwrap() {
        let variable = variable.as_object().unwrap();
        assert!(variable.contains_key("default") != variable.contains_key("required"), "{name}");
        assert_eq!(component["variables"][name], format!("{{{{ {name} }}}}"));
    }
    let found = imports(folder.path());
    assert!(OF_SPIN.iter().all(|import| found.iter().any(|found| found == import)), "{found:?}");
}

#[test]
fn for_other_hosts_nothing_of_spin_is_imported_and_the_command_names_the_variables() {
    let (folder, told) = good(CONFIG, &["--for", "wasi"], LOCAL);
    let mut found = imports(folder.path());
    found.sort();
    assert_eq!(found, WASI);
    assert!(!folder.path().join("composed/spin.toml").exists());
    // An instance for each request, since an adapter is not trusted.
    let command = "wasmtime serve -S cli --env CLIENT_KEY --env LOCAL_URL --env OPENAI_API_KEY --env TEAM \
                   --max-instance-reuse-count 1 --max-instance-concurrent-reuse-count 1 composed/witgate.wasm";
    assert!(told.contains(command), "{told}");
    assert!(told.contains("what is not trusted (adapter \"mine\") can keep what it sees"), "{told}");
    assert!(told.contains("lets it call all"), "{told}");
    // Without variables Spin's form is this one too.
    let (folder, _) = good("[providers.stub]\nadapter = \"stub\"\n", &[], &[]);
    assert!(!imports(folder.path()).iter().any(|import| OF_SPIN.contains(&import.as_str())));
}

#[test]
fn a_command_that_is_told_is_quoted_where_a_shell_needs_it() {
    let toml = "[providers.stub]\nadapter = \"stub\"\n";
    let (_folder, told) = good(toml, &["-o", "my gateway"], &[]);
    assert!(told.ends_with("\n    spin up --from 'my gateway/spin.toml'\n"), "{told}");
    let toml = format!("{toml}[documents]\nconfigurations = \"kept here\"\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("kept here")).unwrap();
    std::fs::write(folder.path().join("witgate.toml"), toml).unwrap();
    let output = again(folder.path(), &["--for", "wasi", "-o", "my gateway"], &[]);
    let told = text(&output.stdout);
    let command = "wasmtime serve -S cli --dir 'kept here::/configurations' 'my gateway/witgate.wasm'\n";
    assert!(told.ends_with(command), "{told}{}", text(&output.stderr));
}

#[test]
fn an_instance_for_each_request_is_asked_for_where_a_part_is_not_trusted_and_nowhere_else() {
    let flags = "--max-instance-reuse-count 1 --max-instance-concurrent-reuse-count 1";
    let stub = "[providers.stub]\nadapter = \"stub\"\n[policies.redactor]\n";
    let trusted = format!(
        "{stub}[adapters.mine]\npath = \"mine.wasm\"\ntrusted = true\n[providers.p]\nadapter = \"mine\"\n\
         endpoint = \"http://x\"\n"
    );
    let own = trusted.replace("trusted = true\n", "");
    for (toml, untrusted) in [(stub, false), (trusted.as_str(), false), (own.as_str(), true)] {
        for (runtime, command) in [("spin", "spin up"), ("wasi", "wasmtime serve")] {
            let (_folder, told) = good(toml, &["--for", runtime], &[]);
            assert!(told.contains(command), "{told}");
            assert_eq!(told.contains(flags), untrusted, "{told}");
            assert_eq!(told.contains("what is not trusted (adapter \"mine\")"), untrusted, "{told}");
        }
    }
}

#[test]
fn only_what_is_used_takes_room() {
    let size = |toml: &str| {
        let (folder, _) = good(toml, &[], &[]);
        std::fs::metadata(folder.path().join("composed/witgate.wasm")).unwrap().len()
    };
    let length = |name: &str| std::fs::metadata(kit::component(name)).unwrap().len();
    let base = length("gateway.wasm") + length("normaliser.wasm");
    let one = size("[providers.stub]\nadapter = \"stub\"\n");
    // The thirteen empty slots and what is said of them.
    assert!(one < base + length("adapter-stub.wasm") + 256 * 1024, "{one}");
}

#[test]
fn the_hosts_and_the_variables_of_aws_follow_from_its_regions() {
    let toml = "[providers.aws]\nadapter = \"bedrock\"\n[models.m]\ntargets = [{ provider = \"aws\", model = \"m\", regions = \
                [\"eu-west-1\"] }, \"aws/arn:aws:bedrock:us-west-2:1:inference-profile/x\"]\n";
    let (folder, told) = good(toml, &[], &[("AWS_REGION", "us-east-1")]);
    for region in ["us-east-1", "eu-west-1", "us-west-2"] {
        assert!(told.contains(&format!("https://bedrock-runtime.{region}.amazonaws.com:443")), "{told}");
    }
    let manifest = std::fs::read_to_string(folder.path().join("composed/spin.toml")).unwrap();
    for line in [
        "aws_access_key_id = { required = true, secret = true }",
        "aws_session_token = { default = \"\", secret = true }",
        "aws_region = { default = \"us-east-1\" }",
    ] {
        assert!(manifest.contains(line), "{manifest}");
    }
    // In Spin, a variable of the configuration's and AWS's own are one where they differ in their case alone.
    let toml = "[providers.aws]\nadapter = \"bedrock\"\nsettings.region = \"${aws_region}\"\n[providers.other]\nadapter = \
                \"bedrock\"\n[models.\"*\"]\ntarget = \"aws\"\n";
    let (folder, _) = good(toml, &[], &[("aws_region", "eu-west-1"), ("AWS_REGION", "eu-west-1")]);
    let manifest = std::fs::read_to_string(folder.path().join("composed/spin.toml")).unwrap();
    let lines: Vec<_> = manifest.lines().filter(|line| line.starts_with("aws_region = ")).collect();
    assert_eq!(lines, ["aws_region = { default = \"eu-west-1\" }", "aws_region = \"{{ aws_region }}\""]);
    let told = refused(toml, &[("aws_region", "eu-west-1"), ("AWS_REGION", "us-east-1")]);
    assert!(told.contains("AWS_REGION and aws_region are one variable in Spin, and have two values here"), "{told}");
    let told = refused("[providers.aws]\nadapter = \"bedrock\"\n", &[]);
    assert!(told.contains("witgate.toml:1:12: providers.aws: the host is not known"), "{told}");
}

#[test]
fn callbacks_open_all_hosts_and_it_says_so() {
    let toml = "[providers.stub]\nadapter = \"stub\"\n[jobs]\ncallback_secret = \"${HOOK}\"\n";
    let (_folder, told) = good(toml, &[], &[]);
    assert!(told.contains("  calls    http://*:*, https://*:*\n"), "{told}");
}

#[test]
fn what_a_component_cannot_have_is_a_problem_with_its_place() {
    let told = refused(CONFIG, &[]);
    assert!(
        told.contains("witgate.toml:13:14: providers.local.endpoints[0]: the environment variable LOCAL_URL"),
        "{told}"
    );
    let stub = "[providers.stub]\nadapter = \"stub\"\n";
    let told = refused(&format!("{stub}[state]\nstore = \"file\"\npath = \"x\"\n"), &[]);
    assert!(told.contains("witgate.toml:4:9: state.store: a component has neither files nor sockets"), "{told}");
    let queue = "[queues.q]\nkind = \"redis\"\nstream = \"s\"\nurl = \"redis://h\"\n";
    let told = refused(&format!("{stub}{queue}"), &[]);
    assert!(told.contains("witgate.toml:3:2: queues: a component receives from no queue"), "{told}");
    let told = refused(&format!("{stub}headers = {{ a = \"${{_A__B}}\" }}\n"), &[]);
    assert!(told.contains("witgate.toml:3:") && told.contains("Spin has no variable of the name _a__b"), "{told}");
    let told = refused(&format!("{stub}headers = {{ a = \"${{A}}\", b = \"${{a}}\" }}\n"), &[]);
    assert!(told.contains("are one variable in Spin"), "{told}");
    let told = refused("[providers.p]\nadapter = \"no/such.wasm\"\nendpoint = \"http://x\"\n", &[]);
    assert!(told.contains("witgate.toml:2:11: providers.p.adapter: cannot read no/such.wasm"), "{told}");
    let many: String = (0..12)
        .map(|n| {
            format!(
                "[adapters.a{n}]\npath = \"mine.wasm\"\n[providers.a{n}]\nadapter = \"a{n}\"\nendpoint = \"http://x\"\n"
            )
        })
        .collect();
    let told = refused(&many, &[]);
    assert!(told.contains("adapters.a9.path: the gateway has 11 slots, and this is one of 12"), "{told}");
}

#[test]
fn a_manifest_of_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("witgate.toml"), "[providers.stub]\nadapter = \"stub\"\n").unwrap();
    std::fs::write(folder.path().join("spin.toml"), "spin_manifest_version = 2\n").unwrap();
    let output = again(folder.path(), &["-o", "."], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("was not written by `witgate compose`"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("spin.toml")).unwrap(), "spin_manifest_version = 2\n");
    assert!(!folder.path().join("witgate.wasm").exists());
}

#[test]
fn an_adapter_and_a_policy_that_import_anything_but_types_are_not_composed() {
    let nosy = wat::parse_str(r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#).unwrap();
    let tables = [
        (
            "adapter",
            "[adapters.nosy]\npath = \"nosy.wasm\"\n[providers.p]\nadapter = \"nosy\"\nendpoint = \"http://x\"\n",
        ),
        ("policy", "[policies.nosy]\ncomponent = \"nosy.wasm\"\n[providers.p]\nadapter = \"stub\"\n"),
    ];
    for (kind, toml) in tables {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("witgate.toml"), toml).unwrap();
        std::fs::write(folder.path().join("nosy.wasm"), &nosy).unwrap();
        let output = again(folder.path(), &[], &[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        let told = text(&output.stderr);
        assert!(told.contains(&format!("{kind} \"nosy\" imports wasi:clocks/wall-clock@0.2.0: ")), "{told}");
        assert!(!folder.path().join("composed").exists(), "something was written");
    }
}
