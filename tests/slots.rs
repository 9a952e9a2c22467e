//! `handover run` and its slots: what waits in them from before the first steering, datagrams, both families, unix
//! sockets.

use std::net::{SocketAddr, UdpSocket};

use crate::lab::{Systemd, slowness};
use crate::load::{Connection, PATIENCE};
use crate::run::{ADDRESS, App, STRANGER, THREE};

/// Answers every datagram to port 8080 of all addresses of both families with its pid.
const DATAGRAMS: &str = "\
import os, socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 8080))
while True:
    _, _, _, client = s.recvmsg(99)
    s.sendto(str(os.getpid()).encode(), client)
";

/// Answers whoever comes to the socket that it is passed, or has bound itself, with its pid. All generations of it
/// have one open file, so none changes its mode; one that is told to leave answers whoever waits first.
const UNIX: &str = "\
import os, select, signal, socket, sys
if len(sys.argv) > 1:
    s = socket.socket(socket.AF_UNIX)
    if sys.argv[1] == 'anew':
        os.unlink('/run/app.sock')
    s.bind('/run/app.sock')
    s.listen()
else:
    s = socket.socket(fileno=3)
s.setblocking(False)
told, tell = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(tell, b'x'))
def answer():
    if s.type == socket.SOCK_DGRAM:
        _, client = s.recvfrom(99)
        s.sendto(b'%d' % os.getpid(), client)
    else:
        client, _ = s.accept()
        client.sendall(b'%d' % os.getpid())
        client.close()
leaves = False
while True:
    ready, _, _ = select.select([s, told], [], [])
    leaves = leaves or told in ready
    try:
        answer()
    except BlockingIOError:
        if leaves:
            break
";

/// Asks at a unix socket, of the kind given, so often as is said, and prints who answered.
const ASK: &str = "\
import os, socket, sys
kind = getattr(socket, sys.argv[1])
for number in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(30)
    if kind == socket.SOCK_DGRAM:
        s.bind('\\0client%d.%d' % (os.getpid(), number))
    s.connect('/run/app.sock')
    if kind == socket.SOCK_DGRAM:
        s.send(b'who')
    print(s.recv(99).decode())
";

/// A server with a socket for each family at one port.
const BOTH_APART: &str = "\
import http.server as h, socket, threading
class Six(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '3')
        self.end_headers()
        self.wfile.write(b'six')
class Server(h.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()
four = h.ThreadingHTTPServer(('0.0.0.0', 8080), h.SimpleHTTPRequestHandler)
six = Server(('::', 8080), Six)
threading.Thread(target=four.serve_forever, daemon=True).start()
six.serve_forever()
";

/// Who is asked by datagrams, and may take its time.
fn ask(app: &App, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = app.machine.enter_network(|| UdpSocket::bind(any)).unwrap();
    socket.set_read_timeout(Some(PATIENCE * slowness())).unwrap();
    socket.send_to(b"who", to).unwrap();
    socket
}

/// Who has answered.
fn answer(socket: &UdpSocket) -> std::io::Result<u32> {
    let mut answer = [0; 16];
    let len = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..len]).parse().unwrap())
}

fn served_by_datagrams(systemd: Systemd, options: &str) -> App {
    let sockets = "ListenDatagram=8080\n".repeat(3) + "ReusePort=yes\n";
    let app = App::prepare(systemd, &sockets, options, "/usr/bin/python3 /run/udp.py", "");
    app.machine.push("/run/udp.py", DATAGRAMS, 0o644);
    app
}

/// Keeps the service from running anything of its own until [`let_go`].
pub(crate) fn hold(app: &App) {
    app.machine.succeed(&["mkfifo", "/run/go"]);
    app.machine.unit("app.service.d/hold.conf", "[Service]\nExecStartPre=/bin/sh -c 'read go < /run/go'\n");
}

/// Lets it go on.
pub(crate) fn let_go(app: &App) {
    app.machine.succeed(&["sh", "-c", "echo go > /run/go"]);
}

/// A service with a unix socket of this kind of line.
fn at_a_unix_socket(systemd: Systemd, line: &str, argument: &str) -> App {
    let program = format!("/usr/bin/python3 /run/unix.py {argument}");
    let app = App::prepare(
        systemd,
        &format!("{line}=/run/app.sock\n"),
        "--ready-timeout 3s",
        &program,
        "Restart=no\n",
    );
    app.machine.push("/run/unix.py", UNIX, 0o644);
    app.machine.push("/run/ask.py", ASK, 0o644);
    app
}

on_every_systemd! {
    fn datagrams_that_come_before_the_first_steering_are_answered_wherever_they_wait(systemd) {
        for options in ["", "--strategy serial"] {
            let app = served_by_datagrams(systemd, options);
            hold(&app);
            let clients: Vec<_> = (0..12).map(|_| ask(&app, ADDRESS)).collect();
            let_go(&app);
            let pids: Vec<_> = clients.iter().map(|client| answer(client).unwrap()).collect();
            let distinct = pids.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(distinct > 1, "twelve clients wait in more than one of three slots");
            let last = format!("generation {distinct} ");
            crate::gate::soon("the last one serves", || app.machine.show("app", "StatusText").contains(&last));
            assert!(!app.journal_has("are dropped"));
            let live = app.upgrade();
            assert_eq!(answer(&ask(&app, ADDRESS)).unwrap(), live);
        }
    }

    fn connections_that_come_before_the_first_steering_are_served_wherever_they_wait(systemd) {
        let app = App::prepare(systemd, THREE, "", STRANGER, "");
        hold(&app);
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let mut client = app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap();
                client.send("/", true).unwrap();
                client
            })
            .collect();
        let_go(&app);
        for mut client in clients {
            assert_eq!(client.answer().unwrap().body, "hello\n");
        }
        assert!(app.journal_has("are passed on"), "twelve connections wait in more than one of three slots");
        app.upgrade();
    }

    fn one_datagram_before_the_first_steering_costs_no_second_start(systemd) {
        let app = served_by_datagrams(systemd, "");
        let first = answer(&ask(&app, "[::1]:8080")).unwrap();
        let one = format!("generation 1 (process {first})");
        crate::gate::soon("it says so", || app.machine.show("app", "StatusText").contains(&one));
        assert!(!app.journal_has("generation 2"));
    }

    fn datagrams_of_both_families_go_to_the_new_generation_from_the_switch_on(systemd) {
        let app = served_by_datagrams(systemd, "");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        for _ in 0..3 {
            let live = app.upgrade();
            for to in [ADDRESS, "[::1]:8080"].repeat(10) {
                assert_eq!(answer(&ask(&app, to)).unwrap(), live, "{to}");
            }
        }
    }

    fn what_a_killed_generation_has_not_read_is_dropped_and_told_of(systemd) {
        let app = served_by_datagrams(systemd, "--drain 200ms --stop-timeout 200ms");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let old = app.process(app.live());
        let (pid, stopped) = (app.live(), "^State:.T");
        old.signal(rustix::process::Signal::STOP);
        let grep = ["grep", "-q", stopped, &format!("/proc/{pid}/status")];
        crate::gate::soon("it stands still", || app.machine.run(&grep).status == 0);
        let unread = ask(&app, ADDRESS);
        let mark = app.machine.mark();
        app.upgrade();
        app.machine.await_journal(&mark, &["-u", "app"], "was killed");
        app.machine.await_journal(&mark, &["-u", "app"], "1 datagrams that waited at slot 0");
        // The next generation in that slot has no old mail.
        app.upgrade();
        assert!(answer(&ask(&app, ADDRESS)).is_ok());
        unread.set_nonblocking(true).unwrap();
        assert!(answer(&unread).is_err());
    }

    fn a_server_of_both_families_is_upgraded_under_clients_of_both(systemd) {
        let three = "ListenStream=8080\n".repeat(3) + "ReusePort=yes\n";
        let app = App::boot(systemd, &three, "--probe tcp", "/usr/bin/python3 -m http.server --bind :: 8080");
        let load = app.load();
        for _ in 0..3 {
            app.upgrade();
            let mut six = app.machine.enter_network(|| Connection::open("[::1]:8080")).unwrap();
            assert_eq!(six.get("/", true).unwrap().body, "hello\n");
            load.pass_each(2);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_program_that_binds_both_families_apart_has_slots_of_both(systemd) {
        // As nginx and redis do it, each in their default configuration.
        let four = "ListenStream=0.0.0.0:8080\n".repeat(3);
        let both = format!("{four}{}ReusePort=yes\nBindIPv6Only=ipv6-only\n", four.replace("0.0.0.0", "[::]"));
        for sockets in ["", &both] {
            let app = App::prepare(systemd, sockets, "", "/usr/bin/python3 /run/both.py", "");
            app.machine.push("/run/both.py", BOTH_APART, 0o644);
            app.machine.succeed(&["systemctl", "start", "app.service"]);
            let load = app.load();
            for _ in 0..2 {
                app.upgrade();
                let mut six = app.machine.enter_network(|| Connection::open("[::1]:8080")).unwrap();
                assert_eq!(six.get("/", true).unwrap().body, "six");
                load.pass_each(2);
            }
            load.stop().assert_nothing_lost();
        }
        let app = App::prepare(systemd, &format!("{four}ReusePort=yes\n"), "", "/usr/bin/python3 /run/both.py", "Restart=no\n");
        app.machine.push("/run/both.py", BOTH_APART, 0o644);
        let mark = app.machine.mark();
        assert_ne!(app.machine.run(&["systemctl", "start", "app.service"]).status, 0);
        let words = "write ListenStream=[::]:8080, as many times, with ReusePort=yes and BindIPv6Only=ipv6-only";
        app.machine.await_journal(&mark, &["-o", "cat"], words);
    }

    fn the_units_that_an_explanation_ends_with_work_as_they_are(systemd) {
        let app = App::prepare(systemd, "", "", "/bin/true", "");
        app.machine.push("/srv/both.py", BOTH_APART, 0o644);
        for command in ["python3 -m http.server 8080", "python3 both.py", "python3 -m http.server --bind :: 8080"] {
            let explain = format!("cd /srv && handover run --explain -- {command}");
            let told = app.machine.succeed(&["sh", "-c", &explain]);
            let (seen, units) = told.split_once("# NAME.socket\n").unwrap();
            assert!(seen.contains("mode     overlap") && !seen.contains("but "), "{told}");
            assert_eq!(units.contains("BindIPv6Only=ipv6-only"), command.contains("both"), "{told}");
            let (socket, service) = units.split_once("# NAME.service\n").unwrap();
            app.machine.units(&[("told.socket", socket), ("told.service", service)]);
            let check = app.machine.run(&["handover", "check", "told.socket", "told.service"]);
            assert_eq!(check.status, 0, "{check:?}");
            app.machine.succeed(&["systemctl", "start", "told.socket"]);
            app.machine.succeed(&["systemctl", "start", "told.service"]);
            let load = app.load();
            for _ in 0..2 {
                app.machine.succeed(&["timeout", "60", "systemctl", "reload", "told.service"]);
                load.pass_each(2);
            }
            load.stop().assert_nothing_lost();
            app.machine.succeed(&["systemctl", "stop", "told.socket", "told.service"]);
        }
    }

    fn a_unix_socket_that_is_passed_is_shared_by_all_generations(systemd) {
        for (line, kind) in [("ListenStream", "SOCK_STREAM"), ("ListenDatagram", "SOCK_DGRAM")] {
            let app = at_a_unix_socket(systemd, line, "");
            app.machine.succeed(&["systemctl", "start", "app.service"]);
            assert!(app.journal_has("/run/app.sock can have no second socket"));
            let clients = app.machine.spawn(&["timeout", "60", "python3", "/run/ask.py", kind, "2000"]);
            for _ in 0..3 {
                app.upgrade();
            }
            let done = crate::lab::finish(clients);
            assert_eq!((done.status, done.stdout.lines().count()), (0, 2000), "{kind}: {done:?}");
            let after = app.machine.succeed(&["python3", "/run/ask.py", kind, "1"]);
            assert_eq!(after.trim(), app.live().to_string());
        }
    }

    fn a_program_that_binds_the_units_unix_socket_itself_is_told_what_to_do(systemd) {
        for argument in ["as-it-is", "anew"] {
            let app = at_a_unix_socket(systemd, "ListenStream", argument);
            let mark = app.machine.mark();
            assert_ne!(app.machine.run(&["systemctl", "start", "app.service"]).status, 0);
            let words = "it binds /run/app.sock itself, which the unit has, and of which there can be one only: have it";
            app.machine.await_journal(&mark, &["-o", "cat"], words);
        }
    }
}
