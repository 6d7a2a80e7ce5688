//! EDGE: many DHCP clients on one interface: as short as a client can be, so that the server's time is what is seen.
//!
//! Each asks for a broadcast answer, takes the first offer, and asks again after four seconds (RFC 2131 §4.1).
//! Messages are built and read by dhcproto, which no server here is made of.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, OptionCode},
};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use tests::space::Space;

const ASK_AGAIN: Duration = Duration::from_secs(4);

/// A packet socket on `eth0` of a space.
pub(crate) struct Wire {
    socket: OwnedFd,
}

struct Client {
    mac: [u8; 6],
    asked: Instant,
    last: Vec<u8>,
    served: Option<Duration>,
}

impl Wire {
    /// Opens the socket.
    pub(crate) fn open(space: &Space) -> Result<Self> {
        space.inside(|| {
            let index = nix::net::if_::if_nametoindex("eth0")?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
            use std::os::fd::AsRawFd;
            bind(socket.as_raw_fd(), &link_address(index)?)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 1000))?;
            Ok(Wire { socket })
        })
    }

    /// Lets clients with these MACs ask all at once; gives for each the time from its first DISCOVER to its ACK.
    pub(crate) fn lease(&self, macs: &[[u8; 6]], patience: Duration) -> Result<Vec<Option<Duration>>> {
        let begun = Instant::now();
        let mut clients = BTreeMap::new();
        for (i, mac) in macs.iter().enumerate() {
            let last = frame(*mac, i as u32 + 1, MessageType::Discover, None)?;
            self.send(&last)?;
            clients.insert(i as u32 + 1, Client { mac: *mac, asked: Instant::now(), last, served: None });
        }
        let mut buffer = [0; 2048];
        while clients.values().any(|c| c.served.is_none()) && begun.elapsed() < patience {
            if let Some(length) = self.receive(&mut buffer)? {
                self.answer(&mut clients, &buffer[..length], begun)?;
            }
            for client in clients.values_mut().filter(|c| c.served.is_none() && c.asked.elapsed() > ASK_AGAIN) {
                client.asked = Instant::now();
                self.send(&client.last)?;
            }
        }
        Ok(clients.into_values().map(|c| c.served).collect())
    }

    fn answer(&self, clients: &mut BTreeMap<u32, Client>, frame_in: &[u8], begun: Instant) -> Result<()> {
        let Some(message) = reply(frame_in) else { return Ok(()) };
        let Some(client) = clients.get_mut(&message.xid()) else { return Ok(()) };
        if !message.chaddr().starts_with(&client.mac) || client.served.is_some() {
            return Ok(());
        }
        match message.opts().msg_type() {
            Some(MessageType::Offer) => {
                client.last = frame(client.mac, message.xid(), MessageType::Request, Some(&message))?;
                client.asked = Instant::now();
                self.send(&client.last)
            }
            Some(MessageType::Ack) => {
                client.served = Some(begun.elapsed());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        use std::os::fd::AsRawFd;
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).context("sending to eth0")?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        use std::os::fd::AsRawFd;
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()).map_err(std::io::Error::from) {
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error).context("receiving from eth0"),
        }
    }
}

/// `n` MACs that no other call of this run gives out.
pub(crate) fn fresh_macs(n: usize) -> Vec<[u8; 6]> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    (0..n)
        .map(|_| {
            let [_, a, b, c] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            [0x52, 0x54, 0x00, a, b, c]
        })
        .collect()
}

fn frame(mac: [u8; 6], xid: u32, kind: MessageType, offer: Option<&Message>) -> Result<Vec<u8>> {
    let mut message = Message::default();
    message.set_xid(xid).set_chaddr(&mac).set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
    ]));
    if let Some(offer) = offer {
        options.insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
        if let Some(server) = offer.opts().get(OptionCode::ServerIdentifier) {
            options.insert(server.clone());
        }
    }
    let mut payload = Vec::new();
    message.encode(&mut Encoder::new(&mut payload))?;
    payload.resize(payload.len().max(300), 0);
    let builder = PacketBuilder::ethernet2(mac, [0xff; 6]).ipv4([0; 4], [0xff; 4], 64).udp(68, 67);
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, &payload)?;
    Ok(bytes)
}

fn reply(bytes: &[u8]) -> Option<Message> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    (udp.destination_port() == 68).then(|| Message::decode(&mut Decoder::new(udp.payload())).ok())?
}

fn link_address(index: u32) -> Result<LinkAddr> {
    use nix::sys::socket::SockaddrLike;
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `raw` is an initialised sockaddr_ll of the length given, and lives across the call.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) }.context("no link address")
}
