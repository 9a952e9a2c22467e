//! What services say, and whom it is believed: sd_notify(3) with the rules of PID 1.
//!
//! Who sent a message is what the kernel says; whose message it is, is asked of the processes of each
//! service; whether it counts, of NotifyAccess=. The order within a message is PID 1's: MAINPID= first.

use std::os::fd::OwnedFd;

use super::machine::{Event, State};
use super::members;
use super::notify::{Datagram, Incoming, Said};
use super::service::ServiceUnit;
use super::standin::Standin;
use super::store::{Offered, UNNAMED};
use crate::sys::pidfd::Pidfd;
use crate::unit::{NotifyAccess, ServiceType};

impl Standin {
    /// Obeys a message, if its sender may say it.
    pub(super) fn obey(&mut self, incoming: Incoming) {
        let datagram = match incoming {
            Incoming::Message(datagram) => datagram,
            Incoming::Barrier => return,
            Incoming::Dropped(why) => return self.around.output.say(&why),
        };
        let sender = datagram.sender;
        let around = &self.around;
        let of = |service: &ServiceUnit| {
            service.is_known(sender) || around.members.has(&service.name, &service.traces, sender)
        };
        // Only one has it: the lookup by pid is cheap, the one by membership is not.
        let found = self.services.iter().position(|service| service.is_known(sender));
        let Some(id) = found.or_else(|| self.services.iter().position(of)) else {
            return self
                .around
                .output
                .say(&format!("a message of process {sender}, which is no service's, is dropped"));
        };
        if self.is_heard(id, sender) {
            self.obey_service(id, *datagram);
        }
    }

    /// NotifyAccess=. PID 1 is silent about those who are not heard; we tell, once a start.
    fn is_heard(&mut self, id: usize, sender: i32) -> bool {
        let Some(service) = self.services.get_mut(id) else { return false };
        let is = |process: Option<&super::service::Process>| {
            process.is_some_and(|process| process.pid() == sender)
        };
        let (main, control) = (is(service.main.as_ref()), is(service.control.as_ref()));
        let (heard, word) = match service.access() {
            NotifyAccess::None => (false, "none"),
            NotifyAccess::Main => (main, "main"),
            NotifyAccess::Exec => (main || control, "exec"),
            NotifyAccess::All => (true, "all"),
        };
        if !heard && !std::mem::replace(&mut service.told_unheard, true) {
            let text = format!("messages of process {sender} do not count: NotifyAccess={word}");
            self.around.output.say_of(&service.name, &text);
        }
        heard
    }

    fn obey_service(&mut self, id: usize, datagram: Datagram) {
        let Datagram { said, mut fds, .. } = datagram;
        self.obey_main_pid(id, &said, &mut fds);
        let at = said.monotonic_usec;
        let events = [
            said.stopping.then_some(Event::Stopping),
            (said.reloading && !said.stopping).then_some(Event::Reloading(at)),
            (said.ready && !said.stopping).then_some(Event::Ready),
        ];
        for event in events.into_iter().flatten() {
            let unfit = event == Event::Ready && !self.can_be_signalled(id);
            self.tell(id, if unfit { Event::Unfit } else { event });
        }
        let Some(service) = self.services.get_mut(id) else { return };
        if let Some(status) = said.status.clone() {
            service.statuses += 1;
            service.status = status;
        }
        if let Some(access) = &said.access {
            service.access = match access.as_str() {
                "none" => Some(NotifyAccess::None),
                "main" => Some(NotifyAccess::Main),
                "exec" => Some(NotifyAccess::Exec),
                "all" => Some(NotifyAccess::All),
                _ => service.access,
            };
        }
        service.errno = said.errno.unwrap_or(service.errno);
        if said.watchdog.as_deref() == Some("1") {
            service.alive_at = super::clock::now();
        }
        let events = [
            said.extend_usec.map(Event::Extend),
            said.watchdog.as_deref().and_then(|what| match what {
                "1" => Some(Event::Alive),
                "trigger" => Some(Event::WatchdogTrigger),
                _ => None,
            }),
            said.watchdog_usec.map(Event::WatchdogUsec),
            said.restart_reset.then_some(Event::RestartReset),
        ];
        for event in events.into_iter().flatten() {
            self.tell(id, event);
        }
        self.obey_store(id, &said, fds);
        self.settle(id);
    }

    /// MAINPID= and MAINPIDFD=1.
    fn obey_main_pid(&mut self, id: usize, said: &Said, fds: &mut Vec<OwnedFd>) {
        let by_fd = said.main_pidfd && fds.len() == 1;
        let given = if by_fd { fds.pop() } else { None };
        let pid = given.as_ref().and_then(pid_of).or(said.main_pid);
        let (Some(pid), Some(service)) = (pid, self.services.get_mut(id)) else { return };
        if service.main.as_ref().is_some_and(|main| main.pid() == pid) {
            return;
        }
        let around = &self.around;
        let refused =
            |why: &str| around.output.say_of(&service.name, &format!("MAINPID={pid} is refused: {why}"));
        let state = service.machine.state();
        let takes = state.is_reloading()
            || matches!(
                state,
                State::Start | State::StartPost | State::Running | State::Stop | State::StopSigterm
            );
        if !takes {
            return refused(&format!("the service is in the state {}", state.word()));
        }
        if pid == std::process::id().cast_signed() {
            return refused("that is the service manager");
        }
        if service.control.as_ref().is_some_and(|control| control.pid() == pid) {
            return refused("that is the control process");
        }
        let Ok(pidfd) = Pidfd::open(pid) else { return refused("there is no such process") };
        if !members::lives(pid) || !around.members.has(&service.name, &service.traces, pid) {
            return refused("it is not a living process of this service");
        }
        if said.main_pidfd_id.is_some_and(|id| pidfd.id().is_some_and(|own| own != id)) {
            return refused("MAINPIDFDID= is another process");
        }
        let alien = members::parent(pid) != Some(std::process::id().cast_signed());
        if alien {
            let text =
                format!("process {pid} is the main one now, and not our child: its end may pass unnoticed");
            around.output.say_of(&service.name, &text);
        }
        service.set_main(pidfd, super::clock::now());
        self.tell(id, Event::NewMain { alien });
    }

    /// systemd 262: a service of Type=notify-reload that is ready handles its signal, or holds it back.
    fn can_be_signalled(&self, id: usize) -> bool {
        let Some(service) = self.services.get(id) else { return true };
        if service.settings.kind != ServiceType::NotifyReload || service.machine.state() != State::Start {
            return true;
        }
        let Some(main) = &service.main else { return true };
        let (pid, number) = (main.pid(), service.settings.reload_signal.number());
        let caught = members::catches(pid, number) || members::blocks(pid, number);
        if !caught {
            let text = "READY=1 of Type=notify-reload without a handler for ReloadSignal=: the start fails";
            self.around.output.say_of(&service.name, text);
        }
        caught
    }

    /// FDSTORE=1 and FDSTOREREMOVE=1.
    fn obey_store(&mut self, id: usize, said: &Said, fds: Vec<OwnedFd>) {
        let Some(service) = self.services.get_mut(id) else { return };
        let (output, hangups) = (&self.around.output, &self.around.hangups);
        let valid = |name: &&String| crate::activation::check_name(name).is_ok();
        let name = said.name.as_ref().filter(valid);
        if said.unstore {
            if let Some(name) = name {
                service.store.remove(name, hangups);
            }
            return;
        }
        if !said.store {
            return;
        }
        if said.name.is_some() && name.is_none() {
            output.say_of(&service.name, "FDNAME= is no valid name; \"stored\" is used");
        }
        let name = name.map_or(UNNAMED, String::as_str);
        let most = service.settings.fd_store_max as usize;
        for fd in fds {
            if service.store.offer(fd, name, !said.unpolled, most, hangups) == Offered::Full {
                // Who offers ten thousand is told once.
                if !std::mem::replace(&mut service.told_full, true) {
                    let text =
                        format!("cannot store more than FileDescriptorStoreMax={most}; the rest is closed");
                    output.say_of(&service.name, &text);
                }
                return;
            }
        }
    }
}

/// The process of a pidfd: proc_pid_fdinfo(5).
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}
