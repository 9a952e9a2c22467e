//! The journal of a machine without journald: what its PID 1 prints, and what programs send to journald's
//! socket. The supervisor writes it, a line an entry; the test reads it, with the arguments of
//! journalctl(1) that the scenarios use, and no others.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};

/// Between the fields of an entry, and for a new line within one: ASCII has them for that.
const FIELD: char = '\x1f';
const NEW_LINE: char = '\x1e';

/// The largest datagram that is taken; what handover sends has a few hundred bytes.
const MOST: usize = 64 * 1024;

/// A service that prints what is in a file: when that is in the journal, so is all that was said before.
pub(crate) const SYNC: &str = "lab-sync.service";
pub(crate) const SYNC_FILE: &str = "/run/lab-sync";

/// A text that is not said within this time never will be.
const PATIENCE: Duration = Duration::from_secs(20);

/// One entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the supervisor got it, since 1970.
    when: Duration,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn new(fields: &[(&str, &str)]) -> Self {
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let when = Duration::from_micros(u64::try_from(when.as_micros()).unwrap_or(u64::MAX));
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { when, fields: fields.iter().map(own).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn write(&self) -> String {
        let mut line = self.when.as_micros().to_string();
        for (name, value) in &self.fields {
            line.push(FIELD);
            line.push_str(&format!("{name}={value}").replace('\n', &NEW_LINE.to_string()));
        }
        line + "\n"
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split(FIELD);
        let when = Duration::from_micros(parts.next()?.parse().ok()?);
        let field = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((name.to_owned(), value.replace(NEW_LINE, "\n")))
        };
        Some(Self { when, fields: parts.filter_map(field).collect() })
    }

    /// A line that the stand-in printed: `web[7]: said by a process`, or `handover: web.service: said of it`.
    fn printed(line: &str) -> Self {
        let (who, text) = line.split_once(": ").unwrap_or(("", line));
        if let Some((name, pid)) = who.strip_suffix(']').and_then(|who| who.split_once('[')) {
            let unit = format!("{name}.service");
            let fields = [("SYSLOG_IDENTIFIER", name), ("_PID", pid), ("_SYSTEMD_UNIT", &unit)];
            return Self::new(&[&fields[..], &[("PRIORITY", "6"), ("MESSAGE", text)]].concat());
        }
        let bad = ["warning: ", "error: "].iter().any(|word| text.starts_with(word));
        let fields = [("SYSLOG_IDENTIFIER", who), ("_PID", "1"), ("PRIORITY", if bad { "4" } else { "6" })];
        let is_unit = |name: &str| name.ends_with(".service") || name.ends_with(".socket");
        match text.split_once(": ").filter(|(unit, _)| is_unit(unit)) {
            Some((unit, _)) => Self::new(&[&fields[..], &[("UNIT", unit), ("MESSAGE", text)]].concat()),
            None => Self::new(&[&fields[..], &[("MESSAGE", text)]].concat()),
        }
    }

    /// systemd's native journal protocol: `NAME=value`, or a name and a length before the value.
    fn sent(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..]);
            bytes = rest;
            if let Some((name, value)) = line.split_once('=') {
                fields.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let Some((length, rest)) = rest.split_first_chunk() else { break };
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some(value) = rest.get(..length) else { break };
            fields.push((line, String::from_utf8_lossy(value).into_owned()));
            bytes = rest.get(length + 1..).unwrap_or_default();
        }
        Self { fields, ..Self::new(&[]) }
    }
}

/// Where the supervisor with the state folder `state` keeps the entries.
pub(crate) fn file(state: &Path) -> std::path::PathBuf {
    state.join("journal")
}

/// The socket that is journald's to the machine.
pub(crate) fn socket(state: &Path) -> std::path::PathBuf {
    state.join("journald")
}

/// The writing end.
pub(crate) struct Journal {
    socket: UnixDatagram,
    file: File,
    /// What was printed of a line that has no end yet.
    begun: Vec<u8>,
    /// The number that a sender has in its machine, and its unit: its last words may come after its end.
    senders: HashMap<i32, Vec<(String, String)>>,
}

impl Journal {
    /// An empty one, below `state`.
    pub(crate) fn new(state: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::bind(self::socket(state))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        // For whichever user a service runs as.
        fs::set_permissions(self::socket(state), std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let file = File::create(self::file(state))?;
        Ok(Self { socket, file, begun: Vec::new(), senders: HashMap::new() })
    }

    /// Readable when something was sent.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in what was sent.
    pub(crate) fn hear(&mut self) {
        let mut buffer = vec![0; MOST];
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let mut space = cmsg_space!(UnixCredentials);
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let Ok(message) = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags)
            else {
                return;
            };
            let pid = message.cmsgs().into_iter().flatten().find_map(|part| match part {
                ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
                _ => None,
            });
            let length = message.bytes;
            let mut entry = Entry::sent(&buffer[..length]);
            entry.fields.extend(pid.map(|pid| self.sender(pid)).unwrap_or_default());
            self.write(&entry);
        }
    }

    /// Takes in what PID 1 has printed.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            self.write(&Entry::printed(String::from_utf8_lossy(&line).trim_end()));
        }
    }

    /// In one piece, so that a reader never sees half an entry. A journal that cannot be written fails the
    /// test that reads it.
    fn write(&mut self, entry: &Entry) {
        let _ = self.file.write_all(entry.write().as_bytes());
    }

    /// Who a process of this host is in its machine.
    fn sender(&mut self, pid: i32) -> Vec<(String, String)> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (status, cgroup) = (read("status"), read("cgroup"));
        let inside =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().next_back());
        let unit = cgroup.split(['/', '\n']).find(|part| part.ends_with(".service"));
        if let (Some(inside), Some(unit)) = (inside, unit) {
            let fields = [("_PID", inside), ("_SYSTEMD_UNIT", unit)];
            self.senders.insert(pid, Entry::new(&fields).fields);
        }
        self.senders.get(&pid).cloned().unwrap_or_default()
    }
}

/// What is wanted of the entries, in the words of journalctl(1).
#[derive(Debug, Default)]
pub(crate) struct Query {
    units: Vec<String>,
    fields: Vec<(String, String)>,
    priority: Option<u8>,
    since: Duration,
    last: Option<usize>,
    bare: bool,
}

impl Query {
    /// Reads arguments; says which it does not know.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, String> {
        let mut query = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().copied().ok_or_else(|| format!("{argument} wants a value"));
            match *argument {
                "-q" => {}
                "-u" => query.units.push(value()?.to_owned()),
                "-t" => query.fields.push(("SYSLOG_IDENTIFIER".into(), value()?.to_owned())),
                "-n" => query.last = Some(value()?.parse().map_err(|_| "-n wants a number")?),
                "-o" => query.bare = value()? == "cat",
                "-p" if value()? == "warning" => query.priority = Some(4),
                "--since=today" => {}
                other => match (other.strip_prefix("--since=@"), other.split_once('=')) {
                    (Some(time), _) => query.since = seconds(time).ok_or("--since=@ wants seconds")?,
                    (None, Some((name, value))) if !name.starts_with('-') => {
                        query.fields.push((name.to_owned(), value.to_owned()));
                    }
                    _ => return Err(format!("{other}: the lab's journal does not know this")),
                },
            }
        }
        Ok(query)
    }

    /// What it finds in the text of a journal, each as it is to be shown.
    pub(crate) fn find(&self, text: &str) -> Vec<String> {
        let whole = text.split_inclusive('\n').filter_map(|line| Entry::read(line.strip_suffix('\n')?));
        let mut found: Vec<_> =
            whole.filter(|entry| self.wants(entry)).map(|entry| self.show(&entry)).collect();
        let surplus = found.len().saturating_sub(self.last.unwrap_or(usize::MAX));
        found.drain(..surplus);
        found
    }

    fn wants(&self, entry: &Entry) -> bool {
        let is_of = |unit: &String| {
            let unit = if unit.contains('.') { unit.clone() } else { format!("{unit}.service") };
            ["UNIT", "_SYSTEMD_UNIT"].into_iter().any(|name| entry.get(name) == Some(&unit))
        };
        let priority = || entry.get("PRIORITY").and_then(|text| text.parse::<u8>().ok());
        entry.when >= self.since
            && (self.units.is_empty() || self.units.iter().any(is_of))
            && self.fields.iter().all(|(name, value)| entry.get(name) == Some(value))
            && self.priority.is_none_or(|most| priority().is_some_and(|priority| priority <= most))
    }

    fn show(&self, entry: &Entry) -> String {
        let field = |name| entry.get(name).unwrap_or("?");
        match self.bare {
            true => field("MESSAGE").to_owned(),
            false => format!("{}[{}]: {}", field("SYSLOG_IDENTIFIER"), field("_PID"), field("MESSAGE")),
        }
    }
}

/// Waits for an entry that `query` finds in the journal at `file` and that has `text`; as it is shown.
pub(crate) fn wait(file: &Path, query: &Query, text: &str) -> Option<String> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    changes.add_watch(file, AddWatchFlags::IN_MODIFY).ok()?;
    let until = Instant::now() + PATIENCE;
    loop {
        // What comes after this look is a change that the next poll(2) tells of.
        let found = query.find(&fs::read_to_string(file).ok()?);
        if let Some(line) = found.into_iter().find(|line| line.contains(text)) {
            return Some(line);
        }
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || poll(&mut fds, PollTimeout::try_from(left).ok()?).ok()? == 0 {
            return None;
        }
        let _ = changes.read_events();
    }
}

/// `1234.567890`, exactly: the time of an entry is compared with it.
fn seconds(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_found_by_what_it_has() {
        let sent = Entry::sent(b"PRIORITY=5\nMESSAGE\n\x07\0\0\0\0\0\0\0two\none\nHANDOVER_PHASE=failed\n");
        assert_eq!(Entry::read(sent.write().trim_end()), Some(sent));
        let text: String = [
            Entry::sent(b"PRIORITY=5\nMESSAGE\n\x07\0\0\0\0\0\0\0two\none\nHANDOVER_PHASE=failed\n"),
            Entry::printed("web[7]: it: says"),
            Entry::printed("handover: web.service: it does"),
            Entry::printed("handover: warning: a.service:1: what?"),
        ]
        .iter()
        .map(Entry::write)
        .collect();
        let find = |arguments: &[&str]| Query::parse(arguments).unwrap().find(&text);
        assert_eq!(find(&["-o", "cat", "HANDOVER_PHASE=failed"]), ["two\none"]);
        assert_eq!(find(&["-u", "web", "-o", "cat"]), ["it: says", "web.service: it does"]);
        assert_eq!(find(&["-u", "web", "-n", "1"]), ["handover[1]: web.service: it does"]);
        assert_eq!(find(&["-t", "web", "_PID=7"]), ["web[7]: it: says"]);
        assert_eq!(find(&["-p", "warning", "-q"]), ["handover[1]: warning: a.service:1: what?"]);
        assert!(find(&["--since=@99999999999.000000"]).is_empty());
        assert!(Query::parse(&["--boot"]).is_err());
    }
}
