//! One start of the program, and everything that belongs to it.
//!
//! It is a child of the runner, in a cgroup or process group of its own. It finds the sockets of its slot
//! as LISTEN_FDS, and gets them in place of its own if it binds their addresses; its output goes where
//! the runner's goes. It is killed whole. This file never decides when.

use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};

use super::fence::{Family, Fence, Ground};
use super::herald::{Herald, Word};
use super::inside;
use super::intercept::Notes;
use super::settings::Settings;
use super::slots::Slots;
use super::table::Entry;
use crate::activation::env;
use crate::sys::pidfd::Pidfd;
use crate::sys::seccomp::{self, Notification};
use crate::sys::spawn::{Apart, Program, SpawnError, Variable, spawn_apart};
use crate::sys::watch::Watched;
use crate::sys::{other, process, scm, seqpacket};
use crate::upgrade::launch::{CREDENTIALS_VARIABLE, DROPPED};
use crate::upgrade::{Failure, Reason};

/// What the tasks of a generation tell the runner.
#[derive(Debug)]
pub(crate) enum Fact {
    /// It binds or listens, and waits for an answer.
    Asks(u64, Notification),
    /// No process of it has the filter any more, or none is left at all.
    Silent,
    /// Its main process has ended, which is no child of ours.
    Ended(u64),
    /// It said something.
    Says(u64, Word),
    /// A probe passed, or did not.
    Probed(u64, Result<(), String>),
    /// A new runner has passed its self-test, or why not.
    Tested(Result<(), String>),
    /// A probe wants its command to be run; the answer is whether that ended well.
    Runs(tokio::sync::oneshot::Sender<bool>),
}

/// What a generation is started in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    /// Where its cgroup is made; without one it is a process group.
    pub(crate) ground: Option<&'a Ground>,
    /// What it runs with, if not with what we do.
    pub(crate) settings: Option<&'a Settings>,
    /// Who hears of it.
    pub(crate) facts: &'a UnboundedSender<Fact>,
}

/// See the banner.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) slot: usize,
    /// The process that was started; `None` for what an earlier runner started.
    pub(crate) main: Option<Pidfd>,
    pub(crate) fence: Fence,
    /// Whether the main process is a child of ours.
    pub(crate) is_child: bool,
    /// When the main process was started, in milliseconds since boot.
    pub(crate) born: Option<u64>,
    listener: Option<Arc<Watched>>,
    herald: Option<Arc<Herald>>,
    pub(crate) notes: Notes,
    /// Connections of which it has found the end, by inode.
    half_closed: HashSet<u64>,
    /// How the main process ended, once it has.
    pub(crate) ended: Option<String>,
    /// What the program says of itself.
    pub(crate) status: Option<String>,
    /// Why the probe did not pass, last.
    pub(crate) probe_trouble: Option<String>,
    /// What probes it now.
    pub(crate) probe: Option<AbortHandle>,
    /// Ends with the generation.
    pub(crate) tasks: JoinSet<()>,
}

impl Generation {
    /// Starts `command` as generation `number`, on `slot`.
    pub(crate) fn start(
        number: u64,
        slot: usize,
        command: &[OsString],
        slots: &Slots,
        around: &Around<'_>,
    ) -> Result<Self, Failure> {
        let Around { ground, settings, facts } = *around;
        let system = |what: &'static str| move |error| Failure::from_io(Reason::Spawn, what, &error);
        let fence = ground.map(|ground| ground.make(number)).transpose().map_err(system("make a cgroup"))?;
        let door = fence.as_ref().map(Fence::door).transpose().map_err(system("open the cgroup"))?.flatten();
        let herald = Herald::open(number).map_err(system("open a notify socket"))?;
        let (ours, theirs) = seqpacket::pair().map_err(system("make a socket pair"))?;
        let path = find(command.first().map(OsString::as_os_str).unwrap_or_default())?;
        let passed = slots.passed(slot);
        let program = Program {
            path: c_string(path.as_os_str())?,
            argv: command.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?,
            environment: environment(&herald, settings, passed.iter().map(|(name, _)| name.as_str()))?,
            fds: passed.iter().map(|(_, fd)| *fd).collect(),
        };
        let apart = Apart {
            cgroup: door.as_ref().map(AsFd::as_fd),
            asked: Some(theirs.as_fd()),
            conditions: settings.map(|settings| &settings.conditions),
        };
        let spawned = spawn_apart(&program, apart);
        drop(theirs);
        let listener = scm::receive(ours.as_fd(), &mut [0]).ok().and_then(|mut received| received.fds.pop());
        let main = match spawned {
            Ok(main) => main,
            Err(error) => {
                if let Some(fence) = fence {
                    // It is empty, or its last process is about to go: then it is removed by the next runner.
                    let _ = fence.remove();
                }
                return Err(not_started(error, listener.is_some(), &path));
            }
        };
        let listener =
            listener.ok_or_else(|| Failure::new(Reason::Spawn, "no seccomp listener came along"))?;
        let family = || Family { group: main.pid(), mark: herald.address().display().to_string() };
        let fence = fence.unwrap_or_else(|| Fence::Group(family()));
        let born = process::started_ms(main.pid()).ok();
        let mut this = Self { main: Some(main), is_child: true, born, ..Self::found(slot, fence, facts) };
        this.hear(number, listener, facts).map_err(system("watch the seccomp listener"))?;
        this.heed(number, herald, facts);
        Ok(this)
    }

    /// Hears what it says of itself, from now on.
    pub(crate) fn heed(&mut self, number: u64, herald: Herald, facts: &UnboundedSender<Fact>) {
        let (herald, facts) = (Arc::new(herald), facts.clone());
        self.herald = Some(Arc::clone(&herald));
        self.tasks.spawn(async move {
            while let Ok(word) = herald.next().await {
                let _ = facts.send(Fact::Says(number, word));
            }
        });
    }

    /// Where it says something of itself.
    pub(crate) fn herald(&self) -> Option<BorrowedFd<'_>> {
        self.herald.as_ref().map(|herald| herald.socket())
    }

    /// One that an earlier runner started.
    pub(crate) fn found(slot: usize, fence: Fence, facts: &UnboundedSender<Fact>) -> Self {
        let (watched, facts, mut tasks) = (fence.clone(), facts.clone(), JoinSet::new());
        tasks.spawn(async move {
            if watched.emptied().await.is_ok() {
                let _ = facts.send(Fact::Silent);
            }
        });
        Self {
            slot,
            main: None,
            fence,
            is_child: false,
            born: None,
            listener: None,
            herald: None,
            notes: Notes::default(),
            half_closed: HashSet::new(),
            ended: None,
            status: None,
            probe_trouble: None,
            probe: None,
            tasks,
        }
    }

    /// Hears what is asked at its seccomp listener, from now on.
    pub(crate) fn hear(
        &mut self,
        number: u64,
        listener: OwnedFd,
        facts: &UnboundedSender<Fact>,
    ) -> io::Result<()> {
        let listener = Arc::new(Watched::new(listener)?);
        self.tasks.spawn(watch(number, Arc::clone(&listener), facts.clone()));
        self.listener = Some(listener);
        Ok(())
    }

    /// Takes a main process that is no child of ours, and hears of its end.
    pub(crate) fn follow(
        &mut self,
        number: u64,
        main: Pidfd,
        facts: &UnboundedSender<Fact>,
    ) -> io::Result<()> {
        let (watched, facts) = (Watched::new(main.as_fd().try_clone_to_owned()?)?, facts.clone());
        self.tasks.spawn(async move {
            if watched.readable().await.is_ok() {
                let _ = facts.send(Fact::Ended(number));
            }
        });
        (self.born, self.main) = (process::started_ms(main.pid()).ok(), Some(main));
        Ok(())
    }

    /// Where its questions are answered.
    pub(crate) fn listener(&self) -> Option<Arc<Watched>> {
        self.listener.clone()
    }

    /// The same, to be passed on.
    pub(crate) fn asks_at(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(|listener| listener.as_fd())
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn is_gone(&self) -> bool {
        (self.main.is_none() || self.ended.is_some()) && !self.fence.is_alive()
    }

    /// Sends its main process a signal; all of them, if that has left others behind.
    pub(crate) fn signal(&self, signal: Signal) {
        match &self.main {
            Some(main) if self.ended.is_none() => drop(main.signal(signal)),
            _ => {
                for pid in self.fence.pids() {
                    // Gone is as good.
                    let _ = kill(Pid::from_raw(pid), signal);
                }
            }
        }
    }

    /// The sockets of its slot that nobody in it waits on.
    pub(crate) fn unserved(&self, slots: &Slots) -> HashSet<u64> {
        let wanted = slots.inodes(self.slot);
        let mut waits = inside::waits_on(&self.fence.pids(), &wanted);
        if self.notes.has_ring {
            // Nobody can look into a ring: that it listens has to be enough.
            waits.extend(&self.notes.listens);
        }
        wanted.difference(&waits).copied().collect()
    }

    /// Has it find the end of those of its connections that have rested for so long after an answer: it closes
    /// them then. Not of those whose clients have not asked yet, or wait: a program may well drop what it is
    /// doing for a connection when it finds its end.
    pub(crate) fn half_close(&mut self, table: &[Entry], silent: Duration) {
        let open = table.iter().filter(|one| one.is_connection());
        let open = open.map(|one| one.inode).filter(|inode| !self.half_closed.contains(inode)).collect();
        for (inode, (pid, number)) in inside::holders(&self.fence.pids(), &open) {
            let copy = Pidfd::open(pid).and_then(|process| other::copy_of(&process, number));
            let Ok(copy) = copy else { continue };
            let rests = other::resting_for(copy.as_fd()).is_ok_and(|time| time >= Some(silent));
            if rests && other::end_reading(copy.as_fd()).is_ok() {
                self.half_closed.insert(inode);
            }
        }
    }

    /// How many connections it has, and how many wait for it; `table` is of the slots' addresses alone.
    pub(crate) fn load(&self, slots: &Slots, table: &[Entry]) -> (usize, usize) {
        let queues = slots.inodes(self.slot);
        let own = inside::sockets(&self.fence.pids());
        let connection = |one: &&Entry| one.is_connection() && own.contains(&one.inode);
        let queue = |one: &&Entry| queues.contains(&one.inode) && one.waiting > 0;
        (table.iter().filter(connection).count(), table.iter().filter(queue).count())
    }
}

/// Tells of everything that is asked, until nobody can ask any more.
async fn watch(number: u64, listener: Arc<Watched>, facts: UnboundedSender<Fact>) {
    while let Ok(asked) = listener.try_when_readable(seccomp::receive).await {
        let fact = asked.map_or(Fact::Silent, |asked| Fact::Asks(number, asked));
        let end = asked.is_none();
        if facts.send(fact).is_err() || end {
            return;
        }
    }
}

/// What kept a program from being started.
fn not_started(error: SpawnError, is_apart: bool, path: &Path) -> Failure {
    match error {
        SpawnError::NotExecuted(error) if is_apart => Failure::from_io(Reason::Exec, path.display(), &error),
        SpawnError::NotExecuted(error) => {
            let what =
                "set the program apart (its cgroup, and a seccomp filter that asks about bind and listen)";
            let mut failure = Failure::from_io(Reason::Spawn, what, &error);
            if failure.errno == libc::EBUSY {
                failure.detail += ": another seccomp listener is above us, and there can be one only";
            }
            failure
        }
        SpawnError::NoProcess(error) => {
            Failure::from_io(Reason::Spawn, "make a process for the program", &error)
        }
    }
}

/// The file of a program: as it stands if there is a slash in it, else found in `$PATH`.
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_program);
    found.ok_or_else(|| {
        let detail = format!("{}: there is no such program in PATH={}", name.display(), path.display());
        Failure { errno: libc::ENOENT, ..Failure::new(Reason::Exec, detail) }
    })
}

/// That of the unit, or the runner's own, without what PID 1 told one process alone, and with what is for this
/// generation.
fn environment<'a>(
    herald: &Herald,
    settings: Option<&Settings>,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Variable>, Failure> {
    let kept = |name: &OsStr| name == CREDENTIALS_VARIABLE || DROPPED.iter().all(|dropped| name != *dropped);
    let mut all: Vec<(OsString, OsString)> =
        settings.map_or_else(|| std::env::vars_os().collect(), |settings| settings.variables().collect());
    all.retain(|(name, _)| kept(name));
    all.push(("NOTIFY_SOCKET".into(), herald.address()));
    let listen = env::write(names).map_err(|error| Failure::new(Reason::Spawn, error.to_string()))?;
    let passes = !listen.is_empty();
    all.extend(listen.into_iter().map(|(name, value)| (name.into(), value.into())));
    let fixed = |(name, value): (OsString, OsString)| {
        c_string(OsStr::from_bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat())).map(Variable::Fixed)
    };
    let mut variables = all.into_iter().map(fixed).collect::<Result<Vec<_>, _>>()?;
    if passes {
        variables.push(Variable::OwnPid("LISTEN_PID".into()));
        variables.push(Variable::OwnPidfdId("LISTEN_PIDFDID".into()));
    }
    Ok(variables)
}

fn c_string(text: &OsStr) -> Result<CString, Failure> {
    let nul = |_| Failure::new(Reason::Exec, format!("a NUL byte inside {:?} cannot be passed on", text));
    CString::new(text.as_bytes()).map_err(nul)
}

/// How a process ended, in words.
fn ending(status: nix::sys::wait::WaitStatus) -> Option<(i32, String, bool)> {
    use nix::sys::wait::WaitStatus;
    match status {
        WaitStatus::Exited(pid, code) => {
            Some((pid.as_raw(), format!("exited with status {code}"), code == 0))
        }
        WaitStatus::Signaled(pid, signal, _) => {
            Some((pid.as_raw(), format!("was killed by {signal}"), false))
        }
        _ => None,
    }
}

/// What became of all children that have ended: pid, words, and whether it ended well.
pub(crate) fn reap() -> Vec<(i32, String, bool)> {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let next = || match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(_) => None,
        Ok(status) => Some(status),
    };
    std::iter::from_fn(next).filter_map(ending).collect()
}
