//! The answers to a program that binds and listens: a slot in place of its own socket, or none.
//!
//! A refusal says in the generation's notes which line of a `.socket` unit would fit; an address that no
//! slot has is left alone, and noted, too. What cannot be looked at is left alone.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::address::{self, Choice, Kind, Place};
use super::inside;
use super::slots::{self, Group, Slots};
use crate::activation::{self, Role, Transport};
use crate::sys::pidfd::Pidfd;
use crate::sys::seccomp::{self, Answer, Call, Notification};
use crate::sys::{kind, mirror, other};

/// What a generation did about its sockets otherwise than a slot wants it, in words.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    troubles: Vec<String>,
    /// It bound a socket that can have no slots: a unix socket.
    pub(crate) has_unix: bool,
    /// It has an io_uring, through which it may bind, and wait for connections, unseen.
    pub(crate) has_ring: bool,
    /// The slots that it listens on, by inode.
    pub(crate) listens: HashSet<u64>,
}

/// What is said of a program with an io_uring that never got ready.
const RING: &str = "it has an io_uring: a bind through that is not seen, and gets no slot (have it bind by \
                    the system call, or take LISTEN_FDS)";

/// Most notes of one generation.
const MOST_NOTES: usize = 8;

impl Notes {
    /// All of them in one text; empty if there are none.
    pub(crate) fn text(&self) -> String {
        self.troubles.join("; ")
    }

    /// What may be the matter with one that never got ready, beside that.
    pub(crate) fn suspicion(&self) -> Option<&'static str> {
        self.has_ring.then_some(RING)
    }

    fn note(&mut self, words: String) {
        if self.troubles.len() < MOST_NOTES && !self.troubles.contains(&words) {
            self.troubles.push(words);
        }
    }
}

/// One who asks, and for whom the answer is.
pub(crate) struct Asked<'a> {
    pub(crate) listener: BorrowedFd<'a>,
    pub(crate) notification: &'a Notification,
    /// The slot of its generation.
    pub(crate) slot: usize,
    /// Slots may be made for an address that has none.
    pub(crate) may_open: bool,
}

/// Answers; the index of a group that was made for it.
pub(crate) fn answer(asked: &Asked<'_>, slots: &mut Slots, notes: &mut Notes) -> io::Result<Option<usize>> {
    let before = slots.groups().len();
    let answer = decide(asked, slots, notes);
    seccomp::answer(asked.listener, asked.notification.id, answer)?;
    Ok((slots.groups().len() > before).then_some(before))
}

fn decide(asked: &Asked<'_>, slots: &mut Slots, notes: &mut Notes) -> Answer {
    let Notification { tid, number, call, .. } = *asked.notification;
    match call {
        Call::Listen => match look(tid, number) {
            // It does already, and its backlog is the unit's.
            Ok((_, inode)) if slots.has(inode) => {
                notes.listens.insert(inode);
                Answer::Done
            }
            _ => Answer::Continue,
        },
        Call::Ring => {
            notes.has_ring = true;
            Answer::Continue
        }
        Call::Bind { address, len } => bind(asked, (number, address, len), slots, notes),
        Call::ForeignBind { address, len } => bind(asked, (number, address, len), slots, notes),
        Call::PackedBind { arguments } => {
            let packed = other::bytes_at(tid, arguments, 12).unwrap_or_default();
            let mut words =
                packed.chunks_exact(4).filter_map(|word| word.try_into().ok()).map(u32::from_ne_bytes);
            match (words.next(), words.next(), words.next()) {
                (Some(number), Some(address), Some(len)) => {
                    bind(asked, (number.cast_signed(), address.into(), len.into()), slots, notes)
                }
                _ => Answer::Continue,
            }
        }
    }
}

/// What becomes of a bind(2) with these arguments.
fn bind(asked: &Asked<'_>, call: (i32, u64, u64), slots: &mut Slots, notes: &mut Notes) -> Answer {
    let (tid, (number, address, len)) = (asked.notification.tid, call);
    let bytes = other::bytes_at(tid, address, len).unwrap_or_default();
    let Some(address) = address::read(&bytes) else {
        if let Some(path) = address::unix_path(&bytes) {
            notes.has_unix = true;
            if let Some(there) = slots.unix_at(&path) {
                notes.note(format!(
                    "it binds {there} itself, which the unit has, and of which there can be one only: have it take \
                     LISTEN_FDS, or listen on TCP"
                ));
            }
        }
        return Answer::Continue;
    };
    let found = look(tid, number);
    // What was read belongs to a process that still waits, and not to one that has its number now.
    if !seccomp::is_valid(asked.listener, asked.notification.id) {
        return Answer::Continue;
    }
    match found {
        Ok((socket, _)) => place(asked, address, &socket, slots, notes),
        Err(error) => {
            notes.note(format!(
                "the socket that it binds to {address} cannot be looked at ({error}): pidfd_getfd must be \
                 allowed (SystemCallFilter=, CAP_SYS_PTRACE)"
            ));
            Answer::Continue
        }
    }
}

/// A copy of a socket of somebody else's, and its inode.
fn look(tid: i32, number: i32) -> io::Result<(OwnedFd, u64)> {
    let process = Pidfd::open(inside::process_of(tid).ok_or(Errno::ESRCH)?)?;
    let copy = other::copy_of(&process, number)?;
    let inode = nix::sys::stat::fstat(&copy)?.st_ino;
    Ok((copy, inode))
}

/// Puts a slot in its place, if it is to have one.
fn place(
    asked: &Asked<'_>,
    address: std::net::SocketAddr,
    socket: &OwnedFd,
    slots: &mut Slots,
    notes: &mut Notes,
) -> Answer {
    let kind = match kind::kind(socket.as_fd()) {
        Ok(activation::Kind::Socket(Transport::Tcp | Transport::Mptcp, Role::Alone)) => Kind::Stream,
        Ok(activation::Kind::Socket(Transport::Udp, Role::Alone)) => Kind::Datagram,
        _ => return Answer::Continue,
    };
    let place = Place { address, kind };
    let mut choice = slots.choose(place);
    if let Choice::WrongFamily(group) = choice {
        // A program that binds both families apart, as nginx and redis do, is to have both.
        let apart = slots::is_ipv6_only(socket.as_fd()) || slots.groups()[group].ipv6_only;
        if !(apart && asked.may_open) {
            notes.note(wrong_family(place, &slots.groups()[group], apart));
            return Answer::Refused(Errno::EADDRNOTAVAIL);
        }
        choice = Choice::Elsewhere;
    }
    let group = match choice {
        Choice::Elsewhere if address.port() == 0 => return Answer::Continue,
        Choice::Slots(_) | Choice::Elsewhere if is_foreign(asked.notification) => {
            notes.note(format!(
                "it binds {address} by the 32-bit ABI, in which no slot can be given to it: use a 64-bit build of \
                 the program"
            ));
            return Answer::Refused(Errno::EOPNOTSUPP);
        }
        Choice::Slots(group) => group,
        Choice::Elsewhere if asked.may_open => match slots.open(place, socket.as_fd(), asked.slot) {
            Ok(group) => group,
            Err(error) => {
                notes.note(format!("no slots can be made at {place}: {error}"));
                return Answer::Refused(error.raw_os_error().map_or(Errno::EADDRINUSE, Errno::from_raw));
            }
        },
        Choice::Elsewhere | Choice::WrongFamily(_) => {
            notes.note(format!("it binds {address}, where no slot is ({})", slots.words()));
            return Answer::Continue;
        }
    };
    match put(asked, socket, slots.groups()[group].socket(asked.slot)) {
        Ok(()) => Answer::Done,
        Err(error) => {
            notes.note(format!("no slot can be put in place of {address}: {error}"));
            Answer::Refused(Errno::EADDRINUSE)
        }
    }
}

/// The line that would fit who binds the port of a group, and the other family.
fn wrong_family(place: Place, group: &Group, apart: bool) -> String {
    let there = group.place.map(|place| place.to_string()).unwrap_or_default();
    let only = if apart { " and BindIPv6Only=ipv6-only" } else { "" };
    format!(
        "it binds {}, and the slots are of the other family ({there}): write {place}, as many times, with \
         ReusePort=yes{only}",
        place.address
    )
}

/// Whether it calls the kernel as a 32-bit program does.
fn is_foreign(notification: &Notification) -> bool {
    matches!(notification.call, Call::ForeignBind { .. } | Call::PackedBind { .. })
}

fn put(asked: &Asked<'_>, socket: &OwnedFd, slot: BorrowedFd<'_>) -> io::Result<()> {
    let Notification { tid, number, .. } = *asked.notification;
    mirror::carry_over(socket.as_fd(), slot)?;
    let close_on_exec = inside::is_close_on_exec(tid, number);
    seccomp::replace(asked.listener, asked.notification, slot, close_on_exec)
}
