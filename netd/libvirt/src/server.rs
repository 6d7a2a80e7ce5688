//! EDGE: the front door's life: sockets, clients, signals.

use std::{cell::RefCell, collections::HashMap, io, path::PathBuf, rc::Rc, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::{LocalSet, spawn_local},
};

use crate::{
    call::Front,
    host,
    listen::{self, ListenError, Listening},
    netd::{Netd, RESTART},
    socket::{self, Chunk},
};

/// Clients at once on one socket.
const MOST_CLIENTS: usize = 4096;

/// Clients at once of one user who is not root.
const MOST_PER_USER: usize = 128;

/// After `accept` failed (no descriptors left, say) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the front door is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The socket for everything.
    pub(crate) socket: PathBuf,
    /// The socket for looking only.
    pub(crate) read_only_socket: PathBuf,
    /// Members of this group may use the socket for everything, where there is such a group.
    pub(crate) group: String,
    /// netd's socket.
    pub(crate) netd: PathBuf,
}

/// Why the front door did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// A socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// tokio did not start.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(options: &Options) -> Result<(), ServerError> {
    let mut sockets = listen::activated()?;
    if sockets.is_empty() {
        // Whoever sees the first socket, which is made last, finds both.
        sockets.push(listen::listen(&options.read_only_socket, &options.group, true)?);
        sockets.push(listen::listen(&options.socket, &options.group, false)?);
    }
    give_back_memory();
    // One thread: what is done here is to pass on messages, and all who wait cost no more than what they wait for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, live(options, sockets))
}

async fn live(options: &Options, sockets: Vec<Listening>) -> Result<(), ServerError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    raise_descriptor_limit();
    let front = Rc::new(Front {
        netd: Rc::new(Netd::new(&options.netd, RESTART)),
        events: Rc::default(),
        host: host::Recent::default(),
    });
    let chunk = Rc::default();
    for socket in &sockets {
        let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
        tracing::info!("ready on {}{}", socket.place(), if socket.read_only { ", for looking only" } else { "" });
        spawn_local(accept(listener, socket.read_only, Rc::clone(&front), Rc::clone(&chunk)));
    }
    // Not started by systemd, or systemd does not listen: neither is our concern.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

/// Memory of a message that was long goes back to the system with it, and is not kept for the next.
fn give_back_memory() {
    // SAFETY: it sets a number of the allocator's, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// As many descriptors as the system lets us have: each client is one.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Fewer clients than there could be is no reason not to start.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

async fn accept(listener: UnixListener, read_only: bool, front: Rc<Front>, chunk: Rc<RefCell<Chunk>>) {
    let clients: Rc<RefCell<HashMap<u32, usize>>> = Rc::default();
    loop {
        let accepted = listener.accept().await.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream)));
        let (peer, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (user, pid) = (peer.uid(), peer.pid().unwrap_or_default());
        let Some(seat) = Seat::take(&clients, user) else {
            tracing::warn!("too many connections: one of user {user} (pid {pid}) refused");
            continue;
        };
        tracing::debug!("user {user} (pid {pid}) came");
        let (front, chunk) = (Rc::clone(&front), Rc::clone(&chunk));
        spawn_local(async move {
            match socket::serve(stream, read_only, front, chunk).await {
                Ok(()) => tracing::debug!("user {user} (pid {pid}) left"),
                Err(error) => tracing::info!("connection of user {user} (pid {pid}) ended: {error}"),
            }
            drop(seat);
        });
    }
}

/// One client's place; free again when dropped.
struct Seat {
    clients: Rc<RefCell<HashMap<u32, usize>>>,
    user: u32,
}

impl Seat {
    fn take(clients: &Rc<RefCell<HashMap<u32, usize>>>, user: u32) -> Option<Self> {
        let mut taken = clients.borrow_mut();
        let all: usize = taken.values().sum();
        let own = taken.entry(user).or_default();
        if all >= MOST_CLIENTS || (user != 0 && *own >= MOST_PER_USER) {
            return None;
        }
        *own += 1;
        Some(Seat { clients: Rc::clone(clients), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.clients.borrow_mut();
        if let Some(own) = taken.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.user);
            }
        }
    }
}
