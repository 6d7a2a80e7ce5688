//! Sockets and all: the service in a fresh network namespace, asked by `dig` and by hand.

mod door;
mod forwarding;
mod harness;
mod lists;
mod local;
mod reconfigure;
mod tcp;
