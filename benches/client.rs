//! A client as small as can be, so that what is timed is the service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection of a client.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, buffer: vec![0; 4096] }
    }

    /// One request on a connection that stays; who answered.
    pub(crate) fn ask(&mut self) -> u32 {
        self.send(false);
        self.answer(false)
    }

    /// One request on a connection of its own; who answered.
    pub(crate) fn ask_once(address: SocketAddr) -> u32 {
        let mut connection = Self::open(address);
        connection.send(true);
        connection.answer(true)
    }

    /// Sends a request, perhaps as the last one.
    pub(crate) fn send(&mut self, last: bool) {
        let request = match last {
            true => "GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n",
            false => "GET / HTTP/1.1\r\nHost: hello\r\n\r\n",
        };
        self.stream.write_all(request.as_bytes()).expect("send a request");
    }

    /// Receives an answer, and the end after the last one; who answered.
    pub(crate) fn answer(&mut self, last: bool) -> u32 {
        let mut len = 0;
        let pid = loop {
            let more = self.stream.read(&mut self.buffer[len..]).expect("receive an answer");
            assert_ne!(more, 0, "the connection ended before the answer");
            len += more;
            let text = str::from_utf8(&self.buffer[..len]).expect("a text");
            if let Some(pid) = text.split_once("\r\n\r\npid ").and_then(|(_, pid)| pid.strip_suffix('\n')) {
                break pid.parse().expect("a pid");
            }
        };
        if last {
            let rest = self.stream.read(&mut self.buffer).expect("the end of the connection");
            assert_eq!(rest, 0, "nothing comes behind the answer");
        }
        pid
    }
}
