//! User=, Group= and SupplementaryGroups=: who a process is.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

use super::{Doom, GROUP, USER};
use crate::sys::spawn;
use crate::unit::Exec;

/// A user as the system knows them.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the kernel needs.
    pub(super) kernel: spawn::User,
    pub(super) name: String,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
}

/// Who the processes of a service are; `None`: who we are.
pub(super) fn find(exec: &Exec) -> Result<Option<Found>, Doom> {
    if exec.user.is_none() && exec.group.is_none() && exec.supplementary_groups.is_empty() {
        return Ok(None);
    }
    let user = exec.user.as_deref().map(user).transpose()?;
    let group = exec.group.as_deref().map(group).transpose()?;
    let uid = user.as_ref().map(|user| user.uid);
    if !geteuid().is_root() {
        // A user's manager can only be that user, and needs no privileges for it.
        let same = uid.is_none_or(|uid| uid == geteuid()) && group.is_none_or(|gid| gid == getegid());
        let other = "User= and Group= can only be others than our own for root";
        return if same { Ok(None) } else { Err((GROUP, other.to_owned())) };
    }
    let primary = group.or_else(|| user.as_ref().map(|user| user.gid)).unwrap_or_else(getegid);
    let mut groups = match &user {
        Some(user) => CString::new(user.name.as_str())
            .ok()
            .and_then(|name| getgrouplist(&name, primary).ok())
            .unwrap_or_default(),
        None => Vec::new(),
    };
    for name in &exec.supplementary_groups {
        groups.push(self::group(name)?);
    }
    let kernel = spawn::User {
        uid: uid.map(Uid::as_raw),
        gid: primary.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    };
    let (name, home, shell) = match user {
        Some(user) => (user.name, user.dir, user.shell),
        None => ("root".into(), "/root".into(), "/bin/sh".into()),
    };
    Ok(Some(Found { kernel, name, home, shell }))
}

/// By name or number.
fn user(name: &str) -> Result<User, Doom> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found.ok().flatten().ok_or_else(|| (USER, format!("User={name}: there is no such user")))
}

/// By name or number, of which PID 1 wants that it has a name, too.
fn group(name: &str) -> Result<Gid, Doom> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    let found = found.ok().flatten().map(|group| group.gid);
    found.ok_or_else(|| (GROUP, format!("Group={name}: there is no such group")))
}
