//! `handover run --explain`: the program is started aside, where no client comes, and watched: what it
//! binds, how it gets ready, how it ends, and so what a unit for it looks like.
//!
//! Whatever address it binds, it gets a port of this host's own that nobody knows. It does run, though:
//! what it writes to its files, it writes. This file never starts it twice.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::fence::Ground;
use super::generation::{Around, Fact, Generation, reap};
use super::inside;
use super::intercept::{self, Asked};
use super::options::{Options, Strategy};
use super::slots::Slots;
use crate::upgrade::{Failure, Reason};

/// How soon to look again whether it waits on its sockets, of which nobody is told.
const PAUSE: Duration = Duration::from_millis(20);

/// How the program got ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It said READY=1.
    Said,
    /// It waits on all sockets that it has bound.
    Waits,
}

/// What was seen of the program.
#[derive(Debug)]
struct Sight {
    ready: Option<(Way, Duration)>,
    /// How its main process ended by itself.
    ended: Option<String>,
    /// Something of it ran on after that.
    is_daemon: bool,
    /// How long it took to end after its signal.
    stopped: Option<Duration>,
    in_cgroup: bool,
    /// It has locks on files.
    locks: bool,
}

/// Starts the program aside, and says in words what was seen of it.
///
/// Errors: it cannot be started.
pub(super) async fn explain(options: &Options) -> Result<String, Failure> {
    let system = |what: &'static str| move |error| Failure::from_io(Reason::Spawn, what, &error);
    let mut child = signal(SignalKind::child()).map_err(system("catch signals"))?;
    crate::sys::other::adopt_orphans().map_err(system("become the parent of orphans"))?;
    let (tell, mut facts) = unbounded_channel();
    let (mut slots, ground) = (Slots::aside(), Ground::find().ok());
    let around = Around { ground: ground.as_ref(), settings: None, facts: &tell };
    let mut generation = Generation::start(0, 0, &options.command, &slots, &around)?;
    let begin = Instant::now();
    let mut sight = Sight {
        ready: None,
        ended: None,
        is_daemon: false,
        stopped: None,
        in_cgroup: ground.is_some(),
        locks: false,
    };
    while sight.ready.is_none() && begin.elapsed() < options.ready && !generation.is_gone() {
        tokio::select! {
            Some(fact) = facts.recv() => sight.learn(fact, &mut generation, &mut slots, begin),
            _ = child.recv() => sight.reap(&mut generation),
            () = tokio::time::sleep(PAUSE) => {
                let waits = !slots.groups().is_empty() && generation.unserved(&slots).is_empty();
                sight.ready = waits.then(|| (Way::Waits, begin.elapsed()));
            }
        }
    }
    sight.is_daemon = generation.ended.is_some() && !generation.is_gone();
    sight.locks = inside::has_locks(&generation.fence.pids());
    sight.stop(options, &mut generation, &mut slots, &mut facts, &mut child).await;
    // It is empty now, or its processes are about to go.
    let _ = generation.fence.remove();
    Ok(sight.words(options, &slots, &generation))
}

impl Sight {
    fn learn(&mut self, fact: Fact, generation: &mut Generation, slots: &mut Slots, begin: Instant) {
        match fact {
            Fact::Asks(_, notification) => {
                let Some(listener) = generation.listener() else { return };
                let asked = Asked {
                    listener: std::os::fd::AsFd::as_fd(&*listener),
                    notification: &notification,
                    slot: 0,
                    may_open: true,
                };
                // Who is not answered ends with the rest.
                let _ = intercept::answer(&asked, slots, &mut generation.notes);
            }
            Fact::Says(_, word) if word.ready => self.ready = Some((Way::Said, begin.elapsed())),
            _ => {}
        }
    }

    fn reap(&mut self, generation: &mut Generation) {
        for (pid, how, _) in reap() {
            if generation.main.as_ref().is_some_and(|main| main.pid() == pid) {
                generation.ended = Some(how.clone());
                self.ended = Some(how);
            }
        }
    }

    /// Sends it its signal, and kills what is left in the end.
    async fn stop(
        &mut self,
        options: &Options,
        generation: &mut Generation,
        slots: &mut Slots,
        facts: &mut UnboundedReceiver<Fact>,
        child: &mut Signal,
    ) {
        let (begin, early) = (Instant::now(), self.ended.clone());
        if !generation.is_gone() {
            generation.signal(options.signal());
        }
        self.follow(options.stop, generation, slots, facts, child).await;
        self.stopped = generation.is_gone().then(|| begin.elapsed());
        self.ended = early;
        generation.fence.kill();
        self.follow(options.stop, generation, slots, facts, child).await;
    }

    /// Waits until nothing of it is left, for so long.
    async fn follow(
        &mut self,
        patience: Duration,
        generation: &mut Generation,
        slots: &mut Slots,
        facts: &mut UnboundedReceiver<Fact>,
        child: &mut Signal,
    ) {
        let begin = Instant::now();
        while !generation.is_gone() {
            tokio::select! {
                Some(fact) = facts.recv() => self.learn(fact, generation, slots, begin),
                _ = child.recv() => self.reap(generation),
                () = tokio::time::sleep_until((begin + patience).into()) => return,
            }
        }
    }

    fn words(&self, options: &Options, slots: &Slots, generation: &Generation) -> String {
        let mut text = String::new();
        let places: Vec<_> = slots.groups().iter().filter_map(|group| group.place).collect();
        let command = options.command.iter().map(|word| quoted(&word.to_string_lossy()));
        let command = command.collect::<Vec<_>>().join(" ");
        let mut say = |line: String| {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{line}");
        };
        for place in &places {
            say(format!("binds    {place}: it gets a slot in place of its own socket"));
        }
        if places.is_empty() {
            say("binds    no address of TCP or UDP; if it takes LISTEN_FDS, write its .socket unit by hand"
                .into());
        } else {
            say(match options.strategy {
                Strategy::Overlap => {
                    "mode     overlap: each generation has slots of its own, two run at a switch"
                }
                Strategy::Serial => "mode     serial: there is one at a time, and clients wait at a switch",
            }
            .into());
        }
        match &self.ready {
            Some((Way::Said, after)) => {
                say(format!(
                    "ready    {:.2} s after its start: it says READY=1 (use --notify)",
                    after.as_secs_f64()
                ));
            }
            Some((Way::Waits, after)) => {
                say(format!(
                    "ready    {:.2} s after its start: it waits on what it has bound",
                    after.as_secs_f64()
                ));
            }
            None if self.ended.is_some() => say("ready    never: it ended before".into()),
            None => say(format!("ready    never, within {} s", options.ready.as_secs_f64())),
        }
        if let Some(ended) = &self.ended {
            let daemon = if self.is_daemon { "; a daemon runs on, and is kept by its cgroup" } else { "" };
            say(format!("ends     by itself: it {ended}{daemon}"));
        }
        let (signal, patience) = (options.signal(), options.stop.as_secs_f64());
        match self.stopped {
            _ if self.ended.is_some() && !self.is_daemon => {}
            Some(after) => say(format!("stops    {:.2} s after {signal}", after.as_secs_f64())),
            None => say(format!("stops    not within {patience} s after {signal}: it has to be killed")),
        }
        self.buts(generation).into_iter().for_each(say);
        if !places.is_empty() {
            let folder = std::env::current_dir().map(|folder| folder.display().to_string());
            let wanted = Wanted {
                is_serial: options.strategy == Strategy::Serial,
                notifies: self.ready.is_some_and(|(way, _)| way == Way::Said),
                both_apart: slots.groups().iter().any(|group| group.ipv6_only),
                ready: options.ready,
                folder: folder.ok().filter(|folder| folder != "/"),
            };
            text += &units(&command, &places, &wanted);
        }
        text
    }

    /// What would not work, or less well.
    fn buts(&self, generation: &Generation) -> Vec<String> {
        let mut all = Vec::new();
        let notes = generation.notes.text();
        if !notes.is_empty() {
            all.push(format!("but      {notes}"));
        }
        if let (None, Some(suspicion)) = (&self.ready, generation.notes.suspicion()) {
            all.push(format!("but      {suspicion}"));
        }
        if generation.notes.has_unix {
            all.push(
                "but      it binds a unix socket, which can have no slots: two generations would".into(),
            );
            all.push("         fight for its path".into());
        }
        if self.locks {
            all.push(
                "but      it locks files: if two of it cannot run at once, add --strategy serial".into(),
            );
        }
        if !self.in_cgroup {
            all.push("here     there is no cgroup to make others in; a unit has one by Delegate=yes".into());
        }
        all
    }
}

/// What units need beside the addresses.
#[derive(Debug, Default)]
struct Wanted {
    /// There can be one at a time.
    is_serial: bool,
    /// The program says READY=1.
    notifies: bool,
    /// It binds addresses of IPv6 for IPv6 alone.
    both_apart: bool,
    /// The folder that it was started in.
    folder: Option<String>,
    /// How long it may take until it serves.
    ready: Duration,
}

/// The units for such a program.
fn units(command: &str, places: &[super::address::Place], wanted: &Wanted) -> String {
    let mut lines: String = places.iter().map(|place| format!("{place}\n").repeat(3)).collect();
    if wanted.both_apart {
        lines += "BindIPv6Only=ipv6-only\n";
    }
    let notify = if wanted.notifies { " --notify" } else { "" };
    let strategy = if wanted.is_serial { " --strategy serial" } else { "" };
    let folder =
        wanted.folder.as_ref().map(|folder| format!("WorkingDirectory={}\n", folder.replace('%', "%%")));
    let folder = folder.unwrap_or_default();
    // A reload that fails has to end by itself before systemd ends it.
    let timeout = wanted.ready.as_secs() + 30;
    format!(
        "\n# NAME.socket\n[Socket]\n{lines}ReusePort=yes\nTriggerLimitIntervalSec=0\n\n[Install]\n\
         WantedBy=sockets.target\n\n# NAME.service\n[Unit]\nStartLimitIntervalSec=0\n\n[Service]\n\
         Type=notify\nNotifyAccess=main\nDelegate=yes\n{folder}ExecStart=/usr/bin/handover run{strategy}{notify} -- {command}\n\
         ExecReload=/usr/bin/handover reload\nSyslogIdentifier=%N\nTimeoutStartSec={timeout}\nNonBlocking=yes\nKillMode=process\n\
         Restart=always\nRestartSec=100ms\nFileDescriptorStoreMax=64\nFileDescriptorStorePreserve=yes\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    )
}

/// A word as ExecStart= takes it: systemd.service(5), "Command lines".
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_it_must_be() {
        for (word, wanted) in [
            ("/usr/bin/x", "/usr/bin/x"),
            ("--rate=5%", "--rate=5%%"),
            ("a b", "\"a b\""),
            ("", "\"\""),
            ("$HOME\\\"", "\"$$HOME\\\\\\\"\""),
        ] {
            assert_eq!(quoted(word), wanted);
        }
    }

    #[test]
    fn the_units_have_what_was_seen() {
        let place = super::super::address::Place {
            address: "[::]:80".parse().unwrap(),
            kind: super::super::address::Kind::Stream,
        };
        let wanted = Wanted {
            is_serial: true,
            notifies: true,
            both_apart: true,
            folder: Some("/srv/50%".into()),
            ..Wanted::default()
        };
        let text = units("x --y", &[place], &wanted);
        assert!(
            text.contains("\nBindIPv6Only=ipv6-only\n") && text.contains("\nWorkingDirectory=/srv/50%%\n")
        );
        assert_eq!(text.matches("ListenStream=[::]:80\n").count(), 3);
        assert!(text.contains("\nExecStart=/usr/bin/handover run --strategy serial --notify -- x --y\n"));
    }
}
