//! The verbs on network ports as libvirt's XML has them: ask the daemon, say it in virsh's words.

use std::path::Path;

use netd_api::{Client, ClientError, Network, Port};
use serde_json::json;
use uuid::Uuid;

use super::{
    Output,
    args::{NetPortArg, NetPortCreateArgs, NetPortDumpxmlArgs, NetPortListArgs},
    connect::{connect, connect_to_read, read_file},
    failure::{About, Failure},
    net,
    table::table,
};
use crate::{
    model::Forward,
    port::xml::{self, ShownPlug, ShownPort, WantedPort},
};

/// `net-port-list`.
pub(super) async fn list(socket: &Path, args: &NetPortListArgs) -> Result<Output, Failure> {
    let name = args.network.name();
    let failed = |e| Failure::client(format!("Failed to list network ports of {name}"), About::Network(name), &e);
    if args.uuid && args.table {
        return Err(Failure::new("Options --uuid and --table are mutually exclusive"));
    }
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let uuids: Vec<String> =
        ports(&mut client, name).await.map_err(failed)?.into_iter().map(|(uuid, _)| uuid).collect();
    if args.uuid {
        let text = uuids.iter().map(|uuid| format!("{uuid}\n")).collect();
        return Ok(Output::new(text, json!(uuids)));
    }
    let rows: Vec<[String; 1]> = uuids.iter().map(|uuid| [uuid.clone()]).collect();
    Ok(Output::table(table(["UUID"], &rows), json!(uuids)))
}

/// `net-port-dumpxml`.
pub(super) async fn dumpxml(socket: &Path, args: &NetPortDumpxmlArgs) -> Result<Output, Failure> {
    let name = args.port.network();
    let failed = |e| Failure::client("", About::Network(name), &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let (uuid, port) = find(&mut client, &args.port).await?;
    let network = client.get_network(name).await.map_err(failed)?.network;
    let infos = client.get_ports(&port.interface).await.map_err(failed)?.ports;
    let direct = infos.iter().find_map(|info| info.macvtap.as_deref());
    let mode = match direct {
        Some(_) => {
            let text = client.dump_xml(name, false).await.map_err(failed)?.xml;
            match crate::xml::parse(&text).map(|network| network.forward) {
                Ok(Forward::Macvtap(macvtap)) => Some(macvtap.mode.name()),
                _ => None,
            }
        }
        None => None,
    };
    let shown = ShownPort {
        uuid: uuid.parse().unwrap_or_default(),
        guest: port.guest.as_deref(),
        mac: &port.mac,
        isolated: infos.iter().any(|info| info.isolated),
        plug: match direct {
            Some(dev) => ShownPlug::Direct { dev, mode },
            None => ShownPlug::Network(network.bridge.as_deref().unwrap_or_default()),
        },
    };
    net::part(xml::write(&shown), &args.part)
}

/// `net-port-create`: a tap that stays until it is deleted, to be opened by its name.
pub(super) async fn create(socket: &Path, args: &NetPortCreateArgs) -> Result<Output, Failure> {
    let (name, path) = (args.network.name(), args.path());
    let first = format!("Failed to create network port from {}", path.display());
    let failed = |e| Failure::client(first.clone(), About::Network(name), &e);
    let wanted = xml::parse(&read_file(&path)?).map_err(|why| Failure::new(first.clone()).because(why))?;
    let mut client = connect(socket).await.map_err(failed)?;
    let network = client.get_network(name).await.map_err(failed)?.network;
    check(&wanted, &network).map_err(|why| Failure::new(first.clone()).because(why))?;
    let mac = wanted.mac.map(|mac| mac.to_string());
    let port = client.create_port(name, wanted.guest, mac).await.map_err(failed)?.port;
    let uuid = identity(&network, &port);
    let text = format!("Network port {uuid} created from {}\n", path.display());
    let notice = format!("its tap is {}: a program opens it by that name, with one queue", port.interface);
    Ok(Output::done(text, json!({ "uuid": uuid, "port": port })).with_notices(vec![notice]))
}

/// `net-port-delete`.
pub(super) async fn delete(socket: &Path, args: &NetPortArg) -> Result<Output, Failure> {
    let failed = |e| Failure::client("Failed to delete network port", About::Network(args.network()), &e);
    let mut client = connect(socket).await.map_err(failed)?;
    let (uuid, port) = find(&mut client, args).await?;
    let port = client.delete_port(&port.interface).await.map_err(failed)?.port;
    Ok(Output::done(format!("Network port {uuid} deleted\n"), json!({ "uuid": uuid, "port": port })))
}

/// What was asked for in words that only describe.
fn check(wanted: &WantedPort, network: &Network) -> Result<(), String> {
    let bridge = network.bridge.as_deref().unwrap_or_default();
    if let Some(other) = wanted.bridge.as_deref().filter(|wanted| *wanted != bridge) {
        return Err(format!("invalid argument: the bridge of network '{}' is {bridge}, not {other}", network.name));
    }
    let follows = |mac| Some(xml::uuid(network.uuid.parse().ok()?, mac));
    match (wanted.uuid, wanted.mac) {
        (Some(uuid), Some(mac)) if follows(mac) == Some(uuid) => Ok(()),
        (Some(_), _) => {
            Err("invalid argument: a port's UUID follows from its network and its MAC: leave <uuid> out".into())
        }
        (None, _) => Ok(()),
    }
}

async fn ports(client: &mut Client, network: &str) -> Result<Vec<(String, Port)>, ClientError> {
    let network = client.get_network(network).await?.network;
    let ports = client.list_ports(Some(network.name.clone())).await?.ports;
    Ok(ports.into_iter().map(|port| (identity(&network, &port), port)).collect())
}

/// The port of this UUID, or interface name.
async fn find(client: &mut Client, args: &NetPortArg) -> Result<(String, Port), Failure> {
    let failed = |e| Failure::client("", About::Network(args.network()), &e);
    let ports = ports(client, args.network()).await.map_err(failed)?;
    let key = args.port();
    ports.into_iter().find(|(uuid, port)| uuid.eq_ignore_ascii_case(key) || port.interface == key).ok_or_else(|| {
        let network = args.network();
        Failure::new(format!("failed to get network port '{key}'")).because(format!(
            "network port not found: Network port with UUID {key} does not exist in network '{network}'"
        ))
    })
}

fn identity(network: &Network, port: &Port) -> String {
    let uuid = network.uuid.parse::<Uuid>().ok().zip(port.mac.parse().ok());
    uuid.map(|(network, mac)| xml::uuid(network, mac).to_string()).unwrap_or_default()
}
