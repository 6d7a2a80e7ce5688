//! EDGE: message-signalled interrupts and doorbells over KVM: GSI routing, irqfds and ioeventfds.
//!
//! The tables here are the machine's, not one KVM virtual machine's: a reset gives the guest a new one, and
//! [`Routes::attach`] carries every vector and doorbell over to it. Devices never notice.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{KvmError, vm::Vm};
use crate::{
    layout::IOAPIC_PINS,
    pci::msix::{Doorbells, MsiMessage, MsiRoutes, MsiVector},
};

/// Most GSIs KVM routes (`KVM_MAX_IRQ_ROUTES`).
const MAX_GSI: u32 = 4096;

/// Every vector and every doorbell of one machine.
#[derive(Debug)]
pub(crate) struct Routes {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    vm: Vm,
    vectors: BTreeMap<u32, Vector>,
    doorbells: Vec<(u64, EventFd)>,
}

#[derive(Debug)]
struct Vector {
    fd: EventFd,
    message: Option<MsiMessage>,
}

impl Routes {
    /// No vector and no doorbell yet; the IOAPIC's pins are routed one to one.
    pub(crate) fn new(vm: &Vm) -> Result<Self, KvmError> {
        let inner = Inner { vm: vm.clone(), vectors: BTreeMap::new(), doorbells: Vec::new() };
        inner.apply().map_err(KvmError::refused("KVM_SET_GSI_ROUTING"))?;
        Ok(Routes { inner: Mutex::new(inner) })
    }

    /// Carries everything over to `vm`, which replaces the one before.
    pub(crate) fn attach(&self, vm: &Vm) -> Result<(), KvmError> {
        let mut inner = self.lock();
        let before = std::mem::replace(&mut inner.vm, vm.clone());
        for (gsi, vector) in &inner.vectors {
            // An eventfd serves one irqfd at a time, over all virtual machines.
            before.fd().unregister_irqfd(&vector.fd, *gsi).map_err(KvmError::refused("KVM_IRQFD"))?;
            // An edge that the guest before never took must not reach this one; no edge is the usual case.
            let _ = vector.fd.read();
            vm.fd().register_irqfd(&vector.fd, *gsi).map_err(KvmError::refused("KVM_IRQFD"))?;
        }
        for (address, fd) in &inner.doorbells {
            register(vm, fd, *address).map_err(KvmError::refused("KVM_IOEVENTFD"))?;
        }
        inner.apply().map_err(KvmError::refused("KVM_SET_GSI_ROUTING"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The tables are changed only after KVM agreed, so they are whole even if a thread panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Hands the whole table to KVM; it knows no smaller step.
    fn apply(&self) -> io::Result<()> {
        let messages = self.vectors.iter().filter_map(|(gsi, vector)| Some((*gsi, vector.message?)));
        let entries: Vec<_> = table(messages);
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|e| io::Error::other(format!("{e:?}")))?;
        Ok(self.vm.fd().set_gsi_routing(&routing)?)
    }
}

/// The routing table: the IOAPIC's pins, then the messages.
fn table(messages: impl Iterator<Item = (u32, MsiMessage)>) -> Vec<kvm_irq_routing_entry> {
    let pins = (0..IOAPIC_PINS).map(|pin| {
        let mut entry = kvm_irq_routing_entry { gsi: pin, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin };
        entry
    });
    let messages = messages.map(|(gsi, message)| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        entry.u.msi = kvm_irq_routing_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        entry
    });
    pins.chain(messages).collect()
}

fn register(vm: &Vm, fd: &EventFd, address: u64) -> io::Result<()> {
    Ok(vm.fd().register_ioevent(fd, &IoEventAddress::Mmio(address), NoDatamatch)?)
}

impl MsiRoutes for Routes {
    fn vector(&self) -> io::Result<MsiVector> {
        let mut inner = self.lock();
        let next = inner.vectors.last_key_value().map_or(IOAPIC_PINS, |(gsi, _)| gsi + 1);
        if next >= MAX_GSI {
            return Err(io::Error::other(format!("all {MAX_GSI} interrupt routes of KVM are taken")));
        }
        let fd = EventFd::new(EFD_NONBLOCK)?;
        inner.vm.fd().register_irqfd(&fd, next)?;
        let vector = MsiVector { gsi: next, fd: fd.try_clone()? };
        inner.vectors.insert(next, Vector { fd, message: None });
        Ok(vector)
    }

    fn route(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        let mut inner = self.lock();
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("interrupt {gsi} was never given out"));
        let vector = inner.vectors.get_mut(&gsi).ok_or_else(unknown)?;
        let before = std::mem::replace(&mut vector.message, message);
        if before == message {
            return Ok(());
        }
        let applied = inner.apply();
        if applied.is_err()
            && let Some(vector) = inner.vectors.get_mut(&gsi)
        {
            vector.message = before;
        }
        applied
    }
}

impl Doorbells for Routes {
    fn register(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let kept = fd.try_clone()?;
        register(&inner.vm, fd, address)?;
        inner.doorbells.push((address, kept));
        Ok(())
    }

    fn unregister(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let doorbell = IoEventAddress::Mmio(address);
        inner.vm.fd().unregister_ioevent(fd, &doorbell, NoDatamatch)?;
        inner.doorbells.retain(|(at, _)| *at != address);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_pin_once_and_the_messages_after_them() {
        let message = MsiMessage { address: 0x1_fee0_1004, data: 0x4022 };
        let table = table([(30, message)].into_iter());
        let gsis: Vec<_> = table.iter().map(|entry| entry.gsi).collect();
        assert_eq!(gsis, (0..IOAPIC_PINS).chain([30]).collect::<Vec<_>>());
        // SAFETY: the last entry is of the MSI type, so `msi` is the field that was written.
        let msi = unsafe { table[IOAPIC_PINS as usize].u.msi };
        assert_eq!((msi.address_lo, msi.address_hi, msi.data), (0xfee0_1004, 1, 0x4022));
    }
}
