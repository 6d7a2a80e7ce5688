//! MSI-X: the seam to the machine's interrupt router and, beside it, the doorbells.
//!
//! `table` is the registers as plain state; `vectors` joins them to the router. The machine implements the two traits
//! over KVM (irqfd, GSI routing, ioeventfd); tests implement them over plain memory.

mod table;
#[cfg(test)]
mod tests;
mod vectors;

use std::io;

use vmm_sys_util::eventfd::EventFd;

pub(crate) use table::{CONTROL_ENABLE, CONTROL_FUNCTION_MASK, ENTRY_SIZE};
pub(crate) use vectors::MsixVectors;

/// What an MSI interrupt writes where (PCI Local Bus 3.0 §6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// The address written to: names the destination vCPU.
    pub address: u64,
    /// The value written: names the interrupt vector.
    pub data: u32,
}

/// An interrupt line of our own: a write to `fd` raises whatever `gsi` is routed to.
#[derive(Debug)]
pub struct MsiVector {
    /// The global system interrupt number the machine chose.
    pub gsi: u32,
    /// An irqfd bound to `gsi`; non-blocking.
    pub fd: EventFd,
}

/// The machine's interrupt router.
pub trait MsiRoutes: Send + Sync {
    /// A fresh vector, routed nowhere yet. It lives as long as the machine.
    fn vector(&self) -> io::Result<MsiVector>;
    /// Routes `gsi` to a message, or nowhere.
    fn route(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()>;
}

/// The machine's doorbells: a guest write of any width to `address` becomes a write to `fd`, without leaving the
/// kernel.
pub trait Doorbells: Send + Sync {
    /// Starts it.
    fn register(&self, fd: &EventFd, address: u64) -> io::Result<()>;
    /// Ends it; same arguments as for `register`.
    fn unregister(&self, fd: &EventFd, address: u64) -> io::Result<()>;
}
