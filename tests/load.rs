//! Clients that never retry: what they see is what a service's own clients would.
//!
//! A request is counted when its whole response is there. Everything else is a failure with words: a
//! connection that was refused or reset, a response that was cut or late, a keep-alive connection
//! that was closed although no response had said so.
#![expect(clippy::expect_used, reason = "a test's hands: what fails, fails the test")]

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Machine;

/// How late a response may be before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// A new one for each request.
    NewConnection,
    /// One for as long as the service keeps it.
    KeepAlive,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Tally>>,
}

/// How many requests each client has finished.
#[derive(Debug)]
struct Progress {
    done: Mutex<Vec<u64>>,
    more: Condvar,
}

impl Progress {
    fn done(&self) -> MutexGuard<'_, Vec<u64>> {
        self.done.lock().expect("no client panics with a count in its hands")
    }

    fn add(&self, client: usize) {
        self.done()[client] += 1;
        self.more.notify_all();
    }

    /// Waits until `reached`; clients that need more than [`PATIENCE`] for that stand still.
    fn wait(&self, reached: impl Fn(&[u64]) -> bool) {
        let waited = self.more.wait_timeout_while(self.done(), PATIENCE, |done| !reached(done));
        let (done, result) = waited.expect("no client panics with a count in its hands");
        assert!(!result.timed_out(), "the clients stand still at {done:?}");
    }
}

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Whole responses.
    pub(crate) requests: u64,
    /// Connections made.
    pub(crate) connections: u64,
    /// What went wrong.
    pub(crate) failures: Vec<Loss>,
    /// Who answered.
    pub(crate) pids: BTreeSet<u32>,
    /// The longest that a client had to wait.
    pub(crate) slowest: Duration,
}

impl Load {
    /// Starts clients inside `machine`, and returns once each has had its first answer.
    pub(crate) fn start(machine: &Machine, address: &'static str, clients: &[Client]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress { done: Mutex::new(vec![0; clients.len()]), more: Condvar::new() });
        let start = |(number, client): (usize, &Client)| {
            let (client, stop, progress) = (*client, Arc::clone(&stop), Arc::clone(&progress));
            machine.network_thread(&format!("{client:?} {number}"), move || {
                let mut tally = Tally::default();
                client.work(address, &stop, &mut tally, || progress.add(number));
                tally
            })
        };
        let clients = clients.iter().enumerate().map(start).collect();
        progress.wait(|done| done.iter().all(|done| *done > 0));
        Self { stop, progress, clients }
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Lets the clients finish `more` requests.
    pub(crate) fn pass(&self, more: u64) {
        let goal = self.answered() + more;
        self.progress.wait(|done| done.iter().sum::<u64>() >= goal);
    }

    /// Lets every client finish `more` requests.
    pub(crate) fn pass_each(&self, more: u64) {
        let before = self.progress.done().clone();
        self.progress.wait(|done| done.iter().zip(&before).all(|(now, before)| *now >= before + more));
    }

    /// How many requests were answered until now.
    pub(crate) fn answered(&self) -> u64 {
        self.progress.done().iter().sum()
    }

    /// Lets each client finish its request, and adds up.
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            let tally = client.join().expect("a client panicked");
            sum.requests += tally.requests;
            sum.connections += tally.connections;
            sum.failures.extend(tally.failures);
            sum.pids.extend(tally.pids);
            sum.slowest = sum.slowest.max(tally.slowest);
        }
        sum
    }
}

impl Drop for Load {
    /// The clients of a test that failed stop by themselves: there is nobody left to answer them.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// Fails the test unless every request was answered.
    pub(crate) fn assert_nothing_lost(&self) {
        assert!(self.requests > 0, "the clients did nothing");
        assert!(
            self.failures.is_empty(),
            "{} of {} lost: {:#?}",
            self.failures.len(),
            self.requests,
            self.failures
        );
    }

    /// Fails the test if anything was lost but what killed processes had accepted, `most` at most: nobody
    /// may have been refused, and no answer may have come too late.
    pub(crate) fn assert_only_cut(&self, most: usize) {
        let cut = |loss: &Loss| matches!(loss.sight, Sight::Reset | Sight::Cut);
        assert!(self.requests > 0, "the clients did nothing");
        assert!(
            self.failures.iter().all(cut) && self.failures.len() <= most,
            "{} of {} lost, where {most} may be cut: {:#?}",
            self.failures.len(),
            self.requests,
            self.failures
        );
    }
}

impl Client {
    fn work(self, address: &str, stop: &AtomicBool, tally: &mut Tally, mut each: impl FnMut()) {
        let mut kept: Option<Connection> = None;
        while !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let close = self == Self::NewConnection;
            let answer = match kept.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(address).inspect(|_| tally.connections += 1),
            }
            .and_then(|mut connection| Ok((connection.get("/", close)?, connection)));
            tally.slowest = tally.slowest.max(begin.elapsed());
            match answer {
                Ok((answer, connection)) => {
                    tally.requests += 1;
                    tally.pids.extend(answer.pid());
                    if !answer.last {
                        kept = Some(connection);
                    }
                    each();
                }
                Err(loss) => tally.failures.push(loss.of(self)),
            }
        }
    }
}

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
    /// Something else: nonsense, or an error of the client's own.
    Other,
}

impl Loss {
    fn new(sight: Sight, words: impl Into<String>) -> Self {
        Self { sight, words: words.into() }
    }

    /// What an operation on a connection ended with.
    fn from_io(what: &str) -> impl Fn(io::Error) -> Self {
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

    fn of(self, client: Client) -> Self {
        Self { words: format!("{client:?}: {}", self.words), ..self }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.sight, self.words)
    }
}

/// A connection of a client to an HTTP/1.1 service.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its body.
    pub(crate) body: String,
    /// It said `Connection: close`.
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
}

impl Connection {
    /// Connects; call it in the machine's network.
    pub(crate) fn open(address: &str) -> Result<Self, Loss> {
        let stream = TcpStream::connect(address).map_err(Loss::from_io("connect"))?;
        let patient = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true));
        patient.map_err(Loss::from_io("prepare"))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the whole response; a last one is read to the end of the stream.
    pub(crate) fn get(&mut self, path: &str, close: bool) -> Result<Answer, Loss> {
        self.send(path, close)?;
        self.answer()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, path: &str, close: bool) -> Result<(), Loss> {
        let ending = if close { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n{ending}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(Loss::from_io("request"))
    }

    /// Sends a request but for its last line: in flight for as long as the client pleases.
    pub(crate) fn begin(&mut self, path: &str) -> Result<(), Loss> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(Loss::from_io("request"))
    }

    /// Sends the last line of a request, and reads the whole response.
    pub(crate) fn finish(&mut self) -> Result<Answer, Loss> {
        self.0.get_mut().write_all(b"\r\n").map_err(Loss::from_io("request"))?;
        self.answer()
    }

    /// Reads a whole response.
    pub(crate) fn answer(&mut self) -> Result<Answer, Loss> {
        let (length, last) = self.head()?;
        let body = match length {
            Some(length) => self.bytes(length)?,
            None => {
                let mut body = String::new();
                while let Some(chunk) = self.chunk()? {
                    body += &chunk;
                }
                body
            }
        };
        if last {
            let mut rest = Vec::new();
            self.0.read_to_end(&mut rest).map_err(Loss::from_io("end"))?;
        }
        Ok(Answer { body, last })
    }

    /// Reads a response up to its body: its length, if it does not come in chunks, and whether it said
    /// `Connection: close`.
    pub(crate) fn head(&mut self) -> Result<(Option<usize>, bool), Loss> {
        let status = self.line("status")?;
        if !status.starts_with("HTTP/1.1 200 ") {
            return Err(Loss::new(Sight::Other, format!("status: {status:?}")));
        }
        let (mut length, mut last) = (None, false);
        loop {
            let header = self.line("header")?.to_ascii_lowercase();
            match header.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(("connection", value)) => last = value == "close",
                Some(_) => {}
                None => return Ok((length, last)),
            }
        }
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

    fn bytes(&mut self, length: usize) -> Result<String, Loss> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).map_err(Loss::from_io("body"))?;
        String::from_utf8(body).map_err(|error| Loss::new(Sight::Other, format!("body: {error}")))
    }
}
