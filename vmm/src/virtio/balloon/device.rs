//! EDGE: the balloon's thread: gives pages back to the host (madvise), and keeps the guest's statistics.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::stats::{LONGEST, parse};
use super::{BURST, PAGE, Pump};
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::{Served, Waker, work};

const EXIT: u64 = 0;
const ASK: u64 = 1;
/// The first queue's token; the others follow.
const FIRST_QUEUE: u64 = 2;

/// Page numbers taken from one request at a time.
const CHUNK: usize = 256;

pub(super) struct Device {
    name: String,
    pump: Arc<Pump>,
    waker: Waker,
    inflate: Option<Inflate>,
    deflate: Option<Deflate>,
    stats: Option<Statistics>,
    reports: Option<Reports>,
}

impl Device {
    pub(super) fn new(name: String, pump: Arc<Pump>, queues: [Option<VirtQueue>; 4]) -> io::Result<Self> {
        let waker = Waker::new()?;
        for (token, queue) in (FIRST_QUEUE..).zip(&queues) {
            queue.as_ref().map_or(Ok(()), |queue| waker.watch(queue.kick(), token))?;
        }
        waker.watch(&pump.ask, ASK)?;
        let [inflate, deflate, stats, reports] = queues;
        let (asked, buffers) = (pump.clone(), |queue: &VirtQueue| queue.buffers());
        Ok(Self {
            name,
            pump,
            waker,
            inflate: inflate.map(|queue| Inflate { numbers: buffers(&queue), pages: buffers(&queue), queue }),
            deflate: deflate.map(|queue| Deflate { numbers: buffers(&queue), queue }),
            stats: stats.map(|queue| Statistics { report: buffers(&queue), queue, pump: asked, held: None }),
            reports: reports.map(|queue| Reports { pages: buffers(&queue), queue }),
        })
    }

    /// Runs until `exit` is written.
    pub(super) fn run(mut self, exit: &EventFd) {
        if let Err(error) = self.serve(exit) {
            tracing::error!(device = self.name, %error, "the balloon's thread cannot wait for events; it ends");
        }
    }

    fn serve(&mut self, exit: &EventFd) -> io::Result<()> {
        self.waker.watch(exit, EXIT)?;
        // The driver may have filled the queues, and kicked, before we were there.
        let mut left = [true; 4];
        loop {
            left = [
                left[0] && work(&mut self.inflate, &self.name),
                left[1] && work(&mut self.deflate, &self.name),
                left[2] && work(&mut self.stats, &self.name),
                left[3] && work(&mut self.reports, &self.name),
            ];
            for token in self.waker.wait(left.contains(&true))? {
                match token {
                    EXIT => return Ok(()),
                    ASK => {
                        // Read, so that a ring that came while nobody could be asked is not answered later.
                        let _ = self.pump.ask.read();
                        if let Some(stats) = &mut self.stats
                            && let Err(error) = stats.ask()
                        {
                            stats.queue.broken(&self.name, &error);
                            self.stats = None;
                        }
                    }
                    queue => {
                        if let Some(left) = left.get_mut((queue - FIRST_QUEUE) as usize) {
                            *left = true;
                        }
                    }
                }
            }
        }
    }
}

/// Pages the guest gives away, by number.
struct Inflate {
    queue: VirtQueue,
    numbers: Buffers,
    pages: Buffers,
}

impl Inflate {
    /// Gives back every page named in `numbers`; neighbours together.
    fn carry_out(&mut self) {
        let mut offset = 0;
        let mut bytes = [0; 4 * CHUNK];
        while offset < self.numbers.bytes() {
            let len = (self.numbers.bytes() - offset).min(bytes.len());
            self.numbers.read_at(offset, &mut bytes[..len]);
            offset += len;
            let numbers = bytes[..len].as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number));
            for (first, count) in runs(numbers) {
                self.pages.clear();
                // What is not memory is not given away: the guest's own loss.
                if self.pages.push(u64::from(first) * PAGE, count * PAGE as u32).is_ok() {
                    discard(&self.pages);
                }
            }
        }
    }
}

/// Rising neighbours as first number and count.
fn runs(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, count)) if first.checked_add(*count) == Some(number) => *count += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}

impl Served for Inflate {
    fn burst(&mut self) -> Result<bool, QueueError> {
        for _ in 0..BURST {
            self.numbers.clear();
            match self.queue.pop_readable(&mut self.numbers)? {
                Some(chain) => {
                    self.carry_out();
                    self.queue.put(chain.head, 0)?;
                }
                None => return done(&mut self.queue),
            }
        }
        tell(&mut self.queue).map(|()| true)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }
}

/// Pages the guest takes back: they are there.
struct Deflate {
    queue: VirtQueue,
    numbers: Buffers,
}

impl Served for Deflate {
    fn burst(&mut self) -> Result<bool, QueueError> {
        for _ in 0..BURST {
            self.numbers.clear();
            match self.queue.pop_readable(&mut self.numbers)? {
                Some(chain) => self.queue.put(chain.head, 0)?,
                None => return done(&mut self.queue),
            }
        }
        tell(&mut self.queue).map(|()| true)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }
}

/// Pages that are free in the guest while the request is with us.
struct Reports {
    queue: VirtQueue,
    pages: Buffers,
}

impl Served for Reports {
    fn burst(&mut self) -> Result<bool, QueueError> {
        for _ in 0..BURST {
            self.pages.clear();
            match self.queue.pop_writable(&mut self.pages)? {
                Some(chain) => {
                    discard(&self.pages);
                    self.queue.put(chain.head, 0)?;
                }
                None => return done(&mut self.queue),
            }
        }
        tell(&mut self.queue).map(|()| true)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }
}

/// Statistics: the driver hands over a report, and writes a new one when it gets that back.
struct Statistics {
    queue: VirtQueue,
    report: Buffers,
    pump: Arc<Pump>,
    /// The report we have, by its chain.
    held: Option<u16>,
}

impl Statistics {
    /// Gives the report back, which asks for the next.
    fn ask(&mut self) -> Result<(), QueueError> {
        let Some(head) = self.held.take() else { return Ok(()) };
        self.queue.put(head, 0)?;
        tell(&mut self.queue)
    }
}

impl Served for Statistics {
    fn burst(&mut self) -> Result<bool, QueueError> {
        for _ in 0..BURST {
            self.report.clear();
            let Some(chain) = self.queue.pop_readable(&mut self.report)? else { return done(&mut self.queue) };
            let mut bytes = [0; LONGEST];
            let bytes = &mut bytes[..self.report.bytes().min(LONGEST)];
            self.report.read_at(0, bytes);
            self.pump.answer(parse(bytes));
            // A driver has one report; one that hands over more gets the earlier ones back.
            if let Some(earlier) = self.held.replace(chain.head) {
                self.queue.put(earlier, 0)?;
            }
        }
        tell(&mut self.queue).map(|()| true)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }
}

/// Shows the driver what is finished.
fn tell(queue: &mut VirtQueue) -> Result<(), QueueError> {
    queue.publish()?;
    queue.interrupt()
}

/// The same when there is nothing left to do, having asked to be kicked; true if something came meanwhile.
fn done(queue: &mut VirtQueue) -> Result<bool, QueueError> {
    tell(queue)?;
    queue.enable_kicks()
}

/// Gives the whole pages in `buffers` back to the host; they read as zeros from then on.
fn discard(buffers: &Buffers) {
    for piece in buffers.as_iovecs() {
        let start = (piece.iov_base as usize).next_multiple_of(PAGE as usize);
        let end = (piece.iov_base as usize + piece.iov_len) & !(PAGE as usize - 1);
        if start >= end {
            continue;
        }
        // SAFETY: the range lies in a piece, so in guest memory that `buffers` keeps mapped: private anonymous memory, of
        // which no references exist and whose contents the guest may change at any time anyway.
        let result = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        if result != 0 {
            // Nothing but memory is lost, and it is the same for every page.
            tracing::debug!(error = %io::Error::last_os_error(), "the host does not take pages back");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn neighbours_are_given_back_together() {
        assert_eq!(
            runs([5, 6, 7, 9, 8, 8, u32::MAX, 0].into_iter()),
            [(5, 3), (9, 1), (8, 1), (8, 1), (u32::MAX, 1), (0, 1)]
        );
        assert_eq!(runs([].into_iter()), []);
    }
}
