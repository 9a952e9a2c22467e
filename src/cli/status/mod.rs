//! `handover status`: the command.
//!
//! It never changes anything. With --watch it asks again when the manager has news, and rarely else.

mod screen;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::signal::unix::{SignalKind, signal};

use super::completions::services;
use super::exit::{Exit, StatusExit};
use super::target::Target;
use super::words::Words;
use crate::manager::{Error, Manager};
use crate::status::{self, Watcher};

use screen::Screen;

/// How often what nobody tells is looked at: queues, connections that drain, the FD store.
const TICK: Duration = Duration::from_secs(1);

/// What follows the options in `--help`.
const EXIT_STATUSES: &str = "\
Exit status (of several units, the highest):
   0  the service runs
   1  the answer could not be written
   2  wrong usage
   3  the service is not active
   4  there is no such unit
   9  the manager does not answer
  40  no bus, or no systemd on it; or no stand-in answers";

/// Show how services stand: who serves, who drains, who waits, what is kept, what stands in the way
///
/// Without UNIT, all those whose ExecReload= is handover's. What the service itself has to say is asked for as
/// its own user or as root; others see what the service manager tells everybody.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Status {
    #[command(flatten)]
    target: Target,
    /// Print one JSON object a line for each unit
    #[arg(long)]
    json: bool,
    /// Show it again whenever something has changed, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// The services; `web` means web.service
    #[arg(value_name = "UNIT", add = ArgValueCompleter::new(services))]
    units: Vec<String>,
}

impl Status {
    /// Shows them.
    pub(crate) fn run(&self) -> StatusExit {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.show()),
            Err(error) => complain(&format!("handover: no event loop: {error}"), StatusExit::Failed),
        }
    }

    async fn show(&self) -> StatusExit {
        let scope = self.target.scope();
        let manager = match self.target.connect().await {
            Ok(manager) => manager,
            Err(error) => return told(&Words::new(scope), "handover", &error),
        };
        let words = if manager.is_standin() { Words::of_standin() } else { Words::new(scope) };
        match self.of(&manager).await {
            Ok(exit) => exit,
            Err(error) => told(&words, "handover", &error),
        }
    }

    async fn of(&self, manager: &Manager) -> Result<StatusExit, Error> {
        let units = match self.units.is_empty() {
            true => status::ours(manager).await?,
            false => self.units.iter().map(|unit| super::unit_name(unit)).collect(),
        };
        if units.is_empty() {
            let why = "no service here has ExecReload=/usr/bin/handover reload; handover init writes the units of one";
            return Ok(complain(why, StatusExit::NotFound));
        }
        let mut watchers = Vec::new();
        for unit in &units {
            watchers.push(Watcher::find(manager, unit, self.watch).await?);
        }
        let screen = Screen::find(self.json, self.watch);
        let mut thoroughly = true;
        let mut end = signal(SignalKind::interrupt()).ok();
        loop {
            let (mut all, mut exit) = (Vec::new(), StatusExit::Running);
            for watcher in &mut watchers {
                let status = watcher.look(thoroughly).await?;
                exit = exit.max(StatusExit::from(&status));
                all.push(status);
            }
            if screen.show(&all).is_err() {
                // The reader has gone.
                return Ok(StatusExit::Failed);
            }
            if !self.watch {
                return Ok(exit);
            }
            let news = select_all(watchers.iter_mut().map(|watcher| watcher.change().boxed_local()));
            tokio::select! {
                (changed, ..) = news => {
                    changed?;
                    thoroughly = true;
                }
                () = tokio::time::sleep(TICK) => thoroughly = false,
                () = interrupted(end.as_mut()) => return Ok(exit),
            }
        }
    }
}

/// Ctrl-C; never, if it cannot be caught: then it ends the program by itself.
async fn interrupted(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// What kept us from asking.
fn told(words: &Words, unit: &str, error: &Error) -> StatusExit {
    complain(&words.error(unit, error), StatusExit::Error(Exit::from(error).into()))
}

/// One line for stderr.
fn complain(why: &str, exit: StatusExit) -> StatusExit {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "{why}");
    exit
}

/// Whether stdout is a terminal that can be drawn on.
pub(super) fn is_screen() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb
}
