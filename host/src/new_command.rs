//! `witgate new`: projects to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use witgate_host::new::Project;

/// What can be new.
#[derive(Subcommand)]
pub(crate) enum New {
    /// An adapter for one more backend: a project that builds, tests and runs.
    Adapter {
        /// Its name: letters a-z, digits and hyphens.
        name: String,
        /// The language to write it in.
        #[arg(long, value_enum, default_value = "rust")]
        lang: Language,
        /// The folder to write it into. Without it: one of its name.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// One sentence on what it is for.
        #[arg(long, default_value = "An adapter for witgate")]
        description: String,
        /// For Rust: the folder of the SDK. Without it: the checkout that this program was built from, else the registry.
        #[arg(long, value_name = "PATH")]
        sdk: Option<PathBuf>,
    },
    /// A policy that looks at requests and answers, in Rust: a project that builds, tests and runs.
    Policy {
        /// Its name: letters a-z, digits and hyphens.
        name: String,
        /// The folder to write it into. Without it: one of its name.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// One sentence on what it is for.
        #[arg(long, default_value = "A policy for witgate")]
        description: String,
        /// The folder of the SDK. Without it: the checkout that this program was built from, else the registry.
        #[arg(long, value_name = "PATH")]
        sdk: Option<PathBuf>,
    },
}

/// A language that there is a template for.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Language {
    /// By the SDK: the smallest and fastest components.
    Rust,
    /// By componentize-py.
    Python,
    /// By componentize-qjs.
    Js,
}

impl New {
    /// Writes it.
    pub(crate) fn run(self) -> ExitCode {
        let (mut project, dir, description, sdk) = match self {
            New::Adapter { name, lang, dir, description, sdk } => {
                let language = match lang {
                    Language::Rust => "rust",
                    Language::Python => "python",
                    Language::Js => "js",
                };
                (Project::new(name, language), dir, description, sdk)
            }
            New::Policy { name, dir, description, sdk } => (Project::policy(name), dir, description, sdk),
        };
        let folder = dir.unwrap_or_else(|| PathBuf::from(&project.name));
        project.description = description;
        project.sdk = sdk;
        match project.write(&folder) {
            Ok(()) => {
                println!(
                    "wrote {}\n\n    cd {0}\n    sh build        # tests, builds and checks it\n    witgate serve",
                    folder.display()
                );
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("witgate: {error}");
                ExitCode::from(crate::UNUSABLE)
            }
        }
    }
}
