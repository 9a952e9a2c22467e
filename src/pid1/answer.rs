//! What clients ask for, and what is done about it.

use tokio::sync::oneshot;

use super::control::{Asked, refused};
use super::jobs::{Installed, Kind};
use super::kill::signal_pid;
use super::machine::State as ServiceState;
use super::sockets::State;
use super::standin::Standin;
use crate::manager::wire::{Job, Listed, Refused, Reply, Request, Unit, Whom};
use crate::sys::kind::kind;

/// A client that waits for a change of a unit.
#[derive(Debug)]
pub(super) struct Watcher {
    unit: String,
    /// [`Unit::state`] of what it has seen.
    seen: u64,
    answer: oneshot::Sender<Reply>,
}

impl Standin {
    /// Does what a client asks for; the answer may come later.
    pub(super) fn answer(&mut self, asked: Asked) {
        let Asked { request, answer } = asked;
        let reply = match request {
            Request::Job { unit, job, or_fail, no_block } => {
                return self.answer_job(&unit, job, or_fail, no_block, answer);
            }
            Request::Kill { unit, signal, whom } => self.answer_kill(&unit, signal, whom),
            Request::Show { unit } => Reply::Unit(Box::new(self.shown(&unit))),
            Request::Watch { unit, seen } => {
                // Those who went away meanwhile make room.
                self.watchers.retain(|watcher| !watcher.answer.is_closed());
                self.watchers.push(Watcher { unit, seen, answer });
                return;
            }
            Request::Stored { unit } => self.answer_stored(&unit),
            Request::List => Reply::Units { units: self.list() },
            Request::DaemonReload => {
                self.daemon_reload();
                Reply::Done
            }
            Request::ResetFailed { unit } => self.answer_reset(unit.as_deref()),
            Request::CleanStore { unit } => self.answer_clean(&unit),
            Request::Exit => {
                self.end();
                Reply::Done
            }
        };
        // A client that went away needs no answer.
        let _ = answer.send(reply);
    }

    /// The place of a service that has files, or had them and still runs.
    fn service_at(&self, unit: &str) -> Option<usize> {
        self.services.iter().position(|service| service.name == unit)
    }

    fn answer_job(
        &mut self,
        unit: &str,
        job: Job,
        or_fail: bool,
        no_block: bool,
        answer: oneshot::Sender<Reply>,
    ) {
        let reply = match self.job(unit, job, or_fail) {
            Ok(Some(id)) if !no_block => {
                let job = self.services.get_mut(id).and_then(|service| service.job.as_mut());
                if let Some(job) = job {
                    job.add_waiter(answer);
                    return self.settle(id);
                }
                ended("done")
            }
            Ok(id) => {
                id.into_iter().for_each(|id| self.settle(id));
                ended("done")
            }
            Err(reply) => reply,
        };
        let _ = answer.send(reply);
    }

    /// Gives a unit a job; the service whose job it is, unless it has ended already.
    fn job(&mut self, unit: &str, job: Job, or_fail: bool) -> Result<Option<usize>, Reply> {
        if self.ending.is_some() && job != Job::Stop {
            return Err(refused(Refused::Ending, "everything is being stopped".into()));
        }
        if matches!(job, Job::Start | Job::Restart | Job::ReloadOrRestart) {
            self.load_instance(unit);
        }
        if let Some(at) = self.sockets.iter().position(|socket| socket.name == unit) {
            return self.socket_job(at, job).map(|()| None);
        }
        let Some(id) = self.service_at(unit) else { return Err(not_found(unit)) };
        let Some(service) = self.services.get(id) else { return Err(not_found(unit)) };
        if service.source.gone && job != Job::Stop {
            return Err(not_found(unit));
        }
        let (state, can_reload) = (service.machine.state(), service.machine.can_reload());
        let up = !state.is_down();
        let kind = match job {
            Job::Start => Kind::Start,
            Job::Stop => Kind::Stop,
            Job::Restart => Kind::Restart,
            Job::TryRestart if up => Kind::Restart,
            Job::TryRestart => return Ok(None),
            Job::Reload if !can_reload => {
                let message = format!("{unit} has no way to reload: it has no ExecReload=");
                return Err(refused(Refused::NotApplicable, message));
            }
            Job::Reload => Kind::Reload,
            Job::ReloadOrRestart if up && can_reload => Kind::Reload,
            Job::ReloadOrRestart => Kind::Restart,
        };
        if !up && matches!(kind, Kind::Start | Kind::Restart) {
            self.open_wanted(id);
        }
        let Some(service) = self.services.get_mut(id) else { return Err(not_found(unit)) };
        match &mut service.job {
            Some(old) if old.kind() == kind => old.merge(),
            // What starts it anyway starts it with what there is now.
            Some(old) if kind == Kind::Reload && old.is_restart() => {}
            Some(old) if or_fail => {
                let message = format!("a job of {unit} is under way that rules this out: {:?}", old.kind());
                return Err(refused(Refused::Busy, message));
            }
            other => {
                if let Some(old) = other.replace(Installed::new(kind)) {
                    old.finish("canceled", "");
                }
            }
        }
        Ok(Some(id))
    }

    /// systemd.service(5), Sockets=: what starts the service starts these first, and a failure of theirs is
    /// none of its own.
    fn open_wanted(&mut self, id: usize) {
        let Some(service) = self.services.get(id) else { return };
        let closed = |socket: &super::sockets::SocketUnit| {
            !matches!(socket.state, State::Listening | State::Running)
                && service.settings.sockets.contains(&socket.name)
        };
        let wanted: Vec<_> = (0..self.sockets.len()).filter(|at| closed(&self.sockets[*at])).collect();
        for at in wanted {
            self.open(at);
        }
    }

    /// Sockets are opened and closed at once.
    fn socket_job(&mut self, at: usize, job: Job) -> Result<(), Reply> {
        let Some(socket) = self.sockets.get_mut(at) else { return Ok(()) };
        let name = socket.name.clone();
        let open = matches!(socket.state, State::Listening | State::Running);
        let (stops, starts) = match job {
            Job::Start => (false, !open),
            Job::Stop => (open, false),
            Job::Restart | Job::ReloadOrRestart => (open, true),
            Job::TryRestart => (open, open),
            Job::Reload => return Err(refused(Refused::NotApplicable, format!("{name} is no service"))),
        };
        if stops {
            socket.close(State::Dead, "success", &self.around.traffic);
        }
        let service = socket.service();
        let id = self.service_at(&service);
        let runs = |id| {
            self.services.get(id).is_some_and(|one: &super::service::ServiceUnit| {
                !matches!(
                    one.machine.state(),
                    ServiceState::Dead | ServiceState::Failed | ServiceState::AutoRestart
                )
            })
        };
        // As under systemd: the service has sockets of its own, or none, and would never get these.
        if starts && id.is_some_and(runs) {
            if let Some(socket) = self.sockets.get_mut(at) {
                socket.close(State::Failed, "resources", &self.around.traffic);
            }
            let message = format!("{service} is active already, so the sockets of {name} are not opened");
            self.around.output.say(&message);
            return Err(refused(Refused::Failed, message));
        }
        if starts && !self.open(at) {
            return Err(refused(
                Refused::Failed,
                format!("the sockets of {name} could not be opened; the log says why"),
            ));
        }
        id.into_iter().for_each(|id| self.settle(id));
        Ok(())
    }

    fn answer_kill(&mut self, unit: &str, signal: i32, whom: Whom) -> Reply {
        let Some(service) = self.service_at(unit).and_then(|id| self.services.get(id)) else {
            return not_found(unit);
        };
        if !(1..=64).contains(&signal) {
            return refused(Refused::BadRequest, format!("{signal} is no signal"));
        }
        let pid =
            |process: &Option<super::service::Process>| process.as_ref().map(super::service::Process::pid);
        let pids: Vec<i32> = match whom {
            Whom::Main => pid(&service.main).into_iter().collect(),
            Whom::Control => pid(&service.control).into_iter().collect(),
            Whom::All => service.members(&self.around),
        };
        if pids.is_empty() && whom != Whom::All {
            return refused(Refused::Failed, format!("{unit} has no such process"));
        }
        pids.into_iter().for_each(|pid| signal_pid(pid, signal));
        Reply::Done
    }

    /// Tells those who watch a unit that is not what they have seen.
    pub(super) fn tell_watchers(&mut self) {
        for watcher in std::mem::take(&mut self.watchers) {
            let shown = self.shown(&watcher.unit);
            if shown.state == watcher.seen {
                self.watchers.push(watcher);
            } else {
                // A client that went away needs no answer.
                let _ = watcher.answer.send(Reply::Unit(Box::new(shown)));
            }
        }
    }

    fn shown(&self, unit: &str) -> Unit {
        let service = self.services.iter().find(|service| service.name == unit);
        let socket = self.sockets.iter().find(|socket| socket.name == unit);
        match (service, socket) {
            (Some(service), _) => super::show::service(service, &self.around, &self.sockets),
            (_, Some(socket)) => super::show::socket(socket),
            _ => super::show::nothing(unit),
        }
    }

    fn answer_stored(&self, unit: &str) -> Reply {
        let Some(service) = self.service_at(unit).and_then(|id| self.services.get(id)) else {
            return not_found(unit);
        };
        let kind_of = |fd| kind(fd).map_or_else(|_| "descriptor".to_owned(), |kind| kind.to_string());
        Reply::Stored {
            stored: service.store.passed().map(|(name, fd)| (name.to_owned(), kind_of(fd))).collect(),
        }
    }

    fn list(&self) -> Vec<Listed> {
        let services = self.services.iter().map(|service| {
            let state = service.machine.state();
            listed(&service.name, state.active().word(), state.word(), &service.settings.common)
        });
        let sockets = self.sockets.iter().map(|socket| {
            let state = socket.state;
            listed(&socket.name, state.active().word(), state.word(), &socket.settings.common)
        });
        let mut all: Vec<_> = services.chain(sockets).collect();
        all.sort_by(|a, b| a.unit.cmp(&b.unit));
        all
    }

    fn answer_reset(&mut self, unit: Option<&str>) -> Reply {
        let is = |name: &str| unit.is_none_or(|unit| unit == name);
        let mut found = unit.is_none();
        for service in self.services.iter_mut().filter(|service| is(&service.name)) {
            service.machine.reset_failed();
            found = true;
        }
        for socket in self.sockets.iter_mut().filter(|socket| is(&socket.name)) {
            if socket.state == State::Failed {
                socket.close(State::Dead, "success", &self.around.traffic);
            }
            found = true;
        }
        self.settle_all();
        if found { Reply::Done } else { not_found(unit.unwrap_or_default()) }
    }

    /// `systemctl clean --what=fdstore`: only of a service that does not run, and has not failed.
    fn answer_clean(&mut self, unit: &str) -> Reply {
        let Some(service) = self.services.iter_mut().find(|service| service.name == unit) else {
            return not_found(unit);
        };
        if service.machine.state() != ServiceState::Dead {
            return refused(Refused::Failed, format!("{unit} is not inactive, so it is not cleaned"));
        }
        service.store.clear(&self.around.hangups);
        Reply::Done
    }
}

fn ended(result: &str) -> Reply {
    Reply::Job { result: result.to_owned(), why: "success".to_owned() }
}

fn not_found(unit: &str) -> Reply {
    refused(Refused::NotFound, format!("there is no unit {unit} here"))
}

fn listed(unit: &str, active: &str, sub: &str, common: &crate::unit::Common) -> Listed {
    Listed {
        unit: unit.to_owned(),
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: sub.to_owned(),
        description: common.description.clone().unwrap_or_else(|| unit.to_owned()),
    }
}
