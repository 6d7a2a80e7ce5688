//! One client's connection, as far as it is values: what was agreed, what is to be sent.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use tokio::sync::Notify;

use crate::events::Callbacks;

/// Bytes that may wait for a client to read them before no more calls of it are taken.
const ENOUGH: usize = 1 << 20;

/// Calls of one client at once; more wait in its socket.
const MOST_CALLS: usize = 64;

/// Bytes that may wait for a client at most: who lets so much pile up is gone.
const MOST_WAITING: usize = 32 << 20;

/// Bytes of events that may wait for a client: events come whether it asks or not.
const MOST_EVENTS: usize = 4 << 20;

/// What the connection of a client has come to.
#[derive(Debug)]
pub(crate) struct Session {
    /// Nothing may be changed: by the socket it came by, or because it said so itself.
    pub(crate) read_only: Cell<bool>,
    /// Between CONNECT_OPEN and CONNECT_CLOSE.
    pub(crate) open: Cell<bool>,
    /// The client answers pings.
    pub(crate) keepalive: Cell<bool>,
    /// The client wants to be told when the connection to the hypervisor ends, which ends with us.
    pub(crate) close_callback: Cell<bool>,
    /// The events it asked for.
    pub(crate) callbacks: RefCell<Callbacks>,
    /// Calls that are being answered.
    pub(crate) calls: Cell<usize>,
    /// What it is to be sent.
    pub(crate) outgoing: Outgoing,
}

impl Session {
    /// A connection that was just made.
    pub(crate) fn new(read_only: bool) -> Self {
        Session {
            read_only: Cell::new(read_only),
            open: Cell::new(false),
            keepalive: Cell::new(false),
            close_callback: Cell::new(false),
            callbacks: RefCell::default(),
            calls: Cell::new(0),
            outgoing: Outgoing::default(),
        }
    }

    /// Whether another call is taken now.
    pub(crate) fn may_call(&self) -> bool {
        self.calls.get() < MOST_CALLS && self.outgoing.waiting() < ENOUGH
    }
}

/// Frames on their way to a client.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    frames: RefCell<VecDeque<Vec<u8>>>,
    /// Of the first frame, what is sent already.
    sent: Cell<usize>,
    waiting: Cell<usize>,
    full: Cell<bool>,
    /// Rung when there is something new to do for whoever has the socket.
    pub(crate) changed: Notify,
}

impl Outgoing {
    /// Bytes that are not sent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// The client let too much pile up.
    pub(crate) fn is_full(&self) -> bool {
        self.full.get()
    }

    /// What a client asked for.
    pub(crate) fn reply(&self, frame: Vec<u8>) {
        self.push(frame, MOST_WAITING);
    }

    /// What happened.
    pub(crate) fn event(&self, frame: Vec<u8>) {
        self.push(frame, MOST_EVENTS);
    }

    fn push(&self, frame: Vec<u8>, most: usize) {
        let waiting = self.waiting.get() + frame.len();
        // One frame is taken however long it is.
        if waiting > most && self.waiting.get() > 0 {
            self.full.set(true);
        } else {
            self.waiting.set(waiting);
            self.frames.borrow_mut().push_back(frame);
        }
        self.changed.notify_one();
    }

    /// Sends what can be sent at once: `send` takes bytes and says how many it took.
    pub(crate) fn send<E>(&self, mut send: impl FnMut(&[u8]) -> Result<usize, E>) -> Result<(), E> {
        let mut frames = self.frames.borrow_mut();
        while let Some(frame) = frames.front() {
            let rest = frame.get(self.sent.get()..).unwrap_or_default();
            let sent = send(rest)?.min(rest.len());
            self.waiting.set(self.waiting.get().saturating_sub(sent));
            if sent == rest.len() {
                self.sent.set(0);
                frames.pop_front();
            } else {
                self.sent.set(self.sent.get() + sent);
            }
        }
        // A burst leaves no memory behind.
        frames.shrink_to(16);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_sent_in_order_however_little_is_taken_at_a_time() {
        let outgoing = Outgoing::default();
        outgoing.reply(vec![1, 2, 3]);
        outgoing.event(vec![4, 5]);
        let mut sent: Vec<u8> = Vec::new();
        let mut room = 0;
        while outgoing.waiting() > 0 {
            room += 1;
            let mut left = room % 3;
            let _full = outgoing.send(|bytes| {
                let taken = bytes.len().min(left);
                left -= taken;
                sent.extend(&bytes[..taken]);
                if taken == 0 { Err(()) } else { Ok(taken) }
            });
        }
        assert_eq!(sent, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn who_never_reads_is_found_out() {
        let outgoing = Outgoing::default();
        outgoing.reply(vec![0; MOST_WAITING + 1]);
        assert!(!outgoing.is_full(), "a single reply is taken however long it is");
        outgoing.event(vec![0; 1]);
        assert!(outgoing.is_full());

        let session = Session::new(false);
        assert!(session.may_call());
        session.outgoing.reply(vec![0; ENOUGH]);
        assert!(!session.may_call(), "what it asked for comes first");
        let outgoing = Outgoing::default();
        for _ in 0..MOST_EVENTS / 64 {
            outgoing.event(vec![0; 64]);
        }
        assert!(!outgoing.is_full());
        outgoing.event(vec![0; 64]);
        assert!(outgoing.is_full());
    }
}
