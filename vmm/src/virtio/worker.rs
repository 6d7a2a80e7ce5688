//! EDGE: a device's thread: started with a name, told to end by an event descriptor, joined; and what it waits for.

use std::io;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::queue::{QueueError, VirtQueue};
use super::throttle::Throttle;
use crate::sandbox::{self, Role};

/// A running thread. Dropping it ends and joins it.
#[derive(Debug)]
pub(crate) struct Worker {
    exit: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `body` on a thread called `name`. `body` returns soon after the descriptor it is given becomes readable.
    pub(crate) fn start(name: &str, body: impl FnOnce(EventFd) + Send + 'static) -> io::Result<Self> {
        Self::start_as(Role::Device, name, body)
    }

    /// The same for a thread that does more than devices' threads do.
    pub(crate) fn start_as(role: Role, name: &str, body: impl FnOnce(EventFd) + Send + 'static) -> io::Result<Self> {
        let exit = EventFd::new(libc::EFD_NONBLOCK)?;
        let theirs = exit.try_clone()?;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || match sandbox::take(role) {
            Ok(()) => body(theirs),
            Err(error) => tracing::error!(%error, "a device's thread cannot enter its sandbox; it ends"),
        })?;
        Ok(Self { exit, thread: Some(thread) })
    }

    /// Starts a thread that serves one queue.
    pub(crate) fn serve(name: &str, queue: impl Served + 'static) -> io::Result<Self> {
        let waker = Waker::new()?;
        waker.watch(queue.queue().kick(), KICK)?;
        queue.throttle().map_or(Ok(()), |throttle| waker.watch(throttle, KICK))?;
        let own_name = name.to_owned();
        Self::start(name, move |exit| {
            if let Err(error) = serve(&own_name, waker, queue, &exit) {
                tracing::error!(device = own_name, %error, "a device's thread cannot wait for events; it ends");
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.exit.write(1) {
            tracing::error!(%error, "cannot tell a device's thread to end");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's thread panicked");
        }
    }
}

/// A queue and what is done with its chains.
pub(crate) trait Served: Send {
    /// Works until there is nothing to do, having asked to be kicked, or a burst is full; true if there may be more to
    /// do.
    fn burst(&mut self) -> Result<bool, QueueError>;
    fn queue(&self) -> &VirtQueue;
    /// What holds the queue back, if anything can: its timer is a reason to work.
    fn throttle(&self) -> Option<&Throttle> {
        None
    }
}

/// Lets a queue work; if the guest broke it, says so and serves it no more. True if there may be more to do.
pub(crate) fn work<Q: Served>(queue: &mut Option<Q>, device: &str) -> bool {
    match queue.as_mut().map(Q::burst) {
        None => false,
        Some(Ok(more)) => more,
        Some(Err(error)) => {
            if let Some(queue) = queue.take() {
                queue.queue().broken(device, &error);
            }
            false
        }
    }
}

const EXIT: u64 = 0;
const KICK: u64 = 1;

fn serve(name: &str, mut waker: Waker, queue: impl Served, exit: &EventFd) -> io::Result<()> {
    waker.watch(exit, EXIT)?;
    let mut queue = Some(queue);
    loop {
        // The first time without a kick: the driver may have filled the queue before we were there.
        let more = work(&mut queue, name);
        if waker.wait(more)?.any(|token| token == EXIT) {
            return Ok(());
        }
    }
}

/// What a thread waits for. Descriptors are watched edge-triggered: an event descriptor need not be read, since each
/// write to it is an edge; a tap must be read until it is empty before waiting again.
pub(crate) struct Waker {
    epoll: Epoll,
    events: [EpollEvent; 8],
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, events: [EpollEvent::default(); 8] })
    }

    /// Watches `fd`, reported as `token`.
    pub(crate) fn watch(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, token);
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Watches `fd` for both directions, reported as `token` whichever it is: it can be read, or written, or has ended.
    pub(crate) fn watch_both(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED, token);
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Waits until something happens, or only looks if there is work left; answers the tokens.
    pub(crate) fn wait(&mut self, work_left: bool) -> io::Result<impl Iterator<Item = u64>> {
        let timeout = if work_left { 0 } else { -1 };
        let count = loop {
            match self.epoll.wait(timeout, &mut self.events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        Ok(self.events.iter().take(count).map(|event| event.data()))
    }
}
