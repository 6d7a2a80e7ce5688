//! Events: which client asked for which, and from what netd tells to what they are sent.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::{Rc, Weak},
    time::Duration,
};

use netd_api::{ClientError, Event, EventKind, Monitor, Told};
use uuid::Uuid;

use crate::{
    error::{Code, RemoteError},
    frame::Header,
    metadata,
    netd::Netd,
    procedure::{NETWORK_EVENT_LIFECYCLE, NETWORK_EVENT_METADATA},
    session::Session,
    wire::NetworkRef,
    xdr::Writer,
};

/// Most callbacks of one client.
const MOST_CALLBACKS: usize = 256;

/// Between two tries to hear netd again.
const PAUSE: Duration = Duration::from_secs(1);

/// The kinds of network events (libvirt's `virNetworkEventID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkEvent {
    /// Defined, undefined, started, stopped.
    Lifecycle,
    /// Title, description or an element of metadata is another.
    Metadata,
}

impl NetworkEvent {
    /// By libvirt's number.
    pub(crate) fn of(number: i32) -> Result<Self, RemoteError> {
        match number {
            0 => Ok(NetworkEvent::Lifecycle),
            1 => Ok(NetworkEvent::Metadata),
            _ => Err(RemoteError::network(
                Code::Internal,
                format!("internal error: unsupported network event ID {number}"),
            )),
        }
    }
}

/// The events that one client asked for, by the numbers it was given for them.
#[derive(Debug, Default)]
pub(crate) struct Callbacks {
    last: i32,
    asked: BTreeMap<i32, Callback>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Callback {
    event: NetworkEvent,
    /// Of one network only.
    network: Option<Uuid>,
}

impl Callbacks {
    /// Notes that the client wants to hear this; gives the number it will hear it by.
    pub(crate) fn add(&mut self, event: NetworkEvent, network: Option<Uuid>) -> Result<i32, RemoteError> {
        if self.asked.len() >= MOST_CALLBACKS {
            let message = format!("operation failed: a connection has {MOST_CALLBACKS} event callbacks at most");
            return Err(RemoteError::network(Code::OperationFailed, message));
        }
        let id = self.last;
        self.last = self.last.wrapping_add(1).max(0);
        self.asked.insert(id, Callback { event, network });
        Ok(id)
    }

    /// The client does not want to hear it any more.
    pub(crate) fn remove(&mut self, id: i32) -> Result<(), RemoteError> {
        match self.asked.remove(&id) {
            Some(_) => Ok(()),
            None => {
                let message = format!("internal error: network event callback {id} not registered");
                Err(RemoteError::network(Code::Internal, message))
            }
        }
    }

    /// The connection is closed: nothing more.
    pub(crate) fn clear(&mut self) {
        self.asked.clear();
    }

    fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The numbers under which the client wants to hear it.
    fn wanting(&self, event: NetworkEvent, network: Uuid) -> impl Iterator<Item = i32> {
        let wants =
            move |callback: &Callback| callback.event == event && callback.network.is_none_or(|of| of == network);
        self.asked.iter().filter(move |(_, callback)| wants(callback)).map(|(id, _)| *id)
    }
}

/// libvirt's number for what happened in a network's life.
fn lifecycle(kind: EventKind) -> Option<i32> {
    match kind {
        EventKind::Defined => Some(0),
        EventKind::Undefined => Some(1),
        EventKind::Started => Some(2),
        EventKind::Stopped => Some(3),
        _ => None,
    }
}

/// The frames that a client is sent when this happens.
fn frames(callbacks: &Callbacks, event: &Event) -> Vec<Vec<u8>> {
    let (Some(name), Some(uuid)) = (&event.network, event.uuid.as_deref().and_then(|uuid| uuid.parse().ok())) else {
        return Vec::new();
    };
    let network = NetworkRef { name, uuid };
    let mut detail = Writer::default();
    let (kind, message) = match (lifecycle(event.kind), event.kind) {
        (Some(number), _) => {
            detail.i32(number).i32(0);
            (NetworkEvent::Lifecycle, NETWORK_EVENT_LIFECYCLE)
        }
        (None, EventKind::MetadataChanged) => {
            let part = event.detail.as_deref().unwrap_or_default();
            detail.i32(metadata::number(part)).optional_string(event.uri.as_deref());
            (NetworkEvent::Metadata, NETWORK_EVENT_METADATA)
        }
        (None, _) => return Vec::new(),
    };
    let detail = detail.finish();
    let frame = |callback| {
        let mut payload = Writer::default();
        payload.i32(callback);
        network.write(&mut payload);
        Header::event(message).with(&[payload.finish(), detail.clone()].concat())
    };
    callbacks.wanting(kind, uuid).map(frame).collect()
}

/// Who listens. While somebody does, there is one connection to netd that hears.
#[derive(Debug, Default)]
pub(crate) struct Events {
    sessions: RefCell<Vec<Weak<Session>>>,
    heard: Cell<bool>,
}

impl Events {
    /// Registers a client's wish. When this is done the client hears of all that happens from then on; it must be told
    /// its number before anything else is done.
    pub(crate) async fn register(
        self: &Rc<Self>,
        netd: &Rc<Netd>,
        session: &Rc<Session>,
        event: NetworkEvent,
        network: Option<Uuid>,
    ) -> Result<i32, RemoteError> {
        if !self.heard.get() {
            let monitor = netd.monitor().await?;
            // Another client may have been faster.
            if !self.heard.replace(true) {
                tokio::task::spawn_local(Rc::clone(self).pass_on(Rc::clone(netd), monitor));
            }
        }
        let first = session.callbacks.borrow().is_empty();
        let id = session.callbacks.borrow_mut().add(event, network)?;
        let mut sessions = self.sessions.borrow_mut();
        if first && !sessions.iter().any(|known| known.as_ptr() == Rc::as_ptr(session)) {
            sessions.push(Rc::downgrade(session));
        }
        Ok(id)
    }

    /// Those who still listen.
    fn listeners(&self) -> Vec<Rc<Session>> {
        let mut sessions = self.sessions.borrow_mut();
        let listening = |session: &Weak<Session>| session.upgrade().filter(|s| !s.callbacks.borrow().is_empty());
        let listeners: Vec<_> = sessions.iter().filter_map(listening).collect();
        sessions.retain(|session| listening(session).is_some());
        listeners
    }

    async fn pass_on(self: Rc<Self>, netd: Rc<Netd>, mut monitor: Monitor) {
        loop {
            match monitor.next().await {
                Ok(told) => {
                    let listeners = self.listeners();
                    if listeners.is_empty() {
                        break;
                    }
                    pass(&listeners, &told);
                }
                Err(error) => match self.again(&netd, error).await {
                    Some(new) => monitor = new,
                    None => break,
                },
            }
        }
        self.heard.set(false);
    }

    /// netd is restarted: no network is, but for a moment nobody says what happens.
    async fn again(&self, netd: &Netd, mut error: ClientError) -> Option<Monitor> {
        while !self.listeners().is_empty() {
            tracing::warn!("no events for now: {error}");
            tokio::time::sleep(PAUSE).await;
            match netd.monitor().await {
                Ok(monitor) => return Some(monitor),
                Err(failed) => error = failed,
            }
        }
        None
    }
}

fn pass(listeners: &[Rc<Session>], told: &Told) {
    if told.missed > 0 {
        tracing::warn!("{} events came faster than they were passed on, and are lost", told.missed);
    }
    let Some(event) = &told.event else { return };
    for session in listeners {
        for frame in frames(&session.callbacks.borrow(), event) {
            session.outgoing.event(frame);
        }
    }
}

#[cfg(test)]
mod tests;
