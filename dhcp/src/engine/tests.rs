//! Random clients on a failing disk and a restarting daemon: no address is ever two clients' at once.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::{Engine, Handled, LeaseChange, Next, Outcome, Submission, Unusable};
use crate::{
    config::{Dhcp4Config, LeaseTime, Mac, PortName, Range4, Reservation4},
    moment::Moment,
    row::{Row, Write},
    testing::Random,
    v4::{
        Message, Op,
        frame::{self, Checksum, Datagram, FrameError},
        options::{Options, code},
        policy::Policy,
        reply::Reply,
    },
    watch::LeaseKind,
};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn policy() -> Policy {
    let address = |last| Ipv4Addr::new(10, 0, 0, last);
    let reserved = |client: u8, last| Reservation4 {
        mac: Some(Mac([0x52, 0x54, 0, 0, 0, client])),
        name: None,
        address: Some(address(last)),
        lease: None,
    };
    Policy::new(Dhcp4Config {
        server: "10.0.0.1/24".parse().unwrap(),
        ranges: vec![Range4 { start: address(10), end: address(14), lease: LeaseTime::Seconds(300) }],
        hosts: vec![reserved(1, 11), reserved(2, 40)],
        router: Some(SERVER),
        dns: vec![],
        domain: None,
        mtu: None,
        routes: vec![],
        boot: None,
        options: Vec::new(),
    })
}

fn mac(client: u64) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, client as u8])
}

fn frame(kind: u8, mac: Mac, ciaddr: Ipv4Addr, options: &[(u8, Ipv4Addr)]) -> Vec<u8> {
    let mut list = Options::new();
    list.push(code::MESSAGE_TYPE, &[kind]);
    options.iter().for_each(|(code, address)| list.push(*code, &address.octets()));
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&mac.0);
    let none = Ipv4Addr::UNSPECIFIED;
    let message = Message {
        op: Op::Request,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid: 1,
        secs: 0,
        flags: 0,
        ciaddr,
        yiaddr: none,
        siaddr: none,
        giaddr: none,
        chaddr,
        sname: Vec::new(),
        file: Vec::new(),
        options: list,
    };
    let payload = message.to_bytes();
    let datagram = Datagram {
        from_mac: mac,
        to_mac: frame::BROADCAST_MAC,
        from: SocketAddrV4::new(ciaddr, 68),
        to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
        payload: &payload,
    };
    let mut bytes = vec![0; frame::len(payload.len())];
    frame::emit(&datagram, &mut bytes).unwrap();
    bytes
}

/// A change on its way to the disk.
struct Waiting {
    submission: Submission,
    writes: Vec<Write>,
    asked: Asked,
}

/// When a client asked, and in which of its lives: it has forgotten what it asked before it gave its address up.
#[derive(Clone, Copy)]
struct Asked {
    at: Duration,
    life: u32,
}

/// What the clients believe, the disk holds and the engine does.
struct World {
    random: Random,
    engine: Engine,
    disk: BTreeMap<Mac, Row>,
    waiting: VecDeque<Waiting>,
    /// Per client: the address it was given by an ACK, and when it stops using it.
    used: HashMap<Mac, (Ipv4Addr, Duration)>,
    /// Per client: the last offer.
    offered: HashMap<Mac, Ipv4Addr>,
    lives: HashMap<Mac, u32>,
    now: Moment,
    acks: u32,
    /// The leases as whoever watches knows them, and how often it was told something.
    told: BTreeMap<Mac, Ipv4Addr>,
    tellings: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let now = Moment { boot: Duration::from_secs(1000), wall: Duration::from_secs(1_800_000_000) };
        let mut world = World {
            random: Random::new(seed),
            engine: Engine::new([], now),
            disk: BTreeMap::new(),
            waiting: VecDeque::new(),
            used: HashMap::new(),
            offered: HashMap::new(),
            lives: HashMap::new(),
            now,
            acks: 0,
            told: BTreeMap::new(),
            tellings: 0,
        };
        world.engine.configure(Some(policy()));
        world
    }

    fn step(&mut self) {
        let last = self.now;
        let pass = self.random.below(40);
        self.now = Moment { boot: last.boot + Duration::from_secs(pass), wall: last.wall + Duration::from_secs(pass) };
        self.engine.tick(self.now, last);
        let now = self.now.boot;
        self.used.retain(|_, (_, until)| *until > now);
        match self.random.below(30) {
            0 => self.restart(),
            1..=8 => self.settle(),
            _ => self.speak(),
        }
        if self.random.once_in(3) {
            self.listen();
        }
    }

    /// What is told is true of what was told before; while nothing is on its way to the disk it is the whole truth.
    fn listen(&mut self) {
        for LeaseChange { mac, kind, .. } in self.engine.take_changes(self.now) {
            self.tellings += 1;
            match kind {
                LeaseKind::Discovering | LeaseKind::Offered(_) => {}
                LeaseKind::Leased(address) => assert_eq!(self.told.insert(mac, ipv4(address)), None, "{mac}"),
                LeaseKind::Renewed(address) => assert_eq!(self.told.get(&mac), Some(&ipv4(address)), "{mac}"),
                LeaseKind::Released(address)
                | LeaseKind::Expired(address)
                | LeaseKind::Declined(address)
                | LeaseKind::Dropped(address) => {
                    assert_eq!(self.told.remove(&mac), Some(ipv4(address)), "{mac}: {kind:?}")
                }
            }
        }
        if self.waiting.is_empty() {
            let leases: BTreeMap<_, _> =
                self.engine.leases(self.now).into_iter().map(|row| (row.mac, row.address)).collect();
            assert_eq!(self.told, leases);
        }
    }

    fn restart(&mut self) {
        // What was handed to the disk may have got there, though nobody was told.
        for waiting in self.waiting.drain(..) {
            if self.random.once_in(2) {
                write(&mut self.disk, waiting.writes);
            } else {
                break;
            }
        }
        self.engine = Engine::new(self.disk.values().cloned(), self.now);
        // What is there now is no news to who begins to watch now.
        self.told = self.engine.leases(self.now).into_iter().map(|row| (row.mac, row.address)).collect();
        self.engine.configure(Some(policy()));
    }

    fn settle(&mut self) {
        while let Some(Waiting { submission, writes, asked }) = self.waiting.pop_front() {
            let written = !self.random.once_in(4);
            if written {
                write(&mut self.disk, writes);
            }
            let reply = self.engine.settle(submission, written).reply;
            self.hear(reply, asked);
        }
    }

    fn speak(&mut self) {
        let mac = mac(self.random.below(9));
        let none = Ipv4Addr::UNSPECIFIED;
        let any = Ipv4Addr::new(10, 0, 0, self.random.below(18) as u8);
        let own = self.used.get(&mac).map(|(address, _)| *address);
        let address = own.filter(|_| !self.random.once_in(8)).unwrap_or(any);
        let server = (code::SERVER_ID, if self.random.once_in(10) { any } else { SERVER });
        let requested = |address| (code::REQUESTED_ADDRESS, address);
        let bytes = match self.random.below(8) {
            0 => frame(1, mac, none, &[]),
            1 => frame(1, mac, none, &[requested(any)]),
            2 | 3 => match self.offered.get(&mac) {
                Some(&offer) => frame(3, mac, none, &[server, requested(offer)]),
                None => frame(1, mac, none, &[]),
            },
            4 => frame(3, mac, none, &[requested(address)]),
            5 => frame(3, mac, address, &[]),
            6 => {
                self.give_up(mac);
                frame(7, mac, address, &[server])
            }
            _ if self.random.once_in(4) => {
                self.give_up(mac);
                frame(4, mac, none, &[server, requested(address)])
            }
            _ => return,
        };
        let asked = Asked { at: self.now.boot, life: self.life(mac) };
        match self.engine.handle(&bytes, Checksum::Full, self.now).unwrap().next {
            Next::Nothing => {}
            Next::Send(reply) => self.hear(Some(reply), asked),
            Next::Write(submission, writes) => self.waiting.push_back(Waiting { submission, writes, asked }),
        }
    }

    fn life(&self, mac: Mac) -> u32 {
        self.lives.get(&mac).copied().unwrap_or_default()
    }

    /// A client stops using its address, and waits for no answer any more.
    fn give_up(&mut self, mac: Mac) {
        self.used.remove(&mac);
        *self.lives.entry(mac).or_default() += 1;
    }

    fn hear(&mut self, reply: Option<Reply>, asked: Asked) {
        let Some(Reply { message, .. }) = reply else { return };
        let mac = Mac(message.chaddr[..6].try_into().unwrap());
        if self.life(mac) != asked.life {
            return;
        }
        match message.options.get(code::MESSAGE_TYPE) {
            Some([2]) => drop(self.offered.insert(mac, message.yiaddr)),
            Some([6]) => drop(self.used.remove(&mac)),
            Some([5]) => {
                let lease = message.options.get(code::LEASE_TIME).unwrap();
                let lease = u32::from_be_bytes(lease.try_into().unwrap());
                // RFC 2131 §4.4.1: it counts from when the client asked.
                let until = asked.at + Duration::from_secs(lease.into());
                if until <= self.now.boot {
                    return;
                }
                for (other, (address, _)) in &self.used {
                    assert!(*other == mac || *address != message.yiaddr, "{address} is {other}'s, and now {mac}'s");
                }
                let on_disk = self.disk.get(&mac).map(|row| row.address);
                assert_eq!(on_disk, Some(message.yiaddr), "{mac} has an ACK that isn't on disk");
                let host = message.yiaddr.octets()[3];
                assert!((10..=14).contains(&host) || host == 40, "{} is in no pool", message.yiaddr);
                self.used.insert(mac, (message.yiaddr, until));
                self.acks += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn write(disk: &mut BTreeMap<Mac, Row>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put(row) => {
                disk.retain(|_, other| other.address != row.address);
                disk.insert(row.mac, row);
            }
            Write::Delete(mac) => drop(disk.remove(&mac)),
            Write::DeleteAll => disk.clear(),
            Write::Put6(_) | Write::Delete6(_) => panic!("IPv4 writes no IPv6 leases"),
        }
    }
}

#[test]
fn no_address_is_two_clients_at_once_whatever_they_say_and_the_disk_does() {
    let (mut acks, mut tellings) = (0, 0);
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        acks += world.acks;
        tellings += world.tellings;
    }
    assert!(acks > 10_000, "only {acks} leases were made: the clients are too shy to prove anything");
    assert!(tellings > 10_000, "only {tellings} things were told");
}

#[test]
fn a_wrong_checksum_is_no_message_unless_the_sender_never_made_it() {
    let mut engine = Engine::new([], Moment { boot: Duration::from_secs(1), wall: Duration::from_secs(1) });
    engine.configure(Some(policy()));
    let now = Moment { boot: Duration::from_secs(2), wall: Duration::from_secs(2) };
    let mut bytes = frame(1, mac(5), Ipv4Addr::UNSPECIFIED, &[]);
    bytes[40] ^= 0xff;
    let refused = engine.handle(&bytes, Checksum::Full, now);
    assert!(matches!(refused, Err(Unusable::Frame(FrameError::Checksum { .. }))), "{refused:?}");
    assert!(matches!(engine.handle(&bytes, Checksum::Partial, now).unwrap().next, Next::Send(_)));
}

#[test]
fn a_wall_clock_set_back_or_forward_ends_no_lease_early_or_late() {
    let start = Moment { boot: Duration::from_secs(1000), wall: Duration::from_secs(1_800_000_000) };
    let mut engine = Engine::new([], start);
    engine.configure(Some(policy()));
    let ask = frame(3, mac(5), Ipv4Addr::UNSPECIFIED, &[(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 12))]);
    let Next::Write(submission, writes) = engine.handle(&ask, Checksum::Full, start).unwrap().next else { panic!() };
    engine.settle(submission, true);
    let Some(Write::Put(row)) = writes.into_iter().next() else { panic!() };
    // A day forward while we run: the lease still has its time, and its end is told by the new clock.
    let later = Moment { boot: start.boot + Duration::from_secs(100), wall: start.wall + Duration::from_secs(86_400) };
    assert_eq!(engine.leases(later)[0].ends, Some(start.wall.as_secs() + 86_400 + 200));
    // Ten years back between two runs: no more than the lease was long.
    let back = Moment { boot: Duration::from_secs(5), wall: start.wall - Duration::from_secs(315_360_000) };
    let engine = Engine::new([row], back);
    assert_eq!(engine.leases(back)[0].ends, Some(back.wall.as_secs() + 300));
}

fn ipv4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    address
}

fn change(kind: LeaseKind) -> LeaseChange {
    LeaseChange { mac: mac(5), hostname: None, kind }
}

#[test]
fn a_lease_is_told_once_it_is_on_disk_and_again_when_it_ends() {
    let at = |seconds| Moment { boot: Duration::from_secs(seconds), wall: Duration::from_secs(seconds) };
    let (address, none) = (Ipv4Addr::new(10, 0, 0, 12), Ipv4Addr::UNSPECIFIED);
    let mut engine = Engine::new([], at(1));
    engine.configure(Some(policy()));
    let say = |engine: &mut Engine, bytes: &[u8], now: Moment| match engine.handle(bytes, Checksum::Full, now) {
        Ok(Handled { next: Next::Write(submission, _), .. }) => submission,
        other => panic!("{other:?}"),
    };
    let ask = frame(3, mac(5), none, &[(code::REQUESTED_ADDRESS, address)]);
    let submission = say(&mut engine, &ask, at(1));
    assert_eq!(engine.take_changes(at(1)), []);
    engine.settle(submission, true);
    assert_eq!(engine.take_changes(at(1)), [change(LeaseKind::Leased(address.into()))]);
    assert_eq!(engine.take_changes(at(2)), []);

    // Extended; and once in vain.
    let submission = say(&mut engine, &ask, at(2));
    engine.settle(submission, true);
    assert_eq!(engine.take_changes(at(2)), [change(LeaseKind::Renewed(address.into()))]);
    let submission = say(&mut engine, &ask, at(3));
    engine.settle(submission, false);
    assert_eq!(engine.take_changes(at(3)), []);

    engine.tick(at(300), at(1));
    assert_eq!(engine.take_changes(at(300)), []);
    engine.tick(at(303), at(300));
    assert_eq!(engine.take_changes(at(303)), [change(LeaseKind::Expired(address.into()))]);

    // Given back, and found to be another's: each end has its name.
    for (kind, end) in [(7, LeaseKind::Released(address.into())), (4, LeaseKind::Declined(address.into()))] {
        let submission = say(&mut engine, &ask, at(304));
        engine.settle(submission, true);
        assert_eq!(engine.take_changes(at(304)), [change(LeaseKind::Leased(address.into()))]);
        let server = (code::SERVER_ID, SERVER);
        let bytes = match kind {
            7 => frame(7, mac(5), address, &[server]),
            _ => frame(4, mac(5), none, &[server, (code::REQUESTED_ADDRESS, address)]),
        };
        let submission = say(&mut engine, &bytes, at(305));
        assert_eq!(engine.take_changes(at(305)), []);
        engine.settle(submission, true);
        assert_eq!(engine.take_changes(at(305)), [change(end)]);
    }
}

#[test]
fn who_asks_is_told_with_what_it_is_offered_and_who_lies_is_not() {
    let at = |seconds| Moment { boot: Duration::from_secs(seconds), wall: Duration::from_secs(seconds) };
    let mut engine = Engine::new([], at(1));
    engine.configure(Some(policy()));
    engine.set_ports(vec![PortName { mac: mac(5), guest: None }]);
    let ask = frame(1, mac(5), Ipv4Addr::UNSPECIFIED, &[]);
    let handled = engine.handle(&ask, Checksum::Full, at(1)).unwrap();
    let Outcome::Offered(address) = handled.outcome else { panic!("{handled:?}") };
    let told = [change(LeaseKind::Discovering), change(LeaseKind::Offered(address.into()))];
    assert_eq!(engine.take_changes(at(1)), told);
    assert_eq!(engine.take_changes(at(1)), []);
    // Another's frame that speaks for this port.
    let mut lie = ask.clone();
    lie[6..12].copy_from_slice(&mac(6).0);
    engine.handle(&lie, Checksum::Full, at(2)).unwrap();
    assert_eq!(engine.take_changes(at(2)), []);
}
