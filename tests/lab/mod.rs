//! Throw-away machines with a real systemd as PID 1, or its stand-in, for the scenarios of this folder.
//!
//! The test's side: [`Machine`], [`on_every_systemd`] and [`differs_on_standin`]. What boots the machines is the executable
//! `lab` (`main.rs` here), which cargo builds as an example. This chapter never needs a network, a
//! daemon or `unsafe`; building the root trees, once, needs apt's mirror.

#[cfg(test)]
mod apt;
#[expect(dead_code, reason = "its writing end is the supervisor's")]
mod journal;
mod machine;
#[macro_use]
pub(crate) mod mark;

pub(crate) use machine::{Machine, Output, Systemd, executable, finish};

use std::io::Write;
use std::process::Command;
use std::sync::{Once, OnceLock};

/// Why machines with this PID 1 cannot run on this host; None if they can.
pub(crate) fn missing(systemd: Systemd) -> Option<&'static str> {
    static SYSTEMD: OnceLock<Option<String>> = OnceLock::new();
    static STANDIN: OnceLock<Option<String>> = OnceLock::new();
    let standin = systemd == Systemd::Standin;
    let mut lab = Command::new(executable());
    lab.arg("missing").args(standin.then(|| systemd.to_string()));
    let ask = || match lab.output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        Err(why) => Some(format!("{}: {why}; cargo build --example lab", executable().display())),
    };
    if standin { &STANDIN } else { &SYSTEMD }.get_or_init(ask).as_deref()
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
pub(crate) fn on(systemd: Systemd, scenario: fn(Systemd)) {
    static SAID: [Once; 2] = [const { Once::new() }; 2];
    if !is_wanted(systemd) {
        return;
    }
    let standin = systemd == Systemd::Standin;
    match missing(systemd) {
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
    (@module $module:ident $systemd:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                crate::lab::on(crate::lab::Systemd::$systemd, super::$name);
            })+
        }
    };
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        on_real_systemd! { $($(#[$attribute])* fn $name($systemd) $body)+ }
        on_every_systemd! { @module standin Standin $($name)+ }
    };
}

/// The same but for the stand-in: for what asks systemd about systemd.
macro_rules! on_real_systemd {
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        $($(#[$attribute])* fn $name($systemd: crate::lab::Systemd) $body)+
        on_every_systemd! { @module v252 V252 $($name)+ }
        on_every_systemd! { @module v257 V257 $($name)+ }
        on_every_systemd! { @module v262 V262 $($name)+ }
    };
}
