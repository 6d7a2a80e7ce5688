//! EDGE: one message to one upstream, from a socket of its own.
//!
//! The socket is connected, so the kernel drops what comes from elsewhere, and its port is one the kernel picks at
//! random. Whether a message answers the question is for the resolver to say.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::core::Core;
use crate::dns::resolver::{Ask, Transport};

/// Longer than any datagram we ask for.
const BUFFER: usize = 4096;

/// Asks, and reports until it is aborted or the socket has no more to say.
pub(super) async fn put(core: Arc<Core>, ask: Ask, upstream: SocketAddr, over: Transport, message: Vec<u8>) {
    let result = match over {
        Transport::Udp => by_udp(&core, ask, upstream, &message).await,
        Transport::Tcp => by_tcp(&core, ask, upstream, &message).await,
    };
    if let Err(error) = result {
        tracing::debug!(%upstream, %error, "an upstream resolver can't be asked");
        core.unreachable(ask);
    }
}

async fn by_udp(core: &Arc<Core>, ask: Ask, upstream: SocketAddr, message: &[u8]) -> io::Result<()> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(message).await?;
    let mut buffer = [0; BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        core.reply(ask, &buffer[..length]);
    }
}

async fn by_tcp(core: &Arc<Core>, ask: Ask, upstream: SocketAddr, message: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&super::tcp::framed(message)).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    core.reply(ask, &reply);
    Ok(())
}
