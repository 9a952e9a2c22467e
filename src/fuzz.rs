//! What reads the words of others, for the fuzzer of `tests/fuzz`: built with `--cfg fuzzing` alone.
//!
//! Each function takes bytes of any kind, and panics where a promise is broken that holds for all of
//! them. It never is a part of the library that a service is built with.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::activation::env::{self, Decision, Variables};
use crate::fdstore::{Record, RecordFile, Shape, StateFile, StateVersion};
#[cfg(feature = "http")]
use crate::http::luggage::Luggage;
use crate::manager::wire;
use crate::notify::Address;
use crate::pid1::Said;
use crate::sys::memfd;
use crate::unit::{Finding, Host, Service, Socket, Unit, UnitName, read_environment_file};
use crate::upgrade::message::{Answer, Message, Order, Report, Request};
use crate::upgrade::moves::Taker;
use crate::upgrade::status;

/// The pid, and the id of the pidfd, of the process that the variables may be for.
const PID: u32 = 7;
const PIDFD_ID: u64 = 77;

/// The LISTEN_* variables, one a line; a line that is missing is one that is not set.
pub fn listen(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next();
    let found = Variables { pid: next(), pidfd_id: next(), fds: next(), names: next(), first_fd: next() };
    let Ok(Decision::Take { first, count, names, .. }) = env::read(&found, PID, Some(PIDFD_ID)) else {
        return;
    };
    assert!(first >= env::FIRST_FD && count > 0);
    let Some(names) = names else { return };
    assert_eq!(names.len(), count);
    // What can be written, is read as it was.
    if let Ok(written) = env::write(names.iter().map(String::as_str)) {
        let value =
            |wanted: &str| written.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.clone());
        let again =
            Variables { fds: value("LISTEN_FDS"), names: value("LISTEN_FDNAMES"), ..Variables::default() };
        let read = env::read(&again, PID, None);
        assert!(matches!(read, Ok(Decision::Take { names: Some(read), .. }) if read == names));
    }
}

/// A message of any of the four kinds; and orders to one who holds connections, with a bar between them:
/// each has as many descriptors as its first byte says.
pub fn link(data: &[u8]) {
    there_and_back::<Request>(data);
    there_and_back::<Answer>(data);
    there_and_back::<Report>(data);
    there_and_back::<Order>(data);
    let (mut taker, mut came, mut ours) = (Taker::default(), 0, 0);
    for order in data.split(|byte| *byte == b'|') {
        let Some((fds, order)) = order.split_first() else { continue };
        let Ok(order) = Order::decode(order) else { continue };
        let fds: Vec<OwnedFd> =
            (0..fds % 4).filter_map(|_| File::open("/dev/null").ok()).map(Into::into).collect();
        came += fds.len();
        if let Ok(arrivals) = taker.obey(order, fds, true, |_| Ok(())) {
            ours += arrivals.len();
        }
    }
    assert!(ours + taker.all().len() <= came);
}

fn there_and_back<M: Message + PartialEq + Debug>(data: &[u8]) {
    if let Ok(message) = M::decode(data) {
        assert_eq!(M::decode(&message.encode()), Ok(message));
    }
}

/// A state file of a small shape with some states in it, changed here and there; or bytes as they are.
pub fn state(data: &[u8]) {
    let Some(([kind, cells, cell_bytes, service_bytes], rest)) = data.split_first_chunk() else { return };
    if *kind == 0 {
        return read_state(memfd::sealed(rest).ok());
    }
    let (cells, cell_bytes) = (u32::from(cells % 9), u32::from(*cell_bytes));
    let shape = Shape { cells, cell_bytes, service_bytes: u32::from(*service_bytes) };
    let version = StateVersion { written: 2, readable_by: 1 };
    let Ok(file) = StateFile::create(shape, version) else { return };
    for round in 0..kind % 4 {
        let _ = file.save_service(&vec![round; shape.service_bytes as usize]);
        if let Ok(cell) = file.claim() {
            let _ = file.save(cell, &vec![round; shape.cell_bytes as usize]);
        }
    }
    read_state(changed(&file, rest));
}

/// Everything that can be done with a state file that somebody else made.
fn read_state(fd: Option<OwnedFd>) {
    let ours = StateVersion { written: 2, readable_by: 1 };
    let Some(Ok(file)) = fd.map(StateFile::open) else { return };
    let most = file.shape();
    assert_eq!(file.check_version(ours).is_ok(), file.version().readable_by <= ours.written);
    assert!(file.service().is_none_or(|bytes| bytes.len() <= most.service_bytes as usize));
    for id in file.ids() {
        let Some(cell) = file.cell_of(id) else { panic!("{id} is used and nowhere") };
        assert!(file.read(cell).is_none_or(|bytes| bytes.len() <= most.cell_bytes as usize));
        let _ = (file.owner(cell), file.set_owner(cell, 7), file.save(cell, b""));
        assert_eq!(file.read(cell).as_deref(), Some(&b""[..]));
    }
    if let Ok(copy) = StateFile::create(Shape { cells: most.cells + 1, ..most }, ours) {
        assert!(copy.copy_from(&file).is_ok());
        assert_eq!(copy.ids().len(), file.ids().len());
    }
    while let Ok(cell) = file.claim() {
        assert_eq!(file.read(cell), None);
    }
    file.ids().into_iter().filter_map(|id| file.cell_of(id)).for_each(|cell| file.free(cell));
    assert!(file.ids().is_empty());
}

/// A record; and its file, with a record in it, changed here and there.
pub fn record(data: &[u8]) {
    let decoded = Record::decode(data);
    if let Some(record) = &decoded {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Some(record));
    }
    let Ok(file) = RecordFile::create() else { return };
    assert!(file.save(&decoded.unwrap_or_default()).is_ok());
    if let Some(Ok((file, record))) = changed(&file, data).map(RecordFile::open) {
        assert!(file.save(&record).is_ok());
    }
    let _ = memfd::sealed(data).map(RecordFile::open);
}

/// A sealed copy of a file, in which each three bytes of `changes` say what to turn around, and where.
fn changed(file: &impl AsFd, changes: &[u8]) -> Option<OwnedFd> {
    let file = File::from(file.as_fd().try_clone_to_owned().ok()?);
    let mut bytes = vec![0; usize::try_from(file.metadata().ok()?.len()).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[2];
        }
    }
    memfd::sealed(&bytes).ok()
}

/// What goes along with a connection of HTTP.
#[cfg(feature = "http")]
pub fn http(data: &[u8]) {
    if let Some(luggage) = Luggage::unpack(data) {
        assert_eq!(Luggage::unpack(&luggage.pack()), Some(luggage));
    }
}

/// The value of NOTIFY_SOCKET.
pub fn address(data: &[u8]) {
    if let Ok(address) = Address::parse(OsStr::from_bytes(data)) {
        assert_eq!(Address::parse(&address.to_os_string()), Ok(address));
    }
}

/// The status of a unit.
pub fn failure(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some((name, detail)) = status::read(&text) {
        assert!(!name.is_empty() && text.contains(detail));
    }
}

/// A datagram to the stand-in's NOTIFY_SOCKET.
pub fn datagram(data: &[u8]) {
    let Ok(lines) = crate::notify::parse(data) else { return };
    let said = Said::read(&lines);
    assert!(said.main_pid.is_none_or(|pid| pid > 0) && said.errno.is_none_or(|errno| errno >= 0));
    assert!(said.status.is_none_or(|status| !status.contains(['\n', '\0'])));
}

/// A line to the stand-in's control socket, and one from it.
pub fn control(data: &[u8]) {
    if let Ok(request) = wire::read::<wire::Request>(data) {
        assert_eq!(wire::read(&wire::line(&request)), Ok(request));
    }
    if let Ok(reply) = wire::read::<wire::Reply>(data) {
        assert_eq!(wire::read(&wire::line(&reply)), Ok(reply));
    }
}

/// A unit file of a service or a socket, perhaps with a drop-in after a byte 1; and the same as a file of
/// EnvironmentFile=.
pub fn unit(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let name = ["web@a-b.service", "web-api.socket"][usize::from(kind % 2)];
    let mut files = Vec::new();
    for (text, path) in text.splitn(2, |byte| *byte == 1).zip(["main", "drop-in"]) {
        files.push((path.into(), text.to_vec()));
    }
    let mut findings = Vec::new();
    let unit = read_unit(name, &files, &mut findings);
    let service = Service::read(&unit, &mut findings);
    let socket = Socket::read(&unit, &mut findings);
    for Finding { place, message, .. } in &findings {
        let lines = |text: &Vec<u8>| text.split(|byte| b"\n\r\0".contains(byte)).count();
        let fits = |place: &crate::unit::Place| {
            let file = files.iter().find(|(path, _)| **path == *place.file);
            file.is_some_and(|(_, text)| (1..=lines(text)).contains(&(place.line as usize)))
        };
        assert!(place.as_ref().is_none_or(fits), "{message}");
    }
    let environment = read_environment_file(Path::new("environment"), text, &mut findings);
    for command in service.exec_start.iter().chain(&socket.exec_start_pre) {
        let unset = command.arguments(&environment).unset;
        assert!(unset.iter().all(|name| environment.iter().all(|(known, _)| known != name)));
    }
    // What can be written, is read as it was; a mark lets a line begin with what else were a comment.
    if !text.windows(3).any(|bytes| bytes == "\u{feff}".as_bytes()) {
        let again = read_unit(name, &[("main".into(), unit.to_string().into())], &mut findings);
        assert_eq!(again.to_string(), unit.to_string());
    }
}

/// Units to be checked, each after a byte 2, with a byte that says what it is called, for a systemd that the
/// first byte says.
pub fn check(data: &[u8]) {
    let Some((version, texts)) = data.split_first() else { return };
    let names = ["web.service", "web.socket", "app@.service", "green.service", "other.socket"];
    let folder = std::env::temp_dir().join(format!("handover-fuzz-check-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    let mut files = Vec::new();
    for text in texts.split(|byte| *byte == 2) {
        let Some((name, text)) = text.split_first() else { continue };
        let path = folder.join(names[usize::from(*name) % names.len()]);
        let _ = std::fs::write(&path, text);
        files.push(path);
    }
    let units = crate::check::read(&files);
    let Some(version) = crate::check::Version::parse(&(u16::from(*version) + 200).to_string()) else {
        return;
    };
    let findings = crate::check::check(&units, version);
    for drop_in in crate::check::drop_in(&findings, |_| None) {
        assert!(crate::check::is_ours(&drop_in.text) && findings.iter().any(|found| found.mend.is_some()));
    }
    let _ = std::fs::remove_dir_all(folder);
}

fn read_unit(name: &str, files: &[(std::path::PathBuf, Vec<u8>)], findings: &mut Vec<Finding>) -> Unit {
    let Some(name) = UnitName::parse(name) else { panic!("{name} is valid") };
    Unit::read(name, Arc::new(Host::default()), files, findings)
}
