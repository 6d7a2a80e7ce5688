//! EDGE: "the Internet": a space behind a host's uplink, with a web server that remembers who asked and a name server
//! that remembers what was asked.
//!
//! Documentation addresses (RFC 5737, RFC 3849) throughout. It has no route to any private network: an answer to a packet
//! that was not translated goes nowhere, as outside.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    space::Space,
    wait::{self, PATIENCE},
};

/// The host's address on its uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Where the host's default route leads.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The web server, port 80.
pub const WEB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// The host's IPv6 address on its uplink.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
/// Where the host's IPv6 default route leads.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// The web server, by IPv6.
pub const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);
/// The name server, port 53.
pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// The name of the web server, as the name server knows it.
pub const WEB_NAME: &str = "www.example.net";
/// What the web server serves.
pub const PAGE: &str = "Hello from the Internet\n";

/// A request as the web server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Where it came from.
    pub source: SocketAddr,
    /// The request line's path.
    pub path: String,
}

/// The Internet; gone when dropped.
#[derive(Debug)]
pub struct Internet {
    /// For what this type has no method for.
    pub space: Space,
    visits: Arc<Mutex<Vec<Visit>>>,
    queries: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Internet {
    /// Connects a host to a new Internet: interface `uplink`, a default route, a resolver in resolv.conf.
    pub fn connect(host: &Space) -> Result<Self> {
        let space = Space::new("internet")?;
        host.connect("uplink", &space, "eth0")?;
        host.ip(&format!("address add {HOST}/24 dev uplink"))?;
        space.ip(&format!("address add {GATEWAY}/24 dev eth0"))?;
        space.ip(&format!("address add {WEB}/32 dev lo"))?;
        space.ip(&format!("address add {DNS}/32 dev lo"))?;
        host.ip(&format!("route add default via {GATEWAY}"))?;
        host.ip(&format!("address add {HOST6}/64 dev uplink nodad"))?;
        space.ip(&format!("address add {GATEWAY6}/64 dev eth0 nodad"))?;
        space.ip(&format!("address add {WEB6}/128 dev lo nodad"))?;
        host.ip(&format!("-6 route add default via {GATEWAY6}"))?;
        // The kernel enters the route to an address of its own in IPv6 a moment later, even without DAD.
        let entered = || Ok(host.ip("-6 route show table local")?.contains(&format!("local {HOST6} ")));
        wait::until_true("the uplink's address is entered", PATIENCE, entered)?;
        host.set_resolv_conf(&format!("nameserver {DNS}\n"))?;
        let mut internet =
            Internet { space, visits: Arc::default(), queries: Arc::default(), stop: Arc::default(), threads: vec![] };
        internet.serve_web()?;
        internet.serve_names()?;
        Ok(internet)
    }

    /// Every request so far.
    pub fn visits(&self) -> Vec<Visit> {
        held(&self.visits).clone()
    }

    /// Every name asked for so far, as `name type`.
    pub fn queries(&self) -> Vec<String> {
        held(&self.queries).clone()
    }

    fn serve_web(&mut self) -> Result<()> {
        for address in [IpAddr::from(WEB), WEB6.into()] {
            let listener = self.space.inside(|| Ok(TcpListener::bind((address, 80))?)).context("web server")?;
            let visits = self.visits.clone();
            self.accept(listener, move |stream| visit(stream, &visits))?;
        }
        Ok(())
    }

    fn serve_names(&mut self) -> Result<()> {
        let (udp, tcp) =
            self.space.inside(|| Ok((UdpSocket::bind((DNS, 53))?, TcpListener::bind((DNS, 53))?))).context("dns")?;
        udp.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (stop, queries) = (self.stop.clone(), self.queries.clone());
        self.threads.push(thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..length], &queries).map(cut_off) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        }));
        let queries = self.queries.clone();
        self.accept(tcp, move |mut stream| {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                let Some(answer) = answer(&query, &queries) else { return };
                let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                framed.extend(answer);
                if stream.write_all(&framed).is_err() {
                    return;
                }
            }
        })
    }

    /// Serves every connection on a thread of its own until this is dropped.
    fn accept(&mut self, listener: TcpListener, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<()> {
        listener.set_nonblocking(true)?;
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let serve = serve.clone();
                        thread::spawn(move || serve(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A poisoned lock only means that another thread of the test has panicked already.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `GET /` gives the page at once; `GET /ticks` a line every 50 ms for as long as the other side listens.
fn visit(stream: TcpStream, visits: &Mutex<Vec<Visit>>) {
    let (Ok(source), Ok(reading)) = (stream.peer_addr(), stream.try_clone()) else { return };
    let mut lines = BufReader::new(reading).lines();
    let Some(Ok(request)) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    // The headers: a client that is still writing them would be sent a reset.
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    held(visits).push(Visit { source, path: path.clone() });
    let mut stream = stream;
    if path == "/ticks" {
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        for tick in 0.. {
            if stream.write_all(format!("tick {tick}\n").as_bytes()).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    let length = PAGE.len();
    let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{PAGE}").as_bytes());
}

/// Answers one DNS query: A records of a few names, NXDOMAIN for the rest (RFC 1035 §4.1).
///
/// `www.example.net` is the web server. `big.example.net` has more addresses than fit into 512 bytes: over UDP
/// its answer is cut off. `slow.example.net` is never answered.
fn answer(query: &[u8], queries: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let (name, after) = question(query)?;
    let kind = u16::from_be_bytes(query.get(after..after + 2)?.try_into().ok()?);
    held(queries).push(format!("{name} {kind}"));
    let addresses: Option<Vec<IpAddr>> = match name.to_ascii_lowercase().as_str() {
        WEB_NAME => Some(vec![WEB.into()]),
        "big.example.net" => Some((1..=60).map(|n| Ipv4Addr::new(198, 51, 100, n).into()).collect()),
        "slow.example.net" => return None,
        _ => None,
    };
    let records = if kind == 1 { addresses.as_deref().unwrap_or_default() } else { &[] };
    let mut reply = query[..2].to_vec();
    // Response, recursion desired and available; NXDOMAIN where the name is unknown.
    let code = if addresses.is_some() { 0 } else { 3 };
    reply.extend([0x81, 0x80 | code, 0, 1]);
    reply.extend((records.len() as u16).to_be_bytes());
    // One authority record where there is no answer: without it nobody may remember that (RFC 2308 §5).
    reply.extend([0, u8::from(records.is_empty()), 0, 0]);
    reply.extend(&query[12..after + 4]);
    for address in records {
        let IpAddr::V4(address) = address else { continue };
        // A pointer to the question's name; A, IN, 300 s, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
        reply.extend(address.octets());
    }
    if records.is_empty() {
        // example.net SOA . . 1 60 60 60 60, for 60 s.
        reply.extend(b"\x07example\x03net\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
        reply.extend([[0, 0, 0, 1], [0, 0, 0, 60], [0, 0, 0, 60], [0, 0, 0, 60], [0, 0, 0, 60]].concat());
    }
    Some(reply)
}

/// What fits into a datagram: the answers are left out and TC is set where they would not (RFC 2181 §9). A forwarder's
/// EDNS makes no difference here: 512 bytes is what every path takes.
fn cut_off(mut reply: Vec<u8>) -> Vec<u8> {
    if reply.len() > 512
        && let Some((_, after)) = question(&reply)
    {
        reply.truncate(after + 4);
        reply[2] |= 2;
        reply[6..8].fill(0);
    }
    reply
}

/// The name in the question section and the offset after it.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
}
