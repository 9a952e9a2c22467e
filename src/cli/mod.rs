//! The `handover` program: words for people, and exit statuses for programs.
//!
//! What happened goes to stdout, what was refused and what went wrong to stderr.
//!
//! This chapter never decides anything that a library chapter could decide, and never calls exit(3):
//! `main` returns.

mod check;
mod completions;
mod ctl;
mod demo;
mod exit;
mod init;
mod pid1;
mod reload;
mod run;
mod status;
mod target;
mod timespan;
mod upgrade;
mod version;
mod words;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

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
    Init(init::Init),
    Check(check::Check),
    Reload(reload::Reload),
    Status(status::Status),
    Run(run::Run),
    Pid1(pid1::Pid1),
    Ctl(ctl::Ctl),
    Demo(demo::Demo),
    Completions(completions::Completions),
}

/// The command line, with all that `--help` says: the manual pages are made of it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line says. `handover upgrade --help` lists the exit statuses.
pub fn main() -> ExitCode {
    if let Some(exit) = completions::answer(command) {
        return exit.into();
    }
    let called = std::env::args_os().next().map(PathBuf::from);
    if called.is_some_and(|called| called.file_name() == Some(OsStr::new("systemctl"))) {
        return ctl::as_systemctl();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return version::print().into(),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            return if !error.use_stderr() {
                Exit::Success.into()
            } else if std::env::args_os().nth(1).is_some_and(|command| command == "check") {
                // Its 2 is an answer.
                check::CheckExit::Usage.into()
            } else {
                Exit::Usage.into()
            };
        }
    };
    match cli.command {
        Command::Upgrade(command) => command.run().into(),
        Command::Init(command) => command.run().into(),
        Command::Check(command) => command.run().into(),
        Command::Reload(command) => command.run().into(),
        Command::Status(command) => command.run().into(),
        Command::Run(command) => command.run().into(),
        Command::Pid1(command) => command.run().into(),
        Command::Ctl(command) => command.run(),
        Command::Demo(command) => command.run().into(),
        Command::Completions(command) => command.run().into(),
    }
}

/// Adds what systemctl(1) adds: a name without the suffix of a unit type is a service's.
fn unit_name(name: &str) -> String {
    const TYPES: [&str; 11] = [
        ".service",
        ".socket",
        ".target",
        ".device",
        ".mount",
        ".automount",
        ".swap",
        ".timer",
        ".path",
        ".slice",
        ".scope",
    ];
    if TYPES.iter().any(|suffix| name.ends_with(suffix)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_the_suffix_of_a_unit_type_is_that_of_a_service() {
        assert_eq!(unit_name("web"), "web.service");
        assert_eq!(unit_name("web.service"), "web.service");
        assert_eq!(unit_name("shop@de.example"), "shop@de.example.service");
        assert_eq!(unit_name("web.socket"), "web.socket");
    }

    #[test]
    fn the_command_line_is_one_that_clap_can_parse() {
        Cli::command().debug_assert();
    }
}
