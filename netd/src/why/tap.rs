//! EDGE: one frame into a guest's tap, as if the guest had sent it.
//!
//! Only a descriptor of the tap can do that, and those are the guest's. The kernel lends a copy of one to whoever may
//! debug the guest's process (pidfd_getfd(2)); it is held for one write. No other way ends on the same path through the
//! kernel: what a packet socket sends on a tap goes to the guest, and another port has another name to the guards.

use std::{
    fs::{self, File},
    io::{self, Write},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    thread,
    time::Duration,
};

const TUN: &str = "/dev/net/tun";

/// `TUNGETDEVNETNS` (linux/if_tun.h): a descriptor of the tap's network namespace.
const GET_NAMESPACE: libc::c_ulong = 0x54e3;

/// How often it is tried, and how far apart: descriptors come and go while they are looked at.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// Packet information and offload headers before a frame, at their longest.
const MOST_HEADER: usize = 64;

/// Sends the frame by the tap of this name in this process's network namespace.
pub(super) fn send(interface: &str, frame: &[u8]) -> io::Result<()> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no process has a descriptor of the tap");
    for look in 0..LOOKS {
        if look > 0 {
            thread::sleep(PAUSE);
        }
        for (process, descriptor) in holders(interface) {
            match borrow(process, descriptor).and_then(|tap| write(&tap, interface, frame)) {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

/// Processes and their descriptors that say they are of a tap of this name, in whatever namespace.
fn holders(interface: &str) -> Vec<(libc::pid_t, i32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = number(&entry.file_name()) else { continue };
        // A process that ends while we look holds nothing.
        for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|target| target == Path::new(TUN))
                && let Some(descriptor) = number(&descriptor.file_name())
                && fs::read_to_string(entry.path().join(format!("fdinfo/{descriptor}")))
                    .is_ok_and(|info| info.lines().any(|line| line.strip_prefix("iff:\t") == Some(interface)))
            {
                found.push((process, descriptor));
            }
        }
    }
    found
}

fn number(name: &std::ffi::OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}

/// A copy of another process's descriptor.
fn borrow(process: libc::pid_t, descriptor: i32) -> io::Result<File> {
    // SAFETY: both calls take integers only and return a new descriptor or -1.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: as above; `pidfd` is open until the end of this function.
    let copy = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) })?;
    Ok(File::from(copy))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Writes the frame with the header this descriptor wants, after making sure that it is what it was taken for.
fn write(mut tap: &File, interface: &str, frame: &[u8]) -> io::Result<()> {
    let another = || io::Error::new(io::ErrorKind::NotFound, "the descriptor is another tap's");
    // SAFETY: `ifreq` is a C struct of integers and byte arrays, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq`, which `request` is and which outlives the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let name: Vec<u8> = request.ifr_name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    if name != interface.as_bytes() || namespace(tap)? != own_namespace()? {
        return Err(another());
    }
    // SAFETY: TUNGETIFF has filled in the flags, and every value of this union's member is an integer.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let information = if flags & libc::IFF_NO_PI == 0 { 4 } else { 0 };
    let mut offload: libc::c_int = 0;
    if flags & libc::IFF_VNET_HDR != 0 {
        // SAFETY: TUNGETVNETHDRSZ writes one int, which outlives the call.
        if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut offload) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // All zeroes: a whole packet, its checksum done.
    let header = information + usize::try_from(offload).unwrap_or(0);
    if header > MOST_HEADER {
        return Err(io::Error::other("the tap wants a header of an unknown kind"));
    }
    let bytes = [&[0; MOST_HEADER][..header], frame].concat();
    match tap.write(&bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn namespace(tap: &File) -> io::Result<(u64, u64)> {
    // SAFETY: TUNGETDEVNETNS takes no argument and returns a new descriptor or -1.
    let namespace = owned(libc::c_long::from(unsafe { libc::ioctl(tap.as_raw_fd(), GET_NAMESPACE, 0) }))?;
    let found = File::from(namespace).metadata()?;
    Ok((found.dev(), found.ino()))
}

fn own_namespace() -> io::Result<(u64, u64)> {
    let found = fs::metadata("/proc/thread-self/ns/net")?;
    Ok((found.dev(), found.ino()))
}
