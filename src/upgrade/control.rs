//! Where `handover reload` finds the main process: a listening socket in the abstract namespace.
//!
//! Its name is `handover/PID/RANDOM`, and that of a process which was started to take over ends in
//! `/PREDECESSOR`. No path is needed, so it works under ProtectSystem=strict, PrivateTmp= and
//! DynamicUser=yes; it goes with the process, so nothing is left to unlink; and the random part keeps
//! others from sitting on the name first. Names prove nothing, though: both ends ask the kernel who
//! the other is (SO_PEERCRED, unix(7)), and speak to nobody else.
//! This file never says a word on the socket.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::failure::{Failure, Reason};
use crate::sys::seqpacket;

/// How our names begin; the kernel lists them with `@` for the leading NUL.
const PREFIX: &str = "@handover/";

/// How soon to try a full queue again.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens the control socket of this process, which may be there to take over from the process `after`.
///
/// Errors: EAFNOSUPPORT when RestrictAddressFamilies= lacks AF_UNIX, else what socket(2) says.
pub(crate) fn open(after: Option<i32>) -> io::Result<OwnedFd> {
    let (pid, random) = (std::process::id(), RandomState::new().hash_one(0u8));
    let after = after.map(|pid| format!("/{pid}")).unwrap_or_default();
    seqpacket::listen_at(&format!("{PREFIX}{pid}/{random:016x}{after}").as_bytes()[1..])
}

/// Takes the next caller in. `Ok(Err(..))` is one who may not ask: somebody else's process. Root may look, see
/// [`may_change`].
///
/// Errors: `WouldBlock` when there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Result<Channel, (Channel, Failure)>> {
    let socket = seqpacket::accept(listener)?;
    let peer = seqpacket::peer(socket.as_fd())?;
    Ok(match same_user(peer.uid, "the process that asks").or_else(|failure| root(peer.uid).ok_or(failure)) {
        Ok(()) => Ok(Channel::new(socket)),
        Err(failure) => Err((Channel::new(socket), failure)),
    })
}

/// Whether who asks runs as the same user, and may have things changed.
pub(crate) fn may_change(caller: &impl AsFd) -> Result<(), Failure> {
    let peer = seqpacket::peer(caller.as_fd());
    let peer = peer.map_err(|error| Failure::from_io(Reason::NotPermitted, "ask who asks", &error))?;
    same_user(peer.uid, "the process that asks")
}

/// As [`find`], for root as well, who only looks.
#[cfg(feature = "cli")]
pub(crate) fn find_to_look(pid: i32, patience: Duration) -> Result<Channel, Failure> {
    let looks = |uid| looks_at(uid, nix::unistd::geteuid().as_raw());
    find_who(pid, patience, &looks)
}

/// Whether `own` may look at what `uid` runs.
#[cfg(feature = "cli")]
fn looks_at(uid: u32, own: u32) -> Result<(), Failure> {
    let why =
        || format!("the service runs as uid {uid}, this process as uid {own}: ask as root, or as its user");
    if uid == own || own == 0 { Ok(()) } else { Err(Failure::new(Reason::NotPermitted, why())) }
}

/// Root, if it is.
fn root(uid: u32) -> Option<()> {
    (uid == 0).then_some(())
}

/// Finds and connects to the control socket of the process `pid`, or else of the one that took over
/// from it.
///
/// Blocks up to `patience` while the queue of that socket is full: everybody may connect, and the
/// process turns strangers away as fast as it can.
///
/// Fails with `NoService` when there is no such socket, with `NotPermitted` when it is another user's,
/// and with `NoAnswer` when its queue stays full.
pub(crate) fn find(pid: i32, patience: Duration) -> Result<Channel, Failure> {
    find_who(pid, patience, &|uid| same_user(uid, "the service"))
}

/// The same, with who may run it.
fn find_who(
    pid: i32,
    patience: Duration,
    may: &dyn Fn(u32) -> Result<(), Failure>,
) -> Result<Channel, Failure> {
    let until = Instant::now() + patience;
    loop {
        let names = names()?;
        let found = match knock(names.iter().filter(|name| name.pid == pid), may)? {
            Door::Nobody => knock(names.iter().filter(|name| name.after == Some(pid)), may)?,
            found => found,
        };
        match found {
            Door::Open(channel) => return Ok(channel),
            Door::Nobody => return Err(no_service(pid)),
            Door::Crowded if Instant::now() >= until => return Err(crowded(pid, patience)),
            // connect(2) could wait for one socket; but that may be a stranger's, who never accepts.
            Door::Crowded => std::thread::sleep(PAUSE),
        }
    }
}

/// What came of knocking at some sockets.
enum Door {
    /// The process that the name says is there.
    Open(Channel),
    /// At least one queue was full, and nobody else was there.
    Crowded,
    /// None of them is who its name says.
    Nobody,
}

fn knock<'a>(
    names: impl Iterator<Item = &'a Name>,
    may: &dyn Fn(u32) -> Result<(), Failure>,
) -> Result<Door, Failure> {
    let mut door = Door::Nobody;
    for name in names {
        let socket = match seqpacket::connect_to(&name.text.as_bytes()[1..]) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                door = Door::Crowded;
                continue;
            }
            Err(_) => continue,
        };
        match seqpacket::peer(socket.as_fd()) {
            Ok(peer) if peer.pid == name.pid => {
                may(peer.uid)?;
                return Ok(Door::Open(Channel::new(socket)));
            }
            _ => {}
        }
    }
    Ok(door)
}

/// The name of a control socket, and what it says.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    text: String,
    pid: i32,
    after: Option<i32>,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('/');
        let (pid, _random) = (parts.next()?.parse().ok()?, parts.next()?);
        let after = parts.next().and_then(|pid| pid.parse().ok());
        Some(Self { text: text.to_string(), pid, after })
    }
}

/// The names of all control sockets in this network namespace.
fn names() -> Result<Vec<Name>, Failure> {
    // Room for all at once: the kernel walks its whole table again for each further read.
    let mut table = Vec::with_capacity(64 * 1024);
    // ProcSubset=pid hides /proc/net, but not the file behind it.
    File::open("/proc/self/net/unix")
        .and_then(|mut file| file.read_to_end(&mut table))
        .map_err(|error| Failure::from_io(Reason::NoService, "read /proc/self/net/unix", &error))?;
    // Anybody may have a socket with any bytes in its name.
    let table = String::from_utf8_lossy(&table);
    Ok(table.lines().filter_map(|line| Name::parse(line.split_whitespace().nth(7)?)).collect())
}

/// A successor started by another user would run with that user's rights.
fn same_user(uid: u32, who: &str) -> Result<(), Failure> {
    let own = nix::unistd::geteuid().as_raw();
    if uid == own {
        return Ok(());
    }
    let detail = format!(
        "{who} runs as uid {uid}, this process as uid {own}: they must be the same \
         (has ExecReload= a prefix like + or !, or was `handover reload` started by hand?)"
    );
    Err(Failure::new(Reason::NotPermitted, detail))
}

fn no_service(pid: i32) -> Failure {
    let detail = format!(
        "process {pid} has no control socket of handover: it is not ready yet, not built on the library, \
         or in another network namespace"
    );
    Failure::new(Reason::NoService, detail)
}

fn crowded(pid: i32, patience: Duration) -> Failure {
    let detail = format!(
        "the control socket of process {pid} was full for {} s: the process hangs, or somebody floods it \
         (`ss -xp` shows who)",
        patience.as_secs_f64()
    );
    Failure::new(Reason::NoAnswer, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::message::{Request, VERSION};
    use proptest::prelude::*;

    const ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_caller_finds_the_process_by_its_pid() {
        let _listener = open(None).unwrap();
        let me = std::process::id().cast_signed();
        assert_eq!(seqpacket::peer(find(me, ONCE).unwrap().as_fd()).unwrap().pid, me);
    }

    #[test]
    fn a_caller_who_comes_late_finds_the_process_that_took_over() {
        let gone = i32::MAX;
        assert_eq!(find(gone, ONCE).unwrap_err().reason, Reason::NoService);
        let listener = open(Some(gone)).unwrap();
        let request = Request::Upgrade { version: VERSION, main: gone };
        find(gone, ONCE).unwrap().send(&request, &[]).unwrap();
        let channel = accept(listener.as_fd()).unwrap().unwrap();
        assert_eq!(channel.receive_now::<Request>().unwrap().message, request);
    }

    #[test]
    fn a_squatter_on_the_name_is_passed_over() {
        let _squatter = seqpacket::listen_at(&format!("{PREFIX}1/squatter").as_bytes()[1..]).unwrap();
        assert_eq!(find(1, ONCE).unwrap_err().reason, Reason::NoService);
    }

    #[test]
    fn a_queue_that_is_full_is_waited_for() {
        let gone = i32::MAX - 1;
        let listener = open(Some(gone)).unwrap();
        let name = names().unwrap().into_iter().find(|name| name.after == Some(gone)).unwrap();
        let connect = || seqpacket::connect_to(&name.text.as_bytes()[1..]).ok();
        let _crowd: Vec<_> = std::iter::from_fn(connect).collect();
        assert_eq!(find(gone, ONCE).unwrap_err().reason, Reason::NoAnswer);
        std::thread::scope(|scope| {
            let late = scope.spawn(|| find(gone, Duration::from_secs(20)));
            assert!(accept(listener.as_fd()).unwrap().is_ok());
            assert!(late.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_strangers_name_of_any_bytes_hides_nobody() {
        let stranger = [b"\xff\n\xfe ".as_slice(), &std::process::id().to_ne_bytes()].concat();
        let _stranger = seqpacket::listen_at(&stranger).unwrap();
        let _ours = open(Some(i32::MAX - 30)).unwrap();
        find(i32::MAX - 30, Duration::ZERO).unwrap();
    }

    #[test]
    fn another_user_is_refused_and_told_why() {
        let other = nix::unistd::geteuid().as_raw() + 1;
        let failure = same_user(other, "the service").unwrap_err();
        assert_eq!(failure.reason, Reason::NotPermitted);
        assert!(failure.detail.contains("ExecReload="));
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written_and_no_other_makes_the_reader_panic(
            pid in 1..i32::MAX, after in prop::option::of(1..i32::MAX), any in ".{0,40}",
        ) {
            let ending = after.map(|pid| format!("/{pid}")).unwrap_or_default();
            let name = Name { text: format!("{PREFIX}{pid}/0123456789abcdef{ending}"), pid, after };
            prop_assert!(Name::parse(&name.text).is_some_and(|parsed| parsed == name));
            let _ = (Name::parse(&any), Name::parse(&format!("{PREFIX}{any}")));
        }
    }
}
