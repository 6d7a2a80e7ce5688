//! EDGE: one packet socket per bridge and the clock, for the table of addresses as seen.
//!
//! A bridge that goes is waited for, and listened on again when it is back under its name. However much guests say,
//! it is read in small helpings with a pause behind each: what is too much is lost in the kernel, and the daemon has
//! time for other things.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
};

use super::{Seen, Sighting, frame, table::Table};
use crate::{
    events::{Bus, address_seen},
    model::MacAddr,
    packet::{self, Hear},
};

/// Longer than any frame that is looked at; the rest of a longer one is cut off.
const FRAME: usize = 2048;

/// Frames read before the next pause.
const HELPING: usize = 64;

/// So at most 6,400 frames a second and bridge are looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two looks for a bridge that is not there.
const RETRY: Duration = Duration::from_millis(200);

/// Listens on the bridges of active networks.
#[derive(Debug)]
pub struct Snoop {
    table: Arc<Mutex<Table>>,
    /// By network: its bridge and the task that listens there.
    listeners: Mutex<HashMap<String, (String, AbortHandle)>>,
    events: Bus,
}

impl Snoop {
    /// Nothing is listened to yet. An address that a port has from then on and had not before is told to `events`.
    pub fn new(events: Bus) -> Self {
        Snoop { table: Arc::default(), listeners: Mutex::default(), events }
    }

    /// Listens for these networks, each on its bridge, and for no others. Needs a tokio runtime.
    pub fn listen(&self, networks: &[(String, String)]) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|network, (bridge, task)| {
            let stays = networks.iter().any(|(name, on)| name == network && on == bridge);
            if !stays {
                task.abort();
            }
            stays
        });
        for (network, bridge) in networks {
            listeners.entry(network.clone()).or_insert_with(|| {
                let task = follow(network.clone(), bridge.clone(), self.table.clone(), self.events.clone());
                (bridge.clone(), tokio::spawn(task).abort_handle())
            });
        }
    }

    /// The ports of a network are those with these MACs.
    pub fn set_ports(&self, network: &str, macs: &[MacAddr]) {
        lock(&self.table).set_ports(network, macs);
    }

    /// A port had this address so long ago, as the kernel remembers.
    pub fn recall(&self, network: &str, mac: MacAddr, address: IpAddr, age: Duration) {
        let now = Instant::now();
        // As old as the machine, if it is older.
        let then = now.checked_sub(age).unwrap_or(now);
        lock(&self.table).recall(network, mac, address, then);
    }

    /// The addresses of the port with this MAC, the last seen first.
    pub fn seen(&self, mac: MacAddr) -> Vec<Seen> {
        lock(&self.table).of(mac, Instant::now())
    }
}

impl Drop for Snoop {
    fn drop(&mut self) {
        for (_, task) in self.listeners.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            task.abort();
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // A table whose last change panicked holds addresses that may be stale, which is what they are anyway.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(network: String, bridge: String, table: Arc<Mutex<Table>>, events: Bus) {
    loop {
        let ended = match packet::open(&bridge, Hear::Addresses) {
            Ok(socket) => hear(&network, socket, &table, &events).await,
            Err(cause) => cause,
        };
        tracing::debug!("network {network}: addresses on bridge {bridge} are not seen now: {ended}");
        tokio::time::sleep(RETRY).await;
    }
}

/// Listens until the socket is of no use any more.
async fn hear(network: &str, socket: OwnedFd, table: &Mutex<Table>, events: &Bus) -> io::Error {
    // Errors too: that is how the bridge's end is told.
    let interest = Interest::READABLE | Interest::ERROR;
    // SAFETY: an OwnedFd names one descriptor all its life and closes it only when dropped, which AsyncFd sees to.
    let socket = match unsafe { AsyncFd::register_with_interest(socket, interest) } {
        Ok(socket) => socket,
        Err(cause) => return cause.into(),
    };
    let mut buffer = [0; FRAME];
    loop {
        let mut guard = match socket.ready(interest).await {
            Ok(guard) => guard,
            Err(cause) => return cause,
        };
        for _ in 0..HELPING {
            match guard.try_io(|socket| packet::receive(socket.as_fd(), &mut buffer)) {
                Ok(Ok(received)) => {
                    let Some(word) = frame::read(&buffer[..received.len]) else { continue };
                    let sighting = lock(table).hear(network, word, Instant::now());
                    if let Some(Sighting { mac, address, .. }) = sighting {
                        tracing::debug!("network {network}: {mac} is at {address}");
                        events.tell(address_seen(network, mac, address));
                    }
                }
                Ok(Err(cause)) => return cause,
                Err(_would_block) => break,
            }
        }
        drop(guard);
        tokio::time::sleep(PAUSE).await;
    }
}
