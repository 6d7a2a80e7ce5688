//! The control queue (virtio 1.2 §5.1.6.5): what the driver wants to receive, its address, how many queue pairs and which
//! offloads it uses.

use std::sync::Arc;

use virtio_bindings::bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

use super::nic::Nic;
use super::request::{self, Command, Mode};
use super::{BURST, attach_pairs, features};
use crate::net::Tap;
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::Served;

pub(super) struct Control {
    queue: VirtQueue,
    nic: Arc<Nic>,
    taps: Arc<[Arc<Tap>]>,
    /// What was negotiated.
    features: u64,
    command: Buffers,
    answer: Buffers,
}

impl Control {
    pub(super) fn new(queue: VirtQueue, nic: Arc<Nic>, taps: Arc<[Arc<Tap>]>, features: u64) -> Self {
        Self { command: queue.buffers(), answer: queue.buffers(), queue, nic, taps, features }
    }

    fn carry_out(&self) -> bool {
        let mut bytes = [0; request::LONGEST];
        let length = self.command.bytes();
        let bytes = &mut bytes[..length.min(request::LONGEST)];
        if !self.command.read_at(0, bytes) {
            return false;
        }
        let pairs = if features::multi_queue(self.features) { self.taps.len() } else { 1 };
        let Some(command) = request::parse(bytes, length, pairs) else { return false };
        if !features::allows(self.features, &command) {
            return false;
        }
        match command {
            Command::Receive(mode, on) => self.nic.change_filter(|filter| {
                *match mode {
                    Mode::Promiscuous => &mut filter.promiscuous,
                    Mode::AllMulticast => &mut filter.all_multicast,
                    Mode::AllUnicast => &mut filter.all_unicast,
                    Mode::NoMulticast => &mut filter.no_multicast,
                    Mode::NoUnicast => &mut filter.no_unicast,
                    Mode::NoBroadcast => &mut filter.no_broadcast,
                } = on;
            }),
            Command::Tables(unicast, multicast) => {
                self.nic.change_filter(|filter| filter.set_tables(unicast, multicast));
            }
            Command::Mac(mac) => self.nic.set_mac(mac),
            Command::Announced => self.nic.announced(),
            Command::Pairs(pairs) => return told("the number of queue pairs", attach_pairs(&self.taps, pairs)),
            Command::Offloads(offloads) => {
                return told("offloads", self.taps[0].set_offloads(features::offloads(offloads)));
            }
        }
        true
    }
}

/// Whether it worked; why not is for the log.
fn told(what: &str, result: Result<(), crate::net::TapError>) -> bool {
    result.inspect_err(|error| tracing::warn!(%error, "cannot change {what} of a NIC")).is_ok()
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
