//! From the tap into the guest's receive queue.
//!
//! Buffers are taken from the queue until the largest frame fits (mergeable) or one is there (not), then a frame is
//! read straight into them. Each frame becomes visible to the guest by one store; the guest is interrupted once per
//! burst. A frame that does not fit into what the guest posted is dropped, as by a NIC that overruns: waiting for more
//! room could wait for ever, since a driver may post more only after it has received something.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::BURST;
use super::filter::Filter;
use super::nic::{Count, Nic};
use crate::net::{HEADER, MAX_FRAME, Tap};
use crate::virtio::Buffers;
use crate::virtio::queue::{MAX_PIECES, QueueError, VirtQueue};
use crate::virtio::throttle::Throttle;
use crate::virtio::worker::Served;

/// Where `num_buffers` is in the header (§5.1.6).
const NUM_BUFFERS: usize = 10;

/// A chain taken from the queue and not filled yet.
struct Posted {
    head: u16,
    pieces: usize,
    bytes: usize,
}

pub(super) struct Receive {
    queue: VirtQueue,
    nic: Arc<Nic>,
    tap: Arc<Tap>,
    /// Bytes of buffers to gather before a frame is read.
    enough: usize,
    posted: VecDeque<Posted>,
    /// The buffers of `posted`, in the same order.
    room: Buffers,
    /// Receives what does not fit, and so tells that it did not.
    spill: Vec<u8>,
    /// The tap may have frames: it woke us, and no read has found it empty since.
    tap_ready: bool,
    /// An error of the tap was told of; it is told of again after a frame came through.
    tap_failed: bool,
    /// What the driver wants, and which version of that this is.
    filter: (u32, Filter),
    link_up: bool,
    throttle: Throttle,
    count: Count,
}

impl Receive {
    pub(super) fn new(mut queue: VirtQueue, nic: Arc<Nic>, tap: Arc<Tap>, mergeable: bool) -> io::Result<Self> {
        queue.disable_kicks().map_err(io::Error::other)?;
        let throttle = Throttle::new(nic.limits()[0].clone())?;
        Ok(Self {
            room: queue.buffers(),
            queue,
            tap,
            enough: if mergeable { HEADER + MAX_FRAME } else { 1 },
            posted: VecDeque::with_capacity(MAX_PIECES),
            spill: vec![0; HEADER + MAX_FRAME],
            tap_ready: true,
            tap_failed: false,
            filter: nic.filter(),
            link_up: nic.is_link_up(),
            throttle,
            count: Count::default(),
            nic,
        })
    }

    /// The tap woke us.
    pub(super) fn tap_is_ready(&mut self) {
        self.tap_ready = true;
    }

    /// Gathers buffers; false, with the driver asked to kick, if there is none at all.
    fn has_room(&mut self) -> Result<bool, QueueError> {
        while self.room.bytes() < self.enough && self.room.pieces() <= MAX_PIECES && self.take()? {}
        if !self.posted.is_empty() {
            return Ok(true);
        }
        // A buffer may have come between the last look and the driver seeing that it must kick: look once more.
        if !self.queue.enable_kicks()? || !self.take()? {
            return Ok(false);
        }
        self.queue.disable_kicks()?;
        Ok(true)
    }

    /// Takes one chain from the queue, if there is one.
    fn take(&mut self) -> Result<bool, QueueError> {
        let before = self.room.bytes();
        let Some(chain) = self.queue.pop_writable(&mut self.room)? else { return Ok(false) };
        let bytes = self.room.bytes() - before;
        if bytes == 0 {
            return Err(QueueError::Shape { head: chain.head });
        }
        self.posted.push_back(Posted { head: chain.head, pieces: chain.writable, bytes });
        Ok(true)
    }

    /// Moves one frame; false if the tap has none.
    fn frame(&mut self) -> Result<bool, QueueError> {
        match self.tap.receive(&mut self.room, &mut self.spill) {
            Ok(bytes) => {
                self.throttle.passed(bytes as u64);
                self.tap_failed = false;
                if bytes > self.room.bytes() || !self.link_up {
                    self.count.dropped += 1;
                } else if bytes >= HEADER {
                    if self.is_wanted() {
                        self.deliver(bytes)?;
                    } else {
                        self.count.filtered += 1;
                    }
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => {
                // Empty, or down, or gone: in each case the tap wakes us if that changes.
                if error.kind() != io::ErrorKind::WouldBlock && !std::mem::replace(&mut self.tap_failed, true) {
                    tracing::warn!(tap = self.tap.name(), %error, "cannot receive from a tap; waiting for it");
                }
                self.tap_ready = false;
                Ok(false)
            }
        }
    }

    /// Whether the driver asked for the frame that lies in `room`.
    fn is_wanted(&self) -> bool {
        let mut to = [0; 6];
        self.filter.1.is_open() || !self.room.read_at(HEADER, &mut to) || self.filter.1.accepts(to)
    }

    /// Hands the guest a frame of `bytes` bytes, header included, that lies in the first buffers of `room`.
    fn deliver(&mut self, bytes: usize) -> Result<(), QueueError> {
        self.count.frames += 1;
        self.count.bytes += (bytes - HEADER) as u64;
        let (mut left, mut buffers, mut pieces) = (bytes, 0u16, 0);
        while left > 0 {
            let Some(posted) = self.posted.pop_front() else { break };
            let filled = left.min(posted.bytes);
            self.queue.put(posted.head, filled as u32)?;
            left -= filled;
            buffers += 1;
            pieces += posted.pieces;
        }
        // The tap leaves the last two bytes of the header alone; without mergeable buffers they must be 1 too
        // (§5.1.6.4.1).
        self.room.write_at(NUM_BUFFERS, &buffers.to_le_bytes());
        self.room.drop_pieces(pieces);
        self.queue.publish()
    }
}

impl Served for Receive {
    fn burst(&mut self) -> Result<bool, QueueError> {
        self.nic.refresh(&mut self.filter);
        self.link_up = self.nic.is_link_up();
        let mut more = true;
        for _ in 0..BURST {
            more = self.tap_ready && self.throttle.may_pass() && self.has_room()? && self.frame()?;
            if !more {
                break;
            }
        }
        self.nic.received.add(&mut self.count);
        self.queue.interrupt()?;
        Ok(more)
    }

    fn queue(&self) -> &VirtQueue {
        &self.queue
    }

    fn throttle(&self) -> Option<&Throttle> {
        Some(&self.throttle)
    }
}
