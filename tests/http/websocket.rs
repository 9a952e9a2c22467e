//! WebSocket: a conversation stays with the process that began it, is told goodbye, and may still end as it
//! wants to.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::{Message, WebSocket, client};

use crate::web::{ADDRESS, Web};

on_every_systemd! {
    fn a_websocket_stays_and_is_told_goodbye(systemd) {
        let web = Web::boot(systemd);
        let old = web.main();
        let mut sockets: Vec<_> = (0..3).map(|_| connect(&web)).collect();
        sockets.iter_mut().for_each(hears_itself);
        web.upgrade();
        for mut socket in sockets {
            let goodbye = format!("goodbye from pid {}", old.pid);
            assert_eq!(socket.read().unwrap(), Message::text(goodbye));
            assert!(socket.read().unwrap().is_close());
            assert!(!old.has_left(), "it waits for our word");
            // Our own word, and then the end of the connection.
            assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
        }
        old.leaves();
        hears_itself(&mut connect(&web));
    }

    fn a_websocket_that_does_not_end_is_ended_at_the_deadline(systemd) {
        const DEADLINE: Duration = Duration::from_millis(1000);
        let drop_in = format!("[Service]\nEnvironment=WEB_DRAIN_MS={}\n", DEADLINE.as_millis());
        let web = Web::boot_with(systemd, &drop_in);
        let old = web.main();
        let mut socket = connect(&web);
        hears_itself(&mut socket);
        let before = Instant::now();
        web.upgrade();
        // It hears goodbye, and does not answer.
        let mut rest = Vec::new();
        socket.get_mut().read_to_end(&mut rest).unwrap();
        assert!(before.elapsed() >= DEADLINE, "ended after {:?}", before.elapsed());
        assert!(String::from_utf8_lossy(&rest).contains(&format!("goodbye from pid {}", old.pid)));
        old.leaves();
    }
}

fn connect(web: &Web) -> WebSocket<TcpStream> {
    let stream = web.machine.enter_network(|| TcpStream::connect(ADDRESS)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client("ws://web/ws", stream).unwrap().0
}

fn hears_itself(socket: &mut WebSocket<TcpStream>) {
    for said in [Message::text("here"), Message::binary(vec![7; 100_000])] {
        socket.send(said.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), said);
    }
}
