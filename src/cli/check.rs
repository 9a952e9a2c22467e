//! `handover check`: the command.

mod fix;
mod record;
mod words;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::completions::services;
use super::unit_name;
use crate::check::{self, Finding, Severity, Units, Version};
use crate::manager::{Error, Manager, Scope};
use fix::Fix;
use words::Words;

/// What follows the options in `--help`.
const EXIT_STATUSES: &str = "\
Exit status:
   0  nothing was found, or notes only
   1  warnings
   2  errors
  64  wrong usage
  66  a unit or file is not there, or cannot be read
  69  the manager of the units cannot be asked
  73  a drop-in cannot be written";

/// Find what is wrong with units for upgrades in which nothing is lost, and the lines that mend it
///
/// Looks at services built on handover, or run under it, and at their sockets; any other service gets
/// advice at most. What has a slash in it is a file or folder, as is the name of a file that is there: no
/// systemd is needed for those. All else is the name of a unit, with its drop-ins and as systemd has it.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub(crate) struct Check {
    /// Ask the calling user's own manager, not PID 1
    #[arg(long)]
    user: bool,
    /// Ask the `handover pid1` with this control socket or runtime folder
    #[arg(long, value_name = "ADDRESS", conflicts_with = "user")]
    standin: Option<PathBuf>,
    /// The systemd for which the units are: 252, 257.13; without this, the one that runs here
    #[arg(long, value_name = "VERSION", value_parser = version)]
    systemd: Option<Version>,
    /// Print one JSON object a line for each finding
    #[arg(long)]
    json: bool,
    /// Write drop-ins with the lines that mend errors and warnings, after showing them
    #[arg(long, conflicts_with = "json")]
    fix: bool,
    /// Do not ask before they are written
    #[arg(long, requires = "fix")]
    yes: bool,
    /// List all rules
    #[arg(long, exclusive = true)]
    rules: bool,
    /// Explain one rule
    #[arg(long, value_name = "RULE", exclusive = true)]
    explain: Option<String>,
    /// Units by name, unit files, and folders of them; `web` means web.service
    #[arg(required_unless_present_any = ["rules", "explain"], value_name = "UNIT|FILE", add = ArgValueCompleter::new(services))]
    units: Vec<String>,
}

/// How it ends: the first three are the answer, the others those of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckExit {
    /// 0: nothing was found, or notes only.
    Clean,
    /// 1: warnings.
    Warnings,
    /// 2: errors.
    Errors,
    /// 64: the command line makes no sense.
    Usage,
    /// 66: what was to be checked is not there.
    NoInput,
    /// 69: there is no manager to ask.
    Unavailable,
    /// 73: a drop-in cannot be written.
    CannotWrite,
}

impl From<CheckExit> for ExitCode {
    fn from(exit: CheckExit) -> Self {
        Self::from(match exit {
            CheckExit::Clean => 0,
            CheckExit::Warnings => 1,
            CheckExit::Errors => 2,
            CheckExit::Usage => 64,
            CheckExit::NoInput => 66,
            CheckExit::Unavailable => 69,
            CheckExit::CannotWrite => 73,
        })
    }
}

impl CheckExit {
    /// What findings amount to.
    fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        match findings.into_iter().map(|finding| finding.severity).max() {
            Some(Severity::Error) => Self::Errors,
            Some(Severity::Warning) => Self::Warnings,
            _ => Self::Clean,
        }
    }
}

/// Units that were asked for in one way.
struct Asked {
    units: Units,
    /// How whoever reads this tells their manager to read them again; None for mere files.
    reload: Option<&'static str>,
    /// Where drop-ins belong; None is beside the unit.
    folder: Option<PathBuf>,
}

impl Check {
    /// Checks, tells, and mends if it is asked to.
    pub(crate) fn run(&self) -> CheckExit {
        if self.rules {
            say(&words::rules());
            return CheckExit::Clean;
        }
        if let Some(name) = &self.explain {
            return self.explain(name);
        }
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.check()),
            Err(error) => {
                complain(&format!("handover check: no event loop: {error}"));
                CheckExit::Unavailable
            }
        }
    }

    fn explain(&self, name: &str) -> CheckExit {
        match check::rules().find(|rule| rule.name == name) {
            Some(rule) => {
                say(&words::explain(rule));
                CheckExit::Clean
            }
            None => {
                complain(&format!(
                    "handover check: there is no rule {name}; `handover check --rules` lists them"
                ));
                CheckExit::Usage
            }
        }
    }

    /// Files and units are two worlds: each is checked by itself, and the worst exit status counts.
    async fn check(&self) -> CheckExit {
        let is_file = |word: &&String| word.contains('/') || Path::new(word).is_file();
        let (files, names): (Vec<_>, Vec<_>) = self.units.iter().partition(is_file);
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        let names: Vec<String> = names.into_iter().map(|name| unit_name(name)).collect();
        let manager = self.manager(!names.is_empty()).await;
        let version = match (self.systemd, &manager) {
            (Some(version), _) => version,
            (None, Some(Ok(manager))) => Version::of(manager).await.unwrap_or(Version::NEWEST),
            _ => Version::NEWEST,
        };
        let mut asked = Vec::new();
        if !names.is_empty() {
            match self.named(&names, manager).await {
                Ok(named) => asked.push(named),
                Err(error) => {
                    complain(&format!("handover check: {error}"));
                    return CheckExit::Unavailable;
                }
            }
        }
        if !files.is_empty() {
            asked.push(Asked { units: check::read(&files), reload: None, folder: None });
        }
        self.tell(&asked, version)
    }

    /// The manager; None where none is needed, or none can be.
    async fn manager(&self, needed: bool) -> Option<Result<Manager, Error>> {
        let scope = if self.user { Scope::User } else { Scope::System };
        if let Some(address) = &self.standin {
            return Some(Ok(Manager::standin(address)));
        }
        if self.user {
            return Some(Manager::connect(scope).await);
        }
        let booted = sd_notify::booted().unwrap_or(false);
        // Mere files are checked without anybody's help; only the version is asked for.
        let asks = if needed { true } else { booted && self.systemd.is_none() };
        if asks { Some(Manager::find(scope).await) } else { None }
    }

    /// Units by their names: as their manager has them, or where nobody manages, as the system's folders do.
    async fn named(&self, names: &[String], manager: Option<Result<Manager, Error>>) -> Result<Asked, Error> {
        let etc = || Some(PathBuf::from("/etc/systemd/system"));
        match manager {
            Some(Ok(manager)) if manager.is_standin() => {
                let units = check::loaded(&manager, names).await?;
                Ok(Asked { units, reload: Some("handover ctl daemon-reload"), folder: None })
            }
            Some(Ok(manager)) => {
                let units = check::loaded(&manager, names).await?;
                let reload =
                    if self.user { "systemctl --user daemon-reload" } else { "systemctl daemon-reload" };
                let folder = if self.user { user_folder() } else { etc() };
                Ok(Asked { units, reload: Some(reload), folder })
            }
            Some(Err(error)) if self.user => Err(error),
            _ => {
                complain("handover check: no manager answers; looking at the files of its units alone");
                Ok(Asked {
                    units: check::find(names),
                    reload: Some("systemctl daemon-reload"),
                    folder: etc(),
                })
            }
        }
    }

    fn tell(&self, asked: &[Asked], version: Version) -> CheckExit {
        let mut missing = false;
        for problem in asked.iter().flat_map(|asked| asked.units.problems()) {
            complain(&format!("handover check: {problem}"));
            missing = true;
        }
        let judged: Vec<_> = asked.iter().map(|asked| (asked, check::check(&asked.units, version))).collect();
        let all = || judged.iter().flat_map(|(_, findings)| findings);
        if self.json {
            all().for_each(|finding| say(&record::line(finding)));
        } else {
            let count = asked.iter().map(|asked| asked.units.units().len()).sum();
            let served: usize = asked.iter().map(|asked| asked.units.served()).sum();
            let words = Words::for_stdout();
            say(&words.report(all(), count, version));
            if served == 0 && count > 0 {
                say(words::NOTHING_OF_OURS);
            }
        }
        let mut exit = CheckExit::of(all());
        if self.fix {
            let fix = Fix { sure: self.yes };
            exit = match fix.mend(judged.iter().map(|(asked, findings)| (*asked, findings.as_slice()))) {
                Ok(left) => CheckExit::of(left),
                Err(error) => {
                    complain(&format!("handover check: {error}"));
                    return CheckExit::CannotWrite;
                }
            };
        }
        if missing { CheckExit::NoInput } else { exit }
    }
}

/// Where a user's own units are.
fn user_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("systemd/user"))
}

fn version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| "wanted a version of systemd, as in 257".to_owned())
}

/// Text for stdout, at once. A reader that has gone changes nothing about the units.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// One line for stderr.
fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
