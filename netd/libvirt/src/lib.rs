//! netd-libvirtd is a front door to netd that speaks libvirt's remote protocol: virsh, virt-manager's libraries and
//! language bindings find netd's networks where they look for libvirt's.
//!
//! ```text
//! socket ──► frames ──► call (procedure table) ──► netd's varlink API ──► reply ──► socket
//!                                    netd's Monitor ──► events ──► messages ──┘
//! ```
//!
//! It keeps nothing: every answer is netd's, asked for when the client asks. What a connection has agreed and asked for
//! ends with it.

mod call;
mod cli;
mod connection;
mod error;
mod events;
mod frame;
mod host;
mod hypervisor;
mod listen;
mod metadata;
mod netd;
mod networks;
mod node;
mod ports;
mod procedure;
mod server;
mod session;
mod socket;
mod unix_table;
mod watch;
mod wire;
mod xdr;

pub use cli::main;
