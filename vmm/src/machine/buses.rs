//! EDGE (the wall clock, for the RTC): where a vCPU's port and memory accesses go: one `match` by address, nobody home reads as all ones.
//!
//! Called by every vCPU thread at once; devices that are plain state sit behind a lock each. What a guest does here is never
//! logged: it could do it a million times a second.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{
    cmos::Cmos,
    power::{self, Request},
    serial::Com1,
};
use crate::{
    kvm::vcpu::Exit,
    layout::{ACPI_PORT, CMOS_PORT, COM1_PORT, ECAM, ECAM_SIZE, I8042_PORT, PCI_CONFIG_PORT, SLEEP_STATUS},
    pci::PciBus,
};

/// What a vCPU does after an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run on.
    Run,
    /// Look whether somebody wants it to stop.
    Check,
    /// The guest asked for something that concerns the whole machine.
    Request(Request),
    /// This CPU can't go on.
    Crash(String),
}

/// Every device of the machine, by address.
pub(super) struct Buses {
    pub(super) pci: PciBus,
    com1: Arc<Com1>,
    cmos: Mutex<Cmos>,
}

const COM1_LAST: u16 = COM1_PORT + 7;
const I8042_LAST: u16 = I8042_PORT + 4;
const CMOS_LAST: u16 = CMOS_PORT + 1;
const PCI_CONFIG_LAST: u16 = PCI_CONFIG_PORT + 7;
const ACPI_LAST: u16 = ACPI_PORT + 3;
const ECAM_LAST: u64 = ECAM + ECAM_SIZE - 1;

impl Buses {
    pub(super) fn new(pci: PciBus, com1: Arc<Com1>) -> Self {
        Buses { pci, com1, cmos: Mutex::new(Cmos::new()) }
    }

    /// Puts every device back to how it was when the machine was switched on.
    pub(super) fn reset(&self) {
        self.pci.reset();
        self.com1.reset();
        *self.cmos() = Cmos::new();
    }

    /// Serves one exit.
    pub(super) fn handle(&self, exit: Exit<'_>) -> Next {
        match exit {
            Exit::PortRead(port, data) => self.port_read(port, data),
            Exit::PortWrite(port, data) => return self.port_write(port, data),
            Exit::MemoryRead(address, data) => self.memory_read(address, data),
            Exit::MemoryWrite(address, data) => self.memory_write(address, data),
            Exit::Interrupted => return Next::Check,
            // With the local APIC in the kernel HLT does not come here; if it does, running on is what an interrupt does.
            Exit::Halted => return Next::Check,
            Exit::TripleFault => return Next::Crash("a triple fault".to_owned()),
            Exit::Unable => {
                return Next::Crash(
                    "KVM met an instruction it can neither run nor emulate; `vmm probe` tells whether this host can run \
                     guests at all"
                        .to_owned(),
                );
            }
            Exit::Failed(why) => return Next::Crash(why),
        }
        Next::Run
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        match port {
            PCI_CONFIG_PORT..=PCI_CONFIG_LAST => self.pci.port_read(port - PCI_CONFIG_PORT, data),
            // Eight-bit devices: more bytes are a string instruction, the same port again.
            COM1_PORT..=COM1_LAST => data.fill_with(|| self.com1.read((port - COM1_PORT) as u8)),
            CMOS_PORT..=CMOS_LAST => data.fill_with(|| self.cmos().read(port - CMOS_PORT, SystemTime::now())),
            I8042_PORT..=I8042_LAST => data.fill(power::i8042_read(port - I8042_PORT)),
            ACPI_PORT..=ACPI_LAST => data.fill(if port == ACPI_PORT + SLEEP_STATUS { power::WAKE_STATUS } else { 0 }),
            _ => data.fill(0xff),
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) -> Next {
        let first = |request: fn(u16, u8) -> Option<Request>, base: u16| {
            data.iter().find_map(|byte| request(port - base, *byte)).map_or(Next::Run, Next::Request)
        };
        match port {
            PCI_CONFIG_PORT..=PCI_CONFIG_LAST => self.pci.port_write(port - PCI_CONFIG_PORT, data),
            COM1_PORT..=COM1_LAST => data.iter().for_each(|byte| self.com1.write((port - COM1_PORT) as u8, *byte)),
            CMOS_PORT..=CMOS_LAST => data.iter().for_each(|byte| self.cmos().write(port - CMOS_PORT, *byte)),
            I8042_PORT..=I8042_LAST => return first(power::i8042_write, I8042_PORT),
            ACPI_PORT..=ACPI_LAST => return first(power::acpi_write, ACPI_PORT),
            _ => {}
        }
        Next::Run
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) {
        match address {
            ECAM..=ECAM_LAST => self.pci.ecam_read(address - ECAM, data),
            _ if self.pci.mmio_read(address, data) => {}
            _ => data.fill(0xff),
        }
    }

    fn memory_write(&self, address: u64, data: &[u8]) {
        match address {
            ECAM..=ECAM_LAST => self.pci.ecam_write(address - ECAM, data),
            // A write nobody claims is lost, as on a real bus.
            _ => _ = self.pci.mmio_write(address, data),
        }
    }

    fn cmos(&self) -> MutexGuard<'_, Cmos> {
        self.cmos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::vm::IrqLine;
    use crate::layout::{SLEEP_CONTROL, SLEEP_TYPE_S5};
    use crate::machine::serial::Output;

    fn buses() -> Buses {
        let com1 = Com1::new(IrqLine::new().unwrap(), Output::discard()).unwrap();
        Buses::new(PciBus::new(), Arc::new(com1))
    }

    #[test]
    fn nobody_home_reads_as_all_ones() {
        let mut data = [0; 4];
        assert_eq!(buses().handle(Exit::PortRead(0x1234, &mut data)), Next::Run);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(buses().handle(Exit::MemoryRead(0xd000_0000, &mut data)), Next::Run);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn the_host_bridge_answers_by_ports_and_by_memory() {
        let buses = buses();
        let (mut by_port, mut by_memory) = ([0; 4], [0; 4]);
        buses.handle(Exit::PortWrite(PCI_CONFIG_PORT, &0x8000_0000_u32.to_le_bytes()));
        buses.handle(Exit::PortRead(PCI_CONFIG_PORT + 4, &mut by_port));
        buses.handle(Exit::MemoryRead(ECAM, &mut by_memory));
        assert_eq!(by_port, [0x86, 0x80, 0x57, 0x0d]);
        assert_eq!(by_memory, by_port);
    }

    #[test]
    fn writing_s5_to_sleep_control_is_a_request_to_power_off() {
        let value = [SLEEP_TYPE_S5 << 2 | 1 << 5];
        let next = buses().handle(Exit::PortWrite(ACPI_PORT + SLEEP_CONTROL, &value));
        assert_eq!(next, Next::Request(Request::PowerOff));
    }

    #[test]
    fn a_triple_fault_says_so() {
        assert!(matches!(buses().handle(Exit::TripleFault), Next::Crash(why) if why.contains("triple fault")));
    }
}
