//! `systemctl soft-reboot`: every process of the machine goes but PID 1, and the sessions go on.

use super::Keeper;
use crate::gate::soon;
use crate::lab::{Systemd, finish};

on_every_systemd! {
    fn sessions_go_on_over_a_soft_reboot(systemd) {
        if systemd == Systemd::V252 {
            // It is for 254 and newer.
            return;
        }
        let keeper = Keeper::boot(systemd, "");
        let sessions = keeper.sessions(5, 5);
        differs_on_standin!("whoever wants it away with all it runs ends it, and starts it again");
        let count = ["timeout", "5", "systemctl", "show", "-P", "SoftRebootsCount"];
        assert_eq!(keeper.machine.run(&count).stdout.trim(), "0");
        let reboot = keeper.machine.spawn(&["systemctl", "soft-reboot"]);
        // While PID 1 does it, nobody answers.
        soon("PID 1 has begun anew", || keeper.machine.run(&count).stdout.trim() == "1");
        // Whoever asked for it is killed by it.
        finish(reboot);
        sessions.pass_each(2);
        assert_eq!(keeper.machine.succeed(&["systemctl", "is-system-running", "--wait"]), "running\n");
        keeper.upgrade();
        sessions.pass_each(2);
        sessions.stop().assert_nothing_lost();
        keeper.assert_calm();
    }
}
