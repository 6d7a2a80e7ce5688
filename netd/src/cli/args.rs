//! Every verb and flag of `netd`, in the one place from which help comes. Names and flags are virsh's.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use super::{
    forward::{HostPorts, Target},
    why::Destination,
};
use crate::capture::WHOLE_FRAME;

/// Virtual networks for a Linux host.
#[derive(Debug, Parser)]
#[command(name = "netd", version)]
#[command(after_help = "A network is named by its name or UUID. `netd VERB --help` tells more of a verb.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes.
#[derive(Args, Clone, Debug)]
pub(super) struct Global {
    /// Print as virsh does, or for programs.
    #[arg(short, long, global = true, value_enum, default_value_t, hide_default_value = true)]
    pub(super) output: OutputForm,
    /// The daemon's socket [default: $NETD_SOCKET, then /run/netd/netd.sock].
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(super) socket: Option<PathBuf>,
    /// Print no table heads, and nothing where it only says that it was done.
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Connect to the socket for everyone: nothing can be changed.
    #[arg(short, long, global = true)]
    pub(super) readonly: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputForm {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the daemon in the foreground.
    Daemon(DaemonRunArgs),
    /// Check whether this host is fit for networks, and say what mends it.
    #[command(after_help = "\
Changes nothing and needs no daemon. As an ordinary user it says which checks only root may do. The exit status is 1
if a check fails; warnings leave it 0. The directories are those of the daemon.")]
    Doctor(DaemonArgs),
    /// Follow one flow of a guest, or to one, through the host, and say what stops it.
    Why(WhyArgs),
    #[command(flatten)]
    Ask(Ask),
    /// Write what passes a guest's ports to a pcapng file.
    Capture(CaptureArgs),
    #[command(flatten)]
    Watch(Watch),
    /// Use a port.
    Port {
        #[command(subcommand)]
        verb: PortVerb,
    },
    /// Bring along the networks of another manager.
    #[command(after_help = "\
Definitions come with their UUIDs, MAC addresses, reservations and autostart marks; leases with their ends. What cannot
be had is named with the reason and left out. libvirt keeps all it has.

With --adopt networks that run are taken over as they run, for which this must be root: bridge, addresses and guests'
taps stay and are known as ports, without guards; libvirt's dnsmasq is ended, netd serves in its place, and libvirt's
firewall rules for the bridge are removed. libvirt then holds the network for inactive and starts it no more. If netd
cannot serve, dnsmasq is started again.")]
    Import(ImportArgs),
    /// Print a shell's completion script.
    #[command(after_help = "\
Names of networks, guests and ports are asked of the daemon while you type.

  netd completion bash >/etc/bash_completion.d/netd
  netd completion zsh >/usr/local/share/zsh/site-functions/_netd
  netd completion fish >~/.config/fish/completions/netd.fish")]
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print names for a completion script, one a line.
    #[command(hide = true)]
    Complete {
        /// Names of what.
        what: Names,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// Where to.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// From libvirt's network driver.
    #[arg(long, required = true)]
    pub(super) from_libvirt: bool,
    /// Where libvirt's directories are.
    #[arg(long, value_name = "DIR", default_value = "/", value_hint = ValueHint::DirPath)]
    pub(super) root: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take over networks that run.
    #[arg(long, conflicts_with = "root")]
    pub(super) adopt: bool,
}

/// What a completion script asks the names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Names {
    Networks,
    Guests,
    Ports,
}

/// The verbs that wait for something to happen.
#[derive(Debug, Subcommand)]
pub(super) enum Watch {
    /// Print what happens on networks, as it happens.
    #[command(after_help = "\
A line per event, until Ctrl-C or the daemon ends: guests plugged in and gone, DHCP from the first DISCOVER to the end
of a lease, networks started and stopped, forwards that lead elsewhere, what was put right after another program.
Who reads too slowly misses events and is told how many.")]
    Events(EventsArgs),
    /// Wait until a guest has a port, a lease, or an address from anywhere; print it.
    #[command(after_help = "\
Ends at once if it is so already. The exit status is 1 if it is not so in time. A restart of the daemon is waited out.

  address=$(netd wait vm1 --for address --timeout 60)")]
    Wait(WaitArgs),
    /// List event types, or wait for network events, as virsh does.
    #[command(after_help = "The exit status is 1 if no event came.")]
    NetEvent(NetEventArgs),
}

#[derive(Args, Debug)]
pub(super) struct EventsArgs {
    /// Those of one network.
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct WaitArgs {
    /// The guest's name.
    #[arg(value_name = "GUEST")]
    pub(super) guest: String,
    /// What to wait for.
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    pub(super) condition: Condition,
    /// Give up after this many seconds [default: never].
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Condition {
    /// An IP address, leased or seen by the host.
    Address,
    /// A DHCP lease.
    Lease,
    /// A port on any network.
    Port,
}

impl Condition {
    /// As a message names it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Condition::Address => "address",
            Condition::Lease => "lease",
            Condition::Port => "port",
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct NetEventArgs {
    /// Filter by network name or UUID.
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Option<String>,
    /// Which event type to wait for: lifecycle or metadata-change.
    #[arg(long, value_name = "TYPE")]
    pub(super) event: Option<String>,
    /// Loop until timeout or interrupt, rather than one-shot.
    #[arg(long = "loop")]
    pub(super) repeat: bool,
    /// Timeout in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: Option<u64>,
    /// List valid event types.
    #[arg(long)]
    pub(super) list: bool,
    /// Show a timestamp for each printed event.
    #[arg(long)]
    pub(super) timestamp: bool,
}

/// The verbs that ask the daemon and print its answer.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// List networks: the active ones, unless a flag says otherwise.
    NetList(NetListArgs),
    /// Start a defined network.
    NetStart(NetworkArg),
    /// Stop a network; its definition stays.
    NetDestroy(NetworkArg),
    /// Start a network whenever the daemon starts.
    NetAutostart(NetAutostartArgs),
    /// Define a network from an XML file, or change a definition.
    NetDefine(FileArg),
    /// Start a network from an XML file without defining it.
    NetCreate(FileArg),
    /// Remove a network's definition.
    NetUndefine(NetworkArg),
    /// Print a network's XML.
    NetDumpxml(NetDumpxmlArgs),
    /// Show what state a network is in.
    NetInfo(NetworkArg),
    /// Print the name of the network with a UUID.
    NetName(NetworkArg),
    /// Print a network's UUID.
    NetUuid(NetworkArg),
    /// Edit a network's definition with $VISUAL or $EDITOR.
    NetEdit(NetworkArg),
    /// Make a network as an XML file has it, under its guests.
    NetApply(NetApplyArgs),
    /// Keep a change that net-apply --confirm made.
    Confirm(ConfirmArgs),
    /// Change one section of a network, live, in its definition, or both.
    NetUpdate(NetUpdateArgs),
    /// Show or set a network's title or description.
    NetDesc(NetDescArgs),
    /// Show or set what another program keeps in a network's XML.
    NetMetadata(NetMetadataArgs),
    /// List the DHCP leases of a network.
    NetDhcpLeases(NetDhcpLeasesArgs),
    /// List the UUIDs of a network's ports.
    NetPortList(NetPortListArgs),
    /// Make a port that stays, from an XML file.
    #[command(after_help = "\
The port is a tap on the network's bridge that stays until net-port-delete: for programs that open a tap by its name, one
queue, while the network and its guards are netd's. The file may be as short as <networkport/>; it can have <owner> with
the guest's <name>, <mac address=…/> and <plug type='network'/>. A port's UUID follows from its network and its MAC. Where
a program can be handed descriptors, `netd port exec` makes a port that goes with the program.")]
    NetPortCreate(NetPortCreateArgs),
    /// Print a port's XML.
    NetPortDumpxml(NetPortDumpxmlArgs),
    /// Delete a port that net-port-create made.
    NetPortDelete(NetPortArg),
    /// Print the addresses of a guest.
    Domifaddr(DomifaddrArgs),
    /// List the ports of guests.
    PortList(PortListArgs),
    /// Show a port, or a guest's ports: what it may send, and what its guards dropped.
    PortInfo(PortInfoArgs),
    /// Forward a port of the host to guests, by name.
    ForwardAdd(ForwardAddArgs),
    /// End a port forward.
    ForwardDelete(ForwardDeleteArgs),
    /// List port forwards and where they lead.
    ForwardList(ForwardListArgs),
}

/// A network, as the argument or with virsh's `--network`.
#[derive(Args, Debug)]
pub(super) struct NetworkArg {
    #[arg(value_name = "NETWORK", required_unless_present = "network_option")]
    network: Option<String>,
    #[arg(long = "network", value_name = "NETWORK", hide = true, conflicts_with = "network")]
    network_option: Option<String>,
}

impl NetworkArg {
    /// The name or UUID.
    pub(super) fn name(&self) -> &str {
        self.network.as_deref().or(self.network_option.as_deref()).unwrap_or_default()
    }
}

/// A file, as the argument or with virsh's `--file`.
#[derive(Args, Debug)]
pub(super) struct FileArg {
    /// A file with one <network>.
    #[arg(value_name = "FILE", required_unless_present = "file_option")]
    file: Option<PathBuf>,
    #[arg(long = "file", value_name = "FILE", hide = true, conflicts_with = "file")]
    file_option: Option<PathBuf>,
    /// Refuse what the format does not have: netd always does, so the flag makes no difference.
    #[arg(long = "validate")]
    _validate: bool,
}

impl FileArg {
    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        self.file.clone().or_else(|| self.file_option.clone()).unwrap_or_default()
    }
}

/// What the daemon is run with.
#[derive(Args, Debug)]
pub(super) struct DaemonRunArgs {
    #[command(flatten)]
    pub(super) places: DaemonArgs,
    /// Serve metrics over TCP too, on a loopback address; they are always to be had from metrics.sock in the runtime
    /// directory.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(super) metrics: Option<SocketAddr>,
}

/// Metrics name guests and tell what they do, and nobody has to say who they are to read them.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address and a port, like 127.0.0.1:9177")?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "metrics are served to this host only: {} is no loopback address; let a proxy serve 127.0.0.1 to others",
            address.ip()
        ));
    }
    Ok(address)
}

/// Where the daemon has its files.
#[derive(Args, Debug)]
pub(super) struct DaemonArgs {
    /// Definitions and autostart marks.
    #[arg(long, value_name = "DIR", default_value = "/etc/netd")]
    pub(super) config_dir: PathBuf,
    /// Leases and other state that outlives a reboot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netd")]
    pub(super) state_dir: PathBuf,
    /// Sockets and state that does not.
    #[arg(long, value_name = "DIR", default_value = "/run/netd")]
    pub(super) runtime_dir: PathBuf,
    /// The host's resolvers.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(super) resolv_conf: PathBuf,
    /// Where libvirt's NSS modules find guests' names: /var/lib/libvirt/dnsmasq, unless they were built otherwise
    /// [default: dnsmasq in the runtime directory, where they do not look].
    #[arg(long, value_name = "DIR")]
    pub(super) nss_dir: Option<PathBuf>,
    /// Keep guests' names in a marked block of this file, /etc/hosts for one [default: in none].
    #[arg(long, value_name = "FILE")]
    pub(super) hosts_file: Option<PathBuf>,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct NetListArgs {
    /// Inactive networks too.
    #[arg(long)]
    pub(super) all: bool,
    /// Inactive networks only.
    #[arg(long)]
    pub(super) inactive: bool,
    /// Those that start with the daemon.
    #[arg(long)]
    pub(super) autostart: bool,
    /// Those that do not.
    #[arg(long)]
    pub(super) no_autostart: bool,
    /// Those with a definition.
    #[arg(long)]
    pub(super) persistent: bool,
    /// Those without.
    #[arg(long)]
    pub(super) transient: bool,
    /// Names only.
    #[arg(long)]
    pub(super) name: bool,
    /// UUIDs only.
    #[arg(long)]
    pub(super) uuid: bool,
    /// A table: the default.
    #[arg(long)]
    pub(super) table: bool,
    /// With a column for titles.
    #[arg(long)]
    pub(super) title: bool,
}

/// Which form of a network a change is for.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Where {
    /// The active network.
    #[arg(long)]
    pub(super) live: bool,
    /// The definition.
    #[arg(long)]
    pub(super) config: bool,
    /// The active network if it is active, else the definition: the default.
    #[arg(long = "current", conflicts_with_all = ["live", "config"])]
    _current: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without a new text it prints the one there is. An empty one removes it.

  netd net-desc default --title 'Where the lab is'
  netd net-desc default --config --edit")]
pub(super) struct NetDescArgs {
    /// The network.
    #[arg(value_name = "NETWORK")]
    pub(super) network: String,
    #[command(flatten)]
    pub(super) at: Where,
    /// The title, not the description.
    #[arg(long)]
    pub(super) title: bool,
    /// Edit it with $VISUAL or $EDITOR.
    #[arg(long)]
    pub(super) edit: bool,
    #[arg(long = "new-desc", value_name = "TEXT", hide = true, conflicts_with = "text")]
    new_desc: Option<String>,
    /// The new text; several words are put together.
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
}

impl NetDescArgs {
    /// The new text, word by word.
    pub(super) fn words(&self) -> Vec<&str> {
        self.new_desc.iter().chain(&self.text).map(String::as_str).collect()
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
The element is written without its name space:

  netd net-metadata default http://app.example/1 app \"<rack height='3'/>\"
  netd net-metadata default http://app.example/1
  netd net-metadata default http://app.example/1 --remove")]
pub(super) struct NetMetadataArgs {
    /// The network.
    #[arg(value_name = "NETWORK")]
    pub(super) network: String,
    /// The name space of the element.
    #[arg(value_name = "URI")]
    pub(super) uri: String,
    /// The prefix that stands for it in the network's XML.
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// The new element.
    #[arg(value_name = "XML", conflicts_with_all = ["edit", "remove"])]
    set: Option<String>,
    #[arg(long = "key", value_name = "KEY", hide = true, conflicts_with = "key")]
    key_option: Option<String>,
    #[arg(long = "set", value_name = "XML", hide = true, conflicts_with_all = ["set", "edit", "remove"])]
    set_option: Option<String>,
    /// Edit it with $VISUAL or $EDITOR.
    #[arg(long, conflicts_with = "remove")]
    pub(super) edit: bool,
    /// Remove it.
    #[arg(long)]
    pub(super) remove: bool,
    #[command(flatten)]
    pub(super) at: Where,
}

impl NetMetadataArgs {
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref().or(self.key_option.as_deref())
    }

    pub(super) fn set(&self) -> Option<&str> {
        self.set.as_deref().or(self.set_option.as_deref())
    }
}

#[derive(Args, Debug)]
pub(super) struct NetAutostartArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// Do not start it any more.
    #[arg(long)]
    pub(super) disable: bool,
}

#[derive(Args, Debug)]
pub(super) struct NetDumpxmlArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// The definition, even while the network is active.
    #[arg(long)]
    pub(super) inactive: bool,
    #[command(flatten)]
    pub(super) part: XmlPart,
}

/// What of an XML document to print.
#[derive(Args, Debug)]
pub(super) struct XmlPart {
    /// Only what this XPath 1.0 expression names.
    #[arg(long, value_name = "EXPR")]
    pub(super) xpath: Option<String>,
    /// With --xpath: inside one element <nodes>.
    #[arg(long, requires = "xpath")]
    pub(super) wrap: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The network is as the file has it afterwards, live and in its definition. Its bridge is never taken down, no port leaves
it, leases are kept, and if anything fails all is as before. A network that is not active is defined and started. Only the
name of an active network's bridge cannot change: the kernel renames no interface that is up. When its MAC changes,
guests are told at once, and lose what is on its way to the old one just then.

Guests whose address is outside a subnet that has moved are told so when they ask for more time, and get another then.

  netd net-apply lan.xml --dry-run        what would be done, and nothing is
  netd net-apply lan.xml --confirm 60     as before again in a minute, unless 'netd confirm' comes, also if netd ends
                                          meanwhile; the definition is written with the word, so a host that is
                                          rebooted has the old one")]
pub(super) struct NetApplyArgs {
    #[command(flatten)]
    pub(super) file: FileArg,
    /// Print the plan and the change of the rules; do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take it back after so many seconds, 1 to 86400, unless it is confirmed.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) confirm: Option<u32>,
}

#[derive(Args, Debug)]
pub(super) struct ConfirmArgs {
    /// The network; may be left out where only one change waits.
    #[arg(value_name = "NETWORK")]
    pub(super) network: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UpdateVerb {
    /// Put the element in the place of the one it identifies.
    Modify,
    /// Take away the one it describes.
    Delete,
    /// Add it behind the others.
    #[value(alias = "add")]
    AddLast,
    /// Add it before the others.
    AddFirst,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Sections: bridge, domain, ip, ip-dhcp-host, ip-dhcp-range, forward, forward-interface, forward-pf, portgroup, dns-host,
dns-txt, dns-srv as in libvirt; title, description, mac, mtu, dns, dns-forwarder, forward-nat, port, vlan, virtualport,
bandwidth, route, ip-dhcp, ip-dhcp-bootp, ip-tftp, dnsmasq-option, port-forward besides. 'add' is add-last. Without a flag
the live network is changed if it is active, else the definition.

  netd net-update default add ip-dhcp-host \"<host mac='52:54:00:aa:bb:cc' ip='192.168.122.9'/>\" --live --config")]
pub(super) struct NetUpdateArgs {
    /// Its name or UUID.
    #[arg(value_name = "NETWORK")]
    pub(super) network: String,
    /// What to do.
    #[arg(value_name = "COMMAND", value_enum)]
    pub(super) command: UpdateVerb,
    /// Where.
    #[arg(value_name = "SECTION")]
    pub(super) section: String,
    /// The element, or a file with it.
    #[arg(value_name = "XML|FILE")]
    pub(super) xml: String,
    /// Which <ip> of the network, from 0.
    #[arg(long, value_name = "N")]
    pub(super) parent_index: Option<u32>,
    /// What is live.
    #[arg(long)]
    pub(super) live: bool,
    /// The definition.
    #[arg(long)]
    pub(super) config: bool,
    /// What is current: the default.
    #[arg(long)]
    pub(super) current: bool,
}

#[derive(Args, Debug)]
pub(super) struct NetDhcpLeasesArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// The leases of one MAC address.
    #[arg(long, value_name = "MAC")]
    pub(super) mac: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct NetPortListArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// UUIDs only.
    #[arg(long)]
    pub(super) uuid: bool,
    /// A table: the default.
    #[arg(long)]
    pub(super) table: bool,
}

#[derive(Args, Debug)]
pub(super) struct NetPortCreateArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// A file with one <networkport>.
    #[arg(value_name = "FILE", required_unless_present = "file_option", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[arg(long = "file", value_name = "FILE", hide = true, conflicts_with = "file")]
    file_option: Option<PathBuf>,
    /// Check the XML first: what is always done.
    #[arg(long = "validate")]
    _validate: bool,
}

impl NetPortCreateArgs {
    /// The file's path.
    pub(super) fn path(&self) -> PathBuf {
        self.file.clone().or_else(|| self.file_option.clone()).unwrap_or_default()
    }
}

/// A port of a network, as two arguments or with virsh's `--network` and `--port`.
#[derive(Args, Debug)]
pub(super) struct NetPortArg {
    #[arg(value_name = "NETWORK", required_unless_present = "network_option")]
    network: Option<String>,
    /// The port's UUID, or its interface.
    #[arg(value_name = "PORT", required_unless_present = "port_option")]
    port: Option<String>,
    #[arg(long = "network", value_name = "NETWORK", hide = true, conflicts_with = "network")]
    network_option: Option<String>,
    #[arg(long = "port", value_name = "PORT", hide = true, conflicts_with = "port")]
    port_option: Option<String>,
}

impl NetPortArg {
    /// The network's name or UUID.
    pub(super) fn network(&self) -> &str {
        self.network.as_deref().or(self.network_option.as_deref()).unwrap_or_default()
    }

    /// The port's UUID or interface.
    pub(super) fn port(&self) -> &str {
        self.port.as_deref().or(self.port_option.as_deref()).unwrap_or_default()
    }
}

#[derive(Args, Debug)]
pub(super) struct NetPortDumpxmlArgs {
    #[command(flatten)]
    pub(super) port: NetPortArg,
    #[command(flatten)]
    pub(super) part: XmlPart,
}

#[derive(Args, Debug)]
pub(super) struct DomifaddrArgs {
    /// The guest's name.
    #[arg(value_name = "GUEST", required_unless_present = "domain")]
    guest: Option<String>,
    #[arg(long, value_name = "GUEST", hide = true, conflicts_with = "guest")]
    domain: Option<String>,
    /// One of the guest's interfaces, as the host names it.
    #[arg(value_name = "INTERFACE")]
    interface: Option<String>,
    #[arg(long = "interface", value_name = "INTERFACE", hide = true, conflicts_with = "interface")]
    interface_option: Option<String>,
    /// Repeat the name and MAC address for every address.
    #[arg(long)]
    pub(super) full: bool,
    /// Where to look: the DHCP leases, what the guest was seen to use, or both [default: leases; what was seen if the
    /// guest has none].
    #[arg(long, value_enum)]
    pub(super) source: Option<Source>,
}

impl DomifaddrArgs {
    pub(super) fn guest(&self) -> &str {
        self.guest.as_deref().or(self.domain.as_deref()).unwrap_or_default()
    }

    pub(super) fn interface(&self) -> Option<&str> {
        self.interface.as_deref().or(self.interface_option.as_deref())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// The DHCP leases.
    Lease,
    /// The host's neighbour table, and what the guest was heard to say in ARP, neighbour discovery and DHCP.
    Arp,
    /// A guest agent; guests here have none.
    Agent,
    /// Leases, then what was seen, with its age.
    Any,
}

#[derive(Args, Debug)]
pub(super) struct PortListArgs {
    /// Those of one network.
    #[arg(value_name = "NETWORK")]
    pub(super) network: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct PortInfoArgs {
    /// The port's interface on the host, or the guest's name.
    #[arg(value_name = "INTERFACE|GUEST")]
    pub(super) port: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The forward follows the guest: while it has no address, connections are rejected. It works from everywhere,
127.0.0.1 included, but for ::1. A target may be an address of the network; several share the connections.

  netd forward-add default tcp/2222 vm1:22
  netd forward-add default tcp/80 web1:8080,web2:8080
  netd forward-add default udp/5000-5010 vm1 --address 198.51.100.7
  netd forward-add blue tcp/443 [fd00:1::10]:8443
  netd forward-add blue tcp/2222 vm1:22 --address ::

A guest by name means its IPv4 address unless the host's is an IPv6 one; '--address ::' is every IPv6 address of the
host but ::1, which the kernel forwards to nobody.")]
pub(super) struct ForwardAddArgs {
    /// The network the guests are on.
    #[arg(value_name = "NETWORK")]
    pub(super) network: String,
    /// The host's port, or a range.
    #[arg(value_name = "PROTO/PORT[-PORT]")]
    pub(super) ports: HostPorts,
    /// Where it leads; the port is the host's unless another is given.
    #[arg(value_name = "GUEST[:PORT]", required = true, value_delimiter = ',', num_args = 1)]
    pub(super) targets: Vec<Target>,
    /// At this address of the host only. Without it: at every one of the targets' family.
    #[arg(long, value_name = "HOSTADDR")]
    pub(super) address: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ForwardDeleteArgs {
    /// The network the guests are on.
    #[arg(value_name = "NETWORK")]
    pub(super) network: String,
    /// The host's port, or a range, as it was added.
    #[arg(value_name = "PROTO/PORT[-PORT]")]
    pub(super) ports: HostPorts,
    /// The one at this address of the host; 0.0.0.0 is every IPv4 address, :: every IPv6 one.
    #[arg(long, value_name = "HOSTADDR")]
    pub(super) address: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct ForwardListArgs {
    /// Those of one network.
    #[arg(value_name = "NETWORK")]
    pub(super) network: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
It ends with Ctrl-C, and the file is whole then. A guest's or a network's ports that come later are captured too. The
file says which interface each packet passed and which way (in: from the guest), and whose addresses are whose.

  netd capture vm1 -w - | tcpdump -n -r -
  netd capture default -w default.pcapng --ring 64")]
pub(super) struct CaptureArgs {
    /// A guest, else a network (all of its ports), else a port's or a bridge's interface.
    #[arg(value_name = "GUEST|NETWORK|INTERFACE")]
    pub(super) what: String,
    /// Where to write; `-` is standard output.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Keep only the newest packets, so much of them, in memory; they are written at the end.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) ring: Option<u32>,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(super) seconds: Option<u64>,
    /// Bytes of each packet to keep.
    #[arg(long, value_name = "BYTES", default_value_t = WHOLE_FRAME, hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(64..=i64::from(WHOLE_FRAME)))]
    pub(super) snaplen: u32,
}

impl CaptureArgs {
    /// Whether standard output is written to.
    pub(super) fn to_stdout(&self) -> bool {
        self.file == Path::new("-")
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
A probe in the sender's name (a TCP SYN, an empty datagram, an echo request) is followed with nftables' trace to where it
leaves the host, and its answer until it is back. A guest's goes in by the guest's own tap; that of another machine by
the link it would come in by, as if it had come over the wire; that of the host, which is whoever has one of its
addresses, is sent by the host. It does reach its target. It shows what the host does, not how the guest is set up;
--no-probe waits for a packet that somebody else sends. The answer says which of them was traced. The exit status is 1
if something stops the flow.

  netd why vm1 1.1.1.1:443
  netd why vm1 192.168.122.1:53/udp
  netd why vm1 vm2:22
  netd why vm1 192.168.122.7 --from 192.168.122.50
  netd why 198.51.100.9 vm1:22                   from outside to a guest
  netd why 198.51.100.9 203.0.113.2:2222         and by a port forward of the host
  netd why 127.0.0.1 127.0.0.1:2222              the same from the host itself")]
pub(super) struct WhyArgs {
    /// Who sends it: a guest's name, the interface of its port, or an address.
    #[arg(value_name = "GUEST|INTERFACE|ADDRESS")]
    pub(super) sender: String,
    /// Where the flow goes: TCP to a port unless /udp is said, an echo request without a port.
    #[arg(value_name = "ADDRESS|GUEST[:PORT[/tcp|udp]]")]
    pub(super) destination: Destination,
    /// An echo request: what an address without a port means anyway.
    #[arg(long)]
    pub(super) icmp: bool,
    /// The guest's address [default: that of its lease].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Option<IpAddr>,
    /// Send nothing: wait for a packet of the flow.
    #[arg(long)]
    pub(super) no_probe: bool,
    /// How long to wait for a packet of the flow.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub(super) wait: u16,
    /// For programs.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum PortVerb {
    /// Run a program with a new port; the port is gone when the program is.
    #[command(after_help = "\
The queues of the tap are the descriptors 3, 4, … of the program. It also gets NETD_PORT_FDS (3:4:…),
NETD_PORT_MAC, NETD_PORT_INTERFACE and NETD_PORT_MTU in its environment.

  netd port exec default -- sh -c 'exec qemu-system-x86_64 \\
      -netdev tap,id=n,fd=3 -device virtio-net-pci,netdev=n,mac=$NETD_PORT_MAC …'")]
    Exec(PortExecArgs),
}

#[derive(Args, Debug)]
pub(super) struct PortExecArgs {
    #[command(flatten)]
    pub(super) network: NetworkArg,
    /// The guest's name, by which DNS and domifaddr know it.
    #[arg(long, value_name = "NAME")]
    pub(super) guest: Option<String>,
    /// The guest's MAC address [default: a new one].
    #[arg(long, value_name = "MAC")]
    pub(super) mac: Option<String>,
    /// The network's port group, which has the port's VLANs and how fast it may be [default: the network's default one].
    #[arg(long, value_name = "NAME")]
    pub(super) portgroup: Option<String>,
    /// Queue pairs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=253))]
    pub(super) queues: u32,
    /// Do not check what the guest sends: for a guest that routes or bridges for others. Without --mac nothing is
    /// checked anyway: the program's own MAC is not known.
    #[arg(long)]
    pub(super) no_guards: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}
