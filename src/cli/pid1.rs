//! `handover pid1`: the command.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use crate::pid1::{self, Activation, Options};

/// What follows the options in `--help`.
const MORE: &str = "\
SIGTERM, SIGINT, SIGQUIT, SIGPWR and SIGRTMIN+3 stop all services and end this, with status 0; another
of them, half a second later, kills what is left. SIGHUP reads the unit files again. SIGUSR1 and SIGUSR2
are passed on to the main processes that have a handler for them. `handover ctl` starts, stops, reloads
and shows units, as systemctl would, and `handover upgrade` upgrades them.";

/// Run .socket and .service files where no systemd does: on a laptop, in a container, in a test
///
/// Opens the sockets, starts the services, keeps their FD stores, restarts and reloads them. Services with
/// a socket start at once if their [Install] section wants them at boot, else with the first traffic;
/// services without a socket start at once. As the entry point of a container it reaps what is left to it.
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub(crate) struct Pid1 {
    /// Start every service at once, also those that would wait for traffic
    #[arg(long, conflicts_with = "on_traffic")]
    now: bool,
    /// Start every service that has a socket with its first traffic
    #[arg(long)]
    on_traffic: bool,
    /// The folder below which the control socket and RuntimeDirectory= are, instead of /run (for root),
    /// $XDG_RUNTIME_DIR, or a folder of your own below the temporary one
    #[arg(long, value_name = "FOLDER")]
    runtime: Option<PathBuf>,
    /// Follow processes by session and parentage, also where cgroups could be used
    #[arg(long)]
    no_cgroups: bool,
    /// End, as with SIGTERM, when the process that started this has ended
    #[arg(long)]
    with_parent: bool,
    /// Unit files, and folders of them with their drop-ins
    #[arg(required = true, value_name = "UNIT-FILE-OR-FOLDER")]
    paths: Vec<PathBuf>,
}

impl Pid1 {
    /// Runs until it is told to end.
    pub(crate) fn run(self) -> Exit {
        let activation = match (self.now, self.on_traffic) {
            (true, _) => Activation::Now,
            (_, true) => Activation::OnTraffic,
            _ => Activation::AsInstalled,
        };
        let options = Options {
            paths: self.paths,
            runtime: self.runtime,
            activation,
            cgroups: !self.no_cgroups,
            with_parent: self.with_parent,
        };
        match pid1::run(&options, io::stdout()) {
            Ok(()) => Exit::Success,
            Err(error) => {
                // Nobody is left to tell if this fails.
                let _ = writeln!(io::stderr(), "handover pid1: {error}");
                Exit::Failed
            }
        }
    }
}
