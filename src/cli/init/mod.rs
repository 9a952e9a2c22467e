//! `handover init`: writes the units of a service that can be upgraded.
//!
//! ```text
//!  flags, and answers of whoever sits at the terminal
//!        |  ask: only what no flag has said
//!        v
//!      Plan ---- text ----> NAME.socket, NAME.service ---- read as systemd would ----> files, or stdout
//! ```
//!
//! It never overwrites a file, never writes one that could not be loaded, and starts nothing.

mod ask;
mod text;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use self::ask::Asker;
use self::text::{Kind, Plan};
use super::exit::Exit;
use crate::unit::{Host, Service, Socket, Unit, UnitName};

/// What follows the options in `--help`.
const MORE: &str = "\
What no flag says is asked for where stdin and stderr are a terminal; else --listen, --kind and --exec have to
be there. The sandbox is on unless it is declined.

  handover init web --listen 8080 --kind library --exec /usr/bin/web
  handover init app --listen 0.0.0.0:80 --kind unmodified --exec '/usr/bin/server --port 80'

Exit status:
   0  the units are written
   1  a file is there already, or could not be written
   2  wrong usage, or what the units would say makes no sense to systemd";

/// Write the .socket and .service of a service that `systemctl reload` upgrades
///
/// Both go to the current folder, or to that of --dir; there is a reason above each line. Nothing is
/// overwritten, and nothing is started.
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub(crate) struct Init {
    /// The name of the service: `web` for web.service and web.socket
    name: String,
    /// Where clients come, as ListenStream= takes it: 8080, 127.0.0.1:8080, [::1]:8080, /run/web.sock
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// What kind of program it is
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The program and its arguments, as ExecStart= takes them
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Put a sandbox around it
    #[arg(long, overrides_with = "no_hardening")]
    hardening: bool,
    /// Put none around it
    #[arg(long, overrides_with_all = ["hardening", "no_hardening"])]
    no_hardening: bool,
    /// How many starts of a program that is not built on the library may be there at a time
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(2..=64))]
    slots: u8,
    /// For the calling user's own manager, not PID 1
    #[arg(long)]
    user: bool,
    /// The folder to write to: /etc/systemd/system, for one
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// Where this program is when the units run; by default, where it is now
    #[arg(long, value_name = "PATH")]
    handover: Option<PathBuf>,
    /// Write to stdout, and no file
    #[arg(long, conflicts_with = "dir")]
    print: bool,
}

impl Init {
    /// Writes the units.
    pub(crate) fn run(self) -> Exit {
        let (print, dir) = (self.print, self.dir.clone());
        let plan = match self.plan(Asker::find().as_ref()) {
            Ok(plan) => plan,
            Err(why) => return complain(&why, Exit::Usage),
        };
        let (socket, service) = (plan.socket(), plan.service());
        if let Err(why) = plan.judge(&socket, &service) {
            return complain(&why, Exit::Usage);
        }
        // Nobody is left to tell if this fails, here and below.
        if print {
            let _ = write!(io::stdout(), "{socket}\n{service}");
            return Exit::Success;
        }
        let files = [(format!("{}.socket", plan.name), socket), (format!("{}.service", plan.name), service)];
        match write_all(&dir, &files) {
            Ok(()) => {
                let _ = write!(io::stdout(), "{}", plan.next(&dir));
                Exit::Success
            }
            Err((path, error)) => complain(&trouble(&path, &error), Exit::Failed),
        }
    }

    /// The flags, and answers for what they leave open.
    fn plan(self, asker: Option<&Asker>) -> Result<Plan, String> {
        let name = self.name.strip_suffix(".service").unwrap_or(&self.name).to_owned();
        let is_plain = |name: &UnitName| name.instance().is_none();
        if UnitName::parse(&format!("{name}.service")).filter(is_plain).is_none() {
            return Err(format!("{name}: wanted the name of a service: letters, digits, and any of :-_."));
        }
        let Some(asker) = asker else {
            let missing = [
                (self.listen.is_empty(), "--listen ADDRESS"),
                (self.kind.is_none(), "--kind KIND"),
                (self.exec.is_none(), "--exec COMMAND"),
            ];
            let missing: Vec<_> = missing.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
            if !missing.is_empty() {
                return Err(format!("there is no terminal to ask at: add {}", missing.join(", ")));
            }
            return self.planned(name, None);
        };
        self.planned(name, Some(asker))
    }

    /// The plan; without somebody to ask, of flags that say it all.
    fn planned(self, name: String, asker: Option<&Asker>) -> Result<Plan, String> {
        let failed = |error: io::Error| format!("no answer: {error}");
        let kind = match (self.kind, asker) {
            (Some(kind), _) => kind,
            (None, Some(asker)) => asker.kind().map_err(failed)?,
            (None, None) => Kind::Library,
        };
        let exec = match (self.exec, asker) {
            (None, Some(asker)) => asker.exec(&name).map_err(failed)?,
            (exec, _) => exec.unwrap_or_default(),
        };
        let listen = match (self.listen, asker) {
            (listen, Some(asker)) if listen.is_empty() => asker.listen().map_err(failed)?,
            (listen, _) => listen,
        };
        let hardening = match (self.hardening, self.no_hardening, asker) {
            (false, false, Some(asker)) => asker.hardening().map_err(failed)?,
            (_, no, _) => !no,
        };
        let handover = self.handover.map_or_else(std::env::current_exe, Ok);
        let handover =
            handover.map_err(|error| format!("where is this program? {error}; --handover says it"))?;
        let handover = handover.to_str().filter(|path| path.starts_with('/'));
        let handover = handover.ok_or("--handover: wanted an absolute path")?.to_owned();
        Ok(Plan { name, listen, kind, exec, hardening, slots: self.slots, user: self.user, handover })
    }
}

impl Plan {
    /// Reads both as systemd would. Errors: what it would not take as it is meant.
    fn judge(&self, socket: &str, service: &str) -> Result<(), String> {
        let values = self.listen.iter().chain([&self.exec, &self.handover]);
        if let Some(value) =
            values.clone().find(|value| value.trim().is_empty() || value.contains(char::is_control))
        {
            return Err(format!("{value:?}: wanted something, and on one line"));
        }
        let mut findings = Vec::new();
        let mut read = |kind: &str, text: &str| {
            let file = format!("{}.{kind}", self.name);
            let name = UnitName::parse(&file)?;
            let files = [(PathBuf::from(file), text.as_bytes().to_vec())];
            Some(Unit::read(name, Arc::new(Host::default()), &files, &mut findings))
        };
        let units = read("socket", socket).zip(read("service", service));
        let (socket, service) = units.ok_or("the name is too long")?;
        Socket::read(&socket, &mut findings);
        let starts = Service::read(&service, &mut findings).exec_start;
        let [start] = &starts[..] else {
            return Err(first(&findings).unwrap_or_else(|| "--exec: wanted one command".to_owned()));
        };
        if let Some(why) = first(&findings) {
            return Err(why);
        }
        let program = self.exec.trim_start();
        if self.kind != Kind::Library && program.starts_with(['-', '+', '!', ':', '@', '|']) {
            return Err(
                "--exec: a prefix of ExecStart= would be one of `handover run`: leave it out".to_owned()
            );
        }
        let program = start.words.iter().skip_while(|word| *word != "--").nth(1).unwrap_or(&start.path);
        if !program.starts_with('/') {
            return Err(format!("--exec: {program}: wanted the absolute path of a program"));
        }
        Ok(())
    }

    /// What to do with the units, for people.
    fn next(&self, dir: &Path) -> String {
        let Self { name, exec, .. } = self;
        let (root, scope) = if self.user { ("", " --user") } else { ("# ", "") };
        let (home, installed) = match self.user {
            true => ("~/.config/systemd/user", dir.ends_with("systemd/user")),
            false => ("/etc/systemd/system", dir.ends_with("systemd/system")),
        };
        let [socket, service] = ["socket", "service"].map(|kind| dir.join(format!("{name}.{kind}")));
        let (socket, service) = (socket.display(), service.display());
        let install = match installed {
            true => String::new(),
            false => format!("  {root}install -Dm644 -t {home} {socket} {service}\n"),
        };
        let program = exec.split_whitespace().next().unwrap_or_default();
        format!(
            "{socket}\n{service}\n\nHave them run:\n{install}  {root}systemctl{scope} daemon-reload\n  \
             {root}systemctl{scope} enable --now {name}.socket {name}.service\n\
             Then, for each new {program}:\n  {root}handover upgrade{scope} {name}\n"
        )
    }
}

/// The first thing that systemd would not take as it is meant.
fn first(findings: &[crate::unit::Finding]) -> Option<String> {
    findings.first().map(ToString::to_string)
}

/// Writes new files, all or none.
///
/// Errors: what failed, and which file it is about.
fn write_all(dir: &Path, files: &[(String, String)]) -> Result<(), (PathBuf, io::Error)> {
    let mut written = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        let done = File::create_new(&path).and_then(|mut file| {
            written.push(path.clone());
            file.write_all(text.as_bytes())
        });
        if let Err(error) = done {
            // They are ours, of a moment ago.
            written.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err((path, error));
        }
    }
    Ok(())
}

/// Why a file was not written, and what to do about it.
fn trouble(path: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "nothing is overwritten: take it away first, or write to another folder with --dir"
        }
        io::ErrorKind::NotFound => "the folder must be there: make it first, or name another with --dir",
        io::ErrorKind::PermissionDenied => "run it as root, or write to another folder with --dir",
        _ => "nothing was written; --print writes to stdout",
    };
    format!("{}: {error}; {hint}", path.display())
}

/// One line for stderr.
fn complain(why: &str, exit: Exit) -> Exit {
    let _ = writeln!(io::stderr(), "handover init: {why}");
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        init: Init,
    }

    fn planned(words: &[&str]) -> Result<Plan, String> {
        let all = ["init", "--handover", "/usr/bin/handover"].iter().chain(words);
        let plan = Cli::try_parse_from(all).map_err(|error| error.to_string())?.init.plan(None)?;
        plan.judge(&plan.socket(), &plan.service()).map(|()| plan)
    }

    const WEB: [&str; 7] = ["web", "--listen", "8080", "--kind", "library", "--exec", "/usr/bin/web"];

    #[test]
    fn flags_that_say_it_all_make_a_plan_with_a_sandbox_unless_it_is_declined() {
        let plan = planned(&WEB).unwrap();
        assert_eq!((plan.name.as_str(), plan.hardening, plan.slots), ("web", true, 3));
        let with = |flags: &[&str]| planned(&[&WEB[..], flags].concat()).unwrap();
        assert!(!with(&["--no-hardening"]).hardening);
        assert!(with(&["--no-hardening", "--hardening"]).hardening);
    }

    #[test]
    fn what_is_missing_is_told_where_nobody_can_be_asked() {
        let why = planned(&["web", "--listen", "8080"]).unwrap_err();
        assert!(why.ends_with("add --kind KIND, --exec COMMAND"), "{why}");
    }

    #[test]
    fn what_systemd_would_not_take_as_it_is_meant_is_refused() {
        let with = |listen: &str, kind: &str, exec: &str| {
            planned(&["web", "--listen", listen, "--kind", kind, "--exec", exec]).map(|_| ())
        };
        assert_eq!(with("[::1]:8080", "activation", "/usr/bin/web -x 'a b'"), Ok(()));
        for (listen, kind, exec) in [
            ("localhost:80", "library", "/usr/bin/web"),
            ("80\nListenStream=81", "library", "/usr/bin/web"),
            ("80", "library", "web"),
            ("80", "unmodified", "web"),
            ("80", "unmodified", "-/usr/bin/web"),
            ("80", "library", "/usr/bin/web\nUser=root"),
            ("80", "library", "/usr/bin/web 'x"),
            ("80", "library", ""),
        ] {
            assert!(with(listen, kind, exec).is_err(), "{listen} {kind} {exec}");
        }
        assert!(planned(&[&["a/b"], &WEB[1..]].concat()).is_err());
        assert!(planned(&[&["a@b"], &WEB[1..]].concat()).is_err());
    }

    #[test]
    fn files_are_written_both_or_none_and_none_is_overwritten() {
        let dir = std::env::temp_dir().join(format!("handover-init-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let files = [("a.socket".to_owned(), "a".to_owned()), ("a.service".to_owned(), "b".to_owned())];
        fs::write(dir.join("a.service"), "mine").unwrap();
        let (path, error) = write_all(&dir, &files).unwrap_err();
        assert_eq!((path, error.kind()), (dir.join("a.service"), io::ErrorKind::AlreadyExists));
        assert!(!dir.join("a.socket").exists());
        assert_eq!(fs::read_to_string(dir.join("a.service")).unwrap(), "mine");
        fs::remove_file(dir.join("a.service")).unwrap();
        write_all(&dir, &files).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
