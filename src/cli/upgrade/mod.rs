//! `handover upgrade`: the command.
//!
//! Several units are upgraded in their order, or some at a time; the first failure is the last one that is
//! begun. Ctrl-C ends this command, never an upgrade: that is PID 1's.

mod preflight;
mod progress;
mod record;

use std::io::{self, Write};
use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::signal::unix::{SignalKind, signal};

use super::completions::services;
use super::exit::Exit;
use super::target::Target;
use super::timespan::Timespan;
use super::unit_name;
use super::words::Words;
use crate::manager::{self, Error, Manager, Options, Report, Verdict};
use progress::Progress;
use record::Record;

/// What follows the options in `--help`.
const EXIT_STATUSES: &str = "\
Exit status (of several units, that of the first that failed; those behind it are not tried):
   0  the new process serves
   1  the upgrade failed, and no other status says why; or it was not tried
   2  wrong usage
   3  the service cannot reload, or the unit is no service
   4  not allowed
   5  no such unit
   6  the unit is masked, or its files cannot be read
   7  the service is not active
   8  the service died during the upgrade, restarted by systemd or not
   9  the time is up; what was begun goes on
  10 to 39, 44 and more  the upgrade failed: the exit status of the ExecReload= helper, which `handover
      reload --help` explains; 200 and more are systemd's own, see systemd.exec(5)
  40  no bus, or no systemd on it; or no stand-in answers
  41  another job of the unit rules out a reload
  42  --pre-flight found what would fail; nothing was tried
  43  Ctrl-C; what was begun goes on

With --json each line has an `event`: `begun`, `phase`, `switched`, `draining` as they are seen, and for each
unit one `ended`, which has all that became of it.

--pre-flight runs the command of the unit's [X-Handover] section, Check=/usr/bin/web --check, if there is one:
as the service's user if called by root, without its sandbox.";

/// Upgrade services: reload each, follow it, and tell who serves.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    target: Target,
    /// Print one JSON object a line for each event, the last one of a unit being how it ended
    #[arg(long)]
    json: bool,
    /// How far to follow: until the new process serves, or until the old one has gone as well
    #[arg(long, value_enum, default_value = "switched")]
    wait: Wait,
    /// How long to follow each unit: 90 (seconds), 2min, 1h 30min, infinity
    #[arg(long, default_value = "10min")]
    timeout: Timespan,
    /// How many to upgrade at a time
    #[arg(long, value_name = "N", default_value = "1")]
    parallel: NonZeroUsize,
    /// First check the unit, and have the new program check itself, if the unit says how
    #[arg(long, conflicts_with_all = ["host", "machine"])]
    pre_flight: bool,
    /// The services, in this order; `web` means web.service
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
    /// Upgrades the units; the answer is the first failure's, if there is one.
    pub(crate) fn run(&self) -> Exit {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let exit = runtime.block_on(self.upgrade());
                // Who is asked in a thread does not hold up the end.
                runtime.shutdown_background();
                exit
            }
            Err(error) => {
                complain(&format!("handover: no event loop: {error}"));
                Exit::Failed
            }
        }
    }

    /// Connects and goes through the units.
    async fn upgrade(&self) -> Exit {
        let progress = Progress::find(self.json);
        let manager = self.target.connect().await;
        let standin = manager.as_ref().is_ok_and(Manager::is_standin);
        let words = if standin { Words::of_standin() } else { Words::new(self.target.scope()) };
        let units: Vec<_> = self.units.iter().map(|unit| unit_name(unit)).collect();
        let manager = match &manager {
            Ok(manager) => manager,
            // One such line says it for all.
            Err(error) => return self.tell_error(&words, &units[0], error),
        };
        let teller = Teller { command: self, manager, words, progress };
        let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
            return teller.all(&units).await;
        };
        tokio::select! {
            exit = teller.all(&units) => exit,
            _ = interrupt.recv() => {
                teller.progress.past(|| complain(
                    "what was begun goes on without this command; handover status shows how it gets on"
                ));
                Exit::Interrupted
            }
        }
    }

    /// How to follow each.
    fn options(&self) -> Options {
        let wait = match self.wait {
            Wait::Switched => manager::Wait::Switched,
            Wait::Drained => manager::Wait::Drained,
        };
        Options { wait, timeout: self.timeout.0 }
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

/// All that it takes to upgrade units and to tell of it.
struct Teller<'a> {
    command: &'a Upgrade,
    manager: &'a Manager,
    words: Words,
    progress: Progress,
}

impl Teller<'_> {
    /// So many at a time; after a failure none is begun, and those that were are seen to their end.
    async fn all(&self, units: &[String]) -> Exit {
        let (mut waiting, mut running) = (units.iter(), FuturesUnordered::new());
        let mut first = Exit::Success;
        loop {
            while first == Exit::Success && running.len() < self.command.parallel.get() {
                let Some(unit) = waiting.next() else { break };
                running.push(self.one(unit));
            }
            match running.next().await {
                Some(exit) if first == Exit::Success => first = exit,
                Some(_) => {}
                None => break,
            }
        }
        for unit in waiting {
            self.not_done(unit, "not-tried", Exit::Failed, "not tried, for another one failed");
        }
        first
    }

    /// One unit, from what can be known before to the end.
    async fn one(&self, unit: &str) -> Exit {
        if self.command.pre_flight {
            match preflight::trouble(self.manager, unit).await {
                Ok(None) => {}
                Ok(Some(why)) => return self.not_done(unit, "pre-flight", Exit::PreFlight, &why),
                Err(error) => return self.failed(unit, &error),
            }
        }
        let upgrade = manager::upgrade(self.manager, unit, self.command.options());
        let told = tokio::select! {
            told = upgrade => told,
            // It only tells: that it cannot is no reason to stop.
            never = async {
                let _ = self.progress.follow(self.manager, unit).await;
                std::future::pending().await
            } => never,
        };
        match told {
            Ok(report) => {
                let mut exit = Exit::Success;
                self.progress.past(|| exit = self.command.tell(&self.words, &report));
                exit
            }
            Err(error) => self.failed(unit, &error),
        }
    }

    fn failed(&self, unit: &str, error: &Error) -> Exit {
        let mut exit = Exit::Failed;
        self.progress.past(|| exit = self.command.tell_error(&self.words, unit, error));
        exit
    }

    /// Says that nothing was done, and why.
    fn not_done(&self, unit: &str, outcome: &'static str, exit: Exit, why: &str) -> Exit {
        let line = Words::plainly(unit, why);
        self.progress.past(|| match self.command.json {
            true => say(&Record::of_nothing(unit, outcome, &line, exit).line()),
            false => complain(&line),
        });
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
