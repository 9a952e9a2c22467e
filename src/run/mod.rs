//! `handover run`: programs that know nothing of handover are upgraded by `systemctl reload`.
//!
//! ```text
//!   PID 1 holds the slots              the runner, main process for good
//!   :8080 [0] [1] [2]                   |  Start       |  Start
//!          ^   ^                        v              v
//!          |   `------ connections -> generation 2    generation 3   each in a cgroup of its own
//!          `-- steered: ret 1          on slot 1       on slot 0
//! ```
//!
//! *Steer, don't stop*: each generation of the program lives on sockets of its own, all in one reuseport
//! group. One instruction in the kernel says which of them gets what is new. The old generation is not
//! asked for anything: it gets nothing new, and once its queue is empty and its connections are gone, or
//! the time is up, it gets its own signal to stop. A new one that exits, hangs, or does not pass its probe
//! was never seen by a client.
//!
//! | the program | how it gets its slot |
//! |---|---|
//! | takes LISTEN_FDS | as descriptor 3 and so on |
//! | calls bind(2) | the socket that it binds becomes the slot: seccomp asks the runner |
//!
//! | what fails | what happens |
//! |---|---|
//! | the new program cannot be executed, exits, hangs, binds another address, fails its probe | it is killed whole; the old one serves on; `handover reload` fails with the [`Reason`] |
//! | the live generation ends by itself | what is new waits in the queue of its slot; it is started again there, later and later |
//! | the runner is killed, KillMode=process | the programs live on, and the next runner goes on where this one was: a drain ends when it would have ended, so does a canary, and pauses after crashes do not begin anew; a generation that no client had seen is ended. One for which the FD store kept nothing starts a generation beside them, and switches to it |
//! | the runner is killed, any other KillMode= | PID 1 kills the programs, too, and starts the runner again; what is new waits |
//! | the new `handover` is no good, found by its self-test | the old runner goes on, and says so; a reload upgrades the program all the same |
//!
//! The runner executes itself anew when its file has changed, at the beginning of the next reload or by
//! `handover reload --runner`: the pid stays, and programs do not notice.
//!
//! A new generation has the environment, the limits, the umask, the nice level and the OOM score that the
//! unit has by then: those of `handover reload`, which PID 1 starts with them. All else (User=, the sandbox,
//! the folder, and the words behind ExecStart=) is the runner's, and changes when the service is restarted. A
//! bound that the runner may not raise stays where it is.
//!
//! What it cannot do: a bind through an io_uring is not seen, and one by the 32-bit ABI is refused, both with
//! the reason in words if the program does not get ready; only one seccomp listener can be above a program; a
//! program that locks its data needs the serial strategy, in which clients wait; what a generation that is killed
//! leaves unread in a queue of datagrams is dropped, and counted in the journal.
//!
//! Before the first steering the kernel spreads what comes over all slots. Connections there are passed on; for
//! datagrams a generation is started in each slot that has any, and the last one stays.
//!
//! Under serial with a probe or --notify nobody is let in while no generation is ready: the kernels of clients
//! try again every second. Only who waited in a queue when the last one crashed meets one that is not ready.
//!
//! This chapter never touches the old generation before the new one serves, never proxies what it can
//! steer, never traces a program, and never prints.
#![forbid(unsafe_code)]

mod address;
mod explain;
mod fence;
mod generation;
mod herald;
mod inside;
mod intercept;
mod journal;
mod machine;
mod options;
mod probe;
mod relay;
mod runner;
mod settings;
mod slots;
mod sockets;
mod state;
mod table;

pub use self::options::{Busy, Options, Probe, Strategy};
use crate::activation::ClaimError;
use crate::upgrade::{Failure, Reason};

/// The system calls that a runner needs beyond `SystemCallFilter=@system-service`, systemd.exec(5).
pub const NEEDED_CALLS: [&str; 2] = ["pidfd_getfd", "seccomp"];

/// Why the runner ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was passed to it cannot be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// There is no runtime.
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
    /// The program does not get ready, or the runner cannot work here.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Runs a program as the service that this process is, until it is told to stop: SIGTERM. To be called
/// first thing in a process of its own.
///
/// # Errors
/// [`Error`]: it never got ready, or cannot be run here.
pub fn run(options: Options) -> Result<(), Error> {
    let inherited = crate::activation::claim()?;
    Ok(on_a_runtime(runner::run(options, inherited))??)
}

/// Starts a program aside, where no client comes, and says in words what was seen of it, and which units
/// fit it. To be called in a process of its own.
///
/// # Errors
/// [`Error`]: it cannot be started.
pub fn explain(options: &Options) -> Result<String, Error> {
    Ok(on_a_runtime(explain::explain(options))??)
}

/// Finds out whether this program could go on where the runner is that has started it: `handover run
/// --self-test`, which only a runner calls. To be called first thing in a process of its own.
///
/// # Errors
/// [`Error`]: no runner has started it.
pub fn self_test() -> Result<(), Error> {
    let tested = runner::self_test(crate::activation::claim()?);
    Ok(tested.map_err(|error| Failure::from_io(Reason::NoService, "tell the runner", &error))?)
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let done = runtime.block_on(work);
    // A relay does not hold up the end.
    runtime.shutdown_background();
    Ok(done)
}
