//! EDGE: the sockets of one network's DNS, the clock, and the watch on resolv.conf.
//!
//! Bytes come in, the resolver decides, bytes go out; nothing is decided here but who may talk to us at all: packets
//! that came in through the network's bridge, and the host itself.

mod udp;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{sync::watch, task::JoinSet};

use self::udp::Listener;
use super::{
    Error, Names,
    wire::{Query, emit_error, emit_local, emit_refusal, rcode},
    zone::{Verdict, Zone},
};
use crate::config::DnsConfig;

/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
const PORT: u16 = 53;

/// A running service.
#[derive(Debug)]
pub(super) struct Service {
    port: u16,
    tasks: JoinSet<()>,
}

impl Service {
    pub(super) async fn start(
        config: DnsConfig,
        bridge: &str,
        names: watch::Receiver<Arc<Names>>,
    ) -> Result<Service, Error> {
        let door = Arc::new(Door::new(bridge)?);
        if config.listen.is_empty() {
            return Err(Error::NoAddress { bridge: bridge.to_owned() });
        }
        let zone = Arc::new(Mutex::new(Zone::new(&config, &names.borrow())));
        let mut tasks = JoinSet::new();
        let mut port = PORT;
        for &address in &config.listen {
            let address = SocketAddr::new(address, port);
            let fail = |source| Error::Socket { bridge: bridge.to_owned(), step: "listen for UDP", address, source };
            let listener = Listener::bind(address).map_err(fail)?;
            port = listener.port().map_err(fail)?;
            tasks.spawn(serve_udp(listener, door.clone(), zone.clone()));
        }
        let config = config.clone();
        let mut names = names;
        tasks.spawn(async move {
            while names.changed().await.is_ok() {
                let fresh = Zone::new(&config, &names.borrow_and_update());
                *zone.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
            }
        });
        Ok(Service { port, tasks })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve_udp(listener: Listener, door: Arc<Door>, zone: Arc<Mutex<Zone>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, origin)) = listener.receive(&mut buffer).await else { continue };
        if !door.admits(origin.interface) {
            continue;
        }
        let reply = match Query::parse(&buffer[..length]) {
            Err(refusal) => emit_refusal(&refusal),
            Ok(query) => {
                let limit = query.udp_limit();
                let verdict = zone.lock().unwrap_or_else(std::sync::PoisonError::into_inner).lookup(&query);
                Some(match verdict {
                    Verdict::Answer { records, zone } => {
                        emit_local(&query, true, rcode::NOERROR, &records, &zone, limit)
                    }
                    Verdict::NoData { zone } => emit_local(&query, true, rcode::NOERROR, &[], &zone, limit),
                    Verdict::NoName { zone } => emit_local(&query, true, rcode::NXDOMAIN, &[], &zone, limit),
                    Verdict::Refused => emit_error(&query, true, rcode::REFUSED, None),
                    Verdict::NotImplemented => emit_error(&query, true, rcode::NOTIMP, None),
                    Verdict::Forward => emit_error(&query, true, rcode::SERVFAIL, None),
                })
            }
        };
        if let Some(reply) = reply {
            let _ = listener.send(&reply, origin);
        }
    }
}

/// Who may talk to us.
#[derive(Debug)]
pub(super) struct Door {
    bridge: String,
    index: AtomicU32,
}

impl Door {
    fn new(bridge: &str) -> Result<Door, Error> {
        let index = nix::net::if_::if_nametoindex(bridge)
            .map_err(|errno| Error::NoBridge { bridge: bridge.to_owned(), source: io::Error::from(errno) })?;
        Ok(Door { bridge: bridge.to_owned(), index: AtomicU32::new(index) })
    }

    /// Whether what came in by this interface is for us. The bridge may have been made anew since we last looked.
    fn admits(&self, interface: u32) -> bool {
        if interface == LOOPBACK || interface == self.index.load(Ordering::Relaxed) {
            return true;
        }
        match nix::net::if_::if_nametoindex(self.bridge.as_str()) {
            Ok(index) => {
                self.index.store(index, Ordering::Relaxed);
                interface == index
            }
            Err(_) => false,
        }
    }
}
