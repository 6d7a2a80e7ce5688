//! Log lines in bounds: so many in a while, the rest counted. Reads no clock.

use std::time::Duration;

/// Lets `burst` lines through per `window`.
#[derive(Debug)]
pub(crate) struct Limit {
    burst: u32,
    window: Duration,
    since: Option<Duration>,
    passed: u32,
    held_back: u64,
}

impl Limit {
    pub(crate) const fn new(burst: u32, window: Duration) -> Self {
        Limit { burst, window, since: None, passed: 0, held_back: 0 }
    }

    /// Whether a line may go out at `now`, a time on any clock that goes forward; if so, how many were held back before
    /// it.
    pub(crate) fn pass(&mut self, now: Duration) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_sub(since) >= self.window) {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed < self.burst {
            self.passed += 1;
            return Some(std::mem::take(&mut self.held_back));
        }
        self.held_back += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Limit;

    #[test]
    fn lines_beyond_the_burst_are_counted_and_told_with_the_next() {
        let mut limit = Limit::new(2, Duration::from_secs(10));
        let at = Duration::from_secs;
        assert_eq!(limit.pass(at(0)), Some(0));
        assert_eq!(limit.pass(at(1)), Some(0));
        assert_eq!(limit.pass(at(2)), None);
        assert_eq!(limit.pass(at(9)), None);
        assert_eq!(limit.pass(at(10)), Some(2));
        assert_eq!(limit.pass(at(11)), Some(0));
    }
}
