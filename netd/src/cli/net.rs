//! The verbs on networks: ask the daemon, say it in virsh's words.

use std::path::Path;

use netd_api::{NetworkReply, Networks};
use serde_json::json;

use super::{
    Output,
    args::{FileArg, Names, NetAutostartArgs, NetDhcpLeasesArgs, NetDumpxmlArgs, NetListArgs, NetworkArg, XmlPart},
    connect::{connect, connect_to_read, local_time, read_file},
    failure::{About, Failure},
    format, xpath,
};

pub(super) async fn list(socket: &Path, args: NetListArgs) -> Result<Output, Failure> {
    if [args.table, args.name, args.uuid].into_iter().filter(|is| *is).count() > 1 {
        return Err(Failure::new("Only one argument from --table, --name and --uuid may be specified."));
    }
    let failed = |e| Failure::client("Failed to list networks", About::Nothing, &e);
    let Networks { networks } = connect_to_read(socket).await.map_err(failed)?.list_networks().await.map_err(failed)?;
    let chosen = format::choose(networks, args);
    let text = format::network_list(&chosen, args);
    let output = if args.name || args.uuid { Output::new } else { Output::table };
    Ok(output(text, json!(chosen)))
}

pub(super) async fn start(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let name = network.name();
    let failed = |e| Failure::client(format!("Failed to start network {name}"), About::Network(name), &e);
    let reply = connect(socket).await.map_err(failed)?.start_network(name).await.map_err(failed)?;
    let text = format!("Network {} started\n", reply.network.name);
    Ok(done(text, reply))
}

pub(super) async fn destroy(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let name = network.name();
    let failed = |e| Failure::client(format!("Failed to destroy network {name}"), About::Network(name), &e);
    let reply = connect(socket).await.map_err(failed)?.destroy_network(name).await.map_err(failed)?;
    let text = format!("Network {} destroyed\n", reply.network.name);
    Ok(done(text, reply))
}

pub(super) async fn undefine(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let name = network.name();
    let failed = |e| Failure::client(format!("Failed to undefine network {name}"), About::Network(name), &e);
    let reply = connect(socket).await.map_err(failed)?.undefine_network(name).await.map_err(failed)?;
    let text = format!("Network {} has been undefined\n", reply.network.name);
    Ok(done(text, reply))
}

pub(super) async fn autostart(socket: &Path, args: &NetAutostartArgs) -> Result<Output, Failure> {
    let name = args.network.name();
    let mark = if args.disable { "unmark" } else { "mark" };
    let failed =
        |e| Failure::client(format!("failed to {mark} network {name} as autostarted"), About::Network(name), &e);
    let mut client = connect(socket).await.map_err(failed)?;
    let reply = client.set_autostart(name, !args.disable).await.map_err(failed)?;
    let text = format!("Network {} {mark}ed as autostarted\n", reply.network.name);
    Ok(done(text, reply))
}

pub(super) async fn define(socket: &Path, file: &FileArg) -> Result<Output, Failure> {
    let path = file.path();
    let failed = |e| Failure::client(format!("Failed to define network from {}", path.display()), About::Nothing, &e);
    let xml = read_file(&path)?;
    let reply = connect(socket).await.map_err(failed)?.define_network(xml).await.map_err(failed)?;
    let text = format!("Network {} defined from {}\n", reply.network.name, path.display());
    Ok(done(text, reply))
}

pub(super) async fn create(socket: &Path, file: &FileArg) -> Result<Output, Failure> {
    let path = file.path();
    let failed = |e| Failure::client(format!("Failed to create network from {}", path.display()), About::Nothing, &e);
    let xml = read_file(&path)?;
    let reply = connect(socket).await.map_err(failed)?.create_network(xml).await.map_err(failed)?;
    let text = format!("Network {} created from {}\n", reply.network.name, path.display());
    Ok(done(text, reply))
}

pub(super) async fn dumpxml(socket: &Path, args: &NetDumpxmlArgs) -> Result<Output, Failure> {
    let name = args.network.name();
    let failed = |e| Failure::client("", About::Network(name), &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let xml = client.dump_xml(name, args.inactive).await.map_err(failed)?.xml;
    part(xml, &args.part)
}

pub(super) async fn info(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let NetworkReply { network, notices } = get(socket, network, "failed to get network information").await?;
    Ok(Output::new(format::network_info(&network), json!(network)).with_notices(notices))
}

pub(super) async fn name(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let NetworkReply { network, notices } = get(socket, network, "failed to get network name").await?;
    Ok(Output::new(format!("{}\n", network.name), json!({ "name": network.name })).with_notices(notices))
}

pub(super) async fn uuid(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let NetworkReply { network, notices } = get(socket, network, "failed to get network UUID").await?;
    Ok(Output::new(format!("{}\n", network.uuid), json!({ "uuid": network.uuid })).with_notices(notices))
}

async fn get(socket: &Path, network: &NetworkArg, failed: &str) -> Result<NetworkReply, Failure> {
    let name = network.name();
    let failed = |e| Failure::client(failed, About::Network(name), &e);
    connect_to_read(socket).await.map_err(failed)?.get_network(name).await.map_err(failed)
}

pub(super) async fn dhcp_leases(socket: &Path, args: &NetDhcpLeasesArgs) -> Result<Output, Failure> {
    let name = args.network.name();
    let failed = |e| Failure::client(format!("Failed to get leases info for {name}"), About::Network(name), &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let leases = client.list_leases(name, args.mac.clone()).await.map_err(failed)?.leases;
    Ok(Output::table(format::leases(&leases, local_time), json!(leases)))
}

fn done(text: String, reply: NetworkReply) -> Output {
    Output::done(text, json!(reply.network)).with_notices(reply.notices)
}

/// An XML document, or what of it was asked for.
pub(super) fn part(xml: String, part: &XmlPart) -> Result<Output, Failure> {
    let xml = match &part.xpath {
        Some(expression) => xpath::choose(&xml, expression, part.wrap)?,
        None => xml,
    };
    Ok(Output::new(xml.clone(), json!({ "xml": xml })))
}

/// What a completion script may offer.
pub(super) async fn names(socket: &Path, what: Names) -> Result<Vec<String>, Failure> {
    let failed = |e| Failure::client("", About::Nothing, &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    if what == Names::Networks {
        let networks = client.list_networks().await.map_err(failed)?.networks;
        return Ok(networks.into_iter().map(|network| network.name).collect());
    }
    let ports = client.list_ports(None).await.map_err(failed)?.ports;
    let mut names: Vec<String> = ports.iter().filter_map(|port| port.guest.clone()).collect();
    if what == Names::Ports {
        names.extend(ports.into_iter().map(|port| port.interface));
    }
    names.sort();
    names.dedup();
    Ok(names)
}
