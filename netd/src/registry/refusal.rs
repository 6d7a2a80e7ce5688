//! Why a request was refused, in libvirt's words where libvirt has them. Nothing was done.

use ipnet::IpNet;
use netd_api::ErrorKind;

use crate::{
    change::EditError,
    check::{Conflict, not_yet::NotYet},
    model::{ForwardError, HostPort, MacAddr},
    xml,
};

/// A request that could not be granted. Its `Display` is the line a user reads after `error: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No network of that name or UUID.
    #[error("Network not found: no network with matching name '{0}'")]
    NoNetwork(String),
    /// No port of a guest of that name.
    #[error("Domain not found: no domain with matching name '{0}'")]
    NoGuest(String),
    /// Neither a port nor a guest of that name.
    #[error("Port not found: no port or guest with matching name '{0}'")]
    NoPort(String),
    /// A guest, or where a port forward leads, of which no address is known.
    #[error("operation failed: {who} is not known to have an {family} address")]
    NoAddress {
        /// Who, in words.
        who: String,
        /// `IPv4`, `IPv6` or `IP`.
        family: &'static str,
    },
    /// A flow to somebody who is no guest.
    #[error("operation failed: {target} is no guest's address{}", not_forwarded(service.as_deref()))]
    NotToGuest {
        /// The address.
        target: std::net::IpAddr,
        /// What is asked there, as a port forward has it.
        service: Option<String>,
    },
    /// Started twice.
    #[error("Requested operation is not valid: network is already active")]
    AlreadyActive(String),
    /// Created while active.
    #[error("Requested operation is not valid: network is already active as '{0}'")]
    AlreadyActiveAs(String),
    /// Metadata of a live network that is none.
    #[error("Requested operation is not valid: network is not running")]
    NotRunning,
    /// Metadata of a definition that is none.
    #[error("Requested operation is not valid: cannot change persistent config of a transient network")]
    TransientConfig,
    /// An element of metadata to remove that is not there.
    #[error("metadata not found: Requested metadata element is not present")]
    NoMetadata,
    /// Needs an active network.
    #[error("Requested operation is not valid: network '{0}' is not active")]
    NotActive(String),
    /// Autostart without a definition.
    #[error("Requested operation is not valid: cannot set autostart for transient network")]
    TransientAutostart,
    /// Undefine without a definition.
    #[error("Requested operation is not valid: can't undefine transient network")]
    TransientUndefine,
    /// Two networks cannot both have something.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Another program's interface has the bridge's name.
    #[error("internal error: bridge name '{0}' already in use.")]
    BridgeInUse(String),
    /// A network that another manager runs is not there as its XML says.
    #[error("operation failed: cannot take over network '{network}': {why}")]
    NotThere {
        /// The network.
        network: String,
        /// What is not as it says.
        why: String,
    },
    /// No name `virbrN` is left.
    #[error("internal error: Bridge generation exceeded max id {0}")]
    NoBridgeName(u32),
    /// The subnet overlaps one that the host already has.
    #[error("internal error: Network is already in use by {}", by_what(interface.as_deref(), by))]
    SubnetInUse {
        /// The network's subnet.
        subnet: IpNet,
        /// What overlaps it.
        by: IpNet,
        /// The interface that is on.
        interface: Option<String>,
    },
    /// Every 192.168.N.0/24 is taken.
    #[error("internal error: Network is already in use: no 192.168.N.0/24 is free for network '{0}'")]
    NoSubnet(String),
    /// The text is not a network we can have.
    #[error("{0}")]
    Xml(#[from] xml::Error),
    /// The network has something that is not carried out yet.
    #[error("unsupported configuration: {0}")]
    NotYet(#[from] NotYet),
    /// A port that lives as long as its guest's program.
    #[error("Requested operation is not valid: port {0} lives as long as the program that has it open")]
    PortInUse(String),
    /// The text is no port's XML.
    #[error("{0}")]
    PortXml(String),
    /// A port's XML says what cannot be so.
    #[error("invalid argument: {0}")]
    PortMisfit(String),
    /// A port's MAC is another port's.
    #[error("operation failed: MAC address {mac} is already in use by port {interface} of network '{network}'")]
    MacInUse {
        /// The address.
        mac: MacAddr,
        /// The other port.
        interface: String,
        /// Its network.
        network: String,
    },
    /// A port's MAC is the bridge's.
    #[error("operation failed: MAC address {mac} is already in use by bridge {bridge}")]
    MacOfBridge {
        /// The address.
        mac: MacAddr,
        /// The bridge.
        bridge: String,
    },
    /// No port group of that name.
    #[error("operation failed: network '{network}' has no port group '{group}'")]
    NoPortGroup {
        /// The network.
        network: String,
        /// What was asked for.
        group: String,
    },
    /// Every interface has a port already, and each port needs one for itself.
    #[error("internal error: network '{0}' requires exclusive access to interfaces, but none are available")]
    NoFreeInterface(String),
    /// Guards for a port that passes no bridge.
    #[error("unsupported configuration: ports of network '{0}' are macvtap devices, whose traffic no guard sees")]
    NoGuards(String),
    /// A port that stays and is no tap.
    #[error(
        "unsupported configuration: ports of network '{0}' are macvtap devices, which go with the guest that has them \
         open, and no port made by hand can be one"
    )]
    KeptMacvtap(String),
    /// Guards for a port that carries several VLANs.
    #[error(
        "unsupported configuration: the port of network '{0}' is a trunk, and guards let no frame with a VLAN tag pass"
    )]
    NoGuardsOnTrunk(String),
    /// A floor without anything to take it from.
    #[error(
        "this function is not supported by the connection driver: Invalid use of 'floor' on interface with MAC address \
         {mac} - network '{network}' has no inbound QoS set"
    )]
    NoInbound {
        /// The port's.
        mac: MacAddr,
        /// The network.
        network: String,
    },
    /// More floors than the network has to give.
    #[error(
        "Requested operation is not valid: Cannot plug '{mac}' interface into '{bridge}' because it would overcommit \
         '{what}' on network '{network}'"
    )]
    Overcommitted {
        /// The port's.
        mac: MacAddr,
        /// The bridge.
        bridge: String,
        /// Which of the network's numbers is too small.
        what: &'static str,
        /// The network.
        network: String,
    },
    /// A port forward that cannot be.
    #[error("invalid argument: {0}")]
    Forward(ForwardError),
    /// No forward of these ports.
    #[error("operation failed: network '{network}' does not forward {port}")]
    NoForward {
        /// The ports.
        port: HostPort,
        /// The network.
        network: String,
    },
    /// Several forwards of these ports, at different addresses.
    #[error("operation failed: network '{network}' forwards {port} at several addresses of the host")]
    WhichForward {
        /// The ports.
        port: HostPort,
        /// The network.
        network: String,
    },
    /// An edit of one section that cannot be made.
    #[error("{0}")]
    Edit(EditError),
    /// The bridge cannot be called another name while ports are on it.
    #[error(
        "Requested operation is not valid: the bridge of network '{network}' is {bridge} and cannot become {wanted} while \
         the network is active: the kernel renames no bridge that is up"
    )]
    BridgeRename {
        /// The network.
        network: String,
        /// The bridge.
        bridge: String,
        /// The other name.
        wanted: String,
    },
    /// Ports cannot move to something else while the network is active.
    #[error(
        "Requested operation is not valid: the ports of network '{network}' are {is} and cannot be {wanted} while the \
         network is active"
    )]
    GroundChange {
        /// The network.
        network: String,
        /// What they are on.
        is: String,
        /// What they would be on.
        wanted: String,
    },
    /// A bridge of the host that looks at no VLAN tags.
    #[error(
        "unsupported configuration: bridge {bridge} does not filter VLANs, so no port of network '{network}' can be in \
         one"
    )]
    NoVlanFiltering {
        /// The network.
        network: String,
        /// The bridge.
        bridge: String,
    },
    /// A change is made and neither confirmed nor taken back.
    #[error("Requested operation is not valid: the last change of network '{0}' is not confirmed")]
    Unconfirmed(String),
    /// Nothing to confirm.
    #[error("Requested operation is not valid: no change{} waits to be confirmed", of_network(.0.as_deref()))]
    NothingToConfirm(Option<String>),
    /// More than one change to confirm, and none named.
    #[error("invalid argument: changes of several networks wait to be confirmed: {}", .0.join(", "))]
    ConfirmWhich(Vec<String>),
    /// A start is not something to be taken back in time.
    #[error("Requested operation is not valid: network '{0}' is not active, so there is nothing to go back to")]
    ConfirmStart(String),
    /// An argument is not of its form.
    #[error("invalid argument: {what} '{value}' is not {expected}")]
    Argument {
        /// Which.
        what: &'static str,
        /// What was given.
        value: String,
        /// What should have been.
        expected: String,
    },
}

fn not_forwarded(service: Option<&str>) -> String {
    service.map(|service| format!(", and {service} is not forwarded there")).unwrap_or_default()
}

fn by_what(interface: Option<&str>, by: &IpNet) -> String {
    match interface {
        Some(interface) => format!("interface {interface}"),
        None => format!("route {by}"),
    }
}

fn of_network(name: Option<&str>) -> String {
    name.map(|name| format!(" of network '{name}'")).unwrap_or_default()
}

impl Refusal {
    /// The same, with the line where the text has what it is about.
    #[must_use]
    pub fn in_text(self, text: &str) -> Self {
        match self {
            Refusal::NotYet(what) => Refusal::Xml(xml::unsupported(text, &what)),
            other => other,
        }
    }

    /// What a program should take it for.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Refusal::NoNetwork(_) => ErrorKind::NoNetwork,
            Refusal::NoGuest(_) | Refusal::NoPort(_) => ErrorKind::NoGuest,
            Refusal::NoAddress { .. } | Refusal::NotToGuest { .. } => ErrorKind::OperationFailed,
            Refusal::AlreadyActive(_)
            | Refusal::AlreadyActiveAs(_)
            | Refusal::NotActive(_)
            | Refusal::PortInUse(_)
            | Refusal::NotRunning
            | Refusal::TransientConfig
            | Refusal::NoMetadata
            | Refusal::TransientAutostart
            | Refusal::TransientUndefine
            | Refusal::BridgeRename { .. }
            | Refusal::GroundChange { .. }
            | Refusal::Unconfirmed(_)
            | Refusal::NothingToConfirm(_)
            | Refusal::ConfirmStart(_)
            | Refusal::Overcommitted { .. } => ErrorKind::OperationInvalid,
            Refusal::NoGuards(_)
            | Refusal::KeptMacvtap(_)
            | Refusal::NoGuardsOnTrunk(_)
            | Refusal::NoVlanFiltering { .. }
            | Refusal::NoInbound { .. } => ErrorKind::ConfigUnsupported,
            Refusal::Conflict(_)
            | Refusal::BridgeInUse(_)
            | Refusal::NotThere { .. }
            | Refusal::NoBridgeName(_)
            | Refusal::SubnetInUse { .. }
            | Refusal::NoSubnet(_)
            | Refusal::NoPortGroup { .. }
            | Refusal::NoFreeInterface(_)
            | Refusal::NoForward { .. }
            | Refusal::WhichForward { .. }
            | Refusal::MacInUse { .. }
            | Refusal::MacOfBridge { .. } => ErrorKind::OperationFailed,
            Refusal::Xml(error) if error.is_unsupported() => ErrorKind::ConfigUnsupported,
            Refusal::NotYet(_) => ErrorKind::ConfigUnsupported,
            Refusal::Xml(_) | Refusal::PortXml(_) => ErrorKind::Xml,
            Refusal::Edit(EditError::Invalid(_)) => ErrorKind::OperationInvalid,
            Refusal::Edit(EditError::Element { .. }) => ErrorKind::Xml,
            Refusal::Edit(EditError::Xml(error) | EditError::Consequence(error)) if error.is_unsupported() => {
                ErrorKind::ConfigUnsupported
            }
            Refusal::Edit(EditError::Xml(_) | EditError::Consequence(_)) => ErrorKind::Xml,
            Refusal::Edit(EditError::Section(_))
            | Refusal::Argument { .. }
            | Refusal::Forward(_)
            | Refusal::PortMisfit(_)
            | Refusal::ConfirmWhich(_) => ErrorKind::InvalidArg,
        }
    }

    /// The next move, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        match self {
            Refusal::NoNetwork(_) => Some("'netd net-list --all' shows the networks there are".into()),
            Refusal::NoAddress { .. } => {
                Some("'netd domifaddr GUEST --source any' shows the addresses of a guest that are known".into())
            }
            Refusal::NotToGuest { service: Some(service), .. } => {
                Some(format!("'netd forward-add NETWORK {service} GUEST:PORT' has it lead to a guest"))
            }
            Refusal::PortInUse(_) => Some("end that program, or shut its guest down".into()),
            Refusal::NoPort(_) => Some("'netd port-list' shows the ports there are".into()),
            Refusal::Edit(error) => error.hint(),
            Refusal::BridgeRename { network, .. } | Refusal::GroundChange { network, .. } => Some(format!(
                "change the definition with 'netd net-define' and restart the network: 'netd net-destroy {network}', \
                 'netd net-start {network}'"
            )),
            Refusal::Unconfirmed(name) => {
                Some(format!("'netd confirm {name}' keeps it; in time it is taken back by itself"))
            }
            Refusal::ConfirmStart(_) => Some("apply it without --confirm".into()),
            Refusal::ConfirmWhich(_) => Some("name the network".into()),
            Refusal::NotActive(name) => Some(format!("start it with 'netd net-start {name}'")),
            Refusal::TransientAutostart | Refusal::TransientUndefine => {
                Some("a transient network has no definition; make one with 'netd net-define'".into())
            }
            Refusal::BridgeInUse(name) => Some(format!(
                "'ip link show {name}' shows the interface; give the network another <bridge name=…> or none"
            )),
            Refusal::SubnetInUse { subnet, by, .. } => {
                Some(format!("{subnet} overlaps {by}; 'ip route show table all' shows it; choose another subnet"))
            }
            Refusal::Conflict(Conflict::Name { name, uuid }) => Some(format!(
                "to change network '{name}', write <uuid>{uuid}</uuid> in the file or use 'netd net-edit {name}'"
            )),
            Refusal::Conflict(Conflict::Forward { other, .. }) => {
                Some(format!("'netd forward-list {other}' shows where it leads; delete that, or choose another port"))
            }
            Refusal::NoForward { network, .. } => Some(format!("'netd forward-list {network}' shows what it forwards")),
            Refusal::WhichForward { .. } => {
                Some("say at which with --address; 0.0.0.0 is every IPv4 address, :: every IPv6 one".into())
            }
            Refusal::MacInUse { .. } => Some("give the guest another mac, or none".into()),
            Refusal::NoPortGroup { network, .. } => {
                Some(format!("'netd net-dumpxml {network}' shows the port groups it has"))
            }
            Refusal::NoFreeInterface(network) => Some(format!(
                "'netd port-list {network}' shows who has them; add another <interface> to the network's <forward>"
            )),
            Refusal::KeptMacvtap(network) => {
                Some(format!("'netd port exec {network} -- PROGRAM …' gives the program a port of its own"))
            }
            Refusal::NoVlanFiltering { bridge, .. } => {
                Some(format!("'ip link set dev {bridge} type bridge vlan_filtering 1' has it do so"))
            }
            Refusal::NoGuards(_) | Refusal::NoGuardsOnTrunk(_) => Some("leave guards out".into()),
            Refusal::NoInbound { network, .. } => {
                Some(format!("give network '{network}' an <inbound> in its <bandwidth>, or the port group no floor"))
            }
            _ => None,
        }
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        Refusal::Edit(error)
    }
}

impl From<Refusal> for netd_api::Error {
    fn from(refusal: Refusal) -> Self {
        let error = netd_api::Error::new(refusal.kind(), refusal.to_string());
        match refusal.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
