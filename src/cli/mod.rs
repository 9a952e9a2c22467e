//! The `handover` program: words for people, and exit statuses for programs.
//!
//! What happened goes to stdout, what was refused and what went wrong to stderr.
//!
//! This chapter never decides anything that a library chapter could decide, and never calls exit(3):
//! `main` returns.

mod exit;
mod record;
mod reload;
mod timespan;
mod upgrade;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;

/// Upgrade, restart or crash a Linux service without its clients noticing.
#[derive(Debug, Parser)]
#[command(name = "handover", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
enum Command {
    Upgrade(upgrade::Upgrade),
    Reload(reload::Reload),
}

/// Does what the command line says. `handover upgrade --help` lists the exit statuses.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    match cli.command {
        Command::Upgrade(command) => command.run().into(),
        Command::Reload(command) => command.run().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_one_that_clap_can_parse() {
        Cli::command().debug_assert();
    }
}
