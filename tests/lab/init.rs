//! PID 1 of a machine, up to the moment when it becomes systemd, or its stand-in: namespaces, mounts, a new root.
//!
//! Nothing done here reaches the host: the mount namespace is private before the first mount, and what
//! the kernel shares between machines (/sys, /proc/sys) is read-only, but for the network's own.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root, sethostname};

use crate::roots::Tree;
use crate::systemd::Systemd;
use crate::{Doing, Plan, cgroup, standin};

/// What a machine could do to the host's kernel, and no test needs. CAP_SYS_BOOT stays: poweroff.
const DROPPED: &str = "--bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog,-wake_alarm,\
    -block_suspend,-mac_override,-mac_admin";

const NO_DEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NO_EXEC: MsFlags = NO_DEV.union(MsFlags::MS_NOEXEC);

/// Becomes systemd or its stand-in; returns only to say why it could not.
///
/// `words`: the root tree, the state folder, the cgroup, the console's terminal, then the [`Plan`]'s own.
pub(crate) fn run(words: &[String]) -> String {
    become_pid_1(words).err().unwrap_or_else(|| "PID 1 returned".into())
}

fn become_pid_1(words: &[String]) -> Result<(), String> {
    let [root, state, cgroup, console, words @ ..] = words else {
        return Err("init is for boot to call".into());
    };
    let (state, console) = (Path::new(state), Path::new(console));
    let plan = Plan::parse(words)?;
    // In this order: a supervisor that died before the first line is noticed by the second.
    set_pdeathsig(Signal::SIGKILL).doing("prctl")?;
    std::io::stdin().read_exact(&mut [0]).doing("the supervisor is gone")?;
    cgroup::join(Path::new(cgroup))?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )
    .doing("unshare")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).doing("make / private")?;

    let (root, base, standin) = (Path::new(root), state.join("tree"), plan.systemd == Systemd::Standin);
    let of_the_host = plan.tree() == Tree::Of(Systemd::Standin);
    let new = if of_the_host { standin::tree(root, &base) } else { overlay(root, &base) }?;
    if standin {
        standin::replace_systemd(&new)?;
    }
    kernel_files(&new)?;
    devices(&new, console)?;
    runtime_files(&new, state)?;
    if standin {
        standin::runtime_files(&new, state)?;
    }
    for (host, path) in &plan.binds {
        bind(host, &new.join(path))?;
        read_only(&new.join(path), MsFlags::empty())?;
    }
    for (host, path) in &plan.copies {
        make_parent(&new.join(path))?;
        fs::copy(host, new.join(path)).doing(path)?;
    }
    if let Some(tree) = &plan.folder {
        copy_tree(tree, &new)?;
    }
    identity(&new, &plan.systemd.to_string().to_lowercase())?;
    enter(&new)?;
    Err(format!("exec PID 1: {}", pid_1(standin)?.exec()))
}

/// Mounts a writable tree over the shared one; returns where it is. All that is written is in memory.
pub(crate) fn overlay(lower: &Path, base: &Path) -> Result<PathBuf, String> {
    new_mount("tmpfs", base, MsFlags::empty(), "mode=755")?;
    let [upper, work, new] = ["upper", "work", "root"].map(|name| base.join(name));
    for folder in [&upper, &work, &new] {
        fs::create_dir(folder).doing(folder.display())?;
    }
    let layers = [("lowerdir", lower), ("upperdir", &upper), ("workdir", &work)];
    let options = layers.map(|(key, path)| format!("{key}={}", path.display())).join(",");
    new_mount("overlay", &new, MsFlags::empty(), &options)?;
    Ok(new)
}

/// /proc, /sys and the machine's own cgroup2, with what belongs to the host closed.
fn kernel_files(new: &Path) -> Result<(), String> {
    new_mount("proc", &new.join("proc"), NO_EXEC, "")?;
    new_mount("sysfs", &new.join("sys"), NO_EXEC, "")?;
    // netdevice(7): IFF_UP and IFF_LOOPBACK. systemd does this itself, its stand-in leaves networks alone.
    fs::write(new.join("sys/class/net/lo/flags"), "0x9").doing("lo")?;
    read_only(&new.join("sys"), NO_EXEC)?;
    new_mount("cgroup2", &new.join("sys/fs/cgroup"), NO_EXEC, "")?;
    bind(&new.join("proc/sys"), &new.join("proc/sys"))?;
    bind(&new.join("proc/sys/net"), &new.join("proc/sys/net"))?;
    read_only(&new.join("proc/sys"), NO_EXEC)?;
    for path in ["proc/sysrq-trigger", "proc/irq", "proc/bus"].map(|path| new.join(path)) {
        if path.exists() {
            bind(&path, &path)?;
            read_only(&path, NO_EXEC)?;
        }
    }
    bind(Path::new("/dev/null"), &new.join("proc/kmsg"))
}

/// A /dev with the few devices that every program may expect, and our terminal as the console.
fn devices(new: &Path, console: &Path) -> Result<(), String> {
    let dev = new.join("dev");
    new_mount("tmpfs", &dev, MsFlags::MS_NOSUID, "mode=755")?;
    let mask = umask(Mode::empty());
    let numbers =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in numbers {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&dev.join(name), SFlag::S_IFCHR, mode, makedev(major, minor)).doing(name)?;
    }
    umask(mask);
    for (link, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{target}"), dev.join(link)).doing(link)?;
    }
    symlink("pts/ptmx", dev.join("ptmx")).doing("ptmx")?;
    for folder in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(folder)).doing(folder)?;
    }
    let options = "newinstance,ptmxmode=0666,mode=620,gid=5";
    new_mount("devpts", &dev.join("pts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)?;
    new_mount("tmpfs", &dev.join("shm"), NO_DEV, "mode=1777")?;
    new_mount("mqueue", &dev.join("mqueue"), NO_EXEC, "")?;
    bind(console, &dev.join("console"))
}

/// /run, /tmp, and the socket on which PID 1 says that it is ready.
fn runtime_files(new: &Path, state: &Path) -> Result<(), String> {
    new_mount("tmpfs", &new.join("run"), NO_DEV, "mode=755")?;
    new_mount("tmpfs", &new.join("tmp"), NO_DEV, "mode=1777")?;
    let lock = new.join("run/lock");
    fs::create_dir(&lock).doing(lock.display())?;
    fs::set_permissions(&lock, PermissionsExt::from_mode(0o1777)).doing(lock.display())?;
    bind(&state.join("notify"), &new.join("run/host/notify"))
}

/// A host name and a machine id of its own: with an empty id systemd would take this for a first boot.
fn identity(new: &Path, name: &str) -> Result<(), String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").doing("random uuid")?.replace('-', "");
    fs::write(new.join("etc/machine-id"), id).doing("machine-id")?;
    fs::write(new.join("etc/hostname"), format!("{name}\n")).doing("hostname")?;
    sethostname(name).doing("hostname")
}

/// Makes `new` the root and lets go of the host's.
fn enter(new: &Path) -> Result<(), String> {
    chdir(new).doing(new.display())?;
    pivot_root(".", ".").doing("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).doing("let go of the old root")?;
    chdir("/").doing("/")?;
    // What PID 1 mounts later for a service, credentials above all, reaches it only through this.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).doing("make / shared")
}

/// setpriv(1) drops capabilities, then becomes systemd: the same process, so PID 1 it stays.
fn pid_1(standin: bool) -> Result<Command, String> {
    let console = File::options().read(true).write(true).open("/dev/console").doing("/dev/console")?;
    let again = || console.try_clone().doing("/dev/console");
    let mut command = Command::new("/usr/bin/setpriv");
    command.arg(DROPPED);
    if standin {
        standin::pid_1(&mut command);
    } else {
        command.args(["/usr/lib/systemd/systemd", "--log-target=journal", "--show-status=no"]);
    }
    command.stdin(again()?).stdout(again()?).stderr(again()?).env_clear();
    command.env("container", "handover-lab").env("NOTIFY_SOCKET", "/run/host/notify");
    command.env("TERM", "dumb").env("PATH", crate::machine::PATH);
    Ok(command)
}

pub(crate) fn new_mount(kind: &str, target: &Path, flags: MsFlags, options: &str) -> Result<(), String> {
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .doing(format!("mount {kind} on {}", target.display()))
}

/// Shows `source` at `target`, which is made if it is not there.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), String> {
    if source.is_dir() {
        fs::create_dir_all(target).doing(target.display())?;
    } else if !target.exists() {
        make_parent(target)?;
        File::create(target).doing(target.display())?;
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .doing(format!("bind {} to {}", source.display(), target.display()))
}

/// Makes an existing mount read-only, with `flags` beside; those below it stay as they are.
pub(crate) fn read_only(target: &Path, flags: MsFlags) -> Result<(), String> {
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .doing(format!("close {}", target.display()))
}

/// Copies what is in a folder to the same places below `new`: modes as they are, links as links, all of it root's.
fn copy_tree(tree: &Path, new: &Path) -> Result<(), String> {
    let mut copy = Command::new("cp");
    copy.args(["-r", "--no-dereference", "--preserve=mode,links"]).arg(tree.join(".")).arg(new);
    let status = copy.status().doing("cp")?;
    if status.success() { Ok(()) } else { Err(format!("cp {}: {status}", tree.display())) }
}

fn make_parent(path: &Path) -> Result<(), String> {
    path.parent().map_or(Ok(()), fs::create_dir_all).doing(path.display())
}
