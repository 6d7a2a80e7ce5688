//! The socket device (virtio 1.2 §5.10): streams between programs in the guest and unix sockets of the host.
//!
//! The mapping is the one Firecracker documents, so that its users' tools work. A program of the host connects to the
//! device's socket, writes `CONNECT PORT\n` and gets `OK HOSTPORT\n` once somebody in the guest has accepted; from then on
//! it talks to that. A program in the guest that connects to the host's port N gets whoever listens on the unix socket
//! `PATH_N`.

mod connection;
mod credit;
mod device;
mod packet;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use self::device::Device;
use super::worker::Worker;
use super::{Activation, DeviceConfig, VirtioDevice};
use crate::sandbox::Role;

/// Entries of each queue.
const RING: u16 = 256;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 256;

/// A socket device.
pub struct Vsock {
    cid: u32,
    /// Where the host's programs connect to, and what the names of the guest's destinations begin with.
    listener: Arc<UnixListener>,
    path: PathBuf,
    config: Arc<DeviceConfig>,
    worker: Option<Worker>,
}

impl Vsock {
    /// A device for the guest with address `cid`; `listener` is non-blocking and bound to `path`. Its thread is `vsock0`.
    pub fn new(cid: u32, listener: UnixListener, path: PathBuf) -> Self {
        let config = DeviceConfig::new(u64::from(cid).to_le_bytes().to_vec());
        Self { cid, listener: Arc::new(listener), path, config, worker: None }
    }
}

impl VirtioDevice for Vsock {
    fn name(&self) -> String {
        "vsock0".to_owned()
    }

    fn device_type(&self) -> u16 {
        19
    }

    /// Communication controller, other.
    fn class(&self) -> u32 {
        0x07_80_00
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    /// Receive, transmit, events.
    fn queue_sizes(&self) -> Vec<u16> {
        vec![RING; 3]
    }

    fn config(&self) -> Arc<DeviceConfig> {
        self.config.clone()
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut queues = activation.queues.into_iter();
        // The third queue is for one event, a move to another host, which does not happen.
        let (Some(receive), Some(transmit)) = (queues.next().flatten(), queues.next().flatten()) else {
            return Ok(());
        };
        let name = self.name();
        let (listener, path) = (self.listener.clone(), self.path.clone());
        let device = Device::new(name.clone(), u64::from(self.cid), receive, transmit, listener, path)?;
        self.worker = Some(Worker::start_as(Role::Sockets, &name, move |exit| device.run(&exit))?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
