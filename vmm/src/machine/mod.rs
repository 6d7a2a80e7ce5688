//! A guest's machine: memory, buses, slots, interrupts, CPUs; built from a checked configuration and opened resources.
//!
//! ```text
//!   build ──► off ──start──► running ──stop──► off ──reset──► off (as built, memory zero) ──start──► …
//! ```
//! `start` loads the kernel and runs the CPUs from their power-on state; what the guest asks for comes out of
//! [`Machine::events`] and is decided in `control`. A reset throws KVM's virtual machine away and makes a new one over the
//! same, cleared memory; devices keep their slots, addresses and interrupt vectors. This module opens no file and
//! talks to no daemon: `run` does, before it builds.

mod acpi;
mod buses;
mod cmos;
mod cpuid;
mod cpus;
pub(crate) mod events;
pub(crate) mod power;
pub(crate) mod serial;
pub(crate) mod smbios;

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
};

use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use self::{buses::Buses, cpus::Cpus, events::Events, serial::Com1, smbios::System};
use crate::{
    boot::{BootError, BootFiles},
    config::{Mac, MemorySize},
    disk::RawDisk,
    kvm::{
        self, KvmError,
        routes::Routes,
        vcpu::{Stopper, Vcpu},
        vm::{IrqLine, Vm},
    },
    layout::{self, Layout},
    memory::{self, GuestMemory, MemoryError},
    pci::{PciBus, PciError},
    virtio::{
        VirtioDevice, VirtioError, VirtioPci,
        balloon::{Balloon, Pump},
        blk::{Blk, Drive},
        net::{Net, Nic},
        rng::Rng,
        vsock::Vsock,
    },
};

/// Why the machine can't be built or started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    #[error(transparent)]
    Pci(#[from] PciError),
    #[error("failed to write the ACPI and SMBIOS tables and the reset vector: {0}")]
    Firmware(GuestMemoryError),
    #[error("failed to make an event descriptor: {0}: raise the limit of open files (ulimit -n)")]
    Descriptor(io::Error),
    #[error("failed to start a vCPU thread: {0}")]
    Thread(io::Error),
    #[error(
        "{} MiB of memory do not fit into this CPU's {bits}-bit physical addresses: ask for less with --memory",
        .memory.bytes() >> 20
    )]
    AddressWidth { memory: MemorySize, bits: u32 },
    #[error("{given} CPUs are more than this host's KVM can give one guest: give at most {max} with --cpus")]
    Cpus { given: u8, max: usize },
}

/// What the machine is made of, opened.
pub(crate) struct Parts {
    pub(crate) kvm: Kvm,
    pub(crate) boot: BootFiles,
    pub(crate) disks: Vec<DiskPart>,
    pub(crate) nics: Vec<NicPart>,
    pub(crate) vsock: Option<VsockPart>,
    /// Where COM1's output goes.
    pub(crate) output: serial::Output,
}

/// A disk's image and what the guest is told about it.
pub(crate) struct DiskPart {
    pub(crate) image: RawDisk,
    /// The image's file name if absent.
    pub(crate) serial: Option<String>,
    pub(crate) queues: u16,
}

/// A NIC's tap queues and what the guest is told about it.
pub(crate) struct NicPart {
    pub(crate) taps: Vec<OwnedFd>,
    pub(crate) mac: Mac,
    /// Bytes of an Ethernet payload.
    pub(crate) mtu: u16,
}

/// A socket device's address and its listening end.
pub(crate) struct VsockPart {
    pub(crate) cid: u32,
    /// Non-blocking.
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

/// The numbers of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) memory: MemorySize,
    pub(crate) cpus: u8,
    pub(crate) command_line: String,
    /// What the guest is told it runs on.
    pub(crate) system: System,
}

/// A machine, switched off or running.
pub(crate) struct Machine {
    shape: Shape,
    layout: Layout,
    kvm: Kvm,
    cpuid: CpuId,
    vm: Vm,
    memory: GuestMemory,
    routes: Arc<Routes>,
    boot: BootFiles,
    buses: Arc<Buses>,
    com1: Arc<Com1>,
    serial_line: IrqLine,
    power_button: IrqLine,
    events: Events,
    handles: Handles,
    cpus: Option<Cpus>,
    paused: bool,
}

impl Machine {
    /// Builds the machine, switched off. [`check`] has said that it can be built.
    pub(crate) fn build(shape: Shape, parts: Parts) -> Result<Self, MachineError> {
        let Parts { kvm, boot, disks, nics, vsock, output } = parts;
        let layout = Layout::new(shape.memory);
        let cpuid = kvm::supported_cpuid(&kvm)?;
        let memory = memory::allocate(shape.memory, &layout)?;
        let vm = Vm::new(&kvm, &memory)?;
        let routes = Arc::new(Routes::new(&vm)?);
        let pci = PciBus::new();
        let (devices, handles) = devices(disks, nics, vsock)?;
        for (slot, device) in devices {
            let function = VirtioPci::new(device, memory.clone(), routes.clone(), routes.clone(), layout.bar(slot))?;
            pci.attach(slot, function)?;
        }
        let serial_line = IrqLine::new().map_err(MachineError::Descriptor)?;
        let power_button = IrqLine::new().map_err(MachineError::Descriptor)?;
        let line = serial_line.try_clone().map_err(MachineError::Descriptor)?;
        let com1 = Arc::new(Com1::new(line, output).map_err(MachineError::Descriptor)?);
        let buses = Arc::new(Buses::new(pci, com1.clone()));
        let events = Events::new().map_err(MachineError::Descriptor)?;
        let machine = Machine {
            shape,
            layout,
            kvm,
            cpuid,
            vm,
            memory,
            routes,
            boot,
            buses,
            com1,
            serial_line,
            power_button,
            events,
            handles,
            cpus: None,
            paused: false,
        };
        machine.connect()?;
        Ok(machine)
    }

    /// Loads the guest and runs its CPUs.
    pub(crate) fn start(&mut self) -> Result<(), MachineError> {
        let tables = acpi::tables(&self.layout, self.shape.cpus);
        let smbios = smbios::tables(&self.shape.system);
        let firmware = [
            (layout::ACPI_TABLES, &tables[..]),
            (layout::SMBIOS, &smbios),
            (layout::RESET_VECTOR, &power::RESET_PROGRAM),
        ];
        for (address, bytes) in firmware {
            self.memory.write_slice(bytes, GuestAddress(address)).map_err(MachineError::Firmware)?;
        }
        let entry = self.boot.load(&self.memory, &self.layout, &self.shape.command_line, layout::ACPI_TABLES)?;
        let vcpus: Vec<_> = (0..self.shape.cpus).map(|index| self.vcpu(index)).collect::<Result<_, _>>()?;
        if let Some((first, _)) = vcpus.first() {
            first.set_registers(&entry)?;
        }
        self.paused = false;
        self.cpus = Some(Cpus::start(vcpus, &self.buses, &self.events).map_err(MachineError::Thread)?);
        Ok(())
    }

    /// Stops the CPUs; devices keep their state. Stopping twice is stopping once.
    pub(crate) fn stop(&mut self) {
        if let Some(cpus) = self.cpus.take() {
            cpus.stop();
        }
    }

    /// Has the CPUs of a running machine stand still; false if they do already. Devices still take in what arrives.
    pub(crate) fn pause(&mut self) -> bool {
        let cpus = self.cpus.as_ref().filter(|_| !self.paused);
        cpus.inspect(|cpus| cpus.pause()).inspect(|_| self.paused = true).is_some()
    }

    /// Lets them run on; false if they do.
    pub(crate) fn resume(&mut self) -> bool {
        let cpus = self.cpus.as_ref().filter(|_| self.paused);
        cpus.inspect(|cpus| cpus.resume()).inspect(|_| self.paused = false).is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The NICs, in the order they were given.
    pub(crate) fn nics(&self) -> &[Arc<Nic>] {
        &self.handles.nics
    }

    /// The disks, in the order they were given.
    pub(crate) fn drives(&self) -> &[Arc<Drive>] {
        &self.handles.drives
    }

    /// The balloon.
    pub(crate) fn balloon(&self) -> &Pump {
        &self.handles.balloon
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Brings a stopped machine back to how it was built.
    pub(crate) fn reset(&mut self) -> Result<(), MachineError> {
        self.buses.reset();
        memory::clear(&self.memory)?;
        for (line, gsi) in self.lines() {
            self.vm.disconnect(line, gsi)?;
            // No edge of the guest before must reach the next.
            line.clear();
        }
        self.vm = Vm::new(&self.kvm, &self.memory)?;
        self.routes.attach(&self.vm)?;
        self.connect()
    }

    /// Ends a stopped machine's device workers.
    pub(crate) fn shutdown(&mut self) {
        self.buses.pci.shutdown();
    }

    /// Presses the power button for a moment.
    pub(crate) fn press_power_button(&self) -> io::Result<()> {
        self.power_button.pulse()
    }

    /// What the guest asks for.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// The serial port, for a console.
    pub(crate) fn com1(&self) -> &Arc<Com1> {
        &self.com1
    }

    /// Wires the interrupt lines to the current [`Vm`].
    fn connect(&self) -> Result<(), MachineError> {
        self.lines().into_iter().try_for_each(|(line, gsi)| Ok(self.vm.connect(line, gsi)?))
    }

    /// The lines that are not message-signalled.
    fn lines(&self) -> [(&IrqLine, u32); 2] {
        [(&self.serial_line, layout::COM1_GSI), (&self.power_button, layout::POWER_BUTTON_GSI)]
    }

    fn vcpu(&self, index: u8) -> Result<(Vcpu, Stopper), MachineError> {
        let timer = kvm::has_tsc_deadline_timer(&self.kvm);
        let entries = cpuid::entries(self.cpuid.as_slice(), index, self.shape.cpus, timer);
        let cpuid = CpuId::from_entries(&entries).map_err(|e| {
            KvmError::refused("building a vCPU's CPUID")(io::Error::other(format!("{} entries: {e:?}", entries.len())))
        })?;
        let vcpu = Vcpu::new(&self.vm, index, &cpuid, &cpuid::msrs())?;
        let stopper = vcpu.stopper(&self.vm)?;
        Ok((vcpu, stopper))
    }
}

/// What only the host's CPU and KVM can tell about `shape`, asked before anything is made.
pub(crate) fn check(kvm: &Kvm, shape: &Shape) -> Result<(), MachineError> {
    let max = kvm.get_max_vcpus();
    if usize::from(shape.cpus) > max {
        return Err(MachineError::Cpus { given: shape.cpus, max });
    }
    let bits = cpuid::physical_address_bits(kvm::supported_cpuid(kvm)?.as_slice());
    let end = Layout::new(shape.memory).end();
    if bits < 64 && end > 1 << bits {
        return Err(MachineError::AddressWidth { memory: shape.memory, bits });
    }
    Ok(())
}

/// A device and its slot.
type Slotted = (u8, Box<dyn VirtioDevice>);

/// The parts of devices that can be changed and looked at while the machine runs.
struct Handles {
    nics: Vec<Arc<Nic>>,
    drives: Vec<Arc<Drive>>,
    balloon: Arc<Pump>,
}

/// Every device with the slot it always has.
fn devices(
    disks: Vec<DiskPart>,
    nics: Vec<NicPart>,
    vsock: Option<VsockPart>,
) -> Result<(Vec<Slotted>, Handles), MachineError> {
    let mut drives = Vec::new();
    let mut devices: Vec<Slotted> = vec![(layout::RNG_SLOT, Box::new(Rng::new()))];
    for ((slot, DiskPart { image, serial, queues }), number) in (layout::FIRST_DISK_SLOT..).zip(disks).zip(0..) {
        let disk = Blk::new(image).numbered(number).with_queues(queues);
        drives.push(disk.drive());
        devices.push((slot, Box::new(serial.iter().fold(disk, |disk, serial| disk.with_serial(serial)))));
    }
    // Threads are numbered through all NICs: a second NIC's queue pairs follow the first one's.
    let (mut pairs, mut handles) = (0, Vec::new());
    for (slot, NicPart { taps, mac, mtu }) in (layout::FIRST_NIC_SLOT..).zip(nics) {
        let first = pairs;
        pairs += taps.len();
        let net = Net::new(taps, mac.0, mtu)?.numbered(first);
        handles.push(net.nic());
        devices.push((slot, Box::new(net)));
    }
    let balloon = Balloon::new()?;
    let handles = Handles { nics: handles, drives, balloon: balloon.pump() };
    devices.push((layout::BALLOON_SLOT, Box::new(balloon)));
    if let Some(VsockPart { cid, listener, path }) = vsock {
        devices.push((layout::VSOCK_SLOT, Box::new(Vsock::new(cid, listener, path))));
    }
    Ok((devices, handles))
}

#[cfg(test)]
mod tests;
