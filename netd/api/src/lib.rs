//! The varlink interface `io.netd.Networks`: its types, its errors and its client.
//!
//! This crate is the only thing `netd`, `vmm` and the tests share. File descriptors of tap queues ride along
//! with [`Port`] replies here and nowhere else. The interface as other languages see it is
//! `netd/api/io.netd.Networks.varlink`; a test keeps the two the same.

pub mod calls;
mod client;
mod events;
mod large;
mod metadata;
mod monitor;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, PortRequest, blocking, socket_path};
pub use events::{Event, EventKind, Told};
pub use metadata::{Forms, Metadata, MetadataKind};
pub use monitor::Monitor;

use serde::{Deserialize, Serialize};
use zlink::introspect;

/// The name of the varlink interface.
pub const INTERFACE: &str = "io.netd.Networks";

/// The interface in varlink's own language.
pub const INTERFACE_FILE: &str = include_str!("../io.netd.Networks.varlink");

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netd/netd.sock";

/// The environment variable that names another socket for every client.
pub const SOCKET_VARIABLE: &str = "NETD_SOCKET";

/// A network as `net-list` and `net-info` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Network {
    /// The name, unique on this host.
    pub name: String,
    /// The UUID in its 36 character form.
    pub uuid: String,
    /// The bridge exists and the network's services run.
    pub active: bool,
    /// There is a definition on disk; a network without one is gone when stopped.
    pub persistent: bool,
    /// The daemon starts this network when it starts.
    pub autostart: bool,
    /// The interface name of the bridge, once one was chosen.
    pub bridge: Option<String>,
    /// A short text for people.
    pub title: Option<String>,
}

/// A DHCP lease as `net-dhcp-leases` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Lease {
    /// End of the lease in seconds since the Unix epoch; 0 for a lease without end.
    pub expiry: i64,
    /// The client's hardware address, `52:54:00:…`, lower case.
    pub mac: String,
    /// `ipv4` or `ipv6`.
    pub protocol: String,
    /// The leased address, without a prefix.
    pub address: String,
    /// The prefix length of the subnet the address is on.
    pub prefix: u8,
    /// The name the client or its reservation gave.
    pub hostname: Option<String>,
    /// The client identifier (option 61) as colon-separated hex; of an IPv6 lease the client's DUID.
    pub client_id: Option<String>,
    /// The number that the client has for what an IPv6 lease is for (IAID).
    pub iaid: Option<i64>,
}

/// A guest's plug in a network: one tap device on the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Port {
    /// The interface name of the tap on the host.
    pub interface: String,
    /// The network the port is on.
    pub network: String,
    /// The guest that owns it, if the caller said.
    pub guest: Option<String>,
    /// The MAC address of the guest's side.
    pub mac: String,
    /// Greatest packet size in bytes, without the Ethernet header.
    pub mtu: u32,
    /// How many queue pairs, and so how many file descriptors.
    pub queues: u32,
}

/// A port and its guards, as `port-info` shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct PortInfo {
    /// The port.
    pub port: Port,
    /// What the guest sends is checked.
    pub guards: bool,
    /// The port reaches the host and what is behind it, but no other isolated port.
    pub isolated: bool,
    /// The port group that the caller named.
    pub portgroup: Option<String>,
    /// The interface of the host that it is a macvtap on; absent for a tap on a bridge. Guards see nothing of it.
    pub macvtap: Option<String>,
    /// The IPv4 addresses it may use.
    pub addresses: Vec<String>,
    /// With guards: what was dropped since the port was added, or the daemon started.
    pub dropped: Option<Dropped>,
}

/// A port as libvirt has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct NetworkPort {
    /// 36 characters. It follows from the network's UUID and the port's MAC.
    pub uuid: String,
    /// The port.
    pub port: Port,
    /// libvirt's XML for it, ending in a newline.
    pub xml: String,
}

/// Frames of a port that its guards dropped, by what was wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Dropped {
    /// Another source MAC than the port's.
    pub mac: u64,
    /// A VLAN tag.
    pub vlan: u64,
    /// An ARP sender that is not the port's MAC and address.
    pub arp: u64,
    /// A source address that is not the port's.
    pub ip: u64,
    /// A neighbour discovery message about another's address or MAC.
    pub nd: u64,
    /// A message of a DHCP server.
    pub dhcp: u64,
    /// A router advertisement or redirect.
    pub ra: u64,
}

/// One address of a guest, as `domifaddr` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Address {
    /// The interface name of the tap on the host.
    pub interface: String,
    /// The MAC address of the guest's side.
    pub mac: String,
    /// `ipv4` or `ipv6`.
    pub protocol: String,
    /// The address, without a prefix.
    pub address: String,
    /// The prefix length; 0 where the source knows none.
    pub prefix: u8,
    /// How it is known.
    pub source: AddressOrigin,
    /// Seconds since it was last seen in use; absent for a lease that was never seen in use.
    pub age_seconds: Option<u64>,
}

/// How an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum AddressOrigin {
    /// We leased it.
    Lease,
    /// The kernel's neighbour table has it.
    Neighbour,
    /// The guest said so in ARP.
    Arp,
    /// The guest said so in IPv6 neighbour discovery.
    Nd,
    /// Another DHCP server gave it, or the guest named it to one.
    Dhcp,
}

impl AddressOrigin {
    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            AddressOrigin::Lease => "lease",
            AddressOrigin::Neighbour => "neighbour",
            AddressOrigin::Arp => "arp",
            AddressOrigin::Nd => "nd",
            AddressOrigin::Dhcp => "dhcp",
        }
    }
}

/// A port of the host, or several in a row, that leads to guests of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Forward {
    /// The network the guests are on: its name, in requests its name or UUID.
    pub network: String,
    /// What is forwarded.
    pub protocol: Protocol,
    /// The first port of the host.
    pub first_port: u32,
    /// The last port of the host; the first one, if it is only one.
    pub last_port: u32,
    /// The one address of the host it is forwarded at; every one if absent.
    pub address: Option<String>,
    /// Whom it leads to: one connection after the other to the next.
    pub targets: Vec<ForwardTarget>,
}

/// One that a forward leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct ForwardTarget {
    /// A guest by name, wherever it is; absent where an address is given.
    pub guest: Option<String>,
    /// An address on the network. In replies about a guest, where the guest is; absent while it is nowhere.
    pub address: Option<String>,
    /// The port that stands for the first of the host's.
    pub port: u32,
}

/// What can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A tap of another manager's guest that a network is taken over with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct AdoptedPort {
    /// The interface name of the tap on the host.
    pub interface: String,
    /// The MAC address of the guest's side.
    pub mac: String,
    /// The guest that owns it, if that is known.
    pub guest: Option<String>,
}

/// Where `domifaddr` looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum AddressSource {
    /// The lease table.
    #[default]
    Lease,
    /// The kernel's neighbour table, and what the guest was heard to say on the bridge.
    Arp,
    /// All of these: leases first, then what was seen last.
    Any,
}

/// What went wrong, coarse enough for a program to act on. The kinds follow libvirt's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No network of that name or UUID.
    NoNetwork,
    /// No guest of that name has a port.
    NoGuest,
    /// Right request, wrong state.
    OperationInvalid,
    /// The request clashes with something that exists (a name, a bridge, a MAC, a subnet).
    OperationFailed,
    /// The XML does not parse or breaks a rule of the format.
    Xml,
    /// The XML names something this version does not do.
    ConfigUnsupported,
    /// An argument is not of its form.
    InvalidArg,
    /// The caller may not do this.
    AccessDenied,
    /// The host refused: a system call, a full disk, a missing program.
    Internal,
}

/// The one error of the interface. Its `Display` is the line after `error: ` that a user reads.
#[derive(Clone, Debug, PartialEq, Eq, zlink::ReplyError, introspect::ReplyError)]
#[zlink(interface = "io.netd.Networks")]
pub enum Error {
    /// The request was understood and refused, or tried and failed.
    Failed {
        /// What kind of failure.
        kind: ErrorKind,
        /// What failed, on what; libvirt's sentence where libvirt has one.
        message: String,
        /// The next move, where there is one.
        hint: Option<String>,
    },
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::Failed { kind, message: message.into(), hint: None }
    }

    /// The same error with the next move named.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        let Error::Failed { kind, message, .. } = self;
        Error::Failed { kind, message, hint: Some(hint.into()) }
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        let Error::Failed { kind, .. } = self;
        *kind
    }

    /// The next move, where there is one.
    pub fn hint(&self) -> Option<&str> {
        let Error::Failed { hint, .. } = self;
        hint.as_deref()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Error::Failed { message, .. } = self;
        f.write_str(message)
    }
}

impl std::error::Error for Error {}

/// Reply of `ListNetworks`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Networks {
    /// All networks, active and not, sorted by name.
    pub networks: Vec<Network>,
}

/// Reply of every method that answers with one network.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct NetworkReply {
    /// The network as it is after the call.
    pub network: Network,
    /// Things the user should know though the call succeeded (another subnet was chosen, say).
    pub notices: Vec<String>,
}

/// How `UpdateNetwork` edits a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum UpdateCommand {
    /// Put the element in the place of the one it identifies.
    Modify,
    /// Take away the one it describes.
    Delete,
    /// Add it behind the others.
    AddLast,
    /// Add it before the others.
    AddFirst,
}

/// An edit of one section of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Name or UUID.
    pub network: String,
    /// What to do with the element.
    pub command: UpdateCommand,
    /// The section, as `net-update` calls it.
    pub section: String,
    /// The element.
    pub xml: String,
    /// Which `<ip>` of the network, from 0; found by what is there if absent.
    pub parent_index: Option<u32>,
    /// Change what is live.
    pub live: bool,
    /// Change the definition. With neither, what is current: live if it is active.
    pub config: bool,
}

/// Reply of `ApplyNetwork` and `UpdateNetwork`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct ChangeReply {
    /// The network as it is after the call; absent where it does not exist then.
    pub network: Option<Network>,
    /// Its name.
    pub name: String,
    /// Something is other than before, or would be.
    pub changed: bool,
    /// It was about what is live.
    pub live: bool,
    /// It was about the definition.
    pub config: bool,
    /// What was done, or would be: one sentence per step.
    pub steps: Vec<String>,
    /// Rules of the packet filter: `-` before those that go, `+` before those that come.
    pub rules: Vec<String>,
    /// The change is taken back in so many seconds unless it is confirmed.
    pub confirm_within: Option<i64>,
    /// Things the user should know though the call succeeded.
    pub notices: Vec<String>,
}

/// Reply of `DumpXml`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Xml {
    /// The network's XML, ending in a newline.
    pub xml: String,
}

/// Reply of `ListLeases`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Leases {
    /// Leases that have not expired, sorted by MAC.
    pub leases: Vec<Lease>,
}

/// Reply of `ListPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Ports {
    /// Ports sorted by interface name.
    pub ports: Vec<Port>,
}

/// Reply of `GetPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct PortDetails {
    /// Ports sorted by interface name.
    pub ports: Vec<PortInfo>,
}

/// Reply of `ListNetworkPorts`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct NetworkPorts {
    /// Ports sorted by interface name.
    pub ports: Vec<NetworkPort>,
}

/// Reply of `CreateNetworkPort`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct NetworkPortReply {
    /// The new port.
    pub port: NetworkPort,
}

/// Reply of `AddPort`. The file descriptors of the tap's queues, as many as [`Port::queues`], travel with it.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct PortReply {
    /// The new port.
    pub port: Port,
}

/// Reply of `ListAddresses`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Addresses {
    /// The addresses, by interface.
    pub addresses: Vec<Address>,
}

/// Reply of `OpenCapture`. One file descriptor travels with it: a packet socket (packet(7)) that hears every frame of the
/// interface in both directions, and of no other.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Capture {
    /// The interface.
    pub interface: String,
    /// The network it belongs to.
    pub network: String,
    /// The guest, if it is the port of one with a name.
    pub guest: Option<String>,
}

/// Reply of `AddForward` and `DeleteForward`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct ForwardReply {
    /// The forward as it is, or was.
    pub forward: Forward,
    /// Things the user should know though the call succeeded (the guest is not there yet, say).
    pub notices: Vec<String>,
}

/// Reply of `ImportLeases`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Imported {
    /// How many leases the network has now that it had not, or had otherwise.
    pub imported: u32,
}

/// Reply of `ListForwards`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Forwards {
    /// The forwards, by network, in the order they were added.
    pub forwards: Vec<Forward>,
}

/// A flow of a guest or to one, for `Explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Flow {
    /// Who sends it: a guest's name, the interface name of its port, or an IP address. One of the host's is the host.
    pub sender: String,
    /// Where it goes: an IP address or a guest's name.
    pub target: String,
    /// What it is; echo requests if absent.
    pub protocol: Option<Protocol>,
    /// The port it goes to, with a protocol.
    pub port: Option<i64>,
    /// The address of the guest that sends it; what is known of it if absent.
    pub source: Option<String>,
}

/// Whose packet was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Traced {
    /// One that was sent in the guest's name.
    Probe,
    /// The guest's own.
    Guest,
    /// One on its way to the guest that somebody else had sent.
    Passing,
    /// None came.
    Nothing,
}

/// What a stage came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum StageVerdict {
    /// The flow gets through.
    Pass,
    /// It is not known whether it does.
    Warn,
    /// It is stopped here.
    Fail,
}

/// One stage of a flow's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Stage {
    /// A word for programs, the same in every release.
    pub check: String,
    /// What was looked for, to be read behind "Checking".
    pub title: String,
    /// What came of it.
    pub verdict: StageVerdict,
    /// Why; for a pass what is worth knowing besides.
    pub says: Option<String>,
    /// The command that mends it, or shows more where no command can.
    pub mend: Option<String>,
}

/// Reply of `Explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
pub struct Explanation {
    /// The guest's port; of two guests that of the sender.
    pub interface: String,
    /// Whose packet was traced.
    pub traced: Traced,
    /// In the order in which the flow meets them, as far as it got.
    pub stages: Vec<Stage>,
}
