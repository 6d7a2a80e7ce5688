//! A KVM virtual machine monitor whose NICs plug into `netd`'s named networks.
//!
//! ```text
//!   words ─cli─► VmConfig ─run─► opened parts ─machine─► memory, buses, CPUs ─control─► until the guest ends
//!                config                         boot, kvm, pci, virtio
//! ```
//! The one thing other programs may use is [`cli`]: a guest is one `vmm run` process, and needs no privilege but
//! `/dev/kvm`. Files that touch the host say so in their first line (EDGE).

pub mod cli;
pub mod disk;
pub mod net;
pub mod pci;
pub mod virtio;

mod boot;
mod config;
mod control;
mod kvm;
mod layout;
mod machine;
mod memory;
mod probe;
mod run;
mod sandbox;
