//! The new process: says hello, gets ready, and takes the service over.
//!
//! ```text
//!   Successor::find --Hello--> ... initialise ... --Ready--> Offer ... Yours -> Takeover
//!        |                           |                |----> Abort           -> leave
//!        |                           |                `----> (it died)       -> Takeover, unconfirmed
//!        `- no link: PID 1 started us`- (it died), Abort                  -> leave
//! ```
//!
//! A successor that said Ready and then finds its predecessor dead serves: whether it is the main
//! process is for PID 1 to decide. One that has not said it leaves. It never touches the service
//! manager: until the predecessor handed over, PID 1 would drop what it says.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::channel::{AsyncChannel, Channel, ReceiveError};
use super::elder::{Elder, elders};
use super::failure::{Failure, Reason};
use super::launch::LINK;
use super::message::{Order, Report, VERSION};
use super::moves::{Arrival, Taker};
use crate::activation::{Inherited, Kind, Role, Transport};
use crate::sys::seqpacket;

/// Why a successor gives up that is given more connections than it may have descriptors.
const NO_ROOM: &str =
    "it cannot have as many descriptors as there are connections: raise LimitNOFILE= in the unit";

/// What a link is.
const SEQPACKET: Kind = Kind::Socket(Transport::UnixSeqpacket, Role::Connected);

/// This process, while its predecessor still serves.
#[derive(Debug)]
pub(crate) struct Successor {
    link: Option<Channel>,
    /// The last thing that went wrong, to be told if this process gives up.
    trouble: Option<String>,
}

/// The service is ours.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// One more than the predecessor's; counted anew from 1 if it could not tell.
    pub(crate) generation: u64,
    /// Whoever drains; the predecessor first.
    pub(crate) elders: Vec<Elder>,
    /// The connections that came along.
    pub(crate) arrivals: Vec<Arrival>,
    /// The predecessor told PID 1 and said so. If not, it died when we were ready.
    pub(crate) confirmed: bool,
}

impl Successor {
    /// Takes the link out of what was passed, and says hello. `None` when there is no link: this
    /// process was started by PID 1, or by hand.
    ///
    /// What is called so and cannot be a link is left where it is: no predecessor passed it.
    ///
    /// Fails with `Protocol` when more than one link is passed.
    pub(crate) fn find(inherited: &mut Inherited) -> Result<Option<Self>, Failure> {
        let mut links = inherited.take_reserved_as(LINK, SEQPACKET);
        let Some(link) = links.pop() else { return Ok(None) };
        if !links.is_empty() {
            return Err(Failure::new(
                Reason::Protocol,
                format!("{} descriptors are named {LINK}", links.len() + 1),
            ));
        }
        let (_, socket, _) = link.into_parts();
        let link = Channel::new(socket);
        link.send(&Report::Hello { version: VERSION }, &[]).map_err(|error| {
            Failure::from_io(Reason::PredecessorLost, "say hello to the predecessor", &error)
        })?;
        Ok(Some(Self { link: Some(link), trouble: None }))
    }

    /// The process that this one is to take over from: who made the link, as the kernel vouches.
    pub(crate) fn predecessor(&self) -> Option<i32> {
        Some(seqpacket::peer(self.link.as_ref()?.as_fd()).ok()?.pid)
    }

    /// Remembers what went wrong.
    pub(crate) fn note_trouble(&mut self, trouble: impl fmt::Display) {
        self.trouble = Some(trouble.to_string());
    }

    /// Says Ready and waits to be given the service. `takes` is the version of connections' state that
    /// this program reads, if it takes connections that others accepted; it holds those that it is
    /// given meanwhile.
    ///
    /// Fails when this process is not needed (any more); it must leave then, having served nobody.
    pub(crate) async fn ready(mut self, takes: Option<u32>) -> Result<Takeover, Failure> {
        let Some(link) = self.link.take() else { return Err(not_needed("the link is closed")) };
        let link = AsyncChannel::new(link).map_err(|error| not_needed(&error))?;
        // An order that is there already can only be to leave.
        match link.receive_now::<Order>() {
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(not_needed(&error)),
            Ok(_) => return Err(not_needed("the predecessor aborted the upgrade")),
        }
        link.send(&Report::Ready { takes }, &[]).map_err(|error| not_needed(&error))?;
        let mut taker = Taker::default();
        loop {
            let Ok(said) = link.receive::<Order>().await else {
                // It died, or what it said did not arrive whole: no order to leave, and PID 1 may have
                // made this process the main process already.
                let arrivals = taker.all();
                return Ok(Takeover { generation: 1, elders: Vec::new(), arrivals, confirmed: false });
            };
            match said.message {
                Order::Yours { generation, draining } => {
                    let elders = elders(link, draining, said.fds);
                    return Ok(Takeover { generation, elders, arrivals: taker.all(), confirmed: true });
                }
                Order::Abort => return Err(not_needed("the predecessor aborted the upgrade")),
                // The old process would drain with those that stay, and cut them in the end: better it serves on.
                _ if said.fds_lost && takes.is_some() => {
                    let failure =
                        Failure { reason: Reason::Init, detail: NO_ROOM.into(), errno: libc::EMFILE };
                    let _ = link.send(&Report::Failed { errno: failure.errno, detail: NO_ROOM.into() }, &[]);
                    return Err(failure);
                }
                // Nothing is ours before Yours.
                order => {
                    let say = |answer: &Report| link.send(answer, &[]);
                    let _ = taker.obey(order, said.fds, takes.is_some(), say);
                }
            }
        }
    }
}

impl Drop for Successor {
    /// A process that gives up before it was ready says why, and its predecessor need not guess.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let detail = self.trouble.take().unwrap_or_else(|| "it gave up before it was ready".into());
        // The predecessor sees the end of the link in any case.
        let _ = link.send(&Report::Failed { errno: libc::ECANCELED, detail: cut(&detail) }, &[]);
    }
}

fn not_needed(why: impl fmt::Display) -> Failure {
    Failure::new(Reason::PredecessorLost, format!("this process is not needed and leaves: {why}"))
}

/// No more than a message carries.
fn cut(text: &str) -> String {
    const LONGEST: usize = 2000;
    text.char_indices().take_while(|(at, _)| *at < LONGEST).map(|(_, c)| c).collect()
}
