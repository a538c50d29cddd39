//! The llama-server of our own, played by a shell script: started, started again, stopped with us.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use witgate_host::llama::{LlamaServer, Options};

use crate::kit::{self, until};

/// A folder with a model file and a program that is called as llama-server is.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("llama-server");
        std::fs::write(folder.path().join("model.gguf"), b"GGUF").unwrap();
        std::fs::write(&program, format!("#!/bin/sh\ncd {:?}\necho \"$@\" >> calls\n{script}\n", folder.path()))
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Stage { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            model: self.path("model.gguf"),
            server: Some(self.path("llama-server")),
            arguments: vec!["--ctx-size".into(), "512".into()],
            guard: None,
        }
    }
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn it_is_started_with_its_model_and_port_and_stopped_when_dropped() {
    let stage = Stage::new("exec sleep 1000");
    let server = LlamaServer::start(stage.options()).unwrap();
    let port = server.endpoint().rsplit_once(':').unwrap().1.to_owned();
    until("the call", || std::fs::read_to_string(stage.path("calls")).is_ok_and(|calls| calls.ends_with('\n'))).await;
    let calls = std::fs::read_to_string(stage.path("calls")).unwrap();
    let model = stage.path("model.gguf");
    assert_eq!(calls, format!("--model {} --host 127.0.0.1 --port {port} --jinja --ctx-size 512\n", model.display()));
    // The program runs before its starter has noted that it does.
    until("the start", || server.pid().is_some()).await;
    let pid = server.pid().unwrap();
    assert!(runs(pid));
    drop(server);
    assert!(!runs(pid));
}

#[tokio::test]
async fn one_that_dies_is_started_again_on_the_same_port() {
    let stage = Stage::new("exec sleep 1000");
    let server = LlamaServer::start(stage.options()).unwrap();
    until("the first start", || server.pid().is_some()).await;
    let first = server.pid().unwrap();
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    until("the second start", || server.pid().is_some_and(|pid| pid != first)).await;
    assert_eq!(server.starts(), 2);
    until("the calls", || std::fs::read_to_string(stage.path("calls")).unwrap().lines().count() == 2).await;
    let calls = std::fs::read_to_string(stage.path("calls")).unwrap();
    let mut calls = calls.lines();
    assert_eq!(calls.next(), calls.next());
}

#[tokio::test]
async fn one_that_dies_at_once_is_not_started_in_a_tight_loop() {
    let stage = Stage::new("echo no such model >&2; exit 1");
    let begun = Instant::now();
    let server = LlamaServer::start(stage.options()).unwrap();
    // Between the starts it waits for half a second, and then for twice as long.
    until("the third start", || server.starts() >= 3).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[test]
fn one_that_does_not_end_when_asked_is_killed() {
    let stage = Stage::new("trap '' TERM; echo > deaf; while true; do sleep 0.1; done");
    let server = LlamaServer::start(stage.options()).unwrap();
    while server.pid().is_none() || !stage.path("deaf").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!runs(pid));
}

#[test]
fn what_is_missing_is_said_with_what_would_be_right() {
    let stage = Stage::new("");
    let told = |options: Options| LlamaServer::start(options).err().unwrap().to_string();
    let no_model = told(Options { model: "/no/such.gguf".into(), ..stage.options() });
    assert!(no_model.starts_with("cannot read the model /no/such.gguf: "), "{no_model}");
    let no_program = told(Options { server: Some("/no/such/llama-server".into()), ..stage.options() });
    assert!(no_program.starts_with("there is no /no/such/llama-server. "), "{no_program}");
    assert!(no_program.contains("--llama-server PATH"), "{no_program}");
    // A folder that holds it will do.
    LlamaServer::start(Options { server: Some(stage.folder.path().into()), ..stage.options() }).unwrap();
}

/// The program with a scripted llama-server.
fn witgate(stage: &Stage) -> Child {
    Command::new(env!("CARGO_BIN_EXE_witgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--model"])
        .arg(stage.path("model.gguf"))
        .arg("--llama-server")
        .arg(stage.path("llama-server"))
        .env("WITGATE_CACHE_DIR", kit::cache())
        .current_dir(stage.folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn ends_with_us(signal: &str) {
    let stage = Stage::new("echo $$ > pid; exec sleep 1000");
    let mut program = witgate(&stage);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    until("llama-server runs", || read(&stage.path("pid")).ends_with('\n')).await;
    let pid: u32 = read(&stage.path("pid")).trim().parse().unwrap();
    assert!(runs(pid));
    // The port is open a little later than llama-server is started; a signal before that must work as well.
    assert!(Command::new("kill").args([signal, &program.id().to_string()]).status().unwrap().success());
    until("llama-server ends", || !runs(pid)).await;
    program.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_ends_with_the_gateway_however_that_ends() {
    for signal in ["-TERM", "-INT", "-KILL"] {
        ends_with_us(signal).await;
    }
}
