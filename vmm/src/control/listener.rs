//! EDGE: a unix socket that this process creates for its user, and removes when it is done.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket},
    stat::{Mode, fchmod},
};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("failed to create the {what} socket {}: {cause}: choose another path with --{what}", path.display())]
    Bind { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("the {what} socket {} exists: another guest uses it, or remove the file", path.display())]
    Exists { what: &'static str, path: PathBuf },
}

/// A listening socket; its file is removed when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // If somebody removed it before us, all the better.
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Creates a non-blocking socket, for this user only. A file left behind by a process that is gone is taken over.
    /// `what` is the option that names the path.
    pub(crate) fn bind(what: &'static str, path: &Path) -> Result<Self, ListenError> {
        let failed = |cause| ListenError::Bind { what, path: path.to_owned(), cause };
        let bind = || -> io::Result<UnixListener> {
            let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            // The file gets what the socket has: it is never anyone else's, and no other thread's umask is touched.
            fchmod(&socket, Mode::from_bits_truncate(0o600))?;
            socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
            socket::listen(&socket, Backlog::MAXCONN)?;
            Ok(socket.into())
        };
        let socket = match bind() {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                match UnixStream::connect(path) {
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {}
                    _ => return Err(ListenError::Exists { what, path: path.to_owned() }),
                }
                fs::remove_file(path).map_err(failed)?;
                bind()
            }
            first => first,
        };
        let listener = Listener { socket: socket.map_err(failed)?, path: path.to_owned() };
        listener.socket.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
