//! EDGE: writes and removes the files for libvirt's NSS modules, whenever leases or ports change.
//!
//! A file is written beside the one it replaces and renamed over it: a reader finds one or the other. The directory may
//! be libvirt's own, so nothing is touched there but the files of our bridges.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use netd_api::EventKind;

use super::{Known, macs, status};
use crate::{
    events::{Heard, Listener, moves_guests},
    verbs::{Host, Verbs},
};

/// Between two times of writing, so that a burst of leases costs few: renaming a file makes a disk write it out, and
/// the leases themselves have to get to the same disk.
const PAUSE: Duration = Duration::from_millis(250);

/// The files in one directory. A clone is another handle on them.
#[derive(Clone, Debug)]
pub struct Files(Arc<Mutex<Written>>);

#[derive(Debug)]
struct Written {
    directory: PathBuf,
    /// By network: the bridge whose files are there.
    bridges: BTreeMap<String, String>,
}

/// What to look at again.
#[derive(Debug, Default)]
struct Dirty {
    networks: BTreeSet<String>,
    all: bool,
}

impl Dirty {
    fn mark(&mut self, heard: &Heard) {
        match heard {
            Heard::Missed(_) => self.all = true,
            Heard::Event(event) if changes_files(event.kind) => self.networks.extend(event.network.clone()),
            Heard::Event(_) => {}
        }
    }
}

fn changes_files(kind: EventKind) -> bool {
    moves_guests(kind) || matches!(kind, EventKind::Started | EventKind::Stopped | EventKind::Updated)
}

/// Keeps the files true for as long as anything happens.
pub async fn keep<H: Host + 'static>(mut listener: Listener, verbs: Arc<Verbs<H>>, files: Files) {
    let mut dirty = Dirty { all: true, ..Dirty::default() };
    loop {
        if dirty.all {
            dirty.networks.extend(files.concerned(&verbs));
        }
        files.sync(&verbs, dirty.networks).await;
        tokio::time::sleep(PAUSE).await;
        dirty = Dirty::default();
        while let Some(heard) = listener.waiting() {
            dirty.mark(&heard);
        }
        while dirty.networks.is_empty() && !dirty.all {
            let Some(heard) = listener.next().await else { return };
            dirty.mark(&heard);
        }
    }
}

impl Files {
    /// Nothing is written yet; the directory is made when something is.
    pub fn new(directory: PathBuf) -> Self {
        Files(Arc::new(Mutex::new(Written { directory, bridges: BTreeMap::new() })))
    }

    /// The same in a directory that is nobody else's: what a daemon that was killed left of networks that are no more goes.
    pub fn in_own(directory: PathBuf, active: &[String]) -> Self {
        let active = active.iter().flat_map(|bridge| [format!("{bridge}.status"), format!("{bridge}.macs")]);
        let stay: BTreeSet<String> = active.collect();
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(|name| stay.contains(name)) {
                // What cannot be removed says what it said: leases that end.
                let _ = fs::remove_file(entry.path());
            }
        }
        Files::new(directory)
    }

    /// Makes every file true, once: for when nobody keeps them any more.
    pub async fn finish<H: Host>(&self, verbs: &Verbs<H>) {
        self.sync(verbs, self.concerned(verbs)).await;
    }

    /// The networks that have files or should have.
    fn concerned<H: Host>(&self, verbs: &Verbs<H>) -> BTreeSet<String> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.bridges.keys().cloned().chain(verbs.active_networks()).collect()
    }

    /// A slow disk is waited for on a thread of its own.
    async fn sync<H: Host>(&self, verbs: &Verbs<H>, networks: BTreeSet<String>) {
        let known: Vec<_> = networks.into_iter().map(|name| (verbs.known_to_host(&name), name)).collect();
        let files = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut written = files.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (known, network) in known {
                if let Err((path, cause)) = written.put(&network, known) {
                    tracing::error!("network {network}: cannot write {} for name look-ups: {cause}", path.display());
                }
            }
        });
        if written.await.is_err() {
            tracing::error!("the files for name look-ups were not written");
        }
    }
}

impl Written {
    /// Writes what is known of a network; without it, its files go.
    fn put(&mut self, network: &str, known: Option<Known>) -> Result<(), (PathBuf, io::Error)> {
        let bridge = known.as_ref().map(|known| &known.bridge);
        if let Some(before) = self.bridges.get(network).filter(|before| Some(*before) != bridge) {
            for ending in ["status", "macs"] {
                remove(&self.path(before, ending))?;
            }
            self.bridges.remove(network);
        }
        let Some(known) = known else { return Ok(()) };
        fs::create_dir_all(&self.directory).map_err(|cause| (self.directory.clone(), cause))?;
        let bridge = known.bridge.clone();
        self.bridges.insert(network.to_owned(), bridge.clone());
        // Whose MAC it is before where it is: a guest that has an address can be found by its name.
        self.write(&bridge, "macs", &macs(&known.ports))?;
        self.write(&bridge, "status", &status(&known))
    }

    fn path(&self, bridge: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{bridge}.{ending}"))
    }

    fn write(&self, bridge: &str, ending: &str, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let path = self.path(bridge, ending);
        // The modules read what ends in .status and .macs: not this.
        let beside = self.path(bridge, &format!("{ending}.incomplete"));
        // For everyone, whatever the daemon's umask: look-ups happen in everyone's programs.
        let readable = || fs::set_permissions(&beside, fs::Permissions::from_mode(0o644));
        let written = fs::write(&beside, text).and_then(|()| readable()).and_then(|()| fs::rename(&beside, &path));
        written.map_err(|cause| (path, cause))
    }
}

fn remove(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err((path.to_owned(), cause)),
        _ => Ok(()),
    }
}
