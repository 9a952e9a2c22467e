//! What the services print: each line with the service and the process that printed it.
//!
//! ```text
//!  stdout, stderr of all processes of a service --> one unix stream --> lines, by process --> our stdout
//!                                                (SO_PASSCRED: who)     web[123]: ...
//! ```
//!
//! A socket and no pipe, as the journal has it: so the kernel says who wrote, also when one process
//! started another that has the same output. A line is not held longer than [`MOST`] bytes; an output that
//! nobody reads makes the services wait, and nobody else.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::sys::watch::Watched;
use crate::sys::{scm, seqpacket};

/// Bytes of a line that are shown as one.
const MOST: usize = 8 * 1024;
/// Processes of a service whose unfinished lines are kept.
const MOST_WRITERS: usize = 64;
/// Pieces of text that may wait for our own output.
const QUEUE: usize = 256;

/// Our own output, written by a thread of its own: a terminal that stands still stops nobody else.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    queue: mpsc::Sender<Vec<u8>>,
}

/// Ends the thread, after what was said.
#[derive(Debug)]
pub(crate) struct Printer(std::thread::JoinHandle<()>);

impl Output {
    /// Starts the thread that writes to `to`.
    pub(crate) fn new(mut to: impl Write + Send + 'static) -> io::Result<(Self, Printer)> {
        let (queue, mut pieces) = mpsc::channel::<Vec<u8>>(QUEUE);
        let work = move || {
            while let Some(piece) = pieces.blocking_recv() {
                // Nobody is left to tell if this fails, and the services need not know.
                let _ = to.write_all(&piece).and_then(|()| to.flush());
            }
        };
        let thread = std::thread::Builder::new().name("output".into()).spawn(work)?;
        Ok((Self { queue }, Printer(thread)))
    }

    /// Says something of our own, unless nobody has listened for long.
    pub(crate) fn say(&self, line: &str) {
        let _ = self.queue.try_send(format!("handover: {}\n", printable(line)).into_bytes());
    }

    /// Says something about a unit.
    pub(crate) fn say_of(&self, unit: &str, line: &str) {
        self.say(&format!("{unit}: {line}"));
    }

    /// The output of a service called `name`: what its processes write to. Read by a task of its own,
    /// until the last of them has closed it, and we the one that is returned.
    pub(crate) fn of_service(&self, name: &str) -> io::Result<(OwnedFd, JoinHandle<()>)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        seqpacket::pass_credentials(ours.as_fd())?;
        let (watched, name, queue) = (Watched::new(ours.into())?, name.to_owned(), self.queue.clone());
        let reader = tokio::spawn(async move {
            let mut lines = Lines::new(name);
            let mut buffer = vec![0; MOST];
            loop {
                let received = watched.try_when_readable(|fd| receive(fd, &mut buffer)).await;
                let Ok((len @ 1.., pid)) = received else { break };
                let text = lines.take(pid, &buffer[..len]);
                if !text.is_empty() && queue.send(text).await.is_err() {
                    return;
                }
            }
            let rest = lines.rest();
            if !rest.is_empty() {
                let _ = queue.send(rest).await;
            }
        });
        Ok((theirs.into(), reader))
    }
}

impl Printer {
    /// Waits until all that was said is written. Every [`Output`] must be gone, or this waits for it.
    pub(crate) fn finish(self) {
        // A panic in there has been reported by itself.
        let _ = self.0.join();
    }
}

/// Bytes, and who wrote them; what they carry beside is closed.
fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, i32)> {
    let received = scm::receive(fd, buffer)?;
    Ok((received.len, received.pid.unwrap_or(0)))
}

/// Bytes that become lines.
struct Lines {
    name: String,
    unfinished: HashMap<i32, Vec<u8>>,
}

impl Lines {
    fn new(name: String) -> Self {
        Self { name, unfinished: HashMap::new() }
    }

    /// What can be shown after `pid` wrote `bytes`.
    fn take(&mut self, pid: i32, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        if self.unfinished.len() >= MOST_WRITERS && !self.unfinished.contains_key(&pid) {
            text = self.rest();
        }
        let mut pending = self.unfinished.remove(&pid).unwrap_or_default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(part);
            if pending.ends_with(b"\n") || pending.len() >= MOST {
                self.show(pid, &pending, &mut text);
                pending.clear();
            }
        }
        if !pending.is_empty() {
            self.unfinished.insert(pid, pending);
        }
        text
    }

    /// The lines that have no end yet.
    fn rest(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for (pid, pending) in std::mem::take(&mut self.unfinished) {
            self.show(pid, &pending, &mut text);
        }
        text
    }

    fn show(&self, pid: i32, line: &[u8], text: &mut Vec<u8>) {
        let line = String::from_utf8_lossy(line);
        text.extend_from_slice(format!("{}[{pid}]: {}\n", self.name, printable(line.trim_end())).as_bytes());
    }
}

/// Without what commands a terminal, but for a tabulator.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        Lines::new("web".into())
    }

    fn shown(text: &[u8]) -> &str {
        str::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_is_shown_when_it_ends_with_who_wrote_it() {
        let mut lines = lines();
        assert_eq!(shown(&lines.take(7, b"one\ntw")), "web[7]: one\n");
        assert_eq!(shown(&lines.take(8, b"other\n")), "web[8]: other\n");
        assert_eq!(shown(&lines.take(7, b"o\n\n")), "web[7]: two\nweb[7]: \n");
        lines.take(7, b"rest");
        assert_eq!(shown(&lines.rest()), "web[7]: rest\n");
    }

    #[test]
    fn a_line_without_end_is_cut_and_so_is_the_number_of_them() {
        let mut lines = lines();
        assert_eq!(lines.take(7, &[b'x'; 2 * MOST]).len(), 2 * MOST + "web[7]: \n".len());
        for pid in 0..1000 {
            lines.take(pid, b"x");
            assert!(lines.unfinished.len() <= MOST_WRITERS);
        }
    }

    #[test]
    fn nothing_that_a_service_prints_commands_the_terminal() {
        assert_eq!(shown(&lines().take(7, b"\x1b[2J\tx\xff\r\n")), "web[7]:  [2J\tx\u{fffd}\n");
    }

    #[tokio::test]
    async fn what_a_process_writes_comes_out_with_its_own_pid() {
        use std::process::{Command, Stdio};
        let (mut read, written) = std::io::pipe().unwrap();
        let (output, printer) = Output::new(written).unwrap();
        let (end, reader) = output.of_service("web").unwrap();
        let script = "sh -c 'echo $$ inner'; echo $$ outer";
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::from(end)).spawn().unwrap();
        let status = tokio::task::spawn_blocking(move || shell.wait()).await.unwrap().unwrap();
        assert!(status.success());
        reader.await.unwrap();
        drop(output);
        let text = tokio::task::spawn_blocking(move || {
            printer.finish();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut read, &mut text).unwrap();
            text
        });
        for line in text.await.unwrap().lines() {
            let (prefix, said) = line.split_once(": ").unwrap();
            let pid = said.split(' ').next().unwrap();
            assert_eq!(prefix, format!("web[{pid}]"));
        }
    }
}
