//! EDGE: a running guest's dealings with the world: signals to this process, what the guest asks for, its console, and
//! who asks about it on its control socket.
//!
//! ```text
//!   running ──guest: power off──► Ended        ──SIGINT/SIGTERM/SIGHUP──► button pressed, running
//!      ▲ └──guest: reset──► stop, reset, start ──the second such signal──► Killed
//!      └───────────────────────────┘           ──a CPU can't go on──► error
//! ```
//! One thread waits here for all of it; it never looks into the guest.

pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod console;
pub(crate) mod listener;
mod signals;
pub(crate) mod socket;
mod terminal;
mod wake;

use std::io;

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::AsFd;

use self::{
    answer::{Deed, Guest},
    api::EventKind,
    socket::Control,
};
pub(crate) use self::{signals::Signals, wake::Wake};
use crate::machine::{Machine, MachineError, events::Event, power::Request};

/// How a guest's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest switched itself off.
    PoweredOff,
    /// This process was told twice to stop; the number of the last signal.
    Killed(i32),
    /// It was told on its control socket to quit.
    Quit,
}

/// Why a guest's run ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the guest stopped: {0}")]
    Crash(String),
    #[error("failed to wait for the guest: {0}")]
    Wait(io::Error),
}

/// Starts the machine and stays with it to its end; its CPUs are stopped on return, whatever happened.
pub(crate) fn supervise(
    machine: &mut Machine,
    guest: &Guest,
    signals: &Signals,
    control: &Control,
) -> Result<End, RunError> {
    let result = machine.start().map_err(RunError::from).and_then(|()| attend(machine, guest, signals, control));
    machine.stop();
    control.tell(EventKind::Ended);
    result
}

fn attend(machine: &mut Machine, guest: &Guest, signals: &Signals, control: &Control) -> Result<End, RunError> {
    control.tell(EventKind::Started);
    let mut asked_before = false;
    loop {
        wait(&[machine.events().ready(), signals.as_fd(), control.wake().as_fd()]).map_err(RunError::Wait)?;
        match machine.events().take() {
            Some(Event::Request(Request::PowerOff)) => return Ok(End::PoweredOff),
            Some(Event::Request(Request::Reset)) => {
                tracing::debug!("the guest asked for a reset");
                reset(machine, control)?;
            }
            Some(Event::Crash(why)) => return Err(RunError::Crash(why)),
            None => {}
        }
        while let Some(signal) = signals.next().map_err(RunError::Wait)? {
            if asked_before {
                return Ok(End::Killed(signal));
            }
            asked_before = true;
            tracing::info!("asking the guest to power off; the same signal again stops it at once");
            machine.press_power_button().map_err(RunError::Wait)?;
            control.tell(EventKind::PowerButton);
        }
        while let Some(question) = control.next() {
            let (answer, deed) = answer::answer(guest, machine, &question.call);
            match deed {
                Deed::None => {}
                Deed::Tell(event) => control.tell(event),
                Deed::Reset => reset(machine, control)?,
                Deed::Quit => {
                    question.answer(answer);
                    return Ok(End::Quit);
                }
            }
            question.answer(answer);
        }
    }
}

fn reset(machine: &mut Machine, control: &Control) -> Result<(), MachineError> {
    machine.stop();
    machine.reset()?;
    machine.start()?;
    control.tell(EventKind::Reset);
    Ok(())
}

/// Waits until one of the descriptors is readable.
fn wait(descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
    let mut polled: Vec<_> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
