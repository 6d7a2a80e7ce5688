//! EDGE: where events are handed out, with the time on the wall clock. It decides nothing and waits for nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use netd_api::{Event, EventKind};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::port;
use crate::port::Port;

/// So many events wait for a listener; the oldest give way to more.
const WAITING: usize = 1024;

/// The one place where events are handed out. A clone is another handle on it.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listeners: broadcast::Sender<Arc<Event>>,
    /// By MAC: the port and the guest, which DHCP does not know.
    ports: Mutex<HashMap<String, (String, Option<String>)>>,
}

/// Hears what happens from its making on.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Arc<Event>>);

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This happened.
    Event(Arc<Event>),
    /// It listened too slowly and so many events are lost to it.
    Missed(u64),
}

impl Default for Bus {
    fn default() -> Self {
        Bus(Arc::new(Inner { listeners: broadcast::Sender::new(WAITING), ports: Mutex::default() }))
    }
}

impl Bus {
    /// Hears everything from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.listeners.subscribe())
    }

    /// Tells everyone who listens. Never waits.
    pub fn tell(&self, mut event: Event) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        event.time = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        if let Some(mac) = event.mac.as_ref().filter(|_| event.interface.is_none())
            && let Some((interface, guest)) = self.ports().get(mac)
        {
            event.interface = Some(interface.clone());
            event.guest.clone_from(guest);
        }
        // Nobody listens: nobody is told.
        let _ = self.0.listeners.send(Arc::new(event));
    }

    /// Whose MAC this is from now on.
    pub fn know_port(&self, port: &Port) {
        self.ports().insert(port.mac.to_string(), (port.interface.clone(), port.guest.clone()));
    }

    /// A port was plugged in.
    pub fn port_up(&self, added: &Port) {
        self.know_port(added);
        self.tell(port(added, EventKind::PortUp));
    }

    /// A port is gone.
    pub fn port_down(&self, gone: &Port) {
        self.ports().remove(&gone.mac.to_string());
        self.tell(port(gone, EventKind::PortDown));
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<String, (String, Option<String>)>> {
        // Changed by single insertions and removals, so never half changed.
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// What happened next; `None` when nothing can happen any more. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// What has happened already and was not heard yet.
    pub fn waiting(&mut self) -> Option<Heard> {
        match self.0.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
