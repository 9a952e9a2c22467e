//! `handover status`: what is told is what is.

use serde_json::{Value, json};

use crate::gate::{Gate, soon};
use crate::lab::{Output, Systemd};
use crate::run::{App, STRANGER, THREE};
use crate::web::{FAIL_BY_FILE, Web};

/// The command, and no endless wait for it.
const STATUS: [&str; 4] = ["timeout", "20", "handover", "status"];

/// In PID 1's place: has a program run, and prints what the status is when it is said to be ready.
const MANAGER: &str = "\
import os, socket, subprocess
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind('/run/manager')
os.environ['NOTIFY_SOCKET'] = '/run/manager'
runner = subprocess.Popen(['/usr/bin/handover', 'run', '--', '/usr/bin/stranger', '8080'], cwd='/srv')
status, lines = '', []
while 'READY=1' not in lines:
    lines = manager.recv(65536).decode().split('\\n')
    status = ([status] + [line for line in lines if line.startswith('STATUS=')])[-1]
print(status)
runner.terminate()
runner.wait()
";

fn status(web: &Web, arguments: &[&str]) -> Output {
    web.machine.run(&[&STATUS, arguments].concat())
}

/// The one object that is told.
fn told(web: &Web, unit: &str) -> Value {
    let told = status(web, &["--json", unit]);
    serde_json::from_str(&told.stdout).unwrap_or_else(|why| panic!("{why}: {told:?}"))
}

/// Names of what stands in the way.
fn obstacles(status: &Value) -> Vec<&str> {
    status["obstacles"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

on_every_systemd! {
    fn who_serves_who_drains_and_what_is_kept_is_told(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let old = web.main();
        let first = told(&web, "web");
        assert_eq!((&first["main"]["pid"], &first["service"]["generation"]), (&json!(old.pid), &json!(1)), "{first}");
        assert_eq!((&first["main"]["program"], &first["main"]["replaced"]), (&json!("/usr/bin/web"), &json!(false)));
        assert_eq!((&first["last_upgrade"], obstacles(&first)), (&Value::Null, vec![]), "{first}");
        let mut busy = web.connect_to(&old);
        busy.send("/slow?ms=25000", false).unwrap();
        web.upgrade();
        soon("the old one tells what it has in flight", || {
            let now = told(&web, "web");
            let drains = &now["service"]["draining"][0];
            drains["pid"] == old.pid && drains["in_flight"] == 1 && drains["seconds_left"].as_f64().unwrap() > 0.0
        });
        let now = told(&web, "web.service");
        assert_eq!((&now["service"]["generation"], &now["last_upgrade"]["switched"]), (&json!(2), &json!(true)), "{now}");
        assert_eq!(now["last_upgrade"]["text"], json!(format!("{} -> {}", old.pid, web.main_pid())));
        assert_eq!((now["store"]["held"].as_u64() > Some(0), &now["store"]["most"]), (true, &json!(512)), "{now}");
        let entries = now["store"]["entries"].as_array();
        let has_record = |entries: &Vec<Value>| entries.iter().any(|one| one[0] == "handover.record");
        assert_eq!(entries.map(has_record), if systemd == Systemd::V252 { None } else { Some(true) }, "{now}");
        let lines = status(&web, &["web"]);
        assert_eq!((lines.status, &*lines.stderr), (0, ""));
        for wanted in ["web.service active (running)", "generation 2", "drains  ", "of 512", "nothing stands in the way"] {
            assert!(lines.stdout.contains(wanted), "{wanted}: {lines:?}");
        }
        assert!(!lines.stdout.contains('\u{1b}'), "no colours where there is no terminal");
        // Without a name, all that are handover's.
        assert_eq!(status(&web, &[]).stdout.lines().next(), Some("web.service active (running)"));
    }

    fn who_waits_at_a_socket_is_counted(systemd) {
        let web = Web::boot(systemd);
        web.machine.succeed(&["systemctl", "kill", "-s", "STOP", "web.service"]);
        let _clients: Vec<_> = (0..5).map(|_| web.connect()).collect();
        soon("five wait, and the service that hangs is not waited for", || {
            let now = told(&web, "web");
            let queue = &now["sockets"][0];
            (&queue["address"], &queue["waiting"]) == (&json!("[::]:8080"), &json!(5))
                && queue["most"].as_u64().unwrap() >= 128
                && now["silent"].as_str().is_some_and(|why| why.contains("said nothing"))
        });
        web.machine.succeed(&["systemctl", "kill", "-s", "CONT", "web.service"]);
    }

    fn what_stands_in_the_way_of_an_upgrade_is_told_before(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        web.machine.push("/etc/systemd/system/web.service.d/late.conf", "[Service]\nEnvironment=LATE=1\n", 0o644);
        assert_eq!(obstacles(&told(&web, "web")), ["need-daemon-reload"]);
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        let gate = Gate::shut(&web.machine);
        web.machine.succeed(&["systemctl", "reload", "--no-block", "web"]);
        let arrival = gate.arrival();
        assert_eq!(obstacles(&told(&web, "web")), ["under-way"]);
        drop((arrival, gate));
        soon("nothing in the way", || obstacles(&told(&web, "web")).is_empty());
        web.fail("init-error");
        web.failed_upgrade();
        let failed = told(&web, "web");
        assert_eq!((&failed["last_upgrade"]["switched"], &failed["last_upgrade"]["reason"]), (&json!(false), &json!("init-failed")));
        web.machine.succeed(&["cp", "/usr/bin/web", "/usr/bin/web.new"]);
        web.machine.succeed(&["mv", "/usr/bin/web.new", "/usr/bin/web"]);
        assert_eq!(told(&web, "web")["main"]["replaced"], json!(true));
        assert!(status(&web, &["web"]).stdout.contains("its file is another one by now"));
    }

    fn the_exit_status_tells_what_systemctl_would(systemd) {
        let web = Web::boot(systemd);
        web.machine.unit("plain.service", "[Service]\nExecStart=sleep infinity\n");
        web.machine.succeed(&["systemctl", "start", "plain"]);
        let plain = told(&web, "plain");
        assert_eq!((&plain["active"], &plain["service"], obstacles(&plain)), (&json!("active"), &Value::Null, vec!["not-reloadable"]));
        assert!(plain["main"]["seconds"].as_f64().is_some_and(|seconds| seconds < 20.0), "{plain}");
        web.machine.succeed(&["systemctl", "stop", "plain"]);
        let statuses = [["web", "web"], ["web", "plain"], ["plain", "gone"]].map(|units| status(&web, &units).status);
        assert_eq!(statuses, [0, 3, 4]);
        assert_eq!(obstacles(&told(&web, "gone")), ["not-found"]);
    }

    fn a_watch_shows_an_upgrade_when_it_happens(systemd) {
        use std::io::{BufRead, BufReader};
        let web = Web::boot(systemd);
        let old = web.main_pid();
        let mut watch = web.machine.spawn(&[&STATUS[..], &["--watch", "--json", "web"]].concat());
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut next = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
            let found = lines.by_ref().map_while(Result::ok).find(|line| wanted(&serde_json::from_str(line).unwrap()));
            assert!(found.is_some(), "{what}");
        };
        next("the old one", &|status| status["main"]["pid"] == old);
        let new = web.upgrade();
        next("the new one", &|status| status["main"]["pid"] == new && status["last_upgrade"]["switched"] == true);
        watch.kill().unwrap();
        watch.wait().unwrap();
    }

    fn a_runner_says_who_serves_before_it_says_that_it_is_ready(systemd) {
        let app = App::prepare(systemd, "", "", STRANGER, "");
        app.machine.push("/run/manager.py", MANAGER, 0o644);
        let status = app.machine.succeed(&["timeout", "20", "python3", "/run/manager.py"]);
        assert!(status.starts_with("STATUS=generation 1 (process "), "{status:?}");
    }

    fn a_runner_tells_of_the_generations_of_its_program(systemd) {
        let app = App::boot(systemd, THREE, "", STRANGER);
        let old = app.live();
        let ask = || -> Value {
            serde_json::from_str(&app.machine.succeed(&[&STATUS[..], &["--json", "app"]].concat())).unwrap()
        };
        let mut slow = app.machine.enter_network(|| crate::load::Connection::open("127.0.0.1:8080")).unwrap();
        slow.send("/", false).unwrap();
        let live = app.upgrade();
        let now = ask();
        let own = &now["service"];
        assert_eq!((&own["is_runner"], &own["pid"], &own["generation"]), (&json!(true), &json!(live), &json!(2)), "{now}");
        assert_eq!(own["draining"][0]["pid"], json!(old), "{now}");
        assert_eq!((&now["sockets"][0]["slots"], &now["sockets"][0]["waiting"]), (&json!(3), &json!(0)), "{now}");
    }
}

/// Only systemd has users' buses and other hosts.
mod elsewhere {
    use super::*;

    on_real_systemd! {
        fn another_host_is_asked_over_ssh_and_a_container_over_the_bridge(systemd) {
            let web = Web::boot(systemd);
            let ssh = "#!/bin/sh\necho \"$@\" > /run/asked\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec \"$@\"\n";
            web.machine.push("/usr/local/bin/ssh", ssh, 0o755);
            let told = status(&web, &["-H", "root@elsewhere:2222", "--json", "web"]);
            let record: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|why| panic!("{why}: {told:?}"));
            assert_eq!((&record["main"]["pid"], &record["service"]), (&json!(web.main_pid()), &Value::Null));
            let asked = web.machine.succeed(&["cat", "/run/asked"]);
            assert_eq!(asked, "-xT -p 2222 -- root@elsewhere systemd-stdio-bridge\n");
            // No container is registered here: the bridge is told which one, and takes the host's bus.
            let bridge = "#!/bin/sh\necho \"$@\" > /run/asked\nexec /usr/bin/systemd-stdio-bridge\n";
            web.machine.push("/usr/local/bin/systemd-stdio-bridge", bridge, 0o755);
            let told = status(&web, &["-M", "shop", "web"]);
            assert_eq!(told.status, 0, "{told:?}");
            assert_eq!(web.machine.succeed(&["cat", "/run/asked"]), "--machine=shop\n");
            web.machine.push("/usr/local/bin/ssh", "#!/bin/sh\nexit 255\n", 0o755);
            let told = status(&web, &["-H", "gone", "web"]);
            assert!(told.status == 40 && told.stderr.contains("there is no way to the systemd of gone"), "{told:?}");
        }

        fn somebody_without_rights_sees_what_everybody_may(systemd) {
            let web = Web::boot(systemd);
            let told = web.machine.run_as("tester", &["handover", "status", "web"]);
            assert!(told.status == 0 && told.stdout.contains("ask as root"), "{told:?}");
            assert!(told.stdout.contains("0 of 4096 wait") && told.stdout.contains(" of 512\n"), "{told:?}");
        }
    }
}
