//! A sample service that does what it is told with PID 1's store. It listens at /run/stash; each line
//! is a command and has one line as its answer.
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `stash NAME COUNT` | stashes eventfds named NAME1, NAME2 ... and leaves them with PID 1, until one is refused | `stashed N`, and why no more |
//! | `bare NAME COUNT` | sends the same without asking, and waits for a barrier | `sent` |
//! | `stream NAME` | stashes a unix stream whose peer has written a line and closed | `stashed` or why not |
//! | `listener NAME` | tries to stash a socket that listens | `stashed` or why not |
//! | `connect NAME PORT` | stashes a TCP connection to this port, and keeps it | `stashed` or why not |
//! | `end` | ends that connection | `ended` |
//! | `confirm` | waits until PID 1 holds all | `confirmed` or why not |
//! | `forget NAME` | | `forgotten` or why not |
//! | `free` | | how many more fit |
//! | `arrived` | | how many came out of the store when this process started |
//! | `read NAME` | reads from a unix stream that came out of the store | the line |
//!
//! `stash` and `bare` say with `rate N` in front how many microseconds each took.

use std::error::Error;
use std::io::{BufRead, BufReader as StdReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::{Duration, Instant};

use handover::activation::{Inherited, claim};
use handover::fdstore::{Stashed, Store};
use handover::notify::{Message, Notifier, NotifyState};
use nix::sys::eventfd::EventFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener};

type Answer = Result<String, Box<dyn Error>>;

const SOCKET: &str = "/run/stash";
const PATIENCE: Duration = Duration::from_secs(20);

/// What the service has.
struct Service {
    inherited: Inherited,
    store: Store,
    manager: Notifier,
    arrived: usize,
    connection: Option<Stashed<TcpStream>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let inherited = claim()?;
    let store = Store::from_env(&inherited)?;
    let arrived = inherited.leftover().count();
    let _ = std::fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    let manager = Notifier::from_env()?;
    let _delivery = manager.notify(&Message::ready(), PATIENCE).await?;
    let mut service = Service { inherited, store, manager, arrived, connection: None };
    loop {
        let (stream, _peer) = listener.accept().await?;
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = service.obey(&line).await.unwrap_or_else(|error| error.to_string());
            let _ = lines.get_mut().get_mut().write_all(format!("{answer}\n").as_bytes()).await;
        }
    }
}

impl Service {
    async fn obey(&mut self, line: &str) -> Answer {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["stash", name, count] => Ok(self.stash(name, count.parse()?).await),
            ["bare", name, count] => self.bare(name, count.parse()?).await,
            ["rate", ..] => self.rate(line.strip_prefix("rate ").unwrap_or_default()).await,
            ["stream", name] => self.stream(name).await,
            ["listener", name] => {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                Ok(self.store.stash(name, listener).await.map(|_stored| "stashed".to_owned())?)
            }
            ["connect", name, port] => {
                let stream = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
                self.connection = Some(self.store.stash(name, stream).await?);
                Ok("stashed".to_owned())
            }
            ["end"] => {
                self.connection = None;
                Ok("ended".to_owned())
            }
            ["confirm"] => Ok(self.store.confirm().await.map(|()| "confirmed".to_owned())?),
            ["forget", name] => Ok(self.store.forget(name).await.map(|()| "forgotten".to_owned())?),
            ["free"] => Ok(format!("{:?}", self.store.free())),
            ["arrived"] => Ok(self.arrived.to_string()),
            ["read", name] => {
                let stream = self.inherited.take(name)?.into_unix_stream()?;
                stream.set_nonblocking(false)?;
                let mut line = String::new();
                StdReader::new(stream).read_line(&mut line)?;
                Ok(line.trim_end().to_owned())
            }
            _ => Err(format!("what is {line:?}?").into()),
        }
    }

    /// Stashes until it is refused.
    async fn stash(&self, name: &str, count: usize) -> String {
        for number in 1..=count {
            let thing = match EventFd::new() {
                Ok(thing) => thing,
                Err(error) => return format!("stashed {}: {error}", number - 1),
            };
            match self.store.stash(&format!("{name}{number}"), thing).await {
                Ok(stashed) => drop(stashed.leave()),
                Err(refused) => return format!("stashed {}: {}", number - 1, refused.error),
            }
        }
        format!("stashed {count}")
    }

    /// Sends as anybody might.
    async fn bare(&self, name: &str, count: usize) -> Answer {
        for number in 1..=count {
            let name = format!("FDNAME={name}{number}");
            let message = Message::new(&[NotifyState::Custom("FDSTORE=1"), NotifyState::Custom(&name)])?;
            let thing = EventFd::new()?;
            let _delivery = self.manager.notify_with_fds(&message, &[thing.as_fd()], PATIENCE).await?;
        }
        let _delivery = self.manager.notify_barrier(PATIENCE).await?;
        Ok("sent".to_owned())
    }

    /// Does `line`, and says how long it took.
    async fn rate(&mut self, line: &str) -> Answer {
        let start = Instant::now();
        let answer = Box::pin(self.obey(line)).await?;
        let confirmed = self.store.confirm().await.is_ok();
        Ok(format!("{answer} in {} us, confirmed: {confirmed}", start.elapsed().as_micros()))
    }

    /// Stashes what PID 1 would drop if it watched it.
    async fn stream(&self, name: &str) -> Answer {
        let (ours, mut theirs) = StdStream::pair()?;
        drop(self.store.stash(name, ours).await?.leave());
        theirs.write_all(b"left behind\n")?;
        Ok("stashed".to_owned())
    }
}
