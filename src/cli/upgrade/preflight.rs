//! `handover upgrade --pre-flight`: what can be known before anything is touched. The unit is checked, and the
//! new binary checks itself, if the unit names a command for that:
//!
//! ```ini
//! [X-Handover]
//! Check=/usr/bin/web --check
//! ```
//!
//! systemd ignores sections that begin with X-, systemd.unit(5). The command runs as the user of the service if
//! we are root, with the unit's Environment=, in the root folder, and without its sandbox; a service with DynamicUser=
//! has no user yet, and its command runs as `nobody`.
//! It is never run through a shell, and ends with us.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::check::{self, Severity, Version};
use crate::manager::{Error, Manager};
use crate::unit::{self, Host, Service, Unit, UnitName};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes of what a command says that are told.
const MOST_SAID: u64 = 4096;

/// What is in the way of an upgrade of `unit`, in words; `None` if nothing is.
///
/// Errors: what kept us from asking.
pub(super) async fn trouble(manager: &Manager, unit: &str) -> Result<Option<String>, Error> {
    let units = check::loaded(manager, &[unit.to_owned()]).await?;
    let findings = check::check(&units, Version::of(manager).await?);
    if let Some(worst) = findings.iter().find(|finding| finding.severity == Severity::Error) {
        let Some(line) = worst.mend.as_ref().and_then(|mend| mend.lines.first()) else {
            return Ok(Some(format!("{}: {}", worst.rule, worst.why)));
        };
        return Ok(Some(format!("{}: {}; write {line}", worst.rule, worst.why)));
    }
    let Some(described) = manager.describe(unit).await? else { return Ok(None) };
    let Some(name) = UnitName::parse(&described.name) else { return Ok(None) };
    let loaded = unit::load_files(&[(name.clone(), described.files)], Host::current());
    let Some(document) = loaded.units.iter().find(|unit| *unit.name() == name) else { return Ok(None) };
    let service = loaded.services.iter().find(|(known, _)| *known == name).map(|(_, service)| service);
    for line in document.values("X-Handover", "Check") {
        if let Some(why) = run(&line.value, &name, service).await {
            return Ok(Some(format!("Check={}: {why}", line.value)));
        }
    }
    Ok(None)
}

/// Runs one command; what is wrong with it, or with what it found.
async fn run(line: &str, name: &UnitName, service: Option<&Service>) -> Option<String> {
    let words = match words(line, name) {
        Ok(words) => words,
        Err(why) => return Some(why),
    };
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin").current_dir("/");
    command.kill_on_drop(true);
    if let Some(exec) = service.map(|service| &service.exec) {
        command.envs(exec.environment.iter().map(|(name, value)| (name, value)));
        let user = if exec.dynamic_user { Some("nobody") } else { exec.user.as_deref() };
        if let Some(user) = user.filter(|_| geteuid().is_root()) {
            match user_of(user) {
                Some((uid, gid)) => drop(command.uid(uid).gid(gid)),
                None => return Some(format!("there is no user {user}")),
            }
        }
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Some(format!("it could not be executed: {error}")),
    };
    let mut said = String::new();
    let ended = tokio::time::timeout(PATIENCE, async {
        if let Some(stderr) = child.stderr.as_mut() {
            // What is no text is not told.
            let _ = stderr.take(MOST_SAID).read_to_string(&mut said).await;
        }
        child.stderr.take();
        child.wait().await
    });
    match ended.await {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => {
            Some(format!("{status}: {}", said.trim().lines().last().unwrap_or("it said nothing")))
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("it did not end within {} s", PATIENCE.as_secs())),
    }
}

/// The words of a command as ExecStart= takes them.
fn words(line: &str, name: &UnitName) -> Result<Vec<String>, String> {
    let (text, mut findings) = (format!("[Service]\nExecStart={line}\n"), Vec::new());
    let files = [(name.as_str().into(), text.into_bytes())];
    let unit = Unit::read(name.clone(), Arc::new(Host::current()), &files, &mut findings);
    let service = Service::read(&unit, &mut findings);
    match (&service.exec_start[..], findings.first()) {
        ([command], None) if command.path.starts_with('/') => Ok(command.words.clone()),
        (_, Some(finding)) => Err(finding.message.clone()),
        _ => Err("wanted one command, with an absolute path".to_owned()),
    }
}

/// The numbers of a user.
fn user_of(name: &str) -> Option<(u32, u32)> {
    let user = match name.parse() {
        Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    user.ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run_line(line: &str) -> Option<String> {
        run(line, &UnitName::parse("web.service").unwrap(), None).await
    }

    #[tokio::test]
    async fn a_command_says_why_not_by_its_status_and_its_last_words() {
        assert_eq!(run_line("/bin/sh -c 'test %p = web'").await, None);
        let why = run_line("/bin/sh -c 'echo first >&2; echo no port >&2; exit 3'").await.unwrap();
        assert_eq!(why, "exit status: 3: no port");
        assert!(run_line("/nowhere/to/be/found").await.unwrap().starts_with("it could not be executed"));
        for no_command in ["web --check", "", "/bin/true 'x"] {
            assert!(run_line(no_command).await.is_some(), "{no_command}");
        }
    }
}
