//! EDGE: listens on all interfaces of a host for DHCP and notes who said what when. It never sends.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Result, ensure};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::read,
};

use crate::space::Space;

/// A DHCP message that was seen (RFC 2131 §2, RFC 2132 §9.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was read here.
    pub at: Instant,
    /// The client's hardware address.
    pub mac: String,
    /// Option 53: 1 DISCOVER, 2 OFFER, 3 REQUEST, 5 ACK, …
    pub kind: u8,
    /// The address given, if one is.
    pub yours: Ipv4Addr,
}

/// DISCOVER.
pub const DISCOVER: u8 = 1;
/// OFFER.
pub const OFFER: u8 = 2;
/// REQUEST.
pub const REQUEST: u8 = 3;
/// ACK.
pub const ACK: u8 = 5;

/// Listens until dropped.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts to listen on a host. A message is seen on every interface that it passes; the first counts.
    pub fn start(host: &Space) -> Result<Self> {
        let socket = host.inside(open)?;
        let (seen, stop): (Arc<Mutex<Vec<Seen>>>, Arc<AtomicBool>) = Default::default();
        let (notes, stopped) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut frame = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                if !poll(&mut ready, PollTimeout::from(50_u8)).is_ok_and(|count| count > 0) {
                    continue;
                }
                // The interface is gone or down: nothing more will be seen until it is back.
                let Ok(length) = read(&socket, &mut frame) else { continue };
                if let Some(message) = parse(&frame[..length], Instant::now()) {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                }
            }
        });
        Ok(Sniffer { seen, stop, thread: Some(thread) })
    }

    /// Everything seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first message of a kind from or to a client, at or after a time.
    pub fn first(&self, mac: &str, kind: u8, since: Instant) -> Option<Seen> {
        self.seen().into_iter().find(|seen| seen.mac == mac && seen.kind == kind && seen.at >= since)
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open() -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
    ensure!(fd >= 0, "cannot open a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: fd is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(fd)
}

/// Reads an Ethernet frame; none unless it is DHCP over IPv4.
fn parse(frame: &[u8], at: Instant) -> Option<Seen> {
    let ip = frame.strip_prefix(frame.get(..12)?)?.strip_prefix(&[0x08, 0x00])?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..).filter(|_| ip.get(9) == Some(&17))?;
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    let bootp = udp.get(8..).filter(|_| matches!(port, 67 | 68))?;
    let mac: Vec<String> = bootp.get(28..34)?.iter().map(|byte| format!("{byte:02x}")).collect();
    let yours: [u8; 4] = bootp.get(16..20)?.try_into().ok()?;
    let mut options = bootp.get(240..)?;
    while let [code, rest @ ..] = options {
        match code {
            0 => options = rest,
            255 => return None,
            _ => {
                let length = usize::from(*rest.first()?);
                if *code == 53 {
                    return Some(Seen { at, mac: mac.join(":"), kind: *rest.get(1)?, yours: yours.into() });
                }
                options = rest.get(1 + length..)?;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IP and UDP headers and a BOOTP body with these options.
    fn frame(options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8 + 240];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = 17;
        frame[34 + 3] = 67;
        frame[42 + 28..42 + 34].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
        frame.extend_from_slice(options);
        frame
    }

    #[test]
    fn the_kind_of_a_message_is_found_wherever_its_option_stands() {
        let seen = parse(&frame(&[12, 2, b'v', b'm', 0, 53, 1, 1, 255]), Instant::now()).unwrap();
        assert_eq!((seen.kind, seen.mac.as_str()), (DISCOVER, "52:54:00:01:02:03"));
    }

    #[test]
    fn what_is_not_dhcp_is_passed_over() {
        assert_eq!(parse(&[], Instant::now()), None);
        assert_eq!(parse(&frame(&[255]), Instant::now()), None);
        assert_eq!(parse(&frame(&[12, 200, 1]), Instant::now()), None);
        let mut other = frame(&[53, 1, 1]);
        other[34 + 3] = 53;
        assert_eq!(parse(&other, Instant::now()), None);
    }
}
