//! EDGE: writes and removes the files for libvirt's NSS modules, whenever leases or ports change.
//!
//! A file is written beside the one it replaces and renamed over it: a reader finds one or the other. The directory may
//! be libvirt's own, so nothing is touched there but the files of our bridges.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use netd_api::EventKind;

use super::{Known, macs, status};
use crate::{
    events::{Heard, Listener, moves_guests},
    verbs::{Host, Verbs},
};

/// The files in one directory.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// By network: the bridge whose files are there.
    written: BTreeMap<String, String>,
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
pub async fn keep<H: Host + 'static>(mut listener: Listener, verbs: Arc<Verbs<H>>, directory: PathBuf) {
    let mut files = Files::new(directory);
    let mut dirty = Dirty { all: true, ..Dirty::default() };
    loop {
        if dirty.all {
            dirty.networks.extend(verbs.active_networks());
            dirty.networks.extend(files.written.keys().cloned());
        }
        let known: Vec<_> = dirty.networks.into_iter().map(|name| (verbs.known_to_host(&name), name)).collect();
        // A slow disk is waited for on a thread of its own, and what happens meanwhile is looked at once.
        let written = tokio::task::spawn_blocking(move || {
            for (known, network) in known {
                if let Err((path, cause)) = files.put(&network, known) {
                    tracing::error!("network {network}: cannot write {} for name look-ups: {cause}", path.display());
                }
            }
            files
        });
        files = match written.await {
            Ok(files) => files,
            Err(_) => return,
        };
        dirty = Dirty::default();
        while dirty.networks.is_empty() && !dirty.all {
            let Some(heard) = listener.next().await else { return };
            dirty.mark(&heard);
        }
        while let Some(heard) = listener.waiting() {
            dirty.mark(&heard);
        }
    }
}

impl Files {
    /// Nothing is written yet; the directory is made when something is.
    pub fn new(directory: PathBuf) -> Self {
        Files { directory, written: BTreeMap::new() }
    }

    /// Writes what is known of a network; without it, its files go.
    fn put(&mut self, network: &str, known: Option<Known>) -> Result<(), (PathBuf, io::Error)> {
        let bridge = known.as_ref().map(|known| &known.bridge);
        if let Some(before) = self.written.get(network).filter(|before| Some(*before) != bridge) {
            for ending in ["status", "macs"] {
                remove(&self.path(before, ending))?;
            }
            self.written.remove(network);
        }
        let Some(Known { bridge, leases, ports }) = known else { return Ok(()) };
        fs::create_dir_all(&self.directory).map_err(|cause| (self.directory.clone(), cause))?;
        self.written.insert(network.to_owned(), bridge.clone());
        // Whose MAC it is before where it is: a guest that has an address can be found by its name.
        self.write(&bridge, "macs", &macs(&ports))?;
        self.write(&bridge, "status", &status(&leases))
    }

    fn path(&self, bridge: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{bridge}.{ending}"))
    }

    fn write(&self, bridge: &str, ending: &str, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let path = self.path(bridge, ending);
        // The modules read what ends in .status and .macs: not this.
        let beside = self.path(bridge, &format!("{ending}.incomplete"));
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(|cause| (path, cause))
    }
}

fn remove(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err((path.to_owned(), cause)),
        _ => Ok(()),
    }
}
