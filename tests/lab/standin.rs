//! A machine whose PID 1 is the stand-in, `handover pid1`: its tree is this host's own /usr, and what a
//! service needs beside it; or 257's with programs. There is nothing of systemd in it that runs, but
//! `systemctl`, which is the stand-in's.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::MsFlags;

use crate::Doing;
use crate::init::{bind, new_mount, overlay, read_only};
use crate::journal::{self, SYNC, SYNC_FILE};

/// The program inside.
const HANDOVER: &str = "/usr/lib/handover-lab/handover";

/// Where units are, first come first served. Not below /run/systemd: that folder says that systemd runs.
const UNITS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

/// What asks a systemd that is not there.
const ABSENT: [&str; 8] = [
    "systemctl",
    "journalctl",
    "loginctl",
    "busctl",
    "systemd-run",
    "systemd-analyze",
    "systemd-cat",
    "systemd-socket-activate",
];

/// Makes the tree of a machine over the host's /usr, as far as it is no mount of the kernel's.
pub(crate) fn tree(usr: &Path, base: &Path) -> Result<PathBuf, String> {
    // The root has to be a mount of its own; and an overlay of nothing but a skeleton is one that can be left.
    new_mount("tmpfs", base, MsFlags::empty(), "mode=755")?;
    let [root, over] = ["root", "usr"].map(|name| base.join(name));
    for folder in [&root, &over] {
        fs::create_dir(folder).doing(folder.display())?;
    }
    bind(&root, &root)?;
    for folder in ["etc", "usr", "var/lib", "home/tester", "root", "opt", "proc", "sys", "dev", "run", "tmp"]
    {
        fs::create_dir_all(root.join(folder)).doing(folder)?;
    }
    let usr = overlay(usr, &over)?;
    bind(&usr, &root.join("usr"))?;
    for folder in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let (host, inside) = (Path::new("/").join(folder), root.join(folder));
        if let Ok(target) = fs::read_link(&host) {
            symlink(target, inside).doing(folder)?;
        } else if host.is_dir() {
            bind(&host, &inside)?;
            read_only(&inside, MsFlags::empty())?;
        }
    }
    settings(&root)?;
    Ok(root)
}

/// /etc: users, names, the linker's cache, and nothing that is the host's business.
fn settings(root: &Path) -> Result<(), String> {
    let text = |path: &str, text: &str| fs::write(root.join(path), text).doing(path);
    text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ntester:x:1000:1000::/home/tester:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    )?;
    text("etc/group", "root:x:0:\ntty:x:5:\ntester:x:1000:\nnogroup:x:65534:\n")?;
    text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")?;
    text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    nix::unistd::chown(&root.join("home/tester"), Some(1000.into()), Some(1000.into())).doing("chown")?;
    let cache = Path::new("/etc/ld.so.cache");
    if cache.exists() {
        fs::copy(cache, root.join("etc/ld.so.cache")).doing(cache.display())?;
    }
    let alternatives = Path::new("/etc/alternatives");
    if alternatives.is_dir() {
        bind(alternatives, &root.join("etc/alternatives"))?;
        read_only(&root.join("etc/alternatives"), MsFlags::empty())?;
    }
    Ok(())
}

/// The stand-in in systemd's place, with no units but those of a test.
pub(crate) fn replace_systemd(root: &Path) -> Result<(), String> {
    for name in ABSENT {
        let program = root.join("usr/bin").join(name);
        if program.exists() {
            fs::remove_file(program).doing(name)?;
        }
    }
    for units in UNITS.map(|units| root.join(units.trim_start_matches('/'))) {
        fs::create_dir_all(&units).doing(units.display())?;
        new_mount("tmpfs", &units, MsFlags::empty(), "mode=755")?;
    }
    let unit =
        format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=cat {SYNC_FILE}\n");
    fs::write(root.join("etc/systemd/system").join(SYNC), &unit).doing(SYNC)?;
    let own = std::env::current_exe().doing("the name of this program")?;
    let built = own.parent().and_then(Path::parent).ok_or("this program is nowhere")?.join("handover");
    let inside = root.join(HANDOVER.trim_start_matches('/'));
    bind(&built, &inside)?;
    read_only(&inside, MsFlags::empty())?;
    symlink(HANDOVER, root.join("usr/bin/systemctl")).doing("systemctl")
}

/// What the supervisor has of journald's, once /run is there.
pub(crate) fn runtime_files(root: &Path, state: &Path) -> Result<(), String> {
    File::create(root.join(SYNC_FILE.trim_start_matches('/'))).doing(SYNC_FILE)?;
    bind(&journal::socket(state), &root.join("run/systemd/journal/socket"))
}

/// What becomes PID 1, behind setpriv(1).
pub(crate) fn pid_1(command: &mut Command) {
    command.args([HANDOVER, "pid1"]).args(UNITS);
}
