//! What the acceptance tests, the demo and the benches share: hosts made of namespaces, the daemon and the guests
//! that run in them, the lab where KVM is not at hand.
//!
//! It knows binaries, sockets, packets and XML, never the inside of `netd` or `vmm`. Nothing here passes a test
//! because a tool or a privilege is missing: that is a failure which names what is missing.

pub mod cpio;
pub mod crowd;
pub mod daemon;
pub mod debian_kernel;
pub mod dhcp_client;
pub mod front_door;
pub mod guest;
mod in_lab;
pub mod initramfs;
pub mod internet;
pub mod lab;
pub mod libvirt;
pub mod on_kvm;
pub mod paths;
pub mod snapshot;
pub mod sniffer;
pub mod space;
pub mod station;
pub mod tap;
pub mod tools_disk;
pub mod trixie;
pub mod virsh;
pub mod vmm;
pub mod wait;
pub mod wire;
pub mod xml;
