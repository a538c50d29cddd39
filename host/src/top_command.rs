//! `witgate adapters top` on the command line.

use std::process::ExitCode;

use clap::Args;

/// Shows what the adapters and policies of a running gateway do: calls, times, failures, memory. Its admin key is read from
/// WITGATE_ADMIN_KEY.
#[derive(Args)]
pub(crate) struct Top {
    #[command(flatten)]
    top: witgate_host::top::Top,
}

impl Top {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        let done = || -> Result<(), String> {
            let key = crate::admin_key()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(self.top.run(&key, &mut std::io::stdout().lock()))
        };
        match done() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("witgate: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
