//! Which sockets there are, and what waits in them; as a line of /proc/net/tcp and its like has it, too:
//! proc_pid_net(5).
//!
//! This file is pure: text in, entries out. A line that makes no sense is none.

/// TCP_LISTEN of the kernel's net/tcp_states.h.
const LISTEN: u8 = 10;

/// States of a connection in which somebody may still want something of it: established, or ended by
/// its peer only.
const ALIVE: [u8; 2] = [1, 8];

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its own port.
    pub(crate) port: u16,
    /// By the kernel's net/tcp_states.h.
    pub(crate) state: u8,
    /// Connections that nobody has accepted for a socket that listens, else bytes that nobody has read.
    pub(crate) waiting: u32,
    /// Its inode, by which a descriptor is known; 0 while nobody has one.
    pub(crate) inode: u64,
}

impl Entry {
    /// Whether it waits for connections.
    pub(crate) fn listens(&self) -> bool {
        self.state == LISTEN
    }

    /// Whether it is a connection that somebody may still use.
    pub(crate) fn is_connection(&self) -> bool {
        ALIVE.contains(&self.state)
    }
}

/// The entry in a line of such a table; its first line has none.
pub(crate) fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let (_, waiting) = fields.next()?.split_once(':')?;
    Some(Entry {
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(state, 16).ok()?,
        waiting: u32::from_str_radix(waiting, 16).ok()?,
        inode: fields.nth(4)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream};

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:D432 06 00000000:00000000 03:00000A11 00000000     0        0 0 3 0
";

    #[test]
    fn a_table_is_read_line_by_line() {
        let entries: Vec<_> = TABLE.lines().filter_map(entry).collect();
        assert_eq!(entries[0], Entry { port: 8080, state: 10, waiting: 3, inode: 4711 });
        assert!(entries[0].listens() && !entries[0].is_connection());
        assert!(entries[1].is_connection() && !entries[1].listens());
        assert!(!entries[2].is_connection());
    }

    #[test]
    fn what_waits_at_a_listener_is_what_nobody_has_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let own = |entry: &Entry| entry.port == address.port() && entry.listens();
        let waiting = || {
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            table.lines().filter_map(entry).find(own).unwrap().waiting
        };
        assert_eq!(waiting(), 3);
        let _accepted = listener.accept().unwrap();
        assert_eq!(waiting(), 2);
        drop(clients);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in ".{0,80}", likely in "[0-9A-F: ]{0,90}") {
            let _ = (entry(&line), entry(&likely));
        }
    }
}
