//! Throw-away machines with a real systemd as PID 1, or its stand-in, for the scenarios of this folder.
//!
//! The test's side: [`Machine`], [`on_every_systemd`] and [`differs_on_standin`]. What boots the machines is the
//! executable `lab` (`main.rs` here), which cargo builds as an example. This chapter never needs a network, a
//! daemon or `unsafe`; building the root trees, once, needs apt's mirror.

#[cfg(test)]
mod apt;
#[expect(dead_code, reason = "its writing end is the supervisor's")]
mod journal;
mod machine;
#[macro_use]
pub(crate) mod mark;
mod permit;
mod systemd;

pub(crate) use machine::{Machine, Output, executable, finish};
pub(crate) use systemd::Systemd;

use std::io::Write;
use std::process::Command;
use std::sync::{Once, OnceLock};

/// What a scenario needs beside its PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// The servers that only one tree has; see [`Builder::with_programs`](machine::Builder::with_programs).
    Programs,
}

/// Why machines with this PID 1 cannot run on this host; None if they can.
pub(crate) fn missing(systemd: Systemd, needs: Needs) -> Option<&'static str> {
    static KNOWN: [OnceLock<Option<String>>; 4] = [const { OnceLock::new() }; 4];
    let (standin, programs) = (systemd == Systemd::Standin, needs == Needs::Programs);
    let mut lab = Command::new(executable());
    lab.arg("missing");
    if standin || programs {
        lab.arg(systemd.to_string()).args(programs.then_some("--programs"));
    }
    let ask = || match lab.output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        Err(why) => Some(format!("{}: {why}; cargo build --example lab", executable().display())),
    };
    KNOWN[usize::from(standin) + 2 * usize::from(programs)].get_or_init(ask).as_deref()
}

/// How many times longer than elsewhere a client has to wait for the same: the lab's machines run at this
/// host's own speed.
pub(crate) fn slowness() -> u32 {
    1
}

/// Whether the environment wants scenarios with this PID 1: WORLD is `standin` or `systemd`, or not set.
fn is_wanted(systemd: Systemd) -> bool {
    match std::env::var("WORLD").as_deref() {
        Err(_) | Ok("") => true,
        Ok("standin") => systemd == Systemd::Standin,
        Ok("systemd") => systemd != Systemd::Standin,
        Ok(other) => panic!("WORLD={other}: there are `standin` and `systemd`; without it, both"),
    }
}

/// Runs `scenario`, or says why this host cannot; in CI a scenario that cannot run fails.
pub(crate) fn on(systemd: Systemd, needs: Needs, scenario: fn(Systemd)) {
    static SAID: [Once; 2] = [const { Once::new() }; 2];
    if !is_wanted(systemd) {
        return;
    }
    let standin = systemd == Systemd::Standin;
    match missing(systemd, needs) {
        None => mark::run(systemd, scenario),
        Some(why) if std::env::var_os("CI").is_some() => panic!("in CI nothing is skipped: {why}"),
        // Past the capture of passing tests' output, and once: a skip must not look like a pass.
        Some(why) => SAID[usize::from(standin)].call_once(|| {
            let which = if standin { "the stand-in" } else { "a real systemd" };
            let _ = writeln!(std::io::stderr(), "skipped: all scenarios on {which}: {why}");
        }),
    }
}

/// Makes each function a test on every systemd and on the stand-in: `v252::name`, `v257::name`,
/// `v262::name`, `standin::name`.
///
/// A scenario holds one machine at a time: only few may live at once, and two that wait for each other's
/// second would wait for ever.
macro_rules! on_every_systemd {
    (@module $module:ident $systemd:ident $needs:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                crate::lab::on(crate::lab::Systemd::$systemd, crate::lab::Needs::$needs, super::$name);
            })+
        }
    };
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        on_real_systemd! { $($(#[$attribute])* fn $name($systemd) $body)+ }
        on_every_systemd! { @module standin Standin Nothing $($name)+ }
    };
}

/// The same, for machines with nginx and a python of Debian's: `Machine::with(..).with_programs()`.
macro_rules! on_every_systemd_with_programs {
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        where_all_programs_are! { $($(#[$attribute])* fn $name($systemd) $body)+ }
        on_every_systemd! { @module v252 V252 Nothing $($name)+ }
        on_every_systemd! { @module v262 V262 Nothing $($name)+ }
    };
}

/// The same, for what only the tree with programs has: on 257 and on the stand-in.
macro_rules! where_all_programs_are {
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        $($(#[$attribute])* fn $name($systemd: crate::lab::Systemd) $body)+
        on_every_systemd! { @module v257 V257 Programs $($name)+ }
        on_every_systemd! { @module standin Standin Programs $($name)+ }
    };
}

/// The same but for the stand-in: for what asks systemd about systemd.
macro_rules! on_real_systemd {
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        $($(#[$attribute])* fn $name($systemd: crate::lab::Systemd) $body)+
        on_every_systemd! { @module v252 V252 Nothing $($name)+ }
        on_every_systemd! { @module v257 V257 Nothing $($name)+ }
        on_every_systemd! { @module v262 V262 Nothing $($name)+ }
    };
}
