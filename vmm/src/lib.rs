//! vmm

pub mod disk;
pub mod net;
pub mod pci;
pub mod virtio;
