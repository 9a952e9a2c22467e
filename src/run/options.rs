//! What a runner is told: the program, and how its generations come and go.

use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::machine::{Limits, OnBusy};

/// How generations follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The new one serves before the old one leaves.
    Overlap,
    /// The old one is stopped first, and clients wait: for programs with a state of their own that two
    /// of them cannot share.
    Serial,
}

/// What happens to an upgrade when every slot is taken by a generation that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It waits.
    Wait,
    /// The oldest generation is killed.
    KillOldest,
    /// It is refused.
    Refuse,
}

/// How to find out through the real port whether a new generation serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It accepts a connection.
    Tcp,
    /// It answers a GET for this path with a status of 200 to 399.
    Http(String),
    /// This shell command ends well.
    Exec(String),
}

/// See the fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// See there.
    pub strategy: Strategy,
    /// Only READY=1 makes a generation ready, not that it waits on its sockets.
    pub notify: bool,
    /// See there.
    pub probe: Option<Probe>,
    /// A share of a hundred of the new connections that a new generation gets at first, and for how long.
    pub canary: Option<(u8, Duration)>,
    /// How long a generation may take until it serves.
    pub ready: Duration,
    /// How long a new generation must go on, ready, before it gets clients from the old one.
    pub settle: Duration,
    /// How long an old generation may drain.
    pub drain: Duration,
    /// Connections of an old generation that rest for so long after an answer find their end; `None`: none do.
    pub idle: Option<Duration>,
    /// The signal at which the program stops; `None` for the usual one of such a program.
    pub stop_signal: Option<Signal>,
    /// How long it may take after that.
    pub stop: Duration,
    /// An old generation gets its signal at once.
    pub signal_first: bool,
    /// See there.
    pub on_busy: Busy,
    /// How many slots to make where no `.socket` unit has any.
    pub slots: usize,
}

impl Options {
    /// The usual ways for this program.
    pub fn new(command: Vec<OsString>) -> Self {
        Self {
            command,
            strategy: Strategy::Overlap,
            notify: false,
            probe: None,
            canary: None,
            ready: Duration::from_secs(30),
            settle: Duration::from_millis(100),
            drain: Duration::from_secs(60),
            idle: None,
            stop_signal: None,
            stop: Duration::from_secs(10),
            signal_first: false,
            on_busy: Busy::Wait,
            slots: 3,
        }
    }

    /// The signal at which the program stops.
    pub(super) fn signal(&self) -> Signal {
        let name = self.command.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
        self.stop_signal
            .unwrap_or_else(|| usual_signal(name.unwrap_or_default().to_str().unwrap_or_default()))
    }

    /// Whether nobody is let in while no generation is ready: where there can be one at a time only, and it can
    /// be known when it is.
    pub(super) fn shuts_doors(&self) -> bool {
        self.strategy == Strategy::Serial && (self.notify || self.probe.is_some())
    }

    /// What the machine goes by. `width` generations have slots of their own; if anything is `shared`,
    /// an old one must not wait until nothing new comes.
    pub(super) fn limits(&self, width: usize, shared: bool) -> Limits {
        Limits {
            slots: width,
            ready: self.ready,
            settle: self.settle,
            drain: self.drain,
            stop: self.stop,
            // As long as a client may take for its part of a handshake, give or take a lost packet.
            linger: Duration::from_secs(1),
            probe: self.probe.is_some(),
            canary: self.canary,
            on_busy: match self.on_busy {
                Busy::Wait => OnBusy::Wait,
                Busy::KillOldest => OnBusy::KillOldest,
                Busy::Refuse => OnBusy::Refuse,
            },
            signal_first: self.signal_first || shared,
            serial: self.strategy == Strategy::Serial,
        }
    }
}

/// The signal at which a program of this name finishes what it does; SIGTERM for all others, which gunicorn,
/// uvicorn, puma, caddy, traefik, redis and most take so.
fn usual_signal(name: &str) -> Signal {
    match name {
        // Their SIGTERM cuts requests off; that of uwsgi means a reload.
        "nginx" | "openresty" | "angie" | "unicorn" | "unicorn_rails" | "starman" | "hypnotoad" | "uwsgi" => {
            Signal::SIGQUIT
        }
        // Debian has the version in the name.
        fpm if fpm.starts_with("php-fpm") => Signal::SIGQUIT,
        "lighttpd" => Signal::SIGINT,
        "haproxy" | "memcached" => Signal::SIGUSR1,
        "apache2" | "httpd" => Signal::SIGWINCH,
        _ => Signal::SIGTERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_signal_that_fits_it_unless_told_otherwise() {
        let signal = |path: &str| Options::new(vec![path.into()]).signal();
        for (program, usual) in [
            ("/usr/sbin/nginx", Signal::SIGQUIT),
            ("/usr/sbin/php-fpm8.4", Signal::SIGQUIT),
            ("php-fpm", Signal::SIGQUIT),
            ("/usr/bin/unicorn", Signal::SIGQUIT),
            ("/usr/bin/uwsgi", Signal::SIGQUIT),
            ("/usr/sbin/lighttpd", Signal::SIGINT),
            ("haproxy", Signal::SIGUSR1),
            ("/usr/bin/memcached", Signal::SIGUSR1),
            ("/usr/sbin/apache2", Signal::SIGWINCH),
            ("httpd", Signal::SIGWINCH),
            ("/usr/bin/gunicorn", Signal::SIGTERM),
            ("redis-server", Signal::SIGTERM),
            ("/usr/bin/python3", Signal::SIGTERM),
            ("", Signal::SIGTERM),
        ] {
            assert_eq!(signal(program), usual, "{program}");
        }
        let told = Options { stop_signal: Some(Signal::SIGINT), ..Options::new(vec!["nginx".into()]) };
        assert_eq!(told.signal(), Signal::SIGINT);
    }
}
