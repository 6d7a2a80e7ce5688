//! Carries requests out: takes a chain, parses it, reads or writes the disk in place, and writes the status byte.

use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP};

use super::drive::Drive;
use super::ranges::{self, Kind, LONGEST, Range};
use super::request::{self, Disk, HEADER, Refusal, Request};
use super::{BURST, SERIAL};
use crate::disk::RawDisk;
use crate::virtio::Buffers;
use crate::virtio::queue::{QueueError, VirtQueue};
use crate::virtio::throttle::Throttle;
use crate::virtio::worker::Served;

pub(super) struct Device {
    queue: VirtQueue,
    disk: Arc<RawDisk>,
    drive: Arc<Drive>,
    throttle: Throttle,
    serial: [u8; SERIAL],
    /// The driver has no way to ask for durability, so every write is durable when it is finished (§5.2.6.2).
    write_through: bool,
    from_guest: Buffers,
    to_guest: Buffers,
    status: Buffers,
    /// An input/output error was told of; the next is told of after a request worked.
    failed: bool,
}

impl Device {
    pub(super) fn new(
        queue: VirtQueue,
        disk: Arc<RawDisk>,
        drive: Arc<Drive>,
        serial: [u8; SERIAL],
        write_through: bool,
    ) -> io::Result<Self> {
        let (from_guest, to_guest, status) = (queue.buffers(), queue.buffers(), queue.buffers());
        let throttle = Throttle::new(drive.limit().clone())?;
        Ok(Self { queue, disk, drive, throttle, serial, write_through, from_guest, to_guest, status, failed: false })
    }

    /// One request; answers how many bytes were written into the guest's buffers. A chain without header or room for a
    /// status cannot even be refused: the queue is broken.
    fn request(&mut self, head: u16) -> Result<u32, QueueError> {
        let mut header = [0; HEADER];
        if !self.from_guest.read_at(0, &mut header) || !self.to_guest.move_tail(1, &mut self.status) {
            return Err(QueueError::Shape { head });
        }
        self.from_guest.advance(HEADER);
        let disk = Disk { bytes: self.disk.bytes(), readonly: self.disk.readonly(), block: self.disk.block() };
        let room = self.to_guest.bytes();
        let parsed = request::parse(&header, self.from_guest.bytes(), room, disk);
        let (status, data) = match parsed.and_then(|request| Ok((request, self.ranges(request, disk)?))) {
            Ok((request, ranges)) => match self.carry_out(request, &ranges) {
                Ok(data) => {
                    self.failed = false;
                    (VIRTIO_BLK_S_OK, data)
                }
                Err(error) => {
                    self.drive.failed();
                    if !std::mem::replace(&mut self.failed, true) {
                        let disk = self.disk.path().display();
                        tracing::error!(%disk, ?request, %error, "a disk image cannot be accessed");
                    }
                    // How far a read came is not known to the driver, so the whole room may have been written to.
                    (VIRTIO_BLK_S_IOERR, room)
                }
            },
            Err(refusal) => {
                tracing::trace!(disk = %self.disk.path().display(), %refusal, "refused a block request");
                let unsupported = matches!(refusal, Refusal::Unsupported(_) | Refusal::Flags(_));
                (if unsupported { VIRTIO_BLK_S_UNSUPP } else { VIRTIO_BLK_S_IOERR }, 0)
            }
        };
        self.status.write_at(0, &[status as u8]);
        Ok(u32::try_from(data).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// The ranges a request names, all in order.
    fn ranges(&self, request: Request, disk: Disk) -> Result<Vec<Range>, Refusal> {
        let Request::Ranges(kind) = request else { return Ok(Vec::new()) };
        let bytes = self.from_guest.bytes();
        if bytes > LONGEST {
            return Err(Refusal::Segments { bytes });
        }
        let mut segments = vec![0; bytes];
        self.from_guest.read_at(0, &mut segments);
        ranges::parse(kind, &segments, disk)
    }

    /// Answers how many bytes were written into the guest's buffers.
    fn carry_out(&mut self, request: Request, ranges: &[Range]) -> io::Result<usize> {
        match request {
            Request::Read { offset } => {
                let bytes = self.to_guest.bytes();
                self.disk.read(&mut self.to_guest, offset)?;
                self.drive.read(bytes);
                Ok(bytes)
            }
            Request::Write { offset } => {
                let bytes = self.from_guest.bytes();
                self.disk.write(&mut self.from_guest, offset)?;
                if self.write_through {
                    self.disk.flush()?;
                }
                self.drive.wrote(bytes);
                Ok(0)
            }
            Request::Flush => self.disk.flush().map(|()| 0),
            Request::Ranges(kind) => {
                for Range { offset, bytes, unmap } in ranges {
                    match kind {
                        Kind::Discard => self.disk.discard(*offset, *bytes),
                        Kind::Zero => self.disk.write_zeros(*offset, *bytes, *unmap)?,
                    }
                }
                if self.write_through && kind == Kind::Zero {
                    self.disk.flush()?;
                }
                Ok(0)
            }
            Request::GetId => {
                let bytes = self.to_guest.bytes().min(SERIAL);
                self.to_guest.write_at(0, &self.serial[..bytes]);
                Ok(bytes)
            }
        }
    }
}

impl Served for Device {
    fn queue(&self) -> &VirtQueue {
        &self.queue
    }

    fn throttle(&self) -> Option<&Throttle> {
        Some(&self.throttle)
    }

    fn burst(&mut self) -> Result<bool, QueueError> {
        self.queue.disable_kicks()?;
        let mut more = true;
        for _ in 0..BURST {
            if !self.throttle.may_pass() {
                // No kicks either: the timer is what it waits for.
                more = false;
                break;
            }
            self.from_guest.clear();
            self.to_guest.clear();
            self.status.clear();
            if let Some(chain) = self.queue.pop(&mut self.from_guest, &mut self.to_guest)? {
                self.throttle.passed((self.from_guest.bytes() + self.to_guest.bytes()) as u64);
                let written = self.request(chain.head)?;
                self.queue.put(chain.head, written)?;
                // Each request is shown at once: the next may take a while, and a driver may poll.
                self.queue.publish()?;
            } else if !self.queue.enable_kicks()? {
                more = false;
                break;
            } else {
                self.queue.disable_kicks()?;
            }
        }
        self.queue.interrupt()?;
        Ok(more)
    }
}
