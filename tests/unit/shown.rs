//! Settings as systemd shows them on the bus: property and value.

use std::collections::BTreeMap;
use std::time::Duration;

use handover::unit::{
    Address, BindIpv6Only, Command, Common, Directories, Exec, ExitStatuses, FdStorePreserve, Input, Kill,
    KillMode, Listen, ListenKind, NotifyAccess, Output, PreserveMode, Privilege, RateLimit, Resource,
    Restart, RestartMode, Service, ServiceType, Socket, SocketProtocol, UnitName,
};
use serde_json::{Value, json};

pub(crate) type Shown = BTreeMap<String, Value>;

fn put(shown: &mut Shown, property: &str, value: impl Into<Value>) {
    shown.insert(property.to_owned(), value.into());
}

fn usec(span: Option<Duration>) -> Value {
    json!(span.map_or(u64::MAX, |span| u64::try_from(span.as_micros()).unwrap()))
}

fn text(text: &Option<String>) -> Value {
    json!(text.clone().unwrap_or_default())
}

/// What a word of a table is called in the file, from the name of its variant: OnFailure, on-failure.
fn dashed(variant: impl std::fmt::Debug) -> Value {
    let mut word = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    json!(word)
}

pub(crate) fn service(name: &UnitName, service: &Service) -> Shown {
    let mut shown = Shown::new();
    common(&mut shown, name, &service.common);
    exec(&mut shown, &service.exec);
    kill(&mut shown, &service.kill);
    let (kind, restart): (ServiceType, Restart) = (service.kind, service.restart);
    let (access, preserve): (NotifyAccess, FdStorePreserve) =
        (service.notify_access, service.fd_store_preserve);
    let mode: RestartMode = service.restart_mode;
    put(&mut shown, "Type", dashed(kind));
    put(&mut shown, "Restart", dashed(restart));
    put(&mut shown, "RestartMode", dashed(mode));
    put(&mut shown, "NotifyAccess", dashed(access));
    put(&mut shown, "FileDescriptorStorePreserve", dashed(preserve));
    put(&mut shown, "FileDescriptorStoreMax", service.fd_store_max);
    put(&mut shown, "RestartUSec", usec(service.restart_after));
    put(&mut shown, "RestartSteps", service.restart_steps);
    put(&mut shown, "RestartMaxDelayUSec", usec(service.restart_max_delay));
    put(&mut shown, "TimeoutStartUSec", usec(service.timeout_start));
    put(&mut shown, "TimeoutStopUSec", usec(service.timeout_stop));
    put(&mut shown, "TimeoutAbortUSec", usec(service.timeout_abort.unwrap_or(service.timeout_stop)));
    put(&mut shown, "RuntimeMaxUSec", usec(service.runtime_max));
    put(&mut shown, "RemainAfterExit", service.remain_after_exit);
    put(&mut shown, "GuessMainPID", service.guess_main_pid);
    put(&mut shown, "RootDirectoryStartOnly", service.root_directory_start_only);
    put(&mut shown, "NonBlocking", service.non_blocking);
    put(&mut shown, "BusName", text(&service.bus_name));
    put(&mut shown, "PIDFile", json!(service.pid_file.clone().unwrap_or_default()));
    put(&mut shown, "ReloadSignal", service.reload_signal.number());
    put(&mut shown, "SuccessExitStatus", statuses(&service.success_exit_status));
    put(&mut shown, "RestartPreventExitStatus", statuses(&service.restart_prevent_exit_status));
    put(&mut shown, "RestartForceExitStatus", statuses(&service.restart_force_exit_status));
    for (property, list) in [
        ("ExecConditionEx", &service.exec_condition),
        ("ExecStartPreEx", &service.exec_start_pre),
        ("ExecStartEx", &service.exec_start),
        ("ExecStartPostEx", &service.exec_start_post),
        ("ExecReloadEx", &service.exec_reload),
        ("ExecReloadPostEx", &service.exec_reload_post),
        ("ExecStopEx", &service.exec_stop),
        ("ExecStopPostEx", &service.exec_stop_post),
    ] {
        put(&mut shown, property, list.iter().map(command).collect::<Vec<_>>());
    }
    shown
}

pub(crate) fn socket(name: &UnitName, socket: &Socket) -> Shown {
    let mut shown = Shown::new();
    common(&mut shown, name, &socket.common);
    exec(&mut shown, &socket.exec);
    kill(&mut shown, &socket.kill);
    let bind: BindIpv6Only = socket.bind_ipv6_only;
    put(&mut shown, "Listen", socket.listen.iter().map(listen).collect::<Vec<_>>());
    put(
        &mut shown,
        "BindIPv6Only",
        if bind == BindIpv6Only::Ipv6Only { json!("ipv6-only") } else { dashed(bind) },
    );
    put(&mut shown, "Accept", socket.accept);
    put(
        &mut shown,
        "FileDescriptorName",
        socket.fd_name.clone().unwrap_or_else(|| match socket.accept {
            true => "connection".to_owned(),
            false => name.to_string(),
        }),
    );
    if let Some(backlog) = socket.backlog {
        put(&mut shown, "Backlog", backlog);
    }
    put(&mut shown, "BindToDevice", text(&socket.bind_to_device));
    put(&mut shown, "SocketUser", text(&socket.user));
    put(&mut shown, "SocketGroup", text(&socket.group));
    put(&mut shown, "SocketMode", socket.mode);
    put(&mut shown, "DirectoryMode", socket.directory_mode);
    put(&mut shown, "Writable", socket.writable);
    put(&mut shown, "MaxConnections", socket.max_connections);
    put(&mut shown, "MaxConnectionsPerSource", socket.max_connections_per_source.unwrap_or(0));
    options(&mut shown, socket);
    put(&mut shown, "TimeoutUSec", usec(socket.timeout));
    limit(&mut shown, "TriggerLimit", socket.trigger_limit());
    limit(&mut shown, "PollLimit", socket.poll_limit());
    for (property, list) in [
        ("ExecStartPre", &socket.exec_start_pre),
        ("ExecStartPost", &socket.exec_start_post),
        ("ExecStopPre", &socket.exec_stop_pre),
        ("ExecStopPost", &socket.exec_stop_post),
    ] {
        let short = |command: &Command| json!([command.path, command.words, command.ignore_failure]);
        put(&mut shown, property, list.iter().map(short).collect::<Vec<_>>());
    }
    shown
}

fn options(shown: &mut Shown, socket: &Socket) {
    put(shown, "KeepAlive", socket.keep_alive);
    put(shown, "KeepAliveTimeUSec", usec(socket.keep_alive_time.or(Some(Duration::ZERO))));
    put(shown, "KeepAliveIntervalUSec", usec(socket.keep_alive_interval.or(Some(Duration::ZERO))));
    put(shown, "KeepAliveProbes", socket.keep_alive_probes.unwrap_or(0));
    put(shown, "DeferAcceptUSec", usec(socket.defer_accept.or(Some(Duration::ZERO))));
    put(shown, "NoDelay", socket.no_delay);
    put(shown, "ReusePort", socket.reuse_port);
    put(shown, "FreeBind", socket.free_bind);
    put(shown, "Transparent", socket.transparent);
    put(shown, "Broadcast", socket.broadcast);
    put(shown, "PassCredentials", socket.pass_credentials);
    put(shown, "PassSecurity", socket.pass_security);
    put(shown, "PassPIDFD", socket.pass_pidfd);
    put(shown, "PassPacketInfo", socket.pass_packet_info);
    put(shown, "RemoveOnStop", socket.remove_on_stop);
    put(shown, "FlushPending", socket.flush_pending);
    put(shown, "ReceiveBuffer", socket.receive_buffer.unwrap_or(0));
    put(shown, "SendBuffer", socket.send_buffer.unwrap_or(0));
    put(shown, "PipeSize", socket.pipe_size.unwrap_or(0));
    put(shown, "Priority", socket.priority.unwrap_or(-1));
    put(shown, "Mark", socket.mark.unwrap_or(-1));
    put(shown, "IPTOS", socket.ip_tos.unwrap_or(-1));
    put(shown, "IPTTL", socket.ip_ttl.unwrap_or(-1));
    put(shown, "Symlinks", json!(socket.symlinks));
    put(
        shown,
        "SocketProtocol",
        match socket.protocol {
            None => 0,
            Some(SocketProtocol::UdpLite) => libc::IPPROTO_UDPLITE,
            Some(SocketProtocol::Sctp) => libc::IPPROTO_SCTP,
            Some(_) => libc::IPPROTO_MPTCP,
        },
    );
}

fn limit(shown: &mut Shown, name: &str, limit: RateLimit) {
    put(shown, &format!("{name}IntervalUSec"), usec(limit.interval));
    put(shown, &format!("{name}Burst"), limit.burst);
}

/// Lists of units are not here: systemd adds to them.
fn common(shown: &mut Shown, name: &UnitName, common: &Common) {
    put(shown, "Id", name.as_str());
    put(shown, "Description", common.description.clone().unwrap_or_else(|| name.to_string()));
    put(shown, "DefaultDependencies", common.default_dependencies);
    put(shown, "StartLimitIntervalUSec", usec(common.start_limit.interval));
    put(shown, "StartLimitBurst", common.start_limit.burst);
}

/// The lists of units, which systemd adds to.
pub(crate) fn units(common: &Common) -> [(&'static str, &[String]); 7] {
    [
        ("Requires", &common.requires),
        ("Wants", &common.wants),
        ("BindsTo", &common.binds_to),
        ("PartOf", &common.part_of),
        ("Conflicts", &common.conflicts),
        ("After", &common.after),
        ("Before", &common.before),
    ]
}

fn exec(shown: &mut Shown, exec: &Exec) {
    let pairs = exec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    put(shown, "Environment", pairs.collect::<Vec<_>>());
    let files = exec.environment_files.iter().map(|file| json!([file.path, file.optional]));
    put(shown, "EnvironmentFiles", files.collect::<Vec<_>>());
    put(shown, "PassEnvironment", exec.pass_environment.clone());
    put(shown, "UnsetEnvironment", exec.unset_environment.clone());
    let directory = exec.working_directory.as_ref().map(|directory| {
        let path = directory.path.as_ref().map_or("~", |path| path.to_str().unwrap());
        format!("{}{path}", if directory.optional { "!" } else { "" })
    });
    put(shown, "WorkingDirectory", text(&directory));
    put(shown, "RootDirectory", json!(exec.root_directory.clone().unwrap_or_default()));
    put(shown, "User", text(&exec.user));
    put(shown, "Group", text(&exec.group));
    put(shown, "SupplementaryGroups", exec.supplementary_groups.clone());
    put(shown, "DynamicUser", exec.dynamic_user);
    put(shown, "UMask", exec.umask);
    put(shown, "Nice", exec.nice.unwrap_or(0));
    if let Some(adjust) = exec.oom_score_adjust {
        put(shown, "OOMScoreAdjust", adjust);
    }
    for (resource, limit) in &exec.limits {
        let name = resource_name(*resource);
        put(shown, &format!("Limit{name}"), limit.hard.unwrap_or(u64::MAX));
        put(shown, &format!("Limit{name}Soft"), limit.soft.unwrap_or(u64::MAX));
    }
    put(shown, "StandardInput", input(&exec.standard_input));
    if let Some(stream) = &exec.standard_output {
        put(shown, "StandardOutput", output(stream));
    }
    if let Some(stream) = &exec.standard_error {
        put(shown, "StandardError", output(stream));
    }
    put(shown, "SyslogIdentifier", text(&exec.syslog_identifier));
    let preserve: PreserveMode = exec.runtime_directory_preserve;
    put(shown, "RuntimeDirectoryPreserve", dashed(preserve));
    folders(shown, "Runtime", &exec.runtime_directory);
    folders(shown, "State", &exec.state_directory);
    folders(shown, "Cache", &exec.cache_directory);
    folders(shown, "Logs", &exec.logs_directory);
    folders(shown, "Configuration", &exec.configuration_directory);
    put(shown, "IgnoreSIGPIPE", exec.ignore_sigpipe);
}

fn folders(shown: &mut Shown, kind: &str, folders: &Directories) {
    // In the order of their names, as systemd sorts them.
    let mut paths = folders.paths.clone();
    paths.sort();
    paths.dedup();
    put(shown, &format!("{kind}Directory"), json!(paths));
    put(shown, &format!("{kind}DirectoryMode"), folders.mode);
}

fn kill(shown: &mut Shown, kill: &Kill) {
    let mode: KillMode = kill.mode;
    put(shown, "KillMode", dashed(mode));
    put(shown, "KillSignal", kill.signal.number());
    put(shown, "RestartKillSignal", kill.restart_signal.unwrap_or(kill.signal).number());
    put(shown, "FinalKillSignal", kill.final_signal.number());
    put(shown, "WatchdogSignal", kill.watchdog_signal.number());
    put(shown, "SendSIGKILL", kill.send_sigkill);
    put(shown, "SendSIGHUP", kill.send_sighup);
}

fn command(command: &Command) -> Value {
    let mut flags = Vec::new();
    let has = [
        (command.ignore_failure, "ignore-failure"),
        (command.privilege == Privilege::Full, "privileged"),
        (command.privilege == Privilege::NoUser, "no-setuid"),
        (!command.expand, "no-env-expand"),
        (command.via_shell, "via-shell"),
    ];
    flags.extend(has.iter().filter(|(has, _)| *has).map(|(_, flag)| *flag));
    json!([command.path, command.words, flags])
}

fn listen(listen: &Listen) -> Value {
    let kind = match listen.kind {
        ListenKind::Stream => "Stream",
        ListenKind::Datagram => "Datagram",
        ListenKind::SequentialPacket => "SequentialPacket",
        ListenKind::Fifo => "FIFO",
        ListenKind::Special => "Special",
        ListenKind::Netlink => "Netlink",
        ListenKind::MessageQueue => "MessageQueue",
        _ => "USBFunction",
    };
    let address: &Address = &listen.address;
    json!([kind, address.to_string()])
}

fn statuses(set: &ExitStatuses) -> Value {
    let signals: Vec<_> = set.signals.iter().map(|signal| signal.number()).collect();
    json!([set.statuses, signals])
}

fn input(input: &Input) -> Value {
    match input {
        Input::Fd(name) => json!(format!("fd:{name}")),
        Input::File(_) => json!("file"),
        other => dashed(other),
    }
}

fn output(output: &Output) -> Value {
    match output {
        Output::Fd(name) => json!(format!("fd:{name}")),
        Output::File(_) => json!("file"),
        Output::Append(_) => json!("append"),
        Output::Truncate(_) => json!("truncate"),
        other => dashed(other),
    }
}

/// The end of the directive.
fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "CPU",
        Resource::FileSize => "FSIZE",
        Resource::Data => "DATA",
        Resource::Stack => "STACK",
        Resource::Core => "CORE",
        Resource::Rss => "RSS",
        Resource::NoFile => "NOFILE",
        Resource::AddressSpace => "AS",
        Resource::Processes => "NPROC",
        Resource::MemoryLock => "MEMLOCK",
        Resource::Locks => "LOCKS",
        Resource::SignalsPending => "SIGPENDING",
        Resource::MessageQueue => "MSGQUEUE",
        Resource::Nice => "NICE",
        Resource::RealTimePriority => "RTPRIO",
        _ => "RTTIME",
    }
}
