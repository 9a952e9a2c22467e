//! What is said on the control socket of `handover pid1`, both ways: one line of JSON each. Pure.
//!
//! A client connects, sends one [`Request`], reads one [`Reply`], and the connection ends. The words for
//! units and their properties are systemd's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most bytes of a request, with the newline at its end.
pub(crate) const MOST_REQUEST_BYTES: usize = 4096;
/// Most bytes of a reply.
pub(crate) const MOST_REPLY_BYTES: usize = 1 << 20;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// A job for a unit.
    Job {
        /// The unit, with its suffix.
        unit: String,
        /// What is to be done.
        job: Job,
        /// Refuse if it would cancel another job: the mode `fail` of systemd, whose other is `replace`.
        #[serde(default)]
        or_fail: bool,
        /// Reply at once, not when the job has ended.
        #[serde(default)]
        no_block: bool,
    },
    /// A signal to processes of a unit.
    Kill {
        /// The unit.
        unit: String,
        /// The signal's number.
        signal: i32,
        /// To whom.
        whom: Whom,
    },
    /// What is known of a unit.
    Show {
        /// The unit.
        unit: String,
    },
    /// The same, as soon as it is not what the client has seen.
    Watch {
        /// The unit.
        unit: String,
        /// [`Unit::state`] of what it has seen.
        seen: u64,
    },
    /// What is in the FD store of a service.
    Stored {
        /// The unit.
        unit: String,
    },
    /// All units, with their states.
    List,
    /// Read the unit files again.
    DaemonReload,
    /// Forget that a unit, or any, failed.
    ResetFailed {
        /// The unit; none is all.
        unit: Option<String>,
    },
    /// Empty the FD store of a unit that does not run.
    CleanStore {
        /// The unit.
        unit: String,
    },
    /// Stop everything, and end.
    Exit,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Job {
    /// Have it run.
    Start,
    /// Have it not run.
    Stop,
    /// Stop it if it runs, then start it.
    Restart,
    /// Restart it if it runs.
    TryRestart,
    /// Have it reload.
    Reload,
    /// Reload it if it can, else restart it; start it if it does not run.
    ReloadOrRestart,
}

/// Whom a signal is for: --kill-whom= of systemctl(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Whom {
    /// The main process.
    Main,
    /// The control process.
    Control,
    /// Every process of the unit.
    All,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The job has ended, or with `no_block` has been queued.
    Job {
        /// As systemd calls it: `done`, `failed`, `canceled`, `invalid`, ...
        result: String,
        /// Result= of the unit, or ReloadResult= for a reload.
        why: String,
    },
    /// It is done.
    Done,
    /// What is known of a unit.
    Unit(Box<Unit>),
    /// What is in an FD store.
    Stored {
        /// Names and kinds, the newest first.
        stored: Vec<(String, String)>,
    },
    /// All units.
    Units {
        /// Sorted by name.
        units: Vec<Listed>,
    },
    /// It was not done.
    Refused {
        /// Why, for programs.
        reason: Refused,
        /// Why, for people.
        message: String,
    },
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refused {
    /// The peer's uid is neither ours nor root's.
    AccessDenied,
    /// The request makes no sense.
    BadRequest,
    /// There is no such unit.
    NotFound,
    /// A unit of this type, or this very unit, does not do that.
    NotApplicable,
    /// Another job of the unit comes first.
    Busy,
    /// It was tried, and failed.
    Failed,
    /// It is about to end.
    Ending,
}

/// A unit in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) unit: String,
    /// LoadState=.
    pub(crate) load: String,
    /// ActiveState=.
    pub(crate) active: String,
    /// SubState=.
    pub(crate) sub: String,
    /// Description=.
    pub(crate) description: String,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// Properties by systemd's names, as `systemctl show` prints them.
    pub(crate) properties: BTreeMap<String, String>,
    /// The ExecReload= lines and how the last run of each went.
    pub(crate) exec_reload: Vec<Run>,
    /// How often the service has said STATUS=.
    pub(crate) statuses: u64,
    /// Stands for all of this, to the stand-in that it is from: a change has another one.
    #[serde(default)]
    pub(crate) state: u64,
}

/// A command and its last run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The command and its arguments.
    pub(crate) command: Vec<String>,
    /// A failure is as good as success.
    pub(crate) may_fail: bool,
    /// The process, 0 if there never was one.
    pub(crate) pid: u32,
    /// When it began: CLOCK_MONOTONIC, microseconds.
    pub(crate) started_usec: u64,
    /// The exit status it ended with.
    pub(crate) exited: Option<i32>,
    /// The signal it ended by.
    pub(crate) killed: Option<i32>,
}

/// One line for the other side.
pub(crate) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    // Strings, numbers and lists of them: there is nothing in it that JSON cannot say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// What a line of the other side says; the error is for people.
pub(crate) fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let unit = || "web.service".to_owned();
        let requests = [
            Request::Job { unit: unit(), job: Job::ReloadOrRestart, or_fail: true, no_block: false },
            Request::Kill { unit: unit(), signal: 9, whom: Whom::Main },
            Request::Show { unit: unit() },
            Request::Watch { unit: unit(), seen: u64::MAX },
            Request::List,
            Request::Stored { unit: unit() },
            Request::ResetFailed { unit: None },
        ];
        for request in requests {
            let line = line(&request);
            assert!(
                line.len() < MOST_REQUEST_BYTES && line.iter().filter(|byte| **byte == b'\n').count() == 1
            );
            assert_eq!(read::<Request>(&line), Ok(request));
        }
        let unit = Unit { properties: [("MainPID".into(), "7".into())].into(), ..Unit::default() };
        for reply in [
            Reply::Unit(Box::new(unit)),
            Reply::Done,
            Reply::Refused { reason: Refused::Busy, message: "no\nway".into() },
        ] {
            assert_eq!(read::<Reply>(&line(&reply)), Ok(reply));
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"verb":"job"}"#,
            r#"{"verb":"show","unit":"a","x":1}"#,
            r#"{"verb":"dance"}"#,
        ] {
            assert!(!read::<Request>(text.as_bytes()).unwrap_err().is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(bytes: Vec<u8>) {
            let _ = read::<Request>(&bytes);
            let _ = read::<Reply>(&bytes);
        }
    }
}
