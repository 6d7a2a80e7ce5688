//! The other side of the wire: a DHCP client made of one packet socket, which can be any number of clients.

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use dhcp::{
    config::Mac,
    v4::{
        Message, Op,
        frame::{self, Checksum, Datagram},
        options::{Options, code},
    },
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A packet socket on `eth0` of the namespace it is opened in.
pub(crate) struct Wire(Socket);

impl Wire {
    pub(crate) fn open() -> Wire {
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()))));
        let socket = socket.unwrap();
        // SAFETY: sockaddr_ll is plain integers; the storage is large enough for it and its length is told.
        let address = unsafe {
            SockAddr::try_init(|storage, len| {
                let link = storage.cast::<libc::sockaddr_ll>();
                (*link).sll_family = libc::AF_PACKET as u16;
                (*link).sll_protocol = (libc::ETH_P_IP as u16).to_be();
                (*link).sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()).cast_signed();
                *len = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                io::Result::Ok(())
            })
        };
        socket.bind(&address.unwrap().1).unwrap();
        // Room for the answers to a burst that is sent whole before any is read.
        let room: libc::c_int = 8 << 20;
        // SAFETY: pointer and length are of one live integer, which setsockopt only reads.
        let failed = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                mem::size_of_val(&room) as libc::socklen_t,
            )
        };
        assert_eq!(failed, 0);
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Wire(socket)
    }

    pub(crate) fn send(&self, message: &Message, to_mac: Mac, from: Ipv4Addr, to: Ipv4Addr) {
        let payload = message.to_bytes();
        let [a, b, c, d, e, f, ..] = message.chaddr;
        let datagram = Datagram {
            from_mac: Mac([a, b, c, d, e, f]),
            to_mac,
            from: SocketAddrV4::new(from, frame::CLIENT_PORT),
            to: SocketAddrV4::new(to, frame::SERVER_PORT),
            payload: &payload,
        };
        let mut bytes = vec![0; frame::len(payload.len())];
        frame::emit(&datagram, &mut bytes).unwrap();
        self.0.send(&bytes).unwrap();
    }

    pub(crate) fn broadcast(&self, message: &Message) {
        self.send(message, frame::BROADCAST_MAC, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    }

    /// The next DHCP reply, whoever it is for, and where it was sent; `None` if none comes until `deadline`.
    pub(crate) fn reply_until(&self, deadline: Instant) -> Option<(Message, SocketAddrV4)> {
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).unwrap();
            let len = io::Read::read(&mut &self.0, &mut buffer).ok()?;
            let Ok(datagram) = frame::parse(&buffer[..len], Checksum::Full) else { continue };
            if datagram.to.port() == frame::CLIENT_PORT
                && let Ok((message, _)) = Message::parse(datagram.payload)
            {
                return Some((message, datagram.to));
            }
        }
    }

    /// The next reply to this transaction; one must come.
    pub(crate) fn reply(&self, xid: u32) -> Message {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let (message, _) = self.reply_until(deadline).expect("a reply within 5 s");
            if message.xid == xid {
                return message;
            }
        }
    }

    /// DISCOVER, OFFER, REQUEST, ACK: the address that was leased.
    pub(crate) fn lease(&self, mac: Mac, xid: u32) -> Ipv4Addr {
        self.broadcast(&discover(mac, xid));
        let offer = self.reply(xid);
        assert_eq!(kind(&offer), 2);
        self.broadcast(&select(&offer, mac));
        let ack = self.reply(xid);
        assert_eq!(kind(&ack), 5);
        ack.yiaddr
    }
}

/// A made-up MAC by number; none of a real device here.
pub(crate) fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([0x56, 0x54, a, b, c, d])
}

pub(crate) fn kind(message: &Message) -> u8 {
    message.options.get(code::MESSAGE_TYPE).unwrap()[0]
}

/// A client's message of a kind, with no more options than that.
pub(crate) fn message(kind: u8, mac: Mac, xid: u32) -> Message {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&mac.0);
    let mut options = Options::new();
    options.push(code::MESSAGE_TYPE, &[kind]);
    Message {
        op: Op::Request,
        htype: 1,
        hlen: 6,
        hops: 0,
        xid,
        secs: 0,
        flags: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        chaddr,
        sname: Vec::new(),
        file: Vec::new(),
        options,
    }
}

pub(crate) fn discover(mac: Mac, xid: u32) -> Message {
    message(1, mac, xid)
}

/// The REQUEST that takes an offer.
pub(crate) fn select(offer: &Message, mac: Mac) -> Message {
    let mut request = message(3, mac, offer.xid);
    request.options.push(code::REQUESTED_ADDRESS, &offer.yiaddr.octets());
    request.options.push(code::SERVER_ID, offer.options.get(code::SERVER_ID).unwrap());
    request
}
