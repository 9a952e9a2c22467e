//! Ten thousand connections at once, and what may happen while they move.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::gate::soon;
use crate::lab::Machine;
use crate::process::Process;

/// How many they are.
pub(crate) const MANY: usize = 10_000;

/// There are descriptors for one crowd at a time.
static ROOM: Mutex<()> = Mutex::new(());

/// Descriptors for a crowd, for as long as this is held.
pub(crate) fn room() -> MutexGuard<'static, ()> {
    let room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    let most = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: most.maximum, ..most }).unwrap();
    assert!(most.maximum.is_none_or(|most| most > 12_000), "ulimit -n allows only {most:?}");
    room
}

/// A crowd in the network of `machine`.
pub(crate) fn gather<T: Send, E: Send + std::fmt::Debug>(
    machine: &Machine,
    open: impl Fn() -> Result<T, E> + Send + Sync,
) -> Vec<T> {
    machine.enter_network(|| (0..MANY).map(|_| open()).collect::<Result<_, _>>()).unwrap()
}

/// The process that is to take over from `main`, as soon as it runs the program.
pub(crate) fn successor(machine: &Machine, service: &str, program: &str, main: u32) -> Process {
    running("a successor", || Process::running(machine, service, program, &[main]))
}

/// The command of ExecReload=, as soon as it runs.
pub(crate) fn helper(machine: &Machine, service: &str) -> Process {
    running("a helper", || Process::running(machine, service, "/usr/bin/handover", &[]))
}

fn running(what: &str, find: impl Fn() -> Option<Process>) -> Process {
    let mut found = None;
    soon(what, || {
        found = find();
        found.is_some()
    });
    found.unwrap()
}

/// PID 1 of a machine, which does nothing until this is dropped.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn pid_1(machine: &Machine) -> Self {
        let pid = Pid::from_raw(machine.pid1().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}
