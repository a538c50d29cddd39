//! The configuration read anew while requests run: what is served, what is refused, what goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use witgate_config::Config;
use witgate_host::{Body, BuildError, Host, Reloaded, Request};

use crate::kit::{self, Backend, PATIENCE, SSE_HEAD, chat, message_length, sse_chunk};

/// A configuration file in a folder of its own.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(toml: &str) -> Self {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        files.write(toml);
        files
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("witgate.toml")
    }

    fn write(&self, toml: &str) {
        std::fs::write(self.path(), toml).unwrap();
    }

    /// Puts a built component in its place, as a whole.
    fn component(&self, name: &str) {
        let temporary = self.dir.path().join("temporary");
        std::fs::copy(kit::component(name), &temporary).unwrap();
        std::fs::rename(temporary, self.dir.path().join("mine.wasm")).unwrap();
    }

    fn host(&self) -> Host {
        let host = Host::from_file(self.path()).cache_dir(Some(kit::cache())).build();
        host.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A client's key, and the operator's.
const KEYS: &str = "[keys.k]\nsecret = \"k-key\"\n[admin]\nkey = \"admin-key\"\n";

fn stub(more: &str) -> String {
    format!("{KEYS}[metrics]\nenabled = true\n[providers.stub]\nadapter = \"stub\"\n{more}")
}

fn question(model: &str, stream: bool) -> Request<Bytes> {
    Request {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        query: String::new(),
        headers: vec![
            ("content-type".into(), "application/json".into()),
            ("authorization".into(), "Bearer k-key".into()),
        ],
        body: Bytes::from(chat(model, stream)),
    }
}

/// Sends one chat request; status and body.
async fn ask(host: &Host, model: &str, stream: bool) -> (u16, String) {
    let answer = host.handle(question(model, stream)).await;
    let body = match answer.body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Stream(stream) => stream.map(|piece| piece.to_vec()).concat().await,
    };
    (answer.status, String::from_utf8(body).unwrap())
}

async fn request(host: &Host, method: &str, path: &str) -> (u16, String) {
    let answer = host
        .handle(Request {
            method: method.into(),
            path: path.into(),
            query: String::new(),
            headers: vec![("authorization".into(), "Bearer admin-key".into())],
            body: Bytes::new(),
        })
        .await;
    let Body::Whole(bytes) = answer.body else { panic!("{path} streams") };
    (answer.status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn json(host: &Host, method: &str, path: &str) -> (u16, Value) {
    let (status, body) = request(host, method, path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn a_file_that_has_changed_is_served_and_one_that_is_wrong_is_not() {
    let files = Files::new(&stub(""));
    let host = files.host();
    assert_eq!(host.reload().await, Ok(Reloaded::Unchanged));
    assert_eq!(ask(&host, "new", false).await.0, 404);
    let (_, first) = json(&host, "GET", "/admin/configuration").await;

    files.write(&stub("[models.new]\ntarget = \"stub/m\"\n"));
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    assert_eq!(ask(&host, "new", false).await.0, 200);
    let (_, second) = json(&host, "GET", "/admin/configuration").await;
    assert_ne!(first["digest"], second["digest"]);
    assert_eq!((&second["reloads"], &second["refused"]), (&1.into(), &Value::Null));

    files.write(&stub("[models.new]\ntarget = \"stbu/m\"\n"));
    let refused = host.reload().await.unwrap_err();
    assert!(refused.problems[0].contains("stbu") && refused.problems[0].contains("witgate.toml:"), "{refused}");
    assert_eq!(ask(&host, "new", false).await.0, 200, "the one before serves");
    let (_, third) = json(&host, "GET", "/admin/configuration").await;
    assert_eq!(third["digest"], second["digest"]);
    assert_eq!(
        (&third["refusals"], &third["refused"]["problems"][0]),
        (&1.into(), &refused.problems[0].clone().into())
    );
    let (status, told) = json(&host, "POST", "/admin/reload").await;
    assert_eq!((status, &told["error"]["code"]), (422, &"configuration_refused".into()), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("stbu"), "{told}");
    let (_, metrics) = request(&host, "GET", "/metrics").await;
    assert!(metrics.contains("witgate_configuration_up_to_date 0\n"), "{metrics}");

    // It is put right.
    files.write(&stub("[models.newer]\ntarget = \"stub/m\"\n"));
    let (status, told) = json(&host, "POST", "/admin/reload").await;
    assert_eq!((status, &told["reloaded"], &told["configuration"]["refused"]), (200, &true.into(), &Value::Null));
    assert_eq!(ask(&host, "newer", false).await.0, 200);
    assert_eq!(ask(&host, "new", false).await.0, 404);
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_refused_with_its_place() {
    let files = Files::new(&stub(""));
    let host = files.host();
    for (more, key) in [
        ("[server]\nlisten = \"127.0.0.1:1\"\n", "server.listen"),
        ("[server]\nthreads = 3\n", "server.threads"),
        ("[state]\nstore = \"file\"\npath = \"state.redb\"\n", "state"),
        ("[documents]\nkeep_for = \"3h\"\n", "documents"),
    ] {
        files.write(&stub(more));
        let refused = host.reload().await.unwrap_err();
        assert_eq!(refused.problems.len(), 1, "{refused}");
        assert!(refused.problems[0].contains(&format!("{key}: ")), "{refused}");
        assert!(refused.problems[0].contains("restart the gateway"), "{refused}");
    }
    assert!(!files.dir.path().join("state.redb").exists());
    assert_eq!(ask(&host, "stub/m", false).await.0, 200);
}

#[tokio::test]
async fn a_component_that_is_replaced_on_disk_answers_from_then_on_and_a_broken_one_does_not() {
    let answer = serde_json::json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "the new one"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    });
    let backend = Backend::json(&answer.to_string()).await;
    let files = Files::new(&format!(
        "{KEYS}[adapters.mine]\npath = \"mine.wasm\"\n[providers.p]\nadapter = \"mine\"\n\
         endpoint = \"{}\"\n",
        backend.url
    ));
    files.component("tests/hostile.wasm");
    let host = files.host();
    assert!(ask(&host, "p/m", false).await.1.contains("hello"));
    let before = host.adapters()[0].digest.clone();

    files.component("adapter-openai.wasm");
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    let (status, body) = ask(&host, "p/m", false).await;
    assert!(status == 200 && body.contains("the new one"), "{body}");
    assert_ne!(host.adapters()[0].digest, before);

    std::fs::write(files.dir.path().join("mine.wasm"), b"\0asm nonsense").unwrap();
    let refused = host.reload().await.unwrap_err();
    assert!(refused.problems[0].contains("adapters.mine"), "{refused}");
    assert!(ask(&host, "p/m", false).await.1.contains("the new one"));

    // What it did is counted on where it was.
    let (_, told) = json(&host, "GET", "/admin/adapters").await;
    let mine = told["data"].as_array().unwrap().iter().find(|one| one["name"] == "mine").unwrap().clone();
    assert_eq!((&mine["kind"], &mine["calls"]["encode"]["count"]), (&"adapter".into(), &3.into()), "{mine}");
    assert_eq!(mine["sha256"], host.adapters()[0].digest.as_str());
}

#[tokio::test]
async fn unchanged_components_are_not_compiled_again_even_without_a_cache() {
    let files = Files::new(&stub("[limits]\nadapter_call_timeout = \"30s\"\n"));
    let begun = Instant::now();
    let host = Host::from_file(files.path()).cache_dir(None).build().unwrap();
    let compiled = begun.elapsed();
    // A busy machine may be late now and then; what is compiled takes its seconds each time.
    let mut quickest = Duration::MAX;
    for round in 0..5 {
        let timeout = 20_000 + round;
        files.write(&stub(&format!(
            "[models.new]\ntarget = \"stub/m\"\n[limits]\nadapter_call_timeout = \"{timeout}ms\"\n"
        )));
        let begun = Instant::now();
        assert_eq!(host.reload().await, Ok(Reloaded::Changed));
        quickest = quickest.min(begun.elapsed());
        if quickest < compiled / 2 {
            break;
        }
    }
    assert!(quickest < compiled / 2, "{quickest:?}, where to compile took {compiled:?}");
    assert_eq!(ask(&host, "new", false).await.0, 200);

    let files = Files::new(&stub(""));
    let host = files.host();
    let before = host.cached();
    files.write(&stub("[models.new]\ntarget = \"stub/m\"\n"));
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    assert_eq!(host.cached(), before, "nothing was even looked for in the cache");
}

/// A backend that begins a stream, and ends it when it is told to.
async fn slow(go_on: Arc<Notify>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 16 * 1024];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(format!("{SSE_HEAD}{}", sse_chunk("one ")).as_bytes()).await.unwrap();
        go_on.notified().await;
        let end = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":\
                   [{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let end = format!("{}{:x}\r\n{end}\r\n0\r\n\r\n", sse_chunk("two"), end.len());
        stream.write_all(end.as_bytes()).await.unwrap();
        let _ = stream.read(&mut buffer).await;
    });
    url
}

#[tokio::test]
async fn a_stream_that_runs_ends_whole_on_the_old_one() {
    let go_on = Arc::new(Notify::new());
    let url = slow(Arc::clone(&go_on)).await;
    let files = Files::new(&format!("{KEYS}[providers.p]\nadapter = \"llama-cpp\"\nendpoint = \"{url}\"\n"));
    let host = files.host();
    let answer = host.handle(question("p/m", true)).await;
    let Body::Stream(stream) = answer.body else { panic!("{}", answer.status) };
    let mut stream = Box::pin(stream);
    let mut all = stream.next().await.unwrap().to_vec();
    files.write(&stub(""));
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    assert_eq!(host.in_flight(), 1, "the stream counts on the new one too");
    assert_eq!(ask(&host, "p/m", false).await.0, 404);
    assert_eq!(ask(&host, "stub/m", false).await.0, 200);
    go_on.notify_one();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece);
    }
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("one ") && all.contains("two") && all.ends_with("data: [DONE]\n\n"), "{all}");
    drop(stream);
    assert_eq!(host.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_requests_during_twenty_swaps_none_fails() {
    // Bounds that no call comes near, on a slow machine that does other things too.
    let files = Files::new(&stub("[limits]\nadapter_call_timeout = \"30s\"\n"));
    let host = Arc::new(files.host());
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (host, asked) = (Arc::clone(&host), Arc::clone(&asked));
            tokio::spawn(async move {
                while asked.fetch_add(1, Ordering::Relaxed) < 1_000 {
                    let (status, body) = ask(&host, "stub/m", client % 2 == 0).await;
                    assert_eq!(status, 200, "{body}");
                    assert!(body.contains("Hello"), "{body}");
                }
            })
        })
        .collect();
    for swap in 0..20 {
        // Other models, and other bounds, so that components are loaded anew.
        let timeout = 20_000 + swap;
        files.write(&stub(&format!(
            "[models.m{swap}]\ntarget = \"stub/m\"\n[limits]\nadapter_call_timeout = \"{timeout}ms\"\n"
        )));
        assert_eq!(host.reload().await, Ok(Reloaded::Changed), "swap {swap}");
        // So that the swaps are spread over the requests.
        while asked.load(Ordering::Relaxed) < (swap + 1) * 45 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let (_, metrics) = request(&host, "GET", "/metrics").await;
    let count: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("witgate_requests_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(count, 1_000.0, "{metrics}");
    assert!(metrics.contains("witgate_configuration_reloads_total 20\n"), "{metrics}");
    assert!(
        metrics.contains(
            "witgate_component_call_duration_seconds_count{component=\"stub\",kind=\"adapter\",call=\"encode\"} 1000"
        ),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_server_sees_changes_by_itself_and_keeps_its_connections() {
    let toml = |more: &str| {
        stub(&format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nreload_interval = \"20ms\"\nshutdown_timeout = \"1s\"\n{more}"
        ))
    };
    let files = Files::new(&toml(""));
    let host = files.host();
    let server = host.bind().await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut exchange = async |model: &str| {
        let body = chat(model, false);
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k-key\r\ncontent-type: application/json\r\ncontent-length";
        stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while message_length(&answer).is_none() {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(exchange("new").await.starts_with("HTTP/1.1 404 "));
    files.write(&toml("[models.new]\ntarget = \"stub/m\"\n"));
    let begun = Instant::now();
    while !exchange("new").await.starts_with("HTTP/1.1 200 ") {
        assert!(begun.elapsed() < PATIENCE, "never taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that is wrong, and then one that is right: the second is taken over.
    files.write("[providers");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(exchange("new").await.starts_with("HTTP/1.1 200 "));
    files.write(&toml("[models.newer]\ntarget = \"stub/m\"\n"));
    let begun = Instant::now();
    while !exchange("newer").await.starts_with("HTTP/1.1 200 ") {
        assert!(begun.elapsed() < PATIENCE, "never taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = stop.send(());
    drop(stream);
    assert_eq!(task.await.unwrap(), 0);
}

#[tokio::test]
async fn a_program_reads_its_configuration_as_it_likes() {
    let round = Arc::new(AtomicUsize::new(0));
    let of = Arc::clone(&round);
    let read = move || -> Result<Config, BuildError> {
        let round = of.fetch_add(1, Ordering::Relaxed);
        let text = format!("{KEYS}[providers.stub{round}]\nadapter = \"stub\"\n");
        Config::from_toml(&text, "made", &|_| None).map_err(BuildError::Config)
    };
    let host = Host::from_fn(None, read).cache_dir(Some(kit::cache())).build().unwrap();
    assert_eq!(ask(&host, "stub0/m", false).await.0, 200);
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    assert_eq!(ask(&host, "stub0/m", false).await.0, 404);
    assert_eq!(ask(&host, "stub1/m", false).await.0, 200);
}

#[tokio::test]
async fn a_configuration_that_a_program_makes_without_a_text_is_taken_over_each_time() {
    let bytes = Arc::new(AtomicUsize::new(10_000));
    let of = Arc::clone(&bytes);
    let read = move || -> Result<Config, BuildError> {
        let mut config = Config::builtin();
        config.limits.max_body_bytes = of.load(Ordering::Relaxed);
        Ok(config)
    };
    let host = Host::from_fn(None, read).cache_dir(Some(kit::cache())).build().unwrap();
    assert_eq!(ask(&host, "stub/m", false).await.0, 200);
    bytes.store(10, Ordering::Relaxed);
    assert_eq!(host.reload().await, Ok(Reloaded::Changed));
    assert_eq!(ask(&host, "stub/m", false).await.0, 413);
    // One that was given as a value cannot change.
    let host = Host::builder(Config::builtin()).cache_dir(Some(kit::cache())).build().unwrap();
    assert_eq!(host.reload().await, Ok(Reloaded::Unchanged));
}

#[tokio::test]
async fn what_a_component_does_wrong_is_counted_by_its_kind() {
    let backend = Backend::json("{}").await;
    let ways = [("trap", "trap"), ("loop", "time"), ("grow", "memory"), ("flood", "output"), ("aliased", "output")];
    let mut toml = KEYS.to_owned();
    // Whoever loops gets little time, and the others as much as they need on a busy machine.
    for (adapter, time) in [("brief", "100ms"), ("evil", "30s")] {
        toml += &format!(
            "[adapters.{adapter}]\npath = {:?}\nmax_memory_bytes = \"16MiB\"\ncall_timeout = \"{time}\"\n",
            kit::component("tests/hostile.wasm")
        );
    }
    let of = |way: &str| if way == "loop" { "brief" } else { "evil" };
    for (way, _) in ways {
        toml += &format!(
            "[providers.{way}]\nadapter = \"{}\"\nendpoint = \"{}\"\nsettings.do = \"{way}\"\n",
            of(way),
            backend.url
        );
    }
    let host = kit::host(&toml);
    let adapter = async |name: &str| {
        let (_, told) = json(&host, "GET", "/admin/adapters").await;
        told["data"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    };
    for (way, kind) in ways {
        let before = adapter(of(way)).await["failures"][kind].as_u64().unwrap();
        assert_eq!(ask(&host, &format!("{way}/m"), false).await.0, 502, "{way}");
        let after = adapter(of(way)).await["failures"].clone();
        assert!(after[kind].as_u64().unwrap() > before, "{way}: {after}");
    }
    let brief = adapter("brief").await;
    assert!(brief["calls"]["encode"]["p99_us"].as_f64().unwrap() > 90_000.0, "the loop: {brief}");
    let evil = adapter("evil").await;
    assert!(evil["memory"]["peak_bytes"].as_u64().unwrap() > 1 << 20, "{evil}");
    assert_eq!(evil["memory"]["limit_bytes"], 16 << 20);
    assert_eq!(evil["tables"]["limit_elements"], 20_000);
}
