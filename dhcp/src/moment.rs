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
    /// Since the Unix epoch.
    pub(crate) wall: Duration,
}

impl Moment {
    /// When a lease granted now ends, on the forward clock; `None` for never.
    pub(crate) fn end_of(self, lease: LeaseTime) -> Option<Duration> {
        match lease {
            LeaseTime::Seconds(seconds) => Some(self.boot + Duration::from_secs(seconds.into())),
            LeaseTime::Infinite => None,
        }
    }

    /// A time on the forward clock as seconds since the epoch: the nearest, so that a lease ends at one and the same
    /// second whenever that is asked, though the clocks are not read in quite the same instant. What is over by now is
    /// over by that second: who reads it in a moment must not find it still to come.
    pub(crate) fn wall_of(self, boot: Duration) -> u64 {
        match boot.checked_sub(self.boot).filter(|ahead| !ahead.is_zero()) {
            Some(ahead) => self.wall.saturating_add(ahead).saturating_add(Duration::from_millis(500)).as_secs(),
            None => self.wall.saturating_sub(self.boot.saturating_sub(boot)).as_secs(),
        }
    }

    /// The end of a lease as it was stored, on the forward clock: never further away than the lease was long, in case
    /// the wall clock has been set back.
    pub(crate) fn boot_of(self, end: u64, granted: LeaseTime) -> Duration {
        let ahead = Duration::from_secs(end).saturating_sub(self.wall);
        let longest = match granted {
            LeaseTime::Seconds(seconds) => Duration::from_secs(seconds.into()),
            LeaseTime::Infinite => ahead,
        };
        self.boot.saturating_add(ahead.min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_not_live_again_for_who_reads_it_from_disk_a_moment_later() {
        let now = Moment { boot: Duration::from_secs(777), wall: Duration::new(1_800_000_000, 700_000_000) };
        let later = Moment { boot: now.boot + Duration::from_millis(1), wall: now.wall + Duration::from_millis(1) };
        for ended in [now.boot, now.boot - Duration::from_millis(100), now.boot - Duration::from_secs(5)] {
            let stored = now.wall_of(ended);
            assert!(later.boot_of(stored, LeaseTime::Seconds(3600)) <= later.boot, "{ended:?}");
        }
    }

    #[test]
    fn a_lease_ends_at_one_second_whenever_that_is_asked() {
        let granted = LeaseTime::Seconds(3600);
        for start in [0, 1, 400_000_000, 499_000_000, 501_000_000, 999_999_999] {
            let at = |past: Duration| Moment {
                boot: Duration::from_millis(777_700) + past,
                wall: Duration::new(1_800_000_000, start) + past,
            };
            let now = at(Duration::ZERO);
            let ends = now.end_of(granted).expect("an end");
            let stored = now.wall_of(ends);
            for past in (0..10).map(|n| Duration::from_millis(n * 137)) {
                assert_eq!(at(past).wall_of(ends), stored);
                // After a restart, from what was stored.
                let restored = at(past).boot_of(stored, granted);
                assert_eq!(at(past + Duration::from_micros(3)).wall_of(restored), stored);
            }
        }
    }
}
