//! EDGE: a crowd of guests in one thread: each is a smoltcp stack on the descriptor of a port.
//!
//! Every member asks for a lease, resolves a name and fetches a page, at its own pace and all at once. What each got
//! and when is returned; whether that is right is the test's to say. Offload headers are written as zeroes and
//! skipped on reading: the tap is told to hand out complete checksums.
//!
//! ```text
//!   Leasing ──configured──► Resolving ──answer──► Fetching ──closed──► Done
//!      ▲                        │ failed              │ reset             (the report says how far it came)
//!      └── smoltcp retries      └────────► Done ◄─────┘
//! ```

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, Device, DeviceCapabilities, Medium},
    socket::{dhcpv4, dns, tcp},
    time::Instant as Tick,
    wire::{DhcpOption, DnsQueryType, EthernetAddress, IpAddress, IpCidr},
};

use crate::tap;

/// A guest's plug: what netd gave for it.
#[derive(Debug)]
pub struct Plug {
    /// The name it tells the DHCP server.
    pub name: String,
    /// Its MAC.
    pub mac: [u8; 6],
    /// The tap's descriptor.
    pub fd: OwnedFd,
}

impl Plug {
    /// The plug of a port as the API describes it.
    pub fn new(name: &str, mac: &str, fd: OwnedFd) -> Result<Self> {
        let mut bytes = [0; 6];
        for (byte, text) in bytes.iter_mut().zip(mac.split(':')) {
            *byte = u8::from_str_radix(text, 16).with_context(|| format!("'{mac}' is no MAC"))?;
        }
        Ok(Plug { name: name.to_owned(), mac: bytes, fd })
    }
}

/// What every member does after it has its lease.
#[derive(Clone, Debug, Default)]
pub struct Errand {
    /// Resolve this name with the DNS server of the lease…
    pub resolve: Option<String>,
    /// …and fetch `http://NAME/` from the address.
    pub fetch: bool,
}

/// How far a member came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The member.
    pub name: String,
    /// The address it was given.
    pub address: Option<Ipv4Addr>,
    /// From its first frame (the DISCOVER) to the ACK.
    pub lease_after: Option<Duration>,
    /// What the name resolved to.
    pub resolved: Option<Ipv4Addr>,
    /// From the question to the answer.
    pub resolved_after: Option<Duration>,
    /// The page's body.
    pub page: Option<String>,
}

/// Runs all members until each is done, or until patience ends.
pub fn run(plugs: &[Plug], errand: &Errand, patience: Duration) -> Result<Vec<Report>> {
    let begun = Instant::now();
    let options: Vec<[DhcpOption<'_>; 1]> =
        plugs.iter().map(|plug| [DhcpOption { kind: 12, data: plug.name.as_bytes() }]).collect();
    let mut members = plugs
        .iter()
        .zip(&options)
        .map(|(plug, options)| Member::new(plug, options, begun))
        .collect::<Result<Vec<_>>>()?;
    while begun.elapsed() < patience {
        let mut next = Duration::from_millis(100);
        let mut busy = false;
        for member in members.iter_mut().filter(|member| !member.done()) {
            member.step(errand)?;
            busy |= !member.done();
            next = next.min(member.sleep());
        }
        if !busy {
            break;
        }
        let mut ready: Vec<PollFd<'_>> =
            plugs.iter().map(|plug| PollFd::new(plug.fd.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for frames"),
        }
    }
    Ok(members.into_iter().map(|member| member.report).collect())
}

#[derive(Clone, Copy)]
enum Stage {
    Leasing,
    Resolving(dns::QueryHandle),
    Fetching,
    Done,
}

struct Member<'a> {
    link: Link<'a>,
    interface: Interface,
    sockets: SocketSet<'a>,
    dhcp: SocketHandle,
    dns: SocketHandle,
    tcp: SocketHandle,
    stage: Stage,
    asked: Instant,
    request: Vec<u8>,
    received: Vec<u8>,
    report: Report,
}

impl<'a> Member<'a> {
    fn new(plug: &'a Plug, options: &'a [DhcpOption<'a>], begun: Instant) -> Result<Self> {
        let mut link = Link::new(&plug.fd, begun)?;
        let mut config = Config::new(EthernetAddress(plug.mac).into());
        // Ports and transaction ids: different for each, the same in every run.
        config.random_seed =
            u64::from_be_bytes([0, 0, plug.mac[0], plug.mac[1], plug.mac[2], plug.mac[3], plug.mac[4], plug.mac[5]]);
        let now = link.tick();
        let interface = Interface::new(config, &mut link, now);
        let mut sockets = SocketSet::new(Vec::new());
        let mut dhcp = dhcpv4::Socket::new();
        dhcp.set_outgoing_options(options);
        let mut retry = dhcp.get_retry_config();
        retry.discover_timeout = smoltcp::time::Duration::from_secs(3);
        dhcp.set_retry_config(retry);
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        Ok(Member {
            dhcp: sockets.add(dhcp),
            dns: sockets.add(dns::Socket::new(&[], Vec::new())),
            tcp: sockets.add(tcp::Socket::new(buffer(), buffer())),
            link,
            interface,
            sockets,
            stage: Stage::Leasing,
            asked: begun,
            request: Vec::new(),
            received: Vec::new(),
            report: Report { name: plug.name.clone(), ..Report::default() },
        })
    }

    fn done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// How long nothing is due, if no frame arrives.
    fn sleep(&mut self) -> Duration {
        let now = self.link.tick();
        let delay = self.interface.poll_delay(now, &self.sockets);
        delay.map_or(Duration::from_millis(100), |delay| Duration::from_micros(delay.total_micros()))
    }

    /// Takes in what arrived, sends what is due and goes on to the next stage if this one is over.
    fn step(&mut self, errand: &Errand) -> Result<()> {
        let now = self.link.tick();
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let before = std::mem::discriminant(&self.stage);
        match self.stage {
            Stage::Leasing => self.leasing(errand)?,
            Stage::Resolving(query) => self.resolving(query, errand)?,
            Stage::Fetching => self.fetching()?,
            Stage::Done => {}
        }
        if std::mem::discriminant(&self.stage) != before {
            // The first frame of a stage leaves now, not when the next one arrives.
            let now = self.link.tick();
            self.interface.poll(now, &mut self.link, &mut self.sockets);
        }
        Ok(())
    }

    fn leasing(&mut self, errand: &Errand) -> Result<()> {
        let Some(dhcpv4::Event::Configured(lease)) = self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).poll()
        else {
            return Ok(());
        };
        self.report.address = Some(lease.address.address());
        self.report.lease_after = self.link.first_sent.map(|sent| sent.elapsed());
        let servers: Vec<IpAddress> = lease.dns_servers.iter().map(|server| (*server).into()).collect();
        // Room for one address and one route is what smoltcp has by default, and all that is used.
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            let _ = addresses.push(IpCidr::Ipv4(lease.address));
        });
        if let Some(router) = lease.router {
            self.interface.routes_mut().add_default_ipv4_route(router).context("no room for a route")?;
        }
        let Some(name) = &errand.resolve else {
            self.stage = Stage::Done;
            return Ok(());
        };
        let dns = self.sockets.get_mut::<dns::Socket<'_>>(self.dns);
        dns.update_servers(&servers);
        self.asked = Instant::now();
        let query = dns.start_query(self.interface.context(), name, DnsQueryType::A);
        self.stage = Stage::Resolving(query.ok().with_context(|| format!("'{name}' cannot be asked for"))?);
        Ok(())
    }

    fn resolving(&mut self, query: dns::QueryHandle, errand: &Errand) -> Result<()> {
        let answer = match self.sockets.get_mut::<dns::Socket<'_>>(self.dns).get_query_result(query) {
            Ok(addresses) => addresses.first().copied(),
            Err(dns::GetQueryResultError::Pending) => return Ok(()),
            Err(dns::GetQueryResultError::Failed) => None,
        };
        self.stage = Stage::Done;
        let Some(IpAddress::Ipv4(address)) = answer else { return Ok(()) };
        self.report.resolved = Some(address);
        self.report.resolved_after = Some(self.asked.elapsed());
        if errand.fetch {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
            let port = 49_152 + u16::from(self.report.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()[3]);
            socket.connect(self.interface.context(), (address, 80), port).context("cannot connect")?;
            let name = errand.resolve.as_deref().unwrap_or_default();
            self.stage = Stage::Fetching;
            self.request = format!("GET / HTTP/1.0\r\nHost: {name}\r\n\r\n").into_bytes();
        }
        Ok(())
    }

    fn fetching(&mut self) -> Result<()> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        if socket.can_send() && !self.request.is_empty() {
            let sent = socket.send_slice(&self.request).context("cannot send")?;
            self.request.drain(..sent);
        }
        while socket.can_recv() {
            let received = &mut self.received;
            socket
                .recv(|data| {
                    received.extend_from_slice(data);
                    (data.len(), ())
                })
                .context("cannot receive")?;
        }
        if !socket.may_recv() && self.request.is_empty() {
            socket.close();
            let text = String::from_utf8_lossy(&self.received);
            self.report.page = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
            self.stage = Stage::Done;
        } else if !socket.is_open() {
            self.stage = Stage::Done;
        }
        Ok(())
    }
}

/// One frame at a time between smoltcp and a tap's descriptor.
struct Link<'a> {
    fd: &'a OwnedFd,
    header: usize,
    begun: Instant,
    first_sent: Option<Instant>,
}

const MTU: usize = 1514;

impl<'a> Link<'a> {
    fn new(fd: &'a OwnedFd, begun: Instant) -> Result<Self> {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("O_NONBLOCK")?;
        tap::clear_offload(fd)?;
        Ok(Link { fd, header: tap::header_size(fd)?, begun, first_sent: None })
    }

    fn tick(&self) -> Tick {
        Tick::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

struct Received(Vec<u8>, usize);

struct Sending<'b, 'a>(&'b mut Link<'a>);

impl<'a> Device for Link<'a> {
    type RxToken<'b>
        = Received
    where
        Self: 'b;
    type TxToken<'b>
        = Sending<'b, 'a>
    where
        Self: 'b;

    fn receive(&mut self, _: Tick) -> Option<(Received, Sending<'_, 'a>)> {
        let mut frame = vec![0; self.header + MTU];
        // Nothing there, or the port is gone: either way no frame.
        let length = read(self.fd, &mut frame).ok()?;
        frame.truncate(length);
        (length > self.header).then_some((Received(frame, self.header), Sending(self)))
    }

    fn transmit(&mut self, _: Tick) -> Option<Sending<'_, 'a>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = MTU;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0[self.1..])
    }
}

impl phy::TxToken for Sending<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let Sending(link) = self;
        let mut frame = vec![0; link.header + length];
        let result = fill(&mut frame[link.header..]);
        link.first_sent.get_or_insert_with(Instant::now);
        // A full queue loses the frame, as a wire would.
        let _ = write(link.fd, &frame);
        result
    }
}
