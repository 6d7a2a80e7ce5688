//! The memory balloon (virtio 1.2 §5.5): takes memory from a guest and gives it back, is told of memory that is free
//! anyway (free page reporting), and asks the guest how it uses the rest.
//!
//! What the guest gives away returns to the host at once and reads as zeros should the guest touch it again. So nothing
//! has to be done when it takes something back.

mod device;
mod stats;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::EventFd;

use self::device::Device;
pub(crate) use self::stats::Stats;
use super::worker::Worker;
use super::{Activation, DeviceConfig, VirtioDevice, VirtioError};
use crate::pci::lock;

/// Feature bits (§5.5.3): a queue for statistics, the driver may take pages back when it runs out of memory, free pages
/// are reported.
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

/// Bytes of a page as the balloon counts them, whatever the guest's pages are (§5.5.6).
pub(crate) const PAGE: u64 = 4096;

/// Entries of each queue.
const RING: u16 = 128;

/// Requests carried out before another queue gets its turn.
const BURST: usize = 16;

/// Where the numbers of pages are in the configuration: what the balloon is to hold, and what it holds.
const CONFIG_WANTED: usize = 0;
const CONFIG_ACTUAL: usize = 4;

/// A balloon.
pub struct Balloon {
    pump: Arc<Pump>,
    worker: Option<Worker>,
}

/// The part that can be changed and looked at while the guest runs.
pub(crate) struct Pump {
    config: Arc<DeviceConfig>,
    /// Rung to have the guest asked for statistics.
    ask: EventFd,
    answers: Mutex<Answers>,
    answered: Condvar,
}

/// What the guest answered.
#[derive(Default)]
struct Answers {
    count: u64,
    last: Option<Stats>,
    /// A driver is there that would answer.
    open: bool,
}

impl Balloon {
    /// An empty balloon; its thread is `balloon0`.
    pub fn new() -> Result<Self, VirtioError> {
        let ask = EventFd::new(libc::EFD_NONBLOCK).map_err(VirtioError::EventFd)?;
        let config = DeviceConfig::with_writable(vec![0; 8], CONFIG_ACTUAL..8);
        let pump = Pump { config, ask, answers: Mutex::default(), answered: Condvar::new() };
        Ok(Self { pump: Arc::new(pump), worker: None })
    }

    /// The part that can be changed.
    pub(crate) fn pump(&self) -> Arc<Pump> {
        self.pump.clone()
    }
}

impl Pump {
    /// Has the balloon hold so many bytes; a guest without a driver never will.
    pub(crate) fn set_wanted(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.config.set(CONFIG_WANTED, &pages.to_le_bytes());
    }

    /// Bytes the balloon is to hold, and what the guest says it holds.
    pub(crate) fn wanted_and_actual(&self) -> (u64, u64) {
        let bytes = |at| {
            let mut pages = [0; 4];
            self.config.read(at, &mut pages);
            u64::from(u32::from_le_bytes(pages)) * PAGE
        };
        (bytes(CONFIG_WANTED), bytes(CONFIG_ACTUAL))
    }

    /// Asks the guest how it uses its memory and waits so long for its answer. What it said before if it says nothing;
    /// `None` if it never said anything.
    pub(crate) fn ask_stats(&self, patience: Duration) -> Option<Stats> {
        let answers = lock(&self.answers);
        if answers.open {
            let before = answers.count;
            // Fails only with a full counter, and then it rings already.
            let _ = self.ask.write(1);
            let waiting = |answers: &mut Answers| answers.open && answers.count == before;
            let waited = self.answered.wait_timeout_while(answers, patience, waiting);
            return waited.unwrap_or_else(PoisonError::into_inner).0.last;
        }
        answers.last
    }

    fn answer(&self, stats: Stats) {
        let mut answers = lock(&self.answers);
        answers.count += 1;
        answers.last = Some(stats);
        self.answered.notify_all();
    }

    fn set_open(&self, open: bool) {
        let mut answers = lock(&self.answers);
        answers.open = open;
        if !open {
            answers.last = None;
        }
        self.answered.notify_all();
    }
}

impl VirtioDevice for Balloon {
    fn name(&self) -> String {
        "balloon0".to_owned()
    }

    fn device_type(&self) -> u16 {
        5
    }

    /// "Does not fit any class".
    fn class(&self) -> u32 {
        0xff_00_00
    }

    fn features(&self) -> u64 {
        STATS_VQ | DEFLATE_ON_OOM | REPORTING | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    /// Inflate, deflate, statistics, reports.
    fn queue_sizes(&self) -> Vec<u16> {
        vec![RING; 4]
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.pump.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { features, queues } = activation;
        let mut queues = queues.into_iter();
        let (inflate, deflate) = (queues.next().flatten(), queues.next().flatten());
        // A queue that was not negotiated has no number: those behind it move up.
        let mut negotiated = |feature| if features & feature == 0 { None } else { queues.next().flatten() };
        let (stats, reports) = (negotiated(STATS_VQ), negotiated(REPORTING));
        let name = self.name();
        let open = stats.is_some();
        let device = Device::new(name.clone(), self.pump.clone(), [inflate, deflate, stats, reports])?;
        self.worker = Some(Worker::start(&name, move |exit| device.run(&exit))?);
        self.pump.set_open(open);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
        self.pump.set_open(false);
        self.pump.config.set_as_asked(CONFIG_ACTUAL, &[0; 4]);
    }
}
