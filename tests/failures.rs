//! New programs that cannot take over: each fails for its own reason, the old one serves on, and the
//! next good one takes over as if nothing had been.

use crate::lab::Machine;
use crate::load::Load;
use crate::web::{FAIL_BY_FILE, Web};

const PROGRAM: &str = "/usr/bin/web";
const GOOD: &str = "/usr/bin/web.good";

/// What every failed upgrade has in the journal.
const FAILED: &str = "MESSAGE_ID=82c65ce953544f1383fc94934132cce0";

/// Spoils the program.
type Breakage = fn(&Machine);

/// How a reload fails, and what is said of it.
struct Failure {
    reason: &'static str,
    /// Part of the words for people.
    says: &'static str,
    errno: i32,
    exit: u8,
}

/// It could not even begin.
const MISSING: Failure =
    Failure { reason: "exec-failed", says: "No such file or directory", errno: libc::ENOENT, exit: 21 };
const NOT_EXECUTABLE: Failure =
    Failure { reason: "exec-failed", says: "Permission denied", errno: libc::EACCES, exit: 21 };
const WRONG_FORMAT: Failure =
    Failure { reason: "exec-failed", says: "Exec format error", errno: libc::ENOEXEC, exit: 21 };
/// It began.
const EXITED: Failure =
    Failure { reason: "successor-exited", says: "ended before it was ready", errno: libc::ECHILD, exit: 22 };
const SAYS_WHY: Failure =
    Failure { reason: "init-failed", says: "the sample was told to fail", errno: libc::ECANCELED, exit: 23 };
const WRONG_SOCKET: Failure = Failure {
    reason: "init-failed",
    says: "nothing named \"admin\" was passed (LISTEN_PID names this process); what is there: \
           \"web\" (listening TCP socket on [::]:8080)",
    errno: libc::ECANCELED,
    exit: 23,
};
const MUTE: Failure =
    Failure { reason: "no-hello", says: "did not reach handover within 2 s", errno: libc::ETIME, exit: 24 };
const NEVER_READY: Failure =
    Failure { reason: "never-ready", says: "was not ready within 2 s", errno: libc::ETIMEDOUT, exit: 25 };

on_every_systemd! {
    fn a_program_that_cannot_be_executed_is_told_by_what_the_kernel_says(systemd) {
        let (web, load) = start(Web::boot(systemd));
        let breakages: [(Breakage, Failure); 3] =
            [(remove, MISSING), (forbid, NOT_EXECUTABLE), (garble, WRONG_FORMAT)];
        for (break_program, failure) in breakages {
            break_program(&web.machine);
            expect(&web, &failure);
            mend(&web.machine);
            recover(&web, &load);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_program_that_gives_up_is_told_by_its_own_words_if_it_has_any(systemd) {
        let (web, load) = start(Web::boot_with(systemd, FAIL_BY_FILE));
        for (how, failure) in [("init-exit", EXITED), ("init-error", SAYS_WHY)] {
            web.fail(how);
            expect(&web, &failure);
            web.fail("");
            recover(&web, &load);
        }
        web.drop_in("[Service]\nEnvironment=WEB_SOCKET=admin\n");
        expect(&web, &WRONG_SOCKET);
        web.drop_in("");
        recover(&web, &load);
        load.stop().assert_nothing_lost();
    }

    fn a_program_that_hangs_is_given_its_time(systemd) {
        let deadline = format!("{FAIL_BY_FILE}Environment=WEB_INIT_MS=2000\n");
        let (web, load) = start(Web::boot_with(systemd, &deadline));
        for (how, failure) in [("init-hang", MUTE), ("never-ready", NEVER_READY)] {
            web.fail(how);
            expect(&web, &failure);
            web.fail("");
            recover(&web, &load);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_hundred_failures_leave_nothing_behind(systemd) {
        let (web, load) = start(Web::boot_with(systemd, FAIL_BY_FILE));
        let (old, mark) = (web.main(), web.mark());
        let before = Possessions::of(&web.machine, old.pid);
        for break_program in [remove, forbid, garble] {
            break_program(&web.machine);
            fail_often(&web, 20);
            mend(&web.machine);
        }
        for how in ["init-exit", "init-error"] {
            web.fail(how);
            fail_often(&web, 20);
        }
        web.fail("");
        let after = Possessions::of(&web.machine, old.pid);
        assert!(after.descriptors <= before.descriptors + load.len(), "{before:?}, then {after:?}");
        // tokio keeps the threads that wrote to the journal for a while.
        assert!(after.threads < before.threads + 20, "{before:?}, then {after:?}");
        // PID 1 answers once it has reaped.
        assert_eq!(web.main_pid(), old.pid);
        let all = web.machine.run(&["sh", "-c", "cat /proc/[0-9]*/stat"]).stdout;
        for zombie in ["(web) Z ", "(handover) Z "] {
            assert!(!all.contains(zombie), "{all}");
        }
        recover(&web, &load);
        // Not before everything is in the journal.
        old.leaves();
        assert_eq!(entries(&web, &mark, &[FAILED]), 100, "one entry each");
        load.stop().assert_nothing_lost();
    }
}

/// The service under load, and its good program put aside.
fn start(web: Web) -> (Web, Load) {
    web.machine.succeed(&["cp", PROGRAM, GOOD]);
    let load = web.load();
    (web, load)
}

fn remove(machine: &Machine) {
    machine.succeed(&["rm", PROGRAM]);
}

fn forbid(machine: &Machine) {
    machine.push(PROGRAM, "#!/bin/true\n", 0o644);
}

fn garble(machine: &Machine) {
    machine.push(PROGRAM, "no program\n", 0o755);
}

fn mend(machine: &Machine) {
    machine.succeed(&["cp", "-f", "--remove-destination", GOOD, PROGRAM]);
}

/// A reload fails, and everybody who can ask is told why, once.
fn expect(web: &Web, failure: &Failure) {
    let Failure { reason, says, errno, exit } = failure;
    let mark = web.mark();
    let status = web.failed_upgrade();
    assert!(status.starts_with(&format!("upgrade failed: {reason}: ")), "{status}");
    assert!(status.contains(says), "{status}");
    assert_eq!(web.machine.show("web", "StatusErrno"), errno.to_string());
    assert_eq!(web.helper_status(), exit.to_string());
    let (reason, errno) = (format!("HANDOVER_REASON={reason}"), format!("ERRNO={errno}"));
    web.await_journal(&mark, &["-o", "cat", &reason], says);
    assert_eq!(entries(web, &mark, &[FAILED, &reason, &errno]), 1, "one entry says it all");
    assert_eq!(entries(web, &mark, &["HANDOVER_PHASE=failed"]), 1, "and no other one");
}

/// A good program takes over, and no word of the failure is left.
fn recover(web: &Web, load: &Load) {
    let new = web.upgrade();
    load.pass_each(2);
    assert_eq!(web.get("/").pid(), Some(new));
    let status = web.status();
    assert!(status.starts_with("serving"), "{status}");
    assert_eq!(web.machine.show("web", "StatusErrno"), "0");
    assert!(!web.journal_has("which is not our child"));
}

/// So many reloads that all fail.
fn fail_often(web: &Web, times: usize) {
    let script = format!("for i in $(seq {times}); do systemctl reload web && exit 1; done; exit 0");
    web.machine.succeed(&["sh", "-c", &script]);
}

/// How many entries with these fields the journal has after `mark`.
fn entries(web: &Web, mark: &str, fields: &[&str]) -> usize {
    web.machine.journal(&[&["-q", "-o", "cat", mark], fields].concat()).lines().count()
}

/// What could grow.
#[derive(Debug)]
struct Possessions {
    descriptors: usize,
    threads: usize,
}

impl Possessions {
    fn of(machine: &Machine, pid: u32) -> Self {
        let count = |what| machine.succeed(&["ls", &format!("/proc/{pid}/{what}")]).lines().count();
        Self { descriptors: count("fd"), threads: count("task") }
    }
}
