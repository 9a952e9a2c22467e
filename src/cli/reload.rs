//! `handover reload`: the command that a unit has as its ExecReload=.

use std::io::{self, Write};

use clap::Args;

use super::exit::Exit;
use crate::upgrade::{self, Failure, Reason};

/// Upgrade the service whose control process this is: ExecReload=/usr/bin/handover reload
///
/// Starts a successor of the main process and ends when it serves; else the old one serves on, and
/// the exit status says why not. It is meant for systemd: people use `systemctl reload UNIT` or
/// `handover upgrade UNIT`.
#[derive(Debug, Args)]
#[command(after_help = exit_statuses())]
pub(crate) struct Reload {
    /// Have `handover run` execute itself anew instead: the program goes on as it is. Without this, a
    /// reload does that first if the file of `handover` has changed
    #[arg(long)]
    runner: bool,
}

impl Reload {
    /// Upgrades the service.
    pub(crate) fn run(&self) -> Exit {
        match main_pid().and_then(if self.runner { upgrade::renew } else { upgrade::reload }) {
            Ok(pid) => {
                // Nobody is left to tell if this fails, here and below.
                let _ = writeln!(io::stdout(), "{pid} serves now");
                Exit::Success
            }
            Err(failure) => {
                let _ = writeln!(io::stderr(), "handover reload: {failure}");
                Exit::Helper(failure.reason.exit_code())
            }
        }
    }
}

/// systemd.exec(5), $MAINPID: set for control processes while there is a main process.
fn main_pid() -> Result<i32, Failure> {
    let found = std::env::var("MAINPID").unwrap_or_default();
    found.parse().ok().filter(|pid| *pid > 0).ok_or_else(|| {
        let detail = format!(
            "MAINPID must hold the pid of the service, and holds {found:?}: this command is for \
             ExecReload= of a unit; to upgrade a service, call `systemctl reload` or `handover upgrade`"
        );
        Failure::new(Reason::NoService, detail)
    })
}

fn exit_statuses() -> String {
    let reasons =
        Reason::ALL.iter().map(|reason| format!("  {:>2}  {}\n", reason.exit_code(), reason.meaning()));
    format!("Exit status:\n   0  the new process serves\n{}", reasons.collect::<String>())
}
