//! `witgate adapters`: what there is. Without a further word it lists.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{Log, Source, UNUSABLE};

/// What is asked.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Adapters {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the adapters: built-in ones and those of the configuration. So does `witgate adapters` alone.
    List(List),
    /// Shows what the adapters and policies of a running gateway do: calls, times, failures, memory. Its admin key is read
    /// from WITGATE_ADMIN_KEY.
    Top(witgate_host::top::Top),
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    source: Source,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Adapters {
    /// Does it.
    pub(crate) fn run(self, log: Log) -> ExitCode {
        match self.command {
            None => list(&self.list, log),
            Some(Command::List(arguments)) => list(&arguments, log),
            Some(Command::Top(top)) => crate::top_command::run(top),
        }
    }
}

fn list(list: &List, log: Log) -> ExitCode {
    let host = match list.source.host(true, log) {
        Ok(host) => host,
        Err(unusable) => {
            unusable.tell();
            return ExitCode::from(UNUSABLE);
        }
    };
    if list.json {
        let list: Vec<_> = host
            .adapters()
            .iter()
            .map(|loaded| {
                let is = loaded.component.description();
                serde_json::json!({
                    "name": loaded.reference.as_str(), "id": is.id, "version": is.version, "summary": is.summary,
                    "operations": is.operations, "capabilities": is.capabilities, "dialects": is.dialects,
                    "secrets": is.secrets.iter().map(|slot| &slot.name).collect::<Vec<_>>(),
                    "sha256": loaded.digest, "imports": loaded.component.imports(), "source": loaded.source,
                    "trusted": loaded.component.is_trusted(),
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::from(list));
        return ExitCode::SUCCESS;
    }
    let mut rows = vec![["NAME", "ID", "VERSION", "OPERATIONS", "SHA-256", "IMPORTS", "SOURCE"].map(str::to_owned)];
    rows.extend(host.adapters().iter().map(|loaded| {
        let is = loaded.component.description();
        [
            loaded.reference.as_str().to_owned(),
            is.id.clone(),
            is.version.clone(),
            is.operations.join(","),
            loaded.digest.chars().take(12).collect(),
            if loaded.component.imports().is_empty() {
                "none".to_owned()
            } else {
                loaded.component.imports().join(",")
            },
            loaded.source.clone(),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        println!("{}", line.trim_end());
    }
    ExitCode::SUCCESS
}
