//! `witgate-wasi-serve`: serves the composed gateway without Spin, for tests.
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use wasmtime::error::Context as _;
use wasmtime::{Result, bail};
use witgate_wasi_serve::{Options, compile, engine, read, serve};

/// Serves a composed gateway in wasmtime's own wasi:http handler, as Spin would.
#[derive(Parser)]
struct Arguments {
    /// The composed component, as target/components/witgate.wasm.
    component: PathBuf,
    /// Where compiled components are kept, so that the same one is compiled once: an absolute path.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The configuration, mounted as /witgate.toml.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A variable of `wasi:config/store`, as Spin's: name=value.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// A host that may be called, beside those that the configuration and the variables name: host or host:port.
    #[arg(long)]
    allow: Vec<String>,
    /// The most requests that an instance serves at once.
    #[arg(long, default_value_t = 16)]
    max_concurrent: usize,
    /// Gives neither variables nor a key-value store, as hosts other than Spin: variables are the environment's.
    #[arg(long)]
    plain: bool,
    /// The most requests that an instance serves in all.
    #[arg(long, default_value_t = 128)]
    max_requests: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut options = Options {
        listen: arguments.listen,
        allow: arguments.allow,
        max_concurrent: arguments.max_concurrent.max(1),
        max_requests: arguments.max_requests.max(1),
        plain: arguments.plain,
        ..Options::default()
    };
    if let Some(file) = &arguments.config {
        options.config = Some(std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?);
    }
    for variable in &arguments.variables {
        match variable.split_once('=') {
            Some((name, value)) => options.variables.insert(name.to_owned(), value.to_owned()),
            None => bail!("--var {variable}: write name=value"),
        };
    }
    let component = compile(&engine(arguments.cache)?, &read(&arguments.component)?)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let served = serve(&component, options).await?;
    println!("listening on http://{}", served.address);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // At once: to drop instances in the midst of their requests would only make noise.
    std::process::exit(0)
}
