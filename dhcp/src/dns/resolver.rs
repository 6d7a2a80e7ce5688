//! Questions in flight: who waits for what, whom we have asked, and when to do something about it.
//!
//! A pure state machine: messages, failures and `now` go in, actions come out, and `wake_at` says when time alone will
//! change something. `C` is whatever the caller needs to reach a client again; it is carried, not looked at.
//!
//! One lookup per distinct question, however many clients wait for it:
//!
//! ```text
//!            ┌──────────── silence for RETRY ───────────┐
//!            ▼                                          │
//! query ─► asking the next upstream ──────────► one or more asked ──► answer to all clients, kept
//!            ▲                                    │     │
//!            └── SERVFAIL, REFUSED, no such host ─┘     └─ nobody left to ask, or DEADLINE ─► SERVFAIL to all
//! ```
//!
//! An upstream that was silent when the next was asked may still answer: the first good answer wins. A truncated answer
//! is asked for again over TCP; a server that does not know EDNS is asked again without. What has the wrong id or
//! repeats another question is dropped, and after a few of those the same upstream is asked over TCP, where nobody
//! can slip one in.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    cache::{Bounds, Cache, Key},
    route::Routes,
    wire::{
        LONGEST, Query, Reply, Requester, Why, emit_error, emit_local, emit_refusal, emit_upstream_query, header_of,
        rcode,
    },
    zone::{Verdict, Zone},
};

/// How long an upstream may be silent before the next is asked too.
pub(super) const RETRY: Duration = Duration::from_millis(1500);

/// When clients are told that nobody answers: before a stub resolver's own five seconds are over.
pub(super) const DEADLINE: Duration = Duration::from_millis(4500);

/// The same while every upstream is known to be silent: all are asked at once.
pub(super) const SHORT_DEADLINE: Duration = RETRY;

/// How many times upstreams are asked for one question at most, not counting TCP and plain retries.
const TURNS: usize = 3;

/// After this many lookups in a row without an answer an upstream rests.
const SILENCES: u8 = 3;

/// How long a silent upstream is asked last.
const REST: Duration = Duration::from_secs(10);

/// How many wrong answers are dropped before UDP is given up for a question.
const STRAYS: u8 = 8;

/// How many may wait. Each that waits alone holds a descriptor, and up to two more while upstreams are silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Queries of all clients together.
    pub(super) total: usize,
    /// Queries of one client address.
    pub(super) per_client: usize,
    /// The cache.
    pub(super) cache: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { total: 256, per_client: 128, cache: Bounds::default() }
    }
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Names one message to one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    /// The lookup it is for; `Forget` names it too.
    pub(super) lookup: u64,
    index: usize,
}

/// What the caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<C> {
    /// Send this to a client.
    Reply { to: C, message: Vec<u8> },
    /// Send this to an upstream from a socket of its own and report what comes of it, every message, until forgotten.
    Ask { ask: Ask, upstream: SocketAddr, over: Transport, message: Vec<u8> },
    /// Nothing more is wanted of this lookup's asks: close their sockets.
    Forget { lookup: u64 },
}

/// The resolver of one network.
pub(super) struct Resolver<C> {
    zone: Zone,
    forward: bool,
    cache: Cache,
    limits: Limits,
    upstreams: Vec<Upstream>,
    /// Which of them are for which names.
    routes: Routes,
    lookups: HashMap<u64, Lookup<C>>,
    by_question: HashMap<Key, u64>,
    /// When each lookup wants to be looked at.
    timers: BTreeSet<(Instant, u64)>,
    waiting_of: HashMap<IpAddr, usize>,
    waiting: usize,
    last_lookup: u64,
    /// Unpredictable ids: half of what keeps forged answers out, the random port being the other.
    ids: Box<dyn FnMut() -> u16 + Send>,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// Lookups in a row it left unanswered.
    silences: u8,
    rests_until: Option<Instant>,
}

struct Lookup<C> {
    key: Key,
    query: Query,
    clients: Vec<Client<C>>,
    asked: Vec<Asked>,
    /// Whose turn comes next.
    turns: VecDeque<SocketAddr>,
    /// When the next turn is due; no later than the deadline.
    due: Instant,
    deadline: Instant,
    /// The first failure an upstream reported: passed on if nobody does better.
    worst: Option<Reply>,
}

struct Client<C> {
    address: IpAddr,
    to: C,
    query: Query,
    limit: usize,
}

struct Asked {
    upstream: SocketAddr,
    over: Transport,
    id: u16,
    edns: bool,
    at: Instant,
    strays: u8,
    open: bool,
}

/// What to make of a message from an upstream.
enum Judged {
    /// Not for this ask.
    Stray,
    /// It is done with, and here is how to go on.
    Again {
        over: Transport,
        edns: bool,
    },
    /// This upstream can't say.
    Failure(Option<Reply>),
    Good(Reply),
}

impl<C> Resolver<C> {
    /// A resolver that knows no upstream yet. `forward`: whether it may ask one at all.
    pub(super) fn new(zone: Zone, forward: bool, limits: Limits, ids: impl FnMut() -> u16 + Send + 'static) -> Self {
        Resolver {
            zone,
            forward,
            cache: Cache::new(limits.cache),
            limits,
            upstreams: Vec::new(),
            routes: Routes::default(),
            lookups: HashMap::new(),
            by_question: HashMap::new(),
            timers: BTreeSet::new(),
            waiting_of: HashMap::new(),
            waiting: 0,
            last_lookup: 0,
            ids: Box::new(ids),
        }
    }

    /// Replaces the network's own names.
    pub(super) fn set_zone(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// Says whether an upstream may be asked at all from now on. Without upstreams none is.
    pub(super) fn set_forward(&mut self, forward: bool) {
        self.forward = forward;
    }

    /// Replaces the upstreams. Others know other names, so nothing kept is good any more, and questions in flight are
    /// put to the new ones at once.
    pub(super) fn set_routes(&mut self, routes: Routes, now: Instant, out: &mut Vec<Action<C>>) {
        if self.routes == routes {
            return;
        }
        self.cache.clear();
        let all = routes.all().into_iter();
        self.upstreams = all.map(|address| Upstream { address, silences: 0, rests_until: None }).collect();
        self.routes = routes;
        let mut ids: Vec<u64> = self.lookups.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let turns = self.lookups.get(&id).map(|lookup| self.turns(&lookup.query, now));
            if let (Some(lookup), Some(turns)) = (self.lookups.get_mut(&id), turns) {
                lookup.turns = turns;
            }
            self.next_turn(id, now, out);
        }
    }

    /// When `tick` has something to do.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A message from a client.
    pub(super) fn query(
        &mut self,
        address: IpAddr,
        over: Transport,
        to: C,
        message: &[u8],
        now: Instant,
        out: &mut Vec<Action<C>>,
    ) {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(refusal) => {
                out.extend(emit_refusal(&refusal).map(|message| Action::Reply { to, message }));
                return;
            }
        };
        let limit = match over {
            Transport::Udp => query.udp_limit(),
            Transport::Tcp => LONGEST,
        };
        if let Some(message) = self.answer_now(&query, limit, address, now) {
            out.push(Action::Reply { to, message });
            return;
        }
        let key = Key::of(&query);
        *self.waiting_of.entry(address).or_insert(0) += 1;
        self.waiting += 1;
        let client = Client { address, to, query: query.clone(), limit };
        if let Some(lookup) = self.by_question.get(&key).and_then(|id| self.lookups.get_mut(id)) {
            lookup.clients.push(client);
            return;
        }
        self.start(key, query, client, now, out);
    }

    /// What can be said without asking anybody.
    fn answer_now(&mut self, query: &Query, limit: usize, client: IpAddr, now: Instant) -> Option<Vec<u8>> {
        let ours = |code, records: &[_], zone| emit_local(query, self.forward, code, records, zone, limit);
        let error = |code, why| Some(emit_error(query, self.forward, code, why));
        match self.zone.lookup(query) {
            Verdict::Answer { records, zone } => return Some(ours(rcode::NOERROR, &records, &zone)),
            Verdict::NoData { zone } => return Some(ours(rcode::NOERROR, &[], &zone)),
            Verdict::NoName { zone } => return Some(ours(rcode::NXDOMAIN, &[], &zone)),
            Verdict::Refused => return error(rcode::REFUSED, Some(Why::Prohibited)),
            Verdict::NotImplemented => return error(rcode::NOTIMP, None),
            Verdict::Forward => {}
        }
        if let Some((reply, age)) = self.cache.get(&Key::of(query), now) {
            return Some(reply.emit(Requester { query, limit, age, cached: true }));
        }
        if self.routes.of(&query.name).is_empty() {
            return error(rcode::SERVFAIL, Some(Why::NoReachableAuthority));
        }
        let of_client = self.waiting_of.get(&client).copied().unwrap_or(0);
        if self.waiting >= self.limits.total || of_client >= self.limits.per_client {
            return error(rcode::REFUSED, Some(Why::Prohibited));
        }
        None
    }

    fn start(&mut self, key: Key, query: Query, client: Client<C>, now: Instant, out: &mut Vec<Action<C>>) {
        self.last_lookup += 1;
        let id = self.last_lookup;
        let upstreams = self.routes.of(&query.name);
        let (count, all_rest) = (upstreams.len(), upstreams.iter().all(|address| self.rests(*address, now)));
        let deadline = now + if all_rest { SHORT_DEADLINE } else { DEADLINE };
        let turns = self.turns(&query, now);
        self.by_question.insert(key.clone(), id);
        self.timers.insert((deadline, id));
        let lookup = Lookup {
            key,
            query,
            clients: vec![client],
            asked: Vec::new(),
            turns,
            due: deadline,
            deadline,
            worst: None,
        };
        self.lookups.insert(id, lookup);
        for _ in 0..if all_rest { count } else { 1 } {
            self.next_turn(id, now, out);
        }
    }

    /// Whom to ask, in order: as listed, those at rest last, and round again.
    fn turns(&self, query: &Query, now: Instant) -> VecDeque<SocketAddr> {
        let mut order = self.routes.of(&query.name).to_vec();
        order.sort_by_key(|address| self.rests(*address, now));
        order.iter().copied().cycle().take(TURNS.max(order.len())).collect()
    }

    fn rests(&self, address: SocketAddr, now: Instant) -> bool {
        self.upstreams.iter().any(|upstream| upstream.address == address && upstream.rests(now))
    }

    /// Asks whose turn it is; gives up where nobody is left and nobody can answer any more.
    fn next_turn(&mut self, id: u64, now: Instant, out: &mut Vec<Action<C>>) {
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        match lookup.turns.pop_front() {
            Some(upstream) => self.ask(id, upstream, Transport::Udp, true, now, out),
            None if lookup.asked.iter().any(|asked| asked.open) => {
                let due = lookup.deadline;
                self.set_due(id, due);
            }
            None => self.give_up(id, now, out),
        }
    }

    fn ask(
        &mut self,
        id: u64,
        upstream: SocketAddr,
        over: Transport,
        edns: bool,
        now: Instant,
        out: &mut Vec<Action<C>>,
    ) {
        let wire_id = (self.ids)();
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let ask = Ask { lookup: id, index: lookup.asked.len() };
        lookup.asked.push(Asked { upstream, over, id: wire_id, edns, at: now, strays: 0, open: true });
        let message = emit_upstream_query(&lookup.query, wire_id, edns);
        out.push(Action::Ask { ask, upstream, over, message });
        let due = (now + RETRY).min(lookup.deadline);
        self.set_due(id, due);
    }

    fn set_due(&mut self, id: u64, due: Instant) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            self.timers.remove(&(lookup.due, id));
            lookup.due = due;
            self.timers.insert((due, id));
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Action<C>>) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            match self.lookups.get(&id) {
                Some(lookup) if now < lookup.deadline => self.next_turn(id, now, out),
                Some(_) => self.give_up(id, now, out),
                None => {
                    self.timers.remove(&(at, id));
                }
            }
        }
    }

    /// An upstream's socket brought a message.
    pub(super) fn reply(&mut self, ask: Ask, message: &[u8], now: Instant, out: &mut Vec<Action<C>>) {
        let Some(lookup) = self.lookups.get_mut(&ask.lookup) else { return };
        let query = &lookup.query;
        let Some(asked) = lookup.asked.get_mut(ask.index).filter(|asked| asked.open) else { return };
        let judged = judge(asked, query, message);
        let upstream = asked.upstream;
        if matches!(judged, Judged::Stray) {
            asked.strays += 1;
            if asked.strays < STRAYS && asked.over == Transport::Udp {
                return;
            }
        }
        asked.open = false;
        let (over, edns) = (asked.over, asked.edns);
        if !matches!(judged, Judged::Stray) {
            self.heard(upstream);
        }
        match judged {
            Judged::Stray if over == Transport::Udp => {
                self.ask(ask.lookup, upstream, Transport::Tcp, edns, now, out);
            }
            Judged::Stray => self.fail(ask.lookup, upstream, None, now, out),
            Judged::Again { over, edns } => self.ask(ask.lookup, upstream, over, edns, now, out),
            Judged::Failure(reply) => self.fail(ask.lookup, upstream, reply, now, out),
            Judged::Good(reply) => {
                let current = self.upstreams.iter().any(|known| known.address == upstream);
                self.finish(ask.lookup, reply, current, now, out);
            }
        }
    }

    /// An upstream's socket can't be had, connected or read: the port is closed, the host unreachable.
    pub(super) fn unreachable(&mut self, ask: Ask, now: Instant, out: &mut Vec<Action<C>>) {
        let lookup = self.lookups.get_mut(&ask.lookup);
        let Some(asked) = lookup.and_then(|lookup| lookup.asked.get_mut(ask.index)).filter(|asked| asked.open) else {
            return;
        };
        asked.open = false;
        let upstream = asked.upstream;
        self.fail(ask.lookup, upstream, None, now, out);
    }

    /// This upstream has nothing for this lookup: the next one's turn, now.
    fn fail(&mut self, id: u64, upstream: SocketAddr, reply: Option<Reply>, now: Instant, out: &mut Vec<Action<C>>) {
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        lookup.turns.retain(|turn| *turn != upstream);
        if lookup.worst.is_none() {
            lookup.worst = reply;
        }
        self.next_turn(id, now, out);
    }

    fn give_up(&mut self, id: u64, now: Instant, out: &mut Vec<Action<C>>) {
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let reply = lookup.worst.take();
        let reply = reply.unwrap_or_else(|| Reply::failure(&lookup.query, Why::NoReachableAuthority));
        self.finish(id, reply, true, now, out);
    }

    /// Answers everybody who waits, keeps the answer, and takes note of who stayed silent.
    fn finish(&mut self, id: u64, reply: Reply, keep: bool, now: Instant, out: &mut Vec<Action<C>>) {
        let Some(lookup) = self.lookups.remove(&id) else { return };
        self.timers.remove(&(lookup.due, id));
        self.by_question.remove(&lookup.key);
        for upstream in &mut self.upstreams {
            let asked = lookup.asked.iter().filter(|asked| asked.upstream == upstream.address);
            if asked.clone().any(|asked| asked.open && now.saturating_duration_since(asked.at) >= RETRY) {
                upstream.silences = upstream.silences.saturating_add(1);
                if upstream.silences >= SILENCES {
                    upstream.rests_until = Some(now + REST);
                }
            }
        }
        for client in lookup.clients {
            self.waiting -= 1;
            if let Some(count) = self.waiting_of.get_mut(&client.address) {
                *count -= 1;
                if *count == 0 {
                    self.waiting_of.remove(&client.address);
                }
            }
            let requester = Requester { query: &client.query, limit: client.limit, age: 0, cached: false };
            out.push(Action::Reply { to: client.to, message: reply.emit(requester) });
        }
        out.push(Action::Forget { lookup: id });
        if keep {
            self.cache.insert(lookup.key, reply, now);
        }
    }

    fn heard(&mut self, address: SocketAddr) {
        for upstream in self.upstreams.iter_mut().filter(|upstream| upstream.address == address) {
            (upstream.silences, upstream.rests_until) = (0, None);
        }
    }
}

impl Upstream {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}

/// Holds a message against what was asked.
fn judge(asked: &Asked, query: &Query, message: &[u8]) -> Judged {
    let Some((id, code)) = header_of(message) else { return Judged::Stray };
    if id != asked.id {
        return Judged::Stray;
    }
    let old = [rcode::FORMERR, rcode::NOTIMP];
    let reply = match Reply::parse(message) {
        Ok(reply) if reply.answers(query) => reply,
        // A server too old for EDNS may refuse with a bare header.
        Err(_) if asked.edns && old.contains(&code) => return Judged::Again { over: asked.over, edns: false },
        Err(_) => return Judged::Failure(None),
        Ok(_) => return Judged::Stray,
    };
    if reply.truncated() && asked.over == Transport::Udp {
        return Judged::Again { over: Transport::Tcp, edns: asked.edns };
    }
    match reply.rcode() {
        rcode::BADVERS if asked.edns => Judged::Again { over: asked.over, edns: false },
        code if asked.edns && !reply.edns() && old.contains(&code) => Judged::Again { over: asked.over, edns: false },
        rcode::SERVFAIL | rcode::REFUSED | rcode::FORMERR | rcode::NOTIMP => Judged::Failure(Some(reply)),
        _ => Judged::Good(reply),
    }
}

#[cfg(test)]
mod tests;
