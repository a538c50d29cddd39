//! `witgate compose`: one component of what a configuration names, and what it may reach.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use witgate_host::compose::{ComposeError, MARK, Options, Runtime, compose};

use crate::Unusable;
use crate::shown::word;

/// The command's arguments.
#[derive(Args)]
pub(crate) struct Compose {
    /// The configuration file.
    #[arg(long, short, env = "WITGATE_CONFIG", default_value = "witgate.toml")]
    config: PathBuf,
    /// The folder to write witgate.wasm into, and for Spin spin.toml.
    #[arg(long, short, value_name = "DIR", default_value = "composed")]
    out: PathBuf,
    /// Where the component is to run.
    #[arg(long = "for", value_enum, default_value = "spin")]
    runtime: For,
    /// The gateway's component. Without it: the one that comes with this program.
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Where compiled components are kept. Without it: $XDG_CACHE_HOME/witgate or ~/.cache/witgate.
    #[arg(long, env = "WITGATE_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
}

/// Where the component is to run.
#[derive(Clone, Copy, ValueEnum)]
enum For {
    /// Spin: variables are its own.
    Spin,
    /// `wasmtime serve` and other hosts of wasi:http: variables are those of the environment.
    Wasi,
}

/// The component's file.
const COMPONENT: &str = "witgate.wasm";

impl Compose {
    /// Runs it. Exits with 1 where the configuration cannot be composed, with 2 where the files cannot be read or written.
    pub(crate) fn run(self) -> ExitCode {
        match self.try_run() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(unusable) => {
                unusable.tell();
                match unusable {
                    Unusable::Problems(_) => ExitCode::FAILURE,
                    Unusable::Other(_) => ExitCode::from(crate::UNUSABLE),
                }
            }
        }
    }

    fn try_run(self) -> Result<String, Unusable> {
        let Compose { config, out, runtime, gateway, cache_dir } = self;
        let text = std::fs::read_to_string(&config)
            .map_err(|error| Unusable::Other(format!("cannot read the configuration {}: {error}", config.display())))?;
        let manifest = out.join("spin.toml");
        if std::fs::read_to_string(&manifest).is_ok_and(|old| !old.starts_with(MARK)) {
            let manifest = manifest.display();
            return Err(Unusable::Other(format!(
                "{manifest} is there, and was not written by `witgate compose`: choose another folder by -o"
            )));
        }
        let mut options = Options::default();
        options.gateway = gateway;
        options.runtime = match runtime {
            For::Spin => Runtime::Spin,
            For::Wasi => Runtime::Wasi,
        };
        if let Some(dir) = cache_dir {
            options.cache_dir = (!dir.as_os_str().is_empty()).then_some(dir);
        }
        let base = config.parent().unwrap_or(Path::new(""));
        let name = config.display().to_string();
        let env = |name: &str| std::env::var(name).ok();
        let composed = compose(&text, &name, base, &env, &options).map_err(|error| match error {
            ComposeError::Config(problems) => Unusable::Problems(problems),
            other => Unusable::Other(other.to_string()),
        })?;
        let write = |file: &Path, bytes: &[u8]| {
            std::fs::write(file, bytes)
                .map_err(|error| Unusable::Other(format!("cannot write {}: {error}", file.display())))
        };
        std::fs::create_dir_all(&out)
            .map_err(|error| Unusable::Other(format!("cannot make the folder {}: {error}", out.display())))?;
        let component = out.join(COMPONENT);
        write(&component, &composed.wasm)?;
        let run = match options.runtime {
            Runtime::Spin => {
                write(&manifest, composed.spin_toml(COMPONENT, &name).as_bytes())?;
                format!("spin up --from {}", word(&manifest.display().to_string()))
            }
            Runtime::Wasi => composed.wasmtime(&component.display().to_string()),
        };
        let size = composed.wasm.len() / 1024;
        Ok(format!("{composed}\nwrote {} ({size} KiB)\n\n    {run}\n", component.display()))
    }
}
