//! EDGE: the client side of `io.netd.Networks`: one typed method per varlink method, async and blocking.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use zlink::tokio::unix;

use crate::{
    AddressSource, Addresses, AdoptedPort, Capture, ChangeReply, DEFAULT_SOCKET, Error, Explanation, Flow, Forms,
    Forward, ForwardReply, Forwards, Imported, Lease, Leases, Metadata, MetadataKind, Monitor, NetworkPortReply,
    NetworkPorts, NetworkReply, Networks, Port, PortDetails, PortReply, Ports, Protocol, SOCKET_VARIABLE, Update, Xml,
    calls::{
        ApplyNetwork, CreateNetworkPort, DeleteForward, Explain, GetMetadata, NewNetwork, SetMetadata, UpdateNetwork,
    },
    large::{self, LARGE},
};

#[zlink::proxy("io.netd.Networks")]
trait Methods {
    async fn list_networks(&mut self) -> zlink::Result<Result<Networks, Error>>;
    async fn get_network(&mut self, network: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn define_network(&mut self, xml: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn create_network(&mut self, xml: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn start_network(&mut self, network: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn destroy_network(&mut self, network: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn undefine_network(&mut self, network: String) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn set_autostart(&mut self, network: String, autostart: bool) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn dump_xml(&mut self, network: String, inactive: bool) -> zlink::Result<Result<Xml, Error>>;
    async fn get_metadata(
        &mut self,
        network: String,
        kind: MetadataKind,
        uri: Option<String>,
        inactive: bool,
    ) -> zlink::Result<Result<Metadata, Error>>;
    async fn set_metadata(
        &mut self,
        network: String,
        kind: MetadataKind,
        uri: Option<String>,
        key: Option<String>,
        text: Option<String>,
        forms: Forms,
    ) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn list_leases(&mut self, network: String, mac: Option<String>) -> zlink::Result<Result<Leases, Error>>;
    async fn list_ports(&mut self, network: Option<String>) -> zlink::Result<Result<Ports, Error>>;
    async fn get_ports(&mut self, port: String) -> zlink::Result<Result<PortDetails, Error>>;
    async fn list_network_ports(&mut self, network: String) -> zlink::Result<Result<NetworkPorts, Error>>;
    async fn create_network_port(
        &mut self,
        network: String,
        xml: String,
    ) -> zlink::Result<Result<NetworkPortReply, Error>>;
    #[zlink(return_fds)]
    async fn add_port(
        &mut self,
        network: String,
        guest: Option<String>,
        mac: Option<String>,
        queues: u32,
        guards: Option<bool>,
        portgroup: Option<String>,
    ) -> zlink::Result<(Result<PortReply, Error>, Vec<OwnedFd>)>;
    async fn list_addresses(&mut self, guest: String, source: AddressSource)
    -> zlink::Result<Result<Addresses, Error>>;
    #[zlink(return_fds)]
    async fn open_capture(
        &mut self,
        interface: String,
        snaplen: u32,
    ) -> zlink::Result<(Result<Capture, Error>, Vec<OwnedFd>)>;
    async fn list_forwards(&mut self, network: Option<String>) -> zlink::Result<Result<Forwards, Error>>;
    async fn add_forward(&mut self, forward: Forward) -> zlink::Result<Result<ForwardReply, Error>>;
    async fn delete_forward(
        &mut self,
        network: String,
        protocol: Protocol,
        first_port: u32,
        last_port: u32,
        address: Option<String>,
    ) -> zlink::Result<Result<ForwardReply, Error>>;
    async fn import_leases(&mut self, network: String, leases: Vec<Lease>) -> zlink::Result<Result<Imported, Error>>;
    async fn adopt_network(
        &mut self,
        xml: String,
        ports: Vec<AdoptedPort>,
        leases: Vec<Lease>,
    ) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn create_port(
        &mut self,
        network: String,
        guest: Option<String>,
        mac: Option<String>,
    ) -> zlink::Result<Result<PortReply, Error>>;
    async fn delete_port(&mut self, interface: String) -> zlink::Result<Result<PortReply, Error>>;
    async fn apply_network(
        &mut self,
        xml: String,
        dry_run: bool,
        confirm: Option<u32>,
    ) -> zlink::Result<Result<ChangeReply, Error>>;
    async fn update_network(&mut self, update: Update) -> zlink::Result<Result<ChangeReply, Error>>;
    async fn confirm_change(&mut self, network: Option<String>) -> zlink::Result<Result<NetworkReply, Error>>;
    async fn explain(&mut self, flow: Flow, probe: bool, seconds: i64) -> zlink::Result<Result<Explanation, Error>>;
}

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not connect.
    #[error("failed to connect to netd at {}: {cause}", path.display())]
    Connect {
        /// The socket that was tried.
        path: PathBuf,
        /// What the transport said.
        cause: zlink::Error,
    },
    /// The connection broke or what came over it made no sense.
    #[error("netd stopped answering: {0}")]
    Transport(zlink::Error),
    /// The daemon refused.
    #[error("{0}")]
    Refused(#[from] Error),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    connection: unix::Connection,
    path: PathBuf,
}

impl Client {
    /// Connects to the daemon's socket.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        match unix::connect(path).await {
            Ok(connection) => Ok(Client { connection, path: path.to_owned() }),
            Err(cause) => Err(ClientError::Connect { path: path.to_owned(), cause }),
        }
    }

    /// Every network the daemon knows.
    pub async fn list_networks(&mut self) -> Result<Networks, ClientError> {
        flatten(self.connection.list_networks().await)
    }

    /// One network by name or UUID.
    pub async fn get_network(&mut self, network: &str) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.get_network(network.to_owned()).await)
    }

    /// Stores a definition; the network is not started.
    pub async fn define_network(&mut self, xml: String) -> Result<NetworkReply, ClientError> {
        if xml.len() > LARGE {
            return large::call(&self.path, "DefineNetwork", &NewNetwork { xml }).await;
        }
        flatten(self.connection.define_network(xml).await)
    }

    /// Starts a network that has no definition on disk.
    pub async fn create_network(&mut self, xml: String) -> Result<NetworkReply, ClientError> {
        if xml.len() > LARGE {
            return large::call(&self.path, "CreateNetwork", &NewNetwork { xml }).await;
        }
        flatten(self.connection.create_network(xml).await)
    }

    /// Starts a defined network.
    pub async fn start_network(&mut self, network: &str) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.start_network(network.to_owned()).await)
    }

    /// Stops a network; its definition, if any, stays.
    pub async fn destroy_network(&mut self, network: &str) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.destroy_network(network.to_owned()).await)
    }

    /// Removes a definition.
    pub async fn undefine_network(&mut self, network: &str) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.undefine_network(network.to_owned()).await)
    }

    /// Says whether the daemon starts the network when it starts.
    pub async fn set_autostart(&mut self, network: &str, autostart: bool) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.set_autostart(network.to_owned(), autostart).await)
    }

    /// The XML of the live network, or of its definition when `inactive`.
    pub async fn dump_xml(&mut self, network: &str, inactive: bool) -> Result<Xml, ClientError> {
        flatten(self.connection.dump_xml(network.to_owned(), inactive).await)
    }

    /// The title, description or an element of metadata of a network.
    pub async fn get_metadata(&mut self, request: GetMetadata) -> Result<Metadata, ClientError> {
        let GetMetadata { network, kind, uri, inactive } = request;
        flatten(self.connection.get_metadata(network, kind, uri, inactive).await)
    }

    /// Sets or removes it.
    pub async fn set_metadata(&mut self, request: SetMetadata) -> Result<NetworkReply, ClientError> {
        if request.text.as_ref().is_some_and(|text| text.len() > LARGE) {
            return large::call(&self.path, "SetMetadata", &request).await;
        }
        let SetMetadata { network, kind, uri, key, text, forms } = request;
        flatten(self.connection.set_metadata(network, kind, uri, key, text, forms).await)
    }

    /// The leases of one network, of one MAC if given.
    pub async fn list_leases(&mut self, network: &str, mac: Option<String>) -> Result<Leases, ClientError> {
        flatten(self.connection.list_leases(network.to_owned(), mac).await)
    }

    /// The ports of one network or of all.
    pub async fn list_ports(&mut self, network: Option<String>) -> Result<Ports, ClientError> {
        flatten(self.connection.list_ports(network).await)
    }

    /// All there is to know of one port, by its interface name, or of a guest's ports.
    pub async fn get_ports(&mut self, port: &str) -> Result<PortDetails, ClientError> {
        flatten(self.connection.get_ports(port.to_owned()).await)
    }

    /// The ports of one network as libvirt has them.
    pub async fn list_network_ports(&mut self, network: &str) -> Result<NetworkPorts, ClientError> {
        flatten(self.connection.list_network_ports(network.to_owned()).await)
    }

    /// Makes a port that stays until it is deleted, from libvirt's XML.
    pub async fn create_network_port(&mut self, network: &str, xml: String) -> Result<NetworkPortReply, ClientError> {
        if xml.len() > LARGE {
            let port = CreateNetworkPort { network: network.to_owned(), xml };
            return large::call(&self.path, "CreateNetworkPort", &port).await;
        }
        flatten(self.connection.create_network_port(network.to_owned(), xml).await)
    }

    /// Plugs a guest into a network: a new tap on its bridge, whose life is the returned descriptors.
    ///
    /// One descriptor per queue, each opened with `IFF_VNET_HDR`, non-blocking and closed on exec. When the last copy of
    /// them is closed the kernel removes the tap and the daemon forgets the port.
    pub async fn add_port(&mut self, request: PortRequest) -> Result<(Port, Vec<OwnedFd>), ClientError> {
        let PortRequest { network, guest, mac, queues, guards, portgroup } = request;
        let called = self.connection.add_port(network, guest, mac, queues, guards, portgroup).await;
        let (reply, fds) = called.map_err(ClientError::Transport)?;
        // The transport receives them without close-on-exec, and every child of this process would keep the tap alive.
        let fds = fds.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
        Ok((reply?.port, fds.map_err(|cause| ClientError::Transport(cause.into()))?))
    }

    /// Makes a port that stays until it is deleted, for a program that opens its tap by name.
    pub async fn create_port(
        &mut self,
        network: &str,
        guest: Option<String>,
        mac: Option<String>,
    ) -> Result<PortReply, ClientError> {
        flatten(self.connection.create_port(network.to_owned(), guest, mac).await)
    }

    /// Deletes a port that [`Client::create_port`] made.
    pub async fn delete_port(&mut self, interface: &str) -> Result<PortReply, ClientError> {
        flatten(self.connection.delete_port(interface.to_owned()).await)
    }

    /// The addresses of a guest.
    pub async fn list_addresses(&mut self, guest: &str, source: AddressSource) -> Result<Addresses, ClientError> {
        flatten(self.connection.list_addresses(guest.to_owned(), source).await)
    }

    /// Hears everything on a port, or on an active network's bridge, by its interface name: the first `snaplen` bytes of
    /// each frame, from the packet socket that is returned; closed on exec.
    pub async fn open_capture(&mut self, interface: &str, snaplen: u32) -> Result<(Capture, OwnedFd), ClientError> {
        let (reply, fds) =
            self.connection.open_capture(interface.to_owned(), snaplen).await.map_err(ClientError::Transport)?;
        let reply = reply?;
        let fd = fds.first().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData));
        let fd = fd.and_then(OwnedFd::try_clone).map_err(|cause| ClientError::Transport(cause.into()))?;
        Ok((reply, fd))
    }

    /// The port forwards of one network, or of all.
    pub async fn list_forwards(&mut self, network: Option<String>) -> Result<Forwards, ClientError> {
        flatten(self.connection.list_forwards(network).await)
    }

    /// Forwards ports of the host to guests.
    pub async fn add_forward(&mut self, forward: Forward) -> Result<ForwardReply, ClientError> {
        flatten(self.connection.add_forward(forward).await)
    }

    /// Hears what happens on one network, or on all, from now on. The connection is for nothing else then.
    pub async fn monitor(self, network: Option<String>) -> Result<Monitor, ClientError> {
        Monitor::ask(self.connection, network).await
    }

    /// Ends a forward.
    pub async fn delete_forward(&mut self, forward: DeleteForward) -> Result<ForwardReply, ClientError> {
        let DeleteForward { network, protocol, first_port, last_port, address } = forward;
        flatten(self.connection.delete_forward(network, protocol, first_port, last_port, address).await)
    }

    /// Gives a network leases that another DHCP server made.
    pub async fn import_leases(&mut self, network: &str, leases: Vec<Lease>) -> Result<Imported, ClientError> {
        flatten(self.connection.import_leases(network.to_owned(), leases).await)
    }

    /// Takes over a network that another manager runs, with taps of its guests and their leases.
    pub async fn adopt_network(
        &mut self,
        xml: String,
        ports: Vec<AdoptedPort>,
        leases: Vec<Lease>,
    ) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.adopt_network(xml, ports, leases).await)
    }

    /// Follows one flow of a guest, or to one, and says what stops it. Takes as long as the answer, or the wait, does.
    pub async fn explain(&mut self, request: Explain) -> Result<Explanation, ClientError> {
        let Explain { flow, probe, seconds } = request;
        flatten(self.connection.explain(flow, probe, seconds).await)
    }
}

impl Client {
    /// Has this network, defined and active: changes what there is under its guests, or defines and starts it.
    pub async fn apply_network(
        &mut self,
        xml: String,
        dry_run: bool,
        confirm: Option<u32>,
    ) -> Result<ChangeReply, ClientError> {
        if xml.len() > LARGE {
            return large::call(&self.path, "ApplyNetwork", &ApplyNetwork { xml, dry_run, confirm }).await;
        }
        flatten(self.connection.apply_network(xml, dry_run, confirm).await)
    }

    /// Edits one section of a network.
    pub async fn update_network(&mut self, update: Update) -> Result<ChangeReply, ClientError> {
        if update.xml.len() > LARGE {
            return large::call(&self.path, "UpdateNetwork", &UpdateNetwork { update }).await;
        }
        flatten(self.connection.update_network(update).await)
    }

    /// Keeps a change that waits to be confirmed: of this network, or the only one.
    pub async fn confirm_change(&mut self, network: Option<String>) -> Result<NetworkReply, ClientError> {
        flatten(self.connection.confirm_change(network).await)
    }
}

/// What [`Client::add_port`] asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRequest {
    /// The network's name or UUID.
    pub network: String,
    /// The guest's name: what `domifaddr` finds it by and what DNS answers to.
    pub guest: Option<String>,
    /// The guest's MAC; one is made up if absent.
    pub mac: Option<String>,
    /// Queue pairs, 1 to 253: one message carries no more file descriptors.
    pub queues: u32,
    /// Whether what the guest sends is checked; yes if absent, where it can be. Off is for guests that route or bridge
    /// for others.
    pub guards: Option<bool>,
    /// The port group; the network's default one, if it has one, if absent.
    pub portgroup: Option<String>,
}

fn flatten<T>(reply: zlink::Result<Result<T, Error>>) -> Result<T, ClientError> {
    Ok(reply.map_err(ClientError::Transport)??)
}

/// The socket to use: the argument if there is one, else `NETD_SOCKET`, else the default.
pub fn socket_path(argument: Option<&Path>) -> PathBuf {
    argument
        .map(Path::to_owned)
        .or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// For programs that are not asynchronous.
pub mod blocking {
    use super::{Client, ClientError, OwnedFd, Path, Port, PortRequest};

    /// Connects, plugs a guest into a network and hangs up; the port lives on in the descriptors.
    pub fn add_port(socket: &Path, request: PortRequest) -> Result<(Port, Vec<OwnedFd>), ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| ClientError::Transport(cause.into()))?;
        runtime.block_on(async { Client::connect(socket).await?.add_port(request).await })
    }
}
