//! Those who want something of the runner: a caller at the control socket, or PID 1 by SIGHUP.
//!
//! systemd.service(5), Type=notify-reload: PID 1 sends the signal and runs ExecReload=, in an order that
//! depends on its version. That is one request. Up to version 258 the signal comes first: what it began
//! makes way for the caller, who knows the unit's settings. From 259 on it comes last, unless RELOADING=1
//! and READY=1 were said meanwhile: so they are said for every upgrade, whoever asked.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{PATIENCE, Runner};
use crate::fdstore::LastUpgrade;
use crate::notify::{Message, NotifyState};
use crate::run::machine::Event;
use crate::run::settings::Settings;
use crate::sys::seqpacket;
use crate::upgrade::callers::Wanted;
use crate::upgrade::channel::AsyncChannel;
use crate::upgrade::message::{Answer, Draining};
use crate::upgrade::{Failure, Reason, Standing};

impl Runner {
    /// Somebody wants something; `None` is PID 1, by the signal.
    pub(super) async fn called(&mut self, caller: Option<AsyncChannel>, wanted: Wanted) -> Vec<Event> {
        if let (Wanted::Standing, Some(caller)) = (wanted, &caller) {
            let _ = caller.send(&Answer::Standing(self.standing()), &[]);
            return vec![];
        }
        if let Some(renewal) = &mut self.renewal {
            match caller {
                Some(caller) if renewal.caller.is_none() => renewal.caller = Some(caller),
                Some(caller) => {
                    let failure = Failure::new(Reason::UnderWay, "the runner is being renewed; ask again");
                    let _ = caller.send(&Answer::Failed(failure), &[]);
                }
                // PID 1 waits for an upgrade.
                None => renewal.wanted = Wanted::Upgrade,
            }
            return vec![];
        }
        if wanted == Wanted::Renewal || (self.is_outdated() && self.is_quiet()) {
            return self.begin_renewal(caller, wanted).await;
        }
        self.ask(caller).await
    }

    /// Somebody wants an upgrade, of the program.
    pub(super) async fn ask(&mut self, caller: Option<AsyncChannel>) -> Vec<Event> {
        let Some(caller) = caller else {
            self.say_reloading().await;
            if self.machine.could_begin_again() {
                // It is the request that is being met.
                return vec![];
            }
            return vec![Event::Asked];
        };
        let again = self.reloading && self.waiting.is_none() && self.machine.could_begin_again();
        match seqpacket::peer(caller.as_fd()).and_then(|peer| Settings::of(peer.pid)) {
            Ok(Some(settings)) => self.fresh_settings = Some(settings),
            Ok(None) => self.warn(
                "who asks is no process of this unit: the new generation has the settings of the old one"
                    .into(),
            ),
            Err(error) => self.warn(format!(
                "the unit's settings of today cannot be read from who asks, and those of the old generation \
                 are kept: {error}"
            )),
        }
        self.asking = Some(caller);
        vec![if again { Event::AskedAgain } else { Event::Asked }]
    }

    /// How things stand: the connections of each generation, counted now.
    fn standing(&self) -> Standing {
        let live = self.machine.live().map_or(0, |(number, _)| number);
        let table = self.slots.sockets();
        let of = |number: u64, left: Duration| {
            let generation = self.generations.get(&number)?;
            let (connections, waiting) = generation.load(&self.slots, &table);
            Some(Draining {
                pid: generation.main.as_ref().map_or(0, |main| main.pid()),
                in_flight: (connections + waiting) as u64,
                left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            })
        };
        let serving = of(live, Duration::ZERO).unwrap_or_default();
        let leaving = self.machine.those_who_leave(Instant::now());
        let last_upgrade = self.last_failure.as_ref().map(|failure| LastUpgrade::Failed {
            pid: serving.pid,
            reason: failure.reason.exit_code(),
            errno: failure.errno,
            detail: failure.detail.clone(),
            at_ms: 0,
        });
        Standing {
            in_flight: serving.in_flight,
            under_way: self.waiting.is_some() || self.renewal.is_some(),
            most_draining: self.slots.width().saturating_sub(1) as u64,
            is_runner: true,
            draining: leaving.into_iter().rev().filter_map(|(number, left)| of(number, left)).collect(),
            last_upgrade,
            ..Standing::new(live, serving.pid)
        }
    }

    /// RELOADING=1, with the time.
    pub(super) async fn say_reloading(&mut self) {
        self.reloading = true;
        let message = NotifyState::monotonic_usec_now().ok().and_then(|now| Message::reloading(now).ok());
        if let Some(message) = message
            && let Err(error) = self.notifier.notify(&message, PATIENCE).await
        {
            self.warn(format!("PID 1 was not told of the reload: {error}"));
        }
    }

    /// READY=1, if PID 1 was told RELOADING=1.
    pub(super) async fn end_reloading(&mut self) {
        if std::mem::take(&mut self.reloading) {
            self.say_ready().await;
        }
    }
}
