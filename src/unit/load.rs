//! From paths to settings: which files a unit is made of, and reading them.

use std::collections::{BTreeMap, VecDeque};
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
    for path in paths {
        loader.add(path);
    }
    while let Some(name) = loader.wanted.pop_front() {
        loader.unit(name);
    }
    loader.loaded
}

/// A file or folder of the search path.
#[derive(Default)]
struct Loader {
    host: Arc<Host>,
    folders: Vec<PathBuf>,
    wanted: VecDeque<UnitName>,
    loaded: Loaded,
}

impl Loader {
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
        if name.is_template() {
            let message = "a template cannot run: give its instance a name, between the @ and the dot";
            return self.error(format!("{}: {message}", path.display()));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.search(folder.unwrap_or_else(|| Path::new(".")).to_owned());
        self.wanted.push_back(name);
    }

    fn add_folder(&mut self, folder: &Path) {
        self.search(folder.to_owned());
        let names = match names(folder) {
            Ok(names) => names,
            Err(why) => return self.error(format!("{}: {why}", folder.display())),
        };
        let units = names.iter().filter_map(|name| UnitName::parse(name));
        self.wanted.extend(units.filter(|name| is_ours(name) && !name.is_template()));
    }

    fn search(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Reads a unit, unless it was read before.
    fn unit(&mut self, name: UnitName) {
        let Some((name, file)) = self.file_of_alias(&name) else {
            let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
            return self.error(format!("{name}: not found in {}", folders.join(", ")));
        };
        if self.loaded.units.iter().any(|unit| *unit.name() == name) {
            return;
        }
        match contents(&file) {
            Ok(text) if text.is_empty() => self.warn(format!("{}: the unit is masked", file.display())),
            Ok(text) => self.read(name, file, text),
            Err(why) => self.error(format!("{}: {why}", file.display())),
        }
    }

    fn read(&mut self, name: UnitName, file: PathBuf, text: Vec<u8>) {
        let mut files = vec![(file, text)];
        files.extend(self.drop_ins(&name));
        let mut findings = Vec::new();
        let unit = Unit::read(name.clone(), self.host.clone(), &files, &mut findings);
        if name.kind() == "socket" {
            let socket = Socket::read(&unit, &mut findings);
            if !socket.accept {
                let named = socket.service.as_deref().and_then(UnitName::parse);
                self.wanted.extend(named.or_else(|| name.with_kind("service")));
            }
            if usable(&findings) {
                self.loaded.sockets.push((name, socket));
            }
        } else {
            let service = Service::read(&unit, &mut findings);
            self.wanted.extend(service.sockets.iter().filter_map(|socket| UnitName::parse(socket)));
            if usable(&findings) {
                self.loaded.services.push((name, service));
            }
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
    (target != *name && !target.is_template() && target.kind() == name.kind()).then_some(target)
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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with these files; it goes when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("handover-load-{name}-{}", std::process::id()));
            for (file, text) in files {
                let path = folder.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        fn load(&self, files: &[&str]) -> Loaded {
            load(&files.iter().map(|file| self.0.join(file)).collect::<Vec<_>>(), Host::default())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names_of<T>(units: &[(UnitName, T)]) -> Vec<&str> {
        units.iter().map(|(name, _)| name.as_str()).collect()
    }

    const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

    #[test]
    fn a_folder_is_all_its_services_and_sockets_with_their_drop_ins() {
        let files = [
            ("web.service", SERVICE),
            ("web.socket", "[Socket]\nListenStream=80\n"),
            ("web.service.d/10.conf", "[Service]\nNice=5\n"),
            ("web.service.d/hidden", "[Service]\nNice=6\n"),
            ("job@.service", SERVICE),
            ("web.timer", "[Timer]\n"),
            ("notes.txt", "no unit"),
        ];
        let folder = Folder::with("folder", &files);
        let loaded = folder.load(&[""]);
        assert_eq!(loaded.findings, []);
        assert_eq!(
            (names_of(&loaded.services), names_of(&loaded.sockets)),
            (vec!["web.service"], vec!["web.socket"])
        );
        assert_eq!(loaded.services[0].1.exec.nice, Some(5));
        assert_eq!(loaded.units[0].files().len(), 2);
    }

    #[test]
    fn a_socket_brings_its_service_and_an_instance_its_template() {
        let files = [
            ("a.socket", "[Socket]\nListenStream=80\nService=job@%p.service\n"),
            ("job@.service", "[Service]\nExecStart=/bin/echo %i\nSockets=b.socket\n"),
            ("job@a.service.d/x.conf", "[Service]\nNice=1\n"),
            ("b.socket", "[Socket]\nListenStream=81\nService=job@a.service\n"),
        ];
        let folder = Folder::with("instance", &files);
        let loaded = folder.load(&["a.socket"]);
        assert_eq!(loaded.findings, []);
        assert_eq!(names_of(&loaded.services), ["job@a.service"]);
        assert_eq!(names_of(&loaded.sockets), ["a.socket", "b.socket"]);
        assert_eq!(loaded.services[0].1.exec_start[0].words, ["/bin/echo", "a"]);
        assert_eq!(loaded.services[0].1.exec.nice, Some(1));
        assert!(names_of(&folder.load(&["job@b.service"]).services).contains(&"job@b.service"));
    }

    #[test]
    fn an_alias_is_the_unit_it_stands_for_and_a_masked_one_is_none() {
        let folder = Folder::with("alias", &[("real.service", SERVICE), ("masked.service", "")]);
        symlink("real.service", folder.0.join("alias.service")).unwrap();
        symlink("/dev/null", folder.0.join("null.service")).unwrap();
        symlink("circle.service", folder.0.join("circle.service")).unwrap();
        let loaded = folder.load(&[""]);
        assert_eq!(names_of(&loaded.services), ["real.service"]);
        let findings: Vec<_> = loaded.findings.iter().map(Finding::to_string).collect();
        assert_eq!(findings.iter().filter(|finding| finding.ends_with("the unit is masked")).count(), 2);
        assert!(findings.iter().any(|finding| finding.contains("circle.service: ")), "{findings:?}");
    }

    #[test]
    fn what_is_not_there_or_no_unit_is_told() {
        let folder =
            Folder::with("missing", &[("a.socket", "[Socket]\nListenStream=80\n"), ("bad.service", "")]);
        let loaded = folder.load(&["a.socket", "job@.service", "notes.txt", "gone.service"]);
        let findings: Vec<_> = loaded.findings.iter().map(Finding::to_string).collect();
        let wanted = [
            "a template cannot run",
            "wanted a .service, a .socket or a folder",
            "gone.service: not found in ",
            "a.service: not found in ",
        ];
        for (finding, wanted) in findings.iter().zip(wanted) {
            assert!(finding.starts_with("error: ") && finding.contains(wanted), "{findings:?}");
        }
        assert_eq!((findings.len(), loaded.sockets.len()), (4, 1));
    }

    #[test]
    fn a_fifo_is_no_unit_and_nobody_waits_for_it() {
        let folder = Folder::with("fifo", &[("b.service", SERVICE)]);
        nix::unistd::mkfifo(&folder.0.join("a.service"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let loaded = folder.load(&[""]);
        assert_eq!(names_of(&loaded.services), ["b.service"]);
        assert!(loaded.findings[0].to_string().ends_with("not a regular file"));
    }
}
