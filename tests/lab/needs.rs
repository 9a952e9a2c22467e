//! What a host must have before machines can run on it. Only looks; changes nothing.

use std::fs;
use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

use crate::roots::Tree;
use crate::systemd::Systemd;
use crate::{cgroup, roots};

/// CAP_SYS_ADMIN, capabilities(7).
const SYS_ADMIN: u32 = 21;

/// What is missing, in words for the person who can mend it; None if machines can run on these trees.
pub(crate) fn missing(trees: &[Tree]) -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if !geteuid().is_root() {
        return Some("not root".into());
    }
    let status = read("/proc/self/status");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    if mask >> SYS_ADMIN & 1 == 0 {
        return Some("root without CAP_SYS_ADMIN: use a privileged container".into());
    }
    match cgroup::mount() {
        Ok(point) if access(&point, AccessFlags::W_OK).is_ok() => {}
        Ok(point) => return Some(format!("{} is read-only: use a privileged container", point.display())),
        Err(why) => return Some(why),
    }
    if !read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Some("no overlay file system: modprobe overlay".into());
    }
    if *trees == [Tree::Of(Systemd::Standin)] {
        let setpriv = Path::new("/usr/bin/setpriv");
        return (!setpriv.exists()).then(|| "no /usr/bin/setpriv, of util-linux".into());
    }
    roots::to_build(trees).then(cannot_build).flatten()
}

/// Why root trees cannot be built here.
fn cannot_build() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| Path::new(&dir).join("mmdebstrap").exists()) {
        return Some("no root trees, and no mmdebstrap to build them: apt-get install mmdebstrap".into());
    }
    roots::mirror().err()
}
