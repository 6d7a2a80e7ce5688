//! EDGE: libvirt's files, read below a root directory; and those that make libvirt take a network for its own, removed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{File, Found};

/// Definitions, and in `autostart/` links to those that start with libvirt.
const DEFINITIONS: &str = "etc/libvirt/qemu/networks";
/// What runs: `NAME.xml`, `NAME.pid`, `NAME/ports/UUID.xml`, and the driver's own pid.
const STATES: &str = "run/libvirt/network";
/// `/run` as it was called, still found in old images.
const OLD_STATES: &str = "var/run/libvirt/network";
/// Leases.
const LEASES: &str = "var/lib/libvirt/dnsmasq";

/// Largest file that is one of these, in bytes: libvirt's own limit on a lease file.
const LIMIT: u64 = 32 << 20;

/// Reads all there is. An error only if the root is no place to look in; a single file's error is kept with it.
pub(crate) fn read(root: &Path) -> io::Result<Found> {
    fs::read_dir(root)?;
    let definitions = list(&root.join(DEFINITIONS), "xml")?;
    let autostart = list(&root.join(DEFINITIONS).join("autostart"), "xml")?;
    let states = match list(&root.join(STATES), "xml")? {
        states if states.is_empty() && !same(&root.join("run"), &root.join("var/run")) => {
            list(&root.join(OLD_STATES), "xml")?
        }
        states => states,
    };
    let mut ports = BTreeMap::new();
    for state in &states {
        let directory = state.with_extension("").join("ports");
        ports.insert(stem(state), list(&directory, "xml")?.into_iter().map(file).collect());
    }
    let mut leases = BTreeMap::new();
    for extension in ["status", "leases"] {
        for path in list(&root.join(LEASES), extension)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            leases.insert(name, file(path));
        }
    }
    Ok(Found {
        definitions: definitions.into_iter().map(file).collect(),
        autostart: autostart.iter().map(|path| stem(path)).collect(),
        states: states.into_iter().map(file).collect(),
        ports,
        leases,
    })
}

/// Makes libvirt forget that it runs a network, and that it should when it starts. Its definition stays.
pub(crate) fn disown(root: &Path, name: &str) -> io::Result<()> {
    for path in [
        root.join(STATES).join(format!("{name}.xml")),
        root.join(STATES).join(format!("{name}.pid")),
        root.join(DEFINITIONS).join("autostart").join(format!("{name}.xml")),
    ] {
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}

/// The pid that a file of libvirt's holds: `driver` for libvirt itself, else a network's dnsmasq.
pub(crate) fn pid(root: &Path, of: &str) -> Option<u32> {
    fs::read_to_string(root.join(STATES).join(format!("{of}.pid"))).ok()?.trim().parse().ok()
}

/// Names and MACs of the ports of a bridge.
pub(crate) fn bridge_ports(bridge: &str) -> Vec<(String, String)> {
    let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
    let names = ports.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let mac = fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?;
            Some((name, mac.trim().to_owned()))
        })
        .collect()
}

fn same(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).ok() == fs::canonicalize(other).ok()
}

/// The files of a directory with this extension, by name; none if there is no such directory.
fn list(directory: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => {
            return Err(io::Error::new(cause.kind(), format!("cannot read {}: {cause}", directory.display())));
        }
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|of_path| of_path == extension));
    paths.sort();
    Ok(paths)
}

fn file(path: PathBuf) -> File {
    let text = match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > LIMIT => Err("it is larger than 32 MiB".to_owned()),
        _ => fs::read_to_string(&path).map_err(|cause| cause.to_string()),
    };
    File { path, text }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
