//! Invariants 1 and 10: no component imports anything but types, and what an adapter does wrong (trap, loop, memory,
//! nonsense) fails its own request with a 502 that names it, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use witgate_host::sources::Kind;
use witgate_host::{Body, BuildError, Host, Plugin, Request, conformance};

use crate::kit::{self, Backend, ask};

/// Ways to misbehave before anything is sent, and what the client is told of each.
const ENCODING: &[(&str, &str)] = &[
    ("trap", "trapped: wasm `unreachable` instruction executed"),
    ("panic", "trapped: wasm `unreachable` instruction executed"),
    ("recurse", "trapped: "),
    ("loop", "ran longer than its limit of 100 ms for one call"),
    ("grow", "wanted more than its limit of 16 MiB of memory"),
    ("bad-path", "leaves its endpoint"),
    ("bad-header", "returned a value of header x-evil that HTTP does not allow"),
    ("bad-method", "asked for the HTTP method"),
    ("bad-auth", "returned the header authorization, which is the gateway's"),
    ("many", "wanted more than its limit of 16 MiB of memory"),
    ("aliased", "returned what cannot be read: too much data is being copied"),
    ("large", "wanted more than its limit of 16 MiB of memory"),
    ("gib", "wanted more than its limit of 16 MiB of memory"),
    ("bad-utf8", "utf-8"),
    ("bad-name", "returned the header name"),
    ("host", "returned the header host, which is the gateway's"),
];

/// Ways to misbehave with the answer.
const DECODING: &[(&str, &str)] = &[
    ("bad-framing", "asked for a framing"),
    ("start-trap", "trapped: wasm `unreachable` instruction executed"),
    ("start-loop", "ran longer than its limit of 100 ms for one call"),
    ("feed-trap", "trapped: wasm `unreachable` instruction executed"),
    ("feed-loop", "ran longer than its limit of 100 ms for one call"),
    ("feed-grow", "wanted more than its limit of 16 MiB of memory"),
    ("finish-trap", "trapped: wasm `unreachable` instruction executed"),
    ("finish-loop", "ran longer than its limit of 100 ms for one call"),
    ("finish-grow", "wanted more than its limit of 16 MiB of memory"),
    ("text-utf8", "utf-8"),
    ("no-start", "sent an event before `started`"),
    ("no-block", "added to block 7, which is not open"),
    ("early-done", "ended an answer that has no finish or an open block"),
    ("after-done", "sent an event after the last one"),
    ("flood", "events for 1 frames; at most 4096 for each are allowed"),
    ("blocks", "started block 0; 1 was next"),
];

/// A host with one provider for each way to misbehave, and one that behaves.
fn host(url: &str, ways: impl Iterator<Item = &'static str>) -> Host {
    let mut toml = format!(
        "[adapters.evil]\npath = {:?}\nmax_memory_bytes = \"16MiB\"\ncall_timeout = \"100ms\"\n\
         [providers.good]\nadapter = \"evil\"\nendpoint = \"{url}\"\n",
        kit::component("tests/hostile.wasm")
    );
    for way in ways {
        toml += &format!("[providers.\"{way}\"]\nadapter = \"evil\"\nendpoint = \"{url}\"\nsettings.do = \"{way}\"\n");
    }
    kit::host(&toml)
}

/// As [`host`], but only whoever loops has so little time: a busy machine may take a while to find that memory is at
/// its limit.
fn patient(url: &str, ways: impl Iterator<Item = &'static str>) -> Host {
    let mut toml = format!("[providers.good]\nadapter = \"evil\"\nendpoint = \"{url}\"\n");
    for (adapter, time) in [("brief", "100ms"), ("evil", "30s")] {
        toml += &format!(
            "[adapters.{adapter}]\npath = {:?}\nmax_memory_bytes = \"16MiB\"\ncall_timeout = \"{time}\"\n",
            kit::component("tests/hostile.wasm")
        );
    }
    for way in ways {
        let adapter = adapter_of(way);
        toml +=
            &format!("[providers.\"{way}\"]\nadapter = \"{adapter}\"\nendpoint = \"{url}\"\nsettings.do = \"{way}\"\n");
    }
    kit::host(&toml)
}

/// Which of the two adapters of [`patient`] misbehaves so.
fn adapter_of(way: &str) -> &'static str {
    if way.ends_with("loop") { "brief" } else { "evil" }
}

async fn each_fails_alone(ways: &'static [(&'static str, &'static str)]) {
    let backend = Backend::json("{}").await;
    let host = patient(&backend.url, ways.iter().map(|(way, _)| *way));
    for stream in [false, true] {
        for (way, told) in ways {
            let begun = Instant::now();
            let (status, body) = ask(&host, &format!("{way}/m"), stream).await;
            assert_eq!(status, 502, "{way}: {body}");
            let error: serde_json::Value = serde_json::from_str(&body).unwrap();
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains(&format!("adapter \"{}\"", adapter_of(way))), "{way}: {message}");
            assert!(message.contains(told), "{way}: {message}");
            assert_eq!(error["error"]["code"], "component_fault", "{way}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{way} took {:?}", begun.elapsed());
            // The next request is served.
            let (status, body) = ask(&host, "good/m", stream).await;
            assert_eq!(status, 200, "after {way}: {body}");
            assert!(body.contains("hello"), "after {way}: {body}");
        }
    }
}

#[tokio::test]
async fn an_adapter_that_misbehaves_while_it_encodes_fails_its_own_request_alone() {
    each_fails_alone(ENCODING).await;
}

#[tokio::test]
async fn an_adapter_that_misbehaves_with_the_answer_fails_its_own_request_alone() {
    each_fails_alone(DECODING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn innocent_requests_are_served_while_others_trap_and_loop() {
    let backend = Backend::json("{}").await;
    let host = std::sync::Arc::new(host(&backend.url, ["trap", "feed-trap", "grow", "loop"].into_iter()));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let host = std::sync::Arc::clone(&host);
        tasks.spawn(async move {
            for round in 0..20 {
                let bad = match (task + round) % 8 {
                    0 => "trap",
                    1 => "feed-trap",
                    2 if round < 2 => "loop",
                    3 => "grow",
                    _ => "",
                };
                if bad.is_empty() {
                    let (status, body) = ask(&host, "good/m", round % 2 == 0).await;
                    assert_eq!(status, 200, "{body}");
                    assert!(body.contains("hello"), "{body}");
                } else {
                    assert_eq!(ask(&host, &format!("{bad}/m"), false).await.0, 502, "{bad}");
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// The first time it takes a thread for as long as a call may take; from then on it has threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn once_an_adapter_has_looped_its_calls_hold_no_other_request_up() {
    const LIMIT: Duration = Duration::from_secs(2);
    let backend = Backend::json("{}").await;
    let host = std::sync::Arc::new(kit::host(&format!(
        "[adapters.evil]\npath = {:?}\ncall_timeout = \"2s\"\n\
         [adapters.calm]\npath = {:?}\ncall_timeout = \"30s\"\n[providers.good]\nadapter = \"calm\"\nendpoint = \"{url}\"\n\
         [providers.loop]\nadapter = \"evil\"\nendpoint = \"{url}\"\nsettings.do = \"loop\"\n\
         [providers.feed-loop]\nadapter = \"evil\"\nendpoint = \"{url}\"\nsettings.do = \"feed-loop\"\n",
        kit::component("tests/hostile.wasm"),
        kit::component("tests/hostile.wasm"),
        url = backend.url,
    )));
    // On the one worker, where requests are served, and not on the thread of the test.
    let begin = |model: &'static str| {
        let host = std::sync::Arc::clone(&host);
        tokio::spawn(async move { ask(&host, model, false).await })
    };
    assert_eq!(begin("loop/m").await.unwrap().0, 502);
    let loops = [begin("loop/m"), begin("feed-loop/m"), begin("loop/m")];
    // Who waits for a loop waits for all of its time; others on a busy machine now and then for a processor.
    let mut took = Vec::new();
    while !loops.iter().all(tokio::task::JoinHandle::is_finished) {
        let begun = Instant::now();
        let (status, body) = begin("good/m").await.unwrap();
        assert_eq!(status, 200, "{body}");
        took.push(begun.elapsed());
    }
    for looped in loops {
        assert_eq!(looped.await.unwrap().0, 502);
    }
    assert!(took.iter().filter(|took| **took < LIMIT / 2).count() > 3, "beside the loops they were served in {took:?}");
}

#[tokio::test]
async fn a_path_stays_below_its_endpoint_whatever_its_segments_hold() {
    let backend = Backend::json("{}").await;
    let host = patient(&backend.url, ["slash"].into_iter());
    assert_eq!(ask(&host, "slash/m", false).await.0, 200);
    let request = backend.requests().remove(0);
    assert!(request.starts_with("POST /..%252f../a%2F..%2F..%2Fb/%3Fq%23f HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn a_secret_of_another_provider_and_the_runtimes_credentials_are_not_an_adapters() {
    let (backend, theirs) = (Backend::json("{}").await, Backend::json("{}").await);
    let host = kit::host(&format!(
        "[adapters.evil]\npath = {:?}\n[providers.good]\nadapter = \"llama-cpp\"\nendpoint = \"{}\"\napi_key = \"s3cret\"\n\
         [providers.other-auth]\nadapter = \"evil\"\nendpoint = \"{url}\"\nsettings.do = \"other-auth\"\n\
         [providers.other-aws]\nadapter = \"evil\"\nendpoint = \"{url}\"\nsettings.do = \"other-aws\"\n",
        kit::component("tests/hostile.wasm"),
        theirs.url,
        url = backend.url,
    ));
    // The slot is one that its own provider has nothing in: the request goes without.
    assert_eq!(ask(&host, "other-auth/m", false).await.0, 200);
    let requests = backend.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].contains("s3cret") && !requests[0].contains("x-stolen"), "{}", requests[0]);
    let (status, body) = ask(&host, "other-aws/m", false).await;
    assert!(status >= 400 && body.contains("are for adapters that come with witgate"), "{status} {body}");
    assert_eq!(backend.requests().len(), 1, "nothing was sent");
}

#[tokio::test]
async fn an_adapter_that_has_seen_a_request_cannot_say_another_host() {
    let (backend, other) = (Backend::json("{}").await, Backend::json("{}").await);
    let port = |backend: &Backend| backend.url.rsplit(':').next().unwrap().to_owned();
    // A trusted one keeps what it knows of the request before.
    for trusted in [false, true] {
        let host = kit::host(&format!(
            "[adapters.evil]\npath = {:?}\ntrusted = {trusted}\n[providers.p]\nadapter = \"evil\"\n\
             settings.port = \"{}\"\nsettings.other = \"{}\"\n",
            kit::component("tests/hostile.wasm"),
            port(&backend),
            port(&other),
        ));
        for _ in 0..2 {
            assert_eq!(ask(&host, "p/m", false).await.0, 200, "trusted = {trusted}");
        }
    }
    assert_eq!((backend.requests().len(), other.requests()), (4, Vec::new()));
}

#[tokio::test]
async fn an_adapter_that_misbehaves_when_it_is_asked_for_a_probe_is_not_ready_and_nothing_else() {
    let ways = [
        ("probe-trap", "trapped: wasm `unreachable` instruction executed"),
        ("probe-loop", "ran longer than its limit of 100 ms for one call"),
        ("probe-grow", "wanted more than its limit of 16 MiB of memory"),
    ];
    let backend = Backend::json("{}").await;
    let host = patient(&backend.url, ways.iter().map(|(way, _)| *way));
    let ready = host
        .handle(Request {
            method: "GET".into(),
            path: "/ready".into(),
            query: String::new(),
            headers: vec![],
            body: Bytes::new(),
        })
        .await;
    let Body::Whole(body) = ready.body else { panic!("a stream") };
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((ready.status, &told["providers"]["good"]), (200, &"ready".into()), "{told}");
    for (way, why) in ways {
        let said = told["providers"][way].as_str().unwrap();
        let named = said.contains(&format!("adapter \"{}\"", adapter_of(way)));
        assert!(named && said.contains(why), "{way}: {said}");
        // It is asked for nothing that it does wrong otherwise.
        assert_eq!(ask(&host, &format!("{way}/m"), false).await.0, 200, "{way}");
    }
}

/// Ways of a policy to misbehave, and what the client is told of each.
const POLICY: &[(&str, &str)] = &[
    ("trap", "trapped: wasm `unreachable` instruction executed"),
    ("loop", "ran longer than its limit of 100 ms for one call"),
    ("grow", "wanted more than its limit of 16 MiB of memory"),
    ("bad-tag", "returned tags that break the rules"),
    ("feed-trap", "trapped: wasm `unreachable` instruction executed"),
    ("feed-loop", "ran longer than its limit of 100 ms for one call"),
    ("feed-grow", "wanted more than its limit of 16 MiB of memory"),
    ("hold", "holds back 1048576 bytes of an answer; at most 65536 are allowed"),
    ("swallow", ""),
    ("order", "before `started`"),
    ("after-done", "after the last one"),
];

#[tokio::test]
async fn a_policy_that_misbehaves_fails_its_own_request_alone() {
    let mut toml = "[providers.stub]\nadapter = \"stub\"\n[models.good]\ntarget = \"stub\"\n".to_owned();
    for (way, _) in POLICY.iter().chain(&[("good", "")]) {
        // A busy machine may take a while to find that memory is at its limit.
        let time = if way.ends_with("loop") { "100ms" } else { "30s" };
        toml += &format!(
            "[policies.{way}]\ncomponent = {:?}\nsettings.do = \"{way}\"\nmax_memory_bytes = \"16MiB\"\n\
             call_timeout = \"{time}\"\n[models.with-{way}]\ntarget = \"stub\"\npolicies = [\"{way}\"]\n",
            kit::component("tests/hostile-policy.wasm")
        );
    }
    let host = kit::host(&toml);
    for stream in [false, true] {
        for (way, told) in POLICY {
            let begun = Instant::now();
            let (status, body) = ask(&host, &format!("with-{way}"), stream).await;
            // One that waits for the end may find that the head of a stream has gone: the fault is then the stream's last event.
            let under_way = stream && *way == "after-done";
            assert!(status == 502 || under_way && status == 200, "{way}: {status} {body}");
            assert!(!body.contains("[DONE]"), "{way}: {body}");
            assert!(body.contains("component_fault") && body.contains("policy"), "{way}: {body}");
            assert!(body.contains(told), "{way}: {body}");
            assert!(!body.contains("smuggled"), "{way}: {body}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{way} took {:?}", begun.elapsed());
            // Neither one without a policy nor one with it, behaving, is touched.
            for model in ["good", "with-good"] {
                let (status, body) = ask(&host, model, stream).await;
                assert_eq!(status, 200, "{model} after {way}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn an_untrusted_adapter_gets_a_fresh_instance_for_each_request() {
    let backend = Backend::json("{}").await;
    let host = patient(&backend.url, std::iter::empty());
    for _ in 0..5 {
        assert_eq!(ask(&host, "good/m", false).await.0, 200);
    }
    // The guest counts in a static how often it has encoded.
    let requests = backend.requests();
    assert_eq!(requests.len(), 5);
    for request in requests {
        assert!(request.contains("x-encoded: 1\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_trusted_adapter_keeps_its_instance_until_it_traps() {
    let backend = Backend::json("{}").await;
    let host = kit::host(&format!(
        "[adapters.mine]\npath = {:?}\ntrusted = true\n[providers.good]\nadapter = \"mine\"\nendpoint = \"{url}\"\n\
         [providers.bad]\nadapter = \"mine\"\nendpoint = \"{url}\"\nsettings.do = \"feed-trap\"\n",
        kit::component("tests/hostile.wasm"),
        url = backend.url,
    ));
    for _ in 0..3 {
        assert_eq!(ask(&host, "good/m", false).await.0, 200);
    }
    assert_eq!(ask(&host, "bad/m", false).await.0, 502);
    assert_eq!(ask(&host, "good/m", false).await.0, 200);
    let counts: Vec<_> = backend
        .requests()
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("x-encoded: ")).unwrap().to_owned())
        .collect();
    // Loading the adapter encodes nothing; the fourth call spoils the instance, so that the fifth gets another.
    assert_eq!(counts, ["1", "2", "3", "4", "1"]);
}

/// A component with further memories or tables: behind its own sections come a core module, and so many instances of it.
fn with_more(component: &[u8], module: &str, instances: u8) -> Vec<u8> {
    let mut modules = 0;
    let mut depth = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            wasmparser::Payload::ModuleSection { .. } => {
                modules += u8::from(depth == 0);
                depth += 1;
            }
            wasmparser::Payload::ComponentSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    let instances: Vec<u8> = std::iter::once(instances).chain((0..instances).flat_map(|_| [0, modules, 0])).collect();
    let section = |id: u8, content: &[u8]| {
        // Numbers of one byte.
        assert!(content.len() < 128 && modules < 128);
        [&[id, content.len() as u8], content].concat()
    };
    [component, &section(1, &wat(module)), &section(2, &instances)].concat()
}

#[test]
fn an_adapter_with_a_table_beyond_its_limit_is_refused_and_another_has_its_own_limit() {
    let folder = tempfile::tempdir().unwrap();
    let wide = with_more(&kit_bytes(), "(module (table 30000 funcref))", 1);
    std::fs::write(folder.path().join("wide.wasm"), wide).unwrap();
    let toml = |limit: u32| {
        format!(
            "[adapters.one]\npath = \"wide.wasm\"\nmax_table_elements = 40000\n[providers.one]\nadapter = \"one\"\n\
             endpoint = \"http://127.0.0.1:1\"\n[adapters.two]\npath = \"wide.wasm\"\nmax_table_elements = {limit}\n\
             [providers.two]\nadapter = \"two\"\nendpoint = \"http://127.0.0.1:1\"\n"
        )
    };
    let build = |limit| kit::builder(&toml(limit)).base_dir(folder.path()).build();
    build(30_000).unwrap_or_else(|error| panic!("{error}"));
    let Err(BuildError::Config(problems)) = build(29_999) else { panic!("it was accepted") };
    let told = problems.to_string();
    assert!(told.contains("adapter \"two\" wanted more than its limit of 29999 elements in a table"), "{told}");
    assert!(!told.contains("adapter \"one\""), "{told}");
}

#[test]
fn what_a_configuration_may_allow_can_be_added_and_checked_before_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let told = |options: &conformance::Options, file: &Path| match conformance::Plugin::load(file, options) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    // 30,000 elements of 20,000, and 70 MiB of 64.
    for (name, module) in [("wide", "(module (table 30000 funcref))"), ("large", "(module (memory 1120))")] {
        let wasm = with_more(&kit_bytes(), module, 1);
        let loaded = Plugin::load(name, &wasm, None, Some(kit::cache())).map(|plugin| plugin.kind());
        assert_eq!(loaded, Ok(Kind::Adapter), "{name}");
        let file = folder.path().join(format!("{name}.wasm"));
        std::fs::write(&file, &wasm).unwrap();
        let mut options = conformance::Options::default();
        options.cache_dir = Some(kit::cache());
        assert_ne!(told(&options, &file), "", "{name}");
        options.bounds.table_elements = 30_000;
        options.bounds.memory_bytes = 80 << 20;
        assert_eq!(told(&options, &file), "", "{name}");
    }
}

#[test]
fn as_many_instances_can_be_held_as_requests_are_served_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // As many memories as an adapter may have.
    std::fs::write(folder.path().join("large.wasm"), with_more(&kit_bytes(), "(module (memory 1))", 3)).unwrap();
    let small = format!("{:?}", kit::component("tests/hostile.wasm"));
    for (adapter, memories) in [(small.as_str(), 1), ("\"large.wasm\"", 4)] {
        let toml = format!("[providers.a]\nadapter = {adapter}\nendpoint = \"http://127.0.0.1:1\"\n");
        let host = kit::builder(&toml).base_dir(folder.path()).build().unwrap_or_else(|error| panic!("{error}"));
        let adapter = host.adapters()[0].component.clone();
        let mut held = Vec::new();
        for at in 0..host.config().limits.max_concurrent_requests {
            let normaliser = host.normaliser().session().unwrap_or_else(|fault| panic!("{at}: {fault}"));
            let adapter = adapter.session().unwrap_or_else(|fault| panic!("{at} of {memories} memories: {fault}"));
            held.push((normaliser, adapter));
        }
        assert!(held.len() > 1000);
    }
}

/// What is wrong with a configuration whose one adapter is this component.
fn refusal(name: &str, wasm: &[u8]) -> String {
    let toml =
        "[adapters.bad]\npath = \"bad.wasm\"\n[providers.p]\nadapter = \"bad\"\nendpoint = \"http://127.0.0.1:1\"\n";
    refusal_of(toml, name, wasm)
}

/// What is wrong with a configuration that names this component `bad.wasm`.
fn refusal_of(toml: &str, name: &str, wasm: &[u8]) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("refusal-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bad.wasm"), wasm).unwrap();
    match kit::builder(toml).base_dir(folder).build() {
        Err(BuildError::Config(problems)) => problems.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{name} was accepted"),
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn a_component_that_imports_anything_but_types_is_refused_by_name() {
    // Every interface of WASI, of both versions, by which anything could be reached.
    let wasi = [
        "wasi:cli/environment",
        "wasi:cli/stdin",
        "wasi:cli/stdout",
        "wasi:cli/stderr",
        "wasi:cli/exit",
        "wasi:filesystem/preopens",
        "wasi:filesystem/types",
        "wasi:sockets/tcp",
        "wasi:sockets/udp",
        "wasi:sockets/types",
        "wasi:sockets/ip-name-lookup",
        "wasi:sockets/network",
        "wasi:http/outgoing-handler",
        "wasi:http/client",
        "wasi:http/handler",
        "wasi:http/types",
        "wasi:io/streams",
        "wasi:io/poll",
        "wasi:random/random",
        "wasi:random/insecure",
        "wasi:clocks/monotonic-clock",
        "wasi:clocks/wall-clock",
        "wasi:clocks/system-clock",
        "wasi:config/store",
        "wasi:keyvalue/store",
        "wasi:keyvalue/atomics",
        "wasi:logging/logging",
    ];
    for (at, name) in wasi.iter().flat_map(|name| ["0.2.0", "0.3.0"].map(|v| format!("{name}@{v}"))).enumerate() {
        let text = format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
        let told = refusal(&format!("wasi-{at}"), &wat(&text));
        assert!(told.contains(&format!("imports {name}: a component may import nothing but types")), "{told}");
    }
    let cases = [
        (
            r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "f" (func)))))"#,
            "wasi:cli/environment@0.2.0",
        ),
        (r#"(component (import "wasi:sockets/tcp@0.3.0" (instance)))"#, "wasi:sockets/tcp@0.3.0"),
        (r#"(component (import "log" (func (param "m" string))))"#, "log"),
        // The name alone does not help: there may be nothing but types behind it.
        (
            r#"(component (import "witgate:adapter/types@0.1.0" (instance (export "f" (func)))))"#,
            "witgate:adapter/types@0.1.0",
        ),
        (
            r#"(component (import "witgate:adapter/types@0.1.0" (instance (export "r" (type (sub resource))))))"#,
            "witgate:adapter/types@0.1.0",
        ),
    ];
    for (at, (text, import)) in cases.iter().enumerate() {
        let told = refusal(&format!("import-{at}"), &wat(text));
        assert!(
            told.contains(&format!("adapter \"bad\" imports {import}: a component may import nothing but types")),
            "{told}"
        );
        assert!(told.contains("test.toml:1:11: adapters.bad: "), "{told}");
    }
}

#[test]
fn a_policy_that_imports_anything_but_types_is_refused_by_name() {
    let toml = "[policies.bad]\ncomponent = \"bad.wasm\"\n[providers.p]\nadapter = \"stub\"\n";
    let cases = [
        (
            r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "f" (func)))))"#,
            "wasi:cli/environment@0.2.0",
        ),
        (r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#, "wasi:clocks/wall-clock@0.2.0"),
        (r#"(component (import "log" (func (param "m" string))))"#, "log"),
        (
            r#"(component (import "witgate:policy/types@0.1.0" (instance (export "f" (func)))))"#,
            "witgate:policy/types@0.1.0",
        ),
        // The gateway's own types are a policy's to import, and the normaliser's are not.
        (r#"(component (import "witgate:normaliser/types@0.1.0" (instance)))"#, "witgate:normaliser/types@0.1.0"),
    ];
    for (at, (text, import)) in cases.iter().enumerate() {
        let told = refusal_of(toml, &format!("policy-import-{at}"), &wat(text));
        let message = format!("policy \"bad\" imports {import}: a component may import nothing but types");
        assert!(told.contains(&message) && told.contains("policies.bad: "), "{told}");
    }
}

#[test]
fn what_is_no_adapter_is_refused_with_what_it_is() {
    let told = refusal("text", b"hello");
    assert!(told.contains("is no WebAssembly component: it does not begin as one"), "{told}");
    let told = refusal("core", &wat("(module)"));
    assert!(told.contains("it is a core module; make a component of it"), "{told}");
    let told = refusal("damaged", &kit_bytes()[..2000]);
    assert!(told.contains("is no WebAssembly component: "), "{told}");
    let told = refusal("empty", &wat("(component)"));
    assert!(
        told.contains("does not export witgate:adapter/chat@0.1.0 as the contract has it: it exports nothing"),
        "{told}"
    );
    let told = refusal("normaliser", &std::fs::read(kit::component("normaliser.wasm")).unwrap());
    assert!(told.contains("imports witgate:normaliser/types@0.1.0"), "{told}");
}

fn kit_bytes() -> Vec<u8> {
    std::fs::read(kit::component("tests/hostile.wasm")).unwrap()
}

/// A component whose interface has the right name and functions of other types.
const OTHER_TYPES: &str = r#"(component
    (core module $m
        (memory (export "memory") 1)
        (func (export "f") (result i32) (i32.const 0))
        (func (export "n"))
        (func (export "d") (param i32) (result i32) (i32.const 0)))
    (core instance $i (instantiate $m))
    (type $decoder (resource (rep i32)))
    (func $describe (result u32) (canon lift (core func $i "f")))
    (func $n (canon lift (core func $i "n")))
    (component $c
        (import "decoder" (type $decoder (sub resource)))
        (import "describe" (func $describe (result u32)))
        (import "n" (func $n))
        (export $d "decoder" (type $decoder))
        (export "describe" (func $describe))
        (export "probe" (func $n))
        (export "encode" (func $n)))
    (instance $chat (instantiate $c
        (with "decoder" (type $decoder))
        (with "describe" (func $describe))
        (with "n" (func $n))))
    (export "witgate:adapter/chat@0.1.0" (instance $chat)))"#;

#[test]
fn an_adapter_that_lacks_a_function_is_refused_by_its_name() {
    let told = refusal("other", &wat(OTHER_TYPES));
    assert!(
        told.contains("does not export witgate:adapter/chat@0.1.0 [constructor]decoder as the contract has it: there is no such function"),
        "{told}"
    );
}

#[test]
fn the_built_in_components_import_nothing_but_types() {
    let host = kit::builder("[providers.stub]\nadapter = \"stub\"").all_adapters().build().unwrap();
    assert_eq!(host.adapters().len(), witgate_config::BUILTIN_ADAPTERS.len());
    for loaded in host.adapters() {
        assert_eq!(loaded.component.imports(), ["witgate:adapter/types@0.1.0"], "{}", loaded.source);
        assert_eq!(loaded.component.description().id, loaded.reference.as_str());
    }
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_place() {
    let toml = "[providers.p]\nadapter = \"no/such.wasm\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let Err(error) = kit::builder(toml).base_dir("/somewhere").build() else { panic!("it was accepted") };
    let told = error.to_string();
    assert!(told.starts_with("test.toml:2:11: providers.p.adapter: cannot read /somewhere/no/such.wasm: "), "{told}");
}
