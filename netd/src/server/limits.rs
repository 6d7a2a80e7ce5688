//! EDGE: how much a client may ask of the daemon: bytes per call, connections per user, and no file descriptors.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::UnixStream;
use zlink::{
    connection::socket::{ReadResult, Socket},
    tokio::unix::Stream,
};

/// Longest call in bytes: longer than any XML that is taken.
const LONGEST_CALL: usize = 4 << 20;

/// Connections at once on one socket.
const MOST_CONNECTIONS: usize = 256;

/// Connections at once of one user who is not root.
const MOST_PER_USER: usize = 64;

/// How many bytes may still be read for the call at hand.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A new call begins.
    pub(super) fn renew(&self) {
        self.0.store(LONGEST_CALL, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        match left.checked_sub(bytes) {
            Some(left) => {
                self.0.store(left, Ordering::Relaxed);
                Ok(())
            }
            None => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the call is too long")),
        }
    }
}

/// A socket that reads no more than its budget and keeps no file descriptor that a client sends: no method takes any.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: Stream,
    budget: Budget,
}

impl Bounded {
    pub(super) fn new(stream: UnixStream, budget: Budget) -> zlink::Result<Self> {
        Ok(Bounded { stream: stream.try_into()?, budget })
    }
}

impl Socket for Bounded {
    type ReadHalf = ReadHalf;
    type WriteHalf = <Stream as Socket>::WriteHalf;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (Self::ReadHalf, Self::WriteHalf) {
        let (read, write) = self.stream.split();
        (ReadHalf { read, budget: self.budget }, write)
    }
}

/// The half that reads.
#[derive(Debug)]
pub(super) struct ReadHalf {
    read: <Stream as Socket>::ReadHalf,
    budget: Budget,
}

impl zlink::connection::socket::ReadHalf for ReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let mut read = self.read.read(buffer).await?;
        drop(read.take_fds());
        self.budget.spend(read.bytes_read())?;
        Ok(read)
    }
}

/// The connections there may be on one socket.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    user: u32,
}

impl Seats {
    pub(crate) fn new() -> Self {
        Seats(Arc::default())
    }

    /// A place for one more connection of this user, if there is one.
    pub(crate) fn take(&self, user: u32) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.entry(user).or_default();
        if all >= MOST_CONNECTIONS || (user != 0 && *own >= MOST_PER_USER) {
            return None;
        }
        *own += 1;
        Some(Seat { seats: self.clone(), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.user);
            }
        }
    }
}
