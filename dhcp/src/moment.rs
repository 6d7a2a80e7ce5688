//! A moment, as the clock that only goes forward and the clock on the wall tell it. Values only: nothing here reads one.
//!
//! Leases in memory end by the first, so that a clock set by hand or by NTP ends none of them; leases on disk end by
//! the second, because the first starts anew with the machine.

use std::time::Duration;

use crate::config::LeaseTime;

/// Now, as it is handed to everything that needs the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Since the machine started, suspended or not.
    pub(crate) boot: Duration,
    /// Seconds since the Unix epoch.
    pub(crate) wall: u64,
}

impl Moment {
    /// When a lease granted now ends, on the forward clock; `None` for never.
    pub(crate) fn end_of(self, lease: LeaseTime) -> Option<Duration> {
        match lease {
            LeaseTime::Seconds(seconds) => Some(self.boot + Duration::from_secs(seconds.into())),
            LeaseTime::Infinite => None,
        }
    }

    /// A time on the forward clock as seconds since the epoch.
    pub(crate) fn wall_of(self, boot: Duration) -> u64 {
        match boot.checked_sub(self.boot) {
            Some(ahead) => self.wall.saturating_add(ahead.as_secs()),
            None => self.wall.saturating_sub((self.boot - boot).as_secs()),
        }
    }

    /// The end of a lease as it was stored, on the forward clock: never further away than the lease was long, in case
    /// the wall clock has been set back.
    pub(crate) fn boot_of(self, end: u64, granted: LeaseTime) -> Duration {
        let ahead = Duration::from_secs(end.saturating_sub(self.wall));
        let longest = match granted {
            LeaseTime::Seconds(seconds) => Duration::from_secs(seconds.into()),
            LeaseTime::Infinite => ahead,
        };
        self.boot.saturating_add(ahead.min(longest))
    }
}
