//! The settings of a service: systemd.service(5).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Command, Common, Exec, Kill, Signal};

/// What PID 1 knows of a service. The defaults are systemd's own.
///
/// A span of time that is None is infinity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// \[Unit\] and \[Install\].
    pub common: Common,
    /// How its processes run.
    pub exec: Exec,
    /// How its processes end.
    pub kill: Kill,
    /// Type=; where it is not set: `simple`, `dbus` with BusName=, `oneshot` without ExecStart=.
    pub kind: ServiceType,
    /// ExecCondition=.
    pub exec_condition: Vec<Command>,
    /// ExecStartPre=.
    pub exec_start_pre: Vec<Command>,
    /// ExecStart=: exactly one, unless Type=oneshot.
    pub exec_start: Vec<Command>,
    /// ExecStartPost=.
    pub exec_start_post: Vec<Command>,
    /// ExecReload=.
    pub exec_reload: Vec<Command>,
    /// ExecReloadPost= (systemd 259).
    pub exec_reload_post: Vec<Command>,
    /// ExecStop=.
    pub exec_stop: Vec<Command>,
    /// ExecStopPost=.
    pub exec_stop_post: Vec<Command>,
    /// Restart=.
    pub restart: Restart,
    /// RestartSec=.
    pub restart_after: Option<Duration>,
    /// RestartSteps=.
    pub restart_steps: u32,
    /// RestartMaxDelaySec=.
    pub restart_max_delay: Option<Duration>,
    /// RestartMode=.
    pub restart_mode: RestartMode,
    /// SuccessExitStatus=, beyond 0, SIGHUP, SIGINT, SIGTERM and SIGPIPE.
    pub success_exit_status: ExitStatuses,
    /// RestartPreventExitStatus=.
    pub restart_prevent_exit_status: ExitStatuses,
    /// RestartForceExitStatus=.
    pub restart_force_exit_status: ExitStatuses,
    /// TimeoutStartSec=, or TimeoutSec=; also bounds a reload.
    pub timeout_start: Option<Duration>,
    /// TimeoutStopSec=, or TimeoutSec=.
    pub timeout_stop: Option<Duration>,
    /// TimeoutAbortSec=; the outer None is TimeoutStopSec=.
    pub timeout_abort: Option<Option<Duration>>,
    /// RuntimeMaxSec=.
    pub runtime_max: Option<Duration>,
    /// WatchdogSec=; None is no watchdog.
    pub watchdog: Option<Duration>,
    /// NotifyAccess=, with what Type=, WatchdogSec= and FileDescriptorStoreMax= imply.
    pub notify_access: NotifyAccess,
    /// ReloadSignal=: what Type=notify-reload gets.
    pub reload_signal: Signal,
    /// RemainAfterExit=.
    pub remain_after_exit: bool,
    /// GuessMainPID=.
    pub guess_main_pid: bool,
    /// RootDirectoryStartOnly=.
    pub root_directory_start_only: bool,
    /// PIDFile=.
    pub pid_file: Option<PathBuf>,
    /// BusName=.
    pub bus_name: Option<String>,
    /// NonBlocking=.
    pub non_blocking: bool,
    /// Sockets=: names of socket units.
    pub sockets: Vec<String>,
    /// FileDescriptorStoreMax=.
    pub fd_store_max: u32,
    /// FileDescriptorStorePreserve=.
    pub fd_store_preserve: FdStorePreserve,
}

impl Default for Service {
    fn default() -> Self {
        let timeout = Some(Duration::from_secs(90));
        Self {
            common: Common::default(),
            exec: Exec::default(),
            kill: Kill::default(),
            kind: ServiceType::Simple,
            exec_condition: Vec::new(),
            exec_start_pre: Vec::new(),
            exec_start: Vec::new(),
            exec_start_post: Vec::new(),
            exec_reload: Vec::new(),
            exec_reload_post: Vec::new(),
            exec_stop: Vec::new(),
            exec_stop_post: Vec::new(),
            restart: Restart::No,
            restart_after: Some(Duration::from_millis(100)),
            restart_steps: 0,
            restart_max_delay: None,
            restart_mode: RestartMode::Normal,
            success_exit_status: ExitStatuses::default(),
            restart_prevent_exit_status: ExitStatuses::default(),
            restart_force_exit_status: ExitStatuses::default(),
            timeout_start: timeout,
            timeout_stop: timeout,
            timeout_abort: None,
            runtime_max: None,
            watchdog: None,
            notify_access: NotifyAccess::None,
            reload_signal: Signal::HUP,
            remain_after_exit: false,
            guess_main_pid: true,
            root_directory_start_only: false,
            pid_file: None,
            bus_name: None,
            non_blocking: false,
            sockets: Vec::new(),
            fd_store_max: 0,
            fd_store_preserve: FdStorePreserve::Restart,
        }
    }
}

/// Type=: when a service counts as started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceType {
    /// Once forked.
    #[default]
    Simple,
    /// Once the program is executed.
    Exec,
    /// Once the first process has exited.
    Forking,
    /// Once the main process has exited.
    Oneshot,
    /// Once it has its name on the bus.
    Dbus,
    /// Once it said READY=1.
    Notify,
    /// The same, and ReloadSignal= makes it reload.
    NotifyReload,
    /// As `simple`, when nothing else is to be done.
    Idle,
}

/// Restart=: after which ends a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// `no`.
    #[default]
    No,
    /// `always`.
    Always,
    /// `on-success`.
    OnSuccess,
    /// `on-failure`.
    OnFailure,
    /// `on-abnormal`.
    OnAbnormal,
    /// `on-abort`.
    OnAbort,
    /// `on-watchdog`.
    OnWatchdog,
}

/// RestartMode= (systemd 254).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartMode {
    /// The unit is failed or inactive for a moment.
    #[default]
    Normal,
    /// It goes from one start to the next.
    Direct,
    /// As `normal`, with debugging on (systemd 257).
    Debug,
}

/// NotifyAccess=: whose messages count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotifyAccess {
    /// Nobody's.
    #[default]
    None,
    /// The main process'.
    Main,
    /// The main and the control process'.
    Exec,
    /// Those of all processes of the unit.
    All,
}

/// FileDescriptorStorePreserve= (systemd 254): how long the FD store is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FdStorePreserve {
    /// `no`: until the service stops.
    No,
    /// `restart`: over a restart.
    #[default]
    Restart,
    /// `yes`: as long as the unit is loaded.
    Yes,
    /// `on-success`: as `yes`, unless the service failed (systemd 261).
    OnSuccess,
}

/// A set of ends of a process: SuccessExitStatus= and its relatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitStatuses {
    /// Exit statuses.
    pub statuses: BTreeSet<u8>,
    /// Signals.
    pub signals: BTreeSet<Signal>,
}
