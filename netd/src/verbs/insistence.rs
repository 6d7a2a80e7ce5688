//! How often a setting of the whole host is put right that another program turns off. Pure; `now`, the time since some
//! moment, is passed in.
//!
//! ```text
//! calm ── off ──► put right ── off again within a minute ──► yield for 1, 2, 4 … 60 minutes ──► put right …
//!   ▲                 └── on for a minute ──► calm
//!   └─────────────────────────────────────────┘
//! ```
//!
//! Forwarding belongs to the host, not to a network. Once turned off, it is most likely a program that writes all its
//! sysctls anew and knows nothing of networks: it is turned on again. Whoever turns it off a second time means it, and
//! wins: a fight would help nobody, and a host that must not route must be able to say so without stopping netd.

use std::time::Duration;

/// Off again within this time after it was put right is no accident.
const WINDOW: Duration = Duration::from_secs(60);

/// The longest time to yield.
const LONGEST: Duration = Duration::from_secs(3600);

/// What to do about a setting that is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Turn it on.
    PutRight,
    /// Leave it; for so long, if this is the first time that is said.
    Yield(Option<Duration>),
}

/// What is remembered of one setting.
#[derive(Debug, Default)]
pub(super) struct Insistence {
    put_right: Option<Duration>,
    yielding_until: Option<Duration>,
    yielded: u32,
}

impl Insistence {
    /// The setting was found off.
    pub(super) fn off(&mut self, now: Duration) -> Answer {
        if self.yielding_until.is_some_and(|until| now < until) {
            return Answer::Yield(None);
        }
        let was_yielding = self.yielding_until.take().is_some();
        match self.put_right {
            Some(before) if !was_yielding && now.saturating_sub(before) < WINDOW => {
                let pause = WINDOW.saturating_mul(1 << self.yielded.min(6)).min(LONGEST);
                self.yielded += 1;
                self.yielding_until = Some(now + pause);
                Answer::Yield(Some(pause))
            }
            _ => {
                if !was_yielding {
                    self.yielded = 0;
                }
                self.put_right = Some(now);
                Answer::PutRight
            }
        }
    }

    /// Whether [`Insistence::off`] would put it right.
    pub(super) fn would_put_right(&self, now: Duration) -> bool {
        self.yielding_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begun: Duration, seconds: u64) -> Duration {
        begun + Duration::from_secs(seconds)
    }

    #[test]
    fn once_is_put_right_and_twice_within_a_minute_is_meant() {
        let begun = Duration::from_secs(7);
        let mut forwarding = Insistence::default();
        assert_eq!(forwarding.off(begun), Answer::PutRight);
        assert_eq!(forwarding.off(after(begun, 59)), Answer::Yield(Some(Duration::from_secs(60))));
        assert_eq!(forwarding.off(after(begun, 60)), Answer::Yield(None));
        assert!(!forwarding.would_put_right(after(begun, 118)) && forwarding.would_put_right(after(begun, 119)));
    }

    #[test]
    fn who_keeps_at_it_is_asked_less_and_less_often() {
        let mut now = Duration::from_secs(7);
        let mut forwarding = Insistence::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(forwarding.off(now), Answer::PutRight);
            let Answer::Yield(Some(pause)) = forwarding.off(after(now, 1)) else { panic!("no fight") };
            pauses.push(pause.as_secs() / 60);
            now = after(now, 1) + pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn after_a_quiet_minute_it_is_an_accident_again() {
        let begun = Duration::from_secs(7);
        let mut forwarding = Insistence::default();
        for hour in 0..3 {
            assert_eq!(forwarding.off(after(begun, hour * 3600)), Answer::PutRight);
        }
    }
}
