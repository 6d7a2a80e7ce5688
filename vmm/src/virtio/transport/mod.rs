//! EDGE (event descriptors): virtio over PCI (virtio 1.2 §4.1), modern only.
//!
//! One function, one BAR, MSI-X, a doorbell per queue. A vCPU's access arrives through [`PciFunction`], is a register
//! access in one of the BAR's regions, and may start or stop the device. All of that happens under one lock, stopping
//! included: a vCPU that resets the device waits for its workers. Workers never take this lock; they raise interrupts
//! through [`Interrupts`].
//!
//! ```text
//!            status 0 ◄──────────────── write 0 ─────────────────┐
//!   power-on ──► features ──FEATURES_OK──► queues ──DRIVER_OK──► running ──broken queue──► needs reset
//! ```
//!
//! Starting fails (bad ring addresses, no bus mastering, a worker that can't start): the device needs a reset, and says
//! why once. Bus mastering taken away while running stops the device in the same way, since a function without it must
//! not touch memory; a kernel about to kexec relies on that.

mod common;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use self::common::{CommonRegisters, Effect, Elsewhere};
use super::interrupts::Interrupts;
use super::queue::VirtQueue;
use super::{Activation, BAR_SIZE, DeviceConfig, VirtioDevice, VirtioError};
use crate::pci::msix::{CONTROL_ENABLE, CONTROL_FUNCTION_MASK, Doorbells, MsiRoutes};
use crate::pci::{BarKind, COMMAND_BUS_MASTER, COMMAND_MEMORY, ConfigSpace, Identity, PciFunction, lock};

#[cfg(test)]
pub(crate) use common::reg;

/// The BAR's regions, 8 KiB each but the last two. Doorbell N is at `NOTIFY + N * NOTIFY_MULTIPLIER`.
mod region {
    pub(super) const COMMON: u64 = 0;
    pub(super) const ISR: u64 = 0x2000;
    pub(super) const DEVICE: u64 = 0x4000;
    pub(super) const NOTIFY: u64 = 0x6000;
    pub(super) const MSIX_TABLE: u64 = 0x8000;
    pub(super) const MSIX_PENDING: u64 = 0x4_0000;
}
const NOTIFY_MULTIPLIER: u64 = 4;
/// So many doorbells fit their region, and so many vectors theirs.
const MAX_QUEUES: usize = ((region::MSIX_TABLE - region::NOTIFY) / NOTIFY_MULTIPLIER) as usize - 1;

const VENDOR_VIRTIO: u16 = 0x1af4;
/// Device id of a modern device: this plus the device type (§4.1.2.1).
const DEVICE_ID_BASE: u16 = 0x1040;
/// Subsystem id of a modern device: 0x40 or more (§4.1.2.1).
const SUBSYSTEM_ID: u16 = 0x1100;

/// Capability ids (PCI) and configuration types (§4.1.4).
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;
/// Where, in a vendor capability, the window of the PCI configuration access is (§4.1.4.9).
const PCI_CFG_WINDOW: u16 = 16;

/// A virtio device behind PCI registers.
pub struct VirtioPci {
    state: Mutex<State>,
}

struct State {
    interrupts: Arc<Interrupts>,
    device: Box<dyn VirtioDevice>,
    /// For messages: the device's own name for itself.
    name: String,
    device_config: Arc<DeviceConfig>,
    config: ConfigSpace,
    power_on: ConfigSpace,
    msix_cap: u16,
    pci_cfg_cap: u16,
    common: CommonRegisters,
    memory: GuestMemoryMmap<()>,
    doorbells: Arc<dyn Doorbells>,
    kicks: Vec<EventFd>,
    running: bool,
    /// Where the doorbells are registered, if they are.
    bound_at: Option<u64>,
    shut_down: bool,
}

impl VirtioPci {
    /// Puts `device` behind a PCI function whose BAR stands at `bar` (a multiple of [`BAR_SIZE`]) after power-on.
    #[allow(clippy::new_ret_no_self, reason = "the bus takes functions behind a pointer; nobody needs the type")]
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap<()>,
        routes: Arc<dyn MsiRoutes>,
        doorbells: Arc<dyn Doorbells>,
        bar: u64,
    ) -> Result<Arc<dyn PciFunction>, VirtioError> {
        if !bar.is_multiple_of(BAR_SIZE) {
            return Err(VirtioError::BarAddress(bar));
        }
        let sizes = device.queue_sizes();
        if sizes.len() > MAX_QUEUES {
            return Err(VirtioError::Queues(sizes.len()));
        }
        let kick = || EventFd::new(libc::EFD_NONBLOCK).map_err(VirtioError::EventFd);
        let kicks = sizes.iter().map(|_| kick()).collect::<Result<Vec<_>, _>>()?;
        let features = device.features() | 1 << VIRTIO_F_VERSION_1;
        let device_config = device.config();
        let (config, msix_cap, pci_cfg_cap) = config_space(&*device, sizes.len(), device_config.len(), bar);
        let interrupts = Arc::new(Interrupts::new(sizes.len(), routes));
        device_config.connect(&interrupts);
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                interrupts,
                name: device.name(),
                device,
                device_config,
                power_on: config.clone(),
                config,
                msix_cap,
                pci_cfg_cap,
                common: CommonRegisters::new(features, &sizes),
                memory,
                doorbells,
                kicks,
                running: false,
                bound_at: None,
                shut_down: false,
            }),
        }))
    }
}

/// Configuration space with all capabilities, and the offsets of two that do something.
fn config_space(device: &dyn VirtioDevice, queues: usize, config_len: usize, bar: u64) -> (ConfigSpace, u16, u16) {
    let mut config = ConfigSpace::new(Identity {
        vendor: VENDOR_VIRTIO,
        device: DEVICE_ID_BASE + device.device_type(),
        revision: 1,
        class: device.class(),
        subsystem_vendor: VENDOR_VIRTIO,
        subsystem: SUBSYSTEM_ID,
    });
    config.add_bar(0, BarKind::Memory64, BAR_SIZE, bar);
    // struct virtio_pci_cap without its first two bytes: length, type, BAR, id, padding, offset, length (§4.1.4).
    let cap = |kind, offset: u64, len: u64, tail: &[u8]| {
        let mut body = vec![16 + tail.len() as u8, kind, 0, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        body.extend(tail);
        body
    };
    config.add_capability(CAP_VENDOR, &cap(CFG_COMMON, region::COMMON, common::reg::SIZE as u64, &[]), &[]);
    config.add_capability(CAP_VENDOR, &cap(CFG_ISR, region::ISR, 1, &[]), &[]);
    if config_len > 0 {
        config.add_capability(CAP_VENDOR, &cap(CFG_DEVICE, region::DEVICE, config_len as u64, &[]), &[]);
    }
    let (multiplier, notify_len) = (NOTIFY_MULTIPLIER as u32, NOTIFY_MULTIPLIER * queues as u64);
    config.add_capability(CAP_VENDOR, &cap(CFG_NOTIFY, region::NOTIFY, notify_len, &multiplier.to_le_bytes()), &[]);
    // BAR, offset, length and the window are the driver's to write.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let pci_cfg = config.add_capability(CAP_VENDOR, &cap(CFG_PCI, 0, 0, &[0; 4]), &writable);
    // A vector per queue and one for the configuration; the field is the table size minus one.
    let mut body = (queues as u16).to_le_bytes().to_vec();
    body.extend((region::MSIX_TABLE as u32).to_le_bytes());
    body.extend((region::MSIX_PENDING as u32).to_le_bytes());
    let control = (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes();
    let msix = config.add_capability(CAP_MSIX, &body, &control);
    (config, u16::from(msix), u16::from(pci_cfg))
}

impl PciFunction for VirtioPci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let mut state = lock(&self.state);
        let window = state.pci_cfg_cap + PCI_CFG_WINDOW;
        if (window..window + 4).contains(&offset)
            && let Some((at, len)) = state.pci_cfg_target()
        {
            let mut value = [0; 4];
            state.bar_read(at, &mut value[..len]);
            state.config.write(window, &value);
        }
        state.config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = lock(&self.state);
        state.config.write(offset, data);
        let window = state.pci_cfg_cap + PCI_CFG_WINDOW;
        if offset == window {
            if let Some((at, len)) = state.pci_cfg_target() {
                let mut value = [0; 4];
                state.config.read(window, &mut value);
                state.bar_write(at, &value[..len]);
            }
            return;
        }
        let control = state.msix_cap + 2;
        if offset < control + 2 && usize::from(offset) + data.len() > usize::from(control) {
            let mut value = [0; 2];
            state.config.read(control, &mut value);
            state.interrupts.msix.set_control(u16::from_le_bytes(value));
        }
        if state.running && state.config.command() & COMMAND_BUS_MASTER == 0 {
            tracing::debug!(device = state.name, "the guest took bus mastering away from a running device; it stops");
            state.stop();
            state.interrupts.needs_reset();
        }
        state.bind_doorbells();
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        let mut state = lock(&self.state);
        let Some(offset) = state.bar_offset(address) else { return false };
        state.bar_read(offset, data);
        true
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let Some(offset) = state.bar_offset(address) else { return false };
        state.bar_write(offset, data);
        true
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.reset();
        state.interrupts.msix.reset();
        state.config = state.power_on.clone();
    }

    fn shutdown(&self) {
        let mut state = lock(&self.state);
        state.reset();
        state.interrupts.msix.reset();
        state.shut_down = true;
    }
}

impl State {
    /// `address` relative to the BAR, if the BAR is decoded and the address in it.
    fn bar_offset(&self, address: u64) -> Option<u64> {
        let decoded = self.config.command() & COMMAND_MEMORY != 0;
        address.checked_sub(self.config.bar(0)).filter(|offset| decoded && *offset < BAR_SIZE)
    }

    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            region::COMMON..region::ISR => {
                let queue_vector = self.interrupts.queue_vector(self.common.selected_queue());
                let needs_reset = self.interrupts.is_reset_needed();
                let elsewhere = Elsewhere {
                    config_vector: self.interrupts.config_vector(),
                    queue_vector,
                    needs_reset,
                    generation: self.device_config.generation(),
                };
                self.common.read(offset, data, elsewhere);
            }
            region::ISR => {
                data.fill(0);
                if let Some(first) = data.first_mut() {
                    *first = self.interrupts.take_isr();
                }
            }
            region::DEVICE..region::NOTIFY => {
                self.device_config.read((offset - region::DEVICE) as usize, data);
            }
            region::MSIX_TABLE..region::MSIX_PENDING => {
                self.interrupts.msix.read_table(offset - region::MSIX_TABLE, data);
            }
            region::MSIX_PENDING.. => self.interrupts.msix.read_pending(offset - region::MSIX_PENDING, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            region::COMMON..region::ISR => match self.common.write(offset, data) {
                Effect::None => {}
                Effect::Reset => self.reset(),
                Effect::ProposeFeatures => self.propose_features(),
                Effect::Start => self.start(),
                Effect::ConfigVector(vector) => self.interrupts.set_config_vector(vector),
                Effect::QueueVector(queue, vector) => self.interrupts.set_queue_vector(queue, vector),
            },
            region::DEVICE..region::NOTIFY => {
                self.device_config.driver_writes((offset - region::DEVICE) as usize, data);
            }
            region::NOTIFY..region::MSIX_TABLE => {
                // Usually the kernel takes these (ioeventfd); they come here if it can't, or through PCI_CFG.
                let queue = ((offset - region::NOTIFY) / NOTIFY_MULTIPLIER) as usize;
                if let Some(kick) = self.kicks.get(queue).filter(|_| self.running) {
                    let _ = kick.write(1); // fails only with a full counter: the worker has been told often enough
                }
            }
            region::MSIX_TABLE..region::MSIX_PENDING => {
                self.interrupts.msix.write_table(offset - region::MSIX_TABLE, data);
            }
            _ => {}
        }
    }

    /// What the PCI configuration access capability points at, if that is a legal access to our BAR.
    fn pci_cfg_target(&self) -> Option<(u64, usize)> {
        let mut raw = [0; 16];
        self.config.read(self.pci_cfg_cap, &mut raw);
        let [.., bar, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = raw;
        let (offset, len) = (u32::from_le_bytes([o0, o1, o2, o3]), u32::from_le_bytes([l0, l1, l2, l3]));
        let legal = bar == 0 && matches!(len, 1 | 2 | 4) && offset % len == 0 && u64::from(offset) < BAR_SIZE;
        legal.then_some((u64::from(offset), len as usize))
    }

    fn propose_features(&mut self) {
        let wanted = self.common.driver_features();
        let offered = self.device.features() | 1 << VIRTIO_F_VERSION_1;
        if wanted & !offered != 0 || wanted & 1 << VIRTIO_F_VERSION_1 == 0 || !self.device.accepts(wanted) {
            if self.interrupts.may_complain(&self.name) {
                let device = &self.name;
                tracing::warn!(
                    device,
                    "refused features {wanted:#x}: not all of {offered:#x}, or some without others they need"
                );
            }
            return;
        }
        self.common.accept_features();
    }

    fn start(&mut self) {
        if self.running || self.shut_down || self.interrupts.is_reset_needed() {
            return;
        }
        match self.try_start() {
            Ok(()) => {
                self.running = true;
                self.interrupts.set_driver_ready(true);
                self.bind_doorbells();
            }
            Err(error) => {
                if self.interrupts.may_complain(&self.name) {
                    tracing::warn!(device = self.name, %error, "cannot start a virtio device; it needs a reset");
                }
                self.device.reset();
                self.interrupts.needs_reset();
            }
        }
    }

    fn try_start(&mut self) -> Result<(), StartError> {
        if self.config.command() & COMMAND_BUS_MASTER == 0 {
            return Err(StartError::NoBusMaster);
        }
        let features = self.common.driver_features();
        let mut queues = Vec::with_capacity(self.kicks.len());
        for (index, (setup, kick)) in (0u16..).zip(self.common.queues().iter().zip(&self.kicks)) {
            if !setup.enabled {
                queues.push(None);
                continue;
            }
            let rings = |error| StartError::Rings { queue: index, error };
            let mut queue = Queue::new(setup.max_size).map_err(rings)?;
            queue.try_set_size(setup.size).map_err(rings)?;
            queue.try_set_desc_table_address(GuestAddress(setup.descriptors)).map_err(rings)?;
            queue.try_set_avail_ring_address(GuestAddress(setup.available)).map_err(rings)?;
            queue.try_set_used_ring_address(GuestAddress(setup.used)).map_err(rings)?;
            queue.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            queue.set_ready(true);
            if !queue.is_valid(&self.memory) {
                return Err(StartError::OutsideMemory { queue: index });
            }
            let kick = kick.try_clone().map_err(StartError::Worker)?;
            queues.push(Some(VirtQueue::new(index, queue, self.memory.clone(), kick, self.interrupts.clone())));
        }
        self.device.activate(Activation { features, queues }).map_err(StartError::Worker)
    }

    /// Stops the workers; the registers stay as they are.
    fn stop(&mut self) {
        self.interrupts.set_driver_ready(false);
        self.device.reset();
        self.running = false;
        self.bind_doorbells();
    }

    fn reset(&mut self) {
        self.stop();
        self.interrupts.reset();
        self.common.reset();
    }

    /// Makes the registered doorbells agree with where the BAR is and whether anybody listens. If the kernel can't take
    /// them, doorbells arrive as ordinary writes: slower, and said once per attempt.
    fn bind_doorbells(&mut self) {
        let decoded = self.config.command() & COMMAND_MEMORY != 0;
        let wanted = (self.running && decoded).then(|| self.config.bar(0));
        if wanted == self.bound_at {
            return;
        }
        if let Some(bar) = self.bound_at.take() {
            for (kick, address) in self.kicks.iter().zip(doorbell_addresses(bar)) {
                if let Err(error) = self.doorbells.unregister(kick, address)
                    && self.interrupts.may_complain(&self.name)
                {
                    tracing::warn!(device = self.name, address, %error, "cannot take back a doorbell");
                }
            }
        }
        let Some(bar) = wanted else { return };
        for (i, (kick, address)) in self.kicks.iter().zip(doorbell_addresses(bar)).enumerate() {
            if let Err(error) = self.doorbells.register(kick, address) {
                if self.interrupts.may_complain(&self.name) {
                    tracing::warn!(device = self.name, address, %error, "cannot register a doorbell; kicks will be slow");
                }
                for (kick, address) in self.kicks.iter().zip(doorbell_addresses(bar)).take(i) {
                    let _ = self.doorbells.unregister(kick, address); // best effort: they came from `register` just now
                }
                return;
            }
        }
        self.bound_at = wanted;
    }
}

/// Wraps around like the address bus: a guest may put the BAR anywhere.
fn doorbell_addresses(bar: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |queue: u64| bar.wrapping_add(region::NOTIFY + queue * NOTIFY_MULTIPLIER))
}

/// Why DRIVER_OK did not start the device.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the driver did not enable bus mastering")]
    NoBusMaster,
    #[error("queue {queue} is set up wrongly: {error}")]
    Rings { queue: u16, error: virtio_queue::Error },
    #[error("the rings of queue {queue} are not in guest memory")]
    OutsideMemory { queue: u16 },
    #[error("{0}")]
    Worker(std::io::Error),
}
