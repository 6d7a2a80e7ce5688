//! EDGE: looks at devices, procfs, directories, the daemon and the definitions for the doctor; never changes anything.

mod host;
mod listeners;
mod programs;

use std::{io, path::Path, time::Duration};

use netd_api::{Client, ClientError};
use tokio::time::timeout;

use crate::{
    daemon::Options,
    observe::Netlink,
    store::{Phase, Store},
    xml,
};

pub(crate) use programs::{legacy_counters, legacy_tables, rules};

use super::facts::{Daemon, Device, Facts, Known, Seen, Unseen, Vcpu};

/// The daemon answers within milliseconds; one that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything there is to see. `options` are the daemon's; `client` is what connecting to `socket` came to.
pub(crate) async fn look(options: &Options, socket: &Path, client: Result<Client, ClientError>) -> Facts {
    let (daemon, told) = match client {
        Err(error) => (unreachable(socket, &error), None),
        Ok(mut client) => match timeout(PATIENCE, ask(&mut client)).await {
            Ok(Ok(networks)) => (Daemon::Answers(socket.to_owned()), Some(networks)),
            Ok(Err(why)) => (Daemon::Broken(socket.to_owned(), why), None),
            Err(_) => (Daemon::Broken(socket.to_owned(), format!("no answer in {} s", PATIENCE.as_secs())), None),
        },
    };
    let networks = told.map_or_else(|| definitions(options), Ok);
    let kvm = host::device("/dev/kvm");
    let vcpu = if kvm == Device::Open { programs::vmm_probe().await } else { Vcpu::NoKvm };
    let state = match Netlink::open() {
        Ok(netlink) => netlink.observe().await.map_err(|e| Unseen::Failed(e.to_string())),
        Err(error) => Err(Unseen::Failed(error.to_string())),
    };
    Facts {
        root: nix::unistd::geteuid().is_root(),
        vhost_net: host::device("/dev/vhost-net"),
        tun: host::device("/dev/net/tun"),
        vcpu,
        kvm,
        modules: host::modules(),
        capabilities: host::read("/proc/self/status"),
        nft: programs::nft_takes_our_rules().await,
        ip_forward: host::read("/proc/sys/net/ipv4/ip_forward").map(|text| text.trim() != "0"),
        rp_filter: host::rp_filter(),
        bridge_netfilter: host::bridge_netfilter(),
        rules: programs::rules().await,
        listeners: listeners::listeners(),
        host: state,
        networks,
        resolvers: host::resolvers(&options.resolv_conf),
        daemon,
        directories: [
            ("definitions", &options.config_dir),
            ("leases", &options.state_dir),
            ("sockets and what is active", &options.runtime_dir),
        ]
        .map(|(role, path)| host::directory(role, path))
        .into(),
        room: host::room(&options.state_dir),
    }
}

fn unreachable(socket: &Path, error: &ClientError) -> Daemon {
    let socket = socket.to_owned();
    match error {
        ClientError::Connect { cause: zlink::Error::Io(cause), .. } => match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Daemon::Absent(socket),
            io::ErrorKind::PermissionDenied => Daemon::Forbidden(socket),
            _ => Daemon::Broken(socket, cause.to_string()),
        },
        other => Daemon::Broken(socket, other.to_string()),
    }
}

/// Every network, from the daemon.
async fn ask(client: &mut Client) -> Result<Vec<Known>, String> {
    let said = |error: ClientError| error.to_string();
    let mut networks = Vec::new();
    for listed in client.list_networks().await.map_err(said)?.networks {
        let xml = match client.dump_xml(&listed.name, false).await {
            Ok(reply) => reply.xml,
            // It ended while we asked.
            Err(ClientError::Refused(_)) => continue,
            Err(error) => return Err(said(error)),
        };
        let network =
            xml::parse(&xml).map_err(|e| format!("network '{}' is told in words we do not know: {e}", listed.name))?;
        networks.push(Known { network, active: Some(listed.active) });
    }
    Ok(networks)
}

/// Every network, from the files of a daemon that does not run. What it started may be active all the same.
fn definitions(options: &Options) -> Seen<Vec<Known>> {
    let store = Store::at(&options.config_dir, &options.runtime_dir);
    let found = match store.load_definitions() {
        Ok(found) => found,
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unseen(&error.cause, &error)),
    };
    let active: Option<Vec<String>> = match store.load_records() {
        Ok((records, _)) => {
            Some(records.into_iter().filter(|record| record.phase == Phase::Active).map(|record| record.name).collect())
        }
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    };
    let mut networks = Vec::new();
    for definition in found {
        let text = definition.text.map_err(|error| unseen(&error.cause, &error))?;
        let network = xml::parse(&text).map_err(|e| Unseen::Failed(format!("{}: {e}", definition.path.display())))?;
        let active = active.as_ref().map(|names| names.iter().any(|name| name == network.name.as_str()));
        networks.push(Known { network, active });
    }
    Ok(networks)
}

/// What the file system said, in words.
fn unseen(cause: &io::Error, whole: &dyn std::fmt::Display) -> Unseen {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => Unseen::Forbidden,
        _ => Unseen::Failed(whole.to_string()),
    }
}
