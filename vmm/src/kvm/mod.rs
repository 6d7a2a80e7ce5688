//! EDGE: `/dev/kvm`. The only part of this crate that makes KVM's system calls.
//!
//! A virtual machine ([`vm::Vm`]) and its CPUs ([`vcpu::Vcpu`]) are created here and given the state that others
//! computed; why a CPU stopped becomes our [`vcpu::Exit`], and what to do about it is decided in `machine`.
//! It never emulates anything and never looks at guest memory.

pub(crate) mod routes;
pub(crate) mod vcpu;
pub(crate) mod vm;

use std::io;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

/// The device everything goes through.
const DEVICE: &str = "/dev/kvm";

/// Why KVM can't be used, or what it refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KvmError {
    #[error("{DEVICE} is not there: load the kvm_intel or kvm_amd module, or turn virtualisation on in the firmware")]
    NoDevice,
    #[error(
        "no permission to use {DEVICE}: add yourself to its group (usually: sudo usermod -aG kvm $USER) and log in again"
    )]
    Permission,
    #[error("failed to open {DEVICE}: {0}")]
    Open(io::Error),
    #[error("{DEVICE} speaks API version {0}, this program needs {KVM_API_VERSION}: use a kernel from this century")]
    ApiVersion(i32),
    #[error("this host's KVM lacks {0}: use a newer kernel")]
    Capability(&'static str),
    #[error("{step} failed: {cause}")]
    Refused { step: &'static str, cause: io::Error },
    #[error("KVM took {done} of {given} model-specific registers of a vCPU: it refuses MSR {index:#x}")]
    Msr { done: usize, given: usize, index: u32 },
}

impl KvmError {
    /// For `map_err`: KVM refused `step`.
    pub(crate) fn refused<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> KvmError {
        move |cause| KvmError::Refused { step, cause: cause.into() }
    }
}

/// What a stock guest can't do without.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "the in-kernel interrupt controllers (KVM_CAP_IRQCHIP)"),
    (Cap::IrqRouting, "interrupt routing (KVM_CAP_IRQ_ROUTING)"),
    (Cap::Irqfd, "interrupts by event (KVM_CAP_IRQFD)"),
    (Cap::Ioeventfd, "doorbells by event (KVM_CAP_IOEVENTFD)"),
    (Cap::UserMemory, "user memory (KVM_CAP_USER_MEMORY)"),
    (Cap::ImmediateExit, "immediate exits (KVM_CAP_IMMEDIATE_EXIT)"),
];

/// Opens `/dev/kvm` and checks that it offers what we build on.
pub(crate) fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|errno| match errno.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::NoDevice,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        _ => KvmError::Open(errno.into()),
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmError::ApiVersion(version));
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::Capability(name)),
        None => Ok(kvm),
    }
}

/// What this host's KVM can give a guest's CPUs.
pub(crate) fn supported_cpuid(kvm: &Kvm) -> Result<CpuId, KvmError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::refused("KVM_GET_SUPPORTED_CPUID"))
}

/// Whether KVM's local APIC has the TSC deadline timer; `KVM_GET_SUPPORTED_CPUID` leaves the bit to us.
pub(crate) fn has_tsc_deadline_timer(kvm: &Kvm) -> bool {
    kvm.check_extension(Cap::TscDeadlineTimer)
}

#[cfg(test)]
mod tests;
