//! `handover run`: the command that a unit has as its ExecStart= for a program that knows nothing of this.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;

use super::exit::Exit;
use super::timespan::Timespan;
use crate::run::{self, Busy, Error, Options, Probe, Strategy};

/// Run a program that `systemctl reload` can then upgrade: ExecStart=/usr/bin/handover run -- PROGRAM
///
/// The unit's sockets, each given several times with ReusePort=yes, are the slots of its generations; a
/// program that binds their addresses gets them in place of its own. Add
/// ExecReload=/usr/bin/handover reload, Type=notify and Delegate=yes.
///
/// At each reload the new generation gets the environment, limits, umask, nice level and OOM score that the
/// unit has by then; its user, its sandbox and these options stay as they are until the service is restarted.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Ask the new generation through the real port before it gets clients: tcp, http:PATH or exec:COMMAND
    #[arg(long, value_name = "PROBE", value_parser = probe)]
    probe: Option<Probe>,
    /// Give a new generation a share of what is new at first: 10%:30s
    #[arg(long, value_name = "SHARE:TIME", value_parser = canary)]
    canary: Option<(u8, Duration)>,
    /// How one generation follows the other
    #[arg(long, value_name = "HOW", default_value = "overlap")]
    strategy: How,
    /// What to do with an upgrade when every slot is taken by one that drains
    #[arg(long, value_name = "WHAT", default_value = "wait")]
    on_busy: OnBusy,
    /// How long a new generation may take until it serves
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = span)]
    ready_timeout: Duration,
    /// How long a new generation must go on, ready, before it gets clients
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = span)]
    settle: Duration,
    /// How long an old generation may drain
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    drain: Duration,
    /// Half-close a connection of an old generation that has rested for so long after an answer: for keep-alive
    /// clients
    #[arg(long, value_name = "TIME", value_parser = span)]
    idle: Option<Duration>,
    /// The signal at which the program stops; by default that at which a program of its name finishes what it does
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<Signal>,
    /// How long the program may take after that, until it is killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    stop_timeout: Duration,
    /// Send an old generation its signal at once: for programs whose graceful end is better than a drain
    #[arg(long)]
    signal_first: bool,
    /// Only READY=1 of the program makes a generation ready
    #[arg(long)]
    notify: bool,
    /// How many slots to make where no .socket unit has any
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(2..=64))]
    slots: u8,
    /// Start the program aside instead, and tell what it does and which units fit it
    #[arg(long)]
    explain: bool,
    /// Say to the runner that has started this whether it could go on there
    #[arg(long, hide = true)]
    self_test: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// See [`Strategy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// The new one serves before the old one leaves
    Overlap,
    /// The old one is stopped first, and clients wait; with --probe or --notify until the new one is ready
    Serial,
}

/// See [`Busy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnBusy {
    /// It waits
    Wait,
    /// The oldest generation is killed
    KillOldest,
    /// It is refused
    Refuse,
}

impl Run {
    /// Runs the program until the service is stopped.
    pub(crate) fn run(self) -> Exit {
        let done = if self.self_test {
            run::self_test()
        } else if self.explain {
            // Nobody is left to tell if this fails, here and below.
            run::explain(&self.options()).map(|text| drop(write!(io::stdout(), "{text}")))
        } else {
            run::run(self.options())
        };
        match done {
            Ok(()) => Exit::Success,
            Err(error) => {
                let _ = writeln!(io::stderr(), "handover run: {error}");
                match error {
                    Error::Failed(failure) => Exit::Helper(failure.reason.exit_code()),
                    _ => Exit::Failed,
                }
            }
        }
    }

    fn options(self) -> Options {
        let mut options = Options::new(self.command);
        options.strategy = match self.strategy {
            How::Overlap => Strategy::Overlap,
            How::Serial => Strategy::Serial,
        };
        options.on_busy = match self.on_busy {
            OnBusy::Wait => Busy::Wait,
            OnBusy::KillOldest => Busy::KillOldest,
            OnBusy::Refuse => Busy::Refuse,
        };
        options.probe = self.probe;
        options.canary = self.canary;
        options.ready = self.ready_timeout;
        options.settle = self.settle;
        options.drain = self.drain;
        options.idle = self.idle;
        options.stop_signal = self.stop_signal;
        options.stop = self.stop_timeout;
        options.signal_first = self.signal_first;
        options.notify = self.notify;
        options.slots = usize::from(self.slots);
        options
    }
}

fn probe(text: &str) -> Result<Probe, String> {
    match text.split_once(':') {
        None if text == "tcp" => Ok(Probe::Tcp),
        Some(("http", path)) if path.starts_with('/') && !path.contains(char::is_whitespace) => {
            Ok(Probe::Http(path.to_owned()))
        }
        Some(("exec", command)) if !command.trim().is_empty() => Ok(Probe::Exec(command.to_owned())),
        _ => Err("wanted tcp, http:/PATH or exec:COMMAND".to_owned()),
    }
}

fn canary(text: &str) -> Result<(u8, Duration), String> {
    let wrong = || "wanted a share and a time, as in 10%:30s".to_owned();
    let (share, time) = text.split_once("%:").ok_or_else(wrong)?;
    let share = share.parse().ok().filter(|share| (1..=99).contains(share)).ok_or_else(wrong)?;
    let time = span(time)?;
    Ok((share, time))
}

/// A span of time; one that nobody lives to see the end of is as good as infinity.
fn span(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let Timespan(span) = text.parse()?;
    Ok(span.unwrap_or(LONGEST).min(LONGEST))
}

fn signal(text: &str) -> Result<Signal, String> {
    let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    name.parse().map_err(|_| "wanted the name of a signal, as in SIGQUIT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_told() {
        assert_eq!(probe("http:/health"), Ok(Probe::Http("/health".into())));
        assert_eq!(probe("exec:curl -f x"), Ok(Probe::Exec("curl -f x".into())));
        for wrong in ["", "http", "http:health", "http:/a b", "exec: ", "udp"] {
            assert!(probe(wrong).is_err(), "{wrong}");
        }
        assert_eq!(canary("10%:30s"), Ok((10, Duration::from_secs(30))));
        for wrong in ["10", "0%:3s", "100%:3s", "10%:", "%:3s"] {
            assert!(canary(wrong).is_err(), "{wrong}");
        }
        assert_eq!((signal("QUIT"), signal("SIGTERM")), (Ok(Signal::SIGQUIT), Ok(Signal::SIGTERM)));
        assert!(signal("NOW").is_err());
    }
}
