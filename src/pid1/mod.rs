//! A stand-in for PID 1, for where no systemd runs: a laptop, a container, a test.
//!
//! It reads the same `.socket` and `.service` files, and does with them what systemd does, as far as it
//! goes; what it does not do, it says with file and line.
//!
//! ```text
//!                      unit files (chapter `unit`)
//!                            | load, daemon-reload
//!                            v
//!  traffic --sockets--> +---------+ --exec--> processes, in a session or cgroup each (members)
//!  clients --control--> | standin |               | stdout, stderr        | sd_notify
//!  deaths  --SIGCHLD--> |         | <--notify-----+-- output --> web[7]: .. |
//!                       +---------+ <---------------------------------------+
//!                         |     ^ events
//!                 actions v     |        store: the FD store; watches: hang-ups in it, traffic
//!                       machine (pure)   jobs: what was asked for and is not done
//! ```
//!
//! One loop in one thread owns every transition; beside it run only tasks that wait and read: for
//! traffic, for lines, for a client's request. The wire format of the control socket is in
//! `manager::wire`, because its client is there.
//!
//! This chapter never uses `daemon`, `fdstore` or `upgrade`: it judges them, and shares with them only what
//! is on the wire. It never believes a process about who it is, never waits for a client, and never keeps
//! more of anybody than a bound says.
#![forbid(unsafe_code)]

mod answer;
mod clock;
mod control;
mod exec;
mod jobs;
mod kill;
mod load;
mod machine;
mod members;
mod messages;
mod notify;
mod options;
mod output;
mod place;
mod rate;
mod service;
mod show;
mod sockets;
mod standin;
mod start;
mod store;
mod watches;

use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;

use self::members::Members;
use self::notify::Receiver;
#[cfg(fuzzing)]
pub(crate) use self::notify::Said;
use self::output::Output;
pub use self::place::{Place, PlaceError};
use self::service::Surroundings;
use self::standin::{Signals, Standin};
use self::watches::Watches;
use crate::sys::pidfd::Pidfd;

/// When services start that have a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// At once those whose \[Install\] section wants them at boot, others with the first traffic.
    #[default]
    AsInstalled,
    /// At once.
    Now,
    /// With the first traffic.
    OnTraffic,
}

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unit files, and folders of them.
    pub paths: Vec<PathBuf>,
    /// Below which the control socket and RuntimeDirectory= are; `None`: /run for root, XDG_RUNTIME_DIR, or a
    /// folder of the user's own below the temporary one.
    pub runtime: Option<PathBuf>,
    /// When services start that have a socket.
    pub activation: Activation,
    /// Whether cgroups may be used to follow processes.
    pub cgroups: bool,
    /// Whether all ends, as with SIGTERM, when our parent has ended.
    pub with_parent: bool,
}

/// Why there is no stand-in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Pid1Error {
    /// Its folder cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The kernel refuses something that nothing goes without.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Names what the kernel was asked for.
fn to(what: &'static str) -> impl FnOnce(io::Error) -> Pid1Error {
    move |source| Pid1Error::System { what, source }
}

/// Runs units until SIGTERM, SIGINT or a client says that it is enough, and all have stopped. What
/// happens, and what the services print, goes to `out`, a line each.
///
/// # Errors
/// [`Pid1Error`] before anything was started. A unit that cannot be used is no error: it is said, and the
/// others run.
pub fn run(options: &Options, out: impl io::Write + Send + 'static) -> Result<(), Pid1Error> {
    let parent = options.with_parent.then(|| Pidfd::open(nix::unistd::getppid().as_raw()));
    let parent = parent.transpose().map_err(to("to watch the process that started this"))?;
    let place = Place::take(options.runtime.clone())?;
    // Whoever started us may have blocked what we live by, SIGCHLD above all.
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(io::Error::from)
        .map_err(to("to unblock signals"))?;
    // Descriptors of sockets and stores: as many as may be.
    crate::sys::spawn::raise_limit(libc::RLIMIT_NOFILE);
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from).map_err(to("to become subreaper"))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(to("an event loop"))?;
    let (output, printer) = Output::new(out).map_err(to("a thread for the output"))?;
    let served = runtime.block_on(serve(options, &place, parent, output));
    // With the tasks go the last who could print.
    drop(runtime);
    printer.finish();
    served
}

/// Everything in the event loop.
async fn serve(
    options: &Options,
    place: &Place,
    parent: Option<Pidfd>,
    output: Output,
) -> Result<(), Pid1Error> {
    let (members, why_not) = Members::new(options.cgroups);
    let (sender, questions) = mpsc::unbounded_channel();
    let notify = Receiver::bind(&place.notify()).map_err(to("a socket for notifications"))?;
    control::listen(&place.control(), sender).map_err(to("a control socket"))?;
    if let Some(why) = why_not {
        output.say(&format!("no cgroups: {why}"));
    }
    output.say(&members.describe());
    let around = Surroundings {
        members,
        output,
        hangups: Watches::hangups().map_err(to("an epoll"))?,
        traffic: Watches::traffic().map_err(to("an epoll"))?,
        notify: place.notify(),
        runtime: place.runtime().to_owned(),
    };
    let signals = Signals::new(parent).map_err(to("signal handlers"))?;
    let mut standin = Standin::new(around, options.paths.clone());
    standin.start(options.activation);
    standin.around.output.say(&format!("ready; control socket {}", place.control().display()));
    // Whoever started us, a container's runtime or a test, may wait for this; most do not.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    standin.serve(signals, &notify, questions).await;
    standin.leave().await;
    Ok(())
}
