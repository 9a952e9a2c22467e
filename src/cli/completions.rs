//! `handover completions`, and what a shell asks while somebody types: subcommands, options, and the names of
//! units.
//!
//! The scripts hold no list of options: each Tab asks this program, so they never grow old.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Command};
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{Bash, Fish, Shells, Zsh};
use tokio::time::timeout;

use super::exit::Exit;
use crate::manager::{Loaded, Manager, Scope};

/// The variable by which a script of ours asks. Not clap's usual COMPLETE=: a service that has that in its
/// environment must still be able to run `handover reload`.
const VARIABLE: &str = "HANDOVER_COMPLETE";

const SHELLS: Shells<'static> = Shells(&[&Bash, &Fish, &Zsh]);

/// How long somebody who has pressed Tab waits for the names of units.
const PATIENCE: Duration = Duration::from_secs(1);

/// Print the script that teaches a shell to complete `handover`, with the names of units.
///
/// The Debian package has them in place. Else: source <(handover completions bash), the same for zsh;
/// handover completions fish | source
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_parser = PossibleValuesParser::new(SHELLS.names()))]
    shell: String,
}

impl Completions {
    /// Prints it.
    pub(crate) fn run(&self) -> Exit {
        let mut script = Vec::new();
        let written = SHELLS
            .completer(&self.shell)
            .map(|shell| shell.write_registration(VARIABLE, "handover", "handover", "handover", &mut script));
        let shown = written.transpose().and_then(|_| io::stdout().lock().write_all(&script));
        if shown.is_ok() { Exit::Success } else { Exit::Failed }
    }
}

/// Answers a script of ours, if it is one that has started this program.
///
/// Must be the first thing that happens: no thread runs yet, nothing was printed.
pub(crate) fn answer(command: fn() -> Command) -> Option<Exit> {
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(command).var(VARIABLE).shells(SHELLS);
    match asked.try_complete(std::env::args_os(), here.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(Exit::Success),
        Err(_) => Some(Exit::Usage),
    }
}

/// The services whose names begin with what was typed, without the suffix that nobody types.
///
/// Whoever types cannot be told what is wrong: there are no names then.
pub(crate) fn services(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str().filter(|typed| !typed.starts_with('-')) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asked = async { Manager::find(Scope::System).await?.services_like(typed).await };
    let known = runtime.block_on(async { timeout(PATIENCE, asked).await });
    let known = known.map(Result::unwrap_or_default).unwrap_or_default();
    known.into_iter().map(|unit| candidate(unit, typed)).collect()
}

/// The name as somebody goes on typing it.
fn candidate(unit: Loaded, typed: &str) -> CompletionCandidate {
    let short = unit.name.strip_suffix(".service").filter(|short| short.starts_with(typed));
    CompletionCandidate::new(short.unwrap_or(&unit.name)).help(Some(unit.description.into()))
}
