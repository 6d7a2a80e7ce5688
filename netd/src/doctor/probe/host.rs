//! EDGE: devices, procfs and sysfs, directories and file systems, read for the doctor.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};

use super::{
    super::facts::{Device, Directory, DirectoryState, Modules, ResolvConf, Resolvers, Room, Seen, Unseen},
    unseen,
};

/// What systemd-resolved asks itself (systemd-resolved.service(8)).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Opens a device and closes it again; none of ours does anything before its first ioctl.
pub(super) fn device(path: &str) -> Device {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Device::Open,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Device::Absent,
            io::ErrorKind::PermissionDenied => Device::Forbidden,
            _ => Device::Broken(error.to_string()),
        },
    }
}

pub(super) fn read(path: impl AsRef<Path>) -> Seen<String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|error| unseen(&error, &format!("{}: {error}", path.display())))
}

pub(super) fn modules() -> Modules {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let directory = PathBuf::from("/lib/modules").join(&release);
    let files = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let loaded = fs::read_to_string("/proc/modules");
    let mut present: Vec<String> = entries("/sys/module").unwrap_or_default();
    present.extend(files("modules.builtin").iter().flat_map(|text| text.lines()).filter_map(module_name));
    Modules {
        fixed: loaded.is_err_and(|error| error.kind() == io::ErrorKind::NotFound),
        present,
        on_disk: files("modules.dep").map(|text| text.lines().filter_map(module_name).collect()),
        release,
    }
}

/// `kernel/net/bridge/bridge.ko.xz: …` is the module bridge; a `-` in the file's name is a `_` in the module's.
fn module_name(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn entries(directory: &str) -> io::Result<Vec<String>> {
    Ok(fs::read_dir(directory)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

pub(super) fn rp_filter() -> Seen<Vec<(String, u8)>> {
    const DIRECTORY: &str = "/proc/sys/net/ipv4/conf";
    let interfaces = entries(DIRECTORY).map_err(|error| unseen(&error, &format!("{DIRECTORY}: {error}")))?;
    let value = |interface: String| {
        // An interface may go while we look.
        let text = fs::read_to_string(Path::new(DIRECTORY).join(&interface).join("rp_filter")).ok()?;
        Some((interface, text.trim().parse().ok()?))
    };
    Ok(interfaces.into_iter().filter_map(value).collect())
}

pub(super) fn bridge_netfilter() -> Seen<Vec<String>> {
    let mut on = Vec::new();
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        let path = format!("/proc/sys/net/bridge/{name}");
        match fs::read_to_string(&path) {
            Ok(value) if value.trim() != "0" => on.push(name.to_owned()),
            Ok(_) => {}
            // br_netfilter is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unseen(&error, &format!("{path}: {error}"))),
        }
    }
    Ok(on)
}

pub(super) fn resolvers(path: &Path) -> Resolvers {
    let file = match fs::read_to_string(path) {
        Ok(text) => ResolvConf::Text(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => ResolvConf::Dangling(path.parent().unwrap_or(Path::new("/")).join(target)),
            Err(_) => ResolvConf::Missing,
        },
        Err(error) => ResolvConf::Unreadable(error.to_string()),
    };
    Resolvers { path: path.to_owned(), file, behind_stub: fs::read_to_string(BEHIND_STUB).ok() }
}

pub(super) fn directory(role: &'static str, path: &Path) -> Directory {
    let may_write = |path: &Path| access(path, AccessFlags::W_OK | AccessFlags::X_OK);
    let refused = |errno| match errno {
        Errno::EACCES => DirectoryState::Forbidden,
        other => DirectoryState::Broken(other.desc().to_owned()),
    };
    let state = match fs::metadata(path) {
        Ok(found) if !found.is_dir() => DirectoryState::Broken("it is no directory".to_owned()),
        Ok(_) => may_write(path).map_or_else(refused, |()| DirectoryState::Writable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            may_write(existing(path)).map_or_else(refused, |()| DirectoryState::Creatable)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => DirectoryState::Forbidden,
        Err(error) => DirectoryState::Broken(error.to_string()),
    };
    Directory { role, path: path.to_owned(), state }
}

/// The path or its nearest ancestor that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

pub(super) fn room(path: &Path) -> Seen<Room> {
    let path = existing(path);
    let found = statvfs(path).map_err(|errno| Unseen::Failed(format!("{}: {}", path.display(), errno.desc())))?;
    // Some file systems (btrfs) have no number of files.
    let files = (found.files() > 0).then(|| found.files_available());
    let bytes = found.blocks_available().saturating_mul(found.fragment_size());
    Ok(Room { path: path.to_owned(), bytes, files })
}
