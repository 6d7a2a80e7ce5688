//! PCI as the guest sees it: bus 0, its slots, and the three ways a vCPU reaches them.
//!
//! A vCPU exit (ECAM access, ports 0xcf8..0xcff, or any other MMIO) comes in as an offset and bytes, is handed to the
//! function it names, and the answer goes back. Nothing here knows KVM: interrupts and doorbells leave through the
//! traits in [`msix`], which the machine implements. Never: INTx lines, bridges, more than one bus, hot-plug.

mod config;
mod host_bridge;
pub mod msix;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) use config::{BarKind, COMMAND_BUS_MASTER, COMMAND_MEMORY, ConfigSpace, Identity};
use host_bridge::HostBridge;

/// Slots on bus 0; slot 0 is the host bridge's.
pub const SLOTS: usize = 32;

/// Bytes of ECAM space one function has (PCI Express Base §7.2.2): 4 KiB, so a bus takes 1 MiB.
pub const ECAM_FUNCTION_SIZE: u64 = 4096;

/// Bytes of ECAM space the whole bus takes.
pub const ECAM_BUS_SIZE: u64 = ECAM_FUNCTION_SIZE * 8 * SLOTS as u64;

/// What can be wrong with a request to the bus.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// There is no such slot.
    #[error("PCI slot {0} does not exist; slots 1 to {last} can take a device", last = SLOTS - 1)]
    NoSuchSlot(u8),
    /// Something is there already.
    #[error("PCI slot {0} is taken; give the device another slot")]
    SlotTaken(u8),
}

/// One function on the bus. Called by vCPU threads, several at once: implementations lock inside.
pub trait PciFunction: Send + Sync {
    /// Reads `data.len()` bytes of configuration space from byte `offset` (below 4096).
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space from byte `offset` (below 4096).
    fn config_write(&self, offset: u16, data: &[u8]);
    /// Reads from a memory BAR if `address` (guest-physical) lies in one that is decoded; says whether it did.
    fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool;
    /// Writes to a memory BAR if `address` (guest-physical) lies in one that is decoded; says whether it did.
    fn mmio_write(&self, address: u64, data: &[u8]) -> bool;
    /// Goes back to the state after power-on: workers stopped, queues forgotten, BARs where they were at first.
    fn reset(&self);
    /// Stops and joins every worker thread; the function does no more work afterwards.
    fn shutdown(&self);
}

/// Bus 0 with its host bridge in slot 0.
pub struct PciBus {
    slots: RwLock<[Option<Arc<dyn PciFunction>>; SLOTS]>,
    /// The latch at port 0xcf8 (PCI Local Bus 3.0 §3.2.2.3.2).
    address: Mutex<u32>,
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

impl PciBus {
    /// An empty bus: only the host bridge.
    pub fn new() -> Self {
        let mut slots: [Option<Arc<dyn PciFunction>>; SLOTS] = Default::default();
        slots[0] = Some(Arc::new(HostBridge::new()));
        Self { slots: RwLock::new(slots), address: Mutex::new(0) }
    }

    /// Puts a function into a slot (1..=31).
    pub fn attach(&self, slot: u8, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        match slots.get_mut(usize::from(slot)) {
            None => Err(PciError::NoSuchSlot(slot)),
            Some(Some(_)) => Err(PciError::SlotTaken(slot)),
            Some(free) => {
                *free = Some(function);
                Ok(())
            }
        }
    }

    /// An ECAM read, `offset` bytes into the bus's 1 MiB window. Nobody there reads as all ones.
    pub fn ecam_read(&self, offset: u64, data: &mut [u8]) {
        match self.at_ecam(offset) {
            Some((function, register)) => function.config_read(register, data),
            None => data.fill(0xff),
        }
    }

    /// An ECAM write, `offset` bytes into the bus's 1 MiB window.
    pub fn ecam_write(&self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.at_ecam(offset) {
            function.config_write(register, data);
        }
    }

    /// A read of ports 0xcf8..=0xcff; `offset` counts from 0xcf8.
    pub fn port_read(&self, offset: u16, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&lock(&self.address).to_le_bytes()),
            (4..8, _) => match self.at_latch(offset) {
                Some((function, register)) => function.config_read(register, data),
                None => data.fill(0xff),
            },
            _ => data.fill(0xff),
        }
    }

    /// A write of ports 0xcf8..=0xcff; `offset` counts from 0xcf8. Only a 32-bit write reaches the address latch.
    pub fn port_write(&self, offset: u16, data: &[u8]) {
        match offset {
            0 => {
                if let Ok(bytes) = data.try_into() {
                    *lock(&self.address) = u32::from_le_bytes(bytes);
                }
            }
            4..8 => {
                if let Some((function, register)) = self.at_latch(offset) {
                    function.config_write(register, data);
                }
            }
            _ => {}
        }
    }

    /// Offers an MMIO read to every function's BARs; false if nobody claims the address.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        self.functions().iter().flatten().any(|f| f.mmio_read(address, data))
    }

    /// Offers an MMIO write to every function's BARs; false if nobody claims the address.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        self.functions().iter().flatten().any(|f| f.mmio_write(address, data))
    }

    /// The guest reboots: every function back to its state after power-on.
    pub fn reset(&self) {
        *lock(&self.address) = 0;
        self.functions().iter().flatten().for_each(|f| f.reset());
    }

    /// The machine ends: stops and joins all workers of all functions.
    pub fn shutdown(&self) {
        self.functions().iter().flatten().for_each(|f| f.shutdown());
    }

    fn functions(&self) -> std::sync::RwLockReadGuard<'_, [Option<Arc<dyn PciFunction>>; SLOTS]> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// ECAM address: bus 27:20, device 19:15, function 14:12, register 11:0. Only function 0 of bus 0 exists.
    fn at_ecam(&self, offset: u64) -> Option<(Arc<dyn PciFunction>, u16)> {
        if offset >= ECAM_BUS_SIZE || (offset >> 12) & 7 != 0 {
            return None;
        }
        let function = self.functions()[(offset >> 15) as usize].clone()?;
        Some((function, (offset & 0xfff) as u16))
    }

    /// Latch: enable 31, bus 23:16, device 15:11, function 10:8, register 7:2.
    fn at_latch(&self, offset: u16) -> Option<(Arc<dyn PciFunction>, u16)> {
        let address = *lock(&self.address);
        if address & 0x8000_0000 == 0 || (address >> 16) & 0xff != 0 || (address >> 8) & 7 != 0 {
            return None;
        }
        let function = self.functions()[((address >> 11) & 0x1f) as usize].clone()?;
        Some((function, (address & 0xfc) as u16 + (offset & 3)))
    }
}

/// Locks; a panic elsewhere while holding the lock does not spread (the state is plain registers, each write complete).
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
