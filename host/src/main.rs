//! `witgate`: the gateway as a program. `witgate --help` says what it does.
#![allow(clippy::print_stdout)]

mod adapters_command;
mod compose_command;
mod conformance_command;
mod new_command;
mod shown;
mod top_command;

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures_util::StreamExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use witgate_config::{AdapterRef, Config, Model, Origin, Problems, Provider, Target};
use witgate_host::llama::{self, LlamaServer};
use witgate_host::{Body, BuildError, Builder, Host, Request, event};

/// A request makes some hundred small allocations, most of them freed by another step than the one that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An LLM gateway made of WebAssembly components.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How much is logged, to stderr: error, warn, info, debug, trace, or by target as
    /// `info,witgate::request=off,llama-server=debug`.
    #[arg(long, global = true, env = "WITGATE_LOG", default_value = "info", hide_default_value = false)]
    log_level: String,
    /// How the log is written. Without it: text on a terminal, else JSON.
    #[arg(long, global = true, env = "WITGATE_LOG_FORMAT")]
    log: Option<LogFormat>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LogFormat {
    /// One JSON object on a line.
    Json,
    /// For people.
    Text,
}

#[derive(Subcommand)]
enum Command {
    /// Serves.
    Serve(Serve),
    /// Checks the configuration and the adapters, and says all that is wrong. Exits with 1 if something is.
    Check {
        #[command(flatten)]
        source: Source,
    },
    /// Lists, adds, inspects and removes adapters and policies, and tells what they do.
    Adapters(adapters_command::Adapters),
    /// Sends one request through the gateway, without a server, and writes the answer to stdout.
    Invoke {
        #[command(flatten)]
        source: Source,
        /// The request's body, or the event of a Lambda function that stands for an HTTP request; `-` is stdin.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Where the request goes. Default: where the event says, else /v1/chat/completions.
        #[arg(long)]
        path: Option<String>,
        /// Writes the answer's status and headers to stderr.
        #[arg(long, short)]
        include: bool,
    },
    /// Makes, lists, rotates and revokes the keys of a running gateway. Its admin key is read from WITGATE_ADMIN_KEY.
    Keys {
        #[command(flatten)]
        keys: witgate_host::keys::Keys,
    },
    /// Checks a component of an adapter or a policy against its contract, and says what fails and what would be right. Exits with 1 if
    /// something does.
    Conformance(conformance_command::Conformance),
    /// Composes what the configuration names into one component, for Spin, `wasmtime serve` and other WASI hosts, and says
    /// what each part of it may reach.
    Compose(compose_command::Compose),
    /// Begins a project from a template.
    #[command(subcommand)]
    New(new_command::New),
    /// Becomes another program that ends when its parent does.
    #[command(hide = true)]
    Guard {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Where the configuration comes from.
#[derive(Args, Clone)]
struct Source {
    /// The configuration file. Without it: the `LLM_…` environment variables if any is set, else ./witgate.toml if it is
    /// there, else a built-in stub that echoes.
    #[arg(long, short, env = "WITGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Where compiled components are kept. Without it: $XDG_CACHE_HOME/witgate or ~/.cache/witgate.
    #[arg(long, env = "WITGATE_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    source: Source,
    /// Where to listen, instead of the configuration's `server.listen`: host:port, port 0 takes any free one.
    #[arg(long, env = "WITGATE_LISTEN")]
    listen: Option<String>,
    /// Serves this GGUF file with a llama-server of our own, as provider `local`.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The llama-server program, or the folder that it is in. Without it: the one on PATH.
    #[arg(long, value_name = "PATH", requires = "model", env = "WITGATE_LLAMA_SERVER")]
    llama_server: Option<PathBuf>,
    /// Further arguments for llama-server, behind `--`.
    #[arg(last = true, requires = "model")]
    llama_arguments: Vec<OsString>,
}

/// The exit code for a configuration, or a machine, with which nothing can be served.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Guard { command } = &cli.command {
        return guard(command);
    }
    let json = match cli.log {
        Some(format) => format == LogFormat::Json,
        None => !std::io::stderr().is_terminal(),
    };
    let filter: Targets = match cli.log_level.parse() {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "witgate: --log-level {:?}: {error}; write e.g. info or info,witgate::request=off",
                cli.log_level
            );
            return ExitCode::from(UNUSABLE);
        }
    };
    let records = filter.would_enable("witgate::request", &tracing::Level::INFO);
    start_log(filter, json);
    let log = Log { json, records };
    match cli.command {
        Command::Serve(arguments) => serve(arguments, log),
        Command::Check { source } => check(&source, log),
        Command::Adapters(command) => command.run(log),
        Command::Invoke { source, file, path, include } => invoke(&source, &file, path, include, log),
        Command::Keys { keys } => administer(keys),
        Command::Conformance(command) => command.run(),
        Command::Compose(command) => command.run(),
        Command::New(command) => command.run(),
        Command::Guard { command } => guard(&command),
    }
}

/// The admin key of a running gateway.
fn admin_key() -> Result<witgate_config::Secret, String> {
    let key = std::env::var("WITGATE_ADMIN_KEY").ok().filter(|key| !key.is_empty());
    let key = key.ok_or("set WITGATE_ADMIN_KEY to the gateway's admin key ([admin] key)")?;
    Ok(witgate_config::Secret::new(key))
}

/// Runs `witgate keys`.
fn administer(keys: witgate_host::keys::Keys) -> ExitCode {
    let done = || -> Result<String, String> {
        let key = admin_key()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(keys.run(&key))
    };
    match done() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("witgate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy)]
struct Log {
    json: bool,
    /// The requests' lines are wanted.
    records: bool,
}

impl Log {
    /// Takes the shortest way for the requests' lines.
    fn apply(self, builder: Builder) -> Builder {
        match self {
            Log { records: false, .. } => builder.on_record(|_| {}),
            Log { json: true, .. } => builder.on_record(witgate_host::write_json_record),
            _ => builder,
        }
    }
}

fn start_log(filter: Targets, json: bool) {
    let log = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        log.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
    } else {
        log.with(layer.with_ansi(std::io::stderr().is_terminal()).compact()).init();
    }
}

#[cfg(unix)]
fn guard(command: &[OsString]) -> ExitCode {
    if let Some((program, arguments)) = command.split_first() {
        eprintln!("witgate: cannot run {}: {}", program.display(), llama::guard(program, arguments));
    }
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn guard(_: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}

/// Why nothing can be served.
enum Unusable {
    Problems(Problems),
    Other(String),
}

impl From<BuildError> for Unusable {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Config(problems) => Unusable::Problems(problems),
            other => Unusable::Other(other.to_string()),
        }
    }
}

impl From<Unusable> for BuildError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Problems(problems) => BuildError::Config(problems),
            Unusable::Other(message) => BuildError::Other(message),
        }
    }
}

impl Unusable {
    /// Says why, on stderr.
    fn tell(&self) {
        match self {
            Unusable::Problems(problems) => {
                for problem in problems {
                    eprintln!("error: {problem}");
                }
                let count = problems.iter().count();
                eprintln!("witgate: the configuration has {count} problem{}", if count == 1 { "" } else { "s" });
            }
            Unusable::Other(message) => eprintln!("witgate: {message}"),
        }
    }
}

/// The name of the file that is read where it is there.
const FILE: &str = "witgate.toml";

impl Source {
    /// The configuration, and the folder to which its paths are relative.
    fn read(&self) -> Result<(Config, PathBuf), Unusable> {
        let env = |name: &str| std::env::var(name).ok();
        let file = match &self.config {
            Some(file) => file.clone(),
            None => {
                let here = Path::new(FILE).is_file();
                match Config::from_env(&env).map_err(Unusable::Problems)? {
                    config if config.origin == Origin::Environment => {
                        if here {
                            tracing::warn!(
                                target: "witgate",
                                "the LLM_… environment variables are used, not ./{FILE}; --config {FILE} chooses the file"
                            );
                        }
                        return Ok((config, PathBuf::new()));
                    }
                    config if !here => return Ok((config, PathBuf::new())),
                    _ => PathBuf::from(FILE),
                }
            }
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Unusable::Other(format!("cannot read the configuration {}: {error}", file.display())))?;
        let config = Config::from_toml(&text, &file.display().to_string(), &env).map_err(Unusable::Problems)?;
        Ok((config, file.parent().unwrap_or(Path::new("")).to_owned()))
    }

    fn builder(&self, builder: Builder, base: PathBuf, log: Log) -> Builder {
        log.apply(builder.base_dir(base)).cache_dir(self.cache())
    }

    /// Where compiled and fetched components are kept.
    fn cache(&self) -> Option<PathBuf> {
        match &self.cache_dir {
            Some(dir) => (!dir.as_os_str().is_empty()).then(|| dir.clone()),
            None => witgate_host::default_cache_dir(),
        }
    }

    /// The configuration's file: the one that is named, else the one in this folder.
    fn named_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(FILE))
    }

    /// A host for the configuration.
    fn host(&self, all: bool, log: Log) -> Result<Host, Unusable> {
        let (config, base) = self.read()?;
        let builder = self.builder(Host::builder(config), base, log);
        Ok(if all { builder.all_adapters().without_state() } else { builder }.build()?)
    }
}

fn serve(arguments: Serve, log: Log) -> ExitCode {
    match try_serve(arguments, log) {
        Ok(code) => code,
        Err(unusable) => {
            unusable.tell();
            ExitCode::from(UNUSABLE)
        }
    }
}

fn try_serve(arguments: Serve, log: Log) -> Result<ExitCode, Unusable> {
    let Serve { source, listen, model, llama_server, llama_arguments } = arguments;
    // A model of its own is a whole configuration; what the environment says of other servers does not count.
    let alone = model.is_some() && source.config.is_none();
    let (config, base) = read_to_serve(&source, alone)?;
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let llama = match &model {
        None => None,
        Some(model) => {
            let guard = std::env::current_exe().ok().filter(|_| cfg!(target_os = "linux"));
            let options = llama::Options {
                model: model.clone(),
                server: llama_server,
                arguments: llama_arguments,
                guard: guard.map(|program| (program, vec!["guard".into(), "--".into()])),
            };
            free_for_local(&config)?;
            Some(LlamaServer::start(options).map_err(|error| Unusable::Other(error.to_string()))?)
        }
    };
    let file = match &config.origin {
        Origin::File(file) => Some(PathBuf::from(file)),
        _ => None,
    };
    // It is read so each time: what the command line says counts whatever the file says.
    let local = model.zip(llama.as_ref().map(LlamaServer::endpoint));
    let again = source.clone();
    let read = move || {
        let (mut config, _) = read_to_serve(&again, alone)?;
        if let Some(listen) = &listen {
            config.server.listen.clone_from(listen);
        }
        if let Some((model, endpoint)) = &local {
            free_for_local(&config)?;
            add_local(&mut config, model, endpoint.clone());
        }
        Ok(config)
    };
    let host = Arc::new(source.builder(Host::from_fn(file, read), base, log).build()?);
    // One thread is a worker too: the tasks beside a call that takes long can move to another thread. At worst each request
    // is in such a call.
    let apart = host.config().limits.max_concurrent_requests.min(16_384);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(512 + apart)
        .enable_all()
        .build()
        .map_err(|error| Unusable::Other(format!("cannot start {threads} threads: {error}")))?;
    let cut_off: Result<usize, Unusable> = runtime.block_on(async {
        let server = host.bind().await.map_err(|error| {
            Unusable::Other(format!(
                "cannot listen on {}: {error}; --listen host:port chooses another",
                host.config().server.listen
            ))
        })?;
        let address = server.local_addr().map_err(|error| Unusable::Other(error.to_string()))?;
        let mut signals =
            Signals::new().map_err(|error| Unusable::Other(format!("cannot wait for signals: {error}")))?;
        if let Err(problem) = host.check_state().await {
            eprintln!("witgate: warning: {problem}");
        }
        reload_when_asked(&host).map_err(|error| Unusable::Other(format!("cannot wait for signals: {error}")))?;
        banner(&host, &reachable(address), log.json);
        Ok(server
            .serve(async move {
                signals.next().await;
                tokio::spawn(async move {
                    signals.next().await;
                    // Whoever asks twice does not want to wait.
                    std::process::exit(1);
                });
            })
            .await)
    });
    runtime.shutdown_background();
    drop(llama);
    let cut_off = cut_off?;
    if cut_off > 0 {
        tracing::warn!(target: "witgate::server", cut_off, "requests were cut off by server.shutdown_timeout");
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration that is served, without what the command line adds, and the folder to which its paths are relative.
fn read_to_serve(source: &Source, alone: bool) -> Result<(Config, PathBuf), Unusable> {
    if !alone {
        return source.read();
    }
    let mut config = Config::builtin();
    config.providers.clear();
    config.models.clear();
    Ok((config, PathBuf::new()))
}

/// Refuses a configuration that has a provider of the name that `--model` makes.
fn free_for_local(config: &Config) -> Result<(), Unusable> {
    if config.providers.contains_key(LOCAL) {
        return Err(Unusable::Other(format!(
            "--model makes a provider \"{LOCAL}\", and the configuration has one already: rename it"
        )));
    }
    Ok(())
}

/// Reads the configuration anew whenever SIGHUP comes.
#[cfg(unix)]
fn reload_when_asked(host: &Arc<Host>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = signal(SignalKind::hangup())?;
    let host = Arc::clone(host);
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            // What comes of it stands in the log.
            let _ = host.reload().await;
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn reload_when_asked(_: &Arc<Host>) -> std::io::Result<()> {
    Ok(())
}

/// The provider that `--model` makes.
const LOCAL: &str = "local";

/// Adds the llama-server of our own to the configuration: any model name reaches it that nothing else is configured for.
fn add_local(config: &mut Config, model: &Path, endpoint: String) {
    config.providers.insert(
        LOCAL.to_owned(),
        Provider {
            endpoints: vec![endpoint],
            timeouts: config.timeouts,
            retry: config.retry,
            health: config.health,
            ..Provider::new(LOCAL, AdapterRef::Builtin("llama-cpp".to_owned()))
        },
    );
    let stem = model.file_stem().and_then(|stem| stem.to_str()).unwrap_or(LOCAL);
    for alias in [stem, "*"] {
        config.models.entry(alias.to_owned()).or_insert_with(|| {
            let target = Target::new(LOCAL, Some(stem.to_owned()));
            Model::new(alias, vec![target])
        });
    }
}

/// The URL at which a client on this machine reaches an address.
fn reachable(address: std::net::SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => format!("http://localhost:{port}"),
        ip if ip.is_ipv6() => format!("http://[{ip}]:{port}"),
        ip => format!("http://{ip}:{port}"),
    }
}

/// Says what is served, and how to try it.
fn banner(host: &Host, url: &str, json: bool) {
    let config = host.config();
    let providers: Vec<_> = config
        .providers
        .values()
        .map(|provider| {
            let to = provider.endpoints.first().map_or("the adapter's default endpoint", String::as_str);
            format!("{} (adapter {}, {to})", provider.name, provider.adapter.as_str())
        })
        .collect();
    let mut models: Vec<_> = config.models.keys().filter(|alias| *alias != "*").map(String::as_str).collect();
    let model = models.first().copied().map_or_else(
        || match config.providers.keys().next() {
            Some(provider) if !config.models.contains_key("*") => format!("{provider}/MODEL"),
            _ => "any".to_owned(),
        },
        str::to_owned,
    );
    if config.models.contains_key("*") {
        models.push("any other name");
    }
    let key = if config.server.api_keys.is_empty() { "" } else { " -H 'authorization: Bearer KEY'" };
    let curl = format!(
        "curl {url}/v1/chat/completions{key} -H 'content-type: application/json' -d '{{\"model\": \"{model}\", \"messages\": \
         [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'"
    );
    let from = match &config.origin {
        Origin::File(file) => file.clone(),
        Origin::Environment => "the LLM_… environment variables".to_owned(),
        Origin::Builtin => "none: built-in defaults".to_owned(),
    };
    if json {
        tracing::info!(
            target: "witgate::server",
            url, configuration = from, providers = providers.join(", "), models = models.join(", "), r#try = curl,
            "listening",
        );
    } else {
        eprintln!("witgate {} listens on {url}", env!("CARGO_PKG_VERSION"));
        eprintln!("  configuration: {from}");
        for provider in providers {
            eprintln!("  provider:      {provider}");
        }
        eprintln!("  models:        {}", models.join(", "));
        eprintln!("Try it:\n  {curl}");
    }
}

/// What ends the server: SIGTERM and SIGINT.
#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// What ends the server: Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

fn check(source: &Source, log: Log) -> ExitCode {
    match source.host(true, log) {
        Ok(host) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let state = runtime.map(|runtime| runtime.block_on(host.check_state()));
            let unusable = match state {
                Ok(Ok(())) => None,
                Ok(Err(problem)) => Some(Unusable::Problems(Problems(vec![problem]))),
                Err(error) => Some(Unusable::Other(format!("cannot ask the state store: {error}"))),
            };
            if let Some(unusable) = unusable {
                unusable.tell();
                return ExitCode::FAILURE;
            }
            let config = host.config();
            println!(
                "ok: {} providers, {} models, {} adapters",
                config.providers.len(),
                config.models.len(),
                host.adapters().len()
            );
            ExitCode::SUCCESS
        }
        Err(unusable) => {
            unusable.tell();
            ExitCode::FAILURE
        }
    }
}

fn invoke(source: &Source, file: &Path, path: Option<String>, include: bool, log: Log) -> ExitCode {
    match try_invoke(source, file, path, include, log) {
        Ok(code) => code,
        Err(unusable) => {
            unusable.tell();
            ExitCode::from(UNUSABLE)
        }
    }
}

fn try_invoke(
    source: &Source,
    file: &Path,
    path: Option<String>,
    include: bool,
    log: Log,
) -> Result<ExitCode, Unusable> {
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut body))
    };
    read.map_err(|error| Unusable::Other(format!("cannot read {}: {error}", file.display())))?;
    let host = Arc::new(source.host(false, log)?);
    let event = match path {
        Some(_) => None,
        None => event::read(&body).map_err(Unusable::Other)?,
    };
    let is_event = event.is_some();
    let mut request = event.unwrap_or_else(|| {
        let path = path.as_deref().unwrap_or("/v1/chat/completions");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Bytes::from(body),
        }
    });
    let config = host.config();
    let keys = &config.access.keys;
    if let Some(key) = config.server.api_keys.first().or_else(|| Some(&keys.values().next()?.secret))
        && !request.headers.iter().any(|(name, _)| name == "authorization")
    {
        request.headers.push(("authorization".to_owned(), format!("Bearer {}", key.expose())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Unusable::Other(error.to_string()))?;
    runtime.block_on(async {
        let answer = host.handle(request).await;
        if include {
            eprintln!("{}", answer.status);
            for (name, value) in &answer.headers {
                eprintln!("{name}: {value}");
            }
        }
        let mut out = std::io::stdout().lock();
        let mut write = |bytes: &[u8]| out.write_all(bytes).and_then(|()| out.flush());
        let written = match answer.body {
            body if is_event => {
                let body = match body {
                    Body::Whole(bytes) => bytes.to_vec(),
                    Body::Stream(stream) => stream.map(|bytes| bytes.to_vec()).concat().await,
                };
                write(format!("{}\n", event::answer(answer.status, &answer.headers, &body)).as_bytes())
            }
            Body::Whole(bytes) => write(&bytes).and_then(|()| write(b"\n")),
            Body::Stream(stream) => {
                let mut stream = std::pin::pin!(stream);
                let mut written = Ok(());
                while written.is_ok()
                    && let Some(bytes) = stream.next().await
                {
                    written = write(&bytes);
                }
                written
            }
        };
        written.map_err(|error| Unusable::Other(format!("cannot write the answer: {error}")))?;
        Ok(if answer.status < 400 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
