//! `witgate adapters top` on the command line.

use std::process::ExitCode;

use witgate_host::top::Top;

/// Does it.
pub(crate) fn run(top: Top) -> ExitCode {
    let done = || -> Result<(), String> {
        let key = crate::admin_key()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(top.run(&key, &mut std::io::stdout().lock()))
    };
    match done() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("witgate: {error}");
            ExitCode::FAILURE
        }
    }
}
