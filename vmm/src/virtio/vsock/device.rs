//! EDGE: the socket device's thread: accepts and makes connections, and carries packets between them and the queues.
//!
//! A guest's packet is served at once, whether or not there is room to answer: answers are marks at the connection, and a
//! bounded list of resets for connections that are no more.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use vmm_sys_util::eventfd::EventFd;

use super::MAX_CONNECTIONS;
use super::connection::{Connection, Fate, Phase};
use super::packet::{FromGuest, HEADER, Header, Op, Ports, parse};
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::worker::Waker;

const EXIT: u64 = 0;
const RECEIVE: u64 = 1;
const TRANSMIT: u64 = 2;
const LISTENER: u64 = 3;
/// Connections have the tokens from here on, each its own for ever.
const FIRST_CONNECTION: u64 = 16;

/// Resets that wait for room; a guest that makes more does not hear of the rest.
const MAX_RESETS: usize = 256;

/// Packets in one direction before the other gets its turn.
const BURST: usize = 64;

/// Ports of the host that programs get who did not ask for one: above those anybody would listen on.
const FIRST_PORT: u32 = 1 << 30;

pub(super) struct Device {
    name: String,
    cid: u64,
    waker: Waker,
    receive: VirtQueue,
    transmit: VirtQueue,
    listener: Arc<UnixListener>,
    path: PathBuf,
    connections: BTreeMap<u64, Connection>,
    /// Connections that have ports.
    by_ports: BTreeMap<Ports, u64>,
    resets: VecDeque<Ports>,
    next_token: u64,
    next_port: u32,
    /// The connection that was served last; the next has its turn.
    served: u64,
    from_guest: Buffers,
    /// A receive buffer that was taken and not used: its chain, its header's place, the place behind.
    spare: Option<u16>,
    header: Buffers,
    payload: Buffers,
}

impl Device {
    pub(super) fn new(
        name: String,
        cid: u64,
        mut receive: VirtQueue,
        transmit: VirtQueue,
        listener: Arc<UnixListener>,
        path: PathBuf,
    ) -> io::Result<Self> {
        let waker = Waker::new()?;
        waker.watch(receive.kick(), RECEIVE)?;
        waker.watch(transmit.kick(), TRANSMIT)?;
        waker.watch(&*listener, LISTENER)?;
        receive.disable_kicks().map_err(io::Error::other)?;
        Ok(Self {
            name,
            cid,
            waker,
            from_guest: transmit.buffers(),
            header: receive.buffers(),
            payload: receive.buffers(),
            receive,
            transmit,
            listener,
            path,
            connections: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            resets: VecDeque::new(),
            next_token: FIRST_CONNECTION,
            next_port: FIRST_PORT,
            served: 0,
            spare: None,
        })
    }

    /// Runs until `exit` is written.
    pub(super) fn run(mut self, exit: &EventFd) {
        if let Err(error) = self.serve(exit) {
            tracing::error!(device = self.name, %error, "the socket device's thread cannot wait for events; it ends");
        }
    }

    fn serve(&mut self, exit: &EventFd) -> io::Result<()> {
        self.waker.watch(exit, EXIT)?;
        // Somebody may have connected, and the driver filled the queues, before we were there.
        let (mut accepting, mut transmit, mut receive, mut broken) = (true, true, true, false);
        loop {
            if !broken {
                if std::mem::take(&mut accepting) {
                    self.accept();
                }
                let done = self.serve_transmit(transmit).and_then(|more| Ok((more, self.serve_receive(receive)?)));
                (transmit, receive) = done.unwrap_or_else(|error| {
                    self.transmit.broken(&self.name, &error);
                    self.connections.clear();
                    broken = true;
                    (false, false)
                });
            }
            let mut ready = Vec::new();
            for token in self.waker.wait(transmit || receive)? {
                match token {
                    EXIT => return Ok(()),
                    RECEIVE => receive = true,
                    TRANSMIT => transmit = true,
                    LISTENER => accepting = true,
                    token => ready.push(token),
                }
            }
            for token in ready {
                receive = true;
                self.stream_is_ready(token);
            }
        }
    }

    /// Takes in who has connected to our socket.
    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) if self.connections.len() < MAX_CONNECTIONS => {
                    if stream.set_nonblocking(true).is_ok() {
                        let ports = Ports { host: 0, guest: 0 };
                        if let Some(token) = self.add(Connection::new(stream, ports, Phase::Greeting(Vec::new()))) {
                            self.stream_is_ready(token);
                        }
                    }
                }
                // Too many: hung up on.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, connection: Connection) -> Option<u64> {
        let token = self.next_token;
        self.waker.watch_both(&connection.stream, token).ok()?;
        self.next_token += 1;
        self.connections.insert(token, connection);
        Some(token)
    }

    /// A stream can be read, or written, or has ended.
    fn stream_is_ready(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        (connection.readable, connection.writable) = (true, true);
        if matches!(connection.phase, Phase::Greeting(_)) {
            match connection.greet() {
                Ok(None) => {}
                Ok(Some(guest)) => self.ask(token, guest),
                Err(_) => drop(self.connections.remove(&token)),
            }
        } else {
            let fate = connection.flush();
            self.settle(token, fate);
        }
    }

    /// A program of the host wants a port of the guest's.
    fn ask(&mut self, token: u64, guest: u32) {
        // There are far more ports than connections: one is free.
        let host = loop {
            let port = self.next_port;
            self.next_port = if port == u32::MAX - 1 { FIRST_PORT } else { port + 1 };
            if !self.by_ports.contains_key(&Ports { host: port, guest }) {
                break port;
            }
        };
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.ports = Ports { host, guest };
            connection.phase = Phase::Asked;
            connection.request = true;
            self.by_ports.insert(connection.ports, token);
        }
    }

    /// Packets from the guest; true if there may be more.
    fn serve_transmit(&mut self, wanted: bool) -> Result<bool, QueueError> {
        if !wanted {
            return Ok(false);
        }
        self.transmit.disable_kicks()?;
        let mut more = true;
        for _ in 0..BURST {
            self.from_guest.clear();
            if let Some(chain) = self.transmit.pop_readable(&mut self.from_guest)? {
                let mut header = [0; HEADER];
                if !self.from_guest.read_at(0, &mut header) {
                    return Err(QueueError::Shape { head: chain.head });
                }
                self.from_guest.advance(HEADER);
                match parse(&header, self.cid) {
                    FromGuest::Packet(header) => self.packet(header),
                    FromGuest::Unknown(ports) => self.reset(ports),
                    FromGuest::Foreign => {}
                }
                self.transmit.put(chain.head, 0)?;
            } else if !self.transmit.enable_kicks()? {
                more = false;
                break;
            } else {
                self.transmit.disable_kicks()?;
            }
        }
        self.transmit.publish()?;
        self.transmit.interrupt()?;
        Ok(more)
    }

    fn packet(&mut self, header: Header) {
        let Some(token) = self.by_ports.get(&header.ports).copied() else {
            return match header.op {
                Op::Request => self.connect(header),
                // It is gone already.
                Op::Reset => {}
                _ => self.reset(header.ports),
            };
        };
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.credit.heard(header.buf_alloc, header.fwd_cnt);
        let fate = match header.op {
            Op::Response if connection.phase == Phase::Asked && !connection.request => connection.accepted(),
            Op::Request | Op::Response => Fate::Reset,
            Op::Reset => {
                self.remove(token);
                return;
            }
            Op::Shutdown => connection.guest_is_done(header.flags),
            Op::Data => {
                let len = header.len as usize;
                match self.from_guest.bytes().checked_sub(len) {
                    Some(extra) => {
                        self.from_guest.drop_tail(extra);
                        connection.take_data(&mut self.from_guest)
                    }
                    None => Fate::Reset,
                }
            }
            Op::CreditUpdate => Fate::Lives,
            Op::CreditRequest => {
                connection.update = true;
                Fate::Lives
            }
        };
        self.settle(token, fate);
    }

    /// A program of the guest wants a port of the host's.
    fn connect(&mut self, header: Header) {
        let stream = (self.connections.len() < MAX_CONNECTIONS).then(|| dial(&self.path, header.ports.host).ok());
        let Some(stream) = stream.flatten() else { return self.reset(header.ports) };
        let mut connection = Connection::new(stream, header.ports, Phase::Open);
        connection.credit.heard(header.buf_alloc, header.fwd_cnt);
        connection.response = true;
        match self.add(connection) {
            Some(token) => drop(self.by_ports.insert(header.ports, token)),
            None => self.reset(header.ports),
        }
    }

    fn settle(&mut self, token: u64, fate: Fate) {
        if fate == Fate::Reset
            && let Some(ports) = self.remove(token)
        {
            self.reset(ports);
        }
    }

    /// Forgets a connection, which closes its stream; its ports, if it had some.
    fn remove(&mut self, token: u64) -> Option<Ports> {
        let connection = self.connections.remove(&token)?;
        let had_ports = !matches!(connection.phase, Phase::Greeting(_));
        had_ports.then(|| {
            self.by_ports.remove(&connection.ports);
            connection.ports
        })
    }

    fn reset(&mut self, ports: Ports) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back(ports);
        }
    }

    /// Packets to the guest; true if there may be more.
    fn serve_receive(&mut self, wanted: bool) -> Result<bool, QueueError> {
        let mut more = wanted || !self.resets.is_empty() || self.connections.values().any(Connection::has_news);
        for _ in 0..BURST {
            more = more && self.has_news() && self.has_room()? && self.one_packet()?;
            if !more {
                break;
            }
        }
        self.receive.publish()?;
        self.receive.interrupt()?;
        Ok(more)
    }

    fn has_news(&self) -> bool {
        !self.resets.is_empty() || self.connections.values().any(Connection::has_news)
    }

    /// Takes a buffer from the queue; false, with the driver asked to kick, if there is none.
    fn has_room(&mut self) -> Result<bool, QueueError> {
        if self.spare.is_some() || self.take()? {
            return Ok(true);
        }
        // A buffer may have come between the last look and the driver seeing that it must kick: look once more.
        if !self.receive.enable_kicks()? || !self.take()? {
            return Ok(false);
        }
        self.receive.disable_kicks()?;
        Ok(true)
    }

    fn take(&mut self) -> Result<bool, QueueError> {
        self.header.clear();
        self.payload.clear();
        let Some(chain) = self.receive.pop_writable(&mut self.header)? else { return Ok(false) };
        let behind = self.header.bytes().checked_sub(HEADER);
        if !behind.is_some_and(|behind| self.header.move_tail(behind, &mut self.payload)) {
            return Err(QueueError::Shape { head: chain.head });
        }
        self.spare = Some(chain.head);
        Ok(true)
    }

    /// Puts one packet into the buffer that was taken; false if there was none to put.
    fn one_packet(&mut self) -> Result<bool, QueueError> {
        let Some(header) = self.next_packet() else { return Ok(false) };
        let Some(head) = self.spare.take() else { return Ok(false) };
        self.header.write_at(0, &header.to_guest(self.cid));
        self.receive.put(head, HEADER as u32 + header.len)?;
        Ok(true)
    }

    /// The next packet, its payload in place. Connections have their turns.
    fn next_packet(&mut self) -> Option<Header> {
        if let Some(ports) = self.resets.pop_front() {
            return Some(Header { op: Op::Reset, ports, len: 0, flags: 0, buf_alloc: 0, fwd_cnt: 0 });
        }
        let behind = self.connections.range(self.served + 1..).map(|(token, _)| *token);
        let before = self.connections.range(..=self.served).map(|(token, _)| *token);
        let turns: Vec<u64> = behind.chain(before).collect();
        for token in turns {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            match connection.next_packet(&mut self.payload) {
                Ok(None) => {}
                Ok(Some(header)) => {
                    self.served = token;
                    return Some(header);
                }
                Err(_) => {
                    self.settle(token, Fate::Reset);
                    return self.next_packet();
                }
            }
        }
        None
    }
}

/// Connects to the host's program that listens for this port, without waiting.
fn dial(path: &std::path::Path, port: u32) -> io::Result<UnixStream> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("_{port}"));
    let fd: OwnedFd =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(name.as_os_str())?)?;
    Ok(fd.into())
}
