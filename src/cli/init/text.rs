//! The units that `handover init` writes: the text of a `.socket` and of a `.service`, a reason above each
//! line. The units that are shipped are what this says for the samples.
//!
//! Pure: a plan in, text out.

use std::fmt::Write;

/// What kind of program it is, as far as an upgrade is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// It is built on the library
    Library,
    /// It takes its sockets by LISTEN_FDS, sd_listen_fds(3), and knows no more
    Activation,
    /// It knows nothing of this, and binds its address itself
    Unmodified,
}

/// All that the units depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The name of both units, without their types.
    pub(crate) name: String,
    /// Values of ListenStream=; at least one.
    pub(crate) listen: Vec<String>,
    /// See [`Kind`].
    pub(crate) kind: Kind,
    /// The program and its arguments, as ExecStart= takes them.
    pub(crate) exec: String,
    /// Whether there is a sandbox around it.
    pub(crate) hardening: bool,
    /// How many generations of a program that is not built on the library have sockets of their own.
    pub(crate) slots: u8,
    /// The units are for a user's own manager.
    pub(crate) user: bool,
    /// The absolute path of this program, where the units will run.
    pub(crate) handover: String,
}

/// A unit that grows line by line.
struct Lines(String);

impl Lines {
    /// A section, after an empty line.
    fn section(&mut self, name: &str) {
        let gap = if self.0.ends_with("\n\n") { "" } else { "\n" };
        self.put(format_args!("{gap}[{name}]"));
    }

    /// Comment lines.
    fn why(&mut self, text: &str) {
        text.lines().for_each(|line| self.put(format_args!("# {line}")));
    }

    /// Assignments, and above them what they are for.
    fn set(&mut self, why: &str, lines: &[&str]) {
        self.why(why);
        lines.iter().for_each(|line| self.put(format_args!("{line}")));
    }

    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

impl Plan {
    /// The text of `NAME.socket`.
    pub(crate) fn socket(&self) -> String {
        let name = &self.name;
        let mut unit = Lines(String::new());
        unit.why(&format!(
            "{name}.socket: the sockets of {name}.service. The service manager holds them: clients wait while\n\
             the service starts, restarts or crashes, and none is refused."
        ));
        unit.section("Unit");
        unit.set("What lists and logs call it.", &[&format!("Description=Sockets of {name}")]);
        unit.section("Socket");
        self.addresses(&mut unit);
        let file_name = format!("FileDescriptorName={name}");
        unit.set("What the service knows them by, in LISTEN_FDNAMES.", &[&file_name]);
        let trigger = "A service that crashes again and again must not take the sockets down with it.";
        unit.set(trigger, &["TriggerLimitIntervalSec=0"]);
        unit.section("Install");
        unit.set("They are open before anybody can come, from boot on.", &["WantedBy=sockets.target"]);
        unit.0
    }

    /// The addresses: each as often as there are slots, if it can be there more than once.
    fn addresses(&self, unit: &mut Lines) {
        let [several, single]: [Vec<_>; 2] = [true, false]
            .map(|wanted| self.listen.iter().filter(|one| self.has_slots(one) == wanted).collect());
        if !several.is_empty() {
            let slots = self.slots;
            unit.why(&format!(
                "Where clients come. Each start of the program gets a socket of its own at the same address, and\n\
                 {slots} may be there at a time: one that serves, and {} that finish what they have.",
                slots.saturating_sub(1)
            ));
            if self.kind == Kind::Unmodified {
                unit.why("It must be the address that the program binds.");
            }
            for address in several {
                (0..slots).for_each(|_| unit.put(format_args!("ListenStream={address}")));
            }
            unit.set("Without this there could be one socket at an address.", &["ReusePort=yes"]);
        }
        if !single.is_empty() {
            unit.why(match self.kind {
                Kind::Library => "Where clients come.",
                _ => "There can be one of these: all starts of the program share it, and the old one stops at once.",
            });
            single.iter().for_each(|address| unit.put(format_args!("ListenStream={address}")));
        }
    }

    /// Whether there can be several sockets at this address, and use for them.
    fn has_slots(&self, address: &str) -> bool {
        self.kind != Kind::Library && !address.starts_with(['/', '@']) && !address.starts_with("vsock")
    }

    /// The text of `NAME.service`.
    pub(crate) fn service(&self) -> String {
        let name = &self.name;
        let mut unit = Lines(String::new());
        unit.why(&format!(
            "{name}.service: `systemctl {}reload {name}` upgrades it with nothing lost, on systemd 252 and newer.",
            if self.user { "--user " } else { "" }
        ));
        unit.section("Unit");
        unit.set("What lists and logs call it.", &[&format!("Description={name}")]);
        unit.set(
            "Restart for ever: at a start limit the sockets would be closed, and who waits in them reset.",
            &["StartLimitIntervalSec=0"],
        );
        unit.section("Service");
        self.start(&mut unit);
        self.keep(&mut unit);
        if self.hardening {
            self.sandbox(&mut unit);
        }
        unit.section("Install");
        let target = if self.user { "default.target" } else { "multi-user.target" };
        unit.set("It starts at boot, not with its first client.", &[&format!("WantedBy={target}")]);
        unit.set("Who enables the service enables its sockets.", &[&format!("Also={name}.socket")]);
        unit.0
    }

    /// How it is started and upgraded.
    fn start(&self, unit: &mut Lines) {
        let (handover, exec) = (&self.handover, &self.exec);
        unit.set(
            "Whoever starts the service starts its sockets first.",
            &[&format!("Sockets={}.socket", self.name)],
        );
        let ready = match self.kind {
            Kind::Library => "It runs when it says so: READY=1, which the library sends.",
            _ => "It runs when a start of the program waits for clients: then READY=1 is sent.",
        };
        unit.set(ready, &["Type=notify"]);
        unit.set("Only the main process speaks for the service.", &["NotifyAccess=main"]);
        match self.kind {
            Kind::Library => unit.set("The program.", &[&format!("ExecStart={exec}")]),
            Kind::Activation | Kind::Unmodified => {
                unit.set(
                    "The program, started again for each upgrade; `handover run --help` has probes, canaries, deadlines.",
                    &[&format!("ExecStart={handover} run -- {exec}")],
                );
                unit.set("Each start of it has a cgroup of its own, and is ended whole.", &["Delegate=yes"]);
                unit.set(
                    "Should the runner crash, the program serves on, and the next runner goes on with it.",
                    &["KillMode=process"],
                );
            }
        }
        unit.set(
            "An upgrade. It ends when the new process serves, or fails when none does: Type=notify-reload cannot.",
            &[&format!("ExecReload={handover} reload")],
        );
        unit.set(
            "A process that the line above has started logs as the service, too.",
            &["SyslogIdentifier=%N"],
        );
    }

    /// What is kept over its ends.
    fn keep(&self, unit: &mut Lines) {
        unit.set(
            "The sockets would be made blocking at a restart, also for a process that still drains.",
            &["NonBlocking=yes"],
        );
        let (start, stop) = match self.kind {
            Kind::Library => ("60 s", "30 s"),
            _ => ("30 s", "70 s"),
        };
        unit.set(
            &format!("Longer than an upgrade may take, {start}: else it would end without a reason."),
            &["TimeoutStartSec=90s"],
        );
        unit.set(
            &format!("Longer than what is in flight may take to end, {stop}: else it would be cut."),
            &["TimeoutStopSec=90s"],
        );
        unit.set("However it ends, it comes back, and soon.", &["Restart=always", "RestartSec=100ms"]);
        let (what, most) = match self.kind {
            Kind::Library => (
                "Idle connections wait here while the service restarts: each takes one, handover itself a few.\n\
                 Those for which there is no room end politely.",
                "FileDescriptorStoreMax=512",
            ),
            _ => (
                "What the runner knows of its programs waits here while it restarts.",
                "FileDescriptorStoreMax=64",
            ),
        };
        unit.set(what, &[most]);
        if self.kind == Kind::Library {
            unit.set(
                "At a start everything in there takes a number below this limit.",
                &["LimitNOFILE=65536"],
            );
        }
    }

    /// A sandbox that upgrades work in.
    fn sandbox(&self, unit: &mut Lines) {
        let runs = self.kind != Kind::Library;
        unit.why("The sandbox. What the program needs beyond it, take out here; `systemd-analyze security` has more.");
        if !self.user {
            unit.set(
                "A user of its own; for one that exists already, write User= instead.",
                &["DynamicUser=yes"],
            );
            unit.set("A folder that is its own: /var/lib/%N.", &["StateDirectory=%N"]);
            unit.set("No capability: its sockets are opened for it.", &["CapabilityBoundingSet="]);
            unit.set(
                "It sees the system, and changes nothing of it.",
                &["ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes"],
            );
            // A runner makes cgroups.
            let cgroups: &[_] = if runs { &[] } else { &["ProtectControlGroups=yes"] };
            let kernel = ["ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes"];
            let rest = ["ProtectClock=yes", "ProtectHostname=yes"];
            unit.set("Nor of the kernel.", &[&kernel[..], cgroups, &rest].concat());
        }
        unit.set("Nothing that it executes has more rights than itself.", &["NoNewPrivileges=yes"]);
        unit.set(
            "Networks, and unix sockets: by these the service manager is told, and an upgrade asked for.",
            &["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"],
        );
        let calls = if runs {
            "SystemCallFilter=@system-service pidfd_getfd seccomp"
        } else {
            "SystemCallFilter=@system-service"
        };
        let why = if runs {
            "The system calls of services, and two that `handover run` needs."
        } else {
            "The system calls of services."
        };
        unit.set(why, &[calls, "SystemCallArchitectures=native"]);
        unit.set(
            "What next to no service does.",
            &[
                "RestrictNamespaces=yes",
                "RestrictRealtime=yes",
                "RestrictSUIDSGID=yes",
                "LockPersonality=yes",
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::{Host, Service, Socket, Unit, UnitName};
    use std::sync::Arc;

    pub(super) fn plan(kind: Kind) -> Plan {
        Plan {
            name: "web".into(),
            listen: vec!["8080".into()],
            kind,
            exec: "/usr/bin/web".into(),
            hardening: false,
            slots: 3,
            user: false,
            handover: "/usr/bin/handover".into(),
        }
    }

    fn read(name: &str, text: &str) -> Unit {
        let (host, mut findings) = (Arc::new(Host::default()), Vec::new());
        let unit =
            Unit::read(UnitName::parse(name).unwrap(), host, &[(name.into(), text.into())], &mut findings);
        if name.ends_with(".socket") {
            Socket::read(&unit, &mut findings);
        } else {
            Service::read(&unit, &mut findings);
        }
        assert_eq!(findings, [], "{text}");
        unit
    }

    #[test]
    fn the_units_of_the_sample_are_what_this_writes() {
        assert_eq!(plan(Kind::Library).socket(), include_str!("../../../units/web.socket"));
        assert_eq!(plan(Kind::Library).service(), include_str!("../../../units/web.service"));
    }

    #[test]
    fn every_line_has_its_reason_above_and_is_understood() {
        for kind in [Kind::Library, Kind::Activation, Kind::Unmodified] {
            for (hardening, user) in [(false, false), (true, false), (true, true)] {
                let plan = Plan { hardening, user, ..plan(kind) };
                let texts = [("web.socket", plan.socket()), ("web.service", plan.service())];
                for (name, text) in texts {
                    read(name, &text);
                    for block in text.split("\n# ").skip(1).chain([text.as_str()]) {
                        let said = block.lines().filter(|line| !line.starts_with('[') && !line.is_empty());
                        assert!(said.count() > 0, "{text}");
                    }
                    let bare = text.lines().zip(text.lines().skip(1)).find(|(above, line)| {
                        (above.starts_with('[') || above.is_empty())
                            && line.contains('=')
                            && !line.starts_with('#')
                    });
                    assert_eq!(bare, None, "{text}");
                }
            }
        }
    }

    #[test]
    fn only_what_can_be_there_several_times_is() {
        let listen = ["127.0.0.1:80", "/run/web.sock", "@web"].map(str::to_owned).to_vec();
        let text = Plan { listen, slots: 4, ..plan(Kind::Unmodified) }.socket();
        let count = |line: &str| text.lines().filter(|one| *one == line).count();
        assert_eq!(count("ListenStream=127.0.0.1:80"), 4);
        assert_eq!((count("ListenStream=/run/web.sock"), count("ListenStream=@web")), (1, 1));
        assert_eq!(count("ReusePort=yes"), 1);
        let library = plan(Kind::Library).socket();
        assert!(
            library.matches("ListenStream=").count() == 1 && !library.contains("ReusePort="),
            "{library}"
        );
    }

    #[test]
    fn a_runner_may_make_cgroups_and_call_what_it_needs() {
        let text = Plan { hardening: true, ..plan(Kind::Activation) }.service();
        assert!(!text.contains("ProtectControlGroups=") && text.contains(" pidfd_getfd seccomp\n"), "{text}");
        assert!(text.contains("\nExecStart=/usr/bin/handover run -- /usr/bin/web\n"), "{text}");
    }

    #[test]
    fn a_users_manager_gets_what_it_can_do() {
        let text = Plan { hardening: true, user: true, ..plan(Kind::Library) }.service();
        assert!(text.contains("WantedBy=default.target") && !text.contains("DynamicUser="), "{text}");
    }
}
