//! EDGE: the user's terminal: raw while the guest has it, as it was afterwards, whichever way this process ends.
//!
//! Ctrl-C stays a signal, because it is how one stops the guest; every other key is the guest's, Ctrl-Z and Ctrl-\ too.

use std::{io, os::fd::AsFd};

use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};

/// `_POSIX_VDISABLE` on Linux: no key sends this signal.
const NO_KEY: u8 = 0;

/// Standard input in raw mode; dropping it restores the mode found.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw if it is a terminal and we are in its foreground.
    pub(super) fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        let Ok(before) = termios::tcgetattr(stdin.as_fd()) else {
            return Ok(None); // not a terminal
        };
        // A background job that changes the terminal is stopped by SIGTTOU.
        if tcgetpgrp(stdin.as_fd()).ok() != Some(getpgrp()) {
            return Ok(None);
        }
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw(&before))?;
        Ok(Some(RawTerminal { before }))
    }
}

/// Raw mode in which only the interrupt key is special.
fn raw(before: &Termios) -> Termios {
    let mut raw = before.clone();
    termios::cfmakeraw(&mut raw);
    raw.local_flags.insert(LocalFlags::ISIG);
    for key in [SpecialCharacterIndices::VQUIT, SpecialCharacterIndices::VSUSP] {
        raw.control_chars[key as usize] = NO_KEY;
    }
    raw
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore and nobody to tell.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}
