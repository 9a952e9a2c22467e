//! Sessions that outlive the process: the sample service `keeper`, on a machine of its own, as its units
//! install it. The scenarios are in the folder of the same name.

mod damage;
mod growth;
mod keeping;
mod leaving;
mod many;
mod moving;
mod record;
mod soft_reboot;
mod storm;
mod talk;
mod versions;

use std::path::PathBuf;

use crate::lab::{Machine, Output, Systemd, executable};
use crate::process::Process;
use crate::sessions::{Address, Sessions};
use crate::web::FAIL_FILE;
use talk::Talk;

/// Where it listens.
pub(crate) const TCP: Address = Address::Tcp("127.0.0.1:7070");
const UNIX: &str = "/run/keeper.sock";

/// `systemctl reload keeper`, and no endless wait for it.
const RELOAD: [&str; 5] = ["timeout", "60", "systemctl", "reload", "keeper"];

const UNITS: [(&str, &str); 2] = [
    ("keeper.socket", include_str!("../units/keeper.socket")),
    ("keeper.service", include_str!("../units/keeper.service")),
];

/// The machine, with the service running.
struct Keeper {
    machine: Machine,
}

impl Keeper {
    /// Boots a machine, installs the units as they are but for a drop-in, and starts them.
    ///
    /// A killed service is back sooner than the units say, and fails as [`Keeper::fail`] says.
    fn boot(systemd: Systemd, drop_in: &str) -> Self {
        let handover = env!("CARGO_BIN_EXE_handover");
        // Copies: a soft-reboot unmounts what is bound.
        let machine = Machine::with(systemd)
            .copy(handover, "/usr/bin/handover")
            .copy(binary(), "/usr/bin/keeper")
            .boot();
        for (name, text) in UNITS {
            machine.push(&format!("/usr/lib/systemd/system/{name}"), text, 0o644);
        }
        let keeper = Self { machine };
        keeper.drop_in(drop_in);
        // Enabled, as it will be: 257 forgets a stopped unit that nobody wants, and its store with it.
        keeper.machine.succeed(&["systemctl", "enable", "-q", "--now", "keeper.socket", "keeper.service"]);
        keeper
    }

    /// Replaces the drop-in, and has PID 1 read it.
    fn drop_in(&self, text: &str) {
        let always = format!("[Service]\nRestartSec=10ms\nEnvironment=KEEPER_FAIL_FILE={FAIL_FILE}\n");
        self.machine.unit("keeper.service.d/test.conf", &(always + text));
    }

    /// Has every process of the service that starts from now on fail so, see the sample; empty: none.
    fn fail(&self, how: &str) {
        self.machine.push(FAIL_FILE, how, 0o644);
    }

    /// Sessions that are busy all the time.
    fn sessions(&self, tcp: usize, unix: usize) -> Sessions {
        let unix = std::iter::repeat_n(self.unix(), unix);
        Sessions::open(&self.machine, std::iter::repeat_n(TCP, tcp).chain(unix).collect())
    }

    /// The unix socket, as this process sees it.
    fn unix(&self) -> Address {
        Address::unix(&self.machine, UNIX)
    }

    /// A session over TCP that does what it is told to.
    fn talk(&self) -> Talk {
        self.machine.enter_network(|| Talk::open(&TCP)).unwrap()
    }

    /// The same over a unix socket.
    fn talk_unix(&self) -> Talk {
        Talk::open(&self.unix()).unwrap()
    }

    /// A reload that must succeed; the pid of the new main process.
    fn upgrade(&self) -> u32 {
        let done = self.machine.run(&RELOAD);
        assert_eq!(done.status, 0, "{done:?}\n{}", self.machine.journal(&["-u", "keeper", "-n", "30"]));
        self.main_pid()
    }

    /// A reload that must fail: the old process serves on.
    fn failed_upgrade(&self) -> Output {
        let main = self.main_pid();
        let done = self.machine.run(&RELOAD);
        assert_ne!(done.status, 0, "the reload must fail");
        assert_eq!(self.main_pid(), main, "the old process is the main process");
        done
    }

    /// A verb of systemctl(1) for the service that must succeed.
    fn systemctl(&self, verb: &str) {
        self.machine.succeed(&["timeout", "60", "systemctl", verb, "keeper.service"]);
    }

    /// Has PID 1 read its files again (`daemon-reload`), or be executed again with all it has.
    fn begin_anew(&self, verb: &str) {
        let begin = || self.machine.succeed(&["timeout", "60", "systemctl", verb]);
        if verb == "daemon-reexec" {
            differs_on_standin!("it is not executed again in place", begin());
        } else {
            begin();
        }
    }

    /// kill -9 for whichever is the main process.
    fn kill(&self) {
        self.machine.succeed(&["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "keeper.service"]);
    }

    /// The main process, as PID 1 knows it; 0 while there is none.
    fn main_pid(&self) -> u32 {
        self.machine.show("keeper", "MainPID").parse().unwrap()
    }

    /// The process with this pid.
    fn process(&self, pid: u32) -> Process {
        Process::find(&self.machine, "keeper.service", pid)
    }

    /// How many descriptors PID 1 holds for it.
    fn stored(&self) -> usize {
        self.machine.show("keeper", "NFileDescriptorStore").parse().unwrap()
    }

    /// What the service said, and what PID 1 said of it.
    fn journal(&self) -> String {
        self.machine.journal(&["-u", "keeper", "-o", "cat"])
    }

    /// Nobody panicked, and PID 1 has seen nothing that it complains of.
    fn assert_calm(&self) {
        let journal = self.journal();
        for trouble in ["panicked", "which is not our child", "timed out"] {
            assert!(!journal.contains(trouble), "{trouble}:\n{journal}");
        }
        // 252 does not tell how much it takes, and is asked with descriptors that may be lost.
        let tells = self.machine.systemd() != Systemd::V252;
        assert!(!(tells && journal.contains("Cannot store more fds")), "{journal}");
    }
}

/// The sample, as cargo built it beside the tests.
fn binary() -> PathBuf {
    executable().with_file_name("keeper")
}

on_every_systemd! {
    fn systemd_finds_nothing_to_complain_about(systemd) {
        let keeper = Keeper::boot(systemd, "");
        differs_on_standin!("there is no systemd-analyze");
        let paths = UNITS.map(|(name, _)| format!("/usr/lib/systemd/system/{name}"));
        let done = keeper.machine.run(&["systemd-analyze", "verify", &paths[0], &paths[1]]);
        assert_eq!((done.status, &*done.stdout), (0, ""));
        if systemd == Systemd::V252 {
            // It is for newer ones, and ignored here.
            assert_eq!(done.stderr.lines().count(), 1);
            assert!(done.stderr.contains("'FileDescriptorStorePreserve'"), "{}", done.stderr);
        } else {
            assert_eq!(done.stderr, "");
        }
    }
}
