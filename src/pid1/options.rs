//! What systemd.socket(5) says of a socket, as setsockopt(2) has it.
//!
//! Which option is set on which kind of socket is PID 1's choice, and so is that one which the kernel
//! refuses is told, and the socket opened without it; but for what decides who is served: a socket for the
//! wrong device, or for the wrong one of IPv4 and IPv6, is none.

use std::time::Duration;

use crate::sys::listen::{Options, Setting, Value};
use crate::unit::{BindIpv6Only, Socket, SocketProtocol};

/// The addresses that a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
    /// Paths, names, virtual machines.
    Other,
}

/// The options of a socket of this family.
pub(super) fn options(settings: &Socket, family: Family) -> Options {
    let size = |bytes: u64| i32::try_from(bytes).unwrap_or(i32::MAX);
    Options {
        backlog: settings.backlog.map_or(i32::MAX, |most| i32::try_from(most).unwrap_or(i32::MAX)),
        mode: settings.mode,
        directory_mode: settings.directory_mode,
        protocol: settings.protocol.filter(|_| family != Family::Other).map(|protocol| match protocol {
            SocketProtocol::UdpLite => libc::IPPROTO_UDPLITE,
            SocketProtocol::Sctp => libc::IPPROTO_SCTP,
            SocketProtocol::Mptcp => libc::IPPROTO_MPTCP,
        }),
        settings: [before_bind(settings, family), of_traffic(settings, family)].concat(),
        pipe_size: settings.pipe_size.map(|bytes| ("PipeSize=", size(bytes))),
    }
}

/// Options that say which addresses it may have, and which clients.
fn before_bind(settings: &Socket, family: Family) -> Vec<Setting> {
    let inet = family != Family::Other;
    let v6_only = match settings.bind_ipv6_only {
        BindIpv6Only::Both => Some(0),
        BindIpv6Only::Ipv6Only => Some(1),
        BindIpv6Only::Default => None,
    };
    let v6_only = v6_only.filter(|_| family == Family::Ipv6);
    let device = settings.bind_to_device.clone().filter(|_| inet);
    let yes = |on: bool| (on && inet).then_some(1);
    let needed = [
        number("BindIPv6Only=", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, v6_only),
        word("BindToDevice=", libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device),
        number("the use of an address again", libc::SOL_SOCKET, libc::SO_REUSEADDR, Some(1)),
    ];
    let wanted = [
        number("ReusePort=", libc::SOL_SOCKET, libc::SO_REUSEPORT, yes(settings.reuse_port)),
        number("FreeBind=", libc::IPPROTO_IP, libc::IP_FREEBIND, yes(settings.free_bind)),
        number("Transparent=", libc::IPPROTO_IP, libc::IP_TRANSPARENT, yes(settings.transparent)),
    ];
    let needed = needed.into_iter().flatten().map(|setting| Setting { needed: true, ..setting });
    needed.chain(wanted.into_iter().flatten()).collect()
}

/// Options that say how it is talked to, in PID 1's order: IPTOS= changes what Priority= has set.
fn of_traffic(settings: &Socket, family: Family) -> Vec<Setting> {
    let yes = |on: bool| on.then_some(1);
    let seconds = |span: Duration| i32::try_from(span.as_secs()).unwrap_or(i32::MAX).max(1);
    let of_socket = |called, name, value| number(called, libc::SOL_SOCKET, name, value);
    let of_tcp = |called, name, value| number(called, libc::IPPROTO_TCP, name, value);
    let no_delay = match settings.protocol {
        Some(SocketProtocol::Sctp) => (libc::IPPROTO_SCTP, libc::SCTP_NODELAY),
        _ => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    };
    let packet_info = match family {
        Family::Ipv6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        _ => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let hops = match family {
        Family::Ipv6 => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        _ => (libc::IPPROTO_IP, libc::IP_TTL),
    };
    let all = [
        of_socket("KeepAlive=", libc::SO_KEEPALIVE, yes(settings.keep_alive)),
        of_tcp("KeepAliveTimeSec=", libc::TCP_KEEPIDLE, settings.keep_alive_time.map(seconds)),
        of_tcp("KeepAliveIntervalSec=", libc::TCP_KEEPINTVL, settings.keep_alive_interval.map(seconds)),
        of_tcp("KeepAliveProbes=", libc::TCP_KEEPCNT, settings.keep_alive_probes.map(u32::cast_signed)),
        of_tcp("DeferAcceptSec=", libc::TCP_DEFER_ACCEPT, settings.defer_accept.map(seconds)),
        number("NoDelay=", no_delay.0, no_delay.1, yes(settings.no_delay)),
        of_socket("Broadcast=", libc::SO_BROADCAST, yes(settings.broadcast)),
        of_socket("PassCredentials=", libc::SO_PASSCRED, yes(settings.pass_credentials)),
        of_socket("PassPIDFD=", libc::SO_PASSPIDFD, yes(settings.pass_pidfd)),
        of_socket("PassSecurity=", libc::SO_PASSSEC, yes(settings.pass_security)),
        number("PassPacketInfo=", packet_info.0, packet_info.1, yes(settings.pass_packet_info)),
        of_socket("Priority=", libc::SO_PRIORITY, settings.priority),
        room("ReceiveBuffer=", libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, settings.receive_buffer),
        room("SendBuffer=", libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, settings.send_buffer),
        of_socket("Mark=", libc::SO_MARK, settings.mark),
        number("IPTOS=", libc::IPPROTO_IP, libc::IP_TOS, settings.ip_tos),
        number("IPTTL=", hops.0, hops.1, settings.ip_ttl),
        word("TCPCongestion=", libc::IPPROTO_TCP, libc::TCP_CONGESTION, settings.tcp_congestion.clone()),
    ];
    all.into_iter().flatten().collect()
}

/// An option that is a number.
fn number(called: &'static str, level: i32, name: i32, value: Option<i32>) -> Option<Setting> {
    value.map(|value| Setting { called, level, name, value: Value::Number(value), needed: false })
}

/// An option that is a string.
fn word(called: &'static str, level: i32, name: i32, value: Option<String>) -> Option<Setting> {
    value.map(|value| Setting { called, level, name, value: Value::Word(value), needed: false })
}

/// A buffer, also one that is larger than net.core.rmem_max and its like let others have it.
fn room(called: &'static str, name: i32, forced: i32, bytes: Option<u64>) -> Option<Setting> {
    let value = bytes.map(|bytes| Value::Forced(i32::try_from(bytes).unwrap_or(i32::MAX), forced));
    value.map(|value| Setting { called, level: libc::SOL_SOCKET, name, value, needed: false })
}
