//! From the guest's transmit queue into the tap.
//!
//! Each frame goes out by one write straight from guest memory. Finished buffers are shown and the guest interrupted
//! once per burst. A frame the tap refuses is dropped: link down (EIO), a header that makes no sense (EINVAL), no
//! memory.

use std::io;
use std::sync::Arc;

use super::BURST;
use crate::net::{HEADER, Tap};
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::Served;

pub(super) struct Transmit {
    queue: VirtQueue,
    tap: Arc<Tap>,
    frame: Buffers,
}

impl Transmit {
    pub(super) fn new(queue: VirtQueue, tap: Arc<Tap>) -> Self {
        Self { frame: queue.buffers(), queue, tap }
    }

    fn send(&self) {
        if self.frame.bytes() <= HEADER {
            return;
        }
        while let Err(error) = self.tap.send(&self.frame) {
            if error.kind() != io::ErrorKind::Interrupted {
                tracing::trace!(tap = self.tap.name(), %error, bytes = self.frame.bytes(), "dropped a frame");
                return;
            }
        }
    }
}

impl Served for Transmit {
    fn burst(&mut self) -> Result<bool, QueueError> {
        self.queue.disable_kicks()?;
        let mut more = true;
        for _ in 0..BURST {
            self.frame.clear();
            if let Some(chain) = self.queue.pop_readable(&mut self.frame)? {
                self.send();
                self.queue.put(chain.head, 0)?;
            } else if !self.queue.enable_kicks()? {
                more = false;
                break;
            } else {
                self.queue.disable_kicks()?;
            }
        }
        self.queue.publish()?;
        self.queue.interrupt()?;
        Ok(more)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }
}
