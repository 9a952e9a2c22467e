//! A store with strange things in it, under the names of handover's own: the service starts without
//! them, says so, and works.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::Keeper;
use crate::gate::{Gate, soon};
use crate::lab::executable;

/// Where the machine has the bytes of a memfd to be.
const BYTES: &str = "/run/bytes";

/// What a state file begins with.
const MAGIC: &[u8] = b"ho.state";

on_every_systemd! {
    fn a_damaged_state_file_is_reported_and_the_service_starts_without_it(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let talk = keeper.talk().served();
        let whole = fs::read(state_file(&keeper)).unwrap();
        drop(talk);
        let flipped = |place: usize| {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            bytes
        };
        let larger = [&whole[..], &[0; 8192]].concat();
        let cases: [(&str, &[u8], &str); 12] = [
            ("empty", &[], "sealed"),
            ("cut in the middle", &whole[..whole.len() / 2], "sealed"),
            ("cut in the header", &whole[..20], "sealed"),
            ("enlarged", &larger, "sealed"),
            ("not ours", &flipped(0), "sealed"),
            ("of another version", &flipped(8), "sealed"),
            ("of another shape", &flipped(18), "sealed"),
            ("of another checksum", &flipped(28), "sealed"),
            ("zero", &vec![0; whole.len()], "sealed"),
            ("without seals", &whole, "loose"),
            ("a pipe", &[], "pipe"),
            ("a device", &[], "null"),
        ];
        for (how, bytes, kind) in cases {
            let mut old = keeper.talk().served();
            old.send("COUNT\n").unwrap();
            // The name of what replaced the one before.
            keeper.stuff(bytes, &["handover.state.2=nothing", &format!("handover.state={kind}:{BYTES}")]);
            let said = keeper.awaits("handover.state: ");
            println!("{how}: {said}");
            // It is nobody's now, and ends.
            old.end();
            keeper.works();
        }
        keeper.assert_calm();
    }

    fn a_strange_record_is_reported_and_the_service_starts_without_it(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut talk = keeper.talk().served();
        for (bytes, kind) in [(&[][..], "sealed"), (&[0x55; 4096], "sealed"), (&[0; 70_000], "loose"), (&[], "datagram")] {
            keeper.stuff(bytes, &["handover.record.2=nothing", &format!("handover.record={kind}:{BYTES}")]);
            println!("{kind}: {}", keeper.awaits("handover.record: "));
            assert_eq!(talk.ask("GET a"), "value 1");
            keeper.works();
        }
        keeper.assert_calm();
    }

    fn what_is_no_connection_is_reported_and_the_others_go_on(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut talks = [keeper.talk().served(), keeper.talk_unix().served()];
        let stored = keeper.stored();
        for what in ["pipe", "listener", "datagram", "null", "sealed:/run/bytes"] {
            // One that a session could have, one that none ever had, those that are no numbers, and what
            // only a successor gets.
            let names = ["ho.9", "ho.zzz", "ho.", "ho.0.0", "handover.link"];
            let words = names.map(|name| format!("{name}={what}"));
            keeper.stuff(b"bytes", &words.each_ref().map(String::as_str));
            let said = keeper.awaits("\"ho.9\"");
            assert!(names.iter().all(|name| said.contains(&format!("{name:?}"))), "{said}");
            talks.iter_mut().for_each(|talk| assert_eq!(talk.ask("GET a"), "value 1"));
        }
        keeper.works();
        soon("they are thrown away", || keeper.stored() == stored);
        keeper.assert_calm();
    }

    fn a_state_file_that_changes_while_nobody_looks_costs_at_most_what_was_changed(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut talks: Vec<_> = (0..20).map(|_| keeper.talk().served()).collect();
        let gate = Gate::shut(&keeper.machine);
        keeper.kill();
        let arrival = gate.arrival();
        // Nothing that says how the file is laid out, and much of what is in it.
        let file = File::options().read(true).write(true).open(state_file(&keeper)).unwrap();
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for place in (192..bytes.len()).step_by(97).filter(|place| bytes[*place] != 0) {
            file.write_all_at(&[bytes[place] ^ 0xff], place as u64).unwrap();
        }
        drop(gate);
        drop(arrival);
        for talk in &mut talks {
            // It may have been ended, and it may have lost what was written.
            if let Ok(answer) = talk.try_ask("GET a") {
                assert!(["value 1", "none"].contains(&&*answer) || answer.starts_with("error: "), "{answer}");
            }
        }
        keeper.works();
        keeper.assert_calm();
    }
}

/// The state file that PID 1 holds, as this process sees it.
fn state_file(keeper: &Keeper) -> PathBuf {
    let fds = fs::read_dir(format!("/proc/{}/fd", keeper.machine.pid1())).unwrap();
    let is_state = |path: &PathBuf| {
        let link = fs::read_link(path).unwrap_or_default();
        let mut start = [0; MAGIC.len()];
        link.to_string_lossy().starts_with("/memfd:")
            && File::open(path).and_then(|file| file.read_exact_at(&mut start, 0)).is_ok()
            && start == MAGIC
    };
    let mut found = fds.map(|fd| fd.unwrap().path()).filter(is_state);
    found.next().expect("PID 1 has a state file")
}

impl Keeper {
    /// Has PID 1 start the service with things under names of handover's own, see the program `stuff`.
    fn stuff(&self, bytes: &[u8], words: &[&str]) {
        self.machine.push(BYTES, bytes, 0o644);
        let program = self.inside("/usr/bin/stuff");
        if !program.exists() {
            fs::copy(executable().with_file_name("stuff"), program).unwrap();
        }
        self.drop_in(&format!("NotifyAccess=all\nExecStartPre=/usr/bin/stuff {}\n", words.join(" ")));
        self.systemctl("restart");
        self.drop_in("");
    }

    /// Waits until the main process says something with `text`.
    fn awaits(&self, text: &str) -> String {
        let pid = format!("_PID={}", self.main_pid());
        self.machine.await_journal("--since=today", &[&pid, "-o", "cat"], text)
    }

    /// A file of the machine, as this process sees it.
    fn inside(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.machine.pid1()).into()
    }

    /// New sessions work, outlive a kill, and move.
    fn works(&self) {
        let mut talk = self.talk().served();
        assert_eq!(talk.ask("COUNT"), "count 2");
        self.kill();
        assert_eq!(talk.ask("GET a"), "value 1");
        let new = self.upgrade();
        assert_eq!(talk.pid(), new);
        assert_eq!(talk.ask("QUIT"), "bye");
    }
}
