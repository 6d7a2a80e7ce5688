//! EDGE: the trace's tables in the kernel, what the kernel tells of the packets, and rules in `nft`'s words.
//!
//! All of it happens in the caller's network namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    process::Stdio,
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use tokio::{io::unix::AsyncFd, process::Command};

use super::{Arriving, Event, Watch, arriving, parse, removal, text};
use crate::apply::{Error, PROGRAMS, check_name, run_text};

/// `NFNLGRP_NFTRACE` (linux/netfilter/nfnetlink.h) as a bit of the bind address.
const GROUP: u32 = 1 << (9 - 1);

/// Room for the messages of the few packets that are followed, in bytes.
const ROOM: usize = 4 << 20;

/// Makes the tables that mark the flow, in place of any earlier ones.
pub async fn install(watch: &Watch) -> Result<(), Error> {
    check_name(&watch.interface)?;
    run_text(text(watch).as_bytes()).await
}

/// The same for a flow to guests.
pub async fn install_arriving(watch: &Arriving) -> Result<(), Error> {
    watch.ends.iter().try_for_each(|end| check_name(&end.interface))?;
    run_text(arriving::text(watch).as_bytes()).await
}

/// Takes the tables away. Fine if they are not there.
pub async fn remove() -> Result<(), Error> {
    run_text(removal().as_bytes()).await
}

/// A table with its rules' handles and without what is in its sets; `None` if it cannot be had.
pub async fn listing(family: &str, table: &str) -> Option<String> {
    for program in PROGRAMS {
        let output = Command::new(program)
            .args(["-a", "-t", "list", "table", family, table])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(output) if output.status.success() => return Some(String::from_utf8_lossy(&output.stdout).into_owned()),
            _ => return None,
        }
    }
    None
}

/// Hears of every traced packet of this network namespace.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Opens the socket. Must run inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        // SAFETY: the socket is owned by what is made here, which neither gives it away nor puts another in its place: it
        // is the same open socket until it is dropped.
        Ok(Listener(unsafe { AsyncFd::register(socket) }?))
    }

    /// What the kernel tells next; nothing where it had to leave something out.
    pub async fn hear(&self) -> io::Result<Vec<Event>> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut ready = self.0.readable().await?;
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(parse(buffer.get(..length).unwrap_or_default())),
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(nix::errno::Errno::ENOBUFS) => return Ok(Vec::new()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
