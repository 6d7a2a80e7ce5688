//! A guest made of a tap's descriptor: it says what it likes, true or not, and tells what it hears.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use dhcp::{
    config::Mac,
    v4::{
        Message, Op,
        frame::{self, Datagram},
        options::{Options, code},
    },
};
use netd_api::{Port, PortRequest};

use super::harness::{Space, wait_for};

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

/// `struct virtio_net_hdr`, which stands before every frame.
const HEADER: usize = 10;

/// A guest with one port.
pub(crate) struct Guest {
    pub(crate) port: Port,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    tap: File,
}

impl Guest {
    pub(crate) fn plug(space: &Space, network: &str, guest: &str) -> Self {
        Self::plug_with(space, network, guest, None)
    }

    pub(crate) fn plug_with(space: &Space, network: &str, guest: &str, guards: Option<bool>) -> Self {
        let request = PortRequest {
            network: network.into(),
            guest: Some(guest.into()),
            queues: 1,
            guards,
            ..PortRequest::default()
        };
        Self::plug_request(space, request)
    }

    pub(crate) fn plug_request(space: &Space, request: PortRequest) -> Self {
        let (port, fds) = space.call(async |client| client.add_port(request).await).unwrap();
        let guest = Self::with(port, fds);
        guest.wait_for_carrier(space);
        guest
    }

    /// A guest on a port that was made for it.
    pub(crate) fn with(port: Port, mut fds: Vec<OwnedFd>) -> Self {
        let mac = port.mac.parse::<Mac>().unwrap().0;
        Guest { port, mac, address: Ipv4Addr::UNSPECIFIED, tap: File::from(fds.pop().unwrap()) }
    }

    /// A bridge without a port has no carrier, and with its first the kernel takes a moment to give it one: what the host
    /// sends until then is lost.
    pub(crate) fn wait_for_carrier(&self, space: &Space) {
        let network = space.call(async |client| client.get_network(&self.port.network).await).unwrap().network;
        if let Some(bridge) = network.bridge {
            wait_for("the bridge's carrier", || space.run(&format!("ip link show dev {bridge}")).contains("state UP"));
        }
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) {
        let bytes = [&[0; HEADER][..], frame].concat();
        assert_eq!((&self.tap).write(&bytes).unwrap(), bytes.len());
    }

    /// The first frame for which `wanted` has an answer; `None` if there is none in time.
    pub(crate) fn hear<T>(&self, patience: Duration, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 65536];
        loop {
            match (&self.tap).read(&mut buffer) {
                Ok(length) => {
                    if let Some(found) = wanted(&buffer[HEADER..length]) {
                        return Some(found);
                    }
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(50)),
                Err(_) => return None,
            }
        }
    }

    /// Every frame that has come so far.
    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.hear(Duration::ZERO, |frame| {
            frames.push(frame.to_vec());
            None::<()>
        });
        frames
    }

    /// DISCOVER to ACK; afterwards the guest has its address.
    pub(crate) fn lease(&mut self) -> Duration {
        let begun = Instant::now();
        self.send(&dhcp(self.mac, 1, &[]));
        let offer = self.answer(2);
        let server = offer.options.get(code::SERVER_ID).unwrap().to_vec();
        self.send(&dhcp(self.mac, 3, &[(code::REQUESTED_ADDRESS, &offer.yiaddr.octets()), (code::SERVER_ID, &server)]));
        self.address = self.answer(5).yiaddr;
        begun.elapsed()
    }

    /// Gives the address back.
    pub(crate) fn release(&self, server: Ipv4Addr) {
        let mut message = message(self.mac, 7, &[(code::SERVER_ID, &server.octets())]);
        message.ciaddr = self.address;
        self.send(&datagram(self.mac, (self.address, 68), (Ipv4Addr::BROADCAST, 67), &message.to_bytes()));
    }

    fn answer(&self, kind: u8) -> Message {
        self.hear(Duration::from_secs(5), |bytes| {
            let datagram = frame::parse(bytes, frame::Checksum::Full).ok()?;
            let (message, _) = Message::parse(datagram.payload).ok()?;
            let of_kind = message.options.get(code::MESSAGE_TYPE) == Some(&[kind][..]);
            (of_kind && message.chaddr[..6] == self.mac).then_some(message)
        })
        .unwrap_or_else(|| panic!("{} gets no DHCP message of type {kind}", self.port.interface))
    }

    /// Whether the host answers an ARP request and then an echo request, each sent once.
    pub(crate) fn reaches(&self, host: Ipv4Addr) -> bool {
        let patience = Duration::from_secs(1);
        self.send(&arp(self.mac, 1, self.mac, self.address, host));
        let answer = |frame: &[u8]| {
            let reply = frame.get(12..14)? == [8, 6] && frame.get(21) == Some(&2) && frame[28..32] == host.octets();
            reply.then(|| <[u8; 6]>::try_from(&frame[22..28]).unwrap())
        };
        let Some(to) = self.hear(patience, answer) else { return false };
        self.send(&echo(self.mac, to, self.address, host));
        // Type 0 is the answer; nobody asks the host's questions for the guest meanwhile, for ARP has told it.
        self.hear(patience, |frame| (frame.get(12..14)? == [8, 0] && frame.get(34) == Some(&0)).then_some(())).is_some()
    }
}

pub(crate) fn ethernet(from: [u8; 6], to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// An ARP message, broadcast.
pub(crate) fn arp(from: [u8; 6], operation: u16, sender: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let body =
        [&[0, 1, 8, 0, 6, 4][..], &operation.to_be_bytes(), &sender, &ip.octets(), &[0; 6], &target.octets()].concat();
    ethernet(from, BROADCAST, 0x0806, &body)
}

/// An ICMP echo request.
pub(crate) fn echo(from: [u8; 6], to: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let icmp = [8, 0, 0xf7, 0xff - 1, 0, 0, 0, 1];
    ethernet(from, to, 0x0800, &ipv4(1, source, target, &icmp))
}

/// A UDP datagram without a checksum, broadcast on the link.
pub(crate) fn udp(from: [u8; 6], source: (Ipv4Addr, u16), target: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let udp = [&source.1.to_be_bytes()[..], &target.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat();
    ethernet(from, BROADCAST, 0x0800, &ipv4(17, source.0, target.0, &udp))
}

fn ipv4(protocol: u8, source: Ipv4Addr, target: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let mut header =
        [&[0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0][..], &source.octets(), &target.octets()].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    [&header[..], payload].concat()
}

/// An IPv6 packet to all nodes, with the hop limit that NDP has.
pub(crate) fn ipv6(from: [u8; 6], source: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let length = (payload.len() as u16).to_be_bytes();
    let packet = [&[0x60, 0, 0, 0, length[0], length[1], next, 255][..], &source, &all_nodes, payload].concat();
    ethernet(from, [0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet)
}

/// A neighbour solicitation (type 135) or advertisement (136) about `target`, with these options, to all nodes.
pub(crate) fn neighbour(from: [u8; 6], source: [u8; 16], kind: u8, target: [u8; 16], options: &[u8]) -> Vec<u8> {
    // An advertisement that overrides what was known before.
    let flags = if kind == 136 { 0x20 } else { 0 };
    let mut message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, options].concat();
    let mut sum = 58 + message.len() as u32;
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for pair in [&source[..], &all_nodes, &message].concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(from, source, 58, &message)
}

/// The option of NDP that says a MAC: of the source (1) or the target (2).
pub(crate) fn lladdr(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

fn message(mac: [u8; 6], kind: u8, options: &[(u8, &[u8])]) -> Message {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&mac);
    let mut list = Options::new();
    list.push(code::MESSAGE_TYPE, &[kind]);
    options.iter().for_each(|(code, value)| list.push(*code, value));
    let none = Ipv4Addr::UNSPECIFIED;
    Message {
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
        options: list,
    }
}

/// A client's message before it has an address.
pub(crate) fn dhcp(mac: [u8; 6], kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let payload = message(mac, kind, options).to_bytes();
    datagram(mac, (Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &payload)
}

fn datagram(mac: [u8; 6], source: (Ipv4Addr, u16), target: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let datagram = Datagram {
        from_mac: Mac(mac),
        to_mac: frame::BROADCAST_MAC,
        from: SocketAddrV4::new(source.0, source.1),
        to: SocketAddrV4::new(target.0, target.1),
        payload,
    };
    let mut bytes = vec![0; frame::len(payload.len())];
    frame::emit(&datagram, &mut bytes).unwrap();
    bytes
}
