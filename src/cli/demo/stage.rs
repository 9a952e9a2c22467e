//! The stage of the show: the stand-in for PID 1, and in its care the service.
//!
//! It never leaves anything behind: every process and the folder go with it, however the show ends.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::getppid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream, UnixDatagram};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::children::{Children, Process};
use super::folder::{Folder, Version};
use super::session::Request;
use crate::pid1::{self, Activation, Options, Pid1Error};

/// How long the stand-in and the service may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `handover upgrade --json` says, as far as it is shown here.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) outcome: String,
    pub(super) old_pid: Option<u32>,
    pub(super) serving_pid: Option<u32>,
    pub(super) reason: Option<String>,
    pub(super) status_text: Option<String>,
    pub(super) seconds: Option<f64>,
    pub(super) message: String,
}

/// All that has to go away again: processes first, then the folder.
#[derive(Debug)]
pub(super) struct Stage {
    _children: Children,
    folder: Folder,
    program: PathBuf,
    address: SocketAddr,
    /// Keeps the port from others: bound, and not listening.
    _port: TcpSocket,
    standin: Child,
    watch: Process,
    /// From the start of the stand-in to the service's first answer.
    start: Duration,
}

impl Stage {
    /// Sets it up: the service answers. In words what is missing, here and below.
    pub(super) async fn set(sabotage: bool) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(told("find this program"))?;
        let folder = Folder::new(program.clone()).map_err(told("make a temporary folder"))?;
        let children = Children::adopt().map_err(told("become a subreaper"))?;
        let (port, address) = free_port().map_err(told("find a free port on 127.0.0.1"))?;
        folder.fill(address, sabotage).map_err(told("write to a temporary folder"))?;
        let notify = UnixDatagram::bind(folder.notify()).map_err(told("make a socket"))?;
        let begin = Instant::now();
        let standin = start(&program, &folder).map_err(told("start the stand-in"))?;
        let watch = Process::find(standin.id().unwrap_or(0)).map_err(told("watch the stand-in"))?;
        let start = Duration::ZERO;
        let mut stage =
            Self { _children: children, folder, program, address, _port: port, standin, watch, start };
        let answered = tokio::select! {
            answered = timeout(PATIENCE, first_answer(&notify, address)) => answered,
            ended = stage.standin_ends() => return Err(ended),
        };
        let answered = answered.map_err(|_| stage.with_log("the service does not answer"))?;
        let answered = answered.map_err(|error| stage.with_log(&format!("the service: {error}")))?;
        stage.start = answered.duration_since(begin);
        Ok(stage)
    }

    /// From the start of the stand-in to the service's first answer.
    pub(super) fn start(&self) -> Duration {
        self.start
    }

    /// Where the service is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the stand-in ends, which it never should by itself.
    pub(super) async fn standin_ends(&self) -> String {
        match self.watch.ends().await {
            Ok(()) => self.with_log("the stand-in ended before its time"),
            Err(error) => format!("cannot watch the stand-in: {error}"),
        }
    }

    /// Puts a version of the service in place of the one that is installed.
    pub(super) fn install(&self, version: Version) -> Result<(), String> {
        self.folder.install(version).map_err(told("install a version"))
    }

    /// `handover upgrade`: what it tells of it.
    pub(super) async fn upgrade(&self) -> Result<Told, String> {
        let mut command = Command::new(&self.program);
        command.arg("upgrade").arg("--standin").arg(self.folder.runtime()).args(["--json", "keeper"]);
        let output = command.stdin(Stdio::null()).process_group(0).output().await;
        let output = output.map_err(told("run `handover upgrade`"))?;
        // A stream of events, of which the last one tells the end.
        let mut lines = output.stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n');
        serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("`handover upgrade` told nothing ({error}): {}", said.trim_end())
        })
    }

    /// Stops the service and the stand-in, and says how long it took.
    pub(super) async fn stop(&mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        // One that has ended already is told of by its status.
        let _ = self.watch.signal(Signal::SIGTERM);
        match timeout(PATIENCE, self.standin.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(begin.elapsed()),
            Ok(status) => Err(self.with_log(&format!("the stand-in did not end well ({})", ended(status)))),
            Err(_) => {
                Err(self.with_log(&format!("the stand-in did not stop within {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// A sentence, and what the stand-in and the service said last.
    pub(super) fn with_log(&self, sentence: &str) -> String {
        self.folder.with_log(sentence)
    }
}

/// Waits for the first answer of the service, which is started meanwhile, and says when it was there. And
/// for a second one: with that the service finds out, once in its life and for 100 ms, whether PID 1 keeps
/// its connections.
async fn first_answer(notify: &UnixDatagram, address: SocketAddr) -> io::Result<Instant> {
    // READY=1, and nothing else is ever said there: the socket of the service is open.
    notify.recv(&mut [0; 64]).await?;
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    ask(&mut stream, 1).await?;
    let answered = Instant::now();
    ask(&mut stream, 2).await?;
    Ok(answered)
}

/// Asks, and waits for a line.
async fn ask(stream: &mut BufReader<TcpStream>, number: u64) -> io::Result<()> {
    stream.write_all(Request { number, work: Duration::ZERO }.line().as_bytes()).await?;
    stream.read_line(&mut String::new()).await.map(drop)
}

/// A port that is free, and stays so for who binds it with SO_REUSEADDR, as PID 1 does: of two sockets
/// with this option both may be bound, while one of them listens at most.
fn free_port() -> io::Result<(TcpSocket, SocketAddr)> {
    let port = TcpSocket::new_v4()?;
    port.set_reuseaddr(true)?;
    port.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = port.local_addr()?;
    Ok((port, address))
}

/// Starts the stand-in. What a terminal sends on Ctrl-C is not for it: the show ends it in order.
fn start(program: &PathBuf, folder: &Folder) -> io::Result<Child> {
    let log = File::create(folder.log())?;
    let mut command = Command::new(program);
    command.args(["demo", "--pid1"]).arg(folder.path()).env("NOTIFY_SOCKET", folder.notify());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
}

/// Is the stand-in, until it is told to end, or the show has ended in whichever way: one that was killed
/// has left the folder.
pub(super) fn stand_in(folder: &Path) -> Result<(), Pid1Error> {
    let show = getppid();
    // Nothing is in it that was not put there for the show.
    let Some(folder) = Folder::left(folder) else { return Ok(()) };
    let options = Options {
        paths: vec![folder.units()],
        runtime: Some(folder.runtime()),
        activation: Activation::AsInstalled,
        // A cgroup could be left behind.
        cgroups: false,
        with_parent: true,
    };
    let served = pid1::run(&options, io::stdout());
    if getppid() == show {
        // It has the folder, and the log in it.
        std::mem::forget(folder);
    }
    served
}

fn ended(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// What could not be done, and why.
fn told<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("cannot {what}: {error}")
}
