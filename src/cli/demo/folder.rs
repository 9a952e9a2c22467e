//! The folder of the show: the shipped units, each with a drop-in, the installed version of the service,
//! and the log.
//!
//! Its name is its own, nobody else may look into it, and it never outlives the show.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::unistd::mkdtemp;

/// The units of the demo, as they are shipped.
const UNITS: [(&str, &str); 2] = [
    ("keeper.socket", include_str!("../../../units/keeper.socket")),
    ("keeper.service", include_str!("../../../units/keeper.service")),
];

/// Lines of the log that are shown when something went wrong.
const LAST_WORDS: usize = 12;

/// A version of the service that can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Good,
    /// It crashes while it initialises.
    Bad,
}

/// What the program of a bad version is called.
const BAD: &str = "keeper-bad";

/// How its name begins.
const NAME: &str = "handover-demo-";

/// It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What every version of the service is.
    program: PathBuf,
}

impl Folder {
    /// An empty one, below the folder for what is temporary.
    pub(super) fn new(program: PathBuf) -> io::Result<Self> {
        let path = mkdtemp(&std::env::temp_dir().join(format!("{NAME}XXXXXX")))?;
        Ok(Self { path, program })
    }

    /// One that another process has made, and not removed; `None` if it is none of these.
    pub(super) fn left(path: &Path) -> Option<Self> {
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME));
        ours.then(|| Self { path: path.to_owned(), program: PathBuf::new() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// On which the stand-in says that it is ready.
    pub(super) fn notify(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// Writes the units, each with what is the demo's own in a drop-in, and installs a good version.
    pub(super) fn fill(&self, address: SocketAddr, sabotage: bool) -> io::Result<()> {
        let sabotage = if sabotage { " --sabotage" } else { "" };
        let socket = format!("[Socket]\nListenStream=\nListenStream={address}\n");
        let service = format!(
            "[Service]\nExecStart=\nExecStart={} demo --serve{sabotage}\nExecReload=\nExecReload={} reload\n",
            quoted(&self.keeper()),
            quoted(&self.program)
        );
        for ((name, unit), ours) in UNITS.into_iter().zip([socket, service]) {
            let drop_ins = self.units().join(format!("{name}.d"));
            fs::create_dir_all(&drop_ins)?;
            fs::write(self.units().join(name), unit)?;
            fs::write(drop_ins.join("demo.conf"), ours)?;
        }
        symlink(&self.program, self.path.join(BAD))?;
        self.install(Version::Good)
    }

    /// Puts a version of the service in place of the one that is installed.
    pub(super) fn install(&self, version: Version) -> io::Result<()> {
        let target = match version {
            Version::Good => self.program.clone(),
            Version::Bad => self.path.join(BAD),
        };
        let fresh = self.path.join("fresh");
        symlink(target, &fresh)?;
        fs::rename(&fresh, self.keeper())
    }

    /// The folder of the units.
    pub(super) fn units(&self) -> PathBuf {
        self.path.join("units")
    }

    /// What the stand-in has in the place of /run: those who want something of it find it there.
    pub(super) fn runtime(&self) -> PathBuf {
        self.path.join("run")
    }

    /// What the stand-in and the service say.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What ExecStart= runs: a link to the version that is installed.
    fn keeper(&self) -> PathBuf {
        self.path.join("keeper")
    }

    /// A sentence, and what the log ends with.
    pub(super) fn with_log(&self, sentence: &str) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
        let last = last.iter().map(|line| format!("\n    {line}")).collect::<String>();
        format!("{sentence}{last}")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is not ours, or is gone.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether this process is a bad version, by the link that it was started by.
pub(super) fn is_bad(started_by: &Path) -> bool {
    fs::read_link(started_by).is_ok_and(|target| target.file_name().is_some_and(|name| name == BAD))
}

/// A path as a word of ExecStart= (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers").
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{path}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        assert_eq!(quoted(Path::new("/tmp/a b/100%/$x\"\\")), r#""/tmp/a b/100%%/$$x\"\\""#);
    }

    #[test]
    fn it_has_the_shipped_units_and_goes_away() {
        let folder = Folder::new("/usr/bin/handover".into()).unwrap();
        folder.fill(([127, 0, 0, 1], 7070).into(), false).unwrap();
        let unit = fs::read_to_string(folder.units().join("keeper.service")).unwrap();
        assert!(unit.contains("FileDescriptorStoreMax=") && unit == UNITS[1].1);
        let ours = fs::read_to_string(folder.units().join("keeper.socket.d/demo.conf")).unwrap();
        assert_eq!(ours, "[Socket]\nListenStream=\nListenStream=127.0.0.1:7070\n");
        let path = folder.path.clone();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_version_is_bad_by_the_link_that_leads_to_it() {
        let folder = Folder::new("/usr/bin/handover".into()).unwrap();
        folder.fill(([127, 0, 0, 1], 7070).into(), false).unwrap();
        assert!(!is_bad(&folder.keeper()) && !is_bad(Path::new("/usr/bin/handover")));
        folder.install(Version::Bad).unwrap();
        assert!(is_bad(&folder.keeper()));
        folder.install(Version::Good).unwrap();
        assert!(!is_bad(&folder.keeper()));
    }

    #[test]
    fn the_end_of_the_log_is_shown() {
        let folder = Folder::new("/usr/bin/handover".into()).unwrap();
        assert_eq!(folder.with_log("nothing yet"), "nothing yet");
        let lines: Vec<_> = (0..40).map(|line| line.to_string()).collect();
        fs::write(folder.log(), lines.join("\n")).unwrap();
        let told = folder.with_log("it ended");
        assert!(told.starts_with("it ended\n    28\n") && told.ends_with("\n    39"), "{told}");
    }
}
