//! `clients`: the clients of these tests as a program, for machines that only a script can reach: those of
//! `nix-vm-tests`. They never retry, and the exit status is 1 if anything was lost.
//!
//! ```text
//! clients [--cut N] web ADDRESS             HTTP: with new connections and with kept ones, to the sample `web`
//! clients [--cut N] any ADDRESS             HTTP: a new connection for each request, to whatever program
//! clients sessions ADDRESS|/PATH...         five sessions at each address of the sample `keeper`
//! ```
//!
//! It is made for `Type=notify-reload`, systemd.service(5): *started* means that every client has had an answer;
//! *reloaded*, that every client has had two more; *stopped* and not failed, that nothing was lost, but, with
//! `--cut`, what killed processes had accepted, N at most.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[expect(dead_code, reason = "a script wants less of them than tests do")]
mod load;
mod progress;
#[expect(dead_code, reason = "the same")]
mod sessions;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use lab::Machine;
use load::{BREATH, Client, Load};
use sessions::{Address, Sessions};

const USAGE: &str = "usage: clients [--cut N] web|any ADDRESS | clients sessions ADDRESS|/PATH...";

/// What a client has between two looks: enough to have met whatever serves now.
const MORE: u64 = 2;

/// In place of a machine of the lab's: the one on which this runs.
mod lab {
    use std::sync::LazyLock;
    use std::thread::JoinHandle;

    /// How many times longer than elsewhere a client has to wait for the same: CLIENTS_SLOWNESS says it where
    /// the processor is an emulated one.
    pub(crate) fn slowness() -> u32 {
        static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
            std::env::var("CLIENTS_SLOWNESS")
                .map_or(1, |times| times.parse().expect("CLIENTS_SLOWNESS is a number"))
        });
        *SLOWNESS
    }

    /// The machine on which this runs.
    pub(crate) struct Machine;

    impl Machine {
        /// A thread; it has no other network to enter.
        pub(crate) fn network_thread<T: Send + 'static>(
            &self,
            name: &str,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> JoinHandle<T> {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("start a thread")
        }

        /// Its PID 1, as this process counts.
        pub(crate) fn pid1(&self) -> u32 {
            1
        }
    }
}

/// Clients at work, of either kind.
enum Clients {
    /// Of an HTTP service, and how many of their requests may be cut.
    Http(Load, usize),
    Sessions(Sessions),
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let clients = start(std::env::args().skip(1).collect());
    listen(&clients).await;
    clients.stop();
}

/// Starts what the command line says, and returns once each client has had an answer.
fn start(words: Vec<String>) -> Clients {
    let words: Vec<&'static str> = words.into_iter().map(|word| &*word.leak()).collect();
    let (cut, words) = match *words {
        ["--cut", most, ref words @ ..] => (most.parse().expect(USAGE), words),
        ref words => (0, words),
    };
    match *words {
        ["web", address] => {
            let kinds = [
                Client::Calling(BREATH),
                Client::Thinking(BREATH),
                Client::Calling(BREATH),
                Client::Thinking(BREATH),
            ];
            Clients::Http(Load::start(&Machine, address, &kinds), cut)
        }
        ["any", address] => {
            Clients::Http(Load::start(&Machine, address, &[Client::Stranger(BREATH); 4]), cut)
        }
        ["sessions", ref addresses @ ..] if !addresses.is_empty() && cut == 0 => {
            let address = |address: &&'static str| match address.starts_with('/') {
                true => Address::unix(&Machine, address),
                false => Address::Tcp(address),
            };
            let each = addresses.iter().flat_map(|word| std::iter::repeat_n(address(word), 5));
            Clients::Sessions(Sessions::open(&Machine, each.collect()))
        }
        _ => panic!("{USAGE}"),
    }
}

/// Does what PID 1 asks for, until that is to stop.
async fn listen(clients: &Clients) {
    let [mut reload, mut stop] =
        [SignalKind::hangup(), SignalKind::terminate()].map(|kind| signal(kind).unwrap());
    tell(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = reload.recv() => {
                tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap()]);
                clients.pass();
                tell(&[NotifyState::Ready]);
            }
            _ = stop.recv() => return tell(&[NotifyState::Stopping]),
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    sd_notify::notify(states).unwrap();
}

impl Clients {
    /// Waits until each client has had some more answers.
    fn pass(&self) {
        match self {
            Self::Http(load, _) => load.pass_each(MORE),
            Self::Sessions(sessions) => sessions.pass_each(MORE),
        }
    }

    /// Says what they saw, and fails if anything was lost.
    fn stop(self) {
        match self {
            Self::Http(load, cut) => {
                let tally = load.stop();
                println!("{} answers by {:?}, {} cut", tally.requests, tally.pids, tally.failures.len());
                tally.assert_only_cut(cut);
            }
            Self::Sessions(sessions) => {
                let tally = sessions.stop();
                println!("{} answers by {:?}, {} again", tally.answers, tally.pids, tally.repeated);
                tally.assert_nothing_lost();
            }
        }
    }
}
