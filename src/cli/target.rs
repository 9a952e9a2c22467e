//! Which manager is asked: the flags that systemctl(1) has for it.

use std::path::PathBuf;

use clap::Args;

use crate::manager::{Error, Manager, Scope};

/// The flags.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Ask the calling user's own manager, not PID 1
    #[arg(long)]
    pub(crate) user: bool,
    /// Ask the `handover pid1` with this control socket or runtime folder; without this, one is found by
    /// itself where no systemd runs
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["user", "host", "machine"])]
    pub(crate) standin: Option<PathBuf>,
    /// Ask the systemd of another host, over ssh(1)
    #[arg(long, short = 'H', value_name = "[USER@]HOST", conflicts_with_all = ["user", "machine"])]
    pub(crate) host: Option<String>,
    /// Ask the systemd of a local container
    #[arg(long, short = 'M', value_name = "[USER@]MACHINE", conflicts_with = "user")]
    pub(crate) machine: Option<String>,
}

impl Target {
    /// Whose manager it is.
    pub(crate) fn scope(&self) -> Scope {
        if self.user { Scope::User } else { Scope::System }
    }

    /// Connects. Errors: why that was not possible.
    pub(crate) async fn connect(&self) -> Result<Manager, Error> {
        match self {
            Self { standin: Some(address), .. } => Ok(Manager::standin(address)),
            Self { host: Some(host), .. } => Manager::on_host(host).await,
            Self { machine: Some(machine), .. } => Manager::in_machine(machine).await,
            Self { user: true, .. } => Manager::connect(Scope::User).await,
            _ => Manager::find(Scope::System).await,
        }
    }
}
