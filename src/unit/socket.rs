//! The settings of a socket unit: systemd.socket(5).

use std::path::PathBuf;
use std::time::Duration;

use super::{Command, Common, Exec, Kill, Listen, RateLimit};

/// What PID 1 knows of a socket unit. The defaults are systemd's own.
///
/// A span of time that is None is infinity; another option that is None is left as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Socket {
    /// \[Unit\] and \[Install\].
    pub common: Common,
    /// How the processes of its own commands run.
    pub exec: Exec,
    /// How they end.
    pub kill: Kill,
    /// ListenStream= and its relatives, in their order.
    pub listen: Vec<Listen>,
    /// Accept=: one instance of a service for each connection.
    pub accept: bool,
    /// Service=; None is the service of the same name.
    pub service: Option<String>,
    /// FileDescriptorName=; None is the name of the unit.
    pub fd_name: Option<String>,
    /// Backlog=; None is the most that the kernel allows.
    pub backlog: Option<u32>,
    /// BindIPv6Only=.
    pub bind_ipv6_only: BindIpv6Only,
    /// BindToDevice=.
    pub bind_to_device: Option<String>,
    /// SocketUser=: who owns unix sockets and pipes.
    pub user: Option<String>,
    /// SocketGroup=.
    pub group: Option<String>,
    /// SocketMode=.
    pub mode: u32,
    /// DirectoryMode=: of the folders made on the way to a path.
    pub directory_mode: u32,
    /// Writable=: whether ListenSpecial= opens for writing, too.
    pub writable: bool,
    /// MaxConnections=, with Accept=yes.
    pub max_connections: u32,
    /// MaxConnectionsPerSource=, with Accept=yes; None is no bound.
    pub max_connections_per_source: Option<u32>,
    /// KeepAlive=.
    pub keep_alive: bool,
    /// KeepAliveTimeSec=.
    pub keep_alive_time: Option<Duration>,
    /// KeepAliveIntervalSec=.
    pub keep_alive_interval: Option<Duration>,
    /// KeepAliveProbes=.
    pub keep_alive_probes: Option<u32>,
    /// NoDelay=.
    pub no_delay: bool,
    /// DeferAcceptSec=.
    pub defer_accept: Option<Duration>,
    /// ReusePort=.
    pub reuse_port: bool,
    /// FreeBind=.
    pub free_bind: bool,
    /// Transparent=.
    pub transparent: bool,
    /// Broadcast=.
    pub broadcast: bool,
    /// PassCredentials=.
    pub pass_credentials: bool,
    /// PassSecurity=.
    pub pass_security: bool,
    /// PassPIDFD= (systemd 258).
    pub pass_pidfd: bool,
    /// PassPacketInfo=.
    pub pass_packet_info: bool,
    /// ReceiveBuffer=, bytes.
    pub receive_buffer: Option<u64>,
    /// SendBuffer=, bytes.
    pub send_buffer: Option<u64>,
    /// PipeSize=, bytes, of ListenFIFO=.
    pub pipe_size: Option<u64>,
    /// Priority=.
    pub priority: Option<i32>,
    /// Mark=.
    pub mark: Option<i32>,
    /// IPTOS=.
    pub ip_tos: Option<i32>,
    /// IPTTL=.
    pub ip_ttl: Option<i32>,
    /// TCPCongestion=.
    pub tcp_congestion: Option<String>,
    /// SocketProtocol=.
    pub protocol: Option<SocketProtocol>,
    /// RemoveOnStop=: whether paths go when the unit stops.
    pub remove_on_stop: bool,
    /// Symlinks= to the path of the one unix socket or pipe.
    pub symlinks: Vec<PathBuf>,
    /// FlushPending=: whether what is queued is thrown away before listening again.
    pub flush_pending: bool,
    /// TriggerLimitIntervalSec= and TriggerLimitBurst=, as far as they are set: see
    /// [`Socket::trigger_limit`].
    pub trigger_limit: PartialLimit,
    /// PollLimitIntervalSec= and PollLimitBurst= (systemd 255), as far as they are set: see
    /// [`Socket::poll_limit`].
    pub poll_limit: PartialLimit,
    /// ExecStartPre=.
    pub exec_start_pre: Vec<Command>,
    /// ExecStartPost=.
    pub exec_start_post: Vec<Command>,
    /// ExecStopPre=.
    pub exec_stop_pre: Vec<Command>,
    /// ExecStopPost=.
    pub exec_stop_post: Vec<Command>,
    /// TimeoutSec=: of each of these commands.
    pub timeout: Option<Duration>,
}

impl Default for Socket {
    fn default() -> Self {
        Self {
            common: Common::default(),
            exec: Exec::default(),
            kill: Kill::default(),
            listen: Vec::new(),
            accept: false,
            service: None,
            fd_name: None,
            backlog: None,
            bind_ipv6_only: BindIpv6Only::Default,
            bind_to_device: None,
            user: None,
            group: None,
            mode: 0o666,
            directory_mode: 0o755,
            writable: false,
            max_connections: 64,
            max_connections_per_source: None,
            keep_alive: false,
            keep_alive_time: None,
            keep_alive_interval: None,
            keep_alive_probes: None,
            no_delay: false,
            defer_accept: None,
            reuse_port: false,
            free_bind: false,
            transparent: false,
            broadcast: false,
            pass_credentials: false,
            pass_security: false,
            pass_pidfd: false,
            pass_packet_info: false,
            receive_buffer: None,
            send_buffer: None,
            pipe_size: None,
            priority: None,
            mark: None,
            ip_tos: None,
            ip_ttl: None,
            tcp_congestion: None,
            protocol: None,
            remove_on_stop: false,
            symlinks: Vec::new(),
            flush_pending: false,
            trigger_limit: PartialLimit::default(),
            poll_limit: PartialLimit::default(),
            exec_start_pre: Vec::new(),
            exec_start_post: Vec::new(),
            exec_stop_pre: Vec::new(),
            exec_stop_post: Vec::new(),
            timeout: Some(Duration::from_secs(90)),
        }
    }
}

/// A rate limit whose parts have defaults that depend on other settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialLimit {
    /// The interval, if it is set; the inner None is infinity.
    pub interval: Option<Option<Duration>>,
    /// How often, if it is set.
    pub burst: Option<u32>,
}

impl PartialLimit {
    /// The limit, with `burst` times in two seconds by default.
    pub(super) fn or(self, burst: u32) -> RateLimit {
        let interval = self.interval.unwrap_or(Some(Duration::from_secs(2)));
        RateLimit { interval, burst: self.burst.unwrap_or(burst) }
    }
}

/// BindIPv6Only=.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindIpv6Only {
    /// As the kernel's setting bindv6only says.
    #[default]
    Default,
    /// Both IPv4 and IPv6.
    Both,
    /// IPv6 alone.
    Ipv6Only,
}

/// SocketProtocol=.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketProtocol {
    /// `udplite`.
    UdpLite,
    /// `sctp`.
    Sctp,
    /// `mptcp` (systemd 257).
    Mptcp,
}
