//! From the guest's transmit queue into the tap.
//!
//! Each frame goes out by one write straight from guest memory. Finished buffers are shown and the guest interrupted
//! once per burst. A frame the tap refuses is dropped: interface down (EIO), a header that makes no sense (EINVAL), no
//! memory; and so is any while the NIC's link is down.

use std::io;
use std::sync::Arc;

use super::BURST;
use super::nic::{Count, Nic};
use crate::net::{HEADER, Tap};
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::throttle::Throttle;
use crate::virtio::worker::Served;

pub(super) struct Transmit {
    queue: VirtQueue,
    nic: Arc<Nic>,
    tap: Arc<Tap>,
    frame: Buffers,
    throttle: Throttle,
    count: Count,
}

impl Transmit {
    pub(super) fn new(queue: VirtQueue, nic: Arc<Nic>, tap: Arc<Tap>) -> io::Result<Self> {
        let throttle = Throttle::new(nic.limits()[1].clone())?;
        Ok(Self { frame: queue.buffers(), queue, nic, tap, throttle, count: Count::default() })
    }

    fn send(&mut self, link_up: bool) {
        let bytes = self.frame.bytes();
        if bytes <= HEADER || !link_up {
            self.count.dropped += 1;
            return;
        }
        while let Err(error) = self.tap.send(&self.frame) {
            if error.kind() != io::ErrorKind::Interrupted {
                tracing::trace!(tap = self.tap.name(), %error, bytes, "dropped a frame");
                self.count.dropped += 1;
                return;
            }
        }
        self.count.frames += 1;
        self.count.bytes += (bytes - HEADER) as u64;
    }
}

impl Served for Transmit {
    fn burst(&mut self) -> Result<bool, QueueError> {
        self.queue.disable_kicks()?;
        let (mut more, link_up) = (true, self.nic.is_link_up());
        for _ in 0..BURST {
            if !self.throttle.may_pass() {
                // No kicks either: the timer is what it waits for.
                more = false;
                break;
            }
            self.frame.clear();
            if let Some(chain) = self.queue.pop_readable(&mut self.frame)? {
                self.throttle.passed(self.frame.bytes() as u64);
                self.send(link_up);
                self.queue.put(chain.head, 0)?;
            } else if !self.queue.enable_kicks()? {
                more = false;
                break;
            } else {
                self.queue.disable_kicks()?;
            }
        }
        self.nic.sent.add(&mut self.count);
        self.queue.publish()?;
        self.queue.interrupt()?;
        Ok(more)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }

    fn throttle(&self) -> Option<&Throttle> {
        Some(&self.throttle)
    }
}
