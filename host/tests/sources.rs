//! Components from files, URLs and a real registry: what is pinned is what is loaded, and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use witgate_config::{Config, Digest};
use witgate_host::sources::{Entry, Fetched, Kind, Lock, Pin, Sources, lock_file};

use crate::kit::{self, registry::Registry};

const PROVIDER: &str = "[providers.p]\nadapter = \"mine\"\nendpoint = \"stub:\"\n";

/// A folder with a configuration, a lock file perhaps, and a cache of its own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(toml: &str) -> Self {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.write("witgate.toml", toml);
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Loads the adapter `mine` as a start does. The error is the key, the message and what would be right.
    fn load(&self) -> Result<Fetched, String> {
        let text = self.read("witgate.toml") + PROVIDER;
        let config = Config::from_toml(&text, "witgate.toml", &|_| None).map_err(|problems| problems.to_string())?;
        let sources =
            Sources::open(&config, self.path(), Some(&self.cache())).map_err(|problem| problem.to_string())?;
        sources.load(Kind::Adapter, "mine", &config.adapters["mine"].component).map_err(|refusal| {
            let problem = config.problem(&format!("adapters.mine.{}", refusal.key), refusal.message, refusal.help);
            problem.to_string()
        })
    }

    fn refusal(&self) -> String {
        match self.load() {
            Ok(fetched) => panic!("loaded {}", fetched.digest),
            Err(message) => message,
        }
    }

    /// What `witgate adapters add` would have written for `mine`.
    fn lock(&self, source: &str, wasm: &[u8], manifest: Option<Digest>) {
        let mut lock = Lock::read(&lock_file(&self.path().join("witgate.toml"))).unwrap();
        let entry = Entry {
            name: "mine".into(),
            source: source.into(),
            digest: Digest::of(wasm),
            manifest,
            size: wasm.len() as u64,
            fetched: "2026-11-21T00:00:00Z".into(),
        };
        lock.set(Kind::Adapter, entry);
        lock.write().unwrap();
    }

    /// The command that pins a component: `what` of this configuration.
    fn add(&self, what: &str) -> String {
        format!("run witgate adapters add --config {} {what}", self.path().join("witgate.toml").display())
    }

    fn witgate(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_witgate"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("WITGATE_CACHE_DIR", kit::cache())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that gives each path what it was told, and counts.
struct Web {
    address: String,
    asked: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// `answer` gives the whole answer for a path.
    fn new(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let web = Web { address, asked: Arc::default(), requests: Arc::default() };
        let (asked, requests) = (Arc::clone(&web.asked), Arc::clone(&web.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).unwrap_or(0) > 2 {}
                asked.fetch_add(1, Ordering::SeqCst);
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                requests.lock().unwrap().push(head);
                // The other side may have seen enough.
                let _ = stream.write_all(&answer(&path));
            }
        });
        web
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

#[test]
fn a_file_with_a_digest_is_held_to_it_and_one_without_is_not() {
    let place = Place::new("[adapters.mine]\npath = \"mine.wasm\"\n");
    place.write("mine.wasm", "one");
    assert_eq!(place.load().unwrap().pin, Pin::Nothing);

    let toml = format!("[adapters.mine]\npath = \"mine.wasm\"\ndigest = \"{}\"\n", Digest::of(b"one"));
    place.write("witgate.toml", toml);
    assert_eq!(place.load().unwrap().pin, Pin::Configuration);
    place.write("mine.wasm", "two");
    let told = place.refusal();
    assert_eq!(
        told,
        format!("witgate.toml:3:10: adapters.mine.digest: mine.wasm has the digest {}", Digest::of(b"two"))
    );
}

#[test]
fn a_file_that_was_locked_may_change_in_development_only() {
    let place = Place::new("[adapters.mine]\npath = \"mine.wasm\"\n");
    place.write("mine.wasm", "one");
    place.lock("mine.wasm", b"one", None);
    assert_eq!(place.load().unwrap().pin, Pin::Lock);
    place.write("mine.wasm", "two");
    let told = place.refusal();
    assert!(told.starts_with("witgate.toml:2:8: adapters.mine.path: mine.wasm has the digest sha256:"), "{told}");
    assert!(told.contains(&place.add(&format!("mine {}", place.path().join("mine.wasm").display()))), "{told}");
    place.write("witgate.toml", "[plugins]\ndevelopment = true\n[adapters.mine]\npath = \"mine.wasm\"\n");
    assert_eq!(place.load().unwrap().bytes, b"two");
}

#[test]
fn a_url_is_asked_once_and_what_it_gave_is_kept() {
    let web = Web::new(|path| if path == "/a.wasm?token=t" { ok(b"component") } else { ok(b"another") });
    let source = |digest: &[u8]| {
        format!("[adapters.mine]\nurl = \"{}\"\ndigest = \"{}\"\n", web.url("/a.wasm?token=t"), Digest::of(digest))
    };
    let place = Place::new(&source(b"component"));
    assert_eq!(place.load().unwrap().bytes, b"component");
    assert_eq!(place.load().unwrap().bytes, b"component");
    assert_eq!(web.asked(), 1);
    // What was damaged in the cache is fetched again.
    let kept = place.cache().join("sources").join(Digest::of(b"component").hex());
    std::fs::write(&kept, "compromised").unwrap();
    assert_eq!(place.load().unwrap().bytes, b"component");
    assert_eq!((web.asked(), std::fs::read(&kept).unwrap()), (2, b"component".to_vec()));

    place.write("witgate.toml", source(b"what it was"));
    let told = place.refusal();
    assert!(told.starts_with("witgate.toml:2:7: adapters.mine.url: http://"), "{told}");
    let digests = format!("has the digest {}, not {}", Digest::of(b"component"), Digest::of(b"what it was"));
    assert!(told.contains(&digests) && !told.contains("token"), "{told}");
    let add = place.add(&format!("mine {} (the URL with its query)", web.url("/a.wasm")));
    assert!(told.ends_with(&add), "{told}");
    assert!(!place.cache().join("sources").join(Digest::of(b"what it was").hex()).exists());
}

#[test]
fn what_a_url_may_do_has_bounds() {
    let web = Web::new(|path| match path {
        "/large" => b"HTTP/1.1 200 OK\r\ncontent-length: 268435457\r\n\r\n".to_vec(),
        "/short" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort".to_vec(),
        "/zipped" => b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/away" => redirect("http://198.51.100.1/a.wasm"),
        "/file" => redirect("file:///etc/passwd"),
        "/round" => redirect("/round"),
        "/once" => redirect("there/a.wasm"),
        "/there/a.wasm" => ok(b"component"),
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
    });
    let load = |path: &str| {
        let digest = Digest::of(b"component");
        let place = Place::new(&format!("[adapters.mine]\nurl = \"{}\"\ndigest = \"{digest}\"\n", web.url(path)));
        place.load().map(|fetched| fetched.bytes)
    };
    assert_eq!(load("/once").unwrap(), b"component");
    for (path, told) in [
        ("/large", "has more than the 268435456 bytes that are allowed"),
        ("/short", "ended early"),
        ("/zipped", "is encoded as \"gzip\", which was not asked for"),
        ("/away", "http://198.51.100.1/a.wasm is not encrypted"),
        ("/file", "file:///etc/passwd has no host"),
        ("/round", "redirects more than 5 times"),
        ("/none", "answers with 404"),
    ] {
        let message = load(path).unwrap_err();
        assert!(message.contains(told), "{path}: {message}");
    }
    let place = Place::new(&format!(
        "[adapters.mine]\nurl = \"http://127.0.0.1:1/a.wasm\"\ndigest = \"{}\"\n",
        Digest::of(b"component")
    ));
    assert!(place.refusal().contains("http://127.0.0.1:1/a.wasm does not answer: "), "{}", place.refusal());
}

#[test]
fn a_tag_that_was_moved_after_locking_changes_nothing() {
    let mut registry = Registry::start(false);
    let source = format!("{}/acme/shout:1.0", registry.address);
    let place = Place::new(&format!("[adapters.mine]\noci = \"{source}\"\n"));
    let first = registry.push("acme/shout", "1.0", b"first");

    // Without a lock a tag says nothing.
    let told = place.refusal();
    assert!(told.starts_with("witgate.toml:2:7: adapters.mine.oci: "), "{told}");
    assert!(told.ends_with(&place.add(&format!("mine oci:{source}"))), "{told}");

    place.lock(&format!("oci:{source}"), b"first", Some(first.clone()));
    assert_ne!(registry.push("acme/shout", "1.0", b"second"), first);
    let fetched = place.load().unwrap();
    assert_eq!((fetched.bytes.as_slice(), fetched.pin), (b"first".as_slice(), Pin::Lock));

    // In the cache it needs no registry; without a cache there is none to ask.
    registry.stop();
    assert_eq!(place.load().unwrap().bytes, b"first");
    std::fs::remove_dir_all(place.cache()).unwrap();
    assert!(place.refusal().contains("does not answer: "), "{}", place.refusal());
    registry.resume();
    assert_eq!(place.load().unwrap().bytes, b"first");

    // A lock entry is for its source alone.
    let other = format!("{}/acme/shout:2.0", registry.address);
    place.write("witgate.toml", format!("[adapters.mine]\noci = \"{other}\"\n"));
    let told = place.refusal();
    assert!(told.contains(&format!("witgate.lock has it from oci:{source}, not from oci:{other}")), "{told}");

    // In development a tag is what it is now.
    place.write("witgate.toml", format!("[plugins]\ndevelopment = true\n[adapters.mine]\noci = \"{other}\"\n"));
    registry.push("acme/shout", "2.0", b"third");
    assert_eq!(place.load().unwrap().bytes, b"third");
}

#[test]
fn a_reference_with_a_digest_needs_no_lock_and_no_registry_once_it_is_here() {
    let mut registry = Registry::start(false);
    let manifest = registry.push("shout", "1", b"component");
    let at = |digest: &Digest| format!("[adapters.mine]\noci = \"{}/shout:1@{digest}\"\n", registry.address);
    let (good, bad) = (at(&manifest), at(&Digest::of(b"another")));
    let place = Place::new(&good);
    let fetched = place.load().unwrap();
    assert_eq!((fetched.bytes.as_slice(), fetched.pin), (b"component".as_slice(), Pin::Configuration));
    registry.stop();
    assert_eq!(place.load().unwrap().bytes, b"component");
    registry.resume();
    place.write("witgate.toml", bad);
    assert!(place.refusal().contains("the registry has no such artifact"), "{}", place.refusal());
    // A digest of the component beside a tag that may move.
    let own = |wasm: &[u8]| {
        format!("[adapters.mine]\noci = \"{}/shout:1\"\ndigest = \"{}\"\n", registry.address, Digest::of(wasm))
    };
    place.write("witgate.toml", own(b"component"));
    assert_eq!(place.load().unwrap().pin, Pin::Configuration);
    place.write("witgate.toml", own(b"another"));
    let told = format!("has the digest {}, not {}", Digest::of(b"component"), Digest::of(b"another"));
    assert!(place.refusal().contains(&told), "{}", place.refusal());
}

#[test]
fn what_a_registry_has_under_the_name_must_be_a_component() {
    let registry = Registry::start(false);
    let config = "application/vnd.oci.image.config.v1+json";
    registry.push_as("image", "1", b"{}", config, b"layer", 5);
    let wasm = "application/vnd.wasm.config.v0+json";
    registry.push_as("large", "1", b"{}", wasm, b"layer", 268_435_457);
    registry.push_as("more", "1", b"{}", wasm, b"layer", 3);
    registry.push("some", "1", b"component");
    for (name, told) in [
        ("image:1", "is no WebAssembly component: its configuration is \"application/vnd.oci.image.config.v1+json\""),
        ("large:1", "has 268435457 bytes; at most 268435456 are allowed"),
        ("more:1", "has more than the 3 bytes that are allowed"),
        ("some:2", "the registry has no such artifact: manifest unknown"),
        ("none:1", "the registry has no such artifact"),
    ] {
        let source = format!("{}/{name}", registry.address);
        let place = Place::new(&format!("[plugins]\ndevelopment = true\n[adapters.mine]\noci = \"{source}\"\n"));
        let message = place.refusal();
        assert!(message.contains(told), "{name}: {message}");
    }
}

#[test]
fn credentials_are_those_of_docker_and_no_other_host_gets_them() {
    let registry = Registry::start(true);
    let wasm = std::fs::read(kit::component("adapter-stub.wasm")).unwrap();
    registry.push("private/stub", "1", &wasm);
    let place = Place::new(PROVIDER);
    let source = format!("{}/private/stub:1", registry.address);
    let docker = place.path().join("docker");
    std::fs::create_dir(&docker).unwrap();
    let add = || place.witgate(&["adapters", "add", "mine", &source], &[("DOCKER_CONFIG", &docker)]);
    let output = add();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("docker's configuration has none; `docker login"), "{}", err(&output));
    let auth = |text: &str| {
        let auths = serde_json::json!({"auths": {&registry.address: {"auth": text}}}).to_string();
        std::fs::write(docker.join("config.json"), auths).unwrap();
    };
    // "witgate:wrong"
    auth("d2l0Z2F0ZTp3cm9uZw==");
    let output = add();
    assert!(
        output.status.code() == Some(1) && err(&output).contains("does not let us read it (401)"),
        "{}",
        err(&output)
    );
    assert!(!err(&output).contains("wrong") && !err(&output).contains("d2l0Z2F0ZTp3cm9uZw"), "{}", err(&output));
    auth("d2l0Z2F0ZTpzM2NyZXQ=");
    let output = add();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(!place.read("witgate.lock").contains(kit::registry::PASSWORD));
}

/// A registry of one artifact, `a/b:1`, which is read with any token, and the service that gives such tokens to everybody.
fn public(wasm: Vec<u8>) -> (Web, Web) {
    let digest = Digest::of(&wasm);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest.as_str(), "size": 2},
        "layers": [{"mediaType": "application/wasm", "digest": digest.as_str(), "size": wasm.len()}],
    })
    .to_string();
    let token = Web::new(|_| ok(br#"{"token": "t0ken"}"#));
    let realm = token.url("/token");
    let seen = AtomicUsize::new(0);
    let registry = Web::new(move |path| match (path, seen.fetch_add(1, Ordering::SeqCst)) {
        (_, 0) => format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\ncontent-length: \
             0\r\nconnection: close\r\n\r\n"
        )
        .into_bytes(),
        ("/v2/a/b/manifests/1", _) => ok(manifest.as_bytes()),
        _ => ok(&wasm),
    });
    (registry, token)
}

#[test]
#[cfg(unix)]
fn what_is_public_is_read_where_dockers_credential_helper_has_nothing_for_its_registry() {
    use std::os::unix::fs::PermissionsExt as _;
    let wasm = std::fs::read(kit::component("adapter-stub.wasm")).unwrap();
    // It reads what it is asked, and fails in one of these words.
    for (says, is_added) in [
        ("echo 'credentials not found in native keychain'", true),
        ("echo 'credentials not found in native keychain' >&2", true),
        ("echo 's3cret: the keychain is locked'", false),
    ] {
        let (registry, token) = public(wasm.clone());
        let place = Place::new(PROVIDER);
        let docker = place.path().join("docker");
        std::fs::create_dir(&docker).unwrap();
        place.write("docker/config.json", r#"{"credsStore": "desktop"}"#);
        place.write("docker/docker-credential-desktop", format!("#!/bin/sh\nread -r asked\n{says}\nexit 1\n"));
        let helper = docker.join("docker-credential-desktop");
        std::fs::set_permissions(helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let source = format!("{}/a/b:1", registry.address);
        let output =
            place.witgate(&["adapters", "add", "mine", &source], &[("DOCKER_CONFIG", &docker), ("PATH", &docker)]);
        let told = err(&output);
        assert_eq!(output.status.code(), Some(if is_added { 0 } else { 1 }), "{says}: {told}");
        assert_eq!(token.asked(), usize::from(is_added), "{says}");
        if is_added {
            let asked = token.requests.lock().unwrap()[0].to_lowercase();
            assert!(!asked.contains("authorization"), "{asked}");
        } else {
            let failed = "docker's credential helper docker-credential-desktop failed";
            assert!(told.contains(failed) && !told.contains("s3cret"), "{told}");
        }
    }
}

#[test]
fn a_token_service_is_asked_and_its_token_goes_to_the_registry_alone() {
    let blobs = Web::new(|_| ok(b"component"));
    let (digest, elsewhere) = (Digest::of(b"component"), blobs.url("/blob"));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest.as_str(), "size": 2},
        "layers": [{"mediaType": "application/wasm", "digest": digest.as_str(), "size": 9}],
    })
    .to_string();
    let token = Web::new(|_| ok(br#"{"token": "t0ken"}"#));
    let realm = token.url("/token");
    // It cannot know what it was asked with: the first request is refused.
    let seen = Arc::new(AtomicUsize::new(0));
    let registry = Web::new(move |path| match (path, seen.fetch_add(1, Ordering::SeqCst)) {
        (_, 0) => format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\ncontent-length: \
             0\r\nconnection: close\r\n\r\n"
        )
        .into_bytes(),
        ("/v2/a/b/manifests/1", _) => ok(manifest.as_bytes()),
        _ => redirect(&elsewhere),
    });
    let source = format!("{}/a/b:1", registry.address);
    let place = Place::new(&format!("[plugins]\ndevelopment = true\n[adapters.mine]\noci = \"{source}\"\n"));
    assert_eq!(place.load().unwrap().bytes, b"component");
    let authorization = |web: &Web| -> Vec<bool> {
        web.requests
            .lock()
            .unwrap()
            .iter()
            .map(|head| head.to_lowercase().contains("authorization: bearer t0ken"))
            .collect()
    };
    assert_eq!(authorization(&registry), [false, true, true]);
    assert_eq!((authorization(&blobs), authorization(&token)), (vec![false], vec![false]));
    let asked = token.requests.lock().unwrap()[0].clone();
    assert!(asked.starts_with("GET /token?service=s&scope=repository%3Aa%2Fb%3Apull "), "{asked}");
}

#[test]
fn a_lock_file_that_was_broken_is_refused_with_its_line() {
    let place = Place::new("[adapters.mine]\npath = \"mine.wasm\"\n");
    place.write("mine.wasm", "one");
    place.write("witgate.lock", "version = 1\n[[adapter]]\nname = 1\n");
    assert!(place.refusal().contains("witgate.lock:3:1: invalid type"), "{}", place.refusal());
    place.write("witgate.lock", "version = 2\n");
    assert!(place.refusal().contains("has the version 2; this witgate reads 1"), "{}", place.refusal());
    // What the lock and the configuration say must be one.
    std::fs::remove_file(place.path().join("witgate.lock")).unwrap();
    place.lock("mine.wasm", b"two", None);
    place
        .write("witgate.toml", format!("[adapters.mine]\npath = \"mine.wasm\"\ndigest = \"{}\"\n", Digest::of(b"one")));
    assert!(place.refusal().contains("adapters.mine.digest: "), "{}", place.refusal());
}

#[test]
fn what_was_added_from_a_registry_serves_and_is_listed_inspected_and_removed() {
    let mut registry = Registry::start(false);
    let wasm = std::fs::read(kit::component("adapter-stub.wasm")).unwrap();
    let manifest = registry.push("acme/stub", "1.0", &wasm);
    let toml = "# Ours.\n[server]\nlisten = \"127.0.0.1:0\" # any port\n\n[providers.p]\nadapter = \"mine\" # to come\n\
                endpoint = \"stub:\"\n";
    let place = Place::new(toml);
    let source = format!("{}/acme/stub:1.0", registry.address);
    let output = place.witgate(&["adapters", "add", "mine", &source], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let told = out(&output);
    for part in [Digest::of(&wasm).as_str(), manifest.as_str(), "witgate:adapter/types@0.1.0", "operations    chat"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(place.read("witgate.toml"), format!("{toml}\n[adapters.mine]\noci = \"{source}\"\n"));
    let lock = place.read("witgate.lock");
    assert!(lock.contains(&format!("source = \"oci:{source}\"\ndigest = \"{}\"", Digest::of(&wasm))), "{lock}");

    // It is used, without the registry.
    registry.stop();
    let output = place.witgate(&["check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let mut server = Command::new(env!("CARGO_BIN_EXE_witgate"))
        .args(["serve", "--log", "json"])
        .current_dir(place.path())
        .env_clear()
        .env("WITGATE_CACHE_DIR", kit::cache())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if let Some(url) = line["url"].as_str() {
            break url.trim_start_matches("http://").to_owned();
        }
    };
    let body = kit::chat("p/any", false);
    let mut stream = TcpStream::connect(&address).unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[stub] Hello"), "{answer}");

    let output = place.witgate(&["adapters", "list", "--json"], &[]);
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mine = list.iter().find(|adapter| adapter["name"] == "mine").unwrap();
    assert_eq!((&mine["pinned"], &mine["source"]), (&"lock".into(), &format!("oci:{source}").into()));
    let output = place.witgate(&["adapters", "inspect", "mine", "--json"], &[]);
    let is: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&is["kind"], &is["sha256"]), (&"adapter".into(), &Digest::of(&wasm).hex().into()));
    assert!(is["memory_bytes"].as_u64().unwrap() > 0 && is["settings_schema"]["type"] == "object", "{is}");

    let output = place.witgate(&["adapters", "remove", "mine"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("the adapter \"mine\" is used by providers.p; change that first"),
        "{}",
        err(&output)
    );
    let unused = place.read("witgate.toml").replace("adapter = \"mine\"", "adapter = \"stub\"");
    place.write("witgate.toml", unused);
    let output = place.witgate(&["adapters", "remove", "mine"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(place.read("witgate.toml"), toml.replace("adapter = \"mine\"", "adapter = \"stub\""));
    assert!(!place.read("witgate.lock").contains("mine"));
}

#[test]
fn files_urls_and_policies_are_added_too_and_what_is_wrong_with_them_is_said() {
    let guard = std::fs::read(kit::component("policy-guard.wasm")).unwrap();
    let served = guard.clone();
    let web = Web::new(move |_| ok(&served));
    let toml = "[server]\npolicies = []\n[providers.p]\nadapter = \"stub\"\nendpoint = \"stub:\"\n";
    let place = Place::new(toml);
    let url = web.url("/guard.wasm");
    let output = place.witgate(&["adapters", "add", "ours", &url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let digest = Digest::of(&guard);
    let added = format!("{toml}\n[policies.ours]\nurl = \"{url}\"\ndigest = \"{digest}\"\n");
    assert_eq!(place.read("witgate.toml"), added);
    std::fs::create_dir(place.path().join("wasm")).unwrap();
    std::fs::copy(kit::component("adapter-stub.wasm"), place.path().join("wasm/mine.wasm")).unwrap();
    let output = place.witgate(&["adapters", "add", "mine", "./wasm/mine.wasm"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(place.read("witgate.toml").contains("[adapters.mine]\npath = \"./wasm/mine.wasm\"\n"));
    let output = place.witgate(&["check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let output = place.witgate(&["adapters"], &[]);
    let ours = out(&output).lines().find(|line| line.starts_with("ours")).unwrap().to_owned();
    assert!(ours.contains("(policy)") && ours.contains("configuration"), "{ours}");

    let before = (place.read("witgate.toml"), place.read("witgate.lock"));
    place.write("wasm/not.wasm", "not wasm");
    for (arguments, told) in [
        (&["adapters", "add", "x", "wasm/not.wasm"][..], "adapter \"x\" is no WebAssembly component"),
        (&["adapters", "add", "x", "wasm/none.wasm"], "cannot read wasm/none.wasm"),
        (&["adapters", "add", "X", "wasm/mine.wasm"], "\"X\" is not a name for an adapter"),
        (
            &["adapters", "add", "x", "shout"],
            "\"shout\" is neither a file that ends in \".wasm\", nor a URL, nor an artifact",
        ),
        (&["adapters", "add", "x", "ftp://h/a.wasm"], "has a scheme that is neither http nor https"),
        (&["adapters", "add", "x", "http://198.51.100.1/a.wasm"], "is not encrypted"),
        (&["adapters", "add", "--policy", "x", "wasm/mine.wasm"], "does not export witgate:policy/hooks@0.1.0"),
        (&["adapters", "remove", "x"], "witgate.toml has no adapter or policy \"x\"; it has mine, ours"),
        (&["adapters", "inspect", "nothing"], "no adapter or policy \"nothing\" comes with witgate"),
        (&["adapters", "add", "--config", "no.toml", "x", "a.wasm"], "cannot read the configuration no.toml"),
    ] {
        let output = place.witgate(arguments, &[]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(err(&output).contains(told), "{arguments:?}: {}", err(&output));
    }
    let wrong = Digest::of(b"wrong");
    let output = place.witgate(&["adapters", "add", "x", &url, "--digest", wrong.as_str()], &[]);
    assert!(err(&output).contains(&format!("has the digest {digest}, not {wrong}")), "{}", err(&output));
    assert_eq!((place.read("witgate.toml"), place.read("witgate.lock")), before);
}

#[test]
fn what_is_to_be_run_for_a_lock_names_the_file_that_is_read() {
    let adapter = "[adapters.mine]\noci = \"localhost:1/acme/mine:1\"\n";
    let help = |host: witgate_host::Builder| match host.cache_dir(Some(kit::cache())).build() {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was accepted"),
    };
    let place = Place::new("");
    place.write("other.toml", format!("{adapter}{PROVIDER}"));
    let told = help(witgate_host::Host::from_file(place.path().join("other.toml")));
    let command = format!("run witgate adapters add --config {} mine oci:", place.path().join("other.toml").display());
    assert!(told.contains(&command), "{told}");
    // A text that is in no file.
    let told = help(witgate_host::Host::from_toml(format!("{adapter}{PROVIDER}")).base_dir(place.path()));
    let lock = place.path().join("configuration.lock");
    assert!(told.contains(&format!("name its witgate.lock {}", lock.display())), "{told}");
    // Where the command looks by itself no file is named, else the one that is read, whatever it is called.
    let check = |arguments: &[&str]| {
        let output = place.witgate(&[&["check"], arguments].concat(), &[]);
        assert_ne!(output.status.code(), Some(0));
        out(&output) + &err(&output)
    };
    place.write("witgate.toml", format!("{adapter}{PROVIDER}"));
    let told = check(&[]);
    assert!(told.contains("; run witgate adapters add mine oci:localhost:1/acme/mine:1\n"), "{told}");
    place.write("my gateway.conf", format!("{adapter}insecure = true\n{PROVIDER}"));
    let told = check(&["--config", "my gateway.conf"]);
    let command = "run witgate adapters add --config 'my gateway.conf' --insecure mine oci:localhost:1/acme/mine:1\n";
    assert!(told.contains(command), "{told}");
}

#[test]
#[cfg(unix)]
fn the_command_that_a_refusal_names_makes_its_configuration_right() {
    let place = Place::new("");
    let folder = place.path().join("gateway's files");
    std::fs::create_dir(&folder).unwrap();
    let stub = std::fs::read(kit::component("adapter-stub.wasm")).unwrap();
    place.write("gateway's files/mine.wasm", &stub);
    place.write("gateway's files/witgate.conf", format!("[adapters.mine]\npath = \"mine.wasm\"\n{PROVIDER}"));
    let file = folder.join("witgate.conf").display().to_string();
    let source = folder.join("mine.wasm").display().to_string();
    let output = place.witgate(&["adapters", "add", "--config", &file, "mine", &source], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    // A section that nobody reads: the same adapter by other bytes.
    place.write("gateway's files/mine.wasm", [stub.as_slice(), &[0, 2, 1, b'x']].concat());
    let check = || place.witgate(&["check", "--config", &file], &[]);
    let output = check();
    assert_ne!(output.status.code(), Some(0));
    let told = out(&output) + &err(&output);
    let (_, command) = told.split_once("run witgate ").unwrap_or_else(|| panic!("{told}"));
    let (command, _) = command.split_once(';').unwrap_or_else(|| panic!("{told}"));
    let added = Command::new("sh")
        .args(["-c", &format!("exec \"$WITGATE\" {command}")])
        .current_dir(place.path())
        .env("WITGATE", env!("CARGO_BIN_EXE_witgate"))
        .env("WITGATE_CACHE_DIR", kit::cache())
        .output()
        .unwrap();
    assert_eq!(added.status.code(), Some(0), "{command}: {}", err(&added));
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(place.read("witgate.toml"), "", "another file was changed");
}

#[test]
fn an_adapter_that_speaks_of_a_policys_interface_is_added_as_an_adapter() {
    let stub = std::fs::read(kit::component("adapter-stub.wasm")).unwrap();
    let said = b"witgate:policy/hooks@0.1.0";
    let section = [&[0, said.len() as u8 + 2, 1, b'x'], said.as_slice()].concat();
    let place = Place::new(PROVIDER);
    place.write("mine.wasm", [stub, section].concat());
    let output = place.witgate(&["adapters", "add", "mine", "mine.wasm"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(place.read("witgate.toml").contains("[adapters.mine]\n"), "{}", place.read("witgate.toml"));
}

#[test]
fn what_others_change_while_an_adapter_is_fetched_stays() {
    let guard = std::fs::read(kit::component("policy-guard.wasm")).unwrap();
    let toml = "[providers.p]\nadapter = \"stub\"\nendpoint = \"stub:\"\n";
    let place = Place::new(toml);
    std::fs::copy(kit::component("adapter-stub.wasm"), place.path().join("mine.wasm")).unwrap();
    let (witgate, folder) = (env!("CARGO_BIN_EXE_witgate"), place.path().to_owned());
    let served = guard.clone();
    let web = Web::new(move |_| {
        // Another command, and a person with an editor, before the answer comes.
        let added = Command::new(witgate)
            .args(["adapters", "add", "mine", "mine.wasm"])
            .current_dir(&folder)
            .env_clear()
            .env("WITGATE_CACHE_DIR", kit::cache())
            .output();
        assert_eq!(added.unwrap().status.code(), Some(0));
        let file = folder.join("witgate.toml");
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "# Ours.\n").unwrap();
        ok(&served)
    });
    let url = web.url("/guard.wasm");
    let output = place.witgate(&["adapters", "add", "ours", &url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let is = place.read("witgate.toml");
    for part in ["[adapters.mine]\npath = \"mine.wasm\"\n", "# Ours.\n", &format!("[policies.ours]\nurl = \"{url}\"\n")]
    {
        assert!(is.contains(part), "{part:?} is not in {is}");
    }
    let lock = place.read("witgate.lock");
    assert!(lock.contains("name = \"mine\"") && lock.contains("name = \"ours\""), "{lock}");
}

#[test]
fn two_policies_of_one_source_with_other_bytes_are_not_composed_as_one() {
    let first = std::fs::read(kit::component("tests/hostile-policy.wasm")).unwrap();
    // A section that nobody reads: the same policy by other bytes.
    let second = [first.as_slice(), &[0, 2, 1, b'x']].concat();
    let (one, two) = (first.clone(), second.clone());
    let web = Web::new(move |path| ok(if path.ends_with("?two") { &two } else { &one }));
    let toml = |query: &str, digest: Digest| {
        let url = web.url("/policy.wasm");
        let first = Digest::of(&first);
        format!(
            "[providers.stub]\nadapter = \"stub\"\n[policies.a]\nurl = \"{url}?one\"\ndigest = \"{first}\"\n\
             [policies.b]\nurl = \"{url}{query}\"\ndigest = \"{digest}\"\n"
        )
    };
    let place = Place::new(&toml("?two", Digest::of(&second)));
    // The host runs each by its own bytes.
    let output = place.witgate(&["check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let output = place.witgate(&["compose"], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let told = err(&output);
    assert!(told.contains("policies.b: ") && told.contains("another component here than in policies.a"), "{told}");
    assert!(!place.path().join("composed").exists(), "something was written");
    place.write("witgate.toml", toml("?one", Digest::of(&first)));
    let output = place.witgate(&["compose"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}
