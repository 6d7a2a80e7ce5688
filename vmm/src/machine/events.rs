//! What vCPU threads have to say to the thread that runs the machine: a queue and something to poll.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
};

use super::power::Request;
use crate::control::Wake;

/// Something that concerns the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The guest asked.
    Request(Request),
    /// A CPU can't go on; why, in words for the user.
    Crash(String),
}

/// The queue; clones are the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Events(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    first: Mutex<Option<Event>>,
    wake: Wake,
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Events(Arc::new(Queue { first: Mutex::default(), wake: Wake::new()? })))
    }

    /// Queues an event. The first one stands until taken: whatever follows is a consequence of a machine already ending.
    pub(crate) fn send(&self, event: Event) {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(event);
        self.0.wake.signal();
    }

    /// Takes the event, if there is one.
    pub(crate) fn take(&self) -> Option<Event> {
        self.0.wake.clear();
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Readable when there is an event.
    pub(crate) fn ready(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_wins_and_is_taken_once() {
        let events = Events::new().unwrap();
        events.send(Event::Request(Request::Reset));
        events.send(Event::Crash("later".to_owned()));
        assert_eq!(events.take(), Some(Event::Request(Request::Reset)));
        assert_eq!(events.take(), None);
    }
}
