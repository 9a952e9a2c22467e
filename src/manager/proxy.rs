//! The part of org.freedesktop.systemd1(5) that this chapter speaks, written by hand.
//!
//! One trait for each interface; names and types are systemd's, the same on 252 to 262. No
//! property is cached (the proxies are built with `CacheProperties::No`): a verdict is about now.

use zbus::OwnedObjectPath;

/// One line of ExecReload= and how its last run went, as systemd sends it: path, argv, "a failure
/// does not matter", start and end (each CLOCK_REALTIME and CLOCK_MONOTONIC, microseconds, 0 for
/// "not yet"), pid, CLD_* of waitid(2), exit status or signal.
pub(crate) type ExecCommand = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// Something in the FD store, as systemd sends it: name, mode of stat(2), device (major, minor), inode, the
/// device that it is (major, minor), path as /proc has it, flags of open(2).
pub(crate) type StoredFd = (String, u32, u32, u32, u64, u32, u32, String, u32);

/// A unit in a list: its name, Description=, states (load, active, sub), the unit that it follows, its object,
/// and its job: number, type, object.
pub(crate) type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// The manager itself: PID 1, or a user's.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait Manager {
    /// The object of the unit `name`, read from disk if need be; also of one that does not exist.
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// The loaded units in one of `states` (any, if there is none) whose names match one of the globs.
    fn list_units_by_patterns(&self, states: &[&str], globs: &[&str]) -> zbus::Result<Vec<ListedUnit>>;

    /// Queues a reload and returns the object of its job. polkit may ask the user.
    #[zbus(allow_interactive_auth)]
    fn reload_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// What is in the FD store of the unit `name`: systemd 254 and newer, for root alone.
    fn dump_unit_file_descriptor_store(&self, name: &str) -> zbus::Result<Vec<StoredFd>>;

    /// Without this systemd sends no signals to anybody. A second call of one client is an error.
    fn subscribe(&self) -> zbus::Result<()>;

    /// A job has ended: its number and object, the unit's Id, and how (`done`, `failed`, ...).
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: &str, result: &str) -> zbus::Result<()>;

    /// systemd's version as it names itself: `257.13-1~deb13u1`.
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
}

/// What every unit has.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1",
    assume_defaults = false
)]
pub(crate) trait Unit {
    /// The unit's own name; it may have been asked for by an alias.
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;

    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_state(&self) -> zbus::Result<String>;

    /// `active`, `reloading`, `inactive`, ...
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;

    /// What ActiveState means for this type of unit: `running`, `exited`, `auto-restart`, ...
    #[zbus(property(emits_changed_signal = "false"))]
    fn sub_state(&self) -> zbus::Result<String>;

    /// 16 bytes that change whenever the unit is started, and at no other time.
    #[zbus(property(emits_changed_signal = "false"), name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;

    /// Whether the unit has a way to reload.
    #[zbus(property(emits_changed_signal = "false"))]
    fn can_reload(&self) -> zbus::Result<bool>;

    /// Its job: the number, 0 for none, and the object.
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;

    /// Units whose traffic starts it: sockets, for one.
    #[zbus(property(emits_changed_signal = "false"))]
    fn triggered_by(&self) -> zbus::Result<Vec<String>>;

    /// Whether the files on disk are newer than what systemd has read.
    #[zbus(property(emits_changed_signal = "false"))]
    fn need_daemon_reload(&self) -> zbus::Result<bool>;
}

/// What a service has on top.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Service",
    default_service = "org.freedesktop.systemd1",
    assume_defaults = false
)]
pub(crate) trait Service {
    /// The main process, 0 for none.
    #[zbus(property(emits_changed_signal = "false"), name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;

    /// The control process (an ExecReload= line, for one) that runs now, 0 for none.
    #[zbus(property(emits_changed_signal = "false"), name = "ControlPID")]
    fn control_pid(&self) -> zbus::Result<u32>;

    /// Why the service ended, `success` while it runs.
    #[zbus(property(emits_changed_signal = "false"))]
    fn result(&self) -> zbus::Result<String>;

    /// How the last reload went: `success`, `exit-code`, `timeout`, ...
    #[zbus(property(emits_changed_signal = "false"))]
    fn reload_result(&self) -> zbus::Result<String>;

    /// What the service last said with STATUS=.
    #[zbus(property(emits_changed_signal = "false"))]
    fn status_text(&self) -> zbus::Result<String>;

    /// What the service last said with ERRNO=.
    #[zbus(property(emits_changed_signal = "false"))]
    fn status_errno(&self) -> zbus::Result<i32>;

    /// How many descriptors the FD store holds. systemd does not tell when that changes.
    #[zbus(property(emits_changed_signal = "false"), name = "NFileDescriptorStore")]
    fn n_file_descriptor_store(&self) -> zbus::Result<u32>;

    /// How many it takes; 0 for none.
    #[zbus(property(emits_changed_signal = "false"))]
    fn file_descriptor_store_max(&self) -> zbus::Result<u32>;

    /// When the main process became that: CLOCK_MONOTONIC, microseconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_main_start_timestamp_monotonic(&self) -> zbus::Result<u64>;

    /// The ExecReload= lines in their order.
    #[zbus(property(emits_changed_signal = "false"))]
    fn exec_reload(&self) -> zbus::Result<Vec<ExecCommand>>;
}

/// What a socket unit has on top.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Socket",
    default_service = "org.freedesktop.systemd1",
    assume_defaults = false
)]
pub(crate) trait Socket {
    /// What it listens on: `Stream` and such, and the address.
    #[zbus(property(emits_changed_signal = "false"))]
    fn listen(&self) -> zbus::Result<Vec<(String, String)>>;
}
