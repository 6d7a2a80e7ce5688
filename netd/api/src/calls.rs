//! What each varlink method is called with, as it stands in a message.

use serde::{Deserialize, Serialize};
use zlink::introspect;

pub use crate::metadata::{GetMetadata, SetMetadata};
use crate::{AddressSource, AdoptedPort, Flow, Forward, Lease, Protocol, Update};

/// The methods of the interface, by the name after the last dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the method of that name, described in the interface file")]
pub enum Method {
    ListNetworks,
    GetNetwork,
    DefineNetwork,
    CreateNetwork,
    StartNetwork,
    DestroyNetwork,
    UndefineNetwork,
    SetAutostart,
    DumpXml,
    GetMetadata,
    SetMetadata,
    ListLeases,
    ListPorts,
    GetPorts,
    ListNetworkPorts,
    CreateNetworkPort,
    AddPort,
    ListAddresses,
    OpenCapture,
    ListForwards,
    AddForward,
    DeleteForward,
    ImportLeases,
    AdoptNetwork,
    CreatePort,
    DeletePort,
    ApplyNetwork,
    UpdateNetwork,
    ConfirmChange,
    Explain,
    Monitor,
}

impl Method {
    /// All of them, in the order of the interface file.
    pub const ALL: [Method; 31] = [
        Method::ListNetworks,
        Method::GetNetwork,
        Method::DefineNetwork,
        Method::CreateNetwork,
        Method::StartNetwork,
        Method::DestroyNetwork,
        Method::UndefineNetwork,
        Method::SetAutostart,
        Method::DumpXml,
        Method::GetMetadata,
        Method::SetMetadata,
        Method::ListLeases,
        Method::ListPorts,
        Method::GetPorts,
        Method::ListNetworkPorts,
        Method::CreateNetworkPort,
        Method::AddPort,
        Method::ListAddresses,
        Method::OpenCapture,
        Method::ListForwards,
        Method::AddForward,
        Method::DeleteForward,
        Method::ImportLeases,
        Method::AdoptNetwork,
        Method::CreatePort,
        Method::DeletePort,
        Method::ApplyNetwork,
        Method::UpdateNetwork,
        Method::ConfirmChange,
        Method::Explain,
        Method::Monitor,
    ];

    /// The name in the interface.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether it changes something: the read-only socket refuses it then.
    pub fn changes(self) -> bool {
        match self {
            Method::ListNetworks
            | Method::GetNetwork
            | Method::DumpXml
            | Method::GetMetadata
            | Method::ListLeases
            | Method::ListPorts
            | Method::GetPorts
            | Method::ListNetworkPorts
            | Method::ListAddresses
            | Method::ListForwards
            | Method::Monitor => false,
            Method::DefineNetwork
            | Method::CreateNetwork
            | Method::StartNetwork
            | Method::DestroyNetwork
            | Method::UndefineNetwork
            | Method::SetAutostart
            | Method::SetMetadata
            | Method::CreateNetworkPort
            | Method::AddPort
            // Changes nothing, but what others say is not for everyone.
            | Method::OpenCapture
            | Method::AddForward
            | Method::DeleteForward
            | Method::ImportLeases
            | Method::AdoptNetwork
            | Method::CreatePort
            | Method::DeletePort
            | Method::ApplyNetwork
            | Method::UpdateNetwork
            | Method::ConfirmChange
            | Method::Explain => true,
        }
    }
}

/// Parameters of `ListNetworks`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ListNetworks {}

/// Parameters of the methods about one network: `GetNetwork`, `StartNetwork`, `DestroyNetwork`, `UndefineNetwork`,
/// `ListNetworkPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct OneNetwork {
    /// Name or UUID.
    pub network: String,
}

/// Parameters of `DefineNetwork` and `CreateNetwork`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct NewNetwork {
    /// The network's XML.
    pub xml: String,
}

/// Parameters of `SetAutostart`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct SetAutostart {
    /// Name or UUID.
    pub network: String,
    /// Start with the daemon or not.
    pub autostart: bool,
}

/// Parameters of `DumpXml`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct DumpXml {
    /// Name or UUID.
    pub network: String,
    /// The definition, not the live network.
    pub inactive: bool,
}

/// Parameters of `ListLeases`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ListLeases {
    /// Name or UUID.
    pub network: String,
    /// Of this MAC only.
    pub mac: Option<String>,
}

/// Parameters of `ListPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ListPorts {
    /// Name or UUID; all networks if absent.
    pub network: Option<String>,
}

/// Parameters of `GetPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct GetPorts {
    /// The port's interface name, or the name of the guest whose ports are wanted.
    pub port: String,
}

/// Parameters of `CreateNetworkPort`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct CreateNetworkPort {
    /// Name or UUID.
    pub network: String,
    /// The port's XML.
    pub xml: String,
}

/// Parameters of `AddPort`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct AddPort {
    /// Name or UUID.
    pub network: String,
    /// The guest's name.
    pub guest: Option<String>,
    /// The guest's MAC.
    pub mac: Option<String>,
    /// Queue pairs, 1 to 253.
    pub queues: u32,
    /// Whether what the guest sends is checked; yes if absent, where it can be.
    pub guards: Option<bool>,
    /// The port group; the network's default one, if it has one, if absent.
    pub portgroup: Option<String>,
}

/// Parameters of `ListAddresses`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ListAddresses {
    /// The guest's name.
    pub guest: String,
    /// Where to look.
    pub source: AddressSource,
}

/// Parameters of `OpenCapture`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct OpenCapture {
    /// A port's interface, or an active network's bridge.
    pub interface: String,
    /// Bytes of each frame, 64 to 262,144.
    pub snaplen: u32,
}

/// Parameters of `ListForwards`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ListForwards {
    /// Name or UUID; all networks if absent.
    pub network: Option<String>,
}

/// Parameters of `AddForward`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct AddForward {
    /// The new one.
    pub forward: Forward,
}

/// Parameters of `DeleteForward`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct DeleteForward {
    /// Name or UUID.
    pub network: String,
    /// What is forwarded.
    pub protocol: Protocol,
    /// The first port of the host.
    pub first_port: u32,
    /// The last port of the host.
    pub last_port: u32,
    /// The address of the host; may be absent where only one forward of the network has these ports.
    pub address: Option<String>,
}

/// Parameters of `ImportLeases`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ImportLeases {
    /// Name or UUID.
    pub network: String,
    /// The leases.
    pub leases: Vec<Lease>,
}

/// Parameters of `AdoptNetwork`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct AdoptNetwork {
    /// The network as it runs.
    pub xml: String,
    /// Taps on its bridge.
    pub ports: Vec<AdoptedPort>,
    /// The leases of its guests.
    pub leases: Vec<Lease>,
}

/// Parameters of `CreatePort`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct CreatePort {
    /// Name or UUID.
    pub network: String,
    /// The guest's name.
    pub guest: Option<String>,
    /// The guest's MAC.
    pub mac: Option<String>,
}

/// Parameters of `DeletePort`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct DeletePort {
    /// The port's interface name.
    pub interface: String,
}

/// Parameters of `ApplyNetwork`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ApplyNetwork {
    /// The network's XML, as it should be.
    pub xml: String,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Take the change back after so many seconds, 1 to 86400, unless it is confirmed.
    pub confirm: Option<u32>,
}

/// Parameters of `UpdateNetwork`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct UpdateNetwork {
    /// What to change.
    pub update: Update,
}

/// Parameters of `ConfirmChange`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct ConfirmChange {
    /// Name or UUID; may be absent where only one change waits.
    pub network: Option<String>,
}

/// Parameters of `Explain`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// What to follow.
    pub flow: Flow,
    /// A packet may be sent in the sender's name.
    pub probe: bool,
    /// Without a probe: how long to wait, in seconds, for a packet of the flow, 0 to 600.
    pub seconds: i64,
}

/// Parameters of `Monitor`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Name or UUID; all networks if absent.
    pub network: Option<String>,
}
