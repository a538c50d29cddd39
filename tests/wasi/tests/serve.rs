//! The application of `spin.toml`, in the handler that Spin stands on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use witgate_wasi_serve::Options;

use crate::common::{Backend, Client, Gateway, answers_in_capitals, component, manifest, witgate};

/// By when the gateway has left its backend, on a busy machine too: long before the keep-alive comment after 15 s, with
/// which it would notice anyhow that its client has gone.
const SOON: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_the_stub_answers() {
    let gateway = Gateway::start(witgate(), Options::default()).await;
    let (status, answer) = gateway.chat(false).await.json().await;
    assert_eq!((status, answer["choices"][0]["message"]["content"].as_str()), (200, Some("[stub] hello there")));
    let streamed = gateway.chat(true).await.until("data: [DONE]").await;
    assert!(streamed.contains("text/event-stream") && streamed.contains(r#""content":"there""#), "{streamed}");
    let (status, ready) = gateway.get("/ready").await.json().await;
    assert_eq!((status, ready["providers"]["stub"].as_str()), (200, Some("ready")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_holds_its_own_adapter() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::with(&format!(
        "[adapters.custom]\npath = \"in-a-slot.wasm\"\n\
         [providers.llama-cpp]\nadapter = \"llama-cpp\"\nendpoint = \"http://{0}\"\n\
         [providers.openai]\nadapter = \"openai\"\nendpoint = \"http://{0}/of-openai\"\napi_key = \"k\"\n\
         [providers.stub]\nadapter = \"stub\"\n\
         [providers.custom]\nadapter = \"custom\"\nendpoint = \"stub:\"\n",
        backend.address
    ))
    .await;
    let ask = |provider: &str| {
        format!(r#"{{"model":"{provider}/m","messages":[{{"role":"user","content":"hello there"}}]}}"#)
    };
    for (provider, line) in
        [("llama-cpp", "POST /v1/chat/completions HTTP/1.1"), ("openai", "POST /of-openai/chat/completions HTTP/1.1")]
    {
        let mut client = gateway.post("/v1/chat/completions", &ask(provider)).await;
        let mut upstream = backend.request().await;
        assert!(upstream.request.starts_with(line), "{provider}: {}", upstream.request);
        upstream.whole("fine").await;
        assert_eq!(client.json().await.0, 200, "{provider}");
    }
    for provider in ["stub", "custom"] {
        let (status, answer) = gateway.post("/v1/chat/completions", &ask(provider)).await.json().await;
        let content = answer["choices"][0]["message"]["content"].as_str();
        assert_eq!((status, content), (200, Some("[stub] hello there")), "{provider}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_arrive_one_by_one() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    assert!(upstream.request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", upstream.request);
    upstream.begin().await;
    for token in ["one", "two", "three"] {
        // Each must have come before the next is sent: nothing waits for more.
        upstream.token(token).await;
        client.until(&format!(r#""content":"{token}""#)).await;
    }
    upstream.end().await;
    client.until("data: [DONE]").await;
    let line = gateway.logged(r#""outcome":"complete""#).await;
    assert!(line.contains(r#""stream":true"#) && !line.contains("hello"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_and_a_large_answer_pass_whole() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let text = "x".repeat(3 << 20);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let mut client = gateway.post("/v1/chat/completions", &body).await;
    let mut upstream = backend.request().await;
    assert!(upstream.request.contains(&text), "the request lost something");
    upstream.whole(&text).await;
    let (status, answer) = client.json().await;
    assert_eq!(status, 200);
    assert!(answer["choices"][0]["message"]["content"] == text.as_str(), "the answer lost something");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_a_client_that_leaves_between_tokens_cancels_the_backends_request() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    upstream.begin().await;
    upstream.token("one").await;
    client.until("one").await;
    assert!(upstream.stays(Duration::from_millis(300)).await, "the gateway left while its client waited");
    drop(client);
    let left = Instant::now();
    upstream.left().await;
    assert!(left.elapsed() < SOON, "after {:?}", left.elapsed());
    gateway.logged(r#""outcome":"client_gone""#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_a_client_that_leaves_a_stream_before_its_first_token_cancels_the_backends_request() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "server.keep_alive = \"50ms\"").await;
    for answers in [false, true] {
        let mut client = gateway.chat(true).await;
        let mut upstream = backend.request().await;
        if answers {
            upstream.begin().await;
        }
        client.until("\r\n\r\n").await;
        drop(client);
        let left = Instant::now();
        upstream.left().await;
        assert!(left.elapsed() < SOON, "after {:?}", left.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_a_client_that_does_not_read_and_leaves_cancels_the_backends_request() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    upstream.begin().await;
    upstream.token("one").await;
    client.until("one").await;
    let flood = tokio::spawn(async move {
        let text = "y".repeat(60_000);
        // Ends when the gateway takes no more, or has left.
        for _ in 0..1000 {
            if tokio::time::timeout(Duration::from_millis(300), upstream.token(&text)).await.is_err() {
                break;
            }
        }
        upstream
    });
    let mut upstream = flood.await.expect("the gateway stays while its client does");
    drop(client);
    let left = Instant::now();
    upstream.left().await;
    assert!(left.elapsed() < SOON, "after {:?}", left.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_instance_do_not_wait_for_each_other() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let mut slow = gateway.chat(true).await;
    let mut waiting = backend.request().await;
    waiting.begin().await;
    waiting.token("slow").await;
    slow.until("slow").await;
    let mut whole = gateway.chat(false).await;
    let mut silent = backend.request().await;
    for _ in 0..5 {
        let (status, _) = gateway.get("/health").await.json().await;
        assert_eq!(status, 200);
        let mut quick = gateway.chat(false).await;
        backend.request().await.whole("quick").await;
        assert_eq!(quick.json().await.0, 200);
    }
    silent.whole("whole").await;
    assert_eq!(whole.json().await.0, 200);
    waiting.end().await;
    slow.until("[DONE]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_an_instance_serves_get_others() {
    let gateway = Gateway::start(witgate(), Options { max_concurrent: 2, max_requests: 3, ..Options::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.chat(false).await);
    }
    for client in &mut clients {
        assert_eq!(client.json().await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_adapter_takes_a_slot_by_one_line() {
    answers_in_capitals("adapter-shout.wasm").await;
}

/// In the order of the policies' names; two policies of one file share its slot.
#[tokio::test(flavor = "multi_thread")]
async fn policies_of_ones_own_take_the_slots_one_after_another() {
    let mut changed = manifest();
    for (slot, file) in [("custom-policy", "policy-redactor.wasm"), ("custom-policy2", "tests/hostile-policy.wasm")] {
        let ours = format!("{slot} = {{ path = \"target/components/absent.wasm\"");
        assert!(changed.contains(&ours), "spin.toml has no line {ours}");
        changed = changed.replace(&ours, &format!("{slot} = {{ path = \"target/components/{file}\""));
    }
    let component = component(&changed);
    let config = "[providers.stub]\nadapter = \"stub\"\n[models.one]\ntarget = \"stub\"\npolicies = [\"a\", \"c\"]\n\
                  [models.m]\ntarget = \"stub\"\npolicies = [\"a\", \"b\", \"c\"]\n\
                  [policies.a]\ncomponent = \"z.wasm\"\n[policies.c]\ncomponent = \"z.wasm\"\n\
                  [policies.b]\ncomponent = \"y.wasm\"\nsettings.do = \"bad-tag\"\n";
    let start =
        async |config: String| Gateway::start(&component, Options { config: Some(config), ..Options::default() }).await;
    let gateway = start(config.to_owned()).await;
    let body = r#"{"model":"one","messages":[{"role":"user","content":"hello there"}]}"#;
    let (status, answer) = gateway.post("/v1/chat/completions", body).await.json().await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = gateway.chat(false).await.json().await;
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(status == 502 && message.contains("policy \"b\"") && message.contains("tags"), "{status} {answer}");
    // What is in no slot is told, and not left out.
    let third = format!("{config}[policies.d]\ncomponent = \"x.wasm\"\n");
    let fourth = format!("{third}[policies.e]\ncomponent = \"w.wasm\"\n");
    for (config, told) in [
        (third, "policies.d: the slot custom-policy3 of spin.toml is empty"),
        (fourth, "policies.e: spin.toml has 3 slots for components of your own"),
    ] {
        let gateway = start(config).await;
        assert_eq!(gateway.chat(false).await.json().await.0, 500);
        let line = gateway.logged("misconfigured").await;
        assert!(line.contains(told), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_come_from_the_runtime_and_a_secret_goes_to_its_backend_alone() {
    let mut backend = Backend::start().await;
    let config = "[providers.local]\nadapter = \"llama-cpp\"\nendpoint = \"${LLM_BASE_URL}\"\n\
                  api_key = \"${BACKEND_KEY}\"\n[models.\"*\"]\ntarget = \"local\"\n";
    let variables = BTreeMap::from([
        ("llm_base_url".to_owned(), format!("http://{}", backend.address)),
        ("backend_key".to_owned(), "s3cret-value".to_owned()),
    ]);
    let options = Options { config: Some(config.to_owned()), variables, ..Options::default() };
    let gateway = Gateway::start(witgate(), options).await;
    let mut client = gateway.chat(false).await;
    let mut upstream = backend.request().await;
    assert!(upstream.request.contains("authorization: Bearer s3cret-value"), "{}", upstream.request);
    upstream.whole("fine").await;
    let (status, head, body) = client.whole().await;
    assert_eq!(status, 200);
    gateway.logged(r#""outcome":"complete""#).await;
    for text in [head, body, gateway.log()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_the_older_services_variables_configure_it() {
    let mut backend = Backend::start().await;
    let variables = BTreeMap::from([
        ("llm_base_url".to_owned(), format!("http://{}", backend.address)),
        // As a variable that spin.toml gives no value.
        ("llm_provider".to_owned(), String::new()),
        ("llm_api_key".to_owned(), "of-clients".to_owned()),
    ]);
    let gateway = Gateway::start(witgate(), Options { variables, ..Options::default() }).await;
    assert_eq!(gateway.chat(false).await.json().await.0, 401);
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer of-clients\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = Client::connect(gateway.served.address, &request).await;
    let mut upstream = backend.request().await;
    upstream.whole("fine").await;
    assert_eq!(client.json().await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_in_the_log_and_fails_every_request_clearly() {
    let gateway = Gateway::with(
        "[providers.local]\nadapter = \"llama-cpp\"\nendpiont = \"http://x\"\n[models.\"*\"]\ntarget = \"local\"\n",
    )
    .await;
    for _ in 0..2 {
        let (status, answer) = gateway.chat(false).await.json().await;
        assert_eq!((status, answer["error"]["code"].as_str()), (500, Some("configuration_error")), "{answer}");
    }
    let line = gateway.logged("misconfigured").await;
    assert!(line.contains("witgate.toml:3:1") && line.contains(r#"did you mean \"endpoint\""#), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_is_in_no_slot_is_a_problem_of_the_configuration() {
    let gateway = Gateway::with(
        "[providers.p]\nadapter = \"adapters/mine.wasm\"\nendpoint = \"http://127.0.0.1:1\"\n[models.\"*\"]\ntarget = \"p\"\n",
    )
    .await;
    assert_eq!(gateway.get("/health").await.json().await.0, 500);
    let line = gateway.logged("misconfigured").await;
    assert!(line.contains("is in no slot of spin.toml") && line.contains("llama-cpp"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_allowed_is_refused_by_the_runtime() {
    let backend = Backend::start().await;
    // The address is put together where the runner does not look: a host that spin.toml would not list.
    let config = format!(
        "[providers.local]\nadapter = \"llama-cpp\"\nendpoint = \"${{NOWHERE:-http://{}}}\"\n[models.\"*\"]\ntarget = \"local\"\n",
        backend.address
    );
    let gateway = Gateway::with(&config).await;
    let (status, answer) = gateway.chat(false).await.json().await;
    assert_eq!(status, 502, "{answer}");
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.contains("allowed_outbound_hosts")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_there_and_one_that_breaks_off_are_told_apart() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let gateway = Gateway::over(address, "").await;
    let (status, answer) = gateway.chat(false).await.json().await;
    assert_eq!(status, 502, "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("connect")), "{answer}");

    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    upstream.begin().await;
    upstream.token("one").await;
    client.until("one").await;
    drop(upstream);
    let seen = client.until("error").await;
    assert!(!seen.contains("[DONE]"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_before_it_has_come() {
    let gateway = Gateway::with(
        "limits.max_body_bytes = \"64KiB\"\n[providers.s]\nadapter = \"stub\"\n[models.\"*\"]\ntarget = \"s\"\n",
    )
    .await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n";
    // By its length, nothing of it sent.
    let mut client = Client::connect(gateway.served.address, &format!("{head}content-length: 65537\r\n\r\n")).await;
    assert_eq!(client.json().await.0, 413);
    // Without a length, its end not sent.
    let mut client =
        Client::connect(gateway.served.address, &format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    let piece = "x".repeat(0x4000);
    for _ in 0..5 {
        client.stream.write_all(format!("4000\r\n{piece}\r\n").as_bytes()).await.expect("send a piece");
    }
    assert_eq!(client.json().await.0, 413);
    // The largest that fits is read.
    let mut client = gateway.post("/v1/chat/completions", &"x".repeat(0x10000)).await;
    assert_eq!(client.json().await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_timeout_is_told_by_its_name() {
    let mut backend = Backend::start().await;
    let gateway = Gateway::over(backend.address, "timeouts.first_token = \"100ms\"").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    let (status, answer) = client.json().await;
    assert_eq!(status, 504, "{answer}");
    assert!(answer.to_string().contains("first"), "{answer}");
    upstream.left().await;

    let gateway = Gateway::over(backend.address, "timeouts.idle = \"100ms\"").await;
    let mut client = gateway.chat(true).await;
    let mut upstream = backend.request().await;
    upstream.begin().await;
    upstream.token("one").await;
    let seen = client.until("\"error\"").await;
    assert!(seen.contains("idle"), "{seen}");
    upstream.left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_in_the_runtimes_key_value_store_over_instances() {
    let config =
        "[providers.stub]\nadapter = \"stub\"\n[models.\"*\"]\ntarget = \"stub\"\n[state]\nstore = \"key-value\"\n";
    // Each request has an instance of its own.
    let options = Options { config: Some(config.to_owned()), max_requests: 1, ..Options::default() };
    let gateway = Gateway::start(witgate(), options).await;
    let ask = r#"{"model":"m","input":"hello there"}"#;
    let (status, response) = gateway.post("/v1/responses", ask).await.json().await;
    assert_eq!(status, 200, "{response}");
    let path = format!("/v1/responses/{}", response["id"].as_str().expect("an id"));
    assert_eq!(gateway.get(&path).await.json().await, (200, response));
    assert_eq!(gateway.get("/v1/responses/resp_none").await.json().await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_a_component_cannot_have_is_a_problem_of_the_configuration() {
    let file = "[providers.stub]\nadapter = \"stub\"\n[state]\nstore = \"file\"\npath = \"state\"\n\
                [queues.q]\nkind = \"redis\"\nstream = \"s\"\nurl = \"redis://h\"\n";
    let gateway = Gateway::with(file).await;
    assert_eq!(gateway.chat(false).await.json().await.0, 500);
    let line = gateway.logged("misconfigured").await;
    assert!(line.contains("witgate.toml:4:9: state.store") && line.contains("key-value"), "{line}");
    assert!(line.contains("witgate.toml:6:2: queues") && line.contains("receives from no queue"), "{line}");
}
