//! EDGE: makes tap devices through `/dev/net/tun`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

const TUN: &str = "/dev/net/tun";

/// The kernel replaces `%d` by the first free number, without a race.
const NAME: &[u8] = b"vnet%d";

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The device node cannot be opened.
    #[error("cannot open {TUN}: {0}")]
    Open(io::Error),
    /// The kernel made no tap.
    #[error("cannot create a tap device with {queues} queues: {cause}")]
    Create {
        /// How many were asked for.
        queues: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The tap does not outlive its descriptors.
    #[error("cannot keep the tap device: {0}")]
    Keep(io::Error),
}

/// `TUNSETPERSIST` (linux/if_tun.h): `_IOW('T', 203, int)`.
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;

/// A tap device, down, and the descriptors it lives by, one per queue.
#[derive(Debug)]
pub struct Tap {
    /// The interface name the kernel chose.
    pub name: String,
    /// One per queue, non-blocking, with `IFF_NO_PI` and `IFF_VNET_HDR`.
    pub queues: Vec<OwnedFd>,
}

/// Makes a tap that is gone when its last descriptor is closed.
pub fn create(queues: u32) -> Result<Tap, TapError> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    // SAFETY: `ifreq` is a C struct of integers and byte arrays, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = *from as libc::c_char;
    }
    let mut fds = Vec::new();
    for _ in 0..queues {
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        let file = open()?;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and which outlives the call. The name in
        // it is shorter than the field and the rest is zero, so the kernel finds its end.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(TapError::Create { queues, cause: io::Error::last_os_error() });
        }
        fds.push(file.into());
    }
    // The kernel wrote the name it chose where the pattern was; the next queue then asked for that very name.
    let name = request.ifr_name.iter().map(|&c| c as u8).take_while(|&c| c != 0).map(char::from).collect();
    Ok(Tap { name, queues: fds })
}

/// Lets a tap live on when its last descriptor is closed.
pub fn keep(tap: &Tap) -> Result<(), TapError> {
    for queue in tap.queues.iter().take(1) {
        // SAFETY: TUNSETPERSIST takes its argument by value, and `queue` is an open descriptor of a tap.
        if unsafe { libc::ioctl(queue.as_raw_fd(), TUNSETPERSIST, 1) } < 0 {
            return Err(TapError::Keep(io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn open() -> Result<File, TapError> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN).map_err(TapError::Open)
}
