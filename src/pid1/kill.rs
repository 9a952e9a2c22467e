//! Signals to the processes of a service: who gets which one, see systemd.kill(5).

use std::collections::BTreeSet;

use super::machine::Strike;
use super::members;
use super::service::{Process, ServiceUnit, Surroundings, signal_name};
use super::standin::Standin;
use crate::sys::pidfd::Pidfd;
use crate::unit::KillMode;

impl ServiceUnit {
    /// Sends the signal of `strike` to whom KillMode= says; whether there is an end to wait for.
    pub(super) fn kill(&mut self, strike: Strike, around: &Surroundings) -> bool {
        let kill = &self.settings.kill;
        let (number, all) = match strike {
            Strike::Terminate => {
                let again = kill.restart_signal.filter(|_| self.machine.goes_again());
                (again.unwrap_or(kill.signal), kill.mode == KillMode::ControlGroup)
            }
            Strike::Watchdog => (kill.watchdog_signal, kill.mode == KillMode::ControlGroup),
            Strike::Kill => {
                (kill.final_signal, matches!(kill.mode, KillMode::ControlGroup | KillMode::Mixed))
            }
        };
        if kill.mode == KillMode::None {
            return false;
        }
        let number = number.number();
        let soft = !matches!(number, libc::SIGKILL | libc::SIGCONT);
        let mut some = false;
        for process in [&self.main, &self.control].into_iter().flatten() {
            let alien = self.machine.main_is_alien()
                && self.main.as_ref().is_some_and(|main| main.pid() == process.pid());
            signal(Some(process), number);
            if soft {
                signal(Some(process), libc::SIGCONT);
            }
            if soft && kill.send_sighup {
                signal(Some(process), libc::SIGHUP);
            }
            some |= !alien;
        }
        if all {
            some |= self.signal_others(number, soft, around);
        }
        some
    }

    /// Signals what is neither main nor control process, and what that forks meanwhile.
    fn signal_others(&self, number: i32, soft: bool, around: &Surroundings) -> bool {
        let mut seen = BTreeSet::new();
        loop {
            let fresh: Vec<_> = self.members(around).into_iter().filter(|pid| !self.is_known(*pid)).collect();
            let fresh: Vec<_> = fresh.into_iter().filter(|pid| seen.insert(*pid)).collect();
            if fresh.is_empty() {
                return !seen.is_empty();
            }
            for pid in fresh {
                signal_pid(pid, number);
                if soft {
                    signal_pid(pid, libc::SIGCONT);
                }
                if soft && self.settings.kill.send_sighup {
                    signal_pid(pid, libc::SIGHUP);
                }
            }
        }
    }
}

impl Standin {
    /// Passes a signal of ours on to the main processes, as the init of a container does; but to none that
    /// it would kill, for it may be meant for another.
    pub(super) fn pass_on(&self, number: i32) {
        let name = signal_name(number);
        let mains = self.services.iter().filter_map(|service| Some((service, service.main.as_ref()?)));
        let (mut passed, output) = (false, &self.around.output);
        for (service, main) in mains.filter(|(_, main)| members::catches(main.pid(), number)) {
            output.say_of(&service.name, &format!("{name} is passed on to the main process {}", main.pid()));
            signal(Some(main), number);
            passed = true;
        }
        if !passed {
            output.say(&format!("{name}: no main process has a handler for it"));
        }
    }
}

/// Signals a process that cannot be mistaken for another; one that has gone needs none.
pub(super) fn signal(process: Option<&Process>, number: i32) {
    if let Some(process) = process {
        let _ = process.pidfd.signal_number(number);
    }
}

/// Signals a process that was a member just now.
pub(crate) fn signal_pid(pid: i32, number: i32) {
    if let Ok(process) = Pidfd::open(pid) {
        let _ = process.signal_number(number);
    }
}
