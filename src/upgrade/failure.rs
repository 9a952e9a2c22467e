//! Why an upgrade did not happen: one name, one exit code, one errno and one sentence each.
//!
//! The same [`Failure`] travels to whoever asked: as the exit status of `handover reload` (and so as
//! the result of `systemctl reload`), in STATUS= and ERRNO=, and in the journal. Whatever is in
//! here, the old process serves on. This file never decides that something has failed.

use std::fmt;

use nix::errno::Errno;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal, $errno:ident;)+) => {
        /// Why an upgrade did not happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason there is, in the order of their exit codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that programs may rely on: in STATUS=, the journal, JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_start(),)+ }
            }

            /// The exit status of `handover reload`; below the range of systemd.exec(5).
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The ERRNO= that fits when the kernel gave none.
            pub(crate) const fn errno(self) -> i32 {
                match self { $(Self::$variant => Errno::$errno as i32,)+ }
            }
        }
    };
}

reasons! {
    /// The process that should answer has no control socket: it is not running, not built on
    /// handover, or not ready yet.
    NoService = 10, "no-service", ENOENT;
    /// Another upgrade of this service is under way.
    UnderWay = 11, "under-way", EALREADY;
    /// As many older generations still drain as are allowed.
    TooManyDraining = 12, "too-many-draining", EUSERS;
    /// The service is stopping or has already handed over.
    Ending = 13, "ending", ESHUTDOWN;
    /// The two ends run as different users.
    NotPermitted = 14, "not-permitted", EPERM;
    /// The two ends do not understand each other: different versions of handover.
    Protocol = 15, "protocol", EPROTO;
    /// The service did not answer in time.
    NoAnswer = 16, "no-answer", ETIMEDOUT;
    /// No process could be made for the successor.
    Spawn = 20, "spawn-failed", EAGAIN;
    /// The new program could not be executed: missing, not executable, of a wrong format.
    Exec = 21, "exec-failed", ENOEXEC;
    /// The successor ended before it was ready, and did not say why.
    Exited = 22, "successor-exited", ECHILD;
    /// The successor could not initialise, and said why.
    Init = 23, "init-failed", ECANCELED;
    /// The successor was given its time and never spoke: it hangs before it reaches handover, or is
    /// not built on it.
    Mute = 24, "no-hello", ETIME;
    /// The successor began to initialise and was not ready in time.
    NeverReady = 25, "never-ready", ETIMEDOUT;
    /// The service manager could not be told about the new main process.
    Commit = 26, "commit-failed", ECOMM;
    /// `handover reload` was killed, or timed out by the service manager.
    HelperLost = 27, "helper-lost", EPIPE;
    /// The old process died while its successor was being prepared.
    PredecessorLost = 28, "predecessor-lost", EOWNERDEAD;
    /// The service was told to stop while its successor was being prepared.
    Stopped = 29, "stopped", EINTR;
    /// The new program does not wait on the sockets that it should: it binds another address.
    Elsewhere = 30, "wrong-address", EADDRNOTAVAIL;
    /// The new program waits on its sockets, and does not pass the probe.
    Probe = 31, "probe-failed", EBADMSG;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reason {
    /// The reason with this exit code, if it is one of ours.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.exit_code() == code)
    }
}

/// A reason, with what happened in words and the errno that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: what was wanted, what was found, what to do.
    pub detail: String,
    /// The errno for ERRNO=, positive.
    pub errno: i32,
}

impl Failure {
    /// The one who was to start the successor ended too early.
    pub(crate) fn helper_lost() -> Self {
        Self::new(Reason::HelperLost, "`handover reload` ended before the successor was ready")
    }

    /// The successor ended too early.
    pub(crate) fn exited(pid: i32) -> Self {
        let detail =
            format!("the successor {pid} ended before it was ready; its last words are in the journal");
        Self::new(Reason::Exited, detail)
    }

    /// A failure whose errno is the usual one for its reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), errno: reason.errno() }
    }

    /// A failure that an operation on `what` ended with.
    pub fn from_io(reason: Reason, what: impl fmt::Display, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or_else(|| reason.errno());
        Self { reason, detail: format!("{what}: {error}"), errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_name_and_its_own_exit_code() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.exit_code()).collect();
        assert_eq!((names.len(), codes.len()), (Reason::ALL.len(), Reason::ALL.len()));
        for reason in Reason::ALL {
            assert_eq!(Reason::from_exit_code(reason.exit_code()), Some(*reason));
            assert!((10..=39).contains(&reason.exit_code()), "{reason}: 0-9 and 64 upwards have meanings");
        }
    }
}
