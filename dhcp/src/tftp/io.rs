//! EDGE: the sockets and files of TFTP
//!
//! A request comes to port 69 of the network's address, by its bridge only; each transfer has a socket of its own
//! (RFC 1350 §4).
//!
//! A file is looked for below the root and nowhere else, through no link that leads out of it, and is sent only if
//! everybody may read it: the daemon could read more.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::FileExt, fs::MetadataExt},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    cmsg_space,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    net::if_::if_nametoindex,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    transfer::{Next, Transfer},
    wire::{self, Code, Packet},
};
use crate::config::TftpConfig;

const PORT: u16 = 69;

/// Transfers of one network at the same time; who comes later asks again.
const TRANSFERS: usize = 128;
const TRANSFERS_OF_ONE: usize = 16;

/// A request longer than this is none (RFC 2347 §2).
const LONGEST: usize = 512;

/// Bytes of a link's packet that are none of a block's: IPv4, UDP and TFTP headers.
const HEADERS: u16 = 20 + 8 + 4;

/// A server that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Running {
    task: JoinHandle<()>,
}

impl Running {
    /// Starts serving; the port is open on return.
    pub(crate) fn start(config: &TftpConfig, bridge: &str) -> io::Result<Running> {
        let how = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = Arc::new(nix::fcntl::open(config.root.as_path(), how, nix::sys::stat::Mode::empty())?);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // The address may still be on its way to the bridge.
        socket.set_freebind_v4(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        socket.set_nonblocking(true)?;
        // For another server in place of one that is about to stop: who comes last hears.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddrV4::new(config.address, PORT).into())?;
        let server = Server {
            requests: UdpSocket::from_std(socket.into())?,
            root,
            address: config.address,
            most: config.mtu.unwrap_or(1500).saturating_sub(HEADERS),
            bridge: bridge.to_owned(),
        };
        Ok(Running { task: tokio::spawn(server.run()) })
    }

    /// Stops serving; the sockets are closed on return.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many transfers each client has.
#[derive(Debug, Default)]
struct Seats(Mutex<HashMap<Ipv4Addr, usize>>);

/// Kept for as long as a transfer lasts.
struct Seat(Arc<Seats>, Ipv4Addr);

impl Seats {
    /// `None` if the client, or all of them together, have as many as they may.
    fn take(self: &Arc<Self>, client: Ipv4Addr) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&client).copied().unwrap_or_default();
        if own >= TRANSFERS_OF_ONE || taken.values().sum::<usize>() >= TRANSFERS {
            return None;
        }
        taken.insert(client, own + 1);
        Some(Seat(self.clone(), client))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.1);
            }
        }
    }
}

struct Server {
    requests: UdpSocket,
    root: Arc<OwnedFd>,
    address: Ipv4Addr,
    most: u16,
    bridge: String,
}

impl Server {
    async fn run(self) {
        let seats = Arc::new(Seats::default());
        let mut transfers = JoinSet::new();
        let mut buffer = vec![0; LONGEST + 1];
        loop {
            while transfers.try_join_next().is_some() {}
            let (length, peer, interface) = match self.receive(&mut buffer).await {
                Ok(received) => received,
                Err(cause) => {
                    tracing::debug!("TFTP on {}: {cause}", self.bridge);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                }
            };
            let ours = if_nametoindex(self.bridge.as_str()).is_ok_and(|index| index == interface);
            let (true, true, Some(packet)) = (ours, length <= LONGEST, wire::parse(&buffer[..length])) else {
                continue;
            };
            let Some(seat) = seats.take(*peer.ip()) else { continue };
            let answer = match packet {
                Packet::Read { file, options } => Ok((file, options)),
                Packet::Refused(code, text) => Err((code, text)),
                // These belong to a transfer, and have come to the wrong door.
                Packet::Ack(_) | Packet::Error => continue,
            };
            let socket = match connected(self.address, &self.bridge, peer) {
                Ok(socket) => socket,
                Err(cause) => {
                    tracing::debug!("TFTP on {}: {cause}", self.bridge);
                    continue;
                }
            };
            let (root, most) = (self.root.clone(), self.most);
            transfers.spawn(async move {
                let _seat = seat;
                let refused = match answer {
                    Err(refused) => Some(refused),
                    Ok((name, options)) => match tokio::task::spawn_blocking(move || open(&root, &name)).await {
                        Ok(Ok((file, size))) => {
                            // A client that is gone is nobody's trouble.
                            let _ = send(&socket, Arc::new(file), Transfer::new(options, size, most)).await;
                            None
                        }
                        Ok(Err(code)) => Some((code, "there is no such file for you")),
                        Err(_) => None,
                    },
                };
                if let Some((code, text)) = refused {
                    let _ = socket.send(&wire::error(code, text)).await;
                }
            });
        }
    }

    /// The next request, who sent it and the index of the interface it came by.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, u32)> {
        let now = || {
            let mut control = cmsg_space!(libc::in_pktinfo);
            let mut iov = [IoSliceMut::new(buffer)];
            let fd = self.requests.as_raw_fd();
            let message = recvmsg::<SockaddrIn>(fd, &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
            let interface = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
                _ => None,
            });
            match (message.address, interface) {
                (Some(peer), Some(interface)) => Ok((message.bytes, peer.into(), interface)),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without sender or interface")),
            }
        };
        self.requests.async_io(Interest::READABLE, now).await
    }
}

/// A socket for one transfer, which hears that client only.
fn connected(address: Ipv4Addr, bridge: &str, peer: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    socket.connect(&peer.into())?;
    UdpSocket::from_std(socket.into())
}

/// A file below the root that everybody may read, and its size.
fn open(root: &OwnedFd, name: &[u8]) -> Result<(File, u64), Code> {
    // Some ROMs write paths as Windows does, and most begin at the root.
    let name: Vec<u8> = name.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    let name = std::str::from_utf8(&name).map_err(|_| Code::NotFound)?.trim_start_matches('/');
    // A pipe is not waited for.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(root.as_fd(), Path::new(name), how).map_err(|_| Code::NotFound)?;
    let file = File::from(file);
    let about: fs::Metadata = file.metadata().map_err(|_| Code::NotFound)?;
    match about.is_file() {
        true if about.mode() & 0o004 != 0 => Ok((file, about.len())),
        true => Err(Code::AccessViolation),
        false => Err(Code::NotFound),
    }
}

async fn send(socket: &UdpSocket, file: Arc<File>, mut transfer: Transfer) -> io::Result<()> {
    let mut next = transfer.begin();
    let mut buffer = [0; LONGEST];
    loop {
        match next {
            Next::End => return Ok(()),
            Next::Wait => {}
            Next::Grant(options) => drop(socket.send(&wire::oack(&options)).await?),
            Next::Blocks(blocks) => {
                let (file, blksize) = (file.clone(), transfer.blksize());
                let read = tokio::task::spawn_blocking(move || blocks_of(&file, blksize, blocks)).await;
                for packet in read.map_err(io::Error::other)?? {
                    socket.send(&packet).await?;
                }
            }
        }
        next = match timeout(transfer.timeout(), socket.recv(&mut buffer)).await {
            Err(_) => transfer.silence(),
            Ok(length) => match wire::parse(&buffer[..length?]) {
                Some(Packet::Ack(block)) => transfer.ack(block),
                Some(Packet::Error) => Next::End,
                _ => Next::Wait,
            },
        };
    }
}

/// Packets of these blocks. A file that has become shorter meanwhile ends earlier.
fn blocks_of(file: &File, blksize: u16, blocks: std::ops::RangeInclusive<u64>) -> io::Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    for block in blocks {
        let mut bytes = vec![0; blksize.into()];
        let mut had = 0;
        while had < bytes.len() {
            match file.read_at(&mut bytes[had..], (block - 1) * u64::from(blksize) + had as u64)? {
                0 => break,
                more => had += more,
            }
        }
        packets.push(wire::data(block as u16, &bytes[..had]));
    }
    Ok(packets)
}
