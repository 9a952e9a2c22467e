//! A machine with the sample service `web` in it, as its units install it.

use std::path::PathBuf;

use crate::lab::{Machine, Output, Systemd};
use crate::load::{Answer, BREATH, Client, Connection, Load};
use crate::process::Process;

/// Where the service listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// Two clients of each kind: enough to meet every moment of an upgrade on two cores.
const CLIENTS: [Client; 4] =
    [Client::Calling(BREATH), Client::Thinking(BREATH), Client::Calling(BREATH), Client::Thinking(BREATH)];

/// A setting of the service, with which [`Web::fail`] works.
pub(crate) const FAIL_BY_FILE: &str = "[Service]\nEnvironment=WEB_FAIL_FILE=/run/web-fail\n";

/// Where that setting has the sample look.
pub(crate) const FAIL_FILE: &str = "/run/web-fail";

/// `systemctl reload web`, and no endless wait for it.
pub(crate) const RELOAD: [&str; 5] = ["timeout", "60", "systemctl", "reload", "web"];

const SOCKET: &str = include_str!("../units/web.socket");
const SERVICE: &str = include_str!("../units/web.service");

/// The machine, with the service running.
pub(crate) struct Web {
    pub(crate) machine: Machine,
}

impl Web {
    /// Boots a machine, installs the units as they are, and starts them.
    pub(crate) fn boot(systemd: Systemd) -> Self {
        Self::boot_with(systemd, "")
    }

    /// As [`Web::boot`], with a drop-in for the service.
    pub(crate) fn boot_with(systemd: Systemd, drop_in: &str) -> Self {
        Self::install(systemd, binary(), drop_in)
    }

    /// As [`Web::boot`], with another sample in place of `web`.
    pub(crate) fn boot_program(systemd: Systemd, sample: &str) -> Self {
        Self::install(systemd, binary().with_file_name(sample), "")
    }

    fn install(systemd: Systemd, program: PathBuf, drop_in: &str) -> Self {
        let handover = env!("CARGO_BIN_EXE_handover");
        let machine =
            Machine::with(systemd).bind(handover, "/usr/bin/handover").copy(program, "/usr/bin/web").boot();
        let drop_in_name = "web.service.d/test.conf";
        machine.units(&[("web.socket", SOCKET), ("web.service", SERVICE), (drop_in_name, drop_in)]);
        machine.succeed(&["systemctl", "start", "web.socket", "web.service"]);
        Self { machine }
    }

    /// Replaces the drop-in, and has PID 1 read it.
    pub(crate) fn drop_in(&self, text: &str) {
        self.machine.unit("web.service.d/test.conf", text);
    }

    /// Has every process of the service that starts from now on fail so, see the sample; empty: none.
    /// Only if it was told to look: see [`FAIL_BY_FILE`].
    pub(crate) fn fail(&self, how: &str) {
        self.machine.push(FAIL_FILE, how, 0o644);
    }

    /// Starts clients of both kinds.
    pub(crate) fn load(&self) -> Load {
        Load::start(&self.machine, ADDRESS, &CLIENTS)
    }

    /// `systemctl reload web`.
    pub(crate) fn reload(&self) -> Output {
        self.machine.run(&RELOAD)
    }

    /// A reload that must succeed; the pid of the new main process.
    pub(crate) fn upgrade(&self) -> u32 {
        let done = self.reload();
        assert_eq!(done.status, 0, "{done:?}\n{}", self.machine.journal(&["-u", "web", "-n", "30"]));
        self.main_pid()
    }

    /// A reload that must fail; what `systemctl status` says of the helper and the service.
    pub(crate) fn failed_upgrade(&self) -> String {
        let main = self.main_pid();
        assert_ne!(self.reload().status, 0, "the reload must fail");
        assert_eq!(self.main_pid(), main, "the old process is the main process");
        self.machine.show("web", "StatusText")
    }

    /// The exit status of the last `handover reload`.
    pub(crate) fn helper_status(&self) -> String {
        let text = self.machine.show("web", "ExecReload");
        let status = text.split("status=").nth(1).unwrap_or_default();
        status.chars().take_while(char::is_ascii_digit).collect()
    }

    /// The main process, as PID 1 knows it.
    pub(crate) fn main_pid(&self) -> u32 {
        self.machine.show("web", "MainPID").parse().unwrap()
    }

    /// The main process itself.
    pub(crate) fn main(&self) -> Process {
        Process::find(&self.machine, "web.service", self.main_pid())
    }

    /// STATUS=, as the service said it last.
    pub(crate) fn status(&self) -> String {
        self.machine.show("web", "StatusText")
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.machine.enter_network(|| Connection::open(ADDRESS)?.get(path, true)).unwrap()
    }

    /// A connection that stays.
    pub(crate) fn connect(&self) -> Connection {
        self.machine.enter_network(|| Connection::open(ADDRESS)).unwrap()
    }

    /// A connection that `process` has, for it has answered on it.
    pub(crate) fn connect_to(&self, process: &Process) -> Connection {
        let mut connection = self.connect();
        assert_eq!(connection.get("/", false).unwrap().pid(), Some(process.pid));
        connection
    }

    /// As [`Machine::mark`].
    pub(crate) fn mark(&self) -> String {
        self.machine.mark()
    }

    /// As [`Machine::await_journal`].
    pub(crate) fn await_journal(&self, mark: &str, arguments: &[&str], text: &str) -> String {
        self.machine.await_journal(mark, arguments, text)
    }

    /// Whether the journal of the unit has `text`.
    pub(crate) fn journal_has(&self, text: &str) -> bool {
        self.machine.journal(&["-u", "web", "-o", "cat"]).contains(text)
    }
}

/// The sample, as cargo built it beside the tests.
pub(crate) fn binary() -> PathBuf {
    crate::lab::executable().with_file_name("web")
}
