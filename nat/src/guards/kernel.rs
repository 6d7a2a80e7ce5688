//! EDGE: the guards' table in the kernel: made by `nft`, its elements changed and its counters read by netlink.
//!
//! All of it happens in the caller's network namespace.

use std::{io, net::Ipv6Addr, time::Duration};

use super::{
    Change, Claim, Element, GuardedPort, Of, Sources, Violation, With, changes, claims, message, network_elements,
    network_text, own6, taken, text,
};
use crate::{
    apply::{Error, check_name, run_text},
    socket::Socket,
};

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
#[derive(Debug)]
pub struct Elements(Socket);

impl Elements {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Elements(Socket::open()?))
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

    /// Which interfaces have claimed which addresses, and how long ago they last spoke for them. Those made of a port's
    /// MAC are its own without a claim.
    pub fn claimed(&mut self) -> io::Result<Vec<(String, Ipv6Addr, Duration)>> {
        let age = |claim: Claim| Some((claim.interface, claim.address, claims::LASTS.saturating_sub(claim.left?)));
        Ok(self.claims()?.into_iter().filter_map(age).collect())
    }

    /// Every claim of every port.
    fn claims(&mut self) -> io::Result<Vec<Claim>> {
        let mut claims = Vec::new();
        self.0.dump(&message::list_set("owned6"), |answer| claims.extend(message::claims(answer)))?;
        Ok(claims)
    }

    fn has(&mut self, element: &Element) -> io::Result<bool> {
        match self.0.ask(&message::get(element), |_| Some(())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn change(&mut self, changes: &[Change]) -> io::Result<()> {
        self.0.change(message::batch(changes))
    }

    /// How many frames of a port were dropped, and for what, since the table was made or the port added.
    pub fn counts(&mut self, interface: &str) -> io::Result<Vec<(Violation, u64)>> {
        let mut counts = Vec::new();
        for violation in Violation::ALL {
            let of = Of::Interface(interface.to_owned());
            let element = Element { set: violation.set(), of, with: With::Nothing };
            counts.push((violation, self.0.ask(&message::get(&element), message::packets)?));
        }
        Ok(counts)
    }
}

/// Names reach `nft` as text.
fn check(port: &GuardedPort) -> Result<(), Error> {
    check_name(&port.interface)?;
    check_name(&port.sources.bridge)
}
