//! EDGE: DNS over TCP (RFC 7766): one task per connection, several queries at once, bounds on everything.
//!
//! A connection reads no further query while as many answers as it may have are on their way, so a client that never
//! reads holds only its own connection, and that not for long.

use std::{
    collections::HashMap,
    io,
    mem::size_of,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    Door,
    core::{Answer, Core, ReplyTo},
};
use crate::dns::resolver::Transport;

const BACKLOG: i32 = 128;

/// Answers of one connection on their way at once.
const PLACES: usize = 8;

/// The longest query taken, in octets; a client with more to say has lost its way.
const LONGEST_QUERY: usize = 4096;

/// How long accepting rests when there is no descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How much of us connections may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Connections of all clients.
    pub(super) connections: usize,
    /// Connections of one client address.
    pub(super) per_client: usize,
    /// How long a client may take over the next query (RFC 7766 §6.2.3), and over taking an answer.
    pub(super) idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { connections: 128, per_client: 16, idle: Duration::from_secs(10) }
    }
}

/// One address served over TCP.
#[derive(Debug)]
pub(super) struct TcpPort(TcpListener);

impl TcpPort {
    /// Binds `address` and listens; connections will know by which interface they came.
    pub(super) fn bind(address: SocketAddr) -> io::Result<TcpPort> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        match address {
            SocketAddr::V4(_) => {
                socket.set_freebind_v4(true)?;
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        // Connections of a service stopped a moment ago must not keep the port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpPort(TcpListener::from_std(socket.into())?))
    }
}

/// The places for connections.
#[derive(Debug)]
pub(super) struct Seats {
    patience: Patience,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Seats {
    pub(super) fn new(patience: Patience) -> Seats {
        Seats { patience, taken: Mutex::default() }
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let count = taken.get(&client).copied().unwrap_or(0);
        if all >= self.patience.connections || count >= self.patience.per_client {
            return None;
        }
        taken.insert(client, count + 1);
        Some(Seat { seats: self.clone(), client })
    }
}

/// One connection's place; dropping it frees it.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    client: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

/// Takes connections from where they may come; closes others at once, and those there is no place for.
pub(super) async fn serve(port: TcpPort, core: Arc<Core>, door: Arc<Door>, seats: Arc<Seats>) {
    loop {
        match port.0.accept().await {
            Ok((stream, peer)) => {
                let admitted = arrival(&stream).is_ok_and(|interface| door.admits(interface));
                if admitted && let Some(seat) = seats.take(peer.ip()) {
                    core.spawn(converse(stream, peer.ip(), core.clone(), seat));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "can't accept a DNS connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, client: IpAddr, core: Arc<Core>, seat: Seat) {
    let idle = seat.seats.patience.idle;
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = mpsc::channel(PLACES);
    let mut write = std::pin::pin!(write_answers(writer, waiting, idle));
    tokio::select! {
        // However reading ends, what is in flight is still answered: `write` ends with the last of it.
        _ = read_queries(reader, client, &core, answers, idle) => write.await,
        () = &mut write => {}
    }
}

async fn read_queries(
    mut reader: OwnedReadHalf,
    client: IpAddr,
    core: &Arc<Core>,
    answers: mpsc::Sender<Answer>,
    idle: Duration,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(PLACES));
    let mut message = Vec::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        timeout(idle, read_message(&mut reader, &mut message)).await??;
        let to = ReplyTo::Tcp { answers: answers.clone(), place };
        core.query(client, Transport::Tcp, to, &message);
    }
}

async fn read_message(reader: &mut OwnedReadHalf, message: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::from(reader.read_u16().await?);
    if length > LONGEST_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(length, 0);
    reader.read_exact(message).await.map(drop)
}

async fn write_answers(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Answer>, idle: Duration) {
    while let Some((message, place)) = waiting.recv().await {
        match timeout(idle, writer.write_all(&framed(&message))).await {
            Ok(Ok(())) => drop(place),
            _ => return,
        }
    }
}

/// A message behind its length (RFC 1035 §4.2.2), so that both leave in one segment.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // A message is at most 65,535 octets: `wire` sees to that.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend(length.to_be_bytes());
    frame.extend(&message[..usize::from(length)]);
    frame
}

/// The index of the interface the handshake came in by: the kernel keeps it for sockets that ask for packet information
/// (ip(7) IP_PKTINFO; the address alone would not do: a peer may claim any).
fn arrival(stream: &TcpStream) -> io::Result<u32> {
    let v6 = stream.peer_addr()?.is_ipv6();
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS) } else { (libc::IPPROTO_IP, libc::IP_PKTOPTIONS) };
    let mut control = [0u8; 256];
    let mut length = control.len() as libc::socklen_t;
    // SAFETY: `control` and `length` live through the call and `length` says how long `control` is; the kernel writes
    // no more than that and says how much. The descriptor is `stream`'s, which is borrowed.
    let result =
        unsafe { libc::getsockopt(stream.as_raw_fd(), level, option, control.as_mut_ptr().cast(), &mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    // The index is the first field of `in_pktinfo` and the last of `in6_pktinfo`, behind the address.
    let offset = if v6 { 16 } else { 0 };
    let filled = control.get(..length as usize).unwrap_or_default();
    find_index(filled, wanted, offset).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Not in libc: linux/in6.h.
const IPV6_2292PKTOPTIONS: libc::c_int = 6;

/// Looks for a control message and takes four octets of it.
fn find_index(mut control: &[u8], wanted: (libc::c_int, libc::c_int), offset: usize) -> Option<u32> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const WORD: usize = size_of::<usize>();
    loop {
        let length = usize::from_ne_bytes(*control.first_chunk()?);
        let level = i32::from_ne_bytes(*control.get(WORD..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*control.get(WORD + 4..)?.first_chunk()?);
        let data = control.get(HEADER..length)?;
        if (level, kind) == wanted {
            return Some(u32::from_ne_bytes(*data.get(offset..)?.first_chunk()?));
        }
        control = control.get(length.next_multiple_of(WORD)..)?;
    }
}
