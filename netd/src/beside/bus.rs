//! EDGE: the system's D-Bus: who of the programs we tell something is there, comes, goes or reloads.
//!
//! A program counts only if it works in this process's network namespace: a daemon in another one (a container, a test)
//! would talk of interfaces that the program does not see, or takes for others.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use futures_util::StreamExt;
use netd_api::EventKind;
use zbus::{Connection, fdo::DBusProxy};

use super::{Wish, firewalld, resolved};
use crate::{
    apply::Kernel,
    events::{Heard, Listener},
    observe::Netlink,
    verbs::Verbs,
};

/// A host without a bus, or whose bus restarts, is looked at again after this time.
const PAUSE: Duration = Duration::from_secs(5);

/// Keeps the others informed for as long as anything happens.
pub(crate) async fn keep(mut listener: Listener, verbs: Arc<Verbs<Kernel>>) {
    loop {
        match Connection::system().await {
            Ok(connection) => {
                if let Err(error) = tend(&connection, &mut listener, &verbs).await {
                    tracing::debug!("the connection to D-Bus ended: {error}");
                }
            }
            Err(error) => tracing::debug!("no D-Bus: {error}"),
        }
        // What happens meanwhile is looked at as a whole.
        while listener.waiting().is_some() {}
        tokio::time::sleep(PAUSE).await;
    }
}

async fn tend(connection: &Connection, listener: &mut Listener, verbs: &Verbs<Kernel>) -> zbus::Result<()> {
    let bus = DBusProxy::new(connection).await?;
    let mut resolved_moves = bus.receive_name_owner_changed_with_args(&[(0, resolved::NAME)]).await?;
    let mut firewalld_moves = bus.receive_name_owner_changed_with_args(&[(0, firewalld::NAME)]).await?;
    let firewall = firewalld::FirewallProxy::new(connection).await?;
    let mut reloads = firewall.receive_reloaded().await?;
    let netlink = Netlink::open().map_err(|error| zbus::Error::Failure(error.to_string()))?;
    let mut told = (resolved::Told::default(), firewalld::Told::default());
    loop {
        if let Err(error) = tell(connection, &bus, &netlink, &verbs.wishes(), &mut told).await {
            if connection.is_closed() {
                return Err(error);
            }
            tracing::warn!("cannot tell the host's other programs of networks: {error}");
        }
        tokio::select! {
            moved = resolved_moves.next() => match moved {
                Some(_) => told.0.forget(),
                None => return Ok(()),
            },
            moved = firewalld_moves.next() => match moved {
                Some(_) => told.1.forget(),
                None => return Ok(()),
            },
            reloaded = reloads.next() => {
                if reloaded.is_none() {
                    return Ok(());
                }
                told.1.forget();
                if let Err(error) = verbs.reconcile().await {
                    tracing::error!("{error}");
                }
            }
            () = changed(listener) => {}
        }
    }
}

/// Waits until a network is another one.
async fn changed(listener: &mut Listener) {
    loop {
        match listener.next().await {
            Some(Heard::Missed(_)) => return,
            Some(Heard::Event(event)) => {
                use EventKind::{Healed, Started, Stopped, Updated};
                if matches!(event.kind, Started | Stopped | Updated | Healed) {
                    return;
                }
            }
            // The daemon ends; this task with it.
            None => std::future::pending().await,
        }
    }
}

async fn tell(
    connection: &Connection,
    bus: &DBusProxy<'_>,
    netlink: &Netlink,
    wishes: &[Wish],
    told: &mut (resolved::Told, firewalld::Told),
) -> zbus::Result<()> {
    if is_here(bus, resolved::NAME).await {
        let links = netlink.links().await.map_err(|error| zbus::Error::Failure(error.to_string()))?;
        let index = |name: &str| links.iter().find(|link| link.name == name).map(|link| link.index);
        let exists = |index: u32| links.iter().any(|link| link.index == index);
        told.0.tell(connection, wishes, index, exists).await?;
    }
    if is_here(bus, firewalld::NAME).await {
        told.1.tell(connection, wishes).await?;
    }
    Ok(())
}

/// Whether somebody has the name, without starting anybody, and works where we do.
async fn is_here(bus: &DBusProxy<'_>, name: &'static str) -> bool {
    let Ok(name) = zbus::names::BusName::try_from(name) else { return false };
    let Ok(pid) = bus.get_connection_unix_process_id(name).await else { return false };
    let namespace =
        |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|found| (found.dev(), found.ino()));
    match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(there), Ok(here)) => there == here,
        _ => false,
    }
}
