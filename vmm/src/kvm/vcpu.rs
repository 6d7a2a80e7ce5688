//! EDGE: one virtual CPU: set its registers, run it, say why it stopped, and make it stop from another thread.
//!
//! What an exit means is decided in `machine`; here it is only translated.

use std::{
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_regs, kvm_run, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::{KvmError, vm::Vm};

/// Why a CPU stopped. The slices are the guest's operands: fill them in or act on them before running again.
#[derive(Debug)]
pub(crate) enum Exit<'a> {
    /// Read from a port. More bytes than the port is wide mean a string instruction: the same port again.
    PortRead(u16, &'a mut [u8]),
    /// Write to a port; as above.
    PortWrite(u16, &'a [u8]),
    /// Read from an address that is not RAM.
    MemoryRead(u64, &'a mut [u8]),
    /// Write to an address that is not RAM.
    MemoryWrite(u64, &'a [u8]),
    /// HLT, where interrupts are not the kernel's business.
    Halted,
    /// The guest's CPU gave up: a triple fault.
    TripleFault,
    /// Another thread wants this one's attention.
    Interrupted,
    /// KVM met something it can neither run nor emulate (KVM_EXIT_INTERNAL_ERROR).
    Unable,
    /// KVM can't go on, in words for the user.
    Failed(String),
}

/// The registers a CPU starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// General purpose.
    pub(crate) general: kvm_regs,
    /// Segments, control registers and descriptor tables; the APIC base and interrupt bitmap are KVM's.
    pub(crate) system: SystemRegisters,
}

/// The part of `kvm_sregs` that boot protocols define.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemRegisters {
    pub(crate) code: kvm_bindings::kvm_segment,
    pub(crate) data: kvm_bindings::kvm_segment,
    pub(crate) task: kvm_bindings::kvm_segment,
    pub(crate) gdt: kvm_bindings::kvm_dtable,
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
}

/// A virtual CPU. Runs on whichever thread owns it.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
}

impl Vcpu {
    /// Adds CPU number `index` to `vm`. CPU 0 is runnable; the others wait for CPU 0's start-up interrupt.
    pub(crate) fn new(vm: &Vm, index: u8, cpuid: &CpuId, msrs: &[kvm_msr_entry]) -> Result<Self, KvmError> {
        let fd = vm.fd().create_vcpu(index.into()).map_err(KvmError::refused("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(cpuid).map_err(KvmError::refused("KVM_SET_CPUID2"))?;
        let list = Msrs::from_entries(msrs).map_err(|e| {
            KvmError::refused("building the MSR list")(io::Error::new(io::ErrorKind::InvalidInput, format!("{e:?}")))
        })?;
        let done = fd.set_msrs(&list).map_err(KvmError::refused("KVM_SET_MSRS"))?;
        match msrs.get(done) {
            Some(refused) => Err(KvmError::Msr { done, given: msrs.len(), index: refused.index }),
            None => Ok(Vcpu { fd }),
        }
    }

    /// Puts the CPU at a boot protocol's entry point.
    pub(crate) fn set_registers(&self, registers: &Registers) -> Result<(), KvmError> {
        let old = self.fd.get_sregs().map_err(KvmError::refused("KVM_GET_SREGS"))?;
        let SystemRegisters { code, data, task, gdt, cr0, cr3, cr4, efer } = registers.system;
        let segments = kvm_sregs { cs: code, ds: data, es: data, fs: data, gs: data, ss: data, tr: task, ..old };
        let sregs = kvm_sregs { gdt, cr0, cr3, cr4, efer, ..segments };
        self.fd.set_sregs(&sregs).map_err(KvmError::refused("KVM_SET_SREGS"))?;
        self.fd.set_regs(&registers.general).map_err(KvmError::refused("KVM_SET_REGS"))
    }

    /// The address of the next instruction, for the last words of a guest that crashed.
    pub(crate) fn instruction_pointer(&self) -> Option<u64> {
        self.fd.get_regs().ok().map(|regs| regs.rip)
    }

    /// Tells the guest that it was stopped for a while, so that its watchdogs don't take it for a hang. A guest that does
    /// not use KVM's clock can't be told.
    pub(crate) fn was_paused(&self) {
        let _ = self.fd.kvmclock_ctrl();
    }

    /// A handle that stops [`Vcpu::run`] from another thread.
    pub(crate) fn stopper(&self, vm: &Vm) -> Result<Stopper, KvmError> {
        Stopper::map(&self.fd, vm.fd().run_size()).map_err(KvmError::refused("mapping a vCPU's state"))
    }

    /// Runs the guest until it needs us.
    pub(crate) fn run(&mut self) -> Exit<'_> {
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => return Exit::Interrupted,
            Err(e) => return Exit::Failed(format!("KVM_RUN failed: {}", io::Error::from(e))),
        };
        match exit {
            VcpuExit::IoIn(port, data) => Exit::PortRead(port, data),
            VcpuExit::IoOut(port, data) => Exit::PortWrite(port, data),
            VcpuExit::MmioRead(address, data) => Exit::MemoryRead(address, data),
            VcpuExit::MmioWrite(address, data) => Exit::MemoryWrite(address, data),
            VcpuExit::Hlt => Exit::Halted,
            VcpuExit::Shutdown => Exit::TripleFault,
            VcpuExit::Intr => Exit::Interrupted,
            VcpuExit::FailEntry(reason, cpu) => {
                Exit::Failed(format!("the CPU refused to enter the guest (reason {reason:#x} on host CPU {cpu})"))
            }
            VcpuExit::InternalError => Exit::Unable,
            other => Exit::Failed(format!("KVM stopped for a reason this program does not know: {other:?}")),
        }
    }
}

/// Makes a CPU leave [`Vcpu::run`] at once and keeps it from entering the guest again.
///
/// It has a mapping of its own of the CPU's shared page, so it may outlive the [`Vcpu`].
#[derive(Debug)]
pub(crate) struct Stopper {
    page: NonNull<kvm_run>,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, is not tied to a thread, and is only ever touched through the
// one-byte atomic of `flag`.
unsafe impl Send for Stopper {}
// SAFETY: as above.
unsafe impl Sync for Stopper {}

impl Stopper {
    fn map(fd: &VcpuFd, size: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choosing; it aliases no Rust object.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Stopper { page, size })
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: `page` is a live mapping of a whole `kvm_run` (its size came from KVM_GET_VCPU_MMAP_SIZE) until
        // `drop`, and a byte is always aligned. Every access from this process while the CPU runs is this atomic.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.page.as_ptr()).immediate_exit) }
    }

    /// Takes the flag back: the thread may enter the guest again.
    pub(crate) fn clear(&self) {
        self.flag().store(0, Ordering::SeqCst);
    }

    /// Sets the flag; a thread already inside the guest must also get a signal.
    pub(crate) fn set(&self) {
        self.flag().store(1, Ordering::SeqCst);
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; no reference from `flag` outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.size) };
    }
}
