//! Networks: every procedure is one or two calls of netd's.

use netd_api::{ClientError, ErrorKind, Lease, Network, Update, UpdateCommand};
use uuid::Uuid;

use crate::{
    error::{Code, RemoteError},
    netd::Netd,
    wire::NetworkRef,
    xdr::{Reader, Writer},
};

/// What a procedure gives, or why not.
pub(crate) type Answer = Result<(), RemoteError>;

/// Most networks in one list, and most names.
const MOST_NETWORKS: usize = 16_384;

/// Most leases in one list.
const MOST_LEASES: usize = 65_536;

/// Bits of CONNECT_LIST_ALL_NETWORKS, in pairs: of each pair that is named, one must be true of a network.
const LIST_PAIRS: [[(u32, Is); 2]; 3] = [
    [(1, |network| !network.active), (2, |network| network.active)],
    [(4, |network| network.persistent), (8, |network| !network.persistent)],
    [(16, |network| network.autostart), (32, |network| !network.autostart)],
];

type Is = fn(&Network) -> bool;

/// Bit for what is live.
pub(crate) const LIVE: u32 = 1;

/// Bit for the definition.
pub(crate) const CONFIG: u32 = 2;

/// The sections of NETWORK_UPDATE by number, as `net-update` calls them.
const SECTIONS: [(u32, &str); 12] = [
    (1, "bridge"),
    (2, "domain"),
    (3, "ip"),
    (4, "ip-dhcp-host"),
    (5, "ip-dhcp-range"),
    (6, "forward"),
    (7, "forward-interface"),
    (8, "forward-pf"),
    (9, "portgroup"),
    (10, "dns-host"),
    (11, "dns-txt"),
    (12, "dns-srv"),
];

/// Refuses flags with other bits than these.
pub(crate) fn only(flags: u32, known: u32, function: &str) -> Result<u32, RemoteError> {
    match flags & !known {
        0 => Ok(flags),
        unknown => Err(RemoteError::flags(unknown, function)),
    }
}

fn chosen(network: &Network, flags: u32) -> bool {
    LIST_PAIRS.iter().all(|pair| {
        let named = || pair.iter().filter(|(bit, _)| flags & bit != 0);
        named().next().is_none() || named().any(|(_, is)| is(network))
    })
}

/// A network that a client holds, which may be gone.
pub(crate) struct Held {
    /// What netd knows it by: its UUID.
    pub(crate) key: String,
    name: String,
}

impl Held {
    /// As a client sends it.
    pub(crate) fn read(args: &mut Reader<'_>) -> Result<Self, RemoteError> {
        let NetworkRef { name, uuid } = NetworkRef::read(args)?;
        Ok(Held { key: uuid.to_string(), name: name.to_owned() })
    }

    /// The error in libvirt's words for one that was found by its UUID.
    pub(crate) fn failed(&self, error: ClientError) -> RemoteError {
        match error {
            ClientError::Refused(error) if error.kind() == ErrorKind::NoNetwork => {
                let Held { key, name } = self;
                no_network(format!("no network with matching uuid '{key}' ({name})"))
            }
            error => error.into(),
        }
    }

    /// The network as it is.
    pub(crate) async fn get(&self, netd: &Netd) -> Result<Network, RemoteError> {
        let got = netd.look(async |client| client.get_network(&self.key).await).await;
        got.map(|reply| reply.network).map_err(|error| self.failed(error))
    }
}

fn no_network(detail: String) -> RemoteError {
    RemoteError::network(Code::NoNetwork, format!("Network not found: {detail}"))
}

async fn all(netd: &Netd) -> Result<Vec<Network>, RemoteError> {
    Ok(netd.look(async |client| client.list_networks().await).await?.networks)
}

/// Refuses a list that is longer than clients take.
pub(crate) fn bounded(count: usize, most: usize, what: &str) -> Result<usize, RemoteError> {
    if count <= most {
        return Ok(count);
    }
    Err(RemoteError::rpc(format!("Too many {what} '{count}' for limit '{most}'")))
}

/// CONNECT_LIST_ALL_NETWORKS.
pub(crate) async fn list_all(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (wanted, flags) = (args.i32()? != 0, args.u32()?);
    let flags = only(flags, 0x3f, "networkConnectListAllNetworks")?;
    let networks: Vec<_> = all(netd).await?.into_iter().filter(|network| chosen(network, flags)).collect();
    let count = bounded(networks.len(), MOST_NETWORKS, "networks")?;
    ret.count(if wanted { count } else { 0 });
    for network in networks.iter().filter(|_| wanted) {
        NetworkRef::of(network)?.write(ret);
    }
    ret.count(count);
    Ok(())
}

/// CONNECT_NUM_OF_NETWORKS and CONNECT_NUM_OF_DEFINED_NETWORKS: the active ones, and the others.
pub(crate) async fn number(netd: &Netd, active: bool, ret: &mut Writer) -> Answer {
    ret.count(all(netd).await?.iter().filter(|network| network.active == active).count());
    Ok(())
}

/// CONNECT_LIST_NETWORKS and CONNECT_LIST_DEFINED_NETWORKS.
pub(crate) async fn names(netd: &Netd, active: bool, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let most = usize::try_from(args.i32()?).unwrap_or_default().min(MOST_NETWORKS);
    let networks = all(netd).await?;
    let names: Vec<_> = networks.iter().filter(|network| network.active == active).take(most).collect();
    ret.count(names.len());
    for network in names {
        ret.string(&network.name);
    }
    Ok(())
}

/// NETWORK_LOOKUP_BY_NAME.
pub(crate) async fn by_name(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let name = args.string()?;
    let missing = || no_network(format!("no network with matching name '{name}'"));
    let network = match netd.look(async |client| client.get_network(name).await).await {
        Ok(reply) if reply.network.name == name => reply.network,
        // A name can look like another network's UUID.
        Ok(_) => all(netd).await?.into_iter().find(|network| network.name == name).ok_or_else(missing)?,
        Err(ClientError::Refused(error)) if error.kind() == ErrorKind::NoNetwork => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    NetworkRef::of(&network)?.write(ret);
    Ok(())
}

/// NETWORK_LOOKUP_BY_UUID.
pub(crate) async fn by_uuid(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let uuid: Uuid = args.uuid()?;
    let key = uuid.to_string();
    match netd.look(async |client| client.get_network(&key).await).await {
        // A UUID can look like another network's name.
        Ok(reply) if reply.network.uuid == key => NetworkRef::of(&reply.network)?.write(ret),
        Err(ClientError::Refused(error)) if error.kind() != ErrorKind::NoNetwork => return Err(error.into()),
        Err(ClientError::Refused(_)) | Ok(_) => {
            return Err(no_network(format!("no network with matching uuid '{key}'")));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// NETWORK_IS_ACTIVE, NETWORK_IS_PERSISTENT, NETWORK_GET_AUTOSTART.
pub(crate) async fn is(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer, is: Is) -> Answer {
    ret.truth(is(&Held::read(args)?.get(netd).await?));
    Ok(())
}

/// NETWORK_GET_BRIDGE_NAME.
pub(crate) async fn bridge_name(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let network = Held::read(args)?.get(netd).await?;
    let none = || {
        let message = format!("internal error: network '{}' does not have a bridge name.", network.name);
        RemoteError::network(Code::Internal, message)
    };
    ret.string(network.bridge.as_deref().ok_or_else(none)?);
    Ok(())
}

/// NETWORK_GET_XML_DESC.
pub(crate) async fn xml(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (held, flags) = (Held::read(args)?, args.u32()?);
    let inactive = only(flags, 1, "networkGetXMLDesc")? & 1 != 0;
    let got = netd.look(async |client| client.dump_xml(&held.key, inactive).await).await;
    ret.string(&got.map_err(|error| held.failed(error))?.xml);
    Ok(())
}

/// NETWORK_GET_DHCP_LEASES.
pub(crate) async fn leases(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let held = Held::read(args)?;
    let mac = args.optional(Reader::string)?.map(str::to_owned);
    let (wanted, flags) = (args.i32()? != 0, args.u32()?);
    only(flags, 0, "networkGetDHCPLeases")?;
    let network = held.get(netd).await?;
    let got = netd.look(async |client| client.list_leases(&held.key, mac.clone()).await).await;
    let leases = match (got, mac) {
        (Err(ClientError::Refused(error)), Some(mac)) if error.kind() == ErrorKind::InvalidArg => {
            return Err(RemoteError::network(Code::InvalidMac, format!("invalid MAC address: {mac}")));
        }
        (got, _) => got.map_err(|error| held.failed(error))?.leases,
    };
    let count = bounded(leases.len(), MOST_LEASES, "leases")?;
    ret.count(if wanted { count } else { 0 });
    for lease in leases.iter().filter(|_| wanted) {
        write_lease(lease, network.bridge.as_deref().unwrap_or_default(), ret);
    }
    ret.count(count);
    Ok(())
}

fn write_lease(lease: &Lease, bridge: &str, ret: &mut Writer) {
    ret.string(bridge).i64(lease.expiry).i32(i32::from(lease.protocol == "ipv6"));
    ret.optional_string(Some(&lease.mac)).optional_string(lease.iaid.map(|iaid| iaid.to_string()).as_deref());
    ret.string(&lease.address).u32(lease.prefix.into());
    ret.optional_string(lease.hostname.as_deref()).optional_string(lease.client_id.as_deref());
}

/// NETWORK_DEFINE_XML and NETWORK_CREATE_XML, with and without flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum New {
    Definition,
    Transient,
}

/// What is new comes as XML. Its flag, that the XML be validated, changes nothing: every XML is.
pub(crate) async fn new(netd: &Netd, what: New, flags: bool, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let xml = args.string()?.to_owned();
    if flags {
        let function = match what {
            New::Definition => "networkDefineXMLFlags",
            New::Transient => "networkCreateXMLFlags",
        };
        only(args.u32()?, 1, function)?;
    }
    let made = netd
        .change(async |client| match what {
            New::Definition => client.define_network(xml).await,
            New::Transient => client.create_network(xml).await,
        })
        .await?;
    NetworkRef::of(&made.network)?.write(ret);
    Ok(())
}

/// What is done to a network that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Start,
    Destroy,
    Undefine,
}

/// NETWORK_CREATE, NETWORK_DESTROY, NETWORK_UNDEFINE.
pub(crate) async fn deed(netd: &Netd, deed: Deed, args: &mut Reader<'_>) -> Answer {
    let held = Held::read(args)?;
    let done = netd
        .change(async |client| match deed {
            Deed::Start => client.start_network(&held.key).await,
            Deed::Destroy => client.destroy_network(&held.key).await,
            Deed::Undefine => client.undefine_network(&held.key).await,
        })
        .await;
    done.map(drop).map_err(|error| held.failed(error))
}

/// NETWORK_SET_AUTOSTART.
pub(crate) async fn set_autostart(netd: &Netd, args: &mut Reader<'_>) -> Answer {
    let (held, autostart) = (Held::read(args)?, args.i32()? != 0);
    let done = netd.change(async |client| client.set_autostart(&held.key, autostart).await).await;
    done.map(drop).map_err(|error| held.failed(error))
}

/// NETWORK_UPDATE.
pub(crate) async fn update(netd: &Netd, args: &mut Reader<'_>) -> Answer {
    let held = Held::read(args)?;
    let (command, section, parent) = (args.u32()?, args.u32()?, args.i32()?);
    let (xml, flags) = (args.string()?.to_owned(), args.u32()?);
    let flags = only(flags, LIVE | CONFIG, "networkUpdate")?;
    let invalid = |what: &str, value: i64| {
        RemoteError::network(Code::InvalidArg, format!("invalid argument: {value} is no {what} of a network update"))
    };
    let command = match command {
        1 => UpdateCommand::Modify,
        2 => UpdateCommand::Delete,
        3 => UpdateCommand::AddLast,
        4 => UpdateCommand::AddFirst,
        other => return Err(invalid("command", other.into())),
    };
    let section =
        SECTIONS.iter().find(|(number, _)| *number == section).ok_or_else(|| invalid("section", section.into()))?;
    let parent_index = match parent {
        -1 => None,
        index => Some(u32::try_from(index).map_err(|_| invalid("parent index", index.into()))?),
    };
    let update = Update {
        network: held.key.clone(),
        command,
        section: section.1.to_owned(),
        xml,
        parent_index,
        live: flags & LIVE != 0,
        config: flags & CONFIG != 0,
    };
    let done = netd.change(async |client| client.update_network(update).await).await;
    done.map(drop).map_err(|error| held.failed(error))
}
