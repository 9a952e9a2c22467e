//! Clients that never retry: what they see is what a service's own clients would.
//!
//! A request is counted when its whole response is there. Everything else is a failure with words: a
//! connection that was refused or reset, a response that was cut or late, a keep-alive connection
//! that was closed although no response had said so.
//!
//! Each request has a number of its own, which the answer of a sample service repeats: one that belongs to
//! another request is seen.
#![expect(clippy::expect_used, reason = "a test's hands: what fails, fails the test")]

mod connection;
pub(crate) mod guest;

use std::collections::BTreeSet;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::setpriority_process;

use crate::lab::{Machine, slowness};
use crate::progress::Progress;
pub(crate) use connection::{Answer, Connection, Loss, Sight};
use guest::Guest;

/// How late a response may be before it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long the clients of most scenarios wait before a request: in an upgrade of some tens of milliseconds each
/// still meets every phase, and what they test has processors left. Of clients in a hurry, who take all there
/// are, `http::upgrades` and `http::outside` have crowds.
pub(crate) const BREATH: Duration = Duration::from_millis(2);

/// The nice value of a thread (setpriority(2)) that is to have what others leave of the processors: services are
/// what is tested, and clients in a hurry would take most of the time from them.
const WHAT_IS_LEFT: i32 = 10;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// A new one for each request.
    NewConnection,
    /// The same, and so long before each.
    Calling(Duration),
    /// The same, to a program that knows nothing of numbers: its answers need only be whole.
    Stranger(Duration),
    /// One for as long as the service keeps it, and so long between an answer and the next request. Once more
    /// when all is over.
    Thinking(Duration),
    /// Of a program that knows nothing of us, in its own manner.
    Guest(Guest),
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Stop,
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Tally>>,
}

/// Whoever holds this has clients at work: those of a test that failed stop by themselves, for there is
/// nobody left to answer them.
#[derive(Debug)]
struct Stop(#[expect(dead_code, reason = "what counts is its end")] PipeWriter);

/// Where a client hears that it is to stop, while it waits and at any time.
#[derive(Clone, Debug)]
struct Bell(Arc<PipeReader>);

impl Bell {
    fn new() -> (Stop, Self) {
        let (bell, stop) = std::io::pipe().expect("a pipe");
        (Stop(stop), Self(Arc::new(bell)))
    }

    fn rings(&self) -> bool {
        self.rings_within(Duration::ZERO)
    }

    fn rings_within(&self, time: Duration) -> bool {
        let end = PollFd::new(self.0.as_fd(), PollFlags::POLLIN);
        let time = PollTimeout::try_from(time).expect("a time for poll(2)");
        poll(&mut [end], time).expect("poll a pipe") > 0
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
    /// Keep-alive connections that the service has ended, politely.
    pub(crate) closes: u64,
    /// Who answered.
    pub(crate) pids: BTreeSet<u32>,
    /// The longest that a client had to wait.
    pub(crate) slowest: Duration,
}

impl Load {
    /// Starts clients inside `machine`, and returns once each has had its first answer.
    pub(crate) fn start(machine: &Machine, address: &'static str, clients: &[Client]) -> Self {
        let (stop, bell) = Bell::new();
        let progress = Arc::new(Progress::of(clients.len(), PATIENCE * slowness()));
        let start = |(number, client): (usize, &Client)| {
            let (client, bell, progress) = (*client, bell.clone(), Arc::clone(&progress));
            machine.network_thread(&format!("{client:?} {number}"), move || {
                let mut tally = Tally::default();
                let first = (number as u64) << 32;
                client.work(address, first, &bell, &mut tally, || progress.add(number));
                tally
            })
        };
        let clients = clients.iter().enumerate().map(start).collect();
        progress.begin();
        Self { stop, progress, clients }
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Lets the clients finish `more` requests.
    pub(crate) fn pass(&self, more: u64) {
        self.progress.pass(more);
    }

    /// Lets every client finish `more` requests.
    pub(crate) fn pass_each(&self, more: u64) {
        self.progress.pass_each(more);
    }

    /// Lets each client finish its request, and adds up.
    pub(crate) fn stop(self) -> Tally {
        drop(self.stop);
        let mut sum = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client panicked");
            sum.requests += tally.requests;
            sum.connections += tally.connections;
            sum.closes += tally.closes;
            sum.failures.extend(tally.failures);
            sum.pids.extend(tally.pids);
            sum.slowest = sum.slowest.max(tally.slowest);
        }
        sum
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

    /// The same, and no client has seen the end of a connection that it would have kept.
    pub(crate) fn assert_nothing_noticed(&self) {
        self.assert_nothing_lost();
        assert_eq!(self.closes, 0, "keep-alive connections were ended");
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
    fn work(self, address: &str, first: u64, bell: &Bell, tally: &mut Tally, mut each: impl FnMut()) {
        if let Self::Guest(guest) = self {
            return guest.work(address, bell, tally, each);
        }
        if self.is_hurried() {
            setpriority_process(None, WHAT_IS_LEFT).expect("a thread may be nicer");
        }
        let mut kept: Option<Connection> = None;
        let mut numbers = first..;
        while !bell.rings_within(self.pause()) {
            if let (Self::Thinking(time), Some(connection)) = (self, &kept)
                && let Err(loss) = connection.rest(time, Some(&*bell.0))
            {
                tally.failures.push(loss.of(&self));
                kept = None;
            }
            let begin = Instant::now();
            let number = numbers.next().unwrap_or(first);
            let answer = match kept.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(address).inspect(|_| tally.connections += 1),
            }
            .and_then(|mut connection| Ok((self.ask(&mut connection, number)?, connection)));
            tally.slowest = tally.slowest.max(begin.elapsed());
            match answer {
                Ok((answer, connection)) => {
                    tally.requests += 1;
                    tally.pids.extend(answer.pid());
                    tally.closes += u64::from(answer.last && !self.is_new());
                    if !answer.last {
                        kept = Some(connection);
                    }
                    each();
                }
                Err(loss) => tally.failures.push(loss.of(&self)),
            }
        }
    }

    /// Whether each request has a connection of its own.
    fn is_new(self) -> bool {
        matches!(self, Self::NewConnection | Self::Calling(_) | Self::Stranger(_))
    }

    /// Whether it would take all the processors that there are.
    fn is_hurried(self) -> bool {
        matches!(self, Self::NewConnection | Self::Thinking(Duration::ZERO))
    }

    /// How long it waits where it has no connection that could end meanwhile.
    fn pause(self) -> Duration {
        match self {
            Self::Calling(time) | Self::Stranger(time) => time,
            _ => Duration::ZERO,
        }
    }

    /// A request with this number, and its answer. Every fifth has a body, which comes back.
    fn ask(self, connection: &mut Connection, number: u64) -> Result<Answer, Loss> {
        if number % 5 == 4 && !self.is_new() {
            let body = format!("{number} ").repeat(usize::try_from(number % 97).unwrap_or(0));
            let length = body.len();
            connection.write(&format!(
                "POST /echo HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n{body}"
            ))?;
            let answer = connection.answer()?;
            let of_it = answer.body == body;
            return answer.of(number, of_it);
        }
        let answer = connection.get(&format!("/?number={number}"), self.is_new())?;
        let of_it = matches!(self, Self::Stranger(_))
            || answer.value("number").and_then(|number| number.parse().ok()) == Some(number);
        answer.of(number, of_it)
    }
}
