//! EDGE: the guards' table in the kernel: made by `nft`, its elements changed and its counters read by netlink.
//!
//! All of it happens in the caller's network namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};

use super::{Element, GuardedPort, Sources, Violation, With, changes, message, text};
use crate::apply::{Error, check_name, run_text};

/// Room for the longest of the kernel's answers: it repeats no more than a message's head.
const ANSWER: usize = 8192;

/// Makes the whole table anew with these ports and no others, without a gap. Counters begin at zero.
pub async fn replace(ports: &[GuardedPort]) -> Result<(), Error> {
    for port in ports {
        check(port)?;
    }
    run_text(text(ports).as_bytes()).await
}

/// Takes the table away. Fine if it was not there.
pub async fn delete() -> Result<(), Error> {
    run_text(format!("table bridge {0}\ndelete table bridge {0}\n", crate::TABLE).as_bytes()).await
}

/// A way to the table's elements that takes no program: a netlink socket, in the network namespace it was opened in.
///
/// It stays open because closing it after a transaction that removed something waits for an RCU grace period: 8 ms and
/// more, where the transaction itself takes 0.05.
#[derive(Debug)]
pub struct Elements(OwnedFd);

impl Elements {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Elements(socket))
    }

    /// Turns the elements of the ports as they were into those of the ports as they are, in one transaction; nothing
    /// needs the networks that are `gone` any more.
    ///
    /// An error means that nothing was done: the table is not there, or not as it was left. [`replace`] makes it so.
    pub fn update(&mut self, before: &[GuardedPort], after: &[GuardedPort], gone: &[Sources]) -> io::Result<()> {
        after.iter().try_for_each(check).map_err(io::Error::other)?;
        let changes = changes(before, after, gone);
        if changes.is_empty() {
            return Ok(());
        }
        let (bytes, last) = message::batch(&changes);
        // A batch is sent whole, and all its answers wait for us at once.
        setsockopt(&self.0, sockopt::SndBufForce, &(bytes.len() * 2 + ANSWER))?;
        setsockopt(&self.0, sockopt::RcvBufForce, &(bytes.len() * 8 + ANSWER))?;
        self.send(&bytes)?;
        let mut buffer = [0; ANSWER];
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in message::answers(&buffer[..length]) {
                match answer.errno() {
                    Some(0) if answer.sequence == last => return Ok(()),
                    Some(0) | None => {}
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    /// How many frames of a port were dropped, and for what, since the table was made or the port added.
    pub fn counts(&mut self, interface: &str) -> io::Result<Vec<(Violation, u64)>> {
        let mut buffer = [0; ANSWER];
        let mut counts = Vec::new();
        for violation in Violation::ALL {
            let element = Element { set: violation.set(), interface: interface.to_owned(), with: With::Nothing };
            self.send(&message::get(&element))?;
            let length = self.receive(&mut buffer)?;
            let answer = message::answers(&buffer[..length]).next();
            if let Some(errno) = answer.and_then(|answer| answer.errno()) {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let packets = answer.and_then(|answer| answer.packets()).ok_or(io::ErrorKind::InvalidData)?;
            counts.push((violation, packets));
        }
        Ok(counts)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // After an error the rest of a batch's answers may still be there.
        while recv(self.0.as_raw_fd(), &mut [0; ANSWER], MsgFlags::empty()).is_ok() {}
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The kernel does a request while it is sent, so the answer is there: nothing is waited for.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())?)
    }
}

/// Names reach `nft` as text.
fn check(port: &GuardedPort) -> Result<(), Error> {
    check_name(&port.interface)?;
    match &port.sources {
        Sources::Leases => Ok(()),
        Sources::Network { bridge, .. } => check_name(bridge),
    }
}
