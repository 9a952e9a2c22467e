//! Starting: take what was passed, initialise, get ready.

use std::error::Error as _;
use std::fmt::{Debug, Display};
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;

use super::connections::Incoming;
use super::post::Post;
use super::signals::Signals;
use super::steward::{Means, Steward};
use super::vault::Vault;
use super::{Connections, Error, Listener, Options, Serving};
use crate::activation::{self, Inherited, TakeError};
use crate::notify::{Notifier, Watchdog};
use crate::upgrade::estate::Estate;
use crate::upgrade::journal::{Phase, Scribe};
use crate::upgrade::machine::Limits;
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::{Successor, Takeover};
use tokio::sync::mpsc;

/// A service that starts. Nobody is served yet, and whoever served before still does.
#[derive(Debug)]
pub struct Daemon {
    options: Options,
    inherited: Inherited,
    successor: Option<Successor>,
    post: Post,
    watchdog: Option<Watchdog>,
    estate: Estate,
    signals: Signals,
    vault: Vault,
    /// The way in for connections that others accepted, if the service takes any.
    incoming: Option<mpsc::UnboundedSender<Incoming>>,
}

impl Daemon {
    /// Claims what was passed to this process, and finds out who started it. Call it first thing in
    /// `main`, on a tokio runtime with I/O and time.
    ///
    /// From here on SIGHUP asks for an upgrade instead of ending the process.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(Options::default())
    }

    /// As [`Daemon::start`], with bounds of the service's own.
    pub fn start_with(options: Options) -> Result<Self, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::NoRuntime);
        }
        let mut inherited = activation::claim()?;
        let mut successor = Successor::find(&mut inherited)?;
        let surroundings = Surroundings::find(&mut inherited, options, successor.is_some());
        let Surroundings { post, watchdog, estate, signals, vault } =
            surroundings.map_err(|error| told(&mut successor, error))?;
        Ok(Self { options, inherited, successor, post, watchdog, estate, signals, vault, incoming: None })
    }

    /// Whether this process is to take over from an older one that still serves.
    pub fn is_successor(&self) -> bool {
        self.successor.is_some()
    }

    /// All listening stream sockets passed under `name`, TCP and unix: the lines of a `.socket` unit.
    ///
    /// Errors: [`Error::Take`] when there is none.
    pub fn listener(&mut self, name: &str) -> Result<Listener, Error> {
        self.passed_listener(name).map_err(|error| self.trouble(error))
    }

    /// As [`Daemon::listener`]; but binds `address` if nobody passed sockets to this process, as in
    /// development. Where PID 1 passed others, a missing one stays an error.
    pub fn listener_or_bind(
        &mut self,
        name: &str,
        address: impl ToSocketAddrs + Debug,
    ) -> Result<Listener, Error> {
        match self.passed_listener(name) {
            Err(Error::Take(TakeError::NotPassed { .. })) => {}
            passed => return passed.map_err(|error| self.trouble(error)),
        }
        let bound = self.inherited.tcp_listener_or_bind(name, address);
        let bound = bound.map_err(|error| self.trouble(error.into()))?;
        self.estate.keep(name, bound.as_fd()).map_err(Error::system("keep a socket for a successor"))?;
        Listener::new(vec![bound], Vec::new()).map_err(Error::system("serve on a socket just bound"))
    }

    /// Declares that this service takes connections that other processes accepted: those that PID 1 kept
    /// over a restart or a crash, and those that an older process gives away in an upgrade. A service
    /// that does not is not given any; and what PID 1 kept of an older version ends.
    pub fn connections(&mut self) -> Connections {
        let (incoming, connections) = Connections::new();
        self.incoming = Some(incoming);
        connections
    }

    /// The state of the service itself that was saved last, by whichever process; `None` if there is
    /// none. While an older process still serves it may save another: [`Serving::state`] is final.
    pub fn state(&self) -> Option<Vec<u8>> {
        self.vault.state()
    }

    /// Everything that was passed, for what is no listening stream socket.
    pub fn inherited(&mut self) -> &mut Inherited {
        &mut self.inherited
    }

    /// Gives up. The process that still serves, if there is one, is told why, and so is whoever asked
    /// for the upgrade. A `Daemon` that is merely dropped says no more than that it gave up.
    pub fn fail(mut self, why: impl Display) {
        if let Some(successor) = &mut self.successor {
            successor.note_trouble(why);
        }
    }

    /// Says that the service is ready, and takes it over from the older process, if there is one.
    ///
    /// Errors: [`Error::Upgrade`] when this process is not needed (any more): it must leave then.
    pub async fn ready(mut self) -> Result<Serving, Error> {
        let caught = self.signals.serving().map_err(Error::system("catch SIGTERM"));
        caught.map_err(|error| self.trouble(error))?;
        let scribe = Scribe::default();
        let leftover: Vec<_> = self.inherited.leftover().map(ToString::to_string).collect();
        if !leftover.is_empty() {
            scribe.write(Phase::Leftover { names: leftover.join(", ") });
        }
        let limits =
            Limits { init_deadline: self.options.init_deadline, max_draining: self.options.max_draining };
        // Before anybody can know that this process serves, it can be asked for an upgrade.
        let after = self.successor.as_ref().and_then(Successor::predecessor);
        let readable_by = self.incoming.as_ref().map(|_| self.options.state_version.readable_by);
        let takes = self.incoming.as_ref().map(|_| self.options.state_version.written);
        let predecessor = Predecessor::open(limits, self.estate, after, readable_by)
            .map_err(|error| told(&mut self.successor, Error::system("open the control socket")(error)))?;
        let takeover = match self.successor {
            Some(successor) => tokio::select! {
                takeover = successor.ready(takes) => {
                    let mut takeover = takeover?;
                    if !takeover.confirmed {
                        takeover.generation = self.vault.last_generation() + 1;
                    }
                    open_vault(&self.vault, self.incoming.as_ref(), &scribe, false).await;
                    takeover
                }
                () = self.signals.stop() => return Err(Error::Stopped),
            },
            None => {
                open_vault(&self.vault, self.incoming.as_ref(), &scribe, true).await;
                self.post.say_ready().await?;
                let generation = self.vault.last_generation() + 1;
                Takeover { generation, elders: Vec::new(), arrivals: Vec::new(), confirmed: true }
            }
        };
        let Self { options, signals, post, vault, incoming, .. } = self;
        let means = Means { options, signals, predecessor, post, scribe, vault, incoming };
        let steward = Steward::new(means, takeover);
        Ok(Serving::new(steward, self.watchdog))
    }

    fn passed_listener(&mut self, name: &str) -> Result<Listener, Error> {
        let (tcp, unix) = match (self.inherited.tcp_listeners(name), self.inherited.unix_listeners(name)) {
            (Err(error), Err(_)) => return Err(error.into()),
            (tcp, unix) => (tcp.unwrap_or_default(), unix.unwrap_or_default()),
        };
        for socket in tcp.iter().map(AsFd::as_fd).chain(unix.iter().map(AsFd::as_fd)) {
            self.estate.keep(name, socket).map_err(Error::system("keep a socket for a successor"))?;
        }
        Listener::new(tcp, unix).map_err(Error::system("serve on a socket that was passed"))
    }

    fn trouble(&mut self, error: Error) -> Error {
        told(&mut self.successor, error)
    }
}

/// The service is this process': from here on it may speak to PID 1. Nobody else has what is there if it
/// is `alone`.
async fn open_vault(
    vault: &Vault,
    incoming: Option<&mpsc::UnboundedSender<Incoming>>,
    scribe: &Scribe,
    alone: bool,
) {
    let (restored, troubles) = vault.open(incoming.is_some(), alone).await;
    for what in troubles {
        scribe.write(Phase::NotKept { what });
    }
    for connection in restored {
        // Who has dropped its `Connections` serves none of them.
        let _ = incoming.map(|incoming| incoming.send(connection));
    }
}

/// What a process finds around itself, whoever started it.
struct Surroundings {
    post: Post,
    watchdog: Option<Watchdog>,
    estate: Estate,
    signals: Signals,
    vault: Vault,
}

impl Surroundings {
    fn find(inherited: &mut Inherited, options: Options, successor: bool) -> Result<Self, Error> {
        Ok(Self {
            vault: Vault::find(Notifier::from_env()?, inherited, options, successor)?,
            post: Post::new(Notifier::from_env()?),
            watchdog: Watchdog::from_env()?,
            estate: Estate::of(inherited).map_err(Error::system("keep what was passed for a successor"))?,
            signals: Signals::starting().map_err(Error::system("catch SIGHUP"))?,
        })
    }
}

/// An error that the predecessor will hear of, should the service give up because of it.
fn told(successor: &mut Option<Successor>, error: Error) -> Error {
    if let Some(successor) = successor {
        let (mut text, mut cause) = (error.to_string(), error.source());
        while let Some(deeper) = cause {
            text = format!("{text}: {deeper}");
            cause = deeper.source();
        }
        successor.note_trouble(text);
    }
    error
}
