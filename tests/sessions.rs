//! Clients of `keeper` that never retry and never connect again: a session is one connection, and what it
//! was told stays true whichever process serves it.
//!
//! Each numbers its requests with tags, and knows what every answer must be: the value that was
//! acknowledged last, and a count that is the number of its requests. So a write that is lost, one that
//! is done twice, and a session that begins anew are all seen. An answer may come again, and is counted.
#![expect(clippy::expect_used, reason = "a test's hands: what fails, fails the test")]

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handover::daemon::Stream;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::lab::{Machine, slowness};
use crate::progress::Progress;

/// How late an answer may be before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// A session begins a request every so many milliseconds, each at a pace of its own: at every moment some are
/// idle and some are not.
const PACES: RangeInclusive<u64> = 15..=34;

/// Where a session connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// In the machine's network.
    Tcp(&'static str),
    /// As this process sees it.
    Unix(PathBuf),
}

impl Address {
    /// A unix socket of `machine`.
    pub(crate) fn unix(machine: &Machine, path: &str) -> Self {
        Self::Unix(Path::new(&format!("/proc/{}/root", machine.pid1())).join(path.trim_start_matches('/')))
    }

    async fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        })
    }
}

/// Sessions at work.
#[derive(Debug)]
pub(crate) struct Sessions {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    clients: Option<JoinHandle<Tally>>,
}

/// What the sessions saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers, each once.
    pub(crate) answers: u64,
    /// Answers that came again.
    pub(crate) repeated: u64,
    /// Who answered.
    pub(crate) pids: BTreeSet<u32>,
    /// The longest that a session had to wait for an answer.
    pub(crate) stall: Duration,
    /// What went wrong; a session ends with it.
    pub(crate) failures: Vec<String>,
}

impl Sessions {
    /// Opens one session for each address, and returns once each has had its first answer.
    pub(crate) fn open(machine: &Machine, addresses: Vec<Address>) -> Self {
        let progress = Arc::new(Progress::of(addresses.len(), 2 * PATIENCE * slowness()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, stopped) = (Arc::clone(&progress), Arc::clone(&stop));
        let clients = machine.network_thread("sessions", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work(addresses, theirs, stopped))
        });
        let sessions = Self { stop, progress, clients: Some(clients) };
        sessions.progress.begin();
        sessions
    }

    /// Lets every session have `more` answers.
    pub(crate) fn pass_each(&self, more: u64) {
        self.progress.pass_each(more);
    }

    /// Lets the sessions have `more` answers together.
    pub(crate) fn pass(&self, more: u64) {
        self.progress.pass(more);
    }

    /// Lets each session have its last answer, closes all, and adds up.
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.take().expect("stopped once").join().expect("a session panicked")
    }
}

impl Drop for Sessions {
    /// The sessions of a test that failed stop by themselves.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// Fails the test unless every session went on, and all that it was told is true.
    pub(crate) fn assert_nothing_lost(&self) {
        assert!(self.answers > 0, "the sessions did nothing");
        let (lost, answers) = (self.failures.len(), self.answers);
        assert!(lost == 0, "{lost} sessions went wrong, after {answers} answers: {:#?}", self.failures);
    }
}

/// All sessions, until they are stopped.
async fn work(addresses: Vec<Address>, progress: Arc<Progress>, stop: Arc<AtomicBool>) -> Tally {
    let (local, mut tasks) = (LocalSet::new(), Vec::new());
    let shared = Rc::new((progress, stop));
    for (number, address) in addresses.into_iter().enumerate() {
        let shared = Rc::clone(&shared);
        tasks.push(local.spawn_local(async move {
            let (progress, stop) = &*shared;
            let mut tally = Tally::default();
            if let Err(words) = session(number, &address, progress, stop, &mut tally).await {
                let words = format!("session {number} ({address:?}): {words}");
                progress.fail(&words);
                tally.failures.push(words);
            }
            tally
        }));
    }
    local.await;
    let mut sum = Tally::default();
    for task in tasks {
        let tally = task.await.expect("a session panicked");
        sum.answers += tally.answers;
        sum.repeated += tally.repeated;
        sum.pids.extend(tally.pids);
        sum.stall = sum.stall.max(tally.stall);
        sum.failures.extend(tally.failures);
    }
    sum
}

/// One session from its connection to its end; in words what went wrong.
async fn session(
    number: usize,
    address: &Address,
    progress: &Progress,
    stop: &AtomicBool,
    tally: &mut Tally,
) -> Result<(), String> {
    let stream = address.connect().await.map_err(|error| format!("connect: {error}"))?;
    let mut client = Client {
        stream: BufReader::with_capacity(256, stream),
        tag: 0,
        one: None,
        two: None,
        last: String::new(),
    };
    let pace = PACES.cycle().nth(number).unwrap_or(*PACES.start());
    let mut pace = interval(Duration::from_millis(pace));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let begin = Instant::now();
        client.ask(tally).await.map_err(|words| format!("request #{}: {words}", client.tag))?;
        tally.stall = tally.stall.max(begin.elapsed());
        tally.answers += 1;
        progress.add(number);
    }
    Ok(())
}

/// What one session knows.
struct Client {
    stream: BufReader<Stream>,
    /// Of the last request: how many there were.
    tag: u64,
    /// What was acknowledged last, of two values.
    one: Option<u64>,
    two: Option<u64>,
    /// The last answer, which may come again.
    last: String,
}

/// What an answer must be.
enum Expected {
    Exactly(String),
    /// Whoever serves the session says so.
    Pid,
}

impl Client {
    /// One request, and its answer.
    async fn ask(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.tag += 1;
        let tag = self.tag;
        // What is written is read a few requests later, with the other one written between.
        let (request, expected) = match tag % 10 {
            1 | 6 => (format!("SET one {tag}"), Expected::Exactly("ok".to_owned())),
            4 | 9 => (format!("SET two {tag}"), Expected::Exactly("ok".to_owned())),
            2 | 7 => ("GET two".to_owned(), Expected::Exactly(read(self.two))),
            0 | 5 => ("GET one".to_owned(), Expected::Exactly(read(self.one))),
            // No other line was ever sent here.
            3 => ("COUNT".to_owned(), Expected::Exactly(format!("count {tag}"))),
            _ => ("PID".to_owned(), Expected::Pid),
        };
        let line = format!("#{tag} {request}\n");
        self.stream.write_all(line.as_bytes()).await.map_err(|error| format!("{request}: {error}"))?;
        let answer = loop {
            let line = self.line().await.map_err(|words| format!("{request}: {words}"))?;
            match line.strip_prefix(&format!("#{tag} ")) {
                Some(answer) => break answer.to_owned(),
                None if is_again(&self.last, &line) => tally.repeated += 1,
                None => {
                    return Err(format!("{request}: {line:?} is no answer; the last was {:?}", self.last));
                }
            }
        };
        match expected {
            Expected::Exactly(wanted) if wanted == answer => {}
            Expected::Exactly(wanted) => return Err(format!("{request}: want {wanted:?}, found {answer:?}")),
            Expected::Pid => match answer.strip_prefix("pid ").and_then(|pid| pid.parse().ok()) {
                Some(pid) => _ = tally.pids.insert(pid),
                None => return Err(format!("{request}: want a pid, found {answer:?}")),
            },
        }
        match tag % 10 {
            1 | 6 => self.one = Some(tag),
            4 | 9 => self.two = Some(tag),
            _ => {}
        }
        self.last = format!("#{tag} {answer}");
        Ok(())
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match timeout(PATIENCE * slowness(), self.stream.read_line(&mut line)).await {
            Err(_) => Err(format!("no answer within {:?}, but {line:?}", PATIENCE * slowness())),
            Ok(Err(error)) => Err(format!("{error}, after {line:?}")),
            Ok(Ok(_)) => match line.strip_suffix('\n') {
                Some(whole) => Ok(whole.to_owned()),
                None => Err(format!("the session was closed, after {line:?}")),
            },
        }
    }
}

/// The answer for a value.
fn read(value: Option<u64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("value {value}"))
}

/// Whether `line` is the answer that came last, by whichever process.
fn is_again(last: &str, line: &str) -> bool {
    let by_anyone = |line: &str| line.split_once(" pid ").map(|(tag, _)| tag.to_owned());
    line == last || (by_anyone(line).is_some() && by_anyone(line) == by_anyone(last))
}
