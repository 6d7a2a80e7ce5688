//! The DHCPv6 server's decisions (RFC 8415 §18.3): one message in, what to change and what to say out.
//!
//! The bridge is ours and no other server is on it. The server never waits or probes, and keeps nothing between messages
//! but the lease table, which it only reads.
//!
//! ```text
//! SOLICIT ─┬ rapid commit ─► grant ─► REPLY          CONFIRM ─► is it this link? ─► REPLY
//!          └ else ─► ADVERTISE                       RELEASE ─► remembered ─► REPLY
//! REQUEST, RENEW, REBIND ─► grant ─► REPLY           DECLINE ─► quarantined ─► REPLY
//!                                                    INFORMATION-REQUEST ─► REPLY without a lease
//! ```
//!
//! A RENEW or REBIND of a lease nobody is known to have makes it anew (§18.3.4): that is how a client whose lease was lost
//! goes on.

use std::{fmt, net::Ipv6Addr, time::Duration};

use super::{
    message::kind,
    policy::{Policy, Reserved},
    reply::{Reply, Status, Told, Writer},
    request::{Association, FqdnFlags, Kind, Of, Request},
    table::{Binding, Change, Holder, Key, Table},
};
use crate::{
    config::{Ipv6Config, Mac},
    moment::Moment,
    ports::Ports,
};

/// How long an address somebody else was found to use stays out of the pool.
const QUARANTINE: Duration = Duration::from_secs(600);

/// Live leases of one MAC: nobody has more interfaces behind it than that, and who says so is after our memory.
const MAX_PER_MAC: usize = 16;

/// Leases of one network, remembered ones included. Beyond that, those that ended longest ago are forgotten.
const MAX_LEASES: usize = 65_536;

/// All a decision depends on, besides the message.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) config: &'a Ipv6Config,
    /// None where the network has no DHCPv6.
    pub(crate) policy: Option<&'a Policy>,
    pub(crate) ports: &'a Ports,
    pub(crate) table: &'a Table,
    pub(crate) now: Moment,
    /// Our DUID.
    pub(crate) duid: &'a [u8],
    /// The client that has a name by another lease than of this table.
    pub(crate) elsewhere: &'a dyn Fn(&str) -> Option<Mac>,
}

/// What to do about a message: the changes, in order, then the reply once those of them that last are on disk.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What becomes of each association that something becomes of.
    pub(crate) outcomes: Vec<(Key, Outcome)>,
    pub(crate) ignored: Option<Ignored>,
    pub(crate) notes: Vec<Note>,
    pub(crate) changes: Vec<Change>,
    pub(crate) reply: Option<Reply>,
}

/// What becomes of an association, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Offered(Ipv6Addr),
    /// `fresh` if the client did not have the address until now.
    Leased {
        address: Ipv6Addr,
        fresh: bool,
    },
    Released(Ipv6Addr),
    Declined(Ipv6Addr),
    Exhausted,
}

/// Why a message is met with silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// Sent to another host through us, or to us where only all servers may be asked (§16).
    Unicast,
    /// Sent by a relay of another link.
    UnknownRelay,
    /// It speaks for a port's MAC, but came from another.
    NotTheOwner,
    /// For another server.
    AnotherServer,
    /// A Confirm without addresses (§18.3.3).
    NoAddress,
    /// The network has no DHCPv6.
    NoDhcp,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ignored::Unicast => "not sent to all servers",
            Ignored::UnknownRelay => "relayed from another link",
            Ignored::NotTheOwner => "sent by another MAC than the one it speaks for",
            Ignored::AnotherServer => "meant for another server",
            Ignored::NoAddress => "names no address",
            Ignored::NoDhcp => "this network gives out no addresses by DHCPv6",
        })
    }
}

/// Something a person may want to know, beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The client got no name, for another has it.
    NameTaken(String),
    /// The client got another address than the one reserved for it, which somebody else has.
    ReservationTaken(Ipv6Addr),
}

/// Decides what to do about a message.
pub(crate) fn answer(view: View<'_>, request: &Request) -> Decision {
    if let Err(ignored) = view.accept(request) {
        return Decision::ignore(ignored);
    }
    if request.is_unicast() {
        // No client was told that it may (§18.3.2, §21.12).
        let mut writer = Writer::new(kind::REPLY, &view, request);
        writer.status(Status::UseMulticast);
        return Decision::reply(writer.finish(request));
    }
    if request.kind == Kind::Information {
        let mut writer = Writer::new(kind::REPLY, &view, request);
        writer.configure(&view, request);
        return Decision::reply(writer.finish(request));
    }
    let Some(policy) = view.policy else { return Decision::ignore(Ignored::NoDhcp) };
    match request.kind {
        Kind::Confirm => view.confirm(policy, request),
        Kind::Release | Kind::Decline => view.give_up(request),
        _ => view.grant(policy, request),
    }
}

impl View<'_> {
    /// Whether the message is ours to answer.
    fn accept(&self, request: &Request) -> Result<(), Ignored> {
        if request.is_unicast() {
            let to = request.sender.to;
            let ours =
                to.is_unicast_link_local() || self.config.prefixes.iter().any(|prefix| prefix.server.addr() == to);
            let may = matches!(request.kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline);
            if !ours || !may {
                return Err(Ignored::Unicast);
            }
        }
        if request.server.as_deref().is_some_and(|server| server != self.duid) {
            return Err(Ignored::AnotherServer);
        }
        // The relay next to the client says where that is; one that only forwards frames says nothing (RFC 6221 §5.3.1).
        let on_link = |link: Ipv6Addr| {
            let known = self.config.prefixes.iter().any(|prefix| prefix.server.contains(&link));
            known || link.is_unspecified() || link.is_unicast_link_local()
        };
        if request.relays.last().is_some_and(|relay| !on_link(relay.link)) {
            return Err(Ignored::UnknownRelay);
        }
        // A port is on this very bridge: nobody else speaks for it, and no relay is in between.
        if self.ports.contains(request.mac) && request.sender.mac != request.mac {
            return Err(Ignored::NotTheOwner);
        }
        Ok(())
    }

    /// SOLICIT, REQUEST, RENEW and REBIND: every association is given an address, if there is one.
    fn grant(&self, policy: &Policy, request: &Request) -> Decision {
        let commit = request.kind != Kind::Solicit || request.rapid;
        let claimed = self.claimed_name(request);
        let own = self.reservation(policy, request, claimed.as_deref());
        let mut decision = Decision::silent();
        let hostname = self.hostname(policy, request, claimed, own, &mut decision.notes);
        let (mut told, mut taken) = (Vec::new(), Vec::new());
        let duid = request.duid.as_deref().unwrap_or_default();
        for association in &request.associations {
            let known = self.table.len() + decision.changes.len();
            told.push(match association.of {
                Of::Addresses if request.kind == Kind::Request && self.is_elsewhere(policy, association) => {
                    Told::refusal(association, Status::NotOnLink)
                }
                Of::Addresses => {
                    let key = Key { mac: request.mac, iaid: association.iaid };
                    let full = self.is_full(key, known, &mut decision.changes);
                    let address = (!full)
                        .then(|| self.choose(policy, (key, duid), &association.addresses, own, &taken))
                        .flatten();
                    match address {
                        Some(address) => {
                            taken.push(address);
                            self.lease(policy, request, key, address, hostname.clone(), own, commit, &mut decision);
                            Told {
                                granted: Some((address, policy.lease_time(address, own))),
                                ended: self.ended(request, association, Some(address)),
                                ..Told::empty(association)
                            }
                        }
                        None => {
                            decision.outcomes.push((key, Outcome::Exhausted));
                            let has = matches!(request.kind, Kind::Renew | Kind::Rebind);
                            let status = if has { Status::NoBinding } else { Status::NoAddrsAvail };
                            let ended = self.ended(request, association, None);
                            Told { ended, ..Told::refusal(association, status) }
                        }
                    }
                }
                Of::Temporary => Told::refusal(association, Status::NoAddrsAvail),
                Of::Prefixes => Told::refusal(association, Status::NoPrefixAvail),
            });
        }
        // Nothing was committed to: the client may hear of it as of any offer (§18.3.1).
        let rapid = request.kind == Kind::Solicit && request.rapid && !taken.is_empty();
        let advertise = request.kind == Kind::Solicit && !rapid;
        let mut writer = Writer::new(if advertise { kind::ADVERTISE } else { kind::REPLY }, self, request);
        if advertise {
            writer.preference();
        }
        if rapid {
            writer.rapid_commit();
        }
        told.iter().for_each(|told| writer.association(told));
        writer.configure(self, request);
        writer.fqdn(self, request, hostname.as_deref());
        decision.reply = Some(writer.finish(request));
        if let Some(reserved) = own.and_then(|own| own.host.address).filter(|address| !taken.contains(address)) {
            decision.notes.extend((!taken.is_empty()).then_some(Note::ReservationTaken(reserved)));
        }
        decision
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `grant`, apart for its length")]
    fn lease(
        &self,
        policy: &Policy,
        request: &Request,
        key: Key,
        address: Ipv6Addr,
        hostname: Option<String>,
        own: Option<Reserved<'_>>,
        commit: bool,
        decision: &mut Decision,
    ) {
        if !commit {
            decision.outcomes.push((key, Outcome::Offered(address)));
            return;
        }
        let before = self.table.binding(key);
        let fresh = !before.is_some_and(|before| before.address == address && before.is_live(self.now.boot));
        decision.outcomes.push((key, Outcome::Leased { address, fresh }));
        match self.table.holder(address, self.now.boot) {
            Holder::Remembered(other, _) | Holder::Leased(other) if other != key => {
                decision.changes.push(Change::Forget(other));
            }
            _ => {}
        }
        let granted = policy.lease_time(address, own);
        let ends = self.now.end_of(granted);
        let duid = request.duid.clone().unwrap_or_default();
        decision.changes.push(Change::Bind(Binding { key, address, duid, hostname, granted, ends }));
    }

    /// Whether there can be no more leases; makes room where there can.
    fn is_full(&self, key: Key, known: usize, changes: &mut Vec<Change>) -> bool {
        let now = self.now.boot;
        if self.table.binding(key).is_some() {
            return false;
        }
        let others = self.table.of_mac(key.mac).filter(|binding| binding.is_live(now)).count();
        if others >= MAX_PER_MAC {
            return true;
        }
        if known < MAX_LEASES {
            return false;
        }
        match self.table.oldest_ended(now) {
            Some(oldest) => {
                changes.push(Change::Forget(oldest));
                false
            }
            None => true,
        }
    }

    fn is_elsewhere(&self, policy: &Policy, association: &Association) -> bool {
        association.addresses.iter().any(|address| !policy.subnet().contains(address))
    }

    /// Addresses that the client says it has, and is not to use any more (§18.3.4, §18.3.5).
    fn ended(&self, request: &Request, association: &Association, granted: Option<Ipv6Addr>) -> Vec<Ipv6Addr> {
        if !matches!(request.kind, Kind::Renew | Kind::Rebind) {
            return Vec::new();
        }
        association.addresses.iter().copied().filter(|address| Some(*address) != granted).collect()
    }

    /// Whether the client's addresses are of this link; that is all it asks (§18.3.3).
    fn confirm(&self, policy: &Policy, request: &Request) -> Decision {
        let mut addresses = request.associations.iter().flat_map(|association| &association.addresses).peekable();
        if addresses.peek().is_none() {
            return Decision::ignore(Ignored::NoAddress);
        }
        let here = addresses.all(|address| policy.subnet().contains(address));
        let mut writer = Writer::new(kind::REPLY, self, request);
        writer.status(if here { Status::Success } else { Status::NotOnLink });
        Decision::reply(writer.finish(request))
    }

    /// RELEASE and DECLINE: whatever comes of it, the client hears that all is well (§18.3.7, §18.3.8).
    fn give_up(&self, request: &Request) -> Decision {
        let mut decision = Decision::silent();
        let mut writer = Writer::new(kind::REPLY, self, request);
        writer.status(Status::Success);
        for association in &request.associations {
            let key = Key { mac: request.mac, iaid: association.iaid };
            let binding = self.table.binding(key).filter(|binding| {
                association.of == Of::Addresses
                    && binding.is_live(self.now.boot)
                    && association.addresses.contains(&binding.address)
            });
            let Some(binding) = binding else {
                writer.association(&Told::refusal(association, Status::NoBinding));
                continue;
            };
            let address = binding.address;
            if request.kind == Kind::Release {
                decision.outcomes.push((key, Outcome::Released(address)));
                decision.changes.push(Change::Bind(Binding { ends: Some(self.now.boot), ..binding.clone() }));
            } else {
                decision.outcomes.push((key, Outcome::Declined(address)));
                decision.changes.push(Change::Forget(key));
                decision.changes.push(Change::Quarantine { address, until: self.now.boot + QUARANTINE });
            }
        }
        decision.reply = Some(writer.finish(request));
        decision
    }

    /// The name a client has a right to speak under: the one it sends, else the one it is known by. One that wants none
    /// made known has none.
    fn claimed_name(&self, request: &Request) -> Option<String> {
        if request.fqdn.is_some_and(|FqdnFlags(flags)| flags & FqdnFlags::NOBODY != 0) {
            return None;
        }
        let known = || self.table.of_mac(request.mac).find_map(|binding| binding.hostname.clone());
        request.hostname.clone().or_else(known)
    }

    /// What the configuration keeps for a client: by DUID, by its guest's name, or by a name it claims and no guest has.
    fn reservation<'a>(&self, policy: &'a Policy, request: &Request, claimed: Option<&str>) -> Option<Reserved<'a>> {
        let duid = request.duid.as_deref().unwrap_or_default();
        let claimed = claimed.filter(|name| !self.ports.name_is_taken(name, request.mac));
        policy.reservation(duid, self.ports.name(request.mac)).or_else(|| policy.reservation(duid, claimed))
    }

    /// The name the client's leases get.
    fn hostname(
        &self,
        policy: &Policy,
        request: &Request,
        claimed: Option<String>,
        own: Option<Reserved<'_>>,
        notes: &mut Vec<Note>,
    ) -> Option<String> {
        if let Some(name) = own.and_then(|own| own.host.name.clone()) {
            return Some(name);
        }
        let name = claimed?;
        let holder = self.table.name_holder(&name, self.now.boot).or_else(|| (self.elsewhere)(&name));
        let free = !self.ports.name_is_taken(&name, request.mac)
            && !policy.is_name_of_another(&name, own)
            && holder.is_none_or(|holder| holder == request.mac);
        if !free {
            notes.push(Note::NameTaken(name));
            return None;
        }
        Some(name)
    }
}

impl Told {
    fn empty(association: &Association) -> Self {
        Told { of: association.of, iaid: association.iaid, granted: None, ended: Vec::new(), status: None }
    }

    fn refusal(association: &Association, status: Status) -> Self {
        Told { status: Some(status), ..Told::empty(association) }
    }
}

impl Decision {
    fn silent() -> Self {
        Decision { outcomes: Vec::new(), ignored: None, notes: Vec::new(), changes: Vec::new(), reply: None }
    }

    fn reply(reply: Reply) -> Self {
        Decision { reply: Some(reply), ..Decision::silent() }
    }

    fn ignore(ignored: Ignored) -> Self {
        Decision { ignored: Some(ignored), ..Decision::silent() }
    }
}
