//! What a service is given of what its units say: sockets with their options, a user, a folder, the name of an
//! instance; and how it ends where it cannot be given that.

use crate::lab::Machine;
use crate::load::Connection;
use crate::web::binary;

/// Prints what the sockets have that it was given, a line each.
const PROBE: &str = include_str!("given/probe.pl");

/// Socket units: their name, what they say, and what the probe must find of it.
const SOCKETS: [(&str, &str, &str); 11] = [
    ("plain", "ListenStream=127.0.0.1:7001", "type=1 protocol=6 accepts=1 reuseaddr=1 ttl=64"),
    (
        "tcp",
        "ListenStream=127.0.0.1:7002\nBacklog=7\nKeepAlive=yes\nKeepAliveTimeSec=100\nKeepAliveIntervalSec=10\n\
         KeepAliveProbes=3\nNoDelay=yes\nDeferAcceptSec=3\nReusePort=yes\nFreeBind=yes\nTransparent=yes\n\
         ReceiveBuffer=64K\nSendBuffer=64K\nPriority=5\nMark=9\nIPTTL=33\nTCPCongestion=reno",
        "reuseport=1 keepalive=1 sndbuf=131072 rcvbuf=131072 priority=5 mark=9 freebind=1 transparent=1 ttl=33 \
         nodelay=1 keepidle=100 keepintvl=10 keepcnt=3 defer=3 backlog=7 congestion=reno",
    ),
    (
        "tcp6",
        "ListenStream=[::1]:7003\nBindIPv6Only=ipv6-only\nIPTTL=33\nIPTOS=low-delay\nBindToDevice=lo\nFreeBind=yes",
        "v6only=1 hops=33 tos=16 priority=6 freebind=1 device=lo",
    ),
    // The kernel doubles it; and as nobody asks it for less, net.core.rmem_max does not count.
    (
        "large",
        "ListenStream=127.0.0.1:7004\nReceiveBuffer=8M\nSendBuffer=8M",
        "sndbuf=16777216 rcvbuf=16777216",
    ),
    (
        "wrong",
        "ListenStream=127.0.0.1:7005\nTCPCongestion=nosuch\nIPTTL=1000\nNoDelay=yes",
        "nodelay=1 ttl=64",
    ),
    (
        "udp",
        "ListenDatagram=127.0.0.1:7006\nBroadcast=yes\nPassPacketInfo=yes\nKeepAlive=yes",
        "type=2 protocol=17 reuseaddr=1 keepalive=1 broadcast=1 pktinfo=1",
    ),
    ("lite", "ListenDatagram=127.0.0.1:7007\nSocketProtocol=udplite", "type=2 protocol=136"),
    (
        "unix",
        "ListenStream=/run/s\nPassCredentials=yes\nPassSecurity=yes\nReceiveBuffer=64K\nNoDelay=yes\nSocketMode=0640",
        "type=1 accepts=1 passcred=1 passsec=1 rcvbuf=131072",
    ),
    ("packets", "ListenSequentialPacket=/run/q\nPassCredentials=yes", "type=5 accepts=1 passcred=1"),
    ("pipe", "ListenFIFO=/run/p\nPipeSize=128K\nSocketMode=0620", "pipe=131072"),
    ("vast", "ListenFIFO=/run/v\nPipeSize=1G", "pipe=65536"),
];

/// Services that are not given what they want: what they say, and the exit status and the result that tell.
const REFUSED: [(&str, &str, &str); 12] = [
    ("User=nosuch", "217", "exit-code"),
    ("User=4321", "217", "exit-code"),
    ("Group=nosuch", "216", "exit-code"),
    ("Group=4321", "216", "exit-code"),
    ("SupplementaryGroups=nosuch", "216", "exit-code"),
    ("User=tester\nSupplementaryGroups=4321", "216", "exit-code"),
    // Also for a command that is not run as that user.
    ("User=nosuch\nExecStartPre=+/bin/true", "0", "exit-code"),
    ("WorkingDirectory=/nonexistent", "200", "exit-code"),
    ("StandardOutput=file:/nonexistent/file", "209", "exit-code"),
    ("StandardError=append:/nonexistent/file", "222", "exit-code"),
    ("EnvironmentFile=/nonexistent", "0", "resources"),
    ("ExecStart=\nExecStart=/nonexistent", "203", "exit-code"),
];

on_every_systemd! {
    fn a_socket_has_the_options_that_its_unit_says(systemd) {
        let machine = Machine::boot(systemd);
        let sockets = SOCKETS.map(|(name, ..)| format!("{name}.socket"));
        machine.push("/usr/lib/probe", PROBE, 0o755);
        let service = format!(
            "[Service]\nType=oneshot\nSockets={}\nExecStart=/usr/bin/perl /usr/lib/probe\nStandardOutput=file:/run/said\n",
            sockets.join(" ")
        );
        let units = SOCKETS.map(|(name, says, _)| {
            format!("[Socket]\nService=probe.service\nFileDescriptorName={name}\nRemoveOnStop=yes\n{says}\n")
        });
        let units = sockets.iter().map(String::as_str).zip(units.iter().map(String::as_str));
        machine.units(&units.chain([("probe.service", &*service)]).collect::<Vec<_>>());
        let start = ["systemctl", "start"].into_iter().chain(sockets.iter().map(String::as_str));
        machine.succeed(&start.collect::<Vec<_>>());
        machine.succeed(&["systemctl", "start", "probe.service"]);
        let said = machine.succeed(&["cat", "/run/said"]);
        for (name, says, expected) in SOCKETS {
            let line = said.lines().find(|line| line.split(' ').next() == Some(name));
            let found: Vec<_> = line.unwrap_or_else(|| panic!("no {name}: {said}")).split(' ').collect();
            let missing: Vec<_> = expected.split_whitespace().filter(|word| !found.contains(word)).collect();
            assert!(missing.is_empty(), "{says}\nhas no {missing:?}: {found:?}");
        }
        let modes = machine.succeed(&["stat", "-c", "%a", "/run/s", "/run/q", "/run/p"]);
        assert_eq!(modes, "640\n666\n620\n");
    }

    fn who_cannot_be_given_what_it_wants_ends_with_a_status_that_says_so(systemd) {
        let machine = Machine::boot(systemd);
        let units: Vec<_> = (REFUSED.iter().enumerate())
            .map(|(at, (says, ..))| {
                (format!("refused-{at}.service"), format!("[Service]\nType=exec\nExecStart=/bin/cat\n{says}\n"))
            })
            .collect();
        machine.units(&units.iter().map(|(name, text)| (&**name, &**text)).collect::<Vec<_>>());
        for ((name, _), (says, status, result)) in units.iter().zip(REFUSED) {
            assert_ne!(machine.run(&["systemctl", "start", name]).status, 0, "{says}");
            let found = ["ActiveState", "Result", "ExecMainStatus"].map(|property| machine.show(name, property));
            assert_eq!(found, ["failed", result, status], "{says}");
        }
        // A line that may fail is as good as one that ends at once.
        machine.unit("may.service", "[Service]\nType=exec\nExecStart=-/nonexistent\n");
        machine.succeed(&["systemctl", "start", "may"]);
        assert_eq!(["ActiveState", "Result"].map(|property| machine.show("may", property)), ["inactive", "success"]);
    }

    fn a_service_is_the_user_and_the_groups_that_its_unit_says(systemd) {
        let machine = Machine::boot(systemd);
        let who = |what: &str| format!("/bin/sh -c 'echo {what}: $(id -u) $(id -g) $(id -G), $LOGNAME at $HOME'");
        let cases = [
            ("group", "Group=tester", "own: 0 1000 1000, at"),
            ("number", "User=1000", "own: 1000 1000 1000, tester at /home/tester"),
            ("both", "User=tester\nGroup=tty", "own: 1000 5 5, tester at /home/tester"),
            ("more", "SupplementaryGroups=tty 1000", "own: 0 0 0 5 1000, at"),
            ("root", "User=root", "own: 0 0 0, root at /root"),
        ];
        let units = cases.map(|(name, says, _)| {
            let exec = format!("ExecStartPre=+{}\nExecStart={}", who("plus"), who("own"));
            let out = format!("StandardOutput=append:/run/said-{name}");
            (format!("{name}.service"), format!("[Service]\nType=oneshot\n{out}\n{exec}\n{says}\n"))
        });
        machine.units(&units.each_ref().map(|(name, text)| (&**name, &**text)));
        for ((unit, _), (name, says, expected)) in units.iter().zip(cases) {
            machine.succeed(&["systemctl", "start", unit]);
            let said = machine.succeed(&["cat", &format!("/run/said-{name}")]);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let lines: Vec<_> = said.lines().map(words).collect();
            assert!(lines.len() == 2 && lines[0].starts_with(&words("plus: 0")), "{says}: {said}");
            assert_eq!(lines[1], words(expected), "{says}");
        }
    }

    fn files_of_the_environment_are_found_by_pattern_and_the_last_one_wins(systemd) {
        let machine = Machine::boot(systemd);
        for (name, text) in [("b.env", "WHO=b\nONLY=b\n"), ("a.env", "WHO=a\nMORE='a  a'\n")] {
            machine.push(&format!("/etc/given/{name}"), text, 0o644);
        }
        let files = "EnvironmentFile=/etc/given/*.env\nEnvironmentFile=-/etc/given/*.none\nEnvironment=WHO=unit OWN=unit";
        let exec = "ExecStart=/bin/sh -c 'echo \"$WHO $ONLY $MORE $OWN\"'\nStandardOutput=file:/run/said";
        machine.unit("files.service", &format!("[Service]\nType=oneshot\n{files}\n{exec}\n"));
        machine.succeed(&["systemctl", "start", "files"]);
        assert_eq!(machine.succeed(&["cat", "/run/said"]), "b b a  a unit\n");
        machine.unit("files.service", &format!("[Service]\nType=oneshot\n{exec}\nEnvironmentFile=/etc/given/*.none\n"));
        assert_ne!(machine.run(&["systemctl", "start", "files"]).status, 0);
        assert_eq!(machine.show("files", "Result"), "resources");
    }

    fn an_instance_of_a_template_is_started_and_upgraded_by_its_own_name(systemd) {
        let handover = env!("CARGO_BIN_EXE_handover");
        let machine =
            Machine::with(systemd).bind(handover, "/usr/bin/handover").copy(binary(), "/usr/bin/web").boot();
        let service = include_str!("../units/web.service")
            .replace("Sockets=web.socket", "Sockets=web@%i.socket")
            .replace("[Service]", "[Service]\nEnvironment=WHO=%n,%N,%p,%i,%I,%j\nRuntimeDirectory=%p/%i");
        let socket = include_str!("../units/web.socket").replace("ListenStream=8080", "ListenStream=127.0.0.1:80%i");
        machine.units(&[
            ("web@.socket", &socket),
            ("web@.service", &service),
            ("web@81.service.d/own.conf", "[Service]\nEnvironment=OWN=only-81\n"),
        ]);
        let get = |port: &str| {
            let address = format!("127.0.0.1:{port}");
            let answer = machine.enter_network(|| Connection::open(&address)?.get("/", true)).unwrap();
            answer.pid().unwrap().to_string()
        };
        machine.succeed(&["systemctl", "start", "web@81.service", "web@82.service"]);
        for port in ["81", "82"] {
            assert_eq!(get(&format!("80{port}")), machine.show(&format!("web@{port}"), "MainPID"));
        }
        let environment = |pid: &str| machine.succeed(&["cat", &format!("/proc/{pid}/environ")]).replace('\0', "\n");
        let (first, other) = (get("8081"), get("8082"));
        let found = environment(&first);
        for line in ["WHO=web@81.service,web@81,web,81,81,web", "OWN=only-81", "RUNTIME_DIRECTORY=/run/web/81"] {
            assert!(found.lines().any(|own| own == line), "{line}: {found}");
        }
        assert!(!environment(&other).contains("OWN="));
        let upgraded = machine.run(&["handover", "upgrade", "web@81"]);
        assert_eq!(upgraded.status, 0, "{upgraded:?}");
        assert_ne!(get("8081"), first);
        assert_eq!(get("8081"), machine.show("web@81", "MainPID"));
        assert_eq!(get("8082"), other);
        assert_ne!(machine.run(&["systemctl", "start", "web@.service"]).status, 0);
    }
}
