//! EDGE: the thread of one queue pair: waits for the tap and for kicks, then lets the queues run.
//!
//! Notifications are off while a queue runs; it ends a burst early only when it has nothing to do, having asked to be
//! kicked.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::control::Control;
use super::nic::Nic;
use super::receive::Receive;
use super::transmit::Transmit;
use crate::net::Tap;
use crate::virtio::queue::VirtQueue;
use crate::virtio::worker::{Served, Waker, work};

const EXIT: u64 = 0;
const TAP: u64 = 1;
const RECEIVE: u64 = 2;
const TRANSMIT: u64 = 3;
const CONTROL: u64 = 4;

/// What one thread serves. A queue that the guest broke is `None`; the others go on.
pub(super) struct Pair {
    name: String,
    waker: Waker,
    receive: Option<Receive>,
    transmit: Option<Transmit>,
    control: Option<Control>,
}

impl Pair {
    /// Sets up everything that can fail.
    pub(super) fn new(
        name: String,
        nic: &Arc<Nic>,
        tap: &Arc<Tap>,
        mergeable: bool,
        receive: Option<VirtQueue>,
        transmit: Option<VirtQueue>,
    ) -> io::Result<Self> {
        let waker = Waker::new()?;
        watch(&waker, receive.as_ref(), RECEIVE)?;
        watch(&waker, transmit.as_ref(), TRANSMIT)?;
        if receive.is_some() {
            waker.watch(&**tap, TAP)?;
        }
        let receive = receive.map(|queue| Receive::new(queue, nic.clone(), tap.clone(), mergeable)).transpose()?;
        let transmit = transmit.map(|queue| Transmit::new(queue, nic.clone(), tap.clone())).transpose()?;
        let throttles = [
            (receive.as_ref().and_then(Served::throttle), RECEIVE),
            (transmit.as_ref().and_then(Served::throttle), TRANSMIT),
        ];
        for (throttle, token) in throttles {
            throttle.map_or(Ok(()), |throttle| waker.watch(throttle, token))?;
        }
        Ok(Self { name, waker, receive, transmit, control: None })
    }

    /// Serves the control queue too.
    pub(super) fn add_control(&mut self, control: Control) -> io::Result<()> {
        watch(&self.waker, Some(control.queue()), CONTROL)?;
        self.control = Some(control);
        Ok(())
    }

    /// Runs until `exit` is written.
    pub(super) fn run(mut self, exit: &EventFd) {
        if let Err(error) = self.serve(exit) {
            tracing::error!(device = self.name, %error, "a NIC's thread cannot wait for events; it ends");
        }
    }

    fn serve(&mut self, exit: &EventFd) -> io::Result<()> {
        self.waker.watch(exit, EXIT)?;
        // The driver may have filled the queues, and kicked, before we were there.
        let (mut receive, mut transmit, mut control) = (true, true, true);
        loop {
            receive = receive && work(&mut self.receive, &self.name);
            transmit = transmit && work(&mut self.transmit, &self.name);
            control = control && work(&mut self.control, &self.name);
            for token in self.waker.wait(receive || transmit || control)? {
                match token {
                    EXIT => return Ok(()),
                    TAP => {
                        receive = true;
                        if let Some(queue) = &mut self.receive {
                            queue.tap_is_ready();
                        }
                    }
                    RECEIVE => receive = true,
                    TRANSMIT => transmit = true,
                    _ => control = true,
                }
            }
        }
    }
}

fn watch(waker: &Waker, queue: Option<&VirtQueue>, token: u64) -> io::Result<()> {
    queue.map_or(Ok(()), |queue| waker.watch(queue.kick(), token))
}
