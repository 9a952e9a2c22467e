//! From assignments to the settings of a socket unit.

use super::exec_read::descriptor;
use super::line::{self, Line};
use super::listen::{self, Address, Listen, ListenKind};
use super::socket::{BindIpv6Only, Socket, SocketProtocol};
use super::value::{self, Value};
use super::words::Backslash;
use super::{Command, Common, Finding, RateLimit, Unit, command, span};

const LISTEN: [(&str, ListenKind); 8] = [
    ("ListenStream", ListenKind::Stream),
    ("ListenDatagram", ListenKind::Datagram),
    ("ListenSequentialPacket", ListenKind::SequentialPacket),
    ("ListenFIFO", ListenKind::Fifo),
    ("ListenSpecial", ListenKind::Special),
    ("ListenNetlink", ListenKind::Netlink),
    ("ListenMessageQueue", ListenKind::MessageQueue),
    ("ListenUSBFunction", ListenKind::UsbFunction),
];

const BIND: [(&str, BindIpv6Only); 3] =
    [("default", BindIpv6Only::Default), ("both", BindIpv6Only::Both), ("ipv6-only", BindIpv6Only::Ipv6Only)];

const PROTOCOLS: [(&str, SocketProtocol); 3] =
    [("udplite", SocketProtocol::UdpLite), ("sctp", SocketProtocol::Sctp), ("mptcp", SocketProtocol::Mptcp)];

/// ip(7): IPTOS_LOWDELAY and so on.
const TYPES_OF_SERVICE: [(&str, i32); 4] =
    [("low-delay", 0x10), ("throughput", 0x08), ("reliability", 0x04), ("low-cost", 0x02)];

impl Socket {
    /// Reads the settings of `unit`, and adds to `findings` what is wrong with them, as
    /// [`Service::read`](super::Service::read) does.
    pub fn read(unit: &Unit, findings: &mut Vec<Finding>) -> Self {
        let mut socket = Self { common: Common::read(unit, findings), ..Self::default() };
        Line::each(unit, "Socket", findings, |line| socket.line(line));
        socket.verify(unit, findings);
        socket
    }

    fn line(&mut self, line: &mut Line<'_>) {
        if self.exec.read(line) || self.kill.read(line) || self.options(line) {
            return;
        }
        if let Some(list) = self.commands(line.key()) {
            return command::read(line, list);
        }
        match line.key() {
            "Accept" => line.flag(&mut self.accept),
            "Service" => self.service(line),
            "FileDescriptorName" => line.text_if(&mut self.fd_name, |name| descriptor(name).map(|_| ())),
            "SocketUser" => line.text(&mut self.user),
            "SocketGroup" => line.text(&mut self.group),
            "SocketMode" => line.set(&mut self.mode, value::mode),
            "DirectoryMode" => line.set(&mut self.directory_mode, value::mode),
            "Writable" => line.flag(&mut self.writable),
            "MaxConnections" => line.set(&mut self.max_connections, value::unsigned32),
            "MaxConnectionsPerSource" => line.some(&mut self.max_connections_per_source, value::unsigned32),
            "RemoveOnStop" => line.flag(&mut self.remove_on_stop),
            "Symlinks" => line.list(&mut self.symlinks, Backslash::Next, line::absolute),
            "FlushPending" => line.flag(&mut self.flush_pending),
            "TriggerLimitIntervalSec" => line.some(&mut self.trigger_limit.interval, span::read),
            "TriggerLimitBurst" => line.some(&mut self.trigger_limit.burst, value::unsigned32),
            "PollLimitIntervalSec" => line.some(&mut self.poll_limit.interval, span::read),
            "PollLimitBurst" => line.some(&mut self.poll_limit.burst, value::unsigned32),
            "TimeoutSec" => line.set(&mut self.timeout, |text| {
                span::read(text).map(|span| span.filter(|span| !span.is_zero()))
            }),
            _ => self.listen(line),
        }
    }

    /// What setsockopt(2) and its relatives are told.
    fn options(&mut self, line: &mut Line<'_>) -> bool {
        match line.key() {
            "Backlog" => line.some(&mut self.backlog, value::unsigned32),
            "BindIPv6Only" => line.set(&mut self.bind_ipv6_only, bind),
            "BindToDevice" => line.text(&mut self.bind_to_device),
            "KeepAlive" => line.flag(&mut self.keep_alive),
            "KeepAliveTimeSec" => line.set(&mut self.keep_alive_time, span::read),
            "KeepAliveIntervalSec" => line.set(&mut self.keep_alive_interval, span::read),
            "KeepAliveProbes" => line.some(&mut self.keep_alive_probes, value::unsigned32),
            "NoDelay" => line.flag(&mut self.no_delay),
            "DeferAcceptSec" => line.set(&mut self.defer_accept, span::read),
            "ReusePort" => line.flag(&mut self.reuse_port),
            "FreeBind" => line.flag(&mut self.free_bind),
            "Transparent" => line.flag(&mut self.transparent),
            "Broadcast" => line.flag(&mut self.broadcast),
            "PassCredentials" => line.flag(&mut self.pass_credentials),
            "PassSecurity" => line.flag(&mut self.pass_security),
            "PassPIDFD" => line.flag(&mut self.pass_pidfd),
            "PassPacketInfo" => line.flag(&mut self.pass_packet_info),
            "ReceiveBuffer" => line.some(&mut self.receive_buffer, value::size),
            "SendBuffer" => line.some(&mut self.send_buffer, value::size),
            "PipeSize" => line.some(&mut self.pipe_size, value::size),
            "Priority" => line.some(&mut self.priority, value::signed32),
            "Mark" => line.some(&mut self.mark, value::signed32),
            "IPTOS" => line.or_default(&mut self.ip_tos, |text| type_of_service(text).map(Some)),
            "IPTTL" => line.some(&mut self.ip_ttl, value::signed32),
            "TCPCongestion" => line.text(&mut self.tcp_congestion),
            "SocketProtocol" => line.some(&mut self.protocol, |text| value::choice(text, &PROTOCOLS)),
            _ => return false,
        }
        true
    }

    fn commands(&mut self, key: &str) -> Option<&mut Vec<Command>> {
        Some(match key {
            "ExecStartPre" => &mut self.exec_start_pre,
            "ExecStartPost" => &mut self.exec_start_post,
            "ExecStopPre" => &mut self.exec_stop_pre,
            "ExecStopPost" => &mut self.exec_stop_post,
            _ => return None,
        })
    }

    fn service(&mut self, line: &mut Line<'_>) {
        let mut names = Vec::new();
        line.units(&mut names, Some("service"));
        if let Some(name) = names.pop() {
            self.service = Some(name);
        } else if line.is_reset() {
            line.ignore("wanted the name of a .service unit");
        }
    }

    /// An empty value of any of them takes away the addresses of all.
    fn listen(&mut self, line: &mut Line<'_>) {
        let Some((_, kind)) = LISTEN.iter().find(|(key, _)| *key == line.key()) else { return };
        if line.is_reset() {
            return self.listen.clear();
        }
        let Some(text) = line.resolve(line.value()) else { return };
        let read = match kind {
            ListenKind::Stream | ListenKind::Datagram | ListenKind::SequentialPacket => {
                listen::read(&text, *kind)
            }
            ListenKind::Netlink => Ok(Address::Name(text)),
            _ => line::absolute(&text).map(Address::Path),
        };
        match read {
            Ok(address) => {
                self.listen.push(Listen { kind: *kind, address, place: line.assignment.place.clone() });
            }
            Err(why) => line.ignore(why),
        }
    }

    /// What makes systemd refuse a socket unit: its socket_verify().
    fn verify(&self, unit: &Unit, findings: &mut Vec<Finding>) {
        let at = |key: &str| unit.values("Socket", key).last().map(|line| line.place.clone());
        let mut refuse = |key: &str, why: &str| {
            let place = at(key);
            let file = if place.is_none() { format!("{}: ", unit.fragment()) } else { String::new() };
            findings.push(Finding::error(place.as_ref(), format!("{file}{why}")));
        };
        if self.listen.is_empty() {
            refuse("", "the socket unit has no ListenStream= or other address");
        }
        let accepts =
            |listen: &Listen| matches!(listen.kind, ListenKind::Stream | ListenKind::SequentialPacket);
        if self.accept && !self.listen.iter().all(accepts) {
            refuse("Accept", "only ListenStream= and ListenSequentialPacket= can have Accept=yes");
        }
        if self.accept && self.max_connections == 0 {
            refuse("MaxConnections", "with Accept=yes it has to be more than 0");
        }
        if self.accept && self.service.is_some() {
            refuse("Service", "Accept=yes starts instances of the service of the same name alone");
        }
        let paths = self.listen.iter().filter(|listen| {
            matches!(listen.address, Address::Path(_)) && !matches!(listen.kind, ListenKind::Special)
        });
        if !self.symlinks.is_empty() && paths.count() != 1 {
            refuse("Symlinks", "it needs exactly one address that is a path");
        }
    }

    /// TriggerLimitIntervalSec= and TriggerLimitBurst=, with their defaults.
    pub fn trigger_limit(&self) -> RateLimit {
        self.trigger_limit.or(if self.accept { 200 } else { 20 })
    }

    /// PollLimitIntervalSec= and PollLimitBurst=, with their defaults.
    pub fn poll_limit(&self) -> RateLimit {
        self.poll_limit.or(if self.accept { 150 } else { 15 })
    }
}

fn bind(text: &str) -> Value<BindIpv6Only> {
    match value::boolean(text) {
        Ok(true) => Ok(BindIpv6Only::Ipv6Only),
        Ok(false) => Ok(BindIpv6Only::Both),
        Err(_) => value::choice(text, &BIND),
    }
}

fn type_of_service(text: &str) -> Value<i32> {
    value::choice(text, &TYPES_OF_SERVICE).or_else(|_| value::within(text, 0, 255))
}
