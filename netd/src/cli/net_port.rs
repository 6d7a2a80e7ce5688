//! Network ports as libvirt's XML has them: ask the daemon, say it in virsh's words.

use std::path::Path;

use netd_api::{Client, NetworkPort};
use serde_json::json;

use super::{
    Output,
    args::{NetPortArg, NetPortCreateArgs, NetPortDumpxmlArgs, NetPortListArgs},
    connect::{connect, connect_to_read, read_file},
    failure::{About, Failure},
    net,
    table::table,
};

/// `net-port-list`.
pub(super) async fn list(socket: &Path, args: &NetPortListArgs) -> Result<Output, Failure> {
    let name = args.network.name();
    let failed = |e| Failure::client(format!("Failed to list network ports of {name}"), About::Network(name), &e);
    if args.uuid && args.table {
        return Err(Failure::new("Options --uuid and --table are mutually exclusive"));
    }
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let ports = client.list_network_ports(name).await.map_err(failed)?.ports;
    let uuids: Vec<String> = ports.into_iter().map(|port| port.uuid).collect();
    if args.uuid {
        let text = uuids.iter().map(|uuid| format!("{uuid}\n")).collect();
        return Ok(Output::new(text, json!(uuids)));
    }
    let rows: Vec<[String; 1]> = uuids.iter().map(|uuid| [uuid.clone()]).collect();
    Ok(Output::table(table(["UUID"], &rows), json!(uuids)))
}

/// `net-port-dumpxml`.
pub(super) async fn dumpxml(socket: &Path, args: &NetPortDumpxmlArgs) -> Result<Output, Failure> {
    let failed = |e| Failure::client("", About::Network(args.port.network()), &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    net::part(find(&mut client, &args.port).await?.xml, &args.part)
}

/// `net-port-create`: a tap that stays until it is deleted, to be opened by its name.
pub(super) async fn create(socket: &Path, args: &NetPortCreateArgs) -> Result<Output, Failure> {
    let (name, path) = (args.network.name(), args.path());
    let first = format!("Failed to create network port from {}", path.display());
    let failed = |e| Failure::client(first.clone(), About::Network(name), &e);
    let xml = read_file(&path)?;
    let mut client = connect(socket).await.map_err(failed)?;
    let NetworkPort { uuid, port, .. } = client.create_network_port(name, xml).await.map_err(failed)?.port;
    let text = format!("Network port {uuid} created from {}\n", path.display());
    let notice = format!("its tap is {}: a program opens it by that name, with one queue", port.interface);
    Ok(Output::done(text, json!({ "uuid": uuid, "port": port })).with_notices(vec![notice]))
}

/// `net-port-delete`.
pub(super) async fn delete(socket: &Path, args: &NetPortArg) -> Result<Output, Failure> {
    let failed = |e| Failure::client("Failed to delete network port", About::Network(args.network()), &e);
    let mut client = connect(socket).await.map_err(failed)?;
    let NetworkPort { uuid, port, .. } = find(&mut client, args).await?;
    let port = client.delete_port(&port.interface).await.map_err(failed)?.port;
    Ok(Output::done(format!("Network port {uuid} deleted\n"), json!({ "uuid": uuid, "port": port })))
}

/// The port of this UUID, or interface name.
async fn find(client: &mut Client, args: &NetPortArg) -> Result<NetworkPort, Failure> {
    let failed = |e| Failure::client("", About::Network(args.network()), &e);
    let ports = client.list_network_ports(args.network()).await.map_err(failed)?.ports;
    let key = args.port();
    ports.into_iter().find(|port| port.uuid.eq_ignore_ascii_case(key) || port.port.interface == key).ok_or_else(|| {
        let network = args.network();
        Failure::new(format!("failed to get network port '{key}'")).because(format!(
            "network port not found: Network port with UUID {key} does not exist in network '{network}'"
        ))
    })
}
