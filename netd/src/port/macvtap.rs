//! EDGE: opens the queues of macvtap devices, and says who has them open.
//!
//! A tap goes with its last descriptor, a macvtap does not: the kernel keeps it until someone deletes it. So its guest's
//! end has to be noticed. Its queues are opened through a node of the file system, and inotify tells when a file that
//! was opened there is closed for good. Whether it was the last one, procfs says: a descriptor of that device in any
//! process. That also answers after a restart of the daemon, which keeps no descriptor itself.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, SFlag, mknod};

/// Why the queues of a macvtap cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MacvtapError {
    /// sysfs does not tell the device's number.
    #[error("cannot find the device number of {interface} in sysfs: {cause}")]
    Number {
        /// The macvtap.
        interface: String,
        /// What the file system said.
        cause: io::Error,
    },
    /// There is no node to open it by, and none can be made.
    #[error("cannot make the device node {}: {cause}", node.display())]
    Node {
        /// Where it should be.
        node: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open {}: {cause}{}", node.display(), hint(cause))]
    Open {
        /// Its node.
        node: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn hint(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied {
        "; devices cannot be opened on a file system mounted with nodev"
    } else {
        ""
    }
}

/// The queues of a macvtap, and the node they were opened by.
#[derive(Debug)]
pub struct Queues {
    /// One descriptor per queue, non-blocking, with `IFF_NO_PI` and `IFF_VNET_HDR`.
    pub queues: Vec<OwnedFd>,
    /// Where to watch for their end.
    pub node: PathBuf,
}

/// Opens the queues of the macvtap with this name and index. `directory` is for a node of our own, where the host has
/// none that fits: without devtmpfs there is none, and in a network namespace it may be another's.
pub fn open(interface: &str, index: u32, queues: u32, directory: &Path) -> Result<Queues, MacvtapError> {
    let number =
        number(interface, index).map_err(|cause| MacvtapError::Number { interface: interface.to_owned(), cause })?;
    let node = match PathBuf::from(format!("/dev/tap{index}")) {
        standard if is_device(&standard, number) => standard,
        _ => make_node(directory, interface, number)?,
    };
    let mut fds = Vec::new();
    for _ in 0..queues {
        match open_queue(&node, queues > 1) {
            Ok(file) => fds.push(file.into()),
            Err(cause) => {
                close(directory, &node);
                return Err(MacvtapError::Open { node, cause });
            }
        }
    }
    Ok(Queues { queues: fds, node })
}

/// Removes the node of a macvtap that is gone, if we made it.
pub fn close(directory: &Path, node: &Path) {
    if node.starts_with(directory) {
        // One that stays is in nobody's way: the next of its name replaces it.
        let _ = fs::remove_file(node);
    }
}

/// Whether any process has the device of this node open. True if procfs cannot be read: better a device too many than a
/// guest cut off.
pub fn is_open(node: &Path) -> bool {
    let Ok(number) = fs::metadata(node).map(|metadata| metadata.rdev()) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    processes
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flatten()
        .filter_map(Result::ok)
        .any(|descriptor| is_device(&descriptor.path(), number))
}

fn is_device(path: &Path, number: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == number)
}

/// `MAJOR:MINOR`, as sysfs has it.
fn number(interface: &str, index: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/tap{index}/dev"))?;
    let parsed =
        text.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = parsed.ok_or(io::ErrorKind::InvalidData)?;
    Ok(nix::sys::stat::makedev(major, minor))
}

fn make_node(directory: &Path, interface: &str, number: u64) -> Result<PathBuf, MacvtapError> {
    let node = directory.join(interface);
    let made = fs::create_dir_all(directory)
        .and_then(|()| match fs::remove_file(&node) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        })
        .and_then(|()| Ok(mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number)?));
    match made {
        Ok(()) => Ok(node),
        Err(cause) => Err(MacvtapError::Node { node, cause }),
    }
}

fn open_queue(node: &Path, several: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(node)?;
    // SAFETY: `ifreq` is a C struct of integers and byte arrays, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads one `ifreq`, which `request` is and which outlives the call. A macvtap's queue takes the
    // flags from it and no name.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
