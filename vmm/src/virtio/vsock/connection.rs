//! EDGE: one connection: a stream of the host, and what is still to be said about it to the guest.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::credit::Credit;
use super::packet::{Header, NO_RECEIVE, NO_SEND, Op, Ports};
use crate::virtio::Buffers;

/// Bytes of a longest `CONNECT PORT\n`.
const GREETING: usize = 32;

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The host's program has not said which port it wants; what it said so far.
    Greeting(Vec<u8>),
    /// The guest was asked, or will be.
    Asked,
    Open,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    /// Over; the guest has yet to be told.
    Reset,
}

pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) ports: Ports,
    pub(super) phase: Phase,
    pub(super) credit: Credit,
    /// To be said to the guest: that somebody wants to connect, that we accept, that there is room.
    pub(super) request: bool,
    pub(super) response: bool,
    pub(super) update: bool,
    /// The stream may have something to read, and may take something: nobody has seen otherwise.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// What the stream did not take yet; bounded by our room.
    waiting: VecDeque<u8>,
    /// The guest's flags: it receives no more, it sends no more.
    guest_done: u32,
    write_closed: bool,
    /// The stream has ended, and the guest was told.
    host_done: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, ports: Ports, phase: Phase) -> Self {
        Self {
            stream,
            ports,
            phase,
            credit: Credit::default(),
            request: false,
            response: false,
            update: false,
            readable: true,
            writable: true,
            waiting: VecDeque::new(),
            guest_done: 0,
            write_closed: false,
            host_done: false,
        }
    }

    /// Reads on in the greeting; the port once it is whole. An error is the end of the connection.
    pub(super) fn greet(&mut self) -> io::Result<Option<u32>> {
        let Phase::Greeting(line) = &mut self.phase else { return Ok(None) };
        // One byte at a time: what follows the line is for the guest.
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            match self.stream.read(&mut byte) {
                Ok(1) if line.len() < GREETING => line.push(byte[0]),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let text = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().strip_prefix("CONNECT "));
        text.and_then(|port| port.parse().ok()).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The guest accepted.
    pub(super) fn accepted(&mut self) -> Fate {
        self.phase = Phase::Open;
        let line = format!("OK {}\n", self.ports.host);
        match self.stream.write(line.as_bytes()) {
            Ok(written) if written == line.len() => Fate::Lives,
            _ => Fate::Reset,
        }
    }

    /// Data from the guest: to the stream, and what that does not take is kept.
    pub(super) fn take_data(&mut self, data: &mut Buffers) -> Fate {
        let bytes = data.bytes();
        let fits = u32::try_from(bytes).is_ok_and(|bytes| self.credit.received(bytes));
        if self.phase != Phase::Open || self.guest_done & NO_SEND != 0 || !fits {
            return Fate::Reset;
        }
        while self.waiting.is_empty() && self.writable && data.bytes() > 0 {
            let pieces = data.as_iovecs();
            // SAFETY: the pieces are guest memory that `data` keeps mapped; the kernel only reads them.
            let sent = unsafe { libc::writev(self.stream.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
            match usize::try_from(sent) {
                Ok(sent) => {
                    data.advance(sent);
                    self.credit.passed_on(sent as u32);
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                    _ => return Fate::Reset,
                },
            }
        }
        let mut rest = vec![0; data.bytes()];
        data.read_at(0, &mut rest);
        self.waiting.extend(rest);
        self.fate()
    }

    /// The stream takes more.
    pub(super) fn flush(&mut self) -> Fate {
        while self.writable && !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.stream.write(front) {
                Ok(written) => {
                    self.waiting.drain(..written);
                    self.credit.passed_on(written as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(_) => return Fate::Reset,
            }
        }
        self.fate()
    }

    /// The guest is done in one direction or both.
    pub(super) fn guest_is_done(&mut self, flags: u32) -> Fate {
        self.guest_done |= flags & (NO_RECEIVE | NO_SEND);
        self.fate()
    }

    /// What follows from what the guest has said and the stream has taken.
    fn fate(&mut self) -> Fate {
        self.update |= self.credit.is_stale();
        if self.guest_done & NO_SEND != 0 && self.waiting.is_empty() {
            if self.guest_done & NO_RECEIVE != 0 {
                return Fate::Reset;
            }
            if !std::mem::replace(&mut self.write_closed, true) {
                // Whoever is gone needs not be told.
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
        Fate::Lives
    }

    /// Whether [`Connection::next_packet`] may have something.
    pub(super) fn has_news(&self) -> bool {
        let data = self.readable
            && !self.host_done
            && self.phase == Phase::Open
            && self.credit.available() > 0
            && self.guest_done & NO_RECEIVE == 0;
        self.request || self.response || self.update || data
    }

    /// The next packet for the guest, its payload put into `room`. An error is the end of the connection.
    pub(super) fn next_packet(&mut self, room: &mut Buffers) -> io::Result<Option<Header>> {
        let (op, len, flags) = if std::mem::take(&mut self.request) {
            (Op::Request, 0, 0)
        } else if std::mem::take(&mut self.response) {
            (Op::Response, 0, 0)
        } else if std::mem::take(&mut self.update) {
            (Op::CreditUpdate, 0, 0)
        } else if !self.has_news() {
            return Ok(None);
        } else {
            match self.read(room)? {
                None => return Ok(None),
                Some(0) => (Op::Shutdown, 0, self.host_is_done()),
                Some(len) => (Op::Data, len, 0),
            }
        };
        self.credit.sent(len);
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        Ok(Some(Header { op, ports: self.ports, len, flags, buf_alloc, fwd_cnt }))
    }

    /// Reads as much as there is room for here and in the guest; `None` if there is nothing now.
    fn read(&mut self, room: &mut Buffers) -> io::Result<Option<u32>> {
        let most = room.bytes().min(self.credit.available() as usize);
        let mut pieces = room.as_iovecs().to_vec();
        let mut left = most;
        for piece in &mut pieces {
            piece.iov_len = piece.iov_len.min(left);
            left -= piece.iov_len;
        }
        loop {
            // SAFETY: the pieces are parts of guest memory that `room` keeps mapped and of which no references exist.
            let got = unsafe { libc::readv(self.stream.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
            match u32::try_from(got) {
                Ok(got) => return Ok(Some(got)),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        return Ok(None);
                    }
                    error => return Err(error),
                },
            }
        }
    }

    /// The stream has ended: the host's program sends no more, and if it has hung up, receives no more.
    fn host_is_done(&mut self) -> u32 {
        self.readable = false;
        self.host_done = true;
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let hung_up = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|_| {
            fds[0].revents().is_some_and(|flags| flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
        });
        if hung_up { NO_SEND | NO_RECEIVE } else { NO_SEND }
    }
}
