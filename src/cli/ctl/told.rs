//! What systemctl would print, as far as it is known here.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Status, status_of};
use crate::manager::wire::{Listed, Reply};

/// Where it goes, if anywhere.
pub(super) struct Told {
    quiet: bool,
}

impl Told {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// One line for stdout.
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            // A reader that has gone changes nothing.
            let _ = writeln!(io::stdout().lock(), "{}", plain(line));
        }
    }

    /// One line for stderr.
    pub(super) fn complain(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{}", plain(line));
        }
    }

    /// That a job did not end well.
    pub(super) fn job_failed(&self, unit: &str, result: &str, why: &str) {
        self.complain(&match (result, why) {
            ("invalid", _) => format!("{unit} is not active, cannot reload."),
            ("canceled", _) => format!("Job for {unit} canceled."),
            (_, "exit-code") => {
                format!("Job for {unit} failed because a process of it exited with an error code.")
            }
            (_, "timeout") => format!("Job for {unit} failed because a timeout was exceeded."),
            (_, "start-limit-hit") => format!("Job for {unit} failed: it was started too often."),
            (_, why) => format!("Job for {unit} failed: {why}."),
        });
        if result == "failed" {
            self.complain(&format!(
                "The output of `handover pid1` says more; `handover ctl status {unit}` shows its state."
            ));
        }
    }

    /// That nothing was done, and why.
    pub(super) fn refused(&self, verb: &str, unit: &str, reply: &Reply) -> Status {
        match reply {
            Reply::Refused { reason, message } => {
                self.complain(&format!("Failed to {verb} {unit}: {message}"));
                status_of(*reason)
            }
            other => {
                self.complain(&format!("Failed to {verb} {unit}: an answer to another question: {other:?}"));
                Status::Failed
            }
        }
    }

    /// The properties that are `wanted`, in that order; all if none is.
    pub(super) fn properties(&self, found: &BTreeMap<String, String>, wanted: &[&String], bare: bool) {
        let names: Vec<&String> = if wanted.is_empty() { found.keys().collect() } else { wanted.to_vec() };
        for name in names {
            let Some(value) = found.get(name) else { continue };
            for line in value.split('\n') {
                self.say(&if bare { line.to_owned() } else { format!("{name}={line}") });
            }
        }
    }

    /// All units.
    pub(super) fn units(&self, units: &[Listed]) -> Status {
        for unit in units {
            let Listed { unit, load, active, sub, description } = unit;
            self.say(&format!("{unit:<24} {load:<9} {active:<12} {sub:<14} {description}"));
        }
        Status::Done
    }

    /// The state of a unit for people.
    pub(super) fn status(&self, found: &BTreeMap<String, String>) -> Status {
        let of = |name: &str| found.get(name).map_or("", String::as_str);
        if of("LoadState") == "not-found" {
            self.complain(&format!("Unit {} could not be found.", of("Id")));
            return Status::NotPermitted;
        }
        self.say(&format!("{} - {}", of("Id"), of("Description")));
        self.say(&format!("     Loaded: {} ({})", of("LoadState"), of("FragmentPath")));
        self.say(&format!(
            "     Active: {} ({}), result {}",
            of("ActiveState"),
            of("SubState"),
            of("Result")
        ));
        for (label, name) in [("Main PID", "MainPID"), ("Status", "StatusText"), ("Listen", "Listen")] {
            if !matches!(of(name), "" | "0") {
                self.say(&format!("{label:>11}: {}", of(name)));
            }
        }
        if !matches!(of("FileDescriptorStoreMax"), "" | "0") {
            let (held, most) = (of("NFileDescriptorStore"), of("FileDescriptorStoreMax"));
            self.say(&format!("   FD Store: {held} (limit: {most})"));
        }
        if of("ActiveState").starts_with("active") || of("ActiveState") == "reloading" {
            Status::Done
        } else {
            Status::NotActive
        }
    }
}

/// Without control characters, which a service may have put into its status.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
