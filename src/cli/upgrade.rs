//! `handover upgrade`: the command.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::completions::services;
use super::exit::Exit;
use super::record::Record;
use super::timespan::Timespan;
use super::unit_name;
use super::words::Words;
use crate::manager::{self, Error, Manager, Options, Report, Scope, Verdict};

/// What follows the options in `--help`.
const EXIT_STATUSES: &str = "\
Exit status (of several units, that of the first that was not upgraded):
   0  the new process serves
   1  the upgrade failed, and no other status says why
   2  wrong usage
   3  the service cannot reload, or the unit is no service
   4  not allowed
   5  no such unit
   6  the unit is masked, or its files cannot be read
   7  the service is not active
   8  the service died during the upgrade, restarted by systemd or not
   9  the time is up; what was begun goes on
  10 to 39, 42 and more  the upgrade failed: the exit status of the ExecReload= helper, which `handover
      reload --help` explains; 200 and more are systemd's own, see systemd.exec(5)
  40  no bus, or no systemd on it; or no stand-in answers
  41  another job of the unit rules out a reload";

/// Upgrade services: reload each, follow it, and tell who serves.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Upgrade {
    /// Ask the calling user's own manager, not PID 1
    #[arg(long)]
    user: bool,
    /// Ask the `handover pid1` with this control socket or runtime folder; without this, one is found by
    /// itself where no systemd runs
    #[arg(long, value_name = "ADDRESS", conflicts_with = "user")]
    standin: Option<PathBuf>,
    /// Print one JSON object a line for each unit
    #[arg(long)]
    json: bool,
    /// How far to follow: until the new process serves, or until the old one has gone as well
    #[arg(long, value_enum, default_value = "switched")]
    wait: Wait,
    /// How long to follow each unit: 90 (seconds), 2min, 1h 30min, infinity
    #[arg(long, default_value = "10min")]
    timeout: Timespan,
    /// The services, upgraded one after another in this order; `web` means web.service
    #[arg(required = true, value_name = "UNIT", add = ArgValueCompleter::new(services))]
    units: Vec<String>,
}

/// The values of `--wait=`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    Switched,
    Drained,
}

impl Upgrade {
    /// Upgrades the units in turn; the answer is the first failure's, if there is one.
    pub(crate) fn run(&self) -> Exit {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.upgrade()),
            Err(error) => {
                complain(&format!("handover: no event loop: {error}"));
                Exit::Failed
            }
        }
    }

    /// Connects and goes through the units, also after a failure.
    async fn upgrade(&self) -> Exit {
        let scope = if self.user { Scope::User } else { Scope::System };
        let wait = match self.wait {
            Wait::Switched => manager::Wait::Switched,
            Wait::Drained => manager::Wait::Drained,
        };
        let options = Options { wait, timeout: self.timeout.0 };
        let manager = match &self.standin {
            Some(address) => Ok(Manager::standin(address)),
            None if self.user => Manager::connect(scope).await,
            None => Manager::find(scope).await,
        };
        let standin = manager.as_ref().is_ok_and(Manager::is_standin);
        let words = if standin { Words::of_standin() } else { Words::new(scope) };
        let mut first = Exit::Success;
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let exit = match &manager {
                Ok(manager) => match manager::upgrade(manager, &unit, options).await {
                    Ok(report) => self.tell(&words, &report),
                    Err(error) => self.tell_error(&words, &unit, &error),
                },
                Err(error) => self.tell_error(&words, &unit, error),
            };
            if first == Exit::Success {
                first = exit;
            }
        }
        first
    }

    /// Says what became of one unit.
    fn tell(&self, words: &Words, report: &Report) -> Exit {
        let exit = Exit::from(report);
        let line = words.report(report);
        if let Some(store) = report.store.filter(|store| store.is_full()) {
            complain(&words.full(&report.unit, store));
        }
        if report.outdated {
            complain(&words.outdated(&report.unit));
        }
        if self.json {
            say(&Record::of_report(report, &line, exit).line());
        } else if matches!(report.verdict, Verdict::Refused(_)) {
            complain(&line);
        } else {
            say(&line);
        }
        exit
    }

    /// Says why nothing is known of one unit.
    fn tell_error(&self, words: &Words, unit: &str, error: &Error) -> Exit {
        let exit = Exit::from(error);
        let line = words.error(unit, error);
        if self.json {
            say(&Record::of_error(unit, error, &line, exit).line());
        } else {
            complain(&line);
        }
        exit
    }
}

/// One line for stdout, at once. A reader that has gone changes nothing about the upgrade.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// One line for stderr.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
