//! `handover check --fix`: shows the drop-ins, asks, writes them.
//!
//! A unit file is never touched, nor a drop-in that somebody else has written.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::{Asked, complain, say};
use crate::check::{self, DropIn, Finding, Severity};

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Somebody else's file has the name of ours.
    #[error("{} is not ours to change: `handover check --fix` has not written it; move it, or mend it by hand", .0.display())]
    Foreign(PathBuf),
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How it is done.
pub(super) struct Fix {
    /// Nobody is asked.
    pub(super) sure: bool,
}

/// A drop-in, and the file that it is to be.
struct File {
    path: PathBuf,
    drop_in: DropIn,
}

impl Fix {
    /// Mends what can be mended by drop-ins; what is left to be done.
    pub(super) fn mend<'a>(
        &self,
        judged: impl Iterator<Item = (&'a Asked, &'a [Finding])>,
    ) -> Result<Vec<&'a Finding>, Error> {
        let (mut files, mut findings, mut reload) = (Vec::new(), Vec::new(), None);
        for (asked, found) in judged {
            files.extend(drop_ins(asked, found)?);
            findings.extend(found);
            reload = reload.or(asked.reload);
        }
        if files.is_empty() {
            say("nothing that a drop-in could mend");
            return Ok(findings);
        }
        for File { path, drop_in } in &files {
            say(&format!("\n{}:\n{}", path.display(), indented(&drop_in.text)));
        }
        if !self.sure && !agreed() {
            return Ok(findings);
        }
        for File { path, drop_in } in &files {
            write(path, &drop_in.text)?;
        }
        say(&match reload {
            Some(reload) => format!("written; they hold from `{reload}` on"),
            None => "written".to_owned(),
        });
        findings.retain(|finding| !is_mended(finding));
        Ok(findings)
    }
}

/// Whether a drop-in mends it: a note is advice, which nobody follows by himself.
fn is_mended(finding: &Finding) -> bool {
    let mend = finding.mend.as_ref().is_some_and(|mend| !mend.by_hand);
    mend && finding.severity > Severity::Note
}

fn drop_ins(asked: &Asked, findings: &[Finding]) -> Result<Vec<File>, Error> {
    let mends: Vec<_> = findings.iter().filter(|finding| is_mended(finding)).cloned().collect();
    let path = |unit: &str, below: &str| {
        let own = asked.units.units().iter().find(|known| known.name().as_str() == unit);
        let beside = own.and_then(|unit| unit.files().first()?.parent().map(Path::to_owned));
        asked.folder.clone().or(beside).unwrap_or_default().join(below)
    };
    let mut files = Vec::new();
    for drop_in in check::drop_in(&mends, |_| None) {
        let path = path(&drop_in.unit, &drop_in.path);
        let before = match fs::read_to_string(&path) {
            Ok(text) if !check::is_ours(&text) => return Err(Error::Foreign(path)),
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Io { path, source }),
        };
        let unit = drop_in.unit.clone();
        let whole = check::drop_in(&mends, |of| before.clone().filter(|_| of == unit));
        files.extend(whole.into_iter().find(|one| one.unit == unit).map(|drop_in| File { path, drop_in }));
    }
    Ok(files)
}

/// Whether whoever sits there wants it; nobody sitting there does not.
fn agreed() -> bool {
    if !io::stdin().is_terminal() {
        complain("handover check: nothing was written: nobody can be asked here, and --yes was not given");
        return false;
    }
    let _ = write!(io::stdout(), "\nwrite this? [y/N] ").and_then(|()| io::stdout().flush());
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

/// Writes it under another name, and renames: PID 1 never reads half of it.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let half = path.with_extension("new");
    fs::write(&half, text).and_then(|()| fs::rename(&half, path)).map_err(failed)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
