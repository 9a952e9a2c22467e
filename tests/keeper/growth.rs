//! A thousand upgrades leave nothing behind: no descriptor, no memory, no process, nothing with PID 1.

use super::Keeper;
use crate::gate::soon;
use crate::process::Process;

const SERVICE: &str = "keeper.service";

/// Sessions that are handed on each time.
const SESSIONS: usize = 20;

/// What is the allocator's and the kernel's mood, not growth: a thousandth of it an upgrade would be
/// more.
const SLACK_KIB: u64 = 256;

/// What the service takes up.
#[derive(Debug)]
struct Size {
    descriptors: usize,
    /// Memory of its own, in KiB; and what it has of files on a tmpfs: the state, the record, the program.
    own: u64,
    shared: u64,
    /// What PID 1 holds for it.
    stored: usize,
}

impl Size {
    fn of(keeper: &Keeper) -> Self {
        let main = Process::find(&keeper.machine, SERVICE, keeper.main_pid());
        Self {
            descriptors: main.descriptors(),
            own: main.memory_kib("RssAnon"),
            shared: main.memory_kib("RssShmem"),
            stored: keeper.stored(),
        }
    }
}

on_every_systemd! {
    fn a_thousand_upgrades_leave_nothing_behind(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut talks: Vec<_> = (0..SESSIONS).map(|_| keeper.talk().served()).collect();
        let upgrades = |count: u32| {
            let script = format!("for i in $(seq {count}); do systemctl reload keeper || exit 1; done");
            keeper.machine.succeed(&["timeout", "250", "sh", "-c", &script]);
            // Whoever drained has left when it is alone.
            Process::others(&keeper.machine, SERVICE, keeper.main_pid()).iter().for_each(Process::leaves);
            // It lets go of what led to them before it says that none is left.
            soon("nobody drains", || !keeper.machine.show("keeper", "StatusText").contains("drain"));
        };
        upgrades(50);
        let before = Size::of(&keeper);
        upgrades(950);
        let after = Size::of(&keeper);
        println!("{systemd}: after 50 upgrades {before:?}, after 1,000 {after:?}");
        assert_eq!(after.descriptors, before.descriptors);
        assert_eq!(after.stored, before.stored);
        assert!(after.own <= before.own + SLACK_KIB, "{before:?} {after:?}");
        assert!(after.shared <= before.shared + SLACK_KIB, "{before:?} {after:?}");
        for talk in &mut talks {
            assert_eq!(talk.ask("GET a"), "value 1");
            assert_eq!(talk.ask("COUNT"), "count 3");
        }
    }
}
