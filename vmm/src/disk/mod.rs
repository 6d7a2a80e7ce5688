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

mod direct;
#[cfg(test)]
mod tests;

use self::direct::Alignment;

/// Why a disk image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open the disk image {}: {source}{}", path.display(), hint(source, *readonly, *direct))]
    Open {
        /// The image.
        path: PathBuf,
        /// Whether it was to be opened for reading only.
        readonly: bool,
        /// Whether it was to be opened past the page cache.
        direct: bool,
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
    #[error("the disk image {} has {bytes} bytes, less than one block of {block}", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The least that can be read.
        block: u64,
    },
}

/// A raw image: byte N of the file is byte N of the disk.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    path: PathBuf,
    bytes: u64,
    readonly: bool,
    /// Opened with O_DIRECT, and what that needs.
    direct: Option<Alignment>,
}

impl RawDisk {
    /// Opens and locks the image. Bytes past the last whole sector are not part of the disk.
    pub fn open(path: &Path, readonly: bool) -> Result<Self, DiskError> {
        Self::open_with(path, readonly, false)
    }

    /// The same; `direct` reads and writes past the host's page cache.
    pub fn open_with(path: &Path, readonly: bool, direct: bool) -> Result<Self, DiskError> {
        let name = || path.to_path_buf();
        let open = |source| DiskError::Open { path: name(), readonly, direct, source };
        // Without O_NONBLOCK, opening a FIFO would wait for its other end; files and block devices don't know the flag.
        let mut options = OpenOptions::new();
        let flags = libc::O_NONBLOCK | if direct { libc::O_DIRECT } else { 0 };
        options.read(true).write(!readonly).custom_flags(flags);
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
        let direct = direct.then(|| Alignment::of(&file));
        let block = direct.map_or(512, |alignment| alignment.disk);
        if bytes < block {
            return Err(DiskError::Empty { path: name(), bytes, block });
        }
        Ok(Self { file, path: name(), bytes: bytes - bytes % block, readonly, direct })
    }

    /// Bytes that can be read or written: 512, or more past the page cache of a disk that has larger ones.
    pub fn block(&self) -> u64 {
        self.direct.map_or(512, |alignment| alignment.disk)
    }

    /// The size in bytes, a multiple of [`RawDisk::block`].
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
        if let Some(alignment) = self.direct.filter(|alignment| !alignment.fits(to.as_iovecs())) {
            return alignment.read(&self.file, to, offset);
        }
        transfer(to, offset, |pieces, at| {
            // SAFETY: the pieces are guest memory that `to` keeps mapped and of which no references exist.
            unsafe { libc::preadv(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })
    }

    /// Writes `from` from byte `offset` on.
    pub(crate) fn write(&self, from: &mut Buffers, offset: u64) -> io::Result<()> {
        if let Some(alignment) = self.direct.filter(|alignment| !alignment.fits(from.as_iovecs())) {
            return alignment.write(&self.file, from, offset);
        }
        transfer(from, offset, |pieces, at| {
            // SAFETY: the pieces are guest memory that `from` keeps mapped; the kernel only reads them.
            unsafe { libc::pwritev(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, at) }
        })
    }
}

impl RawDisk {
    /// The guest does not need what is there any more. A hint: an image that can't give room back keeps it.
    pub(crate) fn discard(&self, offset: u64, bytes: u64) {
        if let Err(error) = self.punch(offset, bytes) {
            tracing::trace!(disk = %self.path.display(), %error, "a discard does nothing");
        }
    }

    /// Has the range read as zeros; with `unmap` the image need keep no room for them.
    pub(crate) fn write_zeros(&self, offset: u64, bytes: u64, unmap: bool) -> io::Result<()> {
        let quick = if unmap {
            self.punch(offset, bytes)
        } else {
            self.allocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes)
        };
        match quick {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {}
            other => return other,
        }
        // Some file systems and devices can't: zeros by hand, aligned for O_DIRECT too.
        #[repr(align(4096))]
        struct Zeros([u8; 64 << 10]);
        static ZEROS: Zeros = Zeros([0; 64 << 10]);
        let mut at = offset;
        while at < offset + bytes {
            let len = (offset + bytes - at).min(ZEROS.0.len() as u64);
            std::os::unix::fs::FileExt::write_all_at(&self.file, &ZEROS.0[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes)
    }

    /// fallocate(2); nothing is nothing to do.
    fn allocate(&self, mode: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
        let signed = |number: u64| libc::off_t::try_from(number).map_err(io::Error::other);
        let (offset, bytes) = (signed(offset)?, signed(bytes)?);
        if bytes == 0 {
            return Ok(());
        }
        loop {
            // SAFETY: fallocate takes no pointers, and the descriptor is open for as long as `self.file` is.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, bytes) } == 0 {
                return Ok(());
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            }
        }
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
fn hint(source: &io::Error, readonly: bool, direct: bool) -> &'static str {
    match source.kind() {
        io::ErrorKind::InvalidInput if direct => "; its file system has no direct access: leave out 'direct'",
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
