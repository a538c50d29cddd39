//! What a hostile adapter or policy can do inside one composed component: what the gateway checks, it checks here too; what
//! the host bounds for each call, here the runtime bounds for the whole instance. docs/isolation.md has the table.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wasmtime::component::Component;
use witgate_wasi_serve::Options;

use crate::common::{Backend, Client, Gateway, composed};

/// The gateway with an adapter and a policy that misbehave, and with the stub; on a host that has nothing of Spin's.
fn hostile() -> &'static Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        composed(
            &[("custom", "tests/hostile.wasm"), ("stub", "adapter-stub.wasm"), ("llama-cpp", "adapter-llama-cpp.wasm")],
            &[("custom-policy", "tests/hostile-policy.wasm")],
        )
    })
}

/// A configuration with one provider for each way to misbehave, and some that behave.
fn config(backend: &Backend, ways: &[&str]) -> String {
    let mut toml = "[adapters.custom]\npath = \"custom.wasm\"\n[providers.stub]\nadapter = \"stub\"\n".to_owned();
    for way in ways.iter().chain(&["good"]) {
        toml += &format!(
            "[providers.{way}]\nadapter = \"custom\"\nendpoint = \"http://{}/base\"\nsettings.do = \"{way}\"\n",
            backend.address
        );
    }
    toml
}

async fn gateway(config: String, more: Options) -> Gateway {
    Gateway::start(hostile(), Options { config: Some(config), plain: true, ..more }).await
}

async fn ask(gateway: &Gateway, model: &str) -> Client {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello there"}}]}}"#);
    gateway.post("/v1/chat/completions", &body).await
}

/// How long a request may take where one loops. Who behaves may need more on a busy machine, and is asked elsewhere, or
/// again.
const BRIEF: Duration = Duration::from_secs(2);

/// That others are served where each has no more time than [`BRIEF`].
async fn serves_in_time(gateway: &Gateway, after: &str) {
    let mut last = (0, String::new());
    for _ in 0..5 {
        let (status, _, body) = ask(gateway, "stub/m").await.whole().await;
        if status == 200 {
            return;
        }
        last = (status, body);
    }
    panic!("after {after}: {last:?}");
}

/// That others are served.
async fn serves(gateway: &Gateway, after: &str) {
    let (status, _, body) = ask(gateway, "stub/m").await.whole().await;
    assert_eq!(status, 200, "after {after}: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_breaks_the_contract_is_refused_by_name_and_not_sent() {
    let told = [
        ("bad-path", "leaves its endpoint"),
        ("bad-header", "returned a value of header x-evil that HTTP does not allow"),
        ("bad-name", "returned the header name"),
        ("bad-method", "asked for the HTTP method"),
        ("bad-auth", "returned the header authorization, which is the gateway's"),
        ("host", "returned the header host, which is the gateway's"),
    ];
    let mut backend = Backend::start().await;
    let gateway = gateway(config(&backend, &told.map(|(way, _)| way)), Options::default()).await;
    for (way, told) in told {
        let (status, body) = ask(&gateway, &format!("{way}/m")).await.json().await;
        let message = body["error"]["message"].as_str().expect("a message");
        assert_eq!((status, body["error"]["code"].as_str()), (502, Some("component_fault")), "{way}: {body}");
        assert!(message.contains("adapter \"custom\"") && message.contains(told), "{way}: {message}");
        serves(&gateway, way).await;
    }
    // The first request that comes is one that behaves.
    let _client = ask(&gateway, "good/m").await;
    assert!(backend.request().await.request.starts_with("POST /base/v1/answer HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_stays_below_its_endpoint_whatever_its_segments_hold() {
    let mut backend = Backend::start().await;
    let gateway = gateway(config(&backend, &["slash"]), Options::default()).await;
    let _client = ask(&gateway, "slash/m").await;
    let request = backend.request().await.request;
    assert!(request.starts_with("POST /base/..%252f../a%2F..%2F..%2Fb/%3Fq%23f HTTP/1.1\r\n"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_another_provider_and_the_runtimes_credentials_are_not_an_adapters() {
    let mut backend = Backend::start().await;
    let toml = config(&backend, &["other-auth", "other-aws"])
        + "[providers.keyed]\nadapter = \"llama-cpp\"\nendpoint = \"http://127.0.0.1:1\"\napi_key = \"${KEY}\"\n";
    let names = ["key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    let variables = names.map(|name| (name.to_owned(), "s3cret-value".to_owned())).into();
    let gateway = gateway(toml, Options { variables, ..Options::default() }).await;
    let (status, body) = ask(&gateway, "other-aws/m").await.json().await;
    assert!(status >= 400 && body.to_string().contains("are for adapters that come with witgate"), "{body}");
    // That one sent nothing, so the next that comes is this one.
    let _client = ask(&gateway, "other-auth/m").await;
    let request = backend.request().await.request;
    assert!(!request.contains("s3cret") && !request.contains("x-stolen"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_has_seen_a_request_cannot_say_another_host() {
    let (mut backend, mut other) = (Backend::start().await, Backend::start().await);
    let toml = format!(
        "[adapters.custom]\npath = \"custom.wasm\"\n[providers.p]\nadapter = \"custom\"\n\
         settings.port = \"{}\"\nsettings.other = \"{}\"\n",
        backend.address.port(),
        other.address.port()
    );
    let allow = [&backend, &other].map(|backend| backend.address.to_string()).into();
    let gateway = gateway(toml, Options { allow, ..Options::default() }).await;
    for _ in 0..2 {
        let _client = ask(&gateway, "p/m").await;
        tokio::select! {
            connection = backend.request() => assert!(connection.request.starts_with("POST /v1/answer HTTP/1.1\r\n")),
            _ = other.request() => panic!("the other host was asked"),
        }
    }
}

/// Each takes its instance with it, and what that serves; the next request has another one.
#[tokio::test(flavor = "multi_thread")]
async fn what_traps_ends_its_instance_and_the_next_request_is_served() {
    let ways = ["trap", "panic", "recurse", "grow", "many", "aliased", "large", "gib", "bad-utf8"];
    let backend = Backend::start().await;
    // Less than `large` returns; without a limit that would be a request like any other.
    let options = Options { max_memory: Some(32 << 20), ..Options::default() };
    let gateway = gateway(config(&backend, &ways), options).await;
    for way in ways {
        let (status, _, body) = ask(&gateway, &format!("{way}/m")).await.whole().await;
        // Either the runtime answers for the instance that is gone, or the gateway, which was given too much.
        assert!(status >= 500, "{way}: {status} {body}");
        serves(&gateway, way).await;
    }
}

/// What the gateway finds in an answer, it finds here too; the rest takes the instance with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_adapter_does_wrong_with_an_answer_fails_the_request() {
    // How many events a frame may give the host bounds alone: what is flooded here has no `started`.
    let checked = [
        ("bad-framing", "asked for a framing"),
        ("no-start", "sent an event before `started`"),
        ("no-block", "added to block 7, which is not open"),
        ("early-done", "ended an answer that has no finish or an open block"),
        ("after-done", "sent an event after the last one"),
        ("flood", "sent an event before `started`"),
        ("blocks", "started block 0; 1 was next"),
    ];
    let ends = ["start-trap", "feed-trap", "feed-grow", "finish-trap", "finish-grow", "text-utf8"];
    let loops = ["start-loop", "feed-loop", "finish-loop"];
    let ways: Vec<_> = checked.iter().map(|(way, _)| *way).chain(ends).chain(loops).collect();
    let mut backend = Backend::start().await;
    let options = Options { max_memory: Some(32 << 20), ..Options::default() };
    let patient = gateway(config(&backend, &ways), options.clone()).await;
    let brief = gateway(config(&backend, &ways), Options { timeout: Some(BRIEF), ..options }).await;
    for way in ways {
        let gateway = if loops.contains(&way) { &brief } else { &patient };
        let mut client = ask(gateway, &format!("{way}/m")).await;
        // Refused where the answer begins, not before the request is sent.
        let mut upstream = backend.request().await;
        upstream.whole("fine").await;
        let (status, _, body) = client.whole().await;
        match checked.iter().find(|(checked, _)| *checked == way) {
            Some((_, told)) => {
                assert_eq!(status, 502, "{way}: {body}");
                assert!(body.contains("component_fault") && body.contains("adapter \\\"custom\\\""), "{way}: {body}");
                assert!(body.contains(told), "{way}: {body}");
            }
            None => assert!(status >= 500, "{way}: {status} {body}"),
        }
        match loops.contains(&way) {
            true => serves_in_time(gateway, way).await,
            false => serves(gateway, way).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loops_is_ended_by_the_runtimes_timeout_and_the_next_request_is_served() {
    let backend = Backend::start().await;
    let options = Options { timeout: Some(BRIEF), ..Options::default() };
    let gateway = gateway(config(&backend, &["loop"]), options).await;
    serves_in_time(&gateway, "nothing").await;
    let begun = Instant::now();
    let mut looping = ask(&gateway, "loop/m").await;
    let (status, _, _) = looping.whole().await;
    assert!(status >= 500 && begun.elapsed() >= Duration::from_millis(1900), "{status} after {:?}", begun.elapsed());
    serves_in_time(&gateway, "the loop").await;
}

/// What an adapter keeps it keeps for as long as its instance lives: a fresh one for each request is the runtime's to give.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_between_requests_lives_as_long_as_the_runtimes_instance() {
    let mut backend = Backend::start().await;
    let mut counts = Vec::new();
    for max_requests in [1, 128] {
        let options = Options { max_requests, ..Options::default() };
        let gateway = gateway(config(&backend, &[]), options).await;
        for _ in 0..3 {
            let mut client = ask(&gateway, "good/m").await;
            let mut upstream = backend.request().await;
            let count = upstream.request.lines().find_map(|line| line.strip_prefix("x-encoded: ")).map(str::to_owned);
            counts.push(count.expect("a count"));
            upstream.whole("fine").await;
            client.whole().await;
        }
    }
    assert_eq!(counts, ["1", "1", "1", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_misbehaves_fails_its_own_request_alone() {
    let backend = Backend::start().await;
    let ways = [
        ("bad-tag", "returned tags that break the rules"),
        ("hold", "holds back 1048576 bytes of an answer; at most 65536 are allowed"),
        ("swallow", ""),
        ("order", "before `started`"),
        ("after-done", "after the last one"),
        ("trap", ""),
        ("feed-trap", ""),
        ("loop", ""),
        ("feed-loop", ""),
        ("grow", ""),
    ];
    let mut toml = config(&backend, &[]);
    for (way, _) in ways {
        toml += &format!(
            "[policies.{way}]\ncomponent = \"custom-policy.wasm\"\nsettings.do = \"{way}\"\n\
             [models.with-{way}]\ntarget = \"stub\"\npolicies = [\"{way}\"]\n"
        );
    }
    let options = Options { max_memory: Some(64 << 20), ..Options::default() };
    let patient = gateway(toml.clone(), options.clone()).await;
    let brief = gateway(toml, Options { timeout: Some(BRIEF), ..options }).await;
    for (way, told) in ways {
        let gateway = if way.ends_with("loop") { &brief } else { &patient };
        let (status, _, body) = ask(gateway, &format!("with-{way}")).await.whole().await;
        assert!(status >= 500 && body.contains(told), "{way}: {status} {body}");
        assert!(!body.contains("smuggled"), "{way}: {body}");
        match way.ends_with("loop") {
            true => serves_in_time(gateway, way).await,
            false => serves(gateway, way).await,
        }
    }
}

/// `open` finds no store, and what a configuration says of one is told.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_value_store_a_configuration_that_wants_one_is_refused() {
    let backend = Backend::start().await;
    let toml = config(&backend, &[]) + "[state]\nstore = \"key-value\"\n";
    let gateway = gateway(toml, Options::default()).await;
    assert_eq!(ask(&gateway, "stub/m").await.json().await.0, 500);
    let line = gateway.logged("misconfigured").await;
    assert!(line.contains("state.store") && line.contains("there is none"), "{line}");
}
