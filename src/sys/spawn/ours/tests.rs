//! What becomes of a child on such terms, as a shell that is one tells it.

use super::*;
use crate::sys::spawn::Variable;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The usual terms.
fn terms(streams: [BorrowedFd<'_>; 3]) -> Terms<'_> {
    Terms {
        streams,
        cgroup: None,
        directory: None,
        directory_optional: false,
        limits: Vec::new(),
        user: None,
        umask: 0o022,
        nice: None,
        ignore_sigpipe: true,
        no_new_privileges: false,
        status_of: |step| 100 + step as i32,
        doom: None,
    }
}

/// What a shell that runs on these terms says on its standard output, and how it ended.
fn ask(script: &str, change: impl FnOnce(&mut Terms<'_>)) -> (String, i32) {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
    let environment = vec![Variable::OwnPid("ME".into()), Variable::Fixed(c"PATH=/usr/bin:/bin".into())];
    let program = Program { path: c"/bin/sh".into(), argv, environment, fds: vec![null.as_fd(); 2] };
    let mut terms = terms([null.as_fd(), theirs.as_fd(), theirs.as_fd()]);
    change(&mut terms);
    let started = start(&program, &terms).unwrap();
    drop(theirs);
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();
    let pid = nix::unistd::Pid::from_raw(started.process.pid());
    let end = nix::sys::wait::waitpid(pid, None).unwrap();
    let nix::sys::wait::WaitStatus::Exited(_, status) = end else { panic!("{end:?}") };
    assert_eq!(started.failed.is_some(), status >= 100);
    (said, status)
}

#[test]
fn the_child_is_ours_in_a_session_of_its_own_with_the_descriptors_it_was_given() {
    let script = "echo $PPID $(cut -d' ' -f6 /proc/$$/stat) $ME $$; for n in 3 4 5; do [ -e /proc/$$/fd/$n ] && echo $n; done; exit 7";
    let (said, status) = ask(script, |_| {});
    let mut lines = said.lines();
    let words: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert_eq!(words[0], std::process::id().to_string());
    assert!(words[1] == words[3] && words[2] == words[3], "{said}");
    assert_eq!((lines.collect::<Vec<_>>(), status), (vec!["3", "4"], 7));
}

#[test]
fn limits_folder_and_mask_are_as_told() {
    let (said, _) = ask("ulimit -n; pwd; umask", |terms| {
        terms.limits = vec![(libc::RLIMIT_NOFILE, Some(77), Some(99))];
        terms.directory = Some(c"/usr".into());
        terms.umask = 0o077;
    });
    assert_eq!(said, "77\n/usr\n0077\n");
}

#[test]
fn what_the_kernel_does_not_put_into_a_cgroup_goes_there_itself() {
    // A folder that is no cgroup: clone3(2) refuses it.
    let path = std::env::temp_dir().join(format!("handover-cgroup-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let folder: &'static File = Box::leak(Box::new(File::open(&path).unwrap()));
    let enter = || ask("true", |terms| terms.cgroup = Some(folder.as_fd())).1;
    assert_eq!(enter(), 100 + Step::Cgroup as i32);
    std::fs::write(path.join("cgroup.procs"), "").unwrap();
    assert_eq!(enter(), 0);
    assert_eq!(std::fs::read_to_string(path.join("cgroup.procs")).unwrap(), "0");
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn every_descriptor_comes_to_its_place_whatever_its_number_was() {
    let files: Vec<_> = (0..40).map(|_| nix::sys::eventfd::EventFd::new().unwrap()).collect();
    let ids: Vec<_> = files.iter().map(id).collect();
    for turn in [0, 1, 17, 39] {
        let order = || (0..40).map(|at| (at + turn) % 40).rev();
        let fds: Vec<_> = order().map(|at| files[at].as_fd()).collect();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script = "for n in $(seq 3 42); do sed -n 's/^eventfd-id: *//p' /proc/self/fdinfo/$n; done";
        let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
        let environment = vec![Variable::Fixed(c"PATH=/usr/bin:/bin".into())];
        let program = Program { path: c"/bin/sh".into(), argv, environment, fds };
        let streams = [theirs.as_fd(); 3];
        let started = start(&program, &terms(streams)).unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(started.process.pid()), None).unwrap();
        assert_eq!(
            said.lines().map(str::to_owned).collect::<Vec<_>>(),
            order().map(|at| ids[at].clone()).collect::<Vec<_>>()
        );
    }
}

/// The number that the kernel has given to an eventfd.
fn id(file: &nix::sys::eventfd::EventFd) -> String {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd())).unwrap();
    info.lines().find_map(|line| line.strip_prefix("eventfd-id:")).unwrap().trim().to_owned()
}

#[test]
fn a_step_that_fails_is_named_and_is_the_status() {
    let (_, status) = ask("true", |terms| terms.directory = Some(c"/nonexistent".into()));
    assert_eq!(status, 100 + Step::Directory as i32);
    let (_, status) = ask("true", |terms| terms.limits = vec![(libc::RLIMIT_NOFILE, Some(3), Some(3))]);
    assert_eq!(status, 100 + Step::Descriptors as i32);
}

#[test]
fn a_limit_just_above_its_own_descriptors_is_enough_whatever_we_have_ourselves() {
    let _more: Vec<_> = (0..9).map(|_| File::open("/dev/null").unwrap()).collect();
    // 0 to 4, and one for the loader of programs.
    let (_, status) = ask("true", |terms| terms.limits = vec![(libc::RLIMIT_NOFILE, Some(6), Some(6))]);
    assert_eq!(status, 0);
}

#[test]
fn a_directory_that_cannot_be_entered_is_the_root_where_it_is_optional() {
    let (said, status) = ask("pwd", |terms| {
        (terms.directory, terms.directory_optional) = (Some(c"/nonexistent".into()), true);
    });
    assert_eq!((&*said, status), ("/\n", 0));
}

#[test]
fn no_signal_is_blocked_and_sigpipe_alone_is_ignored() {
    let script = "sed -nE 's/^Sig(Blk|Ign):.*(........)$/\\2/p' /proc/self/status";
    let masks = |on| ask(script, |terms| terms.ignore_sigpipe = on).0;
    // Bit 31 is a signal of libc's own, which nobody but libc may touch.
    assert_eq!(masks(true).replace("8000", "0000"), "00000000\n00001000\n");
    assert_eq!(masks(false).replace("8000", "0000"), "00000000\n00000000\n");
}
