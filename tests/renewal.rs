//! `handover run` that executes itself anew while its program serves, and what a new generation runs with.

use nix::libc;
use rustix::process::Signal;

use crate::lab::{Output, Systemd};
use crate::load::Connection;
use crate::run::{ADDRESS, App, CLIENTS, STRANGER, THREE};
use crate::slots::{hold, let_go};

/// Where the runner's own program is, so that it can be replaced.
const OWN: &str = "/run/own/handover";

/// Binds again at each SIGUSR1, and says how often.
const BINDER: &str = "\
import os, signal, socket
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])
times = []
def bind(*_):
    times.append(socket.socket())
    times[-1].bind(('0.0.0.0', 8080))
    manager.sendall(b'STATUS=bound %d times' % (len(times) - 1))
signal.signal(signal.SIGUSR1, bind)
bind()
times[0].listen()
while True:
    times[0].accept()
";

/// What is there when the new runner has taken over.
const RENEWED: &str = "the programs have not noticed";

impl App {
    /// A service whose runner can be replaced.
    fn renewable(systemd: Systemd, sockets: &str, more: &str) -> Self {
        let exec = format!("ExecStart=\nExecStart={OWN} run -- {STRANGER}\n{more}");
        let app = Self::prepare(systemd, sockets, "", STRANGER, &exec);
        app.replace_runner("cp /usr/bin/handover");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        app
    }

    /// Puts another file there, which `make`, given its name, makes.
    fn replace_runner(&self, make: &str) {
        let script =
            format!("mkdir -p /run/own && {make} {OWN}.new && chmod 755 {OWN}.new && mv {OWN}.new {OWN}");
        self.machine.succeed(&["sh", "-c", &script]);
    }

    fn main(&self) -> u32 {
        self.machine.show("app", "MainPID").parse().unwrap()
    }

    /// `handover reload --runner`, as an administrator may call it.
    fn renew(&self) -> Output {
        let main = format!("MAINPID={}", self.main());
        self.machine.run(&["timeout", "60", "env", &main, "handover", "reload", "--runner"])
    }
}

/// Has a program test itself with a state, and prints what it says.
const TESTER: &str = "\
use Socket; use POSIX ();
my ($handover, $state) = @ARGV;
my $name = 'state';
my $memory = syscall(MEMFD, $name, 0);
syscall(WRITE, $memory, $state, length $state) == length $state or die;
socketpair(my $ours, my $theirs, AF_UNIX, SOCK_SEQPACKET, 0) or die;
if (!fork) {
    POSIX::dup2($memory, 20); POSIX::dup2(fileno $theirs, 21);
    @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDS_FIRST_FD)} = ($$, 2, 20);
    $ENV{LISTEN_FDNAMES} = 'handover.state:handover.verdict';
    exec $handover, qw(run --self-test -- x);
}
close $theirs;
recv $ours, my $said, 4096, 0;
print $said;
";

#[test]
fn a_self_test_says_what_is_wrong_with_the_state() {
    let calls = [("MEMFD", libc::SYS_memfd_create), ("WRITE", libc::SYS_write)];
    let tester =
        calls.iter().fold(TESTER.to_owned(), |text, (name, call)| text.replace(name, &call.to_string()));
    let said = |state: &str| {
        let arguments = ["-e", &tester, env!("CARGO_BIN_EXE_handover"), state];
        let done = std::process::Command::new("perl").args(arguments).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let good = r#"{"version":1,"generations":[],"told_live":null,"live_name":null,"last_failure":null,"settings":null,
        "next":"Nothing","machine":{"generations":[],"last":1,"home":0,"restart":null,"crashes":0,"served":true}}"#;
    assert_eq!(said(good), "well");
    assert!(said(&good.replace(":1,", ":2,")).contains("is of version 2, and this one reads 1 at most"));
    assert!(said("nonsense").contains("makes no sense"));
}

/// No privileges, and no more system calls than are needed.
fn sandbox() -> String {
    format!(
        "DynamicUser=yes\nNoNewPrivileges=yes\nProtectSystem=strict\nPrivateTmp=yes\nCapabilityBoundingSet=\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nProtectProc=invisible\nProcSubset=pid\n\
         SystemCallFilter=@system-service {}\nEnvironment=WORD=old\nLimitNOFILE=1000:5000\n",
        handover::run::NEEDED_CALLS.join(" ")
    )
}

on_every_systemd! {
    fn a_sandbox_without_privileges_is_no_obstacle(systemd) {
        differs_on_standin!("it has no sandbox, and does not start what must have one");
        let app = App::renewable(systemd, THREE, &sandbox());
        let (main, load) = (app.main(), app.load());
        app.machine.unit("app.service.d/today.conf", "[Service]\nEnvironment=WORD=new\nLimitNOFILE=900:4000\n");
        for _ in 0..2 {
            app.replace_runner("cp /usr/bin/handover");
            let mark = app.machine.mark();
            let new = app.process(app.upgrade());
            app.machine.await_journal(&mark, &["-u", "app"], RENEWED);
            assert_eq!((app.main(), new.environment()["WORD"].as_str()), (main, "new"));
            assert_eq!(new.limits("Max open files"), ["900", "4000"]);
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
        assert!(!app.journal_has("no cgroup of their own"), "a delegated cgroup is the user's own");
        assert!(!app.journal_has("cannot be read from who asks"));
    }

    fn a_runner_whose_file_has_changed_is_renewed_by_the_next_reload_and_nobody_notices(systemd) {
        let app = App::renewable(systemd, THREE, "");
        let (main, load) = (app.main(), app.load());
        for _ in 0..3 {
            let old = app.live();
            app.replace_runner("cp /usr/bin/handover");
            assert!(app.process(main).program().ends_with("(deleted)"));
            let mark = app.machine.mark();
            assert_ne!(app.upgrade(), old);
            app.machine.await_journal(&mark, &["-u", "app"], RENEWED);
            assert_eq!((app.main(), app.process(main).program()), (main, OWN.into()));
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
        app.machine.succeed(&["systemctl", "stop", "app.service"]);
    }

    fn a_runner_is_renewed_alone_and_goes_on_with_all_that_was_under_way(systemd) {
        let app = App::renewable(systemd, THREE, "");
        let (main, load) = (app.main(), app.load());
        let descriptors = || app.process(main).descriptors();
        let mut before = None;
        for _ in 0..3 {
            // One generation drains meanwhile.
            let (mark, live) = (app.machine.mark(), app.upgrade());
            let done = app.renew();
            assert_eq!((done.status, &*done.stdout), (0, &*format!("{main} serves now\n")), "{done:?}");
            assert_eq!((app.main(), app.live()), (main, live));
            app.machine.await_journal(&mark, &["-u", "app"], "has left");
            load.pass_each(3);
            // An empty slot is looked after a moment later, by copies of its socket and of an epoll's.
            let before = *before.get_or_insert_with(descriptors);
            crate::gate::soon("none is left over", || descriptors() <= before + 2);
        }
        load.stop().assert_nothing_lost();
        // A child of the runner before, whose end is seen as any other.
        let (load, mark) = (app.load(), app.machine.mark());
        app.process(app.live()).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "was killed by SIGKILL; it is started again");
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        load.pass_each(3);
        app.upgrade();
        load.stop().assert_only_cut(CLIENTS.len());
    }

    fn a_program_asks_the_next_runner_and_speaks_to_it_as_to_the_last(systemd) {
        let exec = "ExecStart=\nExecStart=/usr/bin/handover run -- /usr/bin/python3 /run/binder.py\n";
        let app = App::prepare(systemd, THREE, "", STRANGER, exec);
        app.machine.push("/run/binder.py", BINDER, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        for time in 1..4 {
            assert_eq!(app.renew().status, 0);
            app.process(app.live()).signal(Signal::USR1);
            let said = format!("bound {time} times");
            crate::gate::soon("it is heard", || app.machine.show("app", "StatusText").contains(&said));
            assert!(!app.journal_has("could not be answered"));
        }
    }

    fn a_runner_that_passes_connections_on_is_not_renewed_before_they_have_ended(systemd) {
        let app = App::prepare(systemd, THREE, "", STRANGER, "");
        hold(&app);
        let mark = app.machine.mark();
        let clients: Vec<_> =
            (0..12).map(|_| app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap()).collect();
        let_go(&app);
        app.machine.await_journal(&mark, &["-u", "app"], "are passed on");
        let done = app.renew();
        assert!(done.status == 11 && done.stderr.contains("connections go through this process"), "{done:?}");
        for mut client in clients {
            assert_eq!(client.get("/", true).unwrap().body, "hello\n");
        }
        crate::gate::soon("the relays end", || app.renew().status == 0);
    }

    fn slots_without_a_socket_unit_go_along(systemd) {
        let app = App::renewable(systemd, "", "");
        let load = app.load();
        for _ in 0..2 {
            let done = app.renew();
            assert_eq!(done.status, 0, "{done:?}");
            app.upgrade();
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
        assert_eq!(app.machine.show("app", "NRestarts"), "0");
    }

    fn a_new_runner_that_is_no_good_changes_nothing_and_is_told_of(systemd) {
        let app = App::renewable(systemd, THREE, "");
        let (main, load) = (app.main(), app.load());
        let runners = [
            ("cp /bin/true", "23", "said nothing in its self-test"),
            ("echo no program >", "21", "self-test"),
            // What speaks, and is another program.
            ("printf '#!/bin/sh\\necho hm >&2; exit 2\\n' >", "23", "said nothing in its self-test"),
        ];
        for (make, status, words) in runners {
            app.replace_runner(make);
            let done = app.renew();
            assert_eq!(done.status.to_string(), status, "{make}: {done:?}");
            assert!(done.stderr.contains(words), "{make}: {done:?}");
            let (old, mark) = (app.live(), app.machine.mark());
            assert_ne!(app.upgrade(), old, "the program is upgraded by the old runner");
            app.machine.await_journal(&mark, &["-u", "app"], words);
            assert_eq!(app.main(), main);
            load.pass_each(2);
        }
        app.replace_runner("cp /usr/bin/handover");
        assert_eq!(app.renew().status, 0);
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn a_new_generation_runs_with_the_units_settings_of_today(systemd) {
        let app = App::renewable(systemd, THREE, "Environment=WORD=old LEFT=x\nLimitNOFILE=1000:5000\nUMask=022\n");
        let load = app.load();
        let word = |pid| app.process(pid).environment().get("WORD").cloned();
        assert_eq!(word(app.live()).as_deref(), Some("old"));
        let settings = "[Service]\nEnvironment=\nEnvironment=WORD=new\nLimitNOFILE=900:4000\nUMask=027\nNice=5\n";
        app.machine.unit("app.service.d/today.conf", settings);
        let new = app.upgrade();
        let has_them = |pid| {
            let process = app.process(pid);
            assert_eq!(word(pid).as_deref(), Some("new"));
            assert!(!["LEFT", "MAINPID"].iter().any(|name| process.environment().contains_key(*name)));
            assert_eq!(process.limits("Max open files"), ["900", "4000"]);
            let proc = app.machine.succeed(&["sh", "-c", &format!("grep Umask /proc/{pid}/status; ps -o ni= {pid}")]);
            assert_eq!(proc.split_whitespace().collect::<Vec<_>>(), ["Umask:", "0027", "5"]);
        };
        has_them(new);
        assert_eq!(app.renew().status, 0);
        let mark = app.machine.mark();
        app.process(new).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        has_them(app.live());
        load.pass_each(2);
        load.stop().assert_only_cut(CLIENTS.len());
    }

    fn who_is_no_process_of_the_unit_has_no_say_in_its_settings(systemd) {
        let app = App::renewable(systemd, THREE, "Environment=WORD=old\n");
        let mark = app.machine.mark();
        let main = format!("MAINPID={}", app.main());
        let done = app.machine.run(&["timeout", "60", "env", &main, "WORD=stranger", "handover", "reload"]);
        assert_eq!(done.status, 0, "{done:?}");
        assert_eq!(app.process(app.live()).environment()["WORD"], "old");
        app.machine.await_journal(&mark, &["-u", "app"], "is no process of this unit");
    }

    fn notify_reload_is_one_upgrade_with_a_helper_and_without(systemd) {
        if systemd == Systemd::V252 {
            // Type=notify-reload came with 253.
            return;
        }
        for helper in ["ExecReload=\n", ""] {
            let app = App::renewable(systemd, THREE, &format!("Type=notify-reload\n{helper}"));
            let load = app.load();
            for generation in 2..5 {
                app.replace_runner("cp /usr/bin/handover");
                app.upgrade();
                let status = app.machine.show("app", "StatusText");
                let one = format!("generation {generation} ");
                // Up to 258 the signal comes first, and what it began makes way.
                assert!(status.contains(&one) || (helper.is_empty() && systemd == Systemd::V257), "{status}");
                load.pass_each(3);
            }
            load.stop().assert_nothing_lost();
            assert_eq!(app.machine.show("app", "ActiveState"), "active");
        }
    }

    fn notify_reload_ends_when_the_new_version_is_no_good(systemd) {
        if systemd == Systemd::V252 {
            // Type=notify-reload came with 253.
            return;
        }
        let app = App::prepare(systemd, THREE, "", crate::run::SCRIPT, "Type=notify-reload\nExecReload=\n");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let (live, load) = (app.live(), app.load());
        app.machine.push(crate::run::SCRIPT, "#!/bin/sh\nexit 3\n", 0o755);
        assert_eq!(app.reload().status, 0, "this type of unit cannot fail to reload");
        assert_eq!(app.live(), live);
        assert!(app.machine.show("app", "StatusText").starts_with("upgrade failed: successor-exited"));
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }
}
