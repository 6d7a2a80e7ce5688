//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian. Pure: values in, bytes out.

use std::{net::IpAddr, time::Duration};

use super::Frame;

// Block types (§4, §3.3).
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Which byte order the section has (§4.1).
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Times are nanoseconds: ten to the power of minus this (§4.2, if_tsresol).
const NANOSECONDS: u8 = 9;

// Options by block; 0 ends them (§3.5).
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_DESCRIPTION: u16 = 3;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;

/// Longest option or record.
const LONGEST: usize = u16::MAX as usize - 4;

/// Which way a frame went, as seen by the host's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Into the host: from the guest. The kind is that of packet(7): to this host, to all, to some, to another.
    In {
        /// `PACKET_HOST`, `PACKET_BROADCAST`, `PACKET_MULTICAST` or `PACKET_OTHERHOST`.
        kind: u8,
    },
    /// Out of the host: to the guest.
    Out,
}

impl Direction {
    /// From what packet(7) says.
    pub(crate) fn of(kind: u8) -> Self {
        if kind == libc::PACKET_OUTGOING { Direction::Out } else { Direction::In { kind } }
    }

    /// The flags word (§4.3.1): the direction, and how the frame came to be received.
    fn flags(self) -> u32 {
        match self {
            Direction::Out => 2,
            Direction::In { kind } => {
                let reception = match kind {
                    libc::PACKET_HOST => 1,
                    libc::PACKET_MULTICAST => 2,
                    libc::PACKET_BROADCAST => 3,
                    libc::PACKET_OTHERHOST => 4,
                    _ => 0,
                };
                1 | reception << 2
            }
        }
    }
}

/// The first block of a file.
pub(super) fn section(out: &mut Vec<u8>) {
    block(out, SECTION, |body| {
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0, of unknown length.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(body, SECTION_APPLICATION, concat!("netd ", env!("CARGO_PKG_VERSION")).as_bytes());
        end(body);
    });
}

/// An interface; they are numbered in the order they come.
pub(super) fn interface(out: &mut Vec<u8>, name: &str, description: &str, snaplen: u32) {
    block(out, INTERFACE, |body| {
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0, 0]);
        body.extend(snaplen.to_le_bytes());
        option(body, INTERFACE_NAME, name.as_bytes());
        option(body, INTERFACE_DESCRIPTION, description.as_bytes());
        option(body, INTERFACE_RESOLUTION, &[NANOSECONDS]);
        end(body);
    });
}

/// Whose address is whose.
pub(super) fn names(out: &mut Vec<u8>, names: &[(IpAddr, String)]) {
    block(out, NAMES, |body| {
        for (address, name) in names {
            // A name ends at its first zero.
            let name: Vec<u8> = name.bytes().filter(|&byte| byte != 0).take(LONGEST - 32).chain([0]).collect();
            match address {
                IpAddr::V4(v4) => option(body, 1, &[&v4.octets()[..], &name].concat()),
                IpAddr::V6(v6) => option(body, 2, &[&v6.octets()[..], &name].concat()),
            }
        }
        end(body);
    });
}

/// A frame.
pub(super) fn packet(out: &mut Vec<u8>, frame: &Frame<'_>) {
    block(out, PACKET, |body| {
        body.extend(frame.interface.to_le_bytes());
        time(body, frame.at);
        body.extend((frame.bytes.len() as u32).to_le_bytes());
        body.extend(frame.original.to_le_bytes());
        body.extend(frame.bytes);
        pad(body);
        option(body, PACKET_FLAGS, &frame.direction.flags().to_le_bytes());
        end(body);
    });
}

/// What became of an interface's frames.
pub(super) fn statistics(out: &mut Vec<u8>, interface: u32, at: Duration, received: u64, dropped: u64) {
    block(out, STATISTICS, |body| {
        body.extend(interface.to_le_bytes());
        time(body, at);
        option(body, STATISTICS_RECEIVED, &(received + dropped).to_le_bytes());
        option(body, STATISTICS_DROPPED, &dropped.to_le_bytes());
        end(body);
    });
}

/// A block: its type and length, twice, around a body of whole words.
fn block(out: &mut Vec<u8>, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.extend(kind.to_le_bytes());
    out.extend(length);
    out.extend(body);
    out.extend(length);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(LONGEST)];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Upper word first.
fn time(body: &mut Vec<u8>, at: Duration) {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    body.extend(((nanos >> 32) as u32).to_le_bytes());
    body.extend((nanos as u32).to_le_bytes());
}
