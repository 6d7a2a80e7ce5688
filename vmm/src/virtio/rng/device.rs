//! EDGE: answers requests for random bytes, which getrandom gives.

use nix::errno::Errno;

use super::{BURST, MOST};
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::Served;

pub(super) struct Device {
    queue: VirtQueue,
    room: Buffers,
    bytes: [u8; MOST],
}

impl Device {
    pub(super) fn new(queue: VirtQueue) -> Self {
        Self { room: queue.buffers(), queue, bytes: [0; MOST] }
    }
}

impl Served for Device {
    fn burst(&mut self) -> Result<bool, QueueError> {
        self.queue.disable_kicks()?;
        let mut more = true;
        for _ in 0..BURST {
            self.room.clear();
            if let Some(chain) = self.queue.pop_writable(&mut self.room)? {
                let wanted = self.room.bytes().min(MOST);
                let got = random(&mut self.bytes[..wanted]);
                self.room.write_at(0, &self.bytes[..got]);
                self.queue.put(chain.head, got as u32)?;
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

/// Fills `bytes`; answers how many it got: all, unless the kernel has no getrandom.
fn random(bytes: &mut [u8]) -> usize {
    let mut got = 0;
    while got < bytes.len() {
        let rest = &mut bytes[got..];
        // SAFETY: the pointer and length are those of a slice borrowed exclusively for the call.
        match usize::try_from(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }) {
            Ok(more) => got += more,
            Err(_) if Errno::last() == Errno::EINTR => {}
            Err(_) => {
                tracing::error!(error = %Errno::last(), "the host gives no random bytes");
                break;
            }
        }
    }
    got
}
