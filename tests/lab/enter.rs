//! Runs one command inside a machine: joins its cgroup and namespaces, passes the exit code on.
//! A command dies with the process that waits for it, and with the machine.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use nix::sched::{CloneFlags, setns};

use crate::machine::surround;
use crate::{Doing, USAGE, cgroup};

/// `words`: PID of PID 1 on the host, perhaps `--user NAME`, `--`, the command.
pub(crate) fn run(words: &[String]) -> Result<ExitCode, String> {
    let (pid, user, command) = match words {
        [pid, dashes, command @ ..] if dashes == "--" => (pid, None, command),
        [pid, flag, user, dashes, command @ ..] if flag == "--user" && dashes == "--" => {
            (pid, Some(user), command)
        }
        _ => return Err(USAGE.into()),
    };
    // A cgroup inside the machine's cgroup namespace: logind and PID 1 cannot name a process elsewhere.
    let cgroup = cgroup::machine_of(pid)?.join("lab.exec");
    let namespaces =
        ["cgroup", "ipc", "uts", "net", "pid", "mnt"].map(|kind| format!("/proc/{pid}/ns/{kind}"));
    let namespaces = namespaces.map(|path| File::open(&path).doing(path));
    match fs::create_dir(&cgroup) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(why).doing(cgroup.display());
        }
        _ => cgroup::join(&cgroup)?,
    }
    for namespace in namespaces {
        setns(namespace?, CloneFlags::empty()).doing("setns")?;
    }
    // setpriv(1) of the machine: PDEATHSIG in the child itself, without a line of unsafe here.
    let mut inside = Command::new("/usr/bin/setpriv");
    surround(inside.args(["--pdeathsig", "KILL"]));
    if let Some(user) = user {
        as_user(&mut inside, user)?;
    }
    Ok(exit_code(inside.arg("--").args(command).status().doing("setpriv")?))
}

/// What pam_systemd(8) would set for a session of `user`; read in the machine's own passwd(5).
fn as_user(command: &mut Command, user: &str) -> Result<(), String> {
    let passwd = fs::read_to_string("/etc/passwd").doing("/etc/passwd")?;
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|entry| entry[0] == user);
    let Some([_, _, uid, gid, _, home, ..]) = entry.as_deref() else { return Err(format!("no user {user}")) };
    let runtime = format!("/run/user/{uid}");
    command.args(["--reuid", uid, "--regid", gid, "--init-groups"]).env("HOME", home).env("USER", user);
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={runtime}/bus"));
    command.env("XDG_RUNTIME_DIR", runtime);
    Ok(())
}

/// As a shell tells it: 128 and the signal's number for a command that was killed.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
