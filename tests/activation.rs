//! What a fresh process reads from LISTEN_*: ours beside the readers that exist.
//!
//! Each case starts this test program again as `the_reader`, with descriptors and variables as a
//! speaker would leave them. The references are libsystemd's own sd_listen_fds_with_names(3), where the
//! machine has it, and the three crates of the field; the table says where they differ.
#![expect(unsafe_code, reason = "passing descriptors to a child and calling libsystemd")]
#![expect(clippy::unwrap_used, reason = "a test that cannot start its reader has failed")]

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use handover::activation::{self, ClaimError, Inherited, Origin};

/// Which of the readers the child is to be.
const READER: &str = "HANDOVER_TEST_READER";

/// The child of every test in here; of no meaning as a test.
#[test]
fn the_reader() {
    let Ok(reader) = std::env::var(READER) else { return };
    become_the_one_who_is_meant();
    // The first line ends what the test harness has begun.
    println!("\nsaid {}", said_by(&reader));
}

/// Reads as `reader` does: the names with commas between them, "none", or "error".
fn said_by(reader: &str) -> String {
    let names: Option<Vec<String>> = match reader {
        "ours" => {
            activation::claim().ok().map(|all| all.leftover().map(|fd| fd.name().to_string()).collect())
        }
        "C" => listen_fds_of_libsystemd(),
        "libsystemd" => libsystemd::activation::receive_descriptors_with_names(false)
            .map_or(None, |fds| Some(fds.into_iter().map(|(_, name)| name).collect())),
        "sd-notify" => {
            sd_notify::listen_fds_with_names().map_or(None, |fds| Some(fds.map(|fd| fd.1).collect()))
        }
        // It knows no names.
        "listenfd" => Some(vec!["?".to_string(); listenfd::ListenFd::from_env().len()]),
        "kinds" => return kinds(),
        "owner" => return owns_once(),
        "adapter" => return adapts_listenfd(),
        "parent" => {
            let _held = activation::claim().unwrap();
            return read("ours", &[], Vec::new());
        }
        _ => unreachable!(),
    };
    match names {
        None => "error".to_string(),
        Some(names) if names.is_empty() => "none".to_string(),
        Some(names) => names.join(","),
    }
}

#[test]
fn we_read_what_c_reads_and_differ_from_the_crates_where_they_differ_from_c() {
    let pid = ("LISTEN_PID", "own");
    let fds = |count| ("LISTEN_FDS", count);
    let names = |names| ("LISTEN_FDNAMES", names);
    let pidfd = |id| ("LISTEN_PIDFDID", id);
    // "-": not asked, because it depends on the version of libsystemd.
    #[rustfmt::skip]
    let table = [
        // passed, variables, then what is said by: ours, C, libsystemd, sd-notify, listenfd
        (2, vec![pid, fds("2"), names("web:web")],   ["web,web", "web,web", "web,web", "web,web", "?,?"]),
        (2, vec![pid, fds("2"), names("a:")],        ["a,", "a,", "a,", "a,", "?,?"]),
        (1, vec![pid, fds("1"), names("")],          ["", "", "", "", "?"]),
        // No names are "unknown"; too few or too many are an error.
        (2, vec![pid, fds("2")],                     ["unknown,unknown", "unknown,unknown", "none", "unknown,unknown", "?,?"]),
        (2, vec![pid, fds("2"), names("a")],         ["error", "error", "a", "error", "?,?"]),
        (1, vec![pid, fds("1"), names("a:b")],       ["error", "error", "a", "error", "?"]),
        // C unescapes what PID 1 never escaped.
        (1, vec![pid, fds("1"), names(r"a\b")],      [r"a\b", "ab", r"a\b", r"a\b", "?"]),
        // Whom they are for; C looks at the pidfd since 259.
        (1, vec![pid, pidfd("own"), fds("1"), names("a")], ["a", "a", "a", "a", "?"]),
        (1, vec![pid, pidfd("1"), fds("1"), names("a")],   ["none", "-", "a", "a", "?"]),
        // sd-notify misses the descriptors of somebody else.
        (1, vec![("LISTEN_PID", "1"), fds("1"), names("a")], ["none", "none", "none", "error", "none"]),
        // More than there are: listenfd hands out numbers.
        (1, vec![pid, fds("2"), names("a:b")],       ["error", "error", "error", "error", "?,?"]),
        (0, vec![pid, fds("0")],                     ["error", "error", "none", "none", "none"]),
        (0, vec![],                                  ["none", "none", "none", "none", "none"]),
        // systemfd --no-pid: listenfd and we.
        (1, vec![fds("1")],                          ["unknown", "none", "none", "none", "?"]),
        (1, vec![("LISTEN_PID", ""), fds("1")],      ["unknown", "error", "error", "error", "?"]),
    ];
    for (passed, variables, expected) in table {
        for (reader, expected) in ["ours", "C", "libsystemd", "sd-notify", "listenfd"].iter().zip(expected) {
            let fds = (0..passed).map(|_| tcp()).collect();
            let said = read(reader, &variables, fds);
            let fits = said == expected || expected == "-" || said == "absent";
            assert!(fits, "{reader} says {said:?} and not {expected:?} for {variables:?}");
        }
    }
}

#[test]
fn every_kind_arrives_with_its_name_its_address_and_its_kind() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let (web, dns) = (tcp(), udp());
    let (web_at, dns_at) = (address_of(&web), address_of(&dns));
    let memory = memfd_create("state", MFdFlags::MFD_CLOEXEC).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let fds = vec![web, dns, memory, pipe.into(), File::open("/").unwrap().into()];
    let variables =
        [("LISTEN_PID", "own"), ("LISTEN_FDS", "5"), ("LISTEN_FDNAMES", "web:dns:state:stored:stored")];
    assert_eq!(
        read("kinds", &variables, fds),
        format!(
            "Manager: \"web\" (listening TCP socket on {web_at}), \"dns\" (UDP socket on {dns_at}), \
             \"state\" (memfd), \"stored\" (pipe), \"stored\" (directory)"
        )
    );
}

#[test]
fn systemfd_may_let_them_start_anywhere() {
    let variables = [("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "4"), ("LISTEN_PID", "own")];
    let (first, second) = (tcp(), udp());
    let expected = format!("Development: \"unknown\" (UDP socket on {})", address_of(&second));
    assert_eq!(read("kinds", &variables, vec![first, second]), expected);
}

#[test]
fn what_is_claimed_has_one_owner_and_the_environment_stays_as_it_was() {
    let variables = [("LISTEN_PID", "own"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")];
    assert_eq!(read("owner", &variables, vec![tcp()]), "fine");
}

#[test]
fn a_count_that_is_a_lie_is_an_error_and_no_memory() {
    let variables = [("LISTEN_PID", "own"), ("LISTEN_FDS", "2147483647")];
    assert_eq!(read("ours", &variables, vec![tcp()]), "error");
}

#[test]
fn a_child_of_who_claimed_sees_that_nothing_is_for_it() {
    let variables = [("LISTEN_PID", "own"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "web")];
    assert_eq!(read("parent", &variables, vec![tcp()]), "none");
}

#[test]
fn what_listenfd_still_holds_can_be_taken_over() {
    assert_eq!(read("adapter", &[("LISTEN_FDS", "3")], vec![tcp(), tcp(), udp()]), "fine");
}

#[test]
fn systemd_socket_activate_is_understood() {
    let path = std::env::temp_dir().join(format!("handover-activate-{}", std::process::id()));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&path).args(["--fdname", "web", "--setenv"]).arg(format!("{READER}=kinds"));
    command
        .arg(std::env::current_exe().unwrap())
        .args(AS_READER)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut speaker) = command.spawn() else { return };
    let mut stderr = BufReader::new(speaker.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("Listening on") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "systemd-socket-activate ended");
    }
    let _client = UnixStream::connect(&path).unwrap();
    let mut said = String::new();
    speaker.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(speaker.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();
    let expected = format!("Manager: \"web\" (listening unix stream socket on {})", path.display());
    assert_eq!(line_said(&said), expected);
}

/// How the test program is told to be only [`the_reader`].
const AS_READER: [&str; 3] = ["activation::the_reader", "--exact", "--nocapture"];

/// What `reader` says in a process of its own that gets `fds` from 3 on; "own" as the value of
/// LISTEN_PID or LISTEN_PIDFDID stands for the one of that process.
fn read(reader: &str, variables: &[(&str, &str)], fds: Vec<OwnedFd>) -> String {
    use nix::fcntl::{FcntlArg, fcntl};
    // High up, where dup2 in the child overwrites none of them.
    let high = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(300)).unwrap();
    let sources: Vec<RawFd> = fds.iter().map(high).collect();
    let numbers = sources.clone();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(AS_READER).env(READER, reader).envs(variables.iter().copied());
    // SAFETY: dup2(2) is async-signal-safe. It may overwrite the pipe on which std reports a failed
    // exec; then nothing is said, and the test fails all the same.
    unsafe {
        command.pre_exec(move || {
            for (target, source) in (3..).zip(&numbers) {
                if libc::dup2(*source, target) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    };
    let output = command.output().unwrap();
    sources.into_iter().for_each(|fd| nix::unistd::close(fd).unwrap());
    assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stdout));
    line_said(&String::from_utf8_lossy(&output.stdout)).to_string()
}

/// The one line that is not the test harness' own.
fn line_said(output: &str) -> &str {
    output.lines().find_map(|line| line.strip_prefix("said ")).unwrap()
}

/// Executes this program in place, with its own pid and pidfd where the variables say "own": both
/// stay the same over execve(2).
fn become_the_one_who_is_meant() {
    let means_own = |variable: &&str| std::env::var(variable).is_ok_and(|value| value == "own");
    let variables: Vec<_> = ["LISTEN_PID", "LISTEN_PIDFDID"].into_iter().filter(means_own).collect();
    if variables.is_empty() {
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(std::env::args_os().skip(1));
    for variable in variables {
        let own = if variable == "LISTEN_PID" { u64::from(std::process::id()) } else { own_pidfd_id() };
        again.env(variable, own.to_string());
    }
    panic!("{}", again.exec());
}

/// The inode of this process' pidfd.
fn own_pidfd_id() -> u64 {
    use std::os::fd::FromRawFd;
    use std::os::unix::fs::MetadataExt;
    // SAFETY: pidfd_open(2) makes a descriptor that is owned here alone, or is -1, which is asserted away.
    let pidfd = unsafe {
        let number = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
        assert!(number >= 0);
        File::from_raw_fd(RawFd::try_from(number).unwrap())
    };
    pidfd.metadata().unwrap().ino()
}

/// sd_listen_fds_with_names(3) itself. It ends the process with "absent" where there is none.
fn listen_fds_of_libsystemd() -> Option<Vec<String>> {
    type Function = unsafe extern "C" fn(c_int, *mut *mut *mut c_char) -> c_int;
    // SAFETY: the names of library and function end with a zero byte; the function has that type; the
    // array it makes has as many strings as it returns.
    unsafe {
        let library = libc::dlopen(c"libsystemd.so.0".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return Some(vec!["absent".to_string()]);
        }
        let symbol = libc::dlsym(library, c"sd_listen_fds_with_names".as_ptr());
        let function = std::mem::transmute::<*mut libc::c_void, Function>(symbol);
        let mut names = std::ptr::null_mut();
        let count = usize::try_from(function(0, &raw mut names)).ok()?;
        let name = |place| CStr::from_ptr(*names.add(place)).to_string_lossy().into_owned();
        Some((0..count).map(name).collect())
    }
}

/// The origin and all that is there, in words.
fn kinds() -> String {
    let all = activation::claim().unwrap();
    let words: Vec<_> = all.leftover().map(ToString::to_string).collect();
    format!("{:?}: {}", all.origin(), words.join(", "))
}

/// Claims, and tries every way to own the same descriptor again.
fn owns_once() -> String {
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    let before: Vec<_> = std::env::vars_os().collect();
    let mut all = activation::claim().unwrap();
    assert!(matches!(activation::claim(), Err(ClaimError::AlreadyClaimed)));
    assert_eq!(std::env::vars_os().collect::<Vec<_>>(), before);
    let web = all.tcp_listener("web").unwrap();
    let flags = FdFlag::from_bits_retain(fcntl(&web, FcntlArg::F_GETFD).unwrap());
    assert_eq!((web.as_raw_fd(), flags), (3, FdFlag::FD_CLOEXEC));
    let modes = OFlag::from_bits_retain(fcntl(&web, FcntlArg::F_GETFL).unwrap());
    assert!(modes.contains(OFlag::O_NONBLOCK));
    let again = Inherited::from_listenfd(listenfd::ListenFd::from_env());
    assert!(matches!(again, Err(ClaimError::Adopt(_))), "{again:?}");
    web.local_addr().unwrap();
    "fine".to_string()
}

/// Takes one by listenfd, the rest by ours.
fn adapts_listenfd() -> String {
    let mut listenfd = listenfd::ListenFd::from_env();
    let theirs = listenfd.take_tcp_listener(1).unwrap().unwrap();
    let mut ours = Inherited::from_listenfd(listenfd).unwrap();
    assert_eq!(ours.origin(), &Origin::Development);
    assert_ne!(ours.tcp_listener("web").unwrap().as_raw_fd(), theirs.as_raw_fd());
    assert_eq!(ours.leftover().map(|rest| rest.as_fd().as_raw_fd()).collect::<Vec<_>>(), [5]);
    "fine".to_string()
}

fn tcp() -> OwnedFd {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

fn udp() -> OwnedFd {
    UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

/// The local address of an internet socket.
fn address_of(socket: &OwnedFd) -> String {
    UdpSocket::from(socket.try_clone().unwrap()).local_addr().unwrap().to_string()
}
