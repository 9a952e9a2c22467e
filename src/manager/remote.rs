//! Managers that are elsewhere: of another host over ssh(1), of a local container. Both are reached as
//! systemctl(1) reaches them, by systemd-stdio-bridge(1), which speaks for their bus on its stdin and stdout.
//!
//! Nothing of a name is read by a shell of ours; ssh(1) gets it behind `--`, so that it is no option.

use std::path::PathBuf;

use zbus::Address;
use zbus::address::transport::{Transport, Unixexec};
use zbus::connection::Builder;

use super::connect::{Bus, CALL_TIMEOUT, Error, Manager, Way};

/// What speaks for a bus.
const BRIDGE: &str = "systemd-stdio-bridge";

impl Manager {
    /// The systemd of another host: `[USER@]HOST[:PORT][/MACHINE]`.
    ///
    /// # Errors
    /// [`Error::NoBridge`], and what [`Manager::connect`] fails with.
    pub async fn on_host(host: &str) -> Result<Self, Error> {
        Self::over("ssh", over_ssh(host), host).await
    }

    /// The systemd of a local container: `[USER@]MACHINE`.
    ///
    /// # Errors
    /// As [`Manager::on_host`].
    pub async fn in_machine(machine: &str) -> Result<Self, Error> {
        Self::over(BRIDGE, vec![format!("--machine={machine}")], machine).await
    }

    async fn over(program: &str, arguments: Vec<String>, place: &str) -> Result<Self, Error> {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let transport = Transport::Unixexec(Unixexec::new(PathBuf::from(program), None, arguments));
        let no_bridge =
            |source| Error::NoBridge { place: place.to_owned(), program: program.to_owned(), source };
        let builder = Builder::address(Address::new(transport)).method_timeout(CALL_TIMEOUT);
        let bus = tokio::time::timeout(CALL_TIMEOUT, builder.build()).await;
        let bus = bus.map_err(|_| Error::NoAnswer { call: "the other systemd" })?.map_err(no_bridge)?;
        let bus = Bus::of(bus).await?;
        bus.proxy().version().await.map_err(no_bridge)?;
        Ok(Self { way: Way::Bus(bus), is_local: false })
    }
}

/// The arguments of ssh(1): those of systemctl.
fn over_ssh(host: &str) -> Vec<String> {
    let (host, machine) = host.split_once('/').map_or((host, None), |(host, machine)| (host, Some(machine)));
    // An address of IPv6 has several colons, or brackets.
    let port = host.rsplit_once(':').filter(|(rest, port)| {
        let numeric = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        numeric && (!rest.contains(':') || rest.ends_with(']'))
    });
    let (host, port) = port.map_or((host, None), |(host, port)| (host, Some(port)));
    let mut arguments = vec!["-xT".to_owned()];
    arguments.extend(port.iter().flat_map(|port| ["-p".to_owned(), (*port).to_owned()]));
    arguments.extend(["--".to_owned(), host.to_owned(), BRIDGE.to_owned()]);
    arguments.extend(machine.map(|machine| format!("--machine={machine}")));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_as_systemctl_reads_it_and_is_never_an_option() {
        let over = |host| over_ssh(host).join(" ");
        assert_eq!(over("root@web1"), "-xT -- root@web1 systemd-stdio-bridge");
        assert_eq!(over("web1:2222"), "-xT -p 2222 -- web1 systemd-stdio-bridge");
        assert_eq!(over("web1/shop"), "-xT -- web1 systemd-stdio-bridge --machine=shop");
        assert_eq!(over("[::1]:22"), "-xT -p 22 -- [::1] systemd-stdio-bridge");
        assert_eq!(over("fe80::1"), "-xT -- fe80::1 systemd-stdio-bridge");
        assert_eq!(over("-oProxyCommand=x"), "-xT -- -oProxyCommand=x systemd-stdio-bridge");
    }
}
