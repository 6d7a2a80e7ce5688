//! The DHCPv4 server's decisions (RFC 2131 §4.3): one message in, what to change and what to say out.
//!
//! It is authoritative: the bridge is ours, so a client with an address that can't be right is told so at once. It
//! never waits, probes, or keeps anything between messages but the lease table, which it only reads.
//!
//! ```text
//! DISCOVER ─► choose ─► OFFER, or ACK if asked (option 80)     RELEASE ─► remembered
//! REQUEST ─┬ SELECTING    for another server ─► offer withdrawn, silence
//!          │              for us             ─► judge ─► ACK or NAK
//!          ├ INIT-REBOOT  option 50          ─► judge ─► ACK or NAK
//!          └ RENEWING, REBINDING  ciaddr     ─► judge ─► ACK or NAK
//! DECLINE  ─► quarantined                                      INFORM  ─► ACK without a lease
//! BOOTP    ─► a reservation? ─► its address for ever
//! ```
//!
//! An ACK for an address nobody is known to have is right: that is how a client whose lease was lost goes on.

use std::{fmt, net::Ipv4Addr, time::Duration};

use super::{
    policy::{Policy, Reserved},
    reply::Reply,
    request::{Kind, ReplyKind, Request},
};
use crate::{
    config::{LeaseTime, Mac},
    leases::{Binding, Change, Holder, Table},
    moment::Moment,
    ports::Ports,
};

/// How long an offer is kept for its client: longer than any client takes to choose.
const OFFER_HOLD: Duration = Duration::from_secs(60);

/// How long an address somebody else was found to use stays out of the pool.
const QUARANTINE: Duration = Duration::from_secs(600);

/// All a decision depends on, besides the message.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) ports: &'a Ports,
    pub(crate) table: &'a Table,
    pub(crate) now: Moment,
}

/// What to do about a message: the changes, in order, then the reply once those of them that last are on disk.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    pub(crate) notes: Vec<Note>,
    pub(crate) changes: Vec<Change>,
    pub(crate) reply: Option<Reply>,
}

/// A decision in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Offered(Ipv4Addr),
    /// `fresh` if the client did not have the address until now.
    Acked {
        address: Ipv4Addr,
        fresh: bool,
    },
    Refused(NakReason),
    Released(Ipv4Addr),
    Declined(Ipv4Addr),
    Informed,
    Ignored(Ignored),
}

/// Why a client may not have the address it names. The text goes out with the NAK (option 56).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NakReason {
    WrongNetwork,
    NotForClients,
    InUse,
    Quarantined,
    Reserved,
    HasReservation,
    HasAnother,
}

impl fmt::Display for NakReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NakReason::WrongNetwork => "wrong network",
            NakReason::NotForClients => "address is not for clients",
            NakReason::InUse => "address is in use",
            NakReason::Quarantined => "address was declined",
            NakReason::Reserved => "address is reserved for another client",
            NakReason::HasReservation => "another address is reserved for the client",
            NakReason::HasAnother => "the client has another address",
        })
    }
}

/// Why a message is met with silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// Sent to another host through us.
    ForAnotherHost,
    /// Sent by a relay of another subnet.
    UnknownRelay,
    /// It speaks for a port's MAC, but came from another.
    NotTheOwner,
    /// A REQUEST for another server's offer (RFC 2131 §3.1, step 4).
    AnotherServer,
    /// No address in it.
    NoAddress,
    /// The client doesn't have the address it gives up.
    NoLease,
    /// Every address has a lease.
    PoolExhausted,
    /// A BOOTP client keeps what it gets for ever: it gets nothing but an address reserved for it.
    NoReservation,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ignored::ForAnotherHost => "sent to another host",
            Ignored::UnknownRelay => "relayed from another subnet",
            Ignored::NotTheOwner => "sent by another MAC than the one it speaks for",
            Ignored::AnotherServer => "meant for another server",
            Ignored::NoAddress => "names no address",
            Ignored::NoLease => "the client doesn't have that address",
            Ignored::PoolExhausted => "every address has a lease",
            Ignored::NoReservation => "it speaks BOOTP and no address that is free is reserved for it",
        })
    }
}

/// Something a person may want to know, beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The client got no name, for another has it.
    NameTaken(String),
    /// The client got another address than the one reserved for it, which another client has.
    ReservationTaken(Ipv4Addr),
}

/// Where in its life a client is that sends a REQUEST (RFC 2131 §4.3.2, table 4).
enum Phase {
    /// SELECTING: it answers an offer.
    Selecting(Ipv4Addr),
    /// INIT-REBOOT: it has been away.
    Returning(Ipv4Addr),
    /// RENEWING or REBINDING: it uses the address.
    Extending(Ipv4Addr),
}

/// Decides what to do about a message.
pub(crate) fn answer(view: View<'_>, request: &Request) -> Decision {
    if let Err(ignored) = view.accept(request) {
        return Decision::ignore(ignored);
    }
    let claimed = view.claimed_name(request);
    let own = view.reservation(request.mac, claimed.as_deref());
    match request.kind {
        Kind::Discover => view.discover(request, own, claimed),
        Kind::Request => view.request(request, own, claimed),
        Kind::Release => view.release(request),
        Kind::Decline => view.decline(request),
        Kind::Inform => Decision::new(Outcome::Informed, view.informed(request, own)),
        Kind::Bootp => view.bootp(request, own, claimed),
    }
}

impl View<'_> {
    /// Whether the message is ours to answer.
    fn accept(&self, request: &Request) -> Result<(), Ignored> {
        let (sender, subnet) = (&request.sender, self.policy.subnet());
        if ![Ipv4Addr::BROADCAST, subnet.broadcast(), subnet.addr()].contains(&sender.to) {
            return Err(Ignored::ForAnotherHost);
        }
        if !request.giaddr.is_unspecified() && !subnet.contains(&request.giaddr) {
            return Err(Ignored::UnknownRelay);
        }
        // A port is on this very bridge: nobody else speaks for it, and no relay is in between.
        if self.ports.contains(request.mac) && sender.mac != request.mac {
            return Err(Ignored::NotTheOwner);
        }
        Ok(())
    }

    fn discover(&self, request: &Request, own: Option<Reserved<'_>>, claimed: Option<String>) -> Decision {
        let Some(choice) = self.choose(request, own) else {
            return Decision::ignore(Ignored::PoolExhausted);
        };
        let (mac, address) = (request.mac, choice.address);
        let lease = self.policy.lease_time(address, own, request.lease);
        let mut decision = if request.rapid_commit {
            // RFC 4039 §3.1. There is no other server on the bridge whose offers it could want to see.
            self.bind(request, own, address, lease, claimed)
        } else {
            Decision::new(Outcome::Offered(address), self.granted(request, own, ReplyKind::Offer, address, lease))
        };
        decision.notes.extend(choice.reservation_taken.map(Note::ReservationTaken));
        if !request.rapid_commit {
            decision.changes.push(Change::Offer { mac, address, until: self.now.boot + OFFER_HOLD });
        }
        decision
    }

    /// RFC 951: an address without end, so only one that is reserved (RFC 1534 §2 leaves the choice to the server).
    fn bootp(&self, request: &Request, own: Option<Reserved<'_>>, claimed: Option<String>) -> Decision {
        match own.and_then(|own| own.host.address).filter(|address| self.is_free_for_owner(*address, request.mac)) {
            Some(address) => self.bind(request, own, address, LeaseTime::Infinite, claimed),
            None => Decision::ignore(Ignored::NoReservation),
        }
    }

    fn request(&self, request: &Request, own: Option<Reserved<'_>>, claimed: Option<String>) -> Decision {
        let phase = match self.phase(request) {
            Ok(phase) => phase,
            Err(ignored) => {
                let mut decision = Decision::ignore(ignored);
                if ignored == Ignored::AnotherServer && self.table.offer(request.mac, self.now.boot).is_some() {
                    decision.changes.push(Change::Withdraw(request.mac));
                }
                return decision;
            }
        };
        let (Phase::Selecting(address) | Phase::Returning(address) | Phase::Extending(address)) = phase;
        match self.judge(address, request.mac, own) {
            Ok(()) => {
                let granted = self.policy.lease_time(address, own, request.lease);
                self.bind(request, own, address, granted, claimed)
            }
            Err(reason) => Decision::new(Outcome::Refused(reason), self.refused(request, reason)),
        }
    }

    fn phase(&self, request: &Request) -> Result<Phase, Ignored> {
        let used = (!request.ciaddr.is_unspecified()).then_some(request.ciaddr);
        match (request.server, request.requested, used) {
            (Some(server), ..) if server != self.policy.server() => Err(Ignored::AnotherServer),
            (Some(_), Some(address), _) | (Some(_), None, Some(address)) => Ok(Phase::Selecting(address)),
            (None, _, Some(address)) => Ok(Phase::Extending(address)),
            (None, Some(address), None) => Ok(Phase::Returning(address)),
            (_, None, None) => Err(Ignored::NoAddress),
        }
    }

    fn bind(
        &self,
        request: &Request,
        own: Option<Reserved<'_>>,
        address: Ipv4Addr,
        granted: LeaseTime,
        claimed: Option<String>,
    ) -> Decision {
        let mac = request.mac;
        let before = self.table.binding(mac);
        let fresh = !before.is_some_and(|before| before.address == address && before.is_live(self.now.boot));
        let mut decision = Decision::new(
            Outcome::Acked { address, fresh },
            self.granted(request, own, ReplyKind::Ack, address, granted),
        );
        let hostname = match own.and_then(|own| own.host.name.clone()) {
            Some(name) => Some(name),
            None => claimed.filter(|name| {
                let free = self.is_name_free(name, mac, own);
                if !free {
                    decision.notes.push(Note::NameTaken(name.clone()));
                }
                free
            }),
        };
        let client_id = request.client_id.clone().or_else(|| before.and_then(|before| before.client_id.clone()));
        match self.table.holder(address, self.now.boot) {
            Holder::Remembered(other, _) if other != mac => decision.changes.push(Change::Forget(other)),
            Holder::Offered(other, _) if other != mac => decision.changes.push(Change::Withdraw(other)),
            _ => {}
        }
        let ends = self.now.end_of(granted);
        decision.changes.push(Change::Bind(Binding { mac, address, hostname, client_id, granted, ends }));
        decision
    }

    pub(super) fn is_name_free(&self, name: &str, mac: Mac, own: Option<Reserved<'_>>) -> bool {
        !self.ports.name_is_taken(name, mac)
            && !self.policy.is_name_of_another(name, own)
            && self.table.name_holder(name, self.now.boot).is_none_or(|holder| holder == mac)
    }

    fn release(&self, request: &Request) -> Decision {
        if request.server != Some(self.policy.server()) {
            return Decision::ignore(Ignored::AnotherServer);
        }
        match self.table.binding(request.mac) {
            Some(binding) if binding.address == request.ciaddr && binding.is_live(self.now.boot) => {
                let mut decision = Decision::silent(Outcome::Released(binding.address));
                decision.changes.push(Change::Bind(Binding { ends: Some(self.now.boot), ..binding.clone() }));
                decision
            }
            _ => Decision::ignore(Ignored::NoLease),
        }
    }

    fn decline(&self, request: &Request) -> Decision {
        if request.server != Some(self.policy.server()) {
            return Decision::ignore(Ignored::AnotherServer);
        }
        let Some(address) = request.requested else {
            return Decision::ignore(Ignored::NoAddress);
        };
        let mac = request.mac;
        let bound = self.table.binding(mac).is_some_and(|binding| binding.address == address);
        let offered = self.table.offer(mac, self.now.boot) == Some(address);
        if !bound && !offered {
            return Decision::ignore(Ignored::NoLease);
        }
        let mut decision = Decision::silent(Outcome::Declined(address));
        if bound {
            decision.changes.push(Change::Forget(mac));
        }
        if offered {
            decision.changes.push(Change::Withdraw(mac));
        }
        decision.changes.push(Change::Quarantine { address, until: self.now.boot + QUARANTINE });
        decision
    }
}

impl Decision {
    fn new(outcome: Outcome, reply: Reply) -> Self {
        Decision { outcome, notes: Vec::new(), changes: Vec::new(), reply: Some(reply) }
    }

    fn silent(outcome: Outcome) -> Self {
        Decision { outcome, notes: Vec::new(), changes: Vec::new(), reply: None }
    }

    fn ignore(ignored: Ignored) -> Self {
        Decision::silent(Outcome::Ignored(ignored))
    }
}
