//! Services of axum and of hyper alone, over TCP and unix sockets: nobody notices an upgrade, and who is at the
//! other end of a connection is known in the next process, too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::load::PATIENCE;
use crate::web::{ADDRESS, Web};

/// How often the service is upgraded.
const UPGRADES: usize = 5;

/// A second socket of the same name, in the machine's network as the first.
const UNIX: &str = "web peers";
const UNIX_TOO: &str = "[Socket]\nListenStream=@web peers\n";

on_every_systemd! {
    fn who_is_at_the_other_end_is_known_after_an_upgrade_too(systemd) {
        for program in ["web", "hyper"] {
            let web = Web::boot_program(systemd, program);
            web.machine.unit("web.socket.d/test.conf", UNIX_TOO);
            web.machine.succeed(&["systemctl", "stop", "web.service", "web.socket"]);
            web.machine.succeed(&["systemctl", "start", "web.socket", "web.service"]);
            let (mut tcp, mut unix) = web.machine.enter_network(|| {
                let unix = SocketAddr::from_abstract_name(UNIX).unwrap();
                (TcpStream::connect(ADDRESS).unwrap(), UnixStream::connect_addr(&unix).unwrap())
            });
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            unix.set_read_timeout(Some(PATIENCE)).unwrap();
            // The socket is one of IPv6, and so is the address.
            let address = format!("from [::ffff:127.0.0.1]:{}\n", tcp.local_addr().unwrap().port());
            let load = web.load();
            for _ in 0..UPGRADES {
                let main = web.main();
                let pid = format!("pid {}\n", main.pid);
                for answer in [ask(&mut tcp, &address), ask(&mut unix, "user 0\n")] {
                    assert!(answer.contains(&pid), "{program}: want {pid}, found {answer}");
                }
                web.upgrade();
                main.leaves();
            }
            load.stop().assert_nothing_noticed();
        }
    }
}

/// A request, and its answer, which ends so.
fn ask(mut stream: impl Read + Write, end: &str) -> String {
    stream.write_all(b"GET /whence HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    let (mut answer, mut piece) = (String::new(), [0; 1024]);
    while !answer.ends_with(end) {
        let read = stream.read(&mut piece).unwrap_or_else(|error| panic!("{error} after {answer}"));
        assert_ne!(read, 0, "the end after {answer}");
        answer.push_str(str::from_utf8(&piece[..read]).unwrap());
    }
    answer
}
