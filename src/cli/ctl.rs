//! `handover ctl`: systemctl's verbs for the stand-in, and, under that name, systemctl itself.
//!
//! A container has no systemctl, and people and scripts know no other words: a symbolic link called
//! `systemctl` to this program understands those that are about services, with systemctl's exit statuses.
//! A verb waits until its job has ended.

mod told;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use super::unit_name;
use crate::manager::standin::Standin;
use crate::manager::wire::{Job, Refused, Reply, Request, Whom};
use crate::manager::{ActiveState, Error};
use crate::unit::Signal;

use told::Told;

/// Ask `handover pid1` about its units, in the words of systemctl
///
/// Verbs: start, stop, restart, try-restart, reload, reload-or-restart, kill, show, status, is-active,
/// is-failed, enable --now, is-enabled, list-units, reset-failed, clean --what=fdstore, daemon-reload, exit.
/// A symbolic link to this program with the name systemctl is the same command.
#[derive(Debug, Args)]
pub(crate) struct Ctl {
    /// The control socket or the runtime folder of the stand-in
    #[arg(long, value_name = "ADDRESS")]
    standin: Option<PathBuf>,
    /// Do not wait for the end of a job
    #[arg(long)]
    no_block: bool,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
    /// Show these properties alone: NAME or NAME,NAME
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    property: Vec<String>,
    /// Show the value of these properties alone
    #[arg(short = 'P', value_name = "NAME", value_delimiter = ',')]
    value_of: Vec<String>,
    /// Show values without names
    #[arg(long)]
    value: bool,
    /// With show: wait until a property has this value
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    until: Option<(String, String)>,
    /// The signal to send
    #[arg(long, short, default_value = "SIGTERM")]
    signal: String,
    /// Whom to send it: main, control or all
    #[arg(long, visible_alias = "kill-who", default_value = "all", value_name = "WHOM")]
    kill_whom: String,
    /// What to clean: fdstore
    #[arg(long, value_name = "WHAT")]
    what: Option<String>,
    /// Accepted for the sake of scripts: there is one manager and no pager
    #[arg(long)]
    user: bool,
    /// As --user
    #[arg(long)]
    system: bool,
    /// As --user
    #[arg(long)]
    no_pager: bool,
    /// As --user
    #[arg(long, short = 'a')]
    all: bool,
    /// With enable: start it as well
    #[arg(long)]
    now: bool,
    /// What to do
    verb: String,
    /// With which units; `web` means web.service
    units: Vec<String>,
}

/// The same command by systemctl's name.
#[derive(Debug, Parser)]
#[command(name = "systemctl", version, disable_help_subcommand = true)]
struct Systemctl {
    #[command(flatten)]
    ctl: Ctl,
}

/// The exit statuses of systemctl(1), those of the LSB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotActive = 3,
    NotPermitted = 4,
    NotFound = 5,
}

/// Parses and does what `systemctl` was called with.
pub(super) fn as_systemctl() -> ExitCode {
    match Systemctl::try_parse() {
        Ok(systemctl) => systemctl.ctl.run(),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(Status::Failed as u8) } else { ExitCode::SUCCESS }
        }
    }
}

impl Ctl {
    /// Does what the verb says.
    pub(crate) fn run(&self) -> ExitCode {
        let told = Told::new(self.quiet);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let status = match runtime {
            Ok(runtime) => match runtime.block_on(self.act(&told)) {
                Ok(status) => status,
                Err(error) => {
                    told.complain(&error.to_string());
                    match error {
                        Error::AccessDenied { .. } => Status::NotPermitted,
                        _ => Status::Failed,
                    }
                }
            },
            Err(error) => {
                told.complain(&format!("no event loop: {error}"));
                Status::Failed
            }
        };
        ExitCode::from(status as u8)
    }

    async fn act(&self, told: &Told) -> Result<Status, Error> {
        let Some(standin) = self.standin.as_deref().map(Standin::at).or_else(Standin::find) else {
            told.complain(
                "no `handover pid1` of this user, or of root, is running; --standin says where one is",
            );
            return Ok(Status::Failed);
        };
        let job = match self.verb.as_str() {
            "start" => Some(Job::Start),
            "stop" => Some(Job::Stop),
            "restart" => Some(Job::Restart),
            "try-restart" | "condrestart" => Some(Job::TryRestart),
            "reload" => Some(Job::Reload),
            "reload-or-restart" | "force-reload" => Some(Job::ReloadOrRestart),
            _ => None,
        };
        if let Some(job) = job {
            return self.jobs(&standin, job, told).await;
        }
        match self.verb.as_str() {
            "show" => self.show(&standin, told).await,
            "status" => self.status(&standin, told).await,
            "is-active" => self.is(&standin, told, ActiveState::serves, Status::NotActive).await,
            "is-failed" => self.is(&standin, told, |s| s == ActiveState::Failed, Status::Failed).await,
            "kill" => self.kill(&standin, told).await,
            "enable" => self.enable(&standin, told).await,
            "is-enabled" => self.is_enabled(&standin, told).await,
            "daemon-reload" => self.simple(&standin, Request::DaemonReload, told).await,
            "list-units" => self.simple(&standin, Request::List, told).await,
            "exit" | "poweroff" | "halt" => self.simple(&standin, Request::Exit, told).await,
            "reset-failed" if self.units.is_empty() => {
                self.simple(&standin, Request::ResetFailed { unit: None }, told).await
            }
            "reset-failed" => {
                self.each(&standin, told, |unit| Request::ResetFailed { unit: Some(unit) }).await
            }
            "clean" if self.what.as_deref() == Some("fdstore") => {
                self.each(&standin, told, |unit| Request::CleanStore { unit }).await
            }
            other => {
                told.complain(&format!(
                    "{other}: a stand-in does not know this verb; `handover ctl --help` lists them"
                ));
                Ok(Status::Usage)
            }
        }
    }

    /// A job for each unit, and waits for all. As under systemd sockets are there before the services that
    /// want them, and services gone before their sockets are taken away and opened anew.
    async fn jobs(&self, standin: &Standin, job: Job, told: &Told) -> Result<Status, Error> {
        let names = self.units.iter().map(|unit| unit_name(unit));
        let (sockets, others): (Vec<_>, Vec<_>) = names.partition(|unit| unit.ends_with(".socket"));
        if sockets.is_empty() || others.is_empty() {
            return self.jobs_of(standin, job, &[sockets, others].concat(), told).await;
        }
        let steps = match job {
            Job::Restart => vec![(Job::Stop, &others), (Job::Restart, &sockets), (Job::Start, &others)],
            _ => vec![(job, &sockets), (job, &others)],
        };
        let mut first = Status::Done;
        for (job, names) in steps {
            let status = self.jobs_of(standin, job, names, told).await?;
            first = if first == Status::Done { status } else { first };
        }
        Ok(first)
    }

    /// The same job for several units, all at once.
    async fn jobs_of(
        &self,
        standin: &Standin,
        job: Job,
        names: &[String],
        told: &Told,
    ) -> Result<Status, Error> {
        let ask = |unit: &String| {
            let request = Request::Job { unit: unit.clone(), job, or_fail: false, no_block: self.no_block };
            async move { standin.ask(&request).await }
        };
        let replies = futures_util::future::join_all(names.iter().map(ask)).await;
        let mut first = Status::Done;
        for (unit, reply) in names.iter().zip(replies) {
            let status = match reply? {
                Reply::Job { result, .. } if matches!(result.as_str(), "done" | "skipped") => Status::Done,
                Reply::Job { result, why } => {
                    told.job_failed(unit, &result, &why);
                    Status::Failed
                }
                other => told.refused(&self.verb, unit, &other),
            };
            first = if first == Status::Done { status } else { first };
        }
        Ok(first)
    }

    /// One request without units.
    async fn simple(&self, standin: &Standin, request: Request, told: &Told) -> Result<Status, Error> {
        Ok(match standin.ask(&request).await? {
            Reply::Done => Status::Done,
            Reply::Units { units } => told.units(&units),
            other => told.refused(&self.verb, "", &other),
        })
    }

    /// One request for each unit.
    async fn each(
        &self,
        standin: &Standin,
        told: &Told,
        request: impl Fn(String) -> Request,
    ) -> Result<Status, Error> {
        let mut first = Status::Done;
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let status = match standin.ask(&request(unit.clone())).await? {
                Reply::Done => Status::Done,
                other => told.refused(&self.verb, &unit, &other),
            };
            first = if first == Status::Done { status } else { first };
        }
        Ok(first)
    }

    async fn kill(&self, standin: &Standin, told: &Told) -> Result<Status, Error> {
        let whom = match self.kill_whom.as_str() {
            "main" => Whom::Main,
            "control" => Whom::Control,
            "all" => Whom::All,
            other => {
                told.complain(&format!("--kill-whom={other}: main, control or all"));
                return Ok(Status::Usage);
            }
        };
        match Signal::read(&self.signal) {
            Ok(signal) => {
                let signal = signal.number();
                self.each(standin, told, |unit| Request::Kill { unit, signal, whom }).await
            }
            Err(why) => {
                told.complain(&format!("--signal={}: {why}", self.signal));
                Ok(Status::Usage)
            }
        }
    }

    async fn show(&self, standin: &Standin, told: &Told) -> Result<Status, Error> {
        let wanted: Vec<_> = self.property.iter().chain(&self.value_of).collect();
        let bare = self.value || !self.value_of.is_empty();
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let mut shown = standin.show(&unit).await?;
            while self.until.as_ref().is_some_and(|(name, value)| shown.properties.get(name) != Some(value)) {
                shown = standin.change(&unit, &shown).await?;
            }
            told.properties(&shown.properties, &wanted, bare);
        }
        Ok(Status::Done)
    }

    async fn status(&self, standin: &Standin, told: &Told) -> Result<Status, Error> {
        let mut last = Status::Done;
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            last = told.status(&standin.show(&unit).await?.properties);
        }
        Ok(last)
    }

    /// There is nothing to be enabled: the stand-in starts what has an \[Install\] section by itself.
    async fn enable(&self, standin: &Standin, told: &Told) -> Result<Status, Error> {
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let shown = standin.show(&unit).await?;
            if shown.properties.get("UnitFileState").is_none_or(|state| state != "enabled") {
                told.complain(&format!("Failed to enable {unit}: there is none with an [Install] section"));
                return Ok(Status::Failed);
            }
        }
        if self.now { self.jobs(standin, Job::Start, told).await } else { Ok(Status::Done) }
    }

    /// Prints UnitFileState= of each; done if one of them may start by itself.
    async fn is_enabled(&self, standin: &Standin, told: &Told) -> Result<Status, Error> {
        let mut status = Status::NotPermitted;
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let shown = standin.show(&unit).await?;
            let word = shown.properties.get("UnitFileState").map_or("", String::as_str);
            told.say(if word.is_empty() { "not-found" } else { word });
            if !word.is_empty() {
                status = Status::Done;
            }
        }
        Ok(status)
    }

    /// Prints ActiveState= of each; done if one of them is what is asked for.
    async fn is(
        &self,
        standin: &Standin,
        told: &Told,
        wanted: impl Fn(ActiveState) -> bool,
        otherwise: Status,
    ) -> Result<Status, Error> {
        let mut status = otherwise;
        for unit in self.units.iter().map(|unit| unit_name(unit)) {
            let shown = standin.show(&unit).await?;
            let word = shown.properties.get("ActiveState").map_or("inactive", String::as_str);
            told.say(word);
            if wanted(ActiveState::from_word(word)) {
                status = Status::Done;
            }
        }
        Ok(status)
    }
}

/// `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("want NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The status for what was not done.
fn status_of(reason: Refused) -> Status {
    match reason {
        Refused::AccessDenied => Status::NotPermitted,
        Refused::BadRequest => Status::Usage,
        Refused::NotFound => Status::NotFound,
        Refused::NotApplicable => Status::NotActive,
        Refused::Busy | Refused::Failed | Refused::Ending => Status::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Ctl {
        Systemctl::try_parse_from(line.split(' ')).unwrap().ctl
    }

    #[test]
    fn what_scripts_say_to_systemctl_is_understood() {
        Systemctl::command().debug_assert();
        let show = parse("systemctl show -p MainPID,Result --value web");
        assert_eq!(
            (show.property, show.value, show.units),
            (vec!["MainPID".into(), "Result".into()], true, vec!["web".into()])
        );
        assert_eq!(parse("systemctl show -P MainPID web").value_of, ["MainPID"]);
        let kill = parse("systemctl kill -s KILL --kill-who=main web");
        assert_eq!((kill.signal.as_str(), kill.kill_whom.as_str()), ("KILL", "main"));
        let until = parse("systemctl show --until SubState=running web").until;
        assert_eq!(until, Some(("SubState".into(), "running".into())));
        assert!(parse("systemctl stop --no-block web").no_block);
        assert!(parse("systemctl enable -q --now web.socket web.service").now);
        assert_eq!(parse("systemctl --quiet is-active web").verb, "is-active");
        assert_eq!(parse("systemctl -q reload web.service db").units.len(), 2);
    }
}
