//! What a container gives the stand-in that is its process 1: numbers of processes of its own, and a cgroup of its
//! own, which is all that it sees.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Standin;

impl Standin {
    /// Has process 1 of a container execute the rest.
    pub(super) fn container(&self) -> Command {
        const SCRIPT: &str = r#"
            mkdir "$1" && echo 0 > "$1/cgroup.procs" && shift &&
            exec unshare --pid --cgroup --fork --kill-child --mount-proc sh -c '
                umount -l "$0" && mount -t cgroup2 cgroup2 "$0" && exec "$@"' "$@""#;
        let (mount, cgroup) = self.cgroup();
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "container"]).args([cgroup, mount]);
        command
    }

    /// Where cgroup2 is mounted, and the cgroup of a container.
    fn cgroup(&self) -> (PathBuf, PathBuf) {
        let text = |path: &str| fs::read_to_string(path).unwrap();
        let (mounts, own) = (text("/proc/self/mountinfo"), text("/proc/self/cgroup"));
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("no cgroup2 is mounted");
        let mount = PathBuf::from(mount.split(' ').nth(4).unwrap());
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let cgroup = mount.join(own).join(self.folder.file_name().unwrap());
        (mount, cgroup)
    }

    /// Removes its cgroup, in which nobody is any more.
    pub(super) fn remove_container(&self) {
        let (_, cgroup) = self.cgroup();
        let removed = Command::new("find").arg(&cgroup).args(["-depth", "-type", "d", "-delete"]).status();
        assert!(removed.is_ok_and(|status| status.success()) || std::thread::panicking(), "{cgroup:?} stays");
    }
}
