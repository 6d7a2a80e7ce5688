//! EDGE: the host's end of a guest's NIC. One open tap queue: its ioctls, and reads and writes of frames.
//!
//! The queue was opened and given to us by somebody with the right to (netd); closing it is all we need to do to give
//! it back. Never: creates or configures a network device. Each frame has a virtio header of 12 bytes before it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::virtio::Buffers;

/// Bytes of `struct virtio_net_hdr_v1` (virtio 1.2 §5.1.6): the header before each frame.
pub(crate) const HEADER: usize = 12;

/// The largest frame a tap gives or takes: 64 KiB of segmentation-offloaded packet, Ethernet and VLAN header.
pub(crate) const MAX_FRAME: usize = 65536 + 18;

/// Why a descriptor cannot be a NIC's queue.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Not a tap at all.
    #[error("descriptor {fd} is not a tap queue ({source}); pass one opened on /dev/net/tun with TUNSETIFF")]
    NotTap {
        /// The descriptor.
        fd: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
    /// A tap, but with other framing.
    #[error("tap {name} was opened with flags {flags:#x}; a NIC needs IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")]
    Flags {
        /// The interface.
        name: String,
        /// `ifr_flags` as TUNGETIFF gave them.
        flags: u16,
    },
    /// More queues of a tap that has only one.
    #[error("tap {name} was not opened with IFF_MULTI_QUEUE, so it has one queue; pass one descriptor")]
    OneQueue {
        /// The interface.
        name: String,
    },
    /// The kernel refused a setting.
    #[error("cannot set {what} on tap {name}: {source}")]
    Set {
        /// The interface.
        name: String,
        /// The setting.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One queue of a tap.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
    name: String,
    /// False for the plain socket that tests use: it carries the same frames but has no ioctls.
    is_tap: bool,
    /// The kernel segments large UDP packets for it.
    uso: bool,
    /// Takes part in its tap; the kernel refuses to be told so twice.
    attached: AtomicBool,
}

mod ioctl {
    //! Tap ioctls as linux/if_tun.h defines them; libc has most numbers, nix makes the calls.
    nix::ioctl_read_bad!(get_iff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_vnet_header_size, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(set_queue, libc::TUNSETQUEUE, libc::ifreq);
}

impl Tap {
    /// Takes over a tap queue: checks how it was opened, and sets header size and non-blocking mode.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, TapError> {
        let mut request = empty_request();
        // SAFETY: `request` is an ifreq, which is what TUNGETIFF writes; both it and the descriptor live across the
        // call.
        unsafe { ioctl::get_iff(fd.as_raw_fd(), &mut request) }
            .map_err(|errno| TapError::NotTap { fd: fd.as_raw_fd(), source: errno.into() })?;
        // SAFETY: TUNGETIFF filled in the flags member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags } as u16;
        let name: Vec<u8> = request.ifr_name.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        let needed = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
        if flags & needed != needed {
            return Err(TapError::Flags { name, flags });
        }
        let attached = AtomicBool::new(flags & libc::IFF_DETACH_QUEUE as u16 == 0);
        let mut tap = Self { fd, name, is_tap: true, uso: false, attached };
        // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, which points to a live one.
        unsafe { ioctl::set_vnet_header_size(tap.fd.as_raw_fd(), &(HEADER as libc::c_int)) }
            .map_err(|errno| tap.refused("the header size", errno))?;
        let nonblocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&tap.fd, nonblocking).map_err(|errno| tap.refused("non-blocking mode", errno))?;
        let everything = Offloads { checksum: true, tso4: true, tso6: true, ecn: true, uso: true };
        // Linux 6.2 and later; only trying tells.
        tap.uso = tap.set_offloads(everything).is_ok();
        tap.set_offloads(Offloads::default())?;
        Ok(tap)
    }

    /// A datagram socket in place of a tap.
    #[cfg(test)]
    pub(crate) fn socket(fd: OwnedFd) -> Self {
        Self { fd, name: "socket".to_owned(), is_tap: false, uso: false, attached: AtomicBool::new(true) }
    }

    /// The interface's name when the queue was taken over.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel takes and gives large UDP packets.
    pub(crate) fn takes_uso(&self) -> bool {
        self.uso
    }

    /// Says what the guest can take: partial checksums, and large packets of these kinds. For the whole tap.
    pub(crate) fn set_offloads(&self, offloads: Offloads) -> Result<(), TapError> {
        if !self.is_tap {
            return Ok(());
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        unsafe { ioctl::set_offload(self.fd.as_raw_fd(), offloads.bits()) }
            .map(drop)
            .map_err(|errno| self.refused("offloads", errno))
    }

    /// Lets this queue take part in its tap, or not: the kernel spreads frames over the queues that do. Not to be
    /// called by two threads at once.
    pub(crate) fn set_attached(&self, attached: bool) -> Result<(), TapError> {
        if !self.is_tap || self.attached.load(Ordering::Acquire) == attached {
            return Ok(());
        }
        let mut request = empty_request();
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        request.ifr_ifru.ifru_flags = flag as libc::c_short;
        // SAFETY: TUNSETQUEUE reads an ifreq through the pointer, which points to a live one.
        match unsafe { ioctl::set_queue(self.fd.as_raw_fd(), &request) } {
            Ok(_) => {
                self.attached.store(attached, Ordering::Release);
                Ok(())
            }
            Err(nix::errno::Errno::EINVAL) => Err(TapError::OneQueue { name: self.name.clone() }),
            Err(errno) => Err(self.refused("a queue's attachment", errno)),
        }
    }

    /// Sends the frame in `frame`, header first.
    pub(crate) fn send(&self, frame: &Buffers) -> io::Result<usize> {
        let pieces = frame.as_iovecs();
        // SAFETY: the pieces are guest memory that `frame` keeps mapped; the kernel only reads them, and the guest
        // changing them meanwhile harms nobody, since the kernel copies what it checks.
        let sent = unsafe { libc::writev(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives a frame, header first, into `room` and what does not fit into `spill`. Answers the bytes received.
    pub(crate) fn receive(&self, room: &mut Buffers, spill: &mut [u8]) -> io::Result<usize> {
        let received = room.with_spill(spill, |pieces| {
            // SAFETY: all pieces but the last are guest memory that `room` keeps mapped and of which no references
            // exist; the last is `spill`, borrowed exclusively for longer than the call.
            unsafe { libc::readv(self.fd.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) }
        });
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    fn refused(&self, what: &'static str, errno: nix::errno::Errno) -> TapError {
        TapError::Set { name: self.name.clone(), what, source: errno.into() }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// What a guest can take from its tap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offloads {
    /// Packets whose checksum is not finished. The others need it.
    pub(crate) checksum: bool,
    /// Large TCP packets over IPv4, over IPv6, and such with ECN's CWR bit.
    pub(crate) tso4: bool,
    pub(crate) tso6: bool,
    pub(crate) ecn: bool,
    /// Large UDP packets over both.
    pub(crate) uso: bool,
}

impl Offloads {
    fn bits(self) -> libc::c_int {
        let flag = |on: bool, bit: libc::c_uint| if on { bit } else { 0 };
        let large = flag(self.tso4, libc::TUN_F_TSO4)
            | flag(self.tso6, libc::TUN_F_TSO6)
            | flag(self.ecn && (self.tso4 || self.tso6), libc::TUN_F_TSO_ECN)
            | flag(self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6);
        (flag(self.checksum, libc::TUN_F_CSUM) | flag(self.checksum, large)) as libc::c_int
    }
}

fn empty_request() -> libc::ifreq {
    libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}
