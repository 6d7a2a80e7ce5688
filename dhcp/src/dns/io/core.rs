//! EDGE: the resolver behind a lock, with the clock, and what its actions do to sockets and tasks.
//!
//! The lock is held while the resolver decides and never while anything waits.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    task::{AbortHandle, JoinSet},
};

use super::{
    ask,
    udp::{Origin, UdpPort},
};
use crate::{
    dns::{
        resolver::{Action, Ask, Resolver, Transport},
        wire::Query,
    },
    stats::Stats,
};

/// How to reach a client again.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// A datagram. Weak: a question in flight keeps no socket open.
    Udp { port: Weak<UdpPort>, origin: Origin },
    /// A connection. The permit is the answer's place in it, given back once it is written or dropped.
    Tcp { answers: mpsc::Sender<Answer>, place: OwnedSemaphorePermit },
}

/// A client that waits, since when, and how to reach it.
#[derive(Debug)]
pub(super) struct Client {
    to: ReplyTo,
    since: Instant,
}

/// An answer on its way to a connection.
pub(super) type Answer = (Vec<u8>, OwnedSemaphorePermit);

/// What all tasks of a service share.
pub(super) struct Core {
    state: Mutex<State>,
    /// The time to wake up has come nearer.
    rearm: Notify,
    stats: Arc<Stats>,
    /// Questions are written to the log.
    logs: AtomicBool,
}

struct State {
    resolver: Resolver<Client>,
    /// The tasks that wait on upstreams, by lookup.
    asks: HashMap<u64, Vec<AbortHandle>>,
    /// Every task of the service; `None` once it is closed.
    tasks: Option<JoinSet<()>>,
    /// What `keep_time` sleeps until.
    armed: Option<Instant>,
}

impl Core {
    pub(super) fn new(resolver: Resolver<Client>, stats: Arc<Stats>) -> Core {
        let tasks = Some(JoinSet::new());
        let state = State { resolver, asks: HashMap::new(), tasks, armed: None };
        Core { state: Mutex::new(state), rearm: Notify::new(), stats, logs: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task as long as the service runs.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.state().spawn(task);
    }

    /// Ends the service: nothing is spawned any more. The tasks still to be ended are the caller's.
    pub(super) fn close(&self) -> Option<JoinSet<()>> {
        self.state().tasks.take()
    }

    /// Whether questions are written to the log from now on.
    pub(super) fn log(&self, logs: bool) {
        self.logs.store(logs, Ordering::Relaxed);
    }

    /// A client's message.
    pub(super) fn query(self: &Arc<Self>, from: IpAddr, over: Transport, to: ReplyTo, message: &[u8]) {
        if self.logs.load(Ordering::Relaxed)
            && let Ok(query) = Query::parse(message)
        {
            tracing::info!("DNS: {from} asks for {}, type {}", query.name, query.qtype);
        }
        let client = Client { to, since: Instant::now() };
        self.change(|resolver, now, out| resolver.query(from, over, client, message, now, out));
    }

    /// Lets the resolver decide, then does what it says.
    pub(super) fn change(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Resolver<Client>, Instant, &mut Vec<Action<Client>>),
    ) {
        let mut out = Vec::new();
        let mut replies = Vec::new();
        {
            let mut state = self.state();
            decide(&mut state.resolver, Instant::now(), &mut out);
            for action in out {
                match action {
                    Action::Reply { to, message } => replies.push((to, message)),
                    Action::Ask { ask, upstream, over, message } => {
                        let task = ask::put(self.clone(), ask, upstream, over, message);
                        if let Some(handle) = state.spawn(task) {
                            state.asks.entry(ask.lookup).or_default().push(handle);
                        }
                    }
                    Action::Forget { lookup } => {
                        for handle in state.asks.remove(&lookup).unwrap_or_default() {
                            handle.abort();
                        }
                    }
                }
            }
            let wake = state.resolver.wake_at();
            if wake.is_some_and(|wake| state.armed.is_none_or(|armed| wake < armed)) {
                state.armed = wake;
                self.rearm.notify_one();
            }
        }
        for (Client { to, since }, message) in replies {
            self.stats.answered(&message, since.elapsed());
            to.send(message);
        }
    }

    /// An upstream's message.
    pub(super) fn reply(self: &Arc<Self>, ask: Ask, message: &[u8]) {
        self.change(|resolver, now, out| resolver.reply(ask, message, now, out));
    }

    /// No message will come from that socket.
    pub(super) fn unreachable(self: &Arc<Self>, ask: Ask) {
        self.change(|resolver, now, out| resolver.unreachable(ask, now, out));
    }
}

impl State {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let tasks = self.tasks.as_mut()?;
        while tasks.try_join_next().is_some() {}
        Some(tasks.spawn(task))
    }
}

impl ReplyTo {
    /// Sends without waiting. What can't be sent is lost, as a datagram may be; a connection always has room for the
    /// answers it holds places for.
    fn send(self, message: Vec<u8>) {
        match self {
            ReplyTo::Udp { port, origin } => {
                if let Some(port) = port.upgrade()
                    && let Err(error) = port.send(&message, origin)
                {
                    tracing::debug!(peer = %origin.peer, %error, "can't send a DNS reply");
                }
            }
            ReplyTo::Tcp { answers, place } => drop(answers.try_send((message, place))),
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

/// Wakes the resolver when it asked for it.
pub(super) async fn keep_time(core: Arc<Core>) {
    loop {
        let wake = {
            let mut state = core.state();
            state.armed = state.resolver.wake_at();
            state.armed
        };
        match wake {
            None => core.rearm.notified().await,
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {
                        core.change(|resolver, now, out| resolver.tick(now, out));
                    }
                    () = core.rearm.notified() => {}
                }
            }
        }
    }
}
