//! The watchdog: the manager kills a service that does not say in time that it lives.

use std::ffi::OsStr;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::notify::message::Message;
use crate::notify::notifier::Notifier;

/// The manager's wish to hear from this process, as sd_watchdog_enabled(3) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// The longest silence that the manager bears.
    timeout: Duration,
}

/// Why the manager's wish cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchdogError {
    /// `WATCHDOG_USEC` is no time.
    #[error(
        "wanted microseconds above 0 in WATCHDOG_USEC, found {found:?}: pass on the manager's value unchanged"
    )]
    Usec {
        /// The value.
        found: String,
    },
    /// `WATCHDOG_PID` is no process.
    #[error("wanted a process id in WATCHDOG_PID, found {found:?}: pass on the manager's value, or none")]
    Pid {
        /// The value.
        found: String,
    },
}

impl Watchdog {
    /// What the environment asks of this process; `None` if nothing. It is only read.
    ///
    /// # Errors
    /// [`WatchdogError`] for values that sd_watchdog_enabled(3) refuses.
    pub fn from_env() -> Result<Option<Self>, WatchdogError> {
        let [usec, pid] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(std::env::var_os);
        Self::from_values(usec.as_deref(), pid.as_deref(), std::process::id())
    }

    /// What the values of `WATCHDOG_USEC` and `WATCHDOG_PID` ask of the process `own_pid`: nothing
    /// without the first, nothing if the second is somebody else.
    ///
    /// # Errors
    /// [`WatchdogError`] for values that sd_watchdog_enabled(3) refuses.
    pub fn from_values(
        usec: Option<&OsStr>,
        pid: Option<&OsStr>,
        own_pid: u32,
    ) -> Result<Option<Self>, WatchdogError> {
        let Some(usec) = usec else { return Ok(None) };
        let found = |value: &OsStr| value.to_string_lossy().into_owned();
        // The greatest value is systemd's "infinity", which is no timeout.
        let timeout =
            usec.to_str().and_then(|usec| usec.parse().ok()).filter(|usec| (1..u64::MAX).contains(usec));
        let Some(timeout) = timeout else { return Err(WatchdogError::Usec { found: found(usec) }) };
        if let Some(pid) = pid {
            let wanted = pid.to_str().and_then(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid > 0);
            let Some(wanted) = wanted else { return Err(WatchdogError::Pid { found: found(pid) }) };
            if wanted != own_pid {
                return Ok(None);
            }
        }
        Ok(Some(Self { timeout: Duration::from_micros(timeout) }))
    }

    /// The longest silence that the manager bears: `WatchdogSec=` of the unit.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How often to speak: half of the timeout, as sd_watchdog_enabled(3) recommends, and never 0.
    pub fn interval(&self) -> Duration {
        (self.timeout / 2).max(Duration::from_micros(1))
    }

    /// Tells the manager again and again that this process lives, at once and then every
    /// [`interval`](Self::interval), until it is dropped.
    ///
    /// It runs where it is awaited: a runtime that is stuck says nothing, which is the point. After a
    /// delay it does not make up for what it missed. A message that the manager has no room for is
    /// given up when the next one is due. Without a manager there is nobody to tell, and it waits.
    pub async fn feed(&self, notifier: &Notifier) -> ! {
        let mut ticks = tokio::time::interval(self.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let alive = Message::alive();
        loop {
            ticks.tick().await;
            if let Err(error) = notifier.notify(&alive, self.interval()).await {
                tracing::debug!(%error, "the watchdog was not fed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fake_manager::FakeManager;

    const OWN_PID: u32 = 42;

    fn read(usec: Option<&str>, pid: Option<&str>) -> Result<Option<Duration>, WatchdogError> {
        let watchdog = Watchdog::from_values(usec.map(OsStr::new), pid.map(OsStr::new), OWN_PID)?;
        Ok(watchdog.map(|watchdog| watchdog.timeout()))
    }

    #[test]
    fn the_wish_is_for_the_process_that_is_named_or_for_any() {
        let timeout = Some(Duration::from_micros(1500));
        assert_eq!(read(Some("1500"), Some("42")), Ok(timeout));
        assert_eq!(read(Some("1500"), None), Ok(timeout));
        assert_eq!(read(Some("1500"), Some("43")), Ok(None));
        assert_eq!(read(None, Some("42")), Ok(None));
    }

    #[test]
    fn what_libsystemd_refuses_is_refused() {
        for found in ["", "0", "-1", "2s", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(read(Some(found), None), Err(WatchdogError::Usec { found: found.into() }));
        }
        for found in ["", "0", "-42", "me"] {
            assert_eq!(read(Some("1500"), Some(found)), Err(WatchdogError::Pid { found: found.into() }));
        }
    }

    #[test]
    fn the_shortest_timeout_still_has_an_interval() {
        let watchdog = Watchdog { timeout: Duration::from_micros(1) };
        assert_eq!(watchdog.interval(), Duration::from_micros(1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_fed_at_once_and_then_at_half_of_the_timeout_until_dropped() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        let watchdog = Watchdog { timeout: Duration::from_secs(10) };
        let fed_for = Duration::from_millis(25_001);
        let ended = tokio::time::timeout(fed_for, watchdog.feed(&notifier)).await;
        assert!(ended.is_err());
        let fed = std::iter::from_fn(|| manager.try_receive()).map(|(text, _)| text);
        assert_eq!(fed.collect::<Vec<_>>(), ["WATCHDOG=1"; 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_with_no_room_is_told_again_when_there_is_some() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        manager.fill(&notifier);
        let watchdog = Watchdog { timeout: Duration::from_secs(10) };
        let mut feeding = std::pin::pin!(watchdog.feed(&notifier));
        assert!(tokio::time::timeout(Duration::from_secs(12), &mut feeding).await.is_err());
        while let Some((text, _)) = manager.try_receive() {
            assert_eq!(text, "READY=1");
        }
        assert!(tokio::time::timeout(Duration::from_secs(12), &mut feeding).await.is_err());
        assert_eq!(manager.receive().0, "WATCHDOG=1");
    }
}
