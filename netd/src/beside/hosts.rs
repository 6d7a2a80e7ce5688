//! EDGE: keeps the block in a file like /etc/hosts true, whenever leases or ports change.
//!
//! The file is written beside itself and renamed, so a reader finds it whole; mode and owner stay. A file that cannot be
//! replaced (a mount in a container) is left alone, with one line in the log.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use netd_api::EventKind;

use super::block;
use crate::{
    events::{Heard, Listener, moves_guests},
    verbs::{Host, Verbs},
};

/// Keeps the block true for as long as anything happens.
pub(crate) async fn keep<H: Host + 'static>(mut listener: Listener, verbs: Arc<Verbs<H>>, path: PathBuf) {
    let mut said = None;
    loop {
        let networks: Vec<_> = verbs
            .active_networks()
            .into_iter()
            .filter_map(|name| Some((verbs.known_to_host(&name)?, verbs.domain(&name))))
            .collect();
        let lines = block::lines(&networks);
        let file = path.clone();
        // A slow disk is waited for on a thread of its own.
        let written = tokio::task::spawn_blocking(move || write(&file, &lines)).await;
        let failure = written.map_err(io::Error::other).and_then(|written| written).err().map(|e| e.to_string());
        if let Some(error) = failure.as_ref().filter(|_| failure != said) {
            tracing::error!("cannot write guests' names to {}: {error}", path.display());
        }
        said = failure;
        let mut changed = false;
        while !changed {
            let Some(heard) = listener.next().await else { return };
            changed = matters(&heard);
        }
        while listener.waiting().is_some() {}
    }
}

fn matters(heard: &Heard) -> bool {
    match heard {
        Heard::Missed(_) => true,
        Heard::Event(event) => {
            moves_guests(event.kind)
                || matches!(event.kind, EventKind::Started | EventKind::Stopped | EventKind::Updated)
        }
    }
}

fn write(path: &Path, lines: &str) -> io::Result<()> {
    // The file itself, where the name is a link to it.
    let path = fs::canonicalize(path)?;
    let found = fs::read(&path)?;
    let Some(text) = block::replaced(&found, lines) else { return Ok(()) };
    let is = fs::metadata(&path)?;
    let mut beside = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    beside.write_all(&text)?;
    beside.as_file().set_permissions(is.permissions())?;
    fchown(beside.as_file(), Some(is.uid()), Some(is.gid()))?;
    beside.as_file().sync_all()?;
    beside.persist(&path).map_err(|failed| failed.error)?;
    Ok(())
}
