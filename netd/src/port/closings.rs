//! EDGE: tells when a file that was opened by one of the watched nodes is closed for good, by inotify.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{Stream, StreamExt};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};

/// The nodes that are watched, each for a port.
#[derive(Clone, Debug)]
pub struct Closings {
    watches: Watches,
    ports: Arc<Mutex<HashMap<WatchDescriptor, u32>>>,
}

impl Closings {
    /// Nothing is watched yet. The stream gives the index of a port whenever a file opened by its node was closed; it
    /// must be polled inside a tokio runtime.
    pub fn new() -> io::Result<(Self, impl Stream<Item = u32> + Send + Unpin)> {
        let inotify = Inotify::init()?;
        let closings = Closings { watches: inotify.watches(), ports: Arc::default() };
        let ports = Arc::clone(&closings.ports);
        let events = inotify.into_event_stream(vec![0; 4096])?;
        let stream = events.filter_map(move |event| {
            let port = match event {
                Ok(event) => {
                    let mut ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
                    // The node was removed, and the watch with it.
                    let gone = event.mask.contains(EventMask::IGNORED);
                    if gone { ports.remove(&event.wd) } else { ports.get(&event.wd).copied() }
                }
                Err(error) => {
                    tracing::error!("cannot follow the owners of macvtap devices: {error}");
                    None
                }
            };
            std::future::ready(port)
        });
        Ok((closings, Box::pin(stream)))
    }

    /// Watches the node of the port with this index. Fine if it is watched already.
    pub fn watch(&self, node: &Path, port: u32) -> io::Result<()> {
        let mut watches = self.watches.clone();
        // Held while the watch is made: its first event finds the port.
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = watches.add(node, WatchMask::CLOSE_WRITE)?;
        ports.insert(descriptor, port);
        Ok(())
    }
}
