//! EDGE: the sockets clients come to: made without taking a path that another daemon owns, or handed over by systemd.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials},
    unistd::{Group, chown},
};

use crate::unix_table;

/// Where libvirt's clients look.
pub(crate) const SOCKET: &str = "/run/libvirt/libvirt-sock";

/// What a socket for looking only is called after the one for everything.
pub(crate) const READ_ONLY_SUFFIX: &str = "-ro";

/// A socket of libvirt's that clients prefer for `qemu:///system`, where it is there.
pub(crate) const PREFERRED: &str = "/run/libvirt/virtqemud-sock";

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Another daemon's clients come there.
    #[error(
        "{} belongs to {owner}, and is not taken from it. Have {owner} stopped and disabled first, or listen elsewhere, \
         'netd-libvirtd --socket /run/netd/libvirt-sock', and tell clients: 'virsh -c \
         qemu:///system?socket=/run/netd/libvirt-sock'; the same URI in the variable LIBVIRT_DEFAULT_URI; or the line \
         uri_default = \"qemu:///system?socket=/run/netd/libvirt-sock\" in /etc/libvirt/libvirt.conf",
        path.display()
    )]
    Owned {
        /// The socket.
        path: PathBuf,
        /// Whose.
        owner: String,
    },
    /// Another one of us is there, or is just coming.
    #[error("another netd-libvirtd listens on {}: stop it, or choose another --socket", path.display())]
    Ours {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has its name.
    #[error("{} is no socket, and is not removed: choose another --socket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot listen on {}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// systemd hands over something we do not know.
    #[error(
        "systemd hands over a socket named '{0}': FileDescriptorName= must be 'libvirt' for the socket for everything, \
         'libvirt-ro' for the one for looking only"
    )]
    Name(String),
    /// What systemd says makes no sense.
    #[error("cannot take over systemd's sockets: {0}")]
    Activation(io::Error),
}

/// A socket that clients come to.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    pub(crate) read_only: bool,
    /// Of one we made ourselves.
    claim: Option<Claim>,
}

/// A path that is ours.
#[derive(Debug)]
struct Claim {
    path: PathBuf,
    inode: (u64, u64),
    _lock: Flock<OwnedFd>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Somebody may have put a socket of its own there.
        if fs::metadata(&self.path).is_ok_and(|is| (is.dev(), is.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listening {
    /// Where, for people.
    pub(crate) fn place(&self) -> String {
        match &self.claim {
            Some(claim) => claim.path.display().to_string(),
            None => "a socket of systemd's".to_owned(),
        }
    }
}

/// The sockets that systemd hands over (sd_listen_fds(3)); none if it did not start us by one.
pub(crate) fn activated() -> Result<Vec<Listening>, ListenError> {
    let given = sd_notify::listen_fds_with_names().map_err(ListenError::Activation)?;
    given.map(|(fd, name)| one_activated(fd, &name)).collect()
}

fn one_activated(fd: RawFd, name: &str) -> Result<Listening, ListenError> {
    let read_only = match name {
        "libvirt" => false,
        "libvirt-ro" => true,
        other => return Err(ListenError::Name(other.to_owned())),
    };
    // SAFETY: systemd opened it for this process, and it is asked for it once.
    let listener = unsafe { UnixListener::from_raw_fd(fd) };
    listener.set_nonblocking(true).map_err(ListenError::Activation)?;
    Ok(Listening { listener, read_only, claim: None })
}

/// Makes a socket of this mode; members of the group may use it where the mode lets a group.
pub(crate) fn listen(path: &Path, group: &str, read_only: bool) -> Result<Listening, ListenError> {
    let failed = |cause: io::Error| ListenError::Io { path: path.to_owned(), cause };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let lock = lock(path)?;
    clear(path)?;
    // Under another name until it is as it should be; from then on it is there, and never anything less.
    let new = beside(path, ".new");
    remove(&new).map_err(failed)?;
    let listener = UnixListener::bind(&new).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    if let Ok(Some(group)) = Group::from_name(group) {
        match chown(&new, None, Some(group.gid)) {
            // Whoever starts it as an ordinary user has it for themselves.
            Err(Errno::EPERM) => {
                tracing::warn!("only its owner may use {}: it cannot be given to a group", path.display())
            }
            done => done.map_err(|errno| failed(errno.into()))?,
        }
    }
    let mode = if read_only { 0o666 } else { 0o660 };
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(failed)?;
    let is = fs::metadata(&new).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let claim = Claim { path: path.to_owned(), inode: (is.dev(), is.ino()), _lock: lock };
    Ok(Listening { listener, read_only, claim: Some(claim) })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One of us per path: the lock ends with the process, however it ends.
fn lock(path: &Path) -> Result<Flock<OwnedFd>, ListenError> {
    let failed = |cause| ListenError::Io { path: path.to_owned(), cause };
    let file = File::options().create(true).append(true).open(beside(path, ".lock")).map_err(failed)?;
    match Flock::lock(OwnedFd::from(file), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(ListenError::Ours { path: path.to_owned() }),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// Removes what a dead server left. A server that lives keeps its path.
fn clear(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |cause| ListenError::Io { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(is) if !is.file_type().is_socket() => return Err(ListenError::NoSocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match owner(path).map_err(failed)? {
        Some(owner) => Err(ListenError::Owned { path: path.to_owned(), owner }),
        None => remove(path).map_err(failed),
    }
}

/// Who listens there, if anybody does. It is looked for in the kernel's table first: a connection would start a daemon for
/// which systemd listens.
fn owner(path: &Path) -> io::Result<Option<String>> {
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let same =
        |bound: &Path| fs::canonicalize(bound).is_ok_and(|bound| fs::canonicalize(path).is_ok_and(|p| p == bound));
    if let Some(inode) = unix_table::listeners(&table).find(|listener| same(listener.path)).map(|found| found.inode) {
        return Ok(Some(holder(inode).unwrap_or_else(|| "another program".to_owned())));
    }
    // One of another network namespace is in another table.
    let probe = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    use std::os::fd::AsRawFd;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
        // Its queue is full, so there is somebody.
        Err(Errno::EAGAIN) => Ok(Some("another program".to_owned())),
        Err(errno) => Err(errno.into()),
        Ok(()) => {
            let peer = getsockopt(&probe, PeerCredentials)?;
            Ok(Some(program(&peer.pid().to_string()).unwrap_or_else(|| "another program".to_owned())))
        }
    }
}

/// The program that has the socket of this inode open, by `/proc`. systemd's sockets are units.
fn holder(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        if fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())) {
            holders.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    // A daemon that systemd started by its socket shares it with systemd, and says more.
    holders.sort_by_key(|pid| pid == "1");
    holders.iter().find_map(|pid| program(pid))
}

fn program(pid: &str) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(match (name.trim(), pid) {
        ("systemd", "1") => "a socket unit of systemd's (libvirtd.socket or virtqemud.socket)".to_owned(),
        (name, pid) => format!("{name} (pid {pid})"),
    })
}
