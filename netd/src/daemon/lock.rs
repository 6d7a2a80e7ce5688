//! EDGE: one daemon per directory. The lock is on the directory itself and ends with the process, however it ends.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Why the directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "another netd{} already uses {}: stop it or choose other directories",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other daemon, where the kernel tells.
        pid: Option<u32>,
    },
    /// The lock cannot be asked for.
    #[error("cannot lock {}: {cause}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A child of a daemon that was killed has a copy of the lock until it is the program that it was made for.
const BETWEEN_FORK_AND_EXEC: Duration = Duration::from_secs(5);

/// Takes the directory for as long as the returned value lives.
pub(super) fn lock(directory: &Path) -> Result<Flock<OwnedFd>, LockError> {
    let failed = |cause| LockError::Io { directory: directory.to_owned(), cause };
    let begun = Instant::now();
    let mut file = OwnedFd::from(File::open(directory).map_err(failed)?);
    loop {
        let held;
        (file, held) = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => (file, holder(directory)),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        if !held.is_some_and(has_ended) || begun.elapsed() > BETWEEN_FORK_AND_EXEC {
            return Err(LockError::Held { directory: directory.to_owned(), pid: held });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the process is no more, or nothing but a status for its parent (proc(5)).
fn has_ended(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Who holds a lock on the directory, as `/proc/locks` has it.
fn holder(directory: &Path) -> Option<u32> {
    let inode = fs::metadata(directory).ok()?.ino();
    holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// A line is `1: FLOCK  ADVISORY  WRITE 1234 00:21:5678 0 EOF`: pid, then device and inode.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok()?;
        let found: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
        (found == inode).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_the_directorys_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:21:5678 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 42 fe:01:99 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 1234 00:21:5678 0 EOF\n";
        assert_eq!(holder_in(locks, 5678), Some(1234));
        assert_eq!(holder_in(locks, 1), None);
    }

    #[test]
    fn a_directory_cannot_be_had_twice() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let first = lock(directory).unwrap();
        let second = lock(directory).unwrap_err().to_string();
        assert!(second.contains(&format!("(pid {})", std::process::id())), "{second}");
        assert!(second.contains(&directory.display().to_string()), "{second}");
        drop(first);
        lock(directory).unwrap();
    }

    #[test]
    fn a_child_of_a_daemon_that_was_killed_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // flock(1) takes the lock and ends; what it leaves running has a copy.
        let left = ["sh", "-c", "sleep 0.3 >/dev/null 2>&1 &"];
        let ended = std::process::Command::new("flock").arg(path).args(left).status().unwrap();
        assert!(ended.success());
        let file = OwnedFd::from(File::open(path).unwrap());
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(), "nothing holds it");
        lock(path).unwrap();
    }
}
