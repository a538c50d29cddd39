//! `witgate conformance`: checks a component of an adapter or a policy, and says what fails and what would be right.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, value_parser};
use witgate_config::Limits;
use witgate_host::conformance::{Options, run};

/// The command's arguments.
#[derive(Args)]
pub(crate) struct Conformance {
    /// The adapter, or the policy: a WebAssembly component.
    file: PathBuf,
    /// Answers of the backend: chat.sse, chat.json, busy.429.json …, or named by a meta.json. For a policy: requests, answers
    /// and what should become of them, in files of JSON.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// The settings of the provider, or of the policy, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    settings: String,
    /// The model that requests name.
    #[arg(long, default_value = "test-model")]
    model: String,
    /// The most memory of one instance, in bytes, as max_memory_bytes in the configuration. Without it: 64 MiB.
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(1 << 20..=Limits::MOST_MEMORY_BYTES))]
    max_memory_bytes: Option<u64>,
    /// The most elements of one table of an instance, as max_table_elements in the configuration. Without it: 20000.
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = value_parser!(u32).range(100..=i64::from(Limits::MOST_TABLE_ELEMENTS)),
    )]
    max_table_elements: Option<u32>,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
    /// Where compiled components are kept. Without it: $XDG_CACHE_HOME/witgate or ~/.cache/witgate.
    #[arg(long, env = "WITGATE_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
}

impl Conformance {
    /// Runs it. Exits with 1 where the component breaks the contract, with 2 where it cannot be checked.
    pub(crate) fn run(self) -> ExitCode {
        let mut options = Options::default();
        options.samples = self.samples;
        options.settings = self.settings;
        options.model = self.model;
        if let Some(most) = self.max_memory_bytes.and_then(|most| usize::try_from(most).ok()) {
            options.bounds.memory_bytes = most;
        }
        if let Some(most) = self.max_table_elements {
            options.bounds.table_elements = most as usize;
        }
        if let Some(dir) = self.cache_dir {
            options.cache_dir = (!dir.as_os_str().is_empty()).then_some(dir);
        }
        match run(&self.file, &options) {
            Ok(report) => {
                if self.json {
                    println!("{:#}", report.json());
                } else {
                    print!("{report}");
                }
                if report.is_conformant() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("witgate: {error}");
                ExitCode::from(crate::UNUSABLE)
            }
        }
    }
}
