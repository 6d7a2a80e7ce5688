//! EDGE: a client of libvirt's remote protocol that writes its own bytes, for what no library would send.

use std::{
    io::{IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// libvirt's remote program.
pub const REMOTE: u32 = 0x2000_8086;

/// The length and the header.
pub const HEAD: usize = 28;

/// Procedures, by their numbers in the protocol.
pub mod procedure {
    #![allow(missing_docs, reason = "the names are those of the protocol")]
    pub const CONNECT_OPEN: u32 = 1;
    pub const CONNECT_GET_CAPABILITIES: u32 = 7;
    pub const CONNECT_LIST_DEFINED_NETWORKS: u32 = 36;
    pub const NETWORK_DEFINE_XML: u32 = 41;
    pub const NETWORK_GET_XML_DESC: u32 = 43;
    pub const NETWORK_GET_AUTOSTART: u32 = 44;
    pub const NETWORK_LOOKUP_BY_NAME: u32 = 46;
    pub const CONNECT_GET_HOSTNAME: u32 = 59;
    pub const AUTH_LIST: u32 = 66;
    pub const NETWORK_IS_ACTIVE: u32 = 152;
    pub const NETWORK_IS_PERSISTENT: u32 = 153;
    pub const CONNECT_GET_LIB_VERSION: u32 = 157;
    pub const CONNECT_LIST_ALL_NETWORKS: u32 = 283;
    pub const NETWORK_UPDATE: u32 = 291;
    pub const NETWORK_EVENT_REGISTER: u32 = 313;
    pub const NETWORK_EVENT_LIFECYCLE: u32 = 315;
    pub const NETWORK_GET_DHCP_LEASES: u32 = 341;
}

/// What kind of frame: CALL.
pub const CALL: u32 = 0;

/// CALL_WITH_FDS.
pub const CALL_WITH_FDS: u32 = 4;

/// A frame as it is on the wire.
pub fn frame(program: u32, procedure: u32, kind: u32, serial: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD + payload.len()).unwrap_or(u32::MAX);
    let words = [length, program, 1, procedure, kind, serial, 0];
    words.into_iter().flat_map(u32::to_be_bytes).chain(payload.iter().copied()).collect()
}

/// A string: its length, its bytes, zeros to a multiple of four.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The procedure or event.
    pub procedure: u32,
    /// CALL, REPLY, MESSAGE…
    pub kind: u32,
    /// Of the call it answers.
    pub serial: u32,
    /// 0 well, 1 an error, 2 more follows.
    pub status: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Four bytes as a number.
    pub fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.payload.get(at..).and_then(|rest| rest.first_chunk()).context("a longer payload")?;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// The string that begins here.
    pub fn string(&self, at: usize) -> Result<String> {
        let length = self.word(at)? as usize;
        let bytes = self.payload.get(at + 4..).and_then(|rest| rest.get(..length)).context("a whole string")?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Of an error: libvirt's code, and the message.
    pub fn error(&self) -> Result<(u32, String)> {
        ensure!(self.status == 1, "an error was expected: {self:?}");
        Ok((self.word(0)?, self.string(12)?))
    }
}

/// A client on a connection.
#[derive(Debug)]
pub struct Wire {
    /// What it writes to and reads from.
    pub stream: UnixStream,
    serial: u32,
}

impl Wire {
    /// Takes a connection; no answer takes longer than this.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Wire { stream, serial: 0 })
    }

    /// The same, and says what every client says first, as go-libvirt does: what is there is marked by `01 00 00 00`.
    pub fn open(stream: UnixStream, patience: Duration, uri: &str) -> Result<Self> {
        let mut wire = Self::new(stream, patience)?;
        let types = wire.call(procedure::AUTH_LIST, &[])?;
        ensure!(types.payload == [0, 0, 0, 1, 0, 0, 0, 0], "no authentication: {types:?}");
        let open = [&[1, 0, 0, 0][..], &string(uri), &[0; 4]].concat();
        let opened = wire.call(procedure::CONNECT_OPEN, &open)?;
        ensure!(opened.status == 0 && opened.payload.is_empty(), "{opened:?}");
        Ok(wire)
    }

    /// Sends a call; gives its serial.
    pub fn send(&mut self, procedure: u32, payload: &[u8]) -> Result<u32> {
        self.serial += 1;
        self.stream.write_all(&frame(REMOTE, procedure, CALL, self.serial, payload))?;
        Ok(self.serial)
    }

    /// Sends bytes and descriptors with the first of them.
    pub fn send_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None)?;
        Ok(self.stream.write_all(&bytes[sent..])?)
    }

    /// The next frame; `None` if the other side hung up.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; HEAD];
        let mut filled = 0;
        while filled < HEAD {
            match self.stream.read(&mut head[filled..]) {
                Ok(0) => return Ok(None),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error).context("waiting for a frame"),
            }
        }
        let words: Vec<u32> = head.chunks(4).map(|word| word.iter().fold(0, |n, b| n << 8 | u32::from(*b))).collect();
        let length = words[0] as usize;
        ensure!((HEAD..=(32 << 20) + 4).contains(&length), "a frame of {length} bytes");
        let mut payload = vec![0; length - HEAD];
        self.stream.read_exact(&mut payload)?;
        Ok(Some(Frame { procedure: words[3], kind: words[4], serial: words[5], status: words[6], payload }))
    }

    /// Calls and waits for the reply to it; what comes before that is an event, and dropped.
    pub fn call(&mut self, procedure: u32, payload: &[u8]) -> Result<Frame> {
        let serial = self.send(procedure, payload)?;
        loop {
            let frame = self.receive()?.with_context(|| format!("hung up on a call of procedure {procedure}"))?;
            if frame.kind == 1 {
                ensure!(frame.serial == serial && frame.procedure == procedure, "a reply to something else: {frame:?}");
                return Ok(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_libvirts() {
        // What virsh sends first, as it was seen on the wire.
        let first = frame(REMOTE, procedure::AUTH_LIST, CALL, 0, &[]);
        let seen = [0, 0, 0, 0x1c, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(first, seen);
        assert_eq!(string("none!"), [0, 0, 0, 5, b'n', b'o', b'n', b'e', b'!', 0, 0, 0]);
    }
}
