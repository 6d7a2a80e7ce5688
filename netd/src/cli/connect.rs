//! EDGE: the daemon's socket, files named on the command line and the local clock.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use netd_api::{Client, ClientError};

use super::failure::Failure;

/// The read-only socket beside the daemon's own: everybody may connect to it.
const READ_ONLY_SOCKET: &str = "netd-ro.sock";

/// virsh's limit on an XML file, in bytes.
const FILE_LIMIT: u64 = 10 << 20;

/// Connects for a verb that changes something.
pub(super) async fn connect(path: &Path) -> Result<Client, ClientError> {
    Client::connect(path).await
}

/// Connects for a verb that only reads: where the socket is not for this user, by the read-only one.
pub(super) async fn connect_to_read(path: &Path) -> Result<Client, ClientError> {
    match Client::connect(path).await {
        Err(ClientError::Connect { cause: zlink::Error::Io(error), path: tried })
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            let refused = |_| ClientError::Connect { path: tried, cause: zlink::Error::Io(error) };
            Client::connect(&read_only(path)).await.map_err(refused)
        }
        result => result,
    }
}

/// The socket for everyone that belongs to a daemon's socket.
pub(super) fn read_only(path: &Path) -> PathBuf {
    path.with_file_name(READ_ONLY_SOCKET)
}

/// The text of an XML file.
pub(super) fn read_file(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text));
    match read {
        Ok(size) if size as u64 > FILE_LIMIT => {
            Err(Failure::new(format!("Failed to open file '{}': it is larger than 10 MiB", path.display())))
        }
        Ok(_) => Ok(text),
        Err(cause) => Err(Failure::file(path, &cause)),
    }
}

/// A time as `date '+%F %T'` prints it here.
pub(super) fn local_time(seconds: i64) -> String {
    calendar(seconds, libc::localtime_r)
}

/// A time in milliseconds as virsh stamps its lines with it: `2026-11-20 13:00:00.123+0000`.
pub(super) fn utc_time(milliseconds: i64) -> String {
    let seconds = calendar(milliseconds.div_euclid(1000), libc::gmtime_r);
    format!("{seconds}.{:03}+0000", milliseconds.rem_euclid(1000))
}

fn calendar(
    seconds: i64,
    convert: unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm,
) -> String {
    // SAFETY: `tm` is plain integers and a pointer that may be null.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values that live until the call returns; nothing else of `time` is kept.
    let converted = unsafe { convert(&raw const seconds, &raw mut time) };
    if converted.is_null() {
        return format!("@{seconds}");
    }
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(time.tm_year) + 1900,
        time.tm_mon + 1,
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec
    )
}
