//! EDGE: tap devices as the tests need them: the few ioctls of `/dev/net/tun` (linux/if_tun.h).

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::{
    fcntl::{OFlag, open as open_file},
    libc,
    sys::stat::Mode,
};

nix::ioctl_write_int! {
    /// TUNSETIFF.
    tun_set_iff, b'T', 202
}
nix::ioctl_write_ptr! {
    /// TUNSETVNETHDRSZ.
    tun_set_header_size, b'T', 216, libc::c_int
}
nix::ioctl_read! {
    /// TUNGETVNETHDRSZ.
    tun_get_header_size, b'T', 215, libc::c_int
}
nix::ioctl_write_int! {
    /// TUNSETOFFLOAD.
    tun_set_offload, b'T', 208
}

/// Makes a tap with offload headers in the calling thread's network namespace.
pub fn open(name: &str) -> Result<OwnedFd> {
    let fd = open_file("/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .context("cannot open /dev/net/tun")?;
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, for the length of the call.
    unsafe { tun_set_iff(fd.as_raw_fd(), (&raw mut request) as libc::c_ulong) }
        .with_context(|| format!("cannot make the tap '{name}'"))?;
    set_offload(&fd)?;
    Ok(fd)
}

/// No offload but partial checksums: what reaches the reader is at most one MTU long.
pub fn set_offload(fd: &OwnedFd) -> Result<()> {
    const TUN_F_CSUM: libc::c_ulong = 1;
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { tun_set_offload(fd.as_raw_fd(), TUN_F_CSUM) }.context("TUNSETOFFLOAD")?;
    Ok(())
}

/// Full checksums and one MTU: for a reader that knows nothing of offload headers.
pub fn clear_offload(fd: &OwnedFd) -> Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { tun_set_offload(fd.as_raw_fd(), 0) }.context("TUNSETOFFLOAD")?;
    Ok(())
}

/// How many bytes of header stand before a frame.
pub fn header_size(fd: &OwnedFd) -> Result<usize> {
    let mut size: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int, which `size` is, for the length of the call.
    unsafe { tun_get_header_size(fd.as_raw_fd(), &raw mut size) }.context("TUNGETVNETHDRSZ")?;
    usize::try_from(size).context("a negative header size")
}

/// Gives the second tap the header size of the first.
pub fn copy_header_size(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let size = header_size(from)? as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which `size` is, for the length of the call.
    unsafe { tun_set_header_size(to.as_raw_fd(), &raw const size) }.context("TUNSETVNETHDRSZ")?;
    Ok(())
}
