//! EDGE: reading and writing past the host's page cache (open(2), O_DIRECT): what has to be aligned, and a place for
//! what is not.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::iovec;

use crate::virtio::Buffers;

/// Bytes moved at once for buffers that are not aligned.
const CHUNK: usize = 1 << 20;

/// What the kernel wants, in bytes; powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Of buffers, in memory and in length.
    memory: usize,
    /// Of offsets and lengths on the disk.
    pub(super) disk: u64,
}

impl Alignment {
    /// What this file needs (statx(2), STATX_DIOALIGN, Linux 6.1), or what every file is content with.
    pub(super) fn of(file: &File) -> Self {
        const STATX_DIOALIGN: libc::c_uint = 0x2000;
        let enough = Self { memory: 4096, disk: 4096 };
        let empty = CString::default();
        // SAFETY: `statx` is a C struct of integers, for which all zeroes is a value.
        let mut found: libc::statx = unsafe { std::mem::zeroed() };
        // SAFETY: the path is a C string and the result has the right type; both live across the call.
        let result =
            unsafe { libc::statx(file.as_raw_fd(), empty.as_ptr(), libc::AT_EMPTY_PATH, STATX_DIOALIGN, &mut found) };
        let (memory, disk) = (found.stx_dio_mem_align, found.stx_dio_offset_align);
        let told = result == 0 && found.stx_mask & STATX_DIOALIGN != 0;
        if told && memory.is_power_of_two() && disk.is_power_of_two() && disk >= 512 {
            Self { memory: memory as usize, disk: u64::from(disk) }
        } else {
            enough
        }
    }

    /// Whether the kernel takes these pieces as they are.
    pub(super) fn fits(&self, pieces: &[iovec]) -> bool {
        pieces.iter().all(|piece| {
            (piece.iov_base as usize).is_multiple_of(self.memory) && piece.iov_len.is_multiple_of(self.memory)
        })
    }

    /// Reads what `to` has room for through memory that is aligned.
    pub(super) fn read(&self, file: &File, to: &mut Buffers, mut offset: u64) -> io::Result<()> {
        let mut bounce = Bounce::new(self.memory, to.bytes());
        while to.bytes() > 0 {
            let bytes = bounce.part(to.bytes());
            let got = read_at(file, bytes, offset)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_at(0, &bytes[..got]);
            to.advance(got);
            offset += got as u64;
        }
        Ok(())
    }

    /// Writes what is in `from` through memory that is aligned.
    pub(super) fn write(&self, file: &File, from: &mut Buffers, mut offset: u64) -> io::Result<()> {
        let mut bounce = Bounce::new(self.memory, from.bytes());
        while from.bytes() > 0 {
            let bytes = bounce.part(from.bytes());
            from.read_at(0, bytes);
            std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)?;
            from.advance(bytes.len());
            offset += bytes.len() as u64;
        }
        Ok(())
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match std::os::unix::fs::FileExt::read_at(file, bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Memory that is aligned.
struct Bounce {
    memory: Vec<u8>,
    start: usize,
}

impl Bounce {
    fn new(alignment: usize, wanted: usize) -> Self {
        let memory = vec![0; wanted.min(CHUNK) + alignment];
        let at = memory.as_ptr() as usize;
        Self { start: at.next_multiple_of(alignment) - at, memory }
    }

    /// As much of `wanted` bytes as there is.
    fn part(&mut self, wanted: usize) -> &mut [u8] {
        let len = wanted.min(CHUNK).min(self.memory.len() - self.start);
        &mut self.memory[self.start..self.start + len]
    }
}
