//! Throw-away machines with a real systemd as PID 1, for the scenarios of this folder.
//!
//! The test's side: [`Machine`] and [`on_every_systemd`]. What boots the machines is the executable
//! `lab` (`main.rs` here), which cargo builds as an example. This chapter never needs a network, a
//! daemon or `unsafe`; building the root trees, once, needs apt's mirror.

#[cfg(test)]
mod apt;
mod machine;

pub(crate) use machine::{Machine, Output, Systemd, executable, finish};

use std::io::Write;
use std::process::Command;
use std::sync::{Once, OnceLock};

/// Why machines cannot run on this host; None if they can.
pub(crate) fn missing() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let ask = || match Command::new(executable()).arg("missing").output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        Err(why) => Some(format!("{}: {why}; cargo build --example lab", executable().display())),
    };
    WHY.get_or_init(ask).as_deref()
}

/// Runs `scenario`, or says why this host cannot; in CI a scenario that cannot run fails.
pub(crate) fn on(systemd: Systemd, scenario: fn(Systemd)) {
    static SAID: Once = Once::new();
    match missing() {
        None => scenario(systemd),
        Some(why) if std::env::var_os("CI").is_some() => panic!("in CI nothing is skipped: {why}"),
        // Past the capture of passing tests' output, and once: a skip must not look like a pass.
        Some(why) => SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "skipped: all scenarios on a real systemd: {why}");
        }),
    }
}

/// Makes each function a test on every systemd: `v252::name`, `v257::name`, `v262::name`.
///
/// A scenario holds one machine at a time: only few may live at once, and two that wait for each other's
/// second would wait for ever.
macro_rules! on_every_systemd {
    ($($(#[$attribute:meta])* fn $name:ident($systemd:ident) $body:block)+) => {
        $($(#[$attribute])* fn $name($systemd: crate::lab::Systemd) $body)+
        on_every_systemd! { @module v252 V252 $($name)+ }
        on_every_systemd! { @module v257 V257 $($name)+ }
        on_every_systemd! { @module v262 V262 $($name)+ }
    };
    (@module $module:ident $systemd:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                crate::lab::on(crate::lab::Systemd::$systemd, super::$name);
            })+
        }
    };
}
