//! EDGE: the guards' table in the kernel: made by `nft`, its elements changed and its counters read by netlink.
//!
//! All of it happens in the caller's network namespace.

use std::{
    io,
    net::Ipv6Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};

use super::{
    Change, Claim, Element, GuardedPort, Of, Sources, Violation, With, changes, claims, message, network_elements,
    network_text, own6, taken, text,
};
use crate::apply::{Error, check_name, run_text};

/// Room for the longest of the kernel's answers: it repeats no more than a message's head.
const ANSWER: usize = 8192;

/// Makes the whole table anew with these ports and no others, without a gap. Their claims stay, if `elements` can still
/// read them; counters begin at zero.
pub async fn replace(elements: &mut Elements, ports: &[GuardedPort]) -> Result<(), Error> {
    ports.iter().try_for_each(check)?;
    // A claim made between here and there is made again by the next packet.
    let claims = elements.claims().unwrap_or_default();
    run_text(text(ports, &claims).as_bytes()).await
}

/// Makes a network's chains, to which elements of its ports lead. Fine if they are there; an error where the table is
/// not.
pub async fn add_network(sources: &Sources) -> Result<(), Error> {
    check_name(&sources.bridge)?;
    match network_text(sources) {
        text if text.is_empty() => Ok(()),
        text => run_text(text.as_bytes()).await,
    }
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
        self.change(&changes(before, after, gone))
    }

    /// Takes what is a port's own, by its MAC or by lease, from whoever has claimed it, itself included: then it can be
    /// its own without end. Returns the interfaces of others, and their addresses.
    pub fn evict(&mut self, port: &GuardedPort) -> io::Result<Vec<(String, Ipv6Addr)>> {
        let mut own = Vec::new();
        for address in own6(port) {
            if self.has(&taken(&port.sources, address))? {
                own.push(address);
            }
        }
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let others = |claim: &Claim| own.contains(&claim.address);
        // Those of other networks, whose claims these are not, claim them again with their next packet.
        let evicted: Vec<Claim> =
            self.claims()?.into_iter().filter(others).filter(|claim| claim.left.is_some()).collect();
        let mut changes: Vec<Change> =
            own.iter().map(|address| Change::Remove(taken(&port.sources, *address))).collect();
        changes.extend(evicted.iter().map(|claim| Change::Remove(claims::owned(&claim.interface, claim.address))));
        self.change(&changes)?;
        let evicted = evicted.into_iter().filter(|claim| claim.interface != port.interface);
        Ok(evicted.map(|claim| (claim.interface, claim.address)).collect())
    }

    /// Frees what ports have claimed: they are gone.
    pub fn release(&mut self, ports: &[GuardedPort]) -> io::Result<()> {
        let mut changes = Vec::new();
        for claim in self.claims()? {
            let Some(port) = ports.iter().find(|port| port.interface == claim.interface) else { continue };
            changes.push(Change::Remove(claims::owned(&claim.interface, claim.address)));
            let taken = taken(&port.sources, claim.address);
            if !network_elements(&port.sources).any(|element| element == taken) {
                changes.push(Change::Remove(taken));
            }
        }
        self.change(&changes)
    }

    /// Every claim of every port.
    fn claims(&mut self) -> io::Result<Vec<Claim>> {
        // A dump's datagrams are as long as the reader has room for, up to 32 KiB.
        let mut buffer = vec![0; 32 << 10];
        let mut claims = Vec::new();
        self.send(&message::list_set("owned6"))?;
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in message::answers(&buffer[..length]) {
                if let Some(errno) = answer.errno() {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                claims.extend(answer.claims());
                if answer.is_last() {
                    return Ok(claims);
                }
            }
        }
    }

    fn has(&mut self, element: &Element) -> io::Result<bool> {
        let mut buffer = [0; ANSWER];
        self.send(&message::get(element))?;
        let length = self.receive(&mut buffer)?;
        let errno = message::answers(&buffer[..length]).next().and_then(|answer| answer.errno());
        match errno.map(io::Error::from_raw_os_error) {
            None => Ok(true),
            Some(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Some(error) => Err(error),
        }
    }

    fn change(&mut self, changes: &[Change]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let (bytes, last) = message::batch(changes);
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
            let of = Of::Interface(interface.to_owned());
            let element = Element { set: violation.set(), of, with: With::Nothing };
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
    check_name(&port.sources.bridge)
}
