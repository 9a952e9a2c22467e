//! What the unit's own settings make of a process: environment, limits, umask, nice level, OOM score.
//!
//! The runner has those of the day it was started. `handover reload` is started by PID 1 with those of
//! today, so a new generation gets what that process has; the kernel tells. A process that is not of this
//! unit, started by hand, has no say. What the settings make of a user, a sandbox or namespaces cannot be
//! passed on: a new generation has the runner's.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

use crate::sys::spawn::{Conditions, conditions_of};

/// See the banner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Names and values.
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The rest.
    pub(crate) conditions: Conditions,
}

impl Settings {
    /// Those of a process of this unit; `None` for any other.
    ///
    /// Errors: what cannot be read; it may have ended.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        let cgroup = |who: &str| fs::read_to_string(format!("/proc/{who}/cgroup"));
        if unit(&cgroup("self")?) != unit(&cgroup(&pid.to_string())?) {
            return Ok(None);
        }
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        Ok(Some(Self { environment: variables(&environment), conditions: conditions_of(pid)? }))
    }

    /// The environment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        self.environment.iter().map(move |(name, value)| (text(name), text(value)))
    }
}

/// The part of proc_pid_cgroup(5) that names a unit: a service may have cgroups below its own.
fn unit(cgroups: &str) -> &str {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or(cgroups);
    let end = path.rfind(".service").map_or(path.len(), |at| at + ".service".len());
    &path[..end]
}

/// proc_pid_environ(5): `NAME=value`, each with a NUL behind it.
fn variables(environ: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |text: &[u8]| {
        let at = OsStr::from_bytes(text).as_bytes().iter().position(|byte| *byte == b'=')?;
        Some((text.get(..at)?.to_vec(), text.get(at + 1..)?.to_vec()))
    };
    environ.split(|byte| *byte == 0).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_control_process_is_of_its_unit() {
        let own = "0::/system.slice/app.service\n";
        assert_eq!(unit(own), "/system.slice/app.service");
        assert_eq!(unit("1:name=x:/y\n0::/system.slice/app.service/.control\n"), unit(own));
        assert_eq!(unit("0::/system.slice/app.service/sub"), unit(own));
        assert_ne!(unit("0::/system.slice/other.service"), unit(own));
        assert_ne!(unit("0::/user.slice/session-1.scope"), unit(own));
    }

    #[test]
    fn the_settings_of_a_process_are_what_it_was_started_with() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "umask 027; ulimit -n 99; exec cat"]).env("WORD", "of=today");
        let mut cat = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let of_cat = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", cat.id())).unwrap();
        // It has its name a moment before its environment.
        while of_cat("comm") != "cat\n" || of_cat("environ").is_empty() {
            assert!(std::time::Instant::now() < until, "it is not executed");
        }
        let found = Settings::of(cat.id().cast_signed()).unwrap().unwrap();
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert!(found.variables().any(|pair| pair == ("WORD".into(), "of=today".into())));
        assert_eq!(found.conditions.umask, Some(0o027));
        let files = found.conditions.limits.iter().find(|(resource, ..)| *resource == libc::RLIMIT_NOFILE);
        assert_eq!(files.map(|(_, soft, _)| *soft), Some(Some(99)));
        assert_eq!(variables(b"A=1\0B=\0nonsense\0\0"), [(b"A".into(), b"1".into()), (b"B".into(), vec![])]);
    }
}
