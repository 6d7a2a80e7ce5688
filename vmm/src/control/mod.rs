//! EDGE: a running guest's dealings with the world: signals to this process, what the guest asks for, its console.
//!
//! ```text
//!   running ──guest: power off──► Ended        ──SIGINT/SIGTERM/SIGHUP──► button pressed, running
//!      ▲ └──guest: reset──► stop, reset, start ──the second such signal──► Killed
//!      └───────────────────────────┘           ──a CPU can't go on──► error
//! ```
//! One thread waits here for all of it; it never looks into the guest.

pub(crate) mod console;
mod signals;
mod terminal;
mod wake;

use std::io;

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::AsFd;

pub(crate) use self::{signals::Signals, wake::Wake};
use crate::machine::{Machine, MachineError, events::Event, power::Request};

/// How a guest's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest switched itself off.
    PoweredOff,
    /// This process was told twice to stop; the number of the last signal.
    Killed(i32),
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
pub(crate) fn supervise(machine: &mut Machine, signals: &Signals) -> Result<End, RunError> {
    let result = machine.start().map_err(RunError::from).and_then(|()| attend(machine, signals));
    machine.stop();
    result
}

fn attend(machine: &mut Machine, signals: &Signals) -> Result<End, RunError> {
    let mut asked_before = false;
    loop {
        wait(&[machine.events().ready(), signals.as_fd()]).map_err(RunError::Wait)?;
        match machine.events().take() {
            Some(Event::Request(Request::PowerOff)) => return Ok(End::PoweredOff),
            Some(Event::Request(Request::Reset)) => {
                tracing::debug!("the guest asked for a reset");
                machine.stop();
                machine.reset()?;
                machine.start()?;
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
        }
    }
}

/// Waits until one of the descriptors is readable.
fn wait(descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
    let mut polled: Vec<_> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
