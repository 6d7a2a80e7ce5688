//! A capture of what passes interfaces: from frames to a pcapng file. Pure: frames, names and times in, bytes out.
//!
//! ```text
//! interface, name, frame ──► pcapng (blocks) ──► bytes to write now
//!                                          └──► ring: the newest so many bytes of frames, written at the end
//! ```

mod pcapng;

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

pub(crate) use pcapng::Direction;

/// Bytes of a frame that are kept unless fewer are asked for: all of any frame.
pub(crate) const WHOLE_FRAME: u32 = 262_144;

/// One frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Which interface, by the number that [`Recording::interface`] gave.
    pub(crate) interface: u32,
    /// Since the Unix epoch.
    pub(crate) at: Duration,
    /// Its first bytes.
    pub(crate) bytes: &'a [u8],
    /// How many it had.
    pub(crate) original: u32,
    /// Which way it went.
    pub(crate) direction: Direction,
}

/// A capture under way.
#[derive(Debug)]
pub(crate) struct Recording {
    snaplen: u32,
    interfaces: u32,
    names: BTreeSet<(IpAddr, String)>,
    ring: Option<Ring>,
    /// What is to be written.
    out: Vec<u8>,
    frames: u64,
}

/// The newest frames, as blocks.
#[derive(Debug)]
struct Ring {
    limit: usize,
    used: usize,
    blocks: VecDeque<Vec<u8>>,
    left_out: u64,
}

impl Recording {
    /// A new one; `ring` is how many bytes of frames are kept, if not all.
    pub(crate) fn new(snaplen: u32, ring: Option<usize>) -> Self {
        let mut out = Vec::new();
        pcapng::section(&mut out);
        let ring = ring.map(|limit| Ring { limit, used: 0, blocks: VecDeque::new(), left_out: 0 });
        Recording { snaplen, interfaces: 0, names: BTreeSet::new(), ring, out, frames: 0 }
    }

    /// One more interface; gives its number.
    pub(crate) fn interface(&mut self, name: &str, description: &str) -> u32 {
        pcapng::interface(&mut self.out, name, description, self.snaplen);
        let number = self.interfaces;
        self.interfaces += 1;
        number
    }

    /// Who has which address: written if there is news.
    pub(crate) fn names(&mut self, names: impl IntoIterator<Item = (IpAddr, String)>) {
        let news: Vec<(IpAddr, String)> = names.into_iter().filter(|name| self.names.insert(name.clone())).collect();
        if !news.is_empty() {
            pcapng::names(&mut self.out, &news);
        }
    }

    /// A frame. `tag` is a VLAN tag that was taken off: it is put back.
    pub(crate) fn frame(&mut self, frame: Frame<'_>, tag: Option<(u16, u16)>) {
        self.frames += 1;
        let tagged;
        let frame = match tag {
            Some((protocol, control)) if frame.bytes.len() >= 12 => {
                let (addresses, rest) = frame.bytes.split_at(12);
                tagged = [addresses, &protocol.to_be_bytes(), &control.to_be_bytes(), rest].concat();
                let kept = tagged.len().min(self.snaplen as usize);
                Frame { bytes: &tagged[..kept], original: frame.original.saturating_add(4), ..frame }
            }
            _ => frame,
        };
        match &mut self.ring {
            None => pcapng::packet(&mut self.out, &frame),
            Some(ring) => ring.push(&frame),
        }
    }

    /// An interface is heard no more: so many frames came from it, so many were lost for want of room.
    pub(crate) fn statistics(&mut self, interface: u32, at: Duration, received: u64, dropped: u64) {
        match &mut self.ring {
            // Behind the frames it counts.
            Some(ring) => ring.append(|block| pcapng::statistics(block, interface, at, received, dropped)),
            None => pcapng::statistics(&mut self.out, interface, at, received, dropped),
        }
    }

    /// The frames so far, those that fell out of the ring too.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// The frames that fell out of the ring.
    pub(crate) fn left_out(&self) -> u64 {
        self.ring.as_ref().map_or(0, |ring| ring.left_out)
    }

    /// What is to be written now: whole blocks. With a ring, everything waits for [`Recording::finish`].
    pub(crate) fn take(&mut self) -> Vec<u8> {
        if self.ring.is_some() { Vec::new() } else { std::mem::take(&mut self.out) }
    }

    /// The end: the rest of the file.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if let Some(ring) = self.ring {
            self.out.extend(ring.blocks.into_iter().flatten());
        }
        self.out
    }
}

impl Ring {
    fn push(&mut self, frame: &Frame<'_>) {
        let mut block = Vec::new();
        pcapng::packet(&mut block, frame);
        self.used += block.len();
        self.blocks.push_back(block);
        while self.used > self.limit {
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.used -= oldest.len();
            self.left_out += 1;
        }
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut block = Vec::new();
        write(&mut block);
        // A few bytes per interface; not part of what is limited, and never left out.
        match self.blocks.back_mut() {
            Some(last) => {
                self.used += block.len();
                last.extend(block);
            }
            None => {
                self.used += block.len();
                self.blocks.push_back(block);
            }
        }
    }
}

#[cfg(test)]
mod tests;
