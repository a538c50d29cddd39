//! A llama-server of one's own: started, watched, started again when it dies, stopped with us.
//!
//! One thread does all of it, for as long as the server is wanted. The server gets a process group of its own, so that
//! a Ctrl-C in the terminal reaches the gateway alone, which first finishes its answers. On Linux it is also told to end
//! when that thread does, however the gateway ends, if [`Options::guard`] is set; elsewhere a gateway that is killed
//! (SIGKILL) leaves its llama-server behind.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The first wait before the server is started again; doubled each time, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A server that ran so long was well: the next wait is a first one.
const WELL: Duration = Duration::from_secs(60);
/// How long the server may take to end by itself before it is killed.
const END: Duration = Duration::from_secs(5);
/// How often the server is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model, a GGUF file.
    pub model: PathBuf,
    /// The program. Without it, `llama-server` of `$PATH`.
    pub server: Option<PathBuf>,
    /// Further arguments for it.
    pub arguments: Vec<OsString>,
    /// A program that takes the server's command line as its arguments, calls [`guard`] and so becomes the server.
    pub guard: Option<(PathBuf, Vec<OsString>)>,
}

/// Why there is no llama-server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The model's file is not there.
    #[error("cannot read the model {}: {error}", path.display())]
    Model {
        /// As it was given.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// No such program.
    #[error(
        "{what}. llama-server is part of llama.cpp: install it, or name it with --llama-server PATH, or serve a running \
         one with LLM_BASE_URL=http://host:port"
    )]
    Program {
        /// What was looked for, and where.
        what: String,
    },
    /// No free port.
    #[error("cannot find a free port: {0}")]
    Port(std::io::Error),
    /// No thread to watch it.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

#[derive(Default)]
struct State {
    pid: Option<u32>,
    starts: u32,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, unless the end comes first. True when it has come.
    fn wait(&self, time: Duration) -> bool {
        let state = self.state();
        let (state, _) =
            self.changed.wait_timeout_while(state, time, |state| !state.stop).unwrap_or_else(PoisonError::into_inner);
        state.stop
    }
}

/// A llama-server that is being watched. Stops it when dropped.
pub struct LlamaServer {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LlamaServer {
    /// Starts the server and returns at once; loading the model takes longer, and `/ready` tells when it is done.
    ///
    /// # Errors
    /// Where the model or the program is not there. A server that starts and then fails is started again, and its last
    /// words are in the log.
    pub fn start(options: Options) -> Result<Self, StartError> {
        if let Err(error) = std::fs::File::open(&options.model) {
            return Err(StartError::Model { path: options.model, error });
        }
        let program = find(options.server.as_deref())?;
        // Free now; that nobody else takes it until the server does cannot be had, and the server would be started again.
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(StartError::Port)?;
        let port = listener.local_addr().map_err(StartError::Port)?.port();
        drop(listener);
        let shared = Arc::new(Shared::default());
        let watch = {
            let shared = Arc::clone(&shared);
            move || watch(&shared, &program, port, &options)
        };
        let thread =
            thread::Builder::new().name("witgate-llama".to_owned()).spawn(watch).map_err(StartError::Thread)?;
        Ok(LlamaServer { port, shared, thread: Some(thread) })
    }

    /// Its base URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.shared.state().pid
    }

    /// How often it has been started.
    pub fn starts(&self) -> u32 {
        self.shared.state().starts
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The program's full path.
fn find(given: Option<&Path>) -> Result<PathBuf, StartError> {
    const NAME: &str = "llama-server";
    if let Some(path) = given {
        if path.is_file() {
            return Ok(path.to_owned());
        }
        let inside = path.join(NAME);
        if inside.is_file() {
            return Ok(inside);
        }
        return Err(StartError::Program { what: format!("there is no {}", path.display()) });
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let name = format!("{NAME}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&folders)
        .map(|folder| folder.join(&name))
        .find(|file| file.is_file())
        .ok_or_else(|| StartError::Program { what: format!("there is no {NAME} in the folders of PATH") })
}

/// Runs the server until the end comes.
fn watch(shared: &Shared, program: &Path, port: u16, options: &Options) {
    let mut wait = FIRST_WAIT;
    loop {
        let begun = Instant::now();
        let why = match start(program, port, options) {
            Ok(mut child) => {
                let words = Words::default();
                let readers =
                    [child.stdout.take().map(|out| words.read(out)), child.stderr.take().map(|err| words.read(err))];
                {
                    let mut state = shared.state();
                    state.pid = Some(child.id());
                    state.starts += 1;
                }
                tracing::info!(target: "witgate::llama", pid = child.id(), port, "llama-server has been started");
                let why = run(shared, &mut child);
                shared.state().pid = None;
                for reader in readers.into_iter().flatten() {
                    let _ = reader.join();
                }
                match why {
                    Some(why) => format!("{why}; its last words: {}", words.last()),
                    None => return,
                }
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        if begun.elapsed() > WELL {
            wait = FIRST_WAIT;
        }
        tracing::error!(target: "witgate::llama", again_in_s = wait.as_secs_f64(), "llama-server {why}");
        if shared.wait(wait) {
            return;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn start(program: &Path, port: u16, options: &Options) -> std::io::Result<Child> {
    let mut command = match &options.guard {
        Some((guard, arguments)) => {
            let mut command = Command::new(guard);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("--model").arg(&options.model);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--jinja"]);
    command.args(&options.arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// Watches the server. Says how it ended; `None` where we ended it.
fn run(shared: &Shared, child: &mut Child) -> Option<String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(format!("died: {status}")),
            Ok(None) => {}
            Err(error) => return Some(format!("is lost: {error}")),
        }
        if shared.wait(LOOK) {
            end(child);
            return None;
        }
    }
}

/// Asks the server to end, and kills it if it does not.
fn end(child: &mut Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < END {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The last lines that the server wrote.
#[derive(Clone, Default)]
struct Words(Arc<Mutex<std::collections::VecDeque<String>>>);

impl Words {
    const KEPT: usize = 12;
    const LONGEST: u64 = 4096;

    /// Reads to the end in a thread, and shows each line in the log.
    fn read(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let words = self.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.by_ref().take(Self::LONGEST).read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                tracing::debug!(target: "llama-server", "{text}");
                let mut last = words.0.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() == Self::KEPT {
                    last.pop_front();
                }
                last.push_back(text);
                line.clear();
            }
        })
    }

    fn last(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() { "none".to_owned() } else { last.iter().cloned().collect::<Vec<_>>().join(" | ") }
    }
}

/// Becomes `program`, which is killed when the parent ends: there is nobody left to wait for a gentler end, which
/// llama-server has been seen not to come to. Returns only where that fails.
#[cfg(unix)]
pub fn guard(program: &std::ffi::OsStr, arguments: &[OsString]) -> std::io::Error {
    let parent = rustix::process::getppid();
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        return error.into();
    }
    // The parent may have died before that was said.
    if rustix::process::getppid() != parent {
        return std::io::Error::other("the parent has ended");
    }
    std::os::unix::process::CommandExt::exec(Command::new(program).args(arguments))
}
