//! One network's IPv6 as a machine without edges: frames, time and the disk's answers in; advertisements, replies and
//! writes out.
//!
//! The order that makes a lease safe is IPv4's ([`crate::engine`]): what is decided is applied and handed over with its
//! writes; its reply comes back out of [`Engine::settle`] only when they are on disk.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use super::{
    frame::{self, Body, Packet},
    message::{self, WireError},
    news::News,
    policy::Policy,
    reply::Reply,
    request::{Envelope, Kind, NoRequest, Request},
    row::Row6,
    server::{self, Decision, Ignored, Note, Outcome, View},
    table::{Binding, Change, Key, Table},
};
use crate::{
    config::{Ipv6Config, Mac, PortName},
    dns::Names,
    leases::Ticket,
    moment::Moment,
    ports::Ports,
    ra::{Advertisement, Advertiser, Answer},
    row::Write,
    v4::frame::{Checksum, FrameError},
    watch::LeaseChange,
};

/// Prefix length of a lease whose network runs without DHCPv6 and never told another.
const UNKNOWN_PREFIX: u8 = 128;

/// The machine.
#[derive(Debug)]
pub(crate) struct Engine {
    config: Option<Ipv6Config>,
    policy: Option<Policy>,
    prefix: u8,
    ports: Ports,
    table: Table,
    next_ticket: Ticket,
    names_changed: bool,
    news: News,
    advertiser: Advertiser,
    duid: Arc<[u8]>,
}

/// Changes on their way to the disk, and what to say when they are there.
#[derive(Debug)]
pub(crate) struct Submission {
    ticket: Ticket,
    changes: Vec<Change>,
    reply: Option<Reply>,
    outcomes: Vec<(Key, Outcome)>,
}

/// What came of a submission.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The reply that may leave now.
    pub(crate) reply: Option<Reply>,
    /// What is now so.
    pub(crate) outcomes: Vec<(Key, Outcome)>,
}

/// What a frame was.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A router solicitation from this host, and what to do about it.
    Solicitation { mac: Mac, from: Ipv6Addr, answer: Answer },
    /// A DHCPv6 message.
    Message(Handled),
}

/// What came of a DHCPv6 message.
#[derive(Debug)]
pub(crate) struct Handled {
    pub(crate) mac: Mac,
    pub(crate) kind: Kind,
    pub(crate) outcomes: Vec<(Key, Outcome)>,
    pub(crate) ignored: Option<Ignored>,
    pub(crate) notes: Vec<Note>,
    pub(crate) next: Next,
}

/// What to do next about it.
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    Send(Reply),
    Write(Submission, Vec<Write>),
}

/// Why a frame holds nothing to decide on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("no IPv6 is configured")]
    NoIpv6,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it is for UDP port {0}")]
    Port(u16),
    #[error(transparent)]
    Message(#[from] WireError),
    #[error(transparent)]
    Request(#[from] NoRequest),
}

impl Engine {
    /// An engine that knows what was on disk, whose server has this DUID.
    pub(crate) fn new(rows: impl IntoIterator<Item = Row6>, duid: Arc<[u8]>, now: Moment) -> Self {
        let mut prefix = UNKNOWN_PREFIX;
        let bindings = rows.into_iter().map(|row| {
            prefix = row.prefix;
            row.into_binding(now)
        });
        let table = Table::load(bindings.collect::<Vec<_>>());
        let news = News::new(table.bindings().filter(|binding| binding.is_live(now.boot)));
        Engine {
            config: None,
            policy: None,
            prefix,
            ports: Ports::default(),
            table,
            next_ticket: 1,
            names_changed: true,
            news,
            advertiser: Advertiser::default(),
            duid,
        }
    }

    /// Takes another configuration for as long as it may last; see [`crate::engine::Engine::reconfigure`].
    pub(crate) fn reconfigure(&mut self, config: Option<Ipv6Config>, now: Moment) {
        self.policy = config.as_ref().and_then(Policy::new);
        if let Some(policy) = &self.policy {
            self.prefix = policy.subnet().prefix_len();
        }
        self.advertiser.configure(config.clone(), now.boot);
        self.config = config;
        self.names_changed = true;
        for binding in self.table.bindings() {
            self.news.of(binding.key);
        }
    }

    /// Drops the bindings outside the subnet, for the configuration lasts. The writes for that are to be made durable.
    pub(crate) fn drop_strays(&mut self, now: Moment) -> Option<(Submission, Vec<Write>)> {
        let stray = self.table.bindings().filter(|binding| !self.is_here(binding.address));
        let changes: Vec<_> = stray.map(|binding| Change::Forget(binding.key)).collect();
        self.names_changed = true;
        let drop = Submission { ticket: 0, changes, reply: None, outcomes: Vec::new() };
        (!drop.changes.is_empty()).then(|| self.submit(drop, now))
    }

    /// Replaces the list of ports.
    pub(crate) fn set_ports(&mut self, ports: Vec<PortName>) {
        self.ports = Ports::new(ports);
        self.names_changed = true;
    }

    /// Drops every binding and port, after the disk has.
    pub(crate) fn forget(&mut self) {
        self.table = Table::default();
        self.ports = Ports::default();
        self.names_changed = true;
        self.news.of_everyone();
    }

    /// Takes a frame as it came, decides about it and applies the decision. `elsewhere` says which client has a name by a
    /// lease that is not IPv6's.
    pub(crate) fn handle(
        &mut self,
        frame: &[u8],
        checksum: Checksum,
        now: Moment,
        elsewhere: &dyn Fn(&str) -> Option<Mac>,
    ) -> Result<Heard, Unusable> {
        let config = self.config.as_ref().ok_or(Unusable::NoIpv6)?;
        let Packet { from_mac: mac, from, to, body } = frame::parse(frame, checksum)?;
        let (port, payload) = match body {
            Body::Solicitation => {
                let answer = self.advertiser.solicited(from, now.boot);
                return Ok(Heard::Solicitation { mac, from, answer });
            }
            Body::Datagram { from, to: frame::SERVER_PORT, payload } => (from, payload),
            Body::Datagram { to, .. } => return Err(Unusable::Port(to)),
        };
        let (relays, message) = message::parse(payload)?;
        let request = Request::read(&relays, &message, Envelope { mac, from, to, port })?;
        let (policy, duid) = (self.policy.as_ref(), &*self.duid);
        let view = View { config, policy, ports: &self.ports, table: &self.table, now, duid, elsewhere };
        let decision = server::answer(view, &request);
        self.news.heard(&request, &decision);

        let Decision { outcomes, ignored, notes, changes, reply } = decision;
        let next = if changes.iter().any(|change| change.binding_of().is_some()) {
            for (key, outcome) in &outcomes {
                self.news.because(*key, *outcome);
            }
            let submission = Submission { ticket: 0, changes, reply, outcomes: outcomes.clone() };
            let (submission, writes) = self.submit(submission, now);
            Next::Write(submission, writes)
        } else {
            reply.map_or(Next::Nothing, Next::Send)
        };
        Ok(Heard::Message(Handled { mac: request.mac, kind: request.kind, outcomes, ignored, notes, next }))
    }

    /// Says whether a submission reached the disk; if it didn't, what it changed is taken back.
    pub(crate) fn settle(&mut self, submission: Submission, written: bool) -> Settled {
        let Submission { ticket, changes, reply, outcomes } = submission;
        // What was done last is undone first.
        let order: &mut dyn Iterator<Item = &Change> =
            if written { &mut changes.iter() } else { &mut changes.iter().rev() };
        for change in order {
            self.table.settle(change, ticket, written);
            if let Some(key) = change.binding_of() {
                self.news.settled(key, written);
            }
        }
        if written {
            Settled { reply, outcomes }
        } else {
            self.names_changed = true;
            Settled::default()
        }
    }

    /// Drops what is over by `now`; `last` is when this was called last.
    pub(crate) fn tick(&mut self, now: Moment, last: Moment) {
        self.table.sweep(now.boot);
        if self.table.next_end(last.boot).is_some_and(|ends| ends <= now.boot) {
            self.names_changed = true;
            self.news.of_everyone();
        }
    }

    /// When to do something: the next lease's end, or the next advertisement.
    pub(crate) fn next(&self, now: Moment) -> Option<Duration> {
        [self.table.next_end(now.boot), self.advertiser.next()].into_iter().flatten().min()
    }

    /// The advertisement to all nodes, if one is due. `dice` is any number.
    pub(crate) fn advertise(&mut self, now: Moment, dice: u64) -> Option<Advertisement> {
        if self.advertiser.due(now.boot, dice) { self.advertiser.say(now.boot) } else { None }
    }

    /// The advertisement for one that asked.
    pub(crate) fn advertisement(&self, now: Moment) -> Option<Advertisement> {
        self.advertiser.say(now.boot)
    }

    /// The last advertisement, which takes everything back; then there are none until the next configuration.
    pub(crate) fn farewell(&mut self, now: Moment) -> Option<Advertisement> {
        self.advertiser.farewell(now.boot)
    }

    /// The names to publish, if they may have changed since the last call or others' have.
    pub(crate) fn take_names(
        &mut self,
        now: Moment,
        others_changed: bool,
        elsewhere: &dyn Fn(&str) -> Option<Mac>,
    ) -> Option<Names> {
        let changed = std::mem::take(&mut self.names_changed);
        (changed || others_changed).then(|| self.names(now, elsewhere))
    }

    /// Every name and the address it stands for, as [`crate::engine::Engine`] has them for IPv4; where another client has
    /// the name there, it stands for nothing here.
    fn names(&self, now: Moment, elsewhere: &dyn Fn(&str) -> Option<Mac>) -> Names {
        let live = || self.table.bindings().filter(|binding| self.is_lease(binding, now));
        let mut guests = BTreeSet::new();
        for (name, mac) in self.ports.named() {
            for binding in self.table.of_mac(mac).filter(|binding| self.is_lease(binding, now)) {
                guests.insert((name.to_owned(), IpAddr::V6(binding.address)));
            }
        }
        let mut claimed = BTreeSet::new();
        for binding in live() {
            let mac = binding.key.mac;
            if let Some(name) = &binding.hostname
                && !self.ports.name_is_taken(name, mac)
                && self.table.name_holder(name, now.boot) == Some(mac)
                && elsewhere(name).is_none_or(|holder| holder == mac)
            {
                claimed.insert((name.clone(), IpAddr::V6(binding.address)));
            }
        }
        let claimed = claimed.into_iter().filter(|record| !guests.contains(record)).collect::<Vec<_>>();
        Names { records: guests.into_iter().chain(claimed).collect() }
    }

    /// What happened to clients and leases since the last call, as far as the disk has it.
    pub(crate) fn take_changes(&mut self, now: Moment) -> Vec<LeaseChange> {
        let mut news = std::mem::take(&mut self.news);
        let changes = news.take(&self.table, |binding| self.is_lease(binding, now));
        self.news = news;
        changes
    }

    /// The leases that have not ended, by MAC.
    pub(crate) fn leases(&self, now: Moment) -> Vec<Row6> {
        let live = self.table.bindings().filter(|binding| self.is_lease(binding, now));
        live.map(|binding| Row6::new(binding, self.prefix, now)).collect()
    }

    /// Applies a submission's changes, gives it its ticket and makes its writes.
    fn submit(&mut self, submission: Submission, now: Moment) -> (Submission, Vec<Write>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut writes = Vec::new();
        for change in &submission.changes {
            match change {
                Change::Bind(binding) => {
                    self.names_changed |= self.changes_names(binding, now);
                    writes.push(Write::Put6(Row6::new(binding, self.prefix, now)));
                }
                Change::Forget(key) => {
                    self.names_changed = true;
                    writes.push(Write::Delete6(*key));
                }
                Change::Quarantine { .. } => {}
            }
            self.table.apply(change.clone(), ticket);
        }
        (Submission { ticket, ..submission }, writes)
    }

    /// Whether the address is of a subnet that is served. One that goes on without DHCPv6 keeps its leases until they end.
    fn is_here(&self, address: Ipv6Addr) -> bool {
        match (&self.policy, &self.config) {
            (Some(policy), _) => policy.subnet().contains(&address),
            (None, Some(config)) => config.prefixes.iter().any(|prefix| prefix.server.contains(&address)),
            // Nothing is served now.
            (None, None) => true,
        }
    }

    /// Whether a binding is a lease now: live, and in a subnet that is served if one is.
    fn is_lease(&self, binding: &Binding, now: Moment) -> bool {
        binding.is_live(now.boot) && self.is_here(binding.address)
    }

    fn changes_names(&self, binding: &Binding, now: Moment) -> bool {
        !self.table.binding(binding.key).is_some_and(|before| {
            before.is_live(now.boot) == binding.is_live(now.boot)
                && before.address == binding.address
                && before.hostname == binding.hostname
        })
    }
}
