//! Token buckets: how much a device may move in a second, in bytes and in operations.
//!
//! Pure, with time passed in. A bucket may be overdrawn by one operation, however large: what comes next waits until it
//! is even again. So large frames pass slow limits, and on average no more passes than allowed.

use std::time::Duration;

/// What a bucket holds at most, as time: how much may pass at once after a rest.
const DEPTH: Duration = Duration::from_millis(20);

/// How much of something may pass in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    per_second: f64,
    /// What may pass now; below zero: overdrawn.
    tokens: f64,
    /// When `tokens` was true.
    at: Duration,
}

impl Bucket {
    fn new(per_second: u64, now: Duration) -> Self {
        let per_second = per_second as f64;
        Self { per_second, tokens: per_second * DEPTH.as_secs_f64(), at: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * DEPTH.as_secs_f64());
        self.at = now;
    }

    /// How long until it is not overdrawn.
    fn wait(&self) -> Duration {
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        let seconds = -self.tokens / self.per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Limits of one device in a second; none where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) bytes: Option<u64>,
    pub(crate) operations: Option<u64>,
}

/// The buckets of one device or one of its directions.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    rates: Rates,
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Buckets {
    /// Full buckets of these rates; a rate of 0 is none.
    pub(super) fn new(rates: Rates, now: Duration) -> Self {
        let bucket = |rate: Option<u64>| rate.filter(|rate| *rate > 0).map(|rate| Bucket::new(rate, now));
        Self { rates, bytes: bucket(rates.bytes), operations: bucket(rates.operations) }
    }

    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// How long the next operation has to wait.
    pub(super) fn wait(&mut self, now: Duration) -> Duration {
        let buckets = [&mut self.bytes, &mut self.operations].into_iter().flatten();
        let waits = buckets.map(|bucket| {
            bucket.fill(now);
            bucket.wait()
        });
        waits.max().unwrap_or_default()
    }

    /// One operation passed, of so many bytes.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.tokens -= bytes as f64;
        }
        if let Some(bucket) = &mut self.operations {
            bucket.tokens -= 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and operations that pass in so many seconds, an operation of `size` being there whenever one may pass.
    fn passed(rates: Rates, size: u64, seconds: u64) -> (u64, u64) {
        let (start, mut operations) = (Duration::from_secs(1000), 0);
        let mut buckets = Buckets::new(rates, start);
        let mut now = start;
        while now < start + Duration::from_secs(seconds) {
            let wait = buckets.wait(now);
            if wait.is_zero() {
                buckets.spend(size);
                operations += 1;
            } else {
                now += wait.max(Duration::from_nanos(1));
            }
        }
        (operations * size, operations)
    }

    fn is_about(value: u64, expected: u64) -> bool {
        (value as f64 / expected as f64 - 1.0).abs() < 0.03
    }

    #[test]
    fn on_average_no_more_passes_than_allowed_and_no_less() {
        for (rate, size) in [(1_000_000, 64), (1_000_000, 1500), (125_000_000, 65_000), (3000, 65_000)] {
            let rates = Rates { bytes: Some(rate), operations: None };
            let (bytes, _) = passed(rates, size, 1000.max(rate / rate));
            assert!(is_about(bytes, rate * 1000), "{rate} in pieces of {size}: {bytes}");
        }
        let rates = Rates { bytes: Some(u64::MAX), operations: Some(500) };
        assert!(is_about(passed(rates, 1 << 20, 20).1, 10_000));
    }

    #[test]
    fn a_rest_saves_up_no_more_than_the_depth() {
        let rates = Rates { bytes: Some(1000), operations: None };
        let mut buckets = Buckets::new(rates, Duration::ZERO);
        let later = Duration::from_secs(3600);
        assert_eq!(buckets.wait(later), Duration::ZERO);
        buckets.spend(1020);
        assert_eq!(buckets.wait(later), Duration::from_secs(1));
        assert_eq!(buckets.wait(later + Duration::from_micros(999_750)), Duration::from_micros(250));
        // A clock that goes back gives nothing away.
        assert_eq!(buckets.wait(Duration::ZERO), Duration::from_micros(250));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        for rates in [Rates::default(), Rates { bytes: Some(0), operations: None }] {
            let mut buckets = Buckets::new(rates, Duration::ZERO);
            buckets.spend(u64::MAX);
            assert_eq!(buckets.wait(Duration::ZERO), Duration::ZERO);
        }
    }
}
