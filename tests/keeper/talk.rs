//! One session that does what a scenario tells it to, and waits for its answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::sessions::Address;

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's end of a session.
#[derive(Debug)]
pub(super) struct Talk {
    stream: BufReader<Socket>,
    /// Of the last request of [`Talk::ask`].
    tag: u64,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Talk {
    /// Connects; over TCP call it in the machine's network.
    pub(super) fn open(address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Socket::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Socket::Unix(stream)
            }
        };
        // There may be thousands, and no answer is longer.
        Ok(Self { stream: BufReader::with_capacity(256, socket), tag: 0 })
    }

    /// The same with a value `a`, which is 1: it was accepted, and is kept.
    pub(super) fn served(mut self) -> Self {
        assert_eq!(self.ask("SET a 1"), "ok");
        self
    }

    /// Sends a request and reads its answer.
    pub(super) fn ask(&mut self, request: &str) -> String {
        self.try_ask(request).unwrap()
    }

    /// The same, of a session that may have ended. The answer before may come again: whoever gave it may
    /// have been killed in that moment.
    pub(super) fn try_ask(&mut self, request: &str) -> io::Result<String> {
        let before = format!("#{} ", self.tag);
        self.tag += 1;
        let tag = format!("#{} ", self.tag);
        self.send(&format!("{tag}{request}\n"))?;
        loop {
            let line = self.answer()?;
            match line.strip_prefix(&tag) {
                Some(answer) => return Ok(answer.to_owned()),
                None if line.starts_with(&before) => {}
                None => return Ok(line),
            }
        }
    }

    /// Sends requests at once; [`Talk::hear`] reads their answers.
    pub(super) fn say(&mut self, requests: &[String]) {
        let tagged: String =
            requests.iter().zip(self.tag + 1..).map(|(said, tag)| format!("#{tag} {said}\n")).collect();
        self.send(&tagged).unwrap();
    }

    /// The answers to what was said last, as many as that was. The one before may come again, as above.
    pub(super) fn hear<const COUNT: usize>(&mut self) -> [String; COUNT] {
        let before = format!("#{} ", self.tag);
        std::array::from_fn(|_| {
            loop {
                let line = self.answer().unwrap();
                if let Some(answer) = line.strip_prefix(&format!("#{} ", self.tag + 1)) {
                    self.tag += 1;
                    return answer.to_owned();
                }
                assert!(line.starts_with(&before), "want an answer to #{}, found {line:?}", self.tag + 1);
            }
        })
    }

    /// Sends bytes as they are: half a line, or several.
    pub(super) fn send(&mut self, bytes: &str) -> io::Result<()> {
        match self.stream.get_mut() {
            Socket::Tcp(stream) => stream.write_all(bytes.as_bytes()),
            Socket::Unix(stream) => stream.write_all(bytes.as_bytes()),
        }
    }

    /// A line without its end.
    pub(super) fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(whole) => Ok(whole.to_owned()),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ended after {line:?}"))),
        }
    }

    /// Who serves it.
    pub(super) fn pid(&mut self) -> u32 {
        pid(&self.ask("PID"))
    }

    /// Reads to the end of the session, however it ends; what came before it.
    pub(super) fn end(mut self) -> String {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the session does not end: {error}"),
        }
        String::from_utf8(rest).unwrap()
    }

    /// Leaves with a reset, as a client does that was killed with unread answers.
    pub(super) fn reset(self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(self.stream.get_ref(), sockopt::Linger, &linger).unwrap();
    }
}

/// Who has given this answer to `PID`.
pub(super) fn pid(answer: &str) -> u32 {
    answer.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).expect(answer)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}
