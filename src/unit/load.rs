//! From paths to settings: which files a unit is made of, and reading them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::drop_in_folders;
use super::{Finding, Host, Service, Severity, Socket, Unit, UnitName};

/// The largest file that is read, bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The longest chain of symlinks from name to name that is followed.
const MOST_ALIASES: usize = 8;

/// What was found in the files and folders given.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// The services that can be used, by name.
    pub services: Vec<(UnitName, Service)>,
    /// The socket units that can be used, by name.
    pub sockets: Vec<(UnitName, Socket)>,
    /// The same units, and those that cannot be used, as they stand in their files.
    pub units: Vec<Unit>,
    /// Everything that is wrong with them, in the order in which they were read.
    pub findings: Vec<Finding>,
}

/// Reads unit files, and all .service and .socket files of folders, each with its drop-ins; with them the
/// services that sockets start and the sockets that services want, from the same folders.
///
/// All folders together are the search path: in the first that has a unit, its file is looked for, and
/// drop-ins in all of them. An instance of a template is asked for by its own name, as if it were a file.
/// A symlink to another unit's file is that unit; drop-ins for the symlink's name are not read.
pub fn load(paths: &[PathBuf], host: Host) -> Loaded {
    let mut loader = Loader { host: Arc::new(host), ..Loader::default() };
    loader.add_all(paths);
    loader.loaded
}

/// The same for who only looks at units: a template is read as it is, a service brings the socket unit of
/// its name, and what is masked, or wanted by a unit and not there, is passed over in silence.
pub fn survey(paths: &[PathBuf], host: Host) -> Loaded {
    let mut loader = Loader { host: Arc::new(host), looks: true, ..Loader::default() };
    loader.add_all(paths);
    loader.loaded
}

/// The same by names, which are looked for in `folders`, a search path.
pub fn look_up(folders: &[PathBuf], names: &[UnitName], host: Host) -> Loaded {
    let folders = folders.to_vec();
    let mut loader = Loader { host: Arc::new(host), looks: true, folders, ..Loader::default() };
    for name in names {
        if loader.file_of(name).is_none() {
            loader.not_found(name);
        }
    }
    loader.wanted.extend(names.iter().cloned());
    loader.read_wanted();
    loader.loaded
}

/// Reads units from the very files that somebody else has found for each: the main one, then the drop-ins
/// in their order.
pub fn load_files(units: &[(UnitName, Vec<PathBuf>)], host: Host) -> Loaded {
    let mut loader = Loader { host: Arc::new(host), looks: true, ..Loader::default() };
    for (name, files) in units {
        let mut read = Vec::new();
        for file in files {
            match contents(file) {
                Ok(text) => read.push((file.clone(), text)),
                Err(why) => loader.error(format!("{}: {why}", file.display())),
            }
        }
        loader.read(name.clone(), &read);
    }
    loader.loaded
}

/// A search path, and what is to be read.
#[derive(Default)]
struct Loader {
    host: Arc<Host>,
    /// Nothing of it is going to run.
    looks: bool,
    folders: Vec<PathBuf>,
    wanted: VecDeque<UnitName>,
    seen: HashSet<UnitName>,
    loaded: Loaded,
}

impl Loader {
    fn add_all(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.add(path);
        }
        self.read_wanted();
    }

    fn read_wanted(&mut self) {
        while let Some(name) = self.wanted.pop_front() {
            self.unit(name);
        }
    }

    fn not_found(&mut self, name: &UnitName) {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        self.error(format!("{name}: not found in {}", folders.join(", ")));
    }

    fn error(&mut self, message: String) {
        self.loaded.findings.push(Finding::error(None, message));
    }

    fn warn(&mut self, message: String) {
        let finding = Finding { severity: Severity::Warning, ..Finding::error(None, message) };
        self.loaded.findings.push(finding);
    }

    /// A path that somebody gave.
    fn add(&mut self, path: &Path) {
        if path.is_dir() {
            return self.add_folder(path);
        }
        let name = path.file_name().and_then(OsStr::to_str).and_then(UnitName::parse);
        let Some(name) = name.filter(is_ours) else {
            return self.error(format!("{}: wanted a .service, a .socket or a folder", path.display()));
        };
        if name.is_template() && !self.looks {
            let message = "a template cannot run: give its instance a name, between the @ and the dot";
            return self.error(format!("{}: {message}", path.display()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.search(folder.unwrap_or_else(|| Path::new(".")).to_owned());
        if self.looks && path.symlink_metadata().is_err() {
            return self.not_found(&name);
        }
        self.wanted.push_back(name);
    }

    fn add_folder(&mut self, folder: &Path) {
        self.search(folder.to_owned());
        let names = match names(folder) {
            Ok(names) => names,
            Err(why) => return self.error(format!("{}: {why}", folder.display())),
        };
        let units = names.iter().filter_map(|name| UnitName::parse(name));
        let looks = self.looks;
        self.wanted.extend(units.filter(|name| is_ours(name) && (looks || !name.is_template())));
    }

    fn search(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Reads a unit, unless it was read before.
    fn unit(&mut self, name: UnitName) {
        let Some((name, file)) = self.file_of_alias(&name) else {
            if !self.looks {
                self.not_found(&name);
            }
            return;
        };
        if !self.seen.insert(name.clone()) {
            return;
        }
        match contents(&file) {
            Ok(text) if text.is_empty() && self.looks => {}
            Ok(text) if text.is_empty() => self.warn(format!("{}: the unit is masked", file.display())),
            Ok(text) => {
                let mut files = vec![(file, text)];
                files.extend(self.drop_ins(&name));
                self.read(name, &files);
            }
            Err(why) => self.error(format!("{}: {why}", file.display())),
        }
    }

    fn read(&mut self, name: UnitName, files: &[(PathBuf, Vec<u8>)]) {
        let mut findings = Vec::new();
        // A template is read as one of its instances would be: %i must stand for something.
        let instance = || UnitName::parse(&format!("{}@i.{}", name.prefix(), name.kind()));
        let as_read = Some(&name).filter(|name| name.is_template()).and_then(|_| instance());
        let read_as = as_read.unwrap_or_else(|| name.clone());
        let mut unit = Unit::read(read_as, self.host.clone(), files, &mut findings);
        if name.kind() == "socket" {
            let socket = Socket::read(&unit, &mut findings);
            if !socket.accept {
                let named = socket.service.as_deref().and_then(UnitName::parse);
                self.wanted.extend(named.or_else(|| name.with_kind("service")));
            }
            if usable(&findings) {
                self.loaded.sockets.push((name.clone(), socket));
            }
        } else {
            let service = Service::read(&unit, &mut findings);
            self.wanted.extend(service.sockets.iter().filter_map(|socket| UnitName::parse(socket)));
            if self.looks {
                self.wanted.extend(name.with_kind("socket"));
            }
            if usable(&findings) {
                self.loaded.services.push((name.clone(), service));
            }
        }
        unit.name = name.clone();
        for finding in &mut findings {
            finding.unit = Some(name.clone());
        }
        self.loaded.units.push(unit);
        self.loaded.findings.append(&mut findings);
    }

    /// The main file of a unit: its own, or that of its template.
    fn file_of(&self, name: &UnitName) -> Option<PathBuf> {
        let names = [Some(name.clone()), name.template()];
        let files = names
            .into_iter()
            .flatten()
            .flat_map(|name| self.folders.iter().map(move |folder| folder.join(name.as_str())));
        files.into_iter().find(|file| file.symlink_metadata().is_ok())
    }

    /// The unit that a name stands for in the end, and its main file.
    fn file_of_alias(&self, name: &UnitName) -> Option<(UnitName, PathBuf)> {
        let (mut name, mut file) = (name.clone(), self.file_of(name)?);
        for _ in 0..MOST_ALIASES {
            let Some(target) = alias_of(&file, &name) else { break };
            // A symlink may lead out of the folders.
            file = self.file_of(&target).unwrap_or(file);
            name = target;
        }
        Some((name, file))
    }

    /// The drop-ins of a unit with their contents, in the order in which they are read: that of their own
    /// names, wherever they are. An empty one hides those of the same name.
    fn drop_ins(&mut self, name: &UnitName) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = BTreeMap::new();
        for folder in drop_in_folders(&self.folders, name) {
            for file in names(&folder).unwrap_or_default() {
                let path = folder.join(&file);
                if file.ends_with(".conf") && !file.starts_with('.') {
                    found.entry(file).or_insert(path);
                }
            }
        }
        let mut read = Vec::new();
        for path in found.into_values() {
            match contents(&path) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => read.push((path, text)),
                Err(why) => {
                    self.warn(format!("{}: {why}; the drop-in is ignored", path.display()));
                }
            }
        }
        read
    }
}

/// Whether it is a unit of a type that is read here.
fn is_ours(name: &UnitName) -> bool {
    ["service", "socket"].contains(&name.kind())
}

fn usable(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity != Severity::Error)
}

/// The unit that a symlink to another unit's file stands for; of a template, its instance of the same
/// name.
fn alias_of(file: &Path, name: &UnitName) -> Option<UnitName> {
    let target = fs::read_link(file).ok()?;
    let target = UnitName::parse(target.file_name()?.to_str()?)?;
    let target = match name.instance() {
        Some(instance) if target.is_template() => {
            UnitName::parse(&format!("{}@{instance}.{}", target.prefix(), target.kind()))?
        }
        _ => target,
    };
    let fits = !target.is_template() || name.is_template();
    (target != *name && fits && target.kind() == name.kind()).then_some(target)
}

/// The names of the files in a folder, sorted.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// A regular file's contents; nothing for /dev/null, which hides a unit.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() {
        return Ok(Vec::new());
    }
    if !kind.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("the file has more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
