//! EDGE: one KVM virtual machine: its memory slots, its in-kernel interrupt controllers and its interrupt lines.
//!
//! A guest's reset makes a new [`Vm`] over the same memory; nothing of the old one survives.

use std::{io, os::fd::AsRawFd, sync::Arc};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::KvmError;
use crate::{
    layout::{KVM_IDENTITY_MAP, KVM_TSS},
    memory::GuestMemory,
};

/// A virtual machine with memory and interrupt controllers and no CPUs yet.
#[derive(Clone)]
pub(crate) struct Vm {
    fd: Arc<VmFd>,
    /// Keeps the memory mapped for as long as the guest can touch it.
    _memory: GuestMemory,
}

impl Vm {
    /// Creates the machine over `memory`, with PIC, IOAPIC and local APICs in the kernel, and no PIT.
    pub(crate) fn new(kvm: &Kvm, memory: &GuestMemory) -> Result<Self, KvmError> {
        let fd = kvm.create_vm().map_err(KvmError::refused("KVM_CREATE_VM"))?;
        for (slot, region) in (0u32..).zip(memory.iter()) {
            let host = region.get_host_address(vm_memory::MemoryRegionAddress(0));
            let host = host.map_err(|e| KvmError::refused("finding guest memory")(io::Error::other(e)))?;
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            };
            // SAFETY: the range is a live mapping of exactly this size that belongs to `memory`; this struct keeps
            // `memory` for as long as the slot exists, and nobody maps anything else there.
            unsafe { fd.set_user_memory_region(region) }
                .map_err(KvmError::refused("giving the guest its memory (KVM_SET_USER_MEMORY_REGION)"))?;
        }
        fd.set_identity_map_address(KVM_IDENTITY_MAP).map_err(KvmError::refused("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(KVM_TSS as usize).map_err(KvmError::refused("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(KvmError::refused("KVM_CREATE_IRQCHIP"))?;
        Ok(Vm { fd: Arc::new(fd), _memory: memory.clone() })
    }

    /// The descriptor, for the parts of `kvm` that register things with it.
    pub(super) fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// Raises `gsi` once each time `line` is signalled. A line can be connected to one machine at a time.
    pub(crate) fn connect(&self, line: &IrqLine, gsi: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(&line.0, gsi).map_err(KvmError::refused("KVM_IRQFD"))
    }

    /// Undoes [`Vm::connect`].
    pub(crate) fn disconnect(&self, line: &IrqLine, gsi: u32) -> Result<(), KvmError> {
        self.fd.unregister_irqfd(&line.0, gsi).map_err(KvmError::refused("KVM_IRQFD"))
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Vm").field(&self.fd.as_raw_fd()).finish()
    }
}

/// An edge-triggered interrupt line; it outlives the [`Vm`] it is connected to.
#[derive(Debug)]
pub(crate) struct IrqLine(EventFd);

impl IrqLine {
    /// A line connected to nothing.
    pub(crate) fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK).map(IrqLine)
    }

    /// Another handle to the same line.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(IrqLine)
    }

    /// One edge. A line that nobody serves swallows it.
    pub(crate) fn pulse(&self) -> io::Result<()> {
        match self.0.write(1) {
            // The counter is full: edges are waiting, one more changes nothing.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Takes back edges nobody has served, so a guest after reset does not see those of the one before.
    pub(crate) fn clear(&self) {
        // Nothing to take is the usual case and no error; an eventfd of ours has no other.
        let _ = self.0.read();
    }
}

impl vm_superio::Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.pulse()
    }
}
