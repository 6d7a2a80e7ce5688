//! The network device (virtio 1.2 §5.1) over tap queues.
//!
//! Queues 2N and 2N+1 are the receive and transmit queue of pair N, which has tap queue N and a thread of its own;
//! behind them the control queue, served by the first thread. Of a frame nothing is looked at but the address a received
//! one is for: who may send what is decided on the bridge.

mod control;
mod features;
mod filter;
mod nic;
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

use self::control::Control;
use self::worker::Pair;
use super::worker::Worker;
use super::{Activation, DeviceConfig, VirtioDevice, VirtioError};
use crate::net::{Tap, TapError};
pub(crate) use nic::{Count, Nic};
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
    config: Arc<DeviceConfig>,
    nic: Arc<Nic>,
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
        let taps: Arc<[_]> = taps.into_iter().map(Arc::new).collect();
        let config = DeviceConfig::new(config_bytes(mac, taps.len(), mtu));
        let nic = Arc::new(Nic::new(config.clone(), mac));
        Ok(Self { first: 0, taps, config, nic, workers: Vec::new() })
    }

    /// The part that can be changed and looked at while the NIC runs.
    pub(crate) fn nic(&self) -> Arc<Nic> {
        self.nic.clone()
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
        features::offered(self.taps.len(), self.taps[0].takes_uso())
    }

    fn accepts(&self, features: u64) -> bool {
        features::consistent(features)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![RING; 2 * self.taps.len()];
        sizes.push(CONTROL_RING);
        sizes
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { features, mut queues } = activation;
        self.taps[0].set_offloads(features::offloads(features)).map_err(io::Error::other)?;
        // Until the driver asks for more, one pair is in use (§5.1.5).
        attach_pairs(&self.taps, 1).map_err(io::Error::other)?;
        self.nic.set_announces(features::announces(features));
        let usable = if features::multi_queue(features) { self.taps.len() } else { 1 };
        // It stands behind the pairs that were negotiated, not behind those there are (§5.1.2).
        let control = queues.get_mut(2 * usable).filter(|_| features::control(features));
        let mut control = control.and_then(Option::take);
        let mut queues = queues.into_iter();
        for (i, tap) in self.taps.iter().enumerate().take(usable) {
            let (receive, transmit) = (queues.next().flatten(), queues.next().flatten());
            let name = self.thread_name(i);
            let mut pair = Pair::new(name.clone(), &self.nic, tap, features::mergeable(features), receive, transmit)?;
            if let Some(queue) = control.take() {
                pair.add_control(Control::new(queue, self.nic.clone(), self.taps.clone(), features))?;
            }
            self.workers.push(Worker::start(&name, move |exit| pair.run(&exit))?);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.workers.clear();
        self.nic.reset();
    }
}

/// `struct virtio_net_config` (§5.1.4) as far as the features we offer reach: MAC, status, pairs, MTU.
fn config_bytes(mac: [u8; 6], pairs: usize, mtu: u16) -> Vec<u8> {
    let mut config = mac.to_vec();
    config.extend((VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    config.extend((pairs as u16).to_le_bytes());
    config.extend(mtu.to_le_bytes());
    config
}

/// Lets the first `pairs` tap queues take part, and no others.
fn attach_pairs(taps: &[Arc<Tap>], pairs: usize) -> Result<(), TapError> {
    taps.iter().enumerate().try_for_each(|(i, tap)| tap.set_attached(i < pairs))
}
