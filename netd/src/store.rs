//! EDGE: definitions, autostart links, the journal and the ports on disk.
//!
//! ```text
//! CONFIG/networks/NAME.xml      definitions, what the user wrote and we completed
//! CONFIG/autostart/NAME.xml     links to those that start with the daemon
//! RUNTIME/networks/NAME.json    what is active, and how to undo it
//! RUNTIME/ports/INTERFACE.json  which taps are ours
//! RUNTIME/boot                  the boot these belong to, and whether autostart has happened in it
//! ```
//!
//! A file is written anew beside the old one and renamed over it, so that a reader or a power cut finds one or the
//! other. CONFIG is synced to the disk; RUNTIME need only outlive the process. It never decides what a file means and
//! never deletes one that it cannot read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{model::NetworkName, plan::Undo, port::Port};

/// Definitions are small; a file beyond this is something else.
const LARGEST_FILE: u64 = 4 << 20;

/// The name a file has until it is complete. No definition can be called so: those end in `.xml`.
const INCOMPLETE: &str = ".incomplete";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the disk did not do as asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {cause}", path.display())]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the file system said.
    pub cause: io::Error,
}

/// The daemon's directories.
#[derive(Debug)]
pub struct Store {
    config: PathBuf,
    runtime: PathBuf,
}

/// A definition as found on disk.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// The name the file claims to define, or what is wrong with it as a name.
    pub stem: String,
    /// What is in it.
    pub text: Result<String, StoreError>,
    /// There is an autostart link to it.
    pub autostart: bool,
}

/// How far a network has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Steps are being done; any number of them may be.
    Starting,
    /// All steps were done.
    Active,
    /// It runs and is being changed, to `xml` or back from it: any number of steps may be done. It is [`Before`] again
    /// when that does not come to an end.
    Changing,
    /// Steps are being undone; any number of them may be.
    Stopping,
}

/// What is kept about a network that is, or may be partly, on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// How far it has got.
    pub phase: Phase,
    /// The live network, complete.
    pub xml: String,
    /// What to do, in this order, to leave the host as it was found.
    pub journal: Vec<Undo>,
    /// What it comes back to if its last change does not last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

/// A network as it was before a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// As it was live.
    pub xml: String,
    /// How to undo that.
    pub journal: Vec<Undo>,
    /// Its definition, if the change is of that too.
    pub definition: Definition,
    /// What its definition becomes when the change is confirmed, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// The change is made, and taken back at this time unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
}

/// A definition as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// Whatever it is, it stays.
    Untouched,
    /// There was none.
    Absent,
    /// This.
    Xml(String),
}

/// When a change is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// In seconds since the machine booted, suspended or not (`CLOCK_BOOTTIME`). The record belongs to the same boot.
    pub at: u64,
    /// How many seconds that was from the change on.
    pub seconds: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Boot {
    id: String,
    autostarted: bool,
}

impl Store {
    /// Makes the directories that are not there. The second value is true if there were no definitions yet, not even
    /// an empty directory for them: this is the first start ever.
    ///
    /// What RUNTIME says about an earlier boot is dropped: nothing of it can be left.
    pub fn open(config: &Path, runtime: &Path) -> Result<(Self, bool), StoreError> {
        let store = Store::at(config, runtime);
        let first = !store.definitions().exists();
        for (directory, mode) in
            [(store.definitions(), 0o755), (store.autostart(), 0o755), (store.records(), 0o700), (store.ports(), 0o700)]
        {
            make_directory(&directory, mode)?;
            // Left by a daemon that was killed while it wrote. Where it cannot be removed it is only in the way.
            let _ = fs::remove_file(directory.join(INCOMPLETE));
        }
        let id = boot_id()?;
        if store.boot().id != id {
            for directory in [store.records(), store.ports()] {
                remove_all(&directory)?;
            }
            store.set_boot(&Boot { id, autostarted: false })?;
        }
        Ok((store, first))
    }

    /// The same directories to look at only: nothing is made, and none of them need exist.
    pub(crate) fn at(config: &Path, runtime: &Path) -> Self {
        Store { config: config.to_owned(), runtime: runtime.to_owned() }
    }

    /// Every file that may define a network, by name.
    pub fn load_definitions(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for path in list(&self.definitions(), "xml")? {
            let stem = stem(&path);
            let autostart = fs::symlink_metadata(self.autostart().join(file_name(&stem, "xml"))).is_ok();
            found.push(Found { text: read(&path), autostart, stem, path });
        }
        found.sort_by(|a, b| a.stem.cmp(&b.stem));
        Ok(found)
    }

    /// Writes a definition; when this returns it is on the disk.
    pub fn save_definition(&self, name: &NetworkName, xml: &str) -> Result<(), StoreError> {
        let path = self.definitions().join(file_name(name.as_str(), "xml"));
        let text = format!(
            "<!--\nThis file is written by netd; an edit by hand may be overwritten and is seen only at the next start.\n\
             To change the network use:\n  netd net-edit {}\n-->\n\n{xml}",
            comment_safe(name.as_str())
        );
        write(&path, text.as_bytes(), 0o600, Durability::Disk)
    }

    /// Removes a definition and its autostart link.
    pub fn remove_definition(&self, name: &NetworkName) -> Result<(), StoreError> {
        self.set_autostart(name, false)?;
        remove(&self.definitions().join(file_name(name.as_str(), "xml")))?;
        sync_directory(&self.definitions())
    }

    /// Makes or removes the autostart link.
    pub fn set_autostart(&self, name: &NetworkName, autostart: bool) -> Result<(), StoreError> {
        let file = file_name(name.as_str(), "xml");
        let link = self.autostart().join(&file);
        if autostart {
            let target = Path::new("../networks").join(&file);
            match symlink(target, &link) {
                Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError { action: "create the link", path: link, cause });
                }
                _ => {}
            }
        } else {
            remove(&link)?;
        }
        sync_directory(&self.autostart())
    }

    /// Every network that is or may be on the host, and whether every record could be read. One that could not is
    /// logged and left where it is.
    pub fn load_records(&self) -> Result<(Vec<Record>, bool), StoreError> {
        load_all(&self.records())
    }

    /// Keeps what is needed to undo or to adopt a network.
    pub fn save_record(&self, record: &Record) -> Result<(), StoreError> {
        save(&self.records().join(file_name(&record.name, "json")), record)
    }

    /// Forgets a network that left nothing on the host.
    pub fn remove_record(&self, name: &str) -> Result<(), StoreError> {
        remove(&self.records().join(file_name(name, "json")))
    }

    /// Every tap that was ours.
    pub fn load_ports(&self) -> Result<Vec<Port>, StoreError> {
        Ok(load_all(&self.ports())?.0)
    }

    /// Keeps a port for the next daemon.
    pub fn save_port(&self, port: &Port) -> Result<(), StoreError> {
        save(&self.ports().join(file_name(&port.interface, "json")), port)
    }

    /// Forgets a port.
    pub fn remove_port(&self, interface: &str) -> Result<(), StoreError> {
        remove(&self.ports().join(file_name(interface, "json")))
    }

    /// Whether autostart has happened since the machine booted.
    pub fn autostarted(&self) -> bool {
        self.boot().autostarted
    }

    /// Notes that autostart has happened in this boot.
    pub fn set_autostarted(&self) -> Result<(), StoreError> {
        self.set_boot(&Boot { autostarted: true, ..self.boot() })
    }

    fn boot(&self) -> Boot {
        fs::read(self.runtime.join("boot"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn set_boot(&self, boot: &Boot) -> Result<(), StoreError> {
        save(&self.runtime.join("boot"), boot)
    }

    fn definitions(&self) -> PathBuf {
        self.config.join("networks")
    }

    fn autostart(&self) -> PathBuf {
        self.config.join("autostart")
    }

    fn records(&self) -> PathBuf {
        self.runtime.join("networks")
    }

    fn ports(&self) -> PathBuf {
        self.runtime.join("ports")
    }
}

fn boot_id() -> Result<String, StoreError> {
    let id = fs::read_to_string(BOOT_ID).map_err(error("read", Path::new(BOOT_ID)))?;
    Ok(id.trim().to_owned())
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError { action, path, cause }
}

fn file_name(stem: &str, extension: &str) -> String {
    format!("{stem}.{extension}")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// `--` ends a comment early in XML.
fn comment_safe(text: &str) -> String {
    text.replace("--", "- -")
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(error("create the directory", path))
}

fn list(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
    let failed = || error("read the directory", directory);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<String, StoreError> {
    let file = File::open(path).map_err(error("read", path))?;
    let mut text = String::new();
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(error("read", path))?;
    Ok(text)
}

fn load_all<T: DeserializeOwned>(directory: &Path) -> Result<(Vec<T>, bool), StoreError> {
    let mut values = Vec::new();
    let mut all_read = true;
    for path in list(directory, "json")? {
        match serde_json::from_str(&read(&path)?) {
            Ok(value) => values.push(value),
            Err(cause) => {
                tracing::error!("{} is not what netd writes there and is passed over: {cause}", path.display());
                all_read = false;
            }
        }
    }
    Ok((values, all_read))
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|cause| error("write", path)(cause.into()))?;
    write(path, &bytes, 0o600, Durability::Process)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Survives the process.
    Process,
    /// Survives a power cut.
    Disk,
}

fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let incomplete = directory.join(INCOMPLETE);
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&incomplete)?;
        file.write_all(bytes)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&incomplete, path)
    })();
    if let Err(cause) = result {
        // What is left of the attempt is only in the way; the first error is the one to tell.
        let _ = fs::remove_file(&incomplete);
        return Err(StoreError { action: "write", path: path.to_owned(), cause });
    }
    if durability == Durability::Disk { sync_directory(directory) } else { Ok(()) }
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(error("sync", path))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(StoreError { action: "remove", path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

fn remove_all(directory: &Path) -> Result<(), StoreError> {
    list(directory, "json")?.iter().try_for_each(|path| remove(path))
}

#[cfg(test)]
mod tests;
