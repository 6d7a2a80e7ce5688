//! What the doctor has seen of a host, as plain values. `probe` fills them in, the checks judge them, tests build them.

use std::{net::IpAddr, path::PathBuf};

use crate::{host::HostState, model::Network};

/// Why something could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// This user may not.
    Forbidden,
    /// It went wrong, for this reason.
    Failed(String),
}

/// Something seen, or why not.
pub type Seen<T> = Result<T, Unseen>;

/// Everything the checks judge.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The user is root.
    pub root: bool,
    /// `/dev/kvm`.
    pub kvm: Device,
    /// `/dev/vhost-net`.
    pub vhost_net: Device,
    /// `/dev/net/tun`.
    pub tun: Device,
    /// What running a CPU came to.
    pub vcpu: Vcpu,
    /// The modules networks are made with.
    pub modules: Modules,
    /// The effective capabilities of this process, as `/proc/self/status` has them.
    pub capabilities: Seen<String>,
    /// Whether the kernel would take rules like ours.
    pub nft: Nft,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Seen<bool>,
    /// `net.ipv4.conf.*.rp_filter` by interface, `all` among them.
    pub rp_filter: Seen<Vec<(String, u8)>>,
    /// Those of `net.bridge.bridge-nf-call-{iptables,ip6tables,arptables}` that are on.
    pub bridge_netfilter: Seen<Vec<String>>,
    /// The rules of every table.
    pub rules: Rules,
    /// Who listens on ports 53 and 67.
    pub listeners: Seen<Vec<Listener>>,
    /// Links, addresses and routes.
    pub host: Seen<HostState>,
    /// The networks of this host.
    pub networks: Seen<Vec<Known>>,
    /// Where names are looked up.
    pub resolvers: Resolvers,
    /// Whether the daemon answers.
    pub daemon: Daemon,
    /// The daemon's directories.
    pub directories: Vec<Directory>,
    /// The file system that the leases are on.
    pub room: Seen<Room>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// It can be opened for reading and writing.
    Open,
    /// There is none.
    Absent,
    /// There is one that this user may not open.
    Forbidden,
    /// There is one that cannot be opened, for this reason.
    Broken(String),
}

/// What `vmm probe` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vcpu {
    /// A CPU ran.
    Runs,
    /// None did, for this reason.
    DoesNot(String),
    /// There is no `vmm` to ask.
    NoVmm,
    /// There was nothing to ask it: `/dev/kvm` cannot be opened.
    NoKvm,
}

/// Kernel modules by what they are to this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// The kernel cannot load modules: all it has is built in.
    pub fixed: bool,
    /// The running kernel's release.
    pub release: String,
    /// Names of modules loaded or built in.
    pub present: Vec<String>,
    /// Names of modules on disk for this kernel; `None` if there is no directory of them.
    pub on_disk: Option<Vec<String>>,
}

/// What came of handing the kernel a ruleset to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nft {
    /// It would take it.
    Works,
    /// There is no `nft` program.
    Absent,
    /// This user may not.
    Forbidden,
    /// The kernel lacks a part, or `nft` refused for another reason.
    Refused(String),
}

/// The rules of the host, as the programs that know them print them.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `nft -j list ruleset`.
    pub nft: Seen<String>,
    /// `iptables-nft-save`, where tables of it exist: in JSON its matches are opaque.
    pub iptables_nft: Option<String>,
    /// `iptables-legacy-save`, where the kernel has such tables; `None` inside if there is no program to read them.
    pub legacy: Seen<Option<String>>,
    /// The tables the kernel has for legacy iptables.
    pub legacy_tables: Vec<String>,
}

/// A socket that has a port we care about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// It is TCP, not UDP.
    pub tcp: bool,
    /// The address it is bound to.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Name and pid, where this user may see them.
    pub program: Option<(String, u32)>,
}

/// A network of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The network.
    pub network: Network,
    /// It is started; `None` if only the daemon could tell.
    pub active: Option<bool>,
}

impl Known {
    /// The name of the bridge that it makes, once it has one.
    pub fn bridge(&self) -> Option<&str> {
        let name = self.network.bridge.name.as_ref().filter(|_| self.network.forward.has_own_bridge());
        name.map(crate::model::BridgeName::as_str)
    }
}

/// The host's resolver set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// The file that lists them.
    pub path: PathBuf,
    /// What is there.
    pub file: ResolvConf,
    /// What systemd-resolved asks itself (`/run/systemd/resolve/resolv.conf`), if it runs.
    pub behind_stub: Option<String>,
}

/// A resolv.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvConf {
    /// Its text.
    Text(String),
    /// No such file.
    Missing,
    /// A link to this, which does not exist.
    Dangling(PathBuf),
    /// It cannot be read.
    Unreadable(String),
}

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It answered on this socket.
    Answers(PathBuf),
    /// Nobody listens there.
    Absent(PathBuf),
    /// This user may not connect.
    Forbidden(PathBuf),
    /// Somebody listens and does not answer as a daemon does.
    Broken(PathBuf, String),
}

impl Daemon {
    /// It runs.
    pub fn answers(&self) -> bool {
        matches!(self, Daemon::Answers(_))
    }
}

/// One of the daemon's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// What for.
    pub role: &'static str,
    /// Which.
    pub path: PathBuf,
    /// Whether the daemon could write there (or make it, if it is missing).
    pub state: DirectoryState,
}

/// What may be done with a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    /// It is there and can be written.
    Writable,
    /// It is not there; the daemon can make it.
    Creatable,
    /// This user may not write there; the daemon may be another user.
    Forbidden,
    /// Nobody can write there, for this reason.
    Broken(String),
}

/// How much fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on the file system.
    pub path: PathBuf,
    /// Bytes free for the daemon.
    pub bytes: u64,
    /// Files that can still be made; `None` where the file system does not count them.
    pub files: Option<u64>,
}
