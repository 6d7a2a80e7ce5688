//! EDGE: disk image files. A raw image opened, locked, and read and written in place.
//!
//! Never: looks at what is inside the image, follows references in it, or grows it. The lock is an
//! open-file-description lock over the whole file (fcntl F_OFD_SETLK): exclusive for a writer, shared for readers, gone
//! with the descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::virtio::Buffers;

#[cfg(test)]
mod tests;

/// Why a disk image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open the disk image {}: {source}{}", path.display(), hint(source, *readonly))]
    Open {
        /// The image.
        path: PathBuf,
        /// Whether it was to be opened for reading only.
        readonly: bool,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a directory, a socket or the like.
    #[error("the disk image {} is neither a file nor a block device", path.display())]
    Kind {
        /// The image.
        path: PathBuf,
    },
    /// Somebody else has it.
    #[error(
        "the disk image {} is in use by another program; stop that one, or attach it read-only on both sides",
        path.display()
    )]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// It cannot be locked for another reason.
    #[error("cannot lock the disk image {}: {source}", path.display())]
    Lock {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A disk of no sectors is no disk.
    #[error("the disk image {} has {bytes} bytes, less than one sector of 512", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// A raw image: byte N of the file is byte N of the disk.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    path: PathBuf,
    bytes: u64,
    readonly: bool,
}

impl RawDisk {
    /// Opens and locks the image. Bytes past the last whole sector are not part of the disk.
    pub fn open(path: &Path, readonly: bool) -> Result<Self, DiskError> {
        let name = || path.to_path_buf();
        let open = |source| DiskError::Open { path: name(), readonly, source };
        // Without O_NONBLOCK, opening a FIFO would wait for its other end; files and block devices don't know the flag.
        let mut options = OpenOptions::new();
        options.read(true).write(!readonly).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(open)?;
        let kind = file.metadata().map_err(open)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind { path: name() });
        }
        lock(&file, readonly).map_err(|source| match source.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => DiskError::InUse { path: name() },
            _ => DiskError::Lock { path: name(), source },
        })?;
        // A block device's metadata says 0; the end of the file is its size for both kinds.
        let mut end = &file;
        let bytes = io::Seek::seek(&mut end, io::SeekFrom::End(0)).map_err(open)?;
        if bytes < 512 {
            return Err(DiskError::Empty { path: name(), bytes });
        }
        Ok(Self { file, path: name(), bytes: bytes & !511, readonly })
    }

    /// The size in bytes, a multiple of 512.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether writes are refused.
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Fills `to` from byte `offset` on. What the file no longer has (somebody shortened it) is an error.
    pub(crate) fn read(&self, to: &mut Buffers, offset: u64) -> io::Result<()> {
        transfer(to, offset, |pieces, at| {
            // SAFETY: the pieces are guest memory that `to` keeps mapped and of which no references exist.
            unsafe { libc::preadv(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })
    }

    /// Writes `from` from byte `offset` on.
    pub(crate) fn write(&self, from: &mut Buffers, offset: u64) -> io::Result<()> {
        transfer(from, offset, |pieces, at| {
            // SAFETY: the pieces are guest memory that `from` keeps mapped; the kernel only reads them.
            unsafe { libc::pwritev(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })
    }
}

/// Repeats a system call that moves a part of `buffers` until it has moved all; they are used up afterwards.
fn transfer(
    buffers: &mut Buffers,
    mut offset: u64,
    mut call: impl FnMut(&[libc::iovec], libc::off_t) -> isize,
) -> io::Result<()> {
    while buffers.bytes() > 0 {
        let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        match usize::try_from(call(buffers.as_iovecs(), at)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => {
                buffers.advance(moved);
                offset += moved as u64;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// The next move after an image could not be opened.
fn hint(source: &io::Error, readonly: bool) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; check the path, or make one with `truncate -s SIZE PATH`",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !readonly => {
            "; let this user write it, or attach it read-only"
        }
        io::ErrorKind::PermissionDenied => "; let this user read it",
        _ => "",
    }
}

fn lock(file: &File, shared: bool) -> io::Result<()> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole))?;
    Ok(())
}
