//! The network device (virtio 1.2 §5.1) over tap queues.
//!
//! Queues 2N and 2N+1 are the receive and transmit queue of pair N, which has tap queue N and a thread of its own;
//! behind them, with more than one pair, the control queue, served by the first thread. Frames are moved, never looked
//! at: who may send what is decided on the bridge.

mod control;
mod features;
mod receive;
mod request;
#[cfg(test)]
mod tests;
mod transmit;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use self::worker::Pair;
use super::worker::Worker;
use super::{Activation, VirtioDevice, VirtioError};
use crate::net::{Tap, TapError};
#[cfg(test)]
pub(super) use tests::over_a_socket;

/// Frames moved in one direction before the other direction gets its turn, and the guest an interrupt.
const BURST: usize = 64;

/// Entries of receive and transmit queues, and of the control queue.
const RING: u16 = 1024;
const CONTROL_RING: u16 = 64;

/// A NIC.
pub struct Net {
    first: usize,
    /// One per queue pair.
    taps: Arc<[Arc<Tap>]>,
    mac: [u8; 6],
    mtu: u16,
    workers: Vec<Worker>,
}

impl Net {
    /// A NIC with one queue pair per tap queue. Each must have been opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`,
    /// and `IFF_MULTI_QUEUE` if there are several. `mac` is the guest's address, `mtu` bytes of Ethernet payload.
    pub fn new(taps: Vec<OwnedFd>, mac: [u8; 6], mtu: u16) -> Result<Self, VirtioError> {
        let taps = taps.into_iter().map(Tap::new).collect::<Result<Vec<_>, _>>()?;
        Self::over(taps, mac, mtu)
    }

    /// The number of this NIC's first thread, for its name: `net0` by default. Pair N's thread is `net(first + N)`.
    pub fn numbered(self, first: usize) -> Self {
        Self { first, ..self }
    }

    fn over(taps: Vec<Tap>, mac: [u8; 6], mtu: u16) -> Result<Self, VirtioError> {
        if taps.is_empty() {
            return Err(VirtioError::NoTap);
        }
        if mtu < 68 {
            return Err(VirtioError::Mtu(mtu));
        }
        Ok(Self { first: 0, taps: taps.into_iter().map(Arc::new).collect(), mac, mtu, workers: Vec::new() })
    }

    fn thread_name(&self, pair: usize) -> String {
        format!("net{}", self.first + pair)
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> String {
        self.thread_name(0)
    }

    fn device_type(&self) -> u16 {
        1
    }

    fn class(&self) -> u32 {
        0x02_00_00
    }

    fn features(&self) -> u64 {
        features::offered(self.taps.len())
    }

    fn accepts(&self, features: u64) -> bool {
        features::consistent(features)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![RING; 2 * self.taps.len()];
        if self.taps.len() > 1 {
            sizes.push(CONTROL_RING);
        }
        sizes
    }

    /// `struct virtio_net_config` (§5.1.4) as far as the features we offer reach: MAC, status, pairs, MTU.
    fn config(&self) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        config.extend((VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        config.extend((self.taps.len() as u16).to_le_bytes());
        config.extend(self.mtu.to_le_bytes());
        config
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { features, mut queues } = activation;
        self.taps[0].set_offloads(features::offloads(features)).map_err(io::Error::other)?;
        // Until the driver asks for more, one pair is in use (§5.1.5).
        attach_pairs(&self.taps, 1).map_err(io::Error::other)?;
        let control = if features::multi_queue(features) { queues.get_mut(2 * self.taps.len()) } else { None };
        let mut control = control.and_then(Option::take);
        let usable = if features::multi_queue(features) { self.taps.len() } else { 1 };
        let mut queues = queues.into_iter();
        for (i, tap) in self.taps.iter().enumerate().take(usable) {
            let (receive, transmit) = (queues.next().flatten(), queues.next().flatten());
            let name = self.thread_name(i);
            let mut pair = Pair::new(name.clone(), tap, features::mergeable(features), receive, transmit)?;
            if let Some(queue) = control.take() {
                pair.add_control(queue, self.taps.clone())?;
            }
            self.workers.push(Worker::start(&name, move |exit| pair.run(&exit))?);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.workers.clear();
    }
}

/// Lets the first `pairs` tap queues take part, and no others.
fn attach_pairs(taps: &[Arc<Tap>], pairs: usize) -> Result<(), TapError> {
    taps.iter().enumerate().try_for_each(|(i, tap)| tap.set_attached(i < pairs))
}
