//! `handover run` with programs that it cannot serve: a clear error, and nothing is lost.

use nix::libc;

use crate::run::{App, SCRIPT, STRANGER, THREE};

/// Puts a filter with a listener of its own on itself, which passes everything, and executes its arguments.
const ABOVE: &str = "\
my $filter = pack('S C C L', 6, 0, 0, 0x7fff0000);
my $program = pack('S x6 P', 1, $filter);
my $listener = syscall(SECCOMP, 1, 8, $program);
die \"seccomp: $!\" if $listener < 0;
syscall(FCNTL, $listener, 2, 0);
exec @ARGV;
";

/// Binds and listens through an io_uring, beside the slots, and waits.
const RING: &str = "\
import ctypes, mmap, select, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(SETUP, 8, params)
assert ring >= 0, ctypes.get_errno()
numbers = struct.unpack('30I', params.raw)
array = numbers[10 + 6]
rings = mmap.mmap(ring, 65536)
entries = mmap.mmap(ring, 4096, offset=0x10000000)
place = socket.socket()
place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
address = ctypes.create_string_buffer(struct.pack('=H', 2) + struct.pack('>H', 8080) + bytes(12), 16)
def submit(code, offset, where, length):
    entries[0:64] = struct.pack('=BBHiQQI', code, 0, 0, place.fileno(), offset, where, length) + bytes(36)
    tail = numbers[10 + 1]
    now = struct.unpack('=I', rings[tail:tail + 4])[0]
    at = array + 4 * (now & 7)
    rings[at:at + 4] = bytes(4)
    rings[tail:tail + 4] = struct.pack('=I', now + 1)
    assert libc.syscall(ENTER, ring, 1, 1, 1, None, 0) == 1
submit(56, 16, ctypes.addressof(address), 0)
submit(57, 0, 0, 128)
assert place.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
select.select([place], [], [])
";

/// How a 32-bit program binds.
#[derive(Clone, Copy, Debug)]
enum Bind {
    Direct,
    Packed,
}

/// A program of the i386 ABI that binds 0.0.0.0:8080 and waits, or ends with status 7 if it cannot.
fn of_32_bits(bind: Bind) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let call = |number: u32, arguments: [u32; 3]| {
        let load = |register: u8, value: u32| [&[0xb8 + register][..], &value.to_le_bytes()].concat();
        let [b, c, d] = arguments;
        // eax is 0, ecx 1, edx 2, ebx 3; then int 0x80.
        [load(3, b), load(1, c), load(2, d), load(0, number), vec![0xcd, 0x80]].concat()
    };
    let data = BASE + HEADERS + 256;
    let mut code = call(359, [2, 1, 0]);
    match bind {
        Bind::Direct => {
            code.extend(call(361, [0, data, 16]));
            // The socket is the number that was returned: mov ebx, eax in place of the constant.
            let at = 22;
            code[at..at + 5].copy_from_slice(&[0x89, 0xc3, 0x90, 0x90, 0x90]);
        }
        Bind::Packed => {
            // mov [data + 16], eax
            code.extend([&[0xa3][..], &(data + 16).to_le_bytes()].concat());
            code.extend(call(102, [2, data + 16, 0]));
        }
    }
    // test eax, eax; jne over what waits.
    let wait = [call(29, [0; 3]), vec![0xeb, 0xfe]].concat();
    code.extend([0x85, 0xc0, 0x75, wait.len() as u8]);
    code.extend(wait);
    code.extend(call(1, [7, 0, 0]));
    code.resize(256, 0x90);
    let address = [&[2, 0, 0x1f, 0x90][..], &[0; 12]].concat();
    let packed = [0, data, 16].map(u32::to_le_bytes).concat();
    let size = HEADERS + 256 + 28;
    let mut program = [&b"\x7fELF\x01\x01\x01"[..], &[0; 9], &[2, 0, 3, 0]].concat();
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        program.extend(word.to_le_bytes());
    }
    program.extend([52u16, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    for word in [1, 0, BASE, BASE, size, size, 7, 0x1000] {
        program.extend(u32::to_le_bytes(word));
    }
    [program, code, address, packed].concat()
}

on_every_systemd! {
    fn a_program_that_is_not_there_fails_the_start_and_later_the_reload_with_its_name(systemd) {
        for program in ["/nonexistent/server", "no-such-server --port 8080"] {
            let app = App::prepare(systemd, THREE, "", program, "Restart=no\n");
            let mark = app.machine.mark();
            assert_ne!(app.machine.run(&["systemctl", "start", "app.service"]).status, 0);
            assert_eq!(app.machine.show("app", "ExecMainStatus"), "21");
            // Whose entry it was may not be known any more: the process has ended.
            let entry = app.machine.await_journal(&mark, &["-o", "cat"], "run: failed: exec-failed: ");
            assert!(entry.contains(program.split(' ').next().unwrap()), "{entry}");
        }
        let app = App::boot(systemd, THREE, "", SCRIPT);
        let load = app.load();
        app.machine.succeed(&["rm", SCRIPT]);
        let (status, text) = app.failed_upgrade();
        assert!(status == "21" && text.contains(SCRIPT), "{status} {text}");
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn a_32_bit_program_is_refused_with_its_reason(systemd) {
        let app = App::boot(systemd, THREE, "--ready-timeout 5s", SCRIPT);
        let load = app.load();
        for bind in [Bind::Direct, Bind::Packed] {
            app.machine.push(SCRIPT, of_32_bits(bind), 0o755);
            let (status, text) = app.failed_upgrade();
            assert!(status == "22" && text.contains("it binds 0.0.0.0:8080 by the 32-bit ABI"), "{bind:?}: {status} {text}");
            load.pass_each(2);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_bind_through_an_io_uring_is_never_a_slot_and_the_reload_says_so(systemd) {
        let app = App::boot(systemd, THREE, "--ready-timeout 2s", SCRIPT);
        let load = app.load();
        let calls = [("SETUP", libc::SYS_io_uring_setup), ("ENTER", libc::SYS_io_uring_enter)];
        let ring = calls.iter().fold(RING.to_owned(), |text, (name, number)| text.replace(name, &number.to_string()));
        app.machine.push(SCRIPT, format!("#!/usr/bin/python3\n{ring}"), 0o755);
        let (status, text) = app.failed_upgrade();
        assert!(status == "25" && text.contains("it has an io_uring: a bind through that is not seen"), "{status} {text}");
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn another_seccomp_listener_above_is_told_of_before_anything_runs(systemd) {
        let calls = [("SECCOMP", libc::SYS_seccomp), ("FCNTL", libc::SYS_fcntl)];
        let above = calls.iter().fold(ABOVE.to_owned(), |text, (name, number)| text.replace(name, &number.to_string()));
        let exec = format!("ExecStart=\nExecStart=/usr/bin/perl /run/above.pl /usr/bin/handover run -- {STRANGER}\nRestart=no\n");
        let app = App::prepare(systemd, THREE, "", STRANGER, &exec);
        app.machine.push("/run/above.pl", above, 0o644);
        let mark = app.machine.mark();
        assert_ne!(app.machine.run(&["systemctl", "start", "app.service"]).status, 0);
        assert_eq!(app.machine.show("app", "ExecMainStatus"), "20");
        let words = "another seccomp listener is above us, and there can be one only";
        app.machine.await_journal(&mark, &["-o", "cat"], words);
    }
}
