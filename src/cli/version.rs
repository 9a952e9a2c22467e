//! `handover --version`: its own, and that of the systemd that it found.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::timeout;

use super::exit::Exit;
use crate::manager::{Manager, Scope};

/// How long systemd may take to say its version.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints both.
pub(crate) fn print() -> Exit {
    let own = concat!("handover ", env!("CARGO_PKG_VERSION"));
    match writeln!(io::stdout().lock(), "{own}\n{}", found()) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failed,
    }
}

/// Who would be asked about units.
fn found() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = async {
        match Manager::find(Scope::System).await {
            Ok(manager) => manager.version().await.map(|version| (version, manager.is_standin())),
            Err(error) => Err(error),
        }
    };
    match runtime.map(|runtime| runtime.block_on(async { timeout(PATIENCE, asked).await })) {
        Ok(Ok(Ok((Some(version), _)))) => format!("systemd {version}"),
        Ok(Ok(Ok((None, true)))) => "no systemd; `handover pid1` stands in".into(),
        _ if sd_notify::booted().unwrap_or(false) => "systemd, but it does not answer".into(),
        _ => "no systemd".into(),
    }
}
