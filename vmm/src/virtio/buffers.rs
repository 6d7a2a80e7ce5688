//! Pieces of guest memory, checked once and then handed to readv, writev and the like as they are.
//!
//! This is the one place where guest addresses become host pointers. A [`Buffers`] owns a handle on the memory its
//! pieces lie in, so that a pointer can't outlive its mapping. The guest may write to the bytes at any time: they are
//! copied or given to the kernel, never looked at by reference.

#[cfg(test)]
mod tests;

use libc::iovec;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

/// The address range is not guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotMemory;

/// A list of pieces of guest memory, read or written in order as if it were one.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Invariant: every piece lies in `memory`; kept by `push`, the only way in, and by the rest only making pieces
    /// smaller.
    pieces: Vec<iovec>,
    /// Pieces before this one are used up.
    front: usize,
    bytes: usize,
    memory: GuestMemoryMmap<()>,
}

// SAFETY: the pointers are to guest memory that `memory` (which is Send) keeps mapped at the same place for every
// thread; nothing is shared between two `Buffers`.
unsafe impl Send for Buffers {}

impl Buffers {
    pub(crate) fn new(memory: GuestMemoryMmap<()>) -> Self {
        Self { pieces: Vec::with_capacity(64), front: 0, bytes: 0, memory }
    }

    /// Bytes left.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pieces left.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len() - self.front
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.front = 0;
        self.bytes = 0;
    }

    /// Appends `len` bytes of guest memory at `address`; on error nothing is appended.
    pub(crate) fn push(&mut self, address: u64, len: u32) -> Result<(), NotMemory> {
        let before = (self.pieces.len(), self.bytes);
        let slices = self.memory.get_slices(GuestAddress(address), len as usize, Permissions::ReadWrite);
        for slice in slices.map_err(|_| NotMemory)? {
            let Ok(slice) = slice else {
                self.pieces.truncate(before.0);
                self.bytes = before.1;
                return Err(NotMemory);
            };
            let base = slice.ptr_guard_mut().as_ptr().cast();
            self.pieces.push(iovec { iov_base: base, iov_len: slice.len() });
            self.bytes += slice.len();
        }
        Ok(())
    }

    /// Drops what was appended after there were `pieces` pieces left.
    pub(crate) fn truncate(&mut self, pieces: usize) {
        for dropped in self.pieces.drain((self.front + pieces).min(self.pieces.len())..) {
            self.bytes -= dropped.iov_len;
        }
    }

    /// Drops the first `pieces` pieces.
    pub(crate) fn drop_pieces(&mut self, pieces: usize) {
        let end = (self.front + pieces).min(self.pieces.len());
        self.bytes -= self.pieces[self.front..end].iter().map(|p| p.iov_len).sum::<usize>();
        self.front = end;
        self.compact();
    }

    /// Drops the first `bytes` bytes.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        while let Some(piece) = self.pieces.get_mut(self.front) {
            let step = bytes.min(piece.iov_len);
            piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(step).cast();
            piece.iov_len -= step;
            self.bytes -= step;
            bytes -= step;
            if piece.iov_len > 0 {
                break;
            }
            self.front += 1;
        }
        self.compact();
    }

    /// Drops the last `bytes` bytes.
    pub(crate) fn drop_tail(&mut self, bytes: usize) {
        let keep = self.bytes.saturating_sub(bytes);
        let mut at = 0;
        for piece in &mut self.pieces[self.front..] {
            piece.iov_len = piece.iov_len.min(keep - at);
            at += piece.iov_len;
        }
        self.bytes = keep;
    }

    /// Moves the last `bytes` bytes into `to`, which must be of the same memory; false if there are not so many.
    pub(crate) fn move_tail(&mut self, bytes: usize, to: &mut Buffers) -> bool {
        let Some(keep) = self.bytes.checked_sub(bytes) else { return false };
        let mut at = 0;
        for piece in &mut self.pieces[self.front..] {
            let cut = keep.saturating_sub(at).min(piece.iov_len);
            at += piece.iov_len;
            if cut < piece.iov_len {
                let base = piece.iov_base.cast::<u8>().wrapping_add(cut).cast();
                to.pieces.push(iovec { iov_base: base, iov_len: piece.iov_len - cut });
                to.bytes += piece.iov_len - cut;
                piece.iov_len = cut;
            }
        }
        self.bytes = keep;
        true
    }

    /// Copies `data` in, starting `offset` bytes from the front; false (and part of it copied) if it does not fit.
    pub(crate) fn write_at(&self, offset: usize, mut data: &[u8]) -> bool {
        self.each(offset, |piece| {
            let (now, later) = data.split_at(data.len().min(piece.len()));
            piece.copy_from(now);
            data = later;
            !data.is_empty()
        });
        data.is_empty()
    }

    /// Fills `data`, starting `offset` bytes from the front; false (and part of it filled) if there is not so much.
    pub(crate) fn read_at(&self, offset: usize, data: &mut [u8]) -> bool {
        let mut done = 0;
        self.each(offset, |piece| {
            done += piece.copy_to(&mut data[done..]);
            done < data.len()
        });
        done == data.len()
    }

    /// The pieces, for a system call that reads or writes them.
    pub(crate) fn as_iovecs(&self) -> &[iovec] {
        &self.pieces[self.front..]
    }

    /// Calls `f` with the pieces and, behind them, a piece of our own memory.
    pub(crate) fn with_spill<R>(&mut self, spill: &mut [u8], f: impl FnOnce(&[iovec]) -> R) -> R {
        self.pieces.push(iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
        let result = f(&self.pieces[self.front..]);
        self.pieces.pop();
        result
    }

    /// Calls `f` with each piece from `offset` on until it says false.
    fn each(&self, mut offset: usize, mut f: impl FnMut(VolatileSlice<'_>) -> bool) {
        for piece in self.as_iovecs() {
            if offset >= piece.iov_len {
                offset -= piece.iov_len;
                continue;
            }
            let base = piece.iov_base.cast::<u8>().wrapping_add(offset);
            // SAFETY: by the invariant of `pieces` the bytes lie in guest memory that `self.memory` keeps mapped for as
            // long as `self` is borrowed; VolatileSlice makes no references to them.
            let slice = unsafe { VolatileSlice::new(base, piece.iov_len - offset) };
            offset = 0;
            if !f(slice) {
                return;
            }
        }
    }

    /// Forgets used-up pieces once they are many, so that the list does not grow and is not moved for each of them.
    fn compact(&mut self) {
        if self.front == self.pieces.len() {
            self.pieces.clear();
            self.front = 0;
        } else if self.front >= 64 {
            self.pieces.drain(..self.front);
            self.front = 0;
        }
    }
}
