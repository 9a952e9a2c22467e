//! Which socket of an SO_REUSEPORT group a new connection or datagram goes to: socket(7),
//! SO_ATTACH_REUSEPORT_CBPF.
//!
//! The kernel runs a classic BPF program for each SYN and each datagram, and takes what it returns for a
//! place in the group: the sockets in the order in which they began to listen (TCP) or were bound (UDP).
//! A place that is not there is a hash, as without a program. No privilege is needed, and one socket of
//! the group is enough to attach it to all. Connections that are there already stay where they are.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{
    BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_RSH, BPF_W,
};
use libc::{SKF_AD_OFF, SKF_AD_RANDOM, SKF_NET_OFF, sock_filter, sock_fprog};
use nix::errno::Errno;

/// Who goes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steering {
    /// The place of everybody.
    pub(crate) to: u32,
    /// Those who go somewhere else; the first that fits counts.
    but: [Option<(Who, u32)>; 2],
}

/// Some of the new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Those from one port of one address.
    Source(SocketAddr),
    /// Those from one address.
    Address(IpAddr),
    /// So many of a hundred, at random.
    Percent(u8),
}

impl Steering {
    /// All of them to one place.
    pub(crate) fn to(place: u32) -> Self {
        Self { to: place, but: [None; 2] }
    }

    /// The same, but those go to another place, whoever else they are; two such exceptions are remembered.
    pub(crate) fn but(self, who: Who, place: u32) -> Self {
        Self { but: [Some((who, place)), self.but[0]], ..self }
    }

    /// Has the kernel steer the whole group of `socket` so, from now on and for as long as any socket of
    /// the group is open.
    ///
    /// Errors: EINVAL for a socket that is bound without SO_REUSEPORT, EOPNOTSUPP for AF_UNIX.
    pub(crate) fn attach(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut code = self.program();
        let len = u16::try_from(code.len()).map_err(|_| Errno::EINVAL)?;
        let program = sock_fprog { len, filter: code.as_mut_ptr() };
        // SAFETY: `program` describes `code`, both live locals; the kernel copies what it needs.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const program).cast(),
                size_of::<sock_fprog>() as libc::socklen_t,
            )
        };
        Errno::result(done)?;
        Ok(())
    }

    /// The program. Offset 0 is behind the header of TCP or UDP; the network's begins at SKF_NET_OFF.
    fn program(self) -> Vec<sock_filter> {
        let mut program = Vec::new();
        for (who, place) in self.but.into_iter().flatten() {
            let mut code = match who {
                Who::Percent(share) => random(share),
                Who::Address(address) => from(address, None),
                Who::Source(source) => from(source.ip(), Some(source.port())),
            };
            end_with(&mut code, place);
            program.extend(code);
        }
        program.push(statement(BPF_RET | BPF_K, self.to));
        program
    }
}

/// Returns `value` if all tests of `code` have passed; else what comes behind it is gone on with.
pub(super) fn end_with(code: &mut Vec<sock_filter>, value: u32) {
    // A test that fails jumps behind the statement that ends this, whatever lies between.
    let end = code.len();
    for (at, step) in code.iter_mut().enumerate() {
        if u32::from(step.code) & 7 == BPF_JMP {
            step.jf = u8::try_from(end - at).unwrap_or(0);
        }
    }
    code.push(statement(BPF_RET | BPF_K, value));
}

/// Goes on for `share` of a hundred.
fn random(share: u8) -> Vec<sock_filter> {
    let first_other = u32::MAX / 100 * u32::from(share.min(100));
    let mut test = statement(BPF_JMP | BPF_JGE | BPF_K, u32::MAX - first_other);
    if share == 0 {
        // Nothing is larger than the largest: the accumulator is made the smallest.
        test = statement(BPF_JMP | BPF_JEQ | BPF_K, 0);
        return vec![statement(BPF_LD | libc::BPF_IMM, 1), test];
    }
    test.jt = 0;
    vec![load(BPF_W, SKF_AD_OFF + SKF_AD_RANDOM), test]
}

/// Goes on for what comes from `address`, and from `port` if one is given.
pub(super) fn from(address: IpAddr, port: Option<u16>) -> Vec<sock_filter> {
    let (version, words, first, header) = match address {
        IpAddr::V4(v4) => (4, vec![u32::from(v4)], 12, 20),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            (6, (0..4).rev().map(|word| (bits >> (32 * word)) as u32).collect(), 8, 40)
        }
    };
    let equals = |value| statement(BPF_JMP | BPF_JEQ | BPF_K, value);
    let mut code = vec![load(BPF_B, SKF_NET_OFF), statement(BPF_ALU | BPF_RSH | BPF_K, 4), equals(version)];
    for (offset, word) in (first..).step_by(4).zip(words) {
        code.extend([load(BPF_W, SKF_NET_OFF + offset), equals(word)]);
    }
    if let Some(port) = port {
        // Behind a header without options or extensions, as this host's own packets have it.
        code.extend([load(BPF_H, SKF_NET_OFF + header), equals(u32::from(port))]);
    }
    code
}

fn load(size: u32, offset: i32) -> sock_filter {
    statement(BPF_LD | size | BPF_ABS, offset.cast_unsigned())
}

pub(super) fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    };
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};

    /// Three sockets that listen at one address.
    fn group(family: AddressFamily, address: &str) -> Vec<TcpListener> {
        let mut address: SocketAddr = address.parse().unwrap();
        let listening = |address: SocketAddr| {
            let made = member(family, SockType::Stream, address);
            listen(&made, Backlog::new(64).unwrap()).unwrap();
            TcpListener::from(made)
        };
        let first = listening(address);
        address.set_port(first.local_addr().unwrap().port());
        let group = vec![first, listening(address), listening(address)];
        group.iter().for_each(|one| one.set_nonblocking(true).unwrap());
        group
    }

    fn member(family: AddressFamily, kind: SockType, address: SocketAddr) -> OwnedFd {
        use std::os::fd::AsRawFd;
        let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&made, sockopt::ReusePort, &true).unwrap();
        bind(made.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        made
    }

    /// How many of the connections wait at each of the sockets.
    fn waiting(group: &[TcpListener]) -> Vec<usize> {
        let count = |one: &TcpListener| std::iter::from_fn(|| one.accept().ok()).count();
        group.iter().map(count).collect()
    }

    #[test]
    fn every_new_connection_goes_where_it_is_told() {
        let group = group(AddressFamily::Inet, "127.0.0.1:0");
        let address = group[0].local_addr().unwrap();
        for place in [2, 0, 1] {
            Steering::to(place).attach(group[0].as_fd()).unwrap();
            let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!(waiting(&group)[place as usize], 20);
        }
    }

    #[test]
    fn one_source_is_steered_apart_from_all_others_in_both_families() {
        for (family, at) in [(AddressFamily::Inet, "127.0.0.1:0"), (AddressFamily::Inet6, "[::1]:0")] {
            let group = group(family, at);
            let address = group[0].local_addr().unwrap();
            let mut any = address;
            any.set_port(0);
            let own = member(family, SockType::Stream, any);
            let source: SocketAddr = TcpListener::from(own.try_clone().unwrap()).local_addr().unwrap();
            let steering = Steering::to(1).but(Who::Source(source), 2);
            steering.attach(group[0].as_fd()).unwrap();
            let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
            {
                use std::os::fd::AsRawFd;
                nix::sys::socket::connect(own.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
            }
            assert_eq!(waiting(&group), [0, 20, 1], "{at}");
        }
    }

    #[test]
    fn one_address_is_steered_apart_also_at_a_socket_of_both_families() {
        let group = group(AddressFamily::Inet6, "[::]:0");
        let port = group[0].local_addr().unwrap().port();
        let probe = "127.0.0.254".parse().unwrap();
        Steering::to(0).but(Who::Address(probe), 1).attach(group[0].as_fd()).unwrap();
        let _others = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = member(AddressFamily::Inet, SockType::Stream, SocketAddr::new(probe, 0));
        {
            use std::os::fd::AsRawFd;
            let to: SocketAddr = ([127, 0, 0, 1], port).into();
            nix::sys::socket::connect(own.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
        }
        assert_eq!(waiting(&group), [1, 1, 0]);
    }

    #[test]
    fn a_share_is_about_that_share() {
        let group = group(AddressFamily::Inet, "127.0.0.1:0");
        let address = group[0].local_addr().unwrap();
        for (share, range) in [(0, 0..=0), (30, 10..=50), (100, 100..=100)] {
            Steering::to(0).but(Who::Percent(share), 1).attach(group[0].as_fd()).unwrap();
            let (mut ours, mut theirs) = (0, 0);
            for _ in 0..100 {
                let _client = TcpStream::connect(address).unwrap();
                let found = waiting(&group);
                (ours, theirs) = (ours + found[0], theirs + found[1]);
            }
            assert_eq!(ours + theirs, 100);
            assert!(range.contains(&theirs), "{theirs} for {share}");
        }
    }

    #[test]
    fn an_exception_comes_before_those_that_were_made_earlier() {
        let group = group(AddressFamily::Inet, "127.0.0.1:0");
        let address = group[0].local_addr().unwrap();
        let steering = Steering::to(0).but(Who::Percent(100), 1);
        steering.but(Who::Address("127.0.0.9".parse().unwrap()), 2).attach(group[0].as_fd()).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(waiting(&group), [0, 1, 0]);
        steering.but(Who::Address("127.0.0.1".parse().unwrap()), 2).attach(group[0].as_fd()).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(waiting(&group), [0, 0, 1]);
    }

    #[test]
    fn datagrams_are_steered_too() {
        let first =
            UdpSocket::from(member(AddressFamily::Inet, SockType::Datagram, "127.0.0.1:0".parse().unwrap()));
        let address = first.local_addr().unwrap();
        let second = UdpSocket::from(member(AddressFamily::Inet, SockType::Datagram, address));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for place in [1, 0] {
            Steering::to(place).attach(first.as_fd()).unwrap();
            client.send_to(b"x", address).unwrap();
            let there = if place == 0 { &first } else { &second };
            assert_eq!(there.recv(&mut [0; 8]).unwrap(), 1);
        }
    }

    #[test]
    fn what_has_no_group_cannot_be_steered() {
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Steering::to(0).attach(alone.as_fd()).is_err());
    }
}
