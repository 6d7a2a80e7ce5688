//! Ports of networks, as `net-port-*` knows them.

use netd_api::NetworkPort;
use uuid::Uuid;

use crate::{
    error::{Code, RemoteError},
    netd::Netd,
    networks::{Answer, Held, bounded, only},
    wire::NetworkRef,
    xdr::{Reader, Writer},
};

/// Most ports in one list.
const MOST_PORTS: usize = 16_384;

/// Bit of NETWORK_PORT_CREATE_XML: the XML is validated, as every XML is.
const VALIDATE: u32 = 2;

/// A port travels as its network and its UUID.
fn write(network: NetworkRef<'_>, port: &NetworkPort, ret: &mut Writer) -> Answer {
    let uuid: Uuid = port.uuid.parse().map_err(|_| RemoteError::rpc("netd names a port without a UUID"))?;
    network.write(ret);
    ret.uuid(uuid);
    Ok(())
}

async fn all(netd: &Netd, network: &Held) -> Result<Vec<NetworkPort>, RemoteError> {
    let got = netd.look(async |client| client.list_network_ports(&network.key).await).await;
    Ok(got.map_err(|error| network.failed(error))?.ports)
}

async fn find(netd: &Netd, network: &Held, uuid: Uuid) -> Result<NetworkPort, RemoteError> {
    let is_it = |port: &NetworkPort| port.uuid.parse() == Ok(uuid);
    all(netd, network).await?.into_iter().find(is_it).ok_or_else(|| {
        let message = format!("network port not found: Network port with UUID {uuid} does not exist");
        RemoteError::network(Code::NoNetworkPort, message)
    })
}

/// NETWORK_LIST_ALL_PORTS.
pub(crate) async fn list_all(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (network, wanted, flags) = (Held::read(args)?, args.i32()? != 0, args.u32()?);
    only(flags, 0, "virNetworkObjPortListExport")?;
    let found = network.get(netd).await?;
    if !found.active {
        let message = format!("Requested operation is not valid: network '{}' is not active", found.name);
        return Err(RemoteError::network(Code::OperationInvalid, message));
    }
    let ports = all(netd, &network).await?;
    let count = bounded(ports.len(), MOST_PORTS, "network ports")?;
    ret.count(if wanted { count } else { 0 });
    for port in ports.iter().filter(|_| wanted) {
        write(NetworkRef::of(&found)?, port, ret)?;
    }
    ret.count(count);
    Ok(())
}

/// NETWORK_PORT_LOOKUP_BY_UUID.
pub(crate) async fn by_uuid(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (network, uuid) = (Held::read(args)?, args.uuid()?);
    let port = find(netd, &network, uuid).await?;
    let found = network.get(netd).await?;
    write(NetworkRef::of(&found)?, &port, ret)
}

/// NETWORK_PORT_CREATE_XML.
pub(crate) async fn create(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (network, xml, flags) = (Held::read(args)?, args.string()?.to_owned(), args.u32()?);
    only(flags, VALIDATE, "networkPortCreateXML")?;
    let found = network.get(netd).await?;
    let made = netd.change(async |client| client.create_network_port(&network.key, xml).await).await;
    write(NetworkRef::of(&found)?, &made.map_err(|error| network.failed(error))?.port, ret)
}

/// NETWORK_PORT_GET_XML_DESC.
pub(crate) async fn xml(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (network, uuid, flags) = (Held::read(args)?, args.uuid()?, args.u32()?);
    only(flags, 0, "networkPortGetXMLDesc")?;
    ret.string(&find(netd, &network, uuid).await?.xml);
    Ok(())
}

/// NETWORK_PORT_DELETE.
pub(crate) async fn delete(netd: &Netd, args: &mut Reader<'_>) -> Answer {
    let (network, uuid, flags) = (Held::read(args)?, args.uuid()?, args.u32()?);
    only(flags, 0, "networkPortDelete")?;
    let interface = find(netd, &network, uuid).await?.port.interface;
    netd.change(async |client| client.delete_port(&interface).await).await?;
    Ok(())
}
