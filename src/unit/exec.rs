//! How the processes of a unit run: systemd.exec(5).

use std::path::PathBuf;

/// The environment and credentials of the processes of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exec {
    /// Environment=: names and values, the last one of a name alone.
    pub environment: Vec<(String, String)>,
    /// EnvironmentFile=, in order; a later file wins over an earlier one, and over Environment=.
    pub environment_files: Vec<EnvironmentFile>,
    /// PassEnvironment=: names taken over from the manager.
    pub pass_environment: Vec<String>,
    /// UnsetEnvironment=: names, or names with values, that are taken out at the very end.
    pub unset_environment: Vec<String>,
    /// WorkingDirectory=; None is `/`, or the home of the user under a user's manager.
    pub working_directory: Option<WorkingDirectory>,
    /// RootDirectory=.
    pub root_directory: Option<PathBuf>,
    /// User=: a name or a number.
    pub user: Option<String>,
    /// Group=: a name or a number.
    pub group: Option<String>,
    /// SupplementaryGroups=.
    pub supplementary_groups: Vec<String>,
    /// DynamicUser=.
    pub dynamic_user: bool,
    /// UMask=.
    pub umask: u32,
    /// Nice=.
    pub nice: Option<i32>,
    /// OOMScoreAdjust=.
    pub oom_score_adjust: Option<i32>,
    /// LimitNOFILE= and its relatives: the resource, and its bounds, each resource once.
    pub limits: Vec<(Resource, Limit)>,
    /// StandardInput=.
    pub standard_input: Input,
    /// StandardOutput=; None is what the manager has as its default.
    pub standard_output: Option<Output>,
    /// StandardError=; None is as for standard output.
    pub standard_error: Option<Output>,
    /// SyslogIdentifier=: what the journal calls the processes; None is the name of the program.
    pub syslog_identifier: Option<String>,
    /// RuntimeDirectory=, below %t.
    pub runtime_directory: Directories,
    /// RuntimeDirectoryPreserve=: when the runtime folders are kept after a stop.
    pub runtime_directory_preserve: PreserveMode,
    /// StateDirectory=, below %S.
    pub state_directory: Directories,
    /// CacheDirectory=, below %C.
    pub cache_directory: Directories,
    /// LogsDirectory=, below %L.
    pub logs_directory: Directories,
    /// ConfigurationDirectory=, below %E.
    pub configuration_directory: Directories,
    /// IgnoreSIGPIPE=.
    pub ignore_sigpipe: bool,
    /// NoNewPrivileges=.
    pub no_new_privileges: bool,
}

impl Default for Exec {
    fn default() -> Self {
        Self {
            environment: Vec::new(),
            environment_files: Vec::new(),
            pass_environment: Vec::new(),
            unset_environment: Vec::new(),
            working_directory: None,
            root_directory: None,
            user: None,
            group: None,
            supplementary_groups: Vec::new(),
            dynamic_user: false,
            umask: 0o022,
            nice: None,
            oom_score_adjust: None,
            limits: Vec::new(),
            standard_input: Input::Null,
            standard_output: None,
            standard_error: None,
            syslog_identifier: None,
            runtime_directory: Directories::default(),
            runtime_directory_preserve: PreserveMode::No,
            state_directory: Directories::default(),
            cache_directory: Directories::default(),
            logs_directory: Directories::default(),
            configuration_directory: Directories::default(),
            ignore_sigpipe: true,
            no_new_privileges: false,
        }
    }
}

/// A file of EnvironmentFile=. Its text is read at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentFile {
    /// An absolute path, which may be a glob(7) pattern.
    pub path: PathBuf,
    /// `-`: it need not exist.
    pub optional: bool,
}

/// WorkingDirectory=.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkingDirectory {
    /// None is `~`: the home of User=.
    pub path: Option<PathBuf>,
    /// `-`: it need not exist.
    pub optional: bool,
}

/// RuntimeDirectory= or one of its relatives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Directories {
    /// Relative paths of the folders that are made.
    pub paths: Vec<PathBuf>,
    /// The mode of each.
    pub mode: u32,
}

impl Default for Directories {
    fn default() -> Self {
        Self { paths: Vec::new(), mode: 0o755 }
    }
}

/// RuntimeDirectoryPreserve=.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PreserveMode {
    /// `no`: taken away at each stop.
    #[default]
    No,
    /// `yes`.
    Yes,
    /// `restart`: kept over a restart alone.
    Restart,
}

/// A resource of getrlimit(2), by the end of its directive: `LimitNOFILE=` is `NoFile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are getrlimit(2)'s")]
#[non_exhaustive]
pub enum Resource {
    Cpu,
    FileSize,
    Data,
    Stack,
    Core,
    Rss,
    NoFile,
    AddressSpace,
    Processes,
    MemoryLock,
    Locks,
    SignalsPending,
    MessageQueue,
    Nice,
    RealTimePriority,
    RealTimeTime,
}

/// The bounds of a resource; None is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limit {
    /// What holds, until the process raises it.
    pub soft: Option<u64>,
    /// How far it may raise it.
    pub hard: Option<u64>,
}

/// StandardInput=.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// `null`: /dev/null.
    #[default]
    Null,
    /// `tty`, `tty-force`, `tty-fail`.
    Tty,
    /// `data`: what StandardInputText= and StandardInputData= say.
    Data,
    /// `socket`: the connection or the one socket of the unit.
    Socket,
    /// `fd:NAME`: a descriptor of a socket unit.
    Fd(String),
    /// `file:PATH`.
    File(PathBuf),
}

/// StandardOutput= or StandardError=.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// `inherit`.
    Inherit,
    /// `null`: /dev/null.
    Null,
    /// `tty`.
    Tty,
    /// `journal`, also with `+console`, and `syslog`, its old name.
    Journal,
    /// `kmsg`, also with `+console`.
    Kmsg,
    /// `socket`.
    Socket,
    /// `fd:NAME`.
    Fd(String),
    /// `file:PATH`: opened for writing at its beginning.
    File(PathBuf),
    /// `append:PATH`.
    Append(PathBuf),
    /// `truncate:PATH`.
    Truncate(PathBuf),
}
