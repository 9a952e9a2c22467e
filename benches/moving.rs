//! What it costs to move connections in an upgrade, and how that grows, beside a loop that does nothing
//! but send and receive the same descriptors.
//!
//! What they cost before the commit is the time from the request until the manager hears MAINPID=, less
//! that of the same service without connections: until then the old process can go on. After it the new
//! one puts them to use, while the first of them are served already.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send,
    sendmsg, socketpair,
};
use nix::unistd::close;

use crate::service::Service;
use crate::table::{Row, Table, median, milliseconds};

/// The argument by which this program is the receiver of the bare loop.
pub(crate) const RECEIVER: &str = "receiver";

/// How many connections there are, and how often it is measured with each number.
const SIZES: [usize; 4] = [1000, 2500, 5000, 10_000];
const ROUNDS: usize = 15;

/// What one message of ours carries: descriptors, and bytes for each (13 and its 32 of state).
const BATCH: usize = 252;
const BYTES: usize = BATCH * 45 + 17;

/// Each number of connections.
pub(crate) fn measure(table: &mut Table) {
    for connections in SIZES {
        rows(table, connections);
    }
}

/// As the manual has it for the unit: for this program, and for the services that it starts.
pub(crate) fn raise_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("RLIMIT_NOFILE");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise the soft RLIMIT_NOFILE");
}

fn rows(table: &mut Table, connections: usize) {
    let mut empty = Service::start_of("moving-none", "live", "");
    let mut service = Service::start_of("moving", "live", "");
    let mut clients = connect(service.address, connections);
    let (mut none, mut all, mut bare, mut quiet, mut served) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let upgrade = empty.upgrade();
        none.push(upgrade.switched - upgrade.asked);
        bare.push(bare_loop(&clients));
        let begin = Instant::now();
        ask_all(&mut clients, service.main());
        quiet.push(begin.elapsed());
        let (upgrade, done) = service.upgrade_and(|new| {
            ask_all(&mut clients, new);
            Instant::now()
        });
        all.push(upgrade.switched - upgrade.asked);
        served.push(done - upgrade.asked);
    }
    let [none, all, bare, quiet, served] = [none, all, bare, quiet, served].map(|times| median(&times));
    let moved = all.saturating_sub(none);
    let ratio = moved.as_secs_f64() / bare.as_secs_f64();
    let promised = connections == SIZES[SIZES.len() - 1];
    let within = ratio <= 1.5 && moved < Duration::from_millis(500);
    table.add(&Row {
        what: &format!("moving {connections} connections, before the commit"),
        measured: milliseconds(moved),
        beside: format!("{} bare loop", milliseconds(bare)),
        ratio: Some(ratio),
        bound: promised.then_some(("<= 1.5", within)),
    });
    table.add(&Row {
        what: "  from the request until all were answered",
        measured: milliseconds(served),
        beside: format!("{} without upgrade", milliseconds(quiet)),
        ratio: None,
        bound: None,
    });
}

/// Clients of which each has been answered once.
fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut client = TcpStream::connect(address).expect("connect");
        client.set_nodelay(true).expect("TCP_NODELAY");
        client.write_all(b"p").expect("send a request");
        answer(&mut client);
        client
    };
    (0..count).map(open).collect()
}

/// One request on each connection at once; all answered by `main`.
fn ask_all(clients: &mut [TcpStream], main: i32) {
    for client in &mut *clients {
        client.write_all(b"p").expect("send a request");
    }
    for client in clients {
        assert_eq!(answer(client), u64::from(main.cast_unsigned()), "the new process answers");
    }
}

fn answer(client: &mut TcpStream) -> u64 {
    let mut answer = [0; 8];
    client.read_exact(&mut answer).expect("an answer");
    u64::from_le_bytes(answer)
}

/// Sends all sockets to another process, until that says that it holds them.
fn bare_loop(clients: &[TcpStream]) -> Duration {
    let (mut receiver, link) = receiver();
    let sockets: Vec<RawFd> = clients.iter().map(AsRawFd::as_raw_fd).collect();
    let begin = Instant::now();
    for batch in sockets.chunks(BATCH) {
        let (bytes, rights) = (IoSlice::new(&[1; BYTES]), [ControlMessage::ScmRights(batch)]);
        sendmsg::<()>(link.as_raw_fd(), &[bytes], &rights, MsgFlags::empty(), None).expect("sendmsg");
    }
    send(link.as_raw_fd(), &[0], MsgFlags::empty()).expect("the end");
    recv(link.as_raw_fd(), &mut [0], MsgFlags::empty()).expect("the receiver holds all");
    let took = begin.elapsed();
    drop(link);
    receiver.wait().expect("the end of the receiver");
    took
}

/// A process that receives, as soon as it does.
fn receiver() -> (Child, OwnedFd) {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.expect("a socket pair");
    let this = std::env::current_exe().expect("name of this program");
    let mut command = Command::new(this);
    let child = command.arg(RECEIVER).env_clear().stdin(Stdio::from(theirs)).spawn();
    recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty()).expect("the receiver is there");
    (child.expect("start the receiver"), ours)
}

/// The receiver's life: keeps what comes until it hears that this was all.
pub(crate) fn receive() -> ExitCode {
    let link = std::io::stdin().as_raw_fd();
    send(link, &[0], MsgFlags::empty()).expect("say that we are there");
    let (mut held, mut bytes) = (Vec::new(), [0; BYTES]);
    let mut control = nix::cmsg_space!([RawFd; BATCH]);
    loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(link, &mut parts, Some(&mut control), flags).expect("recvmsg");
        for control in message.cmsgs().expect("no control message was cut") {
            if let ControlMessageOwned::ScmRights(fds) = control {
                held.extend(fds);
            }
        }
        if message.bytes <= 1 {
            break;
        }
    }
    send(link, &[0], MsgFlags::empty()).expect("say that we hold all");
    held.into_iter().for_each(|fd| close(fd).expect("a descriptor of ours"));
    ExitCode::SUCCESS
}
