//! A program as a service of a machine, and who asks it while it is upgraded.

use std::path::PathBuf;
use std::time::Duration;

use super::list::{ADDRESS, Program};
use crate::lab::{Machine, Systemd, executable};
use crate::load::guest::Guest;
use crate::load::{Client, Load, Tally};

/// How it is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `handover run`, with slots.
    Run,
    /// A new one beside the old one on one socket that they share; then SIGTERM to the old one.
    Overlap,
    /// `systemctl restart` of a unit that starts the program as ever.
    Restart,
}

/// More slots than there may be generations that drain, at the pace of a test.
const SLOTS: usize = 8;

/// What the runner is told: a keep-alive connection that pauses so long finds its end, and who never
/// pauses has that long.
const DRAIN: &str = "--idle 50ms --drain 2s";

/// See the banner.
#[derive(Debug)]
pub(crate) struct Service {
    machine: Machine,
    program: &'static Program,
    way: Way,
}

/// Those who ask.
pub(crate) struct Guests<T> {
    /// On a connection of its own each time.
    pub(crate) new: T,
    /// On connections that are kept, with time to think.
    pub(crate) thinking: T,
    /// On connections that are kept, as fast as may be.
    pub(crate) busy: T,
}

impl Service {
    /// Starts it on a machine of its own.
    pub(crate) fn start(systemd: Systemd, program: &'static Program, way: Way) -> Self {
        let machine = Machine::with(systemd).with_programs();
        let machine = machine.bind(handover(), "/usr/bin/handover").boot();
        for (path, text) in program.files {
            machine.push(path, text, 0o644);
        }
        let (command, line) = (program.command, format!("ListenStream={}\n", program.address));
        let run = |options: &str| {
            format!(
                "Type=notify\nNotifyAccess=main\nDelegate=yes\nFileDescriptorStoreMax=64\n\
                 ExecStart=/usr/bin/handover run {options} -- {command}\nExecReload=/usr/bin/handover reload\n"
            )
        };
        let (service, sockets) = match way {
            Way::Run => {
                (run(&format!("{DRAIN} {}", program.options)), line.repeat(SLOTS) + "ReusePort=yes\n")
            }
            Way::Overlap => (run("--stop-signal TERM"), line),
            Way::Restart => (format!("ExecStart={command}\n"), String::new()),
        };
        let service = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nWorkingDirectory=/srv\nStandardOutput=null\nStandardError=null\n\
             SyslogIdentifier=%N\nTimeoutStopSec=10s\n{service}"
        );
        machine.units(&[("app.service", &service)]);
        if !sockets.is_empty() {
            machine.unit("app.socket", &format!("[Socket]\n{sockets}TriggerLimitIntervalSec=0\n"));
            machine.succeed(&["systemctl", "start", "app.socket"]);
        }
        machine.succeed(&["systemctl", "start", "app.service"]);
        Self { machine, program, way }
    }

    /// Which version of the program it is.
    pub(crate) fn version(&self) -> String {
        self.machine.succeed(&["sh", "-c", self.program.version]).trim().to_owned()
    }

    /// Upgrades it, and returns when whoever waits for the command knows that it is done.
    pub(crate) fn upgrade(&self) {
        let verb = if self.way == Way::Restart { "restart" } else { "reload" };
        let done = self.machine.run(&["timeout", "60", "systemctl", verb, "app.service"]);
        assert_eq!(done.status, 0, "{done:?}\n{}", self.machine.journal(&["-u", "app", "-n", "30"]));
    }

    /// Starts those who ask it; it must serve.
    pub(crate) fn guests(&self) -> Guests<Load> {
        let guest = |keeps, pause| {
            Client::Guest(Guest { talk: self.program.talk, keeps, pause: Duration::from_millis(pause) })
        };
        let load = |clients: &[Client]| Load::start(&self.machine, ADDRESS, clients);
        Guests {
            new: load(&[guest(false, 4); 4]),
            thinking: load(&[80, 90, 100, 110, 120, 130].map(|pause| guest(true, pause))),
            busy: load(&[guest(true, 2); 2]),
        }
    }
}

/// The program, as cargo builds it beside the folder of examples.
fn handover() -> PathBuf {
    let examples = executable().parent().expect("a folder").to_owned();
    examples.with_file_name("handover")
}

impl Guests<Load> {
    /// Lets each of them finish one more request.
    pub(crate) fn pass_each(&self) {
        self.new.pass_each(1);
        self.thinking.pass_each(1);
        self.busy.pass_each(1);
    }

    /// What they have seen.
    pub(crate) fn stop(self) -> Guests<Tally> {
        Guests { new: self.new.stop(), thinking: self.thinking.stop(), busy: self.busy.stop() }
    }
}
