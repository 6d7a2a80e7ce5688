//! EDGE: holds a queue back for its device's limits: the clock, and a timer that wakes the queue's thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::limit::{Buckets, Rates};
use crate::pci::lock;

/// A queue that is held back looks this often whether the limits were changed.
const LOOK: Duration = Duration::from_millis(50);

/// The limits of a device, or of one of its directions, shared by its queues.
#[derive(Debug)]
pub(crate) struct Limiter {
    on: AtomicBool,
    buckets: Mutex<Buckets>,
    begun: Instant,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { on: AtomicBool::new(false), buckets: Mutex::default(), begun: Instant::now() }
    }
}

impl Limiter {
    /// From now on so much.
    pub(crate) fn set(&self, rates: Rates) {
        let mut buckets = lock(&self.buckets);
        *buckets = Buckets::new(rates, self.begun.elapsed());
        self.on.store(rates != Rates::default(), Ordering::Release);
    }

    pub(crate) fn rates(&self) -> Rates {
        lock(&self.buckets).rates()
    }
}

/// One queue's view of a limiter.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Arc<Limiter>,
    timer: TimerFd,
}

impl Throttle {
    pub(super) fn new(limiter: Arc<Limiter>) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { limiter, timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)? })
    }

    /// Whether the next operation may pass. If not the timer is set, and whoever watches it asks again.
    pub(super) fn may_pass(&self) -> bool {
        if !self.limiter.on.load(Ordering::Acquire) {
            return true;
        }
        let wait = lock(&self.limiter.buckets).wait(self.limiter.begun.elapsed());
        if wait.is_zero() {
            return true;
        }
        let at = Expiration::OneShot(TimeSpec::from_duration(wait.min(LOOK)));
        // A timer that cannot be set must not stop the queue for ever: better too much than nothing.
        self.timer.set(at, TimerSetTimeFlags::empty()).is_err()
    }

    /// One operation passed.
    pub(super) fn passed(&self, bytes: u64) {
        if self.limiter.on.load(Ordering::Relaxed) {
            lock(&self.limiter.buckets).spend(bytes);
        }
    }
}

impl AsRawFd for Throttle {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}
