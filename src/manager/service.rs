//! The object of one service on the bus: a look at it, and its signals.

use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, fdo};

use super::connect::Error;
use super::proxy::{ExecCommand, ServiceProxy, UnitProxy};
use super::state::{ActiveState, End, FdStore, Helper, Snapshot};

/// One service, by the interfaces that matter here.
#[derive(Debug)]
pub(crate) struct Service {
    unit: UnitProxy<'static>,
    service: ServiceProxy<'static>,
    properties: fdo::PropertiesProxy<'static>,
}

impl Service {
    /// The object at `path`, which may be of any type of unit: only [`Self::id`] works for all.
    pub(crate) async fn at(bus: &Connection, path: &OwnedObjectPath) -> Result<Self, zbus::Error> {
        let no = CacheProperties::No;
        let properties = fdo::PropertiesProxy::builder(bus).destination("org.freedesktop.systemd1");
        Ok(Self {
            unit: UnitProxy::builder(bus).path(path.clone()).cache_properties(no).build().await?,
            service: ServiceProxy::builder(bus).path(path.clone()).cache_properties(no).build().await?,
            properties: properties.path(path.clone()).cache_properties(no).build().await?,
        })
    }

    /// The unit's own name; it may have been found by an alias.
    pub(crate) async fn id(&self) -> Result<String, Error> {
        self.unit.id().await.map_err(look_failed)
    }

    /// A stream of its changes, from now on.
    pub(crate) async fn changes(&self) -> Result<fdo::PropertiesChangedStream, zbus::Error> {
        self.properties.receive_properties_changed().await
    }

    /// Looks at it, at its life last.
    pub(crate) async fn look(&self) -> Result<Snapshot, Error> {
        self.read().await.map_err(look_failed)
    }

    /// What its FD store holds: what the service itself is never told.
    pub(crate) async fn store(&self) -> Result<FdStore, Error> {
        let held = self.service.n_file_descriptor_store().await.map_err(look_failed)?;
        let most = self.service.file_descriptor_store_max().await.map_err(look_failed)?;
        Ok(FdStore { held, most })
    }

    /// How many descriptors its FD store holds: one question, of which systemd sends no news.
    pub(crate) async fn held(&self) -> Result<u32, Error> {
        self.service.n_file_descriptor_store().await.map_err(look_failed)
    }

    /// The ExecReload= lines.
    pub(crate) async fn reload_lines(&self) -> Result<Vec<Vec<String>>, Error> {
        let lines = self.service.exec_reload().await.map_err(look_failed)?;
        Ok(lines.into_iter().map(|line| line.1).collect())
    }

    /// The units whose traffic starts it.
    pub(crate) async fn triggers(&self) -> Result<Vec<String>, Error> {
        self.unit.triggered_by().await.map_err(look_failed)
    }

    /// When its main process became that, and whether it has a job.
    pub(crate) async fn times_and_job(&self) -> Result<(u64, bool), Error> {
        let since = self.service.exec_main_start_timestamp_monotonic().await.map_err(look_failed)?;
        let (job, _) = self.unit.job().await.map_err(look_failed)?;
        Ok((since, job != 0))
    }

    /// Reads one property after the other.
    async fn read(&self) -> Result<Snapshot, zbus::Error> {
        let (unit, service) = (&self.unit, &self.service);
        Ok(Snapshot {
            load_state: unit.load_state().await?,
            can_reload: unit.can_reload().await?,
            outdated: unit.need_daemon_reload().await?,
            status: service.status_text().await?,
            errno: service.status_errno().await?,
            helpers: service.exec_reload().await?.into_iter().map(helper).collect(),
            reload_result: service.reload_result().await?,
            result: service.result().await?,
            control_pid: service.control_pid().await?,
            main_pid: service.main_pid().await?,
            sub_state: unit.sub_state().await?,
            active: ActiveState::from_word(&unit.active_state().await?),
            invocation: unit.invocation_id().await?,
        })
    }
}

/// Names the parts of an ExecReload= line.
fn helper(line: ExecCommand) -> Helper {
    let (_path, command, may_fail, _, started_usec, _, ended_usec, pid, code, status) = line;
    let end = match code {
        _ if ended_usec == 0 => None,
        libc::CLD_EXITED => Some(End::Exited(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Some(End::Killed(status)),
        _ => None,
    };
    Helper { command, pid, started_usec, end, may_fail }
}

/// A question that systemd did not answer.
fn look_failed(error: zbus::Error) -> Error {
    Error::from_call("reading the service's properties", error)
}
