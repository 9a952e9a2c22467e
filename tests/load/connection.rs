//! A connection of a client, and what one can see on it.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::PATIENCE;
use crate::lab::slowness;

/// A request that was not answered, or a connection that was not what it should be.
#[derive(Debug)]
pub(crate) struct Loss {
    /// What the client saw.
    pub(crate) sight: Sight,
    words: String,
}

/// What a client sees of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Nobody listens.
    Refused,
    /// The connection was there, and was reset.
    Reset,
    /// The connection ended before the whole response.
    Cut,
    /// Nothing came for [`PATIENCE`].
    Late,
    /// The answer to something else.
    Wrong,
    /// Something else: nonsense, or an error of the client's own.
    Other,
}

impl Loss {
    pub(crate) fn new(sight: Sight, words: impl Into<String>) -> Self {
        Self { sight, words: words.into() }
    }

    /// What an operation on a connection ended with.
    pub(crate) fn from_io(what: &str) -> impl Fn(io::Error) -> Self {
        move |error| {
            let sight = match error.kind() {
                io::ErrorKind::ConnectionRefused => Sight::Refused,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Sight::Reset,
                io::ErrorKind::UnexpectedEof => Sight::Cut,
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Sight::Late,
                _ => Sight::Other,
            };
            Self::new(sight, format!("{what}: {error}"))
        }
    }

    /// Says whose it is.
    pub(super) fn of(self, whose: &dyn fmt::Debug) -> Self {
        Self { words: format!("{whose:?}: {}", self.words), ..self }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.sight, self.words)
    }
}

/// A connection of a client to an HTTP/1 service.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its first line.
    pub(crate) status: String,
    /// Names in small letters, and values.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body, put together if it came in chunks.
    pub(crate) body: String,
    /// It is the last one of its connection.
    pub(crate) last: bool,
}

impl Answer {
    /// The value behind a word at the beginning of a line of the body: `pid`, `version`.
    pub(crate) fn value(&self, word: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Who answered.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.value("pid")?.parse().ok()
    }

    /// The answer, if it belongs to the request with this number.
    pub(super) fn of(self, number: u64, of_it: bool) -> Result<Self, Loss> {
        match of_it {
            true => Ok(self),
            false => Err(Loss::new(Sight::Wrong, format!("request {number} was answered with {self:?}"))),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|(key, value)| (key == name).then_some(&**value))
    }

    /// Its length, if it does not come in chunks.
    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }
}

impl Connection {
    /// Connects; call it in the machine's network.
    pub(crate) fn open(address: &str) -> Result<Self, Loss> {
        let stream = TcpStream::connect(address).map_err(Loss::from_io("connect"))?;
        let patient =
            stream.set_read_timeout(Some(PATIENCE * slowness())).and_then(|()| stream.set_nodelay(true));
        patient.map_err(Loss::from_io("prepare"))?;
        // There may be thousands, and few answers are longer.
        Ok(Self(BufReader::with_capacity(512, stream)))
    }

    /// Sends a request and reads the whole response; a last one is read to the end of the stream.
    pub(crate) fn get(&mut self, path: &str, close: bool) -> Result<Answer, Loss> {
        self.send(path, close)?;
        self.answer()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, path: &str, close: bool) -> Result<(), Loss> {
        let ending = if close { "Connection: close\r\n" } else { "" };
        self.write(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n{ending}\r\n"))
    }

    /// Sends a request but for its body: in flight for as long as the client pleases.
    pub(crate) fn begin(&mut self, path: &str) -> Result<(), Loss> {
        self.write(&format!("POST {path} HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\n"))
    }

    /// Sends the body of a request, and reads the whole response.
    pub(crate) fn finish(&mut self) -> Result<Answer, Loss> {
        self.write("!")?;
        self.answer()
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &str) -> Result<(), Loss> {
        self.0.get_mut().write_all(bytes.as_bytes()).map_err(Loss::from_io("request"))
    }

    /// Sends bytes as they are while another thread reads.
    pub(crate) fn writer(&self) -> TcpStream {
        self.0.get_ref().try_clone().expect("dup")
    }

    /// Ends our half of it: nothing more will be sent.
    pub(crate) fn end_sending(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Waits so long, or until `bell` rings: in this time nothing may come, and no end either.
    pub(crate) fn rest(&self, time: Duration, bell: Option<&dyn AsFd>) -> Result<(), Loss> {
        let mut fds = vec![PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)];
        fds.extend(bell.map(|bell| PollFd::new(bell.as_fd(), PollFlags::POLLIN)));
        let time = PollTimeout::try_from(time).expect("a time for poll(2)");
        poll(&mut fds, time).map_err(|error| Loss::from_io("rest")(error.into()))?;
        match fds[0].any() {
            Some(true) => {
                Err(Loss::new(Sight::Cut, "something came, or the end, while nothing was asked for"))
            }
            _ => Ok(()),
        }
    }

    /// Reads a whole response that is a success.
    pub(crate) fn answer(&mut self) -> Result<Answer, Loss> {
        let answer = self.response(false)?;
        match answer.status.split(' ').nth(1) {
            Some("200") => Ok(answer),
            _ => Err(Loss::new(Sight::Other, format!("status: {answer:?}"))),
        }
    }

    /// Reads a whole response, whatever it is; one to a HEAD has no body.
    pub(crate) fn response(&mut self, to_head: bool) -> Result<Answer, Loss> {
        let mut answer = self.head()?;
        let interim = answer.status.starts_with("HTTP/1.1 1");
        if interim || to_head {
            return Ok(answer);
        }
        if let Some(length) = answer.length() {
            answer.body = self.bytes(length)?;
        } else if answer.is_chunked() {
            while let Some(chunk) = self.chunk()? {
                answer.body += &chunk;
            }
        } else {
            answer.last = true;
        }
        if answer.last {
            answer.body += &self.end()?;
        }
        Ok(answer)
    }

    /// Reads a response up to its body.
    pub(crate) fn head(&mut self) -> Result<Answer, Loss> {
        let status = self.line("status")?;
        if !status.starts_with("HTTP/1.") {
            return Err(Loss::new(Sight::Other, format!("status: {status:?}")));
        }
        let mut answer = Answer { last: false, status, headers: Vec::new(), body: String::new() };
        loop {
            let header = self.line("header")?;
            match header.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim())) {
                Some((name, value)) => answer.headers.push((name, value.to_owned())),
                None => break,
            }
        }
        answer.last = match answer.header("connection") {
            Some(value) => value.eq_ignore_ascii_case("close"),
            None => answer.status.starts_with("HTTP/1.0"),
        };
        Ok(answer)
    }

    /// Reads a piece of a body that comes in chunks; None at its end.
    pub(crate) fn chunk(&mut self) -> Result<Option<String>, Loss> {
        let size = self.line("chunk size")?;
        let length = usize::from_str_radix(&size, 16)
            .map_err(|error| Loss::new(Sight::Other, format!("chunk size {size:?}: {error}")))?;
        let chunk = self.bytes(length)?;
        self.line("chunk end")?;
        Ok((length > 0).then_some(chunk))
    }

    /// Reads until the service closes the connection.
    pub(crate) fn end(&mut self) -> Result<String, Loss> {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).map_err(Loss::from_io("end"))?;
        Ok(rest)
    }

    /// A line without its end.
    pub(crate) fn line(&mut self, what: &str) -> Result<String, Loss> {
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(Loss::from_io(what))?;
        match line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')) {
            Some(whole) => Ok(whole.to_string()),
            None => Err(Loss::new(Sight::Cut, format!("{what}: the connection ended after {line:?}"))),
        }
    }

    /// So much of a body.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<String, Loss> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).map_err(Loss::from_io("body"))?;
        String::from_utf8(body).map_err(|error| Loss::new(Sight::Other, format!("body: {error}")))
    }
}
