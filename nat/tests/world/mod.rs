//! EDGE: a host with networks, their guests and an outside, each in a network namespace that ends with the test.
//!
//! ```text
//!   guest 10.1.0.2 ── virbrA 10.1.0.1 ─┐
//!   guest 10.2.0.2 ── virbrB 10.2.0.1 ─┤ host ── uplink 198.51.100.1 ── outside 198.51.100.2
//! ```
//!
//! The same in IPv6: `fd00:10:1:0::2` is `10.1.0.2`, `2001:db8::1` is `198.51.100.1`.
//! Everybody has a default route, and the outside has routes back to every network, so only firewall rules decide.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use nat::{DnsRedirect, Mode, Network};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket, sockopt,
    },
};

/// An answer on one machine takes microseconds; this only bounds a failing test.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a future on the calling thread, whose namespace it and its child processes are in.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The way to the table of the calling thread's namespace.
pub(crate) fn table() -> nat::Table {
    nat::Table::open().unwrap()
}

/// A network namespace that lives as long as this value (and what is open in it).
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            ip("link set lo up");
            OwnedFd::from(namespace)
        };
        Namespace(thread::spawn(open).join().unwrap())
    }

    /// Runs `body` on a thread inside.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// How `ip` can name it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Which of a machine's addresses is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The IPv6 address that goes with an IPv4 one: `fd00:10:1:0::2` with `10.1.0.2`.
fn sixth(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    // Read as text, so that the digits are the same.
    format!("fd00:{a}:{b}:{c}::{d}").parse().unwrap()
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Connected,
    /// The ICMP answer of a reject rule, or of a port nobody listens on.
    Refused,
    /// Anything else, silence above all.
    Lost,
}

/// A guest, or the outside.
struct Machine {
    name: String,
    namespace: Namespace,
    address: Ipv4Addr,
    address6: Ipv6Addr,
    gateway: Ipv4Addr,
    gateway6: Ipv6Addr,
    network: Option<Network>,
}

impl Machine {
    fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address.into(),
            Family::V6 => self.address6.into(),
        }
    }

    fn gateway(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.gateway.into(),
            Family::V6 => self.gateway6.into(),
        }
    }
}

pub(crate) struct World {
    host: Namespace,
    machines: Vec<Machine>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        host.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            // by default one client gets one ICMP refusal a second
            std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            ip(&format!("link add uplink type veth peer name eth0 netns {}", outside.path()));
            ip("addr add 198.51.100.1/24 dev uplink");
            ip("addr add 198.51.100.3/24 dev uplink");
            ip("addr add 2001:db8::1/64 dev uplink nodad");
            ip("addr add 2001:db8::3/64 dev uplink nodad");
            ip("link set uplink up");
        });
        outside.run(|| {
            ip("addr add 198.51.100.2/24 dev eth0");
            ip("addr add 2001:db8::2/64 dev eth0 nodad");
            ip("link set eth0 up");
        });
        let outside = Machine {
            name: "outside".to_owned(),
            namespace: outside,
            address: Ipv4Addr::new(198, 51, 100, 2),
            address6: "2001:db8::2".parse().unwrap(),
            gateway: Ipv4Addr::new(198, 51, 100, 1),
            gateway6: "2001:db8::1".parse().unwrap(),
            network: None,
        };
        World { host, machines: vec![outside] }
    }

    pub(crate) fn outside(&self) -> usize {
        0
    }

    pub(crate) fn uplink(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 1)
    }

    pub(crate) fn second_uplink(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 3)
    }

    pub(crate) fn uplink6(&self) -> Ipv6Addr {
        "2001:db8::1".parse().unwrap()
    }

    pub(crate) fn second_uplink6(&self) -> Ipv6Addr {
        "2001:db8::3".parse().unwrap()
    }

    pub(crate) fn host(&self) -> &Namespace {
        &self.host
    }

    pub(crate) fn namespace(&self, machine: usize) -> &Namespace {
        &self.machines[machine].namespace
    }

    pub(crate) fn address(&self, machine: usize) -> Ipv4Addr {
        self.machines[machine].address
    }

    pub(crate) fn address6(&self, machine: usize) -> Ipv6Addr {
        self.machines[machine].address6
    }

    /// One guest more on the network of another: `PREFIX.NUMBER`.
    pub(crate) fn another_guest(&mut self, of: usize, number: u8) -> usize {
        let (bridge, gateway) = (self.machines[of].name.clone(), self.machines[of].gateway);
        let [a, b, c, _] = gateway.octets();
        let address = Ipv4Addr::new(a, b, c, number);
        let (address6, gateway6) = (sixth(address), self.machines[of].gateway6);
        let port = format!("p{number}-{bridge}");
        let guest = Namespace::new();
        self.host.run(|| {
            ip(&format!("link add {port} type veth peer name eth0 netns {}", guest.path()));
            ip(&format!("link set {port} master {bridge} up"));
        });
        guest.run(|| {
            ip(&format!("addr add {address}/24 dev eth0"));
            ip(&format!("addr add {address6}/64 dev eth0 nodad"));
            ip("link set eth0 up");
            ip(&format!("route add default via {gateway}"));
            ip(&format!("-6 route add default via {gateway6}"));
        });
        self.machines.push(Machine {
            name: format!("{bridge}-{number}"),
            namespace: guest,
            address,
            address6,
            gateway,
            gateway6,
            network: None,
        });
        self.machines.len() - 1
    }

    pub(crate) fn name(&self, machine: usize) -> String {
        self.machines[machine].name.clone()
    }

    /// A network `PREFIX.0/24` (and its IPv6 twin) with one guest, `PREFIX.2`; returns the guest.
    pub(crate) fn network(&mut self, bridge: &str, prefix: &str, mode: Mode) -> usize {
        let guest = Namespace::new();
        let port = format!("p-{bridge}");
        let address: Ipv4Addr = format!("{prefix}.2").parse().unwrap();
        let gateway: Ipv4Addr = format!("{prefix}.1").parse().unwrap();
        let (address6, gateway6) = (sixth(address), sixth(gateway));
        self.host.run(|| {
            ip(&format!("link add {bridge} type bridge stp_state 0"));
            ip(&format!("addr add {gateway}/24 dev {bridge}"));
            ip(&format!("addr add {gateway6}/64 dev {bridge} nodad"));
            ip(&format!("link set {bridge} up"));
            ip(&format!("link add {port} type veth peer name eth0 netns {}", guest.path()));
            ip(&format!("link set {port} master {bridge} up"));
        });
        guest.run(|| {
            ip(&format!("addr add {address}/24 dev eth0"));
            ip(&format!("addr add {address6}/64 dev eth0 nodad"));
            ip("link set eth0 up");
            ip(&format!("route add default via {gateway}"));
            ip(&format!("-6 route add default via {gateway6}"));
        });
        let subnet6 = ipnet::Ipv6Net::new(gateway6, 64).unwrap().trunc();
        self.machines[0].namespace.run(|| {
            ip(&format!("route add {prefix}.0/24 via 198.51.100.1"));
            ip(&format!("-6 route add {subnet6} via 2001:db8::1"));
        });
        let network = Network {
            bridge: bridge.to_owned(),
            mode,
            subnets: vec![format!("{prefix}.0/24").parse().unwrap(), subnet6.into()],
            dns_redirect: None,
            policy: nat::Policy::default(),
        };
        self.host.run(|| block_on(table().add(&network)).unwrap());
        self.machines.push(Machine {
            name: bridge.to_owned(),
            namespace: guest,
            address,
            address6,
            gateway,
            gateway6,
            network: Some(network),
        });
        self.machines.len() - 1
    }

    /// Connects by TCP, from a given source port if asked; with the source address as the other side sees it.
    pub(crate) fn connect(&self, from: usize, to: usize, port: Option<u16>) -> (Answer, Option<SocketAddr>) {
        self.connect_by(Family::V4, from, to, port)
    }

    pub(crate) fn connect_by(
        &self,
        family: Family,
        from: usize,
        to: usize,
        port: Option<u16>,
    ) -> (Answer, Option<SocketAddr>) {
        let (from, to) = (&self.machines[from], &self.machines[to]);
        let address = to.address(family);
        let listener = to.namespace.run(|| TcpListener::bind((address, 0)).unwrap());
        let service = SocketAddr::new(address, listener.local_addr().unwrap().port());
        let (answer, _stream) = from.namespace.run(|| try_connect(service, port));
        let source = (answer == Answer::Connected).then(|| listener.accept().unwrap().1);
        (answer, source)
    }

    /// Connects from a guest to its host's address on the bridge.
    pub(crate) fn connect_host(&self, family: Family, from: usize) -> Answer {
        let from = &self.machines[from];
        let gateway = from.gateway(family);
        let listener = self.host.run(|| TcpListener::bind((gateway, 0)).unwrap());
        let service = SocketAddr::new(gateway, listener.local_addr().unwrap().port());
        from.namespace.run(|| try_connect(service, None)).0
    }

    /// Asks the guest's gateway at port 53 by UDP and TCP: who answers? Some program holds that port on every address;
    /// ours is on the high port, if there is one.
    pub(crate) fn ask_dns(&self, family: Family, from: usize, high_port: Option<u16>) -> [String; 2] {
        let from = &self.machines[from];
        let gateway = from.gateway(family);
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut network = from.network.clone().unwrap();
        network.dns_redirect =
            high_port.map(|port| DnsRedirect { addresses: vec![from.gateway.into(), from.gateway6.into()], port });
        self.host.run(|| block_on(table().add(&network)).unwrap());
        let serve = |address: IpAddr, port: u16, who: &'static str| {
            let (udp, tcp) = self
                .host
                .run(|| (UdpSocket::bind((address, port)).unwrap(), TcpListener::bind((address, port)).unwrap()));
            udp.set_read_timeout(Some(PATIENCE)).unwrap();
            tcp.set_nonblocking(true).unwrap();
            move || answer_once(&udp, &tcp, who)
        };
        let mut servers: Vec<Box<dyn FnMut() + Send>> = vec![Box::new(serve(any, 53, "other"))];
        if let Some(port) = high_port {
            servers.push(Box::new(serve(gateway, port, "ours")));
        }
        let ask = SocketAddr::new(gateway, 53);
        let stream = from.namespace.run(|| try_connect(ask, None).1).expect("a TCP answer");
        let client = from.namespace.run(|| UdpSocket::bind((any, 0)).unwrap());
        client.send_to(b"?", ask).unwrap();
        thread::scope(|scope| {
            for server in &mut servers {
                scope.spawn(server);
            }
            let mut buffer = [0; 16];
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let (length, source) = client.recv_from(&mut buffer).expect("a UDP answer");
            assert_eq!(source, ask, "the answer comes from where the question went");
            let mut text = String::new();
            (&stream).read_to_string(&mut text).unwrap();
            [String::from_utf8_lossy(&buffer[..length]).into_owned(), text]
        })
    }
}

/// Answers what has arrived by TCP, then one UDP question if it comes in time.
fn answer_once(udp: &UdpSocket, tcp: &TcpListener, who: &str) {
    if let Ok((mut stream, _)) = tcp.accept() {
        stream.write_all(who.as_bytes()).unwrap();
        let mut buffer = [0; 16];
        if let Ok((_, client)) = udp.recv_from(&mut buffer) {
            udp.send_to(who.as_bytes(), client).unwrap();
        }
    }
}

fn try_connect(to: SocketAddr, source_port: Option<u16>) -> (Answer, Option<TcpStream>) {
    let (family, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    if let Some(port) = source_port {
        setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port))).unwrap();
    }
    let timeout = nix::sys::time::TimeVal::new(PATIENCE.as_secs().try_into().unwrap(), 0);
    setsockopt(&fd, sockopt::SendTimeout, &timeout).unwrap();
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => {
            assert_eq!(getsockopt(&fd, sockopt::SocketError).unwrap(), 0);
            let stream = TcpStream::from(fd);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            (Answer::Connected, Some(stream))
        }
        Err(cause) if std::io::Error::from(cause).kind() == ErrorKind::ConnectionRefused => (Answer::Refused, None),
        Err(_) => (Answer::Lost, None),
    }
}
