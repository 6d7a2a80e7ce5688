//! Plays the timetables in `dhcp/tests/conversations`: at t seconds a client says X, the server must say Y.
//!
//! Whole frames go through the engine, with virtual time and a disk that can be told to fail. A line is one of:
//!
//! ```text
//! config WORDS            changes the subnet (10.0.0.1/24, range .10-.12) before or between messages
//! port CLIENT [GUEST]     a port with the client's MAC
//! @T KIND CLIENT WORDS    at T seconds the client says KIND; the next lines tell what must come back:
//!   silence               nothing
//!   KIND WORDS            a reply with these fields; option N as `N=value`, absent as `no-N`, `$x` remembers a value
//! @T disk fails|works     from now on
//! @T stuck|unstuck        from now on the disk doesn't answer, or answers all it was given, in order
//! @T restart              the daemon dies and starts on what is on disk
//! @T leases WORDS         CLIENT=ADDRESS for every live lease
//! @T names WORDS          NAME=ADDRESS for every name
//! ```
//!
//! A client is a letter: `a` has the MAC 52:54:00:00:00:0a.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use super::{Engine, Next, Submission};
use crate::{
    config::{Boot4, Dhcp4Config, LeaseTime, Mac, Option4, PortName, Range4, Reservation4},
    moment::Moment,
    row::{Row, Write},
    v4::{
        Message, Op,
        frame::{self, Checksum, Datagram},
        options::{Options, code},
        policy::Policy,
        reply::Reply,
    },
};

const BRIDGE: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x01]);

#[test]
fn every_conversation_goes_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "only {} conversations were found", paths.len());
    let failed = paths.iter().filter(|path| std::panic::catch_unwind(|| play(path)).is_err()).count();
    assert_eq!(failed, 0, "conversations failed, as told above");
}

fn play(path: &Path) {
    let mut stage = Stage::new();
    for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
        let place = format!("{}:{}: {line}", path.file_name().unwrap().to_string_lossy(), number + 1);
        stage.play(line, &place);
    }
    stage.quiet("the end");
}

struct Stage {
    config: Dhcp4Config,
    ports: Vec<PortName>,
    engine: Engine,
    disk: BTreeMap<Mac, Row>,
    disk_works: bool,
    stuck: Option<Vec<(Submission, Vec<Write>)>>,
    replies: Vec<Reply>,
    known: HashMap<String, String>,
    now: Moment,
}

impl Stage {
    fn new() -> Stage {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let config = Dhcp4Config {
            server: "10.0.0.1/24".parse().unwrap(),
            ranges: vec![Range4 { start: address(10), end: address(12), lease: LeaseTime::Seconds(3600) }],
            hosts: Vec::new(),
            router: Some(address(1)),
            dns: vec![address(1)],
            domain: None,
            mtu: None,
            routes: Vec::new(),
            boot: None,
            options: Vec::new(),
        };
        let now = moment(0);
        let mut stage = Stage {
            config,
            ports: Vec::new(),
            engine: Engine::new([], now),
            disk: BTreeMap::new(),
            disk_works: true,
            stuck: None,
            replies: Vec::new(),
            known: HashMap::new(),
            now,
        };
        stage.configure();
        stage
    }

    fn play(&mut self, line: &str, place: &str) {
        let line = line.split('#').next().unwrap_or_default();
        let expected = line.starts_with(' ');
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["silence"] => self.quiet(place),
            [kind, fields @ ..] if expected => self.expect(kind, fields, place),
            ["config", rest @ ..] => self.change(rest, place),
            ["port", client, guest @ ..] => {
                let guest = guest.first().map(|guest| (*guest).to_owned());
                self.ports.push(PortName { mac: mac(client), guest });
                self.engine.set_ports(self.ports.clone());
            }
            [time, rest @ ..] => {
                self.quiet(place);
                let at = time.strip_prefix('@').unwrap_or_else(|| panic!("{place}: what is that?"));
                let now = moment(at.parse().unwrap_or_else(|_| panic!("{place}: no time")));
                self.engine.tick(now, self.now);
                self.now = now;
                self.act(rest, place);
            }
        }
    }

    fn act(&mut self, words: &[&str], place: &str) {
        match words {
            ["disk", state] => self.disk_works = *state == "works",
            ["stuck"] => self.stuck = Some(Vec::new()),
            ["unstuck"] => {
                for (submission, writes) in self.stuck.take().unwrap_or_default() {
                    self.answer(submission, writes);
                }
            }
            ["restart"] => {
                self.engine = Engine::new(self.disk.values().cloned(), self.now);
                self.stuck = None;
                self.configure();
            }
            ["leases", expected @ ..] => {
                let leases = self.engine.leases(self.now).into_iter();
                let leases: Vec<_> = leases.map(|row| format!("{:x}={}", row.mac.0[5], row.address)).collect();
                assert_eq!(leases, self.fill(expected), "{place}");
            }
            ["names", expected @ ..] => {
                let records = self.engine.names(self.now).records.into_iter();
                let names: Vec<_> = records.map(|(name, address)| format!("{name}={address}")).collect();
                assert_eq!(names, self.fill(expected), "{place}");
            }
            [kind, client, fields @ ..] => self.say(kind, client, fields, place),
            _ => panic!("{place}: what is that?"),
        }
    }

    fn configure(&mut self) {
        let stray = self.engine.configure(Some(Policy::new(self.config.clone())));
        self.engine.set_ports(self.ports.clone());
        if let Some((submission, writes)) = stray {
            self.answer(submission, writes);
        }
    }

    fn change(&mut self, words: &[&str], place: &str) {
        for (key, value) in words.iter().map(|word| pair(word, place)) {
            match key {
                "server" => self.config.server = value.parse().unwrap(),
                "range" => {
                    let (start, end) = value.split_once('-').unwrap();
                    self.config.ranges[0].start = start.parse().unwrap();
                    self.config.ranges[0].end = end.parse().unwrap();
                }
                "lease" => self.config.ranges[0].lease = lease(value),
                "router" => self.config.router = value.parse().ok(),
                "mtu" => self.config.mtu = value.parse().ok(),
                "domain" => self.config.domain = Some(value.to_owned()),
                "route" => {
                    let (to, via) = value.split_once('>').unwrap();
                    self.config.routes.push((to.parse().unwrap(), via.parse().unwrap()));
                }
                // boot=FILE or boot=FILE,SERVER
                "boot" => {
                    let (file, server) = value.split_once(',').map_or((value, None), |(file, at)| (file, Some(at)));
                    let server = server.map(|server| server.parse().unwrap());
                    self.config.boot = Some(Boot4 { file: file.to_owned(), server });
                }
                // option=CODE:HEX, forced with a final !
                "option" => {
                    let (code, value) = value.split_once(':').unwrap();
                    let (value, force) = value.strip_suffix('!').map_or((value, false), |value| (value, true));
                    let value = bytes(0, value);
                    self.config.options.push(Option4 { code: code.parse().unwrap(), value, force });
                }
                // host=CLIENT|-,NAME|-,ADDRESS|-,LEASE|-
                "host" => {
                    let field: Vec<_> = value.split(',').map(|field| (field != "-").then_some(field)).collect();
                    self.config.hosts.push(Reservation4 {
                        mac: field[0].map(mac),
                        name: field[1].map(str::to_owned),
                        address: field[2].map(|address| address.parse().unwrap()),
                        lease: field[3].map(lease),
                    });
                }
                _ => panic!("{place}: no such setting"),
            }
        }
        self.configure();
    }

    fn say(&mut self, kind: &str, client: &str, fields: &[&str], place: &str) {
        let number = ["BOOTP", "DISCOVER", "", "REQUEST", "DECLINE", "", "", "RELEASE", "INFORM"]
            .iter()
            .position(|known| *known == kind)
            .unwrap_or_else(|| panic!("{place}: no such message"));
        let mut from_mac = mac(client);
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&from_mac.0);
        let none = Ipv4Addr::UNSPECIFIED;
        let (mut from, mut to) = (none, Ipv4Addr::BROADCAST);
        let mut options = Options::new();
        if number != 0 {
            options.push(code::MESSAGE_TYPE, &[number as u8]);
        }
        let mut message = Message {
            op: Op::Request,
            htype: 1,
            hlen: 6,
            hops: 0,
            xid: 7,
            secs: 0,
            flags: 0,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            options,
        };
        for field in self.fill(fields) {
            let (key, value) = pair(&field, place);
            match key {
                "broadcast" => message.flags = Message::BROADCAST,
                "ciaddr" => message.ciaddr = value.parse().unwrap(),
                "giaddr" => message.giaddr = value.parse().unwrap(),
                "from" => from = value.parse().unwrap(),
                "to" => to = value.parse().unwrap(),
                "from-mac" => from_mac = mac(value),
                option => {
                    let code = option.parse().unwrap_or_else(|_| panic!("{place}: no field {option}"));
                    message.options.push(code, &bytes(code, value));
                }
            }
        }
        let payload = message.to_bytes();
        let datagram = Datagram {
            from_mac,
            to_mac: frame::BROADCAST_MAC,
            from: SocketAddrV4::new(from, frame::CLIENT_PORT),
            to: SocketAddrV4::new(to, frame::SERVER_PORT),
            payload: &payload,
        };
        let mut bytes = vec![0; frame::len(payload.len())];
        frame::emit(&datagram, &mut bytes).unwrap();
        let handled = self.engine.handle(&bytes, Checksum::Full, self.now);
        match handled.unwrap_or_else(|cause| panic!("{place}: {cause}")).next {
            Next::Nothing => {}
            Next::Send(reply) => self.replies.push(reply),
            Next::Write(submission, writes) => match &mut self.stuck {
                Some(waiting) => waiting.push((submission, writes)),
                None => self.answer(submission, writes),
            },
        }
    }

    fn answer(&mut self, submission: Submission, writes: Vec<Write>) {
        if self.disk_works {
            for write in writes {
                match write {
                    Write::Put(row) => {
                        self.disk.retain(|_, other| other.address != row.address);
                        self.disk.insert(row.mac, row);
                    }
                    Write::Delete(mac) => drop(self.disk.remove(&mac)),
                    Write::DeleteAll => self.disk.clear(),
                    Write::Put6(_) | Write::Delete6(_) => panic!("IPv4 writes no IPv6 leases"),
                }
            }
        }
        self.replies.extend(self.engine.settle(submission, self.disk_works).reply);
    }

    fn quiet(&mut self, place: &str) {
        assert!(self.replies.is_empty(), "{place}: not expected: {:?}", self.replies);
    }

    fn expect(&mut self, kind: &str, fields: &[&str], place: &str) {
        assert!(!self.replies.is_empty(), "{place}: silence");
        let reply = self.replies.remove(0);
        let bytes = self.engine.frame(&reply, BRIDGE).unwrap();
        let datagram = frame::parse(&bytes, Checksum::Full).unwrap();
        let (message, oddities) = Message::parse(datagram.payload).unwrap();
        assert_eq!((message.xid, oddities.len()), (7, 0), "{place}");
        assert!(datagram.payload.len() >= 300, "{place}: {} bytes", datagram.payload.len());
        let said = match message.options.get(code::MESSAGE_TYPE) {
            Some([2]) => "OFFER",
            Some([5]) => "ACK",
            Some([6]) => "NAK",
            None => "BOOTP",
            other => panic!("{place}: {other:?}"),
        };
        assert_eq!(said, kind, "{place}: {message:?}");
        for field in fields {
            if let Some(code) = field.strip_prefix("no-") {
                assert_eq!(message.options.get(code.parse().unwrap()), None, "{place}: {field}");
                continue;
            }
            let (key, value) = pair(field, place);
            let got = match key {
                "yiaddr" => message.yiaddr.to_string(),
                "ciaddr" => message.ciaddr.to_string(),
                "giaddr" => message.giaddr.to_string(),
                "siaddr" => message.siaddr.to_string(),
                "file" => String::from_utf8(message.file.clone()).unwrap(),
                "length" => datagram.payload.len().to_string(),
                "flags" => format!("{:x}", message.flags),
                "to" => datagram.to.to_string(),
                "to-mac" if datagram.to_mac == frame::BROADCAST_MAC => "all".into(),
                "to-mac" => format!("{:x}", datagram.to_mac.0[5]),
                "order" => message.options.iter().map(|(code, _)| code.to_string()).collect::<Vec<_>>().join(","),
                option => {
                    let code = option.parse().unwrap_or_else(|_| panic!("{place}: no field {option}"));
                    let value = message.options.get(code).unwrap_or_else(|| panic!("{place}: no option {code}"));
                    text(code, value)
                }
            };
            match value.strip_prefix('$') {
                Some(_) if value.contains(':') => {
                    let (name, port) = value[1..].split_once(':').unwrap();
                    assert_eq!(got, format!("{}:{port}", self.known[name]), "{place}: {field}");
                }
                Some(name) if !self.known.contains_key(name) => drop(self.known.insert(name.to_owned(), got)),
                Some(name) => assert_eq!(got, self.known[name], "{place}: {field}"),
                None => assert_eq!(got, value, "{place}: {field}"),
            }
        }
    }

    /// Puts remembered values in.
    fn fill(&self, words: &[&str]) -> Vec<String> {
        let fill = |word: &&str| match word.split_once('$') {
            Some((head, name)) => format!("{head}{}", self.known[name]),
            None => (*word).to_owned(),
        };
        words.iter().map(fill).collect()
    }
}

fn moment(seconds: u64) -> Moment {
    Moment { boot: Duration::from_secs(50_000 + seconds), wall: Duration::from_secs(1_800_000_000 + seconds) }
}

fn mac(client: &str) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, u8::from_str_radix(client, 16).unwrap()])
}

fn lease(text: &str) -> LeaseTime {
    text.parse().map_or(LeaseTime::Infinite, LeaseTime::Seconds)
}

fn pair<'a>(word: &'a str, place: &str) -> (&'a str, &'a str) {
    word.split_once('=').unwrap_or_else(|| panic!("{place}: {word} is no KEY=VALUE"))
}

/// An option's value from its text: an address, a number for lease time and size, a list for 55, hex for identifiers.
fn bytes(code: u8, value: &str) -> Vec<u8> {
    match code {
        code::LEASE_TIME => value.parse::<u32>().unwrap().to_be_bytes().to_vec(),
        code::MAX_MESSAGE_SIZE => value.parse::<u16>().unwrap().to_be_bytes().to_vec(),
        code::PARAMETER_LIST => value.split(',').map(|code| code.parse().unwrap()).collect(),
        code::REQUESTED_ADDRESS | code::SERVER_ID => value.parse::<Ipv4Addr>().unwrap().octets().to_vec(),
        code::HOST_NAME => value.as_bytes().to_vec(),
        _ => (0..value.len()).step_by(2).map(|at| u8::from_str_radix(&value[at..at + 2], 16).unwrap()).collect(),
    }
}

fn text(code: u8, value: &[u8]) -> String {
    match (code, value) {
        (code::SUBNET_MASK | code::ROUTER | code::DNS_SERVERS | code::BROADCAST | code::SERVER_ID, [a, b, c, d]) => {
            Ipv4Addr::new(*a, *b, *c, *d).to_string()
        }
        (code::LEASE_TIME | code::RENEWAL_TIME | code::REBINDING_TIME, [a, b, c, d]) => {
            u32::from_be_bytes([*a, *b, *c, *d]).to_string()
        }
        (code::INTERFACE_MTU, [a, b]) => u16::from_be_bytes([*a, *b]).to_string(),
        (code::HOST_NAME | code::DOMAIN_NAME, text) => String::from_utf8(text.to_vec()).unwrap(),
        (code::MESSAGE, text) => String::from_utf8(text.to_vec()).unwrap().replace(' ', "-"),
        (_, bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
