//! The control queue: how many queue pairs the driver uses (virtio 1.2 §5.1.6.5.6).

use std::sync::Arc;

use virtio_bindings::bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use super::request::{self, Command};
use super::{BURST, attach_pairs};
use crate::net::Tap;
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::Served;

pub(super) struct Control {
    queue: VirtQueue,
    taps: Arc<[Arc<Tap>]>,
    command: Buffers,
    answer: Buffers,
}

impl Control {
    pub(super) fn new(queue: VirtQueue, taps: Arc<[Arc<Tap>]>) -> Self {
        Self { command: queue.buffers(), answer: queue.buffers(), queue, taps }
    }

    fn carry_out(&self) -> bool {
        let mut bytes = [0; request::LONGEST];
        let Some(bytes) = bytes.get_mut(..self.command.bytes()) else { return false };
        if !self.command.read_at(0, bytes) {
            return false;
        }
        match request::parse(bytes, self.taps.len()) {
            Some(Command::Pairs(pairs)) => match attach_pairs(&self.taps, pairs) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(pairs, %error, "cannot change the number of queue pairs");
                    false
                }
            },
            None => false,
        }
    }
}

impl Served for Control {
    fn burst(&mut self) -> Result<bool, QueueError> {
        let mut more = true;
        for _ in 0..BURST {
            self.command.clear();
            self.answer.clear();
            if let Some(chain) = self.queue.pop(&mut self.command, &mut self.answer)? {
                let ok = self.carry_out();
                let ack = if ok { VIRTIO_NET_OK } else { VIRTIO_NET_ERR } as u8;
                if !self.answer.write_at(0, &[ack]) {
                    return Err(QueueError::Shape { head: chain.head });
                }
                self.queue.put(chain.head, 1)?;
            } else if !self.queue.enable_kicks()? {
                more = false;
                break;
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
