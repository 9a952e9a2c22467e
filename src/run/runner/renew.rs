//! The runner executes itself anew, from the file that is there now: execve(2). The pid stays, and with it
//! all that PID 1 knows; so do the children, their cgroups, and every descriptor that the next one needs.
//!
//! ```text
//!   the file has changed        self-test: a child of ours         execve
//!   serving ------------------> reads what it would get ---- ok --> serving, the new one
//!      ^                              | wrong, or late
//!      `------------------------------' the old one serves on, and says so
//! ```
//!
//! Programs do not notice: what they ask meanwhile waits in the kernel. It never happens while a
//! generation comes, and never while connections are being passed on, which go through this process.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use futures_util::FutureExt;

use super::{Ears, Runner};
use crate::activation::{Inherited, env};
use crate::run::generation::Fact;
use crate::run::journal::{Entry, Journal};
use crate::run::machine::Event;
use crate::run::state::{ASK, CALLER, CONTROL, HERALD, MAIN, MOST, Next, RUNNER, STATE, State};
use crate::sys::exec::{self, SignalsWait};
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::{Apart, Program, Variable, spawn_apart};
use crate::sys::watch::Watched;
use crate::sys::{memfd, process, scm, seqpacket};
use crate::upgrade::callers::Wanted;
use crate::upgrade::channel::{AsyncChannel, Channel};
use crate::upgrade::message::Answer;
use crate::upgrade::{Failure, Reason};

/// Where the self-test says what it has found.
const VERDICT: &str = "handover.verdict";

/// What it says if all is well.
const WELL: &[u8] = b"well";

/// Most bytes that it says.
const MOST_WORDS: usize = 4096;

/// How long it may take.
const TEST: Duration = Duration::from_secs(10);

/// A new runner that is to be.
#[derive(Debug)]
pub(super) struct Renewal {
    /// Who waits for it, or for an upgrade after it.
    pub(super) caller: Option<AsyncChannel>,
    pub(super) wanted: Wanted,
    is_tested: bool,
}

impl Renewal {
    /// Whether nothing stands in its way.
    pub(super) fn is_due(&self) -> bool {
        self.is_tested
    }
}

/// What a runner has from the one that it was before.
pub(super) struct HandedOn {
    pub(super) state: State,
    pub(super) control: Option<OwnedFd>,
    pub(super) caller: Option<AsyncChannel>,
}

/// Takes what a runner handed on, if one did.
///
/// Errors: it cannot be read, which its self-test has told it.
pub(super) fn handed_on(inherited: &mut Inherited) -> Result<Option<HandedOn>, Failure> {
    let mut only = |name| inherited.take_reserved(name).pop().map(|passed| passed.into_parts().1);
    let (state, control, caller) = (only(STATE), only(CONTROL), only(CALLER));
    let Some(state) = state else { return Ok(None) };
    let state = read(state).map_err(|why| Failure::new(Reason::Protocol, why))?;
    let caller = caller.and_then(|socket| AsyncChannel::new(Channel::new(socket)).ok());
    Ok(Some(HandedOn { state, control, caller }))
}

/// The state in a memfd; in words, why there is none.
fn read(memory: OwnedFd) -> Result<State, String> {
    let read = || {
        let file = File::from(memory);
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(MOST)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = read().map_err(|error| format!("the state of the running `handover run`: {error}"))?;
    State::read(&bytes).map_err(|error| error.to_string())
}

/// Finds out whether this program could go on where the runner is that has started it, and tells it so.
/// For `handover run --self-test`.
///
/// Errors: there is no such runner.
pub(crate) fn self_test(mut inherited: Inherited) -> io::Result<()> {
    let mut only = |name| inherited.take_reserved(name).pop().map(|passed| passed.into_parts().1);
    let (state, verdict) = (only(STATE), only(VERDICT));
    let verdict = verdict.ok_or(io::ErrorKind::NotConnected)?;
    let found = state.ok_or_else(|| "no state was passed".to_owned()).and_then(read);
    match found {
        Ok(_) => scm::send(verdict.as_fd(), WELL, &[])?,
        Err(why) => scm::send(verdict.as_fd(), &why.as_bytes()[..why.len().min(MOST_WORDS)], &[])?,
    };
    Ok(())
}

impl Runner {
    /// Whether the file of this program is another one than the one that runs.
    pub(super) fn is_outdated(&self) -> bool {
        let identity = |file: fs::Metadata| (file.dev(), file.ino());
        let there = process::executed_path().and_then(fs::metadata).map(identity);
        let here = fs::metadata("/proc/self/exe").map(identity);
        matches!((there, here), (Ok(there), Ok(here)) if there != here)
    }

    /// Whether nothing comes that could not go along.
    pub(super) fn is_quiet(&self) -> bool {
        self.machine.keep(self.memory.clock).is_some()
    }

    /// Has the new runner test itself first.
    pub(super) async fn begin_renewal(&mut self, caller: Option<AsyncChannel>, wanted: Wanted) -> Vec<Event> {
        let tested = match self.test() {
            Ok((child, answer)) => {
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    // The runner may have ended.
                    let _ = tell.send(Fact::Tested(verdict(&child, answer).await));
                });
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        self.renewal = Some(Renewal { caller, wanted, is_tested: false });
        match tested {
            Ok(()) => {
                if let (Wanted::Renewal, Some(Renewal { caller: Some(caller), .. })) = (wanted, &self.renewal)
                {
                    let _ = caller.send(&Answer::Begun, &[]);
                }
                vec![]
            }
            Err(failure) => self.renewal_failed(failure).await,
        }
    }

    /// Starts the self-test: a child that gets what the new runner would get.
    fn test(&self) -> Result<(Pidfd, OwnedFd), Failure> {
        let system =
            |what: &'static str| move |error: io::Error| Failure::from_io(Reason::Spawn, what, &error);
        let state = self.state(Next::Nothing)?;
        let (ours, theirs) = seqpacket::pair().map_err(system("make a socket pair"))?;
        let mut passed = self.passed(&state);
        passed.push((VERDICT.into(), theirs.as_fd()));
        let (path, mut argv) = command()?;
        let at = argv.iter().position(|word| word.as_bytes() == b"run").map_or(argv.len(), |at| at + 1);
        argv.insert(at, c"--self-test".into());
        let mut environment: Vec<_> = variables(&passed)?.into_iter().map(Variable::Fixed).collect();
        environment.push(Variable::OwnPid("LISTEN_PID".into()));
        let fds = passed.iter().map(|(_, fd)| *fd).collect();
        let program = Program { path, argv, environment, fds };
        let child = spawn_apart(&program, Apart::default()).map_err(|error| {
            let (crate::sys::spawn::SpawnError::NoProcess(error)
            | crate::sys::spawn::SpawnError::NotExecuted(error)) = error;
            Failure::from_io(Reason::Exec, "start the new `handover run` for its self-test", &error)
        })?;
        Ok((child, ours))
    }

    /// The self-test has ended.
    pub(super) async fn tested(&mut self, result: Result<(), String>) -> Vec<Event> {
        match result {
            Ok(()) => {
                if let Some(renewal) = &mut self.renewal {
                    renewal.is_tested = true;
                }
                vec![]
            }
            Err(why) => {
                let detail = format!("the new `handover run` is no good, and the old one goes on: {why}");
                self.renewal_failed(Failure::new(Reason::Init, detail)).await
            }
        }
    }

    /// There is no new runner. Whoever wanted no more than that is told so; an upgrade is made by the old one.
    async fn renewal_failed(&mut self, failure: Failure) -> Vec<Event> {
        let Some(renewal) = self.renewal.take() else { return vec![] };
        if renewal.wanted == Wanted::Upgrade {
            self.warn(failure.to_string());
            return self.ask(renewal.caller).await;
        }
        if let Some(caller) = renewal.caller {
            let _ = caller.send(&Answer::Failed(failure.clone()), &[]);
        }
        self.journal.write(Entry::Refused { failure });
        vec![]
    }

    /// Executes the new runner, if there is to be one and nothing else has happened; what has, else.
    pub(super) async fn renew(&mut self, ears: &mut Ears) -> Vec<Event> {
        if !self.renewal.as_ref().is_some_and(Renewal::is_due) {
            return vec![];
        }
        let waits = match SignalsWait::begin() {
            Ok(waits) => waits,
            Err(error) => {
                return self
                    .renewal_failed(Failure::from_io(Reason::Spawn, "have signals wait", &error))
                    .await;
            }
        };
        // What a handler has caught, and what a program has asked, is in here after a turn of the runtime.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        if let Some(heard) = ears.next().now_or_never() {
            drop(waits);
            return self.learn(heard).await;
        }
        let failure = self.execute();
        drop(waits);
        self.renewal_failed(failure).await
    }

    /// Becomes the new runner; why not, else.
    fn execute(&mut self) -> Failure {
        let passing = self.relays.passing();
        if passing > 0 {
            let detail =
                format!("{passing} connections go through this process; ask again when they have ended");
            return Failure::new(Reason::UnderWay, detail);
        }
        // Its thread would open descriptors meanwhile.
        drop(std::mem::replace(&mut self.journal, Journal::closed()));
        let wanted = self.renewal.as_ref().map_or(Wanted::Renewal, |renewal| renewal.wanted);
        let next = if wanted == Wanted::Upgrade { Next::Upgrade } else { Next::Nothing };
        let attempt = || -> Result<io::Error, Failure> {
            let (path, argv) = command()?;
            let state = self.state(next)?;
            let mut passed = self.passed(&state);
            if let Some(caller) = self.renewal.as_ref().and_then(|renewal| renewal.caller.as_ref()) {
                passed.push((CALLER.into(), caller.as_fd()));
            }
            let environment = variables(&passed)?;
            let with_numbers = |first| {
                let pid = std::process::id();
                let numbers = [format!("LISTEN_PID={pid}"), format!("LISTEN_FDS_FIRST_FD={first}")];
                // There is no NUL in a number.
                environment.into_iter().chain(numbers.into_iter().flat_map(CString::new)).collect()
            };
            let fds: Vec<_> = passed.iter().map(|(_, fd)| *fd).collect();
            Ok(exec::replace(&path, &argv, with_numbers, &fds))
        };
        let failure = match attempt() {
            Ok(error) => Failure::from_io(Reason::Exec, "execute the new `handover run`", &error),
            Err(failure) => failure,
        };
        // Without a thread for it, nothing is written.
        self.journal = Journal::open().unwrap_or_else(|_| Journal::closed());
        failure
    }

    /// What the next runner is to know, in a memfd.
    fn state(&self, next: Next) -> Result<OwnedFd, Failure> {
        let machine = self.machine.keep(self.memory.clock).ok_or_else(|| {
            Failure::new(Reason::UnderWay, "a start of the program is under way, or the service stops")
        })?;
        let mut state = self.summary(machine);
        (state.settings, state.next) = (self.settings.clone(), next);
        memfd::sealed(&state.write()).map_err(|error| Failure::from_io(Reason::Spawn, "make a memfd", &error))
    }

    /// The descriptors that the next runner gets, with their names.
    fn passed<'a>(&'a self, state: &'a OwnedFd) -> Vec<(String, BorrowedFd<'a>)> {
        let mut passed = self.slots.all();
        for (number, one) in &self.generations {
            passed.extend(one.main.as_ref().map(|main| (format!("{MAIN}{number}"), main.as_fd())));
            passed.extend(one.asks_at().map(|ask| (format!("{ASK}{number}"), ask)));
            passed.extend(one.herald().map(|herald| (format!("{HERALD}{number}"), herald)));
        }
        passed.push((CONTROL.into(), self.callers.socket()));
        passed.extend(self.memory.file().map(|file| (RUNNER.into(), file)));
        passed.push((STATE.into(), state.as_fd()));
        passed
    }
}

/// What the self-test says, or that it says nothing in time; it ends with this in any case.
async fn verdict(child: &Pidfd, answer: OwnedFd) -> Result<(), String> {
    let hear = async {
        let mut words = vec![0; MOST_WORDS];
        let answer = Watched::new(answer)?;
        let heard = answer.try_when_readable(|socket| scm::receive(socket, &mut words)).await?;
        words.truncate(heard.len);
        Ok::<_, io::Error>(words)
    };
    let heard = tokio::time::timeout(TEST, hear).await;
    // It has nothing more to do.
    let _ = child.signal(nix::sys::signal::Signal::SIGKILL);
    match heard {
        Ok(Ok(words)) if words == WELL => Ok(()),
        Ok(Ok(words)) if words.is_empty() => Err("it ended, and said nothing in its self-test".into()),
        Ok(Ok(words)) => Err(String::from_utf8_lossy(&words).into_owned()),
        Ok(Err(error)) => Err(format!("its self-test: {error}")),
        Err(_) => Err(format!("its self-test said nothing within {} s", TEST.as_secs())),
    }
}

/// The file of this program as it is called, and the words that it was called with.
fn command() -> Result<(CString, Vec<CString>), Failure> {
    let path = process::executed_path();
    let path = path.map_err(|error| Failure::from_io(Reason::Exec, "find the file of `handover`", &error))?;
    let argv = std::env::args_os().map(|word| text(&word)).collect::<Result<_, _>>()?;
    Ok((text(path.as_os_str())?, argv))
}

/// Our environment, but with the names of what is passed.
fn variables(passed: &[(String, BorrowedFd<'_>)]) -> Result<Vec<CString>, Failure> {
    let ours = std::env::vars_os().filter(|(name, _)| !name.as_bytes().starts_with(b"LISTEN_"));
    let listen = env::write(passed.iter().map(|(name, _)| name.as_str()));
    let listen = listen.map_err(|error| Failure::new(Reason::Spawn, error.to_string()))?;
    let listen = listen.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let words = ours.chain(listen).map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    words.map(|word| text(OsStr::from_bytes(&word))).collect()
}

fn text(word: &OsStr) -> Result<CString, Failure> {
    let nul = |_| Failure::new(Reason::Exec, format!("a NUL byte inside {word:?} cannot be passed on"));
    CString::new(word.as_bytes()).map_err(nul)
}
