//! A gate in front of the sample service: every process of it that starts waits there to be let in.
//!
//! It is a FIFO in the place of the file that tells the sample how to fail, which it reads first, if it was
//! told to look: see `FAIL_BY_FILE`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::lab::Machine;
use crate::web::FAIL_FILE;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gate that is shut; dropping it takes it away.
pub(crate) struct Gate(PathBuf);

impl Gate {
    /// Puts it there for whoever starts from now on.
    pub(crate) fn shut(machine: &Machine) -> Self {
        let gate = Self(PathBuf::from(format!("/proc/{}/root{FAIL_FILE}", machine.pid1())));
        gate.renew();
        gate
    }

    /// Waits until a process has come to it. That one is let in when what is returned is dropped; the
    /// next one waits again.
    pub(crate) fn arrival(&self) -> File {
        let (path, (arrived, arrival)) = (self.0.clone(), mpsc::channel());
        // fifo(7): to open one end takes as long as it takes somebody to open the other.
        std::thread::spawn(move || arrived.send(File::options().write(true).open(path)));
        let arrival = arrival.recv_timeout(PATIENCE).expect("somebody comes to the gate").unwrap();
        self.renew();
        arrival
    }

    /// A FIFO of its own for each who comes, without a moment in which there is none.
    fn renew(&self) {
        let fresh = self.0.with_extension("fresh");
        mkfifo(&fresh, Mode::from_bits_truncate(0o644)).unwrap();
        fs::rename(&fresh, &self.0).unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits until `seen` is true. It should look at the machine, which takes long enough to be no idle loop.
pub(crate) fn soon(what: &str, mut seen: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !seen() {
        assert!(Instant::now() < until, "not within 20 s: {what}");
    }
}
