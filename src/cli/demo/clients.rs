//! The demo's clients. None ever retries: what a client did not get was lost.
//!
//! All live on one thread of their own, each asks at its own pace, and together they leave a small
//! machine enough time for the service: waits are what is looked at, not how much it can bear.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::book::{Book, Client, Loss, Served};
use super::session::{Answer, MOST_LINE, Request};

/// Clients that keep their connection.
pub(super) const SESSIONS: usize = 40;

/// Of these, the last ask for work that takes time.
const WORKERS: usize = 6;

/// How long.
const WORK: Duration = Duration::from_millis(250);

/// Clients that make a new connection for each request.
pub(super) const VISITORS: usize = 8;

/// Milliseconds from one request of a client to its next, when answers are at once: not all have the same,
/// so that there is no common beat.
const PACES: [u64; 5] = [6, 7, 8, 9, 10];

/// An answer that is later than this was lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the clients have in common.
#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    /// When the time of the show begins.
    begin: Instant,
    book: Mutex<Book>,
    /// There is more in it.
    more: Notify,
    stop: AtomicBool,
    /// Held by each visitor from its connection to its answer.
    visits: Arc<RwLock<()>>,
}

impl Load {
    /// Starts all of them. They begin at once, also if the time of the show begins later.
    ///
    /// Errors: there can be no thread, or no event loop.
    pub(super) fn start(address: SocketAddr, begin: Instant) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            address,
            begin,
            book: Mutex::new(Book::new(SESSIONS)),
            more: Notify::new(),
            stop: AtomicBool::new(false),
            visits: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        let work = move || LocalSet::new().block_on(&runtime, work(theirs));
        let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What they have seen.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book()
    }

    /// Waits until they have seen more.
    pub(super) fn more(&self) -> Notified<'_> {
        self.shared.more.notified()
    }

    /// Waits until no visitor has a request in flight, and keeps them from the next one as long as what
    /// is returned lives.
    pub(super) async fn without_visitors(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.visits).write_owned().await
    }

    /// Lets each client have its last answer, and closes all connections.
    pub(super) async fn stop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A client that panicked has said so.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Load {
    /// Nobody looks on any more: they stop by themselves.
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Each entry is whole, whatever became of who wrote it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn stops(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn served(&self, served: Served) {
        self.book().served(served);
        self.more.notify_waiters();
    }

    fn lost(&self, client: Client, words: String) {
        self.book().lost(Loss { at: self.now(), client, words });
        self.more.notify_waiters();
    }
}

/// All clients, until they are stopped.
async fn work(shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    for number in 0..SESSIONS {
        clients.spawn_local(session(number, Arc::clone(&shared)));
    }
    for number in 0..VISITORS {
        clients.spawn_local(visitor(number, Arc::clone(&shared)));
    }
    while clients.join_next().await.is_some() {}
}

/// One client that keeps its connection, until something goes wrong with it.
async fn session(number: usize, shared: Arc<Shared>) {
    let client = Client::Session(number);
    let works = number >= SESSIONS - WORKERS;
    let work = if works { WORK } else { Duration::ZERO };
    let mut pace = pace(number);
    let mut connection = match Connection::open(&shared).await {
        Ok(connection) => connection,
        Err(words) => return shared.lost(client, words),
    };
    while !shared.stops() {
        pace.tick().await;
        let asked = shared.now();
        match connection.ask(work, &shared).await {
            Ok(pid) => {
                let answered = shared.now();
                shared.served(Served { client, pid, asked, answered, works });
            }
            Err(words) => {
                return shared.lost(client, format!("request {}: {words}", connection.asked));
            }
        }
    }
}

/// One client that makes a new connection for each request.
async fn visitor(number: usize, shared: Arc<Shared>) {
    let client = Client::Visitor(number);
    let mut pace = pace(number);
    while !shared.stops() {
        pace.tick().await;
        let _visit = shared.visits.read().await;
        let asked = shared.now();
        let visit = async { Connection::open(&shared).await?.ask(Duration::ZERO, &shared).await };
        match visit.await {
            Ok(pid) => {
                let answered = shared.now();
                shared.served(Served { client, pid, asked, answered, works: false });
            }
            Err(words) => shared.lost(client, words),
        }
    }
}

/// The pace of one client.
fn pace(number: usize) -> Interval {
    let mut pace = interval(Duration::from_millis(PACES[number % PACES.len()]));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// A connection, and what its client knows of it.
struct Connection {
    stream: BufReader<TcpStream>,
    /// Requests so far.
    asked: u64,
}

impl Connection {
    /// Connects. In words what went wrong, here and below.
    async fn open(shared: &Shared) -> Result<Self, String> {
        let stream = patiently("connection", TcpStream::connect(shared.address)).await?;
        stream.set_nodelay(true).map_err(|error| format!("TCP_NODELAY: {error}"))?;
        shared.book().connected();
        Ok(Self { stream: BufReader::with_capacity(2 * MOST_LINE, stream), asked: 0 })
    }

    /// Asks for so much work, and returns which process did it.
    async fn ask(&mut self, work: Duration, shared: &Shared) -> Result<u32, String> {
        self.asked += 1;
        let request = Request { number: self.asked, work };
        patiently("request", self.stream.write_all(request.line().as_bytes())).await?;
        loop {
            let line = self.line().await?;
            let answer = Answer::read(&line).ok_or_else(|| format!("{line:?} is no answer"))?;
            if (answer.number, answer.count) == (self.asked, self.asked) {
                return Ok(answer.pid);
            }
            // Whoever gave it last was killed before it could know that it had.
            if (answer.number, answer.count) != (self.asked - 1, self.asked - 1) {
                return Err(format!("{line:?} is the wrong answer"));
            }
            shared.book().repeated();
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let most = u64::try_from(MOST_LINE).unwrap_or(u64::MAX);
        patiently("answer", (&mut self.stream).take(most).read_line(&mut line)).await?;
        match line.strip_suffix('\n') {
            Some(whole) => Ok(whole.to_owned()),
            None => Err(format!("the connection ended after {line:?}")),
        }
    }
}

/// Waits for it, and not for ever.
async fn patiently<T>(what: &str, done: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, done).await {
        Ok(done) => done.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: not within {} s", PATIENCE.as_secs())),
    }
}
