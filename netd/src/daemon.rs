//! EDGE: the daemon's life: directories and their lock, sockets, signals, and what it hears from the kernel.
//!
//! ```text
//! lock ──► open store and leases ──► recover ──► listen ──► READY=1 ──► serve … ──► SIGTERM ──► STOPPING=1
//! ```
//!
//! Stopping the daemon stops no network: bridges, rules and guests stay, and the next daemon adopts them. It decides
//! nothing about networks; that is `registry` through `verbs`.

mod lock;
mod privileges;

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    apply::{Guards, Kernel},
    beside,
    events::{self, Bus, Heard, LeaseFront, Listener},
    hooks::Hooks,
    metrics::serve::Pages,
    nss,
    observe::{self, Event, Netlink, ObserveError},
    port::closings::Closings,
    registry::Registry,
    server::{self, Access},
    snoop::Snoop,
    store::{Store, StoreError},
    verbs::{VerbError, Verbs},
};

pub use lock::LockError;
pub use privileges::MissingPrivilege;
pub(crate) use privileges::{missing as missing_capabilities, raise_descriptor_limit};

/// The socket for clients that may change things, in the runtime directory.
pub const SOCKET: &str = "netd.sock";

/// The socket for everyone.
pub const READ_ONLY_SOCKET: &str = "netd-ro.sock";

/// The socket that metrics are read from.
pub const METRICS_SOCKET: &str = "metrics.sock";

/// Device nodes of macvtaps, in the runtime directory, where the host has none that fit.
const DEVICES: &str = "devices";

/// Members of this group may use [`SOCKET`].
pub const GROUP: &str = "netd";

/// After a disturbance the host is looked at this much later, once for all that happened meanwhile.
const SETTLING: Duration = Duration::from_millis(100);

/// What the daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Definitions.
    pub config_dir: PathBuf,
    /// Leases.
    pub state_dir: PathBuf,
    /// Sockets, and what is active.
    pub runtime_dir: PathBuf,
    /// Where the host's resolvers are listed.
    pub resolv_conf: PathBuf,
    /// Where metrics are served over TCP too: a loopback address.
    pub metrics: Option<SocketAddr>,
    /// Where libvirt's NSS modules are to find guests' names; `dnsmasq` in the runtime directory if absent.
    pub nss_dir: Option<PathBuf>,
    /// A file like /etc/hosts to keep guests' names in; none unless asked for.
    pub hosts_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config_dir: "/etc/netd".into(),
            state_dir: "/var/lib/netd".into(),
            runtime_dir: "/run/netd".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            metrics: None,
            nss_dir: None,
            hosts_file: None,
        }
    }
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It may not do what a daemon does.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// Another one is at work there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directories are of no use.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lease database is of no use.
    #[error(transparent)]
    Leases(#[from] dhcp::Error),
    /// The host cannot be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// What an earlier daemon left could not be put in order.
    #[error("cannot take over: {0}")]
    Recover(#[from] VerbError),
    /// A socket cannot be made.
    #[error("cannot listen on {}: {cause}", path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Metrics cannot be served over TCP.
    #[error("cannot serve metrics on {address}: {cause}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// tokio did not start.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let result = runtime.block_on(live(options));
    // A call that hangs must not keep the daemon from ending.
    runtime.shutdown_background();
    result
}

async fn live(options: &Options) -> Result<(), DaemonError> {
    privileges::check()?;
    // Before anything that takes time, so that a signal during the start is not the default one's sudden end.
    let mut signals = Signals::new().map_err(DaemonError::Runtime)?;
    let directories = [(&options.config_dir, 0o755), (&options.state_dir, 0o700), (&options.runtime_dir, 0o755)];
    let mut locks = Vec::new();
    for (directory, mode) in directories {
        make_directory(directory, mode)?;
        locks.push(lock::lock(directory)?);
    }
    privileges::raise_descriptor_limit();
    let (store, first) = Store::open(&options.config_dir, &options.runtime_dir)?;
    let guards = Arc::new(Guards::new().map_err(ObserveError::Socket)?);
    let hooks = Hooks::new(options.config_dir.join("hooks"));
    let bus = Bus::default();
    let front = LeaseFront::new(guards.clone(), bus.clone());
    let services = dhcp::Services::open_watched(&options.state_dir.join("leases.db"), Arc::new(front)).await?;
    let (moves, names) = (bus.listen(), bus.listen());
    let (others, hosts) = (bus.listen(), bus.listen());
    let (closings, closed) = Closings::new().map_err(ObserveError::Socket)?;
    let nodes = options.runtime_dir.join(DEVICES);
    let kernel = Kernel::new(Netlink::open()?, services, guards, Snoop::new(bus.clone()), hooks, closings, nodes)
        .map_err(ObserveError::Socket)?;
    let verbs = Verbs::new(kernel, store, Registry::new(&options.resolv_conf), bus);
    // From before the ports are counted, so that none can go unnoticed in between.
    let events = observe::events()?;
    // What a trace that was broken off with an earlier daemon has left.
    crate::why::follow::tidy().await;
    verbs.recover(first).await?;

    let pages = Pages::new(Arc::clone(&verbs));
    let metrics = listen(&options.runtime_dir.join(METRICS_SOCKET), 0o666)?;
    let metrics_over_tcp = match options.metrics {
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|cause| DaemonError::Metrics { address, cause })?)
        }
        None => None,
    };

    let files = match &options.nss_dir {
        Some(directory) => nss::Files::new(directory.clone()),
        None => nss::Files::in_own(options.runtime_dir.join("dnsmasq"), &verbs.active_bridges()),
    };
    // Whoever sees the first socket, which is made last, finds both.
    let read_only = listen(&options.runtime_dir.join(READ_ONLY_SOCKET), 0o666)?;
    let socket = listen(&options.runtime_dir.join(SOCKET), 0o660)?;
    let mut tasks = vec![
        tokio::spawn(pages.clone().serve_unix(metrics)),
        tokio::spawn(server::serve(socket, Access::Full, Arc::clone(&verbs))),
        tokio::spawn(server::serve(read_only, Access::ReadOnly, Arc::clone(&verbs))),
        tokio::spawn(heed(events, Arc::clone(&verbs))),
        tokio::spawn(follow(moves, Arc::clone(&verbs))),
        tokio::spawn(nss::keep(names, Arc::clone(&verbs), files.clone())),
        tokio::spawn(bury(closed, Arc::clone(&verbs))),
        tokio::spawn(beside::bus::keep(others, Arc::clone(&verbs))),
        tokio::spawn(expire(Arc::clone(&verbs))),
    ];
    if let Some(path) = options.hosts_file.clone() {
        tasks.push(tokio::spawn(beside::hosts::keep(hosts, Arc::clone(&verbs), path)));
    }
    if let Some(listener) = metrics_over_tcp {
        tasks.push(tokio::spawn(pages.serve_tcp(listener)));
    }
    notify(sd_notify::NotifyState::Ready);
    tracing::info!("ready on {}", options.runtime_dir.join(SOCKET).display());

    signals.wait().await;
    notify(sd_notify::NotifyState::Stopping);
    tracing::info!("stopping; networks and guests stay as they are");
    // The verb that runs ends first; none begins after it.
    let _quiet = verbs.quiet().await;
    for task in tasks {
        task.abort();
    }
    crate::why::follow::tidy().await;
    files.finish(&verbs).await;
    for name in [SOCKET, READ_ONLY_SOCKET, METRICS_SOCKET] {
        // A socket that cannot be removed is replaced by the next daemon.
        let _ = fs::remove_file(options.runtime_dir.join(name));
    }
    Ok(())
}

/// The kernel does not tell of every setting: this often those of active networks are looked at.
const SETTINGS: Duration = Duration::from_millis(500);

/// What the kernel says, as long as it says something.
async fn heed(mut events: impl Stream<Item = Event> + Unpin, verbs: Arc<Verbs<Kernel>>) {
    let mut due = None;
    let mut look_again = tokio::time::interval(SETTINGS);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drift = Vec::new();
    loop {
        let wake = due.unwrap_or_else(Instant::now);
        tokio::select! {
            event = events.next() => {
                let look = match event {
                    Some(Event::Gone { index, name }) => verbs.link_gone(index, &name).await,
                    Some(Event::Disturbed) => true,
                    None => break,
                };
                if look {
                    due.get_or_insert_with(|| Instant::now() + SETTLING);
                }
            }
            _ = look_again.tick() => {
                // What could not be put right is not tried again before something else changes.
                let found = verbs.drift();
                if !found.is_empty() && found != drift {
                    due.get_or_insert_with(|| Instant::now() + SETTLING);
                }
                drift = found;
            }
            () = tokio::time::sleep_until(wake), if due.is_some() => {
                due = None;
                if let Err(error) = verbs.reconcile().await {
                    tracing::error!("{error}");
                }
            }
        }
    }
    tracing::error!("the kernel's events ended: what other programs do to networks is noticed only by the next daemon");
}

/// What becomes of guests' addresses, for port forwards.
async fn follow(mut moves: Listener, verbs: Arc<Verbs<Kernel>>) {
    while let Some(first) = moves.next().await {
        // One look for all that has happened meanwhile.
        let (mut networks, mut everywhere) = (BTreeSet::new(), false);
        let mut next = Some(first);
        while let Some(heard) = next {
            match heard {
                Heard::Event(event) if events::moves_guests(event.kind) => match &event.network {
                    Some(network) => drop(networks.insert(network.clone())),
                    None => everywhere = true,
                },
                Heard::Event(_) => {}
                Heard::Missed(_) => everywhere = true,
            }
            next = moves.waiting();
        }
        if everywhere || !networks.is_empty() {
            verbs.follow_guests((!everywhere).then_some(&networks)).await;
        }
    }
}

/// The ends of macvtaps' owners.
async fn bury(mut closed: impl Stream<Item = u32> + Unpin, verbs: Arc<Verbs<Kernel>>) {
    while let Some(index) = closed.next().await {
        verbs.closed(index).await;
    }
}

/// What was changed and is not confirmed in time.
async fn expire(verbs: Arc<Verbs<Kernel>>) {
    let mut changed = verbs.deadlines();
    loop {
        match verbs.expire_changes().await {
            // A machine that sleeps passes the time too: it is looked at again at least this often.
            Some(seconds) => {
                let wake = Duration::from_secs(seconds.clamp(1, 30));
                tokio::select! {
                    () = tokio::time::sleep(wake) => {}
                    _ = changed.changed() => {}
                }
            }
            None if changed.changed().await.is_ok() => {}
            None => return,
        }
    }
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Not started by systemd, or systemd does not listen: neither is the daemon's concern.
    let _ = sd_notify::notify(&[state]);
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|cause| StoreError {
        action: "create the directory",
        path: path.to_owned(),
        cause,
    })
}

fn listen(path: &Path, mode: u32) -> Result<UnixListener, DaemonError> {
    let failed = |cause| DaemonError::Listen { path: path.to_owned(), cause };
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) {
        nix::unistd::chown(path, None, Some(group.gid)).map_err(|errno| failed(errno.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
