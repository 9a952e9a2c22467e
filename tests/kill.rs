//! kill -9, of everybody at every moment: nobody is refused, and PID 1 sees at once what it must mend.
//!
//! What a killed process had accepted is cut, and no more; what it had not waits for the next one.

use std::process::Child;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::gate::soon;
use crate::lab::Systemd;
use crate::load::{Load, Sight};
use crate::web::{FAIL_BY_FILE, Web};

/// RestartSec= of the unit, and a second.
const RESTARTED: Duration = Duration::from_millis(1100);

/// How a successor hangs: before it reaches handover, and after.
const HANGS: [&str; 2] = ["init-hang", "never-ready"];

on_every_systemd! {
    fn a_killed_helper_fails_the_reload_and_the_old_process_serves_on(systemd) {
        let (web, load) = start(systemd);
        for how in HANGS {
            let (main, mark) = (web.main_pid(), web.mark());
            let (reload, successor) = Reload::that_hangs(&web, how);
            kill(&web, web.machine.show("web", "ControlPID").parse().unwrap());
            reload.assert_fails();
            web.await_journal(&mark, &["-o", "cat", "HANDOVER_REASON=helper-lost"], "upgrade failed");
            assert_failure(&web, "helper-lost", main);
            assert!(!lives(&web, successor));
            upgrade(&web, &load);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_successor_killed_before_it_is_ready_fails_the_reload_and_the_old_process_serves_on(systemd) {
        let (web, load) = start(systemd);
        for how in HANGS {
            let main = web.main_pid();
            let (reload, successor) = Reload::that_hangs(&web, how);
            kill(&web, successor);
            reload.assert_fails();
            assert_failure(&web, "successor-exited", main);
            assert_eq!(web.helper_status(), "22");
            upgrade(&web, &load);
        }
        load.stop().assert_nothing_lost();
    }

    fn an_old_process_killed_before_the_commit_takes_its_successor_along(systemd) {
        let (web, load) = start(systemd);
        for how in HANGS {
            let (reload, successor) = Reload::that_hangs(&web, how);
            let killed = Killed::main(&web);
            reload.assert_fails();
            killed.assert_replaced(&web, &load);
            assert!(!lives(&web, successor));
            upgrade(&web, &load);
        }
        let told = web.machine.journal(&["-o", "cat", "HANDOVER_REASON=predecessor-lost"]);
        assert_eq!(told.lines().count(), HANGS.len(), "{told}");
        let clients = load.len();
        load.stop().assert_only_cut(HANGS.len() * clients);
    }

    fn an_old_process_killed_when_its_successor_is_ready_is_replaced_by_pid_1(systemd) {
        let (web, load) = start(systemd);
        let (old, mark) = (web.main_pid().to_string(), web.mark());
        web.machine.succeed(&["sh", "-c", "mkfifo /run/gate && cp /usr/bin/web /usr/bin/web.good"]);
        web.machine.push("/usr/bin/web", "#!/bin/sh\nread go < /run/gate\nexec /usr/bin/web.good\n", 0o755);
        let reload = Reload::begin(&web);
        let said = web.await_journal(&mark, &["-o", "cat", "HANDOVER_PHASE=started"], "successor");
        let successor = said.split(' ').nth(3).unwrap();
        // Whoever opens a FIFO waits for the other end. The old process will not hear that all is ready.
        let go = ["timeout", "20", "sh", "-c", "exec 3> /run/gate; kill -STOP $0; echo go >&3", &old];
        web.machine.succeed(&go);
        web.machine.succeed(&["cp", "-f", "--remove-destination", "/usr/bin/web.good", "/usr/bin/web"]);
        // A process that is ready has a control socket, of whose birth the kernel tells nobody.
        let ready = "until grep -q @handover/$0/ /proc/net/unix; do :; done";
        web.machine.succeed(&["timeout", "20", "sh", "-c", ready, successor]);
        let killed = Killed::main(&web);
        reload.assert_fails();
        killed.assert_replaced(&web, &load);
        upgrade(&web, &load);
        let clients = load.len();
        // By the old process, and by the successor on its way out.
        load.stop().assert_only_cut(2 * clients);
    }

    fn an_old_process_killed_after_the_commit_takes_only_its_own_requests_along(systemd) {
        let (web, load) = start(systemd);
        let old = web.main();
        let mut slow = web.connect_to(&old);
        slow.send("/slow?ms=20000", false).unwrap();
        web.upgrade();
        kill(&web, old.pid);
        slow.answer().unwrap_err();
        load.pass_each(2);
        let clients = load.len();
        load.stop().assert_only_cut(clients);

        let load = web.load();
        let old = web.main();
        let mut slow = web.connect_to(&old);
        slow.send("/slow?ms=20000", false).unwrap();
        let new = web.upgrade();
        // By then every client has left the old one.
        load.pass_each(2);
        kill(&web, old.pid);
        slow.answer().unwrap_err();
        assert_eq!(web.main_pid(), new);
        upgrade(&web, &load);
        load.stop().assert_nothing_lost();
    }

    fn a_new_main_process_killed_while_the_old_one_drains_is_restarted_at_once(systemd) {
        let (web, load) = start(systemd);
        let old = web.main();
        let [mut slow, mut stream] = [(); 2].map(|()| web.connect_to(&old));
        slow.send("/slow?ms=20000", false).unwrap();
        stream.send("/stream?ms=20000", false).unwrap();
        stream.head().unwrap();
        web.upgrade();
        Killed::main(&web).assert_replaced(&web, &load);
        slow.answer().unwrap_err();
        let loss = std::iter::repeat_with(|| stream.chunk()).find_map(Result::err).unwrap();
        assert_eq!(loss.sight, Sight::Cut);
        upgrade(&web, &load);
        let clients = load.len();
        load.stop().assert_only_cut(clients);
    }

    fn a_killed_service_is_restarted_and_its_clients_wait(systemd) {
        const TIMES: usize = 5;
        let (web, load) = start(systemd);
        for _ in 0..TIMES {
            Killed::main(&web).assert_replaced(&web, &load);
        }
        upgrade(&web, &load);
        let clients = load.len();
        load.stop().assert_only_cut(TIMES * clients);
    }
}

/// The service under load.
fn start(systemd: Systemd) -> (Web, Load) {
    let web = Web::boot_with(systemd, FAIL_BY_FILE);
    let load = web.load();
    (web, load)
}

/// A reload that is under way.
struct Reload(Child);

impl Reload {
    fn begin(web: &Web) -> Self {
        Self(web.machine.spawn(&["timeout", "20", "systemctl", "reload", "web"]))
    }

    /// One whose successor hangs, and that successor. Whoever starts after this does not.
    fn that_hangs(web: &Web, how: &str) -> (Self, u32) {
        let mark = web.mark();
        web.fail(how);
        let reload = Self::begin(web);
        let said = web.await_journal(&mark, &["-u", "web", "-o", "cat"], "hangs as told");
        web.fail("");
        (reload, said.split(' ').next().unwrap().parse().unwrap())
    }

    fn assert_fails(mut self) {
        assert_eq!(self.0.wait().unwrap().code(), Some(1));
    }
}

fn lives(web: &Web, pid: u32) -> bool {
    web.machine.run(&["kill", "-0", &pid.to_string()]).status == 0
}

fn kill(web: &Web, pid: u32) {
    web.machine.succeed(&["kill", "-9", &pid.to_string()]);
}

/// A main process that was killed. A reload that was under way must have ended before it is replaced.
struct Killed {
    pid: u32,
    at: Duration,
}

impl Killed {
    fn main(web: &Web) -> Self {
        let pid = web.main_pid();
        kill(web, pid);
        Self { pid, at: clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into() }
    }

    /// PID 1 restarts the service in time, and every client is served.
    fn assert_replaced(self, web: &Web, load: &Load) {
        load.pass_each(2);
        // By a successor perhaps, and PID 1 would still call the service started.
        soon("PID 1 misses it", || web.main_pid() != self.pid);
        // It may not have noticed either that the next one serves. Never do this beside a reload: PID 1
        // makes one job of both, which does not fail.
        web.machine.succeed(&["systemctl", "start", "web"]);
        assert!(![0, self.pid].contains(&web.main_pid()));
        let started = web.machine.show("web", "ExecMainStartTimestampMonotonic").parse().unwrap();
        let took = Duration::from_micros(started).saturating_sub(self.at);
        assert!(took <= RESTARTED, "restarted after {took:?}");
    }
}

/// The old process serves on, and the unit says why.
fn assert_failure(web: &Web, reason: &str, main: u32) {
    let status = web.status();
    assert!(status.starts_with(&format!("upgrade failed: {reason}: ")), "{status}");
    assert_eq!(web.main_pid(), main);
}

/// An upgrade works, after all that was.
fn upgrade(web: &Web, load: &Load) {
    let new = web.upgrade();
    load.pass_each(2);
    assert_eq!(web.get("/").pid(), Some(new));
    assert!(!web.journal_has("which is not our child"));
}
