//! CONNECT: a tunnel stays with the process that began it, is told goodbye, and may still end as it wants to.

use crate::load::Connection;
use crate::web::Web;

on_every_systemd! {
    fn a_tunnel_stays_and_is_told_goodbye(systemd) {
        let web = Web::boot(systemd);
        let old = web.main();
        // What is said before the answer is for the tunnel, too.
        let [mut quick, mut quiet] = ["early\n", ""].map(|early| connect(&web, early));
        assert_eq!(quick.line("what was said at once").unwrap(), "early");
        let mut idle = web.connect_to(&old);
        for _ in 0..2 {
            web.upgrade();
        }
        assert_eq!(idle.get("/", false).unwrap().pid(), Some(web.main_pid()));
        for tunnel in [&mut quick, &mut quiet] {
            assert_eq!(tunnel.line("goodbye").unwrap(), format!("goodbye from pid {}", old.pid));
            hears_itself(tunnel);
        }
        assert!(!old.has_left(), "it waits for our end");
        for mut tunnel in [quick, quiet] {
            tunnel.end_sending();
            assert_eq!(tunnel.end().unwrap(), "");
        }
        old.leaves();
        hears_itself(&mut connect(&web, ""));
    }
}

/// A tunnel to nowhere, with what is to go through it at once.
fn connect(web: &Web, early: &str) -> Connection {
    let mut connection = web.connect();
    connection.write(&format!("CONNECT far:1 HTTP/1.1\r\nHost: far:1\r\n\r\n{early}")).unwrap();
    let head = connection.head().unwrap();
    assert!(head.status.starts_with("HTTP/1.1 200 "), "{head:?}");
    connection
}

fn hears_itself(tunnel: &mut Connection) {
    for said in ["here".to_owned(), "there ".repeat(20_000)] {
        tunnel.write(&(said.clone() + "\n")).unwrap();
        assert_eq!(tunnel.line("an echo").unwrap(), said);
    }
}
