//! One network's DHCP as a machine without edges: frames and the disk's answers in, replies and writes out.
//!
//! It holds the lease table, and keeps the order that makes a lease safe: a decision is applied and handed over with
//! its writes; its reply comes back out of [`Engine::settle`] only when they are on disk.

mod import;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddrV4},
    time::Duration,
};

use crate::{
    config::{Mac, PortName},
    dns::Names,
    leases::{Binding, Change, Table, Ticket},
    moment::Moment,
    news::News,
    ports::Ports,
    row::{Row, Write},
    v4::{
        Message, WireError,
        frame::{self, Checksum, Datagram, FrameError},
        options::Oddity,
        policy::Policy,
        reply::Reply,
        request::{Envelope, Kind, NoRequest, Request},
        server::{self, Decision, Note, Outcome, View},
    },
    watch::LeaseChange,
};

/// Prefix length of a lease whose network runs without DHCP and never told another.
const UNKNOWN_PREFIX: u8 = 32;

/// The machine.
#[derive(Debug)]
pub(crate) struct Engine {
    policy: Option<Policy>,
    prefix: u8,
    ports: Ports,
    table: Table,
    next_ticket: Ticket,
    names_changed: bool,
    news: News,
}

/// Changes on their way to the disk, and what to say when they are there.
#[derive(Debug)]
pub(crate) struct Submission {
    ticket: Ticket,
    changes: Vec<Change>,
    reply: Option<Reply>,
    about: Option<(Mac, Outcome)>,
}

/// What came of a submission.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The reply that may leave now.
    pub(crate) reply: Option<Reply>,
    /// What is now so: whose message it was, and what was decided about it.
    pub(crate) about: Option<(Mac, Outcome)>,
}

/// What came of a frame.
#[derive(Debug)]
pub(crate) struct Handled {
    pub(crate) mac: Mac,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) notes: Vec<Note>,
    pub(crate) oddities: Vec<Oddity>,
    pub(crate) next: Next,
}

/// What to do next about it.
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    Send(Reply),
    Write(Submission, Vec<Write>),
}

/// Why a frame holds no message to decide on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("no DHCP is configured")]
    NoDhcp,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] WireError),
    #[error(transparent)]
    Request(#[from] NoRequest),
}

impl Engine {
    /// An engine that knows what was on disk.
    pub(crate) fn new(rows: impl IntoIterator<Item = Row>, now: Moment) -> Self {
        let mut prefix = UNKNOWN_PREFIX;
        let bindings = rows.into_iter().map(|row| {
            prefix = row.prefix;
            row.into_binding(now)
        });
        let table = Table::load(bindings.collect::<Vec<_>>());
        let news = News::new(table.bindings().filter(|binding| binding.is_live(now.boot)));
        Engine { policy: None, prefix, ports: Ports::default(), table, next_ticket: 1, names_changed: true, news }
    }

    /// Takes a new configuration. Bindings outside its subnet are dropped: the writes for that are to be made durable.
    pub(crate) fn configure(&mut self, policy: Option<Policy>) -> Option<(Submission, Vec<Write>)> {
        self.reconfigure(policy);
        self.drop_strays()
    }

    /// Takes another configuration for as long as it may last. A binding outside its subnet is nobody's lease while it
    /// does, and its client is told so when it asks for more; with a configuration whose subnet has it, it is back.
    pub(crate) fn reconfigure(&mut self, policy: Option<Policy>) {
        if let Some(policy) = &policy {
            self.prefix = policy.subnet().prefix_len();
        }
        self.policy = policy;
        self.names_changed = true;
        for binding in self.table.bindings() {
            self.news.of(binding.mac);
        }
    }

    /// Drops the bindings outside the subnet, for the configuration lasts.
    pub(crate) fn drop_strays(&mut self) -> Option<(Submission, Vec<Write>)> {
        let policy = self.policy.as_ref()?;
        let stray = self.table.bindings().filter(|binding| !policy.subnet().contains(&binding.address));
        let changes: Vec<_> = stray.map(|binding| Change::Forget(binding.mac)).collect();
        self.names_changed = true;
        let drop = Submission { ticket: 0, changes, reply: None, about: None };
        (!drop.changes.is_empty()).then(|| self.submit(drop, None))
    }

    /// Replaces the list of ports.
    pub(crate) fn set_ports(&mut self, ports: Vec<PortName>) {
        self.ports = Ports::new(ports);
        self.names_changed = true;
    }

    /// Drops every binding, offer and port, after the disk has.
    pub(crate) fn forget(&mut self) {
        self.table = Table::default();
        self.ports = Ports::default();
        self.names_changed = true;
        self.news.of_everyone();
    }

    /// Takes a frame as it came, decides about it and applies the decision.
    pub(crate) fn handle(&mut self, frame: &[u8], checksum: Checksum, now: Moment) -> Result<Handled, Unusable> {
        let policy = self.policy.as_ref().ok_or(Unusable::NoDhcp)?;
        let datagram = frame::parse(frame, checksum)?;
        let (message, mut oddities) = Message::parse(datagram.payload)?;
        let envelope = Envelope { mac: datagram.from_mac, ip: *datagram.from.ip(), to: *datagram.to.ip() };
        let request = Request::read(&message, envelope, &mut oddities)?;
        let view = View { policy, ports: &self.ports, table: &self.table, now };
        let Decision { outcome, notes, changes, reply } = server::answer(view, &request);
        self.news.heard(&request, outcome);

        let (mut lasting, mut passing) = (Vec::new(), Vec::new());
        for change in changes {
            if change.binding_of().is_some() { lasting.push(change) } else { passing.push(change) }
        }
        for change in passing {
            self.table.apply(change, self.next_ticket);
        }
        let next = if !lasting.is_empty() {
            let about = Some((request.mac, outcome));
            self.news.because(request.mac, outcome);
            let (submission, writes) = self.submit(Submission { ticket: 0, changes: lasting, reply, about }, Some(now));
            Next::Write(submission, writes)
        } else {
            reply.map_or(Next::Nothing, Next::Send)
        };
        Ok(Handled { mac: request.mac, kind: request.kind, outcome, notes, oddities, next })
    }

    /// Says whether a submission reached the disk; if it didn't, what it changed is taken back.
    pub(crate) fn settle(&mut self, submission: Submission, written: bool) -> Settled {
        let Submission { ticket, changes, reply, about } = submission;
        // What was done last is undone first.
        let order: &mut dyn Iterator<Item = &Change> =
            if written { &mut changes.iter() } else { &mut changes.iter().rev() };
        for change in order {
            self.table.settle(change, ticket, written);
            if let Some(mac) = change.binding_of() {
                self.news.settled(mac, written);
            }
        }
        if written {
            Settled { reply, about }
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

    /// When the next lease ends, on the forward clock: [`Engine::tick`] then, for the sake of its name.
    pub(crate) fn next_end(&self, now: Moment) -> Option<Duration> {
        self.table.next_end(now.boot)
    }

    /// The names to publish, if they may have changed since the last call.
    pub(crate) fn take_names(&mut self, now: Moment) -> Option<Names> {
        std::mem::take(&mut self.names_changed).then(|| self.names(now))
    }

    /// Every name and the address it stands for: a guest's for each of its ports with a lease, then those clients claim.
    /// Guests' own names come before the names their clients claim: of several names for one address the first is the
    /// one a reverse look-up answers.
    fn names(&self, now: Moment) -> Names {
        let mut guests = BTreeSet::new();
        for (name, mac) in self.ports.named() {
            if let Some(binding) = self.table.binding(mac).filter(|binding| is_lease(&self.policy, binding, now)) {
                guests.insert((name.to_owned(), IpAddr::V4(binding.address)));
            }
        }
        let mut claimed = BTreeSet::new();
        for binding in self.table.bindings().filter(|binding| is_lease(&self.policy, binding, now)) {
            if let Some(name) = &binding.hostname
                && !self.ports.name_is_taken(name, binding.mac)
                && self.table.name_holder(name, now.boot) == Some(binding.mac)
            {
                claimed.insert((name.clone(), IpAddr::V4(binding.address)));
            }
        }
        let claimed = claimed.into_iter().filter(|record| !guests.contains(record)).collect::<Vec<_>>();
        Names { records: guests.into_iter().chain(claimed).collect() }
    }

    /// The client that has this name by a lease of this table.
    pub(crate) fn name_holder(&self, name: &str, now: Moment) -> Option<Mac> {
        self.table.name_holder(name, now.boot)
    }

    /// What happened to clients and leases since the last call, as far as the disk has it.
    pub(crate) fn take_changes(&mut self, now: Moment) -> Vec<LeaseChange> {
        self.news.take(&self.table, |binding| is_lease(&self.policy, binding, now))
    }

    /// The leases that have not ended, by MAC.
    pub(crate) fn leases(&self, now: Moment) -> Vec<Row> {
        let live = self.table.bindings().filter(|binding| is_lease(&self.policy, binding, now));
        live.map(|binding| Row::new(binding, self.prefix, now)).collect()
    }

    /// The frame of a reply, from a bridge with this MAC. `None` if it fits no frame, which no reply of ours is too big
    /// for.
    pub(crate) fn frame(&self, reply: &Reply, bridge: Mac) -> Option<Vec<u8>> {
        let payload = reply.message.to_bytes();
        let datagram = Datagram {
            from_mac: bridge,
            to_mac: reply.mac,
            from: SocketAddrV4::new(self.policy.as_ref()?.server(), frame::SERVER_PORT),
            to: reply.to,
            payload: &payload,
        };
        let mut frame = vec![0; frame::len(payload.len())];
        frame::emit(&datagram, &mut frame)?;
        Some(frame)
    }

    /// Applies a submission's changes, gives it its ticket and makes its writes. Without `now` it can only drop bindings.
    fn submit(&mut self, submission: Submission, now: Option<Moment>) -> (Submission, Vec<Write>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut writes = Vec::new();
        for change in &submission.changes {
            match (change, now) {
                (Change::Bind(binding), Some(now)) => {
                    self.names_changed |= self.changes_names(binding, now);
                    writes.push(Write::Put(Row::new(binding, self.prefix, now)));
                }
                (Change::Forget(mac), _) => {
                    self.names_changed = true;
                    writes.push(Write::Delete(*mac));
                }
                _ => {}
            }
            self.table.apply(change.clone(), ticket);
        }
        (Submission { ticket, ..submission }, writes)
    }

    fn changes_names(&self, binding: &Binding, now: Moment) -> bool {
        !self.table.binding(binding.mac).is_some_and(|before| {
            before.is_live(now.boot) == binding.is_live(now.boot)
                && before.address == binding.address
                && before.hostname == binding.hostname
        })
    }
}

/// Whether a binding is a lease now: live, and in the subnet that is served if one is.
fn is_lease(policy: &Option<Policy>, binding: &Binding, now: Moment) -> bool {
    binding.is_live(now.boot) && policy.as_ref().is_none_or(|policy| policy.subnet().contains(&binding.address))
}

#[cfg(test)]
mod conversations;
#[cfg(test)]
mod tests;
