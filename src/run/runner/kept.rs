//! What PID 1 keeps for the runner, so that the next one can go on: FileDescriptorStoreMax=.
//!
//! | name | what |
//! |---|---|
//! | `handover.slot.PLACE` | a slot that was made here |
//! | `handover.ask.NUMBER` | the seccomp listener of a generation: while nobody answers, who binds waits |
//! | `handover.runner` | how everything stands |
//! | `handover.live.NUMBER.MODES` | the pidfd of the generation that serves, and which of its sockets it wants non-blocking: PID 1 makes them all alike when it starts the next runner, as NonBlocking= says |
//!
//! PID 1 drops a listener or pidfd by itself once its processes are gone. It never learns what any of it
//! means, and a store that takes nothing costs no more than what a killed runner costs without one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{PATIENCE, Runner};
use crate::activation::{Inherited, Kind, Role, Transport};
use crate::notify::Message;
use crate::run::fence::{Family, Fence, Ground};
use crate::run::generation::{Fact, Generation};
use crate::run::herald::Herald;
use crate::run::inside;
use crate::run::slots::Slots;
use crate::run::state::{ASK, HERALD, MAIN, One, State};
use crate::sys::pidfd::Pidfd;
use crate::sys::process;
use tokio::sync::mpsc::UnboundedSender;

const LIVE: &str = "handover.live.";

/// A process group that there never is.
const NOBODY: i32 = i32::MAX;

/// What a notify socket is.
const HERALD_KIND: Kind = Kind::Socket(Transport::UnixDatagram, Role::Alone);

/// What is left of a runner before this one.
pub(super) struct Left {
    /// The generations that still run.
    pub(super) generations: BTreeMap<u64, Generation>,
    /// The number and the slot of the one that serves, if that is known.
    pub(super) live: Option<(u64, usize)>,
    /// The name under which PID 1 keeps it.
    pub(super) live_name: Option<String>,
}

impl Left {
    /// Looks for them; `state` is what the runner before has left in writing.
    pub(super) fn find(
        inherited: &mut Inherited,
        state: Option<&State>,
        ground: Option<&Ground>,
        slots: &Slots,
        facts: &UnboundedSender<Fact>,
    ) -> Self {
        let asks = numbered(inherited, ASK, Kind::SeccompListener);
        let mains = numbered(inherited, LIVE, Kind::Pidfd);
        let ones = state.map(|state| &state.generations[..]).unwrap_or_default();
        let mut generations = BTreeMap::new();
        let fences = ground.map(Ground::survivors).unwrap_or_default().into_iter();
        for (number, fence) in fences.chain(ones.iter().filter_map(group_of)) {
            let own = inside::sockets(&fence.pids());
            let place = (0..slots.width()).find(|slot| !slots.inodes(*slot).is_disjoint(&own));
            // One that leaves may have closed its own, and serves whom it has.
            match place.or_else(|| state?.slot_of_old(number).filter(|slot| *slot < slots.width())) {
                Some(slot) => drop(generations.insert(number, Generation::found(slot, fence, facts))),
                // It serves nobody.
                None => fence.kill(),
            }
        }
        for (number, (_, listener)) in asks {
            if let Some(generation) = generations.get_mut(&number) {
                // Without it, what it binds from now on fails: no worse than without a store.
                let _ = generation.hear(number, listener, facts);
            }
        }
        let (mut live, mut live_name) = (None, None);
        // Of two, the newer one had just become live.
        for (number, (name, pidfd)) in mains {
            let found = generations.get_mut(&number).zip(inside::process_behind(&pidfd));
            if let Some((generation, pid)) = found.filter(|(one, pid)| one.fence.pids().contains(pid))
                && generation.follow(number, Pidfd::new(pid, pidfd), facts).is_ok()
            {
                let modes = name.rsplit('.').next().unwrap_or_default();
                // A socket that is as PID 1 made it serves, too, as a rule.
                let _ = slots.restore_modes(generation.slot, modes);
                (live, live_name) = (Some((number, generation.slot)), Some(name));
            }
        }
        for one in ones {
            let Some(generation) = generations.get_mut(&one.number) else { continue };
            (generation.ended, generation.status) = (one.ended.clone(), one.status.clone());
            let Some(main) = one.main.filter(|_| generation.main.is_none() && one.ended.is_none()) else {
                continue;
            };
            if is_still(one, main) {
                // One whose end nobody tells is found gone by the look.
                let _ = Pidfd::open(main).and_then(|main| generation.follow(one.number, main, facts));
            } else if is_gone(one, main) {
                generation.ended = Some("ended while there was no runner".into());
                generation.fence.kill();
            }
        }
        Self { generations, live, live_name }
    }

    /// Takes over all of them from the runner that has executed itself anew.
    pub(super) fn handed_on(
        state: &State,
        inherited: &mut Inherited,
        ground: Option<&Ground>,
        facts: &UnboundedSender<Fact>,
    ) -> Self {
        let mut fds: [_; 3] = [(MAIN, Kind::Pidfd), (ASK, Kind::SeccompListener), (HERALD, HERALD_KIND)]
            .map(|(prefix, kind)| numbered(inherited, prefix, kind));
        let mut generations = BTreeMap::new();
        for one in &state.generations {
            let slot = state.machine.generations.iter().find(|kept| kept.number == one.number);
            let fence = one.family.clone().map(Fence::Group).or_else(|| Some(ground?.of(one.number)));
            let (Some(slot), Some(fence)) = (slot.map(|kept| kept.slot), fence) else { continue };
            let mut generation = Generation::found(slot, fence, facts);
            let [main, ask, herald] = fds.each_mut().map(|all| all.remove(&one.number).map(|(_, fd)| fd));
            // A descriptor that cannot be watched costs what it costs to lose it: the look finds the rest.
            if let Some((main, pid)) = main.zip(one.main) {
                if one.is_child {
                    (generation.main, generation.is_child) = (Some(Pidfd::new(pid, main)), true);
                } else {
                    let _ = generation.follow(one.number, Pidfd::new(pid, main), facts);
                }
            }
            if let Some(ask) = ask {
                let _ = generation.hear(one.number, ask, facts);
            }
            if let Some(herald) = herald.and_then(|socket| Herald::reopened(socket).ok()) {
                generation.heed(one.number, herald, facts);
            }
            (generation.ended, generation.status) = (one.ended.clone(), one.status.clone());
            generations.insert(one.number, generation);
        }
        Self { generations, live: None, live_name: state.live_name.clone() }
    }

    /// The numbers and slots of those that run, but the live one.
    pub(super) fn others(&self) -> Vec<(u64, usize)> {
        let live = self.live.map(|(number, _)| number);
        let others = self.generations.iter().filter(|(number, _)| Some(**number) != live);
        others.map(|(number, one)| (*number, one.slot)).collect()
    }
}

/// Whether this is the process that was the main one of a generation, and not another one with its number.
fn is_still(one: &One, pid: i32) -> bool {
    one.born.is_some() && process::started_ms(pid).ok() == one.born
}

/// Whether it surely is not; one that we may not look at may be.
fn is_gone(one: &One, pid: i32) -> bool {
    match process::started_ms(pid) {
        Ok(born) => one.born.is_some_and(|then| then != born),
        Err(_) => {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
        }
    }
}

/// What is left of a generation without a cgroup. Once its main process is gone, its group may be another one's by
/// now: then only the mark counts.
fn group_of(one: &One) -> Option<(u64, Fence)> {
    let family = one.family.clone()?;
    let group = if is_still(one, one.main?) { family.group } else { NOBODY };
    let fence = Fence::Group(Family { group, ..family });
    fence.is_alive().then_some((one.number, fence))
}

/// What was kept under names that begin so, by the numbers behind it, in their order; with the names.
fn numbered(inherited: &mut Inherited, prefix: &str, kind: Kind) -> BTreeMap<u64, (String, OwnedFd)> {
    let kept = inherited.take_reserved_prefix(prefix).into_iter();
    let kept = kept.filter(|passed| passed.kind() == kind).map(crate::activation::Passed::into_parts);
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    kept.filter_map(|(name, fd, _)| Some((number(&name)?, (name, fd)))).collect()
}

impl Runner {
    /// Has PID 1 keep the slots that were made here.
    pub(super) async fn keep_slots(&self, made: usize) {
        for (name, socket) in self.slots.to_keep(made) {
            self.keep(&name, socket).await;
        }
    }

    /// Has PID 1 keep where a generation asks.
    pub(super) async fn keep_listener(&self, number: u64) {
        if let Some(listener) = self.generations.get(&number).and_then(Generation::listener) {
            self.keep(&format!("{ASK}{number}"), listener.as_fd()).await;
        }
    }

    /// Has PID 1 keep which generation serves, and forget which did.
    pub(super) async fn keep_live(&mut self, number: u64) {
        let Some(generation) = self.generations.get(&number) else { return };
        let Some(main) = &generation.main else { return };
        let name = format!("{LIVE}{number}.{}", self.slots.modes(generation.slot));
        if self.live_name.as_ref() == Some(&name) {
            return;
        }
        self.keep(&name, main.as_fd()).await;
        if let Some(old) = self.live_name.replace(name) {
            // What is not there is not removed.
            let _ = self.notifier.notify(&Message::unstore(&old), PATIENCE).await;
        }
    }

    async fn keep(&self, name: &str, fd: BorrowedFd<'_>) {
        if let Err(error) = self.notifier.notify_with_fds(&Message::store(name, true), &[fd], PATIENCE).await
        {
            self.warn(format!("PID 1 was not asked to keep {name}: {error}"));
        }
    }
}
