//! EDGE: a netlink socket to nf_tables, in the network namespace it was opened in.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};

use crate::nfnetlink::{Answer, Batch, answers};

/// Room for the longest of the kernel's answers that is no dump: it repeats no more than a message's head.
const ANSWER: usize = 8192;

/// A way to tables that takes no program.
///
/// It stays open because closing it after a transaction that removed something waits for an RCU grace period: 8 ms and
/// more, where the transaction itself takes 0.05.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Socket(socket))
    }

    /// Does a transaction. An error means that nothing of it was done.
    pub(crate) fn change(&mut self, batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, last) = batch.finish();
        // A batch is sent whole, and all its answers wait for us at once.
        setsockopt(&self.0, sockopt::SndBufForce, &(bytes.len() * 2 + ANSWER))?;
        setsockopt(&self.0, sockopt::RcvBufForce, &(bytes.len() * 8 + ANSWER))?;
        self.send(&bytes)?;
        let mut buffer = [0; ANSWER];
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in answers(&buffer[..length]) {
                match answer.errno() {
                    Some(0) if answer.sequence == last => return Ok(()),
                    Some(0) | None => {}
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    /// What `read` makes of the first answer; the kernel's refusal is an error.
    pub(crate) fn ask<T>(&mut self, question: &[u8], read: impl Fn(&Answer<'_>) -> Option<T>) -> io::Result<T> {
        let mut buffer = [0; ANSWER];
        self.send(question)?;
        let length = self.receive(&mut buffer)?;
        let answer = answers(&buffer[..length]).next();
        match answer.and_then(|answer| answer.errno()) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => answer.and_then(|answer| read(&answer)).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// Hands every message of a dump to `take`.
    pub(crate) fn dump(&mut self, question: &[u8], mut take: impl FnMut(&Answer<'_>)) -> io::Result<()> {
        // A dump's datagrams are as long as the reader has room for, up to 32 KiB.
        let mut buffer = vec![0; 32 << 10];
        self.send(question)?;
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in answers(&buffer[..length]) {
                if answer.is_last() {
                    return Ok(());
                }
                match answer.errno() {
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None => take(&answer),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // After an error the rest of a batch's answers may still be there.
        while recv(self.0.as_raw_fd(), &mut [0; ANSWER], MsgFlags::empty()).is_ok() {}
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The kernel does a request while it is sent, so the answer is there: nothing is waited for.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), buffer, MsgFlags::empty())?)
    }
}
